//! Which views are kept together, and where each then finds its columns.

use super::Family;
use crate::{
    Statement,
    feature::{FeaturePlan, plan_feature_view},
    parse::parse,
};
use std::collections::BTreeMap;
use tidemark_catalog::{Body, ClockMode, Column, Object, ObjectId, Relation, Snapshot, SqlType};

fn source(id: u32, name: &str) -> Object {
    let column = |(name, ty): (&str, SqlType)| Column { name: name.to_string(), ty, not_null: false, comment: None };
    let columns = [("k", SqlType::Text), ("x", SqlType::Float8), ("n", SqlType::Int4), ("at", SqlType::TimestampTz)];
    let relation = Relation {
        columns: columns.into_iter().map(column).collect(),
        primary_key: vec![],
        upsert: false,
        encode: Default::default(),
        event_time: Some(3),
        delay_us: 0,
        clock: ClockMode::Event,
        max_ahead_us: 0,
        idle_timeout_us: 0,
        retention_us: None,
        dead_letter_retention_us: None,
        options: BTreeMap::new(),
        includes: vec![],
        layout: Default::default(),
        sql: String::new(),
    };
    let id = ObjectId(ObjectId::FIRST.0 + id);
    Object {
        id,
        name: name.to_string(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::Source(relation),
    }
}

/// The plan of a view `SELECT k, at, columns FROM …`, `rest` being what follows the columns.
fn plan(columns: &str, rest: &str) -> FeaturePlan {
    let sql = format!("CREATE FEATURE VIEW v AS SELECT k, at, {columns} {rest}");
    let Some(Statement::CreateFeatureView(create)) = parse(&sql).expect(&sql).pop().map(|parsed| parsed.statement)
    else {
        panic!("no feature view: {sql}")
    };
    let snapshot = Snapshot::new(1, [source(0, "a"), source(1, "b")]);
    plan_feature_view("v", &create.query, &create.options, &snapshot, "UTC").expect(&sql)
}

const HOUR: &str = "FROM a WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING)";

#[test]
fn views_of_the_same_windows_are_one_plan_and_each_finds_its_columns() {
    let a = plan("count(*) OVER w AS c, sum(x) OVER w AS s, n", HOUR);
    let b = plan("sum(x) OVER w AS total, sum(x) OVER w / count(*) OVER w AS mean", HOUR);
    let c =
        plan("count(*) FILTER (WHERE n > 1) OVER w AS few, max(x) OVER w AS m, count(*) OVER w AS all_of_them", HOUR);
    let family = Family::of(&[&a, &b, &c], None).expect("they are kin");
    // c, s, n; then the mean over the same two slots; then few and m.
    assert_eq!(family.columns(&a), Some(vec![0, 1, 2]));
    assert_eq!(family.columns(&b), Some(vec![1, 3]));
    assert_eq!(family.columns(&c), Some(vec![4, 5, 0]));
    assert_eq!((family.plan.slots.len(), family.plan.frames.len(), family.plan.inputs.len()), (5, 1, 3));
    assert_eq!(family.columns(&plan("min(x) OVER w AS m", HOUR)), None);
}

#[test]
fn what_is_not_plainly_the_same_stands_for_itself() {
    let a = plan("count(*) OVER w AS c", HOUR);
    let hour =
        |from: &str| format!("FROM {from} WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING)");
    let day = "FROM a WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 day' PRECEDING)";
    let by_n = "FROM a WINDOW w AS (PARTITION BY k ORDER BY at ROWS 3 PRECEDING)";
    let ever = "FROM a WINDOW w AS (PARTITION BY k ORDER BY at)";
    for (columns, rest, is_kin) in [
        ("max(x) OVER w AS m", hour("a"), true),
        ("max(x) OVER w AS m", hour("b"), false),
        ("max(x) OVER w AS m", hour("a WHERE n > 1"), false),
        ("max(x) OVER w AS m", day.to_string(), false),
        ("max(x) OVER w AS m", by_n.to_string(), false),
        ("max(x) OVER w AS m", ever.to_string(), false),
        // A row that it cannot use is in the others all the same.
        ("sum(100 / n) OVER w AS s", hour("a"), false),
        // Evaluated at the reading.
        ("now() - max(at) OVER w AS age", hour("a"), false),
    ] {
        let b = plan(columns, &rest);
        assert_eq!(Family::of(&[&a, &b], None).is_some(), is_kin, "{columns} {rest}");
    }
}

#[test]
fn those_that_are_left_fit_into_the_shape_that_was_saved() {
    let a = plan("count(*) OVER w AS c, sum(x) OVER w AS s", HOUR);
    let b = plan("max(n) OVER w AS m, count(*) OVER w AS c", HOUR);
    let both = Family::of(&[&a, &b], None).expect("they are kin");
    let left = Family::of(&[&b], Some(&both.shape)).expect("it is of that shape");
    assert_eq!(left.shape, both.shape);
    assert_eq!(left.columns(&b), both.columns(&b));
    assert_eq!(left.plan.inputs.len(), both.plan.inputs.len());
    assert_eq!(left.plan.outputs.len(), both.plan.outputs.len());
    // One that was not there then does not fit.
    let c = plan("min(x) OVER w AS m", HOUR);
    assert!(Family::of(&[&b, &c], Some(&both.shape)).is_none());
}
