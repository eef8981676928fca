//! Keys that leave memory and come back, checkpoints beside the work, and starts after a crash: none of it may show.
//!
//! Two views take the same events. One has all its keys in memory for ever; the other has room for hardly any, a store that
//! fails now and then, and dies at random moments. Both must say the same at every reading.

use crate::store::{Fault, Store};
use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType, UTC};
use tidemark_engine::{
    compiled::{BatchRows, CompiledView},
    seam::{Keyspace, StateStore},
    value::{Value, encode_row},
    view::{AllLooked, Cold, Encoded, Frozen, Looked, Memory, Shown, ViewState},
};
use tidemark_planner::{Statement, feature::plan_feature_view, parse::parse};

const VIEW: ObjectId = ObjectId(ObjectId::FIRST.0 + 1);
const KEYS: i64 = 24;
const SECOND: i64 = 1_000_000;

const VIEWS: [&str; 4] = [
    "SELECT k, count(*) OVER w AS n, sum(x) OVER w AS total, max(x) OVER w AS top, ts FROM s \
     WINDOW w AS (PARTITION BY k ORDER BY ts RANGE INTERVAL '20 seconds' PRECEDING)",
    "SELECT k, x, avg(x) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '30 seconds' PRECEDING AND INTERVAL '5 seconds' \
     PRECEDING) AS mean, count(*) OVER (PARTITION BY k ORDER BY ts ROWS 3 PRECEDING) AS few, ts FROM s",
    "SELECT k, count(*) AS n, min(x) AS least, last_value(x) AS latest FROM s GROUP BY k",
    "SELECT k, sum(x) AS total FROM s GROUP BY k, TUMBLE(ts, INTERVAL '10 seconds')",
];

/// The last ones with a TTL: their keys end.
const TTLS: [Option<&str>; 3] = [None, Some("45 seconds"), Some("2 minutes")];

#[derive(Debug, Clone)]
enum Op {
    /// Events: key, seconds after the frontier in tenths, value.
    Apply(Vec<(i64, i64, f64)>),
    /// The frontier moves on.
    Finish(i64),
    Lookup(i64, i64),
    All(i64),
    Flush(i64),
    /// With work going on beside it, and how the store takes it.
    Checkpoint(Vec<(i64, i64, f64)>, i64, Fault),
    /// What was spilled may survive it.
    Crash(bool),
}

fn events() -> impl Strategy<Value = Vec<(i64, i64, f64)>> {
    prop::collection::vec((0..KEYS, 0i64..300, (-8i32..8).prop_map(f64::from)), 1..30)
}

fn op() -> impl Strategy<Value = Op> {
    let fault = prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::NotDone),
        1 => Just(Fault::UnknownDone),
        1 => Just(Fault::UnknownNotDone),
    ];
    prop_oneof![
        6 => events().prop_map(Op::Apply),
        4 => (1i64..400).prop_map(Op::Finish),
        3 => (0..KEYS, 0i64..600).prop_map(|(key, at)| Op::Lookup(key, at)),
        1 => (0i64..600).prop_map(Op::All),
        2 => (0i64..100).prop_map(Op::Flush),
        3 => (events(), 0i64..200, fault).prop_map(|(events, moved, fault)| Op::Checkpoint(events, moved, fault)),
        1 => any::<bool>().prop_map(Op::Crash),
    ]
}

fn compiled(query: &str, ttl: Option<&str>) -> Arc<CompiledView> {
    let column = |name: &str, ty| Column { name: name.to_string(), ty, not_null: false, comment: None };
    let relation = Relation {
        columns: vec![column("k", SqlType::Int8), column("x", SqlType::Float8), column("ts", SqlType::TimestampTz)],
        primary_key: vec![],
        upsert: false,
        encode: Default::default(),
        event_time: Some(2),
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
    let object = |id, name: &str, body| Object {
        id,
        name: name.to_string(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body,
    };
    let snapshot = Snapshot::new(1, [object(ObjectId::FIRST, "s", Body::Source(relation))]);
    let options = ttl.map_or(String::new(), |ttl| format!("WITH (ttl = '{ttl}') "));
    let mut parsed = parse(&format!("CREATE FEATURE VIEW v {options}AS {query}")).expect("a statement");
    let Some(Statement::CreateFeatureView(create)) = parsed.pop().map(|parsed| parsed.statement) else {
        panic!("no feature view: {query}")
    };
    let plan = plan_feature_view("v", &create.query, &create.options, &snapshot, "UTC").expect(query);
    let columns = plan.outputs.iter().map(|output| {
        let ty = SqlType::from_arrow(&output.ty).expect("a type with a name");
        column(&output.name, ty)
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
        time_zone: "UTC".to_string(),
        owner: None,
        tags: vec![],
        options: BTreeMap::new(),
        version: 1,
        through: vec![],
        history_start_us: None,
    };
    Arc::new(CompiledView::new(&object(VIEW, "v", Body::FeatureView(body)), plan).expect("compiled"))
}

/// What happened to the source, for a replay.
#[derive(Debug, Clone)]
enum Logged {
    Batch { base_offset: u64, rows: RecordBatch, times_us: Vec<i64> },
    Frontier(i64),
}

impl Logged {
    fn take_into(&self, view: &ViewState) {
        match self {
            Logged::Batch { base_offset, rows, times_us } => {
                let batch = BatchRows {
                    branch: 0,
                    from: None,
                    rows,
                    base_offset: *base_offset,
                    times_us,
                    rejected: &[],
                    deletes: &[],
                    replaced: None,
                };
                assert!(view.apply(&batch).expect("applied").is_empty());
            }
            Logged::Frontier(to_us) => view.finish(*to_us, usize::MAX).expect("finished"),
        }
    }
}

/// A step as it is compared.
type Stepped = (Vec<u8>, i64, i64, &'static str, Vec<Value>);

struct World {
    compiled: Arc<CompiledView>,
    reference: ViewState,
    store: Arc<Store>,
    memory: Arc<Memory>,
    subject: ViewState,
    log: Vec<Logged>,
    offset: u64,
    frontier_us: i64,
    /// What is in the subject's history, complete below.
    history: Vec<Stepped>,
    committed_us: i64,
    /// The checkpoint that counts: how it stood and how much of the log it has.
    saved: Option<(Frozen, usize)>,
    online: [BTreeMap<Vec<u8>, Option<Vec<Value>>>; 2],
    flushed_us: i64,
}

impl World {
    fn new(query: &str, ttl: Option<&str>) -> World {
        let compiled = compiled(query, ttl);
        let store = Arc::new(Store::default());
        // Room for no key at all.
        let memory = Arc::new(Memory::new(2048));
        let reference = ViewState::new(VIEW, compiled.clone(), i64::MIN, 1, None, vec![]);
        let subject = Self::subject(&compiled, &store, &memory, i64::MIN);
        World {
            compiled,
            reference,
            store,
            memory,
            subject,
            log: vec![],
            offset: 0,
            frontier_us: 1_000 * SECOND,
            history: vec![],
            committed_us: i64::MIN,
            saved: None,
            online: Default::default(),
            flushed_us: i64::MIN,
        }
    }

    fn subject(compiled: &Arc<CompiledView>, store: &Arc<Store>, memory: &Arc<Memory>, committed_us: i64) -> ViewState {
        let store: Arc<dyn StateStore> = store.clone();
        let cold = Cold::new(VIEW, store, memory.clone());
        ViewState::new(VIEW, compiled.clone(), committed_us, 1, Some(cold), vec![])
    }

    fn happens(&mut self, logged: Logged) {
        logged.take_into(&self.reference);
        logged.take_into(&self.subject);
        self.log.push(logged);
    }

    fn apply(&mut self, events: &[(i64, i64, f64)]) {
        let times_us: Vec<i64> = events.iter().map(|(_, at, _)| self.frontier_us + at * SECOND / 10).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(events.iter().map(|(key, ..)| *key))),
            Arc::new(Float64Array::from_iter_values(events.iter().map(|(.., x)| *x))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(times_us.iter().copied()).with_timezone(UTC)),
        ];
        let rows = RecordBatch::try_new(self.compiled.plan.row_schema.clone(), columns).expect("a batch");
        let base_offset = self.offset;
        self.offset += events.len() as u64;
        self.happens(Logged::Batch { base_offset, rows, times_us });
    }

    fn finish(&mut self, tenths: i64) {
        self.frontier_us += tenths * SECOND / 10;
        self.happens(Logged::Frontier(self.frontier_us));
    }

    fn lookup(&self, key: i64, tenths: i64) {
        let at_us = self.frontier_us + tenths * SECOND / 10;
        let key = encode_row(&[Value::Int(key)]);
        let views = [&self.reference, &self.subject];
        let in_memory = views.map(|view| view.look_in_memory(&key, at_us).expect("an answer"));
        let [expected, found] = views.map(|view| view.look(&key, at_us).expect("an answer"));
        assert_eq!(found, expected, "at {at_us}");
        // Who has all keys in memory knows from there; who has not says nothing, or the same.
        let [all, some] = in_memory;
        assert_eq!(all.as_ref(), Some(&expected), "at {at_us}");
        assert!(some.as_ref().is_none_or(|some| *some == expected), "{some:?} at {at_us}");
    }

    fn all(&self, tenths: i64) {
        let at_us = self.frontier_us + tenths * SECOND / 10;
        let [expected, found] = [&self.reference, &self.subject].map(|view| {
            let AllLooked { mut rows, mut expired } = view.look_at_all(at_us).expect("rows");
            rows.sort_by(|a, b| a.key.cmp(&b.key));
            expired.sort();
            (rows, expired)
        });
        assert_eq!(found, expected, "at {at_us}");
        let provisional = |view: &ViewState, key: Option<&[u8]>| {
            let (committed_us, steps) = view.steps_above_history(at_us, key).expect("steps");
            let above = steps.iter().filter(|step| step.instant_us >= self.committed_us.max(committed_us));
            sorted(above.map(stepped).collect())
        };
        assert_eq!(provisional(&self.subject, None), provisional(&self.reference, None));
        let key = encode_row(&[Value::Int(3)]);
        assert_eq!(provisional(&self.subject, Some(&key)), provisional(&self.reference, Some(&key)));
    }

    fn flush(&mut self, tenths: i64) {
        // Now never goes back.
        let at_us = (self.frontier_us + tenths * SECOND / 10).max(self.flushed_us);
        self.flushed_us = at_us;
        for (view, online) in [&self.reference, &self.subject].into_iter().zip(&mut self.online) {
            let outputs = |shown: Option<Shown>| shown.map(|shown| shown.row.outputs.into_vec());
            let mut put = |key: Encoded, row| online.insert(key.to_vec(), outputs(row));
            view.take_stale(at_us).expect("stale").into_iter().for_each(|(key, row)| drop(put(key, row)));
            view.arrived();
            let mut at = None;
            while let Some(rows) = view.catch_up(&mut at, at_us).expect("rows") {
                rows.into_iter().for_each(|(key, row)| drop(put(key, row)));
            }
        }
        let [expected, found] =
            [0, 1].map(|i| self.online[i].iter().filter(|(_, row)| row.is_some()).collect::<BTreeMap<_, _>>());
        assert_eq!(found, expected, "online at {at_us}");
        let mut refresh = self.subject.refresh();
        let mut again: BTreeMap<Vec<u8>, Option<Vec<Value>>> = BTreeMap::new();
        while let Some(rows) = refresh.page(at_us).expect("rows") {
            let put = |(key, shown): (Encoded, Option<Shown>)| {
                (key.to_vec(), shown.map(|shown| shown.row.outputs.into_vec()))
            };
            again.extend(rows.into_iter().map(put));
        }
        drop(refresh);
        let found = again.iter().filter(|(_, row)| row.is_some()).collect::<BTreeMap<_, _>>();
        assert_eq!(found, expected, "put again at {at_us}");
        assert_eq!(self.subject.waiting_online(), 0, "all is put");
    }

    async fn checkpoint(&mut self, beside: &[(i64, i64, f64)], moved: i64, fault: Fault) {
        if self.subject.prepare().is_err() {
            return;
        }
        let (frozen, upto) = (self.subject.freeze(), self.log.len());
        let pending = self.subject.pending();
        // The source goes on while the checkpoint is written.
        self.apply(beside);
        if moved > 0 {
            self.finish(moved);
        }
        let taken = self.subject.take_frozen(&frozen).await;
        let steps: Vec<Stepped> = pending.chunks.iter().flat_map(|chunk| chunk.iter().map(stepped)).collect();
        assert!(steps.iter().all(|step| step.1 >= self.committed_us), "a step is committed twice");
        self.history.extend(steps);
        self.committed_us = self.committed_us.max(frozen.frontier_us);
        self.subject.committed(pending.chunks.len(), frozen.frontier_us);
        let Ok(mut batch) = taken else {
            self.subject.set_lost().expect("cleared up");
            return;
        };
        let progress = (Keyspace::Progress, b"progress".to_vec(), frozen.generation.to_be_bytes().to_vec());
        batch.puts.push(progress);
        self.store.set_fault(fault);
        let written = self.store.checkpoint(batch).await;
        self.store.set_fault(Fault::None);
        let counts = self.store.get(Keyspace::Progress, b"progress").expect("progress");
        let counts = written.is_ok() || counts == Some(frozen.generation.to_be_bytes().to_vec());
        match counts {
            true => {
                self.subject.set_saved();
                self.subject.settle(&frozen).await.expect("settled");
                self.saved = Some((frozen, upto));
            }
            false => self.subject.set_lost().expect("cleared up"),
        }
    }

    async fn crash(&mut self, spilled_survives: bool) {
        self.store.crash(spilled_survives);
        self.memory = Arc::new(Memory::new(2048));
        self.subject = Self::subject(&self.compiled, &self.store, &self.memory, self.committed_us);
        let mut upto = 0;
        match &self.saved {
            Some((Frozen { generation, frontier_us, keys, events, stale, behind }, at)) => {
                let (generation, frontier_us, keys, events) = (*generation, *frontier_us, *keys, *events);
                let (stale, behind) = (stale.clone(), *behind);
                let frozen = Frozen { generation, frontier_us, keys, events, stale, behind };
                self.subject.recover(frozen).await.expect("recovered");
                upto = *at;
            }
            // As CREATE does: what a crash has left of a view that has no checkpoint is of nobody.
            None => {
                for keyspace in [Keyspace::Keys, Keyspace::Due, Keyspace::Spilled] {
                    self.store.remove(keyspace, &VIEW.0.to_be_bytes()).await.expect("removed");
                }
            }
        }
        self.log[upto..].iter().for_each(|logged| logged.take_into(&self.subject));
    }

    fn end(&mut self) {
        self.all(1000);
        self.finish(100_000);
        self.flush(0);
        let pending = |view: &ViewState| -> Vec<Stepped> {
            view.pending().chunks.iter().flat_map(|chunk| chunk.iter().map(stepped)).collect()
        };
        let mut found = self.history.clone();
        found.extend(pending(&self.subject));
        assert_eq!(sorted(found), sorted(pending(&self.reference)));
        let keys = |view: &ViewState| view.counters.keys.load(Ordering::Relaxed);
        assert_eq!(keys(&self.subject), keys(&self.reference));
    }
}

fn stepped(step: tidemark_engine::view::Step<'_>) -> Stepped {
    (encode_row(step.key), step.instant_us, step.event_us, step.op.as_str(), step.outputs.to_values().into_vec())
}

fn sorted(mut steps: Vec<Stepped>) -> Vec<Stepped> {
    steps.sort();
    steps
}

async fn run(query: &str, ttl: Option<&str>, ops: Vec<Op>) {
    let mut world = World::new(query, ttl);
    for op in ops {
        match op {
            Op::Apply(events) => world.apply(&events),
            Op::Finish(tenths) => world.finish(tenths),
            Op::Lookup(key, tenths) => world.lookup(key, tenths),
            Op::All(tenths) => world.all(tenths),
            Op::Flush(tenths) => world.flush(tenths),
            Op::Checkpoint(beside, moved, fault) => world.checkpoint(&beside, moved, fault).await,
            Op::Crash(spilled_survives) => world.crash(spilled_survives).await,
        }
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256), ..ProptestConfig::default() })]

    #[test]
    fn a_view_with_no_room_says_what_one_with_all_its_keys_in_memory_says(
        view in 0..VIEWS.len(),
        ttl in 0..TTLS.len(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        futures::executor::block_on(run(VIEWS[view], TTLS[ttl], ops));
    }
}

/// That the property above is about anything at all.
#[test]
fn with_no_room_keys_do_leave_memory() {
    let mut world = World::new(VIEWS[0], None);
    let all: Vec<_> = (0..KEYS).map(|key| (key, key, 1.0)).collect();
    for _ in 0..8 {
        world.apply(&all);
        world.finish(50);
        world.flush(0);
    }
    let (keys, _) = world.subject.in_memory();
    assert!(keys < KEYS as u64 / 2, "{keys} keys are in memory");
    assert!(world.store.entries(Keyspace::Spilled) > 0);
    // Of those memory says nothing, and the store is not asked.
    let key = |key: i64| encode_row(&[Value::Int(key)]);
    let in_memory = |of: i64| world.subject.look_in_memory(&key(of), world.frontier_us).expect("an answer");
    let cold: Vec<i64> = (0..KEYS).filter(|of| in_memory(*of).is_none()).collect();
    assert_eq!(cold.len() as u64, KEYS as u64 - keys);
    // Once somebody has waited for it, it says the same, or it has left again.
    let found = world.subject.look(&key(cold[0]), world.frontier_us).expect("an answer");
    assert_eq!(in_memory(cold[0]).unwrap_or_else(|| found.clone()), found);
    assert!(matches!(found, Looked::Row(_)));
    world.end();
}

#[test]
fn a_key_whose_ttl_is_over_is_known_until_the_frontier_comes_by() {
    let look = |world: &World, key: i64, seconds: i64| {
        let (key, at_us) = (encode_row(&[Value::Int(key)]), world.frontier_us + seconds * SECOND);
        [&world.reference, &world.subject].map(|view| view.look(&key, at_us).expect("an answer"))
    };
    for query in VIEWS {
        let mut world = World::new(query, TTLS[1]);
        world.apply(&[(1, 10, 1.0)]);
        assert_eq!(look(&world, 1, 0), [Looked::Missing, Looked::Missing], "before its event: {query}");
        assert!(look(&world, 1, 46).iter().all(|looked| matches!(looked, Looked::Row(_))), "{query}");
        // Of windows that end the TTL counts from the end.
        assert_eq!(look(&world, 1, 60), [Looked::Expired, Looked::Expired], "{query}");
        assert_eq!(look(&world, 2, 60), [Looked::Missing, Looked::Missing], "{query}");
        // A later event, and it has a row again.
        world.apply(&[(1, 610, 1.0)]);
        assert_eq!(look(&world, 1, 60), [Looked::Expired, Looked::Expired], "{query}");
        assert!(look(&world, 1, 75).iter().all(|looked| matches!(looked, Looked::Row(_))), "{query}");
        world.finish(2_000);
        assert_eq!(look(&world, 1, 0), [Looked::Missing, Looked::Missing], "forgotten: {query}");
    }
}

#[test]
fn a_fill_passes_over_no_key_when_a_checkpoint_fails_meanwhile() {
    // Several pages of what is spilled.
    const MANY: usize = 3000;
    const PAGE: usize = 1024;
    let mut world = World::new(VIEWS[0], None);
    let all: Vec<_> = (0..MANY as i64).map(|key| (key, key % 100, 1.0)).collect();
    world.apply(&all);
    let view = &world.subject;
    for _ in 0..8 {
        view.relieve_all().expect("room");
    }
    assert!(world.store.entries(Keyspace::Spilled) > PAGE, "{} are spilled", world.store.entries(Keyspace::Spilled));
    let at_us = world.frontier_us + 60 * SECOND;
    view.is_behind();
    let (mut at, mut put) = (None, BTreeSet::new());
    let first = view.catch_up(&mut at, at_us).expect("rows").expect("a page");
    assert!(first.len() < MANY);
    put.extend(first.into_iter().map(|(key, _)| key));
    // What was spilled belongs to the generation after it now.
    assert!(view.freeze().behind, "after a crash it is filled again");
    view.set_lost().expect("cleared up");
    while let Some(rows) = view.catch_up(&mut at, at_us).expect("rows") {
        put.extend(rows.into_iter().map(|(key, _)| key));
    }
    // Those that are in memory are put by themselves.
    put.extend(view.take_stale(at_us).expect("stale").into_iter().map(|(key, _)| key));
    assert_eq!(put.len(), MANY);
}

#[test]
fn what_is_in_flight_is_put_again_after_a_crash_until_it_has_arrived() {
    let mut world = World::new(VIEWS[2], None);
    world.apply(&[(1, 0, 1.0), (2, 0, 1.0)]);
    // The one that has all its keys in memory.
    let view = &world.reference;
    let at_us = world.frontier_us + SECOND;
    let taken = || view.take_stale(at_us).expect("stale").len();
    let waiting = || (view.waiting_online(), view.freeze().stale.len());
    assert_eq!(waiting(), (2, 2));
    assert_eq!(taken(), 2);
    assert_eq!(waiting(), (2, 2));
    view.not_arrived();
    assert_eq!(waiting(), (2, 2));
    assert_eq!(taken(), 2);
    view.arrived();
    assert_eq!(waiting(), (0, 0));
    assert_eq!(taken(), 0);
}
