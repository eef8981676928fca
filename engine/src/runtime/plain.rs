//! The rows of a plain table, one with neither primary key nor watermark: its log without what was removed from it.
//!
//! A log only grows. So `DELETE` and `UPDATE` name the rows that are no more by their offsets, in the very append that has
//! what takes their place, and whoever reads leaves them out. When most of what a scan would read is no more, the
//! statement writes the other rows once more and lets go of everything before them.

use super::{Seams, SourceRuntime};
use crate::seam::{Keyspace, Positions, Removal, SeamError, SeamResult, SourceBatch, WriteBatch};
use arrow::{
    array::{BooleanArray, UInt64Array},
    compute::filter,
    error::ArrowError,
    record_batch::RecordBatch,
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};
use tidemark_catalog::{Body, Object, ObjectId};

/// As many rows may be removed before those that are left are written again: a scan passes over them in milliseconds.
const REMOVED_MIN: usize = 8192;

/// More rows than these are not written again by a statement, which has them in memory for that: some 100 MB.
const LEFT_MAX: u64 = 1 << 20;

/// The offsets that do not count any longer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    below: u64,
    offsets: BTreeSet<u64>,
}

impl Removed {
    fn take(&mut self, removal: &Removal) {
        self.offsets.extend(&removal.offsets);
        if removal.below > self.below {
            self.below = removal.below;
            self.offsets = self.offsets.split_off(&self.below);
        }
    }

    fn has(&self, offset: u64) -> bool {
        offset < self.below || self.offsets.contains(&offset)
    }
}

/// What a plain table has at one moment. Scans hold it, and what they may still read stays in the log.
#[derive(Debug, Clone, Default)]
pub struct Plain {
    /// The offset behind its last record.
    pub end: u64,
    removed: Arc<Removed>,
    /// Another each time that the beginning of the log goes.
    epoch: Arc<()>,
    /// Those before, as long as scans may hold them.
    before: Vec<Weak<()>>,
    /// What the last checkpoint has.
    saved: Option<Arc<Removed>>,
}

/// In [`Keyspace::Progress`]; it begins with the object's id, so it goes with the object.
fn key(id: ObjectId) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], b"/removed"].concat()
}

/// Whether rows of the object can be taken back one by one.
pub(super) fn of(object: &Object) -> Option<RwLock<Plain>> {
    let Body::Table(relation) = &object.body else { return None };
    let plain = relation.primary_key.is_empty() && relation.event_time.is_none() && relation.topic().is_none();
    plain.then(RwLock::default)
}

impl Plain {
    pub(super) fn read(seams: &Seams, id: ObjectId, end: u64) -> SeamResult<Plain> {
        let bytes = super::restore::read(seams, &key(id))?;
        let removed: Option<Removed> =
            bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(SeamError::not_done)).transpose()?;
        let removed = Arc::new(removed.unwrap_or_default());
        Ok(Plain { end, saved: Some(removed.clone()), removed, ..Plain::default() })
    }

    /// To what a checkpoint writes; nothing where it has it.
    pub(super) fn put(&self, id: ObjectId, batch: &mut WriteBatch) -> SeamResult<()> {
        let is_saved = self.saved.as_ref().is_some_and(|saved| Arc::ptr_eq(saved, &self.removed));
        if !is_saved && *self.removed != Removed::default() {
            let bytes = postcard::to_stdvec(&*self.removed).map_err(SeamError::not_done)?;
            batch.puts.push((Keyspace::Progress, key(id), bytes));
        }
        Ok(())
    }

    /// Takes over a record. Scans that hold what was there before go on with that.
    pub(super) fn take(&mut self, batch: &SourceBatch) {
        self.end = self.end.max(batch.end_offset());
        if let Some(decision) = batch.admission.as_ref().filter(|decision| !decision.removal.is_empty()) {
            if decision.removal.below > self.removed.below {
                self.before.retain(|epoch| epoch.strong_count() > 0);
                self.before.push(Arc::downgrade(&std::mem::take(&mut self.epoch)));
            }
            Arc::make_mut(&mut self.removed).take(&decision.removal);
        }
    }

    /// Takes away further rows.
    pub(super) fn remove(&mut self, removal: &Removal) {
        Arc::make_mut(&mut self.removed).take(removal);
    }

    /// Whether no row below the offset counts any longer, whatever was there.
    pub fn is_over_below(&self, offset: u64) -> bool {
        self.removed.below >= offset
    }

    /// Everything that is there.
    pub fn all(&self) -> Removal {
        Removal { below: self.end, offsets: vec![] }
    }

    /// Whether, with so many rows removed besides, those left of `rows` should rather be written again.
    pub(super) fn is_worn(&self, rows: u64, removed: usize) -> bool {
        let gone = self.removed.offsets.len() + removed;
        let left = rows.saturating_sub(removed as u64);
        gone > REMOVED_MIN && gone as u64 > left && left < LEFT_MAX
    }

    /// The rows of a batch of the log that count, with their offsets; none of those from the end on.
    pub fn rows(&self, batch: &SourceBatch) -> Result<(RecordBatch, UInt64Array), ArrowError> {
        let rows = (batch.rows.num_rows() as u64).min(self.end.saturating_sub(batch.base_offset)) as usize;
        let offsets = UInt64Array::from_iter_values(batch.base_offset..batch.base_offset + rows as u64);
        let rejected = batch.admission.as_ref().map_or(&[][..], |decision| decision.rejected.as_slice());
        let some_removed = batch.base_offset < self.removed.below
            || self.removed.offsets.range(batch.base_offset..batch.base_offset + rows as u64).next().is_some();
        let shown = batch.rows.slice(0, rows);
        if rejected.is_empty() && !some_removed {
            return Ok((shown, offsets));
        }
        let mut keep: Vec<bool> = offsets.values().iter().map(|offset| !self.removed.has(*offset)).collect();
        for reject in rejected {
            if let Some(keep) = keep.get_mut(reject.row as usize) {
                *keep = false;
            }
        }
        let keep = BooleanArray::from(keep);
        let kept = filter(&offsets, &keep)?;
        let kept = kept.as_any().downcast_ref::<UInt64Array>().cloned();
        let kept = kept.ok_or_else(|| ArrowError::CastError("offsets are no longer numbers".to_string()))?;
        Ok((arrow::compute::filter_record_batch(&shown, &keep)?, kept))
    }
}

impl SourceRuntime {
    /// What a scan that begins now shows of the log.
    pub async fn shown(&self) -> SeamResult<(Positions, Plain)> {
        // Before the log's beginning, which may move on as long as nobody holds what is there.
        let plain = self.plain.as_ref().map(|plain| plain.read().clone());
        let (from, end) = self.log().range().await?;
        Ok((from, plain.unwrap_or_else(|| Plain { end: end.get(0), ..Plain::default() })))
    }

    /// What a scan showed when the log ended there.
    pub async fn shown_at(&self, end: u64) -> SeamResult<Plain> {
        let mut plain = Plain { end, ..Plain::default() };
        if self.plain.is_none() {
            return Ok(plain);
        }
        let mut from = self.log().range().await?.0;
        while from.get(0) < end {
            let (records, next) = self.records(&from).await?;
            if next == from {
                break;
            }
            from = next;
            for batch in records.iter().filter(|batch| batch.base_offset < end) {
                plain.take(batch);
            }
            plain.end = end;
        }
        Ok(plain)
    }

    /// A checkpoint has `noted` this of a plain table: what no scan can show any more goes from its log.
    pub(super) async fn let_go_of_removed(&self, noted: &Plain) -> SeamResult<()> {
        let Some(plain) = &self.plain else { return Ok(()) };
        let is_read = {
            let mut plain = plain.write();
            plain.saved = Some(noted.removed.clone());
            plain.before.retain(|epoch| epoch.strong_count() > 0);
            // Who holds what was before reads what is to go; the next checkpoint looks again.
            !plain.before.is_empty()
        };
        if is_read || noted.removed.below == 0 {
            return Ok(());
        }
        self.log().commit(&Positions([(0, noted.removed.below)].into()), Some(i64::MAX)).await
    }
}
