//! A session's time zone: an IANA zone or a fixed offset.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use tidemark_planner::zone::abbreviation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionZone {
    /// Seconds east of Greenwich.
    Fixed(i32),
    Named(Tz),
}

impl SessionZone {
    pub const UTC: SessionZone = SessionZone::Fixed(0);

    /// An IANA name in any case, `UTC`/`GMT`/`Z`, a common abbreviation, or an ISO 8601 offset (`+05:30`: east is
    /// positive, unlike PostgreSQL's POSIX strings).
    pub fn parse(name: &str) -> Option<SessionZone> {
        let name = name.trim();
        if let Some(seconds) = parse_offset(name) {
            return Some(SessionZone::Fixed(seconds));
        }
        if ["utc", "gmt", "z", "zulu", "ut", "etc/utc", "etc/gmt", "universal", "uct"]
            .iter()
            .any(|u| name.eq_ignore_ascii_case(u))
        {
            return Some(SessionZone::UTC);
        }
        if let Some(seconds) = abbreviation(name) {
            return Some(SessionZone::Fixed(seconds));
        }
        let named = name.parse::<Tz>().ok();
        named
            .or_else(|| chrono_tz::TZ_VARIANTS.iter().copied().find(|tz| tz.name().eq_ignore_ascii_case(name)))
            .map(SessionZone::Named)
    }

    /// Seconds east of Greenwich at an instant (seconds since 1970, UTC).
    pub fn offset_at(&self, utc_seconds: i64) -> i32 {
        match self {
            SessionZone::Fixed(seconds) => *seconds,
            SessionZone::Named(tz) => {
                // chrono's calendar ends about the year 262000; rules do not change there.
                let instant = DateTime::from_timestamp(utc_seconds, 0).unwrap_or(if utc_seconds < 0 {
                    DateTime::<chrono::Utc>::MIN_UTC
                } else {
                    DateTime::<chrono::Utc>::MAX_UTC
                });
                tz.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc()
            }
        }
    }

    /// The instant of a local wall-clock time, both in microseconds since 1970; `None` if it leaves the range.
    ///
    /// As in PostgreSQL, a time that a forward change skips is read with the offset before the change, and one that a
    /// backward change repeats with the offset after it.
    pub fn local_to_utc(&self, local_us: i64) -> Option<i64> {
        let offset = match self {
            SessionZone::Fixed(seconds) => *seconds,
            SessionZone::Named(_) => {
                let local = local_us.div_euclid(1_000_000);
                let before = self.offset_at(local.saturating_sub(86_400));
                let after = self.offset_at(local.saturating_add(86_400));
                let fits = |offset: i32| self.offset_at(local.saturating_sub(offset as i64)) == offset;
                if fits(after) {
                    after
                } else if fits(before) {
                    before
                } else {
                    // In a gap, or two changes within two days: settle from the offset before.
                    let guess = self.offset_at(local.saturating_sub(before as i64));
                    if fits(guess) { guess } else { before }
                }
            }
        };
        local_us.checked_sub(offset as i64 * 1_000_000)
    }
}

/// `+05`, `+0530`, `+05:30`, `-04:56:02`: seconds east. Not range-checked beyond what the digits allow.
pub(crate) fn parse_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let number = |s: &str| -> Option<i32> {
        if s.is_empty() || s.len() > 2 || !s.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        s.parse().ok()
    };
    let (hours, minutes, seconds) = if rest.contains(':') {
        let mut parts = rest.split(':');
        let hours = number(parts.next()?)?;
        let minutes = number(parts.next()?)?;
        let seconds = parts.next().map(number).unwrap_or(Some(0))?;
        if parts.next().is_some() {
            return None;
        }
        (hours, minutes, seconds)
    } else if rest.is_ascii() && rest.len() <= 2 {
        (number(rest)?, 0, 0)
    } else if rest.is_ascii() && (rest.len() == 3 || rest.len() == 4) {
        let (hours, minutes) = rest.split_at(rest.len() - 2);
        (number(hours)?, number(minutes)?, 0)
    } else if rest.is_ascii() && rest.len() == 6 {
        (number(&rest[..2])?, number(&rest[2..4])?, number(&rest[4..])?)
    } else {
        return None;
    };
    if minutes > 59 || seconds > 59 {
        return None;
    }
    Some(sign * (hours * 3600 + minutes * 60 + seconds))
}
