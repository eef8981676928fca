//! `increase(x)`: by how much a counter has gone up over the events of a frame, one that may begin again at zero.
//!
//! From each reading to the next it is the difference, or the whole new reading where that is less than the one before:
//! the counter was reset. Differences are taken away as they were added, when the earlier of the two leaves.
//!
//! ```text
//!   readings   10   14   17    2    5          increase  4 + 3 + 2 + 3 = 12
//! ```

use super::{Function, float::FloatSum};
use crate::{cell::Cell, value::Value};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, collections::VecDeque};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Increase {
    /// The events of a frame that events leave, by their indices in the ring.
    readings: VecDeque<u64>,
    /// The latest reading of a frame that they do not leave.
    latest: Option<Value>,
    /// How many steps from one reading to the next the totals are of.
    steps: u64,
    whole: i128,
    real: FloatSum,
}

impl Increase {
    pub fn apply<'a>(
        &mut self,
        unbounded: bool,
        cell: Cell<'_>,
        index: u64,
        read: impl Fn(u64) -> Cell<'a>,
        retract: bool,
    ) {
        if retract {
            if self.readings.front() != Some(&index) {
                return;
            }
            self.readings.pop_front();
            if let Some(next) = self.readings.front() {
                self.step(cell, read(*next), true);
            }
        } else if unbounded {
            if let Some(latest) = self.latest.take() {
                self.step(Cell::of(&latest), cell, false);
            }
            self.latest = Some(cell.to_value());
        } else {
            if let Some(latest) = self.readings.back() {
                self.step(read(*latest), cell, false);
            }
            self.readings.push_back(index);
        }
    }

    pub fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        self.readings.iter_mut().for_each(|index| *index = number(*index));
    }

    fn step(&mut self, from: Cell<'_>, to: Cell<'_>, retract: bool) {
        super::step(&mut self.steps, retract);
        let is_reset = to.order(from) == Ordering::Less;
        match (from, to) {
            (Cell::Int(from), Cell::Int(to)) => {
                let up = i128::from(to) - if is_reset { 0 } else { i128::from(from) };
                self.whole += if retract { -up } else { up };
            }
            (Cell::Float(_), Cell::Float(to)) if is_reset => self.real.add(to, retract),
            // Both by themselves, so that the difference is not rounded.
            (Cell::Float(from), Cell::Float(to)) if from.is_finite() && to.is_finite() => {
                self.real.add(to, retract);
                self.real.add(-from, retract);
            }
            (Cell::Float(from), Cell::Float(to)) => self.real.add(to - from, retract),
            _ => {}
        }
    }

    /// Bytes on the heap, nearly.
    pub fn memory(&self) -> usize {
        size_of::<Increase>() + self.readings.capacity() * size_of::<u64>()
    }

    /// `None`: out of range.
    pub fn evaluate(&self, of: &Function) -> Option<Value> {
        match &of.arg {
            _ if self.steps == 0 => Some(Value::Null),
            Some(ty) if ty.is_floating() => self.real.sum().map(Value::float),
            _ => i64::try_from(self.whole).ok().map(Value::Int),
        }
    }
}
