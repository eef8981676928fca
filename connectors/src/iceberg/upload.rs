//! An object that goes up in parts: there, whole, when it is closed, and not before. What is given up leaves nothing.

use super::patient::{Before, Patient};
use bytes::{Bytes, BytesMut};
use object_store::{Error, ObjectStoreExt, Result, multipart::PartId, path::Path};
use std::sync::Arc;

/// It goes up in parts of this size, one at a time: as much is in memory. Smaller ones, and most appends are, go up at once.
/// S3's least is 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// The most parts of an upload, by S3: 80 GB.
const PARTS_MAX: usize = 10_000;

pub struct Upload {
    store: Arc<Patient>,
    path: Path,
    waiting: BytesMut,
    /// Bytes in parts.
    sent: u64,
    parts: Option<(String, Vec<PartId>)>,
    /// The name may be an object's already.
    replaces: bool,
    closed: bool,
}

impl Upload {
    /// To a name that nobody else uses.
    pub(super) fn new(store: Arc<Patient>, path: Path) -> Upload {
        Upload { store, path, waiting: BytesMut::new(), sent: 0, parts: None, replaces: false, closed: false }
    }

    /// To a name that may be an object's, which is replaced when this is closed.
    pub(super) fn replacing(store: Arc<Patient>, path: Path) -> Upload {
        let mut upload = Upload::new(store, path);
        upload.replaces = true;
        upload
    }

    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.closed {
            return Err(misused("an object that was closed is written to"));
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() == PART_BYTES {
                let part = self.waiting.split().freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<()> {
        if self.parts.is_none() {
            self.parts = Some((self.store.begin_parts(&self.path).await?, Vec::new()));
        }
        if let Some((upload, parts)) = &mut self.parts {
            if parts.len() == PARTS_MAX {
                return Err(misused("an object of more than 80 GB: divide it into several"));
            }
            let bytes = part.len() as u64;
            let id = self.store.put_part(&self.path, upload, parts.len(), part).await?;
            self.sent += bytes;
            parts.push(id);
        }
        Ok(())
    }

    /// Makes it an object. After an error it may be one, whole, or not.
    pub async fn close(&mut self) -> Result<()> {
        if self.closed {
            return Err(misused("an object is closed twice"));
        }
        let rest = self.waiting.split().freeze();
        if self.parts.is_none() {
            self.store.put(&self.path, rest.into()).await?;
        } else {
            if !rest.is_empty() {
                self.send(rest).await?;
            }
            let before = match self.replaces {
                true => self.store.before(&self.path).await,
                false => Before::Nothing,
            };
            if let Some((upload, parts)) = &self.parts {
                self.store.end_parts(&self.path, upload, parts, self.sent, &before).await?;
            }
        }
        self.closed = true;
        Ok(())
    }

    /// Removes the parts that are there.
    pub async fn give_up(mut self) {
        if let Some((upload, _)) = &self.parts {
            abort(&self.store, &self.path, upload).await;
        }
        // Only now: whoever is dropped on the way gives it up too.
        self.parts = None;
    }
}

impl Drop for Upload {
    /// Parts that are no object cost money until they are given up.
    fn drop(&mut self) {
        if let Some((upload, _)) = self.parts.take().filter(|_| !self.closed) {
            let (store, path) = (self.store.clone(), self.path.clone());
            let clock = store.clock().clone();
            clock.spawn("abort-upload", Box::pin(async move { abort(&store, &path, &upload).await }));
        }
    }
}

async fn abort(store: &Patient, path: &Path, upload: &String) {
    match store.abort_parts(path, upload).await {
        // An end whose answer was lost has made it an object.
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => tracing::warn!(object = %path, %error, "could not give up an upload in parts"),
    }
}

fn misused(what: &str) -> Error {
    Error::Generic { store: "S3", source: what.into() }
}
