//! What must be true after every schedule: each message once, and the same values wherever they are read.

use super::{
    events::{KEYS, Place, Stream},
    reader::{keys, shown},
    reference::{VIEWS, View, by_key, now_us},
};
use crate::{PATIENCE, POLL, run, server::rows};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};
use tidemark_catalog::ObjectId;
use tidemark_connectors::redis::RedisOnline;
use tidemark_engine::{online::OnlineRow, seam::OnlineStore};
use tokio_postgres::Client;

/// A key's row, as text.
type Row = Option<Vec<String>>;

/// Everything that was sent has been applied, and then becomes final.
pub async fn all(client: &Client, redis: &RedisOnline, stream: &Stream) -> Result<()> {
    run(client, "FLUSH").await?;
    each_message_once(client, stream).await?;
    let now_us = now_us(&stream.admitted);
    for view in &VIEWS {
        let at = |error: &str| format!("view {}, {error}", view.name);
        as_of(client, stream, view, now_us - 20_000_000).await.with_context(|| at("twenty seconds ago"))?;
        everywhere(client, redis, stream, view, now_us).await.with_context(|| at("now"))?;
    }
    // Behind all windows: every step is history.
    let end_us = now_us + 3_600_000_000;
    run(client, &format!("ALTER SOURCE events ADVANCE WATERMARK TO timestamptz '{}'", instant(end_us))).await?;
    run(client, "CHECKPOINT").await?;
    for view in &VIEWS {
        let at = |error: &str| format!("view {}, {error}", view.name);
        everywhere(client, redis, stream, view, end_us).await.with_context(|| at("when all has left"))?;
        history(client, stream, view).await.with_context(|| at("in history"))?;
    }
    Ok(())
}

fn instant(us: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

fn text(cell: &Option<String>) -> String {
    cell.clone().unwrap_or_else(|| "NULL".to_string())
}

async fn each_message_once(client: &Client, stream: &Stream) -> Result<()> {
    let mut expected: Vec<i64> = stream.admitted.iter().map(|event| event.n).collect();
    expected.sort_unstable();
    let mut found = vec![];
    for row in rows(client, "SELECT n FROM events ORDER BY n").await? {
        found.push(text(&row[0]).parse::<i64>()?);
    }
    let differs = (0..expected.len().max(found.len())).find(|i| expected.get(*i) != found.get(*i));
    ensure!(
        differs.is_none(),
        "of {} events {} are there; the first that differs: {:?}",
        expected.len(),
        found.len(),
        differs.map(|i| (expected.get(i), found.get(i)))
    );
    for (reason, expected) in [("decode", &stream.broken), ("late", &stream.late)] {
        let sql = format!(
            "SELECT partition, \"offset\" FROM tidemark.dead_letters WHERE object = 'events' AND reason = '{reason}'"
        );
        let mut found: BTreeSet<Place> = BTreeSet::new();
        for row in rows(client, &sql).await? {
            let place: Place = (text(&row[0]).parse()?, text(&row[1]).parse()?);
            ensure!(found.insert(place), "message {place:?} has two letters for {reason}");
        }
        let differing: Vec<&Place> = found.symmetric_difference(expected).collect();
        ensure!(differing.is_empty(), "letters for {reason} that are there or should be: {differing:?}");
    }
    let others = "SELECT reason, error FROM tidemark.dead_letters WHERE reason NOT IN ('decode', 'late')";
    let others = rows(client, others).await?;
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}

/// `V(k, t)` of all keys.
fn expected(stream: &Stream, view: &View, t_us: i64) -> BTreeMap<i64, Row> {
    let events = by_key(&stream.admitted);
    let of = |k: i64| events.get(&k).and_then(|events| view.at(events, t_us)).map(|(_, values)| values);
    (0..KEYS).map(|k| (k, of(k))).collect()
}

/// Keys and features as a query gives them.
async fn answered(client: &Client, sql: &str) -> Result<BTreeMap<i64, Row>> {
    let mut answered: BTreeMap<i64, Row> = (0..KEYS).map(|k| (k, None)).collect();
    for row in rows(client, sql).await? {
        let k: i64 = text(&row[0]).parse()?;
        let values = row[1..].iter().map(text).collect();
        ensure!(answered.insert(k, Some(values)) == Some(None), "key {k} is there twice, or nobody sent it: {sql}");
    }
    Ok(answered)
}

async fn as_of(client: &Client, stream: &Stream, view: &View, t_us: i64) -> Result<()> {
    let View { name, features, .. } = view;
    let sql = format!("SELECT k, {features} FROM {name} FOR SYSTEM_TIME AS OF timestamptz '{}'", instant(t_us));
    same(&answered(client, &sql).await?, &expected(stream, view, t_us))
}

fn same(found: &BTreeMap<i64, Row>, expected: &BTreeMap<i64, Row>) -> Result<()> {
    let differs = expected.iter().find(|(k, row)| found.get(*k) != Some(*row));
    ensure!(differs.is_none(), "it should be {differs:?}, and is {:?}", differs.map(|(k, _)| found.get(k)));
    Ok(())
}

/// A scan, a lookup of every key, and Redis, once that is level.
async fn everywhere(client: &Client, redis: &RedisOnline, stream: &Stream, view: &View, now_us: i64) -> Result<()> {
    let View { name, features, .. } = view;
    let expected = expected(stream, view, now_us);
    same(&answered(client, &format!("SELECT k, {features} FROM {name}")).await?, &expected).context("a scan")?;
    let mut looked_up = BTreeMap::new();
    for k in 0..KEYS {
        let found = rows(client, &format!("SELECT {features} FROM {name} WHERE k = {k}")).await?;
        ensure!(found.len() <= 1, "the lookup of key {k} has {} rows", found.len());
        looked_up.insert(k, found.first().map(|row| row.iter().map(text).collect::<Vec<String>>()));
    }
    same(&looked_up, &expected).context("lookups")?;
    let id = rows(client, &format!("SELECT '{name}'::regclass::oid")).await?;
    let id = ObjectId(text(&id[0][0]).parse()?);
    let started = Instant::now();
    loop {
        // It may be away for a moment yet, or still be filled.
        let level = in_redis(redis, id).await.and_then(|found| same(&found, &expected));
        match level {
            Ok(()) => return Ok(()),
            Err(error) => {
                ensure!(started.elapsed() < PATIENCE, "Redis is not level: {error:#}");
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn in_redis(redis: &RedisOnline, id: ObjectId) -> Result<BTreeMap<i64, Row>> {
    let mut found = BTreeMap::new();
    for (k, value) in (0..).zip(redis.get_many(id, &keys()).await?) {
        let row = value.and_then(|value| value.row).map(|row| OnlineRow::decode(&row)).transpose();
        let row = row.map_err(anyhow::Error::msg)?;
        found.insert(k, row.map(|row| row.outputs.iter().map(shown).collect()));
    }
    Ok(found)
}

/// Every step once, and no other.
async fn history(client: &Client, stream: &Stream, view: &View) -> Result<()> {
    let View { name, features, .. } = view;
    let sql = format!(
        "SELECT k, (extract(epoch FROM at) * 1000000)::bigint, _op, {features} FROM history.{name} ORDER BY k, at"
    );
    let mut found = vec![];
    for row in rows(client, &sql).await? {
        let values: Vec<String> = row[3..].iter().map(text).collect();
        ensure!(text(&row[2]) == "upsert", "a step is {row:?}");
        found.push((text(&row[0]).parse::<i64>()?, text(&row[1]).parse::<i64>()?, values));
    }
    let events = by_key(&stream.admitted);
    let steps = events
        .iter()
        .flat_map(|(k, events)| view.steps(events).into_iter().map(move |(at_us, values)| (*k, at_us, values)));
    let expected: Vec<(i64, i64, Vec<String>)> = steps.collect();
    let differs = (0..expected.len().max(found.len())).find(|i| expected.get(*i) != found.get(*i));
    ensure!(
        differs.is_none(),
        "of {} steps {} are there; the first that differs should be {:?}, and is {:?}",
        expected.len(),
        found.len(),
        differs.and_then(|i| expected.get(i)),
        differs.and_then(|i| found.get(i))
    );
    Ok(())
}
