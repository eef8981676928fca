//! What all sessions share: the catalog, the engine, the base of every session's state.

use crate::{pg::PgError, prepared::Prepared};
use datafusion::execution::SessionState;
use parking_lot::RwLock;
use std::{collections::HashMap, path::PathBuf, sync::Arc};
use tidemark_catalog::{CatalogStore, Change, Object, ObjectKind, Snapshot};
use tidemark_engine::{runtime::Engine, seam::Clock};
use tidemark_planner::PlanError;

/// Statements kept parsed and recognised, by text. A service has a few dozen; at the cap the cache starts over.
const CACHED_STATEMENTS_MAX: usize = 4096;

pub struct Database {
    pub engine: Arc<Engine>,
    pub clock: Arc<dyn Clock>,
    /// Held for the whole of a catalog change: changes happen one after the other.
    pub catalog: tokio::sync::Mutex<CatalogStore>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Cloned by every session.
    pub base: SessionState,
    /// Where server-side `COPY … TO 'file'` writes relative names.
    pub folder: PathBuf,
    cache: RwLock<HashMap<Box<str>, Arc<Prepared>>>,
}

impl Database {
    pub fn new(
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        catalog: CatalogStore,
        base: SessionState,
        folder: PathBuf,
    ) -> Database {
        let snapshot = RwLock::new(Arc::new(catalog.snapshot().clone()));
        let catalog = tokio::sync::Mutex::new(catalog);
        Database { engine, clock, catalog, snapshot, base, folder, cache: RwLock::default() }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().clone()
    }

    /// Makes the changes durable, then visible.
    pub async fn commit(&self, catalog: &mut CatalogStore, changes: &[Change]) -> Result<(), PgError> {
        let next = catalog.commit(changes).await?;
        *self.snapshot.write() = Arc::new(next);
        self.cache.write().clear();
        Ok(())
    }

    /// A lookup prepared before under the same text, if the catalog is still the one it was prepared for.
    pub fn cached(&self, sql: &str) -> Option<Arc<Prepared>> {
        self.cache.read().get(sql).cloned()
    }

    pub fn cache(&self, sql: &str, prepared: &Arc<Prepared>) {
        let mut cache = self.cache.write();
        // A catalog change between preparing and caching leaves a stale entry: not kept.
        if prepared.generation != self.snapshot.read().generation {
            return;
        }
        if cache.len() >= CACHED_STATEMENTS_MAX {
            cache.clear();
        }
        cache.insert(sql.into(), prepared.clone());
    }
}

/// The object of that name and kind, or the error that says what there is instead.
pub fn find<'a>(snapshot: &'a Snapshot, kind: ObjectKind, name: &str) -> Result<&'a Arc<Object>, PlanError> {
    match snapshot.get(name) {
        Some(object) if object.kind() == kind => Ok(object),
        Some(object) => Err(PlanError::new("42809", format!("\"{name}\" is not a {kind}"))
            .hint(format!("it is a {}", object.kind()))),
        None => Err(PlanError::new("42P01", format!("{kind} \"{name}\" does not exist"))),
    }
}

/// stand-in
pub struct System;
impl Database {
    pub fn system(&self, _: &Arc<Snapshot>, _: &crate::session::Session) -> System { System }
}
impl tidemark_planner::bind::SystemTables for System {
    fn schema_of(&self, _: &str, _: &str) -> Option<arrow::datatypes::SchemaRef> { None }
}
impl System {
    pub async fn providers(&self, _: &datafusion::logical_expr::LogicalPlan) -> Result<SystemProviders, PgError> { Ok(SystemProviders) }
}
pub struct SystemProviders;
impl SystemProviders {
    pub fn get(&self, _: &tidemark_planner::table::ScanTarget) -> datafusion::error::Result<Arc<dyn datafusion::catalog::TableProvider>> {
        Err(datafusion::error::DataFusionError::Plan("no system tables".into()))
    }
}
