//! `kill -9`, many times, and SIGTERM.

use crate::{
    beside,
    reference::{SOURCE_SQL, VIEWS},
    server::{Folder, Server},
    verify,
    writers::{self, Ledger},
};
use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Often enough that a kill meets them.
const BACKGROUND: [&str; 10] = [
    "--commit-interval",
    "150ms",
    "--checkpoint-interval",
    "200ms",
    "--maintenance-interval",
    "100ms",
    "--maintenance-files",
    "2",
    "--snapshot-retention",
    "1s",
];
const ROUNDS: usize = 10;
const ROUNDS_MIN: usize = 8;
/// Every other server has room for hardly any key: the rest is on disk, as of a checkpoint or since.
const NO_ROOM: [&str; 2] = ["--state-memory", "16KB"];
/// After this long no new round begins, once there were enough; unless their number was asked for.
const LONG_ENOUGH: Duration = Duration::from_secs(75);

fn arguments(round: usize) -> Vec<&'static str> {
    let room: &[&str] = if round % 2 == 1 { &NO_ROOM } else { &[] };
    BACKGROUND.iter().chain(room).copied().collect()
}

async fn create_all(server: &Server) -> Result<()> {
    let client = server.connect().await?;
    client.batch_execute(SOURCE_SQL).await.context(SOURCE_SQL)?;
    client.batch_execute(beside::SQL).await.context(beside::SQL)?;
    for view in &VIEWS {
        let sql = view.create_sql(view.name);
        client.batch_execute(&sql).await.context(sql)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_at_any_moment_nothing_is_lost_and_nothing_doubled() -> Result<()> {
    let seed = match std::env::var("TIDEMARK_TEST_CRASH_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random_range(0..1_000_000_000),
    };
    let asked: Option<usize> =
        std::env::var("TIDEMARK_TEST_CRASH_ROUNDS").ok().map(|rounds| rounds.parse()).transpose()?;
    let rounds = asked.unwrap_or(ROUNDS);
    println!("TIDEMARK_TEST_CRASH_SEED={seed} TIDEMARK_TEST_CRASH_ROUNDS={rounds}");
    let folder = Folder::new()?;
    let outcome = kill_rounds(&folder, seed, rounds, asked.is_none()).await;
    outcome.with_context(|| format!("seed {seed}\nthe server's log ends:\n{}\n", folder.log_tail()))
}

async fn kill_rounds(folder: &Folder, seed: u64, rounds: usize, may_end_early: bool) -> Result<()> {
    let mut chance = StdRng::seed_from_u64(seed);
    let started = Instant::now();
    let ledger = Arc::new(Ledger::default());
    let mut server = Server::start_with(folder, &arguments(1)).await?;
    create_all(&server).await?;
    for round in 1..=rounds {
        let tasks = writers::start(&server, &ledger).await?;
        ledger.after(chance.random_range(20..120)).await.with_context(|| format!("round {round}"))?;
        tokio::time::sleep(Duration::from_micros(chance.random_range(0..20_000))).await;
        server.kill()?;
        for task in tasks {
            task.await?.with_context(|| format!("round {round}"))?;
        }
        if round % 3 == 0 {
            // Killed again while it recovers.
            let mut recovering = Server::spawn(folder, &arguments(round + 1))?;
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..400))).await;
            recovering.kill()?;
        }
        let recovery = Instant::now();
        server =
            Server::start_with(folder, &arguments(round)).await.with_context(|| format!("restart of round {round}"))?;
        let recovery = recovery.elapsed();
        let found =
            verify::all(&server.connect().await?, &ledger.known()).await.with_context(|| format!("round {round}"))?;
        ledger.settle(&found.batches);
        println!(
            "round {round}: {} rows, {} dead letters, {} steps; answered {} ms after the restart",
            found.rows,
            found.letters,
            found.steps,
            recovery.as_millis()
        );
        if may_end_early && started.elapsed() > LONG_ENOUGH && round >= ROUNDS_MIN {
            break;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_a_busy_server_with_0_and_loses_nothing() -> Result<()> {
    let folder = Folder::new()?;
    let ledger = Arc::new(Ledger::default());
    let mut server = Server::start(&folder).await?;
    create_all(&server).await?;
    let tasks = writers::start(&server, &ledger).await?;
    let _idle = server.connect().await?;
    ledger.after(30).await?;
    let status = server.terminate().await.with_context(|| folder.log_tail())?;
    ensure!(status.code() == Some(0), "tidemark serve ended with {status}\n{}", folder.log_tail());
    for task in tasks {
        task.await??;
    }
    let server = Server::start(&folder).await?;
    let outcome = verify::all(&server.connect().await?, &ledger.known()).await;
    outcome.with_context(|| folder.log_tail())?;
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_an_idle_server_with_0() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let status = server.terminate().await?;
    ensure!(status.code() == Some(0), "tidemark serve ended with {status}\n{}", folder.log_tail());
    Ok(())
}

/// Nothing is checkpointed, so that a start has all of the log before it.
const NO_CHECKPOINTS: [&str; 4] = ["--commit-interval", "1h", "--checkpoint-interval", "1h"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_it_recovers_ends_it_with_0_and_loses_nothing() -> Result<()> {
    const ROWS: usize = 300_000;
    let folder = Folder::new()?;
    let mut server = Server::start_with(&folder, &NO_CHECKPOINTS).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW per_key AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s",
        )
        .await?;
    let mut copy = std::pin::pin!(client.copy_in("COPY s FROM STDIN").await?);
    let lines: String = (0..ROWS).map(|n| format!("{}\t2026-03-02 10:00:00+00\n", n % 1000)).collect();
    futures::SinkExt::send(&mut copy, bytes::Bytes::from(lines)).await?;
    ensure!(copy.finish().await? == ROWS as u64);
    server.kill()?;

    let mut recovering = Server::spawn(&folder, &NO_CHECKPOINTS)?;
    // It listens for signals before it takes the lock, and writes its id when it has it.
    let (lock, started) = (folder.data().join("LOCK"), Instant::now());
    while std::fs::read_to_string(&lock)?.trim() != recovering.id().to_string() {
        ensure!(started.elapsed() < Duration::from_secs(60) && recovering.is_running(), "{}", folder.log_tail());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let status = recovering.terminate().await.with_context(|| folder.log_tail())?;
    ensure!(status.code() == Some(0), "tidemark serve ended with {status}\n{}", folder.log_tail());
    ensure!(folder.log_tail().contains("stopped during recovery"), "it was ready already\n{}", folder.log_tail());

    let server = Server::start_with(&folder, &NO_CHECKPOINTS).await?;
    let client = server.connect().await?;
    let counts = [("SELECT count(*) FROM s", ROWS), ("SELECT n FROM per_key WHERE k = 999", ROWS / 1000)];
    for (sql, expected) in counts {
        ensure!(crate::server::value(&client, sql).await? == Some(expected.to_string()), "{sql}");
    }
    Ok(())
}
