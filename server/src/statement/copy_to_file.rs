//! `COPY … TO 'file'`: rows into a file of the server, which is there whole or not at all.
//!
//! It is written under a name of its own beside the one it is to have, made durable, and renamed: a reader never sees half of it, nor
//! does one after a crash. Memory is that of a batch; of Parquet also that of a row group.

use super::file_columns::FileColumns;
use crate::{
    database::Database, errors::file_error, pg::PgError, progress::Running, session::Session, wire::CopyEncoder,
};
use arrow::{datatypes::SchemaRef, ipc::writer::FileWriter, record_batch::RecordBatch};
use bytes::BytesMut;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::TryStreamExt;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::{
    error::Error,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use tidemark_planner::statement::{CopyCompression, CopyFormat, CopyOptions};

/// A row group is written early when it takes so much memory: rows may be wide.
const ROW_GROUP_BYTES_MAX: usize = 128 << 20;

/// The rows to copy.
pub struct Rows {
    pub schema: SchemaRef,
    pub batches: SendableRecordBatchStream,
}

/// How many rows were written.
pub async fn write(
    database: &Database,
    session: &Session,
    Rows { schema, mut batches }: Rows,
    options: &CopyOptions,
    name: &str,
    running: &Running,
) -> Result<u64, PgError> {
    let path = database.folder.join(name);
    let failed = |what: &str, error: &(dyn Error + 'static)| {
        file_error(format!("could not {what} file \"{}\": {error}", path.display()), error)
    };
    let part = Partial::new(&path, session.connection_id).map_err(|e| failed("create", &e))?;
    let file = part.create().map_err(|e| failed("create", &e))?;
    let mut writer = Writer::new(file, &schema, options, session, &failed)?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
        running.add(batch.num_rows());
        writer.write(&batch, &failed)?;
    }
    let file = writer.finish(&failed)?;
    part.finish(file, &path).map_err(|e| failed("write", &e))?;
    Ok(rows)
}

type Failed<'a> = dyn Fn(&str, &(dyn Error + 'static)) -> PgError + Sync + 'a;

#[allow(clippy::large_enum_variant)] // one for each statement
enum Writer {
    Text { encoder: CopyEncoder, file: BufWriter<File>, bytes: BytesMut },
    Parquet { columns: FileColumns, writer: ArrowWriter<File> },
    Arrow { columns: FileColumns, writer: FileWriter<BufWriter<File>> },
}

impl Writer {
    fn new(
        file: File,
        schema: &SchemaRef,
        options: &CopyOptions,
        session: &Session,
        failed: &Failed<'_>,
    ) -> Result<Writer, PgError> {
        match options.format {
            CopyFormat::Parquet => {
                let columns = FileColumns::parquet(schema)?;
                let properties = properties(options)?;
                let writer = ArrowWriter::try_new(file, columns.schema.clone(), Some(properties))
                    .map_err(|e| failed("write", &e))?;
                Ok(Writer::Parquet { columns, writer })
            }
            CopyFormat::Arrow => {
                let columns = FileColumns::arrow(schema);
                let writer =
                    FileWriter::try_new(BufWriter::new(file), &columns.schema).map_err(|e| failed("write", &e))?;
                Ok(Writer::Arrow { columns, writer })
            }
            CopyFormat::Text | CopyFormat::Csv | CopyFormat::Binary => {
                let mut encoder = CopyEncoder::new(schema, options, &session.format)?;
                let mut bytes = BytesMut::new();
                encoder.header(&mut bytes);
                Ok(Writer::Text { encoder, file: BufWriter::new(file), bytes })
            }
        }
    }

    fn write(&mut self, batch: &RecordBatch, failed: &Failed<'_>) -> Result<(), PgError> {
        match self {
            Writer::Text { encoder, file, bytes } => {
                encoder.encode(batch, 0..batch.num_rows(), bytes);
                file.write_all(bytes).map_err(|e| failed("write", &e))?;
                bytes.clear();
            }
            Writer::Parquet { columns, writer } => {
                writer.write(&columns.batch(batch)?).map_err(|e| failed("write", &e))?;
                if writer.in_progress_size() > ROW_GROUP_BYTES_MAX {
                    writer.flush().map_err(|e| failed("write", &e))?;
                }
            }
            Writer::Arrow { columns, writer } => {
                writer.write(&columns.batch(batch)?).map_err(|e| failed("write", &e))?;
            }
        }
        Ok(())
    }

    /// The file, with all that was written.
    fn finish(self, failed: &Failed<'_>) -> Result<File, PgError> {
        let whole = |file: BufWriter<File>| file.into_inner().map_err(|e| failed("write", e.error()));
        match self {
            Writer::Text { mut encoder, mut file, mut bytes } => {
                encoder.trailer(&mut bytes);
                file.write_all(&bytes).map_err(|e| failed("write", &e))?;
                whole(file)
            }
            Writer::Parquet { writer, .. } => writer.into_inner().map_err(|e| failed("write", &e)),
            Writer::Arrow { mut writer, .. } => {
                writer.finish().map_err(|e| failed("write", &e))?;
                whole(writer.into_inner().map_err(|e| failed("write", &e))?)
            }
        }
    }
}

fn properties(options: &CopyOptions) -> Result<WriterProperties, PgError> {
    let compression = match options.compression {
        CopyCompression::Uncompressed => Compression::UNCOMPRESSED,
        CopyCompression::Snappy => Compression::SNAPPY,
        CopyCompression::Zstd(level) => {
            let level = ZstdLevel::try_new(level);
            Compression::ZSTD(level.map_err(|error| PgError::error("22023", error.to_string()))?)
        }
    };
    let properties = WriterProperties::builder().set_compression(compression);
    Ok(properties.set_max_row_group_row_count(Some(options.row_group_rows)).build())
}

/// A file under a temporary name that goes away unless it is finished. The name is the session's own, and begins with a dot: others
/// that read the folder leave it out.
struct Partial(PathBuf);

impl Partial {
    fn new(path: &Path, connection_id: i32) -> std::io::Result<Partial> {
        let name = path.file_name().ok_or_else(|| std::io::Error::other("the name is a folder's"))?;
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{connection_id}.part"));
        Ok(Partial(path.with_file_name(part)))
    }

    fn create(&self) -> std::io::Result<File> {
        File::create(&self.0)
    }

    fn finish(&self, file: File, path: &Path) -> std::io::Result<()> {
        file.sync_all()?;
        std::fs::rename(&self.0, path)?;
        // Its name is only then as durable as what it has.
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name.
        let _ = std::fs::remove_file(&self.0);
    }
}
