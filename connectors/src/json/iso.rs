//! Times as ISO 8601 writes them with fixed widths, by arithmetic on a word: `2026-11-01`, `2026-11-01T12:00:00.123Z`.
//!
//! Only what has this form and is a time is read; whatever else somebody may write is left to Arrow's parser, which reads these the same.

use super::word::{At, TENS, byte, digits, word};

const DAY_US: i64 = 86_400_000_000;

/// A string `"2026-11-01"` from its first character on: days since 1970, and where its quote is.
#[inline]
pub(super) fn date(bytes: &[u8], at: At) -> Option<(i32, At)> {
    let days = days(bytes, at)?;
    if byte(bytes, at + 10) == b'"' { Some((days as i32, at + 10)) } else { None }
}

/// A string `"2026-11-01 12:00:00.123+01:00"` from its first character on: microseconds since 1970 in UTC, and where its quote is. `T` may be
/// for the blank; the fraction (up to nanoseconds, of which microseconds are kept) and the zone (`Z` too) may be missing.
#[inline]
pub(super) fn timestamp(bytes: &[u8], at: At) -> Option<(i64, At)> {
    let days = days(bytes, at)?;
    // "DDTHH:MM" and ":SS" with what follows.
    let [_, _, between, h1, h0, colon, m1, m0] = word(bytes, at + 8).to_le_bytes();
    let [second_colon, s1, s0, ..] = word(bytes, at + 16).to_le_bytes();
    let (hour, minute, second) = (two(h1, h0)?, two(m1, m0)?, two(s1, s0)?);
    if !matches!(between, b'T' | b' ') || colon != b':' || second_colon != b':' {
        return None;
    }
    // 24:00 and leap seconds are Arrow's to judge.
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut end = at + 19;
    let mut us = days * DAY_US + ((hour * 60 + minute) * 60 + second) * 1_000_000;
    if byte(bytes, end) == b'.' {
        let (fraction, count) = digits(bytes, end + 1)?;
        us += match count {
            1..=6 => fraction * TENS[6 - count as usize],
            7..=9 => fraction / TENS[count as usize - 6],
            _ => return None,
        } as i64;
        end += 1 + count;
    }
    match byte(bytes, end) {
        b'Z' => end += 1,
        sign @ (b'+' | b'-') => {
            let [_, h1, h0, colon, m1, m0, ..] = word(bytes, end).to_le_bytes();
            let (hour, minute) = (two(h1, h0)?, two(m1, m0)?);
            if colon != b':' || hour > 23 || minute > 59 {
                return None;
            }
            let east = (hour * 60 + minute) * 60_000_000;
            us -= if sign == b'+' { east } else { -east };
            end += 6;
        }
        _ => {}
    }
    if byte(bytes, end) == b'"' { Some((us, end)) } else { None }
}

/// Two digits.
#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens < 10 && ones < 10 { Some(i64::from(tens * 10 + ones)) } else { None }
}

/// `YYYY-MM-DD`, a day that there is, as days since 1970.
#[inline]
fn days(bytes: &[u8], at: At) -> Option<i64> {
    let [y3, y2, y1, y0, dash, m1, m0, second_dash] = word(bytes, at).to_le_bytes();
    let [d1, d0, ..] = word(bytes, at + 8).to_le_bytes();
    let (year, month, day) = (two(y3, y2)? * 100 + two(y1, y0)?, two(m1, m0)?, two(d1, d0)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if dash != b'-' || second_dash != b'-' || !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin with March end with their leap day; 153 days are five months from March or August on.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between the first of March of year 0 and 1970.
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        compute::kernels::cast_utils::{Parser, string_to_datetime},
        datatypes::Date32Type,
    };
    use chrono::Utc;
    use proptest::prelude::*;

    /// What is read here is what Arrow reads; says whether it is.
    fn check(text: &str) -> bool {
        let quoted = format!("{text}\"");
        let found = timestamp(quoted.as_bytes(), 0);
        if let Some((us, end)) = found {
            assert_eq!(end as usize, text.len(), "{text}");
            assert_eq!(string_to_datetime(&Utc, text).ok().map(|at| at.timestamp_micros()), Some(us), "{text}");
        }
        if let Some((days, end)) = date(quoted.as_bytes(), 0) {
            assert_eq!((end as usize, Date32Type::parse(text)), (text.len(), Some(days)), "{text}");
            return true;
        }
        found.is_some()
    }

    #[test]
    fn what_is_usual_is_read_and_the_rest_left_to_arrow() {
        let read = [
            "2026-11-01",
            "0000-02-29",
            "9999-12-31",
            "2026-11-01T12:00:00Z",
            "2026-11-01 12:00:00",
            "1969-12-31T23:59:59.999999999Z",
            "2026-11-01T12:00:00.1",
            "2026-11-01T12:00:00.123456-23:59",
            "2024-02-29T00:00:00+05:30",
        ];
        for text in read {
            assert!(check(text), "{text}");
        }
        let left = [
            "2026-11-1",
            "2025-02-29",
            "1900-02-29",
            "2026-13-01",
            "2026-11-00",
            "2026-11-01T24:00:00",
            "2026-11-01T12:00:60Z",
            "2026-11-01T12:00",
            "2026-11-01T12:00:00.Z",
            "2026-11-01T12:00:00.1234567890Z",
            "2026-11-01T12:00:00 Z",
            "2026-11-01T12:00:00+01",
            "2026-11-01T12:00:00ZZ",
            "2026-11-01x12:00:00Z",
            "2026:11-01",
            "+2026-11-01",
            "",
            "2026-1/-01",
            "2026-11-01T12:0:00:0",
        ];
        for text in left {
            assert!(!check(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_day_and_time_is_arrows(
            year in 0..10_000, month in 0..14, day in 0..33, hour in 0..25, minute in 0..61, second in 0..62,
            fraction in "(\\.[0-9]{1,10})?", zone in "(Z|[+-][0-2][0-9]:[0-6][0-9])?", between in "[T ]"
        ) {
            let date = format!("{year:04}-{month:02}-{day:02}");
            check(&date);
            check(&format!("{date}{between}{hour:02}:{minute:02}:{second:02}{fraction}{zone}"));
        }
    }
}
