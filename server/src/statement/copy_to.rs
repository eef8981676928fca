//! `COPY { t | (query) } TO { STDOUT | 'file' | 's3://bucket/path' }`: text, CSV, binary, Arrow; Parquet not to the client.

use super::{copy_formats::Rows, copy_to_file, copy_to_object, file_columns::FileColumns, query};
use crate::{
    buckets,
    database::Database,
    pg::{CopyChunk, CopyLayout, Outcome, PgError},
    progress::{Doing, Running},
    serving::refusal,
    session::Session,
    wire::CopyEncoder,
};
use arrow::{datatypes::SchemaRef, ipc::writer::StreamWriter, record_batch::RecordBatch};
use bytes::{BufMut, BytesMut};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use tidemark_engine::progress::Phase;
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
    let is_object = match target {
        CopyTarget::File(name) => buckets::is_object(name)?,
        CopyTarget::Stdout => false,
    };
    // Before the query is planned: a copy of `tidemark.progress` has itself.
    let running = database.begin(session, doing(database, session, source, target));
    let (schema, batches) = rows(database, session, source).await?;
    running.count_rows(Phase::Writing, database.clock.now_us());
    match target {
        CopyTarget::Stdout => to_client(session, schema, batches, options, running),
        CopyTarget::File(name) => {
            let rows = Rows { schema, batches };
            let rows = match is_object {
                true => copy_to_object::write(database, session, rows, options, name, &running).await?,
                false => copy_to_file::write(database, session, rows, options, name, &running).await?,
            };
            Ok(Outcome::Done { tag: format!("COPY {rows}").into() })
        }
    }
}

fn doing(database: &Database, session: &Session, source: &CopySource, target: &CopyTarget) -> Doing {
    let object = match source {
        CopySource::Table { name, .. } => Some(name),
        CopySource::Query { .. } => None,
    };
    let kind = match target {
        CopyTarget::Stdout => "PIPE",
        CopyTarget::File(_) => "FILE",
    };
    let table = object.and_then(|name| session.snapshot(database).get(name).map(|table| table.id));
    let object = object.map(ToString::to_string);
    Doing { statement: "COPY TO", object, unit: Some("rows"), copies: Some(kind), table }
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
    running: Running,
) -> Result<Outcome, PgError> {
    if options.format == CopyFormat::Arrow {
        return arrow_to_client(&schema, batches, running);
    }
    if options.format == CopyFormat::Parquet {
        return Err(PgError::error("0A000", "COPY TO STDOUT cannot send Parquet").hint(
            "COPY … TO 'file.parquet' or 's3://bucket/file.parquet' (FORMAT parquet) writes it from the server",
        ));
    }
    let mut encoder = CopyEncoder::new(&schema, options, &session.format)?;
    let layout = CopyLayout { binary: encoder.is_binary(), columns: encoder.column_count() as i16 };
    let mut header = BytesMut::new();
    encoder.header_message(&mut header);
    let header = stream::iter([Ok(CopyChunk { messages: header, rows: 0 })]);
    let body = batches.map_err(PgError::from).map_ok(Some).chain(stream::iter([Ok(None)])).and_then(move |batch| {
        let mut messages = BytesMut::new();
        let rows = batch.as_ref().map_or(0, |batch| batch.num_rows());
        running.add(rows);
        match batch {
            Some(batch) => encoder.encode_messages(&batch, 0..rows, &mut messages),
            None => encoder.trailer_message(&mut messages),
        }
        std::future::ready(Ok(CopyChunk { messages, rows: rows as u64 }))
    });
    let stream = header.chain(body).try_filter(|chunk| std::future::ready(!chunk.messages.is_empty()));
    Ok(Outcome::CopyOut { stream: stream.boxed(), layout })
}

/// As a stream of Arrow's IPC: the schema, a message for each batch, the end. What the client is sent is that stream, cut anywhere.
fn arrow_to_client(
    schema: &SchemaRef,
    batches: SendableRecordBatchStream,
    running: Running,
) -> Result<Outcome, PgError> {
    let columns = FileColumns::arrow(schema);
    // It has written the schema already.
    let mut writer = StreamWriter::try_new(vec![], &columns.schema)?;
    let layout = CopyLayout { binary: true, columns: columns.schema.fields().len() as i16 };
    let mut send = move |batch: Option<RecordBatch>| -> Result<CopyChunk, PgError> {
        let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
        match batch {
            Some(batch) => writer.write(&columns.batch(&batch)?)?,
            None => writer.finish()?,
        }
        running.add(rows);
        let bytes = std::mem::take(writer.get_mut());
        Ok(CopyChunk { messages: copy_data(&bytes), rows: rows as u64 })
    };
    let all = batches.map_err(PgError::from).map_ok(Some).chain(stream::iter([Ok(None)]));
    let stream = all.and_then(move |batch| std::future::ready(send(batch)));
    Ok(Outcome::CopyOut { stream: stream.boxed(), layout })
}

/// Bytes in one CopyData message.
const COPY_DATA_BYTES: usize = 64 * 1024;

/// CopyData messages (`d`, length, bytes).
fn copy_data(bytes: &[u8]) -> BytesMut {
    let mut messages = BytesMut::with_capacity(bytes.len() + 5 * (bytes.len() / COPY_DATA_BYTES + 1));
    for piece in bytes.chunks(COPY_DATA_BYTES) {
        messages.put_u8(b'd');
        messages.put_i32(4 + piece.len() as i32);
        messages.put_slice(piece);
    }
    messages
}
