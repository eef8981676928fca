//! `ALTER … OWNER TO` and `REASSIGN OWNED BY`.

use super::{done, role};
use crate::{
    blocks,
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Change, ObjectId, ObjectKind, QualifiedName, Secret};
use tidemark_planner::statement::RoleName;

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    name: &QualifiedName,
    to: &RoleName,
) -> Result<Outcome, PgError> {
    let tag = format!("ALTER {}", kind.to_string().to_uppercase());
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    session.refresh(database);
    let object = match find(&snapshot, kind, name) {
        Ok(object) => object.clone(),
        Err(error) if if_exists && matches!(error.sqlstate, "42P01" | "42883") => {
            blocks::skip(database, session, &catalog, kind, name)?;
            return Ok(Outcome::Done { tag: tag.into() });
        }
        Err(error) => return Err(error.into()),
    };
    session.rights.check_owner(&object)?;
    let to = role::named(session, &snapshot.access, to)?.clone();
    // Else somebody could give his view to one who may read more, and have it read for him.
    check_can_become(session, to.id, &to.name)?;
    database.commit(&mut catalog, session, &[Change::Own(object.id, to.id)]).await?;
    Ok(Outcome::Done { tag: tag.into() })
}

pub fn check_can_become(session: &Session, role: ObjectId, name: &str) -> Result<(), PgError> {
    let rights = &session.rights;
    match rights.actor.is_superuser || rights.access().memberships(rights.actor.role).contains(&role) {
        true => Ok(()),
        false => Err(PgError::error("42501", format!("must be member of role \"{name}\"")).hint("superusers may")),
    }
}

pub async fn reassign(
    database: &Arc<Database>,
    session: &mut Session,
    from: &[RoleName],
    to: &RoleName,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let to = role::named(session, &snapshot.access, to)?.clone();
    check_can_become(session, to.id, &to.name)?;
    let mut changes = vec![];
    let (mut access, mut owns_schemas) = (snapshot.access.as_ref().clone(), false);
    for name in from {
        let from = role::named(session, &snapshot.access, name)?.clone();
        if from.is_predefined() {
            return Err(PgError::error("2BP01", format!("what role \"{}\" owns cannot be reassigned", from.name))
                .detail("it owns what nobody else does")
                .hint("ALTER … OWNER TO gives one object to another role"));
        }
        check_can_become(session, from.id, &from.name)?;
        let schemas: Vec<String> = snapshot.access.schemas_owned_by(from.id).map(str::to_string).collect();
        schemas.iter().for_each(|schema| access.own_schema(schema, to.id));
        owns_schemas |= !schemas.is_empty();
        changes.extend(snapshot.access.owned_by(from.id).map(|object| Change::Own(object, to.id)));
        let secrets = snapshot.secrets().filter(|secret| secret.owner == from.id);
        changes.extend(secrets.map(|secret| Change::PutSecret(Secret { owner: to.id, ..secret.as_ref().clone() })));
    }
    if owns_schemas {
        // Before what changes a part of it.
        changes.insert(0, Change::Access(access));
    }
    database.commit(&mut catalog, session, &changes).await?;
    done("REASSIGN OWNED")
}
