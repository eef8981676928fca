//! What `/metrics` says of a source that a topic feeds: how far it is behind, what became of its records.

use crate::{
    PATIENCE, POLL,
    broker::{Broker, Sent},
    kafka_statements::{EVENTS, create, event},
    run,
};
use anyhow::{Context, Result, ensure};
use std::time::Instant;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::Client;

pub async fn scrape(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer of HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

pub async fn a_topic_is_measured_partition_by_partition(broker: &Broker, client: &Client, http: u16) -> Result<()> {
    broker.create_topic("measured", 2, &[("message.timestamp.type", "LogAppendTime")]).await?;
    run(client, &create(broker, "measured", EVENTS, "")).await?;
    broker.send(
        "measured",
        [event(0, 1, "12:00:00"), event(1, 2, "12:00:01"), event(1, 3, "12:00:02"), Sent::to(0, "no JSON")],
    )?;
    run(client, "FLUSH").await?;
    // Late by its own partition.
    broker.send("measured", [event(1, 4, "11:00:00")])?;
    run(client, "FLUSH").await?;
    let expected = [
        "tidemark_source_rows_total{source=\"measured\"} 3",
        "tidemark_dead_letters_total{source=\"measured\",reason=\"decode\"} 1",
        "tidemark_dead_letters_total{source=\"measured\",reason=\"late\"} 1",
        "tidemark_event_to_readable_seconds_count{source=\"measured\"} 3",
        "tidemark_source_failed{source=\"measured\"} 0",
        "tidemark_source_in_trouble{source=\"measured\"} 0",
        // Where the partitions end is asked every second.
        "tidemark_source_lag_records{source=\"measured\",partition=\"0\"} 0",
        "tidemark_source_lag_records{source=\"measured\",partition=\"1\"} 0",
    ];
    let started = Instant::now();
    loop {
        let seen = scrape(http).await?;
        let missing: Vec<&str> =
            expected.into_iter().filter(|line| !seen.lines().any(|scraped| scraped == *line)).collect();
        if missing.is_empty() {
            break;
        }
        ensure!(started.elapsed() < PATIENCE, "{missing:#?} is not in\n{seen}");
        tokio::time::sleep(POLL).await;
    }
    run(client, "DROP SOURCE measured").await?;
    ensure!(!scrape(http).await?.contains("measured"), "a source that is gone is still measured");
    Ok(())
}
