//! The running feature view: its keys in shards, the steps that wait for history, and what stores have not seen yet.
//!
//! Work on a shard is short and synchronous; lookups lock one shard, ingestion each for its part of a batch, large batches
//! several at once. Keys that nobody has asked for lately are in the state store only (`cold.rs`), and come back when they are
//! looked up, have an event, or are due.

mod cold;
mod family;
mod joins;
mod memory;
mod packed;
mod reading;
mod refresh;
mod saving;
mod schedule;
mod shard;
mod step;
mod versions;
mod warm;

pub use cold::Cold;
pub use family::{Host, Projection};
pub use joins::Joins;
pub use memory::Memory;
pub use reading::{AllLooked, Looked};
pub use refresh::Refresh;
pub use saving::Frozen;
pub use shard::{Encoded, SavedKey};
pub use step::{Op, SharedSteps, Step, Steps, by_key, step_at};

use crate::{
    compiled::{BatchRows, CompiledView, Events, Row, RowFailure},
    dimension::Dimension,
    key::{Held, Instants, KeyState},
    parallel,
    seam::{RejectReason, SeamError, SeamResult, SourceBatch},
    value::Value,
    wording::{instant, span},
};
use datafusion::error::{DataFusionError, Result as DfResult};
use parking_lot::{Mutex, RwLock};
use schedule::NEVER;
use shard::{Shard, hash};
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
};
use step::{Outcomes, Pieces};
use tidemark_catalog::ObjectId;

/// A power of two, well above the cores: lookups seldom meet on one lock.
const SHARDS: usize = 16;

/// Keys that walk on together before their outputs are computed: enough for columns to pay, few enough that what they
/// leave behind, nearly a kilobyte each, stays in the second-level cache.
const KEYS_TOGETHER: usize = 256;

/// From so many rows on a batch is spread over threads: starting one takes some 20 µs, a row 2 µs.
const ROWS_IN_PARALLEL: usize = 1024;

pub struct ViewState {
    pub id: ObjectId,
    /// As many work on its shards at once.
    threads: usize,
    pub compiled: Arc<CompiledView>,
    shards: Vec<Mutex<Shard>>,
    /// Where keys are that are not in memory; `None`: all are.
    cold: Option<Cold>,
    /// Of a view that joins tables to its events.
    joins: Option<Mutex<Joins>>,
    frontier_us: AtomicI64,
    pending: Mutex<Pending>,
    /// In `pending`.
    steps_waiting: AtomicUsize,
    /// Held for writing while steps move from the shards to `pending`, so that no reader sees them in neither.
    finishing: RwLock<()>,
    pub counters: Counters,
    /// Where its keys are that are kept with those of others; then nothing is applied to it, and its shards are empty.
    host: RwLock<Option<Arc<Host>>>,
    /// How many views read the keys, where they are others'.
    readers: AtomicUsize,
}

/// A row that cannot be used any more, now that a table has changed: of which source and batch.
pub type Letter = (ObjectId, Arc<SourceBatch>, RowFailure);

/// Keys with their rows, for the online store; `None`: the key is absent.
pub type OnlineRows = Vec<(Encoded, Option<Shown>)>;

/// The same, with what the caller makes of each and when it next changes by time alone.
pub type Made<T> = Vec<(Encoded, Option<(T, Option<i64>)>)>;

/// What a reader sees of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub row: Row,
    /// When it next changes by time alone; `None`: never.
    pub until_us: Option<i64>,
}

impl Shown {
    fn of((row, until_us): (Row, Option<i64>)) -> Shown {
        Shown { row, until_us }
    }
}

/// What `tidemark.pipelines` shows of a view.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entity keys, in memory or not.
    pub keys: AtomicU64,
    pub events: AtomicU64,
    pub rows_failed: AtomicU64,
    /// Aggregates that left their type's range, and output expressions that failed: NULL in both cases.
    pub values_failed: AtomicU64,
    pub steps: AtomicU64,
}

/// Steps below the frontier that the history table may not have yet.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    /// Every step below this is in the history table.
    pub committed_us: i64,
    /// Oldest first; a chunk stays until the commit that has it is known to have happened.
    pub chunks: Vec<Arc<Steps>>,
}

/// The entity keys of some events, by shard.
struct Keyed {
    bytes: Vec<u8>,
    /// Where the key of each event ends in `bytes`.
    ends: Vec<usize>,
    /// Hash and number of each event.
    by_shard: [Vec<(u64, u32)>; SHARDS],
}

impl Keyed {
    fn of(events: &Events) -> Keyed {
        let (mut bytes, mut ends) = (Vec::with_capacity(events.len() * 16), Vec::with_capacity(events.len()));
        let mut by_shard: [Vec<(u64, u32)>; SHARDS] = Default::default();
        for i in 0..events.len() {
            let begin = bytes.len();
            events.encode_key(i, &mut bytes);
            ends.push(bytes.len());
            let hash = hash(&bytes[begin..]);
            by_shard[shard_of(hash)].push((hash, i as u32));
        }
        Keyed { bytes, ends, by_shard }
    }

    fn key(&self, i: u32) -> &[u8] {
        let i = i as usize;
        &self.bytes[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]]
    }
}

fn shard_of(hash: u64) -> usize {
    // The table inside a shard uses the other bits.
    (hash >> 32) as usize % SHARDS
}

impl ViewState {
    /// An empty view. Steps below `committed_us` are already in the history table and are not written again.
    /// Without `cold` all its keys stay in memory. `tables`: those that it joins, without any rows.
    pub fn new(
        id: ObjectId,
        compiled: Arc<CompiledView>,
        committed_us: i64,
        threads: usize,
        cold: Option<Cold>,
        tables: Vec<Dimension>,
    ) -> ViewState {
        ViewState {
            id,
            threads,
            compiled,
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect(),
            cold,
            joins: (!tables.is_empty()).then(|| Joins::new(tables)),
            frontier_us: AtomicI64::new(i64::MIN),
            pending: Mutex::new(Pending { committed_us, chunks: vec![] }),
            steps_waiting: AtomicUsize::new(0),
            finishing: RwLock::new(()),
            counters: Counters::default(),
            host: RwLock::default(),
            readers: AtomicUsize::new(0),
        }
    }

    pub fn frontier_us(&self) -> i64 {
        let host = self.host.read();
        host.as_ref().map_or(&self.frontier_us, |host| &host.state.frontier_us).load(Ordering::Acquire)
    }

    /// Works on every shard, on several threads where `rows` make it worth while.
    fn each_shard<T: Sync, R: Send>(&self, rows: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let threads = if rows < ROWS_IN_PARALLEL { 1 } else { self.threads };
        parallel::each(threads, items, work)
    }

    /// Takes the admitted rows of a batch; returns the rows this view cannot use.
    pub fn apply(&self, batch: &BatchRows<'_>) -> DfResult<Vec<RowFailure>> {
        let mut joins = self.joins();
        if let Some(joins) = &joins {
            self.check_open(joins, batch.times_us.len())?;
        }
        let (events, mut failures) = self.compiled.events(batch, joins.as_deref())?;
        self.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        failures.extend(self.put(batch, None, &events)?);
        if let Some(joins) = &mut joins {
            self.keep_open(joins, batch)?;
        }
        drop(joins);
        self.end_versions(batch)?;
        failures.sort_by_key(|f| f.row);
        self.counters.rows_failed.fetch_add(failures.len() as u64, Ordering::Relaxed);
        Ok(failures)
    }

    /// Puts events in their places, and takes out first what they were `before`. A key's readers see both or neither.
    fn put(&self, batch: &BatchRows<'_>, before: Option<&Events>, events: &Events) -> DfResult<Vec<RowFailure>> {
        let keyed = Keyed::of(events);
        let gone = before.map(|before| (before, Keyed::of(before)));
        let walk = &self.compiled.walk;
        let frontier_us = self.frontier_us();
        let has_work = |i: &usize| {
            !keyed.by_shard[*i].is_empty() || gone.as_ref().is_some_and(|(_, gone)| !gone.by_shard[*i].is_empty())
        };
        let pieces: Vec<usize> = (0..SHARDS).filter(has_work).collect();
        let late = self.each_shard(events.len(), &pieces, |i| -> SeamResult<Vec<RowFailure>> {
            let mut failures = vec![];
            let mut event = walk.layout.row();
            let mut shard = self.shards[*i].lock();
            if let Some((before, gone)) = &gone {
                for (hash, i) in gone.by_shard[*i].iter().copied() {
                    let row = before.row(i as usize);
                    self.take_out(&mut shard, hash, gone.key(i), batch.times_us[row], batch.mark(row))?;
                }
            }
            let of_shard = &keyed.by_shard[*i];
            for (n, (hash, i)) in of_shard.iter().copied().enumerate() {
                if n % warm::GROUP == 0 {
                    warm::for_events(&shard, walk, of_shard[n..].iter().map(|(hash, _)| *hash));
                }
                let encoded = keyed.key(i);
                let i = i as usize;
                let id = match self.find_or_load(&mut shard, hash, encoded)? {
                    Some(id) => id,
                    None => {
                        self.counters.keys.fetch_add(1, Ordering::Relaxed);
                        let (state, generation) = (KeyState::new(walk, events.key(i), frontier_us), shard.generation);
                        let id = shard.insert(hash, encoded.into(), state, generation);
                        shard.weigh(id);
                        id
                    }
                };
                let row = events.row(i);
                let time_us = batch.times_us[row];
                let delete = batch.deletes.binary_search(&(row as u32)).is_ok();
                event.reset(&walk.layout, time_us, batch.mark(row), delete);
                if walk.versions {
                    event.counts(&walk.layout);
                }
                events.fill(i, &walk.layout, &mut event);
                if shard.insert_event(id, walk, &event) {
                    shard.due_sooner(id, time_us);
                } else {
                    let below = span(time_us.abs_diff(frontier_us));
                    let (time, frontier) = (instant(time_us), instant(frontier_us));
                    let error = format!("event time {time} lies {below} below the frontier {frontier}");
                    failures.push(RowFailure { row, reason: RejectReason::Late, error });
                    // A key that has nothing else is looked at then, and goes.
                    shard.due_sooner(id, frontier_us);
                }
                shard.mark_stale(id);
            }
            self.relieve(&mut shard)?;
            Ok(failures)
        });
        let mut failures = vec![];
        for late in late {
            failures.extend(late.map_err(seam)?);
        }
        Ok(failures)
    }

    /// An event was another than is known now.
    fn take_out(&self, shard: &mut Shard, hash: u64, encoded: &[u8], time_us: i64, mark: u64) -> SeamResult<()> {
        let walk = &self.compiled.walk;
        let Some(id) = self.find_or_load(shard, hash, encoded)? else { return Ok(()) };
        let Some(entry) = shard.change(id, walk) else { return Ok(()) };
        if entry.state.remove(walk, time_us, mark) {
            // Also a key without any event is looked at then, and goes.
            shard.due_sooner(id, time_us);
            shard.mark_stale(id);
            shard.weigh(id);
        }
        Ok(())
    }

    /// The frontier has moved: everything below it becomes steps. `rows` say how much is likely to be due.
    pub fn finish(&self, frontier_us: i64, rows: usize) -> DfResult<()> {
        if frontier_us <= self.frontier_us() {
            return Ok(());
        }
        let _finishing = self.finishing.write();
        // Another of its sources may have come first.
        if frontier_us <= self.frontier_us() {
            return Ok(());
        }
        self.frontier_us.store(frontier_us, Ordering::Release);
        // After a restart the log is replayed from before the last commit: steps below it are already in history.
        let committed_us = self.pending.lock().committed_us;
        let cold = self.cold.as_ref().filter(|cold| cold.has_any());
        let from_us = cold.map_or(i64::MIN, |cold| cold.due.upto_us.load(Ordering::Relaxed));
        loop {
            if let Some(cold) = self.cold.as_ref().filter(|cold| cold.due.begins(frontier_us)) {
                self.finish_cold(cold, from_us, frontier_us, committed_us, rows)?;
            }
            self.finish_in_memory(frontier_us, committed_us, rows)?;
            // One that left memory just before the frontier moved may have been passed over.
            if self.cold.as_ref().is_none_or(|cold| !cold.has_any() || !cold.due.waits_before(frontier_us)) {
                break;
            }
        }
        if let Some(cold) = &self.cold {
            cold.due.upto_us.store(frontier_us, Ordering::Relaxed);
        }
        Ok(())
    }

    fn finish_in_memory(&self, frontier_us: i64, committed_us: i64, rows: usize) -> DfResult<()> {
        let finished = self.each_shard(rows, &self.shards, |shard| -> DfResult<Pieces> {
            let mut steps = Pieces::default();
            let mut shard = shard.lock();
            loop {
                let due = shard.take_due(frontier_us);
                if due.is_empty() {
                    shard.tidy();
                    return Ok(steps);
                }
                // None of them leaves memory before its turn has come: it is due below the frontier.
                for due in due.chunks(KEYS_TOGETHER) {
                    self.finish_keys(&mut shard, due, frontier_us, committed_us, &mut steps)?;
                    self.relieve(&mut shard).map_err(seam)?;
                }
            }
        });
        self.keep_steps(finished)
    }

    fn keep_steps(&self, finished: Vec<DfResult<Pieces>>) -> DfResult<()> {
        for pieces in finished {
            let pieces = pieces?.into_steps();
            let steps = pieces.iter().map(Steps::len).sum();
            self.counters.steps.fetch_add(steps as u64, Ordering::Relaxed);
            self.steps_waiting.fetch_add(steps, Ordering::Relaxed);
            self.pending.lock().chunks.extend(pieces.into_iter().map(Arc::new));
        }
        Ok(())
    }

    fn finish_keys(
        &self,
        shard: &mut Shard,
        due: &[u32],
        frontier_us: i64,
        committed_us: i64,
        steps: &mut Pieces,
    ) -> DfResult<()> {
        let walk = &self.compiled.walk;
        let mut instants = Instants::default();
        let mut ends = Vec::with_capacity(due.len());
        for (n, id) in due.iter().enumerate() {
            if n % warm::GROUP == 0 {
                warm::for_steps(shard, walk, &due[n..]);
            }
            let entry = shard.change(*id, walk);
            let next_us = entry.and_then(|entry| entry.state.finish(walk, frontier_us, &mut instants));
            ends.push((instants.each.len(), next_us));
        }
        let outcomes = self.outcomes(instants)?;
        // Here only: readers come by the same instants, as often as they like.
        self.counters.values_failed.fetch_add(outcomes.failed as u64, Ordering::Relaxed);
        let mut from = 0;
        for (id, (end, next_us)) in due.iter().zip(ends) {
            let Some(entry) = shard.get_mut(*id) else { continue };
            let state = &mut entry.state;
            outcomes.settle_each(from..end, &mut state.done.held, &state.key, |step| {
                if step.instant_us >= committed_us {
                    steps.push(step);
                }
            });
            from = end;
            state.trim(walk);
            if state.is_over(walk) {
                self.counters.keys.fetch_sub(1, Ordering::Relaxed);
                shard.remove(*id, walk);
            } else {
                shard.schedule_at(*id, next_us);
                shard.mark_overtaken(*id, frontier_us);
                shard.weigh(*id);
            }
        }
        Ok(())
    }

    /// The same for the keys that are due and not in memory; they come back into it.
    fn finish_cold(&self, cold: &Cold, from_us: i64, frontier_us: i64, committed_us: i64, rows: usize) -> DfResult<()> {
        let mut after = cold.due_key(from_us, &[]);
        loop {
            let keys = cold.due_keys(&cold.due, &mut after, frontier_us).map_err(seam)?;
            if keys.is_empty() {
                return Ok(());
            }
            let finished = self.each_shard_of(rows, keys, |shard, keys| -> DfResult<Pieces> {
                let mut steps = Pieces::default();
                let mut due = vec![];
                for (hash, key) in keys {
                    // One in memory is due by the shard's own schedule.
                    if shard.find(*hash, key).is_none()
                        && let Some(id) = self.find_or_load(shard, *hash, key).map_err(seam)?
                    {
                        shard.mark_stale(id);
                        due.push(id);
                    }
                }
                self.finish_keys(shard, &due, frontier_us, committed_us, &mut steps)?;
                self.relieve(shard).map_err(seam)?;
                Ok(steps)
            });
            self.keep_steps(finished)?;
        }
    }

    /// Works on some keys shard by shard.
    fn each_shard_of<R: Send>(
        &self,
        rows: usize,
        keys: Vec<Vec<u8>>,
        work: impl Fn(&mut Shard, &[(u64, Vec<u8>)]) -> R + Sync,
    ) -> Vec<R> {
        let mut by_shard: [Vec<(u64, Vec<u8>)>; SHARDS] = Default::default();
        for key in keys {
            let hash = hash(&key);
            by_shard[shard_of(hash)].push((hash, key));
        }
        let pieces: Vec<_> = self.shards.iter().zip(&by_shard).filter(|(_, keys)| !keys.is_empty()).collect();
        self.each_shard(rows, &pieces, |(shard, keys)| work(&mut shard.lock(), keys))
    }

    /// The key's number, when it has been brought back into memory if it was not there.
    fn find_or_load(&self, shard: &mut Shard, hash: u64, encoded: &[u8]) -> SeamResult<Option<u32>> {
        if let Some(id) = shard.find(hash, encoded) {
            return Ok(Some(id));
        }
        let Some(cold) = self.cold.as_ref().filter(|cold| cold.has_any()) else { return Ok(None) };
        if shard.is_over(encoded) {
            return Ok(None);
        }
        let Some((bytes, changed)) = cold.read(encoded, shard.generation)? else { return Ok(None) };
        let walk = &self.compiled.walk;
        let state = self.decoded(&bytes)?;
        if changed == shard.generation {
            cold.unspill(changed, encoded);
        }
        let id = shard.insert(hash, encoded.into(), state, changed);
        shard.schedule(id, walk);
        shard.schedule_online(id, walk);
        if cold.may_be_behind() {
            shard.mark_stale(id);
        }
        shard.weigh(id);
        Ok(Some(id))
    }

    fn decoded(&self, bytes: &[u8]) -> SeamResult<KeyState> {
        KeyState::decode(&self.compiled.walk, bytes).map_err(|e| {
            SeamError::not_done(format!("state of feature view \"{}\" cannot be read: {e}", self.compiled.name))
        })
    }

    /// Where memory is short, keys of this shard leave it that nobody has asked for lately. What has changed of them since
    /// the last checkpoint is spilled.
    fn relieve(&self, shard: &mut Shard) -> SeamResult<()> {
        let Some(cold) = &self.cold else { return Ok(()) };
        cold.memory.grow(shard.take_grown());
        if !cold.memory.is_over() {
            return Ok(());
        }
        let walk = &self.compiled.walk;
        let online_us = cold.online.upto_us.load(Ordering::Acquire);
        let victims = shard.victims(walk, self.frontier_us(), online_us, cold.memory.is_far_over());
        let mut spilled = vec![];
        for id in &victims {
            if let Some(entry) = shard.get(*id).filter(|_| shard.is_changed(*id)) {
                let bytes = entry.state.encode(walk).map_err(SeamError::not_done)?;
                spilled.push((&*entry.encoded, bytes, entry.state.next_instant(walk)));
            }
        }
        if !spilled.is_empty()
            && let Err(error) = cold.spill(shard.generation, spilled)
        {
            // They stay where they are: nothing is lost, and memory is short for somewhat longer.
            tracing::warn!(view = self.compiled.name, %error, "keys cannot leave memory");
            return Ok(());
        }
        cold.note_any();
        for id in victims {
            let Some((key, due_us, online_due_us, mut stale)) = shard.evict(id, walk) else { continue };
            if let Some(at_us) = due_us {
                cold.due.note(at_us);
                cold.online.note(at_us);
                // The online store has passed what the index has of it, and goes by when it changes next.
                if !stale && at_us <= online_us && online_due_us != NEVER {
                    stale = cold.expect(online_due_us, &key).is_err();
                }
            }
            if stale {
                cold.fall_behind();
            }
        }
        cold.memory.grow(shard.take_grown());
        Ok(())
    }

    /// Gives back memory where it is short, also that of a view on which nothing happens.
    pub fn relieve_all(&self) -> SeamResult<()> {
        self.shards.iter().try_for_each(|shard| self.relieve(&mut shard.lock()))
    }

    /// What happened, with the outputs that then hold.
    fn outcomes(&self, Instants { each, slots }: Instants) -> DfResult<Outcomes> {
        let (stride, tracks) = (self.compiled.output_count(), self.compiled.walk.tracks);
        if each.is_empty() {
            return Ok(Outcomes { each, outputs: vec![], stride, failed: 0, tracks });
        }
        let beyond = each.iter().filter(|i| i.out_of_range).count();
        let (outputs, failed) = self.compiled.outputs(each.len(), slots)?;
        Ok(Outcomes { each, outputs, stride, failed: failed + beyond, tracks })
    }

    /// The steps to commit next, and below which instant there is nothing to commit any more.
    pub fn pending(&self) -> Pending {
        loop {
            let Some(host) = self.host() else { return self.pending.lock().clone() };
            if let Some(pending) = self.hosted_pending(&host) {
                return pending;
            }
        }
    }

    /// The first `chunks` chunks are in the history table now, complete below `frontier_us`. Where the view is kept with others, the
    /// last of them was of the family's, which drops its own when all have them.
    pub fn committed(&self, chunks: usize, frontier_us: i64) {
        let mut pending = self.pending.lock();
        let chunks = chunks.min(pending.chunks.len());
        let gone: usize = pending.chunks.drain(..chunks).map(|chunk| chunk.len()).sum();
        self.steps_waiting.fetch_sub(gone, Ordering::Relaxed);
        pending.committed_us = pending.committed_us.max(frontier_us);
    }

    /// The history table has everything below `frontier_us`; which chunks those were is not known any more.
    pub fn committed_below(&self, frontier_us: i64) {
        let chunks = self.pending.lock().chunks.clone();
        let done = chunks.iter().take_while(|chunk| chunk.iter().all(|step| step.instant_us < frontier_us));
        self.committed(done.count(), frontier_us);
    }

    /// The keys whose online value may have changed by `at_us`, with their rows then; each is reported once per change. They
    /// are in flight until [`Self::arrived`] or [`Self::not_arrived`]; after an error none is.
    pub fn take_stale(&self, at_us: i64) -> DfResult<OnlineRows> {
        let taken = self.take_stale_as(at_us, reading::row)?;
        Ok(taken.into_iter().map(|(key, row)| (key, row.map(Shown::of))).collect())
    }

    /// The same, of what holds then whatever the caller makes; with when it next changes.
    pub fn take_stale_as<T>(&self, at_us: i64, make: impl Fn(&Arc<[Value]>, &Held) -> T) -> DfResult<Made<T>> {
        self.wake_departing(at_us)?;
        let taken = self.take_all_stale(at_us, make);
        if taken.is_err() {
            self.not_arrived();
        }
        taken
    }

    fn take_all_stale<T>(&self, at_us: i64, make: impl Fn(&Arc<[Value]>, &Held) -> T) -> DfResult<Made<T>> {
        let mut taken = vec![];
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some(id) = shard.next_online_due(at_us.saturating_add(1)) {
                shard.mark_stale(id);
            }
            let (changed, over) = shard.take_stale();
            for id in changed {
                if let Some(entry) = shard.get_mut(id) {
                    let shown = self.show_as(&mut entry.state, at_us, &make)?;
                    taken.push((entry.encoded.clone(), shown));
                }
                shard.schedule_online(id, &self.compiled.walk);
            }
            taken.extend(over.into_iter().map(|encoded| (encoded, None)));
        }
        Ok(taken)
    }

    /// What a reader makes of the key as it is at `at_us`, and how long it is so.
    fn show_as<T>(
        &self,
        state: &mut KeyState,
        at_us: i64,
        make: impl FnOnce(&Arc<[Value]>, &Held) -> T,
    ) -> DfResult<Option<(T, Option<i64>)>> {
        let made = self.read_as(state, at_us, make)?;
        Ok(made.map(|made| (made, state.next_online_instant(&self.compiled.walk))))
    }

    /// Whether the state store may have keys that memory has not.
    pub fn has_cold(&self) -> bool {
        self.cold.as_ref().is_some_and(Cold::has_any)
    }

    /// Whether values of keys may not be in the online store that are named nowhere.
    pub fn may_be_behind(&self) -> bool {
        self.cold.as_ref().is_some_and(Cold::may_be_behind)
    }

    /// The online store has nothing of the view: what the state store has not, which [`Self::catch_up`] goes by, is put by
    /// itself.
    pub fn fill_online(&self) {
        self.is_behind();
        self.shards.iter().for_each(|shard| shard.lock().mark_unsaved_stale());
    }

    /// Keys that are not in memory and change by `at_us` come back into it, for the online store.
    fn wake_departing(&self, at_us: i64) -> DfResult<()> {
        let Some(cold) = self.cold.as_ref().filter(|cold| cold.has_any()) else { return Ok(()) };
        // First: a key that leaves memory from here on is one that changes later.
        let from_us = cold.online.upto_us.fetch_max(at_us, Ordering::AcqRel);
        let before_us = at_us.saturating_add(1);
        if !cold.online.begins(before_us) {
            return Ok(());
        }
        let woken = self.wake_due(cold, from_us, before_us);
        if woken.is_err() {
            // Nobody knows which have not been woken: the next flush begins where this one did.
            cold.online.upto_us.store(from_us, Ordering::Release);
            cold.online.note(from_us);
        }
        woken
    }

    fn wake_due(&self, cold: &Cold, from_us: i64, before_us: i64) -> DfResult<()> {
        let mut after = cold.due_key(from_us, &[]);
        loop {
            let keys = cold.due_keys(&cold.online, &mut after, before_us).map_err(seam)?;
            if keys.is_empty() {
                return Ok(());
            }
            let woken = self.each_shard_of(0, keys, |shard, keys| -> SeamResult<()> {
                for (hash, key) in keys {
                    if shard.find(*hash, key).is_none()
                        && let Some(id) = self.find_or_load(shard, *hash, key)?
                    {
                        shard.mark_stale(id);
                    }
                }
                self.relieve(shard)
            });
            woken.into_iter().try_for_each(|woken| woken.map_err(seam))?;
        }
    }

    /// The online store has what was in flight.
    pub fn arrived(&self) {
        self.shards.iter().for_each(|shard| drop(shard.lock().take_in_flight()));
    }

    /// What was in flight has not arrived, or nobody knows: it is put again.
    pub fn not_arrived(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            for key in shard.take_in_flight() {
                self.mark_stale_in(&mut shard, hash(&key), key);
            }
        }
    }

    /// Marks keys that the online store does not have.
    pub fn mark_stale(&self, keys: impl IntoIterator<Item = Encoded>) {
        for key in keys {
            let hash = hash(&key);
            self.mark_stale_in(&mut self.shards[shard_of(hash)].lock(), hash, key);
        }
    }

    /// Where the key cannot be read now the store is to be filled from all keys.
    fn mark_stale_in(&self, shard: &mut Shard, hash: u64, key: Encoded) {
        match self.find_or_load(shard, hash, &key) {
            Ok(Some(id)) => shard.mark_stale(id),
            Ok(None) => shard.still_over_stale(key),
            Err(_) => self.is_behind(),
        }
    }

    /// When the finished part of some key next changes; for those that are not in memory it may be too soon.
    pub fn earliest_due(&self) -> Option<i64> {
        if let Some(host) = self.host() {
            return host.state.earliest_due();
        }
        let cold = self.cold.as_ref().filter(|cold| cold.has_any()).and_then(Cold::earliest_due);
        self.shards.iter().filter_map(|shard| shard.lock().earliest_due()).chain(cold).min()
    }

    /// Keys whose rows the online store does not have yet, nearly: those that have changed since the last flush, and where
    /// all are put, the rest of them. Those that time alone changes are found by the flush itself.
    pub fn waiting_online(&self) -> u64 {
        if let Some(host) = self.host() {
            return host.state.waiting_online();
        }
        let changed: usize = self.shards.iter().map(|shard| shard.lock().waiting_online()).sum();
        let left = self.cold.as_ref().filter(|cold| cold.may_be_behind()).map(|cold| {
            let keys = self.counters.keys.load(Ordering::Relaxed);
            keys.saturating_sub(cold.filled.load(Ordering::Relaxed))
        });
        left.unwrap_or(0).max(changed as u64)
    }

    /// The online store has the rows of so many keys more, of all of them.
    pub fn filled(&self, keys: usize) {
        if let Some(host) = self.host() {
            return host.state.filled(keys);
        }
        if let Some(cold) = &self.cold {
            cold.filled.fetch_add(keys as u64, Ordering::Relaxed);
        }
    }

    /// Keys in memory, and the bytes that they take there: of what several views read, one view's share.
    pub fn in_memory(&self) -> (u64, u64) {
        if let Some(host) = self.host() {
            let (keys, bytes) = host.state.in_memory();
            return (keys, bytes / host.state.readers.load(Ordering::Relaxed).max(1) as u64);
        }
        self.shards.iter().fold((0, 0), |(keys, bytes), shard| {
            let shard = shard.lock();
            (keys + shard.len() as u64, bytes + shard.bytes())
        })
    }
}

impl Drop for ViewState {
    fn drop(&mut self) {
        if let Some(cold) = &self.cold {
            let bytes: u64 = self.shards.iter().map(|shard| shard.lock().accounted()).sum();
            cold.memory.grow(-(bytes as i64));
        }
    }
}

fn seam(error: SeamError) -> DataFusionError {
    crate::provider::seam(error)
}
