//! `optimize`: the small files of a month become large ones, in the same order.
//!
//! The crate cannot rewrite (docs/decisions/0016): manifest, manifest list and snapshot are made here of its public
//! parts, and become current by the same compare-and-set as an append. In order: data files, manifest, manifest list,
//! metadata file, each durable before the next names it. Whoever is stopped between has left orphans and nothing else.
//! The replaced files stay, held by a tag on the snapshot before, until `vacuum` finds them old enough.

use super::{
    IcebergHistory,
    catalog::Next,
    commit, data_file, disk,
    manifest::{self, StepFile},
    place::Place,
    provider::HistorySnapshot,
    schema,
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
        DataFile, Literal, MAIN_BRANCH, ManifestListWriter, ManifestWriterBuilder, Operation, PrimitiveLiteral,
        Snapshot, SnapshotReference, SnapshotRetention, Summary, TableMetadataBuildResult,
    },
    table::Table,
    writer::file_writer::FileWriter,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tidemark_engine::seam::{HistoryTable, Rewritten, SeamError, SeamResult};
use uuid::Uuid;

/// Files grow to about this: large enough that a scan spends its time on rows and not on opening files, small enough to
/// be written again.
const TARGET_BYTES: u64 = 128 << 20;
/// Files below this are written together. Half the target: two of them are at most one good file.
const SMALL_BYTES: u64 = TARGET_BYTES / 2;
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

/// Small files of one month that become one.
struct Bin {
    month: i32,
    files: Vec<Live>,
}

pub async fn optimize(store: &IcebergHistory, history: &HistoryTable) -> SeamResult<Rewritten> {
    let _maintaining = store.maintaining.lock().await;
    let mut done = Rewritten::default();
    let mut made: HashSet<String> = HashSet::new();
    let mut found: Option<HashSet<String>> = None;
    // What a pass makes may still be small. Every pass leaves fewer of the files that the first one found, so it ends:
    // what is appended meanwhile waits for the next time.
    loop {
        let base = store.load_own(history).await?;
        let mut live = live_files(&store.place, &base, history).await?;
        let paths = || live.iter().map(|(_, live)| live.file.file_path().to_string()).collect();
        let first = found.get_or_insert_with(paths);
        live.retain(|(_, live)| first.contains(live.file.file_path()) || made.contains(live.file.file_path()));
        let bins = bins(live);
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

/// The live files with the month each belongs to; those that another engine partitioned otherwise are left alone.
async fn live_files(place: &Place, base: &Table, history: &HistoryTable) -> SeamResult<Vec<(i32, Live)>> {
    let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
    let metadata = base.metadata();
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(Vec::new()) };
    let list = base.manifest_list_reader(snapshot).load().await.map_err(failed)?;
    let mut live = Vec::new();
    for manifest in list.entries() {
        let entries = manifest.load_manifest(base.file_io()).await.map_err(failed)?;
        for entry in entries.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            // Whatever cannot be read is refused before anything is written.
            let steps = Arc::new(manifest::step_file(place, base, history, file)?);
            let month = match file.partition().fields() {
                [Some(Literal::Primitive(PrimitiveLiteral::Int(month)))] => *month,
                _ => continue,
            };
            if manifest.partition_spec_id == metadata.default_partition_spec_id() {
                live.push((month, Live { file: file.clone(), steps }));
            }
        }
    }
    Ok(live)
}

/// Small files of the same month by twos and more, the smallest first.
fn bins(live: Vec<(i32, Live)>) -> Vec<Bin> {
    let mut months: BTreeMap<i32, Vec<Live>> = BTreeMap::new();
    for (month, live) in live {
        if live.file.file_size_in_bytes() < SMALL_BYTES {
            months.entry(month).or_default().push(live);
        }
    }
    let mut bins = Vec::new();
    for (month, mut files) in months {
        files.sort_by_key(|live| (live.file.file_size_in_bytes(), live.file.file_path().to_string()));
        let mut bin = Bin { month, files: Vec::new() };
        let mut bytes = 0;
        for live in files {
            let more = live.file.file_size_in_bytes();
            if bin.files.len() == MERGED_AT_ONCE || bytes + more > TARGET_BYTES {
                bins.push(std::mem::replace(&mut bin, Bin { month, files: Vec::new() }));
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
        let location = data_file::new_location(base, bin.month, id, number);
        written.push(location.clone());
        added.extend(merge(&store.place, base, history, bin, &location).await?);
    }
    let files: Vec<String> = added.iter().map(|file| file.file_path().to_string()).collect();
    store.place.settle(base.metadata().location(), &files, id).await?;

    let _committing = store.committing.write().await;
    let replaced: HashSet<String> =
        bins.iter().flat_map(|bin| &bin.files).map(|live| live.file.file_path().to_string()).collect();
    let mut attempt = 1;
    loop {
        let base = store.load_own(history).await?;
        match commit_replaced(store, history, &base, &replaced, &added, id, attempt).await {
            Ok(()) => return Ok(added),
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
    let mut writer = data_file::open_file(base, history, location, &with_nan).await?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(failed)?;
        if batch.num_rows() > 0 {
            count += batch.num_rows() as u64;
            let batch = schema::to_storage(&batch, table_schema)?;
            writer.write(&batch).await.map_err(|error| disk::failed(&what, &error))?;
        }
    }
    let files = data_file::close_file(base, history, writer, bin.month).await?;
    let expected: u64 = bin.files.iter().map(|live| live.file.record_count()).sum();
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
    let table = context.read_table(Arc::new(HistorySnapshot::new(history.clone(), files, place.clone())))?;
    table.sort(order)?.execute_stream().await
}

async fn commit_replaced(
    store: &IcebergHistory,
    history: &HistoryTable,
    base: &Table,
    replaced: &HashSet<String>,
    added: &[DataFile],
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
    let staged = stage(base, replaced, added, &name, snapshot_id, now_ms).await.map_err(failed)?;
    store.place.settle(base.metadata().location(), &[], id).await?;
    let from = base.metadata_location_result().map_err(failed)?;
    let location = commit::next_location(from, &staged.metadata).map_err(failed)?;
    let next = Next { metadata: staged.metadata, location, updates: staged.changes, ahead_ms: 0 };
    store.catalog.commit(&store.place, &history.name, base, &next).await?;
    commit::discard_expired(&store.catalog, &store.place, base, &next.metadata).await;
    Ok(())
}

fn random_snapshot_id(store: &IcebergHistory) -> i64 {
    (store.clock.random() >> 1) as i64
}

/// The metadata with the files replaced; its manifest and manifest list are written, with `name` in their names.
async fn stage(
    base: &Table,
    replaced: &HashSet<String>,
    added: &[DataFile],
    name: &str,
    snapshot_id: i64,
    now_ms: i64,
) -> Result<TableMetadataBuildResult> {
    let moved = || Error::new(ErrorKind::DataInvalid, "another engine replaced its files meanwhile: run it again");
    let metadata = base.metadata();
    let parent = metadata.current_snapshot().ok_or_else(moved)?;
    let folder = format!("{}/metadata", metadata.location());
    let sequence = metadata.next_sequence_number();

    let output = base.file_io().new_output(format!("{folder}/{name}-m0.avro"))?;
    let spec = metadata.default_partition_spec().as_ref().clone();
    let schema = metadata.current_schema().clone();
    let mut writer = ManifestWriterBuilder::new(output, Some(snapshot_id), schema, spec).build_v2_data();
    for file in added {
        writer.add_file(file.clone(), sequence)?;
    }
    let list = base.manifest_list_reader(parent).load().await?;
    let mut manifests = Vec::new();
    let mut found = HashMap::new();
    for manifest in list.entries() {
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

    let list_location = format!("{folder}/snap-{snapshot_id}-{name}.avro");
    let output = base.file_io().new_output(&list_location)?.writer().await?;
    let mut list = ManifestListWriter::v2(output, snapshot_id, Some(parent.snapshot_id()), sequence);
    list.add_manifests(manifests.into_iter())?;
    list.close().await?;

    let bytes_added = added.iter().map(DataFile::file_size_in_bytes).sum();
    let bytes_removed = found.values().sum();
    let before = &parent.summary().additional_properties;
    let summary = summary(before, (added.len() as u64, bytes_added), (found.len() as u64, bytes_removed));
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
    let hold = SnapshotReference::new(parent.snapshot_id(), SnapshotRetention::Tag { max_ref_age_ms: None });
    let from = base.metadata_location_result()?.to_string();
    let builder = metadata.clone().into_builder(Some(from));
    let builder = builder.set_ref(&format!("{BEFORE_REWRITE}{}", parent.sequence_number()), hold)?;
    builder.set_branch_snapshot(snapshot, MAIN_BRANCH)?.build()
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
