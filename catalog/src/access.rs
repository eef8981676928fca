//! Who may do what: roles, the owners of objects, and what was granted. Beside the objects and not in them, because
//! nothing that plans or computes asks for it, and because it goes to serving nodes as a whole.

use crate::{
    ObjectId,
    role::{self, Membership, Role},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{BitAnd, BitOr},
};

/// A set of privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Privileges(u16);

impl Privileges {
    pub const NONE: Privileges = Privileges(0);
    pub const SELECT: Privileges = Privileges(1);
    pub const INSERT: Privileges = Privileges(1 << 1);
    pub const UPDATE: Privileges = Privileges(1 << 2);
    pub const DELETE: Privileges = Privileges(1 << 3);
    pub const TRUNCATE: Privileges = Privileges(1 << 4);
    pub const USAGE: Privileges = Privileges(1 << 5);
    pub const CREATE: Privileges = Privileges(1 << 6);
    /// What `ALL` means on a relation.
    pub const OF_RELATION: Privileges = Privileges(0b11111);
    /// What `ALL` means on a schema.
    pub const OF_SCHEMA: Privileges = Privileges(0b110_0000);

    /// Each by itself, with its name and the letter that PostgreSQL shows it by.
    pub const EACH: [(Privileges, &'static str, char); 7] = [
        (Privileges::SELECT, "SELECT", 'r'),
        (Privileges::INSERT, "INSERT", 'a'),
        (Privileges::UPDATE, "UPDATE", 'w'),
        (Privileges::DELETE, "DELETE", 'd'),
        (Privileges::TRUNCATE, "TRUNCATE", 'D'),
        (Privileges::USAGE, "USAGE", 'U'),
        (Privileges::CREATE, "CREATE", 'C'),
    ];

    /// By its name, in any case.
    pub fn named(name: &str) -> Option<Privileges> {
        Privileges::EACH.iter().find(|(_, known, _)| known.eq_ignore_ascii_case(name)).map(|(privilege, ..)| *privilege)
    }

    pub fn contains(self, other: Privileges) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn without(self, other: Privileges) -> Privileges {
        Privileges(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn each(self) -> impl Iterator<Item = (&'static str, char)> {
        Privileges::EACH.into_iter().filter(move |(p, ..)| self.contains(*p)).map(|(_, name, letter)| (name, letter))
    }
}

impl BitOr for Privileges {
    type Output = Privileges;

    fn bitor(self, other: Privileges) -> Privileges {
        Privileges(self.0 | other.0)
    }
}

impl BitAnd for Privileges {
    type Output = Privileges;

    fn bitand(self, other: Privileges) -> Privileges {
        Privileges(self.0 & other.0)
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.each().map(|(name, _)| name).collect();
        f.write_str(&names.join(", "))
    }
}

/// The grantee that everybody is.
pub const PUBLIC: ObjectId = ObjectId(0);

/// What was granted on one thing, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acl {
    /// `None`: [`role::OWNER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ObjectId>,
    /// By grantee, or [`PUBLIC`].
    #[serde(default)]
    pub grants: BTreeMap<ObjectId, Privileges>,
}

impl Acl {
    pub fn owner(&self) -> ObjectId {
        self.owner.unwrap_or(role::OWNER)
    }

    /// What these roles were granted, and everybody was.
    pub fn granted(&self, roles: &BTreeSet<ObjectId>) -> Privileges {
        let to = |(grantee, _): &(&ObjectId, &Privileges)| **grantee == PUBLIC || roles.contains(grantee);
        self.grants.iter().filter(to).fold(Privileges::NONE, |all, (_, privileges)| all | *privileges)
    }

    pub fn grant(&mut self, to: ObjectId, privileges: Privileges) {
        let granted = self.grants.entry(to).or_default();
        *granted = *granted | privileges;
    }

    pub fn revoke(&mut self, from: ObjectId, privileges: Privileges) {
        if let Some(granted) = self.grants.get_mut(&from) {
            *granted = granted.without(privileges);
            if granted.is_empty() {
                self.grants.remove(&from);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    pub(crate) roles: BTreeMap<ObjectId, Role>,
    /// Of objects with an owner other than [`role::OWNER`], or with grants.
    pub(crate) acls: BTreeMap<ObjectId, Acl>,
    /// By the schema's name.
    pub(crate) schemas: BTreeMap<String, Acl>,
    /// What salts of roles that are not there are made of, so that they are the same after a restart, as others' are.
    pub mock: u64,
}

impl Default for Access {
    /// The predefined roles; everybody may look into the schemas, and only superusers make something in them.
    fn default() -> Access {
        let usage = || Acl { owner: None, grants: BTreeMap::from([(PUBLIC, Privileges::USAGE)]) };
        Access {
            roles: role::predefined().map(|role| (role.id, role)).collect(),
            acls: BTreeMap::new(),
            schemas: ["public", "history"].map(|schema| (schema.to_string(), usage())).into(),
            mock: 0,
        }
    }
}

impl Access {
    /// Adds predefined roles that a catalog of an earlier version does not have.
    pub fn completed(mut self) -> Access {
        for role in role::predefined() {
            self.roles.entry(role.id).or_insert(role);
        }
        self
    }

    pub fn role(&self, id: ObjectId) -> Option<&Role> {
        self.roles.get(&id)
    }

    pub fn role_named(&self, name: &str) -> Option<&Role> {
        self.roles.values().find(|role| role.name == name)
    }

    /// By id.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    pub fn put_role(&mut self, role: Role) {
        self.roles.insert(role.id, role);
    }

    /// Forgets the role, its memberships and what it was granted. What it owns is to be another's before.
    pub fn drop_role(&mut self, id: ObjectId) {
        self.roles.remove(&id);
        for role in self.roles.values_mut() {
            role.member_of.retain(|membership| membership.role != id);
        }
        for acl in self.acls.values_mut().chain(self.schemas.values_mut()) {
            acl.grants.remove(&id);
        }
        self.acls.retain(|_, acl| *acl != Acl::default());
    }

    /// As soon as one role has a password, nobody gets in without one (where no rules say otherwise).
    pub fn has_password(&self) -> bool {
        self.roles.values().any(|role| role.verifier.is_some())
    }

    /// Whether somebody could log in by a password who may do everything.
    pub fn has_superuser_with_password(&self) -> bool {
        self.roles.values().any(|role| role.superuser && role.login && role.verifier.is_some())
    }

    /// The role, and all that it has the privileges of: those of which it is a member, by way of roles that inherit.
    pub fn privileges_of(&self, role: ObjectId) -> BTreeSet<ObjectId> {
        self.reached(role, |role| role.inherit)
    }

    /// The role, and all that it can become by `SET ROLE`.
    pub fn memberships(&self, role: ObjectId) -> BTreeSet<ObjectId> {
        self.reached(role, |_| true)
    }

    fn reached(&self, from: ObjectId, through: impl Fn(&Role) -> bool) -> BTreeSet<ObjectId> {
        let mut reached = BTreeSet::from([from]);
        let mut waiting = vec![from];
        while let Some(role) = waiting.pop().and_then(|id| self.role(id)) {
            if through(role) {
                waiting.extend(role.member_of.iter().map(|m| m.role).filter(|id| reached.insert(*id)));
            }
        }
        reached
    }

    /// Of whom this role is a member, directly.
    pub fn membership(&self, member: ObjectId, of: ObjectId) -> Option<&Membership> {
        self.role(member)?.member_of.iter().find(|membership| membership.role == of)
    }

    pub fn acl(&self, object: ObjectId) -> Option<&Acl> {
        self.acls.get(&object)
    }

    pub fn owner(&self, object: ObjectId) -> ObjectId {
        self.acl(object).map_or(role::OWNER, Acl::owner)
    }

    pub fn schema(&self, name: &str) -> Option<&Acl> {
        self.schemas.get(name)
    }

    /// What was granted on an object, to be changed.
    pub fn acl_mut(&mut self, object: ObjectId) -> &mut Acl {
        self.acls.entry(object).or_default()
    }

    pub fn schema_mut(&mut self, name: &str) -> &mut Acl {
        self.schemas.entry(name.to_string()).or_default()
    }

    /// A new schema is this role's, and nobody else's.
    pub fn add_schema(&mut self, name: &str, owner: ObjectId) {
        self.schemas.insert(name.to_string(), Acl::default());
        self.own_schema(name, owner);
    }

    pub fn forget_schema(&mut self, name: &str) {
        self.schemas.remove(name);
    }

    pub fn rename_schema(&mut self, from: &str, to: &str) {
        if let Some(acl) = self.schemas.remove(from) {
            self.schemas.insert(to.to_string(), acl);
        }
    }

    /// Gives the schema to the role.
    pub fn own_schema(&mut self, name: &str, owner: ObjectId) {
        let acl = self.schema_mut(name);
        acl.owner = (owner != role::OWNER).then_some(owner);
        acl.grants.remove(&owner);
    }

    /// The schemas that this role owns.
    pub fn schemas_owned_by(&self, role: ObjectId) -> impl Iterator<Item = &str> {
        self.schemas.iter().filter(move |(_, acl)| acl.owner() == role).map(|(name, _)| name.as_str())
    }

    /// The object is gone.
    pub fn forget(&mut self, object: ObjectId) {
        self.acls.remove(&object);
    }

    /// Whether anything is known of the object, so that there is something to forget.
    pub fn knows(&self, object: ObjectId) -> bool {
        self.acls.contains_key(&object)
    }

    /// What this role owns.
    pub fn owned_by(&self, role: ObjectId) -> impl Iterator<Item = ObjectId> {
        self.acls.iter().filter(move |(_, acl)| acl.owner() == role).map(|(object, _)| *object)
    }

    /// Gives the object to the role.
    pub fn own(&mut self, object: ObjectId, owner: ObjectId) {
        let acl = self.acl_mut(object);
        acl.owner = (owner != role::OWNER).then_some(owner);
        // An owner has everything: what was granted to him says nothing.
        acl.grants.remove(&owner);
        if *acl == Acl::default() {
            self.forget(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(roles: &[(u32, &str, bool, &[u32])]) -> Access {
        let mut access = Access::default();
        for (id, name, inherit, of) in roles {
            let member = |id: &u32| Membership { role: ObjectId(*id), admin: false, grantor: role::OWNER };
            let member_of = of.iter().map(member).collect();
            access.put_role(Role { inherit: *inherit, member_of, ..Role::new(ObjectId(*id), *name) });
        }
        access
    }

    #[test]
    fn a_role_has_what_those_have_that_it_is_a_member_of_by_way_of_roles_that_inherit() {
        let access = with(&[(20000, "a", true, &[20001]), (20001, "b", false, &[20002]), (20002, "c", true, &[20000])]);
        let ids = |ids: &[u32]| ids.iter().map(|id| ObjectId(*id)).collect::<BTreeSet<_>>();
        assert_eq!(access.privileges_of(ObjectId(20000)), ids(&[20000, 20001]));
        assert_eq!(access.memberships(ObjectId(20000)), ids(&[20000, 20001, 20002]));
        // A circle ends.
        assert_eq!(access.privileges_of(ObjectId(20002)), ids(&[20000, 20001, 20002]));
    }

    #[test]
    fn what_is_revoked_is_not_granted_any_more_and_a_dropped_role_leaves_nothing() {
        let mut access = with(&[(20000, "a", true, &[]), (20001, "b", true, &[20000])]);
        let (object, a, b) = (ObjectId(17000), ObjectId(20000), ObjectId(20001));
        access.acl_mut(object).grant(a, Privileges::SELECT | Privileges::INSERT);
        access.acl_mut(object).grant(PUBLIC, Privileges::UPDATE);
        let granted = |access: &Access, role| access.acl(object).unwrap().granted(&access.privileges_of(role));
        assert_eq!(granted(&access, b), Privileges::SELECT | Privileges::INSERT | Privileges::UPDATE);
        access.acl_mut(object).revoke(a, Privileges::INSERT);
        assert_eq!(granted(&access, b).to_string(), "SELECT, UPDATE");
        access.drop_role(a);
        assert_eq!(granted(&access, b), Privileges::UPDATE);
        assert!(access.role(b).unwrap().member_of.is_empty());
    }

    #[test]
    fn an_object_of_the_first_superusers_without_grants_is_not_kept() {
        let mut access = with(&[(20000, "a", true, &[])]);
        let object = ObjectId(17000);
        access.own(object, ObjectId(20000));
        assert_eq!(access.owner(object), ObjectId(20000));
        access.own(object, role::OWNER);
        assert!(!access.knows(object));
        assert_eq!(access.owner(object), role::OWNER);
    }

    #[test]
    fn it_comes_back_from_json_as_it_was_and_an_empty_one_is_the_default() {
        let mut access = with(&[(20000, "a", true, &[])]);
        access.acl_mut(ObjectId(17000)).grant(ObjectId(20000), Privileges::SELECT);
        let text = serde_json::to_string(&access).unwrap();
        assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
        assert_eq!(serde_json::from_str::<Access>("{}").unwrap(), Access::default());
        assert!(!format!("{access:?}").contains("SCRAM"));
    }
}
