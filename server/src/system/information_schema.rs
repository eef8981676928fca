//! The rows of `information_schema`: the same inventory in the standard's words.

use super::{
    SystemTablesOf,
    columns::{Cell, Rows},
    inventory::{Column, DATABASE, OWNER_NAME, Relation},
};
use crate::rights::granted_by;
use crate::wire::types::{element_oid, oid, type_name, typname};
use tidemark_catalog::{Acl, ObjectId, Privileges};

/// Fills `rows` with what `information_schema.<table>` has.
pub fn fill(system: &SystemTablesOf, table: &str, rows: &mut Rows) {
    let inventory = system.inventory();
    let keyed = || inventory.relations.iter().filter(|r| r.has_key());
    match table {
        "schemata" => {
            let access = &system.snapshot().access;
            for schema in &inventory.schemas {
                let owner = access.schema(granted_by(&schema.name)).map(Acl::owner);
                let owner = owner.and_then(|owner| inventory.role_name(owner.0.into())).unwrap_or(OWNER_NAME);
                rows.add([
                    ("catalog_name", DATABASE.into()),
                    ("schema_name", (&schema.name).into()),
                    ("schema_owner", owner.into()),
                ]);
            }
        }
        "tables" => {
            for r in &inventory.relations {
                rows.add([
                    ("table_catalog", DATABASE.into()),
                    ("table_schema", r.schema_name().into()),
                    ("table_name", (&r.name).into()),
                    ("table_type", table_type(r).into()),
                    ("is_insertable_into", yes(insertable(r))),
                    ("is_typed", "NO".into()),
                ]);
            }
        }
        "columns" => {
            for r in &inventory.relations {
                r.columns.iter().enumerate().for_each(|(i, c)| column(r, i, c, rows));
            }
        }
        "views" => {
            for r in inventory.relations.iter().filter(|r| r.kind == "v") {
                rows.add([
                    ("table_catalog", DATABASE.into()),
                    ("table_schema", r.schema_name().into()),
                    ("table_name", (&r.name).into()),
                    ("view_definition", r.query.clone().map(|q| format!("{q};")).unwrap_or_default().into()),
                    ("check_option", "NONE".into()),
                    ("is_updatable", "NO".into()),
                    ("is_insertable_into", "NO".into()),
                    ("is_trigger_updatable", "NO".into()),
                    ("is_trigger_deletable", "NO".into()),
                    ("is_trigger_insertable_into", "NO".into()),
                ]);
            }
        }
        "table_constraints" => keyed().for_each(|r| {
            rows.add([
                ("constraint_catalog", DATABASE.into()),
                ("constraint_schema", r.schema_name().into()),
                ("constraint_name", r.key_name().into()),
                ("table_catalog", DATABASE.into()),
                ("table_schema", r.schema_name().into()),
                ("table_name", (&r.name).into()),
                ("constraint_type", "PRIMARY KEY".into()),
                ("is_deferrable", "NO".into()),
                ("initially_deferred", "NO".into()),
                ("enforced", "YES".into()),
            ])
        }),
        "key_column_usage" => keyed().for_each(|r| {
            for (i, position) in r.key.iter().enumerate() {
                rows.add([
                    ("constraint_catalog", DATABASE.into()),
                    ("constraint_schema", r.schema_name().into()),
                    ("constraint_name", r.key_name().into()),
                    ("table_catalog", DATABASE.into()),
                    ("table_schema", r.schema_name().into()),
                    ("table_name", (&r.name).into()),
                    ("column_name", (&r.columns[*position].name).into()),
                    ("ordinal_position", (i + 1).into()),
                ]);
            }
        }),
        "constraint_column_usage" => keyed().for_each(|r| {
            for position in &r.key {
                rows.add([
                    ("table_catalog", DATABASE.into()),
                    ("table_schema", r.schema_name().into()),
                    ("table_name", (&r.name).into()),
                    ("column_name", (&r.columns[*position].name).into()),
                    ("constraint_catalog", DATABASE.into()),
                    ("constraint_schema", r.schema_name().into()),
                    ("constraint_name", r.key_name().into()),
                ]);
            }
        }),
        "table_privileges" | "role_table_grants" => privileges(system, rows),
        "applicable_roles" => {
            for role in system.snapshot().access.roles() {
                for membership in &role.member_of {
                    rows.add([
                        ("grantee", (&role.name).into()),
                        ("role_name", inventory.role_name(membership.role.0.into()).unwrap_or_default().into()),
                        ("is_grantable", yes(membership.admin)),
                    ]);
                }
            }
        }
        "enabled_roles" => {
            for role in system.snapshot().access.roles().filter(|role| system.has_role(role.id)) {
                rows.add([("role_name", (&role.name).into())]);
            }
        }
        _ => {}
    }
}

/// What was granted on the user's objects, and what their owners have.
fn privileges(system: &SystemTablesOf, rows: &mut Rows) {
    let (access, inventory) = (&system.snapshot().access, system.inventory());
    for object in system.snapshot().objects() {
        let owner = access.owner(object.id);
        let grants = access.acl(object.id).into_iter().flat_map(|acl| &acl.grants).map(|(to, what)| (*to, *what));
        for (grantee, privileges) in std::iter::once((owner, Privileges::OF_RELATION)).chain(grants) {
            for (privilege, _) in privileges.each() {
                let name = |id: ObjectId| inventory.role_name(id.0.into()).unwrap_or("PUBLIC").to_string();
                rows.add([
                    ("grantor", name(owner).into()),
                    ("grantee", name(grantee).into()),
                    ("table_catalog", DATABASE.into()),
                    ("table_schema", object.schema_name().into()),
                    ("table_name", (&object.name).into()),
                    ("privilege_type", privilege.into()),
                    ("is_grantable", yes(grantee == owner)),
                    ("with_hierarchy", yes(privilege == "SELECT")),
                ]);
            }
        }
    }
}

/// Only what a user made and is no view takes rows.
fn insertable(r: &Relation) -> bool {
    r.kind == "r" && r.is_own()
}

fn table_type(r: &Relation) -> &'static str {
    match r.kind {
        "v" => "VIEW",
        _ if r.schema_name() == "pg_temp" => "LOCAL TEMPORARY",
        _ => "BASE TABLE",
    }
}

fn yes(value: bool) -> Cell {
    if value { "YES" } else { "NO" }.into()
}

fn column(r: &Relation, position: usize, column: &Column, rows: &mut Rows) {
    let ty = column.ty;
    let data_type = match element_oid(ty.oid) {
        Some(_) => "ARRAY".to_string(),
        None if ty.oid == oid::VECTOR => "USER-DEFINED".to_string(),
        None => type_name(ty.oid),
    };
    let (precision, radix, scale) = match ty.oid {
        oid::INT2 => (Some(16), Some(2), Some(0)),
        oid::INT4 => (Some(32), Some(2), Some(0)),
        oid::INT8 => (Some(64), Some(2), Some(0)),
        oid::FLOAT4 => (Some(24), Some(2), None),
        oid::FLOAT8 => (Some(53), Some(2), None),
        oid::NUMERIC if ty.typmod >= 4 => {
            (Some((ty.typmod - 4) >> 16 & 0xffff), Some(10), Some((ty.typmod - 4) & 0x7ff))
        }
        oid::NUMERIC => (None, Some(10), None),
        _ => (None, None, None),
    };
    let datetime = match ty.oid {
        oid::DATE => Some(0),
        oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL => Some(6),
        _ => None,
    };
    let octets = matches!(ty.oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR).then_some(1_073_741_824i64);
    rows.add([
        ("table_catalog", DATABASE.into()),
        ("table_schema", r.schema_name().into()),
        ("table_name", (&r.name).into()),
        ("column_name", (&column.name).into()),
        ("ordinal_position", (position + 1).into()),
        ("is_nullable", yes(!(column.not_null && r.kind == "r"))),
        ("data_type", data_type.into()),
        ("character_octet_length", octets.into()),
        ("numeric_precision", precision.into()),
        ("numeric_precision_radix", radix.into()),
        ("numeric_scale", scale.into()),
        ("datetime_precision", datetime.into()),
        ("udt_catalog", DATABASE.into()),
        ("udt_schema", if ty.oid == oid::VECTOR { "public" } else { "pg_catalog" }.into()),
        ("udt_name", typname(ty.oid).unwrap_or_default().into()),
        ("dtd_identifier", (position + 1).to_string().into()),
        ("is_self_referencing", "NO".into()),
        ("is_identity", "NO".into()),
        ("identity_cycle", "NO".into()),
        ("is_generated", "NEVER".into()),
        ("is_updatable", yes(insertable(r))),
    ]);
}
