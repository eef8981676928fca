//! `round` as PostgreSQL has it: a `numeric` half away from zero, keeping its type; a double half to even.
//!
//! DataFusion's gives a `numeric` another scale where it can see the digits at planning, and then does not always find them
//! again: the value was off by a power of ten. Doubles with a number of digits, which PostgreSQL does not have, are its business.

use arrow::{
    array::{Array, AsArray, Decimal128Array},
    compute::cast,
    datatypes::{Decimal128Type, Float32Type, Float64Type, Int32Type},
};
use arrow_schema::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::{
    common::exec_datafusion_err,
    error::Result,
    functions::math::round::RoundFunc,
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};
use std::sync::Arc;

pub fn round() -> ScalarUDF {
    ScalarUDF::from(Round { plain: RoundFunc::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Round {
    plain: RoundFunc,
}

impl ScalarUDFImpl for Round {
    fn name(&self) -> &str {
        "round"
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields[0].data_type() {
            // 9.5 has one digit less than what it is rounded to.
            DataType::Decimal128(precision, scale) => {
                let precision = precision.saturating_add(1).min(DECIMAL128_MAX_PRECISION);
                let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
                Ok(Arc::new(Field::new(self.name(), DataType::Decimal128(precision, *scale), nullable)))
            }
            _ => self.plain.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (ty, count) = (args.arg_fields[0].data_type().clone(), args.args.len());
        match (&ty, count) {
            (DataType::Decimal128(_, scale), _) => {
                let arrays = ColumnarValue::values_to_arrays(&args.args)?;
                let digits = arrays.get(1).map(|digits| cast(digits, &DataType::Int32)).transpose()?;
                let DataType::Decimal128(precision, _) = args.return_field.data_type() else {
                    return Err(exec_datafusion_err!("round of numeric is numeric"));
                };
                let values = arrays[0].as_primitive::<Decimal128Type>();
                let digits = digits.as_ref().map(|digits| digits.as_primitive::<Int32Type>());
                let rounded: Decimal128Array = (0..values.len())
                    .map(|row| {
                        let known = values.is_valid(row) && digits.is_none_or(|digits| digits.is_valid(row));
                        known.then(|| decimal(values.value(row), *scale, digits.map_or(0, |digits| digits.value(row))))
                    })
                    .collect();
                let rounded = rounded.with_precision_and_scale(*precision, *scale)?;
                Ok(ColumnarValue::Array(Arc::new(rounded)))
            }
            (DataType::Float64, 1) => {
                let arrays = ColumnarValue::values_to_arrays(&args.args)?;
                let values = arrays[0].as_primitive::<Float64Type>();
                Ok(ColumnarValue::Array(Arc::new(values.unary::<_, Float64Type>(f64::round_ties_even))))
            }
            (DataType::Float32, 1) => {
                let arrays = ColumnarValue::values_to_arrays(&args.args)?;
                let values = arrays[0].as_primitive::<Float32Type>();
                Ok(ColumnarValue::Array(Arc::new(values.unary::<_, Float32Type>(f32::round_ties_even))))
            }
            _ => self.plain.invoke_with_args(args),
        }
    }
}

/// Half away from zero at `digits` behind the point.
fn decimal(value: i128, scale: i8, digits: i32) -> i128 {
    let dropped = i32::from(scale).saturating_sub(digits);
    if dropped <= 0 {
        return value;
    }
    match 10i128.checked_pow(dropped.unsigned_abs()) {
        Some(unit) => match value.checked_add(value.signum() * (unit / 2)) {
            Some(sum) => sum / unit * unit,
            None => value / unit * unit,
        },
        // All of its digits.
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        for (value, scale, digits, expected) in [
            (1005, 3, 2, 1010),
            (-1005, 3, 2, -1010),
            (1004, 3, 2, 1000),
            (1004, 3, 5, 1004),
            (149, 2, 0, 100),
            (150, 2, 0, 200),
            (14_900, 2, -2, 10_000),
            (15_000, 2, -2, 20_000),
            (i128::MAX, 0, -50, 0),
        ] {
            assert_eq!(decimal(value, scale, digits), expected, "{value}e-{scale} at {digits}");
        }
    }
}
