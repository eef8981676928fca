//! Feature views over a changelog table against the obvious way: the table's rows as of `t`, and the plain aggregate over
//! them. Upserts, moves from key to key, deletes, rows that WHERE does not let through; with room for all keys or for none, so
//! that they go out and come back all the time; long enough that what is over is forgotten.

use crate::store::Store;
use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::SchemaRef,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType, UTC};
use tidemark_engine::{
    compiled::{BatchRows, CompiledView},
    current::CurrentRows,
    seam::{AdmittedBatch, SourceBatch},
    value::{Value, encode_row},
    view::{Cold, Memory, Op, ViewState},
};
use tidemark_planner::{Statement, feature::plan_feature_view, parse::parse};

const VIEW: &str = "CREATE FEATURE VIEW v AS SELECT grp, at,
    count(*) OVER (PARTITION BY grp ORDER BY at) AS n,
    sum(x) OVER (PARTITION BY grp ORDER BY at) AS total,
    max(x) OVER (PARTITION BY grp ORDER BY at RANGE INTERVAL '20 microseconds' PRECEDING) AS largest,
    max_by(id, x) OVER (PARTITION BY grp ORDER BY at) AS largest_id,
    min_by(id, x) OVER (PARTITION BY grp ORDER BY at ROWS 2 PRECEDING) AS least_of_three,
    sum(x) OVER (PARTITION BY grp ORDER BY at ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS before,
    count(*) OVER (PARTITION BY grp ORDER BY at RANGE BETWEEN INTERVAL '25 microseconds' PRECEDING AND INTERVAL '5 microseconds' PRECEDING) AS older,
    first_value(id) OVER (PARTITION BY grp ORDER BY at) AS first,
    last_value(id) OVER (PARTITION BY grp ORDER BY at RANGE INTERVAL '20 microseconds' PRECEDING) AS last,
    increase(x) OVER (PARTITION BY grp ORDER BY at ROWS 3 PRECEDING) AS up,
    id + 0 AS raw
    FROM t WHERE x <> 7";

/// With a TTL only windows whose rows go by themselves are allowed.
const VIEW_WITH_TTL: &str = "CREATE FEATURE VIEW v WITH (ttl = '40 microseconds') AS SELECT grp, at,
    max(x) OVER (PARTITION BY grp ORDER BY at RANGE INTERVAL '20 microseconds' PRECEDING) AS largest,
    count(*) OVER (PARTITION BY grp ORDER BY at RANGE BETWEEN INTERVAL '25 microseconds' PRECEDING AND INTERVAL '5 microseconds' PRECEDING) AS older,
    last_value(id) OVER (PARTITION BY grp ORDER BY at RANGE INTERVAL '20 microseconds' PRECEDING) AS last,
    id + 0 AS raw
    FROM t WHERE x <> 7";
const TTL_US: i64 = 40;

/// Which of them, and which of what `aggregates` computes it has.
struct Kind {
    view: &'static str,
    ttl_us: Option<i64>,
    columns: &'static [usize],
}

static KINDS: [Kind; 2] = [
    Kind { view: VIEW, ttl_us: None, columns: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] },
    Kind { view: VIEW_WITH_TTL, ttl_us: Some(TTL_US), columns: &[2, 6, 8, 10] },
];

/// A version of row `id`; without a group it is a delete.
#[derive(Debug, Clone, Copy)]
struct Change {
    id: i64,
    grp: Option<i64>,
    x: i64,
    at_us: i64,
}

/// What the table has: version, offset.
type Table<'a> = BTreeMap<i64, (&'a Change, usize)>;

/// `V(grp, t)` for every group, from the table's rows as of `t`.
fn expected(kind: &Kind, changes: &[Change], at_us: i64) -> BTreeMap<i64, Vec<Option<i64>>> {
    let mut table = Table::new();
    for (offset, change) in changes.iter().enumerate().filter(|(_, change)| change.at_us <= at_us) {
        match change.grp {
            Some(_) => table.insert(change.id, (change, offset)),
            None => table.remove(&change.id),
        };
    }
    let mut groups: BTreeMap<i64, Vec<(&Change, usize)>> = BTreeMap::new();
    for (change, offset) in table.into_values().filter(|(change, _)| change.x != 7) {
        groups.entry(change.grp.unwrap_or_default()).or_default().push((change, offset));
    }
    let is_young = |change: &Change| kind.ttl_us.is_none_or(|ttl| at_us <= change.at_us + ttl);
    groups.retain(|_, rows| rows.iter().any(|(change, _)| is_young(change)));
    let of_kind = |all: &[Option<i64>]| -> Vec<_> { kind.columns.iter().map(|column| all[*column]).collect() };
    groups.into_iter().map(|(grp, rows)| (grp, of_kind(&aggregates(rows, at_us)))).collect()
}

fn aggregates(mut rows: Vec<(&Change, usize)>, at_us: i64) -> Vec<Option<i64>> {
    rows.sort_by_key(|(change, offset)| (change.at_us, *offset));
    let rows: Vec<&Change> = rows.into_iter().map(|(change, _)| change).collect();
    let within = |start: i64, end: i64| -> Vec<&Change> {
        rows.iter().copied().filter(|r| r.at_us >= at_us - start && r.at_us <= at_us - end).collect()
    };
    let sum = |rows: &[&Change]| (!rows.is_empty()).then(|| rows.iter().map(|r| r.x).sum());
    // The latest of equal ones.
    let extreme =
        |rows: &[&Change], sign: i64| rows.iter().enumerate().max_by_key(|(i, r)| (sign * r.x, *i)).map(|(_, r)| r.id);
    let last_three = &rows[rows.len().saturating_sub(3)..];
    let before = &rows[rows.len().saturating_sub(4)..rows.len() - 1];
    let last_four = &rows[rows.len().saturating_sub(4)..];
    let ups = last_four.windows(2).map(|pair| pair[1].x - if pair[1].x < pair[0].x { 0 } else { pair[0].x });
    let up = (last_four.len() > 1).then(|| ups.sum());
    let recent = within(20, 0);
    vec![
        Some(rows.len() as i64),
        sum(&rows),
        recent.iter().map(|r| r.x).max(),
        extreme(&rows, 1),
        extreme(last_three, -1),
        sum(before),
        Some(within(25, 5).len() as i64),
        rows.first().map(|r| r.id),
        recent.last().map(|r| r.id),
        up,
        rows.last().map(|r| r.id),
    ]
}

fn table() -> Object {
    let column = |name: &str, ty| Column { name: name.to_owned(), ty, not_null: false, comment: None };
    let relation = Relation {
        columns: vec![
            column("id", SqlType::Int8),
            column("grp", SqlType::Int8),
            column("x", SqlType::Int8),
            column("at", SqlType::TimestampTz),
        ],
        primary_key: vec![0],
        upsert: true,
        encode: Default::default(),
        event_time: Some(3),
        delay_us: 0,
        clock: ClockMode::Event,
        max_ahead_us: 0,
        idle_timeout_us: 0,
        retention_us: None,
        dead_letter_retention_us: None,
        includes: vec![],
        layout: Default::default(),
        options: BTreeMap::new(),
        sql: String::new(),
    };
    Object {
        id: ObjectId::FIRST,
        name: "t".to_owned(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::Table(relation),
    }
}

fn compiled(view: &str, table: &Object) -> CompiledView {
    let snapshot = Snapshot::new(1, [table.clone()]);
    let Some(Statement::CreateFeatureView(create)) = parse(view).expect("it parses").pop().map(|p| p.statement) else {
        panic!("not a feature view")
    };
    let plan = plan_feature_view("v", &create.query, &create.options, &snapshot, "UTC").expect("it is maintained");
    let columns = plan.outputs.iter().map(|output| Column {
        name: output.name.clone(),
        ty: SqlType::from_arrow(&output.ty).expect("a type that is stored"),
        not_null: false,
        comment: None,
    });
    let body = FeatureView {
        sql: String::new(),
        query: String::new(),
        relation: plan.relations()[0],
        others: plan.relations()[1..].to_vec(),
        columns: columns.collect(),
        key: plan.key_outputs(),
        time: plan.time_output(),
        features: vec![],
        ttl_us: plan.ttl_us,
        time_zone: "UTC".to_owned(),
        owner: None,
        tags: vec![],
        options: BTreeMap::new(),
        version: 1,
        through: vec![],
        history_start_us: None,
    };
    let id = ObjectId(ObjectId::FIRST.0 + 1);
    let object = Object {
        id,
        name: "v".to_owned(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::FeatureView(body),
    };
    CompiledView::new(&object, plan).expect("it compiles")
}

fn batch(schema: &SchemaRef, changes: &[Change]) -> RecordBatch {
    let ints =
        |of: &dyn Fn(&Change) -> Option<i64>| -> ArrayRef { Arc::new(changes.iter().map(of).collect::<Int64Array>()) };
    let times = TimestampMicrosecondArray::from_iter_values(changes.iter().map(|c| c.at_us)).with_timezone(UTC);
    let columns = vec![ints(&|c| Some(c.id)), ints(&|c| c.grp), ints(&|c| Some(c.x)), Arc::new(times)];
    RecordBatch::try_new(schema.clone(), columns).expect("columns of the table")
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        _ => None,
    }
}

/// The changes in batches of which each may bring the frontier, `lag_us` behind the changes.
fn check(
    kind: &Kind,
    changes: &[Change],
    sizes: &[(usize, bool)],
    lag_us: i64,
    is_cold: bool,
) -> Result<(), TestCaseError> {
    let object = table();
    let compiled = Arc::new(compiled(kind.view, &object));
    let id = ObjectId(ObjectId::FIRST.0 + 1);
    let cold = is_cold.then(|| Cold::new(id, Arc::new(Store::default()), Arc::new(Memory::new(1))));
    let state = ViewState::new(id, compiled, i64::MIN, 2, cold, vec![]);
    let mut current = CurrentRows::new(&[0]);
    let mut steps: BTreeMap<(i64, i64), Option<Vec<Option<i64>>>> = BTreeMap::new();
    let (mut done, mut size) = (0, 0);
    while done < changes.len() {
        let (rows, finish) = sizes[size % sizes.len()];
        size += 1;
        let part = &changes[done..(done + rows).min(changes.len())];
        let decision = AdmittedBatch {
            effective_us: part.iter().map(|c| c.at_us).collect(),
            deletes: (0..part.len() as u32).filter(|i| part[*i as usize].grp.is_none()).collect(),
            ..AdmittedBatch::default()
        };
        let stored = SourceBatch {
            partition: 0,
            base_offset: done as u64,
            append_time_us: 0,
            rows: batch(&object.schema(), part),
            admission: None,
        };
        let replaced = current.take(&stored, &decision, true).expect("rows of the table");
        let failures = state.apply(&BatchRows {
            branch: 0,
            from: None,
            rows: &stored.rows,
            base_offset: stored.base_offset,
            times_us: &decision.effective_us,
            rejected: &[],
            deletes: &decision.deletes,
            replaced: Some(&replaced),
        });
        prop_assert!(failures.expect("it applies").is_empty());
        done += part.len();
        let now_us = changes[done - 1].at_us;
        let answers = expected(kind, &changes[..done], now_us);
        for grp in 0..4 {
            let row = state.lookup(&encode_row(&[Value::Int(grp)]), now_us).expect("a lookup");
            let got = row.map(|row| row.outputs.iter().map(int).collect::<Vec<_>>());
            prop_assert_eq!(got.as_ref(), answers.get(&grp), "group {} at {} of {:?}", grp, now_us, &changes[..done]);
        }
        if finish {
            state.finish(now_us - lag_us, usize::MAX).expect("it finishes");
        }
    }
    let end_us = changes[done - 1].at_us + 100;
    state.finish(end_us, usize::MAX).expect("it finishes");
    take_steps(&state, &mut steps);
    for at_us in changes[0].at_us - 1..end_us {
        let answers = expected(kind, changes, at_us);
        for grp in 0..4 {
            let held = steps.range((grp, i64::MIN)..=(grp, at_us)).next_back().and_then(|(_, step)| step.as_ref());
            prop_assert_eq!(held, answers.get(&grp), "group {} in history at {} of {:?}", grp, at_us, changes);
        }
    }
    // What is over does not stay: some 70 bytes for each of at most 12 rows, and the keys' own.
    let (_, bytes) = state.in_memory();
    prop_assert!(bytes < 24_576, "{} bytes are kept", bytes);
    Ok(())
}

fn take_steps(state: &ViewState, steps: &mut BTreeMap<(i64, i64), Option<Vec<Option<i64>>>>) {
    let pending = state.pending();
    for step in pending.chunks.iter().flat_map(|chunk| chunk.iter()) {
        let outputs = (step.op != Op::Delete).then(|| step.outputs.to_values().iter().map(int).collect());
        steps.insert((int(&step.key[0]).unwrap_or_default(), step.instant_us), outputs);
    }
    state.committed(pending.chunks.len(), state.frontier_us());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_view_over_a_table_is_the_aggregate_over_its_rows(
        changes in prop::collection::vec((0i64..12, prop::option::weighted(0.85, 0i64..4), -9i64..10, 0i64..12), 1..400),
        sizes in prop::collection::vec((1usize..30, any::<bool>()), 1..6),
        lag_us in 0i64..30,
        is_cold in any::<bool>(),
        kind in 0..KINDS.len(),
    ) {
        let mut at_us = 1_767_225_600_000_000;
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|(id, grp, x, gap)| {
                // Half of all changes come at the time of the one before.
                at_us += (gap - 6).max(0);
                Change { id, grp, x, at_us }
            })
            .collect();
        check(&KINDS[kind], &changes, &sizes, lag_us, is_cold)?;
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(80)
}
