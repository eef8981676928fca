//! `expire`: old snapshots are forgotten, and the files that no snapshot needs any more are removed.
//!
//! ```text
//!   forgotten     succeeded before the time                 and their files, unless one that stays needs them
//!   orphans       no snapshot leads to them, and old        a crash, a commit that failed, another engine's expiry
//! ```
//!
//! A rewrite holds what it replaced with a tag on the snapshot before, so it goes with that snapshot and not earlier. What a
//! scan of this process may still read stays in any case; it is an orphan afterwards. Stopped anywhere, what is left is
//! orphans.

use super::{
    IcebergHistory,
    catalog::Next,
    commit, disk,
    place::{self, Found},
    rewrite::BEFORE_REWRITE,
    times,
};
use iceberg::{
    Error,
    spec::{SnapshotRef, SnapshotReference, TableMetadata},
    table::Table,
};
use std::collections::{HashMap, HashSet};
use tidemark_engine::seam::{Expiry, HistoryTable, Removed, SeamError, SeamResult};

pub async fn expire(store: &IcebergHistory, history: &HistoryTable, expiry: &Expiry) -> SeamResult<Removed> {
    let locks = store.locks.of(history.view);
    let _maintaining = locks.maintaining.lock().await;
    let mut removed = Removed::default();
    if let Some((base, forgotten)) = forget(store, history, expiry.snapshots_before_us).await? {
        removed.snapshots = forgotten.len() as u64;
        let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
        let mut released = HashSet::new();
        let mut release = |location: &str| {
            released.insert(location.to_string());
        };
        // Where the catalog's server writes metadata files, it removes them too.
        if !store.catalog.writes_metadata() {
            base.metadata().metadata_log().iter().for_each(|log| release(&log.metadata_file));
        }
        needed_by(&base, &forgotten, &mut release).await.map_err(failed)?;
        let top = folder(&base);
        if store.place.has(top) {
            let files = store.place.found(top, &released).await?;
            remove(store, history, top, files, &mut removed).await?;
        }
    }
    let Some(older_than_us) = expiry.orphans_before_us else { return Ok(removed) };

    let table = store.load_own(history).await?;
    let top = folder(&table);
    let failed = |error: Error| disk::failed(&format!("vacuuming history table \"{}\"", history.name), &error);
    if !store.place.has(top) || !commit::may_forget(table.metadata()).map_err(failed)? {
        // Registered from elsewhere by another engine, or shared: what else is there is not ours to judge.
        return Ok(removed);
    }
    let mut old = Vec::new();
    for folder in ["data", "metadata"] {
        let files = store.place.list(&format!("{top}/{folder}")).await?.into_iter();
        // A file whose age nobody tells stays.
        old.extend(files.filter(|file| file.modified_us.is_some_and(|modified| modified < older_than_us)));
    }
    // Whoever was appending when these were found has committed now, or will not.
    let committing = locks.committing.write().await;
    let is_unsettled = store.unsettled.has(table.metadata().location());
    drop(committing);
    if is_unsettled {
        // A commit of which nobody knows may still arrive, and names files that look like orphans.
        tracing::info!(
            history = history.name,
            "orphans are not looked for until the next commit: one may still arrive"
        );
        return Ok(removed);
    }
    remove(store, history, top, old, &mut removed).await?;
    Ok(removed)
}

/// An append forgets old snapshots, with their manifest lists, while all of them are read: so often that is begun again.
const READ_ATTEMPTS: usize = 5;

/// Removes those of the files in a table's folder that its metadata does not lead to and nobody reads.
async fn remove(
    store: &IcebergHistory,
    history: &HistoryTable,
    top: &str,
    files: Vec<Found>,
    removed: &mut Removed,
) -> SeamResult<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut attempt = 1;
    let (table, needed) = loop {
        let table = store.load_own(history).await?;
        match needed(&table, history).await {
            Ok(needed) => break (table, needed),
            Err(error) if attempt == READ_ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
        }
    };
    if folder(&table) != top {
        // Made anew meanwhile: the files are another table's.
        return Ok(());
    }
    // What another server with a copy of the catalog has written is in no metadata that is known here.
    store.place.still_ours().await?;
    // From here on nobody begins to read what the table does not lead to: it is not current any more.
    let locks = store.locks.of(history.view);
    let shut = locks.opening.write().await;
    let leased = store.readers.leased(table.metadata().location());
    drop(shut);
    let mut doomed = Vec::new();
    for file in files {
        let name = place::name(&file.location);
        if !needed.contains(name) && !leased.contains(name) {
            removed.files += 1;
            removed.bytes += file.bytes;
            doomed.push(file.location);
        }
    }
    store.place.discard(doomed).await;
    Ok(())
}

/// Where a table's files are.
fn folder(table: &Table) -> &str {
    table.metadata().location().trim_end_matches('/')
}

/// A snapshot that may be forgotten.
#[derive(Debug)]
pub struct OldSnapshot {
    id: i64,
    /// When another became the newest, microseconds.
    pub succeeded_us: i64,
}

/// The snapshots that were succeeded before the time and that nobody else's tag or branch holds, the oldest first; none where the
/// table forbids it.
pub fn old_snapshots(
    history: &HistoryTable,
    metadata: &TableMetadata,
    older_than_us: i64,
) -> SeamResult<Vec<OldSnapshot>> {
    let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
    if !commit::may_forget(metadata).map_err(failed)? {
        return Ok(vec![]);
    }
    let references = references(history, metadata)?.into_iter().filter(|(name, _)| !name.starts_with(BEFORE_REWRITE));
    let mut held: HashSet<i64> = references.map(|(_, reference)| reference.snapshot_id).collect();
    held.extend(metadata.current_snapshot_id());
    let mut snapshots: Vec<_> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    let pairs = snapshots.windows(2).map(|pair| OldSnapshot {
        id: pair[0].snapshot_id(),
        succeeded_us: pair[1].timestamp_ms().saturating_mul(1000),
    });
    Ok(pairs.filter(|old| old.succeeded_us < older_than_us && !held.contains(&old.id)).collect())
}

/// Forgets the old snapshots; the table as it was and them, where there are any.
async fn forget(
    store: &IcebergHistory,
    history: &HistoryTable,
    older_than_us: i64,
) -> SeamResult<Option<(Table, Vec<SnapshotRef>)>> {
    let failed = |error: Error| disk::failed(&format!("vacuuming history table \"{}\"", history.name), &error);
    let locks = store.locks.of(history.view);
    let _committing = locks.committing.write().await;
    let base = store.load_own(history).await?;
    let metadata = base.metadata();
    let old: Vec<i64> = old_snapshots(history, metadata, older_than_us)?.iter().map(|old| old.id).collect();
    if old.is_empty() {
        return Ok(None);
    }
    let from = base.metadata_location_result().map_err(failed)?;
    let ahead_ms = times::ahead_ms(metadata);
    let shown = times::later(metadata, -ahead_ms).map_err(failed)?;
    let mut builder = shown.into_builder(Some(from.to_string()));
    for (name, reference) in references(history, metadata)? {
        if name.starts_with(BEFORE_REWRITE) && old.contains(&reference.snapshot_id) {
            builder = builder.remove_ref(&name);
        }
    }
    let built = builder.remove_snapshots(&old).build().map_err(failed)?;
    let next = times::later(&built.metadata, ahead_ms).map_err(failed)?;
    let location = commit::next_location(from, &next).map_err(failed)?;
    let next = Next { metadata: next, location, updates: built.changes, ahead_ms };
    store.catalog.commit(&store.place, &history.name, &base, &next).await?;
    let forgotten = old.iter().filter_map(|id| base.metadata().snapshot_by_id(*id).cloned()).collect();
    Ok(Some((base, forgotten)))
}

/// The crate has no way to ask for all references.
fn references(history: &HistoryTable, metadata: &TableMetadata) -> SeamResult<HashMap<String, SnapshotReference>> {
    let read = || -> serde_json::Result<_> {
        let json = serde_json::to_value(metadata)?;
        json.get("refs").map_or_else(|| Ok(HashMap::new()), |references| serde_json::from_value(references.clone()))
    };
    read().map_err(|error| {
        SeamError::NotDone(format!("the references of history table \"{}\" cannot be read: {error}", history.name))
    })
}

/// The names of all files that the table's metadata leads to. By name alone: names are unique, and a location may be
/// spelled in several ways.
async fn needed(table: &Table, history: &HistoryTable) -> SeamResult<HashSet<String>> {
    let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
    let metadata = table.metadata();
    let mut needed = HashSet::new();
    let mut need = |location: &str| {
        needed.insert(place::name(location).to_string());
    };
    need(table.metadata_location_result().map_err(failed)?);
    metadata.metadata_log().iter().for_each(|log| need(&log.metadata_file));
    metadata.statistics_iter().for_each(|file| need(&file.statistics_path));
    metadata.partition_statistics_iter().for_each(|file| need(&file.statistics_path));
    let snapshots: Vec<SnapshotRef> = metadata.snapshots().cloned().collect();
    needed_by(table, &snapshots, &mut need).await.map_err(failed)?;
    Ok(needed)
}

/// Calls `need` with the location of every file that one of the snapshots leads to.
async fn needed_by(
    table: &Table,
    snapshots: &[SnapshotRef],
    need: &mut (dyn FnMut(&str) + Send),
) -> iceberg::Result<()> {
    let mut read = HashSet::new();
    for snapshot in snapshots {
        need(snapshot.manifest_list());
        let list = table.manifest_list_reader(snapshot).load().await?;
        for manifest in list.entries() {
            if !read.insert(manifest.manifest_path.clone()) {
                continue;
            }
            need(&manifest.manifest_path);
            let entries = manifest.load_manifest(table.file_io()).await?;
            entries.entries().iter().filter(|entry| entry.is_alive()).for_each(|entry| need(entry.file_path()));
        }
    }
    Ok(())
}
