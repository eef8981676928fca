//! The history store on Iceberg: format v2 tables in a folder or in a bucket of S3, in a SQLite catalog that PyIceberg,
//! Spark and DuckDB read without us; or in one that a PostgreSQL or a REST server keeps.
//!
//! ```text
//! <warehouse>/catalog.db                                   which metadata file is current, per table; always a local file
//! <warehouse>/<schema>/<name>-<view>-<random>/metadata/…   metadata files, manifest lists, manifests
//! <warehouse>/<schema>/<name>-<view>-<random>/data/…       Parquet, one folder per month or day
//! ```
//!
//! A table's folder keeps its name when the table is renamed, and is never used again: a reader of a dropped table
//! cannot meet files of a new one. Metadata names files by absolute path, so the warehouse cannot be moved.

mod bucket;
mod catalog;
mod commit;
mod data_file;
mod deletes;
mod disk;
mod fold;
mod kept;
mod locks;
mod manifest;
mod object;
mod object_io;
mod order;
mod patient;
mod place;
mod postgres;
mod provider;
mod readers;
mod rest;
mod rewrite;
mod schema;
mod sqlite;
mod survey;
mod tag;
mod times;
mod upload;
mod vacuum;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
pub use bucket::{Bucket, BucketSettings, Claim, Keys};
use catalog::{Catalog, parts};
use commit::Change;
use datafusion::{catalog::TableProvider, physical_plan::SendableRecordBatchStream};
use iceberg::{
    TableCreation,
    spec::{FormatVersion, TableMetadataBuilder},
    table::Table,
};
use locks::Locks;
use manifest::Manifests;
pub use object::{BucketObject, ObjectReader, ObjectWriter};
pub use place::Place;
use postgres::PostgresCatalog;
pub use postgres::PostgresSettings;
use provider::HistorySnapshot;
use readers::Readers;
use rest::RestCatalog;
pub use rest::{Credential, RestSettings};
use sqlite::CatalogFile;
use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::Path,
    sync::Arc,
};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{
    Clock, CommitTag, Effort, Expiry, Folded, HistoryStore, HistoryTable, KeptTable, Removed, Rewritten, SeamError,
    SeamResult, Survey,
};
use uuid::Uuid;

/// Old metadata files kept beside the current one, for readers that have just looked up its name.
const METADATA_FILES_KEPT: &str = "20";
/// Letters of a table's name that its folder begins with, for people.
const FOLDER_NAME_MAX: usize = 40;

pub struct IcebergHistory {
    place: Place,
    catalog: Catalog,
    /// Whose the tables are, where the catalog may have others'.
    directory: Option<String>,
    manifests: Manifests,
    readers: Readers,
    clock: Arc<dyn Clock>,
    files_written: Option<Hook>,
    /// Locations of tables with a commit under way, or of whose last commit nobody knows whether it happened or still will:
    /// its files may be named any moment, until a commit after it has happened.
    unsettled: Unsettled,
    locks: Locks,
    /// Held while a table is taken up that is not there under its name. A start brings views back side by side, and two that have
    /// exchanged their names would each find the other's half-way.
    making: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Unsettled(parking_lot::Mutex<HashSet<String>>);

impl Unsettled {
    /// A commit begins. Whether one before may still happen.
    fn begin(&self, table_location: &str) -> bool {
        !self.0.lock().insert(table_location.to_string())
    }

    /// It has ended. Whoever is dropped before this has left a commit that may still happen.
    fn end(&self, table_location: &str, before: bool, outcome: &SeamResult<()>) {
        let is_settled = match outcome {
            Ok(()) => true,
            Err(SeamError::Unknown(_)) => false,
            Err(_) => !before,
        };
        if is_settled {
            self.0.lock().remove(table_location);
        }
    }

    fn has(&self, table_location: &str) -> bool {
        self.0.lock().contains(table_location)
    }

    fn forget(&self, table_location: &str) {
        self.0.lock().remove(table_location);
    }
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
        let place = Place::Folder(warehouse.clone());
        let catalog = Catalog::File(CatalogFile::open(&warehouse, &place).await?);
        Ok(IcebergHistory::at(place, catalog, None, clock))
    }

    /// The same with the tables' files in a bucket: `folder` has the catalog alone.
    pub async fn open_bucket(folder: &Path, bucket: Bucket, clock: Arc<dyn Clock>) -> SeamResult<Self> {
        let failed = |error: io::Error| SeamError::io(format_args!("opening {}", folder.display()), &error);
        fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let place = Place::Bucket(bucket);
        let catalog = Catalog::File(CatalogFile::open(&folder, &place).await?);
        Ok(IcebergHistory::at(place, catalog, None, clock))
    }

    /// The same with the catalog behind REST; `directory` is the name of the data directory, as others may have tables in the
    /// catalog too.
    pub async fn open_rest(
        rest: &RestSettings,
        directory: String,
        place: Place,
        clock: Arc<dyn Clock>,
    ) -> SeamResult<Self> {
        let catalog = Catalog::Rest(Box::new(RestCatalog::open(rest, &place, clock.clone()).await?));
        Ok(IcebergHistory::at(place, catalog, Some(directory), clock))
    }

    /// The same with the catalog in a PostgreSQL database.
    pub async fn open_postgres(
        postgres: &PostgresSettings,
        directory: String,
        place: Place,
        clock: Arc<dyn Clock>,
    ) -> SeamResult<Self> {
        let catalog = Catalog::Postgres(Box::new(PostgresCatalog::open(postgres, &place, clock.clone()).await?));
        Ok(IcebergHistory::at(place, catalog, Some(directory), clock))
    }

    fn at(place: Place, catalog: Catalog, directory: Option<String>, clock: Arc<dyn Clock>) -> Self {
        IcebergHistory {
            place,
            catalog,
            directory,
            manifests: Manifests::default(),
            readers: Readers::default(),
            clock,
            files_written: None,
            unsettled: Unsettled::default(),
            locks: Locks::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// For tests of crashes: what is done between the writing of a commit's data files and the commit.
    pub fn with_files_written(self, hook: Box<dyn Fn() + Send + Sync>) -> Self {
        IcebergHistory { files_written: Some(hook), ..self }
    }

    /// Closes the catalog file.
    pub async fn close(&self) {
        self.catalog.close().await;
    }

    /// The location of the table's current metadata file, which `iceberg_scan` in DuckDB takes; `None` where there is no
    /// such table.
    pub async fn metadata_file(&self, name: &str) -> SeamResult<Option<String>> {
        self.catalog.metadata_location(name).await
    }

    async fn load(&self, name: &str) -> SeamResult<Table> {
        let table = self.catalog.load(name).await?;
        table.ok_or_else(|| SeamError::NotDone(format!("history table \"{name}\" does not exist")))
    }

    async fn load_own(&self, history: &HistoryTable) -> SeamResult<Table> {
        let table = self.load(&history.name).await?;
        if !self.is_of(&table, history.view) {
            return Err(SeamError::NotDone(format!("history table \"{}\" belongs to another view", history.name)));
        }
        Ok(table)
    }

    /// Whether a table was made by this data directory.
    fn is_ours(&self, table: &Table) -> bool {
        let made_by = table.metadata().properties().get(tag::DIRECTORY);
        self.directory.as_ref().is_none_or(|ours| made_by == Some(ours))
    }

    fn is_of(&self, table: &Table, view: ObjectId) -> bool {
        self.is_ours(table) && tag::owner(table.metadata().properties()) == Some(view)
    }

    /// The name of the view's table, whatever it is called.
    async fn owned_by(&self, view: ObjectId) -> SeamResult<Option<String>> {
        for name in self.catalog.made_for(view).await? {
            let table = self.catalog.load_of(&name, self.directory.as_deref()).await?;
            if table.is_some_and(|table| self.is_of(&table, view)) {
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
        let (namespace, name) = parts(&table.name);
        let name: String = name.chars().take(FOLDER_NAME_MAX).collect();
        let name = plain(&name);
        let folder = format!("{name}-{}-{:08x}", table.view, self.clock.random() as u32);
        // Engines write other letters into URLs in different ways.
        let namespace = plain(namespace);
        self.place.location(&format!("{namespace}/{folder}"))
    }
}

/// Where the table of this view is out of the way of another that is to have its name.
fn aside(name: &str, view: ObjectId) -> String {
    let (namespace, taken) = parts(name);
    let mut aside = format!("dropped_{}", view.0);
    // That is what the other is to be called.
    if aside == taken {
        aside.push('_');
    }
    catalog::placed((namespace.to_string(), aside))
}

#[async_trait]
impl HistoryStore for IcebergHistory {
    async fn create(&self, table: &HistoryTable) -> SeamResult<()> {
        let _making = self.making.lock().await;
        if let Some(existing) = self.catalog.load(&table.name).await? {
            if self.is_of(&existing, table.view) {
                return Ok(());
            }
            if !self.is_ours(&existing) {
                return Err(SeamError::NotDone(format!(
                    "there is a table \"{}\" in the catalog that another server or engine has made: give the history's \
                     namespaces a prefix of their own (?prefix=)",
                    table.name
                )));
            }
            match tag::owner(existing.metadata().properties()) {
                // Its view may be there all the same, under a name that a crash has kept it from: then it finds it by itself. Else
                // [`HistoryStore::retain`] removes it.
                Some(owner) => self.catalog.rename(&table.name, &aside(&table.name, owner)).await?,
                None => self.drop(&table.name).await?,
            }
        }
        if let Some(other) = self.owned_by(table.view).await? {
            tracing::warn!(
                from = other,
                to = table.name,
                "a table has the name from before a RENAME: it gets that of its view or source"
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
        let directory = self.directory.clone().map(|directory| (tag::DIRECTORY, directory));
        let creation = TableCreation::builder()
            .name(parts(&table.name).1.to_string())
            .location(self.new_location(table))
            .partition_spec(schema::partition_spec(table, &schema)?)
            .sort_order(schema::sort_order(table, &schema)?)
            .schema(schema)
            .properties(properties.into_iter().chain(directory).map(|(name, value)| (name.to_string(), value)))
            .format_version(FormatVersion::V2)
            .build();
        let metadata = TableMetadataBuilder::from_table_creation(creation)
            .and_then(|builder| builder.build())
            .map_err(|error| disk::failed(&what, &error))?
            .metadata;
        let first = format!("{}/metadata/00000-{}.metadata.json", metadata.location(), self.random_id());
        self.catalog.create(&self.place, &table.name, &metadata, &first).await
    }

    async fn drop(&self, name: &str) -> SeamResult<()> {
        let Some(metadata) = self.catalog.metadata_location(name).await? else {
            return Ok(());
        };
        if self.directory.is_some() && self.catalog.load(name).await?.is_some_and(|table| !self.is_ours(&table)) {
            return Ok(());
        }
        // Another server's files would go, if a copy of this data directory were in use.
        self.place.still_ours().await?;
        self.catalog.remove(name).await?;
        if let Some((location, _)) = metadata.rsplit_once("/metadata/") {
            self.manifests.forget(location);
            self.readers.forget(location);
            self.unsettled.forget(location);
            self.place.discard_table(location).await;
        }
        Ok(())
    }

    async fn retain(&self, owners: &BTreeSet<ObjectId>) -> SeamResult<()> {
        for name in self.catalog.made_for_others(owners).await? {
            let Some(table) = self.catalog.load_of(&name, self.directory.as_deref()).await? else { continue };
            let owner = tag::owner(table.metadata().properties());
            if self.is_ours(&table) && owner.is_some_and(|owner| !owners.contains(&owner)) {
                tracing::warn!(table = name, "a crash cut the DROP of what this table is of short: it goes now");
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
        let locks = self.locks.of(table.view);
        let _committing = locks.committing.read().await;
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
            let location = base.metadata().location();
            let before = self.unsettled.begin(location);
            let committed = commit::commit(&self.catalog, &self.place, &table.name, &base, change).await;
            self.unsettled.end(location, before, &committed);
            committed
        }
        .await;
        if matches!(appended, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
            self.place.discard(written).await;
        }
        appended
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        tag::from_properties(name, self.load(name).await?.metadata().properties())
    }

    /// Nearly always the table is there: its metadata are read once.
    async fn take_up(&self, table: &HistoryTable) -> SeamResult<Option<CommitTag>> {
        if let Some(existing) = self.catalog.load(&table.name).await?
            && self.is_of(&existing, table.view)
        {
            return tag::from_properties(&table.name, existing.metadata().properties());
        }
        self.create(table).await?;
        self.last_tag(&table.name).await
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        let locks = self.locks.of(table.view);
        let _opening = locks.opening.read().await;
        let current = self.load(&table.name).await?;
        let files = self.manifests.files(&self.place, &current, table).await?;
        let lease = self.readers.lease(current.metadata().location(), files);
        Ok(Arc::new(HistorySnapshot::new(table.clone(), lease, self.place.clone())))
    }

    async fn snapshot_id(&self, name: &str) -> SeamResult<Option<i64>> {
        Ok(self.load(name).await?.metadata().current_snapshot_id())
    }

    async fn is_kept(&self, table: &KeptTable) -> SeamResult<bool> {
        kept::is_kept(self, table).await
    }

    async fn keep(&self, table: &KeptTable, rows: SendableRecordBatchStream) -> SeamResult<()> {
        kept::keep(self, table, rows).await
    }

    async fn forget(&self, id: ObjectId, name: &str) -> SeamResult<()> {
        let name = match self.catalog.load(name).await {
            Ok(Some(existing)) if self.is_of(&existing, id) => Some(name.to_string()),
            // Another has its name by now: the transaction that has dropped it has made that.
            Ok(_) => self.owned_by(id).await?,
            // What cannot be read can be dropped.
            Err(error) => match self.catalog.made_for(id).await?.iter().any(|made| made == name) {
                true => Some(name.to_string()),
                false => return Err(error),
            },
        };
        match name {
            Some(name) => self.drop(&name).await,
            None => Ok(()),
        }
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

/// Letters, digits and underscores.
fn plain(name: &str) -> String {
    name.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_', "_")
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
