//! A cluster whose master goes: its replica takes over, and has all rows again by itself.

use crate::{
    PATIENCE, POLL, comes,
    redis_server::{Kind, RedisServer},
    run,
    server::{Folder, Server, skipped},
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, time::Instant};
use tokio_postgres::Client;

/// In all 64 groups, so on all masters.
const KEYS: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_master_of_a_cluster_goes_all_rows_are_level_again_and_no_version_goes_back() -> Result<()> {
    let Some(redis) = RedisServer::start(Kind::Replicated, &[])? else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let folder = Folder::new()?;
    let outcome = fail_over(&redis, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn fail_over(redis: &RedisServer, folder: &Folder) -> Result<()> {
    let first = redis.master()?;
    let url = redis.url() + "?layout=hash";
    let arguments = ["--online", &url, "--online-tick", "10ms", "--checkpoint-interval", "200ms"];
    let server = Server::start_with(folder, &arguments).await?;
    let client = server.connect().await?;
    run(
        &client,
        "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at) WITH (clock = 'event');
         CREATE FEATURE VIEW clicked AS
           SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at) AS n FROM clicks",
    )
    .await?;
    insert(&client, 1).await?;
    let mut seen = Seen::begin(redis, first + 1).await?;
    seen.level(redis, 1).await.context("first")?;

    // What the replica has not got yet nobody could read from it.
    let started = Instant::now();
    while !is_level(&redis.cli(&["info", "replication"])?) {
        ensure!(started.elapsed() < PATIENCE, "the replica does not follow");
        tokio::time::sleep(POLL).await;
    }
    redis.cli(&["shutdown", "nosave", "now", "force"])?;
    insert(&client, 2).await?;
    seen.level(redis, 2).await.context("after the master has gone")?;
    let replica = (first + 3).to_string();
    ensure!(redis.cli(&["-p", &replica, "role"])?.starts_with("master"), "the replica has not taken over");
    insert(&client, 3).await?;
    seen.level(redis, 3).await.context("and on")?;
    let state = "SELECT online_waiting, online_level, online_error FROM tidemark.pipelines WHERE name = 'clicked'";
    comes(&client, state, "0 | 1 | NULL").await
}

/// One event for every key.
async fn insert(client: &Client, minute: i64) -> Result<()> {
    let at = format!("2026-11-01 12:{minute:02}:00Z");
    run(client, &format!("INSERT INTO clicks SELECT g, '{at}'::timestamptz FROM generate_series(1, {KEYS}) AS g")).await
}

/// Whether the one replica of this master has all that it has.
fn is_level(replication: &str) -> bool {
    let after = |name: &str| {
        let rest = replication.split_once(name)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    matches!((after(",offset="), after("master_repl_offset:")), (Some(replica), Some(own)) if replica == own)
}

/// The rows that people read, and the greatest version seen of each.
struct Seen {
    versions: BTreeMap<String, (u64, u64)>,
    /// Of a node that stays.
    port: String,
}

impl Seen {
    /// Waits until all keys are there.
    async fn begin(redis: &RedisServer, port: u16) -> Result<Seen> {
        let started = Instant::now();
        loop {
            let mut names = redis.keys()?;
            names.retain(|name| name.contains("}/"));
            if names.len() == KEYS {
                let versions = names.into_iter().map(|name| (name, (0, 0))).collect();
                return Ok(Seen { versions, port: port.to_string() });
            }
            ensure!(started.elapsed() < PATIENCE, "{} keys are there", names.len());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until each key's row counts so many events. Nothing that is read meanwhile is older than what was read before.
    async fn level(&mut self, redis: &RedisServer, events: u64) -> Result<()> {
        let started = Instant::now();
        for (name, newest) in &mut self.versions {
            loop {
                // Who has a slot may be away: then it is an error, and no row.
                let said = redis.cli(&["-p", &self.port, "hmget", name, "n", "@version"]).unwrap_or_default();
                let row = row(&said);
                if let Some((_, version)) = row {
                    ensure!(version >= *newest, "{name}: version {version:?} after {newest:?}");
                    *newest = version;
                }
                if row.is_some_and(|(n, _)| n == events) {
                    break;
                }
                ensure!(started.elapsed() < PATIENCE, "{name} is {said:?} and not {events}");
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// How many events it counts, and its version.
fn row(said: &str) -> Option<(u64, (u64, u64))> {
    let (n, version) = said.trim().split_once('\n')?;
    let (epoch, counter) = version.trim().split_once('.')?;
    Some((n.trim().parse().ok()?, (epoch.parse().ok()?, counter.parse().ok()?)))
}
