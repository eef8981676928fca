//! The most frequent values of a frame that no event leaves, in bounded memory: `approx_top_k` from the first event on.
//!
//! Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams" (2005): SpaceSaving.
//! Up to [`COUNTERS`] distinct values everything is exact. Then a new value takes the place of the one counted least and goes on
//! from its count, so that after `n` values no count is more than `n / COUNTERS` too high, none too low, and every value that is
//! there more often than that is among them. It follows the order of the events, which is the same in every replay.

use super::{Function, values::most_frequent};
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidemark_planner::feature::Parameter;

/// Counts are at most 0.2 % of all values too high. At some 100 bytes each, 50 KiB a key.
const COUNTERS: usize = 500;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Frequent {
    each: BTreeMap<Value, u64>,
    /// The same by count, once there is something to replace; made again from `each` after a restart.
    #[serde(skip)]
    by_count: BTreeSet<(u64, Value)>,
}

impl Frequent {
    pub fn add(&mut self, value: Value) {
        if self.each.len() < COUNTERS {
            *self.each.entry(value).or_insert(0) += 1;
            return;
        }
        if self.by_count.is_empty() {
            self.by_count = self.each.iter().map(|(value, n)| (*n, value.clone())).collect();
        }
        let count = match self.each.get(&value) {
            Some(n) => {
                self.by_count.remove(&(*n, value.clone()));
                *n
            }
            // Of several counted least the least value goes.
            None => match self.by_count.pop_first() {
                Some((n, least)) => {
                    self.each.remove(&least);
                    n
                }
                None => 0,
            },
        };
        self.by_count.insert((count + 1, value.clone()));
        self.each.insert(value, count + 1);
    }

    /// Bytes on the heap, nearly: nodes of the tree are two thirds full.
    pub fn memory(&self) -> usize {
        size_of::<Frequent>() + (self.each.len() + self.by_count.len()) * (size_of::<(Value, u64)>() * 3 / 2)
    }

    pub fn evaluate(&self, of: &Function) -> Value {
        match of.parameter {
            Parameter::Number(k) if !self.each.is_empty() => {
                most_frequent(self.each.iter().map(|(value, n)| (value, *n)), k)
            }
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from 1 on, of which those greater than `i` are one part in `√i`.
    fn skewed(n: u64) -> impl Iterator<Item = i64> {
        let mut seed = 42u64;
        std::iter::repeat_with(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (seed >> 11) as f64 / (1u64 << 53) as f64;
            (1.0 / (uniform + 1e-6)).powi(2) as i64
        })
        .take(n as usize)
    }

    #[test]
    fn counts_are_never_too_low_and_too_high_by_the_stated_part_at_most() {
        const N: u64 = 200_000;
        let mut exact = BTreeMap::<i64, u64>::new();
        let mut sketch = Frequent::default();
        for value in skewed(N) {
            *exact.entry(value).or_insert(0) += 1;
            sketch.add(Value::Int(value));
        }
        assert!(exact.len() > 4 * COUNTERS, "{} distinct values are too few", exact.len());
        assert_eq!(sketch.each.len(), COUNTERS);
        let most = N / COUNTERS as u64;
        for (value, n) in exact {
            match sketch.each.get(&Value::Int(value)) {
                Some(counted) => assert!((n..=n + most).contains(counted), "{value}: {n} counted as {counted}"),
                None => assert!(n <= most, "{value} is there {n} times and missing"),
            }
        }
    }

    #[test]
    fn a_restart_in_between_does_not_show() {
        let mut kept = Frequent::default();
        let mut restored = Frequent::default();
        for (i, value) in skewed(20_000).enumerate() {
            kept.add(Value::Int(value));
            restored.add(Value::Int(value));
            if i % 1_000 == 0 {
                let bytes = postcard::to_stdvec(&restored).expect("it is encoded");
                restored = postcard::from_bytes(&bytes).expect("it is decoded");
            }
        }
        assert_eq!(kept.each, restored.each);
    }
}
