//! A bucket as the Iceberg crate reads and writes it.
//!
//! The crate wants a storage that can be serialized, for engines that send their scans elsewhere. Ours stays in this
//! process, and so do its credentials: that is refused.

use super::bucket::Bucket;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use iceberg::{
    Error, ErrorKind, Result,
    io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory},
};
use object_store::{ObjectStoreExt, multipart::PartId, path::Path};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{ops::Range, sync::Arc};
use tidemark_engine::seam::SeamError;

/// A file goes up in parts of this size, one at a time: as much is in memory, and the 10,000 parts of an upload are 80 GB.
/// Smaller files, and most appends are, go up at once. S3's least is 5 MiB.
const PART_BYTES: usize = 8 << 20;

#[derive(Debug, Clone)]
pub struct ObjectIo {
    bucket: Bucket,
}

impl ObjectIo {
    pub fn new(bucket: Bucket) -> Self {
        ObjectIo { bucket }
    }

    fn path(&self, location: &str) -> Result<Path> {
        self.bucket.object(location).map_err(|error| Error::new(ErrorKind::DataInvalid, error.to_string()))
    }
}

impl Serialize for ObjectIo {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a bucket and its credentials stay in this process"))
    }
}

impl<'de> Deserialize<'de> for ObjectIo {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom("a bucket and its credentials stay in the process that opened it"))
    }
}

fn failed(error: object_store::Error) -> Error {
    Error::new(ErrorKind::Unexpected, error.to_string())
}

#[typetag::serde(name = "tidemark-bucket")]
impl StorageFactory for ObjectIo {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "tidemark-bucket")]
impl Storage for ObjectIo {
    async fn exists(&self, path: &str) -> Result<bool> {
        match self.bucket.store().head(&self.path(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let found = self.bucket.store().head(&self.path(path)?).await.map_err(failed)?;
        Ok(FileMetadata { size: found.size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let found = self.bucket.store().get(&self.path(path)?).await.map_err(failed)?;
        found.bytes().await.map_err(failed)
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { bucket: self.bucket.clone(), path: self.path(path)? }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.bucket.store().put(&self.path(path)?, bytes.into()).await.map(|_| ()).map_err(failed)
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        Ok(Box::new(Writer {
            bucket: self.bucket.clone(),
            path: self.path(path)?,
            waiting: BytesMut::new(),
            sent: 0,
            upload: None,
            closed: false,
        }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.bucket.remove(vec![self.path(path)?]).await.map_err(failed)
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let told = |error: SeamError| Error::new(ErrorKind::Unexpected, error.to_string());
        let found = self.bucket.list(path).await.map_err(told)?;
        self.bucket.remove(found.into_iter().map(|object| object.location).collect()).await.map_err(failed)
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_string()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_string()))
    }
}

struct Reader {
    bucket: Bucket,
    path: Path,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.bucket.store().get_range(&self.path, range).await.map_err(failed)
    }
}

/// A file that is being written: there when it is closed, and not before.
struct Writer {
    bucket: Bucket,
    path: Path,
    waiting: BytesMut,
    /// Bytes in parts.
    sent: u64,
    upload: Option<(String, Vec<PartId>)>,
    closed: bool,
}

impl Writer {
    async fn send(&mut self, part: Bytes) -> object_store::Result<()> {
        let store = self.bucket.store().clone();
        if self.upload.is_none() {
            self.upload = Some((store.begin_parts(&self.path).await?, Vec::new()));
        }
        if let Some((upload, parts)) = &mut self.upload {
            self.sent += part.len() as u64;
            parts.push(store.put_part(&self.path, upload, parts.len(), part).await?);
        }
        Ok(())
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.closed {
            return Err(Error::new(ErrorKind::Unexpected, "a file that was closed is written to"));
        }
        self.waiting.extend_from_slice(&bytes);
        while self.waiting.len() >= PART_BYTES {
            let part = self.waiting.split_to(PART_BYTES).freeze();
            self.send(part).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        if self.closed {
            return Err(Error::new(ErrorKind::Unexpected, "a file is closed twice"));
        }
        let rest = self.waiting.split().freeze();
        if self.upload.is_none() {
            self.bucket.store().put(&self.path, rest.into()).await.map_err(failed)?;
        } else {
            if !rest.is_empty() {
                self.send(rest).await.map_err(failed)?;
            }
            if let Some((upload, parts)) = &self.upload {
                self.bucket.store().end_parts(&self.path, upload, parts, self.sent).await.map_err(failed)?;
            }
        }
        self.closed = true;
        Ok(())
    }
}

impl Drop for Writer {
    /// Parts that are no file cost money until they are given up.
    fn drop(&mut self) {
        if let Some((upload, _)) = self.upload.take().filter(|_| !self.closed) {
            let (store, path) = (self.bucket.store().clone(), self.path.clone());
            let clock = store.clock().clone();
            let abort = async move {
                if let Err(error) = store.abort_parts(&path, &upload).await {
                    tracing::warn!(object = %path, %error, "could not give up an upload in parts");
                }
            };
            clock.spawn("abort-upload", Box::pin(abort));
        }
    }
}
