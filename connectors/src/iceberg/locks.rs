//! What excludes what in this process, table by table: one that a slow bucket or catalog holds up holds up no other. Another
//! process is met by the compare-and-set of the commit alone.
//!
//! ```text
//!   maintaining ▶ committing          a rewrite, a fold, an expiry: in this order, so that nobody waits in a circle
//!   maintaining ▶ rewriting           so many rewrites at a time, whatever their tables are: each holds rows in memory
//!   maintaining ▶ opening             files that go
//!                 committing          an append
//!                 opening             a scan that is planned
//! ```
//!
//! Creating, renaming and dropping take none of them: each is one statement of the catalog, and what is under way then finds
//! another table, or none, and does not happen. The file of SQLite has its own lock, held for one statement.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tidemark_catalog::ObjectId;
use tokio::sync;

/// Rewrites at a time, of all tables: one that is asked for beside the one that is due. Each has the rows of dozens of files in memory.
const REWRITES_AT_ONCE: usize = 2;

/// The locks of the tables that somebody works on, by the view: names change.
pub struct Locks {
    tables: Mutex<HashMap<ObjectId, Weak<TableLocks>>>,
    /// Never closed.
    pub rewriting: sync::Semaphore,
}

impl Default for Locks {
    fn default() -> Self {
        Locks { tables: Mutex::default(), rewriting: sync::Semaphore::new(REWRITES_AT_ONCE) }
    }
}

#[derive(Default)]
pub struct TableLocks {
    /// Held to read while steps are appended, and to write while a rewrite is committed or snapshots are forgotten, so that
    /// neither finds the table moved and has to begin again.
    pub committing: sync::RwLock<()>,
    /// One thing is done for a table at a time: what a rewrite has not yet committed, no vacuum here may take for an orphan.
    pub maintaining: sync::Mutex<()>,
    /// Held to read from the moment that a table's metadata is read until there is a lease on its files, and to write while
    /// it is looked for leases on files that go: who opens later finds only what the table leads to.
    pub opening: sync::RwLock<()>,
}

impl Locks {
    /// The same for all who hold them at a time; forgotten with the last.
    pub fn of(&self, view: ObjectId) -> Arc<TableLocks> {
        let mut all = self.tables.lock();
        if let Some(known) = all.get(&view).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, locks| locks.strong_count() > 0);
        let new = Arc::new(TableLocks::default());
        all.insert(view, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_table_that_waits_holds_up_no_other_and_nothing_is_kept_of_one_that_nobody_works_on() {
        let locks = Locks::default();
        let (one, again, other) = (locks.of(ObjectId(1)), locks.of(ObjectId(1)), locks.of(ObjectId(2)));
        let rewriting = one.committing.write().await;
        assert!(again.committing.try_read().is_err() && other.committing.try_read().is_ok());
        drop(rewriting);
        assert!(again.committing.try_read().is_ok());
        drop((one, again));
        assert!(locks.of(ObjectId(3)).maintaining.try_lock().is_ok());
        let kept: Vec<ObjectId> = locks.tables.lock().keys().copied().filter(|view| *view != ObjectId(3)).collect();
        assert_eq!(kept, [ObjectId(2)]);
        drop(other);
    }
}
