//! How far a long statement is: counted where the work is done, read by whoever asks, and neither waits for the other.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

/// What is being done just now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// For a lock, or for the plan of a query.
    #[default]
    Waiting,
    /// Logs of sources are applied to a view: records.
    Replaying,
    /// Rows go to the online store: keys.
    Putting,
    /// A query is computed and its rows are kept: rows.
    Computing,
    /// Rows come from a client or a file: rows.
    Reading,
    /// Rows go to a client or a file: rows.
    Writing,
    Merging,
    Removing,
    /// All is done, and is being made durable and visible.
    Finishing,
}

impl Phase {
    const ALL: [Phase; 9] = [
        Phase::Waiting,
        Phase::Replaying,
        Phase::Putting,
        Phase::Computing,
        Phase::Reading,
        Phase::Writing,
        Phase::Merging,
        Phase::Removing,
        Phase::Finishing,
    ];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Replaying => "replaying",
            Phase::Putting => "putting",
            Phase::Computing => "computing",
            Phase::Reading => "reading",
            Phase::Writing => "writing",
            Phase::Merging => "merging files",
            Phase::Removing => "removing files",
            Phase::Finishing => "finishing",
        }
    }
}

/// `u64::MAX` in a count: nobody knows, or nobody counts.
const UNKNOWN: u64 = u64::MAX;

/// How far something is. Whoever reads it while it moves may see a count of one phase beside the name of the next.
#[derive(Debug)]
pub struct Progress {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    /// When counting began, microseconds.
    since_us: AtomicI64,
}

/// What [`Progress::read`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub phase: Phase,
    /// `None`: nothing has been counted yet, or it cannot be.
    pub done: Option<u64>,
    pub total: Option<u64>,
    /// When counting began, microseconds.
    pub since_us: i64,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            phase: AtomicU8::new(Phase::Waiting as u8),
            done: AtomicU64::new(UNKNOWN),
            total: AtomicU64::new(UNKNOWN),
            since_us: AtomicI64::new(0),
        }
    }
}

impl Progress {
    /// A phase in which something is counted, from 0.
    pub fn count(&self, phase: Phase, total: Option<u64>, now_us: i64) {
        self.since_us.store(now_us, Ordering::Relaxed);
        self.total.store(total.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.enter(phase);
    }

    /// A phase that counts nothing; what has been counted before stays.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// How much there is to do has turned out.
    pub fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// So much more is done. Nothing, where nobody has begun to count.
    pub fn add(&self, done: u64) {
        if self.done.load(Ordering::Relaxed) != UNKNOWN {
            self.done.fetch_add(done, Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> Seen {
        let known = |count: &AtomicU64| Some(count.load(Ordering::Relaxed)).filter(|count| *count != UNKNOWN);
        let phase = self.phase.load(Ordering::Relaxed);
        Seen {
            phase: Phase::ALL.get(usize::from(phase)).copied().unwrap_or_default(),
            done: known(&self.done),
            total: known(&self.total),
            since_us: self.since_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_reads_as_it_was_entered() {
        let progress = Progress::default();
        for phase in Phase::ALL {
            progress.enter(phase);
            assert_eq!(progress.read(), Seen { phase, done: None, total: None, since_us: 0 });
        }
    }

    #[test]
    fn what_is_done_is_counted_from_the_beginning_of_its_phase_and_stays_when_it_is_over() {
        let progress = Progress::default();
        progress.add(7);
        progress.count(Phase::Replaying, None, 5);
        progress.add(2);
        progress.expect(10);
        progress.add(3);
        assert_eq!(progress.read(), Seen { phase: Phase::Replaying, done: Some(5), total: Some(10), since_us: 5 });
        progress.enter(Phase::Finishing);
        assert_eq!(progress.read().done, Some(5));
        progress.count(Phase::Putting, Some(4), 9);
        assert_eq!(progress.read(), Seen { phase: Phase::Putting, done: Some(0), total: Some(4), since_us: 9 });
    }
}
