//! Coming back: state from the last checkpoint, then the log from where that stood.

use super::{Engine, Seams, SourceRuntime, ViewRuntime};
use crate::{
    compiled::{CompiledView, internal},
    seam::{Keyspace, Positions, SeamError, SeamResult, WriteBatch},
    view::ViewState,
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};
use tidemark_catalog::{ObjectId, Snapshot};
use tidemark_planner::feature::plan_definition;

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
pub const STATE_FORMAT: u32 = 2;

/// Where a view stood at the last checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ViewProgress {
    /// [`STATE_FORMAT`]; first, so that it can be read whatever follows.
    pub format: u32,
    pub positions: Positions,
    pub frontier_us: i64,
    pub events: u64,
}

/// The key of the writer epoch in [`Keyspace::Progress`]; object ids are four bytes.
const EPOCH: &[u8] = b"epoch";

/// Keys read from the state store at a time.
const PAGE: usize = 4096;

impl Engine {
    /// Starts everything the catalog has. When it returns, recovery is complete: positions have reached the log ends.
    pub async fn start(seams: Seams, snapshot: &Snapshot) -> SeamResult<Engine> {
        let epoch = match read(&seams, EPOCH).await? {
            Some(bytes) => postcard::from_bytes::<u64>(&bytes).map_err(SeamError::not_done)? + 1,
            None => 1,
        };
        let bytes = postcard::to_stdvec(&epoch).map_err(SeamError::not_done)?;
        let batch = WriteBatch { puts: vec![(Keyspace::Progress, EPOCH.to_vec(), bytes)], deletes: vec![] };
        seams.state.checkpoint(batch).await?;
        let engine = Engine {
            seams,
            sources: RwLock::new(HashMap::new()),
            views: RwLock::new(HashMap::new()),
            epoch,
            puts: AtomicU64::new(0),
            checkpointing: tokio::sync::Mutex::new(()),
        };
        for object in snapshot.objects() {
            if object.relation().is_some() {
                let progress: Option<SourceProgress> = engine.progress(object.id).await?;
                let source = SourceRuntime::open(object, &engine.seams, progress.as_ref()).await?;
                engine.sources.write().insert(object.id, Arc::new(source));
            }
        }
        for object in snapshot.objects() {
            if object.feature_view().is_some() {
                let plan =
                    plan_definition(object, snapshot).map_err(|e| SeamError::not_done(internal(&object.name, e)))?;
                let compiled =
                    CompiledView::new(object, plan).map_err(|e| SeamError::not_done(internal(&object.name, e)))?;
                engine.restore_view(object, compiled).await?;
            }
        }
        engine.forget_orphans(snapshot).await?;
        Ok(engine)
    }

    async fn restore_view(&self, object: &tidemark_catalog::Object, compiled: CompiledView) -> SeamResult<()> {
        let source = self
            .source(compiled.plan.relation)
            .ok_or_else(|| SeamError::NotDone(format!("feature view \"{}\" has no source", object.name)))?;
        let table = Self::history_table(object, &compiled);
        self.seams.history.create(&table).await?;
        let tag = self.seams.history.last_tag(&table.name).await?;
        let progress = self.view_progress(object, &source).await?;
        let committed_us = tag.as_ref().map_or(i64::MIN, |t| t.frontier_us);
        let state = ViewState::new(object.id, Arc::new(compiled), committed_us, self.seams.threads);
        let mut from = source.log.range().await?.0;
        if let Some(progress) = progress {
            self.restore_keys(&state).await?;
            state.restore_frontier(progress.frontier_us);
            state.counters.events.store(progress.events, std::sync::atomic::Ordering::Relaxed);
            from = progress.positions;
        }
        let view = Arc::new(ViewRuntime {
            state,
            source: source.clone(),
            history: RwLock::new(table),
            history_start_us: object.feature_view().and_then(|v| v.history_start_us),
            version: object.feature_view().map_or(1, |v| v.version),
            sequence: AtomicU64::new(tag.map_or(1, |t| t.sequence + 1)),
            last_error: RwLock::default(),
        });
        let mut inner = source.lock().await;
        let letters = source.replay_into(&view, from).await?;
        self.keep_letters(letters).await?;
        // A control record may stand behind the last checkpoint of a source without views.
        view.state.finish(inner.clocks().0, usize::MAX).map_err(SeamError::not_done)?;
        inner.views.push(view.clone());
        drop(inner);
        self.views.write().insert(object.id, view);
        Ok(())
    }

    /// Where the view stood, unless its state is in a format of another version: then it begins anew, if its log still has
    /// all that it has seen.
    async fn view_progress(
        &self,
        object: &tidemark_catalog::Object,
        source: &SourceRuntime,
    ) -> SeamResult<Option<ViewProgress>> {
        let Some(bytes) = read(&self.seams, &object.id.0.to_be_bytes()).await? else { return Ok(None) };
        let (format, _) = postcard::take_from_bytes::<u32>(&bytes).map_err(SeamError::not_done)?;
        if format == STATE_FORMAT {
            return postcard::from_bytes(&bytes).map(Some).map_err(SeamError::not_done);
        }
        let name = &object.name;
        if source.extent().removed_us.is_some() {
            return Err(SeamError::NotDone(format!(
                "the state of feature view \"{name}\" was written by another version of Tidemark, and its source's log has been \
                 shortened since: start the version that wrote it, or drop the view there"
            )));
        }
        tracing::warn!(view = name, format, "its state was written by another version: it is built anew from the log");
        self.seams.state.remove(Keyspace::Keys, &object.id.0.to_be_bytes()).await?;
        Ok(None)
    }

    async fn restore_keys(&self, state: &ViewState) -> SeamResult<()> {
        let prefix = state.id.0.to_be_bytes();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.seams.state.restore(Keyspace::Keys, &prefix, after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, bytes) in page {
                state.restore(key[prefix.len()..].to_vec(), &bytes)?;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn progress<T: for<'a> Deserialize<'a>>(&self, id: ObjectId) -> SeamResult<Option<T>> {
        let bytes = read(&self.seams, &id.0.to_be_bytes()).await?;
        bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(SeamError::not_done)).transpose()
    }

    /// Removes what a crash between the catalog's commit and the clean-up of a drop has left.
    async fn forget_orphans(&self, snapshot: &Snapshot) -> SeamResult<()> {
        let views = snapshot.objects().filter(|object| object.feature_view().is_some()).map(|object| object.id);
        self.seams.history.retain(&views.collect()).await?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.seams.state.restore(Keyspace::Progress, &[], after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, _) in page {
                if let Ok(id) = <[u8; 4]>::try_from(key.as_slice())
                    && snapshot.get_id(ObjectId(u32::from_be_bytes(id))).is_none()
                {
                    for keyspace in [Keyspace::Keys, Keyspace::Progress, Keyspace::DeadLetters] {
                        self.seams.state.remove(keyspace, &id).await?;
                    }
                    let id = ObjectId(u32::from_be_bytes(id));
                    self.seams.online.drop_view(id).await?;
                    self.seams.logs.remove(id)?;
                }
            }
        }
    }
}

pub(super) async fn read(seams: &Seams, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
    let found = seams.state.restore(Keyspace::Progress, key, None, 1).await?;
    Ok(found.into_iter().find(|(k, _)| k == key).map(|(_, v)| v))
}
