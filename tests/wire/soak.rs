//! Clients of all kinds, round after round, while events come in: lookups, queries, cursors, temporary tables, LISTEN, COPY;
//! some leave in order, some in the middle of a transaction or of a statement. Nobody gets an error, and when they are gone
//! nothing of them is left: no session, no table, no file, and memory does not grow with the rounds.
//!
//! `TIDEMARK_TEST_SOAK` (default 12) says how many rounds; the number of clients and of events in each is the same.

use crate::idle::alone;
use crate::process::{open_files, resident_kib};
use crate::server::{Folder, Server, value};
use anyhow::{Context, Result, ensure};
use futures::SinkExt;
use std::pin::pin;
use tokio_postgres::NoTls;

const ROUNDS: usize = 12;
const CLIENTS: usize = 24;
const LOOKUPS: i64 = 20;
const KEYS: usize = 100;
const EVENTS: usize = 1_000;
/// How much the memory may have grown over all rounds but the first third, by the line that fits them best. A session that
/// stayed would be a hundred KiB each: in a long run, and with all of them in a short one, that is far more.
const GROWTH_KIB_MAX: f64 = 16.0 * 1024.0;
/// What is open at one time and not at another: a log that is rolled, a table that is being written.
const FILES_SPARE: usize = 40;

/// How a client leaves.
#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    Orderly,
    /// Its socket is closed in a transaction with an open cursor.
    MidTransaction,
    /// Its socket is closed while its statement runs.
    MidStatement,
}

async fn client(server: &Server, leaves: Leaves) -> Result<()> {
    let (client, connection) = server.config().connect(NoTls).await?;
    let task = tokio::spawn(connection);
    client
        .batch_execute(
            "SET application_name = 'soak'; LISTEN soak;
             CREATE TEMP TABLE mine (a BIGINT, b TEXT); INSERT INTO mine VALUES (1, 'x'), (2, 'y')",
        )
        .await
        .context("a temporary table")?;
    let lookup = client.prepare("SELECT n, total FROM v WHERE k = $1").await?;
    for key in 0..LOOKUPS {
        client.query_opt(&lookup, &[&key]).await.context("a lookup")?;
        let text = format!("SELECT n FROM v WHERE k = {key}");
        client.simple_query(&text).await.context(text)?;
    }
    let several: Vec<i64> = (0..LOOKUPS).collect();
    client.query("SELECT k, n FROM v WHERE k = ANY($1)", &[&several]).await.context("several keys")?;
    ensure!(value(&client, "SELECT b FROM mine WHERE a = 2").await?.as_deref() == Some("y"));
    value(&client, "SELECT count(*) FROM v WHERE n > 1").await?;
    value(&client, "SELECT count(*) FROM tidemark.features").await?;
    client.batch_execute("NOTIFY soak, 'here'; PREPARE p AS SELECT n FROM v WHERE k = 1; EXECUTE p").await?;
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT k, n FROM v; FETCH 5 FROM c").await.context("a cursor")?;
    match leaves {
        Leaves::Orderly => {
            client.batch_execute("CLOSE c; COMMIT; DROP TABLE mine").await?;
            drop(client);
            task.await?.context("the connection")?;
        }
        Leaves::MidTransaction => task.abort(),
        Leaves::MidStatement => {
            // It runs until it is stopped; nobody waits for it.
            let mut statement = pin!(client.simple_query("SELECT pg_sleep(600)"));
            let sent = tokio::time::timeout(std::time::Duration::from_millis(20), &mut statement).await;
            ensure!(sent.is_err(), "pg_sleep is over: {sent:?}");
            task.abort();
        }
    }
    Ok(())
}

/// A second of event time for all keys, by COPY.
async fn ingest(server: &Server, round: usize) -> Result<()> {
    let client = server.connect().await?;
    let sink = client.copy_in("COPY c FROM STDIN").await?;
    let mut sink = pin!(sink);
    for piece in 0..10 {
        let lines = (0..EVENTS / 10).map(|i| {
            let i = piece * EVENTS / 10 + i;
            let seconds = round * 10 + i * 10 / EVENTS;
            let (hour, minute, second) = (10 + seconds / 3600, seconds / 60 % 60, seconds % 60);
            let (day, hour) = (2 + hour / 24, hour % 24);
            format!("{}\t{i}\t2026-03-{day:02} {hour:02}:{minute:02}:{second:02}+00\n", i % KEYS)
        });
        sink.send(bytes::Bytes::from(lines.collect::<String>())).await?;
    }
    let taken = sink.finish().await?;
    ensure!(taken == EVENTS as u64, "{taken} events taken");
    Ok(())
}

/// By how much the line that fits the values best rises from the first to the last.
fn growth(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let mut both = (0.0, 0.0);
    for (i, y) in values.iter().enumerate() {
        let x = i as f64 - mean_x;
        both = (both.0 + x * (y - mean_y), both.1 + x * x);
    }
    if both.1 > 0.0 { both.0 / both.1 * (n - 1.0) } else { 0.0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_and_go_for_many_rounds_and_leave_nothing_behind() -> Result<()> {
    let rounds: usize = std::env::var("TIDEMARK_TEST_SOAK").ok().map_or(Ok(ROUNDS), |text| text.parse())?;
    ensure!(rounds >= 6, "a third is warm-up, and a line needs some points");
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let watcher = server.connect().await?;
    watcher
        .batch_execute(
            "CREATE SOURCE c (k BIGINT NOT NULL, x BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER w AS n, sum(x) OVER w AS total FROM c
               WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '30 seconds' PRECEDING AND CURRENT ROW)",
        )
        .await?;
    let mut resident = Vec::new();
    let mut before = None;
    for round in 0..rounds {
        let clients = (0..CLIENTS).map(|i| {
            client(&server, [Leaves::Orderly, Leaves::MidTransaction, Leaves::MidStatement, Leaves::Orderly][i % 4])
        });
        let (left, ()) = tokio::try_join!(futures::future::try_join_all(clients), ingest(&server, round))
            .with_context(|| format!("round {round}\n{}", folder.log_tail()))?;
        ensure!(left.len() == CLIENTS);
        alone(&watcher).await.with_context(|| format!("round {round}"))?;
        watcher.batch_execute("CHECKPOINT").await?;
        resident.push(resident_kib(&server)? as f64);
        let logs = std::fs::read_dir(folder.data().join("log"))?.count();
        let now = (open_files(&server)?, logs);
        // The first round opens what stays open.
        let (files, logs_before) = *before.get_or_insert(now);
        ensure!(now.0 <= files + FILES_SPARE, "round {round}: {} files are open, after the first {files}", now.0);
        ensure!(logs == logs_before, "round {round}: {logs} logs, after the first {logs_before}");
    }
    let count = value(&watcher, "SELECT count(*) FROM c").await?;
    ensure!(count == Some((rounds * EVENTS).to_string()), "{count:?} events of {}", rounds * EVENTS);
    let settled = &resident[rounds / 3..];
    let grown = growth(settled);
    println!("{rounds} rounds: {:.0} KiB resident at the end, grown by {grown:.0} KiB", resident[rounds - 1]);
    ensure!(grown < GROWTH_KIB_MAX, "memory grows by {grown:.0} KiB in {} rounds: {settled:?}", settled.len());
    Ok(())
}

#[test]
fn a_line_that_rises_by_two_a_round_has_grown_by_that_many_twos() {
    let rising: Vec<f64> = (0..10).map(|i| f64::from(i) * 2.0 + f64::from(i % 2)).collect();
    assert!((growth(&rising) - 18.0).abs() < 1.0, "{}", growth(&rising));
    assert_eq!(growth(&[5.0; 4]), 0.0);
}
