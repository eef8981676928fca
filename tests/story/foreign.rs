//! Programs that are not ours: DuckDB over the raw events, PyIceberg and DuckDB over the history, psycopg at the server.

use crate::example::{Example, succeed};
use crate::server::Folder;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Streaming takes longer than it teaches; the whole 100,000 events are for a person at a terminal.
const STREAMED_EVENTS: &str = "30000";

/// The definition, computed by DuckDB's own windows from the file that was loaded, for every row of the spine.
pub fn training_set_is_what_duckdb_computes_from_the_events(example: &Example, folder: &Folder) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/story/by_definition.py");
    run(&script, &[example.folder.join("out/events.csv"), folder.path().join("train.parquet")])
}

pub fn history_joined_by_duckdb_is_the_training_set(example: &Example, folder: &Folder) -> Result<()> {
    let train = folder.path().join("train.parquet");
    run(&example.folder.join("read_history.py"), &["--data".into(), folder.data(), "--train".into(), train])
}

pub fn lookups_beside_a_stream_count_every_event(example: &Example, port: u16) -> Result<()> {
    let dsn = format!("host=127.0.0.1 port={port} dbname=tidemark user=tidemark");
    run(
        &example.folder.join("lookup_while_streaming.py"),
        &["--dsn".into(), dsn.into(), "--events".into(), STREAMED_EVENTS.into()],
    )
}

fn run(script: &Path, arguments: &[PathBuf]) -> Result<()> {
    let Some(python) = std::env::var_os("TIDEMARK_PYTHON").filter(|python| !python.is_empty()) else {
        return crate::server::skipped(&format!("TIDEMARK_PYTHON is not set ({})", script.display()));
    };
    let begun = Instant::now();
    let printed = succeed(Command::new(python).arg(script).args(arguments))?;
    ensure!(!printed.trim().is_empty(), "{} printed nothing", script.display());
    println!("{:.1?}\n{printed}", begun.elapsed());
    Ok(())
}
