//! What exists, as PostgreSQL would count it: schemas, relations with their columns and keys, and their OIDs.
//!
//! An object's OID is its `ObjectId`. Everything that belongs to an object has an OID by a fixed rule, so that OIDs are
//! the same after a restart and on every connection:
//!
//! ```text
//! the object                     16384 …
//! its history table              object + 1 << 30
//! a schema's schema of history   schema + 1 << 30
//! its primary key's index        object + 1 << 29
//! its primary key's constraint   object + 1 << 28
//! ```

use super::{
    columns::{TableSpec, read},
    pg_catalog,
};
use crate::wire::types::{PgType, declared_field, oid, pg_type_of_field};
use arrow::datatypes::{Field, SchemaRef};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};
use tidemark_catalog::{
    Access, Acl, Body, Object, ObjectId, PUBLIC_SCHEMA, Privileges, Snapshot, TEMPORARY_SCHEMA, history_schema,
    looked_for,
};
use tidemark_planner::{archive::archive_schema, bind, feature};

pub const HISTORY: i64 = 1 << 30;
pub const INDEX: i64 = 1 << 29;
pub const CONSTRAINT: i64 = 1 << 28;

pub const PG_CATALOG: i64 = 11;
pub const PUBLIC: i64 = 2200;
pub const INFORMATION_SCHEMA: i64 = 13000;
pub const TIDEMARK: i64 = 16001;
pub const HISTORY_SCHEMA: i64 = 16002;
/// The role that owns what nobody else does.
pub const OWNER: i64 = 10;
pub const OWNER_NAME: &str = "tidemark";
pub const DATABASE: &str = "tidemark";
/// Above PostgreSQL's own, which end at 16383: pgAdmin lists no database below.
pub const DATABASE_OID: i64 = 16384;

/// The schemas that are always there, and their OIDs.
const SCHEMAS: [(i64, &str); 5] = [
    (PG_CATALOG, "pg_catalog"),
    (PUBLIC, "public"),
    (INFORMATION_SCHEMA, "information_schema"),
    (TIDEMARK, "tidemark"),
    (HISTORY_SCHEMA, "history"),
];

/// Of a session's temporary tables; shown while it has some.
pub const PG_TEMP: i64 = 16003;

/// A schema as `pg_namespace` has it.
#[derive(Debug)]
pub struct Namespace {
    pub oid: i64,
    pub name: String,
    pub comment: Option<String>,
}

/// The tables of the system's own schemas.
pub static SYSTEM: LazyLock<BTreeMap<&'static str, Vec<TableSpec>>> = LazyLock::new(|| {
    BTreeMap::from([
        ("pg_catalog", read(include_str!("pg_catalog.txt"), 14000)),
        ("information_schema", read(include_str!("information_schema.txt"), 13100)),
        ("tidemark", read(include_str!("tidemark.txt"), 16100)),
    ])
});

/// The shape of a system table.
pub fn system_schema(schema: &str, table: &str) -> Option<SchemaRef> {
    SYSTEM.get(schema)?.iter().find(|spec| spec.name == table).map(|spec| spec.schema.clone())
}

/// Whether that is one of them: a name without a schema means it where it comes first ([`Snapshot::with_system`]).
pub fn is_system(schema: &str, table: &str) -> bool {
    SYSTEM.get(schema).is_some_and(|specs| specs.iter().any(|spec| spec.name == table))
}

/// A relation as `pg_class` has it.
#[derive(Debug)]
pub struct Relation {
    pub oid: i64,
    pub name: String,
    /// OID and name.
    pub schema: i64,
    pub schema_name: String,
    /// `r` table, `v` view.
    pub kind: &'static str,
    pub columns: Vec<Column>,
    /// Positions in `columns` of the primary key or entity key.
    pub key: Vec<usize>,
    pub comment: Option<String>,
    /// A view's query.
    pub query: Option<String>,
    /// What `pg_depend` would say it is made from.
    pub reads: Vec<ObjectId>,
    pub owner: i64,
    /// What was granted, as PostgreSQL shows it; `None`: nothing was.
    pub acl: Option<Vec<String>>,
}

#[derive(Debug)]
pub struct Column {
    pub name: String,
    pub ty: PgType,
    pub not_null: bool,
    pub comment: Option<String>,
}

impl Column {
    fn of(field: &Field) -> Column {
        Column {
            name: field.name().clone(),
            ty: pg_type_of_field(field),
            not_null: !field.is_nullable(),
            comment: None,
        }
    }
}

impl Relation {
    pub fn schema_name(&self) -> &str {
        &self.schema_name
    }

    /// Whether a user made it: neither the server's own nor a history table.
    pub fn is_own(&self) -> bool {
        (i64::from(ObjectId::FIRST.0)..CONSTRAINT).contains(&self.oid)
    }

    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    pub fn key_name(&self) -> String {
        format!("{}_pkey", self.name)
    }

    pub fn key_columns(&self) -> String {
        let names: Vec<_> = self.key.iter().map(|i| quote_ident(&self.columns[*i].name)).collect();
        names.join(", ")
    }
}

/// Everything that exists under one snapshot.
#[derive(Debug)]
pub struct Inventory {
    /// The user's objects and their history tables by name, then the system's tables.
    pub relations: Vec<Relation>,
    /// Every schema that there is for who asks.
    pub schemas: Vec<Namespace>,
    /// The user's aggregates, by name: what `pg_proc` has.
    pub aggregates: Vec<Arc<Object>>,
    /// OID and name.
    pub roles: Vec<(i64, String)>,
    /// Places in `relations`: every row of `pg_class` is asked whether its name alone means it.
    pub(super) named: HashMap<String, Vec<usize>>,
    /// Of each OID its place in `relations`: functions of clients' queries look one up for every row.
    pub(super) places: HashMap<i64, usize>,
}

impl Inventory {
    /// `running` gives the columns of a feature view's history without planning its definition again, if the view runs here:
    /// after every change of the catalog this is worked out anew, for every view.
    pub fn of(snapshot: &Snapshot, running: &dyn Fn(ObjectId) -> Option<SchemaRef>) -> Inventory {
        let schemas = schemas(snapshot);
        let oid_of = |name: &str| schemas.iter().find(|known| known.name == name).map_or(0, |known| known.oid);
        let mut relations: Vec<Relation> =
            snapshot.objects().map(|object| user_relation(object, snapshot, &oid_of)).collect();
        relations.extend(snapshot.objects().filter_map(|object| history_relation(object, snapshot, running, &oid_of)));
        for (schema_name, specs) in SYSTEM.iter() {
            let schema = oid_of(schema_name);
            relations.extend(specs.iter().map(|spec| Relation {
                oid: spec.oid,
                name: spec.name.to_string(),
                schema,
                schema_name: schema_name.to_string(),
                kind: if pg_catalog::is_view(schema, spec.name) { "v" } else { "r" },
                columns: spec.schema.fields().iter().map(|field| Column::of(field)).collect(),
                key: vec![],
                comment: None,
                query: None,
                reads: vec![],
                owner: OWNER,
                acl: None,
            }));
        }
        let roles = snapshot.access.roles().map(|role| (role.id.0 as i64, role.name.clone())).collect();
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, relation) in relations.iter().enumerate() {
            named.entry(relation.name.clone()).or_default().push(at);
        }
        // Backwards: of two the first counts.
        let places = relations.iter().enumerate().rev().map(|(place, relation)| (relation.oid, place)).collect();
        Inventory { relations, schemas, aggregates: snapshot.aggregates().cloned().collect(), roles, named, places }
    }

    /// The relations of that name, in every schema.
    fn named(&self, name: &str) -> impl Iterator<Item = &Relation> {
        self.named.get(name).into_iter().flatten().filter_map(|at| self.relations.get(*at))
    }

    pub fn schema(&self, oid: i64) -> Option<&Namespace> {
        self.schemas.iter().find(|schema| schema.oid == oid)
    }

    pub fn schema_named(&self, name: &str) -> Option<&Namespace> {
        self.schemas.iter().find(|schema| schema.name == name)
    }

    pub fn role_name(&self, oid: i64) -> Option<&str> {
        self.roles.iter().find(|(known, _)| *known == oid).map(|(_, name)| name.as_str())
    }

    /// The user's aggregate with this OID.
    pub fn aggregate(&self, oid: i64) -> Option<&Arc<Object>> {
        self.aggregates.iter().find(|object| object.id.0 as i64 == oid)
    }

    pub fn by_oid(&self, oid: i64) -> Option<&Relation> {
        self.places.get(&oid).and_then(|place| self.relations.get(*place))
    }

    /// By name as written: `x`, `schema.x`, `"X"`. Without a schema it is looked for along the path.
    pub fn by_name(&self, written: &str, path: &[String]) -> Option<&Relation> {
        let parts = split_name(written);
        let within = |schema: &str, name: &str| self.named(name).find(|r| r.schema_name == schema);
        match parts.as_slice() {
            [name] => looked_for(path).find_map(|schema| within(schema, name)),
            [schema, name] => within(schema, name),
            [database, schema, name] if database == DATABASE => within(schema, name),
            _ => None,
        }
    }

    /// Whether the name alone means this relation.
    pub fn is_visible(&self, relation: &Relation, path: &[String]) -> bool {
        let place = |schema: &str| looked_for(path).position(|known| known == schema);
        let Some(own) = place(&relation.schema_name) else { return false };
        !self.named(&relation.name).any(|other| place(&other.schema_name).is_some_and(|place| place < own))
    }

    /// What a `regclass` shows: with its schema where the name alone means something else or nothing.
    pub fn shown_name(&self, relation: &Relation, path: &[String]) -> String {
        match self.is_visible(relation, path) {
            true => quote_ident(&relation.name),
            false => format!("{}.{}", quote_ident(&relation.schema_name), quote_ident(&relation.name)),
        }
    }

    /// The relation whose key has this index or constraint.
    pub fn by_key(&self, oid: i64, rule: i64) -> Option<&Relation> {
        self.by_oid(oid - rule).filter(|r| r.has_key())
    }

    /// What a `regclass` shows: a relation or an index.
    pub fn class_name(&self, oid: i64, path: &[String]) -> Option<String> {
        self.by_oid(oid)
            .map(|relation| self.shown_name(relation, path))
            .or_else(|| self.by_key(oid, INDEX).map(|r| quote_ident(&r.key_name())))
    }

    pub fn class_oid(&self, written: &str, path: &[String]) -> Option<i64> {
        self.by_name(written, path).map(|r| r.oid).or_else(|| {
            let mut parts = split_name(written);
            let (name, schema) = (parts.pop()?, parts.pop());
            let is_meant = |r: &&Relation| match &schema {
                Some(schema) => r.schema_name == *schema,
                None => looked_for(path).any(|known| known == r.schema_name),
            };
            let keyed = self.relations.iter().filter(|r| r.has_key() && r.key_name() == name);
            keyed.filter(is_meant).map(|r| r.oid + INDEX).next()
        })
    }
}

/// The server's own, the user's with their schemas of history, and that of temporary tables where there are some.
fn schemas(snapshot: &Snapshot) -> Vec<Namespace> {
    let public_comment = snapshot.schema(PUBLIC_SCHEMA).and_then(|schema| schema.comment.clone());
    let mut all: Vec<Namespace> = SCHEMAS
        .iter()
        .map(|(oid, name)| {
            let comment = if *name == PUBLIC_SCHEMA { public_comment.clone() } else { None };
            Namespace { oid: *oid, name: name.to_string(), comment }
        })
        .collect();
    for schema in snapshot.schemas().filter(|schema| schema.name != PUBLIC_SCHEMA) {
        let oid = i64::from(schema.id.0);
        all.push(Namespace { oid, name: schema.name.clone(), comment: schema.comment.clone() });
        all.push(Namespace { oid: oid + HISTORY, name: history_schema(&schema.name), comment: None });
    }
    if snapshot.objects_in(TEMPORARY_SCHEMA).next().is_some() {
        all.push(Namespace { oid: PG_TEMP, name: TEMPORARY_SCHEMA.to_string(), comment: None });
    }
    all
}

/// `{owner=arwdD/owner,grantee=r/owner}`, with everybody as the empty name.
pub fn acl(acl: &Acl, all: Privileges, access: &Access) -> Vec<String> {
    let name = |id| access.role(id).map_or("", |role| role.name.as_str());
    let owner = acl.owner();
    let shown = |(grantee, privileges): (ObjectId, Privileges)| {
        let letters: String = privileges.each().map(|(_, letter)| letter).collect();
        acl_item(name(grantee), &letters, name(owner))
    };
    let grants = acl.grants.iter().map(|(grantee, privileges)| (*grantee, *privileges));
    std::iter::once((owner, all)).chain(grants).map(shown).collect()
}

/// `grantee=letters/grantor`; everybody is the empty name.
pub fn acl_item(grantee: &str, letters: &str, grantor: &str) -> String {
    let name = |name: &str| if name.is_empty() { String::new() } else { quote_ident(name) };
    format!("{}={letters}/{}", name(grantee), name(grantor))
}

fn user_relation(object: &Arc<Object>, snapshot: &Snapshot, oid_of: &dyn Fn(&str) -> i64) -> Relation {
    let access = &snapshot.access;
    let columns = object
        .columns()
        .iter()
        .map(|c| Column { comment: c.comment.clone(), ..Column::of(&declared_field(c)) })
        .collect();
    let (kind, key, query) = match &object.body {
        Body::Source(r) | Body::Table(r) => ("r", r.primary_key.clone(), None),
        Body::FeatureView(v) => ("v", v.key.clone(), Some(v.query.clone())),
        Body::View(v) => ("v", vec![], Some(v.query.clone())),
        Body::TrainingSet(_) => ("r", vec![], None),
        // Never among the relations.
        Body::Aggregate(_) => ("v", vec![], None),
    };
    Relation {
        oid: object.id.0 as i64,
        name: object.name.clone(),
        schema: oid_of(object.schema_name()),
        schema_name: object.schema_name().to_string(),
        kind,
        columns,
        key,
        comment: object.comment.clone(),
        query,
        reads: object.reads(),
        owner: access.owner(object.id).0 as i64,
        acl: access.acl(object.id).map(|granted| acl(granted, Privileges::OF_RELATION, access)),
    }
}

/// A view whose definition does not plan has no history to show; the view itself still does.
fn history_relation(
    object: &Arc<Object>,
    snapshot: &Snapshot,
    running: &dyn Fn(ObjectId) -> Option<SchemaRef>,
    oid_of: &dyn Fn(&str) -> i64,
) -> Option<Relation> {
    let (columns, comment) = match object.relation().filter(|relation| relation.is_archived()) {
        Some(relation) => (archive_schema(relation), format!("every admitted event of source {}", object.name)),
        None => {
            object.feature_view()?;
            let columns = match running(object.id) {
                Some(columns) => columns,
                None => bind::history_schema(&feature::plan_definition(object, snapshot).ok()?),
            };
            (columns, format!("every step of feature view {} below its frontier", object.name))
        }
    };
    let schema_name = history_schema(object.schema_name());
    Some(Relation {
        oid: object.id.0 as i64 + HISTORY,
        name: object.name.clone(),
        schema: oid_of(&schema_name),
        schema_name,
        kind: "r",
        columns: columns.fields().iter().map(|field| Column::of(field)).collect(),
        key: vec![],
        comment: Some(comment),
        query: None,
        reads: vec![object.id],
        owner: snapshot.access.owner(object.id).0 as i64,
        acl: None,
    })
}

/// The parts of a name as written: unquoted ones fold to lower case. Blanks may stand around a point, where ADBC writes them.
pub fn split_name(written: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = written.trim().chars().peekable();
    while let Some(c) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => part.push(c),
            c if c.is_whitespace()
                && (part.is_empty() || characters.clone().find(|next| !next.is_whitespace()) == Some('.')) => {}
            c => part.extend(c.to_lowercase()),
        }
    }
    parts
}

pub fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$');
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Types that compare by a collation.
pub fn collation(type_oid: u32) -> i64 {
    match type_oid {
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::TEXT_ARRAY => 100,
        oid::NAME => 950,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_system_tables_have_one_oid() {
        let mut seen = std::collections::BTreeSet::new();
        for spec in SYSTEM.values().flatten() {
            assert!(seen.insert(spec.oid), "{} has an OID of another", spec.name);
            assert!(spec.oid < 16384);
        }
    }

    #[test]
    fn names_split_as_postgresql_reads_them() {
        assert_eq!(split_name("Public.Flights"), ["public", "flights"]);
        assert_eq!(split_name("\"A.b\".\"c\"\"d\""), ["A.b", "c\"d"]);
        assert_eq!(split_name(" \"public\" . \"A b\" "), ["public", "A b"]);
        assert_eq!(split_name("a b"), ["a b"]);
        assert_eq!(quote_ident("flights"), "flights");
        assert_eq!(quote_ident("Flights"), "\"Flights\"");
    }
}
