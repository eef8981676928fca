//! Where to connect: `postgres://user:password@host:port/database`, with libpq's variables for what it leaves out.

use std::collections::HashMap;

/// A server, as a client names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Target {
    /// An address of our own. `PGUSER` and `PGPASSWORD` count where a password is given: the data directory may want one.
    pub fn local(address: std::net::SocketAddr, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let given = Target::from_environment(environment);
        let Target { user, password, .. } = if given.password.is_some() { given } else { Target::from_environment([]) };
        let (host, port) = (address.ip().to_string(), address.port());
        Target { host, port, user, password, ..Target::from_environment([]) }
    }

    /// `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE` over the defaults of `tidemark serve`.
    pub fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let set: HashMap<String, String> = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let get = |name: &str, default: &str| set.get(name).cloned().unwrap_or_else(|| default.to_string());
        Target {
            host: get("PGHOST", "127.0.0.1"),
            port: set.get("PGPORT").and_then(|port| port.parse().ok()).unwrap_or(5433),
            user: get("PGUSER", "tidemark"),
            database: get("PGDATABASE", "tidemark"),
            password: set.get("PGPASSWORD").cloned(),
        }
    }

    /// Reads a URL over `self`: what it does not say stays.
    pub fn with_url(mut self, url: &str) -> Result<Self, String> {
        // Not the URL itself: it may have a password in it.
        let wrong =
            |what: &str| format!("this is not a server's URL: {what}\nHINT: write postgres://127.0.0.1:5433/tidemark");
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let rest = match rest.split_once('?') {
            Some((rest, "" | "sslmode=disable" | "sslmode=prefer")) => rest,
            Some((_, options)) => return Err(wrong(&format!("the option \"{options}\" is not supported"))),
            None => rest,
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match user.split_once(':') {
            Some((user, password)) => {
                (user, Some(decoded(password).ok_or_else(|| wrong("its password is not UTF-8"))?))
            }
            None => (user, None),
        };
        self.password = password.or(self.password);
        let (host, port) = match place.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if let Some(port) = port {
            self.port = port.parse().map_err(|_| wrong("its port is not a number"))?;
        }
        for (field, text) in [(&mut self.host, host), (&mut self.user, user), (&mut self.database, database)] {
            if !text.is_empty() {
                *field = text.to_string();
            }
        }
        Ok(self)
    }
}

/// `%40` is `@`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}
