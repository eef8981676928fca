//! A feature view's definition as it is written: what can be refused, and shown, without binding anything.

use super::recognise::refused;
use crate::{PlanError, PlanResult, error::sqlstate};
use datafusion::sql::sqlparser::ast;
use std::collections::BTreeMap;

/// The options a feature view takes.
const OPTIONS: [&str; 6] = ["key", "ttl", "owner", "tags", "slide", "online"];

pub(super) fn check_options(name: &str, options: &BTreeMap<String, String>) -> PlanResult<()> {
    for option in options.keys() {
        if !OPTIONS.contains(&option.as_str()) {
            return Err(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                format!("feature view \"{name}\" has no option \"{option}\""),
            )
            .hint(format!("options are {}", OPTIONS.join(", "))));
        }
    }
    if options.contains_key("online") {
        return Err(PlanError::unsupported(format!("option \"online\" of feature view \"{name}\" is not available"))
            .hint("leave it out: the online store is the embedded one"));
    }
    Ok(())
}

/// What no binding is needed to refuse.
pub(super) fn check_syntax(name: &str, query: &ast::Query) -> PlanResult<()> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else {
        return Err(refused(name, "it is not a plain SELECT")
            .hint("UNION, VALUES and parentheses are not maintained; write one SELECT over one source"));
    };
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(
            refused(name, "ORDER BY and LIMIT have no meaning for it").hint("order the rows where you read the view")
        );
    }
    if select.distinct.is_some() {
        return Err(refused(name, "DISTINCT has no meaning for it").hint("a feature view has one row per entity key"));
    }
    if select.having.is_some() {
        return Err(refused(name, "HAVING has no meaning for it")
            .hint("a key stays, whatever its values; put conditions on values where you read"));
    }
    if select.from.len() != 1 || !select.from[0].joins.is_empty() {
        return Err(refused(name, "it reads more than one relation")
            .hint("read one source per feature view and join the views where you look up or train"));
    }
    Ok(())
}

/// The text of each select item, unless a wildcard stands among them.
pub(super) fn select_texts(query: &ast::Query) -> Option<Vec<String>> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    select
        .projection
        .iter()
        .map(|item| match item {
            ast::SelectItem::UnnamedExpr(e) => Some(e.to_string()),
            ast::SelectItem::ExprWithAlias { expr, .. } => Some(expr.to_string()),
            _ => None,
        })
        .collect()
}
