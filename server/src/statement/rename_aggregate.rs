//! `ALTER AGGREGATE … RENAME TO`. What calls it goes on calling it: definitions are text, so its name is changed there too.

use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Change, Object, ObjectKind};
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
    name: &str,
    to: &str,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    let object = match find(&snapshot, ObjectKind::Aggregate, name) {
        Ok(object) => object,
        Err(error) if if_exists && error.sqlstate == "42883" => {
            session.notice(format!("aggregate \"{name}\" does not exist, skipping"));
            return super::done(TAG);
        }
        Err(error) => return Err(error.into()),
    };
    if snapshot.aggregate(to).is_some() {
        return Err(PgError::error("42723", format!("aggregate \"{to}\" already exists")));
    }
    let mut renamed = object.as_ref().clone();
    renamed.name = to.to_string();
    if let Body::Aggregate(aggregate) = &mut renamed.body {
        aggregate.sql = under_name(&aggregate.sql, to)?;
    }
    let mut changes = vec![Change::Put(renamed.clone())];
    for reader in snapshot.readers(object.id) {
        changes.push(Change::Put(calling(reader, name, to)?));
    }
    // The new name may be one of the system, which no call would come from.
    define_again(&renamed, &snapshot.apply(&changes), &session.state)?;
    database.commit(&mut catalog, &changes).await?;
    super::done(TAG)
}

/// The object, calling `to` where it calls `from`.
fn calling(object: &Object, from: &str, to: &str) -> PlanResult<Object> {
    const SELECT: &str = "SELECT ";
    let of_expression = |expression: &str| {
        calling_by_name(&format!("{SELECT}{expression}"), from, to).map(|query| query[SELECT.len()..].to_string())
    };
    let mut object = object.clone();
    match &mut object.body {
        Body::Source(_) | Body::Table(_) | Body::TrainingSet(_) => {}
        Body::FeatureView(view) => {
            view.sql = calling_by_name(&view.sql, from, to)?;
            view.query = calling_by_name(&view.query, from, to)?;
            for feature in &mut view.features {
                feature.expression = of_expression(&feature.expression)?;
            }
        }
        Body::View(view) => {
            view.sql = calling_by_name(&view.sql, from, to)?;
            view.query = calling_by_name(&view.query, from, to)?;
        }
        Body::Aggregate(aggregate) => {
            aggregate.sql = calling_by_name(&aggregate.sql, from, to)?;
            aggregate.expression = of_expression(&aggregate.expression)?;
        }
    }
    Ok(object)
}
