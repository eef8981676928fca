//! The columns of CSV files: found by the header and the first rows, or checked against what was declared.
//!
//! A CSV has no types. A column gets the narrowest of a few that reads all of the values looked at: `bigint`, `double precision`,
//! `boolean`, `date`, `timestamp` with and without zone; everything else is `text`. Numbers that begin with a zero (postal codes)
//! and whole numbers beyond `bigint` are text, as another type would change them.

use super::csv::{Begun, CsvFormat, Reader, check_header};
use crate::{
    pg::PgError,
    wire::{SessionZone, value_from_text},
};
use arrow::{
    array::AsArray,
    datatypes::{DataType, Field},
};
use std::path::Path;
use tidemark_catalog::{Column, SqlType};
use tidemark_connectors::files::list;

/// Rows that types are found by: of the first file the first ones. A value further on that does not fit is an error of the query that reads it.
const ROWS_LOOKED_AT: usize = 10_000;

/// The columns of the files at `path`, by those of the first, none NOT NULL; every other file must have them too.
pub async fn infer(table: &str, path: &Path, format: &CsvFormat) -> Result<Vec<Column>, PgError> {
    if !format.has_header() {
        return Err(PgError::error("42P17", format!("table \"{table}\" of CSV files without a header has no columns"))
            .hint("name them: CREATE TABLE t (name type, …) WITH (connector = 'csv', header = 'false', …)"));
    }
    let files = list(path, "csv").await?;
    let Some(first) = files.first() else { return Ok(vec![]) };
    let begun = Begun::at(first, format).await?;
    let names = begun.header.clone().unwrap_or_default();
    if names.is_empty() {
        return Err(PgError::error("42P17", format!("file \"{}\" has no columns", first.display()))
            .hint("its first line has to be a header, or declare the columns"));
    }
    let fields = names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let mut reader = Reader::new(first, begun, format, fields)?;
    let mut found: Vec<Option<Looks>> = vec![None; names.len()];
    let mut rows = 0;
    while let Some(batch) = reader.next().await?.filter(|_| rows < ROWS_LOOKED_AT) {
        rows += batch.num_rows();
        for (column, found) in batch.columns().iter().zip(&mut found) {
            for value in column.as_string::<i32>().iter().flatten() {
                let looks = Looks::of(value, &format.zone());
                *found = Some(found.map_or(looks, |known| known.or(looks)));
            }
        }
    }
    let column = |(name, looks): (String, Option<Looks>)| Column {
        name,
        // Of nothing it is text.
        ty: looks.unwrap_or(Looks::Text).ty(),
        not_null: false,
        comment: None,
    };
    let columns: Vec<Column> = names.into_iter().zip(found).map(column).collect();
    verify_all(&files[1..], format, &columns).await?;
    Ok(columns)
}

/// Whether all files at `path` have these columns.
pub async fn verify(table: &str, path: &Path, format: &CsvFormat, columns: &[Column]) -> Result<(), PgError> {
    if let Some(column) = columns.iter().find(|column| column.not_null) {
        let message = format!("column \"{}\" of table \"{table}\" cannot be NOT NULL", column.name);
        return Err(PgError::error("0A000", message).hint("CSV files promise nothing: filter in the SELECT"));
    }
    verify_all(&list(path, "csv").await?, format, columns).await
}

async fn verify_all(files: &[std::path::PathBuf], format: &CsvFormat, columns: &[Column]) -> Result<(), PgError> {
    for file in files {
        let begun = Begun::at(file, format).await?;
        if let Some(header) = begun.header.filter(|_| !begun.is_empty) {
            check_header(file, &header, columns)?;
        }
    }
    Ok(())
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    Bigint,
    Double,
    Boolean,
    Date,
    Timestamp,
    TimestampTz,
    Text,
}

impl Looks {
    fn of(text: &str, zone: &SessionZone) -> Looks {
        let reads = |looks: Looks| value_from_text(&looks.ty().arrow(), text, zone).is_ok();
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let begins_with_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
        let word = text.to_ascii_lowercase();
        let looks = match word.as_str() {
            "true" | "false" | "t" | "f" => Looks::Boolean,
            "nan" | "inf" | "-inf" | "infinity" | "-infinity" => Looks::Double,
            _ if begins_with_zero => Looks::Text,
            _ if is_whole => Looks::Bigint,
            _ if begins_with_date(text) && text.len() == 10 => Looks::Date,
            _ if begins_with_date(text) => match text[10..].contains(['+', '-', 'Z', 'z']) {
                true => Looks::TimestampTz,
                false => Looks::Timestamp,
            },
            _ if is_number => Looks::Double,
            _ => Looks::Text,
        };
        if reads(looks) { looks } else { Looks::Text }
    }

    /// What reads the values of both.
    fn or(self, other: Looks) -> Looks {
        match (self, other) {
            (one, other) if one == other => one,
            (Looks::Bigint, Looks::Double) | (Looks::Double, Looks::Bigint) => Looks::Double,
            (Looks::Date, Looks::Timestamp) | (Looks::Timestamp, Looks::Date) => Looks::Timestamp,
            _ => Looks::Text,
        }
    }

    fn ty(self) -> SqlType {
        match self {
            Looks::Bigint => SqlType::Int8,
            Looks::Double => SqlType::Float8,
            Looks::Boolean => SqlType::Bool,
            Looks::Date => SqlType::Date,
            Looks::Timestamp => SqlType::Timestamp,
            Looks::TimestampTz => SqlType::TimestampTz,
            Looks::Text => SqlType::Text,
        }
    }
}

/// `2026-03-02`, and nothing or something that is no further digit.
fn begins_with_date(text: &str) -> bool {
    let Some(date) = text.get(..10) else { return false };
    let is_date =
        date.bytes().enumerate().all(|(at, b)| if [4, 7].contains(&at) { b == b'-' } else { b.is_ascii_digit() });
    is_date && text[10..].bytes().next().is_none_or(|next| b" T".contains(&next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_looks_like_the_narrowest_type_that_keeps_it() {
        let cases = [
            ("12", Looks::Bigint),
            ("-9223372036854775808", Looks::Bigint),
            ("9223372036854775808", Looks::Text),
            ("01234", Looks::Text),
            ("-007", Looks::Text),
            ("0", Looks::Bigint),
            ("0.5", Looks::Double),
            ("00.5", Looks::Text),
            (".5", Looks::Double),
            ("1e5", Looks::Double),
            ("NaN", Looks::Double),
            ("1-2", Looks::Text),
            ("true", Looks::Boolean),
            ("F", Looks::Boolean),
            ("yes", Looks::Text),
            ("2026-03-02", Looks::Date),
            ("2026-02-30", Looks::Text),
            ("2026-03-02 10:00:00", Looks::Timestamp),
            ("2026-03-02T10:00:00.5", Looks::Timestamp),
            ("2026-03-02T10:00:00Z", Looks::TimestampTz),
            ("2026-03-02 10:00:00+02", Looks::TimestampTz),
            ("2026-03-021", Looks::Text),
            ("now", Looks::Text),
            ("", Looks::Text),
            ("Ä", Looks::Text),
        ];
        for (text, expected) in cases {
            assert_eq!(Looks::of(text, &SessionZone::UTC), expected, "{text}");
        }
    }

    #[test]
    fn two_kinds_of_values_are_text_where_nothing_narrower_has_both() {
        assert_eq!(Looks::Bigint.or(Looks::Double), Looks::Double);
        assert_eq!(Looks::Timestamp.or(Looks::Date), Looks::Timestamp);
        assert_eq!(Looks::Timestamp.or(Looks::TimestampTz), Looks::Text);
        assert_eq!(Looks::Bigint.or(Looks::Boolean), Looks::Text);
    }
}
