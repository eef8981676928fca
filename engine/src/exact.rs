//! Sums of doubles without rounding: the correctly rounded sum of a frame, whatever the order of its events.
//!
//! Nearly all data fits the narrow form: one 128-bit integer times a power of two, the smallest unit seen so far. Adding
//! and removing are then a shift and an addition, and rounding is the processor's. A sum whose terms lie too far apart
//! moves to the wide form ([`lanes`]) and stays there until it is zero again. Both are exact, so which one holds the sum
//! never shows in a value.

mod lanes;
mod scaled;

pub use lanes::Lanes;
pub use scaled::Scaled;

use lanes::parts;
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// Bits of the narrow form in use at most; one is the sign's, one is left so that an addition cannot overflow.
const NARROW_BITS: u32 = 126;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExactSum {
    /// The sum in units of `2^exponent`; zero while `wide` has it.
    narrow: i128,
    exponent: i32,
    wide: Option<Box<Lanes>>,
}

impl ExactSum {
    /// Adds a finite `x`, or takes it away.
    pub fn add(&mut self, x: f64, retract: bool) {
        let Some((mantissa, exponent)) = parts(x) else { return };
        let negative = x.is_sign_negative() != retract;
        if self.wide.is_none() && self.add_narrow(mantissa, exponent, negative) {
            return;
        }
        let lanes = self.widen();
        lanes.add_scaled(u128::from(mantissa), exponent, negative);
        if lanes.is_zero() {
            *self = ExactSum::default();
        }
    }

    /// `false`: does not fit, and nothing has changed.
    fn add_narrow(&mut self, mantissa: u64, exponent: i32, negative: bool) -> bool {
        if self.narrow == 0 {
            self.exponent = exponent;
        }
        let shift = exponent - self.exponent;
        let (mut sum, mut term) = (self.narrow, i128::from(mantissa));
        if shift >= 0 {
            // A mantissa has at most 53 bits.
            if shift as u32 > NARROW_BITS - 53 {
                return false;
            }
            term <<= shift;
        } else {
            let used = 128 - sum.unsigned_abs().leading_zeros();
            if used + shift.unsigned_abs() > NARROW_BITS {
                return false;
            }
            sum <<= -shift;
        }
        let sum = if negative { sum - term } else { sum + term };
        if sum.unsigned_abs().leading_zeros() < 128 - NARROW_BITS {
            return false;
        }
        self.narrow = sum;
        self.exponent = self.exponent.min(exponent);
        true
    }

    fn widen(&mut self) -> &mut Lanes {
        let (narrow, exponent) = (std::mem::take(&mut self.narrow), self.exponent);
        self.wide.get_or_insert_with(|| {
            let mut lanes = Lanes::default();
            if narrow != 0 {
                lanes.add_scaled(narrow.unsigned_abs(), exponent, narrow < 0);
            }
            Box::new(lanes)
        })
    }

    /// The sum.
    pub fn exact(&self) -> Scaled {
        match &self.wide {
            Some(lanes) => lanes.exact(),
            None => Scaled { integer: BigInt::from(self.narrow), exponent: self.exponent },
        }
    }

    /// The sum, correctly rounded (ties to even); `None` if it lies outside the doubles.
    pub fn round(&self) -> Option<f64> {
        // Rust converts integers to the nearest double, ties to even; a product with a power of two that stays among the
        // normal numbers is exact.
        if self.wide.is_none() && (-1000..=800).contains(&self.exponent) {
            return Some(self.narrow as f64 * f64::from_bits(((self.exponent + 1023) as u64) << 52));
        }
        self.exact().round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> Option<f64> {
        let mut s = ExactSum::default();
        values.iter().for_each(|x| s.add(*x, false));
        s.round()
    }

    /// The obvious way: every double is an integer times 2^-1074.
    fn reference(values: &[f64]) -> Option<f64> {
        let mut total = BigInt::ZERO;
        for x in values {
            if let Some((m, e)) = parts(*x) {
                let term = BigInt::from(m) << (e + 1074);
                total += if *x < 0.0 { -term } else { term };
            }
        }
        Scaled { integer: total, exponent: -1074 }.round()
    }

    #[test]
    fn sums_are_correctly_rounded_where_naive_addition_is_not() {
        assert_eq!(sum(&[1e308, 1e308, -1e308]), Some(1e308));
        assert_eq!(sum(&[0.1; 10]), Some(1.0));
        assert_eq!(sum(&[1e100, 1.0, -1e100]), Some(1.0));
        assert_eq!(sum(&[f64::MAX, f64::MAX]), None);
        assert_eq!(sum(&[f64::from_bits(1), f64::from_bits(1)]), Some(f64::from_bits(2)));
        assert_eq!(sum(&[1.0, 2f64.powi(-53)]), Some(1.0));
        assert_eq!(sum(&[1.0, 2f64.powi(-53), f64::from_bits(1)]), Some(1.0 + f64::EPSILON));
        assert_eq!(sum(&[-3.5, 1.25]), Some(-2.25));
    }

    #[test]
    fn the_variance_of_large_close_numbers_does_not_cancel() {
        let values = [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0];
        let (mut s, mut q) = (ExactSum::default(), Lanes::default());
        for x in values {
            s.add(x, false);
            q.add_power(x, 2, false);
        }
        let numerator = q.exact().times(4) - &s.exact() * &s.exact();
        assert_eq!(numerator.round().map(|n| n / 12.0), Some(30.0));
    }

    /// `xᵖ` the obvious way.
    fn power_of(x: f64, power: u32) -> Scaled {
        let one = match parts(x) {
            None => Scaled::default(),
            Some((m, exponent)) if x < 0.0 => Scaled { integer: -BigInt::from(m), exponent },
            Some((m, exponent)) => Scaled { integer: BigInt::from(m), exponent },
        };
        (1..power).fold(one.clone(), |product, _| &product * &one)
    }

    fn doubles() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |x| x.is_finite()),
            (-1000i32..1000).prop_map(|n| f64::from(n) / 8.0),
            any::<u8>().prop_map(|n| f64::from_bits(u64::from(n))),
        ]
    }

    proptest! {
        #[test]
        fn any_order_gives_the_rounded_exact_sum(values in prop::collection::vec(doubles(), 0..40), swap in any::<u64>()) {
            let expected = reference(&values);
            prop_assert_eq!(sum(&values).map(f64::to_bits), expected.map(f64::to_bits));
            let mut shuffled = values.clone();
            if !shuffled.is_empty() {
                let n = shuffled.len();
                shuffled.rotate_left(swap as usize % n);
                shuffled.reverse();
            }
            prop_assert_eq!(sum(&shuffled).map(f64::to_bits), expected.map(f64::to_bits));
        }

        #[test]
        fn what_is_taken_away_leaves_no_trace(keep in prop::collection::vec(doubles(), 0..20), gone in prop::collection::vec(doubles(), 0..20)) {
            let mut s = ExactSum::default();
            for x in keep.iter().chain(&gone) { s.add(*x, false); }
            for x in &gone { s.add(*x, true); }
            prop_assert_eq!(s.round().map(f64::to_bits), reference(&keep).map(f64::to_bits));
            for power in 2..=4 {
                let mut q = Lanes::default();
                for x in keep.iter().chain(&gone) { q.add_power(*x, power, false); }
                for x in &gone { q.add_power(*x, power, true); }
                let exact = keep.iter().fold(Scaled::default(), |sum, x| sum + power_of(*x, power));
                prop_assert_eq!(q.exact().round().map(f64::to_bits), exact.round().map(f64::to_bits));
            }
        }

        #[test]
        fn products_are_exact(pairs in prop::collection::vec((doubles(), doubles()), 0..20)) {
            let mut lanes = Lanes::default();
            for (x, y) in &pairs { lanes.add_product(*x, *y, false); }
            let exact = pairs.iter().fold(Scaled::default(), |sum, (x, y)| sum + &power_of(*x, 1) * &power_of(*y, 1));
            prop_assert_eq!(lanes.exact().round().map(f64::to_bits), exact.round().map(f64::to_bits));
        }
    }
}
