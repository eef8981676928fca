//! Tables that are CSV files: what a file is, by the table's options, and the scan that reads it. A value is read as COPY reads
//! it, and an error says in which line of which file it is.

use crate::{
    pg::PgError,
    wire::{CopyDecoder, SessionZone, WireError, first_csv_record},
};
use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::{DataFusionError, Result as DfResult},
    execution::TaskContext,
    logical_expr::{Expr, TableType},
    physical_plan::{
        ExecutionPlan, SendableRecordBatchStream,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::Column;
use tidemark_connectors::files::{FilesError, list};
use tidemark_planner::statement::{CopyFormat, CopyOptions};
use tokio::{fs::File, io::AsyncReadExt};

/// The options of such a table beside `connector` and `path`.
pub const OPTIONS: [&str; 6] = ["header", "delimiter", "quote", "escape", "null", "time_zone"];

/// Read at a time: a few thousand rows.
const READ_BYTES: usize = 256 * 1024;
/// A header that goes on for longer is none: the file is another than its options say.
const HEADER_BYTES_MAX: usize = 1024 * 1024;
const BATCH_ROWS: usize = 8192;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How files of other formats begin that may be taken for CSV, and what to do about it.
const OTHERS: [(&[u8], &str, &str); 4] = [
    (b"\x1F\x8B", "is compressed by gzip", "gunzip it"),
    (b"\x28\xB5\x2F\xFD", "is compressed by zstd", "unzstd it"),
    (b"PK\x03\x04", "is a ZIP archive", "unzip it"),
    (b"PAR1", "is a Parquet file", "connector = 'parquet' reads it"),
];

/// How the files are written.
#[derive(Debug, Clone)]
pub struct CsvFormat {
    options: CopyOptions,
    /// Of times without one.
    zone: SessionZone,
}

impl CsvFormat {
    /// By the options of the table of that name.
    pub fn of(table: &str, options: &BTreeMap<String, String>) -> Result<CsvFormat, PgError> {
        let invalid = |option: &str, hint: &str| {
            let value = options.get(option).map_or("", String::as_str);
            PgError::error("22023", format!("option \"{option}\" of table \"{table}\" is \"{value}\""))
                .hint(hint.to_string())
        };
        let byte = |option: &str| match options.get(option).map(String::as_str) {
            None => Ok(None),
            Some("\\t") => Ok(Some(b'\t')),
            Some(value) => match value.as_bytes() {
                [byte] if byte.is_ascii() => Ok(Some(*byte)),
                _ => Err(invalid(option, "one character of ASCII, or '\\t'")),
            },
        };
        let header = match options.get("header").map(|value| value.to_lowercase()).as_deref() {
            None | Some("true" | "on" | "1") => true,
            Some("false" | "off" | "0") => false,
            Some(_) => return Err(invalid("header", "'true', which it is by default, or 'false'")),
        };
        let zone = match options.get("time_zone") {
            None => SessionZone::UTC,
            Some(zone) => SessionZone::parse(zone)
                .ok_or_else(|| invalid("time_zone", "a zone of the IANA database such as Europe/Berlin, or UTC"))?,
        };
        let options = CopyOptions {
            delimiter: byte("delimiter")?,
            null: options.get("null").cloned(),
            header,
            quote: byte("quote")?,
            escape: byte("escape")?,
            ..CopyOptions::of(CopyFormat::Csv)
        };
        Ok(CsvFormat { options, zone })
    }

    pub fn has_header(&self) -> bool {
        self.options.header
    }

    pub fn zone(&self) -> SessionZone {
        self.zone
    }
}

/// A file that has been opened: what was read to find its header, and the header.
pub struct Begun {
    file: File,
    head: Vec<u8>,
    /// `None`: the format has none.
    pub header: Option<Vec<String>>,
    /// Nothing is in it.
    pub is_empty: bool,
}

impl Begun {
    pub async fn at(path: &Path, format: &CsvFormat) -> Result<Begun, PgError> {
        let unreadable = |error: std::io::Error| PgError::from(FilesError::unreadable(path, &error));
        let mut file = File::open(path).await.map_err(unreadable)?;
        let mut head = vec![];
        let record = loop {
            let is_last = more(&mut file, &mut head).await.map_err(unreadable)? == 0;
            if let Some((_, what, hint)) = OTHERS.iter().find(|(begin, ..)| head.starts_with(begin)) {
                return Err(PgError::error("22P04", format!("file \"{}\" {what}", path.display())).hint(*hint));
            }
            if head.starts_with(BYTE_ORDER_MARK) {
                head.drain(..BYTE_ORDER_MARK.len());
            }
            if !format.has_header() {
                break None;
            }
            let found = first_csv_record(&head, is_last, &format.options).map_err(|error| placed(error, path))?;
            if found.is_some() || is_last {
                break found;
            }
            if head.len() > HEADER_BYTES_MAX {
                let message = format!("the first line of file \"{}\" does not end", path.display());
                return Err(PgError::error("22P04", message)
                    .detail(format!("no end within {HEADER_BYTES_MAX} bytes"))
                    .hint("is it a CSV file, and are quote and delimiter as the table's options say?"));
            }
        };
        let is_empty = head.is_empty();
        let header = record.map(|record| names(path, record)).transpose()?;
        Ok(Begun { file, head, header, is_empty })
    }
}

/// Reads on; how many bytes came.
async fn more(file: &mut File, into: &mut Vec<u8>) -> std::io::Result<usize> {
    into.reserve(READ_BYTES);
    file.take(READ_BYTES as u64).read_to_end(into).await
}

fn names(path: &Path, record: Vec<Option<String>>) -> Result<Vec<String>, PgError> {
    let mut names: Vec<String> = vec![];
    for (at, name) in record.into_iter().enumerate() {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            let message = format!("column {} of file \"{}\" has no name in the header", at + 1, path.display());
            return Err(PgError::error("42703", message)
                .hint("header = 'false', with a list of columns, if the first line is a row"));
        };
        if names.contains(&name) {
            let message = format!("file \"{}\" has more than one column \"{name}\"", path.display());
            return Err(PgError::error("42701", message).hint("in a table every column has a name of its own"));
        }
        names.push(name);
    }
    Ok(names)
}

/// An error with the file in the place of the table.
fn placed(error: WireError, path: &Path) -> PgError {
    let mut error: PgError = error.into();
    let file = format!("file \"{}\"", path.display());
    error.context = Some(match error.context.as_deref().and_then(|context| context.split_once(", ")) {
        Some((_, place)) => format!("{file}, {place}"),
        None => file,
    });
    if error.hint.is_none() {
        error.hint = Some(match error.sqlstate {
            "22P04" => "is it CSV, with the delimiter and quote that the table's options say?".to_string(),
            _ => "a column that is declared as text takes what is there: cast it in the SELECT".to_string(),
        });
    }
    error
}

/// Reads a file row by row.
pub struct Reader {
    path: PathBuf,
    file: File,
    decoder: CopyDecoder,
    ready: VecDeque<RecordBatch>,
    /// What was read to find the header.
    head: Vec<u8>,
    is_over: bool,
}

impl Reader {
    /// `columns`: of the file, in its order.
    pub fn new(path: &Path, begun: Begun, format: &CsvFormat, columns: Vec<Field>) -> Result<Reader, PgError> {
        let all: Vec<usize> = (0..columns.len()).collect();
        let schema = Arc::new(Schema::new(columns));
        let decoder = CopyDecoder::new("file", &format.options, schema, &all, format.zone, BATCH_ROWS)
            .map_err(|error| placed(error, path))?;
        let Begun { file, head, .. } = begun;
        Ok(Reader { path: path.to_path_buf(), file, decoder, ready: VecDeque::new(), head, is_over: false })
    }

    /// The next rows, with the columns of the file; `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, PgError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.is_over {
                return Ok(None);
            }
            if self.head.is_empty() {
                let unreadable = |error: std::io::Error| FilesError::unreadable(&self.path, &error);
                more(&mut self.file, &mut self.head).await.map_err(unreadable)?;
            }
            let read = match self.head.is_empty() {
                true => self.decoder.finish(),
                false => self.decoder.feed(&self.head),
            };
            self.is_over = self.head.is_empty();
            self.head.clear();
            self.ready.extend(read.map_err(|error| placed(error, &self.path))?);
        }
    }
}

/// What a file's header has to have: the columns of the table, wherever.
pub fn check_header(path: &Path, header: &[String], columns: &[Column]) -> Result<(), PgError> {
    match columns.iter().find(|column| !header.contains(&column.name)) {
        None => Ok(()),
        Some(column) => {
            let message = format!("file \"{}\" has no column \"{}\"", path.display(), column.name);
            Err(PgError::error("42703", message).hint(format!("it has: {}", header.join(", "))))
        }
    }
}

/// The files at a path as a table of these columns.
#[derive(Debug)]
pub struct CsvTable {
    path: PathBuf,
    shape: Arc<Shape>,
}

#[derive(Debug)]
struct Shape {
    columns: Vec<Column>,
    schema: SchemaRef,
    format: CsvFormat,
}

impl CsvTable {
    /// Reads nothing yet: files that do not fit are an error of the scan.
    pub fn new(path: PathBuf, columns: Vec<Column>, format: CsvFormat) -> CsvTable {
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        CsvTable { path, shape: Arc::new(Shape { columns, schema, format }) }
    }
}

impl Shape {
    /// The rows of a file, with the columns of the table; `None`: nothing is in it.
    async fn rows(&self, path: &Path) -> Result<Option<(Reader, Vec<usize>)>, PgError> {
        let begun = Begun::at(path, &self.format).await?;
        if begun.is_empty {
            return Ok(None);
        }
        let of_table = |name: &String| self.schema.field_with_name(name).ok().cloned();
        let (fields, places) = match &begun.header {
            None => (
                self.schema.fields().iter().map(|field| field.as_ref().clone()).collect(),
                (0..self.columns.len()).collect(),
            ),
            Some(header) => {
                check_header(path, header, &self.columns)?;
                // What the table does not have is read as it is, and left out.
                let field = |name: &String| of_table(name).unwrap_or_else(|| Field::new(name, DataType::Utf8, true));
                let place = |column: &Column| header.iter().position(|name| *name == column.name);
                (header.iter().map(field).collect(), self.columns.iter().filter_map(place).collect::<Vec<_>>())
            }
        };
        Ok(Some((Reader::new(path, begun, &self.format, fields)?, places)))
    }

    fn shown(&self, batch: &RecordBatch, places: &[usize]) -> DfResult<RecordBatch> {
        let columns = places.iter().map(|at| batch.column(*at).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Some of the files, one after the other.
#[derive(Debug)]
struct Share {
    files: Vec<PathBuf>,
    shape: Arc<Shape>,
}

fn failed(error: PgError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl PartitionStream for Share {
    fn schema(&self) -> &SchemaRef {
        &self.shape.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (shape, files) = (self.shape.clone(), self.files.clone());
        let rows = stream::iter(files).then(move |path| {
            let shape = shape.clone();
            async move {
                let opened = shape.rows(&path).await.map_err(failed)?;
                let rows = stream::try_unfold((opened, shape), |(mut opened, shape)| async move {
                    let Some((reader, places)) = &mut opened else { return Ok(None) };
                    let Some(batch) = reader.next().await.map_err(failed)? else { return Ok(None) };
                    let batch = shape.shown(&batch, places)?;
                    Ok::<_, DataFusionError>(Some((batch, (opened, shape))))
                });
                Ok::<_, DataFusionError>(rows)
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.shape.schema.clone(), rows.try_flatten()))
    }
}

#[async_trait]
impl TableProvider for CsvTable {
    fn schema(&self) -> SchemaRef {
        self.shape.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = list(&self.path, "csv").await.map_err(|error| failed(error.into()))?;
        let mut groups = vec![vec![]; state.config().target_partitions().clamp(1, files.len().max(1))];
        let partitions = groups.len();
        for (at, file) in files.into_iter().enumerate() {
            groups[at % partitions].push(file);
        }
        let streams = groups.into_iter().map(|files| {
            let share: Arc<dyn PartitionStream> = Arc::new(Share { files, shape: self.shape.clone() });
            share
        });
        let schema = self.shape.schema.clone();
        Ok(Arc::new(StreamingTableExec::try_new(schema, streams.collect(), projection, None, false, limit)?))
    }
}
