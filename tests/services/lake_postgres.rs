//! A server whose history's catalog is in a PostgreSQL: killed and started again, with connections that end, and with a password
//! that is shown nowhere.

use crate::{
    comes,
    postgres_server::PostgresServer,
    refused, run,
    server::{Folder, Server, rows, skipped},
};
use anyhow::{Result, ensure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_in_a_postgres_catalog_goes_on_after_a_kill_and_connections_that_ended() -> Result<()> {
    let Some(postgres) = PostgresServer::shared()? else {
        return skipped("there are no server programs of PostgreSQL");
    };
    let database = postgres.database().await?;
    let place = format!("127.0.0.1:{}/{database}", postgres.port());
    let url = format!("postgres://postgres:a.hidden.word@{place}?prefix=server_");
    let folder = Folder::new()?;
    let arguments = ["--history-catalog", url.as_str(), "--commit-interval", "100ms"];
    let mut server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    run(
        &client,
        "CREATE SOURCE clicks (u BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')",
    )
    .await?;
    run(
        &client,
        "CREATE FEATURE VIEW counted AS SELECT u, at, count(*) OVER w AS n FROM clicks
             WINDOW w AS (PARTITION BY u ORDER BY at ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)",
    )
    .await?;
    let other = postgres.session(&database).await?;
    for minute in 0..4 {
        let insert =
            format!("INSERT INTO clicks VALUES (1, '2026-03-01 10:0{minute}:00Z'), (2, '2026-03-01 10:0{minute}:30Z')");
        run(&client, &insert).await?;
        // Whatever a commit was doing, the pipeline finds out and goes on.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidemark'";
        other.batch_execute(end).await?;
        comes(&client, "SELECT count(*) FROM history.counted", &(2 * minute + 1).to_string()).await?;
    }
    server.kill()?;

    let mut server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    comes(&client, "SELECT count(*) FROM (SELECT DISTINCT u, at FROM history.counted) steps", "7").await?;
    run(&client, "ALTER FEATURE VIEW counted RENAME TO counts").await?;
    comes(&client, "SELECT count(*) FROM history.counts", "7").await?;
    let named = other.query_one("SELECT table_namespace || '.' || table_name FROM iceberg_tables", &[]).await?;
    ensure!(named.get::<usize, String>(0) == "server_public.counts", "{named:?}");
    refused(&client, "SELECT 1 FROM history.counted", "counted").await?;
    ensure!(!folder.data().join("warehouse/catalog.db").exists(), "there is no other catalog");
    for shown in rows(&client, "SHOW ALL").await? {
        ensure!(!shown.iter().flatten().any(|text| text.contains("a.hidden.word")), "{shown:?}");
    }
    ensure!(server.terminate().await?.success(), "the server ends in order");
    let kept = std::fs::read_to_string(folder.data().join("CATALOG"))?;
    ensure!(kept == format!("postgres://{place}?prefix=server_\n"), "{kept}");

    let insisting = format!("{url}&sslmode=require");
    for (arguments, said) in [
        (&[] as &[&str], "start the server with --history-catalog postgres://127.0.0.1"),
        (&["--history-catalog", insisting.as_str()][..], "sslmode=disable"),
    ] {
        let mut refused = Server::spawn(&folder, arguments)?;
        ensure!(!refused.ended().await?.success(), "a start with {arguments:?}");
        ensure!(folder.log_tail().contains(said), "{said}: {}", folder.log_tail());
    }
    ensure!(!folder.log_tail().contains("a.hidden.word"), "the log has a secret");
    Ok(())
}
