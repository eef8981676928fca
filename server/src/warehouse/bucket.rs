//! A warehouse in a bucket belongs to one data directory, and of its copies to the one that was started last. A bucket
//! cannot be locked, so whoever starts says so in it.
//!
//! ```text
//! DATA/WAREHOUSE      s3://bucket/prefix: history does not move
//! DATA/CLAIM          the claim of the last start; while a start is on its way, that one and the one before
//! prefix/OWNER        the name of the data directory (DATA/OWNER), and the claim of the start that may write
//! ```
//!
//! A start replaces the claim in `OWNER`, if it is one that its own data directory knows, and nobody replaced it meanwhile. The
//! object is read before every commit and before files are removed, so a server whose directory was copied, and whose copy was
//! started, is stopped there. `CLAIM` is written before `OWNER`, and `OWNER` before `WAREHOUSE`: after a crash between them the
//! next start goes on.

use super::{has_catalog, keep, recorded};
use anyhow::{Context, Result, bail, ensure};
use std::{fs, io::ErrorKind, path::Path, sync::Arc};
use tidemark_connectors::{
    iceberg::{Bucket, BucketSettings},
    redis,
};
use tidemark_engine::seam::Clock;

pub async fn claim(data: &Path, url: &str, settings: &BucketSettings, clock: &Arc<dyn Clock>) -> Result<Bucket> {
    let bucket = Bucket::open(url, settings, clock.clone())?;
    let location = bucket.location();
    let shown = data.display();
    let known = recorded(data)?;
    if let Some(known) = known.as_deref().filter(|known| *known != location) {
        bail!(
            "the history of data directory {shown} is in {known} and cannot be moved to {location}: start the server with \
             --warehouse {known}, or give it a new data directory"
        );
    }
    ensure!(
        known.is_some() || !has_catalog(&data.join("warehouse")),
        "the history of data directory {shown} is in itself and cannot be moved to {location}: leave --warehouse out, or \
         give the server a new data directory"
    );
    let opening = || format!("cannot open warehouse {location}");
    let name = redis::owner(data, clock.as_ref())?;
    let before = bucket.claimed_by().await.with_context(opening)?;
    let mut claims = claims(data)?;
    match before.as_ref().map(|claim| claim.text.split_once(' ').unwrap_or((&claim.text, ""))) {
        Some((owner, _)) if owner != name => {
            bail!(
                "warehouse {location} has the history of another data directory than {shown}: give each a prefix of its own"
            )
        }
        Some((_, claim)) => ensure!(
            claims.iter().any(|known| known == claim),
            "warehouse {location} was used last by a copy of data directory {shown}, whose history this one does not know: \
             start that one, or see docs/operations.md, \"History in a bucket\""
        ),
        None => {
            ensure!(
                known.is_none(),
                "warehouse {location} has the history of data directory {shown}, and its object OWNER is not there: is it \
                 another endpoint, or was the bucket emptied?"
            );
            ensure!(
                bucket.is_empty().await.with_context(opening)?,
                "there are objects below {location} that are not this server's history: give --warehouse a prefix of its own"
            );
        }
    }
    let claim = format!("{:016x}", clock.random());
    // The one that is in the bucket, so that this start may be cut short as often as it will.
    claims.retain(|known| {
        before.as_ref().is_some_and(|claim| claim.text.split_once(' ').is_some_and(|(_, is)| is == known))
    });
    claims.push(claim.clone());
    let keeping = || format!("cannot keep the claim of warehouse {location}");
    keep(data, "CLAIM", &claims.join("\n")).with_context(keeping)?;
    ensure!(
        bucket.claim(&format!("{name} {claim}"), before.as_ref()).await.with_context(opening)?,
        "warehouse {location} was claimed by another server just now: do two have a copy of one data directory?"
    );
    keep(data, "CLAIM", &claim).with_context(keeping)?;
    if known.is_none() {
        keep(data, "WAREHOUSE", &location).context("cannot keep where the warehouse is")?;
    }
    Ok(bucket)
}

/// The claims that may be in the bucket, the one of the last finished start first.
fn claims(data: &Path) -> Result<Vec<String>> {
    match fs::read_to_string(data.join("CLAIM")) {
        Ok(text) => Ok(text.lines().map(String::from).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read the claims of data directory {}", data.display()))
        }
    }
}
