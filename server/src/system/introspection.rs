//! asyncpg's question about types, answered by a simpler query.
//!
//! Before it reads or sends an array for the first time, asyncpg walks from the type to everything it is made of, with
//! a recursive query inside a recursive query. Types here are base types and arrays of them (no domains, composites or
//! ranges), so the walk has at most two steps and needs no recursion.

use sqlparser::ast::{Query, SetExpr, TableFactor};
use tidemark_planner::{Statement, parse::parse};

const TYPES_AND_ELEMENTS: &str = "
SELECT t.oid AS oid, n.nspname AS ns, t.typname AS name, t.typtype AS kind, NULL::text AS basetype,
       t.typelem AS elemtype, e.typdelim AS elemdelim, NULL::text AS range_subtype, NULL::text AS attrtypoids,
       NULL::text AS attrnames, CASE WHEN t.oid = ANY ($1::int8[]) THEN 0 ELSE 1 END AS depth,
       NULL::text AS basetype_name, regtype$name(t.typelem) AS elemtype_name, NULL::text AS range_subtype_name
FROM pg_catalog.pg_type t
     INNER JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
     LEFT JOIN pg_catalog.pg_type e ON t.typlen = -1 AND t.typelem <> 0 AND e.oid = t.typelem
WHERE t.oid = ANY ($1::int8[])
   OR t.oid IN (SELECT a.typelem FROM pg_catalog.pg_type a WHERE a.oid = ANY ($1::int8[]))
ORDER BY depth DESC";

/// The columns of the walk; a query is asyncpg's when it declares them all, in this order.
const WALK: [&str; 11] = [
    "oid",
    "ns",
    "name",
    "kind",
    "basetype",
    "elemtype",
    "elemdelim",
    "range_subtype",
    "attrtypoids",
    "attrnames",
    "depth",
];

/// Replaces the walk, where this is it.
pub fn answer(query: &mut Query) -> bool {
    if !is_walk(query) {
        return false;
    }
    let Ok(parsed) = parse(TYPES_AND_ELEMENTS) else { return false };
    match parsed.into_iter().next().map(|p| p.statement) {
        Some(Statement::Query(simpler)) => {
            *query = *simpler;
            true
        }
        _ => false,
    }
}

fn is_walk(query: &Query) -> bool {
    let Some(with) = &query.with else { return false };
    let ([cte], true) = (with.cte_tables.as_slice(), with.recursive) else { return false };
    let columns = cte.alias.columns.iter().map(|c| c.name.value.as_str());
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let reads_it_alone = match select.from.as_slice() {
        [one] => matches!(&one.relation, TableFactor::Table { name, .. } if name.to_string() == cte.alias.name.value),
        _ => false,
    };
    reads_it_alone && columns.eq(WALK) && cte.query.to_string().contains("pg_type")
}
