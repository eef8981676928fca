//! Interval input: PostgreSQL's verbose form, SQL's `1-2` and `3 4:05:06`, and ISO 8601 durations.

use super::{WireError, calendar::SECOND_US, parse_text::trim, show_time::Interval};
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType};

/// An Arrow interval; its nanoseconds are whole microseconds. 22015 where a field, 22008 where the whole is too large
/// (Arrow's time part ends at about 292 years of hours, sooner than PostgreSQL's).
pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, WireError> {
    let trimmed = trim(text);
    let mut sum = Sum { text, months: 0, days: 0, us: 0, seen: 0 };
    match trimmed.strip_prefix('P') {
        Some(iso) => sum.iso(iso)?,
        None => sum.verbose(trimmed)?,
    }
    let narrow = |v: i64| i32::try_from(v).map_err(|_| sum.field_range());
    to_arrow(Interval { months: narrow(sum.months)?, days: narrow(sum.days)?, us: sum.us })
}

pub(crate) fn to_arrow(value: Interval) -> Result<IntervalMonthDayNano, WireError> {
    let nanoseconds = value.us.checked_mul(1000).ok_or_else(|| WireError::new("22008", "interval out of range"))?;
    Ok(IntervalMonthDayNanoType::make_value(value.months, value.days, nanoseconds))
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

fn unit(word: &str) -> Option<Unit> {
    let word = word.to_ascii_lowercase();
    Some(match word.as_str() {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" | "microsecon" => {
            Unit::Microsecond
        }
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" | "millisecon" => {
            Unit::Millisecond
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennium" | "millennia" => Unit::Millennium,
        _ => return None,
    })
}

/// A number as written: sign, whole part, fraction in `[0, 1)`.
#[derive(Clone, Copy)]
struct Number {
    sign: i64,
    whole: i64,
    fraction: f64,
}

struct Sum<'a> {
    text: &'a str,
    months: i64,
    days: i64,
    us: i64,
    /// One bit per unit: none may come twice.
    seen: u16,
}

impl Sum<'_> {
    fn syntax(&self) -> WireError {
        WireError::datetime_syntax("interval", self.text)
    }

    fn field_range(&self) -> WireError {
        WireError::new("22015", format!("interval field value out of range: \"{}\"", self.text))
    }

    fn verbose(&mut self, text: &str) -> Result<(), WireError> {
        let mut rest = text.strip_prefix('@').unwrap_or(text);
        let mut any = false;
        let mut ago = false;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            let Some(first) = rest.chars().next() else { break };
            if first.is_ascii_alphabetic() {
                let (word, after) = split_while(rest, |c| c.is_ascii_alphabetic());
                if !word.eq_ignore_ascii_case("ago") || !any || ago {
                    return Err(self.syntax());
                }
                (ago, rest) = (true, after);
                continue;
            }
            let (token, after) = split_while(rest, |c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ':'));
            if token.is_empty() {
                return Err(self.syntax());
            }
            let after = after.trim_start_matches(|c: char| c.is_ascii_whitespace());
            any = true;
            if token.contains(':') {
                self.clock(token)?;
                rest = after;
                continue;
            }
            let sign = if token.starts_with('-') { -1 } else { 1 };
            let body = token.strip_prefix(['+', '-']).unwrap_or(token);
            if let Some((years, months)) = body.split_once('-') {
                let (years, months) = (self.number(years)?, self.number(months)?);
                if months.whole > 11 || years.fraction != 0.0 || months.fraction != 0.0 {
                    return Err(self.field_range());
                }
                self.add(Number { sign, ..years }, Unit::Year)?;
                self.add(Number { sign, ..months }, Unit::Month)?;
                rest = after;
                continue;
            }
            let number = Number { sign, ..self.number(body)? };
            let (word, after_word) = split_while(after, |c| c.is_ascii_alphabetic());
            if word.is_empty() || word.eq_ignore_ascii_case("ago") {
                // A bare number is days before a time, otherwise seconds at the end.
                let (next, _) = split_while(after, |c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ':'));
                let unit = match next {
                    time if time.contains(':') => Unit::Day,
                    "" => Unit::Second,
                    _ => return Err(self.syntax()),
                };
                self.add(number, unit)?;
                rest = after;
            } else {
                self.add(number, unit(word).ok_or_else(|| self.syntax())?)?;
                rest = after_word;
            }
        }
        if !any {
            return Err(self.syntax());
        }
        if ago {
            let negated = (self.months.checked_neg(), self.days.checked_neg(), self.us.checked_neg());
            let (Some(months), Some(days), Some(us)) = negated else { return Err(self.field_range()) };
            (self.months, self.days, self.us) = (months, days, us);
        }
        Ok(())
    }

    /// What follows the `P`.
    fn iso(&mut self, text: &str) -> Result<(), WireError> {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        if date.is_empty() && time.is_none() {
            return Err(self.syntax());
        }
        if date.split('-').filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())).count() == 3 {
            for (part, unit) in date.split('-').zip([Unit::Year, Unit::Month, Unit::Day]) {
                let number = self.number(part)?;
                self.add(number, unit)?;
            }
        } else {
            self.designated(date, |letter| match letter {
                'Y' => Some(Unit::Year),
                'M' => Some(Unit::Month),
                'W' => Some(Unit::Week),
                'D' => Some(Unit::Day),
                _ => None,
            })?;
        }
        match time {
            Some(time) if time.contains(':') => self.clock(time),
            Some(time) => self.designated(time, |letter| match letter {
                'H' => Some(Unit::Hour),
                'M' => Some(Unit::Minute),
                'S' => Some(Unit::Second),
                _ => None,
            }),
            None => Ok(()),
        }
    }

    /// `1Y2M…`: numbers, each before its letter.
    fn designated(&mut self, mut rest: &str, unit_of: impl Fn(char) -> Option<Unit>) -> Result<(), WireError> {
        while !rest.is_empty() {
            let (number, after) = split_while(rest, |c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
            let Some(letter) = after.chars().next() else { return Err(self.syntax()) };
            let unit = unit_of(letter).ok_or_else(|| self.syntax())?;
            let sign = if number.starts_with('-') { -1 } else { 1 };
            let number = self.number(number.strip_prefix(['+', '-']).unwrap_or(number))?;
            self.add(Number { sign, ..number }, unit)?;
            rest = &after[letter.len_utf8()..];
        }
        Ok(())
    }

    /// `H:MM[:SS[.f]]`, or `MM:SS.f`; the sign is everything's.
    fn clock(&mut self, token: &str) -> Result<(), WireError> {
        let sign = if token.starts_with('-') { -1 } else { 1 };
        let body = token.strip_prefix(['+', '-']).unwrap_or(token);
        let mut parts = [Number { sign, whole: 0, fraction: 0.0 }; 3];
        let mut count = 0;
        for part in body.split(':') {
            let Some(slot) = parts.get_mut(count) else { return Err(self.syntax()) };
            *slot = Number { sign, ..self.number(part)? };
            count += 1;
        }
        let [mut hours, mut minutes, mut seconds] = parts;
        if count == 2 && minutes.fraction != 0.0 {
            (hours, minutes, seconds) = (Number { whole: 0, ..hours }, hours, minutes);
        }
        if hours.fraction != 0.0 || minutes.fraction != 0.0 {
            return Err(self.syntax());
        }
        if minutes.whole > 59 || seconds.whole > 60 {
            return Err(self.field_range());
        }
        self.add(hours, Unit::Hour)?;
        self.add(minutes, Unit::Minute)?;
        self.add(seconds, Unit::Second)
    }

    fn number(&self, text: &str) -> Result<Number, WireError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_none_or(str::is_empty)) || !digits(whole) || !digits(fraction.unwrap_or(""))
        {
            return Err(self.syntax());
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| self.field_range())? };
        let fraction = match fraction {
            Some(f) if !f.is_empty() => format!("0.{f}").parse().unwrap_or(0.0),
            _ => 0.0,
        };
        Ok(Number { sign: 1, whole, fraction })
    }

    /// Adds `number` of `unit`; a fraction spills into the smaller fields as in PostgreSQL: years into whole months,
    /// months (of 30 days) and weeks into days, days into time.
    fn add(&mut self, number: Number, unit: Unit) -> Result<(), WireError> {
        let bit = 1 << unit as u16;
        if self.seen & bit != 0 {
            return Err(self.syntax());
        }
        self.seen |= bit;
        let fraction = number.fraction * number.sign as f64;
        let (months, days, us, more_us) = match unit {
            Unit::Year => (12, 0, 0, self.spill_months(fraction * 12.0)),
            Unit::Decade => (120, 0, 0, self.spill_months(fraction * 120.0)),
            Unit::Century => (1200, 0, 0, self.spill_months(fraction * 1200.0)),
            Unit::Millennium => (12_000, 0, 0, self.spill_months(fraction * 12_000.0)),
            Unit::Month => (1, 0, 0, self.spill_days(fraction * 30.0)),
            Unit::Week => (0, 7, 0, self.spill_days(fraction * 7.0)),
            Unit::Day => (0, 1, 0, fraction * 86_400e6),
            Unit::Hour => (0, 0, 3600 * SECOND_US, fraction * 3600e6),
            Unit::Minute => (0, 0, 60 * SECOND_US, fraction * 60e6),
            Unit::Second => (0, 0, SECOND_US, fraction * 1e6),
            Unit::Millisecond => (0, 0, 1000, fraction * 1e3),
            Unit::Microsecond => (0, 0, 1, fraction),
        };
        let whole = number.whole * number.sign;
        let add = |to: i64, each: i64| whole.checked_mul(each).and_then(|v| to.checked_add(v));
        let sums = (add(self.months, months), add(self.days, days), add(self.us, us));
        let (Some(months), Some(days), Some(us)) = sums else { return Err(self.field_range()) };
        (self.months, self.days) = (months, days);
        self.us = us.checked_add(more_us.round_ties_even() as i64).ok_or_else(|| self.field_range())?;
        let fits = |v: i64| i32::try_from(v).is_ok();
        if fits(months) && fits(days) { Ok(()) } else { Err(self.field_range()) }
    }

    fn spill_months(&mut self, months: f64) -> f64 {
        self.months = self.months.saturating_add(months.round_ties_even() as i64);
        0.0
    }

    /// Whole days now, the rest in microseconds.
    fn spill_days(&mut self, days: f64) -> f64 {
        self.days = self.days.saturating_add(days.trunc() as i64);
        days.fract() * 86_400e6
    }
}

fn split_while(text: &str, pass: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !pass(c)).unwrap_or(text.len()))
}
