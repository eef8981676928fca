//! The whole pipeline on a clock of its own, over seams in memory that fail, delay, tear and forget, seed by seed.
//!
//! ```text
//!   seed ──▶ operations   insert, tick, flush, checkpoint, create, drop, look up, stop, …     one at a time or several at once
//!        └─▶ faults       each call to a seam: fine, refused, nobody knows, or the process ends there
//!
//!   engine on faulty seams ──crash──▶ engine on what is left ──crash──▶ …
//!                                       │ must be, bit for bit,
//!                                       ▼
//!   an engine without faults that reads the same logs from their beginnings
//! ```
//!
//! A seed that fails is named with the first difference and kept in `simulation/kept.txt`, which is run first. With
//! `TIDEMARK_SIMULATION_SEED` and `TIDEMARK_SIMULATION_SEEDS` others are run than usual; with `TIDEMARK_SIMULATION_TRACE` what is
//! done and what fails is printed.

mod check;
mod clock;
mod faults;
mod history;
mod kept_together;
mod ledger;
mod log;
mod reference;
mod rows;
mod stores;
mod topic;
mod views;
mod world;

use arrow::record_batch::RecordBatch;
use check::{check, check_end, check_refresh, check_stores};
use parking_lot::Mutex;
use rand::Rng;
use std::{
    fs::OpenOptions,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use world::{Op, World};

/// In a run of all tests: what some 40 seconds are enough for.
const SEEDS: u64 = 1500;

/// Of those again with a topic.
const SEEDS_WITH_TOPIC: u64 = 400;

const KEPT: &str = "tests/it/simulation/kept.txt";
const KEPT_WITH_TOPIC: &str = "tests/it/simulation/kept_with_topic.txt";

/// What is said of a difference.
const CHARACTERS_SHOWN: usize = 400;

async fn run(seed: u64, world: &mut World) -> Result<(), String> {
    let mut step = 0;
    if trace() {
        eprintln!("{seed}: {}", world.said());
    }
    world.start().await?;
    if world.dice.random_bool(0.8) {
        world.faults.storm();
    }
    let steps = world.dice.random_range(30..=80);
    for _ in 0..world.dice.random_range(0..=6) {
        let create = Op::Create(world.dice.random_range(0..views::of(world.mode).len()));
        if trace() {
            eprintln!("{seed}: {create:?}");
        }
        if !world.perform(&[create]).await? {
            world.crash();
            world.start().await?;
        }
    }
    while step < steps {
        let ops = together(world);
        step += ops.len();
        if trace() {
            eprintln!("{seed} {step}: {}", said(&ops));
        }
        let at = |error: String| format!("step {step}: {error}");
        let goes_on = match &ops[..] {
            [Op::Check] => {
                world.faults.calm();
                let (resumes, flushes) = (world.dice.random(), world.dice.random());
                check(world, resumes, flushes).await.map_err(at)?;
                true
            }
            [Op::Stop] => {
                let is_last = [Op::Flush, Op::Checkpoint];
                for op in is_last {
                    if !world.perform(&[op]).await.map_err(at)? {
                        break;
                    }
                }
                false
            }
            ops => world.perform(ops).await.map_err(at)?,
        };
        if !goes_on {
            world.crash();
            world.start().await.map_err(at)?;
            world.faults.calm();
            let (resumes, flushes) = (world.dice.random_bool(0.7), world.dice.random());
            check(world, resumes, flushes).await.map_err(|error| format!("step {step}, after a restart: {error}"))?;
            if world.dice.random() {
                world.faults.storm();
            }
        }
    }
    world.faults.calm();
    if world.dice.random() {
        check_stores(world).await.map_err(|error| format!("at the end: {error}"))?;
    }
    check(world, true, true).await.map_err(|error| format!("at the end: {error}"))?;
    check_refresh(world).await.map_err(|error| format!("at the end: {error}"))?;
    world.crash();
    world.start().await?;
    world.faults.calm();
    world.clock.move_on(3_600 * views::SECOND);
    check_end(world).await.map_err(|error| format!("when all is over: {error}"))
}

/// What is done next: one thing, or some that go on beside one another.
fn together(world: &mut World) -> Vec<Op> {
    let mut ops = vec![world.draw()];
    let is_alone = |op: &Op| matches!(op, Op::Check | Op::Stop);
    let is_ddl = |op: &Op| matches!(op, Op::Create(_) | Op::Drop(_) | Op::Resume(_));
    while !is_alone(&ops[0]) && ops.len() < 4 && world.dice.random_bool(0.35) {
        let next = world.draw();
        // Sessions take the catalog's lock one after another.
        let waits = is_alone(&next) || is_ddl(&next) && ops.iter().any(is_ddl);
        if !waits {
            ops.push(next);
        }
    }
    ops
}

fn trace() -> bool {
    std::env::var_os("TIDEMARK_SIMULATION_TRACE").is_some()
}

fn said(ops: &[Op]) -> String {
    let one = |op: &Op| match op {
        Op::Insert(id, batches, conflict) => format!("insert {:?} into {id}, {conflict:?}", sizes(batches)),
        Op::Feed(partition, batches, _) => format!("feed {:?} by partition {partition}", sizes(batches)),
        other => format!("{other:?}"),
    };
    ops.iter().map(one).collect::<Vec<_>>().join(" | ")
}

fn sizes(batches: &[RecordBatch]) -> Vec<usize> {
    batches.iter().map(RecordBatch::num_rows).collect()
}

/// A seed from its beginning to its end: the calls that were made of seams, and the difference, if there is one, in few words.
fn outcome(seed: u64, is_fed: bool) -> (u64, Result<(), String>) {
    let mut world = World::new(seed, is_fed);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(seed, &mut world))));
    let ended = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    (world.faults.calls(), ended.map_err(|error| error.chars().take(CHARACTERS_SHOWN).collect()))
}

/// The failures among some seeds, by seed.
fn failures(seeds: &[u64], is_fed: bool) -> Vec<(u64, String)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if let (_, Err(error)) = outcome(*seed, is_fed) {
                        eprintln!("seed {seed}: {error}");
                        failed.lock().push((*seed, error));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort();
    failed
}

/// Seeds that have failed once, each on a line of its own with its story behind it.
fn kept(file: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
    let seed = |line: &str| line.split_whitespace().next().and_then(|seed| seed.parse().ok());
    text.lines().filter(|line| !line.starts_with('#')).filter_map(seed).collect()
}

fn keep(file: &str, failed: &[(u64, String)]) {
    let opened = OpenOptions::new().append(true).open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let mut opened = opened.expect(file);
    for (seed, error) in failed {
        writeln!(opened, "{seed} {}", error.lines().next().unwrap_or_default()).expect(file);
    }
}

fn no_seed_fails(seeds: u64, file: &str, is_fed: bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("TIDEMARK_SIMULATION_SEED");
    let count = number("TIDEMARK_SIMULATION_SEEDS").unwrap_or(seeds);
    let known = if first.is_none() { kept(file) } else { vec![] };
    let first = first.unwrap_or(0);
    let mut failed = failures(&known, is_fed);
    let new: Vec<u64> = (first..first + count).filter(|seed| !known.contains(seed)).collect();
    let new = failures(&new, is_fed);
    keep(file, &new);
    failed.extend(new);
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "seeds {seeds:?} fail: {}", failed[0].1);
}

#[test]
fn whatever_fails_and_whenever_it_crashes_nothing_shows() {
    no_seed_fails(SEEDS, KEPT, false);
}

#[test]
fn whatever_fails_each_message_of_a_topic_is_taken_once() {
    no_seed_fails(SEEDS_WITH_TOPIC, KEPT_WITH_TOPIC, true);
}

#[test]
fn a_seed_is_the_same_every_time() {
    for seed in 0..20 {
        let [once, again] = [0, 1].map(|_| outcome(seed, seed % 2 == 1));
        assert_eq!(once, again, "seed {seed}");
    }
}
