//! What a token of JSON says of a value of a column's type.

use super::{
    Epoch, decimal,
    scan::{Scanner, Token, unescaped},
};
use crate::column::Cell;
use arrow::{
    compute::kernels::cast_utils::{Parser, string_to_datetime},
    datatypes::{Date32Type, Time64MicrosecondType},
};
use chrono::Utc;
use std::borrow::Cow;
use tidemark_catalog::{
    SqlType, json, uuid,
    vector::{self, NoVector},
};
use tidemark_engine::value::Value;

/// What a text that stands for itself says of a value of this type: read as a string in JSON is, a number as a number.
pub(crate) fn plain<'a>(text: &'a str, ty: &SqlType, epoch: Option<Epoch>) -> Result<Cell<'a>, String> {
    cell(Token::Plain(text), ty, epoch)
}

/// # Errors
/// It says nothing of this type; why not.
pub(super) fn cell<'a>(token: Token<'a>, ty: &SqlType, epoch: Option<Epoch>) -> Result<Cell<'a>, String> {
    let unfit = || format!("{} is no {ty}", token.kind());
    // Numbers may come as texts: not every writer's numbers hold a bigint.
    let number = || match token {
        Token::Number(digits) => Ok(digits),
        Token::Text(digits) if !digits.contains('\\') => Ok(digits.trim()),
        Token::Plain(digits) => Ok(digits.trim()),
        _ => Err(unfit()),
    };
    let written = |digits: &str| format!("{digits:?} is no {ty}");
    let text = || match token {
        Token::Text(text) => Ok(unescaped(text)),
        Token::Plain(text) => Ok(Cow::Borrowed(text)),
        _ => Err(unfit()),
    };
    Ok(match ty {
        _ if token == Token::Null => Cell::Null,
        SqlType::Bool => match token {
            Token::Bool(b) => Cell::Bool(b),
            Token::Text("true" | "t") | Token::Plain("true" | "t") => Cell::Bool(true),
            Token::Text("false" | "f") | Token::Plain("false" | "f") => Cell::Bool(false),
            _ => return Err(unfit()),
        },
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => {
            let digits = number()?;
            let whole = match digits.parse::<i64>() {
                Ok(whole) => whole,
                // 1.0 and 1e3 are whole too.
                Err(_) => {
                    let whole = decimal::exact(digits, 0).ok_or_else(|| written(digits))?;
                    i64::try_from(whole).map_err(|_| out_of_range(digits, ty))?
                }
            };
            let (least, greatest) = match ty {
                SqlType::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
                SqlType::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            if !(least..=greatest).contains(&whole) {
                return Err(out_of_range(digits, ty));
            }
            Cell::Int(whole)
        }
        SqlType::Float4 | SqlType::Float8 => {
            let digits = number()?;
            let x: f64 = digits.parse().map_err(|_| written(digits))?;
            let is_written_infinite = digits.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
            if (x.is_infinite() || *ty == SqlType::Float4 && (x as f32).is_infinite()) && !is_written_infinite {
                return Err(out_of_range(digits, ty));
            }
            Cell::Float(x)
        }
        SqlType::Numeric { precision, scale } => {
            let digits = number()?;
            let unscaled = decimal::rounded(digits, *scale).ok_or_else(|| written(digits))?;
            if unscaled.unsigned_abs() >= 10u128.pow(u32::from(*precision)) {
                return Err(out_of_range(digits, ty));
            }
            Cell::Decimal(unscaled)
        }
        SqlType::Text => match token {
            Token::Text(text) => Cell::Text(without_nul(unescaped(text))?),
            Token::Plain(text) => Cell::Text(without_nul(text.into())?),
            Token::Number(written) | Token::Object(written) | Token::Array(written) => Cell::Text(written.into()),
            Token::Bool(b) => Cell::Text(if b { "true" } else { "false" }.into()),
            Token::Null => Cell::Null,
        },
        SqlType::Uuid => Cell::Text(uuid::read(&text()?)?.into()),
        // A message's own text, quotes and all.
        SqlType::Json | SqlType::Jsonb => {
            let document = match token {
                Token::Plain(text) | Token::Number(text) | Token::Object(text) | Token::Array(text) => {
                    Cow::Borrowed(text)
                }
                Token::Text(text) => Cow::Owned(format!("\"{text}\"")),
                Token::Bool(b) => Cow::Borrowed(if b { "true" } else { "false" }),
                Token::Null => return Ok(Cell::Null),
            };
            let held = json::read(&document, *ty == SqlType::Jsonb).map_err(|refused| refused.to_string())?;
            Cell::Text(held.into())
        }
        SqlType::Bytea => {
            let text = text()?;
            Cell::Bytes(bytes(&text).ok_or_else(|| format!("{text:?} is no bytea (\\x and hexadecimal digits)"))?)
        }
        SqlType::Date => {
            let text = text()?;
            Cell::Int(Date32Type::parse(&text).ok_or_else(|| written(&text))?.into())
        }
        SqlType::Time => {
            let text = text()?;
            Cell::Int(Time64MicrosecondType::parse(&text).ok_or_else(|| written(&text))?)
        }
        SqlType::Timestamp | SqlType::TimestampTz => Cell::Int(match (token, epoch) {
            (Token::Number(digits), Some(epoch)) => since_1970(digits, epoch, ty)?,
            (Token::Plain(text), Some(epoch)) if decimal::floored(text.trim(), 0).is_some() => {
                since_1970(text.trim(), epoch, ty)?
            }
            (Token::Number(_), None) => {
                return Err("a number is no time (json.timestamp = 's', 'ms' or 'us' says how to read it)".to_string());
            }
            _ => {
                let text = text()?;
                string_to_datetime(&Utc, text.trim()).map_err(|_| written(&text))?.timestamp_micros()
            }
        }),
        SqlType::Interval => return Err(unfit()),
        SqlType::Array(item) => {
            let (Token::Array(text) | Token::Plain(text)) = token else { return Err(unfit()) };
            let mut items = vec![];
            let mut scanner = Scanner::new(text);
            scanner.array(|scanner| {
                items.push(cell(scanner.value()?, item, epoch)?.value());
                Ok(())
            })?;
            scanner.end()?;
            Cell::List(items.into())
        }
        SqlType::Vector(dimensions) => {
            let (Token::Array(_) | Token::Plain(_)) = token else { return Err(unfit()) };
            let array = cell(token, &SqlType::Array(Box::new(SqlType::Float4)), epoch)?;
            let Cell::List(items) = array else { return Err(unfit()) };
            let number = |item: &Value| if let Value::Float(x) = item { Some(*x as f32) } else { None };
            let numbers = items.iter().map(number).collect::<Option<Vec<_>>>().ok_or(NoVector::Null);
            numbers.and_then(|numbers| vector::check(*dimensions, &numbers)).map_err(|error| error.to_string())?;
            Cell::List(items)
        }
    })
}

/// PostgreSQL's text has no character of the number 0. As an escape, inside JSON that is kept as text, it may stay.
fn without_nul(text: Cow<'_, str>) -> Result<Cow<'_, str>, String> {
    match text.find('\0') {
        None => Ok(text),
        Some(at) => Err(format!("a text has the character \\u0000 at byte {at}, which text cannot hold")),
    }
}

fn since_1970(digits: &str, epoch: Epoch, ty: &SqlType) -> Result<i64, String> {
    let us = decimal::floored(digits, epoch.scale()).ok_or_else(|| format!("{digits:?} is no {ty}"))?;
    i64::try_from(us).map_err(|_| out_of_range(digits, ty))
}

fn out_of_range(digits: &str, ty: &SqlType) -> String {
    format!("{digits} is out of range for type {ty}")
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x").filter(|digits| digits.len() % 2 == 0 && digits.is_ascii())?;
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).ok()).collect()
}
