//! A store fails beneath a whole engine: what the engine has taken in stands, and none of it is lost or doubled.
//!
//! The parts are the embedded ones. The faults: until it is lifted, the state store writes no dead letters, or history no
//! steps, or no put into the online store returns; a log cannot tell whether it has appended; the state of keys is damaged
//! on disk, or of another version's format.
//!
//! ```text
//!   offset   0   1  │  2   3     4     5       from offset 2 on letters are refused
//!   user     1   1  │  1   2   NULL    2       4: no key, a letter of the view
//!   minute   0  10  │ 11   5    12    12       3: late, below the watermark (one minute back), a letter of the source
//! ```

use crate::test_clock::TestClock;
use arrow::{
    array::{Int64Array, TimestampMicrosecondArray},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType, UTC};
use tidemark_connectors::{
    iceberg::IcebergHistory,
    log::{EmbeddedLog, LogSettings},
    online::FjallOnline,
    state::FjallState,
};
use tidemark_engine::{
    online::OnlineRow,
    runtime::{Conflict, Engine, IngestError, IngestReport, Logs, STATE_FORMAT, Seams},
    seam::{
        Clock, CommitTag, HistoryStore, HistoryTable, Keyspace, OnlineStore, OnlineValue, Origin, Positions, Put,
        RejectReason, Run, SeamError, SeamResult, Source, SourceBatch, StateStore, Taken, WriteBatch,
    },
    value::{Value, encode_row},
    view::Memory,
};
use tokio::sync::{Notify, RwLock};

const CLICKS: ObjectId = ObjectId::FIRST;
const PER_USER: ObjectId = ObjectId(ObjectId::FIRST.0 + 1);

const MINUTE_US: i64 = 60_000_000;
/// 2026-03-02T10:00:00Z.
const TEN_US: i64 = 1_772_445_600_000_000;

/// How many dead letters may wait, as `engine/src/runtime/source.rs` has it.
const WAITING_MAX: usize = 65_536;

/// How many steps may wait for history.
const STEPS_WAITING_MAX: usize = 5;

/// View, offset and reason of the letters of [`World::with_two_waiting`].
const TWO: [(Option<ObjectId>, u64, RejectReason); 2] =
    [(None, 3, RejectReason::Late), (Some(PER_USER), 4, RejectReason::NullKey)];

/// The embedded state store, with a fault.
struct FaultyState {
    store: FjallState,
    refuses_letters: Arc<AtomicBool>,
}

#[async_trait]
impl StateStore for FaultyState {
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()> {
        let has_letters = batch.puts.iter().any(|(keyspace, ..)| *keyspace == Keyspace::DeadLetters);
        if has_letters && self.refuses_letters.load(Ordering::Relaxed) {
            return Err(SeamError::NotDone("no letters today".to_string()));
        }
        self.store.checkpoint(batch).await
    }

    fn spill(&self, batch: WriteBatch) -> SeamResult<()> {
        self.store.spill(batch)
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
        self.store.get(keyspace, key)
    }

    fn page(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        entries_max: usize,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>> {
        self.store.page(keyspace, prefix, after, entries_max)
    }

    async fn remove(&self, keyspace: Keyspace, prefix: &[u8]) -> SeamResult<()> {
        self.store.remove(keyspace, prefix).await
    }
}

/// The embedded history, with a fault.
struct FaultyHistory {
    store: IcebergHistory,
    refuses_steps: Arc<AtomicBool>,
}

#[async_trait]
impl HistoryStore for FaultyHistory {
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
        match self.refuses_steps.load(Ordering::Relaxed) {
            true => Err(SeamError::NotDone("no steps today".to_string())),
            false => self.store.append(table, steps, tag).await,
        }
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        self.store.last_tag(name).await
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        self.store.provider(table).await
    }
}

/// The embedded online store, with a fault.
struct FaultyOnline {
    store: FjallOnline,
    hangs: Hangs,
}

/// While somebody has the lock for writing, no put gets through.
#[derive(Clone, Default)]
struct Hangs {
    gate: Arc<RwLock<()>>,
    /// Told of every put, before it waits.
    begun: Arc<Notify>,
}

#[async_trait]
impl OnlineStore for FaultyOnline {
    async fn open_view(&self, view: ObjectId) -> SeamResult<bool> {
        self.store.open_view(view).await
    }

    async fn filled(&self, view: ObjectId) -> SeamResult<()> {
        self.store.filled(view).await
    }

    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put> {
        self.hangs.begun.notify_one();
        let _open = self.hangs.gate.read().await;
        self.store.put(view, values).await
    }

    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        self.store.get_many(view, keys).await
    }

    async fn drop_view(&self, view: ObjectId) -> SeamResult<()> {
        self.store.drop_view(view).await
    }
}

pub struct LogsIn(pub PathBuf, pub LogSettings);

impl Logs for LogsIn {
    fn open(&self, id: ObjectId, schema: SchemaRef) -> SeamResult<Arc<dyn Source>> {
        Ok(Arc::new(EmbeddedLog::open(&self.0.join(id.to_string()), schema, self.1.clone())?))
    }

    fn remove(&self, id: ObjectId) -> SeamResult<()> {
        EmbeddedLog::drop_files(&self.0.join(id.to_string()))
    }
}

/// Logs of which, if so told, the next append does not happen, and nobody can tell.
struct FaultyLogs {
    logs: LogsIn,
    cannot_tell: Arc<AtomicBool>,
}

struct FaultyLog {
    log: Arc<dyn Source>,
    cannot_tell: Arc<AtomicBool>,
}

impl Logs for FaultyLogs {
    fn open(&self, id: ObjectId, schema: SchemaRef) -> SeamResult<Arc<dyn Source>> {
        let log = self.logs.open(id, schema)?;
        Ok(Arc::new(FaultyLog { log, cannot_tell: self.cannot_tell.clone() }))
    }

    fn remove(&self, id: ObjectId) -> SeamResult<()> {
        self.logs.remove(id)
    }
}

#[async_trait]
impl Source for FaultyLog {
    async fn append(&self, batches: Vec<SourceBatch>) -> SeamResult<Positions> {
        match self.cannot_tell.swap(false, Ordering::Relaxed) {
            true => Err(SeamError::Unknown("nobody can tell".to_string())),
            false => self.log.append(batches).await,
        }
    }

    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        self.log.poll(from, rows_max).await
    }

    async fn range(&self) -> SeamResult<(Positions, Positions)> {
        self.log.range().await
    }

    async fn kept_from(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<Positions> {
        self.log.kept_from(positions, keep_from_us).await
    }

    async fn commit(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<()> {
        self.log.commit(positions, keep_from_us).await
    }

    async fn sync(&self) -> SeamResult<()> {
        self.log.sync().await
    }
}

/// A folder on which one engine after the other runs.
struct World {
    folder: TempDir,
    /// Outlives the engines: file names that are drawn from it do not come again.
    clock: Arc<dyn Clock>,
    catalog: Snapshot,
    refuses_letters: Arc<AtomicBool>,
    refuses_steps: Arc<AtomicBool>,
    hangs: Hangs,
    cannot_tell: Arc<AtomicBool>,
}

impl World {
    fn new() -> World {
        World {
            folder: tempfile::tempdir().expect("a directory"),
            clock: TestClock::seeded(1),
            catalog: Snapshot::new(1, [clicks(), per_user()]),
            refuses_letters: Arc::default(),
            refuses_steps: Arc::default(),
            hangs: Hangs::default(),
            cannot_tell: Arc::default(),
        }
    }

    fn refuse_letters(&self, refuses: bool) {
        self.refuses_letters.store(refuses, Ordering::Relaxed);
    }

    /// What stops an engine here is dropping it: a crash, as far as the stores can tell.
    async fn start(&self) -> Engine {
        let part = |name: &str| self.folder.path().join(name);
        let store = FjallState::open(&part("state")).expect("a state store");
        let online = FjallOnline::open(&part("online")).expect("an online store");
        let history = IcebergHistory::open(&part("warehouse"), self.clock.clone()).await.expect("a history store");
        let seams = Seams {
            threads: 2,
            shares: true,
            steps_waiting_max: STEPS_WAITING_MAX,
            memory: Arc::new(Memory::unlimited()),
            clock: self.clock.clone(),
            logs: Arc::new(FaultyLogs {
                logs: LogsIn(part("log"), LogSettings::default()),
                cannot_tell: self.cannot_tell.clone(),
            }),
            state: Arc::new(FaultyState { store, refuses_letters: self.refuses_letters.clone() }),
            online: Arc::new(FaultyOnline { store: online, hangs: self.hangs.clone() }),
            history: Arc::new(FaultyHistory { store: history, refuses_steps: self.refuses_steps.clone() }),
        };
        Engine::start(seams, &self.catalog).await.expect("it recovers")
    }

    /// An engine whose store refuses letters, and that has two: one of the source's and one of the view's.
    async fn with_two_waiting(&self) -> Engine {
        let engine = self.start().await;
        ingest(&engine, &[(Some(1), 0), (Some(1), 10)]).await.expect("rows in order");
        self.refuse_letters(true);
        let rows = [(Some(1), 11), (Some(2), 5), (None, 12), (Some(2), 12)];
        let report = ingest(&engine, &rows).await.expect("rows are taken in though their letters are not");
        assert_eq!((report.rows, report.rejected()), (4, 1));
        engine
    }
}

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_string(), ty, not_null: false, comment: None }
}

pub fn clicks() -> Object {
    let relation = Relation {
        columns: vec![column("user_id", SqlType::Int8), column("at", SqlType::TimestampTz)],
        primary_key: vec![],
        upsert: false,
        encode: Default::default(),
        event_time: Some(1),
        delay_us: MINUTE_US,
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
        id: CLICKS,
        name: "clicks".to_string(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::Source(relation),
    }
}

pub fn per_user() -> Object {
    let view = FeatureView {
        sql: String::new(),
        query: "SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at) AS n FROM clicks".to_string(),
        relation: CLICKS,
        others: vec![],
        columns: vec![column("user_id", SqlType::Int8), column("at", SqlType::TimestampTz), column("n", SqlType::Int8)],
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
    Object {
        id: PER_USER,
        name: "per_user".to_string(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::FeatureView(view),
    }
}

/// Rows as user and minute after ten.
fn batch(rows: &[(Option<i64>, i64)]) -> RecordBatch {
    let users = Int64Array::from_iter(rows.iter().map(|(user, _)| *user));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, at)| TEN_US + at * MINUTE_US));
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(users), Arc::new(times.with_timezone(UTC))];
    RecordBatch::try_new(clicks().schema(), columns).expect("rows of the source")
}

pub async fn ingest(engine: &Engine, rows: &[(Option<i64>, i64)]) -> Result<IngestReport, IngestError> {
    engine.ingest(CLICKS, vec![batch(rows)], Conflict::Error).await
}

/// The same out of the one partition of a topic, from that offset on.
async fn take(engine: &Engine, offset: u64, rows: &[(Option<i64>, i64)]) -> Result<IngestReport, IngestError> {
    let origin = Origin {
        runs: vec![Run { row: 0, partition: 0, offset, append_us: TEN_US + 60 * MINUTE_US }],
        taken: vec![Taken { partition: 0, next: offset + rows.len() as u64, watermark_us: i64::MIN }],
        ..Origin::default()
    };
    engine.take(CLICKS, batch(rows), vec![], origin).await
}

/// The view's count for users 1 and 2, now, and how many rows a scan of the source shows.
fn shown(engine: &Engine) -> ([Option<i64>; 2], u64) {
    let view = engine.view(PER_USER).expect("the view runs");
    let counts = [1, 2].map(|user| {
        let row = view.state.lookup(&encode_row(&[Value::Int(user)]), view.now_us(0)).expect("a lookup")?;
        match &row.outputs[..] {
            [Value::Int(n)] => Some(*n),
            other => panic!("user {user} has {other:?}"),
        }
    });
    (counts, engine.source(CLICKS).expect("the source runs").rows())
}

/// What a reader sees of the letters, written or not.
async fn letters(engine: &Engine) -> Vec<(Option<ObjectId>, u64, RejectReason)> {
    let letters = engine.dead_letters().await.expect("the letters");
    letters.into_iter().map(|letter| (letter.view, letter.offset, letter.reason)).collect()
}

/// How many letters the store has.
async fn written(engine: &Engine) -> usize {
    engine.seams.state.page(Keyspace::DeadLetters, &[], None, usize::MAX).expect("entries").len()
}

/// The count for user 1 as the online store has it.
async fn online(engine: &Engine) -> Option<Value> {
    let key = Bytes::from(encode_row(&[Value::Int(1)]));
    let mut found = engine.seams.online.get_many(PER_USER, &[key]).await.expect("values");
    let row = found.pop().flatten()?.row?;
    OnlineRow::decode(&row).expect("a row").outputs.pop()
}

fn last_error(engine: &Engine) -> Option<String> {
    let source = engine.source(CLICKS).expect("the source runs");
    source.last_error.read().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_cannot_be_written_wait_and_fail_no_statement() {
    let world = World::new();
    let engine = world.with_two_waiting().await;
    assert_eq!(shown(&engine), ([Some(3), Some(1)], 5));
    assert_eq!(letters(&engine).await, TWO);
    assert_eq!(written(&engine).await, 0);
    let error = last_error(&engine).expect("it is said");
    assert!(error.starts_with("dead letters cannot be written: "), "{error}");

    // History needs no letters. A checkpoint would pass their records, so there is none.
    engine.commit_history().await.expect("history goes on");
    let refused = engine.checkpoint().await.expect_err("a checkpoint that loses letters");
    assert!(matches!(refused, SeamError::NotDone(_)), "{refused}");
    assert!(last_error(&engine).is_some());

    // The stream goes on, and what waits waits on.
    ingest(&engine, &[(Some(2), 13)]).await.expect("a row");
    assert_eq!(shown(&engine), ([Some(3), Some(2)], 6));
    assert_eq!(letters(&engine).await, TWO);
    assert_eq!(written(&engine).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_waited_are_written_with_the_next_rows() {
    let world = World::new();
    let engine = world.with_two_waiting().await;
    world.refuse_letters(false);
    ingest(&engine, &[(Some(1), 13)]).await.expect("a row");
    assert_eq!(written(&engine).await, 2);
    assert_eq!(letters(&engine).await, TWO);
    drop(engine);

    let engine = world.start().await;
    assert_eq!(letters(&engine).await, TWO);
    assert_eq!(shown(&engine), ([Some(4), Some(1)], 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_waited_are_written_by_the_next_checkpoint() {
    let world = World::new();
    let engine = world.with_two_waiting().await;
    world.refuse_letters(false);
    engine.checkpoint().await.expect("a checkpoint");
    assert_eq!(written(&engine).await, 2);
    assert_eq!(letters(&engine).await, TWO);
    assert_eq!(last_error(&engine), None);
    drop(engine);

    // Their records are not read again: the letters are there because they were written.
    let engine = world.start().await;
    assert_eq!(letters(&engine).await, TWO);
    assert_eq!(shown(&engine), ([Some(3), Some(1)], 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_letters_wait_loses_and_doubles_none() {
    let world = World::new();
    let engine = world.with_two_waiting().await;
    engine.commit_history().await.expect("history goes on");
    engine.checkpoint().await.expect_err("a checkpoint that loses letters");
    drop(engine);

    world.refuse_letters(false);
    let engine = world.start().await;
    assert_eq!(written(&engine).await, 2);
    assert_eq!(letters(&engine).await, TWO);
    assert_eq!(shown(&engine), ([Some(3), Some(1)], 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_too_many_letters_wait_nothing_more_is_taken_in() {
    let world = World::new();
    let engine = world.start().await;
    ingest(&engine, &[(Some(1), 0), (Some(1), 10)]).await.expect("rows in order");
    world.refuse_letters(true);
    let late = vec![(Some(2), 5); WAITING_MAX - 1];
    assert_eq!(ingest(&engine, &late).await.expect("late rows").rejected(), WAITING_MAX - 1);
    // One less than the most: this statement goes through, and with it there are as many as may wait.
    assert_eq!(ingest(&engine, &[(Some(2), 5), (Some(2), 11)]).await.expect("a late row and a good one").rejected(), 1);
    assert_eq!(shown(&engine), ([Some(2), Some(1)], 3));

    let position = || engine.source(CLICKS).expect("the source runs").position();
    let before = position();
    assert_eq!(before, Some(WAITING_MAX as u64 + 3));
    for _ in 0..2 {
        let refused = ingest(&engine, &[(Some(1), 12)]).await.expect_err("a row more");
        assert!(matches!(refused, IngestError::Seam(SeamError::NotDone(_))), "{refused}");
        // Nothing has happened: the client may send the row again.
        assert_eq!(position(), before);
        assert_eq!(shown(&engine), ([Some(2), Some(1)], 3));
    }
    assert_eq!(letters(&engine).await.len(), WAITING_MAX);
    assert_eq!(written(&engine).await, 0);

    world.refuse_letters(false);
    ingest(&engine, &[(Some(1), 12)]).await.expect("a row");
    assert_eq!(shown(&engine), ([Some(3), Some(1)], 4));
    assert_eq!(written(&engine).await, WAITING_MAX);
    assert_eq!(letters(&engine).await.len(), WAITING_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_state_is_damaged_stands_still_alone_and_resumes_from_the_log() {
    let world = World::new();
    let engine = world.start().await;
    ingest(&engine, &[(Some(1), 0), (Some(1), 10), (Some(2), 11)]).await.expect("rows");
    engine.flush_online().await.expect("values");
    engine.checkpoint().await.expect("a checkpoint");
    drop(engine);
    let store = FjallState::open(&world.folder.path().join("state")).expect("a state store");
    let keys = store.page(Keyspace::Keys, &PER_USER.0.to_be_bytes(), None, 10).expect("the view's keys");
    assert_eq!(keys.len(), 2);
    let puts = keys.into_iter().map(|(key, _)| (Keyspace::Keys, key, vec![0xff; 3])).collect();
    store.checkpoint(WriteBatch { puts, deletes: vec![] }).await.expect("damage");
    drop(store);

    // Nobody has needed a key yet.
    let engine = world.start().await;
    assert!(engine.failure(PER_USER).is_none());
    // A row needs one. It is in the log, so the statement has succeeded; the view has not.
    assert_eq!(ingest(&engine, &[(Some(1), 12)]).await.expect("a row").rows, 1);
    let failure = engine.failure(PER_USER).expect("the view has failed");
    assert!(failure.error.contains("per_user") && failure.error.contains("cannot be read"), "{}", failure.error);
    assert_eq!(failure.positions.map(|positions| positions.get(0)), Some(3));
    assert!(engine.view(PER_USER).is_none(), "nobody reads a view that has failed");
    assert_eq!(ingest(&engine, &[(Some(2), 13)]).await.expect("its source goes on").rows, 1);
    engine.checkpoint().await.expect("so do checkpoints");

    assert!(engine.resume_view(&per_user(), &world.catalog).await.expect("it resumes"));
    assert!(engine.failure(PER_USER).is_none());
    assert_eq!(shown(&engine), ([Some(3), Some(2)], 5));
    assert!(!engine.resume_view(&per_user(), &world.catalog).await.expect("it runs"));
    engine.checkpoint().await.expect("a checkpoint");
    drop(engine);
    assert_eq!(shown(&world.start().await), ([Some(3), Some(2)], 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_another_version_is_built_anew_from_the_log() {
    let world = World::new();
    let engine = world.start().await;
    ingest(&engine, &[(Some(1), 0), (Some(1), 10), (Some(2), 11)]).await.expect("rows");
    engine.flush_online().await.expect("values");
    engine.checkpoint().await.expect("a checkpoint");
    drop(engine);
    // The number of the format comes first, and what a key is in it nobody knows.
    let store = FjallState::open(&world.folder.path().join("state")).expect("a state store");
    let id = PER_USER.0.to_be_bytes();
    let mut progress = store.get(Keyspace::Progress, &id).expect("a store").expect("how far the view is");
    assert_eq!(u32::from(progress[0]), STATE_FORMAT);
    progress[0] -= 1;
    let mut puts = vec![(Keyspace::Progress, id.to_vec(), progress)];
    let keys = store.page(Keyspace::Keys, &id, None, 10).expect("the view's keys");
    puts.extend(keys.into_iter().map(|(key, _)| (Keyspace::Keys, key, vec![0xff; 3])));
    store.checkpoint(WriteBatch { puts, deletes: vec![] }).await.expect("another format");
    drop(store);

    let engine = world.start().await;
    assert!(engine.failure(PER_USER).is_none());
    assert_eq!(shown(&engine), ([Some(2), Some(1)], 3));
    ingest(&engine, &[(Some(2), 12)]).await.expect("a row");
    engine.checkpoint().await.expect("a checkpoint");
    drop(engine);
    assert_eq!(shown(&world.start().await), ([Some(2), Some(2)], 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_wait_for_history_where_too_many_steps_do_and_are_refused_where_it_cannot_be_written() {
    let world = World::new();
    let engine = world.start().await;
    world.refuses_steps.store(true, Ordering::Relaxed);
    // Each is a step once the next has moved the watermark past it.
    for minute in 0..7 {
        ingest(&engine, &[(Some(1), 2 * minute)]).await.expect("a row");
    }
    let view = engine.view(PER_USER).expect("the view runs");
    assert!(view.state.steps_waiting() > STEPS_WAITING_MAX, "{}", view.state.steps_waiting());
    let before = engine.source(CLICKS).expect("the source runs").position();
    let refused = ingest(&engine, &[(Some(1), 20)]).await.expect_err("a row more").to_string();
    assert!(refused.contains("\"clicks\" takes no more rows") && refused.contains("\"per_user\""), "{refused}");
    assert_eq!(engine.source(CLICKS).expect("the source runs").position(), before);
    assert_eq!(shown(&engine), ([Some(7), None], 7));

    world.refuses_steps.store(false, Ordering::Relaxed);
    ingest(&engine, &[(Some(1), 20)]).await.expect("a row");
    // What waited has been committed before; the new row has made one or two.
    assert!(view.state.steps_waiting() <= 2, "{}", view.state.steps_waiting());
    assert_eq!(shown(&engine), ([Some(8), None], 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_of_the_watermark_keeps_no_more_steps_in_memory_than_rows_may() {
    let world = World::new();
    let engine = world.start().await;
    ingest(&engine, &[(Some(1), 0)]).await.expect("a row");
    // A step a month for the quiet key, for ten years.
    const MONTHS: usize = 120;
    engine.advance_watermark(CLICKS, TEN_US + 10 * 365 * 24 * 60 * MINUTE_US).await.expect("a leap");
    let view = engine.view(PER_USER).expect("the view runs");
    let steps = view.state.counters.steps.load(Ordering::Relaxed) as usize;
    assert!(steps >= MONTHS - 2, "{steps} steps");
    assert!(view.state.steps_waiting() <= STEPS_WAITING_MAX + 2, "{} wait", view.state.steps_waiting());

    // Where history cannot be written it stops on the way, says so, and goes on when it can.
    world.refuses_steps.store(true, Ordering::Relaxed);
    let far_us = TEN_US + 20 * 365 * 24 * 60 * MINUTE_US;
    let stopped = engine.advance_watermark(CLICKS, far_us).await.expect_err("no history").to_string();
    assert!(stopped.contains("wait for their history"), "{stopped}");
    let source = engine.source(CLICKS).expect("the source runs");
    assert!(source.frontier_us() < far_us && view.state.steps_waiting() <= STEPS_WAITING_MAX + 2);
    world.refuses_steps.store(false, Ordering::Relaxed);
    engine.advance_watermark(CLICKS, far_us).await.expect("the rest of the leap");
    assert_eq!(source.frontier_us(), far_us);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_online_store_that_hangs_holds_up_no_checkpoint_and_gets_what_it_had_not_after_a_crash() {
    let world = World::new();
    let engine = world.start().await;
    ingest(&engine, &[(Some(1), 0)]).await.expect("a row");
    engine.flush_online().await.expect("a value");
    assert_eq!(online(&engine).await, Some(Value::Int(1)));
    // The second row moves the watermark past the first: neither the log behind the checkpoint nor time tells of user 1.
    ingest(&engine, &[(Some(1), 10), (Some(2), 20)]).await.expect("rows");

    let shut = world.hangs.gate.write().await;
    // One told before.
    world.hangs.begun.notified().await;
    {
        let flush = engine.flush_online();
        tokio::pin!(flush);
        tokio::select! {
            flushed = &mut flush => panic!("it cannot have been put: {flushed:?}"),
            () = world.hangs.begun.notified() => {}
        }
        let view = engine.view(PER_USER).expect("the view runs");
        assert_eq!(view.state.waiting_online(), 2, "on their way");
        // Would it wait for the put, this test would not end.
        tokio::select! {
            flushed = &mut flush => panic!("it cannot have been put: {flushed:?}"),
            saved = engine.checkpoint() => saved.expect("a checkpoint beside a put"),
        }
    }
    drop(engine);
    drop(shut);

    let engine = world.start().await;
    assert_eq!(shown(&engine), ([Some(2), Some(1)], 3));
    assert_eq!(online(&engine).await, Some(Value::Int(1)), "it has not arrived");
    engine.flush_online().await.expect("values");
    assert_eq!(online(&engine).await, Some(Value::Int(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_log_could_not_tell_whether_it_has_is_taken_again_and_counts_once() {
    let world = World::new();
    let engine = world.start().await;
    take(&engine, 0, &[(Some(1), 0), (Some(1), 10)]).await.expect("two messages");
    let position = |engine: &Engine| engine.source(CLICKS).expect("the source runs").position();

    world.cannot_tell.store(true, Ordering::Relaxed);
    let next = [(Some(1), 11), (Some(2), 12)];
    let error = take(&engine, 2, &next).await.expect_err("nobody can tell");
    assert!(matches!(error, IngestError::Seam(SeamError::Unknown(_))), "{error}");
    assert_eq!((shown(&engine), position(&engine)), (([Some(2), None], 2), Some(2)));
    // The log takes something again: so it knows that it has not got it.
    take(&engine, 2, &next).await.expect("two more");
    assert_eq!((shown(&engine), position(&engine)), (([Some(3), Some(1)], 4), Some(4)));
    let again = take(&engine, 2, &next).await.expect_err("the same again");
    assert!(matches!(again, IngestError::TakenBefore { partition: 0, offset: 2, next: 4 }), "{again}");
    drop(engine);

    let engine = world.start().await;
    assert_eq!((shown(&engine), position(&engine)), (([Some(3), Some(1)], 4), Some(4)));
    assert_eq!(engine.begin_taking(CLICKS).await, BTreeMap::from([(0, 4)]));
}
