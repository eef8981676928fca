//! `ALTER FEATURE VIEW … RESUME`: a view that has failed goes on.

use crate::{
    blocks,
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{ObjectKind, QualifiedName};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    name: &QualifiedName,
) -> Result<Outcome, PgError> {
    let done = || Ok(Outcome::Done { tag: "ALTER FEATURE VIEW".into() });
    // Nobody drops it or its source meanwhile.
    let catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    let object = match find(&snapshot, ObjectKind::FeatureView, name) {
        Ok(object) => object.clone(),
        Err(error) if if_exists && error.sqlstate == "42P01" => {
            blocks::skip(database, session, &catalog, ObjectKind::FeatureView, name)?;
            return done();
        }
        Err(error) => return Err(error.into()),
    };
    match database.owner()?.engine.resume_view(&object, &snapshot).await {
        Ok(true) => database.tell_failures(),
        Ok(false) => session.notice(format!("feature view \"{name}\" is running")),
        Err(error) => {
            return Err(PgError::error("55000", format!("feature view \"{name}\" cannot go on: {error}"))
                .hint("mend what the message names and resume again, or drop the view and create it anew"));
        }
    }
    done()
}
