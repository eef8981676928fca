//! The transaction block of a session: how far to go back for each savepoint, and what going back does not take back.

use super::Session;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};
use tidemark_catalog::{BlockId, ObjectId};

#[derive(Default)]
pub struct Block {
    /// Which of the session's it is.
    number: u32,
    /// So many entries of the catalog's journal are the block's.
    entries: AtomicUsize,
    beginning: Mark,
    savepoints: Vec<Mark>,
    stays: Vec<Stay>,
    /// Sources and tables whose options it has changed: what these make go, goes at its end.
    altered: BTreeSet<ObjectId>,
}

/// A point in a block to which it can go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Of the journal.
    pub entries: usize,
    stays: usize,
    /// The temporary tables that the session has made by then, ever.
    pub temporary: u64,
}

/// Something that takes effect by itself and for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    pub object: ObjectId,
    /// `INSERT INTO t`
    pub what: String,
}

/// Of one block; an application that does more hears of these.
const STAYS_MAX: usize = 100;

impl Block {
    /// So many entries of the journal are the block's now.
    pub fn note_entries(&self, entries: usize) {
        self.entries.store(entries, Ordering::Relaxed);
    }

    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub fn beginning(&self) -> Mark {
        self.beginning
    }

    pub fn note_altered(&mut self, object: ObjectId) {
        self.altered.insert(object);
    }

    pub fn altered(&self) -> impl Iterator<Item = ObjectId> {
        self.altered.iter().copied()
    }

    /// What was done for good since then, each once.
    pub fn stays_since(&self, mark: Mark) -> &[Stay] {
        self.stays.get(mark.stays..).unwrap_or_default()
    }

    pub fn note_stay(&mut self, stay: Stay) {
        let since = self.savepoints.last().map_or(0, |mark| mark.stays);
        let is_known = self.stays.get(since..).unwrap_or_default().contains(&stay);
        if self.stays.len() < STAYS_MAX && !is_known {
            self.stays.push(stay);
        }
    }
}

impl Session {
    /// The transaction block that is open.
    pub fn block_id(&self) -> Option<BlockId> {
        self.in_transaction.then_some(BlockId { session: self.connection_id, number: self.block.number })
    }

    fn mark(&self) -> Mark {
        let Block { stays, .. } = &self.block;
        Mark { entries: self.block.entries(), stays: stays.len(), temporary: self.temporary_made() }
    }

    pub(super) fn begin_block(&mut self) {
        self.block = Block { number: self.block.number.wrapping_add(1), ..Block::default() };
        self.block.beginning = self.mark();
    }

    /// There are so many savepoints now.
    pub fn begin_savepoint(&mut self, depth: usize) {
        let mark = self.mark();
        self.block.savepoints.truncate(depth.saturating_sub(1));
        self.block.savepoints.push(mark);
    }

    /// Where the last of so many savepoints is; those after it are gone.
    pub fn savepoint(&mut self, depth: usize) -> Mark {
        self.block.savepoints.truncate(depth);
        self.block.savepoints.last().copied().unwrap_or(self.block.beginning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_said_once_and_again_after_a_savepoint() {
        let mut block = Block::default();
        let stay = |what: &str| Stay { object: ObjectId(1), what: what.to_string() };
        block.note_stay(stay("INSERT INTO t"));
        block.note_stay(stay("INSERT INTO t"));
        let mark = Mark { stays: 1, ..Mark::default() };
        block.savepoints.push(mark);
        assert!(block.stays_since(mark).is_empty());
        block.note_stay(stay("INSERT INTO t"));
        assert_eq!(block.stays_since(mark), [stay("INSERT INTO t")]);
        assert_eq!(block.stays_since(block.beginning()).len(), 2);
    }
}
