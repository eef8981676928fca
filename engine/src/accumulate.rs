//! One aggregate over one frame of one key: events are added as they enter and taken away as they leave.
//!
//! Every accumulator is order-insensitive as a multiset (or reads the ring by position), so batches, parallelism,
//! restores and late insertions cannot show in a value.

mod bits;
mod decayed;
mod float;
mod frequent;
mod hll;
mod increase;
mod moments;
mod pairs;
mod quantiles;
mod ranked;
mod values;
mod vectors;

use crate::{cell::Cell, value::Value};
use arrow::datatypes::{DataType, i256};
use bits::Bits;
use decayed::Decayed;
use float::{FloatSum, step};
use frequent::Frequent;
use hll::HyperLogLog;
use increase::Increase;
use moments::Moments;
use pairs::Pairs;
use quantiles::Quantiles;
use ranked::Ranked;
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, collections::VecDeque};
use tidemark_planner::feature::{Aggregate, Parameter};
use values::Values;
use vectors::Vectors;

/// What is aggregated, but for the events.
#[derive(Debug, Clone)]
pub struct Function {
    pub function: Aggregate,
    pub parameter: Parameter,
    /// The argument's type.
    pub arg: Option<DataType>,
    /// The result's.
    pub ty: DataType,
    /// Events never leave the frame one by one.
    pub unbounded: bool,
    /// Events leave in any order, and not first in first out.
    pub any_order: bool,
}

/// The running state. A new kind goes to the end: state that is kept names them by their place.
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
    Moments(Box<Moments>),
    Pairs(Box<Pairs>),
    /// Min and max over frames that events leave: the events that may still be the extreme, first in first out, each
    /// better than all after it; their indices in the ring. The front is the extreme. Amortised, one comparison an event.
    Monotonic(VecDeque<u64>),
    Values(Box<Values>),
    /// The least or greatest value of an unbounded frame, and what goes with it.
    Extreme(Option<Box<(Value, Value)>>),
    Bools {
        trues: u64,
        falses: u64,
    },
    Bits(Box<Bits>),
    /// The first value of an unbounded frame.
    First(Option<Value>),
    /// Read from the ring by position.
    Positional,
    Distinct(Box<HyperLogLog>),
    Decayed(Decayed),
    Ranked(Box<Ranked>),
    Increase(Box<Increase>),
    Vectors(Box<Vectors>),
    Frequent(Box<Frequent>),
    Quantiles(Box<Quantiles>),
}

/// How an event comes to an accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Enter,
    Leave,
}

/// Which of an event's values: the aggregate's argument, or its second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Arg,
    Other,
    /// Its time, microseconds.
    Time,
}

impl Function {
    pub fn accumulator(&self) -> Accumulator {
        use Aggregate as A;
        match self.function {
            A::Count | A::Rate => Accumulator::Count(0),
            A::GeometricMean => Accumulator::FloatSum(FloatSum::default()),
            A::Sum | A::Avg => match &self.arg {
                Some(DataType::Float32 | DataType::Float64) => Accumulator::FloatSum(FloatSum::default()),
                Some(DataType::Decimal128(..)) => Accumulator::DecimalSum { count: 0, sum: ([0; 16], [0; 16]) },
                _ => Accumulator::IntSum { count: 0, sum: 0 },
            },
            A::VarSamp | A::VarPop | A::StddevSamp | A::StddevPop | A::Skewness | A::Kurtosis | A::KurtosisPop => {
                Accumulator::Moments(Box::default())
            }
            A::Corr
            | A::CovarSamp
            | A::CovarPop
            | A::RegrSlope
            | A::RegrIntercept
            | A::RegrR2
            | A::RegrCount
            | A::RegrAvgx
            | A::RegrAvgy
            | A::RegrSxx
            | A::RegrSyy
            | A::RegrSxy => Accumulator::Pairs(Box::default()),
            A::Min | A::Max if self.any_order => Accumulator::Values(Box::default()),
            A::Min | A::Max | A::MinBy | A::MaxBy if self.unbounded => Accumulator::Extreme(None),
            A::Min | A::Max | A::MinBy | A::MaxBy => Accumulator::Monotonic(VecDeque::new()),
            A::FirstValue if self.unbounded => Accumulator::First(None),
            A::FirstValue | A::LastValue | A::NthValue | A::FirstK | A::LastK | A::ArrayAgg | A::StringAgg => {
                Accumulator::Positional
            }
            A::BoolAnd | A::BoolOr => Accumulator::Bools { trues: 0, falses: 0 },
            A::DecaySum | A::DecayCount | A::DecayAvg | A::DecayAnchor => Accumulator::Decayed(Decayed::default()),
            A::BitAnd | A::BitOr | A::BitXor => Accumulator::Bits(Box::default()),
            A::TopKBy | A::BottomKBy => Accumulator::Ranked(Box::default()),
            A::Increase => Accumulator::Increase(Box::default()),
            A::VectorSum | A::VectorAvg => Accumulator::Vectors(Box::default()),
            A::ApproxCountDistinct if self.unbounded => Accumulator::Distinct(Box::default()),
            A::ApproxTopK if self.unbounded => Accumulator::Frequent(Box::default()),
            A::ApproxPercentile if self.unbounded => Accumulator::Quantiles(Box::default()),
            A::ApproxCountDistinct
            | A::ApproxTopK
            | A::ApproxPercentile
            | A::Entropy
            | A::Histogram
            | A::CountDistinct
            | A::SumDistinct
            | A::AvgDistinct
            | A::Mode
            | A::Median
            | A::PercentileCont
            | A::PercentileDisc
            | A::TopK
            | A::BottomK => Accumulator::Values(Box::default()),
        }
    }

    /// The value that decides which event is the extreme.
    pub fn ordered_by(&self) -> Which {
        if self.function.is_by_other() { Which::Other } else { Which::Arg }
    }

    /// What of a number is added up.
    fn term(&self, x: f64) -> f64 {
        if self.function == Aggregate::GeometricMean { x.ln() } else { x }
    }

    /// Whether `a` is a better extreme than `b`.
    fn better(&self, a: Cell<'_>, b: Cell<'_>) -> bool {
        let wanted = match self.function {
            Aggregate::Min | Aggregate::MinBy => Ordering::Less,
            _ => Ordering::Greater,
        };
        a.order(b) == wanted
    }
}

impl Accumulator {
    /// Adds event `index` that enters, or takes it away as it leaves. The caller has applied FILTER. `read` gives the values
    /// of this and of other events; `count(*)` has an argument that is never NULL.
    pub fn apply<'a>(&mut self, of: &Function, change: Move, index: u64, read: impl Fn(u64, Which) -> Cell<'a>) {
        let retract = change == Move::Leave;
        let cell = read(index, of.ordered_by());
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
                    sum.add(of.term(x), retract);
                }
            }
            Accumulator::Moments(moments) => {
                if let Some(x) = cell.as_float() {
                    moments.add(of.function, x, retract);
                }
            }
            Accumulator::Pairs(pairs) => {
                if let (Some(y), Some(x)) = (cell.as_float(), read(index, Which::Other).as_float()) {
                    pairs.add(y, x, retract);
                }
            }
            Accumulator::Monotonic(candidates) if retract => {
                if candidates.front() == Some(&index) {
                    candidates.pop_front();
                }
            }
            Accumulator::Monotonic(candidates) => {
                while candidates.back().is_some_and(|last| !of.better(read(*last, of.ordered_by()), cell)) {
                    candidates.pop_back();
                }
                candidates.push_back(index);
            }
            Accumulator::Values(values) => values.add(cell.to_value(), retract),
            // Of equal ones the latest, as in a frame that events leave.
            Accumulator::Extreme(best) => {
                if best.as_ref().is_none_or(|best| !of.better(Cell::of(&best.0), cell)) {
                    *best = Some(Box::new((cell.to_value(), read(index, Which::Arg).to_value())));
                }
            }
            Accumulator::Bools { trues, falses } => match cell {
                Cell::Bool(true) => step(trues, retract),
                Cell::Bool(false) => step(falses, retract),
                _ => {}
            },
            Accumulator::Bits(bits) => {
                if let Cell::Int(x) = cell {
                    bits.add(x, retract);
                }
            }
            Accumulator::First(first) => {
                if first.is_none() {
                    *first = Some(cell.to_value());
                }
            }
            Accumulator::Positional => {}
            Accumulator::Decayed(decayed) => {
                if let (Parameter::Duration(half_life_us), Cell::Int(at_us)) = (&of.parameter, read(index, Which::Time))
                {
                    decayed.add(cell.as_float().unwrap_or(0.0), at_us, *half_life_us);
                }
            }
            Accumulator::Distinct(sketch) => sketch.add(cell.to_value().stable_hash()),
            Accumulator::Ranked(ranked) => {
                let item = || read(index, Which::Arg).to_value();
                ranked.apply(of, cell.to_value(), index, item, retract);
            }
            Accumulator::Increase(increase) => {
                increase.apply(of.unbounded, cell, index, |index| read(index, Which::Arg), retract);
            }
            Accumulator::Vectors(vectors) => {
                if let Cell::Other(Value::List(items)) = cell {
                    vectors.add(items, retract);
                }
            }
            Accumulator::Frequent(frequent) => frequent.add(cell.to_value()),
            Accumulator::Quantiles(quantiles) => {
                if let Some(x) = values::double(&cell.to_value(), of.arg.as_ref()) {
                    quantiles.add(x);
                }
            }
        }
    }

    /// The events of the frame have other numbers in the ring now, in the same order.
    pub fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        match self {
            Accumulator::Monotonic(candidates) => candidates.iter_mut().for_each(|index| *index = number(*index)),
            Accumulator::Ranked(ranked) => ranked.renumber(number),
            Accumulator::Increase(increase) => increase.renumber(number),
            _ => {}
        }
    }

    /// Bytes on the heap, nearly.
    pub fn memory(&self) -> usize {
        match self {
            Accumulator::Moments(_) => size_of::<Moments>(),
            Accumulator::Pairs(_) => size_of::<Pairs>(),
            Accumulator::Monotonic(candidates) => candidates.capacity() * size_of::<u64>(),
            Accumulator::Values(values) => values.memory(),
            Accumulator::Extreme(Some(_)) => size_of::<(Value, Value)>(),
            Accumulator::Bits(_) => size_of::<Bits>(),
            Accumulator::Distinct(sketch) => sketch.memory(),
            Accumulator::Ranked(ranked) => ranked.memory(),
            Accumulator::Increase(increase) => increase.memory(),
            Accumulator::Vectors(vectors) => vectors.memory(),
            Accumulator::Frequent(frequent) => frequent.memory(),
            Accumulator::Quantiles(quantiles) => quantiles.memory(),
            _ => 0,
        }
    }

    /// The aggregate's value, and whether it left its type's range (then it is NULL). What is read from the ring
    /// (`Positional`, `Monotonic`) is answered by the caller.
    pub fn evaluate(&self, of: &Function) -> (Value, bool) {
        use Aggregate as A;
        let in_range = |v: Option<Value>| match v {
            Some(v) => (v, false),
            None => (Value::Null, true),
        };
        let double = |v: Option<Option<f64>>| in_range(v.map(|v| v.map_or(Value::Null, Value::float)));
        match self {
            Accumulator::Count(n) => match (of.function, &of.parameter) {
                (A::Rate, Parameter::Duration(us)) => (Value::float(*n as f64 / (*us as f64 / 1e6)), false),
                _ => (Value::Int(*n as i64), false),
            },
            Accumulator::IntSum { count: 0, .. } | Accumulator::DecimalSum { count: 0, .. } => (Value::Null, false),
            Accumulator::IntSum { count, sum } => match of.function {
                A::Avg => (Value::float(*sum as f64 / *count as f64), false),
                _ => in_range(i64::try_from(*sum).ok().map(Value::Int)),
            },
            Accumulator::DecimalSum { count, sum } => {
                let sum = wide(sum);
                let value = match (of.function, &of.arg, &of.ty) {
                    (A::Avg, Some(DataType::Decimal128(_, from)), DataType::Decimal128(_, to)) => {
                        // Truncated towards zero at the result's scale, as DataFusion does.
                        let up = i256::from_i128(10i128.pow(u32::from((to - from).max(0).unsigned_abs())));
                        sum.checked_mul(up).and_then(|s| s.checked_div(i256::from_i128(i128::from(*count))))
                    }
                    _ => Some(sum),
                };
                const LIMIT: i128 = 10i128.pow(38);
                in_range(value.and_then(|v| v.to_i128()).filter(|v| v.abs() < LIMIT).map(Value::decimal))
            }
            Accumulator::FloatSum(sum) if sum.count == 0 => (Value::Null, false),
            Accumulator::FloatSum(sum) => match of.function {
                A::Avg => in_range(sum.sum().map(|s| Value::float(s / sum.count as f64))),
                A::GeometricMean => in_range(sum.sum().map(|s| Value::float((s / sum.count as f64).exp()))),
                _ => in_range(sum.sum().map(Value::float)),
            },
            Accumulator::Moments(moments) => double(moments.evaluate(of.function)),
            Accumulator::Pairs(pairs) if of.function == A::RegrCount => (Value::Int(pairs.count() as i64), false),
            Accumulator::Pairs(pairs) => double(pairs.evaluate(of.function)),
            Accumulator::Values(values) => values.evaluate(of),
            Accumulator::Extreme(best) => (best.as_ref().map(|best| best.1.clone()).unwrap_or_default(), false),
            Accumulator::Bools { trues: 0, falses: 0 } => (Value::Null, false),
            Accumulator::Bools { trues, falses } => match of.function {
                A::BoolAnd => (Value::Bool(*falses == 0), false),
                _ => (Value::Bool(*trues > 0), false),
            },
            Accumulator::Bits(bits) => (bits.evaluate(of.function).map_or(Value::Null, Value::Int), false),
            Accumulator::Decayed(decayed) => decayed.evaluate(of.function),
            Accumulator::First(first) => (first.clone().unwrap_or_default(), false),
            Accumulator::Positional | Accumulator::Monotonic(_) => (Value::Null, false),
            Accumulator::Distinct(sketch) => (Value::Int(sketch.estimate() as i64), false),
            Accumulator::Ranked(ranked) => (ranked.evaluate(of), false),
            Accumulator::Increase(increase) => in_range(increase.evaluate(of)),
            Accumulator::Vectors(vectors) => vectors.evaluate(of),
            Accumulator::Frequent(frequent) => (frequent.evaluate(of), false),
            Accumulator::Quantiles(quantiles) => match of.parameter {
                Parameter::Fraction(p) => (quantiles.at(p).map_or(Value::Null, Value::float), false),
                _ => (Value::Null, false),
            },
        }
    }
}

fn wide(halves: &([u8; 16], [u8; 16])) -> i256 {
    i256::from_parts(u128::from_le_bytes(halves.0), i128::from_le_bytes(halves.1))
}

fn halves(value: i256) -> ([u8; 16], [u8; 16]) {
    let (low, high) = value.to_parts();
    (low.to_le_bytes(), high.to_le_bytes())
}
