//! 500 connections at once, each with its lookups and its own session.

use crate::server::{Folder, Server};
use anyhow::{Context, Result, ensure};

const CONNECTIONS: i64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_connections_each_look_up_their_own_key() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let values: Vec<String> = (0..CONNECTIONS).map(|k| format!("({k}, {k}, '2026-03-02 10:00:00+00')")).collect();
    client
        .batch_execute(&format!(
            "CREATE SOURCE c (k BIGINT, x BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW v AS SELECT k, at, sum(x) OVER (PARTITION BY k ORDER BY at) AS total FROM c;
             INSERT INTO c VALUES {}",
            values.join(", ")
        ))
        .await?;
    let mut clients = vec![];
    for k in 0..CONNECTIONS {
        clients.push(server.connect().await.with_context(|| format!("connection {k}"))?);
    }
    let lookups = clients.iter().zip(0i64..).map(|(client, k)| async move {
        client.batch_execute(&format!("SET application_name = 'client {k}'")).await?;
        let get = client.prepare("SELECT total, current_setting('application_name') FROM v WHERE k = $1").await;
        let plain = client.prepare("SELECT total FROM v WHERE k = $1").await?;
        for _ in 0..5 {
            let total: i64 = client.query_one(&plain, &[&k]).await?.try_get(0)?;
            ensure!(total == k, "key {k} says {total}");
        }
        if let Ok(get) = get {
            let name: String = client.query_one(&get, &[&k]).await?.try_get(1)?;
            ensure!(name == format!("client {k}"), "client {k} is called {name}");
        }
        let shown = crate::server::value(client, "SHOW application_name").await?;
        ensure!(shown == Some(format!("client {k}")), "client {k} is called {shown:?}");
        Ok(())
    });
    futures::future::try_join_all(lookups).await?;
    ensure!(clients.iter().all(|client| !client.is_closed()));
    Ok(())
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_there_is_room_again_when_one_leaves() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start_with(&folder, &["--max-connections", "3"]).await?;
    let mut clients = vec![];
    // Those that waited for the server may still be leaving.
    let refused = loop {
        match server.connect().await {
            Ok(client) => clients.push(client),
            Err(error) if clients.len() == 3 => break error,
            Err(_) => tokio::task::yield_now().await,
        }
        ensure!(clients.len() <= 3, "four are connected");
    };
    ensure!(refused.code().is_some_and(|code| code.code() == "53300"), "{}", crate::server::shown(&refused));
    clients.pop();
    while server.connect().await.is_err() {
        tokio::task::yield_now().await;
    }
    Ok(())
}
