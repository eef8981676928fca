//! `ALTER AGGREGATE … RENAME TO`. What calls it goes on calling it: definitions are text, so its name is changed there too.

use super::rename::written_name;
use crate::{
    blocks,
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Change, Object, ObjectKind, QualifiedName, Snapshot};
use tidemark_planner::{
    PlanResult,
    composed::define_again,
    parse::{calling_by_name, under_name},
};

const TAG: &str = "ALTER AGGREGATE";

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    name: &QualifiedName,
    to: &str,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    let object = match find(&snapshot, ObjectKind::Aggregate, name) {
        Ok(object) => object,
        Err(error) if if_exists && error.sqlstate == "42883" => {
            blocks::skip(database, session, &catalog, ObjectKind::Aggregate, name)?;
            return super::done(TAG);
        }
        Err(error) => return Err(error.into()),
    };
    if snapshot.aggregate(&object.full_name().beside(to)).is_some() {
        return Err(PgError::error("42723", format!("aggregate \"{to}\" already exists")));
    }
    let mut renamed = object.as_ref().clone();
    renamed.name = to.to_string();
    if let Body::Aggregate(aggregate) = &mut renamed.body {
        aggregate.sql = under_name(&aggregate.sql, written_name(object.schema_name(), to))?;
    }
    let mut changes = vec![Change::Put(renamed.clone())];
    for reader in snapshot.readers(object.id) {
        changes.push(Change::Put(calling(reader, object, to, &snapshot)?));
    }
    // The new name may be one of the system, which no call would come from.
    define_again(&renamed, &snapshot.apply(&changes), &session.state)?;
    database.commit(&mut catalog, session, &changes).await?;
    super::done(TAG)
}

/// The object, calling `to` where it calls `from`.
fn calling(object: &Object, from: &Object, to: &str, snapshot: &Snapshot) -> PlanResult<Object> {
    let within = snapshot.within(object);
    let is_meant = |name: &QualifiedName| within.aggregate(name).is_some_and(|called| called.id == from.id);
    const SELECT: &str = "SELECT ";
    let of_expression = |expression: &str| {
        calling_by_name(&format!("{SELECT}{expression}"), is_meant, to).map(|query| query[SELECT.len()..].to_string())
    };
    let mut object = object.clone();
    if let Some(schema) = object.place.aggregates.0.remove(&from.name) {
        object.place.aggregates.note(to, &schema);
    }
    match &mut object.body {
        Body::Source(_) | Body::Table(_) | Body::TrainingSet(_) => {}
        Body::FeatureView(view) => {
            view.sql = calling_by_name(&view.sql, is_meant, to)?;
            view.query = calling_by_name(&view.query, is_meant, to)?;
            for feature in &mut view.features {
                feature.expression = of_expression(&feature.expression)?;
            }
        }
        Body::View(view) => {
            view.sql = calling_by_name(&view.sql, is_meant, to)?;
            view.query = calling_by_name(&view.query, is_meant, to)?;
        }
        Body::Aggregate(aggregate) => {
            aggregate.sql = calling_by_name(&aggregate.sql, is_meant, to)?;
            aggregate.expression = of_expression(&aggregate.expression)?;
        }
    }
    Ok(object)
}
