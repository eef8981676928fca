//! Feature views that cannot go on: their state cannot be read, a store refuses them. They stand still, with their error and how
//! far they are, and their neighbours and their source do not. `ALTER FEATURE VIEW … RESUME` starts them again from their last
//! checkpoint, or, where that cannot be read, from the log.

use super::{Engine, ViewRuntime};
use crate::{
    compiled::{CompiledView, internal},
    seam::{Positions, SeamError, SeamResult},
};
use tidemark_catalog::{Object, ObjectId, Snapshot};
use tidemark_planner::feature::plan_definition;

#[derive(Debug, Clone)]
pub struct Failure {
    /// Of the view.
    pub name: String,
    pub error: String,
    /// Everything before is in the view; `None`: it could not be started.
    pub positions: Option<Positions>,
    pub at_us: i64,
}

impl ViewRuntime {
    /// It cannot go on. `positions`: everything before is in it.
    pub(super) fn fail(&self, error: &impl std::fmt::Display, positions: Positions, at_us: i64) {
        let name = self.history.read().name.clone();
        match &self.family {
            Some(family) => family.members().iter().for_each(|view| view.fail(error, positions.clone(), at_us)),
            None => tracing::error!(view = name, %error, "the feature view has failed; its neighbours go on"),
        }
        self.failure.write().get_or_insert(Failure {
            name,
            error: error.to_string(),
            positions: Some(positions),
            at_us,
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.read().is_some()
    }
}

impl Engine {
    /// Why a view does not run, if it does not.
    pub fn failure(&self, id: ObjectId) -> Option<Failure> {
        let running = self.views.read().get(&id).and_then(|view| view.failure.read().clone());
        running.or_else(|| self.not_started.read().get(&id).cloned())
    }

    /// Whether some view needs more of its source's log than any that runs.
    pub(super) fn has_failed_on(&self, source: ObjectId) -> bool {
        let on_it = |view: &ViewRuntime| view.reads(source) && view.has_failed();
        // Of one that could not be started, or not yet, nobody knows what it reads.
        !self.is_restored() || !self.not_started.read().is_empty() || self.views.read().values().any(|view| on_it(view))
    }

    /// What the view reads, and how: its definition planned again.
    pub(super) fn compile(object: &Object, snapshot: &Snapshot) -> SeamResult<CompiledView> {
        let wrong = |error| SeamError::not_done(internal(&object.name, error));
        let plan = plan_definition(object, snapshot).map_err(wrong)?;
        CompiledView::new(object, plan).map_err(wrong)
    }

    pub(super) async fn start_view(&self, object: &Object, snapshot: &Snapshot, from_log: bool) -> SeamResult<()> {
        self.restore_view(object, Self::compile(object, snapshot)?, from_log).await
    }

    /// One view that cannot be started does not keep the others from it.
    pub(super) async fn start_or_fail(&self, object: &Object, snapshot: &Snapshot) {
        if let Err(error) = self.start_view(object, snapshot, false).await {
            self.cannot_start(object, &error);
        }
    }

    pub(super) fn cannot_start(&self, object: &Object, error: &SeamError) {
        let (name, at_us) = (object.name.clone(), self.seams.clock.now_us());
        tracing::error!(view = name, %error, "the feature view cannot be started; its neighbours go on");
        let failure = Failure { name, error: error.to_string(), positions: None, at_us };
        self.not_started.write().insert(object.id, failure);
    }

    /// Starts a view again that has failed; `false`: it runs. What it has in memory is given up for its last checkpoint; where
    /// that does not do, its keys are built anew from the log.
    ///
    /// # Errors
    /// It fails again: the view is as it was, with the new error. Views that are kept together are started again together.
    pub async fn resume_view(&self, object: &Object, snapshot: &Snapshot) -> SeamResult<bool> {
        let Some(before) = self.failure(object.id) else { return Ok(false) };
        let _quiet = self.checkpointing.lock().await;
        if let Some(started) = self.resume_family(object, snapshot).await? {
            return started.map(|()| true);
        }
        let view = self.views.write().remove(&object.id);
        if let Some(view) = view {
            self.detach(&view).await;
            // What is on its way to the online store arrives first: nothing of before is put after what is new.
            drop(view.flushing.lock().await);
        }
        self.not_started.write().remove(&object.id);
        let mut started = self.start_view(object, snapshot, false).await;
        if started.is_err() || self.failure(object.id).is_some() {
            tracing::warn!(view = object.name, "its last checkpoint does not do: it is built anew from the log");
            let view = self.views.write().remove(&object.id);
            if let Some(view) = view {
                self.detach(&view).await;
                drop(view.flushing.lock().await);
            }
            started = self.start_view(object, snapshot, true).await;
        }
        if let Err(error) = &started {
            let failure = Failure { error: error.to_string(), positions: None, ..before };
            self.not_started.write().insert(object.id, failure);
        }
        started.map(|()| true)
    }
}
