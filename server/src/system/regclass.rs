//! Casts to `regclass`, `regtype` and their kin. In PostgreSQL such a value is an OID that prints as a name; here the
//! rewriting decides by the place of the cast which of the two is meant, and calls one of these functions.

use super::{
    SystemTablesOf,
    inventory::{quote_ident, split_name},
    pg_catalog::ASKING,
};
use crate::wire::types::{by_name, type_name};
use tidemark_planner::{PlanError, error::sqlstate};

/// The kinds of name that a cast can look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reg {
    Class,
    Type,
    Namespace,
    Role,
    /// Functions, operators, text search: of ours only the user's aggregates can be looked up.
    Proc,
}

impl Reg {
    pub fn of(type_name: &str) -> Option<Reg> {
        Some(match type_name {
            "regclass" => Reg::Class,
            "regtype" => Reg::Type,
            "regnamespace" => Reg::Namespace,
            "regrole" => Reg::Role,
            "regproc" | "regprocedure" | "regoper" | "regoperator" | "regconfig" | "regdictionary" | "regcollation" => {
                Reg::Proc
            }
            _ => return None,
        })
    }

    /// The functions a cast becomes: the OID of a name, and the name of an OID. A `$` keeps them apart from any name
    /// that PostgreSQL has.
    pub fn functions(self) -> (&'static str, &'static str) {
        match self {
            Reg::Class => ("regclass$oid", "regclass$name"),
            Reg::Type => ("regtype$oid", "regtype$name"),
            Reg::Namespace => ("regnamespace$oid", "regnamespace$name"),
            Reg::Role => ("regrole$oid", "regrole$name"),
            Reg::Proc => ("regproc$oid", "regproc$name"),
        }
    }

    pub const ALL: [Reg; 5] = [Reg::Class, Reg::Type, Reg::Namespace, Reg::Role, Reg::Proc];

    /// The OID of a name as written; a number stands for itself.
    pub fn oid(self, written: &str, system: &SystemTablesOf, user: &str) -> Option<i64> {
        let inventory = system.inventory();
        let written = written.trim();
        if let Ok(oid) = written.parse() {
            return Some(oid);
        }
        if written == "-" {
            return Some(0);
        }
        match self {
            Reg::Class => inventory.class_oid(written, system.path()),
            Reg::Type => {
                let name = written.strip_prefix("pg_catalog.").unwrap_or(written);
                let folded = name.trim_matches('"').to_lowercase();
                by_name(alias(&folded)).map(|t| t.oid as i64)
            }
            Reg::Namespace => {
                let name = split_name(written).pop()?;
                inventory.schema_named(&name).map(|schema| schema.oid)
            }
            Reg::Role => {
                let name = split_name(written).pop()?;
                let known = inventory.roles.iter().find(|(_, known)| *known == name).map(|(oid, _)| *oid);
                known.or((name == user).then_some(ASKING))
            }
            Reg::Proc => {
                let mut parts = split_name(written.split('(').next()?);
                let (name, schema) = (parts.pop()?, parts.pop());
                let within = |schema: &str| {
                    inventory.aggregates.iter().find(|object| object.name == name && object.schema_name() == schema)
                };
                let found = match &schema {
                    Some(schema) => within(schema),
                    None => system.path().iter().find_map(|schema| within(schema)),
                };
                found.map(|object| object.id.0 as i64)
            }
        }
    }

    /// What an OID prints as.
    pub fn name(self, oid: i64, system: &SystemTablesOf, user: &str) -> String {
        let inventory = system.inventory();
        if oid == 0 {
            return "-".to_string();
        }
        let name = match self {
            Reg::Class => inventory.class_name(oid, system.path()),
            Reg::Type => u32::try_from(oid).ok().map(type_name).filter(|name| name != "???"),
            Reg::Namespace => inventory.schema(oid).map(|schema| quote_ident(&schema.name)),
            Reg::Role => match inventory.role_name(oid) {
                Some(name) => Some(quote_ident(name)),
                None => (oid == ASKING).then(|| quote_ident(user)),
            },
            Reg::Proc => inventory.aggregate(oid).map(|object| quote_ident(&object.name)),
        };
        name.unwrap_or_else(|| oid.to_string())
    }

    pub fn missing(self, written: &str) -> PlanError {
        let (state, kind) = match self {
            Reg::Class => (sqlstate::UNDEFINED_TABLE, "relation"),
            Reg::Type => (sqlstate::UNDEFINED_OBJECT, "type"),
            Reg::Namespace => (sqlstate::INVALID_SCHEMA, "schema"),
            Reg::Role => (sqlstate::UNDEFINED_OBJECT, "role"),
            Reg::Proc => (sqlstate::UNDEFINED_FUNCTION, "function"),
        };
        PlanError::new(state, format!("{kind} \"{written}\" does not exist"))
    }
}

/// Spellings of SQL that are no name of the table of types.
fn alias(name: &str) -> &str {
    match name {
        "int" => "int4",
        "decimal" => "numeric",
        "float" => "float8",
        "int[]" => "int4[]",
        other => other,
    }
}
