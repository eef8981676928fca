//! A source's archive: every admitted event is in it once, whatever fails on the way, and the log gives up nothing that it has not.
//!
//! The engine is whole, its parts are the embedded ones; what is stopped is dropped. The faults: the next commit to the archive does
//! not happen, and says so or not, or it happens and nobody can tell.

use crate::{
    engine_faults::{LogsIn, clicks, ingest, per_user},
    test_clock::TestClock,
};
use arrow::{array::AsArray, compute::concat_batches, datatypes::Int64Type, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{catalog::TableProvider, prelude::SessionContext};
use parking_lot::Mutex;
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
    runtime::{Engine, Seams},
    seam::{Clock, CommitTag, Effort, HistoryStore, HistoryTable, Positions, SeamError, SeamResult},
    view::Memory,
};

const CLICKS: ObjectId = ObjectId::FIRST;
/// A view that is made when the log has been shortened.
const LATER: ObjectId = ObjectId(ObjectId::FIRST.0 + 2);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Refused,
    Lost,
    Unheard,
}

type NextFault = Arc<Mutex<Option<Fault>>>;

/// The embedded history, with a fault for tables of this source.
struct Faulty {
    store: IcebergHistory,
    next: NextFault,
    /// The archive, as it was appended to last.
    table: Arc<Mutex<Option<HistoryTable>>>,
    /// No commit to the archive happens.
    refuses: Arc<AtomicBool>,
}

#[async_trait]
impl HistoryStore for Faulty {
    async fn create(&self, table: &HistoryTable) -> SeamResult<()> {
        self.store.create(table).await
    }

    async fn drop(&self, name: &str) -> SeamResult<()> {
        HistoryStore::drop(&self.store, name).await
    }

    async fn retain(&self, owners: &BTreeSet<ObjectId>) -> SeamResult<()> {
        self.store.retain(owners).await
    }

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        self.store.rename(from, to).await
    }

    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()> {
        if table.view != CLICKS {
            return self.store.append(table, steps, tag).await;
        }
        if self.refuses.load(Ordering::Relaxed) {
            return Err(SeamError::NotDone("no archive today".to_string()));
        }
        *self.table.lock() = Some(table.clone());
        let fault = self.next.lock().take();
        match fault {
            None => self.store.append(table, steps, tag).await,
            Some(Fault::Refused) => Err(SeamError::NotDone("not now".to_string())),
            Some(Fault::Lost) => Err(SeamError::Unknown("nobody can tell".to_string())),
            Some(Fault::Unheard) => {
                self.store.append(table, steps, tag).await?;
                Err(SeamError::Unknown("nobody can tell".to_string()))
            }
        }
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        self.store.last_tag(name).await
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        self.store.provider(table).await
    }

    async fn forget(&self, id: ObjectId, name: &str) -> SeamResult<()> {
        self.store.forget(id, name).await
    }

    async fn snapshot_id(&self, name: &str) -> SeamResult<Option<i64>> {
        self.store.snapshot_id(name).await
    }
}

/// A folder on which one engine after the other runs.
struct World {
    folder: TempDir,
    clock: Arc<dyn Clock>,
    next: NextFault,
    table: Arc<Mutex<Option<HistoryTable>>>,
    refuses: Arc<AtomicBool>,
}

impl World {
    fn new() -> World {
        World {
            folder: tempfile::tempdir().expect("a directory"),
            clock: TestClock::seeded(1),
            next: Arc::default(),
            table: Arc::default(),
            refuses: Arc::default(),
        }
    }

    async fn history(&self) -> IcebergHistory {
        let warehouse = self.folder.path().join("warehouse");
        IcebergHistory::open(&warehouse, self.clock.clone()).await.expect("a history store")
    }

    async fn start(&self, source: Object) -> Engine {
        // The view reads what is called clicks.
        let view = (source.name == "clicks").then(per_user);
        self.start_with(source, view).await
    }

    async fn start_with(&self, source: Object, views: impl IntoIterator<Item = Object>) -> Engine {
        let part = |name: &str| self.folder.path().join(name);
        let history = Faulty {
            store: self.history().await,
            next: self.next.clone(),
            table: self.table.clone(),
            refuses: self.refuses.clone(),
        };
        // A segment for each append, so that retention has something to remove.
        let logs = LogSettings { segment_bytes: 1, ..LogSettings::default() };
        let seams = Seams {
            threads: 2,
            shares: true,
            steps_waiting_max: 1000,
            memory: Arc::new(Memory::unlimited()),
            clock: self.clock.clone(),
            logs: Arc::new(LogsIn(part("log"), logs)),
            state: Arc::new(FjallState::open(&part("state")).expect("a state store")),
            online: Arc::new(FjallOnline::open(&part("online")).expect("an online store")),
            history: Arc::new(history),
        };
        let catalog = Snapshot::new(1, [source].into_iter().chain(views));
        Engine::start(seams, &catalog).await.expect("it recovers")
    }

    /// The offsets in the archive, ascending, each as often as it is there.
    async fn archived(&self, history: &dyn HistoryStore) -> Vec<i64> {
        let table = self.table.lock().clone().expect("something was archived");
        let context = SessionContext::new();
        context.register_table("a", history.provider(&table).await.expect("the archive")).expect("a table");
        let frame = context.sql("SELECT _offset FROM a ORDER BY _offset").await.expect("a plan");
        let batches = frame.collect().await.expect("offsets");
        batches.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }
}

/// The source, with an archive.
fn archived_clicks(retention_us: Option<i64>) -> Object {
    let mut source = clicks();
    if let Body::Source(relation) = &mut source.body {
        relation.options.insert("archive".to_string(), "iceberg".to_string());
        relation.retention_us = retention_us;
    }
    source
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_admitted_event_is_archived_once_whatever_becomes_of_a_commit() {
    let world = World::new();
    let (mut expected, mut offset, mut minute) = (vec![], 0, 0);
    let faults = [None, Some(Fault::Refused), Some(Fault::Lost), Some(Fault::Unheard), None];
    for fault in faults {
        for crashes in [false, true] {
            let engine = world.start(archived_clicks(None)).await;
            // The third is late, but in the very first batch: below the watermark, a minute back.
            minute += 10;
            ingest(&engine, &[(Some(1), minute), (Some(2), minute + 5), (Some(1), minute - 9)]).await.expect("rows");
            // Which rows that is, the log says.
            let (batches, _) = {
                let source = engine.source(CLICKS).expect("the source runs");
                let from = Positions([(0, offset)].into());
                source.records(&from).await.expect("what was appended")
            };
            for batch in &batches {
                let rejected = &batch.admission.as_ref().expect("a decision").rejected;
                for row in 0..batch.rows.num_rows() as u32 {
                    if rejected.iter().all(|reject| reject.row != row) {
                        expected.push((batch.base_offset + u64::from(row)) as i64);
                    }
                }
                offset = batch.end_offset();
            }
            *world.next.lock() = fault;
            let saved = engine.checkpoint().await;
            assert_eq!(saved.is_err(), fault.is_some(), "{fault:?}: {saved:?}");
            if !crashes {
                engine.checkpoint().await.expect("the next one");
                assert_eq!(world.archived(engine.seams.history.as_ref()).await, expected, "{fault:?}");
            }
        }
    }
    let engine = world.start(archived_clicks(None)).await;
    engine.checkpoint().await.expect("a checkpoint");
    assert_eq!(world.archived(engine.seams.history.as_ref()).await, expected);
    assert!((expected.len() as u64) < offset, "some were late");

    // A checkpoint without a new event commits nothing.
    let before = engine.seams.history.snapshot_id("clicks").await.expect("the table");
    engine.checkpoint().await.expect("a checkpoint");
    assert_eq!(engine.seams.history.snapshot_id("clicks").await.expect("the table"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_from_the_log_only_what_the_archive_has() {
    let world = World::new();
    // The clock stands at 0, and so does the time of every append: all are past it.
    let engine = world.start(archived_clicks(Some(-1))).await;
    let begin = async || {
        let source = engine.source(CLICKS).expect("the source runs");
        source.log().range().await.expect("a range").0.get(0)
    };
    world.refuses.store(true, Ordering::Relaxed);
    for minute in 0..5 {
        ingest(&engine, &[(Some(1), minute)]).await.expect("a row");
    }
    let refused = engine.checkpoint().await.expect_err("the archive cannot be written").to_string();
    assert!(refused.contains("no archive today"), "{refused}");
    assert_eq!(begin().await, 0);

    world.refuses.store(false, Ordering::Relaxed);
    engine.checkpoint().await.expect("a checkpoint");
    assert!(begin().await > 0, "past retention, and archived");
    assert_eq!(world.archived(engine.seams.history.as_ref()).await, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_is_called_as_its_source_and_goes_with_it() {
    let world = World::new();
    let engine = world.start(archived_clicks(None)).await;
    ingest(&engine, &[(Some(1), 0), (Some(2), 1)]).await.expect("rows");
    engine.checkpoint().await.expect("a checkpoint");

    let renamed = Object { name: "taps".to_string(), ..archived_clicks(None) };
    engine.source(CLICKS).expect("the source runs").set_name(&renamed);
    engine.checkpoint().await.expect("a checkpoint without an event");
    let history = &engine.seams.history;
    assert!(history.last_tag("clicks").await.is_err(), "it is called otherwise");
    assert_eq!(history.last_tag("taps").await.expect("the table").map(|tag| tag.positions.get(0)), Some(2));
    drop(engine);

    // A start keeps what belongs to a source, and files are put together as those of history.
    let engine = world.start(renamed).await;
    ingest(&engine, &[(Some(1), 2)]).await.expect("a row");
    engine.checkpoint().await.expect("a checkpoint");
    let table = world.table.lock().clone().expect("it was archived");
    let store = world.history().await;
    assert_eq!(store.compact(&table, &Effort::WHOLE).await.expect("a rewrite").files_after, 1);
    assert_eq!(world.archived(&store).await, [0, 1, 2]);

    engine.drop_source(CLICKS).await.expect("a drop");
    assert_eq!(store.metadata_file("taps").await.expect("the catalog"), None);
}

/// All steps of a view, with the keys first.
async fn steps(engine: &Engine, view: ObjectId) -> RecordBatch {
    let table = engine.view(view).expect("the view runs").history.read().clone();
    let context = SessionContext::new();
    let history = engine.seams.history.provider(&table).await.expect("its history");
    context.register_table("steps", history).expect("a table");
    let sql = r#"SELECT user_id, "at", n, _op, _event_time FROM steps ORDER BY user_id, "at""#;
    let batches = context.sql(sql).await.expect("a plan").collect().await.expect("steps");
    concat_batches(&batches.first().expect("steps").schema(), &batches).expect("one batch")
}

/// What a view could not use, by all that tells an event.
async fn letters(engine: &Engine, view: ObjectId) -> Vec<(u32, u64, i64, String)> {
    let all = engine.dead_letters().await.expect("the letters").into_iter();
    all.filter(|letter| letter.view == Some(view))
        .map(|letter| (letter.partition, letter.offset, letter.append_us, letter.payload))
        .collect()
}

/// It counts all events of each user, so one that is missing, or is there twice, shows in every step behind it. There are days, and
/// events that come late within the watermark's delay, too late, and without a key; the log begins with an event that is earlier than one of
/// the archive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_made_when_the_log_was_shortened_has_what_one_from_before_has() {
    let world = World::new();
    let engine = world.start(archived_clicks(Some(-1))).await;
    let come = async |rounds: std::ops::Range<i64>| {
        for round in rounds {
            let minute = round * 200;
            let user = (round % 7 != 0).then_some(round % 3);
            let rows =
                [(Some(0), minute - 200), (user, minute), (Some(1), minute - round % 2), (Some(2), minute - 500)];
            ingest(&engine, &rows).await.expect("rows");
        }
    };
    for rounds in [0..10, 10..20, 20..30] {
        come(rounds).await;
        engine.checkpoint().await.expect("a checkpoint");
    }
    // What the archive has not yet.
    come(30..33).await;
    let begin = engine.source(CLICKS).expect("the source runs").log().range().await.expect("a range").0.get(0);
    assert!(begin > 0, "the log was shortened");
    drop(engine);

    // It has no checkpoint, as after a crash in its CREATE: it begins with what there is.
    let later = Object { id: LATER, name: "later".to_string(), ..per_user() };
    let views = [per_user(), later];
    let before = views[0].id;
    let engine = world.start_with(archived_clicks(Some(-1)), views.clone()).await;
    let check = async |engine: &Engine| {
        let frontier = |view| engine.view(view).expect("the view runs").state.frontier_us();
        assert_eq!(frontier(LATER), frontier(before));
        let expected = steps(engine, before).await;
        assert!(expected.num_rows() > 60, "{} steps", expected.num_rows());
        assert_eq!(steps(engine, LATER).await, expected);
        let lacking = letters(engine, before).await;
        assert!(lacking.len() > 3, "{lacking:?}");
        assert_eq!(letters(engine, LATER).await, lacking);
    };
    engine.checkpoint().await.expect("a checkpoint");
    check(&engine).await;
    drop(engine);

    // From its own checkpoint.
    let engine = world.start_with(archived_clicks(Some(-1)), views).await;
    ingest(&engine, &[(Some(1), 40 * 200)]).await.expect("a row");
    engine.checkpoint().await.expect("a checkpoint");
    check(&engine).await;
}
