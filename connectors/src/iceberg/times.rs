//! Times of a history table that do not go back, whatever the clock does. The iceberg crate stamps a commit with the wall
//! clock and refuses one that lies more than a minute before the table's last: after the clock was set back, no step would
//! become history until it has caught up. So the crate is shown the table with all its times so much earlier that none lies
//! ahead of the clock, and what it makes of it gets them back; a commit then comes right after the one before.
//!
//! ```text
//!   the table   17:30  17:31          clock set back to 14:31: 3 h ahead
//!   shown       14:30  14:31
//!   made of it  14:30  14:31  14:31
//!   committed   17:30  17:31  17:31
//! ```

use iceberg::{Error, ErrorKind, Result, spec::TableMetadata};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds by which the table's last time lies ahead of the wall clock; 0 where it does not.
#[allow(
    clippy::disallowed_methods,
    reason = "the crate reads the wall clock itself; this is to know what it will find"
)]
pub fn ahead_ms(metadata: &TableMetadata) -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let last_ms = metadata.history().last().map_or(i64::MIN, |log| log.timestamp_ms).max(metadata.last_updated_ms());
    last_ms.saturating_sub(i64::try_from(wall).unwrap_or(i64::MAX)).max(0)
}

/// The same with all its times `by_ms` later, or earlier where that is negative.
///
/// # Errors
/// It is no metadata any more: a mistake of the program.
pub fn later(metadata: &TableMetadata, by_ms: i64) -> Result<TableMetadata> {
    let failed = |error: serde_json::Error| {
        Error::new(ErrorKind::Unexpected, "a table's times cannot be moved").with_source(error)
    };
    let mut json = serde_json::to_value(metadata).map_err(failed)?;
    let shift = |time: Option<&mut Value>| {
        if let Some(time) = time
            && let Some(ms) = time.as_i64()
        {
            *time = Value::from(ms.saturating_add(by_ms));
        }
    };
    shift(json.get_mut("last-updated-ms"));
    for list in ["snapshots", "snapshot-log", "metadata-log"] {
        let entries = json.get_mut(list).and_then(Value::as_array_mut);
        entries.into_iter().flatten().for_each(|entry| shift(entry.get_mut("timestamp-ms")));
    }
    serde_json::from_value(json).map_err(failed)
}
