//! What all sessions share: the catalog, what answers behind it, the base of every session's state.

use crate::points::{Point, Points};
use crate::{
    audit::Audit,
    blocks,
    buckets::Buckets,
    feeds::Feeds,
    lake::Lake,
    meters::Meters,
    pg::PgError,
    places::Places,
    prepared::Prepared,
    progress::{Doing, Running, Statements},
    publisher::Publisher,
    queries::Queries,
    restore::Restore,
    rights::Rights,
    serving::{self, Serving},
    session::Session,
    sessions::Sessions,
    settings::Settings,
    stats::EngineStats,
    system::{NoStats, Stats, SystemTablesOf},
    upkeep,
    view_events::ViewEvents,
};
use ahash::AHashMap;
use datafusion::execution::SessionState;
use parking_lot::RwLock;
use std::{
    borrow::Cow,
    hash::Hash,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidemark_catalog::{CatalogStore, Change, NameRef, Object, ObjectId, ObjectKind, Snapshot, role};
use tidemark_engine::{
    runtime::{Engine, Upkeep},
    seam::Clock,
};
use tidemark_planner::{
    PlanError, Statement,
    error::missing_object,
    lookup::fingerprint::{Fingerprint, Template},
};

/// Lookups kept parsed and recognised, by text and by fingerprint. A service has a few dozen; at the cap the cache starts
/// over.
const CACHED_STATEMENTS_MAX: usize = 4096;
/// Longer fingerprints are not kept: lookups are short (a list in one counts as one literal), and the cap above times this
/// is the memory that somebody can take.
const FINGERPRINT_BYTES_MAX: usize = 2048;

/// A lookup as first seen, and how another text's literals are its keys.
enum PreparedTemplate {
    Lookup {
        prepared: Arc<Prepared>,
        template: Template,
    },
    /// Of several views, with a parameter for each literal.
    Service(Arc<Prepared>),
}

/// Lookups by the fingerprint of their text; `None` for those whose literals are not simply their keys.
type Templates = AHashMap<Box<[u8]>, Option<Arc<PreparedTemplate>>>;

/// What only the server has that owns a data directory.
pub struct Owner {
    pub engine: Arc<Engine>,
    pub feeds: Arc<Feeds>,
    /// Where the online values of views are.
    pub places: Arc<Places>,
    /// Held for the whole of a catalog change: changes happen one after the other.
    pub catalog: tokio::sync::Mutex<CatalogStore>,
    /// Where the online store is one that serving nodes read.
    pub publisher: Option<Publisher>,
    /// The tables of training sets.
    pub lake: Lake,
    /// How far the start is.
    pub restore: Restore,
}

impl Owner {
    pub fn new(engine: Arc<Engine>, clock: Arc<dyn Clock>, catalog: CatalogStore, places: Arc<Places>) -> Owner {
        let feeds = Arc::new(Feeds::new(engine.clone(), clock, Arc::new(catalog.snapshot().clone())));
        let publisher = places.own_redis().map(Publisher::new);
        let (catalog, lake) = (tokio::sync::Mutex::new(catalog), Lake::default());
        Owner { engine, feeds, places, catalog, publisher, lake, restore: Restore::default() }
    }
}

/// What answers behind the catalog.
#[allow(clippy::large_enum_variant)] // one for each process
pub enum Behind {
    Owner(Owner),
    /// `--role serving`: a Redis that an owner fills.
    Serving(Arc<Serving>),
}

pub struct Database {
    behind: Behind,
    pub clock: Arc<dyn Clock>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Of the snapshot; never ahead of it.
    generation: AtomicU64,
    /// What roles may do, by role; of the current generation, or about to be.
    rights: RwLock<AHashMap<ObjectId, Arc<Rights>>>,
    pub audit: Arc<Audit>,
    /// What happens to views, and the channels where it is told.
    pub view_events: ViewEvents,
    /// The setting `hba` has rules of its own.
    pub has_rules: bool,
    /// Cloned by every session.
    pub base: SessionState,
    pub queries: Queries,
    pub meters: Meters,
    pub sessions: Arc<Sessions>,
    /// Long ones that run.
    pub statements: Arc<Statements>,
    /// How history is cared for.
    pub upkeep: Upkeep,
    /// Tests only.
    pub points: Option<Arc<Points>>,
    /// Where server-side `COPY … TO 'file'` writes relative names.
    pub folder: PathBuf,
    /// What COPY finds in buckets.
    pub buckets: Buckets,
    cache: RwLock<AHashMap<Box<str>, Arc<Prepared>>>,
    templates: RwLock<Templates>,
    /// The system tables over the current snapshot: what they have worked out stays with them.
    system: RwLock<Option<SystemTablesOf>>,
}

impl Database {
    pub fn new(
        behind: Behind,
        clock: Arc<dyn Clock>,
        snapshot: Arc<Snapshot>,
        base: SessionState,
        queries: Queries,
        folder: PathBuf,
    ) -> Database {
        Database {
            behind,
            clock,
            generation: AtomicU64::new(snapshot.generation),
            snapshot: RwLock::new(snapshot),
            rights: RwLock::default(),
            audit: Arc::default(),
            view_events: ViewEvents::default(),
            has_rules: false,
            upkeep: upkeep::upkeep(&Settings::default()),
            base,
            queries,
            meters: Meters::default(),
            sessions: Arc::default(),
            statements: Arc::default(),
            points: None,
            folder,
            buckets: Buckets::default(),
            cache: RwLock::default(),
            templates: RwLock::default(),
            system: RwLock::default(),
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().clone()
    }

    /// Of the catalog that sessions see, without a lock.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What a role may do, by this snapshot.
    pub fn rights(&self, snapshot: &Arc<Snapshot>, role: ObjectId) -> Arc<Rights> {
        if let Some(rights) = self.rights.read().get(&role).filter(|rights| rights.generation == snapshot.generation) {
            return rights.clone();
        }
        let rights = Arc::new(Rights::of(snapshot.clone(), role));
        self.rights.write().insert(role, rights.clone());
        rights
    }

    /// Makes a new object durable, then visible, as that of the session's role.
    pub async fn create(&self, catalog: &mut CatalogStore, session: &Session, object: Object) -> Result<(), PgError> {
        let (id, owner) = (object.id, session.rights.actor.role);
        let mut changes = vec![Change::Put(object)];
        if owner != role::OWNER {
            changes.push(Change::Own(id, owner));
        }
        self.commit(catalog, session, &changes).await
    }

    /// Makes the changes durable, then visible. In a transaction block they are noted, and ROLLBACK takes them back.
    pub async fn commit(
        &self,
        catalog: &mut CatalogStore,
        session: &Session,
        changes: &[Change],
    ) -> Result<(), PgError> {
        let next = match session.block_id() {
            Some(block) => {
                let next = catalog.commit_in(block, changes).await?;
                session.block.note_entries(catalog.entries_of(block));
                next
            }
            None => catalog.commit(changes).await?,
        };
        self.committed(next);
        Ok(())
    }

    /// The same for changes that ROLLBACK does not take back, because what is stored has changed with them.
    pub async fn commit_for_good(
        &self,
        catalog: &mut CatalogStore,
        session: &Session,
        changes: &[Change],
    ) -> Result<(), PgError> {
        let next = match session.block_id() {
            Some(block) => catalog.commit_for_good(block, changes, blocks::rebased).await?,
            None => catalog.commit(changes).await?,
        };
        self.committed(next);
        Ok(())
    }

    fn committed(&self, next: Snapshot) {
        if let Some(points) = &self.points {
            points.pass(Point::CatalogCommitted);
        }
        self.show(Arc::new(next));
    }

    /// From here on sessions see this snapshot.
    pub fn show(&self, snapshot: Arc<Snapshot>) {
        if let Behind::Owner(owner) = &self.behind {
            owner.feeds.know(snapshot.clone());
        }
        let generation = snapshot.generation;
        let before = std::mem::replace(&mut *self.snapshot.write(), snapshot.clone());
        self.rights.write().clear();
        self.generation.store(generation, Ordering::Release);
        self.cache.write().clear();
        self.templates.write().clear();
        // Whoever hears of it finds it so.
        self.view_events.catalog(&before, &snapshot);
    }

    /// The parts of a server that owns a data directory.
    ///
    /// # Errors
    /// This is a serving node: it has none, and says where they are.
    pub fn owner(&self) -> Result<&Owner, PgError> {
        match &self.behind {
            Behind::Owner(owner) => Ok(owner),
            Behind::Serving(_) => Err(serving::refusal("0A000", "this")),
        }
    }

    /// The same; `None`: this is a serving node.
    pub fn as_owner(&self) -> Option<&Owner> {
        match &self.behind {
            Behind::Owner(owner) => Some(owner),
            Behind::Serving(_) => None,
        }
    }

    pub fn behind(&self) -> &Behind {
        &self.behind
    }

    /// `None`: this server owns a data directory.
    pub fn serving(&self) -> Option<&Arc<Serving>> {
        match &self.behind {
            Behind::Owner(_) => None,
            Behind::Serving(serving) => Some(serving),
        }
    }

    /// Tells of views that stand still since they were last looked at, and of those that go on.
    pub fn tell_failures(&self) {
        if let Some(owner) = self.as_owner() {
            self.view_events.failures(&self.snapshot(), |id| owner.engine.failure(id).is_some());
        }
    }

    /// What clients browse, over the current snapshot.
    pub fn system_tables(&self) -> SystemTablesOf {
        let snapshot = self.snapshot();
        if let Some(system) = self.system.read().as_ref()
            && system.snapshot().generation == snapshot.generation
        {
            return system.clone();
        }
        let system = self.system_over(snapshot);
        *self.system.write() = Some(system.clone());
        system
    }

    fn system_over(&self, snapshot: Arc<Snapshot>) -> SystemTablesOf {
        let stats: Arc<dyn Stats> = match &self.behind {
            Behind::Owner(Owner { engine, feeds, .. }) => Arc::new(EngineStats {
                engine: engine.clone(),
                feeds: feeds.clone(),
                clock: self.clock.clone(),
                snapshot: snapshot.clone(),
            }),
            Behind::Serving(_) => Arc::new(NoStats),
        };
        SystemTablesOf::new(snapshot, stats).with_audit(self.audit.clone())
    }

    /// The same for one session.
    pub fn system(&self, session: &Session) -> SystemTablesOf {
        let settings = session.all().into_iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let path = session.search_path(self);
        let system = match session.has_temporary() {
            true => self.system_over(session.snapshot(self)),
            false => self.system_tables(),
        };
        system
            .for_session(&session.user, settings)
            .with_rights(session.rights.clone())
            .among(self.sessions.clone(), session.connection_id)
            .beside(self.statements.clone(), self.clock.now_us())
            .with_cursors(session.cursors.all())
            .on_path(path)
    }

    /// A long statement begins: `tidemark.progress` shows it until what is returned is dropped.
    pub fn begin(&self, session: &Session, doing: Doing) -> Running {
        self.statements.begin(session, doing, self.clock.now_us())
    }

    /// A lookup prepared before under the same text on the same search path, if the catalog is still the one it was prepared for.
    pub fn cached(&self, path: Option<&str>, sql: &str) -> Option<Arc<Prepared>> {
        self.cache.read().get(&*on(path, sql)).cloned()
    }

    /// The lookup that a text is by its fingerprint, without reading more of it.
    pub fn recall(&self, path: Option<&str>, sql: &str) -> Option<Arc<Prepared>> {
        let fingerprint = Fingerprint::of(sql)?;
        let known = self.templates.read().get(&*on_bytes(path, &fingerprint.template)).cloned()??;
        Some(Arc::new(match known.as_ref() {
            PreparedTemplate::Lookup { prepared, template } => prepared.with_keys(template.keys(&fingerprint), sql),
            PreparedTemplate::Service(prepared) => prepared.with_literals(fingerprint.values(), sql),
        }))
    }

    /// Keeps a lookup that was parsed for texts that differ in their literals only. `false`: this text is not to be known
    /// by its fingerprint.
    pub fn learn(&self, snapshot: &Snapshot, sql: &str, prepared: &Arc<Prepared>) -> bool {
        let Some(fingerprint) = Fingerprint::of(sql).filter(|f| f.template.len() <= FINGERPRINT_BYTES_MAX) else {
            return false;
        };
        let key = on_bytes(prepared.path.as_deref(), &fingerprint.template);
        let key = &*key;
        if let Some(known) = self.templates.read().get(key) {
            return known.is_some();
        }
        let template = match prepared.parsed.as_ref().map(|parsed| &parsed.statement) {
            Some(Statement::Query(query)) => Template::learn(&fingerprint, query, snapshot),
            _ => None,
        };
        let learnt =
            template.map(|template| Arc::new(PreparedTemplate::Lookup { prepared: prepared.clone(), template }));
        let known = learnt.is_some();
        self.insert(&self.templates, key, learnt, prepared.generation);
        known
    }

    /// The text of a lookup of several views with parameters for its literals, if this may be a new template.
    pub fn unknown_service(&self, path: Option<&str>, sql: &str) -> Option<String> {
        let fingerprint = Fingerprint::of(sql)?;
        let is_short = fingerprint.template.len() <= FINGERPRINT_BYTES_MAX;
        let is_known = || self.templates.read().contains_key(&*on_bytes(path, &fingerprint.template));
        if !is_short || fingerprint.has_list() || is_known() {
            return None;
        }
        Some(fingerprint.parameterised())
    }

    /// Keeps a lookup of several views for texts that differ in their literals only; `None`: they are not simply parameters.
    pub fn learn_service(&self, prepared: &Prepared, sql: &str, parameterised: Option<Arc<Prepared>>) {
        if let Some(fingerprint) = Fingerprint::of(sql) {
            let learnt = parameterised.map(|prepared| Arc::new(PreparedTemplate::Service(prepared)));
            let key = on_bytes(prepared.path.as_deref(), &fingerprint.template);
            self.insert(&self.templates, &*key, learnt, prepared.generation);
        }
    }

    pub fn cache(&self, sql: &str, prepared: &Arc<Prepared>) {
        self.insert(&self.cache, &*on(prepared.path.as_deref(), sql), prepared.clone(), prepared.generation);
    }

    fn insert<K, V>(&self, cache: &RwLock<AHashMap<Box<K>, V>>, key: &K, value: V, generation: u64)
    where
        K: ?Sized + Eq + Hash,
        for<'a> &'a K: Into<Box<K>>,
    {
        let mut cache = cache.write();
        // A catalog change since the statement was prepared leaves a stale entry: not kept.
        if generation != self.snapshot.read().generation {
            return;
        }
        if cache.len() >= CACHED_STATEMENTS_MAX {
            cache.clear();
        }
        cache.insert(key.into(), value);
    }
}

/// What a text means on a search path of its own is kept beside what it means on others: under the path and a NUL, which no text
/// has. On the path that nearly all have it is kept under the text alone.
fn on<'a>(path: Option<&str>, sql: &'a str) -> Cow<'a, str> {
    match path {
        None => sql.into(),
        Some(path) => format!("{path}\0{sql}").into(),
    }
}

fn on_bytes<'a>(path: Option<&str>, template: &'a [u8]) -> Cow<'a, [u8]> {
    match path {
        None => template.into(),
        Some(path) => [path.as_bytes(), b"\0", template].concat().into(),
    }
}

/// The object of that name and kind, or the error that says what there is instead.
pub fn find<'a, 'n>(
    snapshot: &'a Snapshot,
    kind: ObjectKind,
    name: impl Into<NameRef<'n>>,
) -> Result<&'a Arc<Object>, PlanError> {
    let name: NameRef<'_> = name.into();
    if kind == ObjectKind::Aggregate {
        let missing = || {
            PlanError::new("42883", format!("aggregate \"{name}\" does not exist"))
                .hint("SHOW AGGREGATES lists what there is")
        };
        return snapshot.aggregate(name).ok_or_else(missing);
    }
    match snapshot.get(name) {
        Some(object) if object.kind() == kind => Ok(object),
        // In PostgreSQL's catalogs a feature view is a view, and clients name it so.
        Some(object) if kind == ObjectKind::View && object.kind() == ObjectKind::FeatureView => Ok(object),
        Some(object) => {
            Err(PlanError::new("42809", format!("\"{name}\" is not a {kind}"))
                .hint(format!("it is a {}", object.kind())))
        }
        None => Err(missing_object(snapshot, &kind.to_string(), name, |object| object.kind() == kind)),
    }
}
