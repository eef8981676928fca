//! What `COPY t FROM` reads: a file of the server, or an object of a bucket, piece by piece. Formats that have their rows by columns
//! are read here and there, which an object is not made for: it is fetched into a file that goes with the statement.

use crate::{
    buckets,
    database::Database,
    errors::{file_error, object_error},
    pg::PgError,
    session::Session,
};
use bytes::Bytes;
use datafusion::execution::disk_manager::RefCountedTempFile;
use std::path::{Path, PathBuf};
use tidemark_connectors::{files::FilesError, iceberg::ObjectReader};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncWriteExt},
};

/// Of a file, read at a time.
const READ_BYTES: u64 = 256 * 1024;

pub enum Pieces {
    File { file: File, path: PathBuf },
    Object { object: Box<ObjectReader>, url: String },
}

impl Pieces {
    /// # Errors
    /// 58P01: there is nothing of that name.
    pub async fn open(database: &Database, name: &str) -> Result<Pieces, PgError> {
        if buckets::is_object(name)? {
            let named = database.buckets.to_read(name, &database.clock)?;
            let found = named.read().await.map_err(|error| object_error("read", name, &error))?;
            let object = found.ok_or_else(|| {
                PgError::error("58P01", format!("could not read \"{name}\": there is no such object"))
                    .hint("the bucket is asked for at --s3-endpoint, or at AWS_ENDPOINT_URL")
            })?;
            return Ok(Pieces::Object { object: Box::new(object), url: name.to_string() });
        }
        let path = database.folder.join(name);
        let file = File::open(&path).await.map_err(|error| FilesError::unreadable(&path, &error))?;
        Ok(Pieces::File { file, path })
    }

    /// `None`: that was all.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, PgError> {
        match self {
            Pieces::File { file, path } => {
                let mut bytes = vec![];
                let read = file.take(READ_BYTES).read_to_end(&mut bytes).await;
                read.map_err(|error| FilesError::unreadable(path, &error))?;
                Ok((!bytes.is_empty()).then(|| Bytes::from(bytes)))
            }
            Pieces::Object { object, url } => object.piece().await.map_err(|error| object_error("read", url, &error)),
        }
    }
}

/// A file to go about in.
pub struct Local {
    pub path: PathBuf,
    /// What it was fetched from; the file goes with this.
    fetched: Option<(RefCountedTempFile, String)>,
}

impl Local {
    /// A file as it is, and an object as a file in the folder of what queries spill, within what they may take there.
    pub async fn of(database: &Database, session: &Session, name: &str) -> Result<Local, PgError> {
        if !buckets::is_object(name)? {
            return Ok(Local { path: database.folder.join(name), fetched: None });
        }
        let mut pieces = Pieces::open(database, name).await?;
        let mut place = session.state.runtime_env().disk_manager.create_tmp_file("COPY FROM an object")?;
        let path = place.path().to_path_buf();
        let full = |error: std::io::Error| file_error(format!("could not fetch \"{name}\": {error}"), &error);
        let mut file = OpenOptions::new().write(true).open(&path).await.map_err(full)?;
        while let Some(piece) = pieces.piece().await? {
            file.write_all(&piece).await.map_err(full)?;
            file.flush().await.map_err(full)?;
            place.update_disk_usage()?;
        }
        Ok(Local { path, fetched: Some((place, name.to_string())) })
    }

    /// An error of reading it, with the name that the statement has for it.
    pub fn named(&self, mut error: PgError) -> PgError {
        if let Some((_, url)) = &self.fetched {
            error.message = error.message.replace(&shown(&self.path), url);
        }
        error
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
