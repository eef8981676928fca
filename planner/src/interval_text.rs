//! Intervals as PostgreSQL writes them, `1 mon 2 days 03:00:00`, in the words that Arrow reads: `1 mon 2 days 3 hours 0
//! minutes 0 seconds`.

use arrow::compute::kernels::cast_utils::{IntervalParseConfig, IntervalUnit, parse_interval_month_day_nano_config};
use datafusion::sql::sqlparser::ast::{DataType, Expr, Interval, TypedString, Value};

/// Respells the literal of an interval. What is none is left for Arrow to refuse.
pub(crate) fn spell_out(expr: &mut Expr) {
    let (text, cast) = match expr {
        Expr::Interval(Interval { value, leading_field: None, last_field: None, .. }) => (literal(value), false),
        Expr::Cast { expr, data_type: DataType::Interval { .. }, .. } => (literal(expr), true),
        Expr::TypedString(TypedString { data_type: DataType::Interval { .. }, value, .. }) => {
            (text(&mut value.value), true)
        }
        _ => return,
    };
    let Some(text) = text else { return };
    // `ROWS '2' PRECEDING` is parsed as if it were an interval.
    if !cast && is_number(text.trim()) {
        return;
    }
    if let Some(words) = words(text) {
        *text = words;
    }
}

/// The text of an interval in the words that Arrow reads; `None`: it is none.
pub(crate) fn words(text: &str) -> Option<String> {
    in_words(text).filter(|words| is_interval(words))
}

fn literal(expr: &mut Expr) -> Option<&mut String> {
    match expr {
        Expr::Value(value) => text(&mut value.value),
        _ => None,
    }
}

fn text(value: &mut Value) -> Option<&mut String> {
    match value {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Arrow takes every unit once, as PostgreSQL does.
fn is_interval(text: &str) -> bool {
    parse_interval_month_day_nano_config(text, IntervalParseConfig::new(IntervalUnit::Second)).is_ok()
}

/// Every number with its unit; `None`: there is something else in it.
fn in_words(text: &str) -> Option<String> {
    let mut words: Vec<&str> = text.split([' ', '\t', '\r', '\n', ',']).filter(|word| !word.is_empty()).collect();
    let ago = words.last().is_some_and(|word| word.eq_ignore_ascii_case("ago"));
    if ago {
        words.pop();
    }
    let mut words = words.into_iter().skip_while(|word| *word == "@").peekable();
    let mut amounts: Vec<String> = vec![];
    while let Some(word) = words.next() {
        let (negative, unsigned) = match word.split_at_checked(1) {
            Some(("-", rest)) => (true, rest),
            Some(("+", rest)) => (false, rest),
            _ => (false, word),
        };
        let sign = if negative != ago { "-" } else { "" };
        if unsigned.contains(':') {
            let [hours, minutes, seconds] = clock(unsigned)?;
            amounts.push(format!("{sign}{hours} hours {sign}{minutes} minutes {sign}{seconds} seconds"));
            continue;
        }
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, glued) = unsigned.split_at(end);
        let unit = match (glued, words.peek()) {
            ("", None) => "seconds",
            ("", Some(next)) if next.contains(':') => "days",
            ("", Some(_)) => words.next()?,
            (glued, _) => glued,
        };
        if !is_number(number) || !unit.bytes().all(|b| b.is_ascii_alphabetic()) {
            return None;
        }
        amounts.push(format!("{sign}{number} {unit}"));
    }
    (!amounts.is_empty()).then(|| amounts.join(" "))
}

/// Hours, minutes and seconds of `03:04` or `03:04:05.6`; what is below a microsecond is rounded.
fn clock(text: &str) -> Option<[String; 3]> {
    let mut parts = text.split(':');
    let mut whole = || parts.next().filter(|part| !part.contains('.') && is_number(part))?.parse::<u64>().ok();
    let (hours, minutes) = (whole()?, whole()?);
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() || minutes > 59 || !is_number(seconds) {
        return None;
    }
    let us = (seconds.parse::<f64>().ok().filter(|seconds| *seconds < 61.0)? * 1e6).round_ties_even() as u64;
    let seconds = match us % 1_000_000 {
        0 => (us / 1_000_000).to_string(),
        fraction => format!("{}.{fraction:06}", us / 1_000_000),
    };
    Some([hours.to_string(), minutes.to_string(), seconds])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_gets_the_unit_that_postgresql_gives_it() {
        for (text, expected) in [
            ("2 days 03:00:00", Some("2 days 3 hours 0 minutes 0 seconds")),
            ("03:04", Some("3 hours 4 minutes 0 seconds")),
            ("1 mon 2 days 03:00:00", Some("1 mon 2 days 3 hours 0 minutes 0 seconds")),
            ("-1 days +02:03:00.5", Some("-1 days 2 hours 3 minutes 0.500000 seconds")),
            ("-00:00:00.25", Some("-0 hours -0 minutes -0.250000 seconds")),
            ("-1 years -2 mons +3 days -04:05:06", Some("-1 years -2 mons 3 days -4 hours -5 minutes -6 seconds")),
            ("1:02:03.4567899", Some("1 hours 2 minutes 3.456790 seconds")),
            ("@ 1 day -2 hours ago", Some("-1 day 2 hours")),
            ("-3 4:05:06", Some("-3 days 4 hours 5 minutes 6 seconds")),
            ("1day,  2hours", Some("1 day 2 hours")),
            ("1 day 2", Some("1 day 2 seconds")),
            ("90", Some("90 seconds")),
            (".5 hours", Some(".5 hours")),
            ("03:60:00", None),
            ("1:2:3:4", None),
            ("03:00:00 days", None),
            ("1 2 3", None),
            ("1h30m", None),
            ("soon", None),
            ("ago", None),
            ("", None),
        ] {
            assert_eq!(in_words(text).as_deref(), expected, "{text}");
        }
        assert!(is_interval("1 day 2 hours"));
        assert!(!is_interval("1 hour 0 hours 30 minutes 0 seconds"));
    }
}
