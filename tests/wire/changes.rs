//! What other sessions see of a statement that changes rows: what was there before it, or all of it; and what began to read before it
//! goes on reading that, though it leaves the disk afterwards.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Context, Result, ensure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_seen_whole_or_not_at_all() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    for table in ["keyed (id BIGINT PRIMARY KEY, v BIGINT)", "plain (id BIGINT, v BIGINT)"] {
        let name = &table[..5];
        // Several batches of rows.
        client.batch_execute(&format!("CREATE TABLE {table}")).await?;
        client.batch_execute(&format!("INSERT INTO {name} SELECT n, 1 FROM generate_series(1, 30000) AS g(n)")).await?;
        let other = server.connect().await?;
        let update = format!("UPDATE {name} SET v = v + CASE WHEN id <= 15000 THEN 1 ELSE -1 END");
        let writer = tokio::spawn(async move {
            for _ in 0..10 {
                other.batch_execute(&update).await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        });
        let mut seen = 0;
        while !writer.is_finished() || seen == 0 {
            let read = value(&client, &format!("SELECT count(*) || ' ' || sum(v) FROM {name}")).await?;
            ensure!(read.as_deref() == Some("30000 30000"), "{name}, reading {seen}: {read:?}");
            seen += 1;
        }
        writer.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_reads_all_its_tables_at_one_moment() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (client, other) = (server.connect().await?, server.connect().await?);
    client.batch_execute("CREATE TABLE a (n BIGINT); CREATE TABLE b (n BIGINT PRIMARY KEY)").await?;
    // Whatever is in b has been in a before.
    let writer = tokio::spawn(async move {
        for n in 0..100 {
            other.batch_execute(&format!("INSERT INTO a VALUES ({n})")).await?;
            other.batch_execute(&format!("INSERT INTO b VALUES ({n})")).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    let mut seen = 0;
    while !writer.is_finished() || seen == 0 {
        for (first, second, at_most) in [("a", "b", "1"), ("b", "a", "1"), ("a", "a", "0"), ("b", "b", "0")] {
            // At the most the one that is on its way.
            let apart = format!("SELECT abs((SELECT count(*) FROM {first}) - (SELECT count(*) FROM {second}))");
            let apart = value(&client, &apart).await?.unwrap_or_default();
            ensure!(apart == "0" || apart == at_most, "{first} and {second}, reading {seen}: {apart} apart");
        }
        let missing = value(&client, "SELECT count(*) FROM b LEFT JOIN a ON a.n = b.n WHERE a.n IS NULL").await?;
        ensure!(missing.as_deref() == Some("0"), "reading {seen}: {missing:?} rows of b without theirs of a");
        seen += 1;
    }
    writer.await??;
    Ok(())
}

/// Files of the one log there is.
fn segments(folder: &Folder) -> Result<usize> {
    let log = std::fs::read_dir(folder.data().join("log"))?.next().context("no log")??;
    Ok(std::fs::read_dir(log.path())?.count())
}

#[tokio::test]
async fn a_cursor_reads_on_what_a_truncate_takes_away_and_then_it_leaves_the_disk() -> Result<()> {
    const ROWS: u64 = 60_000;
    let folder = Folder::new()?;
    // Segments are removed whole, and by checkpoints.
    let server = Server::start_with(&folder, &["--log-segment-bytes", "64KB", "--checkpoint-interval", "1h"]).await?;
    let (reader, other) = (server.connect().await?, server.connect().await?);
    other.batch_execute("CREATE TABLE t (n BIGINT)").await?;
    // One append each, so that a segment ends between them.
    for first in (1..=ROWS).step_by(10_000) {
        let last = first + 9_999;
        other.batch_execute(&format!("INSERT INTO t SELECT n FROM generate_series({first}, {last}) AS g(n)")).await?;
    }
    let full = segments(&folder)?;
    ensure!(full > 3, "{full} segments");
    reader.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT n FROM t").await?;
    ensure!(rows(&reader, "FETCH 10 FROM c").await?.len() == 10);
    other.batch_execute("TRUNCATE t; INSERT INTO t VALUES (-1); CHECKPOINT").await?;
    ensure!(value(&other, "SELECT sum(n) FROM t").await?.as_deref() == Some("-1"));
    ensure!(rows(&reader, "FETCH ALL FROM c").await?.len() as u64 == ROWS - 10, "rows are lost under a cursor");
    reader.batch_execute("COMMIT").await?;
    other.batch_execute("INSERT INTO t VALUES (-2); CHECKPOINT").await?;
    ensure!(segments(&folder)? < full, "nothing has left the disk");
    ensure!(value(&other, "SELECT sum(n) FROM t").await?.as_deref() == Some("-3"));
    Ok(())
}
