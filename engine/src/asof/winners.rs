//! The best right row of every slot so far, and the columns of those rows.
//!
//! Of each batch only the rows that win at its end are copied out; a row that loses later is garbage until the next
//! compaction, which comes when garbage outweighs what lives. So memory stays proportional to the winners.

use super::labels::{Candidates, NONE};
use super::memory::Claim;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result;
use datafusion::physical_plan::PhysicalExpr;
use std::cmp::Ordering;
use std::sync::Arc;
use tidemark_planner::asof::{AsofOp, Tolerance};

/// Rows of garbage that are never worth a compaction.
const GARBAGE_MIN: usize = 8192;
/// Batches below `SMALL_ROWS` are merged once there are `SMALL_MAX`: each costs its arrays' overhead.
const SMALL_ROWS: usize = 1024;
const SMALL_MAX: usize = 64;
/// Bytes per slot: time, place, mark, and whose winner is its match.
const SLOT_BYTES: usize = 8 + 8 + 1 + 4;
/// The place of a row that is in the batch being looked at.
const INCOMING: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Place {
    batch: u32,
    row: u32,
}

struct Held {
    batch: RecordBatch,
    /// Which slot each row was taken for; the row lives while that slot's place is here.
    slots: Vec<u32>,
    living: usize,
    bytes: usize,
    /// Made when a tie first needs them.
    ties: Option<Rows>,
}

pub struct Winners {
    op: AsofOp,
    schema: SchemaRef,
    /// `batch` is `NONE` while nothing has come.
    places: Vec<Place>,
    times: Vec<i64>,
    /// What the tolerance is measured from; `None` without one.
    bases: Option<Vec<Option<i64>>>,
    deleted: Vec<bool>,
    ties: Vec<Arc<dyn PhysicalExpr>>,
    tie_rows: RowConverter,
    held: Vec<Option<Held>>,
    living: usize,
    rows: usize,
    small: usize,
    claim: Claim,
}

/// What a batch of right rows brings besides its columns.
pub struct Offer<'a> {
    pub batch: &'a RecordBatch,
    pub candidates: Candidates,
    /// With a tolerance.
    pub bases: Option<Int64Array>,
    /// Rows that say "absent from here on".
    pub deleted: Option<BooleanArray>,
}

impl Winners {
    pub fn try_new(
        op: AsofOp,
        slots: usize,
        schema: SchemaRef,
        ties: Vec<Arc<dyn PhysicalExpr>>,
        has_tolerance: bool,
        mut claim: Claim,
    ) -> Result<Self> {
        claim.try_grow(slots * (SLOT_BYTES + if has_tolerance { 16 } else { 0 }))?;
        let fields = ties.iter().map(|tie| Ok(SortField::new(tie.data_type(&schema)?))).collect::<Result<_>>()?;
        Ok(Winners {
            op,
            schema,
            places: vec![Place { batch: NONE, row: 0 }; slots],
            times: vec![0; slots],
            bases: has_tolerance.then(|| vec![None; slots]),
            deleted: vec![false; slots],
            tie_rows: RowConverter::new(fields)?,
            ties,
            held: vec![],
            living: 0,
            rows: 0,
            small: 0,
            claim,
        })
    }

    /// Lets the rows of a batch compete. After an error it may only be taken apart: [`Winners::into_batches`].
    pub fn offer(&mut self, offer: Offer<'_>) -> Result<()> {
        let times = &offer.candidates.times;
        let mut incoming_ties = None;
        let mut taken: Vec<(u32, u32)> = vec![];
        for &(slot, row) in &offer.candidates.rows {
            let at = slot as usize;
            let time = times.value(row as usize);
            if self.places[at].batch != NONE {
                let nearer = match self.op.is_backward() {
                    true => time.cmp(&self.times[at]),
                    false => self.times[at].cmp(&time),
                };
                let wins = match nearer {
                    Ordering::Greater => true,
                    Ordering::Less => false,
                    Ordering::Equal => self.wins_tie(&mut incoming_ties, offer.batch, row, self.places[at])?,
                };
                if !wins {
                    continue;
                }
                self.release(self.places[at]);
            }
            self.places[at] = Place { batch: INCOMING, row };
            self.times[at] = time;
            self.deleted[at] =
                offer.deleted.as_ref().is_some_and(|d| d.is_valid(row as usize) && d.value(row as usize));
            if let (Some(bases), Some(from)) = (&mut self.bases, &offer.bases) {
                bases[at] = from.is_valid(row as usize).then(|| from.value(row as usize));
            }
            taken.push((slot, row));
        }
        taken.retain(|&(slot, row)| {
            let place = self.places[slot as usize];
            place.batch == INCOMING && place.row == row
        });
        if !taken.is_empty() {
            let rows = UInt32Array::from_iter_values(taken.iter().map(|&(_, row)| row));
            let batch = detached(take_record_batch(offer.batch, &rows)?)?;
            self.hold(batch, taken.into_iter().map(|(slot, _)| slot).collect())?;
        }
        self.compact()
    }

    /// Whether a row of the incoming batch beats the holder at the same time: the greater of the tie columns.
    fn wins_tie(&mut self, incoming: &mut Option<Rows>, batch: &RecordBatch, row: u32, holder: Place) -> Result<bool> {
        if self.ties.is_empty() {
            return Ok(false);
        }
        if incoming.is_none() {
            *incoming = Some(tie_rows(&self.tie_rows, &self.ties, batch)?);
        }
        let Some(challengers) = incoming.as_ref() else { return Ok(false) };
        let challenger = challengers.row(row as usize);
        if holder.batch == INCOMING {
            return Ok(challenger > challengers.row(holder.row as usize));
        }
        let Some(held) = self.held[holder.batch as usize].as_mut() else { return Ok(false) };
        if held.ties.is_none() {
            let rows = tie_rows(&self.tie_rows, &self.ties, &held.batch)?;
            self.claim.try_grow(rows.size())?;
            held.bytes += rows.size();
            held.ties = Some(rows);
        }
        Ok(held.ties.as_ref().is_some_and(|ties| challenger > ties.row(holder.row as usize)))
    }

    fn release(&mut self, place: Place) {
        if let Some(Some(held)) = self.held.get_mut(place.batch as usize) {
            held.living -= 1;
            self.living -= 1;
        }
    }

    fn hold(&mut self, batch: RecordBatch, slots: Vec<u32>) -> Result<()> {
        let bytes = bytes(&batch, &slots);
        self.claim.try_grow(bytes)?;
        self.place(batch, slots, bytes);
        Ok(())
    }

    /// Takes a batch whose bytes are claimed.
    fn place(&mut self, batch: RecordBatch, slots: Vec<u32>, bytes: usize) {
        let free = self.held.iter().position(Option::is_none);
        let at = free.unwrap_or(self.held.len());
        for (row, &slot) in slots.iter().enumerate() {
            self.places[slot as usize] = Place { batch: at as u32, row: row as u32 };
        }
        let rows = slots.len();
        self.living += rows;
        self.rows += rows;
        self.small += usize::from(rows < SMALL_ROWS);
        let held = Held { batch, slots, living: rows, bytes, ties: None };
        match free {
            Some(at) => self.held[at] = Some(held),
            None => self.held.push(Some(held)),
        }
    }

    /// Copies what lives out of batches that are mostly garbage or small. What it copies goes only when there is memory
    /// for the copies: after an error everything is still held.
    fn compact(&mut self) -> Result<()> {
        if self.rows - self.living <= self.living + GARBAGE_MIN && self.small < SMALL_MAX {
            return Ok(());
        }
        let (mut parts, mut of, mut stale) = (vec![], vec![], vec![]);
        for (at, held) in self.held.iter().enumerate() {
            let Some(held) = held else { continue };
            if held.living * 2 > held.slots.len() && held.slots.len() >= SMALL_ROWS {
                continue;
            }
            stale.push(at);
            let living = held.slots.iter().enumerate().filter(|&(row, &slot)| {
                let place = self.places[slot as usize];
                place.batch == at as u32 && place.row == row as u32
            });
            let (rows, slots): (Vec<u32>, Vec<u32>) = living.map(|(row, &slot)| (row as u32, slot)).unzip();
            if !rows.is_empty() {
                parts.push(take_record_batch(&held.batch, &UInt32Array::from(rows))?);
                of.push(slots);
            }
        }
        // In chunks of a batch's usual size: no array may outgrow its offsets.
        let (mut merged, mut from) = (vec![], 0);
        while from < parts.len() {
            let mut to = from;
            let mut rows = 0;
            while to < parts.len() && (to == from || rows + parts[to].num_rows() <= 8 * SMALL_ROWS) {
                rows += parts[to].num_rows();
                to += 1;
            }
            let batch = detached(concat_batches(&self.schema, &parts[from..to])?)?;
            let slots = of[from..to].concat();
            let bytes = bytes(&batch, &slots);
            self.claim.try_grow(bytes)?;
            merged.push((batch, slots, bytes));
            from = to;
        }
        for held in stale.into_iter().filter_map(|at| self.held[at].take()) {
            self.rows -= held.slots.len();
            self.living -= held.living;
            self.small -= usize::from(held.slots.len() < SMALL_ROWS);
            self.claim.shrink(held.bytes);
        }
        for (batch, slots, bytes) in merged {
            self.place(batch, slots, bytes);
        }
        Ok(())
    }

    /// All rows that are held, those that have lost among them: whatever has been offered and is not here has lost to a row
    /// that is.
    pub fn into_batches(self) -> (Vec<RecordBatch>, Claim) {
        (self.held.into_iter().flatten().map(|held| held.batch).collect(), self.claim)
    }

    pub fn won(&self, slot: u32) -> bool {
        self.places[slot as usize].batch != NONE
    }

    /// Whether the winner of a slot is a match for a label at `time`: it is no delete, and near enough.
    pub fn matches(&self, slot: u32, time: i64, tolerance: Option<Tolerance>) -> bool {
        let at = slot as usize;
        if self.deleted[at] {
            return false;
        }
        let (Some(tolerance), Some(bases)) = (tolerance, &self.bases) else { return true };
        let Some(base) = bases[at] else { return false };
        let (time, base) = (i128::from(time), i128::from(base));
        let distance = if self.op.is_backward() { time - base } else { base - time };
        let span = i128::from(tolerance.span);
        if tolerance.strict { distance < span } else { distance <= span }
    }

    /// The right columns for a list of slots; `NONE` gives NULLs.
    pub fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        // Only the batches that are wanted, numbered from 1; 0 is a row of NULLs.
        let mut number = vec![0usize; self.held.len()];
        let mut wanted = vec![];
        let mut indices = Vec::with_capacity(slots.len());
        for &slot in slots {
            if slot == NONE {
                indices.push((0, 0));
                continue;
            }
            let place = self.places[slot as usize];
            let at = place.batch as usize;
            if number[at] == 0 {
                wanted.push(at);
                number[at] = wanted.len();
            }
            indices.push((number[at], place.row as usize));
        }
        let wanted: Vec<&RecordBatch> = wanted.iter().filter_map(|&at| Some(&self.held[at].as_ref()?.batch)).collect();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (i, field) in self.schema.fields().iter().enumerate() {
            let nulls = new_null_array(field.data_type(), 1);
            let mut arrays: Vec<&dyn Array> = vec![nulls.as_ref()];
            arrays.extend(wanted.iter().map(|batch| batch.column(i).as_ref()));
            columns.push(interleave(&arrays, &indices)?);
        }
        Ok(columns)
    }
}

fn bytes(batch: &RecordBatch, slots: &[u32]) -> usize {
    batch.get_array_memory_size() + size_of_val(slots)
}

fn tie_rows(converter: &RowConverter, ties: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Rows> {
    let columns =
        ties.iter().map(|tie| tie.evaluate(batch)?.into_array(batch.num_rows())).collect::<Result<Vec<_>>>()?;
    Ok(converter.convert_columns(&columns)?)
}

/// Lets go of the buffers that a view array shares with the batch it came from.
fn detached(batch: RecordBatch) -> Result<RecordBatch> {
    let is_view = |ty: &DataType| matches!(ty, DataType::Utf8View | DataType::BinaryView);
    if !batch.columns().iter().any(|column| is_view(column.data_type())) {
        return Ok(batch);
    }
    let columns = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()) as ArrayRef,
            _ => column.clone(),
        })
        .collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}
