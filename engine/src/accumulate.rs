//! One aggregate over one frame of one key: events are added as they enter and taken away as they leave.
//!
//! Every accumulator is order-insensitive as a multiset (or reads the ring by position), so batches, parallelism,
//! restores and late insertions cannot show in a value.

mod hll;

use crate::{exact::ExactSum, value::Value};
use arrow::datatypes::{DataType, i256};
use hll::HyperLogLog;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemark_planner::feature::Aggregate;

/// The running state. `Bounded` variants can forget single events; those of unbounded frames need not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Accumulator {
    Count(u64),
    IntSum {
        count: u64,
        sum: i128,
    },
    /// Sum of decimals as 256-bit integers in units of the scale: low and high half.
    DecimalSum {
        count: u64,
        sum: ([u8; 16], [u8; 16]),
    },
    FloatSum(Box<FloatSum>),
    /// Sum and sum of squares.
    Moments(Box<(FloatSum, ExactSum)>),
    /// Values and how often each: min, max and distinct counts over frames that events leave.
    Multiset(BTreeMap<Value, u32>),
    /// The least or greatest value of an unbounded frame.
    Extreme(Option<Value>),
    Bools {
        trues: u64,
        falses: u64,
    },
    /// The first value of an unbounded frame.
    First(Option<Value>),
    /// Read from the ring by position.
    Positional,
    Distinct(Box<HyperLogLog>),
}

/// An exact sum beside what is not a number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FloatSum {
    count: u64,
    finite: ExactSum,
    nan: u64,
    infinite: u64,
    negative_infinite: u64,
}

impl FloatSum {
    fn add(&mut self, x: f64, retract: bool) {
        let count = |n: &mut u64| *n = if retract { n.saturating_sub(1) } else { *n + 1 };
        count(&mut self.count);
        if x.is_nan() {
            count(&mut self.nan);
        } else if x == f64::INFINITY {
            count(&mut self.infinite);
        } else if x == f64::NEG_INFINITY {
            count(&mut self.negative_infinite);
        } else {
            self.finite.add(x, retract);
        }
    }

    fn is_finite(&self) -> bool {
        self.nan == 0 && self.infinite == 0 && self.negative_infinite == 0
    }

    /// PostgreSQL's rule for what is not a number, else the rounded exact sum; `None` out of range.
    fn sum(&self) -> Option<f64> {
        match (self.nan, self.infinite, self.negative_infinite) {
            (0, 0, 0) => self.finite.round(),
            (0, _, 0) => Some(f64::INFINITY),
            (0, 0, _) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }
}

impl Accumulator {
    /// `unbounded`: events never leave the frame one by one.
    pub fn new(function: Aggregate, arg: Option<&DataType>, unbounded: bool) -> Accumulator {
        use Aggregate as A;
        match function {
            A::Count => Accumulator::Count(0),
            A::Sum | A::Avg => match arg {
                Some(DataType::Float32 | DataType::Float64) => Accumulator::FloatSum(Box::default()),
                Some(DataType::Decimal128(..)) => Accumulator::DecimalSum { count: 0, sum: ([0; 16], [0; 16]) },
                _ => Accumulator::IntSum { count: 0, sum: 0 },
            },
            A::VarSamp | A::VarPop | A::StddevSamp | A::StddevPop => Accumulator::Moments(Box::default()),
            A::Min | A::Max if unbounded => Accumulator::Extreme(None),
            A::Min | A::Max => Accumulator::Multiset(BTreeMap::new()),
            A::FirstValue if unbounded => Accumulator::First(None),
            A::FirstValue | A::LastValue => Accumulator::Positional,
            A::BoolAnd | A::BoolOr => Accumulator::Bools { trues: 0, falses: 0 },
            A::ApproxCountDistinct if unbounded => Accumulator::Distinct(Box::default()),
            A::ApproxCountDistinct => Accumulator::Multiset(BTreeMap::new()),
        }
    }

    /// Adds the argument of an event that enters (or takes it away as it leaves). The caller has applied FILTER;
    /// `count(*)` is given a non-NULL value.
    pub fn add(&mut self, function: Aggregate, value: &Value, retract: bool) {
        if value.is_null() && !matches!(self, Accumulator::First(_)) {
            return;
        }
        let step = |n: &mut u64| *n = if retract { n.saturating_sub(1) } else { *n + 1 };
        match self {
            Accumulator::Count(n) => step(n),
            Accumulator::IntSum { count, sum } => {
                if let Value::Int(x) = value {
                    step(count);
                    *sum += if retract { -i128::from(*x) } else { i128::from(*x) };
                }
            }
            Accumulator::DecimalSum { count, sum } => {
                if let Value::Decimal(x) = value {
                    step(count);
                    let (old, x) = (wide(sum), i256::from_i128(*x));
                    *sum = halves(if retract { old.wrapping_sub(x) } else { old.wrapping_add(x) });
                }
            }
            Accumulator::FloatSum(sum) => {
                if let Some(x) = as_float(value) {
                    sum.add(x, retract);
                }
            }
            Accumulator::Moments(moments) => {
                if let Some(x) = as_float(value) {
                    moments.0.add(x, retract);
                    if x.is_finite() {
                        moments.1.add_square(x, retract);
                    }
                }
            }
            Accumulator::Multiset(values) => {
                if !retract {
                    *values.entry(value.clone()).or_insert(0) += 1;
                } else if let Some(n) = values.get_mut(value) {
                    *n -= 1;
                    if *n == 0 {
                        values.remove(value);
                    }
                }
            }
            Accumulator::Extreme(best) => {
                let better = match best {
                    None => true,
                    Some(b) if function == Aggregate::Min => value < b,
                    Some(b) => value > b,
                };
                if better {
                    *best = Some(value.clone());
                }
            }
            Accumulator::Bools { trues, falses } => match value {
                Value::Bool(true) => step(trues),
                Value::Bool(false) => step(falses),
                _ => {}
            },
            Accumulator::First(first) => {
                if first.is_none() {
                    *first = Some(value.clone());
                }
            }
            Accumulator::Positional => {}
            Accumulator::Distinct(sketch) => sketch.add(value.stable_hash()),
        }
    }

    /// The aggregate's value, and whether it left its type's range (then it is NULL). `arg` is the argument's type,
    /// `ty` the result's. Positional aggregates are answered by the caller.
    pub fn evaluate(&self, function: Aggregate, arg: Option<&DataType>, ty: &DataType) -> (Value, bool) {
        use Aggregate as A;
        let in_range = |v: Option<Value>| match v {
            Some(v) => (v, false),
            None => (Value::Null, true),
        };
        match self {
            Accumulator::Count(n) => (Value::Int(*n as i64), false),
            Accumulator::IntSum { count: 0, .. } | Accumulator::DecimalSum { count: 0, .. } => (Value::Null, false),
            Accumulator::IntSum { count, sum } => match function {
                A::Avg => (Value::float(*sum as f64 / *count as f64), false),
                _ => in_range(i64::try_from(*sum).ok().map(Value::Int)),
            },
            Accumulator::DecimalSum { count, sum } => {
                let sum = wide(sum);
                let value = match (function, arg, ty) {
                    (A::Avg, Some(DataType::Decimal128(_, from)), DataType::Decimal128(_, to)) => {
                        // Truncated towards zero at the result's scale, as DataFusion does.
                        let up = i256::from_i128(10i128.pow(u32::from((to - from).max(0).unsigned_abs())));
                        sum.checked_mul(up).and_then(|s| s.checked_div(i256::from_i128(i128::from(*count))))
                    }
                    _ => Some(sum),
                };
                const LIMIT: i128 = 10i128.pow(38);
                in_range(value.and_then(|v| v.to_i128()).filter(|v| v.abs() < LIMIT).map(Value::Decimal))
            }
            Accumulator::FloatSum(sum) if sum.count == 0 => (Value::Null, false),
            Accumulator::FloatSum(sum) => match function {
                A::Avg => in_range(sum.sum().map(|s| Value::float(s / sum.count as f64))),
                _ => in_range(sum.sum().map(Value::float)),
            },
            Accumulator::Moments(moments) => {
                let (sum, squares) = moments.as_ref();
                let n = sum.count;
                let sample = matches!(function, A::VarSamp | A::StddevSamp);
                if n == 0 || (sample && n == 1) {
                    return (Value::Null, false);
                }
                if !sum.is_finite() {
                    return (Value::float(f64::NAN), false);
                }
                let divisor = if sample { n as f64 * (n - 1) as f64 } else { n as f64 * n as f64 };
                let variance = sum.finite.variance_numerator(squares, n).map(|numerator| numerator / divisor);
                in_range(variance.map(|v| match function {
                    A::StddevSamp | A::StddevPop => Value::float(v.sqrt()),
                    _ => Value::float(v),
                }))
            }
            Accumulator::Multiset(values) => match function {
                A::Min => (values.first_key_value().map_or(Value::Null, |(v, _)| v.clone()), false),
                A::Max => (values.last_key_value().map_or(Value::Null, |(v, _)| v.clone()), false),
                _ => (Value::Int(values.len() as i64), false),
            },
            Accumulator::Extreme(best) => (best.clone().unwrap_or_default(), false),
            Accumulator::Bools { trues: 0, falses: 0 } => (Value::Null, false),
            Accumulator::Bools { trues, falses } => match function {
                A::BoolAnd => (Value::Bool(*falses == 0), false),
                _ => (Value::Bool(*trues > 0), false),
            },
            Accumulator::First(first) => (first.clone().unwrap_or_default(), false),
            Accumulator::Positional => (Value::Null, false),
            Accumulator::Distinct(sketch) => (Value::Int(sketch.estimate() as i64), false),
        }
    }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) => Some(*x),
        Value::Int(i) => Some(*i as f64),
        _ => None,
    }
}

fn wide(halves: &([u8; 16], [u8; 16])) -> i256 {
    i256::from_parts(u128::from_le_bytes(halves.0), i128::from_le_bytes(halves.1))
}

fn halves(value: i256) -> ([u8; 16], [u8; 16]) {
    let (low, high) = value.to_parts();
    (low.to_le_bytes(), high.to_le_bytes())
}
