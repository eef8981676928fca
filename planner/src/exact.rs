//! Number literals, digit by digit. DataFusion reads a number with a point, an exponent or more than 64 bits as a double, which
//! has some 16 digits; in PostgreSQL it is a `numeric`, as it is written. Where it is meant for a `numeric` or an integer it
//! therefore goes there by its digits:
//!
//! ```text
//! 12345678901234.123456::numeric(20,6)        '12345678901234.123456'::numeric(20,6)
//! 2.5::integer                                3::integer
//! INSERT INTO t (id) VALUES (2.5)             a bigint, 3
//! ```

use datafusion::sql::sqlparser::ast::{DataType, Expr, UnaryOperator, Value};

/// As many as the widest decimal has.
const DIGITS_MAX: usize = 76;

/// A number literal with its sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number<'a> {
    negative: bool,
    /// Without the sign: digits, perhaps a point, perhaps an exponent.
    text: &'a str,
}

/// The number literal that an expression is, if it is one.
pub fn number(expr: &Expr) -> Option<Number<'_>> {
    match expr {
        Expr::Nested(inner) => number(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            number(expr).map(|inner| Number { negative: !inner.negative, ..inner })
        }
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => number(expr),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(Number { negative: false, text }),
            _ => None,
        },
        _ => None,
    }
}

/// Writes a number literal that is cast to `numeric` or an integer so that DataFusion reads no double.
pub(crate) fn keep_cast_number(expr: &mut Expr) {
    if let Expr::Cast { expr: inner, data_type, .. } = expr
        && let Some(exact) = number(inner).filter(|number| !number.is_int8()).and_then(|n| exact(n, data_type))
    {
        **inner = exact;
    }
}

/// The number for a cast to this type; `None`: as it stands.
fn exact(number: Number, target: &DataType) -> Option<Expr> {
    match target {
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => {
            Some(Expr::value(Value::SingleQuotedString(number.written_out()?)))
        }
        // The text of a `numeric` has all its digits.
        DataType::Text | DataType::Varchar(_) | DataType::CharacterVarying(_) => {
            Some(Expr::value(Value::SingleQuotedString(number.written_out()?)))
        }
        DataType::SmallInt(_)
        | DataType::Int2(_)
        | DataType::Int(_)
        | DataType::Integer(_)
        | DataType::Int4(_)
        | DataType::BigInt(_)
        | DataType::Int8(_) => {
            let rounded = number.rounded()?;
            // One that does not fit is refused by the cast.
            rounded.parse::<i64>().ok().map(|_| Expr::value(Value::Number(rounded, false)))
        }
        _ => None,
    }
}

impl Number<'_> {
    /// Whether it is an integer of 64 bits: those DataFusion reads exactly.
    pub fn is_int8(&self) -> bool {
        match self.text.parse::<u64>() {
            Ok(digits) => digits <= i64::MAX as u64 || (self.negative && digits == i64::MIN.unsigned_abs()),
            Err(_) => false,
        }
    }

    /// PostgreSQL's type of it.
    pub fn type_name(&self) -> &'static str {
        match self.text.parse::<i32>() {
            Ok(_) => "integer",
            Err(_) if self.is_int8() => "bigint",
            Err(_) => "numeric",
        }
    }

    /// Without an exponent: `-1.5e3` is `-1500`. `None`: it has more digits than a decimal.
    pub fn written_out(&self) -> Option<String> {
        let (digits, exponent) = match self.text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i64>().ok()?),
            None => (self.text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let digits = format!("{whole}{fraction}");
        let most = DIGITS_MAX as i64;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || !(-most..=most).contains(&exponent) {
            return None;
        }
        // Where the point goes, counted from the first digit; at least one digit stands before it.
        let point = whole.len() as i64 + exponent;
        let zeros = |count: i64| "0".repeat(count.max(0) as usize);
        let padded = format!("{}{digits}{}", zeros(1 - point), zeros(point - digits.len() as i64));
        if padded.len() > DIGITS_MAX {
            return None;
        }
        let (whole, fraction) = padded.split_at(point.max(1) as usize);
        let sign = if self.negative { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        Some(format!("{sign}{whole}{point}{fraction}"))
    }

    /// The nearest integer, and of two the one further from zero: `-2.5` is `-3`.
    pub fn rounded(&self) -> Option<String> {
        let text = self.written_out()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let away = if self.negative { -1 } else { 1 };
        match whole.parse::<i128>() {
            Ok(whole) if fraction.starts_with(|digit: char| digit >= '5') => Some((whole + away).to_string()),
            _ => Some(whole.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};
    use datafusion::sql::sqlparser::ast;

    fn query(sql: &str) -> Box<ast::Query> {
        let parsed = parse(sql).expect("it parses").into_iter().next().map(|parsed| parsed.statement);
        let Some(Statement::Query(query)) = parsed else { panic!("{sql} is no query") };
        query
    }

    #[test]
    fn a_number_is_written_out_and_rounded_without_losing_a_digit() {
        let cases = [
            ("12345678901234.123456", Some("12345678901234.123456"), Some("12345678901234")),
            ("1.5e3", Some("1500"), Some("1500")),
            ("15E-3", Some("0.015"), Some("0")),
            ("1.005e+2", Some("100.5"), Some("101")),
            (".5", Some("0.5"), Some("1")),
            ("2.", Some("2"), Some("2")),
            ("2.4999999999999999999999", Some("2.4999999999999999999999"), Some("2")),
            ("9007199254740993.5", Some("9007199254740993.5"), Some("9007199254740994")),
            ("99999999999999999999", Some("99999999999999999999"), Some("99999999999999999999")),
            ("1e400", None, None),
        ];
        for (text, written, rounded) in cases {
            let number = Number { negative: false, text };
            assert_eq!(number.written_out().as_deref(), written, "{text}");
            assert_eq!(number.rounded().as_deref(), rounded, "{text}");
            let negative = Number { negative: true, text };
            assert_eq!(negative.written_out(), written.map(|text| format!("-{text}")), "-{text}");
        }
        assert_eq!(Number { negative: true, text: "0.5" }.rounded().as_deref(), Some("-1"));
        assert_eq!(Number { negative: true, text: "2.5" }.rounded().as_deref(), Some("-3"));
        assert!(Number { negative: true, text: "9223372036854775808" }.is_int8());
        assert!(!Number { negative: false, text: "9223372036854775808" }.is_int8());
    }

    #[test]
    fn only_a_number_that_would_be_a_double_is_written_otherwise() {
        let cases = [
            ("SELECT 1.005::numeric(10,2)", "SELECT '1.005'::NUMERIC(10,2)"),
            ("SELECT CAST(-1.5e1 AS numeric)", "SELECT CAST('-15' AS NUMERIC)"),
            ("SELECT (SELECT (1.5)::decimal(4,1))", "SELECT (SELECT '1.5'::DECIMAL(4,1))"),
            (
                "SELECT 2.5::integer, CAST(-9007199254740993.4 AS bigint)",
                "SELECT 3::INTEGER, CAST(-9007199254740993 AS BIGINT)",
            ),
            ("SELECT 15::numeric, 1.5::real, x::numeric", "SELECT 15::NUMERIC, 1.5::REAL, x::NUMERIC"),
            ("SELECT 1e30::bigint", "SELECT 1e30::BIGINT"),
            (
                "SELECT 1.50::text, 1e20::varchar, 15::text",
                "SELECT '1.50'::TEXT, '100000000000000000000'::VARCHAR, 15::TEXT",
            ),
        ];
        for (sql, expected) in cases {
            let mut query = query(sql);
            crate::respelled::respell(&mut query);
            assert_eq!(query.to_string(), expected);
        }
    }
}
