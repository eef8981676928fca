//! The oracle: random sources and random feature views, every reader of ours against a real PostgreSQL that computes
//! the definition (semantics, section 7).
//!
//! `TIDEMARK_ORACLE_VIEWS` distinct views (default 1,000), `TIDEMARK_ORACLE_PROBES` probes of them altogether (default
//! 100,000) and `TIDEMARK_ORACLE_SEED` (default 1; `random` draws one) choose what is generated; a run that does not reach
//! both numbers fails. The seed of every failing case is printed, and the case is shrunk and written to `tests/oracle/kept/`,
//! from where every later run replays it first.
//!
//! What costs is planning, on both sides, so a statement asks for as much as it can: all probes of a view in one statement of
//! PostgreSQL's, all keys of an instant in one of ours. Many views share a source, and several cases run beside each other:
//! while one waits for PostgreSQL or for the disk, another is answered.

// The seams rule the product; a test may wait for a server and draw a seed.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod admission;
mod check;
mod coverage;
mod definition;
mod generate;
mod in_process;
mod json;
mod model;
mod plan;
mod postgres;
mod shrink;
mod stand_in;
mod turn;
mod under_test;
mod value;

use anyhow::{Context, Result, bail};
use coverage::Coverage;
use model::Case;
use postgres::Postgres;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};
use under_test::{Session, Tidemark, UnderTest};

const VIEWS_PER_SOURCE: usize = 25;
/// Below this many views some cells of the coverage may be empty. From here on chance leaves only a few so, and up to half as
/// many views again are made to fill them.
const VIEWS_FOR_COVERAGE: usize = 400;
/// Cases at once: one for each core of a small machine, and one that waits.
const LANES: usize = 3;
/// How many of a view's probes are drawn, in percent; the rest are its keys at the nows and instants of the lookups.
const DRAWN_PERCENT: usize = 85;
/// After so many failing views the picture is clear.
const FAILURES_MAX: usize = 20;
const SHRUNK_MAX: usize = 3;

/// What a run has to reach.
struct Goal {
    seed: u64,
    views: usize,
    probes: usize,
}

impl Goal {
    fn of_environment() -> Result<Goal> {
        let views: usize = setting("TIDEMARK_ORACLE_VIEWS", "1000").parse()?;
        // As many for each view as there are by default.
        let probes = setting("TIDEMARK_ORACLE_PROBES", &(views * 100).to_string()).parse()?;
        let seed = match setting("TIDEMARK_ORACLE_SEED", "1").as_str() {
            "random" => rand::random_range(0..1_000_000_000),
            number => number.parse()?,
        };
        Ok(Goal { seed, views, probes })
    }

    /// All views that a run may make.
    fn views_max(&self) -> usize {
        if self.is_covering() { self.views + self.views / 2 } else { self.views }
    }

    fn is_covering(&self) -> bool {
        self.views >= VIEWS_FOR_COVERAGE
    }

    fn drawn_per_view(&self) -> usize {
        (self.probes * DRAWN_PERCENT / 100).div_ceil(self.views.max(1)).max(1)
    }
}

/// What all lanes have done together.
#[derive(Default)]
struct Run {
    cases: u64,
    /// Views of all cases that were begun.
    begun: usize,
    under_way: usize,
    texts: BTreeSet<String>,
    coverage: Coverage,
    reports: Vec<String>,
    shrunk: usize,
    server_is_gone: bool,
}

impl Run {
    /// The seed and the number of views of the case that a lane does next. What is under way may be all that is missing: the
    /// last lane sees to that.
    fn next(&mut self, goal: &Goal) -> Option<(u64, usize)> {
        let room = goal.views_max().saturating_sub(self.begun).min(VIEWS_PER_SOURCE);
        if room == 0 || self.server_is_gone || self.reports.len() >= FAILURES_MAX {
            return None;
        }
        if self.begun >= goal.views && (self.under_way > 0 || self.missing(goal).is_empty()) {
            return None;
        }
        let seed = goal.seed.wrapping_add(self.cases);
        self.cases += 1;
        self.begun += room;
        self.under_way += 1;
        Some((seed, room))
    }

    /// What the goal still lacks, in words.
    fn missing(&self, goal: &Goal) -> Vec<String> {
        let mut missing = Vec::new();
        if self.texts.len() < goal.views {
            missing.push(format!("only {} distinct views of {}", self.texts.len(), goal.views));
        }
        if self.coverage.probes < goal.probes {
            missing.push(format!("only {} probes of {}", self.coverage.probes, goal.probes));
        }
        if goal.is_covering() {
            missing.extend(self.coverage.empty().into_iter().map(|cell| format!("nothing looked at {cell}")));
        }
        missing
    }
}

#[tokio::test]
async fn every_reader_agrees_with_the_definition_computed_by_postgresql() -> Result<()> {
    let goal = Goal::of_environment()?;
    println!(
        "TIDEMARK_ORACLE_SEED={} TIDEMARK_ORACLE_VIEWS={} TIDEMARK_ORACLE_PROBES={}",
        goal.seed, goal.views, goal.probes
    );
    let started = Instant::now();
    let postgres = Postgres::start().await?;
    let system = Tidemark::start().await?;
    let mut run = Run::default();

    let mut session = system.session().await?;
    for (name, case) in shrink::kept()? {
        let object = format!("kept_{}", name.replace('-', "_"));
        for failure in check::check(&case, &object, &postgres, &mut session, &mut run.coverage).await {
            run.reports.push(format!("kept case {name}: {:#}", failure.error));
        }
    }

    let run = RefCell::new(run);
    let mut lanes = vec![lane(&goal, &run, postgres.another().await?, session)];
    for _ in 1..LANES {
        lanes.push(lane(&goal, &run, postgres.another().await?, system.session().await?));
    }
    futures::future::try_join_all(lanes).await?;

    let run = run.into_inner();
    run.coverage.report();
    println!(
        "{} distinct views, {} probes, {} comparisons in {:.0} s",
        run.texts.len(),
        run.coverage.probes,
        run.coverage.comparisons,
        started.elapsed().as_secs_f64()
    );
    if !run.reports.is_empty() {
        bail!("{}\n\nthe server's log ends:\n{}", run.reports.join("\n\n"), system.log_tail());
    }
    match run.missing(&goal).as_slice() {
        [] => Ok(()),
        missing => bail!("{}", missing.join(", ")),
    }
}

/// Cases one after the other, until the run has what it has to reach.
async fn lane(goal: &Goal, run: &RefCell<Run>, postgres: Postgres, mut session: Session) -> Result<()> {
    loop {
        // A statement of its own: what is borrowed must not be held while others go on.
        let next = run.borrow_mut().next(goal);
        let Some((seed, views)) = next else { return Ok(()) };
        let case = generate::case_with(seed, views, goal.drawn_per_view());
        let mut coverage = Coverage::default();
        let failures = check::check(&case, &format!("s{seed}"), &postgres, &mut session, &mut coverage).await;
        for failure in failures {
            let shrinks = {
                let mut run = run.borrow_mut();
                run.reports.push(report(&case, failure.view, &failure.error));
                let shrinks = failure.view.filter(|_| run.shrunk < SHRUNK_MAX && session.is_alive());
                run.shrunk += usize::from(shrinks.is_some());
                shrinks
            };
            if let Some(view) = shrinks {
                let small = shrink::shrink(&case, view, &postgres, &mut session).await;
                let kept = format!("  shrunk into {}", shrink::keep(&small, view)?.display());
                run.borrow_mut().reports.push(kept);
            }
        }
        let mut run = run.borrow_mut();
        run.texts.extend(case.views.iter().map(|(view, _)| view.create_sql("v", "s")));
        run.coverage.merge(coverage);
        run.under_way -= 1;
        if !session.is_alive() && !run.server_is_gone {
            run.server_is_gone = true;
            run.reports.push(format!("seed {seed}: the server is gone"));
        }
    }
}

fn report(case: &Case, view: Option<usize>, error: &anyhow::Error) -> String {
    match view {
        Some(i) => format!(
            "seed {}, view {i}: {error:#}\n  {}\n  {}",
            case.seed,
            case.source.create_sql("s"),
            case.views[i].0.create_sql("v", "s")
        ),
        None => format!("seed {}: {error:#}\n  {}", case.seed, case.source.create_sql("s")),
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// An SQL string.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A port that nobody listens on right now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Connects as soon as the server answers; gives up when it has ended.
async fn connect(port: u16, user: &str, database: &str, mut ended: impl FnMut() -> bool) -> Result<Client> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let config = format!("host=127.0.0.1 port={port} user={user} dbname={database}");
    let started = Instant::now();
    loop {
        match tokio_postgres::connect(&config, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if ended() || started.elapsed() > PATIENCE => return Err(error).context(config),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
