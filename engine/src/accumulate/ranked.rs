//! `top_k_by(x, y, k)` and `bottom_k_by`: the `x` of the events with the greatest or least `y`.
//!
//! Events are kept in the order of (`y`, age): all of a frame that events leave, the best `k` of one that they do not.

use super::Function;
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemark_planner::feature::{Aggregate, Parameter};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ranked {
    /// `x` by `y` and the event's place among its equals, where the latest is the best.
    each: BTreeMap<(Value, u64), Value>,
}

impl Ranked {
    pub fn apply(&mut self, of: &Function, y: Value, index: u64, x: impl FnOnce() -> Value, retract: bool) {
        let greatest = of.function == Aggregate::TopKBy;
        // From the best on these go backwards, or forwards.
        let place = (y, if greatest { index } else { u64::MAX - index });
        if retract {
            self.each.remove(&place);
            return;
        }
        self.each.insert(place, x());
        if let (true, Parameter::Number(k)) = (of.unbounded, &of.parameter)
            && self.each.len() as u64 > *k
        {
            if greatest {
                self.each.pop_first()
            } else {
                self.each.pop_last()
            };
        }
    }

    pub fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        let each = std::mem::take(&mut self.each).into_iter();
        // Of a place among the least the index is counted from the end.
        let place = |place: u64| if place > u64::MAX / 2 { u64::MAX - number(u64::MAX - place) } else { number(place) };
        self.each = each.map(|((y, old), x)| ((y, place(old)), x)).collect();
    }

    /// Bytes on the heap, nearly: nodes of the tree are two thirds full.
    pub fn memory(&self) -> usize {
        size_of::<Ranked>() + self.each.len() * (size_of::<((Value, u64), Value)>() * 3 / 2)
    }

    pub fn evaluate(&self, of: &Function) -> Value {
        let Parameter::Number(k) = of.parameter else { return Value::Null };
        let items: Vec<Value> = match of.function {
            Aggregate::TopKBy => self.each.values().rev().take(k as usize).cloned().collect(),
            _ => self.each.values().take(k as usize).cloned().collect(),
        };
        if items.is_empty() { Value::Null } else { Value::List(items.into()) }
    }
}
