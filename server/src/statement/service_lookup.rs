//! A lookup of several feature views at once (`tidemark_planner::lookup::service`): no planning, no waiting. Keys come from the
//! parameters, each view's rows from its state, and what is shown of them goes to the wire from there; where it is computed, in
//! columns, by expressions that were made when the statement was prepared.

use super::{lookup, lookup_deadline::Finding, query, result_format, result_formats};
use crate::{
    database::Database,
    pg::{Bound, Completed, PgError, RowsTag},
    prepared::{Prepared, declared_types},
    session::Session,
    wire::{FieldFormat, RowEncoder, RowWriter, SessionZone, decode_param},
};
use ahash::AHashSet;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt32Array,
        new_null_array,
    },
    compute::{cast, concat, filter_record_batch, take},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use bytes::BytesMut;
use datafusion::{
    common::{Column, DFSchema, internal_err},
    error::DataFusionError,
    logical_expr::{
        EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, execution_props::ExecutionProps,
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr},
    scalar::ScalarValue,
    sql::sqlparser::ast,
};
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::{ObjectId, UTC};
use tidemark_engine::{
    compiled::Row,
    provider::key_value,
    runtime::ViewRuntime,
    value::{Value, encode_row},
    view::Looked,
};
use tidemark_planner::{
    lookup::{
        service::{Items, ServiceLookup, recognise},
        spine::{Spine, SpineRows},
    },
    shown,
    status::{EXPIRED, LATE, PRESENT, STATUS_COLUMN},
};

/// More choices of keys are a query: on the threads of queries, where they hold up no other connection.
const CHOICES_MAX: usize = 1024;

/// What lookups of one text share, or of texts that differ in their literals only.
struct Shape {
    /// Its expressions may have been made with it.
    time_zone: SessionZone,
    /// The relations that the statement names: what its reader has to be allowed to read.
    names: Vec<ObjectId>,
    members: Vec<Member>,
    lists: Vec<List>,
    /// Instead of lists.
    spine: Option<Asked>,
    /// Now, the parameters, an item of each list, a row of the spine: what keys are computed from, and columns of the input too.
    given: SchemaRef,
    /// Columns of the input that `filter` and `outputs` read.
    read: Vec<Input>,
    read_schema: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
    outputs: Vec<Output>,
    limit: usize,
    /// Whether members have the columns of their status too.
    with_status: bool,
    writer: RowWriter,
}

pub struct PreparedService {
    shape: Arc<Shape>,
    /// Where the parameters are the text's own literals: their types, and what they say.
    literals: Option<(Vec<u32>, Vec<String>)>,
}

struct Member {
    view: ObjectId,
    key: Vec<Arc<dyn PhysicalExpr>>,
    key_types: Vec<DataType>,
    is_required: bool,
    /// Whether its key is another for each choice of items.
    varies: bool,
}

struct List {
    /// Its one item is an array of the items.
    is_array: bool,
    items: Vec<Arc<dyn PhysicalExpr>>,
}

/// The rows of keys that are asked for.
enum Asked {
    Values(Vec<Vec<Arc<dyn PhysicalExpr>>>),
    /// The items of an array.
    Items(Arc<dyn PhysicalExpr>),
}

/// Where a column of the input comes from.
#[derive(Clone, Copy)]
enum Input {
    Member { member: usize, column: usize },
    Given(usize),
}

enum Output {
    /// As it is in a member.
    Column {
        member: usize,
        column: usize,
    },
    Computed(Arc<dyn PhysicalExpr>),
}

impl PreparedService {
    /// `None`: it is no such lookup, or not one that this server answers so. `described` is what the client is told of its columns.
    ///
    /// # Errors
    /// None that planning it as a query would not have.
    pub fn of(
        database: &Database,
        session: &Session,
        query: &ast::Query,
        parameter_oids: &[u32],
        described: Option<&Schema>,
    ) -> Result<Option<PreparedService>, PgError> {
        if database.as_owner().is_none() {
            return Ok(None);
        }
        let types = declared_types(parameter_oids)?;
        let Some(types) = types.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let declared: Vec<_> = types.iter().cloned().map(Some).collect();
        let bound = query::bind_at_any_time(database, session, query, &declared)?;
        let Some(found) = recognise(&bound.plan, &types) else { return Ok(None) };
        let plan = query::analysed(session, found.plan.clone())?;
        Ok(Self::made(session, found, &plan, bound.names, described)?)
    }

    fn made(
        session: &Session,
        found: ServiceLookup,
        plan: &LogicalPlan,
        names: Vec<ObjectId>,
        described: Option<&Schema>,
    ) -> datafusion::error::Result<Option<PreparedService>> {
        let LogicalPlan::Projection(projection) = plan else { return Ok(None) };
        let filter = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => Some(&filter.predicate),
            LogicalPlan::EmptyRelation(_) => None,
            _ => return Ok(None),
        };
        let of_members: usize = found.input.iter().filter(|(qualifier, _)| qualifier.is_some()).count();
        let input = |column: &Column| -> datafusion::error::Result<(usize, Input)> {
            let at = found.input.index_of_column(column)?;
            let Some(qualifier) = &column.relation else { return Ok((at, Input::Given(at - of_members))) };
            let is_of = |(other, _): &(Option<&_>, &_)| *other == Some(qualifier);
            let first = found.input.iter().position(|field| is_of(&field)).unwrap_or(at);
            let before = found.input.iter().take(first).filter_map(|(qualifier, _)| qualifier).collect::<BTreeSet<_>>();
            Ok((at, Input::Member { member: before.len(), column: at - first }))
        };
        let mut outputs = vec![];
        let mut used = BTreeSet::new();
        if let Some(expr) = filter {
            used.extend(expr.column_refs().into_iter().cloned());
        }
        for expr in &projection.expr {
            let expr = expr.clone().unalias();
            used.extend(expr.column_refs().into_iter().cloned());
            outputs.push(expr);
        }
        let mut places = used.iter().map(&input).collect::<Result<Vec<_>, _>>()?;
        places.sort_by_key(|(at, _)| *at);
        let fields = places.iter().map(|(at, _)| {
            let (qualifier, field) = found.input.qualified_field(*at);
            (qualifier.cloned(), field.clone())
        });
        let read = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
        let outputs = outputs.into_iter().map(|expr| {
            if let Some(column) = expr.try_as_col()
                && let (_, Input::Member { member, column }) = input(column)?
            {
                return Ok(Output::Column { member, column });
            }
            Ok(Output::Computed(physical(expr, &read)?))
        });
        let outputs = outputs.collect::<datafusion::error::Result<Vec<_>>>()?;
        let given_fields: Vec<_> = found.input.iter().skip(of_members).map(|(_, field)| field.clone()).collect();
        let given_schema = Arc::new(Schema::new(given_fields));
        let given = DFSchema::try_from(given_schema.as_ref().clone())?;
        let keys = found.members.iter().flat_map(|member| &member.key);
        let items = found.lists.iter().flat_map(|list| match list {
            Items::Array(array) => std::slice::from_ref(array),
            Items::Each(items) => items.as_slice(),
        });
        let asked = found.spine.iter().flat_map(|spine| match &spine.rows {
            SpineRows::Items(list) => vec![list],
            SpineRows::Values(rows) => rows.iter().flatten().collect(),
        });
        let mut constants = constants(session, keys.chain(items).chain(asked), &given)?.into_iter();
        let mut next = |count: usize| constants.by_ref().take(count).collect::<Vec<_>>();
        let members: Vec<Member> = found
            .members
            .iter()
            .map(|member| Member {
                view: member.view,
                key: next(member.key.len()),
                key_types: member.key_types.clone(),
                is_required: member.is_required,
                varies: member.key.iter().any(|expr| expr.column_refs().iter().any(|c| !c.name.starts_with('$'))),
            })
            .collect();
        let lists: Vec<List> = found
            .lists
            .iter()
            .map(|list| match list {
                Items::Array(_) => List { is_array: true, items: next(1) },
                Items::Each(items) => List { is_array: false, items: next(items.len()) },
            })
            .collect();
        let spine = match &found.spine {
            None => None,
            Some(Spine { rows: SpineRows::Values(rows), .. }) => {
                Some(Asked::Values(rows.iter().map(|row| next(row.len())).collect()))
            }
            Some(Spine { rows: SpineRows::Items(_), .. }) => next(1).pop().map(Asked::Items),
        };
        let shown = shown::schema(plan);
        // Of the types that this plan has, and shown as the client was told.
        let fields = shown.fields().iter().enumerate().map(|(i, field)| {
            let told = described.and_then(|described| described.fields().get(i)).unwrap_or(field);
            field.as_ref().clone().with_metadata(told.metadata().clone())
        });
        let shown = Schema::new(fields.collect::<Vec<_>>());
        let shape = Shape {
            time_zone: session.format.time_zone,
            names,
            members,
            lists,
            spine,
            given: given_schema,
            filter: filter.map(|filter| physical(filter.clone(), &read)).transpose()?,
            read: places.into_iter().map(|(_, input)| input).collect(),
            read_schema: Arc::new(read.as_arrow().clone()),
            outputs,
            limit: found.limit.unwrap_or(usize::MAX),
            with_status: found.input.fields().iter().take(of_members).any(|field| field.name() == STATUS_COLUMN),
            writer: RowWriter::new(&shown),
        };
        Ok(Some(PreparedService { shape: Arc::new(shape), literals: None }))
    }

    /// The same with literals, in text form, for its parameters, which are of these types.
    pub fn with_literals<'a>(&self, oids: &[u32], literals: impl Iterator<Item = &'a str>) -> PreparedService {
        let literals = (oids.to_vec(), literals.map(String::from).collect());
        PreparedService { shape: self.shape.clone(), literals: Some(literals) }
    }

    /// The feature views that are looked up.
    pub fn views(&self) -> impl Iterator<Item = ObjectId> {
        self.shape.members.iter().map(|member| member.view)
    }
}

/// An expression that has been analysed, made executable. Not for speed is it simplified: `coalesce` and its like exist only as
/// what they simplify to.
fn physical(expr: Expr, schema: &DFSchema) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    let expr = ExprSimplifier::new(context).simplify(expr)?;
    create_physical_expr(&expr, schema, &ExecutionProps::new())
}

/// The same of some over what is given, which have not been analysed.
fn constants<'a>(
    session: &Session,
    exprs: impl Iterator<Item = &'a Expr>,
    given: &DFSchema,
) -> datafusion::error::Result<Vec<Arc<dyn PhysicalExpr>>> {
    let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(given.clone()) };
    let named = exprs.enumerate().map(|(i, expr)| expr.clone().alias(format!("constant {i}")));
    let plan = LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(nothing)).project(named)?.build()?;
    match query::analysed(session, plan).map_err(|e| DataFusionError::External(Box::new(e)))? {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().map(|expr| physical(expr.clone().unalias(), given)).collect()
        }
        other => internal_err!("expressions became {}", other.display()),
    }
}

/// What is known of one member for one choice of items.
#[derive(Clone)]
enum Part {
    Row(Arc<Row>),
    Missing,
    Expired,
    /// It is not to be had in time.
    Late,
}

/// The same for each choice.
type Found = Vec<Part>;

impl Part {
    fn of(looked: Option<Looked>) -> Part {
        match looked {
            Some(Looked::Row(row)) => Part::Row(Arc::new(row)),
            Some(Looked::Missing) => Part::Missing,
            Some(Looked::Expired) => Part::Expired,
            None => Part::Late,
        }
    }

    fn row(&self) -> Option<&Row> {
        match self {
            Part::Row(row) => Some(row),
            Part::Missing | Part::Expired | Part::Late => None,
        }
    }

    /// `None`: as the plan has it for a row that is not there.
    fn status(&self) -> Option<&'static str> {
        match self {
            Part::Row(_) => Some(PRESENT),
            Part::Missing => None,
            Part::Expired => Some(EXPIRED),
            Part::Late => Some(LATE),
        }
    }
}

/// Answers into `out`; `None` where this is not to be answered here (a view is gone or not this session's to read, the session is
/// in another time zone, too many choices): then the planned query answers, or fails, as any query would. Also where memory alone is
/// to answer and does not (`lookup_deadline.rs`).
pub fn execute(
    database: &Database,
    session: &Session,
    prepared: &Prepared,
    service: &PreparedService,
    bound: &Bound,
    finding: &mut Finding,
    out: &mut BytesMut,
) -> Option<Result<Completed, PgError>> {
    let begun_us = finding.begun_us(&*database.clock);
    let answering = Answering::of(database, session, prepared, service, bound, begun_us)?;
    match answering.answer(finding, out) {
        Ok(rows) => {
            let rows = rows?;
            lookup::observe(database, prepared, begun_us);
            Some(Ok(Completed { rows, tag: RowsTag::SELECT }))
        }
        Err(error) => Some(Err(error)),
    }
}

/// Notes the keys that it asks for; `None` as for [`execute`].
pub fn note(
    database: &Database,
    session: &Session,
    prepared: &Prepared,
    service: &PreparedService,
    bound: &Bound,
    finding: &mut Finding,
) -> Option<Result<(), PgError>> {
    let begun_us = finding.begun_us(&*database.clock);
    let answering = Answering::of(database, session, prepared, service, bound, begun_us)?;
    answering.found(finding).map(|found| found.map(|_| ())).transpose()
}

struct Answering<'a> {
    session: &'a Session,
    prepared: &'a Prepared,
    service: &'a Shape,
    literals: &'a Option<(Vec<u32>, Vec<String>)>,
    bound: &'a Bound,
    /// With what is now for each.
    views: Vec<(i64, Arc<ViewRuntime>)>,
    begun_us: i64,
}

impl<'a> Answering<'a> {
    /// `None` as for [`execute`].
    fn of(
        database: &Database,
        session: &'a Session,
        prepared: &'a Prepared,
        service: &'a PreparedService,
        bound: &'a Bound,
        begun_us: i64,
    ) -> Option<Answering<'a>> {
        let engine = &database.as_owner()?.engine;
        if prepared.generation != database.snapshot().generation || service.shape.time_zone != session.format.time_zone
        {
            return None;
        }
        // Where it may not, the query says so.
        if !service.shape.names.iter().all(|named| session.rights.may_read(*named)) {
            return None;
        }
        let at_now = |view: Arc<ViewRuntime>| (view.now_us(begun_us), view);
        let views = service.views().map(|id| engine.view(id).map(at_now)).collect::<Option<_>>()?;
        let (service, literals) = (&*service.shape, &service.literals);
        Some(Answering { session, prepared, service, literals, bound, views, begun_us })
    }

    /// What there is to compute with, and what is known of every member; `None`: too many choices.
    fn found(&self, finding: &mut Finding) -> Result<Option<(RecordBatch, Vec<Found>)>, PgError> {
        let Some(given) = self.given()? else { return Ok(None) };
        let mut all = Vec::with_capacity(self.views.len());
        for (member, view) in self.service.members.iter().zip(&self.views) {
            all.push(self.rows(member, view, &given, finding)?);
        }
        Ok(Some((given, all)))
    }

    /// The choices that have a row.
    ///
    /// # Errors
    /// 57014: whether one has a row is not known in time.
    fn present(&self, choices: usize, found: &[Found], finding: &Finding) -> Result<Vec<usize>, PgError> {
        let mut present = Vec::with_capacity(choices);
        for choice in 0..choices {
            let mut late = None;
            let members = self.service.members.iter().zip(&self.views).zip(found);
            let there = members.filter(|((member, _), _)| member.is_required).all(|((_, (_, view)), found)| {
                if matches!(found[choice], Part::Late) {
                    late = Some(view);
                }
                matches!(found[choice], Part::Row(_) | Part::Late)
            });
            if !there {
                continue;
            }
            if let Some(error) = late.and_then(|view| finding.refusal(&view.state.compiled.name)) {
                return Err(error);
            }
            present.push(choice);
        }
        Ok(present)
    }

    /// How many rows; `None`: too many choices, or memory does not do.
    fn answer(&self, finding: &mut Finding, out: &mut BytesMut) -> Result<Option<u64>, PgError> {
        let Some((given, found)) = self.found(finding)? else { return Ok(None) };
        if finding.has_missed() {
            return Ok(None);
        }
        let choices = self.present(given.num_rows(), &found, finding)?;
        match self.columns() {
            Some(columns) => Ok(Some(self.write(&columns, &found, &choices, out))),
            None => self.compute(&given, &found, &choices, out).map(Some),
        }
    }

    /// Now, the parameters, and the items or the spine: a row for each choice of items, or of the spine.
    fn given(&self) -> Result<Option<RecordBatch>, PgError> {
        let now = TimestampMicrosecondArray::from(vec![self.begun_us]).with_timezone(UTC);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(now)];
        for value in self.parameters()? {
            columns.push(value.to_array()?);
        }
        let schema = &self.service.given;
        // No list depends on another's items.
        let known = columns.len();
        columns.extend(schema.fields()[known..].iter().map(|field| new_null_array(field.data_type(), 1)));
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        if let Some(asked) = &self.service.spine {
            let asked = asked.columns(&schema.fields()[known..], &batch)?;
            let choices = asked.first().map_or(0, |column| column.len());
            if choices > CHOICES_MAX {
                return Ok(None);
            }
            return Ok(Some(beside(&batch.columns()[..known], asked, schema, choices)?));
        }
        if self.service.lists.is_empty() {
            return Ok(Some(batch));
        }
        let lists =
            self.service.lists.iter().zip(&schema.fields()[known..]).map(|(list, field)| items(list, field, &batch));
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        let choices = lists.iter().try_fold(1usize, |choices, list| choices.checked_mul(list.len()));
        let Some(choices) = choices.filter(|choices| *choices <= CHOICES_MAX) else { return Ok(None) };
        let mut columns = vec![];
        let mut each = 1;
        for list in &lists {
            let indices: UInt32Array = (0..choices).map(|choice| (choice / each % list.len()) as u32).collect();
            columns.push(take(list, &indices, None)?);
            each *= list.len();
        }
        Ok(Some(beside(&batch.columns()[..known], columns, schema, choices)?))
    }

    fn parameters(&self) -> Result<Vec<ScalarValue>, PgError> {
        let Some((oids, literals)) = self.literals else {
            return super::parameters(self.session, self.prepared, self.bound);
        };
        let zone = &self.session.format.time_zone;
        let value = |(oid, text): (&u32, &String)| decode_param(*oid, FieldFormat::Text, Some(text.as_bytes()), zone);
        Ok(oids.iter().zip(literals).map(value).collect::<Result<_, _>>()?)
    }

    /// The member's row for each choice.
    fn rows(
        &self,
        member: &Member,
        (now_us, view): &(i64, Arc<ViewRuntime>),
        given: &RecordBatch,
        finding: &mut Finding,
    ) -> Result<Found, PgError> {
        let choices = given.num_rows();
        let distinct = if member.varies { choices } else { choices.min(1) };
        let given = given.slice(0, distinct);
        let key = member.key.iter().map(|expr| expr.evaluate(&given)?.into_array(distinct));
        let key = key.collect::<datafusion::error::Result<Vec<_>>>()?;
        let mut found = Vec::with_capacity(choices);
        for choice in 0..distinct {
            let mut values: Vec<Value> = Vec::with_capacity(key.len());
            for (column, ty) in key.iter().zip(&member.key_types) {
                values.extend(key_value(ScalarValue::try_from_array(column, choice)?, ty));
            }
            // NULL equals nothing, and so does what the key's type does not have.
            let is_key = values.len() == key.len();
            found.push(match is_key {
                true => Part::of(finding.look(view, &encode_row(&values), *now_us)?),
                false => Part::Missing,
            });
        }
        if let Some(only) = found.first().cloned().filter(|_| !member.varies) {
            found.resize(choices, only);
        }
        Ok(found)
    }

    /// Where all that is shown is kept as it is shown, with nothing to compute: of each column the member, and its place there.
    fn columns(&self) -> Option<Vec<(usize, tidemark_engine::compiled::Stored)>> {
        if self.service.filter.is_some() {
            return None;
        }
        let column = |output: &Output| match output {
            Output::Column { member, column } => Some((*member, self.views[*member].1.state.compiled.stored(*column)?)),
            Output::Computed(_) => None,
        };
        self.service.outputs.iter().map(column).collect()
    }

    fn write(
        &self,
        columns: &[(usize, tidemark_engine::compiled::Stored)],
        found: &[Found],
        choices: &[usize],
        out: &mut BytesMut,
    ) -> u64 {
        let choices = &choices[..choices.len().min(self.service.limit)];
        for choice in choices {
            let cell = |i: usize| {
                let (member, stored) = columns[i];
                lookup::cell(found[member][*choice].row()?, stored)
            };
            self.service.writer.write(&self.session.format, |i| result_format(self.bound, i), cell, out);
        }
        choices.len() as u64
    }

    fn compute(
        &self,
        given: &RecordBatch,
        found: &[Found],
        choices: &[usize],
        out: &mut BytesMut,
    ) -> Result<u64, PgError> {
        let schema = self.prepared.schema.clone().ok_or_else(|| PgError::error("XX000", "a lookup without columns"))?;
        let members = found.iter().zip(&self.views).map(|(found, view)| self.visible(view, found, choices));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        let indices: UInt32Array = choices.iter().map(|choice| *choice as u32).collect();
        let column = |input: &Input| -> Result<ArrayRef, PgError> {
            Ok(match input {
                Input::Member { member, column } => members[*member].column(*column).clone(),
                Input::Given(i) => take(given.column(*i), &indices, None)?,
            })
        };
        let columns = self.service.read.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(choices.len()));
        let mut batch = RecordBatch::try_new_with_options(self.service.read_schema.clone(), columns, &options)?;
        let mut kept = None;
        if let Some(filter) = &self.service.filter {
            let condition = filter.evaluate(&batch)?.into_array(batch.num_rows())?;
            let condition = condition.as_boolean().clone();
            batch = filter_record_batch(&batch, &condition)?;
            kept = Some(condition);
        }
        let rows = batch.num_rows();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (output, field) in self.service.outputs.iter().zip(schema.fields()) {
            let array = match (output, &kept) {
                (Output::Computed(expr), _) => expr.evaluate(&batch)?.into_array(rows)?,
                (Output::Column { member, column }, None) => members[*member].column(*column).clone(),
                (Output::Column { member, column }, Some(kept)) => {
                    arrow::compute::filter(members[*member].column(*column), kept)?
                }
            };
            columns.push(if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type())? });
        }
        let formats = result_formats(self.bound, columns.len());
        let encoder = RowEncoder::new(&schema, &formats, &self.session.format)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::new(
            schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<Field>>(),
        ));
        let shown = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let rows = rows.min(self.service.limit);
        encoder.encode_batch(&shown, 0..rows, out);
        Ok(rows as u64)
    }

    /// What users see of a member's rows, for these choices; NULLs where it has none.
    fn visible(
        &self,
        (now_us, view): &(i64, Arc<ViewRuntime>),
        found: &Found,
        choices: &[usize],
    ) -> Result<RecordBatch, PgError> {
        let mut rows = vec![];
        let mut indices = Vec::with_capacity(choices.len());
        for choice in choices {
            indices.push(found[*choice].row().map(|_| rows.len() as u32));
            rows.extend(found[*choice].row());
        }
        let compiled = &view.state.compiled;
        let visible = match self.service.with_status {
            true => compiled.visible_with_status(&rows, *now_us, |_| PRESENT)?,
            false => compiled.visible(&rows, *now_us)?,
        };
        if rows.len() == choices.len() {
            return Ok(visible);
        }
        let indices = UInt32Array::from(indices);
        let mut columns =
            visible.columns().iter().map(|column| take(column, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        if self.service.with_status
            && let Some(status) = columns.last_mut()
        {
            *status = Arc::new(choices.iter().map(|choice| found[*choice].status()).collect::<StringArray>());
        }
        let nullable =
            visible.schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        let options = RecordBatchOptions::new().with_row_count(Some(choices.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(nullable)), columns, &options)?)
    }
}

impl Asked {
    /// Its columns, as the types of these fields.
    fn columns(&self, fields: &[Arc<Field>], given: &RecordBatch) -> Result<Vec<ArrayRef>, PgError> {
        match self {
            Asked::Items(list) => {
                let lists = list.evaluate(given)?.into_array(1)?;
                let lists = lists.as_list::<i32>();
                let of = |field: &Arc<Field>| match lists.is_null(0) {
                    true => Ok(new_null_array(field.data_type(), 0)),
                    false => Ok(cast(&lists.value(0), field.data_type())?),
                };
                fields.iter().map(of).collect()
            }
            Asked::Values(rows) => {
                let of = |(i, field): (usize, &Arc<Field>)| {
                    let cell = |row: &Vec<Arc<dyn PhysicalExpr>>| -> Result<ArrayRef, PgError> {
                        Ok(cast(&row[i].evaluate(given)?.into_array(1)?, field.data_type())?)
                    };
                    let cells = rows.iter().map(cell).collect::<Result<Vec<_>, _>>()?;
                    Ok(concat(&cells.iter().map(|cell| cell.as_ref()).collect::<Vec<_>>())?)
                };
                fields.iter().enumerate().map(of).collect()
            }
        }
    }
}

/// What is known, the same in every row, beside columns of this many.
fn beside(known: &[ArrayRef], columns: Vec<ArrayRef>, schema: &SchemaRef, rows: usize) -> Result<RecordBatch, PgError> {
    let all_first = UInt32Array::from(vec![0; rows]);
    let mut all = known.iter().map(|column| take(column, &all_first, None)).collect::<Result<Vec<_>, _>>()?;
    all.extend(columns);
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), all, &options)?)
}

/// The items of a list, each once and without NULL, as the type of its column.
fn items(list: &List, field: &Field, given: &RecordBatch) -> Result<ArrayRef, PgError> {
    let all: Vec<ScalarValue> = match list.is_array {
        true => {
            let lists = list.items[0].evaluate(given)?.into_array(1)?;
            let lists = lists.as_list::<i32>();
            let items = if lists.is_null(0) { new_null_array(field.data_type(), 0) } else { lists.value(0) };
            (0..items.len()).map(|i| ScalarValue::try_from_array(&items, i)).collect::<Result<_, _>>()?
        }
        false => {
            let item = |item: &Arc<dyn PhysicalExpr>| {
                let array = cast(&item.evaluate(given)?.into_array(1)?, field.data_type())?;
                ScalarValue::try_from_array(&array, 0)
            };
            list.items.iter().map(item).collect::<datafusion::error::Result<_>>()?
        }
    };
    let mut seen = AHashSet::with_capacity(all.len());
    let items: Vec<ScalarValue> = all.into_iter().filter(|item| !item.is_null() && seen.insert(item.clone())).collect();
    match items.is_empty() {
        true => Ok(new_null_array(field.data_type(), 0)),
        false => Ok(ScalarValue::iter_to_array(items)?),
    }
}
