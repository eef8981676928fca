//! Dates, times and timestamps as text: ISO 8601 and the other spellings people use (`DateStyle` is ISO, MDY).
//!
//! Two things differ from PostgreSQL on purpose. Digits beyond microseconds are cut, not rounded: event times are
//! floored (semantics, section 2), so that no event moves past a window's end. And the words that mean a moment of
//! reading (`now`, `today`) are refused: this code has no clock.

use super::{
    SessionZone, WireError,
    calendar::{DAY_US, SECOND_US, days_from_civil, days_in_month},
    parse_text::trim,
    zone::parse_offset,
};

/// Days since 1970-01-01; `infinity` is `i32::MAX`, `-infinity` is `i32::MIN`.
pub fn parse_date(text: &str) -> Result<i32, WireError> {
    const TYPE: &str = "date";
    match special(text, TYPE)? {
        Some(Special::Epoch) => return Ok(0),
        Some(Special::Infinity) => return Ok(i32::MAX),
        Some(Special::MinusInfinity) => return Ok(i32::MIN),
        None => {}
    }
    let (year, month, day) = scan(text, TYPE)?.date.ok_or_else(|| WireError::datetime_syntax(TYPE, text))?;
    let days = days_from_civil(year, month, day);
    if !(-4713..=5_874_897).contains(&year) {
        return Err(WireError::new("22008", format!("date out of range: \"{text}\"")));
    }
    Ok(days as i32)
}

/// Microseconds since midnight, up to and including 24:00:00.
pub fn parse_time(text: &str) -> Result<i64, WireError> {
    const TYPE: &str = "time";
    let fields = scan(text, TYPE)?;
    let named_zone_without_date = matches!(fields.zone, Some(SessionZone::Named(_))) && fields.date.is_none();
    match fields.time_us {
        Some(us) if !named_zone_without_date => Ok(us),
        _ => Err(WireError::datetime_syntax(TYPE, text)),
    }
}

/// Microseconds since 1970 by the wall clock; a zone in the text is read and ignored, as in PostgreSQL.
/// `infinity` is `i64::MAX`, `-infinity` is `i64::MIN`.
pub fn parse_timestamp(text: &str) -> Result<i64, WireError> {
    const TYPE: &str = "timestamp";
    match special(text, TYPE)? {
        Some(special) => Ok(special.timestamp()),
        None => local_us(&scan(text, TYPE)?, text, TYPE),
    }
}

/// Microseconds since 1970, UTC; a text without a zone is in `zone`. Infinities as for [`parse_timestamp`].
pub fn parse_timestamptz(text: &str, zone: &SessionZone) -> Result<i64, WireError> {
    const TYPE: &str = "timestamp with time zone";
    if let Some(special) = special(text, TYPE)? {
        return Ok(special.timestamp());
    }
    let fields = scan(text, TYPE)?;
    let local = local_us(&fields, text, TYPE)?;
    match fields.zone.as_ref().unwrap_or(zone).local_to_utc(local) {
        Some(us) if us != i64::MIN && us != i64::MAX => Ok(us),
        _ => Err(timestamp_out_of_range(text)),
    }
}

enum Special {
    Epoch,
    Infinity,
    MinusInfinity,
}

impl Special {
    fn timestamp(&self) -> i64 {
        match self {
            Special::Epoch => 0,
            Special::Infinity => i64::MAX,
            Special::MinusInfinity => i64::MIN,
        }
    }
}

fn special(text: &str, ty: &str) -> Result<Option<Special>, WireError> {
    let word = trim(text);
    if word.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return Ok(None);
    }
    let is = |w: &str| word.eq_ignore_ascii_case(w);
    if ["now", "today", "tomorrow", "yesterday"].into_iter().any(is) {
        return Err(WireError::datetime_syntax(ty, text).with_hint("write the moment itself, or use now() in a query"));
    }
    Ok(if is("epoch") {
        Some(Special::Epoch)
    } else if is("infinity") || is("+infinity") {
        Some(Special::Infinity)
    } else if is("-infinity") {
        Some(Special::MinusInfinity)
    } else {
        None
    })
}

/// What a text says, each part at most once.
#[derive(Default)]
struct Fields {
    /// Year (0 is 1 BC), month, day: a date that exists.
    date: Option<(i64, u32, u32)>,
    time_us: Option<i64>,
    zone: Option<SessionZone>,
}

fn timestamp_out_of_range(text: &str) -> WireError {
    WireError::new("22008", format!("timestamp out of range: \"{text}\""))
}

fn field_out_of_range(text: &str) -> WireError {
    WireError::new("22008", format!("date/time field value out of range: \"{text}\""))
}

fn month_or_day_out_of_range(text: &str) -> WireError {
    field_out_of_range(text).with_hint("Perhaps you need a different \"datestyle\" setting.")
}

fn local_us(fields: &Fields, text: &str, ty: &str) -> Result<i64, WireError> {
    let (year, month, day) = fields.date.ok_or_else(|| WireError::datetime_syntax(ty, text))?;
    if year < -4713 {
        return Err(timestamp_out_of_range(text));
    }
    days_from_civil(year, month, day)
        .checked_mul(DAY_US)
        .and_then(|us| us.checked_add(fields.time_us.unwrap_or(0)))
        .filter(|us| *us != i64::MAX && *us != i64::MIN)
        .ok_or_else(|| timestamp_out_of_range(text))
}

fn scan(text: &str, ty: &str) -> Result<Fields, WireError> {
    match scan_iso(text) {
        Some(fields) => Ok(fields),
        None => Scanner::new(text, ty).run(),
    }
}

/// The form that programs write, `YYYY-MM-DD[{ |T}HH:MM:SS[.f…][Z|±hh[:mm]]]`, valid in every field; anything else is
/// left to the scanner.
fn scan_iso(text: &str) -> Option<Fields> {
    let b = text.as_bytes();
    let two = |at: usize| -> Option<u32> {
        let (x, y) = (b.get(at)?.wrapping_sub(b'0'), b.get(at + 1)?.wrapping_sub(b'0'));
        (x < 10 && y < 10).then_some(x as u32 * 10 + y as u32)
    };
    let is = |at: usize, c: u8| b.get(at) == Some(&c);
    let year = two(0)? * 100 + two(2)?;
    let (month, day) = (two(5)?, two(8)?);
    if !is(4, b'-') || !is(7, b'-') || year == 0 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    if day > days_in_month(year as i64, month) {
        return None;
    }
    let date = Some((year as i64, month, day));
    if b.len() == 10 {
        return Some(Fields { date, ..Fields::default() });
    }
    if !(is(10, b' ') || is(10, b'T')) || !is(13, b':') || !is(16, b':') {
        return None;
    }
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut us = (hour * 3600 + minute * 60 + second) as i64 * SECOND_US;
    let mut at = 19;
    if is(at, b'.') {
        at += 1;
        let mut unit = SECOND_US / 10;
        while let Some(d) = b.get(at).filter(|d| d.is_ascii_digit()) {
            us += (d - b'0') as i64 * unit;
            unit /= 10;
            at += 1;
        }
    }
    let zone = match text.get(at..)? {
        "" => None,
        "Z" => Some(SessionZone::UTC),
        offset => Some(SessionZone::Fixed(parse_offset(offset).filter(|s| s.abs() < 16 * 3600)?)),
    };
    Some(Fields { date, time_us: Some(us), zone })
}

/// Reads the text token by token, in any of the accepted orders.
struct Scanner<'a> {
    text: &'a str,
    ty: &'a str,
    rest: &'a str,
    fields: Fields,
    month_name: Option<u32>,
    /// Bare numbers beside a month's name: day and year.
    numbers: Vec<&'a str>,
    bc: bool,
    afternoon: Option<bool>,
    hour: u32,
    /// A year as written, before BC is known.
    dated: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, ty: &'a str) -> Self {
        Scanner {
            text,
            ty,
            rest: trim(text),
            fields: Fields::default(),
            month_name: None,
            numbers: vec![],
            bc: false,
            afternoon: None,
            hour: 0,
            dated: false,
        }
    }

    fn syntax(&self) -> WireError {
        WireError::datetime_syntax(self.ty, self.text)
    }

    /// Takes the longest beginning whose characters pass.
    fn take(&mut self, pass: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !pass(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    fn run(mut self) -> Result<Fields, WireError> {
        let mut time_follows = self.ty == "time";
        loop {
            self.take(|c| c.is_ascii_whitespace() || c == ',');
            let Some(first) = self.rest.chars().next() else { break };
            match first {
                '0'..='9' => {
                    let before = self.rest;
                    let digits = self.take(|c| c.is_ascii_digit());
                    match self.rest.chars().next() {
                        Some(':') => {
                            self.rest = before;
                            let clock = self.take(|c| c.is_ascii_digit() || c == ':' || c == '.');
                            self.clock(clock)?;
                        }
                        Some('-' | '/') if !(time_follows && self.rest.starts_with('-')) => {
                            self.rest = before;
                            let date = self.take(|c| c.is_ascii_alphanumeric() || c == '-' || c == '/');
                            self.date(date)?;
                        }
                        Some('.') if digits.len() == 6 && (self.dated || time_follows) => {
                            self.rest = before;
                            let clock = self.take(|c| c.is_ascii_digit() || c == '.');
                            self.packed_clock(clock)?;
                        }
                        _ if (digits.len() == 6 || digits.len() == 4) && (time_follows || self.dated) => {
                            self.packed_clock(digits)?
                        }
                        _ if digits.len() == 8 && !self.dated && self.month_name.is_none() => {
                            self.set_date(&digits[..4], &digits[4..6], &digits[6..])?;
                        }
                        _ => self.numbers.push(digits),
                    }
                    time_follows = false;
                }
                '+' | '-' => {
                    let offset = self.take(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | ':'));
                    let seconds = parse_offset(offset).ok_or_else(|| self.syntax())?;
                    self.set_zone(SessionZone::Fixed(seconds))?;
                }
                c if c.is_ascii_alphabetic() => {
                    let word = self.take(|c| c.is_ascii_alphabetic());
                    let next_is_digit = self.rest.starts_with(|c: char| c.is_ascii_digit());
                    if word.eq_ignore_ascii_case("t") && next_is_digit {
                        time_follows = true;
                        continue;
                    }
                    self.word(word)?;
                }
                _ => return Err(self.syntax()),
            }
        }
        self.finish()
    }

    fn word(&mut self, word: &'a str) -> Result<(), WireError> {
        let is = |w: &str| word.eq_ignore_ascii_case(w);
        if let Some(month) = month_number(word) {
            if self.month_name.replace(month).is_some() {
                return Err(self.syntax());
            }
        } else if is("am") || is("pm") {
            if self.afternoon.replace(is("pm")).is_some() {
                return Err(self.syntax());
            }
        } else if is("bc") || is("ad") {
            self.bc = is("bc");
        } else if !is_weekday(word) {
            // A zone: the word goes on over `/`, `_`, and (`GMT+3`, `Etc/GMT-5`) a sign and digits.
            let tail = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-'));
            let start = word.as_ptr() as usize - self.text.as_ptr() as usize;
            let name = self.text.get(start..start + word.len() + tail.len()).unwrap_or(word);
            let zone = match (word, tail.as_bytes().first()) {
                // POSIX: the sign counts westward.
                (_, Some(b'+' | b'-')) if is("gmt") || is("utc") => {
                    parse_offset(tail).map(|seconds| SessionZone::Fixed(-seconds))
                }
                _ => SessionZone::parse(name),
            };
            match zone {
                Some(zone) => self.set_zone(zone)?,
                None if tail.is_empty() => return Err(self.syntax()),
                None => return Err(WireError::new("22023", format!("time zone \"{name}\" not recognized"))),
            }
        }
        Ok(())
    }

    fn set_zone(&mut self, zone: SessionZone) -> Result<(), WireError> {
        if let SessionZone::Fixed(seconds) = zone
            && seconds.abs() >= 16 * 3600
        {
            return Err(WireError::new("22009", format!("time zone displacement out of range: \"{}\"", self.text)));
        }
        match self.fields.zone.replace(zone) {
            None => Ok(()),
            Some(_) => Err(self.syntax()),
        }
    }

    /// `H:MM[:SS[.f]]`
    fn clock(&mut self, token: &str) -> Result<(), WireError> {
        let mut parts = token.split(':');
        let hour = self.small(parts.next())?;
        let minute = self.small(parts.next())?;
        let (second, fraction) = match parts.next() {
            None => (0, ""),
            Some(seconds) => {
                let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
                (self.small(Some(whole))?, fraction)
            }
        };
        if parts.next().is_some() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.syntax());
        }
        self.set_time(hour, minute, second, fraction)
    }

    /// `HHMM` or `HHMMSS[.f]`
    fn packed_clock(&mut self, token: &str) -> Result<(), WireError> {
        let (digits, fraction) = token.split_once('.').unwrap_or((token, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.syntax());
        }
        let hour = self.small(digits.get(..2))?;
        let minute = self.small(digits.get(2..4))?;
        let second = if digits.len() > 4 { self.small(digits.get(4..))? } else { 0 };
        self.set_time(hour, minute, second, fraction)
    }

    fn small(&self, digits: Option<&str>) -> Result<u32, WireError> {
        match digits {
            Some(d) if !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()) => {
                // Too many digits are out of range rather than misspelt.
                Ok(d.parse().unwrap_or(u32::MAX))
            }
            _ => Err(self.syntax()),
        }
    }

    fn set_time(&mut self, hour: u32, minute: u32, second: u32, fraction: &str) -> Result<(), WireError> {
        let mut us = 0;
        let mut unit = SECOND_US / 10;
        for b in fraction.bytes().take(6) {
            us += (b - b'0') as i64 * unit;
            unit /= 10;
        }
        let end_of_day = hour == 24 && minute == 0 && second == 0 && us == 0;
        if (hour > 23 && !end_of_day) || minute > 59 || second > 60 {
            return Err(field_out_of_range(self.text));
        }
        self.hour = hour;
        us += (hour as i64 * 3600 + minute as i64 * 60 + second as i64) * SECOND_US;
        match self.fields.time_us.replace(us) {
            None => Ok(()),
            Some(_) => Err(self.syntax()),
        }
    }

    /// Three parts between `-` or `/`, one of which may be a month's name; or year and day of the year.
    fn date(&mut self, token: &'a str) -> Result<(), WireError> {
        // A `T` after the date belongs to the time; it cannot be part of a month's name that follows digits.
        let end = token
            .char_indices()
            .find(|(i, c)| {
                c.eq_ignore_ascii_case(&'t')
                    && token[..*i].ends_with(|p: char| p.is_ascii_digit())
                    && token[i + 1..].starts_with(|n: char| n.is_ascii_digit())
            })
            .map(|(i, _)| i);
        let token = match end {
            Some(i) => {
                let start = token.as_ptr() as usize - self.text.as_ptr() as usize;
                self.rest = self.text.get(start + i..).unwrap_or("");
                &token[..i]
            }
            None => {
                // `2013-01-01Z`: letters glued to the last digits are a zone.
                let digits_end = token.rfind(|c: char| c.is_ascii_digit()).map_or(0, |i| i + 1);
                if digits_end < token.len() && token.bytes().filter(|b| *b == b'-').count() == 2 {
                    let start = token.as_ptr() as usize - self.text.as_ptr() as usize;
                    self.rest = self.text.get(start + digits_end..).unwrap_or("");
                }
                &token[..digits_end]
            }
        };
        let mut parts = token.split(['-', '/']);
        let (Some(a), Some(b)) = (parts.next(), parts.next()) else { return Err(self.syntax()) };
        let c = parts.next();
        if parts.next().is_some() {
            return Err(self.syntax());
        }
        match c {
            None if a.len() >= 3 && b.len() == 3 => {
                let (year, ordinal) = (self.year(a)?, self.small(Some(b))?);
                // Day 366 of any year, as PostgreSQL: in a common year it is the next one's first.
                if ordinal == 0 || ordinal > 366 {
                    return Err(field_out_of_range(self.text));
                }
                let days = days_from_civil(year, 1, 1) + ordinal as i64 - 1;
                self.put_date(super::calendar::civil_from_days(days))
            }
            None => Err(self.syntax()),
            Some(c) => match (month_number(a), month_number(b)) {
                (None, Some(_)) if a.len() >= 3 => self.set_date(a, b, c),
                (None, Some(_)) => self.set_date(c, b, a),
                (Some(_), None) => self.set_date(c, a, b),
                (None, None) if a.len() >= 3 => self.set_date(a, b, c),
                (None, None) => self.set_date(c, a, b),
                _ => Err(self.syntax()),
            },
        }
    }

    fn year(&self, digits: &str) -> Result<i64, WireError> {
        let year = self.small(Some(digits))? as i64;
        if year > 99_999_999 {
            return Err(match self.ty {
                "date" => WireError::new("22008", format!("date out of range: \"{}\"", self.text)),
                "time" => field_out_of_range(self.text),
                _ => timestamp_out_of_range(self.text),
            });
        }
        Ok(match (digits.len(), year) {
            (1 | 2, 0..=69) => year + 2000,
            (1 | 2, _) => year + 1900,
            _ => year,
        })
    }

    fn set_date(&mut self, year: &str, month: &str, day: &str) -> Result<(), WireError> {
        let month = match month_number(month) {
            Some(month) => month,
            None => self.small(Some(month))?,
        };
        let day = self.small(Some(day))?;
        let year = self.year(year)?;
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(month_or_day_out_of_range(self.text));
        }
        self.put_date((year, month, day))
    }

    fn put_date(&mut self, date: (i64, u32, u32)) -> Result<(), WireError> {
        self.dated = true;
        match self.fields.date.replace(date) {
            None => Ok(()),
            Some(_) => Err(self.syntax()),
        }
    }

    fn finish(mut self) -> Result<Fields, WireError> {
        if let Some(month) = self.month_name {
            let &[a, b] = self.numbers.as_slice() else { return Err(self.syntax()) };
            // `5 January 2013` and `Jan 5 2013`, but also `2013 Jan 5`.
            let (day, year) = if a.len() >= 3 { (b, a) } else { (a, b) };
            let month = month.to_string();
            self.set_date(year, &month, day)?;
        } else if !self.numbers.is_empty() {
            return Err(self.syntax());
        }
        if let Some((year, month, day)) = self.fields.date {
            // There is no year 0: 1 BC comes before 1 AD.
            if year == 0 {
                return Err(field_out_of_range(self.text));
            }
            let year = if self.bc { 1 - year } else { year };
            if day > days_in_month(year, month) {
                return Err(field_out_of_range(self.text));
            }
            self.fields.date = Some((year, month, day));
        }
        if let Some(afternoon) = self.afternoon {
            let Some(us) = self.fields.time_us else { return Err(self.syntax()) };
            if self.hour > 12 {
                return Err(field_out_of_range(self.text));
            }
            let half_day = DAY_US / 2;
            self.fields.time_us = Some(match (afternoon, self.hour) {
                (true, 12) | (false, 0..=11) => us,
                (true, _) => us + half_day,
                (false, _) => us - half_day,
            });
        }
        Ok(self.fields)
    }
}

/// English month names, by their full name or any beginning of at least three letters.
fn month_number(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let at = MONTHS.iter().position(|m| {
        word.eq_ignore_ascii_case(m)
            || (word.len() == 3 && word.eq_ignore_ascii_case(&m[..3]))
            || word.eq_ignore_ascii_case("sept") && *m == "september"
    })?;
    Some(at as u32 + 1)
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    DAYS.iter().any(|d| {
        word.eq_ignore_ascii_case(d)
            || (word.len() >= 3 && word.len() <= 5 && d.as_bytes()[..word.len()].eq_ignore_ascii_case(word.as_bytes()))
    })
}
