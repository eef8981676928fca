//! `ALTER … SET ( option = value )`: what can change without changing what is stored.

use super::create_relation::apply_options;
use crate::{
    database::{Database, find},
    feeds,
    pg::{Outcome, PgError},
    session::Session,
};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{Body, Change, ObjectKind};
use tidemark_connectors::kafka;
use tidemark_planner::feature::retention;

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    name: &str,
    options: &BTreeMap<String, String>,
) -> Result<Outcome, PgError> {
    let tag = format!("ALTER {}", kind.to_string().to_uppercase());
    let mut catalog = database.catalog.lock().await;
    let snapshot = database.snapshot();
    let object = match find(&snapshot, kind, name) {
        Ok(object) => object.clone(),
        Err(error) if if_exists && error.sqlstate == "42P01" => {
            session.notice(format!("{kind} \"{name}\" does not exist, skipping"));
            return Ok(Outcome::Done { tag: tag.into() });
        }
        Err(error) => return Err(error.into()),
    };
    let mut changed = object.as_ref().clone();
    match &mut changed.body {
        Body::Table(relation) if relation.files().is_some() => {
            return Err(PgError::error("0A000", format!("options of {kind} \"{name}\" cannot be changed"))
                .hint("its rows are in files: drop it, which leaves them, and create it again"));
        }
        Body::Source(relation) | Body::Table(relation) => {
            if options.contains_key("clock") || options.contains_key("connector") {
                return Err(PgError::error(
                    "0A000",
                    format!("clock and connector of {kind} \"{name}\" cannot be changed"),
                )
                .hint("its history was made with them; create another and copy the rows"));
            }
            let fixed = |option: &str| kafka::is_option(option) && !option.starts_with("properties.");
            if let Some(option) = options.keys().find(|option| relation.topic().is_some() && fixed(option)) {
                return Err(PgError::error("0A000", format!("{option} of {kind} \"{name}\" cannot be changed"))
                    .hint("properties.* can; for another topic or format create another source"));
            }
            apply_options(relation, kind, name, options)?;
            if let Some(retention_us) = relation.retention_us.filter(|_| options.contains_key("retention")) {
                retention::check_retention(&object, retention_us, &snapshot)?;
            }
        }
        Body::FeatureView(view) => {
            for (option, value) in options {
                match option.as_str() {
                    "owner" => view.owner = Some(value.clone()),
                    "tags" => {
                        view.tags = value.split(',').map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect();
                    }
                    "ttl" | "key" | "slide" => {
                        return Err(PgError::error(
                            "0A000",
                            format!("{option} of feature view \"{name}\" cannot be changed"),
                        )
                        .hint("it changes every value: create the view under a new name"));
                    }
                    other => {
                        return Err(PgError::error(
                            "22023",
                            format!("feature view \"{name}\" has no option \"{other}\""),
                        )
                        .hint("owner and tags can be set"));
                    }
                }
                view.options.insert(option.clone(), value.clone());
            }
        }
        Body::View(_) | Body::Aggregate(_) => {
            return Err(PgError::error("22023", format!("{kind} \"{name}\" has no options")));
        }
    }
    let relation = changed.relation().cloned();
    let another_client = options.keys().any(|option| option.starts_with("properties."));
    if let Some(relation) = relation.as_ref().filter(|relation| another_client && relation.topic().is_some()) {
        feeds::reach(kind, name, relation).await?;
    }
    database.commit(&mut catalog, &[Change::Put(changed.clone())]).await?;
    if let (Some(source), Some(relation)) = (database.engine.source(object.id), relation) {
        source.reconfigure(relation).await;
    }
    if another_client {
        database.feeds.stop(object.id).await;
        database.feeds.start(&changed)?;
    }
    Ok(Outcome::Done { tag: tag.into() })
}
