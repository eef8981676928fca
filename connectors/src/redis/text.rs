//! What people read in Redis, in the layout `hash`: names of entities and values of features as text (docs/redis-layout.md).

use arrow::datatypes::{DataType, FieldRef};
use chrono::{DateTime, NaiveTime, SecondsFormat};
use std::fmt::Write;
use tidemark_engine::{online::OnlineRow, seam::OnlineValue, value::Value};

/// The readable fields of a value, each name before its text; none where the key has no row.
///
/// # Errors
/// The row is none of this version's.
pub fn fields(columns: &[FieldRef], value: &OnlineValue) -> Result<Vec<String>, String> {
    let Some(row) = &value.row else { return Ok(vec![]) };
    let row = OnlineRow::decode(row)?;
    let version = format!("{}.{}", value.version.epoch, value.version.counter);
    let mut fields = vec!["@version".to_string(), version];
    let mut instant = |name: &str, us: i64| fields.extend([name.to_string(), us.to_string()]);
    instant("@since", row.instant_us);
    instant("@event", row.event_us);
    if let Some(until_us) = row.until_us {
        instant("@until", until_us);
    }
    for (column, value) in columns.iter().zip(&row.outputs) {
        if let Some(text) = text(column.data_type(), value) {
            fields.extend([column.name().clone(), text]);
        }
    }
    Ok(fields)
}

/// The name of an entity: the columns of its key with `/` between them. A key of another encoding is in hexadecimal.
pub fn name(key: &[u8]) -> String {
    parts(key).map_or_else(|| format!("0x{}", hex(key)), |parts| parts.join("/"))
}

fn parts(mut key: &[u8]) -> Option<Vec<String>> {
    let mut parts = vec![];
    while let Some((kind, rest)) = key.split_first() {
        key = rest;
        parts.push(match kind {
            0 => "%".to_string(),
            1 => (take(&mut key, 1)?[0] == 1).to_string(),
            2 => i64::from_be_bytes(take(&mut key, 8)?.try_into().ok()?).to_string(),
            3 => float(f64::from_bits(u64::from_be_bytes(take(&mut key, 8)?.try_into().ok()?))),
            4 => i128::from_be_bytes(take(&mut key, 16)?.try_into().ok()?).to_string(),
            5 => {
                let text = std::str::from_utf8(take_counted(&mut key)?).ok()?;
                text.replace('%', "%25").replace('/', "%2F")
            }
            6 => hex(take_counted(&mut key)?),
            _ => return None,
        });
    }
    Some(parts)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
    take(bytes, length as usize)
}

/// The text of a feature; `None`: it is NULL.
fn text(ty: &DataType, value: &Value) -> Option<String> {
    Some(match (ty, value) {
        (_, Value::Null) => return None,
        (_, Value::Bool(truth)) => truth.to_string(),
        (DataType::Date32, Value::Int(days)) => date(*days).unwrap_or_else(|| days.to_string()),
        (DataType::Timestamp(_, zone), Value::Int(us)) => {
            let text = DateTime::from_timestamp_micros(*us).map(|t| t.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            let text = text.unwrap_or_else(|| us.to_string());
            if zone.is_some() { text } else { text.trim_end_matches('Z').to_string() }
        }
        (DataType::Time64(_), Value::Int(us)) => time(*us).unwrap_or_else(|| us.to_string()),
        (_, Value::Int(number)) => number.to_string(),
        (_, Value::Float(number)) => float(*number),
        (DataType::Decimal128(_, scale), Value::Decimal(unscaled)) => decimal(unscaled.get(), *scale),
        (_, Value::Decimal(unscaled)) => unscaled.get().to_string(),
        (_, Value::Text(text)) => text.to_string(),
        (_, Value::Bytes(bytes)) => hex(bytes),
        (_, Value::Interval { months, days, nanos }) => format!("{months} months {days} days {nanos} nanoseconds"),
        (ty, Value::List(items)) => {
            let ty = if let DataType::List(item) = ty { item.data_type() } else { ty };
            let items: Vec<Option<String>> = items.iter().map(|item| text(ty, item)).collect();
            serde_json::to_string(&items).unwrap_or_default()
        }
    })
}

/// Whole numbers without a point, as far as they are exact; others with as few digits as tell them apart.
fn float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_string(),
        f64::INFINITY => "Infinity".to_string(),
        f64::NEG_INFINITY => "-Infinity".to_string(),
        _ if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number}"),
        _ => format!("{number:?}"),
    }
}

fn date(days: i64) -> Option<String> {
    let day = DateTime::from_timestamp(days.checked_mul(86_400)?, 0)?;
    Some(day.date_naive().to_string())
}

fn time(us: i64) -> Option<String> {
    let us = u64::try_from(us).ok()?;
    let seconds = u32::try_from(us / 1_000_000).ok()?;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds, (us % 1_000_000) as u32 * 1_000)?;
    Some(time.to_string())
}

fn decimal(unscaled: i128, scale: i8) -> String {
    let digits = unscaled.unsigned_abs().to_string();
    let sign = if unscaled < 0 { "-" } else { "" };
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) => {
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            format!("{sign}{whole}.{part}")
        }
        Err(_) => format!("{sign}{digits}{}", "0".repeat(usize::from(scale.unsigned_abs()))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, TimeUnit};
    use bytes::Bytes;
    use std::sync::Arc;
    use tidemark_engine::{compiled::Row, seam::PutVersion, value::encode_row};

    #[test]
    fn names_are_those_of_the_documentation_and_no_two_keys_share_one() {
        let named = |values: &[Value]| name(&encode_row(values));
        let texts = |text: &str| Value::Text(text.into());
        assert_eq!(named(&[]), "");
        assert_eq!(named(&[Value::Int(-7), texts("CH")]), "-7/CH");
        assert_eq!(named(&[texts("a/b%"), Value::Null]), "a%2Fb%25/%");
        assert_eq!(named(&[Value::Bool(true), Value::Bytes([1, 255].into())]), "true/01ff");
        assert_eq!(named(&[Value::decimal(-5), Value::float(2.5)]), "-5/2.5");
        assert_eq!(name(b"\x02abc"), "0x02616263");
    }

    #[test]
    fn values_are_text_as_the_documentation_has_it() {
        let ts = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let us = 1_700_000_000_500_000;
        for (ty, value, expected) in [
            (DataType::Int64, Value::Null, None),
            (DataType::Int64, Value::Int(i64::MIN), Some("-9223372036854775808")),
            (DataType::Float64, Value::float(3.0), Some("3")),
            (DataType::Float64, Value::float(0.1), Some("0.1")),
            (DataType::Float64, Value::float(1e20), Some("1e20")),
            (DataType::Float64, Value::float(f64::NEG_INFINITY), Some("-Infinity")),
            (DataType::Decimal128(10, 2), Value::decimal(-5), Some("-0.05")),
            (DataType::Decimal128(10, 0), Value::decimal(12), Some("12")),
            (DataType::Date32, Value::Int(19_675), Some("2023-11-14")),
            (ts(Some("UTC")), Value::Int(us), Some("2023-11-14T22:13:20.500Z")),
            (ts(None), Value::Int(us), Some("2023-11-14T22:13:20.500")),
            (DataType::Time64(TimeUnit::Microsecond), Value::Int(3_661_000_000), Some("01:01:01")),
            (DataType::Utf8, Value::Text("a".into()), Some("a")),
            (DataType::Boolean, Value::Bool(false), Some("false")),
        ] {
            assert_eq!(text(&ty, &value).as_deref(), expected, "{ty} {value:?}");
        }
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let items = Value::List([Value::Int(1), Value::Null].into());
        assert_eq!(text(&list, &items).as_deref(), Some("[\"1\",null]"));
    }

    #[test]
    fn a_row_has_its_version_and_its_instants_beside_its_features() {
        let columns =
            [Arc::new(Field::new("n", DataType::Int64, true)), Arc::new(Field::new("x", DataType::Utf8, true))];
        let row =
            Row { key: [].into(), instant_us: 1_000, event_us: 990, outputs: [Value::Int(3), Value::Null].into() };
        let bytes = OnlineRow::encode(&row, Some(1_500)).expect("bytes");
        let mut value = OnlineValue {
            key: Bytes::new(),
            version: PutVersion { epoch: 2, counter: 7 },
            row: Some(Bytes::from(bytes)),
        };
        let expected = ["@version", "2.7", "@since", "1000", "@event", "990", "@until", "1500", "n", "3"];
        assert_eq!(fields(&columns, &value).expect("fields"), expected);
        value.row = None;
        assert_eq!(fields(&columns, &value), Ok(vec![]));
    }
}
