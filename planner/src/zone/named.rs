//! A time zone by its name, as `AT TIME ZONE` takes it: an IANA name or an abbreviation, in any case.

use super::wall::instant_us;
use chrono::{DateTime, FixedOffset, Offset, TimeZone};
use chrono_tz::Tz;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl Zone {
    /// `None`: there is no such zone.
    pub(super) fn named(name: &str) -> Option<Zone> {
        let is = |other: &str| other.eq_ignore_ascii_case(name);
        match abbreviation(name) {
            Some(seconds) => Zone::east(seconds),
            None => chrono_tz::TZ_VARIANTS.iter().copied().find(|tz| is(tz.name())).map(Zone::Named),
        }
    }

    /// So many seconds east of Greenwich; `None`: a day or more.
    pub(super) fn east(seconds: i32) -> Option<Zone> {
        FixedOffset::east_opt(seconds).map(Zone::Fixed)
    }

    /// The instant at which clocks here show `wall_us`; `None`: out of range.
    pub(super) fn instant(self, wall_us: i64) -> Option<i64> {
        match self {
            Zone::Fixed(zone) => instant_us(wall_us, &zone),
            Zone::Named(zone) => instant_us(wall_us, &zone),
        }
    }

    /// What clocks here show at an instant; `None`: out of range.
    pub(super) fn wall(self, instant_us: i64) -> Option<i64> {
        let utc = DateTime::from_timestamp_micros(instant_us)?.naive_utc();
        let offset = match self {
            Zone::Fixed(zone) => zone,
            Zone::Named(zone) => zone.offset_from_utc_datetime(&utc).fix(),
        };
        instant_us.checked_add(i64::from(offset.local_minus_utc()) * 1_000_000)
    }
}

/// What an abbreviation means, in any case: seconds east of Greenwich.
pub fn abbreviation(name: &str) -> Option<i32> {
    ABBREVIATIONS.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map(|(_, hours)| hours * 3600)
}

/// The abbreviations of PostgreSQL's default set that people write, in hours east, in summer as in winter.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("UT", 0),
    ("Z", 0),
    ("AST", -4),
    ("ADT", -3),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
    ("AKST", -9),
    ("AKDT", -8),
    ("HST", -10),
    ("WET", 0),
    ("WEST", 1),
    ("BST", 1),
    ("CET", 1),
    ("CEST", 2),
    ("EET", 2),
    ("EEST", 3),
    ("MSK", 3),
    ("JST", 9),
    ("KST", 9),
    ("AEST", 10),
    ("AEDT", 11),
    ("NZST", 12),
    ("NZDT", 13),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn zones_are_read_as_postgresql_reads_them() {
        // Answers of PostgreSQL 15: SELECT timestamptz '2026-07-01 12:00Z' AT TIME ZONE '…'.
        for (name, shown) in [
            ("UTC", "2026-07-01T12:00:00Z"),
            ("z", "2026-07-01T12:00:00Z"),
            ("europe/berlin", "2026-07-01T14:00:00Z"),
            ("CET", "2026-07-01T13:00:00Z"),
            ("est", "2026-07-01T07:00:00Z"),
            ("EST5EDT", "2026-07-01T08:00:00Z"),
            ("Asia/Kolkata", "2026-07-01T17:30:00Z"),
        ] {
            let zone = Zone::named(name).unwrap_or_else(|| panic!("{name} is a zone"));
            assert_eq!(zone.wall(us("2026-07-01T12:00:00Z")), Some(us(shown)), "{name}");
            assert_eq!(zone.instant(us(shown)), Some(us("2026-07-01T12:00:00Z")), "{name}");
        }
        assert_eq!(Zone::named("Nope/X"), None);
        assert_eq!(Zone::named(""), None);
        assert_eq!(Zone::named("+05:30"), None);
        assert_eq!(Zone::east(86_400), None);
    }
}
