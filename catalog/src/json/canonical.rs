//! `jsonb` as the text that PostgreSQL shows of it: fields by the length of their names and then by their bytes, of one name the last;
//! numbers as `numeric`; strings with the escapes they need and no others; one space behind `:` and `,`.
//!
//! ```text
//! {"bb":1e2, "a": [ -0, "\u0061" ], "a":1.50}          {"a": 1.50, "bb": 100}
//! ```

use super::slice::Slice;
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// Why a text is no document, or none that `jsonb` can be.
#[derive(Debug)]
pub enum Refused {
    /// It is no JSON, or has a string that no text can be.
    Text(serde_json::Error),
    /// A number out of the range of `numeric`.
    Number,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Text(error) => write!(f, "invalid input syntax for type json: {error}"),
            Refused::Number => f.write_str("value overflows numeric format"),
        }
    }
}

/// Writes the value to the end of `out`.
///
/// # Errors
/// It has what `jsonb` cannot.
pub fn write(value: Slice<'_>, out: &mut String) -> Result<(), Refused> {
    let text =
        |string: Slice<'_>| string.text().map(Option::unwrap_or_default).map(Cow::into_owned).map_err(Refused::Text);
    match value.kind() {
        "object" => {
            let mut fields: BTreeMap<(usize, String), Slice<'_>> = BTreeMap::new();
            for (name, field) in value.fields() {
                let name = text(name)?;
                fields.insert((name.len(), name), field);
            }
            out.push('{');
            for (i, ((_, name), field)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                string(name, out);
                out.push_str(": ");
                write(*field, out)?;
            }
            out.push('}');
        }
        "array" => {
            out.push('[');
            for (i, item) in value.items().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write(item, out)?;
            }
            out.push(']');
        }
        "string" => string(&text(value)?, out),
        "number" => out.push_str(&number(value.as_written()).ok_or(Refused::Number)?),
        _ => out.push_str(value.as_written()),
    }
    Ok(())
}

/// A text as JSON's string, with the escapes it needs.
pub fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// JSON's number as `numeric` shows it; `None` where it has more digits than PostgreSQL's.
fn number(text: &str) -> Option<String> {
    const BEFORE_POINT_MAX: i64 = 131_072;
    const BEHIND_POINT_MAX: i64 = 16_383;
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{whole}{fraction}");
    // Digits that are shown behind the point, and where it stands, counted from the first digit.
    let scale = (fraction.len() as i64).checked_sub(exponent)?.max(0);
    let point = (whole.len() as i64).checked_add(exponent)?;
    let zeros = digits.bytes().take_while(|digit| *digit == b'0').count();
    if zeros == digits.len() {
        let scale = usize::try_from(scale.min(BEHIND_POINT_MAX)).ok()?;
        return Some(if scale == 0 { "0".to_string() } else { format!("0.{}", "0".repeat(scale)) });
    }
    if point - zeros as i64 > BEFORE_POINT_MAX || scale > BEHIND_POINT_MAX {
        return None;
    }
    let fill = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    let padded = format!("{}{digits}{}", fill(-point), fill(point - digits.len() as i64));
    let (whole, fraction) = padded.split_at(usize::try_from(point.max(0)).ok()?);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 shows them.
    #[test]
    fn a_document_is_shown_as_postgresql_shows_jsonb() {
        for (text, expected) in [
            (" {\"bb\":1e2, \"a\": [ -0, \"\\u0061\" ], \"a\":1.50} ", "{\"a\": 1.50, \"bb\": 100}"),
            (
                "[12e-1,1.0e2,1.50e1,0e5,0.00e1,-0.0,1e-3,-1.5E+1,0.05e1]",
                "[1.2, 100, 15.0, 0, 0.0, 0.0, 0.001, -15, 0.5]",
            ),
            ("[true , false,null,{ },[ ]]", "[true, false, null, {}, []]"),
            ("\"\\u0061\\n\\/\\u001f\\t é \\ud83d\\ude00 \\\"\\\\\"", "\"a\\n/\\u001f\\t é 😀 \\\"\\\\\""),
            ("{\"é\":1,\"zz\":2,\"b\":3,\"aaa\":4,\"\":5}", "{\"\": 5, \"b\": 3, \"zz\": 2, \"é\": 1, \"aaa\": 4}"),
            ("123456789012345678901234567890.10", "123456789012345678901234567890.10"),
        ] {
            let mut shown = String::new();
            write(Slice::of(text).expect("it is JSON"), &mut shown).expect("it can be jsonb");
            assert_eq!(shown, expected);
            let mut again = String::new();
            write(Slice::of(&shown).expect("it is JSON"), &mut again).expect("it can be jsonb");
            assert_eq!(again, shown, "a second time changes nothing");
        }
        assert_eq!(number("1e131071").map(|text| text.len()), Some(131_072));
        assert_eq!(number("1e131072"), None);
        assert_eq!(number("1e-16383").map(|text| text.len()), Some(16_385));
        assert_eq!(number("1e99999999999999999999"), None);
        let refused = |text| write(Slice::of(text).expect("it is JSON"), &mut String::new());
        assert!(matches!(refused("[\"\\u0000\"]"), Err(Refused::Text(_))));
        assert!(matches!(refused("[1e140000]"), Err(Refused::Number)));
    }
}
