//! `x = ANY ($1)` where the client does not say what `$1` is: an array of whatever `x` is, as in PostgreSQL. Drivers that
//! send arrays as text (psycopg) rely on it.

use crate::PlanResult;
use arrow_schema::Field;
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    logical_expr::{Expr, ExprSchemable, LogicalPlan, expr::Placeholder, utils::merge_schema},
};
use std::sync::Arc;

/// Gives every such parameter its type.
pub fn infer(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    let inferred = plan.transform_up_with_subqueries(|node| {
        let inputs = node.inputs();
        let schema = if inputs.is_empty() { node.schema().as_ref().clone() } else { merge_schema(&inputs) };
        node.map_expressions(|expr| {
            expr.transform(|expr| {
                let Expr::ScalarFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
                let untyped = matches!(call.args.first(), Some(Expr::Placeholder(Placeholder { field: None, .. })));
                // `= ANY (array)` is planned as `array_has(array, x)`.
                if !untyped || call.func.name() != "array_has" {
                    return Ok(Transformed::no(Expr::ScalarFunction(call)));
                }
                let element = call.args.get(1).and_then(|x| x.get_type(&schema).ok()).filter(|ty| !ty.is_null());
                if let (Some(ty), Some(Expr::Placeholder(parameter))) = (element, call.args.first_mut()) {
                    parameter.field = Some(Arc::new(Field::new_list("", Field::new_list_field(ty, true), true)));
                    return Ok(Transformed::yes(Expr::ScalarFunction(call)));
                }
                Ok(Transformed::no(Expr::ScalarFunction(call)))
            })
        })
    })?;
    Ok(inferred.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::DataType;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn a_parameter_of_any_is_an_array_of_the_other_side() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let sql = "SELECT x FROM (VALUES (1, 'a')) AS t (x, y) WHERE y = ANY ($1) AND x = ANY ($2)";
        let plan = context.state().create_logical_plan(sql).await.expect("it plans");
        let types = infer(plan).expect("it can be inferred").get_parameter_types().expect("it has parameters");
        let list = |ty| Some(DataType::List(Arc::new(Field::new_list_field(ty, true))));
        assert_eq!(types["$1"], list(DataType::Utf8));
        assert_eq!(types["$2"], list(DataType::Int64));
    }
}
