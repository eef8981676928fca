//! Views come back after a start one group after the other, and one that somebody waits for comes before the others.
//!
//! ```text
//!   waiting ── restore_waiting, or restore_first ──▶ under way ──▶ runs, or has failed
//! ```
//!
//! A group is what is kept together: the views of a family, else one view. Several may be under way at once, each of them once.
//! Whoever calls decides what else may happen meanwhile; a log is not shortened before all of them are back.

use super::{Engine, family::Group};
use crate::seam::{SeamError, SeamResult};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use tidemark_catalog::{ObjectId, Snapshot};
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Restoring {
    left: Mutex<Left>,
    /// Whenever a group is back, or is given up.
    moved: Notify,
}

#[derive(Default)]
struct Left {
    /// In the order of a start on which nobody waits.
    waiting: VecDeque<Group>,
    /// Those of the groups that wait or are under way.
    views: BTreeSet<ObjectId>,
    /// The families that have a view.
    claimed: BTreeSet<ObjectId>,
    /// A group was under way and did not come to its end: who has it from here on nobody knows.
    is_given_up: bool,
}

/// A group that somebody is at. Dropped before it is back, nobody is to wait for it.
struct UnderWay<'a> {
    of: &'a Restoring,
    views: Vec<ObjectId>,
    is_back: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut left = self.of.left.lock();
        if self.is_back {
            for id in &self.views {
                left.views.remove(id);
            }
        } else {
            left.is_given_up = true;
        }
        drop(left);
        self.of.moved.notify_waiters();
    }
}

impl Restoring {
    pub(super) fn begin(&self, groups: Vec<Group>, claimed: BTreeSet<ObjectId>) {
        let views = groups.iter().flat_map(|group| group.views.iter().copied()).collect();
        *self.left.lock() = Left { waiting: groups.into(), views, claimed, is_given_up: false };
    }

    /// The next group that waits; that of a view, where one is named.
    fn take(&self, of: Option<ObjectId>) -> Option<(Group, UnderWay<'_>)> {
        let mut left = self.left.lock();
        let group = match of {
            None => left.waiting.pop_front(),
            Some(id) => {
                let at = left.waiting.iter().position(|group| group.views.contains(&id));
                at.and_then(|at| left.waiting.remove(at))
            }
        }?;
        let views = group.views.clone();
        Some((group, UnderWay { of: self, views, is_back: false }))
    }

    /// Waits until none of the views that `waits_for` says is left.
    async fn gone(&self, waits_for: impl Fn(&BTreeSet<ObjectId>) -> bool) -> SeamResult<()> {
        loop {
            // Made before it is looked, so that what moves in between is heard.
            let moved = self.moved.notified();
            {
                let left = self.left.lock();
                if !waits_for(&left.views) {
                    return Ok(());
                }
                if left.is_given_up {
                    return Err(SeamError::NotDone("a feature view was given up while it was restored".to_string()));
                }
            }
            moved.await;
        }
    }
}

impl Engine {
    /// Whether a view is not back yet since the start.
    pub fn is_awaited(&self, view: ObjectId) -> bool {
        self.restoring.left.lock().views.contains(&view)
    }

    /// Whether all views are back since the start; those that have failed count.
    pub fn is_restored(&self) -> bool {
        self.restoring.left.lock().views.is_empty()
    }

    /// Returns when a view is back: it runs, or has failed. Somebody has to restore it beside.
    ///
    /// # Errors
    /// It will not be: its restoration was broken off.
    pub async fn restored(&self, view: ObjectId) -> SeamResult<()> {
        self.restoring.gone(|left| left.contains(&view)).await
    }

    /// The same of all views.
    ///
    /// # Errors
    /// As [`Engine::restored`].
    pub async fn all_restored(&self) -> SeamResult<()> {
        self.restoring.gone(|left| !left.is_empty()).await
    }

    /// Restores views until none waits. Several may do it beside one another.
    pub async fn restore_waiting(&self, snapshot: &Snapshot) {
        while let Some((group, mut under_way)) = self.restoring.take(None) {
            self.start_group(group, snapshot).await;
            under_way.is_back = true;
        }
    }

    /// Restores a view before the others, with those that are kept with it. Nothing, where it is back or somebody is at it.
    pub async fn restore_first(&self, view: ObjectId, snapshot: &Snapshot) {
        if let Some((group, mut under_way)) = self.restoring.take(Some(view)) {
            self.start_group(group, snapshot).await;
            under_way.is_back = true;
        }
    }

    /// What is to be done when all views are back: removes what a crash in the middle of a drop has left.
    pub async fn finish_restoring(&self, snapshot: &Snapshot) -> SeamResult<()> {
        let claimed = std::mem::take(&mut self.restoring.left.lock().claimed);
        self.forget_orphans(snapshot, &claimed).await
    }
}
