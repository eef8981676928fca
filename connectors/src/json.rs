//! JSON messages into columns: one message is one row, or an error and no row.
//!
//! A message's fields come in any order, extra ones are skipped, and one that is missing is NULL. What a number means for a
//! time is said by an option; a text is read as ISO 8601. Numbers are read digit by digit, so a decimal is what was written.
//!
//! Twice written: `row.rs` reads what is usual, once and straight to the columns; what it does not know is read token by token, here. That
//! says why a message is no row, and is what the other is tested against (decision 0028).

#[cfg(test)]
mod agree;
mod cell;
mod decimal;
mod iso;
mod order;
mod put;
mod row;
mod scan;
mod word;
mod write;

pub(crate) use cell::plain;
pub(crate) use write::{JsonWriter, Written};

use crate::column::Cell;
use arrow::array::ArrayRef;
use cell::cell;
use row::{Expected, Target};
use scan::{Scanner, Token, unescaped};
use tidemark_catalog::{Column, SqlType};

/// What a number says where a time is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    Seconds,
    Millis,
    Micros,
}

impl Epoch {
    pub fn of(name: &str) -> Option<Epoch> {
        Some(match name {
            "s" => Epoch::Seconds,
            "ms" => Epoch::Millis,
            "us" => Epoch::Micros,
            _ => return None,
        })
    }

    fn us(self) -> i64 {
        match self {
            Epoch::Seconds => 1_000_000,
            Epoch::Millis => 1000,
            Epoch::Micros => 1,
        }
    }

    /// Decimal places to microseconds.
    fn scale(self) -> i8 {
        match self {
            Epoch::Seconds => 6,
            Epoch::Millis => 3,
            Epoch::Micros => 0,
        }
    }
}

/// One column and where in a message it is found.
#[derive(Debug, Clone)]
pub struct Field {
    pub column: Column,
    /// The names on the way to it.
    pub path: Vec<String>,
    /// `None`: numbers are no times.
    pub epoch: Option<Epoch>,
}

/// Whether values of this type can be in JSON.
pub fn has(ty: &SqlType) -> bool {
    match ty {
        SqlType::Interval => false,
        SqlType::Array(item) => has(item),
        _ => true,
    }
}

/// The fields on a way: those that end in a column, those that lead on.
#[derive(Debug, Default)]
struct Fields(Vec<(String, Place)>);

#[derive(Debug)]
enum Place {
    Column(usize),
    Inside(Fields),
}

impl Fields {
    fn of(columns: &[Field]) -> Result<Fields, String> {
        let mut fields = Fields::default();
        for (at, field) in columns.iter().enumerate() {
            fields.add(&field.path, at).map_err(|error| format!("column \"{}\": {error}", field.column.name))?;
        }
        Ok(fields)
    }

    fn add(&mut self, path: &[String], column: usize) -> Result<(), String> {
        let [name, rest @ ..] = path else { return Err("a path has no names".to_string()) };
        let known = self.0.iter_mut().find(|(known, _)| known == name);
        match (known, rest) {
            (None, []) => self.0.push((name.clone(), Place::Column(column))),
            (None, rest) => {
                let mut inside = Fields::default();
                inside.add(rest, column)?;
                self.0.push((name.clone(), Place::Inside(inside)));
            }
            (Some((_, Place::Inside(inside))), [_, ..]) => inside.add(rest, column)?,
            _ => return Err(format!("two columns are at \"{name}\"")),
        }
        Ok(())
    }

    /// Where a field belongs. Messages of one writer have their fields in one order: `guess` is the place after the last.
    fn find(&self, name: &str, guess: &mut usize) -> Option<&Place> {
        let at = match self.0.get(*guess) {
            Some((known, _)) if known == name => *guess,
            _ => self.0.iter().position(|(known, _)| known == name)?,
        };
        *guess = at + 1;
        Some(&self.0[at].1)
    }
}

/// Gathers rows; [`JsonRows::finish`] gives their columns.
pub struct JsonRows {
    fields: Fields,
    expected: Expected,
    columns: Vec<Target>,
    rows: usize,
}

impl JsonRows {
    /// # Errors
    /// Two columns are found at one place, or one inside another.
    pub fn new(columns: Vec<Field>) -> Result<JsonRows, String> {
        let fields = Fields::of(&columns)?;
        let expected = Expected::new(&fields);
        Ok(JsonRows { fields, expected, columns: columns.into_iter().map(Target::new).collect(), rows: 0 })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Takes a message as one more row.
    ///
    /// # Errors
    /// It is none, with the reason; the rows are as before.
    pub fn push(&mut self, message: &[u8]) -> Result<(), String> {
        if row::read(message, &mut self.expected, &mut self.columns).is_none() {
            self.columns.iter_mut().for_each(|column| column.builder.truncate(self.rows));
            return self.push_tokens(message);
        }
        self.rows += 1;
        Ok(())
    }

    /// The same token by token, which says what is wrong.
    fn push_tokens(&mut self, message: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(message).map_err(|error| format!("not JSON: {error}"))?;
        let mut tokens: Vec<Option<Token<'_>>> = vec![None; self.columns.len()];
        let mut scanner = Scanner::new(text);
        if !scanner.at_object() {
            let kind = scanner.value()?.kind();
            return Err(format!("a row is a JSON object, this is {kind}"));
        }
        gather(&mut scanner, &self.fields, &mut tokens)?;
        scanner.end()?;
        let mut cells = Vec::with_capacity(tokens.len());
        for (Target { field, .. }, token) in self.columns.iter().zip(tokens) {
            let column = &field.column;
            let cell = match token {
                None | Some(Token::Null) if column.not_null => {
                    let what = if token.is_none() { "is missing" } else { "is null" };
                    return Err(format!("column \"{}\" {what}, and is NOT NULL", column.name));
                }
                None => Cell::Null,
                Some(token) => cell(token, &column.ty, field.epoch)
                    .map_err(|error| format!("column \"{}\": {error}", column.name))?,
            };
            cells.push(cell);
        }
        self.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.builder.push(cell));
        self.rows += 1;
        Ok(())
    }

    /// Takes a row of which only the columns of a key are known, `key` by their numbers, from the key of a message: a
    /// JSON object, in which they are where they are in a message, or the value of the one there is. The others are
    /// NULL, or, where they may not be, anything.
    ///
    /// # Errors
    /// It is none, with the reason; the rows are as before.
    pub fn push_key(&mut self, message_key: &[u8], key: &[usize]) -> Result<(), String> {
        // Of a key that has none of the columns nothing is read.
        let message_key = if key.is_empty() { &b"{}"[..] } else { message_key };
        let text = std::str::from_utf8(message_key).map_err(|error| format!("the key is no text: {error}"))?;
        let mut tokens: Vec<Option<Token<'_>>> = vec![None; self.columns.len()];
        let mut scanner = Scanner::new(text);
        if scanner.at_object() {
            let read = gather(&mut scanner, &self.fields, &mut tokens).and_then(|()| scanner.end());
            read.map_err(|error| format!("the key: {error}"))?;
        } else if let [only] = key {
            tokens[*only] = Some(plain_or_text(text));
        } else {
            return Err("the key is no JSON object, and the primary key has several columns".to_string());
        }
        let mut cells = Vec::with_capacity(tokens.len());
        for (at, (Target { field, .. }, token)) in self.columns.iter().zip(tokens).enumerate() {
            let Column { name, ty, not_null, .. } = &field.column;
            cells.push(match token.filter(|token| *token != Token::Null) {
                Some(token) if key.contains(&at) => {
                    cell(token, ty, field.epoch).map_err(|error| format!("column \"{name}\" in the key: {error}"))?
                }
                None if key.contains(&at) => return Err(format!("column \"{name}\" is not in the key")),
                _ if *not_null => Cell::zero(ty),
                _ => Cell::Null,
            });
        }
        self.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.builder.push(cell));
        self.rows += 1;
        Ok(())
    }

    /// The columns of the rows so far, in order; begins anew.
    pub fn finish(&mut self) -> Result<Vec<ArrayRef>, String> {
        self.rows = 0;
        let finished =
            self.columns.iter_mut().map(|Target { field, builder, .. }| builder.finish(&field.column.ty.arrow()));
        // All of them begin anew, whichever fails.
        finished.collect::<Vec<_>>().into_iter().collect()
    }
}

/// Of fields of one name the last counts, as for PostgreSQL.
fn gather<'a>(scanner: &mut Scanner<'a>, fields: &Fields, tokens: &mut [Option<Token<'a>>]) -> Result<(), String> {
    let mut guess = 0;
    scanner.object(|scanner, name| {
        match fields.find(&unescaped(name), &mut guess) {
            Some(Place::Inside(fields)) if scanner.at_object() => gather(scanner, fields, tokens),
            Some(Place::Column(column)) => {
                tokens[*column] = Some(scanner.value()?);
                Ok(())
            }
            // What is not wanted; and where an object is, something else: what lies in it is missing.
            None | Some(Place::Inside(_)) => scanner.value().map(|_| ()),
        }
    })
}

/// A text with nothing around it, or a JSON string.
fn plain_or_text(text: &str) -> Token<'_> {
    let mut scanner = Scanner::new(text);
    match scanner.value() {
        Ok(Token::Text(inside)) if scanner.end().is_ok() => Token::Text(inside),
        _ => Token::Plain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{array::RecordBatch, util::display::array_value_to_string};

    fn column(name: &str, ty: SqlType) -> Field {
        let column = Column { name: name.to_string(), ty, not_null: false, comment: None };
        Field { column, path: vec![name.to_string()], epoch: None }
    }

    /// What one message makes of one column `x`.
    fn read(ty: SqlType, epoch: Option<Epoch>, value: &str) -> Result<String, String> {
        let mut rows = JsonRows::new(vec![Field { epoch, ..column("x", ty) }]).expect("a column");
        rows.push(format!("{{\"x\": {value}}}").as_bytes())?;
        let columns = rows.finish().expect("an array");
        Ok(if columns[0].is_null(0) { "NULL".into() } else { array_value_to_string(&columns[0], 0).expect("text") })
    }

    #[test]
    fn every_type_is_read_as_it_is_written_in_json() {
        use SqlType::*;
        let numeric = || Numeric { precision: 10, scale: 2 };
        let cases = [
            (Bool, "true", "true"),
            (Bool, "\"f\"", "false"),
            (Int2, "-32768", "-32768"),
            (Int4, "1e3", "1000"),
            (Int8, "\"9223372036854775807\"", "9223372036854775807"),
            (Int8, "7.0", "7"),
            (Float8, "0.1", "0.1"),
            (Float8, "\"NaN\"", "NaN"),
            (Float4, "1.5", "1.5"),
            (numeric(), "12.345", "12.35"),
            (numeric(), "-0.005", "-0.01"),
            (numeric(), "\"12345678.9\"", "12345678.90"),
            (Text, "\"a\\u00e9\\n\"", "aé\n"),
            (Text, "{\"b\": [1, 2]}", "{\"b\": [1, 2]}"),
            (Text, "{\"b\": \"\\u0000\"}", "{\"b\": \"\\u0000\"}"),
            (Text, "\"\\\\u0000\"", "\\u0000"),
            (Text, "1.50", "1.50"),
            (Bytea, "\"\\\\x00ff\"", "00ff"),
            (Date, "\"2026-11-01\"", "2026-11-01"),
            (Time, "\"12:30:00.5\"", "12:30:00.500"),
            (TimestampTz, "\"2026-11-01T12:00:00.123456789Z\"", "2026-11-01T12:00:00.123456Z"),
            (TimestampTz, "\"2026-11-01 13:00:00+01:00\"", "2026-11-01T12:00:00Z"),
            (Timestamp, "\"2026-11-01T12:00:00\"", "2026-11-01T12:00:00"),
            (Array(Box::new(Int8)), "[1, null, \"3\"]", "[1, , 3]"),
            (Vector(Some(2)), "[1, \"0.5\"]", "[1.0, 0.5]"),
            (Vector(None), "[-1e2]", "[-100.0]"),
            (Int4, "null", "NULL"),
        ];
        for (ty, value, expected) in cases {
            assert_eq!(read(ty.clone(), None, value), Ok(expected.to_string()), "{ty} {value}");
        }
    }

    #[test]
    fn numbers_are_times_in_the_unit_that_the_option_names() {
        let at = |epoch, value| read(SqlType::TimestampTz, Some(epoch), value);
        assert_eq!(at(Epoch::Seconds, "1793534400.25"), Ok("2026-11-01T12:00:00.250Z".into()));
        assert_eq!(at(Epoch::Millis, "1793534400001"), Ok("2026-11-01T12:00:00.001Z".into()));
        assert_eq!(at(Epoch::Micros, "-1.5"), Ok("1969-12-31T23:59:59.999998Z".into()));
        assert_eq!(at(Epoch::Millis, "\"2026-11-01T12:00:00Z\""), Ok("2026-11-01T12:00:00Z".into()));
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_the_column() {
        use SqlType::*;
        let cases = [
            (Int2, "32768", "column \"x\": 32768 is out of range for type smallint"),
            (Int8, "1.5", "column \"x\": \"1.5\" is no bigint"),
            (Int4, "\"a\"", "column \"x\": \"a\" is no integer"),
            (Int4, "[1]", "column \"x\": an array is no integer"),
            (Float8, "1e999", "column \"x\": 1e999 is out of range for type double precision"),
            (Numeric { precision: 3, scale: 1 }, "99.95", "column \"x\": 99.95 is out of range for type numeric(3,1)"),
            (Bool, "1", "column \"x\": a number is no boolean"),
            (
                TimestampTz,
                "1793534400",
                "column \"x\": a number is no time (json.timestamp = 's', 'ms' or 'us' says how to read it)",
            ),
            (TimestampTz, "\"yesterday\"", "column \"x\": \"yesterday\" is no timestamp with time zone"),
            (Text, "\"a\\u0000b\"", "column \"x\": a text has the character \\u0000 at byte 1, which text cannot hold"),
            (
                Array(Box::new(Text)),
                "[\"a\", \"\\u0000\"]",
                "column \"x\": a text has the character \\u0000 at byte 0, which text cannot hold",
            ),
            (Vector(Some(3)), "[1, 2]", "column \"x\": expected 3 dimensions, not 2"),
            (Vector(Some(2)), "[1, null]", "column \"x\": array must not contain nulls"),
            (Vector(None), "[]", "column \"x\": vector must have at least 1 dimension"),
            (Vector(Some(2)), "12", "column \"x\": a number is no vector(2)"),
            (Int4, "1}", "not JSON: unexpected '}' at byte 8"),
        ];
        for (ty, value, expected) in cases {
            assert_eq!(read(ty.clone(), None, value), Err(expected.to_string()), "{ty} {value}");
        }
    }

    #[test]
    fn a_message_that_is_none_leaves_the_rows_as_they_were() {
        let nested = Field { path: vec!["item".into(), "price".into()], ..column("price", SqlType::Float8) };
        let mut id = column("id", SqlType::Int8);
        id.column.not_null = true;
        let mut rows = JsonRows::new(vec![id, nested]).expect("columns");
        let messages = [
            (r#"{"item": {"price": 1.5, "more": [{}]}, "id": 1}"#, None),
            (r#"{"id": 2}"#, None),
            (r#"{"id": 3, "item": 7, "other": null}"#, None),
            (r#"{"id": 4, "item": {"price": "dear"}}"#, Some("column \"price\": \"dear\" is no double precision")),
            (r#"{"item": {"price": 1.5}}"#, Some("column \"id\" is missing, and is NOT NULL")),
            (r#"{"id": null}"#, Some("column \"id\" is null, and is NOT NULL")),
            ("[1]", Some("a row is a JSON object, this is an array")),
            (r#"{"id": 5, "\u0069d": 6}"#, None),
        ];
        for (message, expected) in messages {
            assert_eq!(rows.push(message.as_bytes()).err().as_deref(), expected, "{message}");
        }
        assert_eq!(
            rows.push(b"{\"id\": \"\xff\"}").err().map(|e| e.starts_with("not JSON: invalid utf-8")),
            Some(true)
        );
        let columns = rows.finish().expect("arrays");
        let batch = RecordBatch::try_from_iter([("id", columns[0].clone()), ("price", columns[1].clone())]);
        let shown = arrow::util::pretty::pretty_format_batches(&[batch.expect("rows")]);
        let shown: Vec<String> =
            shown.map(|table| table.to_string().lines().map(str::to_string).collect()).expect("text");
        assert_eq!(shown[3..shown.len() - 1], ["| 1  | 1.5   |", "| 2  |       |", "| 3  |       |", "| 6  |       |"]);
    }

    #[test]
    fn a_key_is_an_object_or_the_one_value_and_the_other_columns_are_nothing() {
        let nested = Field { path: vec!["at".into(), "x".into()], ..column("x", SqlType::Text) };
        let mut price = column("price", SqlType::Float8);
        price.column.not_null = true;
        let columns = vec![column("id", SqlType::Int8), nested, price];
        let read = |columns: &[Field], key: &[usize], message_key: &str| {
            let mut rows = JsonRows::new(columns.to_vec()).expect("columns");
            rows.push_key(message_key.as_bytes(), key)?;
            let shown = rows.finish()?.into_iter().map(|array| array_value_to_string(&array, 0).expect("text"));
            Ok::<_, String>(shown.collect::<Vec<_>>().join(","))
        };
        let cases: [(&[usize], &str, Result<&str, &str>); 10] = [
            (&[0], "7", Ok("7,,0.0")),
            (&[0], " 7 ", Ok("7,,0.0")),
            (&[0], r#"{"id": 7, "price": "x"}"#, Ok("7,,0.0")),
            (&[1], "a b", Ok(",a b,0.0")),
            (&[1], r#""a\nb""#, Ok(",a\nb,0.0")),
            (&[0, 1], r#"{"id": "7", "at": {"x": null}}"#, Err("column \"x\" is not in the key")),
            (&[0, 1], r#"{"id": "7", "at": {"x": "y"}}"#, Ok("7,y,0.0")),
            (&[0, 1], "7", Err("the key is no JSON object, and the primary key has several columns")),
            (&[0], "seven", Err("column \"id\" in the key: \"seven\" is no bigint")),
            (&[0], r#"{"id": 7"#, Err("the key: not JSON: it ends at byte 8, in the middle")),
        ];
        for (key, message_key, expected) in cases {
            let expected = expected.map(str::to_string).map_err(str::to_string);
            assert_eq!(read(&columns, key, message_key), expected, "{message_key}");
        }
    }

    #[test]
    fn two_columns_cannot_be_at_one_place() {
        let inside = Field { path: vec!["a".into(), "b".into()], ..column("b", SqlType::Text) };
        let error = JsonRows::new(vec![column("a", SqlType::Text), inside]).err();
        assert_eq!(error.as_deref(), Some("column \"b\": two columns are at \"a\""));
    }
}
