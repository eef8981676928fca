//! One object that somebody names, `s3://bucket/path`: what a statement copies rows to, or from.
//!
//! Keys come from where those of a warehouse come from (`bucket.rs`), and so do settings, patience and the words of errors.

use super::{
    bucket::{self, BucketSettings},
    patient::{self, Patient},
    upload::Upload,
};
use bytes::Bytes;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use std::{error::Error as _, sync::Arc};
use tidemark_engine::seam::{Clock, SeamError, SeamResult};

/// Read with one request: as much is in memory.
const READ_BYTES: u64 = 8 << 20;

pub struct BucketObject {
    store: Arc<Patient>,
    path: Path,
}

impl BucketObject {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// `NotDone`: the URL or a setting is not understood.
    pub fn named(url: &str, settings: &BucketSettings, clock: Arc<dyn Clock>) -> SeamResult<BucketObject> {
        let (name, path) = parse(url)?;
        Ok(BucketObject { store: Arc::new(bucket::client(name, url, settings, clock)?), path })
    }

    /// What is written there becomes the object when it is closed; one that is there stays until then.
    pub fn upload(&self) -> ObjectWriter {
        ObjectWriter(Upload::replacing(self.store.clone(), self.path.clone()))
    }

    /// `None`: it is not there, or not even its bucket.
    ///
    /// # Errors
    /// `NotDone`: it cannot be read.
    pub async fn read(&self) -> SeamResult<Option<ObjectReader>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(ObjectReader { store: self.store.clone(), path: self.path.clone(), meta, at: 0 })),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(said(&error)),
        }
    }
}

/// An object that is being written.
pub struct ObjectWriter(Upload);

impl ObjectWriter {
    /// # Errors
    /// `NotDone` or `Full`: what was written is no object.
    pub async fn write(&mut self, bytes: &[u8]) -> SeamResult<()> {
        self.0.write(bytes).await.map_err(|error| said(&error))
    }

    /// Makes it the object.
    ///
    /// # Errors
    /// `Unknown`: it is there whole, or nothing of it is. `Full`: nothing of it is.
    pub async fn close(&mut self) -> SeamResult<()> {
        self.0.close().await.map_err(|error| match said(&error) {
            SeamError::NotDone(text) => SeamError::Unknown(text),
            error => error,
        })
    }

    /// Leaves nothing of it behind. Whoever is dropped does that too, later.
    pub async fn give_up(self) {
        self.0.give_up().await;
    }
}

/// An object that is being read, from its beginning.
pub struct ObjectReader {
    store: Arc<Patient>,
    path: Path,
    meta: ObjectMeta,
    at: u64,
}

impl ObjectReader {
    /// The next bytes; `None`: that was all.
    ///
    /// # Errors
    /// `NotDone`: it cannot be read, or was replaced meanwhile.
    pub async fn piece(&mut self) -> SeamResult<Option<Bytes>> {
        let end = self.meta.size.min(self.at.saturating_add(READ_BYTES));
        if self.at == end {
            return Ok(None);
        }
        let options = GetOptions {
            if_match: self.meta.e_tag.clone(),
            range: Some(GetRange::Bounded(self.at..end)),
            ..GetOptions::default()
        };
        let read = async { self.store.get_opts(&self.path, options).await?.bytes().await };
        let bytes = read.await.map_err(|error| match error {
            Error::Precondition { .. } => SeamError::NotDone("it was replaced while it was read".to_string()),
            error => said(&error),
        })?;
        self.at = end;
        Ok(Some(bytes))
    }
}

/// The store's words without the crate's before them: where, what the server said, what to do. Nothing is done.
fn said(error: &Error) -> SeamError {
    let text = error.source().map_or_else(|| error.to_string(), |source| source.to_string());
    match patient::is_full(&text) {
        true => SeamError::Full(text),
        false => SeamError::NotDone(text),
    }
}

/// Bucket and key of `s3://bucket/path`.
fn parse(url: &str) -> SeamResult<(&str, Path)> {
    let refused = |why: &str| Err(SeamError::NotDone(format!("\"{url}\": {why}")));
    let (name, key) = match url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        Some(parts) => parts,
        None => return refused("an object is written as s3://bucket/path"),
    };
    if !bucket::is_name(name) {
        return refused(bucket::NAMES);
    }
    if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
        return refused("it names no object: write s3://bucket/path/file");
    }
    match Path::parse(key) {
        Ok(path) => Ok((name, path)),
        Err(error) => refused(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_url_names_a_bucket_and_an_object() {
        for (url, bucket, path) in [
            ("s3://lake/a.csv", "lake", "a.csv"),
            ("s3://my.lake-1/day=2026-03-01/a b_c.parquet", "my.lake-1", "day=2026-03-01/a b_c.parquet"),
        ] {
            let (found, key) = parse(url).unwrap();
            assert_eq!((found, key.as_ref()), (bucket, path));
        }
        for (url, why) in [
            ("gs://lake/x", "s3://bucket/path"),
            ("s3://Lake/x", "3 to 63"),
            ("s3://key:secret@lake/x", "3 to 63"),
            ("s3://lake", "names no object"),
            ("s3://lake/", "names no object"),
            ("s3://lake/a/", "names no object"),
            ("s3://lake//a", "names no object"),
            ("s3://lake/a//b", "empty"),
            ("s3://lake/a/../b", ".."),
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
