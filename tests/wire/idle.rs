//! What a connection that only waits costs, counted in the server's memory. `TIDEMARK_TEST_IDLE` says how many there are.

use crate::process::{open_files, open_files_max, resident_kib};
use crate::server::{Folder, Server, skipped, value};
use anyhow::{Context, Result, ensure};
use bytes::BufMut;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: u64 = 1_000;
/// Below this the noise of an allocator is a good part of what is measured.
const CONNECTIONS_MIN: u64 = 400;
/// Files that the server and this test have open besides.
const OTHER_FILES: u64 = 300;
/// What docs/operations.md promises of each.
const KIB_EACH_MAX: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that was greeted and says nothing.
async fn idle(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut hello = Vec::new();
    hello.put_u32(4 + 4 + 33);
    hello.put_u32(3 << 16);
    hello.put_slice(b"user\0tidemark\0database\0tidemark\0\0");
    stream.write_all(&hello).await?;
    let mut greeting = Vec::new();
    // ReadyForQuery, outside of a transaction.
    while !greeting.ends_with(b"Z\0\0\0\x05I") {
        ensure!(stream.read_buf(&mut greeting).await? > 0, "closed: {:?}", String::from_utf8_lossy(&greeting));
    }
    Ok(stream)
}

#[tokio::test]
async fn a_connection_that_waits_costs_little_and_gives_back_its_file() -> Result<()> {
    let wanted = std::env::var("TIDEMARK_TEST_IDLE").ok().map_or(Ok(CONNECTIONS), |text| text.parse())?;
    let count = wanted.min(open_files_max()?.saturating_sub(OTHER_FILES));
    if count < CONNECTIONS_MIN {
        return skipped(&format!("so few files may be open that only {count} connections fit: raise ulimit -n"));
    }
    let folder = Folder::new()?;
    let server = Server::start_with(&folder, &["--max-connections", &(count + 10).to_string()]).await?;
    let watcher = server.connect().await?;
    // What the first connections make once, for all that come.
    let first = futures::future::try_join_all((0..50).map(|_| idle(server.port))).await?;
    drop(first);
    alone(&watcher).await?;
    let (files_before, kib_before) = (open_files(&server)?, resident_kib(&server)?);
    let mut waiting = Vec::new();
    for i in 0..count {
        waiting.push(idle(server.port).await.with_context(|| format!("connection {i}"))?);
    }
    let kib_each = resident_kib(&server)?.saturating_sub(kib_before).div_ceil(count);
    println!("{count} connections that wait: {kib_each} KiB each");
    ensure!(kib_each <= KIB_EACH_MAX, "{count} connections that wait cost {kib_each} KiB each");
    ensure!(open_files(&server)? >= files_before + count as usize, "they are not there");
    ensure!(value(&watcher, "SELECT 1").await?.as_deref() == Some("1"));
    drop(waiting);
    alone(&watcher).await?;
    // The log of a source and the like may have been opened meanwhile, no more.
    let files_after = open_files(&server)?;
    ensure!(files_after < files_before + 50, "{files_after} files are open, before there were {files_before}");
    Ok(())
}

/// Waits until nobody but this client is connected, and the sockets of the others are closed.
pub async fn alone(client: &tokio_postgres::Client) -> Result<()> {
    let others =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let begun = Instant::now();
    loop {
        let count = value(client, others).await?;
        if count.as_deref() == Some("0") {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{count:?} sessions stay");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
