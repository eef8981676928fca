//! Rows as a file has them: text, CSV, binary, Parquet, Arrow's IPC. Memory is that of a batch; of Parquet also that of a row group.

use super::file_columns::FileColumns;
use crate::{pg::PgError, session::Session, wire::CopyEncoder};
use arrow::{datatypes::SchemaRef, ipc::writer::FileWriter, record_batch::RecordBatch};
use bytes::BytesMut;
use datafusion::physical_plan::SendableRecordBatchStream;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::{error::Error, io::Write};
use tidemark_planner::statement::{CopyCompression, CopyFormat, CopyOptions};

/// A row group is written early when it takes so much memory: rows may be wide.
const ROW_GROUP_BYTES_MAX: usize = 128 << 20;

/// The rows to copy.
pub struct Rows {
    pub schema: SchemaRef,
    pub batches: SendableRecordBatchStream,
}

/// An error of writing: what could not be done, and why.
pub type Failed<'a> = dyn Fn(&str, &(dyn Error + 'static)) -> PgError + Sync + 'a;

#[allow(clippy::large_enum_variant)] // one for each statement
pub enum Writer<W: Write + Send> {
    Text { encoder: CopyEncoder, out: W, bytes: BytesMut },
    Parquet { columns: FileColumns, writer: ArrowWriter<W> },
    Arrow { columns: FileColumns, writer: FileWriter<W> },
}

impl<W: Write + Send> Writer<W> {
    /// # Errors
    /// Columns that the format cannot hold, or `failed`.
    pub fn new(
        out: W,
        schema: &SchemaRef,
        options: &CopyOptions,
        session: &Session,
        failed: &Failed<'_>,
    ) -> Result<Writer<W>, PgError> {
        match options.format {
            CopyFormat::Parquet => {
                let columns = FileColumns::parquet(schema)?;
                let properties = properties(options)?;
                let writer = ArrowWriter::try_new(out, columns.schema.clone(), Some(properties))
                    .map_err(|e| failed("write", &e))?;
                Ok(Writer::Parquet { columns, writer })
            }
            CopyFormat::Arrow => {
                let columns = FileColumns::arrow(schema);
                let writer = FileWriter::try_new(out, &columns.schema).map_err(|e| failed("write", &e))?;
                Ok(Writer::Arrow { columns, writer })
            }
            CopyFormat::Text | CopyFormat::Csv | CopyFormat::Binary => {
                let mut encoder = CopyEncoder::new(schema, options, &session.format)?;
                let mut bytes = BytesMut::new();
                encoder.header(&mut bytes);
                Ok(Writer::Text { encoder, out, bytes })
            }
        }
    }

    pub fn write(&mut self, batch: &RecordBatch, failed: &Failed<'_>) -> Result<(), PgError> {
        match self {
            Writer::Text { encoder, out, bytes } => {
                encoder.encode(batch, 0..batch.num_rows(), bytes);
                out.write_all(bytes).map_err(|e| failed("write", &e))?;
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

    /// What is written into: whoever takes bytes out of it takes them in their order.
    pub fn out(&mut self) -> &mut W {
        match self {
            Writer::Text { out, .. } => out,
            Writer::Parquet { writer, .. } => writer.inner_mut(),
            Writer::Arrow { writer, .. } => writer.get_mut(),
        }
    }

    /// What was written into, when all is.
    pub fn finish(self, failed: &Failed<'_>) -> Result<W, PgError> {
        match self {
            Writer::Text { mut encoder, mut out, mut bytes } => {
                encoder.trailer(&mut bytes);
                out.write_all(&bytes).map_err(|e| failed("write", &e))?;
                Ok(out)
            }
            Writer::Parquet { writer, .. } => writer.into_inner().map_err(|e| failed("write", &e)),
            Writer::Arrow { mut writer, .. } => {
                writer.finish().map_err(|e| failed("write", &e))?;
                writer.into_inner().map_err(|e| failed("write", &e))
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
