//! JSON made of values, as PostgreSQL writes it: the functions behind `to_json`, `json_build_object`, `json_build_array`, `json_agg` and
//! `json_object_agg`. Each of these is read as a call of one of them inside `json(…)`, and those for `jsonb` inside `jsonb(…)`:
//!
//! ```text
//! json_build_object('a', x, 'b', d -> 'c')        json(json_object_of('vvvj', 'a', x, 'b', d -> 'c'))
//! jsonb_agg(x ORDER BY y) FILTER (WHERE z)        jsonb(json_items('v', array_agg(x ORDER BY y) FILTER (WHERE z)))
//! ```
//!
//! A document is a text here, so the first argument says of each of the others whether it is one (`j`) or a value (`v`); of columns that
//! is known when the query is bound ([`super::documents`]).

use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    functions::by_row::{ByRow, Call, no_match},
    respelled,
    shown::PG_TYPE,
};
use arrow::array::{Array, ArrayRef, timezone::Tz};
use arrow_schema::{DataType, Field, TimeUnit};
use chrono::{DateTime, Offset, TimeZone};
use datafusion::{
    common::ScalarValue,
    logical_expr::ScalarUDF,
    sql::sqlparser::ast::{
        self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
        SelectItem, SetExpr,
    },
};
use std::fmt::Write;
use tidemark_catalog::json::string;

pub(super) const VALUE: &str = "json_value_of";
pub(super) const OBJECT: &str = "json_object_of";
pub(super) const ARRAY: &str = "json_array_of";
pub(super) const ITEMS: &str = "json_items";
pub(super) const PAIRS: &str = "json_pairs";

pub(super) fn functions() -> [ScalarUDF; 5] {
    let ty = DataType::Utf8;
    [
        ByRow::strict(
            VALUE,
            |types| taken(VALUE, types, Some(2)),
            ty.clone(),
            |args, call| {
                let mut out = String::new();
                write(&args[1], is_document(args, call, 1), call.zone, &mut out)?;
                Ok(ScalarValue::Utf8(Some(out)))
            },
        ),
        ByRow::of_nulls(
            OBJECT,
            |types| taken(OBJECT, types, None),
            ty.clone(),
            |args, call| object(args, call).map(|object| ScalarValue::Utf8(Some(object))),
        ),
        ByRow::of_nulls(
            ARRAY,
            |types| taken(ARRAY, types, None),
            ty.clone(),
            |args, call| {
                let mut out = "[".to_string();
                for (at, value) in args.iter().enumerate().skip(1) {
                    out.push_str(if at > 1 { ", " } else { "" });
                    write(value, is_document(args, call, at), call.zone, &mut out)?;
                }
                Ok(ScalarValue::Utf8(Some(out + "]")))
            },
        ),
        ByRow::strict(
            ITEMS,
            |types| taken(ITEMS, types, Some(2)),
            ty.clone(),
            |args, call| items(args, call).map(|array| ScalarValue::Utf8(Some(array))),
        ),
        ByRow::strict(
            PAIRS,
            |types| taken(PAIRS, types, Some(3)),
            ty,
            |args, call| pairs(args, call).map(|object| ScalarValue::Utf8(Some(object))),
        ),
    ]
}

/// As they are, but every text is one text.
fn taken(name: &str, types: &[DataType], count: Option<usize>) -> datafusion::error::Result<Vec<DataType>> {
    if types.is_empty() || count.is_some_and(|count| count != types.len()) {
        return no_match(name, types);
    }
    let one_text = |ty: &DataType| match ty {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        other => other.clone(),
    };
    Ok(types.iter().map(one_text).collect())
}

/// Whether an argument is a document: by its letter, or because its column is shown as one.
fn is_document(args: &[ScalarValue], call: &Call<'_>, at: usize) -> bool {
    let letters = args.first().and_then(|letters| letters.try_as_str()).flatten().unwrap_or_default();
    letters.as_bytes().get(at - 1) == Some(&b'j') || call.fields.get(at).is_some_and(|field| is_shown_so(field))
}

fn is_shown_so(field: &Field) -> bool {
    field.metadata().get(PG_TYPE).is_some_and(|shown| shown == "json" || shown == "jsonb")
}

fn object(args: &[ScalarValue], call: &Call<'_>) -> PlanResult<String> {
    if args.len().is_multiple_of(2) {
        let message = "argument list must have even number of elements";
        return Err(PlanError::new(sqlstate::INVALID_PARAMETER, message)
            .hint("The arguments of json_build_object() must consist of alternating keys and values."));
    }
    let mut out = "{".to_string();
    for at in (1..args.len()).step_by(2) {
        out.push_str(if at > 1 { ", " } else { "" });
        let null = || {
            PlanError::new(sqlstate::INVALID_PARAMETER, format!("argument {at} cannot be null"))
                .hint("Object keys should be text.")
        };
        write_key(&args[at], call.zone, &mut out)?.ok_or_else(null)?;
        out.push_str(" : ");
        write(&args[at + 1], is_document(args, call, at + 1), call.zone, &mut out)?;
    }
    out.push('}');
    Ok(out)
}

fn items(args: &[ScalarValue], call: &Call<'_>) -> PlanResult<String> {
    let values = values_of(&args[1])?;
    let is_document = is_document(args, call, 1);
    let is_nested = values.data_type().is_nested();
    let mut out = "[".to_string();
    for at in 0..values.len() {
        out.push_str(if at > 0 { ", " } else { "" });
        // PostgreSQL begins a line with each of these.
        out.push_str(if at > 0 && is_nested && values.is_valid(at) { "\n " } else { "" });
        write(&item(&values, at)?, is_document, call.zone, &mut out)?;
    }
    out.push(']');
    Ok(out)
}

fn pairs(args: &[ScalarValue], call: &Call<'_>) -> PlanResult<String> {
    let (keys, values) = (values_of(&args[1])?, values_of(&args[2])?);
    let is_document = is_document(args, call, 2);
    let mut out = "{ ".to_string();
    for at in 0..keys.len().min(values.len()) {
        out.push_str(if at > 0 { ", " } else { "" });
        let null = || PlanError::new(sqlstate::INVALID_PARAMETER, "field name must not be null");
        write_key(&item(&keys, at)?, call.zone, &mut out)?.ok_or_else(null)?;
        out.push_str(" : ");
        write(&item(&values, at)?, is_document, call.zone, &mut out)?;
    }
    out.push_str(" }");
    Ok(out)
}

fn values_of(list: &ScalarValue) -> PlanResult<ArrayRef> {
    match list {
        ScalarValue::List(list) => Ok(list.value(0)),
        ScalarValue::LargeList(list) => Ok(list.value(0)),
        ScalarValue::FixedSizeList(list) => Ok(list.value(0)),
        other => Err(PlanError::new(sqlstate::INTERNAL, format!("{} is no array", other.data_type()))),
    }
}

fn item(values: &ArrayRef, at: usize) -> PlanResult<ScalarValue> {
    Ok(ScalarValue::try_from_array(values, at)?)
}

/// `None` of NULL, which is no key.
fn write_key(key: &ScalarValue, zone: &str, out: &mut String) -> PlanResult<Option<()>> {
    if key.is_null() {
        return Ok(None);
    }
    let mut text = String::new();
    write(key, false, zone, &mut text)?;
    if text.starts_with('"') {
        out.push_str(&text);
    } else {
        string(&text, out);
    }
    Ok(Some(()))
}

/// The value to the end of `out`; a document as it is written.
fn write(value: &ScalarValue, is_document: bool, zone: &str, out: &mut String) -> PlanResult<()> {
    if value.is_null() {
        out.push_str("null");
        return Ok(());
    }
    match value {
        ScalarValue::Boolean(Some(value)) => out.push_str(if *value { "true" } else { "false" }),
        ScalarValue::Float64(Some(value)) => match value.is_finite() {
            true => out.push_str(&double(&format!("{value:e}"), &value.to_string(), 15)),
            false => string(not_finite(*value), out),
        },
        ScalarValue::Float32(Some(value)) => match value.is_finite() {
            true => out.push_str(&double(&format!("{value:e}"), &value.to_string(), 6)),
            false => string(not_finite((*value).into()), out),
        },
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            if is_document {
                out.push_str(text);
            } else {
                string(text, out);
            }
        }
        ScalarValue::Date32(Some(i32::MAX)) => string("infinity", out),
        ScalarValue::Date32(Some(i32::MIN)) => string("-infinity", out),
        ScalarValue::TimestampMicrosecond(Some(us), has_zone) => {
            string(&moment(*us, has_zone.is_some().then_some(zone))?, out);
        }
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => {
            let mut text = "\\x".to_string();
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            string(&text, out);
        }
        ScalarValue::IntervalMonthDayNano(Some(of)) => {
            string(&span(of.months, of.days.into(), of.nanoseconds / 1_000), out)
        }
        ScalarValue::DurationMicrosecond(Some(us)) => string(&span(0, us / DAY_US, us % DAY_US), out),
        ScalarValue::List(_) | ScalarValue::LargeList(_) | ScalarValue::FixedSizeList(_) => {
            let values = values_of(value)?;
            out.push('[');
            for at in 0..values.len() {
                out.push_str(if at > 0 { "," } else { "" });
                write(&item(&values, at)?, is_document, zone, out)?;
            }
            out.push(']');
        }
        ScalarValue::Struct(row) => {
            out.push('{');
            for (at, (field, column)) in row.fields().iter().zip(row.columns()).enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                string(field.name(), out);
                out.push(':');
                write(&item(column, 0)?, is_shown_so(field), zone, out)?;
            }
            out.push('}');
        }
        other => {
            let ty = other.data_type();
            if let DataType::Timestamp(_, has_zone) = &ty {
                let one = other.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, has_zone.clone()))?;
                return write(&one, is_document, zone, out);
            }
            let text = other.cast_to(&DataType::Utf8)?;
            let text = text.try_as_str().flatten().unwrap_or_default();
            match ty.is_numeric() {
                true => out.push_str(text),
                false => string(trimmed(text), out),
            }
        }
    }
    Ok(())
}

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// The shortest digits that read back as the number, with an exponent from so many of them on.
fn double(scientific: &str, plain: &str, digits: i32) -> String {
    let parts = scientific.split_once('e').and_then(|(digits, power)| Some((digits, power.parse::<i32>().ok()?)));
    match parts {
        Some((mantissa, power)) if power < -4 || power >= digits => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", power.abs())
        }
        _ => plain.to_string(),
    }
}

fn not_finite(value: f64) -> &'static str {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    }
}

/// `2026-01-02T03:04:05.12+01:00`, without the offset where there is no zone.
fn moment(us: i64, zone: Option<&str>) -> PlanResult<String> {
    match us {
        i64::MAX => return Ok("infinity".to_string()),
        i64::MIN => return Ok("-infinity".to_string()),
        _ => {}
    }
    let out_of_range = || PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, "timestamp out of range");
    let utc = DateTime::from_timestamp_micros(us).ok_or_else(out_of_range)?.naive_utc();
    let zone = zone.and_then(|zone| zone.parse::<Tz>().ok());
    let east = zone.map(|zone| zone.offset_from_utc_datetime(&utc).fix().local_minus_utc());
    let shift = chrono::TimeDelta::seconds(east.unwrap_or(0).into());
    let local = utc.checked_add_signed(shift).ok_or_else(out_of_range)?;
    let mut text = local.format("%Y-%m-%dT%H:%M:%S").to_string();
    let fraction = us.rem_euclid(SECOND_US);
    if fraction != 0 {
        let _ = write!(text, ".{fraction:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    if let Some(east) = east {
        let (sign, seconds) = (if east < 0 { '-' } else { '+' }, east.unsigned_abs());
        let _ = write!(text, "{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    }
    Ok(text)
}

/// `1 year 2 mons 3 days 04:05:06`: what follows something negative has its sign.
fn span(months: i32, days: i64, us: i64) -> String {
    let mut out = String::new();
    let mut after_negative = false;
    for (count, unit) in [(i64::from(months / 12), "year"), (i64::from(months % 12), "mon"), (days, "day")] {
        if count != 0 {
            let space = if out.is_empty() { "" } else { " " };
            let sign = if after_negative && count > 0 { "+" } else { "" };
            let many = if count == 1 { "" } else { "s" };
            let _ = write!(out, "{space}{sign}{count} {unit}{many}");
            after_negative = count < 0;
        }
    }
    if out.is_empty() || us != 0 {
        let space = if out.is_empty() { "" } else { " " };
        let sign = match (us < 0, after_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let seconds = us.unsigned_abs() / 1_000_000;
        let fraction = format!(".{:06}", us.unsigned_abs() % 1_000_000);
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        let _ =
            write!(out, "{space}{sign}{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    out
}

/// A time of day without zeros at its end.
fn trimmed(text: &str) -> &str {
    match text.contains(':') && text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

/// The call of one of these functions by PostgreSQL's name as that of the function behind it; `None`: it is another.
pub(super) fn written(function: &Function) -> Option<Expr> {
    let (kind, is_binary) = match function.name.to_string().to_lowercase().as_str() {
        "to_json" => (VALUE, false),
        "to_jsonb" => (VALUE, true),
        "json_build_object" => (OBJECT, false),
        "jsonb_build_object" => (OBJECT, true),
        "json_build_array" => (ARRAY, false),
        "jsonb_build_array" => (ARRAY, true),
        "json_agg" => (ITEMS, false),
        "jsonb_agg" => (ITEMS, true),
        "json_object_agg" => (PAIRS, false),
        "jsonb_object_agg" => (PAIRS, true),
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    let mut given = vec![];
    for argument in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else { return None };
        given.push(argument.clone());
    }
    let letters: String = given.iter().map(|argument| if makes_document(argument) { 'j' } else { 'v' }).collect();
    let is_aggregate = matches!(kind, ITEMS | PAIRS);
    let fits = match kind {
        VALUE | ITEMS => given.len() == 1,
        PAIRS => given.len() == 2,
        _ => true,
    };
    let is_plain = function.over.is_none()
        && function.filter.is_none()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    if !fits || !(is_plain || is_aggregate) {
        return None;
    }
    let values = given.into_iter().map(|value| if is_aggregate { gathered(function, value) } else { value });
    let letters = Expr::value(ast::Value::SingleQuotedString(letters));
    let made = respelled::call(kind, std::iter::once(letters).chain(values));
    Some(respelled::call(if is_binary { super::JSONB } else { super::JSON }, [made]))
}

/// One argument of an aggregate in an array, over the same rows and in the same order.
fn gathered(function: &Function, value: Expr) -> Expr {
    let mut gathered = function.clone();
    gathered.name = ObjectName::from(vec![Ident::new("array_agg")]);
    if let FunctionArguments::List(list) = &mut gathered.args {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(value))];
    }
    Expr::Function(gathered)
}

/// Whether an expression, of which the parts have been read already, says itself that it is a document.
fn makes_document(expr: &Expr) -> bool {
    /// Functions that give one; the last is what the server reads `row_to_json` as.
    const MAKE: [&str; 6] =
        [super::JSON, super::JSONB, "json_object_field", "json_array_element", "json_extract_path", "object$json"];
    match expr {
        Expr::Nested(inner) => makes_document(inner),
        Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::Arrow | BinaryOperator::HashArrow),
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let first = match &function.args {
                FunctionArguments::List(list) => list.args.first(),
                _ => None,
            };
            match first {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) if name == "coalesce" || name == "nullif" => {
                    makes_document(first)
                }
                _ => MAKE.contains(&name.as_str()),
            }
        }
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.as_slice() {
                [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] => makes_document(expr),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::IntervalMonthDayNano;

    fn json(value: &ScalarValue) -> String {
        let mut out = String::new();
        write(value, false, "Europe/Berlin", &mut out).expect("it can be written");
        out
    }

    /// As PostgreSQL 15 writes them.
    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        let numbers = [Some(1), None].map(ScalarValue::Int64);
        for (value, expected) in [
            (ScalarValue::Null, "null"),
            (ScalarValue::Boolean(Some(true)), "true"),
            (ScalarValue::Int64(Some(-7)), "-7"),
            (ScalarValue::Decimal128(Some(1250), 10, 2), "12.50"),
            (ScalarValue::Float64(Some(1.0)), "1"),
            (ScalarValue::Float64(Some(1e20)), "1e+20"),
            (ScalarValue::Float64(Some(1e14)), "100000000000000"),
            (ScalarValue::Float64(Some(0.00001)), "1e-05"),
            (ScalarValue::Float64(Some(f64::NAN)), "\"NaN\""),
            (ScalarValue::Float32(Some(1e6)), "1e+06"),
            (ScalarValue::Utf8(Some("a \"b\"\n".to_string())), "\"a \\\"b\\\"\\n\""),
            (ScalarValue::Date32(Some(20_455)), "\"2026-01-02\""),
            (ScalarValue::TimestampMicrosecond(Some(1_767_323_045_120_000), None), "\"2026-01-02T03:04:05.12\""),
            (
                ScalarValue::TimestampMicrosecond(Some(1_767_323_045_000_000), Some("+00:00".into())),
                "\"2026-01-02T04:04:05+01:00\"",
            ),
            (ScalarValue::Binary(Some(vec![0x78, 0])), "\"\\\\x7800\""),
            (
                ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(-14, 3, 7_500_000_000))),
                "\"-1 years -2 mons +3 days 00:00:07.5\"",
            ),
            (ScalarValue::List(ScalarValue::new_list_nullable(&numbers, &DataType::Int64)), "[1,null]"),
        ] {
            assert_eq!(json(&value), expected);
        }
    }
}
