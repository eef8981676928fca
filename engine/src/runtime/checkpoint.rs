//! Making it durable: steps to history, then state, in that order. History may run ahead by itself: what is in it already
//! is recognised when the log is replayed from older state.

use super::{
    Engine, SourceRuntime, ViewRuntime,
    extent::Extent,
    restore::{STATE_FORMAT, SourceProgress, ViewProgress},
    source::Inner,
    topic::Origins,
};
use crate::{
    seam::{CommitTag, Keyspace, Positions, SeamError, SeamResult, WriteBatch},
    view::{Frozen, Pending, Step},
};
use arrow::record_batch::RecordBatch;
use serde::Serialize;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tidemark_catalog::ObjectId;

/// Steps per batch handed to history.
const STEPS_PER_BATCH: usize = 65_536;

/// A source and its views as they stand at one moment, noted under the source's lock.
struct Stand {
    progress: SourceProgress,
    extent: Extent,
    origins: Origins,
    views: Vec<ViewStand>,
}

struct ViewStand {
    view: Arc<ViewRuntime>,
    pending: Pending,
}

impl Stand {
    fn of(source: &SourceRuntime, inner: &Inner) -> Stand {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (frontier_us, max_event_us) = inner.clocks();
        let progress = SourceProgress {
            positions: inner.end.clone(),
            frontier_us,
            max_event_us,
            rows: count(&source.counters.rows),
            rejected: count(&source.counters.rejected),
        };
        let views = inner.views.iter().map(|view| ViewStand { view: view.clone(), pending: view.state.pending() });
        Stand { progress, extent: source.extent(), origins: Origins::of(inner), views: views.collect() }
    }
}

/// The checkpoint of one view. Dropped before it is saved, what it would have saved is for the next one.
struct Saving {
    view: Arc<ViewRuntime>,
    frozen: Frozen,
    positions: Positions,
    is_saved: bool,
}

impl Saving {
    fn begin(view: &Arc<ViewRuntime>, positions: &Positions) -> Saving {
        Saving { view: view.clone(), frozen: view.state.freeze(), positions: positions.clone(), is_saved: false }
    }

    /// The changed keys, and how far the view is.
    fn write(&self) -> SeamResult<WriteBatch> {
        let mut batch = self.view.state.take_frozen(&self.frozen)?;
        let Frozen { generation, frontier_us, keys, events, stale, behind } = &self.frozen;
        let progress = ViewProgress {
            format: STATE_FORMAT,
            positions: self.positions.clone(),
            frontier_us: *frontier_us,
            events: *events,
            keys: *keys,
            generation: *generation,
            stale: stale.clone(),
            behind: *behind,
        };
        batch.puts.push(put(self.view.state.id, &progress)?);
        Ok(batch)
    }

    fn saved(mut self) -> SeamResult<()> {
        self.is_saved = true;
        self.view.state.set_saved(&self.frozen)
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

/// How far a source or view is, as one of the puts of a checkpoint.
fn put(id: ObjectId, progress: &impl Serialize) -> SeamResult<(Keyspace, Vec<u8>, Vec<u8>)> {
    let bytes = postcard::to_stdvec(progress).map_err(SeamError::not_done)?;
    Ok((Keyspace::Progress, id.0.to_be_bytes().to_vec(), bytes))
}

impl Engine {
    /// All that has arrived is durable when this returns, state is saved and every step below the frontier is in
    /// history: durable, not final. A view whose history cannot be written keeps its steps; the first error is returned
    /// after everything else has been tried.
    pub async fn checkpoint(&self) -> SeamResult<()> {
        let _one = self.checkpointing.lock().await;
        let mut all = Ok(());
        for source in self.sources() {
            let saved = self.checkpoint_source(&source).await;
            *source.last_error.write() = saved.as_ref().err().map(|error| error.to_string());
            all = all.and(saved);
        }
        all
    }

    /// Every step below the frontier is in history when this returns. Errors as for [`Engine::checkpoint`].
    pub async fn commit_history(&self) -> SeamResult<()> {
        let _one = self.checkpointing.lock().await;
        let mut all = Ok(());
        for source in self.sources() {
            let committed = self.commit_source(&source).await;
            if let Err(error) = &committed {
                *source.last_error.write() = Some(error.to_string());
            }
            all = all.and(committed);
        }
        all
    }

    async fn commit_source(&self, source: &SourceRuntime) -> SeamResult<()> {
        let stand = Stand::of(source, &*source.lock().await);
        // What is saved must never be ahead of the log.
        source.log.sync().await?;
        let mut all = Ok(());
        for at in &stand.views {
            let committed = self.commit_steps(at, &stand.progress).await;
            all = all.and(committed);
        }
        all
    }

    /// Everything that takes long happens beside the source's work: its lock is held only to note how things stand.
    async fn checkpoint_source(&self, source: &SourceRuntime) -> SeamResult<()> {
        for view in self.views().iter().filter(|view| view.source.id == source.id) {
            view.state.prepare()?;
        }
        let flushing = self.flushing.lock().await;
        let mut inner = source.lock().await;
        // Positions must not pass a record whose dead letter is only in memory.
        source.keep_waiting(&mut inner, &self.seams).await?;
        let stand = Stand::of(source, &inner);
        let saving = stand.views.iter().map(|at| Saving::begin(&at.view, &stand.progress.positions));
        let saving: Vec<Saving> = saving.collect();
        drop(inner);
        drop(flushing);
        // Before history, which takes long: until they are taken, keys that change are copied first.
        let writes: Vec<_> = saving.iter().map(Saving::write).collect();
        // What is saved must never be ahead of the log.
        source.log.sync().await?;
        let mut all = Ok(());
        let mut checkpointed = vec![];
        let mut group = Group::default();
        for ((at, saving), write) in stand.views.iter().zip(saving).zip(writes) {
            let committed = match write {
                Ok(write) => self.commit_steps(at, &stand.progress).await.map(|()| write),
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
            group.batch.puts.push(put(source.id, &stand.progress)?);
            group.batch.puts.push(stand.extent.put(source.id)?);
            group.batch.puts.extend(stand.origins.put(source.id)?);
        }
        all = all.and(self.save(group, &mut checkpointed).await);
        all?;
        self.shorten(source, &stand.progress.positions, &checkpointed).await
    }

    async fn save(&self, Group { batch, saving, .. }: Group, checkpointed: &mut Vec<ObjectId>) -> SeamResult<()> {
        let saved = self.seams.state.checkpoint(batch).await;
        for saving in saving {
            let id = saving.view.state.id;
            let is_saved = match &saved {
                Ok(()) => true,
                // Nobody could tell whether it happened: the store can.
                Err(SeamError::Unknown(_)) => {
                    let found: Option<ViewProgress> = self.progress(id)?;
                    found.is_some_and(|found| found.generation == saving.frozen.generation)
                }
                Err(_) => false,
            };
            if is_saved {
                saving.saved()?;
                checkpointed.push(id);
            }
        }
        saved
    }

    /// Appends a view's pending steps to its history; whether that went well is noted at the view, for people.
    async fn commit_steps(&self, at: &ViewStand, source: &SourceProgress) -> SeamResult<()> {
        let ViewStand { view, pending, .. } = at;
        let committed = self.append_steps(view, pending, source).await;
        *view.last_error.write() = committed.as_ref().err().map(|error| format!("history: {error}"));
        committed
    }

    async fn append_steps(&self, view: &ViewRuntime, pending: &Pending, source: &SourceProgress) -> SeamResult<()> {
        if pending.chunks.is_empty() && source.frontier_us <= pending.committed_us {
            return Ok(());
        }
        let tag = CommitTag {
            frontier_us: source.frontier_us,
            positions: source.positions.clone(),
            view_version: view.version,
            writer_epoch: self.epoch,
            sequence: view.sequence.load(Ordering::Relaxed),
        };
        let recorded_us = self.seams.clock.now_us();
        let compiled = view.state.compiled.clone();
        let steps: Vec<Step<'_>> = pending.chunks.iter().flat_map(|chunk| chunk.iter()).collect();
        let batches = steps
            .chunks(STEPS_PER_BATCH)
            .map(|steps| compiled.steps(steps, Some(recorded_us)))
            .collect::<Result<Vec<RecordBatch>, _>>()
            .map_err(SeamError::not_done)?;
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
        view.sequence.fetch_add(1, Ordering::Relaxed);
        view.state.committed(pending.chunks.len(), tag.frontier_us);
        Ok(())
    }
}
