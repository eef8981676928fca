//! Requests to a REST catalog: who we are, what is asked again, and what an answer says about the effect.
//!
//! | answer | of a request that changes something |
//! |---|---|
//! | 2xx | done |
//! | 4xx | certainly not done |
//! | no connection | certainly not done |
//! | 5xx, no answer, half of one | nobody knows |
//!
//! Requests that only read, and those that remove, are made again when they fail for a reason that passes.

use super::RestSettings;
use crate::iceberg::patient;
use reqwest::{Client, Method, Response};
use serde_json::Value;
use std::{fmt, sync::Arc, time::Duration};
use tidemark_engine::seam::{Clock, SeamError, SeamResult};
use tokio::sync::Mutex;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take. A commit is a metadata file that the catalog writes to its store, and a store may take tens of
/// seconds to give up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A token is replaced when so much of its life is left, in parts of all of it: a request that is on its way with it arrives in time.
const TOKEN_LEFT: i64 = 10;
/// How long a token holds of which the server does not say it; RFC 6749 recommends to say it. What is refused is replaced anyway.
const TOKEN_SECONDS: i64 = 3600;

/// What is shown to the catalog; shown nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token, which somebody else renews.
    Token(String),
    /// OAuth2's client credentials, for tokens that are renewed here.
    Client { id: String, secret: String },
}

impl Credential {
    /// `id:secret` for a client, else a token.
    pub fn parse(text: &str) -> Credential {
        match text.split_once(':') {
            Some((id, secret)) => Credential::Client { id: id.to_string(), secret: secret.to_string() },
            None => Credential::Token(text.to_string()),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A token and the microsecond from which it is replaced.
struct Token {
    text: String,
    replaced_us: i64,
}

/// A request that did not do.
pub struct Refused {
    /// `None`: there was no answer.
    pub status: Option<u16>,
    pub error: SeamError,
}

pub struct Http {
    client: Client,
    uri: String,
    credential: Option<Credential>,
    oauth2: String,
    scope: String,
    token: Mutex<Option<Token>>,
    clock: Arc<dyn Clock>,
}

impl Http {
    pub fn new(settings: &RestSettings, clock: Arc<dyn Clock>) -> SeamResult<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // A token is shown to nobody but the one it is for.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SeamError::NotDone(format!("cannot speak HTTP: {error}")))?;
        let uri = settings.uri.trim_end_matches('/').to_string();
        Ok(Http {
            client,
            credential: settings.credential.clone(),
            oauth2: settings.oauth2.clone().unwrap_or_else(|| format!("{uri}/v1/oauth/tokens")),
            scope: settings.scope.clone().unwrap_or_else(|| "catalog".to_string()),
            uri,
            token: Mutex::default(),
            clock,
        })
    }

    /// `None`: not found.
    pub async fn get(&self, what: &str, path: &str, query: &str) -> SeamResult<Option<Value>> {
        match self.again(what, Method::GET, path, query).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Refused { status: Some(404), .. }) => Ok(None),
            Err(refused) => Err(refused.error.into_not_done()),
        }
    }

    /// Something that is not found is removed.
    pub async fn delete(&self, what: &str, path: &str, query: &str) -> SeamResult<()> {
        match self.again(what, Method::DELETE, path, query).await {
            Ok(_) | Err(Refused { status: Some(404), .. }) => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }

    /// Once, but for a token that is not taken any more.
    pub async fn post(&self, what: &str, path: &str, body: &Value) -> Result<Value, Refused> {
        self.request(what, Method::POST, path, "", Some(body)).await
    }

    async fn again(&self, what: &str, method: Method, path: &str, query: &str) -> Result<Value, Refused> {
        let mut tries = 1;
        loop {
            match self.request(what, method.clone(), path, query, None).await {
                Err(refused) if tries < patient::TRIES && refused.status.is_none_or(|s| s >= 500 || s == 429) => {
                    tracing::debug!(path, tries, error = %refused.error, "a request to the catalog is made again");
                    self.clock.sleep(patient::wait(tries, self.clock.random())).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    async fn request(
        &self,
        what: &str,
        method: Method,
        path: &str,
        query: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let mut renewed = false;
        loop {
            let token = self.bearer(what).await.map_err(|error| Refused { status: Some(401), error })?;
            let mark = if query.is_empty() { "" } else { "?" };
            let mut request = self.client.request(method.clone(), format!("{}/{path}{mark}{query}", self.uri));
            request = request.header("accept", "application/json");
            if let Some(token) = &token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let refused = match self.answer(what, request.send().await).await {
                Err(refused) => refused,
                done => return done,
            };
            // 419: the session has ended, as Iceberg's specification has it. Nothing was done.
            let is_client = matches!(self.credential, Some(Credential::Client { .. }));
            if !is_client || renewed || !matches!(refused.status, Some(401 | 419)) {
                return Err(refused);
            }
            renewed = true;
            let mut kept = self.token.lock().await;
            // Another request may have renewed it meanwhile.
            if kept.as_ref().map(|kept| &kept.text) == token.as_ref() {
                *kept = None;
            }
        }
    }

    async fn answer(&self, what: &str, sent: reqwest::Result<Response>) -> Result<Value, Refused> {
        let lost = |error: reqwest::Error| {
            let text = format!("{what}: {}", told(&error, &self.uri));
            let error = if error.is_connect() { SeamError::NotDone(text) } else { SeamError::Unknown(text) };
            Refused { status: None, error }
        };
        let response = sent.map_err(lost)?;
        let status = response.status().as_u16();
        let text = response.text().await;
        if (200..300).contains(&status) {
            let text = text.map_err(lost)?;
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&text).map_err(|error| {
                let text = format!("{what}: the answer of {} is not JSON: {error}", self.uri);
                Refused { status: None, error: SeamError::Unknown(text) }
            });
        }
        let text = text.unwrap_or_default();
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = answer.pointer("/error/message").and_then(Value::as_str);
        // The beginning of what is no answer of a catalog: it may be a page for people.
        let said: String = said.unwrap_or(&text).lines().next().unwrap_or_default().chars().take(300).collect();
        let hint = match status {
            401 | 403 | 419 => " (HINT: check --history-catalog-credential and the scope, and what it may do)",
            404 if self.credential.is_none() && said.is_empty() => " (HINT: is it an Iceberg REST catalog?)",
            _ => "",
        };
        let text = format!("{what}: {} answers {status}: {said}{hint}", self.uri);
        let error = if status >= 500 { SeamError::Unknown(text) } else { SeamError::NotDone(text) };
        Err(Refused { status: Some(status), error })
    }

    /// What is shown as who we are.
    async fn bearer(&self, what: &str) -> SeamResult<Option<String>> {
        let (id, secret) = match &self.credential {
            None => return Ok(None),
            Some(Credential::Token(token)) => return Ok(Some(token.clone())),
            Some(Credential::Client { id, secret }) => (id, secret),
        };
        // Held while it is asked for, so that many requests ask once.
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| self.clock.now_us() < token.replaced_us) {
            return Ok(Some(token.text.clone()));
        }
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", id),
            ("client_secret", secret),
            ("scope", self.scope.as_str()),
        ];
        let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut tries = 1;
        let answer = loop {
            let request = self.client.post(&self.oauth2);
            let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.join("&"));
            match self.answer(what, request.send().await).await {
                Ok(answer) => break answer,
                Err(refused) if tries < patient::TRIES && refused.status.is_none_or(|status| status >= 500) => {
                    self.clock.sleep(patient::wait(tries, self.clock.random())).await;
                    tries += 1;
                }
                // Whatever was asked with it was not asked.
                Err(refused) => {
                    let why = refused.error.into_not_done();
                    return Err(SeamError::NotDone(format!("no token from {}: {why}", self.oauth2)));
                }
            }
        };
        let Some(text) = answer.get("access_token").and_then(Value::as_str) else {
            return Err(SeamError::NotDone(format!("{what}: the answer of {} has no access_token", self.oauth2)));
        };
        let seconds = answer.get("expires_in").and_then(Value::as_i64).unwrap_or(TOKEN_SECONDS);
        let life_us = seconds.saturating_mul(1_000_000);
        let replaced_us = self.clock.now_us().saturating_add(life_us - life_us / TOKEN_LEFT);
        *kept = Some(Token { text: text.to_string(), replaced_us });
        Ok(Some(text.to_string()))
    }
}

/// What went wrong on the way, without the address: it is said once, and without a query.
fn told(error: &reqwest::Error, uri: &str) -> String {
    let mut source = std::error::Error::source(error);
    let mut why = if error.is_timeout() { "no answer in time".to_string() } else { "no answer".to_string() };
    while let Some(error) = source {
        why = error.to_string();
        source = error.source();
    }
    format!("{uri}: {why} (HINT: is the catalog running?)")
}

/// As a part of a path, or a value of a query or a form.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{Credential, encoded};

    #[test]
    fn names_are_encoded_and_secrets_are_not_shown() {
        assert_eq!(encoded("delays by airport, 100% é/~"), "delays%20by%20airport%2C%20100%25%20%C3%A9%2F~");
        let client = Credential::parse("me:my:secret");
        assert!(client == Credential::Client { id: "me".to_string(), secret: "my:secret".to_string() });
        assert!(Credential::parse("token") == Credential::Token("token".to_string()));
        assert!(!format!("{client:?}").contains("secret"));
    }
}
