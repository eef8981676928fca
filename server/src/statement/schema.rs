//! `CREATE`, `ALTER` and `DROP SCHEMA`, `COMMENT ON SCHEMA`.

use super::{done, drop, grant::no_schema, rename::write_name, role, set_owner::check_can_become};
use crate::{
    database::Database,
    lake,
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{
    BadSchemaName, CatalogStore, Change, Object, PUBLIC_SCHEMA, SYSTEM_SCHEMAS, Schema, Snapshot, schema_of_history,
};
use tidemark_planner::statement::RoleName;

pub async fn create(
    database: &Arc<Database>,
    session: &mut Session,
    name: Option<&str>,
    if_not_exists: bool,
    owner: Option<&RoleName>,
) -> Result<Outcome, PgError> {
    const TAG: &str = "CREATE SCHEMA";
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    session.rights.check_superuser("create a schema").map_err(|error| {
        error.hint("a superuser makes it: CREATE SCHEMA … AUTHORIZATION role gives it to somebody else")
    })?;
    let owner = match owner {
        Some(owner) => Some(role::named(session, &snapshot.access, owner)?.clone()),
        None => None,
    };
    let name = match (name, &owner) {
        (Some(name), _) => name.to_string(),
        (None, Some(owner)) => owner.name.clone(),
        (None, None) => return Err(PgError::error("42601", "CREATE SCHEMA has no name")),
    };
    if is_there(&snapshot, &name) {
        check_settled(session, &catalog, &name)?;
        let message = format!("schema \"{name}\" already exists");
        if if_not_exists {
            session.notice(format!("{message}, skipping"));
            return done(TAG);
        }
        return Err(PgError::error("42P06", message).hint("use IF NOT EXISTS"));
    }
    Schema::check_name(&name).map_err(bad_name)?;
    let owner = owner.map_or(session.rights.actor.role, |owner| owner.id);
    let mut access = snapshot.access.as_ref().clone();
    access.add_schema(&name, owner);
    let id = catalog.allocate_id().await?;
    let schema = Schema { id, name, created_us: database.clock.now_us(), comment: None };
    database.commit(&mut catalog, session, &[Change::PutSchema(schema), Change::Access(access)]).await?;
    done(TAG)
}

/// Refuses to go by a name that another session's transaction has made or dropped: it may take that back.
fn check_settled(session: &Session, catalog: &CatalogStore, name: &str) -> Result<(), PgError> {
    let found = |snapshot: &Snapshot| snapshot.schema(name).map(|schema| schema.id);
    Ok(catalog.check_settled(session.block_id(), &format!("schema \"{name}\""), found)?)
}

/// Also of the server's own.
fn is_there(snapshot: &Snapshot, name: &str) -> bool {
    let of_history = schema_of_history(name).is_some_and(|of| snapshot.schema(of).is_some());
    snapshot.schema(name).is_some() || SYSTEM_SCHEMAS.contains(&name) || of_history
}

fn bad_name(error: BadSchemaName) -> PgError {
    let message = error.to_string();
    match error {
        BadSchemaName::Reserved(_) => PgError::error("42939", message)
            .detail("names that begin with pg_, history_ or $ are the server's, and so are history, tidemark and information_schema"),
        BadSchemaName::Letter(_) => PgError::error("42602", message)
            .detail("it is a folder of the warehouse and a namespace of Iceberg")
            .hint("letters, digits, spaces, _, - and $ can be in it"),
        BadSchemaName::Long(_) => PgError::error("42622", message).hint("63 bytes at most"),
    }
}

/// One that the user made, or `public`.
fn find(snapshot: &Snapshot, name: &str) -> Result<Arc<Schema>, PgError> {
    if let Some(schema) = snapshot.schema(name) {
        return Ok(schema.clone());
    }
    match is_there(snapshot, name) {
        true => Err(PgError::error("42501", format!("permission denied for schema {name}"))
            .detail("the server maintains it")
            .hint("schemas of your own can be changed and dropped")),
        false => Err(no_schema(name)),
    }
}

pub async fn drop(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    names: &[String],
    cascade: bool,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let mut schemas: Vec<Arc<Schema>> = vec![];
    for name in names {
        match find(&snapshot, name) {
            Ok(schema) if schema.name == PUBLIC_SCHEMA => {
                return Err(PgError::error("2BP01", "cannot drop schema public because it is always there")
                    .hint("drop what is in it"));
            }
            Ok(schema) => {
                session.rights.check_schema_owner(name)?;
                if !schemas.iter().any(|known| known.id == schema.id) {
                    schemas.push(schema);
                }
            }
            Err(error) if if_exists && error.sqlstate == "3F000" => {
                check_settled(session, &catalog, name)?;
                session.notice(format!("schema \"{name}\" does not exist, skipping"));
            }
            Err(error) => return Err(error),
        }
    }
    let mut doomed: Vec<Arc<Object>> =
        schemas.iter().flat_map(|schema| snapshot.objects_in(&schema.name)).cloned().collect();
    if let Some(object) = doomed.first().filter(|_| !cascade) {
        return Err(not_empty(&snapshot, object.schema_name()));
    }
    drop::with_readers(&snapshot, &mut doomed);
    tell(session, &doomed);
    let mut access = snapshot.access.as_ref().clone();
    schemas.iter().for_each(|schema| access.forget_schema(&schema.name));
    doomed.iter().for_each(|object| access.forget(object.id));
    let mut changes: Vec<Change> = schemas.iter().map(|schema| Change::DropSchema(schema.id)).collect();
    if !changes.is_empty() {
        changes.push(Change::Access(access));
        drop::commit(database, session, &mut catalog, &doomed, changes).await?;
    }
    done("DROP SCHEMA")
}

/// As many as PostgreSQL names; the rest it counts.
const NAMED_MAX: usize = 100;

fn shown(object: &Object) -> String {
    format!("{} {}", object.kind(), object.shown_name())
}

fn tell(session: &mut Session, doomed: &[Arc<Object>]) {
    match doomed {
        [] => {}
        [object] => session.notice(format!("drop cascades to {}", shown(object))),
        many => {
            let named = many.iter().take(NAMED_MAX).map(|object| format!("drop cascades to {}", shown(object)));
            let mut detail = named.collect::<Vec<_>>();
            if many.len() > NAMED_MAX {
                detail.push(format!("and {} other objects (see the audit for the statement)", many.len() - NAMED_MAX));
            }
            let notice = PgError::notice(format!("drop cascades to {} other objects", many.len()));
            session.events.push(crate::pg::SessionEvent::Notice(notice.detail(detail.join("\n"))));
        }
    }
}

fn not_empty(snapshot: &Snapshot, schema: &str) -> PgError {
    let mut detail: Vec<String> = snapshot
        .objects_in(schema)
        .take(NAMED_MAX)
        .map(|object| format!("{} depends on schema {schema}", shown(object)))
        .collect();
    let more = snapshot.objects_in(schema).count().saturating_sub(NAMED_MAX);
    if more > 0 {
        detail.push(format!("and {more} other objects"));
    }
    PgError::error("2BP01", format!("cannot drop schema {schema} because other objects depend on it"))
        .detail(detail.join("\n"))
        .hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// Refused where a definition names something in it: definitions are text.
pub async fn rename(database: &Arc<Database>, session: &mut Session, name: &str, to: &str) -> Result<Outcome, PgError> {
    let owner = database.owner()?;
    let mut catalog = owner.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let schema = find(&snapshot, name)?;
    session.rights.check_schema_owner(name)?;
    if name == PUBLIC_SCHEMA {
        return Err(
            PgError::error("0A000", "schema public cannot be renamed").hint("it is where names without a schema were")
        );
    }
    if is_there(&snapshot, to) {
        return Err(PgError::error("42P06", format!("schema \"{to}\" already exists")));
    }
    Schema::check_name(to).map_err(bad_name)?;
    let inside: Vec<Arc<Object>> = snapshot.objects_in(name).cloned().collect();
    for object in &inside {
        if let Some(reader) = snapshot.readers(object.id).next() {
            return Err(PgError::error(
                "2BP01",
                format!("cannot rename schema {name}: {} names {}", shown(reader), shown(object)),
            )
            .detail("definitions are kept as they were written")
            .hint("drop what reads it first, or make a new schema and what is to be in it"));
        }
    }
    let mut access = snapshot.access.as_ref().clone();
    access.rename_schema(name, to);
    let mut changes =
        vec![Change::Access(access), Change::PutSchema(Schema { name: to.to_string(), ..schema.as_ref().clone() })];
    let mut moved: Vec<Object> = vec![];
    for object in &inside {
        let mut object = object.as_ref().clone();
        object.place.schema = to.to_string();
        object.place.relations.rename_schema(name, to);
        object.place.aggregates.rename_schema(name, to);
        write_name(&mut object)?;
        moved.push(object);
    }
    changes.extend(moved.iter().cloned().map(Change::Put));
    // A crash in between leaves some under the new name: the next start gives them their views' names.
    let views = || moved.iter().zip(&inside).filter(|(object, _)| object.feature_view().is_some());
    let renamed = async {
        for (object, _) in views() {
            owner.engine.rename_view(object.id, &object.history_name()).await?;
        }
        database.commit(&mut catalog, session, &changes).await
    };
    if let Err(error) = renamed.await {
        for (_, before) in views() {
            owner.engine.rename_view(before.id, &before.history_name()).await?;
        }
        return Err(error);
    }
    for object in &moved {
        let log = object.training_set().map_or(object.id, |set| set.rows);
        if let Some(source) = owner.engine.source(log) {
            source.set_name(object);
        }
    }
    std::mem::drop(catalog);
    for object in moved.iter().filter(|object| object.training_set().is_some()) {
        lake::settle(database, session, object).await;
    }
    done("ALTER SCHEMA")
}

pub async fn set_owner(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    to: &RoleName,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    find(&snapshot, name)?;
    session.rights.check_schema_owner(name)?;
    let to = role::named(session, &snapshot.access, to)?.clone();
    check_can_become(session, to.id, &to.name)?;
    let mut access = snapshot.access.as_ref().clone();
    access.own_schema(name, to.id);
    database.commit(&mut catalog, session, &[Change::Access(access)]).await?;
    done("ALTER SCHEMA")
}

pub async fn comment(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    text: Option<String>,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let schema = find(&snapshot, name)?;
    session.rights.check_schema_owner(name)?;
    let changed = Schema { comment: text, ..schema.as_ref().clone() };
    database.commit(&mut catalog, session, &[Change::PutSchema(changed)]).await?;
    done("COMMENT")
}
