//! The end of a transaction block, and the way back to a savepoint. What statements change of the catalog takes effect at once and
//! is noted in its journal (`catalog/src/journal.rs`); what they drop keeps its storage.
//!
//! ```text
//! COMMIT      the journal forgets the block   ──▶   storage of what was dropped goes
//! ROLLBACK    the catalog is as it was        ──▶   storage of what was made goes; names and options are as they were
//! ```
//!
//! A crash between the two halves leaves what every start mends: storage that is in no catalog, and history tables under other names.

use crate::{
    database::{Database, Owner},
    lake,
    pg::{PgError, SessionEvent},
    session::{Mark, Session},
    statement::{drop as removal, rename::write_name},
};
use std::sync::Arc;
use tidemark_catalog::{CatalogStore, Object, ObjectKind, QualifiedName, Relation, Snapshot, TakenBack};
use tidemark_engine::runtime::SourceRuntime;

/// What has been changed stays.
///
/// # Errors
/// It was taken back instead.
pub async fn commit(database: &Arc<Database>, session: &mut Session) -> Result<(), PgError> {
    let Some(block) = session.block_id().filter(|_| session.block.entries() > 0) else { return Ok(()) };
    let mut catalog = database.owner()?.catalog.lock().await;
    let ended = catalog.end(block).await;
    let dropped = match ended {
        Ok(dropped) => dropped,
        Err(error) => {
            drop(catalog);
            let beginning = session.block.beginning();
            roll_back(database, session, beginning).await?;
            let error = PgError::from(error);
            return Err(match error.detail {
                Some(_) => error,
                None => error.detail("the transaction was rolled back instead"),
            });
        }
    };
    let dropped: Vec<&Object> = dropped.iter().collect();
    let removed = removal::remove(database, &dropped).await;
    // What was to be kept no longer may go now.
    let (engine, snapshot) = (&database.owner()?.engine, catalog.snapshot());
    for object in session.block.altered().filter_map(|id| snapshot.get_id(id)) {
        if let (Some(source), Some(relation)) = (engine.source(object.id), object.relation()) {
            source.reconfigure(relation.clone()).await;
        }
    }
    drop(catalog);
    warn_of_remains(session, removed);
    Ok(())
}

/// How a source goes on with new options while the block is open: what it keeps it does not shorten before its end, for what went
/// nothing brings back.
pub fn while_open(source: &SourceRuntime, relation: &Relation) -> Relation {
    // `None`: for ever.
    let longer = |one: Option<i64>, other: Option<i64>| Some(one?.max(other?));
    let now = source.relation.read();
    Relation {
        retention_us: longer(now.retention_us, relation.retention_us),
        dead_letter_retention_us: longer(now.dead_letter_retention_us, relation.dead_letter_retention_us),
        ..relation.clone()
    }
}

/// What has been changed since then is as it was; the client is told what is not.
///
/// # Errors
/// It is not: the next start makes it so.
pub async fn roll_back(database: &Arc<Database>, session: &mut Session, to: Mark) -> Result<(), PgError> {
    if let Some(block) = session.block_id().filter(|_| session.block.entries() > to.entries) {
        let owner = database.owner()?;
        let mut catalog = owner.catalog.lock().await;
        let back = catalog.take_back(block, to.entries).await.map_err(|error| {
            PgError::from(error)
                .detail("what the transaction has changed of the catalog stays until the next start takes it back")
        })?;
        session.block.note_entries(to.entries);
        database.show(Arc::new(back.after.clone()));
        let settled = settle(database, owner, &back, to.entries).await;
        drop(catalog);
        warn_of_remains(session, settled);
        // Their tables too are called, and are there, as before.
        for object in back.objects.iter().filter_map(|id| back.after.get_id(*id)) {
            if object.training_set().is_some() {
                lake::settle(database, session, object).await;
            }
        }
    }
    session.drop_temporary_since(database, to.temporary).await?;
    warn_of_stays(database, session, to);
    Ok(())
}

/// Storage and runtime follow the catalog. What fails keeps nothing else from it; the first error.
/// `kept`: so many entries of the block stay in the journal, and it stays open.
async fn settle(database: &Database, owner: &Owner, back: &TakenBack, kept: usize) -> Result<(), PgError> {
    let engine = &owner.engine;
    let TakenBack { before, after, objects, .. } = back;
    let gone: Vec<&Object> = back.gone().collect();
    let mut outcome = removal::remove(database, &gone).await;
    let there = objects.iter().filter_map(|id| Some((before.get_id(*id), after.get_id(*id)?)));
    let there: Vec<(Option<&Arc<Object>>, &Arc<Object>)> = there.collect();
    // History tables may have exchanged their names: all are out of the way before any has its own again.
    let is_renamed = |was: Option<&Arc<Object>>, is: &Object| {
        is.feature_view().is_some() && was.is_none_or(|was| was.history_name() != is.history_name())
    };
    for (was, is) in &there {
        if was.is_some() && is_renamed(*was, is) {
            let renamed = engine.rename_view(is.id, &removal::aside(is, &[before, after])).await;
            outcome = outcome.and(renamed.map_err(PgError::from));
        }
    }
    for (was, is) in &there {
        if is_renamed(*was, is) {
            let renamed = engine.rename_view(is.id, &is.history_name()).await;
            outcome = outcome.and(renamed.map_err(PgError::from));
        }
    }
    for (was, is) in &there {
        let log = is.training_set().map_or(is.id, |set| set.rows);
        if let Some(source) = engine.source(log) {
            source.set_name(is);
            if let Some(relation) = is.relation() {
                let is_open = kept > 0;
                let relation = if is_open { while_open(&source, relation) } else { relation.clone() };
                source.reconfigure(relation).await;
            }
        }
        // One that was dropped in the block may have been altered in it before: what it was last is not told by the catalog.
        let online = is.feature_view().map(|view| view.options.get("online").map(String::as_str));
        if let Some(online) = online.filter(|online| !owner.places.is_at(is.id, *online)) {
            let moved = engine.move_online(is.id, || owner.places.choose(is.id, online)).await;
            outcome = outcome.and(moved.map_err(PgError::from));
        }
        let options = |object: &Object| object.relation().map(|relation| relation.options.clone());
        if is.relation().and_then(Relation::topic).is_some() && was.is_none_or(|was| options(was) != options(is)) {
            owner.feeds.stop(is.id).await;
            outcome = outcome.and(owner.feeds.start(is));
        }
    }
    // What is connected by a secret connects anew.
    let altered = after.secrets().filter(|secret| before.secret(&secret.name) != Some(*secret));
    for secret in altered.collect::<Vec<_>>() {
        for object in after.users_of_secret(&secret.name) {
            owner.feeds.stop(object.id).await;
            outcome = outcome.and(owner.feeds.start(object));
        }
    }
    outcome
}

/// The catalog is as it is to be; what could not follow it does at the next start.
fn warn_of_remains(session: &mut Session, done: Result<(), PgError>) {
    if let Err(error) = done {
        tracing::warn!(
            error = error.message,
            "the end of a transaction left something behind; the next start mends it"
        );
        let message = format!("the transaction has ended, but left something behind: {}", error.message);
        let warning = PgError::warning(error.sqlstate, message).hint("the next start of the server mends it");
        session.events.push(SessionEvent::Notice(warning));
    }
}

/// So many are named; a client that wants to know more has its own statements.
const NAMED_MAX: usize = 10;

fn warn_of_stays(database: &Database, session: &mut Session, to: Mark) {
    let stays = session.block.tell_stays(to);
    if stays.is_empty() {
        return;
    }
    let snapshot = session.snapshot(database);
    // What was done to a table that the transaction has made went with it.
    let stays = stays.iter().filter(|stay| snapshot.get_id(stay.object).is_some());
    let stays: Vec<&str> = stays.map(|stay| stay.what.as_str()).collect();
    if stays.is_empty() {
        return;
    }
    let mut named = stays[..stays.len().min(NAMED_MAX)].join(", ");
    if stays.len() > NAMED_MAX {
        named += &format!(" and {} more", stays.len() - NAMED_MAX);
    }
    let message = "changes made in this transaction stay: each statement was durable when it returned";
    let warning = PgError::warning("0A000", message)
        .detail(format!("{named}: not taken back"))
        .hint("what CREATE, DROP, RENAME, COMMENT, GRANT and options have changed is as it was before");
    session.events.push(SessionEvent::Notice(warning));
}

/// `IF EXISTS` makes a notice of what is not there.
///
/// # Errors
/// 55006: another session's transaction has dropped it, and may bring it back.
pub fn skip(
    database: &Database,
    session: &mut Session,
    catalog: &CatalogStore,
    kind: ObjectKind,
    name: &QualifiedName,
) -> Result<(), PgError> {
    let schemas = match &name.schema {
        Some(schema) => vec![schema.clone()],
        None => session.search_path(database),
    };
    let found = |snapshot: &Snapshot| {
        schemas.iter().find_map(|schema| {
            let name = (schema.as_str(), name.name.as_str());
            let found = if kind == ObjectKind::Aggregate { snapshot.aggregate(name) } else { snapshot.get(name) };
            found.map(|object| object.id)
        })
    };
    catalog.check_settled(session.block_id(), &format!("the name \"{name}\""), found)?;
    session.notice(format!("{kind} \"{name}\" does not exist, skipping"));
    Ok(())
}

/// What a block that is taken back makes of an object after a change that stays: all that the change has made of it, under the name
/// and in the place that it had.
///
/// # Errors
/// Its definition cannot be read.
pub fn rebased(was: &Object, now: &Object) -> Result<Object, PgError> {
    let (name, comment, place) = (was.name.clone(), was.comment.clone(), was.place.clone());
    let mut object = Object { name, comment, place, ..now.clone() };
    write_name(&mut object)?;
    Ok(object)
}
