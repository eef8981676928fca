//! COPY in and out: text, CSV and binary, large and cut anywhere; given up and failed.

use crate::server::{Folder, Server, shown, value};
use anyhow::{Context, Result, bail, ensure};
use arrow::array::AsArray;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::{SinkExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::pin::pin;
use tokio_postgres::{
    Client,
    binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
    types::Type,
};

const ROWS: i64 = 20_000;

async fn send(client: &Client, sql: &str, data: &[u8], piece: usize) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in(sql).await?;
    let mut sink = pin!(sink);
    for part in data.chunks(piece) {
        sink.feed(Bytes::copy_from_slice(part)).await?;
    }
    sink.finish().await
}

async fn receive(client: &Client, sql: &str) -> Result<BytesMut> {
    let stream = client.copy_out(sql).await.with_context(|| sql.to_owned())?;
    let add = |mut all: BytesMut, piece: Bytes| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    };
    stream.try_fold(BytesMut::new(), add).await.with_context(|| sql.to_owned())
}

#[tokio::test]
async fn what_goes_in_by_copy_comes_out_the_same_in_every_format() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let text: String = (0..ROWS)
        .map(|n| match n % 7 {
            0 => format!("{n}\t\\N\t\\N\t2026-03-02 10:00:00+00\n"),
            k => format!("{n}\t{}\tname {k}, \"{n}\"\t2026-03-02 10:00:00.{k}+00\n", n as f64 / 4.0),
        })
        .collect();
    client.batch_execute("CREATE TABLE a (n BIGINT, x DOUBLE PRECISION, t TEXT, at TIMESTAMPTZ)").await?;
    ensure!(send(&client, "COPY a FROM STDIN", text.as_bytes(), 1_001).await? == ROWS as u64);
    let out = receive(&client, "COPY (SELECT * FROM a ORDER BY n) TO STDOUT").await?;
    ensure!(out == text.as_bytes(), "text differs after {} bytes", same(&out, text.as_bytes()));
    for format in ["csv", "binary"] {
        let out = receive(&client, &format!("COPY (SELECT * FROM a ORDER BY n) TO STDOUT (FORMAT {format})")).await?;
        client.batch_execute("CREATE TABLE b (n BIGINT, x DOUBLE PRECISION, t TEXT, at TIMESTAMPTZ)").await?;
        let sent = send(&client, &format!("COPY b FROM STDIN (FORMAT {format})"), &out, 777).await;
        ensure!(sent.with_context(|| format.to_owned())? == ROWS as u64);
        let again = receive(&client, "COPY (SELECT * FROM b ORDER BY n) TO STDOUT").await?;
        ensure!(again == text.as_bytes(), "{format} differs after {} bytes", same(&again, text.as_bytes()));
        client.batch_execute("DROP TABLE b").await?;
    }
    Ok(())
}

#[tokio::test]
async fn rows_that_a_source_does_not_admit_are_told_in_one_notice_with_counts() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (client, mut connection) = server.config().connect(tokio_postgres::NoTls).await?;
    let (told, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                let _ = told.send(notice.message().to_owned());
            }
        }
    });
    let create = "CREATE SOURCE s (k BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at) WITH (clock = 'event')";
    client.batch_execute(create).await?;
    // More than one chunk of a source: every third row is late, every fifth but one of those has no time.
    let rows = 100_000;
    let line = |n: i64| match (n % 3, n % 5) {
        (_, 4) => format!("{n}\t\\N\n"),
        (2, _) => format!("{n}\t2026-03-02 09:00:00+00\n"),
        _ => format!("{n}\t2026-03-02 10:00:00+00\n"),
    };
    let text: String = (0..rows).map(line).collect();
    ensure!(send(&client, "COPY s FROM STDIN", text.as_bytes(), 60_000).await? == rows as u64);
    let admitted: u64 = value(&client, "SELECT count(*) FROM s").await?.context("a count")?.parse()?;
    let late = (0..rows).filter(|n| n % 3 == 2 && n % 5 != 4).count();
    let timeless = (0..rows).filter(|n| n % 5 == 4).count();
    ensure!(admitted as usize + late + timeless == rows as usize, "{admitted} rows were admitted");
    let notice = notices.recv().await.context("no notice came")?;
    let expected = format!(
        "{} of {rows} rows were not admitted to \"s\" ({late} late, {timeless} event_time): see tidemark.dead_letters",
        late + timeless
    );
    ensure!(notice == expected, "{notice}");
    // All were admitted: nothing is said.
    ensure!(send(&client, "COPY s FROM STDIN", b"1\t2026-03-02 10:00:00+00\n", 100).await? == 1);
    client.batch_execute("SELECT 1").await?;
    ensure!(notices.try_recv().is_err(), "a second notice");
    Ok(())
}

fn same(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[tokio::test]
async fn the_drivers_own_binary_copy_works() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute("CREATE TABLE a (n BIGINT, yes BOOLEAN, t TEXT, at TIMESTAMPTZ)").await?;
    let types = [Type::INT8, Type::BOOL, Type::TEXT, Type::TIMESTAMPTZ];
    let at = DateTime::<Utc>::from_timestamp_micros(1_772_445_600_000_001).unwrap_or_default();
    let sink = client.copy_in("COPY a FROM STDIN BINARY").await?;
    let writer = BinaryCopyInWriter::new(sink, &types);
    let mut writer = pin!(writer);
    for n in 0..100i64 {
        writer.as_mut().write(&[&n, &(n % 2 == 0), &(n % 3 == 0).then_some("three"), &at]).await?;
    }
    ensure!(writer.finish().await? == 100);
    let stream = client.copy_out("COPY a TO STDOUT (FORMAT binary)").await?;
    let rows: Vec<_> = pin!(BinaryCopyOutStream::new(stream, &types)).try_collect().await?;
    ensure!(rows.len() == 100);
    for row in rows {
        let (n, yes, t, read): (i64, bool, Option<&str>, DateTime<Utc>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        ensure!((yes, t, read) == (n % 2 == 0, (n % 3 == 0).then_some("three"), at), "row {n}");
    }
    Ok(())
}

#[tokio::test]
async fn a_copy_that_is_given_up_or_fails_leaves_nothing_and_the_session_goes_on() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute("CREATE TABLE a (n BIGINT)").await?;
    // Many rows, so that the error comes while the client still sends.
    let mut data: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    data.insert(1_000, 'x');
    let Err(error) = send(&client, "COPY a FROM STDIN", data.as_bytes(), 8_192).await else { bail!("it went in") };
    ensure!(error.code().is_some_and(|code| code.code() == "22P02"), "{}", shown(&error));
    ensure!(shown(&error).contains("COPY a, line"), "{}", shown(&error));
    ensure!(value(&client, "SELECT count(*) FROM a").await?.as_deref() == Some("0"));
    {
        let sink = client.copy_in("COPY a FROM STDIN").await?;
        let mut sink = pin!(sink);
        sink.send(Bytes::from_static(b"1\n2\n")).await?;
        // Dropped without finish: the driver sends CopyFail.
    }
    ensure!(value(&client, "SELECT count(*) FROM a").await?.as_deref() == Some("0"));
    // The client vanishes in the middle.
    let gone = server.connect().await?;
    let sink = gone.copy_in("COPY a FROM STDIN").await?;
    let mut sink = Box::pin(sink);
    sink.send(Bytes::from_static(b"1\n2\n")).await?;
    drop(sink);
    drop(gone);
    ensure!(send(&client, "COPY a FROM STDIN", b"7\n", 1).await? == 1);
    ensure!(value(&client, "SELECT sum(n) FROM a").await?.as_deref() == Some("7"));
    Ok(())
}

#[tokio::test]
async fn a_training_set_is_written_to_parquet_on_the_servers_side() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let file = folder.path().join("train.parquet");
    let sql =
        format!("COPY (SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL) TO '{}' (FORMAT parquet)", file.display());
    ensure!(client.execute(&sql, &[]).await.with_context(|| sql.clone())? == 2);
    let bytes = std::fs::read(&file)?;
    ensure!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let interval = folder.path().join("interval.parquet");
    let values = "(1, INTERVAL '1 month 2 days 3.000001 seconds'), (2, NULL)";
    let sql =
        format!("COPY (SELECT n, i FROM (VALUES {values}) AS t (n, i)) TO '{}' (FORMAT parquet)", interval.display());
    ensure!(client.execute(&sql, &[]).await.with_context(|| sql.clone())? == 2);
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&interval)?)?.build()?;
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<_> = batches.iter().flat_map(|b| b.column(1).as_string::<i32>().iter()).collect();
    ensure!(texts == [Some("1 mon 2 days 00:00:03.000001"), None], "{texts:?}");
    for (query, sqlstate, named) in [
        ("SELECT 1 AS a, 2 AS a", "42701", "column \"a\" specified more than once"),
        ("SELECT ARRAY[INTERVAL '1 day'] AS a", "0A000", "column \"a\" cannot be written to Parquet"),
    ] {
        let sql = format!("COPY ({query}) TO '{}' (FORMAT parquet)", interval.display());
        let Err(error) = client.execute(&sql, &[]).await else { bail!("{sql} was written") };
        let right = error.code().is_some_and(|code| code.code() == sqlstate) && shown(&error).contains(named);
        ensure!(right, "{}", shown(&error));
    }
    let bad = "COPY (SELECT 1 AS a) TO '/nowhere/at/all.parquet' (FORMAT parquet)";
    let Err(error) = client.execute(bad, &[]).await else { bail!("it was written") };
    ensure!(error.as_db_error().is_some() && shown(&error).contains("/nowhere/at/all.parquet"), "{}", shown(&error));
    Ok(())
}
