//! What a transaction reads while others write: REPEATABLE READ, and READ COMMITTED beside it.

use super::world::World;
use std::time::Duration;
use tokio_postgres::Client;

const DEFINITIONS: &str =
    "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 minute');
     CREATE FEATURE VIEW counts WITH (key = 'user_id') AS SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at
       RANGE INTERVAL '5 minutes' PRECEDING) AS n FROM clicks;
     CREATE TABLE plain (id BIGINT);
     CREATE TABLE keyed (id BIGINT PRIMARY KEY, v BIGINT);
     CREATE TABLE labels (id INTEGER, user_id BIGINT, t TIMESTAMPTZ)";

/// Reads all rows of each kind, and when.
const EACH: &str = "SELECT (SELECT count(*) FROM clicks), (SELECT sum(id) FROM plain), \
     (SELECT sum(1000 * id + v) FROM keyed), now()";
/// The same without the time, which is another anyway.
const ROWS: &str =
    "SELECT (SELECT count(*) FROM clicks), (SELECT sum(id) FROM plain), (SELECT sum(1000 * id + v) FROM keyed)";
const JOINED: &str =
    "SELECT l.id, c.n FROM labels l ASOF LEFT JOIN counts c ON l.user_id = c.user_id AND l.t >= c.at ORDER BY l.id";
const LOOKUP: &str = "SELECT n FROM counts WHERE user_id = 1";

async fn begun(world: &World, level: &str) -> Client {
    let reader = world.connect().await;
    reader.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.expect("it begins");
    reader
}

/// Rows as their values with a blank between them, or the SQLSTATE.
async fn read(reader: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = reader.simple_query(sql).await;
    let messages = messages.map_err(|error| error.code().map_or(String::new(), |code| code.code().to_string()))?;
    let mut rows = vec![];
    for message in messages {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            let values: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
            rows.push(values.join(" "));
        }
    }
    Ok(rows)
}

fn rows(rows: &[&str]) -> Result<Vec<String>, String> {
    Ok(rows.iter().map(|row| (*row).to_string()).collect())
}

async fn world() -> World {
    let world = World::at("2026-03-02 10:00:00").await;
    world.run(DEFINITIONS).await;
    world.run("INSERT INTO clicks VALUES (1, now() - INTERVAL '10 minutes'), (1, now())").await;
    world.run("INSERT INTO plain VALUES (1), (2); INSERT INTO keyed VALUES (1, 10), (2, 20)").await;
    world.run("INSERT INTO labels VALUES (1, 1, now() - INTERVAL '9 minutes')").await;
    world
}

/// Something of each kind; a click that belongs above the frontier too.
const WRITTEN: &str = "INSERT INTO clicks VALUES (1, now() - INTERVAL '30 seconds'); DELETE FROM plain WHERE id = 1; \
     INSERT INTO plain VALUES (3); UPDATE keyed SET v = 11 WHERE id = 1; DELETE FROM keyed WHERE id = 2; \
     INSERT INTO keyed VALUES (3, 30)";

#[tokio::test]
async fn all_queries_of_a_repeatable_transaction_read_what_the_first_has_found() {
    let world = world().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let reader = begun(&world, level).await;
        let before = read(&reader, EACH).await;
        assert!(before.is_ok(), "{before:?}");
        let rows = read(&reader, ROWS).await;
        let joined = read(&reader, JOINED).await;
        world.clock.pass(Duration::from_secs(1));
        world.run(WRITTEN).await;
        world.run("CHECKPOINT").await;
        assert_eq!(read(&reader, EACH).await, before, "{level}");
        assert_eq!(read(&reader, JOINED).await, joined, "{level}");
        assert_eq!(read(&reader, ROWS).await, rows, "{level}");
        assert_ne!(Ok(world.rows(ROWS).await), rows, "{level}");
        reader.batch_execute("COMMIT").await.expect("it commits");
        assert_ne!(read(&reader, ROWS).await, rows, "{level}");
        world.run("TRUNCATE plain; TRUNCATE keyed; INSERT INTO plain VALUES (1); INSERT INTO keyed VALUES (1, 10), (2, 20)").await;
    }
    let reader = begun(&world, "READ COMMITTED").await;
    let before = read(&reader, ROWS).await;
    assert!(before.is_ok(), "{before:?}");
    world.clock.pass(Duration::from_secs(1));
    world.run(WRITTEN).await;
    let after = read(&reader, ROWS).await;
    assert!(after.is_ok() && after != before, "{after:?}");
}

#[tokio::test]
async fn what_a_view_has_no_version_of_is_read_as_long_as_nothing_has_come_and_never_newer() {
    let world = world().await;
    let reader = begun(&world, "REPEATABLE READ").await;
    let now = "SELECT l.id, c.n FROM (SELECT id, user_id, now() AS t FROM labels) l \
        ASOF LEFT JOIN counts c ON l.user_id = c.user_id AND l.t >= c.at";
    assert_eq!(read(&reader, LOOKUP).await, rows(&["1"]));
    assert_eq!(read(&reader, now).await, rows(&["1 1"]));
    // Time alone changes nothing: the click would have left its window.
    world.clock.pass(Duration::from_secs(360));
    assert_eq!(read(&reader, LOOKUP).await, rows(&["1"]));
    assert_eq!(read(&reader, now).await, rows(&["1 1"]));
    world.run("INSERT INTO clicks VALUES (1, now())").await;
    for sql in [LOOKUP, now] {
        reader.batch_execute("SAVEPOINT s").await.expect("a savepoint");
        assert_eq!(read(&reader, sql).await, Err("40001".to_string()), "{sql}");
        reader.batch_execute("ROLLBACK TO s").await.expect("it goes back");
    }
    // Below the frontier of then nothing changes.
    assert_eq!(read(&reader, JOINED).await, rows(&["1 1"]));
    let past = "SELECT n FROM counts FOR SYSTEM_TIME AS OF now() - INTERVAL '2 minutes' WHERE user_id = 1";
    let past = read(&reader, past).await;
    assert!(past.is_ok(), "{past:?}");
    reader.batch_execute("ROLLBACK").await.expect("it ends");
    assert_eq!(read(&reader, LOOKUP).await, rows(&["1"]));
}
