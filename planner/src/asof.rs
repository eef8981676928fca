//! `ASOF JOIN`: the latest row at or before each left row, taught to parsers and planners that do not know it.
//!
//! sqlparser knows one spelling (`ASOF JOIN r MATCH_CONDITION (…)`) and DataFusion plans none, so:
//! [`mark_asof_tokens`] rewrites the tokens into joins that sqlparser accepts, `GLOBAL` being the mark;
//! [`nest_asof`] folds every marked join with all to its left into one table factor;
//! [`AsofPlanner`] plans such a factor into an [`AsofNode`]; [`PushDownAsofFilter`] moves filters below it where that
//! cannot change a match. The engine has the operator.
//!
//! Text → tokens → `mark_asof_tokens` → parser → `nest_asof` → DataFusion's SQL planner with `AsofPlanner`.

mod condition;
mod nest;
mod node;
mod plan;
mod pushdown;
pub(crate) mod service;
mod service_join;
pub(crate) mod steps;
mod tokens;

pub use nest::nest_asof;
pub use node::{AsofKind, AsofNode, AsofOp, Tolerance};
pub use plan::AsofPlanner;
pub use pushdown::PushDownAsofFilter;
pub use tokens::mark_asof_tokens;

use crate::PlanError;
use datafusion::error::DataFusionError;

/// A refusal on its way through DataFusion.
fn refuse(error: PlanError) -> DataFusionError {
    error.into()
}
