//! Definitions, and where their columns come from.

use super::*;
use crate::{Statement, parse::parse};
use std::collections::BTreeMap;
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Relation, SqlType, View};

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_string(), ty, not_null: false, comment: None }
}

fn object(id: u32, name: &str, body: Body) -> Object {
    Object { id: ObjectId(id), name: name.to_string(), created_us: 0, comment: None, place: Default::default(), body }
}

fn relation(columns: Vec<Column>, event_time: usize, primary_key: Vec<usize>) -> Relation {
    Relation {
        event_time: Some(event_time),
        primary_key,
        clock: ClockMode::Event,
        ..Relation::plain(columns, String::new())
    }
}

/// Two sources and a table, and one object more.
fn snapshot(more: Vec<Object>) -> Snapshot {
    let events = || {
        vec![
            column("user_id", SqlType::Int8),
            column("price", SqlType::Float8),
            column("action", SqlType::Text),
            column("at", SqlType::TimestampTz),
        ]
    };
    let users = vec![column("id", SqlType::Int8), column("plan", SqlType::Text), column("since", SqlType::TimestampTz)];
    let mut objects = vec![
        object(1, "clicks", Body::Source(relation(events(), 3, vec![]))),
        object(2, "orders", Body::Source(relation(events(), 3, vec![]))),
        object(3, "users", Body::Table(relation(users, 2, vec![0]))),
    ];
    objects.extend(more);
    Snapshot::new(1, objects)
}

fn view(id: u32, name: &str, query: &str, over: Vec<Object>) -> Object {
    let Some(Statement::Query(parsed)) = parse(query).expect(query).pop().map(|parsed| parsed.statement) else {
        panic!("{query}")
    };
    let plan = feature::plan_feature_view(name, &parsed, &BTreeMap::new(), &snapshot(over), "UTC").expect(query);
    let columns = plan.outputs.iter().map(|output| {
        let ty = SqlType::from_arrow(&output.ty).expect("a type");
        column(&output.name, ty)
    });
    let view = FeatureView {
        sql: String::new(),
        query: query.to_string(),
        relation: plan.relations()[0],
        others: plan.relations()[1..].to_vec(),
        through: plan.through.clone(),
        columns: columns.collect(),
        key: plan.key_outputs(),
        time: plan.time_output(),
        features: vec![],
        ttl_us: None,
        time_zone: "UTC".to_string(),
        owner: None,
        tags: vec![],
        options: BTreeMap::new(),
        version: 1,
        history_start_us: None,
    };
    object(id, name, Body::FeatureView(view))
}

/// Each edge as `column role object.column`.
fn shown(of_object: &Object, over: &Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = of(of_object, over)
        .into_iter()
        .map(|edge| {
            let column = edge.column.map_or("-", |at| of_object.columns()[at].name.as_str());
            let from = over.get_id(edge.from).map_or("?", |object| object.name.as_str());
            format!("{column} {} {from}.{}", edge.role.name(), edge.from_column.as_deref().unwrap_or("*"))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_feature_comes_from_the_columns_of_its_aggregate_its_filter_and_the_rows_it_counts() {
    let query = "SELECT user_id, at, count(*) OVER w AS n, sum(price) FILTER (WHERE action = 'buy') OVER w AS spend, \
                 price * 2 AS doubled, max(price) OVER w - min(price) OVER w AS span FROM clicks WHERE action <> 'bot' \
                 WINDOW w AS (PARTITION BY user_id ORDER BY at RANGE INTERVAL '1 hour' PRECEDING)";
    let view = view(9, "v", query, vec![]);
    let expected = [
        "- filter clicks.action",
        "at time clicks.at",
        "doubled value clicks.price",
        "n value clicks.*",
        "span value clicks.price",
        "spend value clicks.action",
        "spend value clicks.price",
        "user_id key clicks.user_id",
    ];
    assert_eq!(shown(&view, &snapshot(vec![view.clone()])), expected);
}

#[test]
fn columns_are_followed_through_unions_joins_and_subqueries() {
    let query = "SELECT k, at, sum(x) OVER w AS total FROM (SELECT user_id AS k, price AS x, at FROM clicks WHERE action = 'buy' \
                 UNION ALL SELECT user_id, -price, at FROM orders) e \
                 WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING)";
    let union = view(9, "v", query, vec![]);
    let expected = [
        "- filter clicks.action",
        "at time clicks.at",
        "at time orders.at",
        "k key clicks.user_id",
        "k key orders.user_id",
        "total value clicks.price",
        "total value orders.price",
    ];
    assert_eq!(shown(&union, &snapshot(vec![union.clone()])), expected);
    let query = "SELECT c.user_id, c.at, count(*) FILTER (WHERE u.plan = 'pro') OVER w AS n FROM clicks c \
                 ASOF LEFT JOIN users u ON c.user_id = u.id AND c.at >= u.since \
                 WINDOW w AS (PARTITION BY c.user_id ORDER BY c.at RANGE INTERVAL '1 hour' PRECEDING)";
    let joined = view(9, "v", query, vec![]);
    let expected = ["- join clicks.user_id", "at time clicks.at", "n value users.plan", "user_id key clicks.user_id"];
    assert_eq!(shown(&joined, &snapshot(vec![joined.clone()])), expected);
}

#[test]
fn a_service_comes_from_the_features_that_it_shows_and_computes_with() {
    let query = "SELECT user_id, at, sum(price) OVER (PARTITION BY user_id ORDER BY at RANGE INTERVAL '1 hour' PRECEDING) AS total FROM clicks";
    let spend = view(8, "spend", query, vec![]);
    let service = "WITH s AS (SELECT user_id AS k, total FROM spend) SELECT u.id, s.total / 2 AS half, u.plan, count(*) AS n \
                   FROM users u LEFT JOIN s ON s.k = u.id GROUP BY u.id, s.total, u.plan";
    let columns = [("id", SqlType::Int8), ("half", SqlType::Float8), ("plan", SqlType::Text), ("n", SqlType::Int8)];
    let body = View {
        sql: String::new(),
        query: service.to_string(),
        columns: columns.into_iter().map(|(name, ty)| column(name, ty)).collect(),
        reads: vec![ObjectId(8), ObjectId(3)],
    };
    let service = object(9, "service", Body::View(body));
    let expected =
        ["half value spend.total", "id value users.id", "n value spend.*", "n value users.*", "plan value users.plan"];
    assert_eq!(shown(&service, &snapshot(vec![spend, service.clone()])), expected);
}
