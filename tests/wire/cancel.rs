//! A query that takes too long can be ended: by its client, by a timeout; and the server is free again.

use crate::server::{Folder, Server, shown, value};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

/// Takes longer than anybody waits.
const LONG: &str = "SELECT count(*) FROM n a, n b, n c WHERE a.n * b.n + c.n = -1";
/// Waits longer than anybody.
const SLEEP: &str = "SELECT pg_sleep(3600)";
const SOON: Duration = Duration::from_secs(20);

async fn numbers(server: &Server) -> Result<tokio_postgres::Client> {
    let client = server.connect().await?;
    let values: Vec<String> = (0..4_000).map(|n| format!("({n})")).collect();
    client.batch_execute(&format!("CREATE TABLE n (n BIGINT); INSERT INTO n VALUES {}", values.join(", "))).await?;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_ends_the_query_and_not_the_session() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = numbers(&server).await?;
    for (sql, extended) in [(LONG, false), (LONG, true), (SLEEP, false), (SLEEP, true)] {
        let token = client.cancel_token();
        let started = Instant::now();
        let query = async {
            if extended { client.query(sql, &[]).await.map(|_| ()) } else { client.simple_query(sql).await.map(|_| ()) }
        };
        let mut query = std::pin::pin!(query);
        // Once is not enough where the request overtakes the query.
        let error = loop {
            tokio::select! {
                ended = &mut query => match ended {
                    Ok(()) => bail!("the query has ended by itself"),
                    Err(error) => break error,
                },
                () = tokio::time::sleep(Duration::from_millis(100)) => token.cancel_query(NoTls).await?,
            }
        };
        ensure!(error.code().is_some_and(|code| code.code() == "57014"), "{}", shown(&error));
        ensure!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
        ensure!(value(&client, "SELECT count(*) FROM n").await?.as_deref() == Some("4000"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_timeout_ends_the_query() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = numbers(&server).await?;
    client.batch_execute("SET statement_timeout = '200ms'").await?;
    let started = Instant::now();
    let Err(error) = client.simple_query(LONG).await else { bail!("the query has ended by itself") };
    ensure!(error.code().is_some_and(|code| code.code() == "57014"), "{}", shown(&error));
    ensure!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    client.batch_execute("SET statement_timeout = 0").await?;
    ensure!(value(&client, "SELECT count(*) FROM n").await?.as_deref() == Some("4000"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_are_answered_while_a_long_query_runs_and_after_its_client_has_gone() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = numbers(&server).await?;
    let lookups = server.connect().await?;
    lookups
        .batch_execute(
            "CREATE SOURCE c (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM c;
             INSERT INTO c VALUES (1, '2026-03-02 10:00:00+00')",
        )
        .await?;
    let long = tokio::spawn(async move { client.simple_query(LONG).await.is_err() });
    for _ in 0..200 {
        ensure!(value(&lookups, "SELECT n FROM v WHERE k = 1").await?.as_deref() == Some("1"));
    }
    ensure!(!long.is_finished(), "the long query was not long");
    long.abort();
    for _ in 0..200 {
        ensure!(value(&lookups, "SELECT n FROM v WHERE k = 1").await?.as_deref() == Some("1"));
    }
    Ok(())
}
