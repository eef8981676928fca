//! Where the files of a warehouse are: a folder of this machine, or a prefix of a bucket. Everything that history writes,
//! reads, lists or removes goes through here.

use super::{bucket::Bucket, disk};
use bytes::Bytes;
use datafusion::{
    error::Result,
    execution::{object_store::ObjectStoreUrl, runtime_env::RuntimeEnv},
};
use iceberg::io::{FileIO, FileIOBuilder, LocalFsStorageFactory};
use object_store::{ObjectStore, path::Path as ObjectPath};
use std::{
    collections::HashSet,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};
use tidemark_engine::seam::{SeamError, SeamResult};
use uuid::Uuid;

/// What a first read of a Parquet file in a bucket fetches from its end: the footer of a file of some hundred columns and row
/// groups, in one request.
const FOOTER_BYTES: usize = 64 << 10;

#[derive(Debug, Clone)]
pub enum Place {
    /// Canonical.
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A file that a listing has found.
pub struct Found {
    pub location: String,
    pub bytes: u64,
    /// When it was written, microseconds; `None` where nobody tells.
    pub modified_us: Option<i64>,
}

impl Found {
    fn of(path: &Path, metadata: &fs::Metadata) -> Found {
        let since = metadata.modified().ok().and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
        Found {
            location: disk::location(path),
            bytes: metadata.len(),
            modified_us: since.and_then(|since| i64::try_from(since.as_micros()).ok()),
        }
    }
}

impl Place {
    /// A folder, which is made where it is not there.
    pub fn folder(folder: &Path) -> SeamResult<Place> {
        let failed = |error: io::Error| SeamError::io(format_args!("opening {}", folder.display()), &error);
        fs::create_dir_all(folder).map_err(failed)?;
        folder.canonicalize().map(Place::Folder).map_err(failed)
    }

    pub fn file_io(&self) -> FileIO {
        match self {
            Place::Folder(_) => FileIOBuilder::new(Arc::new(LocalFsStorageFactory)).build(),
            Place::Bucket(bucket) => bucket.file_io(),
        }
    }

    /// The location of something in the warehouse.
    pub fn location(&self, below: &str) -> String {
        match self {
            Place::Folder(folder) => disk::location(&folder.join(below)),
            Place::Bucket(bucket) => format!("{}/{below}", bucket.location()),
        }
    }

    /// Whether a table's files are ours to remove: its folder is where we make them. One that another engine registered may lie
    /// anywhere.
    pub fn has(&self, table: &str) -> bool {
        match self {
            Place::Folder(folder) => disk::local_path(table).strip_prefix(folder).is_ok_and(|below| {
                let mut parts = below.components();
                parts.all(|part| matches!(part, Component::Normal(_))) && below.components().count() == 2
            }),
            Place::Bucket(bucket) => bucket.depth(table) == Some(2),
        }
    }

    /// Whether a file is in the warehouse, by its name.
    pub fn covers(&self, location: &str) -> bool {
        match self {
            Place::Folder(folder) => disk::local_path(location).starts_with(folder),
            Place::Bucket(bucket) => bucket.depth(location).is_some(),
        }
    }

    /// That no other server has taken the warehouse over. A folder is locked instead.
    pub async fn still_ours(&self) -> SeamResult<()> {
        match self {
            Place::Folder(_) => Ok(()),
            Place::Bucket(bucket) => bucket.still_ours().await,
        }
    }

    /// Writes a new file, durably.
    pub async fn write(&self, location: &str, bytes: Vec<u8>) -> SeamResult<()> {
        match self {
            Place::Folder(_) => disk::write_durably(location, &bytes),
            Place::Bucket(bucket) => bucket.put(location, Bytes::from(bytes)).await,
        }
    }

    /// Makes a new table's folder durable.
    pub fn settle_table(&self, table: &str) -> SeamResult<()> {
        match self {
            Place::Folder(folder) => disk::sync_folders(&disk::local_path(table), folder),
            Place::Bucket(_) => Ok(()),
        }
    }

    /// Makes durable what the Iceberg crate has written of a commit: these data files of the table, and the files of the
    /// metadata that have the commit's id in their names. In a bucket it is, when it is written.
    pub async fn settle(&self, table: &str, data: &[String], id: Uuid) -> SeamResult<()> {
        let Place::Folder(_) = self else { return Ok(()) };
        let files: Vec<PathBuf> = data.iter().map(|file| disk::local_path(file)).collect();
        let metadata = self.metadata_files(table, id).await?;
        for file in files.iter().cloned().chain(metadata.iter().map(|file| disk::local_path(file))) {
            disk::sync_file(&file)?;
        }
        let top = disk::local_path(table);
        let metadata: Vec<PathBuf> = metadata.iter().map(|file| disk::local_path(file)).collect();
        // Of the metadata's folder too: behind REST nobody else here writes there.
        let folders: HashSet<&Path> = files.iter().chain(&metadata).filter_map(|file| file.parent()).collect();
        for folder in folders {
            disk::sync_folders(folder, &top)?;
        }
        Ok(())
    }

    /// A commit's manifests and manifest lists: the crate puts the commit's id into their names, and so do we.
    async fn metadata_files(&self, table: &str, id: Uuid) -> SeamResult<Vec<String>> {
        let id = id.to_string();
        let mut files = self.list(&format!("{table}/metadata")).await?;
        files.retain(|file| name(&file.location).contains(&id));
        Ok(files.into_iter().map(|file| file.location).collect())
    }

    /// Removes the files of a commit that did not happen.
    pub async fn discard_commit(&self, table: &str, id: Uuid) {
        match self.metadata_files(table, id).await {
            Ok(files) => self.discard(files).await,
            Err(error) => tracing::warn!(table, %error, "could not remove the files of a commit that did not happen"),
        }
    }

    /// Removes files that nothing refers to. A failure costs room, nothing else, until a vacuum finds them.
    pub async fn discard(&self, files: Vec<String>) {
        match self {
            Place::Folder(_) => files.iter().for_each(|file| disk::discard(&disk::local_path(file))),
            Place::Bucket(bucket) => {
                let objects = files.iter().filter_map(|file| bucket.object(file).ok()).collect();
                if let Err(error) = bucket.remove(objects).await {
                    tracing::warn!(%error, "could not remove objects that are no longer needed");
                }
            }
        }
    }

    /// Removes everything of a table, if it is ours.
    pub async fn discard_table(&self, table: &str) {
        if !self.has(table) {
            return;
        }
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(table, %error, "could not remove the files of a dropped history table");
        };
        match self {
            Place::Folder(_) => match fs::remove_dir_all(disk::local_path(table)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed(&error),
                _ => {}
            },
            Place::Bucket(bucket) => match bucket.list(table).await {
                Ok(found) => {
                    let objects = found.into_iter().map(|object| object.location).collect();
                    if let Err(error) = bucket.remove(objects).await {
                        failed(&error);
                    }
                }
                Err(error) => failed(&error),
            },
        }
    }

    /// The files below a folder, however deep. A folder that is not there has none.
    pub async fn list(&self, folder: &str) -> SeamResult<Vec<Found>> {
        match self {
            Place::Folder(_) => {
                let mut found = Vec::new();
                files_below(&disk::local_path(folder), &mut found)?;
                Ok(found)
            }
            Place::Bucket(bucket) => {
                let found = bucket.list(folder).await?.into_iter().map(|object| Found {
                    // The key as it is in the bucket.
                    location: format!("s3://{}/{}", bucket.name(), object.location),
                    bytes: object.size,
                    modified_us: Some(object.last_modified.timestamp_micros()),
                });
                Ok(found.collect())
            }
        }
    }

    /// Those of the files that are there, below the folder. In a bucket it is one listing: asking for each would be more
    /// requests.
    pub async fn found(&self, folder: &str, files: &HashSet<String>) -> SeamResult<Vec<Found>> {
        match self {
            Place::Folder(_) => {
                let top = disk::local_path(folder);
                let paths: HashSet<PathBuf> = files.iter().map(|file| disk::local_path(file)).collect();
                let below = paths.iter().filter(|path| path.starts_with(&top));
                // One that is not there is none.
                Ok(below.filter_map(|path| Some(Found::of(path, &fs::metadata(path).ok()?))).collect())
            }
            Place::Bucket(bucket) => {
                let objects: HashSet<ObjectPath> = files.iter().filter_map(|file| bucket.object(file).ok()).collect();
                let mut found = self.list(folder).await?;
                found.retain(|file| bucket.object(&file.location).is_ok_and(|object| objects.contains(&object)));
                Ok(found)
            }
        }
    }

    /// Where DataFusion finds a file.
    pub fn object(&self, location: &str) -> SeamResult<ObjectPath> {
        match self {
            Place::Folder(_) => ObjectPath::from_absolute_path(disk::local_path(location))
                .map_err(|error| SeamError::NotDone(format!("data file {location}: {error}"))),
            Place::Bucket(bucket) => bucket.object(location),
        }
    }

    /// Lets DataFusion read the place's files, by the URL that comes back with the store of objects that it names.
    pub fn readable(&self, runtime: &RuntimeEnv) -> Result<(ObjectStoreUrl, Arc<dyn ObjectStore>)> {
        match self {
            Place::Folder(_) => {
                let url = ObjectStoreUrl::local_filesystem();
                let store = runtime.object_store(&url)?;
                Ok((url, store))
            }
            Place::Bucket(bucket) => {
                let url = bucket.registered_as().clone();
                let store: Arc<dyn ObjectStore> = bucket.store().clone();
                runtime.register_object_store(url.as_ref(), store.clone());
                Ok((url, store))
            }
        }
    }

    /// What is read of a file's end at first, where every request costs; `None`: as little as there may be.
    pub fn footer_bytes(&self) -> Option<usize> {
        match self {
            Place::Folder(_) => None,
            Place::Bucket(_) => Some(FOOTER_BYTES),
        }
    }
}

/// The last part of a location.
pub fn name(location: &str) -> &str {
    location.rsplit('/').next().unwrap_or(location)
}

fn files_below(folder: &Path, found: &mut Vec<Found>) -> SeamResult<()> {
    let failed = |error: io::Error| SeamError::io(format_args!("reading {}", folder.display()), &error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            files_below(&entry.path(), found)?;
        } else if kind.is_file() {
            // One that has gone meanwhile is none.
            let Ok(metadata) = entry.metadata() else { continue };
            found.push(Found::of(&entry.path(), &metadata));
        }
    }
    Ok(())
}
