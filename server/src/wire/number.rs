//! Numbers as PostgreSQL prints them, written straight into the output.

use bytes::{BufMut, BytesMut};
use std::fmt::Write;

/// A small buffer for `write!` that never allocates; what does not fit is cut (callers size it for the worst case).
pub(crate) struct Stack<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Stack<N> {
    pub(crate) fn new() -> Self {
        Stack { bytes: [0; N], len: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn str(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or("")
    }
}

impl<const N: usize> Write for Stack<N> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let n = s.len().min(room.len());
        room[..n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        if n == s.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}

pub(crate) fn write_int(value: i64, out: &mut BytesMut) {
    if value < 0 {
        out.put_u8(b'-');
    }
    write_unsigned(value.unsigned_abs(), out);
}

pub(crate) fn write_unsigned(mut value: u64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// At least `width` digits, zero-padded.
pub(crate) fn write_padded(value: u64, width: usize, out: &mut BytesMut) {
    let mut digits = 1;
    let mut rest = value / 10;
    while rest > 0 {
        digits += 1;
        rest /= 10;
    }
    for _ in digits..width {
        out.put_u8(b'0');
    }
    write_unsigned(value, out);
}

/// `double precision`: shortest digits that read back as `value` when `extra_digits > 0`, else `%.{15+n}g`.
pub(crate) fn write_float8(value: f64, extra_digits: i32, out: &mut BytesMut) {
    if write_special(value, out) {
        return;
    }
    if extra_digits > 0 {
        let mut s = Stack::<40>::new();
        let _ = write!(s, "{:e}", value.abs());
        let bits = value.abs().to_bits();
        let (mantissa, exponent) = decompose(bits & ((1 << 52) - 1), (bits >> 52) as i32, 52, 1075);
        if is_midpoint(s.str(), mantissa, exponent, 1 << 52) {
            s = lengthen(s, |text| text.parse::<f64>() == Ok(value.abs()), value.abs());
        }
        layout(s.str(), value.is_sign_negative(), 15, out);
    } else {
        write_significant(value, (15 + extra_digits).max(1) as usize, out);
    }
}

/// `real`, likewise with 6 digits.
pub(crate) fn write_float4(value: f32, extra_digits: i32, out: &mut BytesMut) {
    if write_special(value as f64, out) {
        return;
    }
    if extra_digits > 0 {
        let mut s = Stack::<40>::new();
        let _ = write!(s, "{:e}", value.abs());
        let bits = value.abs().to_bits();
        let (mantissa, exponent) = decompose((bits & ((1 << 23) - 1)) as u64, (bits >> 23) as i32, 23, 150);
        if is_midpoint(s.str(), mantissa, exponent, 1 << 23) {
            s = lengthen(s, |text| text.parse::<f32>() == Ok(value.abs()), value.abs() as f64);
        }
        layout(s.str(), value.is_sign_negative(), 6, out);
    } else {
        write_significant(value as f64, (6 + extra_digits).max(1) as usize, out);
    }
}

fn write_special(value: f64, out: &mut BytesMut) -> bool {
    let text: &[u8] = match value {
        v if v.is_nan() => b"NaN",
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        v if v == 0.0 && v.is_sign_negative() => b"-0",
        0.0 => b"0",
        _ => return false,
    };
    out.put_slice(text);
    true
}

/// `value = mantissa * 2^exponent`.
fn decompose(fraction: u64, biased: i32, fraction_bits: u32, bias: i32) -> (u64, i32) {
    if biased == 0 { (fraction, 1 - bias) } else { (fraction | 1 << fraction_bits, biased - bias) }
}

/// Whether shortest digits `d.ddde±x` lie exactly half way to a neighbouring float. Rust accepts such a bound where
/// ties-to-even would read it back; PostgreSQL never prints one (1e23 is 9.999999999999999e+22).
fn is_midpoint(text: &str, mantissa: u64, exponent: i32, smallest_normal: u64) -> bool {
    if mantissa & 1 == 1 {
        return false;
    }
    let Some((digits, power)) = text.split_once('e') else { return false };
    let Ok(mut power) = power.parse::<i32>() else { return false };
    let mut decimal: u128 = 0;
    for (i, b) in digits.bytes().enumerate() {
        if b.is_ascii_digit() {
            decimal = decimal * 10 + (b - b'0') as u128;
            power -= i32::from(i > 1);
        }
    }
    // decimal * 10^power as odd * 2^twos
    let fives = power.unsigned_abs();
    if decimal == 0 || fives > 27 {
        return false;
    }
    let scale = 5u128.pow(fives);
    let odd_part = if power >= 0 {
        let Some(product) = decimal.checked_mul(scale) else { return false };
        product
    } else if decimal % scale == 0 {
        decimal / scale
    } else {
        return false;
    };
    let twos = odd_part.trailing_zeros() as i32 + power;
    let odd = odd_part >> odd_part.trailing_zeros();
    let upper = odd == 2 * mantissa as u128 + 1 && twos == exponent - 1;
    let lower = if mantissa == smallest_normal {
        odd == 4 * mantissa as u128 - 1 && twos == exponent - 2
    } else {
        odd == (2 * mantissa as u128).wrapping_sub(1) && twos == exponent - 1
    };
    upper || lower
}

/// The closest decimal with the fewest more digits that reads back.
fn lengthen(shortest: Stack<40>, reads_back: impl Fn(&str) -> bool, value: f64) -> Stack<40> {
    let digits = shortest.str().bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    for precision in digits.saturating_sub(1)..17 {
        let mut s = Stack::<40>::new();
        let _ = write!(s, "{value:.precision$e}");
        if s.bytes() != shortest.bytes() && reads_back(s.str()) {
            return s;
        }
    }
    shortest
}

/// `%.{digits}g`.
fn write_significant(value: f64, digits: usize, out: &mut BytesMut) {
    let mut s = Stack::<40>::new();
    let precision = digits.min(20) - 1;
    let _ = write!(s, "{:.precision$e}", value.abs());
    layout(s.str(), value.is_sign_negative(), digits as i32, out);
}

/// Lays out `d.ddde±x` as C's `%g` would: plain between 1e-4 and 10^`fixed_below`, else with a two-digit exponent.
fn layout(text: &str, negative: bool, fixed_below: i32, out: &mut BytesMut) {
    let Some((mantissa, exponent)) = text.split_once('e') else { return };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits = [b'0'; 32];
    let mut count = 0;
    for b in mantissa.bytes().filter(u8::is_ascii_digit).take(32) {
        digits[count] = b;
        count += 1;
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let digits = &digits[..count];
    if negative {
        out.put_u8(b'-');
    }
    if exponent < -4 || exponent >= fixed_below {
        out.put_u8(digits[0]);
        if count > 1 {
            out.put_u8(b'.');
            out.put_slice(&digits[1..]);
        }
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        write_padded(exponent.unsigned_abs() as u64, 2, out);
    } else if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        out.put_slice(digits);
    } else {
        let whole = exponent as usize + 1;
        if count <= whole {
            out.put_slice(digits);
            out.put_bytes(b'0', whole - count);
        } else {
            out.put_slice(&digits[..whole]);
            out.put_u8(b'.');
            out.put_slice(&digits[whole..]);
        }
    }
}

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
