//! `ASOF JOIN` over a feature view reads its steps and shows its columns.

use super::world::World;
use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, cast, col};
use std::sync::Arc;
use tidemark_planner::feature::NOW_COLUMN;
use tidemark_planner::table::{ContinuousColumn, ScanTarget, StepsTable, instant_type, steps_schema};

fn times(values: Vec<Option<i64>>) -> Arc<TimestampMicrosecondArray> {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("+00:00"))
}

fn now() -> Expr {
    Expr::Column(datafusion::common::Column::new_unqualified(NOW_COLUMN))
}

/// `clicks (k, ts, age, n)`: `age` is `now` minus the base column `last`, as microseconds.
pub fn clicks(world: &mut World) {
    let key = Field::new("k", DataType::Int64, false);
    let time = Field::new("ts", instant_type(), false);
    let n = Field::new("n", DataType::Int64, true);
    let last = Field::new("last", instant_type(), true);
    let age = Field::new("age", DataType::Int64, true);
    let schema: SchemaRef = Arc::new(Schema::new(vec![key.clone(), time.clone(), age, n.clone()]));
    let current = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Int64Array::from(vec![1])),
            times(vec![Some(999)]),
            Arc::new(Int64Array::from(vec![0])),
            Arc::new(Int64Array::from(vec![77])),
        ],
    )
    .unwrap();
    let steps = StepsTable {
        target: ScanTarget::System("steps of clicks".into()),
        schema: steps_schema([key, time, n, last]),
        time: "ts".into(),
        key: vec!["k".into()],
        continuous: vec![ContinuousColumn {
            name: "age".into(),
            ty: DataType::Int64,
            expr: cast(now(), DataType::Int64) - cast(col("last"), DataType::Int64),
        }],
    };
    // Key 1: n=1 at 10, carried at 20 (its event is still that of 10), n=2 at 30, gone at 40. Key 2: n=5 at 15.
    let rows = RecordBatch::try_new(
        steps.schema.clone(),
        vec![
            Arc::new(Int64Array::from(vec![1, 1, 1, 1, 2])),
            times(vec![Some(30), Some(10), Some(40), Some(20), Some(15)]),
            Arc::new(Int64Array::from(vec![Some(2), Some(1), None, Some(1), Some(5)])),
            times(vec![Some(30), Some(10), None, Some(10), Some(15)]),
            Arc::new(StringArray::from(vec!["upsert", "upsert", "delete", "carry", "upsert"])),
            times(vec![Some(30), Some(10), Some(30), Some(10), Some(15)]),
        ],
    )
    .unwrap();
    world.view("clicks", schema, current, steps, rows);
}

fn world() -> World {
    let mut world = World::new(4, 2);
    clicks(&mut world);
    let schema =
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", instant_type(), true)]));
    let (keys, at): (Vec<_>, Vec<_>) =
        [(1, 9), (1, 10), (1, 25), (1, 30), (1, 39), (1, 40), (2, 50), (3, 50)].into_iter().unzip();
    let at = times(at.into_iter().map(Some).collect());
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(keys)), at]).unwrap();
    world.table("spine", schema, vec![vec![batch]]);
    world
}

async fn check(sql: &str, expected: &[&str]) {
    let found = world().rows(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let found: Vec<String> = found.into_iter().map(|row| row.join(" ")).collect();
    assert_eq!(found, expected, "{sql}");
}

#[tokio::test]
async fn a_view_gives_its_value_at_the_left_time_and_its_own_columns() {
    // spine.k, spine.ts, then the view: k, ts, age, n
    let rows = [
        "1 9 NULL NULL NULL NULL",
        "1 10 1 10 0 1",
        "1 25 1 20 15 1",
        "1 30 1 30 0 2",
        "1 39 1 30 9 2",
        "1 40 NULL NULL NULL NULL",
        "2 50 2 15 35 5",
        "3 50 NULL NULL NULL NULL",
    ];
    let on = "f ON s.k = f.k AND s.ts >= f.ts ORDER BY s.k, s.ts";
    check(&format!("SELECT * FROM spine s ASOF LEFT JOIN clicks {on}"), &rows).await;
    let matched: Vec<&str> = rows.into_iter().filter(|row| !row.ends_with("NULL")).collect();
    check(&format!("SELECT * FROM spine s ASOF JOIN clicks {on}"), &matched).await;
    let matched_condition = "SELECT * FROM spine s ASOF LEFT JOIN clicks MATCH_CONDITION (s.ts >= clicks.ts) ON s.k = clicks.k ORDER BY s.k, s.ts";
    check(matched_condition, &rows).await;
}

#[tokio::test]
async fn strictly_before_reads_the_step_before_the_instant() {
    let sql = "SELECT s.ts, f.n FROM spine s ASOF JOIN clicks f ON s.k = f.k AND s.ts > f.ts ORDER BY s.ts";
    check(sql, &["25 1", "30 1", "39 2", "40 2", "50 5"]).await;
}

#[tokio::test]
async fn using_keeps_the_left_columns() {
    let sql = "SELECT * FROM spine ASOF JOIN clicks USING (k, ts) WHERE k = 1 ORDER BY ts";
    check(sql, &["1 10 0 1", "1 25 15 1", "1 30 0 2", "1 39 9 2"]).await;
}

#[tokio::test]
async fn a_tolerance_is_measured_from_the_last_event() {
    // At 25 the step is of 20, but the event behind it is of 10.
    let sql = "SELECT s.ts, f.n FROM spine s
               ASOF JOIN clicks f ON s.k = f.k AND s.ts >= f.ts AND s.ts - f.ts <= INTERVAL '9 microseconds' ORDER BY s.ts";
    check(sql, &["10 1", "30 2", "39 2"]).await;
}

#[tokio::test]
async fn elsewhere_a_view_means_its_current_rows() {
    check("SELECT n FROM clicks", &["77"]).await;
    check("SELECT f.n FROM spine s JOIN clicks f ON s.k = f.k WHERE s.ts = to_timestamp_micros(10)", &["77"]).await;
}

#[tokio::test]
async fn two_views_and_a_filter_on_the_key_in_one_query() {
    let sql = "SELECT s.ts, a.n, b.n FROM spine s
               ASOF LEFT JOIN clicks a ON s.k = a.k AND s.ts >= a.ts
               ASOF LEFT JOIN clicks b ON s.k = b.k AND s.ts > b.ts
               WHERE s.k = 1 AND s.ts <= to_timestamp_micros(30) ORDER BY s.ts";
    check(sql, &["9 NULL NULL", "10 1 NULL", "25 1 1", "30 2 1"]).await;
}
