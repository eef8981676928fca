//! From the clock on the wall to the instant: a `timestamp` read in a time zone.
//!
//! As a function and not as a cast, because the optimiser moves casts between the sides of a comparison
//! (`wall::timestamptz > constant`), and would take the constant's hours for UTC's.

use super::instant;
use arrow::{
    array::{AsArray, TimestampMicrosecondArray},
    datatypes::TimestampMicrosecondType,
};
use arrow_schema::DataType;
use chrono::{DateTime, Duration, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use datafusion::{
    common::exec_datafusion_err,
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
    },
};
use std::sync::Arc;
use tidemark_catalog::UTC;

/// The instant at which clocks in `zone` show `wall`, a timestamp in microseconds.
pub(super) fn instant_of(wall: Expr, zone: &str) -> Expr {
    ScalarUDF::from(InstantOf::new(zone)).call(vec![wall])
}

/// The name under which it stands in a plan; its one argument is the timestamp.
pub(crate) const INSTANT_OF: &str = "instant_of";

#[derive(Debug, PartialEq, Eq, Hash)]
struct InstantOf {
    zone: Arc<str>,
    signature: Signature,
}

impl InstantOf {
    fn new(zone: &str) -> Self {
        let argument = TypeSignature::Exact(vec![super::wall()]);
        InstantOf { zone: zone.into(), signature: Signature::new(argument, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for InstantOf {
    fn name(&self) -> &str {
        INSTANT_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(instant(UTC))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone: arrow::array::timezone::Tz = self.zone.parse()?;
        let walls = ColumnarValue::values_to_arrays(&arguments.args)?;
        let walls = walls[0].as_primitive::<TimestampMicrosecondType>();
        let instants: TimestampMicrosecondArray = walls.try_unary(|wall| {
            instant_us(wall, &zone).ok_or_else(|| exec_datafusion_err!("timestamp out of range: {wall} microseconds"))
        })?;
        Ok(ColumnarValue::Array(Arc::new(instants.with_timezone(UTC))))
    }
}

/// Where clocks are put forward, a time they skip is read by the clock before; where they are put back, a time they show
/// twice is the second (PostgreSQL's `DetermineTimeZoneOffset`).
pub(super) fn instant_us<Z: TimeZone>(wall_us: i64, zone: &Z) -> Option<i64> {
    /// No zone has moved its clocks by more than a day.
    const HOURS_AROUND_A_CHANGE: i64 = 25;
    let wall = DateTime::from_timestamp_micros(wall_us)?.naive_utc();
    let offset = |wall: &NaiveDateTime| match zone.offset_from_local_datetime(wall) {
        MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(_, offset) => Some(offset.fix()),
        MappedLocalTime::None => None,
    };
    let offset =
        (0..=HOURS_AROUND_A_CHANGE).find_map(|hours| offset(&wall.checked_sub_signed(Duration::hours(hours))?))?;
    wall_us.checked_sub(i64::from(offset.local_minus_utc()) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_clocks_skip_or_show_twice_are_read_as_postgresql_reads_them() {
        // Answers of PostgreSQL 15: SELECT timestamp '…' AT TIME ZONE '…'.
        let cases = [
            ("America/New_York", "2026-07-01 12:00:00", "2026-07-01T16:00:00Z"),
            ("America/New_York", "2026-03-08 01:59:59", "2026-03-08T06:59:59Z"),
            ("America/New_York", "2026-03-08 02:30:00", "2026-03-08T07:30:00Z"),
            ("America/New_York", "2026-03-08 03:00:00", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-11-01 01:30:00", "2026-11-01T06:30:00Z"),
            ("Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25T01:30:00Z"),
            ("Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30T22:00:00Z"),
            ("+05:30", "2026-07-01 12:00:00", "2026-07-01T06:30:00Z"),
        ];
        for (zone, wall, expected) in cases {
            let zone: arrow::array::timezone::Tz = zone.parse().unwrap();
            let wall_us = wall
                .parse::<NaiveDateTime>()
                .unwrap_or_else(|_| NaiveDateTime::parse_from_str(wall, "%Y-%m-%d %H:%M:%S").unwrap());
            let found = instant_us(wall_us.and_utc().timestamp_micros(), &zone).unwrap();
            let expected = DateTime::parse_from_rfc3339(expected).unwrap().timestamp_micros();
            assert_eq!(found, expected, "{wall}");
        }
    }
}
