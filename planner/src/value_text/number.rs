//! Numbers as PostgreSQL prints them, written straight into the output.

use std::fmt::Write;

/// A small buffer for `write!` that never allocates; what does not fit is cut (callers size it for the worst case).
pub struct Stack<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Stack<N> {
    fn default() -> Self {
        Stack::new()
    }
}

impl<const N: usize> Stack<N> {
    #[must_use]
    pub fn new() -> Self {
        Stack { bytes: [0; N], len: 0 }
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
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

/// Appends a text; outputs are memory, which does not refuse it.
pub(super) fn put(text: &str, out: &mut impl Write) {
    let _ = out.write_str(text);
}

/// Appends digits.
fn put_digits(digits: &[u8], out: &mut impl Write) {
    put(std::str::from_utf8(digits).unwrap_or(""), out);
}

fn put_zeros(count: usize, out: &mut impl Write) {
    for _ in 0..count {
        put("0", out);
    }
}

/// With its sign.
pub fn write_int(value: i64, out: &mut impl Write) {
    if value < 0 {
        put("-", out);
    }
    write_unsigned(value.unsigned_abs(), out);
}

/// In decimal digits.
pub fn write_unsigned(mut value: u64, out: &mut impl Write) {
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
    put_digits(&digits[at..], out);
}

/// At least `width` digits, zero-padded.
pub fn write_padded(value: u64, width: usize, out: &mut impl Write) {
    let mut digits = 1;
    let mut rest = value / 10;
    while rest > 0 {
        digits += 1;
        rest /= 10;
    }
    put_zeros(width.saturating_sub(digits), out);
    write_unsigned(value, out);
}

/// `double precision`: shortest digits that read back as `value` when `extra_digits > 0`, else `%.{15+n}g`.
pub fn write_float8(value: f64, extra_digits: i32, out: &mut impl Write) {
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
pub fn write_float4(value: f32, extra_digits: i32, out: &mut impl Write) {
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

fn write_special(value: f64, out: &mut impl Write) -> bool {
    let text = match value {
        v if v.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        v if v == 0.0 && v.is_sign_negative() => "-0",
        0.0 => "0",
        _ => return false,
    };
    put(text, out);
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
fn write_significant(value: f64, digits: usize, out: &mut impl Write) {
    let mut s = Stack::<40>::new();
    let precision = digits.min(20) - 1;
    let _ = write!(s, "{:.precision$e}", value.abs());
    layout(s.str(), value.is_sign_negative(), digits as i32, out);
}

/// Lays out `d.ddde±x` as C's `%g` would: plain between 1e-4 and 10^`fixed_below`, else with a two-digit exponent.
fn layout(text: &str, negative: bool, fixed_below: i32, out: &mut impl Write) {
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
        put("-", out);
    }
    if exponent < -4 || exponent >= fixed_below {
        put_digits(&digits[..1], out);
        if count > 1 {
            put(".", out);
            put_digits(&digits[1..], out);
        }
        put(if exponent < 0 { "e-" } else { "e+" }, out);
        write_padded(exponent.unsigned_abs() as u64, 2, out);
    } else if exponent < 0 {
        put("0.", out);
        put_zeros((-exponent - 1) as usize, out);
        put_digits(digits, out);
    } else {
        let whole = exponent as usize + 1;
        if count <= whole {
            put_digits(digits, out);
            put_zeros(whole - count, out);
        } else {
            put_digits(&digits[..whole], out);
            put(".", out);
            put_digits(&digits[whole..], out);
        }
    }
}
