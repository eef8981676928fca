//! Making it durable: steps to history, then state, in that order. History may run ahead by itself: what is in it already
//! is recognised when the log is replayed from older state.

use super::{
    Engine, SourceRuntime, ViewRuntime,
    restore::{SourceProgress, ViewProgress},
};
use crate::{
    seam::{CommitTag, Keyspace, SeamError, SeamResult, WriteBatch},
    view::{DirtyKey, Pending, Step},
};
use arrow::record_batch::RecordBatch;
use std::sync::{Arc, atomic::Ordering};

/// Steps per batch handed to history.
const STEPS_PER_BATCH: usize = 65_536;

/// What was taken from one view under the source's lock.
struct Taken {
    view: Arc<ViewRuntime>,
    pending: Pending,
    dirty: Vec<DirtyKey>,
}

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    Steps,
    StepsAndState,
}

impl Engine {
    /// All that has arrived is durable when this returns, state is saved and every step below the frontier is in
    /// history: durable, not final. A view whose history cannot be written keeps its steps; the first error is returned
    /// after everything else has been tried.
    pub async fn checkpoint(&self) -> SeamResult<()> {
        self.save(Save::StepsAndState).await
    }

    /// Every step below the frontier is in history when this returns.
    pub async fn commit_history(&self) -> SeamResult<()> {
        self.save(Save::Steps).await
    }

    async fn save(&self, what: Save) -> SeamResult<()> {
        let _one = self.checkpointing.lock().await;
        let mut first_error = Ok(());
        for source in self.sources() {
            let saved = self.save_source(&source, what).await;
            if saved.is_err() || what == Save::StepsAndState {
                *source.last_error.write() = saved.as_ref().err().map(|error| error.to_string());
            }
            if first_error.is_ok() {
                first_error = saved;
            }
        }
        first_error
    }

    async fn save_source(&self, source: &Arc<SourceRuntime>, what: Save) -> SeamResult<()> {
        let mut inner = source.lock().await;
        if what == Save::StepsAndState {
            // Positions must not pass a record whose dead letter is only in memory.
            source.keep_waiting(&mut inner, &self.seams).await?;
        }
        let positions = inner.end.clone();
        let (frontier_us, max_event_us) = inner.clocks();
        let extent = source.extent();
        let mut taken = vec![];
        for view in &inner.views {
            let dirty = if what == Save::StepsAndState { view.state.take_dirty()? } else { vec![] };
            taken.push(Taken { view: view.clone(), pending: view.state.pending(), dirty });
        }
        drop(inner);
        // After the positions were noted: what is saved must never be ahead of the log.
        if let Err(error) = source.log.sync().await {
            for Taken { view, dirty, .. } in taken {
                view.state.mark_dirty(dirty.into_iter().map(|(key, _)| key));
            }
            return Err(error);
        }
        let progress = SourceProgress {
            positions: positions.clone(),
            frontier_us,
            max_event_us,
            rows: source.counters.rows.load(Ordering::Relaxed),
            rejected: source.counters.rejected.load(Ordering::Relaxed),
        };
        let mut batch = WriteBatch::default();
        let mut written = vec![];
        let mut failed = Ok(());
        for Taken { view, pending, dirty } in taken {
            let tag = CommitTag {
                frontier_us,
                positions: positions.clone(),
                view_version: view.version,
                writer_epoch: self.epoch,
                sequence: view.sequence.load(Ordering::Relaxed),
            };
            match self.commit_steps(&view, &pending, &tag).await {
                Ok(()) => {
                    *view.last_error.write() = None;
                    let prefix = view.state.id.0.to_be_bytes();
                    for (key, bytes) in &dirty {
                        let key = [&prefix[..], key].concat();
                        match bytes {
                            Some(bytes) => batch.puts.push((Keyspace::Keys, key, bytes.clone())),
                            None => batch.deletes.push((Keyspace::Keys, key)),
                        }
                    }
                    let view_progress = ViewProgress {
                        positions: positions.clone(),
                        frontier_us,
                        events: view.state.counters.events.load(Ordering::Relaxed),
                    };
                    let bytes = postcard::to_stdvec(&view_progress).map_err(SeamError::not_done)?;
                    batch.puts.push((Keyspace::Progress, prefix.to_vec(), bytes));
                    written.push((view, dirty));
                }
                Err(error) => {
                    view.state.mark_dirty(dirty.into_iter().map(|(key, _)| key));
                    *view.last_error.write() = Some(format!("history: {error}"));
                    failed = Err(error);
                }
            }
        }
        if what == Save::Steps {
            return failed;
        }
        if failed.is_ok() {
            let bytes = postcard::to_stdvec(&progress).map_err(SeamError::not_done)?;
            batch.puts.push((Keyspace::Progress, source.id.0.to_be_bytes().to_vec(), bytes));
            batch.puts.push(extent.put(source.id)?);
        }
        let checkpointed: Vec<_> = written.iter().map(|(view, _)| view.state.id).collect();
        if let Err(error) = self.seams.state.checkpoint(batch).await {
            for (view, dirty) in written {
                view.state.mark_dirty(dirty.into_iter().map(|(key, _)| key));
            }
            return Err(error);
        }
        failed?;
        self.shorten(source, &positions, &checkpointed).await
    }

    async fn commit_steps(&self, view: &ViewRuntime, pending: &Pending, tag: &CommitTag) -> SeamResult<()> {
        if pending.chunks.is_empty() && tag.frontier_us <= pending.committed_us {
            return Ok(());
        }
        let recorded_us = self.seams.clock.now_us();
        let compiled = view.state.compiled.clone();
        let steps: Vec<Step<'_>> = pending.chunks.iter().flat_map(|chunk| chunk.iter()).collect();
        let batches = steps
            .chunks(STEPS_PER_BATCH)
            .map(|steps| compiled.steps(steps, Some(recorded_us)))
            .collect::<Result<Vec<RecordBatch>, _>>()
            .map_err(SeamError::not_done)?;
        let table = view.history.read().clone();
        match self.seams.history.append(&table, batches, tag).await {
            Ok(()) => {}
            Err(SeamError::Unknown(error)) => {
                let last = self.seams.history.last_tag(&table.name).await?;
                if last.as_ref() != Some(tag) {
                    return Err(SeamError::NotDone(error));
                }
            }
            Err(error) => return Err(error),
        }
        view.sequence.fetch_add(1, Ordering::Relaxed);
        view.state.committed(pending.chunks.len(), tag.frontier_us);
        Ok(())
    }
}
