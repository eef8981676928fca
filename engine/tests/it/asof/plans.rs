//! What parses, and what optimised plans look like.

use super::world::{World, parse};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::physical_plan::displayable;
use std::sync::Arc;

fn world() -> World {
    let mut world = World::new(1, 8192);
    for name in ["l", "r", "s", "asof"] {
        let fields = vec![
            Field::new("k", DataType::Int64, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Int64, true),
        ];
        world.table(name, Arc::new(Schema::new(fields)), vec![vec![]]);
    }
    world
}

#[test]
fn every_spelling_plans_wherever_a_query_may_stand() {
    let world = world();
    let joins = [
        "l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts",
        "l asof inner join r ON l.k = r.k AND r.ts <= l.ts",
        "l ASOF LEFT JOIN r ON l.k = r.k AND l.ts > r.ts",
        "l ASOF LEFT OUTER JOIN r ON l.k = r.k AND l.ts < r.ts",
        "l ASOF JOIN r USING (k, ts)",
        "l ASOF LEFT JOIN r USING (k, ts)",
        "l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k",
        "l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts)",
        "l ASOF INNER JOIN r MATCH_CONDITION (l.ts >= r.ts) USING (k)",
        "l ASOF LEFT JOIN r MATCH_CONDITION (l.ts >= r.ts) USING (k)",
        "l ASOF LEFT OUTER JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k AND l.ts - r.ts < INTERVAL '1 day'",
        "s JOIN l ON s.k = l.k ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts",
        "l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts LEFT JOIN s ON s.k = l.k",
        "l ASOF JOIN (SELECT * FROM r WHERE a > 1) r ON l.k = r.k AND l.ts >= r.ts",
        "(l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts)",
        "s, l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts",
        "asof l ASOF JOIN asof r ON l.k = r.k AND l.ts >= r.ts",
    ];
    for join in joins {
        let queries = [
            format!("SELECT l.a FROM {join}"),
            format!("WITH c AS (SELECT l.a FROM {join}) SELECT * FROM c"),
            format!("SELECT a FROM (SELECT l.a FROM {join}) x"),
            format!("SELECT a FROM r WHERE a IN (SELECT l.a FROM {join})"),
            format!("SELECT l.a FROM {join} UNION ALL SELECT l.b FROM {join}"),
        ];
        for sql in queries {
            let plan = world.plan(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
            let text = plan.display_indent().to_string();
            assert!(text.contains("AsofJoin: "), "{sql}: {text}");
            let left = join.to_uppercase().contains("ASOF LEFT");
            assert_eq!(text.contains("AsofJoin: Left"), left, "{sql}: {text}");
            assert_eq!(text.contains("AsofJoin: Inner"), !left, "{sql}: {text}");
        }
    }
    // A table called asof is a table.
    let plan = world.plan("SELECT asof.a FROM asof JOIN r ON asof.k = r.k").unwrap();
    assert!(!plan.display_indent().to_string().contains("AsofJoin"));
    assert!(parse("SELECT * FROM l ASOF").is_err());
}

fn optimized(sql: &str) -> String {
    let world = world();
    world.state.optimize(&world.bound(sql).unwrap()).unwrap().display_indent().to_string()
}

#[test]
fn filters_go_below_where_the_match_cannot_change() {
    let on = "ON l.k = r.k AND l.ts >= r.ts";
    // query, what the scan of each side is filtered by, and what stays above the join
    let cases = [
        (format!("SELECT l.a, r.b FROM l ASOF JOIN r {on} WHERE l.a = 1"), Some("l.a"), None, None),
        (format!("SELECT l.a, r.b FROM l ASOF LEFT JOIN r {on} WHERE l.k = 1"), Some("l.k"), Some("r.k"), None),
        (format!("SELECT l.a, r.b FROM l ASOF JOIN r {on} WHERE r.k = 1"), Some("l.k"), Some("r.k"), None),
        (format!("SELECT l.a, r.b FROM l ASOF LEFT JOIN r {on} WHERE r.k = 1"), None, None, Some("r.k")),
        (format!("SELECT l.a, r.b FROM l ASOF JOIN r {on} WHERE r.b = 1"), None, None, Some("r.b")),
        (format!("SELECT l.a, r.b FROM l ASOF JOIN r {on} WHERE r.ts > l.ts"), None, None, Some("r.ts")),
        (
            "SELECT a FROM (SELECT l.a, r.b FROM l ASOF JOIN r USING (k, ts)) x WHERE a = 1".into(),
            Some("l.a"),
            None,
            None,
        ),
    ];
    for (sql, left, right, above) in cases {
        let plan = optimized(&sql);
        let (over, under) = plan.split_once("AsofJoin").unwrap();
        assert_eq!(over.contains("Filter"), above.is_some(), "{sql}\n{plan}");
        assert!(over.contains(above.unwrap_or("")), "{sql}\n{plan}");
        let filters = |side: &str| under.lines().any(|l| l.contains("Filter") && l.contains(side));
        for (filter, side) in [(left, "l."), (right, "r.")] {
            assert_eq!(filters(side), filter.is_some(), "{sql}\n{plan}");
            assert!(filter.is_none_or(filters), "{sql}\n{plan}");
        }
    }
}

#[test]
fn a_volatile_filter_never_reaches_the_right_side() {
    let plan = optimized("SELECT l.a, r.b FROM l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts WHERE random() < 0.5");
    assert_eq!(plan.matches("random()").count(), 1, "{plan}");
    let at = |what: &str| plan.find(what).unwrap();
    assert!(at("random()") < at("TableScan: l"), "{plan}");
}

#[test]
fn only_needed_columns_are_read_but_ties_need_all_of_the_right() {
    let plan = optimized("SELECT l.a FROM l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts");
    assert!(plan.contains("TableScan: l projection=[k, ts, a]"), "{plan}");
    assert!(plan.contains("TableScan: r projection=[k, ts, a, b]"), "{plan}");
    let sql = "SELECT l.a FROM l ASOF JOIN (SELECT k, ts, a FROM r) r ON l.k = r.k AND l.ts >= r.ts LIMIT 3";
    let plan = optimized(sql);
    assert!(plan.contains("TableScan: r projection=[k, ts, a]"), "{plan}");
    assert!(
        !plan.contains("fetch=3\n      TableScan") && !plan.contains("TableScan: l projection=[k, ts, a], fetch"),
        "{plan}"
    );
}

#[tokio::test]
async fn left_joins_to_columns_of_one_spine_are_one_operator() {
    let world = world();
    let first = "l ASOF LEFT JOIN r ON l.k = r.k AND l.ts >= r.ts";
    // query, and the right sides of each operator, the outermost first
    let cases: [(String, &[usize]); 7] = [
        (format!("SELECT * FROM {first} ASOF LEFT JOIN s ON l.k = s.k AND l.ts > s.ts"), &[2]),
        (format!("SELECT * FROM {first} ASOF JOIN s ON l.a = s.k AND l.ts >= s.ts"), &[2]),
        (
            format!(
                "SELECT l.a, r.a + 1, s.b, t.a FROM {first} ASOF LEFT JOIN s ON l.k = s.k AND l.ts >= s.ts \
                 ASOF LEFT JOIN r t ON l.k = t.k AND l.ts >= t.ts"
            ),
            &[3],
        ),
        (
            format!(
                "SELECT x.* FROM (SELECT l.ts AS at, l.k AS key, r.a + 1 AS n FROM {first}) x \
                 ASOF LEFT JOIN s ON x.key = s.k AND x.at >= s.ts"
            ),
            &[2],
        ),
        // An INNER join before drops labels; a key or time of another relation is none of the spine.
        (
            "SELECT * FROM l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts ASOF LEFT JOIN s ON l.k = s.k AND l.ts >= s.ts"
                .into(),
            &[1, 1],
        ),
        (format!("SELECT * FROM {first} ASOF LEFT JOIN s ON r.a = s.k AND l.ts >= s.ts"), &[1, 1]),
        (
            format!(
                "SELECT * FROM (SELECT l.k, l.ts, l.a + 1 AS a FROM {first}) l ASOF LEFT JOIN s ON l.a = s.k AND l.ts >= s.ts"
            ),
            &[1, 1],
        ),
    ];
    for (sql, expected) in cases {
        let plan = world.physical(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let text = displayable(plan.as_ref()).indent(false).to_string();
        let found: Vec<usize> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("AsofJoinExec: "))
            .map(|joins| joins.split("; ").count())
            .collect();
        assert_eq!(found, expected, "{sql}\n{text}");
    }
}
