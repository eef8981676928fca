//! `ALTER … RENAME TO`. The object keeps its id, so its readers keep reading it; definitions that name it are text, so an
//! object in use is not renamed from under them.

use crate::{
    blocks,
    database::{Database, find},
    lake,
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Change, NameRef, Object, ObjectKind, PUBLIC_SCHEMA, QualifiedName, Snapshot};
use tidemark_planner::{PlanResult, parse::under_name};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    name: &QualifiedName,
    to: &str,
) -> Result<Outcome, PgError> {
    let tag = format!("ALTER {}", kind.to_string().to_uppercase());
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    // PostgreSQL's ALTER TABLE renames whatever shows rows: dbt renames its views so.
    let kind = match snapshot.get(name).map(|object| object.kind()) {
        Some(found @ (ObjectKind::View | ObjectKind::FeatureView | ObjectKind::TrainingSet))
            if matches!(kind, ObjectKind::Table | ObjectKind::View) =>
        {
            found
        }
        _ => kind,
    };
    let object = match find(&snapshot, kind, name) {
        Ok(object) => object.clone(),
        Err(error) if if_exists && error.sqlstate == "42P01" => {
            blocks::skip(database, session, &catalog, kind, name)?;
            return Ok(Outcome::Done { tag: tag.into() });
        }
        Err(error) => return Err(error.into()),
    };
    let to = object.full_name().beside(to);
    if let Some(existing) = snapshot.get(&to) {
        let found = |snapshot: &Snapshot| snapshot.get(&to).map(|object| object.id);
        catalog.check_settled(session.block_id(), &format!("the name \"{}\"", to.name), found)?;
        return Err(PgError::error("42P07", format!("relation \"{}\" already exists", to.name))
            .detail(format!("it is a {}", existing.kind())));
    }
    if let Some(reader) = snapshot.readers(object.id).next() {
        return Err(PgError::error(
            "2BP01",
            format!("cannot rename {kind} \"{name}\": {} \"{}\" names it", reader.kind(), reader.name),
        )
        .hint("drop and create what reads it, or create a view under the new name"));
    }
    let mut renamed = object.as_ref().clone();
    renamed.name = to.name.clone();
    write_name(&mut renamed)?;
    if kind == ObjectKind::FeatureView {
        database.owner()?.engine.rename_view(object.id, &renamed.history_name()).await?;
    }
    if let Err(error) = database.commit(&mut catalog, session, &[Change::Put(renamed.clone())]).await {
        if kind == ObjectKind::FeatureView {
            database.owner()?.engine.rename_view(object.id, &object.history_name()).await?;
        }
        return Err(error);
    }
    let log = object.training_set().map_or(object.id, |set| set.rows);
    if let Some(source) = database.owner()?.engine.source(log) {
        source.set_name(&renamed);
    }
    drop(catalog);
    if renamed.training_set().is_some() {
        lake::settle(database, session, &renamed).await;
    }
    Ok(Outcome::Done { tag: tag.into() })
}

/// What SHOW CREATE shows creates the object as it is called now.
///
/// # Errors
/// Its definition cannot be read.
pub fn write_name(object: &mut Object) -> PlanResult<()> {
    let (schema, name) = (object.place.schema.clone(), object.name.clone());
    let written = written_name(&schema, &name);
    match &mut object.body {
        Body::Source(relation) | Body::Table(relation) => relation.sql = under_name(&relation.sql, written)?,
        Body::FeatureView(view) => view.sql = under_name(&view.sql, written)?,
        Body::View(view) => view.sql = under_name(&view.sql, written)?,
        Body::Aggregate(aggregate) => aggregate.sql = under_name(&aggregate.sql, written)?,
        Body::TrainingSet(set) => set.sql = under_name(&set.sql, written)?,
    }
    Ok(())
}

/// The name as the definition of an object has it: with its schema where that is not `public`.
pub fn written_name<'n>(schema: &'n str, name: &'n str) -> NameRef<'n> {
    match schema {
        PUBLIC_SCHEMA => NameRef::from(name),
        schema => NameRef::from((schema, name)),
    }
}
