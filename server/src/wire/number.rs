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
        if let Some(digits) = needs_care(s.str(), mantissa, exponent, 1 << 52) {
            let fits =
                |text: &str| text.parse::<f64>() == Ok(value.abs()) && !is_midpoint(text, mantissa, exponent, 1 << 52);
            s = closest(digits, fits, value.abs()).unwrap_or(s);
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
        if let Some(digits) = needs_care(s.str(), mantissa, exponent, 1 << 23) {
            let fits =
                |text: &str| text.parse::<f32>() == Ok(value.abs()) && !is_midpoint(text, mantissa, exponent, 1 << 23);
            s = closest(digits, fits, value.abs() as f64).unwrap_or(s);
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

/// `d.ddde±x` as an integer, the power of ten it is multiplied by, and its number of digits.
fn as_integer(text: &str) -> Option<(u128, i32, usize)> {
    let (digits, power) = text.split_once('e')?;
    let mut power = power.parse::<i32>().ok()?;
    let (mut decimal, mut count) = (0u128, 0);
    for b in digits.bytes().filter(u8::is_ascii_digit).take(20) {
        decimal = decimal * 10 + (b - b'0') as u128;
        count += 1;
    }
    power -= count as i32 - 1;
    Some((decimal, power, count))
}

/// `decimal * 10^power` as an odd number and a power of two; `None` where it is no such number, or too long to be a
/// float's exact value.
fn odd_and_twos(decimal: u128, power: i32) -> Option<(u128, i32)> {
    let fives = power.unsigned_abs();
    if decimal == 0 || fives > 40 {
        return None;
    }
    let scale = 5u128.pow(fives);
    let product = match power {
        0.. => decimal.checked_mul(scale)?,
        _ if decimal.is_multiple_of(scale) => decimal / scale,
        _ => return None,
    };
    let twos = product.trailing_zeros();
    Some((product >> twos, twos as i32 + power))
}

/// Whether the digits lie exactly half way to a neighbouring float. Rust accepts such a bound where ties-to-even would
/// read it back; PostgreSQL never prints one (1e23 is 9.999999999999999e+22).
fn is_midpoint(text: &str, mantissa: u64, exponent: i32, smallest_normal: u64) -> bool {
    let Some(exact) = as_integer(text).and_then(|(decimal, power, _)| odd_and_twos(decimal, power)) else {
        return false;
    };
    let twice = 2 * mantissa as u128;
    let lower = if mantissa == smallest_normal {
        (2 * twice - 1, exponent - 2)
    } else {
        (twice.saturating_sub(1), exponent - 1)
    };
    exact == (twice + 1, exponent - 1) || exact == lower
}

/// The number of digits, when the shortest digits are a midpoint, or when the float lies exactly between them and
/// others of that length: there Rust rounds up and PostgreSQL to even.
fn needs_care(text: &str, mantissa: u64, exponent: i32, smallest_normal: u64) -> Option<usize> {
    let (decimal, power, count) = as_integer(text)?;
    let zeros = mantissa.trailing_zeros() as i32;
    let value = (mantissa as u128 >> zeros, exponent + zeros);
    let tie = [decimal * 10 + 5, decimal * 10 - 5].iter().any(|d| odd_and_twos(*d, power - 1) == Some(value));
    (tie || is_midpoint(text, mantissa, exponent, smallest_normal)).then_some(count)
}

/// The correctly rounded decimal (ties to even) with the fewest digits, at least `digits`, that fits.
fn closest(digits: usize, fits: impl Fn(&str) -> bool, value: f64) -> Option<Stack<40>> {
    (digits - 1..17).find_map(|precision| {
        let mut s = Stack::<40>::new();
        let _ = write!(s, "{value:.precision$e}");
        fits(s.str()).then_some(s)
    })
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
