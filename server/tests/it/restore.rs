//! Clients are there before the feature views are: each lookup waits for its own view alone.
//!
//! The clock of these servers keeps back the task that restores view after view, so that none comes back but who asks for it.

use crate::metrics::http::get;
use futures::future::BoxFuture;
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tidemark_connectors::clock::SystemClock;
use tidemark_engine::seam::Clock;
use tidemark_server::{
    serve::{self, Running},
    settings::{Http, Settings},
};
use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

struct Patient {
    clock: SystemClock,
    /// What is kept back; `None`: nothing is any more.
    kept_back: Mutex<Option<Vec<BoxFuture<'static, ()>>>>,
    /// Whether who asks for a view is kept back, too.
    is_stubborn: AtomicBool,
}

impl Patient {
    fn new() -> Arc<Patient> {
        Arc::new(Patient {
            clock: SystemClock::new(Handle::current()),
            kept_back: Mutex::new(Some(vec![])),
            is_stubborn: AtomicBool::new(false),
        })
    }

    /// Goes on; what was kept back is given up where `begins` is false.
    fn go_on(&self, begins: bool) {
        let tasks = self.kept_back.lock().expect("nobody panicked").take().expect("it is called once");
        assert!(!tasks.is_empty(), "nothing was kept back");
        for task in tasks.into_iter().filter(|_| begins) {
            self.clock.spawn("restore", task);
        }
    }
}

impl Clock for Patient {
    fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }

    fn random(&self) -> u64 {
        self.clock.random()
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let is_kept_back = name == "restore" || name == "restore first" && self.is_stubborn.load(Ordering::SeqCst);
        match &mut *self.kept_back.lock().expect("nobody panicked") {
            Some(tasks) if is_kept_back => tasks.push(task),
            _ => self.clock.spawn(name, task),
        }
    }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().expect("an address"),
        http: Http::At("127.0.0.1:0".parse().expect("an address")),
        data: folder.join("data"),
        ..Settings::default()
    }
}

async fn connect(running: &Running) -> Client {
    let mut config = Config::new();
    config.host("127.0.0.1").port(running.address.port()).user("tidemark").dbname("tidemark");
    let (client, connection) = config.connect(NoTls).await.expect("it answers");
    tokio::spawn(connection);
    client
}

/// The only value of a query, by the simple protocol.
async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
        _ => None,
    });
    value.unwrap_or_else(|| panic!("{sql} has no row"))
}

/// The SQLSTATE of what must fail.
async fn refusal(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().map_or_else(|| "gone".to_string(), |code| code.code().to_string())
}

/// Ends it, and returns when it has let go of its directory.
async fn stop(running: Running) {
    let database = Arc::downgrade(&running.database);
    running.shutdown().await.expect("it stops in order");
    while database.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Views over one source, of different windows, one of which nobody will ask for; two events of key 1.
async fn lived_before(settings: &Settings) {
    let running = serve::start(settings).await.expect("it starts");
    let client = connect(&running).await;
    for sql in [
        "CREATE SOURCE s (k BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')",
        "CREATE FEATURE VIEW a AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s",
        "CREATE FEATURE VIEW b AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING) AS n FROM s",
        "CREATE FEATURE VIEW unasked AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at RANGE INTERVAL '2 hours' PRECEDING) AS n FROM s",
        "CREATE VIEW both_of_them AS SELECT a.k, a.n AS in_all, b.n AS in_the_hour FROM a LEFT JOIN b ON a.k = b.k",
        "INSERT INTO s VALUES (1, '2026-03-02 10:00:00+00'), (1, '2026-03-02 12:00:00+00')",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }
    drop(client);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_waits_for_its_own_view_and_what_changes_something_for_all() {
    let folder = tempfile::tempdir().expect("a directory");
    let settings = settings(folder.path());
    lived_before(&settings).await;
    let clock = Patient::new();
    let running = serve::begin_on(&settings, clock.clone()).await.expect("it begins");
    let http = running.http.expect("it answers HTTP");
    let client = connect(&running).await;

    // What needs no view, and what needs one, in every way of asking for it.
    assert_eq!(value(&client, "SELECT 1 + 1").await, "2");
    assert_eq!(value(&client, "SELECT relname FROM pg_catalog.pg_class WHERE relname = 'b'").await, "b");
    assert_eq!(value(&client, "SELECT count(*) FROM s").await, "2");
    assert_eq!(value(&client, "SELECT n FROM b WHERE k = 1").await, "1");
    assert_eq!(value(&client, "SELECT n FROM b WHERE k = 1").await, "1");
    let prepared = client.query_one("SELECT n FROM b WHERE k = $1", &[&1_i64]).await.expect("a row");
    assert_eq!(prepared.get::<_, i64>(0), 1);
    assert_eq!(value(&client, "SELECT max(n) FROM b").await, "1");

    // The others are not back, and nobody is told that they are.
    let answer = get(http, "/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "recovering\n"));
    client.batch_execute("SET statement_timeout = 20").await.expect("settings need no view");
    for waits in [
        "INSERT INTO s VALUES (1, '2026-03-02 12:30:00+00')",
        "CREATE FEATURE VIEW c AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s",
        "DROP FEATURE VIEW b",
        "SELECT name FROM tidemark.pipelines",
        "CHECKPOINT",
    ] {
        assert_eq!(refusal(&client, waits).await, "57014", "{waits}");
    }
    client.batch_execute("RESET statement_timeout").await.expect("settings need no view");
    assert_eq!(
        value(&client, "SELECT count(*) FROM s").await,
        "2",
        "what was cut off while it waited has not happened"
    );

    // One that waits for all goes on when they are there. A lookup of several views brings what it needs itself.
    let (inserted, both) =
        tokio::join!(client.batch_execute("INSERT INTO s VALUES (1, '2026-03-02 12:30:00+00')"), async {
            let other = connect(&running).await;
            let both = other.query_one("SELECT in_all, in_the_hour FROM both_of_them WHERE k = $1", &[&1_i64]).await;
            clock.go_on(true);
            both.expect("a row")
        });
    inserted.expect("a row is taken in");
    assert_eq!((both.get::<_, i64>(0), both.get::<_, i64>(1)), (2, 1));
    running.restored().await.expect("all are back");
    assert_eq!(get(http, "/readyz").await.status, 200);
    assert_eq!(value(&client, "SELECT n FROM a WHERE k = 1").await, "3");
    assert_eq!(value(&client, "SELECT n FROM b WHERE k = 1").await, "2");
    drop(client);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_before_its_views_are_back_tells_who_waits_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let settings = settings(folder.path());
    lived_before(&settings).await;
    let clock = Patient::new();
    let running = serve::begin_on(&settings, clock.clone()).await.expect("it begins");
    let client = connect(&running).await;
    assert_eq!(value(&client, "SELECT n FROM a WHERE k = 1").await, "2");
    let insert = client.batch_execute("INSERT INTO s VALUES (1, '2026-03-02 12:30:00+00')");
    let database = Arc::downgrade(&running.database);
    let (inserted, stopped) = tokio::join!(insert, running.shutdown());
    stopped.expect("it stops in order");
    let error = inserted.expect_err("nothing was taken in");
    // It waited already, or it came to a connection that was ending.
    let code = error.code().map_or("gone", |code| code.code());
    assert!(["57P03", "57P01", "gone"].contains(&code), "{error:?}");
    clock.go_on(false);
    while database.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let running = serve::start(&settings).await.expect("it starts again");
    let client = connect(&running).await;
    assert_eq!(value(&client, "SELECT n FROM a WHERE k = 1").await, "2");
    assert_eq!(value(&client, "SELECT n FROM b WHERE k = 1").await, "1");
    drop(client);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_with_a_deadline_does_not_wait_for_its_view_for_longer() {
    let folder = tempfile::tempdir().expect("a directory");
    let settings = settings(folder.path());
    lived_before(&settings).await;
    let clock = Patient::new();
    clock.is_stubborn.store(true, Ordering::SeqCst);
    let running = serve::begin_on(&settings, clock.clone()).await.expect("it begins");
    let client = connect(&running).await;
    client.batch_execute("SET tidemark.lookup_deadline = '5ms'").await.expect("settings need no view");
    client.batch_execute("PREPARE of_b (bigint) AS SELECT n FROM b WHERE k = $1").await.expect("a plan needs no view");
    for lookup in [
        "SELECT n FROM b WHERE k = 1",
        "EXECUTE of_b (1)",
        "SELECT asked.id, b.n FROM unnest('{1}'::bigint[]) AS asked (id) LEFT JOIN b ON b.k = asked.id",
    ] {
        let error = client.batch_execute(lookup).await.expect_err(lookup);
        let error = error.as_db_error().expect("an answer");
        assert_eq!(error.code().code(), "57014", "{lookup}");
        assert!(error.message().starts_with("feature view \"b\" has not answered within"), "{error:?}");
        assert_eq!(error.detail(), Some("it is not back yet since the server's start"), "{lookup}");
    }
    client.batch_execute("RESET tidemark.lookup_deadline").await.expect("settings need no view");
    // Who has none gets its answer when the view is back.
    let (there, ()) = tokio::join!(value(&client, "SELECT n FROM b WHERE k = 1"), async { clock.go_on(true) });
    assert_eq!(there, "1");
    running.restored().await.expect("all are back");
    drop(client);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_no_object_has_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a directory");
    let settings = settings(folder.path());
    lived_before(&settings).await;
    let logs = settings.data.join("log");
    let there = || {
        let entries = std::fs::read_dir(&logs).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let before = there();
    // As a crash leaves it between the end of a transaction and its drops: no checkpoint has met it.
    std::fs::create_dir(logs.join("99999")).expect("a folder");
    std::fs::write(logs.join("99999/00000000000000000000.log"), b"").expect("a file");
    std::fs::create_dir(logs.join("notes")).expect("a folder");
    assert_eq!(there().len(), before.len() + 2);
    let running = serve::start(&settings).await.expect("it starts");
    let client = connect(&running).await;
    assert_eq!(value(&client, "SELECT count(*) FROM s").await, "2");
    assert_eq!(there(), [&before[..], &["notes".to_string()]].concat());
    drop(client);
    stop(running).await;
}
