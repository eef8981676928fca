//! One immutable picture of the catalog. Planning works on a snapshot and nothing else, so it is pure.

use crate::{Access, FeatureView, Object, ObjectId, ObjectKind, Relation, Secret, secret_named};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows by one with every commit; cached plans carry the generation they were made from.
    pub generation: u64,
    by_id: BTreeMap<ObjectId, Arc<Object>>,
    /// Relations: sources, tables and views.
    by_name: BTreeMap<String, ObjectId>,
    /// Names of their own, as in PostgreSQL: a relation may be called the same.
    aggregates: BTreeMap<String, ObjectId>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// By name.
    secrets: BTreeMap<String, Arc<Secret>>,
    /// Of the session that has this picture.
    temporary: BTreeSet<ObjectId>,
}

/// One step of a commit.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a handful per statement, never stored
pub enum Change {
    /// Adds the object, or replaces the one with its id (also under a new name).
    Put(Object),
    Drop(ObjectId),
    /// Gives an object to a role.
    Own(ObjectId, ObjectId),
    /// Roles, owners and grants, as a whole.
    Access(Access),
    /// Adds the secret, or replaces the one of its name.
    PutSecret(Secret),
    DropSecret(String),
}

/// A relation's options name a secret that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret \"{0}\" does not exist")]
pub struct NoSecret(pub String);

impl Snapshot {
    pub fn new(generation: u64, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut snapshot = Snapshot { generation, ..Default::default() };
        for object in objects {
            snapshot.put(object);
        }
        snapshot
    }

    /// The same with these roles and grants.
    pub fn with_access(mut self, access: Access) -> Snapshot {
        self.access = Arc::new(access);
        self
    }

    pub(crate) fn with_secrets(mut self, secrets: impl IntoIterator<Item = Secret>) -> Snapshot {
        self.secrets = secrets.into_iter().map(|secret| (secret.name.clone(), Arc::new(secret))).collect();
        self
    }

    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// By name.
    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// The relation as a connector needs it: options that name a secret have its value.
    ///
    /// # Errors
    /// There is no such secret.
    pub fn resolved(&self, relation: &Relation) -> Result<Relation, NoSecret> {
        let mut resolved = relation.clone();
        for value in resolved.options.values_mut() {
            if let Some(name) = secret_named(value) {
                let secret = self.secret(name).ok_or_else(|| NoSecret(name.to_string()))?;
                *value = secret.value.clone();
            }
        }
        Ok(resolved)
    }

    /// The objects whose options name this secret.
    pub fn users_of_secret(&self, name: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.objects().filter(move |object| {
            let options = object.relation().map(|relation| &relation.options);
            options.is_some_and(|options| options.values().any(|value| secret_named(value) == Some(name)))
        })
    }

    fn put(&mut self, object: Object) {
        self.names(object.kind()).insert(object.name.clone(), object.id);
        self.by_id.insert(object.id, Arc::new(object));
    }

    fn names(&mut self, kind: ObjectKind) -> &mut BTreeMap<String, ObjectId> {
        match kind {
            ObjectKind::Aggregate => &mut self.aggregates,
            _ => &mut self.by_name,
        }
    }

    /// The relation of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Object>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    pub fn aggregate(&self, name: &str) -> Option<&Arc<Object>> {
        self.by_id.get(self.aggregates.get(name)?)
    }

    pub fn get_id(&self, id: ObjectId) -> Option<&Arc<Object>> {
        self.by_id.get(&id)
    }

    /// All relations, by name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.by_name.values().filter_map(|id| self.by_id.get(id))
    }

    /// The user's aggregates, by name.
    pub fn aggregates(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.aggregates.values().filter_map(|id| self.by_id.get(id))
    }

    /// What is kept in logs of the engine's: sources, tables, and the rows of training sets.
    pub fn logs(&self) -> impl Iterator<Item = Object> {
        self.objects().filter_map(|object| match object.relation() {
            Some(relation) => relation.files().is_none().then(|| object.as_ref().clone()),
            None => object.rows(),
        })
    }

    /// The objects that read or call `id` directly.
    pub fn readers(&self, id: ObjectId) -> impl Iterator<Item = &Arc<Object>> {
        self.objects().chain(self.aggregates()).filter(move |o| o.reads().contains(&id))
    }

    /// The names of what a feature view reads, as a person lists them.
    pub fn relation_names(&self, view: &FeatureView) -> String {
        let names: Vec<&str> = view.relations().filter_map(|id| Some(self.get_id(id)?.name.as_str())).collect();
        names.join(", ")
    }

    /// The same with temporary tables, whose names nothing else has, and who they belong to.
    pub fn with_temporary(&self, tables: impl IntoIterator<Item = (Arc<Object>, ObjectId)>) -> Snapshot {
        let mut shown = self.clone();
        for (object, owner) in tables {
            Arc::make_mut(&mut shown.access).own(object.id, owner);
            shown.temporary.insert(object.id);
            shown.by_name.insert(object.name.clone(), object.id);
            shown.by_id.insert(object.id, object);
        }
        shown
    }

    pub fn is_temporary(&self, id: ObjectId) -> bool {
        self.temporary.contains(&id)
    }

    /// The snapshot after `changes`, one generation on.
    pub fn apply(&self, changes: &[Change]) -> Snapshot {
        let mut next = self.clone();
        next.generation += 1;
        for change in changes {
            let id = match change {
                Change::Put(object) => object.id,
                Change::Drop(id) => *id,
                Change::Own(id, owner) => {
                    Arc::make_mut(&mut next.access).own(*id, *owner);
                    continue;
                }
                Change::Access(access) => {
                    next.access = Arc::new(access.clone());
                    continue;
                }
                Change::PutSecret(secret) => {
                    next.secrets.insert(secret.name.clone(), Arc::new(secret.clone()));
                    continue;
                }
                Change::DropSecret(name) => {
                    next.secrets.remove(name);
                    continue;
                }
            };
            if matches!(change, Change::Drop(_)) && next.access.knows(id) {
                Arc::make_mut(&mut next.access).forget(id);
            }
            if let Some(old) = next.by_id.remove(&id) {
                next.names(old.kind()).remove(&old.name);
            }
            if let Change::Put(object) = change {
                next.put(object.clone());
            }
        }
        next
    }
}
