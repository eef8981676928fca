//! Care for a view's history table. It changes how steps are stored and never which: nothing here touches the view.
//!
//! ```text
//!   statements       OPTIMIZE, VACUUM                    all of it, now
//!   by itself        survey ▶ what is due, by numbers ▶ one after the other, within limits
//! ```

use super::{Engine, ViewRuntime};
use crate::seam::{Clock, Effort, Expiry, Folded, Removed, Rewritten, SeamError, SeamResult, Survey};
use std::{collections::VecDeque, sync::Arc};
use tidemark_catalog::Object;

/// So many of a view's last runs are kept for people: some hours of them, a hundred bytes each.
const RUNS_KEPT: usize = 32;
/// From so many on small manifests are written together. A rewrite of small files does the same for theirs, so it takes
/// many months, or another engine, to come here.
const SMALL_MANIFESTS_MAX: u64 = 64;
/// From so many on old snapshots are forgotten, and fewer when they are twice as old as they have to be: each time is a
/// commit.
const OLD_SNAPSHOTS_MAX: u64 = 16;
/// Orphans are looked for this often, and after the start: it takes a look at every file, and hardly ever finds any.
const ORPHANS_EVERY_US: i64 = 6 * 3_600_000_000;

/// By which numbers the server cares for history by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    pub effort: Effort,
    /// A snapshot is forgotten when another has been the newest for this long.
    pub snapshot_retention_us: i64,
    /// A file that no snapshot leads to is removed when it is this old.
    pub orphan_age_us: i64,
}

/// One thing that can be done for a history table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    Compact,
    FoldManifests,
    Expire,
    RemoveOrphans,
}

impl Care {
    pub fn as_str(self) -> &'static str {
        match self {
            Care::Compact => "compact",
            Care::FoldManifests => "fold manifests",
            Care::Expire => "expire snapshots",
            Care::RemoveOrphans => "remove orphans",
        }
    }
}

impl Upkeep {
    /// What such a table needs, in the order in which it is best done. `orphans_us`: when orphans were looked for last.
    pub(super) fn due(&self, survey: &Survey, orphans_us: Option<i64>, now_us: i64) -> Vec<Care> {
        let long_ago_us = now_us.saturating_sub(self.snapshot_retention_us.saturating_mul(2));
        let mut due = vec![];
        if survey.small_files > 0 {
            due.push(Care::Compact);
        }
        if survey.small_manifests >= SMALL_MANIFESTS_MAX {
            due.push(Care::FoldManifests);
        }
        if survey.old_snapshots >= OLD_SNAPSHOTS_MAX || survey.oldest_us.is_some_and(|oldest| oldest < long_ago_us) {
            due.push(Care::Expire);
        }
        if orphans_us.is_none_or(|last| now_us.saturating_sub(last) >= ORPHANS_EVERY_US) {
            due.push(Care::RemoveOrphans);
        }
        due
    }

    pub(super) fn old_us(&self, now_us: i64) -> i64 {
        now_us.saturating_sub(self.snapshot_retention_us)
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet, or an error.
    #[default]
    None,
    Rewritten(Rewritten),
    Folded(Folded),
    Removed(Removed),
}

/// One thing that was done for a view's history table, or is being done. Times are microseconds.
#[derive(Debug, Clone)]
pub struct Run {
    number: u64,
    /// A statement, or a [`Care`].
    pub what: &'static str,
    /// The server does it unasked.
    pub by_itself: bool,
    pub started_us: i64,
    pub ended_us: Option<i64>,
    pub outcome: Outcome,
    pub error: Option<String>,
}

/// What was done for a view's history table since the server started.
#[derive(Debug, Clone, Default)]
pub struct Maintenance {
    /// What runs.
    pub running: Option<&'static str>,
    /// The last that did something, or that somebody asked for, and when it ended (microseconds).
    pub rewritten: Option<(i64, Rewritten)>,
    pub removed: Option<(i64, Removed)>,
    /// Of the last, if it failed.
    pub last_error: Option<String>,
    /// What the table was like last, and when (microseconds).
    pub survey: Option<(i64, Survey)>,
    /// The oldest first.
    pub runs: VecDeque<Run>,
    runs_begun: u64,
    orphans_us: Option<i64>,
}

impl Maintenance {
    fn begin(&mut self, what: &'static str, by_itself: bool, now_us: i64) -> u64 {
        self.running = Some(what);
        self.runs_begun += 1;
        while self.runs.len() >= RUNS_KEPT {
            self.runs.pop_front();
        }
        let (number, outcome) = (self.runs_begun, Outcome::None);
        self.runs.push_back(Run { number, what, by_itself, started_us: now_us, ended_us: None, outcome, error: None });
        number
    }

    fn end(&mut self, number: u64, outcome: Outcome, error: Option<String>, now_us: i64) {
        self.running = None;
        self.last_error.clone_from(&error);
        let run = self.runs.iter_mut().find(|run| run.number == number && run.ended_us.is_none());
        let by_itself = run.as_ref().is_some_and(|run| run.by_itself);
        match outcome {
            Outcome::Rewritten(done) if done.files_before > 0 || !by_itself => self.rewritten = Some((now_us, done)),
            Outcome::Removed(done) if done != Removed::default() || !by_itself => self.removed = Some((now_us, done)),
            _ => {}
        }
        if let Some(run) = run {
            (run.ended_us, run.outcome, run.error) = (Some(now_us), outcome, error);
        }
    }
}

/// Marks what runs. It may be dropped at any moment: by a cancel, or because the server stops.
struct Running<'a> {
    view: &'a ViewRuntime,
    clock: &'a dyn Clock,
    number: u64,
    has_ended: bool,
}

impl Running<'_> {
    fn end(mut self, outcome: SeamResult<Outcome>) -> SeamResult<Outcome> {
        self.has_ended = true;
        let error = outcome.as_ref().err().map(ToString::to_string);
        let done = outcome.as_ref().copied().unwrap_or_default();
        let meters = &self.view.meters;
        meters.maintenance_runs.add(1);
        meters.maintenance_failures.add(u64::from(error.is_some()));
        if let Outcome::Rewritten(done) = done {
            meters.maintenance_bytes.add(done.bytes_after);
        }
        self.view.maintenance.write().end(self.number, done, error, self.clock.now_us());
        outcome
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let error = Some("it was stopped before its end; nothing is lost".to_string());
            self.view.maintenance.write().end(self.number, Outcome::None, error, self.clock.now_us());
        }
    }
}

impl Engine {
    /// Writes the small files of a view's history together, all of them.
    pub async fn optimize_history(&self, view: &Object, target_bytes: u64) -> SeamResult<Rewritten> {
        let view = self.maintained(view)?;
        let running = self.begin(&view, "OPTIMIZE", false);
        let table = view.history.read().clone();
        let done = self.seams.history.compact(&table, &Effort { target_bytes, ..Effort::WHOLE }).await;
        match running.end(done.map(Outcome::Rewritten))? {
            Outcome::Rewritten(done) => Ok(done),
            _ => Ok(Rewritten::default()),
        }
    }

    /// Removes what a view's history has not needed since `older_than_us`.
    pub async fn vacuum_history(&self, view: &Object, older_than_us: i64) -> SeamResult<Removed> {
        let view = self.maintained(view)?;
        let running = self.begin(&view, "VACUUM", false);
        let table = view.history.read().clone();
        let done = self.seams.history.vacuum(&table, older_than_us).await;
        match running.end(done.map(Outcome::Removed))? {
            Outcome::Removed(done) => Ok(done),
            _ => Ok(Removed::default()),
        }
    }

    /// Looks at a view's history; what is due for it.
    ///
    /// # Errors
    /// It cannot be read; also noted as the view's last error of maintenance.
    pub async fn survey_history(&self, view: &ViewRuntime, upkeep: &Upkeep) -> SeamResult<Vec<Care>> {
        let now_us = self.seams.clock.now_us();
        let table = view.history.read().clone();
        let surveyed = self.seams.history.survey(&table, &upkeep.effort, upkeep.old_us(now_us)).await;
        let mut maintenance = view.maintenance.write();
        match &surveyed {
            Ok(survey) => maintenance.survey = Some((now_us, *survey)),
            Err(error) => {
                view.meters.maintenance_failures.add(1);
                maintenance.last_error = Some(error.to_string());
            }
        }
        Ok(upkeep.due(&surveyed?, maintenance.orphans_us, now_us))
    }

    /// Does one thing for a view's history, unasked.
    ///
    /// # Errors
    /// It did not happen, and nothing else did; also noted as the view's last error of maintenance.
    pub async fn care_for_history(&self, view: &ViewRuntime, care: Care, upkeep: &Upkeep) -> SeamResult<Outcome> {
        let now_us = self.seams.clock.now_us();
        let running = self.begin(view, care.as_str(), true);
        let table = view.history.read().clone();
        let history = &self.seams.history;
        let snapshots_before_us = upkeep.old_us(now_us);
        let done = match care {
            Care::Compact => history.compact(&table, &upkeep.effort).await.map(Outcome::Rewritten),
            Care::FoldManifests => history.fold_manifests(&table).await.map(Outcome::Folded),
            Care::Expire => {
                let expiry = Expiry { snapshots_before_us, orphans_before_us: None };
                history.expire(&table, &expiry).await.map(Outcome::Removed)
            }
            Care::RemoveOrphans => {
                // Whatever happens, the next look is not at once.
                view.maintenance.write().orphans_us = Some(now_us);
                let orphans_before_us = Some(now_us.saturating_sub(upkeep.orphan_age_us));
                let expiry = Expiry { snapshots_before_us, orphans_before_us };
                history.expire(&table, &expiry).await.map(Outcome::Removed)
            }
        };
        running.end(done)
    }

    fn begin<'a>(&'a self, view: &'a ViewRuntime, what: &'static str, by_itself: bool) -> Running<'a> {
        let clock = self.seams.clock.as_ref();
        let number = view.maintenance.write().begin(what, by_itself, clock.now_us());
        Running { view, clock, number, has_ended: false }
    }

    fn maintained(&self, view: &Object) -> SeamResult<Arc<ViewRuntime>> {
        let running = self.view(view.id);
        running.ok_or_else(|| SeamError::NotDone(format!("feature view \"{}\" does not run", view.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;
    const UPKEEP: Upkeep =
        Upkeep { effort: Effort::WHOLE, snapshot_retention_us: HOUR_US, orphan_age_us: 24 * HOUR_US };

    #[test]
    fn what_is_due_goes_by_numbers() {
        let now_us = 100 * HOUR_US;
        let due = |survey: Survey| UPKEEP.due(&survey, Some(now_us), now_us);
        let few = Survey {
            files: 5,
            manifests: 63,
            small_manifests: 63,
            snapshots: 100,
            old_snapshots: 15,
            oldest_us: Some(98 * HOUR_US),
            ..Survey::default()
        };
        assert!(due(few).is_empty());
        assert_eq!(due(Survey { small_files: 16, ..few }), [Care::Compact]);
        assert_eq!(due(Survey { small_manifests: 64, ..few }), [Care::FoldManifests]);
        assert_eq!(due(Survey { old_snapshots: 16, ..few }), [Care::Expire]);
        assert_eq!(due(Survey { oldest_us: Some(98 * HOUR_US - 1), ..few }), [Care::Expire]);
        assert_eq!(UPKEEP.due(&few, None, now_us), [Care::RemoveOrphans], "after the start");
        assert_eq!(UPKEEP.due(&few, Some(94 * HOUR_US), now_us), [Care::RemoveOrphans]);
        assert!(UPKEEP.due(&few, Some(94 * HOUR_US + 1), now_us).is_empty());
    }

    #[test]
    fn the_last_runs_are_kept_and_one_that_did_nothing_hides_none_that_did_something() {
        let mut maintenance = Maintenance::default();
        let rewritten = Rewritten { files_before: 16, bytes_before: 160, files_after: 1, bytes_after: 100 };
        let number = maintenance.begin("compact", true, 10);
        assert_eq!((maintenance.running, maintenance.runs[0].ended_us), (Some("compact"), None));
        maintenance.end(number, Outcome::Rewritten(rewritten), None, 20);
        assert_eq!((maintenance.running, maintenance.runs[0].ended_us), (None, Some(20)));
        for _ in 0..RUNS_KEPT {
            let number = maintenance.begin("compact", true, 30);
            maintenance.end(number, Outcome::Rewritten(Rewritten::default()), Some("why".to_string()), 40);
        }
        assert_eq!(maintenance.rewritten, Some((20, rewritten)));
        assert_eq!(maintenance.last_error.as_deref(), Some("why"));
        assert_eq!(maintenance.runs.len(), RUNS_KEPT);
        let number = maintenance.begin("OPTIMIZE", false, 50);
        maintenance.end(number, Outcome::Rewritten(Rewritten::default()), None, 60);
        assert_eq!((maintenance.rewritten, maintenance.last_error), (Some((60, Rewritten::default())), None));
    }
}
