//! A topic, read by a server that is killed again and again, beside the same events INSERTed into a source of its own.

use crate::{
    PATIENCE,
    broker::{Broker, Sent},
    run,
    server::{Folder, Server, rows},
    shared_broker,
};
use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

const EVENTS: usize = 30_000;
const USERS: usize = 500;
const PARTITIONS: usize = 4;
const KILLS: usize = 3;
/// Often enough that a kill meets them.
const BACKGROUND: [&str; 4] = ["--commit-interval", "100ms", "--checkpoint-interval", "150ms"];
/// Every so many messages one is broken.
const BROKEN_EVERY: usize = 997;

/// 2026-11-01 12:00:00 UTC.
const NOON_MS: i64 = 1_793_534_400_000;

struct Event {
    user: usize,
    cents: i64,
    at_ms: i64,
}

/// In order of sending. An event lies up to five seconds behind the ones before it.
fn events() -> Vec<Event> {
    let mut chance = StdRng::seed_from_u64(5);
    (0..EVENTS)
        .map(|n| Event {
            user: chance.random_range(0..USERS),
            cents: chance.random_range(-500..10_000),
            at_ms: NOON_MS + n as i64 * 20 - chance.random_range(0..5000),
        })
        .collect()
}

fn partition(event: &Event) -> i32 {
    (event.user % PARTITIONS) as i32
}

/// The messages, and the broken ones as partition, offset and payload.
fn messages(events: &[Event]) -> (Vec<Sent>, Vec<(i32, i64, String)>) {
    let (mut messages, mut broken) = (vec![], vec![]);
    let mut next = [0i64; PARTITIONS];
    for (n, event) in events.iter().enumerate() {
        let partition = partition(event);
        let next = &mut next[partition as usize];
        if n % BROKEN_EVERY == 0 {
            let payload = format!("{{\"user\": {{\"id\": {n}}}, \"at\": \"soon\", \"price\": 1}}");
            broken.push((partition, *next, payload.clone()));
            messages.push(Sent::to(partition, payload));
            *next += 1;
        }
        messages.push(Sent::to(partition, written(event)));
        *next += 1;
    }
    (messages, broken)
}

fn price(event: &Event) -> String {
    let sign = if event.cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", event.cents.abs() / 100, event.cents.abs() % 100)
}

fn written(event: &Event) -> String {
    let Event { user, at_ms, .. } = event;
    let price = price(event);
    format!("{{\"extra\": [1], \"at\": {at_ms}, \"price\": {price}, \"user\": {{\"id\": {user}, \"name\": \"u\"}}}}")
}

const COLUMNS: &str = "user_id BIGINT NOT NULL, price NUMERIC(10,2), at TIMESTAMPTZ NOT NULL, note TEXT,
    WATERMARK FOR at AS at - INTERVAL '10 seconds'";

fn view(name: &str, source: &str) -> String {
    format!(
        "CREATE FEATURE VIEW {name} AS SELECT user_id, at, count(*) OVER m AS n, sum(price) OVER m AS spent,
           max(price) OVER last AS most, price AS last_price
         FROM {source}
         WINDOW m AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW),
                last AS (PARTITION BY user_id ORDER BY at ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)"
    )
}

async fn create(client: &Client, broker: &Broker) -> Result<()> {
    run(
        client,
        &format!(
            "CREATE SOURCE clicks ({COLUMNS}) WITH (connector = 'kafka', topic = 'clicks', clock = 'event',
               properties.bootstrap.server = '{}', json.timestamp = 'ms', json.path.user_id = 'user.id')
             FORMAT PLAIN ENCODE JSON",
            broker.address()
        ),
    )
    .await?;
    run(client, &view("by_kafka", "clicks")).await
}

/// The same events by INSERT.
async fn insert_all(client: &Client, events: &[Event]) -> Result<()> {
    run(client, &format!("CREATE SOURCE inserted ({COLUMNS}) WITH (clock = 'event')")).await?;
    for chunk in events.chunks(5000) {
        let values: Vec<String> = chunk
            .iter()
            .map(|event| {
                let at = chrono::DateTime::from_timestamp_millis(event.at_ms).unwrap_or_default();
                format!("({}, {}, '{}', NULL)", event.user, price(event), at.to_rfc3339())
            })
            .collect();
        run(client, &format!("INSERT INTO inserted VALUES {}", values.join(", "))).await?;
    }
    run(client, &view("by_insert", "inserted")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_read_through_kill_9_is_the_same_as_its_events_inserted() -> Result<()> {
    let Some(broker) = shared_broker()? else { return Ok(()) };
    let folder = Folder::new()?;
    let outcome = compare(&broker, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn compare(broker: &Broker, folder: &Folder) -> Result<()> {
    broker.create_topic("clicks", PARTITIONS as i32, &[]).await?;
    let events = events();
    let (messages, broken) = messages(&events);
    // Some are there before the source is.
    let (before, after) = messages.split_at(messages.len() / 5);
    broker.send("clicks", before.to_vec())?;
    let mut server = Server::start_with(folder, &BACKGROUND).await?;
    let client = server.connect().await?;
    create(&client, broker).await?;
    let mut chance = StdRng::seed_from_u64(7);
    for part in after.chunks(after.len().div_ceil(KILLS)) {
        let (now, meanwhile) = part.split_at(part.len() / 2);
        broker.send("clicks", now.to_vec())?;
        some_of_it(&server, chance.random_range(0..now.len() as u64)).await?;
        server.kill()?;
        broker.send("clicks", meanwhile.to_vec())?;
        server = Server::start_with(folder, &BACKGROUND).await?;
    }
    let client = server.connect().await?;
    run(&client, "FLUSH").await?;
    insert_all(&client, &events).await?;
    for relation in ["clicks", "inserted"] {
        // Ahead of every window: all steps are final.
        run(&client, &format!("ALTER SOURCE {relation} ADVANCE WATERMARK TO timestamptz '2026-11-02 00:00:00Z'"))
            .await?;
    }
    run(&client, "CHECKPOINT").await?;
    let both = |sql: &str| [sql.replace('?', "by_kafka"), sql.replace('?', "by_insert")];
    let cases = [
        "SELECT user_id, at, n, spent, most, last_price FROM ? ORDER BY user_id",
        "SELECT user_id, at, n, spent, most, last_price, _op, _event_time FROM history.? ORDER BY user_id, at",
        "SELECT user_id, n, spent FROM ? FOR SYSTEM_TIME AS OF timestamptz '2026-11-01 12:05:00.123Z' ORDER BY user_id",
    ];
    for sql in cases {
        let [by_kafka, by_insert] = both(sql);
        let (by_kafka, by_insert) = (rows(&client, &by_kafka).await?, rows(&client, &by_insert).await?);
        ensure!(by_kafka.len() >= USERS * 9 / 10, "{sql}: {} rows", by_kafka.len());
        let differs = by_kafka.iter().zip(&by_insert).find(|(a, b)| a != b);
        ensure!(by_kafka.len() == by_insert.len() && differs.is_none(), "{sql}: {differs:?}");
    }
    let sources = rows(&client, "SELECT price, at FROM clicks EXCEPT ALL SELECT price, at FROM inserted").await?;
    ensure!(sources.is_empty(), "{} rows of the topic were not inserted", sources.len());
    let counted = rows(&client, "SELECT count(*) FROM clicks").await?;
    ensure!(counted == [[Some(EVENTS.to_string())]], "{counted:?}");
    let letters =
        "SELECT partition, \"offset\", payload FROM tidemark.dead_letters WHERE object = 'clicks' AND reason = 'decode'
                   ORDER BY partition, \"offset\"";
    let mut expected: Vec<Vec<Option<String>>> = broken
        .iter()
        .map(|(p, o, payload)| vec![Some(p.to_string()), Some(o.to_string()), Some(payload.clone())])
        .collect();
    expected.sort_by_key(|row| (row[0].clone(), row[1].as_ref().and_then(|o| o.parse::<i64>().ok())));
    ensure!(rows(&client, letters).await? == expected, "the dead letters are not the broken messages");
    let others = rows(&client, "SELECT reason, error FROM tidemark.dead_letters WHERE reason <> 'decode'").await?;
    ensure!(others.is_empty(), "{others:?}");
    // An end in order, and a start that has nothing to catch up with.
    ensure!(server.terminate().await?.success(), "SIGTERM");
    let server = Server::start(folder).await?;
    let client = server.connect().await?;
    run(&client, "FLUSH").await?;
    ensure!(rows(&client, "SELECT count(*) FROM clicks").await? == counted, "a restart changes the count");
    Ok(())
}

/// Waits until the source has taken about so many more events, or all there are.
async fn some_of_it(server: &Server, more: u64) -> Result<()> {
    let client = server.connect().await?;
    let count = async || -> Result<u64> {
        let counted = rows(&client, "SELECT events FROM tidemark.pipelines WHERE name = 'clicks'").await?;
        Ok(counted[0][0].as_deref().unwrap_or("0").parse()?)
    };
    let (begin, started) = (count().await?, Instant::now());
    let lag = "SELECT coalesce(partitions::text, '') FROM tidemark.pipelines WHERE name = 'clicks'";
    while count().await? < begin + more && started.elapsed() < PATIENCE {
        let shown = rows(&client, lag).await?[0][0].clone().unwrap_or_default();
        if shown.matches("\"lag\":0").count() == PARTITIONS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
