//! The transaction block of a session: how far to go back for each savepoint, and what going back does not take back.

use super::Session;
use std::{
    collections::BTreeSet,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tidemark_catalog::{BlockId, ObjectId};
use tidemark_engine::provider::Moment;

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
    /// Of these the client has been told by `ROLLBACK TO`.
    told: usize,
    /// What its queries read, where that is one snapshot; fixed by the first.
    snapshot: OnceLock<Taken>,
    /// What it has changed since for good: the snapshot has it as it was before.
    changed: BTreeSet<ObjectId>,
}

/// A snapshot, and when it was taken.
#[derive(Debug)]
pub struct Taken {
    pub moment: Moment,
    /// `now()` from then on, microseconds.
    pub clock_us: i64,
}

/// A point in a block to which it can go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Of the journal.
    pub entries: usize,
    stays: usize,
    /// Not the beginning of the block.
    is_savepoint: bool,
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

    /// What was done for good since then, each once, to be told. Another `ROLLBACK TO` has nothing to say of it; the end of the block
    /// names all.
    pub fn tell_stays(&mut self, mark: Mark) -> Vec<Stay> {
        let since = if mark.is_savepoint { mark.stays.max(self.told) } else { mark.stays };
        self.told = self.stays.len();
        let mut each: Vec<Stay> = vec![];
        for stay in self.stays.get(since..).unwrap_or_default() {
            if !each.contains(stay) {
                each.push(stay.clone());
            }
        }
        each
    }

    /// What its queries read, if one has read.
    pub fn snapshot(&self) -> Option<&Taken> {
        self.snapshot.get()
    }

    /// From now on its queries read this.
    pub fn fix(&self, taken: Taken) {
        self.snapshot.get_or_init(|| taken);
    }

    /// It is over: what only its snapshot holds may go.
    pub(super) fn let_go(&mut self) {
        self.snapshot = OnceLock::new();
        self.changed.clear();
    }

    /// Whether it has changed the object since it has a snapshot.
    pub fn has_changed(&self, object: ObjectId) -> bool {
        self.changed.contains(&object)
    }

    pub fn note_stay(&mut self, stay: Stay) {
        if self.snapshot.get().is_some() {
            self.changed.insert(stay.object);
        }
        // What was told of is told of again where it is done again.
        let since = self.savepoints.last().map_or(0, |mark| mark.stays).max(self.told);
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
        Mark {
            entries: self.block.entries(),
            stays: stays.len(),
            is_savepoint: false,
            temporary: self.temporary_made(),
        }
    }

    pub(super) fn begin_block(&mut self) {
        self.block = Block { number: self.block.number.wrapping_add(1), ..Block::default() };
        self.block.beginning = self.mark();
    }

    /// There are so many savepoints now.
    pub fn begin_savepoint(&mut self, depth: usize) {
        let mark = Mark { is_savepoint: true, ..self.mark() };
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
        let mark = Mark { stays: 1, is_savepoint: true, ..Mark::default() };
        block.savepoints.push(mark);
        assert!(block.tell_stays(mark).is_empty());
        block.note_stay(stay("INSERT INTO t"));
        assert_eq!(block.tell_stays(mark), [stay("INSERT INTO t")]);
        assert!(block.tell_stays(mark).is_empty(), "it has been told");
        block.note_stay(stay("INSERT INTO t"));
        assert_eq!(block.tell_stays(mark), [stay("INSERT INTO t")]);
        assert_eq!(block.tell_stays(block.beginning()), [stay("INSERT INTO t")]);
    }
}
