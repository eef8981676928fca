//! What clients browse: the schemas `tidemark`, `pg_catalog` and `information_schema`, and the functions that go with
//! them.
//!
//! Everything is computed from one catalog snapshot and the engine's numbers when it is asked for; nothing is stored.
//! The tables have PostgreSQL 15's columns, as the server says it is a 15: clients choose their questions by that.
//!
//! ```text
//! query ── rewrite (where it concerns the catalog) ── Binder (schema_of) ── bind_scans (provider) ── DataFusion
//! ```

mod acl;
mod activity;
mod chance;
pub mod columns;
mod compared;
mod format;
mod from_functions;
mod functions;
mod information_schema;
mod introspection;
pub mod inventory;
mod lateral;
mod own;
mod pg_catalog;
mod privileges;
mod regclass;
mod rewrite;
mod row_function;
mod row_json;
mod row_lists;
mod sleep;
mod tableoid;
mod vacancy;

pub use chance::of_chance;
pub use functions::{Current, SessionFacts, Settings, functions, version};
pub use rewrite::{concerns, declared_parameters, rewrite};
pub use sleep::pg_sleep;

use crate::{
    audit::{Audit, Entry},
    pg::CursorFacts,
    progress::{Entry as Statement, Statements},
    rights::Rights,
    sessions::{Open, Sessions},
};
use arrow::{
    array::{AsArray, BooleanArray},
    compute::filter_record_batch,
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use columns::Rows;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::MemTable,
    error::{DataFusionError, Result as DfResult},
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use futures::future::BoxFuture;
use inventory::Inventory;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};
use tidemark_catalog::{ObjectId, PUBLIC_SCHEMA, Snapshot, role};
use tidemark_engine::{runtime::Maintenance, seam::SeamResult};
use tidemark_planner::bind::SystemTables;

/// What the running engine knows of a source or table. Times are microseconds; `None` is shown as NULL.
#[derive(Debug, Clone, Default)]
pub struct SourceStats {
    /// Admitted rows that can be read.
    pub rows: Option<u64>,
    /// Records read since the server started.
    pub events: Option<u64>,
    pub watermark_us: Option<i64>,
    pub frontier_us: Option<i64>,
    pub now_us: Option<i64>,
    /// From here on the log has all admitted events: the history of a view made now starts here.
    pub history_start_us: Option<i64>,
    /// Where reading stands, e.g. `0:1234`.
    pub positions: Option<String>,
    /// Of the topic that feeds it, as JSON; `None`: no topic does.
    pub partitions: Option<String>,
    /// Empty means `running`.
    pub state: String,
    pub last_error: Option<String>,
}

/// What the running engine knows of a feature view. Times are microseconds; `None` is shown as NULL.
#[derive(Debug, Clone, Default)]
pub struct ViewStats {
    pub frontier_us: Option<i64>,
    pub now_us: Option<i64>,
    pub watermark_us: Option<i64>,
    /// Every step below it is in the history table.
    pub committed_us: Option<i64>,
    /// The first instant with values; `AS OF` before it is an error.
    pub history_start_us: Option<i64>,
    /// The start of history and the longest bounded frame: from here on no frame reaches back to before that start.
    pub complete_from_us: Option<i64>,
    pub keys: Option<u64>,
    /// The others are read from disk when they are needed.
    pub keys_in_memory: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub events: Option<u64>,
    pub rows_failed: Option<u64>,
    pub values_failed: Option<u64>,
    pub steps_pending: Option<u64>,
    pub maintenance: Maintenance,
    pub positions: Option<String>,
    /// Keys whose rows the online store does not have yet.
    pub online_waiting: Option<u64>,
    /// The share of the keys whose rows it has, 0 to 1; `None`: not known.
    pub online_level: Option<f64>,
    /// Why it is not level; `None`: it is, as far as is known.
    pub online_error: Option<String>,
    /// Empty means `running`.
    pub state: String,
    pub last_error: Option<String>,
}

/// The engine, as far as the catalog shows it.
pub trait Stats: Send + Sync {
    fn source(&self, id: ObjectId) -> Option<SourceStats>;
    fn view(&self, id: ObjectId) -> Option<ViewStats>;
    /// The columns of a feature view that change as time goes on, by position; `None`: the view does not run here.
    fn continuous(&self, _: ObjectId) -> Option<Vec<usize>> {
        None
    }
    /// The columns of a feature view's history; `None`: the view does not run here.
    fn history_schema(&self, _: ObjectId) -> Option<SchemaRef> {
        None
    }
    /// All dead letters, with the columns of [`dead_letters_schema`].
    fn dead_letters(&self) -> BoxFuture<'_, SeamResult<Vec<RecordBatch>>>;
}

/// No engine behind the catalog: every number is NULL and there are no dead letters.
pub struct NoStats;

impl Stats for NoStats {
    fn source(&self, _: ObjectId) -> Option<SourceStats> {
        None
    }

    fn view(&self, _: ObjectId) -> Option<ViewStats> {
        None
    }

    fn dead_letters(&self) -> BoxFuture<'_, SeamResult<Vec<RecordBatch>>> {
        Box::pin(async { Ok(vec![]) })
    }
}

/// `tidemark.dead_letters`: object, view, reason, partition, offset, append_time, error, payload (a JSON object as text).
pub fn dead_letters_schema() -> SchemaRef {
    inventory::system_schema("tidemark", "dead_letters").unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()))
}

/// The system's tables over one snapshot. Cheap to clone; worth keeping for as long as the snapshot is current, because
/// what it has worked out of the snapshot stays with it.
#[derive(Clone)]
pub struct SystemTablesOf {
    snapshot: Arc<Snapshot>,
    stats: Arc<dyn Stats>,
    user: String,
    settings: Arc<Vec<(String, String)>>,
    cursors: Arc<[Arc<CursorFacts>]>,
    /// Where names without a schema are looked for.
    path: Arc<[String]>,
    inventory: Arc<OnceLock<Inventory>>,
    /// Tables that are the same for all as long as the snapshot is, once somebody has read them. See [`of_snapshot`].
    filled: Arc<Mutex<HashMap<String, RecordBatch>>>,
    audit: Option<Arc<Audit>>,
    /// Of who asks; `None`: a superuser.
    rights: Option<Arc<Rights>>,
    /// Who is connected, and by which connection it is asked; `None`: nobody is.
    sessions: Option<(Arc<Sessions>, i32)>,
    /// Long statements that run, and the time, microseconds; `None`: there are none.
    statements: Option<(Arc<Statements>, i64)>,
}

impl SystemTablesOf {
    pub fn new(snapshot: Arc<Snapshot>, stats: Arc<dyn Stats>) -> Self {
        SystemTablesOf {
            snapshot,
            stats,
            user: inventory::OWNER_NAME.to_string(),
            settings: Arc::default(),
            cursors: Arc::default(),
            path: Arc::new([PUBLIC_SCHEMA.to_string()]),
            inventory: Arc::default(),
            filled: Arc::default(),
            audit: None,
            rights: None,
            sessions: None,
            statements: None,
        }
    }

    pub(crate) fn with_audit(self, audit: Arc<Audit>) -> Self {
        SystemTablesOf { audit: Some(audit), ..self }
    }

    /// The same for who may do this: rows that have others' data are not shown.
    pub(crate) fn with_rights(self, rights: Arc<Rights>) -> Self {
        SystemTablesOf { rights: Some(rights), ..self }
    }

    /// The same with the sessions that are open, asked by one of them.
    pub(crate) fn among(self, sessions: Arc<Sessions>, asked_by: i32) -> Self {
        SystemTablesOf { sessions: Some((sessions, asked_by)), ..self }
    }

    /// The same with the long statements that run now.
    pub(crate) fn beside(self, statements: Arc<Statements>, now_us: i64) -> Self {
        SystemTablesOf { statements: Some((statements, now_us)), ..self }
    }

    /// The long statements that run, each with the time.
    pub(crate) fn statements(&self) -> Vec<(Statement, i64)> {
        let all = self.statements.as_ref().map(|(statements, now_us)| (statements.all(), *now_us));
        all.map(|(all, now_us)| all.into_iter().map(|one| (one, now_us)).collect()).unwrap_or_default()
    }

    pub(crate) fn sessions(&self) -> Vec<Open> {
        self.sessions.as_ref().map(|(sessions, _)| sessions.all()).unwrap_or_default()
    }

    /// The connection that asks.
    pub(crate) fn asked_by(&self) -> Option<i32> {
        self.sessions.as_ref().map(|(_, connection)| *connection)
    }

    /// The same for a session with these cursors.
    pub(crate) fn with_cursors(self, cursors: Vec<Arc<CursorFacts>>) -> Self {
        SystemTablesOf { cursors: cursors.into(), ..self }
    }

    /// The same for who looks for names in these schemas.
    pub(crate) fn on_path(self, path: Vec<String>) -> Self {
        SystemTablesOf { path: path.into(), ..self }
    }

    pub(crate) fn path(&self) -> &[String] {
        &self.path
    }

    pub(crate) fn cursors(&self) -> &[Arc<CursorFacts>] {
        &self.cursors
    }

    /// Whether who asks has the privileges of this role.
    pub(crate) fn has_role(&self, role: ObjectId) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.actor.is(role))
    }

    /// Whether who asks is shown what a session that logged in as this role does.
    pub(crate) fn may_see(&self, session_of: ObjectId) -> bool {
        self.has_role(session_of) || self.has_role(role::MONITOR)
    }

    /// What was done to definitions and roles, for superusers and members of `pg_monitor`.
    pub(crate) fn audit(&self) -> Vec<Entry> {
        match (&self.audit, &self.rights) {
            (Some(audit), Some(rights)) if rights.actor.is(role::MONITOR) => audit.entries(),
            _ => vec![],
        }
    }

    /// The same tables as this user sees them, with the session's settings for `pg_settings`.
    pub fn for_session(&self, user: &str, settings: Vec<(String, String)>) -> Self {
        SystemTablesOf { user: user.to_string(), settings: Arc::new(settings), ..self.clone() }
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn stats(&self) -> &dyn Stats {
        self.stats.as_ref()
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn settings(&self) -> impl Iterator<Item = (&String, &String)> {
        self.settings.iter().map(|(name, value)| (name, value))
    }

    pub fn inventory(&self) -> &Inventory {
        self.inventory.get_or_init(|| Inventory::of(&self.snapshot, &|id| self.stats.history_schema(id)))
    }

    /// The rows of `schema.table` as they are now; `None` where there is no such table.
    pub fn provider(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let Some((schema_name, table)) = name.split_once('.') else { return Ok(None) };
        let Some(schema) = inventory::system_schema(schema_name, table) else { return Ok(None) };
        if (schema_name, table) == ("tidemark", "dead_letters") {
            return Ok(Some(Arc::new(DeadLetters {
                schema,
                stats: self.stats.clone(),
                snapshot: self.snapshot.clone(),
                rights: self.rights.clone(),
            })));
        }
        let rows = match of_snapshot(schema_name, table) {
            true => self.filled_once(name, &schema)?,
            false => self.fill(schema_name, table, &schema)?,
        };
        Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![rows]])?)))
    }

    fn filled_once(&self, name: &str, schema: &SchemaRef) -> DfResult<RecordBatch> {
        if let Some(rows) = self.filled.lock().get(name) {
            return Ok(rows.clone());
        }
        let (schema_name, table) = name.split_once('.').unwrap_or_default();
        // Not under the lock: whoever comes meanwhile fills it too, with the same rows.
        let rows = self.fill(schema_name, table, schema)?;
        self.filled.lock().insert(name.to_owned(), rows.clone());
        Ok(rows)
    }

    fn fill(&self, schema_name: &str, table: &str, schema: &SchemaRef) -> DfResult<RecordBatch> {
        let mut rows = Rows::of(schema);
        match schema_name {
            "pg_catalog" => pg_catalog::fill(self, table, &mut rows),
            "information_schema" => information_schema::fill(self, table, &mut rows),
            _ => own::fill(self, table, &mut rows),
        }
        rows.finish()
    }
}

/// Whether a table's rows follow from what exists alone: neither from who asks, his settings and rights, nor from what runs. Those
/// of columns have a row for each column of each object and of its history, and most questions of clients join them.
fn of_snapshot(schema: &str, table: &str) -> bool {
    match schema {
        "pg_catalog" => matches!(
            table,
            "pg_class"
                | "pg_attribute"
                | "pg_type"
                | "pg_index"
                | "pg_constraint"
                | "pg_description"
                | "pg_rewrite"
                | "pg_depend"
        ),
        "information_schema" => {
            matches!(
                table,
                "tables" | "columns" | "views" | "table_constraints" | "key_column_usage" | "constraint_column_usage"
            )
        }
        _ => false,
    }
}

impl SystemTables for SystemTablesOf {
    fn schema_of(&self, schema: &str, table: &str) -> Option<SchemaRef> {
        inventory::system_schema(schema, table)
    }
}

/// Read when it is scanned, because the letters are on disk.
struct DeadLetters {
    schema: SchemaRef,
    stats: Arc<dyn Stats>,
    snapshot: Arc<Snapshot>,
    rights: Option<Arc<Rights>>,
}

impl DeadLetters {
    /// Those of objects that may be read: a letter has a row in it.
    fn readable(&self, letters: RecordBatch) -> DfResult<RecordBatch> {
        let Some(rights) = self.rights.as_ref().filter(|rights| !rights.actor.is_superuser) else { return Ok(letters) };
        let object = letters.column_by_name("object").and_then(|column| column.as_string_opt::<i32>());
        // A name may be of two: of one in `public` that has a dot, and of one in another schema.
        let mut known: HashMap<String, bool> = HashMap::new();
        for object in self.snapshot.objects() {
            let all = known.entry(object.shown_name()).or_insert(true);
            *all &= rights.may_read(object.id);
        }
        let may_read = |name: &str| known.get(name).copied().unwrap_or(false);
        let kept: BooleanArray = match object {
            Some(names) => names.iter().map(|name| Some(name.is_some_and(may_read))).collect(),
            None => vec![false; letters.num_rows()].into(),
        };
        Ok(filter_record_batch(&letters, &kept)?)
    }
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeadLetters")
    }
}

#[async_trait]
impl TableProvider for DeadLetters {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let letters = self.stats.dead_letters().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        // The letters' writer need not repeat how a column is shown.
        let letters = letters
            .into_iter()
            .map(|batch| self.readable(RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?))
            .collect::<DfResult<Vec<_>>>()?;
        MemTable::try_new(self.schema.clone(), vec![letters])?.scan(state, projection, filters, limit).await
    }
}
