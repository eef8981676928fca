//! `x AT TIME ZONE 'zone'`, PostgreSQL's `timezone('zone', x)`: from the instant to what clocks there show, and back.
//! DataFusion would only give the same instant another type. The session's zone does not matter to it.
//!
//! ```text
//! timestamptz '2026-07-01 12:00+00' AT TIME ZONE 'Europe/Berlin'      timestamp   '2026-07-01 14:00'
//! timestamp   '2026-07-01 14:00'    AT TIME ZONE 'Europe/Berlin'      timestamptz '2026-07-01 12:00+00'
//! ```
//!
//! A date, or text without a type, becomes a `timestamptz` first (and for that the session's zone does matter), as there.

use super::{instant, named::Zone, wall};
use crate::{PlanError, PlanResult, error::sqlstate, respelled::call};
use arrow::{
    array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray},
    datatypes::{IntervalMonthDayNanoType, TimestampMicrosecondType},
};
use arrow_schema::{DataType, IntervalUnit};
use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    sql::sqlparser::ast::{Expr, Value},
};
use std::sync::Arc;
use tidemark_catalog::UTC;

/// PostgreSQL's name for it; it takes the zone and the time.
pub(crate) const TIMEZONE: &str = "timezone";

/// Writes `AT TIME ZONE` as a call of the function.
pub(crate) fn call_timezone(expr: &mut Expr) {
    let Expr::AtTimeZone { timestamp, time_zone } = expr else { return };
    let taken = |from: &mut Expr| std::mem::replace(from, Expr::value(Value::Null));
    let arguments = [taken(time_zone), taken(timestamp)];
    *expr = call(TIMEZONE, arguments);
}

pub(crate) fn timezone() -> ScalarUDF {
    ScalarUDF::from(Timezone { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Timezone {
    signature: Signature,
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &str {
        TIMEZONE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Date32, Date64, Interval, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
        let [zone, time] = types else { return plan_err!("{TIMEZONE} takes a zone and a time") };
        let zone = match zone {
            Utf8 | LargeUtf8 | Utf8View | Null => Utf8,
            Interval(_) => Interval(IntervalUnit::MonthDayNano),
            other => return plan_err!("{other} is not a time zone"),
        };
        let time = match time {
            Timestamp(_, None) => wall(),
            Timestamp(_, Some(_)) | Date32 | Date64 | Utf8 | LargeUtf8 | Utf8View | Null => instant(UTC),
            other => return plan_err!("{other} has no time zone"),
        };
        Ok(vec![zone, time])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types.get(1) {
            Some(DataType::Timestamp(_, None)) => instant(UTC),
            _ => wall(),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let (zones, times) = (&arrays[0], arrays[1].as_primitive::<TimestampMicrosecondType>());
        let is_wall = matches!(arrays[1].data_type(), DataType::Timestamp(_, None));
        let one_zone = matches!(arguments.args[0], ColumnarValue::Scalar(_));
        let mut read: Option<Zone> = None;
        let moved = (0..times.len()).map(|row| -> Result<Option<i64>> {
            if zones.is_null(row) || times.is_null(row) {
                return Ok(None);
            }
            let zone = match read.filter(|_| one_zone) {
                Some(zone) => zone,
                None => *read.insert(zone_of(zones, row)?),
            };
            let us = times.value(row);
            // Infinity is that everywhere.
            if us == i64::MAX || us == i64::MIN {
                return Ok(Some(us));
            }
            let moved = if is_wall { zone.instant(us) } else { zone.wall(us) };
            let out_of_range = || PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, "timestamp out of range");
            Ok(Some(moved.ok_or_else(out_of_range)?))
        });
        let moved = moved.collect::<Result<TimestampMicrosecondArray>>()?;
        let moved = if is_wall { moved.with_timezone(UTC) } else { moved };
        Ok(ColumnarValue::Array(Arc::new(moved)))
    }
}

/// The zone that a value of the first argument is.
fn zone_of(zones: &ArrayRef, row: usize) -> PlanResult<Zone> {
    if let DataType::Utf8 = zones.data_type() {
        let name = zones.as_string::<i32>().value(row);
        return Zone::named(name).ok_or_else(|| unknown(name));
    }
    let span = zones.as_primitive::<IntervalMonthDayNanoType>().value(row);
    let error = |what: &str| PlanError::new(sqlstate::INVALID_PARAMETER, format!("interval time zone must {what}"));
    if span.months != 0 || span.days != 0 {
        return Err(error("not include months or days"));
    }
    let seconds = i32::try_from(span.nanoseconds / 1_000_000_000).ok();
    seconds.and_then(Zone::east).ok_or_else(|| error("be shorter than a day"))
}

fn unknown(name: &str) -> PlanError {
    let error = PlanError::new(sqlstate::INVALID_PARAMETER, format!("time zone \"{name}\" not recognized"));
    match name.starts_with(['+', '-']) {
        // PostgreSQL counts it westward, ISO 8601 and SET timezone here eastward: whatever it were, it would surprise.
        true => error.hint(
            "name the zone, or write an interval: INTERVAL '05:30' is to the east, INTERVAL '-05:30' to the west",
        ),
        false => error.hint("write a name such as 'Europe/Berlin'"),
    }
}
