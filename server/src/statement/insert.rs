//! `INSERT INTO t [(columns)] VALUES … | query [ON CONFLICT …]`: appended, admitted, visible when it returns.

use super::{from_text, query};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    prepared::declared_types,
    session::Session,
    wire::{SessionZone, value_from_text},
};
use arrow::{
    array::{ArrayRef, RecordBatch, new_null_array},
    compute::CastOptions,
    datatypes::DataType,
};
use datafusion::{scalar::ScalarValue, sql::sqlparser::ast};
use futures::TryStreamExt;
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::{Object, Snapshot};
use tidemark_engine::runtime::{Conflict, IngestReport};
use tidemark_planner::{
    error::missing_object,
    statement::{Insert, OnConflict},
};

/// The source or table that rows can be put into.
pub fn target<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Arc<Object>, PgError> {
    match snapshot.get(name) {
        None => Err(missing_object(snapshot, "relation", name, |object| object.relation().is_some()).into()),
        Some(object) if object.relation().is_none() => {
            Err(PgError::error("42809", format!("cannot insert into {} \"{name}\"", object.kind()))
                .hint("rows go into its source; a view follows by itself"))
        }
        Some(object) => Ok(object),
    }
}

/// For each of the relation's columns, which of the given columns it takes; `names` empty: all, in order.
pub fn column_map(object: &Object, names: &[String]) -> Result<Vec<usize>, PgError> {
    if names.is_empty() {
        return Ok((0..object.columns().len()).collect());
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
        map.push(at);
    }
    Ok(map)
}

/// The types of `$1` …: as declared, else the column a bare parameter stands for in VALUES.
pub fn parameter_types(
    snapshot: &Snapshot,
    insert: &Insert,
    declared: &[u32],
) -> Result<Vec<Option<DataType>>, PgError> {
    let object = target(snapshot, &insert.table)?;
    let map = column_map(object, &insert.columns)?;
    let mut types = declared_types(declared)?;
    if let ast::SetExpr::Values(values) = insert.query.body.as_ref() {
        for row in &values.rows {
            for (expr, column) in row.content.iter().zip(&map) {
                let ast::Expr::Value(value) = expr else { continue };
                let ast::Value::Placeholder(name) = &value.value else { continue };
                let Some(n) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()) else { continue };
                if !(1..=65_535).contains(&n) {
                    return Err(PgError::error("42P02", format!("there is no parameter {name}")));
                }
                if types.len() < n {
                    types.resize(n, None);
                }
                types[n - 1].get_or_insert_with(|| object.columns()[*column].ty.arrow());
            }
        }
    }
    Ok(types)
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    insert: &Insert,
    parameter_oids: &[u32],
    parameters: &[ScalarValue],
) -> Result<Outcome, PgError> {
    let snapshot = database.snapshot();
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
            if *other == OnConflict::Nothing { Conflict::Skip } else { Conflict::Replace }
        }
    };
    let mut types = declared_types(parameter_oids)?;
    let mut parameters = parameters.to_vec();
    let query = literals_as_parameters(session, &object, &map, &insert.query, &mut types, &mut parameters)?;
    let (schema, stream) = query::run(database, session, &query, &types, &parameters).await?;
    if schema.fields().len() > map.len() {
        return Err(PgError::error("42601", "INSERT has more expressions than target columns"));
    }
    if !insert.columns.is_empty() && schema.fields().len() < map.len() {
        return Err(PgError::error("42601", "INSERT has more target columns than expressions"));
    }
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    let batches = batches
        .iter()
        .filter(|b| b.num_rows() > 0)
        .map(|batch| fit(&object, &map, batch, &session.format.time_zone))
        .collect::<Result<Vec<_>, PgError>>()?;
    let held = session.hold.hold();
    let report = database.engine.ingest(object.id, batches, conflict).await?;
    drop(held);
    if let Some(notice) = rejected(&object, &report) {
        session.notice(notice);
    }
    Ok(Outcome::Done { tag: format!("INSERT 0 {}", report.rows).into() })
}

/// In VALUES a quoted literal is a value of its column's type, as in PostgreSQL: read by the rules of COPY, in the
/// session's time zone, and not by what stands in the other rows.
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
    for row in &mut values.rows {
        for (expr, column) in row.content.iter_mut().zip(map) {
            let ty = object.columns()[*column].ty.arrow();
            let ast::Expr::Value(value) = expr else { continue };
            let (ast::Value::SingleQuotedString(text), false) = (&value.value, ty == DataType::Utf8) else { continue };
            let parsed = value_from_text(&ty, text, &session.format.time_zone).map_err(|e| {
                let error: PgError = e.into();
                error.context(format!("column {} of \"{}\"", object.columns()[*column].name, object.name))
            })?;
            types.push(Some(ty));
            parameters.push(parsed);
            value.value = ast::Value::Placeholder(format!("${}", parameters.len()));
        }
    }
    Ok(query)
}

/// A number with a fraction goes into an integer column rounded, as in PostgreSQL; Arrow's cast would cut it off.
fn whole_numbers(array: &ArrayRef, ty: &DataType) -> Result<ArrayRef, PgError> {
    use arrow::{
        array::{AsArray, Float64Array},
        datatypes::Float64Type,
    };
    if !ty.is_integer() || !matches!(array.data_type(), DataType::Float32 | DataType::Float64) {
        return Ok(array.clone());
    }
    let array = arrow::compute::cast(array, &DataType::Float64)?;
    let rounded: Float64Array = array.as_primitive::<Float64Type>().unary(f64::round);
    Ok(Arc::new(rounded))
}

/// Rows as the relation has them: types cast, columns that were not given NULL, NOT NULL checked.
pub fn fit(object: &Object, map: &[usize], batch: &RecordBatch, zone: &SessionZone) -> Result<RecordBatch, PgError> {
    let schema = object.schema();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
    // A value that cannot be cast is an error, not NULL.
    let strict = CastOptions { safe: false, ..Default::default() };
    for (array, at) in batch.columns().iter().zip(map) {
        let ty = schema.field(*at).data_type();
        let array = &whole_numbers(array, ty)?;
        let read = match from_text::reads(array.data_type(), ty) {
            true => from_text::column(array, ty, zone),
            false => arrow::compute::cast_with_options(array, ty, &strict).map_err(PgError::from),
        };
        let place = || format!("column {} of \"{}\"", schema.field(*at).name(), object.name);
        columns[*at] = Some(read.map_err(|error| error.context(place()))?);
    }
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| column.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows())))
        .collect::<Vec<_>>();
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
