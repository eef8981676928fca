//! What a transaction block has changed of the catalog and what was there before, so that it can be taken back: by ROLLBACK, or by
//! the next start where a crash came before COMMIT. And what nobody else may change meanwhile: else taking back would undo theirs.

use crate::{Access, Acl, Change, Object, ObjectId, ObjectKind, Role, Schema, Secret, Snapshot, secret_named};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A transaction block: the session's number, and which of its blocks it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId {
    pub session: i32,
    pub number: u32,
}

/// One thing as it was before a block changed it; `None`: it was not there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Before {
    Object(ObjectId, Option<Box<Object>>),
    Schema(ObjectId, Option<Schema>),
    Secret(String, Option<Secret>),
    Role(ObjectId, Option<Role>),
    /// What was granted on an object, and whose it is.
    Acl(ObjectId, Option<Acl>),
    SchemaAcl(String, Option<Acl>),
}

/// What a change takes or leans on. Roles come before what is granted to them: taken back in this order, no grant is lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Object(ObjectId),
    /// In a schema; aggregates have names of their own.
    Name(String, bool, String),
    SchemaId(ObjectId),
    Schema(String),
    Secret(String),
    Role(ObjectId),
    Acl(ObjectId),
    SchemaAcl(String),
}

impl Before {
    fn key(&self) -> Key {
        match self {
            Before::Object(id, _) => Key::Object(*id),
            Before::Schema(id, _) => Key::SchemaId(*id),
            Before::Secret(name, _) => Key::Secret(name.clone()),
            Before::Role(id, _) => Key::Role(*id),
            Before::Acl(id, _) => Key::Acl(*id),
            Before::SchemaAcl(name, _) => Key::SchemaAcl(name.clone()),
        }
    }
}

/// What one open block has done.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// In the order in which it was done, each under the number it has in the file.
    pub entries: Vec<(i64, Before)>,
    /// What others may not change until it ends. What it has changed they may not lean on either.
    pub held: Touched,
}

/// What changes take for themselves (`true`), and what they lean on, which has to stay as it is (`false`).
#[derive(Debug, Default)]
pub(crate) struct Touched(BTreeMap<Key, bool>);

impl Touched {
    fn take(&mut self, key: Key) {
        self.0.insert(key, true);
    }

    fn lean_on(&mut self, key: Key) {
        self.0.entry(key).or_insert(false);
    }

    pub fn add(&mut self, other: Touched) {
        for (key, takes) in other.0 {
            *self.0.entry(key).or_default() |= takes;
        }
    }

    /// The first thing that both touch and at least one takes.
    pub fn conflict<'a>(&'a self, held: &Touched) -> Option<&'a Key> {
        let meets = |(key, takes): &(&Key, &bool)| held.0.get(*key).is_some_and(|held| *held || **takes);
        self.0.iter().find(meets).map(|(key, _)| key)
    }
}

/// What differs between two maps: each key, and what it was before.
fn different<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> Vec<(K, Option<V>)> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let differs = |key: &&K| before.get(*key) != after.get(*key);
    keys.into_iter().filter(differs).map(|key| (key.clone(), before.get(key).cloned())).collect()
}

/// What these changes make of `before`, which is `after` then: each thing as it was.
pub(crate) fn entries(before: &Snapshot, after: &Snapshot, changes: &[Change]) -> Vec<Before> {
    let mut entries = vec![];
    for change in changes {
        match change {
            Change::Put(Object { id, .. }) | Change::Drop(id) => {
                let object = before.get_id(*id).map(|object| Box::new(object.as_ref().clone()));
                entries.push(Before::Object(*id, object));
            }
            Change::PutSchema(Schema { id, .. }) | Change::DropSchema(id) => {
                let schema = before.schemas().find(|schema| schema.id == *id).map(|schema| schema.as_ref().clone());
                entries.push(Before::Schema(*id, schema));
            }
            Change::PutSecret(Secret { name, .. }) | Change::DropSecret(name) => {
                let secret = before.secret(name).map(|secret| secret.as_ref().clone());
                entries.push(Before::Secret(name.clone(), secret));
            }
            // Compared as a whole, below.
            Change::Own(..) | Change::Access(_) => {}
        }
    }
    let (was, is): (&Access, &Access) = (before.access.as_ref(), after.access.as_ref());
    entries.extend(different(&was.roles, &is.roles).into_iter().map(|(id, role)| Before::Role(id, role)));
    entries.extend(different(&was.acls, &is.acls).into_iter().map(|(id, acl)| Before::Acl(id, acl)));
    entries.extend(different(&was.schemas, &is.schemas).into_iter().map(|(name, acl)| Before::SchemaAcl(name, acl)));
    entries
}

/// What these changes take and lean on.
pub(crate) fn touched(before: &Snapshot, after: &Snapshot, changes: &[Change]) -> Touched {
    let mut touched = Touched::default();
    let (was, is) = (&before.access, &after.access);
    let of_acl = |acl: &Acl| acl.grants.keys().copied().chain(acl.owner).collect::<Vec<_>>();
    for entry in entries(before, after, changes) {
        // Whose it is, or was and is to be again, and who may use it.
        let mut roles = vec![];
        match &entry {
            Before::Object(id, _) => {
                for object in [before.get_id(*id), after.get_id(*id)].into_iter().flatten() {
                    let schema = object.schema_name().to_string();
                    let is_aggregate = object.kind() == ObjectKind::Aggregate;
                    touched.take(Key::Name(schema.clone(), is_aggregate, object.name.clone()));
                    touched.lean_on(Key::Schema(schema));
                    object.reads().into_iter().for_each(|read| touched.lean_on(Key::Object(read)));
                    let options = object.relation().into_iter().flat_map(|relation| relation.options.values());
                    let secrets = options.filter_map(|value| secret_named(value));
                    secrets.for_each(|secret| touched.lean_on(Key::Secret(secret.to_string())));
                }
            }
            Before::Schema(id, _) => {
                let named = |snapshot: &Snapshot| {
                    snapshot.schemas().find(|schema| schema.id == *id).map(|schema| schema.name.clone())
                };
                let (was, is) = (named(before), named(after));
                if was != is {
                    was.into_iter().chain(is).for_each(|name| touched.take(Key::Schema(name)));
                }
            }
            Before::Acl(id, _) => {
                touched.lean_on(Key::Object(*id));
                roles.extend([was.acl(*id), is.acl(*id)].into_iter().flatten().flat_map(of_acl));
            }
            Before::SchemaAcl(name, _) => {
                touched.lean_on(Key::Schema(name.clone()));
                roles.extend([was.schema(name), is.schema(name)].into_iter().flatten().flat_map(of_acl));
            }
            Before::Secret(name, _) => {
                let secrets = [before.secret(name), after.secret(name)].into_iter().flatten();
                roles.extend(secrets.map(|secret| secret.owner));
            }
            Before::Role(id, _) => {
                let members = [was.role(*id), is.role(*id)].into_iter().flatten();
                roles.extend(members.flat_map(|role| role.member_of.iter().map(|membership| membership.role)));
            }
        }
        roles.into_iter().for_each(|role| touched.lean_on(Key::Role(role)));
        touched.take(entry.key());
    }
    touched
}

/// The changes that bring back what these entries, of first to last, say was there. Everything goes before anything comes: names
/// may have been swapped.
pub(crate) fn undo<'a>(now: &Snapshot, entries: impl IntoIterator<Item = &'a Before>) -> Vec<Change> {
    let mut first: BTreeMap<Key, &Before> = BTreeMap::new();
    for entry in entries {
        first.entry(entry.key()).or_insert(entry);
    }
    let (mut going, mut coming) = (vec![], vec![]);
    let mut access = now.access.as_ref().clone();
    for entry in first.into_values() {
        match entry {
            Before::Object(id, object) => {
                going.push(Change::Drop(*id));
                coming.extend(object.iter().map(|object| Change::Put(object.as_ref().clone())));
            }
            Before::Schema(id, schema) => {
                going.push(Change::DropSchema(*id));
                coming.extend(schema.iter().map(|schema| Change::PutSchema(schema.clone())));
            }
            Before::Secret(name, secret) => {
                going.push(Change::DropSecret(name.clone()));
                coming.extend(secret.iter().map(|secret| Change::PutSecret(secret.clone())));
            }
            Before::Role(_, Some(role)) => access.put_role(role.clone()),
            Before::Role(id, None) => access.drop_role(*id),
            Before::Acl(id, Some(acl)) => *access.acl_mut(*id) = acl.clone(),
            Before::Acl(id, None) => access.forget(*id),
            Before::SchemaAcl(name, Some(acl)) => *access.schema_mut(name) = acl.clone(),
            Before::SchemaAcl(name, None) => access.forget_schema(name),
        }
    }
    // Last: dropping an object forgets what was granted on it.
    coming.push(Change::Access(access));
    going.extend(coming);
    going
}

/// The objects that are nowhere in `now` and that these entries, of first to last, have seen: as they were last.
pub(crate) fn dropped<'a>(now: &Snapshot, entries: impl IntoIterator<Item = &'a Before>) -> Vec<Object> {
    let mut last: BTreeMap<ObjectId, &Object> = BTreeMap::new();
    for entry in entries {
        if let Before::Object(id, Some(object)) = entry
            && now.get_id(*id).is_none()
        {
            last.insert(*id, object);
        }
    }
    last.into_values().cloned().collect()
}

/// What a person calls it.
pub(crate) fn shown(key: &Key, before: &Snapshot, after: &Snapshot) -> String {
    let object = |id: &ObjectId| match before.get_id(*id).or_else(|| after.get_id(*id)) {
        Some(object) => format!("{} \"{}\"", object.kind(), object.shown_name()),
        None => "something that it reads".to_string(),
    };
    match key {
        Key::Object(id) => object(id),
        Key::Acl(id) => format!("who may use {}", object(id)),
        Key::Name(_, _, name) => format!("the name \"{name}\""),
        Key::Schema(name) => format!("schema \"{name}\""),
        Key::SchemaAcl(name) => format!("who may use schema \"{name}\""),
        Key::SchemaId(id) => match before.schemas().chain(after.schemas()).find(|schema| schema.id == *id) {
            Some(schema) => format!("schema \"{}\"", schema.name),
            None => "a schema".to_string(),
        },
        Key::Secret(name) => format!("secret \"{name}\""),
        Key::Role(id) => match before.access.role(*id).or_else(|| after.access.role(*id)) {
            Some(role) => format!("role \"{}\"", role.name),
            None => "a role".to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, PUBLIC, Place, Privileges, Relation, View, role};

    fn table(id: u32, name: &str) -> Object {
        let body = Body::Table(Relation::plain(vec![], String::new()));
        Object { id: ObjectId(id), name: name.to_string(), created_us: 0, comment: None, place: Place::default(), body }
    }

    fn view(id: u32, name: &str, reads: &[u32]) -> Object {
        let reads = reads.iter().map(|id| ObjectId(*id)).collect();
        let body = Body::View(View { sql: String::new(), query: String::new(), columns: vec![], reads });
        Object { body, ..table(id, name) }
    }

    fn schema(id: u32, name: &str) -> Schema {
        Schema { id: ObjectId(id), name: name.to_string(), created_us: 0, comment: None }
    }

    /// All that a snapshot has, but its generation.
    fn content(snapshot: &Snapshot) -> (Vec<Object>, Vec<Schema>, Vec<Secret>, Access) {
        (
            snapshot.objects().map(|object| object.as_ref().clone()).collect(),
            snapshot.schemas().map(|schema| schema.as_ref().clone()).collect(),
            snapshot.secrets().map(|secret| secret.as_ref().clone()).collect(),
            snapshot.access.as_ref().clone(),
        )
    }

    fn secret(name: &str, value: &str) -> Secret {
        let (name, value) = (name.to_string(), value.to_string());
        Secret { id: ObjectId(30), name, owner: role::OWNER, created_us: 0, value }
    }

    fn granted(snapshot: &Snapshot, id: u32) -> Change {
        let mut access = snapshot.access.as_ref().clone();
        access.acl_mut(ObjectId(id)).grant(PUBLIC, Privileges::SELECT);
        access.put_role(Role::new(ObjectId(40), "ann"));
        Change::Access(access)
    }

    /// Two tables, a view over the first, a schema, a secret; the second table may be read by everybody.
    fn before() -> Snapshot {
        let start = Snapshot::new(1, [table(1, "a"), table(2, "b"), view(3, "v", &[1])]);
        let start = start.with_schemas([schema(10, "marts")]).with_secrets([secret("s", "one")]);
        let grant = granted(&start, 2);
        start.apply(&[grant])
    }

    #[test]
    fn what_is_taken_back_is_as_it_was_whatever_was_done() {
        let before = before();
        let steps: Vec<Vec<Change>> = vec![
            // A swap, and one that goes.
            vec![Change::Put(table(1, "a__old"))],
            vec![Change::Put(table(2, "a"))],
            vec![Change::Drop(ObjectId(3))],
            vec![Change::Put(view(4, "v", &[2])), Change::Own(ObjectId(4), ObjectId(40))],
            vec![Change::Drop(ObjectId(2))],
            vec![Change::DropSchema(ObjectId(10)), Change::PutSchema(schema(11, "marts"))],
            vec![Change::PutSecret(secret("s", "two")), Change::PutSecret(secret("t", "three"))],
            vec![Change::DropSecret("s".to_string())],
            vec![granted(&before, 1)],
        ];
        let (mut now, mut journal) = (before.clone(), vec![]);
        for (done, changes) in steps.iter().enumerate() {
            let next = now.apply(changes);
            journal.extend(entries(&now, &next, changes));
            now = next;
            let back = now.apply(&undo(&now, &journal));
            assert_eq!(content(&back), content(&before), "after step {done}");
            for object in before.objects() {
                assert_eq!(back.get(&object.full_name()).map(|found| found.id), Some(object.id), "after step {done}");
            }
            let text = serde_json::to_string(&journal).unwrap();
            assert_eq!(serde_json::from_str::<Vec<Before>>(&text).unwrap(), journal);
        }
        let gone: Vec<u32> = dropped(&now, &journal).iter().map(|object| object.id.0).collect();
        assert_eq!(gone, [2, 3]);
    }

    #[test]
    fn what_others_do_at_the_same_time_stays_when_a_block_is_taken_back() {
        let before = before();
        let mine = [Change::Put(table(1, "c"))];
        let after = before.apply(&mine);
        let journal = entries(&before, &after, &mine);
        let theirs = [Change::Put(table(5, "e")), Change::Drop(ObjectId(2)), granted(&after, 3)];
        let now = after.apply(&theirs);
        assert!(touched(&after, &now, &theirs).conflict(&touched(&before, &after, &mine)).is_none());
        let back = now.apply(&undo(&now, &journal));
        assert_eq!(content(&back), content(&before.apply(&theirs)));
    }

    #[test]
    fn nobody_changes_or_leans_on_what_a_block_has_changed_nor_takes_what_it_leans_on() {
        let before = before();
        let held = |changes: &[Change]| touched(&before, &before.apply(changes), changes);
        let conflict = |mine: &[Change], theirs: &[Change]| {
            let (mine, theirs) = (held(mine), held(theirs));
            assert_eq!(mine.conflict(&theirs).is_some(), theirs.conflict(&mine).is_some());
            theirs.conflict(&mine).is_some()
        };
        let renamed = [Change::Put(table(1, "c"))];
        // The object itself, its new name, the one it had, and what would read it.
        assert!(conflict(&renamed, &[Change::Drop(ObjectId(1))]));
        assert!(conflict(&renamed, &[Change::Put(table(7, "c"))]));
        assert!(conflict(&renamed, &[Change::Put(table(7, "a"))]));
        assert!(conflict(&renamed, &[Change::Put(view(7, "w", &[1]))]));
        assert!(!conflict(&renamed, &[Change::Put(view(7, "w", &[2]))]));
        // A view that was made or dropped needs what it reads; others may read that too.
        let made = [Change::Put(view(7, "w", &[2]))];
        assert!(conflict(&made, &[Change::Drop(ObjectId(2))]));
        assert!(!conflict(&made, &[Change::Put(view(8, "x", &[2]))]));
        assert!(conflict(&[Change::Drop(ObjectId(3))], &[Change::Put(table(1, "c"))]));
        // Schemas and what is in them.
        let place = Place::of("marts");
        let inside = [Change::Put(Object { place, ..table(9, "t") })];
        assert!(conflict(&[Change::DropSchema(ObjectId(10))], &inside));
        let commented = Schema { comment: Some("x".to_string()), ..schema(10, "marts") };
        assert!(!conflict(&[Change::PutSchema(commented)], &inside));
        assert!(conflict(&[Change::PutSchema(schema(12, "lake"))], &[Change::PutSchema(schema(13, "lake"))]));
        // Whoever owns what may come back.
        let owned = before.apply(&[Change::Own(ObjectId(2), ObjectId(40))]);
        let mine = [Change::Drop(ObjectId(2))];
        let without = owned.apply(&mine);
        let mut access = without.access.as_ref().clone();
        access.drop_role(ObjectId(40));
        let theirs = [Change::Access(access)];
        let held = touched(&owned, &without, &mine);
        assert!(touched(&without, &without.apply(&theirs), &theirs).conflict(&held).is_some());
        // Secrets, and grants.
        assert!(conflict(&[Change::PutSecret(secret("s", "2"))], &[Change::DropSecret("s".to_string())]));
        assert!(conflict(&[granted(&before, 1)], &[Change::Drop(ObjectId(1))]));
        assert!(!conflict(&[Change::Put(table(7, "x"))], &[Change::Put(table(8, "y"))]));
    }
}
