//! Spark, which knows nothing of Tidemark, takes features out of the history behind a REST catalog by a join of its own, and comes to
//! what `ASOF JOIN` answers.

use crate::{
    rest_catalog::RestCatalog,
    run,
    server::{Folder, Server, rows, skipped},
};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use tokio::process::Command;

/// Keys that come often, and keys that come four times in hours: their windows are empty between, and they expire.
const EVENTS: &str = "INSERT INTO clicks
     SELECT CASE WHEN n % 100 = 0 THEN 100 + n / 400 ELSE n * 7919 % 23 END,
            CASE WHEN n % 11 <> 0 THEN ((n % 400) * 0.25)::NUMERIC(10,2) END,
            CASE WHEN n % 7 <> 0 THEN 'page ' || (n % 5) END,
            TIMESTAMPTZ '2026-03-02 00:00:00+00' + n * INTERVAL '37 seconds' + (n * n % 977) * INTERVAL '11 milliseconds'
     FROM generate_series(0, 1999) AS g (n)";

/// Labels of keys that are there and that are not, from before the first event on; and at the very instants at which a row begins.
const LABELS: [&str; 3] = [
    "INSERT INTO labels SELECT n, CASE WHEN n % 3 = 0 THEN 100 + n % 6 ELSE n * 31 % 30 END,
            TIMESTAMPTZ '2026-03-01 23:00:00+00' + n * INTERVAL '190 seconds' FROM generate_series(0, 499) AS g (n)",
    "INSERT INTO labels SELECT 1000 + (row_number() OVER (ORDER BY at, u))::BIGINT, u, at FROM (SELECT * FROM clicks ORDER BY at, u LIMIT 200) c",
    // When an event leaves the window, and a microsecond before.
    "INSERT INTO labels SELECT 1000 + id, u, ts + INTERVAL '1 hour' FROM labels WHERE id > 1000
     UNION ALL SELECT 2000 + id, u, ts + INTERVAL '1 hour' - INTERVAL '1 microsecond' FROM labels WHERE id > 1000",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a session of Spark takes half a minute, and its packages are 600 MB"]
async fn spark_comes_to_what_an_asof_join_answers() -> Result<()> {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/.spark-jars");
    let (Ok(python), true) = (std::env::var("TIDEMARK_TEST_SPARK_PYTHON"), jars.exists()) else {
        return skipped(
            "TIDEMARK_TEST_SPARK_PYTHON or tests/services/.spark-jars is missing; setup.sh test-long makes it",
        );
    };
    let Some(catalog) = RestCatalog::shared()? else {
        return skipped("the REST catalog is missing; scripts/setup.sh test makes it");
    };
    let mut folder = Folder::new()?;
    folder.set("AWS_ACCESS_KEY_ID", "testkey".into());
    folder.set("AWS_SECRET_ACCESS_KEY", "testsecret".into());
    let (url, s3) = (catalog.s3.prefix(), catalog.s3.endpoint());
    let rest = format!("rest+{}?prefix=spark_", catalog.endpoint());
    let arguments = ["--warehouse", &url, "--s3-endpoint", &s3, "--history-catalog", &rest];
    let server = Server::start_with(&folder, &arguments).await?;
    let client = server.connect().await?;
    run(
        &client,
        "CREATE SOURCE clicks (u BIGINT NOT NULL, price NUMERIC(10,2), page TEXT, at TIMESTAMPTZ NOT NULL,
             WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (clock = 'event')",
    )
    .await?;
    run(
        &client,
        "CREATE FEATURE VIEW spent WITH (ttl = '2 hours') AS
             SELECT u, at, count(*) OVER w AS n, sum(price) OVER w AS total, page AS last_page FROM clicks
             WINDOW w AS (PARTITION BY u ORDER BY at RANGE INTERVAL '1 hour' PRECEDING)",
    )
    .await?;
    run(&client, "CREATE TABLE labels (id BIGINT, u BIGINT, ts TIMESTAMPTZ)").await?;
    run(&client, EVENTS).await?;
    for labels in LABELS {
        run(&client, labels).await?;
    }
    // Every label is below the frontier, so history has all that they need.
    run(&client, "INSERT INTO clicks VALUES (999, 1, 'last', '2026-03-05 00:00:00+00')").await?;
    run(&client, "CHECKPOINT").await?;
    let labels = rows(&client, "SELECT id, u, ts FROM labels ORDER BY id").await?;
    let joined = "SELECT f.n, f.total, f.last_page FROM labels l ASOF LEFT JOIN spent f ON l.u = f.u AND l.ts >= f.at ORDER BY l.id";
    let ours = rows(&client, joined).await?;
    ensure!(ours.len() == 1100 && labels.len() == 1100, "{} rows", ours.len());
    let empty = ours.iter().filter(|row| row[0].as_deref() == Some("0")).count();
    let absent = ours.iter().filter(|row| row[0].is_none()).count();
    ensure!(empty > 5 && absent > 100 && absent < 700, "{empty} labels in empty windows, {absent} without a row");

    let csv: String = labels
        .iter()
        .map(|row| row.iter().flatten().map(|cell| cell.replace("+00", "Z")).collect::<Vec<_>>().join(",") + "\n")
        .collect();
    let file = folder.path().join("labels.csv");
    std::fs::write(&file, csv)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_spark.py");
    let mut spark = Command::new(python);
    spark.arg(script).arg(jars).args([catalog.endpoint().as_str(), "spark_public", "spent", "u", "at"]).arg(&file);
    spark.args(["n", "total", "last_page"]).current_dir(folder.path()).kill_on_drop(true);
    spark.envs([("AWS_ENDPOINT_URL", s3.as_str()), ("AWS_ACCESS_KEY_ID", "testkey")]);
    spark.envs([("AWS_SECRET_ACCESS_KEY", "testsecret"), ("AWS_REGION", "us-east-1")]);
    let output = spark.output().await.context("Spark")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<Vec<Option<String>>> = serde_json::from_slice(&output.stdout)?;
    ensure!(theirs.len() == ours.len(), "Spark has {} rows", theirs.len());
    for ((label, ours), theirs) in labels.iter().zip(&ours).zip(&theirs) {
        ensure!(ours == theirs, "label {label:?}: {ours:?} here, {theirs:?} by Spark");
    }
    Ok(())
}
