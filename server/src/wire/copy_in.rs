//! `COPY … FROM STDIN`: bytes in chunks of any size to record batches, parsed straight into Arrow columns.
//!
//! A batch has every column of the schema, those that are not copied being NULL; so its fields are nullable whatever
//! the schema says, and whoever admits the rows checks NOT NULL. `infinity` comes out as the extreme of its type.

use super::{
    SessionZone, WireError,
    column::ColumnBuilder,
    copy_scan::{Field, RecordScanner, Scan, split_csv, split_text},
    decode::{Reader, utf8},
    types::pg_type_of_field,
};
use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    datatypes::{Schema, SchemaRef},
};
use std::sync::Arc;
use tidemark_planner::statement::{CopyFormat, CopyOptions};

/// With its context always set.
pub type CopyError = WireError;

pub(crate) const BINARY_SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Reads one COPY. After an error it gives the same error again: nothing more can be read.
pub struct CopyDecoder {
    /// Bytes of a record that has not ended yet.
    pending: Vec<u8>,
    reader: Format,
    rows: RowSink,
    failed: Option<CopyError>,
}

enum Format {
    Lines(LineReader),
    Binary(BinaryReader),
}

impl CopyDecoder {
    /// `columns[i]` is the index in `schema` of the i-th field of a row; a batch is given out every `batch_rows` rows.
    ///
    /// `table` is only for messages. Options that PostgreSQL refuses (a delimiter that is a line end, …) are 0A000 or
    /// 22023; a column type that cannot be read is 0A000.
    pub fn new(
        table: &str,
        options: &CopyOptions,
        schema: SchemaRef,
        columns: &[usize],
        time_zone: SessionZone,
        batch_rows: usize,
    ) -> Result<Self, CopyError> {
        let settings = CopySettings::of(options)?;
        let mut targets = Vec::with_capacity(columns.len());
        for &index in columns {
            let field = schema.fields().get(index).ok_or_else(|| {
                WireError::new("42703", format!("column {} of relation \"{table}\" does not exist", index + 1))
            })?;
            let builder = ColumnBuilder::of(field.data_type(), pg_type_of_field(field).oid)?;
            targets.push(Target { index, name: field.name().clone(), builder });
        }
        let nullable: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let rows = RowSink {
            table: table.to_owned(),
            schema: Arc::new(Schema::new_with_metadata(nullable, schema.metadata().clone())),
            targets,
            time_zone,
            batch_rows: batch_rows.max(1),
            count: 0,
            batches: vec![],
            line: 0,
        };
        let reader = match settings.style {
            Style::Binary => Format::Binary(BinaryReader::Signature),
            _ => Format::Lines(LineReader::new(settings)),
        };
        Ok(CopyDecoder { pending: vec![], reader, rows, failed: None })
    }

    /// Takes the next bytes, cut anywhere, and gives the batches that became full.
    pub fn feed(&mut self, data: &[u8]) -> Result<Vec<RecordBatch>, CopyError> {
        self.read(data, false)
    }

    /// Ends the input and gives the rows that are left.
    pub fn finish(&mut self) -> Result<Vec<RecordBatch>, CopyError> {
        let mut batches = self.read(&[], true)?;
        self.rows.flush().map_err(|e| self.fail(e))?;
        batches.append(&mut self.rows.batches);
        Ok(batches)
    }

    fn fail(&mut self, error: CopyError) -> CopyError {
        self.failed = Some(error.clone());
        error
    }

    fn read(&mut self, data: &[u8], last: bool) -> Result<Vec<RecordBatch>, CopyError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // Whole chunks are read where they lie; only an unfinished record is copied.
        let outcome = if self.pending.is_empty() {
            self.consume(data, last).map(|used| self.pending.extend_from_slice(&data[used..]))
        } else {
            let mut buffer = std::mem::take(&mut self.pending);
            buffer.extend_from_slice(data);
            self.consume(&buffer, last).map(|used| {
                buffer.drain(..used);
                self.pending = buffer;
            })
        };
        outcome.map_err(|e| self.fail(e))?;
        Ok(std::mem::take(&mut self.rows.batches))
    }

    /// Reads the whole records at the front of `buffer` and says how many bytes they were.
    fn consume(&mut self, buffer: &[u8], last: bool) -> Result<usize, CopyError> {
        match &mut self.reader {
            Format::Lines(reader) => reader.consume(buffer, last, &mut self.rows),
            Format::Binary(reader) => reader.consume(buffer, last, &mut self.rows),
        }
    }
}

/// The options with their defaults filled in.
pub(crate) struct CopySettings {
    pub(crate) style: Style,
    pub(crate) delimiter: u8,
    pub(crate) null: String,
    pub(crate) header: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Style {
    Text,
    Csv { quote: u8, escape: u8 },
    Binary,
}

impl CopySettings {
    pub(crate) fn of(options: &CopyOptions) -> Result<Self, WireError> {
        let quote = options.quote.unwrap_or(b'"');
        let (style, delimiter, null) = match options.format {
            CopyFormat::Text => (Style::Text, b'\t', "\\N"),
            CopyFormat::Csv => (Style::Csv { quote, escape: options.escape.unwrap_or(quote) }, b',', ""),
            CopyFormat::Binary => (Style::Binary, b'\t', ""),
            CopyFormat::Parquet | CopyFormat::Arrow => {
                return Err(WireError::new("0A000", "COPY in this format is not supported here")
                    .with_hint("use format text, csv or binary"));
            }
        };
        let settings = CopySettings {
            style,
            delimiter: options.delimiter.unwrap_or(delimiter),
            null: options.null.clone().unwrap_or_else(|| null.to_owned()),
            header: options.header,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), WireError> {
        let one_byte = |what: &str, b: u8| {
            if b.is_ascii() && b != 0 {
                return Ok(());
            }
            Err(WireError::new("0A000", format!("COPY {what} must be a single one-byte character")))
        };
        one_byte("delimiter", self.delimiter)?;
        let delimiter = self.delimiter as char;
        if matches!(delimiter, '\r' | '\n') {
            return Err(WireError::new("22023", "COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.contains(['\r', '\n']) {
            return Err(WireError::new("22023", "COPY null representation cannot use newline or carriage return"));
        }
        if self.style != Style::Binary && self.null.contains(delimiter) {
            return Err(WireError::new("22023", "COPY delimiter must not appear in the NULL specification"));
        }
        match self.style {
            Style::Text if "\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(delimiter) => {
                Err(WireError::new("22023", format!("COPY delimiter cannot be \"{delimiter}\"")))
            }
            Style::Csv { quote, escape } => {
                one_byte("quote", quote)?;
                one_byte("escape", escape)?;
                if quote == self.delimiter {
                    return Err(WireError::new("22023", "COPY delimiter and quote must be different"));
                }
                if self.null.contains(quote as char) {
                    return Err(WireError::new(
                        "22023",
                        "CSV quote character must not appear in the NULL specification",
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

struct Target {
    index: usize,
    name: String,
    builder: ColumnBuilder,
}

/// Where rows go: one builder per copied column, cut into batches.
struct RowSink {
    table: String,
    schema: SchemaRef,
    targets: Vec<Target>,
    time_zone: SessionZone,
    batch_rows: usize,
    /// Rows in the builders.
    count: usize,
    batches: Vec<RecordBatch>,
    /// The line (text, CSV) or row (binary) being read, from 1.
    line: u64,
}

impl RowSink {
    fn at_line(&self, error: WireError) -> CopyError {
        error.with_context(format!("COPY {}, line {}", self.table, self.line))
    }

    fn at_record(&self, error: WireError, record: &[u8]) -> CopyError {
        let context = format!("COPY {}, line {}: \"{}\"", self.table, self.line, shortened(record));
        error.with_context(context)
    }

    fn at_column(&self, error: WireError, column: &str, value: Option<&[u8]>) -> CopyError {
        let at = format!("COPY {}, line {}, column {column}", self.table, self.line);
        error.with_context(match value {
            Some(value) => format!("{at}: \"{}\"", shortened(value)),
            None => at,
        })
    }

    fn end_row(&mut self) -> Result<(), CopyError> {
        self.count += 1;
        if self.count == self.batch_rows { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), CopyError> {
        if self.count == 0 {
            return Ok(());
        }
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for target in &mut self.targets {
            let column = target.builder.finish().map_err(|e| e.with_context(format!("COPY {}", self.table)))?;
            columns[target.index] = Some(column);
        }
        let columns = columns
            .into_iter()
            .zip(self.schema.fields())
            .map(|(column, field)| column.unwrap_or_else(|| new_null_array(field.data_type(), self.count)))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| WireError::new("XX000", e.to_string()).with_context(format!("COPY {}", self.table)))?;
        self.batches.push(batch);
        self.count = 0;
        Ok(())
    }
}

/// At most 100 bytes of a value in a message, as PostgreSQL shows them.
fn shortened(bytes: &[u8]) -> String {
    const MAX: usize = 100;
    if bytes.len() <= MAX {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut end = MAX;
    while end > 0 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    format!("{}...", String::from_utf8_lossy(&bytes[..end]))
}

/// The text and CSV formats.
struct LineReader {
    settings: CopySettings,
    scanner: RecordScanner,
    skip_header: bool,
    /// `\.` was read: what follows is not looked at.
    done: bool,
    fields: Vec<Field>,
    scratch: Vec<u8>,
}

impl LineReader {
    fn new(settings: CopySettings) -> Self {
        let csv = match settings.style {
            Style::Csv { quote, escape } => Some((quote, escape)),
            _ => None,
        };
        LineReader {
            skip_header: settings.header,
            settings,
            scanner: RecordScanner::new(csv),
            done: false,
            fields: vec![],
            scratch: vec![],
        }
    }

    fn consume(&mut self, buffer: &[u8], last: bool, rows: &mut RowSink) -> Result<usize, CopyError> {
        let mut start = 0;
        while !self.done {
            match self.scanner.next(&buffer[start..], last) {
                Ok(Scan::NeedMore) => return Ok(start),
                Ok(Scan::Record { len, next, lines }) => {
                    rows.line += 1 + lines;
                    self.record(&buffer[start..start + len], rows)?;
                    start += next;
                }
                Err(error) => {
                    rows.line += 1;
                    return Err(rows.at_line(error));
                }
            }
        }
        Ok(buffer.len())
    }

    fn record(&mut self, record: &[u8], rows: &mut RowSink) -> Result<(), CopyError> {
        if std::mem::take(&mut self.skip_header) {
            return Ok(());
        }
        if record == b"\\." {
            self.done = true;
            return Ok(());
        }
        let text = utf8(record).map_err(|e| rows.at_line(e))?;
        let CopySettings { style, delimiter, null, .. } = &self.settings;
        let (fields, scratch) = (&mut self.fields, &mut self.scratch);
        match style {
            Style::Csv { quote, escape } => {
                split_csv(record, *delimiter, *quote, *escape, null.as_bytes(), fields, scratch)
                    .map_err(|e| rows.at_record(e, record))?;
            }
            _ => split_text(record, *delimiter, null.as_bytes(), fields, scratch).map_err(|e| rows.at_line(e))?,
        }
        // A relation without columns has rows of empty lines.
        if fields.len() > rows.targets.len() && !(rows.targets.is_empty() && record.is_empty()) {
            return Err(rows.at_record(WireError::new("22P04", "extra data after last expected column"), record));
        }
        for i in 0..rows.targets.len() {
            let target = &mut rows.targets[i];
            let Some(field) = fields.get(i) else {
                let error = WireError::new("22P04", format!("missing data for column \"{}\"", target.name));
                return Err(rows.at_record(error, record));
            };
            let value = match *field {
                Field::Null => {
                    target.builder.append_null();
                    continue;
                }
                Field::Raw(from, to) => text.get(from..to).unwrap_or(""),
                Field::Unescaped(from, to) => match utf8(&scratch[from..to]) {
                    Ok(value) => value,
                    Err(error) => return Err(rows.at_record(error, record)),
                },
            };
            if let Err(error) = target.builder.append_text(value, &rows.time_zone) {
                return Err(rows.at_column(error, &rows.targets[i].name, Some(value.as_bytes())));
            }
        }
        rows.end_row()
    }
}

/// The binary format, by what comes next.
enum BinaryReader {
    Signature,
    Rows,
    Done,
}

impl BinaryReader {
    fn consume(&mut self, buffer: &[u8], last: bool, rows: &mut RowSink) -> Result<usize, CopyError> {
        let mut start = 0;
        loop {
            let rest = &buffer[start..];
            let step = match self {
                BinaryReader::Signature => Self::header(rest, last).map_err(|e| rows.at_line(e))?,
                BinaryReader::Rows => self.row(rest, rows)?,
                BinaryReader::Done if rest.is_empty() => None,
                BinaryReader::Done => {
                    let error = WireError::new("22P04", "received copy data after EOF marker");
                    return Err(rows.at_line(error));
                }
            };
            match (step, &self) {
                (Some(used), BinaryReader::Signature) => {
                    start += used;
                    *self = BinaryReader::Rows;
                }
                (Some(used), _) => start += used,
                (None, _) if last && !rest.is_empty() => {
                    return Err(rows.at_line(WireError::new("22P04", "unexpected EOF in COPY data")));
                }
                (None, _) => return Ok(start),
            }
        }
    }

    /// Signature, flags and extension; gives its length once it is all there.
    fn header(buffer: &[u8], last: bool) -> Result<Option<usize>, WireError> {
        let seen = buffer.len().min(BINARY_SIGNATURE.len());
        if buffer[..seen] != BINARY_SIGNATURE[..seen] || (last && seen < BINARY_SIGNATURE.len()) {
            return Err(WireError::new("22P04", "COPY file signature not recognized"));
        }
        let invalid = || WireError::new("22P04", "invalid COPY file header (wrong length)");
        let mut reader = Reader(&buffer[seen..]);
        let (Ok(flags), Ok(extension)) = (reader.take::<4>(), reader.take::<4>()) else {
            return if last {
                Err(WireError::new("22P04", "invalid COPY file header (missing flags)"))
            } else {
                Ok(None)
            };
        };
        let flags = u32::from_be_bytes(flags);
        if flags & 1 << 16 != 0 {
            return Err(WireError::new("22P04", "invalid COPY file header (WITH OIDS)"));
        }
        if flags >> 16 != 0 {
            return Err(WireError::new("22P04", "unrecognized critical flags in COPY file header"));
        }
        let extension = usize::try_from(i32::from_be_bytes(extension)).map_err(|_| invalid())?;
        match reader.bytes(extension) {
            Ok(_) => Ok(Some(BINARY_SIGNATURE.len() + 8 + extension)),
            Err(_) if last => Err(invalid()),
            Err(_) => Ok(None),
        }
    }

    /// One row, once all its bytes are there.
    fn row(&mut self, buffer: &[u8], rows: &mut RowSink) -> Result<Option<usize>, CopyError> {
        let mut ahead = Reader(buffer);
        let Ok(count) = ahead.take::<2>() else { return Ok(None) };
        let count = i16::from_be_bytes(count);
        if count == -1 {
            *self = BinaryReader::Done;
            return Ok(Some(2));
        }
        let expected = rows.targets.len();
        if count as i64 != expected as i64 {
            rows.line += 1;
            let error = WireError::new("22P04", format!("row field count is {count}, expected {expected}"));
            return Err(rows.at_line(error));
        }
        for _ in 0..expected {
            let Ok(len) = ahead.take::<4>() else { return Ok(None) };
            let len = i32::from_be_bytes(len);
            if len < -1 {
                rows.line += 1;
                return Err(rows.at_line(WireError::new("22P04", "invalid field size")));
            }
            if len > 0 && ahead.bytes(len as usize).is_err() {
                return Ok(None);
            }
        }
        rows.line += 1;
        let mut fields = Reader(&buffer[2..]);
        for i in 0..expected {
            let outcome = fields.take::<4>().map(i32::from_be_bytes).and_then(|len| match usize::try_from(len) {
                Ok(len) => {
                    let bytes = fields.bytes(len)?;
                    rows.targets[i].builder.append_binary(bytes)
                }
                Err(_) => {
                    rows.targets[i].builder.append_null();
                    Ok(())
                }
            });
            outcome.map_err(|e| rows.at_column(e, &rows.targets[i].name, None))?;
        }
        rows.end_row()?;
        Ok(Some(buffer.len() - ahead.0.len()))
    }
}
