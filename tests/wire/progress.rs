//! `tidemark.progress`: a COPY that goes on is seen from another session with what it has counted, and is hidden from who may
//! not see it.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::SinkExt;
use std::{pin::pin, time::Duration};
use tokio_postgres::{Client, NoTls};

const ASK: &str = "SELECT statement, object, phase, unit, done FROM tidemark.progress";

/// What the table shows when the rows that were sent have been counted.
async fn counted(client: &Client, wanted: &str) -> Result<Vec<Vec<Option<String>>>> {
    for _ in 0..12_000 {
        let seen = rows(client, ASK).await?;
        if seen.iter().any(|row| row[4].as_deref() == Some(wanted)) {
            return Ok(seen);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("{wanted} rows were never counted: {:?}", rows(client, ASK).await?)
}

#[tokio::test]
async fn a_copy_is_seen_while_it_goes_on_and_not_by_everybody() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (writer, watcher) = (server.connect().await?, server.connect().await?);
    writer.batch_execute("CREATE TABLE t (n BIGINT); CREATE ROLE ann LOGIN; CREATE ROLE watch LOGIN").await?;
    writer.batch_execute("GRANT pg_monitor TO watch").await?;
    let sink = writer.copy_in("COPY t FROM STDIN").await?;
    let mut sink = pin!(sink);
    // A whole batch of rows, which the server decodes before the COPY ends.
    let lines: String = (0..8192).map(|n| format!("{n}\n")).collect();
    sink.send(Bytes::from(lines)).await?;
    let text = |cells: &[&str]| vec![cells.iter().map(|cell| Some(cell.to_string())).collect::<Vec<_>>()];
    ensure!(counted(&watcher, "8192").await? == text(&["COPY FROM", "t", "reading", "rows", "8192"]));
    let copies = "SELECT c.relname, p.command, p.type, p.tuples_processed FROM pg_stat_progress_copy p JOIN pg_class c ON c.oid = p.relid";
    ensure!(rows(&watcher, copies).await? == text(&["t", "COPY FROM", "PIPE", "8192"]));
    for (role, sees) in [("ann", false), ("watch", true)] {
        let (client, connection) = server.config().user(role).connect(NoTls).await?;
        tokio::spawn(connection);
        let all = "SELECT pid IS NOT NULL, statement IS NOT NULL, object IS NOT NULL, done IS NOT NULL FROM tidemark.progress";
        let shown = if sees { "t" } else { "f" };
        ensure!(rows(&client, all).await? == text(&["t", shown, shown, shown]), "{role}");
        let copies = "SELECT command IS NOT NULL FROM pg_stat_progress_copy";
        ensure!(value(&client, copies).await?.context("a copy")? == shown, "{role}");
    }
    sink.finish().await?;
    ensure!(rows(&watcher, ASK).await?.is_empty(), "it is over");
    Ok(())
}
