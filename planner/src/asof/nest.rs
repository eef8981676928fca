//! Folding: an `ASOF JOIN` and everything to its left become one table factor, because a relation planner is asked
//! about table factors only.
//!
//! `a JOIN b … ASOF JOIN c … LEFT JOIN d …` becomes `(a JOIN b … ASOF JOIN c …) LEFT JOIN d …`. The parentheses have no
//! alias, so the names of `a`, `b` and `c` stay visible.

use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::{JoinOperator, TableFactor, TableWithJoins, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// Folds the marked joins of a query, in its common table expressions and subqueries too.
pub fn nest_asof(query: &mut ast::Query) -> PlanResult<()> {
    match VisitMut::visit(query, &mut Fold) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Whether a join is an `ASOF JOIN`, by the marks of [`super::mark_asof_tokens`].
pub(super) fn is_asof(join: &ast::Join) -> bool {
    join.global || matches!(join.join_operator, JoinOperator::AsOf { .. })
}

/// Works from the inside out: what it builds is not visited again.
struct Fold;

impl VisitorMut for Fold {
    type Break = PlanError;

    fn post_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<PlanError> {
        for tables in &mut select.from {
            fold(tables)?;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<PlanError> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => fold(table_with_joins),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn fold(tables: &mut TableWithJoins) -> ControlFlow<PlanError> {
    if !tables.joins.iter().any(is_asof) {
        return ControlFlow::Continue(());
    }
    for join in std::mem::take(&mut tables.joins) {
        let folds = is_asof(&join);
        if folds && is_lateral(&join.relation) {
            return ControlFlow::Break(
                PlanError::unsupported("the right side of an ASOF JOIN cannot be LATERAL")
                    .hint("an ASOF JOIN already takes one right row for each left row"),
            );
        }
        tables.joins.push(join);
        if folds {
            let inner = TableWithJoins { relation: tables.relation.clone(), joins: std::mem::take(&mut tables.joins) };
            tables.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
        }
    }
    ControlFlow::Continue(())
}

fn is_lateral(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. })
}
