//! Percentiles of a frame that no event leaves, in bounded memory: `approx_percentile` from the first event on.
//!
//! A double is the place of its bits among all doubles of its sign. Values are counted by that place without its last `shift`
//! bits, and `shift` grows by one whenever there are more than [`BUCKETS`] different ones: at first every value is counted by
//! itself, later those that agree in sign, exponent and first bits of the mantissa. (Masson, Rim and Lee's DDSketch, 2019, with
//! the exponent's own bits for the logarithm and the uniform collapse of UDDSketch, 2020.)
//!
//! What is kept depends on the set of values alone and not on their order, so no batch, thread or restart can show; nothing is
//! drawn at random and no logarithm is rounded. That is why it is neither KLL nor a t-digest.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values that span 32 powers of two get 64 buckets for each: the answer is within 0.8 % of a value that is really there.
/// At 16 bytes and the tree's own, at most some 48 KiB a key.
const BUCKETS: usize = 2_048;

/// The places of what is no finite number, beyond all others.
const NAN: i64 = i64::MAX;
const INFINITE: i64 = i64::MAX - 1;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many values are in each bucket; in the order of the values.
    buckets: BTreeMap<i64, u64>,
    shift: u32,
    count: u64,
}

impl Quantiles {
    pub fn add(&mut self, x: f64) {
        *self.buckets.entry(bucket(x, self.shift)).or_insert(0) += 1;
        self.count += 1;
        while self.buckets.len() > BUCKETS {
            self.shift += 1;
            let mut coarser = BTreeMap::new();
            for (bucket, n) in &self.buckets {
                *coarser.entry(halved(*bucket)).or_insert(0) += n;
            }
            self.buckets = coarser;
        }
    }

    /// Bytes on the heap, nearly: nodes of the tree are two thirds full.
    pub fn memory(&self) -> usize {
        size_of::<Quantiles>() + self.buckets.len() * (size_of::<(i64, u64)>() * 3 / 2)
    }

    /// Between the two nearest values, linearly, as `percentile_cont`; `None` of no values.
    pub fn at(&self, p: f64) -> Option<f64> {
        let place = p * self.count.checked_sub(1)? as f64;
        let low = self.value(place.floor() as u64)?;
        let high = self.value(place.ceil() as u64)?;
        let between = place - place.floor();
        Some(if between == 0.0 { low } else { low + between * (high - low) })
    }

    /// About the value in place `rank` of all, from 0.
    fn value(&self, rank: u64) -> Option<f64> {
        let mut behind = 0;
        let found = self.buckets.iter().find(|(_, n)| {
            behind += **n;
            behind > rank
        });
        found.map(|(bucket, _)| middle(*bucket, self.shift))
    }
}

/// 0 for zero; for other values ±1 and on, by the bits of their magnitude.
fn bucket(x: f64, shift: u32) -> i64 {
    let magnitude = match x.abs() {
        x if x.is_nan() => return NAN,
        0.0 => return 0,
        f64::INFINITY => INFINITE,
        // Below 2⁶³: the sign's bit is not among them.
        x => (x.to_bits() >> shift) as i64 + 1,
    };
    if x < 0.0 { -magnitude } else { magnitude }
}

/// The bucket that this one is half of, one bit coarser.
fn halved(bucket: i64) -> i64 {
    match bucket.abs() {
        0 | INFINITE | NAN => bucket,
        magnitude => (((magnitude - 1) >> 1) + 1) * bucket.signum(),
    }
}

/// The value in the middle of a bucket; of the only one in it, that value.
fn middle(bucket: i64, shift: u32) -> f64 {
    let magnitude = match bucket.abs() {
        0 => return 0.0,
        NAN => return f64::NAN,
        INFINITE => f64::INFINITY,
        magnitude => {
            let least = ((magnitude - 1) as u64) << shift;
            f64::from_bits(least + if shift == 0 { 0 } else { 1 << (shift - 1) })
        }
    };
    if bucket < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(values: impl IntoIterator<Item = f64>) -> Quantiles {
        let mut sketch = Quantiles::default();
        values.into_iter().for_each(|x| sketch.add(x));
        sketch
    }

    /// Between 1 and 2³², as many in each power of two.
    fn spread(n: usize) -> Vec<f64> {
        let mut seed = 7u64;
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 11) as f64 / (1u64 << 53) as f64 * 32.0).exp2()
        })
        .take(n)
        .collect()
    }

    #[test]
    fn few_values_are_exact_and_many_within_the_stated_error() {
        let few = sketch((0..BUCKETS).map(|i| i as f64 - 1000.0));
        assert_eq!((few.shift, few.at(0.5), few.at(0.0), few.at(1.0)), (0, Some(23.5), Some(-1000.0), Some(1047.0)));
        let values = spread(100_000);
        let many = sketch(values.iter().copied());
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        assert!(many.buckets.len() <= BUCKETS && many.buckets.len() > BUCKETS / 4);
        for p in [0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0] {
            let exact = sorted[(p * (sorted.len() - 1) as f64).round() as usize];
            let about = many.at(p).expect("there are values");
            assert!((about / exact - 1.0).abs() < 0.008, "{p}: {about} for {exact}");
        }
    }

    #[test]
    fn the_order_of_the_values_and_a_restart_do_not_show() {
        let values = spread(30_000);
        let forward = sketch(values.iter().copied());
        let mut backward = Quantiles::default();
        for (i, x) in values.iter().rev().enumerate() {
            backward.add(*x);
            if i % 10_000 == 0 {
                let bytes = postcard::to_stdvec(&backward).expect("it is encoded");
                backward = postcard::from_bytes(&bytes).expect("it is decoded");
            }
        }
        assert_eq!((&forward.buckets, forward.shift), (&backward.buckets, backward.shift));
    }

    #[test]
    fn values_of_every_sign_and_size_keep_their_order() {
        let ends = [f64::NEG_INFINITY, f64::MIN, -1.0, -f64::from_bits(1), 0.0, f64::from_bits(1), 1.0, f64::MAX];
        let ends: Vec<f64> = ends.into_iter().chain([f64::INFINITY, f64::NAN]).collect();
        for shift in [0, 1, 45, 60] {
            let buckets: Vec<i64> = ends.iter().map(|x| bucket(*x, shift)).collect();
            assert!(buckets.is_sorted(), "{shift}: {buckets:?}");
            for (x, of) in ends.iter().zip(&buckets) {
                assert_eq!(halved(*of), bucket(*x, shift + 1), "{x} at {shift}");
                assert_eq!(bucket(middle(*of, shift), shift), *of, "{x} at {shift}");
            }
        }
        let everywhere = sketch((0..60_000u64).map(|i| f64::from_bits(i * 0xffff_ffff_ffff)).filter(|x| x.is_finite()));
        assert!(everywhere.buckets.len() <= BUCKETS);
    }
}
