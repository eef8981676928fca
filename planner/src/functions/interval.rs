//! `n * INTERVAL '1 minute'`, `INTERVAL '1 hour' / 4` and `time '23:30' + INTERVAL '1 hour'`, as PostgreSQL has them; DataFusion has not the
//! first two, and makes an interval of the last.

use arrow::{
    array::{Array, AsArray, IntervalMonthDayNanoArray, Time64MicrosecondArray},
    compute::cast,
    datatypes::{Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType},
};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use datafusion::{
    common::{DFSchema, exec_datafusion_err},
    error::Result,
    logical_expr::{
        self, ColumnarValue, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use std::sync::{Arc, LazyLock};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);

/// Reads a product or quotient of an interval and a number as a call of the function.
#[derive(Debug)]
pub struct IntervalOperators;

impl ExprPlanner for IntervalOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let (Ok(left), Ok(right)) = types else { return Ok(PlannerResult::Original(expr)) };
        let is_interval = |ty: &DataType| matches!(ty, DataType::Interval(_) | DataType::Duration(_));
        // A date is midnight, and not all of it: the hours count.
        if matches!(left, DataType::Date32) && is_interval(&right) {
            let left = logical_expr::cast(expr.left, crate::zone::wall());
            return Ok(PlannerResult::Original(RawBinaryExpr { left, ..expr }));
        }
        if matches!(right, DataType::Date32) && is_interval(&left) && expr.op == BinaryOperator::Plus {
            let right = logical_expr::cast(expr.right, crate::zone::wall());
            return Ok(PlannerResult::Original(RawBinaryExpr { right, ..expr }));
        }
        // A time of day goes on at midnight.
        let is_time = |ty: &DataType| matches!(ty, DataType::Time64(_));
        let shifted = match expr.op {
            BinaryOperator::Plus if is_time(&left) && is_interval(&right) => Some((&expr.left, &expr.right, &LATER)),
            BinaryOperator::Plus if is_interval(&left) && is_time(&right) => Some((&expr.right, &expr.left, &LATER)),
            BinaryOperator::Minus if is_time(&left) && is_interval(&right) => Some((&expr.left, &expr.right, &EARLIER)),
            _ => None,
        };
        if let Some((time, span, function)) = shifted {
            let arguments = [(time, TIME), (span, INTERVAL)].map(|(arg, ty)| logical_expr::cast(arg.clone(), ty));
            return Ok(PlannerResult::Planned(function.call(arguments.into())));
        }
        let (span, number, function) = match expr.op {
            BinaryOperator::Multiply if is_interval(&left) && right.is_numeric() => (expr.left, expr.right, &TIMES),
            BinaryOperator::Multiply if is_interval(&right) && left.is_numeric() => (expr.right, expr.left, &TIMES),
            BinaryOperator::Divide if is_interval(&left) && right.is_numeric() => (expr.left, expr.right, &OVER),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let number = logical_expr::cast(number, DataType::Float64);
        Ok(PlannerResult::Planned(function.call(vec![logical_expr::cast(span, INTERVAL), number])))
    }
}

static TIMES: LazyLock<ScalarUDF> = LazyLock::new(|| ScalarUDF::from(Scaled::new(Operation::Times)));
static LATER: LazyLock<ScalarUDF> = LazyLock::new(|| ScalarUDF::from(Shifted::new(1)));
static EARLIER: LazyLock<ScalarUDF> = LazyLock::new(|| ScalarUDF::from(Shifted::new(-1)));
static OVER: LazyLock<ScalarUDF> = LazyLock::new(|| ScalarUDF::from(Scaled::new(Operation::Over)));

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Times,
    Over,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scaled {
    operation: Operation,
    signature: Signature,
}

impl Scaled {
    fn new(operation: Operation) -> Self {
        let signature = Signature::exact(vec![INTERVAL, DataType::Float64], Volatility::Immutable);
        Scaled { operation, signature }
    }
}

impl ScalarUDFImpl for Scaled {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Times => "interval_times",
            Operation::Over => "interval_over",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let spans = cast(&arrays[0], &INTERVAL)?;
        let (spans, numbers) =
            (spans.as_primitive::<IntervalMonthDayNanoType>(), arrays[1].as_primitive::<Float64Type>());
        let scaled = (0..spans.len()).map(|row| {
            if spans.is_null(row) || numbers.is_null(row) {
                return Ok(None);
            }
            let (span, number) = (spans.value(row), numbers.value(row));
            let scaled = match self.operation {
                Operation::Over if number == 0.0 => return Err(exec_datafusion_err!("division by zero")),
                Operation::Over => over(span, number),
                Operation::Times => times(span, number),
            };
            scaled.map(Some).ok_or_else(|| exec_datafusion_err!("interval out of range"))
        });
        Ok(ColumnarValue::Array(Arc::new(scaled.collect::<Result<IntervalMonthDayNanoArray>>()?)))
    }
}

/// A time of day and an interval, of which months and days do not count.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shifted {
    /// 1: later, -1: earlier.
    direction: i64,
    signature: Signature,
}

impl Shifted {
    fn new(direction: i64) -> Self {
        Shifted { direction, signature: Signature::exact(vec![TIME, INTERVAL], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Shifted {
    fn name(&self) -> &str {
        if self.direction < 0 { "time_earlier" } else { "time_later" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let times = arrays[0].as_primitive::<Time64MicrosecondType>();
        let spans = arrays[1].as_primitive::<IntervalMonthDayNanoType>();
        let shifted = times.iter().zip(spans.iter()).map(|(time, span)| Some(shifted(time?, span?, self.direction)));
        Ok(ColumnarValue::Array(Arc::new(shifted.collect::<Time64MicrosecondArray>())))
    }
}

fn shifted(time_us: i64, span: IntervalMonthDayNano, direction: i64) -> i64 {
    const DAY_US: i64 = 86_400_000_000;
    (time_us + span.nanoseconds / 1_000 % DAY_US * direction).rem_euclid(DAY_US)
}

fn over(span: IntervalMonthDayNano, number: f64) -> Option<IntervalMonthDayNano> {
    scaled(span, |part| part / number)
}

fn times(span: IntervalMonthDayNano, number: f64) -> Option<IntervalMonthDayNano> {
    scaled(span, |part| part * number)
}

/// What is less than a month is days, 30 to the month; what is less than a day is time, 24 hours to the day; microseconds
/// are rounded (PostgreSQL's `interval_mul` and `interval_div`). `None`: out of range.
fn scaled(span: IntervalMonthDayNano, scale: impl Fn(f64) -> f64) -> Option<IntervalMonthDayNano> {
    const DAYS_A_MONTH: f64 = 30.0;
    const SECONDS_A_DAY: f64 = 86_400.0;
    let to_microseconds = |seconds: f64| (seconds * 1e6).round_ties_even() / 1e6;
    let fits = |x: f64| (x > f64::from(i32::MIN) && x < f64::from(i32::MAX)).then_some(x as i32);
    let (months_exact, days_exact) = (scale(f64::from(span.months)), scale(f64::from(span.days)));
    let (months, mut days) = (fits(months_exact)?, fits(days_exact)?);
    let rest_of_month = to_microseconds((months_exact - f64::from(months)) * DAYS_A_MONTH);
    let whole = rest_of_month.trunc();
    let mut seconds = to_microseconds((days_exact - f64::from(days) + rest_of_month - whole) * SECONDS_A_DAY);
    if seconds.abs() >= SECONDS_A_DAY {
        let more = (seconds / SECONDS_A_DAY).trunc();
        days = days.checked_add(fits(more)?)?;
        seconds -= more * SECONDS_A_DAY;
    }
    days = days.checked_add(fits(whole)?)?;
    let us = (scale(span.nanoseconds as f64 / 1e3) + seconds * 1e6).round_ties_even();
    let nanoseconds = (us.abs() < 9.2e15).then(|| us as i64 * 1_000)?;
    Some(IntervalMonthDayNano { months, days, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_goes_round_the_clock() {
        const HOUR: i64 = 3_600_000_000;
        let span = |days, hours: i64| IntervalMonthDayNano { months: 0, days, nanoseconds: hours * HOUR * 1_000 };
        // Answers of PostgreSQL 15.
        for (time, span, direction, expected) in
            [(10, span(0, 1), 1, 11), (10, span(0, 11), -1, 23), (23, span(3, 25), 1, 0), (0, span(0, -49), 1, 23)]
        {
            assert_eq!(shifted(time * HOUR, span, direction), expected * HOUR, "{time} and {span:?}");
        }
    }

    #[test]
    fn what_is_left_of_months_and_days_goes_down_as_in_postgresql() {
        let span = |months, days, us: i64| IntervalMonthDayNano { months, days, nanoseconds: us * 1_000 };
        const HOUR: i64 = 3_600_000_000;
        // Answers of PostgreSQL 15.
        for (from, number, expected) in [
            (span(0, 0, 60_000_000), 7.0, span(0, 0, 420_000_000)),
            (span(1, 0, 0), 1.5, span(1, 15, 0)),
            (span(0, 1, 0), 0.5, span(0, 0, 12 * HOUR)),
            (span(0, 3, 0), 0.1, span(0, 0, 25_920_000_000)),
            (span(1, 0, 0), 0.01, span(0, 0, 7 * HOUR + 12 * 60_000_000)),
            (span(0, 1, HOUR), -2.0, span(0, -2, -2 * HOUR)),
        ] {
            assert_eq!(times(from, number), Some(expected), "{from:?} * {number}");
        }
        assert_eq!(over(span(0, 0, HOUR), 4.0), Some(span(0, 0, HOUR / 4)));
        assert_eq!(over(span(0, 0, HOUR), 0.0), None);
        assert_eq!(times(span(i32::MAX, 0, 0), 2.0), None);
    }
}
