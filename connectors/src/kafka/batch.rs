//! Messages on their way to rows: decoded where librdkafka has them, together with where each came from.

use super::{KafkaError, Kind, Options, queue::Message};
use crate::{format::Rows, json::Field};
use arrow::{
    array::{
        ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder, new_null_array,
    },
    datatypes::SchemaRef,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use std::{collections::BTreeMap, ffi::CString, sync::Arc};
use tidemark_catalog::{Include, SqlType};
use tidemark_engine::seam::{Origin, Run, Taken, Undecoded};

/// What has been taken from the topic at once.
#[derive(Debug, Clone)]
pub struct Batch {
    pub rows: RecordBatch,
    /// Rows that have only a primary key, whose row goes; ascending.
    pub deletes: Vec<u32>,
    pub origin: Origin,
}

impl Batch {
    /// Without rows: where partitions begin.
    pub fn beginning(schema: SchemaRef, partitions: &BTreeMap<u32, u64>) -> Batch {
        let taken = partitions.iter();
        let taken = taken
            .map(|(partition, next)| Taken { partition: *partition, next: *next, watermark_us: i64::MIN })
            .collect();
        let origin = Origin { taken, ..Origin::default() };
        Batch { rows: RecordBatch::new_empty(schema), deletes: vec![], origin }
    }

    /// Without rows: where reading goes on from now on, of these partitions and no others.
    pub fn reset(schema: SchemaRef, partitions: &BTreeMap<u32, u64>) -> Batch {
        let mut batch = Self::beginning(schema, partitions);
        batch.origin.is_reset = true;
        batch
    }
}

/// Gathers a batch.
pub(super) struct Decoder {
    schema: SchemaRef,
    decoded: Rows,
    /// The places of the decoded columns in the relation.
    places: Vec<usize>,
    /// Those of them that a message without a value tells in its key; `None`: such a message is no row.
    key: Option<Vec<usize>>,
    includes: Vec<(usize, Including)>,
    deletes: Vec<u32>,
    runs: Vec<Run>,
    undecoded: Vec<Undecoded>,
    next: BTreeMap<u32, u64>,
    bytes: usize,
}

impl Decoder {
    pub fn new(options: &Options, schema: SchemaRef) -> Result<Decoder, KafkaError> {
        let wrong = |message: String| KafkaError::new(Kind::Options, message);
        let (places, fields): (Vec<usize>, Vec<Field>) = options.fields.iter().cloned().unzip();
        let includes = options.includes.iter().map(|(at, include, ty)| Ok((*at, Including::of(include, ty)?)));
        Ok(Decoder {
            schema,
            decoded: Rows::new(&options.format, fields).map_err(wrong)?,
            places,
            key: options.key.clone(),
            deletes: vec![],
            includes: includes.collect::<Result<_, String>>().map_err(wrong)?,
            runs: vec![],
            undecoded: vec![],
            next: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// Messages since the last batch.
    pub fn messages(&self) -> usize {
        self.decoded.len() + self.undecoded.len()
    }

    /// Bytes of them: payloads, and keys and headers that are columns or say what is deleted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, message: &Message<'_>, now_us: i64) {
        let Message { partition, offset, payload, timestamp_ms, .. } = *message;
        self.next.insert(partition, offset + 1);
        self.bytes += payload.map_or(0, <[u8]>::len) + self.beside(message);
        // The time at which it was written to the topic, where the broker says so; else now is all that is known.
        let append_us = timestamp_ms.filter(|_| message.is_append_time).map_or(now_us, |ms| ms.saturating_mul(1000));
        let row = self.decoded.len();
        if let Err(error) = self.row(message) {
            let payload = payload.map_or("null".to_string(), shown);
            self.undecoded.push(Undecoded { partition, offset, append_us, error, payload });
            return;
        }
        let continues = self.runs.last().is_some_and(|run| {
            run.partition == partition
                && run.append_us == append_us
                && run.offset + (row as u64 - u64::from(run.row)) == offset
        });
        if !continues {
            self.runs.push(Run { row: row as u32, partition, offset, append_us });
        }
    }

    /// Bytes of a message that are kept beside its payload.
    fn beside(&self, message: &Message<'_>) -> usize {
        let key = message.key.filter(|_| message.payload.is_none() && self.key.is_some()).map_or(0, <[u8]>::len);
        self.includes.iter().map(|(_, including)| including.bytes(message)).sum::<usize>() + key
    }

    /// One more row, or none.
    fn row(&mut self, message: &Message<'_>) -> Result<(), String> {
        for (at, including) in &self.includes {
            let field = self.schema.field(*at);
            including
                .check(message, field.is_nullable())
                .map_err(|what| format!("{what} of column \"{}\"", field.name()))?;
        }
        let row = self.decoded.len() as u32;
        match (message.payload, &self.key) {
            (Some(payload), _) => self.decoded.push(payload)?,
            (None, Some(key)) => {
                if message.key.is_none() && !key.is_empty() {
                    return Err("a message without a value and a key deletes nothing".to_string());
                }
                self.decoded.push_key(message.key.unwrap_or_default(), key)?;
                self.deletes.push(row);
            }
            (None, None) => return Err("a message without a value is no row of FORMAT PLAIN".to_string()),
        }
        self.includes.iter_mut().for_each(|(_, including)| including.push(message));
        Ok(())
    }

    /// What has been gathered; begins anew. The rows may be none.
    pub fn finish(&mut self) -> Result<Batch, KafkaError> {
        let wrong = |error: String| KafkaError::new(Kind::Other, error);
        let rows = self.decoded.len();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (at, column) in self.places.iter().zip(self.decoded.finish().map_err(wrong)?) {
            columns[*at] = Some(column);
        }
        for (at, including) in &mut self.includes {
            columns[*at] = Some(including.finish());
        }
        let columns = columns.into_iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| column.unwrap_or_else(|| new_null_array(field.data_type(), rows)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns.collect(), &options)
            .map_err(|error| wrong(error.to_string()))?;
        self.bytes = 0;
        let next = std::mem::take(&mut self.next).into_iter();
        let origin = Origin {
            runs: std::mem::take(&mut self.runs),
            undecoded: std::mem::take(&mut self.undecoded),
            taken: next.map(|(partition, next)| Taken { partition, next, watermark_us: i64::MIN }).collect(),
            is_reset: false,
        };
        Ok(Batch { rows, deletes: std::mem::take(&mut self.deletes), origin })
    }
}

/// Bytes as a text that says all of them.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => bytes.iter().fold("\\x".to_string(), |text, byte| text + &format!("{byte:02x}")),
    }
}

/// A column that tells about the message.
enum Including {
    Timestamp(TimestampMicrosecondBuilder),
    Partition(Int32Builder),
    Offset(Int64Builder),
    /// Of the key, or of a header.
    Text(Option<CString>, StringBuilder),
    Bytes(Option<CString>, BinaryBuilder),
}

impl Including {
    fn of(include: &Include, ty: &SqlType) -> Result<Including, String> {
        let name = match include {
            Include::Timestamp => {
                let builder = TimestampMicrosecondBuilder::new().with_data_type(ty.arrow());
                return Ok(Including::Timestamp(builder));
            }
            Include::Partition => return Ok(Including::Partition(Int32Builder::new())),
            Include::Offset => return Ok(Including::Offset(Int64Builder::new())),
            Include::Key => None,
            Include::Header(name) => Some(CString::new(name.as_str()).map_err(|_| "a header's name has a zero byte")?),
        };
        Ok(match ty {
            SqlType::Text => Including::Text(name, StringBuilder::new()),
            _ => Including::Bytes(name, BinaryBuilder::new()),
        })
    }

    fn read<'a>(name: &Option<CString>, message: &'a Message<'_>) -> Option<&'a [u8]> {
        match name {
            Some(name) => message.header(name),
            None => message.key,
        }
    }

    /// Whether the message can be told of.
    fn check(&self, message: &Message<'_>, is_nullable: bool) -> Result<(), String> {
        let name = match self {
            Including::Text(name, _) | Including::Bytes(name, _) => name,
            Including::Timestamp(_) if !is_nullable && message.timestamp_ms.is_none() => {
                return Err("the timestamp is missing, and is NOT NULL".to_string());
            }
            Including::Timestamp(_) | Including::Partition(_) | Including::Offset(_) => return Ok(()),
        };
        let what = if name.is_some() { "the header" } else { "the key" };
        match (Self::read(name, message), self) {
            (None, _) if !is_nullable => Err(format!("{what} is missing, and is NOT NULL")),
            (Some(bytes), Including::Text(..)) => match std::str::from_utf8(bytes) {
                Ok(text) if text.contains('\0') => {
                    Err(format!("{what} has the character \\u0000, which text cannot hold"))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{what} is no text ({error}), which it is to be by the type")),
            },
            _ => Ok(()),
        }
    }

    fn push(&mut self, message: &Message<'_>) {
        match self {
            Including::Timestamp(b) => b.append_option(message.timestamp_ms.map(|ms| ms.saturating_mul(1000))),
            Including::Partition(b) => b.append_value(message.partition as i32),
            Including::Offset(b) => b.append_value(message.offset as i64),
            Including::Text(name, b) => {
                b.append_option(Self::read(name, message).and_then(|bytes| std::str::from_utf8(bytes).ok()));
            }
            Including::Bytes(name, b) => b.append_option(Self::read(name, message)),
        }
    }

    /// What it keeps of the message, where that can be large.
    fn bytes(&self, message: &Message<'_>) -> usize {
        match self {
            Including::Text(name, _) | Including::Bytes(name, _) => Self::read(name, message).map_or(0, <[u8]>::len),
            Including::Timestamp(_) | Including::Partition(_) | Including::Offset(_) => 0,
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Including::Timestamp(b) => Arc::new(b.finish()),
            Including::Partition(b) => Arc::new(b.finish()),
            Including::Offset(b) => Arc::new(b.finish()),
            Including::Text(_, b) => Arc::new(b.finish()),
            Including::Bytes(_, b) => Arc::new(b.finish()),
        }
    }
}
