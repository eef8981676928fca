//! `DROP …`: refused while something reads the object, unless CASCADE. What goes, goes as one change.

use crate::{
    blocks,
    database::{Database, find},
    lake,
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, CatalogStore, Change, Object, ObjectKind, QualifiedName, Snapshot};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    names: &[QualifiedName],
    cascade: bool,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.snapshot(database);
    let mut doomed: Vec<Arc<Object>> = vec![];
    for name in names {
        match find(&snapshot, kind, name) {
            Ok(object) if !doomed.iter().any(|d| d.id == object.id) => doomed.push(object.clone()),
            Ok(_) => {}
            Err(error) if if_exists && matches!(error.sqlstate, "42P01" | "42883") => {
                blocks::skip(database, session, &catalog, kind, name)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (own, mut doomed): (Vec<_>, Vec<_>) = doomed.into_iter().partition(|object| snapshot.is_temporary(object.id));
    let asked = doomed.len();
    for (reader, read) in with_readers(&snapshot, &mut doomed) {
        if !cascade {
            return Err(in_use(&snapshot, &read));
        }
        session.notice(format!("drop cascades to {} \"{}\"", reader.kind(), reader.shown_name()));
    }
    if asked > 0 {
        commit(database, session, &mut catalog, &doomed, vec![]).await?;
    }
    for object in own {
        session.drop_temporary(database, object.id).await?;
    }
    Ok(Outcome::Done { tag: format!("DROP {}", kind.to_string().to_uppercase()).into() })
}

/// Adds what reads these objects, also by way of others: each behind what it reads, and what that is.
pub fn with_readers(snapshot: &Snapshot, doomed: &mut Vec<Arc<Object>>) -> Vec<(Arc<Object>, Arc<Object>)> {
    let mut added = vec![];
    let mut at = 0;
    while at < doomed.len() {
        for reader in snapshot.readers(doomed[at].id) {
            if !doomed.iter().any(|d| d.id == reader.id) {
                added.push((reader.clone(), doomed[at].clone()));
                doomed.push(reader.clone());
            }
        }
        at += 1;
    }
    added
}

/// Drops these objects, and makes the other changes with them, as one. In a transaction block what they have stays until its end.
pub async fn commit(
    database: &Arc<Database>,
    session: &Session,
    catalog: &mut CatalogStore,
    doomed: &[Arc<Object>],
    mut changes: Vec<Change>,
) -> Result<(), PgError> {
    changes.splice(0..0, doomed.iter().map(|d| Change::Drop(d.id)));
    // The catalog first: what is not in it is cleaned up at the next start if a crash comes between.
    database.commit(catalog, session, &changes).await?;
    if session.block_id().is_none() {
        let doomed: Vec<&Object> = doomed.iter().map(|object| &**object).collect();
        return remove(database, &doomed).await;
    }
    for object in doomed.iter().filter(|object| object.feature_view().is_some()) {
        // Another may be made under its name before the transaction ends.
        let aside = aside(object, &[catalog.snapshot()]);
        database.owner()?.engine.rename_view(object.id, &aside).await?;
    }
    Ok(())
}

/// What the history table of a view is called that was dropped in a transaction which is still open: as nothing in these snapshots is.
pub fn aside(view: &Object, taken: &[&Snapshot]) -> String {
    let mut aside = Object { name: format!("dropped_{}", view.id.0), ..view.clone() };
    while taken.iter().any(|snapshot| snapshot.get(&aside.full_name()).is_some()) {
        aside.name.push('_');
    }
    aside.history_name()
}

/// Removes what objects have that are in the catalog no more: each behind what it reads.
pub async fn remove(database: &Database, doomed: &[&Object]) -> Result<(), PgError> {
    // Views before what they read.
    let (views, others): (Vec<&Object>, Vec<&Object>) =
        doomed.iter().rev().copied().partition(|object| object.feature_view().is_some());
    let owner = database.owner()?;
    for object in views.into_iter().chain(others) {
        match &object.body {
            Body::FeatureView(_) => owner.engine.drop_view(object.id).await?,
            // The files are not ours.
            Body::Table(relation) if relation.files().is_some() => {}
            Body::Source(_) | Body::Table(_) => {
                owner.feeds.stop(object.id).await;
                owner.engine.drop_source(object.id).await?;
            }
            Body::TrainingSet(set) => {
                lake::forget(database, object).await;
                owner.engine.drop_source(set.rows).await?;
            }
            Body::View(_) | Body::Aggregate(_) => {}
        }
    }
    Ok(())
}

fn in_use(snapshot: &Snapshot, object: &Object) -> PgError {
    let name = object.shown_name();
    let readers: Vec<String> = snapshot
        .readers(object.id)
        .map(|r| format!("{} \"{}\" depends on {} \"{name}\"", r.kind(), r.shown_name(), object.kind()))
        .collect();
    PgError::error("2BP01", format!("cannot drop {} \"{name}\" because other objects depend on it", object.kind()))
        .detail(readers.join("\n"))
        .hint("DROP … CASCADE drops them too")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_catalog::{ObjectId, Place, View};

    fn view(id: u32, name: &str) -> Object {
        let body = Body::View(View { sql: String::new(), query: String::new(), columns: vec![], reads: vec![] });
        Object { id: ObjectId(id), name: name.to_string(), created_us: 0, comment: None, place: Place::default(), body }
    }

    #[test]
    fn what_is_out_of_the_way_has_the_name_of_nothing() {
        let plain = Snapshot::new(1, [view(7, "v"), view(8, "dropped_8")]);
        assert_eq!(aside(&view(7, "v"), &[&plain]), "dropped_7");
        let taken = Snapshot::new(1, [view(7, "v"), view(8, "dropped_7")]);
        let later = Snapshot::new(2, [view(9, "dropped_7_")]);
        assert_eq!(aside(&view(7, "v"), &[&taken]), "dropped_7_");
        assert_eq!(aside(&view(7, "v"), &[&taken, &later]), "dropped_7__");
    }
}
