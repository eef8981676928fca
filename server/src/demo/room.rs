//! Where the demo keeps its data: `.tidemark-demo`, made anew every time, or a directory of the user's that is new.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use tidemark_connectors::lock::DirLock;

const OWN: &str = ".tidemark-demo";

/// An empty directory, by its absolute path. Only what an earlier demo made under its own name is ever removed.
pub fn prepare(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let place = std::path::absolute(wanted.unwrap_or(Path::new(OWN))).context("cannot tell the current directory")?;
    let shown = place.display();
    let is_empty = match std::fs::read_dir(&place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("cannot read directory {shown}")),
    };
    if !is_empty {
        let data = place.join("data");
        if wanted.is_some() || !data.join("LOCK").exists() {
            bail!("directory {shown} is not empty\nHINT: the demo begins from nothing; give --data a new directory");
        }
        // Not under the feet of a demo that still runs.
        drop(DirLock::acquire(&data)?);
        std::fs::remove_dir_all(&place).with_context(|| format!("cannot remove the last demo's directory {shown}"))?;
    }
    std::fs::create_dir_all(&place).with_context(|| format!("cannot make directory {shown}"))?;
    Ok(place)
}
