//! Names that DataFusion has told apart by itself: `SELECT * FROM (SELECT a.*, b.* FROM a, b) AS s` has `n` and `n:1`, of
//! which the second should be shown as `n` too.

use super::{MARK, marked};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
};
use std::collections::HashMap;

/// The plan with such names of its result marked like those that we tell apart.
pub fn mark_renamed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut renamed: HashMap<String, String> = HashMap::new();
    plan.apply(|node| {
        let LogicalPlan::SubqueryAlias(alias) = node else { return Ok(TreeNodeRecursion::Continue) };
        if let LogicalPlan::Projection(projection) = alias.input.as_ref() {
            for expr in &projection.expr {
                if let Expr::Alias(alias) = expr
                    && let Expr::Column(column) = alias.expr.as_ref()
                    && alias.name.strip_prefix(&column.name).is_some_and(is_number_after_colon)
                {
                    renamed.insert(alias.name.clone(), column.name.clone());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !plan.schema().fields().iter().any(|field| renamed.contains_key(field.name())) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let exprs = columns.into_iter().enumerate().map(|(i, column)| match renamed.get(&column.name) {
        // Where a name was marked before, the numbers are those of its select list.
        Some(name) => {
            let name = format!("{}{MARK}", marked(name, i));
            Expr::Column(column).alias(name)
        }
        None => Expr::Column(column),
    });
    LogicalPlanBuilder::from(plan.clone()).project(exprs.collect::<Vec<_>>())?.build()
}

fn is_number_after_colon(rest: &str) -> bool {
    rest.strip_prefix(':').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
