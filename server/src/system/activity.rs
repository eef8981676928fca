//! The `pg_stat_…` tables: who is connected, and what is counted of the database and its tables.
//!
//! What is not counted is NULL and not 0: a monitor that draws it shows a gap, and no false calm.

use super::{
    SystemTablesOf,
    columns::{Cell, Rows},
    inventory::{DATABASE, DATABASE_OID, HISTORY, PG_CATALOG, Relation},
};
use crate::{sessions::Open, system::Settings};
use tidemark_catalog::ObjectId;

/// Fills `rows` with what `pg_catalog.<table>` has.
pub fn fill(system: &SystemTablesOf, table: &str, rows: &mut Rows) {
    match table {
        "pg_stat_activity" => system.sessions().iter().for_each(|session| activity(system, session, rows)),
        "pg_stat_ssl" => {
            for session in system.sessions() {
                rows.add([("pid", session.connection_id.into()), ("ssl", session.is_encrypted.into())]);
            }
        }
        // Nobody authenticates by Kerberos here.
        "pg_stat_gssapi" => {
            for session in system.sessions() {
                rows.add([("pid", session.connection_id.into())]);
            }
        }
        "pg_stat_database" => rows.add([
            ("datid", DATABASE_OID.into()),
            ("datname", DATABASE.into()),
            ("numbackends", system.sessions().len().into()),
        ]),
        // Only a standby has such conflicts.
        "pg_stat_database_conflicts" => rows.add([("datid", DATABASE_OID.into()), ("datname", DATABASE.into())]),
        "pg_stat_bgwriter" => rows.add([("stats_reset", Cell::Null)]),
        // Nothing is archived.
        "pg_stat_archiver" => rows.add([("archived_count", 0i64.into()), ("failed_count", 0i64.into())]),
        "pg_stat_all_tables" => tables(system, |_| true, rows),
        "pg_statio_all_tables" => blocks(system, |_| true, rows),
        "pg_statio_user_tables" => blocks(system, is_of_users, rows),
        "pg_stat_progress_copy" => copies(system, rows),
        "pg_stat_user_tables" => tables(system, is_of_users, rows),
        _ => {}
    }
}

/// Only the session that asks is known to be running something; of others' the query is not shown to who is not their role.
fn activity(system: &SystemTablesOf, session: &Open, rows: &mut Rows) {
    let may_see = system.may_see(session.role);
    let asks = system.asked_by() == Some(session.connection_id);
    let peer = session.peer.filter(|_| may_see);
    rows.add([
        ("datid", DATABASE_OID.into()),
        ("datname", DATABASE.into()),
        ("pid", session.connection_id.into()),
        ("usesysid", session.role.0.into()),
        ("usename", (&session.user).into()),
        ("application_name", session.settings.get("application_name").filter(|_| may_see).into()),
        ("client_addr", peer.map(|peer| peer.ip().to_string()).into()),
        ("client_port", peer.map(|peer| i32::from(peer.port())).into()),
        ("backend_start", may_see.then_some(session.began_us).into()),
        ("state", asks.then_some("active").into()),
        ("backend_type", "client backend".into()),
    ]);
}

/// A COPY that runs; of others' only that it does.
fn copies(system: &SystemTablesOf, rows: &mut Rows) {
    for (statement, _) in system.statements() {
        let Some(kind) = statement.doing.copies else { continue };
        let may_see = system.may_see(statement.role);
        let table = statement.doing.table.map_or(0, |table| i64::from(table.0));
        rows.add([
            ("pid", statement.connection_id.into()),
            ("datid", DATABASE_OID.into()),
            ("datname", DATABASE.into()),
            ("relid", may_see.then_some(table).into()),
            ("command", may_see.then_some(statement.doing.statement).into()),
            ("type", may_see.then_some(kind).into()),
            ("tuples_processed", statement.progress.read().done.filter(|_| may_see).into()),
        ]);
    }
}

fn is_of_users(relation: &Relation) -> bool {
    relation.is_own() || relation.oid >= HISTORY
}

/// Blocks are not counted: there are no pages of rows.
fn blocks(system: &SystemTablesOf, wanted: fn(&Relation) -> bool, rows: &mut Rows) {
    for r in system.inventory().relations.iter().filter(|r| r.kind == "r" && wanted(r)) {
        rows.add([("relid", r.oid.into()), ("schemaname", r.schema_name().into()), ("relname", (&r.name).into())]);
    }
}

fn tables(system: &SystemTablesOf, wanted: fn(&Relation) -> bool, rows: &mut Rows) {
    for r in system.inventory().relations.iter().filter(|r| r.kind == "r" && wanted(r)) {
        // A history table's steps are not counted, and the system's own tables have no rows of their own.
        let is_object = r.schema != PG_CATALOG && r.oid < HISTORY;
        let object = u32::try_from(r.oid).ok().filter(|_| is_object).map(ObjectId);
        let live = object.and_then(|object| system.stats().source(object)).and_then(|stats| stats.rows);
        rows.add([
            ("relid", r.oid.into()),
            ("schemaname", r.schema_name().into()),
            ("relname", (&r.name).into()),
            ("n_live_tup", live.into()),
        ]);
    }
}
