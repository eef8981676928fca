//! Little memory: the join goes on from disk, gives the same rows in the same order, and leaves nothing behind.

use super::world::World;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::any::Any;
use std::sync::Arc;
use tidemark_engine::asof::AsofJoinExec;

fn schema(value: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new(value, DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ]))
}

/// (key, time): `None` is NULL.
type Row = (Option<i64>, Option<i64>);

fn batches(value: &str, rows: &[Row], partitions: usize) -> Vec<Vec<RecordBatch>> {
    let mut parts = vec![vec![]; partitions];
    for (i, chunk) in rows.chunks(500).enumerate() {
        let first = i as i64 * 500;
        let values = first..first + chunk.len() as i64;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(chunk.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(chunk.iter().map(|row| row.1).collect::<TimestampMicrosecondArray>()),
            Arc::new(Int64Array::from_iter_values(values.clone())),
            Arc::new(StringArray::from_iter_values(values.map(|n| format!("the text of row {n}")))),
        ];
        parts[i % partitions].push(RecordBatch::try_new(schema(value), columns).unwrap());
    }
    parts
}

/// One key has a tenth of the rows; some rows have NULLs.
fn skewed(random: &mut StdRng, rows: usize, keys: i64) -> Vec<Row> {
    let row = |random: &mut StdRng| {
        let key = if random.random_bool(0.1) { 0 } else { random.random_range(0..keys) };
        let time = random.random_range(0..10_000);
        ((!random.random_bool(0.02)).then_some(key), (!random.random_bool(0.02)).then_some(time))
    };
    (0..rows).map(|_| row(random)).collect()
}

/// Of all `ASOF JOIN`s in a plan.
fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let join = (plan.as_ref() as &dyn Any).downcast_ref::<AsofJoinExec>();
    let own = join
        .and_then(|join| join.metrics()?.sum(|metric| metric.value().name() == name))
        .map_or(0, |value| value.as_usize());
    own + plan.children().into_iter().map(|child| metric(child, name)).sum::<usize>()
}

async fn all(plan: &Arc<dyn ExecutionPlan>, world: &World) -> RecordBatch {
    concat_batches(&plan.schema(), &collect(plan.clone(), world.state.task_ctx()).await.unwrap()).unwrap()
}

fn fill(world: &mut World, labels: &[Row], first: &[Row], second: &[Row]) {
    world.table("labels", schema("id"), batches("id", labels, 1));
    world.table("r", schema("a"), batches("a", first, 3));
    world.table("s", schema("c"), batches("c", second, 2));
}

const ONE: &str = "SELECT l.id, l.text, r.a, r.text FROM labels l ASOF LEFT JOIN r ON l.k = r.k AND l.ts >= r.ts";
const INNER: &str = "SELECT l.id, r.a FROM labels l ASOF JOIN r ON l.k = r.k AND l.ts < r.ts \
                     AND r.ts - l.ts < INTERVAL '500 microseconds'";
const NO_KEY: &str = "SELECT l.id, r.ts FROM labels l ASOF LEFT JOIN r ON l.ts > r.ts";
const TWO: &str = "SELECT l.id, r.a, s.c FROM labels l ASOF LEFT JOIN r ON l.k = r.k AND l.ts >= r.ts \
                   ASOF LEFT JOIN s ON l.k = s.k AND l.ts > s.ts";
const TWO_KEYS: &str = "SELECT l.id, r.a, s.c FROM labels l ASOF LEFT JOIN r ON l.k = r.k AND l.ts >= r.ts \
                        ASOF JOIN s ON l.id = s.k AND l.ts >= s.ts";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_with_little_memory_gives_the_same_rows_in_the_same_order() {
    let mut random = StdRng::seed_from_u64(6);
    // Enough for some parts, for hardly one, for none at all.
    for (keys, limits) in [(40, vec![900_000, 0]), (3_000, vec![150_000])] {
        // A sixteenth of the labels is more than a chunk: parts are dealt again.
        let labels = skewed(&mut random, 20_000, keys);
        let (first, second) = (skewed(&mut random, 12_000, keys), skewed(&mut random, 4_000, keys));
        // One partition: the left side has an order then.
        let mut enough = World::new(1, 1000);
        fill(&mut enough, &labels, &first, &second);
        for sql in [ONE, INNER, NO_KEY, TWO, TWO_KEYS] {
            let expected = all(&enough.physical(sql).await.unwrap(), &enough).await;
            assert!(expected.num_rows() > 0);
            for &bytes in &limits {
                let mut little = World::with_asof_memory(1, 1000, bytes);
                fill(&mut little, &labels, &first, &second);
                let plan = little.physical(sql).await.unwrap();
                let found = all(&plan, &little).await;
                assert_eq!(found.num_rows(), expected.num_rows(), "{bytes}: {sql}");
                assert!(found == expected, "{bytes}: {sql}");
                assert!(metric(&plan, "spilled_bytes") > 0, "{bytes}: {sql}");
                assert!(little.is_clean().await, "{bytes}: {sql}");
            }
        }
    }
}

/// All labels of one key: dealing them out again and again would change nothing.
#[tokio::test]
async fn one_key_that_does_not_fit_is_joined_chunk_by_chunk() {
    let labels: Vec<Row> = (0..9_000).map(|i| (Some(7), Some(i * 7 % 9_000))).collect();
    let right: Vec<Row> = (0..3_000).map(|i| (Some(7), Some(i * 3))).collect();
    let mut world = World::with_asof_memory(1, 1000, 100_000);
    fill(&mut world, &labels, &right, &[]);
    let plan = world.physical(ONE).await.unwrap();
    let found: usize =
        collect(plan.clone(), world.state.task_ctx()).await.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(found, 9_000);
    assert_eq!(metric(&plan, "matched"), 9_000);
    // Labels, right side and output, once each.
    assert_eq!(metric(&plan, "spill_count"), 3);
    let rows = world.rows(ONE).await.unwrap();
    for (i, row) in rows.iter().enumerate() {
        let time = i * 7 % 9_000;
        assert_eq!((&row[0], &row[2]), (&i.to_string(), &(time / 3).to_string()));
    }
}

#[tokio::test]
async fn without_a_disk_the_pool_refuses_and_nothing_is_held() {
    let rows: Vec<Row> = (0..10_000).map(|i| (Some(i), Some(i))).collect();
    let mut world = World::new(1, 8192);
    fill(&mut world, &rows, &rows, &[]);
    let plan = world.physical(ONE).await.unwrap();
    for (bytes, disk, enough) in [(10_000, false, false), (10_000, true, true), (100_000_000, false, true)] {
        let pool = Arc::new(GreedyMemoryPool::new(bytes));
        let mode = if disk { DiskManagerMode::OsTmpDirectory } else { DiskManagerMode::Disabled };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool.clone())
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
            .build_arc()
            .unwrap();
        let result = collect(plan.clone(), Arc::new(TaskContext::default().with_runtime(runtime))).await;
        match result {
            Ok(batches) => assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10_000),
            Err(error) => {
                assert!(!enough, "{error}");
                assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
                assert_eq!(pool.reserved(), 0);
                continue;
            }
        }
        assert!(enough);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_nobody_wants_any_more_leaves_no_file() {
    let mut random = StdRng::seed_from_u64(7);
    let labels = skewed(&mut random, 6_000, 500);
    let right = skewed(&mut random, 6_000, 500);
    let mut world = World::with_asof_memory(2, 20, 20_000);
    fill(&mut world, &labels, &right, &right);
    for after in [0, 1, 20] {
        let plan = world.physical(TWO).await.unwrap();
        let mut stream = execute_stream(plan, world.state.task_ctx()).unwrap();
        for _ in 0..after {
            assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
        }
        if after > 0 {
            assert!(world.state.runtime_env().disk_manager.spilling_progress().active_files_count > 0);
        }
        drop(stream);
        assert!(world.is_clean().await, "after {after} batches");
    }
}
