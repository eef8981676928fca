//! What streams in beside the events: a source whose watermark is moved by hand, and a table whose rows are replaced.
//!
//! Each has one writer, which sends statement `i` until it is acknowledged and then the next: what a server has is the
//! acknowledged statements and perhaps the one in flight.

use crate::{
    events::{instant, microseconds},
    server::{rows, value},
    verify::text,
    writers::{Ledger, ended},
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, sync::Arc};
use tokio_postgres::Client;

pub const SQL: &str = "CREATE SOURCE ticks (k TEXT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event'); \
    CREATE FEATURE VIEW ticking AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at RANGE INTERVAL '30 seconds' PRECEDING) AS n \
      FROM ticks; \
    CREATE TABLE users (id BIGINT PRIMARY KEY, plan TEXT, v BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) \
      WITH (clock = 'event') FORMAT UPSERT; \
    CREATE FEATURE VIEW user_plan AS SELECT id, plan, v FROM users WHERE v % 7 <> 3";

/// Statements acknowledged by the two writers.
#[derive(Debug, Default, Clone)]
pub struct Beside {
    pub ticks: u64,
    /// The watermark was moved behind so many ticks; the same as `ticks`, or one less.
    pub advances: u64,
    pub changes: u64,
}

/// 2026-05-10 00:00:00 UTC: no month begins within a run.
const BASE_US: i64 = 1_778_371_200_000_000;
const SECOND_US: i64 = 1_000_000;

fn tick_us(i: u64) -> i64 {
    BASE_US + i as i64 * 60 * SECOND_US
}

/// Behind the departure of tick `i`, before tick `i + 1`.
fn advance_us(i: u64) -> i64 {
    tick_us(i) + 45 * SECOND_US
}

/// A tick, then the watermark beyond its window; and again.
pub async fn tick(client: Client, ledger: Arc<Ledger>) -> Result<()> {
    // A tick that was in flight may be there: a second one would count twice.
    match value(&client, "SELECT count(*) FROM ticks").await {
        Ok(count) => {
            let count = count.unwrap_or_default().parse()?;
            ledger.note(|known| known.beside.ticks = count);
        }
        Err(error) => return over(error, "a count of ticks"),
    }
    loop {
        let done = ledger.known().beside;
        if done.ticks == done.advances {
            let sql = format!("INSERT INTO ticks VALUES ('a', '{}')", instant(tick_us(done.ticks)));
            if let Err(error) = client.batch_execute(&sql).await {
                return ended(error, &sql);
            }
            ledger.note(|known| known.beside.ticks += 1);
        }
        let sql =
            format!("ALTER SOURCE ticks ADVANCE WATERMARK TO TIMESTAMPTZ '{}'", instant(advance_us(done.advances)));
        if let Err(error) = client.batch_execute(&sql).await {
            return ended(error, &sql);
        }
        ledger.note(|known| known.beside.advances += 1);
    }
}

/// The two rows of a change.
fn change_rows(i: u64) -> [(u64, u64); 2] {
    [(i % 10, 2 * i), ((i + 3) % 10, 2 * i + 1)]
}

fn change_us(v: u64) -> i64 {
    BASE_US + v as i64 * SECOND_US
}

/// Replaces rows.
pub async fn change(client: Client, ledger: Arc<Ledger>) -> Result<()> {
    // Sent again, what was in flight would be a version of its own: its time lies below the watermark that it has moved.
    match value(&client, NEWEST).await {
        Ok(newest) => {
            let changes = changes_up_to(newest)?;
            ledger.note(|known| known.beside.changes = changes);
        }
        Err(error) => return over(error, NEWEST),
    }
    loop {
        let i = ledger.known().beside.changes;
        let row = |(id, v): (u64, u64)| format!("({id}, 'plan {}', {v}, '{}')", v % 5, instant(change_us(v)));
        let sql = format!("INSERT INTO users VALUES {}", change_rows(i).map(row).join(", "));
        if let Err(error) = client.batch_execute(&sql).await {
            return ended(error, &sql);
        }
        ledger.note(|known| known.beside.changes = i + 1);
    }
}

const NEWEST: &str = "SELECT max(v) FROM users";

fn changes_up_to(newest: Option<String>) -> Result<u64> {
    Ok(newest.map_or(Ok(0), |newest| newest.parse::<u64>().map(|v| v + 1))?.div_ceil(2))
}

fn over(error: anyhow::Error, what: &str) -> Result<()> {
    match error.downcast::<tokio_postgres::Error>() {
        Ok(error) => ended(error, what),
        Err(error) => Err(error),
    }
}

/// Everything about both; how many steps were compared.
pub async fn verify(client: &Client, known: &Beside) -> Result<usize> {
    let ticks = ticks(client, known).await.context("ticks")?;
    Ok(ticks + changes(client, known).await.context("users")?)
}

async fn ticks(client: &Client, known: &Beside) -> Result<usize> {
    let count: u64 = value(client, "SELECT count(*) FROM ticks").await?.unwrap_or_default().parse()?;
    ensure!(
        count == known.ticks || (count == known.ticks + 1 && known.ticks == known.advances),
        "{count} ticks are there, {known:?} were acknowledged"
    );
    if count == 0 {
        return Ok(0);
    }
    let frontier = value(client, "SELECT watermark FROM tidemark.sources WHERE name = 'ticks'").await?;
    let frontier_us = microseconds(frontier.as_deref().context("no watermark")?)?;
    let last_us = tick_us(count - 1);
    let possible = [last_us, advance_us(count - 1)];
    ensure!(possible.contains(&frontier_us), "the watermark is {frontier:?} after {count} ticks");
    ensure!(
        known.advances < count || frontier_us == possible[1],
        "the watermark {frontier:?} has gone back: {known:?}"
    );
    let now = value(client, "SELECT n FROM ticking WHERE k = 'a'").await?;
    let expected = if frontier_us > last_us { "0" } else { "1" };
    ensure!(now.as_deref() == Some(expected), "a lookup says {now:?}, it is {expected}");

    let steps = (0..count).flat_map(|i| [(tick_us(i), "1"), (tick_us(i) + 30 * SECOND_US + 1, "0")]);
    let expected: Vec<(i64, String)> =
        steps.filter(|(at_us, _)| *at_us < frontier_us).map(|(at_us, n)| (at_us, n.to_owned())).collect();
    let mut there = vec![];
    for row in rows(client, "SELECT at, n FROM history.ticking ORDER BY at").await? {
        there.push((microseconds(text(&row, 0))?, text(&row, 1).to_owned()));
    }
    same("history.ticking", &there, &expected)
}

async fn changes(client: &Client, known: &Beside) -> Result<usize> {
    let count = changes_up_to(value(client, NEWEST).await?)?;
    ensure!(
        count == known.changes || count == known.changes + 1,
        "{count} changes are there, {known:?} were acknowledged"
    );
    let mut current: BTreeMap<u64, u64> = BTreeMap::new();
    let mut all = vec![];
    for (id, v) in (0..count).flat_map(change_rows) {
        current.insert(id, v);
        all.push((id, v));
    }
    let row = |id: u64, v: u64| (id as i64, format!("plan {} {v} {}", v % 5, instant(change_us(v))));
    let mut expected: Vec<(i64, String)> = current.iter().map(|(id, v)| row(*id, *v)).collect();
    same("users", &read(client, "SELECT id, plan, v, at FROM users ORDER BY id").await?, &expected)?;
    // The view has the rows that its WHERE takes; one that it takes no longer is gone.
    let is_taken = |v: u64| v % 7 != 3;
    let gone: Vec<u64> = current.iter().filter(|(_, v)| !is_taken(**v)).map(|(id, _)| *id).collect();
    current.retain(|_, v| is_taken(*v));
    expected = current.iter().map(|(id, v)| row(*id, *v)).collect();
    same("user_plan", &read(client, "SELECT id, plan, v, at FROM user_plan ORDER BY id").await?, &expected)?;
    for (id, v) in current {
        let looked_up = value(client, &format!("SELECT v FROM user_plan WHERE id = {id}")).await?;
        ensure!(looked_up == Some(v.to_string()), "key {id}: a lookup says {looked_up:?}, it is {v}");
    }
    for id in gone {
        let looked_up = rows(client, &format!("SELECT v FROM user_plan WHERE id = {id}")).await?;
        ensure!(looked_up.is_empty(), "key {id}: a lookup says {looked_up:?}, it is gone");
    }
    // The frontier is the newest change, whose step is not below it.
    all.retain(|(_, v)| *v + 1 < 2 * count);
    all.sort_unstable();
    expected = vec![];
    let mut shown = None;
    for (id, v) in all {
        if is_taken(v) {
            expected.push(row(id, v));
            shown = Some(id);
        } else if shown.take_if(|shown| *shown == id).is_some() {
            expected.push((id as i64, format!("NULL NULL {}", instant(change_us(v)))));
        }
    }
    same(
        "history.user_plan",
        &read(client, "SELECT id, plan, v, at FROM history.user_plan ORDER BY id, at").await?,
        &expected,
    )
}

async fn read(client: &Client, sql: &str) -> Result<Vec<(i64, String)>> {
    let mut there = vec![];
    for row in rows(client, sql).await? {
        let at = instant(microseconds(text(&row, 3))?);
        there.push((text(&row, 0).parse()?, format!("{} {} {at}", text(&row, 1), text(&row, 2))));
    }
    Ok(there)
}

fn same(what: &str, there: &[(i64, String)], expected: &[(i64, String)]) -> Result<usize> {
    for i in 0..there.len().max(expected.len()) {
        let (is, should) = (there.get(i), expected.get(i));
        ensure!(is == should, "{what}: row {i} of {} should be {should:?}, is {is:?}", expected.len());
    }
    Ok(there.len())
}
