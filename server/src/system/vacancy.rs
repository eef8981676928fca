//! Queries that cannot have rows, because they read a catalog table that is always empty.
//!
//! Clients ask about triggers, policies, publications and the like in subqueries that a planner need not understand:
//! what joins an empty table is empty. This is a fact about our tables, not about any client's text.

use super::pg_catalog::is_always_empty;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, JoinOperator,
    ObjectName, Query, Select, SelectItem, SetExpr, SetOperator, TableFactor, TableWithJoins, Value, Visit, Visitor,
};
use std::ops::ControlFlow;

/// Whether the query has no rows, whatever exists.
pub fn is_empty(query: &Query) -> bool {
    query.with.is_none() && body_is_empty(&query.body)
}

fn body_is_empty(body: &SetExpr) -> bool {
    match body {
        // An aggregate without GROUP BY has one row even over none.
        SetExpr::Select(select) => reads_nothing(select) && !(is_ungrouped(select) && aggregates(select)),
        SetExpr::Query(query) => is_empty(query),
        SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } => {
            body_is_empty(left) && body_is_empty(right)
        }
        _ => false,
    }
}

/// Whether a scalar subquery is NULL, whatever exists: it has no row, or one that aggregates none.
pub fn is_null(query: &Query) -> bool {
    if is_empty(query) {
        return true;
    }
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    query.with.is_none() && reads_nothing(select) && !calls(select, &["count"])
}

/// Whether a scalar subquery counts what has no rows: it is 0, whatever exists.
pub fn is_zero(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] = select.projection.as_slice()
    else {
        return false;
    };
    let counts = matches!(item, Expr::Function(f) if f.over.is_none() && last_part(&f.name) == "count");
    let limit = query.limit_clause.as_ref().map(|limit| limit.to_string());
    counts
        && limit.is_none_or(|limit| limit.trim() == "LIMIT 1")
        && query.with.is_none()
        && is_ungrouped(select)
        && reads_nothing(select)
}

/// Whether what a SELECT reads has no rows.
pub fn reads_nothing(select: &Select) -> bool {
    select.from.iter().any(has_no_rows)
        || (reads_constraints(select) && select.selection.as_ref().is_some_and(asks_for_no_key))
}

fn reads_constraints(select: &Select) -> bool {
    let is_it = |relation: &TableFactor| match relation {
        TableFactor::Table { name, args: None, .. } => last_part(name) == "pg_constraint",
        _ => false,
    };
    let joined = |from: &TableWithJoins| is_it(&from.relation) || from.joins.iter().any(|join| is_it(&join.relation));
    select.from.iter().any(joined)
}

/// `contype = 'f'`, among what must all hold: the constraints here are primary keys.
fn asks_for_no_key(condition: &Expr) -> bool {
    match condition {
        Expr::Nested(inner) => asks_for_no_key(inner),
        Expr::BinaryOp { op: BinaryOperator::And, left, right } => asks_for_no_key(left) || asks_for_no_key(right),
        Expr::BinaryOp { op: BinaryOperator::Eq, left, right } => {
            let column = match left.as_ref() {
                Expr::Identifier(ident) => Some(ident),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            let is_kind = column.is_some_and(|ident| ident.value.eq_ignore_ascii_case("contype"));
            is_kind
                && matches!(right.as_ref(), Expr::Value(value)
                    if matches!(&value.value, Value::SingleQuotedString(kind) if kind != "p"))
        }
        _ => false,
    }
}

fn has_no_rows(joined: &TableWithJoins) -> bool {
    let mut empty = relation_has_no_rows(&joined.relation);
    for join in &joined.joins {
        match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(..) => {
                empty |= relation_has_no_rows(&join.relation);
            }
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => {}
            _ => return false,
        }
    }
    empty
}

fn relation_has_no_rows(relation: &TableFactor) -> bool {
    match relation {
        TableFactor::Table { name, args: None, .. } => table_is_empty(name),
        TableFactor::Table { name, args: Some(args), .. } => {
            matches!(last_part(name).as_str(), "unnest" | "pg_options_to_table" | "aclexplode")
                && args.args.iter().all(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => is_always_null(expr),
                    _ => false,
                })
        }
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().all(is_always_null),
        TableFactor::Derived { subquery, .. } => is_empty(subquery),
        TableFactor::NestedJoin { table_with_joins, .. } => has_no_rows(table_with_joins),
        _ => false,
    }
}

fn table_is_empty(name: &ObjectName) -> bool {
    let schema = match name.0.len() {
        1 => true,
        2 => name.0[0].as_ident().is_some_and(|i| i.value.eq_ignore_ascii_case("pg_catalog")),
        _ => false,
    };
    schema && is_always_empty(&last_part(name))
}

/// The last part of a name, folded as if it were unquoted: catalog names are lower case.
pub fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

/// Columns of catalog tables that are NULL in every row: nothing has storage options, and grants are on relations and schemas.
pub fn is_always_null(expr: &Expr) -> bool {
    let column = match expr {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(ident) => ident,
            None => return false,
        },
        _ => return false,
    };
    const NULL: [&str; 12] = [
        "srvoptions",
        "umoptions",
        "fdwoptions",
        "ftoptions",
        "reloptions",
        "attoptions",
        "attfdwoptions",
        "datacl",
        "attacl",
        "typacl",
        "spcacl",
        "spcoptions",
    ];
    NULL.contains(&column.value.to_lowercase().as_str())
}

fn is_ungrouped(select: &Select) -> bool {
    matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty()) && select.having.is_none()
}

const AGGREGATES: [&str; 14] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "every",
    "json_agg",
    "jsonb_agg",
    "first_value",
    "any_value",
];

/// Whether the select list aggregates (subqueries inside it apart).
pub fn aggregates(select: &Select) -> bool {
    calls(select, &AGGREGATES)
}

fn calls(select: &Select, names: &[&str]) -> bool {
    struct Search<'a> {
        names: &'a [&'a str],
        depth: usize,
    }
    impl Visitor for Search<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(Function { name, over: None, args, .. })
                    if self.depth == 0
                        && !matches!(args, FunctionArguments::Subquery(_))
                        && self.names.contains(&last_part(name).as_str()) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let mut search = Search { names, depth: 0 };
    select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.visit(&mut search).is_break(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    fn query(sql: &str) -> Query {
        *Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).expect("it tokenizes").parse_query().expect("it parses")
    }

    #[test]
    fn what_joins_an_empty_table_is_empty() {
        let cases = [
            ("SELECT 1 FROM pg_catalog.pg_policy", true),
            ("SELECT 1 FROM pg_class c, pg_trigger t WHERE t.tgrelid = c.oid", true),
            ("SELECT 1 FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid", true),
            ("SELECT 1 FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid", false),
            ("SELECT 1 FROM pg_inherits i RIGHT JOIN pg_class c ON i.inhrelid = c.oid", false),
            ("SELECT 1 FROM (SELECT * FROM pg_enum) e", true),
            ("SELECT x FROM pg_catalog.unnest(tc.reloptions) x", true),
            ("SELECT x FROM unnest(c.conkey) x", false),
            ("SELECT 1 FROM pg_enum UNION ALL SELECT 2", false),
            ("SELECT 1 FROM pg_enum UNION ALL SELECT 2 FROM pg_policy", true),
            ("SELECT count(*) FROM pg_enum", false),
            ("SELECT 1 FROM pg_class", false),
            ("SELECT 1 FROM mine.pg_policy", false),
            (
                "SELECT 1 FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid WHERE c.contype = 'f' AND true",
                true,
            ),
            ("SELECT 1 FROM pg_constraint WHERE contype = 'f' OR conname = 'x'", false),
            ("SELECT 1 FROM pg_constraint WHERE contype = 'p'", false),
            ("SELECT 1 FROM mine WHERE contype = 'f'", false),
            ("SELECT 1 FROM pg_options_to_table(srvoptions)", true),
        ];
        for (sql, expected) in cases {
            assert_eq!(is_empty(&query(sql)), expected, "{sql}");
        }
        assert!(is_null(&query("SELECT string_agg(enumlabel, ',') FROM pg_enum")));
        assert!(!is_null(&query("SELECT count(*) FROM pg_enum")));
        assert!(is_zero(&query("SELECT count(1) FROM pg_catalog.pg_inherits WHERE inhrelid = 1 LIMIT 1")));
        assert!(!is_zero(&query("SELECT count(*) FROM pg_enum GROUP BY enumtypid")));
        assert!(!is_zero(&query("SELECT count(*) FROM pg_class")));
    }
}
