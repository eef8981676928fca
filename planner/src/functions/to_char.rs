//! `to_char(value, pattern)` for dates, times and intervals, with PostgreSQL's patterns. DataFusion's function takes
//! chrono's, which have a `%` in them: such a pattern is still given to it.

use super::pattern::{Pattern, Shown, as_counted};
use crate::{PlanError, PlanResult, error::sqlstate, table::instant_type, zone::wall};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringBuilder, timezone::Tz},
    datatypes::{DurationMicrosecondType, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType},
};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use chrono::{DateTime, Datelike, Offset, TimeZone, Timelike};
use chrono_tz::OffsetName;
use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use std::sync::Arc;
use tidemark_catalog::UTC;

pub(super) fn to_char() -> ScalarUDF {
    ScalarUDF::from(ToChar { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, pattern] = types else { return plan_err!("to_char takes a value and a pattern") };
        let value = match value {
            DataType::Timestamp(_, Some(zone)) => DataType::Timestamp(TimeUnit::Microsecond, Some(zone.clone())),
            DataType::Timestamp(_, None) | DataType::Null => wall(),
            DataType::Date32 | DataType::Date64 => instant_type(),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
            number if number.is_numeric() => number.clone(),
            other => return plan_err!("to_char of {other}"),
        };
        match pattern {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                Ok(vec![value, DataType::Utf8])
            }
            other => plan_err!("{other} is no pattern"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(number) if number.is_numeric() => Err(PlanError::unsupported("to_char of a number is not supported")
                .hint("cast it to text; for so many decimals, to numeric(precision, scale) first")
                .into()),
            _ => Ok(DataType::Utf8),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let (values, patterns) = (&arrays[0], arrays[1].as_string::<i32>());
        let by_chrono = match patterns.iter().flatten().any(is_chronos) {
            true => Some(by_chrono(arrays.clone(), arguments)?),
            false => None,
        };
        let zone = zone_of(values.data_type())?;
        let mut parsed: Option<(&str, Pattern)> = None;
        let mut out = String::new();
        let mut texts = StringBuilder::with_capacity(values.len(), values.len() * 20);
        for row in 0..values.len() {
            // PostgreSQL gives NULL for an empty pattern, too.
            if values.is_null(row) || patterns.is_null(row) || patterns.value(row).is_empty() {
                texts.append_null();
                continue;
            }
            let pattern = patterns.value(row);
            if let Some(by_chrono) = by_chrono.as_ref().filter(|_| is_chronos(pattern)) {
                texts.append_value(by_chrono.as_string::<i32>().value(row));
                continue;
            }
            if parsed.as_ref().is_none_or(|(text, _)| *text != pattern) {
                parsed = Some((pattern, Pattern::parse(pattern)));
            }
            out.clear();
            match (&parsed, shown(values, row, zone.as_ref())?) {
                (Some((_, pattern)), Some(shown)) => {
                    pattern.show(&shown, &mut out)?;
                    texts.append_value(&out);
                }
                _ => texts.append_null(),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}

fn is_chronos(pattern: &str) -> bool {
    pattern.contains('%')
}

fn by_chrono(arrays: Vec<ArrayRef>, arguments: ScalarFunctionArgs) -> Result<ArrayRef> {
    let rows = arrays[0].len();
    let args = arrays.into_iter().map(ColumnarValue::Array).collect();
    let arguments = ScalarFunctionArgs { args, number_rows: rows, ..arguments };
    datafusion::functions::datetime::to_char().invoke_with_args(arguments)?.into_array(rows)
}

/// The zone in which a timestamp's clock is read, and its names if it has some.
struct Zone {
    offsets: Tz,
    names: Option<chrono_tz::Tz>,
}

fn zone_of(ty: &DataType) -> Result<Option<Zone>> {
    match ty {
        DataType::Timestamp(_, Some(zone)) => {
            // The type of every instant has UTC as an offset.
            let names = if zone.as_ref() == UTC { Some(chrono_tz::UTC) } else { zone.parse().ok() };
            Ok(Some(Zone { offsets: zone.parse()?, names }))
        }
        _ => Ok(None),
    }
}

/// `None` for infinity, of which PostgreSQL shows nothing.
fn shown(values: &ArrayRef, row: usize, zone: Option<&Zone>) -> PlanResult<Option<Shown>> {
    const DAY_US: i64 = 86_400_000_000;
    Ok(match values.data_type() {
        DataType::Timestamp(..) => match values.as_primitive::<TimestampMicrosecondType>().value(row) {
            i64::MIN | i64::MAX => None,
            us => Some(moment(us, zone).ok_or_else(|| {
                PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, "timestamp out of range for to_char")
            })?),
        },
        DataType::Time64(_) => Some(amounts(0, 0, values.as_primitive::<Time64MicrosecondType>().value(row))),
        DataType::Interval(_) => {
            let span = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Some(amounts(span.months, span.days.into(), span.nanoseconds / 1_000))
        }
        DataType::Duration(_) => {
            // The difference of two timestamps, which is in days and time as in PostgreSQL.
            let us = values.as_primitive::<DurationMicrosecondType>().value(row);
            Some(amounts(0, us / DAY_US, us % DAY_US))
        }
        other => return Err(PlanError::new(sqlstate::INTERNAL, format!("to_char of {other}"))),
    })
}

fn amounts(months: i32, days: i64, us: i64) -> Shown {
    Shown {
        year: (months / 12).into(),
        month: (months % 12).into(),
        day: days,
        seconds: us / 1_000_000,
        microseconds: us % 1_000_000,
        ..Shown::default()
    }
}

fn moment(us: i64, zone: Option<&Zone>) -> Option<Shown> {
    let utc = DateTime::from_timestamp_micros(us)?.naive_utc();
    let zone = zone.map(|zone| {
        let offset = zone.offsets.offset_from_utc_datetime(&utc).fix();
        let named = zone.names.map(|names| names.offset_from_utc_datetime(&utc));
        let name = named.as_ref().and_then(|named| named.abbreviation()).map(str::to_string);
        (name.unwrap_or_else(|| offset.to_string()), offset.local_minus_utc())
    });
    let east = zone.as_ref().map_or(0, |(_, seconds)| *seconds);
    let local = utc.checked_add_signed(chrono::TimeDelta::seconds(east.into()))?;
    Some(Shown {
        date: Some(local.date()),
        year: as_counted(local.year().into()),
        month: local.month().into(),
        day: local.day().into(),
        seconds: local.num_seconds_from_midnight().into(),
        microseconds: i64::from(local.nanosecond() / 1_000),
        zone,
    })
}
