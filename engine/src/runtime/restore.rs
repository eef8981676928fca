//! Coming back: state from the last checkpoint, then the log from where that stood.

use super::{Engine, EngineMeters, Reading, Seams, SourceRuntime, ViewRuntime, reading::tables, restoring::Restoring};
use crate::{
    compiled::CompiledView,
    seam::{Keyspace, Positions, SeamError, SeamResult, WriteBatch},
    view::{Frozen, ViewState},
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
};
use tidemark_catalog::{Object, ObjectId, Relation, Snapshot};

/// Where a source stood at the last checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceProgress {
    pub positions: Positions,
    pub frontier_us: i64,
    pub max_event_us: i64,
    pub rows: u64,
    pub rejected: u64,
}

/// The way the state of keys is written. A view whose state is of another is built anew from its log.
pub const STATE_FORMAT: u32 = 4;

/// Where a view stood at the last checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ViewProgress {
    /// [`STATE_FORMAT`]; first, so that it can be read whatever follows.
    pub format: u32,
    pub positions: Positions,
    /// Where the events begin that a joined table may still change.
    pub open: Positions,
    pub frontier_us: i64,
    pub events: u64,
    pub keys: u64,
    /// The generation of changes that this checkpoint made count; see `engine/src/view/cold.rs`.
    pub generation: u64,
    /// Keys whose values had not reached the online store; with `behind` those of any key may not have.
    pub stale: Vec<Vec<u8>>,
    pub behind: bool,
}

/// The key of the writer epoch in [`Keyspace::Progress`]; object ids are four bytes.
const EPOCH: &[u8] = b"epoch";

/// Epochs are at least the tenths of a second since 2026: so two servers on copies of one directory, which both add to the same
/// number, have different ones, and stores outside the directory fence the one that began first. No server starts again
/// within a tenth of a second.
const EPOCHS_FROM_US: i64 = 1_767_225_600_000_000;
const EPOCH_US: i64 = 100_000;

/// Beyond this, in 2038, they only count: Redis has four bytes for them.
const EPOCHS_BY_TIME: u64 = 4_000_000_000;

/// The writer epoch of a server that begins now; `before`: the one before it in this directory.
fn next_epoch(before: u64, now_us: i64) -> u64 {
    let by_time = u64::try_from(now_us.saturating_sub(EPOCHS_FROM_US) / EPOCH_US).unwrap_or(0);
    before.saturating_add(1).max(by_time.min(EPOCHS_BY_TIME))
}

/// Entries read from the state store at a time.
const PAGE: usize = 4096;

impl Engine {
    /// Starts everything the catalog has. When it returns, recovery is complete: positions have reached the log ends.
    pub async fn start(seams: Seams, snapshot: &Snapshot) -> SeamResult<Engine> {
        let engine = Engine::start_without_views(seams, snapshot).await?;
        engine.restore_waiting(snapshot).await;
        engine.finish_restoring(snapshot).await?;
        Ok(engine)
    }

    /// Starts the sources and tables. The views of the catalog are not there yet: [`Engine::restore_waiting`] brings them, in any
    /// order by [`Engine::restore_first`], and then comes [`Engine::finish_restoring`]. Before that nothing is created, dropped or
    /// altered; rows may come in, and what comes back later has them.
    pub async fn start_without_views(seams: Seams, snapshot: &Snapshot) -> SeamResult<Engine> {
        let before = match read(&seams, EPOCH)? {
            Some(bytes) => postcard::from_bytes::<u64>(&bytes).map_err(SeamError::not_done)?,
            None => 0,
        };
        let epoch = next_epoch(before, seams.clock.now_us());
        let bytes = postcard::to_stdvec(&epoch).map_err(SeamError::not_done)?;
        let batch = WriteBatch { puts: vec![(Keyspace::Progress, EPOCH.to_vec(), bytes)], deletes: vec![] };
        seams.state.checkpoint(batch).await?;
        let engine = Engine {
            seams,
            sources: RwLock::new(BTreeMap::new()),
            views: RwLock::new(BTreeMap::new()),
            families: RwLock::new(BTreeMap::new()),
            last_family: AtomicU32::new(0),
            not_started: RwLock::new(BTreeMap::new()),
            restoring: Restoring::default(),
            epoch,
            puts: AtomicU64::new(0),
            dropped_online: parking_lot::Mutex::default(),
            meters: EngineMeters::default(),
            checkpointing: tokio::sync::Mutex::new(()),
            crowding: tokio::sync::Notify::new(),
        };
        for object in snapshot.logs() {
            let progress: Option<SourceProgress> = engine.progress(object.id)?;
            let source = SourceRuntime::open(&object, &engine.seams, progress.as_ref()).await?;
            engine.sources.write().insert(object.id, Arc::new(source));
        }
        let objects = snapshot.objects().map(|object| &**object);
        let views: Vec<&Object> = objects.filter(|object| object.feature_view().is_some()).collect();
        let (groups, claimed) = engine.groups(&views)?;
        engine.restoring.begin(groups, claimed);
        Ok(engine)
    }

    /// Starts a view from its last checkpoint, or, if asked to or if there is none, from the log. Its keys stay in the state store
    /// until somebody needs them: what takes time is the log since then.
    pub(super) async fn restore_view(&self, object: &Object, compiled: CompiledView, from_log: bool) -> SeamResult<()> {
        let sources = self.readings(&object.name, &compiled.plan)?;
        let table = Self::history_table(object, &compiled);
        let tag = self.seams.history.take_up(&table).await?;
        let progress = match from_log {
            true => self.begin_anew(object, &sources, "cannot be read").await?,
            false => self.view_progress(object, &sources).await?,
        };
        let committed_us = tag.as_ref().map_or(i64::MIN, |t| t.frontier_us);
        let cold = Some(self.cold(object.id));
        let tables = tables(&compiled.plan, &sources);
        let state = ViewState::new(object.id, Arc::new(compiled), committed_us, self.seams.threads, cold, tables);
        let mut from = None;
        match progress {
            Some(ViewProgress { positions, open, frontier_us, events, keys, generation, stale, behind, .. }) => {
                state.recover(Frozen { generation, frontier_us, keys, events, stale, behind }).await?;
                from = Some((positions, open));
            }
            // What has left memory before the first checkpoint counts for nothing.
            None => self.forget_keys(object.id).await?,
        }
        let sequence = tag.map_or(1, |t| t.sequence + 1);
        let view = Arc::new(ViewRuntime::new(object, Arc::new(state), sources, sequence, None));
        if let Some((positions, open)) = &from {
            view.recover_joins(positions, open).await?;
        }
        self.join_sources(&view, from.as_ref().map(|(positions, _)| positions)).await?;
        self.views.write().insert(object.id, view);
        Ok(())
    }

    /// Where the view stood, unless its state is in a format of another version: then it begins anew, if their logs still have
    /// all that it has seen.
    async fn view_progress(&self, object: &Object, sources: &[Reading]) -> SeamResult<Option<ViewProgress>> {
        let Some(bytes) = read(&self.seams, &object.id.0.to_be_bytes())? else { return Ok(None) };
        let (format, _) = postcard::take_from_bytes::<u32>(&bytes).map_err(SeamError::not_done)?;
        if format == STATE_FORMAT {
            return postcard::from_bytes(&bytes).map(Some).map_err(SeamError::not_done);
        }
        self.begin_anew(object, sources, "was written by another version of Tidemark").await
    }

    /// The view has no checkpoint that would do: it begins anew, if the logs still have all that it has seen.
    async fn begin_anew(&self, object: &Object, sources: &[Reading], why: &str) -> SeamResult<Option<ViewProgress>> {
        let name = &object.name;
        if sources.iter().any(|reading| reading.source.extent().removed_us.is_some()) {
            return Err(SeamError::NotDone(format!(
                "the state of feature view \"{name}\" {why}, and a log that it reads has been shortened since: start the version that \
                 wrote it, restore a backup, or drop the view and create it again"
            )));
        }
        tracing::warn!(view = name, why, "its state is built anew from the log");
        // First: without it nobody looks for keys.
        self.seams.state.remove(Keyspace::Progress, &object.id.0.to_be_bytes()).await?;
        self.forget_keys(object.id).await?;
        Ok(None)
    }

    pub(super) fn progress<T: for<'a> Deserialize<'a>>(&self, id: ObjectId) -> SeamResult<Option<T>> {
        let bytes = read(&self.seams, &id.0.to_be_bytes())?;
        bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(SeamError::not_done)).transpose()
    }

    /// Removes what a crash between the catalog's commit and the clean-up of a drop has left.
    /// `claimed`: the families that have a view.
    pub(super) async fn forget_orphans(&self, snapshot: &Snapshot, claimed: &BTreeSet<ObjectId>) -> SeamResult<()> {
        let has_table = |object: &Object| {
            object.feature_view().is_some()
                || object.training_set().is_some_and(|set| set.has_table)
                || object.relation().is_some_and(Relation::is_archived)
        };
        let owners = snapshot.objects().filter(|object| has_table(object)).map(|object| object.id);
        self.seams.history.retain(&owners.collect()).await?;
        let logs: BTreeSet<ObjectId> = snapshot.logs().map(|object| object.id).collect();
        // A crash between the end of a transaction and its drops may leave one before any checkpoint has met it.
        for log in self.seams.logs.all()? {
            if !logs.contains(&log) && self.source(log).is_none() {
                self.seams.logs.remove(log)?;
            }
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.seams.state.page(Keyspace::Progress, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, _) in page {
                let Ok(id) = <[u8; 4]>::try_from(key.as_slice()) else { continue };
                let object = ObjectId(u32::from_be_bytes(id));
                if snapshot.get_id(object).is_none() && !claimed.contains(&object) && !logs.contains(&object) {
                    for keyspace in Keyspace::ALL.into_iter().filter(|keyspace| *keyspace != Keyspace::Progress) {
                        self.seams.state.remove(keyspace, &id).await?;
                    }
                    self.seams.logs.remove(object)?;
                    self.forget_online(object).await?;
                }
            }
        }
    }
}

pub(super) fn read(seams: &Seams, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
    seams.state.get(Keyspace::Progress, key)
}

#[cfg(test)]
mod tests {
    use super::{EPOCH_US, EPOCHS_BY_TIME, EPOCHS_FROM_US, next_epoch};

    #[test]
    fn an_epoch_is_later_than_the_one_before_and_than_that_of_a_copy_begun_earlier() {
        let at = |tenths: i64| EPOCHS_FROM_US + tenths * EPOCH_US;
        // Two copies of a directory in which a server had begun at 90.
        assert!(next_epoch(90, at(100)) < next_epoch(90, at(101)));
        // A clock that was put back, and one from before all epochs.
        assert_eq!(next_epoch(90, at(50)), 91);
        assert_eq!(next_epoch(0, i64::MIN), 1);
        // When all numbers that time gives are used up.
        assert_eq!(next_epoch(EPOCHS_BY_TIME, i64::MAX), EPOCHS_BY_TIME + 1);
    }
}
