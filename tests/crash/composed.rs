//! A feature view that calls an aggregate of the user's is planned from its text at every start: after a kill it is the view that
//! it was, under the aggregate's new name too.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Result, ensure};

#[tokio::test]
async fn a_view_over_an_aggregate_of_the_users_goes_on_after_a_kill_and_a_rename() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT, x BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE AGGREGATE mean_of(x BIGINT) AS sum(x)::double precision / count(x);
             CREATE AGGREGATE above(x BIGINT) AS max(x) - mean_of(x);
             CREATE FEATURE VIEW v AS SELECT k, at, above(x) OVER (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING) AS a FROM s;
             INSERT INTO s VALUES (1, 1, '2026-03-02 10:00:00+00'), (1, 5, '2026-03-02 10:01:00+00');
             CHECKPOINT;
             ALTER AGGREGATE mean_of RENAME TO average_of;
             ALTER AGGREGATE above RENAME TO \"Above\"",
        )
        .await?;
    let read = "SELECT a FROM v WHERE k = 1";
    ensure!(value(&client, read).await?.as_deref() == Some("2"));
    server.kill()?;

    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    ensure!(value(&client, read).await?.as_deref() == Some("2"), "{}", folder.log_tail());
    client.batch_execute("INSERT INTO s VALUES (1, 12, '2026-03-02 10:30:00+00'); CHECKPOINT").await?;
    ensure!(value(&client, read).await?.as_deref() == Some("6"));
    ensure!(value(&client, "SELECT count(*) FROM history.v").await?.as_deref() == Some("2"));
    ensure!(value(&client, "SELECT \"Above\"(x) FROM s").await?.as_deref() == Some("6"));
    let refused = client.batch_execute("DROP AGGREGATE average_of").await;
    ensure!(refused.is_err_and(|error| error.code().is_some_and(|code| code.code() == "2BP01")));
    ensure!(rows(&client, "SHOW AGGREGATES").await?.len() == 2);
    Ok(())
}
