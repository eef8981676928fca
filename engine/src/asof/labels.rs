//! The left side, indexed: for every key the distinct times of its rows, in order.
//!
//! Such a time is a *slot*, the unit that right rows compete for: all left rows of one key and time match the same row.

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::PhysicalExpr;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_planner::asof::AsofOp;

/// No slot: the row has a NULL in its key or time, or no label can use it.
pub const NONE: u32 = u32::MAX;

pub struct Labels {
    pub batches: Vec<RecordBatch>,
    /// The slot of every row, batch after batch.
    pub row_slots: Vec<u32>,
    keys: Keys,
    groups: HashMap<Box<[u8]>, u32, RandomState>,
    /// Slots of group `g`: `starts[g]..starts[g + 1]`.
    starts: Vec<u32>,
    /// Time of each slot, ascending within a group.
    pub times: Vec<i64>,
}

impl Labels {
    pub fn build(
        batches: Vec<RecordBatch>,
        keys: &[Arc<dyn PhysicalExpr>],
        time: &Arc<dyn PhysicalExpr>,
        key_types: Vec<DataType>,
        reservation: &MemoryReservation,
    ) -> Result<Self> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows >= NONE as usize {
            return exec_err!("the left side of an ASOF JOIN has {rows} rows, more than {NONE}");
        }
        // Slot and place of each row, time of each slot, and as much again while sorting.
        reservation.try_grow(rows * 48)?;
        let converter = Keys::try_new(key_types)?;
        let mut groups: HashMap<Box<[u8]>, u32, RandomState> = HashMap::with_hasher(hasher());
        let mut places: Vec<(u32, i64, u32)> = Vec::with_capacity(rows);
        let mut row = 0u32;
        let mut key_bytes = 0;
        for batch in &batches {
            let encoded = converter.encode(keys, time, batch)?;
            for i in 0..batch.num_rows() {
                if let Some((key, time)) = encoded.get(i) {
                    let group = match groups.get(key) {
                        Some(&group) => group,
                        None => {
                            let group = groups.len() as u32;
                            key_bytes += key.len() + 48;
                            groups.insert(key.into(), group);
                            group
                        }
                    };
                    places.push((group, time, row));
                }
                row += 1;
            }
        }
        reservation.try_grow(key_bytes)?;
        places.sort_unstable();
        let mut labels = Labels {
            batches,
            row_slots: vec![NONE; rows],
            keys: converter,
            starts: Vec::with_capacity(groups.len() + 1),
            groups,
            times: vec![],
        };
        let mut last = None;
        for (group, time, row) in places {
            if last != Some((group, time)) {
                if last.is_none_or(|(g, _)| g != group) {
                    labels.starts.push(labels.times.len() as u32);
                }
                labels.times.push(time);
                last = Some((group, time));
            }
            labels.row_slots[row as usize] = labels.times.len() as u32 - 1;
        }
        labels.starts.push(labels.times.len() as u32);
        Ok(labels)
    }

    pub fn slots(&self) -> usize {
        self.times.len()
    }

    /// The slot that each right row competes for: the nearest label that it may match.
    pub fn find(
        &self,
        keys: &[Arc<dyn PhysicalExpr>],
        time: &Arc<dyn PhysicalExpr>,
        op: AsofOp,
        batch: &RecordBatch,
    ) -> Result<Candidates> {
        let encoded = self.keys.encode(keys, time, batch)?;
        let mut candidates = Candidates { rows: vec![], times: encoded.times.clone() };
        for i in 0..batch.num_rows() {
            let Some((key, time)) = encoded.get(i) else { continue };
            let Some(&group) = self.groups.get(key) else { continue };
            let start = self.starts[group as usize] as usize;
            let timeline = &self.times[start..self.starts[group as usize + 1] as usize];
            let at = match op {
                AsofOp::GtEq => timeline.partition_point(|&label| label < time),
                AsofOp::Gt => timeline.partition_point(|&label| label <= time),
                // The last label not after the row; wraps past the end when there is none.
                AsofOp::LtEq => timeline.partition_point(|&label| label <= time).wrapping_sub(1),
                AsofOp::Lt => timeline.partition_point(|&label| label < time).wrapping_sub(1),
            };
            if at < timeline.len() {
                candidates.rows.push(((start + at) as u32, i as u32));
            }
        }
        Ok(candidates)
    }

    /// For every slot the slot whose winner is its match: its own or, without one, the nearest that has.
    pub fn spread(&self, op: AsofOp, won: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut sources = vec![NONE; self.slots()];
        for group in self.starts.windows(2) {
            let mut nearest = NONE;
            let mut visit = |slot: u32| {
                if won(slot) {
                    nearest = slot;
                }
                sources[slot as usize] = nearest;
            };
            if op.is_backward() {
                (group[0]..group[1]).for_each(&mut visit);
            } else {
                (group[0]..group[1]).rev().for_each(&mut visit);
            }
        }
        sources
    }
}

/// The rows of one right batch that some label can use.
pub struct Candidates {
    /// Slot and row.
    pub rows: Vec<(u32, u32)>,
    /// Time of every row of the batch.
    pub times: Int64Array,
}

/// Fixed seeds: a plan does the same work in every run.
fn hasher() -> RandomState {
    RandomState::with_seeds(0x5bd1_e995, 0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35)
}

/// Key columns as comparable bytes.
struct Keys {
    converter: Option<RowConverter>,
}

impl Keys {
    fn try_new(types: Vec<DataType>) -> Result<Self> {
        if types.is_empty() {
            return Ok(Keys { converter: None });
        }
        let converter = RowConverter::new(types.into_iter().map(SortField::new).collect())?;
        Ok(Keys { converter: Some(converter) })
    }

    fn encode(
        &self,
        keys: &[Arc<dyn PhysicalExpr>],
        time: &Arc<dyn PhysicalExpr>,
        batch: &RecordBatch,
    ) -> Result<Encoded> {
        let times = times(time, batch)?;
        let mut valid: Vec<bool> = (0..batch.num_rows()).map(|i| times.is_valid(i)).collect();
        let mut columns = Vec::with_capacity(keys.len());
        for key in keys {
            let column = normalised(key.evaluate(batch)?.into_array(batch.num_rows())?);
            if let Some(nulls) = column.logical_nulls() {
                valid.iter_mut().zip(nulls.iter()).for_each(|(valid, is_valid)| *valid &= is_valid);
            }
            columns.push(column);
        }
        let rows = match &self.converter {
            Some(converter) => Some(converter.convert_columns(&columns)?),
            None => None,
        };
        Ok(Encoded { rows, times, valid })
    }
}

struct Encoded {
    rows: Option<Rows>,
    times: Int64Array,
    valid: Vec<bool>,
}

impl Encoded {
    /// Key and time of a row; `None` where one of them is NULL.
    fn get(&self, row: usize) -> Option<(&[u8], i64)> {
        if !self.valid[row] {
            return None;
        }
        let key: &[u8] = match &self.rows {
            Some(rows) => rows.row(row).data(),
            None => &[],
        };
        Some((key, self.times.value(row)))
    }
}

/// Times as whole units since the epoch.
pub fn times(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<Int64Array> {
    let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
    let array = cast(&array, &DataType::Int64)?;
    match array.as_primitive_opt::<arrow::datatypes::Int64Type>() {
        Some(times) => Ok(times.clone()),
        None => internal_err!("the times of an ASOF JOIN are not numbers"),
    }
}

/// −0 is 0 and there is one NaN, as equality has it.
fn normalised(array: ArrayRef) -> ArrayRef {
    fn each<T: ArrowPrimitiveType>(array: &ArrayRef, f: impl Fn(T::Native) -> T::Native) -> ArrayRef {
        let array: &PrimitiveArray<T> = array.as_primitive();
        Arc::new(array.unary::<_, T>(f))
    }
    match array.data_type() {
        DataType::Float16 => each::<Float16Type>(&array, |x| {
            use arrow::datatypes::ArrowNativeTypeOp;
            type F = <Float16Type as ArrowPrimitiveType>::Native;
            if x.is_nan() { F::NAN } else { x.add_wrapping(F::ZERO) }
        }),
        DataType::Float32 => each::<Float32Type>(&array, |x| if x.is_nan() { f32::NAN } else { x + 0.0 }),
        DataType::Float64 => each::<Float64Type>(&array, |x| if x.is_nan() { f64::NAN } else { x + 0.0 }),
        _ => array,
    }
}
