//! One seed: seams with faults, an engine on them, and what is done to it.

use super::{
    clock::SimClock,
    faults::{Fate, Faults, Kind, Part},
    history::SimHistory,
    ledger::Ledger,
    log::SimLogs,
    rows,
    stores::{SimOnline, SimState},
    topic::{PARTITIONS, SimTopic},
    views::{self, B, FIRST_VIEW, RELATIONS, SECOND, Shape, T},
};
use crate::store::Store;
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, sync::Arc, task::Poll};
use tidemark_catalog::{Change, ClockMode, Object, ObjectId, Snapshot};
use tidemark_engine::{
    runtime::{Conflict, Engine, IngestError, Seams},
    seam::Clock,
    value::{Value, encode_row},
    view::Memory,
};

/// A few minutes before a month begins.
const BEGIN_US: i64 = 1_772_323_200_000_000 - 4 * 60 * SECOND;

#[derive(Debug, Clone)]
pub enum Op {
    Insert(ObjectId, Vec<RecordBatch>, Conflict),
    /// Messages come into a partition of the topic, perhaps a broken one before them, and some are taken.
    Feed(usize, Vec<RecordBatch>, bool),
    Tick(i64),
    Idle,
    Advance(ObjectId, i64),
    Flush,
    Commit,
    Checkpoint,
    Warm,
    Create(usize),
    Drop(usize),
    Resume(usize),
    Lookup(usize, usize),
    Scan(usize),
    /// What was on its way to the online store arrives.
    Arrive,
    Storm,
    Calm,
    /// After so many calls.
    Crash(u32),
    /// The server is told to stop.
    Stop,
    Check,
}

pub struct World {
    pub dice: StdRng,
    pub faults: Arc<Faults>,
    pub clock: Arc<SimClock>,
    pub logs: Arc<SimLogs>,
    pub store: Arc<Store>,
    pub online: Arc<SimOnline>,
    pub history: Arc<SimHistory>,
    pub mode: ClockMode,
    pub relations: [Object; 3],
    /// Whether the topic feeds the second source.
    pub is_fed: bool,
    pub topic: SimTopic,
    /// One reader at a time, as the task of a feed is one.
    feeding: tokio::sync::Mutex<()>,
    pub catalog: Mutex<Snapshot>,
    pub ledger: Mutex<Ledger>,
    /// The latest event that a reader has seen of a key; not of tables, whose rows move from key to key.
    seen: Mutex<BTreeMap<(ObjectId, Vec<u8>), i64>>,
    pub engine: Option<Engine>,
    /// Whether a log has ever lost what it had acknowledged, as it may where it does not sync each append.
    pub is_lossy: bool,
    memory: u64,
    steps_waiting_max: usize,
    next_id: Mutex<u32>,
    next_no: i64,
}

impl World {
    pub fn new(seed: u64, is_fed: bool) -> World {
        let mut dice = StdRng::seed_from_u64(seed);
        let faults = Arc::new(Faults::new(dice.random()));
        let mode = if dice.random_bool(0.3) { ClockMode::Event } else { ClockMode::System };
        let syncs = dice.random_bool(0.8);
        let mut relations = views::relations(mode);
        if is_fed {
            views::feed_second(&mut relations);
        }
        World {
            clock: Arc::new(SimClock::at(BEGIN_US + dice.random_range(0..240 * SECOND))),
            logs: Arc::new(SimLogs::new(faults.clone(), syncs)),
            store: Arc::default(),
            online: Arc::new(SimOnline::new(faults.clone())),
            history: Arc::new(SimHistory::new(faults.clone())),
            mode,
            catalog: Mutex::new(Snapshot::new(1, relations.clone())),
            relations,
            is_fed,
            topic: SimTopic::default(),
            feeding: tokio::sync::Mutex::default(),
            ledger: Mutex::default(),
            seen: Mutex::default(),
            engine: None,
            is_lossy: false,
            memory: [u64::MAX, u64::MAX, 40_000, 2048][dice.random_range(0..4)],
            steps_waiting_max: if dice.random_bool(0.2) { 5 } else { 100_000 },
            next_id: Mutex::new(FIRST_VIEW),
            next_no: 0,
            dice,
            faults,
        }
    }

    /// What the seed begins with, for people.
    pub fn said(&self) -> String {
        let World { mode, memory, steps_waiting_max, is_fed, .. } = self;
        format!("{mode:?} clock, {memory} bytes, {steps_waiting_max} steps wait, fed by a topic: {is_fed}")
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it runs")
    }

    pub fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// The views of the catalog with their shapes.
    pub fn views(&self) -> Vec<(ObjectId, &'static Shape)> {
        let catalog = self.catalog.lock();
        let shape = |name: &str| views::of(self.mode).iter().find(|shape| shape.name == name);
        let views = catalog.objects().filter(|object| object.feature_view().is_some());
        views.filter_map(|object| Some((object.id, shape(&object.name)?))).collect()
    }

    pub fn is_over_table(shape: &Shape) -> bool {
        shape.plan.relations().contains(&T)
    }

    pub fn draw(&mut self) -> Op {
        let dice = &mut self.dice;
        let view = dice.random_range(0..64);
        let relation = RELATIONS[dice.random_range(0..RELATIONS.len())];
        match dice.random_range(0..100) {
            0..34 => {
                let batches = dice.random_range(1..=2);
                let object = &self.relations[(relation.0 - RELATIONS[0].0) as usize];
                let now_us = self.clock.now_us();
                let mut batch = || rows::batch(dice, object, self.mode, now_us, &mut self.next_no);
                let batches = (0..batches).map(|_| batch()).collect();
                if self.is_fed && relation == B {
                    return Op::Feed(dice.random_range(0..PARTITIONS), batches, dice.random_bool(0.2));
                }
                let conflict = match (relation == T, dice.random_range(0..8)) {
                    (true, 0) => Conflict::Error,
                    (true, 1) => Conflict::Skip,
                    _ => Conflict::Replace,
                };
                Op::Insert(relation, batches, conflict)
            }
            34..46 => Op::Tick(match dice.random_range(0..10) {
                0..6 => dice.random_range(1..4 * SECOND),
                6..9 => dice.random_range(1..25 * SECOND),
                _ => dice.random_range(1..200 * SECOND),
            }),
            46..49 => Op::Idle,
            49..51 => Op::Advance(relation, self.clock.now_us() - dice.random_range(-2..20) * SECOND / 2),
            51..57 => Op::Flush,
            57..61 => Op::Commit,
            61..67 => Op::Checkpoint,
            67 => Op::Warm,
            68..74 => Op::Create(dice.random_range(0..views::of(self.mode).len())),
            74 => Op::Drop(view),
            75..79 => Op::Resume(view),
            79..85 => Op::Lookup(view, dice.random_range(0..10)),
            85 => Op::Scan(view),
            86 => Op::Arrive,
            87..90 => Op::Storm,
            90..92 => Op::Calm,
            92..95 => Op::Crash([0, 3, 10, 40][dice.random_range(0..4)]),
            95 => Op::Stop,
            _ => Op::Check,
        }
    }

    /// Does several things at once; `false`: the process has ended meanwhile.
    pub async fn perform(&self, ops: &[Op]) -> Result<bool, String> {
        let mut work: BoxFuture<'_, _> = Box::pin(join_all(ops.iter().map(|op| self.one(op))));
        let done = std::future::poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.faults.has_crashed() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        for done in done.await.unwrap_or_default() {
            done?;
        }
        Ok(!self.faults.has_crashed())
    }

    async fn one(&self, op: &Op) -> Result<(), String> {
        let engine = self.engine();
        let pick = |view: &usize| {
            let views = self.views();
            (!views.is_empty()).then(|| views[view % views.len()])
        };
        // That something fails is expected; what it then left is checked later.
        match op {
            Op::Insert(relation, batches, conflict) => {
                let sent = self.ledger.lock().send(*relation, batches.iter().flat_map(rows::numbers).collect());
                let answer = engine.ingest(*relation, batches.clone(), *conflict).await;
                self.ledger.lock().answer(sent, &answer);
            }
            Op::Feed(partition, batches, is_first_broken) => {
                let now_us = self.now_us();
                for (i, batch) in batches.iter().enumerate() {
                    self.topic.send(*partition, now_us, batch, *is_first_broken && i == 0);
                }
                self.feed().await?;
            }
            Op::Tick(us) => {
                for _ in 0..self.faults.below(4) {
                    tokio::task::yield_now().await;
                }
                self.clock.move_on(*us);
            }
            Op::Idle => drop(engine.advance_idle().await),
            Op::Advance(relation, to_us) => drop(engine.advance_watermark(*relation, *to_us).await),
            Op::Flush => drop(engine.flush_online().await),
            Op::Commit => drop(engine.commit_history().await),
            Op::Checkpoint => drop(engine.checkpoint().await),
            Op::Warm => drop(engine.warm().await),
            Op::Create(shape) => self.create(&views::of(self.mode)[*shape]).await,
            Op::Drop(view) => {
                if let Some((id, _)) = pick(view) {
                    self.drop(id).await;
                }
            }
            Op::Resume(view) => {
                if let Some((id, _)) = pick(view) {
                    let snapshot = self.catalog.lock().clone();
                    let object = snapshot.get_id(id).expect("it is there").clone();
                    drop(engine.resume_view(&object, &snapshot).await);
                }
            }
            Op::Lookup(view, key) => {
                if let Some((id, shape)) = pick(view) {
                    self.lookup(id, shape, *key)?;
                }
            }
            Op::Scan(view) => {
                if let Some(view) = pick(view).and_then(|(id, _)| engine.view(id)) {
                    drop(view.state.rows(view.now_us(self.now_us())));
                }
            }
            Op::Arrive => {
                self.online.arrive();
                // A store of another machine's may come back empty.
                if self.faults.calls().is_multiple_of(3) {
                    self.online.lose();
                }
            }
            Op::Storm => self.faults.storm(),
            Op::Calm => self.faults.calm(),
            Op::Crash(calls) => self.faults.crash_in(*calls),
            Op::Stop | Op::Check => unreachable!("these are done alone"),
        }
        Ok(())
    }

    /// As `connectors/src/kafka/feed.rs` does it, once; and a reader that begins too early is told so.
    async fn feed(&self) -> Result<(), String> {
        let _one = self.feeding.lock().await;
        let engine = self.engine();
        let mut next = engine.begin_taking(B).await;
        if next.is_empty() {
            let (rows, origin) = SimTopic::beginning(self.second());
            let _ = engine.take(B, rows, vec![], origin).await;
            next = engine.begin_taking(B).await;
        }
        if self.faults.below(4) == 0 {
            let mut again = next.clone();
            let back = 1 + self.faults.below(3) as u64;
            let before = again.values_mut().find(|offset| **offset > 0);
            let is_back = before.map(|offset| *offset = offset.saturating_sub(back)).is_some();
            if let Some((rows, origin)) = self.topic.read(self.second(), &again, 5).filter(|_| is_back)
                && engine.take(B, rows, vec![], origin).await.is_ok()
            {
                return Err("a message of the topic was taken twice".to_string());
            }
        }
        let most = 1 + self.faults.below(30);
        if let Some((rows, origin)) = self.topic.read(self.second(), &next, most) {
            // Whether it was taken, the next to read the topic asks the source.
            let _ = engine.take(B, rows, vec![], origin).await;
        }
        Ok(())
    }

    fn second(&self) -> SchemaRef {
        self.relations[1].schema()
    }

    /// Nothing fails: the source has all of the topic when this returns.
    pub async fn take_all(&self) -> Result<(), String> {
        const MOST: usize = 50;
        if !self.is_fed {
            return Ok(());
        }
        let failed = |error: IngestError| format!("nothing fails, and nothing is taken: {error}");
        loop {
            let next = self.engine().begin_taking(B).await;
            let Some((rows, origin)) = self.topic.read(self.second(), &next, MOST) else { return Ok(()) };
            self.engine().take(B, rows, vec![], origin).await.map_err(failed)?;
        }
    }

    /// As `server/src/statement/create_feature_view.rs` does it.
    async fn create(&self, shape: &Shape) {
        if self.catalog.lock().get(shape.name).is_some() {
            return;
        }
        let id = {
            let mut next = self.next_id.lock();
            *next += 1;
            ObjectId(*next - 1)
        };
        let object = shape.object(id);
        if self.engine().create_view(&object, shape.compiled(id)).await.is_ok()
            && !self.commit(Change::Put(object)).await
        {
            let _ = self.engine().drop_view(id).await;
        }
    }

    /// As `server/src/statement/drop.rs` does it.
    async fn drop(&self, id: ObjectId) {
        if self.commit(Change::Drop(id)).await {
            let _ = self.engine().drop_view(id).await;
        }
    }

    async fn commit(&self, change: Change) -> bool {
        let fate = self.faults.fate(Part::Catalog, Kind::Read).await;
        if matches!(fate, Fate::Fine | Fate::Crash(true)) {
            let mut catalog = self.catalog.lock();
            *catalog = catalog.apply(&[change]);
        }
        match fate {
            Fate::Fine => true,
            Fate::Crash(_) => std::future::pending().await,
            _ => false,
        }
    }

    fn lookup(&self, id: ObjectId, shape: &Shape, key: usize) -> Result<(), String> {
        let Some(view) = self.engine().view(id) else { return Ok(()) };
        let key = match shape.plan.key[0].to_string().rsplit('.').next() {
            Some("n" | "id") => Value::Int(key as i64),
            _ => Value::Text(format!("k{key}").into()),
        };
        let encoded = encode_row(&[key]);
        let Ok(Some(row)) = view.state.lookup(&encoded, view.now_us(self.now_us())) else { return Ok(()) };
        // A late event may join two sessions that were over.
        if Self::is_over_table(shape) || shape.plan.pane().is_some() {
            return Ok(());
        }
        let before = self.seen.lock().insert((id, encoded), row.event_us);
        match before.filter(|before| *before > row.event_us) {
            Some(_) => Err(format!("{}: a reader saw an older row than before", shape.name)),
            None => Ok(()),
        }
    }

    /// The process ends. What was not durable may be gone.
    pub fn crash(&mut self) {
        self.engine = None;
        self.store.crash_keeping(self.faults.below(self.store.unsynced() + 1));
        if self.logs.crash() {
            self.is_lossy = true;
            self.ledger.lock().forget_lost(&self.logs);
            self.seen.lock().clear();
        }
        if self.faults.below(2) == 0 {
            self.online.arrive();
        }
        self.faults.revive();
    }

    /// The process begins; again, where it ends before it serves.
    pub async fn start(&mut self) -> Result<(), String> {
        for attempt in 0.. {
            match attempt {
                3 => self.faults.calm(),
                _ if self.faults.below(6) == 0 => self.faults.crash_in(self.faults.below(60) as u32),
                _ => {}
            }
            let (seams, snapshot) = (self.seams(), self.catalog.lock().clone());
            let mut starting = Box::pin(Engine::start(seams, &snapshot));
            let started = std::future::poll_fn(|context| match starting.as_mut().poll(context) {
                Poll::Ready(started) => Poll::Ready(Some(started)),
                Poll::Pending if self.faults.has_crashed() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let started = started.await;
            drop(starting);
            match started {
                Some(Ok(engine)) if !self.faults.has_crashed() => {
                    self.engine = Some(engine);
                    return Ok(());
                }
                Some(Err(error)) if attempt >= 3 => {
                    return Err(format!("nothing fails, and it does not start: {error}"));
                }
                _ => self.crash(),
            }
        }
        Ok(())
    }

    fn seams(&self) -> Seams {
        Seams {
            threads: 1,
            shares: true,
            memory: Arc::new(Memory::new(self.memory)),
            steps_waiting_max: self.steps_waiting_max,
            clock: self.clock.clone(),
            logs: self.logs.clone(),
            state: Arc::new(SimState { faults: self.faults.clone(), store: self.store.clone() }),
            online: self.online.clone(),
            history: self.history.clone(),
        }
    }
}
