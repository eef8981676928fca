//! Integer and decimal `+ - *` and unary minus that fail with 22003 where DataFusion's wrap around.
//!
//! DataFusion has no setting for it, and a plan keeps its expressions in every operator's own way, so they cannot be
//! exchanged in the physical plan. Here they are exchanged once, after types are coerced and before anything is folded:
//! constants then fold by the same functions, and what fails on no row fails nowhere. (A feature view's expressions are
//! compiled by the engine, which checks them there: a row that fails is only left out.)

use crate::{PlanError, each_expression::each_expression, error::sqlstate, words::type_name};
use arrow::{
    array::{ArrayRef, AsArray, Datum},
    compute::kernels::numeric,
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef},
    error::ArrowError,
};
use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
        ScalarUDF, ScalarUDFImpl, Signature, Volatility, expr::ScalarFunction,
    },
    logical_expr_common::type_coercion::binary::BinaryTypeCoercer,
    optimizer::AnalyzerRule,
    physical_expr_common::datum::apply,
};
use std::sync::{Arc, LazyLock};

/// Exchanges arithmetic that wraps around for arithmetic that fails; comes after type coercion.
#[derive(Debug)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, checked)
    }
}

/// The expression with its arithmetic checked. Where a type is not known yet (a parameter), it stays: the rule runs again
/// when it is.
pub fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let (operation, args) = match &expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let operation = match op {
                    Operator::Plus => &*ADD,
                    Operator::Minus => &*SUBTRACT,
                    Operator::Multiply => &*MULTIPLY,
                    _ => return Ok(Transformed::no(expr)),
                };
                (operation, vec![left.as_ref(), right.as_ref()])
            }
            Expr::Negative(inner) => (&*NEGATE, vec![inner.as_ref()]),
            _ => return Ok(Transformed::no(expr)),
        };
        let wraps = |arg: &&Expr| arg.get_type(schema).is_ok_and(|ty| is_checked(&ty));
        if !args.iter().all(wraps) {
            return Ok(Transformed::no(expr));
        }
        let args = args.into_iter().cloned().collect();
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(operation.clone(), args))))
    })
}

fn is_checked(ty: &DataType) -> bool {
    ty.is_integer() || matches!(ty, DataType::Decimal128(..))
}

static ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| udf("checked_add", Operation::Binary(Operator::Plus)));
static SUBTRACT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| udf("checked_subtract", Operation::Binary(Operator::Minus)));
static MULTIPLY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| udf("checked_multiply", Operation::Binary(Operator::Multiply)));
static NEGATE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| udf("checked_negate", Operation::Negate));

fn udf(name: &'static str, operation: Operation) -> Arc<ScalarUDF> {
    let signature = Signature::any(if operation == Operation::Negate { 1 } else { 2 }, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Checked { name, operation, signature }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Binary(Operator),
    Negate,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    name: &'static str,
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.name
    }

    /// As the operator is shown, so that columns keep their names.
    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match (self.operation, args) {
            (Operation::Binary(op), [left, right]) => format!("{left} {op} {right}"),
            (_, args) => format!("(- {})", args.first().map(Expr::to_string).unwrap_or_default()),
        })
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match (self.operation, args) {
            (Operation::Binary(op), [left, right]) => format!("{} {op} {}", left.schema_name(), right.schema_name()),
            (_, [arg, ..]) => format!("(- {})", arg.schema_name()),
            (_, []) => self.name.to_string(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (&self.operation, types) {
            (Operation::Binary(op), [left, right]) => BinaryTypeCoercer::new(left, op, right).get_result_type(),
            (_, types) => Ok(types.first().cloned().unwrap_or(DataType::Null)),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name, self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ty = args.return_field.data_type();
        let result = match self.operation {
            Operation::Binary(Operator::Plus) => binary(&args.args, numeric::add, ty),
            Operation::Binary(Operator::Minus) => binary(&args.args, numeric::sub, ty),
            Operation::Binary(_) => binary(&args.args, numeric::mul, ty),
            Operation::Negate => {
                let array = ColumnarValue::values_to_arrays(&args.args)?;
                within(numeric::neg(array[0].as_ref()), ty).map(ColumnarValue::Array).map_err(Into::into)
            }
        };
        result.map_err(|error| match error.find_root() {
            datafusion::error::DataFusionError::ArrowError(arrow, _)
                if matches!(arrow.as_ref(), ArrowError::ArithmeticOverflow(_)) =>
            {
                PlanError::new(sqlstate::OUT_OF_RANGE, format!("{} out of range", type_name(ty))).into()
            }
            _ => error,
        })
    }
}

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>;

fn binary(args: &[ColumnarValue], kernel: Kernel, ty: &DataType) -> Result<ColumnarValue> {
    let [left, right] = args else {
        return Err(PlanError::new(sqlstate::INTERNAL, "an operator takes two arguments").into());
    };
    apply(left, right, |left: &dyn Datum, right: &dyn Datum| within(kernel(left, right), ty))
}

/// Decimals are checked by Arrow against 128 bits, which have room for a little more than 38 digits.
fn within(result: Result<ArrayRef, ArrowError>, ty: &DataType) -> Result<ArrayRef, ArrowError> {
    let array = result?;
    if let DataType::Decimal128(DECIMAL128_MAX_PRECISION, _) = ty {
        let decimals = array.as_primitive::<Decimal128Type>();
        decimals
            .validate_decimal_precision(DECIMAL128_MAX_PRECISION)
            .map_err(|error| ArrowError::ArithmeticOverflow(error.to_string()))?;
    }
    Ok(array)
}
