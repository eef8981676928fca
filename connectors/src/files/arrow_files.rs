//! Files of Arrow's IPC, read whole one after the other: what `COPY … FROM 'file' (FORMAT arrow)` reads. Both of its formats are
//! known by how they begin: the file, and the stream.

use super::{FilesError, Result, check, list};
use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
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
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::Column;

/// How a file of Arrow's IPC begins; a stream does not.
const FILE_MAGIC: &[u8] = b"ARROW1";

/// The files at a path as a table of these columns.
#[derive(Debug)]
pub struct ArrowFiles {
    path: PathBuf,
    shape: Arc<Shape>,
}

#[derive(Debug)]
struct Shape {
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl ArrowFiles {
    pub fn new(path: PathBuf, columns: Vec<Column>) -> ArrowFiles {
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        ArrowFiles { path, shape: Arc::new(Shape { columns, schema }) }
    }
}

fn failed(error: FilesError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

enum Reader {
    File(Box<FileReader<BufReader<File>>>),
    Stream(Box<StreamReader<BufReader<File>>>),
}

impl Reader {
    fn open(path: &Path) -> Result<Reader> {
        let unreadable = |error: std::io::Error| FilesError::unreadable(path, &error);
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let mut begin = vec![];
        file.by_ref().take(FILE_MAGIC.len() as u64).read_to_end(&mut begin).map_err(unreadable)?;
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let no_arrow = |error: ArrowError| broken(path, &error);
        Ok(match begin == FILE_MAGIC {
            true => Reader::File(Box::new(FileReader::try_new(file, None).map_err(no_arrow)?)),
            false => Reader::Stream(Box::new(StreamReader::try_new(file, None).map_err(no_arrow)?)),
        })
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Reader::File(reader) => reader.schema(),
            Reader::Stream(reader) => reader.schema(),
        }
    }

    fn next(&mut self) -> Option<std::result::Result<RecordBatch, ArrowError>> {
        match self {
            Reader::File(reader) => reader.next(),
            Reader::Stream(reader) => reader.next(),
        }
    }
}

fn broken(path: &Path, error: &ArrowError) -> FilesError {
    FilesError::new("58030", format!("\"{}\" cannot be read as Arrow", path.display())).detail(error.to_string())
}

impl Shape {
    fn open(&self, path: &Path) -> Result<Reader> {
        let reader = Reader::open(path)?;
        check(path, &reader.schema(), &self.columns)?;
        Ok(reader)
    }

    /// The columns of the table by their names, in its types, which hold the file's.
    fn shown(&self, path: &Path, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let mut columns = vec![];
        for field in self.schema.fields() {
            let missing =
                || FilesError::new("42703", format!("file \"{}\" has no column \"{}\"", path.display(), field.name()));
            let column = batch.column_by_name(field.name()).ok_or_else(missing)?;
            columns.push(cast_with_options(column, field.data_type(), &options).map_err(|error| broken(path, &error))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| broken(path, &error))
    }
}

/// The files, one after the other. Reading one is not asynchronous: it is done where queries are computed.
#[derive(Debug)]
struct All {
    files: Vec<PathBuf>,
    shape: Arc<Shape>,
}

impl PartitionStream for All {
    fn schema(&self) -> &SchemaRef {
        &self.shape.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (shape, files) = (self.shape.clone(), self.files.clone());
        let rows = stream::iter(files).map(move |path| {
            let shape = shape.clone();
            let reader = shape.open(&path).map_err(failed)?;
            let rows = stream::try_unfold((reader, path, shape), |(mut reader, path, shape)| async move {
                let Some(batch) = reader.next() else { return Ok(None) };
                let batch = batch.map_err(|error| failed(broken(&path, &error)))?;
                let batch = shape.shown(&path, &batch).map_err(failed)?;
                Ok::<_, DataFusionError>(Some((batch, (reader, path, shape))))
            });
            Ok::<_, DataFusionError>(rows)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.shape.schema.clone(), rows.try_flatten()))
    }
}

#[async_trait]
impl TableProvider for ArrowFiles {
    fn schema(&self) -> SchemaRef {
        self.shape.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = list(&self.path, "arrow").await.map_err(failed)?;
        let all: Arc<dyn PartitionStream> = Arc::new(All { files, shape: self.shape.clone() });
        let schema = self.shape.schema.clone();
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![all], projection, None, false, limit)?))
    }
}
