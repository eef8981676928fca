//! Where to connect: `postgres://user@host:port/database`, with libpq's variables for what it leaves out.

use std::collections::HashMap;

/// A server, as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
}

impl Target {
    /// An address of our own.
    pub fn local(address: std::net::SocketAddr) -> Self {
        Target { host: address.ip().to_string(), port: address.port(), ..Target::from_environment([]) }
    }

    /// `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE` over the defaults of `tidemark serve`.
    pub fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let set: HashMap<String, String> = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let get = |name: &str, default: &str| set.get(name).cloned().unwrap_or_else(|| default.to_string());
        Target {
            host: get("PGHOST", "127.0.0.1"),
            port: set.get("PGPORT").and_then(|port| port.parse().ok()).unwrap_or(5433),
            user: get("PGUSER", "tidemark"),
            database: get("PGDATABASE", "tidemark"),
        }
    }

    /// Reads a URL over `self`: what it does not say stays.
    pub fn with_url(mut self, url: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("\"{url}\" is not a server's URL: {what}\nHINT: write postgres://127.0.0.1:5433/tidemark")
        };
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let rest = match rest.split_once('?') {
            Some((rest, "" | "sslmode=disable" | "sslmode=prefer")) => rest,
            Some((_, options)) => return Err(wrong(&format!("the option \"{options}\" is not supported"))),
            None => rest,
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(wrong("a password is not supported; roles have none yet"));
        }
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
