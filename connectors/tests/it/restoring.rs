//! Views come back after a start one by one, over a log that is slow on command: who asks for one does not wait for another.
//!
//! ```text
//!   minute   0   10  │  20  │  22       all of user 1; a checkpoint behind minute 10, a new start behind 20
//!   v1       1    1     1      2        the last 5 minutes
//!   v2       1    2     2      3        the last 15
//!   v3       1    2     3      4        the last 25
//! ```

use crate::{
    engine_faults::{LogsIn, clicks, ingest, per_user},
    test_clock::TestClock,
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;
use tidemark_catalog::{Body, Object, ObjectId, Snapshot};
use tidemark_connectors::{iceberg::IcebergHistory, log::LogSettings, online::FjallOnline, state::FjallState};
use tidemark_engine::{
    runtime::{Engine, Logs, Seams},
    seam::{Clock, CommitTag, HistoryStore, HistoryTable, Positions, SeamError, SeamResult, Source, SourceBatch},
    value::{Value, encode_row},
    view::Memory,
};
use tokio::sync::{Notify, RwLock};

const V1: ObjectId = ObjectId(ObjectId::FIRST.0 + 1);
const V2: ObjectId = ObjectId(ObjectId::FIRST.0 + 2);
const V3: ObjectId = ObjectId(ObjectId::FIRST.0 + 3);

/// Of other windows than the others: each keeps keys of its own.
fn view(id: ObjectId, name: &str, minutes: u32) -> Object {
    let mut object = per_user();
    (object.id, object.name) = (id, name.to_string());
    if let Body::FeatureView(view) = &mut object.body {
        view.query = format!(
            "SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '{minutes} minutes' \
             PRECEDING AND CURRENT ROW) AS n FROM clicks"
        );
    }
    object
}

/// While somebody has the gate for writing, the next poll of a log hangs, and only that one.
#[derive(Clone, Default)]
struct Slow {
    next: Arc<AtomicBool>,
    gate: Arc<RwLock<()>>,
    hangs: Arc<Notify>,
}

struct SlowLogs(LogsIn, Slow);

struct SlowLog(Arc<dyn Source>, Slow);

impl Logs for SlowLogs {
    fn open(&self, id: ObjectId, schema: SchemaRef) -> SeamResult<Arc<dyn Source>> {
        Ok(Arc::new(SlowLog(self.0.open(id, schema)?, self.1.clone())))
    }

    fn remove(&self, id: ObjectId) -> SeamResult<()> {
        self.0.remove(id)
    }
}

#[async_trait]
impl Source for SlowLog {
    async fn append(&self, batches: Vec<SourceBatch>) -> SeamResult<Positions> {
        self.0.append(batches).await
    }

    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        if self.1.next.swap(false, Ordering::SeqCst) {
            self.1.hangs.notify_one();
            drop(self.1.gate.read().await);
        }
        self.0.poll(from, rows_max).await
    }

    async fn range(&self) -> SeamResult<(Positions, Positions)> {
        self.0.range().await
    }

    async fn kept_from(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<Positions> {
        self.0.kept_from(positions, keep_from_us).await
    }

    async fn commit(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<()> {
        self.0.commit(positions, keep_from_us).await
    }

    async fn sync(&self) -> SeamResult<()> {
        self.0.sync().await
    }
}

/// The embedded history, which cannot read the table of one view.
struct Broken {
    store: IcebergHistory,
    view: Option<ObjectId>,
}

#[async_trait]
impl HistoryStore for Broken {
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
        self.store.append(table, steps, tag).await
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        self.store.last_tag(name).await
    }

    async fn take_up(&self, table: &HistoryTable) -> SeamResult<Option<CommitTag>> {
        match self.view == Some(table.view) {
            true => Err(SeamError::NotDone("its metadata are gone".to_string())),
            false => self.store.take_up(table).await,
        }
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        self.store.provider(table).await
    }
}

struct World {
    folder: TempDir,
    /// Outlives the engines: file names that are drawn from it do not come again.
    clock: Arc<dyn Clock>,
    catalog: Snapshot,
    slow: Slow,
}

impl World {
    /// With a life before: a checkpoint, and an event behind it.
    async fn new() -> World {
        let views = [view(V1, "v1", 5), view(V2, "v2", 15), view(V3, "v3", 25)];
        let world = World {
            folder: tempfile::tempdir().expect("a directory"),
            clock: TestClock::seeded(1),
            catalog: Snapshot::new(1, [clicks()].into_iter().chain(views)),
            slow: Slow::default(),
        };
        let engine = Engine::start(world.seams(None).await, &world.catalog).await.expect("it starts");
        ingest(&engine, &[(Some(1), 0), (Some(1), 10)]).await.expect("rows are taken in");
        engine.checkpoint().await.expect("a checkpoint");
        ingest(&engine, &[(Some(1), 20)]).await.expect("a row is taken in");
        assert_eq!(counts(&engine), [Some(1), Some(2), Some(3)]);
        world
    }

    async fn seams(&self, broken: Option<ObjectId>) -> Seams {
        let part = |name: &str| self.folder.path().join(name);
        let store = IcebergHistory::open(&part("warehouse"), self.clock.clone()).await.expect("a history store");
        Seams {
            threads: 2,
            shares: true,
            memory: Arc::new(Memory::unlimited()),
            steps_waiting_max: 1 << 20,
            clock: self.clock.clone(),
            logs: Arc::new(SlowLogs(LogsIn(part("log"), LogSettings::default()), self.slow.clone())),
            state: Arc::new(FjallState::open(&part("state")).expect("a state store")),
            online: Arc::new(FjallOnline::open(&part("online")).expect("an online store")),
            history: Arc::new(Broken { store, view: broken }),
        }
    }

    async fn begin(&self, broken: Option<ObjectId>) -> Arc<Engine> {
        Arc::new(Engine::start_without_views(self.seams(broken).await, &self.catalog).await.expect("it begins"))
    }

    /// Somebody restores what waits, and hangs in the log of the first view until the gate is opened.
    async fn restore_beside(&self, engine: &Arc<Engine>) -> tokio::task::JoinHandle<()> {
        self.slow.next.store(true, Ordering::SeqCst);
        let (engine, catalog) = (engine.clone(), self.catalog.clone());
        let beside = tokio::spawn(async move { engine.restore_waiting(&catalog).await });
        self.slow.hangs.notified().await;
        beside
    }
}

/// What each view has for user 1, now; `None`: the view does not run.
fn counts(engine: &Engine) -> [Option<i64>; 3] {
    [V1, V2, V3].map(|id| {
        let view = engine.view(id)?;
        let row = view.state.lookup(&encode_row(&[Value::Int(1)]), view.now_us(0)).expect("a lookup").expect("a row");
        match &row.outputs[..] {
            [Value::Int(n)] => Some(*n),
            other => panic!("user 1 has {other:?}"),
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_asked_for_is_back_while_the_log_of_another_is_still_read() {
    let world = World::new().await;
    let engine = world.begin(None).await;
    assert_eq!(counts(&engine), [None, None, None]);
    let held = world.slow.gate.clone().write_owned().await;
    let beside = world.restore_beside(&engine).await;

    engine.restore_first(V3, &world.catalog).await;
    engine.restored(V3).await.expect("it is back");
    assert_eq!(counts(&engine), [None, None, Some(3)]);
    // Somebody is at it: nothing is done twice.
    engine.restore_first(V1, &world.catalog).await;
    assert!(engine.is_awaited(V1) && engine.is_awaited(V2) && !engine.is_awaited(V3));
    assert!(!engine.is_restored());
    // What comes in meanwhile, they have when they are back.
    ingest(&engine, &[(Some(1), 22)]).await.expect("a row is taken in");
    assert_eq!(counts(&engine), [None, None, Some(4)]);

    drop(held);
    engine.all_restored().await.expect("all are back");
    beside.await.expect("it ends");
    engine.finish_restoring(&world.catalog).await.expect("nothing is left to be done");
    assert!(engine.is_restored());
    assert_eq!(counts(&engine), [Some(2), Some(3), Some(4)]);
    // Once each: the same as with a start that did one after the other.
    engine.checkpoint().await.expect("a checkpoint");
    drop(engine);
    let again = Engine::start(world.seams(None).await, &world.catalog).await.expect("it starts");
    assert_eq!(counts(&again), [Some(2), Some(3), Some(4)]);
}

#[tokio::test]
async fn a_view_that_cannot_be_restored_fails_alone() {
    let world = World::new().await;
    let engine = world.begin(Some(V2)).await;
    engine.restore_first(V2, &world.catalog).await;
    engine.restored(V2).await.expect("nobody waits for what has failed");
    engine.restore_waiting(&world.catalog).await;
    engine.all_restored().await.expect("all have had their turn");
    engine.finish_restoring(&world.catalog).await.expect("nothing is left to be done");
    assert_eq!(counts(&engine), [Some(1), None, Some(3)]);
    let failure = engine.failure(V2).expect("it has failed");
    assert!(failure.error.contains("its metadata are gone"), "{}", failure.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_broken_off_tells_those_who_wait_and_is_begun_again() {
    let world = World::new().await;
    let engine = world.begin(None).await;
    let _held = world.slow.gate.clone().write_owned().await;
    let beside = world.restore_beside(&engine).await;
    let asking = engine.clone();
    let waiting = tokio::spawn(async move { asking.restored(V1).await });
    beside.abort();
    assert!(beside.await.is_err(), "it was to be broken off");
    let error = waiting.await.expect("it ends").expect_err("nobody restores it any more");
    assert!(error.to_string().contains("given up"), "{error}");
    assert!(engine.all_restored().await.is_err());
    drop(engine);
    let again = Engine::start(world.seams(None).await, &world.catalog).await.expect("it starts");
    assert_eq!(counts(&again), [Some(1), Some(2), Some(3)]);
}
