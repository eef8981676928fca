//! The names of result columns, as PostgreSQL gives them: `count`, `date_trunc`, `case`, the column under a cast, and
//! `?column?` for what has none. DataFusion would show its own spelling of the expression.
//!
//! In PostgreSQL names may be equal as long as nobody asks for one of them; in a DataFusion plan no two are. So equal ones
//! are told apart by a mark that no statement can contain, which is taken off again where a name is shown:
//!
//! ```text
//! SELECT n, max(n) OVER (), max(m) OVER ()      written
//!        n, max␀1,          max␀2               in the plan: "max" is none of them, so who asks for it is told so
//!        n, max,            max                 shown
//! ```

mod figure;
mod renamed;
mod wildcard;

pub use figure::column_name;
pub(crate) use figure::folded;
pub use renamed::mark_renamed;
pub use wildcard::{columns_of, expand, is_duplicate};

use arrow_schema::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef,
    TableFactor, Value, VisitMut, VisitorMut, visit_expressions,
};
use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

/// The function that makes rows.
pub const GENERATE_SERIES: &str = "generate_series";

/// A statement cannot contain it.
const MARK: char = '\0';

/// A name of a plan as a person reads it.
pub fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// A text with names of a plan in it, as a person reads it.
pub fn shown_text(text: &str) -> String {
    let mut pieces = text.split(MARK);
    let mut shown = pieces.next().unwrap_or_default().to_string();
    pieces.for_each(|piece| shown.push_str(piece.trim_start_matches(|c: char| c.is_ascii_digit())));
    shown
}

/// The columns as they are shown to a client.
pub fn shown_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_name(shown(f.name())));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// `name`, told apart from others of that name.
pub fn marked(name: &str, number: usize) -> String {
    format!("{}{MARK}{number}", shown(name))
}

/// Whether this name is told apart from others by a mark.
pub fn is_marked(name: &str) -> bool {
    name.contains(MARK)
}

/// Names the columns of every SELECT in the query. A second time it changes nothing.
pub fn name_columns(query: &mut Query) {
    struct Naming;
    impl VisitorMut for Naming {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            order_by_name(query);
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            order_by_input(query);
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            name_items(&mut select.projection);
            ControlFlow::Continue(())
        }

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            name_series(factor);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Naming);
}

/// The rows of `generate_series` and `unnest` are a relation of that name, or the alias; so is its column called.
fn name_series(factor: &mut TableFactor) {
    if let TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality: false, .. } = factor
        && array_exprs.len() == 1
    {
        return name_column(Ident::new("unnest"), alias);
    }
    let (name, alias) = match factor {
        TableFactor::Table { name, args: Some(_), alias, .. } | TableFactor::Function { name, alias, .. } => {
            (name, alias)
        }
        _ => return,
    };
    let function = name.0.last().and_then(|part| part.as_ident());
    let Some(function) = function.filter(|ident| figure::folded(ident) == GENERATE_SERIES) else { return };
    name_column(function.clone(), alias);
}

fn name_column(function: Ident, alias: &mut Option<TableAlias>) {
    let unnamed = TableAlias { explicit: true, name: function, columns: vec![], at: None };
    let alias = alias.get_or_insert(unnamed);
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
}

fn name_items(items: &mut [SelectItem]) {
    let mut groups: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        if let Some(name) = name_of(item) {
            groups.entry(shown(&name).to_string()).or_default().push(i);
        }
    }
    for (name, members) in groups {
        let distinct: BTreeSet<_> = members.iter().filter_map(|i| name_of(&items[*i])).collect();
        if members.len() > 1 && distinct.len() == members.len() {
            continue; // told apart before
        }
        let first = expr_of(&items[members[0]]).cloned();
        // Who asks for a name that is there twice may mean either if both are the same.
        let same = members.iter().all(|i| expr_of(&items[*i]) == first.as_ref());
        for (number, i) in members.iter().enumerate() {
            let name = match members.len() > 1 && !(same && number == 0) {
                true => marked(&name, number + 1),
                false => name.clone(),
            };
            rename(&mut items[*i], &name);
        }
    }
}

/// The name of an item that is one column.
fn name_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(column_name(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(figure::folded(alias)),
        _ => None,
    }
}

fn expr_of(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn rename(item: &mut SelectItem, name: &str) {
    let alias = Ident::with_quote('"', name);
    match item {
        SelectItem::UnnamedExpr(expr) => {
            if figure::column(expr).is_some_and(|ident| figure::folded(ident) == name) {
                return;
            }
            let expr = expr.clone();
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
        SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
        _ => {}
    }
}

/// `SELECT at::date … ORDER BY extract(hour FROM at)`: an expression is over the columns that come in, and so must not see
/// the name that the result's column has only from them. A plain name is the result's column.
fn order_by_input(query: &mut Query) {
    let Query { body, order_by: Some(order_by), .. } = query else { return };
    let SetExpr::Select(select) = body.as_mut() else { return };
    let OrderByKind::Expressions(keys) = &mut order_by.kind else { return };
    let mut mentioned = BTreeSet::new();
    for key in keys.iter().filter(|key| !matches!(key.expr, Expr::Identifier(_))) {
        let _ = visit_expressions(&key.expr, |expr| {
            if let Expr::Identifier(ident) = expr {
                mentioned.insert(figure::folded(ident));
            }
            ControlFlow::<()>::Continue(())
        });
    }
    for (i, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::ExprWithAlias { expr, alias } = item else { continue };
        let name = alias.value.clone();
        if is_marked(&name) || !mentioned.contains(&name) || column_name(expr) != name {
            continue;
        }
        *alias = Ident::with_quote('"', marked(&name, i + 1));
        for key in keys.iter_mut() {
            if matches!(&key.expr, Expr::Identifier(ident) if figure::folded(ident) == name) {
                key.expr = Expr::value(Value::Number((i + 1).to_string(), false));
            }
        }
    }
}

/// `SELECT DISTINCT f(x) … ORDER BY f(x)`: the order is by a column of the result, which has a name of its own now.
fn order_by_name(query: &mut Query) {
    let Query { body, order_by: Some(order_by), .. } = query else { return };
    let SetExpr::Select(select) = body.as_mut() else { return };
    if !matches!(select.distinct, Some(Distinct::Distinct)) {
        return;
    }
    name_items(&mut select.projection);
    let OrderByKind::Expressions(keys) = &mut order_by.kind else { return };
    for key in keys {
        let item = select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if *expr == key.expr => Some(alias),
            _ => None,
        });
        if let Some(alias) = item {
            key.expr = Expr::Identifier(alias.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    fn named(sql: &str) -> Vec<String> {
        let Ok([parsed]) = parse(sql).map(|p| <[_; 1]>::try_from(p).expect("one statement")) else {
            panic!("{sql} does not parse")
        };
        let Statement::Query(mut query) = parsed.statement else { panic!("{sql} is no query") };
        name_columns(&mut query);
        let once = query.clone();
        name_columns(&mut query);
        assert_eq!(once, query, "a second time changes nothing");
        let SetExpr::Select(select) = query.body.as_ref() else { panic!("{sql} is no SELECT") };
        select.projection.iter().filter_map(name_of).collect()
    }

    #[test]
    fn equal_names_are_told_apart_and_shown_equal() {
        assert_eq!(named("SELECT a, b FROM t"), ["a", "b"]);
        assert_eq!(named("SELECT n, n FROM t"), ["n", "n\0\u{32}"]);
        assert_eq!(named("SELECT a.n, b.n FROM a, b"), ["n\0\u{31}", "n\0\u{32}"]);
        assert_eq!(named("SELECT 1, 2 AS n, max(n) AS \"N\", 3"), ["?column?\0\u{31}", "n", "N", "?column?\0\u{32}"]);
        assert_eq!(shown("n\0\u{32}"), "n");
        assert_eq!(shown_text("Projection: t.n AS n\0\u{32}, m"), "Projection: t.n AS n, m");
    }

    #[test]
    fn a_distinct_query_is_ordered_by_the_columns_it_has() {
        let parsed = parse("SELECT DISTINCT lower(x) FROM t ORDER BY lower(x)").expect("it parses");
        let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("it is a query") };
        name_columns(&mut query);
        assert_eq!(query.to_string(), "SELECT DISTINCT lower(x) AS \"lower\" FROM t ORDER BY \"lower\"");
    }
}
