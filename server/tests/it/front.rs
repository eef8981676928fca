//! Whatever is sent as a statement is answered by a plan or by an error that says what is wrong with it: never by a panic, a
//! stack that is too small, an error of ours (XX000) or work without an end.
//!
//! `TIDEMARK_FRONT_STATEMENTS` (default 1000) and `TIDEMARK_FRONT_SEED` (default 1) choose what is made of the corpus. A statement that
//! fails is made as short as it can be; what was found is kept in `front/found.sql`. Before each statement it is written to
//! the file `TIDEMARK_FRONT_LAST`, if that is set: it is there after the process is gone, too.

mod corpus;
mod mutate;
mod world;

use corpus::Corpus;
use mutate::{Chance, mutated, tokens};
use std::{collections::BTreeMap, fs, panic};
use world::World;

/// What a server's threads have.
const STACK_BYTES: usize = 64 << 20;
/// So many failures show what is wrong.
const FAILURES_MAX: usize = 20;
/// The most nodes of plans for each token of a statement, and to begin with: a view of a view or `*` makes many of one.
const NODES_PER_TOKEN_MAX: usize = 400;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What is wrong with the answer to a statement; `None`: nothing.
fn wrong(world: &World, sql: &str) -> Option<String> {
    match panic::catch_unwind(panic::AssertUnwindSafe(|| world.plan(sql))) {
        Err(payload) => {
            let said = payload.downcast_ref::<String>().cloned();
            let said = said.or_else(|| payload.downcast_ref::<&str>().map(|said| said.to_string()));
            Some(format!("panic: {}", said.unwrap_or_default()))
        }
        Ok(Err(error)) if error.sqlstate == "XX000" || error.sqlstate.len() != 5 || error.message.is_empty() => {
            Some(format!("{}: {}", error.sqlstate, error.message))
        }
        Ok(Err(_)) => None,
        Ok(Ok(nodes)) => {
            let most = NODES_PER_TOKEN_MAX * (tokens(sql).len() + 20);
            (nodes > most).then(|| format!("{nodes} nodes in its plan, more than {most}"))
        }
    }
}

/// The kind of a failure, without what belongs to one statement.
fn kind(what: &str) -> String {
    what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// With as few tokens as still fail in this way.
fn shortest(world: &World, sql: &str, what: &str) -> String {
    let fails = |sql: &str| wrong(world, sql).is_some_and(|found| kind(&found) == kind(what));
    let mut left = tokens(sql);
    let mut width = left.len().div_ceil(2);
    while width > 0 {
        let mut at = 0;
        while at < left.len() {
            let mut fewer = left.clone();
            fewer.drain(at..(at + width).min(left.len()));
            if fails(&fewer.concat()) {
                left = fewer;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
    left.concat()
}

/// On a stack like a server's, with nothing printed by the panics that are looked for.
fn on_a_servers_stack(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(test).expect("a thread starts");
    if let Err(payload) = thread.join() {
        panic::resume_unwind(payload);
    }
}

#[test]
fn every_statement_is_planned_or_refused_with_a_reason() {
    on_a_servers_stack(|| {
        let corpus = Corpus::read();
        let (count, seed) = (setting("TIDEMARK_FRONT_STATEMENTS", 1000), setting("TIDEMARK_FRONT_SEED", 1));
        println!("TIDEMARK_FRONT_STATEMENTS={count} TIDEMARK_FRONT_SEED={seed}, {} to start from", corpus.seeds.len());
        let last = std::env::var("TIDEMARK_FRONT_LAST").ok();
        let mut chance = Chance(seed);
        let mut failures: BTreeMap<String, String> = BTreeMap::new();
        let mut answered = 0;
        for number in 0..corpus.seeds.len() as u64 + count {
            // First as they are, then changed.
            let (sql, world) = match corpus.seeds.get(number as usize) {
                Some(seed) => (seed.sql.clone(), seed.world),
                None => {
                    let (seed, other) = (chance.pick(&corpus.seeds), chance.pick(&corpus.seeds));
                    (mutated(&seed.sql, &other.sql, &mut chance), seed.world)
                }
            };
            if let Some(path) = &last {
                fs::write(path, &sql).expect("it is written");
            }
            let world = &corpus.worlds[world];
            match wrong(world, &sql) {
                None => answered += 1,
                Some(what) if failures.contains_key(&kind(&what)) => {}
                Some(what) => {
                    let short = shortest(world, &sql, &what);
                    println!("{what}\n  {short}");
                    failures.insert(kind(&what), format!("{what}\n  {short}"));
                }
            }
            if failures.len() >= FAILURES_MAX {
                break;
            }
        }
        let all: Vec<&str> = failures.values().map(String::as_str).collect();
        assert!(
            all.is_empty(),
            "{} kinds of failure ({answered} statements answered)\n\n{}",
            all.len(),
            all.join("\n\n")
        );
    });
}

/// Each was a finding.
#[test]
fn what_was_found_stays_answered() {
    on_a_servers_stack(|| {
        let world = World::browsed();
        for sql in include_str!("front/found.sql").split("\n\n").skip(1) {
            assert_eq!(wrong(&world, sql), None, "{sql}");
        }
    });
}
