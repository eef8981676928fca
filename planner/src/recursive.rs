//! `WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r …)`: the names in parentheses are those that the second query reads.
//! DataFusion gives them to the whole alone, when the second has been bound; here the first query has them.

use datafusion::sql::sqlparser::{
    ast::{Cte, Query, SetExpr, SetOperator, TableAlias, TableFactor, VisitMut, VisitorMut},
    dialect::PostgreSqlDialect,
    parser::Parser,
};
use std::ops::ControlFlow;

/// Names the columns of the first queries.
pub fn name_columns(query: &mut Query) {
    struct Naming;
    impl VisitorMut for Naming {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            if let Some(with) = query.with.as_mut().filter(|with| with.recursive) {
                for cte in &mut with.cte_tables {
                    name_first(cte);
                }
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Naming);
}

/// `first UNION …` as `SELECT * FROM (first) AS r (n) UNION …`.
fn name_first(cte: &mut Cte) {
    if cte.alias.columns.is_empty() {
        return;
    }
    let SetExpr::SetOperation { op: SetOperator::Union, left, .. } = cte.query.body.as_mut() else { return };
    let Some(mut named) = parsed("SELECT * FROM (SELECT 1) AS r") else { return };
    let SetExpr::Select(select) = named.body.as_mut() else { return };
    let Some(TableFactor::Derived { subquery, alias, .. }) = select.from.first_mut().map(|from| &mut from.relation)
    else {
        return;
    };
    std::mem::swap(&mut subquery.body, left);
    *alias = Some(TableAlias { explicit: true, ..cte.alias.clone() });
    *left = named.body;
}

fn parsed(sql: &str) -> Option<Query> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).ok()?.parse_query().ok().map(|query| *query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_query_has_the_names_that_the_second_reads() {
        for (sql, expected) in [
            (
                "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
                "WITH RECURSIVE r (n) AS (SELECT * FROM (SELECT 1) AS r (n) UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
            ),
            (
                "SELECT (WITH RECURSIVE r (n) AS (VALUES (1) UNION SELECT n FROM r) SELECT max(n) FROM r)",
                "SELECT (WITH RECURSIVE r (n) AS (SELECT * FROM (VALUES (1)) AS r (n) UNION SELECT n FROM r) SELECT max(n) FROM r)",
            ),
            ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r) SELECT 1", ""),
            ("WITH r (n) AS (SELECT 1 UNION ALL SELECT 2) SELECT n FROM r", ""),
            ("WITH RECURSIVE r (n) AS (SELECT 1) SELECT n FROM r", ""),
        ] {
            let mut query = parsed(sql).expect(sql);
            name_columns(&mut query);
            assert_eq!(query.to_string(), if expected.is_empty() { sql } else { expected });
        }
    }
}
