//! A server whose history is in a bucket, and behind a REST catalog: killed and started again, with a copy of its directory,
//! and where nothing can be committed for a while.

use crate::{
    comes,
    http_proxy::{Fault, Proxy, forward},
    refused,
    rest_catalog::RestCatalog,
    run,
    s3_server::S3Server,
    server::{Folder, Server, rows, skipped, value},
};
use anyhow::{Context, Result, ensure};
use std::process::Command;
use tokio_postgres::Client;

const STEPS: &str = "SELECT u, n, at FROM history.counted ORDER BY at, u";

/// A folder whose servers have the keys of the bucket in their environment.
fn folder() -> Result<Folder> {
    let mut folder = Folder::new()?;
    folder.set("AWS_ACCESS_KEY_ID", "testkey".into());
    folder.set("AWS_SECRET_ACCESS_KEY", "testsecret".into());
    Ok(folder)
}

async fn make(client: &Client) -> Result<()> {
    run(
        client,
        "CREATE SOURCE clicks (u BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')",
    )
    .await?;
    run(
        client,
        "CREATE FEATURE VIEW counted AS SELECT u, at, count(*) OVER w AS n FROM clicks
             WINDOW w AS (PARTITION BY u ORDER BY at ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)",
    )
    .await
}

async fn insert(client: &Client, minute: u32) -> Result<()> {
    run(
        client,
        &format!(
            "INSERT INTO clicks VALUES (1, '2026-03-01 10:{minute:02}:00Z'), (2, '2026-03-01 10:{minute:02}:30Z')"
        ),
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_in_a_bucket_outlives_its_server_and_goes_on() -> Result<()> {
    let Some(s3) = S3Server::shared()? else {
        return skipped("TIDEMARK_TEST_S3_PYTHON is not set; scripts/setup.sh test makes it");
    };
    let (folder, url, endpoint) = (folder()?, s3.prefix(), s3.endpoint());
    let arguments = ["--warehouse", &url, "--s3-endpoint", &endpoint, "--commit-interval", "1h"];
    let mut server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    make(&client).await?;
    for minute in 0..3 {
        insert(&client, minute).await?;
        run(&client, "CHECKPOINT").await?;
    }
    let before = rows(&client, STEPS).await?;
    ensure!(before.len() >= 5, "{before:?}");
    // Acknowledged, and in no history yet.
    insert(&client, 3).await?;
    server.kill()?;
    ensure!(!folder.data().join("warehouse/public").exists(), "the tables are not in the data directory");

    let mut server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    run(&client, "CHECKPOINT").await?;
    let after = rows(&client, STEPS).await?;
    ensure!(after[..before.len()] == before[..] && after.len() == before.len() + 2, "{before:?} {after:?}");
    run(&client, "OPTIMIZE history.counted").await?;
    run(&client, "VACUUM history.counted RETAIN '0 seconds'").await?;
    ensure!(rows(&client, STEPS).await? == after, "the same rows in other files");
    run(&client, "CREATE TABLE labels (u BIGINT, ts TIMESTAMPTZ)").await?;
    run(&client, "INSERT INTO labels VALUES (1, '2026-03-01 10:01:10Z'), (2, '2026-03-01 10:02:40Z')").await?;
    let joined = "SELECT f.n FROM labels l ASOF LEFT JOIN counted f ON l.u = f.u AND l.ts >= f.at ORDER BY l.u";
    let joined = rows(&client, joined).await?;
    ensure!(joined == [[Some("2".to_string())], [Some("3".to_string())]], "the rows as of the labels: {joined:?}");
    // What is kept of it is beside history, for other engines; nothing else goes there.
    run(
        &client,
        "CREATE TRAINING SET trained AS
             SELECT l.u, f.n FROM labels l ASOF LEFT JOIN counted f ON l.u = f.u AND l.ts >= f.at",
    )
    .await?;
    let key = url.trim_start_matches("s3://lake/");
    let list = format!("GET /lake?list-type=2&prefix={key}/public/trained- HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let list = String::from_utf8_lossy(&forward(s3.port(), &list, b"").await?).to_string();
    ensure!(list.contains("/data/") && list.contains("-00000.parquet</Key>") && list.contains("/snap-"), "{list}");
    refused(&client, &format!("COPY labels TO '{url}/labels.csv' (FORMAT csv)"), "is in the warehouse").await?;
    // No secret is shown.
    for shown in rows(&client, "SHOW ALL").await? {
        ensure!(!shown.iter().flatten().any(|text| text.contains("testsecret")), "{shown:?}");
    }
    ensure!(server.terminate().await?.success(), "the server ends in order");
    ensure!(!folder.log_tail().contains("testsecret"), "the log has a secret");

    // Of two copies the one that was started last goes on, and the other is refused.
    let copy = self::folder()?;
    std::fs::create_dir_all(copy.data())?;
    let copied = Command::new("cp").arg("-a").arg(folder.data().join(".")).arg(copy.data()).status()?;
    ensure!(copied.success(), "the directory cannot be copied");
    let later = Server::start_with(&copy, &arguments).await?;
    insert(&later.connect().await?, 5).await?;
    for (arguments, said) in [
        (&arguments[..], "was used last by a copy of data directory"),
        (&["--s3-endpoint", &endpoint][..], "start the server with --warehouse s3://"),
        (&["--warehouse", "s3://lake/elsewhere", "--s3-endpoint", &endpoint][..], "cannot be moved to"),
    ] {
        let mut refused = Server::spawn(&folder, arguments)?;
        ensure!(!refused.ended().await?.success(), "a start with {arguments:?}");
        ensure!(folder.log_tail().contains(said), "{said}: {}", folder.log_tail());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_stops_history_and_nothing_else_and_then_all_of_it_is_there() -> Result<()> {
    let Some(s3) = S3Server::shared()? else {
        return skipped("TIDEMARK_TEST_S3_PYTHON is not set; scripts/setup.sh test makes it");
    };
    let proxy = Proxy::before(s3.port(), |_, _| None).await?;
    let (folder, url, endpoint) = (folder()?, s3.prefix(), proxy.endpoint());
    let arguments = ["--warehouse", &url, "--s3-endpoint", &endpoint, "--commit-interval", "100ms"];
    let server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    make(&client).await?;
    insert(&client, 0).await?;
    run(&client, "CHECKPOINT").await?;
    proxy.set(|number, _| Some([Fault::SlowDown, Fault::Reset, Fault::AnswerLost][number as usize % 3]));
    insert(&client, 1).await?;
    let begun = proxy.requests();
    let lookup = "SELECT n FROM counted WHERE u = 1";
    while proxy.requests() < begun + 12 {
        ensure!(value(&client, lookup).await?.as_deref() == Some("2"), "lookups go on");
        tokio::time::sleep(crate::POLL).await;
    }
    proxy.set(|_, _| None);
    insert(&client, 2).await?;
    comes(&client, "SELECT count(*) FROM history.counted", "5").await.context("every step, once")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_behind_a_rest_catalog_goes_on_after_a_kill_and_answers_that_were_lost() -> Result<()> {
    let Some(catalog) = RestCatalog::shared()? else {
        return skipped(
            "tests/services/.iceberg-rest or TIDEMARK_TEST_S3_PYTHON is missing; scripts/setup.sh test makes it",
        );
    };
    let proxy = Proxy::before(catalog.port(), |_, _| None).await?;
    let (mut folder, url, s3) = (folder()?, catalog.s3.prefix(), catalog.s3.endpoint());
    folder.set("TIDEMARK_HISTORY_CATALOG_CREDENTIAL", "a.bearer.token".into());
    let rest = format!("rest+{}?prefix=server_", catalog.behind(&proxy.endpoint()));
    let bucket = ["--warehouse", &url, "--s3-endpoint", &s3, "--commit-interval", "100ms"];
    let arguments = [&bucket[..], &["--history-catalog", &rest]].concat();
    let mut server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    make(&client).await?;
    insert(&client, 0).await?;
    // Every commit is done, and no answer to one comes: the table tells.
    proxy.set(|_, line| line.starts_with("POST").then_some(Fault::AnswerLost));
    for minute in 1..4 {
        insert(&client, minute).await?;
        let steps = (2 * minute + 1).to_string();
        comes(&client, "SELECT count(*) FROM history.counted", &steps)
            .await
            .context("a commit of which nobody knows")?;
    }
    proxy.set(|_, _| None);
    insert(&client, 4).await?;
    server.kill()?;

    let server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    comes(&client, "SELECT count(*) FROM history.counted", "9").await?;
    comes(&client, "SELECT count(*) FROM (SELECT DISTINCT u, at FROM history.counted) steps", "9").await?;
    run(&client, "OPTIMIZE history.counted").await?;
    run(&client, "VACUUM history.counted RETAIN '0 seconds'").await?;
    comes(&client, "SELECT count(*) FROM history.counted WHERE n > 0", "9").await?;
    ensure!(!folder.data().join("warehouse/catalog.db").exists(), "there is no other catalog");
    for shown in rows(&client, "SHOW ALL").await? {
        ensure!(!shown.iter().flatten().any(|text| text.contains("a.bearer.token")), "{shown:?}");
    }
    drop((client, server));
    let mut refused = Server::spawn(&folder, &bucket)?;
    ensure!(!refused.ended().await?.success(), "a start without the catalog");
    ensure!(
        folder.log_tail().contains("start the server with --history-catalog rest+http://"),
        "{}",
        folder.log_tail()
    );
    ensure!(!folder.log_tail().contains("a.bearer.token"), "the log has a secret");
    Ok(())
}
