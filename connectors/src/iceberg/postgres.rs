//! The catalog as two tables of a PostgreSQL database, those that `sqlite.rs` keeps in a file: an Iceberg SQL catalog, which
//! PyIceberg's `SqlCatalog` and Spark's `JdbcCatalog` read without us. Several servers and engines may share them.
//!
//! | what comes of a statement that changes something | |
//! |---|---|
//! | done | done, and on the database's disk (`SESSION`) |
//! | ERROR | certainly not done: each statement is a transaction by itself |
//! | no connection | certainly not done |
//! | FATAL, PANIC, no answer, half of one, an ERROR of classes 08 and 40003, which say so themselves | nobody knows |
//!
//! The commit is one `UPDATE` where the metadata file is still the one that was read, and no name of a metadata file comes
//! twice. So whoever checked his epoch before another's commit fails, and so does a commit that arrives late. Statements that
//! only read, and the one that removes, are made again when they fail for a reason that passes.

mod address;
mod tls;

use super::{
    catalog::{NAMESPACE, parts, placed},
    disk, patient,
    place::Place,
};
pub use address::PostgresSettings;
use futures::{
    TryStreamExt,
    future::{Either, select},
};
use iceberg::{NamespaceIdent, Runtime, TableIdent, io::FileIO, spec::TableMetadata, table::Table};
use std::{collections::BTreeSet, error::Error as StdError, pin::pin, sync::Arc, time::Duration};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{Clock, SeamError, SeamResult};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};
use tokio_postgres::{
    Client, Connection, Error, NoTls, Row, Socket,
    error::{Severity, SqlState},
    types::Type,
};

/// How long it may take to have a connection that statements can be sent on, with its name looked up and its password shown.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer is waited for: longer than the server itself works on a statement (`SESSION`), so that it is nearly
/// always the server who gives up, and says that nothing happened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What every connection begins with. A row that another engine's transaction holds is waited for as a busy file of SQLite
/// is, 10 s; a statement of one row that takes 20 s meets a database that is not well. A commit that was acknowledged has
/// to outlive the database's power cut, whatever its default is: the files before it are removed.
const SESSION: &str = "SET lock_timeout = '10s'; SET statement_timeout = '20s'; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// As in `sqlite.rs`, schema V1 of `JdbcCatalog`.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS iceberg_tables (\
     catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL, \
     metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5), \
     PRIMARY KEY (catalog_name, table_namespace, table_name))",
    "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (\
     catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, \
     property_key VARCHAR(255) NOT NULL, property_value VARCHAR(1000), \
     PRIMARY KEY (catalog_name, namespace, property_key))",
];

/// Whether the tables are there, and whether in the schema that says what is a table and what a view: PyIceberg, and Spark in
/// its schema V0, make them without.
const LAYOUT: &str = "SELECT CASE \
     WHEN to_regclass('iceberg_tables') IS NULL OR to_regclass('iceberg_namespace_properties') IS NULL THEN 'none' \
     WHEN EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('iceberg_tables') \
                  AND attname = 'iceberg_type' AND NOT attisdropped) THEN 'typed' \
     ELSE 'untyped' END::text";

pub struct PostgresCatalog {
    settings: PostgresSettings,
    place: Place,
    files: FileIO,
    runtime: Runtime,
    clock: Arc<dyn Clock>,
    /// Whether rows say that they are tables.
    is_typed: bool,
    /// Two: a query's read need not wait for a commit that waits for a lock.
    reading: Link,
    writing: Link,
}

/// A connection that is made when it is needed, and again when it is lost.
type Link = Mutex<Option<Arc<Client>>>;

/// The columns of each row, as text.
type Rows = Vec<Vec<Option<String>>>;

/// A statement that did not do.
struct Refused {
    code: Option<SqlState>,
    /// Whether the same may do in a moment.
    passes: bool,
    error: SeamError,
}

impl PostgresCatalog {
    /// Makes the two tables where they are not there. The history's files are at `place`.
    pub async fn open(settings: &PostgresSettings, place: &Place, clock: Arc<dyn Clock>) -> SeamResult<Self> {
        let what = "opening the history's catalog";
        let runtime = Runtime::try_current().map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?;
        let mut catalog = PostgresCatalog {
            settings: settings.clone(),
            place: place.clone(),
            files: place.file_io(),
            runtime,
            clock,
            is_typed: true,
            reading: Mutex::default(),
            writing: Mutex::default(),
        };
        let mut layout = catalog.layout(what).await?;
        if layout == "none" {
            let mut refused = None;
            for statement in TABLES {
                // Two servers that make them at once are refused in several ways: what is there then decides.
                if let Err(error) = catalog.change(what, statement, &[]).await {
                    refused = Some(error);
                }
            }
            layout = catalog.layout(what).await?;
            if layout == "none" {
                return Err(refused.map_or_else(
                    || SeamError::NotDone(format!("{what}: its tables are not there after they were made")),
                    |refused| refused.error.into_not_done(),
                ));
            }
        }
        catalog.is_typed = layout == "typed";
        catalog.add_namespace(NAMESPACE).await?;
        Ok(catalog)
    }

    async fn layout(&self, what: &str) -> SeamResult<String> {
        let rows = self.read(what, LAYOUT, &[]).await?;
        let layout = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        layout.ok_or_else(|| SeamError::NotDone(format!("{what}: the database does not say which tables it has")))
    }

    /// The namespace of a history table there, and its name in it.
    fn there<'a>(&self, name: &'a str) -> (String, &'a str) {
        let (namespace, name) = parts(name);
        (format!("{}{namespace}", self.settings.prefix), name)
    }

    /// A history table's name, from what it is called there. `None`: in a namespace that is not ours.
    fn here(&self, namespace: &str, name: String) -> Option<String> {
        let ours = namespace.strip_prefix(&self.settings.prefix)?;
        Some(placed((ours.to_string(), name)))
    }

    fn ident(&self, name: &str) -> TableIdent {
        let (namespace, name) = self.there(name);
        TableIdent::new(NamespaceIdent::new(namespace), name.to_string())
    }

    /// The table as it is now, never a cached one; `None` where there is no such table.
    pub async fn load(&self, name: &str) -> SeamResult<Option<Table>> {
        let Some(location) = self.metadata_location(name).await? else { return Ok(None) };
        if !self.place.covers(&location) {
            return Err(SeamError::NotDone(format!(
                "reading history table \"{name}\": its files are at {location}, where another server or engine has made \
                 it: give the history's namespaces a prefix of their own (?prefix=), or its catalog a name (?catalog=)"
            )));
        }
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
        let (namespace, table) = self.there(name);
        let rows = self
            .read(
                &format!("reading history table \"{name}\""),
                "SELECT metadata_location FROM iceberg_tables \
                 WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3",
                &[&self.settings.catalog, &namespace, table],
            )
            .await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// The tables of this warehouse whose folder was made for this view, by its name. Names can look alike: the properties
    /// decide.
    pub async fn made_for(&self, view: ObjectId) -> SeamResult<Vec<String>> {
        let what = format!("looking for the history table of view {view}");
        let part = format!("-{view}-");
        let tables = self.tables(&what).await?;
        Ok(tables.into_iter().filter(|(_, location)| location.contains(&part)).map(|(name, _)| name).collect())
    }

    /// The tables of this warehouse whose folder was made for a view that is not among these, by its name
    /// (`name-view-random`).
    pub async fn made_for_others(&self, views: &BTreeSet<ObjectId>) -> SeamResult<Vec<String>> {
        let is_other = |location: &str| {
            let folder = location.rsplit_once("/metadata/").map_or(location, |(folder, _)| folder);
            let view = folder.rsplit('-').nth(1).and_then(|view| view.parse().ok()).map(ObjectId);
            view.is_some_and(|view| !views.contains(&view))
        };
        let tables = self.tables("looking for history tables without a view").await?;
        Ok(tables.into_iter().filter(|(_, location)| is_other(location)).map(|(name, _)| name).collect())
    }

    /// The tables of our namespaces whose files are in this warehouse, and their metadata files. Others' need not be readable.
    async fn tables(&self, what: &str) -> SeamResult<Vec<(String, String)>> {
        let rows = self
            .read(
                what,
                "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables \
                 WHERE catalog_name = $1 AND metadata_location IS NOT NULL ORDER BY table_namespace, table_name",
                &[&self.settings.catalog],
            )
            .await?;
        let ours = rows.into_iter().filter_map(|row| {
            let [namespace, name, location] = <[Option<String>; 3]>::try_from(row).ok()?;
            let location = location.filter(|location| self.place.covers(location))?;
            Some((self.here(&namespace?, name?)?, location))
        });
        Ok(ours.collect())
    }

    /// A namespace is there as soon as something is in it, and stays.
    async fn add_namespace(&self, name: &str) -> SeamResult<()> {
        let (namespace, _) = self.there(name);
        let added = self
            .change(
                &format!("preparing the namespace of \"{name}\""),
                "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value) \
                 VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING",
                &[&self.settings.catalog, &namespace],
            )
            .await;
        // What comes after it is not asked then.
        added.map(drop).map_err(|refused| refused.error.into_not_done())
    }

    pub async fn insert(&self, name: &str, metadata_location: &str) -> SeamResult<()> {
        let (namespace, table) = self.there(name);
        self.add_namespace(name).await?;
        let statement = match self.is_typed {
            true => {
                "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) \
                 VALUES ($1, $2, $3, $4, 'TABLE')"
            }
            false => {
                "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location) \
                 VALUES ($1, $2, $3, $4)"
            }
        };
        let values: [&str; 4] = [&self.settings.catalog, &namespace, table, metadata_location];
        match self.change(&format!("creating history table \"{name}\""), statement, &values).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.code == Some(SqlState::UNIQUE_VIOLATION) => {
                Err(SeamError::NotDone(format!("history table \"{name}\" already exists")))
            }
            Err(refused) => Err(refused.error),
        }
    }

    /// Moves the table from one metadata file to the next: the commit. Refused if the table has moved since.
    pub async fn swap(&self, name: &str, from: &str, to: &str) -> SeamResult<()> {
        let what = format!("committing to history table \"{name}\"");
        let (namespace, table) = self.there(name);
        let moved = self
            .change(
                &what,
                "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2 \
                 WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $2 \
                 RETURNING table_name",
                &[to, from, &self.settings.catalog, &namespace, table],
            )
            .await
            .map_err(|refused| refused.error)?;
        match moved.is_empty() {
            false => Ok(()),
            true => {
                Err(SeamError::NotDone(format!("{what}: another writer committed, renamed or dropped it meanwhile")))
            }
        }
    }

    /// Forgets a table; its files stay.
    pub async fn remove(&self, name: &str) -> SeamResult<()> {
        let (namespace, table) = self.there(name);
        let removed = self
            .again(
                &self.writing,
                &format!("dropping history table \"{name}\""),
                "DELETE FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3",
                &[&self.settings.catalog, &namespace, table],
            )
            .await;
        removed.map(drop)
    }

    pub async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        self.add_namespace(to).await?;
        let (new_namespace, new_name) = self.there(to);
        let (namespace, name) = self.there(from);
        let renamed = self
            .change(
                &format!("renaming history table \"{from}\""),
                "UPDATE iceberg_tables SET table_namespace = $1, table_name = $2 \
                 WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 RETURNING table_name",
                &[&new_namespace, new_name, &self.settings.catalog, &namespace, name],
            )
            .await;
        match renamed {
            Ok(rows) if !rows.is_empty() => Ok(()),
            Ok(_) => Err(SeamError::NotDone(format!("history table \"{from}\" does not exist"))),
            Err(refused) if refused.code == Some(SqlState::UNIQUE_VIOLATION) => {
                Err(SeamError::NotDone(format!("history table \"{to}\" already exists")))
            }
            Err(refused) => Err(refused.error),
        }
    }

    /// Lets the connections go; what was committed is in the database.
    pub async fn close(&self) {
        for link in [&self.reading, &self.writing] {
            *link.lock().await = None;
        }
    }

    /// A statement that only reads.
    async fn read(&self, what: &str, statement: &str, values: &[&str]) -> SeamResult<Rows> {
        self.again(&self.reading, what, statement, values).await.map_err(SeamError::into_not_done)
    }

    /// Once: nobody knows what came of one that is not answered.
    async fn change(&self, what: &str, statement: &str, values: &[&str]) -> Result<Rows, Refused> {
        self.run(&self.writing, what, statement, values).await
    }

    async fn again(&self, link: &Link, what: &str, statement: &str, values: &[&str]) -> SeamResult<Rows> {
        let mut tries = 1;
        loop {
            match self.run(link, what, statement, values).await {
                Ok(rows) => return Ok(rows),
                Err(refused) if refused.passes && tries < patient::TRIES => {
                    tracing::debug!(tries, error = %refused.error, "a statement for the catalog is made again");
                    self.clock.sleep(patient::wait(tries, self.clock.random())).await;
                    tries += 1;
                }
                Err(refused) => return Err(refused.error),
            }
        }
    }

    async fn run(&self, link: &Link, what: &str, statement: &str, values: &[&str]) -> Result<Rows, Refused> {
        let client = self.client(link, what).await?;
        let values: Vec<(String, Type)> = values.iter().map(|value| ((*value).to_string(), Type::TEXT)).collect();
        // To the end, which comes when it is committed.
        let asked = async { client.query_typed_raw(statement, values).await?.try_collect::<Vec<Row>>().await };
        let refused = match self.in_time(ANSWER_TIMEOUT, asked).await {
            Some(Ok(rows)) => {
                let rows: Result<Rows, Error> = rows.iter().map(columns).collect();
                return rows.map_err(|error| self.refused(what, &error));
            }
            Some(Err(error)) if is_error_of_a_statement(&error) => return Err(self.refused(what, &error)),
            Some(Err(error)) => self.refused(what, &error),
            // Not asked again: it was waited for long enough.
            None => Refused {
                code: None,
                passes: false,
                error: SeamError::Unknown(format!(
                    "{what}: no answer of {} within {} s",
                    self.settings.shown,
                    ANSWER_TIMEOUT.as_secs()
                )),
            },
        };
        let mut kept = link.lock().await;
        // Another statement may have connected again meanwhile.
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &client)) {
            *kept = None;
        }
        Err(refused)
    }

    async fn client(&self, link: &Link, what: &str) -> Result<Arc<Client>, Refused> {
        // Held while it is connected, so that many statements connect once.
        let mut kept = link.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Arc::new(self.connect(what).await?);
        *kept = Some(client.clone());
        Ok(client)
    }

    /// After any error nothing has happened: nothing was asked.
    async fn connect(&self, what: &str) -> Result<Client, Refused> {
        let connecting = async {
            let client = match &self.settings.tls {
                Some(tls) => self.driven(self.settings.config.connect(tls.clone()).await?),
                None => self.driven(self.settings.config.connect(NoTls).await?),
            };
            client.batch_execute(SESSION).await?;
            Ok::<Client, Error>(client)
        };
        match self.in_time(CONNECT_TIMEOUT, connecting).await {
            Some(Ok(client)) => Ok(client),
            Some(Err(error)) => {
                let hint = if error.as_db_error().is_none() { " (HINT: is the database running?)" } else { "" };
                let Refused { code, passes, error } = self.refused(what, &error);
                let error = SeamError::NotDone(format!("{}{hint}", error.into_not_done()));
                Err(Refused { code, passes, error })
            }
            None => Err(Refused {
                code: None,
                passes: false,
                error: SeamError::NotDone(format!(
                    "{what}: no connection to {} within {} s (HINT: is the database running?)",
                    self.settings.shown,
                    CONNECT_TIMEOUT.as_secs()
                )),
            }),
        }
    }

    /// The connection is driven by a task, which ends with the client.
    fn driven<S>(&self, (client, connection): (Client, Connection<Socket, S>)) -> Client
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let driven = async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %told(&error), "a connection to the history's catalog has ended");
            }
        };
        self.clock.spawn("postgres-catalog", Box::pin(driven));
        client
    }

    async fn in_time<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let work = pin!(work);
        match select(work, self.clock.sleep(limit)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    fn refused(&self, what: &str, error: &Error) -> Refused {
        let code = error.code().cloned();
        let hint = match &code {
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
                " (another session holds the row in the Iceberg catalog; it was waited for 10 s)"
            }
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                " (HINT: the role needs SELECT, INSERT, UPDATE and DELETE on iceberg_tables and \
                 iceberg_namespace_properties, and CREATE on their schema where they are not there yet)"
            }
            Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
                " (HINT: this is a replica: name the primary, or all with target_session_attrs=read-write)"
            }
            // 28000, 28P01: who we are.
            Some(code) if code.code().starts_with("28") => {
                " (HINT: check the user and the password: in --history-catalog, or the password as \
                 --history-catalog-credential)"
            }
            _ => "",
        };
        let text = format!("{what}: {}: {}{hint}", self.settings.shown, told(error));
        let error = match (&code, is_error_of_a_statement(error)) {
            (Some(code), true) if *code == SqlState::DISK_FULL => SeamError::Full(text),
            (_, true) => SeamError::NotDone(text),
            (_, false) => SeamError::Unknown(text),
        };
        Refused { passes: passes(code.as_ref()), code, error }
    }
}

/// Whether the statement failed and its transaction with it. FATAL, also one that an administrator has asked for, may come
/// after the commit and before it is answered. What speaks for a PostgreSQL, as a pooler or a cluster does, may call ERROR what
/// it does not know itself: its own connection is lost (08), or the statement's end is unknown (40003).
fn is_error_of_a_statement(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        let is_error = match error.parsed_severity() {
            Some(severity) => severity == Severity::Error,
            None => error.severity() == "ERROR",
        };
        let code = error.code().code();
        is_error && !code.starts_with("08") && code != "40003"
    })
}

/// Whether the same statement may do in a moment: there was no answer, or the server starts, ends or has too many sessions.
fn passes(code: Option<&SqlState>) -> bool {
    code.is_none_or(|code| {
        let code = code.code();
        // 08: connections; 57P: the server ends, or is not there yet.
        code.starts_with("08") || code.starts_with("57P") || code == SqlState::TOO_MANY_CONNECTIONS.code()
    })
}

/// What went wrong, in one line.
fn told(error: &Error) -> String {
    let Some(database) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = StdError::source(error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        return text;
    };
    let detail = database.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{}{detail}", database.message())
}

fn columns(row: &Row) -> Result<Vec<Option<String>>, Error> {
    (0..row.len()).map(|at| row.try_get::<usize, Option<String>>(at)).collect()
}
