//! Wiring: from settings to a running server, and back down.

use crate::{
    backend::TidemarkBackend,
    database::{Behind, Database, Owner},
    door::{self, Door},
    http::{self, Phase, Subject},
    lake, online, pg,
    places::{DEFAULT, Places, Refused},
    points::{AbortAt, Point, Points},
    queries::Queries,
    restore,
    serving::{self, Serving},
    settings::{Role, Settings},
    statement,
    system::inventory::is_system,
    upkeep,
    view_events::FAILURES_POLL,
    warehouse::{self, Elsewhere, Warehouse},
};
use anyhow::{Context, Result};
use arrow::datatypes::SchemaRef;
use datafusion::execution::{memory_pool::FairSpillPool, runtime_env::RuntimeEnvBuilder};
use std::{
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidemark_catalog::{Access, CatalogStore, Change, Object, ObjectId, Role as CatalogRole, Snapshot};
use tidemark_connectors::{
    clock::SystemClock,
    iceberg::{Bucket, BucketSettings, IcebergHistory, Place},
    lock::DirLock,
    log::{EmbeddedLog, LogSettings},
    redis::{self, Address},
    state::FjallState,
};
use tidemark_engine::{
    asof,
    runtime::{Engine, Logs, Seams},
    seam::{Clock, SeamError, SeamResult, Source},
    view::Memory,
};
use tidemark_planner::functions::{session_config, state_builder};
use tokio::sync::watch;

/// A server that runs until it is shut down.
pub struct Running {
    pub address: SocketAddr,
    /// Where metrics and health are answered, if anywhere.
    pub http: Option<SocketAddr>,
    pub database: Arc<Database>,
    stop: watch::Sender<bool>,
    stopped: tokio::sync::oneshot::Receiver<SeamResult<()>>,
    /// None of a serving node.
    _lock: Option<Arc<DirLock>>,
    _warehouse: Option<Warehouse>,
}

struct EmbeddedLogs {
    folder: PathBuf,
    settings: LogSettings,
}

impl EmbeddedLogs {
    fn folder(&self, id: ObjectId) -> PathBuf {
        self.folder.join(id.to_string())
    }
}

impl Logs for EmbeddedLogs {
    fn open(&self, id: ObjectId, schema: SchemaRef) -> SeamResult<Arc<dyn Source>> {
        Ok(Arc::new(EmbeddedLog::open(&self.folder(id), schema, self.settings.clone())?))
    }

    fn remove(&self, id: ObjectId) -> SeamResult<()> {
        EmbeddedLog::drop_files(&self.folder(id))
    }

    fn all(&self) -> SeamResult<Vec<ObjectId>> {
        let io = |error: std::io::Error| SeamError::io(self.folder.display(), &error);
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(io(error)),
        };
        let mut all = vec![];
        for entry in entries {
            let entry = entry.map_err(io)?;
            // What is no folder, or has another name, is not ours.
            if entry.file_type().map_err(io)?.is_dir() {
                let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
                all.extend(id.map(ObjectId));
            }
        }
        Ok(all)
    }
}

/// Opens the data directory and listens, and recovers. Returns when all feature views are back.
pub async fn start(settings: &Settings) -> Result<Running> {
    let running = begin(settings, None).await?;
    running.restored().await?;
    Ok(running)
}

/// The same on a clock of the caller's: a test moves time by hand.
pub async fn start_on(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Running> {
    let running = begin_on(settings, clock).await?;
    running.restored().await?;
    Ok(running)
}

/// Opens the data directory and listens. Returns when clients can connect; the feature views come back beside them
/// ([`Running::restored`]). `abort_at` is for tests of crashes: the process ends where they say.
///
/// Dropping the future on the way closes what is open, the lock last: as after a crash the next start recovers from the
/// same log and checkpoint. The logs are read batch by batch, so whoever waits for a signal beside it gets a turn.
pub async fn begin(settings: &Settings, abort_at: Option<AbortAt>) -> Result<Running> {
    let clock = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
    begin_with(settings, clock, abort_at.map(Points::new)).await
}

/// The same on a clock of the caller's.
pub async fn begin_on(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Running> {
    begin_with(settings, clock, None).await
}

async fn begin_with(settings: &Settings, clock: Arc<dyn Clock>, points: Option<Arc<Points>>) -> Result<Running> {
    let data = &settings.data;
    // Before anything is opened: what cannot be encrypted or guarded as it was said is not served.
    let (tls, door) = (door::tls(settings)?, Door::new(settings));
    let (lock, serving) = match settings.role {
        Role::Owner => (Some(Arc::new(DirLock::acquire_patiently(data, clock.as_ref()).await?)), None),
        Role::Serving => (None, Some(Arc::new(Serving::new(settings, clock.clone())?))),
    };
    // Before recovery, which may take a while: a port in use is known at once.
    let listener = door.listen(settings.listen).await?;
    let address = listener.local_addr()?;
    let watched = http::bind(settings.http).await?;
    let http = watched.as_ref().map(|listener| listener.local_addr()).transpose()?;
    // Whoever drops this ends it: a start that fails, or the server when it is over.
    let (phase, seen) = watch::channel(Phase::Recovering);
    if let Some(listener) = watched {
        clock.spawn("http", Box::pin(http::serve(listener, clock.clone(), seen)));
    }
    let warehouse = match settings.role {
        Role::Owner => Some(Warehouse::claim(data, settings.warehouse.as_deref(), &s3(settings), &clock).await?),
        Role::Serving => None,
    };
    let database = Arc::new(match serving {
        None => {
            let folder = warehouse.as_ref().map_or(data.join("warehouse"), |warehouse| warehouse.folder.clone());
            let bucket = warehouse.as_ref().and_then(|warehouse| warehouse.bucket.clone());
            open(settings, (data, lock.clone()), (&folder, bucket), clock.clone(), points, &door).await?
        }
        Some(serving) => {
            let database = open_serving(settings, serving, clock.clone()).await?;
            door.check(settings.listen, &database.snapshot().access)?;
            database
        }
    });
    if tls.is_none() && !settings.listen.ip().to_canonical().is_loopback() {
        tracing::warn!(
            "clients beyond this machine are served without encryption; --ssl require, with a certificate, ends that"
        );
    }

    let started_us = clock.now_us();
    let backend = Arc::new(TidemarkBackend {
        database: database.clone(),
        door,
        started_us,
        statement_timeout: settings.statement_timeout,
    });
    let limits = pg::Settings { tls, ..settings.pg() };
    let server = pg::Server::new(backend, clock.clone(), limits);
    let (stop, stopping) = watch::channel(false);
    let (finished, stopped) = tokio::sync::oneshot::channel();
    let last = database.clone();
    let max_connections = settings.max_connections;
    let subject = Subject { database: database.clone(), server: server.clone(), max_connections, started_us };
    let alive = database.meters.tasks.begin("server");
    let phase = Arc::new(phase);
    let (at_end, told, mut until) = (subject.clone(), phase.clone(), stopping.clone());
    clock.spawn(
        "server",
        Box::pin(async move {
            let shutdown = async {
                let _ = until.wait_for(|stop| *stop).await;
                // While statements finish nobody new is to be sent here.
                told.send_replace(Phase::Stopping(at_end));
            };
            server.serve(listener, shutdown).await;
            let _ = finished.send(finish(&last).await);
            alive.leave();
        }),
    );
    match database.behind() {
        Behind::Owner(_) => {
            let (settings, beside) = (settings.clone(), stopping.clone());
            // One thread is left to who connects and asks.
            let tasks = threads(&settings).saturating_sub(1).max(1);
            restore::start(&database, tasks, stopping, move |database| {
                if let Some(owner) = database.as_owner() {
                    owner.feeds.start_all(&database.snapshot());
                }
                background(database, &settings, beside);
                phase.send_if_modified(|phase| begin_serving(phase, subject));
            });
        }
        Behind::Serving(_) => {
            every(&database, stopping, "catalog", serving::CATALOG_POLL, |database| Box::pin(follow(database)));
            phase.send_if_modified(|phase| begin_serving(phase, subject));
        }
    }
    Ok(Running { address, http, database, stop, stopped, _lock: lock, _warehouse: warehouse })
}

/// Unless it stops already.
fn begin_serving(phase: &mut Phase, subject: Subject) -> bool {
    let begins = matches!(phase, Phase::Recovering);
    if begins {
        *phase = Phase::Serving(subject);
    }
    begins
}

impl Running {
    /// Returns when all feature views are back, and what happens by itself has begun.
    pub async fn restored(&self) -> Result<()> {
        let restored = self.database.all_restored().await;
        restored.map_err(|error| anyhow::anyhow!("{}", error.message))
    }

    /// Stops accepting, lets statements finish, checkpoints. An error: that failed, and the next start takes longer.
    pub async fn shutdown(self) -> Result<()> {
        self.stop.send_replace(true);
        let checkpointed = self.stopped.await.context("the server ended without its last checkpoint")?;
        checkpointed.context("the last checkpoint failed; nothing is lost, the next start reads the log instead")
    }
}

/// How long the last flush may take: a store that hangs must not cost the last checkpoint, for which a supervisor waits some 30
/// seconds in all.
const LAST_FLUSH: Duration = Duration::from_secs(10);

/// Everybody has left: what is in memory becomes durable.
async fn finish(database: &Database) -> SeamResult<()> {
    let Some(owner) = database.as_owner() else { return Ok(()) };
    // A start that was broken off has changed nothing, and the next one begins it again.
    if owner.restore.over().await.is_err() {
        return Ok(());
    }
    owner.feeds.stop_all().await;
    let level = online::finish(database);
    tokio::select! {
        flushed = level => if let Err(error) = flushed {
            tracing::error!(%error, "the online store could not be brought level");
        },
        () = database.clock.sleep(LAST_FLUSH) => {
            tracing::error!("the online store does not answer; it is brought level after the next start");
        }
    }
    owner.engine.checkpoint().await
}

/// Takes over a new catalog of the owner, if there is one.
async fn follow(database: &Database) -> SeamResult<()> {
    if let Some(serving) = database.serving()
        && let Some(snapshot) = serving.follow().await?
    {
        database.show(snapshot);
    }
    Ok(())
}

/// A server over the Redis that an owner fills. Waits until there is one that has published its catalog.
async fn open_serving(settings: &Settings, serving: Arc<Serving>, clock: Arc<dyn Clock>) -> Result<Database> {
    let mut is_known = false;
    let snapshot = loop {
        match serving.follow().await {
            Ok(Some(snapshot)) => break snapshot,
            Ok(None) => {}
            Err(error) if !is_known => {
                is_known = true;
                tracing::warn!(%error, "there is no catalog to serve yet; it is waited for");
            }
            Err(_) => {}
        }
        clock.sleep(RETRY).await;
    };
    over(settings, Behind::Serving(serving), snapshot, clock)
}

async fn open(
    settings: &Settings,
    (data, lock): (&Path, Option<Arc<DirLock>>),
    (folder, bucket): (&Path, Option<Bucket>),
    clock: Arc<dyn Clock>,
    points: Option<Arc<Points>>,
    door: &Door,
) -> Result<Database> {
    let catalog = CatalogStore::open(&data.join("catalog.db")).await.context("cannot open the catalog")?;
    let mut catalog = catalog.beside(is_system);
    admit_superuser(settings, &mut catalog, clock.as_ref()).await?;
    door.check(settings.listen, &catalog.snapshot().access)?;
    let log = LogSettings {
        fsync: settings.fsync,
        segment_bytes: settings.log_segment_bytes,
        max_bytes: settings.log_max_bytes,
    };
    let warehouse = bucket.as_ref().map(Bucket::location);
    // Some 100 bytes each.
    const STEPS_WAITING_MAX: usize = 4 << 20;
    // Each of the two stores on fjall reads its journal and syncs it, on one thread: side by side.
    let (opened, state) = tokio::sync::oneshot::channel();
    let state_folder = data.join("state");
    let opening = async move {
        // A start that is given up meanwhile drops what was opened here: the lock goes after it.
        let _ = opened.send(FjallState::open(&state_folder));
        drop(lock);
    };
    clock.spawn("state store", Box::pin(opening));
    let others = async {
        let history = open_history(settings, data, folder, bucket, &clock).await?;
        Ok::<_, anyhow::Error>((history, places(settings, clock.clone(), catalog.snapshot()).await?))
    };
    // Both to their end, also where one fails: who starts again is to find neither open.
    let (others, state) = tokio::join!(others, state);
    let ((mut history, places), state) = (others?, state.context("the state store was not opened")??);
    if let Some(points) = points.clone() {
        history = history.with_files_written(Box::new(move || points.pass(Point::HistoryFilesWritten)));
    }
    let places = Arc::new(places);
    let seams = Seams {
        steps_waiting_max: STEPS_WAITING_MAX,
        threads: threads(settings),
        shares: true,
        memory: Arc::new(Memory::new(settings.state_memory)),
        clock: clock.clone(),
        logs: Arc::new(EmbeddedLogs { folder: data.join("log"), settings: log }),
        state: Arc::new(state),
        online: places.clone(),
        history: Arc::new(history),
    };
    let seams = match &points {
        Some(points) => points.around(seams),
        None => seams,
    };
    let engine = Arc::new(Engine::start_without_views(seams, catalog.snapshot()).await.context("recovery failed")?);
    if let Some(back) = catalog.recovered() {
        let objects = back.objects.len();
        tracing::info!(
            objects,
            "what transactions had changed that were open when the server ended is as it was before"
        );
        // Nothing else knows of a log, or of online values, that no checkpoint has met.
        for object in back.gone().collect::<Vec<_>>() {
            let removed = match log_of(object) {
                Some(log) => engine.drop_source(log).await,
                None if object.feature_view().is_some() => engine.forget_made(object.id).await,
                None => Ok(()),
            };
            removed.context("cannot remove what a transaction had made")?;
        }
    }
    let snapshot = Arc::new(catalog.snapshot().clone());
    let owner = Owner::new(engine, clock.clone(), catalog, places);
    let mut database = over(settings, Behind::Owner(owner), snapshot, clock)?;
    database.points = points;
    database.buckets.warehouse = warehouse;
    Ok(database)
}

async fn open_history(
    settings: &Settings,
    data: &Path,
    folder: &Path,
    bucket: Option<Bucket>,
    clock: &Arc<dyn Clock>,
) -> Result<IcebergHistory> {
    let (url, credential) = (settings.history_catalog.as_deref(), settings.history_catalog_credential.as_deref());
    Ok(match (warehouse::catalog(data, folder, url, credential)?, bucket) {
        (None, None) => IcebergHistory::open(folder, clock.clone()).await?,
        (None, Some(bucket)) => IcebergHistory::open_bucket(folder, bucket, clock.clone()).await?,
        (Some(elsewhere), bucket) => {
            let place = match bucket {
                Some(bucket) => Place::Bucket(bucket),
                None => Place::folder(folder)?,
            };
            let directory = redis::owner(data, clock.as_ref())?;
            let history = match &elsewhere {
                Elsewhere::Rest(rest) => IcebergHistory::open_rest(rest, directory, place, clock.clone()).await?,
                Elsewhere::Postgres(postgres) => {
                    IcebergHistory::open_postgres(postgres, directory, place, clock.clone()).await?
                }
            };
            warehouse::begun(data, &elsewhere)?;
            history
        }
    })
}

/// The log that an object has.
fn log_of(object: &Object) -> Option<ObjectId> {
    match (object.relation(), object.training_set()) {
        (Some(relation), _) => relation.files().is_none().then_some(object.id),
        (None, set) => set.map(|set| set.rows),
    }
}

/// The superuser of the settings has a password, and there is something to make salts of for those that are not there.
async fn admit_superuser(settings: &Settings, catalog: &mut CatalogStore, clock: &dyn Clock) -> Result<()> {
    let before = catalog.snapshot().access.clone();
    let mut access = Access::clone(&before);
    if let Some(file) = &settings.superuser_password_file {
        let name = &settings.superuser;
        let role = match access.role_named(name) {
            Some(role) => role.clone(),
            None => CatalogRole {
                superuser: true,
                create_role: true,
                create_db: true,
                login: true,
                ..CatalogRole::new(catalog.allocate_id().await?, name)
            },
        };
        anyhow::ensure!(
            role.superuser && role.login,
            "--superuser: role \"{name}\" is no superuser that may log in\nHINT: name another one, or a new one"
        );
        if role.verifier.is_none() {
            let read = std::fs::read_to_string(file);
            let password =
                read.with_context(|| format!("cannot read the superuser's password from {}", file.display()))?;
            let password = password.strip_suffix('\n').unwrap_or(&password);
            anyhow::ensure!(!password.is_empty(), "the file {} has no password in it", file.display());
            let verifier = statement::verifier(clock, password).map_err(|error| anyhow::anyhow!("{error}"))?;
            access.put_role(CatalogRole { verifier: Some(verifier), ..role });
            tracing::info!(role = name, "the superuser has the password of the file now");
        }
    }
    if access.mock == 0 && access.has_password() {
        access.mock = clock.random();
    }
    if access != *before {
        catalog.commit(&[Change::Access(access)]).await?;
    }
    Ok(())
}

fn threads(settings: &Settings) -> usize {
    let threads = settings.worker_threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    threads.unwrap_or(1)
}

/// Where queries spill: empty, whatever a server that was killed has left there. The directory is ours by its lock. Where
/// `spill` is a link to another disk, it is a folder of this data directory there: what else is there may be anybody's, and
/// other servers may be led there too.
fn spill_folder(data: &Path) -> Result<PathBuf> {
    let mut folder = data.join("spill");
    if folder.is_symlink() {
        let followed = || format!("cannot follow the link {}: is the disk that it leads to mounted?", folder.display());
        let disk = folder.canonicalize().with_context(followed)?;
        let of = std::fs::metadata(data).with_context(|| format!("cannot look at {}", data.display()))?;
        folder = disk.join(format!("tidemark-{:x}-{:x}", of.dev(), of.ino()));
    }
    let make = || std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => make().with_context(|| format!("cannot make {}", folder.display()))?,
    }
    Ok(folder)
}

/// What sessions share, over what answers behind it.
fn over(settings: &Settings, behind: Behind, snapshot: Arc<Snapshot>, clock: Arc<dyn Clock>) -> Result<Database> {
    let mut runtime = RuntimeEnvBuilder::new().with_max_temp_directory_size(settings.query_disk.unwrap_or(u64::MAX));
    if settings.role == Role::Owner {
        runtime = runtime.with_temp_file_path(spill_folder(&settings.data)?);
    }
    if let Some(bytes) = settings.query_memory {
        runtime = runtime.with_memory_pool(Arc::new(FairSpillPool::new(bytes as usize)));
    }
    let mut config = session_config().with_batch_size(settings.batch_rows);
    if let Some(threads) = settings.worker_threads {
        config = config.with_target_partitions(threads);
    }
    let builder = asof::install(state_builder(config)).with_runtime_env(Arc::new(runtime.build()?));
    let folder = std::env::current_dir().context("the current folder is gone")?;
    let queries = Queries::new(threads(settings)).context("cannot start the threads of queries")?;
    let mut database = Database::new(behind, clock, snapshot, builder.build(), queries, folder);
    database.has_rules = settings.hba.is_some();
    database.upkeep = upkeep::upkeep(settings);
    database.buckets.settings = s3(settings);
    Ok(database)
}

/// How buckets are reached: that of history, and those that COPY names.
fn s3(settings: &Settings) -> BucketSettings {
    BucketSettings { endpoint: settings.s3_endpoint.clone(), region: settings.s3_region.clone(), keys: None }
}

/// The online stores. The server's own need not answer yet.
async fn places(settings: &Settings, clock: Arc<dyn Clock>, snapshot: &Snapshot) -> Result<Places> {
    let own = settings.online.as_deref();
    if let Some(url) = own {
        Address::parse(url).map_err(|error| anyhow::anyhow!("--online: {error}"))?;
    }
    let places = Places::open(&settings.data, own, clock).context("cannot open the online store")?;
    places.settle(snapshot).context("cannot tell where the online values of views are")?;
    if let Err(Refused::Away(error)) = places.check(DEFAULT).await {
        tracing::warn!(%error, "the online store does not answer; it is brought level when it does");
    }
    Ok(places)
}

/// What happens without anybody asking: what was in memory before the start comes back, departures reach the online store, silent sources
/// move on, history is cared for, checkpoints.
fn background(database: &Arc<Database>, settings: &Settings, stopping: watch::Receiver<bool>) {
    let warmed = database.clone();
    database.clock.spawn(
        "warm",
        Box::pin(async move {
            if let Some(owner) = warmed.as_owner()
                && let Err(error) = owner.engine.warm().await
            {
                tracing::warn!(%error, "keys were not brought into memory beforehand; each comes when it is needed");
            }
        }),
    );
    online::start(database, settings.online_tick, stopping.clone());
    every(database, stopping.clone(), "online left", RETRY, |database| {
        Box::pin(async move {
            match database.as_owner() {
                Some(owner) => owner.places.remove_left().await,
                None => Ok(()),
            }
        })
    });
    every(database, stopping.clone(), "online doubt", ONLINE_DOUBT, |database| {
        Box::pin(async move {
            if let Some(owner) = database.as_owner() {
                owner.engine.doubt_online();
            }
            Ok(())
        })
    });
    every(database, stopping.clone(), "failures", FAILURES_POLL, |database| {
        Box::pin(async move {
            database.tell_failures();
            Ok(())
        })
    });
    every(database, stopping.clone(), "idle sources", settings.online_tick.max(IDLE_LOOK), |database| {
        Box::pin(async move {
            match database.as_owner() {
                Some(owner) => owner.engine.advance_idle_in_time().await.map(|_| ()),
                None => Ok(()),
            }
        })
    });
    every(database, stopping.clone(), "history", settings.commit_interval, |database| {
        Box::pin(async move {
            let Some(owner) = database.as_owner() else { return Ok(()) };
            owner.engine.advance_idle().await?;
            owner.engine.commit_history().await
        })
    });
    relieve_history(database, stopping.clone());
    upkeep::start(database, settings, stopping.clone());
    lake::start(database, stopping.clone());
    every(database, stopping.clone(), "training sets", lake::AGAIN, |database| Box::pin(lake::again(database)));
    every(database, stopping, "checkpoint", settings.checkpoint_interval, |database| {
        Box::pin(async move {
            let Some(owner) = database.as_owner() else { return Ok(()) };
            owner.engine.checkpoint().await?;
            owner.engine.expire_letters().await.map(|_| ())
        })
    });
}

/// Steps that crowd in memory are committed before their time, and beside the rows that go on coming in: on another core, where there is
/// one. The task of the commit interval rests between two commits, this one does not.
fn relieve_history(database: &Arc<Database>, mut stopping: watch::Receiver<bool>) {
    let (database, clock) = (database.clone(), database.clock.clone());
    let alive = database.meters.tasks.begin("history under load");
    clock.clone().spawn(
        "history under load",
        Box::pin(async move {
            let Some(owner) = database.as_owner() else { return alive.leave() };
            let mut rest = Duration::ZERO;
            loop {
                let due = async {
                    if !rest.is_zero() {
                        clock.sleep(rest).await;
                    }
                    owner.engine.crowded().await;
                };
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return alive.leave(),
                    () = due => {}
                }
                let begun_us = clock.now_us();
                // The views have noted what went wrong, and who brings the rows is told when there is no room any more.
                rest = match owner.engine.commit_history().await {
                    Ok(()) => Duration::ZERO,
                    Err(_) => {
                        let took = clock.now_us().saturating_sub(begun_us).unsigned_abs();
                        RETRY.max(Duration::from_micros(took) * REST)
                    }
                };
            }
        }),
    );
}

/// A background task that took long rests this many times as long: under load it takes a fifth of one core at most,
/// and values that change again meanwhile are put once.
pub(crate) const REST: u32 = 4;

/// How often an online store that is said to have a view is asked whether it still has, and whether a later server puts into it.
/// Two round trips for each view; a view of which nothing changes is filled again so much later.
const ONLINE_DOUBT: Duration = Duration::from_secs(10);

/// How often it is looked whether a source has been silent for its idle timeout, unless the online store gets what has changed
/// more seldom: a lock for each source.
const IDLE_LOOK: Duration = Duration::from_millis(250);

/// After a failure at least this long: soon enough to be level again, seldom enough that what is tried in vain (a Redis that is
/// away) costs little.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

type Action = for<'a> fn(&'a Database) -> futures::future::BoxFuture<'a, SeamResult<()>>;

fn every(
    database: &Arc<Database>,
    mut stopping: watch::Receiver<bool>,
    name: &'static str,
    interval: Duration,
    action: Action,
) {
    let database = database.clone();
    let clock = database.clock.clone();
    let alive = database.meters.tasks.begin(name);
    clock.clone().spawn(
        name,
        Box::pin(async move {
            let mut failing = false;
            let mut pause = interval;
            loop {
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return alive.leave(),
                    _ = clock.sleep(pause) => {}
                }
                let begun_us = clock.now_us();
                let outcome = action(&database).await;
                let took = Duration::from_micros(clock.now_us().saturating_sub(begun_us).unsigned_abs());
                pause = interval.max(took * REST);
                match outcome {
                    Ok(()) => failing = false,
                    // Once per trouble, not once per tick.
                    Err(error) if !failing => {
                        failing = true;
                        tracing::error!(%error, task = name, "a background task failed; it is tried again");
                    }
                    Err(_) => {}
                }
                if failing {
                    pause = pause.max(RETRY);
                }
            }
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_server_has_spilled_is_gone_at_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let folder = spill_folder(data.path()).unwrap();
        std::fs::create_dir(folder.join("datafusion-x")).unwrap();
        std::fs::write(folder.join("datafusion-x/1"), "rows").unwrap();
        assert_eq!(spill_folder(data.path()).unwrap(), folder);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_link_to_another_disk_is_followed_and_what_others_have_there_stays() {
        let disk = tempfile::tempdir().unwrap();
        std::fs::write(disk.path().join("of others"), "").unwrap();
        let linked = || {
            let data = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(disk.path(), data.path().join("spill")).unwrap();
            let folder = spill_folder(data.path()).unwrap();
            (data, folder)
        };
        let ((data, folder), (_data, other)) = (linked(), linked());
        assert!(folder != other && folder.parent() == Some(disk.path().canonicalize().unwrap().as_path()));
        for left in [&folder, &other] {
            std::fs::write(left.join("left"), "rows").unwrap();
        }
        assert_eq!(spill_folder(data.path()).unwrap(), folder);
        assert!(data.path().join("spill").is_symlink());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!((other.join("left").exists(), disk.path().join("of others").exists()), (true, true));

        let gone = disk.path().join("not mounted");
        std::fs::remove_file(data.path().join("spill")).unwrap();
        std::os::unix::fs::symlink(&gone, data.path().join("spill")).unwrap();
        let refused = spill_folder(data.path()).unwrap_err().to_string();
        assert!(refused.contains("is the disk that it leads to mounted?"), "{refused}");
        assert!(!gone.exists());
    }
}
