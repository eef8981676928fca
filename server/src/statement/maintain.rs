//! `OPTIMIZE history.v` and `VACUUM history.v`: the files of a view's history, written together and removed.
//!
//! Neither holds the catalog: they may take long, and a view that is renamed or dropped meanwhile makes them fail and
//! loses nothing.

use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    progress::Doing,
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectKind, QualifiedName, history_schema};
use tidemark_engine::progress::Phase;

/// What has been replaced stays a day where nobody says otherwise: longer than a query or another engine's job is likely
/// to read one snapshot.
const RETAIN_US: i64 = 24 * 3_600_000_000;

fn view(database: &Database, session: &Session, name: &QualifiedName) -> Result<Arc<Object>, PgError> {
    Ok(find(&session.lasting(database), ObjectKind::FeatureView, name)?.clone())
}

/// What statements call the history of a view.
fn history_name(view: &Object) -> String {
    format!("{}.{}", history_schema(view.schema_name()), view.name)
}

pub async fn optimize(
    database: &Arc<Database>,
    session: &mut Session,
    name: &QualifiedName,
) -> Result<Outcome, PgError> {
    let view = view(database, session, name)?;
    let name = history_name(&view);
    let running = database.begin(session, Doing::new("OPTIMIZE", &name, None));
    running.progress.enter(Phase::Merging);
    // Merging computes for long: not on the threads that answer lookups.
    let engine = database.owner()?.engine.clone();
    let target_bytes = database.upkeep.effort.target_bytes;
    let done = database.queries.work(async move { engine.optimize_history(&view, target_bytes).await }).await??;
    if done.files_before == 0 {
        session.notice(format!("{name} has no small files to write together"));
    } else {
        session.notice(format!(
            "{} files of {name} ({} bytes) are now {} ({} bytes)",
            done.files_before, done.bytes_before, done.files_after, done.bytes_after
        ));
    }
    super::done("OPTIMIZE")
}

pub async fn vacuum(
    database: &Arc<Database>,
    session: &mut Session,
    name: &QualifiedName,
    retain_us: Option<i64>,
) -> Result<Outcome, PgError> {
    let view = view(database, session, name)?;
    let name = history_name(&view);
    let running = database.begin(session, Doing::new("VACUUM", &name, None));
    running.progress.enter(Phase::Removing);
    let older_than_us = database.clock.now_us().saturating_sub(retain_us.unwrap_or(RETAIN_US));
    let engine = database.owner()?.engine.clone();
    let gone = database.queries.work(async move { engine.vacuum_history(&view, older_than_us).await }).await??;
    session.notice(format!(
        "{name}: {} snapshots forgotten, {} files removed ({} bytes)",
        gone.snapshots, gone.files, gone.bytes
    ));
    super::done("VACUUM")
}
