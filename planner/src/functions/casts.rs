//! `count(x)` beside `count(x::bigint)`: DataFusion calls both `count(x)`, as it leaves casts out of names, and then refuses
//! two columns of one name. Inside the arguments of aggregates and window functions casts get a name that has the type.

use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::Result,
    logical_expr::{
        Expr, SortExpr,
        expr::{Cast, TryCast},
        planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawWindowExpr},
    },
};

#[derive(Debug)]
pub struct NamedCasts;

impl ExprPlanner for NamedCasts {
    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        expr.args = all(expr.args)?;
        expr.order_by = sorted(expr.order_by)?;
        expr.filter = expr.filter.map(|filter| named(*filter).map(Box::new)).transpose()?;
        Ok(PlannerResult::Original(expr))
    }

    fn plan_window(&self, mut expr: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        expr.args = all(expr.args)?;
        expr.partition_by = all(expr.partition_by)?;
        expr.order_by = sorted(expr.order_by)?;
        expr.filter = expr.filter.map(|filter| named(*filter).map(Box::new)).transpose()?;
        Ok(PlannerResult::Original(expr))
    }
}

fn all(exprs: Vec<Expr>) -> Result<Vec<Expr>> {
    exprs.into_iter().map(named).collect()
}

fn sorted(exprs: Vec<SortExpr>) -> Result<Vec<SortExpr>> {
    exprs.into_iter().map(|sort| Ok(SortExpr { expr: named(sort.expr)?, ..sort })).collect()
}

fn named(expr: Expr) -> Result<Expr> {
    let named = expr.transform_up(|expr| {
        let (Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field })) = &expr else {
            return Ok(Transformed::no(expr));
        };
        // What the planner has to recognise as a constant or a parameter stays one.
        if matches!(inner.as_ref(), Expr::Literal(..) | Expr::Placeholder(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = format!("{}::{}", inner.schema_name(), crate::words::full_type_name(field.data_type()));
        Ok(Transformed::yes(expr.alias(name)))
    })?;
    Ok(named.data)
}
