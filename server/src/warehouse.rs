//! Where the history tables of a data directory are, when that is not the directory itself; and that nothing of it is lost
//! or mixed up by a setting, a copied directory or a disk that is not mounted. A bucket is `warehouse/bucket.rs`.
//!
//! ```text
//! DATA/WAREHOUSE     the path of the warehouse, absolute: history does not move
//! WAREHOUSE/OWNER    the name of the data directory (DATA/OWNER): views of two directories have the same numbers
//! WAREHOUSE/LOCK     held while a server runs: two copies of one data directory have the same name
//! ```
//!
//! A start that found no table would make an empty one, and what is below the last checkpoint would be gone from
//! history. So whatever does not fit is an error, and says what to do.

mod bucket;
mod catalog;

use anyhow::{Context, Result, bail, ensure};
pub use catalog::{Elsewhere, begun, catalog};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_connectors::{
    iceberg::{Bucket, BucketSettings},
    lock::DirLock,
    redis,
};
use tidemark_engine::seam::Clock;

/// A warehouse that this server alone writes to, for as long as this lives.
#[derive(Debug)]
pub struct Warehouse {
    /// Where the tables' files are, and their catalog.
    pub folder: PathBuf,
    /// Where the tables' files are instead; the catalog stays in `folder`, which is in the data directory then.
    pub bucket: Option<Bucket>,
    _lock: Option<DirLock>,
}

impl Warehouse {
    /// The warehouse of a locked data directory: `elsewhere`, or the directory's own. `s3` is for a bucket.
    pub async fn claim(
        data: &Path,
        elsewhere: Option<&Path>,
        s3: &BucketSettings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Warehouse> {
        let own = data.join("warehouse");
        let Some(folder) = elsewhere else {
            if let Some(recorded) = recorded(data)? {
                bail!(
                    "the history of data directory {} is in {recorded}: start the server with --warehouse {recorded}",
                    data.display()
                );
            }
            return Ok(Warehouse { folder: own, bucket: None, _lock: None });
        };
        if let Some(url) = folder.to_str().filter(|text| text.contains("://")) {
            let bucket = bucket::claim(data, url, s3, clock).await?;
            return Ok(Warehouse { folder: own, bucket: Some(bucket), _lock: None });
        }
        let known = recorded(data)?;
        if let Some(known) = known.as_deref().filter(|known| !same(folder, Path::new(known))) {
            bail!(
                "the history of data directory {} is in {known} and cannot be moved to {}: start the server with \
                 --warehouse {known}, or give it a new data directory",
                data.display(),
                folder.display()
            );
        }
        if known.is_none() && !same(folder, &own) && has_catalog(&own) {
            bail!(
                "the history of data directory {} is in {} and cannot be moved to {}: leave --warehouse out, or give the \
                 server a new data directory",
                data.display(),
                own.display(),
                folder.display()
            );
        }
        let opening = || format!("cannot open warehouse {}", folder.display());
        if known.is_some() {
            // Nothing is made where a disk may be missing.
            let owner = owner_of(folder).with_context(opening)?;
            ensure!(
                owner.is_some(),
                "warehouse {} has the history of data directory {}, and its file OWNER is not there: is its disk mounted?",
                folder.display(),
                data.display()
            );
        }
        fs::create_dir_all(folder).with_context(opening)?;
        let folder = folder.canonicalize().with_context(opening)?;
        let data = data.canonicalize().with_context(|| format!("cannot open data directory {}", data.display()))?;
        if folder == data.join("warehouse") {
            return Ok(Warehouse { folder, bucket: None, _lock: None });
        }
        ensure!(
            !folder.starts_with(&data),
            "warehouse {} is inside data directory {}: leave --warehouse out, or give a directory outside of it",
            folder.display(),
            data.display()
        );
        let lock = DirLock::acquire_patiently(&folder, clock.as_ref()).await.context("cannot lock the warehouse")?;
        let name = redis::owner(&data, clock.as_ref())?;
        match owner_of(&folder).with_context(opening)? {
            Some(owner) if owner == name => {}
            Some(_) => bail!(
                "warehouse {} has the history of another data directory than {}: give each its own",
                folder.display(),
                data.display()
            ),
            None if has_catalog(&folder) => bail!(
                "{} has an Iceberg catalog already, which may be another server's history: give --warehouse an empty \
                 directory",
                folder.display()
            ),
            None => keep(&folder, "OWNER", &name).with_context(opening)?,
        }
        if known.is_none() {
            let path = folder.to_str().context("the path of the warehouse is not UTF-8: give it another name")?;
            ensure!(!path.contains('\n'), "the path of the warehouse has a line break in it: give it another name");
            keep(&data, "WAREHOUSE", path).context("cannot keep where the warehouse is")?;
        }
        Ok(Warehouse { folder, bucket: None, _lock: Some(lock) })
    }
}

/// Where the data directory's history has been so far, when not in itself.
fn recorded(data: &Path) -> Result<Option<String>> {
    line(&data.join("WAREHOUSE")).with_context(|| format!("cannot read where the history of {} is", data.display()))
}

fn owner_of(warehouse: &Path) -> std::io::Result<Option<String>> {
    line(&warehouse.join("OWNER"))
}

/// The text of a file of one line; `None` where there is no such file, or nothing in it.
fn line(file: &Path) -> std::io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_string()).filter(|text| !text.is_empty())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_catalog(warehouse: &Path) -> bool {
    warehouse.join("catalog.db").exists()
}

/// Whether two paths lead to one directory; those that are not there yet are compared as they are written.
fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Writes a file of one line, whole or not at all, and durable.
fn keep(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_connectors::clock::SystemClock;

    async fn claim(data: &Path, elsewhere: Option<&Path>) -> Result<Warehouse> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
        Warehouse::claim(data, elsewhere, &BucketSettings::default(), &clock).await
    }

    async fn refused(data: &Path, elsewhere: Option<&Path>) -> String {
        format!("{:#}", claim(data, elsewhere).await.expect_err("a warehouse that does not fit"))
    }

    /// `names` as directories of one folder that goes with the test.
    fn places<const N: usize>(names: [&str; N]) -> (tempfile::TempDir, [PathBuf; N]) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().canonicalize().unwrap();
        let places = names.map(|name| folder.join(name));
        places.iter().for_each(|place| fs::create_dir_all(place).unwrap());
        (root, places)
    }

    #[tokio::test]
    async fn history_stays_where_it_was_begun() {
        let (_root, [data, here, there]) = places(["data", "here", "there"]);
        assert_eq!(claim(&data, Some(&here)).await.unwrap().folder, here);
        assert_eq!(claim(&data, Some(&here.join("..").join("here"))).await.unwrap().folder, here);
        let error = refused(&data, Some(&there)).await;
        assert!(error.contains("cannot be moved to") && error.contains(&here.display().to_string()), "{error}");
        let error = refused(&data, None).await;
        assert!(error.contains(&format!("start the server with --warehouse {}", here.display())), "{error}");
        assert!(fs::read_dir(&there).unwrap().next().is_none(), "a refusal leaves nothing behind");
    }

    #[tokio::test]
    async fn a_directory_that_keeps_its_history_itself_goes_on_so() {
        let (_root, [data, there]) = places(["data", "there"]);
        let own = claim(&data, None).await.unwrap().folder;
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("catalog.db"), "").unwrap();
        let error = refused(&data, Some(&there)).await;
        assert!(error.contains("leave --warehouse out"), "{error}");
        assert_eq!(claim(&data, Some(&own)).await.unwrap().folder, own);
        claim(&data, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_warehouse_has_one_data_directory_and_one_server() {
        let (_root, [data, other, here]) = places(["data", "other", "here"]);
        let held = claim(&data, Some(&here)).await.unwrap();
        let error = refused(&other, Some(&here)).await;
        assert!(error.contains("cannot lock the warehouse"), "{error}");
        drop(held);
        let error = refused(&other, Some(&here)).await;
        assert!(error.contains("another data directory"), "{error}");
        assert!(!other.join("WAREHOUSE").exists());
    }

    #[tokio::test]
    async fn a_disk_that_is_not_mounted_is_not_an_empty_warehouse() {
        let (_root, [data, here]) = places(["data", "here"]);
        drop(claim(&data, Some(&here)).await.unwrap());
        for file in ["OWNER", "LOCK"] {
            fs::remove_file(here.join(file)).unwrap();
        }
        let error = refused(&data, Some(&here)).await;
        assert!(error.contains("is its disk mounted?"), "{error}");
        fs::remove_dir(&here).unwrap();
        let error = refused(&data, Some(&here)).await;
        assert!(error.contains("is its disk mounted?"), "{error}");
        assert!(!here.exists());
    }

    #[tokio::test]
    async fn places_that_are_something_else_are_refused() {
        let (_root, [data, inside, used]) = places(["data", "data/state", "used"]);
        fs::write(used.join("catalog.db"), "").unwrap();
        let cases = [
            (data.clone(), "is inside data directory"),
            (inside, "is inside data directory"),
            (used, "an Iceberg catalog already"),
            (PathBuf::from("gs://bucket/prefix"), "s3://bucket/prefix"),
            (PathBuf::from("s3://Bucket"), "3 to 63"),
        ];
        for (place, expected) in cases {
            let error = refused(&data, Some(&place)).await;
            assert!(error.contains(expected), "{error}");
            assert!(!data.join("WAREHOUSE").exists());
        }
    }
}
