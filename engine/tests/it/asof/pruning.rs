//! Labels say which files and row groups of the right side need not be read.

use super::world::World;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, collect};
use std::any::Any;
use std::fs::File;
use std::sync::Arc;
use tidemark_engine::asof::AsofJoinExec;

/// Files of the right side; file `n` has times from `1000 n` on, and keys from `10 n` to `10 n + 9`.
const FILES: i64 = 8;
const ROWS: i64 = 1000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("a", DataType::Int64, true),
    ]))
}

fn file(n: i64) -> RecordBatch {
    let rows = n * ROWS..(n + 1) * ROWS;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|i| n * 10 + i % 10))),
        Arc::new(StringArray::from_iter_values(rows.clone().map(|i| format!("key {:03}", n * 10 + i % 10)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.clone())),
        Arc::new(Int64Array::from_iter_values(rows)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn labelled(labels: &[(i64, i64)]) -> Vec<Vec<RecordBatch>> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(labels.iter().map(|label| Some(label.0)).collect::<Int64Array>()),
        Arc::new(labels.iter().map(|label| Some(format!("key {:03}", label.0))).collect::<StringArray>()),
        Arc::new(labels.iter().map(|label| Some(label.1)).collect::<TimestampMicrosecondArray>()),
        Arc::new(Int64Array::from_iter_values(0..labels.len() as i64)),
    ];
    vec![vec![RecordBatch::try_new(schema(), columns).unwrap()]]
}

fn world(folder: &std::path::Path, labels: &[(i64, i64)]) -> World {
    for n in 0..FILES {
        let properties = WriterProperties::builder().set_bloom_filter_enabled(true).build();
        let path = folder.join(format!("{n}.parquet"));
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema(), Some(properties)).unwrap();
        writer.write(&file(n)).unwrap();
        writer.close().unwrap();
    }
    let mut world = World::new(1, 8192);
    let url = ListingTableUrl::parse(folder.to_str().unwrap()).unwrap();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema());
    let files = Arc::new(ListingTable::try_new(config).unwrap());
    world.provided("r", schema(), files);
    world.table("labels", schema(), labelled(labels));
    world
}

fn rows_read(plan: &Arc<dyn ExecutionPlan>) -> usize {
    match (plan.as_ref() as &dyn Any).downcast_ref::<AsofJoinExec>() {
        Some(join) => join.metrics().unwrap().sum_by_name("right_rows").unwrap().as_usize(),
        None => plan.children().into_iter().map(rows_read).sum(),
    }
}

/// Labels, the condition, and how many files of the right side can have a match.
async fn check(labels: &[(i64, i64)], on: &str, files: i64) {
    check_over(labels, "r", on, files).await;
}

/// The same over what reads the files.
async fn check_over(labels: &[(i64, i64)], right: &str, on: &str, files: i64) {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path(), labels);
    let sql = format!("SELECT l.a, r.a FROM labels l ASOF LEFT JOIN {right} ON {on}");
    let plan = world.physical(&sql).await.unwrap();
    collect(plan.clone(), world.state.task_ctx()).await.unwrap();
    assert_eq!(rows_read(&plan), (files * ROWS) as usize, "{on}");
    // The same rows as from memory, where nothing is pruned.
    let mut memory = World::new(1, 8192);
    memory.table("r", schema(), vec![(0..FILES).map(file).collect()]);
    memory.table("labels", schema(), labelled(labels));
    assert_eq!(world.rows(&sql).await.unwrap(), memory.rows(&sql).await.unwrap(), "{on}");
}

#[tokio::test]
async fn files_without_a_key_of_a_label_are_not_read() {
    // Keys of files 2 and 5.
    let labels = [(25, 9_000), (51, 9_000), (51, 5_500)];
    check(&labels, "l.k = r.k AND l.ts >= r.ts", 2).await;
    check(&labels, "l.name = r.name AND l.ts >= r.ts", 2).await;
    check(&labels, "l.name = r.name AND l.k = r.k AND l.ts > r.ts", 2).await;
}

#[tokio::test]
async fn it_goes_through_filters_projections_and_unions() {
    let labels = [(25, 9_000), (51, 5_500)];
    let on = "l.k = r.k AND l.ts >= r.ts";
    check_over(&labels, "(SELECT a, ts, k FROM r WHERE a % 2 = 0) r", on, 1).await;
    let union = "(SELECT k, ts, a FROM r WHERE a < 4000 UNION ALL SELECT k, ts, a FROM r WHERE a >= 4000) r";
    check_over(&labels, union, on, 2).await;
    // By place, not by name: every row of the second part may have key 25 or 51 in `a`; its files say which.
    let swapped = "(SELECT k, ts, a FROM r UNION ALL SELECT a, ts, k FROM r) r";
    check_over(&labels, swapped, on, 3).await;
    check_over(&labels, "(SELECT k AS a, a AS k, ts FROM r) r", on, 1).await;
}

#[tokio::test]
async fn nothing_is_left_out_below_a_limit() {
    check_over(&[(25, 9_000)], "(SELECT * FROM r ORDER BY ts, k LIMIT 8000) r", "l.k = r.k AND l.ts >= r.ts", 8).await;
    check_over(&[(25, 9_000)], "(SELECT * FROM r LIMIT 8000) r", "l.k = r.k AND l.ts >= r.ts", 8).await;
}

#[tokio::test]
async fn files_after_the_last_label_are_not_read_and_with_a_tolerance_not_those_long_before() {
    let labels = [(1, 3_100), (2, 3_200)];
    check(&labels, "l.ts >= r.ts", 4).await;
    check(&labels, "l.ts >= r.ts AND l.ts - r.ts <= INTERVAL '500 microseconds'", 2).await;
    check(&labels, "l.ts <= r.ts", 5).await;
    check(&labels, "l.ts < r.ts AND r.ts - l.ts < INTERVAL '100 microseconds'", 1).await;
}

#[tokio::test]
async fn more_keys_than_can_be_named_still_bound_what_is_read() {
    // Keys of files 0 and 1, and others that no file has, below them.
    let labels: Vec<(i64, i64)> = (-2_000..20).map(|k| (k, 9_000)).collect();
    check(&labels, "l.k = r.k AND l.ts >= r.ts", 2).await;
}
