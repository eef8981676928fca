//! What a user of a Kafka source types and sees: refusals, lag, late events by partition, idle partitions, new ones, a broker
//! that goes away, records that are gone.

use crate::{
    broker,
    broker::{Broker, Sent},
    comes,
    metrics::a_topic_is_measured_partition_by_partition,
    refused, run,
    server::{Folder, Server, free_port, rows},
    serving::heard,
};
use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_source_says_what_it_does() -> Result<()> {
    let Some(broker) = broker()? else { return Ok(()) };
    let folder = Folder::new()?;
    let outcome = all(&broker, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn all(broker: &Broker, folder: &Folder) -> Result<()> {
    let http = free_port()?;
    let mut server = Server::start_with(folder, &["--http", &format!("127.0.0.1:{http}")]).await?;
    let client = server.connect().await?;
    what_cannot_be_is_refused_at_once(broker, &client).await.context("refusals")?;
    lateness_is_by_partition_and_an_idle_one_holds_nobody_back(broker, &client).await.context("late")?;
    a_topic_is_measured_partition_by_partition(broker, &client, http).await.context("metrics")?;
    new_partitions_are_found(broker, &client).await.context("partitions")?;
    latest_is_decided_when_the_source_is_made(broker, &client).await.context("latest")?;
    a_broker_that_is_away_is_waited_for(broker, &client).await.context("away")?;
    records_that_are_gone_stop_the_source_and_say_so(broker, &client).await.context("gone")?;
    reading_is_set_elsewhere(broker, &client).await.context("reset")?;
    a_reset_says_what_is_read_again(broker, &server).await.context("told")?;
    server.kill()?;
    let server = Server::start(folder).await?;
    it_stays_where_it_was_set(broker, &server.connect().await?).await.context("reset, killed")
}

/// `CREATE SOURCE name (columns) INCLUDE … WITH (connector = 'kafka', topic = name, broker, options)`.
pub fn create(broker: &Broker, name: &str, columns: &str, options: &str) -> String {
    let address = broker.address();
    format!(
        "CREATE SOURCE {name} ({columns}) INCLUDE partition AS p INCLUDE offset AS o
         WITH (connector = 'kafka', topic = '{name}', properties.bootstrap.server = '{address}', clock = 'event' {options})"
    )
}

pub const EVENTS: &str = "user_id BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at - INTERVAL '10 seconds'";

pub fn event(partition: i32, user: i64, at: &str) -> Sent {
    Sent::to(partition, format!("{{\"user_id\": {user}, \"at\": \"2026-11-01T{at}Z\"}}"))
}

async fn what_cannot_be_is_refused_at_once(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("clicks", 1, &[]).await?;
    let at = |options: &str| create(broker, "clicks", "n BIGINT", options);
    let cases = [
        (create(broker, "nowhere", "n BIGINT", ""), "42704: source \"nowhere\": topic \"nowhere\" does not exist (hint: create it on"),
        (at(", scan.startup.mode = 'sometimes'"), "22023: source \"clicks\": scan.startup.mode is \"sometimes\" (hint: 'earliest'"),
        (at(", colour = 'red'"), "22023: source \"clicks\" has no option \"colour\" (hint: options are clock"),
        (at(", properties.colour = 'red'"), "22023: source \"clicks\": option \"properties.colour\": No such configuration"),
        (at(", properties.auto.offset.reset = 'latest'"), "\"properties.auto.offset.reset\" cannot be set (hint: scan.startup.mode"),
        (at(", json.path.x = 'a'"), "22023: source \"clicks\": option \"json.path.x\" names no column of the messages"),
        (at(", json.timestamp.n = 'ms'"), "option \"json.timestamp.n\" is for a timestamp, the column is bigint"),
        (create(broker, "clicks", "n INTERVAL", ""), "column \"n\": JSON has no interval (hint: declare it text"),
        (
            "CREATE TABLE t (a BIGINT) WITH (connector = 'kafka', topic = 't')".into(),
            "0A000: table \"t\" is fed by Kafka only with a PRIMARY KEY and FORMAT UPSERT (hint: a stream of events is CREATE SOURCE",
        ),
        (
            "CREATE SOURCE s (a BIGINT) WITH (connector = 'kafka', topic = 't')".into(),
            "22023: source \"s\": no broker is given (hint: WITH (…, properties.bootstrap.server",
        ),
        ("CREATE SOURCE s (a BIGINT) INCLUDE key AS k".into(), "0A000: source \"s\" has no messages to INCLUDE from"),
        (
            "CREATE SOURCE s (a BIGINT) WITH (connector = 'kafka', topic = 't', properties.bootstrap.server = '127.0.0.1:1')"
                .into(),
            "08001: source \"s\": no Kafka broker answers at 127.0.0.1:1",
        ),
    ];
    for (sql, expected) in cases {
        refused(client, &sql, expected).await?;
    }
    ensure!(rows(client, "SELECT name FROM tidemark.sources").await?.is_empty(), "something was made");
    run(client, &at("")).await?;
    refused(client, "ALTER SOURCE clicks SET (topic = 'b')", "0A000: topic of source \"clicks\" cannot be changed")
        .await?;
    run(client, "ALTER SOURCE clicks SET (properties.client.id = 'another')").await?;
    broker.send("clicks", [Sent::to(0, "{\"n\": 1}")])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT * FROM clicks", "1 | 0 | 0").await?;
    run(client, "DROP SOURCE clicks").await
}

async fn lateness_is_by_partition_and_an_idle_one_holds_nobody_back(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("late", 3, &[]).await?;
    run(client, &create(broker, "late", EVENTS, ", idle_timeout = '1 hour'")).await?;
    // Partition 0 is a quarter of an hour ahead of 1: each is late by its own time only.
    broker.send(
        "late",
        [event(0, 1, "12:15:00"), event(1, 2, "12:00:00"), event(1, 3, "12:00:05"), event(0, 4, "12:14:00")],
    )?;
    broker.send("late", [event(1, 5, "11:59:54"), event(0, 6, "12:14:50")])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT user_id FROM late ORDER BY user_id", "1\n2\n3\n6").await?;
    comes(
        client,
        "SELECT reason, partition, \"offset\", error FROM tidemark.dead_letters WHERE object = 'late' ORDER BY partition",
        "late | 0 | 1 | event time 2026-11-01 12:14:00+00 lies 50 seconds below the watermark 2026-11-01 12:14:50+00\n\
         late | 1 | 2 | event time 2026-11-01 11:59:54+00 lies 1 second below the watermark 2026-11-01 11:59:55+00",
    )
    .await?;
    // Nobody knows what partition 2 will bring.
    let frontier = "SELECT frontier FROM tidemark.sources WHERE name = 'late'";
    comes(client, frontier, "NULL").await?;
    run(client, "ALTER SOURCE late SET (idle_timeout = '1 millisecond')").await?;
    // All are silent now, and the greatest time that was admitted is now.
    comes(client, frontier, "2026-11-01 12:14:50+00").await?;
    // Who speaks again begins there.
    run(client, "ALTER SOURCE late SET (idle_timeout = '1 hour')").await?;
    broker.send("late", [event(2, 7, "12:14:49"), event(2, 8, "12:14:51"), event(1, 9, "12:16:00")])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT user_id FROM late WHERE user_id > 6 ORDER BY 1", "8\n9").await?;
    comes(client, frontier, "2026-11-01 12:14:50+00").await?;
    comes(
        client,
        "SELECT partitions FROM tidemark.pipelines WHERE name = 'late'",
        "[{\"end\":3,\"lag\":0,\"next\":3,\"partition\":0},{\"end\":4,\"lag\":0,\"next\":4,\"partition\":1},\
         {\"end\":2,\"lag\":0,\"next\":2,\"partition\":2}]",
    )
    .await?;
    // In time as well: the frontier has not come as far as the clock.
    comes(client, "SELECT lag > INTERVAL '0 seconds' FROM tidemark.pipelines WHERE name = 'late'", "t").await?;
    run(client, "DROP SOURCE late").await
}

async fn new_partitions_are_found(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("grows", 1, &[]).await?;
    run(client, &create(broker, "grows", "n BIGINT", "")).await?;
    broker.send("grows", [Sent::to(0, "{\"n\": 1}")])?;
    broker.add_partitions("grows", 2).await?;
    // The client learns of it when it asks the next time.
    broker.send("grows", [Sent::to(1, "{\"n\": 2}"), Sent::to(0, "{\"n\": 3}")])?;
    comes(client, "SELECT * FROM grows ORDER BY n", "1 | 0 | 0\n2 | 1 | 0\n3 | 0 | 1").await?;
    run(client, "DROP SOURCE grows").await
}

async fn latest_is_decided_when_the_source_is_made(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("latest", 1, &[]).await?;
    broker.send("latest", [Sent::to(0, "{\"n\": 1}")])?;
    run(client, &create(broker, "latest", "n BIGINT", ", scan.startup.mode = 'latest'")).await?;
    broker.send("latest", [Sent::to(0, "{\"n\": 2}"), Sent::to(0, "{\"n\":")])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT * FROM latest", "2 | 0 | 1").await?;
    comes(
        client,
        "SELECT reason, partition, \"offset\", error, payload FROM tidemark.dead_letters WHERE object = 'latest'",
        "decode | 0 | 2 | not JSON: it ends at byte 5, in the middle | {\"n\":",
    )
    .await?;
    run(client, "DROP SOURCE latest").await
}

async fn a_broker_that_is_away_is_waited_for(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("away", 1, &[]).await?;
    run(client, &create(broker, "away", EVENTS, ", idle_timeout = '1 hour'")).await?;
    broker.send("away", [event(0, 1, "12:00:00")])?;
    run(client, "FLUSH").await?;
    broker.kill()?;
    let error = "SELECT state, position('no Kafka broker answers' IN last_error) > 0 FROM tidemark.pipelines WHERE name = 'away'";
    comes(client, error, "running | t").await?;
    broker.again()?;
    broker.send("away", [event(0, 2, "12:00:01")])?;
    comes(client, "SELECT user_id, o FROM away ORDER BY user_id", "1 | 0\n2 | 1").await?;
    comes(client, "SELECT last_error FROM tidemark.pipelines WHERE name = 'away'", "NULL").await?;
    run(client, "DROP SOURCE away").await
}

async fn records_that_are_gone_stop_the_source_and_say_so(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("gone", 1, &[]).await?;
    broker.send("gone", (0..5).map(|n| Sent::to(0, format!("{{\"n\": {n}}}"))))?;
    run(client, &create(broker, "gone", "n BIGINT", "")).await?;
    run(client, "FLUSH").await?;
    // A topic of the same name, made anew, ends before the place where reading would go on.
    broker.delete_topic("gone").await?;
    broker.create_topic("gone", 1, &[]).await?;
    broker.send("gone", [Sent::to(0, "{\"n\": 9}")])?;
    comes(
        client,
        // Whether the new record is there already when it is noticed, is chance.
        "SELECT state, position('partition 0 of topic \"gone\" has no offset 5 to go on from: its records have offsets from 0, \
                                the next is ' IN last_error) > 0
         FROM tidemark.pipelines WHERE name = 'gone'",
        "failed | t",
    )
    .await?;
    refused(client, "FLUSH", "55000: source \"gone\": partition 0 of topic \"gone\" has no offset 5 to go on from")
        .await?;
    // What it has, it has; and it goes on where it is told.
    comes(client, "SELECT count(*) FROM gone", "5").await?;
    let back = "55000: source \"gone\": partition 0 would go back from offset 5 to 0";
    refused(client, "ALTER SOURCE gone RESET TO EARLIEST", back).await?;
    run(client, "ALTER SOURCE gone RESET TO EARLIEST ALLOW DUPLICATES").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT n, o FROM gone ORDER BY n", "0 | 0\n1 | 1\n2 | 2\n3 | 3\n4 | 4\n9 | 0").await?;
    comes(client, "SELECT state, last_error FROM tidemark.pipelines WHERE name = 'gone'", "running | NULL").await?;
    // With a partition less, and on from its end.
    run(client, "DROP SOURCE gone").await?;
    broker.add_partitions("gone", 2).await?;
    run(client, &create(broker, "gone", "n BIGINT", "")).await?;
    broker.delete_topic("gone").await?;
    broker.create_topic("gone", 1, &[]).await?;
    broker.send("gone", [Sent::to(0, "{\"n\": 10}")])?;
    run(client, "ALTER SOURCE gone RESET TO LATEST").await?;
    broker.send("gone", [Sent::to(0, "{\"n\": 11}")])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT o FROM gone WHERE n = 11", "1").await?;
    let partitions = "SELECT partitions FROM tidemark.pipelines WHERE name = 'gone'";
    comes(client, partitions, "[{\"end\":2,\"lag\":0,\"next\":2,\"partition\":0}]").await?;
    run(client, "DROP SOURCE gone").await
}

async fn reading_is_set_elsewhere(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("again", 2, &[]).await?;
    let at = |partition, n: i64, timestamp_ms| Sent {
        timestamp_ms: Some(timestamp_ms),
        ..Sent::to(partition, format!("{{\"n\": {n}}}"))
    };
    broker.send("again", [at(0, 0, 1000), at(0, 1, 2000), at(0, 2, 3000), at(1, 10, 1500)])?;
    run(client, &create(broker, "again", "n BIGINT", ", scan.startup.mode = 'latest'")).await?;
    let back = "55000: source \"again\": partition 0 would go back from offset 3 to 1: the rows of the records between come a second";
    refused(client, "ALTER SOURCE again RESET TO timestamptz '1970-01-01 00:00:02Z'", back).await?;
    run(client, "ALTER SOURCE again RESET TO timestamptz '1970-01-01 00:00:02Z' ALLOW DUPLICATES").await?;
    run(client, "FLUSH").await?;
    let all = "SELECT n, p, o FROM again ORDER BY n";
    comes(client, all, "1 | 0 | 1\n2 | 0 | 2").await?;
    // A partition that is not named stays where it is.
    run(client, "ALTER SOURCE again RESET TO OFFSETS 'partition:1,offset:0' ALLOW DUPLICATES").await?;
    run(client, "FLUSH").await?;
    comes(client, all, "1 | 0 | 1\n2 | 0 | 2\n10 | 1 | 0").await?;
    for (to, expected) in [
        ("OFFSETS 'partition:1,offset:9'", "22023: source \"again\": partition 1 of topic \"again\" has no offset 9"),
        ("OFFSETS '1:9'", "22023: \"1:9\" are no offsets (hint: RESET TO OFFSETS 'partition:0,offset:42"),
        ("soonest", "42601: a topic is not reset to soonest"),
    ] {
        refused(client, &format!("ALTER SOURCE again RESET TO {to}"), expected).await?;
    }
    // The last record comes a second time: that is what was asked for.
    run(client, "ALTER SOURCE again RESET TO OFFSETS 'partition:0,offset:2' ALLOW DUPLICATES").await?;
    run(client, "FLUSH").await?;
    comes(client, all, "1 | 0 | 1\n2 | 0 | 2\n2 | 0 | 2\n10 | 1 | 0").await
}

async fn a_reset_says_what_is_read_again(broker: &Broker, server: &Server) -> Result<()> {
    let (client, mut notices) = heard(server).await?;
    broker.create_topic("told", 1, &[]).await?;
    broker.send("told", (0..3).map(|n| Sent::to(0, format!("{{\"n\": {n}}}"))))?;
    run(&client, &create(broker, "told", "n BIGINT", "")).await?;
    run(&client, "FLUSH").await?;
    while notices.try_recv().is_ok() {}
    run(&client, "ALTER SOURCE told RESET TO EARLIEST ALLOW DUPLICATES").await?;
    let told = notices.recv().await.context("no notice")?;
    let back = "source \"told\": partition 0 goes back from offset 3 to 0: up to 3 records are read again";
    ensure!(told.ends_with(back), "{told}");
    run(&client, "FLUSH").await?;
    comes(&client, "SELECT count(*) FROM told", "6").await?;
    run(&client, "DROP SOURCE told").await
}

async fn it_stays_where_it_was_set(broker: &Broker, client: &Client) -> Result<()> {
    broker.send("again", [Sent::to(0, "{\"n\": 3}")])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT n FROM again ORDER BY n", "1\n2\n2\n3\n10").await?;
    run(client, "DROP SOURCE again").await
}
