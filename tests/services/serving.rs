//! `tidemark serve --role serving` beside the owner of a data directory, over one real Redis: equal answers to every question
//! that a serving node takes, what it does not take is refused, and nothing is ever silently old.

use crate::{
    PATIENCE, POLL, comes, metrics,
    redis_server::{Kind, RedisServer},
    refused, run,
    server::{Folder, Server, free_port, rows, shown, skipped, value},
};
use anyhow::{Context, Result, ensure};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::{AsyncMessage, Client, NoTls};

const KEYS: i64 = 60;

/// Keys that have rows, and one that never had.
const ASKED: [i64; 6] = [0, 1, 7, 30, KEYS - 1, KEYS + 5];

/// A row of `counted`.
type Known = (i64, i64, Option<f64>, Option<Vec<Option<f64>>>);

fn no_redis() -> Result<()> {
    skipped("no redis-server on this machine; scripts/setup.sh test installs it")
}

fn owner_arguments(url: &str) -> [&str; 4] {
    ["--online", url, "--online-tick", "10ms"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_node_answers_as_the_owner_does() -> Result<()> {
    for kind in [Kind::One, Kind::Cluster] {
        let Some(redis) = RedisServer::start(kind, &[])? else { return no_redis() };
        let (folder, nowhere) = (Folder::new()?, Folder::new()?);
        let answered = answers(&redis, &folder, &nowhere).await;
        answered.with_context(|| {
            format!("{kind:?}; the owner's log ends:\n{}\nthe node's:\n{}", folder.log_tail(), nowhere.log_tail())
        })?;
    }
    Ok(())
}

async fn answers(redis: &RedisServer, folder: &Folder, nowhere: &Folder) -> Result<()> {
    let url = redis.url();
    let owner = Server::start_with(folder, &owner_arguments(&url)).await?;
    let own = owner.connect().await?;
    create(&own).await?;
    insert(&own, "2026-11-01 12:00:00Z").await?;
    let node = Server::start_with(nowhere, &["--role", "serving", "--online", &url]).await?;
    ensure!(!nowhere.data().exists(), "a serving node has no data directory");
    let served = node.connect().await?;
    same(&own, &served).await.context("first")?;

    // What changes, departs and is created later follows.
    insert(&own, "2026-11-01 12:30:00Z").await?;
    same(&own, &served).await.context("after more events")?;
    run(&own, "ALTER SOURCE clicks ADVANCE WATERMARK TO timestamptz '2026-11-01 13:15:00Z'").await?;
    same(&own, &served).await.context("after departures")?;
    run(&own, "ALTER SOURCE clicks ADVANCE WATERMARK TO timestamptz '2026-11-03 13:15:00Z'").await?;
    same(&own, &served).await.context("when all keys are over")?;
    insert(&own, "2026-11-03 14:00:00Z").await?;
    same(&own, &served).await.context("and come back")?;
    let later = "CREATE FEATURE VIEW later AS SELECT user_id, max(price) AS most FROM clicks GROUP BY user_id";
    run(&own, later).await?;
    follows(&own, &served, "SELECT most FROM later WHERE user_id = 7").await?;
    run(&own, "ALTER FEATURE VIEW later RENAME TO latest").await?;
    follows(&own, &served, "SELECT most FROM latest WHERE user_id = 7").await?;
    run(&own, "DROP FEATURE VIEW latest").await?;
    refused_in_time(&served, "SELECT most FROM latest WHERE user_id = 7", "\"latest\" does not exist").await?;

    roles(&own, &served).await?;
    browse(&served).await?;
    refusals(&served).await
}

/// The owner's roles and grants are the node's.
async fn roles(own: &Client, served: &Client) -> Result<()> {
    let (ask, denied) =
        ("SELECT user_id FROM counted WHERE user_id = 7", "42501: permission denied for feature view counted");
    run(own, "CREATE ROLE ann").await?;
    let started = Instant::now();
    while let Err(error) = served.batch_execute("SET ROLE ann").await {
        ensure!(started.elapsed() < PATIENCE, "the node does not know the role: {}", shown(&error));
        tokio::time::sleep(POLL).await;
    }
    refused(served, ask, denied).await?;
    refused(served, "SELECT c.n FROM service c WHERE user_id = 7", "42501: permission denied for view service").await?;
    for _ in 0..2 {
        run(own, "GRANT SELECT ON counted TO ann").await?;
        let started = Instant::now();
        while let Err(error) = served.simple_query(ask).await {
            ensure!(started.elapsed() < PATIENCE, "it is granted: {}", shown(&error));
            tokio::time::sleep(POLL).await;
        }
        run(own, "REVOKE SELECT ON counted FROM ann").await?;
        refused_in_time(served, ask, denied).await?;
    }
    refused(served, "CREATE ROLE ben", "25006: CREATE ROLE is not possible on a serving node").await?;
    run(served, "RESET ROLE").await?;
    run(own, "DROP ROLE ann").await
}

async fn create(client: &Client) -> Result<()> {
    run(
        client,
        "CREATE SOURCE clicks (user_id BIGINT, country TEXT, price DOUBLE PRECISION, at TIMESTAMPTZ,
           WATERMARK FOR at AS at - INTERVAL '10 seconds') WITH (clock = 'event')",
    )
    .await?;
    let window = "ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW";
    run(
        client,
        &format!(
            "CREATE FEATURE VIEW counted WITH (ttl = '1 day') AS
             SELECT user_id, at, count(*) OVER w AS n, sum(price) OVER w AS spent, array_agg(price) OVER w AS prices, now() - at AS idle
             FROM clicks WINDOW w AS (PARTITION BY user_id {window})"
        ),
    )
    .await?;
    run(
        client,
        &format!(
            "CREATE FEATURE VIEW spending WITH (ttl = '1 day') AS SELECT user_id, country, at, avg(price) OVER w AS mean
             FROM clicks WINDOW w AS (PARTITION BY user_id, country {window})"
        ),
    )
    .await?;
    let lately = "CREATE FEATURE VIEW lately AS
                  SELECT user_id, max(price) AS most, count(*) AS ever FROM clicks GROUP BY user_id";
    run(client, lately).await?;
    run(
        client,
        "CREATE VIEW service AS SELECT c.user_id, c.n, l.most, c.spent / l.ever AS share
         FROM counted c JOIN lately l ON c.user_id = l.user_id",
    )
    .await?;
    run(
        client,
        "CREATE VIEW maybe AS SELECT l.user_id, l.most, c.n FROM lately l LEFT JOIN counted c ON c.user_id = l.user_id",
    )
    .await
}

async fn insert(client: &Client, at: &str) -> Result<()> {
    let values: Vec<String> = (0..KEYS)
        .map(|n| format!("({n}, '{}', {}, '{at}')", ["CH", "FR"][n as usize % 2], (n * 7) as f64 / 8.0))
        .collect();
    run(client, &format!("INSERT INTO clicks VALUES {}", values.join(", "))).await
}

/// Waits until every kind of question has the same answer on both.
async fn same(own: &Client, served: &Client) -> Result<()> {
    let list = ASKED.map(|key| key.to_string()).join(", ");
    let mut questions = vec![
        format!("SELECT * FROM counted WHERE user_id IN ({list})"),
        format!("SELECT n, user_id FROM counted WHERE user_id = ANY (ARRAY[{list}])"),
        format!("SELECT n + 1 AS more, user_id FROM counted WHERE user_id IN ({list}) ORDER BY user_id"),
        "SELECT most, n FROM service WHERE user_id IN (1, 2) ORDER BY user_id".to_string(),
    ];
    for key in ASKED {
        let country = ["CH", "FR"][key as usize % 2];
        questions.extend([
            format!("SELECT * FROM counted WHERE user_id = {key}"),
            format!("SELECT country, mean, at FROM spending WHERE user_id = {key} AND country = '{country}'"),
            format!("SELECT * FROM service WHERE user_id = {key}"),
            format!("SELECT * FROM maybe WHERE user_id = {key}"),
            format!("SELECT spent / nullif(n, 0) AS mean FROM counted WHERE user_id = {key} LIMIT 1"),
        ]);
    }
    for question in &questions {
        follows(own, served, question).await?;
    }
    extended(own, served).await
}

/// Waits until the node has the owner's answer.
async fn follows(own: &Client, served: &Client, question: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let expected = rows(own, question).await?;
        let found = rows(served, question).await;
        if found.as_ref().is_ok_and(|found| *found == expected) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{question}\nowner: {expected:?}\nserving node: {found:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Prepared statements, with binary results: the plain questions have waited until both are level.
async fn extended(own: &Client, served: &Client) -> Result<()> {
    let question = "SELECT user_id, n, spent, prices FROM counted WHERE user_id = $1";
    let (at_own, at_served) = (own.prepare(question).await?, served.prepare(question).await?);
    for key in ASKED {
        let read = |rows: Vec<tokio_postgres::Row>| -> Vec<Known> {
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
        };
        let started = Instant::now();
        loop {
            let expected = read(own.query(&at_own, &[&key]).await?);
            let found = read(served.query(&at_served, &[&key]).await?);
            if found == expected {
                break;
            }
            ensure!(started.elapsed() < PATIENCE, "key {key}: {expected:?} and {found:?}");
            tokio::time::sleep(POLL).await;
        }
    }
    let question = "SELECT user_id, n FROM counted WHERE user_id = ANY ($1)";
    let (at_own, at_served) = (own.prepare(question).await?, served.prepare(question).await?);
    let started = Instant::now();
    loop {
        let read = |rows: Vec<tokio_postgres::Row>| -> Vec<(i64, i64)> {
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        };
        let keys = ASKED.to_vec();
        let expected = read(own.query(&at_own, &[&keys]).await?);
        let found = read(served.query(&at_served, &[&keys]).await?);
        if found == expected {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{expected:?} and {found:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn browse(served: &Client) -> Result<()> {
    ensure!(value(served, "SELECT 1").await?.as_deref() == Some("1"));
    ensure!(value(served, "SHOW in_hot_standby").await?.as_deref() == Some("on"));
    ensure!(value(served, "SHOW transaction_read_only").await?.as_deref() == Some("on"));
    let views = rows(served, "SHOW FEATURE VIEWS").await?;
    ensure!(views.len() == 3, "{views:?}");
    let tables = "SELECT count(*) FROM information_schema.tables
                  WHERE table_schema = 'public' AND table_name IN ('clicks', 'counted', 'service')";
    ensure!(value(served, tables).await?.as_deref() == Some("3"));
    let pipelines = "SELECT count(*) FROM tidemark.pipelines WHERE name = 'counted'";
    ensure!(value(served, pipelines).await?.as_deref() == Some("1"));
    let plan = value(served, "EXPLAIN SELECT n FROM counted WHERE user_id = 1").await?.unwrap_or_default();
    ensure!(plan.contains("answered from Redis"), "{plan}");
    Ok(())
}

async fn refusals(served: &Client) -> Result<()> {
    for (sql, said) in [
        ("INSERT INTO clicks VALUES (1, 'CH', 1, now())", "25006: INSERT is not possible on a serving node"),
        ("CREATE SOURCE more (a BIGINT)", "25006: CREATE SOURCE is not possible on a serving node"),
        ("DROP FEATURE VIEW counted", "25006: DROP FEATURE VIEW is not possible on a serving node"),
        ("COMMENT ON FEATURE VIEW counted IS 'x'", "25006: COMMENT is not possible on a serving node"),
        ("REFRESH ONLINE STORE FOR counted", "25006: REFRESH ONLINE STORE is not possible on a serving node"),
        ("CHECKPOINT", "0A000: CHECKPOINT is not possible on a serving node"),
        ("FLUSH", "0A000: FLUSH is not possible on a serving node"),
        (
            "SELECT count(*) FROM counted",
            "0A000: reading feature view \"counted\" without its entity key is not possible",
        ),
        ("SELECT * FROM spending WHERE user_id = 1", "without its entity key is not possible on a serving node"),
        ("SELECT * FROM clicks", "0A000: reading the rows of \"clicks\" is not possible on a serving node"),
        (
            "SELECT * FROM counted FOR SYSTEM_TIME AS OF timestamptz '2026-11-01 12:00:00Z' WHERE user_id = 1",
            "FOR SYSTEM_TIME AS OF is not possible on a serving node",
        ),
        ("SELECT * FROM history.counted", "0A000: reading history of \"counted\" is not possible on a serving node"),
        ("SELECT * FROM nothing WHERE user_id = 1", "42P01"),
    ] {
        refused(served, sql, said).await?;
    }
    refused(served, "CHECKPOINT", "connect to the server that owns the data directory").await
}

async fn refused_in_time(client: &Client, sql: &str, expected: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let said = client.batch_execute(sql).await.err().map(|error| shown(&error));
        if said.as_deref().is_some_and(|said| said.contains(expected)) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{sql}\n{said:?}\nand not\n{expected}");
        tokio::time::sleep(POLL).await;
    }
}

/// A connection, and the messages of the notices that come over it.
pub async fn heard(server: &Server) -> Result<(Client, UnboundedReceiver<String>)> {
    let (client, mut connection) = server.config().connect(NoTls).await?;
    let (told, notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = told.send(format!("{}: {}", notice.code().code(), notice.message()));
            }
        }
    });
    Ok((client, notices))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_silently_old_when_the_owner_or_redis_is_gone() -> Result<()> {
    let Some(redis) = RedisServer::start(Kind::One, &[])? else { return no_redis() };
    let (folder, nowhere, strict) = (Folder::new()?, Folder::new()?, Folder::new()?);
    let outcome = gone(&redis, &folder, &nowhere, &strict).await;
    outcome
        .with_context(|| format!("the owner's log ends:\n{}\nthe node's:\n{}", folder.log_tail(), nowhere.log_tail()))
}

async fn gone(redis: &RedisServer, folder: &Folder, nowhere: &Folder, strict: &Folder) -> Result<()> {
    let url = redis.url();
    let mut owner = Server::start_with(folder, &owner_arguments(&url)).await?;
    let own = owner.connect().await?;
    run(&own, "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at)").await?;
    // What is in the window leaves it while nobody is there to say so.
    run(
        &own,
        "CREATE FEATURE VIEW quick AS SELECT user_id, at, count(*) OVER w AS n FROM clicks WINDOW w AS
           (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '15 seconds' PRECEDING AND CURRENT ROW)",
    )
    .await?;
    let port = free_port()?;
    let http = format!("127.0.0.1:{port}");
    let node = Server::start_with(nowhere, &["--role", "serving", "--online", &url, "--http", &http]).await?;
    let (served, mut notices) = heard(&node).await?;
    let question = "SELECT n FROM quick WHERE user_id = 7";
    follows(&own, &served, question).await?;
    run(&own, "INSERT INTO clicks VALUES (7, now())").await?;
    comes(&served, question, "1").await?;
    owner.kill()?;
    ensure!(rows(&served, "SELECT n FROM quick WHERE user_id = 8").await?.is_empty());
    let warning = loop_until_told(&served, question, &mut notices).await?;
    let expected = "01000: 1 row of feature view \"quick\" is stale: it held until ";
    ensure!(warning.starts_with(expected), "{warning}");
    // Also where it is read by a plan; and both are counted.
    while notices.try_recv().is_ok() {}
    let planned = rows(&served, "SELECT n * 10 FROM quick WHERE user_id = 7").await?;
    ensure!(planned == [[Some("10".to_string())]], "{planned:?}");
    let warning = notices.recv().await.context("no warning from a plan")?;
    ensure!(warning.starts_with(expected), "{warning}");
    // Which row it is, and a client that would rather have nothing from so far behind.
    let status = rows(&served, "SELECT n, _status FROM quick WHERE user_id = 7").await?;
    ensure!(status == [[Some("1".to_string()), Some("stale".to_string())]], "{status:?}");
    run(&served, "SET tidemark.max_staleness = '1 day'").await?;
    ensure!(rows(&served, question).await? == [[Some("1".to_string())]]);
    run(&served, "SET tidemark.max_staleness = '3 seconds'").await?;
    let too_old = "55000: feature view \"quick\" is not as fresh here as tidemark.max_staleness asks for";
    refused_in_time(&served, question, too_old).await?;
    refused_in_time(&served, "SELECT n * 10 FROM quick WHERE user_id = 7", too_old).await?;
    run(&served, "RESET tidemark.max_staleness").await?;
    ensure!(rows(&served, question).await? == [[Some("1".to_string())]]);
    // Keys that are items of an array, in a lookup that needs a plan.
    let each =
        "SELECT user_id, n FROM unnest('{7,6}'::bigint[]) AS k (user_id) LEFT JOIN quick q USING (user_id) ORDER BY 1";
    let answered = rows(&served, each).await?;
    ensure!(
        answered == [[Some("6".to_string()), None], [Some("7".to_string()), Some("1".to_string())]],
        "{answered:?}"
    );
    let seen = metrics::scrape(port).await?;
    let counted = seen.lines().find_map(|line| line.strip_prefix("tidemark_lookups_stale_total{view=\"quick\"} "));
    ensure!(counted.context("it is not counted")?.parse::<u64>()? >= 2, "{seen}");
    ensure!(seen.lines().any(|line| line.starts_with("tidemark_serving_behind_seconds ")), "{seen}");
    ensure!(seen.contains("\ntidemark_serving_in_trouble 0\n") && seen.contains("\ntidemark_ready 1\n"), "{seen}");
    // A node that would rather have nothing. It starts though there is no owner just now.
    let arguments = ["--role", "serving", "--online", &url, "--serving-stale", "error", "--serving-cache", "none"];
    let refusing = Server::start_with(strict, &arguments).await?;
    refused(&refusing.connect().await?, question, "55000: 1 row of feature view \"quick\" is stale").await?;
    // A Redis that does not answer for a while: who has a deadline is told in time, and of which entities nothing is known.
    redis.cli(&["client", "pause", "2000", "all"])?;
    run(&served, "SET tidemark.lookup_deadline = '20ms'").await?;
    let late = "57014: feature view \"quick\" has not answered within tidemark.lookup_deadline";
    refused(&served, "SELECT n FROM quick WHERE user_id = 9", late).await?;
    let each = "SELECT k.user_id, q.n, q._status FROM (SELECT 9::bigint AS user_id) k
                LEFT JOIN quick q ON q.user_id = k.user_id";
    let answered = rows(&served, each).await?;
    ensure!(answered == [[Some("9".to_string()), None, Some("late".to_string())]], "{answered:?}");
    run(&served, "RESET tidemark.lookup_deadline").await?;

    // Redis loses everything: that a key has a row is not known any more, and not that it has none.
    redis.cli(&["flushall"])?;
    for key in [7, 8] {
        let question = format!("SELECT n FROM quick WHERE user_id = {key}");
        refused_in_time(&served, &question, "55000: feature view \"quick\" is not, or not wholly, in Redis").await?;
    }
    let in_trouble = |seen: &str| seen.contains("\ntidemark_serving_in_trouble 1\n");
    let started = Instant::now();
    while !in_trouble(&metrics::scrape(port).await?) {
        ensure!(started.elapsed() < PATIENCE, "the loss of the catalog is not noticed");
        tokio::time::sleep(POLL).await;
    }
    let owner = Server::start_with(folder, &owner_arguments(&url)).await?;
    let own = owner.connect().await?;
    follows(&own, &served, question).await.context("the owner is back")?;
    // Redis goes, and comes back with nothing.
    redis.kill()?;
    refused_in_time(&served, question, "58030").await?;
    redis.again(&[])?;
    run(&own, "INSERT INTO clicks VALUES (9, now())").await?;
    follows(&own, &served, "SELECT at FROM quick WHERE user_id = 9").await.context("Redis is back")?;
    follows(&own, &served, "SELECT at FROM quick WHERE user_id = 8").await
}

/// Asks until the client is warned.
async fn loop_until_told(client: &Client, question: &str, notices: &mut UnboundedReceiver<String>) -> Result<String> {
    let started = Instant::now();
    loop {
        let found = rows(client, question).await?;
        ensure!(found == [[Some("1".to_string())]], "the row stays what it was: {found:?}");
        if let Ok(told) = notices.try_recv() {
            return Ok(told);
        }
        ensure!(started.elapsed() < PATIENCE, "nobody says that the row is stale");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_node_says_what_it_needs() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::spawn(&folder, &["--role", "serving"])?;
    ensure!(!server.ended().await?.success(), "without a Redis it does not start");
    let said = folder.log_tail();
    ensure!(said.contains("add --online") && said.contains("--role serving"), "{said}");
    // Where nobody has published a catalog it waits, and ends when it is told to.
    let Some(redis) = RedisServer::start(Kind::One, &[])? else { return no_redis() };
    let mut server = Server::spawn(&folder, &["--role", "serving", "--online", &redis.url()])?;
    let started = Instant::now();
    while !folder.log_tail().contains("no server has published its catalog") {
        ensure!(started.elapsed() < PATIENCE && server.is_running(), "{}", folder.log_tail());
        tokio::time::sleep(POLL).await;
    }
    ensure!(server.terminate().await?.success(), "{}", folder.log_tail());
    Ok(())
}
