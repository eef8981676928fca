//! The oracle: random sources and random feature views, every reader of ours against a real PostgreSQL that computes
//! the definition (semantics, section 7).
//!
//! `TIDEMARK_ORACLE_VIEWS` (default 500) and `TIDEMARK_ORACLE_SEED` (default 1; `random` draws one) choose what is
//! generated; the seed of every failing case is printed, and the case is shrunk and written to `tests/oracle/kept/`,
//! from where every later run replays it first.

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
mod under_test;
mod value;

use anyhow::{Context, Result, bail};
use coverage::Coverage;
use model::Case;
use postgres::Postgres;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};
use under_test::{Tidemark, UnderTest};

const VIEWS_PER_SOURCE: usize = 10;
/// Below this many views some cells of the coverage may be empty. From here on chance leaves only a few so, and up to half as
/// many views again are made to fill them.
const VIEWS_FOR_COVERAGE: usize = 400;
const PROBES_MIN: usize = 40;
/// After so many failing views the picture is clear.
const FAILURES_MAX: usize = 20;
const SHRUNK_MAX: usize = 3;

#[tokio::test]
async fn every_reader_agrees_with_the_definition_computed_by_postgresql() -> Result<()> {
    let views: usize = setting("TIDEMARK_ORACLE_VIEWS", "500").parse()?;
    let seed: u64 = match setting("TIDEMARK_ORACLE_SEED", "1").as_str() {
        "random" => rand::random_range(0..1_000_000_000),
        number => number.parse()?,
    };
    println!("TIDEMARK_ORACLE_SEED={seed} TIDEMARK_ORACLE_VIEWS={views}");
    let started = Instant::now();
    let postgres = Postgres::start().await?;
    let mut system = Tidemark::start().await?;
    let mut coverage = Coverage::default();
    let mut reports: Vec<String> = Vec::new();
    let mut shrunk = 0;

    for (name, case) in shrink::kept()? {
        let object = format!("kept_{}", name.replace('-', "_"));
        for failure in check::check(&case, &object, &postgres, &mut system, &mut coverage).await {
            reports.push(format!("kept case {name}: {:#}", failure.error));
        }
    }

    let mut texts = BTreeSet::new();
    let mut case_seed = seed;
    let most = if views >= VIEWS_FOR_COVERAGE { views + views / 2 } else { views };
    let goes_on = |made: usize, coverage: &Coverage| made < views || made < most && !coverage.empty().is_empty();
    while goes_on(texts.len(), &coverage) && reports.len() < FAILURES_MAX {
        let case = generate::case(case_seed, VIEWS_PER_SOURCE.min(most - texts.len()));
        texts.extend(case.views.iter().map(|(view, _)| view.create_sql("v", "s")));
        let name = format!("s{case_seed}");
        for failure in check::check(&case, &name, &postgres, &mut system, &mut coverage).await {
            reports.push(report(&case, failure.view, &failure.error));
            if let Some(view) = failure.view
                && shrunk < SHRUNK_MAX
                && system.is_alive()
            {
                shrunk += 1;
                let small = shrink::shrink(&case, view, &postgres, &mut system).await;
                reports.push(format!("  shrunk into {}", shrink::keep(&small, view)?.display()));
            }
        }
        if !system.is_alive() {
            reports.push(format!("seed {case_seed}: the server is gone"));
            break;
        }
        case_seed += 1;
    }

    coverage.report();
    let empty = coverage.empty();
    println!(
        "{} distinct views, {} probes, {} comparisons in {:.0} s",
        texts.len(),
        coverage.probes,
        coverage.comparisons,
        started.elapsed().as_secs_f64()
    );
    if !reports.is_empty() {
        bail!("{}\n\nthe server's log ends:\n{}", reports.join("\n\n"), system.log_tail());
    }
    if coverage.probes < PROBES_MIN * texts.len() {
        bail!("only {} probes", coverage.probes);
    }
    if views >= VIEWS_FOR_COVERAGE && !empty.is_empty() {
        bail!("nothing looked at {}", empty.join(", "));
    }
    Ok(())
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
