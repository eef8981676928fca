//! An exact sum of doubles beside what is not a number.

use crate::exact::{ExactSum, Scaled};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FloatSum {
    pub count: u64,
    finite: ExactSum,
    /// Hardly ever there.
    special: Option<Box<Special>>,
}

/// How many values are no finite numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Special {
    nan: u64,
    infinite: u64,
    negative_infinite: u64,
}

impl FloatSum {
    pub fn add(&mut self, x: f64, retract: bool) {
        step(&mut self.count, retract);
        if x.is_finite() {
            self.finite.add(x, retract);
            return;
        }
        let special = self.special.get_or_insert_default();
        step(
            match x {
                f64::INFINITY => &mut special.infinite,
                f64::NEG_INFINITY => &mut special.negative_infinite,
                _ => &mut special.nan,
            },
            retract,
        );
        if **special == Special::default() {
            self.special = None;
        }
    }

    /// PostgreSQL's rule for what is not a number, else the rounded exact sum; `None` out of range.
    pub fn sum(&self) -> Option<f64> {
        match self.special.as_deref() {
            None => self.finite.round(),
            Some(Special { nan: 0, negative_infinite: 0, .. }) => Some(f64::INFINITY),
            Some(Special { nan: 0, infinite: 0, .. }) => Some(f64::NEG_INFINITY),
            Some(_) => Some(f64::NAN),
        }
    }

    /// Whether all values are finite numbers.
    pub fn is_finite(&self) -> bool {
        self.special.is_none()
    }

    /// The sum of the finite values.
    pub fn exact(&self) -> Scaled {
        self.finite.exact()
    }
}

/// Counts an event that enters, or leaves.
pub fn step(n: &mut u64, retract: bool) {
    *n = if retract { n.saturating_sub(1) } else { *n + 1 };
}
