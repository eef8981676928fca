//! `COPY { t | (query) } TO { STDOUT | 'file' }`: text, CSV, binary; Parquet into a file of the server.

use super::{parquet_columns::ParquetColumns, query};
use crate::{
    database::Database,
    errors::file_error,
    pg::{CopyChunk, CopyLayout, Outcome, PgError},
    serving::refusal,
    session::Session,
    wire::CopyEncoder,
};
use arrow::datatypes::SchemaRef;
use bytes::BytesMut;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_planner::{
    Statement,
    statement::{CopyFormat, CopyOptions, CopySource, CopyTarget},
};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    source: &CopySource,
    target: &CopyTarget,
    options: &CopyOptions,
) -> Result<Outcome, PgError> {
    if let (CopyTarget::File(_), Some(_)) = (target, database.serving()) {
        return Err(refusal("0A000", "COPY TO a file"));
    }
    let (schema, batches) = rows(database, session, source).await?;
    match target {
        CopyTarget::Stdout => to_client(session, schema, batches, options),
        CopyTarget::File(name) => {
            let rows = to_file(database, session, &schema, batches, options, name).await?;
            Ok(Outcome::Done { tag: format!("COPY {rows}").into() })
        }
    }
}

async fn rows(
    database: &Arc<Database>,
    session: &Session,
    source: &CopySource,
) -> Result<(SchemaRef, SendableRecordBatchStream), PgError> {
    let parsed;
    let query = match source {
        CopySource::Query { query, .. } => query,
        CopySource::Table { name, columns } => {
            let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let list = match columns.is_empty() {
                true => "*".to_string(),
                false => columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", "),
            };
            let parts = name.schema.iter().chain([&name.name]).map(|part| quoted(part)).collect::<Vec<_>>();
            parsed = tidemark_planner::parse::parse(&format!("SELECT {list} FROM {}", parts.join(".")))?;
            match parsed.first().map(|p| &p.statement) {
                Some(Statement::Query(query)) => query,
                _ => return Err(PgError::error("XX000", "COPY of a table is no query")),
            }
        }
    };
    query::run(database, session, query, &[], &[]).await
}

fn to_client(
    session: &Session,
    schema: SchemaRef,
    batches: SendableRecordBatchStream,
    options: &CopyOptions,
) -> Result<Outcome, PgError> {
    if options.format == CopyFormat::Parquet {
        return Err(PgError::error("0A000", "COPY TO STDOUT cannot send Parquet")
            .hint("COPY … TO 'file.parquet' (FORMAT parquet) writes it on the server"));
    }
    let mut encoder = CopyEncoder::new(&schema, options, &session.format)?;
    let layout = CopyLayout { binary: encoder.is_binary(), columns: encoder.column_count() as i16 };
    let mut header = BytesMut::new();
    encoder.header_message(&mut header);
    let header = stream::iter([Ok(CopyChunk { messages: header, rows: 0 })]);
    let body = batches.map_err(PgError::from).map_ok(Some).chain(stream::iter([Ok(None)])).and_then(move |batch| {
        let mut messages = BytesMut::new();
        let rows = batch.as_ref().map_or(0, |batch| batch.num_rows());
        match batch {
            Some(batch) => encoder.encode_messages(&batch, 0..rows, &mut messages),
            None => encoder.trailer_message(&mut messages),
        }
        std::future::ready(Ok(CopyChunk { messages, rows: rows as u64 }))
    });
    let stream = header.chain(body).try_filter(|chunk| std::future::ready(!chunk.messages.is_empty()));
    Ok(Outcome::CopyOut { stream: stream.boxed(), layout })
}

async fn to_file(
    database: &Database,
    session: &Session,
    schema: &SchemaRef,
    mut batches: SendableRecordBatchStream,
    options: &CopyOptions,
    name: &str,
) -> Result<u64, PgError> {
    let path = database.folder.join(name);
    let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
        file_error(format!("could not {what} file \"{}\": {error}", path.display()), error)
    };
    // Written beside and moved into place, so that a reader never sees half a file.
    let part = Partial::new(&path).map_err(|e| failed("create", &e))?;
    let file = part.open().map_err(|e| failed("create", &e))?;
    let mut rows = 0;
    if options.format == CopyFormat::Parquet {
        let columns = ParquetColumns::of(schema)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer =
            ArrowWriter::try_new(file, columns.schema.clone(), Some(properties)).map_err(|e| failed("write", &e))?;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows() as u64;
            writer.write(&columns.batch(&batch)?).map_err(|e| failed("write", &e))?;
        }
        writer.close().map_err(|e| failed("write", &e))?;
    } else {
        let mut encoder = CopyEncoder::new(schema, options, &session.format)?;
        let mut file = BufWriter::new(file);
        let mut bytes = BytesMut::new();
        encoder.header(&mut bytes);
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows() as u64;
            encoder.encode(&batch, 0..batch.num_rows(), &mut bytes);
            file.write_all(&bytes).map_err(|e| failed("write", &e))?;
            bytes.clear();
        }
        encoder.trailer(&mut bytes);
        file.write_all(&bytes).and_then(|_| file.flush()).map_err(|e| failed("write", &e))?;
    }
    part.finish(&path).map_err(|e| failed("write", &e))?;
    Ok(rows)
}

/// A file under a temporary name that goes away unless it is finished.
struct Partial(PathBuf);

impl Partial {
    fn new(path: &Path) -> std::io::Result<Partial> {
        let name = path.file_name().ok_or_else(|| std::io::Error::other("the name is a folder's"))?;
        let mut part = name.to_os_string();
        part.push(".part");
        Ok(Partial(path.with_file_name(part)))
    }

    fn open(&self) -> std::io::Result<File> {
        File::create(&self.0)
    }

    fn finish(&self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.0, path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name.
        let _ = std::fs::remove_file(&self.0);
    }
}
