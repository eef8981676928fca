//! Which metadata file is a table's current one: `catalog.db`, an Iceberg SQL catalog in SQLite.
//!
//! The two tables are those of Iceberg's `JdbcCatalog`, which PyIceberg's and Spark's SQL catalogs share. They are kept by our
//! own statements and not by `iceberg-catalog-sql`: that crate ignores a failing `COMMIT` (a full disk would look like
//! success), its commit re-reads the table, which would let a fenced writer's commit slip in after our check of the
//! epoch, and its connection pool has the flaw that `open` says how to avoid (docs/decisions/0009).

use super::disk;
use iceberg::{
    NamespaceIdent, Runtime, TableIdent,
    io::{FileIO, FileIOBuilder, LocalFsStorageFactory},
    spec::TableMetadata,
    table::Table,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{SeamError, SeamResult};

/// Readers find our tables under this catalog name: a SQL catalog's rows are keyed by it.
pub const CATALOG: &str = "tidemark";
/// Of a table whose name says no other.
const NAMESPACE: &str = "public";

/// The namespace and the name in it of a history table: `namespace.table`, or `table` in `public`. A namespace has no dot.
pub fn place(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((NAMESPACE, name))
}

/// The same put together.
fn placed((namespace, name): (String, String)) -> String {
    match namespace == NAMESPACE && !name.contains('.') {
        true => name,
        false => format!("{namespace}.{name}"),
    }
}

/// How long a writer waits for another process (PyIceberg, a Spark job) that holds the catalog file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Two: a query's read need not wait for a commit. More would only queue on the file.
const CONNECTIONS_MAX: u32 = 2;

/// <https://github.com/apache/iceberg/blob/main/core/src/main/java/org/apache/iceberg/jdbc/JdbcUtil.java>, schema V1.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS iceberg_tables (\
     catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL, \
     metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5), \
     PRIMARY KEY (catalog_name, table_namespace, table_name))",
    "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (\
     catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, \
     property_key VARCHAR(255), property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key))",
];

/// A namespace is there when it has a property.
const OUR_NAMESPACE: &str = "INSERT OR IGNORE INTO iceberg_namespace_properties \
     (catalog_name, namespace, property_key, property_value) VALUES (?, ?, 'exists', 'true')";

pub struct CatalogFile {
    files: FileIO,
    runtime: Runtime,
    pool: SqlitePool,
}

impl CatalogFile {
    /// Opens `<warehouse>/catalog.db`, creating it where it is not there. `warehouse` is absolute.
    pub async fn open(warehouse: &Path) -> SeamResult<Self> {
        let file = warehouse.join("catalog.db");
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            // A reader that keeps a transaction open must not block commits.
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            // Without limits on a connection's age the pool has no sweeper. In sqlx 0.8 that may read a wrapped count of
            // idle connections and loop over it for ever, with a thread of the runtime and the tasks that wait on it
            // (<https://github.com/launchbadge/sqlx/issues/3645>). A connection to a file does not age.
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(options)
            .await
            .map_err(|error| sql_error(&format!("opening {}", file.display()), &error))?;
        let statements = TABLES.map(sqlx::query).into_iter();
        for statement in statements.chain([sqlx::query(OUR_NAMESPACE).bind(CATALOG).bind(NAMESPACE)]) {
            let done = statement.execute(&pool).await;
            done.map_err(|error| sql_error(&format!("preparing {}", file.display()), &error))?;
        }
        let failed = |error| disk::failed(&format!("opening {}", file.display()), &error);
        Ok(CatalogFile {
            files: FileIOBuilder::new(Arc::new(LocalFsStorageFactory)).build(),
            runtime: Runtime::try_current().map_err(failed)?,
            pool,
        })
    }

    pub fn ident(&self, name: &str) -> TableIdent {
        let (namespace, name) = place(name);
        TableIdent::new(NamespaceIdent::new(namespace.to_string()), name.to_string())
    }

    /// The table as it is now, never a cached one; `None` where there is no such table.
    pub async fn load(&self, name: &str) -> SeamResult<Option<Table>> {
        let Some(location) = self.metadata_location(name).await? else { return Ok(None) };
        let failed = |error| disk::failed(&format!("reading history table \"{name}\""), &error);
        let metadata = TableMetadata::read_from(&self.files, &location).await.map_err(failed)?;
        Ok(Some(self.table(self.ident(name), location, metadata).map_err(failed)?))
    }

    /// A table whose metadata at `location` is, or will be, this.
    pub fn table(&self, ident: TableIdent, location: String, metadata: TableMetadata) -> iceberg::Result<Table> {
        Table::builder()
            .file_io(self.files.clone())
            .identifier(ident)
            .metadata_location(location)
            .metadata(metadata)
            .runtime(self.runtime.clone())
            .build()
    }

    /// The file that the catalog names as the table's metadata, whether or not it can be read.
    pub async fn metadata_location(&self, name: &str) -> SeamResult<Option<String>> {
        let row: Option<(Option<String>,)> = sqlx::query_as(
            "SELECT metadata_location FROM iceberg_tables \
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
        )
        .bind(CATALOG)
        .bind(place(name).0)
        .bind(place(name).1)
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| sql_error(&format!("reading history table \"{name}\""), &error))?;
        Ok(row.and_then(|(location,)| location))
    }

    /// The tables whose folder was made for this view, by its name. Names can look alike: the properties decide.
    pub async fn made_for(&self, view: ObjectId) -> SeamResult<Vec<String>> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT table_namespace, table_name FROM iceberg_tables \
             WHERE catalog_name = ? AND metadata_location LIKE ? ORDER BY table_namespace, table_name",
        )
        .bind(CATALOG)
        .bind(format!("%-{view}-%"))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| sql_error(&format!("looking for the history table of view {view}"), &error))?;
        Ok(rows.into_iter().map(placed).collect())
    }

    /// The tables whose folder was made for a view that is not among these, by its name (`name-view-random`).
    pub async fn made_for_others(&self, views: &BTreeSet<ObjectId>) -> SeamResult<Vec<String>> {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables \
             WHERE catalog_name = ? AND metadata_location IS NOT NULL ORDER BY table_namespace, table_name",
        )
        .bind(CATALOG)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| sql_error("looking for history tables without a view", &error))?;
        let is_other = |location: &str| {
            let folder = location.rsplit_once("/metadata/").map_or(location, |(folder, _)| folder);
            let view = folder.rsplit('-').nth(1).and_then(|view| view.parse().ok()).map(ObjectId);
            view.is_some_and(|view| !views.contains(&view))
        };
        let others = rows.into_iter().filter(|(.., location)| is_other(location));
        Ok(others.map(|(namespace, name, _)| placed((namespace, name))).collect())
    }

    /// A namespace is there as soon as something is in it, and stays.
    async fn add_namespace(&self, name: &str) -> SeamResult<()> {
        let added = sqlx::query(OUR_NAMESPACE).bind(CATALOG).bind(place(name).0).execute(&self.pool).await;
        added.map(drop).map_err(|error| sql_error(&format!("preparing the namespace of \"{name}\""), &error))
    }

    pub async fn insert(&self, name: &str, metadata_location: &str) -> SeamResult<()> {
        self.add_namespace(name).await?;
        let result = sqlx::query(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) \
             VALUES (?, ?, ?, ?, 'TABLE')",
        )
        .bind(CATALOG)
        .bind(place(name).0)
        .bind(place(name).1)
        .bind(metadata_location)
        .execute(&self.pool)
        .await;
        match result {
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(SeamError::NotDone(format!("history table \"{name}\" already exists")))
            }
            Err(error) => Err(sql_error(&format!("creating history table \"{name}\""), &error)),
        }
    }

    /// Moves the table from one metadata file to the next: the commit. Refused if the table has moved since.
    pub async fn swap(&self, name: &str, from: &str, to: &str) -> SeamResult<()> {
        let result = sqlx::query(
            "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? \
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?",
        )
        .bind(to)
        .bind(from)
        .bind(CATALOG)
        .bind(place(name).0)
        .bind(place(name).1)
        .bind(from)
        .execute(&self.pool)
        .await
        .map_err(|error| sql_error(&format!("committing to history table \"{name}\""), &error))?;
        if result.rows_affected() == 0 {
            return Err(SeamError::NotDone(format!(
                "committing to history table \"{name}\": another writer committed, renamed or dropped it meanwhile"
            )));
        }
        Ok(())
    }

    pub async fn remove(&self, name: &str) -> SeamResult<()> {
        sqlx::query("DELETE FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?")
            .bind(CATALOG)
            .bind(place(name).0)
            .bind(place(name).1)
            .execute(&self.pool)
            .await
            .map_err(|error| sql_error(&format!("dropping history table \"{name}\""), &error))?;
        Ok(())
    }

    pub async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        self.add_namespace(to).await?;
        let result = sqlx::query(
            "UPDATE iceberg_tables SET table_namespace = ?, table_name = ? \
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
        )
        .bind(place(to).0)
        .bind(place(to).1)
        .bind(CATALOG)
        .bind(place(from).0)
        .bind(place(from).1)
        .execute(&self.pool)
        .await;
        match result {
            Ok(done) if done.rows_affected() > 0 => Ok(()),
            Ok(_) => Err(SeamError::NotDone(format!("history table \"{from}\" does not exist"))),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(SeamError::NotDone(format!("history table \"{to}\" already exists")))
            }
            Err(error) => Err(sql_error(&format!("renaming history table \"{from}\""), &error)),
        }
    }

    /// Closes the file; what was committed is in it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// What an error of a single statement says about its effect. SQLite's codes: <https://www.sqlite.org/rescode.html>.
fn sql_error(what: &str, error: &sqlx::Error) -> SeamError {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const IO: u32 = 10;
    const FULL: u32 = 13;
    let message = format!("{what}: {error}");
    match error {
        sqlx::Error::Database(database) => {
            // The primary code is the low byte of the extended one.
            match database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
                Some(BUSY | LOCKED) => SeamError::NotDone(format!(
                    "{message} (another process holds the Iceberg catalog; it was waited for {} s)",
                    BUSY_TIMEOUT.as_secs()
                )),
                Some(FULL) => SeamError::Full(message),
                // The statement may have failed before or after the write that commits it.
                Some(IO) => SeamError::Unknown(message),
                _ => SeamError::NotDone(message),
            }
        }
        sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => SeamError::Unknown(message),
        _ => SeamError::NotDone(message),
    }
}
