//! Features that are read late: the same rows as when all is read at once, and of fewer rows.

use super::world::World;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::SessionConfig;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::any::Any;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use tidemark_engine::asof::{AsofJoinExec, Late};

const FEATURES: usize = 12;
const FILES: i64 = 3;

fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("k", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ];
    fields.extend((0..FEATURES).map(|n| Field::new(format!("f{n}"), DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

/// Rows with keys below `keys`, some NULL. Every time is there once: nothing is tied.
fn batch(random: &mut StdRng, rows: std::ops::Range<i64>, keys: i64) -> RecordBatch {
    let ids: Vec<Option<i64>> =
        rows.clone().map(|_| (!random.random_bool(0.05)).then(|| random.random_range(0..keys))).collect();
    // 7,919 is prime: another order, no time twice.
    let times = rows.clone().map(|i| (!random.random_bool(0.05)).then_some(i * 7_919 % 1_000_003));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ids.iter().copied().collect::<Int64Array>()),
        Arc::new(ids.iter().map(|id| id.map(|id| format!("key {id}"))).collect::<StringArray>()),
        Arc::new(times.collect::<TimestampMicrosecondArray>()),
    ];
    for n in 0..FEATURES as i64 {
        let values = rows.clone().map(|i| (i % 11 != n).then_some(i * 100 + n));
        columns.push(Arc::new(values.collect::<Int64Array>()));
    }
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// `r` in files of several row groups, `labels` in memory.
fn world(folder: &Path, late: Late, labels: &RecordBatch) -> World {
    let config = SessionConfig::new().with_target_partitions(2).with_batch_size(512).with_extension(Arc::new(late));
    let mut world = World::configured(config);
    let url = ListingTableUrl::parse(folder.to_str().unwrap()).unwrap();
    let options =
        ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet").with_collect_stat(true);
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema());
    world.provided("r", schema(), Arc::new(ListingTable::try_new(config).unwrap()));
    world.table("labels", schema(), vec![vec![labels.clone()]]);
    world
}

fn write(folder: &Path, name: i64, batch: &RecordBatch, group: usize) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let file = File::create(folder.join(format!("{name}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Rows of the right side that reached the join.
fn rows_read(plan: &Arc<dyn ExecutionPlan>) -> usize {
    match (plan.as_ref() as &dyn Any).downcast_ref::<AsofJoinExec>() {
        Some(join) => join.metrics().unwrap().sum_by_name("right_rows").unwrap().as_usize(),
        None => plan.children().into_iter().map(rows_read).sum(),
    }
}

fn is_late(plan: &Arc<dyn ExecutionPlan>) -> bool {
    displayable(plan.as_ref()).indent(false).to_string().contains("features read late=r")
}

#[tokio::test]
async fn features_that_are_read_late_are_the_same() {
    let mut random = StdRng::seed_from_u64(48);
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<RecordBatch> = (0..FILES).map(|n| batch(&mut random, n * 800..(n + 1) * 800, 200)).collect();
    for (n, file) in files.iter().enumerate() {
        write(folder.path(), n as i64, file, 300);
    }
    // Few keys of many, all of them, and none.
    for (labels, keys) in [(20, 200), (800, 200), (0, 1)] {
        let labels = batch(&mut random, 50_000..50_000 + labels, keys);
        let late = world(folder.path(), Late::Always, &labels);
        let whole = world(folder.path(), Late::Never, &labels);
        let mut memory = World::new(1, 512);
        memory.table("r", schema(), vec![files.clone()]);
        memory.table("labels", schema(), vec![vec![labels.clone()]]);
        let filtered = "(SELECT k, ts, f1, f2 + 1 AS f3, name FROM r WHERE f2 % 3 <> 0) r";
        // By place, not by name; no row is in both parts, so that nothing is tied.
        let swapped = "(SELECT k, ts, f1, f3, name FROM r WHERE k <> 3 \
                       UNION ALL SELECT f5 AS k, ts, f3, f1, name FROM r WHERE k = 3) r";
        for right in ["r", filtered, swapped] {
            for on in [
                "l.k = r.k AND l.ts >= r.ts",
                "l.k = r.k AND l.ts > r.ts",
                "l.k = r.k AND l.ts <= r.ts",
                "l.name = r.name AND l.ts < r.ts",
                "l.k = r.k AND l.name = r.name AND l.ts >= r.ts AND l.ts - r.ts <= INTERVAL '20000 microseconds'",
                "l.ts >= r.ts",
            ] {
                for kind in ["ASOF JOIN", "ASOF LEFT JOIN"] {
                    let sql = format!("SELECT l.f0, r.ts, r.f1, r.f3 FROM labels l {kind} {right} ON {on}");
                    let expected = memory.rows(&sql).await.unwrap();
                    let (late_plan, whole_plan) =
                        (late.physical(&sql).await.unwrap(), whole.physical(&sql).await.unwrap());
                    assert!(is_late(&late_plan) && !is_late(&whole_plan), "{sql}");
                    assert!(late.rows(&sql).await.unwrap() == expected, "late: {sql}");
                    assert!(whole.rows(&sql).await.unwrap() == expected, "at once: {sql}");
                }
            }
        }
    }
}

#[tokio::test]
async fn only_of_rows_that_a_label_can_use_are_features_read() {
    let mut random = StdRng::seed_from_u64(49);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &batch(&mut random, 0..4_000, 400), 1_000);
    let labels = batch(&mut random, 9_000..9_010, 400);
    let sql = "SELECT l.f0, r.f1, r.f3 FROM labels l ASOF LEFT JOIN r ON l.k = r.k AND l.ts >= r.ts";
    let (late, whole) = (world(folder.path(), Late::Always, &labels), world(folder.path(), Late::Never, &labels));
    let (late_plan, whole_plan) = (late.physical(sql).await.unwrap(), whole.physical(sql).await.unwrap());
    collect(whole_plan.clone(), whole.state.task_ctx()).await.unwrap();
    collect(late_plan.clone(), late.state.task_ctx()).await.unwrap();
    let (some, all) = (rows_read(&late_plan), rows_read(&whole_plan));
    // Ten keys of four hundred.
    assert!(some > 0 && some * 10 < all, "{some} of {all}");
}

#[tokio::test]
async fn statistics_choose_wide_right_sides_with_many_rows_for_each_label() {
    let mut random = StdRng::seed_from_u64(50);
    let (large, small) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(large.path(), 0, &batch(&mut random, 0..100_000, 5_000), 50_000);
    write(small.path(), 0, &batch(&mut random, 0..1_000, 50), 1_000);
    let (few, many) = (batch(&mut random, 0..10, 50), batch(&mut random, 0..10_001, 50));
    let wide = "SELECT l.f0, r.* FROM labels l ASOF LEFT JOIN r ON l.k = r.k AND l.ts >= r.ts";
    // Of a table itself all columns are read: they decide between rows of one time.
    let narrow =
        "SELECT l.f0, r.f1 FROM labels l ASOF LEFT JOIN (SELECT k, ts, f1 FROM r) r ON l.k = r.k AND l.ts >= r.ts";
    let no_key = "SELECT l.f0, r.* FROM labels l ASOF LEFT JOIN r ON l.ts >= r.ts";
    for (folder, labels, sql, expected) in [
        (&large, &few, wide, true),
        (&large, &few, narrow, false),
        (&large, &few, no_key, false),
        (&large, &many, wide, false),
        (&small, &few, wide, false),
    ] {
        let plan = world(folder.path(), Late::ByStatistics, labels).physical(sql).await.unwrap();
        assert_eq!(is_late(&plan), expected, "{sql}, {} labels", labels.num_rows());
    }
}

#[tokio::test]
async fn a_scan_evaluates_nothing_that_can_fail() {
    let mut random = StdRng::seed_from_u64(51);
    let folder = tempfile::tempdir().unwrap();
    let file = batch(&mut random, 0..1_000, 50);
    write(folder.path(), 0, &file, 300);
    let labels = batch(&mut random, 50_000..50_020, 50);
    let (late, whole) = (world(folder.path(), Late::Always, &labels), world(folder.path(), Late::Never, &labels));
    let mut memory = World::new(1, 512);
    memory.table("r", schema(), vec![vec![file]]);
    memory.table("labels", schema(), vec![vec![labels]]);
    let joined = |right: &str| {
        format!("SELECT l.f0, r.ts, r.f1 FROM labels l ASOF LEFT JOIN ({right}) r ON l.k = r.k AND l.ts >= r.ts")
    };
    // The filter keeps this key from being computed of rows of which it cannot be.
    let computed = joined("SELECT 30 / (f0 % 7) AS k, ts, f1 FROM r WHERE f0 % 7 <> 0");
    assert!(!is_late(&late.physical(&computed).await.unwrap()));
    assert_eq!(late.rows(&computed).await.unwrap(), memory.rows(&computed).await.unwrap());
    // A filter that fails says so in its own words.
    let fails = joined("SELECT k, ts, f1 FROM r WHERE 30 / (f0 % 7) > 3");
    assert!(is_late(&late.physical(&fails).await.unwrap()));
    let (late, whole) = (late.rows(&fails).await.unwrap_err(), whole.rows(&fails).await.unwrap_err());
    assert_eq!(late.find_root().to_string(), whole.find_root().to_string());
}
