//! `UPDATE`, `DELETE`, `TRUNCATE`: the rows are found by a query while nobody else writes to the table, and changed in one append.

use super::{assign, insert, query, returning::Returning};
use crate::{
    database::Database,
    pg::{Bound, Outcome, PgError},
    prepared::{Prepared, declared_types},
    session::Session,
};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, UInt64Type},
};
use datafusion::{scalar::ScalarValue, sql::sqlparser::ast};
use futures::TryStreamExt;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};
use tidemark_catalog::{Body, Object, ObjectKind, QualifiedName, Snapshot};
use tidemark_engine::{runtime, seam::Removal};
use tidemark_planner::{error::missing_object, exact, statement::Change, table::ROW_COLUMN};

/// The table whose rows can be taken back.
pub fn target<'a>(snapshot: &'a Snapshot, name: &QualifiedName, command: &str) -> Result<&'a Arc<Object>, PgError> {
    let Some(object) = snapshot.get(name) else {
        return Err(missing_object(snapshot, "relation", name, |object| object.kind() == ObjectKind::Table).into());
    };
    let refused = |hint: &str| {
        let message = format!("{command} cannot change {} \"{name}\"", object.kind());
        Err(PgError::error("42809", message).hint(hint.to_string()))
    };
    match &object.body {
        Body::Table(relation) if relation.files().is_some() => {
            refused("it is files that somebody else writes: CREATE TABLE … AS SELECT makes a table of them")
        }
        Body::Table(relation) if relation.topic().is_some() => {
            refused("its rows are its topic's: INSERT … ON CONFLICT DO UPDATE writes a new version there")
        }
        Body::Table(relation) if relation.primary_key.is_empty() && relation.event_time.is_some() => refused(
            "it has a watermark and no primary key, so it is a stream of events, which stay: declare a PRIMARY KEY",
        ),
        Body::Table(_) => Ok(object),
        Body::Source(_) => refused("events stay; WITH (retention = '…') lets go of old ones"),
        _ => refused("its rows follow what it reads"),
    }
}

/// The columns that an `UPDATE` sets, as places among the table's.
pub fn set_columns(object: &Object, change: &Change) -> Result<Vec<usize>, PgError> {
    match &change.sets {
        // No names would be all columns.
        Some(names) if !names.is_empty() => insert::column_map(object, names),
        _ => Ok(vec![]),
    }
}

/// The types of the parameters that a column is set to.
pub fn parameter_types(
    snapshot: &Snapshot,
    change: &Change,
    declared: &mut Vec<u32>,
) -> Result<Vec<Option<DataType>>, PgError> {
    let object = target(snapshot, &change.table, change.command())?;
    let mut types = declared_types(declared)?;
    for (expr, column) in change.values().into_iter().zip(set_columns(object, change)?) {
        insert::parameter_type(expr, &object.columns()[column], &mut types, declared)?;
    }
    Ok(types)
}

/// For who has the table alone by now, and has found places among its columns before.
///
/// # Errors
/// 40001: `ALTER TABLE` came in between.
pub fn check_unaltered(database: &Database, session: &Session, object: &Object) -> Result<(), PgError> {
    let now = session.snapshot(database);
    match now.get_id(object.id).is_some_and(|now| now.columns() != object.columns()) {
        true => Err(runtime::IngestError::Altered(object.shown_name()).into()),
        false => Ok(()),
    }
}

/// The query with what `DEFAULT` stands for.
pub fn with_defaults(object: &Object, change: &Change) -> Result<Box<ast::Query>, PgError> {
    let mut query = change.query.clone();
    for (expr, column) in Change::values_mut(&mut query).into_iter().zip(set_columns(object, change)?) {
        insert::write_default(object, column, expr);
    }
    Ok(query)
}

pub fn returning<'a>(object: &'a Object, change: &'a Change) -> Option<Returning<'a>> {
    let items = change.returning.as_deref()?;
    Some(Returning { object, alias: &change.alias, items })
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    change: &Change,
    prepared: &Prepared,
    parameters: &[ScalarValue],
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let object = target(&snapshot, &change.table, change.command())?.clone();
    let sets = set_columns(&object, change)?;
    let mut types = declared_types(&prepared.parameter_oids)?;
    let mut parameters = parameters.to_vec();
    let returning = returning(&object, change);
    let returned = returning.as_ref().map(|r| r.ready(database, session, prepared, &types)).transpose()?;
    let given = parameters.clone();
    let mut find = with_defaults(&object, change)?;
    for (expr, column) in Change::values_mut(&mut find).into_iter().zip(&sets) {
        let column = &object.columns()[*column];
        let double = exact::number(expr).is_some_and(|number| !number.is_int8());
        insert::literal_as_parameter(session, &object, column, expr, double, &mut types, &mut parameters)?;
    }
    let has_key = object.relation().is_some_and(|relation| !relation.primary_key.is_empty());
    let only_places = !has_key && change.sets.is_none() && returning.is_none();
    if only_places {
        only_the_places(&mut find, &change.alias);
    }
    let engine = &database.owner()?.engine;
    let alone = engine.alone(object.id).await?;
    check_unaltered(database, session, &object)?;
    let (schema, stream) = query::run(database, session, &find, &types, &parameters).await?;
    let width = object.columns().len();
    for (column, field) in sets.iter().zip(schema.fields().iter().skip(1 + width)) {
        assign::check(&object.columns()[*column], field.data_type(), || {
            tidemark_planner::words::type_name(field.data_type())
        })?;
    }
    let found = once(stream.try_collect().await?)?;
    let mut rows = runtime::Change::default();
    let mut offsets = BTreeSet::new();
    let mut count = 0;
    for batch in &found {
        count += batch.num_rows();
        offsets.extend(batch.column(0).as_primitive::<UInt64Type>().values());
        if only_places {
            continue;
        }
        let old = batch.project(&(1..=width).collect::<Vec<_>>())?;
        if change.sets.is_some() {
            let mut new: Vec<usize> = (1..=width).collect();
            for (i, column) in sets.iter().enumerate() {
                new[*column] = 1 + width + i;
            }
            let all: Vec<usize> = (0..width).collect();
            rows.added.push(insert::fit(&object, &all, &batch.project(&new)?, &session.format.time_zone)?);
        }
        rows.deleted.push(RecordBatch::try_new(object.schema(), old.columns().to_vec())?);
    }
    if !has_key {
        rows.removal = Removal { below: 0, offsets: offsets.into_iter().collect() };
    }
    // Before anything happens: an expression may fail on a row.
    let answer = match (&returning, returned) {
        (Some(returning), Some(plan)) => {
            let shown = if change.sets.is_some() { &rows.added } else { &rows.deleted };
            Some(returning.of(database, session, plan, &given, shown).await?)
        }
        _ => None,
    };
    let held = session.hold.hold();
    engine.change(alone, rows).await?;
    drop(held);
    match answer {
        Some(answer) => answer.answer(session, bound, change.command()),
        None => Ok(Outcome::Done { tag: format!("{} {count}", change.command()).into() }),
    }
}

/// Without the rows themselves: of a plain table only where they are is needed for them to go.
fn only_the_places(query: &mut ast::Query, alias: &str) {
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        let place = [alias, ROW_COLUMN].map(|name| ast::Ident::with_quote('"', name));
        select.projection = vec![ast::SelectItem::UnnamedExpr(ast::Expr::CompoundIdentifier(place.to_vec()))];
    }
}

/// Each row once: where it was found several times, as it was found first. PostgreSQL says that nobody knows which counts.
fn once(found: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, PgError> {
    let mut seen = HashSet::new();
    let mut once = vec![];
    for batch in found {
        let places = batch.column(0).as_primitive::<UInt64Type>();
        let first: BooleanArray = places.values().iter().map(|place| Some(seen.insert(*place))).collect();
        once.push(if first.true_count() == batch.num_rows() { batch } else { filter_record_batch(&batch, &first)? });
    }
    once.retain(|batch| batch.num_rows() > 0);
    Ok(once)
}

/// Tables become empty one after the other, in the order in which they are named.
pub async fn truncate(
    database: &Arc<Database>,
    session: &mut Session,
    tables: &[QualifiedName],
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let objects = tables.iter().map(|name| target(&snapshot, name, "TRUNCATE")).collect::<Result<Vec<_>, _>>()?;
    for object in objects {
        let engine = &database.owner()?.engine;
        let alone = engine.alone(object.id).await?;
        let _held = session.hold.hold();
        let everything = alone.everything()?;
        engine.change(alone, everything).await?;
    }
    super::done("TRUNCATE TABLE")
}
