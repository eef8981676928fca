//! Times and intervals made of their parts, and of one another: `make_date`, `make_timestamp`, `make_time`, `make_interval`, `age`,
//! `justify_days` and its like, `isfinite`.
//!
//! Those that read a clock on the wall are given one: `make_timestamptz` is a cast of `make_timestamp` (`spelled.rs`), and `age` takes
//! what a clock in the session's zone shows.

use super::by_row::{ByRow, exactly, float, int, no_match};
use crate::{PlanError, PlanResult, error::sqlstate, zone::wall};
use arrow::datatypes::IntervalMonthDayNano;
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use datafusion::{common::ScalarValue, logical_expr::ScalarUDF};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
const DAY_NS: i64 = DAY_US * 1_000;

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    const WHOLE: DataType = DataType::Int64;
    const DOUBLE: DataType = DataType::Float64;
    let made = [
        // DataFusion's knows a year 0, and no years before it.
        ByRow::strict(
            "make_date",
            |types| exactly("make_date", types, &[WHOLE, WHOLE, WHOLE]),
            DataType::Date32,
            |args, _| {
                let date = date(int(&args[0]), int(&args[1]), int(&args[2]))?;
                Ok(ScalarValue::Date32(Some(date.to_epoch_days())))
            },
        ),
        ByRow::strict(
            "make_timestamp",
            |types| exactly("make_timestamp", types, &[WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, DOUBLE]),
            wall(),
            |args, _| {
                let date = date(int(&args[0]), int(&args[1]), int(&args[2]))?;
                let us = time_us(int(&args[3]), int(&args[4]), float(&args[5]))?;
                let midnight = date.and_time(NaiveTime::MIN).and_utc().timestamp_micros();
                Ok(ScalarValue::TimestampMicrosecond(Some(midnight + us), None))
            },
        ),
        ByRow::strict(
            "make_time",
            |types| exactly("make_time", types, &[WHOLE, WHOLE, DOUBLE]),
            TIME,
            |args, _| {
                let us = time_us(int(&args[0]), int(&args[1]), float(&args[2]))?;
                Ok(ScalarValue::Time64Microsecond(Some(us)))
            },
        ),
        ByRow::strict(
            "make_interval",
            |types| exactly("make_interval", types, &[WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, DOUBLE]),
            INTERVAL,
            |args, _| {
                let parts: Vec<i64> = args[..6].iter().map(int).collect();
                let made = interval(&parts, float(&args[6])).ok_or_else(interval_out_of_range)?;
                Ok(ScalarValue::IntervalMonthDayNano(Some(made)))
            },
        ),
        ByRow::strict(
            "age",
            |types| exactly("age", types, &[wall(), wall()]),
            INTERVAL,
            |args, _| {
                let [until, since] = [clock(&args[0])?, clock(&args[1])?];
                Ok(ScalarValue::IntervalMonthDayNano(Some(age(until, since))))
            },
        ),
        ByRow::strict("isfinite", can_be_infinite, DataType::Boolean, |args, _| {
            let is_infinite = match &args[0] {
                ScalarValue::Date32(Some(days)) => matches!(*days, i32::MIN | i32::MAX),
                ScalarValue::TimestampMicrosecond(Some(us), _) => matches!(*us, i64::MIN | i64::MAX),
                _ => false,
            };
            Ok(ScalarValue::Boolean(Some(!is_infinite)))
        }),
    ];
    let justified = [
        ByRow::strict(
            "justify_hours",
            |types| exactly("justify_hours", types, &[INTERVAL]),
            INTERVAL,
            |args, _| justified(&args[0], true, false),
        ),
        ByRow::strict(
            "justify_days",
            |types| exactly("justify_days", types, &[INTERVAL]),
            INTERVAL,
            |args, _| justified(&args[0], false, true),
        ),
        ByRow::strict(
            "justify_interval",
            |types| exactly("justify_interval", types, &[INTERVAL]),
            INTERVAL,
            |args, _| justified(&args[0], true, true),
        ),
    ];
    made.into_iter().chain(justified)
}

fn can_be_infinite(types: &[DataType]) -> datafusion::error::Result<Vec<DataType>> {
    match types {
        [ty @ (DataType::Date32 | DataType::Interval(_))] => Ok(vec![ty.clone()]),
        [DataType::Timestamp(_, zone)] => Ok(vec![DataType::Timestamp(TimeUnit::Microsecond, zone.clone())]),
        [DataType::Null | DataType::Utf8] => Ok(vec![wall()]),
        _ => no_match("isfinite", types),
    }
}

/// Years before the first are counted from -1, as PostgreSQL writes them; there is none of 0.
fn date(year: i64, month: i64, day: i64) -> PlanResult<NaiveDate> {
    let found = || {
        let year = i32::try_from(if year < 0 { year.checked_add(1)? } else { year }).ok()?;
        NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
    };
    found().filter(|_| year != 0).ok_or_else(|| {
        let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
        PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, message)
    })
}

/// Since midnight, which the day may also end with; the minute may end with its sixtieth second.
fn time_us(hour: i64, minute: i64, second: f64) -> PlanResult<i64> {
    let is_time = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    let us = is_time.then(|| (hour * 60 + minute) * 60 * SECOND_US + (second * 1e6).round() as i64);
    us.filter(|us| *us <= DAY_US).ok_or_else(|| {
        let message = format!("time field value out of range: {hour}:{minute:02}:{second:02}");
        PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, message)
    })
}

/// Of years, months, weeks, days, hours and minutes, and of seconds.
fn interval(parts: &[i64], seconds: f64) -> Option<IntervalMonthDayNano> {
    let [years, months, weeks, days, hours, minutes] = parts else { return None };
    let months = i32::try_from(years.checked_mul(12)?.checked_add(*months)?).ok()?;
    let days = i32::try_from(weeks.checked_mul(7)?.checked_add(*days)?).ok()?;
    let us = (seconds * 1e6).round();
    // Nanoseconds in 64 bits end before that.
    if !us.is_finite() || us.abs() > 9e15 {
        return None;
    }
    let whole_us = hours.checked_mul(60)?.checked_add(*minutes)?.checked_mul(60 * SECOND_US)?;
    let ns = whole_us.checked_add(us as i64)?.checked_mul(1_000)?;
    Some(IntervalMonthDayNano::new(months, days, ns))
}

fn interval_out_of_range() -> PlanError {
    PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, "interval out of range")
}

fn clock(value: &ScalarValue) -> PlanResult<NaiveDateTime> {
    let us = match value {
        ScalarValue::TimestampMicrosecond(Some(us), _) => Some(*us),
        _ => None,
    };
    let time = us.filter(|us| !matches!(*us, i64::MIN | i64::MAX)).and_then(DateTime::from_timestamp_micros);
    let out_of_range = || PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, "timestamp out of range");
    Ok(time.ok_or_else(out_of_range)?.naive_utc())
}

/// Years, months, days and time, each counted by itself. What a difference of days borrows is the month of the earlier time.
///
/// ```text
/// 31 January 2025 ─▶ 1 March 2026      1 year 2 months -30 days      1 year 1 month and, with January's 31, 1 day
/// ```
fn age(until: NaiveDateTime, since: NaiveDateTime) -> IntervalMonthDayNano {
    let (later, earlier, sign) = if until < since { (since, until, -1) } else { (until, since, 1) };
    let months_of = |time: NaiveDateTime| time.year() * 12 + time.month0().cast_signed();
    let us_of = |time: NaiveDateTime| {
        i64::from(time.num_seconds_from_midnight()) * SECOND_US + i64::from(time.nanosecond() / 1_000)
    };
    let mut months = months_of(later) - months_of(earlier);
    let mut days = later.day().cast_signed() - earlier.day().cast_signed();
    let mut us = us_of(later) - us_of(earlier);
    if us < 0 {
        us += DAY_US;
        days -= 1;
    }
    while days < 0 {
        days += days_in_month(earlier);
        months -= 1;
    }
    IntervalMonthDayNano::new(sign * months, sign * days, i64::from(sign) * us * 1_000)
}

fn days_in_month(time: NaiveDateTime) -> i32 {
    match time.month() {
        2 if time.date().leap_year() => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// 24 hours as a day, 30 days as a month, and all of one sign.
fn justified(value: &ScalarValue, hours: bool, days: bool) -> PlanResult<ScalarValue> {
    let ScalarValue::IntervalMonthDayNano(Some(of)) = value else {
        return Err(PlanError::new(sqlstate::INTERNAL, format!("{value} is no interval")));
    };
    let (mut month, mut day, mut ns) = (i64::from(of.months), i64::from(of.days), of.nanoseconds);
    if hours {
        day += ns / DAY_NS;
        ns %= DAY_NS;
    }
    if days {
        month += day / 30;
        day %= 30;
        // With hours, what is left of a day has a sign, too.
        let rest = if day == 0 && hours { ns.signum() } else { day.signum() };
        if month > 0 && rest < 0 {
            (month, day) = (month - 1, day + 30);
        } else if month < 0 && rest > 0 {
            (month, day) = (month + 1, day - 30);
        }
    }
    if hours && day > 0 && ns < 0 {
        (day, ns) = (day - 1, ns + DAY_NS);
    } else if hours && day < 0 && ns > 0 {
        (day, ns) = (day + 1, ns - DAY_NS);
    }
    let made = || Some(IntervalMonthDayNano::new(i32::try_from(month).ok()?, i32::try_from(day).ok()?, ns));
    Ok(ScalarValue::IntervalMonthDayNano(Some(made().ok_or_else(interval_out_of_range)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").expect("a time")
    }

    /// As PostgreSQL 15 computes them.
    #[test]
    fn an_age_is_counted_in_years_months_days_and_time() {
        for (until, since, expected) in [
            ("2026-03-01 00:00", "2025-01-31 00:00", (13, 1, 0)),
            ("2025-01-31 00:00", "2026-03-01 12:00", (-13, -1, -12)),
            ("2026-03-31 00:00", "2026-02-28 00:00", (1, 3, 0)),
            ("2026-01-01 01:00", "2025-12-31 23:00", (0, 0, 2)),
            ("2026-03-01 00:00", "2026-01-31 01:00", (1, 0, 23)),
            ("2024-02-29 00:00", "2024-02-29 00:00", (0, 0, 0)),
        ] {
            let age = age(at(until), at(since));
            assert_eq!((age.months, age.days, age.nanoseconds / 3_600_000_000_000), expected, "{until} {since}");
        }
    }

    #[test]
    fn an_interval_is_justified_with_one_sign() {
        let of = |months, days, hours: i64| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, hours * 3_600_000_000_000)))
        };
        for (value, hours, days, expected) in [
            (of(0, 35, 0), false, true, of(1, 5, 0)),
            (of(0, 0, 27), true, false, of(0, 1, 3)),
            (of(1, 0, -1), true, true, of(0, 29, 23)),
            (of(1, -40, 0), false, true, of(0, -10, 0)),
            (of(-1, 10, 0), false, true, of(0, -20, 0)),
            (of(0, 2, -30), true, false, of(0, 0, 18)),
        ] {
            assert_eq!(justified(&value, hours, days).expect("it fits"), expected, "{value}");
        }
    }

    #[test]
    fn parts_that_make_no_time_are_refused() {
        assert!(date(2026, 2, 29).is_err() && date(0, 1, 1).is_err() && date(2024, 2, 29).is_ok());
        assert_eq!(date(-44, 3, 15).expect("a date").year(), -43);
        assert!(time_us(24, 0, 0.5).is_err() && time_us(1, 60, 0.0).is_err() && time_us(1, 1, f64::NAN).is_err());
        assert_eq!(time_us(4, 5, 6.5).expect("a time"), 14_706_500_000);
        assert!(interval(&[0, 0, 0, 0, 0, 0], f64::INFINITY).is_none());
        assert!(interval(&[i64::MAX, 0, 0, 0, 0, 0], 0.0).is_none());
    }
}
