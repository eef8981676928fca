//! `DROP …`: refused while something reads the object, unless CASCADE.

use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Change, Object, ObjectKind, Snapshot};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    names: &[String],
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
                session.notice(format!("{kind} \"{name}\" does not exist, skipping"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (own, mut doomed): (Vec<_>, Vec<_>) = doomed.into_iter().partition(|object| snapshot.is_temporary(object.id));
    let asked = doomed.len();
    let mut at = 0;
    while at < doomed.len() {
        let readers: Vec<Arc<Object>> = snapshot.readers(doomed[at].id).cloned().collect();
        for reader in readers {
            if doomed.iter().any(|d| d.id == reader.id) {
                continue;
            }
            if !cascade {
                return Err(in_use(&snapshot, &doomed[at]));
            }
            session.notice(format!("drop cascades to {} \"{}\"", reader.kind(), reader.name));
            doomed.push(reader);
        }
        at += 1;
    }
    if asked > 0 {
        let changes: Vec<Change> = doomed.iter().map(|d| Change::Drop(d.id)).collect();
        // The catalog first: what is not in it is cleaned up at the next start if a crash comes between.
        database.commit(&mut catalog, &changes).await?;
        for object in doomed.iter().rev() {
            match &object.body {
                Body::FeatureView(_) => database.owner()?.engine.drop_view(object.id).await?,
                // The files are not ours.
                Body::Table(relation) if relation.files().is_some() => {}
                Body::Source(_) | Body::Table(_) => {
                    database.owner()?.feeds.stop(object.id).await;
                    database.owner()?.engine.drop_source(object.id).await?;
                }
                Body::TrainingSet(set) => database.owner()?.engine.drop_source(set.rows).await?,
                Body::View(_) | Body::Aggregate(_) => {}
            }
        }
    }
    for object in own {
        session.drop_temporary(database, object.id).await?;
    }
    Ok(Outcome::Done { tag: format!("DROP {}", kind.to_string().to_uppercase()).into() })
}

fn in_use(snapshot: &Snapshot, object: &Object) -> PgError {
    let readers: Vec<String> = snapshot
        .readers(object.id)
        .map(|r| format!("{} \"{}\" depends on {} \"{}\"", r.kind(), r.name, object.kind(), object.name))
        .collect();
    PgError::error(
        "2BP01",
        format!("cannot drop {} \"{}\" because other objects depend on it", object.kind(), object.name),
    )
    .detail(readers.join("\n"))
    .hint("DROP … CASCADE drops them too")
}
