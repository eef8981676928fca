//! What the engine counts of itself since it began, for who watches it.

use super::{Engine, SourceRuntime};
use crate::{
    histogram::Histogram,
    seam::{RejectReason, SeamResult},
};
use std::sync::atomic::{AtomicU64, Ordering};
use tidemark_catalog::ObjectId;

/// Of an action in the background.
#[derive(Debug, Default)]
pub struct Action {
    /// How long each took, also the failed ones.
    pub took: Histogram,
    pub failures: AtomicU64,
}

impl Action {
    pub(super) fn note<T>(&self, took_us: i64, outcome: &SeamResult<T>) {
        self.took.observe(took_us);
        self.failures.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct Metrics {
    /// A view's changed rows put into the online store; flushes of nothing are not counted.
    pub online: Action,
    pub online_rows: AtomicU64,
    /// A view's finished steps appended to its history; commits of nothing are not counted.
    pub history: Action,
    pub history_steps: AtomicU64,
    pub checkpoint: Action,
}

/// Of one source or table.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    /// Rows that were appended, admitted or not.
    pub rows: AtomicU64,
    /// Dead letters by reason.
    letters: [AtomicU64; RejectReason::ALL.len()],
    /// From when a row was sent until it had been applied to every view.
    pub readable: Histogram,
}

impl SourceMetrics {
    pub(super) fn letter(&self, reason: RejectReason) {
        self.letters[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn letters(&self) -> impl Iterator<Item = (RejectReason, u64)> {
        RejectReason::ALL.into_iter().map(|reason| (reason, self.letters[reason as usize].load(Ordering::Relaxed)))
    }
}

impl Engine {
    /// Rows of a topic that were sent at these times can be read now.
    pub fn can_be_read(&self, id: ObjectId, sent_us: &[i64]) {
        if let Some(source) = self.source(id) {
            let now_us = self.seams.clock.now_us();
            sent_us.iter().for_each(|sent_us| source.metrics.readable.observe(now_us.saturating_sub(*sent_us)));
        }
    }
}

impl SourceRuntime {
    /// Rows of one statement that began then can be read now.
    pub(super) fn can_be_read(&self, began_us: i64, now_us: i64, rows: usize) {
        self.metrics.readable.observe_many(now_us.saturating_sub(began_us), rows as u64);
    }
}
