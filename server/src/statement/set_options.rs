//! `ALTER … SET ( option = value )`: what can change without changing what is stored.

use super::{create_feature_view::reach, create_relation::apply_options, secret, set_default};
use crate::{
    blocks,
    database::{Database, find},
    feeds,
    pg::{Outcome, PgError},
    session::Session,
    wire::SessionZone,
};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{Body, Change, Object, ObjectKind, QualifiedName, Relation, Snapshot};
use tidemark_connectors::kafka;
use tidemark_planner::feature::{check_maintenance, check_online, retention};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    name: &QualifiedName,
    options: &BTreeMap<String, String>,
) -> Result<Outcome, PgError> {
    let tag = format!("ALTER {}", kind.to_string().to_uppercase());
    let owner = database.owner()?;
    let online = options.get("online").filter(|_| kind == ObjectKind::FeatureView);
    // With nothing locked: a Redis may take seconds to answer, or not to.
    if let Some(online) = online.filter(|_| find(&session.lasting(database), kind, name).is_ok()) {
        check_online(&name.to_string(), online)?;
        reach(database, name, online).await?;
    }
    secret::check_options(session, &database.snapshot(), options)?;
    let another_client = options.keys().any(|option| option.starts_with("properties."));
    let mut reached: Option<Relation> = None;
    let (mut catalog, changed) = loop {
        let catalog = owner.catalog.lock().await;
        let snapshot = session.lasting(database);
        let object = match find(&snapshot, kind, name) {
            Ok(object) => object.clone(),
            Err(error) if if_exists && error.sqlstate == "42P01" => {
                blocks::skip(database, session, &catalog, kind, name)?;
                return Ok(Outcome::Done { tag: tag.into() });
            }
            Err(error) => return Err(error.into()),
        };
        let changed = change(&snapshot, &object, options, &session.format.time_zone)?;
        let topic = changed.relation().filter(|relation| another_client && relation.topic().is_some());
        match topic.filter(|relation| reached.as_ref() != Some(*relation)) {
            // With nothing locked: a broker may take seconds to answer, or not to. What it was asked is compared then.
            Some(relation) => {
                drop(catalog);
                feeds::reach(&database.snapshot(), kind, &name.to_string(), relation).await?;
                reached = Some(relation.clone());
            }
            None => break (catalog, changed),
        }
    };
    // Whom it had to ask has answered: from here on it is whole.
    let _held = session.hold.hold();
    database.commit(&mut catalog, session, &[Change::Put(changed.clone())]).await?;
    if let Some(online) = online {
        // Beside the work: it is filled there first, then removed from where it was.
        owner.engine.move_online(changed.id, || owner.places.choose(changed.id, Some(online.as_str()))).await?;
    }
    if let (Some(source), Some(relation)) = (owner.engine.source(changed.id), changed.relation()) {
        let relation = if session.in_transaction {
            session.block.note_altered(changed.id);
            blocks::while_open(&source, relation)
        } else {
            relation.clone()
        };
        source.reconfigure(relation).await;
    }
    if another_client {
        owner.feeds.stop(changed.id).await;
        owner.feeds.start(&changed)?;
    }
    Ok(Outcome::Done { tag: tag.into() })
}

/// The object with these options.
fn change(
    snapshot: &Snapshot,
    object: &Arc<Object>,
    options: &BTreeMap<String, String>,
    zone: &SessionZone,
) -> Result<Object, PgError> {
    let (kind, name) = (object.kind(), object.name.as_str());
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
                retention::check_retention(object, retention_us, snapshot)?;
            }
        }
        Body::FeatureView(view) => {
            let mut options = options.clone();
            set_default::take_options(view, name, &mut options, zone)?;
            for (option, value) in &options {
                match option.as_str() {
                    // What it says is in the options; empty, it is deprecated no more.
                    "deprecated" => {}
                    "owner" => view.owner = Some(value.clone()),
                    "tags" => {
                        view.tags = value.split(',').map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect();
                    }
                    "online" => check_online(name, value)?,
                    "maintenance" => check_maintenance(name, value)?,
                    "history_partition" => {
                        return Err(PgError::error(
                            "0A000",
                            format!("history_partition of feature view \"{name}\" cannot be changed"),
                        )
                        .hint("its files are partitioned already: create the view under a new name"));
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
                        .hint("owner, tags, online, deprecated, maintenance and default.<feature> can be set"));
                    }
                }
                view.options.insert(option.clone(), value.clone());
            }
        }
        Body::View(_) | Body::Aggregate(_) | Body::TrainingSet(_) => {
            return Err(PgError::error("22023", format!("{kind} \"{name}\" has no options")));
        }
    }
    Ok(changed)
}
