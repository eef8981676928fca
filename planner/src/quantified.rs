//! `x > ALL (SELECT …)`, which DataFusion plans and then cannot run; of these only `<> ALL` has another spelling.

use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, visit_expressions_mut};
use std::ops::ControlFlow;

/// Writes `<> ALL` of a subquery as `NOT IN`.
///
/// # Errors
/// 0A000 for the other comparisons with ALL of a subquery.
pub fn write_out(query: &mut Query) -> PlanResult<()> {
    let done = visit_expressions_mut(query, |expr| {
        let Expr::AllOp { left, compare_op, right } = expr else { return ControlFlow::Continue(()) };
        let Expr::Subquery(subquery) = &**right else { return ControlFlow::Continue(()) };
        if *compare_op != BinaryOperator::NotEq {
            return ControlFlow::Break(
                PlanError::unsupported(format!("{compare_op} ALL (subquery) is not supported"))
                    .hint("compare with (SELECT max(…) FROM …) or (SELECT min(…) FROM …), or write NOT EXISTS (…)"),
            );
        }
        let written = Expr::InSubquery { expr: left.clone(), subquery: subquery.clone(), negated: true };
        *expr = written;
        ControlFlow::Continue(())
    });
    match done {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}
