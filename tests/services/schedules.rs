//! Random schedules of faults: a real server between a real topic and a real Redis; the server is killed at any moment and at
//! every named point of the pipeline, stopped for a while, started twice; the broker is killed, Redis is killed and emptied;
//! the log or the disk is full; another program holds the catalog of the history; the clock is moved by hours and back; a
//! server on a copy of the directory reads the same topic and puts into the same Redis.
//! After each schedule every message counts once, and the same values are read everywhere; all along a reader watches that
//! nothing goes back.
//!
//! `TIDEMARK_TEST_SCHEDULES_SEED` and `TIDEMARK_TEST_SCHEDULES` say which seeds are run: one seed is one schedule, and repeats
//! its messages and its faults. The moments themselves belong to the machine.

mod around;
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
use around::{Ballast, Clock, Holder};
use events::{PARTITIONS, Stream};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reader::Signs;
use std::{
    collections::BTreeSet,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tidemark_connectors::redis::RedisOnline;
use tidemark_server::points::{AbortAt, Point};

/// Each point is the first fault of one of so many seeds in a row; some more for chance.
const SCHEDULES: u64 = 20;
/// Schedules that go on beside each other, each with a broker and a Redis of its own: most of a schedule is waiting. An even
/// number, so that the seeds that fill the small disk are in one lane.
const LANES: u64 = 2;
/// After the point: as many as are over in seconds.
const FAULTS: usize = 2;
/// Events that are sent at once, and a broken message among them.
const PIECE: usize = 20;
/// For so long the catalog of the history is held in a long run; otherwise until a commit has failed.
const HELD_LONG: Duration = Duration::from_secs(60);
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
    /// The clock is set forward and then back while the server runs; and it is started once more if `restart`.
    ClockMoved {
        hours_forward: i64,
        minutes_back: i64,
        restart: bool,
    },
    /// Nothing more goes onto the disk for a while.
    DiskFull,
    /// A server on a copy of the directory, which began later, puts into the same Redis until it is killed.
    Copy,
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

/// A point first, and then two more, of which the last is for some seeds what takes too long for all.
fn draw(seed: u64, dice: &mut StdRng) -> Vec<Fault> {
    let point = Point::ALL[(seed % Point::ALL.len() as u64) as usize];
    let mut faults = vec![Fault::Abort(at(point, dice))];
    faults.extend((0..FAULTS).map(|_| Fault::draw(dice)));
    match seed % 10 {
        // What comes after it meets a clock that was moved.
        2 | 7 => {
            faults[1] = Fault::ClockMoved {
                hours_forward: dice.random_range(1..=5),
                minutes_back: dice.random_range(5..=50),
                restart: dice.random_bool(0.5),
            };
        }
        // A commit waits ten seconds before it fails.
        3 => faults[FAULTS] = Fault::HistoryHeld,
        6 => faults[FAULTS] = Fault::DiskFull,
        9 => faults[FAULTS] = Fault::Copy,
        _ => {}
    }
    faults
}

/// A folder on which all of that can happen, and the clock of its servers where that is moved.
fn place(faults: &mut [Fault]) -> Result<(Folder, Option<Clock>)> {
    let needs_disk = faults.iter().any(|fault| matches!(fault, Fault::DiskFull));
    let mut folder = match small_disk() {
        Some(disk) if needs_disk => Folder::with_data_on(&disk)?,
        None if needs_disk => {
            skipped("TIDEMARK_SMALL_DISK is not set: a folder on a small disk")?;
            faults[FAULTS] = Fault::LogFull;
            Folder::new()?
        }
        _ => Folder::new()?,
    };
    let moves_clock = faults.iter().any(|fault| matches!(fault, Fault::ClockMoved { .. }));
    let clock = moves_clock.then(|| Clock::of(&mut folder)).transpose()?;
    Ok((folder, clock))
}

/// `scripts/test.sh` makes it.
fn small_disk() -> Option<PathBuf> {
    std::env::var_os("TIDEMARK_SMALL_DISK").filter(|disk| !disk.is_empty()).map(PathBuf::from)
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

#[test]
fn after_any_schedule_of_faults_every_message_counts_once_everywhere() -> Result<()> {
    let first = number("TIDEMARK_TEST_SCHEDULES_SEED")?.unwrap_or(0);
    let count = number("TIDEMARK_TEST_SCHEDULES")?.unwrap_or(SCHEDULES);
    println!("TIDEMARK_TEST_SCHEDULES_SEED={first} TIDEMARK_TEST_SCHEDULES={count}");
    let outcomes: Vec<Result<Option<BTreeSet<_>>>> = std::thread::scope(|scope| {
        let seeds = |lane: u64| (first..first + count).skip(lane as usize).step_by(LANES as usize);
        let begin = |at: u64| {
            let seeds = seeds(at);
            scope.spawn(move || lane(seeds))
        };
        let lanes: Vec<_> = (0..LANES.min(count)).map(begin).collect();
        let ended = lanes.into_iter().map(|lane| lane.join());
        ended.map(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut hit = BTreeSet::new();
    for outcome in outcomes {
        // It has said why it is skipped.
        let Some(of_lane) = outcome? else { return Ok(()) };
        hit.extend(of_lane);
    }
    let missed: Vec<&str> = Point::ALL.iter().map(|point| point.name()).filter(|name| !hit.contains(name)).collect();
    ensure!(count < Point::ALL.len() as u64 || missed.is_empty(), "nothing ended at {missed:?}");
    Ok(())
}

/// One schedule after the other; the points at which servers have ended. `None`: something is not on this machine.
fn lane(seeds: impl Iterator<Item = u64>) -> Result<Option<BTreeSet<&'static str>>> {
    let Some(broker) = crate::broker()? else { return Ok(None) };
    let Some(redis) = RedisServer::start(Kind::One, &[])? else {
        skipped("no redis-server on this machine; scripts/setup.sh test installs it")?;
        return Ok(None);
    };
    let mut hit = BTreeSet::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for seed in seeds {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut faults = draw(seed, &mut dice);
        let (folder, clock) = place(&mut faults)?;
        let outcome = schedule(seed, dice, &faults, &broker, &redis, (&folder, clock), &mut hit);
        runtime.block_on(outcome).with_context(|| {
            let log = folder.log_tail();
            format!(
                "TIDEMARK_TEST_SCHEDULES_SEED={seed} TIDEMARK_TEST_SCHEDULES=1 repeats it; the server's log ends:\n{log}\n"
            )
        })?;
    }
    Ok(Some(hit))
}

fn number(name: &str) -> Result<Option<u64>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse::<u64>().with_context(|| format!("{name}={text}"))).transpose()
}

async fn schedule(
    seed: u64,
    mut dice: StdRng,
    faults: &[Fault],
    broker: &Broker,
    redis: &RedisServer,
    (folder, clock): (&Folder, Option<Clock>),
    hit: &mut BTreeSet<&'static str>,
) -> Result<()> {
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
        clock,
        topic,
        arguments,
        signs: Arc::default(),
        server: None,
    };
    world.start().await?;
    world.create().await?;
    let reader = tokio::spawn(reader::read(world.signs.clone(), reader::store(redis, &prefix)?));
    let outcome = world.go_through(faults, hit).await;
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

/// What the server takes at this moment.
async fn now_us(client: &tokio_postgres::Client) -> Result<i64> {
    let now = value(client, "SELECT (extract(epoch FROM now()) * 1000000)::bigint").await?;
    Ok(now.context("NULL")?.parse()?)
}

struct World<'a> {
    dice: StdRng,
    broker: &'a Broker,
    redis: &'a RedisServer,
    folder: &'a Folder,
    clock: Option<Clock>,
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
                 WITH (connector = 'kafka', topic = '{topic}', clock = 'event', idle_timeout = '1 day',
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
            Fault::ClockMoved { hours_forward, minutes_back, restart } => {
                self.move_clock(hours_forward * 3600, minutes_back * 60, restart).await
            }
            Fault::DiskFull => self.fill_disk().await,
            Fault::Copy => self.copy().await,
        }
    }

    async fn hold_history(&mut self) -> Result<()> {
        let holder = Holder::of(&self.folder.data().join("warehouse/catalog.db"))?;
        self.send(3)?;
        let client = self.server()?.connect().await?;
        let fails = "SELECT position('history: ' IN last_error) > 0 FROM tidemark.pipelines WHERE name = 'ever'";
        comes(&client, fails, "t").await?;
        if std::env::var_os("TIDEMARK_TEST_LONG").is_some() {
            // Commits fail one after the other, and messages go on coming.
            let begun = Instant::now();
            while begun.elapsed() < HELD_LONG {
                self.send(1)?;
                tokio::time::sleep(HELD_LONG / 60).await;
            }
            comes(&client, fails, "t").await?;
        }
        drop(holder);
        self.send(1)?;
        comes(&client, "SELECT last_error FROM tidemark.pipelines WHERE name = 'ever'", "NULL").await
    }

    async fn move_clock(&mut self, forward: i64, back: i64, restart: bool) -> Result<()> {
        let client = self.server()?.connect().await?;
        let begin = now_us(&client).await?;
        self.clock.as_mut().context("no clock")?.move_by(forward)?;
        let ahead = now_us(&client).await?;
        ensure!(
            ahead >= begin + forward * 1_000_000,
            "a clock set forward by {forward} s goes from {begin} to {ahead}"
        );
        self.send(2)?;
        // Something is committed in what is then the future.
        run(&client, "FLUSH; CHECKPOINT").await?;
        self.clock.as_mut().context("no clock")?.move_by(-back)?;
        let stands = now_us(&client).await?;
        ensure!(stands >= ahead, "a server's time goes back from {ahead} to {stands}");
        self.send(2)?;
        run(&client, "FLUSH; CHECKPOINT").await.context("while the clock stands")?;
        if restart {
            self.kill()?;
            self.start().await?;
            let client = self.server()?.connect().await?;
            // It knows no later time, and finds a history that does.
            run(&client, "FLUSH; CHECKPOINT").await.context("begun when the clock was back")?;
        }
        Ok(())
    }

    async fn fill_disk(&mut self) -> Result<()> {
        let ballast = Ballast::fill(&small_disk().context("no small disk")?)?;
        let client = self.server()?.connect().await?;
        // Until the topic's rows do not go in, and Redis is told what did.
        let refused = "SELECT last_error IS NOT NULL FROM tidemark.pipelines WHERE name = 'events'";
        let started = Instant::now();
        while value(&client, refused).await?.as_deref() != Some("t") {
            ensure!(started.elapsed() < PATIENCE, "a full disk takes everything");
            self.send(2)?;
        }
        drop(ballast);
        // Whether in one life or two.
        if self.dice.random_bool(0.5) {
            self.kill()?;
            return self.start().await;
        }
        self.send(1)?;
        let level = "SELECT last_error FROM tidemark.pipelines WHERE name = 'events'";
        comes(&client, level, "NULL").await.context("with room again")
    }

    async fn copy(&mut self) -> Result<()> {
        self.kill()?;
        let copy = Folder::new()?;
        std::fs::create_dir_all(copy.data())?;
        let copied = Command::new("cp").arg("-a").arg(self.folder.data().join(".")).arg(copy.data()).status()?;
        ensure!(copied.success(), "the directory cannot be copied");
        self.start().await?;
        let first = self.server()?.connect().await?;
        // Who began later is told by the tenth of a second.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            tokio::time::sleep(POLL).await;
        }
        // Its history names files of the original by their absolute paths: the copy leaves them alone.
        let mut arguments = vec!["--commit-interval", "1h", "--checkpoint-interval", "1h", "--online-tick", "10ms"];
        arguments.extend(self.arguments[BACKGROUND.len()..].iter().map(String::as_str));
        let later = Server::start_with(&copy, &arguments).await?;
        let second = later.connect().await?;
        run(&second, "FLUSH").await?;
        // Both read what comes, and only one of them puts it.
        let told =
            "SELECT position('which began later' IN online_error) > 0 FROM tidemark.pipelines WHERE name = 'ever'";
        let started = Instant::now();
        while value(&first, told).await?.as_deref() != Some("t") {
            ensure!(started.elapsed() < PATIENCE, "of two servers on one view none is refused");
            self.send(1)?;
        }
        drop(later);
        // It has read on all the same, and puts when it has begun later itself.
        run(&first, "FLUSH").await?;
        self.kill()?;
        self.start().await
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
