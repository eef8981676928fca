//! `COPY … TO STDOUT`: record batches to the bytes of the text, CSV and binary formats.

use super::{
    SessionFormat, WireError,
    cell::{CellWriter, write_sized},
    copy_in::{BINARY_SIGNATURE, CopySettings, Style},
};
use arrow::{array::RecordBatch, datatypes::Schema};
use bytes::{BufMut, BytesMut};
use std::ops::Range;
use tidemark_planner::statement::CopyOptions;

/// Writes one COPY: [`header`](Self::header), rows, [`trailer`](Self::trailer).
pub struct CopyEncoder {
    settings: CopySettings,
    names: Vec<String>,
    columns: Vec<CellWriter>,
    session: SessionFormat,
    value: BytesMut,
    /// The binary header shares the message of what comes first after it, as PostgreSQL sends it: some drivers read the
    /// first row on without looking for another message.
    header_owed: bool,
}

impl CopyEncoder {
    pub fn new(schema: &Schema, options: &CopyOptions, session: &SessionFormat) -> Result<Self, WireError> {
        Ok(CopyEncoder {
            settings: CopySettings::of(options)?,
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            columns: schema.fields().iter().map(|f| CellWriter::new(f)).collect(),
            session: session.clone(),
            value: BytesMut::new(),
            header_owed: false,
        })
    }

    /// The format code for CopyOutResponse, of the whole and of each column.
    pub fn is_binary(&self) -> bool {
        self.settings.style == Style::Binary
    }

    pub fn column_count(&self) -> usize {
        self.columns.len()
    }

    /// What comes before the first row: a binary signature, the names where `HEADER` asks for them, or nothing.
    pub fn header(&mut self, out: &mut BytesMut) {
        if self.is_binary() {
            out.put_slice(BINARY_SIGNATURE);
            out.put_bytes(0, 8);
        } else if self.settings.header {
            for (i, name) in self.names.iter().enumerate() {
                if i > 0 {
                    out.put_u8(self.settings.delimiter);
                }
                write_value(&self.settings, name.as_bytes(), self.names.len() == 1, out);
            }
            out.put_u8(b'\n');
        }
    }

    /// Appends one row.
    pub fn encode_row(&mut self, batch: &RecordBatch, row: usize, out: &mut BytesMut) {
        let CopyEncoder { settings, columns, session, value, .. } = self;
        let binary = settings.style == Style::Binary;
        if binary {
            out.put_i16(columns.len() as i16);
        }
        for (i, (writer, array)) in columns.iter().zip(batch.columns()).enumerate() {
            let array = array.as_ref();
            let null = writer.is_null(array, row);
            if binary {
                if null {
                    out.put_i32(-1);
                } else {
                    write_sized(out, |out| writer.binary(session, array, row, out));
                }
                continue;
            }
            if i > 0 {
                out.put_u8(settings.delimiter);
            }
            if null {
                out.put_slice(settings.null.as_bytes());
            } else {
                value.clear();
                writer.text(session, array, row, value);
                write_value(settings, value, columns.len() == 1, out);
            }
        }
        if !binary {
            out.put_u8(b'\n');
        }
    }

    /// Appends the rows as plain bytes, for a file.
    pub fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) {
        for row in rows {
            self.encode_row(batch, row, out);
        }
    }

    /// Appends the rows as CopyData messages (`d`, length, bytes), one per row: drivers read rows by messages.
    pub fn encode_messages(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) {
        for row in rows {
            message(out, |out| {
                self.owed_header(out);
                self.encode_row(batch, row, out);
            });
        }
    }

    /// The header as one CopyData message; nothing when there is none, or when it comes with the next message.
    pub fn header_message(&mut self, out: &mut BytesMut) {
        if self.is_binary() {
            self.header_owed = true;
        } else if self.settings.header {
            message(out, |out| self.header(out));
        }
    }

    fn owed_header(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.header_owed) {
            self.header(out);
        }
    }

    /// The trailer as one CopyData message; nothing when there is none.
    pub fn trailer_message(&mut self, out: &mut BytesMut) {
        if self.is_binary() {
            message(out, |out| {
                self.owed_header(out);
                self.trailer(out);
            });
        }
    }

    /// What comes after the last row: the binary format's end mark.
    pub fn trailer(&mut self, out: &mut BytesMut) {
        if self.is_binary() {
            out.put_i16(-1);
        }
    }
}

/// A CopyData message; its length counts itself.
fn message(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(b'd');
    let at = out.len();
    out.put_i32(0);
    body(out);
    let len = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn write_value(settings: &CopySettings, value: &[u8], alone: bool, out: &mut BytesMut) {
    let delimiter = settings.delimiter;
    match settings.style {
        Style::Csv { quote, escape } => {
            // A lone `\.` would end the input when read back.
            let quoted = value == settings.null.as_bytes()
                || (alone && value == b"\\.")
                || value.iter().any(|&b| b == delimiter || b == quote || b == b'\n' || b == b'\r');
            if !quoted {
                return out.put_slice(value);
            }
            out.put_u8(quote);
            for &b in value {
                if b == quote || b == escape {
                    out.put_u8(escape);
                }
                out.put_u8(b);
            }
            out.put_u8(quote);
        }
        _ => {
            for &b in value {
                let letter = match b {
                    0x08 => b'b',
                    0x0c => b'f',
                    b'\n' => b'n',
                    b'\r' => b'r',
                    b'\t' => b't',
                    0x0b => b'v',
                    b'\\' => b'\\',
                    _ if b == delimiter => b,
                    _ => {
                        out.put_u8(b);
                        continue;
                    }
                };
                out.put_slice(&[b'\\', letter]);
            }
        }
    }
}
