//! The durable home of the catalog: one SQLite file, one row per object, definitions as JSON. It has verifiers of passwords
//! and values of secrets: it is for the server's user only.
//!
//! A commit is one SQLite transaction with `synchronous = FULL`; when it returns, the change survives a power cut.

use crate::{Access, Change, IsSystem, Object, ObjectId, ObjectKind, PUBLIC_SCHEMA, Schema, Secret, Snapshot};
use sqlx::{
    ConnectOptions, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{path::Path, sync::Arc};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("catalog store: {0}")]
    Store(#[from] sqlx::Error),
    #[error("catalog object \"{name}\" cannot be read: {source}")]
    Definition { name: String, source: serde_json::Error },
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

pub struct CatalogStore {
    connection: SqliteConnection,
    snapshot: Snapshot,
    next_id: u32,
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
             CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, definition TEXT NOT NULL);",
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
        Ok(CatalogStore { connection, snapshot, next_id: next_id as u32 })
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
    pub async fn commit(&mut self, changes: &[Change]) -> Result<Snapshot, CatalogError> {
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
        set_meta(&mut tx, "generation", next.generation as i64).await?;
        tx.commit().await?;
        self.snapshot = next.clone();
        Ok(next)
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
