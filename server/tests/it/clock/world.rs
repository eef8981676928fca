//! The server, its clock and one client.

use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tidemark_engine::runtime::Engine;
use tidemark_engine::seam::Clock;
use tidemark_server::serve::{self, Running};
use tidemark_server::settings::{Http, Settings};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Stands still until the test sets it; a sleep ends when it has been set far enough.
pub struct HandClock {
    now_us: watch::Sender<i64>,
    numbers: AtomicU64,
    runtime: Handle,
}

impl HandClock {
    fn at(time: &str) -> Arc<HandClock> {
        let now_us = watch::Sender::new(microseconds(time));
        Arc::new(HandClock { now_us, numbers: AtomicU64::new(42), runtime: Handle::current() })
    }

    /// `2026-03-02 10:00:00.5`, UTC.
    pub fn set(&self, time: &str) {
        let to_us = microseconds(time);
        assert!(to_us >= self.now_us(), "the clock would go back to {time}");
        self.now_us.send_replace(to_us);
    }

    pub fn pass(&self, duration: Duration) {
        self.now_us.send_modify(|now_us| *now_us += duration.as_micros() as i64);
    }
}

impl Clock for HandClock {
    fn now_us(&self) -> i64 {
        *self.now_us.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let until_us = self.now_us().saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
        let mut now_us = self.now_us.subscribe();
        Box::pin(async move {
            if now_us.wait_for(|now_us| *now_us >= until_us).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn random(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }
}

fn microseconds(time: &str) -> i64 {
    let time = chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f").expect("a time");
    time.and_utc().timestamp_micros()
}

pub struct World {
    pub clock: Arc<HandClock>,
    settings: Settings,
    _folder: TempDir,
    running: Option<(Running, Client)>,
}

impl World {
    /// On an empty directory. What the server does by itself never comes to its turn: [`World::tick`] does it, so that
    /// it happens when the test says.
    pub async fn at(time: &str) -> World {
        let never = Duration::from_secs(100 * 365 * 86_400);
        World::with(time, |settings| {
            (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
        })
        .await
    }

    pub async fn with(time: &str, change: impl FnOnce(&mut Settings)) -> World {
        let folder = tempfile::tempdir().expect("a directory");
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().expect("an address"),
            http: Http::Off,
            // A test that is about it turns it on.
            maintenance: false,
            data: folder.path().join("data"),
            ..Settings::default()
        };
        change(&mut settings);
        let mut world = World { clock: HandClock::at(time), settings, _folder: folder, running: None };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let running = serve::start_on(&self.settings, self.clock.clone()).await.expect("it starts");
        let client = self.connect_to(&running).await;
        self.running = Some((running, client));
    }

    async fn connect_to(&self, running: &Running) -> Client {
        let mut config = Config::new();
        config.host("127.0.0.1").port(running.address.port()).user("tidemark").dbname("tidemark");
        let (client, connection) = config.connect(NoTls).await.expect("it answers");
        self.clock.spawn("client", Box::pin(async move { drop(connection.await) }));
        client
    }

    /// A session beside that of the client.
    pub async fn connect(&self) -> Client {
        self.connect_to(self.server()).await
    }

    /// Stops it in order and starts another one on its directory.
    pub async fn restart(&mut self) {
        self.restart_with(|_| ()).await;
    }

    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Settings)) {
        if let Some((running, client)) = self.running.take() {
            drop(client);
            let database = Arc::downgrade(&running.database);
            running.shutdown().await.expect("it stops");
            // The last task lets go of the stores a moment later.
            while database.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        }
        change(&mut self.settings);
        self.start().await;
    }

    fn running(&self) -> &(Running, Client) {
        self.running.as_ref().expect("it runs")
    }

    /// Where it answers HTTP, if it was told to.
    pub fn http(&self) -> SocketAddr {
        self.running().0.http.expect("it answers HTTP")
    }

    /// The files of Parquet that histories have on the disk.
    pub fn history_files(&self) -> usize {
        let mut folders = vec![self.settings.data.join("warehouse")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files += usize::from(path.extension().is_some_and(|ending| ending == "parquet")),
                }
            }
        }
        files
    }

    pub fn client(&self) -> &Client {
        &self.running().1
    }

    /// The server, for the test to end.
    pub fn take(&mut self) -> (Running, Client) {
        self.running.take().expect("it runs")
    }

    pub fn server(&self) -> &Running {
        &self.running().0
    }

    pub fn engine(&self) -> &Engine {
        &self.running().0.database.owner().expect("it owns its data").engine
    }

    /// What the server's background does every few seconds.
    pub async fn tick(&self) {
        let engine = self.engine();
        engine.advance_idle().await.expect("idle sources move on");
        engine.checkpoint().await.expect("a checkpoint");
        engine.expire_letters().await.expect("letters expire");
    }

    pub async fn run(&self, sql: &str) {
        if let Err(error) = self.running().1.batch_execute(sql).await {
            panic!("{sql}: {:?}", error.as_db_error());
        }
    }

    /// The SQLSTATE of what must fail.
    pub async fn refusal(&self, sql: &str) -> String {
        let error = self.running().1.batch_execute(sql).await.expect_err(sql);
        error.code().map_or(String::new(), |code| code.code().to_string())
    }

    /// Each row as its values with a blank between them.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let messages = match self.running().1.simple_query(sql).await {
            Ok(messages) => messages,
            Err(error) => panic!("{sql}: {:?}", error.as_db_error()),
        };
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
                Some(values.join(" "))
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    pub async fn value(&self, sql: &str) -> String {
        let mut rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.remove(0)
    }
}
