//! Dates, times and intervals as PostgreSQL prints them with `DateStyle` ISO and `IntervalStyle` postgres.

use super::{
    SessionZone,
    calendar::{DAY_US, SECOND_US, civil_from_days},
    number::{write_int, write_padded},
};
use bytes::{BufMut, BytesMut};

/// PostgreSQL's interval: three counts that do not carry into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) us: i64,
}

fn write_ymd(days: i64, out: &mut BytesMut) -> bool {
    let (year, month, day) = civil_from_days(days);
    let bc = year <= 0;
    write_padded(if bc { 1 - year } else { year } as u64, 4, out);
    out.put_u8(b'-');
    put_two(month, out);
    out.put_u8(b'-');
    put_two(day, out);
    bc
}

fn put_two(value: u32, out: &mut BytesMut) {
    out.put_u8(b'0' + (value / 10) as u8);
    out.put_u8(b'0' + (value % 10) as u8);
}

pub(crate) fn write_date(days: i32, out: &mut BytesMut) {
    match days {
        i32::MAX => out.put_slice(b"infinity"),
        i32::MIN => out.put_slice(b"-infinity"),
        _ => {
            if write_ymd(days as i64, out) {
                out.put_slice(b" BC");
            }
        }
    }
}

/// A time of day, or the time part of an interval (its hours may have more than two digits).
pub(crate) fn write_time(us: u64, out: &mut BytesMut) {
    let seconds = us / SECOND_US as u64;
    write_padded(seconds / 3600, 2, out);
    out.put_u8(b':');
    put_two((seconds / 60 % 60) as u32, out);
    out.put_u8(b':');
    put_two((seconds % 60) as u32, out);
    let mut fraction = us % SECOND_US as u64;
    if fraction != 0 {
        let mut width = 6;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        out.put_u8(b'.');
        write_padded(fraction, width, out);
    }
}

/// In `zone` with its offset, or as it stands when the type has no zone.
pub(crate) fn write_timestamp(us: i64, zone: Option<&SessionZone>, out: &mut BytesMut) {
    match us {
        i64::MAX => return out.put_slice(b"infinity"),
        i64::MIN => return out.put_slice(b"-infinity"),
        _ => {}
    }
    let offset = zone.map_or(0, |z| z.offset_at(us.div_euclid(SECOND_US)));
    // Days and time apart, so that no offset can overflow at the ends of the range.
    let mut days = us.div_euclid(DAY_US);
    let time = us.rem_euclid(DAY_US) + offset as i64 * SECOND_US;
    days += time.div_euclid(DAY_US);
    let bc = write_ymd(days, out);
    out.put_u8(b' ');
    write_time(time.rem_euclid(DAY_US) as u64, out);
    if zone.is_some() {
        let seconds = offset.unsigned_abs();
        out.put_u8(if offset < 0 { b'-' } else { b'+' });
        put_two(seconds / 3600 % 100, out);
        if !seconds.is_multiple_of(3600) {
            out.put_u8(b':');
            put_two(seconds / 60 % 60, out);
        }
        if !seconds.is_multiple_of(60) {
            out.put_u8(b':');
            put_two(seconds % 60, out);
        }
    }
    if bc {
        out.put_slice(b" BC");
    }
}

/// `IntervalStyle = postgres`: a field after a negative one carries its `+`.
pub(crate) fn write_interval(value: Interval, out: &mut BytesMut) {
    let mut empty = true;
    let mut after_negative = false;
    for (count, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count == 0 {
            continue;
        }
        if !empty {
            out.put_u8(b' ');
        }
        if after_negative && count > 0 {
            out.put_u8(b'+');
        }
        write_int(count as i64, out);
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if count != 1 {
            out.put_u8(b's');
        }
        empty = false;
        after_negative = count < 0;
    }
    if empty || value.us != 0 {
        if !empty {
            out.put_u8(b' ');
        }
        if value.us < 0 {
            out.put_u8(b'-');
        } else if after_negative {
            out.put_u8(b'+');
        }
        write_time(value.us.unsigned_abs(), out);
    }
}
