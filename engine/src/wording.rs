//! Instants and spans in words, for errors and dead letters: whoever reads one should not have to divide microseconds.

use arrow::temporal_conversions::timestamp_us_to_datetime;

/// `2026-11-01 12:02:00+00`, as PostgreSQL shows it in UTC; what lies beyond all calendars is infinite.
pub fn instant(us: i64) -> String {
    match timestamp_us_to_datetime(us) {
        _ if us == i64::MAX => "infinity".to_string(),
        _ if us == i64::MIN => "-infinity".to_string(),
        Some(instant) => {
            let text = instant.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
            format!("{}+00", text.trim_end_matches('0').trim_end_matches('.'))
        }
        None => format!("{us} µs since 1970"),
    }
}

/// `1 day 2 hours 3 minutes 4.5 seconds`: exact, without the units that are zero. A day has 24 hours.
pub fn span(us: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute")];
    let (mut rest, mut parts) = (us, vec![]);
    for (size, unit) in UNITS {
        let (count, left) = (rest / size, rest % size);
        if count > 0 {
            parts.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
        rest = left;
    }
    if rest > 0 || parts.is_empty() {
        let seconds = format!("{}.{:06}", rest / 1_000_000, rest % 1_000_000);
        let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
        parts.push(format!("{seconds} second{}", if seconds == "1" { "" } else { "s" }));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_shown_as_postgresql_shows_them() {
        let cases = [
            (0, "1970-01-01 00:00:00+00"),
            (1_793_534_520_000_000, "2026-11-01 12:02:00+00"),
            (1_793_534_520_500_000, "2026-11-01 12:02:00.5+00"),
            (-1, "1969-12-31 23:59:59.999999+00"),
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
        ];
        for (us, expected) in cases {
            assert_eq!(instant(us), expected);
        }
    }

    #[test]
    fn spans_name_their_units_and_leave_nothing_out() {
        let cases = [
            (0, "0 seconds"),
            (1, "0.000001 seconds"),
            (1_000_000, "1 second"),
            (10_000_000, "10 seconds"),
            (480_000_000, "8 minutes"),
            (12_360_000_000, "3 hours 26 minutes"),
            (93_784_500_000, "1 day 2 hours 3 minutes 4.5 seconds"),
        ];
        for (us, expected) in cases {
            assert_eq!(span(us), expected);
        }
    }
}
