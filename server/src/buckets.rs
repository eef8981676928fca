//! Objects in buckets that statements name, `COPY … TO 's3://bucket/path'`: with the server's own keys, the endpoint and region of
//! its settings, and never among the files of its own history.

use crate::pg::PgError;
use std::sync::Arc;
use tidemark_connectors::iceberg::{BucketObject, BucketSettings};
use tidemark_engine::seam::Clock;

#[derive(Debug, Default)]
pub struct Buckets {
    pub settings: BucketSettings,
    /// Where history is, when that is in a bucket.
    pub warehouse: Option<String>,
}

/// Whether a name in a COPY is an object's, and not a file's.
///
/// # Errors
/// 0A000: neither.
pub fn is_object(name: &str) -> Result<bool, PgError> {
    let scheme = name.split_once("://").map(|(scheme, _)| scheme);
    let is_scheme = |scheme: &&str| {
        !scheme.is_empty() && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
    };
    match scheme.filter(is_scheme) {
        None => Ok(false),
        Some("s3") => Ok(true),
        Some(other) => Err(PgError::error("0A000", format!("COPY does not know \"{other}://\""))
            .hint("'s3://bucket/path' is an object, anything else the path of a file on the server's machine")),
    }
}

impl Buckets {
    /// # Errors
    /// 22023: it names no object.
    pub fn to_read(&self, url: &str, clock: &Arc<dyn Clock>) -> Result<BucketObject, PgError> {
        let object = BucketObject::named(url, &self.settings, clock.clone());
        object.map_err(|error| PgError::error("22023", error.to_string()))
    }

    /// # Errors
    /// 22023: it names no object, or one of the history's.
    pub fn to_write(&self, url: &str, clock: &Arc<dyn Clock>) -> Result<BucketObject, PgError> {
        let around = self.warehouse.as_deref().filter(|warehouse| {
            let below = url.strip_prefix(*warehouse);
            below.is_some_and(|below| below.starts_with('/'))
        });
        match around {
            Some(warehouse) => Err(PgError::error("22023", format!("\"{url}\" is in the warehouse of this server"))
                .hint(format!("what is below {warehouse} is history's: name another place"))),
            None => self.to_read(url, clock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_connectors::clock::SystemClock;

    #[test]
    fn a_name_is_a_files_or_an_objects_or_refused() {
        for (name, expected) in [
            ("a.csv", Ok(false)),
            ("/a/b.csv", Ok(false)),
            ("odd name://x", Ok(false)),
            ("s3://lake/a", Ok(true)),
            ("gs://lake/a", Err("0A000")),
            ("https://host/a", Err("0A000")),
        ] {
            assert_eq!(is_object(name).map_err(|error| error.sqlstate), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn nobody_writes_among_the_files_of_history() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
        let buckets = Buckets { warehouse: Some("s3://lake/history".to_string()), ..Buckets::default() };
        let refused = |url: &str| buckets.to_write(url, &clock).err().map(|error| error.sqlstate);
        assert_eq!(refused("s3://lake/history/public/x"), Some("22023"));
        assert_eq!(refused("s3://lake"), Some("22023"));
        assert_eq!(refused("s3://lake/history2/x"), None);
        assert!(buckets.to_read("s3://lake/history/public/x", &clock).is_ok());
    }
}
