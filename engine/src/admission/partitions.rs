//! The clocks of a topic's partitions, each with a watermark of its own.
//!
//! ```text
//!   partition 0   ────────────────●                 its watermark: late is what lies before it, or before the frontier
//!   partition 1   ───────●                          the least that still speaks: the source's frontier
//!   partition 2   ──●        (silent for idle_timeout: holds nobody back)
//! ```
//!
//! A partition that speaks again after a silence begins at the frontier of that moment (semantics, section 3). That floor
//! need not be kept: the frontier never passes the greater of the watermark and the floor of a partition that speaks, so
//! "below the watermark or the frontier" says the same. Which ones are silent is not kept either: one counts as silent only
//! for as long as it is known to have nothing more, so after a start the frontier stays where it was until somebody has looked.

use crate::seam::{Origin, Taken};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// The offset of the next record to take.
    pub next: u64,
    pub watermark_us: i64,
    /// Since when there has been nothing to wait for, by the server's clock; `None`: there may be something, or nobody has
    /// looked yet.
    #[serde(skip)]
    silent_us: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Partitions(BTreeMap<u32, Partition>);

impl Partitions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For each partition the offset of the next record to take.
    pub fn next(&self) -> BTreeMap<u32, u64> {
        self.0.iter().map(|(id, partition)| (*id, partition.next)).collect()
    }

    pub(super) fn watermark_us(&self, partition: u32) -> i64 {
        self.0.get(&partition).map_or(i64::MIN, |partition| partition.watermark_us)
    }

    /// The first record of these that was taken before, with its partition and the offset that was to come next there.
    pub fn taken_before(&self, origin: &Origin) -> Option<(u32, u64, u64)> {
        let runs = origin.runs.iter().map(|run| (run.partition, run.offset));
        let undecoded = origin.undecoded.iter().map(|message| (message.partition, message.offset));
        let next = |partition: u32| self.0.get(&partition).map_or(0, |partition| partition.next);
        let mut all = runs.chain(undecoded).map(|(partition, offset)| (partition, offset, next(partition)));
        all.find(|(_, offset, next)| offset < next)
    }

    /// Records of these partitions have come.
    pub(super) fn took(&mut self, origin: &Origin, now_us: i64) {
        for taken in &origin.taken {
            let partition = self.0.entry(taken.partition).or_insert(Partition {
                next: taken.next,
                watermark_us: i64::MIN,
                silent_us: None,
            });
            partition.next = taken.next;
            partition.silent_us = partition.silent_us.map(|_| now_us);
        }
    }

    /// Reading was set elsewhere, and these partitions are all that there are. One that goes back is as a new one: what
    /// it has brought before does not make it late.
    pub(super) fn reset(&mut self, origin: &Origin) {
        let before = std::mem::take(&mut self.0);
        for taken in &origin.taken {
            let goes_on = before.get(&taken.partition).filter(|partition| partition.next <= taken.next);
            let watermark_us = goes_on.map_or(i64::MIN, |partition| partition.watermark_us);
            self.0.insert(taken.partition, Partition { next: taken.next, watermark_us, silent_us: None });
        }
    }

    pub(super) fn saw(&mut self, partition: u32, watermark_us: i64) {
        if let Some(partition) = self.0.get_mut(&partition) {
            partition.watermark_us = partition.watermark_us.max(watermark_us);
        }
    }

    /// Writes the watermarks down.
    pub(super) fn note(&self, origin: &mut Origin) {
        for taken in &mut origin.taken {
            taken.watermark_us = self.watermark_us(taken.partition);
        }
    }

    /// Takes over what was written down.
    pub(super) fn replay(&mut self, origin: &Origin) {
        if origin.is_reset {
            self.0.clear();
        }
        for Taken { partition, next, watermark_us } in origin.taken.iter().copied() {
            self.0.insert(partition, Partition { next, watermark_us, silent_us: None });
        }
    }

    /// These have records that are not here yet, or may have: they are waited for, until they are level.
    pub fn wait_for(&mut self, partitions: &[u32]) {
        for partition in partitions {
            if let Some(partition) = self.0.get_mut(partition) {
                partition.silent_us = None;
            }
        }
    }

    /// These have nothing more: the time of their silence begins now, where it has not begun.
    pub fn level(&mut self, partitions: &[u32], now_us: i64) {
        for partition in partitions {
            if let Some(partition) = self.0.get_mut(partition) {
                partition.silent_us.get_or_insert(now_us);
            }
        }
    }

    /// Nobody has looked since reading began.
    pub fn begin(&mut self) {
        self.0.values_mut().for_each(|partition| partition.silent_us = None);
    }

    /// The least watermark of those that are not idle; `None`: all are.
    pub(super) fn least_us(&self, now_us: i64, idle_timeout_us: i64) -> Option<i64> {
        let is_idle = |partition: &Partition| {
            partition.silent_us.is_some_and(|since_us| now_us.saturating_sub(since_us) >= idle_timeout_us)
        };
        self.0.values().filter(|partition| !is_idle(partition)).map(|partition| partition.watermark_us).min()
    }
}
