//! Two servers on copies of one data directory, with one Redis: the one that began later puts, the other is told so.

use crate::{
    POLL, comes,
    redis_server::{Kind, RedisServer},
    run,
    server::{Folder, Server, skipped},
};
use anyhow::{Context, Result, ensure};
use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_postgres::Client;

const LEVEL: &str = "SELECT online_waiting, online_error FROM tidemark.pipelines WHERE name = 'counted'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_on_copies_of_a_directory_the_later_one_puts() -> Result<()> {
    let Some(redis) = RedisServer::start(Kind::One, &[])? else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let (original, copy) = (Folder::new()?, Folder::new()?);
    let url = redis.url();
    let arguments = ["--online", &url, "--online-tick", "10ms"];
    let mut server = Server::start_with(&original, &arguments).await?;
    let client = server.connect().await?;
    let source = "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at) WITH (clock = 'event')";
    run(&client, source).await?;
    run(&client, "CREATE FEATURE VIEW counted AS SELECT user_id, count(*) AS n FROM clicks GROUP BY user_id").await?;
    insert(&client, 0).await?;
    comes(&client, LEVEL, "0 | NULL").await?;
    ensure!(server.terminate().await?.success(), "the server ends in order");
    std::fs::create_dir_all(copy.data())?;
    let copied = Command::new("cp").arg("-a").arg(original.data().join(".")).arg(copy.data()).status()?;
    ensure!(copied.success(), "the directory cannot be copied");

    let first = Server::start_with(&original, &arguments).await?;
    // Who began later is told by the second.
    let begun = second()?;
    while second()? == begun {
        tokio::time::sleep(POLL).await;
    }
    let later = Server::start_with(&copy, &arguments).await?;
    let (first, later) = (first.connect().await?, later.connect().await?);
    // Nothing happens at the later one: that it is there is enough. Without a put the first one would learn it within ten seconds.
    insert(&first, 1).await?;
    let told =
        "SELECT position('which began later' IN online_error) > 0 FROM tidemark.pipelines WHERE name = 'counted'";
    comes(&first, told, "t").await.context("the first one")?;
    insert(&first, 2).await?;
    let waits = "SELECT online_waiting, position('which began later' IN online_error) > 0
                 FROM tidemark.pipelines WHERE name = 'counted'";
    comes(&first, waits, "1 | t").await.context("the first one, with something to put")?;
    comes(&later, LEVEL, "0 | NULL").await.context("the later one")?;
    insert(&later, 3).await?;
    comes(&later, LEVEL, "0 | NULL").await.context("the later one, after the first was refused")
}

async fn insert(client: &Client, second: u32) -> Result<()> {
    run(client, &format!("INSERT INTO clicks VALUES (1, '2026-11-01 12:00:0{second}Z')")).await
}

fn second() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
