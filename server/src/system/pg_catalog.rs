//! The rows of `pg_catalog`: built from the inventory when they are asked for, one table at a time.

use super::{
    SystemTablesOf, activity,
    columns::{Cell, Rows},
    inventory::{
        CONSTRAINT, DATABASE, DATABASE_OID, INDEX, INFORMATION_SCHEMA, OWNER, PG_CATALOG, PG_TEMP, PUBLIC, Relation,
        TIDEMARK, acl, collation,
    },
};
use crate::rights::granted_by;
use crate::wire::types::{PgType, TYPES, TypeEntry, element_oid, oid, pg_type_of_sql};
use tidemark_catalog::{Acl, HIDDEN, Object, ObjectId, Privileges, Role, SqlType};

/// `pg_roles`, `information_schema.tables` and the like are views in PostgreSQL too.
pub fn is_view(schema: i64, table: &str) -> bool {
    const VIEWS: [&str; 18] = [
        "pg_cursors",
        "pg_roles",
        "pg_user",
        "pg_group",
        "pg_settings",
        "pg_tables",
        "pg_views",
        "pg_matviews",
        "pg_indexes",
        "pg_rules",
        "pg_policies",
        "pg_sequences",
        "pg_locks",
        "pg_prepared_xacts",
        "pg_replication_slots",
        "pg_available_extensions",
        "pg_publication_tables",
        "pg_seclabels",
    ];
    let is_counted = table.starts_with("pg_stat_") || table.starts_with("pg_statio_");
    is_counted || schema == INFORMATION_SCHEMA || schema == TIDEMARK || VIEWS.contains(&table)
}

const FILLED: [&str; 41] = [
    "pg_namespace",
    "pg_class",
    "pg_attribute",
    "pg_type",
    "pg_index",
    "pg_constraint",
    "pg_description",
    "pg_shdescription",
    "pg_am",
    "pg_database",
    "pg_roles",
    "pg_authid",
    "pg_auth_members",
    "pg_group",
    "pg_user",
    "pg_settings",
    "pg_tables",
    "pg_views",
    "pg_indexes",
    "pg_rewrite",
    "pg_depend",
    "pg_tablespace",
    "pg_language",
    "pg_proc",
    "pg_aggregate",
    "pg_collation",
    "pg_range",
    "pg_matviews",
    "pg_stat_activity",
    "pg_stat_ssl",
    "pg_stat_gssapi",
    "pg_stat_database",
    "pg_stat_database_conflicts",
    "pg_stat_bgwriter",
    "pg_stat_archiver",
    "pg_stat_all_tables",
    "pg_stat_user_tables",
    "pg_statio_all_tables",
    "pg_statio_user_tables",
    "pg_stat_progress_copy",
    "pg_cursors",
];

/// Tables that are empty whatever exists: nothing of what they list is supported so far. What reads one of them by an
/// inner join has no rows, which the rewriting of queries uses.
pub fn is_always_empty(table: &str) -> bool {
    const EMPTY: [&str; 4] = ["pg_range", "pg_collation", "pg_matviews", "pg_shdescription"];
    EMPTY.contains(&table) || (table.starts_with("pg_") && !FILLED.contains(&table))
}

/// Fills `rows` with what `pg_catalog.<table>` has.
pub fn fill(system: &SystemTablesOf, table: &str, rows: &mut Rows) {
    let inventory = system.inventory();
    match table {
        "pg_namespace" => {
            for schema in &inventory.schemas {
                let access = &system.snapshot().access;
                let acl_of = access.schema(granted_by(&schema.name));
                let granted = acl_of.map(|granted| acl(granted, Privileges::OF_SCHEMA, access));
                rows.add([
                    ("oid", schema.oid.into()),
                    ("nspname", (&schema.name).into()),
                    ("nspowner", acl_of.map_or(OWNER, |acl: &Acl| acl.owner().0 as i64).into()),
                    ("nspacl", granted.into()),
                ]);
            }
        }
        "pg_class" => inventory.relations.iter().for_each(|r| class(r, rows)),
        "pg_attribute" => inventory.relations.iter().for_each(|r| attributes(r, rows)),
        "pg_type" => types(rows),
        "pg_index" => inventory.relations.iter().filter(|r| r.has_key()).for_each(|r| index(r, rows)),
        "pg_constraint" => inventory.relations.iter().filter(|r| r.has_key()).for_each(|r| {
            rows.add([
                ("oid", (r.oid + CONSTRAINT).into()),
                ("conname", r.key_name().into()),
                ("connamespace", r.schema.into()),
                ("contype", "p".into()),
                ("convalidated", true.into()),
                ("conrelid", r.oid.into()),
                // A feature view is looked up by its entity key: clients find a key by its index
                ("conindid", (r.oid + INDEX).into()),
                ("confupdtype", " ".into()),
                ("confdeltype", " ".into()),
                ("confmatchtype", " ".into()),
                ("conislocal", true.into()),
                ("connoinherit", true.into()),
                ("conkey", key_numbers(r).into()),
            ])
        }),
        "pg_description" => {
            for r in &inventory.relations {
                let column_comments = r.columns.iter().enumerate().map(|(i, c)| (i + 1, &c.comment));
                for (number, comment) in std::iter::once((0, &r.comment)).chain(column_comments) {
                    if let Some(comment) = comment {
                        rows.add([
                            ("objoid", r.oid.into()),
                            ("classoid", 1259i64.into()),
                            ("objsubid", number.into()),
                            ("description", comment.into()),
                        ]);
                    }
                }
            }
            for schema in &inventory.schemas {
                if let Some(comment) = &schema.comment {
                    rows.add([
                        ("objoid", schema.oid.into()),
                        ("classoid", PG_NAMESPACE.into()),
                        ("objsubid", 0i64.into()),
                        ("description", comment.into()),
                    ]);
                }
            }
            for object in &inventory.aggregates {
                if let Some(comment) = &object.comment {
                    rows.add([
                        ("objoid", object.id.0.into()),
                        ("classoid", PG_PROC.into()),
                        ("objsubid", 0i64.into()),
                        ("description", comment.into()),
                    ]);
                }
            }
        }
        "pg_proc" => inventory.aggregates.iter().for_each(|object| procedure(system, object, rows)),
        "pg_aggregate" => {
            for object in &inventory.aggregates {
                rows.add([
                    ("aggfnoid", (&object.name).into()),
                    ("aggkind", "n".into()),
                    ("aggtransfn", "-".into()),
                    ("aggfinalfn", "-".into()),
                ]);
            }
        }
        "pg_am" => {
            for (oid, name, handler, kind) in
                [(2i64, "heap", "heap_tableam_handler", "t"), (403, "btree", "bthandler", "i")]
            {
                rows.add([
                    ("oid", oid.into()),
                    ("amname", name.into()),
                    ("amhandler", handler.into()),
                    ("amtype", kind.into()),
                ]);
            }
        }
        "pg_database" => rows.add([
            ("oid", DATABASE_OID.into()),
            ("datname", DATABASE.into()),
            ("datdba", OWNER.into()),
            ("encoding", 6i64.into()),
            ("datlocprovider", "c".into()),
            ("datallowconn", true.into()),
            ("datconnlimit", Cell::Int(-1)),
            ("dattablespace", 1663i64.into()),
            ("datcollate", "C.UTF-8".into()),
            ("datctype", "C.UTF-8".into()),
        ]),
        "pg_roles" | "pg_authid" => {
            for role in roles(system) {
                rows.add([
                    ("oid", role.id.0.into()),
                    ("rolname", role.name.into()),
                    ("rolsuper", role.superuser.into()),
                    ("rolinherit", role.inherit.into()),
                    ("rolcreaterole", role.create_role.into()),
                    ("rolcreatedb", role.create_db.into()),
                    ("rolcanlogin", role.login.into()),
                    ("rolconnlimit", Cell::Int(-1)),
                    ("rolbypassrls", role.superuser.into()),
                    // Also of `pg_authid`: a verifier is shown to nobody.
                    ("rolpassword", role.verifier.map(|_| HIDDEN).into()),
                ]);
            }
        }
        "pg_auth_members" => {
            for role in roles(system) {
                for membership in &role.member_of {
                    rows.add([
                        ("roleid", membership.role.0.into()),
                        ("member", role.id.0.into()),
                        ("grantor", membership.grantor.0.into()),
                        ("admin_option", membership.admin.into()),
                    ]);
                }
            }
        }
        "pg_group" => {
            let all = roles(system);
            for group in all.iter().filter(|role| !role.login) {
                let is_member = |role: &&Role| role.member_of.iter().any(|membership| membership.role == group.id);
                let members: Vec<i64> = all.iter().filter(is_member).map(|role| role.id.0.into()).collect();
                rows.add([
                    ("groname", (&group.name).into()),
                    ("grosysid", group.id.0.into()),
                    ("grolist", members.into()),
                ]);
            }
        }
        "pg_user" => {
            for role in roles(system).into_iter().filter(|role| role.login) {
                rows.add([
                    ("usename", role.name.into()),
                    ("usesysid", role.id.0.into()),
                    ("usecreatedb", role.create_db.into()),
                    ("usesuper", role.superuser.into()),
                    ("usebypassrls", role.superuser.into()),
                    ("passwd", HIDDEN.into()),
                ]);
            }
        }
        "pg_settings" => {
            for (name, value) in system.settings() {
                rows.add([
                    ("name", name.into()),
                    ("setting", value.into()),
                    ("category", "Session".into()),
                    ("context", "user".into()),
                    ("vartype", "string".into()),
                    ("source", "session".into()),
                    ("reset_val", value.into()),
                    ("boot_val", value.into()),
                ]);
            }
        }
        "pg_cursors" => {
            for cursor in system.cursors() {
                rows.add([
                    ("name", (&cursor.name).into()),
                    ("statement", (&cursor.statement).into()),
                    ("is_holdable", cursor.is_held.into()),
                    ("is_binary", cursor.is_binary.into()),
                    ("creation_time", cursor.created_us.into()),
                ]);
            }
        }
        "pg_tables" => {
            for r in inventory.relations.iter().filter(|r| r.kind == "r") {
                rows.add([
                    ("schemaname", r.schema_name().into()),
                    ("tablename", (&r.name).into()),
                    ("tableowner", inventory.role_name(r.owner).unwrap_or_default().into()),
                    ("hasindexes", r.has_key().into()),
                ]);
            }
        }
        "pg_views" => {
            for r in inventory.relations.iter().filter(|r| r.kind == "v") {
                rows.add([
                    ("schemaname", r.schema_name().into()),
                    ("viewname", (&r.name).into()),
                    ("viewowner", inventory.role_name(r.owner).unwrap_or_default().into()),
                    ("definition", r.query.clone().map(|q| format!("{q};")).unwrap_or_default().into()),
                ]);
            }
        }
        "pg_indexes" => {
            for r in inventory.relations.iter().filter(|r| r.has_key()) {
                rows.add([
                    ("schemaname", r.schema_name().into()),
                    ("tablename", (&r.name).into()),
                    ("indexname", r.key_name().into()),
                    ("indexdef", index_definition(r).into()),
                ]);
            }
        }
        "pg_rewrite" => {
            for r in inventory.relations.iter().filter(|r| r.query.is_some()) {
                rows.add([
                    ("oid", rule_oid(r).into()),
                    ("rulename", "_RETURN".into()),
                    ("ev_class", r.oid.into()),
                    ("ev_type", "1".into()),
                    ("ev_enabled", "O".into()),
                    ("is_instead", true.into()),
                ]);
            }
        }
        "pg_depend" => depend(system, rows),
        "pg_tablespace" => {
            for (oid, name) in [(1663i64, "pg_default"), (1664, "pg_global")] {
                rows.add([("oid", oid.into()), ("spcname", name.into()), ("spcowner", OWNER.into())]);
            }
        }
        "pg_language" => {
            for (oid, name) in [(12i64, "internal"), (14, "sql")] {
                rows.add([("oid", oid.into()), ("lanname", name.into()), ("lanowner", OWNER.into())]);
            }
        }
        other => activity::fill(system, other, rows),
    }
}

/// The catalog's, and whoever asks: where nobody has a password everybody is let in, and is the first superuser under
/// another name.
fn roles(system: &SystemTablesOf) -> Vec<Role> {
    let mut roles: Vec<Role> = system.snapshot().access.roles().cloned().collect();
    if !roles.iter().any(|role| role.name == system.user()) {
        let (id, name) = (ObjectId(ASKING as u32), system.user());
        roles.push(Role { superuser: true, create_role: true, create_db: true, login: true, ..Role::new(id, name) });
    }
    roles
}

/// The role of a session's user who has none.
pub const ASKING: i64 = 16010;

fn rule_oid(r: &Relation) -> i64 {
    r.oid + INDEX + CONSTRAINT
}

fn class(r: &Relation, rows: &mut Rows) {
    let persistent: [(&str, Cell); 3] = [
        ("relpersistence", if r.schema == PG_TEMP { "t" } else { "p" }.into()),
        ("relispopulated", true.into()),
        ("relowner", r.owner.into()),
    ];
    let [persistence, populated, owner] = persistent.clone();
    rows.add([
        ("oid", r.oid.into()),
        ("relname", (&r.name).into()),
        ("relnamespace", r.schema.into()),
        ("relkind", r.kind.into()),
        ("relnatts", r.columns.len().into()),
        ("relfilenode", if r.kind == "r" { r.oid } else { 0 }.into()),
        ("reltuples", Cell::Real(-1.0)),
        ("relhasindex", r.has_key().into()),
        ("relhasrules", r.query.is_some().into()),
        ("relreplident", if r.kind == "r" && r.schema != PG_CATALOG { "d" } else { "n" }.into()),
        ("relacl", r.acl.clone().into()),
        persistence,
        populated,
        owner,
    ]);
    if r.has_key() {
        let [persistence, populated, owner] = persistent;
        rows.add([
            ("oid", (r.oid + INDEX).into()),
            ("relname", r.key_name().into()),
            ("relnamespace", r.schema.into()),
            ("relkind", "i".into()),
            ("relnatts", r.key.len().into()),
            ("relam", 403i64.into()),
            ("relfilenode", (r.oid + INDEX).into()),
            ("relreplident", "n".into()),
            persistence,
            populated,
            owner,
        ]);
    }
}

fn attributes(r: &Relation, rows: &mut Rows) {
    let mut add = |relation: i64, number: usize, name: &str, ty: PgType, not_null: bool| {
        let (align, storage) = layout(ty.oid);
        rows.add([
            ("attrelid", relation.into()),
            ("attname", name.into()),
            ("atttypid", ty.oid.into()),
            ("attstattarget", Cell::Int(-1)),
            ("attlen", ty.typlen.into()),
            ("attnum", number.into()),
            ("attndims", i64::from(element_oid(ty.oid).is_some()).into()),
            ("attcacheoff", Cell::Int(-1)),
            ("atttypmod", ty.typmod.into()),
            ("attbyval", by_value(ty.typlen).into()),
            ("attalign", align.into()),
            ("attstorage", storage.into()),
            ("attnotnull", not_null.into()),
            ("attislocal", true.into()),
            ("attcollation", collation(ty.oid).into()),
        ])
    };
    for (i, column) in r.columns.iter().enumerate() {
        add(r.oid, i + 1, &column.name, column.ty, column.not_null && r.kind == "r");
    }
    if r.has_key() {
        for (i, position) in r.key.iter().enumerate() {
            let column = &r.columns[*position];
            add(r.oid + INDEX, i + 1, &column.name, column.ty, false);
        }
    }
}

fn by_value(typlen: i16) -> bool {
    matches!(typlen, 1 | 2 | 4 | 8)
}

/// `typalign` and `typstorage`.
fn layout(type_oid: u32) -> (&'static str, &'static str) {
    let typlen = TYPES.iter().find(|t| t.oid == type_oid).map_or(-1, |t| t.typlen);
    match (type_oid, typlen) {
        (oid::NAME | oid::UNKNOWN, _) => ("c", "p"),
        (oid::NUMERIC, _) => ("i", "m"),
        (_, 1) => ("c", "p"),
        (_, 2) => ("s", "p"),
        (_, 4) => ("i", "p"),
        (_, 8 | 16) => ("d", "p"),
        _ => ("i", "x"),
    }
}

fn key_numbers(r: &Relation) -> Vec<i64> {
    r.key.iter().map(|i| *i as i64 + 1).collect()
}

fn index(r: &Relation, rows: &mut Rows) {
    let zeros = vec![0i64; r.key.len()];
    rows.add([
        ("indexrelid", (r.oid + INDEX).into()),
        ("indrelid", r.oid.into()),
        ("indnatts", r.key.len().into()),
        ("indnkeyatts", r.key.len().into()),
        ("indisunique", true.into()),
        ("indisprimary", true.into()),
        ("indimmediate", true.into()),
        ("indisvalid", true.into()),
        ("indisready", true.into()),
        ("indislive", true.into()),
        ("indkey", key_numbers(r).into()),
        ("indcollation", r.key.iter().map(|i| collation(r.columns[*i].ty.oid)).collect::<Vec<_>>().into()),
        ("indclass", zeros.clone().into()),
        ("indoption", zeros.into()),
    ]);
}

pub fn index_definition(r: &Relation) -> String {
    let table = super::inventory::quote_ident(&r.name);
    let name = super::inventory::quote_ident(&r.key_name());
    let schema = super::inventory::quote_ident(r.schema_name());
    format!("CREATE UNIQUE INDEX {name} ON {schema}.{table} USING btree ({})", r.key_columns())
}

/// The OID of `pg_proc`, the class of an aggregate.
pub const PG_PROC: i64 = 1255;
/// That of `pg_namespace`, the class of a schema.
const PG_NAMESPACE: i64 = 2615;

/// An aggregate of the user's.
fn procedure(system: &SystemTablesOf, object: &Object, rows: &mut Rows) {
    let Some(aggregate) = object.aggregate() else { return };
    let oid_of = |ty: &SqlType| i64::from(pg_type_of_sql(ty).oid);
    let types: Vec<i64> = aggregate.parameters.iter().map(|parameter| oid_of(&parameter.ty)).collect();
    let names: Vec<String> = aggregate.parameters.iter().map(|parameter| parameter.name.clone()).collect();
    rows.add([
        ("oid", object.id.0.into()),
        ("proname", (&object.name).into()),
        ("pronamespace", system.inventory().schema_named(object.schema_name()).map_or(0, |schema| schema.oid).into()),
        ("proowner", (system.snapshot().access.owner(object.id).0 as i64).into()),
        ("prolang", 14i64.into()),
        ("procost", Cell::Real(1.0)),
        ("prosupport", "-".into()),
        ("prokind", "a".into()),
        ("provolatile", "i".into()),
        ("proparallel", "s".into()),
        ("pronargs", types.len().into()),
        ("prorettype", oid_of(&aggregate.returns).into()),
        ("proargtypes", types.into()),
        ("proargnames", names.into()),
        ("prosrc", (&aggregate.expression).into()),
    ]);
}

/// What a view reads, as PostgreSQL records it: its rule depends on each relation, and on the view itself.
fn depend(system: &SystemTablesOf, rows: &mut Rows) {
    for r in system.inventory().relations.iter().filter(|r| r.query.is_some()) {
        let on = r.reads.iter().map(|id| (id.0 as i64, "n")).chain([(r.oid, "i")]);
        for (referenced, kind) in on {
            let class = if system.inventory().aggregate(referenced).is_some() { PG_PROC } else { 1259 };
            rows.add([
                ("classid", 2618i64.into()),
                ("objid", rule_oid(r).into()),
                ("refclassid", class.into()),
                ("refobjid", referenced.into()),
                ("deptype", kind.into()),
            ]);
        }
    }
}

fn types(rows: &mut Rows) {
    for entry in TYPES {
        let (align, storage) = layout(entry.oid);
        // Where the extension puts it, and its clients look for it.
        let schema = if entry.oid == oid::VECTOR { PUBLIC } else { PG_CATALOG };
        let element = match entry.oid {
            oid::NAME => oid::CHAR,
            oid::INT2VECTOR => oid::INT2,
            oid::OIDVECTOR => oid::OID,
            _ => 0,
        };
        let kind = if matches!(entry.oid, oid::VOID | oid::TRIGGER | oid::UNKNOWN) { "p" } else { "b" };
        let functions = if matches!(
            entry.name,
            "timestamptz"
                | "timestamp"
                | "date"
                | "time"
                | "interval"
                | "numeric"
                | "json"
                | "jsonb"
                | "pg_node_tree"
                | "vector"
        ) {
            format!("{}_", entry.name)
        } else {
            entry.name.to_string()
        };
        rows.add([
            ("oid", entry.oid.into()),
            ("typname", entry.name.into()),
            ("typnamespace", schema.into()),
            ("typowner", OWNER.into()),
            ("typlen", entry.typlen.into()),
            ("typbyval", by_value(entry.typlen).into()),
            ("typtype", kind.into()),
            ("typcategory", category(entry).into()),
            (
                "typispreferred",
                matches!(entry.oid, oid::BOOL | oid::TEXT | oid::FLOAT8 | oid::OID | oid::TIMESTAMPTZ | oid::INTERVAL)
                    .into(),
            ),
            ("typisdefined", true.into()),
            ("typdelim", ",".into()),
            ("typsubscript", "-".into()),
            ("typelem", element.into()),
            ("typarray", entry.array.into()),
            ("typinput", format!("{functions}in").into()),
            ("typoutput", format!("{functions}out").into()),
            ("typreceive", format!("{functions}recv").into()),
            ("typsend", format!("{functions}send").into()),
            ("typmodin", "-".into()),
            ("typmodout", "-".into()),
            ("typanalyze", "-".into()),
            ("typalign", align.into()),
            ("typstorage", storage.into()),
            ("typtypmod", Cell::Int(-1)),
            ("typcollation", collation(entry.oid).into()),
        ]);
        if entry.array != 0 {
            rows.add([
                ("oid", entry.array.into()),
                ("typname", format!("_{}", entry.name).into()),
                ("typnamespace", schema.into()),
                ("typowner", OWNER.into()),
                ("typlen", Cell::Int(-1)),
                ("typtype", "b".into()),
                ("typcategory", "A".into()),
                ("typisdefined", true.into()),
                ("typdelim", ",".into()),
                ("typsubscript", "array_subscript_handler".into()),
                ("typelem", entry.oid.into()),
                ("typinput", "array_in".into()),
                ("typoutput", "array_out".into()),
                ("typreceive", "array_recv".into()),
                ("typsend", "array_send".into()),
                ("typmodin", "-".into()),
                ("typmodout", "-".into()),
                ("typanalyze", "array_typanalyze".into()),
                ("typalign", if align == "d" { "d" } else { "i" }.into()),
                ("typstorage", "x".into()),
                ("typtypmod", Cell::Int(-1)),
                ("typcollation", collation(entry.oid).into()),
            ]);
        }
    }
}

fn category(entry: &TypeEntry) -> &'static str {
    match entry.oid {
        oid::BOOL => "B",
        oid::CHAR | oid::NODE_TREE => "Z",
        oid::NAME | oid::TEXT | oid::BPCHAR | oid::VARCHAR => "S",
        oid::INT2VECTOR | oid::OIDVECTOR => "A",
        oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ => "D",
        oid::INTERVAL => "T",
        oid::UNKNOWN => "X",
        oid::VOID | oid::TRIGGER => "P",
        oid::BYTEA | oid::JSON | oid::JSONB | oid::UUID | oid::VECTOR | oid::XID | oid::ACLITEM => "U",
        _ => "N",
    }
}
