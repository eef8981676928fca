//! One immutable picture of the catalog. Planning works on a snapshot and nothing else, so it is pure.

use crate::{
    Access, FeatureView, NameRef, NoPlace, Object, ObjectId, ObjectKind, PUBLIC_SCHEMA, Relation, Schema, SearchPath,
    Secret, TEMPORARY_SCHEMA, is_read_only, looked_for, schema_of_history, secret_named,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Cheap to clone: whoever looks by another search path has a clone of it ([`Snapshot::on`]).
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Grows by one with every commit; cached plans carry the generation they were made from.
    pub generation: u64,
    by_id: Arc<BTreeMap<ObjectId, Arc<Object>>>,
    /// By schema.
    names: Arc<BTreeMap<String, Names>>,
    /// By name; `public` is always there.
    schemas: Arc<BTreeMap<String, Arc<Schema>>>,
    /// Where names without a schema are looked for.
    path: Arc<SearchPath>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// By name.
    secrets: Arc<BTreeMap<String, Arc<Secret>>>,
    /// Of the session that has this picture.
    temporary: Arc<BTreeSet<ObjectId>>,
    /// Schemas that whoever has this picture may not use.
    closed: Arc<BTreeSet<String>>,
    /// Whether the server has a table of its own in that schema under that name, which is no object.
    is_system: IsSystem,
}

/// Of a schema and a name: whether that is a table of the server's own.
pub type IsSystem = fn(&str, &str) -> bool;

/// Where nobody has said which tables the server has.
fn nothing(_schema: &str, _name: &str) -> bool {
    false
}

/// What a schema has, by name.
#[derive(Debug, Clone, Default)]
struct Names {
    /// Sources, tables, training sets and views.
    relations: BTreeMap<String, ObjectId>,
    /// Names of their own, as in PostgreSQL: a relation may be called the same.
    aggregates: BTreeMap<String, ObjectId>,
}

impl Names {
    fn of(&mut self, kind: ObjectKind) -> &mut BTreeMap<String, ObjectId> {
        match kind {
            ObjectKind::Aggregate => &mut self.aggregates,
            _ => &mut self.relations,
        }
    }
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot {
            generation: 0,
            by_id: Arc::default(),
            names: Arc::default(),
            schemas: Arc::new(BTreeMap::from([(PUBLIC_SCHEMA.to_string(), Arc::new(Schema::public()))])),
            path: Arc::default(),
            access: Arc::default(),
            secrets: Arc::default(),
            temporary: Arc::default(),
            closed: Arc::default(),
            is_system: nothing,
        }
    }
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
    /// Adds the schema, or replaces the one with its id (also under a new name). What is in it is put there by itself.
    PutSchema(Schema),
    /// Nothing is in it any more.
    DropSchema(ObjectId),
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
        let mut snapshot = Snapshot { generation, ..Snapshot::default() };
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

    /// The same with these schemas.
    pub fn with_schemas(mut self, schemas: impl IntoIterator<Item = Schema>) -> Snapshot {
        for schema in schemas {
            self.put_schema(schema);
        }
        self
    }

    /// The same beside these tables of the server's own: a name without a schema means them where they come first, and is then
    /// no object's.
    pub fn with_system(mut self, is_system: IsSystem) -> Snapshot {
        self.is_system = is_system;
        self
    }

    /// Whether the name means a table of the server's own.
    pub fn is_system<'n>(&self, name: impl Into<NameRef<'n>>) -> bool {
        let NameRef { schema, name } = name.into();
        match (schema, self.path.as_ref()) {
            (Some(schema), _) => (self.is_system)(schema, name),
            (None, SearchPath::Definition(place)) => {
                place.relations.0.get(name).is_some_and(|schema| (self.is_system)(schema, name))
            }
            (None, SearchPath::Schemas(path)) => {
                self.get(name).is_none() && looked_for(path).any(|schema| (self.is_system)(schema, name))
            }
        }
    }

    /// The same catalog, with names looked for along another path.
    pub fn on(&self, path: Arc<SearchPath>) -> Snapshot {
        Snapshot { path, ..self.clone() }
    }

    /// The same for somebody who may not use these schemas: what is in them can be named as before, and is not suggested.
    pub fn without_use_of(&self, closed: BTreeSet<String>) -> Snapshot {
        Snapshot { closed: Arc::new(closed), ..self.clone() }
    }

    /// The schemas that whoever has this picture may not use.
    pub fn closed(&self) -> &BTreeSet<String> {
        &self.closed
    }

    /// The same as this object's definition sees it: its names mean what they meant when it was made.
    pub fn within(&self, object: &Object) -> Snapshot {
        self.on(Arc::new(SearchPath::Definition(object.place.clone())))
    }

    pub fn path(&self) -> &SearchPath {
        &self.path
    }

    pub fn schema(&self, name: &str) -> Option<&Arc<Schema>> {
        self.schemas.get(name)
    }

    /// By name.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.schemas.values()
    }

    /// Where something of this name is made: in the schema it says, else in the first of the path that takes something.
    ///
    /// # Errors
    /// There is no such schema, or nothing is made there.
    pub fn place_of<'n>(&self, name: impl Into<NameRef<'n>>) -> Result<String, NoPlace> {
        let NameRef { schema, .. } = name.into();
        match (schema, self.path.as_ref()) {
            (Some(schema), _) if is_read_only(schema) || schema == TEMPORARY_SCHEMA => {
                Err(NoPlace::ReadOnly(schema.to_string()))
            }
            (Some(schema), _) if self.schema(schema).is_none() => Err(NoPlace::Missing(schema.to_string())),
            (Some(schema), _) => Ok(schema.to_string()),
            (None, SearchPath::Definition(_)) => Ok(PUBLIC_SCHEMA.to_string()),
            (None, SearchPath::Schemas(path)) => {
                path.iter().find(|schema| self.schema(schema).is_some()).cloned().ok_or(NoPlace::NotSelected)
            }
        }
    }

    pub(crate) fn with_secrets(mut self, secrets: impl IntoIterator<Item = Secret>) -> Snapshot {
        self.secrets = Arc::new(secrets.into_iter().map(|secret| (secret.name.clone(), Arc::new(secret))).collect());
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
        let names = Arc::make_mut(&mut self.names).entry(object.schema_name().to_string()).or_default();
        names.of(object.kind()).insert(object.name.clone(), object.id);
        Arc::make_mut(&mut self.by_id).insert(object.id, Arc::new(object));
    }

    fn remove(&mut self, id: ObjectId) {
        let Some(old) = Arc::make_mut(&mut self.by_id).remove(&id) else { return };
        if let Some(names) = Arc::make_mut(&mut self.names).get_mut(old.schema_name()) {
            names.of(old.kind()).remove(&old.name);
        }
    }

    fn put_schema(&mut self, schema: Schema) {
        self.remove_schema(schema.id);
        Arc::make_mut(&mut self.schemas).insert(schema.name.clone(), Arc::new(schema));
    }

    fn remove_schema(&mut self, id: ObjectId) {
        Arc::make_mut(&mut self.schemas).retain(|_, known| known.id != id);
    }

    /// The relation of that name: in its schema, else the first along the path. Temporary tables come before all others, then the
    /// server's own, as in a query.
    pub fn get<'n>(&self, name: impl Into<NameRef<'n>>) -> Option<&Arc<Object>> {
        let NameRef { schema, name } = name.into();
        let within = |schema: &str| self.by_id.get(self.names.get(schema)?.relations.get(name)?);
        if let Some(schema) = schema {
            return within(schema);
        }
        match self.path.as_ref() {
            SearchPath::Definition(place) => within(place.relations.0.get(name).map_or(PUBLIC_SCHEMA, String::as_str)),
            SearchPath::Schemas(path) => {
                for schema in looked_for(path) {
                    if let Some(found) = within(schema) {
                        return Some(found);
                    }
                    // There the name is that of its history.
                    let of = schema_of_history(schema).and_then(&within);
                    if of.is_some_and(|object| object.feature_view().is_some()) || (self.is_system)(schema, name) {
                        return None;
                    }
                }
                None
            }
        }
    }

    /// The user's aggregate of that name.
    pub fn aggregate<'n>(&self, name: impl Into<NameRef<'n>>) -> Option<&Arc<Object>> {
        let NameRef { schema, name } = name.into();
        let within = |schema: &str| self.by_id.get(self.names.get(schema)?.aggregates.get(name)?);
        match (schema, self.path.as_ref()) {
            (Some(schema), _) => within(schema),
            (None, SearchPath::Definition(place)) => {
                within(place.aggregates.0.get(name).map_or(PUBLIC_SCHEMA, String::as_str))
            }
            (None, SearchPath::Schemas(path)) => path.iter().find_map(|schema| within(schema)),
        }
    }

    pub fn get_id(&self, id: ObjectId) -> Option<&Arc<Object>> {
        self.by_id.get(&id)
    }

    /// All relations, by schema and name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.names.values().flat_map(|names| names.relations.values()).filter_map(|id| self.by_id.get(id))
    }

    /// The user's aggregates, by schema and name.
    pub fn aggregates(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.names.values().flat_map(|names| names.aggregates.values()).filter_map(|id| self.by_id.get(id))
    }

    /// All that is in a schema.
    pub fn objects_in(&self, schema: &str) -> impl Iterator<Item = &Arc<Object>> {
        let names = self.names.get(schema).into_iter();
        let ids = names.flat_map(|names| names.relations.values().chain(names.aggregates.values()));
        ids.filter_map(|id| self.by_id.get(id))
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
        let names: Vec<String> = view.relations().filter_map(|id| Some(self.get_id(id)?.shown_name())).collect();
        names.join(", ")
    }

    /// The same with temporary tables, whose names nothing else has, and who they belong to.
    pub fn with_temporary(&self, tables: impl IntoIterator<Item = (Arc<Object>, ObjectId)>) -> Snapshot {
        let mut shown = self.clone();
        for (object, owner) in tables {
            Arc::make_mut(&mut shown.access).own(object.id, owner);
            Arc::make_mut(&mut shown.temporary).insert(object.id);
            let names = Arc::make_mut(&mut shown.names).entry(TEMPORARY_SCHEMA.to_string()).or_default();
            names.relations.insert(object.name.clone(), object.id);
            Arc::make_mut(&mut shown.by_id).insert(object.id, object);
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
                Change::PutSchema(schema) => {
                    next.put_schema(schema.clone());
                    continue;
                }
                Change::DropSchema(id) => {
                    next.remove_schema(*id);
                    continue;
                }
                Change::PutSecret(secret) => {
                    Arc::make_mut(&mut next.secrets).insert(secret.name.clone(), Arc::new(secret.clone()));
                    continue;
                }
                Change::DropSecret(name) => {
                    Arc::make_mut(&mut next.secrets).remove(name);
                    continue;
                }
            };
            if matches!(change, Change::Drop(_)) && next.access.knows(id) {
                Arc::make_mut(&mut next.access).forget(id);
            }
            next.remove(id);
            if let Change::Put(object) = change {
                next.put(object.clone());
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Place, QualifiedName, View};

    fn view(id: u32, place: Place, name: &str) -> Object {
        let body = Body::View(View { sql: String::new(), query: String::new(), columns: vec![], reads: vec![] });
        Object { id: ObjectId(id), name: name.to_string(), created_us: 0, comment: None, place, body }
    }

    fn schema(id: u32, name: &str) -> Schema {
        Schema { id: ObjectId(id), name: name.to_string(), created_us: 0, comment: None }
    }

    /// `a` in two schemas, `b` in one.
    fn snapshot() -> Snapshot {
        let [one, other] = ["public", "marts"].map(Place::of);
        let objects = [view(1, one, "a"), view(2, other.clone(), "a"), view(3, other, "b")];
        Snapshot::new(1, objects).with_schemas([schema(10, "marts")])
    }

    fn on(path: &[&str]) -> Snapshot {
        snapshot().on(Arc::new(SearchPath::Schemas(path.iter().map(|schema| schema.to_string()).collect())))
    }

    fn id<'n>(snapshot: &Snapshot, name: impl Into<NameRef<'n>>) -> Option<u32> {
        snapshot.get(name).map(|object| object.id.0)
    }

    #[test]
    fn a_name_without_schema_is_the_first_along_the_path() {
        assert_eq!((id(&snapshot(), "a"), id(&snapshot(), "b")), (Some(1), None));
        assert_eq!((id(&on(&["marts", "public"]), "a"), id(&on(&["marts"]), "b")), (Some(2), Some(3)));
        assert_eq!(id(&on(&[]), "a"), None);
        let qualified = QualifiedName::new("marts", "a");
        assert_eq!((id(&on(&[]), &qualified), id(&on(&[]), ("public", "a"))), (Some(2), Some(1)));
        assert_eq!(id(&snapshot(), ("nothing", "a")), None);
    }

    #[test]
    fn a_table_of_the_servers_own_hides_what_comes_behind_it() {
        let objects = [view(1, Place::of("public"), "pg_class"), view(2, Place::of("public"), "sources")];
        let system =
            |schema: &str, name: &str| matches!((schema, name), ("pg_catalog", "pg_class") | ("tidemark", "sources"));
        let all = Snapshot::new(1, objects).with_system(system);
        let on = |path: &[&str]| {
            all.on(Arc::new(SearchPath::Schemas(path.iter().map(|schema| schema.to_string()).collect())))
        };
        assert_eq!((id(&all, "pg_class"), id(&all, "sources")), (None, Some(2)));
        assert!(all.is_system("pg_class") && !all.is_system("sources") && all.is_system(("tidemark", "sources")));
        // The path says otherwise.
        let after = on(&["public", "pg_catalog"]);
        assert_eq!((id(&after, "pg_class"), after.is_system("pg_class")), (Some(1), false));
        assert_eq!(id(&on(&["tidemark", "public"]), "sources"), None);
        assert_eq!(id(&all, ("public", "pg_class")), Some(1));
        // A temporary table comes before all.
        let temporary = all.with_temporary([(Arc::new(view(3, Place::of("pg_temp"), "pg_class")), ObjectId(1))]);
        assert_eq!(id(&temporary, "pg_class"), Some(3));
        // After a commit too.
        assert_eq!(id(&all.apply(&[]), "pg_class"), None);
    }

    #[test]
    fn a_definition_keeps_what_its_names_meant() {
        let mut place = Place::of("public");
        place.relations.note("a", "marts");
        let reader = view(4, place, "reader");
        let within = on(&["public"]).within(&reader);
        assert_eq!((id(&within, "a"), id(&within, "b")), (Some(2), None));
        // One of before there were schemas.
        assert_eq!(id(&on(&["marts"]).within(&view(5, Place::default(), "old")), "a"), Some(1));
    }

    #[test]
    fn something_new_goes_to_the_first_schema_of_the_path_that_takes_it() {
        assert_eq!(on(&["history", "marts"]).place_of("x"), Ok("marts".to_string()));
        assert_eq!(on(&["gone"]).place_of("x"), Err(NoPlace::NotSelected));
        assert_eq!(snapshot().place_of(("gone", "x")), Err(NoPlace::Missing("gone".to_string())));
        for schema in ["history", "history_marts", "tidemark", "pg_catalog", "pg_temp"] {
            assert_eq!(snapshot().place_of((schema, "x")), Err(NoPlace::ReadOnly(schema.to_string())));
        }
    }

    #[test]
    fn schemas_and_what_is_in_them_come_and_go() {
        let renamed = Schema { name: "shop".to_string(), ..schema(10, "marts") };
        let moved = view(2, Place::of("shop"), "a");
        let next = snapshot().apply(&[Change::PutSchema(renamed), Change::Put(moved), Change::Drop(ObjectId(3))]);
        assert!(next.schema("marts").is_none() && next.schema("shop").is_some());
        assert_eq!((id(&next, ("marts", "a")), id(&next, ("shop", "a"))), (None, Some(2)));
        assert_eq!(next.objects_in("shop").count(), 1);
        let gone = next.apply(&[Change::Drop(ObjectId(2)), Change::DropSchema(ObjectId(10))]);
        assert!(gone.schema("shop").is_none() && gone.schema("public").is_some());
        assert_eq!(gone.objects().count(), 1);
    }

    #[test]
    fn an_object_of_public_is_written_as_it_was_before_there_were_schemas() {
        let text = serde_json::to_string(&view(1, Place::default(), "a")).unwrap();
        assert!(!text.contains("place"), "{text}");
        assert_eq!(serde_json::from_str::<Object>(&text).unwrap(), view(1, Place::default(), "a"));
        let other = view(1, Place::of("marts"), "a");
        assert_eq!(serde_json::from_str::<Object>(&serde_json::to_string(&other).unwrap()).unwrap(), other);
    }
}
