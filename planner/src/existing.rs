//! `EXISTS (…)` and `x IN (…)` in a select list, which DataFusion plans and then cannot run: written as counts, which it can.
//!
//! ```text
//! EXISTS (SELECT … FROM t WHERE t.k = o.k)    (SELECT count(*) > 0 FROM t WHERE t.k = o.k)
//! x IN (q)                                    CASE WHEN (SELECT count(*) > 0 FROM (q) AS s (v) WHERE s.v = x) THEN true
//!                                                  WHEN x IS NULL AND (SELECT count(*) > 0 FROM (q) AS s (v)) THEN NULL
//!                                                  WHEN (SELECT count(*) > 0 FROM (q) AS s (v) WHERE s.v IS NULL) THEN NULL
//!                                                  ELSE false END
//! ```

use crate::parse::TidemarkDialect;
use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, CaseWhen, Expr, GroupByExpr, Ident, LimitClause, Query, Select, SelectItem, SetExpr,
        TableFactor, UnaryOperator, Value, VisitMut, VisitorMut, helpers::attached_token::AttachedToken,
    },
    parser::Parser,
};
use std::ops::ControlFlow;

/// Names that no statement gives: what `x` names is of the query around.
pub const SUBQUERY: &str = "in$query";
const VALUE: &str = "in$value";

/// Writes those out that stand in select lists.
pub fn write_out(query: &mut Query) {
    struct Lists;
    impl VisitorMut for Lists {
        type Break = ();

        fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            let _ = VisitMut::visit(&mut select.projection, &mut Items { depth: 0 });
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Lists);
}

/// The expressions of a select list, but not those of the subqueries in it.
struct Items {
    depth: usize,
}

impl VisitorMut for Items {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth = self.depth.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Some(written) = written(expr)
        {
            *expr = written;
        }
        ControlFlow::Continue(())
    }
}

fn written(expr: &Expr) -> Option<Expr> {
    let (written, negated) = match expr {
        Expr::Exists { subquery, negated } => (exists(subquery)?, *negated),
        // Rows are compared otherwise.
        Expr::InSubquery { expr, .. } if matches!(expr.as_ref(), Expr::Tuple(_)) => return None,
        Expr::InSubquery { expr, subquery, negated } => (is_in(expr, subquery)?, *negated),
        _ => return None,
    };
    let written = Expr::Nested(Box::new(written));
    Some(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(written) } } else { written })
}

fn exists(query: &Query) -> Option<Expr> {
    let mut counted = counting(query, "")?;
    // A condition on a row around is found where it stands, and behind a derived table not always.
    if let Some(select) = bare(query) {
        let count = selected(&mut counted)?.projection.clone();
        let mut query = query.clone();
        query.order_by = None;
        query.limit_clause = None;
        query.body =
            Box::new(SetExpr::Select(Box::new(Select { projection: count, distinct: None, ..select.clone() })));
        counted = query;
    }
    Some(Expr::Subquery(Box::new(counted)))
}

/// A query with a row for each that its FROM and WHERE find, or for some of them.
fn bare(query: &Query) -> Option<&Select> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let is_plain = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            matches!(expr, Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        }
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        _ => false,
    };
    let is_some = match &query.limit_clause {
        None => true,
        Some(LimitClause::LimitOffset { limit: Some(Expr::Value(limit)), offset: None, limit_by }) => {
            matches!(&limit.value, Value::Number(rows, _) if rows.parse::<u64>().is_ok_and(|rows| rows > 0))
                && limit_by.is_empty()
        }
        Some(_) => false,
    };
    let is_grouped =
        !matches!(&select.group_by, GroupByExpr::Expressions(by, sets) if by.is_empty() && sets.is_empty());
    let is_bare = is_some
        && query.fetch.is_none()
        && query.pipe_operators.is_empty()
        && !is_grouped
        && select.having.is_none()
        && select.qualify.is_none()
        && select.top.is_none()
        && select.projection.iter().all(is_plain);
    is_bare.then_some(&**select)
}

fn is_in(value: &Expr, query: &Query) -> Option<Expr> {
    let found = || Expr::CompoundIdentifier([SUBQUERY, VALUE].map(|name| Ident::with_quote('"', name)).to_vec());
    let value = || Box::new(Expr::Nested(Box::new(value.clone())));
    let that = |condition: Option<Expr>| {
        let mut counted = counting(query, &format!(" (\"{VALUE}\")"))?;
        selected(&mut counted)?.selection = condition;
        Some(Expr::Subquery(Box::new(counted)))
    };
    let same = Expr::BinaryOp { left: Box::new(found()), op: BinaryOperator::Eq, right: value() };
    let of_null =
        Expr::BinaryOp { left: Box::new(Expr::IsNull(value())), op: BinaryOperator::And, right: Box::new(that(None)?) };
    let unknown = that(Some(Expr::IsNull(Box::new(found()))))?;
    let when = |condition: Expr, result: Value| CaseWhen { condition, result: Expr::value(result) };
    Some(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(that(Some(same))?, Value::Boolean(true)),
            when(of_null, Value::Null),
            when(unknown, Value::Null),
        ],
        else_result: Some(Box::new(Expr::value(Value::Boolean(false)))),
    })
}

/// Whether the query has rows: over it as a derived table, with a name for its one column if that is asked of.
fn counting(query: &Query, columns: &str) -> Option<Query> {
    let sql = format!("SELECT count(*) > 0 FROM (SELECT 1) AS \"{SUBQUERY}\"{columns}");
    let dialect = TidemarkDialect::of(false, sql.len());
    let mut counting = *Parser::new(&dialect).try_with_sql(&sql).ok()?.parse_query().ok()?;
    let from = selected(&mut counting)?.from.first_mut()?;
    let TableFactor::Derived { subquery, .. } = &mut from.relation else { return None };
    **subquery = query.clone();
    Some(counting)
}

fn selected(query: &mut Query) -> Option<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    fn written_out(sql: &str) -> String {
        let parsed = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("{sql} is no query") };
        write_out(&mut query);
        let once = query.to_string();
        write_out(&mut query);
        assert_eq!(query.to_string(), once, "a second time changes nothing");
        once
    }

    #[test]
    fn select_lists_are_written_out_and_conditions_are_not() {
        for (sql, expected) in [
            (
                "SELECT EXISTS (SELECT 1 FROM u WHERE u.k = t.k ORDER BY 1 LIMIT 1) FROM t",
                "SELECT ((SELECT count(*) > 0 FROM u WHERE u.k = t.k)) FROM t",
            ),
            (
                "SELECT NOT EXISTS (SELECT k FROM u GROUP BY k) FROM t",
                "SELECT NOT ((SELECT count(*) > 0 FROM (SELECT k FROM u GROUP BY k) AS \"in$query\")) FROM t",
            ),
            (
                "SELECT (SELECT EXISTS (SELECT * FROM u)) FROM t WHERE EXISTS (SELECT * FROM u) AND k IN (SELECT k FROM u)",
                "SELECT (SELECT ((SELECT count(*) > 0 FROM u))) FROM t WHERE EXISTS (SELECT * FROM u) AND k IN (SELECT k FROM u)",
            ),
            (
                "SELECT k IN (SELECT k FROM u) FROM t",
                "SELECT (CASE WHEN (SELECT count(*) > 0 FROM (SELECT k FROM u) AS \"in$query\" (\"in$value\") \
                 WHERE \"in$query\".\"in$value\" = (k)) THEN true \
                 WHEN (k) IS NULL AND (SELECT count(*) > 0 FROM (SELECT k FROM u) AS \"in$query\" (\"in$value\")) THEN NULL \
                 WHEN (SELECT count(*) > 0 FROM (SELECT k FROM u) AS \"in$query\" (\"in$value\") \
                 WHERE \"in$query\".\"in$value\" IS NULL) THEN NULL ELSE false END) FROM t",
            ),
            ("SELECT (a, b) IN (SELECT a, b FROM u) FROM t", "SELECT (a, b) IN (SELECT a, b FROM u) FROM t"),
        ] {
            assert_eq!(written_out(sql), expected);
        }
    }
}
