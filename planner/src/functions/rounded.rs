//! `2.5::integer` is 3: PostgreSQL rounds where Arrow's casts cut off. A `numeric` is rounded half away from zero, a
//! double half to even.

use crate::each_expression::each_expression;
use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{Decimal128Type, Float32Type, Float64Type},
};
use arrow_schema::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        exec_err,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        expr::{Cast, TryCast},
    },
    optimizer::AnalyzerRule,
};
use std::sync::{Arc, LazyLock};

/// The name under which it stands in a plan; its one argument is what is cast.
pub(crate) const ROUNDED: &str = "rounded";

/// The rule for ordinary queries; comes after type coercion.
#[derive(Debug)]
pub struct RoundedCasts;

impl AnalyzerRule for RoundedCasts {
    fn name(&self) -> &str {
        "rounded_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rounded_casts(plan)
    }
}

/// A coerced plan in which what is cast to an integer is rounded first.
pub fn rounded_casts(plan: LogicalPlan) -> Result<LogicalPlan> {
    each_expression(plan, rounded)
}

/// The same for one expression over `schema`. A second time it changes nothing.
pub fn rounded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        let (Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field })) = &mut expr
        else {
            return Ok(Transformed::no(expr));
        };
        let is_rounded = matches!(inner.as_ref(), Expr::ScalarFunction(call) if call.name() == ROUNDED);
        let has_fraction = |ty: DataType| {
            matches!(ty, DataType::Float32 | DataType::Float64) || matches!(ty, DataType::Decimal128(_, 1..))
        };
        if is_rounded || !field.data_type().is_integer() || !inner.get_type(schema).is_ok_and(has_fraction) {
            return Ok(Transformed::no(expr));
        }
        **inner = ROUND.call(vec![std::mem::take(inner)]);
        Ok(Transformed::yes(expr))
    })
}

static ROUND: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::from(Rounded { signature: Signature::any(1, Volatility::Immutable) }));

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounded {
    signature: Signature,
}

impl ScalarUDFImpl for Rounded {
    fn name(&self) -> &str {
        ROUNDED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types.first() {
            // 9.5 has one digit less than what it is rounded to.
            Some(DataType::Decimal128(_, scale)) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
            other => other.cloned().unwrap_or(DataType::Null),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(round(&values[0])?))
    }
}

fn round(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float32 => {
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
        }
        DataType::Float64 => {
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
        }
        DataType::Decimal128(_, scale) => {
            let one = 10i128.pow(scale.unsigned_abs().into());
            let values = values.as_primitive::<Decimal128Type>();
            // 38 digits and half of the last leave 128 bits some room.
            let round = |value: i128| (value + value.signum() * (one / 2)) / one * one;
            let rounded = values.unary::<_, Decimal128Type>(round);
            Arc::new(rounded.with_precision_and_scale(DECIMAL128_MAX_PRECISION, *scale)?)
        }
        other => return exec_err!("{other} cannot be rounded"),
    })
}
