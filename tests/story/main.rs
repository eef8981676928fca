//! The stories of `sql_examples` at a real server: every file prints what its folder's `expected/` says, and programs that
//! are not ours read the same values out of what the server left behind.
//!
//! `TIDEMARK_TEST_REWRITE=1` writes `expected/` anew; read what changed before it is committed. Python's part needs
//! `TIDEMARK_PYTHON`: a Python with `sql_examples/flights/requirements.txt` installed.

// The seams rule the product; a test may wait for a server.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../server/mod.rs"]
mod server;

mod binary;
mod example;
mod foreign;
mod tour;

use anyhow::Result;
use example::Example;
use server::{Folder, Server};

/// One test, as everything after the first file needs the year of flights that the first files load.
#[tokio::test(flavor = "multi_thread")]
async fn the_flights_story_prints_what_it_says_and_others_read_the_same_from_its_history() -> Result<()> {
    let flights = Example::new("flights");
    flights.derive()?;
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let mut differing = Vec::new();
    for file in flights.files()? {
        if let Err(error) = flights.check(&file, server.port) {
            differing.push(format!("{error:#}"));
        }
    }
    if example::is_installed("psql") {
        for name in ["04_lookups", "06_history", "08_explain"] {
            differing.extend(flights.check_by_psql(name, server.port).err().map(|error| format!("{error:#}")));
        }
    } else {
        server::skipped("psql is not installed")?;
    }
    anyhow::ensure!(differing.is_empty(), "{}\nserver log:\n{}", differing.join("\n"), folder.log_tail());
    foreign::training_set_is_what_duckdb_computes_from_the_events(&flights, &folder)?;
    foreign::history_joined_by_duckdb_is_the_training_set(&flights, &folder)?;
    foreign::lookups_beside_a_stream_count_every_event(&flights, server.port)
}
