//! A server with real services around it: sources fed by Kafka are the same as if its messages had been INSERTed, and Redis
//! has what lookups answer, whatever is killed meanwhile.

// The seams rule the product; a test may wait and start processes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../broker/mod.rs"]
mod broker;
#[path = "../http_proxy/mod.rs"]
mod http_proxy;
#[path = "../postgres_server/mod.rs"]
mod postgres_server;
#[path = "../redis_server/mod.rs"]
mod redis_server;
#[path = "../rest_catalog/mod.rs"]
mod rest_catalog;
#[path = "../s3_server/mod.rs"]
mod s3_server;
#[path = "../server/mod.rs"]
mod server;

mod clickstream;
mod copy_bucket;
mod kafka_secure;
mod kafka_statements;
mod kafka_tables;
mod kafka_twin;
mod kafka_writing;
mod lake_bucket;
mod lake_postgres;
mod lake_spark;
mod metrics;
mod redis;
mod redis_cluster;
mod redis_copies;
mod redis_of_views;
mod schedules;
mod serving;
mod training_tables;

use anyhow::{Context, Result, ensure};
use broker::Broker;
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

/// How long what must come may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

fn broker() -> Result<Option<Broker>> {
    found(Broker::start()?)
}

/// One that tests share which have topics of their own and do not kill it; it ends with the last of them.
fn shared_broker() -> Result<Option<Arc<Broker>>> {
    static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(broker) = shared.upgrade() {
        return Ok(Some(broker));
    }
    let started = broker()?.map(Arc::new);
    if let Some(broker) = &started {
        *shared = Arc::downgrade(broker);
    }
    Ok(started)
}

fn secure_broker() -> Result<Option<Broker>> {
    found(Broker::start_secure()?)
}

fn found(broker: Option<Broker>) -> Result<Option<Broker>> {
    if broker.is_none() {
        server::skipped("no jars of Kafka in tests/services/.kafka; scripts/setup.sh test fetches them")?;
    }
    Ok(broker)
}

/// Asks until the answer is the one that must come.
async fn comes(client: &tokio_postgres::Client, sql: &str, expected: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let rows = server::rows(client, sql).await?;
        let shown: Vec<String> = rows
            .into_iter()
            .map(|row| {
                row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" | ")
            })
            .collect();
        let shown = shown.join("\n");
        if shown == expected {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            anyhow::bail!("{sql}\nis\n{shown}\nand not\n{expected}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Runs a statement that must not do.
async fn refused(client: &tokio_postgres::Client, sql: &str, expected: &str) -> Result<()> {
    let error = client.batch_execute(sql).await.err().with_context(|| format!("not refused: {sql}"))?;
    let said = server::shown(&error);
    ensure!(said.contains(expected), "{sql}\n{said}\nand not\n{expected}");
    Ok(())
}

/// Runs statements that must do.
async fn run(client: &tokio_postgres::Client, sql: &str) -> Result<()> {
    client
        .batch_execute(sql)
        .await
        .map_err(|error| anyhow::anyhow!(server::shown(&error)))
        .with_context(|| sql.to_string())
}
