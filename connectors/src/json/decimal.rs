//! Decimal notation as whole numbers of a unit, digit by digit: no double lies between what was written and what is kept.

/// What is left over between a number and the whole number of units at or below its amount.
enum Rest {
    None,
    BelowHalf,
    Half,
}

/// The number as so many units of 10^-scale towards zero, whether it is negative, and what was cut off.
fn cut(written: &str, scale: i8) -> Option<(u128, bool, Rest)> {
    let (is_negative, digits) = match written.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, written),
    };
    let (digits, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // How many of the digits are units or more.
    let kept = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let (mut units, mut rest) = (0u128, Rest::None);
    for (at, digit) in (0i64..).zip(whole.bytes().chain(fraction.bytes())) {
        let digit = u128::from(digit - b'0');
        match () {
            () if at < kept => units = units.checked_mul(10)?.checked_add(digit)?,
            () if at == kept && digit >= 5 => rest = Rest::Half,
            () if digit > 0 && matches!(rest, Rest::None) => rest = Rest::BelowHalf,
            () => {}
        }
    }
    let missing = kept - i64::try_from(whole.len() + fraction.len()).ok()?;
    if units > 0 && missing > 0 {
        units = units.checked_mul(10u128.checked_pow(u32::try_from(missing).ok()?)?)?;
    }
    Some((units, is_negative, rest))
}

fn signed(units: u128, is_negative: bool) -> Option<i128> {
    let units = i128::try_from(units).ok()?;
    Some(if is_negative { -units } else { units })
}

/// In units of 10^-scale, halves away from zero, as PostgreSQL rounds; `None`: no number, or too great.
pub(super) fn rounded(written: &str, scale: i8) -> Option<i128> {
    let (units, is_negative, rest) = cut(written, scale)?;
    signed(if matches!(rest, Rest::Half) { units.checked_add(1)? } else { units }, is_negative)
}

/// In units of 10^-scale, downwards.
pub(super) fn floored(written: &str, scale: i8) -> Option<i128> {
    let (units, is_negative, rest) = cut(written, scale)?;
    signed(if is_negative && !matches!(rest, Rest::None) { units.checked_add(1)? } else { units }, is_negative)
}

/// In units of 10^-scale; `None` also where that is not all of it.
pub(super) fn exact(written: &str, scale: i8) -> Option<i128> {
    let (units, is_negative, rest) = cut(written, scale)?;
    if matches!(rest, Rest::None) { signed(units, is_negative) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept_and_the_rest_is_rounded_as_asked() {
        // written, scale, rounded, floored, exact
        let cases = [
            ("0", 2, Some(0), Some(0), Some(0)),
            ("12.345", 2, Some(1235), Some(1234), None),
            ("-12.345", 2, Some(-1235), Some(-1235), None),
            ("-12.344", 2, Some(-1234), Some(-1235), None),
            ("1e3", 2, Some(100_000), Some(100_000), Some(100_000)),
            ("1.5e-3", 3, Some(2), Some(1), None),
            ("0.0004", 3, Some(0), Some(0), None),
            ("4e-20", 2, Some(0), Some(0), None),
            ("9e-1", 0, Some(1), Some(0), None),
            ("0e999999", 2, Some(0), Some(0), Some(0)),
            ("1e40", 2, None, None, None),
            (
                "99999999999999999999999999999999999999",
                0,
                Some(10i128.pow(38) - 1),
                Some(10i128.pow(38) - 1),
                Some(10i128.pow(38) - 1),
            ),
            ("1500", -2, Some(15), Some(15), Some(15)),
            ("", 0, None, None, None),
            ("1_0", 0, None, None, None),
            ("+1", 0, None, None, None),
        ];
        for (written, scale, is_rounded, is_floored, is_exact) in cases {
            assert_eq!(
                (rounded(written, scale), floored(written, scale), exact(written, scale)),
                (is_rounded, is_floored, is_exact),
                "{written} {scale}"
            );
        }
    }
}
