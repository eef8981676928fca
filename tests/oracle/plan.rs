//! The planner on its own: what `EXPLAIN (FORMAT PROBES)` prints for a generated view must be the definition.

use crate::model::{Case, Source, Ty, View};
use crate::postgres::Postgres;
use crate::value::compare;
use crate::{admission, generate};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use tidemark_catalog::{Body, ClockMode, Column, Object, ObjectId, Relation, Snapshot, SqlType};
use tidemark_planner::Statement;
use tidemark_planner::feature::{FeaturePlan, plan_feature_view};
use tidemark_planner::parse::parse;
use tidemark_planner::probes::probes_sql;

const CASES: u64 = 20;
const VIEWS: usize = 10;

#[tokio::test]
async fn explain_format_probes_prints_the_definition() -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut wrong = Vec::new();
    for seed in 0..CASES {
        let case = generate::case(seed, VIEWS).in_one();
        let admitted = admission::admitted(&case.source);
        postgres.load(&case.source, admitted.iter().flatten()).await?;
        for i in 0..case.views.len() {
            if let Err(error) = view_agrees(&case, i, &postgres).await {
                wrong.push(format!("seed {seed}, {}: {error:#}", case.views[i].0.query_sql("s")));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{} of {} views: {}", wrong.len(), CASES * VIEWS as u64, wrong.join("\n\n"));
    }
    Ok(())
}

async fn view_agrees(case: &Case, view: usize, postgres: &Postgres) -> Result<()> {
    let (view, probes) = &case.views[view];
    let sql = probes_text(&case.source, view)?;
    let expected = postgres.expected(&case.source, view, probes).await?;
    let answers = postgres.by_probes_sql(view, &sql).await?;
    for ((probe, expected), actual) in probes.iter().zip(&expected).zip(&answers) {
        compare(&expected.answer, actual).map_err(|e| anyhow!("at {probe:?}: {e}\n{sql}"))?;
    }
    if answers.len() != probes.len() {
        bail!("{} answers to {} probes\n{sql}", answers.len(), probes.len());
    }
    Ok(())
}

pub fn probes_text(source: &Source, view: &View) -> Result<String> {
    Ok(probes_sql(&feature_plan(source, view)?, "v")?)
}

pub fn feature_plan(source: &Source, view: &View) -> Result<FeaturePlan> {
    let snapshot = Snapshot::new(1, [object(source)]);
    let create = view.create_sql("v", "s");
    let mut statements = parse(&create).context("parsing the view")?;
    let Some(Statement::CreateFeatureView(create)) = statements.pop().map(|parsed| parsed.statement) else {
        bail!("not a CREATE FEATURE VIEW: {create}")
    };
    plan_feature_view("v", &create.query, &create.options, &snapshot, "UTC").context("planning")
}

#[test]
fn every_generated_source_is_a_create_source_statement() -> Result<()> {
    for seed in 0..CASES {
        let create = generate::case(seed, 0).source.create_sql("s");
        let statements = parse(&create).context("parsing the source")?;
        assert!(matches!(statements[0].statement, Statement::CreateRelation(_)), "{create}");
    }
    Ok(())
}

pub fn object(source: &Source) -> Object {
    let columns = source.columns.iter();
    let body = if source.primary_key.is_some() { Body::Table } else { Body::Source };
    Object {
        id: ObjectId::FIRST,
        name: "s".to_owned(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: body(Relation {
            columns: columns
                .map(|(name, t)| Column { name: name.clone(), ty: sql_type(*t), not_null: false, comment: None })
                .collect(),
            primary_key: source.primary_key.iter().map(|name| source.column(name)).collect(),
            upsert: source.primary_key.is_some(),
            encode: Default::default(),
            event_time: Some(source.column(crate::model::EVENT_TIME)),
            delay_us: source.delay_us,
            clock: ClockMode::Event,
            max_ahead_us: 0,
            idle_timeout_us: 0,
            retention_us: None,
            dead_letter_retention_us: None,
            includes: vec![],
            layout: Default::default(),
            options: BTreeMap::new(),
            sql: String::new(),
        }),
    }
}

pub fn sql_type(ty: Ty) -> SqlType {
    match ty {
        Ty::Int2 => SqlType::Int2,
        Ty::Int4 => SqlType::Int4,
        Ty::Int8 => SqlType::Int8,
        Ty::Float4 => SqlType::Float4,
        Ty::Float8 => SqlType::Float8,
        Ty::Numeric => SqlType::Numeric { precision: 12, scale: 3 },
        Ty::Text => SqlType::Text,
        Ty::Bool => SqlType::Bool,
        Ty::Bytea => SqlType::Bytea,
        Ty::Date => SqlType::Date,
        Ty::Time => SqlType::Time,
        Ty::Timestamp => SqlType::Timestamp,
        Ty::Instant => SqlType::TimestampTz,
        Ty::Interval => SqlType::Interval,
    }
}
