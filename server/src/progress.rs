//! Long statements that run, and how far they are: `tidemark.progress` and `pg_stat_progress_copy`.
//!
//! A statement is entered when it begins and leaves with its [`Running`]; for these two a lock is taken. In between it counts
//! in its [`Progress`], for which nobody waits.

use crate::session::Session;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::ObjectId;
use tidemark_engine::progress::{Phase, Progress};

/// What a long statement does, as people read it.
#[derive(Debug, Clone)]
pub struct Doing {
    pub statement: &'static str,
    /// What it makes or reads; `None`: the rows of a query.
    pub object: Option<String>,
    /// What is counted; `None`: nothing is.
    pub unit: Option<&'static str>,
    /// Of a COPY: `PIPE`, or `FILE`.
    pub copies: Option<&'static str>,
    /// Of a COPY of one: the table.
    pub table: Option<ObjectId>,
}

impl Doing {
    pub fn new(statement: &'static str, object: &str, unit: Option<&'static str>) -> Doing {
        Doing { statement, object: Some(object.to_string()), unit, copies: None, table: None }
    }
}

/// A long statement that runs.
#[derive(Debug, Clone)]
pub struct Entry {
    pub connection_id: i32,
    /// As whom its session logged in.
    pub role: ObjectId,
    pub doing: Doing,
    /// Microseconds.
    pub started_us: i64,
    pub progress: Arc<Progress>,
}

/// All of them, in the order in which they began. A session has one at a time, or a few by its portals.
#[derive(Default)]
pub struct Statements(Mutex<Known>);

#[derive(Default)]
struct Known {
    running: BTreeMap<u64, Entry>,
    last: u64,
}

impl Statements {
    pub fn begin(self: &Arc<Self>, session: &Session, doing: Doing, now_us: i64) -> Running {
        self.enter(Entry {
            connection_id: session.connection_id,
            role: session.login,
            doing,
            started_us: now_us,
            progress: Arc::default(),
        })
    }

    fn enter(self: &Arc<Self>, entry: Entry) -> Running {
        let progress = entry.progress.clone();
        let mut known = self.0.lock();
        known.last += 1;
        let number = known.last;
        known.running.insert(number, entry);
        drop(known);
        Running { statements: self.clone(), number, progress }
    }

    pub fn all(&self) -> Vec<Entry> {
        self.0.lock().running.values().cloned().collect()
    }
}

/// A statement's place among those that run, until it is dropped.
pub struct Running {
    statements: Arc<Statements>,
    number: u64,
    pub progress: Arc<Progress>,
}

impl Running {
    /// From here on rows are counted.
    pub fn count_rows(&self, phase: Phase, now_us: i64) {
        self.progress.count(phase, None, now_us);
    }

    pub fn add(&self, rows: usize) {
        self.progress.add(rows as u64);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.statements.0.lock().running.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_among_those_that_run_until_its_place_is_dropped() {
        let statements = Arc::new(Statements::default());
        let entry = |connection_id| Entry {
            connection_id,
            role: ObjectId(10),
            doing: Doing::new("OPTIMIZE", "v", None),
            started_us: 0,
            progress: Arc::default(),
        };
        let (first, second) = (statements.enter(entry(1)), statements.enter(entry(1)));
        second.count_rows(Phase::Reading, 7);
        second.add(3);
        let done = || statements.all().iter().map(|entry| entry.progress.read().done).collect::<Vec<_>>();
        assert_eq!(done(), [None, Some(3)]);
        drop(first);
        assert_eq!(done(), [Some(3)]);
        drop(second);
        assert!(done().is_empty());
    }
}
