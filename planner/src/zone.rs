//! Where an expression needs a time zone, it is the session's (of a feature view: that of its CREATE), as in PostgreSQL.
//!
//! A `timestamptz` is held in UTC; DataFusion would take its parts, its date and its text from that. So what reads the
//! clock on the wall (`extract`, `date_trunc`, `to_char`, casts to and from types without a zone, text without an offset)
//! is given the same instant in the session's zone instead. Only types change on the way in, and back on the way out.
//!
//! On the way, times written without seconds get them, and dates with an offset get midnight: Arrow's parser wants them,
//! PostgreSQL's does not.

mod at_time_zone;
mod named;
mod wall;

pub(crate) use at_time_zone::{TIMEZONE, call_timezone, timezone};
pub use named::abbreviation;
pub(crate) use wall::INSTANT_OF;

use crate::each_expression::each_expression;
use arrow_schema::{DataType, TimeUnit};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, cast,
        expr::{Cast, ScalarFunction, TryCast},
        lit,
    },
    optimizer::AnalyzerRule,
};
use tidemark_catalog::UTC;

/// The rule for ordinary queries: the zone is the session's setting. After type coercion, which adds casts.
#[derive(Debug)]
pub struct SessionTimeZone;

impl AnalyzerRule for SessionTimeZone {
    fn name(&self) -> &str {
        "session_time_zone"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        in_zone(plan, config.execution.time_zone.as_deref().unwrap_or(UTC))
    }
}

/// A coerced plan whose expressions read the clock on the wall in `zone`.
pub fn in_zone(plan: LogicalPlan, zone: &str) -> Result<LogicalPlan> {
    each_expression(plan, |expr, schema| expression_in_zone(expr, schema, zone))
}

/// The same for one expression over `schema`.
pub fn expression_in_zone(expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Cast(Cast { expr, field }) => Ok(match through(&expr, schema, field.data_type(), zone)? {
            Some(inner) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(inner), field })),
            None => Transformed::no(Expr::Cast(Cast { expr, field })),
        }),
        Expr::TryCast(TryCast { expr, field }) => Ok(match through(&expr, schema, field.data_type(), zone)? {
            Some(inner) => Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(inner), field })),
            None => Transformed::no(Expr::TryCast(TryCast { expr, field })),
        }),
        Expr::ScalarFunction(call) if matches!(call.name(), "date_part" | "date_trunc" | "to_char") => {
            let mut zoned = false;
            let args = call.args.into_iter().map(|arg| {
                let is_instant = arg.get_type(schema)? == instant(UTC) && !is_utc(zone);
                zoned |= is_instant;
                Ok(if is_instant { cast(arg, instant(zone)) } else { arg })
            });
            let args = args.collect::<Result<Vec<_>>>()?;
            let truncates = call.func.name() == "date_trunc";
            let call = Expr::ScalarFunction(ScalarFunction { func: call.func, args });
            Ok(match zoned {
                true if truncates => Transformed::yes(cast(call, instant(UTC))),
                true => Transformed::yes(call),
                false => Transformed::no(call),
            })
        }
        other => Ok(Transformed::no(other)),
    })
}

/// What a cast from `expr` to `target` has to begin with, if a zone matters to it.
fn through(expr: &Expr, schema: &DFSchema, target: &DataType, zone: &str) -> Result<Option<Expr>> {
    let from = expr.get_type(schema)?;
    let complete = match (expr, target) {
        (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::Timestamp(_, zone)) => {
            completed(text, zone.is_some()).map(lit)
        }
        _ => None,
    };
    if is_utc(zone) {
        return Ok(complete);
    }
    let local = instant(zone);
    let inner = complete.as_ref().unwrap_or(expr).clone();
    Ok(match (&from, target) {
        (from, DataType::Timestamp(_, None)) if *from == instant(UTC) => {
            // Arrow drops the zone and keeps UTC's hours; this keeps the hours of the zone.
            let wall_of = datafusion::functions::datetime::to_local_time();
            Some(wall_of.call(vec![cast(inner, local.clone())]))
        }
        (from, DataType::Date32 | DataType::Time64(_) | DataType::Utf8) if *from == instant(UTC) => {
            Some(cast(inner, local.clone()))
        }
        (DataType::Date32 | DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
            Some(wall::instant_of(cast(inner, wall()), zone))
        }
        (DataType::Utf8, DataType::Timestamp(_, Some(_))) => Some(cast(inner, local.clone())),
        _ => complete,
    })
}

/// `2026-07-01 12:00+02` with its seconds, `2026-07-01Z` with midnight; where the type has no zone, without the offset, as
/// PostgreSQL ignores it there. `None`: there is nothing to do, or it is something else.
fn completed(text: &str, zoned: bool) -> Option<String> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked(10)?;
    let is_date =
        date.bytes().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    let time = rest.strip_prefix([' ', 'T']).filter(|time| time.starts_with(|c: char| c.is_ascii_digit()));
    let (clock, offset) = match time {
        Some(time) => {
            let end = time.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(time.len());
            time.split_at(end)
        }
        // Glued to the date, a minus sign would be one of its own.
        None if rest.starts_with('-') => return None,
        None => ("", rest.trim_start()),
    };
    let is_offset = matches!(offset.trim_start(), "Z" | "z")
        || offset
            .trim_start()
            .strip_prefix(['+', '-'])
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b':'));
    let seconds = match clock.len() {
        0 if is_offset => "00:00:00",
        5 if clock.bytes().enumerate().all(|(i, b)| (b == b':') == (i == 2)) => ":00",
        _ => "",
    };
    let offset = if is_offset && !zoned { "" } else { offset };
    let completed = format!("{date} {clock}{seconds}{offset}");
    let changes = !seconds.is_empty() || (is_offset && !zoned);
    (is_date && changes).then_some(completed)
}

/// The type of a timestamp without a zone.
pub(crate) fn wall() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn instant(zone: &str) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))
}

fn is_utc(zone: &str) -> bool {
    zone == UTC || ["utc", "etc/utc", "gmt", "+00:00"].contains(&zone.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_completed_as_arrow_wants_them() {
        for (text, expected, without_zone) in [
            ("2026-07-01 12:00", Some("2026-07-01 12:00:00"), Some("2026-07-01 12:00:00")),
            (" 2026-07-01T12:00+02 ", Some("2026-07-01 12:00:00+02"), Some("2026-07-01 12:00:00")),
            (
                "2026-07-01 12:00 Europe/Berlin",
                Some("2026-07-01 12:00:00 Europe/Berlin"),
                Some("2026-07-01 12:00:00 Europe/Berlin"),
            ),
            ("2026-07-01 12:00:00.5+02:30", None, Some("2026-07-01 12:00:00.5")),
            ("2026-07-01 12:00:00Z", None, Some("2026-07-01 12:00:00")),
            ("2026-07-01 12:00 -08", Some("2026-07-01 12:00:00 -08"), Some("2026-07-01 12:00:00")),
            ("2026-07-01Z", Some("2026-07-01 00:00:00Z"), Some("2026-07-01 00:00:00")),
            ("2026-07-01 z", Some("2026-07-01 00:00:00z"), Some("2026-07-01 00:00:00")),
            ("2026-07-01+02", Some("2026-07-01 00:00:00+02"), Some("2026-07-01 00:00:00")),
            ("2026-07-01 -02:30", Some("2026-07-01 00:00:00-02:30"), Some("2026-07-01 00:00:00")),
            ("2026-07-01-02", None, None),
            ("2026-07-01", None, None),
            ("2026-07-01 12:00:00", None, None),
            ("2026-07-01 hello", None, None),
            ("2026-07-01 12", None, None),
            ("no time at all", None, None),
            ("hello worlZ", None, None),
        ] {
            assert_eq!(completed(text, true).as_deref(), expected, "{text}");
            assert_eq!(completed(text, false).as_deref(), without_zone, "{text} without a zone");
        }
    }
}
