//! The event files of the story: derived once from the raw tables by the example's own script.

use anyhow::{Context, bail};
use std::path::Path;
use std::process::Command;
use tidemark_engine::seam::Clock;

/// Makes sure that `examples` is the story's folder and that its `out/` is there.
pub fn derive(examples: &Path, clock: &dyn Clock) -> anyhow::Result<()> {
    let shown = examples.display();
    if !examples.join("01_sources.sql").is_file() {
        bail!(
            "{shown} is not the folder of the flights story\nHINT: run the demo at the top of the repository, or give \
             --examples PATH/sql_examples/flights"
        );
    }
    let files = ["events.csv", "first_week.csv", "spine.csv", "weather.csv", "planes.csv"];
    let there = |file: &&str| std::fs::metadata(examples.join("out").join(file)).is_ok_and(|file| file.len() > 0);
    if files.iter().all(there) {
        return Ok(());
    }
    println!("Deriving the events from the raw tables, once (about 15 s): {shown}/derive_events.py");
    let begun = clock.now_us();
    let status = match Command::new("python3").arg("derive_events.py").current_dir(examples).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "python3 is missing, which derives the events of the story from the raw tables\nHINT: install Python 3.9 or \
             newer (Debian: apt-get install python3 tzdata), then run the demo again"
        ),
        other => other.context("cannot run python3")?,
    };
    if !status.success() {
        bail!(
            "{shown}/derive_events.py failed ({status}); what it said stands above\nHINT: it needs Python 3.9 or newer and tzdata"
        );
    }
    println!("Derived in {:.0} s.", (clock.now_us() - begun) as f64 / 1e6);
    Ok(())
}
