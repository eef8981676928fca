//! `COPY … TO 'file'`: rows into a file of the server, which is there whole or not at all.
//!
//! It is written under a name of its own beside the one it is to have, made durable, and renamed: a reader never sees half of it, nor
//! does one after a crash.

use super::copy_formats::{Rows, Writer};
use crate::{database::Database, errors::file_error, pg::PgError, progress::Running, session::Session};
use futures::TryStreamExt;
use std::{
    error::Error,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};
use tidemark_planner::statement::CopyOptions;

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
    let mut writer = Writer::new(BufWriter::new(file), &schema, options, session, &failed)?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
        running.add(batch.num_rows());
        writer.write(&batch, &failed)?;
    }
    let file = writer.finish(&failed)?.into_inner().map_err(|e| failed("write", e.error()))?;
    part.finish(file, &path).map_err(|e| failed("write", &e))?;
    Ok(rows)
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
