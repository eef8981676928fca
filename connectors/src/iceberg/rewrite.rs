//! `compact`: the small files of a partition (a month, or a day) become large ones, in the same order.
//!
//! The crate cannot rewrite (docs/decisions/0016): manifest, manifest list and snapshot are made here of its public
//! parts, and become current by the same compare-and-set as an append. In order: data files, manifest, manifest list,
//! metadata file, each durable before the next names it. Whoever is stopped between has left orphans and nothing else.
//! The replaced files stay, held by a tag on the snapshot before, until `vacuum` finds them old enough.

use super::{
    IcebergHistory, catalog, commit, data_file, disk, fold,
    manifest::{self, StepFile},
    place::Place,
    provider::HistorySnapshot,
    readers::Lease,
    schema, survey,
};
use arrow::datatypes::DataType;
use datafusion::{
    error::DataFusionError,
    logical_expr::ident,
    physical_plan::SendableRecordBatchStream,
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;
use iceberg::{
    Error, ErrorKind, Result,
    spec::{
        DataFile, Literal, MAIN_BRANCH, ManifestContentType, ManifestFile, ManifestListWriter, Operation,
        PrimitiveLiteral, Snapshot, SnapshotRef, SnapshotReference, SnapshotRetention, Summary,
        TableMetadataBuildResult,
    },
    table::Table,
    writer::file_writer::FileWriter,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tidemark_engine::seam::{Effort, HistoryTable, Rewritten, SeamError, SeamResult};
use uuid::Uuid;

/// Files merged at once: each is open, with a batch of its rows in memory.
const MERGED_AT_ONCE: usize = 64;
/// Another engine may commit between our reading of the table and our commit this often before we give up.
const COMMIT_ATTEMPTS: usize = 5;
/// Tags of this prefix hold the files that a rewrite has replaced.
pub const BEFORE_REWRITE: &str = "tidemark-before-rewrite-";

/// A live data file of the table.
struct Live {
    file: DataFile,
    steps: Arc<StepFile>,
}

/// Small files of one partition that become one.
struct Bin {
    partition: i32,
    files: Vec<Live>,
}

pub async fn compact(store: &IcebergHistory, history: &HistoryTable, effort: &Effort) -> SeamResult<Rewritten> {
    let locks = store.locks.of(history.view);
    let _maintaining = locks.maintaining.lock().await;
    let _rewriting = store.locks.rewriting.acquire().await.ok();
    let mut done = Rewritten::default();
    let mut made: HashSet<String> = HashSet::new();
    let mut found: Option<HashSet<String>> = None;
    let mut bytes_left = effort.bytes_max;
    // What a pass makes may still be small. Every pass leaves fewer of the files that the first one found, so it ends:
    // what is appended meanwhile waits for the next time.
    loop {
        let base = store.load_own(history).await?;
        let mut live = live_files(&store.place, &base, history).await?;
        let paths = || live.iter().map(|(_, live)| live.file.file_path().to_string()).collect();
        let first = found.get_or_insert_with(paths);
        live.retain(|(_, live)| first.contains(live.file.file_path()) || made.contains(live.file.file_path()));
        let bins = within(bins(live, effort), &mut bytes_left);
        if bins.is_empty() {
            return Ok(done);
        }
        let id = store.random_id();
        let mut written = Vec::new();
        let replaced = replace(store, history, &base, &bins, id, &mut written).await;
        if matches!(replaced, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
            store.place.discard(written).await;
        }
        let added = replaced?;
        for file in bins.iter().flat_map(|bin| &bin.files).map(|live| &live.file) {
            // Of a file that an earlier pass made, only what it was made of counts.
            match made.remove(file.file_path()) {
                true => {
                    done.files_after -= 1;
                    done.bytes_after -= file.file_size_in_bytes();
                }
                false => {
                    done.files_before += 1;
                    done.bytes_before += file.file_size_in_bytes();
                }
            }
        }
        for file in &added {
            made.insert(file.file_path().to_string());
            done.files_after += 1;
            done.bytes_after += file.file_size_in_bytes();
        }
    }
}

/// The live files with the partition each belongs to; those that another engine partitioned otherwise are left alone.
async fn live_files(place: &Place, base: &Table, history: &HistoryTable) -> SeamResult<Vec<(i32, Live)>> {
    let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
    let metadata = base.metadata();
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(Vec::new()) };
    let list = base.manifest_list_reader(snapshot).load().await.map_err(failed)?;
    let mut live = Vec::new();
    for manifest in list.entries() {
        if manifest.content == ManifestContentType::Deletes {
            return Err(SeamError::NotDone(format!(
                "history table \"{}\" has delete files of another engine: they are applied when it is read, and its files are \
                 written together again when that engine has written its deletes into them",
                history.name
            )));
        }
        let entries = manifest.load_manifest(base.file_io()).await.map_err(failed)?;
        for entry in entries.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            // Whatever cannot be read is refused before anything is written.
            let steps = Arc::new(manifest::step_file(place, base, history, manifest.partition_spec_id, file)?);
            if let Some(partition) = survey::partition(&steps, metadata) {
                live.push((partition, Live { file: file.clone(), steps }));
            }
        }
    }
    Ok(live)
}

/// The month, or day, of a data file, counted from January 1970; `None` where it is partitioned otherwise.
pub fn partition_of(file: &DataFile) -> Option<i32> {
    match file.partition().fields() {
        [Some(Literal::Primitive(PrimitiveLiteral::Int(partition)))] => Some(*partition),
        _ => None,
    }
}

/// As many of them as may be read and written, at least one where anything may.
fn within(bins: Vec<Bin>, bytes_left: &mut u64) -> Vec<Bin> {
    let is_within = |bin: &Bin| {
        let may = *bytes_left > 0;
        *bytes_left = bytes_left.saturating_sub(bin.files.iter().map(|live| live.file.file_size_in_bytes()).sum());
        may
    };
    bins.into_iter().take_while(is_within).collect()
}

/// Small files of the same partition by twos and more, the smallest first.
fn bins(live: Vec<(i32, Live)>, effort: &Effort) -> Vec<Bin> {
    let mut partitions: BTreeMap<i32, Vec<Live>> = BTreeMap::new();
    for (partition, live) in live {
        if survey::is_small(effort, live.file.file_size_in_bytes()) {
            partitions.entry(partition).or_default().push(live);
        }
    }
    let mut bins = Vec::new();
    for (partition, mut files) in partitions {
        files.sort_by_key(|live| (live.file.file_size_in_bytes(), live.file.file_path().to_string()));
        let sizes: Vec<u64> = files.iter().map(|live| live.file.file_size_in_bytes()).collect();
        files.truncate(survey::together(effort, &sizes));
        let mut bin = Bin { partition, files: Vec::new() };
        let mut bytes = 0;
        for live in files {
            let more = live.file.file_size_in_bytes();
            if bin.files.len() == MERGED_AT_ONCE || bytes + more > effort.target_bytes {
                bins.push(std::mem::replace(&mut bin, Bin { partition, files: Vec::new() }));
                bytes = 0;
            }
            bytes += more;
            bin.files.push(live);
        }
        bins.push(bin);
    }
    bins.retain(|bin| bin.files.len() > 1);
    bins
}

/// Writes each bin as one file and commits all of them. Adds what it begins to write to `written`.
async fn replace(
    store: &IcebergHistory,
    history: &HistoryTable,
    base: &Table,
    bins: &[Bin],
    id: Uuid,
    written: &mut Vec<String>,
) -> SeamResult<Vec<DataFile>> {
    let mut added = Vec::new();
    for (number, bin) in bins.iter().enumerate() {
        let location = data_file::new_location(base, bin.partition, id, number);
        written.push(location.clone());
        added.extend(merge(&store.place, base, history, bin, &location).await?);
    }
    let files: Vec<String> = added.iter().map(|file| file.file_path().to_string()).collect();
    store.place.settle(base.metadata().location(), &files, id).await?;

    let locks = store.locks.of(history.view);
    let _committing = locks.committing.write().await;
    let replaced: HashSet<String> =
        bins.iter().flat_map(|bin| &bin.files).map(|live| live.file.file_path().to_string()).collect();
    let spec = base.metadata().default_partition_spec_id();
    commit_on_top(store, history, Next::Replaced { replaced: &replaced, added: &added, spec }, id).await?;
    Ok(added)
}

/// What the next snapshot is.
#[derive(Clone, Copy)]
pub enum Next<'a> {
    /// These files, by location, gone and those in their place; all of them of this partition spec.
    Replaced { replaced: &'a HashSet<String>, added: &'a [DataFile], spec: i32 },
    /// The same files in fewer manifests.
    Folded,
}

/// Commits on top of what is current, however often another engine gets there first. Appends of this process are held off
/// by the caller.
pub async fn commit_on_top(store: &IcebergHistory, history: &HistoryTable, next: Next<'_>, id: Uuid) -> SeamResult<()> {
    let mut attempt = 1;
    loop {
        let base = store.load_own(history).await?;
        let before = store.unsettled.begin(base.metadata().location());
        let committed = commit_next(store, history, &base, next, id, attempt).await;
        store.unsettled.end(base.metadata().location(), before, &committed);
        match committed {
            Ok(()) => return Ok(()),
            Err(error @ SeamError::Unknown(_)) => return Err(error),
            Err(error) => {
                store.place.discard_commit(base.metadata().location(), id).await;
                if attempt == COMMIT_ATTEMPTS || matches!(error, SeamError::Full(_)) {
                    return Err(error);
                }
            }
        }
        attempt += 1;
    }
}

/// The rows of the files as one file, in order.
async fn merge(
    place: &Place,
    base: &Table,
    history: &HistoryTable,
    bin: &Bin,
    location: &str,
) -> SeamResult<Vec<DataFile>> {
    let what = format!("rewriting history table \"{}\"", history.name);
    let failed = |error: DataFusionError| SeamError::NotDone(format!("{what}: {error}"));
    let table_schema = base.metadata().current_schema();
    let mut with_nan = HashSet::new();
    for field in history.schema.fields() {
        if matches!(field.data_type(), DataType::Float32 | DataType::Float64) {
            let id = schema::field_id(table_schema, field.name())?;
            // A file that does not say may have some.
            let may = |live: &Live| live.file.nan_value_counts().get(&id).is_none_or(|count| *count > 0);
            if bin.files.iter().any(may) {
                with_nan.insert(field.name().clone());
            }
        }
    }
    let mut rows = in_order(place, history, bin).await.map_err(failed)?;
    let expected: u64 = bin.files.iter().map(|live| live.file.record_count()).sum();
    let mut writer = data_file::open_file(base, history, location, expected, &with_nan).await?;
    let (mut count, mut with_long) = (0, HashSet::new());
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(failed)?;
        if batch.num_rows() > 0 {
            count += batch.num_rows() as u64;
            let batch = schema::to_storage(&batch, table_schema)?;
            data_file::note_long(&batch, expected, &mut with_long);
            writer.write(&batch).await.map_err(|error| disk::failed(&what, &error))?;
        }
    }
    let files = data_file::close_file(base, history, writer, bin.partition, &with_long).await?;
    if count != expected {
        return Err(SeamError::NotDone(format!(
            "{what}: its files have {count} rows and its manifests say {expected}; nothing was changed"
        )));
    }
    Ok(files)
}

/// A merge of sorted files, or, where another engine left unsorted ones, a sort.
async fn in_order(
    place: &Place,
    history: &HistoryTable,
    bin: &Bin,
) -> datafusion::error::Result<SendableRecordBatchStream> {
    let files = bin.files.iter().map(|live| live.steps.clone()).collect();
    // As many partitions as files: the scan then promises their order.
    let config = SessionConfig::new().with_target_partitions(bin.files.len());
    let context = SessionContext::new_with_config(config);
    let columns = history.key.iter().chain([&history.time]).map(|&column| history.schema.field(column).name());
    let order = columns.map(|name| ident(name.as_str()).sort(true, false)).collect();
    // Maintenance alone removes files, and this is what it does just now.
    let table = HistorySnapshot::new(history.clone(), Lease::of_own(files), place.clone());
    let table = context.read_table(Arc::new(table))?;
    table.sort(order)?.execute_stream().await
}

async fn commit_next(
    store: &IcebergHistory,
    history: &HistoryTable,
    base: &Table,
    next: Next<'_>,
    id: Uuid,
    attempt: usize,
) -> SeamResult<()> {
    let failed = |error: Error| disk::failed(&format!("rewriting history table \"{}\"", history.name), &error);
    let mut snapshot_id = random_snapshot_id(store);
    while base.metadata().snapshot_by_id(snapshot_id).is_some() {
        snapshot_id = random_snapshot_id(store);
    }
    let now_ms = store.clock.now_us() / 1000;
    let name = format!("{id}-{attempt}");
    let staged = stage(base, next, &name, snapshot_id, now_ms).await.map_err(failed)?;
    store.place.settle(base.metadata().location(), &[], id).await?;
    let from = base.metadata_location_result().map_err(failed)?;
    let location = commit::next_location(from, &staged.metadata).map_err(failed)?;
    let next = catalog::Next { metadata: staged.metadata, location, updates: staged.changes, ahead_ms: 0 };
    store.catalog.commit(&store.place, &history.name, base, &next).await?;
    commit::discard_expired(&store.catalog, &store.place, base, &next.metadata).await;
    Ok(())
}

pub fn random_snapshot_id(store: &IcebergHistory) -> i64 {
    (store.clock.random() >> 1) as i64
}

fn moved() -> Error {
    Error::new(ErrorKind::DataInvalid, "another engine replaced its files meanwhile: run it again")
}

/// The metadata with the next snapshot; its manifests and manifest list are written, with `name` in their names.
async fn stage(
    base: &Table,
    next: Next<'_>,
    name: &str,
    snapshot_id: i64,
    now_ms: i64,
) -> Result<TableMetadataBuildResult> {
    let metadata = base.metadata();
    let parent = metadata.current_snapshot().ok_or_else(moved)?;
    let folder = format!("{}/metadata", metadata.location());
    let sequence = metadata.next_sequence_number();
    let (manifests, counts) = match next {
        Next::Replaced { replaced, added, spec } => {
            // Their partitions would be taken for values of the new spec.
            if metadata.default_partition_spec_id() != spec {
                return Err(moved());
            }
            let (manifests, found) = replacing(base, parent, replaced, added, (&folder, name, snapshot_id)).await?;
            let bytes_added = added.iter().map(DataFile::file_size_in_bytes).sum();
            (manifests, [(added.len() as u64, bytes_added), (replaced.len() as u64, found)])
        }
        Next::Folded => (fold::folded(base, parent, &folder, name, snapshot_id).await?, [(0, 0); 2]),
    };

    let list_location = format!("{folder}/snap-{snapshot_id}-{name}.avro");
    let output = base.file_io().new_output(&list_location)?.writer().await?;
    let mut list = ManifestListWriter::v2(output, snapshot_id, Some(parent.snapshot_id()), sequence);
    list.add_manifests(manifests.into_iter())?;
    list.close().await?;

    let summary = summary(&parent.summary().additional_properties, counts[0], counts[1]);
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(Some(parent.snapshot_id()))
        .with_sequence_number(sequence)
        // Times of snapshots do not go back, whatever the clock does.
        .with_timestamp_ms(now_ms.max(parent.timestamp_ms()).max(metadata.last_updated_ms()))
        .with_manifest_list(list_location)
        .with_summary(summary)
        .with_schema_id(metadata.current_schema_id())
        .build();
    let from = base.metadata_location_result()?.to_string();
    let mut builder = metadata.clone().into_builder(Some(from));
    if matches!(next, Next::Replaced { .. }) {
        let hold = SnapshotReference::new(parent.snapshot_id(), SnapshotRetention::Tag { max_ref_age_ms: None });
        builder = builder.set_ref(&format!("{BEFORE_REWRITE}{}", parent.sequence_number()), hold)?;
    }
    builder.set_branch_snapshot(snapshot, MAIN_BRANCH)?.build()
}

/// The manifests with the files replaced, and the bytes of those that were; a new one is named by (folder, name, snapshot).
async fn replacing(
    base: &Table,
    parent: &SnapshotRef,
    replaced: &HashSet<String>,
    added: &[DataFile],
    (folder, name, snapshot_id): (&str, &str, i64),
) -> Result<(Vec<ManifestFile>, u64)> {
    let sequence = base.metadata().next_sequence_number();
    let mut writer = fold::writer(base, folder, &format!("{name}-m0"), snapshot_id)?;
    for file in added {
        writer.add_file(file.clone(), sequence)?;
    }
    let list = base.manifest_list_reader(parent).load().await?;
    let mut manifests = Vec::new();
    let mut found = HashMap::new();
    for manifest in list.entries() {
        // Rows that were deleted since the files were read would come back with the files in their place.
        if manifest.content == ManifestContentType::Deletes {
            return Err(moved());
        }
        let read = manifest.load_manifest(base.file_io()).await?;
        let live: Vec<_> = read.entries().iter().filter(|entry| entry.is_alive()).collect();
        if !live.iter().any(|entry| replaced.contains(entry.file_path())) {
            if !live.is_empty() {
                manifests.push(manifest.clone());
            }
            continue;
        }
        for entry in live {
            let file = entry.data_file().clone();
            let entry_sequence = entry.sequence_number().unwrap_or(manifest.sequence_number);
            let file_sequence = entry.file_sequence_number.or(Some(entry_sequence));
            if replaced.contains(entry.file_path()) {
                found.insert(entry.file_path().to_string(), entry.file_size_in_bytes());
                writer.add_delete_file(file, entry_sequence, file_sequence)?;
            } else {
                let by = entry.snapshot_id().unwrap_or(manifest.added_snapshot_id);
                writer.add_existing_file(file, by, entry_sequence, file_sequence)?;
            }
        }
    }
    if found.len() != replaced.len() {
        return Err(moved());
    }
    manifests.push(writer.write_manifest_file().await?);
    Ok((manifests, found.into_values().sum()))
}

/// What the snapshot says of itself; each pair is files and bytes. Totals that the one before lacks are left out.
fn summary(before: &HashMap<String, String>, added: (u64, u64), removed: (u64, u64)) -> Summary {
    let total = |name: &str| before.get(name).and_then(|total| total.parse::<u64>().ok());
    let next = |name: &str, added: u64, removed: u64| Some((total(name)? + added).saturating_sub(removed));
    let all = [
        ("added-data-files", Some(added.0)),
        ("added-files-size", Some(added.1)),
        ("deleted-data-files", Some(removed.0)),
        ("removed-files-size", Some(removed.1)),
        ("total-data-files", next("total-data-files", added.0, removed.0)),
        ("total-files-size", next("total-files-size", added.1, removed.1)),
        ("total-records", total("total-records")),
        ("total-delete-files", total("total-delete-files")),
        ("total-position-deletes", total("total-position-deletes")),
        ("total-equality-deletes", total("total-equality-deletes")),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?.to_string())));
    Summary { operation: Operation::Replace, additional_properties: given.collect() }
}
