//! Joins whose result DataFusion would get wrong.

use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::ast::{JoinConstraint, JoinOperator, Query, Select, Visit, Visitor};
use std::ops::ControlFlow;

/// Refuses RIGHT and FULL joins that merge columns: the merged column is the left side's alone in DataFusion, and so NULL
/// where only the right side has a row.
pub fn check(query: &Query) -> PlanResult<()> {
    struct Joins;
    impl Visitor for Joins {
        type Break = PlanError;

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<PlanError> {
            for join in select.from.iter().flat_map(|from| &from.joins) {
                use JoinOperator as J;
                let (word, constraint) = match &join.join_operator {
                    J::Right(constraint) | J::RightOuter(constraint) => ("RIGHT", constraint),
                    J::FullOuter(constraint) => ("FULL", constraint),
                    _ => continue,
                };
                let merges = match constraint {
                    JoinConstraint::Using(_) => "USING",
                    JoinConstraint::Natural => "NATURAL",
                    _ => continue,
                };
                return ControlFlow::Break(
                    PlanError::unsupported(format!("{word} JOIN with {merges} is not supported"))
                        .hint("write ON a.x = b.x, and coalesce(a.x, b.x) where you need the column"),
                );
            }
            ControlFlow::Continue(())
        }
    }
    match query.visit(&mut Joins) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}
