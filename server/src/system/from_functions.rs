//! Functions in FROM that clients ask the catalog with, each as the relation that it is here.
//!
//! ```text
//! pg_show_all_settings()             pg_catalog.pg_settings, which is that function's result in PostgreSQL too
//! pg_lock_status()                   pg_catalog.pg_locks
//! pg_get_keywords()                  the words that the parser knows
//! pg_options_to_table(srvoptions)    no row: nothing has options of that kind
//! pg_catalog.unnest(a) AS x          unnest(a) AS x (x): a function's one column is called as the function is
//! ```

use super::vacancy::{is_always_null, last_part};
use sqlparser::ast::{
    FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, TableAlias, TableAliasColumnDef, TableFactor,
};
use sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS};
use std::sync::LazyLock;
use tidemark_planner::{Statement, parse::parse};

/// Puts a relation in the place of a function, where this is one of them.
pub fn answer(factor: &mut TableFactor) {
    match factor {
        TableFactor::Table { name, args: args @ Some(_), alias, with_ordinality: false, .. } => {
            let called = last_part(name);
            match called.as_str() {
                "pg_show_all_settings" | "pg_lock_status" => {
                    let table = if called == "pg_lock_status" { "pg_locks" } else { "pg_settings" };
                    *name = ObjectName::from(vec![Ident::new("pg_catalog"), Ident::new(table)]);
                    *args = None;
                    alias.get_or_insert_with(|| alias_of(&called));
                }
                "pg_get_keywords" => derive(factor, &KEYWORDS, &called),
                "pg_options_to_table" if all_null(args.iter().flat_map(|args| &args.args)) => {
                    derive(factor, &NO_OPTIONS, &called);
                }
                "unnest" => {
                    let plain = |arg: &FunctionArg| match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                        _ => None,
                    };
                    let exprs: Option<Vec<_>> = args.iter().flat_map(|args| &args.args).map(plain).collect();
                    let Some(array_exprs) = exprs else { return };
                    let alias = alias.take();
                    *factor = TableFactor::UNNEST {
                        alias,
                        array_exprs,
                        with_offset: false,
                        with_offset_alias: None,
                        with_ordinality: false,
                    };
                    answer(factor);
                }
                _ => {}
            }
        }
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality: false, .. }
            if array_exprs.len() == 1 =>
        {
            let alias = alias.get_or_insert_with(|| alias_of("unnest"));
            if alias.columns.is_empty() {
                alias.columns = vec![TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
            }
        }
        _ => {}
    }
}

fn all_null<'a>(mut args: impl Iterator<Item = &'a FunctionArg>) -> bool {
    args.all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if is_always_null(expr)))
}

fn alias_of(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(name), columns: vec![], at: None }
}

/// The query's rows under the alias that the function had, or its name.
fn derive(factor: &mut TableFactor, rows: &Option<Query>, called: &str) {
    let (Some(rows), TableFactor::Table { alias, .. }) = (rows, &mut *factor) else { return };
    let alias = alias.take().unwrap_or_else(|| alias_of(called));
    *factor =
        TableFactor::Derived { lateral: false, subquery: Box::new(rows.clone()), alias: Some(alias), sample: None };
}

fn query(sql: &str) -> Option<Query> {
    match parse(sql).ok()?.into_iter().next()?.statement {
        Statement::Query(query) => Some(*query),
        _ => None,
    }
}

static NO_OPTIONS: LazyLock<Option<Query>> =
    LazyLock::new(|| query("SELECT CAST(NULL AS TEXT) AS option_name, CAST(NULL AS TEXT) AS option_value WHERE false"));

/// `R`: it cannot be a column's name without quotes; `U`: it can.
static KEYWORDS: LazyLock<Option<Query>> = LazyLock::new(|| {
    let row = |(word, keyword): (&&str, _)| {
        let (word, reserved) = (word.to_lowercase(), RESERVED_FOR_COLUMN_ALIAS.contains(keyword));
        let (code, description) = if reserved { ("R", "reserved") } else { ("U", "unreserved") };
        let (label, labelled) = if reserved { ("false", "requires AS") } else { ("true", "can be bare label") };
        format!("('{word}', '{code}', {label}, '{description}', '{labelled}')")
    };
    let words = ALL_KEYWORDS.iter().zip(ALL_KEYWORDS_INDEX);
    // Some words of other dialects are written with signs.
    let plain = words.filter(|(word, _)| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let rows: Vec<String> = plain.map(row).collect();
    query(&format!(
        "SELECT word, catcode, barelabel, catdesc, baredesc \
         FROM (VALUES {}) AS k (word, catcode, barelabel, catdesc, baredesc)",
        rows.join(", ")
    ))
});

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::ast::{SetExpr, VisitMut, VisitorMut};
    use std::ops::ControlFlow;

    struct Answering;
    impl VisitorMut for Answering {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            answer(factor);
            ControlFlow::Continue(())
        }
    }

    fn from(sql: &str) -> String {
        let mut query = query(sql).expect("it parses");
        let _ = VisitMut::visit(&mut query, &mut Answering);
        match query.body.as_ref() {
            SetExpr::Select(select) => select.from[0].to_string(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn functions_in_from_become_relations() {
        for (sql, expected) in [
            ("SELECT * FROM pg_show_all_settings()", "pg_catalog.pg_settings AS pg_show_all_settings"),
            ("SELECT * FROM pg_show_all_settings() AS s", "pg_catalog.pg_settings AS s"),
            ("SELECT * FROM pg_catalog.unnest(a) AS x", "UNNEST(a) AS x (x)"),
            ("SELECT * FROM unnest(a)", "UNNEST(a) AS unnest (unnest)"),
            ("SELECT * FROM unnest(a) AS t (b)", "UNNEST(a) AS t (b)"),
        ] {
            assert_eq!(from(sql), expected, "{sql}");
        }
        let options = from("SELECT * FROM pg_options_to_table(srvoptions) o");
        assert!(options.contains("WHERE false") && options.ends_with('o'), "{options}");
        assert!(from("SELECT * FROM pg_options_to_table('{a=b}')").starts_with("pg_options_to_table"));
    }

    #[test]
    fn keywords_have_the_codes_of_what_they_can_be() {
        let words = from("SELECT * FROM pg_get_keywords()");
        for row in ["('select', 'R', false", "('abort', 'U', true"] {
            assert!(words.contains(row), "no {row}");
        }
    }
}
