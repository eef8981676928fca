//! Calendar months in UTC: at each of their starts a live key repeats its row.

/// The start of the calendar month (UTC) that `at_us` lies in.
pub fn month_start(at_us: i64) -> i64 {
    let (year, month) = year_month(at_us);
    days_from_civil(year, month) * DAY_US
}

/// The first month start after `at_us`.
pub fn next_month(at_us: i64) -> i64 {
    let (year, month) = year_month(at_us);
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_civil(year, month).saturating_mul(DAY_US)
}

const DAY_US: i64 = 86_400_000_000;

/// Proleptic Gregorian calendar, by Howard Hinnant's `civil_from_days`.
fn year_month(at_us: i64) -> (i64, i64) {
    let z = at_us.div_euclid(DAY_US) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month)
}

/// Days from 1970-01-01 to the first of the month.
fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (at, start, next) in [
            (0, 0, 31 * DAY_US),
            (-1, -31 * DAY_US, 0),
            (1_358_000_000_000_000, 1_356_998_400_000_000, 1_359_676_800_000_000),
            (951_782_400_000_000, 949_363_200_000_000, 951_868_800_000_000), // 29 February 2000
        ] {
            assert_eq!((month_start(at), next_month(at)), (start, next), "{at}");
            assert_eq!(month_start(next), next);
        }
    }

    /// The obvious way: month after month, with the rule for leap years.
    #[test]
    fn eight_centuries_of_months_have_the_days_they_have() {
        let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = |year: i64, month: usize| match month {
            1 => 28 + i64::from(is_leap(year)),
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        };
        let of_year = |year: i64| 365 + i64::from(is_leap(year));
        let mut start = -(1570..1970).map(of_year).sum::<i64>() * DAY_US;
        for year in 1570..2370 {
            for month in 0..12 {
                let next = start + days(year, month) * DAY_US;
                for at in [start, start + 1, start + DAY_US, start + 14 * DAY_US, next - DAY_US, next - 1] {
                    assert_eq!((month_start(at), next_month(at)), (start, next), "{at} in month {month} of {year}");
                }
                start = next;
            }
        }
    }

    #[test]
    fn the_last_month_of_all_does_not_end() {
        assert_eq!(next_month(i64::MAX), i64::MAX);
    }
}
