//! The left side, indexed: for every key the distinct times of its rows, in order.
//!
//! Such a time is a *slot*, the unit that right rows compete for: all left rows of one key and time match the same row.

use super::memory::{Claim, Memory};
use ahash::RandomState;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::PhysicalExpr;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_planner::asof::AsofOp;

/// No slot: the row has a NULL in its key or time, or no label can use it.
pub const NONE: u32 = u32::MAX;
/// Bytes of a row while it is sorted: its place among the sorted, and its slot.
const SORTING_BYTES: usize = 16 + 4;
/// Bytes of a key beside its own: the entry of the table, and the start of its slots.
const GROUP_BYTES: usize = 48;

/// Rows of the left side in memory.
pub struct Rows {
    pub batches: Vec<RecordBatch>,
    pub claim: Claim,
}

impl Rows {
    pub fn new(memory: &Memory) -> Rows {
        Rows { batches: vec![], claim: memory.claim() }
    }

    /// Errors: the pool's; the batch is not taken then.
    pub fn push(&mut self, batch: RecordBatch) -> Result<(), (DataFusionError, RecordBatch)> {
        match self.claim.try_grow(batch.get_array_memory_size()) {
            Ok(()) => self.batches.push(batch),
            Err(error) => return Err((error, batch)),
        }
        Ok(())
    }

    /// Takes them whatever the pool says.
    pub fn insisted(batches: Vec<RecordBatch>, memory: &Memory) -> Result<Rows> {
        let mut claim = memory.insisting().claim();
        claim.try_grow(batches.iter().map(RecordBatch::get_array_memory_size).sum())?;
        Ok(Rows { batches, claim })
    }

    pub fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// What is on the left of the equalities and of the inequality.
#[derive(Debug, Clone)]
pub struct LeftSide {
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    pub time: Arc<dyn PhysicalExpr>,
}

impl LeftSide {
    pub fn is_same(&self, other: &LeftSide) -> bool {
        let keys = self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(|(a, b)| a.eq(b));
        keys && self.time.eq(&other.time)
    }

    pub fn key_types(&self, schema: &Schema) -> Result<Vec<DataType>> {
        self.keys.iter().map(|key| key.data_type(schema)).collect()
    }
}

/// The rows by key and time. Joins that have the same left side share one.
pub struct Index {
    /// The slot of every row, batch after batch.
    pub row_slots: Vec<u32>,
    keys: Keys,
    groups: HashMap<Box<[u8]>, u32, RandomState>,
    /// Slots of group `g`: `starts[g]..starts[g + 1]`.
    starts: Vec<u32>,
    /// Time of each slot, ascending within a group.
    pub times: Vec<i64>,
    /// The least and the greatest time of all; `None` without a slot.
    range: Option<(i64, i64)>,
    _claim: Claim,
}

impl Index {
    /// Errors: the pool's.
    pub fn build(rows: &Rows, left: &LeftSide, key_types: Vec<DataType>, memory: &Memory) -> Result<Self> {
        let count = rows.count();
        if count >= NONE as usize {
            return exec_err!("the left side of an ASOF JOIN has {count} rows, more than {NONE}");
        }
        let mut claim = memory.claim();
        claim.try_grow(count * SORTING_BYTES)?;
        let keys = Keys::try_new(key_types)?;
        let mut groups: HashMap<Box<[u8]>, u32, RandomState> = HashMap::with_hasher(hasher());
        let mut places: Vec<(u32, i64, u32)> = Vec::with_capacity(count);
        let mut row = 0u32;
        for batch in &rows.batches {
            let encoded = keys.encode(&left.keys, &left.time, batch)?;
            let mut key_bytes = 0;
            for i in 0..batch.num_rows() {
                if let Some((key, time)) = encoded.get(i) {
                    let group = match groups.get(key) {
                        Some(&group) => group,
                        None => {
                            let group = groups.len() as u32;
                            key_bytes += key.len() + GROUP_BYTES;
                            groups.insert(key.into(), group);
                            group
                        }
                    };
                    places.push((group, time, row));
                }
                row += 1;
            }
            claim.try_grow(key_bytes)?;
        }
        places.sort_unstable();
        let mut row_slots = vec![NONE; count];
        let mut starts = Vec::with_capacity(groups.len() + 1);
        let mut times = vec![];
        let mut last = None;
        for (group, time, row) in places {
            if last != Some((group, time)) {
                if last.is_none_or(|(g, _)| g != group) {
                    starts.push(times.len() as u32);
                }
                times.push(time);
                last = Some((group, time));
            }
            row_slots[row as usize] = times.len() as u32 - 1;
        }
        starts.push(times.len() as u32);
        // What was sorted is gone: slots of rows and times of slots stay.
        claim.shrink(count * SORTING_BYTES);
        claim.try_grow(count * 4 + times.capacity() * 8)?;
        let range = times.iter().copied().min().zip(times.iter().copied().max());
        Ok(Index { row_slots, keys, groups, starts, times, range, _claim: claim })
    }

    pub fn slots(&self) -> usize {
        self.times.len()
    }

    /// Distinct keys.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The least and the greatest time; `None` where no row has a slot.
    pub fn range(&self) -> Option<(i64, i64)> {
        self.range
    }

    /// One row of every key, ascending.
    pub fn row_of_each_key(&self) -> Vec<usize> {
        let mut wanted = vec![false; self.slots()];
        for start in self.starts.iter().take(self.groups()) {
            wanted[*start as usize] = true;
        }
        let mut rows = Vec::with_capacity(self.groups());
        for (row, slot) in self.row_slots.iter().enumerate() {
            if *slot != NONE && std::mem::take(&mut wanted[*slot as usize]) {
                rows.push(row);
            }
        }
        rows
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
        let Some((first, last)) = self.range else { return Ok(candidates) };
        // Rows of one key often come one after another.
        let mut before: Option<(&[u8], Option<u32>)> = None;
        for i in 0..batch.num_rows() {
            let Some((key, time)) = encoded.get(i) else { continue };
            if if op.is_backward() { time > last } else { time < first } {
                continue;
            }
            let group = match before {
                Some((same, group)) if same == key => group,
                _ => self.groups.get(key).copied(),
            };
            before = Some((key, group));
            let Some(group) = group else { continue };
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
pub fn hasher() -> RandomState {
    RandomState::with_seeds(0x5bd1_e995, 0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35)
}

/// Key columns as comparable bytes: the same for equal keys, whichever side they are of.
pub struct Keys {
    converter: Option<RowConverter>,
}

impl Keys {
    pub fn try_new(types: Vec<DataType>) -> Result<Self> {
        if types.is_empty() {
            return Ok(Keys { converter: None });
        }
        let converter = RowConverter::new(types.into_iter().map(SortField::new).collect())?;
        Ok(Keys { converter: Some(converter) })
    }

    pub fn encode(
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

pub struct Encoded {
    rows: Option<arrow::row::Rows>,
    times: Int64Array,
    valid: Vec<bool>,
}

impl Encoded {
    /// Key and time of a row; `None` where one of them is NULL.
    pub fn get(&self, row: usize) -> Option<(&[u8], i64)> {
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
pub fn normalised(array: ArrayRef) -> ArrayRef {
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
