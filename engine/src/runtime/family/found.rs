//! A family is founded: a view is made beside others that it is kin to.

use super::{FamilyRuntime, host};
use crate::{
    compiled::{CompiledView, internal},
    progress::{Phase, Progress},
    runtime::{
        Engine, Reading, ViewRuntime,
        extent::shortened_us,
        reading::{lock_all, sources_of},
        refresh::Unput,
        source::Inner,
    },
    seam::{SeamError, SeamResult},
    view::{Host, ViewState},
};
use std::sync::{Arc, atomic::Ordering};
use tidemark_catalog::{Object, ObjectId};
use tidemark_planner::feature::{FeaturePlan, family::Family};
use tokio::sync::MutexGuard;

/// A family that nobody reads yet.
struct Founding {
    keeps: Arc<ViewRuntime>,
    /// The view that is being made.
    newcomer: Arc<ViewRuntime>,
    /// What has kept the keys of the others until now.
    kin: Vec<Arc<ViewRuntime>>,
    /// The others, and where each will find its columns.
    others: Vec<(Arc<ViewRuntime>, Arc<Host>)>,
}

impl Engine {
    /// Makes a view together with those that it is kin to; `false`: there are none, or it cannot be kept with them.
    pub(in crate::runtime) async fn create_in_family(
        &self,
        object: &Object,
        compiled: &Arc<CompiledView>,
        progress: &Progress,
    ) -> SeamResult<bool> {
        if self.kept_with(&compiled.plan).is_empty() {
            return Ok(false);
        }
        // No checkpoint of its kin is under way, and none begins.
        let _quiet = self.checkpointing.lock().await;
        let sources = self.readings(&object.name, &compiled.plan)?;
        let read = sources_of(&sources);
        let mut locked = lock_all(&read).await;
        if shortened_us(&read).is_some() {
            return Ok(false);
        }
        let Some(founding) = self.founding(object, compiled, sources)? else { return Ok(false) };
        let (id, family_id) = (object.id, founding.keeps.state.id);
        // A CREATE that a crash has cut leaves keys of a view that never was, and its number comes again.
        self.forget_keys(id).await?;
        self.forget_keys(family_id).await?;
        let table = founding.newcomer.history.read().clone();
        self.seams.history.create(&table).await?;
        progress.count(Phase::Replaying, None, self.seams.clock.now_us());
        let agrees = self.found(&founding, progress).await;
        // What is on its way to the online store arrives first. Nobody who holds one of these waits for a source, nor for us.
        // Whoever comes to flush them, or the family, waits until it is all of them.
        let mut flushing = Vec::with_capacity(founding.kin.len() + 1);
        for one in founding.kin.iter().chain([&founding.keeps]) {
            flushing.push(one.flushing.clone().lock_owned().await);
        }
        let founded = match agrees {
            Ok(true) => self.settle_in(founding, &mut locked).map(|()| true),
            other => other,
        };
        match founded {
            Ok(true) => return Ok(true),
            // The table stays: the view is made all the same.
            Ok(false) => tracing::warn!(view = object.name, "it does not agree with its kin, and stands for itself"),
            Err(_) => self.forget_view(id, &table.name).await?,
        }
        self.forget_keys(family_id).await?;
        founded
    }

    /// The family and its newcomer, without any keys.
    fn founding(
        &self,
        object: &Object,
        compiled: &Arc<CompiledView>,
        sources: Vec<Reading>,
    ) -> SeamResult<Option<Founding>> {
        // Looked up again under the locks: one may have failed meanwhile.
        let kin = self.kin(&compiled.plan);
        let views: Vec<Arc<ViewRuntime>> = kin
            .iter()
            .flat_map(|one| one.family.as_ref().map_or_else(|| vec![one.clone()], FamilyRuntime::members))
            .collect();
        if views.is_empty() {
            return Ok(None);
        }
        let mut plans: Vec<&FeaturePlan> = views.iter().map(|view| &view.state.compiled.plan).collect();
        plans.push(&compiled.plan);
        let Some(family) = Family::of(&plans, None) else { return Ok(None) };
        let wrong = |error| SeamError::not_done(internal(&object.name, error));
        let keeps = Arc::new(CompiledView::of_family(object, family.plan.clone()).map_err(wrong)?);
        let id = self.next_id()?;
        let state = Arc::new(ViewState::new(id, keeps, i64::MIN, self.seams.threads, Some(self.cold(id)), vec![]));
        let mut others = vec![];
        for view in &views {
            let Some(host) = host(&family, &state, &view.state.compiled.plan) else { return Ok(None) };
            others.push((view.clone(), host));
        }
        let Some(of_newcomer) = host(&family, &state, &compiled.plan) else { return Ok(None) };
        let own = ViewState::new(object.id, compiled.clone(), i64::MIN, 1, None, vec![]);
        own.move_to(of_newcomer);
        let readings = self.readings(&object.name, &compiled.plan)?;
        let newcomer = Arc::new(ViewRuntime::new(object, Arc::new(own), readings, 1, None));
        let mut replaces: Vec<ObjectId> = vec![];
        for one in &kin {
            replaces.extend(Some(one.state.id).filter(|_| one.is_stored()));
            replaces.extend(one.family.iter().flat_map(|family| family.replaces.lock().clone()));
        }
        let runtime = FamilyRuntime::new(family.shape, true, replaces);
        runtime.members.write().push(newcomer.clone());
        let keeps = Arc::new(ViewRuntime::new(object, state, sources, 1, Some(runtime)));
        Ok(Some(Founding { keeps, newcomer, kin, others }))
    }

    /// Applies the log to it. `false`: what has come out is not what its kin have.
    async fn found(&self, founding: &Founding, progress: &Progress) -> SeamResult<bool> {
        let Founding { keeps, kin, .. } = founding;
        let letters = keeps.replay(None, progress, &self.seams).await?;
        for reading in &keeps.sources {
            // A control record may have come before there was a view.
            let frontier_us = reading.source.frontier_us();
            keeps.advance(reading.source.id, frontier_us, usize::MAX).map_err(SeamError::not_done)?;
        }
        keeps.hand_over();
        let stands = |one: &ViewRuntime| (one.state.frontier_us(), one.state.count(|counters| &counters.keys));
        if kin.iter().any(|one| stands(one) != stands(keeps)) {
            return Ok(false);
        }
        self.keep_letters(letters).await?;
        Ok(true)
    }

    /// From here on the family is what its views read. Synchronous, so that nothing comes between.
    fn settle_in(&self, founding: Founding, locked: &mut [MutexGuard<'_, Inner>]) -> SeamResult<()> {
        let Founding { keeps, newcomer, kin, others } = founding;
        let now_us = keeps.now_us(self.seams.clock.now_us());
        // Which keys change when is known to it from now on. What the online store has of the others is as it was; the newcomer is
        // filled from all keys.
        keeps.state.take_stale_as(now_us, |_, _| ()).map_err(SeamError::not_done)?;
        keeps.state.arrived();
        let mut unput = vec![];
        for one in &kin {
            let stale = one.state.take_stale_as(now_us, |_, _| ()).map_err(SeamError::not_done)?;
            let keys: Vec<_> = stale.into_iter().map(|(key, _)| key).collect();
            keeps.state.mark_stale(keys.iter().cloned());
            unput.push(Unput::in_flight(&one.state));
        }
        if kin.iter().any(|one| one.state.may_be_behind()) {
            // A key that had left the memory of its kin may be in this one's, and then the state store does not name it.
            keeps.state.fill_online();
        }
        unput.into_iter().for_each(Unput::arrived);
        // Before the first of them moves: at any time each is in what is kept.
        self.families.write().insert(keeps.state.id, keeps.clone());
        let mut members: Vec<Arc<ViewRuntime>> = vec![];
        for (view, host) in others {
            view.state.move_to(host);
            members.push(view);
        }
        members.push(newcomer.clone());
        for one in &kin {
            if let Some(left) = &one.family {
                left.members.write().clear();
            }
            self.families.write().remove(&one.state.id);
        }
        if let Some(family) = &keeps.family {
            family.is_founding.store(false, Ordering::Release);
            *family.members.write() = members;
        }
        for inner in locked {
            inner.views.retain(|view| kin.iter().all(|one| one.state.id != view.state.id));
            inner.views.push(keeps.clone());
        }
        self.views.write().insert(newcomer.state.id, newcomer);
        Ok(())
    }
}
