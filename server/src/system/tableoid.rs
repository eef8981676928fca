//! The hidden columns of catalog tables: `c.tableoid` says which table a row is from, `c.xmin` which transaction has written it.
//! Both are constants: there are no numbers of transactions, and rows that everybody sees have one of their own in PostgreSQL.

use super::{inventory::SYSTEM, rewrite::call, vacancy::last_part};
use sqlparser::ast::{Expr, Ident, Select, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// The function that gives PostgreSQL's `FrozenTransactionId`, so that it has the type of one.
pub const FROZEN: &str = "frozen$xid";

/// Whether an expression is a hidden column, so that it has a name to keep.
pub fn is_hidden(ident: &Ident) -> bool {
    is_tableoid(ident) || is_xmin(ident)
}

fn is_tableoid(ident: &Ident) -> bool {
    ident.value.eq_ignore_ascii_case("tableoid")
}

fn is_xmin(ident: &Ident) -> bool {
    ident.value.eq_ignore_ascii_case("xmin")
}

/// Puts the constants of the catalog tables in FROM in the places of their hidden columns, also where a subquery refers to them.
pub fn resolve(select: &mut Select) {
    let mut tables = vec![];
    select.from.iter().for_each(|joined| gather(joined, &mut tables));
    if tables.is_empty() {
        return;
    }
    let mut resolving = Resolving { tables };
    let _ = VisitMut::visit(&mut select.projection, &mut resolving);
    let _ = VisitMut::visit(&mut select.selection, &mut resolving);
    for joined in &mut select.from {
        let _ = VisitMut::visit(&mut joined.joins, &mut resolving);
    }
}

fn gather(joined: &TableWithJoins, tables: &mut Vec<(String, i64)>) {
    for relation in std::iter::once(&joined.relation).chain(joined.joins.iter().map(|join| &join.relation)) {
        match relation {
            TableFactor::Table { name, alias, args: None, .. } => {
                let table = last_part(name);
                let spec = SYSTEM.get("pg_catalog").and_then(|specs| specs.iter().find(|spec| spec.name == table));
                // One table has a column of its own that is called so.
                if let Some(spec) = spec.filter(|spec| spec.schema.field_with_name("xmin").is_err()) {
                    let shown = alias.as_ref().map_or(table, |alias| alias.name.value.to_lowercase());
                    tables.push((shown, spec.oid));
                }
            }
            TableFactor::NestedJoin { table_with_joins, .. } => gather(table_with_joins, tables),
            _ => {}
        }
    }
}

struct Resolving {
    tables: Vec<(String, i64)>,
}

impl VisitorMut for Resolving {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let (found, column) = match expr {
            Expr::Identifier(ident) if is_hidden(ident) => (self.tables.first(), &*ident),
            Expr::CompoundIdentifier(parts) => {
                let Some(column) = parts.last().filter(|column| is_hidden(column)) else {
                    return ControlFlow::Continue(());
                };
                let table = parts.iter().rev().nth(1).map(|ident| ident.value.to_lowercase()).unwrap_or_default();
                (self.tables.iter().find(|(shown, _)| *shown == table), column)
            }
            _ => return ControlFlow::Continue(()),
        };
        if let Some((_, oid)) = found {
            *expr = match is_xmin(column) {
                true => call(FROZEN, vec![], vec![]),
                false => Expr::Value(Value::Number(oid.to_string(), false).into()),
            };
        }
        ControlFlow::Continue(())
    }
}
