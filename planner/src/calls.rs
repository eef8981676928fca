//! How functions are called: DataFusion ignores OVER, FILTER, DISTINCT and ORDER BY where a function has no use for them.

use crate::{PlanError, PlanResult, error::sqlstate, names::GENERATE_SERIES};
use datafusion::{
    logical_expr::planner::ContextProvider,
    sql::sqlparser::ast::{
        DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments, Ident, Query, Select,
        SelectItem, Visit, Visitor,
    },
};
use std::ops::ControlFlow;

/// Refuses calls with clauses that would have no effect.
pub fn check(query: &Query, functions: &dyn ContextProvider) -> PlanResult<()> {
    struct Calls<'a>(&'a dyn ContextProvider);
    impl Visitor for Calls<'_> {
        type Break = PlanError;

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<PlanError> {
            let mut items = select.projection.iter().filter_map(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
                _ => None,
            });
            match items.any(makes_rows) {
                true => ControlFlow::Break(
                    PlanError::unsupported(format!("{GENERATE_SERIES} in the select list is not supported"))
                        .hint(format!("it makes rows in FROM: SELECT … FROM {GENERATE_SERIES}(…)")),
                ),
                false => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<PlanError> {
            match expr {
                Expr::Function(function) => match call(function, self.0) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                },
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match query.visit(&mut Calls(functions)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// DataFusion has a function of the name that makes one array.
fn makes_rows(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(folded);
    name.as_deref() == Some(GENERATE_SERIES)
}

fn call(function: &Function, functions: &dyn ContextProvider) -> PlanResult<()> {
    let Some(name) = function.name.0.last().and_then(|part| part.as_ident()).map(folded) else { return Ok(()) };
    let (distinct, ordered) = match &function.args {
        FunctionArguments::List(list) => (
            list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
            list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_))),
        ),
        _ => (false, false),
    };
    let filtered = function.filter.is_some();
    // As DataFusion looks them up: an ordinary function first, then window functions with OVER, aggregates without.
    if functions.get_function_meta(&name).is_some() {
        return misuse(&[
            (function.over.is_some(), "OVER", "a window function nor an aggregate function"),
            (filtered, "FILTER", "an aggregate function"),
            (distinct, "DISTINCT", "an aggregate function"),
            (ordered, "ORDER BY", "an aggregate function"),
            (!function.within_group.is_empty(), "WITHIN GROUP", "an aggregate function"),
            (function.null_treatment.is_some(), "IGNORE or RESPECT NULLS", "a window function"),
        ])
        .map_or(Ok(()), |(clause, what)| {
            let message = format!("{clause} specified, but {name} is not {what}");
            Err(PlanError::new(sqlstate::WRONG_OBJECT_TYPE, message).hint(format!("call {name}(…) without it")))
        });
    }
    let windowed = functions.get_window_meta(&name).is_some() && functions.get_aggregate_meta(&name).is_none();
    if windowed && function.over.is_none() {
        let message = format!("window function {name} requires an OVER clause");
        return Err(PlanError::new(sqlstate::WRONG_OBJECT_TYPE, message).hint(format!("{name}() OVER (ORDER BY …)")));
    }
    if windowed && filtered {
        return Err(PlanError::unsupported("FILTER is not implemented for non-aggregate window functions")
            .hint("filter the rows in a subquery"));
    }
    if windowed && distinct {
        return Err(PlanError::unsupported("DISTINCT is not implemented for window functions")
            .hint("take the distinct rows in a subquery"));
    }
    Ok(())
}

fn misuse<'a>(clauses: &[(bool, &'a str, &'a str)]) -> Option<(&'a str, &'a str)> {
    clauses.iter().find(|(there, ..)| *there).map(|(_, clause, what)| (*clause, *what))
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}
