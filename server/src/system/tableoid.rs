//! `c.tableoid`: the hidden column that says which table a row is from. Of a catalog table that is a constant.

use super::{inventory::SYSTEM, vacancy::last_part};
use sqlparser::ast::{Expr, Ident, Select, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// Whether an expression is the hidden column, so that it has a name to keep.
pub fn is_tableoid(ident: &Ident) -> bool {
    ident.value.eq_ignore_ascii_case("tableoid")
}

/// Puts the OIDs of the catalog tables in FROM in the place of their `tableoid`, also where a subquery refers to it.
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
                if let Some(spec) = spec {
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
        let oid = match expr {
            Expr::Identifier(ident) if is_tableoid(ident) => self.tables.first().map(|(_, oid)| *oid),
            Expr::CompoundIdentifier(parts) if parts.last().is_some_and(is_tableoid) => {
                let table = parts.iter().rev().nth(1).map(|ident| ident.value.to_lowercase()).unwrap_or_default();
                self.tables.iter().find(|(shown, _)| *shown == table).map(|(_, oid)| *oid)
            }
            _ => None,
        };
        if let Some(oid) = oid {
            *expr = Expr::Value(Value::Number(oid.to_string(), false).into());
        }
        ControlFlow::Continue(())
    }
}
