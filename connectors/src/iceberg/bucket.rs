//! A bucket of S3, or of what speaks S3: where it is, who we are there, and a short text object that says whose it is.
//!
//! Credentials come from where every S3 client has them: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
//! `AWS_SESSION_TOKEN`, a web identity, a container's or a machine's role. They are in no setting, and so nowhere that
//! settings are shown.

use super::{object_io::ObjectIo, patient::Patient};
use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::TryStreamExt;
use iceberg::io::{FileIO, FileIOBuilder};
use object_store::{
    ClientConfigKey, Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
};
use std::sync::{Arc, OnceLock};
use tidemark_engine::seam::{Clock, SeamError, SeamResult};

/// How long a connection may take to come about. The store's own default: a server that is there answers in less than one.
const CONNECT_TIMEOUT: &str = "5s";
/// How long one request may take, its body with it. The largest are a part of 8 MiB and the columns of a row group, up to
/// 128 MiB: two megabytes a second are enough.
const REQUEST_TIMEOUT: &str = "60s";

/// The object that says whose the files below the prefix are.
const OWNER: &str = "OWNER";

/// What is not in the usual environment of S3 clients, or goes before it.
#[derive(Debug, Clone, Default)]
pub struct BucketSettings {
    /// `http://…` or `https://…`; `None`: `AWS_ENDPOINT_URL`, or Amazon's.
    pub endpoint: Option<String>,
    /// `None`: `AWS_REGION`, `AWS_DEFAULT_REGION`, or `us-east-1`.
    pub region: Option<String>,
    /// `None`: those of the environment.
    pub keys: Option<Keys>,
}

/// An access key and its secret, which is shown nowhere.
#[derive(Clone)]
pub struct Keys {
    pub id: String,
    pub secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.id)
    }
}

/// A prefix in a bucket. Clones are the same.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<Patient>,
    name: String,
    prefix: String,
    url: ObjectStoreUrl,
    /// What `OWNER` says while this process may write; set by [`Bucket::claim`].
    claimed: Arc<OnceLock<String>>,
}

/// Whose a prefix is: the text of `OWNER`, and what it takes to replace exactly that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub text: String,
    version: UpdateVersion,
}

impl Bucket {
    /// The place that a URL names, `s3://bucket/prefix`. Asks nobody yet.
    ///
    /// # Errors
    /// `NotDone`: the URL or a setting is not understood.
    pub fn open(url: &str, settings: &BucketSettings, clock: Arc<dyn Clock>) -> SeamResult<Bucket> {
        let (name, prefix) = parse(url)?;
        let store = client(&name, url, settings, clock)?;
        // A scheme of its own: other readers of the process may know the bucket under other credentials.
        let registered = ObjectStoreUrl::parse(format!("history+s3://{name}"))
            .map_err(|error| SeamError::NotDone(format!("cannot use {url}: {error}")))?;
        Ok(Bucket { store: Arc::new(store), name, prefix, url: registered, claimed: Arc::default() })
    }

    /// `s3://bucket/prefix`.
    pub fn location(&self) -> String {
        match self.prefix.is_empty() {
            true => format!("s3://{}", self.name),
            false => format!("s3://{}/{}", self.name, self.prefix),
        }
    }

    /// Whose the prefix is; `None`: nobody's yet.
    pub async fn claimed_by(&self) -> SeamResult<Option<Claim>> {
        let path = self.key(OWNER);
        let read = async {
            let found = self.store.get(&path).await?;
            let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok::<_, Error>((found.bytes().await?, version))
        };
        match read.await {
            Ok((bytes, version)) => {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_string();
                Ok(Some(Claim { text, version }))
            }
            Err(Error::NotFound { .. }) if self.is_there().await? => Ok(None),
            Err(error) => Err(failed("reading whose the warehouse is", &error)),
        }
    }

    /// Sets whose the prefix is, if it is still as it was read. `false`: somebody else came first.
    pub async fn claim(&self, text: &str, before: Option<&Claim>) -> SeamResult<bool> {
        let mode = before.map_or(PutMode::Create, |before| PutMode::Update(before.version.clone()));
        let options = PutOptions { mode, ..PutOptions::default() };
        let done = match self.store.put_opts(&self.key(OWNER), format!("{text}\n").into(), options).await {
            Ok(_) => true,
            // Perhaps by ourselves: the answer to the first try may have been lost.
            Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => {
                self.claimed_by().await?.is_some_and(|claim| claim.text == text)
            }
            Err(error) => return Err(failed("claiming the warehouse", &error)),
        };
        if done {
            let _ = self.claimed.set(text.to_string());
        }
        Ok(done)
    }

    /// That nobody has claimed the prefix since this process did. Without a claim of its own it asks nobody.
    ///
    /// # Errors
    /// `NotDone`: somebody has, or it could not be found out.
    pub async fn still_ours(&self) -> SeamResult<()> {
        let Some(ours) = self.claimed.get() else { return Ok(()) };
        match self.claimed_by().await {
            Ok(Some(claim)) if claim.text == *ours => Ok(()),
            Ok(_) => Err(SeamError::NotDone(format!(
                "warehouse {} was taken over by another server with a copy of this data directory: end one of the two",
                self.location()
            ))),
            Err(error) => Err(error.into_not_done()),
        }
    }

    /// Whether nothing lies below the prefix.
    pub async fn is_empty(&self) -> SeamResult<bool> {
        let prefix = self.root();
        let found = self.store.list_with_delimiter(prefix.as_ref()).await;
        let found = found.map_err(|error| failed("listing the warehouse", &error))?;
        Ok(found.objects.is_empty() && found.common_prefixes.is_empty())
    }

    /// Tells a bucket without an object from no bucket: both are "not found".
    async fn is_there(&self) -> SeamResult<bool> {
        self.is_empty().await.map(|_| true)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn store(&self) -> &Arc<Patient> {
        &self.store
    }

    /// Under which DataFusion is given this store.
    pub(super) fn registered_as(&self) -> &ObjectStoreUrl {
        &self.url
    }

    pub(super) fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(ObjectIo::new(self.clone()))).build()
    }

    /// The object at a location of Iceberg.
    ///
    /// # Errors
    /// `NotDone`: it lies in another bucket, or not in S3.
    pub(super) fn object(&self, location: &str) -> SeamResult<Path> {
        let schemes = ["s3://", "s3a://", "s3n://"];
        let rest = schemes.iter().find_map(|scheme| location.strip_prefix(scheme));
        let key = rest.and_then(|rest| rest.strip_prefix(&self.name)).and_then(|key| key.strip_prefix('/'));
        let key = key.ok_or_else(|| {
            SeamError::NotDone(format!(
                "{location} is not in bucket {}: only files of the warehouse's own bucket can be read",
                self.name
            ))
        })?;
        Path::parse(key).map_err(|error| SeamError::NotDone(format!("{location}: {error}")))
    }

    pub(super) async fn put(&self, location: &str, bytes: Bytes) -> SeamResult<()> {
        let path = self.object(location)?;
        // Names are unique: who writes the same one again repeats itself.
        self.store.put(&path, bytes.into()).await.map(|_| ()).map_err(|error| failed("writing", &error))
    }

    pub(super) async fn list(&self, folder: &str) -> SeamResult<Vec<ObjectMeta>> {
        let path = self.object(folder)?;
        let found = self.store.list(Some(&path)).try_collect::<Vec<ObjectMeta>>().await;
        found.map_err(|error| failed("listing", &error))
    }

    /// Removes objects; those that are not there are none.
    pub(super) async fn remove(&self, objects: Vec<Path>) -> Result<(), Error> {
        let objects = futures::stream::iter(objects.into_iter().map(Ok::<Path, Error>));
        self.store.delete_stream(Box::pin(objects)).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// How many parts of a location are below the prefix; `None`: it is not below it.
    pub(super) fn depth(&self, location: &str) -> Option<usize> {
        let object = self.object(location).ok()?;
        object.prefix_match(&self.root().unwrap_or_default()).map(|below| below.count())
    }

    fn root(&self) -> Option<Path> {
        (!self.prefix.is_empty()).then(|| Path::from(self.prefix.as_str()))
    }

    fn key(&self, name: &str) -> Path {
        match self.prefix.is_empty() {
            true => Path::from(name),
            false => Path::from(format!("{}/{name}", self.prefix)),
        }
    }
}

/// A client of the bucket of this name, which `url` names for people. Asks nobody yet.
///
/// # Errors
/// `NotDone`: a setting is not understood.
pub(super) fn client(name: &str, url: &str, settings: &BucketSettings, clock: Arc<dyn Clock>) -> SeamResult<Patient> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(name);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(keys) = &settings.keys {
        builder = builder.with_access_key_id(&keys.id).with_secret_access_key(&keys.secret);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    if let Some(endpoint) = &endpoint {
        let is_url = endpoint.starts_with("https://") || endpoint.starts_with("http://");
        if !is_url || endpoint.contains('@') {
            return Err(SeamError::NotDone(format!(
                "the endpoint for {url} is not an address such as https://host:9000, without a user: correct \
                 --s3-endpoint or AWS_ENDPOINT_URL"
            )));
        }
        // Who writes http means it; keys are not sent, requests are signed with them.
        builder = builder.with_allow_http(endpoint.starts_with("http://"));
    }
    let option = |key| AmazonS3ConfigKey::Client(key);
    let builder = builder
        .with_config(option(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
        .with_config(option(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        // Requests are repeated by `Patient`, on the clock of the server.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    let s3 = builder
        .build()
        .map_err(|error| SeamError::NotDone(format!("cannot use {url}: {error}; see the variables AWS_*")))?;
    Ok(Patient::new(s3, name.to_string(), endpoint, clock))
}

/// An error of the store, whose text has said already where and why; certainly not done, as nothing names the object.
pub(super) fn failed(what: &str, error: &Error) -> SeamError {
    let text = format!("{what}: {error}");
    match super::patient::is_full(&text) {
        true => SeamError::Full(text),
        false => SeamError::NotDone(text),
    }
}

/// What names of buckets are.
pub(super) const NAMES: &str = "the name of a bucket has 3 to 63 small letters, digits, dots and hyphens";

pub(super) fn is_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || ".-".contains(letter);
    (3..=63).contains(&name.len()) && name.chars().all(fits)
}

/// Bucket and prefix of `s3://bucket/prefix`.
fn parse(url: &str) -> SeamResult<(String, String)> {
    let refused = |why: &str| Err(SeamError::NotDone(format!("warehouse {url}: {why}")));
    let Some(rest) = url.strip_prefix("s3://") else {
        return refused("a bucket is written as s3://bucket/prefix");
    };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    if !is_name(name) {
        return refused(NAMES);
    }
    let of_prefix = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    let odd_part = |part: &str| part.is_empty() || part == "." || part == "..";
    if !prefix.is_empty() && (!prefix.chars().all(of_prefix) || prefix.split('/').any(odd_part)) {
        // Engines write others into URLs in different ways.
        return refused("a prefix has letters, digits, dots, hyphens, underscores and slashes between them");
    }
    Ok((name.to_string(), prefix.to_string()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_url_names_a_bucket_and_a_prefix() {
        let parsed = |url: &str| parse(url).map_err(|error| error.to_string());
        let place = |bucket: &str, prefix: &str| Ok((bucket.to_string(), prefix.to_string()));
        assert_eq!(parsed("s3://lake"), place("lake", ""));
        assert_eq!(parsed("s3://lake/"), place("lake", ""));
        assert_eq!(parsed("s3://my.lake-1/a/b_c/"), place("my.lake-1", "a/b_c"));
        for (url, why) in [
            ("s3a://lake/x", "s3://bucket/prefix"),
            ("s3://", "3 to 63"),
            ("s3://Lake/x", "3 to 63"),
            ("s3://key:secret@lake/x", "3 to 63"),
            ("s3://lake/a//b", "a prefix has"),
            ("s3://lake/a/../b", "a prefix has"),
            ("s3://lake/a b", "a prefix has"),
        ] {
            let error = parsed(url).expect_err(url);
            assert!(error.contains(why), "{error}");
        }
    }
}
