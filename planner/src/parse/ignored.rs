//! What sqlparser reads and planning would silently ignore: refused, so that no clause is without effect. `FETCH FIRST`
//! becomes the `LIMIT` that it is.

use super::cursor::Cursor;
use crate::{PlanError, PlanResult, error::sqlstate};
use datafusion::sql::sqlparser::ast::{
    self, Expr, GroupByExpr, LimitClause, Query, Select, TableFactor, TableSampleKind, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Refuses what would be ignored.
pub(super) fn check(query: &mut Query) -> PlanResult<()> {
    match VisitMut::visit(query, &mut Ignored) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Clauses that sqlparser has no word for, so that they are not taken for a mistake in writing.
pub(super) fn refuse_words(c: &Cursor<'_>) -> PlanResult<()> {
    const EXCLUDED: [&[&str]; 4] =
        [&["EXCLUDE", "CURRENT", "ROW"], &["EXCLUDE", "GROUP"], &["EXCLUDE", "TIES"], &["EXCLUDE", "NO", "OTHERS"]];
    for at in c.at..c.end {
        let here = Cursor { at, ..*c };
        if EXCLUDED.iter().any(|words| here.at_all(words)) {
            return Err(here.place(unsupported(
                "EXCLUDE in a window frame",
                "end the frame at 1 PRECEDING, or at INTERVAL '1 microsecond' PRECEDING",
            )));
        }
    }
    Ok(())
}

fn unsupported(what: &str, hint: &str) -> PlanError {
    PlanError::unsupported(format!("{what} is not supported")).hint(hint)
}

fn refuse(what: &str, hint: &str) -> ControlFlow<PlanError> {
    ControlFlow::Break(unsupported(what, hint))
}

/// The first of the clauses that is there is refused.
fn refuse_first(clauses: &[(bool, &str, &str)]) -> ControlFlow<PlanError> {
    match clauses.iter().find(|(there, ..)| *there) {
        Some((_, what, hint)) => refuse(what, hint),
        None => ControlFlow::Continue(()),
    }
}

struct Ignored;

impl VisitorMut for Ignored {
    type Break = PlanError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<PlanError> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(
                PlanError::unsupported("FOR UPDATE and FOR SHARE are not supported")
                    .hint("remove the clause: every statement reads a consistent snapshot by itself"),
            );
        }
        let limited_by =
            matches!(&query.limit_clause, Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty());
        refuse_first(&[
            (limited_by, "LIMIT … BY", "number the rows with row_number() OVER (PARTITION BY …) and filter by that"),
            (query.for_clause.is_some(), "FOR XML, JSON or BROWSE", "remove the clause"),
            (query.settings.is_some(), "SETTINGS", "SET name = value is a statement of its own"),
            (query.format_clause.is_some(), "FORMAT", "COPY (…) TO STDOUT has formats"),
            (!query.pipe_operators.is_empty(), "the pipe operator |>", "write a subquery in FROM"),
        ])?;
        fetch_as_limit(query)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<PlanError> {
        let grouped_with = match &select.group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => !modifiers.is_empty(),
        };
        refuse_first(&[
            (select.into.is_some(), "SELECT INTO", "use CREATE TABLE name AS SELECT …"),
            (select.top.is_some(), "TOP", "use LIMIT"),
            (grouped_with, "GROUP BY … WITH", "write GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS (…)"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW", "write unnest(…) in FROM"),
            (select.prewhere.is_some(), "PREWHERE", "use WHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY", "use WITH RECURSIVE"),
            (!select.cluster_by.is_empty(), "CLUSTER BY", "use ORDER BY"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY", "remove the clause"),
            (!select.sort_by.is_empty(), "SORT BY", "use ORDER BY"),
            (select.value_table_mode.is_some(), "SELECT AS VALUE or STRUCT", "select the columns"),
            (select.exclude.is_some(), "EXCLUDE behind the select list", "name the columns that you want"),
            (select.select_modifiers.is_some(), "a modifier of SELECT", "remove it"),
        ])
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<PlanError> {
        const SAMPLE: (&str, &str) = ("TABLESAMPLE", "WHERE random() < 0.01 takes one row in a hundred");
        const ORDINALITY: (&str, &str) = ("WITH ORDINALITY", "number the rows with row_number() OVER ()");
        match factor {
            TableFactor::Table {
                name,
                sample,
                with_hints,
                with_ordinality,
                partitions,
                index_hints,
                json_path,
                ..
            } => {
                // psql's \d asks pg_catalog's functions for it; there it has nothing to number.
                let of_catalog = name.to_string().starts_with("pg_catalog.");
                refuse_first(&[
                    (sample.is_some(), SAMPLE.0, SAMPLE.1),
                    (*with_ordinality && !of_catalog, ORDINALITY.0, ORDINALITY.1),
                    (!with_hints.is_empty() || !index_hints.is_empty(), "a table hint", "remove it"),
                    (!partitions.is_empty(), "PARTITION of a table", "write a condition in WHERE"),
                    (json_path.is_some(), "a path behind a table's name", "use -> and ->> on a column"),
                ])
            }
            TableFactor::Derived { sample, .. } => {
                let sampled: &Option<TableSampleKind> = sample;
                refuse_first(&[(sampled.is_some(), SAMPLE.0, SAMPLE.1)])
            }
            TableFactor::Function { with_ordinality, .. } | TableFactor::UNNEST { with_ordinality, .. } => {
                refuse_first(&[(*with_ordinality, ORDINALITY.0, ORDINALITY.1)])
            }
            TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            other => {
                let what = other.to_string();
                let what = what.split(['(', ' ']).next().unwrap_or_default().to_uppercase();
                refuse(&format!("{what} in FROM"), "select from tables, views, subqueries and unnest(…)")
            }
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PlanError> {
        match expr {
            // Texts compare by their bytes, and no other order is there to ask for.
            Expr::Collate { collation, .. } => {
                let name = collation.0.last().and_then(|part| part.as_ident()).map(|i| i.value.clone());
                let name = name.unwrap_or_default();
                match ["default", "c", "posix", "ucs_basic", "c.utf-8", "c.utf8"]
                    .contains(&name.to_lowercase().as_str())
                {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(
                        PlanError::new(
                            sqlstate::UNDEFINED_OBJECT,
                            format!("collation \"{name}\" for encoding \"UTF8\" does not exist"),
                        )
                        .hint("texts compare by their bytes, as with COLLATE \"C\""),
                    ),
                }
            }
            Expr::Cast { format: Some(_), .. } => refuse("CAST … FORMAT", "use to_char, to_date or to_timestamp"),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_statement(&mut self, _: &mut ast::Statement) -> ControlFlow<PlanError> {
        ControlFlow::Break(
            PlanError::unsupported("a statement that changes data cannot be part of a query")
                .hint("write it as a statement of its own"),
        )
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`; without a number it is 1.
fn fetch_as_limit(query: &mut Query) -> ControlFlow<PlanError> {
    let Some(fetch) = query.fetch.take() else { return ControlFlow::Continue(()) };
    if fetch.with_ties || fetch.percent {
        let what = if fetch.with_ties { "FETCH … WITH TIES" } else { "FETCH … PERCENT" };
        return refuse(what, "number the rows with rank() or percent_rank() OVER (ORDER BY …) and filter by that");
    }
    let one = || Expr::Value(ast::Value::Number("1".to_string(), false).into());
    let count = Some(fetch.quantity.unwrap_or_else(one));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = count,
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset { limit: count, offset: None, limit_by: vec![] });
        }
        Some(_) => return ControlFlow::Break(PlanError::syntax("multiple LIMIT clauses not allowed")),
    }
    ControlFlow::Continue(())
}
