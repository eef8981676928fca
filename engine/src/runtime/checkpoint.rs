//! Making it durable: steps to history, then state, in that order. History may run ahead by itself: what is in it already
//! is recognised when the log is replayed from older state.

use super::{
    Engine, SourceRuntime, ViewRuntime,
    extent::Extent,
    plain::Plain,
    reading::lock_all,
    restore::{STATE_FORMAT, SourceProgress, ViewProgress},
    source::Inner,
    topic::Origins,
};
use crate::{
    seam::{CommitTag, Keyspace, Positions, SeamError, SeamResult, WriteBatch},
    view::{Frozen, Pending, by_key, step_at},
};
use serde::Serialize;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tidemark_catalog::ObjectId;
use tokio::sync::MutexGuard;

/// Steps per batch handed to history.
const STEPS_PER_BATCH: usize = 16_384;

/// Sources and the views over them as they stand at one moment, noted under the sources' locks.
struct Stand {
    sources: Vec<SourceStand>,
    views: Vec<ViewStand>,
}

struct SourceStand {
    id: ObjectId,
    progress: SourceProgress,
    extent: Extent,
    origins: Origins,
    plain: Option<Plain>,
}

struct ViewStand {
    view: Arc<ViewRuntime>,
    /// Of a family: its views, each with a history of its own.
    members: Vec<Arc<ViewRuntime>>,
    pending: Pending,
    frontier_us: i64,
    positions: Positions,
    open: Positions,
}

impl Stand {
    fn of(sources: &[Arc<SourceRuntime>], locked: &[MutexGuard<'_, Inner>]) -> Stand {
        let (mut stands, mut views) = (vec![], Vec::<ViewStand>::new());
        for (source, inner) in sources.iter().zip(locked) {
            stands.push(SourceStand::of(source, inner));
            for view in &inner.views {
                // One that was made meanwhile over a further source does not stand still.
                if view.is_over(sources)
                    && !view.has_failed()
                    && views.iter().all(|at| at.view.state.id != view.state.id)
                {
                    let end = |id| sources.iter().position(|source| source.id == id).map(|i| locked[i].end.clone());
                    views.push(ViewStand {
                        view: view.clone(),
                        members: view.family.as_ref().map(|family| family.members()).unwrap_or_default(),
                        pending: view.state.pending(),
                        frontier_us: view.state.frontier_us(),
                        positions: view.positions(|source| end(source.id).unwrap_or_default()),
                        open: view.open_from(),
                    });
                }
            }
        }
        Stand { sources: stands, views }
    }
}

impl SourceStand {
    fn of(source: &SourceRuntime, inner: &Inner) -> SourceStand {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (frontier_us, max_event_us) = inner.clocks();
        let progress = SourceProgress {
            positions: inner.end.clone(),
            frontier_us,
            max_event_us,
            rows: count(&source.counters.rows),
            rejected: count(&source.counters.rejected),
        };
        let plain = source.plain.as_ref().map(|plain| plain.read().clone());
        SourceStand { id: source.id, progress, extent: source.extent(), origins: Origins::of(inner), plain }
    }
}

/// The checkpoint of one view. Dropped before it is saved, what it would have saved is for the next one.
struct Saving {
    view: Arc<ViewRuntime>,
    frozen: Frozen,
    positions: Positions,
    open: Positions,
    is_saved: bool,
}

impl Saving {
    fn begin(at: &ViewStand) -> Saving {
        let (view, positions, open) = (at.view.clone(), at.positions.clone(), at.open.clone());
        Saving { frozen: view.state.freeze(), view, positions, open, is_saved: false }
    }

    /// The changed keys, and how far the view is.
    async fn write(&self) -> SeamResult<WriteBatch> {
        let mut batch = self.view.state.take_frozen(&self.frozen).await?;
        let Frozen { generation, frontier_us, keys, events, stale, behind } = &self.frozen;
        let progress = ViewProgress {
            format: STATE_FORMAT,
            positions: self.positions.clone(),
            open: self.open.clone(),
            frontier_us: *frontier_us,
            events: *events,
            keys: *keys,
            generation: *generation,
            stale: stale.clone(),
            behind: *behind,
        };
        match &self.view.family {
            Some(family) => family.put(self.view.state.id, progress, &mut batch)?,
            None => batch.puts.push(put(self.view.state.id, &progress)?),
        }
        Ok(batch)
    }

    fn set_saved(&mut self) {
        self.is_saved = true;
        self.view.state.set_saved();
    }

    /// Nobody can tell whether it was saved. To take it for lost would take its keys out of what a start may go by: the view stands
    /// still until it is started again from what there is.
    fn give_up(mut self, error: &SeamError, at_us: i64) {
        self.is_saved = true;
        self.view.fail(error, self.positions.clone(), at_us);
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if !self.is_saved
            && let Err(error) = self.view.state.set_lost()
        {
            tracing::warn!(view = self.view.state.compiled.name, %error, "a failed checkpoint is not cleared up yet");
        }
    }
}

/// What one write to the state store has of several views, nearly: a sync costs as much for one view as for many.
const GROUP_BYTES: usize = 16 << 20;

#[derive(Default)]
struct Group {
    batch: WriteBatch,
    bytes: usize,
    saving: Vec<Saving>,
}

impl Group {
    fn add(&mut self, saving: Saving, write: WriteBatch) {
        self.bytes += write.puts.iter().map(|(_, key, value)| key.len() + value.len()).sum::<usize>();
        self.batch.puts.extend(write.puts);
        self.batch.deletes.extend(write.deletes);
        self.saving.push(saving);
    }
}

/// What is saved must never be ahead of the logs.
async fn sync(sources: &[Arc<SourceRuntime>]) -> SeamResult<()> {
    for source in sources {
        source.log().sync().await?;
    }
    Ok(())
}

/// How far a source or view is, as one of the puts of a checkpoint.
pub(super) fn put(id: ObjectId, progress: &impl Serialize) -> SeamResult<(Keyspace, Vec<u8>, Vec<u8>)> {
    let bytes = postcard::to_stdvec(progress).map_err(SeamError::not_done)?;
    Ok((Keyspace::Progress, id.0.to_be_bytes().to_vec(), bytes))
}

impl Engine {
    /// All that has arrived is durable when this returns, state is saved and every step below the frontier is in
    /// history: durable, not final. A view whose history cannot be written keeps its steps; the first error is returned
    /// after everything else has been tried.
    pub async fn checkpoint(&self) -> SeamResult<()> {
        let _one = self.checkpointing.lock().await;
        let begun_us = self.seams.clock.now_us();
        let mut all = Ok(());
        for sources in self.neighbours() {
            let saved = self.checkpoint_sources(&sources).await;
            for source in sources {
                *source.last_error.write() = saved.as_ref().err().map(|error| error.to_string());
            }
            all = all.and(saved);
        }
        self.meters.checkpoint_us.observe_span(begun_us, self.seams.clock.now_us());
        if all.is_err() {
            self.meters.checkpoint_failures.add(1);
        }
        all
    }

    /// Every step below the frontier is in history when this returns. Errors as for [`Engine::checkpoint`].
    pub async fn commit_history(&self) -> SeamResult<()> {
        let _one = self.checkpointing.lock().await;
        let mut all = Ok(());
        for sources in self.neighbours() {
            let committed = self.commit_sources(&sources).await;
            if let Err(error) = &committed {
                sources.iter().for_each(|source| *source.last_error.write() = Some(error.to_string()));
            }
            all = all.and(committed);
        }
        all
    }

    async fn commit_sources(&self, sources: &[Arc<SourceRuntime>]) -> SeamResult<()> {
        let stand = Stand::of(sources, &lock_all(sources).await);
        sync(sources).await?;
        let mut all = Ok(());
        for at in &stand.views {
            let committed = self.commit_steps(at).await;
            all = all.and(committed);
        }
        all
    }

    /// Everything that takes long happens beside the sources' work: their locks are held only to note how things stand.
    async fn checkpoint_sources(&self, sources: &[Arc<SourceRuntime>]) -> SeamResult<()> {
        for view in self.kept().into_iter().filter(|view| view.is_over(sources)) {
            view.state.prepare()?;
            view.state.tidy_tables();
        }
        let mut locked = lock_all(sources).await;
        // Positions must not pass a record whose dead letter is only in memory.
        for (source, inner) in sources.iter().zip(&mut locked) {
            source.keep_waiting(inner, &self.seams).await?;
        }
        let stand = Stand::of(sources, &locked);
        let saving: Vec<Saving> = stand.views.iter().map(Saving::begin).collect();
        drop(locked);
        // Before history, which takes long: until they are taken, keys that change are copied first.
        let mut writes = Vec::with_capacity(saving.len());
        for saving in &saving {
            writes.push(saving.write().await);
        }
        sync(sources).await?;
        let mut all = Ok(());
        let mut checkpointed = vec![];
        let mut group = Group::default();
        for ((at, saving), write) in stand.views.iter().zip(saving).zip(writes) {
            let committed = match write {
                Ok(write) => self.commit_steps(at).await.map(|()| write),
                Err(error) => Err(error),
            };
            match committed {
                Ok(write) => group.add(saving, write),
                Err(error) => all = all.and(Err(error)),
            }
            if group.bytes > GROUP_BYTES {
                let saved = self.save(std::mem::take(&mut group), &mut checkpointed).await;
                all = all.and(saved);
            }
        }
        if all.is_ok() {
            for at in &stand.sources {
                group.batch.puts.push(put(at.id, &at.progress)?);
                group.batch.puts.push(at.extent.put(at.id)?);
                at.origins.put(at.id, &mut group.batch)?;
                if let Some(plain) = &at.plain {
                    plain.put(at.id, &mut group.batch)?;
                }
            }
        }
        all = all.and(self.save(group, &mut checkpointed).await);
        all?;
        let mut all = Ok(());
        for (source, at) in sources.iter().zip(&stand.sources) {
            let mut positions = at.progress.positions.clone();
            for view in stand.views.iter().filter(|at| at.view.reads(source.id)) {
                positions = view.view.least_in(source.id, &view.open, positions);
            }
            match self.archive(source, &at.progress.positions).await {
                Ok(Some(archived)) => positions.set(0, positions.get(0).min(archived)),
                Ok(None) => {}
                // What it has not got stays in the log, and nothing else waits for it.
                Err(error) => {
                    all = all.and(Err(error));
                    continue;
                }
            }
            self.shorten(source, &positions, &checkpointed).await?;
            if let Some(plain) = &at.plain {
                source.let_go_of_removed(plain).await?;
            }
        }
        all
    }

    async fn save(&self, Group { batch, bytes, saving }: Group, checkpointed: &mut Vec<ObjectId>) -> SeamResult<()> {
        let saved = self.seams.state.checkpoint(batch).await;
        if saved.is_ok() {
            self.meters.checkpoint_bytes.add(bytes as u64);
        }
        let mut all = Ok(());
        let mut done = vec![];
        // All of them before anything is waited for: a statement that is cancelled then must not take them for lost.
        for mut saving in saving {
            match self.is_saved(&saved, &saving) {
                Ok(true) => {
                    saving.set_saved();
                    checkpointed.push(saving.view.state.id);
                    done.push(saving);
                }
                Ok(false) => {}
                Err(error) => saving.give_up(&error, self.seams.clock.now_us()),
            }
        }
        for saving in done {
            let settled = saving.view.state.settle(&saving.frozen).await;
            all = all.and(settled);
            let forgotten = self.forget_replaced(&saving.view).await;
            all = all.and(forgotten);
        }
        saved.and(all)
    }

    /// Whether a view is in what was written.
    fn is_saved(&self, written: &SeamResult<()>, saving: &Saving) -> SeamResult<bool> {
        match written {
            Ok(()) => Ok(true),
            // Nobody could tell whether it happened: the store can.
            Err(SeamError::Unknown(_)) => {
                let found: Option<ViewProgress> = self.progress(saving.view.state.id)?;
                Ok(found.is_some_and(|found| found.generation == saving.frozen.generation))
            }
            Err(_) => Ok(false),
        }
    }

    /// Appends a view's pending steps to its history; whether that went well is noted at the view, for people.
    /// Of a family's views each has its turn; the family's steps go when all of them have them.
    async fn commit_steps(&self, at: &ViewStand) -> SeamResult<()> {
        if at.view.family.is_none() {
            return self.commit_view(&at.view, &at.pending, at).await;
        }
        let mut all = Ok(());
        for view in &at.members {
            let pending = view.state.pending_among(&at.pending.chunks);
            let committed = self.commit_view(view, &pending, at).await;
            all = all.and(committed);
        }
        if all.is_ok() {
            at.view.state.committed(at.pending.chunks.len(), at.frontier_us);
        }
        all
    }

    async fn commit_view(&self, view: &ViewRuntime, pending: &Pending, at: &ViewStand) -> SeamResult<()> {
        let committed = self.append_steps(view, pending, at).await;
        if committed.is_err() {
            view.meters.commit_failures.add(1);
        }
        view.note("history", &committed);
        committed
    }

    async fn append_steps(&self, view: &ViewRuntime, pending: &Pending, at: &ViewStand) -> SeamResult<()> {
        let ViewStand { frontier_us, positions, .. } = at;
        if pending.chunks.is_empty() && *frontier_us <= pending.committed_us {
            return Ok(());
        }
        let tag = CommitTag {
            frontier_us: *frontier_us,
            positions: positions.clone(),
            view_version: view.version,
            writer_epoch: self.epoch,
            sequence: view.sequence.load(Ordering::Relaxed),
        };
        let recorded_us = self.seams.clock.now_us();
        let compiled = view.state.compiled.clone();
        let mut batches = vec![];
        for places in by_key(&pending.chunks).chunks(STEPS_PER_BATCH) {
            let steps = |at: &(u32, u32)| step_at(&pending.chunks, *at);
            let batch = compiled.steps(&places.iter().map(steps).collect::<Vec<_>>(), Some(recorded_us));
            batches.push(batch.map_err(SeamError::not_done)?);
            // Lookups and feeds run on the same threads.
            tokio::task::yield_now().await;
        }
        let table = view.history.read().clone();
        if let Err(error) = self.seams.history.append(&table, batches, &tag).await {
            // It may have happened all the same; or the one before it did, of which nobody could tell at the time.
            let last = self.seams.history.last_tag(&table.name).await?;
            match last.filter(|last| last.writer_epoch == tag.writer_epoch && last.sequence == tag.sequence) {
                Some(last) if last == tag => {}
                Some(last) => {
                    view.sequence.fetch_add(1, Ordering::Relaxed);
                    view.state.committed_below(last.frontier_us);
                    return Err(SeamError::not_done(
                        "an earlier commit turned out to be done; the next goes on from there",
                    ));
                }
                None => return Err(error.into_not_done()),
            }
        }
        self.meters.commit_us.observe_span(recorded_us, self.seams.clock.now_us());
        view.meters.commits.add(1);
        view.meters.steps_committed.add(pending.chunks.iter().map(|chunk| chunk.len() as u64).sum());
        view.sequence.fetch_add(1, Ordering::Relaxed);
        view.state.committed(pending.chunks.len(), tag.frontier_us);
        Ok(())
    }
}
