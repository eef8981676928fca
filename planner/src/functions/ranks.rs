//! `row_number`, `rank`, `dense_rank` and `ntile` with PostgreSQL's types: DataFusion's are unsigned, and would be numeric.

use arrow_schema::DataType;
use datafusion::{
    error::Result,
    logical_expr::{
        Expr, WindowFunctionDefinition, cast,
        expr::{WindowFunction, WindowFunctionParams},
        planner::{ExprPlanner, PlannerResult, RawWindowExpr},
    },
};

#[derive(Debug)]
pub struct SignedRanks;

impl ExprPlanner for SignedRanks {
    fn plan_window(&self, expr: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        let ty = match &expr.func_def {
            WindowFunctionDefinition::WindowUDF(function) => match function.name() {
                "row_number" | "rank" | "dense_rank" => Some(DataType::Int64),
                "ntile" => Some(DataType::Int32),
                _ => None,
            },
            WindowFunctionDefinition::AggregateUDF(_) => None,
        };
        let Some(ty) = ty else { return Ok(PlannerResult::Original(expr)) };
        let RawWindowExpr { func_def, args, partition_by, order_by, window_frame, filter, null_treatment, distinct } =
            expr;
        let params =
            WindowFunctionParams { args, partition_by, order_by, window_frame, filter, null_treatment, distinct };
        Ok(PlannerResult::Planned(cast(Expr::from(WindowFunction { fun: func_def, params }), ty)))
    }
}
