//! Dates, times and intervals as PostgreSQL prints them with `DateStyle` ISO and `IntervalStyle` postgres: as casts to text do
//! ([`tidemark_planner::value_text`]), in the session's zone.

use super::{SessionZone, calendar::SECOND_US};
use bytes::BytesMut;

pub(crate) use tidemark_planner::value_text::time::{Interval, write_date, write_interval, write_time};

/// In `zone` with its offset, or as it stands when the type has no zone.
pub(crate) fn write_timestamp(us: i64, zone: Option<&SessionZone>, out: &mut BytesMut) {
    let offset = zone.map(|zone| zone.offset_at(us.div_euclid(SECOND_US)));
    tidemark_planner::value_text::time::write_timestamp(us, offset, out);
}
