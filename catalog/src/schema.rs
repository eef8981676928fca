//! Schemas: names of their own for objects. Whose they are and who may use them is in [`crate::Access`].

use crate::{ObjectId, PUBLIC_SCHEMA, SYSTEM_SCHEMAS, TEMPORARY_SCHEMA, schema_of_history};
use serde::{Deserialize, Serialize};

/// As long as PostgreSQL's identifiers; it is also a folder of the warehouse.
const NAME_BYTES_MAX: usize = 63;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    pub id: ObjectId,
    pub name: String,
    /// Microseconds since 1970, UTC.
    pub created_us: i64,
    pub comment: Option<String>,
}

/// A name that a schema cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchemaName {
    #[error("unacceptable schema name \"{0}\"")]
    Reserved(String),
    #[error("schema name \"{0}\" has a letter that no schema can have")]
    Letter(String),
    #[error("schema name \"{0}\" is too long")]
    Long(String),
}

impl Schema {
    /// That of `public`, which is always there; PostgreSQL's OID of it.
    pub const PUBLIC_ID: ObjectId = ObjectId(2200);

    pub fn public() -> Schema {
        Schema { id: Schema::PUBLIC_ID, name: PUBLIC_SCHEMA.to_string(), created_us: 0, comment: None }
    }

    /// Whether a schema may be called so: it is a folder of the warehouse and a namespace of Iceberg besides, and no dot is in it, so
    /// that `schema.name` can be read in one way only.
    ///
    /// # Errors
    /// It may not.
    pub fn check_name(name: &str) -> Result<(), BadSchemaName> {
        let is_ours = name.starts_with("pg_") || name.starts_with("history_") || name.starts_with('$');
        if is_ours || SYSTEM_SCHEMAS.contains(&name) || name == TEMPORARY_SCHEMA || schema_of_history(name).is_some() {
            return Err(BadSchemaName::Reserved(name.to_string()));
        }
        let may_be = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '$' | ' ');
        if name.is_empty() || !name.chars().all(may_be) {
            return Err(BadSchemaName::Letter(name.to_string()));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(BadSchemaName::Long(name.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_called_so_that_its_folder_and_its_history_can_be() {
        for name in ["marts", "public_marts", "März-1", "a b", "historyx"] {
            assert_eq!(Schema::check_name(name), Ok(()), "{name}");
        }
        let reserved = ["pg_x", "pg_temp", "history", "history_marts", "tidemark", "information_schema", "$rows"];
        for name in reserved {
            assert_eq!(Schema::check_name(name), Err(BadSchemaName::Reserved(name.to_string())));
        }
        for name in ["a.b", "a/b", "", "a\"b", "..", "a\0b"] {
            assert_eq!(Schema::check_name(name), Err(BadSchemaName::Letter(name.to_string())));
        }
        assert!(matches!(Schema::check_name(&"x".repeat(64)), Err(BadSchemaName::Long(_))));
    }
}
