//! Exact arithmetic with sums, rounded once at the end.

use num_bigint::{BigInt, BigUint, Sign};
use std::ops::{Add, Mul, Sub};

/// `integer · 2^exponent`.
#[derive(Debug, Clone, Default)]
pub struct Scaled {
    pub(super) integer: BigInt,
    pub(super) exponent: i32,
}

impl Scaled {
    pub fn times(self, n: u64) -> Scaled {
        Scaled { integer: self.integer * n, exponent: self.exponent }
    }

    /// The nearest double; `None` beyond the greatest finite one.
    pub fn round(&self) -> Option<f64> {
        round(&self.integer, self.exponent)
    }

    fn combine(self, other: Scaled, with: impl Fn(BigInt, BigInt) -> BigInt) -> Scaled {
        let exponent = self.exponent.min(other.exponent);
        let at = |term: Scaled| term.integer << (term.exponent - exponent);
        Scaled { integer: with(at(self), at(other)), exponent }
    }
}

impl Mul for &Scaled {
    type Output = Scaled;

    fn mul(self, other: &Scaled) -> Scaled {
        Scaled { integer: &self.integer * &other.integer, exponent: self.exponent + other.exponent }
    }
}

impl Add for Scaled {
    type Output = Scaled;

    fn add(self, other: Scaled) -> Scaled {
        self.combine(other, |a, b| a + b)
    }
}

impl Sub for Scaled {
    type Output = Scaled;

    fn sub(self, other: Scaled) -> Scaled {
        self.combine(other, |a, b| a - b)
    }
}

/// `integer · 2^exponent` as the nearest double, ties to even; `None` beyond the greatest finite double.
pub(super) fn round(integer: &BigInt, exponent: i32) -> Option<f64> {
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
