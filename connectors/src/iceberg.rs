//! The history store on Iceberg: format v2 tables on the local filesystem, in a SQLite catalog that PyIceberg, Spark
//! and DuckDB read without us.
//!
//! ```text
//! <warehouse>/catalog.db                                   which metadata file is current, per table
//! <warehouse>/<schema>/<name>-<view>-<random>/metadata/…   metadata files, manifest lists, manifests
//! <warehouse>/<schema>/<name>-<view>-<random>/data/…       Parquet, one folder per month or day
//! ```
//!
//! A table's folder keeps its name when the table is renamed, and is never used again: a reader of a dropped table
//! cannot meet files of a new one. Metadata names files by absolute path, so the warehouse cannot be moved.

mod catalog;
mod commit;
mod data_file;
mod deletes;
mod disk;
mod fold;
mod manifest;
mod order;
mod provider;
mod readers;
mod rewrite;
mod schema;
mod survey;
mod tag;
mod times;
mod vacuum;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use catalog::{CATALOG, CatalogFile, place};
use commit::Change;
use datafusion::catalog::TableProvider;
use iceberg::{
    TableCreation,
    spec::{FormatVersion, TableMetadataBuilder},
    table::Table,
};
use manifest::Manifests;
use provider::HistorySnapshot;
use readers::Readers;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{
    Clock, CommitTag, Effort, Expiry, Folded, HistoryStore, HistoryTable, Removed, Rewritten, SeamError, SeamResult,
    Survey,
};
use tokio::sync::{Mutex, RwLock};
use uuid::Uuid;

/// Old metadata files kept beside the current one, for readers that have just looked up its name.
const METADATA_FILES_KEPT: &str = "20";
/// Letters of a table's name that its folder begins with, for people.
const FOLDER_NAME_MAX: usize = 40;

pub struct IcebergHistory {
    warehouse: PathBuf,
    catalog: CatalogFile,
    manifests: Manifests,
    readers: Readers,
    clock: Arc<dyn Clock>,
    files_written: Option<Hook>,
    /// Held to read while steps are appended, and to write while a rewrite is committed or files are removed, so that
    /// neither finds the table moved and has to begin again. Another process is met by the compare-and-set alone.
    committing: RwLock<()>,
    /// One table is maintained at a time: what a rewrite has not yet committed, no vacuum here may take for an orphan.
    maintaining: Mutex<()>,
}

/// Something that is done on the way.
type Hook = Box<dyn Fn() + Send + Sync>;

impl IcebergHistory {
    /// Opens the warehouse, creating it where it is not there. `clock` gives randomness for file names. Needs a Tokio
    /// runtime with timers and I/O; several processes may have one warehouse open.
    pub async fn open(warehouse: &Path, clock: Arc<dyn Clock>) -> SeamResult<Self> {
        let failed = |error: io::Error| SeamError::io(format_args!("opening {}", warehouse.display()), &error);
        fs::create_dir_all(warehouse).map_err(failed)?;
        let warehouse = warehouse.canonicalize().map_err(failed)?;
        let catalog = CatalogFile::open(&warehouse).await?;
        Ok(IcebergHistory {
            warehouse,
            catalog,
            manifests: Manifests::default(),
            readers: Readers::default(),
            clock,
            committing: RwLock::default(),
            maintaining: Mutex::default(),
            files_written: None,
        })
    }

    /// For tests of crashes: what is done between the writing of a commit's data files and the commit.
    pub fn with_files_written(self, hook: Box<dyn Fn() + Send + Sync>) -> Self {
        IcebergHistory { files_written: Some(hook), ..self }
    }

    /// Closes the catalog file.
    pub async fn close(&self) {
        self.catalog.close().await;
    }

    /// The table's current metadata file, which `iceberg_scan` in DuckDB takes; `None` where there is no such table.
    pub async fn metadata_file(&self, name: &str) -> SeamResult<Option<PathBuf>> {
        Ok(self.catalog.metadata_location(name).await?.map(|location| disk::local_path(&location)))
    }

    async fn load(&self, name: &str) -> SeamResult<Table> {
        let table = self.catalog.load(name).await?;
        table.ok_or_else(|| SeamError::NotDone(format!("history table \"{name}\" does not exist")))
    }

    async fn load_own(&self, history: &HistoryTable) -> SeamResult<Table> {
        let table = self.load(&history.name).await?;
        if tag::owner(table.metadata().properties()) != Some(history.view) {
            return Err(SeamError::NotDone(format!("history table \"{}\" belongs to another view", history.name)));
        }
        Ok(table)
    }

    /// The name of the view's table, whatever it is called.
    async fn owned_by(&self, view: ObjectId) -> SeamResult<Option<String>> {
        for name in self.catalog.made_for(view).await? {
            let table = self.catalog.load(&name).await?;
            if table.is_some_and(|table| tag::owner(table.metadata().properties()) == Some(view)) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn random_id(&self) -> Uuid {
        let halves = (self.clock.random(), self.clock.random());
        let bytes = Uuid::from_u64_pair(halves.0, halves.1).into_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn new_location(&self, table: &HistoryTable) -> String {
        let (namespace, name) = place(&table.name);
        let name: String = name.chars().take(FOLDER_NAME_MAX).collect();
        let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_', "_");
        let folder = format!("{name}-{}-{:08x}", table.view, self.clock.random() as u32);
        disk::location(&self.warehouse.join(namespace).join(folder))
    }
}

#[async_trait]
impl HistoryStore for IcebergHistory {
    async fn create(&self, table: &HistoryTable) -> SeamResult<()> {
        if let Some(existing) = self.catalog.load(&table.name).await? {
            if tag::owner(existing.metadata().properties()) == Some(table.view) {
                return Ok(());
            }
            self.drop(&table.name).await?;
        }
        if let Some(other) = self.owned_by(table.view).await? {
            tracing::warn!(
                from = other,
                to = table.name,
                "a history table has the name of a RENAME that a crash cut short: it gets its view's name again"
            );
            return self.catalog.rename(&other, &table.name).await;
        }
        let what = format!("creating history table \"{}\"", table.name);
        let schema = schema::storage_schema(table)?;
        let key: Vec<&str> = table.key.iter().map(|&column| table.schema.field(column).name().as_str()).collect();
        let properties = [
            (tag::VIEW, table.view.to_string()),
            ("tidemark.entity-key", serde_json::to_string(&key).map_err(SeamError::not_done)?),
            ("tidemark.time-column", table.schema.field(table.time).name().clone()),
            ("write.parquet.compression-codec", "zstd".to_string()),
            ("write.metadata.previous-versions-max", METADATA_FILES_KEPT.to_string()),
            ("write.metadata.delete-after-commit.enabled", "true".to_string()),
        ];
        let creation = TableCreation::builder()
            .name(place(&table.name).1.to_string())
            .location(self.new_location(table))
            .partition_spec(schema::partition_spec(table, &schema)?)
            .sort_order(schema::sort_order(table, &schema)?)
            .schema(schema)
            .properties(properties.map(|(name, value)| (name.to_string(), value)))
            .format_version(FormatVersion::V2)
            .build();
        let metadata = TableMetadataBuilder::from_table_creation(creation)
            .and_then(|builder| builder.build())
            .map_err(|error| disk::failed(&what, &error))?
            .metadata;
        let json = serde_json::to_vec(&metadata).map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?;
        let first = format!("{}/metadata/00000-{}.metadata.json", metadata.location(), self.random_id());
        disk::write_durably(&first, &json)?;
        disk::sync_folders(&disk::local_path(metadata.location()), &self.warehouse)?;
        let created = self.catalog.insert(&table.name, &first).await;
        if matches!(created, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
            remove_folder(&self.warehouse, metadata.location());
        }
        created
    }

    async fn drop(&self, name: &str) -> SeamResult<()> {
        let Some(metadata) = self.catalog.metadata_location(name).await? else {
            return Ok(());
        };
        self.catalog.remove(name).await?;
        if let Some((location, _)) = metadata.rsplit_once("/metadata/") {
            self.manifests.forget(location);
            self.readers.forget(location);
            remove_folder(&self.warehouse, location);
        }
        Ok(())
    }

    async fn retain(&self, views: &BTreeSet<ObjectId>) -> SeamResult<()> {
        for name in self.catalog.made_for_others(views).await? {
            let Some(table) = self.catalog.load(&name).await? else { continue };
            if tag::owner(table.metadata().properties()).is_some_and(|view| !views.contains(&view)) {
                tracing::warn!(table = name, "a crash cut the DROP of this history table's view short: it goes now");
                self.drop(&name).await?;
            }
        }
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        if from == to {
            return Ok(());
        }
        self.catalog.rename(from, to).await
    }

    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()> {
        let _committing = self.committing.read().await;
        let base = self.load_own(table).await?;
        check_may_follow(&table.name, tag::from_properties(&table.name, base.metadata().properties())?, tag)?;
        let id = self.random_id();
        let mut written = Vec::new();
        let appended = async {
            let files = data_file::write_steps(&base, table, &steps, id, &mut written).await?;
            if let Some(hook) = self.files_written.as_ref().filter(|_| !files.is_empty()) {
                hook();
            }
            let change = Change { id, files, properties: tag::to_properties(tag)? };
            commit::commit(&self.catalog, &table.name, &base, change).await
        }
        .await;
        if matches!(appended, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
            written.iter().for_each(|file| disk::discard(&disk::local_path(file)));
        }
        appended
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        tag::from_properties(name, self.load(name).await?.metadata().properties())
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        let _opening = self.readers.open().await;
        let current = self.load(&table.name).await?;
        let files = self.manifests.files(&current, table).await?;
        let lease = self.readers.lease(current.metadata().location(), files);
        Ok(Arc::new(HistorySnapshot::new(table.clone(), lease)))
    }

    async fn survey(&self, table: &HistoryTable, effort: &Effort, old_us: i64) -> SeamResult<Survey> {
        survey::survey(self, table, effort, old_us).await
    }

    async fn compact(&self, table: &HistoryTable, effort: &Effort) -> SeamResult<Rewritten> {
        rewrite::compact(self, table, effort).await
    }

    async fn fold_manifests(&self, table: &HistoryTable) -> SeamResult<Folded> {
        fold::fold_manifests(self, table).await
    }

    async fn expire(&self, table: &HistoryTable, expiry: &Expiry) -> SeamResult<Removed> {
        vacuum::expire(self, table, expiry).await
    }
}

/// One writer per view: a writer that a newer one has replaced is refused, and so is a commit made before.
fn check_may_follow(name: &str, last: Option<CommitTag>, next: &CommitTag) -> SeamResult<()> {
    let Some(last) = last else {
        return Ok(());
    };
    if last.writer_epoch > next.writer_epoch {
        return Err(SeamError::NotDone(format!(
            "committing to history table \"{name}\": writer epoch {} is fenced by epoch {}",
            next.writer_epoch, last.writer_epoch
        )));
    }
    if last.sequence >= next.sequence {
        return Err(SeamError::NotDone(format!(
            "committing to history table \"{name}\": commit {} is not after commit {}, the table's last",
            next.sequence, last.sequence
        )));
    }
    Ok(())
}

/// Removes a table's folder, if it is ours: a table that another engine registered from elsewhere keeps its files.
fn remove_folder(warehouse: &Path, location: &str) {
    let folder = disk::local_path(location);
    let is_ours = folder.strip_prefix(warehouse).is_ok_and(|below| {
        below.components().count() == 2 && below.components().all(|part| matches!(part, Component::Normal(_)))
    });
    if !is_ours {
        return;
    }
    if let Err(error) = fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), catalog = CATALOG, %error, "could not remove a dropped history table");
    }
}
