//! `OPTIMIZE history.v` and `VACUUM history.v`: the files of a view's history, written together and removed.
//!
//! Neither holds the catalog: they may take long, and a view that is renamed or dropped meanwhile makes them fail and
//! loses nothing.

use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectKind};

/// What has been replaced stays a day where nobody says otherwise: longer than a query or another engine's job is likely
/// to read one snapshot.
const RETAIN_US: i64 = 24 * 3_600_000_000;

fn view(database: &Database, name: &str) -> Result<Arc<Object>, PgError> {
    Ok(find(&database.snapshot(), ObjectKind::FeatureView, name)?.clone())
}

pub async fn optimize(database: &Arc<Database>, session: &mut Session, name: &str) -> Result<Outcome, PgError> {
    let view = view(database, name)?;
    // Merging computes for long: not on the threads that answer lookups.
    let engine = database.owner()?.engine.clone();
    let target_bytes = database.upkeep.effort.target_bytes;
    let done = database.queries.work(async move { engine.optimize_history(&view, target_bytes).await }).await??;
    if done.files_before == 0 {
        session.notice(format!("history.{name} has no small files to write together"));
    } else {
        session.notice(format!(
            "{} files of history.{name} ({} bytes) are now {} ({} bytes)",
            done.files_before, done.bytes_before, done.files_after, done.bytes_after
        ));
    }
    super::done("OPTIMIZE")
}

pub async fn vacuum(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    retain_us: Option<i64>,
) -> Result<Outcome, PgError> {
    let view = view(database, name)?;
    let older_than_us = database.clock.now_us().saturating_sub(retain_us.unwrap_or(RETAIN_US));
    let engine = database.owner()?.engine.clone();
    let gone = database.queries.work(async move { engine.vacuum_history(&view, older_than_us).await }).await??;
    session.notice(format!(
        "history.{name}: {} snapshots forgotten, {} files removed ({} bytes)",
        gone.snapshots, gone.files, gone.bytes
    ));
    super::done("VACUUM")
}
