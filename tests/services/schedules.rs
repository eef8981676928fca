//! Random schedules of faults: a real server between a real topic and a real Redis; the server is killed at any moment and at
//! every named point of the pipeline, stopped for a while, started twice; the broker is killed, Redis is killed and emptied;
//! the log is full; another program holds the catalog of the history.
//! After each schedule every message counts once, and the same values are read everywhere; all along a reader watches that
//! nothing goes back.
//!
//! `TIDEMARK_TEST_SCHEDULES_SEED` and `TIDEMARK_TEST_SCHEDULES` say which seeds are run: one seed is one schedule, and repeats
//! its messages and its faults. The moments themselves belong to the machine.

mod events;
mod reader;
mod reference;
mod verify;

use crate::{
    PATIENCE, POLL,
    broker::Broker,
    comes,
    redis_server::{Kind, RedisServer},
    run,
    server::{Folder, Server, skipped, value},
};
use anyhow::{Context, Result, bail, ensure};
use events::{PARTITIONS, Stream};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reader::Signs;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tidemark_connectors::redis::RedisOnline;
use tidemark_server::points::{AbortAt, Point};

/// Each point is the first fault of one of so many seeds in a row; some more for chance.
const SCHEDULES: u64 = 20;
/// After the point: as many as are over in seconds.
const FAULTS: usize = 2;
/// Events that are sent at once, and a broken message among them.
const PIECE: usize = 20;
/// So many events at least: a minute and a half of event time, three windows.
const EVENTS_MIN: usize = 900;
/// Often enough that a fault meets them.
const BACKGROUND: [&str; 6] = ["--commit-interval", "100ms", "--checkpoint-interval", "150ms", "--online-tick", "10ms"];
const SIGABRT: i32 = 6;

/// What happens to the server, or to what is around it.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Abort(AbortAt),
    /// SIGSTOP, and after a while SIGCONT.
    Stop,
    /// Another server is started on the same directory.
    Second,
    BrokerKilled,
    RedisKilled,
    RedisEmptied,
    /// The log has no room for what comes, until the server is started again with more.
    LogFull,
    /// Another program holds the catalog of the history for so long that commits fail.
    HistoryHeld,
}

/// Until its input ends.
const HOLD: &str = "import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
held.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
";

/// The program that holds it; dropping this ends it.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Fault {
    fn draw(dice: &mut StdRng) -> Fault {
        match dice.random_range(0..11) {
            0..3 => Fault::Kill,
            3..5 => {
                let point = Point::ALL[dice.random_range(0..Point::ALL.len())];
                Fault::Abort(at(point, dice))
            }
            5 => Fault::Stop,
            6 => Fault::Second,
            7 => Fault::BrokerKilled,
            8 => Fault::RedisKilled,
            9 => Fault::RedisEmptied,
            _ => Fault::LogFull,
        }
    }
}

/// At one of the first passings of a point.
fn at(point: Point, dice: &mut StdRng) -> AbortAt {
    let passing = match point {
        // One for each view while it recovers, one for the view that is then made.
        Point::HistoryTableCreated => dice.random_range(1..=reference::VIEWS.len() as u64 + 1),
        Point::CatalogCommitted => 1,
        _ => dice.random_range(1..=4),
    };
    AbortAt { point, passing }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_schedule_of_faults_every_message_counts_once_everywhere() -> Result<()> {
    let Some(broker) = crate::broker()? else { return Ok(()) };
    let Some(redis) = RedisServer::start(Kind::One, &[])? else {
        return skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    };
    let first = number("TIDEMARK_TEST_SCHEDULES_SEED")?.unwrap_or(0);
    let count = number("TIDEMARK_TEST_SCHEDULES")?.unwrap_or(SCHEDULES);
    println!("TIDEMARK_TEST_SCHEDULES_SEED={first} TIDEMARK_TEST_SCHEDULES={count}");
    let mut hit = BTreeSet::new();
    for seed in first..first + count {
        let folder = Folder::new()?;
        let outcome = schedule(seed, &broker, &redis, &folder, &mut hit).await;
        outcome.with_context(|| {
            let log = folder.log_tail();
            format!(
                "TIDEMARK_TEST_SCHEDULES_SEED={seed} TIDEMARK_TEST_SCHEDULES=1 repeats it; the server's log ends:\n{log}\n"
            )
        })?;
    }
    let missed: Vec<&str> = Point::ALL.iter().map(|point| point.name()).filter(|name| !hit.contains(name)).collect();
    ensure!(count < Point::ALL.len() as u64 || missed.is_empty(), "nothing ended at {missed:?}");
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse::<u64>().with_context(|| format!("{name}={text}"))).transpose()
}

async fn schedule(
    seed: u64,
    broker: &Broker,
    redis: &RedisServer,
    folder: &Folder,
    hit: &mut BTreeSet<&'static str>,
) -> Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    let point = Point::ALL[(seed % Point::ALL.len() as u64) as usize];
    let mut faults = vec![Fault::Abort(at(point, &mut dice))];
    faults.extend((0..FAULTS).map(|_| Fault::draw(&mut dice)));
    // A commit waits ten seconds before it fails: not in every schedule.
    if seed % 10 == 3 {
        faults[FAULTS] = Fault::HistoryHeld;
    }
    let begun = Instant::now();
    let topic = format!("schedule-{seed}");
    broker.create_topic(&topic, PARTITIONS as i32, &[]).await?;
    let prefix = format!("schedule{seed}");
    let mut arguments: Vec<String> = BACKGROUND.iter().map(|word| word.to_string()).collect();
    arguments.extend(["--online".to_string(), format!("{}?prefix={prefix}", redis.url())]);
    if dice.random_bool(0.3) {
        // Room for hardly any key.
        arguments.extend(["--state-memory".to_string(), "16KB".to_string()]);
    }
    let mut world = World {
        stream: Stream::new(dice.random()),
        dice,
        broker,
        redis,
        folder,
        topic,
        arguments,
        signs: Arc::default(),
        server: None,
    };
    world.start().await?;
    world.create().await?;
    let reader = tokio::spawn(reader::read(world.signs.clone(), reader::store(redis, &prefix)?));
    let outcome = world.go_through(&faults, hit).await;
    let store = reader::store(redis, &prefix)?;
    let outcome = match outcome {
        Ok(()) => world.verify(&store).await,
        Err(error) => Err(error),
    };
    // Also after a failure: what the reader has seen goes before what came of it.
    world.signs.stop.store(true, Ordering::Release);
    match outcome {
        Ok(()) => {
            let (by_sql, by_redis) = reader.await?.with_context(|| format!("{faults:?}"))?;
            ensure!(by_sql > 0 && by_redis > 0, "the reader saw {by_sql} values in SQL, {by_redis} in Redis");
            let (count, took) = (world.stream.admitted.len(), begun.elapsed().as_millis());
            println!("schedule {seed}: {faults:?}; {count} events, {by_sql} and {by_redis} readings, {took} ms");
        }
        Err(error) => {
            world.server = None;
            if let Ok(Err(seen)) = reader.await {
                return Err(seen.context(format!("{faults:?}")));
            }
            return Err(error.context(format!("{faults:?}")));
        }
    }
    world.server = None;
    broker.delete_topic(&world.topic).await?;
    redis.cli(&["FLUSHALL"])?;
    Ok(())
}

struct World<'a> {
    dice: StdRng,
    broker: &'a Broker,
    redis: &'a RedisServer,
    folder: &'a Folder,
    topic: String,
    /// Of the server's command line.
    arguments: Vec<String>,
    stream: Stream,
    signs: Arc<Signs>,
    server: Option<Server>,
}

impl World<'_> {
    fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("no server runs")
    }

    async fn start(&mut self) -> Result<()> {
        self.start_with(&[]).await
    }

    async fn start_with(&mut self, more: &[&str]) -> Result<()> {
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(more);
        let server = Server::start_with(self.folder, &arguments).await?;
        self.signs.port.store(server.port, Ordering::Release);
        self.server = Some(server);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.server()?.kill()?;
        self.server = None;
        Ok(())
    }

    async fn create(&mut self) -> Result<()> {
        let client = self.server()?.connect().await?;
        let (topic, address) = (&self.topic, self.broker.address());
        run(
            &client,
            &format!(
                "CREATE SOURCE events (k BIGINT NOT NULL, n BIGINT NOT NULL, cents BIGINT, at TIMESTAMPTZ NOT NULL,
                   WATERMARK FOR at AS at - INTERVAL '10 seconds')
                 WITH (connector = 'kafka', topic = '{topic}', clock = 'event', idle_timeout = '1 hour',
                   properties.bootstrap.server = '{address}', json.timestamp = 'ms')
                 FORMAT PLAIN ENCODE JSON"
            ),
        )
        .await?;
        for view in &reference::VIEWS {
            run(&client, view.sql).await?;
        }
        let id = value(&client, "SELECT 'ever'::regclass::oid").await?.context("no id")?;
        self.signs.view.store(id.parse()?, Ordering::Release);
        Ok(())
    }

    /// The next messages are in the topic when this returns.
    fn send(&mut self, pieces: usize) -> Result<()> {
        let messages: Vec<_> = (0..pieces).flat_map(|_| self.stream.piece(PIECE)).collect();
        tokio::task::block_in_place(|| self.broker.send(&self.topic, messages))
    }

    async fn pause(&mut self, most: Duration) {
        let us = self.dice.random_range(0..most.as_micros() as u64);
        tokio::time::sleep(Duration::from_micros(us)).await;
    }

    async fn go_through(&mut self, faults: &[Fault], hit: &mut BTreeSet<&'static str>) -> Result<()> {
        for fault in faults {
            let pieces = self.dice.random_range(1..=4);
            self.send(pieces)?;
            self.pause(Duration::from_millis(300)).await;
            self.meet(*fault, hit).await.with_context(|| format!("{fault:?}"))?;
        }
        while self.stream.admitted.len() < EVENTS_MIN {
            self.send(5)?;
        }
        Ok(())
    }

    async fn meet(&mut self, fault: Fault, hit: &mut BTreeSet<&'static str>) -> Result<()> {
        let (broker, redis) = (self.broker, self.redis);
        match fault {
            Fault::Kill => {
                self.kill()?;
                self.send(2)?;
                self.start().await
            }
            Fault::Abort(at) => {
                self.kill()?;
                self.abort(at).await?;
                hit.insert(at.point.name());
                self.start().await?;
                let client = self.server()?.connect().await?;
                run(&client, "DROP FEATURE VIEW IF EXISTS further").await
            }
            Fault::Stop => {
                self.signal("-STOP")?;
                self.send(2)?;
                self.pause(Duration::from_millis(1500)).await;
                self.signal("-CONT")
            }
            Fault::Second => {
                let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
                let mut second = Server::spawn(self.folder, &arguments)?;
                let status = second.ended().await?;
                ensure!(!status.success(), "a second server on the same directory ended with {status}");
                ensure!(self.server()?.is_running(), "the first server has ended");
                self.send(1)
            }
            Fault::BrokerKilled => {
                tokio::task::block_in_place(|| broker.kill())?;
                self.pause(Duration::from_millis(300)).await;
                tokio::task::block_in_place(|| broker.again())?;
                self.send(2)
            }
            Fault::RedisKilled => {
                redis.kill()?;
                self.send(2)?;
                self.pause(Duration::from_millis(700)).await;
                redis.again(&[])?;
                self.send(1)
            }
            Fault::RedisEmptied => {
                redis.cli(&["FLUSHALL"])?;
                self.send(1)
            }
            Fault::LogFull => {
                self.kill()?;
                self.start_with(&["--log-max-bytes", "1KB"]).await?;
                self.send(2)?;
                let client = self.server()?.connect().await?;
                let refused = "SELECT last_error IS NOT NULL FROM tidemark.pipelines WHERE name = 'events'";
                comes(&client, refused, "t").await?;
                self.kill()?;
                self.start().await
            }
            Fault::HistoryHeld => self.hold_history().await,
        }
    }

    async fn hold_history(&mut self) -> Result<()> {
        let catalog = self.folder.data().join("warehouse/catalog.db");
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(catalog).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Holder(command.spawn().context("python3")?);
        let mut said = String::new();
        BufReader::new(holder.0.stdout.take().context("no output")?).read_line(&mut said)?;
        ensure!(said.trim() == "held", "the catalog of the history cannot be held: {said}");
        self.send(3)?;
        let client = self.server()?.connect().await?;
        let fails = "SELECT position('history: ' IN last_error) > 0 FROM tidemark.pipelines WHERE name = 'ever'";
        comes(&client, fails, "t").await?;
        drop(holder);
        self.send(1)?;
        comes(&client, "SELECT last_error FROM tidemark.pipelines WHERE name = 'ever'", "NULL").await
    }

    fn signal(&mut self, signal: &str) -> Result<()> {
        let id = self.server()?.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status()?;
        ensure!(sent.success(), "kill {signal} {id} ended with {sent}");
        Ok(())
    }

    /// A server that ends itself at a point: it is given messages and work until it does.
    async fn abort(&mut self, at: AbortAt) -> Result<()> {
        const FURTHER: &str =
            "CREATE FEATURE VIEW IF NOT EXISTS further AS SELECT k, count(*) AS howmany FROM events GROUP BY k";
        let text = format!("{}:{}", at.point.name(), at.passing);
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(["--abort-at", &text]);
        // Another process may take the port first.
        for _ in 0..3 {
            let mut server = Server::spawn(self.folder, &arguments)?;
            self.signs.port.store(server.port, Ordering::Release);
            // It may end before it answers.
            let is_ready = server.ready().await.is_ok();
            let started = Instant::now();
            while is_ready && server.is_running() {
                ensure!(started.elapsed() < PATIENCE, "it does not come to {text}");
                if matches!(at.point, Point::HistoryTableCreated | Point::CatalogCommitted)
                    && let Ok(client) = server.connect().await
                {
                    // No answer is the answer.
                    let _ = client.batch_execute(FURTHER).await;
                }
                let messages = self.stream.piece(PIECE);
                tokio::task::block_in_place(|| self.broker.send(&self.topic, messages))?;
                tokio::time::sleep(POLL).await;
            }
            let status = server.ended().await?;
            if status.signal() == Some(SIGABRT) {
                return Ok(());
            }
            ensure!(!is_ready, "it ended with {status} and not at {text}");
        }
        bail!("it did not start to come to {text}")
    }

    async fn verify(&mut self, redis: &RedisOnline) -> Result<()> {
        let client = self.server()?.connect().await?;
        verify::all(&client, redis, &self.stream).await?;
        // An end in order, and a start that has nothing to catch up with.
        let status = self.server()?.terminate().await?;
        ensure!(status.success(), "SIGTERM: {status}");
        self.server = None;
        self.start().await?;
        let client = self.server()?.connect().await?;
        let counted = value(&client, "SELECT count(*) FROM events").await?;
        let expected = self.stream.admitted.len().to_string();
        ensure!(counted.as_ref() == Some(&expected), "after a restart there are {counted:?} events, not {expected}");
        Ok(())
    }
}
