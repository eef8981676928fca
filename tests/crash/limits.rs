//! What is in the way of a server: another one on its directory, another one on its port, a full disk. Each is said
//! clearly, and takes nothing down.

use crate::server::{self, Folder, Server, rows, shown, value};
use anyhow::{Context, Result, bail, ensure};
use std::process::{Output, Stdio};

/// Runs a server that is not expected to start, to its end.
async fn refused(port: u16, data: &std::path::Path, more: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::from(server::command(port, data));
    let child = command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.kill_on_drop(true).spawn()?;
    let patience = std::time::Duration::from_secs(30);
    Ok(tokio::time::timeout(patience, child.wait_with_output()).await.context("the server runs")??)
}

fn says(output: &Output, words: &[&str]) -> Result<()> {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!output.status.success(), "it ended with 0: {text}");
    ensure!(!text.contains("panicked"), "{text}");
    for word in words {
        ensure!(text.contains(word), "nothing about {word:?}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_server_on_a_data_directory_is_refused_and_the_first_goes_on() -> Result<()> {
    let folder = Folder::new()?;
    let mut first = Server::start(&folder).await?;
    let output = refused(server::free_port()?, &folder.data(), &[]).await?;
    let directory = folder.data().display().to_string();
    says(&output, &[&directory, "in use by another tidemark server", &first.id().to_string()])?;
    ensure!(first.is_running());
    value(&first.connect().await?, "SELECT 1").await?;
    // The lock goes with its holder, however that ends.
    first.kill()?;
    Server::start(&folder).await?;
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_said_with_its_address_and_a_way_out() -> Result<()> {
    let folder = Folder::new()?;
    let first = Server::start(&folder).await?;
    let other = Folder::new()?;
    let output = refused(first.port, &other.data(), &[]).await?;
    says(&output, &[&format!("127.0.0.1:{}", first.port), "already in use", "--listen"])?;
    value(&first.connect().await?, "SELECT 1").await?;
    Ok(())
}

#[tokio::test]
async fn listening_beyond_loopback_is_refused_while_no_role_has_a_password() -> Result<()> {
    let folder = Folder::new()?;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(folder.data());
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
    says(&output, &["0.0.0.0", "loopback"])
}

#[tokio::test]
async fn a_full_log_refuses_rows_with_53100_and_everything_else_goes_on() -> Result<()> {
    const LOG: [&str; 4] = ["--log-max-bytes", "200KB", "--log-segment-bytes", "64KB"];
    let folder = Folder::new()?;
    let server = Server::start_with(&folder, &LOG).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE filled (k BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW counts AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM filled;
             CREATE TABLE other (a BIGINT)",
        )
        .await?;
    let row = format!("(1, '{}', '2026-03-02 10:00:00+00')", "x".repeat(500));
    let batch = format!("INSERT INTO filled VALUES {}", [row.as_str(); 10].join(", "));
    let mut acknowledged = 0u64;
    let error = loop {
        match client.batch_execute(&batch).await {
            Ok(()) => acknowledged += 10,
            Err(error) => break error,
        }
        ensure!(acknowledged < 10_000, "the log takes more than it may");
    };
    ensure!(error.code().is_some_and(|code| code.code() == "53100"), "{}", shown(&error));
    let Some(said) = error.as_db_error() else { bail!("{error}") };
    ensure!(said.message().contains("filled"), "it does not name the source: {}", shown(&error));
    ensure!(said.hint().is_some(), "it gives no way out: {}", shown(&error));
    ensure!(acknowledged > 0, "nothing went in");

    // COPY is told the same.
    let copy = async {
        let sink = client.copy_in("COPY filled FROM STDIN").await?;
        let mut sink = std::pin::pin!(sink);
        let lines = format!("1\t{}\t2026-03-02 10:00:00+00\n", "x".repeat(500)).repeat(200);
        futures::SinkExt::send(&mut sink, bytes::Bytes::from(lines)).await?;
        sink.finish().await
    };
    let Err(error) = copy.await else { bail!("COPY into a full log went in") };
    ensure!(error.code().is_some_and(|code| code.code() == "53100"), "{}", shown(&error));

    // All others live on: lookups, scans, checkpoints, other logs.
    let holds = async |client: &tokio_postgres::Client| -> Result<()> {
        let count = Some(acknowledged.to_string());
        ensure!(value(client, "SELECT n FROM counts WHERE k = 1").await? == count);
        ensure!(value(client, "SELECT count(*) FROM filled").await? == count);
        client.batch_execute("INSERT INTO other VALUES (1); CHECKPOINT").await?;
        Ok(())
    };
    holds(&client).await.with_context(|| folder.log_tail())?;
    drop(server);
    let server = Server::start_with(&folder, &LOG).await?;
    let client = server.connect().await?;
    holds(&client).await.context("after a restart")?;
    ensure!(rows(&client, "SELECT * FROM other").await?.len() == 2);
    // With more room it takes rows again.
    drop(server);
    let server = Server::start(&folder).await?;
    server.connect().await?.batch_execute(&batch).await?;
    Ok(())
}

/// Takes up room until so much is left.
fn fill(disk: &std::path::Path, left: u64) -> Result<std::path::PathBuf> {
    let ballast = disk.join("ballast");
    let mut file = std::fs::File::create(&ballast)?;
    let piece = vec![7; 64 << 10];
    // Asked of the disk, as nobody else can know what else is on it.
    while available(disk)? > left {
        std::io::Write::write_all(&mut file, &piece)?;
    }
    Ok(ballast)
}

/// `df`'s answer in bytes.
fn available(disk: &std::path::Path) -> Result<u64> {
    let output = std::process::Command::new("df").args(["-Pk"]).arg(disk).output().context("df")?;
    let text = String::from_utf8(output.stdout)?;
    let kilobytes = text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).context(text.clone())?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

/// What was refused, as a full disk is: with its SQLSTATE and a way out.
fn is_disk_full<T>(outcome: Result<T, tokio_postgres::Error>, what: &str) -> Result<()> {
    let Err(error) = outcome else { bail!("{what} succeeds on a full disk") };
    let Some(said) = error.as_db_error() else { bail!("{what}: {error}") };
    ensure!(said.code().code() == "53100", "{what}: {}", shown(&error));
    ensure!(said.hint().is_some(), "{what} gives no way out: {}", shown(&error));
    Ok(())
}

/// Needs `TIDEMARK_SMALL_DISK`: a folder on a file system of some 100 MB, which `scripts/test.sh` makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_with_53100_and_loses_nothing() -> Result<()> {
    let Some(disk) = std::env::var_os("TIDEMARK_SMALL_DISK").filter(|disk| !disk.is_empty()) else {
        return server::skipped("TIDEMARK_SMALL_DISK is not set: a folder on a small disk");
    };
    let disk = std::path::PathBuf::from(disk);
    let folder = Folder::with_data_on(&disk)?;
    let outcome = fill_and_free(&folder, &disk).await;
    outcome.with_context(|| folder.log_tail())
}

async fn fill_and_free(folder: &Folder, disk: &std::path::Path) -> Result<()> {
    // Nothing happens by itself, so that it is the statements that meet the full disk.
    const QUIET: [&str; 4] = ["--commit-interval", "1h", "--checkpoint-interval", "1h"];
    let mut server = Server::start_with(folder, &QUIET).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE filled (k BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW counts AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM filled;
             INSERT INTO filled VALUES (1, 'first', '2026-03-02 10:00:00+00');
             CHECKPOINT",
        )
        .await?;
    let mut acknowledged = 1u64;
    let row = format!("(1, '{}', '2026-03-02 11:00:00+00')", "x".repeat(5_000));
    let batch = format!("INSERT INTO filled VALUES {}", [row.as_str(); 10].join(", "));

    // No room for state: CHECKPOINT says so; there is still some for the log.
    let ballast = fill(disk, 4 << 20)?;
    client.batch_execute(&batch).await?;
    acknowledged += 10;
    is_disk_full(client.batch_execute("CHECKPOINT").await, "CHECKPOINT")?;
    for (file, format) in [("out.csv", "csv"), ("out.parquet", "parquet")] {
        let path = disk.join(file);
        let sql = format!(
            "COPY (SELECT md5(random()::text) AS x FROM filled a, filled b, filled c, filled d, filled e, filled f) \
             TO '{}' (FORMAT {format})",
            path.display()
        );
        is_disk_full(client.batch_execute(&sql).await, &sql)?;
        ensure!(!path.exists(), "half of {file} is there");
        for entry in std::fs::read_dir(disk)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            ensure!(!name.ends_with(".part"), "{name} was left behind");
        }
    }
    // Nor for rows.
    let error = loop {
        match client.batch_execute(&batch).await {
            Ok(()) => acknowledged += 10,
            Err(error) => break error,
        }
        ensure!(acknowledged < 10_000, "the disk takes more than it has");
    };
    is_disk_full(Err::<(), _>(error), "INSERT")?;
    let mut more = std::fs::File::options().append(true).open(&ballast)?;
    // To the last byte: the catalog's file is small.
    while std::io::Write::write_all(&mut more, &[7; 512]).is_ok() {}
    let create = format!("CREATE VIEW wide AS SELECT '{}' AS text", "x".repeat(100_000));
    is_disk_full(client.batch_execute(&create).await, "CREATE VIEW")?;
    let create =
        "CREATE FEATURE VIEW more AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM filled";
    is_disk_full(client.batch_execute(create).await, "CREATE FEATURE VIEW")?;

    // It lives on, and answers.
    ensure!(server.is_running());
    let holds = async |client: &tokio_postgres::Client, count: u64| -> Result<()> {
        let count = Some(count.to_string());
        ensure!(value(client, "SELECT n FROM counts WHERE k = 1").await? == count, "the lookup is not {count:?}");
        ensure!(value(client, "SELECT count(*) FROM filled").await? == count, "the source has not {count:?} rows");
        Ok(())
    };
    holds(&client, acknowledged).await?;
    // With room again everything goes on, without a restart.
    drop(more);
    std::fs::remove_file(&ballast)?;
    client.batch_execute(&batch).await.context("with room again")?;
    acknowledged += 10;
    client.batch_execute("CHECKPOINT").await.context("with room again")?;
    client.batch_execute(create).await.context("with room again")?;
    client
        .batch_execute("ALTER SOURCE filled ADVANCE WATERMARK TO TIMESTAMPTZ '2026-03-02 12:00:00+00'; CHECKPOINT")
        .await?;
    ensure!(value(&client, "SELECT count(*) FROM history.counts").await? == Some("2".into()));
    // And after a crash on a full disk nothing is lost.
    let ballast = fill(disk, 1 << 20)?;
    client.batch_execute(&batch.replace("11:00:00", "13:00:00")).await?;
    acknowledged += 10;
    server.kill()?;
    std::fs::remove_file(ballast)?;
    let server = Server::start_with(folder, &QUIET).await?;
    let client = server.connect().await?;
    holds(&client, acknowledged).await.context("after a restart")?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(())
}
