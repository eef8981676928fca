//! Binary results as PostgreSQL writes them in text, so that one file of expectations serves both protocols. Slow and
//! written against the documentation of the formats, not against our encoder.

use chrono::{DateTime, Datelike, Days, NaiveDate};
use std::error::Error;
use tokio_postgres::types::{FromSql, Kind, Type};

/// A value's text.
pub struct Shown(pub String);

impl<'a> FromSql<'a> for Shown {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        shown(ty, raw).map(Shown)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A cell in a file: NULL and the empty text can be told from a missing column.
pub fn cell(value: Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text,
    }
}

fn shown(ty: &Type, raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    if let Kind::Array(item) = ty.kind() {
        return array(item, raw);
    }
    Ok(match *ty {
        Type::BOOL => if bool::from_sql(ty, raw)? { "t" } else { "f" }.to_owned(),
        Type::INT2 => i16::from_sql(ty, raw)?.to_string(),
        Type::INT4 => i32::from_sql(ty, raw)?.to_string(),
        Type::INT8 => i64::from_sql(ty, raw)?.to_string(),
        Type::OID | Type::REGCLASS | Type::REGTYPE => u32::from_sql(&Type::OID, raw)?.to_string(),
        Type::FLOAT4 => {
            let value = f32::from_sql(ty, raw)?;
            float(value.is_nan(), f64::from(value), &format!("{value:e}"), 6)
        }
        Type::FLOAT8 => {
            let value = f64::from_sql(ty, raw)?;
            float(value.is_nan(), value, &format!("{value:e}"), 15)
        }
        Type::NUMERIC => numeric(raw)?,
        Type::BYTEA => format!("\\x{}", raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Type::DATE => day(date(i64::from(i32::from_be_bytes(raw.try_into()?)))?),
        Type::TIME => time(i64::from_be_bytes(raw.try_into()?)),
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(raw.try_into()?))?,
        Type::TIMESTAMPTZ => format!("{}+00", timestamp(i64::from_be_bytes(raw.try_into()?))?),
        Type::INTERVAL => interval(raw)?,
        Type::UUID => {
            let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let raw: &[u8; 16] = raw.try_into()?;
            [&raw[..4], &raw[4..6], &raw[6..8], &raw[8..10], &raw[10..]].map(digits).join("-")
        }
        Type::JSONB => String::from_utf8(raw.strip_prefix(&[1]).ok_or("jsonb of another form")?.to_vec())?,
        _ if ty.name() == "vector" => vector(raw)?,
        _ => String::from_utf8(raw.to_vec())?,
    })
}

/// pgvector: how many numbers, two bytes of nothing, the numbers.
fn vector(raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let (head, numbers) = raw.split_at_checked(4).ok_or("a short vector")?;
    if head[2..] != [0, 0] || usize::from(u16::from_be_bytes([head[0], head[1]])) * 4 != numbers.len() {
        return Err("a vector of another length".into());
    }
    let shown = numbers.chunks_exact(4).map(|number| shown(&Type::FLOAT4, number)).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("[{}]", shown.join(",")))
}

const DAY_US: i64 = 86_400_000_000;

fn date(days_since_2000: i64) -> Result<NaiveDate, Box<dyn Error + Sync + Send>> {
    let epoch = DateTime::from_timestamp(946_684_800, 0).ok_or("no epoch")?.date_naive();
    let days = Days::new(days_since_2000.unsigned_abs());
    let date = if days_since_2000 < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) };
    date.ok_or_else(|| "the date is out of range".into())
}

/// `2026-03-15`, `0044-03-15 BC`: there is no year 0.
fn day(date: NaiveDate) -> String {
    match date.year() {
        ..=0 => format!("{:04}-{:02}-{:02} BC", 1 - date.year(), date.month(), date.day()),
        _ => date.to_string(),
    }
}

/// Microseconds as `10:00:00.25`.
fn time(us: i64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text
}

fn timestamp(us_since_2000: i64) -> Result<String, Box<dyn Error + Sync + Send>> {
    match us_since_2000 {
        i64::MAX => return Ok("infinity".to_owned()),
        i64::MIN => return Ok("-infinity".to_owned()),
        _ => {}
    }
    let (days, us) = (us_since_2000.div_euclid(DAY_US), us_since_2000.rem_euclid(DAY_US));
    Ok(format!("{} {}", date(days)?, time(us)))
}

/// IntervalStyle `postgres`.
fn interval(raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let us = i64::from_be_bytes(raw.get(..8).ok_or("short")?.try_into()?);
    let days = i32::from_be_bytes(raw.get(8..12).ok_or("short")?.try_into()?);
    let months = i32::from_be_bytes(raw.get(12..16).ok_or("short")?.try_into()?);
    let mut parts = vec![];
    for (n, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if n != 0 {
            parts.push(format!("{n} {unit}{}", if n == 1 { "" } else { "s" }));
        }
    }
    if us != 0 || parts.is_empty() {
        parts.push(format!("{}{}", if us < 0 { "-" } else { "" }, time(us.abs())));
    }
    Ok(parts.join(" "))
}

/// Shortest digits that read back the same, with an exponent below 1e-4 and from 1e`digits` on.
fn float(is_nan: bool, value: f64, scientific: &str, digits: i32) -> String {
    if is_nan {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..digits).contains(&exponent) {
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let sign = if mantissa.starts_with('-') { "-" } else { "" };
    let figures: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = exponent + 1;
    let text = if point <= 0 {
        format!("0.{}{figures}", "0".repeat(point.unsigned_abs() as usize))
    } else if figures.len() <= point as usize {
        format!("{figures}{}", "0".repeat(point as usize - figures.len()))
    } else {
        format!("{}.{}", &figures[..point as usize], &figures[point as usize..])
    };
    format!("{sign}{text}")
}

/// Groups of four decimal digits (PostgreSQL, `numeric_send`).
fn numeric(raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let words: Vec<i16> = raw.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, scale, groups @ ..] = words.as_slice() else { return Err("short numeric".into()) };
    if *sign as u16 == 0xC000 {
        return Ok("NaN".to_owned());
    }
    if groups.len() != *count as usize {
        return Err("numeric of another length".into());
    }
    let group = |index: i16| -> i16 {
        let place = weight - index;
        if (0..*count).contains(&place) { groups[place as usize] } else { 0 }
    };
    let mut whole = String::new();
    for index in (0..=(*weight).max(0)).rev() {
        whole.push_str(&format!("{:04}", group(index)));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    for index in 1..=(scale + 3) / 4 {
        fraction.push_str(&format!("{:04}", group(-index)));
    }
    fraction.truncate(*scale as usize);
    let sign = if *sign == 0 { "" } else { "-" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn array(item: &Type, raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let int = |at: usize| -> Result<i32, Box<dyn Error + Sync + Send>> {
        Ok(i32::from_be_bytes(raw.get(at..at + 4).ok_or("short array")?.try_into()?))
    };
    if int(0)? == 0 {
        return Ok("{}".to_owned());
    }
    let (count, mut at, mut items) = (int(12)?, 20, vec![]);
    for _ in 0..count {
        let length = int(at)?;
        at += 4;
        if length < 0 {
            items.push("NULL".to_owned());
            continue;
        }
        let end = at + length as usize;
        let text = shown(item, raw.get(at..end).ok_or("short array")?)?;
        let special = text.contains([',', '{', '}', '"', '\\', ' ']) || text.eq_ignore_ascii_case("NULL");
        let plain = !text.is_empty() && !special;
        items.push(if plain { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) });
        at = end;
    }
    Ok(format!("{{{}}}", items.join(",")))
}

#[test]
fn binary_values_are_shown_as_postgresql_writes_them() {
    let numeric_raw = [0u8, 2, 0, 0, 0, 0, 0, 2, 0, 12, 13, 72];
    assert_eq!(numeric(&numeric_raw).expect("a numeric"), "12.34");
    let small = [0u8, 1, 255, 255, 64, 0, 0, 2, 19, 136];
    assert_eq!(numeric(&small).expect("a numeric"), "-0.50");
    let floats = [
        (1.0, "1"),
        (0.5, "0.5"),
        (-1234.25, "-1234.25"),
        (1e15, "1e+15"),
        (1e14, "100000000000000"),
        (0.00001, "1e-05"),
        (0.0, "0"),
    ];
    for (value, expected) in floats {
        assert_eq!(float(false, value, &format!("{value:e}"), 15), expected);
    }
    assert_eq!(timestamp(0).expect("a time"), "2000-01-01 00:00:00");
    assert_eq!(timestamp(-1).expect("a time"), "1999-12-31 23:59:59.999999");
}
