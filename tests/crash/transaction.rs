//! A crash in a transaction that has changed the catalog: before COMMIT nothing of it is left, after COMMIT all of it.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Result, ensure};

/// Exchanges two views, puts a table in the place of another, makes what was not there.
const CHANGES: &str = "
    BEGIN;
    ALTER FEATURE VIEW a RENAME TO c;
    ALTER FEATURE VIEW b RENAME TO a;
    ALTER FEATURE VIEW c RENAME TO b;
    ALTER TABLE notes RENAME TO old;
    CREATE TABLE notes AS SELECT 2 AS n;
    DROP TABLE old;
    CREATE SCHEMA lake;
    CREATE FEATURE VIEW lake.d AS SELECT k, at, max(v) OVER (PARTITION BY k ORDER BY at) AS most FROM s;
    INSERT INTO s VALUES (1, 5, '2026-03-02 10:03:00+00')";

#[tokio::test]
async fn a_transaction_that_a_crash_cuts_short_leaves_nothing_and_one_that_has_committed_all() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT, v BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW a AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
             CREATE FEATURE VIEW b AS SELECT k, at, sum(v) OVER (PARTITION BY k ORDER BY at) AS total FROM s;
             CREATE TABLE notes AS SELECT 1 AS n;
             INSERT INTO s VALUES (1, 2, '2026-03-02 10:00:00+00'), (1, 3, '2026-03-02 10:01:00+00'), (1, 4, '2026-03-02 10:02:00+00');
             CHECKPOINT",
        )
        .await?;
    let counts = rows(&client, "SELECT at, n, _op, _recorded_at FROM history.a ORDER BY at").await?;
    let sums = rows(&client, "SELECT at, total, _op, _recorded_at FROM history.b ORDER BY at").await?;
    ensure!(counts.len() == 2 && sums.len() == 2, "{counts:?} {sums:?}");

    client.batch_execute(CHANGES).await?;
    ensure!(value(&client, "SELECT total FROM a WHERE k = 1").await?.as_deref() == Some("14"));
    server.kill()?;
    server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let first = "AND at < '2026-03-02 10:02:00+00' ORDER BY at";
    let history = |view: &str, value: &str| {
        format!("SELECT at, {value}, _op, _recorded_at FROM history.{view} WHERE k = 1 {first}")
    };
    ensure!(rows(&client, &history("a", "n")).await? == counts, "{}", folder.log_tail());
    ensure!(rows(&client, &history("b", "total")).await? == sums, "{}", folder.log_tail());
    // Rows are not the transaction's: both views have them.
    ensure!(value(&client, "SELECT n FROM a WHERE k = 1").await?.as_deref() == Some("4"));
    ensure!(value(&client, "SELECT total FROM b WHERE k = 1").await?.as_deref() == Some("14"));
    ensure!(value(&client, "SELECT n FROM notes").await?.as_deref() == Some("1"));
    ensure!(std::fs::read_dir(folder.data().join("log"))?.count() == 2, "a log of what is not there");
    ensure!(value(&client, "SELECT count(*) FROM pg_namespace WHERE nspname = 'lake'").await?.as_deref() == Some("0"));
    ensure!(
        value(&client, "SELECT count(*) FROM pg_class WHERE relname IN ('c', 'd', 'old')").await?.as_deref()
            == Some("0")
    );

    client.batch_execute(CHANGES).await?;
    client.batch_execute("COMMIT").await?;
    server.kill()?;
    server = Server::start(&folder).await?;
    let client = server.connect().await?;
    ensure!(rows(&client, &history("b", "n")).await? == counts, "{}", folder.log_tail());
    ensure!(rows(&client, &history("a", "total")).await? == sums, "{}", folder.log_tail());
    ensure!(value(&client, "SELECT n FROM notes").await?.as_deref() == Some("2"));
    ensure!(value(&client, "SELECT most FROM lake.d WHERE k = 1").await?.as_deref() == Some("5"));
    // In one message they are a transaction too.
    let several = "CREATE TABLE early (n INT); SELECT 1 / 0; CREATE TABLE late (n INT)";
    ensure!(client.batch_execute(several).await.is_err());
    ensure!(
        value(&client, "SELECT count(*) FROM pg_class WHERE relname IN ('early', 'late')").await?.as_deref()
            == Some("0")
    );
    client.batch_execute("CREATE TABLE early (n INT)").await?;
    Ok(())
}
