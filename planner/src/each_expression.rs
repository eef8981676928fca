//! One change to every expression of a plan.

use datafusion::{
    common::{DFSchema, tree_node::Transformed},
    error::Result,
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver, utils::merge_schema},
};

/// The plan with `change` made to its expressions, also in subqueries; columns keep their names. `change` gets an
/// expression as a whole, with the columns that it may read.
pub fn each_expression(
    plan: LogicalPlan,
    mut change: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| {
        let mut columns = merge_schema(&node.inputs());
        // The filters of a scan read what it scans.
        if let LogicalPlan::TableScan(scan) = &node {
            columns.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(change(expr, &columns)?.update_data(|expr| name.restore(expr)))
        })?;
        if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(changed.data)
}
