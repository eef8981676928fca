//! The rows of schema `tidemark`: definitions from the catalog, numbers from the running engine.

use super::{
    SystemTablesOf,
    columns::{Cell, Rows},
};
use crate::progress::Entry as Statement;
use tidemark_catalog::{Body, ClockMode, Column, FeatureView, Object, Relation, TrainingSet};
use tidemark_engine::runtime::Outcome;
use tidemark_planner::feature;

/// Fills `rows` with what `tidemark.<table>` has; the dead letters are the engine's and do not come this way.
pub fn fill(system: &SystemTablesOf, table: &str, rows: &mut Rows) {
    if table == "audit" {
        for entry in system.audit() {
            let (sqlstate, error) = entry.error.unzip();
            rows.add([
                ("at", entry.at_us.into()),
                ("event", entry.event.into()),
                ("user", entry.user.into()),
                ("role", entry.role.into()),
                ("address", entry.address.into()),
                ("statement", entry.statement.into()),
                ("sqlstate", sqlstate.into()),
                ("error", error.into()),
            ]);
        }
        return;
    }
    if table == "progress" {
        system.statements().iter().for_each(|(statement, now_us)| progress(system, statement, *now_us, rows));
        return;
    }
    for object in system.snapshot().objects() {
        match (&object.body, table) {
            // Nothing flows through a table that is files.
            (Body::Table(r), "sources" | "pipelines") if r.files().is_some() => {}
            (Body::Source(r) | Body::Table(r), "sources") => source(system, object, r, rows),
            (Body::Source(_) | Body::Table(_), "pipelines") => source_pipeline(system, object, rows),
            (Body::FeatureView(v), "feature_views") => feature_view(system, object, v, rows),
            (Body::FeatureView(v), "features") => features(system, object, v, rows),
            (Body::FeatureView(_), "pipelines") => view_pipeline(system, object, rows),
            (Body::FeatureView(_) | Body::View(_) | Body::TrainingSet(_), "lineage") => lineage(system, object, rows),
            (Body::FeatureView(_), "maintenance") => maintenance(system, object, rows),
            (Body::FeatureView(_), "maintenance_runs") => maintenance_runs(system, object, rows),
            (Body::TrainingSet(set), "training_sets") => training_set(object, set, rows),
            _ => {}
        }
    }
}

fn source(system: &SystemTablesOf, object: &Object, r: &Relation, rows: &mut Rows) {
    let stats = system.stats().source(object.id).unwrap_or_default();
    rows.add([
        ("name", (&object.name).into()),
        ("schema", object.schema_name().into()),
        ("kind", object.kind().to_string().into()),
        ("columns", r.columns.len().into()),
        ("event_time", r.event_time.map(|i| r.columns[i].name.clone()).into()),
        ("delay", r.event_time.map(|_| r.delay_us).into()),
        (
            "clock",
            match r.clock {
                ClockMode::System => "system",
                ClockMode::Event => "event",
            }
            .into(),
        ),
        ("rows", stats.rows.into()),
        ("watermark", instant(stats.watermark_us)),
        ("frontier", instant(stats.frontier_us)),
        ("retention", r.retention_us.into()),
        ("created_at", object.created_us.into()),
        ("comment", object.comment.clone().into()),
        ("definition", (&r.sql).into()),
        ("history_start", instant(stats.history_start_us)),
    ]);
}

fn source_pipeline(system: &SystemTablesOf, object: &Object, rows: &mut Rows) {
    let stats = system.stats().source(object.id).unwrap_or_default();
    rows.add([
        ("name", (&object.name).into()),
        ("schema", object.schema_name().into()),
        ("kind", object.kind().to_string().into()),
        ("state", state(&stats.state).into()),
        ("positions", stats.positions.into()),
        ("events", stats.events.into()),
        ("watermark", instant(stats.watermark_us)),
        ("frontier", instant(stats.frontier_us)),
        ("lag", lag(stats.now_us, stats.frontier_us).into()),
        ("last_error", stats.last_error.into()),
        ("partitions", stats.partitions.into()),
    ]);
}

fn feature_view(system: &SystemTablesOf, object: &Object, v: &FeatureView, rows: &mut Rows) {
    let stats = system.stats().view(object.id).unwrap_or_default();
    let names = |columns: &[Column], positions: &[usize]| {
        let names: Vec<&str> = positions.iter().filter_map(|i| columns.get(*i)).map(|c| c.name.as_str()).collect();
        names.join(", ")
    };
    rows.add([
        ("name", (&object.name).into()),
        ("schema", object.schema_name().into()),
        ("definition", (&v.sql).into()),
        ("version", v.version.into()),
        ("owner", v.owner.clone().into()),
        ("tags", v.tags.clone().into()),
        ("key", names(&v.columns, &v.key).into()),
        ("time_column", names(&v.columns, &[v.time]).into()),
        ("source", system.snapshot().relation_names(v).into()),
        ("ttl", v.ttl_us.into()),
        ("time_zone", (&v.time_zone).into()),
        ("frontier", instant(stats.frontier_us)),
        ("now", instant(stats.now_us)),
        ("keys", stats.keys.into()),
        ("created_at", object.created_us.into()),
        ("comment", object.comment.clone().into()),
        ("complete_from", instant(stats.complete_from_us)),
        ("history_start", instant(stats.history_start_us)),
        ("deprecated", v.deprecated().map(String::from).into()),
    ]);
}

fn features(system: &SystemTablesOf, object: &Object, v: &FeatureView, rows: &mut Rows) {
    // The view that runs has its plan. Planning each of a thousand for one list takes seconds.
    let continuous = system.stats().continuous(object.id).unwrap_or_else(|| planned(system, object));
    for f in &v.features {
        let Some(column) = v.columns.get(f.column) else { continue };
        let written = |text: &String| if text.is_empty() { Cell::Null } else { text.into() };
        rows.add([
            ("view", (&object.name).into()),
            ("schema", object.schema_name().into()),
            ("name", (&column.name).into()),
            ("type", column.ty.to_string().into()),
            ("aggregate", written(&f.aggregate)),
            ("window", written(&f.window)),
            ("expression", (&f.expression).into()),
            ("time_continuous", continuous.contains(&f.column).into()),
            ("comment", column.comment.clone().into()),
            ("default_value", f.default.clone().into()),
        ]);
    }
}

/// The columns that change as time goes on, of a view that does not run.
fn planned(system: &SystemTablesOf, object: &Object) -> Vec<usize> {
    let plan = feature::plan_definition(object, system.snapshot());
    plan.map(|plan| plan.continuous_outputs().collect()).unwrap_or_default()
}

/// Of a feature view the views in between are told beside.
fn lineage(system: &SystemTablesOf, object: &Object, rows: &mut Rows) {
    let snapshot = system.snapshot();
    let named = |id| snapshot.get_id(id).map(|object| object.shown_name());
    let through: Vec<String> = match object.feature_view() {
        Some(view) => view.through.iter().filter_map(|id| named(*id)).collect(),
        None => vec![],
    };
    for edge in tidemark_planner::lineage::of(object, snapshot) {
        let Some(from) = snapshot.get_id(edge.from) else { continue };
        let column = edge.column.and_then(|at| object.columns().get(at)).map(|column| &column.name);
        rows.add([
            ("object", (&object.name).into()),
            ("kind", object.kind().to_string().into()),
            ("column", column.into()),
            ("role", edge.role.name().into()),
            ("from_object", (&from.name).into()),
            ("from_kind", from.kind().to_string().into()),
            ("from_column", edge.from_column.into()),
            ("through", through.clone().into()),
            ("schema", object.schema_name().into()),
            ("from_schema", from.schema_name().into()),
        ]);
    }
}

fn view_pipeline(system: &SystemTablesOf, object: &Object, rows: &mut Rows) {
    let stats = system.stats().view(object.id).unwrap_or_default();
    rows.add([
        ("name", (&object.name).into()),
        ("schema", object.schema_name().into()),
        ("kind", object.kind().to_string().into()),
        ("state", state(&stats.state).into()),
        ("positions", stats.positions.into()),
        ("events", stats.events.into()),
        ("watermark", instant(stats.watermark_us)),
        ("frontier", instant(stats.frontier_us)),
        ("committed", instant(stats.committed_us)),
        ("lag", lag(stats.now_us, stats.frontier_us).into()),
        ("rows_failed", stats.rows_failed.into()),
        ("values_failed", stats.values_failed.into()),
        ("steps_pending", stats.steps_pending.into()),
        ("keys_in_memory", stats.keys_in_memory.into()),
        ("memory_bytes", stats.memory_bytes.into()),
        ("online_waiting", stats.online_waiting.into()),
        ("online_level", stats.online_level.into()),
        ("online_error", stats.online_error.into()),
        ("last_error", stats.last_error.into()),
    ]);
}

fn maintenance(system: &SystemTablesOf, object: &Object, rows: &mut Rows) {
    let done = system.stats().view(object.id).unwrap_or_default().maintenance;
    let rewritten = done.rewritten.map(|(_, rewritten)| rewritten);
    let removed = done.removed.map(|(_, removed)| removed);
    let survey = done.survey.map(|(_, survey)| survey);
    rows.add([
        ("view", (&object.name).into()),
        ("schema", object.schema_name().into()),
        ("running", done.running.into()),
        ("optimized_at", done.rewritten.map(|(at_us, _)| at_us).into()),
        ("files_before", rewritten.map(|rewritten| rewritten.files_before).into()),
        ("files_after", rewritten.map(|rewritten| rewritten.files_after).into()),
        ("bytes_before", rewritten.map(|rewritten| rewritten.bytes_before).into()),
        ("bytes_after", rewritten.map(|rewritten| rewritten.bytes_after).into()),
        ("vacuumed_at", done.removed.map(|(at_us, _)| at_us).into()),
        ("snapshots_removed", removed.map(|removed| removed.snapshots).into()),
        ("files_removed", removed.map(|removed| removed.files).into()),
        ("bytes_removed", removed.map(|removed| removed.bytes).into()),
        ("last_error", done.last_error.into()),
        ("surveyed_at", done.survey.map(|(at_us, _)| at_us).into()),
        ("files", survey.map(|survey| survey.files).into()),
        ("bytes", survey.map(|survey| survey.bytes).into()),
        ("small_files", survey.map(|survey| survey.small_files).into()),
        ("manifests", survey.map(|survey| survey.manifests).into()),
        ("snapshots", survey.map(|survey| survey.snapshots).into()),
        ("old_snapshots", survey.map(|survey| survey.old_snapshots).into()),
    ]);
}

/// Of others' statements it is only told that there is one.
fn progress(system: &SystemTablesOf, statement: &Statement, now_us: i64, rows: &mut Rows) {
    if !system.may_see(statement.role) {
        rows.add([("pid", statement.connection_id.into())]);
        return;
    }
    let (doing, seen) = (&statement.doing, statement.progress.read());
    let seconds = now_us.saturating_sub(seen.since_us) as f64 / 1e6;
    let rate = seen.done.filter(|_| seconds > 0.0).map(|done| done as f64 / seconds);
    rows.add([
        ("pid", statement.connection_id.into()),
        ("statement", doing.statement.into()),
        ("object", doing.object.clone().into()),
        ("phase", seen.phase.name().into()),
        ("done", seen.done.into()),
        ("total", seen.total.into()),
        ("unit", doing.unit.into()),
        ("started", statement.started_us.into()),
        ("rate", rate.into()),
    ]);
}

fn maintenance_runs(system: &SystemTablesOf, object: &Object, rows: &mut Rows) {
    for run in system.stats().view(object.id).unwrap_or_default().maintenance.runs {
        let (mut rewritten, mut folded, mut removed) = (None, None, None);
        match run.outcome {
            Outcome::None => {}
            Outcome::Rewritten(done) => rewritten = Some(done),
            Outcome::Folded(done) => folded = Some(done),
            Outcome::Removed(done) => removed = Some(done),
        }
        rows.add([
            ("view", (&object.name).into()),
            ("schema", object.schema_name().into()),
            ("what", run.what.into()),
            ("unasked", run.by_itself.into()),
            ("started", run.started_us.into()),
            ("ended", run.ended_us.into()),
            ("files_before", rewritten.map(|done| done.files_before).into()),
            ("files_after", rewritten.map(|done| done.files_after).into()),
            ("bytes_before", rewritten.map(|done| done.bytes_before).into()),
            ("bytes_after", rewritten.map(|done| done.bytes_after).into()),
            ("manifests_before", folded.map(|done| done.manifests_before).into()),
            ("manifests_after", folded.map(|done| done.manifests_after).into()),
            ("snapshots_removed", removed.map(|done| done.snapshots).into()),
            ("files_removed", removed.map(|done| done.files).into()),
            ("bytes_removed", removed.map(|done| done.bytes).into()),
            ("error", run.error.into()),
        ]);
    }
}

fn training_set(object: &Object, set: &TrainingSet, rows: &mut Rows) {
    let record = &set.record;
    rows.add([
        ("name", (&object.name).into()),
        ("schema", object.schema_name().into()),
        ("statement", (&set.sql).into()),
        ("rows", (record.rows as i64).into()),
        ("created", object.created_us.into()),
        ("computed", record.at_us.into()),
        ("frontier", instant(record.frontier_us())),
        ("views", record.views().into()),
        ("complete", set.complete.as_str().into()),
        ("joins", serde_json::to_string(&record.joins).ok().into()),
        ("reads", serde_json::to_string(&record.reads).ok().into()),
        ("comment", object.comment.clone().into()),
    ]);
}

/// How far the frontier is behind now, microseconds.
fn lag(now_us: Option<i64>, frontier_us: Option<i64>) -> Option<i64> {
    let (now_us, frontier_us) = (usable(now_us)?, usable(frontier_us)?);
    Some(now_us.saturating_sub(frontier_us).max(0))
}

fn state(state: &str) -> &str {
    if state.is_empty() { "running" } else { state }
}

/// Before the first event a clock stands at the end of time; that is shown as NULL.
fn usable(us: Option<i64>) -> Option<i64> {
    us.filter(|us| *us != i64::MIN && *us != i64::MAX)
}

fn instant(us: Option<i64>) -> Cell {
    usable(us).into()
}
