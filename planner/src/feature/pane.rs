//! `GROUP BY key, TUMBLE(time, size) | HOP(time, hop, size) | SESSION(time, gap)`: windows that begin and end by themselves,
//! of which a view shows the last that is over.

use super::describe_duration;
use crate::{PlanError, PlanResult, error::sqlstate, parse::duration_us};
use datafusion::{common::ScalarValue, logical_expr::Expr};

/// Microseconds. Windows are `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pane {
    /// `size_us` long, one ends every `hop_us` (since 1970-01-01 UTC), of which `size_us` is a multiple; equal: TUMBLE.
    Hop { size_us: i64, hop_us: i64 },
    /// From an event to `gap_us` after the last that came less than that after the one before.
    Session { gap_us: i64 },
}

/// The names under which the shown window's bounds stand in a view's expressions.
pub(super) const WINDOW_START: &str = "__window_start";
pub(super) const WINDOW_END: &str = "__window_end";

impl Pane {
    /// How far behind its end a window begins, as far as that is known.
    pub fn reach_us(self) -> i64 {
        match self {
            Pane::Hop { size_us, .. } => size_us,
            Pane::Session { gap_us } => gap_us,
        }
    }

    /// As a person writes it.
    pub fn describe(self) -> String {
        match self {
            Pane::Hop { size_us, hop_us } if size_us == hop_us => format!("TUMBLE {}", describe_duration(size_us)),
            Pane::Hop { size_us, hop_us } => {
                format!("HOP {} every {}", describe_duration(size_us), describe_duration(hop_us))
            }
            Pane::Session { gap_us } => format!("SESSION with a gap of {}", describe_duration(gap_us)),
        }
    }
}

/// The call in GROUP BY, unqualified, as the time it is over and its windows; `None`: another expression.
///
/// # Errors
/// 22023 for durations that are none, or do not fit together.
pub(super) fn pane(view: &str, expr: &Expr) -> PlanResult<Option<(Expr, Pane)>> {
    let Expr::ScalarFunction(call) = expr else { return Ok(None) };
    let durations = |what: &str| {
        let durations = call.args[1..].iter().map(|arg| duration(view, arg));
        let durations = durations.collect::<PlanResult<Vec<i64>>>()?;
        match durations.iter().all(|us| *us > 0) {
            true => Ok(durations),
            false => Err(invalid(format!("{what} of feature view \"{view}\" is not positive"))),
        }
    };
    let pane = match (call.name(), call.args.len()) {
        ("tumble", 2) => {
            let size_us = durations("TUMBLE")?[0];
            Pane::Hop { size_us, hop_us: size_us }
        }
        ("hop", 3) => {
            let both = durations("HOP")?;
            let (hop_us, size_us) = (both[0], both[1]);
            if size_us % hop_us != 0 {
                return Err(invalid(format!("HOP of feature view \"{view}\" does not divide its windows"))
                    .detail(format!("{} is no multiple of {}", describe_duration(size_us), describe_duration(hop_us)))
                    .hint("write HOP(time, hop, size), with size a multiple of hop"));
            }
            Pane::Hop { size_us, hop_us }
        }
        ("session", 2) => Pane::Session { gap_us: durations("SESSION")?[0] },
        _ => return Ok(None),
    };
    Ok(Some((call.args[0].clone(), pane)))
}

fn invalid(message: String) -> PlanError {
    PlanError::new(sqlstate::INVALID_PARAMETER, message)
}

fn duration(view: &str, expr: &Expr) -> PlanResult<i64> {
    let us = match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) if i.months == 0 => {
            i64::from(i.days).checked_mul(86_400_000_000).and_then(|days| days.checked_add(i.nanoseconds / 1_000))
        }
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(duration_us(text)?),
        Expr::Cast(cast) => return duration(view, &cast.expr),
        _ => None,
    };
    us.ok_or_else(|| {
        invalid(format!("{expr} is no window size for feature view \"{view}\""))
            .hint("write INTERVAL '5 minutes' and the like; months differ in length")
    })
}
