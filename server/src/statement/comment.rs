//! `COMMENT ON …`.

use super::done;
use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Change, ObjectKind, QualifiedName};
use tidemark_planner::error::missing_object;

pub async fn execute(
    database: &Arc<Database>,
    session: &Session,
    kind: Option<ObjectKind>,
    name: &QualifiedName,
    column: Option<&str>,
    text: Option<String>,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    let object = match kind {
        Some(kind) => find(&snapshot, kind, name)?,
        None => snapshot.get(name).ok_or_else(|| missing_object(&snapshot, "relation", name, |_| true))?,
    };
    let mut changed = object.as_ref().clone();
    match column {
        None => changed.comment = text,
        Some(column) => {
            let columns = match &mut changed.body {
                Body::Source(r) | Body::Table(r) => &mut r.columns,
                Body::FeatureView(v) => &mut v.columns,
                Body::View(v) => &mut v.columns,
                Body::TrainingSet(set) => &mut set.columns,
                Body::Aggregate(_) => &mut vec![],
            };
            let found = columns.iter_mut().find(|c| c.name == column).ok_or_else(|| {
                PgError::error("42703", format!("column \"{column}\" of relation \"{name}\" does not exist"))
            })?;
            found.comment = text;
        }
    }
    database.commit(&mut catalog, session, &[Change::Put(changed)]).await?;
    done("COMMENT")
}
