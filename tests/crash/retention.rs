//! A log that retention has shortened: views that lived through what is gone keep their history, views made later say
//! from when on they know, and both say the same after a crash.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Small segments, because retention removes whole ones.
const SEGMENTS: [&str; 2] = ["--log-segment-bytes", "16KB"];
const ROWS: usize = 120;

fn view(name: &str) -> String {
    format!(
        "CREATE FEATURE VIEW {name} AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at \
         RANGE INTERVAL '1 second' PRECEDING) AS n FROM s"
    )
}

/// Files of the one log there is.
fn segments(folder: &Folder) -> Result<usize> {
    let log = std::fs::read_dir(folder.data().join("log"))?.next().context("no log")??;
    Ok(std::fs::read_dir(log.path())?.count())
}

/// What the catalog says of both views, and what readers are told before, at and after the start of each.
async fn told(client: &Client, first_us: &str) -> Result<Vec<Vec<Option<String>>>> {
    let mut all = rows(
        client,
        "SELECT name, history_start, complete_from, complete_from - history_start FROM tidemark.feature_views ORDER BY name",
    )
    .await?;
    for (view, at) in [("early", "2026-03-02 10:00:01+00"), ("late", first_us), ("early", first_us)] {
        let sql = format!("SELECT n FROM {view} FOR SYSTEM_TIME AS OF TIMESTAMPTZ '{at}' WHERE k = 1");
        all.extend(rows(client, &sql).await.context(sql)?);
    }
    let refused = client
        .simple_query("SELECT n FROM late FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-02 10:00:01+00' WHERE k = 1")
        .await;
    let error = refused.err().context("the late view had values before its history")?;
    all.push(vec![
        error.code().map(|code| code.code().to_owned()),
        error.as_db_error().map(|e| e.message().to_owned()),
    ]);
    let labels = "SELECT e.n, l.n FROM (VALUES (1, TIMESTAMPTZ '2026-03-02 10:00:01+00')) AS x (k, ts) \
                  ASOF LEFT JOIN early e ON x.k = e.k AND x.ts >= e.at ASOF LEFT JOIN late l ON x.k = l.k AND x.ts >= l.at";
    all.extend(rows(client, labels).await.context(labels)?);
    Ok(all)
}

#[tokio::test]
async fn a_view_made_after_retention_says_from_when_on_it_knows_and_so_it_stays() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start_with(&folder, &SEGMENTS).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) \
             WITH (clock = 'event', retention = '1 second')",
        )
        .await?;
    client.batch_execute(&view("early")).await?;
    let filler = "x".repeat(1000);
    for n in 0..ROWS {
        let at = format!("2026-03-02 10:{:02}:{:02}+00", n / 60, n % 60);
        client.batch_execute(&format!("INSERT INTO s VALUES (1, '{filler}', '{at}')")).await?;
    }
    // Retention is by the server's clock. The newest segment stays: then nothing changes any more.
    let started = Instant::now();
    while segments(&folder)? > 1 {
        ensure!(started.elapsed() < Duration::from_secs(60), "nothing is removed\n{}", folder.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.batch_execute("CHECKPOINT").await?;
    }
    let first = value(&client, "SELECT min(at) FROM s").await?.context("the newest segment stays")?;
    client.batch_execute(&view("late")).await?;
    let before = told(&client, &first).await?;
    let shown = |row: usize, column: usize| before[row][column].as_deref().unwrap_or("NULL");
    ensure!((shown(0, 0), shown(0, 1)) == ("early", "2026-03-02 10:00:00+00"), "{before:?}");
    ensure!((shown(0, 3), shown(1, 3)) == ("00:00:01", "00:00:01"), "{before:?}");
    // Just after the last event that is gone, which came a second before the first that is left.
    let start = value(&client, "SELECT min(at) - INTERVAL '1 second' + INTERVAL '1 microsecond' FROM s").await?;
    let source = value(&client, "SELECT history_start FROM tidemark.sources WHERE name = 's'").await?;
    ensure!(before[1][1] == start && source == start, "{before:?} {start:?} {source:?}");
    // Of the two events in the frame the late view has met one.
    ensure!((shown(2, 0), shown(3, 0), shown(4, 0)) == ("2", "1", "2"), "{before:?}");
    ensure!(shown(5, 0) == "22023" && shown(5, 1).contains("lies before the history of feature view \"late\""));
    ensure!((shown(6, 0), shown(6, 1)) == ("2", "NULL"), "{before:?}");

    for graceful in [false, true] {
        match graceful {
            true => drop(server.terminate().await?),
            false => server.kill()?,
        }
        server = Server::start_with(&folder, &SEGMENTS).await?;
        let after = told(&server.connect().await?, &first).await?;
        ensure!(after == before, "before {before:?}\nafter {after:?}\n{}", folder.log_tail());
    }
    Ok(())
}
