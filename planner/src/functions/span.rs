//! Intervals are compared and ordered by how long they are, as in PostgreSQL: `1 day` is `24:00`, a month 30 days. Arrow
//! compares months, then days, then the rest.

use arrow::{
    array::{AsArray, Decimal128Array},
    compute::cast,
    datatypes::IntervalMonthDayNanoType,
};
use arrow_schema::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit};
use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, expr::InList, expr_rewriter::NamePreserver, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};
use std::sync::{Arc, LazyLock};

/// The name under which it stands in a plan; its one argument is the interval.
pub(crate) const SPAN: &str = "interval_span";

/// Nanoseconds: a month may be 2³¹ times 30 days.
const NANOSECONDS: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// The rule for ordinary queries; comes after type coercion.
#[derive(Debug)]
pub struct IntervalsByLength;

impl AnalyzerRule for IntervalsByLength {
    fn name(&self) -> &str {
        "intervals_by_length"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        by_length(plan)
    }
}

/// A coerced plan whose comparisons of intervals are of their lengths.
pub fn by_length(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let orders = matches!(node, LogicalPlan::Sort(_));
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let mut compared = expr.transform_up(|expr| compared(expr, &schema))?;
            if orders && is_interval(&compared.data, &schema) {
                compared = Transformed::yes(span(compared.data));
            }
            Ok(compared.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(rewritten.data)
}

fn compared(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    use Operator::*;
    let sides: Vec<&mut Expr> = match &mut expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom,
            right,
        }) => {
            vec![left, right]
        }
        Expr::Between(Between { expr, low, high, .. }) => vec![expr, low, high],
        Expr::InList(InList { expr, list, .. }) => std::iter::once(expr.as_mut()).chain(list.iter_mut()).collect(),
        _ => return Ok(Transformed::no(expr)),
    };
    if !sides.iter().all(|side| is_interval(side, schema)) {
        return Ok(Transformed::no(expr));
    }
    for side in sides {
        *side = span(std::mem::take(side));
    }
    Ok(Transformed::yes(expr))
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_)))
}

fn span(interval: Expr) -> Expr {
    SPAN_OF.call(vec![interval])
}

static SPAN_OF: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::from(SpanOf { signature: Signature::any(1, Volatility::Immutable) }));

#[derive(Debug, PartialEq, Eq, Hash)]
struct SpanOf {
    signature: Signature,
}

impl ScalarUDFImpl for SpanOf {
    fn name(&self) -> &str {
        SPAN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(NANOSECONDS)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let intervals = cast(&arrays[0], &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        const DAY_NS: i128 = 86_400_000_000_000;
        let lengths: Decimal128Array = intervals
            .iter()
            .map(|interval| {
                let interval = interval?;
                let days = i128::from(interval.months) * 30 + i128::from(interval.days);
                Some(days * DAY_NS + i128::from(interval.nanoseconds))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(lengths.with_data_type(NANOSECONDS))))
    }
}
