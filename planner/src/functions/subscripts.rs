//! `a[-1]` is NULL and `a[-1:2]` is `a[1:2]`: an array's items are numbered from one. DataFusion counts from the end.

use arrow_schema::DataType;
use datafusion::{
    common::{DFSchema, ScalarValue},
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, GetFieldAccess, lit,
        planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr},
        when,
    },
};

/// Reads places before the first as PostgreSQL does.
#[derive(Debug)]
pub struct FromOne;

impl ExprPlanner for FromOne {
    fn plan_field_access(
        &self,
        RawFieldAccessExpr { field_access, expr }: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let is_array = matches!(expr.get_type(schema), Ok(DataType::List(_) | DataType::LargeList(_)));
        let field_access = match field_access {
            GetFieldAccess::ListIndex { key } if is_array && !is_aggregate(&expr) => {
                GetFieldAccess::ListIndex { key: Box::new(at_least(*key, 0)?) }
            }
            GetFieldAccess::ListRange { start, stop, stride } if is_array => {
                let (start, stop) = (at_least(*start, 1)?, at_least(*stop, 0)?);
                GetFieldAccess::ListRange { start: Box::new(start), stop: Box::new(stop), stride }
            }
            other => other,
        };
        Ok(PlannerResult::Original(RawFieldAccessExpr { field_access, expr }))
    }
}

/// `array_agg(x)[2]` becomes an aggregate of its own, which takes a literal.
fn is_aggregate(expr: &Expr) -> bool {
    matches!(expr, Expr::AggregateFunction(_))
}

/// There is no item 0. NULL stays that; what a parameter is, nobody knows yet.
fn at_least(place: Expr, least: i64) -> Result<Expr> {
    match place {
        Expr::Literal(ScalarValue::Int64(Some(at)), _) => Ok(lit(at.max(least))),
        place @ (Expr::Literal(..) | Expr::Placeholder(_)) => Ok(place),
        place => when(place.clone().lt(lit(least)), lit(least)).otherwise(place),
    }
}
