//! A bucket as the Iceberg crate reads and writes it.
//!
//! The crate wants a storage that can be serialized, for engines that send their scans elsewhere. Ours stays in this
//! process, and so do its credentials: that is refused.

use super::{bucket::Bucket, upload::Upload};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use iceberg::{
    Error, ErrorKind, Result,
    io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory},
};
use object_store::{ObjectStoreExt, path::Path};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{ops::Range, sync::Arc};
use tidemark_engine::seam::SeamError;

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
        Ok(Box::new(Writer(Upload::new(self.bucket.store().clone(), self.path(path)?))))
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
struct Writer(Upload);

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write(&bytes).await.map_err(failed)
    }

    async fn close(&mut self) -> Result<()> {
        self.0.close().await.map_err(failed)
    }
}
