//! The wide form of an exact sum, for any doubles whatever.
//!
//! A sum is a wide fixed-point integer: lanes of 32 bits (held in 64, so carries wait), lane `i` weighing
//! `2^(32·i − BIAS)`. Adding and removing are exact, so a window can slide for years and nothing drifts, and two
//! states that saw the same events in different orders are equal as numbers. Only the lanes in use are kept: a few for
//! ordinary data. The idea of a long accumulator is Kulisch's; the result equals Python's `math.fsum`.

use super::scaled::Scaled;
use num_bigint::{BigInt, BigUint, Sign};
use serde::{Deserialize, Serialize};

/// Lane 0 weighs `2^-BIAS`: below the fourth power of the smallest subnormal, `2^-4296`.
const BIAS: i32 = 4320;

/// Carries are resolved at the latest after this many additions of less than `2^32` to a lane of 63 bits.
const CARRY_EVERY: u32 = 1 << 30;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lanes {
    /// Index of `lanes[0]`.
    first: i32,
    lanes: Vec<i64>,
    additions: u32,
}

impl Lanes {
    /// Adds the exact second, third or fourth power of a finite `x`, or takes it away.
    pub fn add_power(&mut self, x: f64, power: u32, retract: bool) {
        let Some((mantissa, exponent)) = parts(x) else { return };
        let square = u128::from(mantissa) * u128::from(mantissa);
        match power {
            2 => self.add_scaled(square, 2 * exponent, retract),
            3 => self.add_wide(square, u128::from(mantissa), 3 * exponent, x.is_sign_negative() != retract),
            _ => self.add_wide(square, square, 4 * exponent, retract),
        }
    }

    /// Adds the exact product of finite `x` and `y`, or takes it away.
    pub fn add_product(&mut self, x: f64, y: f64, retract: bool) {
        if let (Some((x_mantissa, x_exponent)), Some((y_mantissa, y_exponent))) = (parts(x), parts(y)) {
            let negative = (x.is_sign_negative() != y.is_sign_negative()) != retract;
            self.add_scaled(u128::from(x_mantissa) * u128::from(y_mantissa), x_exponent + y_exponent, negative);
        }
    }

    /// Adds `±a · b · 2^exponent`; both have at most 106 bits.
    fn add_wide(&mut self, a: u128, b: u128, exponent: i32, negative: bool) {
        const HALF: u32 = 53;
        let low = |x: u128| x & ((1 << HALF) - 1);
        let (a, b) = ((a >> HALF, low(a)), (b >> HALF, low(b)));
        for (product, halves) in [(a.1 * b.1, 0), (a.0 * b.1, 1), (a.1 * b.0, 1), (a.0 * b.0, 2)] {
            if product != 0 {
                self.add_scaled(product, exponent + halves * HALF as i32, negative);
            }
        }
    }

    /// Adds `±magnitude · 2^exponent`; `magnitude` has at most 127 bits.
    pub(super) fn add_scaled(&mut self, magnitude: u128, exponent: i32, negative: bool) {
        let shift = exponent + BIAS;
        let (lane, bits) = (shift.div_euclid(32), shift.rem_euclid(32));
        // At most 127 + 31 bits: five lanes.
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

    /// The sum.
    pub fn exact(&self) -> Scaled {
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
        Scaled { integer: BigInt::from_biguint(sign, BigUint::new(digits)), exponent: self.first * 32 - BIAS }
    }

    pub fn is_zero(&self) -> bool {
        self.lanes.iter().all(|lane| *lane == 0)
    }
}

/// `x` as mantissa times `2^exponent`; `None` for zero and for what is not finite.
pub(super) fn parts(x: f64) -> Option<(u64, i32)> {
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
