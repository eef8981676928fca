//! Until when the right side of an `ASOF JOIN` says what is, and which of that is final.
//!
//! ```text
//! a feature view    … steps, final ───▶| F  steps from state, which may still change ───▶| now   nothing
//! ```

use super::labels::{Index, NONE};
use crate::provider::{log_scan::VersionsTable, steps::StepsTable};
use crate::wording::instant;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use std::any::Any;
use std::collections::BTreeMap;
use tidemark_catalog::{ObjectId, ObjectKind};
use tidemark_planner::{PlanError, error::sqlstate};

/// Up to which instants values are final; an extension of a session's configuration. Without it nobody asks.
#[derive(Debug, Clone, Default)]
pub struct Finality {
    /// By feature view and changelog table: what they are at instants below never changes, microseconds.
    pub frontiers: BTreeMap<ObjectId, i64>,
    /// Whether labels at or above get their values all the same.
    pub completes: bool,
    /// They are those of a transaction's snapshot, not of a training set.
    pub of_snapshot: bool,
}

/// Until when the right side says what is: a feature view does until now. Its last step is no value for a label after
/// that, when events will have left its windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub kind: ObjectKind,
    pub name: String,
    /// Microseconds; labels of this instant have their values.
    pub until_us: i64,
    /// Values of instants below are final, microseconds; `None`: that is not asked.
    pub frontier_us: Option<i64>,
    /// Whether labels at or above the frontier get values all the same.
    pub completes: bool,
    /// Whether the frontier is that of a transaction's snapshot.
    pub of_snapshot: bool,
}

impl Known {
    /// Counts labels that have a key and a time: the others match nothing at any time.
    pub fn tally(&self) -> Tally {
        let frontier_us = self.frontier_us.unwrap_or(i64::MAX);
        Tally { until_us: self.until_us, frontier_us, future: Few::default(), provisional: Few::default() }
    }

    /// The labels of an index.
    pub fn tally_of(&self, labels: &Index) -> Tally {
        let mut tally = self.tally();
        let slots = labels.row_slots.iter().filter(|slot| **slot != NONE);
        slots.for_each(|slot| tally.add(labels.times[*slot as usize]));
        tally
    }

    /// Refuses labels that lie after it, as `FOR SYSTEM_TIME AS OF` refuses such an instant, and those at or above the
    /// frontier where only final values are wanted. How many labels there are at or above the frontier.
    pub fn check(&self, tally: &Tally) -> Result<usize> {
        self.check_future(tally.future)?;
        let Some(frontier_us) = self.frontier_us else { return Ok(0) };
        let Few { count, first_us } = tally.provisional;
        if count == 0 || self.completes {
            return Ok(count);
        }
        let (labels, lie) = if count == 1 { ("label", "lies") } else { ("labels", "lie") };
        if self.of_snapshot {
            let message = format!(
                "could not serialize access: {count} {labels} of an ASOF JOIN {lie} at or above {}, the frontier of {} \"{}\" at the \
                 transaction's first read, and events have come since: the first at {}",
                instant(frontier_us),
                self.kind,
                self.name,
                instant(first_us),
            );
            return Err(PlanError::new("40001", message)
                .detail("their values may have changed; nothing keeps those that were not final")
                .hint(
                    "run the transaction again; or leave these labels out in WHERE: below the frontier nothing changes",
                )
                .into());
        }
        let message = format!(
            "{count} {labels} of the training set {lie} at or above the frontier of {} \"{}\", {}: the first at {}",
            self.kind,
            self.name,
            instant(frontier_us),
            instant(first_us),
        );
        Err(PlanError::new("55000", message)
            .detail("their values may still change: events may come that belong before them")
            .hint(
                "leave them out in WHERE; or wait, or move the frontier by ALTER SOURCE … ADVANCE WATERMARK; or CREATE TRAINING \
                 SET … WITH (complete = 'state'), which takes what is known now",
            )
            .into())
    }

    fn check_future(&self, Few { count, first_us }: Few) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let (labels, are) = if count == 1 { ("label", "is") } else { ("labels", "are") };
        let message = format!(
            "{count} {labels} of an ASOF JOIN {are} after now, on {} \"{}\": the first at {}, now is {}",
            self.kind,
            self.name,
            instant(first_us),
            instant(self.until_us),
        );
        Err(PlanError::new(sqlstate::INVALID_PARAMETER, message)
            .hint(
                "a feature view has no values in the future; under the event clock now is its newest event. Filter the \
                 labels by their time",
            )
            .into())
    }
}

/// How many labels, and the least of their times.
#[derive(Debug, Clone, Copy)]
struct Few {
    count: usize,
    first_us: i64,
}

impl Default for Few {
    fn default() -> Self {
        Few { count: 0, first_us: i64::MAX }
    }
}

impl Few {
    fn add(&mut self, us: i64) {
        *self = Few { count: self.count + 1, first_us: self.first_us.min(us) };
    }
}

/// What [`Known::check`] must know of the labels.
#[derive(Debug, Clone)]
pub struct Tally {
    until_us: i64,
    frontier_us: i64,
    future: Few,
    provisional: Few,
}

impl Tally {
    pub fn add(&mut self, us: i64) {
        if us > self.until_us {
            self.future.add(us);
        }
        if us >= self.frontier_us {
            self.provisional.add(us);
        }
    }
}

/// Until when a right side that is the steps of a feature view, or the versions of a table, says what is. What an inner
/// `ASOF JOIN` reads is its own affair.
pub fn known(right: &LogicalPlan, finality: Option<&Finality>) -> Option<Known> {
    match right {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let provider = provider.as_ref() as &dyn Any;
            let (id, kind, name, until_us) = match provider.downcast_ref::<StepsTable>() {
                Some(steps) => (steps.id(), ObjectKind::FeatureView, steps.view().to_string(), steps.now_us()),
                None => {
                    let versions = provider.downcast_ref::<VersionsTable>()?;
                    (versions.id(), ObjectKind::Table, versions.name(), i64::MAX)
                }
            };
            let frontier_us = finality.and_then(|finality| finality.frontiers.get(&id).copied());
            let completes = finality.is_some_and(|finality| finality.completes);
            let of_snapshot = finality.is_some_and(|finality| finality.of_snapshot);
            Some(Known { kind, name, until_us, frontier_us, completes, of_snapshot })
        }
        LogicalPlan::Extension(_) => None,
        other => other.inputs().into_iter().find_map(|input| known(input, finality)),
    }
}
