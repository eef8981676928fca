//! LISTEN and NOTIFY by the clients that use them: tokio-postgres, psycopg, psql; and what is told of feature views.

use crate::python::psycopg;
use crate::server::{Folder, Server};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Notification};

/// What is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client, and what it is told.
async fn listener(server: &Server) -> Result<(Client, UnboundedReceiver<Notification>)> {
    let (client, mut connection) = server.config().connect(tokio_postgres::NoTls).await?;
    let (told, heard) = unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = told.send(notification);
            }
        }
    });
    Ok((client, heard))
}

async fn next(heard: &mut UnboundedReceiver<Notification>) -> Result<(String, String)> {
    let notification = tokio::time::timeout(PATIENCE, heard.recv()).await.context("nothing is told")?;
    let notification = notification.context("the connection has ended")?;
    Ok((notification.channel().to_owned(), notification.payload().to_owned()))
}

fn on(channel: &str, payload: &str) -> (String, String) {
    (channel.to_owned(), payload.to_owned())
}

#[tokio::test]
async fn who_listens_hears_of_what_was_committed() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (client, mut heard) = listener(&server).await?;
    client.batch_execute("LISTEN jobs").await?;
    let sender = server.connect().await?;
    sender.batch_execute("NOTIFY jobs, 'at once'").await?;
    ensure!(next(&mut heard).await? == on("jobs", "at once"));
    // Of a transaction once and in order, and nothing of one that was rolled back.
    sender.batch_execute("BEGIN; NOTIFY jobs, 'lost'; ROLLBACK").await?;
    sender.batch_execute("BEGIN; NOTIFY jobs, 'a'; NOTIFY jobs, 'b'; NOTIFY jobs, 'a'; NOTIFY other; COMMIT").await?;
    sender.execute("SELECT pg_notify($1, $2)", &[&"jobs", &"c"]).await?;
    for payload in ["a", "b", "c"] {
        ensure!(next(&mut heard).await? == on("jobs", payload));
    }
    // A statement that fails has said nothing.
    ensure!(sender.batch_execute("NOTIFY jobs, 'lost'; SELECT 1 / 0").await.is_err());
    // Within a transaction nothing is heard.
    client.batch_execute("BEGIN").await?;
    sender.batch_execute("NOTIFY jobs, 'later'").await?;
    client.batch_execute("SELECT 1").await?;
    ensure!(heard.try_recv().is_err());
    client.batch_execute("NOTIFY jobs, 'mine'; COMMIT").await?;
    ensure!(next(&mut heard).await? == on("jobs", "later"));
    ensure!(next(&mut heard).await? == on("jobs", "mine"));
    client.batch_execute("UNLISTEN jobs").await?;
    sender.batch_execute("NOTIFY jobs, 'nobody'").await?;
    client.batch_execute("LISTEN jobs; NOTIFY jobs, 'end'").await?;
    ensure!(next(&mut heard).await? == on("jobs", "end"));
    Ok(())
}

#[tokio::test]
async fn what_happens_to_feature_views_is_told() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (client, mut heard) = listener(&server).await?;
    client.batch_execute("LISTEN tidemark").await?;
    let owner = server.connect().await?;
    owner
        .batch_execute(
            "CREATE SOURCE clicks (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW n AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM clicks;
             ALTER FEATURE VIEW n RENAME TO \"N\";
             DROP SOURCE clicks CASCADE",
        )
        .await?;
    for (event, view) in [("created", "n"), ("dropped", "n"), ("created", "N"), ("dropped", "N")] {
        let (channel, payload) = next(&mut heard).await?;
        let told: serde_json::Value = serde_json::from_str(&payload)?;
        ensure!(channel == "tidemark" && told == serde_json::json!({ "event": event, "view": view }), "{payload}");
    }
    Ok(())
}

const SCRIPT: &str = r#"
import sys
import psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as c, psycopg.connect(sys.argv[1], autocommit=True) as other:
    c.execute("LISTEN jobs")
    other.execute("NOTIFY jobs, 'one'")
    other.execute("SELECT pg_notify('jobs', %s)", ("two",))
    heard = [(n.channel, n.payload, n.pid == other.info.backend_pid) for n in c.notifies(timeout=60, stop_after=2)]
    assert heard == [("jobs", "one", True), ("jobs", "two", True)], heard
"#;

#[tokio::test]
async fn psycopg_hears_notifications() -> Result<()> {
    psycopg(SCRIPT).await
}
