//! Numbers as PostgreSQL sends them. How integers and floats are printed, casts to text and the encoder have in common
//! ([`tidemark_planner::value_text`]); here are numerics, of which the encoder has the digits.

use bytes::{BufMut, BytesMut};

pub(crate) use tidemark_planner::value_text::number::{Stack, write_float4, write_float8, write_int, write_unsigned};

/// An unscaled decimal integer as text, e.g. `-150` with scale 2 as `-1.50`.
pub(crate) fn write_numeric_text(unscaled: &[u8], scale: i32, out: &mut BytesMut) {
    let (negative, digits) = split_sign(unscaled);
    if negative {
        out.put_u8(b'-');
    }
    if scale <= 0 {
        out.put_slice(digits);
        if digits != b"0" {
            out.put_bytes(b'0', scale.unsigned_abs() as usize);
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.put_slice(whole);
        out.put_u8(b'.');
        out.put_slice(fraction);
    } else {
        out.put_slice(b"0.");
        out.put_bytes(b'0', scale - digits.len());
        out.put_slice(digits);
    }
}

/// The same in PostgreSQL's binary form: base-10000 digits without leading or trailing zero groups.
pub(crate) fn write_numeric_binary(unscaled: &[u8], scale: i32, out: &mut BytesMut) {
    let (negative, digits) = split_sign(unscaled);
    // Powers of ten: digit i stands for 10^(len - 1 - i - scale); groups are aligned at the decimal point.
    let whole_len = digits.len() as i32 - scale;
    let first_group = (whole_len - 1).div_euclid(4);
    let last_group = (-scale).div_euclid(4);
    let digit_at = |power: i32| -> u16 {
        let index = whole_len - 1 - power;
        match usize::try_from(index).ok().and_then(|i| digits.get(i)) {
            Some(d) => (d - b'0') as u16,
            None => 0,
        }
    };
    let group = |g: i32| -> u16 { (0..4).rev().fold(0, |value, i| value * 10 + digit_at(g * 4 + i)) };
    let (mut first, mut last) = (first_group, last_group);
    while first >= last && group(first) == 0 {
        first -= 1;
    }
    while last <= first && group(last) == 0 {
        last += 1;
    }
    let count = (first - last + 1).max(0);
    out.put_i16(count as i16);
    out.put_i16(if count == 0 { 0 } else { first as i16 });
    out.put_u16(if negative && count > 0 { 0x4000 } else { 0 });
    out.put_u16(scale.max(0) as u16);
    for g in (last..=first).rev().take(count as usize) {
        out.put_u16(group(g));
    }
}

fn split_sign(unscaled: &[u8]) -> (bool, &[u8]) {
    match unscaled.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, unscaled),
    }
}
