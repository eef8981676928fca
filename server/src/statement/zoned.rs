//! Times without a zone in a query's literals are in the session's time zone, as in PostgreSQL; DataFusion would read
//! them as UTC. `timestamptz '2026-07-01 12:00'` and `'…'::timestamptz` get their offset before they are bound.

use crate::wire::{SessionZone, parse_text::parse_timestamptz};
use datafusion::sql::sqlparser::ast::{self, DataType, Expr, TimezoneInfo, Value};
use std::ops::ControlFlow;

/// Writes the instants of the query's `timestamptz` literals out in UTC. What cannot be read is left for the binder to
/// refuse.
pub fn localise(query: &mut ast::Query, zone: &SessionZone) {
    let _ = ast::visit_expressions_mut(query, |expr| {
        let value = match expr {
            Expr::TypedString(typed) if is_timestamptz(&typed.data_type) => &mut typed.value.value,
            Expr::Cast { expr, data_type, .. } if is_timestamptz(data_type) => match expr.as_mut() {
                Expr::Value(value) => &mut value.value,
                _ => return ControlFlow::<()>::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        if let Value::SingleQuotedString(text) = value
            && let Ok(us) = parse_timestamptz(text, zone)
            && let Some(instant) = chrono::DateTime::from_timestamp_micros(us)
        {
            *text = instant.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        }
        ControlFlow::Continue(())
    });
}

fn is_timestamptz(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone))
}
