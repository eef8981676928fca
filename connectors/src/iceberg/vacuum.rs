//! `vacuum`: old snapshots are forgotten, and the files that no snapshot needs any more are removed.
//!
//! A file goes only if no snapshot that stays refers to it and it is older than asked for. A rewrite holds what it
//! replaced with a tag on the snapshot before; a snapshot is forgotten only when another has been the newest since long
//! enough. So a query that began after that time finds its files.

use super::{IcebergHistory, catalog::Next, commit, disk, place, rewrite::BEFORE_REWRITE, times};
use iceberg::{
    Error,
    spec::{SnapshotReference, TableMetadata},
    table::Table,
};
use std::collections::{HashMap, HashSet};
use tidemark_engine::seam::{HistoryTable, Removed, SeamError, SeamResult};

pub async fn vacuum(store: &IcebergHistory, history: &HistoryTable, older_than_us: i64) -> SeamResult<Removed> {
    let _maintaining = store.maintaining.lock().await;
    let _committing = store.committing.write().await;
    let mut removed = Removed { snapshots: forget(store, history, older_than_us).await?, ..Removed::default() };

    let table = store.load_own(history).await?;
    let top = table.metadata().location().trim_end_matches('/');
    if !store.place.has(top) {
        // Registered from elsewhere by another engine: what else is there is not ours to judge.
        return Ok(removed);
    }
    // What another server with a copy of the catalog has written is in no metadata that is known here.
    store.place.still_ours().await?;
    let needed = needed(&table, history).await?;
    let mut doomed = Vec::new();
    for folder in ["data", "metadata"] {
        for file in store.place.list(&format!("{top}/{folder}")).await? {
            // A file whose age nobody tells stays.
            let is_old = file.modified_us.is_some_and(|modified| modified < older_than_us);
            if is_old && !needed.contains(place::name(&file.location)) {
                removed.files += 1;
                removed.bytes += file.bytes;
                doomed.push(file.location);
            }
        }
    }
    store.place.discard(doomed).await;
    Ok(removed)
}

/// Forgets the snapshots that were succeeded before the time, unless another's tag or branch holds them; how many.
async fn forget(store: &IcebergHistory, history: &HistoryTable, older_than_us: i64) -> SeamResult<u64> {
    let failed = |error: Error| disk::failed(&format!("vacuuming history table \"{}\"", history.name), &error);
    let base = store.load_own(history).await?;
    let metadata = base.metadata();
    let references = references(metadata).map_err(|error| {
        SeamError::NotDone(format!("the references of history table \"{}\" cannot be read: {error}", history.name))
    })?;
    let (ours, others): (Vec<_>, Vec<_>) =
        references.into_iter().partition(|(name, _)| name.starts_with(BEFORE_REWRITE));
    let mut held: HashSet<i64> = others.iter().map(|(_, reference)| reference.snapshot_id).collect();
    held.extend(metadata.current_snapshot_id());

    let mut snapshots: Vec<_> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    let mut old = Vec::new();
    for pair in snapshots.windows(2) {
        let succeeded_us = pair[1].timestamp_ms().saturating_mul(1000);
        if succeeded_us < older_than_us && !held.contains(&pair[0].snapshot_id()) {
            old.push(pair[0].snapshot_id());
        }
    }
    if old.is_empty() {
        return Ok(0);
    }
    let from = base.metadata_location_result().map_err(failed)?;
    let ahead_ms = times::ahead_ms(metadata);
    let shown = times::later(metadata, -ahead_ms).map_err(failed)?;
    let mut builder = shown.into_builder(Some(from.to_string()));
    for (name, reference) in &ours {
        if old.contains(&reference.snapshot_id) {
            builder = builder.remove_ref(name);
        }
    }
    let built = builder.remove_snapshots(&old).build().map_err(failed)?;
    let metadata = times::later(&built.metadata, ahead_ms).map_err(failed)?;
    let location = commit::next_location(from, &metadata).map_err(failed)?;
    let next = Next { metadata, location, updates: built.changes, ahead_ms };
    store.catalog.commit(&store.place, &history.name, &base, &next).await?;
    commit::discard_expired(&store.catalog, &store.place, &base, &next.metadata).await;
    Ok(old.len() as u64)
}

/// The crate has no way to ask for all references.
fn references(metadata: &TableMetadata) -> serde_json::Result<HashMap<String, SnapshotReference>> {
    let json = serde_json::to_value(metadata)?;
    json.get("refs").map_or_else(|| Ok(HashMap::new()), |references| serde_json::from_value(references.clone()))
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
    let mut read = HashSet::new();
    for snapshot in metadata.snapshots() {
        need(snapshot.manifest_list());
        let list = table.manifest_list_reader(snapshot).load().await.map_err(failed)?;
        for manifest in list.entries() {
            if !read.insert(manifest.manifest_path.clone()) {
                continue;
            }
            need(&manifest.manifest_path);
            let entries = manifest.load_manifest(table.file_io()).await.map_err(failed)?;
            entries.entries().iter().filter(|entry| entry.is_alive()).for_each(|entry| need(entry.file_path()));
        }
    }
    Ok(needed)
}
