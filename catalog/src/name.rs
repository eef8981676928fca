//! Names of objects: as a statement has them, and where those without a schema are looked for.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The schema of whatever says no other.
pub const PUBLIC_SCHEMA: &str = "public";
/// The schema of a session's temporary tables.
pub const TEMPORARY_SCHEMA: &str = "pg_temp";
/// Schemas that the server maintains; those of history besides.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["tidemark", "pg_catalog", "information_schema"];

/// The schema that shows the history of the feature views of `schema`.
pub fn history_schema(schema: &str) -> String {
    match schema {
        PUBLIC_SCHEMA => "history".to_string(),
        other => format!("history_{other}"),
    }
}

/// The schema whose history a schema of this name shows; `None`: it is none of history.
pub fn schema_of_history(name: &str) -> Option<&str> {
    match name {
        "history" => Some(PUBLIC_SCHEMA),
        other => other.strip_prefix("history_").filter(|schema| *schema != PUBLIC_SCHEMA),
    }
}

/// Whether nobody but the server makes anything there.
pub fn is_read_only(schema: &str) -> bool {
    SYSTEM_SCHEMAS.contains(&schema) || schema_of_history(schema).is_some()
}

/// The schemas where a name without one is looked for along a session's path, in this order. The catalog's tables come first, where
/// the path does not say otherwise.
pub fn looked_for(path: &[String]) -> impl Iterator<Item = &str> {
    let catalog = (!path.iter().any(|schema| schema == "pg_catalog")).then_some("pg_catalog");
    [TEMPORARY_SCHEMA].into_iter().chain(catalog).chain(path.iter().map(String::as_str))
}

/// A name as a statement has it: with a schema, or to be looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    pub schema: Option<String>,
    pub name: String,
}

impl QualifiedName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> QualifiedName {
        QualifiedName { schema: Some(schema.into()), name: name.into() }
    }

    /// Of a relation beside it.
    pub fn beside(&self, name: &str) -> QualifiedName {
        QualifiedName { schema: self.schema.clone(), name: name.to_string() }
    }
}

/// As messages have it: `name`, `schema.name`.
impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NameRef::from(self).fmt(f)
    }
}

impl From<&str> for QualifiedName {
    fn from(name: &str) -> QualifiedName {
        QualifiedName { schema: None, name: name.to_string() }
    }
}

impl From<String> for QualifiedName {
    fn from(name: String) -> QualifiedName {
        QualifiedName { schema: None, name }
    }
}

/// The name without a schema.
impl PartialEq<str> for QualifiedName {
    fn eq(&self, other: &str) -> bool {
        self.schema.is_none() && self.name == other
    }
}

impl PartialEq<&str> for QualifiedName {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameRef<'a> {
    pub schema: Option<&'a str>,
    pub name: &'a str,
}

impl NameRef<'_> {
    pub fn owned(self) -> QualifiedName {
        QualifiedName { schema: self.schema.map(str::to_string), name: self.name.to_string() }
    }
}

impl fmt::Display for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema {
            None => f.write_str(self.name),
            Some(schema) => write!(f, "{schema}.{}", self.name),
        }
    }
}

impl<'a> From<&'a str> for NameRef<'a> {
    fn from(name: &'a str) -> NameRef<'a> {
        NameRef { schema: None, name }
    }
}

impl<'a> From<&'a String> for NameRef<'a> {
    fn from(name: &'a String) -> NameRef<'a> {
        NameRef { schema: None, name }
    }
}

impl<'a> From<&'a QualifiedName> for NameRef<'a> {
    fn from(name: &'a QualifiedName) -> NameRef<'a> {
        NameRef { schema: name.schema.as_deref(), name: &name.name }
    }
}

/// Schema and name.
impl<'a> From<(&'a str, &'a str)> for NameRef<'a> {
    fn from((schema, name): (&'a str, &'a str)) -> NameRef<'a> {
        NameRef { schema: Some(schema), name }
    }
}

/// The schema of each name without one that a definition has: what it meant when it was made, whatever is made later under that
/// name elsewhere. Names that are not here are in `public`, as all were before there were schemas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Meanings(pub BTreeMap<String, String>);

impl Meanings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn note(&mut self, name: &str, schema: &str) {
        if schema != PUBLIC_SCHEMA {
            self.0.insert(name.to_string(), schema.to_string());
        }
    }

    /// The schema is called otherwise.
    pub fn rename_schema(&mut self, from: &str, to: &str) {
        self.0.values_mut().filter(|schema| *schema == from).for_each(|schema| *schema = to.to_string());
    }
}

/// Where an object lives, and what its definition means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    pub schema: String,
    /// Of relations.
    #[serde(default, skip_serializing_if = "Meanings::is_empty")]
    pub relations: Meanings,
    /// Of the user's aggregates.
    #[serde(default, skip_serializing_if = "Meanings::is_empty")]
    pub aggregates: Meanings,
}

impl Place {
    pub fn of(schema: impl Into<String>) -> Place {
        Place { schema: schema.into(), ..Place::default() }
    }

    /// What objects have that were made before there were schemas, and need not be written.
    pub fn is_plain(&self) -> bool {
        *self == Place::default()
    }
}

impl Default for Place {
    fn default() -> Place {
        Place { schema: PUBLIC_SCHEMA.to_string(), relations: Meanings::default(), aggregates: Meanings::default() }
    }
}

/// Where names without a schema are looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchPath {
    /// In these schemas, in this order: a session's.
    Schemas(Vec<String>),
    /// Where each was found at the time: a definition's.
    Definition(Place),
}

impl Default for SearchPath {
    fn default() -> SearchPath {
        SearchPath::Schemas(vec![PUBLIC_SCHEMA.to_string()])
    }
}

/// There is nowhere to make something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("schema \"{0}\" does not exist")]
    Missing(String),
    #[error("schema \"{0}\" is read-only")]
    ReadOnly(String),
    #[error("no schema has been selected to create in")]
    NotSelected,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_has_one_of_its_history() {
        for schema in ["public", "marts", "history_", "a b"] {
            assert_eq!(schema_of_history(&history_schema(schema)), Some(schema));
        }
        assert_eq!(schema_of_history("public"), None);
        // That of `public` has one name only.
        assert_eq!(schema_of_history("history_public"), None);
    }

    #[test]
    fn the_catalog_comes_before_the_path_unless_the_path_has_it() {
        let path = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(looked_for(&path(&["a", "b"])).collect::<Vec<_>>(), ["pg_temp", "pg_catalog", "a", "b"]);
        assert_eq!(looked_for(&path(&["a", "pg_catalog"])).collect::<Vec<_>>(), ["pg_temp", "a", "pg_catalog"]);
    }

    #[test]
    fn a_definition_notes_only_what_is_not_in_public() {
        let mut meanings = Meanings::default();
        meanings.note("a", "public");
        assert!(meanings.is_empty());
        meanings.note("b", "marts");
        meanings.rename_schema("marts", "shop");
        assert_eq!(serde_json::to_string(&meanings).unwrap(), "{\"b\":\"shop\"}");
        assert!(Place::of("public").is_plain() && !Place::of("marts").is_plain());
        assert_eq!(serde_json::from_str::<Place>("{\"schema\":\"marts\"}").unwrap(), Place::of("marts"));
    }
}
