//! Rows to messages, as the same source would read them: what is read back is what was written.

use super::Options;
use crate::{
    csv,
    format::Format,
    json::{Field, JsonWriter, Written},
};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    record_batch::RecordBatch,
};
use tidemark_catalog::{Include, Relation};

/// A message as it goes into the topic.
#[derive(Debug, PartialEq)]
pub(super) struct Outgoing {
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

pub(super) struct Encoder {
    format: Form,
    /// The columns in a message, with their place in the relation.
    fields: Vec<(usize, Field)>,
    /// The columns of the message's key.
    key: Vec<usize>,
    /// Of a table: the key of a message that has no other is its primary key.
    primary_key: Option<PrimaryKey>,
    /// Their names, and the columns of each.
    headers: Vec<(String, Vec<usize>)>,
}

enum Form {
    Json(JsonWriter),
    Csv(csv::Dialect),
    Bytes,
}

enum PrimaryKey {
    /// One column, as a plain value.
    Plain(usize, Field),
    Object(Vec<usize>, JsonWriter),
}

impl Encoder {
    pub fn new(options: &Options, relation: &Relation) -> Result<Encoder, String> {
        let columns = |fields: &[(usize, Field)]| fields.iter().map(|(_, field)| field.clone()).collect::<Vec<_>>();
        let format = match &options.format {
            Format::Json => Form::Json(JsonWriter::new(columns(&options.fields))?),
            Format::Csv(dialect) => Form::Csv(dialect.clone()),
            Format::Bytes => Form::Bytes,
        };
        let of_key: Option<Vec<(usize, Field)>> =
            options.key.as_ref().map(|key| key.iter().map(|i| options.fields[*i].clone()).collect());
        let primary_key = match of_key.as_deref() {
            None | Some([]) => None,
            Some([(at, field)]) => Some(PrimaryKey::Plain(*at, field.clone())),
            Some(several) => {
                let places = several.iter().map(|(at, _)| *at).collect();
                Some(PrimaryKey::Object(places, JsonWriter::new(columns(several))?))
            }
        };
        let mut headers: Vec<(String, Vec<usize>)> = vec![];
        for (at, include) in &relation.includes {
            if let Include::Header(name) = include {
                match headers.iter_mut().find(|(known, _)| known == name) {
                    Some((_, places)) => places.push(*at),
                    None => headers.push((name.clone(), vec![*at])),
                }
            }
        }
        let keys = relation.includes.iter().filter(|(_, include)| *include == Include::Key);
        Ok(Encoder {
            format,
            fields: options.fields.clone(),
            key: keys.map(|(at, _)| *at).collect(),
            primary_key,
            headers,
        })
    }

    /// One message a row.
    ///
    /// # Errors
    /// A row that the source would not read back.
    pub fn messages(&self, rows: &RecordBatch) -> Result<Vec<Outgoing>, String> {
        let columns: Vec<Written<'_>> = self
            .fields
            .iter()
            .map(|(at, field)| Written::new(rows.column(*at), &field.column.ty, field.epoch))
            .collect::<Result<_, String>>()?;
        let of_key: Vec<Written<'_>> = match &self.primary_key {
            None => vec![],
            Some(PrimaryKey::Plain(at, field)) => {
                vec![Written::new(rows.column(*at), &field.column.ty, field.epoch)?]
            }
            Some(PrimaryKey::Object(places, writer)) => places
                .iter()
                .zip(writer.columns())
                .map(|(at, field)| Written::new(rows.column(*at), &field.column.ty, field.epoch))
                .collect::<Result<_, String>>()?,
        };
        (0..rows.num_rows())
            .map(|row| {
                let mut headers = vec![];
                for (name, places) in &self.headers {
                    let value = told(rows, places, row, || format!("header '{name}'"))?;
                    headers.extend(value.map(|value| (name.clone(), value)));
                }
                let key = match told(rows, &self.key, row, || "key".to_string())? {
                    Some(key) => Some(key),
                    None => self.primary_key(&of_key, row)?.map(String::into_bytes),
                };
                Ok(Outgoing { key, payload: self.payload(&columns, row)?, headers })
            })
            .collect()
    }

    fn payload(&self, columns: &[Written<'_>], row: usize) -> Result<Vec<u8>, String> {
        let named = |at: usize, error: String| format!("column \"{}\": {error}", self.fields[at].1.column.name);
        match &self.format {
            Form::Json(writer) => writer.object(columns, row).map(String::into_bytes),
            Form::Csv(dialect) => {
                let field = |(at, column): (usize, &Written<'_>)| match column.is_null(row) {
                    true => Ok(None),
                    false => column.plain(row).map(Some).map_err(|error| named(at, error)),
                };
                let fields: Vec<Option<String>> =
                    columns.iter().enumerate().map(field).collect::<Result<_, String>>()?;
                Ok(csv::record(dialect, &fields).into_bytes())
            }
            Form::Bytes => columns
                .first()
                .and_then(|column| column.bytes(row))
                .ok_or_else(|| named(0, "NULL is no message of ENCODE BYTES".to_string())),
        }
    }

    fn primary_key(&self, of_key: &[Written<'_>], row: usize) -> Result<Option<String>, String> {
        Ok(match (&self.primary_key, of_key) {
            (Some(PrimaryKey::Object(_, writer)), columns) => Some(writer.object(columns, row)?),
            (Some(PrimaryKey::Plain(..)), [column]) => {
                let plain = column.plain(row)?;
                // What would be read as JSON is written as JSON.
                match plain.trim_start().starts_with(['{', '"']) {
                    true => Some(serde_json::to_string(&plain).map_err(|error| error.to_string())?),
                    false => Some(plain),
                }
            }
            _ => None,
        })
    }
}

/// What the columns at these places say of one part of the message; one that is NULL says nothing.
///
/// # Errors
/// They do not say the same.
fn told(
    rows: &RecordBatch,
    places: &[usize],
    row: usize,
    what: impl Fn() -> String,
) -> Result<Option<Vec<u8>>, String> {
    let mut told: Option<(usize, Vec<u8>)> = None;
    for at in places {
        let Some(value) = bytes(rows.column(*at), row) else { continue };
        match &told {
            Some((first, known)) if *known != value => {
                let name = |at: usize| rows.schema_ref().field(at).name().clone();
                let (first, other) = (name(*first), name(*at));
                return Err(format!(
                    "columns \"{first}\" and \"{other}\" are both the message's {}, and differ: give one of them",
                    what()
                ));
            }
            Some(_) => {}
            None => told = Some((*at, value)),
        }
    }
    Ok(told.map(|(_, value)| value))
}

/// Of a column that is text or bytes.
fn bytes(column: &ArrayRef, row: usize) -> Option<Vec<u8>> {
    if column.is_null(row) {
        return None;
    }
    match column.as_string_opt::<i32>() {
        Some(texts) => Some(texts.value(row).as_bytes().to_vec()),
        None => column.as_binary_opt::<i32>().map(|values| values.value(row).to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, StringArray};
    use std::sync::Arc;

    #[test]
    fn columns_of_one_part_of_a_message_say_the_same_or_nothing() {
        let texts = StringArray::from(vec![Some("a"), None, Some("a"), Some("a"), None]);
        let binary = BinaryArray::from(vec![None, Some(&b"b"[..]), Some(&b"a"[..]), Some(&b"b"[..]), None]);
        let columns: [(&str, ArrayRef); 2] = [("k", Arc::new(texts)), ("raw", Arc::new(binary))];
        let rows = RecordBatch::try_from_iter(columns).expect("a batch");
        let told = |row| told(&rows, &[0, 1], row, || "key".to_string());
        assert_eq!(told(0), Ok(Some(b"a".to_vec())));
        assert_eq!(told(1), Ok(Some(b"b".to_vec())));
        assert_eq!(told(2), Ok(Some(b"a".to_vec())));
        let differ = "columns \"k\" and \"raw\" are both the message's key, and differ: give one of them";
        assert_eq!(told(3), Err(differ.to_string()));
        assert_eq!(told(4), Ok(None));
    }
}
