//! What a role may do. Worked out once for each role and generation of the catalog, and then a bit to look at: a lookup takes
//! no lock for it, and what was revoked is gone with the next statement of every open session.

use crate::pg::PgError;
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::{
    Access, Acl, Body, Object, ObjectId, ObjectKind, PUBLIC_SCHEMA, Privileges, Snapshot, role, schema_of_history,
};

/// A role that acts, and those whose privileges it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub role: ObjectId,
    pub is_superuser: bool,
    roles: BTreeSet<ObjectId>,
}

/// By which schema's grants a schema is used: one of history by those of the schema whose history it is. That of `public` has
/// its own.
pub fn granted_by(schema: &str) -> &str {
    match schema_of_history(schema) {
        None | Some(PUBLIC_SCHEMA) => schema,
        Some(of) => of,
    }
}

impl Actor {
    /// A role that is not there any more may do nothing.
    pub fn of(access: &Access, role: ObjectId) -> Actor {
        let is_superuser = access.role(role).is_some_and(|role| role.superuser);
        Actor { role, is_superuser, roles: access.privileges_of(role) }
    }

    /// Whether it is that role, or has its privileges.
    pub fn is(&self, role: ObjectId) -> bool {
        self.is_superuser || self.roles.contains(&role)
    }

    pub fn owns(&self, access: &Access, object: ObjectId) -> bool {
        self.is(access.owner(object))
    }

    /// What it may do with an object; of a view that is read this is not all, see [`Rights::may_read`].
    pub fn on(&self, access: &Access, object: &Object) -> Privileges {
        if self.owns(access, object.id) {
            return Privileges::OF_RELATION;
        }
        let mut all = match self.in_schema(access, object.schema_name()).contains(Privileges::USAGE) {
            true => access.acl(object.id).map_or(Privileges::NONE, |acl| acl.granted(&self.roles)),
            false => Privileges::NONE,
        };
        let is_view = matches!(object.kind(), ObjectKind::FeatureView | ObjectKind::View);
        if self.is(role::READ_ALL_DATA) || (is_view && self.is(role::READER)) {
            all = all | Privileges::SELECT;
        }
        if self.is(role::WRITE_ALL_DATA) {
            all = all | Privileges::INSERT | Privileges::UPDATE | Privileges::DELETE;
        }
        all
    }

    pub fn in_schema(&self, access: &Access, schema: &str) -> Privileges {
        let Some(acl) = access.schema(granted_by(schema)) else {
            return if self.is_superuser { Privileges::OF_SCHEMA } else { Privileges::NONE };
        };
        if self.is(acl.owner()) {
            return Privileges::OF_SCHEMA;
        }
        let sees_all = [role::READ_ALL_DATA, role::WRITE_ALL_DATA, role::READER].iter().any(|role| self.is(*role));
        let usage = if sees_all { Privileges::USAGE } else { Privileges::NONE };
        acl.granted(&self.roles) | usage
    }
}

/// What a role may do with the objects of one catalog.
pub struct Rights {
    pub generation: u64,
    pub actor: Actor,
    /// Of the role, for messages.
    pub name: String,
    /// One bit for each object, by its id: whether it may be read. Empty for a superuser.
    readable: Vec<u64>,
    /// The feature views that are deprecated: hardly ever any.
    deprecated: Vec<ObjectId>,
    snapshot: Arc<Snapshot>,
}

impl Rights {
    pub fn of(snapshot: Arc<Snapshot>, role: ObjectId) -> Rights {
        let actor = Actor::of(&snapshot.access, role);
        let name = snapshot.access.role(role).map_or_else(|| format!("role with OID {role}"), |role| role.name.clone());
        let mut readable = vec![];
        if !actor.is_superuser {
            for object in snapshot.objects().filter(|object| reads(&snapshot, &actor, object, 0).is_ok()) {
                let (word, bit) = place(object.id);
                if readable.len() <= word {
                    readable.resize(word + 1, 0);
                }
                readable[word] |= 1 << bit;
            }
        }
        let is_deprecated = |object: &&Arc<Object>| object.feature_view().is_some_and(|v| v.deprecated().is_some());
        let deprecated = snapshot.objects().filter(is_deprecated).map(|object| object.id).collect();
        Rights { generation: snapshot.generation, actor, name, readable, deprecated, snapshot }
    }

    /// The view's name and what its readers are told, where it is deprecated.
    pub fn deprecated(&self, view: ObjectId) -> Option<(&str, &str)> {
        if !self.deprecated.contains(&view) {
            return None;
        }
        let object = self.snapshot.get_id(view)?;
        Some((&object.name, object.feature_view()?.deprecated()?))
    }

    pub fn access(&self) -> &Access {
        &self.snapshot.access
    }

    /// Whether the rows of this object may be read; of one that is not there only by a superuser.
    pub fn may_read(&self, object: ObjectId) -> bool {
        let (word, bit) = place(object);
        self.actor.is_superuser || self.readable.get(word).is_some_and(|bits| bits >> bit & 1 == 1)
    }

    /// # Errors
    /// 42501: one of these objects may not be read.
    pub fn check_read(&self, objects: &[ObjectId]) -> Result<(), PgError> {
        for id in objects.iter().filter(|id| !self.may_read(**id)) {
            let Some(object) = self.snapshot.get_id(*id) else { continue };
            let error = denied(object).hint(self.grant_hint(Privileges::SELECT, object));
            return Err(match reads(&self.snapshot, &self.actor, object, 0) {
                Err(Some(why)) => error.detail(why),
                _ => error,
            });
        }
        Ok(())
    }

    /// # Errors
    /// 42501: this may not be done with the object.
    pub fn check(&self, privileges: Privileges, object: &Object) -> Result<(), PgError> {
        match self.actor.on(self.access(), object).contains(privileges) {
            true => Ok(()),
            false => Err(denied(object).hint(self.grant_hint(privileges, object))),
        }
    }

    fn grant_hint(&self, privileges: Privileges, object: &Object) -> String {
        format!("its owner or a superuser can GRANT {privileges} ON {} TO {}", object.shown_name(), self.name)
    }

    /// # Errors
    /// 42501: somebody else's object.
    pub fn check_owner(&self, object: &Object) -> Result<(), PgError> {
        if self.actor.owns(self.access(), object.id) {
            return Ok(());
        }
        let owner = self.access().role(self.access().owner(object.id)).map_or("?", |role| role.name.as_str());
        Err(PgError::error("42501", format!("must be owner of {} {}", object.kind(), object.name))
            .hint(format!("it belongs to {owner}; its owner, members of that role and superusers may")))
    }

    /// # Errors
    /// 42501: nothing may be made there.
    pub fn check_create(&self, schema: &str) -> Result<(), PgError> {
        self.check_schema(Privileges::CREATE, schema)
    }

    /// # Errors
    /// 42501: this may not be done with the schema.
    pub fn check_schema(&self, privilege: Privileges, schema: &str) -> Result<(), PgError> {
        match self.actor.in_schema(self.access(), schema).contains(privilege) {
            true => Ok(()),
            false => Err(PgError::error("42501", format!("permission denied for schema {schema}"))
                .hint(format!("its owner or a superuser can GRANT {privilege} ON SCHEMA {schema} TO {}", self.name))),
        }
    }

    /// # Errors
    /// 42501: somebody else's schema.
    pub fn check_schema_owner(&self, schema: &str) -> Result<(), PgError> {
        let owner = self.access().schema(schema).map_or(role::OWNER, Acl::owner);
        match self.actor.is(owner) {
            true => Ok(()),
            false => Err(PgError::error("42501", format!("must be owner of schema {schema}"))
                .hint("its owner, members of that role and superusers may")),
        }
    }

    /// # Errors
    /// 42501: `what` is for superusers and members of a predefined role.
    pub fn check_member(&self, role: ObjectId, what: &str) -> Result<(), PgError> {
        if self.actor.is(role) {
            return Ok(());
        }
        let name = self.access().role(role).map_or("?", |role| role.name.as_str());
        Err(PgError::error("42501", format!("permission denied to {what}"))
            .hint(format!("superusers and members of {name} may: GRANT {name} TO {}", self.name)))
    }

    /// # Errors
    /// 42501: `what` is for superusers.
    pub fn check_superuser(&self, what: &str) -> Result<(), PgError> {
        match self.actor.is_superuser {
            true => Ok(()),
            false => Err(PgError::error("42501", format!("permission denied to {what}")).hint("superusers may")),
        }
    }
}

fn denied(object: &Object) -> PgError {
    PgError::error("42501", format!("permission denied for {} {}", object.kind(), object.name))
}

/// The word and the bit of an object.
fn place(object: ObjectId) -> (usize, u32) {
    let at = object.0.saturating_sub(ObjectId::FIRST.0);
    ((at / 64) as usize, at % 64)
}

/// Views in views; deeper than this none is bound.
const VIEW_DEPTH_MAX: usize = 16;

/// Whether `actor` may read the object: it may SELECT from it, and the owner of a view from what that names. A feature view has
/// its rows itself, as a materialised view in PostgreSQL. An error says why not, where it is not for want of SELECT.
fn reads(snapshot: &Snapshot, actor: &Actor, object: &Object, depth: usize) -> Result<(), Option<String>> {
    let access = &snapshot.access;
    if !actor.on(access, object).contains(Privileges::SELECT) {
        return Err(None);
    }
    if !matches!(object.body, Body::View(_)) {
        return Ok(());
    }
    if depth >= VIEW_DEPTH_MAX {
        return Err(Some("views are nested too deeply".to_string()));
    }
    let owner = Actor::of(access, access.owner(object.id));
    if owner.is_superuser {
        return Ok(());
    }
    for named in named_by(snapshot, object) {
        reads(snapshot, &owner, &named, depth + 1).map_err(|_| {
            let owner = access.role(owner.role).map_or("?", |role| role.name.as_str());
            Some(format!("the owner of view {}, {owner}, may not read {} {}", object.name, named.kind(), named.name))
        })?;
    }
    Ok(())
}

/// The relations that a view names itself: of all that it reads those that no view among them reads.
fn named_by(snapshot: &Snapshot, view: &Object) -> Vec<Arc<Object>> {
    let read: Vec<Arc<Object>> = view.reads().into_iter().filter_map(|id| snapshot.get_id(id).cloned()).collect();
    let inner: BTreeSet<ObjectId> =
        read.iter().filter(|object| object.view().is_some()).flat_map(|object| object.reads()).collect();
    read.into_iter().filter(|o| o.kind() != ObjectKind::Aggregate && !inner.contains(&o.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_catalog::{PUBLIC, Role, View, role::Membership};

    const SOURCE: ObjectId = ObjectId(16400);
    const VIEW: ObjectId = ObjectId(16500);
    const ANN: ObjectId = ObjectId(20000);
    const BEN: ObjectId = ObjectId(20001);

    fn view(id: ObjectId, name: &str, reads: Vec<ObjectId>) -> Object {
        let body = Body::View(View { sql: String::new(), query: String::new(), columns: vec![], reads });
        Object { id, name: name.to_string(), created_us: 0, comment: None, place: Default::default(), body }
    }

    /// `base` is Ann's, and `over` reads it.
    fn snapshot(change: impl FnOnce(&mut Access)) -> Arc<Snapshot> {
        let mut access = Access::default();
        access.put_role(Role::new(ANN, "ann"));
        access.put_role(Role::new(BEN, "ben"));
        change(&mut access);
        Arc::new(Snapshot::new(1, [view(SOURCE, "base", vec![]), view(VIEW, "over", vec![SOURCE])]).with_access(access))
    }

    fn readable(snapshot: &Arc<Snapshot>, role: ObjectId) -> [bool; 2] {
        let rights = Rights::of(snapshot.clone(), role);
        [SOURCE, VIEW].map(|id| rights.may_read(id))
    }

    #[test]
    fn nothing_is_readable_that_was_not_granted_and_all_is_for_a_superuser() {
        let snapshot = snapshot(|_| ());
        assert_eq!(readable(&snapshot, ANN), [false, false]);
        assert_eq!(readable(&snapshot, role::OWNER), [true, true]);
        assert_eq!(readable(&snapshot, ObjectId(30000)), [false, false]);
        let error = Rights::of(snapshot, ANN).check_read(&[VIEW]).unwrap_err();
        assert_eq!((error.sqlstate, error.message.as_str()), ("42501", "permission denied for view over"));
    }

    #[test]
    fn a_view_is_read_with_the_rights_of_its_owner() {
        let granted = snapshot(|access| access.acl_mut(VIEW).grant(BEN, Privileges::SELECT));
        assert_eq!(readable(&granted, BEN), [false, true]);
        // Its owner is no superuser and may not read what is below.
        let below = snapshot(|access| {
            access.own(VIEW, ANN);
            access.acl_mut(VIEW).grant(BEN, Privileges::SELECT);
        });
        assert_eq!(readable(&below, BEN), [false, false]);
        let error = Rights::of(below, BEN).check_read(&[VIEW]).unwrap_err();
        assert_eq!(error.detail.as_deref(), Some("the owner of view over, ann, may not read view base"));
        let both = snapshot(|access| {
            access.own(VIEW, ANN);
            access.acl_mut(VIEW).grant(BEN, Privileges::SELECT);
            access.acl_mut(SOURCE).grant(ANN, Privileges::SELECT);
        });
        assert_eq!(readable(&both, BEN), [false, true]);
        assert_eq!(readable(&both, ANN), [true, true]);
    }

    #[test]
    fn predefined_roles_give_what_they_say_to_their_members() {
        let member = |of: ObjectId| {
            snapshot(move |access| {
                let mut ann = Role::new(ANN, "ann");
                ann.member_of.push(Membership { role: of, admin: false, grantor: role::OWNER });
                access.put_role(ann);
            })
        };
        assert_eq!(readable(&member(role::READER), ANN), [true, true]);
        assert_eq!(readable(&member(role::READ_ALL_DATA), ANN), [true, true]);
        assert_eq!(readable(&member(role::WRITE_ALL_DATA), ANN), [false, false]);
        // To be a member of a superuser is not to be one.
        let rights = Rights::of(member(role::OWNER), ANN);
        assert!(!rights.actor.is_superuser && rights.check_superuser("do it").is_err());
        assert!(Rights::of(member(role::CONNECTOR), ANN).check_member(role::CONNECTOR, "connect").is_ok());
    }

    #[test]
    fn who_may_not_use_the_schema_may_not_use_what_is_in_it() {
        let grant = |access: &mut Access| access.acl_mut(SOURCE).grant(PUBLIC, Privileges::SELECT);
        assert_eq!(readable(&snapshot(grant), ANN), [true, false]);
        let hidden = snapshot(|access| {
            grant(access);
            access.schema_mut(PUBLIC_SCHEMA).revoke(PUBLIC, Privileges::USAGE);
        });
        assert_eq!(readable(&hidden, ANN), [false, false]);
        assert!(Rights::of(hidden, ANN).check_create(PUBLIC_SCHEMA).is_err());
    }
}
