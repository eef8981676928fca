//! Tables that are replaced as a whole: the rows of a training set, where other engines find them.
//!
//! ```text
//!   files of the rows ▶ a manifest: these added, those before gone ▶ manifest list ▶ metadata ▶ the catalog's swap
//! ```
//!
//! Each durable before the next names it, as in a rewrite (`rewrite.rs`); the snapshot is an overwrite, and has no file of the one
//! before. A reader of that goes on with its files for an hour. Not partitioned and not sorted: a set is read from end to end.

use super::{
    IcebergHistory, METADATA_FILES_KEPT, catalog::Next, commit, disk, fold, parts, rewrite, schema, tag, vacuum,
};
use arrow::{array::Array, datatypes::DataType, record_batch::RecordBatch};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::{
    Error, Result, TableCreation,
    spec::{
        DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestListWriter, Operation, Snapshot, Summary,
        TableMetadataBuildResult, TableMetadataBuilder,
    },
    table::Table,
    writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriter, ParquetWriterBuilder},
};
use parquet::{
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use std::collections::HashMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{Expiry, HistoryPartition, HistoryStore, HistoryTable, KeptTable, SeamError, SeamResult};
use uuid::Uuid;

/// Rows of a file, which is one row group: a writer holds that in memory. As many as in those of history. The crate makes a file's
/// bounds of its row groups, and of several they may be wrong (`data_file.rs`, `note_long`).
const FILE_ROWS: usize = 1 << 20;
/// Bytes of rows, as they are in memory, after which a file is ended earlier: rows may be wide.
const FILE_BYTES: usize = 256 << 20;
/// Another engine may commit between our reading of the table and our commit this often before we give up.
const COMMIT_ATTEMPTS: usize = 5;
/// How long what was replaced stays, for those who read it: history's default.
const SNAPSHOT_AGE_US: i64 = 3_600_000_000;
/// How old a file is that nothing names and that goes with the next computation: history's default.
const ORPHAN_AGE_US: i64 = 24 * SNAPSHOT_AGE_US;

pub async fn is_kept(store: &IcebergHistory, table: &KeptTable) -> SeamResult<bool> {
    let existing = match store.catalog.load(&table.name).await? {
        Some(existing) if store.is_of(&existing, table.id) => existing,
        Some(_) => return Ok(false),
        None => {
            let Some(other) = store.owned_by(table.id).await? else { return Ok(false) };
            store.catalog.rename(&other, &table.name).await?;
            store.load(&table.name).await?
        }
    };
    let computation = existing.metadata().properties().get(tag::COMPUTATION);
    Ok(computation == Some(&table.computation.to_string()) && has_columns(&existing, table)?)
}

pub async fn keep(store: &IcebergHistory, table: &KeptTable, rows: SendableRecordBatchStream) -> SeamResult<()> {
    make(store, table).await?;
    let history = shape(table);
    let base = store.load_own(&history).await?;
    let id = store.random_id();
    let mut written = Vec::new();
    let kept = async {
        let files = write(table, &base, rows, id, &mut written).await?;
        let locations: Vec<String> = files.iter().map(|file| file.file_path().to_string()).collect();
        store.place.settle(base.metadata().location(), &locations, id).await?;
        commit_on_top(store, table, &history, &base, &files, id).await
    }
    .await;
    if matches!(kept, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
        store.place.discard(written).await;
    }
    kept?;
    if base.metadata().current_snapshot().is_none() {
        return Ok(());
    }
    let now_us = store.clock.now_us();
    let old = Expiry {
        snapshots_before_us: now_us.saturating_sub(SNAPSHOT_AGE_US),
        orphans_before_us: Some(now_us.saturating_sub(ORPHAN_AGE_US)),
    };
    if let Err(error) = vacuum::expire(store, &history, &old).await {
        tracing::warn!(table = table.name, %error, "what a training set was before is left behind until the next REFRESH");
    }
    Ok(())
}

pub async fn forget(store: &IcebergHistory, id: ObjectId, name: &str) -> SeamResult<()> {
    match store.catalog.load(name).await? {
        Some(existing) if store.is_of(&existing, id) => HistoryStore::drop(store, name).await,
        _ => Ok(()),
    }
}

/// What functions of history's tables ask of a table. It has no key and no time, and they ask neither.
fn shape(table: &KeptTable) -> HistoryTable {
    HistoryTable {
        view: table.id,
        name: table.name.clone(),
        schema: table.schema.clone(),
        key: Vec::new(),
        time: 0,
        comments: table.comments.clone(),
        partition: HistoryPartition::default(),
    }
}

/// Name, type and whether it may be NULL, of each column.
fn columns(table: &KeptTable) -> SeamResult<String> {
    let fields = table.schema.fields().iter();
    let columns: Vec<(&str, String, bool)> =
        fields.map(|field| (field.name().as_str(), field.data_type().to_string(), field.is_nullable())).collect();
    serde_json::to_string(&columns).map_err(SeamError::not_done)
}

fn has_columns(existing: &Table, table: &KeptTable) -> SeamResult<bool> {
    Ok(existing.metadata().properties().get(tag::COLUMNS) == Some(&columns(table)?))
}

/// Sees to it that there is a table of these columns. Fields have numbers, and files go by those: one whose columns are others is
/// made anew.
async fn make(store: &IcebergHistory, table: &KeptTable) -> SeamResult<()> {
    let what = format!("creating the table of training set \"{}\"", table.name);
    if let Some(existing) = store.catalog.load(&table.name).await? {
        let is_own = store.is_of(&existing, table.id);
        if is_own && has_columns(&existing, table)? {
            return Ok(());
        }
        // Rows of history are nowhere else, and what others made is theirs.
        if !is_own && !(store.is_ours(&existing) && tag::is_of_training_set(existing.metadata().properties())) {
            return Err(SeamError::NotDone(format!(
                "{what}: there is a table of this name in the warehouse that is no training set's: rename the training set, or \
                 create it WITH (iceberg = false)"
            )));
        }
        HistoryStore::drop(store, &table.name).await?;
    }
    let history = shape(table);
    let properties = [
        (tag::TRAINING_SET, table.id.to_string()),
        (tag::COLUMNS, columns(table)?),
        ("write.parquet.compression-codec", "zstd".to_string()),
        ("write.metadata.previous-versions-max", METADATA_FILES_KEPT.to_string()),
        ("write.metadata.delete-after-commit.enabled", "true".to_string()),
    ];
    let directory = store.directory.clone().map(|directory| (tag::DIRECTORY, directory));
    let creation = TableCreation::builder()
        .name(parts(&table.name).1.to_string())
        .location(store.new_location(&history))
        .schema(schema::storage_schema(&history)?)
        .properties(properties.into_iter().chain(directory).map(|(name, value)| (name.to_string(), value)))
        .format_version(FormatVersion::V2)
        .build();
    let metadata = TableMetadataBuilder::from_table_creation(creation)
        .and_then(|builder| builder.build())
        .map_err(|error| disk::failed(&what, &error))?
        .metadata;
    let first = format!("{}/metadata/00000-{}.metadata.json", metadata.location(), store.random_id());
    store.catalog.create(&store.place, &table.name, &metadata, &first).await
}

/// Writes the rows, and adds each file's location to `written` before its first byte.
async fn write(
    table: &KeptTable,
    base: &Table,
    mut rows: SendableRecordBatchStream,
    id: Uuid,
    written: &mut Vec<String>,
) -> SeamResult<Vec<DataFile>> {
    let what = format!("writing the rows of training set \"{}\"", table.name);
    let failed = |error: Error| disk::failed(&what, &error);
    let schema = base.metadata().current_schema().clone();
    let mut files = Vec::new();
    let mut open: Option<ParquetWriter> = None;
    let (mut file_rows, mut file_bytes) = (0, 0);
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?;
        if batch.num_rows() == 0 {
            continue;
        }
        let batch = schema::to_storage(&batch, &schema)?;
        if open.is_none() {
            let location = format!("{}/data/{id}-{:05}.parquet", base.metadata().location(), written.len());
            written.push(location.clone());
            let output = base.file_io().new_output(&location).map_err(failed)?;
            let writer = ParquetWriterBuilder::new(writer_properties(table), schema.clone());
            open = Some(writer.build(output).await.map_err(failed)?);
        }
        let Some(writer) = &mut open else { continue };
        writer.write(&batch).await.map_err(failed)?;
        file_rows += batch.num_rows();
        file_bytes += bytes_of(&batch);
        if file_rows >= FILE_ROWS || file_bytes >= FILE_BYTES {
            if let Some(writer) = open.take() {
                files.extend(close(base, writer).await.map_err(failed)?);
            }
            (file_rows, file_bytes) = (0, 0);
        }
        tokio::task::yield_now().await;
    }
    if let Some(writer) = open.take() {
        files.extend(close(base, writer).await.map_err(failed)?);
    }
    Ok(files)
}

/// Of the rows alone: a batch may be a part of another.
fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// What a manifest says of a file that is ended.
async fn close(base: &Table, writer: ParquetWriter) -> Result<Vec<DataFile>> {
    let mut files = Vec::new();
    for mut file in writer.close().await? {
        file.partition_spec_id(base.metadata().default_partition_spec_id());
        let built = file.build();
        files.push(built.map_err(|error| Error::new(iceberg::ErrorKind::DataInvalid, error.to_string()))?);
    }
    Ok(files)
}

fn writer_properties(table: &KeptTable) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(None)
        .set_created_by(concat!("tidemark ", env!("CARGO_PKG_VERSION")).to_string());
    for field in table.schema.fields() {
        // Statistics leave NaN out, but SQL orders it above every number.
        if matches!(field.data_type(), DataType::Float32 | DataType::Float64) {
            let path = ColumnPath::from(vec![field.name().clone()]);
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    properties.build()
}

/// Commits on top of what is current, however often another engine gets there first. `written_to`: the table as it was when the files
/// were written below its location.
async fn commit_on_top(
    store: &IcebergHistory,
    table: &KeptTable,
    history: &HistoryTable,
    written_to: &Table,
    files: &[DataFile],
    id: Uuid,
) -> SeamResult<()> {
    let locks = store.locks.of(history.view);
    let _committing = locks.committing.read().await;
    let location = written_to.metadata().location();
    let mut attempt = 1;
    loop {
        let base = store.load_own(history).await?;
        if base.metadata().location() != location {
            return Err(SeamError::NotDone(format!(
                "the table of training set \"{}\" was made anew meanwhile",
                table.name
            )));
        }
        let before = store.unsettled.begin(location);
        let committed = commit_once(store, table, &base, files, &format!("{id}-{attempt}"), id).await;
        store.unsettled.end(location, before, &committed);
        match committed {
            Ok(()) => return Ok(()),
            Err(error @ SeamError::Unknown(_)) => return Err(error),
            Err(error) => {
                store.place.discard_commit(location, id).await;
                if attempt == COMMIT_ATTEMPTS || matches!(error, SeamError::Full(_)) {
                    return Err(error);
                }
            }
        }
        attempt += 1;
    }
}

async fn commit_once(
    store: &IcebergHistory,
    table: &KeptTable,
    base: &Table,
    files: &[DataFile],
    name: &str,
    id: Uuid,
) -> SeamResult<()> {
    let failed = |error: Error| disk::failed(&format!("committing training set \"{}\"", table.name), &error);
    let mut snapshot_id = rewrite::random_snapshot_id(store);
    while base.metadata().snapshot_by_id(snapshot_id).is_some() {
        snapshot_id = rewrite::random_snapshot_id(store);
    }
    let now_ms = store.clock.now_us() / 1000;
    let staged = stage(table, base, files, name, snapshot_id, now_ms).await.map_err(failed)?;
    store.place.settle(base.metadata().location(), &[], id).await?;
    let from = base.metadata_location_result().map_err(failed)?;
    let location = commit::next_location(from, &staged.metadata).map_err(failed)?;
    let next = Next { metadata: staged.metadata, location, updates: staged.changes, ahead_ms: 0 };
    store.catalog.commit(&store.place, &table.name, base, &next).await?;
    commit::discard_expired(&store.catalog, &store.place, base, &next.metadata).await;
    Ok(())
}

/// Files, their rows and bytes.
#[derive(Default)]
struct Count {
    files: u64,
    rows: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, file: &DataFile) {
        self.files += 1;
        self.rows += file.record_count();
        self.bytes += file.file_size_in_bytes();
    }
}

/// The metadata with the next snapshot; its manifest and manifest list are written, with `name` in their names.
async fn stage(
    table: &KeptTable,
    base: &Table,
    files: &[DataFile],
    name: &str,
    snapshot_id: i64,
    now_ms: i64,
) -> Result<TableMetadataBuildResult> {
    let metadata = base.metadata();
    let parent = metadata.current_snapshot();
    let folder = format!("{}/metadata", metadata.location());
    let sequence = metadata.next_sequence_number();
    let (mut added, mut removed) = (Count::default(), Count::default());
    let mut manifest = fold::writer(base, &folder, &format!("{name}-m0"), snapshot_id)?;
    for file in files {
        added.add(file);
        manifest.add_file(file.clone(), sequence)?;
    }
    if let Some(parent) = parent {
        let list = base.manifest_list_reader(parent).load().await?;
        let ours = list.entries().iter().filter(|listed| {
            // Deletes of other engines go with the files that they are of, and files of another partitioning without a word.
            listed.content == ManifestContentType::Data
                && listed.partition_spec_id == metadata.default_partition_spec_id()
        });
        for listed in ours {
            let read = listed.load_manifest(base.file_io()).await?;
            for entry in read.entries().iter().filter(|entry| entry.is_alive()) {
                let entry_sequence = entry.sequence_number().unwrap_or(listed.sequence_number);
                let file_sequence = entry.file_sequence_number.or(Some(entry_sequence));
                removed.add(entry.data_file());
                manifest.add_delete_file(entry.data_file().clone(), entry_sequence, file_sequence)?;
            }
        }
    }
    let mut manifests = Vec::new();
    if added.files + removed.files > 0 {
        manifests.push(manifest.write_manifest_file().await?);
    }

    let list_location = format!("{folder}/snap-{snapshot_id}-{name}.avro");
    let output = base.file_io().new_output(&list_location)?.writer().await?;
    let parent_id = parent.map(|parent| parent.snapshot_id());
    let mut list = ManifestListWriter::v2(output, snapshot_id, parent_id, sequence);
    list.add_manifests(manifests.into_iter())?;
    list.close().await?;

    let mut properties: HashMap<String, String> = table.properties.clone().into_iter().collect();
    properties.insert(tag::COMPUTATION.to_string(), table.computation.to_string());
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(parent_id)
        .with_sequence_number(sequence)
        // Times of snapshots do not go back, whatever the clock does.
        .with_timestamp_ms(now_ms.max(parent.map_or(0, |parent| parent.timestamp_ms())).max(metadata.last_updated_ms()))
        .with_manifest_list(list_location)
        .with_summary(summary(&properties, &added, &removed))
        .with_schema_id(metadata.current_schema_id())
        .build();
    let from = base.metadata_location_result()?.to_string();
    let builder = metadata.clone().into_builder(Some(from));
    builder.set_properties(properties)?.set_branch_snapshot(snapshot, MAIN_BRANCH)?.build()
}

/// What the snapshot says of itself: how many, and what the table says of its rows.
fn summary(properties: &HashMap<String, String>, added: &Count, removed: &Count) -> Summary {
    let counts = [
        ("added-data-files", added.files),
        ("added-records", added.rows),
        ("added-files-size", added.bytes),
        ("deleted-data-files", removed.files),
        ("deleted-records", removed.rows),
        ("removed-files-size", removed.bytes),
        ("total-data-files", added.files),
        ("total-records", added.rows),
        ("total-files-size", added.bytes),
        ("total-delete-files", 0),
        ("total-position-deletes", 0),
        ("total-equality-deletes", 0),
    ];
    let counts = counts.into_iter().map(|(name, count)| (name.to_string(), count.to_string()));
    Summary {
        operation: Operation::Overwrite,
        additional_properties: properties.clone().into_iter().chain(counts).collect(),
    }
}
