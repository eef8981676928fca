//! PostgreSQL's text of a value: `5.0::float8 || ''` is `5`, `now()::text` is in the session's zone, `2026-07-01 12:00:00+02`.
//! What `||`, `concat`, `format` and casts make here is what the encoder sends of such a column; DataFusion's casts have texts of
//! their own (`5.0`, `2026-07-01T10:00:00Z`, `1 days`).
//!
//! A function stands in the place of the casts, after types are coerced: `||` and `concat` have casts around their arguments then,
//! and a `timestamptz` is in its zone.

pub mod number;
pub mod time;

use crate::each_expression::each_expression;
use arrow::{
    array::{Array, AsArray, StringArray, StringBuilder, timezone::Tz},
    datatypes::{
        DataType, Date32Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
        DurationSecondType, Field, FieldRef, Float32Type, Float64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
        IntervalUnit, IntervalYearMonthType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
    util::display::array_value_to_string,
};
use chrono::{DateTime, Offset, TimeZone, Utc};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        self, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility,
        expr::{Cast, ScalarFunction},
    },
    optimizer::AnalyzerRule,
};
use std::{
    fmt::Write,
    sync::{Arc, LazyLock},
};
use tidemark_catalog::vector;

/// The name under which it stands in a plan; its one argument is what is shown.
pub(crate) const TEXT_OF: &str = "text_of";

/// `extra_float_digits` of a session that has not set it: the shortest digits that read back.
const EXTRA_FLOAT_DIGITS: i32 = 1;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// The rule for ordinary queries; comes after type coercion and time zones.
#[derive(Debug)]
pub struct TextCasts;

impl AnalyzerRule for TextCasts {
    fn name(&self) -> &str {
        "text_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        text_casts(plan)
    }
}

/// A coerced plan whose casts to text are written here.
pub fn text_casts(plan: LogicalPlan) -> Result<LogicalPlan> {
    each_expression(plan, written)
}

/// The same for one expression over `schema`. A second time it changes nothing.
pub fn written(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::Cast(Cast { expr: inner, field }) = &expr else { return Ok(Transformed::no(expr)) };
        // A number as it is written in the query is no double in PostgreSQL: `5.0 || ''` is `5.0`.
        if !is_text(field.data_type()) || matches!(inner.as_ref(), Expr::Literal(ScalarValue::Float64(_), _)) {
            return Ok(Transformed::no(expr));
        }
        if !inner.get_type(schema).is_ok_and(|ty| is_shown(&ty)) {
            return Ok(Transformed::no(expr));
        }
        let text = TEXT.call(vec![inner.as_ref().clone()]);
        Ok(Transformed::yes(match field.data_type() {
            DataType::Utf8 => text,
            other => logical_expr::cast(text, other.clone()),
        }))
    })
}

/// The rule for ordinary queries; comes before type coercion.
#[derive(Debug)]
pub struct ShownInConcat;

impl AnalyzerRule for ShownInConcat {
    fn name(&self) -> &str {
        "shown_in_concat"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        shown_in_concat(plan)
    }
}

/// A plan in which `concat`, `concat_ws` and `format` are given the texts that clients are sent. That of a boolean is `t` there, where
/// `true::text` and `true || ''` are `true`.
pub fn shown_in_concat(plan: LogicalPlan) -> Result<LogicalPlan> {
    each_expression(plan, |expr, schema| {
        expr.transform_up(|expr| {
            let Expr::ScalarFunction(call) = expr else { return Ok(Transformed::no(expr)) };
            if !matches!(call.name(), "concat" | "concat_ws" | "format") {
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            }
            let mut changed = false;
            let args = call.args.into_iter().map(|arg| match arg.get_type(schema) {
                Ok(DataType::Boolean) => {
                    changed = true;
                    TEXT.call(vec![arg])
                }
                // Written when its zone is known.
                Ok(ty) if is_shown(&ty) => {
                    changed = true;
                    logical_expr::cast(arg, DataType::Utf8)
                }
                _ => arg,
            });
            let args = args.collect();
            let call = Expr::ScalarFunction(ScalarFunction { func: call.func, args });
            Ok(if changed { Transformed::yes(call) } else { Transformed::no(call) })
        })
    })
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether Arrow's text of such a value is not PostgreSQL's.
pub fn is_shown(ty: &DataType) -> bool {
    match ty {
        DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Interval(_)
        | DataType::Duration(_)
        | DataType::Binary => true,
        DataType::List(item) => {
            let item = item.data_type();
            let is_plain = is_text(item) || item.is_integer() || matches!(item, DataType::Boolean);
            is_plain || matches!(item, DataType::Decimal128(..)) || (!item.is_nested() && is_shown(item))
        }
        _ => false,
    }
}

static TEXT: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::from(TextOf { signature: Signature::any(1, Volatility::Immutable) }));

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextOf {
    signature: Signature,
}

impl ScalarUDFImpl for TextOf {
    fn name(&self) -> &str {
        TEXT_OF
    }

    /// As the cast is called, so that columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|arg| arg.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(TEXT_OF, DataType::Utf8, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [ColumnarValue::Scalar(value)] = arguments.args.as_slice() {
            let text = texts(value.to_array()?.as_ref())?;
            let text = text.is_valid(0).then(|| text.value(0).to_string());
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(text)));
        }
        let values = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(Arc::new(texts(values[0].as_ref())?)))
    }
}

/// The text of each value, as clients are sent it.
///
/// # Errors
/// There is no such time zone.
pub fn texts(values: &dyn Array) -> Result<StringArray> {
    let zone = zone_of(values.data_type())?;
    let mut texts = StringBuilder::with_capacity(values.len(), values.len() * 16);
    let mut text = String::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        write_value(values, row, zone.as_ref(), &mut text)?;
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// The zone of a timestamp, or of those in an array.
fn zone_of(ty: &DataType) -> Result<Option<Tz>> {
    match ty {
        DataType::Timestamp(_, Some(zone)) => Ok(Some(zone.parse()?)),
        DataType::List(item) => zone_of(item.data_type()),
        _ => Ok(None),
    }
}

/// The text of a value that is not NULL.
fn write_value(values: &dyn Array, row: usize, zone: Option<&Tz>, out: &mut String) -> Result<()> {
    let ty = values.data_type();
    match ty {
        DataType::Boolean => out.push(if values.as_boolean().value(row) { 't' } else { 'f' }),
        DataType::Float32 => {
            number::write_float4(values.as_primitive::<Float32Type>().value(row), EXTRA_FLOAT_DIGITS, out);
        }
        DataType::Float64 => {
            number::write_float8(values.as_primitive::<Float64Type>().value(row), EXTRA_FLOAT_DIGITS, out);
        }
        DataType::Date32 => time::write_date(values.as_primitive::<Date32Type>().value(row), out),
        DataType::Time64(unit) => {
            let us = match unit {
                TimeUnit::Nanosecond => values.as_primitive::<Time64NanosecondType>().value(row) / 1_000,
                _ => values.as_primitive::<Time64MicrosecondType>().value(row),
            };
            time::write_time(us.unsigned_abs(), out);
        }
        DataType::Timestamp(unit, _) => {
            let us = timestamp_us(values, row, *unit);
            time::write_timestamp(us, zone.map(|zone| offset_at(zone, us)), out);
        }
        DataType::Interval(unit) => time::write_interval(interval(values, row, *unit), out),
        DataType::Duration(unit) => {
            // A difference of timestamps, of which whole days are days.
            let us = duration_us(values, row, *unit);
            let days = i32::try_from(us / DAY_US).unwrap_or(i32::MAX);
            time::write_interval(time::Interval { months: 0, days, us: us % DAY_US }, out);
        }
        DataType::Binary => {
            out.push_str("\\x");
            for byte in values.as_binary::<i32>().value(row) {
                let _ = write!(out, "{byte:02x}");
            }
        }
        DataType::List(_) => write_items(values, row, zone, out)?,
        // What Arrow writes as PostgreSQL does: integers, decimals and texts.
        _ => out.push_str(&array_value_to_string(values, row)?),
    }
    Ok(())
}

/// `{1,NULL,"a b"}`, and `[1,2]` for a vector.
fn write_items(values: &dyn Array, row: usize, zone: Option<&Tz>, out: &mut String) -> Result<()> {
    let is_vector = vector::is_vector(values.data_type());
    let items = values.as_list::<i32>().value(row);
    out.push(if is_vector { '[' } else { '{' });
    let mut text = String::new();
    for i in 0..items.len() {
        if i > 0 {
            out.push(',');
        }
        if items.is_null(i) {
            out.push_str("NULL");
            continue;
        }
        text.clear();
        write_value(items.as_ref(), i, zone, &mut text)?;
        let read_otherwise =
            |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',') || c.is_ascii_whitespace() || c == '\x0b';
        if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(read_otherwise) {
            let _ = write!(out, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        } else {
            out.push_str(&text);
        }
    }
    out.push(if is_vector { ']' } else { '}' });
    Ok(())
}

/// Seconds east of Greenwich at an instant. chrono's calendar ends about the year 262000; rules do not change there.
fn offset_at(zone: &Tz, us: i64) -> i32 {
    let ends = if us < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
    let instant = DateTime::from_timestamp(us.div_euclid(SECOND_US), 0).unwrap_or(ends);
    zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc()
}

fn timestamp_us(values: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Microsecond => values.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => values.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000),
        TimeUnit::Millisecond => values.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000),
        TimeUnit::Second => values.as_primitive::<TimestampSecondType>().value(row).saturating_mul(SECOND_US),
    }
}

fn duration_us(values: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Microsecond => values.as_primitive::<DurationMicrosecondType>().value(row),
        TimeUnit::Nanosecond => values.as_primitive::<DurationNanosecondType>().value(row) / 1_000,
        TimeUnit::Millisecond => values.as_primitive::<DurationMillisecondType>().value(row).saturating_mul(1_000),
        TimeUnit::Second => values.as_primitive::<DurationSecondType>().value(row).saturating_mul(SECOND_US),
    }
}

fn interval(values: &dyn Array, row: usize, unit: IntervalUnit) -> time::Interval {
    match unit {
        IntervalUnit::MonthDayNano => {
            let span = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
            time::Interval { months: span.months, days: span.days, us: span.nanoseconds / 1_000 }
        }
        IntervalUnit::DayTime => {
            let span = values.as_primitive::<IntervalDayTimeType>().value(row);
            time::Interval { months: 0, days: span.days, us: i64::from(span.milliseconds) * 1_000 }
        }
        IntervalUnit::YearMonth => {
            let months = values.as_primitive::<IntervalYearMonthType>().value(row);
            time::Interval { months, days: 0, us: 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMicrosecondArray;

    #[test]
    fn a_time_with_a_zone_is_shown_in_it() {
        // Answers of PostgreSQL 15, by SET timezone.
        for (zone, expected) in [
            ("+00:00", "2026-07-01 12:00:00.5+00"),
            ("Europe/Berlin", "2026-07-01 14:00:00.5+02"),
            ("Asia/Kolkata", "2026-07-01 17:30:00.5+05:30"),
            ("America/New_York", "2026-07-01 08:00:00.5-04"),
        ] {
            let at = TimestampMicrosecondArray::from(vec![Some(1_782_907_200_500_000), None]).with_timezone(zone);
            let texts = texts(&at).expect("it is shown");
            assert_eq!(texts.iter().collect::<Vec<_>>(), [Some(expected), None], "{zone}");
        }
    }
}
