//! The rows of a batch as a view's events, still in columns: nothing is allocated per event.

use super::{BatchRows, CompiledView, Failed, RowFailure, Taken, canonical_floats, evaluate_rows};
use crate::{
    cell::Cell,
    key::{Layout, NewEvent},
    seam::RejectReason,
    value::{Value, canonical, values_of},
    view::Joins,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray},
    buffer::NullBuffer,
    compute::{cast, filter_record_batch},
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{error::Result as DfResult, physical_expr::PhysicalExpr};
use std::sync::Arc;
use tidemark_catalog::UTC;

/// Longer keys no store takes (fjall: 65,535 bytes, with what goes before them).
const KEY_BYTES_MAX: usize = 32_768;

/// The events of a batch: those rows that were admitted, that the view's WHERE lets through, and that it can use.
pub struct Events {
    /// Rows that count, as positions in the columns, with their number in the batch.
    rows: Vec<(u32, u32)>,
    keys: Vec<Column>,
    inputs: Vec<Column>,
}

/// A column whose cells can be read in place.
enum Column {
    Bool(BooleanArray),
    Int(Vec<i64>, Option<NullBuffer>),
    Float(Vec<f64>, Option<NullBuffer>),
    Values(Vec<Value>),
}

impl Column {
    fn new(array: &ArrayRef) -> DfResult<Column> {
        let nulls = || array.logical_nulls();
        Ok(match array.data_type() {
            DataType::Boolean => Column::Bool(array.as_boolean().clone()),
            DataType::Int64 => Column::Int(array.as_primitive::<Int64Type>().values().to_vec(), nulls()),
            DataType::Int32 => {
                let values = array.as_primitive::<Int32Type>().values().iter().map(|i| i64::from(*i)).collect();
                Column::Int(values, nulls())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Column::Int(array.as_primitive::<TimestampMicrosecondType>().values().to_vec(), nulls())
            }
            DataType::Float64 => {
                let values = array.as_primitive::<Float64Type>().values().iter().map(|x| canonical(*x)).collect();
                Column::Float(values, nulls())
            }
            _ => Column::Values(values_of(array)?),
        })
    }

    fn cell(&self, i: usize) -> Cell<'_> {
        let valid = |nulls: &Option<NullBuffer>| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i));
        match self {
            Column::Bool(array) if array.is_valid(i) => Cell::Bool(array.value(i)),
            Column::Int(values, nulls) if valid(nulls) => Cell::Int(values[i]),
            Column::Float(values, nulls) if valid(nulls) => Cell::Float(values[i]),
            Column::Values(values) => Cell::of(&values[i]),
            _ => Cell::Null,
        }
    }
}

impl Events {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row of event `i` in the batch.
    pub fn row(&self, i: usize) -> usize {
        self.rows[i].1 as usize
    }

    /// Appends the encoding of the entity key of event `i` (see [`crate::value::encode_row`]).
    pub fn encode_key(&self, i: usize, out: &mut Vec<u8>) {
        let at = self.rows[i].0 as usize;
        self.keys.iter().for_each(|column| column.cell(at).encode(out));
    }

    /// The entity key of event `i`.
    pub fn key(&self, i: usize) -> Arc<[Value]> {
        let at = self.rows[i].0 as usize;
        self.keys.iter().map(|column| column.cell(at).to_value()).collect()
    }

    /// The inputs of event `i`, into an event that has been reset.
    pub fn fill(&self, i: usize, layout: &Layout, event: &mut NewEvent) {
        let at = self.rows[i].0 as usize;
        for (input, column) in self.inputs.iter().enumerate() {
            event.set(layout, input, column.cell(at));
        }
    }
}

impl CompiledView {
    /// Reduces the admitted rows of a batch to events; rows that cannot be used are reported. `joins` has the tables of a view
    /// that joins some.
    pub fn events(&self, batch: &BatchRows<'_>, joins: Option<&Joins>) -> DfResult<(Events, Vec<RowFailure>)> {
        let mut failures = vec![];
        let mut taken: Vec<bool> = vec![true; batch.rows.num_rows()];
        batch.rejected.iter().for_each(|r| taken[*r as usize] = false);
        // A deleted row only ends the version before it.
        if self.walk.versions {
            batch.deletes.iter().for_each(|r| taken[*r as usize] = false);
        }
        let mut index: Vec<usize> = (0..taken.len()).filter(|i| taken[*i]).collect();
        let mut rows = match self.walk.versions {
            true => self.at_effective_times(batch)?,
            false => batch.rows.clone(),
        };
        if index.len() != taken.len() {
            rows = filter_record_batch(&rows, &BooleanArray::from(taken))?;
        }
        rows = canonical_floats(&rows)?;
        if let Some(taken) = &self.taken[batch.branch] {
            rows = self.join(taken, rows, batch.times_us, joins, &mut index, &mut failures)?;
            rows = self.take(taken, rows, &mut index, &mut failures)?;
        }
        if let Some(filter) = &self.filter {
            rows = kept(filter, &rows, &mut index, &mut failures)?;
        }
        let mut bad = vec![false; index.len()];
        let schema = rows.schema();
        let keys = evaluate(&self.keys, &schema, &rows, &index, &mut bad, &mut failures)?;
        let inputs = self.inputs(&rows, &index, &mut bad, &mut failures)?;
        let columns = |arrays: &[ArrayRef]| arrays.iter().map(Column::new).collect::<DfResult<Vec<_>>>();
        let mut events =
            Events { rows: Vec::with_capacity(index.len()), keys: columns(&keys)?, inputs: columns(&inputs)? };
        for (i, row) in index.iter().copied().enumerate() {
            if bad[i] {
                continue;
            }
            if let Some(null) = events.keys.iter().position(|column| column.cell(i).is_null()) {
                let error = format!("entity key {} is NULL", self.plan.key[null]);
                failures.push(RowFailure { row, reason: RejectReason::NullKey, error });
                continue;
            }
            let bytes: usize = events.keys.iter().map(|column| column.cell(i).encoded_len()).sum();
            if bytes > KEY_BYTES_MAX {
                let error = format!("the entity key is {bytes} bytes long, at most {KEY_BYTES_MAX} are kept");
                failures.push(RowFailure { row, reason: RejectReason::Expression, error });
                continue;
            }
            events.rows.push((i as u32, row as u32));
        }
        Ok((events, failures))
    }

    /// The inputs over the rows. One that fails on a row that every FILTER over it leaves out is NULL there: nobody reads it.
    fn inputs(
        &self,
        rows: &RecordBatch,
        index: &[usize],
        bad: &mut [bool],
        failures: &mut Vec<RowFailure>,
    ) -> DfResult<Vec<ArrayRef>> {
        let schema = rows.schema();
        let evaluated = self.inputs.iter().map(|expr| evaluate_rows(expr, rows, &expr.data_type(&schema)?));
        let (arrays, failed): (Vec<ArrayRef>, Vec<Failed>) =
            evaluated.collect::<DfResult<Vec<_>>>()?.into_iter().unzip();
        for (input, Failed(mut failed)) in failed.into_iter().enumerate().filter(|(_, failed)| !failed.0.is_empty()) {
            if let Some(filters) = self.plan.filters_over(input) {
                let filters: Vec<&BooleanArray> =
                    filters.iter().filter_map(|filter| arrays[*filter].as_boolean_opt()).collect();
                failed.retain(|(row, _)| filters.iter().any(|filter| filter.is_valid(*row) && filter.value(*row)));
            }
            report_once(failed, index, bad, failures);
        }
        Ok(arrays)
    }

    /// What a SELECT of UNION ALL makes of a relation's rows, with the tables beside them.
    fn take(
        &self,
        taken: &Taken,
        mut rows: RecordBatch,
        index: &mut Vec<usize>,
        failures: &mut Vec<RowFailure>,
    ) -> DfResult<RecordBatch> {
        if let Some(filter) = &taken.filter {
            rows = kept(filter, &rows, index, failures)?;
        }
        let mut bad = vec![false; index.len()];
        let schema = rows.schema();
        let columns = evaluate(&taken.columns, &schema, &rows, index, &mut bad, failures)?;
        let schema = self.plan.row_schema.clone();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        if bad.contains(&true) {
            index.retain({
                let mut of_row = bad.iter();
                move |_| of_row.next() == Some(&false)
            });
            rows = filter_record_batch(&rows, &bad.into_iter().map(|bad| Some(!bad)).collect())?;
        }
        canonical_floats(&rows)
    }

    /// The rows of a changelog with the times at which they count in their event-time column.
    fn at_effective_times(&self, batch: &BatchRows<'_>) -> DfResult<RecordBatch> {
        let mut columns = batch.rows.columns().to_vec();
        let times = TimestampMicrosecondArray::from(batch.times_us.to_vec()).with_timezone(UTC);
        let column = &mut columns[self.plan.event_time];
        *column = cast(&times, column.data_type())?;
        Ok(RecordBatch::try_new(batch.rows.schema(), columns)?)
    }
}

/// The rows that a condition lets through; `index` are their numbers in the batch.
fn kept(
    filter: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    index: &mut Vec<usize>,
    failures: &mut Vec<RowFailure>,
) -> DfResult<RecordBatch> {
    let (kept, failed) = evaluate_rows(filter, rows, &DataType::Boolean)?;
    let kept = kept.as_boolean();
    let mask: BooleanArray =
        (0..kept.len()).map(|i| Some(kept.is_valid(i) && kept.value(i) && !failed.contains(i))).collect();
    failed.report(index, RejectReason::Expression, failures);
    *index = (0..index.len()).filter(|i| mask.value(*i)).map(|i| index[i]).collect();
    Ok(filter_record_batch(rows, &mask)?)
}

/// The expressions over the rows; the rows on which one fails are marked and reported once.
pub(super) fn evaluate(
    exprs: &[Arc<dyn PhysicalExpr>],
    schema: &SchemaRef,
    rows: &RecordBatch,
    index: &[usize],
    bad: &mut [bool],
    failures: &mut Vec<RowFailure>,
) -> DfResult<Vec<ArrayRef>> {
    exprs
        .iter()
        .map(|expr| {
            let (array, failed) = evaluate_rows(expr, rows, &expr.data_type(schema)?)?;
            report_once(failed.0, index, bad, failures);
            Ok(array)
        })
        .collect()
}

/// Marks rows on which an expression failed; those that were marked before have been reported.
fn report_once(failed: Vec<(usize, String)>, index: &[usize], bad: &mut [bool], failures: &mut Vec<RowFailure>) {
    let fresh = failed.into_iter().filter(|(row, _)| !std::mem::replace(&mut bad[*row], true)).collect();
    Failed(fresh).report(index, RejectReason::Expression, failures);
}
