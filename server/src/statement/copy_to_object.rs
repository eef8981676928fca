//! `COPY … TO 's3://bucket/path'`: rows into an object of a bucket, which is there whole or not at all.
//!
//! It goes up in parts, and the last request makes them the object: what was there under its name stays until then. Parts of a
//! COPY that failed or was cancelled are given up. Memory is that of a file's, and of one part.

use super::copy_formats::{Rows, Writer};
use crate::{database::Database, errors::object_error, pg::PgError, progress::Running, session::Session};
use futures::TryStreamExt;
use std::error::Error;
use tidemark_connectors::iceberg::ObjectWriter;
use tidemark_engine::seam::SeamError;
use tidemark_planner::statement::CopyOptions;

/// How many rows were written.
pub async fn write(
    database: &Database,
    session: &Session,
    rows: Rows,
    options: &CopyOptions,
    url: &str,
    running: &Running,
) -> Result<u64, PgError> {
    let mut upload = database.buckets.to_write(url, &database.clock)?.upload();
    let copied = match fill(&mut upload, session, rows, options, url, running).await {
        Ok(copied) => copied,
        Err(error) => {
            upload.give_up().await;
            return Err(error);
        }
    };
    // Who is told that it was cancelled finds what was there before.
    let _held = session.hold.hold();
    if let Err(error) = upload.close().await {
        upload.give_up().await;
        return Err(object_error("write", url, &error));
    }
    Ok(copied)
}

async fn fill(
    upload: &mut ObjectWriter,
    session: &Session,
    Rows { schema, mut batches }: Rows,
    options: &CopyOptions,
    url: &str,
    running: &Running,
) -> Result<u64, PgError> {
    // Of what is written into memory: a format that cannot hold the rows.
    let failed = |what: &str, error: &(dyn Error + 'static)| {
        PgError::error("58030", format!("could not {what} \"{url}\": {error}"))
    };
    let refused = |error: SeamError| object_error("write", url, &error);
    let mut writer = Writer::new(Vec::<u8>::new(), &schema, options, session, &failed)?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
        running.add(batch.num_rows());
        writer.write(&batch, &failed)?;
        let bytes = std::mem::take(writer.out());
        upload.write(&bytes).await.map_err(refused)?;
    }
    let rest = writer.finish(&failed)?;
    upload.write(&rest).await.map_err(refused)?;
    Ok(rows)
}
