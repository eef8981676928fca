//! What the engine relies on in a topic, against a real broker: every record once, in order within its partition, from any
//! offset on, with where it came from; nothing that was aborted; and errors that say what is wrong.

use crate::broker::{Broker as Server, Sent};
use anyhow::{Context, Result, ensure};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidemark_catalog::{ClockMode, Column, Include, Relation, SqlType};
use tidemark_connectors::kafka::{Broker, KafkaError, Kind, Options, Reader};
use tidemark_engine::seam::{Run, Undecoded};

/// For a broker and two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);
const NOW_US: i64 = 1_793_534_400_000_000;

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_string(), ty, not_null: false, comment: None }
}

fn relation(columns: Vec<Column>, options: &[(&str, &str)]) -> Relation {
    let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Relation {
        columns,
        primary_key: vec![],
        upsert: false,
        encode: Default::default(),
        event_time: None,
        delay_us: 0,
        clock: ClockMode::Event,
        max_ahead_us: 0,
        idle_timeout_us: 0,
        retention_us: None,
        dead_letter_retention_us: None,
        includes: vec![],
        layout: Default::default(),
        options: options.chain([("connector".to_string(), "kafka".to_string())]).collect(),
        sql: String::new(),
    }
}

/// A source with one column, `n`.
fn numbers(server: &Server, topic: &str, more: &[(&str, &str)]) -> Relation {
    let address = server.address();
    let options = [("topic", topic), ("properties.bootstrap.server", &address)];
    relation(vec![column("n", SqlType::Int8)], &[&options, more].concat())
}

fn number(partition: i32, n: usize) -> Sent {
    Sent::to(partition, format!("{{\"n\": {n}}}"))
}

/// All that has been read: by partition and offset.
#[derive(Debug, Default)]
struct Read {
    numbers: BTreeMap<(u32, u64), i64>,
    undecoded: Vec<Undecoded>,
    next: BTreeMap<u32, u64>,
    batches: Vec<RecordBatch>,
    append_us: BTreeMap<(u32, u64), i64>,
    /// The offsets of rows that are deletes.
    deletes: Vec<u64>,
    errors: Vec<String>,
}

/// Reads from there until every partition has been read to its end.
async fn read(relation: &Relation, from: &BTreeMap<u32, u64>) -> Result<Read> {
    let options = Arc::new(Options::of(relation)?);
    let mut reader = Reader::new(options, relation.schema())?;
    reader.assign(from)?;
    let mut read = Read::default();
    tokio::time::timeout(PATIENCE, read_to_end(&mut reader, from, &mut read)).await.context("it does not come")??;
    ensure!(read.errors.is_empty(), "{:?}", read.errors);
    Ok(read)
}

async fn read_to_end(reader: &mut Reader, from: &BTreeMap<u32, u64>, read: &mut Read) -> Result<()> {
    let mut ended = BTreeMap::new();
    while ended.len() < from.len() {
        let came = reader.next(|| NOW_US).await?;
        read.errors.extend(came.errors.into_iter().map(|(_, _, text)| text));
        if let Some(batch) = came.batch {
            let places = (0..batch.rows.num_rows()).map(|row| place(&batch.origin.runs, row));
            for (row, (partition, offset, append_us)) in places.enumerate() {
                if *batch.rows.column(0).data_type() == DataType::Int64 {
                    let n = batch.rows.column(0).as_primitive::<Int64Type>().value(row);
                    ensure!(read.numbers.insert((partition, offset), n).is_none(), "{partition}:{offset} comes twice");
                }
                read.append_us.insert((partition, offset), append_us);
            }
            let deleted = |row: &u32| place(&batch.origin.runs, *row as usize).1;
            read.deletes.extend(batch.deletes.iter().map(deleted));
            for taken in &batch.origin.taken {
                let before = read.next.insert(taken.partition, taken.next);
                ensure!(before.is_none_or(|before| before < taken.next), "offsets go back");
            }
            read.undecoded.extend(batch.origin.undecoded);
            read.batches.push(batch.rows);
        }
        ended.extend(came.ends);
    }
    Ok(())
}

fn place(runs: &[Run], row: usize) -> (u32, u64, i64) {
    let run = runs.iter().rev().find(|run| run.row as usize <= row).expect("every row is in a run");
    (run.partition, run.offset + row as u64 - u64::from(run.row), run.append_us)
}

fn start(relation: &Relation) -> Result<BTreeMap<u32, u64>, KafkaError> {
    Broker::new(Arc::new(Options::of(relation)?))?.start()
}

/// Message and hint of a refusal.
fn refusal(relation: &Relation) -> (Kind, String) {
    let error = start(relation).expect_err("a refusal");
    (error.kind, format!("{} ({})", error.message, error.hint.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_what_the_engine_relies_on() -> Result<()> {
    let Some(server) = Server::start()? else {
        crate::skipped("no jars of Kafka in tests/services/.kafka; scripts/setup.sh test fetches them");
        return Ok(());
    };
    every_record_comes_once_and_from_any_offset_on(&server).await.context("offsets")?;
    a_source_begins_where_it_is_told(&server).await.context("start")?;
    what_was_aborted_is_never_seen(&server).await.context("transactions")?;
    every_compression_is_read(&server).await.context("compression")?;
    what_is_no_row_is_kept_with_its_place(&server).await.context("undecoded")?;
    a_message_without_a_value_tells_which_row_goes(&server).await.context("upsert")?;
    what_the_broker_knows_of_a_message_can_be_columns(&server).await.context("include")?;
    what_cannot_be_read_is_refused_with_the_reason(&server).await.context("refusals")?;
    reading_goes_on_when_the_broker_comes_back(&server).await.context("kill")
}

async fn every_record_comes_once_and_from_any_offset_on(server: &Server) -> Result<()> {
    const EACH: usize = 20_000;
    server.create_topic("many", 3, &[]).await?;
    server.send("many", (0..3 * EACH).map(|n| number((n % 3) as i32, n)))?;
    let source = numbers(server, "many", &[]);
    let begin: BTreeMap<u32, u64> = [(0, 0), (1, 0), (2, 0)].into();
    assert_eq!(start(&source)?, begin);
    for from in [begin, [(0, 7), (1, 19_999), (2, 20_000)].into()] {
        let read = read(&source, &from).await?;
        let expected =
            (0..3u32).flat_map(|partition| (from[&partition]..EACH as u64).map(move |offset| (partition, offset)));
        let expected: BTreeMap<_, _> = expected
            .map(|(partition, offset)| ((partition, offset), offset as i64 * 3 + i64::from(partition)))
            .collect();
        ensure!(read.numbers == expected, "{} records of {}", read.numbers.len(), expected.len());
        // The time of reading, where the topic has that of its writers.
        ensure!(read.append_us.values().all(|us| *us == NOW_US));
    }
    Ok(())
}

async fn a_source_begins_where_it_is_told(server: &Server) -> Result<()> {
    server.create_topic("times", 2, &[]).await?;
    let at = |partition, n: usize, timestamp_ms| Sent { timestamp_ms: Some(timestamp_ms), ..number(partition, n) };
    server.send("times", [at(0, 0, 1000), at(0, 1, 2000), at(0, 2, 3000), at(1, 3, 1500)])?;
    let begins = |options: &[(&str, &str)]| start(&numbers(server, "times", options));
    let mode = "scan.startup.mode";
    assert_eq!(begins(&[])?, [(0, 0), (1, 0)].into());
    assert_eq!(begins(&[(mode, "latest")])?, [(0, 3), (1, 1)].into());
    let time = |millis| begins(&[(mode, "timestamp"), ("scan.startup.timestamp.millis", millis)]);
    assert_eq!(time("1501")?, [(0, 1), (1, 1)].into());
    assert_eq!(time("1500")?, [(0, 1), (1, 0)].into());
    let offsets = |offsets| [(mode, "specific-offsets"), ("scan.startup.specific-offsets", offsets)];
    assert_eq!(begins(&offsets("partition:0,offset:2"))?, [(0, 2), (1, 0)].into());
    let refused = |text| refusal(&numbers(server, "times", &offsets(text)));
    assert_eq!(
        refused("partition:0,offset:4"),
        (
            Kind::Options,
            "partition 0 of topic \"times\" has no offset 4 (its records have offsets from 0, the next is 3)".into()
        )
    );
    assert_eq!(
        refused("partition:2,offset:0"),
        (Kind::Options, "topic \"times\" has no partition 2 (it has 2)".into())
    );
    Ok(())
}

async fn what_was_aborted_is_never_seen(server: &Server) -> Result<()> {
    server.create_topic("transactions", 1, &[]).await?;
    for (first, commit) in [(0, true), (10, false), (20, true), (30, false)] {
        let messages: Vec<Sent> = (first..first + 3).map(|n| number(0, n)).collect();
        server.send_in_transaction("transactions", &messages, commit)?;
    }
    let source = numbers(server, "transactions", &[]);
    let from = [(0, 0)].into();
    let read = read(&source, &from).await?;
    assert_eq!(read.numbers.values().copied().collect::<Vec<_>>(), [0, 1, 2, 20, 21, 22]);
    // The marks of the transactions take up offsets: the end lies behind the last of them.
    let broker = Broker::new(Arc::new(Options::of(&source)?))?;
    assert_eq!(broker.range(0)?, (0, 16));
    assert_eq!(read.next, [(0, 11)].into());
    Ok(())
}

async fn every_compression_is_read(server: &Server) -> Result<()> {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        server.create_topic(codec, 1, &[("compression.type", codec)]).await?;
        server.send(codec, (0..500).map(|n| number(0, n)))?;
        let read = read(&numbers(server, codec, &[]), &[(0, 0)].into()).await.context(codec)?;
        assert_eq!(read.numbers.values().copied().collect::<Vec<_>>(), (0..500).collect::<Vec<i64>>(), "{codec}");
    }
    Ok(())
}

async fn what_is_no_row_is_kept_with_its_place(server: &Server) -> Result<()> {
    server.create_topic("broken", 1, &[("message.timestamp.type", "LogAppendTime")]).await?;
    let payloads: [&[u8]; 5] = [b"{\"n\": 0}", b"{\"n\": ", b"{\"n\": \"x\"}", b"\xff\x00", b"{\"n\": 4}"];
    let tombstone = Sent { payload: None, ..Sent::default() };
    server.send("broken", payloads.map(|payload| Sent::to(0, payload)).into_iter().chain([tombstone]))?;
    let read = read(&numbers(server, "broken", &[]), &[(0, 0)].into()).await?;
    assert_eq!(read.numbers, [((0, 0), 0), ((0, 4), 4)].into());
    let undecoded: Vec<_> = read.undecoded.iter().map(|m| (m.offset, m.error.as_str(), m.payload.as_str())).collect();
    assert_eq!(
        undecoded,
        [
            (1, "not JSON: it ends at byte 6, in the middle", "{\"n\": "),
            (2, "column \"n\": \"x\" is no bigint", "{\"n\": \"x\"}"),
            (3, "not JSON: invalid utf-8 sequence of 1 bytes from index 0", "\\xff00"),
            (5, "a message without a value is no row of FORMAT PLAIN", "null"),
        ]
    );
    // The broker's time, as the topic has it: that of the test, not that of reading.
    ensure!(read.append_us.values().all(|us| *us != NOW_US && *us % 1000 == 0));
    Ok(())
}

async fn a_message_without_a_value_tells_which_row_goes(server: &Server) -> Result<()> {
    server.create_topic("upserts", 1, &[]).await?;
    let message = |key: &str, payload: Option<&str>| Sent {
        key: Some(key.as_bytes().to_vec()),
        payload: payload.map(|payload| payload.as_bytes().to_vec()),
        ..Sent::default()
    };
    let messages = [
        message("any", Some("{\"n\": 1, \"name\": \"a\"}")),
        message("2", None),
        message("{\"n\": 3, \"name\": 4}", None),
        message("four", None),
        Sent::default(),
    ];
    server.send("upserts", messages)?;
    let mut table = numbers(server, "upserts", &[]);
    table.columns.push(column("name", SqlType::Text));
    table.columns.iter_mut().for_each(|column| column.not_null = true);
    (table.primary_key, table.upsert) = (vec![0], true);
    let read = read(&table, &[(0, 0)].into()).await?;
    assert_eq!(read.numbers, [((0, 0), 1), ((0, 1), 2), ((0, 2), 3)].into());
    assert_eq!(read.deletes, [1, 2]);
    let undecoded: Vec<_> = read.undecoded.iter().map(|m| (m.offset, m.error.as_str())).collect();
    assert_eq!(
        undecoded,
        [
            (3, "column \"n\" in the key: \"four\" is no bigint"),
            (4, "a message without a value and a key deletes nothing"),
        ]
    );
    Ok(())
}

async fn what_the_broker_knows_of_a_message_can_be_columns(server: &Server) -> Result<()> {
    server.create_topic("known", 2, &[]).await?;
    let message = Sent {
        key: Some(b"k1".to_vec()),
        timestamp_ms: Some(1_793_534_400_001),
        header: Some(("trace", b"t1".to_vec())),
        ..number(1, 5)
    };
    let no_text = Sent { key: Some(vec![0xff]), ..number(1, 6) };
    server.send("known", [message, no_text, Sent { timestamp_ms: Some(1), ..number(1, 7) }])?;
    let mut source = numbers(server, "known", &[]);
    let included = [
        ("k", SqlType::Text, Include::Key),
        ("trace", SqlType::Bytea, Include::Header("trace".into())),
        ("at", SqlType::TimestampTz, Include::Timestamp),
        ("p", SqlType::Int4, Include::Partition),
        ("o", SqlType::Int8, Include::Offset),
    ];
    for (name, ty, include) in included {
        source.includes.push((source.columns.len(), include));
        source.columns.push(column(name, ty));
    }
    let read = read(&source, &[(1, 0)].into()).await?;
    let shown = arrow::util::pretty::pretty_format_batches(&read.batches)?.to_string();
    let shown: Vec<&str> = shown.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(
        shown,
        [
            "| 5 | k1 | 7431  | 2026-11-01T12:00:00.001Z | 1 | 0 |",
            "| 7 |    |       | 1970-01-01T00:00:00.001Z | 1 | 2 |",
        ]
    );
    assert_eq!(read.undecoded.len(), 1);
    let error = &read.undecoded[0].error;
    ensure!(error.starts_with("the key is no text (") && error.ends_with("of column \"k\""), "{error}");
    ensure!(read.batches.iter().all(|batch| batch.column(1).null_count() <= 1));
    Ok(())
}

async fn what_cannot_be_read_is_refused_with_the_reason(server: &Server) -> Result<()> {
    let (kind, said) = refusal(&numbers(server, "nowhere", &[]));
    assert_eq!(kind, Kind::NoTopic);
    assert_eq!(
        said,
        format!("topic \"nowhere\" does not exist (create it on {}, or correct its name)", server.address())
    );
    let (kind, said) = refusal(&numbers(server, "many", &[("properties.colour", "red")]));
    assert_eq!(kind, Kind::Options);
    ensure!(said.starts_with("option \"properties.colour\": No such configuration property"), "{said}");
    let (kind, said) = refusal(&numbers(server, "many", &[("properties.fetch.max.bytes", "much")]));
    assert_eq!(kind, Kind::Options);
    ensure!(said.starts_with("option \"properties.fetch.max.bytes\": "), "{said}");
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (free, topic) = (free.to_string(), ("topic", "many"));
    let (kind, said) =
        refusal(&relation(vec![column("n", SqlType::Int8)], &[topic, ("properties.bootstrap.server", &free)]));
    assert_eq!(kind, Kind::Unreachable);
    ensure!(said.starts_with(&format!("no Kafka broker answers at {free}: ")) && said.contains("refused"), "{said}");
    Ok(())
}

async fn reading_goes_on_when_the_broker_comes_back(server: &Server) -> Result<()> {
    server.create_topic("killed", 1, &[]).await?;
    server.send("killed", (0..10).map(|n| number(0, n)))?;
    let source = numbers(server, "killed", &[]);
    let mut reader = Reader::new(Arc::new(Options::of(&source)?), source.schema())?;
    let from: BTreeMap<u32, u64> = [(0, 0)].into();
    reader.assign(&from)?;
    let mut read = Read::default();
    tokio::time::timeout(PATIENCE, read_to_end(&mut reader, &from, &mut read)).await??;
    assert_eq!(read.numbers.len(), 10);
    server.kill()?;
    server.again()?;
    server.send("killed", (10..20).map(|n| number(0, n)))?;
    let rest = async {
        while read.numbers.len() < 20 {
            read_to_end(&mut reader, &from, &mut read).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, rest).await.context("it does not come back")??;
    assert_eq!(read.numbers.values().copied().collect::<Vec<_>>(), (0..20).collect::<Vec<i64>>());
    Ok(())
}
