//! What streams in: row `n` is a pure function of `n`, so that whoever reads it back knows what it must be.

use std::fmt::Write;

/// 2026-03-31 23:50:00 UTC: a month begins within the first rounds, and keys that are quiet then repeat their row.
pub const BASE_US: i64 = MONTH_US - 600_000_000;
/// 2026-04-01 00:00:00 UTC.
pub const MONTH_US: i64 = 1_775_001_600_000_000;
pub const ROWS_PER_BATCH: u64 = 8;
/// The declared delay of the source's watermark.
pub const DELAY_US: i64 = 60_000_000;
/// Event time that passes from one row to the next.
const SPACING_US: i64 = 500_000;
/// Disorder: below the delay, as each batch lies at most some batches behind the newest one.
const JITTER_ROWS: u64 = 64;

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub n: u64,
    /// `None`: the source admits the row, and no view can use it.
    pub key: Option<String>,
    pub cents: i64,
    /// A multiple of a quarter: sums of these are exact.
    pub price: f64,
    pub at_us: i64,
}

/// splitmix64's finaliser.
fn hash(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn event(n: u64) -> Event {
    let chance = hash(n);
    // Most rows belong to a few busy keys; the others to keys that are silent for minutes and come back.
    let key = match chance % 8 {
        _ if n % 61 == 7 => None,
        0 => Some(format!("rare{}", n / 120 % 7)),
        _ => Some(format!("busy{}", chance / 8 % 12)),
    };
    let jitter = (chance >> 32) % JITTER_ROWS;
    // `n % 1000` keeps the times of a key apart: who is last is then never in doubt.
    let mut at_us = BASE_US + (n + jitter) as i64 * SPACING_US + (n % 1000) as i64;
    if is_late(n) {
        at_us = BASE_US - 86_400_000_000 + n as i64;
    }
    Event { n, key, cents: (chance >> 20) as i64 % 100_000 - 20_000, price: ((chance >> 40) % 400) as f64 / 4.0, at_us }
}

/// Rows that are a day late, once there is a watermark to be late for.
pub fn is_late(n: u64) -> bool {
    n >= 20 * ROWS_PER_BATCH && n.is_multiple_of(97)
}

pub fn batch(number: u64) -> impl Iterator<Item = Event> {
    (number * ROWS_PER_BATCH..(number + 1) * ROWS_PER_BATCH).map(event)
}

/// `2026-03-15 00:00:00.5+00`
pub fn instant(us: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// The inverse of [`instant`], for what the server writes.
pub fn microseconds(text: &str) -> anyhow::Result<i64> {
    let time = chrono::DateTime::parse_from_str(&format!("{text}00"), "%Y-%m-%d %H:%M:%S%.f%z")?;
    Ok(time.timestamp_micros())
}

/// `-12.05`
pub fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

pub fn insert_sql(number: u64) -> String {
    let mut sql = "INSERT INTO events VALUES ".to_owned();
    for (i, e) in batch(number).enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let (amount, at) = (decimal(e.cents), instant(e.at_us));
        let key = e.key.map_or("NULL".to_owned(), |key| format!("'{key}'"));
        // Writing to a String cannot fail.
        let _ = write!(sql, "{comma}({}, {key}, {amount}, {}, '{at}')", e.n, e.price);
    }
    sql
}

pub fn copy_text(number: u64) -> String {
    batch(number)
        .map(|e| {
            let key = e.key.as_deref().unwrap_or("\\N");
            format!("{}\t{key}\t{}\t{}\t{}\n", e.n, decimal(e.cents), e.price, instant(e.at_us))
        })
        .collect()
}

#[test]
fn times_and_amounts_survive_the_way_through_text() {
    for n in [0, 1, 999, 194, 12_345] {
        let e = event(n);
        assert_eq!(microseconds(&instant(e.at_us)).expect("a time"), e.at_us);
    }
    assert_eq!(microseconds("2026-03-31 23:50:00.5+00").expect("a time"), BASE_US + 500_000);
    assert_eq!(instant(MONTH_US), "2026-04-01 00:00:00.000000+00");
    assert_eq!(decimal(-5), "-0.05");
}
