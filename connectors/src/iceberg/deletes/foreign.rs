//! As another engine that deletes rows beside their files or partitions a table anew, and what becomes of its table here.

use super::super::{IcebergHistory, catalog::Next, commit, disk};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, MAIN_BRANCH, ManifestListWriter, ManifestWriterBuilder,
    Operation, Snapshot, Summary, TableMetadataBuilder, Transform, UnboundPartitionField, UnboundPartitionSpec,
};
use parquet::arrow::ArrowWriter;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tidemark_catalog::{ObjectId, SqlType};
use tidemark_engine::seam::{
    Clock, CommitTag, Effort, HistoryPartition, HistoryStore, HistoryTable, Positions, Rewritten, SeamError,
};

/// It stands still, and its chance is a counter.
#[derive(Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now_us(&self) -> i64 {
        0
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn spawn(&self, _name: &'static str, _task: BoxFuture<'static, ()>) {}
}

fn table() -> HistoryTable {
    let time = SqlType::TimestampTz.arrow();
    let fields = vec![
        Field::new("k", DataType::Int64, false),
        Field::new("ts", time.clone(), false),
        Field::new("_op", DataType::Utf8, false),
        Field::new("_event_time", time.clone(), true),
        Field::new("_recorded_at", time, false),
    ];
    let (schema, partition) = (Arc::new(Schema::new(fields)), HistoryPartition::Month);
    HistoryTable { view: ObjectId(16400), name: "h".into(), schema, key: vec![0], time: 1, comments: vec![], partition }
}

/// A store whose table has the keys from 0 to 99, one step each, in one file.
async fn hundred() -> (TempDir, IcebergHistory, HistoryTable) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = IcebergHistory::open(folder.path(), Arc::new(Still::default())).await.expect("a store");
    let table = table();
    store.create(&table).await.expect("a table");
    append(&store, &table, 0..100, 1).await;
    (folder, store, table)
}

async fn append(store: &IcebergHistory, table: &HistoryTable, keys: std::ops::Range<i64>, sequence: u64) {
    let time =
        || Arc::new(TimestampMicrosecondArray::from_iter_values(keys.clone()).with_timezone("+00:00")) as ArrayRef;
    let ops = Arc::new(StringArray::from_iter_values(keys.clone().map(|_| "upsert")));
    let columns = vec![Arc::new(Int64Array::from_iter_values(keys.clone())) as ArrayRef, time(), ops, time(), time()];
    let rows = RecordBatch::try_new(table.schema.clone(), columns).expect("rows");
    let (positions, frontier_us) = (Positions::default(), keys.end);
    let tag = CommitTag { frontier_us, positions, view_version: 1, writer_epoch: 1, sequence };
    store.append(table, vec![rows], &tag).await.expect("a commit");
}

/// A commit that deletes rows of the table's first file beside it.
async fn delete(store: &IcebergHistory, table: &HistoryTable, content: DataContentType, rows: &[i64]) {
    let base = store.load(&table.name).await.expect("the table");
    let metadata = base.metadata();
    let parent = metadata.current_snapshot().expect("a snapshot");
    let list = base.manifest_list_reader(parent).load().await.expect("a list");
    let first = list.entries()[0].load_manifest(base.file_io()).await.expect("a manifest");
    let file = first.entries()[0].data_file().clone();
    let snapshot_id = parent.snapshot_id() + 1;

    let paths: ArrayRef = Arc::new(StringArray::from(vec![file.file_path(); rows.len()]));
    let batch = RecordBatch::try_from_iter([
        ("file_path", paths),
        ("pos", Arc::new(Int64Array::from(rows.to_vec())) as ArrayRef),
    ]);
    let batch = batch.expect("a batch");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let location = format!("{}/data/foreign-{snapshot_id}.parquet", metadata.location());
    std::fs::write(disk::local_path(&location), &bytes).expect("written");
    let deletes = DataFileBuilder::default()
        .content(content)
        .file_path(location)
        .file_format(DataFileFormat::Parquet)
        .partition(file.partition().clone())
        .partition_spec_id(metadata.default_partition_spec_id())
        .record_count(rows.len() as u64)
        .file_size_in_bytes(bytes.len() as u64)
        .build()
        .expect("a delete file");

    let folder = format!("{}/metadata", metadata.location());
    let output = base.file_io().new_output(format!("{folder}/foreign-{snapshot_id}-m0.avro")).expect("an output");
    let spec = metadata.default_partition_spec().as_ref().clone();
    let schema = metadata.current_schema().clone();
    let mut writer = ManifestWriterBuilder::new(output, Some(snapshot_id), schema, spec).build_v2_deletes();
    let sequence = metadata.next_sequence_number();
    writer.add_file(deletes, sequence).expect("added");
    let manifest = writer.write_manifest_file().await.expect("a manifest");
    let list_location = format!("{folder}/snap-foreign-{snapshot_id}.avro");
    let output = base.file_io().new_output(&list_location).expect("an output").writer().await.expect("a writer");
    let mut next_list = ManifestListWriter::v2(output, snapshot_id, Some(parent.snapshot_id()), sequence);
    next_list.add_manifests(list.entries().iter().cloned().chain([manifest])).expect("added");
    next_list.close().await.expect("a list");
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(Some(parent.snapshot_id()))
        .with_sequence_number(sequence)
        .with_timestamp_ms(parent.timestamp_ms().max(metadata.last_updated_ms()))
        .with_manifest_list(list_location)
        .with_summary(Summary {
            operation: Operation::Delete,
            additional_properties: parent.summary().additional_properties.clone(),
        })
        .with_schema_id(metadata.current_schema_id())
        .build();
    let from = base.metadata_location_result().expect("a location");
    let builder = metadata.clone().into_builder(Some(from.to_string()));
    let next = builder.set_branch_snapshot(snapshot, MAIN_BRANCH).and_then(|builder| builder.build());
    let built = next.expect("metadata");
    let location = commit::next_location(from, &built.metadata).expect("a location");
    let next = Next { metadata: built.metadata, location, updates: built.changes, ahead_ms: 0 };
    store.catalog.commit(&store.place, &table.name, &base, &next).await.expect("a commit");
}

/// A commit that changes the metadata alone.
async fn change(
    store: &IcebergHistory,
    table: &HistoryTable,
    change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
) {
    let base = store.load(&table.name).await.expect("the table");
    let from = base.metadata_location_result().expect("a location");
    let builder = base.metadata().clone().into_builder(Some(from.to_string()));
    let built = change(builder).and_then(TableMetadataBuilder::build).expect("metadata");
    let location = commit::next_location(from, &built.metadata).expect("a location");
    let next = Next { metadata: built.metadata, location, updates: built.changes, ahead_ms: 0 };
    store.catalog.commit(&store.place, &table.name, &base, &next).await.expect("a commit");
}

async fn keys(store: &IcebergHistory, table: &HistoryTable, rest: &str) -> Vec<i64> {
    let context = SessionContext::new();
    context.register_table("h", store.provider(table).await.expect("a provider")).expect("registered");
    let rows = context.sql(&format!("SELECT k FROM h {rest}")).await.expect("a plan").collect().await.expect("rows");
    rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_by_position_are_read_no_more_and_their_files_are_left_to_who_deleted_them() {
    let (_folder, store, table) = hundred().await;
    delete(&store, &table, DataContentType::PositionDeletes, &[0, 7, 99]).await;
    delete(&store, &table, DataContentType::PositionDeletes, &[7, 50]).await;
    append(&store, &table, 100..110, 2).await;
    let expected: Vec<i64> = (0..110).filter(|key| ![0, 7, 50, 99].contains(key)).collect();
    assert_eq!(keys(&store, &table, "ORDER BY k").await, expected);
    assert_eq!(keys(&store, &table, "WHERE k = 7 OR k = 8").await, [8]);
    assert!(keys(&store, &table, "WHERE k = 99").await.is_empty());
    assert_eq!(keys(&store, &table, "LIMIT 105").await.len(), 105);
    let context = SessionContext::new();
    context.register_table("h", store.provider(&table).await.expect("a provider")).expect("registered");
    let rows = context.sql("SELECT count(*) FROM h").await.expect("a plan").collect().await.expect("rows");
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 106);

    // Nothing is due, and who asks is told why.
    let survey = store.survey(&table, &Effort::WHOLE, i64::MAX).await.expect("a survey");
    assert_eq!((survey.files, survey.small_files), (2, 0));
    let refused = store.optimize(&table).await.expect_err("a refusal");
    assert!(
        matches!(&refused, SeamError::NotDone(text) if text.contains("delete files of another engine")),
        "{refused:?}"
    );
    // What reading needs stays.
    store.fold_manifests(&table).await.expect("folded");
    assert!(store.vacuum(&table, i64::MAX).await.expect("vacuumed").snapshots > 0);
    assert_eq!(keys(&store, &table, "ORDER BY k").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_by_value_are_refused_with_a_way_out() {
    let (_folder, store, table) = hundred().await;
    delete(&store, &table, DataContentType::EqualityDeletes, &[1]).await;
    let refused = store.provider(&table).await.expect_err("a refusal");
    let text = refused.to_string();
    assert!(
        text.contains("EqualityDeletes") && text.contains("only position deletes in Parquet can be applied"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_partition_spec_are_neither_counted_nor_written_together_with_those_of_this_one() {
    let (_folder, store, table) = hundred().await;
    for commit in 1..4 {
        append(&store, &table, commit * 100..commit * 100 + 10, commit as u64 + 1).await;
    }
    assert_eq!(store.survey(&table, &Effort::WHOLE, 0).await.expect("a survey").small_files, 4);
    // Days instead of months: the same number is another time.
    let time = store.load("h").await.expect("the table").metadata().current_schema().field_id_by_name("ts");
    let field = UnboundPartitionField::builder()
        .source_id(time.expect("a column"))
        .name("ts_by_day".to_string())
        .transform(Transform::Day)
        .build();
    let spec = UnboundPartitionSpec::builder().add_partition_fields([field]).expect("a spec").build();
    change(&store, &table, |builder| builder.add_default_partition_spec(spec)).await;
    let survey = store.survey(&table, &Effort::WHOLE, 0).await.expect("a survey");
    assert_eq!((survey.files, survey.small_files, survey.small_manifests), (4, 0, 0), "{survey:?}");
    assert_eq!(store.optimize(&table).await.expect("optimized"), Rewritten::default());
    // What is appended from here on is of days, and is cared for.
    append(&store, &table, 400..410, 5).await;
    append(&store, &table, 410..420, 6).await;
    assert_eq!(store.survey(&table, &Effort::WHOLE, 0).await.expect("a survey").small_files, 2);
    assert_eq!(store.optimize(&table).await.expect("optimized").files_before, 2);
    let expected: Vec<i64> = (0..110).chain(200..210).chain(300..310).chain(400..420).collect();
    assert_eq!(keys(&store, &table, "ORDER BY k").await, expected);
}
