//! A deprecated feature view tells its readers what to do instead: once in a session, however they read it.

use crate::server::{Folder, Server};
use anyhow::{Context, Result, ensure};

#[tokio::test]
async fn readers_of_a_deprecated_view_are_told_once_in_a_session() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (told, mut notices) = tokio::sync::mpsc::unbounded_channel();
    let connect = || async {
        let (client, mut connection) = server.config().connect(tokio_postgres::NoTls).await?;
        let told = told.clone();
        tokio::spawn(async move {
            let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
                if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                    let _ = told.send(format!("{}: {}", notice.code().code(), notice.message()));
                }
            }
        });
        anyhow::Ok(client)
    };
    let client = connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW old AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
             CREATE VIEW service AS SELECT k, n FROM old;
             INSERT INTO s VALUES (1, '2026-03-02 10:00:00+00')",
        )
        .await?;
    let prepared = client.prepare("SELECT n FROM old WHERE k = $1").await?;
    client.query_one(&prepared, &[&1_i64]).await?;
    ensure!(notices.try_recv().is_err(), "a notice before there was a reason");

    client.batch_execute("ALTER FEATURE VIEW old SET (deprecated = 'use young')").await?;
    let expected = "01P01: feature view \"old\" is deprecated: use young";
    // Who had prepared it before is told too, and told once.
    client.query_one(&prepared, &[&1_i64]).await?;
    ensure!(notices.recv().await.context("no notice")? == expected);
    for sql in ["SELECT n FROM old WHERE k = 1", "SELECT sum(n) FROM old", "SELECT n FROM service WHERE k = 1"] {
        client.simple_query(sql).await?;
    }
    ensure!(notices.try_recv().is_err(), "a second notice in one session");
    // Each way to read it is one that tells.
    let ways = [
        "SELECT n FROM old WHERE k = 1",
        "SELECT n + 1 FROM old WHERE k = 1",
        "SELECT n FROM service WHERE k = 1",
        "PREPARE p AS SELECT n FROM old WHERE k = $1; EXECUTE p(1)",
        "SELECT sum(n) FROM old",
        "SELECT count(*) FROM history.old",
    ];
    for sql in ways {
        let client = connect().await?;
        client.simple_query(sql).await?;
        let notice = notices.recv().await.context(sql)?;
        ensure!(notice == expected, "{sql}: {notice}");
        client.simple_query("SELECT 1").await?;
        ensure!(notices.try_recv().is_err(), "a second notice for {sql}");
    }
    // Taken back.
    client.batch_execute("ALTER FEATURE VIEW old SET (deprecated = '')").await?;
    let client = connect().await?;
    client.simple_query("SELECT n FROM old WHERE k = 1").await?;
    client.simple_query("SELECT 1").await?;
    ensure!(notices.try_recv().is_err(), "a notice of a view that is not deprecated any more");
    Ok(())
}
