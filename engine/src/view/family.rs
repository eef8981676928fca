//! Views whose keys are kept together: one state for all of them, of which each reads some of the columns.
//!
//! ```text
//!   the family's state   ring · cursors · columns c0 c1 c2 c3 · since when each is what it is
//!   its steps            t  c0 c1 c2 c3   which of them changed
//!   view a = c0 c2       the steps in which one of these two changed, a new event came, or the key came or went
//!   view b = c1 c3       the same for its own
//! ```
//!
//! Something happens to a key at the same instants in all of these views (`planner/src/feature/family.rs`), so what a view alone would
//! have is what it has here, bit for bit: its row holds since the last instant at which one of its own columns changed.
//! Each view has its own history, and its own part of the online store. What waits for its history it had before it came
//! here, and the family's steps since the last commit of its own.

use super::{
    Counters, Pending, ViewState,
    packed::Outputs,
    shard::Shard,
    step::{EVERY, MONTH, OUTPUTS, Op, SharedSteps, Step, Steps, has, set, words},
};
use crate::{
    compiled::Row,
    key::Held,
    value::{Value, encode_row},
};
use datafusion::error::Result as DfResult;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Which of a family's columns are a view's.
#[derive(Debug, Clone)]
pub struct Projection {
    columns: Box<[usize]>,
    /// The bits of a step that make it one of this view.
    mask: Box<[u64]>,
}

/// Where the keys of a view are that are kept with those of others.
pub struct Host {
    pub state: Arc<ViewState>,
    pub projection: Projection,
}

impl Projection {
    /// These columns of a family's `outputs`.
    pub fn new(columns: Vec<usize>, outputs: usize) -> Projection {
        let mut mask = vec![0; words(outputs)];
        set(&mut mask, EVERY);
        columns.iter().for_each(|column| set(&mut mask, OUTPUTS + column));
        Projection { columns: columns.into(), mask: mask.into() }
    }

    /// What a step of the family is to this view; `None`: nothing.
    fn op(&self, step: &Step<'_>) -> Option<Op> {
        if step.op == Op::Delete {
            return Some(Op::Delete);
        }
        if step.changed.iter().zip(self.mask.iter()).any(|(changed, mine)| changed & mine != 0) {
            return Some(Op::Upsert);
        }
        has(step.changed, MONTH).then_some(Op::Carry)
    }

    fn outputs(&self, of: Outputs<'_>) -> Box<[Value]> {
        self.columns.iter().map(|column| of.cell(*column).to_value()).collect()
    }

    /// The row of a key.
    pub fn row(&self, key: &Arc<[Value]>, held: &Held) -> Row {
        let since = |column: &usize| held.since.get(1 + column).copied().unwrap_or(i64::MIN);
        let instant_us =
            self.columns.iter().map(since).fold(held.since.first().copied().unwrap_or(held.instant_us), i64::max);
        Row { key: key.clone(), instant_us, event_us: held.event_us, outputs: self.outputs(held.outputs[..].into()) }
    }

    /// This view's steps among those of the family, from an instant on.
    fn steps(&self, chunks: &[Arc<Steps>], from_us: i64) -> Steps {
        let mut steps = Steps::default();
        for step in chunks.iter().flat_map(|chunk| chunk.iter()).filter(|step| step.instant_us >= from_us) {
            let Some(op) = self.op(&step) else { continue };
            let outputs = if op == Op::Delete { Box::default() } else { self.outputs(step.outputs) };
            steps.push(Step { op, outputs: outputs[..].into(), changed: &[], ..step });
        }
        steps
    }

    /// The same in chunks as the family has them: none has steps of both sides of a frontier, so those that a commit had can be
    /// told from the others.
    fn chunks(&self, of: &[Arc<Steps>], from_us: i64) -> Vec<Arc<Steps>> {
        let own = of.iter().map(|chunk| self.steps(std::slice::from_ref(chunk), from_us));
        own.filter(|steps| !steps.is_empty()).map(Arc::new).collect()
    }

    fn count(&self, chunks: &[Arc<Steps>], from_us: i64) -> usize {
        let of_chunk = |chunk: &Arc<Steps>| {
            chunk.iter().filter(|step| step.instant_us >= from_us && self.op(step).is_some()).count()
        };
        chunks.iter().map(of_chunk).sum()
    }
}

impl ViewState {
    /// Where its keys are, if not here.
    pub fn host(&self) -> Option<Arc<Host>> {
        self.host.read().clone()
    }

    pub fn is_hosted(&self) -> bool {
        self.host.read().is_some()
    }

    /// Asks where the keys are, and again where they have moved meanwhile.
    pub(super) fn where_kept<T>(&self, ask: impl Fn(Option<&Host>) -> DfResult<T>) -> DfResult<T> {
        loop {
            let host = self.host();
            let answer = ask(host.as_deref())?;
            if self.is_still(&host) {
                return Ok(answer);
            }
        }
    }

    pub(super) fn is_still(&self, host: &Option<Arc<Host>>) -> bool {
        match (self.host.read().as_ref(), host) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (None, None) => true,
            _ => false,
        }
    }

    /// From here on its keys are with those of others. Nothing may be applied to it, flushed or saved meanwhile, and its frontier
    /// is the family's.
    pub fn move_to(&self, host: Arc<Host>) {
        let _finishing = self.finishing.write();
        let before = self.pending();
        {
            let mut own = self.pending.lock();
            *own = before;
            self.steps_waiting.store(own.chunks.iter().map(|chunk| chunk.len()).sum(), Ordering::Relaxed);
            let left = self.host.write().replace(host.clone());
            if let Some(left) = left {
                left.state.readers.fetch_sub(1, Ordering::Relaxed);
            }
            host.state.readers.fetch_add(1, Ordering::Relaxed);
        }
        for shard in &self.shards {
            let mut shard = shard.lock();
            if let Some(cold) = &self.cold {
                cold.memory.grow(-(shard.accounted() as i64));
            }
            *shard = Shard::new();
        }
    }

    /// The view is dropped, or stands for itself again.
    pub fn leave_host(&self) {
        if let Some(host) = self.host() {
            host.state.readers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A family's steps until now become this view's own: it has just been made, and its family was made with it. The others
    /// have theirs already.
    pub fn take_steps_of(&self, family: &ViewState) {
        let chunks = {
            let mut pending = family.pending.lock();
            std::mem::take(&mut pending.chunks)
        };
        let gone: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        family.steps_waiting.fetch_sub(gone, Ordering::Relaxed);
        let Some(host) = self.host() else { return };
        let mut own = self.pending.lock();
        let steps = host.projection.chunks(&chunks, own.committed_us);
        let more: usize = steps.iter().map(|chunk| chunk.len()).sum();
        self.steps_waiting.fetch_add(more, Ordering::Relaxed);
        own.chunks.extend(steps);
    }

    /// What is to be committed of this view, given its family's chunks.
    pub fn pending_among(&self, chunks: &[Arc<Steps>]) -> Pending {
        let Some(host) = self.host() else { return self.pending() };
        let mut own = self.pending.lock().clone();
        own.chunks.extend(host.projection.chunks(chunks, own.committed_us));
        own
    }

    pub(super) fn hosted_pending(&self, host: &Arc<Host>) -> Option<Pending> {
        // The family's first: what is committed and gone from it meanwhile is in the history by what is read then.
        let chunks = host.state.pending().chunks;
        let mut own = {
            let own = self.pending.lock();
            if !self.is_still(&Some(host.clone())) {
                return None;
            }
            own.clone()
        };
        own.chunks.extend(host.projection.chunks(&chunks, own.committed_us));
        Some(own)
    }

    /// How many steps wait for their commit that are kept here: of a view that is kept with others those that it had before.
    pub fn steps_here(&self) -> usize {
        self.steps_waiting.load(Ordering::Relaxed)
    }

    /// How many steps wait for their commit.
    pub fn steps_waiting(&self) -> usize {
        let own = self.steps_here();
        let Some(host) = self.host() else { return own };
        let committed_us = self.committed_us();
        own + host.projection.count(&host.state.pending().chunks, committed_us)
    }

    /// Every step below this is in the history table.
    pub fn committed_us(&self) -> i64 {
        self.pending.lock().committed_us
    }

    /// The steps between the frontier and `at_us` that history does not have, of a view that is kept with others;
    /// `None`: it has moved meanwhile, or some of them have been committed, so that what is in history may be of later
    /// than what was read.
    pub(super) fn hosted_steps(
        &self,
        host: &Arc<Host>,
        at_us: i64,
        key: Option<&[u8]>,
    ) -> DfResult<Option<(i64, SharedSteps)>> {
        let committed_us = self.committed_us();
        let (_, of_family) = host.state.steps_above_history(at_us, key)?;
        let own = {
            let own = self.pending.lock();
            if !self.is_still(&Some(host.clone())) || own.committed_us != committed_us {
                return Ok(None);
            }
            own.clone()
        };
        let mut chunks = own.chunks;
        if let Some(key) = key {
            let mut of_key = Steps::default();
            let all = chunks.iter().flat_map(|chunk| chunk.iter());
            all.filter(|step| encode_row(step.key) == key).for_each(|step| of_key.push(step));
            chunks = vec![Arc::new(of_key)];
        }
        chunks.push(Arc::new(host.projection.steps(&of_family.0, own.committed_us)));
        Ok(Some((own.committed_us, SharedSteps(chunks))))
    }

    /// One of the numbers of [`Counters`]; of a view that is kept with others it is that of all of them.
    pub fn count(&self, of: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        match self.host() {
            Some(host) => of(&host.state.counters).load(Ordering::Relaxed),
            None => of(&self.counters).load(Ordering::Relaxed),
        }
    }
}
