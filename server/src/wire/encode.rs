//! Result rows: DataRow messages from the rows of record batches, or from values that never were in one.

use super::{
    FieldFormat, SessionFormat, WireError,
    cell::{CellWriter, Scalar, write_sized},
    types::PgType,
};
use arrow::{array::RecordBatch, datatypes::Schema};
use bytes::{BufMut, BytesMut};
use std::ops::Range;

/// Writes the rows of batches of one schema, in the formats a portal asked for.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    columns: Vec<(CellWriter, FieldFormat)>,
    session: SessionFormat,
}

impl RowEncoder {
    /// `formats` is as in Bind: none (all text), one for all columns, or one per column (else 08P01).
    pub fn new(schema: &Schema, formats: &[FieldFormat], session: &SessionFormat) -> Result<Self, WireError> {
        let count = schema.fields().len();
        if formats.len() > 1 && formats.len() != count {
            return Err(WireError::new(
                "08P01",
                format!("bind message has {} result formats but query has {count} columns", formats.len()),
            ));
        }
        let format = |i: usize| match formats {
            [] => FieldFormat::Text,
            [one] => *one,
            many => many[i],
        };
        let columns = schema.fields().iter().enumerate().map(|(i, f)| (CellWriter::new(f), format(i))).collect();
        Ok(RowEncoder { columns, session: session.clone() })
    }

    /// The type and format of each column, for RowDescription.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (PgType, FieldFormat)> + '_ {
        self.columns.iter().map(|(writer, format)| (writer.ty, *format))
    }

    /// Appends the body of a DataRow: the column count, then each value after its length (-1 is NULL).
    ///
    /// `batch` must have the columns of the encoder's schema, and `row` must be in it.
    pub fn encode(&self, batch: &RecordBatch, row: usize, out: &mut BytesMut) {
        out.put_i16(self.columns.len() as i16);
        for ((writer, format), array) in self.columns.iter().zip(batch.columns()) {
            let array = array.as_ref();
            if writer.is_null(array, row) {
                out.put_i32(-1);
                continue;
            }
            write_sized(out, |out| match format {
                FieldFormat::Text => writer.text(&self.session, array, row, out),
                FieldFormat::Binary => writer.binary(&self.session, array, row, out),
            });
        }
    }

    /// Appends whole DataRow messages (`D`, length, body), one per row of `rows`.
    pub fn encode_batch(&self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) {
        out.reserve(rows.len() * (7 + self.columns.len() * 12));
        for row in rows {
            message(out, |out| self.encode(batch, row, out));
        }
    }
}

/// Writes rows of single values, as a lookup has them: made once, for any session and any formats.
#[derive(Debug)]
pub struct RowWriter {
    columns: Vec<CellWriter>,
}

impl RowWriter {
    pub fn new(schema: &Schema) -> Self {
        RowWriter { columns: schema.fields().iter().map(|f| CellWriter::new(f)).collect() }
    }

    /// Appends one whole DataRow message; `cell` gives the value of a column, `None` for NULL.
    pub(crate) fn write<'a>(
        &self,
        session: &SessionFormat,
        format: impl Fn(usize) -> FieldFormat,
        cell: impl Fn(usize) -> Option<Scalar<'a>>,
        out: &mut BytesMut,
    ) {
        message(out, |out| {
            out.put_i16(self.columns.len() as i16);
            for (i, writer) in self.columns.iter().enumerate() {
                match cell(i) {
                    None => out.put_i32(-1),
                    Some(value) => write_sized(out, |out| match format(i) {
                        FieldFormat::Text => writer.scalar_text(session, value, out),
                        FieldFormat::Binary => writer.scalar_binary(session, value, out),
                    }),
                }
            }
        });
    }
}

/// A DataRow message around a body.
fn message(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(b'D');
    let at = out.len();
    out.put_i32(0);
    body(out);
    let len = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}
