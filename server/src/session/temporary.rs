//! Temporary tables: of one session, in the place of whatever else has their name, and gone with it.
//!
//! They are in no catalog that lasts. The session's own picture of the catalog has them over what everybody sees; their rows
//! are in a log like any table's. What a crash leaves of them the next start removes.

use super::Session;
use crate::{database::Database, pg::PgError, rights::Rights};
use parking_lot::Mutex;
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectId, Snapshot};

/// Of one session at once: each has an open file and a place in every picture of the catalog that it makes.
const TABLES_MAX: usize = 100;

#[derive(Default)]
pub(super) struct Temporary {
    tables: Vec<Table>,
    /// Counts what was made and dropped.
    version: u64,
    /// The picture that was made last.
    shown: Mutex<Option<Arc<Snapshot>>>,
}

struct Table {
    object: Arc<Object>,
    owner: ObjectId,
    ends_with_transaction: bool,
}

impl Session {
    /// The catalog as this session sees it.
    pub fn snapshot(&self, database: &Database) -> Arc<Snapshot> {
        let all = database.snapshot();
        let temporary = &self.temporary;
        if temporary.tables.is_empty() {
            return all;
        }
        let mut shown = temporary.shown.lock();
        match shown.as_ref().filter(|shown| shown.generation == all.generation) {
            Some(shown) => shown.clone(),
            None => {
                let own = temporary.tables.iter().map(|table| (table.object.clone(), table.owner));
                shown.insert(Arc::new(all.with_temporary(own))).clone()
            }
        }
    }

    /// Whether a name may mean something else to this session than to others.
    pub fn has_temporary(&self) -> bool {
        !self.temporary.tables.is_empty()
    }

    /// Changes with every temporary table that is made or dropped.
    pub fn temporary_version(&self) -> u64 {
        self.temporary.version
    }

    pub fn temporary(&self, name: &str) -> Option<&Arc<Object>> {
        self.temporary.tables.iter().map(|table| &table.object).find(|object| object.name == name)
    }

    /// # Errors
    /// 53400: there are too many.
    pub fn check_temporary(&self) -> Result<(), PgError> {
        match self.temporary.tables.len() < TABLES_MAX {
            true => Ok(()),
            false => Err(PgError::error("53400", format!("a session has at most {TABLES_MAX} temporary tables"))
                .hint("DROP TABLE those that are done with, or DISCARD TEMP")),
        }
    }

    /// The table's log is there; from here on the session sees it.
    pub fn add_temporary(&mut self, database: &Database, object: Object, ends_with_transaction: bool) {
        let owner = self.rights.actor.role;
        self.temporary.tables.push(Table { object: Arc::new(object), owner, ends_with_transaction });
        self.temporary_changed(database);
    }

    /// The session sees it no longer; `false`: there was none.
    pub async fn drop_temporary(&mut self, database: &Database, id: ObjectId) -> Result<bool, PgError> {
        let Some(at) = self.temporary.tables.iter().position(|table| table.object.id == id) else { return Ok(false) };
        self.temporary.tables.remove(at);
        self.temporary_changed(database);
        database.owner()?.engine.drop_source(id).await?;
        Ok(true)
    }

    /// `DISCARD TEMP`, and the end of the session.
    pub async fn drop_all_temporary(&mut self, database: &Database) -> Result<(), PgError> {
        self.drop_temporary_if(database, |_| true).await
    }

    /// Those with `ON COMMIT DROP`.
    pub async fn end_temporary(&mut self, database: &Database) -> Result<(), PgError> {
        self.drop_temporary_if(database, |table| table.ends_with_transaction).await
    }

    async fn drop_temporary_if(&mut self, database: &Database, goes: impl Fn(&Table) -> bool) -> Result<(), PgError> {
        let going = self.temporary.tables.iter().filter(|table| goes(table));
        for id in going.map(|table| table.object.id).collect::<Vec<_>>() {
            self.drop_temporary(database, id).await?;
        }
        Ok(())
    }

    fn temporary_changed(&mut self, database: &Database) {
        self.temporary.version += 1;
        *self.temporary.shown.lock() = None;
        self.rights_of_temporary(database);
    }

    /// What the role may do, its own temporary tables among it.
    pub(super) fn rights_of_temporary(&mut self, database: &Database) {
        let role = self.rights.actor.role;
        self.rights = match self.has_temporary() {
            true => Arc::new(Rights::of(self.snapshot(database), role)),
            false => database.rights(&database.snapshot(), role),
        };
    }
}
