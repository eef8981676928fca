//! Every aggregate that adds and takes away against its definition over the rows that are in the frame: as rows enter and
//! leave, and with a restart in between.
//!
//! The definitions are those of a textbook, in doubles over small numbers. That sums are exact where these are not is shown
//! beside them (`exact.rs`), and PostgreSQL says the same in the oracle.

use arrow::datatypes::DataType;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidemark_engine::{
    accumulate::{Accumulator, Function, Move, Which},
    cell::Cell,
    value::Value,
};
use tidemark_planner::feature::{Aggregate, ITEMS_MAX, Parameter, VECTOR_MAX};

#[derive(Debug, Clone)]
struct Row {
    x: Option<i64>,
    y: Option<i64>,
    time_us: i64,
}

type Taken = fn(&Row) -> Value;
type Rows<'a> = &'a [Row];

/// An aggregate with what it takes of a row and what it is.
struct Case {
    function: Aggregate,
    parameter: Parameter,
    arg: Taken,
    other: Taken,
    arg_type: DataType,
    ty: DataType,
    is: fn(Rows<'_>) -> Value,
}

fn case(function: Aggregate, arg: Taken, is: fn(Rows<'_>) -> Value) -> Case {
    let (arg_type, ty) = (DataType::Int64, DataType::Int64);
    Case { function, parameter: Parameter::None, arg, other: y, arg_type, ty, is }
}

fn with(parameter: Parameter, case: Case) -> Case {
    Case { parameter, ..case }
}

fn typed(arg_type: DataType, ty: DataType, case: Case) -> Case {
    Case { arg_type, ty, ..case }
}

fn floating(case: Case) -> Case {
    typed(DataType::Float64, DataType::Float64, case)
}

// What is taken of a row.

fn x(row: &Row) -> Value {
    row.x.map_or(Value::Null, Value::Int)
}

fn y(row: &Row) -> Value {
    row.y.map_or(Value::Null, Value::Int)
}

fn quarter(row: &Row) -> Value {
    row.x.map_or(Value::Null, |x| Value::float(x as f64 / 4.0))
}

/// Some of them no finite numbers.
fn special(row: &Row) -> Value {
    match row.x {
        Some(4) => Value::float(f64::NAN),
        Some(3) => Value::float(f64::INFINITY),
        Some(-4) => Value::float(f64::NEG_INFINITY),
        _ => quarter(row),
    }
}

fn positive(row: &Row) -> Value {
    row.x.map_or(Value::Null, |x| Value::float((x + 5) as f64 / 4.0))
}

fn cents(row: &Row) -> Value {
    row.x.map_or(Value::Null, |x| Value::decimal(i128::from(x)))
}

fn flag(row: &Row) -> Value {
    row.x.map_or(Value::Null, |x| Value::Bool(x > 0))
}

/// Two numbers, seldom three.
fn vector(row: &Row) -> Value {
    let Some(first) = row.x else { return Value::Null };
    let mut items = vec![Value::Int(first), y(row)];
    if first == 4 {
        items.push(Value::Int(1));
    }
    Value::List(items.into())
}

// What of rows is there.

fn ints(rows: Rows<'_>) -> Vec<i64> {
    rows.iter().filter_map(|row| row.x).collect()
}

fn sorted(rows: Rows<'_>) -> Vec<i64> {
    let mut ints = ints(rows);
    ints.sort_unstable();
    ints
}

fn floats_of(rows: Rows<'_>, of: Taken) -> Vec<f64> {
    let float = |row: &Row| match of(row) {
        Value::Float(x) => Some(x),
        Value::Int(i) => Some(i as f64),
        _ => None,
    };
    rows.iter().filter_map(float).collect()
}

fn pairs(rows: Rows<'_>) -> Vec<(f64, f64)> {
    rows.iter().filter_map(|row| Some((row.x? as f64, row.y? as f64))).collect()
}

fn or_null<T>(values: &[T], of: impl Fn(&[T]) -> Value) -> Value {
    if values.is_empty() { Value::Null } else { of(values) }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The `p`-th central moment.
fn moment(values: &[f64], p: i32) -> f64 {
    let middle = mean(values);
    values.iter().map(|x| (x - middle).powi(p)).sum::<f64>() / values.len() as f64
}

fn are_equal<T: PartialEq>(values: &[T]) -> bool {
    values.windows(2).all(|two| two[0] == two[1])
}

/// A moment's function of at least so many numbers.
fn shape(rows: Rows<'_>, least: usize, is_ratio: bool, of: impl Fn(&[f64]) -> f64) -> Value {
    let values = floats_of(rows, quarter);
    let is_there = values.len() >= least && !(is_ratio && are_equal(&values));
    if is_there { Value::float(of(&values)) } else { Value::Null }
}

fn kurtosis_pop(values: &[f64]) -> f64 {
    moment(values, 4) / moment(values, 2).powi(2) - 3.0
}

/// Sums of products of what `y` and `x` are away from their means; `y` is the argument.
struct Spread {
    n: f64,
    y: f64,
    x: f64,
    yy: f64,
    xx: f64,
    xy: f64,
}

fn spread(rows: Rows<'_>, of: impl Fn(Spread) -> Option<f64>) -> Value {
    let pairs = pairs(rows);
    if pairs.is_empty() {
        return Value::Null;
    }
    let (ys, xs): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (y, x) = (mean(&ys), mean(&xs));
    let sum = |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|pair| of(pair.0 - y, pair.1 - x)).sum::<f64>();
    let zero = |values: &[f64], sum: f64| if are_equal(values) { 0.0 } else { sum };
    let (yy, xx) = (zero(&ys, sum(&|y, _| y * y)), zero(&xs, sum(&|_, x| x * x)));
    let found = of(Spread { n: pairs.len() as f64, y, x, yy, xx, xy: sum(&|y, x| y * x) });
    found.map_or(Value::Null, Value::float)
}

fn unless_zero(divisor: f64, value: f64) -> Option<f64> {
    (divisor != 0.0).then_some(value)
}

/// How often each number is there.
fn times(rows: Rows<'_>) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    ints(rows).into_iter().for_each(|x| *times.entry(x).or_insert(0) += 1);
    times
}

/// The numbers that are there most often first, of several the least.
fn by_times(rows: Rows<'_>) -> Vec<i64> {
    let mut times: Vec<(i64, usize)> = times(rows).into_iter().collect();
    times.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    times.into_iter().map(|(x, _)| x).collect()
}

fn list(items: impl IntoIterator<Item = i64>, most: usize) -> Value {
    let items: Vec<Value> = items.into_iter().take(most).map(Value::Int).collect();
    if items.is_empty() { Value::Null } else { Value::List(items.into()) }
}

fn percentile(rows: Rows<'_>, p: f64) -> Value {
    or_null(&sorted(rows), |sorted| {
        let place = p * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[place.floor() as usize] as f64, sorted[place.ceil() as usize] as f64);
        Value::float(low + (place - place.floor()) * (high - low))
    })
}

/// The `x` of the rows with the greatest (1) or least (-1) `y`, of equal ones the latest first.
fn ranked(rows: Rows<'_>, sign: i64) -> Value {
    let mut ranked: Vec<(i64, usize)> =
        rows.iter().enumerate().filter_map(|(i, row)| Some((row.y? * sign, i))).collect();
    ranked.sort_by_key(|best| std::cmp::Reverse(*best));
    let items: Vec<Value> = ranked.into_iter().take(2).map(|(_, i)| x(&rows[i])).collect();
    if items.is_empty() { Value::Null } else { Value::List(items.into()) }
}

fn best(rows: Rows<'_>, sign: i64) -> Value {
    match ranked(rows, sign) {
        Value::List(items) => items[0].clone(),
        _ => Value::Null,
    }
}

fn increase(values: &[f64]) -> Option<f64> {
    let step = |two: &[f64]| two[1] - if two[1] < two[0] { 0.0 } else { two[0] };
    (values.len() > 1).then(|| values.windows(2).map(step).sum())
}

const HALF_LIFE_US: i64 = 10;

/// What is left of `of` of each row, at the time of the last one that has an `x`.
fn decayed(rows: Rows<'_>, of: fn(i64) -> f64) -> Option<f64> {
    let last_us = rows.iter().rev().find(|row| row.x.is_some())?.time_us;
    let left = |row: &Row| Some(of(row.x?) * (-((last_us - row.time_us) as f64) / HALF_LIFE_US as f64).exp2());
    Some(rows.iter().filter_map(left).sum())
}

fn number(value: Option<f64>) -> Value {
    value.map_or(Value::Null, Value::float)
}

fn vectors(rows: Rows<'_>, is_average: bool) -> Value {
    let arrays: Vec<Vec<Value>> = rows
        .iter()
        .filter_map(|row| match vector(row) {
            Value::List(items) => Some(items.to_vec()),
            _ => None,
        })
        .collect();
    if arrays.is_empty() || !are_equal(&arrays.iter().map(Vec::len).collect::<Vec<_>>()) {
        return Value::Null;
    }
    let item = |place: usize| {
        let there = arrays.iter().filter_map(|array| Cell::of(&array[place]).as_float()).collect::<Vec<f64>>();
        let divisor = if is_average { there.len() as f64 } else { 1.0 };
        or_null(&there, |there| Value::float(there.iter().sum::<f64>() / divisor))
    };
    Value::List((0..arrays[0].len()).map(item).collect())
}

/// Those from which rows leave, first in, first out.
fn of_bounded_frames() -> Vec<Case> {
    use Aggregate as A;
    let numeric = |to: i8, case| typed(DataType::Decimal128(10, 2), DataType::Decimal128(38, to), case);
    vec![
        case(A::Count, x, |rows| Value::Int(ints(rows).len() as i64)),
        with(Parameter::Duration(2_000_000), case(A::Rate, x, |rows| Value::float(ints(rows).len() as f64 / 2.0))),
        case(A::Sum, x, |rows| or_null(&ints(rows), |ints| Value::Int(ints.iter().sum()))),
        case(A::Avg, x, |rows| or_null(&floats_of(rows, x), |floats| Value::float(mean(floats)))),
        numeric(
            2,
            case(A::Sum, cents, |rows| {
                or_null(&ints(rows), |ints| Value::decimal(i128::from(ints.iter().sum::<i64>())))
            }),
        ),
        // Cut off towards zero.
        numeric(
            6,
            case(A::Avg, cents, |rows| {
                or_null(&ints(rows), |ints| {
                    Value::decimal(i128::from(ints.iter().sum::<i64>()) * 10_000 / ints.len() as i128)
                })
            }),
        ),
        floating(case(A::Sum, quarter, |rows| {
            or_null(&floats_of(rows, quarter), |floats| Value::float(floats.iter().sum()))
        })),
        floating(case(A::Sum, special, |rows| {
            or_null(&floats_of(rows, special), |floats| Value::float(floats.iter().sum()))
        })),
        floating(case(A::Avg, special, |rows| or_null(&floats_of(rows, special), |floats| Value::float(mean(floats))))),
        floating(case(A::GeometricMean, positive, |rows| {
            let logarithms: Vec<f64> = floats_of(rows, positive).into_iter().map(f64::ln).collect();
            or_null(&logarithms, |logarithms| Value::float(mean(logarithms).exp()))
        })),
        floating(case(A::VarPop, quarter, |rows| shape(rows, 1, false, |values| moment(values, 2)))),
        floating(case(A::StddevPop, quarter, |rows| shape(rows, 1, false, |values| moment(values, 2).sqrt()))),
        floating(case(A::VarSamp, quarter, |rows| {
            shape(rows, 2, false, |values| moment(values, 2) * values.len() as f64 / (values.len() - 1) as f64)
        })),
        floating(case(A::StddevSamp, quarter, |rows| {
            shape(rows, 2, false, |values| (moment(values, 2) * values.len() as f64 / (values.len() - 1) as f64).sqrt())
        })),
        floating(case(A::VarPop, special, |rows| {
            let values = floats_of(rows, special);
            let is_finite = values.iter().all(|x| x.is_finite());
            or_null(&values, |values| Value::float(if is_finite { moment(values, 2) } else { f64::NAN }))
        })),
        floating(case(A::Skewness, quarter, |rows| {
            shape(rows, 3, true, |values| {
                let n = values.len() as f64;
                (n * (n - 1.0)).sqrt() / (n - 2.0) * moment(values, 3) / moment(values, 2).powf(1.5)
            })
        })),
        floating(case(A::KurtosisPop, quarter, |rows| shape(rows, 1, true, kurtosis_pop))),
        floating(case(A::Kurtosis, quarter, |rows| {
            shape(rows, 4, true, |values| {
                let n = values.len() as f64;
                (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * kurtosis_pop(values) + 6.0)
            })
        })),
        case(A::RegrCount, x, |rows| Value::Int(pairs(rows).len() as i64)),
        case(A::RegrAvgx, x, |rows| spread(rows, |s| Some(s.x))),
        case(A::RegrAvgy, x, |rows| spread(rows, |s| Some(s.y))),
        case(A::RegrSxx, x, |rows| spread(rows, |s| Some(s.xx))),
        case(A::RegrSyy, x, |rows| spread(rows, |s| Some(s.yy))),
        case(A::RegrSxy, x, |rows| spread(rows, |s| Some(s.xy))),
        case(A::CovarPop, x, |rows| spread(rows, |s| Some(s.xy / s.n))),
        case(A::CovarSamp, x, |rows| spread(rows, |s| unless_zero(s.n - 1.0, s.xy / (s.n - 1.0)))),
        case(A::Corr, x, |rows| spread(rows, |s| unless_zero(s.xx * s.yy, s.xy / (s.xx * s.yy).sqrt()))),
        case(A::RegrSlope, x, |rows| spread(rows, |s| unless_zero(s.xx, s.xy / s.xx))),
        case(A::RegrIntercept, x, |rows| spread(rows, |s| unless_zero(s.xx, s.y - s.xy / s.xx * s.x))),
        case(A::RegrR2, x, |rows| {
            spread(rows, |s| unless_zero(s.xx, if s.yy == 0.0 { 1.0 } else { s.xy * s.xy / (s.xx * s.yy) }))
        }),
        case(A::CountDistinct, x, |rows| Value::Int(times(rows).len() as i64)),
        case(A::ApproxCountDistinct, x, |rows| Value::Int(times(rows).len() as i64)),
        case(A::SumDistinct, x, |rows| or_null(&ints(rows), |_| Value::Int(times(rows).keys().sum()))),
        case(A::AvgDistinct, x, |rows| {
            or_null(&ints(rows), |_| Value::float(times(rows).keys().sum::<i64>() as f64 / times(rows).len() as f64))
        }),
        case(A::Mode, x, |rows| or_null(&by_times(rows), |best| Value::Int(best[0]))),
        with(Parameter::Number(2), case(A::ApproxTopK, x, |rows| list(by_times(rows), 2))),
        with(Parameter::Number(3), case(A::TopK, x, |rows| list(sorted(rows).into_iter().rev(), 3))),
        with(Parameter::Number(3), case(A::BottomK, x, |rows| list(sorted(rows), 3))),
        case(A::Median, x, |rows| percentile(rows, 0.5)),
        with(Parameter::Fraction(0.3), case(A::PercentileCont, x, |rows| percentile(rows, 0.3))),
        with(Parameter::Fraction(0.3), case(A::ApproxPercentile, x, |rows| percentile(rows, 0.3))),
        with(
            Parameter::Fraction(0.5),
            case(A::PercentileDisc, x, |rows| {
                or_null(&sorted(rows), |sorted| Value::Int(sorted[sorted.len().div_ceil(2) - 1]))
            }),
        ),
        with(
            Parameter::Fraction(0.0),
            case(A::PercentileDisc, x, |rows| or_null(&sorted(rows), |sorted| Value::Int(sorted[0]))),
        ),
        case(A::Entropy, x, |rows| {
            or_null(&ints(rows), |ints| {
                let share = |n: &usize| *n as f64 / ints.len() as f64;
                Value::float(times(rows).values().map(share).map(|p| p * (1.0 / p).log2()).sum())
            })
        }),
        case(A::Histogram, x, |rows| {
            or_null(&ints(rows), |_| {
                let fields: Vec<String> = times(rows).iter().map(|(x, n)| format!("\"{x}\": {n}")).collect();
                Value::Text(format!("{{{}}}", fields.join(", ")).into())
            })
        }),
        case(A::BoolAnd, flag, |rows| or_null(&ints(rows), |ints| Value::Bool(ints.iter().all(|x| *x > 0)))),
        case(A::BoolOr, flag, |rows| or_null(&ints(rows), |ints| Value::Bool(ints.iter().any(|x| *x > 0)))),
        case(A::BitAnd, x, |rows| or_null(&ints(rows), |ints| Value::Int(ints.iter().fold(-1i64, |all, x| all & x)))),
        case(A::BitOr, x, |rows| or_null(&ints(rows), |ints| Value::Int(ints.iter().fold(0i64, |all, x| all | x)))),
        case(A::BitXor, x, |rows| or_null(&ints(rows), |ints| Value::Int(ints.iter().fold(0i64, |all, x| all ^ x)))),
        with(Parameter::Number(2), case(A::TopKBy, x, |rows| ranked(rows, 1))),
        with(Parameter::Number(2), case(A::BottomKBy, x, |rows| ranked(rows, -1))),
        case(A::Increase, x, |rows| increase(&floats_of(rows, x)).map_or(Value::Null, |up| Value::Int(up as i64))),
        floating(case(A::Increase, quarter, |rows| number(increase(&floats_of(rows, quarter))))),
        case(A::VectorSum, vector, |rows| vectors(rows, false)),
        case(A::VectorAvg, vector, |rows| vectors(rows, true)),
    ]
}

/// What is another state, or is there at all, only where no row leaves.
fn of_unbounded_frames() -> Vec<Case> {
    use Aggregate as A;
    let half_life = |case| with(Parameter::Duration(HALF_LIFE_US), case);
    vec![
        case(A::Min, x, |rows| or_null(&sorted(rows), |sorted| Value::Int(sorted[0]))),
        case(A::Max, x, |rows| or_null(&sorted(rows), |sorted| Value::Int(sorted[sorted.len() - 1]))),
        case(A::MinBy, x, |rows| best(rows, -1)),
        case(A::MaxBy, x, |rows| best(rows, 1)),
        case(A::FirstValue, x, |rows| rows.first().map_or(Value::Null, x)),
        half_life(case(A::DecaySum, quarter, |rows| number(decayed(rows, |x| x as f64 / 4.0)))),
        half_life(case(A::DecayCount, quarter, |rows| number(decayed(rows, |_| 1.0)))),
        half_life(case(A::DecayAvg, quarter, |rows| {
            number(decayed(rows, |x| x as f64 / 4.0).zip(decayed(rows, |_| 1.0)).map(|(sum, count)| sum / count))
        })),
        half_life(case(A::DecayAnchor, quarter, |rows| {
            rows.iter().rev().find(|row| row.x.is_some()).map_or(Value::Null, |row| Value::Int(row.time_us))
        })),
    ]
}

/// Over rows of a changelog's tables, which leave in any order.
fn of_any_order() -> Vec<Case> {
    use Aggregate as A;
    vec![
        case(A::Min, x, |rows| or_null(&sorted(rows), |sorted| Value::Int(sorted[0]))),
        case(A::Max, x, |rows| or_null(&sorted(rows), |sorted| Value::Int(sorted[sorted.len() - 1]))),
    ]
}

fn is_close(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Float(a), Value::Float(b)) if a.is_finite() && b.is_finite() => {
            (a - b).abs() <= 1e-9 * b.abs().max(1.0)
        }
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| is_close(a, b)),
        (a, b) => a == b,
    }
}

/// How rows come into the frame.
#[derive(Clone, Copy, PartialEq)]
enum Frame {
    Bounded,
    Unbounded,
    AnyOrder,
}

fn function(case: &Case, frame: Frame) -> Function {
    Function {
        function: case.function,
        parameter: case.parameter.clone(),
        arg: Some(case.arg_type.clone()),
        ty: case.ty.clone(),
        unbounded: frame == Frame::Unbounded,
        any_order: frame == Frame::AnyOrder,
    }
}

/// Each row with how many leave once it is there, and which when any may.
fn run(case: &Case, frame: Frame, rows: &[(Row, usize, usize)]) {
    let of = function(case, frame);
    let args: Vec<Value> = rows.iter().map(|(row, ..)| (case.arg)(row)).collect();
    let others: Vec<Value> = rows.iter().map(|(row, ..)| (case.other)(row)).collect();
    let read = |index: u64, which: Which| match which {
        Which::Arg => Cell::of(&args[index as usize]),
        Which::Other => Cell::of(&others[index as usize]),
        Which::Time => Cell::Int(rows[index as usize].0.time_us),
    };
    let (mut state, mut inside) = (of.accumulator(), vec![]);
    for (i, (_, leaving, chosen)) in rows.iter().enumerate() {
        state.apply(&of, Move::Enter, i as u64, read);
        inside.push(i);
        let leaving = if frame == Frame::Unbounded { 0 } else { *leaving };
        for _ in 0..leaving {
            if !inside.is_empty() {
                let left = inside.remove(if frame == Frame::AnyOrder { chosen % inside.len() } else { 0 });
                state.apply(&of, Move::Leave, left as u64, read);
            }
        }
        if i % 7 == 3 {
            let bytes = postcard::to_stdvec(&state).expect("it is encoded");
            state = postcard::from_bytes(&bytes).expect("it is decoded");
        }
        let there: Vec<Row> = inside.iter().map(|i| rows[*i].0.clone()).collect();
        let (expected, (found, _)) = ((case.is)(&there), state.evaluate(&of));
        assert!(is_close(&found, &expected), "{:?} is {found:?}, not {expected:?}, of {there:?}", case.function);
    }
}

fn rows() -> impl Strategy<Value = Vec<(Row, usize, usize)>> {
    let number = || prop::option::weighted(0.85, -4i64..5);
    prop::collection::vec((number(), number(), 0i64..30, 0usize..4, any::<usize>()), 1..25).prop_map(|rows| {
        let mut now_us = 0;
        let row = |(x, y, after_us, leaving, chosen): (Option<i64>, Option<i64>, i64, usize, usize)| {
            now_us += after_us;
            // Often none, so that there are some.
            (Row { x, y, time_us: now_us }, leaving.saturating_sub(1), chosen)
        };
        rows.into_iter().map(row).collect::<Vec<_>>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100),
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_aggregate_is_its_definition_over_the_rows_in_the_frame(rows in rows()) {
        let bounded = of_bounded_frames();
        bounded.iter().for_each(|case| run(case, Frame::Bounded, &rows));
        bounded.iter().chain(&of_unbounded_frames()).for_each(|case| run(case, Frame::Unbounded, &rows));
        of_any_order().iter().for_each(|case| run(case, Frame::AnyOrder, &rows));
    }
}

/// What a state says after values have entered, and after the first of them has left again.
fn entered_and_left(function: Aggregate, arg_type: DataType, ty: DataType, values: &[Value]) -> [(Value, bool); 2] {
    let parameter = Parameter::None;
    let of = Function { function, parameter, arg: Some(arg_type), ty, unbounded: false, any_order: false };
    let read = |index: u64, _: Which| Cell::of(&values[index as usize]);
    let mut state: Accumulator = of.accumulator();
    (0..values.len()).for_each(|i| state.apply(&of, Move::Enter, i as u64, read));
    let all = state.evaluate(&of);
    state.apply(&of, Move::Leave, 0, read);
    [all, state.evaluate(&of)]
}

#[test]
fn what_leaves_its_types_range_is_null_and_comes_back() {
    use Aggregate as A;
    let null = (Value::Null, true);
    let ints = [Value::Int(1), Value::Int(i64::MAX)];
    let expected = [null.clone(), (Value::Int(i64::MAX), false)];
    assert_eq!(entered_and_left(A::Sum, DataType::Int64, DataType::Int64, &ints), expected);
    let floats = [Value::float(f64::MAX), Value::float(f64::MAX)];
    let expected = [null.clone(), (Value::float(f64::MAX), false)];
    for function in [A::Sum, A::Avg] {
        assert_eq!(entered_and_left(function, DataType::Float64, DataType::Float64, &floats), expected);
    }
    let most = 10i128.pow(38) - 1;
    let decimals = [Value::decimal(1), Value::decimal(most)];
    let numeric = DataType::Decimal128(38, 0);
    let expected = [null.clone(), (Value::decimal(most), false)];
    assert_eq!(entered_and_left(A::Sum, numeric.clone(), numeric, &decimals), expected);
    let readings = [Value::Int(i64::MIN), Value::Int(-1), Value::Int(5)];
    let expected = [null, (Value::Int(6), false)];
    assert_eq!(entered_and_left(A::Increase, DataType::Int64, DataType::Int64, &readings), expected);
}

#[test]
fn a_value_has_as_many_items_as_it_may_and_no_more() {
    use Aggregate as A;
    for (n, is_too_many) in [(ITEMS_MAX, false), (ITEMS_MAX + 1, true)] {
        let values: Vec<Value> = (0..n as i64).map(Value::Int).collect();
        let [(value, beyond), _] = entered_and_left(A::Histogram, DataType::Int64, DataType::Utf8, &values);
        assert_eq!((value.is_null(), beyond), (is_too_many, is_too_many), "{n} values");
    }
    for (n, is_too_many) in [(VECTOR_MAX, false), (VECTOR_MAX + 1, true)] {
        let vector = Value::List((0..n as i64).map(Value::Int).collect());
        let [(value, beyond), left] = entered_and_left(A::VectorSum, DataType::Int64, DataType::Float64, &[vector]);
        assert_eq!((value.is_null(), beyond), (is_too_many, is_too_many), "{n} items");
        assert_eq!(left, (Value::Null, false));
    }
    let (two, three) = (Value::List([1, 2].map(Value::Int).into()), Value::List([1, 2, 3].map(Value::Int).into()));
    let [mixed, left] = entered_and_left(A::VectorSum, DataType::Int64, DataType::Float64, &[three, two]);
    assert_eq!(mixed, (Value::Null, true));
    assert_eq!(left, (Value::List([1.0, 2.0].map(Value::float).into()), false));
}
