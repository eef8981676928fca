//! One aggregate over one frame of one key: events are added as they enter and taken away as they leave.
//!
//! Every accumulator is order-insensitive as a multiset (or reads the ring by position), so batches, parallelism,
//! restores and late insertions cannot show in a value.

mod hll;

use crate::{
    exact::{ExactSum, SquareSum},
    key::Cell,
    value::Value,
};
use arrow::datatypes::{DataType, i256};
use hll::HyperLogLog;
use serde::{Deserialize, Serialize};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};
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
    FloatSum(FloatSum),
    /// Sum and sum of squares.
    Moments(Box<(FloatSum, SquareSum)>),
    /// Min and max over frames that events leave: the events that may still be the extreme, first in first out, each
    /// better than all after it; their indices in the ring. The front is the extreme. Amortised, one comparison an event.
    Monotonic(VecDeque<u64>),
    /// Values and how often each: distinct counts over frames that events leave.
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

/// How an event comes to an accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Enter,
    Leave,
}

impl FloatSum {
    fn add(&mut self, x: f64, retract: bool) {
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
    fn sum(&self) -> Option<f64> {
        match self.special.as_deref() {
            None => self.finite.round(),
            Some(Special { nan: 0, negative_infinite: 0, .. }) => Some(f64::INFINITY),
            Some(Special { nan: 0, infinite: 0, .. }) => Some(f64::NEG_INFINITY),
            Some(_) => Some(f64::NAN),
        }
    }
}

fn step(n: &mut u64, retract: bool) {
    *n = if retract { n.saturating_sub(1) } else { *n + 1 };
}

impl Accumulator {
    /// `unbounded`: events never leave the frame one by one.
    pub fn new(function: Aggregate, arg: Option<&DataType>, unbounded: bool) -> Accumulator {
        use Aggregate as A;
        match function {
            A::Count => Accumulator::Count(0),
            A::Sum | A::Avg => match arg {
                Some(DataType::Float32 | DataType::Float64) => Accumulator::FloatSum(FloatSum::default()),
                Some(DataType::Decimal128(..)) => Accumulator::DecimalSum { count: 0, sum: ([0; 16], [0; 16]) },
                _ => Accumulator::IntSum { count: 0, sum: 0 },
            },
            A::VarSamp | A::VarPop | A::StddevSamp | A::StddevPop => Accumulator::Moments(Box::default()),
            A::Min | A::Max if unbounded => Accumulator::Extreme(None),
            A::Min | A::Max => Accumulator::Monotonic(VecDeque::new()),
            A::FirstValue if unbounded => Accumulator::First(None),
            A::FirstValue | A::LastValue => Accumulator::Positional,
            A::BoolAnd | A::BoolOr => Accumulator::Bools { trues: 0, falses: 0 },
            A::ApproxCountDistinct if unbounded => Accumulator::Distinct(Box::default()),
            A::ApproxCountDistinct => Accumulator::Multiset(BTreeMap::new()),
        }
    }

    /// Adds the argument of an event that enters (or takes it away as it leaves). The caller has applied FILTER;
    /// `count(*)` is given a non-NULL cell. `index` is the event's, and `argument` reads that of another event.
    pub fn apply<'a>(
        &mut self,
        function: Aggregate,
        cell: Cell<'a>,
        change: Move,
        index: u64,
        argument: impl Fn(u64) -> Cell<'a>,
    ) {
        let retract = change == Move::Leave;
        if cell.is_null() && !matches!(self, Accumulator::First(_)) {
            return;
        }
        match self {
            Accumulator::Count(n) => step(n, retract),
            Accumulator::IntSum { count, sum } => {
                if let Cell::Int(x) = cell {
                    step(count, retract);
                    *sum += if retract { -i128::from(x) } else { i128::from(x) };
                }
            }
            Accumulator::DecimalSum { count, sum } => {
                if let Cell::Decimal(x) = cell {
                    step(count, retract);
                    let (old, x) = (wide(sum), i256::from_i128(x));
                    *sum = halves(if retract { old.wrapping_sub(x) } else { old.wrapping_add(x) });
                }
            }
            Accumulator::FloatSum(sum) => {
                if let Some(x) = cell.as_float() {
                    sum.add(x, retract);
                }
            }
            Accumulator::Moments(moments) => {
                if let Some(x) = cell.as_float() {
                    moments.0.add(x, retract);
                    if x.is_finite() {
                        moments.1.add_square(x, retract);
                    }
                }
            }
            Accumulator::Monotonic(candidates) if retract => {
                if candidates.front() == Some(&index) {
                    candidates.pop_front();
                }
            }
            Accumulator::Monotonic(candidates) => {
                while candidates.back().is_some_and(|last| !better(function, argument(*last), cell)) {
                    candidates.pop_back();
                }
                candidates.push_back(index);
            }
            Accumulator::Multiset(values) => {
                let value = cell.to_value();
                if !retract {
                    *values.entry(value).or_insert(0) += 1;
                } else if let Some(n) = values.get_mut(&value) {
                    *n -= 1;
                    if *n == 0 {
                        values.remove(&value);
                    }
                }
            }
            Accumulator::Extreme(best) => {
                if best.as_ref().is_none_or(|b| better(function, cell, Cell::of(b))) {
                    *best = Some(cell.to_value());
                }
            }
            Accumulator::Bools { trues, falses } => match cell {
                Cell::Bool(true) => step(trues, retract),
                Cell::Bool(false) => step(falses, retract),
                _ => {}
            },
            Accumulator::First(first) => {
                if first.is_none() {
                    *first = Some(cell.to_value());
                }
            }
            Accumulator::Positional => {}
            Accumulator::Distinct(sketch) => sketch.add(cell.to_value().stable_hash()),
        }
    }

    /// The aggregate's value, and whether it left its type's range (then it is NULL). `arg` is the argument's type,
    /// `ty` the result's. What is read from the ring (`Positional`, `Monotonic`) is answered by the caller.
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
                if sum.special.is_some() {
                    return (Value::float(f64::NAN), false);
                }
                let divisor = if sample { n as f64 * (n - 1) as f64 } else { n as f64 * n as f64 };
                let variance = sum.finite.variance_numerator(squares, n).map(|numerator| numerator / divisor);
                in_range(variance.map(|v| match function {
                    A::StddevSamp | A::StddevPop => Value::float(v.sqrt()),
                    _ => Value::float(v),
                }))
            }
            Accumulator::Multiset(values) => (Value::Int(values.len() as i64), false),
            Accumulator::Extreme(best) => (best.clone().unwrap_or_default(), false),
            Accumulator::Bools { trues: 0, falses: 0 } => (Value::Null, false),
            Accumulator::Bools { trues, falses } => match function {
                A::BoolAnd => (Value::Bool(*falses == 0), false),
                _ => (Value::Bool(*trues > 0), false),
            },
            Accumulator::First(first) => (first.clone().unwrap_or_default(), false),
            Accumulator::Positional | Accumulator::Monotonic(_) => (Value::Null, false),
            Accumulator::Distinct(sketch) => (Value::Int(sketch.estimate() as i64), false),
        }
    }
}

/// Whether `a` is a better extreme than `b`.
fn better(function: Aggregate, a: Cell<'_>, b: Cell<'_>) -> bool {
    a.order(b) == if function == Aggregate::Min { Ordering::Less } else { Ordering::Greater }
}

fn wide(halves: &([u8; 16], [u8; 16])) -> i256 {
    i256::from_parts(u128::from_le_bytes(halves.0), i128::from_le_bytes(halves.1))
}

fn halves(value: i256) -> ([u8; 16], [u8; 16]) {
    let (low, high) = value.to_parts();
    (low.to_le_bytes(), high.to_le_bytes())
}
