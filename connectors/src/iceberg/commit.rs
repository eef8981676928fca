//! One commit: the new metadata file, made from exactly the table that was checked, and the swap that makes it current.
//!
//! `Transaction::commit` on a catalog re-reads the table and retries on top of whatever it finds, so a writer that was
//! fenced between the check and the commit would still get through. Here the transaction only stages: it is given the
//! checked table as the current one, and its result is kept. What follows is in order: data files, manifest, manifest
//! list, metadata file, each durable before the next names it; then one compare-and-set in the catalog.

use super::{
    catalog::{Catalog, Next},
    disk,
    place::Place,
    times,
};
use async_trait::async_trait;
use iceberg::{
    Catalog as IcebergCatalog, Error, ErrorKind, MetadataLocation, Namespace, NamespaceIdent, Result, Runtime,
    TableCommit, TableCreation, TableIdent, TableUpdate,
    spec::{DataFile, TableMetadata},
    table::Table,
    transaction::{ApplyTransactionAction, Transaction},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
};
use tidemark_engine::seam::{SeamError, SeamResult};
use uuid::Uuid;

/// Snapshots that stay in the metadata for time travel by other engines. Each adds about a kilobyte to every commit's
/// metadata file; our own `AS OF` reads steps, not snapshots.
const SNAPSHOTS_KEPT: usize = 100;

/// Whether snapshots and files of the table may go at all: its property `gc.enabled`. Nessie turns it off, as tables of its branches
/// share files.
pub fn may_forget(metadata: &TableMetadata) -> Result<bool> {
    Ok(metadata.table_properties()?.gc_enabled)
}

/// What a commit sets: one commit, or none of it.
pub struct Change {
    pub id: Uuid,
    pub files: Vec<DataFile>,
    /// Set as table properties, and in the summary where there is a snapshot.
    pub properties: HashMap<String, String>,
}

/// Commits the change to the table as it was read into `base`. After any error but `Unknown` no file of the commit
/// but the given data files is left.
pub async fn commit(catalog: &Catalog, place: &Place, name: &str, base: &Table, change: Change) -> SeamResult<()> {
    let what = format!("committing to history table \"{name}\"");
    let failed = |error: Error| disk::failed(&what, &error);
    let data: Vec<String> = change.files.iter().map(|file| file.file_path().to_string()).collect();
    let id = change.id;
    let result = async {
        let next = stage(catalog, base, change).await.map_err(failed)?;
        place.settle(base.metadata().location(), &data, id).await?;
        catalog.commit(place, name, base, &next).await?;
        Ok(next)
    }
    .await;
    match result {
        Ok(next) => {
            discard_expired(catalog, place, base, &next.metadata).await;
            Ok(())
        }
        Err(error) => {
            if !matches!(error, SeamError::Unknown(_)) {
                place.discard_commit(base.metadata().location(), id).await;
            }
            Err(error)
        }
    }
}

/// The table as it will be, nowhere yet but for its manifest and manifest list.
async fn stage(catalog: &Catalog, base: &Table, change: Change) -> Result<Next> {
    let ahead_ms = times::ahead_ms(base.metadata());
    let with_snapshot = catalog.compares_snapshots();
    let (staged, updates) = if ahead_ms == 0 {
        transact(base, change, with_snapshot).await?
    } else {
        let moved = |table: &Table, by_ms: i64| {
            let location = table.metadata_location_result()?.to_string();
            catalog.table(table.identifier().clone(), location, times::later(table.metadata(), by_ms)?)
        };
        let (staged, updates) = transact(&moved(base, -ahead_ms)?, change, with_snapshot).await?;
        (moved(&staged, ahead_ms)?, updates)
    };
    let location = staged.metadata_location_result()?.to_string();
    Ok(Next { metadata: staged.metadata().clone(), location, updates, ahead_ms })
}

async fn transact(base: &Table, change: Change, with_snapshot: bool) -> Result<(Table, Vec<TableUpdate>)> {
    let mut transaction = Transaction::new(base);
    // A commit without steps makes no snapshot where none is needed: it would only grow the metadata.
    if with_snapshot || !change.files.is_empty() {
        // First, because each of the two requires the newest snapshot to be the one it was made from.
        if may_forget(base.metadata())? {
            transaction = transaction
                .expire_snapshots()
                .retain_last(SNAPSHOTS_KEPT - 1)
                .expire_older_than_ms(i64::MAX)
                .apply(transaction)?;
        }
        transaction = transaction
            .fast_append()
            .set_commit_uuid(change.id)
            // Names are unique by the commit's id; the check would read every manifest.
            .with_check_duplicate(false)
            .set_snapshot_properties(change.properties.clone())
            .add_data_files(change.files)
            .apply(transaction)?;
    }
    let mut set = transaction.update_table_properties();
    for (name, value) in change.properties {
        set = set.set(name, value);
    }
    transaction = set.apply(transaction)?;
    let staging = Staging { base: base.clone(), updates: Mutex::default() };
    let staged = transaction.commit(&staging).await?;
    Ok((staged, staging.updates.into_inner()))
}

/// Removes the files that only the previous metadata named: old metadata files, and manifest lists of expired snapshots.
/// Their manifests and data files are shared with the snapshots that stay.
pub async fn discard_expired(catalog: &Catalog, place: &Place, base: &Table, next: &TableMetadata) {
    let kept: HashSet<&str> = next.metadata_log().iter().map(|log| log.metadata_file.as_str()).collect();
    let logs = base.metadata().metadata_log().iter().map(|log| &log.metadata_file);
    let logs = logs.filter(|file| !catalog.writes_metadata() && !kept.contains(file.as_str()));
    let mut gone: Vec<String> = logs.cloned().collect();
    let snapshots = base.metadata().snapshots();
    let expired = snapshots.filter(|snapshot| next.snapshot_by_id(snapshot.snapshot_id()).is_none());
    gone.extend(expired.map(|snapshot| snapshot.manifest_list().to_string()));
    if !gone.is_empty() {
        place.discard(gone).await;
    }
}

/// Where the metadata after the one at `from` goes.
pub fn next_location(from: &str, metadata: &TableMetadata) -> Result<String> {
    Ok(MetadataLocation::from_str(from)?.with_next_version().with_new_metadata(metadata).to_string())
}

/// A catalog of one table that never changes: what a transaction commits to it is handed back, not stored.
#[derive(Debug)]
struct Staging {
    base: Table,
    /// What the last transaction asked for.
    updates: Mutex<Vec<TableUpdate>>,
}

impl Staging {
    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(ErrorKind::FeatureUnsupported, "a staged commit changes one table and nothing else"))
    }
}

#[async_trait]
impl IcebergCatalog for Staging {
    async fn load_table(&self, _table: &TableIdent) -> Result<Table> {
        Ok(self.base.clone())
    }

    async fn update_table(&self, mut commit: TableCommit) -> Result<Table> {
        // As `TableCommit::apply`, which would keep the updates to itself. What the commit requires holds: it was made from this
        // very table.
        let updates = commit.take_updates();
        let apply = || {
            let from = self.base.metadata_location_result()?;
            let mut builder = self.base.metadata().clone().into_builder(Some(from.to_string()));
            for update in updates.clone() {
                builder = update.apply(builder)?;
            }
            let metadata = builder.build()?.metadata;
            Table::builder()
                .file_io(self.base.file_io().clone())
                .identifier(self.base.identifier().clone())
                .metadata_location(next_location(from, &metadata)?)
                .metadata(metadata)
                .runtime(Runtime::try_current()?)
                .build()
        };
        // Nothing changes between attempts: a retry would fail alike.
        let applied = apply().map_err(|error| error.with_retryable(false))?;
        *self.updates.lock() = updates;
        Ok(applied)
    }

    async fn table_exists(&self, _table: &TableIdent) -> Result<bool> {
        Ok(true)
    }

    async fn list_namespaces(&self, _parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        self.refuse()
    }

    async fn create_namespace(
        &self,
        _namespace: &NamespaceIdent,
        _properties: HashMap<String, String>,
    ) -> Result<Namespace> {
        self.refuse()
    }

    async fn get_namespace(&self, _namespace: &NamespaceIdent) -> Result<Namespace> {
        self.refuse()
    }

    async fn namespace_exists(&self, _namespace: &NamespaceIdent) -> Result<bool> {
        self.refuse()
    }

    async fn update_namespace(&self, _namespace: &NamespaceIdent, _properties: HashMap<String, String>) -> Result<()> {
        self.refuse()
    }

    async fn drop_namespace(&self, _namespace: &NamespaceIdent) -> Result<()> {
        self.refuse()
    }

    async fn list_tables(&self, _namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.refuse()
    }

    async fn create_table(&self, _namespace: &NamespaceIdent, _creation: TableCreation) -> Result<Table> {
        self.refuse()
    }

    async fn drop_table(&self, _table: &TableIdent) -> Result<()> {
        self.refuse()
    }

    async fn purge_table(&self, _table: &TableIdent) -> Result<()> {
        self.refuse()
    }

    async fn rename_table(&self, _src: &TableIdent, _dest: &TableIdent) -> Result<()> {
        self.refuse()
    }

    async fn register_table(&self, _table: &TableIdent, _metadata_location: String) -> Result<Table> {
        self.refuse()
    }
}
