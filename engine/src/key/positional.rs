//! Aggregates that are read from the events of their frame, by position.

use super::{
    cursor::Bounds,
    ring::Ring,
    walk::{Fold, Walk},
};
use crate::{accumulate::Accumulator, value::Value};
use std::sync::Arc;
use tidemark_planner::feature::{Aggregate, ITEMS_MAX, Parameter};

impl Fold {
    /// The value at `at` over the events `bounds` of the ring, and whether it has more items than a value may have.
    pub(super) fn read(&self, walk: &Walk, ring: &Ring, bounds: Bounds, state: &Accumulator, at: i64) -> (Value, bool) {
        use Aggregate as A;
        let Some(arg) = self.arg else { return (Value::Null, false) };
        let Bounds { lo, hi, .. } = bounds;
        let layout = &walk.layout;
        let of = |index: u64| ring.cell(layout, index, arg).to_value();
        let is_there = |index: &u64| !walk.versions || ring.is_version(layout, *index, at);
        let counts = |index: &u64| {
            is_there(index) && self.filter.is_none_or(|filter| ring.cell(layout, *index, filter).is_true())
        };
        let most = match self.of.parameter {
            Parameter::Number(n) => n as usize,
            // One more than may be, to know that there are too many.
            _ => ITEMS_MAX as usize + 1,
        };
        let list = |indices: Vec<u64>| match indices.len() {
            0 => (Value::Null, false),
            n if n > ITEMS_MAX as usize => (Value::Null, true),
            _ => (Value::List(indices.into_iter().map(of).collect()), false),
        };
        match self.of.function {
            _ if lo >= hi => (Value::Null, false),
            A::FirstValue => ((lo..hi).find(is_there).map_or(Value::Null, of), false),
            A::LastValue => ((lo..hi).rev().find(is_there).map_or(Value::Null, of), false),
            A::NthValue => ((lo..hi).filter(counts).nth(most - 1).map_or(Value::Null, of), false),
            A::FirstK | A::ArrayAgg => list((lo..hi).filter(counts).take(most).collect()),
            A::LastK => {
                let mut last: Vec<u64> = (lo..hi).rev().filter(counts).take(most).collect();
                last.reverse();
                list(last)
            }
            A::StringAgg => {
                let texts = (lo..hi).filter(counts).map(of).filter(|text| !text.is_null());
                let texts: Vec<Value> = texts.take(most).collect();
                let texts: Vec<&str> = texts.iter().filter_map(Value::as_text).collect();
                match (&self.of.parameter, texts.len()) {
                    (_, 0) => (Value::Null, false),
                    (_, n) if n > ITEMS_MAX as usize => (Value::Null, true),
                    (Parameter::Text(between), _) => (Value::Text(Arc::from(texts.join(between))), false),
                    _ => (Value::Null, false),
                }
            }
            _ => match state {
                Accumulator::Monotonic(candidates) => (candidates.front().copied().map_or(Value::Null, of), false),
                _ => (Value::Null, false),
            },
        }
    }
}
