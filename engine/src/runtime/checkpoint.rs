//! Making it durable: steps to history, then state, in that order. History may run ahead by itself: what is in it already
//! is recognised when the log is replayed from older state.

use super::{
    Engine, SourceRuntime, ViewRuntime,
    extent::Extent,
    restore::{STATE_FORMAT, SourceProgress, ViewProgress},
    source::Inner,
};
use crate::{
    seam::{CommitTag, Keyspace, SeamError, SeamResult, WriteBatch},
    view::{DirtyKey, Pending, Step},
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
    views: Vec<ViewStand>,
}

struct ViewStand {
    view: Arc<ViewRuntime>,
    pending: Pending,
    /// Events it has taken since it was made.
    events: u64,
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
        let views = inner.views.iter().map(|view| ViewStand {
            view: view.clone(),
            pending: view.state.pending(),
            events: count(&view.state.counters.events),
        });
        Stand { progress, extent: source.extent(), views: views.collect() }
    }
}

impl ViewStand {
    fn progress(&self, source: &SourceProgress) -> ViewProgress {
        ViewProgress {
            format: STATE_FORMAT,
            positions: source.positions.clone(),
            frontier_us: source.frontier_us,
            events: self.events,
        }
    }
}

/// A view's dirty keys on their way to the state store. Dropped before they are there, they are dirty again.
struct Taken {
    view: Arc<ViewRuntime>,
    keys: Vec<DirtyKey>,
}

impl Taken {
    fn of(view: &Arc<ViewRuntime>) -> SeamResult<Taken> {
        Ok(Taken { view: view.clone(), keys: view.state.take_dirty()? })
    }

    /// Moves what there is to save into the batch; which keys they are stays here.
    fn write(&mut self, batch: &mut WriteBatch) {
        let view = self.view.state.id.0.to_be_bytes();
        for (key, bytes) in &mut self.keys {
            let key = [&view[..], &key[..]].concat();
            match bytes.take() {
                Some(bytes) => batch.puts.push((Keyspace::Keys, key, bytes)),
                None => batch.deletes.push((Keyspace::Keys, key)),
            }
        }
    }

    /// They are in the state store.
    fn saved(mut self) {
        self.keys.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        self.view.state.mark_dirty(keys.into_iter().map(|(key, _)| key));
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

    async fn checkpoint_source(&self, source: &SourceRuntime) -> SeamResult<()> {
        let mut inner = source.lock().await;
        // Positions must not pass a record whose dead letter is only in memory.
        source.keep_waiting(&mut inner, &self.seams).await?;
        let stand = Stand::of(source, &inner);
        let taken = stand.views.iter().map(|at| Taken::of(&at.view)).collect::<SeamResult<Vec<_>>>()?;
        drop(inner);
        // What is saved must never be ahead of the log.
        source.log.sync().await?;
        let mut batch = WriteBatch::default();
        let mut written = vec![];
        let mut all = Ok(());
        for (at, mut keys) in stand.views.iter().zip(taken) {
            let committed = self.commit_steps(at, &stand.progress).await;
            if committed.is_ok() {
                keys.write(&mut batch);
                batch.puts.push(put(at.view.state.id, &at.progress(&stand.progress))?);
                written.push(keys);
            }
            all = all.and(committed);
        }
        if all.is_ok() {
            batch.puts.push(put(source.id, &stand.progress)?);
            batch.puts.push(stand.extent.put(source.id)?);
        }
        let checkpointed: Vec<ObjectId> = written.iter().map(|keys| keys.view.state.id).collect();
        self.seams.state.checkpoint(batch).await?;
        written.into_iter().for_each(Taken::saved);
        all?;
        self.shorten(source, &stand.progress.positions, &checkpointed).await
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
