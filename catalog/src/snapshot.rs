//! One immutable picture of the catalog. Planning works on a snapshot and nothing else, so it is pure.

use crate::{FeatureView, Object, ObjectId, ObjectKind};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows by one with every commit; cached plans carry the generation they were made from.
    pub generation: u64,
    by_id: BTreeMap<ObjectId, Arc<Object>>,
    /// Relations: sources, tables and views.
    by_name: BTreeMap<String, ObjectId>,
    /// Names of their own, as in PostgreSQL: a relation may be called the same.
    aggregates: BTreeMap<String, ObjectId>,
}

/// One step of a commit.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a handful per statement, never stored
pub enum Change {
    /// Adds the object, or replaces the one with its id (also under a new name).
    Put(Object),
    Drop(ObjectId),
}

impl Snapshot {
    pub fn new(generation: u64, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut snapshot = Snapshot { generation, ..Default::default() };
        for object in objects {
            snapshot.put(object);
        }
        snapshot
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

    /// The objects that read or call `id` directly.
    pub fn readers(&self, id: ObjectId) -> impl Iterator<Item = &Arc<Object>> {
        self.objects().chain(self.aggregates()).filter(move |o| o.reads().contains(&id))
    }

    /// The names of what a feature view reads, as a person lists them.
    pub fn relation_names(&self, view: &FeatureView) -> String {
        let names: Vec<&str> = view.relations().filter_map(|id| Some(self.get_id(id)?.name.as_str())).collect();
        names.join(", ")
    }

    /// The snapshot after `changes`, one generation on.
    pub fn apply(&self, changes: &[Change]) -> Snapshot {
        let mut next = self.clone();
        next.generation += 1;
        for change in changes {
            let id = match change {
                Change::Put(object) => object.id,
                Change::Drop(id) => *id,
            };
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
