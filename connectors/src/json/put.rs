//! Values from where they stand in a message to the end of a column, in the forms that they mostly have.

use super::{
    Epoch, Field, iso,
    word::{At, Number, TENS, byte, copy_piece, number, whole},
};
use crate::column::{Bytes, Values};
use tidemark_catalog::SqlType;

/// 10^0 to 10^22: the powers of ten that are doubles.
const REAL_TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A value as it mostly is in JSON, to the column; where it ends. `None`: it is something else, and the column as it was.
///
/// What is put where lies in a function for each kind: so each has the registers for itself.
#[inline(always)]
pub(super) fn value(bytes: &[u8], at: At, field: &Field, values: &mut Values) -> Option<At> {
    match values {
        Values::Int8(values) => put_whole(bytes, at, values),
        Values::Float8(values) => put_real(bytes, at, values),
        Values::Text(texts) if matches!(field.column.ty, SqlType::Text) => put_text(bytes, at, texts),
        Values::Timestamp(values) => put_timestamp(bytes, at, field.epoch, values),
        Values::Numeric(values) => put_unscaled(bytes, at, &field.column.ty, values),
        values => put_other(bytes, at, values),
    }
}

#[inline(never)]
fn put_whole(bytes: &[u8], at: At, values: &mut Vec<i64>) -> Option<At> {
    let (x, end) = whole(bytes, at)?;
    values.push(x);
    Some(end)
}

#[inline(never)]
fn put_real(bytes: &[u8], at: At, values: &mut Vec<f64>) -> Option<At> {
    let (x, end) = real(bytes, at)?;
    values.push(x);
    Some(end)
}

#[inline(never)]
fn put_text(bytes: &[u8], at: At, texts: &mut Bytes) -> Option<At> {
    if byte(bytes, at) != b'"' {
        return None;
    }
    texts.push_with(|into| {
        let begin = into.len();
        let piece = copy_piece(bytes, at + 1, into);
        let is_text = piece.stop == b'"' && (piece.is_ascii || std::str::from_utf8(&into[begin..]).is_ok());
        if is_text { Some(piece.end + 1) } else { None }
    })
}

#[inline(never)]
fn put_timestamp(bytes: &[u8], at: At, epoch: Option<Epoch>, values: &mut Vec<i64>) -> Option<At> {
    if byte(bytes, at) == b'"' {
        let (x, end) = iso::timestamp(bytes, at + 1)?;
        values.push(x);
        return Some(end + 1);
    }
    let epoch = epoch?;
    let (x, end) = match whole(bytes, at) {
        Some((amount, end)) => (amount.checked_mul(epoch.us())?, end),
        None => {
            let number = number(bytes, at)?;
            (signed(number.is_negative, units(&number, epoch.scale())?)?, number.end)
        }
    };
    values.push(x);
    Some(end)
}

#[inline(never)]
fn put_unscaled(bytes: &[u8], at: At, ty: &SqlType, values: &mut Vec<i128>) -> Option<At> {
    let SqlType::Numeric { precision, scale } = ty else { return None };
    let number = number(bytes, at)?;
    let units = units(&number, *scale)?;
    // With a precision of 20 and more everything is within it.
    if TENS.get(usize::from(*precision)).is_some_and(|limit| units >= *limit) {
        return None;
    }
    values.push(if number.is_negative { -i128::from(units) } else { i128::from(units) });
    Some(number.end)
}

#[inline(never)]
fn put_other(bytes: &[u8], at: At, values: &mut Values) -> Option<At> {
    Some(match values {
        Values::Int4(values) => {
            let (x, end) = whole(bytes, at)?;
            values.push(i32::try_from(x).ok()?);
            end
        }
        Values::Int2(values) => {
            let (x, end) = whole(bytes, at)?;
            values.push(i16::try_from(x).ok()?);
            end
        }
        Values::Float4(values) => {
            let (x, end) = real(bytes, at)?;
            values.push(x as f32);
            end
        }
        Values::Date(values) if byte(bytes, at) == b'"' => {
            let (x, end) = iso::date(bytes, at + 1)?;
            values.push(x);
            end + 1
        }
        Values::Bool(values) if bytes[at as usize..].starts_with(b"true") => {
            values.append(true);
            at + 4
        }
        Values::Bool(values) if bytes[at as usize..].starts_with(b"false") => {
            values.append(false);
            at + 5
        }
        _ => return None,
    })
}

#[inline(always)]
fn signed(is_negative: bool, amount: u64) -> Option<i64> {
    let amount = i64::try_from(amount).ok()?;
    Some(if is_negative { -amount } else { amount })
}

/// Where both the digits and the power of ten are doubles, one division rounds as it must (Clinger, "How to read floating point numbers
/// accurately").
#[inline(always)]
fn real(bytes: &[u8], at: At) -> Option<(f64, At)> {
    let Number { is_negative, digits, places, end } = number(bytes, at)?;
    if digits >= 1 << 53 {
        return Some((std::str::from_utf8(&bytes[at as usize..end as usize]).ok()?.parse().ok()?, end));
    }
    let amount = digits as f64 / REAL_TENS[places as usize];
    Some((if is_negative { -amount } else { amount }, end))
}

/// In units of 10^-scale, without the sign; what has more places is somebody else's to round.
#[inline(always)]
fn units(number: &Number, scale: i8) -> Option<u64> {
    let missing = usize::try_from(scale).ok()?.checked_sub(number.places as usize)?;
    number.digits.checked_mul(*TENS.get(missing)?)
}
