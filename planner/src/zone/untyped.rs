//! `at > '2026-07-01 12:00'`: text without a type beside a time has the time's type, as in PostgreSQL.
//!
//! DataFusion's type coercion would bring both sides to nanoseconds, which end in the year 2262.

use crate::each_expression::each_expression;
use arrow_schema::DataType;
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{Between, BinaryExpr, Case, Expr, ExprSchemable, LogicalPlan, Operator, cast, expr::InList},
    optimizer::AnalyzerRule,
};

/// The rule for ordinary queries; comes before type coercion.
#[derive(Debug)]
pub struct UntypedTimes;

impl AnalyzerRule for UntypedTimes {
    fn name(&self) -> &str {
        "untyped_times"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        typed_times(plan)
    }
}

/// A plan in which text beside times is cast to their type.
pub fn typed_times(plan: LogicalPlan) -> Result<LogicalPlan> {
    each_expression(plan, |expr, schema| expr.transform_up(|expr| beside_times(expr, schema)))
}

fn beside_times(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => type_alike(vec![left, right], schema),
        Expr::Between(Between { expr, low, high, .. }) => type_alike(vec![expr, low, high], schema),
        Expr::InList(InList { expr, list, .. }) => {
            type_alike(std::iter::once(expr.as_mut()).chain(list.iter_mut()).collect(), schema)
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut compared, mut results) = (vec![], vec![]);
            compared.extend(expr.as_deref_mut());
            for (when, then) in when_then_expr {
                compared.push(when.as_mut());
                results.push(then.as_mut());
            }
            results.extend(else_expr.as_deref_mut());
            type_alike(compared, schema) | type_alike(results, schema)
        }
        _ => false,
    };
    Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
}

fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Casts text among `exprs` to the type of the first time among them; says whether there was any.
fn type_alike(exprs: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let time = exprs.iter().find_map(|expr| match expr.get_type(schema) {
        Ok(ty @ DataType::Timestamp(..)) => Some(ty),
        _ => None,
    });
    let Some(time) = time else { return false };
    let mut changed = false;
    for expr in exprs {
        if matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _)) {
            *expr = cast(std::mem::take(expr), time.clone());
            changed = true;
        }
    }
    changed
}
