//! Feature views that choose their online store: two Redis, one the server's and one that a view names. One that is away holds
//! up nothing that is in the other; a view that moves is whole in the new one before it leaves the old one.

use crate::{
    PATIENCE, POLL, comes,
    redis_server::{Kind, PASSWORD_ENCODED, RedisServer},
    refused, run,
    server::{Folder, Server, rows, skipped},
};
use anyhow::{Context, Result, ensure};
use std::time::Instant;
use tokio_postgres::Client;

const KEYS: i64 = 200;

const SOURCE: &str =
    "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at) WITH (clock = 'event')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_holds_up_only_the_views_that_are_in_it() -> Result<()> {
    let (Some(own), Some(named)) = (RedisServer::start(Kind::One, &[])?, RedisServer::start(Kind::Tls, &[])?) else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let folder = Folder::new()?;
    let outcome = choose(&own, &named, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn choose(own: &RedisServer, named: &RedisServer, folder: &Folder) -> Result<()> {
    // Hashes that people read.
    let (url, other) = (own.url() + "?layout=hash", named.url() + "&layout=hash");
    let arguments = ["--online", &url, "--online-tick", "10ms", "--checkpoint-interval", "200ms"];
    let mut server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    run(&client, SOURCE).await?;
    create(&client, "a", "").await?;
    create(&client, "b", &format!("WITH (online = '{other}')")).await?;
    create(&client, "c", "WITH (online = none)").await?;
    insert(&client, 1).await?;
    let (a, b, c) = (id(&client, "a").await?, id(&client, "b").await?, id(&client, "c").await?);
    put(own, &a, 1).await?;
    put(named, &b, 1).await?;
    for (redis, view) in [(own, &b), (own, &c), (named, &a), (named, &c)] {
        nothing_of(redis, view).await?;
    }
    comes(&client, "SELECT online_level, online_error FROM tidemark.pipelines WHERE name = 'c'", "1 | NULL").await?;

    // Passwords are shown nowhere, and a wrong one is told at once.
    let shown = rows(&client, "SELECT definition FROM tidemark.feature_views WHERE name = 'b'").await?;
    let shown = shown[0][0].clone().context("no definition")?;
    ensure!(shown.contains("rediss://********@localhost") && !shown.contains("secret"), "{shown}");
    let wrong = other.replace(PASSWORD_ENCODED, "guessed");
    refused(&client, &format!("ALTER FEATURE VIEW a SET (online = '{wrong}')"), "does not let this server in").await?;

    // The named one goes: what is in the other goes on, checkpoints too.
    named.kill()?;
    insert(&client, 2).await?;
    put(own, &a, 2).await?;
    run(&client, "CHECKPOINT").await?;
    comes(&client, "SELECT online_error IS NULL FROM tidemark.pipelines WHERE name = 'a'", "t").await?;
    comes(&client, "SELECT online_error IS NULL FROM tidemark.pipelines WHERE name = 'b'", "f").await?;

    // A start without it, also after kill -9.
    server.kill()?;
    let server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    insert(&client, 3).await?;
    put(own, &a, 3).await?;
    named.again(&[])?;
    put(named, &b, 3).await?;
    comes(
        &client,
        "SELECT online_waiting, online_level, online_error FROM tidemark.pipelines WHERE name = 'b'",
        "0 | 1 | NULL",
    )
    .await?;

    // And the other way round.
    own.kill()?;
    insert(&client, 4).await?;
    put(named, &b, 4).await?;
    own.again(&[])?;
    put(own, &a, 4).await?;

    // Views move, and leave nothing behind: also where the old place is away just then.
    run(&client, "ALTER FEATURE VIEW b SET (online = 'default')").await?;
    put(own, &b, 4).await?;
    nothing_of(named, &b).await?;
    run(&client, &format!("ALTER FEATURE VIEW a SET (online = '{other}')")).await?;
    put(named, &a, 4).await?;
    nothing_of(own, &a).await?;
    named.cli(&["save"])?;
    named.kill()?;
    run(&client, "ALTER FEATURE VIEW a SET (online = 'embedded')").await?;
    comes(&client, "SELECT online_level, online_error FROM tidemark.pipelines WHERE name = 'a'", "1 | NULL").await?;
    named.again(&[])?;
    nothing_of(named, &a).await?;
    run(&client, &format!("ALTER FEATURE VIEW c SET (online = '{other}')")).await?;
    put(named, &c, 4).await?;
    run(&client, "DROP FEATURE VIEW a, b, c").await?;
    ensure!(own.keys()?.is_empty() && named.keys()?.is_empty(), "keys are left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_may_be_in_the_redis_of_a_sentinel_with_tls_to_both() -> Result<()> {
    let Some(redis) = RedisServer::start(Kind::TlsSentinel, &[])? else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let folder = Folder::new()?;
    let outcome = behind_a_sentinel(&redis, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn behind_a_sentinel(redis: &RedisServer, folder: &Folder) -> Result<()> {
    let server = Server::start_with(folder, &["--online-tick", "10ms"]).await?;
    let client = server.connect().await?;
    run(&client, SOURCE).await?;
    let address = redis.url() + "&layout=hash";
    let wrong = address.replace(PASSWORD_ENCODED, "guessed");
    let query = "SELECT user_id, count(*) AS n FROM clicks GROUP BY user_id";
    refused(&client, &format!("CREATE FEATURE VIEW a WITH (online = '{wrong}') AS {query}"), "cannot be used").await?;
    create(&client, "a", &format!("WITH (online = '{address}')")).await?;
    insert(&client, 1).await?;
    let a = id(&client, "a").await?;
    put(redis, &a, 1).await?;
    redis.kill()?;
    insert(&client, 2).await?;
    redis.again(&[])?;
    put(redis, &a, 2).await
}

async fn create(client: &Client, name: &str, with: &str) -> Result<()> {
    let query = "SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at) AS n FROM clicks";
    run(client, &format!("CREATE FEATURE VIEW {name} {with} AS {query}")).await
}

/// One event for every key.
async fn insert(client: &Client, minute: i64) -> Result<()> {
    let at = format!("2026-11-01 12:{minute:02}:00Z");
    run(client, &format!("INSERT INTO clicks SELECT g, '{at}'::timestamptz FROM generate_series(1, {KEYS}) AS g")).await
}

async fn id(client: &Client, view: &str) -> Result<String> {
    let found = rows(client, &format!("SELECT '{view}'::regclass::oid")).await?;
    found[0][0].clone().context("no id")
}

/// Waits until every key of the view has its row there, which counts so many events.
async fn put(redis: &RedisServer, view: &str, events: i64) -> Result<()> {
    let started = Instant::now();
    loop {
        let keys = entities(redis, view)?;
        let mut counts = vec![];
        for key in [1, 7, KEYS] {
            let name = format!("}}/{key}");
            if let Some(key) = keys.iter().find(|key| key.ends_with(&name)) {
                counts.push(redis.cli(&["hget", key, "n"])?);
            }
        }
        if keys.len() as i64 == KEYS && counts == vec![events.to_string(); 3] {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "of view {view} there are {} keys, and {counts:?}", keys.len());
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until there is nothing of the view.
async fn nothing_of(redis: &RedisServer, view: &str) -> Result<()> {
    let own = format!("tidemark:{{{view}.");
    let started = Instant::now();
    while redis.keys()?.iter().any(|key| key.starts_with(&own)) {
        ensure!(started.elapsed() < PATIENCE, "there are keys of view {view} yet");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// What people read of a view: a hash for each of its keys.
fn entities(redis: &RedisServer, view: &str) -> Result<Vec<String>> {
    let own = format!("tidemark:{{{view}.");
    let mut keys = redis.keys()?;
    keys.retain(|key| key.starts_with(&own) && key.contains("}/"));
    Ok(keys)
}
