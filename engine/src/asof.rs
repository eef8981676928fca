//! The `ASOF JOIN` operator: labels as state, history as a stream.
//!
//! The left side (the labels, the smaller one as a rule) is collected and indexed by key and time. The right side
//! streams past it once, in any order: each row finds the one place in its key's timeline where it can be the nearest,
//! and stays there if it is nearer than what is there. A walk along each timeline then gives every label its match.
//! So nothing is sorted but the labels, and memory is proportional to the labels and their winners, not to history.
//!
//! ```text
//! labels of k at            10        20        30        (l.ts >= r.ts)
//! right rows      5, 8 ──> [8]                             8 wins over 5
//!                 17             ──> [17]
//! matches                    8         17        17        30 has none of its own: the nearest before
//! ```
//!
//! The labels are collected first; what they can use becomes a filter of the right side's scan. Several joins to one left side
//! are one operator. Without memory for labels or winners both sides go to disk and are joined part by part.
//!
//! [`install`] teaches a session the statement, the rule and the operator. A [`Finality`] in its configuration says which values are
//! final.

mod counts;
mod exec;
mod files;
mod known;
mod labels;
mod late;
mod memory;
mod merge;
mod one_spine;
mod output;
mod prune;
mod run;
mod spill;
mod winners;

pub use counts::Matches;
pub use exec::AsofJoinExec;
pub use known::Finality;
pub use late::Late;

use async_trait::async_trait;
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::optimizer::Optimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use std::sync::Arc;
use tidemark_planner::asof::{AsofNode, AsofPlanner, PushDownAsofFilter};

/// Adds all that `ASOF JOIN` needs. The query planner is replaced: another with extensions of its own should take
/// [`AsofExtensionPlanner`] instead.
pub fn install(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let optimizer = builder.optimizer().get_or_insert_with(Optimizer::new);
    let before = optimizer.rules.iter().position(|rule| rule.name() == "push_down_filter").unwrap_or(0);
    optimizer.rules.insert(before, Arc::new(PushDownAsofFilter));
    builder.relation_planners().get_or_insert_default().push(Arc::new(AsofPlanner));
    builder.with_query_planner(Arc::new(AsofQueryPlanner))
}

/// DataFusion's physical planner and [`AsofExtensionPlanner`].
#[derive(Debug, Default, Clone, Copy)]
pub struct AsofQueryPlanner;

#[async_trait]
impl QueryPlanner for AsofQueryPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session_state: &SessionState,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(AsofExtensionPlanner)])
            .create_physical_plan(logical_plan, session_state)
            .await
    }
}

/// The first relation that a plan reads.
fn name(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table().to_string()),
        other => other.inputs().into_iter().find_map(name),
    }
}

/// Makes an [`AsofJoinExec`] of an [`AsofNode`], or one more right side of that below.
#[derive(Debug, Default, Clone, Copy)]
pub struct AsofExtensionPlanner;

#[async_trait]
impl ExtensionPlanner for AsofExtensionPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session_state: &SessionState,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<AsofNode>() else { return Ok(None) };
        let ([left, right], [left_input, right_input]) = (physical_inputs, logical_inputs) else {
            return internal_err!("an ASOF JOIN has two inputs");
        };
        let on_left = |expr| planner.create_physical_expr(expr, left_input.schema(), session_state);
        let on_right = |expr| planner.create_physical_expr(expr, right_input.schema(), session_state);
        let condition = exec::Condition {
            kind: node.kind,
            op: node.op,
            left: labels::LeftSide {
                keys: node.keys.iter().map(|(l, _)| on_left(l)).collect::<Result<_>>()?,
                time: on_left(&node.left_time)?,
            },
            right_keys: node.keys.iter().map(|(_, r)| on_right(r)).collect::<Result<_>>()?,
            right_time: on_right(&node.right_time)?,
            ties: node.ties.iter().map(on_right).collect::<Result<_>>()?,
            tolerance: node.tolerance,
            base: node.base.as_ref().map(on_right).transpose()?,
            operation: node.operation.as_ref().map(on_right).transpose()?,
            right: name(right_input).unwrap_or_default(),
            known: known::known(right_input, session_state.config().get_extension::<Finality>().as_deref()),
            late: session_state.config().get_extension::<Late>().as_deref().copied().unwrap_or_default(),
        };
        one_spine::join(left.clone(), right.clone(), condition).map(Some)
    }
}
