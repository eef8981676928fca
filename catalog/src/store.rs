//! The durable home of the catalog: one SQLite file, one row per object, definitions as JSON. It has verifiers of passwords
//! and values of secrets: it is for the server's user only.
//!
//! A commit is one SQLite transaction with `synchronous = FULL`; when it returns, the change survives a power cut.

use crate::{
    Access, BlockId, Change, IsSystem, Object, ObjectId, ObjectKind, PUBLIC_SCHEMA, Schema, Secret, Snapshot,
    journal::{self, Before, Block},
};
use sqlx::{
    ConnectOptions, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("catalog store: {0}")]
    Store(#[from] sqlx::Error),
    #[error("catalog object \"{name}\" cannot be read: {source}")]
    Definition { name: String, source: serde_json::Error },
    /// Nothing has happened.
    #[error("{what} is being changed by another transaction")]
    Held { what: String, by: BlockId },
}

impl CatalogError {
    /// The disk is full: nothing happened, and there is nothing wrong with the catalog.
    pub fn is_disk_full(&self) -> bool {
        // SQLITE_FULL; extended codes have the primary one in their low byte.
        const FULL: u32 = 13;
        match self {
            CatalogError::Store(sqlx::Error::Database(error)) => {
                error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == FULL)
            }
            CatalogError::Store(sqlx::Error::Io(error)) => error.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// The layout of the file; a file of a later layout is refused rather than misread.
const LAYOUT: i64 = 1;
/// That of a file which has had schemas: a server that knows none would take what is in them for objects of `public`.
const LAYOUT_WITH_SCHEMAS: i64 = 2;

/// Under which the generation is kept that the journal belongs to. A server of a version that knows no journal leaves it behind:
/// then what it says was there before is not to be brought back over what came since.
const JOURNAL: &str = "journal";

pub struct CatalogStore {
    connection: SqliteConnection,
    snapshot: Snapshot,
    next_id: u32,
    /// The transaction blocks that are open and have changed something.
    blocks: BTreeMap<BlockId, Block>,
    /// The number of the next entry of the journal.
    next_entry: i64,
    recovered: Option<TakenBack>,
}

/// What is taken back of a block.
pub struct TakenBack {
    pub before: Snapshot,
    pub after: Snapshot,
    /// The objects that are, or were, other than they are now.
    pub objects: BTreeSet<ObjectId>,
    /// Those of them that are in neither snapshot: made and dropped in what was taken back.
    pub dropped: Vec<Object>,
}

impl TakenBack {
    fn of<'a>(before: Snapshot, after: Snapshot, entries: impl Iterator<Item = &'a Before> + Clone) -> TakenBack {
        let dropped = journal::dropped(&after, entries.clone()).into_iter();
        let dropped = dropped.filter(|object| before.get_id(object.id).is_none()).collect();
        let object = |entry: &Before| match entry {
            Before::Object(id, _) => Some(*id),
            _ => None,
        };
        TakenBack { objects: entries.filter_map(object).collect(), before, after, dropped }
    }

    /// What there was and is no more.
    pub fn gone(&self) -> impl Iterator<Item = &Object> {
        let made = self.objects.iter().filter(move |id| self.after.get_id(**id).is_none());
        made.filter_map(move |id| self.before.get_id(*id)).map(|object| &**object).chain(&self.dropped)
    }
}

/// What a commit does to the journal.
enum Note {
    Nothing,
    /// What a block has changed, each under the number of its first.
    Add(i64, BlockId, Vec<Before>),
    /// Definitions that are to be brought back otherwise from now on.
    Replace(Vec<(i64, Before)>),
    /// What a block has changed, from this number on.
    Remove(BlockId, i64),
    Empty,
}

impl CatalogStore {
    /// Opens or creates the catalog at `path` and reads all of it.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        keep_private(path).map_err(sqlx::Error::Io)?;
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await?;
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS objects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS access (id INTEGER PRIMARY KEY CHECK (id = 0), definition TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS schemas (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, definition TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS journal (entry INTEGER PRIMARY KEY, session INTEGER NOT NULL, number INTEGER NOT NULL,
               definition TEXT NOT NULL);",
        )
        .execute(&mut connection)
        .await?;
        let layout = meta(&mut connection, "layout", LAYOUT).await?;
        if ![LAYOUT, LAYOUT_WITH_SCHEMAS].contains(&layout) {
            return Err(CatalogError::Store(sqlx::Error::Protocol(format!(
                "the catalog has layout {layout}, this server reads layouts up to {LAYOUT_WITH_SCHEMAS}"
            ))));
        }
        let generation = meta(&mut connection, "generation", 0).await?;
        let next_id = meta(&mut connection, "next_id", ObjectId::FIRST.0 as i64).await?;
        let mut objects = vec![];
        for row in sqlx::query("SELECT name, definition FROM objects").fetch_all(&mut connection).await? {
            let (name, definition): (String, String) = (row.get(0), row.get(1));
            let object: Object =
                serde_json::from_str(&definition).map_err(|source| CatalogError::Definition { name, source })?;
            objects.push(object);
        }
        let access = match sqlx::query("SELECT definition FROM access").fetch_optional(&mut connection).await? {
            Some(row) => read::<Access>("roles and grants", row.get(0))?.completed(),
            None => Access::default(),
        };
        let mut secrets: Vec<Secret> = vec![];
        for row in sqlx::query("SELECT name, definition FROM secrets").fetch_all(&mut connection).await? {
            secrets.push(read(row.get(0), row.get(1))?);
        }
        let mut schemas: Vec<Schema> = vec![];
        for row in sqlx::query("SELECT name, definition FROM schemas").fetch_all(&mut connection).await? {
            schemas.push(read(row.get(0), row.get(1))?);
        }
        let snapshot = Snapshot::new(generation as u64, objects).with_schemas(schemas);
        let snapshot = snapshot.with_access(access).with_secrets(secrets);
        let (blocks, next_id) = (BTreeMap::new(), next_id as u32);
        let mut store = CatalogStore { connection, snapshot, next_id, blocks, next_entry: 1, recovered: None };
        store.recover().await?;
        Ok(store)
    }

    /// Takes back what blocks have changed that a crash has kept from their end.
    async fn recover(&mut self) -> Result<(), CatalogError> {
        let mut entries: Vec<Before> = vec![];
        for row in sqlx::query("SELECT definition FROM journal ORDER BY entry").fetch_all(&mut self.connection).await? {
            entries.push(read("what a transaction has changed", row.get(0))?);
        }
        if entries.is_empty() {
            return Ok(());
        }
        let belongs_to = meta(&mut self.connection, JOURNAL, 0).await?;
        if belongs_to as u64 != self.snapshot.generation {
            sqlx::query("DELETE FROM journal").execute(&mut self.connection).await?;
            return Ok(());
        }
        // Of several blocks too: no two have changed the same.
        let before = self.snapshot.clone();
        let after = self.make(&journal::undo(&before, &entries), Note::Empty).await?;
        self.recovered = Some(TakenBack::of(before, after, entries.iter()));
        Ok(())
    }

    /// What was taken back when the catalog was opened, of transactions that a crash has kept from their end.
    pub fn recovered(&self) -> Option<&TakenBack> {
        self.recovered.as_ref()
    }

    /// Names are looked for beside these tables of the server's own, in this snapshot and in all that follow it.
    pub fn beside(self, is_system: IsSystem) -> CatalogStore {
        CatalogStore { snapshot: self.snapshot.with_system(is_system), ..self }
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// An id that no object has had: ids are never given twice, so state of a dropped object can never be mistaken for
    /// a later one's.
    pub async fn allocate_id(&mut self) -> Result<ObjectId, CatalogError> {
        let id = self.next_id;
        self.next_id += 1;
        set_meta(&mut self.connection, "next_id", self.next_id as i64).await?;
        Ok(ObjectId(id))
    }

    /// Makes `changes` durable, all or none, and returns the snapshot that has them.
    ///
    /// # Errors
    /// One is of something that an open transaction block has changed.
    pub async fn commit(&mut self, changes: &[Change]) -> Result<Snapshot, CatalogError> {
        self.check_held(None, changes)?;
        self.make(changes, Note::Nothing).await
    }

    /// The same, of a transaction block: [`CatalogStore::take_back`] brings back what was before.
    ///
    /// # Errors
    /// As [`CatalogStore::commit`].
    pub async fn commit_in(&mut self, block: BlockId, changes: &[Change]) -> Result<Snapshot, CatalogError> {
        self.check_held(Some(block), changes)?;
        let next = self.snapshot.apply(changes);
        let entries = journal::entries(&self.snapshot, &next, changes);
        let held = journal::touched(&self.snapshot, &next, changes);
        let first = self.next_entry;
        let next = self.make(changes, Note::Add(first, block, entries.clone())).await?;
        self.next_entry += entries.len() as i64;
        let known = self.blocks.entry(block).or_default();
        known.entries.extend((first..).zip(entries));
        known.held.add(held);
        Ok(next)
    }

    /// The same, for good, whatever becomes of the block: what it brings back of an object that it has changed before is
    /// `rebased(as it was, as it is now)`, and has this change.
    ///
    /// # Errors
    /// As [`CatalogStore::commit`]; what `rebased` says.
    pub async fn commit_for_good<E: From<CatalogError>>(
        &mut self,
        block: BlockId,
        changes: &[Change],
        rebased: fn(&Object, &Object) -> Result<Object, E>,
    ) -> Result<Snapshot, E> {
        self.check_held(Some(block), changes)?;
        let mut replaced = vec![];
        for (number, entry) in self.blocks.get(&block).into_iter().flat_map(|block| &block.entries) {
            let now = changes.iter().find_map(|change| match (change, entry) {
                (Change::Put(now), Before::Object(id, Some(was))) if now.id == *id => Some((now, was)),
                _ => None,
            });
            if let Some((now, was)) = now {
                replaced.push((*number, Before::Object(now.id, Some(Box::new(rebased(was, now)?)))));
            }
        }
        let next = self.make(changes, Note::Replace(replaced.clone())).await?;
        let mut replaced: BTreeMap<i64, Before> = replaced.into_iter().collect();
        for (number, entry) in self.blocks.get_mut(&block).into_iter().flat_map(|block| &mut block.entries) {
            if let Some(other) = replaced.remove(&*number) {
                *entry = other;
            }
        }
        Ok(next)
    }

    /// So many things has the block changed since it began, each as often as it did.
    pub fn entries_of(&self, block: BlockId) -> usize {
        self.blocks.get(&block).map_or(0, |block| block.entries.len())
    }

    /// The block is over, and what it has changed stays. Returns what it has dropped: nothing brings it back any more.
    ///
    /// # Errors
    /// It is not over.
    pub async fn end(&mut self, block: BlockId) -> Result<Vec<Object>, CatalogError> {
        if self.blocks.contains_key(&block) {
            Note::Remove(block, 0).write(&mut self.connection).await?;
        }
        let ended = self.blocks.remove(&block).unwrap_or_default();
        Ok(journal::dropped(&self.snapshot, ended.entries.iter().map(|(_, entry)| entry)))
    }

    /// Takes back all that the block has changed after its first `kept` entries; with none kept it is over.
    ///
    /// # Errors
    /// Nothing has happened; the next start takes it back.
    pub async fn take_back(&mut self, block: BlockId, kept: usize) -> Result<TakenBack, CatalogError> {
        let before = self.snapshot.clone();
        let known = self.blocks.get(&block).map(|block| block.entries.as_slice()).unwrap_or_default();
        let going = &known[kept.min(known.len())..];
        let Some((first, _)) = going.first() else {
            return Ok(TakenBack::of(before.clone(), before, [].iter()));
        };
        let first = *first;
        let entries: Vec<Before> = going.iter().map(|(_, entry)| entry.clone()).collect();
        let after = self.make(&journal::undo(&before, &entries), Note::Remove(block, first)).await?;
        match self.blocks.get_mut(&block) {
            Some(block) if kept > 0 => block.entries.truncate(kept),
            _ => {
                self.blocks.remove(&block);
            }
        }
        Ok(TakenBack::of(before, after, entries.iter()))
    }

    /// Refuses changes of what other blocks have changed: what they bring back would undo these.
    fn check_held(&self, by: Option<BlockId>, changes: &[Change]) -> Result<(), CatalogError> {
        let mut others = self.blocks.iter().filter(|(block, _)| Some(**block) != by).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        let next = &self.snapshot.apply(changes);
        let touched = journal::touched(&self.snapshot, next, changes);
        match others.find_map(|(block, known)| Some((*block, touched.conflict(&known.held)?))) {
            Some((by, key)) => Err(CatalogError::Held { what: journal::shown(key, &self.snapshot, next), by }),
            None => Ok(()),
        }
    }

    /// Refuses to go by what `found` finds now where another open block, taken back, would have it find something else: a name that
    /// it has made, dropped or given away.
    ///
    /// # Errors
    /// [`CatalogError::Held`], of `what`.
    pub fn check_settled(
        &self,
        by: Option<BlockId>,
        what: &str,
        found: impl Fn(&Snapshot) -> Option<ObjectId>,
    ) -> Result<(), CatalogError> {
        for (block, known) in self.blocks.iter().filter(|(block, _)| Some(**block) != by) {
            let entries = known.entries.iter().map(|(_, entry)| entry);
            let back = self.snapshot.apply(&journal::undo(&self.snapshot, entries));
            if found(&back) != found(&self.snapshot) {
                return Err(CatalogError::Held { what: what.to_string(), by: *block });
            }
        }
        Ok(())
    }

    async fn make(&mut self, changes: &[Change], note: Note) -> Result<Snapshot, CatalogError> {
        use sqlx::Connection;
        let next = self.snapshot.apply(changes);
        let mut tx = self.connection.begin().await?;
        for change in changes {
            let id = match change {
                Change::Put(object) => object.id,
                Change::Drop(id) => *id,
                Change::PutSecret(secret) => {
                    let definition = written(&secret.name, secret)?;
                    sqlx::query("INSERT OR REPLACE INTO secrets (name, definition) VALUES (?, ?)")
                        .bind(secret.name.as_str())
                        .bind(definition)
                        .execute(&mut *tx)
                        .await?;
                    continue;
                }
                Change::DropSecret(name) => {
                    sqlx::query("DELETE FROM secrets WHERE name = ?").bind(name.as_str()).execute(&mut *tx).await?;
                    continue;
                }
                Change::PutSchema(schema) => {
                    let definition = written(&schema.name, schema)?;
                    sqlx::query("INSERT OR REPLACE INTO schemas (id, name, definition) VALUES (?, ?, ?)")
                        .bind(schema.id.0 as i64)
                        .bind(schema.name.as_str())
                        .bind(definition)
                        .execute(&mut *tx)
                        .await?;
                    if schema.name != PUBLIC_SCHEMA {
                        set_meta(&mut tx, "layout", LAYOUT_WITH_SCHEMAS).await?;
                    }
                    continue;
                }
                Change::DropSchema(id) => {
                    sqlx::query("DELETE FROM schemas WHERE id = ?").bind(id.0 as i64).execute(&mut *tx).await?;
                    continue;
                }
                // Written as a whole, below.
                Change::Own(..) | Change::Access(_) => continue,
            };
            sqlx::query("DELETE FROM objects WHERE id = ?").bind(id.0 as i64).execute(&mut *tx).await?;
        }
        for change in changes {
            if let Change::Put(object) = change {
                let definition = written(&object.name, object)?;
                sqlx::query("INSERT INTO objects (id, name, definition) VALUES (?, ?, ?)")
                    .bind(object.id.0 as i64)
                    .bind(unique_name(object))
                    .bind(definition)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        if !Arc::ptr_eq(&next.access, &self.snapshot.access) {
            let definition = written("roles and grants", next.access.as_ref())?;
            sqlx::query("INSERT OR REPLACE INTO access (id, definition) VALUES (0, ?)")
                .bind(definition)
                .execute(&mut *tx)
                .await?;
        }
        note.write(&mut tx).await?;
        set_meta(&mut tx, JOURNAL, next.generation as i64).await?;
        set_meta(&mut tx, "generation", next.generation as i64).await?;
        tx.commit().await?;
        self.snapshot = next.clone();
        Ok(next)
    }
}

impl Note {
    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), CatalogError> {
        const WHAT: &str = "what a transaction has changed";
        match self {
            Note::Nothing => {}
            Note::Add(first, block, entries) => {
                for (number, entry) in (*first..).zip(entries) {
                    sqlx::query("INSERT INTO journal (entry, session, number, definition) VALUES (?, ?, ?, ?)")
                        .bind(number)
                        .bind(block.session)
                        .bind(i64::from(block.number))
                        .bind(written(WHAT, entry)?)
                        .execute(&mut *connection)
                        .await?;
                }
            }
            Note::Replace(entries) => {
                for (number, entry) in entries {
                    sqlx::query("UPDATE journal SET definition = ? WHERE entry = ?")
                        .bind(written(WHAT, entry)?)
                        .bind(*number)
                        .execute(&mut *connection)
                        .await?;
                }
            }
            Note::Remove(block, from) => {
                sqlx::query("DELETE FROM journal WHERE session = ? AND number = ? AND entry >= ?")
                    .bind(block.session)
                    .bind(i64::from(block.number))
                    .bind(*from)
                    .execute(&mut *connection)
                    .await?;
            }
            Note::Empty => {
                sqlx::query("DELETE FROM journal").execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

/// Makes the file, if it is not there, for its owner alone; SQLite makes those beside it alike.
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::File::options().create(true).append(true).mode(0o600).open(path)?;
    // One of an earlier version may be for everybody.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn read<T: serde::de::DeserializeOwned>(name: &str, definition: &str) -> Result<T, CatalogError> {
    serde_json::from_str(definition).map_err(|source| CatalogError::Definition { name: name.to_string(), source })
}

fn written<T: serde::Serialize>(name: &str, definition: &T) -> Result<String, CatalogError> {
    serde_json::to_string(definition).map_err(|source| CatalogError::Definition { name: name.to_string(), source })
}

/// What the store holds to be unique. Aggregates have names of their own, and so has each schema: a NUL, which no name can have,
/// tells them apart. In `public` it is what it was before there were others.
fn unique_name(object: &Object) -> String {
    let name = match object.kind() {
        ObjectKind::Aggregate => format!("{}\0aggregate", object.name),
        _ => object.name.clone(),
    };
    match object.schema_name() {
        PUBLIC_SCHEMA => name,
        schema => format!("\0{schema}\0{name}"),
    }
}

async fn meta(connection: &mut SqliteConnection, name: &str, default: i64) -> Result<i64, CatalogError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = ?").bind(name).fetch_optional(&mut *connection).await?;
    match row {
        Some(row) => Ok(row.get(0)),
        None => {
            set_meta(connection, name, default).await?;
            Ok(default)
        }
    }
}

async fn set_meta(connection: &mut SqliteConnection, name: &str, value: i64) -> Result<(), CatalogError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Place, View};

    fn view(id: u32, place: Place) -> Object {
        let body = Body::View(View { sql: String::new(), query: String::new(), columns: vec![], reads: vec![] });
        Object { id: ObjectId(id), name: "v".to_string(), created_us: 0, comment: None, place, body }
    }

    #[tokio::test]
    async fn schemas_and_what_is_in_them_are_there_again_and_the_file_says_that_it_has_some() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(meta(&mut store.connection, "layout", 0).await.unwrap(), LAYOUT);
        store.commit(&[Change::Put(view(20000, Place::default()))]).await.unwrap();
        assert_eq!(meta(&mut store.connection, "layout", 0).await.unwrap(), LAYOUT);
        let schema = Schema { id: ObjectId(20001), name: "marts".to_string(), created_us: 1, comment: None };
        let elsewhere = view(20002, Place::of("marts"));
        store.commit(&[Change::PutSchema(schema.clone()), Change::Put(elsewhere.clone())]).await.unwrap();
        assert_eq!(meta(&mut store.connection, "layout", 0).await.unwrap(), LAYOUT_WITH_SCHEMAS);
        drop(store);
        let mut store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(store.snapshot().schema("marts").map(|found| found.as_ref()), Some(&schema));
        assert_eq!(store.snapshot().get(("marts", "v")).map(|found| found.as_ref()), Some(&elsewhere));
        assert_eq!(store.snapshot().get("v").map(|found| found.id), Some(ObjectId(20000)));
        store.commit(&[Change::Drop(ObjectId(20002)), Change::DropSchema(ObjectId(20001))]).await.unwrap();
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        assert!(store.snapshot().schema("marts").is_none() && store.snapshot().schema("public").is_some());
        assert_eq!(store.snapshot().objects().count(), 1);
    }

    fn named(id: u32, name: &str) -> Object {
        Object { name: name.to_string(), ..view(id, Place::default()) }
    }

    fn names(snapshot: &Snapshot) -> Vec<(u32, &str)> {
        snapshot.objects().map(|object| (object.id.0, object.name.as_str())).collect()
    }

    const BLOCK: BlockId = BlockId { session: 7, number: 1 };

    /// `a` and `b`; in a block their names were swapped by way of a third, one was dropped and another made.
    async fn in_a_block(path: &Path) -> CatalogStore {
        let mut store = CatalogStore::open(path).await.unwrap();
        store.commit(&[Change::Put(named(1, "a")), Change::Put(named(2, "b"))]).await.unwrap();
        for (id, name) in [(1, "old"), (2, "a"), (1, "b")] {
            store.commit_in(BLOCK, &[Change::Put(named(id, name))]).await.unwrap();
        }
        store.commit_in(BLOCK, &[Change::Drop(ObjectId(2))]).await.unwrap();
        store.commit_in(BLOCK, &[Change::Put(named(3, "c"))]).await.unwrap();
        assert_eq!(names(store.snapshot()), [(1, "b"), (3, "c")]);
        store
    }

    #[tokio::test]
    async fn a_block_that_a_crash_has_kept_from_its_end_is_taken_back_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut store = in_a_block(&path).await;
        // Another's change meanwhile stays.
        store.commit(&[Change::Put(named(4, "d"))]).await.unwrap();
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(names(store.snapshot()), [(1, "a"), (2, "b"), (4, "d")]);
        let back = store.recovered().unwrap();
        assert_eq!(back.objects, [1, 2, 3].map(ObjectId).into());
        assert_eq!(back.gone().map(|object| object.id.0).collect::<Vec<_>>(), [3]);
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        assert_eq!((names(store.snapshot()).len(), store.recovered().is_none()), (3, true));
    }

    #[tokio::test]
    async fn a_block_that_has_come_to_its_end_stays_and_says_what_it_has_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut store = in_a_block(&path).await;
        let dropped = store.end(BLOCK).await.unwrap();
        assert_eq!(dropped, [named(2, "a")]);
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(names(store.snapshot()), [(1, "b"), (3, "c")]);
    }

    #[tokio::test]
    async fn what_came_after_a_savepoint_is_taken_back_and_what_came_before_it_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut store = in_a_block(&path).await;
        assert_eq!(store.entries_of(BLOCK), 5);
        let back = store.take_back(BLOCK, 2).await.unwrap();
        assert_eq!(names(&back.after), [(2, "a"), (1, "old")]);
        assert_eq!(back.objects, [1, 2, 3].map(ObjectId).into());
        assert!(back.dropped.is_empty());
        // Made and dropped.
        store.commit_in(BLOCK, &[Change::Put(named(5, "e"))]).await.unwrap();
        store.commit_in(BLOCK, &[Change::Drop(ObjectId(5))]).await.unwrap();
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(names(store.snapshot()), [(1, "a"), (2, "b")]);
        drop(store);
        let mut store = in_a_block(&folder.path().join("other.db")).await;
        store.commit_in(BLOCK, &[Change::Drop(ObjectId(3))]).await.unwrap();
        let back = store.take_back(BLOCK, 0).await.unwrap();
        assert_eq!(names(&back.after), [(1, "a"), (2, "b")]);
        assert_eq!(back.dropped, [named(3, "c")]);
        assert_eq!(store.entries_of(BLOCK), 0);
    }

    #[tokio::test]
    async fn what_a_block_has_changed_is_refused_to_others_until_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = in_a_block(&folder.path().join("catalog.db")).await;
        let other = BlockId { session: 8, number: 1 };
        let refused = store.commit_in(other, &[Change::Put(named(9, "a"))]).await.unwrap_err();
        assert_eq!(refused.to_string(), "the name \"a\" is being changed by another transaction");
        let refused = store.commit(&[Change::Drop(ObjectId(1))]).await.unwrap_err();
        assert!(matches!(refused, CatalogError::Held { by: BLOCK, .. }), "{refused}");
        assert_eq!(refused.to_string(), "view \"b\" is being changed by another transaction");
        // What names mean is not settled: 1 was "a" and is "b", 2 was "b" and is gone, 3 is new. "old" is nothing before and after.
        let settled = |store: &CatalogStore, by: Option<BlockId>, name: &str| {
            store.check_settled(by, name, |snapshot| snapshot.get(name).map(|object| object.id)).is_ok()
        };
        for name in ["a", "b", "c"] {
            assert!(!settled(&store, Some(other), name) && !settled(&store, None, name), "{name}");
            assert!(settled(&store, Some(BLOCK), name), "{name}");
        }
        assert!(settled(&store, None, "old"));
        store.commit_in(other, &[Change::Put(named(9, "z"))]).await.unwrap();
        let commented = Object { comment: Some("the same".to_string()), ..named(9, "z") };
        assert!(!settled(&store, None, "z") && settled(&store, Some(other), "z"));
        store.end(other).await.unwrap();
        store.commit_in(other, &[Change::Put(commented)]).await.unwrap();
        assert!(settled(&store, None, "z"));
        store.end(BLOCK).await.unwrap();
        store.commit(&[Change::Drop(ObjectId(1))]).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_done_for_good_in_a_block_is_in_what_the_block_brings_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut store = in_a_block(&path).await;
        let now = Object { comment: Some("for good".to_string()), ..named(1, "b") };
        let rebased = |was: &Object, now: &Object| Ok(Object { name: was.name.clone(), ..now.clone() });
        store.commit_for_good::<CatalogError>(BLOCK, &[Change::Put(now)], rebased).await.unwrap();
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        let back = store.snapshot().get("a").unwrap();
        assert_eq!((back.id, back.comment.as_deref()), (ObjectId(1), Some("for good")));
    }

    #[tokio::test]
    async fn a_journal_that_a_server_without_one_has_left_behind_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let mut store = in_a_block(&path).await;
        let generation = store.snapshot().generation as i64 + 1;
        set_meta(&mut store.connection, "generation", generation).await.unwrap();
        drop(store);
        let store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(names(store.snapshot()), [(1, "b"), (3, "c")]);
    }

    #[tokio::test]
    async fn a_file_of_before_there_were_schemas_is_opened_and_all_is_in_public() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut before = options.connect().await.unwrap();
        sqlx::raw_sql(
            r#"CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
               INSERT INTO meta VALUES ('layout', 1), ('generation', 7), ('next_id', 20001);
               CREATE TABLE objects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL);
               INSERT INTO objects VALUES (20000, 'v', '{"id":20000,"name":"v","created_us":0,"comment":null,
                 "body":{"View":{"sql":"","query":"","columns":[],"reads":[]}}}');"#,
        )
        .execute(&mut before)
        .await
        .unwrap();
        drop(before);
        let mut store = CatalogStore::open(&path).await.unwrap();
        assert_eq!(
            store.snapshot().get(("public", "v")).map(|found| found.as_ref()),
            Some(&view(20000, Place::default()))
        );
        assert_eq!(store.allocate_id().await.unwrap(), ObjectId(20001));
    }
}
