//! What the protocol counts about itself: what runs now, how long statements took, and what went wrong. Lookups that
//! are answered at once are not among the statements: whoever answers them counts them.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tidemark_engine::{meter::Histogram, runtime::SPANS_US};

/// Classes that are shown before there is an error: who watches for the first one has to see that there was none.
/// Limits, cancellations and shutdowns, bugs.
const ALARMING: [&str; 3] = ["53", "57", "XX"];

/// Of one server, since it started.
#[derive(Debug)]
pub struct Counters {
    running: AtomicUsize,
    /// From the start of a statement to its last row sent, microseconds; whether it failed or not.
    pub statements_us: Histogram,
    /// By SQLSTATE class. Errors are rare: a lock costs nobody anything.
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for Counters {
    fn default() -> Self {
        let errors = ALARMING.iter().map(|class| (*class, 0)).collect();
        Counters {
            running: AtomicUsize::new(0),
            statements_us: Histogram::sharded(SPANS_US),
            errors: Mutex::new(errors),
        }
    }
}

impl Counters {
    /// Statements that are being read, planned or run.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Errors that clients were told, by SQLSTATE class (its first two characters), in order.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        self.errors.lock().iter().map(|(class, count)| (*class, *count)).collect()
    }

    pub(super) fn error(&self, sqlstate: &'static str) {
        // All SQLSTATEs are the program's own, so there are only so many classes.
        let class = sqlstate.get(..2).unwrap_or("XX");
        *self.errors.lock().entry(class).or_default() += 1;
    }
}

/// A statement at work; it does not count as running any more when this is dropped.
pub(super) struct Busy {
    counters: Arc<Counters>,
    begun_us: i64,
    /// More than reading it and planning it.
    pub runs: bool,
}

impl Busy {
    pub fn begin(counters: &Arc<Counters>, now_us: i64) -> Busy {
        counters.running.fetch_add(1, Ordering::Relaxed);
        Busy { counters: Arc::clone(counters), begun_us: now_us, runs: false }
    }

    pub fn end(self, now_us: i64) {
        if self.runs {
            self.counters.statements_us.observe_span(self.begun_us, now_us);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.counters.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_counts_when_it_ran_and_runs_until_it_ends() {
        let counters = Arc::<Counters>::default();
        let (mut one, other) = (Busy::begin(&counters, 10), Busy::begin(&counters, 20));
        assert_eq!(counters.running(), 2);
        one.runs = true;
        one.end(40);
        // It was only prepared.
        other.end(50);
        let counts = counters.statements_us.read();
        assert_eq!((counters.running(), counts.count(), counts.sum), (0, 1, 30));
        drop(Busy::begin(&counters, 60));
        assert_eq!(counters.running(), 0);
    }

    #[test]
    fn errors_are_counted_by_class() {
        let counters = Counters::default();
        ["42601", "42P01", "22012", "4"].into_iter().for_each(|sqlstate| counters.error(sqlstate));
        assert_eq!(counters.errors(), vec![("22", 1), ("42", 2), ("53", 0), ("57", 0), ("XX", 1)]);
    }
}
