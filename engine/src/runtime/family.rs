//! Families: views over the same rows, key and windows, whose keys are kept once for all of them (decision 0018).
//!
//! ```text
//!   source ──batch──▶ family: a view of its own, with keys and checkpoints, without history or readers
//!                       ├─ a   its own history, its own part of the online store; reads the family's keys
//!                       └─ b   likewise
//! ```
//!
//! A family is founded when a view is made that is kin to one there is: the log is applied to what keeps both, and when it has come
//! as far as they are, they read that. What was kept for the ones before is forgotten with the family's first checkpoint. The
//! log has to be whole for it, so a view over one that was shortened stands for itself, and so does every other view.

mod found;
mod online;

use super::{
    Engine, Failure, ViewRuntime,
    checkpoint::put,
    restore::{STATE_FORMAT, ViewProgress, read},
};
use crate::{
    compiled::{CompiledView, internal},
    seam::{CommitTag, Keyspace, SeamError, SeamResult, WriteBatch},
    view::{Frozen, Host, Projection, ViewState},
};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tidemark_catalog::{Object, ObjectId, Snapshot};
use tidemark_planner::feature::{
    FeaturePlan,
    family::{Family, Shape},
};

/// In the id of every family and of no object: both are counted up, objects from 16384.
const FAMILY: u32 = 1 << 31;

/// Records of families read from the state store at a time.
const PAGE: usize = 1024;

pub(super) struct FamilyRuntime {
    shape: Shape,
    members: RwLock<Vec<Arc<ViewRuntime>>>,
    /// The log is being applied for its one member.
    is_founding: AtomicBool,
    /// Some checkpoint has it.
    is_saved: AtomicBool,
    /// Those whose keys it has taken over, and that the state store still has.
    replaces: Mutex<Vec<ObjectId>>,
}

/// A family as a checkpoint has it. It begins as a view's progress does.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    progress: ViewProgress,
    /// With when each was created: after a crash in the middle of a CREATE its id is another view's.
    members: Vec<(ObjectId, i64)>,
    shape: Shape,
    /// [`FamilyRuntime::replaces`].
    replaces: Vec<ObjectId>,
}

/// What is started together: the views of a family that has a checkpoint, else one view.
pub(super) struct Group {
    family: Option<(ObjectId, Record)>,
    pub(super) views: Vec<ObjectId>,
}

/// What stands in place of the progress of a view that is kept with others: no format, so nothing reads it. That it is there
/// tells of the view, should a crash cut its drop in two.
const ELSEWHERE: u32 = 0;

impl FamilyRuntime {
    fn new(shape: Shape, is_founding: bool, replaces: Vec<ObjectId>) -> FamilyRuntime {
        FamilyRuntime {
            shape,
            members: RwLock::default(),
            is_founding: AtomicBool::new(is_founding),
            is_saved: AtomicBool::new(!is_founding),
            replaces: Mutex::new(replaces),
        }
    }

    pub(super) fn members(&self) -> Vec<Arc<ViewRuntime>> {
        self.members.read().clone()
    }

    fn ids(&self) -> Vec<ObjectId> {
        self.members.read().iter().map(|view| view.state.id).collect()
    }

    /// Its record as one of the puts of a checkpoint.
    pub(super) fn put(&self, id: ObjectId, progress: ViewProgress, batch: &mut WriteBatch) -> SeamResult<()> {
        let replaces = self.replaces.lock().clone();
        let members: Vec<_> = self.members.read().iter().map(|view| (view.state.id, view.created_us)).collect();
        if !replaces.is_empty() {
            for (member, _) in &members {
                batch.puts.push(put(*member, &ELSEWHERE)?);
            }
        }
        batch.puts.push(put(id, &Record { progress, members, shape: self.shape.clone(), replaces })?);
        Ok(())
    }
}

impl ViewRuntime {
    /// Whether the state store has, or may have, anything of it.
    fn is_stored(&self) -> bool {
        let is_saved = |family: &FamilyRuntime| family.is_saved.load(Ordering::Acquire);
        self.family.as_ref().is_none_or(is_saved) || self.state.has_cold()
    }

    /// The views that its rows are of.
    pub(super) fn read_as(&self) -> Vec<ObjectId> {
        match &self.family {
            Some(family) => family.ids(),
            None => vec![self.state.id],
        }
    }

    /// While a family is founded, its steps are those of the view that is being made.
    pub(super) fn hand_over(&self) {
        let Some(family) = self.family.as_ref().filter(|family| family.is_founding.load(Ordering::Acquire)) else {
            return;
        };
        family.members().iter().for_each(|view| view.state.take_steps_of(&self.state));
    }
}

/// Where a view finds its columns among those of its family.
fn host(family: &Family, state: &Arc<ViewState>, of: &FeaturePlan) -> Option<Arc<Host>> {
    let projection = Projection::new(family.columns(of)?, state.compiled.output_count());
    Some(Arc::new(Host { state: state.clone(), projection }))
}

impl Engine {
    pub(super) fn family_of(&self, view: &ViewRuntime) -> Option<Arc<ViewRuntime>> {
        let host = view.state.host()?;
        self.families.read().get(&host.state.id).cloned()
    }

    /// The views with which one of this plan is kept, or would be.
    pub fn kept_with(&self, plan: &FeaturePlan) -> Vec<ObjectId> {
        // What is not in a log any more, a family cannot be founded from.
        let is_whole = |id| self.source(id).is_some_and(|source| source.extent().removed_us.is_none());
        if !self.seams.shares || !plan.can_share() || !plan.relations().into_iter().all(is_whole) {
            return vec![];
        }
        self.kin(plan).iter().flat_map(|kin| kin.read_as()).collect()
    }

    /// What keeps the keys of views that one of this plan can be kept with.
    fn kin(&self, plan: &FeaturePlan) -> Vec<Arc<ViewRuntime>> {
        let is_kin = |view: &Arc<ViewRuntime>| {
            let known = &view.state.compiled.plan;
            // One whose log was shortened before it was made has seen less than the others.
            let is_whole =
                view.history_start_us.is_none() && known.can_share() && !view.stands_alone.load(Ordering::Relaxed);
            let has_all = view.family.is_some() || is_whole;
            has_all && known.is_kin(plan)
        };
        self.kept().into_iter().filter(is_kin).collect()
    }

    /// A view is dropped; its family goes with the last one.
    pub(super) async fn leave_family(&self, view: &ViewRuntime) -> SeamResult<()> {
        let Some(of) = self.family_of(view) else { return Ok(()) };
        let Some(family) = &of.family else { return Ok(()) };
        family.members.write().retain(|member| member.state.id != view.state.id);
        view.state.leave_host();
        if !family.members.read().is_empty() {
            return Ok(());
        }
        self.families.write().remove(&of.state.id);
        self.detach(&of).await;
        self.forget_family(of.state.id).await?;
        let replaces = family.replaces.lock().clone();
        for id in replaces {
            self.forget_family(id).await?;
        }
        Ok(())
    }

    /// What the state store has of a family, or only the keys of a view.
    async fn forget_family(&self, id: ObjectId) -> SeamResult<()> {
        self.forget_keys(id).await?;
        match id.0 & FAMILY {
            0 => Ok(()),
            // Last: by it the next start finds what a crash has left.
            _ => self.seams.state.remove(Keyspace::Progress, &id.0.to_be_bytes()).await,
        }
    }

    /// After a checkpoint of a family: what it has taken over need not be kept twice.
    pub(super) async fn forget_replaced(&self, view: &ViewRuntime) -> SeamResult<()> {
        let Some(family) = &view.family else { return Ok(()) };
        family.is_saved.store(true, Ordering::Release);
        let replaces = family.replaces.lock().clone();
        for id in &replaces {
            self.forget_family(*id).await?;
        }
        family.replaces.lock().retain(|id| !replaces.contains(id));
        Ok(())
    }

    /// Starts views, those together that were kept together; one that cannot be started does not keep the others from it.
    async fn start_views(&self, views: &[&Object], snapshot: &Snapshot) -> SeamResult<()> {
        for group in self.groups(views)?.0 {
            self.start_group(group, snapshot).await;
        }
        Ok(())
    }

    /// What is to be started together of these views; and the families that have a view.
    pub(super) fn groups(&self, views: &[&Object]) -> SeamResult<(Vec<Group>, BTreeSet<ObjectId>)> {
        let (mut alone, mut groups) = (views.to_vec(), vec![]);
        let (records, mut claimed) = self.records()?;
        // The one that was founded last first: what an earlier one says of its views is of before.
        for (id, record) in records.into_iter().rev() {
            // It runs with those of them that were started before: no second one writes under its id.
            if self.families.read().get(&id).is_some_and(|family| !family.has_failed()) {
                continue;
            }
            let mut members = vec![];
            for member in &record.members {
                if let Some(object) = alone.iter().find(|object| (object.id, object.created_us) == *member)
                    && self.is_elsewhere(object.id)?
                {
                    members.push(object.id);
                }
            }
            if members.is_empty() {
                continue;
            }
            claimed.insert(id);
            alone.retain(|object| !members.contains(&object.id));
            groups.push(Group { family: Some((id, record)), views: members });
        }
        groups.extend(alone.into_iter().map(|object| Group { family: None, views: vec![object.id] }));
        Ok((groups, claimed))
    }

    /// Starts a group. What cannot be started has failed, and that is noted.
    pub(super) async fn start_group(&self, group: Group, snapshot: &Snapshot) {
        let Group { family, views } = group;
        let objects: Vec<&Object> =
            views.iter().filter_map(|id| snapshot.get_id(*id).map(|object| &**object)).collect();
        match family {
            Some((id, record)) => {
                if let Err(error) = self.start_family(id, record, &objects, snapshot).await {
                    objects.iter().for_each(|member| self.cannot_start(member, &error));
                }
            }
            None => {
                for object in objects {
                    self.start_or_fail(object, snapshot).await;
                }
            }
        }
    }

    /// The families that checkpoints have left, but for those that others have replaced. Those of another format, of which
    /// nothing can be told, are named beside.
    fn records(&self) -> SeamResult<(BTreeMap<ObjectId, Record>, BTreeSet<ObjectId>)> {
        let (mut records, mut foreign) = (BTreeMap::<ObjectId, Record>::new(), BTreeSet::new());
        let mut after = Some(FAMILY.to_be_bytes().to_vec());
        loop {
            let page = self.seams.state.page(Keyspace::Progress, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, bytes) in page {
                let Ok(id) = <[u8; 4]>::try_from(key.as_slice()) else { continue };
                let id = ObjectId(u32::from_be_bytes(id));
                if id.0 & FAMILY == 0 {
                    continue;
                }
                let (format, _) = postcard::take_from_bytes::<u32>(&bytes).map_err(SeamError::not_done)?;
                if format == STATE_FORMAT {
                    records.insert(id, postcard::from_bytes(&bytes).map_err(SeamError::not_done)?);
                } else {
                    foreign.insert(id);
                }
            }
        }
        let replaced: Vec<ObjectId> = records.values().flat_map(|record| record.replaces.clone()).collect();
        records.retain(|id, _| !replaced.contains(id));
        Ok((records, foreign))
    }

    /// An id that no family has, nor had since this start: a reader may still go by the keys of one whose views have been
    /// dropped. `checkpointing` is held.
    fn next_id(&self) -> SeamResult<ObjectId> {
        let (records, foreign) = self.records()?;
        let running = self.families.read().keys().next_back().copied();
        let last = records.keys().next_back().copied().max(foreign.last().copied()).max(running);
        let last = last.map_or(FAMILY, |last| last.0).max(self.last_family.load(Ordering::Relaxed));
        let next = last.saturating_add(1);
        self.last_family.store(next, Ordering::Relaxed);
        Ok(ObjectId(next))
    }

    /// Whether a view has no checkpoint of its own.
    fn is_elsewhere(&self, id: ObjectId) -> SeamResult<bool> {
        let Some(bytes) = read(&self.seams, &id.0.to_be_bytes())? else { return Ok(true) };
        Ok(postcard::take_from_bytes::<u32>(&bytes).is_ok_and(|(format, _)| format == ELSEWHERE))
    }

    /// Starts a family from its last checkpoint. Views that it had then and that are gone leave their columns: its keys have
    /// been saved with them.
    async fn start_family(
        &self,
        id: ObjectId,
        record: Record,
        objects: &[&Object],
        snapshot: &Snapshot,
    ) -> SeamResult<()> {
        let Record { progress, shape, mut replaces, .. } = record;
        // One that stands for itself again has keys of its own, under the same id as before.
        replaces.retain(|id| id.0 & FAMILY != 0 || objects.iter().any(|object| object.id == *id));
        let compiled = |object: &&Object| Self::compile(object, snapshot).map(Arc::new);
        let compiled = objects.iter().map(compiled).collect::<SeamResult<Vec<Arc<CompiledView>>>>()?;
        let plans: Vec<&FeaturePlan> = compiled.iter().map(|compiled| &compiled.plan).collect();
        let unlike = || {
            let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
            SeamError::NotDone(format!("{} were kept together, and are not alike any more", names.join(", ")))
        };
        let (Some(first), Some(family)) = (objects.first(), Family::of(&plans, Some(&shape))) else {
            return Err(unlike());
        };
        // Keys that it took over, where the checkpoint after that was cut short.
        for id in &replaces {
            self.forget_keys(*id).await?;
        }
        let mut tags = vec![];
        for (object, compiled) in objects.iter().zip(&compiled) {
            let table = Self::history_table(object, compiled);
            tags.push(self.seams.history.take_up(&table).await?);
        }
        let committed_us = |tag: &Option<CommitTag>| tag.as_ref().map_or(i64::MIN, |tag| tag.frontier_us);
        let least_us = tags.iter().map(committed_us).min().unwrap_or(i64::MIN);
        let wrong = |error| SeamError::not_done(internal(&first.name, error));
        let keeps = Arc::new(CompiledView::of_family(first, family.plan.clone()).map_err(wrong)?);
        let readings = self.readings(&first.name, &keeps.plan)?;
        let state = ViewState::new(id, keeps, least_us, self.seams.threads, Some(self.cold(id)), vec![]);
        let ViewProgress { positions, frontier_us, events, keys, generation, stale, behind, .. } = progress;
        state.recover(Frozen { generation, frontier_us, keys, events, stale, behind }).await?;
        let state = Arc::new(state);
        let mut members = vec![];
        for ((object, compiled), tag) in objects.iter().zip(&compiled).zip(&tags) {
            let host = host(&family, &state, &compiled.plan).ok_or_else(unlike)?;
            let own = ViewState::new(object.id, compiled.clone(), committed_us(tag), 1, None, vec![]);
            own.move_to(host);
            let own_readings = self.readings(&object.name, &compiled.plan)?;
            let sequence = tag.as_ref().map_or(1, |tag| tag.sequence + 1);
            members.push(Arc::new(ViewRuntime::new(object, Arc::new(own), own_readings, sequence, None)));
        }
        let runtime = FamilyRuntime::new(family.shape, false, replaces);
        *runtime.members.write() = members.clone();
        let keeps = Arc::new(ViewRuntime::new(first, state, readings, 1, Some(runtime)));
        self.join_sources(&keeps, Some(&positions)).await?;
        self.families.write().insert(id, keeps);
        self.views.write().extend(members.into_iter().map(|view| (view.state.id, view)));
        Ok(())
    }

    /// Starts a failed view again with those that it is kept with: from the family's last checkpoint or, where that does not do,
    /// each for itself from the log. `None`: it is in no family. `checkpointing` is held.
    pub(super) async fn resume_family(
        &self,
        object: &Object,
        snapshot: &Snapshot,
    ) -> SeamResult<Option<SeamResult<()>>> {
        let running = self.views.read().get(&object.id).and_then(|view| self.family_of(view));
        let mut ids = running.as_ref().map(|family| family.read_as()).unwrap_or_default();
        let is_elsewhere = self.is_elsewhere(object.id)?;
        let claims = |record: &Record| is_elsewhere && record.members.contains(&(object.id, object.created_us));
        for record in self.records()?.0.into_values().filter(claims) {
            ids.extend(record.members.iter().map(|(member, _)| *member));
        }
        if ids.is_empty() {
            return Ok(None);
        }
        ids.push(object.id);
        if let Some(family) = &running {
            self.families.write().remove(&family.state.id);
            self.detach(family).await;
            // What is on its way to the online store arrives first: nothing of before is put after what is new.
            drop(family.flushing.lock().await);
            // Without a record nobody will look for what it has spilled.
            if read(&self.seams, &family.state.id.0.to_be_bytes())?.is_none() {
                self.forget_keys(family.state.id).await?;
            }
        }
        let known = snapshot.objects().map(|object| &**object);
        let mut objects: Vec<&Object> = known.filter(|known| ids.contains(&known.id)).collect();
        // Another of them may run for itself by now.
        objects.retain(|known| self.failure(known.id).is_some());
        for known in &objects {
            self.not_started.write().remove(&known.id);
            let left = self.views.write().remove(&known.id);
            if let Some(left) = left {
                self.detach(&left).await;
            }
        }
        if let Err(error) = self.start_views(&objects, snapshot).await {
            for known in &objects {
                let is_left = self.view(known.id).is_none() && self.failure(known.id).is_none();
                if is_left {
                    self.cannot_start(known, &error);
                }
            }
        }
        let (mut outcome, mut is_given_up) = (Ok(()), false);
        for known in objects {
            let Some(failure) = self.failure(known.id) else { continue };
            is_given_up = true;
            tracing::warn!(view = known.name, "its last checkpoint does not do: it is built anew from the log");
            self.not_started.write().remove(&known.id);
            let left = self.views.write().remove(&known.id);
            if let Some(left) = left {
                let of = self.family_of(&left);
                if let Some(of) = of {
                    self.families.write().remove(&of.state.id);
                    self.detach(&of).await;
                }
                self.detach(&left).await;
            }
            if let Err(error) = self.start_view(known, snapshot, true).await {
                let failure = Failure { error: error.to_string(), positions: None, ..failure };
                self.not_started.write().insert(known.id, failure);
                if known.id == object.id {
                    outcome = Err(error);
                }
            }
        }
        if is_given_up && outcome.is_ok() {
            outcome = self.forget_given_up(object, snapshot).await;
        }
        Ok(Some(outcome))
    }

    /// The checkpoint of a family that did not do, when its views stand for themselves: a start before they have
    /// checkpoints of their own would go by it again.
    async fn forget_given_up(&self, object: &Object, snapshot: &Snapshot) -> SeamResult<()> {
        for (id, record) in self.records()?.0 {
            let claims = record.members.contains(&(object.id, object.created_us));
            let goes_on =
                |(member, _): &(ObjectId, i64)| snapshot.get_id(*member).is_none() || self.view(*member).is_some();
            if !claims || self.families.read().contains_key(&id) || !record.members.iter().all(goes_on) {
                continue;
            }
            // First: without the record nobody knows that they are of before.
            for replaced in record.replaces.iter().filter(|replaced| replaced.0 & FAMILY != 0) {
                self.forget_family(*replaced).await?;
            }
            self.forget_family(id).await?;
        }
        Ok(())
    }
}
