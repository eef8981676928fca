//! Wiring: from settings to a running server, and back down.

use crate::{
    backend::TidemarkBackend,
    database::Database,
    http::{self, Phase, Subject},
    pg,
    points::{AbortAt, Point, Points},
    queries::Queries,
    settings::Settings,
};
use anyhow::{Context, Result};
use arrow::datatypes::SchemaRef;
use datafusion::execution::{memory_pool::FairSpillPool, runtime_env::RuntimeEnvBuilder};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidemark_catalog::{CatalogStore, ObjectId};
use tidemark_connectors::{
    clock::SystemClock,
    iceberg::IcebergHistory,
    lock::DirLock,
    log::{EmbeddedLog, LogSettings},
    online::FjallOnline,
    redis::{Address, RedisOnline, owner},
    state::FjallState,
};
use tidemark_engine::{
    asof,
    runtime::{Engine, Logs, Seams},
    seam::{Clock, OnlineStore, SeamResult, Source},
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
    _lock: DirLock,
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
}

/// Opens the data directory, recovers, and listens. Returns when clients can connect.
///
/// Dropping the future on the way closes what is open, the lock last: as after a crash the next start recovers from the
/// same log and checkpoint. Recovery yields after every batch, so whoever waits for a signal beside it gets a turn.
pub async fn start(settings: &Settings) -> Result<Running> {
    start_to_abort(settings, None).await
}

/// The same for tests of crashes: the process ends where they say.
pub async fn start_to_abort(settings: &Settings, abort_at: Option<AbortAt>) -> Result<Running> {
    let clock = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
    start_with(settings, clock, abort_at.map(Points::new)).await
}

/// The same on a clock of the caller's: a test moves time by hand.
pub async fn start_on(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Running> {
    start_with(settings, clock, None).await
}

async fn start_with(settings: &Settings, clock: Arc<dyn Clock>, points: Option<Arc<Points>>) -> Result<Running> {
    let data = &settings.data;
    let lock = DirLock::acquire_patiently(data, clock.as_ref()).await?;
    // Before recovery, which may take a while: a port in use is known at once.
    let listener = pg::bind(settings.listen).await?;
    let address = listener.local_addr()?;
    let watched = http::bind(settings.http).await?;
    let http = watched.as_ref().map(|listener| listener.local_addr()).transpose()?;
    // Whoever drops this ends it: a start that fails, or the server when it is over.
    let (phase, seen) = watch::channel(Phase::Recovering);
    if let Some(listener) = watched {
        clock.spawn("http", Box::pin(http::serve(listener, clock.clone(), seen)));
    }
    let database = Arc::new(open(settings, data, clock.clone(), points).await?);

    let started_us = clock.now_us();
    let backend = Arc::new(TidemarkBackend {
        database: database.clone(),
        started_us,
        statement_timeout: settings.statement_timeout,
    });
    let limits = pg::Settings {
        max_connections: settings.max_connections,
        startup_timeout: settings.startup_timeout,
        message_bytes_max: settings.message_bytes_max,
        shutdown_grace: settings.shutdown_grace,
        ..Default::default()
    };
    let server = pg::Server::new(backend, clock.clone(), limits);
    let (stop, stopping) = watch::channel(false);
    let (finished, stopped) = tokio::sync::oneshot::channel();
    database.feeds.start_all(&database.snapshot());
    background(&database, settings, stopping.clone());
    let last = database.clone();
    let max_connections = settings.max_connections;
    let subject = Subject { database: database.clone(), server: server.clone(), max_connections, started_us };
    let alive = database.meters.tasks.begin("server");
    phase.send_replace(Phase::Serving(subject.clone()));
    clock.spawn(
        "server",
        Box::pin(async move {
            let mut stopping = stopping;
            let shutdown = async {
                let _ = stopping.wait_for(|stop| *stop).await;
                // While statements finish nobody new is to be sent here.
                phase.send_replace(Phase::Stopping(subject));
            };
            server.serve(listener, shutdown).await;
            last.feeds.stop_all().await;
            // Everybody has left: what is in memory becomes durable.
            if let Err(error) = last.engine.flush_online().await {
                tracing::error!(%error, "the online store could not be brought level");
            }
            let _ = finished.send(last.engine.checkpoint().await);
            alive.leave();
        }),
    );
    Ok(Running { address, http, database, stop, stopped, _lock: lock })
}

impl Running {
    /// Stops accepting, lets statements finish, checkpoints. An error: that failed, and the next start takes longer.
    pub async fn shutdown(self) -> Result<()> {
        self.stop.send_replace(true);
        let checkpointed = self.stopped.await.context("the server ended without its last checkpoint")?;
        checkpointed.context("the last checkpoint failed; nothing is lost, the next start reads the log instead")
    }
}

async fn open(
    settings: &Settings,
    data: &Path,
    clock: Arc<dyn Clock>,
    points: Option<Arc<Points>>,
) -> Result<Database> {
    let catalog = CatalogStore::open(&data.join("catalog.db")).await.context("cannot open the catalog")?;
    let log = LogSettings {
        fsync: settings.fsync,
        segment_bytes: settings.log_segment_bytes,
        max_bytes: settings.log_max_bytes,
    };
    let threads = settings.worker_threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    let threads = threads.unwrap_or(1);
    // Some 200 bytes each.
    const STEPS_WAITING_MAX: usize = 4 << 20;
    let mut history = IcebergHistory::open(&data.join("warehouse"), clock.clone()).await?;
    if let Some(points) = points.clone() {
        history = history.with_files_written(Box::new(move || points.pass(Point::HistoryFilesWritten)));
    }
    let seams = Seams {
        steps_waiting_max: STEPS_WAITING_MAX,
        threads,
        shares: true,
        memory: Arc::new(Memory::new(settings.state_memory)),
        clock: clock.clone(),
        logs: Arc::new(EmbeddedLogs { folder: data.join("log"), settings: log }),
        state: Arc::new(FjallState::open(&data.join("state"))?),
        online: online(settings, clock.as_ref()).await?,
        history: Arc::new(history),
    };
    let seams = match &points {
        Some(points) => points.around(seams),
        None => seams,
    };
    let engine = Arc::new(Engine::start(seams, catalog.snapshot()).await.context("recovery failed")?);
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(bytes) = settings.query_memory {
        runtime = runtime.with_memory_pool(Arc::new(FairSpillPool::new(bytes as usize)));
    }
    let mut config = session_config().with_batch_size(settings.batch_rows);
    if let Some(threads) = settings.worker_threads {
        config = config.with_target_partitions(threads);
    }
    let builder = asof::install(state_builder(config)).with_runtime_env(Arc::new(runtime.build()?));
    let folder = std::env::current_dir().context("the current folder is gone")?;
    let queries = Queries::new(threads).context("cannot start the threads of queries")?;
    let mut database = Database::new(engine, clock, catalog, builder.build(), queries, folder);
    database.points = points;
    Ok(database)
}

async fn online(settings: &Settings, clock: &dyn Clock) -> Result<Arc<dyn OnlineStore>> {
    let Some(url) = &settings.online else {
        return Ok(Arc::new(FjallOnline::open(&settings.data.join("online"))?));
    };
    let address = Address::parse(url).map_err(|error| anyhow::anyhow!("--online: {error}"))?;
    let redis = RedisOnline::new(address, owner(&settings.data, clock)?);
    if let Err(error) = redis.ping().await {
        tracing::warn!(%error, "the online store does not answer; it is brought level when it does");
    }
    Ok(Arc::new(redis))
}

/// What happens without anybody asking: what was in memory before the start comes back, departures reach the online store, silent sources move on, checkpoints.
fn background(database: &Arc<Database>, settings: &Settings, stopping: watch::Receiver<bool>) {
    let warmed = database.clone();
    database.clock.spawn(
        "warm",
        Box::pin(async move {
            if let Err(error) = warmed.engine.warm().await {
                tracing::warn!(%error, "keys were not brought into memory beforehand; each comes when it is needed");
            }
        }),
    );
    every(database, stopping.clone(), "online", settings.online_tick, |database| {
        Box::pin(async move { database.engine.flush_online().await.map(|_| ()) })
    });
    every(database, stopping.clone(), "online doubt", ONLINE_DOUBT, |database| {
        Box::pin(async move {
            database.engine.doubt_online();
            Ok(())
        })
    });
    every(database, stopping.clone(), "history", settings.commit_interval, |database| {
        Box::pin(async move {
            database.engine.advance_idle().await?;
            database.engine.commit_history().await
        })
    });
    every(database, stopping, "checkpoint", settings.checkpoint_interval, |database| {
        Box::pin(async move {
            database.engine.checkpoint().await?;
            database.engine.expire_letters().await.map(|_| ())
        })
    });
}

/// A background task that took long rests this many times as long: under load it takes a fifth of one core at most,
/// and values that change again meanwhile are put once.
const REST: u32 = 4;

/// How often an online store that is said to have a view is asked whether it still has. One round trip for each view; a view
/// of which nothing changes is filled again so much later.
const ONLINE_DOUBT: Duration = Duration::from_secs(10);

/// After a failure at least this long: soon enough to be level again, seldom enough that what is tried in vain (a Redis that is
/// away) costs little.
const RETRY: Duration = Duration::from_millis(500);

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
