//! The running feature view: its keys in shards, the steps that wait for history, and the three readings.
//!
//! Work on a shard is short and synchronous; lookups lock one shard, ingestion one after the other.

use crate::{
    compiled::{BatchRows, CompiledView, KeyedEvent, Row, RowFailure},
    key::{Held, Instant, KeyState},
    seam::SeamError,
    value::Value,
};
use datafusion::error::Result as DfResult;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use tidemark_catalog::ObjectId;

/// A power of two, well above the cores: lookups seldom meet on one lock.
const SHARDS: usize = 16;

type Encoded = Arc<[u8]>;

/// A key changed since the last checkpoint, and its state as bytes (`None`: the key is over).
pub type DirtyKey = (Arc<[u8]>, Option<Vec<u8>>);

/// One row of history.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub op: Op,
    pub row: Row,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Upsert,
    Delete,
    Carry,
}

impl Op {
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Upsert => "upsert",
            Op::Delete => "delete",
            Op::Carry => "carry",
        }
    }
}

pub struct ViewState {
    pub id: ObjectId,
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
    pub chunks: Vec<Arc<Vec<Step>>>,
}

#[derive(Default)]
struct Shard {
    keys: HashMap<Encoded, Entry>,
    /// When the finished part of a key next changes.
    due: BTreeSet<(i64, Encoded)>,
    /// When what the online store shows of a key next changes.
    online_due: BTreeSet<(i64, Encoded)>,
    /// Changed since the last checkpoint; a key that is gone from `keys` is to be deleted there.
    dirty: HashSet<Encoded>,
    /// Changed since the last online flush.
    stale: HashSet<Encoded>,
}

struct Entry {
    state: KeyState,
    due: Option<i64>,
    online_due: Option<i64>,
}

impl ViewState {
    /// An empty view. Steps below `committed_us` are already in the history table and are not written again.
    pub fn new(id: ObjectId, compiled: Arc<CompiledView>, committed_us: i64) -> ViewState {
        ViewState {
            id,
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

    fn shard(&self, encoded: &[u8]) -> &Mutex<Shard> {
        let hash = encoded.iter().fold(0xcbf2_9ce4u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
        &self.shards[(hash >> 16) as usize % SHARDS]
    }

    /// Takes the admitted rows of a batch; returns the rows this view cannot use.
    pub fn apply(&self, batch: &BatchRows<'_>) -> DfResult<Vec<RowFailure>> {
        let (events, mut failures) = self.compiled.events(batch)?;
        self.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        let mut by_shard: Vec<Vec<KeyedEvent>> = (0..SHARDS).map(|_| vec![]).collect();
        for event in events {
            let hash = event.encoded.iter().fold(0xcbf2_9ce4u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
            by_shard[(hash >> 16) as usize % SHARDS].push(event);
        }
        let walk = &self.compiled.walk;
        let frontier = self.frontier_us();
        for (shard, events) in self.shards.iter().zip(by_shard) {
            if events.is_empty() {
                continue;
            }
            let mut shard = shard.lock();
            let shard = &mut *shard;
            let mut touched: HashSet<Encoded> = HashSet::new();
            for KeyedEvent { key, encoded, event } in events {
                let encoded: Encoded = match shard.keys.get_key_value(encoded.as_slice()) {
                    Some((known, _)) => known.clone(),
                    None => {
                        let encoded: Encoded = encoded.into();
                        let state = KeyState::new(walk, key, frontier);
                        shard.keys.insert(encoded.clone(), Entry { state, due: None, online_due: None });
                        encoded
                    }
                };
                let (row, time) = ((event.offset - batch.base_offset) as usize, event.time_us);
                if let Some(entry) = shard.keys.get_mut(&encoded)
                    && !entry.state.insert(event)
                {
                    let error = format!("event time {time} lies below the frontier of the view");
                    failures.push(RowFailure { row, reason: crate::seam::RejectReason::Late, error });
                }
                touched.insert(encoded);
            }
            for encoded in touched {
                shard.schedule(&encoded, walk);
                shard.dirty.insert(encoded.clone());
                shard.stale.insert(encoded);
            }
        }
        failures.sort_by_key(|f| f.row);
        self.counters.rows_failed.fetch_add(failures.len() as u64, Ordering::Relaxed);
        Ok(failures)
    }

    /// The frontier has moved: everything below it becomes steps.
    pub fn finish(&self, frontier_us: i64) -> DfResult<()> {
        if frontier_us <= self.frontier_us() {
            return Ok(());
        }
        let _finishing = self.finishing.write();
        self.frontier_us.store(frontier_us, Ordering::Release);
        let walk = &self.compiled.walk;
        let mut steps = vec![];
        for shard in &self.shards {
            let mut shard = shard.lock();
            let shard = &mut *shard;
            let mut due = vec![];
            while let Some((at, _)) = shard.due.first()
                && *at < frontier_us
                && let Some((_, encoded)) = shard.due.pop_first()
            {
                due.push(encoded);
            }
            let mut instants: Vec<Instant> = vec![];
            let mut ends = Vec::with_capacity(due.len());
            for encoded in &due {
                if let Some(entry) = shard.keys.get_mut(encoded) {
                    entry.due = None;
                    entry.state.finish(walk, frontier_us, &mut instants);
                }
                ends.push(instants.len());
            }
            let mut outputs = self.outputs(&instants)?.into_iter();
            let mut instants = instants.into_iter();
            let mut from = 0;
            for (encoded, end) in due.iter().zip(ends) {
                let Some(entry) = shard.keys.get_mut(encoded) else { continue };
                let key: Arc<[Value]> = entry.state.key.to_vec().into();
                for (instant, outputs) in instants.by_ref().zip(outputs.by_ref()).take(end - from) {
                    if let Some(step) = settle(&mut entry.state.done.held, &key, instant, outputs) {
                        steps.push(step);
                    }
                }
                from = end;
                entry.state.trim(walk);
                if entry.state.is_over(walk) {
                    if let Some(at) = entry.online_due.take() {
                        shard.online_due.remove(&(at, encoded.clone()));
                    }
                    shard.keys.remove(encoded);
                    shard.stale.insert(encoded.clone());
                } else {
                    shard.schedule(encoded, walk);
                }
                shard.dirty.insert(encoded.clone());
            }
        }
        self.counters.steps.fetch_add(steps.len() as u64, Ordering::Relaxed);
        let mut pending = self.pending.lock();
        // After a restart the log is replayed from before the last commit: steps below it are already in history.
        steps.retain(|step| step.row.instant_us >= pending.committed_us);
        if !steps.is_empty() {
            pending.chunks.push(Arc::new(steps));
        }
        Ok(())
    }

    fn outputs(&self, instants: &[Instant]) -> DfResult<Vec<Box<[Value]>>> {
        let empty: Vec<Value> = vec![Value::Null; self.compiled.plan.slots.len()];
        let slots: Vec<&[Value]> = instants.iter().map(|i| i.slots.as_deref().unwrap_or(&empty)).collect();
        let (outputs, failed) = self.compiled.outputs(&slots)?;
        let beyond = instants.iter().filter(|i| i.out_of_range).count();
        self.counters.values_failed.fetch_add((failed + beyond) as u64, Ordering::Relaxed);
        Ok(outputs)
    }

    /// `V(key, at)` for an instant at or after the frontier.
    pub fn lookup(&self, encoded: &[u8], at_us: i64) -> DfResult<Option<Row>> {
        let mut shard = self.shard(encoded).lock();
        let Some(entry) = shard.keys.get_mut(encoded) else { return Ok(None) };
        self.read(&mut entry.state, at_us)
    }

    fn read(&self, state: &mut KeyState, at_us: i64) -> DfResult<Option<Row>> {
        let at_us = at_us.max(self.frontier_us().saturating_sub(1));
        let key: Arc<[Value]> = state.key.to_vec().into();
        let mut instants = vec![];
        let cursor = state.online(&self.compiled.walk, at_us, &mut instants);
        if !instants.is_empty() {
            let outputs = self.outputs(&instants)?;
            for (instant, outputs) in instants.into_iter().zip(outputs) {
                settle(&mut cursor.held, &key, instant, outputs);
            }
        }
        Ok(cursor.held.as_ref().map(|held| row(&key, held)))
    }

    /// `V(k, at)` for every key present, at or after the frontier.
    pub fn rows(&self, at_us: i64) -> DfResult<Vec<Row>> {
        let mut rows = vec![];
        for shard in &self.shards {
            for entry in shard.lock().keys.values_mut() {
                rows.extend(self.read(&mut entry.state, at_us)?);
            }
        }
        Ok(rows)
    }

    /// The steps between the frontier and `at_us` that history does not have: the pending ones and the provisional ones.
    /// Also the instant below which the history table is complete; read the table after this, only below that instant.
    pub fn steps_above_history(&self, at_us: i64, key: Option<&[u8]>) -> DfResult<(i64, Vec<Step>)> {
        let _finishing = self.finishing.read();
        let mut provisional = vec![];
        for shard in &self.shards {
            for (encoded, entry) in shard.lock().keys.iter() {
                if key.is_some_and(|key| key != encoded.as_ref()) {
                    continue;
                }
                let mut instants = vec![];
                let mut cursor = entry.state.provisional(&self.compiled.walk, at_us, &mut instants);
                let outputs = self.outputs(&instants)?;
                let key: Arc<[Value]> = entry.state.key.to_vec().into();
                for (instant, outputs) in instants.into_iter().zip(outputs) {
                    provisional.extend(settle(&mut cursor.held, &key, instant, outputs));
                }
            }
        }
        let pending = self.pending.lock().clone();
        let wanted: Option<HashSet<Vec<u8>>> = key.map(|k| HashSet::from([k.to_vec()]));
        let mut steps: Vec<Step> = pending
            .chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .filter(|s| wanted.as_ref().is_none_or(|w| w.contains(&crate::value::encode_row(&s.row.key))))
            .cloned()
            .collect();
        steps.extend(provisional);
        Ok((pending.committed_us, steps))
    }

    /// The steps to commit next, and how many chunks they are.
    pub fn pending(&self) -> Pending {
        self.pending.lock().clone()
    }

    /// The first `chunks` chunks are in the history table now, complete below `frontier_us`.
    pub fn committed(&self, chunks: usize, frontier_us: i64) {
        let mut pending = self.pending.lock();
        pending.chunks.drain(..chunks);
        pending.committed_us = pending.committed_us.max(frontier_us);
    }

    /// The keys changed since the last call, as bytes (`None`: the key is over).
    pub fn take_dirty(&self) -> Result<Vec<DirtyKey>, SeamError> {
        let mut taken = vec![];
        for shard in &self.shards {
            let mut shard = shard.lock();
            let dirty = std::mem::take(&mut shard.dirty);
            for encoded in dirty {
                let bytes = match shard.keys.get(&encoded) {
                    Some(entry) => Some(entry.state.encode(&self.compiled.walk).map_err(SeamError::not_done)?),
                    None => None,
                };
                taken.push((encoded, bytes));
            }
        }
        Ok(taken)
    }

    /// Marks keys dirty again whose checkpoint failed.
    pub fn mark_dirty(&self, keys: impl IntoIterator<Item = Encoded>) {
        for key in keys {
            self.shard(&key).lock().dirty.insert(key.clone());
        }
    }

    /// Puts back a key from a checkpoint.
    pub fn restore(&self, encoded: Vec<u8>, bytes: &[u8]) -> Result<(), SeamError> {
        let walk = &self.compiled.walk;
        let state = KeyState::decode(walk, bytes).map_err(|e| {
            SeamError::not_done(format!("state of feature view \"{}\" cannot be read: {e}", self.compiled.name))
        })?;
        let encoded: Encoded = encoded.into();
        let mut shard = self.shard(&encoded).lock();
        shard.keys.insert(encoded.clone(), Entry { state, due: None, online_due: None });
        shard.schedule(&encoded, walk);
        // What the online store shows of it is of before the stop, and its departures are to be followed again.
        shard.stale.insert(encoded);
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
            let shard = &mut *shard;
            let mut stale = std::mem::take(&mut shard.stale);
            while let Some((at, _)) = shard.online_due.first()
                && *at <= at_us
                && let Some((_, encoded)) = shard.online_due.pop_first()
            {
                if let Some(entry) = shard.keys.get_mut(&encoded) {
                    entry.online_due = None;
                }
                stale.insert(encoded);
            }
            for encoded in stale {
                let row = match shard.keys.get_mut(&encoded) {
                    Some(entry) => {
                        let row = self.read(&mut entry.state, at_us)?;
                        if let Some(old) = entry.online_due.take() {
                            shard.online_due.remove(&(old, encoded.clone()));
                        }
                        if let Some(next) = entry.state.next_online_instant(&self.compiled.walk) {
                            entry.online_due = Some(next);
                            shard.online_due.insert((next, encoded.clone()));
                        }
                        row
                    }
                    None => None,
                };
                taken.push((encoded, row));
            }
        }
        Ok(taken)
    }

    /// Marks keys whose values could not be put.
    pub fn mark_stale(&self, keys: impl IntoIterator<Item = Encoded>) {
        for key in keys {
            self.shard(&key).lock().stale.insert(key.clone());
        }
    }

    /// When the finished part of some key next changes.
    pub fn earliest_due(&self) -> Option<i64> {
        self.shards.iter().filter_map(|shard| shard.lock().due.first().map(|(at, _)| *at)).min()
    }

    /// Keys in memory, and events kept for them.
    pub fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(keys, events), shard| {
            let shard = shard.lock();
            (keys + shard.keys.len(), events + shard.keys.values().map(|e| e.state.events()).sum::<usize>())
        })
    }
}

impl Shard {
    fn schedule(&mut self, encoded: &Encoded, walk: &crate::key::Walk) {
        let Some(entry) = self.keys.get_mut(encoded) else { return };
        let next = entry.state.next_instant(walk);
        if next != entry.due {
            if let Some(old) = entry.due {
                self.due.remove(&(old, encoded.clone()));
            }
            if let Some(next) = next {
                self.due.insert((next, encoded.clone()));
            }
            entry.due = next;
        }
    }
}

fn row(key: &Arc<[Value]>, held: &Held) -> Row {
    Row { key: key.clone(), instant_us: held.instant_us, event_us: held.event_us, outputs: held.outputs.clone() }
}

/// Turns an instant into a step, if it is one: presence, `_event_time` or the bits of an output changed, or a month
/// began.
fn settle(held: &mut Option<Held>, key: &Arc<[Value]>, instant: Instant, outputs: Box<[Value]>) -> Option<Step> {
    if instant.slots.is_none() {
        held.take()?;
        let gone =
            Row { key: key.clone(), instant_us: instant.at_us, event_us: instant.event_us, outputs: Box::default() };
        return Some(Step { op: Op::Delete, row: gone });
    }
    let changed = held.as_ref().is_none_or(|h| h.event_us != instant.event_us || h.outputs != outputs);
    if !changed && !instant.month {
        return None;
    }
    let now = Held { instant_us: instant.at_us, event_us: instant.event_us, outputs };
    let step = Step { op: if changed { Op::Upsert } else { Op::Carry }, row: row(key, &now) };
    *held = Some(now);
    Some(step)
}
