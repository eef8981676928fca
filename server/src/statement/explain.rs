//! `EXPLAIN query`, `EXPLAIN CREATE FEATURE VIEW`, and the oracle's SQL by `(FORMAT PROBES)`.

use super::{
    change, create_feature_view, explain_json, insert, instants, merge, prepare, query,
    service_lookup::PreparedService, text_rows, text_schema,
};
use crate::{
    database::Database,
    pg::PgError,
    session::Session,
    wire::{pg_type, types::PG_TYPE},
};
use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{physical_plan::display::DisplayableExecutionPlan, scalar::ScalarValue, sql::sqlparser::ast};
use futures::TryStreamExt;
use std::{collections::HashMap, sync::Arc};
use tidemark_planner::{
    Statement,
    feature::{FeaturePlan, Frame, OutputKind, Slot, describe_duration},
    lookup,
    names::shown_text,
    probes::probes_sql,
    statement::{CreateFeatureView, ExplainFormat},
    words::in_sql,
};

/// The one column of the answer.
pub fn schema(format: &ExplainFormat) -> SchemaRef {
    match format {
        ExplainFormat::Json => {
            let json = HashMap::from([(PG_TYPE.to_string(), "json".to_string())]);
            let column = Field::new("QUERY PLAN", DataType::Utf8, true).with_metadata(json);
            Arc::new(Schema::new(vec![column]))
        }
        _ => text_schema(&["QUERY PLAN"]),
    }
}

/// A row for each line, or one document of all.
pub fn shown(text: &str, format: &ExplainFormat) -> Result<RecordBatch, PgError> {
    let rows: Vec<_> = match format {
        ExplainFormat::Json => vec![vec![Some(explain_json::document(text))]],
        _ => text.lines().map(|line| vec![Some(line.to_string())]).collect(),
    };
    text_rows(schema(format), &rows)
}

/// What the statement's plan says, line by line.
pub async fn query(
    database: &Arc<Database>,
    session: &Session,
    statement: &Statement,
    analyze: bool,
    verbose: bool,
    parameters: &[ScalarValue],
) -> Result<String, PgError> {
    let snapshot = session.snapshot(database);
    let mut text = String::new();
    let mut types = vec![];
    let changed;
    let asked = match statement {
        Statement::Query(query) => query,
        Statement::CreateTableAs { query, .. } => query,
        Statement::CreateTrainingSet(create) => &create.query,
        Statement::Insert(insert) if analyze => {
            return Err(PgError::error("0A000", format!("EXPLAIN ANALYZE would insert into \"{}\"", insert.table))
                .hint("EXPLAIN without ANALYZE shows the plan, EXPLAIN ANALYZE of its query the times"));
        }
        Statement::Insert(insert) => {
            types = insert::parameter_types(&snapshot, insert, &mut vec![])?;
            text.push_str(&format!("Insert on {}\n", insert.table));
            let object = insert::target(&snapshot, &insert.table)?;
            let map = insert::column_map(object, &insert.columns)?;
            changed = Box::new(insert::with_defaults(object, &map, &insert.query));
            &changed
        }
        Statement::Change(_) | Statement::Merge(_) if analyze => {
            return Err(PgError::error("0A000", "EXPLAIN ANALYZE would change the table")
                .hint("EXPLAIN without ANALYZE shows the plan that finds the rows"));
        }
        // The plan is of the query that finds the rows.
        Statement::Change(change) => {
            types = change::parameter_types(&snapshot, change, &mut vec![])?;
            let object = change::target(&snapshot, &change.table, change.command())?;
            let does = if change.sets.is_some() { "Update" } else { "Delete" };
            text.push_str(&format!("{does} on {}\n", change.table));
            changed = change::with_defaults(object, change)?;
            &changed
        }
        Statement::Merge(merge) => {
            types = merge::parameter_types(&snapshot, merge, &mut vec![])?;
            let object = change::target(&snapshot, &merge.table, "MERGE")?;
            text.push_str(&format!("Merge on {}\n", merge.table));
            changed = merge::with_defaults(object, merge)?;
            &changed
        }
        Statement::Execute { name, parameters } => {
            let (statement, parameters) = prepare::explained(database, session, name, parameters)?;
            return Box::pin(query(database, session, &statement, analyze, verbose, &parameters)).await;
        }
        _ => return Err(PgError::error("XX000", "this statement has no plan")),
    };
    if let Some(found) = lookup::recognise(asked, &snapshot) {
        let name = snapshot.get_id(found.view).map(|o| o.name.clone()).unwrap_or_default();
        let from = if database.serving().is_some() { "Redis and this node's cache" } else { "state" };
        text.push_str(&format!("Lookup on feature view {name} (answered from {from}, not planned)\n"));
        if !analyze && !verbose {
            return Ok(text);
        }
        text.push_str("As a query it would be:\n");
    } else if let Some(views) = service(database, session, asked, parameters)? {
        text.push_str(&format!("Lookup on feature views {views} (answered from state, not planned)\n"));
        if !analyze && !verbose {
            return Ok(text);
        }
        text.push_str("As a query it would be:\n");
    }
    let asked = &instants::written(asked, parameters, &session.format.time_zone)?;
    let plan = query::bind(database, session, asked, &types)?;
    if verbose {
        text.push_str(&format!("Logical plan:\n{}\nPhysical plan:\n", plan.plan.display_indent()));
    }
    let physical = query::physical(database, session, plan, parameters).await?;
    if analyze {
        let mut batches = database.queries.run(physical.clone(), session.state.task_ctx())?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
        }
        text.push_str(&DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(verbose).to_string());
        text.push_str(&format!("Rows: {rows}\n"));
    } else {
        text.push_str(&DisplayableExecutionPlan::new(physical.as_ref()).indent(verbose).to_string());
    }
    Ok(shown_text(&text))
}

/// The feature views that the query looks up together, if that is what it is; their names.
fn service(
    database: &Database,
    session: &Session,
    asked: &ast::Query,
    parameters: &[ScalarValue],
) -> Result<Option<String>, PgError> {
    let snapshot = session.snapshot(database);
    if !lookup::service::may_be(asked, &snapshot) {
        return Ok(None);
    }
    let oids: Vec<u32> = parameters.iter().map(|value| pg_type(&value.data_type()).oid).collect();
    let Some(found) = PreparedService::of(database, session, asked, &oids, None)? else { return Ok(None) };
    let names: Vec<_> = found.views().filter_map(|id| Some(snapshot.get_id(id)?.name.clone())).collect();
    Ok(Some(names.join(", ")))
}

pub fn feature_view(
    database: &Database,
    session: &Session,
    create: &CreateFeatureView,
    format: &ExplainFormat,
) -> Result<RecordBatch, PgError> {
    let snapshot = session.snapshot(database);
    let plan = create_feature_view::plan(&snapshot, session, create)?;
    match format {
        ExplainFormat::Probes => shown(&probes_sql(&plan, &create.name.name)?, format),
        ExplainFormat::Text | ExplainFormat::Json => {
            let kept_with = database.owner()?.engine.kept_with(&plan);
            let mut names: Vec<_> =
                kept_with.iter().filter_map(|id| Some(snapshot.get_id(*id)?.name.clone())).collect();
            names.sort();
            shown(&describe(&plan, &create.name.name, &names), format)
        }
    }
}

/// Bytes of an event kept for a key, without what texts have of their own: two words of its own (and of a version two more), a
/// bit for each NULL, and its inputs (the engine's `key::Layout`).
fn event_bytes(plan: &FeaturePlan) -> usize {
    const WORD: usize = 8;
    const VALUE: usize = 24;
    let (mut bits, mut bytes) = (0, if plan.versions { 4 * WORD } else { 2 * WORD });
    for input in &plan.inputs {
        bits += if input.ty == DataType::Boolean { 2 } else { 1 };
        bytes += match &input.ty {
            DataType::Boolean => 0,
            DataType::Decimal128(..) => 2 * WORD,
            ty if ty.is_numeric() || ty.is_temporal() => WORD,
            _ => VALUE,
        };
    }
    bytes + usize::div_ceil(bits, 64) * WORD
}

/// Names of views that are listed one by one.
const NAMED: usize = 5;

/// With which views a view's keys are kept.
fn shared(with: &[String]) -> String {
    if with.is_empty() {
        return "events are kept once per view, for all its windows".into();
    }
    let named = with.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match with.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("events are kept once, with those of {named}{more}: the same rows, key and windows")
}

/// `with`: the views that it would be kept with.
fn describe(plan: &FeaturePlan, name: &str, with: &[String]) -> String {
    let mut text = format!("Feature view {name}\n");
    let mut line = |label: &str, value: String| text.push_str(&format!("  {label:<14}{value}\n"));
    let streams: Vec<&str> = plan.branches.iter().map(|branch| branch.relation_name.as_str()).collect();
    line("source", streams.join(" UNION ALL "));
    let joined: Vec<_> = plan.branches.iter().flat_map(|branch| branch.joined()).collect();
    for table in &joined {
        let key: Vec<String> = table.key.iter().map(|k| in_sql(&k.to_string())).collect();
        line("joined", format!("{}, as of each event, by {}", table.table_name, key.join(", ")));
    }
    if let Some(beside) = &plan.beside {
        line("joined", format!("{}, as of the reading, by the entity key", beside.table_name));
    }
    line("entity key", plan.key.iter().map(|k| k.to_string()).collect::<Vec<_>>().join(", "));
    line("event time", plan.row_schema.field(plan.event_time).name().clone());
    if let Some(filter) = &plan.filter {
        line("filter", in_sql(&filter.to_string()));
    }
    line("ttl", plan.ttl_us.map_or("none: a key lives for ever".into(), describe_duration));
    if let Some(slide) = plan.slide_us {
        line("slide", format!("events leave RANGE windows every {}", describe_duration(slide)));
    }
    for (i, frame) in plan.frames.iter().enumerate() {
        let functions: Vec<String> = plan
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Aggregate(call) if call.frame == i => Some(format!(
                    "{}({}){}",
                    call.function.name(),
                    call.arg.map_or("*".into(), |a| in_sql(&plan.inputs[a].expr.to_string())),
                    if call.filter.is_some() { " FILTER" } else { "" }
                )),
                _ => None,
            })
            .collect();
        line("window", format!("{}: {}", frame.describe(), functions.join(", ")));
    }
    let raw = plan.slots.iter().filter(|s| matches!(s, Slot::Raw { .. })).count();
    if raw > 0 {
        line("raw columns", format!("{raw}, of the latest event"));
    }
    let continuous: Vec<_> = plan
        .outputs
        .iter()
        .filter(|o| matches!(o.kind, OutputKind::TimeContinuous { .. }))
        .map(|o| o.name.clone())
        .collect();
    if !continuous.is_empty() {
        line("at read", format!("{} (history keeps the base)", continuous.join(", ")));
    }
    // Every event is a step when it arrives, and may be one as it enters (offset frames) and leaves each RANGE frame.
    // A version of a row is one more as it is replaced.
    let (mut most, mut ranges) = (if plan.versions { 2 } else { 1 }, 0);
    for frame in &plan.frames {
        if let Frame::Range { start_us, end_us } = frame {
            most += usize::from(start_us.is_some()) + usize::from(*end_us > 0);
            ranges += 1;
        }
    }
    line("steps", format!("1 to {most} per event, and one a month for every quiet key"));
    let kept = match (plan.longest_bound_us(), ranges) {
        _ if plan.versions => "the rows that the table has of it".to_string(),
        (Some(longest), _) => format!("the events of {} and of the watermark delay", describe_duration(longest)),
        (None, _) => "the last events of ROWS windows and of the watermark delay".to_string(),
    };
    line("kept per key", format!("{kept}, about {} bytes each", event_bytes(plan)));
    if !joined.is_empty() {
        line("in memory", "the joined tables' versions, and the events after their watermarks".into());
    }
    let remade: Vec<_> = plan
        .slots
        .iter()
        .filter_map(|s| match s {
            Slot::Aggregate(call) if plan.versions && (call.function.is_ordered()) => Some(call.function.name()),
            _ => None,
        })
        .collect();
    if !remade.is_empty() {
        line("", format!("{} read all rows of their window again where one goes that decides", remade.join(", ")));
    }
    let exact: Vec<_> = plan
        .slots
        .iter()
        .filter_map(|s| match s {
            Slot::Aggregate(call) => {
                let unbounded = plan.frames[call.frame].is_unbounded() && !plan.versions;
                call.function.keeps_values(unbounded).then(|| call.function.name())
            }
            _ => None,
        })
        .collect();
    if !exact.is_empty() {
        line("", format!("{} keep the distinct values of their window beside the events", exact.join(", ")));
    }
    let arrays: Vec<_> = plan
        .slots
        .iter()
        .filter_map(|s| match s {
            Slot::Aggregate(call) if call.function.is_long() => Some(call.function.name()),
            _ => None,
        })
        .collect();
    if !arrays.is_empty() {
        line(
            "",
            format!(
                "every step holds whole values of {}: short frames and few items keep history small",
                arrays.join(", ")
            ),
        );
    }
    if let Some(slide_us) = cheaper_slide(plan) {
        let slide = describe_duration(slide_us);
        line(
            "cheaper",
            format!("WITH (slide = '{slide}'): events leave together, every {slide}, in place of a step for each"),
        );
    }
    line("shared", shared(with));
    text
}

/// A grid that a long view's windows could leave events on: about a thousandth of the longest.
fn cheaper_slide(plan: &FeaturePlan) -> Option<i64> {
    const MINUTE_US: i64 = 60_000_000;
    const DAY_US: i64 = 24 * 60 * MINUTE_US;
    let longest_us = plan.longest_range_us().filter(|us| *us >= DAY_US && plan.slide_us.is_none() && !plan.versions)?;
    let grids = [60 * MINUTE_US, 10 * MINUTE_US, MINUTE_US];
    let bounds: Vec<i64> = plan
        .frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Range { start_us, .. } => *start_us,
            Frame::Rows { .. } | Frame::Pane(_) => None,
        })
        .collect();
    let fits = |grid: &i64| longest_us / grid >= 700 && bounds.iter().all(|us| us % grid == 0);
    (!bounds.is_empty()).then(|| grids.into_iter().find(fits)).flatten()
}
