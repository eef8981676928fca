//! Who keeps the server busy while it is killed: two writers, one that checkpoints, one that rewrites history, one that
//! creates and drops a view, and those of `beside.rs`.

use crate::{
    beside::{self, Beside},
    events,
    reference::VIEWS,
    server::{self, Server},
};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures::SinkExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use tokio_postgres::Client;

/// What is known about the batches; lives longer than the servers.
#[derive(Default)]
pub struct Ledger {
    next: AtomicU64,
    known: Mutex<Known>,
    /// Counts acknowledgements, for whoever waits for the right moment to kill.
    acknowledged: watch::Sender<u64>,
}

#[derive(Default, Clone)]
pub struct Known {
    pub acknowledged: BTreeSet<u64>,
    /// Sent when the server died: may be there, whole, or not.
    pub in_flight: BTreeSet<u64>,
    /// The greatest count of `ever` that a reader has seen, by key.
    pub seen: BTreeMap<String, u64>,
    pub beside: Beside,
}

impl Ledger {
    pub fn known(&self) -> Known {
        self.known.lock().map(|known| known.clone()).unwrap_or_default()
    }

    /// What was in flight has been found to be there, or not to be: from now on it stays so.
    pub fn settle(&self, there: &BTreeSet<u64>) {
        if let Ok(mut known) = self.known.lock() {
            let in_flight = std::mem::take(&mut known.in_flight);
            known.acknowledged.extend(in_flight.intersection(there));
        }
    }

    pub fn note(&self, change: impl FnOnce(&mut Known)) {
        if let Ok(mut known) = self.known.lock() {
            change(&mut known);
        }
    }

    /// Waits until `more` batches beyond those of now are acknowledged.
    pub async fn after(&self, more: u64) -> Result<()> {
        let mut count = self.acknowledged.subscribe();
        let target = *count.borrow() + more;
        count.wait_for(|count| *count >= target).await.context("the writers have ended")?;
        Ok(())
    }
}

/// Starts all of them; each ends when its connection does. What a server says that is still there is an error.
pub async fn start(server: &Server, ledger: &Arc<Ledger>) -> Result<Vec<tokio::task::JoinHandle<Result<()>>>> {
    let mut tasks = vec![];
    for copies in [false, true] {
        let (client, ledger) = (server.connect().await?, ledger.clone());
        tasks.push(tokio::spawn(write(client, ledger, copies)));
    }
    tasks.push(tokio::spawn(checkpoint(server.connect().await?)));
    tasks.push(tokio::spawn(maintain(server.connect().await?)));
    tasks.push(tokio::spawn(create_and_drop(server.connect().await?)));
    tasks.push(tokio::spawn(beside::tick(server.connect().await?, ledger.clone())));
    tasks.push(tokio::spawn(beside::change(server.connect().await?, ledger.clone())));
    Ok(tasks)
}

/// The error of a connection that has ended is the end; any other is one.
pub fn ended(error: tokio_postgres::Error, what: &str) -> Result<()> {
    match error.as_db_error() {
        Some(said) if said.code().code() != "57P01" => anyhow::bail!("{what}: {}", server::shown(&error)),
        _ => Ok(()),
    }
}

async fn write(client: Client, ledger: Arc<Ledger>, copies: bool) -> Result<()> {
    loop {
        let number = ledger.next.fetch_add(1, Ordering::SeqCst);
        ledger.note(|known| {
            known.in_flight.insert(number);
        });
        let sent = if copies { copy(&client, number).await } else { insert(&client, number).await };
        if let Err(error) = sent {
            return ended(error, &format!("batch {number}"));
        }
        ledger.note(|known| {
            known.in_flight.remove(&number);
            known.acknowledged.insert(number);
        });
        ledger.acknowledged.send_modify(|count| *count += 1);
        // A reader of its own writes.
        let Some(key) = events::batch(number).find_map(|event| event.key) else { continue };
        match server::rows(&client, &format!("SELECT n FROM ever WHERE k = '{key}'")).await {
            Ok(rows) => {
                let seen = rows.first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default();
                let seen = seen.parse().unwrap_or(0);
                ledger.note(|known| {
                    let before = known.seen.entry(key).or_default();
                    *before = seen.max(*before);
                });
            }
            Err(error) => {
                return match error.downcast::<tokio_postgres::Error>() {
                    Ok(error) => ended(error, "a lookup"),
                    Err(_) => Ok(()),
                };
            }
        }
    }
}

async fn insert(client: &Client, number: u64) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&events::insert_sql(number)).await
}

async fn copy(client: &Client, number: u64) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in("COPY events FROM STDIN").await?;
    let mut sink = pin!(sink);
    // In two pieces: one that ends in the middle of a row.
    let mut text = Bytes::from(events::copy_text(number));
    let rest = text.split_off(text.len() / 2);
    sink.send(text).await?;
    sink.send(rest).await?;
    sink.finish().await.map(|_| ())
}

/// Rewrites history while it is written. What is removed is older than any query here takes.
async fn maintain(client: Client) -> Result<()> {
    loop {
        for view in &VIEWS {
            for sql in
                [format!("OPTIMIZE history.{}", view.name), format!("VACUUM history.{} RETAIN '10 seconds'", view.name)]
            {
                if let Err(error) = client.batch_execute(&sql).await {
                    return ended(error, &sql);
                }
            }
        }
    }
}

async fn checkpoint(client: Client) -> Result<()> {
    loop {
        if let Err(error) = client.batch_execute("CHECKPOINT").await {
            return ended(error, "CHECKPOINT");
        }
        if let Err(error) = client.batch_execute("SELECT count(*) FROM history.recent").await {
            return ended(error, "reading history");
        }
    }
}

/// The name of the view that comes and goes.
pub const PASSING: &str = "passing";

async fn create_and_drop(client: Client) -> Result<()> {
    loop {
        for sql in [format!("DROP FEATURE VIEW IF EXISTS {PASSING}"), VIEWS[0].create_sql(PASSING)] {
            if let Err(error) = client.batch_execute(&sql).await {
                return ended(error, &sql);
            }
        }
    }
}
