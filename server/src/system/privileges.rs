//! `has_table_privilege` and its kin: what a role may do, as PostgreSQL's functions ask for it.
//!
//! ```text
//! has_table_privilege([role,] relation, privilege)     role and relation by name or OID
//! ```

use super::{
    SessionFacts, SystemTablesOf,
    functions::Current,
    inventory::{HISTORY, split_name},
    row_function::{Args, RowFunction},
};
use crate::rights::Actor;
use arrow::datatypes::DataType;
use datafusion::{common::ScalarValue, error::Result as DfResult, logical_expr::ScalarUDF};
use std::sync::Arc;
use tidemark_catalog::{ObjectId, Privileges};
use tidemark_planner::{PlanError, error::sqlstate};

/// What they are about that everybody may use.
const OF_EVERYBODY: [&str; 7] = [
    "has_function_privilege",
    "has_sequence_privilege",
    "has_language_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "has_server_privilege",
    "has_foreign_data_wrapper_privilege",
];

pub fn functions(system: &Current, session: &SessionFacts) -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![];
    let mut add = |name: &'static str, arguments: usize, body: Body| {
        let (system, session) = (system.clone(), session.clone());
        all.push(
            RowFunction::new(name, DataType::Boolean, move |args| {
                if (0..args.len()).any(|i| args.is_null(i)) {
                    return Ok(ScalarValue::Boolean(None));
                }
                let system = system();
                // The role may be left out.
                let of_another = args.len() > arguments;
                let asked = Asked { system: &system, args: &args, first: usize::from(of_another) };
                let actor = match of_another {
                    true => asked.role(0)?.map(|role| Actor::of(&system.snapshot().access, role)),
                    false => Some(session.actor(&system)),
                };
                Ok(ScalarValue::Boolean(match actor {
                    Some(actor) => body(&asked, &actor)?,
                    None => None,
                }))
            })
            .udf(),
        );
    };
    add("has_table_privilege", 2, |asked, actor| {
        let Some(privileges) = asked.relation(actor)? else { return Ok(None) };
        asked.any(1, privileges, &Privileges::OF_RELATION)
    });
    add("has_any_column_privilege", 2, |asked, actor| {
        let Some(privileges) = asked.relation(actor)? else { return Ok(None) };
        asked.any(1, privileges, &Privileges::OF_RELATION)
    });
    // A column is whose its relation is.
    add("has_column_privilege", 3, |asked, actor| {
        let Some(privileges) = asked.relation(actor)? else { return Ok(None) };
        asked.any(2, privileges, &Privileges::OF_RELATION)
    });
    add("has_schema_privilege", 2, |asked, actor| {
        let Some(schema) = asked.schema()? else { return Ok(None) };
        let privileges = match schema.as_str() {
            "tidemark" | "pg_catalog" | "information_schema" => Privileges::USAGE,
            schema => actor.in_schema(&asked.system.snapshot().access, schema),
        };
        asked.any(1, privileges, &Privileges::OF_SCHEMA)
    });
    add("has_database_privilege", 2, |asked, actor| {
        let names = asked.args.text(asked.first + 1).unwrap_or_default().to_uppercase();
        // Who may connect is said at the door; what can be made in a database are schemas, and temporary tables.
        Ok(Some(names.split(',').any(|name| match name.trim() {
            "CONNECT" => true,
            "TEMPORARY" | "TEMP" => false,
            _ => actor.is_superuser,
        })))
    });
    add("pg_has_role", 2, |asked, actor| {
        let Some(role) = asked.role(asked.first)? else { return Ok(None) };
        let access = &asked.system.snapshot().access;
        let how = asked.args.text(asked.first + 1).unwrap_or_default().to_uppercase();
        // USAGE: its privileges without SET ROLE; MEMBER: it can be acted as.
        Ok(Some(match how.as_str() {
            "USAGE" => actor.is(role),
            _ => actor.is_superuser || access.memberships(actor.role).contains(&role),
        }))
    });
    for name in OF_EVERYBODY {
        all.push(
            RowFunction::new(name, DataType::Boolean, |args| {
                let unknown = (0..args.len()).any(|i| args.is_null(i));
                Ok(ScalarValue::Boolean((!unknown).then_some(true)))
            })
            .udf(),
        );
    }
    all
}

type Body = fn(&Asked<'_>, &Actor) -> DfResult<Option<bool>>;

/// The arguments of one call; `first` is the place of what it is about.
struct Asked<'a> {
    system: &'a SystemTablesOf,
    args: &'a Args<'a>,
    first: usize,
}

impl Asked<'_> {
    /// A role by name or OID; `None`: there is no such OID.
    fn role(&self, at: usize) -> DfResult<Option<ObjectId>> {
        let access = &self.system.snapshot().access;
        if let Some(oid) = self.number(at) {
            let id = u32::try_from(oid).ok().map(ObjectId);
            return Ok(id.filter(|id| access.role(*id).is_some()));
        }
        let name = self.args.text(at).unwrap_or_default();
        match access.role_named(name) {
            Some(role) => Ok(Some(role.id)),
            None => Err(PlanError::new(sqlstate::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist")).into()),
        }
    }

    /// What the actor may do with the relation; `None`: there is no such OID.
    fn relation(&self, actor: &Actor) -> DfResult<Option<Privileges>> {
        let inventory = self.system.inventory();
        let relation = match self.number(self.first) {
            Some(oid) => inventory.by_oid(oid),
            None => {
                let written = self.args.text(self.first).unwrap_or_default();
                let missing =
                    || PlanError::new(sqlstate::UNDEFINED_TABLE, format!("relation \"{written}\" does not exist"));
                Some(inventory.by_name(written, self.system.path()).ok_or_else(missing)?)
            }
        };
        let Some(relation) = relation else { return Ok(None) };
        // A history table is its view's.
        let oid = if relation.oid >= HISTORY { relation.oid - HISTORY } else { relation.oid };
        let snapshot = self.system.snapshot();
        let object = u32::try_from(oid).ok().and_then(|oid| snapshot.get_id(ObjectId(oid)));
        Ok(Some(match object {
            Some(object) if relation.oid == oid => actor.on(&snapshot.access, object),
            Some(object) => actor.on(&snapshot.access, object) & Privileges::SELECT,
            // The system's own are for everybody to read.
            None => Privileges::SELECT,
        }))
    }

    fn schema(&self) -> DfResult<Option<String>> {
        if let Some(oid) = self.number(self.first) {
            return Ok(self.system.inventory().schema(oid).map(|schema| schema.name.clone()));
        }
        let name = split_name(self.args.text(self.first).unwrap_or_default()).pop().unwrap_or_default();
        let is_known = self.system.inventory().schema_named(&name).is_some();
        match is_known {
            true => Ok(Some(name)),
            false => Err(PlanError::new(sqlstate::INVALID_SCHEMA, format!("schema \"{name}\" does not exist")).into()),
        }
    }

    /// Whether one of the privileges in the list is among those; `WITH GRANT OPTION` nobody has.
    fn any(&self, at: usize, has: Privileges, known: &Privileges) -> DfResult<Option<bool>> {
        let list = self.args.text(self.first + at).unwrap_or_default();
        let mut any = false;
        for name in list.split(',').map(str::trim) {
            let upper = name.to_uppercase();
            let (word, with_option) = match upper.strip_suffix("WITH GRANT OPTION") {
                Some(word) => (word.trim().to_string(), true),
                None => (upper, false),
            };
            match Privileges::named(&word).filter(|privilege| known.contains(*privilege)) {
                Some(privilege) => any |= !with_option && has.contains(privilege),
                None if matches!(word.as_str(), "REFERENCES" | "TRIGGER" | "RULE") => {}
                None => {
                    let message = format!("unrecognized privilege type: \"{name}\"");
                    return Err(PlanError::new(sqlstate::INVALID_PARAMETER, message).into());
                }
            }
        }
        Ok(Some(any))
    }

    /// An OID, and not a text that looks like one.
    fn number(&self, at: usize) -> Option<i64> {
        if self.args.text(at).is_some() { None } else { self.args.int(at) }
    }
}
