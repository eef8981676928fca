//! Durations of fixed length, in microseconds: a day is 24 hours, and months and years, which have no fixed length,
//! are refused.

use crate::{PlanError, PlanResult, error::sqlstate};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Microseconds of a duration such as `5 minutes`, `30 days`, `1 day 02:00:00`, `500 ms` or `1.5 h`; never negative.
pub fn duration_us(text: &str) -> PlanResult<i64> {
    let invalid = || {
        PlanError::new(sqlstate::INVALID_PARAMETER, format!("invalid duration \"{text}\""))
            .hint("write a number and a unit, such as '5 minutes', '30 days' or '1 day 02:00:00'")
    };
    let mut total: i128 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        if rest.starts_with('-') {
            return Err(PlanError::new(sqlstate::INVALID_PARAMETER, format!("duration \"{text}\" is negative"))
                .hint("leave the minus sign out"));
        }
        rest = rest.strip_prefix('+').unwrap_or(rest);
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.' || c == ':');
        if number.contains(':') {
            total += clock_us(number).ok_or_else(invalid)?;
            rest = after.trim_start();
        } else {
            let (unit, after) = split(after.trim_start(), |c| c.is_alphabetic() || c == 'µ');
            let unit_us = match unit_us(&unit.to_lowercase()) {
                Unit::Fixed(us) => us,
                Unit::Calendar => {
                    return Err(PlanError::new(
                        sqlstate::INVALID_PARAMETER,
                        format!("duration \"{text}\" has no fixed length"),
                    )
                    .hint("months and years differ in length: give it in days, such as '30 days'"));
                }
                Unit::Unknown => return Err(invalid()),
            };
            total += scaled(number, unit_us).ok_or_else(invalid)?;
            rest = after.trim_start();
        }
        if total > i64::MAX as i128 {
            return Err(PlanError::new("22008", format!("duration \"{text}\" is out of range")));
        }
    }
    i64::try_from(total).map_err(|_| invalid())
}

enum Unit {
    Fixed(i64),
    Calendar,
    Unknown,
}

fn unit_us(unit: &str) -> Unit {
    Unit::Fixed(match unit {
        "us" | "µs" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" => 1,
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => 1000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => 7 * DAY,
        "mon" | "mons" | "month" | "months" | "quarter" | "quarters" | "y" | "yr" | "yrs" | "year" | "years"
        | "decade" | "decades" | "century" | "centuries" | "millennium" | "millennia" => return Unit::Calendar,
        _ => return Unit::Unknown,
    })
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A decimal number of units, exact to the microsecond (what is below it is cut off).
fn scaled(number: &str, unit_us: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.len() > 18 {
        return None;
    }
    let digits = |s: &str| if s.is_empty() { Some(0) } else { s.parse::<u64>().ok() };
    let unit = unit_us as i128;
    Some(digits(whole)? as i128 * unit + digits(fraction)? as i128 * unit / 10i128.pow(fraction.len() as u32))
}

/// `02:00`, `02:00:00` or `02:00:00.5`
fn clock_us(text: &str) -> Option<i128> {
    let mut parts = text.split(':');
    let hours: u32 = parts.next()?.parse().ok()?;
    let minutes: u32 = parts.next()?.parse().ok()?;
    let seconds = parts.next().unwrap_or("0");
    let seconds_us = scaled(seconds, SECOND)?;
    if minutes > 59 || seconds_us >= MINUTE as i128 || parts.next().is_some() {
        return None;
    }
    Some(hours as i128 * HOUR as i128 + minutes as i128 * MINUTE as i128 + seconds_us)
}
