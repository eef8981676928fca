//! From when on a source's events are known, and so from when on its views have values.
//!
//! ```text
//!            removed by retention          in the log
//!   log    e0 e1 e2 e3 ───────────────▶| e4 e5 e6 …
//!   a view made before that has seen all of them: its history starts with the source's (e0)
//!   a view made now begins to know all events just after the greatest time among those removed
//! ```
//!
//! A log that has been shortened cannot tell what it held. So the earliest event time ever admitted, and the greatest one
//! removed, are kept beside the positions; what is removed is noted durably before it goes.

use super::{Engine, Seams, SourceRuntime, ViewRuntime, event_clock};
use crate::seam::{Keyspace, Positions, SeamError, SeamResult, WriteBatch};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidemark_catalog::ObjectId;

/// Event times, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The earliest ever admitted.
    pub first_us: Option<i64>,
    /// The greatest among the admitted records that retention has removed from the log.
    pub removed_us: Option<i64>,
}

/// In [`Keyspace::Progress`]; it begins with the object's id, so it goes with the object.
fn key(id: ObjectId) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], b"/extent"].concat()
}

impl Extent {
    pub(super) fn read(seams: &Seams, id: ObjectId) -> SeamResult<Option<Extent>> {
        let bytes = super::restore::read(seams, &key(id))?;
        bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(SeamError::not_done)).transpose()
    }

    /// As one of the puts of a checkpoint.
    pub(super) fn put(&self, id: ObjectId) -> SeamResult<(Keyspace, Vec<u8>, Vec<u8>)> {
        Ok((Keyspace::Progress, key(id), postcard::to_stdvec(self).map_err(SeamError::not_done)?))
    }
}

impl SourceRuntime {
    /// The instant from which all its admitted events are known, be they in the log or not; `None` before the first event.
    /// Under the server's clock nothing can have been missed since it was created; before that, and under the event clock,
    /// it begins with its earliest event.
    pub fn beginning_us(&self) -> Option<i64> {
        let first_us = self.extent().first_us?;
        match event_clock(self.relation.read().clock) {
            true => Some(first_us),
            false => Some(first_us.min(self.created_us)),
        }
    }

    /// The instant from which its log has all admitted events: where the history of a view starts that is made now.
    pub fn history_start_us(&self) -> Option<i64> {
        match self.extent().removed_us {
            Some(removed_us) => Some(removed_us.saturating_add(1)),
            None => self.beginning_us(),
        }
    }
}

/// The instant from which the logs have all events, if one of them has been shortened.
pub(super) fn shortened_us(sources: &[Arc<SourceRuntime>]) -> Option<i64> {
    let shortened = sources.iter().filter(|source| source.extent().removed_us.is_some());
    shortened.filter_map(|source| source.history_start_us()).max()
}

impl ViewRuntime {
    /// The first instant at which the view has values; `None` while its sources have had no event.
    pub fn history_start_us(&self) -> Option<i64> {
        let beginnings = || self.sources.iter().filter_map(|reading| reading.source.beginning_us()).min();
        self.history_start_us.or_else(beginnings)
    }

    /// The instant from which every bounded `RANGE` frame lies wholly behind `history_start`. Frames of rows and unbounded
    /// ones have no length in time: they are over what there was since then.
    pub fn complete_from_us(&self) -> Option<i64> {
        let longest_us = self.state.compiled.plan.longest_range_us().unwrap_or(0);
        Some(self.history_start_us()?.saturating_add(longest_us))
    }
}

impl Engine {
    /// Removes from a source's log what is past its retention. `checkpointed`: the views whose state stands at
    /// `positions`.
    pub(super) async fn shorten(
        &self,
        source: &SourceRuntime,
        positions: &Positions,
        checkpointed: &[ObjectId],
    ) -> SeamResult<()> {
        let retention_us = source.relation.read().retention_us;
        let Some(retention_us) = retention_us else { return Ok(()) };
        // Held, so that no view begins to read what is about to go.
        let inner = source.lock().await;
        // One that was made since the positions were noted has no checkpoint: after a crash it would read from the start. One
        // that has failed goes on from where it stands.
        if inner.views.iter().any(|view| !checkpointed.contains(&view.state.id)) || self.has_failed_on(source.id) {
            return Ok(());
        }
        let keep_from_us = Some(self.seams.clock.now_us().saturating_sub(retention_us));
        let kept = source.log().kept_from(positions, keep_from_us).await?;
        if kept == source.log().range().await?.0 {
            return Ok(());
        }
        let mut extent = source.extent();
        for (partition, first) in &kept.0 {
            // The decision on the last record that goes has the greatest event time up to it.
            let mut last = kept.clone();
            last.set(*partition, first.saturating_sub(1));
            let batches = source.log().poll(&last, 1).await?;
            let decision = batches.into_iter().find(|batch| batch.partition == *partition).and_then(|b| b.admission);
            if let Some(removed_us) = decision.map(|d| d.max_event_us).filter(|us| *us > i64::MIN) {
                extent.removed_us = extent.removed_us.max(Some(removed_us));
            }
        }
        let batch = WriteBatch { puts: vec![extent.put(source.id)?], deletes: vec![] };
        self.seams.state.checkpoint(batch).await?;
        source.set_extent(extent);
        source.log().commit(positions, keep_from_us).await
    }
}
