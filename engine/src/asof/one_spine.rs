//! Several joins to one left side become one operator.
//!
//! A spine joined to ten views is a chain of joins. Each would collect the left rows again, ever wider, and index them
//! again. Where the next join asks only for columns of the spine, it becomes one more right side of the operator below:
//! the spine is collected and indexed once.
//!
//! ```text
//! AsofJoin b                 ProjectionExec  spine's, a's, b's
//!   ProjectionExec             AsofJoinExec
//!     AsofJoin a       ──▶       spine
//!       spine                    a
//!       a                        b
//!   b
//! ```
//!
//! Only LEFT joins are joined to: an INNER one would have to drop labels before the next looks at them.

use super::exec::{AsofJoinExec, Condition, Right};
use super::labels::LeftSide;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use std::any::Any;
use std::sync::Arc;
use tidemark_planner::asof::AsofKind;

type Plan = Arc<dyn ExecutionPlan>;

/// `condition` over the columns of `left` and `right`.
pub fn join(left: Plan, right: Plan, condition: Condition) -> Result<Plan> {
    let mut projections: Vec<&ProjectionExec> = vec![];
    let mut below = &left;
    while let Some(projection) = (below.as_ref() as &dyn Any).downcast_ref::<ProjectionExec>() {
        projections.push(projection);
        below = projection.input();
    }
    let chain = (below.as_ref() as &dyn Any).downcast_ref::<AsofJoinExec>().and_then(|inner| {
        let left_only = inner.rights().iter().all(|right| right.condition.kind == AsofKind::Left);
        let width = inner.left().schema().fields().len();
        let own = left_only.then(|| of_spine(&condition.left, &projections, width)).flatten();
        Some((inner, own?))
    });
    let Some((inner, own)) = chain else {
        return Ok(Arc::new(AsofJoinExec::try_new(left, vec![Right::new(right, condition)])?));
    };
    let mut rights = inner.rights().to_vec();
    let fields = right.schema().fields().clone();
    rights.push(Right::new(right, Condition { left: own, ..condition }));
    let mut plan: Plan = Arc::new(AsofJoinExec::try_new(inner.left().clone(), rights)?);
    // The projections again, each with the new columns after its own.
    for projection in projections.into_iter().rev() {
        let Some(before) = plan.schema().fields().len().checked_sub(fields.len()) else {
            return internal_err!("an ASOF JOIN lost columns");
        };
        let added = fields.iter().enumerate().map(|(i, field)| ProjectionExpr {
            expr: Arc::new(Column::new(field.name(), before + i)),
            alias: field.name().clone(),
        });
        let exprs: Vec<ProjectionExpr> = projection.expr().iter().cloned().chain(added).collect();
        plan = Arc::new(ProjectionExec::try_new(exprs, plan)?);
    }
    Ok(plan)
}

/// The left side over the columns below the projections (outermost first); `None` unless it only reads columns of the
/// spine, which are the first `width` of those.
fn of_spine(left: &LeftSide, projections: &[&ProjectionExec], width: usize) -> Option<LeftSide> {
    let below = |expr: &Arc<dyn PhysicalExpr>| {
        let lower = |node: Arc<dyn PhysicalExpr>| {
            let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
            let mut column = column.clone();
            for projection in projections {
                let source = projection.expr().get(column.index()).and_then(|e| e.expr.downcast_ref::<Column>());
                column = source.cloned().ok_or_else(computed)?;
            }
            match column.index() < width {
                true => Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>)),
                false => Err(computed()),
            }
        };
        expr.clone().transform(lower).ok().map(|lowered| lowered.data)
    };
    Some(LeftSide { keys: left.keys.iter().map(below).collect::<Option<_>>()?, time: below(&left.time)? })
}

/// Ends the search for the spine's column; never shown.
fn computed() -> DataFusionError {
    DataFusionError::Plan("the column is not one of the spine".into())
}
