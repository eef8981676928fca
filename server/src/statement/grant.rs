//! `GRANT` and `REVOKE`: privileges on objects and schemas, and membership in roles.

use super::{done, role};
use crate::{
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Acl, Object, ObjectId, ObjectKind, PUBLIC, Privileges, Snapshot, schema_of_history};
use tidemark_planner::{
    error::missing_object,
    statement::{Grant, GrantRoles, GrantTarget, RoleName},
};

pub async fn privileges(database: &Arc<Database>, session: &mut Session, grant: &Grant) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    session.refresh(database);
    let mut access = snapshot.access.as_ref().clone();
    let mut to: Vec<ObjectId> = vec![];
    for name in &grant.roles {
        to.push(match name {
            RoleName::Public => PUBLIC,
            name => role::named(session, &access, name)?.id,
        });
    }
    let change = |acl: &mut Acl, privileges: Privileges| {
        for to in &to {
            match grant.is_revoke {
                // An owner has everything.
                false if *to == acl.owner() => {}
                false => acl.grant(*to, privileges),
                true => acl.revoke(*to, privileges),
            }
        }
    };
    match &grant.target {
        GrantTarget::Schemas(names) => {
            for name in names {
                if access.schema(name).is_none() || (snapshot.schema(name).is_none() && name != "history") {
                    return Err(no_schema(name));
                }
                session.rights.check_schema_owner(name)?;
                change(access.schema_mut(name), grant.privileges.unwrap_or(Privileges::OF_SCHEMA));
            }
        }
        objects => {
            for object in targets(&snapshot, objects)? {
                session.rights.check_owner(&object)?;
                change(access.acl_mut(object.id), grant.privileges.unwrap_or(Privileges::OF_RELATION));
                let owner = access.owner(object.id);
                // Drops what says nothing any more.
                if access.acl(object.id).is_some_and(|acl| acl.grants.is_empty()) {
                    access.own(object.id, owner);
                }
            }
        }
    }
    role::commit(database, session, &mut catalog, &snapshot, access).await?;
    done(if grant.is_revoke { "REVOKE" } else { "GRANT" })
}

pub fn no_schema(name: &str) -> PgError {
    let error = PgError::error("3F000", format!("schema \"{name}\" does not exist"));
    match schema_of_history(name) {
        Some(of) => error.hint(format!("history is used by the privileges on schema {of}")),
        None => error.hint(format!("CREATE SCHEMA {name}; \\dn lists what there is")),
    }
}

fn targets(snapshot: &Snapshot, target: &GrantTarget) -> Result<Vec<Arc<Object>>, PgError> {
    match target {
        GrantTarget::Objects(kind, names) => names
            .iter()
            .map(|name| -> Result<Arc<Object>, PgError> {
                match kind {
                    Some(kind) => Ok(find(snapshot, *kind, name)?.clone()),
                    None => Ok(snapshot
                        .get(name)
                        .cloned()
                        .ok_or_else(|| missing_object(snapshot, "relation", name, |_| true))?),
                }
            })
            .collect(),
        GrantTarget::AllIn(kind, schemas) => {
            // History tables have no privileges of their own.
            let is_there = |name: &&String| snapshot.schema(schema_of_history(name).unwrap_or(name)).is_some();
            if let Some(other) = schemas.iter().find(|name| !is_there(name)) {
                return Err(no_schema(other));
            }
            let is_meant = |object: &&Arc<Object>| {
                kind.is_none_or(|kind: ObjectKind| object.kind() == kind) && object.kind() != ObjectKind::Aggregate
            };
            Ok(schemas.iter().flat_map(|name| snapshot.objects_in(name)).filter(is_meant).cloned().collect())
        }
        GrantTarget::Schemas(_) => Ok(vec![]),
    }
}

pub async fn roles(database: &Arc<Database>, session: &mut Session, grant: &GrantRoles) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let mut access = snapshot.access.as_ref().clone();
    let grantor = session.rights.actor.role;
    for name in &grant.roles {
        let of = role::find(&access, name)?.id;
        role::may_admit(session, &access, of)?;
        for member in &grant.members {
            let member = role::named(session, &access, member)?.clone();
            if !grant.is_revoke {
                if !role::add(&mut access, member.id, of, grant.admin, grantor)? {
                    session.notice(format!("role \"{}\" is already a member of role \"{name}\"", member.name));
                }
                continue;
            }
            let mut changed = member.clone();
            match grant.admin {
                true => changed.member_of.iter_mut().filter(|m| m.role == of).for_each(|m| m.admin = false),
                false => changed.member_of.retain(|m| m.role != of),
            }
            if changed == member {
                session.notice(format!("role \"{}\" is not a member of role \"{name}\"", member.name));
            }
            access.put_role(changed);
        }
    }
    role::commit(database, session, &mut catalog, &snapshot, access).await?;
    done(if grant.is_revoke { "REVOKE ROLE" } else { "GRANT ROLE" })
}
