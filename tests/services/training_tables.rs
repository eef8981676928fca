//! Training sets in the warehouse: what is there for other engines after a REFRESH, a RENAME and a DROP, and after servers that ended
//! between the catalog's commit and the table's.

use crate::{
    PATIENCE, POLL, run,
    server::{Folder, Server, value},
};
use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};
use tokio_postgres::Client;

/// The folders of the tables that were made under this name.
fn tables(folder: &Folder, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.data().join("warehouse/public")) else { return vec![] };
    let found = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_of = |path: &PathBuf| {
        let name_of = path.file_name().and_then(|file| file.to_str());
        name_of.and_then(|file| file.strip_prefix(name)).is_some_and(|rest| rest.starts_with('-'))
    };
    found.filter(is_of).collect()
}

/// Count and sum of what our reader of others' Iceberg tables finds.
async fn read(client: &Client, table: &Path) -> Result<String> {
    run(client, "DROP TABLE IF EXISTS seen").await?;
    let path = table.display();
    run(client, &format!("CREATE TABLE seen WITH (connector = 'iceberg', path = '{path}')")).await?;
    let found = value(client, "SELECT count(*)::text || ' ' || sum(n)::text FROM seen").await?;
    found.context("no row")
}

/// Waits for what must come.
async fn becomes(client: &Client, folder: &Folder, name: &str, expected: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let tables = tables(folder, name);
        let found = match tables.as_slice() {
            [table] => read(client, table).await,
            _ => Ok(String::new()),
        };
        if found.as_ref().is_ok_and(|found| found == expected) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{tables:?} has {found:?} and not {expected:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// A server that ends when the catalog has the statement's change.
async fn cut_short(folder: &Folder, sql: &str) -> Result<()> {
    let mut server = Server::start_with(folder, &["--abort-at", "catalog-committed"]).await?;
    let client = server.connect().await?;
    ensure!(client.batch_execute(sql).await.is_err(), "it has survived: {sql}");
    ensure!(!server.ended().await?.success(), "it has ended in order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_a_training_set_is_what_the_catalog_says_whenever_the_server_ended() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    run(&client, "CREATE TABLE t (n BIGINT)").await?;
    run(&client, "INSERT INTO t VALUES (1), (2), (3)").await?;
    run(&client, "CREATE TRAINING SET kept AS SELECT n FROM t").await?;
    run(&client, "CREATE TRAINING SET own WITH (iceberg = false) AS SELECT n FROM t").await?;
    let found = tables(&folder, "kept");
    let [table] = found.as_slice() else { anyhow::bail!("{found:?}") };
    // At once: it is there when the statement has ended.
    ensure!(read(&client, table).await? == "3 6");
    ensure!(tables(&folder, "own").is_empty());
    run(&client, "INSERT INTO t VALUES (4)").await?;
    run(&client, "REFRESH TRAINING SET kept").await?;
    ensure!(read(&client, table).await? == "4 10");
    run(&client, "REFRESH TRAINING SET kept AS RECORDED").await?;
    ensure!(read(&client, table).await? == "4 10");
    // A table keeps its folder. The name is of one that is gone then.
    run(&client, "ALTER TRAINING SET kept RENAME TO train").await?;
    run(&client, "CREATE TRAINING SET kept AS SELECT n + 1 AS n FROM t").await?;
    ensure!(tables(&folder, "kept").len() == 2 && read(&client, table).await? == "4 10");
    run(&client, "DROP TRAINING SET train").await?;
    let left = tables(&folder, "kept");
    ensure!(left.len() == 1 && left[0] != *table, "{left:?}");
    becomes(&client, &folder, "kept", "4 14").await?;
    // Each set has its own again when a transaction is taken back.
    run(&client, "BEGIN").await?;
    run(&client, "DROP TRAINING SET kept").await?;
    run(&client, "CREATE TRAINING SET kept AS SELECT n + 2 AS n FROM t").await?;
    ensure!(tables(&folder, "kept").len() == 2);
    run(&client, "ROLLBACK").await?;
    ensure!(tables(&folder, "kept") == left && read(&client, &left[0]).await? == "4 14");
    run(&client, "INSERT INTO t VALUES (5)").await?;
    ensure!(server.terminate().await?.success(), "the server ends in order");

    cut_short(&folder, "REFRESH TRAINING SET kept").await?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    becomes(&client, &folder, "kept", "5 20").await?;
    ensure!(value(&client, "SELECT count(*) FROM kept").await?.as_deref() == Some("5"));
    ensure!(server.terminate().await?.success(), "the server ends in order");

    cut_short(&folder, "CREATE TRAINING SET fresh AS SELECT n FROM t").await?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    becomes(&client, &folder, "fresh", "5 15").await?;
    ensure!(server.terminate().await?.success(), "the server ends in order");

    cut_short(&folder, "DROP TRAINING SET kept, fresh").await?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    // Clients are let in before the start is over; a change waits for that.
    run(&client, "CREATE TABLE later (n BIGINT)").await?;
    ensure!(tables(&folder, "kept").is_empty() && tables(&folder, "fresh").is_empty());
    ensure!(value(&client, "SELECT count(*) FROM own").await?.as_deref() == Some("3"));
    Ok(())
}
