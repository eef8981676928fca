//! A statement made ready: what it is, its parameters, its columns.

use crate::{
    database::Database,
    pg::{Column, PgError},
    session::Session,
    statement::{self, instants, service_lookup::PreparedService},
    wire::{
        self, RowWriter, pg_type,
        types::{declared_field, oid, pg_type_of_sql},
    },
};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlan},
};
use std::sync::Arc;
use tidemark_catalog::ObjectId;
use tidemark_planner::{
    Statement,
    lookup::{self, Keys, Lookup},
    shown::{self, Shown},
    statement::{Parsed, ResetTo},
};

pub struct Prepared {
    pub parsed: Option<Parsed>,
    /// Of a lookup that was recognised by its fingerprint and not parsed: its text, in case it cannot be answered so.
    pub unparsed: Option<Box<str>>,
    pub lookup: Option<PreparedLookup>,
    /// The same of several feature views at once.
    pub service: Option<PreparedService>,
    /// The query of a DECLARE.
    pub declared: Option<Arc<Prepared>>,
    pub parameter_oids: Vec<u32>,
    pub schema: Option<SchemaRef>,
    pub columns: Option<Arc<[Column]>>,
    /// The catalog's generation this was prepared for.
    pub generation: u64,
    /// The session's temporary tables this was prepared for.
    pub temporary_version: u64,
    /// The schemas that names were looked for in: see [`Session::path_key`].
    pub path: Option<Arc<str>>,
    /// The plan, where it is to be executed at once (simple protocol): its instant is the statement's.
    pub plan: Option<statement::query::Analysed>,
}

pub struct PreparedLookup {
    pub keys: Keys,
    pub shape: Arc<LookupShape>,
}

/// What lookups of the same columns of the same view share.
pub struct LookupShape {
    pub view: ObjectId,
    /// Of the columns asked for: their place among the view's.
    pub columns: Vec<usize>,
    pub writer: RowWriter,
    pub key_types: Vec<DataType>,
    pub key_oids: Vec<u32>,
}

impl Prepared {
    pub fn empty() -> Prepared {
        Prepared {
            parsed: None,
            unparsed: None,
            lookup: None,
            service: None,
            declared: None,
            parameter_oids: vec![],
            schema: None,
            columns: None,
            generation: 0,
            temporary_version: 0,
            path: None,
            plan: None,
        }
    }

    /// The same lookup with other keys.
    pub fn with_keys(&self, keys: Keys, sql: &str) -> Prepared {
        Prepared {
            parsed: None,
            unparsed: Some(sql.into()),
            lookup: self.lookup.as_ref().map(|lookup| PreparedLookup { keys, shape: lookup.shape.clone() }),
            service: None,
            declared: None,
            parameter_oids: vec![],
            schema: self.schema.clone(),
            columns: self.columns.clone(),
            generation: self.generation,
            temporary_version: 0,
            path: self.path.clone(),
            plan: None,
        }
    }

    /// Whether the columns have the names and types of the other's.
    pub fn shows_as(&self, other: &Prepared) -> bool {
        matches!((&self.columns, &other.columns), (Some(one), Some(other)) if same_columns(one, other))
    }

    /// The same lookup of several views with literals for its parameters.
    pub fn with_literals<'a>(&self, literals: impl Iterator<Item = &'a str>, sql: &str) -> Prepared {
        Prepared {
            unparsed: Some(sql.into()),
            service: self.service.as_ref().map(|service| service.with_literals(&self.parameter_oids, literals)),
            schema: self.schema.clone(),
            columns: self.columns.clone(),
            generation: self.generation,
            path: self.path.clone(),
            ..Prepared::empty()
        }
    }

    /// `declared` are the OIDs the client gave (0: not given); `at_once`: the plan may be kept for the execution that
    /// follows.
    pub async fn new(
        database: &Database,
        session: &mut Session,
        parsed: Parsed,
        declared: &[u32],
        at_once: bool,
    ) -> Result<Prepared, PgError> {
        let snapshot = session.snapshot(database);
        let mut prepared = Prepared {
            generation: snapshot.generation,
            temporary_version: session.temporary_version(),
            path: session.path_key(database),
            ..Prepared::empty()
        };
        match &parsed.statement {
            Statement::Query(query) => match lookup::recognise(query, &snapshot) {
                Some(lookup) if prepared.prepare_lookup(&snapshot, lookup.clone(), declared)? => {}
                _ => {
                    let numbers = instants::of_query(query);
                    let declared = &instants::declared(&numbers, &with_cast_types(query, declared))?;
                    let query = &instants::standing_in(query, &numbers, database.clock.now_us())?;
                    let (plan, oids) = typed(database, session, query, declared)?;
                    prepared.schema = Some(shown::schema(&plan.plan));
                    if numbers.is_empty() && lookup::service::may_be(query, &snapshot) {
                        let described = prepared.schema.as_deref();
                        prepared.service = PreparedService::of(database, session, query, &oids, described)?;
                    }
                    prepared.parameter_oids = oids;
                    prepared.plan = (at_once && numbers.is_empty()).then_some(plan);
                }
            },
            Statement::Insert(insert) => {
                let numbers = instants::of_query(&insert.query);
                let mut declared = instants::declared(&numbers, &with_cast_types(&insert.query, declared))?;
                let mut types = statement::insert::parameter_types(&snapshot, insert, &mut declared)?;
                if types.len() < parameters_in_query(&insert.query) || types.contains(&None) {
                    let object = statement::insert::target(&snapshot, &insert.table)?;
                    let map = statement::insert::column_map(object, &insert.columns)?;
                    let query = statement::insert::with_defaults(object, &map, &insert.query);
                    let query = instants::standing_in(&query, &numbers, database.clock.now_us())?;
                    let plan = statement::query::bind(database, session, &query, &types)?;
                    types = deduced(&plan.plan, types)?.types;
                    declare_shown(&plan.plan, &mut declared)?;
                }
                prepared.parameter_oids = oids(&types, &declared);
                if insert.returning.is_some() {
                    let object = statement::insert::target(&snapshot, &insert.table)?;
                    prepared.schema =
                        returned(database, session, statement::insert::returning(object, insert), &types)?;
                }
            }
            Statement::Change(change) => {
                let mut declared = declared.to_vec();
                let types = statement::change::parameter_types(&snapshot, change, &mut declared)?;
                let object = statement::change::target(&snapshot, &change.table, change.command())?;
                let query = statement::change::with_defaults(object, change)?;
                let plan = statement::query::bind(database, session, &query, &types)?;
                let types = deduced(&plan.plan, types)?.types;
                declare_shown(&plan.plan, &mut declared)?;
                prepared.parameter_oids = oids(&types, &declared);
                if change.returning.is_some() {
                    prepared.schema =
                        returned(database, session, statement::change::returning(object, change), &types)?;
                }
            }
            Statement::Merge(merge) => {
                let mut declared = declared.to_vec();
                let types = statement::merge::parameter_types(&snapshot, merge, &mut declared)?;
                let object = statement::change::target(&snapshot, &merge.table, "MERGE")?;
                let query = statement::merge::with_defaults(object, merge)?;
                let plan = statement::query::bind(database, session, &query, &types)?;
                declare_shown(&plan.plan, &mut declared)?;
                prepared.parameter_oids = oids(&deduced(&plan.plan, types)?.types, &declared);
            }
            Statement::AdvanceWatermark { to, .. } | Statement::ResetTopic { to: ResetTo::Instant(to), .. } => {
                let numbers = instants::of_expression(to);
                if !numbers.is_empty() {
                    prepared.parameter_oids = oids(&[], &instants::declared(&numbers, declared)?);
                }
            }
            Statement::Declare { query, .. } => {
                let query = (**query).clone();
                let query = Box::pin(Prepared::new(database, session, query, declared, at_once)).await?;
                prepared.parameter_oids = query.parameter_oids.clone();
                prepared.declared = Some(Arc::new(query));
            }
            other => prepared.schema = statement::result_schema(session, other),
        }
        prepared.columns = prepared.schema.as_ref().map(|schema| columns(schema).into());
        prepared.parsed = Some(parsed);
        Ok(prepared)
    }

    /// `false`: the types the client declares are not the key's, so a planned query has to compare them.
    fn prepare_lookup(
        &mut self,
        snapshot: &tidemark_catalog::Snapshot,
        lookup: Lookup,
        declared: &[u32],
    ) -> Result<bool, PgError> {
        let object = snapshot.get_id(lookup.view).ok_or_else(|| PgError::error("XX000", "the view is gone"))?;
        let view = object.feature_view().ok_or_else(|| PgError::error("XX000", "it is no feature view"))?;
        let key_types: Vec<DataType> = view.key.iter().map(|i| view.columns[*i].ty.arrow()).collect();
        let key_oids = view.key.iter().map(|i| pg_type_of_sql(&view.columns[*i].ty).oid).collect::<Vec<u32>>();
        self.parameter_oids = vec![oid::TEXT; lookup.parameters];
        match &lookup.keys {
            Keys::One(operands) => {
                for (operand, oid) in operands.iter().zip(&key_oids) {
                    if let lookup::Operand::Parameter(i) = operand {
                        self.parameter_oids[*i] = *oid;
                    }
                }
            }
            Keys::Any(_) => self.parameter_oids.fill(key_oids[0]),
            Keys::AnyParameter(i) => {
                self.parameter_oids[*i] = wire::types::array_oid(key_oids[0]).unwrap_or(oid::TEXT);
            }
            Keys::AnyLiteral(_) => {}
        }
        for (i, oid) in declared.iter().enumerate().filter(|(_, oid)| !matches!(oid, 0 | 705)) {
            match self.parameter_oids.get_mut(i) {
                Some(wanted) if same_kind(*oid, *wanted) => *wanted = *oid,
                _ => return Ok(false),
            }
        }
        let fields: Vec<_> =
            lookup.projection.iter().map(|(i, name)| declared_field(&view.columns[*i]).with_name(name)).collect();
        let schema = Arc::new(Schema::new(fields));
        let writer = RowWriter::new(&schema);
        self.schema = Some(schema);
        let columns = lookup.projection.into_iter().map(|(i, _)| i).collect();
        let shape = LookupShape { view: lookup.view, columns, writer, key_types, key_oids };
        self.lookup = Some(PreparedLookup { keys: lookup.keys, shape: Arc::new(shape) });
        Ok(true)
    }
}

/// The columns of `RETURNING`.
fn returned(
    database: &Database,
    session: &Session,
    returning: Option<statement::Returning<'_>>,
    types: &[Option<DataType>],
) -> Result<Option<SchemaRef>, PgError> {
    let plan = returning.map(|returning| returning.bind(database, session, types)).transpose()?;
    Ok(plan.map(|plan| shown::schema(&plan.plan)))
}

/// Bind counts parameters in 16 bits.
pub const PARAMETERS_MAX: usize = 65_535;

/// The catalog's questions cast their parameters to types that only the catalog knows (`$1::regclass`); any question may cast one to
/// a type that plans hold as text, `$1::jsonb`.
fn with_cast_types(query: &ast::Query, declared: &[u32]) -> Vec<u32> {
    let mut declared = declared.to_vec();
    let of_catalog = crate::system::concerns(query);
    for (number, oid) in crate::system::declared_parameters(query) {
        let is_known = of_catalog || HELD_AS_TEXT.contains(&oid) && wire::types::arrow_type(oid).is_some();
        if !is_known {
            continue;
        }
        // What is beyond the protocol's number is refused where the parameter is bound.
        let Some(at) = number.checked_sub(1).filter(|at| *at < PARAMETERS_MAX) else { continue };
        if declared.len() <= at {
            declared.resize(at + 1, 0);
        }
        if declared[at] == 0 {
            declared[at] = oid;
        }
    }
    declared
}

/// `json`, `jsonb`, `uuid`.
const HELD_AS_TEXT: [u32; 3] = [oid::JSON, oid::JSONB, oid::UUID];

/// Whether values of one type can be keys of the other without loss: integers of any width, texts of any name, and arrays
/// of such.
fn same_kind(declared: u32, wanted: u32) -> bool {
    const INTEGERS: [u32; 3] = [21, 23, 20];
    const TEXTS: [u32; 4] = [25, 1043, 1042, 19];
    if let (Some(declared), Some(wanted)) = (wire::types::element_oid(declared), wire::types::element_oid(wanted)) {
        return same_kind(declared, wanted);
    }
    declared == wanted
        || [&INTEGERS[..], &TEXTS[..]].iter().any(|kind| kind.contains(&declared) && kind.contains(&wanted))
}

pub fn declared_types(declared: &[u32]) -> Result<Vec<Option<DataType>>, PgError> {
    declared
        .iter()
        .map(|oid| match oid {
            0 | 705 => Ok(None),
            oid => wire::types::arrow_type(*oid).map(Some).ok_or_else(|| {
                PgError::error("0A000", format!("parameters of the type with OID {oid} are not available"))
                    .hint("send it as text and cast it")
            }),
        })
        .collect()
}

/// The plan of a query, and the OIDs of its parameters in order: as declared, else as the plan asks for, else text.
fn typed(
    database: &Database,
    session: &Session,
    query: &ast::Query,
    declared: &[u32],
) -> Result<(statement::query::Analysed, Vec<u32>), PgError> {
    let given = declared_types(declared)?;
    let plan = statement::query::bind(database, session, query, &given)?;
    let Deduced { types, untyped } = deduced(&plan.plan, given)?;
    let mut declared = declared.to_vec();
    if !types.is_empty() {
        declare_shown(&plan.plan, &mut declared)?;
    }
    let oids = oids(&types, &declared);
    if !untyped {
        return Ok((plan, oids));
    }
    // There the plan has a NULL of no type, and so would the columns made of it.
    let types: Vec<_> = types.into_iter().map(|ty| Some(ty.unwrap_or(DataType::Utf8))).collect();
    Ok((statement::query::bind(database, session, query, &types)?, oids))
}

/// Declares what a plan asks of parameters that are held as text and shown as another type.
fn declare_shown(plan: &LogicalPlan, declared: &mut Vec<u32>) -> Result<(), PgError> {
    for (name, shown) in shown::parameters(plan)? {
        if let (Some(number), Some(oid)) = (parameter_number(&name), shown_oid(shown)) {
            declare(declared, number, oid);
        }
    }
    Ok(())
}

fn shown_oid(shown: Shown) -> Option<u32> {
    match shown {
        Shown::Uuid => Some(oid::UUID),
        Shown::Uuids => wire::types::array_oid(oid::UUID),
        Shown::Nothing | Shown::Int4 | Shown::Json | Shown::Jsonb => None,
    }
}

/// Declares the parameter of that number, from 1, where the client has not, or as a text: what is read as a UUID is read from a text,
/// too, in either format.
pub fn declare(declared: &mut Vec<u32>, number: usize, oid: u32) {
    if declared.len() < number {
        declared.resize(number, 0);
    }
    let is_text = |oid: u32| matches!(oid, 0 | oid::UNKNOWN | oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME);
    let before = declared[number - 1];
    // The binary form of a text is none of jsonb.
    let is_said = oid == oid::JSONB && !matches!(before, 0 | oid::UNKNOWN);
    if !is_said && is_text(wire::types::element_oid(before).unwrap_or(before)) {
        declared[number - 1] = oid;
    }
}

/// In order; a parameter of no known type is text.
fn oids(types: &[Option<DataType>], declared: &[u32]) -> Vec<u32> {
    let known = |i: usize| types.get(i).and_then(Option::as_ref).map_or(oid::TEXT, |ty| pg_type(ty).oid);
    (0..types.len().max(declared.len()))
        .map(|i| match declared.get(i) {
            None | Some(&(0 | oid::UNKNOWN)) => known(i),
            Some(&declared) => declared,
        })
        .collect()
}

/// What a plan says of its parameters.
struct Deduced {
    /// In order. What a parameter is compared with or computed from counts before a cast (`$1::float8`).
    types: Vec<Option<DataType>>,
    /// Whether a parameter stands where nothing asks for a type.
    untyped: bool,
}

/// `declared` are the types that the plan was bound with.
fn deduced(plan: &LogicalPlan, declared: Vec<Option<DataType>>) -> Result<Deduced, PgError> {
    let mut casts: Vec<Option<DataType>> = vec![];
    let mut types = declared;
    let mut untyped = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let (parameter, target) = match expr {
                    Expr::Placeholder(parameter) => (parameter, None),
                    Expr::Cast(cast) => match cast.expr.as_ref() {
                        Expr::Placeholder(parameter) => (parameter, Some(cast.field.data_type())),
                        _ => return Ok(TreeNodeRecursion::Continue),
                    },
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                let number = parameter_number(&parameter.id).ok_or_else(|| {
                    external(PgError::error("42P02", format!("there is no parameter {}", parameter.id)))
                })?;
                if types.len() < number {
                    types.resize(number, None);
                }
                if casts.len() < number {
                    casts.resize(number, None);
                }
                let own = parameter.field.as_ref().map(|field| field.data_type()).filter(|ty| !ty.is_null());
                match (own, target) {
                    (Some(ty), _) => {
                        let known = types[number - 1].get_or_insert_with(|| ty.clone());
                        if pg_type(known).oid != pg_type(ty).oid {
                            return Err(external(inconsistent(&parameter.id, known, ty)));
                        }
                    }
                    (None, Some(target)) => {
                        casts[number - 1].get_or_insert_with(|| target.clone());
                    }
                    (None, None) => untyped = true,
                }
                // Below a cast that was dealt with there is only its parameter.
                Ok(TreeNodeRecursion::Jump)
            })
        })
    })?;
    for (ty, cast) in types.iter_mut().zip(casts) {
        if ty.is_none() {
            *ty = cast;
        }
    }
    Ok(Deduced { types, untyped })
}

fn inconsistent(parameter: &str, one: &DataType, other: &DataType) -> PgError {
    let name = |ty| wire::types::type_name(pg_type(ty).oid);
    PgError::error("42P08", format!("inconsistent types deduced for parameter {parameter}"))
        .detail(format!("{} versus {}", name(one), name(other)))
        .hint("cast it where it stands: $1::bigint")
}

/// An error of ours, to come back as it was.
fn external(error: PgError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The number of `$1`, from 1; `None`: a client cannot give this one.
pub fn parameter_number(name: &str) -> Option<usize> {
    name.strip_prefix('$')?.parse().ok().filter(|number| (1..=PARAMETERS_MAX).contains(number))
}

/// The greatest parameter number in a query.
fn parameters_in_query(query: &ast::Query) -> usize {
    use std::ops::ControlFlow;
    let mut greatest = 0;
    let _ = ast::visit_expressions(query, |e| {
        if let ast::Expr::Value(v) = e
            && let ast::Value::Placeholder(name) = &v.value
            && let Some(n) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
        {
            greatest = greatest.max(n);
        }
        ControlFlow::<()>::Continue(())
    });
    greatest
}

/// Whether they have the same names and types.
pub fn same_columns(one: &[Column], other: &[Column]) -> bool {
    let same = |(one, other): (&Column, &Column)| (&one.name, one.type_oid) == (&other.name, other.type_oid);
    one.len() == other.len() && one.iter().zip(other).all(same)
}

pub fn columns(schema: &Schema) -> Vec<Column> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let ty = wire::pg_type_of_field(field);
            Column { type_modifier: ty.typmod, ..Column::computed(field.name().clone(), ty.oid, ty.typlen) }
        })
        .collect()
}
