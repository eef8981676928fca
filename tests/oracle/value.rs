//! Values as both systems print them, read back so that equality means the same bits.

use crate::model::Ty;
use anyhow::{Context, Result, bail};

/// `Float` holds the bits, with one NaN and one zero; `Numeric` the digits without trailing zeros; instants,
/// intervals and times of day microseconds; dates and bytes their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Int(i64),
    Float(u64),
    Numeric(String),
    Text(String),
    Bool(bool),
    Instant(i64),
    Interval(i64),
}

/// A row of features with the time of the key's latest event where the reader shows it; `None` is absent.
pub type Answer = Option<Vec<Value>>;

pub fn parse(text: Option<&str>, ty: Ty) -> Result<Value> {
    let Some(text) = text else { return Ok(Value::Null) };
    let value = match ty {
        Ty::Int2 | Ty::Int4 | Ty::Int8 => text.parse().ok().map(Value::Int),
        Ty::Float4 => text.parse::<f32>().ok().map(|value| float(f64::from(value))),
        Ty::Float8 => text.parse().ok().map(float),
        Ty::Numeric => numeric(text).map(Value::Numeric),
        Ty::Text | Ty::Bytea | Ty::Date => Some(Value::Text(text.to_owned())),
        Ty::Time => interval(text).map(Value::Interval),
        Ty::Timestamp => instant(&format!("{text}+00")).map(Value::Instant),
        Ty::Bool => match text {
            "t" => Some(Value::Bool(true)),
            "f" => Some(Value::Bool(false)),
            _ => None,
        },
        Ty::Instant => instant(text).map(Value::Instant),
        Ty::Interval => interval(text).map(Value::Interval),
    };
    value.with_context(|| format!("{text:?} is not {ty:?} as PostgreSQL prints it"))
}

fn float(value: f64) -> Value {
    Value::Float(if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() })
}

fn numeric(text: &str) -> Option<String> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-') {
        return None;
    }
    let digits = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    Some(if digits == "-0" { "0".to_owned() } else { digits.to_owned() })
}

pub fn instant(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").ok().map(|at| at.timestamp_micros())
}

/// PostgreSQL's default interval style: `[-]N days [-]HH:MM:SS[.ffffff]`; a day is 24 hours.
fn interval(text: &str) -> Option<i64> {
    let mut us = 0_i64;
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let (sign, clock) = match word.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        if clock.contains(':') {
            let mut parts = clock.split(':');
            let hours: i64 = parts.next()?.parse().ok()?;
            let minutes: i64 = parts.next()?.parse().ok()?;
            let (seconds, fraction) = parts.next()?.split_once('.').unwrap_or((clock.rsplit(':').next()?, ""));
            let seconds: i64 = seconds.parse().ok()?;
            let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
            us += sign * (((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction);
        } else {
            let count: i64 = clock.parse().ok()?;
            match words.next()? {
                "day" | "days" => us += sign * count * 86_400_000_000,
                _ => return None,
            }
        }
    }
    Some(us)
}

/// The same values, or where they first differ.
pub fn compare(expected: &Answer, actual: &Answer) -> Result<()> {
    match (expected, actual) {
        (None, None) => Ok(()),
        (Some(expected), Some(actual)) => {
            for (i, (e, a)) in expected.iter().zip(actual).enumerate() {
                if e != a {
                    bail!("output o{i} is {}, by definition {}", show(a), show(e));
                }
            }
            if expected.len() != actual.len() {
                bail!("{} outputs, by definition {}", actual.len(), expected.len());
            }
            Ok(())
        }
        (None, Some(_)) => bail!("present, by definition absent"),
        (Some(_), None) => bail!("absent, by definition present"),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Float(bits) => format!("{:?}", f64::from_bits(*bits)),
        other => format!("{other:?}"),
    }
}

#[test]
fn printed_values_read_back_to_the_same_value() {
    assert_eq!(parse(Some("-0"), Ty::Float8).unwrap(), parse(Some("0"), Ty::Float8).unwrap());
    assert_eq!(parse(Some("12.500"), Ty::Numeric).unwrap(), parse(Some("12.5"), Ty::Numeric).unwrap());
    assert_eq!(parse(Some("-1 days +02:03:04.5"), Ty::Interval).unwrap(), Value::Interval(-79_015_500_000));
    assert_eq!(parse(Some("00:00:00.000001"), Ty::Interval).unwrap(), Value::Interval(1));
    assert_eq!(parse(Some("27:00:00"), Ty::Interval).unwrap(), parse(Some("1 day 03:00:00"), Ty::Interval).unwrap());
    assert_eq!(parse(Some("1970-01-01 00:00:01.5+00"), Ty::Instant).unwrap(), Value::Instant(1_500_000));
}
