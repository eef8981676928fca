//! An array of a catalog table, unnested beside it: `FROM pg_constraint con CROSS JOIN UNNEST(conkey) AS k`, where `k` is
//! then read as a column. The planner has no such join; the same rows are those of a SELECT that unnests.
//!
//! ```text
//! FROM (SELECT *, unnest(conkey) AS k FROM pg_constraint con) AS con
//! ```
//!
//! So are those of `FROM (SELECT relacl …) acl, aclexplode(relacl) d`, of which only `d` is read:
//!
//! ```text
//! FROM (SELECT (granted).grantor, … FROM (SELECT aclexplode(relacl) AS granted FROM (SELECT relacl …) acl) AS of_each) AS d
//! ```

use super::vacancy::last_part;
use sqlparser::{
    ast::{Ident, JoinConstraint, JoinOperator, Select, SelectItem, SetExpr, TableFactor, TableWithJoins},
    dialect::PostgreSqlDialect,
    parser::Parser,
};

const EXPLODE: &str = "aclexplode";

/// Writes such joins out, where they come first behind their table.
pub fn write_out(select: &mut Select) {
    for from in &mut select.from {
        if let Some(relation) = unnested(from) {
            from.relation = relation;
            from.joins.remove(0);
        }
    }
    if let Some(relation) = exploded(select) {
        select.from = vec![TableWithJoins { relation, joins: vec![] }];
    }
}

/// The grants of a list beside it, where what is read is said by name: all of it would be the list too.
fn exploded(select: &Select) -> Option<TableFactor> {
    let is_all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let [of, function] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, args: Some(args), alias, with_ordinality: false, .. } = &function.relation else {
        return None;
    };
    let [list] = args.args.as_slice() else { return None };
    let is_plain = of.joins.is_empty() && function.joins.is_empty() && !select.projection.iter().any(is_all);
    let has_columns = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
    if last_part(name) != EXPLODE || !is_plain || has_columns {
        return None;
    }
    let shown = alias.as_ref().map_or_else(|| Ident::new(EXPLODE), |alias| alias.name.clone());
    let columns = ["grantor", "grantee", "privilege_type", "is_grantable"];
    let columns = columns.map(|column| format!("(granted).{column} AS {column}")).join(", ");
    let grants = format!("SELECT {EXPLODE}({list}) AS granted FROM {of}");
    derived(&format!("(SELECT {columns} FROM ({grants}) AS of_each) AS {shown}"))
}

fn derived(relation: &str) -> Option<TableFactor> {
    let sql = format!("SELECT * FROM {relation}");
    let query = Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).ok()?.parse_query().ok()?;
    let SetExpr::Select(select) = *query.body else { return None };
    Some(select.from.into_iter().next()?.relation)
}

/// The table and what is unnested beside it, as one relation of the table's name.
fn unnested(from: &TableWithJoins) -> Option<TableFactor> {
    let TableFactor::Table { name, args: None, alias, .. } = &from.relation else { return None };
    let join = from.joins.first()?;
    if !matches!(join.join_operator, JoinOperator::CrossJoin(JoinConstraint::None)) {
        return None;
    }
    let TableFactor::UNNEST { alias: Some(of), array_exprs, with_offset: false, with_ordinality: false, .. } =
        &join.relation
    else {
        return None;
    };
    let [array] = array_exprs.as_slice() else { return None };
    let column = match of.columns.as_slice() {
        [] => &of.name,
        [column] => &column.name,
        _ => return None,
    };
    let shown = alias.as_ref().map_or_else(|| Ident::with_quote('"', last_part(name)), |alias| alias.name.clone());
    let table = &from.relation;
    derived(&format!("(SELECT *, unnest({array}) AS {column} FROM {table}) AS {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_beside_its_table_is_unnested_in_it() {
        for (from, expected) in [
            (
                "pg_catalog.pg_constraint AS con CROSS JOIN UNNEST(con.conkey) AS k JOIN pg_class c ON c.oid = k",
                "(SELECT *, unnest(con.conkey) AS k FROM pg_catalog.pg_constraint AS con) AS con
                 JOIN pg_class c ON c.oid = k",
            ),
            (
                "pg_index CROSS JOIN UNNEST(indkey) AS u (n)",
                "(SELECT *, unnest(indkey) AS n FROM pg_index) AS \"pg_index\"",
            ),
            ("pg_index CROSS JOIN UNNEST(indkey) WITH ORDINALITY AS u", ""),
            ("pg_index JOIN UNNEST(ARRAY[1]) AS u ON true", ""),
            (
                "(SELECT relacl FROM pg_class) AS acl, pg_catalog.aclexplode(relacl) AS d",
                "(SELECT (granted).grantor AS grantor, (granted).grantee AS grantee,
                 (granted).privilege_type AS privilege_type, (granted).is_grantable AS is_grantable
                 FROM (SELECT aclexplode(relacl) AS granted FROM (SELECT relacl FROM pg_class) AS acl) AS of_each) AS d",
            ),
            ("pg_class, pg_index", ""),
        ] {
            let parsed = |sql: &str| {
                let sql = format!("SELECT 1 FROM {sql}");
                let query = Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).expect("it tokenizes").parse_query();
                let SetExpr::Select(select) = *query.expect("it parses").body else { panic!("{sql}") };
                select
            };
            let mut select = parsed(from);
            write_out(&mut select);
            let expected = if expected.is_empty() { from } else { expected };
            assert_eq!(select.to_string(), parsed(expected).to_string());
        }
    }
}
