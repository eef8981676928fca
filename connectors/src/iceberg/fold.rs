//! Manifests that have become many: those with few files are written together, by partition. Every append makes one; of
//! files that are large already no rewrite takes them up again.

use super::{IcebergHistory, disk, rewrite};
use iceberg::{
    Error, Result,
    spec::{
        DataFile, ManifestContentType, ManifestFile, ManifestWriter, ManifestWriterBuilder, SnapshotRef, TableMetadata,
    },
    table::Table,
};
use tidemark_engine::seam::{Folded, HistoryTable, SeamError, SeamResult};

/// Files named by one manifest at most: some megabytes, read at once by whoever plans a scan.
const FILES_PER_MANIFEST: usize = 8192;

/// A manifest that is written together with others: it could name more than twice as many files.
pub fn is_small(metadata: &TableMetadata, manifest: &ManifestFile) -> bool {
    let counts = [manifest.added_files_count, manifest.existing_files_count, manifest.deleted_files_count];
    // One that does not say is taken for large.
    let entries = counts.into_iter().try_fold(0, |sum, count| Some(sum + count? as usize));
    manifest.content == ManifestContentType::Data
        && manifest.partition_spec_id == metadata.default_partition_spec_id()
        && entries.is_some_and(|entries| entries < FILES_PER_MANIFEST / 2)
}

pub async fn fold_manifests(store: &IcebergHistory, history: &HistoryTable) -> SeamResult<Folded> {
    let locks = store.locks.of(history.view);
    let _maintaining = locks.maintaining.lock().await;
    let before = manifests(&store.load_own(history).await?, history).await?;
    let _committing = locks.committing.write().await;
    let id = store.random_id();
    rewrite::commit_on_top(store, history, rewrite::Next::Folded, id).await?;
    let after = manifests(&store.load_own(history).await?, history).await?;
    Ok(Folded { manifests_before: before, manifests_after: after })
}

async fn manifests(table: &Table, history: &HistoryTable) -> SeamResult<u64> {
    let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
    let Some(snapshot) = table.metadata().current_snapshot() else {
        return Err(SeamError::NotDone(format!("history table \"{}\" has no manifests yet", history.name)));
    };
    Ok(table.manifest_list_reader(snapshot).load().await.map_err(failed)?.entries().len() as u64)
}

/// A live file of a small manifest, as its new manifest names it.
struct Existing {
    file: DataFile,
    by_snapshot: i64,
    sequence: i64,
    file_sequence: Option<i64>,
}

/// The manifests of the next snapshot; new ones have `name` in their names.
pub async fn folded(
    base: &Table,
    parent: &SnapshotRef,
    folder: &str,
    name: &str,
    snapshot_id: i64,
) -> Result<Vec<ManifestFile>> {
    let metadata = base.metadata();
    let list = base.manifest_list_reader(parent).load().await?;
    let (mut manifests, mut files) = (Vec::new(), Vec::new());
    for manifest in list.entries() {
        if !is_small(metadata, manifest) {
            manifests.push(manifest.clone());
            continue;
        }
        let read = manifest.load_manifest(base.file_io()).await?;
        for entry in read.entries().iter().filter(|entry| entry.is_alive()) {
            let sequence = entry.sequence_number().unwrap_or(manifest.sequence_number);
            files.push(Existing {
                file: entry.data_file().clone(),
                by_snapshot: entry.snapshot_id().unwrap_or(manifest.added_snapshot_id),
                sequence,
                file_sequence: entry.file_sequence_number.or(Some(sequence)),
            });
        }
    }
    // Readers that prune whole manifests by partition find few to read.
    files.sort_by_cached_key(|existing| (rewrite::partition_of(&existing.file), existing.file.file_path().to_string()));
    let mut files = files.into_iter().peekable();
    let mut number = 0;
    while files.peek().is_some() {
        let mut writer = writer(base, folder, &format!("{name}-m{number}"), snapshot_id)?;
        for existing in files.by_ref().take(FILES_PER_MANIFEST) {
            let Existing { file, by_snapshot, sequence, file_sequence } = existing;
            writer.add_existing_file(file, by_snapshot, sequence, file_sequence)?;
        }
        manifests.push(writer.write_manifest_file().await?);
        number += 1;
    }
    Ok(manifests)
}

/// A manifest of data files of the table's default partitioning.
pub fn writer(base: &Table, folder: &str, name: &str, snapshot_id: i64) -> Result<ManifestWriter> {
    let metadata = base.metadata();
    let output = base.file_io().new_output(format!("{folder}/{name}.avro"))?;
    let spec = metadata.default_partition_spec().as_ref().clone();
    let schema = metadata.current_schema().clone();
    Ok(ManifestWriterBuilder::new(output, Some(snapshot_id), schema, spec).build_v2_data())
}
