//! `INSERT INTO t [(columns)] VALUES … | query [ON CONFLICT …]`: appended, admitted, visible when it returns.

use super::{assign, query, returning::Returning};
use crate::{
    database::Database,
    pg::{Bound, Outcome, PgError},
    prepared::{Prepared, declare, declared_types, parameter_number},
    session::Session,
    wire::{SessionZone, types::pg_type_of_sql, value_from_text},
};
use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, new_null_array},
    datatypes::DataType,
};
use datafusion::{scalar::ScalarValue, sql::sqlparser::ast};
use futures::TryStreamExt;
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};
use tidemark_catalog::{Column, Include, Object, QualifiedName, Relation, Snapshot};
use tidemark_engine::{
    layout::constant,
    runtime::{Conflict, IngestReport},
};
use tidemark_planner::{
    error::missing_object,
    exact,
    shown::Shown,
    statement::{Insert, OnConflict, is_default},
    words::type_name,
};

/// The source or table that rows can be put into.
pub fn target<'a>(snapshot: &'a Snapshot, name: &QualifiedName) -> Result<&'a Arc<Object>, PgError> {
    match snapshot.get(name) {
        None => Err(missing_object(snapshot, "relation", name, |object| object.relation().is_some()).into()),
        Some(object) if object.relation().is_none() => {
            let error = PgError::error("42809", format!("cannot insert into {} \"{name}\"", object.kind()));
            Err(match object.training_set() {
                Some(_) => error.hint(format!("REFRESH TRAINING SET {name} computes it again")),
                None => error.hint("rows go into its source; a view follows by itself"),
            })
        }
        Some(object) => match object.relation().and_then(Relation::files) {
            Some(path) => Err(PgError::error("42809", format!("cannot insert into table \"{name}\": it is only read"))
                .detail(format!("it is the files at {path}"))
                .hint("COPY … TO 'file' (FORMAT parquet) writes such a file")),
            None => Ok(object),
        },
    }
}

/// For each of the given columns its place in the relation; `names` empty: all that can be written, in order.
pub fn column_map(object: &Object, names: &[String]) -> Result<Vec<usize>, PgError> {
    if names.is_empty() {
        return Ok((0..object.columns().len()).filter(|at| told_by_the_broker(object, *at).is_none()).collect());
    }
    let mut map = vec![];
    for name in names {
        let at = object.columns().iter().position(|c| &c.name == name).ok_or_else(|| {
            let columns: Vec<&str> = object.columns().iter().map(|column| column.name.as_str()).collect();
            PgError::error("42703", format!("column \"{name}\" of relation \"{}\" does not exist", object.name))
                .hint(format!("there is: {}", columns.join(", ")))
        })?;
        if map.contains(&at) {
            return Err(PgError::error("42701", format!("column \"{name}\" specified more than once")));
        }
        if let Some(what) = told_by_the_broker(object, at) {
            let (kind, of) = (object.kind(), &object.name);
            let message = format!("column \"{name}\" of {kind} \"{of}\" cannot be written: it is the message's {what}");
            return Err(PgError::error("428C9", message).hint("leave it out: the brokers give it"));
        }
        map.push(at);
    }
    Ok(map)
}

/// What the column tells that is known only of a message that is in its topic.
fn told_by_the_broker(object: &Object, at: usize) -> Option<&'static str> {
    let (_, include) = object.relation()?.includes.iter().find(|(included, _)| *included == at)?;
    match include {
        Include::Partition => Some("partition"),
        Include::Offset => Some("offset"),
        Include::Timestamp => Some("timestamp"),
        Include::Key | Include::Header(_) => None,
    }
}

/// The types of `$1` …: as declared, else the column that a bare parameter goes into.
///
/// `declared` gets the OID of a column that is shown as another type than what holds it.
pub fn parameter_types(
    snapshot: &Snapshot,
    insert: &Insert,
    declared: &mut Vec<u32>,
) -> Result<Vec<Option<DataType>>, PgError> {
    let object = target(snapshot, &insert.table)?;
    let map = column_map(object, &insert.columns)?;
    let mut types = declared_types(declared)?;
    for row in rows(&insert.query) {
        for (expr, column) in row.into_iter().zip(&map) {
            parameter_type(expr, &object.columns()[*column], &mut types, declared)?;
        }
    }
    Ok(types)
}

/// A parameter that a column is set to, and nothing else, has the column's type unless another is declared.
pub fn parameter_type(
    expr: &ast::Expr,
    column: &Column,
    types: &mut Vec<Option<DataType>>,
    declared: &mut Vec<u32>,
) -> Result<(), PgError> {
    let ast::Expr::Value(value) = expr else { return Ok(()) };
    let ast::Value::Placeholder(name) = &value.value else { return Ok(()) };
    let missing = || PgError::error("42P02", format!("there is no parameter {name}"));
    let n = parameter_number(name).ok_or_else(missing)?;
    if types.len() < n {
        types.resize(n, None);
    }
    types[n - 1].get_or_insert_with(|| column.ty.arrow());
    if Shown::of(&column.ty).is_some() {
        declare(declared, n, pg_type_of_sql(&column.ty).oid);
    }
    Ok(())
}

/// What the query says of each column: the rows of VALUES, or the one of a SELECT.
fn rows(query: &ast::Query) -> Vec<Vec<&ast::Expr>> {
    match query.body.as_ref() {
        ast::SetExpr::Values(values) => values.rows.iter().map(|row| row.content.iter().collect()).collect(),
        ast::SetExpr::Select(select) => {
            let items = select.projection.iter().map(|item| match item {
                ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
                _ => None,
            });
            // A wildcard would shift them.
            items.collect::<Option<Vec<_>>>().into_iter().collect()
        }
        _ => vec![],
    }
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    insert: &Insert,
    prepared: &Prepared,
    parameters: &[ScalarValue],
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let object = target(&snapshot, &insert.table)?.clone();
    let map = column_map(&object, &insert.columns)?;
    let relation = object.relation().ok_or_else(|| PgError::error("XX000", "not a relation"))?;
    let conflict = match &insert.on_conflict {
        OnConflict::Error => Conflict::Error,
        other => {
            if relation.primary_key.is_empty() {
                return Err(PgError::error(
                    "42P10",
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                )
                .hint(format!("\"{}\" has no primary key", object.name)));
            }
            let key = relation.primary_key.iter().map(|i| relation.columns[*i].name.as_str());
            let named = insert.replaces.iter().take(relation.primary_key.len()).map(String::as_str);
            if *other == OnConflict::Replace
                && !key.collect::<BTreeSet<_>>().into_iter().eq(named.collect::<BTreeSet<_>>())
            {
                return Err(PgError::error(
                    "42P10",
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                )
                .hint(format!("name the primary key of \"{}\"", object.name)));
            }
            if *other == OnConflict::Replace && insert.replaces.len() < object.columns().len() {
                return Err(PgError::error("0A000", "ON CONFLICT DO UPDATE must set every other column")
                    .hint("SET every column = excluded.column"));
            }
            if *other == OnConflict::Nothing && relation.topic().is_some() {
                let message =
                    format!("ON CONFLICT DO NOTHING cannot be kept for {} \"{}\"", object.kind(), object.name);
                return Err(PgError::error("0A000", message)
                    .hint("its rows go to a topic, where others write too: the last message of a key counts"));
            }
            if *other == OnConflict::Nothing { Conflict::Skip } else { Conflict::Replace }
        }
    };
    let mut types = declared_types(&prepared.parameter_oids)?;
    let returning = returning(&object, insert);
    if returning.is_some() && relation.topic().is_some() {
        let message = format!("RETURNING is not supported for {} \"{}\"", object.kind(), object.name);
        return Err(PgError::error("0A000", message)
            .hint("its rows go to a topic and come back by the feed: SELECT them after a FLUSH"));
    }
    let returned = returning.as_ref().map(|r| r.ready(database, session, prepared, &types)).transpose()?;
    let given = parameters;
    let mut parameters = parameters.to_vec();
    let query = with_defaults(&object, &map, &insert.query);
    let query = literals_as_parameters(session, &object, &map, &query, &mut types, &mut parameters)?;
    let (schema, stream) = query::run_in_order(database, session, &query, &types, &parameters).await?;
    if schema.fields().len() > map.len() {
        return Err(PgError::error("42601", "INSERT has more expressions than target columns"));
    }
    if !insert.columns.is_empty() && schema.fields().len() < map.len() {
        return Err(PgError::error("42601", "INSERT has more target columns than expressions"));
    }
    for (i, (field, at)) in schema.fields().iter().zip(&map).enumerate() {
        assign::check(&object.columns()[*at], field.data_type(), || type_of_item(&insert.query, i, field.data_type()))?;
    }
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    let batches = batches
        .iter()
        .filter(|b| b.num_rows() > 0)
        .map(|batch| fit(&object, &map, batch, &session.format.time_zone))
        .collect::<Result<Vec<_>, PgError>>()?;
    // What is on its way into a topic cannot be taken back whatever the client waits for: there is nothing to hold up.
    let turn = match relation.topic() {
        None => Some(database.owner()?.engine.turn(object.id).await?),
        Some(_) => None,
    };
    let held = turn.is_some().then(|| session.hold.hold());
    let report = match turn {
        Some(turn) => database.owner()?.engine.ingest_in(turn, batches, conflict, returning.is_some()).await?,
        None => {
            let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let produced = database.owner()?.feeds.produce(&object, batches).await;
            let rows = produced.map_err(|unsent| {
                let acknowledged = unsent.acknowledged;
                unsent.error.detail(format!("{acknowledged} of {all} rows are acknowledged, and in the topic"))
            })?;
            IngestReport { rows, ..IngestReport::default() }
        }
    };
    drop(held);
    if let Some(notice) = rejected(&object, &report) {
        session.notice(notice);
    }
    match (returning, returned) {
        (Some(returning), Some(plan)) => {
            let returned = returning.of(database, session, plan, given, &report.shown).await?;
            returned.answer(session, bound, "INSERT 0")
        }
        _ => Ok(Outcome::Done { tag: format!("INSERT 0 {}", report.rows).into() }),
    }
}

pub fn returning<'a>(object: &'a Object, insert: &'a Insert) -> Option<Returning<'a>> {
    let items = insert.returning.as_deref()?;
    Some(Returning { object, alias: &object.name, items })
}

/// The query with what `DEFAULT` stands for in its VALUES.
pub fn with_defaults(object: &Object, map: &[usize], query: &ast::Query) -> ast::Query {
    let mut query = query.clone();
    if let ast::SetExpr::Values(values) = query.body.as_mut() {
        for row in &mut values.rows {
            row.content.iter_mut().zip(map).for_each(|(expr, column)| write_default(object, *column, expr));
        }
    }
    query
}

/// What `DEFAULT` stands for, where a column is set to that.
pub fn write_default(object: &Object, column: usize, expr: &mut ast::Expr) {
    if is_default(expr) {
        let text = object.relation().and_then(|relation| relation.layout.defaults.get(&relation.columns[column].name));
        *expr = ast::Expr::value(match text {
            Some(text) => ast::Value::SingleQuotedString(text.clone()),
            None => ast::Value::Null,
        });
    }
}

/// In VALUES a quoted literal is a value of its column's type, as in PostgreSQL: read by the rules of COPY, in the
/// session's time zone, and not by what stands in the other rows. So is a number where DataFusion would make doubles of a
/// column's numbers.
fn literals_as_parameters(
    session: &Session,
    object: &Object,
    map: &[usize],
    query: &ast::Query,
    types: &mut Vec<Option<DataType>>,
    parameters: &mut Vec<ScalarValue>,
) -> Result<ast::Query, PgError> {
    let mut query = query.clone();
    let ast::SetExpr::Values(values) = query.body.as_mut() else { return Ok(query) };
    let is_double = |expr: &ast::Expr| exact::number(expr).is_some_and(|number| !number.is_int8());
    let doubles: Vec<bool> =
        (0..map.len()).map(|i| values.rows.iter().any(|row| row.content.get(i).is_some_and(is_double))).collect();
    for row in &mut values.rows {
        for (i, (expr, column)) in row.content.iter_mut().zip(map).enumerate() {
            let column = &object.columns()[*column];
            literal_as_parameter(session, object, column, expr, doubles[i], types, parameters)?;
        }
    }
    Ok(query)
}

/// The same of one literal that a column is set to; `double`: a number would be a double.
pub fn literal_as_parameter(
    session: &Session,
    object: &Object,
    column: &Column,
    expr: &mut ast::Expr,
    double: bool,
    types: &mut Vec<Option<DataType>>,
    parameters: &mut Vec<ScalarValue>,
) -> Result<(), PgError> {
    let ty = column.ty.arrow();
    let Some(text) = text_of_literal(expr, &ty, double) else { return Ok(()) };
    let parsed = value_from_text(&ty, &text, &session.format.time_zone);
    parameters.push(parsed.map_err(|e| {
        let error: PgError = e.into();
        error.context(format!("column {} of \"{}\"", column.name, object.name))
    })?);
    types.push(Some(ty));
    *expr = ast::Expr::value(ast::Value::Placeholder(format!("${}", parameters.len())));
    Ok(())
}

/// What is to be read as a value of this type; `None`: DataFusion reads it. `double`: numbers of the column would be doubles.
fn text_of_literal<'a>(expr: &'a ast::Expr, ty: &DataType, double: bool) -> Option<Cow<'a, str>> {
    if let ast::Expr::Value(value) = expr
        && let ast::Value::SingleQuotedString(text) = &value.value
    {
        return (*ty != DataType::Utf8).then(|| text.into());
    }
    let number = exact::number(expr).filter(|_| double)?;
    let text = match ty {
        DataType::Decimal128(..) | DataType::Utf8 => number.written_out(),
        ty if ty.is_integer() => number.rounded(),
        _ => None,
    };
    text.map(Cow::Owned)
}

/// What PostgreSQL calls the type of a query's column: a number literal may have another in the plan.
fn type_of_item(query: &ast::Query, column: usize, ty: &DataType) -> String {
    let number = rows(query).into_iter().find_map(|row| exact::number(row.get(column)?));
    number.map_or_else(|| type_name(ty), |number| number.type_name().to_owned())
}

/// Rows as the relation has them: types cast, columns that were not given as their default says or NULL, NOT NULL checked.
pub fn fit(object: &Object, map: &[usize], batch: &RecordBatch, zone: &SessionZone) -> Result<RecordBatch, PgError> {
    let schema = object.schema();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
    for (array, at) in batch.columns().iter().zip(map) {
        let field = schema.field(*at);
        let place = || format!("column {} of \"{}\"", field.name(), object.name);
        let column = assign::cast(array, field.data_type(), zone);
        let column = column.and_then(|column| assign::read(column, &object.columns()[*at].ty));
        let column = column.map_err(|error| error.context(place()))?;
        if has_nul(&column) {
            let error = PgError::error("22021", "invalid byte sequence for encoding \"UTF8\": 0x00");
            return Err(error.context(place()));
        }
        columns[*at] = Some(column);
    }
    let defaults = object.relation().map(|relation| &relation.layout.defaults);
    let completed = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        let default = defaults.and_then(|defaults| defaults.get(field.name()));
        match (column, default) {
            (Some(column), _) => Ok(column),
            (None, None) => Ok(new_null_array(field.data_type(), batch.num_rows())),
            (None, Some(text)) => {
                constant(field.data_type(), Some(text))?.to_array_of_size(batch.num_rows()).map_err(PgError::from)
            }
        }
    });
    let columns = completed.collect::<Result<Vec<_>, PgError>>()?;
    for (array, field) in columns.iter().zip(schema.fields()) {
        if !field.is_nullable() && array.null_count() > 0 {
            return Err(PgError::error(
                "23502",
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    field.name(),
                    object.name
                ),
            ));
        }
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Whether a text has the character of the number 0, which PostgreSQL's text cannot hold: an expression can make one.
fn has_nul(array: &ArrayRef) -> bool {
    match (array.as_string_opt::<i32>(), array.as_list_opt::<i32>()) {
        (Some(texts), _) => texts.iter().flatten().any(|text| text.as_bytes().contains(&0)),
        (_, Some(lists)) => has_nul(lists.values()),
        _ => false,
    }
}

/// Rows that were not admitted are not lost, but the writer should know: how many, and why.
pub fn rejected(object: &Object, report: &IngestReport) -> Option<String> {
    if report.rejected() == 0 {
        return None;
    }
    let reasons: Vec<String> = report.rejected.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
    Some(format!(
        "{} of {} rows were not admitted to \"{}\" ({}): see tidemark.dead_letters",
        report.rejected(),
        report.rows,
        object.name,
        reasons.join(", ")
    ))
}
