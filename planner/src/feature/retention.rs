//! How much of its source's log a view needs, and whether the log's retention leaves it that much.
//!
//! A view that exists has its state and does not read the log again. What needs the log is the next view: its values are to
//! be those of one that lived through the same events. So, for every key that has an event in the log, whatever its values
//! are made of has to be there too. A key without an event in the log is unknown to a view made now; a `ttl` makes that
//! the definition.

use super::{FeaturePlan, Frame, Pane, describe_duration, plan_definition};
use crate::{PlanError, PlanResult, error::sqlstate};
use std::sync::Arc;
use tidemark_catalog::{Object, Snapshot};

/// What a view reaches back for.
struct Need {
    /// Microseconds; `None`: to the first event there was.
    us: Option<i64>,
    /// The part of the definition that reaches so far.
    why: String,
}

impl FeaturePlan {
    /// The greatest of its needs; `None`: every value is that of the latest event.
    fn need(&self) -> Option<Need> {
        let frames = self.frames.iter().filter_map(|frame| {
            let us = match (*frame, self.ttl_us) {
                (Frame::Range { start_us: Some(us), .. }, _) => Some(us.saturating_add(self.slide_us.unwrap_or(0))),
                (Frame::Pane(pane @ Pane::Hop { .. }), _) => Some(pane.reach_us()),
                (Frame::Rows { start: Some(0), .. }, _) => return None,
                // Of n + 1 events in a row each is followed within the ttl, or the key's life has ended between them.
                (Frame::Rows { start: Some(rows), .. }, Some(ttl_us)) => {
                    let events = i64::try_from(rows).unwrap_or(i64::MAX).saturating_add(1);
                    Some(ttl_us.saturating_mul(events))
                }
                _ => None,
            };
            let why = match (us, frame) {
                (Some(us), Frame::Rows { .. }) => {
                    format!("window {} reaches back {} with its ttl", frame.describe(), describe_duration(us))
                }
                (Some(us), _) => format!("window {} reaches back {}", frame.describe(), describe_duration(us)),
                (None, Frame::Pane(_)) => "a session may have begun however long ago".to_string(),
                (None, Frame::Rows { start: Some(_), .. }) => {
                    format!("window {} is over rows, however old they are", frame.describe())
                }
                (None, _) => format!("window {} is over every event there ever was", frame.describe()),
            };
            Some(Need { us, why })
        });
        let ttl = self.ttl_us.map(|us| Need {
            us: Some(us),
            why: format!("its ttl keeps a key for {} after its last event", describe_duration(us)),
        });
        frames.chain(ttl).max_by_key(|need| need.us.unwrap_or(i64::MAX))
    }

    /// The need that a log which keeps rows for `retention_us` does not meet.
    fn unmet(&self, retention_us: i64) -> Option<Need> {
        self.need().filter(|need| need.us.is_none_or(|us| us > retention_us))
    }
}

/// Refuses a view that needs more of `relation` than its retention keeps.
pub fn check_view(name: &str, plan: &FeaturePlan, relation: &Object) -> PlanResult<()> {
    let retention_us = relation.relation().and_then(|r| r.retention_us);
    let Some((kept, need)) = retention_us.and_then(|kept| Some((kept, plan.unmet(kept)?))) else { return Ok(()) };
    let (kind, source) = (relation.kind(), &relation.name);
    let error = PlanError::new(
        sqlstate::INVALID_DEFINITION,
        format!(
            "feature view \"{name}\" needs more of {kind} \"{source}\" than its retention of {} keeps",
            describe_duration(kept)
        ),
    )
    .detail(need.why);
    Err(match need.us {
        Some(us) => error.hint(format!(
            "ALTER {} {source} SET (retention = '{}'), or let the view reach back less",
            kind.to_string().to_uppercase(),
            describe_duration(us)
        )),
        None => error.hint(format!(
            "bound the window by RANGE (or a window of rows by a ttl), or read a {kind} without retention"
        )),
    })
}

/// Refuses a retention of `relation` that is shorter than what a view on it needs.
pub fn check_retention(relation: &Arc<Object>, retention_us: i64, snapshot: &Snapshot) -> PlanResult<()> {
    for view in snapshot.readers(relation.id).filter(|reader| reader.feature_view().is_some()) {
        let Some(need) = plan_definition(view, snapshot)?.unmet(retention_us) else { continue };
        let error = PlanError::new(
            sqlstate::INVALID_PARAMETER,
            format!(
                "retention of {} \"{}\" cannot be {}: feature view \"{}\" needs more",
                relation.kind(),
                relation.name,
                describe_duration(retention_us),
                view.name
            ),
        )
        .detail(need.why);
        return Err(match need.us {
            Some(us) => error.hint(format!("set it to '{}' or more, or drop the view", describe_duration(us))),
            None => error.hint("the view needs everything: drop it, or leave the retention"),
        });
    }
    Ok(())
}
