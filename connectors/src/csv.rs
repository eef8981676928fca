//! CSV messages into columns: one message is one record, its fields are the columns in their order.
//!
//! As PostgreSQL's COPY reads CSV: a field between quotes may have delimiters and line ends in it, a quote is written
//! twice there, and what stands between quotes is never NULL. There is no header: every message would be one.

use crate::{
    column::{Builder, Cell},
    json::{Field, plain},
};
use arrow::array::ArrayRef;
use std::borrow::Cow;

/// How it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// ASCII, as is the quote.
    pub delimiter: u8,
    pub quote: u8,
    /// What an unquoted field says for NULL.
    pub null: String,
}

impl Default for Dialect {
    fn default() -> Dialect {
        Dialect { delimiter: b',', quote: b'"', null: String::new() }
    }
}

/// Gathers rows; [`CsvRows::finish`] gives their columns.
pub struct CsvRows {
    dialect: Dialect,
    columns: Vec<Field>,
    builders: Vec<Builder>,
    rows: usize,
}

impl CsvRows {
    pub fn new(dialect: Dialect, columns: Vec<Field>) -> CsvRows {
        let builders = columns.iter().map(|field| Builder::of(&field.column.ty)).collect();
        CsvRows { dialect, columns, builders, rows: 0 }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    /// Takes a message as one more row.
    ///
    /// # Errors
    /// It is none, with the reason; the rows are as before.
    pub fn push(&mut self, message: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(message).map_err(|error| format!("not CSV: {error}"))?;
        let fields = fields(text, &self.dialect)?;
        if fields.len() != self.columns.len() {
            return Err(format!("a row has {} fields, this has {}", self.columns.len(), fields.len()));
        }
        let mut cells = Vec::with_capacity(fields.len());
        for (Field { column, epoch, .. }, (text, is_quoted)) in self.columns.iter().zip(&fields) {
            let is_null = !is_quoted && *text == self.dialect.null;
            cells.push(match is_null {
                true if column.not_null => return Err(format!("column \"{}\" is null, and is NOT NULL", column.name)),
                true => Cell::Null,
                false => {
                    plain(text, &column.ty, *epoch).map_err(|error| format!("column \"{}\": {error}", column.name))?
                }
            });
        }
        self.builders.iter_mut().zip(cells).for_each(|(builder, cell)| builder.push(cell));
        self.rows += 1;
        Ok(())
    }

    /// The columns of the rows so far, in order; begins anew.
    pub fn finish(&mut self) -> Result<Vec<ArrayRef>, String> {
        self.rows = 0;
        let finished = self.builders.iter_mut().zip(&self.columns);
        let finished = finished.map(|(builder, field)| builder.finish(&field.column.ty.arrow()));
        // All of them begin anew, whichever fails.
        finished.collect::<Vec<_>>().into_iter().collect()
    }
}

/// A record of these fields; `None` is NULL. What could be read as something else stands between quotes.
pub(crate) fn record(dialect: &Dialect, fields: &[Option<String>]) -> String {
    let (delimiter, quote) = (char::from(dialect.delimiter), char::from(dialect.quote));
    let mut record = String::new();
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            record.push(delimiter);
        }
        match field {
            None => record.push_str(&dialect.null),
            Some(text) if *text == dialect.null || text.contains([delimiter, quote, '\n', '\r']) => {
                record.push(quote);
                for c in text.chars() {
                    record.extend(std::iter::repeat_n(c, 1 + usize::from(c == quote)));
                }
                record.push(quote);
            }
            Some(text) => record.push_str(text),
        }
    }
    record
}

/// The fields of a record, and whether each was quoted.
fn fields<'a>(text: &'a str, dialect: &Dialect) -> Result<Vec<(Cow<'a, str>, bool)>, String> {
    let (delimiter, quote) = (char::from(dialect.delimiter), char::from(dialect.quote));
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut rest = text.strip_suffix('\r').unwrap_or(text);
    let mut fields = vec![];
    loop {
        let (field, after) = match rest.strip_prefix(quote) {
            Some(inside) => {
                let (field, after) = quoted(inside, quote)?;
                ((field, true), after)
            }
            None => {
                let end = rest.find(delimiter).unwrap_or(rest.len());
                if let Some(at) = rest[..end].find(['\n', '\r']) {
                    return Err(format!("not CSV: field {} ends its line at byte {at}", fields.len() + 1));
                }
                ((Cow::Borrowed(&rest[..end]), false), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(delimiter) {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("not CSV: something stands behind the quotes of field {}", fields.len())),
        }
    }
}

/// What stands between quotes, and what comes behind them.
fn quoted(inside: &str, quote: char) -> Result<(Cow<'_, str>, &str), String> {
    let mut field = Cow::Borrowed("");
    let mut rest = inside;
    loop {
        let end = rest.find(quote).ok_or("not CSV: it ends in the middle of quotes")?;
        match field.is_empty() {
            true => field = Cow::Borrowed(&rest[..end]),
            false => field.to_mut().push_str(&rest[..end]),
        }
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            // One quote, written twice.
            Some(next) => {
                field.to_mut().push(quote);
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Epoch;
    use arrow::util::display::array_value_to_string;
    use tidemark_catalog::{Column, SqlType};

    fn field(name: &str, ty: SqlType) -> Field {
        let column = Column { name: name.to_string(), ty, not_null: name == "id", comment: None };
        Field { column, path: vec![name.to_string()], epoch: Some(Epoch::Millis) }
    }

    fn read(dialect: &Dialect, columns: &[Field], message: &str) -> Result<String, String> {
        let mut rows = CsvRows::new(dialect.clone(), columns.to_vec());
        rows.push(message.as_bytes())?;
        let shown = rows.finish()?.into_iter().map(|array| match array.is_null(0) {
            true => "NULL".to_string(),
            false => array_value_to_string(&array, 0).expect("text"),
        });
        Ok(shown.collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn a_record_is_a_row() {
        let columns = [field("id", SqlType::Int8), field("name", SqlType::Text), field("at", SqlType::TimestampTz)];
        let cases = [
            ("7,ann,1793534400001", Ok("7|ann|2026-11-01T12:00:00.001Z")),
            ("7,ann,2026-11-01 12:00:00Z\r\n", Ok("7|ann|2026-11-01T12:00:00Z")),
            (" 7 ,,", Ok("7|NULL|NULL")),
            ("7,\"\",", Ok("7||NULL")),
            ("\"7\",\"a,\"\"b\"\"\nc\\n\",", Ok("7|a,\"b\"\nc\\n|NULL")),
            ("7,\"\"\"\",", Ok("7|\"|NULL")),
            ("7,ann", Err("a row has 3 fields, this has 2")),
            (",ann,", Err("column \"id\" is null, and is NOT NULL")),
            ("x,ann,", Err("column \"id\": \"x\" is no bigint")),
            ("7,\"ann,", Err("not CSV: it ends in the middle of quotes")),
            ("7,\"ann\"a,", Err("not CSV: something stands behind the quotes of field 2")),
            ("7,a\n8,b,", Err("not CSV: field 2 ends its line at byte 1")),
            ("7,ann,soon", Err("column \"at\": \"soon\" is no timestamp with time zone")),
        ];
        for (message, expected) in cases {
            let expected = expected.map(str::to_string).map_err(str::to_string);
            assert_eq!(read(&Dialect::default(), &columns, message), expected, "{message}");
        }
    }

    #[test]
    fn every_type_is_read_as_it_is_written_in_csv() {
        use SqlType::*;
        let cases = [
            (Bool, "t", "true"),
            (Float8, "Infinity", "inf"),
            (Numeric { precision: 10, scale: 2 }, "12.345", "12.35"),
            (Bytea, "\\x00ff", "00ff"),
            (Date, "2026-11-01", "2026-11-01"),
            (Time, "12:30:00.5", "12:30:00.500"),
            (Text, "a\\u0041", "a\\u0041"),
            (Array(Box::new(Int8)), "\"[1, null]\"", "[1, ]"),
        ];
        for (ty, message, expected) in cases {
            let columns = [field("x", ty.clone())];
            assert_eq!(read(&Dialect::default(), &columns, message), Ok(expected.to_string()), "{ty} {message}");
        }
    }

    #[test]
    fn a_record_that_is_written_is_read_as_it_was() {
        let dialect = Dialect { delimiter: b';', ..Dialect::default() };
        for text in ["a", "", "a;b", "\"", "a\nb", "a\r", " ", "\"a\"\"", "\\"] {
            let written = record(&dialect, &[Some(text.to_string()), None, Some("end".into())]);
            let read: Vec<(String, bool)> =
                fields(&written, &dialect).expect("a record").into_iter().map(|(text, q)| (text.into(), q)).collect();
            assert_eq!((read.len(), read[0].0.as_str()), (3, text), "{written}");
            assert_eq!((read[1].clone(), read[2].0.as_str()), ((String::new(), false), "end"), "{written}");
            assert!(read[0].1 || !text.is_empty(), "{written} is NULL");
        }
    }

    #[test]
    fn delimiter_quote_and_null_are_what_they_are_said_to_be() {
        let dialect = Dialect { delimiter: b';', quote: b'\'', null: "N".into() };
        let columns = [field("a", SqlType::Text), field("b", SqlType::Text), field("c", SqlType::Text)];
        assert_eq!(read(&dialect, &columns, "N;'N';"), Ok("NULL|N|".into()));
    }
}
