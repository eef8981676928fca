//! What all sessions share: the catalog, the engine, the base of every session's state.

use crate::{pg::PgError, prepared::Prepared, session::Session, stats::EngineStats, system::SystemTablesOf};
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
    /// The system tables over the current snapshot: what they have worked out stays with them.
    system: RwLock<Option<SystemTablesOf>>,
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
        Database { engine, clock, catalog, snapshot, base, folder, cache: RwLock::default(), system: RwLock::default() }
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

    /// What clients browse, over the current snapshot.
    pub fn system_tables(&self) -> SystemTablesOf {
        let snapshot = self.snapshot();
        if let Some(system) = self.system.read().as_ref()
            && system.snapshot().generation == snapshot.generation
        {
            return system.clone();
        }
        let stats = EngineStats { engine: self.engine.clone(), clock: self.clock.clone(), snapshot: snapshot.clone() };
        let system = SystemTablesOf::new(snapshot, Arc::new(stats));
        *self.system.write() = Some(system.clone());
        system
    }

    /// The same for one session.
    pub fn system(&self, session: &Session) -> SystemTablesOf {
        let settings = session.all().into_iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        self.system_tables().for_session(&session.user, settings)
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
        Some(object) => {
            Err(PlanError::new("42809", format!("\"{name}\" is not a {kind}"))
                .hint(format!("it is a {}", object.kind())))
        }
        None => Err(PlanError::new("42P01", format!("{kind} \"{name}\" does not exist"))),
    }
}
