//! A definition is kept as it was written, comments and all. After a RENAME its name is another: only that is put in
//! its place.

use super::{
    cursor::Cursor,
    name::{quoted, quoted_name},
    object, parse,
    text::Text,
};
use crate::{PlanError, PlanResult, Statement, composed::own_name, error::sqlstate};
use datafusion::sql::sqlparser::{
    ast::{Expr, visit_expressions},
    tokenizer::Span,
};
use std::ops::ControlFlow;
use tidemark_catalog::{NameRef, QualifiedName};

/// The `CREATE` statement `sql` with `name` in the place of the name it gives, also of its schema.
pub fn under_name<'n>(sql: &str, name: impl Into<NameRef<'n>>) -> PlanResult<String> {
    let text = Text::new(sql);
    let tokens = text.tokens()?;
    let mut c = Cursor::new(&text, &tokens, 0, tokens.len());
    c.expect("CREATE")?;
    c.eat_all(&["OR", "REPLACE"]);
    object::kind(&mut c).ok_or_else(|| c.unexpected())?;
    c.if_not_exists();
    let first = c.at;
    c.object_name()?;
    let (from, to) = (text.offset(tokens[first].span.start), text.offset(tokens[c.at - 1].span.end));
    Ok([&sql[..from], quoted_name(name.into()).as_str(), &sql[to..]].concat())
}

/// The statement `sql`, a query or the `CREATE` of a view or aggregate, calling `to` where it calls what is meant.
pub fn calling_by_name(sql: &str, is_meant: impl Fn(&QualifiedName) -> bool, to: &str) -> PlanResult<String> {
    let parsed = parse(sql)?.into_iter().next().map(|parsed| parsed.statement);
    let mut names: Vec<Span> = vec![];
    let mut note = |expr: &Expr| {
        if let Expr::Function(call) = expr
            && own_name(&call.name).is_some_and(|name| is_meant(&name))
            && let Some(name) = call.name.0.last().and_then(|part| part.as_ident())
        {
            names.push(name.span);
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = match &parsed {
        Some(Statement::Query(query) | Statement::CreateView { query, .. }) => visit_expressions(query, &mut note),
        Some(Statement::CreateFeatureView(create)) => visit_expressions(&create.query, &mut note),
        Some(Statement::CreateAggregate(create)) => visit_expressions(&create.expression, &mut note),
        _ => return Err(PlanError::new(sqlstate::INTERNAL, format!("a definition cannot be read again: {sql}"))),
    };
    let text = Text::new(sql);
    let mut places: Vec<(usize, usize)> =
        names.iter().map(|span| (text.offset(span.start), text.offset(span.end))).collect();
    places.sort_unstable();
    places.dedup();
    let mut renamed = sql.to_string();
    for (start, end) in places.into_iter().rev() {
        renamed.replace_range(start..end, &quoted(to));
    }
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_changes() {
        let cases = [
            ("CREATE TABLE a (a BIGINT)", "b", "CREATE TABLE b (a BIGINT)"),
            ("create source if not exists Public.\"a\"(x int) -- a", "b", "create source if not exists b(x int) -- a"),
            (
                "CREATE FEATURE VIEW /* é */ a\nAS SELECT a FROM a",
                "B c",
                "CREATE FEATURE VIEW /* é */ \"B c\"\nAS SELECT a FROM a",
            ),
            ("CREATE VIEW a (a) AS SELECT 1", "select", "CREATE VIEW \"select\" (a) AS SELECT 1"),
            ("CREATE TABLE a AS SELECT 1 AS x", "q\"q", "CREATE TABLE \"q\"\"q\" AS SELECT 1 AS x"),
        ];
        for (sql, name, expected) in cases {
            assert_eq!(under_name(sql, name).as_deref(), Ok(expected));
        }
        let elsewhere = QualifiedName::new("My marts", "b");
        let moved = under_name("CREATE VIEW marts.a AS SELECT 1", &elsewhere);
        assert_eq!(moved.as_deref(), Ok("CREATE VIEW \"My marts\".b AS SELECT 1"));
        assert!(under_name("SELECT 1", "b").is_err());
    }

    #[test]
    fn only_calls_of_that_name_change() {
        let is_a = |name: &QualifiedName| *name == "a" || *name == QualifiedName::new("public", "a");
        let cases = [
            ("SELECT a(a), 'a(a)', \"a\"(b) FROM a -- a(b)", "SELECT b(a), 'a(a)', b(b) FROM a -- a(b)"),
            (
                "CREATE FEATURE VIEW a AS\nSELECT k, /* é */ Public.A (x) FILTER (WHERE a(y) > 1) OVER w + \"A\"(x) FROM s\n WINDOW w AS (PARTITION BY k)",
                "CREATE FEATURE VIEW a AS\nSELECT k, /* é */ Public.b (x) FILTER (WHERE b(y) > 1) OVER w + \"A\"(x) FROM s\n WINDOW w AS (PARTITION BY k)",
            ),
            ("CREATE AGGREGATE c (a bigint) AS a(a) + sum(a)", "CREATE AGGREGATE c (a bigint) AS b(a) + sum(a)"),
            ("WITH a (a) AS (SELECT a(1)) SELECT * FROM a a (a)", "WITH a (a) AS (SELECT b(1)) SELECT * FROM a a (a)"),
            ("SELECT 1", "SELECT 1"),
        ];
        for (sql, expected) in cases {
            assert_eq!(calling_by_name(sql, is_a, "b").as_deref(), Ok(expected));
        }
        assert_eq!(calling_by_name("SELECT a(1)", is_a, "B c").as_deref(), Ok("SELECT \"B c\"(1)"));
    }
}
