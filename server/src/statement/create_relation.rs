//! `CREATE SOURCE` and `CREATE TABLE`: an embedded durable log and its definition; and the topic that feeds it, if one does.

use super::{alter_columns, done, files_table, secret};
use crate::{
    database::Database,
    feeds,
    pg::{Outcome, PgError},
    session::Session,
};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{
    Body, CatalogStore, ClockMode, Column, Encode, Object, ObjectKind, PUBLIC_SCHEMA, Place, QualifiedName, Relation,
    Snapshot, SqlType, TEMPORARY_SCHEMA,
};
use tidemark_connectors::kafka;
use tidemark_planner::{
    PlanError,
    archive::ARCHIVE_COLUMNS,
    parse::{duration_us, under_name, without_secrets},
    shown::Shown,
    statement::CreateRelation,
};

/// An event may lie an hour ahead of its arrival before it is taken for a mistake.
const MAX_AHEAD_US: i64 = 3_600_000_000;
/// A source that has been silent this long does not hold time back.
const IDLE_TIMEOUT_US: i64 = 30_000_000;

const OPTIONS: [&str; 7] =
    ["clock", "max_ahead", "idle_timeout", "retention", "dead_letter_retention", "archive", "connector"];

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    create: &CreateRelation,
    sql: &str,
    temporary: Option<bool>,
) -> Result<Outcome, PgError> {
    let tag = if create.kind == ObjectKind::Source { "CREATE SOURCE" } else { "CREATE TABLE" };
    let existing = |session: &Session| named(database, session, &create.name, temporary);
    if let Some(existing) = existing(session)? {
        let catalog = database.owner()?.catalog.lock().await;
        return exists(session, &catalog, &existing, create.if_not_exists, tag);
    }
    secret::check_options(session, &database.snapshot(), &create.options)?;
    let mut relation = relation(create, sql)?;
    set_defaults(session, create, &mut relation)?;
    let is_files = relation.files().is_some();
    if temporary.is_some() && (is_files || relation.topic().is_some()) {
        return Err(PgError::error("0A000", format!("temporary table \"{}\" cannot have a connector", create.name))
            .hint("CREATE TABLE without TEMPORARY, and DROP it afterwards"));
    }
    if is_files {
        files_table::complete(database, create, &mut relation).await?;
    }
    // Before anything is locked: a broker may take seconds to answer, or not to.
    let beginning = match relation.topic() {
        Some(_) => Some(feeds::ask(&database.snapshot(), create.kind, &create.name.to_string(), &relation).await?),
        None => None,
    };
    let mut catalog = database.owner()?.catalog.lock().await;
    if let Some(existing) = existing(session)? {
        return exists(session, &catalog, &existing, create.if_not_exists, tag);
    }
    // Whom it had to ask has answered: from here on it is whole.
    let _held = session.hold.hold();
    let (place, sql) = placed(&session.lasting(database), &create.name, temporary, &relation.sql)?;
    relation.sql = sql;
    let id = catalog.allocate_id().await?;
    let body = match create.kind {
        ObjectKind::Source => Body::Source(relation),
        _ => Body::Table(relation),
    };
    let (name, created_us) = (create.name.name.clone(), database.clock.now_us());
    let object = Object { id, name, created_us, comment: None, place, body };
    if is_files {
        database.create(&mut catalog, session, object).await?;
        return done(tag);
    }
    // The log first: a crash between the two leaves an unused folder, never a definition without its log.
    database.owner()?.engine.create_source(&object).await?;
    if let Some(ends_with_transaction) = temporary {
        session.begin_temporary(object, ends_with_transaction);
        session.show_temporary(database, id);
        return done(tag);
    }
    let committed = async {
        if let Some(beginning) = &beginning {
            database.owner()?.feeds.begin(&object, beginning).await?;
        }
        database.create(&mut catalog, session, object.clone()).await
    };
    if let Err(error) = committed.await {
        database.owner()?.engine.drop_source(id).await?;
        return Err(error);
    }
    database.owner()?.feeds.start(&object)?;
    done(tag)
}

/// What `DEFAULT` says of columns.
fn set_defaults(session: &Session, create: &CreateRelation, relation: &mut Relation) -> Result<(), PgError> {
    if !create.defaults.is_empty() && (relation.files().is_some() || relation.topic().is_some()) {
        let message = format!("columns of {} \"{}\" cannot have a default", create.kind, create.name);
        return Err(PgError::error("0A000", message).hint("its rows are made by others: a missing field is NULL"));
    }
    for (column, text) in &create.defaults {
        let Some(ty) = create.columns.iter().find(|known| known.name == *column).map(|known| &known.ty) else {
            continue;
        };
        let text = alter_columns::readable(&create.name.name, column, ty, text, &session.format.time_zone)?;
        relation.layout.defaults.insert(column.clone(), text);
    }
    Ok(())
}

/// What has the name that something new is to have. What lasts may be called as a temporary table, and hides it.
///
/// # Errors
/// There is nowhere to make it.
pub fn named(
    database: &Database,
    session: &Session,
    name: &QualifiedName,
    temporary: Option<bool>,
) -> Result<Option<Arc<Object>>, PgError> {
    let snapshot = session.lasting(database);
    if temporary.is_some() {
        if let Some(schema) = name.schema.as_deref().filter(|schema| *schema != TEMPORARY_SCHEMA) {
            let message = format!("cannot create temporary relation in non-temporary schema \"{schema}\"");
            return Err(PgError::error("42P16", message).hint("leave the schema out"));
        }
        let own = || session.temporary(&name.name).cloned();
        return Ok(snapshot.get(&name.name).cloned().or_else(own));
    }
    let schema = snapshot.place_of(name)?;
    Ok(snapshot.get((schema.as_str(), name.name.as_str())).cloned())
}

/// Where it is to be, and its definition, which says so.
///
/// # Errors
/// There is nowhere to make it.
pub fn placed(
    snapshot: &Snapshot,
    name: &QualifiedName,
    temporary: Option<bool>,
    sql: &str,
) -> Result<(Place, String), PgError> {
    if temporary.is_some() {
        return Ok((Place::of(TEMPORARY_SCHEMA), sql.to_string()));
    }
    let schema = snapshot.place_of(name)?;
    let sql = match schema.as_str() {
        PUBLIC_SCHEMA => sql.to_string(),
        schema => under_name(sql, (schema, name.name.as_str()))?,
    };
    Ok((Place::of(schema), sql))
}

/// `IF NOT EXISTS` makes a notice of it.
///
/// # Errors
/// It is there; 55006 where another session's transaction has made it, and may take it back.
pub fn exists(
    session: &mut Session,
    catalog: &CatalogStore,
    existing: &Object,
    if_not_exists: bool,
    tag: &'static str,
) -> Result<Outcome, PgError> {
    let found = |snapshot: &Snapshot| snapshot.get(&existing.full_name()).map(|object| object.id);
    catalog.check_settled(session.block_id(), &format!("the name \"{}\"", existing.name), found)?;
    let message = format!("relation \"{}\" already exists", existing.name);
    if if_not_exists {
        session.notice(format!("{message}, skipping"));
        return done(tag);
    }
    Err(PgError::error("42P07", message).detail(format!("it is a {}", existing.kind())).hint(format!(
        "choose another name, use IF NOT EXISTS, or DROP {} {} first",
        existing.kind().to_string().to_uppercase(),
        existing.name
    )))
}

fn relation(create: &CreateRelation, sql: &str) -> Result<Relation, PgError> {
    let index = |name: &str| create.columns.iter().position(|c| c.name == name);
    let mut relation = Relation {
        columns: create
            .columns
            .iter()
            .map(|c| Column { name: c.name.clone(), ty: c.ty.clone(), not_null: c.not_null, comment: None })
            .collect(),
        primary_key: create.primary_key.iter().filter_map(|name| index(name)).collect(),
        upsert: create.upsert,
        encode: create.encode,
        event_time: create.watermark.as_ref().and_then(|(name, _)| index(name)),
        delay_us: create.watermark.as_ref().map_or(0, |(_, delay)| *delay),
        clock: ClockMode::System,
        max_ahead_us: MAX_AHEAD_US,
        idle_timeout_us: IDLE_TIMEOUT_US,
        retention_us: None,
        dead_letter_retention_us: None,
        includes: create.includes.clone(),
        layout: Default::default(),
        options: BTreeMap::new(),
        sql: without_secrets(sql),
    };
    for i in relation.primary_key.clone() {
        relation.columns[i].not_null = true;
        if matches!(relation.columns[i].ty, SqlType::Json | SqlType::Jsonb) {
            let (column, ty) = (&relation.columns[i].name, &relation.columns[i].ty);
            let message = format!("column \"{column}\" of \"{}\" is of type {ty} and cannot be a key", create.name);
            return Err(
                PgError::error("0A000", message).hint("declare it as text, or take the key out of the document")
            );
        }
        if matches!(relation.columns[i].ty, SqlType::Array(_) | SqlType::Vector(_)) {
            return Err(PgError::error(
                "0A000",
                format!(
                    "column \"{}\" of \"{}\" is an array and cannot be a key",
                    relation.columns[i].name, create.name
                ),
            ));
        }
    }
    if create.kind == ObjectKind::Source && !relation.primary_key.is_empty() {
        return Err(PgError::error("42P16", format!("source \"{}\" cannot have a primary key", create.name))
            .hint("a source is a stream of events; CREATE TABLE … FORMAT UPSERT keeps one row per key"));
    }
    if let Some(connector) = create.options.get("connector") {
        relation.options.insert("connector".to_string(), connector.clone());
    }
    apply_options(&mut relation, create.kind, &create.name.name, &create.options)?;
    let unread = relation.columns.iter().find(|column| Shown::of(&column.ty).is_some());
    if let Some(column) = unread.filter(|_| relation.files().is_some()) {
        let (name, ty) = (&column.name, &column.ty);
        return Err(PgError::error(
            "0A000",
            format!("column \"{name}\" of \"{}\" is of type {ty} in files", create.name),
        )
        .hint(format!("declare it as text, and cast it in the SELECT: {name}::{ty}")));
    }
    if !relation.includes.is_empty() && relation.topic().is_none() {
        return Err(PgError::error(
            "0A000",
            format!("{} \"{}\" has no messages to INCLUDE from", create.kind, create.name),
        )
        .hint("INCLUDE goes with connector = 'kafka'"));
    }
    if relation.encode != Encode::Json && (relation.upsert || relation.topic().is_none()) {
        let encode = relation.encode;
        let (message, hint) = match relation.topic() {
            None => ("has no messages", "ENCODE goes with connector = 'kafka'"),
            Some(_) => ("is FORMAT UPSERT", "FORMAT UPSERT ENCODE JSON is what a table can be fed with"),
        };
        return Err(PgError::error(
            "0A000",
            format!("{} \"{}\" {message} to ENCODE {encode}", create.kind, create.name),
        )
        .hint(hint));
    }
    Ok(relation)
}

/// An archive is a table of events by their time, with columns of its own behind those of the source.
fn check_archive(relation: &Relation, kind: ObjectKind, name: &str, archive: &str) -> Result<(), PgError> {
    if kind != ObjectKind::Source {
        return Err(PgError::error("0A000", format!("{kind} \"{name}\" cannot have an archive"))
            .hint("a source can, whose events never change"));
    }
    if archive != "iceberg" {
        return Err(PgError::error("22023", format!("archive of source \"{name}\" is \"{archive}\""))
            .hint("'iceberg' is what there is; one that was begun goes on until the source is dropped"));
    }
    if relation.event_time.is_none() {
        return Err(PgError::error(
            "42P17",
            format!("source \"{name}\" has no event time to partition its archive by"),
        )
        .hint("declare one: WATERMARK FOR column AS column - INTERVAL '…'"));
    }
    match relation.columns.iter().find(|column| ARCHIVE_COLUMNS.contains(&column.name.as_str())) {
        Some(column) => Err(PgError::error(
            "42701",
            format!("column \"{}\" of source \"{name}\" is one of its archive", column.name),
        )
        .hint(format!("call it otherwise: an archive adds {}", ARCHIVE_COLUMNS.join(", ")))),
        None => Ok(()),
    }
}

/// Sets what `WITH ( … )` or `ALTER … SET ( … )` says.
pub fn apply_options(
    relation: &mut Relation,
    kind: ObjectKind,
    name: &str,
    options: &BTreeMap<String, String>,
) -> Result<(), PgError> {
    let is_kafka = relation.options.get("connector").is_some_and(|connector| connector == "kafka");
    for (option, value) in options {
        let duration = || -> Result<i64, PgError> {
            duration_us(value).map_err(|e: PlanError| {
                let error: PgError = e.into();
                error.context(format!("option \"{option}\" of {kind} \"{name}\""))
            })
        };
        let lasting = |hint: &str| match duration()? {
            0 => Err(PgError::error("22023", format!("{option} of {kind} \"{name}\" is zero")).hint(hint)),
            us => Ok(us),
        };
        match option.as_str() {
            "clock" => {
                relation.clock = match value.as_str() {
                    "system" => ClockMode::System,
                    "event" => ClockMode::Event,
                    _ => {
                        return Err(PgError::error("22023", format!("clock of {kind} \"{name}\" is \"{value}\""))
                            .hint("'system' or 'event'"));
                    }
                }
            }
            "max_ahead" => relation.max_ahead_us = duration()?,
            "idle_timeout" => {
                relation.idle_timeout_us =
                    lasting("say how long it may be silent before time goes on without it, such as '30 seconds'")?;
            }
            "retention" if !relation.primary_key.is_empty() => {
                return Err(PgError::error(
                    "0A000",
                    format!("retention of table \"{name}\" cannot be set: it has a primary key"),
                )
                .hint("its log holds its current rows; only sources and tables without a key age"));
            }
            "retention" => {
                let hint = "say how long rows stay, such as '30 days'; without the option they stay for ever";
                relation.retention_us = Some(lasting(hint)?);
            }
            "dead_letter_retention" => {
                let hint = "say how long dead letters stay, such as '30 days'; without the option they stay for ever";
                relation.dead_letter_retention_us = Some(lasting(hint)?);
            }
            "archive" => check_archive(relation, kind, name, value)?,
            "connector" if value == "embedded" => {}
            "connector" if Relation::FILES.contains(&value.as_str()) && kind == ObjectKind::Table => {}
            "connector" if value == "kafka" && (kind == ObjectKind::Source || relation.upsert) => {}
            "connector" if value == "kafka" => {
                let message = format!("{kind} \"{name}\" is fed by Kafka only with a PRIMARY KEY and FORMAT UPSERT");
                return Err(PgError::error("0A000", message)
                    .hint("a stream of events is CREATE SOURCE … WITH (connector = 'kafka', …)"));
            }
            ours if is_kafka && kafka::is_option(ours) => {}
            "connector" => {
                return Err(PgError::error(
                    "0A000",
                    format!("{kind} \"{name}\": connector '{value}' is not available"),
                )
                .hint(
                    "'kafka' is, and for tables 'parquet', 'csv' and 'iceberg'; or leave the connector out: INSERT and COPY feed the \
                     embedded durable log",
                ));
            }
            // What files may have, `files_table::complete` knows.
            _ if relation.files().is_some() => {}
            other => {
                let ours: &[&str] = if is_kafka { &kafka::OPTIONS } else { &[] };
                return Err(PgError::error("22023", format!("{kind} \"{name}\" has no option \"{other}\""))
                    .hint(format!("options are {}", [&OPTIONS[..], ours].concat().join(", "))));
            }
        }
        relation.options.insert(option.clone(), value.clone());
    }
    Ok(())
}
