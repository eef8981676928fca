//! `REFRESH ONLINE STORE FOR v`: the rows of all keys of a feature view are put into the online store again.

use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    progress::Doing,
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{ObjectKind, QualifiedName};
use tidemark_engine::runtime::Refreshed;

/// Returns when the store has all rows, and tells how many. Where a client leaves, cancels or runs out of time, the rows
/// put until then have been put, and nothing else is different.
pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    name: &QualifiedName,
) -> Result<Outcome, PgError> {
    let id = find(&session.lasting(database), ObjectKind::FeatureView, name)?.id;
    let running = database.begin(session, Doing::new("REFRESH ONLINE STORE", &name.to_string(), Some("keys")));
    let engine = &database.owner()?.engine;
    let refreshed = engine.refresh_online_watched(id, &running.progress).await.map_err(|error| {
        let message = format!("the online store has not taken all rows of feature view \"{name}\" again: {error}");
        PgError::error("58030", message)
            .hint("what changes is put by itself when the store answers; then run the statement again for the rest")
    })?;
    let Some(Refreshed { keys, took_us }) = refreshed else {
        // Dropped meanwhile, perhaps.
        find(&session.lasting(database), ObjectKind::FeatureView, name)?;
        return Err(PgError::error("55000", format!("feature view \"{name}\" does not run"))
            .hint("last_error in tidemark.pipelines says why; ALTER FEATURE VIEW … RESUME starts it again"));
    };
    let rows = if keys == 1 { "row" } else { "rows" };
    session.notice(format!("{keys} {rows} of feature view \"{name}\" put in {} ms", took_us.div_ceil(1_000)));
    Ok(Outcome::Done { tag: "REFRESH ONLINE STORE".into() })
}
