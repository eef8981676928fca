//! A server with a Redis as its online store: what others read there is what lookups answer, also after Redis was away, came
//! back empty, and after kill -9 of the server; and nothing is left of what was dropped.

use crate::{
    PATIENCE, comes,
    redis_server::{Kind, RedisServer},
    refused, run,
    server::{Folder, Server, rows, skipped},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use tokio_postgres::Client;

const KEYS: i64 = 300;

const LEVEL: &str = "SELECT online_waiting, online_level, online_error FROM tidemark.pipelines WHERE name = 'spending'";

// Three tests, so that they wait beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_read_in_redis_is_what_lookups_answer() -> Result<()> {
    with_a_redis(Kind::One, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_read_in_hashes_is_what_lookups_answer() -> Result<()> {
    with_a_redis(Kind::One, "?layout=hash").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_read_in_a_cluster_is_what_lookups_answer() -> Result<()> {
    with_a_redis(Kind::Cluster, "").await
}

async fn with_a_redis(kind: Kind, parameters: &str) -> Result<()> {
    let Some(redis) = RedisServer::start(kind, &[])? else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let folder = Folder::new()?;
    let outcome = follow(&redis, &folder, kind, parameters).await;
    outcome.with_context(|| format!("{kind:?}{parameters}; the server's log ends:\n{}\n", folder.log_tail()))
}

async fn follow(redis: &RedisServer, folder: &Folder, kind: Kind, parameters: &str) -> Result<()> {
    let url = redis.url() + parameters;
    let arguments = ["--online", &url, "--online-tick", "10ms", "--checkpoint-interval", "200ms"];
    let mut server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    create(&client).await?;
    insert(&client, 0, "2026-11-01 12:00:00Z").await?;
    level(redis, &client, kind).await.context("first")?;
    // Somebody removes all rows by hand, and leaves the marks: no put would notice.
    comes(&client, LEVEL, "0 | 1 | NULL").await?;
    let before = buckets(redis)?;
    ensure!(!before.is_empty(), "there are rows in Redis");
    for bucket in &before {
        redis.cli(&["UNLINK", bucket])?;
    }
    ensure!(buckets(redis)?.is_empty(), "they are gone");
    run(&client, "REFRESH ONLINE STORE FOR spending").await?;
    ensure!(buckets(redis)? == before, "not all rows are there again");
    level(redis, &client, kind).await.context("after a refresh")?;
    // Time goes on: of the first hour's events none is left, and most keys are gone.
    insert_some(&client, 40, "2026-11-01 14:30:00Z").await?;
    run(&client, "ALTER SOURCE clicks ADVANCE WATERMARK TO timestamptz '2026-11-01 14:30:00Z'").await?;
    level(redis, &client, kind).await.context("after departures")?;

    // Redis goes; ingestion and lookups go on; it comes back with nothing.
    redis.kill()?;
    insert(&client, 1, "2026-11-01 14:31:00Z").await?;
    let counted = rows(&client, "SELECT count(*) FROM spending").await?;
    ensure!(counted == [[Some(KEYS.to_string())]], "{counted:?}");
    comes(
        &client,
        "SELECT position('online store: ' IN last_error) > 0 FROM tidemark.pipelines WHERE name = 'spending'",
        "t",
    )
    .await?;
    let waiting = format!("{KEYS} | 0 | t");
    let why = "SELECT online_waiting, online_level, online_error = substr(last_error, length('online store: ') + 1)
               FROM tidemark.pipelines WHERE name = 'spending'";
    comes(&client, why, &waiting).await?;
    refused(&client, "REFRESH ONLINE STORE FOR spending", "of feature view \"spending\" again").await?;
    redis.again(&[])?;
    level(redis, &client, kind).await.context("after Redis was away")?;
    comes(&client, "SELECT last_error FROM tidemark.pipelines WHERE name = 'spending'", "NULL").await?;
    comes(&client, LEVEL, "0 | 1 | NULL").await?;
    run(&client, "REFRESH ONLINE STORE FOR spending").await?;
    level(redis, &client, kind).await.context("after one more refresh")?;

    // The server goes; Redis has what it had, and then what is new.
    insert(&client, 2, "2026-11-01 14:32:00Z").await?;
    server.kill()?;
    let mut server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    level(redis, &client, kind).await.context("after kill -9")?;
    insert(&client, 3, "2026-11-01 14:33:00Z").await?;
    level(redis, &client, kind).await.context("and on")?;

    // Redis is back with what it had saved.
    if kind == Kind::One {
        redis.cli(&["save"])?;
        insert(&client, 4, "2026-11-01 14:34:00Z").await?;
        level(redis, &client, kind).await.context("before it is set back")?;
        redis.kill()?;
        redis.again(&[])?;
        level(redis, &client, kind).await.context("after it was set back")?;
        redis.forget()?;
    }

    // A drop while it is away is made up for.
    run(&client, "CREATE FEATURE VIEW other AS SELECT user_id, count(*) AS n FROM clicks GROUP BY user_id").await?;
    redis.kill()?;
    run(&client, "DROP FEATURE VIEW spending").await?;
    ensure!(server.terminate().await?.success(), "it ends in order without its Redis");
    let server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    redis.again(&[])?;
    let other = id(&client, "other").await?;
    let started = Instant::now();
    loop {
        let keys = redis.keys()?;
        let own = format!("tidemark:{{{other}.");
        ensure!(keys.iter().all(|key| key.starts_with(&own)), "keys are left: {keys:?}");
        if keys.iter().filter(|key| !key.ends_with('}')).count() > 0 {
            break;
        }
        ensure!(started.elapsed() < PATIENCE, "\"other\" is not in Redis");
        tokio::time::sleep(crate::POLL).await;
    }
    run(&client, "DROP FEATURE VIEW other").await?;
    ensure!(redis.keys()?.is_empty(), "{:?}", redis.keys()?);
    Ok(())
}

async fn create(client: &Client) -> Result<()> {
    run(
        client,
        "CREATE SOURCE clicks (user_id BIGINT, country TEXT, price DOUBLE PRECISION, at TIMESTAMPTZ,
           WATERMARK FOR at AS at - INTERVAL '10 seconds') WITH (clock = 'event')",
    )
    .await?;
    run(
        client,
        "CREATE FEATURE VIEW spending WITH (ttl = '2 hours') AS SELECT user_id, country, at, count(*) OVER w AS n, sum(price) OVER w AS spent,
           max(price) OVER w AS most, avg(price) OVER w AS mean FROM clicks
         WINDOW w AS (PARTITION BY user_id, country ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)",
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_every_new_master_has_what_lookups_answer() -> Result<()> {
    let Some(redis) = RedisServer::start(Kind::Sentinel, &[])? else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let folder = Folder::new()?;
    let outcome = fail_over(&redis, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn fail_over(redis: &RedisServer, folder: &Folder) -> Result<()> {
    let url = redis.url();
    let arguments = ["--online", &url, "--online-tick", "10ms", "--checkpoint-interval", "200ms"];
    let server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    create(&client).await?;
    insert(&client, 0, "2026-11-01 12:00:00Z").await?;
    level(redis, &client, Kind::Sentinel).await.context("first")?;

    // Somebody asks for it, and values go on being put.
    let before = redis.master()?;
    redis.fail_over()?;
    insert(&client, 1, "2026-11-01 12:01:00Z").await?;
    another_master(redis, before).await?;
    insert_some(&client, 40, "2026-11-01 12:02:00Z").await?;
    level(redis, &client, Kind::Sentinel).await.context("after a failover")?;

    // The master goes, as soon as there is a replica to follow it.
    let started = Instant::now();
    while !redis.cli(&["info", "replication"])?.contains("state=online") {
        ensure!(started.elapsed() < PATIENCE, "the master of before is no replica");
        tokio::time::sleep(crate::POLL).await;
    }
    let before = redis.master()?;
    redis.cli(&["shutdown", "nosave", "now", "force"])?;
    insert(&client, 2, "2026-11-01 12:03:00Z").await?;
    another_master(redis, before).await?;
    level(redis, &client, Kind::Sentinel).await.context("after the master has gone")?;
    comes(&client, "SELECT last_error FROM tidemark.pipelines WHERE name = 'spending'", "NULL").await
}

async fn another_master(redis: &RedisServer, before: u16) -> Result<()> {
    let started = Instant::now();
    while redis.master()? == before || !redis.cli(&["role"])?.starts_with("master") {
        ensure!(started.elapsed() < PATIENCE, "the Sentinels make no replica the master");
        tokio::time::sleep(crate::POLL).await;
    }
    Ok(())
}

/// What Redis has of the views, without their marks, in order.
fn buckets(redis: &RedisServer) -> Result<Vec<String>> {
    let mut keys = redis.keys()?;
    keys.retain(|key| !key.ends_with('}'));
    keys.sort();
    Ok(keys)
}

/// One event for every key.
async fn insert(client: &Client, round: i64, at: &str) -> Result<()> {
    let values: Vec<String> = (0..KEYS)
        .map(|n| format!("({}, '{}', {}, '{at}')", n - 5, ["CH", "FR"][n as usize % 2], (n * 7 + round) as f64 / 8.0))
        .collect();
    run(client, &format!("INSERT INTO clicks VALUES {}", values.join(", "))).await
}

async fn insert_some(client: &Client, keys: i64, at: &str) -> Result<()> {
    let values: Vec<String> =
        (0..keys).map(|n| format!("({}, '{}', 1.5, '{at}')", n - 5, ["CH", "FR"][n as usize % 2])).collect();
    run(client, &format!("INSERT INTO clicks VALUES {}", values.join(", "))).await
}

async fn id(client: &Client, view: &str) -> Result<String> {
    let found = rows(client, &format!("SELECT '{view}'::regclass::oid")).await?;
    found[0][0].clone().context("no id")
}

/// Waits until foreign readers find in Redis what lookups answer, for some keys that have rows and some that have none.
async fn level(redis: &RedisServer, client: &Client, kind: Kind) -> Result<()> {
    let view = id(client, "spending").await?;
    let started = Instant::now();
    for n in [0, 1, 6, 39, 40, 41, 255, KEYS - 1, KEYS] {
        let (user, country) = (n - 5, ["CH", "FR"][n as usize % 2]);
        loop {
            let lookup = format!(
                "SELECT n, spent, most, mean, (extract(epoch FROM at) * 1000000)::bigint FROM spending
                 WHERE user_id = {user} AND country = '{country}'"
            );
            let expected = rows(client, &lookup).await?;
            // One reader in a language, and in a cluster only by who follows redirections: redis-cli.
            let found = match kind {
                Kind::Cluster => None,
                _ => Some(foreign(redis, &view, user, country)?),
            };
            let same = match &found {
                Some(found) => shown(found.as_ref()) == shown_lookup(&expected),
                None => !redis.keys()?.is_empty(),
            };
            if same {
                break;
            }
            ensure!(started.elapsed() < PATIENCE, "key {user}, {country}: Redis has {found:?}, a lookup {expected:?}");
            tokio::time::sleep(crate::POLL).await;
        }
    }
    Ok(())
}

/// n, spent, most, mean, since when.
fn shown(row: Option<&Value>) -> Option<Vec<f64>> {
    let row = row?;
    let texts = &row["values"];
    let of_text = |name: &str| texts[name].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::MIN);
    let mut values: Vec<f64> = match texts.as_array() {
        Some(values) => values.iter().map(|value| value.as_f64().unwrap_or(f64::MIN)).collect(),
        None => ["n", "spent", "most", "mean"].map(of_text).to_vec(),
    };
    values.push(row["instant"].as_f64()?);
    Some(values)
}

fn shown_lookup(rows: &[Vec<Option<String>>]) -> Option<Vec<f64>> {
    let row = rows.first()?;
    Some(row.iter().map(|cell| cell.as_deref().and_then(|cell| cell.parse().ok()).unwrap_or(f64::MIN)).collect())
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql_examples/redis_readers").join(name)
}

/// What read.py finds; and read.go, where Go is, must find the same.
fn foreign(redis: &RedisServer, view: &str, user: i64, country: &str) -> Result<Option<Value>> {
    let address = format!("127.0.0.1:{}", redis.master()?);
    let key = [user.to_string(), format!("text:{country}")];
    let mut python = Command::new("python3");
    let found = read(python.arg(example("read.py")).arg(&address).arg(view).args(&key))?;
    if user == 1 && Command::new("go").arg("version").output().is_ok() {
        let mut go = Command::new("go");
        let by_go = read(go.arg("run").arg(example("read.go")).arg(&address).arg(view).args(&key))?;
        // Redis goes on between the two.
        let again = read(Command::new("python3").arg(example("read.py")).arg(&address).arg(view).args(&key))?;
        let same = |other: &Option<Value>| shown(by_go.as_ref()) == shown(other.as_ref());
        ensure!(same(&found) || same(&again), "read.go: {by_go:?}, read.py: {found:?}, {again:?}");
    }
    Ok(found)
}

fn read(command: &mut Command) -> Result<Option<Value>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(Some(serde_json::from_slice(&output.stdout)?));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        said.trim().is_empty() || said.contains("does not know this view") || said.trim() == "exit status 1",
        "{command:?}: {said}"
    );
    Ok(None)
}
