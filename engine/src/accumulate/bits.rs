//! AND, OR and XOR of integers over a frame that events leave: how many of them have each bit.

use super::float::step;
use serde::{Deserialize, Serialize};
use tidemark_planner::feature::Aggregate;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bits {
    count: u64,
    /// Of the 64 bits, the lowest first.
    ones: Box<[u32]>,
}

impl Default for Bits {
    fn default() -> Self {
        Bits { count: 0, ones: vec![0; 64].into() }
    }
}

impl Bits {
    pub fn add(&mut self, x: i64, retract: bool) {
        step(&mut self.count, retract);
        for (bit, ones) in self.ones.iter_mut().enumerate() {
            let one = (x >> bit & 1) as u32;
            *ones = if retract { ones.wrapping_sub(one) } else { ones.wrapping_add(one) };
        }
    }

    /// `None`: of no values.
    pub fn evaluate(&self, function: Aggregate) -> Option<i64> {
        let is_set = |ones: u32| match function {
            Aggregate::BitAnd => u64::from(ones) == self.count,
            Aggregate::BitOr => ones > 0,
            _ => ones % 2 == 1,
        };
        let bits = self.ones.iter().enumerate().map(|(bit, ones)| i64::from(is_set(*ones)) << bit);
        (self.count > 0).then(|| bits.fold(0, |all, bit| all | bit))
    }
}
