//! The operator against a nested loop over generated tables.

use super::world::World;
use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::physical_plan::{ExecutionPlan, collect};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::any::Any;
use std::cmp::Ordering;
use std::sync::Arc;
use tidemark_engine::asof::{AsofJoinExec, Matches};

/// A row of either side; `id` and `a` have the same column place but other names.
#[derive(Debug, Clone)]
struct Row {
    k: Option<f64>,
    g: Option<i64>,
    ts: Option<i64>,
    a: Option<i64>,
    b: Option<&'static str>,
}

fn schema(first: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Float64, true),
        Field::new("g", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new(first, DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
    ]))
}

/// `cuts` deals the rows out to batches and partitions.
fn partitions(first: &str, rows: &[Row], partitions: usize, batch: usize) -> Vec<Vec<RecordBatch>> {
    let mut parts = vec![vec![]; partitions];
    for (i, rows) in rows.chunks(batch).enumerate() {
        let batch = RecordBatch::try_new(
            schema(first),
            vec![
                Arc::new(rows.iter().map(|r| r.k).collect::<Float64Array>()),
                Arc::new(rows.iter().map(|r| r.g).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|r| r.ts).collect::<TimestampMicrosecondArray>()),
                Arc::new(rows.iter().map(|r| r.a).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|r| r.b).collect::<StringArray>()),
            ],
        )
        .unwrap();
        parts[i % partitions].push(batch);
    }
    parts
}

fn row() -> impl Strategy<Value = Row> {
    let k = select(vec![None, Some(0.0), Some(-0.0), Some(1.5), Some(f64::NAN), Some(-f64::NAN)]);
    let g = prop_oneof![1 => Just(None), 4 => (0..3i64).prop_map(Some)];
    let ts = prop_oneof![1 => Just(None), 8 => (0..12i64).prop_map(Some)];
    let a = prop_oneof![1 => Just(None), 4 => (0..3i64).prop_map(Some)];
    let b = select(vec![None, Some(""), Some("x"), Some("a longer piece of text")]);
    (k, g, ts, a, b).prop_map(|(k, g, ts, a, b)| Row { k, g, ts, a, b })
}

#[derive(Debug, Clone)]
struct Join {
    left: bool,
    op: &'static str,
    keys: Vec<&'static str>,
    /// Microseconds, strict.
    tolerance: Option<(i64, bool)>,
    match_condition: bool,
}

impl Join {
    fn sql(&self, l: &str, table: &str, r: &str) -> String {
        let time = format!("{l}.ts {} {r}.ts", self.op);
        let mut on: Vec<String> = self.keys.iter().map(|k| format!("{l}.{k} = {r}.{k}")).collect();
        if let Some((span, strict)) = self.tolerance {
            let (a, b) = if self.op.starts_with('>') { (l, r) } else { (r, l) };
            let cmp = if strict { "<" } else { "<=" };
            on.push(format!("{a}.ts - {b}.ts {cmp} INTERVAL '{span} microseconds'"));
        }
        let kind = if self.left { "ASOF LEFT JOIN" } else { "ASOF JOIN" };
        if self.match_condition {
            let on = if on.is_empty() { String::new() } else { format!("ON {}", on.join(" AND ")) };
            return format!("{kind} {table} {r} MATCH_CONDITION ({time}) {on}");
        }
        on.push(time);
        format!("{kind} {table} {r} ON {}", on.join(" AND "))
    }

    fn matches(&self, l: &Row, r: &Row) -> bool {
        let keys = self.keys.iter().all(|key| match *key {
            "k" => matches!((l.k, r.k), (Some(l), Some(r)) if l == r || l.is_nan() && r.is_nan()),
            _ => l.g.is_some() && l.g == r.g,
        });
        let (Some(lt), Some(rt)) = (l.ts, r.ts) else { return false };
        keys && match self.op {
            ">=" => lt >= rt,
            ">" => lt > rt,
            "<=" => lt <= rt,
            _ => lt < rt,
        }
    }

    /// Greater is better.
    fn compare(&self, x: &Row, y: &Row) -> Ordering {
        let time = if self.op.starts_with('>') { x.ts.cmp(&y.ts) } else { y.ts.cmp(&x.ts) };
        let k = match (x.k, y.k) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            (x, y) => x.is_some().cmp(&y.is_some()),
        };
        let rest = x.g.cmp(&y.g).then(x.a.cmp(&y.a)).then(x.b.cmp(&y.b));
        if self.keys.contains(&"k") { time.then(rest).then(k) } else { time.then(k).then(rest) }
    }

    fn find<'a>(&self, l: &Row, right: &'a [Row]) -> Option<&'a Row> {
        let best = right.iter().filter(|r| self.matches(l, r)).max_by(|x, y| self.compare(x, y))?;
        let distance = (l.ts? - best.ts?).abs();
        match self.tolerance {
            Some((span, strict)) if strict && distance >= span || distance > span => None,
            _ => Some(best),
        }
    }
}

fn join() -> impl Strategy<Value = Join> {
    (
        any::<bool>(),
        select(vec![">=", ">", "<=", "<"]),
        subsequence(vec!["k", "g"], 0..=2),
        proptest::option::of((0..6i64, any::<bool>())),
        any::<bool>(),
    )
        .prop_map(|(left, op, keys, tolerance, match_condition)| Join {
            left,
            op,
            keys,
            tolerance,
            match_condition,
        })
}

type Predicate = (&'static str, fn(&Row, Option<&Row>) -> bool);

/// What `WHERE` says about the left side, the keys and the right side of the first join.
fn predicates() -> Vec<Predicate> {
    vec![
        ("true", |_, _| true),
        ("l.id % 2 = 0", |l, _| l.a.is_some_and(|a| a % 2 == 0)),
        ("l.g = 1", |l, _| l.g == Some(1)),
        ("l.g <> 1 AND l.b = 'x'", |l, _| l.g.is_some_and(|g| g != 1) && l.b == Some("x")),
        ("r.g >= 1", |_, r| r.is_some_and(|r| r.g.is_some_and(|g| g >= 1))),
        ("r.a = 1", |_, r| r.is_some_and(|r| r.a == Some(1))),
        ("r.b IS NULL", |_, r| r.is_none_or(|r| r.b.is_none())),
        ("r.ts > timestamp '1970-01-01 00:00:00.000004'", |_, r| r.is_some_and(|r| r.ts.is_some_and(|t| t > 4))),
        ("l.g + r.g > 1", |l, r| r.is_some_and(|r| l.g.zip(r.g).is_some_and(|(x, y)| x + y > 1))),
    ]
}

fn text<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or("NULL".into(), |v| v.to_string())
}

fn right_text(row: Option<&Row>) -> Vec<String> {
    let k = row.and_then(|r| r.k).map(|k| if k.is_nan() { "NaN".to_string() } else { format!("{k:?}") });
    vec![
        text(k),
        text(row.and_then(|r| r.g)),
        text(row.and_then(|r| r.ts)),
        text(row.and_then(|r| r.a)),
        text(row.and_then(|r| r.b)),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    labels: Vec<Row>,
    first: Vec<Row>,
    second: Vec<Row>,
    joins: (Join, Option<Join>),
    predicate: usize,
    limit: Option<usize>,
    partitions: usize,
    batch_size: usize,
    around: usize,
    /// Of all `ASOF JOIN`s together, bytes.
    memory: Option<usize>,
}

/// What stands where the labels are read, whether it leaves only those of even `id`, and what is around the query.
const AROUND: [(&str, bool, &str); 7] = [
    ("labels l", false, "{}"),
    ("(SELECT id, ts, b, g, k FROM labels) l", false, "{}"),
    ("(SELECT * FROM labels ORDER BY b, id) l", false, "{}"),
    ("labels l JOIN evens e ON e.id = l.id", true, "{}"),
    ("(SELECT * FROM labels WHERE id IN (SELECT id FROM evens)) l", true, "{}"),
    ("(SELECT * FROM labels UNION ALL SELECT * FROM labels WHERE false) l", false, "{}"),
    ("labels l", false, "WITH x AS ({}) SELECT * FROM x ORDER BY 1"),
];

fn case() -> impl Strategy<Value = Case> {
    (
        proptest::collection::vec(row(), 0..25),
        proptest::collection::vec(row(), 0..60),
        proptest::collection::vec(row(), 0..20),
        (join(), proptest::option::of(join())),
        0..predicates().len(),
        proptest::option::of(0..10usize),
        select(vec![1usize, 4]),
        select(vec![1usize, 3, 8192]),
        0..AROUND.len(),
        proptest::option::of(select(vec![0usize, 1_500, 6_000, 20_000])),
    )
        .prop_map(
            |(mut labels, first, second, joins, predicate, limit, partitions, batch_size, around, memory)| {
                // A left row's `a` is its identity.
                labels.iter_mut().enumerate().for_each(|(i, row)| row.a = Some(i as i64));
                Case { labels, first, second, joins, predicate, limit, partitions, batch_size, around, memory }
            },
        )
}

async fn check(case: Case) -> Result<(), TestCaseError> {
    let mut world = match case.memory {
        None => World::new(case.partitions, case.batch_size),
        Some(bytes) => World::with_asof_memory(case.partitions, case.batch_size, bytes),
    };
    let batch = case.batch_size.min(7);
    let deal = |first, rows: &[Row]| partitions(first, rows, case.partitions, batch);
    world.table("labels", schema("id"), deal("id", &case.labels));
    world.table("first", schema("a"), deal("a", &case.first));
    world.table("second", schema("a"), deal("a", &case.second));
    let id = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let evens = Int64Array::from_iter_values((0..case.labels.len() as i64).filter(|id| id % 2 == 0));
    world.table("evens", id.clone(), vec![vec![RecordBatch::try_new(id, vec![Arc::new(evens)]).unwrap()]]);
    let (one, two) = &case.joins;
    let (from, only_even, around) = AROUND[case.around];
    let (predicate, holds) = predicates()[case.predicate];
    let mut sql = format!("SELECT l.id, r.* FROM {from} {}", one.sql("l", "first", "r"));
    if let Some(two) = two {
        sql = sql.replace("r.*", "r.*, s.*") + " " + &two.sql("l", "second", "s");
    }
    sql += &format!(" WHERE {predicate} ORDER BY l.id");
    if let Some(limit) = case.limit {
        sql += &format!(" LIMIT {limit}");
    }
    let mut expected = vec![];
    for l in &case.labels {
        let first = one.find(l, &case.first);
        let second = two.as_ref().and_then(|two| two.find(l, &case.second));
        let dropped = first.is_none() && !one.left || two.as_ref().is_some_and(|t| !t.left) && second.is_none();
        if dropped || !holds(l, first) || only_even && l.a.is_some_and(|id| id % 2 != 0) {
            continue;
        }
        let mut row = vec![text(l.a)];
        row.extend(right_text(first));
        if two.is_some() {
            row.extend(right_text(second));
        }
        expected.push(row);
    }
    expected.truncate(case.limit.unwrap_or(usize::MAX));
    let whole = if two.is_none() || case.around + 1 < AROUND.len() { around.replace("{}", &sql) } else { sql.clone() };
    let found = world.rows(&whole).await.map_err(|e| TestCaseError::fail(format!("{whole}: {e}")))?;
    prop_assert_eq!(found, expected, "{}", whole);
    prop_assert!(world.is_clean().await, "{} left memory or files behind", whole);
    // Fewer columns, same rows.
    if case.limit.is_none() {
        let count =
            sql.replace(&sql[7..sql.find(" FROM").unwrap()], "count(*), count(r.b)").replace(" ORDER BY l.id", "");
        let found = world.rows(&count).await.map_err(|e| TestCaseError::fail(format!("{count}: {e}")))?;
        let all = world.rows(&sql).await.unwrap();
        let with_b = all.iter().filter(|row| row[5] != "NULL").count();
        prop_assert_eq!(&found[0], &[all.len().to_string(), with_b.to_string()], "{}", count);
    }
    // What it says of itself: every label is matched or not.
    let sql = format!("SELECT count(*) FROM labels l {}", one.sql("l", "first", "r"));
    let plan = world.physical(&sql).await.map_err(|e| TestCaseError::fail(format!("{sql}: {e}")))?;
    collect(plan.clone(), world.state.task_ctx()).await.map_err(|e| TestCaseError::fail(format!("{sql}: {e}")))?;
    let matched = case.labels.iter().filter(|l| one.find(l, &case.first).is_some()).count();
    let unmatched = case.labels.len() - matched;
    let expected = Matches { name: "first".into(), matched, unmatched, provisional: 0 };
    prop_assert_eq!(matches(&plan), Some(vec![expected]), "{}", sql);
    prop_assert!(world.is_clean().await, "{} left memory or files behind", sql);
    Ok(())
}

/// Of the `ASOF JOIN` in a plan.
fn matches(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<Matches>> {
    let own = (plan.as_ref() as &dyn Any).downcast_ref::<AsofJoinExec>().map(AsofJoinExec::matches);
    own.or_else(|| plan.children().into_iter().find_map(matches))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 3 / 2, ..ProptestConfig::default() })]

    #[test]
    fn every_join_equals_the_nested_loop(case in case()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(check(case))?;
    }
}

/// Enough right rows to compact many times, in an order that replaces winners again and again.
#[tokio::test]
async fn winners_survive_compaction() {
    for (partitions_, batch) in [(1, 100), (4, 5)] {
        let mut world = World::new(partitions_, 64);
        let row = |k: i64, ts: i64, a| Row { k: None, g: Some(k), ts: Some(ts), a: Some(a), b: Some("text") };
        let labels: Vec<Row> = (0..200).map(|i| row(i % 40, 1000 + i, i)).collect();
        let right: Vec<Row> = (0..40_000).map(|i| row(i % 50, i / 40, i)).collect();
        world.table("labels", schema("id"), partitions("id", &labels, 1, 50));
        world.table("r", schema("a"), partitions("a", &right, partitions_, batch));
        let sql = "SELECT l.id, r.a FROM labels l ASOF LEFT JOIN r ON l.g = r.g AND l.ts >= r.ts";
        let found = world.rows(sql).await.unwrap();
        let expected: Vec<Vec<String>> = labels
            .iter()
            .map(|l| {
                let best = right.iter().filter(|r| r.g == l.g && r.ts <= l.ts).max_by_key(|r| (r.ts, r.a)).unwrap();
                vec![text(l.a), text(best.a)]
            })
            .collect();
        // No ORDER BY: the left side's one partition comes out in its order.
        assert_eq!(found, expected);
    }
}
