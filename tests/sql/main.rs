//! The SQL surface, told by files: `tests/sql/*.slt` hold one statement or idea each, and run against a real server in
//! the simple and in the extended protocol. They are the specification a user can read.
//!
//! `TIDEMARK_TEST_SLT=name` runs the files whose name contains it. `TIDEMARK_TEST_SLT_REWRITE=1` writes what the server answers
//! into the files (in the simple protocol): read the difference before you commit it.

// The seams rule the product; a test may wait for a server.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../server/mod.rs"]
mod server;

mod session;
mod sqlstates;
mod text;

use anyhow::{Context, Result, bail};
use server::{Folder, Server};
use session::{Protocol, Session};
use sqllogictest::{
    DefaultColumnType, Record, Runner, default_column_validator, default_normalizer, default_validator,
};
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_holds_in_the_simple_protocol() -> Result<()> {
    run_all(Protocol::Simple).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_holds_in_the_extended_protocol() -> Result<()> {
    run_all(Protocol::Extended).await
}

fn files() -> Result<Vec<PathBuf>> {
    let wanted = std::env::var("TIDEMARK_TEST_SLT").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut files = vec![];
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "slt") && name.contains(&wanted) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("no file in {} is called {wanted}", folder.display());
    }
    Ok(files)
}

/// All files on one server, one after the other: each drops what it creates, and what it left behind is reported.
async fn run_all(protocol: Protocol) -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let mut failures = vec![];
    for file in files()? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        failures.extend(run_file(&file, &server, protocol).await.with_context(|| name.clone())?);
        if !server.is_running() {
            bail!("the server is gone after {name}\n{}\n{}", failures.join("\n"), folder.log_tail());
        }
        for left in sweep(&server).await.with_context(|| format!("after {name}"))? {
            failures.push(format!("{name} left {left} behind"));
        }
    }
    if !failures.is_empty() {
        bail!("{} failures ({protocol:?} protocol)\n\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

/// Runs the whole file, also after a failure; returns what failed.
async fn run_file(file: &Path, server: &Server, protocol: Protocol) -> Result<Vec<String>> {
    let mut runner = Runner::new(|| async { Session::open(server, protocol).await });
    if protocol == Protocol::Simple && std::env::var("TIDEMARK_TEST_SLT_REWRITE").is_ok() {
        let rewritten =
            runner.update_test_file(file, " ", default_validator, default_normalizer, default_column_validator).await;
        runner.shutdown_async().await;
        return rewritten.map(|()| vec![]).map_err(|error| anyhow::anyhow!("{error}"));
    }
    let records: Vec<Record<DefaultColumnType>> = sqllogictest::parse_file(file)?;
    let mut failures = vec![];
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        if let Err(error) = runner.run_async(record).await {
            failures.push(error.display(false).to_string());
        }
    }
    runner.shutdown_async().await;
    Ok(failures)
}

/// Drops every object that is left, and says what it was.
async fn sweep(server: &Server) -> Result<Vec<String>> {
    let client = server.connect().await?;
    let mut left = vec![];
    for kind in ["VIEW", "TRAINING SET", "FEATURE VIEW", "TABLE", "SOURCE", "AGGREGATE"] {
        for row in server::rows(&client, &format!("SHOW {kind}S")).await? {
            let name = row.first().cloned().flatten().unwrap_or_default();
            // It may have gone with another one.
            let _ = client.simple_query(&format!("DROP {kind} IF EXISTS \"{name}\" CASCADE")).await;
            left.push(format!("{} {name}", kind.to_lowercase()));
        }
    }
    Ok(left)
}
