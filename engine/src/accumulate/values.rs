//! The distinct values of a frame and how often each is there: exact where a running number would not do.

use super::{Accumulator, Function};
use crate::{cell::Cell, value::Value};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemark_planner::feature::{Aggregate, ITEMS_MAX, Parameter};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Values {
    each: BTreeMap<Value, u32>,
    count: u64,
}

impl Values {
    pub fn add(&mut self, value: Value, retract: bool) {
        if !retract {
            *self.each.entry(value).or_insert(0) += 1;
            self.count += 1;
        } else if let Some(times) = self.each.get_mut(&value) {
            self.count -= 1;
            *times -= 1;
            if *times == 0 {
                self.each.remove(&value);
            }
        }
    }

    /// Bytes on the heap, nearly: nodes of the tree are two thirds full.
    pub fn memory(&self) -> usize {
        size_of::<Values>() + self.each.len() * (size_of::<(Value, u32)>() * 3 / 2)
    }

    /// The aggregate's value, and whether it left its type's range. NaN is the greatest value.
    pub fn evaluate(&self, of: &Function) -> (Value, bool) {
        use Aggregate as A;
        if matches!(of.function, A::CountDistinct | A::ApproxCountDistinct) {
            return (Value::Int(self.each.len() as i64), false);
        }
        let (Some(last), true) = (self.count.checked_sub(1), self.count > 0) else { return (Value::Null, false) };
        let value = match (of.function, &of.parameter) {
            (A::SumDistinct | A::AvgDistinct, _) => return self.once(of),
            // The least of those that are there most often, as PostgreSQL's.
            (A::Mode, _) => {
                let most = self.each.values().max();
                self.each.iter().find(|(_, times)| Some(*times) == most).map(|(value, _)| value.clone())
            }
            (A::Min, _) => self.each.keys().next().cloned(),
            (A::Max, _) => self.each.keys().next_back().cloned(),
            (A::Median, _) => self.continuous(0.5, last, of.arg.as_ref()),
            (A::PercentileCont | A::ApproxPercentile, Parameter::Fraction(p)) => {
                self.continuous(*p, last, of.arg.as_ref())
            }
            (A::PercentileDisc, Parameter::Fraction(p)) => {
                let rank = (p * self.count as f64).ceil() as u64;
                self.at(rank.saturating_sub(1)).cloned()
            }
            (A::Entropy, _) => Some(self.entropy()),
            (A::Histogram, _) if self.each.len() as u64 > ITEMS_MAX => return (Value::Null, true),
            (A::Histogram, _) => Some(self.histogram()),
            (A::ApproxTopK, Parameter::Number(k)) => Some(most_frequent(self.each.iter().map(|(v, n)| (v, *n)), *k)),
            (A::TopK, Parameter::Number(k)) => Some(list(self.each.iter().rev(), *k)),
            (A::BottomK, Parameter::Number(k)) => Some(list(self.each.iter(), *k)),
            _ => None,
        };
        (value.unwrap_or_default(), false)
    }

    /// The value in place `rank` of all, from 0.
    fn at(&self, rank: u64) -> Option<&Value> {
        let mut behind = 0;
        let found = self.each.iter().find(|(_, times)| {
            behind += u64::from(**times);
            behind > rank
        });
        found.map(|(value, _)| value)
    }

    /// PostgreSQL's `percentile_cont`: between the two nearest values, linearly.
    fn continuous(&self, p: f64, last: u64, ty: Option<&DataType>) -> Option<Value> {
        let place = p * last as f64;
        let low = double(self.at(place.floor() as u64)?, ty)?;
        let high = double(self.at(place.ceil() as u64)?, ty)?;
        let between = place - place.floor();
        Some(Value::float(if between == 0.0 { low } else { low + between * (high - low) }))
    }

    /// In bits: `Σ p·log₂(1/p)` over the shares `p` of the values, in their order. Every term is at least 0, and 0 for one
    /// value alone.
    fn entropy(&self) -> Value {
        let all = self.count as f64;
        let terms = self.each.values().map(|times| f64::from(*times)).map(|times| times / all * (all / times).log2());
        Value::float(terms.sum())
    }

    /// A JSON object of values and how often each is there, in their order, spaced as PostgreSQL prints `jsonb`.
    fn histogram(&self) -> Value {
        let fields = self.each.iter().map(|(value, times)| {
            let name = match value {
                Value::Text(text) => serde_json::Value::from(text.as_ref()).to_string(),
                Value::Int(i) => format!("\"{i}\""),
                Value::Bool(b) => format!("\"{b}\""),
                _ => "\"\"".to_string(),
            };
            format!("{name}: {times}")
        });
        Value::Text(format!("{{{}}}", fields.collect::<Vec<_>>().join(", ")).into())
    }

    /// `sum` or `avg` of every value once.
    fn once(&self, of: &Function) -> (Value, bool) {
        let function = if of.function == Aggregate::SumDistinct { Aggregate::Sum } else { Aggregate::Avg };
        let of = Function { function, ..of.clone() };
        let mut total = of.accumulator();
        for (index, value) in (0..).zip(self.each.keys()) {
            total.enter(&of, index, Cell::of(value));
        }
        total.evaluate(&of)
    }
}

fn list<'a>(each: impl Iterator<Item = (&'a Value, &'a u32)>, most: u64) -> Value {
    let values = each.flat_map(|(value, times)| std::iter::repeat_n(value, *times as usize));
    Value::List(values.take(most as usize).cloned().collect())
}

/// The `most` values that are there most often; of several as often, the least first. `each` is in the order of the values.
pub(super) fn most_frequent<'a, N: Ord>(each: impl Iterator<Item = (&'a Value, N)>, most: u64) -> Value {
    let mut each: Vec<(&Value, N)> = each.collect();
    each.sort_by(|(_, a), (_, b)| b.cmp(a));
    Value::List(each.into_iter().take(most as usize).map(|(value, _)| value.clone()).collect())
}

/// A number as the nearest double.
pub(super) fn double(value: &Value, ty: Option<&DataType>) -> Option<f64> {
    match (value, ty) {
        (Value::Int(i), _) => Some(*i as f64),
        (Value::Float(x), _) => Some(*x),
        (Value::Decimal(d), Some(DataType::Decimal128(_, scale))) => {
            format!("{}e{}", d.get(), -i32::from(*scale)).parse().ok()
        }
        _ => None,
    }
}

impl Accumulator {
    /// Adds one value that has no event.
    fn enter(&mut self, of: &Function, index: u64, cell: Cell<'_>) {
        self.apply(of, super::Move::Enter, index, |_, _| cell);
    }
}
