//! An array of a catalog table, unnested beside it: `FROM pg_constraint con CROSS JOIN UNNEST(conkey) AS k`, where `k` is
//! then read as a column. The planner has no such join; the same rows are those of a SELECT that unnests.
//!
//! ```text
//! FROM (SELECT *, unnest(conkey) AS k FROM pg_constraint con) AS con
//! ```

use super::vacancy::last_part;
use sqlparser::{
    ast::{Ident, JoinConstraint, JoinOperator, Select, SetExpr, TableFactor, TableWithJoins},
    dialect::PostgreSqlDialect,
    parser::Parser,
};

/// Writes such joins out, where they come first behind their table.
pub fn write_out(select: &mut Select) {
    for from in &mut select.from {
        if let Some(relation) = unnested(from) {
            from.relation = relation;
            from.joins.remove(0);
        }
    }
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
    let sql = format!("SELECT * FROM (SELECT *, unnest({array}) AS {column} FROM {table}) AS {shown}");
    let query = Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).ok()?.parse_query().ok()?;
    let SetExpr::Select(select) = *query.body else { return None };
    Some(select.from.into_iter().next()?.relation)
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
