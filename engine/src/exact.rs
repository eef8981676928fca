//! Sums of doubles without rounding: the correctly rounded sum of a frame, whatever the order of its events.
//!
//! A sum is a wide fixed-point integer: lanes of 32 bits (held in 64, so carries wait), lane `i` weighing
//! `2^(32·i − BIAS)`. Adding and removing are exact, so a window can slide for years and nothing drifts, and two
//! states that saw the same events in different orders are equal as numbers. Only the lanes in use are kept: a few for
//! ordinary data. The idea of a long accumulator is Kulisch's; the result equals Python's `math.fsum`.

use num_bigint::{BigInt, BigUint, Sign};
use serde::{Deserialize, Serialize};

/// Lane 0 weighs `2^-BIAS`: below the square of the smallest subnormal, `2^-2148`.
const BIAS: i32 = 2176;

/// Carries are resolved at the latest after this many additions of less than `2^32` to a lane of 63 bits.
const CARRY_EVERY: u32 = 1 << 30;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExactSum {
    /// Index of `lanes[0]`.
    first: i32,
    lanes: Vec<i64>,
    additions: u32,
}

impl ExactSum {
    /// Adds a finite `x`, or takes it away.
    pub fn add(&mut self, x: f64, retract: bool) {
        if let Some((mantissa, exponent)) = parts(x) {
            self.add_scaled(u128::from(mantissa), exponent, x.is_sign_negative() != retract);
        }
    }

    /// Adds the exact square of a finite `x`, or takes it away.
    pub fn add_square(&mut self, x: f64, retract: bool) {
        if let Some((mantissa, exponent)) = parts(x) {
            self.add_scaled(u128::from(mantissa) * u128::from(mantissa), 2 * exponent, retract);
        }
    }

    /// Adds `±magnitude · 2^exponent`; `magnitude` has at most 106 bits.
    fn add_scaled(&mut self, magnitude: u128, exponent: i32, negative: bool) {
        let shift = exponent + BIAS;
        let (lane, bits) = (shift.div_euclid(32), shift.rem_euclid(32));
        // At most 106 + 31 bits: five lanes.
        let low = magnitude << bits;
        let high = if bits == 0 { 0 } else { magnitude >> (128 - bits) };
        self.reserve(lane, lane + 5);
        let at = (lane - self.first) as usize;
        for i in 0..5 {
            let digit = if i < 4 { (low >> (32 * i)) as u32 } else { high as u32 };
            let digit = i64::from(digit);
            self.lanes[at + i] += if negative { -digit } else { digit };
        }
        self.additions += 1;
        if self.additions >= CARRY_EVERY {
            self.carry();
        }
        self.trim();
    }

    fn reserve(&mut self, from: i32, to: i32) {
        if self.lanes.is_empty() {
            self.first = from;
        }
        if from < self.first {
            let missing = (self.first - from) as usize;
            self.lanes.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = from;
        }
        let end = (to - self.first) as usize;
        if end > self.lanes.len() {
            self.lanes.resize(end, 0);
        }
    }

    /// Forgets zero lanes at both ends, so that a sum that returns to zero returns to nothing.
    fn trim(&mut self) {
        while self.lanes.last() == Some(&0) {
            self.lanes.pop();
        }
        let zeros = self.lanes.iter().take_while(|l| **l == 0).count();
        if zeros > 4 {
            self.lanes.drain(..zeros);
            self.first += zeros as i32;
        }
    }

    fn carry(&mut self) {
        let mut carry = 0i64;
        for lane in &mut self.lanes {
            let sum = *lane + carry;
            *lane = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        if carry != 0 {
            self.lanes.push(carry);
        }
        self.additions = 0;
    }

    /// The sum as an integer times `2^exponent`.
    fn integer(&self) -> (BigInt, i32) {
        let mut lanes = self.lanes.clone();
        let negative = {
            // The sign is that of the highest lane once carries are resolved.
            let mut carry = 0i64;
            for lane in &mut lanes {
                let sum = *lane + carry;
                *lane = sum & 0xffff_ffff;
                carry = sum >> 32;
            }
            lanes.push(carry);
            carry < 0
        };
        if negative {
            // Negate and resolve again: every lane but the last is in 0..2^32.
            let mut carry = 0i64;
            let last = lanes.len() - 1;
            for lane in &mut lanes[..last] {
                let sum = -*lane + carry;
                *lane = sum & 0xffff_ffff;
                carry = sum >> 32;
            }
            lanes[last] = -lanes[last] + carry;
        }
        let mut digits: Vec<u32> = lanes.iter().map(|l| *l as u32).collect();
        if let Some(last) = lanes.last() {
            digits.push((last >> 32) as u32);
        }
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        (BigInt::from_biguint(sign, BigUint::new(digits)), self.first * 32 - BIAS)
    }

    /// The sum, correctly rounded (ties to even); `None` if it lies outside the doubles.
    pub fn round(&self) -> Option<f64> {
        if self.lanes.is_empty() {
            return Some(0.0);
        }
        let (integer, exponent) = self.integer();
        round(&integer, exponent)
    }

    /// `n · squares − self²`, correctly rounded: the numerator of a variance, free of cancellation.
    pub fn variance_numerator(&self, squares: &ExactSum, n: u64) -> Option<f64> {
        let (sum, sum_exponent) = self.integer();
        let (squares, squares_exponent) = squares.integer();
        let left = squares * n;
        let right = &sum * &sum;
        let right_exponent = 2 * sum_exponent;
        let exponent = squares_exponent.min(right_exponent);
        let left = left << (squares_exponent - exponent);
        let right = right << (right_exponent - exponent);
        round(&(left - right), exponent)
    }
}

/// `x` as mantissa times `2^exponent`; `None` for zero and for what is not finite.
fn parts(x: f64) -> Option<(u64, i32)> {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    match exponent {
        0x7ff => None,
        0 if fraction == 0 => None,
        0 => Some((fraction, -1074)),
        e => Some((fraction | (1 << 52), e - 1075)),
    }
}

/// `integer · 2^exponent` as the nearest double, ties to even; `None` beyond the greatest finite double.
fn round(integer: &BigInt, exponent: i32) -> Option<f64> {
    let magnitude = integer.magnitude();
    let bits = magnitude.bits() as i64;
    if bits == 0 {
        return Some(0.0);
    }
    let sign = if integer.sign() == Sign::Minus { -1.0 } else { 1.0 };
    // Drop bits so that 53 stay, or fewer where the result is subnormal.
    let drop = (bits - 53).max(i64::from(-1074 - exponent)).max(0);
    let mut kept = if drop > bits { BigUint::ZERO } else { magnitude >> drop as u64 };
    if drop > 0 && drop <= bits {
        let half = magnitude.bit(drop as u64 - 1);
        let rest = drop > 1 && magnitude.trailing_zeros().is_some_and(|z| z < drop as u64 - 1);
        if half && (rest || kept.bit(0)) {
            kept += 1u32;
        }
    }
    let mantissa = u64::try_from(&kept).ok()?;
    let scale = i64::from(exponent) + drop;
    // mantissa ≤ 2^53; the product below is exact, done in two factors because 2^scale alone may overflow or vanish.
    let value = scale_by_power_of_two(mantissa as f64, scale);
    value.is_finite().then_some(sign * value)
}

fn scale_by_power_of_two(mut x: f64, mut power: i64) -> f64 {
    while power > 1000 {
        x *= f64::from_bits((1000 + 1023) << 52);
        power -= 1000;
        if x.is_infinite() {
            return x;
        }
    }
    while power < -1000 {
        // Exact: the result of `round` is never below the subnormals' grid.
        x *= f64::from_bits((1023 - 1000) << 52);
        power += 1000;
    }
    x * f64::from_bits(((power + 1023) as u64) << 52)
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
        round(&total, -1074)
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
        let (mut s, mut q) = (ExactSum::default(), ExactSum::default());
        for x in values {
            s.add(x, false);
            q.add_square(x, false);
        }
        assert_eq!(s.variance_numerator(&q, 4).map(|n| n / 12.0), Some(30.0));
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
            let mut q = ExactSum::default();
            for x in keep.iter().chain(&gone) { s.add(*x, false); q.add_square(*x, false); }
            for x in &gone { s.add(*x, true); q.add_square(*x, true); }
            let mut q2 = ExactSum::default();
            keep.iter().for_each(|x| q2.add_square(*x, false));
            prop_assert_eq!(s.round().map(f64::to_bits), reference(&keep).map(f64::to_bits));
            prop_assert_eq!(q.round().map(f64::to_bits), q2.round().map(f64::to_bits));
        }
    }
}
