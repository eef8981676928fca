//! Views over several sources against an obvious reference: whichever source comes first, wherever a checkpoint or a crash falls, and
//! whenever the view is made, `V(k, t)` is what its SELECT gives over all that was admitted.
//!
//! Two streams `a` and `b` and a table `items` by its key, under the event clock. The engine is whole, its parts are the embedded
//! ones; what is stopped is dropped. History is read from what was appended to it.

use crate::{engine_faults::LogsIn, test_clock::TestClock};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tempfile::TempDir;
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType, UTC};
use tidemark_connectors::{iceberg::IcebergHistory, log::LogSettings, online::FjallOnline, state::FjallState};
use tidemark_engine::{
    runtime::{Conflict, Engine, Seams},
    seam::{CommitTag, HistoryStore, HistoryTable, SeamResult},
    value::Value,
    view::Memory,
};

const A: ObjectId = ObjectId::FIRST;
const B: ObjectId = ObjectId(A.0 + 1);
const ITEMS: ObjectId = ObjectId(A.0 + 2);
const FIRST_VIEW: u32 = A.0 + 3;

const MINUTE_US: i64 = 60_000_000;
const START_US: i64 = 1_772_445_600_000_000;
/// Of every window.
const WINDOW_US: i64 = 30 * MINUTE_US;
const KEYS: i64 = 4;

/// Name, query and how many columns it has after key and time. The key is the first column.
const VIEWS: [(&str, &str, usize); 5] = [
    (
        "put_together",
        "SELECT k, at, count(*) OVER w AS n, sum(x) OVER w AS s, last_value(x) OVER w AS last FROM (SELECT k, x, at FROM a WHERE x > 0 \
         UNION ALL SELECT k, -x, at FROM b) e WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '30 minutes' PRECEDING)",
        3,
    ),
    (
        "as_of_each",
        "SELECT a.k, a.at, count(*) OVER w AS n, sum(a.x * i.price) OVER w AS s, i.grp AS last FROM a ASOF LEFT JOIN items i ON a.item = i.item \
         AND a.at >= i.at WINDOW w AS (PARTITION BY a.k ORDER BY a.at RANGE INTERVAL '30 minutes' PRECEDING)",
        3,
    ),
    (
        "by_group",
        "SELECT i.grp, a.at, count(*) OVER w AS n, sum(i.price) OVER w AS s, a.x AS last FROM a ASOF JOIN items i ON a.item = i.item AND a.at > i.at \
         WHERE i.price <> 3 WINDOW w AS (PARTITION BY i.grp ORDER BY a.at RANGE INTERVAL '30 minutes' PRECEDING)",
        3,
    ),
    (
        "beside",
        "SELECT a.k, a.at, count(*) OVER w AS n, sum(a.x) OVER w AS s, i.price AS last FROM a LEFT JOIN items i ON a.k = i.item \
         WINDOW w AS (PARTITION BY a.k ORDER BY a.at RANGE INTERVAL '30 minutes' PRECEDING)",
        3,
    ),
    (
        "beside_inner",
        "SELECT b.k, b.at, count(*) OVER w AS n, sum(b.x) OVER w AS s, i.price AS last FROM b JOIN items i ON b.k = i.item \
         WINDOW w AS (PARTITION BY b.k ORDER BY b.at RANGE INTERVAL '30 minutes' PRECEDING)",
        3,
    ),
];

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: i64) -> i64 {
        // Knuth's linear congruential generator (MMIX); its upper bits are good enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64) % n
    }
}

type Appended = Arc<Mutex<Vec<(String, RecordBatch)>>>;

/// The embedded history, and what was appended to it.
struct Kept {
    store: IcebergHistory,
    appended: Appended,
}

#[async_trait]
impl HistoryStore for Kept {
    async fn create(&self, table: &HistoryTable) -> SeamResult<()> {
        self.store.create(table).await
    }

    async fn drop(&self, name: &str) -> SeamResult<()> {
        HistoryStore::drop(&self.store, name).await
    }

    async fn retain(&self, views: &BTreeSet<ObjectId>) -> SeamResult<()> {
        self.store.retain(views).await
    }

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        self.store.rename(from, to).await
    }

    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()> {
        self.store.append(table, steps.clone(), tag).await?;
        self.appended.lock().extend(steps.into_iter().map(|steps| (table.name.clone(), steps)));
        Ok(())
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        self.store.last_tag(name).await
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        self.store.provider(table).await
    }
}

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_string(), ty, not_null: false, comment: None }
}

fn relation(id: ObjectId, name: &str, ints: [&str; 3], delay: i64) -> Object {
    let is_table = id == ITEMS;
    let mut columns: Vec<Column> = ints.into_iter().map(|name| column(name, SqlType::Int8)).collect();
    columns.push(column("at", SqlType::TimestampTz));
    let relation = Relation {
        columns,
        primary_key: if is_table { vec![0] } else { vec![] },
        upsert: is_table,
        encode: Default::default(),
        event_time: Some(3),
        delay_us: delay * MINUTE_US,
        clock: ClockMode::Event,
        max_ahead_us: 0,
        idle_timeout_us: 0,
        retention_us: None,
        dead_letter_retention_us: None,
        options: BTreeMap::new(),
        includes: vec![],
        layout: Default::default(),
        sql: String::new(),
    };
    let body = if is_table { Body::Table(relation) } else { Body::Source(relation) };
    Object { id, name: name.to_string(), created_us: 0, comment: None, place: Default::default(), body }
}

fn view(i: usize) -> Object {
    let (name, query, outputs) = VIEWS[i];
    let key = if name == "by_group" { "grp" } else { "k" };
    let mut columns = vec![column(key, SqlType::Int8), column("at", SqlType::TimestampTz)];
    columns.extend(["n", "s", "last"].into_iter().take(outputs).map(|name| column(name, SqlType::Int8)));
    let view = FeatureView {
        sql: String::new(),
        query: query.to_string(),
        relation: A,
        others: vec![B, ITEMS],
        columns,
        key: vec![0],
        time: 1,
        features: vec![],
        ttl_us: None,
        time_zone: "UTC".to_string(),
        owner: None,
        tags: vec![],
        options: BTreeMap::new(),
        version: 1,
        through: vec![],
        history_start_us: None,
    };
    let id = ObjectId(FIRST_VIEW + i as u32);
    Object {
        id,
        name: name.to_string(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::FeatureView(view),
    }
}

struct World {
    folder: TempDir,
    /// Outlives the engines: file names that are drawn from it do not come again.
    clock: Arc<dyn tidemark_engine::seam::Clock>,
    appended: Appended,
    /// How many of the views there are.
    views: usize,
    memory: u64,
}

impl World {
    async fn start(&self) -> Engine {
        let part = |name: &str| self.folder.path().join(name);
        let store = IcebergHistory::open(&part("warehouse"), self.clock.clone()).await.expect("a history store");
        let seams = Seams {
            threads: 2,
            shares: true,
            memory: Arc::new(Memory::new(self.memory)),
            steps_waiting_max: 1 << 20,
            clock: self.clock.clone(),
            logs: Arc::new(LogsIn(part("log"), LogSettings::default())),
            state: Arc::new(FjallState::open(&part("state")).expect("a state store")),
            online: Arc::new(FjallOnline::open(&part("online")).expect("an online store")),
            history: Arc::new(Kept { store, appended: self.appended.clone() }),
        };
        let relations = [
            relation(A, "a", ["k", "x", "item"], 10),
            relation(B, "b", ["k", "x", "item"], 3),
            relation(ITEMS, "items", ["item", "price", "grp"], 5),
        ];
        let catalog = Snapshot::new(1, relations.into_iter().chain((0..self.views).map(view)));
        let engine = Engine::start(seams, &catalog).await.expect("it recovers");
        for i in 0..self.views {
            let failure = engine.failure(view(i).id);
            assert!(failure.is_none(), "{}", failure.map(|f| f.error).unwrap_or_default());
        }
        engine
    }
}

/// Rows of three numbers and a minute.
async fn ingest(engine: &Engine, id: ObjectId, rows: &[([i64; 3], i64)]) {
    let schema = engine.source(id).expect("it runs").schema();
    let ints = |i: usize| Arc::new(Int64Array::from_iter_values(rows.iter().map(|(ints, _)| ints[i]))) as ArrayRef;
    let times = rows.iter().map(|(_, minute)| START_US + minute * MINUTE_US);
    let times = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone(UTC));
    let batch = RecordBatch::try_new(schema, vec![ints(0), ints(1), ints(2), times]).expect("rows");
    engine.ingest(id, vec![batch], Conflict::Replace).await.expect("rows are taken in");
}

/// Time and three numbers, in the order of the log; of the table the time from which on a row counts.
type Admitted = Vec<(i64, [i64; 3])>;

async fn admitted(engine: &Engine, id: ObjectId) -> Admitted {
    let source = engine.source(id).expect("it runs");
    let (mut from, end) = source.log().range().await.expect("a range");
    let mut rows = vec![];
    while from.get(0) < end.get(0) {
        for batch in source.log().poll(&from, 1024).await.expect("records") {
            from.set(0, batch.end_offset());
            let decision = batch.admission.clone().expect("a decision");
            let rejected: BTreeSet<u32> = decision.rejected.iter().map(|reject| reject.row).collect();
            let ints = |i: usize| batch.rows.column(i).as_primitive::<Int64Type>();
            let times = batch.rows.column(3).as_primitive::<TimestampMicrosecondType>();
            for row in (0..batch.rows.num_rows()).filter(|row| !rejected.contains(&(*row as u32))) {
                let time = decision.effective_us.get(row).copied().unwrap_or(times.value(row));
                rows.push((time, [0, 1, 2].map(|i| ints(i).value(row))));
            }
        }
    }
    rows
}

struct Reference {
    a: Admitted,
    b: Admitted,
    items: Admitted,
}

impl Reference {
    /// The table's row: price and group.
    fn item(&self, item: i64, at_us: i64, is_before: bool) -> Option<(i64, i64)> {
        let counts =
            |row: &&(i64, [i64; 3])| row.1[0] == item && if is_before { row.0 < at_us } else { row.0 <= at_us };
        // A later one of the same time is later in the log.
        self.items.iter().filter(counts).max_by_key(|row| row.0).map(|row| (row.1[1], row.1[2]))
    }

    /// The events of a key: time, what is summed up, and what the latest shows; in their order.
    fn events(&self, view: &str, key: i64) -> Vec<(i64, Option<i64>, Option<i64>)> {
        let of_key = |rows: &Admitted| rows.iter().filter(|row| row.1[0] == key).copied().collect::<Admitted>();
        let mut events = vec![];
        match view {
            "put_together" => {
                events.extend(
                    of_key(&self.a).into_iter().filter(|e| e.1[1] > 0).map(|e| (e.0, Some(e.1[1]), Some(e.1[1]))),
                );
                events.extend(of_key(&self.b).into_iter().map(|e| (e.0, Some(-e.1[1]), Some(-e.1[1]))));
            }
            "as_of_each" => events.extend(of_key(&self.a).into_iter().map(|(at, [_, x, item])| {
                let item = self.item(item, at, false);
                (at, item.map(|(price, _)| x * price), item.map(|(_, grp)| grp))
            })),
            "by_group" => events.extend(self.a.iter().filter_map(|(at, [_, x, item])| {
                let (price, grp) = self.item(*item, *at, true)?;
                (grp == key && price != 3).then_some((*at, Some(price), Some(*x)))
            })),
            "beside" => events.extend(of_key(&self.a).into_iter().map(|(at, [_, x, _])| (at, Some(x), None))),
            _ => events.extend(of_key(&self.b).into_iter().map(|(at, [_, x, _])| (at, Some(x), None))),
        }
        // Stable: of one time those of the first branch, then in the order of the log.
        events.sort_by_key(|event| event.0);
        events
    }

    /// `n`, `s` and `last` of V(key, t), by definition.
    fn value(&self, view: &str, key: i64, t_us: i64) -> Option<[Option<i64>; 3]> {
        let events: Vec<_> = self.events(view, key).into_iter().filter(|event| event.0 <= t_us).collect();
        let mut last = events.last()?.2;
        if view.starts_with("beside") {
            let item = self.item(key, t_us, false);
            if view == "beside_inner" {
                item?;
            }
            last = item.map(|(price, _)| price);
        }
        let frame: Vec<_> = events.iter().filter(|event| event.0 >= t_us - WINDOW_US).collect();
        let summed: Vec<i64> = frame.iter().filter_map(|event| event.1).collect();
        // last_value is over the frame, a raw column of the latest event.
        if view == "put_together" {
            last = frame.last().and_then(|event| event.2);
        }
        Some([Some(frame.len() as i64), (!summed.is_empty()).then(|| summed.iter().sum()), last])
    }
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        _ => None,
    }
}

/// All readers of all views at all instants at which something may change.
async fn check(engine: &Engine, world: &World, seed: u64) {
    let reference =
        Reference { a: admitted(engine, A).await, b: admitted(engine, B).await, items: admitted(engine, ITEMS).await };
    let times = [&reference.a, &reference.b, &reference.items].into_iter().flatten().map(|row| row.0);
    let near = |us: i64| [us - 1, us, us + WINDOW_US, us + WINDOW_US + 1];
    let instants: BTreeSet<i64> = times.flat_map(near).collect();
    for (i, (name, ..)) in VIEWS.iter().copied().enumerate().take(world.views) {
        let object = view(i);
        let view = engine.view(object.id).expect("it runs");
        let now_us = view.now_us(0);
        let (committed_us, above) = view.state.steps_above_history(now_us, None).expect("steps");
        let mut steps: BTreeMap<(i64, i64), Option<[Option<i64>; 3]>> = BTreeMap::new();
        let mut add = |key: &[Value], at_us: i64, value: Option<[Option<i64>; 3]>| {
            let twice = steps.insert((int(&key[0]).expect("a key"), at_us), value);
            assert!(twice.is_none(), "seed {seed}, {name}: key {key:?} has two steps at {at_us}");
        };
        let value = |outputs: &[Value]| Some([int(&outputs[0]), int(&outputs[1]), int(&outputs[2])]);
        let appended = world.appended.lock();
        for (_, batch) in appended.iter().filter(|(of, _)| of == name) {
            for (row, is_delete) in view.state.compiled.rows_of(batch).expect("rows") {
                assert!(row.instant_us < committed_us, "seed {seed}, {name}: a step of history is above its frontier");
                add(&row.key, row.instant_us, if is_delete { None } else { value(&row.outputs) });
            }
        }
        for step in above.iter().filter(|step| step.instant_us >= committed_us) {
            let is_delete = step.op == tidemark_engine::view::Op::Delete;
            add(step.key, step.instant_us, if is_delete { None } else { value(&step.outputs.to_values()) });
        }
        for key in 0..KEYS {
            for t_us in instants.iter().copied().filter(|t| *t <= now_us) {
                let found = steps.range((key, i64::MIN)..=(key, t_us)).next_back().and_then(|(_, value)| *value);
                let expected = reference.value(name, key, t_us);
                let minute = (t_us - START_US) as f64 / MINUTE_US as f64;
                assert_eq!(found, expected, "seed {seed}, {name}: key {key} at minute {minute}");
            }
            let encoded = tidemark_engine::value::encode_row(&[Value::Int(key)]);
            let found = view.state.lookup(&encoded, now_us).expect("a lookup").and_then(|row| value(&row.outputs));
            assert_eq!(found, reference.value(name, key, now_us), "seed {seed}, {name}: lookup of key {key}");
        }
    }
}

async fn run(seed: u64) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World {
        folder: tempfile::tempdir().expect("a directory"),
        clock: TestClock::seeded(seed),
        appended: Appended::default(),
        views: chance.below(VIEWS.len() as i64 + 1) as usize,
        memory: if chance.below(3) == 0 { 2048 } else { 1 << 30 },
    };
    let mut engine = world.start().await;
    let mut minute = 0;
    for _ in 0..chance.below(30) + 10 {
        minute += chance.below(8);
        match chance.below(20) {
            0..=10 => {
                let id = if chance.below(3) == 0 { B } else { A };
                let rows: Vec<_> = (0..chance.below(4) + 1)
                    .map(|_| {
                        let at = minute - chance.below(14) + chance.below(4);
                        ([chance.below(KEYS), chance.below(9) - 2, chance.below(KEYS)], at)
                    })
                    .collect();
                ingest(&engine, id, &rows).await;
            }
            11..=14 => {
                let rows: Vec<_> = (0..chance.below(3) + 1)
                    .map(|_| ([chance.below(KEYS), chance.below(5), chance.below(KEYS)], minute - chance.below(12)))
                    .collect();
                ingest(&engine, ITEMS, &rows).await;
            }
            15 => {
                let id = [A, B, ITEMS][chance.below(3) as usize];
                let to_us = START_US + (minute - 3) * MINUTE_US;
                engine.advance_watermark(id, to_us).await.expect("a watermark");
            }
            16 => engine.checkpoint().await.expect("a checkpoint"),
            17 => engine.commit_history().await.expect("a commit"),
            18 => {
                engine.flush_online().await.expect("values");
            }
            _ => {
                drop(engine);
                world.views = (world.views + chance.below(3) as usize).min(VIEWS.len());
                engine = world.start().await;
            }
        }
    }
    check(&engine, &world, seed).await;
    for id in [A, B, ITEMS] {
        engine.advance_watermark(id, START_US + (minute + 100) * MINUTE_US).await.expect("a watermark");
    }
    engine.checkpoint().await.expect("a checkpoint");
    check(&engine, &world, seed).await;
    drop(engine);
    world.views = VIEWS.len();
    check(&world.start().await, &world, seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_first_a_view_over_several_sources_is_what_its_select_says() {
    let seeds = if std::env::var_os("TIDEMARK_TEST_LONG").is_some() { 1000 } else { 40 };
    for seed in 0..seeds {
        run(seed).await;
    }
}
