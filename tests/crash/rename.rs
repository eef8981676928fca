//! A crash in the middle of `ALTER FEATURE VIEW … RENAME`: the history table has its new name, the catalog has not.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Result, ensure};
use std::sync::Arc;
use tidemark_connectors::{clock::SystemClock, iceberg::IcebergHistory};
use tidemark_engine::seam::HistoryStore;

#[tokio::test]
async fn a_view_keeps_its_history_when_a_crash_cuts_its_rename_in_two() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW before AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
             CREATE FEATURE VIEW other AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
             INSERT INTO s VALUES (1, '2026-03-02 10:00:00+00'), (1, '2026-03-02 10:01:00+00'), (1, '2026-03-02 10:02:00+00');
             CHECKPOINT",
        )
        .await?;
    let history = "SELECT at, n, _op, _recorded_at FROM history.before ORDER BY at";
    let steps = rows(&client, history).await?;
    ensure!(steps.len() == 2, "{steps:?}");
    server.kill()?;

    // What RENAME does first, and then the crash.
    let clock = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
    let warehouse = IcebergHistory::open(&folder.data().join("warehouse"), clock).await?;
    warehouse.rename("before", "after").await?;
    warehouse.close().await;

    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    ensure!(rows(&client, history).await? == steps, "{}", folder.log_tail());
    // It goes on where it was, and the rename can be done again.
    client.batch_execute("INSERT INTO s VALUES (1, '2026-03-02 10:03:00+00'); CHECKPOINT").await?;
    client.batch_execute("ALTER FEATURE VIEW before RENAME TO after").await?;
    ensure!(value(&client, "SELECT count(*) FROM history.after").await?.as_deref() == Some("3"));
    ensure!(value(&client, "SELECT count(*) FROM history.other").await?.as_deref() == Some("3"));
    ensure!(value(&client, "SELECT n FROM after WHERE k = 1").await?.as_deref() == Some("4"));
    Ok(())
}
