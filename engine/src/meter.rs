//! Counting from many threads at once, cheaply enough for the path of a lookup: what is counted here is read only when
//! somebody asks.
//!
//! ```text
//!   observe(37)  ──▶  this thread's shard  ──▶  the first bucket whose bound is at least 37, and the sum
//!   read()       ──▶  all shards added up
//! ```
//!
//! An observation is a search among some 20 bounds and two additions without a lock: about 10 ns on a shard of its own.
//! The engine knows nothing of who reads the counts, nor in which format they are shown.

use std::{
    array,
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// A number that only grows, since the process began.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bounds of a histogram, and one bucket more for what is above all of them.
const BUCKETS_MAX: usize = 24;

/// A power of two, at least the threads that look up at once on an ordinary machine: two on one shard still count
/// right, only not as fast. At 256 bytes each.
const SHARDS: usize = 16;

/// How many values fell between which bounds, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    shards: Box<[Shard]>,
}

/// On cache lines of its own: threads that count on different shards do not wait for each other.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Shard {
    fn new() -> Shard {
        Shard { counts: array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

/// What a histogram has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    pub bounds: &'static [u64],
    /// For each bound the values at most as large and larger than the bound before; one more for those above the last.
    pub counts: Vec<u64>,
    pub sum: u64,
}

impl Counts {
    /// All values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Histogram {
    /// For what one thread counts at a time, or seldom. `bounds` ascend, fewer than 24 of them.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram::with_shards(bounds, 1)
    }

    /// For what many threads count all the time.
    pub fn sharded(bounds: &'static [u64]) -> Histogram {
        Histogram::with_shards(bounds, SHARDS)
    }

    fn with_shards(bounds: &'static [u64], shards: usize) -> Histogram {
        debug_assert!(bounds.len() < BUCKETS_MAX && bounds.is_sorted(), "{bounds:?}");
        let bounds = &bounds[..bounds.len().min(BUCKETS_MAX - 1)];
        Histogram { bounds, shards: (0..shards).map(|_| Shard::new()).collect() }
    }

    pub fn observe(&self, value: u64) {
        self.observe_many(value, 1);
    }

    /// The same value, so often.
    pub fn observe_many(&self, value: u64, times: u64) {
        let shard = &self.shards[shard_of_thread() & (self.shards.len() - 1)];
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        shard.counts[bucket].fetch_add(times, Ordering::Relaxed);
        shard.sum.fetch_add(value.wrapping_mul(times), Ordering::Relaxed);
    }

    /// A span of time between two readings of a clock; one that seems to end before it began counts as none.
    pub fn observe_span(&self, begun_us: i64, ended_us: i64) {
        self.observe(span(begun_us, ended_us));
    }

    /// What has been counted so far. Values that are counted meanwhile may be in the counts and not yet in the sum.
    pub fn read(&self) -> Counts {
        let mut counts = vec![0; self.bounds.len() + 1];
        let mut sum = 0u64;
        for shard in &self.shards {
            for (count, of_shard) in counts.iter_mut().zip(&shard.counts) {
                *count += of_shard.load(Ordering::Relaxed);
            }
            sum = sum.wrapping_add(shard.sum.load(Ordering::Relaxed));
        }
        Counts { bounds: self.bounds, counts, sum }
    }
}

/// Microseconds from one reading of a clock to another; clocks of two machines may be apart, so it may be none.
pub fn span(begun_us: i64, ended_us: i64) -> u64 {
    u64::try_from(ended_us.saturating_sub(begun_us)).unwrap_or(0)
}

/// Threads are given their shards in the order in which they first count.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel;

    const BOUNDS: &[u64] = &[1, 10, 100];

    #[test]
    fn a_value_falls_under_the_first_bound_that_is_not_below_it() {
        for (value, bucket) in [(0, 0), (1, 0), (2, 1), (10, 1), (11, 2), (100, 2), (101, 3), (u64::MAX, 3)] {
            let histogram = Histogram::new(BOUNDS);
            histogram.observe(value);
            let counts = histogram.read();
            assert_eq!(counts.counts.iter().position(|count| *count == 1), Some(bucket), "{value}");
            assert_eq!((counts.count(), counts.sum), (1, value), "{value}");
        }
    }

    #[test]
    fn many_threads_lose_nothing() {
        let histogram = Histogram::sharded(BOUNDS);
        let values: Vec<u64> = (0..10_000).collect();
        parallel::each(8, &values, |value| histogram.observe(*value));
        let counts = histogram.read();
        assert_eq!((counts.count(), counts.sum), (10_000, values.iter().sum::<u64>()));
        assert_eq!(counts.counts, vec![2, 9, 90, 9_899]);
    }

    #[test]
    fn the_same_value_counts_as_often_as_it_is_said_to_have_come() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe_many(7, 3);
        assert_eq!(histogram.read(), Counts { bounds: BOUNDS, counts: vec![0, 3, 0, 0], sum: 21 });
    }

    #[test]
    fn time_that_seems_to_run_backwards_is_none() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe_span(20, 5);
        histogram.observe_span(i64::MIN, i64::MAX);
        assert_eq!(histogram.read().counts, vec![1, 0, 0, 1]);
    }
}
