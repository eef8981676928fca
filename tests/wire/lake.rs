//! Iceberg tables of somebody else's: PyIceberg writes one whose shape changes as it goes, and it is read by name and type as it is
//! now; and our own history, read as if it were somebody else's.

use crate::{
    python::python,
    server::{Folder, Server, rows, shown},
};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tokio_postgres::Client;

/// Each row as one text.
async fn lines(client: &Client, sql: &str) -> Result<Vec<String>> {
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|cell| cell.unwrap_or("NULL".into())).collect::<Vec<_>>().join(" ")
    };
    Ok(rows(client, sql).await?.into_iter().map(text).collect())
}

/// How many data files a query reads, by its plan.
async fn files(client: &Client, condition: &str) -> Result<usize> {
    let plan = lines(client, &format!("EXPLAIN SELECT id, at FROM rides WHERE {condition}")).await?.join("\n");
    Ok(plan.matches(".parquet").count())
}

async fn refused(client: &Client, sql: &str) -> Result<String> {
    Ok(shown(&client.batch_execute(sql).await.err().context(sql.to_owned())?))
}

fn metadata(table: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(table.join("metadata"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".metadata.json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn a_table_that_pyiceberg_writes_is_read_as_it_is_now() -> Result<()> {
    let Some(python) = python("TIDEMARK_LAKE_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let lake = folder.path().join("lake");
    std::fs::create_dir(&lake)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/write_lake.py");
    let output = tokio::process::Command::new(python).arg(script).arg(&lake).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;

    let table = lake.join("n/rides");
    client.batch_execute("CREATE TABLE rides WITH (connector = 'iceberg', path = 'lake/n/rides')").await?;
    let columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'rides' ORDER BY ordinal_position";
    let expected =
        ["id bigint", "fare numeric", "at timestamp with time zone", "city text", "n bigint", "tip double precision"];
    ensure!(lines(&client, columns).await? == expected);
    // Renamed, added, grown, dropped; by field ids. One row was taken back.
    let expected = [
        "1 1.50 2026-03-01 10:00:00+00 Bonn 1 NULL",
        "2 NULL 2026-03-01 11:00:00+00 Ulm 2 NULL",
        "3 3.00 2026-03-02 10:00:00+00 Bonn 3 NULL",
        "4 4.25 2026-03-02 11:00:00+00 NULL NULL NULL",
        "5 5.00 2026-03-03 10:00:00+00 Bonn 5 0.5",
        "7 7.00 2026-03-03 12:00:00+00 Ulm 7 NULL",
    ];
    let all = lines(&client, "SELECT * FROM rides ORDER BY id").await?;
    ensure!(all == expected, "{all:?}");
    ensure!(lines(&client, "SELECT count(*), sum(fare), count(tip) FROM rides").await? == ["6 20.75 1"]);
    ensure!(lines(&client, "SELECT id FROM rides WHERE tip > 0.25").await? == ["5"]);
    ensure!(lines(&client, "SELECT id FROM rides WHERE city IS NULL").await? == ["4"]);
    ensure!(lines(&client, "SELECT fare, id FROM rides WHERE n = 5").await? == ["5.00 5"]);
    // Files are pruned by their bounds and by identity partitions.
    let all = files(&client, "true").await?;
    ensure!(all == 6, "{all} files");
    for (condition, expected) in [
        ("id = 1", 1),
        ("at >= '2026-03-03 00:00:00+00'", 2),
        ("city = 'Ulm'", 2),
        ("city = 'Ulm' AND at < '2026-03-02 00:00:00+00'", 1),
        ("city IS NULL", 1),
        ("id > 100", 0),
    ] {
        let read = files(&client, condition).await?;
        ensure!(read == expected, "{condition}: {read} files");
    }
    // On the right of an ASOF JOIN.
    let joined = "SELECT l.id, r.fare FROM (VALUES (1::bigint, TIMESTAMPTZ '2026-03-05 00:00:00+00'), \
                  (5::bigint, TIMESTAMPTZ '2026-03-03 09:00:00+00')) AS l (id, at) \
                  ASOF LEFT JOIN rides r ON l.id = r.id AND l.at >= r.at ORDER BY l.id";
    ensure!(lines(&client, joined).await? == ["1 1.50", "5 NULL"]);

    // Columns may be declared: fewer, and wider.
    client
        .batch_execute(
            "CREATE TABLE few (fare NUMERIC(10,3), id BIGINT) WITH (connector = 'iceberg', path = 'lake/n/rides')",
        )
        .await?;
    ensure!(lines(&client, "SELECT * FROM few WHERE id = 1").await? == ["1.500 1"]);
    let gone = "CREATE TABLE bad (price NUMERIC(8,2)) WITH (connector = 'iceberg', path = 'lake/n/rides')";
    let error = refused(&client, gone).await?;
    ensure!(error.starts_with("42703: ") && error.contains("has no column \"price\""), "{error}");
    let narrow = "CREATE TABLE bad (n INTEGER) WITH (connector = 'iceberg', path = 'lake/n/rides')";
    let error = refused(&client, narrow).await?;
    ensure!(error.starts_with("42804: ") && error.contains("is bigint, not integer"), "{error}");

    // Two files of one version: nobody can tell which counts, but who names one.
    let versions = metadata(&table)?;
    let latest = versions.last().context("a metadata file")?;
    std::fs::copy(latest, table.join("metadata/00004-other.metadata.json"))?;
    let error = shown(&client.simple_query("SELECT count(*) FROM rides").await.err().context("an answer")?);
    ensure!(error.starts_with("55000: ") && error.contains("00004-other.metadata.json"), "{error}");
    let first = format!(
        "CREATE TABLE once WITH (connector = 'iceberg', path = '{}')",
        versions.get(1).context("the first commit")?.display()
    );
    client.batch_execute(&first).await?;
    ensure!(lines(&client, "SELECT id, price, gone FROM once WHERE id = 1").await? == ["1 1.50 a"]);
    Ok(())
}

#[tokio::test]
async fn our_own_history_is_an_iceberg_table_like_others() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE clicks (k BIGINT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW spend AS SELECT k, at, sum(x) OVER (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING) AS total FROM clicks;
             INSERT INTO clicks VALUES (1, 0.5, '2026-02-28 23:50:00+00'), (2, 1.5, '2026-03-01 00:10:00+00'), (1, 2, '2026-03-01 00:20:00+00');
             ALTER SOURCE clicks ADVANCE WATERMARK TO TIMESTAMPTZ '2026-03-02 00:00:00+00';
             CHECKPOINT",
        )
        .await?;
    let public = folder.data().join("warehouse/public");
    let mut found = None;
    for entry in std::fs::read_dir(&public)? {
        let entry = entry?;
        found = Some(entry.path()).filter(|_| entry.file_name().to_string_lossy().starts_with("spend-")).or(found);
    }
    let table = found.context("the table's folder")?;
    client
        .batch_execute(&format!("CREATE TABLE own WITH (connector = 'iceberg', path = '{}')", table.display()))
        .await?;
    let (own, history) = ("SELECT * FROM own ORDER BY k, at", "SELECT * FROM history.spend ORDER BY k, at");
    let (own, history) = (lines(&client, own).await?, lines(&client, history).await?);
    ensure!(own == history && own.len() > 4, "{own:?}\n{history:?}");
    Ok(())
}
