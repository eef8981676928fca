//! What is simulated: two sources of events, a table whose rows replace one another, and feature views of every shape over them.

use std::{collections::BTreeMap, sync::LazyLock};
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType};
use tidemark_engine::compiled::CompiledView;
use tidemark_planner::{
    Statement,
    feature::{FeaturePlan, plan_feature_view},
    parse::parse,
};

pub const A: ObjectId = ObjectId::FIRST;
pub const B: ObjectId = ObjectId(A.0 + 1);
pub const T: ObjectId = ObjectId(A.0 + 2);
pub const RELATIONS: [ObjectId; 3] = [A, B, T];
pub const FIRST_VIEW: u32 = A.0 + 3;

pub const SECOND: i64 = 1_000_000;

/// Name, options, query.
const VIEWS: [(&str, &str, &str); 17] = [
    (
        "short",
        "",
        "SELECT k, ts, count(*) OVER w AS c, sum(x) OVER w AS total, max(x) OVER w AS top FROM a \
         WINDOW w AS (PARTITION BY k ORDER BY ts RANGE INTERVAL '10 seconds' PRECEDING)",
    ),
    (
        "long",
        "",
        "SELECT k, ts, x AS latest, avg(x) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '3 minutes' PRECEDING AND \
         INTERVAL '5 seconds' PRECEDING) AS mean, count(*) FILTER (WHERE n > 1) OVER (PARTITION BY k ORDER BY ts ROWS 3 PRECEDING) \
         AS few FROM a",
    ),
    ("ever", "", "SELECT k, count(*) AS c, min(x) AS least, last_value(x) AS latest FROM a WHERE n <> 3 GROUP BY k"),
    (
        "tumbled",
        "WITH (ttl = '1 minute')",
        "SELECT k, window_end() AS until, count(*) AS c, sum(x) AS total FROM a GROUP BY k, TUMBLE(ts, INTERVAL '10 seconds')",
    ),
    (
        "sessions",
        "",
        "SELECT k, window_start() AS since, count(*) AS c FROM b GROUP BY k, SESSION(ts, INTERVAL '8 seconds')",
    ),
    ("hopped", "", "SELECT k, max(x) AS top FROM b GROUP BY k, HOP(ts, INTERVAL '5 seconds', INTERVAL '15 seconds')"),
    (
        "mortal",
        "WITH (ttl = '25 seconds')",
        "SELECT k, ts, n, sum(x) OVER (PARTITION BY k ORDER BY ts RANGE INTERVAL '20 seconds' PRECEDING) AS total FROM b",
    ),
    (
        "failing",
        "",
        "SELECT k, ts, sum(100 / n) OVER (PARTITION BY k ORDER BY ts RANGE INTERVAL '30 seconds' PRECEDING) AS total FROM b",
    ),
    (
        "slid",
        "WITH (slide = '10 seconds')",
        "SELECT n, ts, count(*) OVER w AS c, sum(x) OVER w AS total FROM b \
         WINDOW w AS (PARTITION BY n ORDER BY ts RANGE INTERVAL '1 minute' PRECEDING)",
    ),
    ("versions", "", "SELECT id, grp, x, ts FROM t"),
    (
        "groups",
        "",
        "SELECT grp, ts, count(*) OVER (PARTITION BY grp ORDER BY ts) AS c, sum(x) OVER (PARTITION BY grp ORDER BY ts) AS total, \
         max(x) OVER (PARTITION BY grp ORDER BY ts RANGE INTERVAL '20 seconds' PRECEDING) AS top FROM t",
    ),
    ("grouped", "", "SELECT grp, count(*) AS c, sum(x) AS total FROM t WHERE x <> 2 GROUP BY grp"),
    (
        "united",
        "",
        "SELECT k, ts, count(*) OVER w AS c, sum(x) OVER w AS total, last_value(n) OVER w AS latest FROM \
         (SELECT k, x, n, ts FROM a UNION ALL SELECT k, -x, n + 10, ts FROM b WHERE n > 0) AS e \
         WINDOW w AS (PARTITION BY k ORDER BY ts RANGE INTERVAL '15 seconds' PRECEDING)",
    ),
    (
        "priced",
        "",
        "SELECT e.k, e.ts, p.grp AS latest, count(*) OVER w AS c, sum(e.x * p.x) OVER w AS total \
         FROM a e ASOF LEFT JOIN t p ON e.n = p.id AND e.ts >= p.ts \
         WINDOW w AS (PARTITION BY e.k ORDER BY e.ts RANGE INTERVAL '30 seconds' PRECEDING)",
    ),
    // These are kept together with `short` and with `mortal`.
    (
        "short_too",
        "",
        "SELECT k, ts, min(x) OVER w AS least, count(*) FILTER (WHERE n > 1) OVER w AS few, sum(x) OVER w / count(*) OVER w AS mean FROM a \
         WINDOW w AS (PARTITION BY k ORDER BY ts RANGE INTERVAL '10 seconds' PRECEDING)",
    ),
    (
        "short_raw",
        "",
        "SELECT k, ts, n AS number, last_value(x) OVER w AS last, max(x) OVER w AS top FROM a \
         WINDOW w AS (PARTITION BY k ORDER BY ts RANGE INTERVAL '10 seconds' PRECEDING)",
    ),
    (
        "mortal_too",
        "WITH (ttl = '25 seconds')",
        "SELECT k, ts, x, max(n) OVER (PARTITION BY k ORDER BY ts RANGE INTERVAL '20 seconds' PRECEDING) AS top FROM b",
    ),
];

/// A view as CREATE has planned it.
pub struct Shape {
    pub name: &'static str,
    pub plan: FeaturePlan,
    object: Object,
}

impl Shape {
    pub fn object(&self, id: ObjectId) -> Object {
        Object { id, ..self.object.clone() }
    }

    pub fn compiled(&self, id: ObjectId) -> CompiledView {
        CompiledView::new(&self.object(id), self.plan.clone()).expect(self.name)
    }
}

static SYSTEM: LazyLock<Vec<Shape>> = LazyLock::new(|| shapes(ClockMode::System));
static EVENT: LazyLock<Vec<Shape>> = LazyLock::new(|| shapes(ClockMode::Event));

pub fn of(clock: ClockMode) -> &'static [Shape] {
    match clock {
        ClockMode::System => &SYSTEM,
        ClockMode::Event => &EVENT,
    }
}

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_string(), ty, not_null: false, comment: None }
}

pub fn relations(clock: ClockMode) -> [Object; 3] {
    let relation = |columns: Vec<Column>, primary_key: Vec<usize>| Relation {
        event_time: Some(columns.len() - 1),
        columns,
        primary_key,
        upsert: false,
        encode: Default::default(),
        delay_us: 5 * SECOND,
        clock,
        max_ahead_us: 60 * SECOND,
        idle_timeout_us: 20 * SECOND,
        retention_us: None,
        dead_letter_retention_us: None,
        options: BTreeMap::new(),
        includes: vec![],
        layout: Default::default(),
        sql: String::new(),
    };
    let (no, ts) = (column("no", SqlType::Int8), column("ts", SqlType::TimestampTz));
    let (x, n) = (column("x", SqlType::Float8), column("n", SqlType::Int8));
    let events = vec![no.clone(), column("k", SqlType::Text), x.clone(), n, ts.clone()];
    let rows = vec![no, column("id", SqlType::Int8), column("grp", SqlType::Text), x, ts];
    let object = |id, name: &str, body| Object {
        id,
        name: name.to_string(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body,
    };
    [
        object(A, "a", Body::Source(relation(events.clone(), vec![]))),
        object(B, "b", Body::Source(relation(events, vec![]))),
        object(T, "t", Body::Table(relation(rows, vec![1]))),
    ]
}

/// The second source is fed by a topic. No partition of it is ever idle: from when on one is, nothing in the log tells.
pub fn feed_second(relations: &mut [Object; 3]) {
    let Body::Source(relation) = &mut relations[1].body else { panic!("a source") };
    let options = [("connector", "kafka"), ("topic", "b")];
    relation.options.extend(options.map(|(name, value)| (name.to_string(), value.to_string())));
    relation.idle_timeout_us = i64::MAX / 4;
}

fn shapes(clock: ClockMode) -> Vec<Shape> {
    let snapshot = Snapshot::new(1, relations(clock));
    VIEWS.into_iter().map(|(name, options, query)| shape(name, options, query, &snapshot)).collect()
}

fn shape(name: &'static str, options: &str, query: &str, snapshot: &Snapshot) -> Shape {
    let mut parsed = parse(&format!("CREATE FEATURE VIEW {name} {options} AS {query}")).expect(name);
    let Some(Statement::CreateFeatureView(create)) = parsed.pop().map(|parsed| parsed.statement) else {
        panic!("no feature view: {query}")
    };
    let plan = plan_feature_view(name, &create.query, &create.options, snapshot, "UTC").expect(name);
    let columns = plan.outputs.iter().map(|output| column(&output.name, SqlType::from_arrow(&output.ty).expect(name)));
    let relations = plan.relations();
    let view = FeatureView {
        sql: String::new(),
        query: create.query_text,
        relation: relations[0],
        others: relations[1..].to_vec(),
        through: vec![],
        columns: columns.collect(),
        key: plan.key_outputs(),
        time: plan.time_output(),
        features: vec![],
        ttl_us: plan.ttl_us,
        time_zone: "UTC".to_string(),
        owner: None,
        tags: vec![],
        options: create.options,
        version: 1,
        history_start_us: None,
    };
    let body = Body::FeatureView(view);
    Shape {
        name,
        plan,
        object: Object { id: A, name: name.to_string(), created_us: 0, comment: None, place: Default::default(), body },
    }
}
