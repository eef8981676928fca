//! Text input of each type, as PostgreSQL's input functions read it; parameters and COPY share it.
//!
//! Dates and times are in `parse_time`, intervals in `parse_interval`.

pub use super::parse_interval::parse_interval;
pub use super::parse_time::{parse_date, parse_time, parse_timestamp, parse_timestamptz};

use super::WireError;
use std::borrow::Cow;

/// The white space that C's `isspace` knows, which input functions skip around a value.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'))
}

pub fn parse_bool(text: &str) -> Result<bool, WireError> {
    let word = trim(text);
    // Any unique beginning of a word counts; `o` alone is neither `on` nor `off`.
    let begins = |full: &str, at_least: usize| {
        word.len() >= at_least
            && word.len() <= full.len()
            && full.as_bytes()[..word.len()].eq_ignore_ascii_case(word.as_bytes())
    };
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || word == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(WireError::syntax("boolean", text))
    }
}

/// An integer between `min` and `max`, for the type that messages call `ty`.
pub(crate) fn parse_integer(text: &str, min: i64, max: i64, ty: &str) -> Result<i64, WireError> {
    let trimmed = trim(text).as_bytes();
    let (negative, digits) = match trimmed {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return Err(WireError::syntax(ty, text));
    }
    // Downwards, because the least integer has no positive counterpart.
    let mut value: i64 = 0;
    let mut fits = true;
    for b in digits {
        if !b.is_ascii_digit() {
            return Err(WireError::syntax(ty, text));
        }
        match value.checked_mul(10).and_then(|v| v.checked_sub((b - b'0') as i64)) {
            Some(v) => value = v,
            None => fits = false,
        }
    }
    let value = if negative { Some(value) } else { value.checked_neg() };
    match value {
        Some(v) if fits && v >= min && v <= max => Ok(v),
        _ => Err(WireError::new("22003", format!("value \"{text}\" is out of range for type {ty}"))),
    }
}

pub fn parse_int2(text: &str) -> Result<i16, WireError> {
    parse_integer(text, i16::MIN as i64, i16::MAX as i64, "smallint").map(|v| v as i16)
}

pub fn parse_int4(text: &str) -> Result<i32, WireError> {
    parse_integer(text, i32::MIN as i64, i32::MAX as i64, "integer").map(|v| v as i32)
}

pub fn parse_int8(text: &str) -> Result<i64, WireError> {
    parse_integer(text, i64::MIN, i64::MAX, "bigint")
}

/// A negative number is taken modulo 2^32, as PostgreSQL does.
pub fn parse_oid(text: &str) -> Result<u32, WireError> {
    parse_integer(text, i32::MIN as i64, u32::MAX as i64, "oid").map(|v| v as u32)
}

pub fn parse_float8(text: &str) -> Result<f64, WireError> {
    let word = trim(text);
    let value: f64 = float_word(word).ok_or_else(|| WireError::syntax("double precision", text))?;
    check_float_range(word, value.is_infinite(), value == 0.0, "double precision")?;
    Ok(value)
}

pub fn parse_float4(text: &str) -> Result<f32, WireError> {
    let word = trim(text);
    let value: f32 = float_word(word).ok_or_else(|| WireError::syntax("real", text))?;
    check_float_range(word, value.is_infinite(), value == 0.0, "real")?;
    Ok(value)
}

/// Rust reads every spelling that PostgreSQL documents (decimal, exponent, `nan`, `inf`, `infinity`, signs).
fn float_word<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

/// A number that became infinite or zero on the way was out of range.
fn check_float_range(word: &str, infinite: bool, zero: bool, ty: &str) -> Result<(), WireError> {
    let lost = (infinite && word.bytes().any(|b| b.is_ascii_digit()))
        || (zero && word.bytes().take_while(|b| !b.eq_ignore_ascii_case(&b'e')).any(|b| (b'1'..=b'9').contains(&b)));
    if lost {
        return Err(WireError::new("22003", format!("\"{word}\" is out of range for type {ty}")));
    }
    Ok(())
}

/// The parts of a decimal number: sign, digits before and after the point, exponent of ten.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

enum DecimalWord<'a> {
    Number(Decimal<'a>),
    NaN,
    Infinite,
}

fn split_decimal(text: &str) -> Option<DecimalWord<'_>> {
    let word = trim(text);
    let (negative, body) = match word.as_bytes() {
        [b'-', ..] => (true, &word[1..]),
        [b'+', ..] => (false, &word[1..]),
        _ => (false, word),
    };
    if word.eq_ignore_ascii_case("nan") {
        return Some(DecimalWord::NaN);
    }
    if body.eq_ignore_ascii_case("inf") || body.eq_ignore_ascii_case("infinity") {
        return Some(DecimalWord::Infinite);
    }
    let (number, exponent) = match body.find(['e', 'E']) {
        Some(at) => {
            let digits = &body[at + 1..];
            let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
            if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Any exponent that overflows is far outside every decimal.
            let limit = if digits.starts_with('-') { i32::MIN } else { i32::MAX };
            (&body[..at], digits.parse::<i32>().unwrap_or(limit) as i64)
        }
        None => (body, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    Some(DecimalWord::Number(Decimal { negative, whole: whole.as_bytes(), fraction: fraction.as_bytes(), exponent }))
}

fn field_overflow(precision: u8, scale: i8) -> WireError {
    WireError::new("22003", "numeric field overflow").with_detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
        precision as i32 - scale as i32
    ))
}

/// The unscaled value of a `numeric(precision, scale)`, rounded half away from zero; 22003 where it does not fit.
///
/// NaN is refused too: an Arrow decimal has none (PostgreSQL's numeric does).
pub fn parse_decimal128(text: &str, precision: u8, scale: i8) -> Result<i128, WireError> {
    let number = match split_decimal(text) {
        Some(DecimalWord::Number(number)) => number,
        Some(DecimalWord::NaN) => {
            return Err(WireError::new("22003", format!("numeric({precision},{scale}) cannot hold NaN"))
                .with_hint("use double precision for a column that can be NaN"));
        }
        Some(DecimalWord::Infinite) => {
            return Err(WireError::new("22003", "numeric field overflow").with_detail(format!(
                "A field with precision {precision}, scale {scale} cannot hold an infinite value."
            )));
        }
        None => return Err(WireError::syntax("numeric", text)),
    };
    let overflow = || field_overflow(precision, scale);
    // Digit i stands for 10^(power - i); digits below 10^-scale are dropped, the first of them rounds.
    let mut power = number.whole.len() as i64 - 1 + number.exponent;
    let last = -(scale as i64);
    let mut value: i128 = 0;
    let mut round_up = false;
    for b in number.whole.iter().chain(number.fraction) {
        if power < last {
            round_up = power == last - 1 && *b >= b'5';
            break;
        }
        value = value.checked_mul(10).and_then(|v| v.checked_add((b - b'0') as i128)).ok_or_else(overflow)?;
        power -= 1;
    }
    if value != 0 {
        while power >= last {
            value = value.checked_mul(10).ok_or_else(overflow)?;
            power -= 1;
        }
    }
    if round_up {
        value = value.checked_add(1).ok_or_else(overflow)?;
    }
    if 10i128.checked_pow(precision as u32).is_some_and(|limit| value >= limit) {
        return Err(overflow());
    }
    Ok(if number.negative { -value } else { value })
}

/// A `numeric` of no declared precision: its unscaled value and its own scale (the digits after the point).
pub fn parse_decimal_free(text: &str) -> Result<(i128, u8, i8), WireError> {
    let scale = match split_decimal(text) {
        Some(DecimalWord::Number(n)) => (n.fraction.len() as i64 - n.exponent).clamp(0, 38) as i8,
        _ => 0,
    };
    let value = parse_decimal128(text, 38, scale)?;
    let mut digits = 1u8;
    let mut rest = value.unsigned_abs() / 10;
    while rest > 0 {
        digits += 1;
        rest /= 10;
    }
    Ok((value, digits.max(scale as u8).max(1), scale))
}

/// `\x` and hexadecimal digits, or the older escape form.
pub fn parse_bytea(text: &str) -> Result<Vec<u8>, WireError> {
    let bytes = text.as_bytes();
    if let Some(hex) = bytes.strip_prefix(b"\\x") {
        let mut out = Vec::with_capacity(hex.len() / 2);
        let mut at = 0;
        while at < hex.len() {
            if matches!(hex[at], b' ' | b'\t' | b'\n' | b'\r') {
                at += 1;
                continue;
            }
            let high = hex_digit(text, at + 2)?;
            if at + 1 >= hex.len() {
                return Err(WireError::new("22023", "invalid hexadecimal data: odd number of digits"));
            }
            out.push(high << 4 | hex_digit(text, at + 3)?);
            at += 2;
        }
        return Ok(out);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&b, after)) = rest.split_first() {
        let (byte, after) = match (b, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            (b'\\', _) => return Err(WireError::new("22P02", "invalid input syntax for type bytea")),
            _ => (b, after),
        };
        out.push(byte);
        rest = after;
    }
    Ok(out)
}

fn hex_digit(text: &str, at: usize) -> Result<u8, WireError> {
    match text.as_bytes().get(at) {
        Some(b @ b'0'..=b'9') => Ok(b - b'0'),
        Some(b @ b'a'..=b'f') => Ok(b - b'a' + 10),
        Some(b @ b'A'..=b'F') => Ok(b - b'A' + 10),
        _ => {
            let shown: String = text.get(at..).and_then(|rest| rest.chars().next()).into_iter().collect();
            Err(WireError::new("22023", format!("invalid hexadecimal digit: \"{shown}\"")))
        }
    }
}

/// The elements of a one-dimensional array literal; `None` is NULL. Explicit bounds (`[1:2]={…}`) are read and dropped.
pub fn parse_array(text: &str) -> Result<Vec<Option<Cow<'_, str>>>, WireError> {
    let malformed =
        |detail: &str| WireError::new("22P02", format!("malformed array literal: \"{text}\"")).with_detail(detail);
    let mut body = trim(text);
    if body.starts_with('[') {
        let (bounds, rest) = body.split_once('=').ok_or_else(|| malformed("Missing \"=\" after array dimensions."))?;
        if bounds.matches('[').count() > 1 {
            return Err(multidimensional());
        }
        body = rest.trim_start();
    }
    let Some(inner) = body.strip_prefix('{') else {
        return Err(malformed("Array value must start with \"{\" or dimension information."));
    };
    let bytes = inner.as_bytes();
    let space = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let skip = |mut at: usize| {
        while bytes.get(at).is_some_and(|&b| space(b)) {
            at += 1;
        }
        at
    };
    let mut elements = vec![];
    let mut at = skip(0);
    if bytes.get(at) == Some(&b'}') {
        return if skip(at + 1) == bytes.len() {
            Ok(elements)
        } else {
            Err(malformed("Junk after closing right brace."))
        };
    }
    loop {
        at = skip(at);
        match bytes.get(at) {
            None => return Err(malformed("Unexpected end of input.")),
            Some(b'{') => return Err(multidimensional()),
            Some(&b @ (b',' | b'}')) => return Err(malformed(&format!("Unexpected \"{}\" character.", b as char))),
            Some(b'"') => {
                let start = at + 1;
                let (end, escaped) =
                    closing_quote(bytes, start).ok_or_else(|| malformed("Unexpected end of input."))?;
                let raw = &inner[start..end];
                elements.push(Some(if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }));
                at = skip(end + 1);
            }
            Some(_) => {
                let start = at;
                let mut escaped = false;
                while let Some(&b) = bytes.get(at) {
                    match b {
                        b',' | b'}' => break,
                        b'{' => return Err(malformed("Unexpected \"{\" character.")),
                        b'"' => return Err(malformed("Unexpected array element.")),
                        b'\\' => {
                            escaped = true;
                            at += 1;
                            // The escaped character may have several bytes.
                            at += inner.get(at..).and_then(|r| r.chars().next()).map_or(0, char::len_utf8);
                        }
                        _ => at += 1,
                    }
                }
                let raw = inner.get(start..at).ok_or_else(|| malformed("Unexpected end of input."))?;
                let raw = raw.trim_end_matches(|c: char| c.is_ascii() && space(c as u8));
                elements.push(match raw {
                    _ if raw.eq_ignore_ascii_case("null") => None,
                    _ if escaped => Some(Cow::Owned(unescape(raw))),
                    _ => Some(Cow::Borrowed(raw)),
                });
            }
        }
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => {
                let end = skip(at + 1) == bytes.len();
                return if end { Ok(elements) } else { Err(malformed("Junk after closing right brace.")) };
            }
            None => return Err(malformed("Unexpected end of input.")),
            Some(_) => return Err(malformed("Unexpected array element.")),
        }
    }
}

pub(crate) fn multidimensional() -> WireError {
    WireError::new("0A000", "arrays of more than one dimension are not supported")
        .with_hint("store each dimension in a column of its own")
}

/// The position of the quote that ends a quoted element, and whether it has escapes.
fn closing_quote(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    loop {
        match bytes.get(at)? {
            b'"' => return Some((at, escaped)),
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
}

/// Takes every backslash away and keeps what follows it.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}
