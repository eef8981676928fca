//! Parameters whose type the client does not say.
//!
//! `x = ANY ($1)` is an array of whatever `x` is, as in PostgreSQL: drivers that send arrays as text (psycopg) rely on it.
//! What has no type after that is a NULL of no type yet: type coercion then finds one where the parameter's place asks for
//! it (`coalesce($1, 3)`, `SELECT $1 UNION SELECT 3`), and DataFusion can name the type of `$1 AS a`, which it cannot
//! where a parameter has none.

use crate::PlanResult;
use arrow_schema::{DataType, Field};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    logical_expr::{Expr, ExprSchemable, LogicalPlan, cast, expr::Placeholder, utils::merge_schema},
    scalar::ScalarValue,
};
use std::sync::Arc;

/// Gives every such parameter its type.
pub fn infer(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    let inferred = plan.transform_up_with_subqueries(|node| {
        let inputs = node.inputs();
        let schema = if inputs.is_empty() { node.schema().as_ref().clone() } else { merge_schema(&inputs) };
        node.map_expressions(|expr| {
            expr.transform_up(|expr| {
                let mut call = match expr {
                    Expr::ScalarFunction(call) => call,
                    Expr::Placeholder(Placeholder { id, field: None }) => {
                        let field = Arc::new(Field::new("", DataType::Null, true));
                        return Ok(Transformed::yes(Expr::Placeholder(Placeholder { id, field: Some(field) })));
                    }
                    other => return Ok(Transformed::no(other)),
                };
                // `= ANY (array)` is planned as `array_has(array, x)`.
                if call.func.name() != "array_has" || !call.args.first().is_some_and(is_untyped_array) {
                    return Ok(Transformed::no(Expr::ScalarFunction(call)));
                }
                // `$1 = ANY ($2)` says nothing of either: they are text.
                if let Some(Expr::Placeholder(sought)) = call.args.get_mut(1).filter(|x| is_untyped(x)) {
                    sought.field = Some(Arc::new(Field::new("", DataType::Utf8, true)));
                }
                let element = call.args.get(1).and_then(|x| x.get_type(&schema).ok()).filter(|ty| !ty.is_null());
                match (element, call.args.first_mut()) {
                    (Some(ty), Some(Expr::Placeholder(parameter))) => {
                        parameter.field = Some(Arc::new(Field::new_list("", Field::new_list_field(ty, true), true)));
                    }
                    // `'{a,b}'`: read as an array of these.
                    (Some(ty), Some(literal)) => *literal = cast(literal.clone(), DataType::new_list(ty, true)),
                    (None, _) | (_, None) => return Ok(Transformed::no(Expr::ScalarFunction(call))),
                }
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            })
        })
    })?;
    Ok(inferred.data)
}

/// Whether it is one, or a text that is to be read as an array.
fn is_untyped_array(expr: &Expr) -> bool {
    is_untyped(expr) || matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// Whether it is a parameter that nothing has given a type.
fn is_untyped(expr: &Expr) -> bool {
    let Expr::Placeholder(parameter) = expr else { return false };
    parameter.field.as_ref().is_none_or(|field| field.data_type().is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    async fn inferred(context: &SessionContext, sql: &str) -> LogicalPlan {
        let plan = context.state().create_logical_plan(sql).await.expect("it plans");
        infer(plan).expect("it can be inferred")
    }

    #[tokio::test]
    async fn a_parameter_of_any_is_an_array_of_the_other_side() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let sql = "SELECT x FROM (VALUES (1, 'a')) AS t (x, y) WHERE y = ANY ($1) AND x = ANY ($2) AND $3 = ANY ($4)";
        let types = inferred(&context, sql).await.get_parameter_types().expect("it has parameters");
        let list = |ty| Some(DataType::List(Arc::new(Field::new_list_field(ty, true))));
        assert_eq!(types["$1"], list(DataType::Utf8));
        assert_eq!(types["$2"], list(DataType::Int64));
        assert_eq!((&types["$3"], &types["$4"]), (&Some(DataType::Utf8), &list(DataType::Utf8)));
    }

    #[tokio::test]
    async fn a_parameter_that_is_a_column_of_a_union_has_the_type_of_that_column() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let plan = inferred(&context, "SELECT $1 AS a UNION ALL SELECT 3").await;
        let state = context.state();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).expect("it coerces");
        assert_eq!(plan.schema().field(0).data_type(), &DataType::Int64);
    }
}
