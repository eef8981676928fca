//! How often something took how long: counted where it happens, in a few nanoseconds, and read by who wants to know.

use std::sync::atomic::{AtomicU64, Ordering};

/// The upper bounds of the buckets, microseconds: from what a lookup takes to what people wait for.
pub const BOUNDS_US: [u64; 22] = [
    5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Durations by size. Two that are counted at once may be seen one without the other; none is lost.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is of what is longer than every bound.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram had counted at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// By bucket, each for itself; the last one is of what is longer than every bound.
    pub counts: [u64; BOUNDS_US.len() + 1],
    pub sum_us: u64,
}

impl Histogram {
    /// A negative duration is none: clocks of two machines differ.
    pub fn observe(&self, us: i64) {
        self.observe_many(us, 1);
    }

    /// As many times as it happened.
    pub fn observe_many(&self, us: i64, times: u64) {
        let us = u64::try_from(us).unwrap_or(0);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum_us.fetch_add(us.saturating_mul(times), Ordering::Relaxed);
    }

    pub fn counted(&self) -> Counted {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Counted { counts, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

impl Counted {
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_nothing_is_lost() {
        let histogram = Histogram::default();
        for us in [-3, 0, 5, 6, 60_000_000] {
            histogram.observe(us);
        }
        histogram.observe_many(60_000_001, 4);
        let counted = histogram.counted();
        assert_eq!((counted.counts[0], counted.counts[1]), (3, 1));
        assert_eq!((counted.counts[BOUNDS_US.len() - 1], counted.counts[BOUNDS_US.len()]), (1, 4));
        assert_eq!(counted.total(), 9);
        assert_eq!(counted.sum_us, 5 + 6 + 60_000_000 + 4 * 60_000_001);
    }
}
