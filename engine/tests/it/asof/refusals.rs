//! Every refusal, with its hint.

use super::steps::clicks;
use super::world::World;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::sync::Arc;

fn world() -> World {
    let mut world = World::new(1, 8192);
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    for name in ["l", "r"] {
        let fields = vec![
            Field::new("k", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("tz", zoned.clone(), true),
            Field::new("day", DataType::Date32, true),
        ];
        world.table(name, Arc::new(Schema::new(fields)), vec![vec![]]);
    }
    clicks(&mut world);
    world
}

#[test]
fn a_refused_join_names_the_reason_and_a_way_out() {
    let world = world();
    // join, part of the message, part of the hint
    let cases = [
        ("l GLOBAL JOIN r ON l.k = r.k", "GLOBAL JOIN", "leave out GLOBAL"),
        ("l ASOF RIGHT JOIN r ON l.k = r.k AND l.ts >= r.ts", "ASOF RIGHT JOIN", "ASOF LEFT JOIN"),
        ("l ASOF FULL JOIN r ON l.k = r.k AND l.ts >= r.ts", "ASOF FULL JOIN", "ASOF LEFT JOIN"),
        ("l ASOF JOIN r", "needs a condition", "USING (key, ts)"),
        ("l ASOF JOIN r ON l.k = r.k", "needs an inequality", "l.ts >= r.ts"),
        ("l ASOF JOIN r ON l.ts >= r.ts AND l.tz > r.tz", "one inequality", "INTERVAL"),
        ("l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts AND r.name = 'x'", "r.name = ", "subquery"),
        ("l ASOF JOIN r ON l.k = r.k AND l.ts >= r.ts AND l.k + r.k = 3", "is not supported", "WHERE"),
        ("l ASOF JOIN r ON l.ts >= r.ts AND (l.k = r.k OR l.k = 1)", "is not supported", "WHERE"),
        ("l ASOF JOIN r ON l.ts >= r.ts AND l.k <> r.k", "is not supported", "WHERE"),
        ("l ASOF JOIN r ON l.k = r.k AND l.ts >= r.tz", "timestamptz r.tz with timestamp l.ts", "cast"),
        ("l ASOF JOIN r ON l.k = r.k AND l.day >= r.tz", "timestamptz r.tz with date l.day", "cast"),
        ("l ASOF JOIN r ON l.tz = r.ts AND l.ts >= r.ts", "timestamptz l.tz with timestamp r.ts", "cast"),
        ("l ASOF JOIN r ON l.k = r.k AND l.name >= r.name", "must be timestamps, dates or integers", "cast"),
        ("l ASOF JOIN r ON l.k = r.name AND l.ts >= r.ts", "cannot compare the keys", "cast"),
        ("l ASOF JOIN r ON l.ts >= r.ts AND r.ts - l.ts <= INTERVAL '1 day'", "tolerance", "l.ts - r.ts"),
        ("l ASOF JOIN r ON l.ts >= r.ts AND l.ts - r.ts <= INTERVAL '1 month'", "months", "days"),
        ("l ASOF JOIN r USING (nothing, ts)", "\"nothing\" in USING does not exist on the left", ""),
        ("l JOIN r ON l.k = r.k ASOF JOIN clicks c USING (k, ts)", "\"k\" in USING is ambiguous", "ON"),
        ("l NATURAL ASOF JOIN r", "", ""),
        ("l ASOF JOIN LATERAL (SELECT * FROM r) r ON l.ts >= r.ts", "LATERAL", "one right row"),
        ("l ASOF JOIN clicks c ON l.k = c.k AND l.tz <= c.ts", "look ahead", "future"),
        ("l ASOF JOIN clicks c ON l.k = c.k AND l.k >= c.n", "time column \"ts\"", "history.clicks"),
        ("l ASOF JOIN clicks c ON l.k = c.n AND l.tz >= c.ts", "entity key", "history.clicks"),
        ("l ASOF JOIN clicks c ON l.tz >= c.ts", "equality on its key column \"k\"", "history.clicks"),
        ("l ASOF JOIN (SELECT * FROM clicks WHERE n > 1) c ON l.k = c.k AND l.tz >= c.ts", "n > Int64(1)", "WHERE"),
        (
            "l ASOF JOIN (SELECT k, max(ts) ts FROM clicks GROUP BY k) c ON l.k = c.k AND l.tz >= c.ts",
            "aggregates",
            "history",
        ),
        (
            "l ASOF JOIN (SELECT c.* FROM clicks c, r) c ON l.k = c.k AND l.tz >= c.ts",
            "\"r\", which has no history",
            "ASOF JOIN each",
        ),
        (
            "l ASOF JOIN (SELECT k, n, ts FROM clicks) c ON l.k = c.k AND l.k >= c.n",
            "a time column",
            "\"ts\" of \"clicks\"",
        ),
        ("l ASOF JOIN (SELECT k, n, ts FROM clicks) c ON l.k = c.k AND l.tz <= c.ts", "look ahead", "future"),
        ("l ASOF JOIN (SELECT k, n, ts FROM clicks) c ON l.k = c.n AND l.tz >= c.ts", "entity key", "WHERE"),
        ("l ASOF JOIN (SELECT k, n, ts FROM clicks) c ON l.tz >= c.ts", "key column \"k\" of \"clicks\"", "show"),
    ];
    for (join, message, hint) in cases {
        let sql = format!("SELECT 1 FROM {join}");
        if message.is_empty() {
            assert!(world.plan(&sql).is_err(), "{sql}");
            continue;
        }
        let error = world.refusal(&sql);
        assert!(error.message.contains(message), "{sql}: {error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{sql}: {error:?}");
    }
}
