//! What machines see of a server, over real HTTP: the numbers, what they are called, and whether it is well and ready.

mod exposition;
mod files;
pub mod http;
mod lint;
mod promtool;

use crate::clock::world::World;
use exposition::Exposition;
use futures::{SinkExt, poll};
use http::{Answer, ask, get};
use std::{pin::pin, task::Poll, time::Duration};
use tidemark_server::settings::Http;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SETUP: [&str; 2] = [
    "CREATE SOURCE clicks (user_id BIGINT, price DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, \
     WATERMARK FOR at AS at - INTERVAL '1 minute')",
    "CREATE FEATURE VIEW spend AS SELECT user_id, at, count(*) OVER m5 AS n, sum(price) OVER m5 AS total FROM clicks \
     WINDOW m5 AS (PARTITION BY user_id ORDER BY at RANGE INTERVAL '5 minutes' PRECEDING)",
];

/// A server on a clock that stands still, with HTTP on a port of its own; nothing happens in it by itself.
async fn world() -> World {
    let never = Duration::from_secs(100 * 365 * 86_400);
    World::with("2026-03-02 10:00:00", |settings| {
        settings.http = Http::At("127.0.0.1:0".parse().expect("an address"));
        (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
    })
    .await
}

async fn scrape(world: &World) -> Exposition {
    let Answer { status, headers, body } = get(world.http(), "/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Exposition::parse(&body)
}

/// Something of everything, so that every metric that can have a value has one.
async fn busy() -> World {
    let world = world().await;
    for sql in SETUP {
        world.run(sql).await;
    }
    world.run("INSERT INTO clicks VALUES (1, 1, now()), (1, 2, now() - INTERVAL '10 seconds'), (2, 4, now())").await;
    // One too old for the source, one too new, and one of which the view does not know whose it is.
    world.run("INSERT INTO clicks VALUES (1, 1, now() - INTERVAL '1 hour')").await;
    world.run("INSERT INTO clicks VALUES (1, 1, now() + INTERVAL '2 hours'), (NULL, 1, now())").await;
    world
}

#[tokio::test]
async fn care_for_the_files_of_history_is_counted() {
    let world = busy().await;
    let of_view = |seen: &Exposition, name: &str| seen.value(name, &[("view", "spend")]);
    let before = scrape(&world).await;
    assert_eq!(of_view(&before, "tidemark_view_maintenance_runs_total"), 0.0);
    // Nobody has looked at the files yet, and nobody does by himself here.
    assert!(before.family("tidemark_view_history_files").series.is_empty());
    for sql in
        ["CHECKPOINT", "INSERT INTO clicks VALUES (1, 1, now())", "OPTIMIZE history.spend", "VACUUM history.spend"]
    {
        world.run(sql).await;
    }
    let seen = scrape(&world).await;
    assert_eq!(of_view(&seen, "tidemark_view_maintenance_runs_total"), 2.0);
    assert_eq!(of_view(&seen, "tidemark_view_maintenance_failures_total"), 0.0);
    assert_eq!(of_view(&seen, "tidemark_view_maintenance_bytes_total"), 0.0);
}

#[tokio::test]
async fn rows_and_dead_letters_are_counted_by_source_and_reason() {
    let world = busy().await;
    let seen = scrape(&world).await;
    assert_eq!(seen.value("tidemark_source_rows_total", &[("source", "clicks")]), 4.0);
    assert!(seen.value("tidemark_source_appended_bytes_total", &[("source", "clicks")]) > 0.0);
    for (reason, count) in
        [("late", 1.0), ("future", 1.0), ("null_key", 1.0), ("decode", 0.0), ("event_time", 0.0), ("expression", 0.0)]
    {
        let labels = [("source", "clicks"), ("reason", reason)];
        assert_eq!(seen.value("tidemark_dead_letters_total", &labels), count, "{reason}");
    }
    assert_eq!(world.value("SELECT count(*) FROM tidemark.dead_letters").await, "3");
    // Every admitted row was readable when its statement returned, at the very instant on this clock.
    let readable = seen.histogram("tidemark_event_to_readable_seconds", &[("source", "clicks")]);
    assert_eq!((readable.count, readable.sum, readable.buckets[0].1), (4.0, 0.0, 4.0));
    assert_eq!(seen.value("tidemark_source_watermark_delay_seconds", &[("source", "clicks")]), 60.0);
}

#[tokio::test]
async fn every_lookup_is_in_the_histogram_of_its_path_and_no_statement_is_a_lookup() {
    let world = busy().await;
    let before = scrape(&world).await;
    assert_eq!(before.histogram("tidemark_statement_duration_seconds", &[]).count, 5.0);
    for user in 1..=5 {
        world.rows(&format!("SELECT n, total FROM spend WHERE user_id = {user}")).await;
    }
    for user in 1..=3i64 {
        let asked = world.client().query("SELECT n, total FROM spend WHERE user_id = $1", &[&user]).await;
        asked.expect("a lookup answers");
    }
    let seen = scrape(&world).await;
    let lookups = |path| seen.histogram("tidemark_lookup_duration_seconds", &[("path", path)]);
    // The first text is parsed; the four like it are known by their fingerprint.
    assert!(lookups("fingerprint").count >= 4.0 && lookups("prepared").count >= 1.0);
    assert_eq!(lookups("fingerprint").count + lookups("prepared").count, 8.0);
    assert_eq!(seen.histogram("tidemark_statement_duration_seconds", &[]).count, 5.0);
    world.rows("SELECT count(*) FROM spend").await;
    assert_eq!(world.refusal("SELECT nothing FROM nowhere").await, "42P01");
    assert_eq!(world.refusal("SELEC 1").await, "42601");
    let seen = scrape(&world).await;
    assert_eq!(seen.histogram("tidemark_statement_duration_seconds", &[]).count, 6.0);
    assert_eq!(seen.value("tidemark_errors_total", &[("class", "42")]), 2.0);
    assert_eq!(seen.value("tidemark_statements_running", &[]), 0.0);
    assert_eq!(seen.value("tidemark_connections", &[]), 1.0);
    assert_eq!(seen.value("tidemark_connections_limit", &[]), 1_000.0);
}

#[tokio::test]
async fn views_tell_how_fresh_they_are_and_what_has_not_reached_their_stores() {
    let world = busy().await;
    let view = [("view", "spend")];
    let seen = scrape(&world).await;
    assert_eq!(seen.value("tidemark_view_freshness_seconds", &view), 0.0);
    assert_eq!(seen.value("tidemark_view_keys", &view), 2.0);
    assert_eq!(seen.value("tidemark_view_keys_in_memory", &view), 2.0);
    assert_eq!(seen.value("tidemark_view_online_keys_waiting", &view), 2.0);
    assert_eq!(seen.value("tidemark_view_rows_failed_total", &view), 1.0);
    assert_eq!(seen.value("tidemark_view_failed", &view), 0.0);
    assert!(seen.value("tidemark_view_state_memory_bytes", &view) > 0.0);
    assert_eq!(seen.histogram("tidemark_online_flush_keys", &[]).count, 0.0);
    assert!(seen.find("tidemark_view_history_age_seconds", &view).is_none(), "nothing has been committed");

    world.engine().flush_online().await.expect("a flush");
    // Nothing is left to put: this one does not count.
    world.engine().flush_online().await.expect("a flush");
    let seen = scrape(&world).await;
    let flushed = seen.histogram("tidemark_online_flush_keys", &[]);
    assert_eq!((flushed.count, flushed.sum), (1.0, 2.0));
    assert_eq!(seen.histogram("tidemark_online_flush_duration_seconds", &[]).count, 1.0);
    assert_eq!(seen.histogram("tidemark_online_put_duration_seconds", &[]).count, 1.0);
    // No server is behind the embedded store.
    assert_eq!(seen.value("tidemark_online_round_trips_total", &[]), 0.0);
    assert_eq!(seen.value("tidemark_online_commands_total", &[]), 0.0);
    assert_eq!(seen.value("tidemark_view_online_keys_waiting", &view), 0.0);
    assert_eq!(seen.value("tidemark_view_online_flush_failures_total", &view), 0.0);

    world.clock.set("2026-03-02 10:00:07");
    world.run("ALTER SOURCE clicks ADVANCE WATERMARK TO TIMESTAMPTZ '2026-03-02 10:00:01+00'").await;
    let seen = scrape(&world).await;
    assert_eq!(seen.value("tidemark_view_freshness_seconds", &view), 7.0);
    assert_eq!(seen.value("tidemark_source_watermark_delay_seconds", &[("source", "clicks")]), 6.0);
    let waiting = seen.value("tidemark_view_steps_waiting", &view);
    assert!(waiting >= 2.0, "{waiting} steps");

    world.engine().checkpoint().await.expect("a checkpoint");
    let seen = scrape(&world).await;
    assert_eq!(seen.value("tidemark_view_steps_waiting", &view), 0.0);
    assert_eq!(seen.value("tidemark_view_history_steps_total", &view), waiting);
    assert_eq!(seen.value("tidemark_view_history_commits_total", &view), 1.0);
    assert_eq!(seen.value("tidemark_view_history_commit_failures_total", &view), 0.0);
    assert_eq!(seen.value("tidemark_view_history_age_seconds", &view), 6.0);
    assert_eq!(seen.histogram("tidemark_history_commit_duration_seconds", &[]).count, 1.0);
    assert_eq!(seen.histogram("tidemark_checkpoint_duration_seconds", &[]).count, 1.0);
    assert_eq!(seen.value("tidemark_checkpoint_failures_total", &[]), 0.0);
    assert!(seen.value("tidemark_checkpoint_bytes_total", &[]) > 0.0);
}

#[tokio::test]
async fn a_renamed_view_goes_on_under_its_new_name_and_a_dropped_one_is_gone() {
    let world = busy().await;
    world.run("ALTER FEATURE VIEW spend RENAME TO outlay").await;
    let renamed = scrape(&world).await;
    assert_eq!(renamed.value("tidemark_view_keys", &[("view", "outlay")]), 2.0);
    assert!(renamed.find("tidemark_view_keys", &[("view", "spend")]).is_none());
    world.run("DROP FEATURE VIEW outlay").await;
    assert!(scrape(&world).await.family("tidemark_view_keys").series.is_empty());
}

#[tokio::test]
async fn names_and_units_are_as_prometheus_wants_them_also_on_an_empty_server() {
    let (empty, busy) = (world().await, busy().await);
    let families = [lint::check(&scrape(&empty).await), lint::check(&scrape(&busy).await)];
    assert_eq!(families[0], families[1], "a metric comes and goes");
}

#[tokio::test]
async fn it_is_ready_until_it_is_told_to_stop_and_healthy_until_it_has() {
    let mut world = busy().await;
    let address = world.http();
    for (path, line) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = get(address, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, line), "{path}");
    }
    assert_eq!(scrape(&world).await.value("tidemark_ready", &[]), 1.0);

    let (running, client) = world.take();
    // A statement that waits for its client holds the end up.
    let copy = client.copy_in::<_, bytes::Bytes>("COPY clicks FROM STDIN").await.expect("COPY begins");
    let mut copy = pin!(copy);
    copy.send(bytes::Bytes::from_static(b"3\t1\t2026-03-02 10:00:00+00\n")).await.expect("a row is sent");
    let watched = async {
        loop {
            let answer = get(address, "/readyz").await;
            if answer.status == 503 {
                assert_eq!(answer.body, "shutting down\n");
                break;
            }
        }
        assert_eq!(get(address, "/healthz").await.status, 200);
        let seen = Exposition::parse(&get(address, "/metrics").await.body);
        assert_eq!(seen.value("tidemark_ready", &[]), 0.0);
        assert_eq!(seen.value("tidemark_statements_running", &[]), 1.0);
        assert_eq!(copy.finish().await.expect("COPY ends"), 1);
    };
    let (stopped, ()) = tokio::join!(running.shutdown(), watched);
    stopped.expect("it stops in order");
    // The port goes with the last task.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn other_paths_and_other_methods_are_refused() {
    let world = world().await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/metrics?name=x", 200),
        ("POST", "/metrics", 405),
        ("DELETE", "/readyz", 405),
        ("POST", "/nowhere", 404),
    ] {
        let answer = ask(world.http(), method, path).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    let head = ask(world.http(), "HEAD", "/readyz").await;
    assert_eq!((head.status, head.body.as_str(), head.headers["content-length"].as_str()), (200, "", "6"));
}

/// Reads to the end; that the other side resets the connection is an end too.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.is_err() || rest.is_empty()
}

#[tokio::test]
async fn whoever_says_nothing_is_not_waited_for_and_takes_no_place_from_others_for_long() {
    let world = world().await;
    let mut silent = vec![];
    // Taken in the order in which they come: the last one finds no place.
    for _ in 0..65 {
        silent.push(TcpStream::connect(world.http()).await.expect("it connects"));
    }
    let mut last = silent.pop().expect("the last one");
    assert!(is_closed(&mut last).await);
    // One has begun to speak, which is not enough.
    silent[0].write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.expect("it is written");
    for mut stream in silent {
        let mut closed = pin!(is_closed(&mut stream));
        loop {
            match poll!(&mut closed) {
                Poll::Ready(closed) => break assert!(closed),
                Poll::Pending => world.clock.pass(Duration::from_secs(1)),
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(get(world.http(), "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_request_without_an_end_is_refused() {
    let world = world().await;
    let mut stream = TcpStream::connect(world.http()).await.expect("it connects");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.expect("it is written");
    // Somewhere on the way it is told, or the connection ends.
    while stream.write_all(&[b'x'; 4096]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(world.http(), "/healthz").await.status, 200);
}
