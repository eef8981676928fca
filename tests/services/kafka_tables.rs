//! Tables fed by a topic: rows replaced and deleted by key, what views over them show, also after `kill -9`; and
//! messages that are no JSON.

use crate::{
    broker::{Broker, Sent},
    comes, run,
    server::{Folder, Server, rows},
    shared_broker,
};
use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_the_last_row_of_every_key() -> Result<()> {
    let Some(broker) = shared_broker()? else { return Ok(()) };
    let folder = Folder::new()?;
    let outcome = all(&broker, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn all(broker: &Broker, folder: &Folder) -> Result<()> {
    let mut server = Server::start(folder).await?;
    let client = server.connect().await?;
    changes_come_and_views_follow(broker, &client).await.context("changes")?;
    the_key_can_be_a_column(broker, &client).await.context("key")?;
    messages_can_be_csv_or_bytes(broker, &client).await.context("formats")?;
    server.kill()?;
    let server = Server::start(folder).await?;
    it_is_the_same_after_a_kill(broker, &server.connect().await?).await.context("killed")
}

fn with(broker: &Broker, topic: &str) -> String {
    format!(
        "connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{}', clock = 'event'",
        broker.address()
    )
}

fn change(key: &str, value: Option<&str>) -> Sent {
    Sent { key: Some(key.into()), payload: value.map(Into::into), ..Sent::default() }
}

fn user(id: i64, country: &str, score: i64, at: &str) -> Sent {
    let value =
        format!("{{\"id\": {id}, \"country\": \"{country}\", \"score\": {score}, \"at\": \"2026-11-01T{at}Z\"}}");
    change(&format!("{{\"id\": {id}}}"), Some(&value))
}

const BY_COUNTRY: &str = "AS SELECT country, count(*) AS n, sum(score) AS total FROM users GROUP BY country";
const USERS: &str = "SELECT id, country, score FROM users ORDER BY id";
const STEPS: &str = "SELECT country, at, n, total, _op FROM history.by_country ORDER BY country, at";

async fn changes_come_and_views_follow(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("users", 1, &[]).await?;
    let columns =
        "id BIGINT PRIMARY KEY, country TEXT NOT NULL, score BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at";
    let with = with(broker, "users");
    run(client, &format!("CREATE TABLE users ({columns}) WITH ({with}) FORMAT UPSERT ENCODE JSON")).await?;
    run(client, &format!("CREATE FEATURE VIEW by_country {BY_COUNTRY}")).await?;
    broker.send("users", [user(1, "ch", 10, "09:00:00"), user(2, "ch", 5, "09:10:00")])?;
    run(client, "FLUSH").await?;
    comes(client, USERS, "1 | ch | 10\n2 | ch | 5").await?;
    comes(client, "SELECT n, total FROM by_country WHERE country = 'ch'", "2 | 15").await?;
    // One goes to another country, one is deleted: from now on, which is 10:00.
    broker.send("users", [user(2, "fr", 7, "10:00:00"), change("{\"id\": 1}", None)])?;
    run(client, "FLUSH").await?;
    comes(client, USERS, "2 | fr | 7").await?;
    comes(client, "SELECT country, n, total FROM by_country", "fr | 1 | 7").await?;
    // A key is plain here; nobody has that of the second; the third has none. One that comes again after its delete
    // counts from then on, whatever it says.
    let no_key = Sent { payload: None, ..Sent::default() };
    broker.send("users", [user(3, "fr", 1, "11:00:00"), change("2", None), change("99", None), no_key])?;
    run(client, "FLUSH").await?;
    comes(client, USERS, "3 | fr | 1").await?;
    broker.send("users", [user(2, "fr", 4, "10:30:00")])?;
    run(client, "FLUSH").await?;
    comes(client, USERS, "2 | fr | 4\n3 | fr | 1").await?;
    comes(client, "SELECT country, n, total FROM by_country", "fr | 2 | 5").await?;
    comes(
        client,
        "SELECT reason, \"offset\", error, payload FROM tidemark.dead_letters WHERE object = 'users'",
        "decode | 7 | a message without a value and a key deletes nothing | null",
    )
    .await?;
    run(client, "ALTER TABLE users ADVANCE WATERMARK TO timestamptz '2026-11-02 00:00:00Z'").await?;
    run(client, "CHECKPOINT").await?;
    comes(client, STEPS, STEPS_EXPECTED).await
}

const STEPS_EXPECTED: &str = "ch | 2026-11-01 09:00:00+00 | 1 | 10 | upsert
ch | 2026-11-01 09:10:00+00 | 2 | 15 | upsert
ch | 2026-11-01 10:00:00+00 | NULL | NULL | delete
fr | 2026-11-01 10:00:00+00 | 1 | 7 | upsert
fr | 2026-11-01 11:00:00+00 | 2 | 5 | upsert";

async fn the_key_can_be_a_column(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("keyed", 1, &[]).await?;
    let with = with(broker, "keyed");
    run(
        client,
        &format!("CREATE TABLE keyed (name TEXT, PRIMARY KEY (id)) INCLUDE key TEXT AS id WITH ({with}) FORMAT UPSERT"),
    )
    .await?;
    let row = |key, name: &str| change(key, Some(&format!("{{\"name\": \"{name}\"}}")));
    let no_key = Sent::to(0, "{\"name\": \"nobody\"}");
    broker.send("keyed", [row("a", "ann"), row("b", "bob"), row("b", "ben"), change("a", None), no_key])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT id, name FROM keyed", "b | ben").await?;
    comes(
        client,
        "SELECT \"offset\", error FROM tidemark.dead_letters WHERE object = 'keyed'",
        "4 | the key is missing, and is NOT NULL of column \"id\"",
    )
    .await
}

async fn messages_can_be_csv_or_bytes(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("lines", 1, &[]).await?;
    let with_lines = with(broker, "lines");
    run(
        client,
        &format!(
            "CREATE SOURCE lines (id BIGINT, name TEXT, at TIMESTAMPTZ) INCLUDE offset AS o WITH ({with_lines})
             FORMAT PLAIN ENCODE CSV (delimiter = ';', null = 'N', timestamp = 'ms')"
        ),
    )
    .await?;
    let lines = ["1;'ann';1793534400001", "2;\"a;b\";N\n", "x;;N", "3"];
    broker.send("lines", lines.map(|line| Sent::to(0, line)))?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT * FROM lines ORDER BY id", "1 | 'ann' | 2026-11-01 12:00:00.001+00 | 0\n2 | a;b | NULL | 1")
        .await?;
    comes(
        client,
        "SELECT \"offset\", error FROM tidemark.dead_letters WHERE object = 'lines' ORDER BY 1",
        "2 | column \"id\": \"x\" is no bigint\n3 | a row has 3 fields, this has 1",
    )
    .await?;
    let raw = format!("CREATE SOURCE raw (b BYTEA) INCLUDE offset AS o WITH ({with_lines}) FORMAT PLAIN ENCODE BYTES");
    run(client, &raw).await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT b FROM raw WHERE o = 3", "\\x33").await?;
    for (sql, expected) in [
        (
            format!("CREATE SOURCE s (b TEXT) WITH ({with_lines}) FORMAT PLAIN ENCODE BYTES"),
            "22023: source \"s\": ENCODE BYTES needs one column, of type bytea",
        ),
        (
            format!("CREATE SOURCE s (b TEXT) WITH ({with_lines}, json.path.b = 'a') FORMAT PLAIN ENCODE CSV"),
            "22023: source \"s\": option \"json.path.b\" does not go with ENCODE CSV",
        ),
        (
            format!("CREATE SOURCE s (b TEXT) WITH ({with_lines}) FORMAT PLAIN ENCODE CSV (quote = 'ab')"),
            "22023: source \"s\": csv.quote is no single ASCII character",
        ),
        (
            format!("CREATE TABLE t (a TEXT PRIMARY KEY) WITH ({with_lines}) FORMAT UPSERT ENCODE CSV"),
            "0A000: table \"t\" is FORMAT UPSERT to ENCODE CSV",
        ),
    ] {
        crate::refused(client, &sql, expected).await?;
    }
    Ok(())
}

async fn it_is_the_same_after_a_kill(broker: &Broker, client: &Client) -> Result<()> {
    run(client, "FLUSH").await?;
    comes(client, USERS, "2 | fr | 4\n3 | fr | 1").await?;
    comes(client, "SELECT country, n, total FROM by_country", "fr | 2 | 5").await?;
    comes(client, STEPS, STEPS_EXPECTED).await?;
    // A view born late is one that lived through it.
    run(client, &format!("CREATE FEATURE VIEW late {BY_COUNTRY}")).await?;
    run(client, "CHECKPOINT").await?;
    let steps = |view: &str| format!("SELECT country, at, n, total, _op FROM history.{view} ORDER BY country, at");
    let (lived, late) = (rows(client, &steps("by_country")).await?, rows(client, &steps("late")).await?);
    ensure!(lived == late, "{lived:?}\n{late:?}");
    broker.send("users", [change("3", None)])?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT country, n, total FROM late", "fr | 1 | 4").await
}
