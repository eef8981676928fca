//! The columns of joined tables beside a relation's rows: of each event the version as of its time.

use super::{CompiledView, RowFailure, Taken, evaluate_rows, events::evaluate};
use crate::{
    value::{Value, array_of, encode_row, values_of},
    view::Joins,
};
use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::{Schema, SchemaRef},
};
use datafusion::{error::Result as DfResult, physical_expr::PhysicalExpr};
use std::sync::Arc;
use tidemark_catalog::ObjectId;
use tidemark_planner::feature::Joined;

/// One table beside the rows.
pub struct JoinedTable {
    table: ObjectId,
    /// The values that its primary key is equal to, over the relation's columns.
    key: Vec<Arc<dyn PhysicalExpr>>,
    is_left: bool,
    is_strict: bool,
    columns: std::ops::Range<usize>,
    /// Of the relation and the tables up to this one.
    schema: SchemaRef,
}

impl JoinedTable {
    pub fn new(joined: &Joined, wide: &SchemaRef, key: Vec<Arc<dyn PhysicalExpr>>) -> JoinedTable {
        let fields: Vec<_> = wide.fields().iter().take(joined.columns.end).cloned().collect();
        JoinedTable {
            table: joined.table,
            key,
            is_left: joined.is_left,
            is_strict: joined.is_strict,
            columns: joined.columns.clone(),
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

/// The encoded key of each row; `None`: a part of it is NULL, and nothing is equal to it.
fn encoded(columns: &[ArrayRef]) -> DfResult<Vec<Option<Vec<u8>>>> {
    let rows = columns.first().map_or(0, |column| column.len());
    let columns = columns.iter().map(values_of).collect::<Result<Vec<_>, _>>()?;
    let of_row = |row: usize| {
        let key: Vec<Value> = columns.iter().map(|column| column[row].clone()).collect();
        (!key.contains(&Value::Null)).then(|| encode_row(&key))
    };
    Ok((0..rows).map(of_row).collect())
}

impl CompiledView {
    /// What the rows of a branch look up, for each table that is joined to it.
    pub fn join_keys(&self, branch: usize, rows: &RecordBatch) -> DfResult<Vec<Vec<Option<Vec<u8>>>>> {
        let Some(taken) = &self.taken[branch] else { return Ok(vec![]) };
        let schema = rows.schema();
        let keys = |joined: &JoinedTable| {
            let columns = joined.key.iter().map(|key| Ok(evaluate_rows(key, rows, &key.data_type(&schema)?)?.0));
            encoded(&columns.collect::<DfResult<Vec<_>>>()?)
        };
        taken.joined.iter().map(keys).collect()
    }

    /// The rows with the tables' columns beside them; `index` are their numbers in the batch, `times_us` the times of the batch's
    /// rows.
    pub(super) fn join(
        &self,
        taken: &Taken,
        mut rows: RecordBatch,
        times_us: &[i64],
        joins: Option<&Joins>,
        index: &mut Vec<usize>,
        failures: &mut Vec<RowFailure>,
    ) -> DfResult<RecordBatch> {
        for joined in &taken.joined {
            let mut bad = vec![false; index.len()];
            let schema = rows.schema();
            let keys = encoded(&evaluate(&joined.key, &schema, &rows, index, &mut bad, failures)?)?;
            let table = joins.and_then(|joins| joins.table(joined.table));
            let version =
                |(i, key): (usize, &Option<Vec<u8>>)| table?.as_of(key.as_ref()?, times_us[index[i]], joined.is_strict);
            let versions: Vec<Option<&Arc<[Value]>>> = keys.iter().enumerate().map(version).collect();
            let mut columns = rows.columns().to_vec();
            let null = Value::Null;
            for (i, field) in joined.schema.fields()[joined.columns.clone()].iter().enumerate() {
                let cells = versions.iter().map(|version| version.map_or(&null, |row| &row[i]));
                columns.push(array_of(field.data_type(), cells)?);
            }
            let stays = |i: usize| !bad[i] && (joined.is_left || versions[i].is_some());
            let mask: BooleanArray = (0..index.len()).map(|i| Some(stays(i))).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            rows = RecordBatch::try_new_with_options(joined.schema.clone(), columns, &options)?;
            if mask.true_count() < index.len() {
                *index = (0..index.len()).filter(|i| mask.value(*i)).map(|i| index[i]).collect();
                rows = filter_record_batch(&rows, &mask)?;
            }
        }
        Ok(rows)
    }
}
