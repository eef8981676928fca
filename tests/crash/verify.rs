//! What must hold whenever a server answers: what was acknowledged is there once, every reading of every view is what
//! the definition says over what is there.

use crate::{
    beside,
    events::{self, Event, ROWS_PER_BATCH, microseconds},
    reference::{self, Step, VIEWS, View},
    server::{rows, value},
    writers::{Known, PASSING},
};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Steps compared, rows found: for the report.
#[derive(Debug, Default)]
pub struct Found {
    pub batches: BTreeSet<u64>,
    pub rows: usize,
    pub letters: usize,
    pub steps: usize,
}

pub fn text(row: &[Option<String>], column: usize) -> &str {
    row.get(column).and_then(Option::as_deref).unwrap_or("NULL")
}

/// Everything. The caller has stopped all writers.
pub async fn all(client: &Client, known: &Known) -> Result<Found> {
    let mut found = Found::default();
    let (admitted, refused) = rows_once(client, known, &mut found).await?;
    for view in &VIEWS {
        found.letters += letters(client, view, &admitted).await.with_context(|| format!("letters of {}", view.name))?;
    }
    ensure!(refused.iter().all(|n| !admitted.iter().any(|e| e.n == *n)), "a row is admitted and a dead letter");
    for (key, seen) in &known.seen {
        let now = value_or_zero(client, &format!("SELECT n FROM ever WHERE k = '{key}'")).await?;
        ensure!(now >= *seen, "key {key}: a reader had seen {seen} events, now there are {now}");
    }
    let passing =
        value(client, &format!("SELECT count(*) FROM tidemark.feature_views WHERE name = '{PASSING}'")).await?;
    let mut views: Vec<(&View, &str)> = VIEWS.iter().map(|view| (view, view.name)).collect();
    if passing.as_deref() == Some("1") {
        views.push((&VIEWS[0], PASSING));
    }
    for (view, name) in &views {
        lookups(client, view, name, &admitted).await.with_context(|| format!("lookups of {name}"))?;
    }
    by_sql(client).await?;
    client.batch_execute("CHECKPOINT").await.context("CHECKPOINT")?;
    for (view, name) in &views {
        found.steps += history(client, view, name, &admitted).await.with_context(|| format!("history of {name}"))?;
    }
    found.steps += beside::verify(client, &known.beside).await?;
    Ok(found)
}

async fn value_or_zero(client: &Client, sql: &str) -> Result<u64> {
    let rows = rows(client, sql).await?;
    Ok(rows.first().map_or("0", |row| text(row, 0)).parse()?)
}

/// Each row of each batch is admitted once or a dead letter once; a batch is there whole or not at all.
async fn rows_once(client: &Client, known: &Known, found: &mut Found) -> Result<(Vec<Event>, Vec<u64>)> {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    let mut admitted = vec![];
    for row in rows(client, "SELECT n, k, amount, price, at FROM events").await? {
        let n: u64 = text(&row, 0).parse()?;
        let is = (text(&row, 1), text(&row, 2), text(&row, 3).parse()?, microseconds(text(&row, 4))?);
        let event = events::event(n);
        ensure!(
            is == (event.key.as_deref().unwrap_or("NULL"), &events::decimal(event.cents), event.price, event.at_us),
            "row {n} is {is:?}"
        );
        *times.entry(n).or_default() += 1;
        admitted.push(event);
    }
    let mut refused = vec![];
    for row in rows(
        client,
        "SELECT payload ->> 'n', reason FROM tidemark.dead_letters WHERE object = 'events' AND view IS NULL",
    )
    .await?
    {
        let n: u64 = text(&row, 0).parse()?;
        ensure!(text(&row, 1) == "late", "row {n} was refused as {}", text(&row, 1));
        *times.entry(n).or_default() += 1;
        refused.push(n);
    }
    if let Some((n, times)) = times.iter().find(|(_, times)| **times != 1) {
        bail!("row {n} is there {times} times");
    }
    let late = admitted.iter().find(|event| events::is_late(event.n));
    ensure!(late.is_none(), "late row {} was admitted", late.map_or(0, |event| event.n));
    let mut by_batch: BTreeMap<u64, u64> = BTreeMap::new();
    for n in times.keys() {
        *by_batch.entry(n / ROWS_PER_BATCH).or_default() += 1;
    }
    for (number, count) in &by_batch {
        ensure!(*count == ROWS_PER_BATCH, "of batch {number} only {count} rows are there");
        ensure!(
            known.acknowledged.contains(number) || known.in_flight.contains(number),
            "batch {number} is there and was not before"
        );
    }
    for number in &known.acknowledged {
        ensure!(by_batch.contains_key(number), "batch {number} was acknowledged and is lost");
    }
    let counted = value_or_zero(client, "SELECT count(*) FROM events").await?;
    ensure!(counted as usize == admitted.len(), "count(*) says {counted}, there are {} rows", admitted.len());
    found.batches = by_batch.into_keys().collect();
    (found.rows, found.letters) = (admitted.len(), refused.len());
    Ok((admitted, refused))
}

/// Every admitted row without a key is a dead letter of every view that takes it, once.
async fn letters(client: &Client, view: &View, admitted: &[Event]) -> Result<usize> {
    let keyless = admitted.iter().filter(|event| event.key.is_none() && (view.takes)(event));
    let expected: BTreeSet<u64> = keyless.map(|event| event.n).collect();
    let sql = format!(
        "SELECT payload ->> 'n', reason FROM tidemark.dead_letters WHERE object = 'events' AND view = '{}'",
        view.name
    );
    let mut there = BTreeSet::new();
    for row in rows(client, &sql).await? {
        let n: u64 = text(&row, 0).parse()?;
        ensure!(text(&row, 1) == "null_key", "row {n} was excluded as {}", text(&row, 1));
        ensure!(there.insert(n), "row {n} has two letters");
    }
    let differing: Vec<_> = there.symmetric_difference(&expected).collect();
    ensure!(differing.is_empty(), "rows that have a letter or should have one: {differing:?}");
    Ok(there.len())
}

/// All keys by a scan, each key by a lookup, at the event clock's now.
async fn lookups(client: &Client, view: &View, name: &str, events: &[Event]) -> Result<()> {
    let Some(now_us) = events.iter().map(|event| event.at_us).max() else { return Ok(()) };
    let features = view.features.join(", ");
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(client, &format!("SELECT k, {features} FROM {name}")).await? {
        let values = (1..row.len()).map(|i| text(&row, i).to_owned()).collect();
        ensure!(answers.insert(text(&row, 0).to_owned(), values).is_none(), "key {} is there twice", text(&row, 0));
    }
    for (key, events) in view.by_key(events) {
        let expected = view.at(&events, now_us).map(|(_, values)| values);
        ensure!(answers.remove(key) == expected, "key {key}: the scan does not say {expected:?}");
        let looked_up = rows(client, &format!("SELECT {features} FROM {name} WHERE k = '{key}'")).await?;
        let looked_up: Vec<Vec<&str>> =
            looked_up.iter().map(|row| (0..row.len()).map(|i| text(row, i)).collect()).collect();
        let expected: Vec<Vec<&str>> = expected.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        ensure!(looked_up == expected, "key {key}: a lookup says {looked_up:?}, it is {expected:?}");
    }
    ensure!(answers.is_empty(), "keys that nobody sent: {answers:?}");
    Ok(())
}

/// The same once more by the server's own SQL over the source.
async fn by_sql(client: &Client) -> Result<()> {
    let recomputed = "SELECT k, count(*) FILTER (WHERE at >= now - INTERVAL '30 seconds') AS n, \
                        sum(amount) FILTER (WHERE at >= now - INTERVAL '30 seconds') AS total, \
                        max(price) FILTER (WHERE at >= now - INTERVAL '30 seconds') AS highest \
                      FROM events, (SELECT max(at) AS now FROM events) WHERE price < 90 AND k IS NOT NULL GROUP BY k";
    let served = "SELECT k, n, total, highest FROM recent";
    for (a, b) in [(recomputed, served), (served, recomputed)] {
        let different = rows(client, &format!("SELECT * FROM ({a}) a EXCEPT SELECT * FROM ({b}) b")).await?;
        ensure!(different.is_empty(), "recent differs from SQL over the source: {different:?}");
    }
    Ok(())
}

/// Every step below the frontier, once, and no other.
async fn history(client: &Client, view: &View, name: &str, events: &[Event]) -> Result<usize> {
    let frontier_us = reference::frontier_us(events);
    let sql = format!("SELECT k, at, _op, {} FROM history.{name} ORDER BY k, at", view.features.join(", "));
    let mut there: BTreeMap<String, Vec<(i64, String, Vec<String>)>> = BTreeMap::new();
    for row in rows(client, &sql).await? {
        let values = (3..row.len()).map(|i| text(&row, i).to_owned()).collect();
        let step = (microseconds(text(&row, 1))?, text(&row, 2).to_owned(), values);
        there.entry(text(&row, 0).to_owned()).or_default().push(step);
    }
    let mut count = 0;
    for (key, events) in view.by_key(events) {
        let expected = view.steps(&events, frontier_us);
        let there = there.remove(key).unwrap_or_default();
        if let Some(twice) = there.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            bail!("key {key} has two steps at {}: {twice:?}", events::instant(twice[0].0));
        }
        for i in 0..expected.len().max(there.len()) {
            let same = match (expected.get(i), there.get(i)) {
                (Some(Step { at_us, op, values }), Some((at, is, has))) => {
                    at_us == at && op == is && (*op == "delete" || values == has)
                }
                _ => false,
            };
            ensure!(
                same,
                "key {key}, step {i} of {}: should be {:?}, is {:?}; frontier {}",
                expected.len(),
                expected.get(i),
                there.get(i),
                events::instant(frontier_us)
            );
        }
        count += expected.len();
    }
    ensure!(there.is_empty(), "steps of keys that nobody sent: {:?}", there.keys());
    Ok(count)
}
