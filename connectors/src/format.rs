//! What the bytes of a message are: the one place that a further format (Avro, Protobuf, Debezium) joins.
//!
//! A format gathers rows, one a message, and gives them as columns; whoever takes messages knows nothing else of it.

use crate::{
    csv::{CsvRows, Dialect},
    json::{Field, JsonRows},
};
use arrow::array::{ArrayRef, BinaryBuilder};
use std::sync::Arc;

/// A format with what its options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv(Dialect),
    /// The message is the value of the one column.
    Bytes,
}

/// Rows that are being gathered.
pub enum Rows {
    Json(Box<JsonRows>),
    Csv(Box<CsvRows>),
    Bytes(BinaryBuilder, usize),
}

impl Rows {
    /// # Errors
    /// The format cannot have these columns.
    pub fn new(format: &Format, columns: Vec<Field>) -> Result<Rows, String> {
        Ok(match format {
            Format::Json => Rows::Json(Box::new(JsonRows::new(columns)?)),
            Format::Csv(dialect) => Rows::Csv(Box::new(CsvRows::new(dialect.clone(), columns))),
            Format::Bytes => Rows::Bytes(BinaryBuilder::new(), 0),
        })
    }

    pub fn len(&self) -> usize {
        match self {
            Rows::Json(rows) => rows.len(),
            Rows::Csv(rows) => rows.len(),
            Rows::Bytes(_, rows) => *rows,
        }
    }

    /// Takes a message as one more row.
    ///
    /// # Errors
    /// It is none, with the reason; the rows are as before.
    pub fn push(&mut self, message: &[u8]) -> Result<(), String> {
        match self {
            Rows::Json(rows) => rows.push(message),
            Rows::Csv(rows) => rows.push(message),
            Rows::Bytes(column, rows) => {
                column.append_value(message);
                *rows += 1;
                Ok(())
            }
        }
    }

    /// Takes a row of which only the columns of a key are known, `key` by their numbers, from the key of a message.
    ///
    /// # Errors
    /// It is none, with the reason; the rows are as before.
    pub fn push_key(&mut self, message_key: &[u8], key: &[usize]) -> Result<(), String> {
        match self {
            Rows::Json(rows) => rows.push_key(message_key, key),
            Rows::Csv(_) | Rows::Bytes(..) => Err("the format has no keys".to_string()),
        }
    }

    /// The columns of the rows so far, in order; begins anew.
    pub fn finish(&mut self) -> Result<Vec<ArrayRef>, String> {
        match self {
            Rows::Json(rows) => rows.finish(),
            Rows::Csv(rows) => rows.finish(),
            Rows::Bytes(column, rows) => {
                *rows = 0;
                let column: ArrayRef = Arc::new(column.finish());
                Ok(vec![column])
            }
        }
    }
}
