//! PostgreSQL's patterns for dates and times, `FMDDth Mon YYYY HH24:MI`, taken apart: `to_char` shows by them, `to_date`
//! and `to_timestamp` read by them.

use crate::{PlanError, PlanResult};
use chrono::{Datelike, NaiveDate};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Field(Spelled),
}

/// A field, and how it is to be written.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spelled {
    field: Field,
    letters: Letters,
    /// Without `FM`: numbers with zeros, names with blanks.
    padded: bool,
    /// `th` or `TH` behind a number.
    ordinal: Option<Letters>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Letters {
    Upper,
    Title,
    Lower,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    /// Its last digits, so many; 4: all.
    Year(usize),
    GroupedYear,
    IsoYear(usize),
    Century,
    Era {
        dotted: bool,
    },
    Quarter,
    Month,
    MonthName,
    MonthShort,
    MonthRoman,
    Week,
    WeekOfMonth,
    IsoWeek,
    DayOfYear,
    IsoDayOfYear,
    Day,
    Weekday,
    IsoWeekday,
    DayName,
    DayShort,
    JulianDay,
    Hour,
    HourOfHalf,
    Minute,
    Second,
    SecondOfDay,
    /// So many digits behind the second's point.
    Fraction(usize),
    Half {
        dotted: bool,
    },
    ZoneName,
    Offset,
    OffsetHours,
    OffsetMinutes,
    /// `FX`, which is about reading.
    Nothing,
}

/// What begins like another and is longer comes first. Each is also written in lower case, names like `Month` too.
const FIELDS: &[(&str, Field)] = &[
    ("Y,YYY", Field::GroupedYear),
    ("YYYY", Field::Year(4)),
    ("YYY", Field::Year(3)),
    ("YY", Field::Year(2)),
    ("Y", Field::Year(1)),
    ("IYYY", Field::IsoYear(4)),
    ("IYY", Field::IsoYear(3)),
    ("IY", Field::IsoYear(2)),
    ("IDDD", Field::IsoDayOfYear),
    ("ID", Field::IsoWeekday),
    ("IW", Field::IsoWeek),
    ("I", Field::IsoYear(1)),
    ("CC", Field::Century),
    ("A.D.", Field::Era { dotted: true }),
    ("B.C.", Field::Era { dotted: true }),
    ("AD", Field::Era { dotted: false }),
    ("BC", Field::Era { dotted: false }),
    ("Q", Field::Quarter),
    ("MONTH", Field::MonthName),
    ("MON", Field::MonthShort),
    ("MM", Field::Month),
    ("RM", Field::MonthRoman),
    ("WW", Field::Week),
    ("W", Field::WeekOfMonth),
    ("DAY", Field::DayName),
    ("DDD", Field::DayOfYear),
    ("DD", Field::Day),
    ("DY", Field::DayShort),
    ("D", Field::Weekday),
    ("J", Field::JulianDay),
    ("HH24", Field::Hour),
    ("HH12", Field::HourOfHalf),
    ("HH", Field::HourOfHalf),
    ("MI", Field::Minute),
    ("SSSSS", Field::SecondOfDay),
    ("SSSS", Field::SecondOfDay),
    ("SS", Field::Second),
    ("MS", Field::Fraction(3)),
    ("US", Field::Fraction(6)),
    ("FF1", Field::Fraction(1)),
    ("FF2", Field::Fraction(2)),
    ("FF3", Field::Fraction(3)),
    ("FF4", Field::Fraction(4)),
    ("FF5", Field::Fraction(5)),
    ("FF6", Field::Fraction(6)),
    ("A.M.", Field::Half { dotted: true }),
    ("P.M.", Field::Half { dotted: true }),
    ("AM", Field::Half { dotted: false }),
    ("PM", Field::Half { dotted: false }),
    ("TZH", Field::OffsetHours),
    ("TZM", Field::OffsetMinutes),
    ("TZ", Field::ZoneName),
    ("OF", Field::Offset),
    ("FX", Field::Nothing),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The longest of the names, to which the others are padded.
const NAME_WIDTH: usize = 9;

/// What is to be shown: a moment, or the amounts of an interval or a time.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// `None`: it is tied to no date.
    pub date: Option<NaiveDate>,
    /// Before Christ counted as people do; of an interval it may be negative, as all that follows.
    pub year: i64,
    pub month: i64,
    pub day: i64,
    /// Whole seconds of the day.
    pub seconds: i64,
    pub microseconds: i64,
    /// The zone's name at that moment, and seconds east of Greenwich.
    pub zone: Option<(String, i32)>,
}

impl Pattern {
    /// Takes a pattern apart. What is no field stands for itself.
    pub(super) fn parse(text: &str) -> Pattern {
        let mut pieces = vec![];
        let mut rest = text;
        while !rest.is_empty() {
            let (fill, after) = without(rest, "FM");
            let (translate, after) = if fill { (false, after) } else { without(after, "TM") };
            rest = after;
            if let Some((field, letters, length)) = field(rest) {
                let (counted, after) = without(&rest[length..], "TH");
                let ordinal = match rest[length..].starts_with("TH") {
                    true => Some(Letters::Upper),
                    false => counted.then_some(Letters::Lower),
                };
                rest = if counted { after } else { without(after, "SP").1 };
                let padded = !(fill || translate && field.is_name());
                pieces.push(Piece::Field(Spelled { field, letters, padded, ordinal }));
            } else if let Some(quoted) = rest.strip_prefix('"') {
                rest = quote(quoted, &mut pieces);
            } else {
                rest = if rest.starts_with("\\\"") { &rest[1..] } else { rest };
                let mut letters = rest.chars();
                letters.next().into_iter().for_each(|letter| push(letter, &mut pieces));
                rest = letters.as_str();
            }
        }
        Pattern(pieces)
    }

    /// Writes what is to be shown behind `out`.
    ///
    /// # Errors
    /// 22007 for a field of a date where there is none.
    pub(super) fn show(&self, shown: &Shown, out: &mut String) -> PlanResult<()> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(field) => out.push_str(&field.show(shown)?),
            }
        }
        Ok(())
    }

    /// The same in chrono's words, to read by; `None`: it has a field that can only be shown.
    pub(super) fn to_read(&self) -> Option<String> {
        let mut format = String::new();
        for piece in &self.0 {
            let spelled = match piece {
                Piece::Text(text) => {
                    format.push_str(&text.replace('%', "%%"));
                    continue;
                }
                Piece::Field(spelled) => spelled,
            };
            let words = match spelled.field {
                Field::Year(4) => "%Y",
                Field::Year(2) => "%y",
                Field::Month => "%m",
                Field::MonthName => "%B",
                Field::MonthShort => "%b",
                Field::Day => "%d",
                Field::DayOfYear => "%j",
                Field::DayName => "%A",
                Field::DayShort => "%a",
                Field::Hour => "%H",
                Field::HourOfHalf => "%I",
                Field::Half { dotted: false } => "%p",
                Field::Minute => "%M",
                Field::Second => "%S",
                // Behind the point there may be fewer digits.
                Field::Fraction(3 | 6) if format.ends_with('.') => {
                    format.pop();
                    "%.f"
                }
                Field::Fraction(3) => "%3f",
                Field::Fraction(6) => "%6f",
                Field::Nothing => "",
                _ => return None,
            };
            format.push_str(words);
        }
        Some(format)
    }
}

/// Whether the text begins with this prefix or suffix, in upper or in lower case, and what follows.
fn without<'a>(text: &'a str, word: &str) -> (bool, &'a str) {
    match text.strip_prefix(word).or_else(|| text.strip_prefix(word.to_lowercase().as_str())) {
        Some(rest) => (true, rest),
        None => (false, text),
    }
}

/// The field that the text begins with, how it is written, and how long that is.
fn field(text: &str) -> Option<(Field, Letters, usize)> {
    FIELDS.iter().find_map(|(word, field)| {
        let head = text.get(..word.len())?;
        let letters = [Letters::Upper, Letters::Lower, Letters::Title]
            .into_iter()
            .find(|letters| (*letters != Letters::Title || field.is_name()) && letters.of(word) == head);
        Some((*field, letters?, word.len()))
    })
}

/// Reads up to the closing quote; gives what follows.
fn quote<'a>(text: &'a str, pieces: &mut Vec<Piece>) -> &'a str {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => push(letters.next().unwrap_or('\\'), pieces),
            letter => push(letter, pieces),
        }
    }
    letters.as_str()
}

fn push(letter: char, pieces: &mut Vec<Piece>) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(letter),
        _ => pieces.push(Piece::Text(letter.to_string())),
    }
}

impl Field {
    fn is_name(self) -> bool {
        matches!(self, Field::MonthName | Field::MonthShort | Field::DayName | Field::DayShort)
    }

    fn is_number(self) -> bool {
        use Field::{Era, Half, MonthRoman, Nothing, Offset, OffsetHours, OffsetMinutes, ZoneName};
        let is_word = matches!(self, Era { .. } | Half { .. } | MonthRoman | Nothing | Offset | OffsetHours);
        !is_word && !self.is_name() && !matches!(self, OffsetMinutes | ZoneName)
    }
}

impl Letters {
    /// The word in such letters.
    fn of(self, word: &str) -> String {
        match self {
            Letters::Upper => word.to_uppercase(),
            Letters::Lower => word.to_lowercase(),
            Letters::Title => word[..1].to_uppercase() + &word[1..].to_lowercase(),
        }
    }
}

impl Spelled {
    fn show(&self, shown: &Shown) -> PlanResult<String> {
        let mut text = self.text(shown)?;
        if let Some(letters) = self.ordinal.filter(|_| self.field.is_number()) {
            text.push_str(&letters.of(ordinal(&text)));
        }
        Ok(text)
    }

    fn text(&self, shown: &Shown) -> PlanResult<String> {
        let date = || shown.date.ok_or_else(no_date);
        let hour = shown.seconds / 3600;
        let offset = shown.zone.as_ref().map_or(0, |(_, seconds)| *seconds);
        let sign = if offset < 0 { '-' } else { '+' };
        let (offset_hours, offset_minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
        Ok(match self.field {
            Field::Year(digits) => self.number(last_digits(shown.year, digits), digits),
            Field::GroupedYear => format!("{},{:03}", shown.year / 1000, shown.year.abs() % 1000),
            Field::IsoYear(digits) => {
                let year = i64::from(date()?.iso_week().year());
                self.number(last_digits(as_counted(year), digits), digits)
            }
            Field::Century => match i64::from(date()?.year()) {
                year @ 1.. => self.number((year - 1) / 100 + 1, 2),
                year => self.number(year / 100 - 1, 2),
            },
            Field::Era { dotted } => {
                self.either(date()?.year() > 0, if dotted { ["A.D.", "B.C."] } else { ["AD", "BC"] })
            }
            Field::Quarter if shown.month == 0 => String::new(),
            Field::Quarter => ((shown.month - 1) / 3 + 1).to_string(),
            Field::Month => self.number(shown.month, 2),
            Field::MonthName => self.name(MONTHS[date()?.month0() as usize], NAME_WIDTH),
            Field::MonthShort => self.name(&MONTHS[date()?.month0() as usize][..3], 3),
            Field::MonthRoman => match usize::try_from(shown.month - 1).ok().and_then(|month| ROMAN.get(month)) {
                Some(roman) => self.name(roman, 4),
                None => String::new(),
            },
            Field::Week => self.number(i64::from(date()?.ordinal0() / 7 + 1), 2),
            Field::WeekOfMonth => self.number(i64::from(date()?.day0() / 7 + 1), 1),
            Field::IsoWeek => self.number(i64::from(date()?.iso_week().week()), 2),
            Field::DayOfYear => self.number(i64::from(date()?.ordinal()), 3),
            Field::IsoDayOfYear => {
                let days = date()?.iso_week().week0() * 7 + date()?.weekday().number_from_monday();
                self.number(i64::from(days), 3)
            }
            // The sign is one of the two digits.
            Field::Day => self.number(shown.day, if shown.day < 0 { 1 } else { 2 }),
            Field::Weekday => date()?.weekday().number_from_sunday().to_string(),
            Field::IsoWeekday => date()?.weekday().number_from_monday().to_string(),
            Field::DayName => self.name(day_name(date()?), NAME_WIDTH),
            Field::DayShort => self.name(&day_name(date()?)[..3], 3),
            Field::JulianDay => {
                /// Of the day before the first of the year 1.
                const BEFORE_CHRIST: i64 = 1_721_425;
                (BEFORE_CHRIST + i64::from(date()?.num_days_from_ce())).to_string()
            }
            Field::Hour => self.number(hour, 2),
            Field::HourOfHalf => self.number(if hour % 12 == 0 { 12 } else { hour % 12 }, 2),
            Field::Minute => self.number(shown.seconds / 60 % 60, 2),
            Field::Second => self.number(shown.seconds % 60, 2),
            Field::SecondOfDay => shown.seconds.to_string(),
            Field::Fraction(digits) => {
                format!("{:0digits$}", shown.microseconds / 10_i64.pow(6 - digits as u32))
            }
            Field::Half { dotted } => {
                self.either(hour % 24 >= 12, if dotted { ["P.M.", "A.M."] } else { ["PM", "AM"] })
            }
            Field::ZoneName => {
                date()?;
                let name = shown.zone.as_ref().map_or("", |(name, _)| name);
                if self.letters == Letters::Lower { name.to_lowercase() } else { name.to_string() }
            }
            Field::Offset => {
                date()?;
                let hours = self.number(i64::from(offset_hours), 2);
                match offset_minutes {
                    0 => format!("{sign}{hours}"),
                    minutes => format!("{sign}{hours}:{minutes:02}"),
                }
            }
            Field::OffsetHours => {
                date()?;
                format!("{sign}{offset_hours:02}")
            }
            Field::OffsetMinutes => {
                date()?;
                format!("{offset_minutes:02}")
            }
            Field::Nothing => String::new(),
        })
    }

    /// A minus sign is one more than the digits.
    fn number(&self, value: i64, digits: usize) -> String {
        let width = if self.padded { digits + usize::from(value < 0) } else { 0 };
        format!("{value:0width$}")
    }

    fn name(&self, name: &str, width: usize) -> String {
        let width = if self.padded { width } else { 0 };
        format!("{:width$}", self.letters.of(name))
    }

    fn either(&self, first: bool, words: [&str; 2]) -> String {
        self.letters.of(if first { words[0] } else { words[1] })
    }
}

fn no_date() -> PlanError {
    PlanError::new("22007", "invalid format specification for an interval value")
        .hint("intervals and times are not tied to a date")
}

/// Before the year 1 comes the year 1 before Christ.
pub(super) fn as_counted(year: i64) -> i64 {
    if year > 0 { year } else { 1 - year }
}

fn last_digits(year: i64, digits: usize) -> i64 {
    if digits == 4 { year } else { year % 10_i64.pow(digits as u32) }
}

fn day_name(date: NaiveDate) -> &'static str {
    DAYS[date.weekday().num_days_from_sunday() as usize]
}

/// What is behind a number in English.
fn ordinal(number: &str) -> &'static str {
    let mut digits = number.bytes().rev();
    match (digits.next(), digits.next()) {
        (_, Some(b'1')) => "th",
        (Some(b'1'), _) => "st",
        (Some(b'2'), _) => "nd",
        (Some(b'3'), _) => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Shown {
        let at = chrono::DateTime::parse_from_rfc3339(text).unwrap();
        let (date, zone) = (at.date_naive(), at.offset().local_minus_utc());
        let time = at.time().signed_duration_since(chrono::NaiveTime::MIN);
        Shown {
            date: Some(date),
            year: as_counted(date.year().into()),
            month: date.month().into(),
            day: date.day().into(),
            seconds: time.num_seconds(),
            microseconds: time.subsec_nanos() as i64 / 1000,
            zone: (zone != 0).then(|| ("EDT".to_string(), zone)),
        }
    }

    fn shown(pattern: &str, shown: &Shown) -> PlanResult<String> {
        let mut out = String::new();
        Pattern::parse(pattern).show(shown, &mut out)?;
        Ok(out)
    }

    #[test]
    fn moments_are_shown_as_by_postgresql() {
        let summer = moment("2026-07-05T15:08:09.012345-04:00");
        let winter = moment("2026-12-31T00:08:09.012345Z");
        // Answers of PostgreSQL 15, the first in New York, the second of a timestamp without a zone.
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", ["2026-07-05 15:08:09", "2026-12-31 00:08:09"]),
            ("yyyymmdd hh24miss", ["20260705 150809", "20261231 000809"]),
            ("YYYY YY Y YYY Y,YYY", ["2026 26 6 026 2,026", "2026 26 6 026 2,026"]),
            ("MM DD DDD", ["07 05 186", "12 31 365"]),
            ("HH12:MI:SS AM HH am A.M. p.m.", ["03:08:09 PM 03 pm P.M. p.m.", "12:08:09 AM 12 am A.M. a.m."]),
            ("MS US FF1 FF2FF4 SS.MS", ["012 012345 0 010123 09.012", "012 012345 0 010123 09.012"]),
            ("Mon MON mon Dy DY dy", ["Jul JUL jul Sun SUN sun", "Dec DEC dec Thu THU thu"]),
            ("Month|MONTH|month|", ["July     |JULY     |july     |", "December |DECEMBER |december |"]),
            ("Day|DAY|day|", ["Sunday   |SUNDAY   |sunday   |", "Thursday |THURSDAY |thursday |"]),
            ("D ID dY Dd", ["1 7 16 11", "5 4 56 55"]),
            ("TZ tz OF TZH TZM", ["EDT edt -04 -04 00", "  +00 +00 00"]),
            ("Q WW IW W J", ["3 27 27 1 2461227", "4 53 53 5 2461406"]),
            ("IYYY IYY IDDD CC", ["2026 026 189 21", "2026 026 368 21"]),
            ("SSSS SSSSS RM|rm|", ["54489 54489 VII |vii |", "489 489 XII |xii |"]),
            ("BC AD b.c. A.D.", ["AD AD a.d. A.D.", "AD AD a.d. A.D."]),
            ("FMMonth FMDD, YYYY TMDay TMDD", ["July 5, 2026 Sunday 05", "December 31, 2026 Thursday 31"]),
            ("DDth FMDDTH YYYTH WWth MSth", ["05th 5TH 026TH 27th 012th", "31st 31ST 026TH 53rd 012th"]),
            ("IDth monTH DAYth AMth", ["7th jul SUNDAY    PM", "4th dec THURSDAY  AM"]),
            (r#""at" HH24"h\"" \"x\" HH24\:MI"#, [r#"at 15h" "x" 15\:08"#, r#"at 00h" "x" 00\:08"#]),
            ("\"unterminated", ["unterminated", "unterminated"]),
            ("hello Tz Mi Ad FF7 é", ["hello Tz M6 A1 FF7 é", "hello Tz M6 A5 FF7 é"]),
            ("FMFMDD FM DD SP DDSP FXMM", ["FM05  05 SP 05 07", "FM31  31 SP 31 12"]),
            ("", ["", ""]),
        ] {
            assert_eq!(shown(pattern, &summer).as_deref(), Ok(expected[0]), "{pattern}");
            assert_eq!(shown(pattern, &winter).as_deref(), Ok(expected[1]), "{pattern}");
        }
        let mut early = moment("0001-03-15T13:00:00Z");
        early.date = NaiveDate::from_ymd_opt(-43, 3, 15);
        early.year = as_counted(-43);
        assert_eq!(shown("YYYY BC YY CC FMHH12:FMMI", &early).as_deref(), Ok("0044 BC 44 -01 1:0"));
        let kolkata = Shown { zone: Some(("IST".to_string(), 19_800)), ..summer };
        assert_eq!(shown("TZ OF FMOF TZH:TZM", &kolkata).as_deref(), Ok("IST +05:30 +5:30 +05:30"));
    }

    #[test]
    fn intervals_are_shown_as_by_postgresql() {
        let negative = Shown { day: -1, seconds: -7_384, microseconds: -500_000, ..Shown::default() };
        let expected = "-02:-03:-04.-500 -1 -500000 -7384 -5";
        assert_eq!(shown("HH24:MI:SS.MS DD US SSSS FF1", &negative).as_deref(), Ok(expected));
        let long = Shown { year: 2, month: 2, day: 3, seconds: 108_123, ..Shown::default() };
        assert_eq!(shown("YYYY MM DDth HH24 HH12 AM Q RM", &long).as_deref(), Ok("0002 02 03rd 30 06 AM 1 II  "));
        let early = Shown { year: -1, month: -2, ..Shown::default() };
        assert_eq!(shown("YYYY-MM YY Y|RM|", &early).as_deref(), Ok("-0001--02 -01 -1||"));
        for pattern in ["Mon", "Day", "D", "TZ", "OF", "BC", "W", "IYYY"] {
            assert_eq!(shown(pattern, &long).unwrap_err().sqlstate, "22007", "{pattern}");
        }
    }

    #[test]
    fn what_can_be_read_is_said_in_chronos_words() {
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", Some("%Y-%m-%d %H:%M:%S")),
            ("DD/Mon/YY", Some("%d/%b/%y")),
            ("HH12:MI:SS.US AM", Some("%I:%M:%S%.f %p")),
            ("SSMS \"100%\"", Some("%S%3f 100%%")),
            ("YYYY TZ", None),
            ("IYYY-IW", None),
        ] {
            assert_eq!(Pattern::parse(pattern).to_read().as_deref(), expected, "{pattern}");
        }
    }
}
