//! Which metadata file is a table's current one: a catalog of Iceberg, in a file of SQLite, in a PostgreSQL or behind REST.

use super::{place::Place, postgres::PostgresCatalog, rest::RestCatalog, sqlite::CatalogFile};
use iceberg::{TableIdent, TableUpdate, spec::TableMetadata, table::Table};
use std::collections::BTreeSet;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{SeamError, SeamResult};

/// Of a table whose name says no other.
pub const NAMESPACE: &str = "public";

/// The namespace and the name in it of a history table: `namespace.table`, or `table` in `public`. A namespace has no dot.
pub fn parts(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((NAMESPACE, name))
}

/// The same put together.
pub fn placed((namespace, name): (String, String)) -> String {
    match namespace == NAMESPACE && !name.contains('.') {
        true => name,
        false => format!("{namespace}.{name}"),
    }
}

pub enum Catalog {
    /// We write the metadata files, and swap one for the next.
    File(CatalogFile),
    /// The same, in a database that others use too.
    Postgres(Box<PostgresCatalog>),
    /// The server writes them, from updates.
    Rest(Box<RestCatalog>),
}

/// What a table becomes by a commit.
pub struct Next {
    pub metadata: TableMetadata,
    /// Where its file goes, if it is ours to write.
    pub location: String,
    /// The same, from what it was.
    pub updates: Vec<TableUpdate>,
    /// Milliseconds by which the times of `metadata` are later than those of `updates` (`times.rs`).
    pub ahead_ms: i64,
}

impl Catalog {
    /// Whether metadata files are written, and removed when they are old, by the server.
    pub fn writes_metadata(&self) -> bool {
        matches!(self, Catalog::Rest(_))
    }

    /// Whether every commit has to make a snapshot, because nothing else can be compared (`rest.rs`).
    pub fn compares_snapshots(&self) -> bool {
        matches!(self, Catalog::Rest(_))
    }

    /// The table as it is now, never a cached one; `None` where there is no such table.
    pub async fn load(&self, name: &str) -> SeamResult<Option<Table>> {
        match self {
            Catalog::File(file) => file.load(name).await,
            Catalog::Postgres(postgres) => postgres.load(name).await,
            Catalog::Rest(rest) => rest.load(name).await,
        }
    }

    /// The same, if this data directory made it, where the catalog may have others' tables: those need not be readable.
    pub async fn load_of(&self, name: &str, directory: Option<&str>) -> SeamResult<Option<Table>> {
        match (self, directory) {
            (Catalog::Rest(rest), Some(directory)) => rest.load_of(name, directory).await,
            _ => self.load(name).await,
        }
    }

    /// A table whose metadata at `location` is, or will be, this.
    pub fn table(&self, ident: TableIdent, location: String, metadata: TableMetadata) -> iceberg::Result<Table> {
        match self {
            Catalog::File(file) => file.table(ident, location, metadata),
            Catalog::Postgres(postgres) => postgres.table(ident, location, metadata),
            Catalog::Rest(rest) => rest.table(ident, location, metadata),
        }
    }

    /// The file that the catalog names as the table's metadata; behind REST only if it can be read.
    pub async fn metadata_location(&self, name: &str) -> SeamResult<Option<String>> {
        match self {
            Catalog::File(file) => file.metadata_location(name).await,
            Catalog::Postgres(postgres) => postgres.metadata_location(name).await,
            Catalog::Rest(rest) => {
                Ok(rest.load(name).await?.and_then(|table| table.metadata_location().map(str::to_string)))
            }
        }
    }

    /// Tables among which are those made for the view. The properties decide.
    pub async fn made_for(&self, view: ObjectId) -> SeamResult<Vec<String>> {
        match self {
            Catalog::File(file) => file.made_for(view).await,
            Catalog::Postgres(postgres) => postgres.made_for(view).await,
            Catalog::Rest(rest) => rest.names().await,
        }
    }

    /// Tables among which are those made for views that are not among these. The properties decide.
    pub async fn made_for_others(&self, views: &BTreeSet<ObjectId>) -> SeamResult<Vec<String>> {
        match self {
            Catalog::File(file) => file.made_for_others(views).await,
            Catalog::Postgres(postgres) => postgres.made_for_others(views).await,
            Catalog::Rest(rest) => rest.names().await,
        }
    }

    /// Makes a new table of this metadata, whose file goes to `first` if it is ours to write.
    pub async fn create(&self, place: &Place, name: &str, metadata: &TableMetadata, first: &str) -> SeamResult<()> {
        if let Catalog::Rest(rest) = self {
            return rest.create(name, metadata).await;
        }
        let json = serde_json::to_vec(metadata)
            .map_err(|error| SeamError::NotDone(format!("creating history table \"{name}\": {error}")))?;
        place.write(first, json).await?;
        place.settle_table(metadata.location())?;
        let created = match self {
            Catalog::File(file) => file.insert(name, first).await,
            Catalog::Postgres(postgres) => postgres.insert(name, first).await,
            Catalog::Rest(_) => Err(SeamError::not_done("behind REST the server names its metadata files")),
        };
        if matches!(created, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
            place.discard_table(metadata.location()).await;
        }
        created
    }

    /// Makes `next` what the table is, in the place of `base`: all that it names is durable. Refused if the table has moved since.
    /// Leaves no metadata file where it certainly did not happen.
    pub async fn commit(&self, place: &Place, name: &str, base: &Table, next: &Next) -> SeamResult<()> {
        let what = |error: &dyn std::fmt::Display| {
            SeamError::NotDone(format!("committing to history table \"{name}\": {error}"))
        };
        if let Catalog::Rest(rest) = self {
            place.still_ours().await?;
            return rest.commit(name, base, &next.updates, next.ahead_ms).await;
        }
        let from = base.metadata_location_result().map_err(|error| what(&error))?;
        let json = serde_json::to_vec(&next.metadata).map_err(|error| what(&error))?;
        let swapped = match place.write(&next.location, json).await {
            Ok(()) => match place.still_ours().await {
                Ok(()) => match self {
                    Catalog::File(file) => file.swap(name, from, &next.location).await,
                    Catalog::Postgres(postgres) => postgres.swap(name, from, &next.location).await,
                    Catalog::Rest(_) => Err(SeamError::not_done("behind REST the server names its metadata files")),
                },
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if matches!(swapped, Err(SeamError::NotDone(_) | SeamError::Full(_))) {
            place.discard(vec![next.location.clone()]).await;
        }
        swapped
    }

    pub async fn remove(&self, name: &str) -> SeamResult<()> {
        match self {
            Catalog::File(file) => file.remove(name).await,
            Catalog::Postgres(postgres) => postgres.remove(name).await,
            Catalog::Rest(rest) => rest.remove(name).await,
        }
    }

    pub async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        match self {
            Catalog::File(file) => file.rename(from, to).await,
            Catalog::Postgres(postgres) => postgres.rename(from, to).await,
            Catalog::Rest(rest) => rest.rename(from, to).await,
        }
    }

    /// Closes a file or connections; what was committed stays.
    pub async fn close(&self) {
        match self {
            Catalog::File(file) => file.close().await,
            Catalog::Postgres(postgres) => postgres.close().await,
            Catalog::Rest(_) => {}
        }
    }
}
