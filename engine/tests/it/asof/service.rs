//! `ASOF JOIN` to a feature service against a nested loop over its members' steps.

use super::world::World;
use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_planner::table::{ScanTarget, StepsTable, instant_type, steps_schema};

/// A view `(k, ts, n)`: what it is from an instant on; `None` is a delete.
type Steps = BTreeMap<(i64, i64), Option<i64>>;

fn times(values: impl Iterator<Item = i64>) -> Arc<TimestampMicrosecondArray> {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("+00:00"))
}

fn add(world: &mut World, name: &str, steps: &Steps) {
    let fields = [
        Field::new("k", DataType::Int64, false),
        Field::new("ts", instant_type(), false),
        Field::new("n", DataType::Int64, true),
    ];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let table = StepsTable {
        target: ScanTarget::System(format!("steps of {name}")),
        schema: steps_schema(fields),
        time: "ts".into(),
        key: vec!["k".into()],
        continuous: vec![],
    };
    let at = || steps.keys().map(|(_, ts)| *ts);
    let rows = RecordBatch::try_new(
        table.schema.clone(),
        vec![
            Arc::new(Int64Array::from_iter_values(steps.keys().map(|(k, _)| *k))),
            times(at()),
            Arc::new(steps.values().copied().collect::<Int64Array>()),
            Arc::new(StringArray::from_iter_values(
                steps.values().map(|n| if n.is_some() { "upsert" } else { "delete" }),
            )),
            times(at()),
        ],
    )
    .unwrap();
    // Nobody may read the current rows: there are none.
    world.view(name, schema.clone(), RecordBatch::new_empty(schema), table, rows);
}

/// `V(k, at)`, or just before.
fn value(steps: &Steps, k: i64, at: i64, strict: bool) -> Option<i64> {
    let end = if strict { at } else { at + 1 };
    steps.range((k, i64::MIN)..(k, end)).next_back().and_then(|(_, n)| *n)
}

type Answer = Option<Vec<Option<i64>>>;

/// Of `a`, `b` and `c` at the label's `k`, then `b` at its `j`.
type Shows = fn(Option<i64>, Option<i64>, Option<i64>, Option<i64>) -> Answer;

/// A service of `a`, `b` and `c`, each keyed by `k`, and what it shows for what they are (`j`: the label's second key).
struct Shape {
    sql: &'static str,
    on: &'static str,
    /// The columns to show.
    columns: &'static str,
    shows: Shows,
}

const SHAPES: &[Shape] = &[
    Shape {
        sql: "SELECT k AS key, ts, n + 1 AS more, 5 AS five FROM a",
        on: "l.k = s.key",
        columns: "s.more, s.five",
        shows: |a, _, _, _| Some(vec![Some(a? + 1), Some(5)]),
    },
    Shape {
        sql: "SELECT a.k, b.ts, a.n AS x, b.n AS y, a.n + b.n AS z FROM a JOIN b ON a.k = b.k",
        on: "l.k = s.k",
        columns: "s.x, s.y, s.z",
        shows: |a, b, _, _| Some(vec![Some(a?), Some(b?), Some(a? + b?)]),
    },
    Shape {
        sql: "SELECT a.k, a.ts, a.n AS x, b.n AS y, coalesce(b.n, -1) AS z FROM a LEFT JOIN b ON b.k = a.k",
        on: "l.k = s.k",
        columns: "s.x, s.y, s.z",
        shows: |a, b, _, _| Some(vec![Some(a?), b, b.or(Some(-1))]),
    },
    Shape {
        // A condition on the key of the optional side needs it.
        sql: "SELECT b.k, a.ts, a.n AS x FROM a LEFT JOIN b ON b.k = a.k",
        on: "l.k = s.k",
        columns: "s.x",
        shows: |a, b, _, _| b.and(Some(vec![Some(a?)])),
    },
    Shape {
        sql: "SELECT a.k, greatest(a.ts, c.ts) AS ts, b.n AS x, c.n AS y FROM b RIGHT JOIN a USING (k), c WHERE c.k = a.k",
        on: "l.k = s.k",
        columns: "s.x, s.y",
        shows: |a, b, c, _| a.and(Some(vec![b, Some(c?)])),
    },
    Shape {
        // What the optional side computes is NULL with it.
        sql: "SELECT a.k, a.ts, a.n AS x, o.y, o.one, o.z, coalesce(o.one, 0) AS has FROM a LEFT JOIN
              (SELECT b.k, b.n AS y, 1 AS one, coalesce(c.n, -1) AS z FROM b LEFT JOIN c USING (k)) o ON o.k = a.k",
        on: "l.k = s.k",
        columns: "s.x, s.y, s.one, s.z, s.has",
        shows: |a, b, c, _| Some(vec![Some(a?), b, b.map(|_| 1), b.map(|_| c.unwrap_or(-1)), Some(b.map_or(0, |_| 1))]),
    },
    Shape {
        sql: "SELECT a.k, a.ts, o.y, o.z FROM a LEFT JOIN (SELECT b.k, b.n AS y, c.n AS z FROM b JOIN c ON b.k = c.k) o ON o.k = a.k",
        on: "l.k = s.k",
        columns: "s.y, s.z",
        shows: |a, b, c, _| a.and(Some(vec![c.and(b), b.and(c)])),
    },
    Shape {
        // The second LEFT JOIN is with the first one's side: without it there is nothing to be equal to.
        sql: "SELECT a.k, a.ts, b.n AS y, c.n AS z FROM a LEFT JOIN b ON a.k = b.k LEFT JOIN c ON b.k = c.k",
        on: "l.k = s.k",
        columns: "s.y, s.z",
        shows: |a, b, c, _| a.and(Some(vec![b, b.and(c)])),
    },
    Shape {
        sql: "SELECT a.k, b.k AS j, a.ts, a.n * 100 + b.n AS x FROM a CROSS JOIN b",
        on: "l.k = s.k AND s.j = l.j",
        columns: "s.x",
        shows: |a, _, _, j| Some(vec![Some(a? * 100 + j?)]),
    },
];

#[derive(Debug, Clone)]
struct Case {
    shape: usize,
    views: Vec<Steps>,
    labels: Vec<(i64, i64, i64)>,
    left: bool,
    strict: bool,
    match_condition: bool,
    nested: bool,
}

fn steps() -> impl Strategy<Value = Steps> {
    let n = prop_oneof![1 => Just(None), 3 => (1..9i64).prop_map(Some)];
    proptest::collection::btree_map((0..3i64, 0..10i64), n, 0..10)
}

fn case() -> impl Strategy<Value = Case> {
    (
        0..SHAPES.len(),
        proptest::collection::vec(steps(), 3),
        proptest::collection::vec((0..4i64, 0..4i64, -1..11i64), 0..12),
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(|(shape, views, labels, (left, strict, match_condition, nested))| Case {
            shape,
            views,
            labels,
            left,
            strict,
            match_condition,
            nested,
        })
}

async fn check(case: Case) -> Result<(), TestCaseError> {
    let mut world = World::new(2, 3);
    for (name, steps) in ["a", "b", "c"].iter().zip(&case.views) {
        add(&mut world, name, steps);
    }
    let int = |name| Field::new(name, DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![int("id"), int("k"), int("j"), Field::new("ts", instant_type(), true)]));
    let ints = |values: Vec<i64>| Arc::new(Int64Array::from(values));
    let labels = RecordBatch::try_new(
        schema.clone(),
        vec![
            ints((0..case.labels.len() as i64).collect()),
            ints(case.labels.iter().map(|l| l.0).collect()),
            ints(case.labels.iter().map(|l| l.1).collect()),
            times(case.labels.iter().map(|l| l.2)),
        ],
    )
    .unwrap();
    world.table("l", schema, vec![vec![labels]]);
    let shape = &SHAPES[case.shape];
    let service = if case.nested { format!("SELECT * FROM ({}) inside", shape.sql) } else { shape.sql.into() };
    let kind = if case.left { "ASOF LEFT JOIN" } else { "ASOF JOIN" };
    let time = if case.strict { "l.ts > s.ts" } else { "l.ts >= s.ts" };
    let on = match case.match_condition {
        true => format!("MATCH_CONDITION ({time}) ON {}", shape.on),
        false => format!("ON {} AND {time}", shape.on),
    };
    let sql = format!("SELECT l.id, {} FROM l {kind} ({service}) s {on} ORDER BY l.id", shape.columns);
    let width = shape.columns.split(',').count();
    let mut expected = vec![];
    for (id, (k, j, at)) in case.labels.iter().enumerate() {
        let at = |view: usize, key: &i64| value(&case.views[view], *key, *at, case.strict);
        let shown = (shape.shows)(at(0, k), at(1, k), at(2, k), at(1, j));
        if shown.is_none() && !case.left {
            continue;
        }
        let text = |n: Option<i64>| n.map_or("NULL".to_string(), |n| n.to_string());
        let shown = shown.unwrap_or_else(|| vec![None; width]);
        expected.push([id.to_string()].into_iter().chain(shown.into_iter().map(text)).collect::<Vec<_>>());
    }
    let found = world.rows(&sql).await.map_err(|e| TestCaseError::fail(format!("{sql}: {e}")))?;
    prop_assert_eq!(found, expected, "{}", sql);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_member_is_taken_as_of_the_label(case in case()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(check(case))?;
    }
}

/// Every shape, so that none is missed by chance.
#[tokio::test]
async fn every_shape_is_a_service() {
    for shape in 0..SHAPES.len() {
        let step = |n| Steps::from([((1, 5), Some(n))]);
        let case = Case {
            shape,
            views: vec![step(1), step(2), step(3)],
            labels: vec![(1, 1, 4), (1, 1, 5), (1, 1, 6), (2, 1, 6)],
            left: true,
            strict: false,
            match_condition: false,
            nested: false,
        };
        check(case).await.unwrap();
    }
}
