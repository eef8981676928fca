//! Temporary tables: of one session, beside what everybody sees, and gone with it.
//!
//! They are in no catalog that lasts. The session's own picture of the catalog has them besides; their rows are in a log like
//! any table's. None can be called as something that lasts: so what a name means in a definition, a grant or `public.name` does
//! not depend on who asks. Where something is made later under that name, the session is stopped until it lets go of its own. What a crash leaves of them the next start removes.

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
    /// Counts what was made.
    made: u64,
    /// The picture that was made last.
    shown: Mutex<Option<Arc<Snapshot>>>,
}

struct Table {
    object: Arc<Object>,
    owner: ObjectId,
    ends_with_transaction: bool,
    /// Which of all that the session has made.
    number: u64,
    /// It has all of its rows. One whose statement was given up never has.
    is_filled: bool,
}

impl Session {
    /// The catalog as this session sees it.
    pub fn snapshot(&self, database: &Database) -> Arc<Snapshot> {
        let all = self.lasting(database);
        let temporary = &self.temporary;
        if temporary.tables.is_empty() {
            return all;
        }
        let mut shown = temporary.shown.lock();
        let is_same = |shown: &&Arc<Snapshot>| {
            shown.generation == all.generation && shown.path() == all.path() && shown.closed() == all.closed()
        };
        match shown.as_ref().filter(is_same) {
            Some(shown) => shown.clone(),
            None => {
                let own = temporary.tables.iter().filter(|table| table.is_filled);
                let own = own.filter(|table| all.get(&table.object.name).is_none());
                let own = own.map(|table| (table.object.clone(), table.owner));
                shown.insert(Arc::new(all.with_temporary(own))).clone()
            }
        }
    }

    /// Whether the session sees more than others do.
    pub fn has_temporary(&self) -> bool {
        !self.temporary.tables.is_empty()
    }

    /// Changes with every temporary table that is made or dropped.
    pub fn temporary_version(&self) -> u64 {
        self.temporary.version
    }

    pub fn temporary(&self, name: &str) -> Option<&Arc<Object>> {
        let filled = self.temporary.tables.iter().filter(|table| table.is_filled);
        filled.map(|table| &table.object).find(|object| object.name == name)
    }

    /// Refuses to go on where a temporary table has lost its name to something that was made for everybody since: what the session
    /// means as its own must not be done to that.
    ///
    /// # Errors
    /// 55000.
    pub fn check_hidden(&self, database: &Database) -> Result<(), PgError> {
        if !self.has_temporary() {
            return Ok(());
        }
        let all = self.lasting(database);
        let hidden =
            self.temporary.tables.iter().find(|table| table.is_filled && all.get(&table.object.name).is_some());
        let Some(name) = hidden.map(|table| &table.object.name) else { return Ok(()) };
        Err(PgError::error(
            "55000",
            format!("temporary table \"{name}\" is hidden by something of that name that was made since"),
        )
        .detail("nothing is read or changed under that name: it would not be the temporary table's rows")
        .hint("DISCARD TEMP, and make it again under another name"))
    }

    /// The name of the first temporary table among these objects.
    pub fn named_temporary(&self, ids: &[ObjectId]) -> Option<&str> {
        let tables = self.temporary.tables.iter().map(|table| &table.object);
        tables.filter(|object| ids.contains(&object.id)).map(|object| object.name.as_str()).next()
    }

    /// Makes room for one more.
    ///
    /// # Errors
    /// 53400: there are too many.
    pub async fn check_temporary(&mut self, database: &Database) -> Result<(), PgError> {
        self.drop_temporary_if(database, |table| !table.is_filled).await?;
        match self.temporary.tables.len() < TABLES_MAX {
            true => Ok(()),
            false => Err(PgError::error("53400", format!("a session has at most {TABLES_MAX} temporary tables"))
                .hint("DROP TABLE those that are done with, or DISCARD TEMP")),
        }
    }

    /// The table's log is there, and is the session's to remove; it is seen once it is filled.
    pub fn begin_temporary(&mut self, object: Object, ends_with_transaction: bool) {
        let owner = self.rights.actor.role;
        self.temporary.made += 1;
        let (object, number) = (Arc::new(object), self.temporary.made);
        self.temporary.tables.push(Table { object, owner, ends_with_transaction, number, is_filled: false });
    }

    /// From here on the session sees it.
    pub fn show_temporary(&mut self, database: &Database, id: ObjectId) {
        for table in self.temporary.tables.iter_mut().filter(|table| table.object.id == id) {
            table.is_filled = true;
        }
        self.temporary_changed(database);
    }

    /// So many tables has the session made, ever.
    pub fn temporary_made(&self) -> u64 {
        self.temporary.made
    }

    /// A transaction is taken back: those that were made after the first so many go with it.
    pub async fn drop_temporary_since(&mut self, database: &Database, made: u64) -> Result<(), PgError> {
        self.drop_temporary_if(database, |table| table.number > made).await
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
