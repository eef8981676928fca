//! S3 with patience: requests that fail for a reason that passes are made again, and those that do not say which object
//! it was about, what the server said, and what to do.
//!
//! Every request here may be made twice: names of objects are unique, so whoever writes one again writes the same. What is read is
//! read whole before it is given on, so that a connection that breaks in the middle is a try and not an error of the reader.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    aws::AmazonS3,
    client::HttpError,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use std::{error::Error as StdError, fmt, future::Future, sync::Arc, time::Duration};
use tidemark_engine::seam::Clock;

/// Tries of one request. With the waits between them some three seconds: longer outages are the pipeline's to wait for, which
/// commits again, and a query's to report.
pub const TRIES: u32 = 6;
/// The first wait, which doubles: a request that met a restart finds the next server.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Objects that are removed at once: requests of some 10 ms, of which a vacuum may have thousands.
const REMOVED_AT_ONCE: usize = 16;

/// A client of one bucket. Clones share its connections.
#[derive(Clone)]
pub struct Patient {
    s3: AmazonS3,
    bucket: String,
    /// For people.
    endpoint: Option<String>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patient({})", self.bucket)
    }
}

impl fmt::Display for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)
    }
}

impl Patient {
    pub fn new(s3: AmazonS3, bucket: String, endpoint: Option<String>, clock: Arc<dyn Clock>) -> Self {
        Patient { s3, bucket, endpoint, clock }
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    async fn patiently<T, F>(&self, path: &Path, mut request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut tries = 1;
        loop {
            match request().await {
                Ok(done) => return Ok(done),
                Err(error) if tries < TRIES && passes(&error) => {
                    tracing::debug!(object = %path, bucket = self.bucket, tries, %error, "a request to S3 is made again");
                    self.clock.sleep(wait(tries, self.clock.random())).await;
                    tries += 1;
                }
                Err(error) => return Err(self.explained(path, error, tries)),
            }
        }
    }

    /// The error with where it was, what the server said, and what can be done.
    fn explained(&self, path: &Path, error: Error, tries: u32) -> Error {
        let text = whole(&error);
        let code = between(&text, "<Code>", "</Code>");
        let why = match (code, between(&text, "<Message>", "</Message>")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_string(),
            _ => text.clone(),
        };
        let endpoint = self.endpoint.as_deref().unwrap_or("Amazon S3");
        let hint = hint(&error, code, &text, &self.bucket, endpoint);
        let tried = if tries > 1 { format!(" ({tries} tries)") } else { String::new() };
        let source = format!("s3://{}/{path}: {why}{tried}{hint}", self.bucket).into();
        let path = path.to_string();
        match error {
            Error::NotFound { .. } if code != Some("NoSuchBucket") => Error::NotFound { path, source },
            Error::AlreadyExists { .. } => Error::AlreadyExists { path, source },
            Error::Precondition { .. } => Error::Precondition { path, source },
            Error::NotModified { .. } => Error::NotModified { path, source },
            _ => Error::Generic { store: "S3", source },
        }
    }

    pub async fn begin_parts(&self, path: &Path) -> Result<String> {
        self.patiently(path, || self.s3.create_multipart(path)).await
    }

    pub async fn put_part(&self, path: &Path, upload: &String, number: usize, bytes: Bytes) -> Result<PartId> {
        self.patiently(path, || self.s3.put_part(path, upload, number, bytes.clone().into())).await
    }

    /// What is at a path, before something takes its place.
    pub async fn before(&self, path: &Path) -> Before {
        match self.head(path).await {
            Ok(found) => Before::Object(Box::new(found)),
            Err(Error::NotFound { .. }) => Before::Nothing,
            // Who may only write is not told what is there.
            Err(_) => Before::Unknown,
        }
    }

    /// Makes the parts, of so many bytes in all, an object.
    pub async fn end_parts(
        &self,
        path: &Path,
        upload: &String,
        parts: &[PartId],
        bytes: u64,
        before: &Before,
    ) -> Result<()> {
        let ended = self.patiently(path, || self.s3.complete_multipart(path, upload, parts.to_vec())).await;
        match ended {
            Ok(_) => Ok(()),
            // The upload is not known any more where an earlier try has ended it and its answer was lost.
            Err(error @ Error::NotFound { .. }) => match self.head(path).await {
                Ok(found) if found.size == bytes && before.is_not(&found) => Ok(()),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    pub async fn abort_parts(&self, path: &Path, upload: &String) -> Result<()> {
        self.patiently(path, || self.s3.abort_multipart(path, upload)).await
    }
}

#[async_trait]
impl ObjectStore for Patient {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.patiently(location, || self.s3.put_opts(location, payload.clone(), options.clone())).await
    }

    /// Not made again: `begin_parts` is, which is what history is written with.
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.s3.put_multipart_opts(location, options).await.map_err(|error| self.explained(location, error, 1))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = || async {
            let found = self.s3.get_opts(location, options.clone()).await?;
            if options.head {
                return Ok(found);
            }
            let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let bytes = found.bytes().await?;
            let payload = GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed());
            Ok::<_, Error>(GetResult { payload, meta, range, attributes })
        };
        self.patiently(location, get).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let removed = locations.map(move |location| {
            let store = store.clone();
            async move {
                let path = location?;
                store.patiently(&path, || store.s3.delete(&path)).await?;
                Ok::<_, Error>(path)
            }
        });
        removed.buffered(REMOVED_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.cloned();
        let found = async move {
            let shown = prefix.clone().unwrap_or_default();
            // Again from its beginning: what was found in vain is some 200 bytes an object.
            let found = store.patiently(&shown, || store.s3.list(prefix.as_ref()).try_collect::<Vec<_>>()).await?;
            Ok::<_, Error>(futures::stream::iter(found.into_iter().map(Ok::<_, Error>)))
        };
        futures::stream::once(found).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let shown = prefix.cloned().unwrap_or_default();
        self.patiently(&shown, || self.s3.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.patiently(from, || self.s3.copy_opts(from, to, options.clone())).await
    }
}

/// What an object takes the place of.
#[derive(Debug)]
pub enum Before {
    /// Of a name that nobody else uses, that is so too.
    Nothing,
    Object(Box<ObjectMeta>),
    Unknown,
}

impl Before {
    /// Whether what was found has certainly taken its place.
    fn is_not(&self, found: &ObjectMeta) -> bool {
        match self {
            Before::Nothing => true,
            Before::Object(before) => (&before.e_tag, before.last_modified) != (&found.e_tag, found.last_modified),
            Before::Unknown => false,
        }
    }
}

/// Between half and all of a wait that doubles with every try, so that many clients do not come back together.
pub fn wait(tries: u32, random: u64) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << (tries - 1).min(16));
    longest.div_f64(2.0) + longest.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64 / 2.0)
}

/// Whether the same request may succeed in a moment.
fn passes(error: &Error) -> bool {
    let Error::Generic { .. } = error else { return false };
    let text = whole(error);
    if text.contains(MACHINE_ROLE) || is_full(&text) {
        return false;
    }
    match status(&text) {
        Some(status) => {
            status >= 500 || matches!(status, 408 | 429) || text.contains("RequestTimeout") || text.contains("SlowDown")
        }
        // A success whose body is an error: the end of a multipart upload may be one.
        None if text.contains("Server returned error response") => true,
        None => {
            let mut next: Option<&(dyn StdError + 'static)> = Some(error);
            while let Some(error) = next {
                if error.is::<HttpError>() {
                    return true;
                }
                next = error.source();
            }
            false
        }
    }
}

/// Whether an error says that there is no room: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html> has none,
/// other servers do.
pub fn is_full(text: &str) -> bool {
    ["507 Insufficient Storage", "QuotaExceeded", "XMinioStorageFull"].iter().any(|said| text.contains(said))
}

/// Where a machine of Amazon's says what role it has; asked where the environment has no credentials.
const MACHINE_ROLE: &str = "169.254.169.254";

fn hint(error: &Error, code: Option<&str>, text: &str, bucket: &str, endpoint: &str) -> String {
    let hint = match code {
        Some("NoSuchBucket") => format!("there is no bucket {bucket} at {endpoint}: make it, or correct the setting"),
        Some("ExpiredToken") => "the session of AWS_SESSION_TOKEN has ended: start with a new one".to_string(),
        Some("RequestTimeTooSkewed") => "the clock of this machine is wrong".to_string(),
        Some("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
            format!("bucket {bucket} is in another region: set --s3-region or AWS_REGION")
        }
        _ if text.contains("redirect without LOCATION") => {
            format!("bucket {bucket} is in another region: set --s3-region or AWS_REGION")
        }
        _ if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may read, write, list and delete there"
                .to_string()
        }
        _ if text.contains(MACHINE_ROLE) => {
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_string()
        }
        None if status(text).is_none() && matches!(error, Error::Generic { .. }) => {
            format!("is {endpoint} there, and is it S3?")
        }
        _ => return String::new(),
    };
    format!(" (HINT: {hint})")
}

/// The status that a server has answered with, out of the text: the crate keeps its errors to itself.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// An error and those that it came from, each said once.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> Error {
        Error::Generic { store: "S3", source: format!("Server returned non-2xx status code: {text}").into() }
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_said() {
        for text in [
            "503 Service Unavailable: ",
            "500 : <Code>InternalError</Code>",
            "429 : ",
            "400 : <Code>RequestTimeout</Code>",
        ] {
            assert!(passes(&answered(text)), "{text}");
        }
        for text in
            ["400 : <Code>AuthorizationHeaderMalformed</Code>", "301 Moved Permanently: ", "507 Insufficient Storage"]
        {
            assert!(!passes(&answered(text)), "{text}");
        }
        let forbidden = Error::PermissionDenied { path: "p".into(), source: "status code: 403".into() };
        assert!(!passes(&forbidden));
        assert!(hint(&forbidden, Some("AccessDenied"), "", "b", "e").contains("AWS_ACCESS_KEY_ID"));
        assert!(
            hint(&answered("404 : "), Some("NoSuchBucket"), "", "lake", "there").contains("no bucket lake at there")
        );
        assert_eq!(hint(&answered("404 : "), Some("NoSuchKey"), "404", "lake", "there"), "");
    }

    #[test]
    fn waits_grow_and_differ() {
        for tries in 1..TRIES {
            let longest = FIRST_WAIT * (1 << (tries - 1));
            let (least, most) = (wait(tries, 0), wait(tries, u64::MAX));
            assert!(least == longest / 2 && most > least && most <= longest, "{least:?} {most:?}");
        }
        let all: Duration = (1..TRIES).map(|tries| wait(tries, u64::MAX)).sum();
        assert!(all < Duration::from_secs(4), "{all:?}");
    }
}
