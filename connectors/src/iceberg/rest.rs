//! Which metadata file is a table's current one, kept by an Iceberg REST catalog:
//! <https://github.com/apache/iceberg/blob/main/open-api/rest-catalog-open-api.yaml>.
//!
//! The server writes the metadata files; a commit is sent as updates, with what must still hold. A catalog cannot be asked
//! to compare properties, and our tag and writer epoch are properties. So every commit here makes a snapshot, also one
//! without steps, and requires that the snapshot it was made from is still the newest: whoever checked its epoch before
//! another's commit fails. A commit of which nobody knows whether it happened fails likewise, should it arrive late.

mod held;
mod http;

use super::{
    catalog::{parts, placed},
    place::Place,
    tag,
};
use http::Http;
use iceberg::{
    NamespaceIdent, Runtime, TableIdent, TableRequirement, TableUpdate,
    io::FileIO,
    spec::{MAIN_BRANCH, TableMetadata},
    table::Table,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tidemark_engine::seam::{Clock, SeamError, SeamResult};

pub use http::Credential;

/// Tables that a page of a listing has at most; the catalog may give fewer.
const PAGE: &str = "1000";

/// Where a REST catalog is, and how it knows us.
#[derive(Debug, Clone)]
pub struct RestSettings {
    /// `http://…` or `https://…`, to which `/v1/…` is added.
    pub uri: String,
    /// The catalog's own name for a warehouse, where it has several.
    pub warehouse: Option<String>,
    /// What the names of our namespaces, which are those of schemas, begin with there; for a catalog that servers share.
    pub prefix: String,
    pub credential: Option<Credential>,
    /// Where tokens are given out; `None`: at the catalog, `/v1/oauth/tokens`.
    pub oauth2: Option<String>,
    pub scope: Option<String>,
}

pub struct RestCatalog {
    http: Http,
    /// `v1/<prefix of the catalog>`.
    root: String,
    prefix: String,
    files: FileIO,
    runtime: Runtime,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Loaded {
    metadata_location: Option<String>,
    metadata: TableMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Page {
    #[serde(default)]
    identifiers: Vec<Identifier>,
    #[serde(default)]
    namespaces: Vec<Vec<String>>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    name: String,
}

impl RestCatalog {
    /// Asks the catalog how it is spoken to.
    pub async fn open(settings: &RestSettings, place: &Place, clock: Arc<dyn Clock>) -> SeamResult<Self> {
        let what = "opening the history's catalog";
        let http = Http::new(settings, clock)?;
        let query =
            settings.warehouse.iter().map(|name| format!("warehouse={}", http::encoded(name))).collect::<String>();
        let Some(config) = http.get(what, "v1/config", &query).await? else {
            return Err(SeamError::NotDone(format!("{what}: there is no Iceberg REST catalog at {}", settings.uri)));
        };
        let prefix = ["overrides", "defaults"].into_iter().find_map(|part| config.get(part)?.get("prefix")?.as_str());
        // A prefix comes as it is to be sent.
        let root = prefix.filter(|prefix| !prefix.is_empty()).map_or("v1".to_string(), |prefix| format!("v1/{prefix}"));
        let runtime = Runtime::try_current().map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?;
        Ok(RestCatalog { http, root, prefix: settings.prefix.clone(), files: place.file_io(), runtime })
    }

    /// Namespace and name of a history table in the catalog.
    fn ident(&self, name: &str) -> TableIdent {
        let (namespace, name) = parts(name);
        TableIdent::new(NamespaceIdent::new(format!("{}{namespace}", self.prefix)), name.to_string())
    }

    fn tables(&self, ident: &TableIdent) -> String {
        // One level, so there is nothing between its parts.
        format!("{}/namespaces/{}/tables", self.root, http::encoded(&ident.namespace().to_url_string()))
    }

    fn path(&self, name: &str) -> String {
        let ident = self.ident(name);
        format!("{}/{}", self.tables(&ident), http::encoded(ident.name()))
    }

    /// A namespace is there as soon as something is in it, and stays.
    async fn add_namespace(&self, what: &str, ident: &TableIdent) -> SeamResult<()> {
        let body = json!({ "namespace": ident.namespace(), "properties": {} });
        match self.http.post(what, &format!("{}/namespaces", self.root), &body).await {
            // It is there already.
            Ok(_) | Err(http::Refused { status: Some(409), .. }) => Ok(()),
            // What comes after it is not asked then.
            Err(refused) => Err(refused.error.into_not_done()),
        }
    }

    /// The table as it is now; `None` where there is no such table.
    pub async fn load(&self, name: &str) -> SeamResult<Option<Table>> {
        let what = format!("reading history table \"{name}\"");
        match self.http.get(&what, &self.path(name), "").await? {
            Some(loaded) => self.loaded(&what, name, loaded).map(Some),
            None => Ok(None),
        }
    }

    /// The table, if this data directory made it: what others have made may be of a kind that cannot be read here.
    pub async fn load_of(&self, name: &str, directory: &str) -> SeamResult<Option<Table>> {
        let what = format!("reading history table \"{name}\"");
        let Some(loaded) = self.http.get(&what, &self.path(name), "").await? else { return Ok(None) };
        let properties = loaded.pointer("/metadata/properties");
        let made_by = properties.and_then(|properties| properties.get(tag::DIRECTORY)).and_then(Value::as_str);
        match made_by == Some(directory) {
            true => self.loaded(&what, name, loaded).map(Some),
            false => Ok(None),
        }
    }

    fn loaded(&self, what: &str, name: &str, loaded: Value) -> SeamResult<Table> {
        let failed = |error: &dyn std::fmt::Display| SeamError::NotDone(format!("{what}: {error}"));
        let loaded: Loaded = serde_json::from_value(loaded).map_err(|error| failed(&error))?;
        let location = loaded.metadata_location.ok_or_else(|| failed(&"the catalog names no metadata file"))?;
        self.table(self.ident(name), location, loaded.metadata).map_err(|error| failed(&error))
    }

    pub fn table(&self, ident: TableIdent, location: String, metadata: TableMetadata) -> iceberg::Result<Table> {
        Table::builder()
            .file_io(self.files.clone())
            .identifier(ident)
            .metadata_location(location)
            .metadata(metadata)
            .runtime(self.runtime.clone())
            .build()
    }

    /// The names of all tables of our namespaces.
    pub async fn names(&self) -> SeamResult<Vec<String>> {
        let mut names = Vec::new();
        for page in self.pages(&format!("{}/namespaces", self.root)).await? {
            for namespace in page.namespaces {
                let [namespace] = namespace.as_slice() else { continue };
                let Some(ours) = namespace.strip_prefix(&self.prefix) else { continue };
                let path = format!("{}/namespaces/{}/tables", self.root, http::encoded(namespace));
                for page in self.pages(&path).await? {
                    names.extend(page.identifiers.into_iter().map(|table| placed((ours.to_string(), table.name))));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// All pages of a listing; of one that is not there, none.
    async fn pages(&self, path: &str) -> SeamResult<Vec<Page>> {
        let what = "listing history tables";
        let mut pages = Vec::new();
        let mut token = String::new();
        loop {
            let query = format!("pageSize={PAGE}&pageToken={}", http::encoded(&token));
            let Some(page) = self.http.get(what, path, &query).await? else { return Ok(pages) };
            let mut page: Page =
                serde_json::from_value(page).map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?;
            let next = page.next_page_token.take().filter(|token| !token.is_empty());
            pages.push(page);
            match next {
                Some(next) if next == token => {
                    return Err(SeamError::NotDone(format!("{what}: the catalog gives one page again and again")));
                }
                Some(next) => token = next,
                None => return Ok(pages),
            }
        }
    }

    /// Makes a table like this one; the catalog writes its metadata, and may put it elsewhere.
    pub async fn create(&self, name: &str, metadata: &TableMetadata) -> SeamResult<()> {
        let what = format!("creating history table \"{name}\"");
        let ident = self.ident(name);
        self.add_namespace(&what, &ident).await?;
        let mut properties = metadata.properties().clone();
        properties.insert("format-version".to_string(), "2".to_string());
        let body = json!({
            "name": ident.name(),
            "location": metadata.location(),
            "schema": metadata.current_schema(),
            "partition-spec": metadata.default_partition_spec(),
            "write-order": metadata.default_sort_order(),
            "stage-create": false,
            "properties": properties,
        });
        match self.http.post(&what, &self.tables(&ident), &body).await {
            Ok(_) => Ok(()),
            Err(http::Refused { status: Some(409), .. }) => {
                Err(SeamError::NotDone(format!("history table \"{name}\" already exists")))
            }
            Err(refused) => Err(refused.error),
        }
    }

    /// Applies the updates to the table, if it is still the one of `base`, nobody has added a snapshot, and, where some are
    /// removed, nobody has begun to hold one (`held.rs`). `ahead_ms`: by how
    /// much later than they say new snapshots are (`times.rs`).
    pub async fn commit(&self, name: &str, base: &Table, updates: &[TableUpdate], ahead_ms: i64) -> SeamResult<()> {
        let what = format!("committing to history table \"{name}\"");
        let metadata = base.metadata();
        let mut requirements = vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: MAIN_BRANCH.to_string(),
                snapshot_id: metadata.current_snapshot_id(),
            },
        ];
        if updates.iter().any(|update| matches!(update, TableUpdate::RemoveSnapshots { .. })) {
            let known =
                serde_json::to_value(metadata).map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?;
            let known = held::references(&known);
            let now = self.http.get(&what, &self.path(name), "").await?;
            if now.as_ref().and_then(|loaded| loaded.get("metadata")).map(held::references).as_ref() != Some(&known) {
                return Err(SeamError::NotDone(format!(
                    "{what}: another engine has set or removed a tag or branch meanwhile; no snapshot was forgotten"
                )));
            }
            requirements.extend(held::requirements(known));
        }
        let mut body = json!({
            "identifier": self.ident(name),
            "requirements": requirements,
            "updates": updates,
        });
        if let Some(updates) = body.get_mut("updates").and_then(Value::as_array_mut) {
            // Servers on Iceberg's library from before 1.9 take one snapshot at a time.
            *updates = std::mem::take(updates).into_iter().flat_map(one_snapshot_each).collect();
            for update in updates {
                if let Some(time) = update.pointer_mut("/snapshot/timestamp-ms")
                    && let Some(ms) = time.as_i64()
                {
                    *time = Value::from(ms.saturating_add(ahead_ms));
                }
            }
        }
        match self.http.post(&what, &self.path(name), &body).await {
            Ok(_) => Ok(()),
            Err(http::Refused { status: Some(404 | 409), error }) => Err(SeamError::NotDone(format!(
                "{what}: another writer committed, renamed or dropped it meanwhile ({error})"
            ))),
            Err(refused) => Err(refused.error),
        }
    }

    /// Forgets a table; its files stay.
    pub async fn remove(&self, name: &str) -> SeamResult<()> {
        let what = format!("dropping history table \"{name}\"");
        self.http.delete(&what, &self.path(name), "purgeRequested=false").await
    }

    pub async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        let what = format!("renaming history table \"{from}\"");
        self.add_namespace(&what, &self.ident(to)).await?;
        let body = json!({ "source": self.ident(from), "destination": self.ident(to) });
        match self.http.post(&what, &format!("{}/tables/rename", self.root), &body).await {
            Ok(_) => Ok(()),
            Err(http::Refused { status: Some(404), .. }) => {
                Err(SeamError::NotDone(format!("history table \"{from}\" does not exist")))
            }
            Err(http::Refused { status: Some(409), .. }) => {
                Err(SeamError::NotDone(format!("history table \"{to}\" already exists")))
            }
            Err(refused) => Err(refused.error),
        }
    }
}

/// An update that removes several snapshots, as one for each.
fn one_snapshot_each(update: Value) -> Vec<Value> {
    let removes = update.get("action").and_then(Value::as_str) == Some("remove-snapshots");
    match update.get("snapshot-ids").and_then(Value::as_array) {
        Some(ids) if removes && ids.len() > 1 => {
            ids.iter().map(|id| json!({ "action": "remove-snapshots", "snapshot-ids": [id] })).collect()
        }
        _ => vec![update],
    }
}
