//! INSERT and COPY into a topic: in it when the statement returns, and read back as what was written.

use crate::{
    PATIENCE, broker,
    broker::Broker,
    comes, refused, run,
    server::{Folder, Server},
    shared_broker,
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::SinkExt;
use std::time::Instant;
use tokio_postgres::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_inserted_is_in_the_topic() -> Result<()> {
    let Some(broker) = broker()? else { return Ok(()) };
    let folder = Folder::new()?;
    let outcome = all(&broker, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn all(broker: &Broker, folder: &Folder) -> Result<()> {
    let server = Server::start(folder).await?;
    let client = server.connect().await?;
    rows_go_out_and_come_back(broker, &client).await.context("insert")?;
    copy_goes_out_by_chunks(&client).await.context("copy")?;
    a_topic_that_was_deleted_is_said_to_be_missing(broker, &client).await.context("deleted")?;
    a_broker_that_is_away_is_an_error_that_says_what_is_in(broker, &client).await.context("away")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_back_in_every_format_and_by_key() -> Result<()> {
    let Some(broker) = shared_broker()? else { return Ok(()) };
    let folder = Folder::new()?;
    let outcome = in_every_format(&broker, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn in_every_format(broker: &Broker, folder: &Folder) -> Result<()> {
    let server = Server::start(folder).await?;
    let client = server.connect().await?;
    every_format_is_written_as_it_is_read(broker, &client).await.context("formats")?;
    a_key_that_is_two_columns_is_written_from_either(broker, &client).await.context("two columns")?;
    a_table_is_written_by_key(broker, &client).await.context("table")
}

fn with(broker: &Broker, topic: &str) -> String {
    format!("connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{}'", broker.address())
}

async fn rows_go_out_and_come_back(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("made", 3, &[]).await?;
    let with = with(broker, "made");
    run(
        client,
        &format!(
            "CREATE SOURCE made (user_id BIGINT NOT NULL, price NUMERIC(10,2), at TIMESTAMPTZ)
             INCLUDE key TEXT AS k INCLUDE header 'trace' TEXT AS trace INCLUDE partition AS p INCLUDE offset AS o
             INCLUDE timestamp AS sent
             WITH ({with}, json.timestamp = 'ms', json.path.user_id = 'user.id') FORMAT PLAIN ENCODE JSON"
        ),
    )
    .await?;
    // Rows of one key are in one partition, in their order.
    run(
        client,
        "INSERT INTO made (trace, k, at, price, user_id)
         VALUES ('t1', 'a', '2026-11-01 12:00:00.001001+00', 2.50, 1), (NULL, 'a', NULL, NULL, 2)",
    )
    .await?;
    run(client, "FLUSH").await?;
    comes(
        client,
        "SELECT user_id, price, at, k, trace, o, sent IS NULL FROM made ORDER BY user_id",
        "1 | 2.50 | 2026-11-01 12:00:00.001001+00 | a | t1 | 0 | f\n2 | NULL | NULL | a | NULL | 1 | f",
    )
    .await?;
    comes(client, "SELECT count(DISTINCT p) FROM made", "1").await?;
    // Without a list: the columns that can be written.
    run(client, "INSERT INTO made SELECT 3, 1, NULL, 'b', 't'").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT user_id, price, k, trace FROM made WHERE k = 'b'", "3 | 1.00 | b | t").await?;
    for (column, what) in [("p", "partition"), ("o", "offset"), ("sent", "timestamp")] {
        let message =
            format!("428C9: column \"{column}\" of source \"made\" cannot be written: it is the message's {what}");
        refused(client, &format!("INSERT INTO made (user_id, {column}) VALUES (4, NULL)"), &message).await?;
        refused(client, &format!("COPY made (user_id, {column}) FROM STDIN"), &message).await?;
    }
    refused(client, "INSERT INTO made (price) VALUES (1)", "23502: null value in column \"user_id\"").await?;
    let infinite = "22023: source \"made\": column \"at\": an infinite time cannot be written (detail: 0 of 1 rows";
    let returning = "0A000: RETURNING is not supported for source \"made\" (hint: its rows go to a topic";
    refused(client, "INSERT INTO made (user_id) VALUES (4) RETURNING user_id", returning).await?;
    refused(client, "INSERT INTO made (user_id, at) VALUES (4, 'infinity')", infinite).await
}

async fn a_key_that_is_two_columns_is_written_from_either(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("twice", 1, &[]).await?;
    let with = with(broker, "twice");
    let create = format!(
        "CREATE SOURCE twice (n BIGINT) INCLUDE key TEXT AS k INCLUDE key AS raw WITH ({with}) FORMAT PLAIN ENCODE JSON"
    );
    run(client, &create).await?;
    run(client, "INSERT INTO twice (n, k) VALUES (1, 'a')").await?;
    run(client, "INSERT INTO twice (n, raw) VALUES (2, '\\x62')").await?;
    run(client, "INSERT INTO twice VALUES (3, 'c', '\\x63')").await?;
    let differ = "22023: source \"twice\": columns \"k\" and \"raw\" are both the message's key, and differ";
    refused(client, "INSERT INTO twice VALUES (4, 'd', '\\x63')", differ).await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT n, k, raw FROM twice ORDER BY n", "1 | a | \\x61\n2 | b | \\x62\n3 | c | \\x63").await?;
    run(client, "DROP SOURCE twice").await
}

async fn copy_goes_out_by_chunks(client: &Client) -> Result<()> {
    const ROWS: u64 = 70_000;
    let sink = client.copy_in("COPY made (user_id, k) FROM STDIN (FORMAT csv)").await?;
    futures::pin_mut!(sink);
    for rows in (0..ROWS).collect::<Vec<_>>().chunks(1000) {
        let lines: String = rows.iter().map(|n| format!("{},{}\n", n + 1000, n % 10)).collect();
        sink.send(Bytes::from(lines)).await?;
    }
    let copied = sink.finish().await?;
    ensure!(copied == ROWS, "{copied}");
    run(client, "FLUSH").await?;
    let expected = format!("{ROWS} | {ROWS} | {}", ROWS * 1000 + ROWS * (ROWS - 1) / 2);
    let all = "SELECT count(*), count(DISTINCT user_id), sum(user_id) FROM made WHERE user_id >= 1000";
    comes(client, all, &expected).await
}

async fn every_format_is_written_as_it_is_read(broker: &Broker, client: &Client) -> Result<()> {
    let columns = "n BIGINT, b BOOLEAN, x DOUBLE PRECISION, d NUMERIC(10,2), t TEXT, y BYTEA, day DATE, clock TIME, at TIMESTAMPTZ,
                   ts TIMESTAMP, list BIGINT[]";
    run(client, &format!("CREATE TABLE said ({columns})")).await?;
    run(
        client,
        "INSERT INTO said VALUES
           (1, true, 0.1, -12.50, 'a \"b\"; c\nd', '\\x00ff', '2026-11-01', '12:30:00.5', '2026-11-01 12:00:00.000001+00',
            '2026-11-01 12:00:00', '{1,NULL,3}'),
           (-9223372036854775807, false, 'NaN', 0.00, '', '\\x', '1970-01-01', '00:00:00', '1970-01-01 00:00:00+00', NULL, '{}'),
           (2, NULL, '-Infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .await?;
    for (name, format) in [
        ("j1", "ENCODE JSON"),
        ("c1", "ENCODE CSV"),
        ("c2", "ENCODE CSV (delimiter = ';', null = 'NULL', timestamp = 's')"),
        ("j2", "ENCODE JSON (timestamp = 'us')"),
    ] {
        broker.create_topic(name, 2, &[]).await?;
        let with = with(broker, name);
        run(client, &format!("CREATE SOURCE {name} ({columns}) WITH ({with}) FORMAT PLAIN {format}")).await?;
        run(client, &format!("INSERT INTO {name} SELECT * FROM said")).await?;
        run(client, "FLUSH").await?;
        // NaN is not equal to itself in EXCEPT; as text it is.
        let shown = |of: &str| format!("SELECT n, b, x::text, d, t, y, day, clock, at, ts FROM {of}");
        comes(client, &format!("SELECT count(*) FROM {name}"), "3").await.context(name)?;
        comes(client, &format!("SELECT * FROM ({} EXCEPT {}) d", shown("said"), shown(name)), "")
            .await
            .context(name)?;
        let lists = format!("SELECT list FROM {name} ORDER BY n");
        comes(client, &lists, "{}\n{1,NULL,3}\nNULL").await.context(name)?;
    }
    broker.create_topic("blobs", 1, &[]).await?;
    let with = with(broker, "blobs");
    run(client, &format!("CREATE SOURCE blobs (y BYTEA) INCLUDE offset AS o WITH ({with}) FORMAT PLAIN ENCODE BYTES"))
        .await?;
    run(client, "INSERT INTO blobs SELECT y FROM said WHERE y IS NOT NULL ORDER BY n DESC").await?;
    refused(client, "INSERT INTO blobs VALUES (NULL)", "column \"y\": NULL is no message of ENCODE BYTES").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT y FROM blobs ORDER BY o", "\\x00ff\n\\x").await
}

async fn a_table_is_written_by_key(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("pairs", 4, &[]).await?;
    let with = with(broker, "pairs");
    let table =
        |name: &str, columns: &str| format!("CREATE TABLE {name} ({columns}) WITH ({with}) FORMAT UPSERT ENCODE JSON");
    run(client, &table("pairs", "a BIGINT, b TEXT, n BIGINT, PRIMARY KEY (a, b)")).await?;
    run(client, "INSERT INTO pairs VALUES (1, 'x', 1), (1, 'y', 2), (1, 'x', 3)").await?;
    run(client, "INSERT INTO pairs VALUES (1, 'y', 4) ON CONFLICT (a, b) DO UPDATE SET n = excluded.n").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT a, b, n FROM pairs ORDER BY b", "1 | x | 3\n1 | y | 4").await?;
    let nothing = "INSERT INTO pairs VALUES (1, 'y', 4) ON CONFLICT DO NOTHING";
    refused(client, nothing, "0A000: ON CONFLICT DO NOTHING cannot be kept for table \"pairs\"").await
}

async fn a_topic_that_was_deleted_is_said_to_be_missing(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("gone", 1, &[]).await?;
    let with = with(broker, "gone");
    let create = format!(
        "CREATE SOURCE gone (n BIGINT) WITH ({with}, properties.message.timeout.ms = '3000') FORMAT PLAIN ENCODE JSON"
    );
    run(client, &create).await?;
    run(client, "INSERT INTO gone VALUES (1)").await?;
    broker.delete_topic("gone").await?;
    let missing = "42704: source \"gone\": topic \"gone\" does not exist";
    refused(client, "INSERT INTO gone VALUES (2)", missing).await?;
    run(client, "DROP SOURCE gone").await
}

async fn a_broker_that_is_away_is_an_error_that_says_what_is_in(broker: &Broker, client: &Client) -> Result<()> {
    run(client, "ALTER SOURCE made SET (properties.message.timeout.ms = '3000')").await?;
    run(client, "INSERT INTO made (user_id) VALUES (5)").await?;
    broker.kill()?;
    // Whoever does not wait for it is let go: what becomes of the rows nobody knows, as after any error.
    run(client, "SET statement_timeout = '200ms'").await?;
    refused(client, "INSERT INTO made (user_id) VALUES (6)", "57014: canceling statement due to statement timeout")
        .await?;
    // What only asks it can be stopped too, and the source is fed as before.
    for change in ["SET (properties.client.id = 'another')", "RESET TO LATEST"] {
        let stopped = "57014: canceling statement due to statement timeout";
        refused(client, &format!("ALTER SOURCE made {change}"), stopped).await?;
    }
    run(client, "RESET statement_timeout").await?;
    let gone = "08001: source \"made\": no Kafka broker answers at";
    refused(client, "INSERT INTO made (user_id) VALUES (6), (7)", gone).await?;
    refused(client, "INSERT INTO made (user_id) VALUES (6), (7)", "(detail: 0 of 2 rows are acknowledged").await?;
    broker.again()?;
    // It may not be all there yet; and what is given up may be there all the same.
    let started = Instant::now();
    while let Err(error) = run(client, "INSERT INTO made (user_id) VALUES (8)").await {
        ensure!(started.elapsed() < PATIENCE, "{error:#}");
    }
    run(client, "FLUSH").await?;
    comes(client, "SELECT DISTINCT user_id FROM made WHERE user_id BETWEEN 5 AND 8 ORDER BY 1", "5\n8").await
}
