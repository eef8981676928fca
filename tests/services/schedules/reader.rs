//! A reader who never stops asking, in SQL and in Redis: what it has once seen of a key it never sees older.

use super::events::KEYS;
use crate::{POLL, redis_server::RedisServer, server::rows};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering},
    },
};
use tidemark_catalog::ObjectId;
use tidemark_connectors::redis::{Address, RedisOnline};
use tidemark_engine::{
    online::OnlineRow,
    seam::{OnlineStore, PutVersion},
    value::{Value, encode_row},
};
use tokio_postgres::{Client, NoTls};

/// Where the reader finds things, and when it may stop.
#[derive(Default)]
pub struct Signs {
    /// Of the server that runs, or 0.
    pub port: AtomicU16,
    /// The id of view `ever`, or 0.
    pub view: AtomicU32,
    pub stop: AtomicBool,
}

/// The keys as Redis has them, by number.
pub fn keys() -> Vec<Bytes> {
    (0..KEYS).map(|k| Bytes::from(encode_row(&[Value::Int(k)]))).collect()
}

/// What anybody who knows the layout finds in Redis.
pub fn store(redis: &RedisServer, prefix: &str) -> Result<RedisOnline> {
    let address = Address::parse(&format!("{}?prefix={prefix}", redis.url())).map_err(anyhow::Error::msg)?;
    Ok(RedisOnline::new(address, "reader".to_string()))
}

/// A value as SQL shows it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_string(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.to_string(),
        other => format!("{other:?}"),
    }
}

/// Reads until it is told to stop; how many values it has seen in SQL and in Redis.
pub async fn read(signs: Arc<Signs>, redis: RedisOnline) -> Result<(usize, usize)> {
    let mut seen: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut versions: BTreeMap<usize, PutVersion> = BTreeMap::new();
    let mut counts: BTreeMap<usize, i64> = BTreeMap::new();
    let (mut by_sql, mut by_redis) = (0, 0);
    let mut client: Option<Client> = None;
    while !signs.stop.load(Ordering::Acquire) {
        if client.is_none() {
            client = connect(signs.port.load(Ordering::Acquire)).await;
        }
        if let Some(connected) = &client {
            match lookups(connected).await {
                Ok(found) => {
                    for (k, now) in found {
                        let before = seen.insert(k, now).unwrap_or((0, -1));
                        ensure!(
                            before.0 <= now.0 && before.1 <= now.1,
                            "a reader saw {now:?} of key {k}, and {before:?} before"
                        );
                        by_sql += 1;
                    }
                }
                // The server is gone, or not there yet.
                Err(_) => client = None,
            }
        }
        let view = signs.view.load(Ordering::Acquire);
        if view > 0 {
            // Redis may be away, or have lost everything.
            let found = redis.get_many(ObjectId(view), &keys()).await.unwrap_or_default();
            for (k, value) in found.into_iter().enumerate() {
                let Some(value) = value else { continue };
                let before = versions.insert(k, value.version);
                ensure!(
                    before.is_none_or(|before| before <= value.version),
                    "Redis showed version {:?} of key {k}, and {before:?} before",
                    value.version
                );
                let Some(row) = value.row else { continue };
                let row = OnlineRow::decode(&row).map_err(anyhow::Error::msg)?;
                let count: i64 = row.outputs.first().map(shown).context("no values")?.parse()?;
                let before = counts.insert(k, count).unwrap_or(0);
                ensure!(before <= count, "Redis showed {count} events of key {k}, and {before} before");
                by_redis += 1;
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Ok((by_sql, by_redis))
}

async fn connect(port: u16) -> Option<Client> {
    if port == 0 {
        return None;
    }
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("tidemark").dbname("tidemark");
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// How many events each key has, and the newest of them.
async fn lookups(client: &Client) -> Result<BTreeMap<i64, (i64, i64)>> {
    let mut found = BTreeMap::new();
    for k in 0..KEYS {
        let answer = rows(client, &format!("SELECT howmany, newest FROM ever WHERE k = {k}")).await?;
        let Some(row) = answer.first() else { continue };
        let number = |i: usize| -> Result<i64> { Ok(row[i].as_deref().context("NULL")?.parse()?) };
        found.insert(k, (number(0)?, number(1)?));
    }
    Ok(found)
}
