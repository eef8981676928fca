//! Parameters: one value in text or binary to a DataFusion scalar. The binary forms are shared with COPY.

use super::{
    FieldFormat, SessionZone, WireError,
    calendar::{DAY_US, PG_EPOCH_DAYS, PG_EPOCH_US},
    cell::JSONB_VERSION,
    column::ColumnBuilder,
    parse_interval::to_arrow,
    parse_text as text,
    show_time::Interval,
    types::{arrow_type, element_oid, oid, type_name},
};
use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{DataType, IntervalMonthDayNano},
};
use datafusion::common::ScalarValue;
use std::sync::Arc;
use tidemark_catalog::uuid;

/// A value of exactly this type from its text, as COPY reads it.
pub fn value_from_text(data_type: &DataType, text: &str, time_zone: &SessionZone) -> Result<ScalarValue, WireError> {
    let mut builder = ColumnBuilder::new(data_type)?;
    builder.append_text(text, time_zone)?;
    first(&builder.finish()?)
}

/// The one value of a column. Of a list `ScalarValue::try_from_array` would make an item of its own, without the metadata that say
/// that it is of a vector.
fn first(column: &ArrayRef) -> Result<ScalarValue, WireError> {
    match column.as_list_opt::<i32>() {
        Some(list) => Ok(ScalarValue::List(Arc::new(list.clone()))),
        None => ScalarValue::try_from_array(column, 0).map_err(|e| WireError::new("XX000", e.to_string())),
    }
}

/// The value of a parameter that was declared (or inferred) with type `oid`; 0 and `unknown` are text.
///
/// A `numeric` keeps the scale it was written with. `timestamptz` text without a zone is in `time_zone`.
pub fn decode_param(
    oid: u32,
    format: FieldFormat,
    bytes: Option<&[u8]>,
    time_zone: &SessionZone,
) -> Result<ScalarValue, WireError> {
    let data_type = arrow_type(oid).ok_or_else(|| {
        WireError::new("0A000", format!("parameters of type with OID {oid} are not supported"))
            .with_hint("declare the parameter as text and cast it in the query")
    })?;
    let Some(bytes) = bytes else {
        return ScalarValue::try_new_null(&data_type).map_err(|e| WireError::new("XX000", e.to_string()));
    };
    if element_oid(oid).is_some() || oid == oid::VECTOR {
        let mut builder = ColumnBuilder::of(&data_type, oid)?;
        match format {
            FieldFormat::Text => builder.append_text(utf8(bytes)?, time_zone)?,
            FieldFormat::Binary => builder.append_binary(bytes)?,
        }
        let array = builder.finish()?;
        return first(&array);
    }
    match format {
        FieldFormat::Text => decode_text(oid, &data_type, utf8(bytes)?, time_zone),
        FieldFormat::Binary => decode_binary(oid, &data_type, bytes),
    }
}

fn decode_text(oid: u32, data_type: &DataType, s: &str, zone: &SessionZone) -> Result<ScalarValue, WireError> {
    Ok(match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(text::parse_bool(s)?)),
        DataType::Int16 => ScalarValue::Int16(Some(text::parse_int2(s)?)),
        DataType::Int32 => ScalarValue::Int32(Some(text::parse_int4(s)?)),
        DataType::Int64 if oid == oid::INT8 => ScalarValue::Int64(Some(text::parse_int8(s)?)),
        DataType::Int64 => ScalarValue::Int64(Some(text::parse_oid(s)? as i64)),
        DataType::Float32 => ScalarValue::Float32(Some(text::parse_float4(s)?)),
        DataType::Float64 => ScalarValue::Float64(Some(text::parse_float8(s)?)),
        DataType::Decimal128(_, _) => {
            let (value, precision, scale) = text::parse_decimal_free(s)?;
            ScalarValue::Decimal128(Some(value), precision, scale)
        }
        DataType::Binary => ScalarValue::Binary(Some(text::parse_bytea(s)?)),
        DataType::Date32 => ScalarValue::Date32(Some(text::parse_date(s)?)),
        DataType::Time64(_) => ScalarValue::Time64Microsecond(Some(text::parse_time(s)?)),
        DataType::Timestamp(_, None) => ScalarValue::TimestampMicrosecond(Some(text::parse_timestamp(s)?), None),
        DataType::Timestamp(_, tz) => {
            ScalarValue::TimestampMicrosecond(Some(text::parse_timestamptz(s, zone)?), tz.clone())
        }
        DataType::Interval(_) => ScalarValue::IntervalMonthDayNano(Some(text::parse_interval(s)?)),
        DataType::Null => ScalarValue::Null,
        _ if oid == oid::UUID => ScalarValue::Utf8(Some(uuid_from_text(s)?)),
        _ => ScalarValue::Utf8(Some(s.to_owned())),
    })
}

fn decode_binary(oid: u32, data_type: &DataType, b: &[u8]) -> Result<ScalarValue, WireError> {
    Ok(match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(bool_from(b)?)),
        DataType::Int16 => ScalarValue::Int16(Some(i16::from_be_bytes(fixed(b)?))),
        DataType::Int32 => ScalarValue::Int32(Some(i32::from_be_bytes(fixed(b)?))),
        DataType::Int64 if oid == oid::INT8 => ScalarValue::Int64(Some(i64::from_be_bytes(fixed(b)?))),
        DataType::Int64 => ScalarValue::Int64(Some(u32::from_be_bytes(fixed(b)?) as i64)),
        DataType::Float32 => ScalarValue::Float32(Some(f32::from_be_bytes(fixed(b)?))),
        DataType::Float64 => ScalarValue::Float64(Some(f64::from_be_bytes(fixed(b)?))),
        DataType::Decimal128(_, _) => {
            let (value, precision, scale) = text::parse_decimal_free(&numeric_text(b)?)?;
            ScalarValue::Decimal128(Some(value), precision, scale)
        }
        DataType::Binary => ScalarValue::Binary(Some(b.to_vec())),
        DataType::Date32 => ScalarValue::Date32(Some(date_from(b)?)),
        DataType::Time64(_) => ScalarValue::Time64Microsecond(Some(time_from(b)?)),
        DataType::Timestamp(_, tz) => ScalarValue::TimestampMicrosecond(Some(timestamp_from(b)?), tz.clone()),
        DataType::Interval(_) => ScalarValue::IntervalMonthDayNano(Some(interval_from(b)?)),
        DataType::Null => ScalarValue::Null,
        _ if oid == oid::JSONB => ScalarValue::Utf8(Some(utf8(jsonb_text(b)?)?.to_owned())),
        // Who has declared a text sends one: `prepared::declare`.
        _ if oid == oid::UUID && b.len() != 16 => ScalarValue::Utf8(Some(uuid_from_text(utf8(b)?)?)),
        _ if oid == oid::UUID => ScalarValue::Utf8(Some(uuid::text(fixed(b)?))),
        _ => ScalarValue::Utf8(Some(utf8(b)?.to_owned())),
    })
}

/// The numbers in the binary form of a `vector`: how many in 16 bits, 16 bits of nothing, each in 32 bits.
pub(crate) fn vector_from(bytes: &[u8]) -> Result<Vec<f32>, WireError> {
    let mut reader = Reader(bytes);
    let count = i16::from_be_bytes(reader.take()?);
    let unused = i16::from_be_bytes(reader.take()?);
    if unused != 0 {
        return Err(WireError::new("22000", format!("expected unused to be 0, not {unused}")));
    }
    let count = usize::try_from(count).map_err(|_| WireError::binary())?;
    let numbers = (0..count).map(|_| Ok(f32::from_be_bytes(reader.take()?))).collect::<Result<Vec<_>, WireError>>()?;
    if reader.0.is_empty() { Ok(numbers) } else { Err(WireError::binary()) }
}

/// A UUID in the spelling that is held.
pub(crate) fn uuid_from_text(text: &str) -> Result<String, WireError> {
    uuid::read(text).map_err(|message| WireError::new("22P02", message))
}

/// The text in the binary form of a `jsonb`.
pub(crate) fn jsonb_text(bytes: &[u8]) -> Result<&[u8], WireError> {
    match bytes.split_first() {
        Some((&JSONB_VERSION, text)) => Ok(text),
        Some((version, _)) => Err(WireError::new("22P03", format!("unsupported jsonb version number {version}"))),
        None => Err(WireError::short()),
    }
}

/// Text as PostgreSQL accepts it: UTF-8 without NUL.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, WireError> {
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::encoding(bytes))?;
    if bytes.contains(&0) {
        return Err(WireError::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
    Ok(text)
}

pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| if bytes.len() < N { WireError::short() } else { WireError::binary() })
}

pub(crate) fn bool_from(bytes: &[u8]) -> Result<bool, WireError> {
    fixed::<1>(bytes).map(|[b]| b != 0)
}

pub(crate) fn date_from(bytes: &[u8]) -> Result<i32, WireError> {
    match i32::from_be_bytes(fixed(bytes)?) {
        infinite @ (i32::MAX | i32::MIN) => Ok(infinite),
        days => days
            .checked_add(PG_EPOCH_DAYS)
            .filter(|d| *d != i32::MAX)
            .ok_or_else(|| WireError::new("22008", "date out of range")),
    }
}

pub(crate) fn time_from(bytes: &[u8]) -> Result<i64, WireError> {
    match i64::from_be_bytes(fixed(bytes)?) {
        us @ 0..=DAY_US => Ok(us),
        _ => Err(WireError::new("22008", "time out of range")),
    }
}

pub(crate) fn timestamp_from(bytes: &[u8]) -> Result<i64, WireError> {
    match i64::from_be_bytes(fixed(bytes)?) {
        infinite @ (i64::MAX | i64::MIN) => Ok(infinite),
        us => us
            .checked_add(PG_EPOCH_US)
            .filter(|v| *v != i64::MAX)
            .ok_or_else(|| WireError::new("22008", "timestamp out of range")),
    }
}

pub(crate) fn interval_from(bytes: &[u8]) -> Result<IntervalMonthDayNano, WireError> {
    let bytes: [u8; 16] = fixed(bytes)?;
    let us = i64::from_be_bytes(fixed(&bytes[..8])?);
    let days = i32::from_be_bytes(fixed(&bytes[8..12])?);
    let months = i32::from_be_bytes(fixed(&bytes[12..])?);
    to_arrow(Interval { months, days, us })
}

/// A binary numeric written out, so that one place rounds and checks ranges.
pub(crate) fn numeric_text(bytes: &[u8]) -> Result<String, WireError> {
    let mut reader = Reader(bytes);
    let count = u16::from_be_bytes(reader.take()?);
    let weight = i16::from_be_bytes(reader.take()?) as i32;
    let sign = u16::from_be_bytes(reader.take()?);
    let dscale = u16::from_be_bytes(reader.take()?) as usize;
    let invalid = |what: &str| WireError::new("22P03", format!("invalid {what} in external \"numeric\" value"));
    if dscale > 0x3fff {
        return Err(invalid("scale"));
    }
    let mut text = String::new();
    match sign {
        0x0000 => {}
        0x4000 => text.push('-'),
        0xC000 => return Ok("NaN".into()),
        0xD000 => return Ok("Infinity".into()),
        0xF000 => return Ok("-Infinity".into()),
        _ => return Err(invalid("sign")),
    }
    // Group i stands for 10000^(weight - i): as one integer with an exponent, then shifted to the scale.
    let mut digits = String::with_capacity(count as usize * 4);
    for _ in 0..count {
        let group = u16::from_be_bytes(reader.take()?);
        if group > 9999 {
            return Err(invalid("digit"));
        }
        digits.push_str(&format!("{group:04}"));
    }
    if !reader.0.is_empty() {
        return Err(WireError::binary());
    }
    let significant = digits.trim_start_matches('0');
    // Where the decimal point goes, counted from the first digit.
    let point = (weight + 1) * 4 - (digits.len() - significant.len()) as i32;
    if significant.is_empty() || point < -(dscale as i32) - 1 {
        text.push('0');
        push_fraction(&mut text, "", dscale);
    } else if point > 76 {
        // Wider than any decimal of ours; the reader will say so.
        text.push('1');
        text.extend(std::iter::repeat_n('0', 77));
    } else if point <= 0 {
        text.push('0');
        let zeros = "0".repeat(point.unsigned_abs() as usize);
        push_fraction(&mut text, &(zeros + significant), dscale);
    } else {
        let point = point as usize;
        let whole = significant.get(..point).unwrap_or(significant);
        text.push_str(whole);
        text.extend(std::iter::repeat_n('0', point - whole.len()));
        push_fraction(&mut text, significant.get(point..).unwrap_or(""), dscale);
    }
    Ok(text)
}

/// Exactly `scale` digits after the point: padded, or cut as PostgreSQL's receive function cuts.
fn push_fraction(text: &mut String, fraction: &str, scale: usize) {
    if scale > 0 {
        text.push('.');
        let kept = fraction.get(..scale).unwrap_or(fraction);
        text.push_str(kept);
        text.extend(std::iter::repeat_n('0', scale - kept.len()));
    }
}

/// Takes big-endian fields off the front; 08P01 where they end early.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(WireError::short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(WireError::short)?;
        self.0 = rest;
        Ok(head)
    }
}

/// An integer of any of the types that one is held as here: `smallint`, `integer`, `bigint`, or an unsigned `oid`.
pub(crate) fn integer_from(oid: u32, bytes: &[u8]) -> Result<i64, WireError> {
    Ok(match oid {
        oid::INT2 => i16::from_be_bytes(fixed(bytes)?).into(),
        oid::INT4 => i32::from_be_bytes(fixed(bytes)?).into(),
        oid::INT8 => i64::from_be_bytes(fixed(bytes)?),
        _ => u32::from_be_bytes(fixed(bytes)?).into(),
    })
}

/// `None` is NULL.
type Elements<'a> = Vec<Option<&'a [u8]>>;

/// The elements of a binary array of one dimension, and the type it says they are of. Integers may be of another width, or
/// be OIDs (asyncpg sends `oid[]`, which is held as `bigint[]`).
pub(crate) fn array_elements(bytes: &[u8], element: u32) -> Result<(u32, Elements<'_>), WireError> {
    let mut reader = Reader(bytes);
    let dimensions = i32::from_be_bytes(reader.take()?);
    let _has_nulls: [u8; 4] = reader.take()?;
    let sent = u32::from_be_bytes(reader.take()?);
    // Text and its relatives are the same bytes.
    let like = |oid: u32| match arrow_type(oid) {
        Some(DataType::Utf8) => oid::TEXT,
        Some(ty) if ty.is_integer() => oid::INT8,
        _ => oid,
    };
    if like(sent) != like(element) {
        return Err(WireError::new(
            "42804",
            format!(
                "binary data has array element type {sent} ({}) instead of expected {element} ({})",
                type_name(sent),
                type_name(element)
            ),
        ));
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = i32::from_be_bytes(reader.take()?);
            let _lower_bound: [u8; 4] = reader.take()?;
            usize::try_from(count).map_err(|_| WireError::binary())?
        }
        d if d < 0 => return Err(WireError::new("22P03", format!("invalid number of dimensions: {d}"))),
        _ => return Err(text::multidimensional()),
    };
    // Each element has at least its length: a count that cannot be there must not reserve memory.
    let mut elements = Vec::with_capacity(count.min(reader.0.len() / 4));
    for _ in 0..count {
        let len = i32::from_be_bytes(reader.take()?);
        elements.push(match len {
            -1 => None,
            len => Some(reader.bytes(usize::try_from(len).map_err(|_| WireError::binary())?)?),
        });
    }
    if reader.0.is_empty() { Ok((sent, elements)) } else { Err(WireError::binary()) }
}
