//! Dates, times and intervals as PostgreSQL prints them with `DateStyle` ISO and `IntervalStyle` postgres.
//!
//! For the whole range of an Arrow timestamp, where chrono stops earlier.

use super::number::{put, write_int, write_padded};
use std::fmt::Write;

const DAY_US: i64 = 86_400_000_000;
const SECOND_US: i64 = 1_000_000;

/// PostgreSQL's interval: three counts that do not carry into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub us: i64,
}

fn write_ymd(days: i64, out: &mut impl Write) -> bool {
    let (year, month, day) = civil_from_days(days);
    let bc = year <= 0;
    write_padded(if bc { 1 - year } else { year } as u64, 4, out);
    put("-", out);
    put_two(month, out);
    put("-", out);
    put_two(day, out);
    bc
}

fn put_two(value: u32, out: &mut impl Write) {
    write_padded((value % 100).into(), 2, out);
}

/// So many days since 1970-01-01.
pub fn write_date(days: i32, out: &mut impl Write) {
    match days {
        i32::MAX => put("infinity", out),
        i32::MIN => put("-infinity", out),
        _ => {
            if write_ymd(days as i64, out) {
                put(" BC", out);
            }
        }
    }
}

/// A time of day, or the time part of an interval (its hours may have more than two digits).
pub fn write_time(us: u64, out: &mut impl Write) {
    let seconds = us / SECOND_US as u64;
    write_padded(seconds / 3600, 2, out);
    put(":", out);
    put_two((seconds / 60 % 60) as u32, out);
    put(":", out);
    put_two((seconds % 60) as u32, out);
    let mut fraction = us % SECOND_US as u64;
    if fraction != 0 {
        let mut width = 6;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        put(".", out);
        write_padded(fraction, width, out);
    }
}

/// With its offset, seconds east of Greenwich, or as it stands when the type has no zone.
pub fn write_timestamp(us: i64, zone: Option<i32>, out: &mut impl Write) {
    match us {
        i64::MAX => return put("infinity", out),
        i64::MIN => return put("-infinity", out),
        _ => {}
    }
    let offset = zone.unwrap_or(0);
    // Days and time apart, so that no offset can overflow at the ends of the range.
    let mut days = us.div_euclid(DAY_US);
    let time = us.rem_euclid(DAY_US) + offset as i64 * SECOND_US;
    days += time.div_euclid(DAY_US);
    let bc = write_ymd(days, out);
    put(" ", out);
    write_time(time.rem_euclid(DAY_US) as u64, out);
    if zone.is_some() {
        let seconds = offset.unsigned_abs();
        put(if offset < 0 { "-" } else { "+" }, out);
        put_two(seconds / 3600 % 100, out);
        if !seconds.is_multiple_of(3600) {
            put(":", out);
            put_two(seconds / 60 % 60, out);
        }
        if !seconds.is_multiple_of(60) {
            put(":", out);
            put_two(seconds % 60, out);
        }
    }
    if bc {
        put(" BC", out);
    }
}

/// `IntervalStyle = postgres`: a field after a negative one carries its `+`.
pub fn write_interval(value: Interval, out: &mut impl Write) {
    let mut empty = true;
    let mut after_negative = false;
    for (count, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count == 0 {
            continue;
        }
        if !empty {
            put(" ", out);
        }
        if after_negative && count > 0 {
            put("+", out);
        }
        write_int(count as i64, out);
        put(" ", out);
        put(unit, out);
        if count != 1 {
            put("s", out);
        }
        empty = false;
        after_negative = count < 0;
    }
    if empty || value.us != 0 {
        if !empty {
            put(" ", out);
        }
        if value.us < 0 {
            put("-", out);
        } else if after_negative {
            put("+", out);
        }
        write_time(value.us.unsigned_abs(), out);
    }
}

/// Year (0 is 1 BC), month and day of so many days since 1970-01-01, in the proleptic Gregorian calendar; the algorithm is the
/// public one on <https://howardhinnant.github.io/date_algorithms.html>.
#[must_use]
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
