//! Values to JSON, as [`super::JsonRows`] reads them: written and read again they are what they were.

use super::{Epoch, Field, Fields, Place};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{Float32Type, Float64Type, TimestampMicrosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use tidemark_catalog::SqlType;

/// A column to be written.
pub(crate) struct Written<'a> {
    array: &'a ArrayRef,
    ty: &'a SqlType,
    epoch: Option<Epoch>,
    text: ArrayFormatter<'a>,
}

impl<'a> Written<'a> {
    pub fn new(array: &'a ArrayRef, ty: &'a SqlType, epoch: Option<Epoch>) -> Result<Written<'a>, String> {
        let text = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::new()).map_err(|error| error.to_string())?;
        Ok(Written { array, ty, epoch, text })
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    /// The value of a `bytea` column; `None` where it is NULL, or no such column.
    pub fn bytes(&self, row: usize) -> Option<Vec<u8>> {
        let values = self.array.as_binary_opt::<i32>()?;
        (!values.is_null(row)).then(|| values.value(row).to_vec())
    }

    fn shown(&self, row: usize) -> Result<String, String> {
        self.text.value(row).try_to_string().map_err(|error| error.to_string())
    }

    /// The value, which is not NULL, as a text with nothing around it.
    pub fn plain(&self, row: usize) -> Result<String, String> {
        match self.ty {
            SqlType::Text | SqlType::Uuid | SqlType::Json | SqlType::Jsonb => {
                Ok(self.array.as_string::<i32>().value(row).to_string())
            }
            SqlType::Bytea => Ok(format!("\\x{}", self.shown(row)?)),
            SqlType::Array(item) => self.items(item, row),
            SqlType::Vector(_) => self.items(&SqlType::Float4, row),
            SqlType::Timestamp | SqlType::TimestampTz => {
                let us = self.array.as_primitive::<TimestampMicrosecondType>().value(row);
                match self.epoch {
                    _ if matches!(us, i64::MIN | i64::MAX) => Err("an infinite time cannot be written".to_string()),
                    Some(epoch) => Ok(since_1970(us, epoch)),
                    None => self.shown(row),
                }
            }
            SqlType::Interval => Err("an interval cannot be written".to_string()),
            _ => self.shown(row),
        }
    }

    /// The value, which is not NULL, as JSON.
    pub fn json(&self, row: usize) -> Result<String, String> {
        let plain = self.plain(row)?;
        let is_itself = match self.ty {
            SqlType::Bool | SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Numeric { .. } => true,
            SqlType::Float4 => self.array.as_primitive::<Float32Type>().value(row).is_finite(),
            SqlType::Float8 => self.array.as_primitive::<Float64Type>().value(row).is_finite(),
            SqlType::Timestamp | SqlType::TimestampTz => self.epoch.is_some(),
            SqlType::Array(_) | SqlType::Vector(_) | SqlType::Json | SqlType::Jsonb => true,
            SqlType::Text | SqlType::Uuid | SqlType::Bytea | SqlType::Date | SqlType::Time | SqlType::Interval => false,
        };
        if is_itself { Ok(plain) } else { quoted(&plain) }
    }

    fn items(&self, ty: &SqlType, row: usize) -> Result<String, String> {
        let items = self.array.as_list::<i32>().value(row);
        let items = Written::new(&items, ty, self.epoch)?;
        let each =
            (0..items.array.len()).map(|i| if items.is_null(i) { Ok("null".to_string()) } else { items.json(i) });
        Ok(format!("[{}]", each.collect::<Result<Vec<_>, String>>()?.join(",")))
    }
}

fn quoted(text: &str) -> Result<String, String> {
    serde_json::to_string(text).map_err(|error| error.to_string())
}

/// Decimal places where the unit is greater than what is to be said.
fn since_1970(us: i64, epoch: Epoch) -> String {
    let places = usize::try_from(epoch.scale()).unwrap_or(0);
    let unit = 10u64.pow(places as u32);
    let (whole, rest) = (us.unsigned_abs() / unit, us.unsigned_abs() % unit);
    let sign = if us < 0 { "-" } else { "" };
    let fraction = format!("{rest:0places$}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }
}

/// Writes objects with the columns at their places.
pub(crate) struct JsonWriter {
    columns: Vec<Field>,
    fields: Fields,
}

impl JsonWriter {
    /// # Errors
    /// Two columns are at one place, or one inside another.
    pub fn new(columns: Vec<Field>) -> Result<JsonWriter, String> {
        Ok(JsonWriter { fields: Fields::of(&columns)?, columns })
    }

    pub fn columns(&self) -> &[Field] {
        &self.columns
    }

    /// One row. What is NULL is left out.
    pub fn object(&self, columns: &[Written<'_>], row: usize) -> Result<String, String> {
        let mut out = String::new();
        self.fields_of(&self.fields, columns, row, &mut out)?;
        Ok(out)
    }

    fn fields_of(&self, fields: &Fields, columns: &[Written<'_>], row: usize, out: &mut String) -> Result<(), String> {
        out.push('{');
        let begin = out.len();
        for (name, place) in &fields.0 {
            let before = out.len();
            if before > begin {
                out.push(',');
            }
            out.push_str(&quoted(name)?);
            out.push(':');
            let value = out.len();
            match place {
                Place::Column(at) if !columns[*at].is_null(row) => {
                    let written = columns[*at].json(row);
                    out.push_str(
                        &written.map_err(|error| format!("column \"{}\": {error}", self.columns[*at].column.name))?,
                    );
                }
                Place::Column(_) => {}
                Place::Inside(inside) => self.fields_of(inside, columns, row, out)?,
            }
            if matches!(&out[value..], "" | "{}") {
                out.truncate(before);
            }
        }
        out.push('}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::JsonRows;
    use arrow::array::RecordBatch;
    use tidemark_catalog::Column;

    fn field(name: &str, ty: SqlType, epoch: Option<Epoch>) -> Field {
        let column = Column { name: name.to_string(), ty, not_null: false, comment: None };
        Field { column, path: name.split('.').map(str::to_string).collect(), epoch }
    }

    /// Reads messages, writes the rows, and reads those again.
    fn check(columns: &[Field], messages: &[&str], expected: &[&str]) {
        let mut rows = JsonRows::new(columns.to_vec()).expect("columns");
        let mut read = |messages: &[String]| -> Vec<ArrayRef> {
            messages.iter().for_each(|message| rows.push(message.as_bytes()).expect(message));
            rows.finish().expect("arrays")
        };
        let messages: Vec<String> = messages.iter().map(|message| message.to_string()).collect();
        let arrays = read(&messages);
        let written: Vec<Written<'_>> = arrays
            .iter()
            .zip(columns)
            .map(|(array, field)| Written::new(array, &field.column.ty, field.epoch).expect("a column"))
            .collect();
        let writer = JsonWriter::new(columns.to_vec()).expect("columns");
        let again: Vec<String> = (0..messages.len()).map(|row| writer.object(&written, row).expect("a row")).collect();
        assert_eq!(again, expected);
        let named = |arrays: Vec<ArrayRef>| {
            RecordBatch::try_from_iter_with_nullable(
                arrays.into_iter().enumerate().map(|(i, array)| (i.to_string(), array, true)),
            )
        };
        assert_eq!(named(read(&again)).expect("rows"), named(arrays.clone()).expect("rows"));
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        use SqlType::*;
        let cases = [
            (Bool, None, "true", "true"),
            (Int2, None, "-32768", "-32768"),
            (Int8, None, "9223372036854775807", "9223372036854775807"),
            (Float8, None, "0.1", "0.1"),
            (Float8, None, "\"NaN\"", "\"NaN\""),
            (Float4, None, "1.5", "1.5"),
            (Numeric { precision: 10, scale: 2 }, None, "-12.345", "-12.35"),
            (Text, None, "\"a\\u00e9\\n\\\"\"", "\"aé\\n\\\"\""),
            (Text, None, "{\"b\": 1}", "\"{\\\"b\\\": 1}\""),
            (Json, None, "{\"b\":1.0}", "{\"b\":1.0}"),
            (Json, None, "\"a\\n\"", "\"a\\n\""),
            (Jsonb, None, "{\"b\":1.0, \"a\":[true]}", "{\"a\": [true], \"b\": 1.0}"),
            (Jsonb, None, "7", "7"),
            (Uuid, None, "\"{A0EEBC999C0B4EF8BB6D6BB9BD380A11}\"", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
            (Bytea, None, "\"\\\\x00ff\"", "\"\\\\x00ff\""),
            (Date, None, "\"2026-11-01\"", "\"2026-11-01\""),
            (TimestampTz, None, "\"2026-11-01 12:00:00.5Z\"", "\"2026-11-01T12:00:00.500Z\""),
            (Timestamp, None, "\"2026-11-01T12:00:00\"", "\"2026-11-01T12:00:00\""),
            (TimestampTz, Some(Epoch::Seconds), "1793534400.25", "1793534400.25"),
            (TimestampTz, Some(Epoch::Millis), "-1.5", "-1.5"),
            (Timestamp, Some(Epoch::Micros), "1793534400000001", "1793534400000001"),
            (Array(Box::new(Text)), None, "[\"a\", null]", "[\"a\",null]"),
            (Vector(Some(3)), None, "[1, -0.25, \"0.1\"]", "[1.0,-0.25,0.1]"),
        ];
        for (ty, epoch, value, expected) in cases {
            let columns = [field("x", ty, epoch)];
            check(&columns, &[&format!("{{\"x\": {value}}}")], &[&format!("{{\"x\":{expected}}}")]);
        }
    }

    #[test]
    fn columns_are_at_their_places_and_null_is_nowhere() {
        let columns = [
            field("id", SqlType::Int8, None),
            field("item.price", SqlType::Int8, None),
            field("item.by", SqlType::Text, None),
        ];
        check(
            &columns,
            &[r#"{"id": 1, "item": {"price": 2, "by": "ann"}}"#, r#"{"item": {"by": "ann"}}"#, r#"{"id": 1}"#, "{}"],
            &[r#"{"id":1,"item":{"price":2,"by":"ann"}}"#, r#"{"item":{"by":"ann"}}"#, r#"{"id":1}"#, "{}"],
        );
    }
}
