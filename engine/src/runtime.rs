//! The pipeline: what runs between the seams.
//!
//! One [`SourceRuntime`] per source or table: append → admit → apply to every view on it, under one lock, so that
//! when an `INSERT` returns every later lookup sees it. [`Engine::advance_idle`] and [`Engine::flush_online`] do
//! what time brings (idle sources, departures in the online store); [`Engine::checkpoint`] makes all of it durable:
//!
//! ```text
//!   1  under the source's lock: note positions and frontier F, take the pending steps and the dirty keys' bytes
//!   2  append the steps to history with the tag (F, positions, epoch) in the same commit
//!   3  write the dirty keys and the positions to the state store, atomically
//! ```
//!
//! A crash between 2 and 3 leaves older state beside newer history: the log is replayed from the older positions, and
//! steps with an instant below history's F are recognised and not written again. A crash before 2 loses nothing,
//! because 3 never runs ahead of 2.

mod archive;
mod backfill;
mod change;
mod checkpoint;
mod columns;
mod extent;
mod failed;
mod family;
mod idle;
mod letters;
mod maintenance;
mod meters;
mod plain;
mod reading;
mod refresh;
mod report;
mod restore;
mod restoring;
mod source;
mod topic;

use change::gone;
pub use change::{Alone, Change, Turn};
pub(crate) use columns::records_of;
pub use failed::Failure;
pub use letters::DeadLetter;
pub use maintenance::{Care, Maintenance, Outcome, Run, Upkeep};
pub use meters::{EngineMeters, SPANS_US, SourceMeters, ViewMeters};
pub use plain::Plain;
pub use reading::Reading;
pub(crate) use reading::lock_all;
pub use refresh::Refreshed;
pub use report::{Conflict, IngestError, IngestReport};
pub use restore::STATE_FORMAT;
pub use source::SourceRuntime;

use crate::{
    compiled::CompiledView,
    meter::span,
    online::OnlineRow,
    progress::{Phase, Progress},
    seam::{
        Clock, HistoryPartition, HistoryStore, HistoryTable, Keyspace, OnlineStore, OnlineValue, Put, PutVersion,
        SeamError, SeamResult, Source, StateStore,
    },
    view::{Cold, Memory, OnlineRows, Shown, ViewState},
};
use arrow::datatypes::SchemaRef;
use family::FamilyRuntime;
use futures::future::join_all;
use parking_lot::RwLock;
use refresh::Unput;
use restoring::Restoring;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};
use tidemark_catalog::{ClockMode, FeatureView, Object, ObjectId};

/// Opens and removes the log of a source.
pub trait Logs: Send + Sync {
    fn open(&self, id: ObjectId, schema: SchemaRef) -> SeamResult<Arc<dyn Source>>;
    fn remove(&self, id: ObjectId) -> SeamResult<()>;
    /// Those that are there, also of what no checkpoint has met.
    fn all(&self) -> SeamResult<Vec<ObjectId>> {
        Ok(vec![])
    }
}

/// The implementations behind the five seams.
#[derive(Clone)]
pub struct Seams {
    /// How many threads a large batch is spread over, by key.
    pub threads: usize,
    /// Whether views over the same rows, key and windows are kept together (decision 0018).
    pub shares: bool,
    /// What the keys of all views may take in memory.
    pub memory: Arc<Memory>,
    /// With so many steps of one view in memory that wait for their history, they are committed before more rows are taken in; from
    /// a quarter of that on somebody should commit them beside the rows ([`Engine::crowded`]).
    pub steps_waiting_max: usize,
    pub clock: Arc<dyn Clock>,
    pub logs: Arc<dyn Logs>,
    pub state: Arc<dyn StateStore>,
    pub online: Arc<dyn OnlineStore>,
    pub history: Arc<dyn HistoryStore>,
}

pub struct Engine {
    pub seams: Seams,
    /// In order, as the views: what is asked of the seams, and when, depends on nothing but what has happened.
    sources: RwLock<BTreeMap<ObjectId, Arc<SourceRuntime>>>,
    /// Those that have failed since the start among them.
    views: RwLock<BTreeMap<ObjectId, Arc<ViewRuntime>>>,
    /// What keeps the keys of several views together; under ids of their own.
    families: RwLock<BTreeMap<ObjectId, Arc<ViewRuntime>>>,
    /// The id of the family that was founded last since the start; 0: none was.
    last_family: AtomicU32,
    /// Views that could not be started.
    not_started: RwLock<BTreeMap<ObjectId, Failure>>,
    /// Views that are not back yet since the start; they are in none of the above.
    restoring: Restoring,
    /// Grows with every start; fences writers of earlier starts.
    epoch: u64,
    puts: AtomicU64,
    pub meters: EngineMeters,
    /// One checkpoint at a time.
    checkpointing: tokio::sync::Mutex<()>,
    /// Steps crowd in memory.
    crowding: tokio::sync::Notify,
    /// Dropped views of which the online store still has values.
    dropped_online: parking_lot::Mutex<BTreeSet<ObjectId>>,
}

/// One thing to do for the online store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnlineTurn {
    /// Removes what dropped views have left on a server.
    Drops(u64),
    /// Puts what has changed of a view, or of a family.
    View(ObjectId),
}

/// A feature view, its sources, and its table in history. Or a family of views, which has no history of its own.
pub struct ViewRuntime {
    pub state: Arc<ViewState>,
    /// Each once, in the order of their ids.
    pub sources: Vec<Reading>,
    pub history: RwLock<HistoryTable>,
    /// Where a source's log had been shortened before the view was made: the first instant with values.
    history_start_us: Option<i64>,
    pub version: u32,
    /// When it was created; with its id it names the view for all time.
    created_us: i64,
    online: AtomicU8,
    /// Held while values are on their way to the online store, so that a checkpoint knows which have arrived.
    flushing: Arc<tokio::sync::Mutex<()>>,
    /// It has chosen an online store, which must not hold up the views of another, nor be held up by theirs.
    stands_alone: AtomicBool,
    /// Sequence number of the next history commit.
    sequence: AtomicU64,
    /// The last failure of a background action on this view, for people.
    pub last_error: RwLock<Option<String>>,
    /// Why the online store is not level with the view; `None`: it is, or nothing has been put yet.
    pub online_error: RwLock<Option<String>>,
    pub meters: ViewMeters,
    pub maintenance: RwLock<Maintenance>,
    /// Set once: from then on nothing is applied to it and nobody reads it.
    failure: RwLock<Option<Failure>>,
    /// Of a family: whose keys it keeps.
    family: Option<FamilyRuntime>,
}

/// How a view stands with the online store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Online {
    /// Nobody has asked the store yet, or not lately.
    Closed,
    /// The store has lost what it had.
    Lost,
    /// All values are being put.
    Filling,
    Open,
}

impl ViewRuntime {
    fn new(
        object: &Object,
        state: Arc<ViewState>,
        sources: Vec<Reading>,
        sequence: u64,
        family: Option<FamilyRuntime>,
    ) -> ViewRuntime {
        let definition = object.feature_view();
        ViewRuntime {
            history: RwLock::new(Engine::history_table(object, &state.compiled)),
            state,
            sources,
            history_start_us: definition.and_then(|view| view.history_start_us),
            version: definition.map_or(1, |view| view.version),
            created_us: object.created_us,
            online: AtomicU8::new(Online::Closed as u8),
            flushing: Arc::default(),
            stands_alone: AtomicBool::new(stands_alone(object)),
            sequence: AtomicU64::new(sequence),
            last_error: RwLock::default(),
            online_error: RwLock::default(),
            meters: ViewMeters::default(),
            maintenance: RwLock::default(),
            failure: RwLock::default(),
            family,
        }
    }

    fn online(&self) -> Online {
        match self.online.load(Ordering::Acquire) {
            0 => Online::Closed,
            1 => Online::Lost,
            2 => Online::Filling,
            _ => Online::Open,
        }
    }

    /// Keeps for people how an action in the background ended; success takes back only what the same action has left.
    fn note<T>(&self, action: &str, outcome: &SeamResult<T>) {
        let mut last = self.last_error.write();
        match outcome {
            Err(error) => *last = Some(format!("{action}: {error}")),
            Ok(_) => drop(last.take_if(|error| error.starts_with(action))),
        }
    }

    /// The same of the online store, which has an error of its own beside.
    fn note_online<T>(&self, outcome: &SeamResult<T>) {
        self.note("online store", outcome);
        *self.online_error.write() = outcome.as_ref().err().map(ToString::to_string);
    }

    fn set_online(&self, online: Online) {
        self.online.store(online as u8, Ordering::Release);
    }

    /// The last flush found that the store does not have the view any more.
    fn has_lost_online(&self) -> bool {
        self.online() == Online::Lost
    }

    /// Whether the store still has the view is asked with the next flush. One that is being filled is left alone.
    fn doubt_online(&self) {
        let (open, closed) = (Online::Open as u8, Online::Closed as u8);
        let _ = self.online.compare_exchange(open, closed, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The view's now: one instant for one statement. `clock_us` is the server's clock, read once by the caller.
    pub fn now_us(&self, clock_us: i64) -> i64 {
        let of_sources = self.sources.iter().map(|reading| reading.source.now_us(clock_us));
        of_sources.fold(self.state.frontier_us(), i64::max)
    }
}

impl Engine {
    pub fn source(&self, id: ObjectId) -> Option<Arc<SourceRuntime>> {
        self.sources.read().get(&id).cloned()
    }

    /// A view that runs.
    pub fn view(&self, id: ObjectId) -> Option<Arc<ViewRuntime>> {
        self.views.read().get(&id).filter(|view| view.failure.read().is_none()).cloned()
    }

    pub fn sources(&self) -> Vec<Arc<SourceRuntime>> {
        self.sources.read().values().cloned().collect()
    }

    /// The views that run.
    pub fn views(&self) -> Vec<Arc<ViewRuntime>> {
        self.views.read().values().filter(|view| view.failure.read().is_none()).cloned().collect()
    }

    /// What has keys of its own, and runs: views that stand for themselves, and families.
    fn kept(&self) -> Vec<Arc<ViewRuntime>> {
        let (views, families) = (self.views.read(), self.families.read());
        let alone = views.values().filter(|view| !view.state.is_hosted());
        alone.chain(families.values()).filter(|view| !view.has_failed()).cloned().collect()
    }

    fn cold(&self, id: ObjectId) -> Cold {
        Cold::new(id, self.seams.state.clone(), self.seams.memory.clone())
    }

    /// Starts a source or table that has just been created.
    pub async fn create_source(&self, object: &Object) -> SeamResult<()> {
        let source = SourceRuntime::open(object, &self.seams, None).await?;
        self.sources.write().insert(object.id, Arc::new(source));
        Ok(())
    }

    /// Stops a source or table and removes all it has.
    pub async fn drop_source(&self, id: ObjectId) -> SeamResult<()> {
        let source = self.sources.write().remove(&id);
        if let Some(source) = source {
            // Whoever appends right now finishes first.
            drop(source.lock().await);
            self.forget_archive(&source).await;
        }
        self.seams.logs.remove(id)?;
        self.seams.state.remove(Keyspace::DeadLetters, &id.0.to_be_bytes()).await?;
        // Last: by it the next start finds what a crash on the way has left.
        self.seams.state.remove(crate::seam::Keyspace::Progress, &id.0.to_be_bytes()).await
    }

    /// The history table of a view.
    pub fn history_table(object: &Object, compiled: &CompiledView) -> HistoryTable {
        let schema = compiled.history_schema.clone();
        let index = |name: &str| schema.index_of(name).unwrap_or(0);
        let plan = &compiled.plan;
        let comments = schema
            .fields()
            .iter()
            .map(|field| {
                let own = object.columns().iter().find(|c| &c.name == field.name()).and_then(|c| c.comment.clone());
                own.unwrap_or_else(|| base_comment(compiled, field.name()))
            })
            .collect();
        HistoryTable {
            view: object.id,
            name: object.history_name(),
            key: plan.key_outputs().into_iter().map(|i| index(&plan.outputs[i].name)).collect(),
            time: index(&plan.outputs[plan.time_output()].name),
            schema,
            comments,
            partition: match object.feature_view().is_some_and(FeatureView::history_by_day) {
                true => HistoryPartition::Day,
                false => HistoryPartition::Month,
            },
        }
    }

    /// Builds a feature view from the beginning of its sources' logs, and keeps it current from then on. Returns when it
    /// has caught up. The history table exists afterwards. Returns the first instant of its history if a log had been
    /// shortened before: the catalog is to keep it.
    pub async fn create_view(&self, object: &Object, compiled: CompiledView) -> SeamResult<Option<i64>> {
        self.create_view_watched(object, compiled, &Progress::default()).await
    }

    /// The same, and tells how many records of the logs have been applied.
    pub async fn create_view_watched(
        &self,
        object: &Object,
        compiled: CompiledView,
        progress: &Progress,
    ) -> SeamResult<Option<i64>> {
        let compiled = Arc::new(compiled);
        if !stands_alone(object) && self.create_in_family(object, &compiled, progress).await? {
            return Ok(None);
        }
        let sources = self.readings(&object.name, &compiled.plan)?;
        let table = Self::history_table(object, &compiled);
        // A CREATE that a crash has cut leaves keys of a view that never was, and its number comes again.
        self.forget_keys(object.id).await?;
        self.seams.history.create(&table).await?;
        let read = reading::sources_of(&sources);
        let mut locked = reading::lock_all(&read).await;
        let history_start_us = match backfill::start_us(&read, &compiled.plan, &self.seams).await {
            Ok(start_us) => start_us,
            Err(error) => {
                self.forget_view(object.id, &table.name).await?;
                return Err(error);
            }
        };
        let tables = reading::tables(&compiled.plan, &sources);
        let cold = Some(self.cold(object.id));
        let state = ViewState::new(object.id, compiled, i64::MIN, self.seams.threads, cold, tables);
        let mut view = ViewRuntime::new(object, Arc::new(state), sources, 1, None);
        view.history_start_us = history_start_us;
        let view = Arc::new(view);
        progress.count(Phase::Replaying, None, self.seams.clock.now_us());
        if let Err(error) = self.build(&view, progress).await {
            let name = view.history.read().name.clone();
            self.forget_view(object.id, &name).await?;
            return Err(error);
        }
        locked.iter_mut().for_each(|inner| inner.views.push(view.clone()));
        drop(locked);
        self.views.write().insert(object.id, view);
        Ok(history_start_us)
    }

    async fn build(&self, view: &ViewRuntime, progress: &Progress) -> SeamResult<()> {
        let letters = view.replay(None, progress, &self.seams).await?;
        self.keep_letters(letters).await
    }

    /// Stops a feature view and removes its state, online values and history.
    pub async fn drop_view(&self, id: ObjectId) -> SeamResult<()> {
        let not_started = self.not_started.write().remove(&id);
        if let Some(failure) = not_started {
            return self.forget_view(id, &failure.name).await;
        }
        let Some(view) = self.views.write().remove(&id) else { return Ok(()) };
        let puts = {
            // A checkpoint under way may still write the view's keys: wait for it. Later ones do not know the view, and wait for
            // nothing here: the online store may hang.
            let _quiet = self.checkpointing.lock().await;
            self.detach(&view).await;
            let puts = self.puts_of(&view);
            self.leave_family(&view).await?;
            puts
        };
        // Its dead letters go with it; the rows themselves are in the source.
        for reading in &view.sources {
            let letters = [reading.source.id.0.to_be_bytes(), id.0.to_be_bytes()].concat();
            self.seams.state.remove(crate::seam::Keyspace::DeadLetters, &letters).await?;
        }
        let name = view.history.read().name.clone();
        // What is on its way to the online store arrives first; nothing is put after it.
        let _flushing = puts.lock().await;
        self.forget_view(id, &name).await
    }

    /// From here on nothing is applied to the view.
    async fn detach(&self, view: &ViewRuntime) {
        for reading in &view.sources {
            let mut source = reading.source.lock().await;
            source.views.retain(|v| v.state.id != view.state.id);
            source.waiting.retain(|letter| letter.view != Some(view.state.id));
        }
    }

    async fn forget_view(&self, id: ObjectId, history: &str) -> SeamResult<()> {
        self.seams.history.forget(id, history).await?;
        self.forget_keys(id).await?;
        self.forget_online(id).await
    }

    /// Removes a view's values from the online store, now or, where that does not answer, when it does again. Last of all: by
    /// what is left in `Progress` the next start finds what a crash on the way has left.
    pub(super) async fn forget_online(&self, id: ObjectId) -> SeamResult<()> {
        if let Err(error) = self.seams.online.drop_view(id).await {
            tracing::warn!(view = %id, %error, "values of a dropped view are left in the online store; it is tried again");
            self.dropped_online.lock().insert(id);
            return Ok(());
        }
        self.seams.state.remove(Keyspace::Progress, &id.0.to_be_bytes()).await
    }

    /// Removes what a view has left that a transaction had made when the server ended: no checkpoint may have met it, and then nothing
    /// else knows of it. Its history table goes with those of no view.
    pub async fn forget_made(&self, id: ObjectId) -> SeamResult<()> {
        self.forget_keys(id).await?;
        self.forget_online(id).await
    }

    async fn forget_keys(&self, id: ObjectId) -> SeamResult<()> {
        for keyspace in [Keyspace::Keys, Keyspace::Due, Keyspace::Spilled] {
            self.seams.state.remove(keyspace, &id.0.to_be_bytes()).await?;
        }
        Ok(())
    }

    /// `to`: what its history table is called from then on.
    pub async fn rename_view(&self, id: ObjectId, to: &str) -> SeamResult<()> {
        let Some(view) = self.view(id) else { return Ok(()) };
        let _quiet = self.checkpointing.lock().await;
        let from = view.history.read().name.clone();
        self.seams.history.rename(&from, to).await?;
        view.history.write().name = to.to_string();
        Ok(())
    }

    /// The epoch of this start: a later writer has a greater one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The now of the views for which the server's clock, `clock_us`, does not tell it: those of which no source follows that
    /// clock, and those that are ahead of it. Microseconds.
    pub fn nows(&self, clock_us: i64) -> Vec<(ObjectId, i64)> {
        let views = self.views();
        let now = |view: &Arc<ViewRuntime>| (view.state.id, view.now_us(clock_us));
        views.iter().map(now).filter(|(_, now_us)| *now_us != i64::MIN && *now_us != clock_us).collect()
    }

    /// The next flush asks the online store whether it still has all views: of one of which nothing is put nobody would notice.
    pub fn doubt_online(&self) {
        self.views().iter().for_each(|view| view.doubt_online());
    }

    /// What is held while values of a view are on their way to the online store.
    fn puts_of(&self, view: &ViewRuntime) -> Arc<tokio::sync::Mutex<()>> {
        self.family_of(view).map_or_else(|| view.flushing.clone(), |family| family.flushing.clone())
    }

    /// As long as it lives, nobody else puts values of the view.
    async fn hold_puts(&self, view: &ViewRuntime) -> tokio::sync::OwnedMutexGuard<()> {
        loop {
            let puts = self.puts_of(view);
            let held = puts.clone().lock_owned().await;
            // It may have moved to a family meanwhile.
            if Arc::ptr_eq(&puts, &self.puts_of(view)) {
                return held;
            }
        }
    }

    /// From here on the view's values go to another online store, as `choose` tells the seam: what is under way has arrived, and
    /// nothing more is put into the one before. The next flush opens the view where it is now.
    pub async fn move_online(&self, id: ObjectId, choose: impl FnOnce() -> SeamResult<()> + Send) -> SeamResult<()> {
        let Some(view) = self.view(id) else { return choose() };
        let _flushing = self.hold_puts(&view).await;
        choose()?;
        // One that is in a family stays there; else nobody is to wait for where it is now.
        view.stands_alone.store(true, Ordering::Relaxed);
        view.set_online(Online::Closed);
        Ok(())
    }

    /// What is to be done for the online store from time to time, each with the server that it is for. A family is flushed where
    /// views are that have chosen nothing.
    pub fn online_turns(&self) -> Vec<(u64, OnlineTurn)> {
        let lane = |id: &ObjectId| self.seams.online.lane(*id);
        let drops: BTreeSet<u64> = self.dropped_online.lock().iter().map(lane).collect();
        let drops = drops.into_iter().map(|lane| (lane, OnlineTurn::Drops(lane)));
        let views = self.kept().into_iter().map(|view| view.state.id);
        drops.chain(views.map(|id| (lane(&id), OnlineTurn::View(id)))).collect()
    }

    /// Takes one of them; how many values were put. Bounded by what changed since the last call, but for a store that has nothing
    /// of a view: then all keys are put. A view's turn holds up that of no other.
    pub async fn take_turn(&self, turn: OnlineTurn) -> SeamResult<usize> {
        match turn {
            OnlineTurn::Drops(lane) => self.finish_drops(lane).await.map(|()| 0),
            OnlineTurn::View(id) => match self.kept().into_iter().find(|view| view.state.id == id) {
                Some(view) => self.flush_kept(&view).await,
                None => Ok(0),
            },
        }
    }

    /// Takes all of them side by side: puts the values that have changed into the online store, on all of its servers.
    pub async fn flush_online(&self) -> SeamResult<usize> {
        let (mut flushed, mut had) = (Ok(0), BTreeSet::new());
        loop {
            // Views that have moved to a family meanwhile have had no turn: it is one more that is kept.
            let mut turns = self.online_turns();
            turns.retain(|(_, turn)| had.insert(*turn));
            if turns.is_empty() {
                return flushed;
            }
            for put in join_all(turns.into_iter().map(|(_, turn)| self.take_turn(turn))).await {
                // The first error, when every view has had its turn.
                flushed = flushed.and_then(|all: usize| Ok(all + put?));
            }
        }
    }

    async fn flush_kept(&self, view: &ViewRuntime) -> SeamResult<usize> {
        if view.family.is_some() {
            return self.flush_members(view).await;
        }
        let begun_us = self.seams.clock.now_us();
        let mut put = self.flush_view(view).await;
        if put.is_err() && view.has_lost_online() {
            put = self.flush_view(view).await;
        }
        self.meters.flushed(&view.meters, &put, span(begun_us, self.seams.clock.now_us()));
        view.note_online(&put);
        put
    }

    async fn flush_view(&self, view: &ViewRuntime) -> SeamResult<usize> {
        if let Some(family) = self.family_of(view) {
            return self.flush_family(&family).await;
        }
        view.state.relieve_all()?;
        let flushing = view.flushing.lock().await;
        // It has moved to a family meanwhile.
        if let Some(family) = self.family_of(view) {
            drop(flushing);
            return self.flush_family(&family).await;
        }
        if !self.is_at_work(view) || view.state.is_hosted() {
            return Ok(0);
        }
        self.open_online(view).await?;
        // Whoever put something before has not read it later than now.
        let now_us = view.now_us(self.seams.clock.now_us());
        let stale = view.state.take_stale(now_us).map_err(SeamError::not_done)?;
        let flushed = stale.len();
        let unput = Unput::in_flight(&view.state);
        self.put_online(view, stale).await?;
        unput.arrived();
        let caught_up = self.catch_up(view, now_us).await?;
        if view.online() == Online::Filling && self.is_at_work(view) {
            let filled = self.seams.online.filled(view.state.id).await;
            // Where it has lost the view meanwhile, and nothing more is put, only opening it would tell.
            view.set_online(if filled.is_ok() { Online::Open } else { Online::Closed });
            filled?;
        }
        Ok(flushed + caught_up)
    }

    /// Asks the online store for the view where nobody has, or not lately; `flushing` is held.
    async fn open_online(&self, view: &ViewRuntime) -> SeamResult<()> {
        if matches!(view.online(), Online::Closed | Online::Lost) {
            let id = view.state.id;
            self.seams.online.describe(id, view.state.compiled.output_fields());
            let has_all = self.seams.online.open_view(id).await?;
            // Before there is anything to put: a server that began earlier, on a copy of the directory, would go on.
            self.seams.online.claim(id, self.epoch).await?;
            // One that is kept with others is filled by itself (`family/online.rs`).
            if !has_all && !view.state.is_hosted() {
                view.state.fill_online();
            }
            view.set_online(if has_all { Online::Open } else { Online::Filling });
        }
        Ok(())
    }

    async fn catch_up(&self, view: &ViewRuntime, now_us: i64) -> SeamResult<usize> {
        let unput = Unput::filling(&view.state);
        let (mut at, mut put) = (None, 0);
        while let Some(rows) = view.state.catch_up(&mut at, now_us).map_err(SeamError::not_done)? {
            // Whoever drops it does not wait for the rest, and what has been started again puts its rows itself.
            if !self.is_at_work(view) {
                return Ok(put);
            }
            let page = rows.len();
            self.put_online(view, rows).await?;
            view.state.filled(page);
            put += page;
        }
        unput.arrived();
        Ok(put)
    }

    async fn put_online(&self, view: &ViewRuntime, rows: OnlineRows) -> SeamResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let values = rows.into_iter().map(|(key, row)| self.online_value(&key, row)).collect::<Result<Vec<_>, _>>();
        let values = values.map_err(SeamError::not_done)?;
        let begun_us = self.seams.clock.now_us();
        let put = self.seams.online.put(view.state.id, values).await?;
        self.meters.put_us.observe_span(begun_us, self.seams.clock.now_us());
        match put {
            Put::Done => Ok(()),
            Put::NoView => {
                view.set_online(Online::Lost);
                let name = view.history.read().name.clone();
                Err(SeamError::NotDone(format!("the online store has lost \"{name}\"; all of it is put again")))
            }
        }
    }

    /// Drops that a server of the online store has not taken yet.
    async fn finish_drops(&self, lane: u64) -> SeamResult<()> {
        let mut left: Vec<ObjectId> = self.dropped_online.lock().iter().copied().collect();
        left.retain(|id| self.seams.online.lane(*id) == lane);
        for id in left {
            self.seams.online.drop_view(id).await?;
            self.seams.state.remove(Keyspace::Progress, &id.0.to_be_bytes()).await?;
            self.dropped_online.lock().remove(&id);
        }
        Ok(())
    }

    /// Brings keys into memory that were there before a restart, as far as there is plenty of room. Lookups and ingestion do
    /// not wait for it: they bring what they need themselves.
    pub async fn warm(&self) -> SeamResult<()> {
        for view in self.kept() {
            let mut at = None;
            while view.state.warm(&mut at)? {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn online_value(&self, key: &[u8], shown: Option<Shown>) -> Result<OnlineValue, postcard::Error> {
        let counter = self.puts.fetch_add(1, Ordering::Relaxed);
        let row = shown.map(|shown| OnlineRow::encode(&shown.row, shown.until_us)).transpose()?;
        Ok(OnlineValue {
            key: key.to_vec().into(),
            version: PutVersion { epoch: self.epoch, counter },
            row: row.map(Into::into),
        })
    }

    /// Appends rows to a source or table, admits them and applies them to every view on it. When this returns, the rows
    /// are durable (as the log's fsync setting says) and every later lookup sees them.
    pub async fn ingest(
        &self,
        id: ObjectId,
        batches: Vec<arrow::record_batch::RecordBatch>,
        conflict: Conflict,
    ) -> Result<IngestReport, IngestError> {
        let turn = self.turn(id).await?;
        self.ingest_in(turn, batches, conflict, false).await
    }

    /// Waits for who changes the table's rows right now (`UPDATE`, `DELETE`): until then the caller may give up.
    pub async fn turn(&self, id: ObjectId) -> Result<Turn, IngestError> {
        let source = self.source(id).ok_or_else(gone)?;
        Ok(Turn { _held: source.writers.clone().read_owned().await, source })
    }

    /// The same as [`Engine::ingest`] in one's turn. `shows`: the report has the rows that count.
    pub async fn ingest_in(
        &self,
        turn: Turn,
        batches: Vec<arrow::record_batch::RecordBatch>,
        conflict: Conflict,
        shows: bool,
    ) -> Result<IngestReport, IngestError> {
        let begun_us = self.seams.clock.now_us();
        self.make_way(&turn.source).await?;
        turn.source.ingest(batches, None, begun_us, conflict, shows, &self.seams).await
    }

    /// Returns when steps begin to crowd in memory: whoever waits here commits them while rows go on coming in. Rows themselves wait
    /// only where nobody does, or not fast enough.
    pub async fn crowded(&self) {
        self.crowding.notified().await;
    }

    /// Where too many steps wait for history, rows wait for their commit; where that fails they are refused.
    async fn make_way(&self, source: &SourceRuntime) -> Result<(), IngestError> {
        let most = self.seams.steps_waiting_max;
        let crowded = |most: usize| {
            let is_crowded = |view: &&Arc<ViewRuntime>| {
                view.state.steps_here() > most && view.reads(source.id) && !view.has_failed()
            };
            let (views, families) = (self.views.read(), self.families.read());
            views.values().chain(families.values()).find(is_crowded).cloned()
        };
        if crowded(most / 4).is_none() {
            return Ok(());
        }
        self.crowding.notify_one();
        if crowded(most).is_none() {
            return Ok(());
        }
        let committed = self.commit_history().await;
        let (Some(view), Err(error)) = (crowded(most), committed) else { return Ok(()) };
        let (name, waiting) = (view.history.read().name.clone(), view.state.steps_waiting());
        let error = format!(
            "\"{}\" takes no more rows: {waiting} steps of \"{name}\" wait for their history: {error}",
            source.name.read()
        );
        Err(IngestError::Seam(SeamError::NotDone(error)))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.sources.read().values().for_each(|source| source.let_go());
    }
}

/// Whether a view has chosen an online store.
fn stands_alone(object: &Object) -> bool {
    object.feature_view().and_then(|view| view.options.get("online")).is_some_and(|place| place != "default")
}

/// What a foreign reader needs to know of a base column.
fn base_comment(compiled: &CompiledView, name: &str) -> String {
    let plan = &compiled.plan;
    for output in &plan.outputs {
        if let tidemark_planner::feature::OutputKind::TimeContinuous { expr, .. } = &output.kind {
            let bases = plan.base_columns();
            if bases.iter().any(|(base, _)| base == name && base.starts_with(&format!("{}_base", output.name))) {
                let formula = tidemark_planner::feature::rename_slots(expr, &|slot| {
                    bases.iter().find(|(_, s)| *s == slot).map(|(n, _)| n.clone())
                });
                return format!(
                    "base of {}: {formula}, with {} the instant of the reading",
                    output.name,
                    tidemark_planner::feature::NOW_COLUMN
                );
            }
        }
    }
    String::new()
}

/// Whether the source follows the events' own clock.
pub(crate) fn event_clock(mode: ClockMode) -> bool {
    mode == ClockMode::Event
}
