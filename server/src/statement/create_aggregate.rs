//! `CREATE AGGREGATE`: checked, durable, then visible. It is written out where it is called (`planner/src/composed.rs`), so a
//! view that calls it is what it was at the view's creation: under a view no other takes its place.

use super::{create_relation::placed, done};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    session::Session,
};
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::{Body, Change, Object, ObjectId, ObjectKind, Place, Snapshot, role};
use tidemark_planner::{
    composed::{define, define_again},
    statement::CreateAggregate,
};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    create: &CreateAggregate,
    sql: &str,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    let (_, sql) = placed(&snapshot, &create.name, None, sql)?;
    let (aggregate, place) = define(create, &sql, &snapshot, &session.state)?;
    let mut object = match snapshot.aggregate((place.schema.as_str(), create.name.name.as_str())) {
        Some(existing) if create.or_replace => existing.as_ref().clone(),
        Some(existing) => {
            let name = (place.schema.as_str(), create.name.name.as_str());
            let found = |snapshot: &Snapshot| snapshot.aggregate(name).map(|object| object.id);
            catalog.check_settled(session.block_id(), &format!("aggregate \"{}\"", existing.name), found)?;
            return Err(PgError::error("42723", format!("aggregate \"{}\" already exists", existing.name))
                .hint("CREATE OR REPLACE AGGREGATE puts another in its place"));
        }
        None => Object {
            id: catalog.allocate_id().await?,
            name: create.name.name.clone(),
            created_us: database.clock.now_us(),
            comment: None,
            place: Place::default(),
            body: Body::Aggregate(aggregate.clone()),
        },
    };
    object.body = Body::Aggregate(aggregate);
    object.place = place;
    let (id, is_new) = (object.id, snapshot.get_id(object.id).is_none());
    let mut changes = replaced(&snapshot, session, object)?;
    let owner = session.rights.actor.role;
    if is_new && owner != role::OWNER {
        changes.push(Change::Own(id, owner));
    }
    database.commit(&mut catalog, session, &changes).await?;
    done("CREATE AGGREGATE")
}

/// The changes that put `object` in its place: aggregates that call it are checked again, from the inside out.
fn replaced(snapshot: &Snapshot, session: &Session, object: Object) -> Result<Vec<Change>, PgError> {
    let (id, name) = (object.id, object.name.clone());
    let mut changes = vec![Change::Put(object)];
    let mut next = snapshot.apply(&changes);
    let (mut open, mut done) = (vec![id], BTreeSet::<ObjectId>::new());
    while let Some(id) = open.pop() {
        let readers: Vec<Arc<Object>> = snapshot.readers(id).cloned().collect();
        for reader in readers {
            if reader.kind() != ObjectKind::Aggregate {
                return Err(PgError::error(
                    "2BP01",
                    format!(
                        "cannot replace aggregate \"{name}\" because {} \"{}\" uses it",
                        reader.kind(),
                        reader.name
                    ),
                )
                .hint("create it under another name, and a view that uses that one"));
            }
            if !done.insert(reader.id) {
                continue;
            }
            let again = define_again(&reader, &next, &session.state).map_err(|error| {
                let message = format!("cannot replace aggregate \"{name}\" under aggregate \"{}\"", reader.name);
                let refused = PgError::error(error.sqlstate, message).detail(error.message);
                match error.hint {
                    Some(hint) => refused.hint(hint),
                    None => refused,
                }
            })?;
            let change = Change::Put(Object { body: Body::Aggregate(again), ..reader.as_ref().clone() });
            next = next.apply(std::slice::from_ref(&change));
            changes.push(change);
            open.push(reader.id);
        }
    }
    Ok(changes)
}
