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
    /// The column of the message's key.
    key: Option<usize>,
    /// Of a table: the key of a message that has no other is its primary key.
    primary_key: Option<PrimaryKey>,
    headers: Vec<(usize, String)>,
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
        let header = |(at, include): &(usize, Include)| match include {
            Include::Header(name) => Some((*at, name.clone())),
            _ => None,
        };
        Ok(Encoder {
            format,
            fields: options.fields.clone(),
            key: relation.includes.iter().find(|(_, include)| *include == Include::Key).map(|(at, _)| *at),
            primary_key,
            headers: relation.includes.iter().filter_map(header).collect(),
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
                let header = |(at, name): &(usize, String)| Some((name.clone(), bytes(rows.column(*at), row)?));
                let key = match self.key.and_then(|at| bytes(rows.column(at), row)) {
                    Some(key) => Some(key),
                    None => self.primary_key(&of_key, row)?.map(String::into_bytes),
                };
                Ok(Outgoing {
                    key,
                    payload: self.payload(&columns, row)?,
                    headers: self.headers.iter().filter_map(header).collect(),
                })
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
