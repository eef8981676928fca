//! What the pipeline counts about itself since the process began: how much, how long, how often it failed. The server
//! shows it (docs/metrics.md); nothing here decides anything.
//!
//! Counted is what happens, not what a start reads again: rows that recovery replays from the log are in none of these.

use crate::{
    meter::{Counter, Histogram, span},
    seam::{AdmittedBatch, RejectReason, SeamResult, SourceBatch},
};

/// Microseconds. From a batch that stays in the processor's cache to a history commit on a slow disk; three bounds a
/// decade, since what is asked is "over 10 ms, over 100 ms, over 5 s".
pub const SPANS_US: &[u64] = &[
    100,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Keys in one flush: from one key that departs to a whole view.
const FLUSHED_KEYS: &[u64] = &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Of a source or table.
#[derive(Debug)]
pub struct SourceMeters {
    /// Rows admitted.
    pub rows: Counter,
    dead_letters: [Counter; RejectReason::ALL.len()],
    /// Microseconds from when an admitted row came to when every view had it; see [`came`].
    pub readable_us: Histogram,
}

impl Default for SourceMeters {
    fn default() -> Self {
        SourceMeters {
            rows: Counter::default(),
            dead_letters: Default::default(),
            readable_us: Histogram::new(SPANS_US),
        }
    }
}

impl SourceMeters {
    pub fn dead_letters(&self, reason: RejectReason) -> u64 {
        self.dead_letters[reason as usize].get()
    }

    pub(super) fn dead_letter(&self, reason: RejectReason) {
        self.dead_letters[reason as usize].add(1);
    }

    /// Rows that came then can be read now.
    pub(super) fn readable(&self, came: &[(i64, u64)], now_us: i64) {
        for (came_us, rows) in came {
            self.rows.add(*rows);
            self.readable_us.observe_many(span(*came_us, now_us), *rows);
        }
    }
}

/// When the admitted rows of a batch came, and how many did then: those of a topic when they were appended to it (where
/// its broker tells, else when they were read), the others when their statement brought them.
pub(super) fn came(batch: &SourceBatch, decision: &AdmittedBatch, begun_us: i64) -> Vec<(i64, u64)> {
    let rows = batch.rows.num_rows();
    let rejected = |from: usize, to: usize| {
        let before = |row: usize| decision.rejected.partition_point(|reject| (reject.row as usize) < row);
        before(to) - before(from)
    };
    let admitted = |from: usize, to: usize| (to - from - rejected(from, to)) as u64;
    let runs = decision.origin.as_ref().map_or(&[][..], |origin| &origin.runs);
    if runs.is_empty() {
        return vec![(begun_us, admitted(0, rows))];
    }
    let ends = runs.iter().skip(1).map(|run| run.row as usize).chain([rows]);
    runs.iter().zip(ends).map(|(run, end)| (run.append_us, admitted(run.row as usize, end))).collect()
}

/// Of a feature view.
#[derive(Debug, Default)]
pub struct ViewMeters {
    pub flush_failures: Counter,
    pub commits: Counter,
    pub commit_failures: Counter,
    /// Steps that commits have appended.
    pub steps_committed: Counter,
    /// What was done for the files of its history, asked for or not, and how often that failed.
    pub maintenance_runs: Counter,
    pub maintenance_failures: Counter,
    /// Bytes of data files that were written again.
    pub maintenance_bytes: Counter,
}

/// Of all feature views together.
#[derive(Debug)]
pub struct EngineMeters {
    /// Keys that one flush of a view put into the online store. Flushes that found nothing to put do not count, here
    /// and below.
    pub flushed_keys: Histogram,
    pub flush_us: Histogram,
    /// One call of the online store that puts rows; failed ones do not count.
    pub put_us: Histogram,
    pub commit_us: Histogram,
    /// Whether it went well or not.
    pub checkpoint_us: Histogram,
    /// Keys and values written by checkpoints.
    pub checkpoint_bytes: Counter,
    pub checkpoint_failures: Counter,
}

impl Default for EngineMeters {
    fn default() -> Self {
        EngineMeters {
            flushed_keys: Histogram::new(FLUSHED_KEYS),
            flush_us: Histogram::new(SPANS_US),
            put_us: Histogram::new(SPANS_US),
            commit_us: Histogram::new(SPANS_US),
            checkpoint_us: Histogram::new(SPANS_US),
            checkpoint_bytes: Counter::default(),
            checkpoint_failures: Counter::default(),
        }
    }
}

impl EngineMeters {
    /// A view's turn to be brought level in the online store is over.
    pub(super) fn flushed(&self, view: &ViewMeters, put: &SeamResult<usize>, took_us: u64) {
        match put {
            Ok(0) => {}
            Ok(keys) => {
                self.flushed_keys.observe(*keys as u64);
                self.flush_us.observe(took_us);
            }
            Err(_) => view.flush_failures.add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::{Origin, Reject, Run};
    use arrow::{
        array::{ArrayRef, Int64Array},
        record_batch::RecordBatch,
    };
    use std::sync::Arc;

    fn batch(rows: i64) -> SourceBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let rows = RecordBatch::try_from_iter([("n", column)]).expect("one column");
        SourceBatch { partition: 0, base_offset: 0, append_time_us: 0, rows, admission: None }
    }

    fn rejecting(rows: &[u32], runs: &[(u32, i64)]) -> AdmittedBatch {
        let reject = |row: &u32| Reject { row: *row, reason: RejectReason::Late, error: String::new() };
        let run = |(row, append_us): &(u32, i64)| Run { row: *row, partition: 0, offset: 0, append_us: *append_us };
        let origin = Origin { runs: runs.iter().map(run).collect(), ..Origin::default() };
        AdmittedBatch {
            rejected: rows.iter().map(reject).collect(),
            origin: (!runs.is_empty()).then_some(origin),
            ..AdmittedBatch::default()
        }
    }

    #[test]
    fn rows_of_a_statement_came_when_it_began_and_rejected_ones_do_not_count() {
        assert_eq!(came(&batch(5), &rejecting(&[0, 4], &[]), 70), vec![(70, 3)]);
        assert_eq!(came(&batch(0), &rejecting(&[], &[]), 70), vec![(70, 0)]);
    }

    #[test]
    fn rows_of_a_topic_came_when_they_were_appended_to_it() {
        let decision = rejecting(&[1, 2, 5], &[(0, 10), (2, 20), (5, 30)]);
        assert_eq!(came(&batch(6), &decision, 70), vec![(10, 1), (20, 2), (30, 0)]);
    }

    #[test]
    fn readable_rows_are_counted_with_how_long_they_took() {
        let meters = SourceMeters::default();
        meters.readable(&[(1_000, 2), (90, 0), (-500, 1)], 1_100);
        let counts = meters.readable_us.read();
        assert_eq!((meters.rows.get(), counts.count(), counts.sum), (3, 3, 200 + 1_600));
    }
}
