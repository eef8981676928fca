//! SQL's words for what DataFusion calls by its own: types as PostgreSQL spells them, literals as a user writes them.

use arrow_schema::DataType;
use chrono::DateTime;
use datafusion::common::ScalarValue;
use tidemark_catalog::{SqlType, vector};

/// A type as PostgreSQL's messages spell it, without length or precision.
pub fn type_name(ty: &DataType) -> String {
    match (ty, SqlType::from_arrow(ty)) {
        (DataType::Null, _) => "unknown".to_string(),
        (DataType::UInt64, _) => "bigint".to_string(),
        (_, Some(SqlType::Numeric { .. })) => "numeric".to_string(),
        (_, Some(SqlType::Vector(_))) => "vector".to_string(),
        (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _), _) => {
            format!("{}[]", type_name(item.data_type()))
        }
        (_, Some(sql)) => sql.to_string(),
        (DataType::Struct(_), None) => "record".to_string(),
        (other, None) => other.to_string().to_lowercase(),
    }
}

/// The same with length or precision: `numeric(10,2)`.
pub fn full_type_name(ty: &DataType) -> String {
    SqlType::from_arrow(ty).map_or_else(|| type_name(ty), |sql| sql.to_string())
}

/// A text with DataFusion's spelling of types and literals in it, in SQL's words:
///
/// ```text
/// Utf8("x") = Int64(1)              'x' = 1
/// CAST(t.at AS Timestamp(µs))       CAST(t.at AS timestamp without time zone)
/// ```
pub fn in_sql(text: &str) -> String {
    /// A text this long, or nested so deep, is somebody's data: it is not worth reading, and stays.
    const LONG: usize = 4096;
    const DEEP: usize = 64;
    if text.len() > LONG || text.bytes().filter(|b| matches!(b, b'(' | b'[')).count() > DEEP {
        return text.to_string();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = if first.is_ascii_uppercase() && !out.ends_with(is_word) { word_of(rest) } else { "" };
        if word.is_empty() {
            // What is quoted is a name or a text of the user's.
            let length = if first == '\'' || first == '"' { quoted(rest) } else { first.len_utf8() };
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        rest = &rest[word.len()..];
        let inside = rest.starts_with('(').then(|| closing(rest)).flatten();
        let (spelled, used) = match inside {
            Some(end) => (with_argument(word, &rest[1..end]), end + 1),
            None => (alone(word).map(str::to_string), 0),
        };
        match spelled {
            Some(spelled) => {
                out.push_str(&spelled);
                rest = &rest[used..];
            }
            None => out.push_str(word),
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_of(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// Bytes up to the end of what is quoted here; only the quote where it does not end.
fn quoted(text: &str) -> usize {
    let quote = &text[..1];
    text[1..].find(quote).map_or(1, |end| end + 2)
}

/// Where the parenthesis that opens `text` closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// A type without arguments.
fn alone(word: &str) -> Option<&'static str> {
    Some(match word {
        "Boolean" => "boolean",
        "Int8" | "Int16" | "UInt8" => "smallint",
        "Int32" | "UInt16" => "integer",
        "Int64" | "UInt32" | "UInt64" => "bigint",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" | "LargeBinary" | "BinaryView" => "bytea",
        "Date32" | "Date64" => "date",
        "Null" => "unknown",
        _ => return None,
    })
}

/// A type with arguments, or a literal.
fn with_argument(word: &str, inside: &str) -> Option<String> {
    let first = inside.split(',').next().unwrap_or_default().trim();
    if inside == "NULL" {
        return Some("NULL".to_string());
    }
    let zone = if inside.contains('"') { "with" } else { "without" };
    match word {
        "Utf8" | "LargeUtf8" | "Utf8View" => Some(format!("'{}'", inside.trim_matches('"').replace('\'', "''"))),
        "Date32" | "Date64" | "Binary" | "LargeBinary" | "BinaryView" => {
            Some(format!("'{}'", inside.trim_matches('"')))
        }
        _ if alone(word).is_some() => Some(inside.to_string()),
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => Some(match decimal(inside) {
            Some(value) => value,
            None => format!("numeric({})", inside.replace(' ', "")),
        }),
        "Timestamp" => Some(format!("timestamp {zone} time zone")),
        "TimestampSecond" => instant(first, 1_000_000_000, inside),
        "TimestampMillisecond" => instant(first, 1_000_000, inside),
        "TimestampMicrosecond" => instant(first, 1_000, inside),
        "TimestampNanosecond" => instant(first, 1, inside),
        "Time32" | "Time64" => Some("time without time zone".to_string()),
        "Interval" | "Duration" => Some("interval".to_string()),
        "IntervalMonthDayNano" | "IntervalDayTime" | "IntervalYearMonth" => Some(interval(inside)),
        "List" if inside.contains(vector::DIMENSIONS) && !inside.contains("List(") => Some("vector".to_string()),
        "List" | "LargeList" | "FixedSizeList" if inside.starts_with('[') => Some(format!("ARRAY{}", in_sql(inside))),
        "List" | "LargeList" | "FixedSizeList" => {
            let item = inside.split("data_type: ").last().unwrap_or_default().trim_start_matches("non-null ");
            let word = word_of(item);
            let arguments = item[word.len()..].starts_with('(').then(|| closing(&item[word.len()..])).flatten();
            Some(format!("{}[]", in_sql(&item[..arguments.map_or(word.len(), |end| word.len() + end + 1)])))
        }
        "Struct" => Some("record".to_string()),
        _ => None,
    }
}

/// `Some(150),10,2` is 1.50.
fn decimal(inside: &str) -> Option<String> {
    let mut parts = inside.strip_prefix("Some(")?.splitn(2, ')');
    let digits = parts.next()?;
    let scale: usize = parts.next()?.rsplit(',').next()?.trim().parse().ok().filter(|scale| *scale <= 76)?;
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return None;
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn instant(count: &str, nanoseconds: i64, inside: &str) -> Option<String> {
    let at = DateTime::from_timestamp_nanos(count.parse::<i64>().ok()?.checked_mul(nanoseconds)?);
    let zone = if inside.contains("Some(") { "+00" } else { "" };
    Some(format!("'{}{zone}'", at.format("%Y-%m-%d %H:%M:%S%.f")))
}

/// `"IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 }"` is '1 days'.
fn interval(inside: &str) -> String {
    let fields = inside.trim_matches('"').trim_end_matches('}').rsplit('{').next().unwrap_or_default();
    let counts = fields.split(',').filter_map(|field| field.split_once(':'));
    let shown: Vec<String> = counts
        .filter(|(_, count)| count.trim() != "0")
        .map(|(unit, count)| match (unit.trim(), count.trim().parse::<i64>()) {
            ("nanoseconds", Ok(nanoseconds)) => of_day(nanoseconds, 1_000_000_000),
            ("milliseconds", Ok(milliseconds)) => of_day(milliseconds, 1_000),
            (unit, _) => format!("{} {unit}", count.trim()),
        })
        .collect();
    format!("interval '{}'", if shown.is_empty() { "0".to_string() } else { shown.join(" ") })
}

/// Hours, minutes and seconds, `-00:05:00`, of a count of so many in a second.
fn of_day(count: i64, second: u64) -> String {
    let (whole, rest) = (count.unsigned_abs() / second, count.unsigned_abs() % second);
    let digits = second.ilog10() as usize;
    let fraction = format!(".{rest:0digits$}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let sign = if count < 0 { "-" } else { "" };
    format!("{sign}{:02}:{:02}:{:02}{fraction}", whole / 3600, whole / 60 % 60, whole % 60)
}

/// A constant as a user writes it.
pub fn literal(value: &ScalarValue) -> String {
    in_sql(&format!("{value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datafusions_spelling_becomes_sqls() {
        for (theirs, ours) in [
            (r#"Utf8("x") = Int64(1)"#, "'x' = 1"),
            (r#"Utf8("it's")"#, "'it''s'"),
            ("t.price > Float64(1.5) AND t.ok = Boolean(true)", "t.price > 1.5 AND t.ok = true"),
            ("Int64(NULL)", "NULL"),
            ("CAST(t.x AS Int64)", "CAST(t.x AS bigint)"),
            ("coercion from Utf8, Float64", "coercion from text, double precision"),
            (r#"Timestamp(µs, "+00:00")"#, "timestamp with time zone"),
            (r#"Timestamp(Microsecond, Some("+00:00"))"#, "timestamp with time zone"),
            ("Timestamp(µs)", "timestamp without time zone"),
            (r#"TimestampMicrosecond(1000000, Some("+00:00"))"#, "'1970-01-01 00:00:01+00'"),
            ("Decimal128(10, 2) + Decimal128(Some(-5),3,2)", "numeric(10,2) + -0.05"),
            ("List(Int64)[]", "bigint[][]"),
            ("List(non-null Decimal128(10, 2), field: 'x')", "numeric(10,2)[]"),
            ("List([1, 2])", "ARRAY[1, 2]"),
            ("List(Float32, metadata: {\"vector.dimensions\": \"3\"})", "vector"),
            ("Interval(MonthDayNano)", "interval"),
            (
                r#"IntervalMonthDayNano("IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 }")"#,
                "interval '1 days'",
            ),
            (
                r#"IntervalMonthDayNano("IntervalMonthDayNano { months: 0, days: 0, nanoseconds: -300500000000 }")"#,
                "interval '-00:05:00.5'",
            ),
            (r#"IntervalDayTime("IntervalDayTime { days: 0, milliseconds: 90000 }")"#, "interval '00:01:30'"),
            ("column \"Int64\" of 'Utf8'", "column \"Int64\" of 'Utf8'"),
            ("MyInt64(x) Timestamp", "MyInt64(x) Timestamp"),
        ] {
            assert_eq!(in_sql(theirs), ours);
        }
    }
}
