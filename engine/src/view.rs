//! The running feature view: its keys in shards, the steps that wait for history, and what stores have not seen yet.
//!
//! Work on a shard is short and synchronous; lookups lock one shard, ingestion each for its part of a batch, large batches
//! several at once.

mod reading;
mod schedule;
mod shard;
mod step;

pub use shard::Encoded;
pub use step::{Op, SharedSteps, Step, Steps};

use crate::{
    compiled::{BatchRows, CompiledView, Row, RowFailure},
    key::{Instants, KeyState},
    parallel,
    seam::{RejectReason, SeamError},
    wording::{instant, span},
};
use datafusion::error::Result as DfResult;
use parking_lot::{Mutex, RwLock};
use shard::{Shard, hash};
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
use step::Outcomes;
use tidemark_catalog::ObjectId;

/// A power of two, well above the cores: lookups seldom meet on one lock.
const SHARDS: usize = 16;

/// Keys that walk on together before their outputs are computed: enough for columns to pay, few enough that what they
/// leave behind stays in cache.
const KEYS_TOGETHER: usize = 512;

/// From so many rows on a batch is spread over threads: starting one takes some 20 µs, a row 2 µs.
const ROWS_IN_PARALLEL: usize = 1024;

/// A key changed since the last checkpoint, and its state as bytes (`None`: the key is over).
pub type DirtyKey = (Encoded, Option<Vec<u8>>);

pub struct ViewState {
    pub id: ObjectId,
    /// As many work on its shards at once.
    threads: usize,
    pub compiled: Arc<CompiledView>,
    shards: Vec<Mutex<Shard>>,
    frontier_us: AtomicI64,
    pending: Mutex<Pending>,
    /// Held for writing while steps move from the shards to `pending`, so that no reader sees them in neither.
    finishing: RwLock<()>,
    pub counters: Counters,
}

/// What `tidemark.pipelines` shows of a view.
#[derive(Debug, Default)]
pub struct Counters {
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

fn shard_of(hash: u64) -> usize {
    // The table inside a shard uses the other bits.
    (hash >> 32) as usize % SHARDS
}

impl ViewState {
    /// An empty view. Steps below `committed_us` are already in the history table and are not written again.
    pub fn new(id: ObjectId, compiled: Arc<CompiledView>, committed_us: i64, threads: usize) -> ViewState {
        ViewState {
            id,
            threads,
            compiled,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            frontier_us: AtomicI64::new(i64::MIN),
            pending: Mutex::new(Pending { committed_us, chunks: vec![] }),
            finishing: RwLock::new(()),
            counters: Counters::default(),
        }
    }

    pub fn frontier_us(&self) -> i64 {
        self.frontier_us.load(Ordering::Acquire)
    }

    /// Works on every shard, on several threads where `rows` make it worth while.
    fn each_shard<T: Sync, R: Send>(&self, rows: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let threads = if rows < ROWS_IN_PARALLEL { 1 } else { self.threads };
        parallel::each(threads, items, work)
    }

    /// Takes the admitted rows of a batch; returns the rows this view cannot use.
    pub fn apply(&self, batch: &BatchRows<'_>) -> DfResult<Vec<RowFailure>> {
        let (events, mut failures) = self.compiled.events(batch)?;
        self.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        let (mut keys, mut ends) = (Vec::with_capacity(events.len() * 16), Vec::with_capacity(events.len()));
        let mut by_shard: [Vec<(u64, u32)>; SHARDS] = Default::default();
        for i in 0..events.len() {
            let begin = keys.len();
            events.encode_key(i, &mut keys);
            ends.push(keys.len());
            let hash = hash(&keys[begin..]);
            by_shard[shard_of(hash)].push((hash, i as u32));
        }
        let walk = &self.compiled.walk;
        let frontier_us = self.frontier_us();
        let pieces: Vec<_> = self.shards.iter().zip(&by_shard).filter(|(_, of_shard)| !of_shard.is_empty()).collect();
        let late = self.each_shard(events.len(), &pieces, |(shard, of_shard)| {
            let mut failures = vec![];
            let mut event = walk.layout.row();
            let mut shard = shard.lock();
            for (hash, i) in of_shard.iter().copied() {
                let i = i as usize;
                let encoded = &keys[if i == 0 { 0 } else { ends[i - 1] }..ends[i]];
                let id = shard.find(hash, encoded).unwrap_or_else(|| {
                    shard.insert(hash, encoded.into(), KeyState::new(walk, events.key(i), frontier_us))
                });
                let row = events.row(i);
                let time_us = batch.times_us[row];
                let delete = batch.deletes.binary_search(&(row as u32)).is_ok();
                event.reset(&walk.layout, time_us, batch.base_offset + row as u64, delete);
                events.fill(i, &walk.layout, &mut event);
                if shard.get_mut(id).is_some_and(|entry| entry.state.insert(walk, &event)) {
                    shard.due_sooner(id, time_us);
                } else {
                    let below = span(time_us.abs_diff(frontier_us));
                    let (time, frontier) = (instant(time_us), instant(frontier_us));
                    let error = format!("event time {time} lies {below} below the frontier {frontier}");
                    failures.push(RowFailure { row, reason: RejectReason::Late, error });
                }
                shard.mark_dirty(id);
                shard.mark_stale(id);
            }
            failures
        });
        failures.extend(late.into_iter().flatten());
        failures.sort_by_key(|f| f.row);
        self.counters.rows_failed.fetch_add(failures.len() as u64, Ordering::Relaxed);
        Ok(failures)
    }

    /// The frontier has moved: everything below it becomes steps. `rows` say how much is likely to be due.
    pub fn finish(&self, frontier_us: i64, rows: usize) -> DfResult<()> {
        if frontier_us <= self.frontier_us() {
            return Ok(());
        }
        let _finishing = self.finishing.write();
        self.frontier_us.store(frontier_us, Ordering::Release);
        // After a restart the log is replayed from before the last commit: steps below it are already in history.
        let committed_us = self.pending.lock().committed_us;
        let finished = self.each_shard(rows, &self.shards, |shard| -> DfResult<Steps> {
            let mut steps = Steps::default();
            let mut shard = shard.lock();
            let mut due = vec![];
            loop {
                due.clear();
                due.extend(std::iter::from_fn(|| shard.next_due(frontier_us)).take(KEYS_TOGETHER));
                if due.is_empty() {
                    return Ok(steps);
                }
                self.finish_keys(&mut shard, &due, frontier_us, committed_us, &mut steps)?;
            }
        });
        for steps in finished {
            let steps = steps?;
            self.counters.steps.fetch_add(steps.len() as u64, Ordering::Relaxed);
            if !steps.is_empty() {
                self.pending.lock().chunks.push(Arc::new(steps));
            }
        }
        Ok(())
    }

    fn finish_keys(
        &self,
        shard: &mut Shard,
        due: &[u32],
        frontier_us: i64,
        committed_us: i64,
        steps: &mut Steps,
    ) -> DfResult<()> {
        let walk = &self.compiled.walk;
        let mut instants = Instants::default();
        let mut ends = Vec::with_capacity(due.len());
        for id in due {
            if let Some(entry) = shard.get_mut(*id) {
                entry.state.finish(walk, frontier_us, &mut instants);
            }
            ends.push(instants.each.len());
        }
        let outcomes = self.outcomes(instants)?;
        // Here only: readers come by the same instants, as often as they like.
        self.counters.values_failed.fetch_add(outcomes.failed as u64, Ordering::Relaxed);
        let mut from = 0;
        for (id, end) in due.iter().zip(ends) {
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
                shard.remove(*id);
            } else {
                shard.schedule(*id, walk);
                shard.mark_dirty(*id);
            }
        }
        Ok(())
    }

    /// What happened, with the outputs that then hold.
    fn outcomes(&self, Instants { each, slots }: Instants) -> DfResult<Outcomes> {
        let stride = self.compiled.output_count();
        if each.is_empty() {
            return Ok(Outcomes { each, outputs: vec![], stride, failed: 0 });
        }
        let beyond = each.iter().filter(|i| i.out_of_range).count();
        let (outputs, failed) = self.compiled.outputs(each.len(), slots)?;
        Ok(Outcomes { each, outputs, stride, failed: failed + beyond })
    }

    /// The steps to commit next, and below which instant there is nothing to commit any more.
    pub fn pending(&self) -> Pending {
        self.pending.lock().clone()
    }

    /// The first `chunks` chunks are in the history table now, complete below `frontier_us`.
    pub fn committed(&self, chunks: usize, frontier_us: i64) {
        let mut pending = self.pending.lock();
        pending.chunks.drain(..chunks);
        pending.committed_us = pending.committed_us.max(frontier_us);
    }

    /// The history table has everything below `frontier_us`; which chunks those were is not known any more.
    pub fn committed_below(&self, frontier_us: i64) {
        let chunks = self.pending().chunks;
        let done = chunks.iter().take_while(|chunk| chunk.iter().all(|step| step.instant_us < frontier_us));
        self.committed(done.count(), frontier_us);
    }

    /// The keys changed since the last call, as bytes (`None`: the key is over).
    pub fn take_dirty(&self) -> Result<Vec<DirtyKey>, SeamError> {
        let mut taken = vec![];
        for shard in &self.shards {
            let mut shard = shard.lock();
            let (changed, over) = shard.take_dirty();
            for entry in changed.into_iter().filter_map(|id| shard.get(id)) {
                let bytes = entry.state.encode(&self.compiled.walk).map_err(SeamError::not_done)?;
                taken.push((entry.encoded.clone(), Some(bytes)));
            }
            taken.extend(over.into_iter().map(|encoded| (encoded, None)));
        }
        Ok(taken)
    }

    /// Marks keys dirty again whose checkpoint failed.
    pub fn mark_dirty(&self, keys: impl IntoIterator<Item = Encoded>) {
        for key in keys {
            self.shards[shard_of(hash(&key))].lock().still_dirty(key);
        }
    }

    /// Puts back a key from a checkpoint.
    pub fn restore(&self, encoded: Vec<u8>, bytes: &[u8]) -> Result<(), SeamError> {
        let walk = &self.compiled.walk;
        let state = KeyState::decode(walk, bytes).map_err(|e| {
            SeamError::not_done(format!("state of feature view \"{}\" cannot be read: {e}", self.compiled.name))
        })?;
        let hash = hash(&encoded);
        let mut shard = self.shards[shard_of(hash)].lock();
        let id = shard.insert(hash, encoded.into(), state);
        shard.schedule(id, walk);
        // What the online store shows of it is of before the stop, and its departures are to be followed again.
        shard.mark_stale(id);
        Ok(())
    }

    /// Sets the frontier of restored state.
    pub fn restore_frontier(&self, frontier_us: i64) {
        self.frontier_us.store(frontier_us, Ordering::Release);
    }

    /// The keys whose online value may have changed by `at_us`, with their rows then; each is reported once per change.
    pub fn take_stale(&self, at_us: i64) -> DfResult<Vec<(Encoded, Option<Row>)>> {
        let mut taken = vec![];
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some(id) = shard.next_online_due(at_us.saturating_add(1)) {
                shard.mark_stale(id);
            }
            let (changed, over) = shard.take_stale();
            for id in changed {
                if let Some(entry) = shard.get_mut(id) {
                    let row = self.read(&mut entry.state, at_us)?;
                    taken.push((entry.encoded.clone(), row));
                }
                shard.schedule_online(id, &self.compiled.walk);
            }
            taken.extend(over.into_iter().map(|encoded| (encoded, None)));
        }
        Ok(taken)
    }

    /// Marks keys whose values could not be put.
    pub fn mark_stale(&self, keys: impl IntoIterator<Item = Encoded>) {
        for key in keys {
            self.shards[shard_of(hash(&key))].lock().still_stale(key);
        }
    }

    /// When the finished part of some key next changes.
    pub fn earliest_due(&self) -> Option<i64> {
        self.shards.iter().filter_map(|shard| shard.lock().earliest_due()).min()
    }

    /// Keys in memory, and events kept for them.
    pub fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(keys, events), shard| {
            let shard = shard.lock();
            (keys + shard.len(), events + shard.entries().map(|e| e.state.events()).sum::<usize>())
        })
    }
}
