//! `vector_sum(a)` and `vector_avg(a)`: arrays of numbers added up item by item, each exactly.
//!
//! Arrays of different lengths have no sum. They are added up by their length, so that the value is there again as soon as
//! those of all lengths but one have left.

use super::{Function, float::FloatSum, step};
use crate::{cell::Cell, value::Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemark_catalog::vector::is_vector;
use tidemark_planner::feature::{Aggregate, VECTOR_MAX};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Vectors {
    by_length: BTreeMap<u64, OfLength>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct OfLength {
    arrays: u64,
    /// The sum of each place; empty for arrays that are too long.
    lanes: Vec<FloatSum>,
}

impl Vectors {
    pub fn add(&mut self, items: &[Value], retract: bool) {
        let length = items.len() as u64;
        let of_length = self.by_length.entry(length).or_default();
        step(&mut of_length.arrays, retract);
        if of_length.arrays == 0 {
            self.by_length.remove(&length);
            return;
        }
        if items.len() > VECTOR_MAX {
            return;
        }
        of_length.lanes.resize_with(items.len(), FloatSum::default);
        for (lane, item) in of_length.lanes.iter_mut().zip(items) {
            if let Some(x) = Cell::of(item).as_float() {
                lane.add(x, retract);
            }
        }
    }

    /// Bytes on the heap, nearly.
    pub fn memory(&self) -> usize {
        let of_length = |of: &OfLength| size_of::<OfLength>() * 3 / 2 + of.lanes.capacity() * size_of::<FloatSum>();
        size_of::<Vectors>() + self.by_length.values().map(of_length).sum::<usize>()
    }

    /// The array, and whether it cannot be: of several lengths, too long, or with an item out of range. Of vectors it is a vector,
    /// whose numbers are rounded to 32 bits: they are the same in memory and in history.
    pub fn evaluate(&self, of: &Function) -> (Value, bool) {
        let mut lengths = self.by_length.iter();
        let (length, of_length) = match (lengths.next(), lengths.next()) {
            (None, _) => return (Value::Null, false),
            (Some(_), Some(_)) => return (Value::Null, true),
            (Some(only), None) => only,
        };
        if of_length.lanes.len() as u64 != *length {
            return (Value::Null, true);
        }
        let is_vector = is_vector(&of.ty);
        let item = |lane: &FloatSum| {
            let x = match (lane.count, lane.sum()) {
                (0, _) => return Some(Value::Null),
                (n, Some(sum)) if of.function == Aggregate::VectorAvg => sum / n as f64,
                (_, sum) => sum?,
            };
            match is_vector {
                false => Some(Value::float(x)),
                true => Some(x as f32).filter(|x| x.is_finite()).map(|x| Value::float(f64::from(x))),
            }
        };
        match of_length.lanes.iter().map(item).collect::<Option<Vec<Value>>>() {
            Some(items) => (Value::List(items.into()), false),
            None => (Value::Null, true),
        }
    }
}
