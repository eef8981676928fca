//! `div`, and `width_bucket`, the part of a range in which a number is: exact for whole numbers and `numeric`.

use super::by_row::{ByRow, float, int, no_match};
use crate::{PlanError, PlanResult, error::sqlstate};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::Float64Type,
};
use arrow_schema::{DECIMAL128_MAX_PRECISION, DataType, Field};
use datafusion::{common::ScalarValue, error::Result, logical_expr::ScalarUDF};
use std::sync::Arc;

const WHOLE: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [
        ByRow::strict(
            "div",
            |types| match types {
                [_, _] => decimals("div", types),
                _ => no_match("div", types),
            },
            WHOLE,
            |args, _| {
                let (left, right) = (unscaled(&args[0]), unscaled(&args[1]));
                let by_zero = || PlanError::new("22012", "division by zero");
                let quotient = left.checked_div(right).ok_or_else(by_zero)?;
                Ok(ScalarValue::Decimal128(Some(quotient), DECIMAL128_MAX_PRECISION, 0))
            },
        ),
        ByRow::strict("width_bucket", bounds, DataType::Int32, |args, _| {
            let bucket = match args {
                [number, bounds] => reached(float(number), bounds)?,
                [number, from, to, count] => match number {
                    ScalarValue::Float64(_) => of_doubles(float(number), float(from), float(to), int(count))?,
                    _ => of_decimals(unscaled(number), unscaled(from), unscaled(to), int(count))?,
                },
                _ => 0,
            };
            let bucket =
                i32::try_from(bucket).map_err(|_| PlanError::new(sqlstate::OUT_OF_RANGE, "integer out of range"))?;
            Ok(ScalarValue::Int32(Some(bucket)))
        }),
    ]
    .into_iter()
}

/// Digits behind the point of a double that `div` reads as `numeric`.
const LITERAL_SCALE: i8 = 10;

/// All of one scale, which has room for the digits of each.
fn decimals(name: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    let mut scale = 0;
    for ty in types {
        match ty {
            DataType::Decimal128(_, own) => scale = scale.max(*own),
            DataType::Null => {}
            whole if whole.is_integer() => {}
            // A number literal with a point.
            double if double.is_floating() => scale = scale.max(LITERAL_SCALE),
            _ => return no_match(name, types),
        }
    }
    Ok(vec![DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale); types.len()])
}

fn bounds(types: &[DataType]) -> Result<Vec<DataType>> {
    let doubles = || DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    match types {
        [number, DataType::List(_)] if number.is_numeric() || number.is_null() => {
            Ok(vec![DataType::Float64, doubles()])
        }
        [ends @ .., count] if ends.len() == 3 && (count.is_integer() || count.is_null()) => {
            let ends = match ends.iter().any(DataType::is_floating) {
                true if ends.iter().all(|end| end.is_numeric() || end.is_null()) => vec![DataType::Float64; 3],
                true => return no_match("width_bucket", types),
                false => decimals("width_bucket", ends)?,
            };
            Ok(ends.into_iter().chain([DataType::Int64]).collect())
        }
        _ => no_match("width_bucket", types),
    }
}

fn unscaled(value: &ScalarValue) -> i128 {
    match value {
        ScalarValue::Decimal128(Some(value), ..) => *value,
        _ => 0,
    }
}

/// How many of the bounds, which ascend, are not above the number.
fn reached(number: f64, bounds: &ScalarValue) -> PlanResult<i64> {
    let ScalarValue::List(list) = bounds else { return Ok(0) };
    let bounds: ArrayRef = list.value(0);
    if bounds.null_count() > 0 {
        return Err(PlanError::new("22004", "thresholds array must not contain NULLs"));
    }
    let bounds = bounds.as_primitive::<Float64Type>();
    // NaN is the greatest, as everywhere in PostgreSQL.
    let count = bounds.iter().flatten().filter(|bound| *bound <= number || number.is_nan()).count();
    Ok(count.try_into().unwrap_or(i64::MAX))
}

fn of_doubles(number: f64, from: f64, to: f64, count: i64) -> PlanResult<i64> {
    check(count, from == to)?;
    if number.is_nan() || from.is_nan() || to.is_nan() {
        return Err(refused("operand, lower bound, and upper bound cannot be NaN"));
    }
    if from.is_infinite() || to.is_infinite() {
        return Err(refused("lower and upper bounds must be finite"));
    }
    let (below, above) = if from < to { (number < from, number >= to) } else { (number > from, number <= to) };
    if below || above {
        return Ok(if above { count + 1 } else { 0 });
    }
    let part = (count as f64 * ((number - from) / (to - from))) as i64;
    Ok(part.min(count - 1) + 1)
}

fn of_decimals(number: i128, from: i128, to: i128, count: i64) -> PlanResult<i64> {
    check(count, from == to)?;
    let (below, above) = if from < to { (number < from, number >= to) } else { (number > from, number <= to) };
    if below || above {
        return Ok(if above { count + 1 } else { 0 });
    }
    let too_long = || PlanError::new(sqlstate::OUT_OF_RANGE, "numeric out of range");
    let (length, over) = (to.checked_sub(from), number.checked_sub(from));
    let part = over.and_then(|over| over.checked_mul(count.into())).zip(length).map(|(over, length)| over / length);
    part.and_then(|part| i64::try_from(part + 1).ok()).ok_or_else(too_long)
}

fn check(count: i64, is_empty: bool) -> PlanResult<()> {
    // One more than the last has to be an integer, too.
    if count <= 0 || count >= i64::from(i32::MAX) {
        return Err(refused("count must be greater than zero, and an integer"));
    }
    if is_empty { Err(refused("lower bound cannot equal upper bound")) } else { Ok(()) }
}

/// 2201G, as PostgreSQL.
fn refused(message: &str) -> PlanError {
    PlanError::new("2201G", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 counts.
    #[test]
    fn a_number_is_in_the_bucket_whose_lower_bound_it_has_reached() {
        for (number, from, to, count, expected) in
            [(535, 2, 1006, 5, 3), (0, 2, 1006, 5, 0), (1100, 2, 1006, 5, 6), (3, 10, 0, 5, 4), (10, 10, 0, 5, 1)]
        {
            assert_eq!(of_decimals(number, from, to, count).expect("a bucket"), expected);
            let doubles = of_doubles(number as f64, from as f64, to as f64, count);
            assert_eq!(doubles.expect("a bucket"), expected, "{number}");
        }
        assert_eq!(of_doubles(0.3, 0.0, 1.0, 10).expect("a bucket"), 4);
        assert!(of_doubles(f64::NAN, 0.0, 1.0, 10).is_err());
        assert!(of_decimals(1, 1, 1, 10).is_err() && of_decimals(1, 1, 2, 0).is_err());
    }
}
