//! The proleptic Gregorian calendar in plain integers, for the whole range of an Arrow timestamp (chrono stops earlier).
//!
//! Days count from 1970-01-01; year 0 is 1 BC. The algorithms are the public ones on <https://howardhinnant.github.io/date_algorithms.html>.

pub(crate) use tidemark_planner::value_text::time::civil_from_days;

pub(crate) const DAY_US: i64 = 86_400_000_000;
pub(crate) const SECOND_US: i64 = 1_000_000;

/// 2000-01-01, where PostgreSQL's binary dates and timestamps start.
pub(crate) const PG_EPOCH_DAYS: i32 = 10_957;
pub(crate) const PG_EPOCH_US: i64 = PG_EPOCH_DAYS as i64 * DAY_US;

pub(crate) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = (month as i64 + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}
