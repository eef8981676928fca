//! The clickstream story as a newcomer runs it, for a few seconds: everything starts, nothing is lost, everything stops.

use crate::server::skipped;
use anyhow::{Context, Result, ensure};
use std::{path::Path, process::Command};

#[test]
fn the_clickstream_story_runs_and_stops() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (needed, what) in [("tests/services/.kafka", "Kafka's jars"), (".venv-clickstream", "its Python packages")] {
        if !root.join(needed).exists() {
            return skipped(&format!("{what} are missing; scripts/setup.sh test fetches them"));
        }
    }
    let first = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().saturating_sub(8);
    let output = Command::new(root.join("sql_examples/clickstream/run.sh"))
        .args(["2000", "4"])
        .env("TIDEMARK_BIN", env!("CARGO_BIN_EXE_tidemark"))
        .env("TIDEMARK_DEMO_PORT", first.to_string())
        .output()?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    let sent: u64 =
        said.lines().find_map(|line| line.strip_suffix(" messages sent")).context("nobody sent")?.parse()?;
    let kept = said.lines().skip_while(|line| !line.contains("dead_letters |")).nth(2).context("no table")?;
    let kept: Vec<u64> = kept.split('|').take(2).map(|cell| cell.trim().parse()).collect::<Result<_, _>>()?;
    ensure!(sent > 1000 && kept.iter().sum::<u64>() == sent && kept[1] > 0, "{sent} were sent, {kept:?} kept\n{said}");
    ensure!(said.contains("newest event that can be read was sent"), "{said}");
    ensure!(said.contains("all of it has stopped"), "{said}");
    Ok(())
}
