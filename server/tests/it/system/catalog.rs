//! A small catalog, and queries over it the way a session runs them.

use arrow::{
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{common::ParamValues, execution::SessionState, prelude::SessionContext, scalar::ScalarValue};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{
    Body, ClockMode, Column, Feature, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType, View, role,
};
use tidemark_engine::scan::bind_scans;
use tidemark_planner::{PlanResult, Statement, bind::Binder, functions, parse::parse, table::ScanTarget};
use tidemark_server::{
    outbox::Outbox,
    pg::Bell,
    system::{self, NoStats, SessionFacts, Settings, SystemTablesOf},
};

pub const FLIGHTS: u32 = 16384;
pub const PLANES: u32 = 16385;
pub const DELAYS: u32 = 16386;
pub const FEATURES: u32 = 16387;
pub const DELAYS_HISTORY: u32 = DELAYS + (1 << 30);

fn column(name: &str, ty: SqlType, not_null: bool) -> Column {
    Column { name: name.into(), ty, not_null, comment: None }
}

fn relation(columns: Vec<Column>, primary_key: Vec<usize>, event_time: Option<usize>) -> Relation {
    Relation {
        columns,
        primary_key,
        upsert: false,
        encode: Default::default(),
        event_time,
        delay_us: 2 * 86_400_000_000,
        clock: ClockMode::Event,
        max_ahead_us: 0,
        idle_timeout_us: 0,
        retention_us: None,
        dead_letter_retention_us: None,
        includes: vec![],
        layout: Default::default(),
        options: BTreeMap::new(),
        sql: "CREATE …".into(),
    }
}

fn object(id: u32, name: &str, comment: Option<&str>, body: Body) -> Object {
    Object {
        id: ObjectId(id),
        name: name.into(),
        created_us: 0,
        comment: comment.map(Into::into),
        place: Default::default(),
        body,
    }
}

/// A source, a table with a primary key, a feature view and a view.
pub fn snapshot() -> Snapshot {
    let mut carrier = column("carrier", SqlType::Text, true);
    carrier.comment = Some("IATA code".into());
    let flights = vec![
        carrier,
        column("event_time", SqlType::TimestampTz, true),
        column("dep_delay", SqlType::Int4, false),
        column("fare", SqlType::Numeric { precision: 10, scale: 2 }, false),
        column("tags", SqlType::Array(Box::new(SqlType::Text)), false),
    ];
    let planes = vec![column("tailnum", SqlType::Text, true), column("seats", SqlType::Int8, false)];
    let query = "SELECT carrier, event_time, count(*) OVER h1 AS departures_1h, now() - max(event_time) OVER h1 AS quiet \
                 FROM flights WINDOW h1 AS (PARTITION BY carrier ORDER BY event_time \
                 RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)";
    let view = FeatureView {
        sql: format!("CREATE FEATURE VIEW carrier_delays AS {query}"),
        query: query.into(),
        relation: ObjectId(FLIGHTS),
        columns: vec![
            column("carrier", SqlType::Text, true),
            column("event_time", SqlType::TimestampTz, true),
            column("departures_1h", SqlType::Int8, false),
            column("quiet", SqlType::Interval, false),
        ],
        key: vec![0],
        time: 1,
        features: vec![
            Feature {
                column: 2,
                aggregate: "count".into(),
                window: "RANGE 1 hour PRECEDING".into(),
                expression: "count(*) OVER h1".into(),
                default: Some("0".into()),
            },
            Feature {
                column: 3,
                aggregate: String::new(),
                window: String::new(),
                expression: "now() - …".into(),
                default: None,
            },
        ],
        ttl_us: Some(7 * 86_400_000_000),
        time_zone: "UTC".into(),
        owner: Some("ranking".into()),
        tags: vec!["ctr".into()],
        options: BTreeMap::new(),
        version: 1,
        through: vec![],
        history_start_us: None,
        others: vec![],
    };
    let service = View {
        sql: "CREATE VIEW service AS SELECT carrier FROM carrier_delays".into(),
        query: "SELECT carrier FROM carrier_delays".into(),
        columns: vec![column("carrier", SqlType::Text, false)],
        reads: vec![ObjectId(DELAYS)],
    };
    Snapshot::new(
        1,
        [
            object(FLIGHTS, "flights", Some("real departures"), Body::Source(relation(flights, vec![], Some(1)))),
            object(PLANES, "planes", None, Body::Table(relation(planes, vec![0], None))),
            object(DELAYS, "carrier_delays", None, Body::FeatureView(view)),
            object(FEATURES, "service", None, Body::View(service)),
        ],
    )
}

struct Fixed;

impl Settings for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        (name == "timezone").then(|| "UTC".to_string())
    }

    fn set(&self, name: &str, _: &str, _: bool) -> PlanResult<()> {
        Err(tidemark_planner::PlanError::new("42704", format!("unrecognized configuration parameter \"{name}\"")))
    }
}

/// The system's tables over a catalog.
pub fn tables(snapshot: Arc<Snapshot>) -> SystemTablesOf {
    SystemTablesOf::new(snapshot, Arc::new(NoStats)).for_session("ada", vec![("TimeZone".into(), "UTC".into())])
}

/// A session's functions over them.
pub fn state(tables: &SystemTablesOf) -> SessionState {
    let session = SessionFacts {
        user: "ada".into(),
        role: role::OWNER,
        backend_pid: 7,
        server_start_us: 0,
        settings: Arc::new(Fixed),
        outbox: Arc::new(Outbox::new(Arc::default(), Bell::default(), 7)),
    };
    let current = tables.clone();
    let context = SessionContext::new_with_state(functions::planning_state("UTC"));
    for function in system::functions(Arc::new(move || current.clone()), session) {
        context.register_udf(function.as_ref().clone());
    }
    context.state()
}

/// The rows of one statement.
pub async fn batches(sql: &str, parameters: &[ScalarValue]) -> Result<Vec<RecordBatch>, String> {
    let tables = tables(Arc::new(snapshot()));
    let state = state(&tables);
    let mut statements = parse(sql).map_err(|e| format!("parse: {e}: {:?}", e.detail))?;
    let Some(Statement::Query(mut query)) = statements.pop().map(|p| p.statement) else {
        return Err("not a query".into());
    };
    system::rewrite(&mut query);
    let types: Vec<_> = parameters.iter().map(|p| Some(p.data_type())).collect();
    let bound = Binder::new(tables.snapshot(), &state, &tables, 0)
        .query(&query, &types)
        .map_err(|e| format!("bind: {e}: {query}"))?;
    let plan = bound
        .plan
        .replace_params_with_values(&ParamValues::from(parameters.to_vec()))
        .map_err(|e| format!("parameters: {e}"))?;
    let plan = bind_scans(plan, |table| match &table.target {
        ScanTarget::System(name) => Ok(tables.provider(name)?.expect("it was bound, so it is there")),
        other => panic!("{other:?} is no system table"),
    })
    .map_err(|e| format!("scans: {e}"))?;
    let context = SessionContext::new_with_state(state);
    let frame = context.execute_logical_plan(plan).await.map_err(|e| format!("plan: {e}: {query}"))?;
    let schema = frame.schema().inner().clone();
    let batches = frame.collect().await.map_err(|e| format!("run: {e}: {query}"))?;
    match batches.is_empty() {
        true => Ok(vec![RecordBatch::new_empty(schema)]),
        false => Ok(batches),
    }
}

/// The rows as text, with the names of the columns first; NULL is empty, as psql shows it.
pub async fn table(sql: &str) -> Result<Vec<Vec<String>>, String> {
    let batches = batches(sql, &[]).await?;
    let mut rows = vec![batches[0].schema().fields().iter().map(|f| f.name().clone()).collect()];
    let options = FormatOptions::default();
    for batch in &batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("it can be shown")).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|c| c.value(row).to_string()).collect());
        }
    }
    Ok(rows)
}

/// The rows alone.
pub async fn rows(sql: &str) -> Vec<Vec<String>> {
    match table(sql).await {
        Ok(mut rows) => {
            rows.remove(0);
            rows
        }
        Err(error) => panic!("{error}\nin: {sql}"),
    }
}
