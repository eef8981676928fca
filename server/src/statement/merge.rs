//! `MERGE`: one query joins the table with the source and says of each row which clause it is for; what that comes to is one
//! append, as of `UPDATE` and `DELETE`.

use super::{assign, change, insert, query};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    prepared::{Prepared, declared_types},
    session::Session,
};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::{cast, filter_record_batch},
    datatypes::{DataType, Int64Type, UInt64Type},
};
use datafusion::{scalar::ScalarValue, sql::sqlparser::ast};
use futures::TryStreamExt;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};
use tidemark_catalog::{Object, Snapshot};
use tidemark_engine::{runtime, seam::Removal};
use tidemark_planner::{
    exact,
    statement::{Merge, MergeAction, MergeClause},
    words::type_name,
};

/// Of each clause the columns that it gives values to, as places among the table's.
fn columns_of(object: &Object, merge: &Merge) -> Result<Vec<Vec<usize>>, PgError> {
    let of_clause = |clause: &MergeClause| match clause.action {
        MergeAction::Nothing | MergeAction::Delete => Ok(vec![]),
        MergeAction::Update if clause.columns.is_empty() => Ok(vec![]),
        MergeAction::Update => insert::column_map(object, &clause.columns),
        MergeAction::Insert => {
            let mut columns = insert::column_map(object, &clause.columns)?;
            if clause.values > columns.len() {
                return Err(PgError::error("42601", "INSERT has more expressions than target columns"));
            }
            columns.truncate(clause.values);
            Ok(columns)
        }
    };
    merge.clauses.iter().map(of_clause).collect()
}

/// The types of the parameters that a column is set to.
pub fn parameter_types(
    snapshot: &Snapshot,
    merge: &Merge,
    declared: &mut Vec<u32>,
) -> Result<Vec<Option<DataType>>, PgError> {
    let object = change::target(snapshot, &merge.table, "MERGE")?;
    let mut types = declared_types(declared)?;
    for (expr, column) in merge.values().into_iter().zip(columns_of(object, merge)?.concat()) {
        insert::parameter_type(expr, &object.columns()[column], &mut types, declared)?;
    }
    Ok(types)
}

/// The query with what `DEFAULT` stands for.
pub fn with_defaults(object: &Object, merge: &Merge) -> Result<Box<ast::Query>, PgError> {
    let mut query = merge.query.clone();
    for (expr, column) in Merge::values_mut(&mut query).into_iter().zip(columns_of(object, merge)?.concat()) {
        insert::write_default(object, column, expr);
    }
    Ok(query)
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    merge: &Merge,
    prepared: &Prepared,
    parameters: &[ScalarValue],
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let object = change::target(&snapshot, &merge.table, "MERGE")?.clone();
    let columns = columns_of(&object, merge)?;
    let mut types = declared_types(&prepared.parameter_oids)?;
    let mut parameters = parameters.to_vec();
    let mut find = with_defaults(&object, merge)?;
    for (expr, column) in Merge::values_mut(&mut find).into_iter().zip(columns.concat()) {
        let column = &object.columns()[column];
        let double = exact::number(expr).is_some_and(|number| !number.is_int8());
        insert::literal_as_parameter(session, &object, column, expr, double, &mut types, &mut parameters)?;
    }
    let engine = &database.owner()?.engine;
    let alone = engine.alone(object.id).await?;
    change::check_unaltered(database, session, &object)?;
    let (schema, stream) = query::run(database, session, &find, &types, &parameters).await?;
    // The place, the row, the clause; then the values.
    let width = object.columns().len();
    let first_value = width + 2;
    for (column, field) in columns.concat().into_iter().zip(schema.fields().iter().skip(first_value)) {
        assign::check(&object.columns()[column], field.data_type(), || type_name(field.data_type()))?;
    }
    let found: Vec<RecordBatch> = stream.try_collect().await?;
    let mut rows = runtime::Change::default();
    let mut changed = HashSet::new();
    let mut count = 0;
    for batch in &found {
        let chosen = cast(batch.column(width + 1), &DataType::Int64)?;
        let chosen = chosen.as_primitive::<Int64Type>();
        let mut at = first_value;
        for (i, (clause, columns)) in merge.clauses.iter().zip(&columns).enumerate() {
            let values = at..at + columns.len();
            at = values.end;
            let is_its_own: BooleanArray = chosen.iter().map(|chosen| Some(chosen == Some(i as i64))).collect();
            if clause.action == MergeAction::Nothing || is_its_own.true_count() == 0 {
                continue;
            }
            let own = filter_record_batch(batch, &is_its_own)?;
            count += own.num_rows();
            if clause.action != MergeAction::Insert {
                for place in own.column(0).as_primitive::<UInt64Type>().values() {
                    if !changed.insert(*place) {
                        return Err(PgError::error("21000", "MERGE command cannot affect row a second time")
                            .hint("Ensure that not more than one source row matches any one target row."));
                    }
                }
                let old: Vec<usize> = (1..=width).collect();
                let old = own.project(&old)?;
                rows.deleted.push(RecordBatch::try_new(object.schema(), old.columns().to_vec())?);
            }
            let zone = &session.format.time_zone;
            match clause.action {
                MergeAction::Nothing | MergeAction::Delete => {}
                MergeAction::Update => {
                    let mut new: Vec<usize> = (1..=width).collect();
                    for (column, value) in columns.iter().zip(values) {
                        new[*column] = value;
                    }
                    let all: Vec<usize> = (0..width).collect();
                    rows.added.push(insert::fit(&object, &all, &own.project(&new)?, zone)?);
                }
                MergeAction::Insert => {
                    let given = own.project(&values.collect::<Vec<_>>())?;
                    rows.added.push(insert::fit(&object, columns, &given, zone)?);
                }
            }
        }
    }
    let has_key = object.relation().is_some_and(|relation| !relation.primary_key.is_empty());
    if !has_key {
        let offsets: BTreeSet<u64> = changed.into_iter().collect();
        rows.removal = Removal { below: 0, offsets: offsets.into_iter().collect() };
    }
    let held = session.hold.hold();
    engine.change(alone, rows).await?;
    drop(held);
    Ok(Outcome::Done { tag: format!("MERGE {count}").into() })
}
