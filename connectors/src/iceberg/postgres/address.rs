//! Where a PostgreSQL catalog is, and who we are there, as one URL.

use super::{ANSWER_TIMEOUT, tls::Tls};
use crate::iceberg::sqlite::CATALOG;
use std::{fmt, time::Duration};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

/// How long one address of a server may take to accept; a name may have several.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// When a connection that is not used is tried: before firewalls forget it, commonly after some minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What may be said behind the `?` beside `catalog`, `prefix`, `sslmode` and `sslrootcert`; libpq's names, of which the driver
/// knows more that are not for us to pass on.
const PASSED: [&str; 4] = ["application_name", "options", "connect_timeout", "target_session_attrs"];

/// A PostgreSQL database that has the catalog.
#[derive(Clone)]
pub struct PostgresSettings {
    pub(super) config: Config,
    /// `None`: in the clear, as the settings say.
    pub(super) tls: Option<Tls>,
    /// `catalog_name` of our rows.
    pub(super) catalog: String,
    /// What the names of our namespaces, which are those of schemas, begin with there; for a catalog that servers share.
    pub(super) prefix: String,
    /// Where it is, without who we are.
    pub(super) shown: String,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl PostgresSettings {
    /// Whether a URL means one.
    pub fn is_meant(url: &str) -> bool {
        ["postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme))
    }

    /// `postgres://user:password@host:port/database?catalog=NAME&prefix=TEXT`, with a password that may come beside it. The
    /// error has no part of the URL that may be a password.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, String> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut catalog, mut prefix) = (CATALOG, "");
        let (mut passed, mut is_verified, mut authorities) = (Vec::new(), false, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("catalog", name)) if is_plain(name) && !name.is_empty() => catalog = name,
                Some(("prefix", text)) if is_plain(text) => prefix = text,
                Some(("catalog" | "prefix", _)) => {
                    return Err("catalog and prefix are of letters, digits and _".to_string());
                }
                // None of them insists on TLS.
                Some(("sslmode", "disable" | "allow" | "prefer")) => is_verified = false,
                Some(("sslmode", "verify-full")) => is_verified = true,
                // Encryption with somebody who may be anybody would look like more than it is.
                Some(("sslmode", _)) => {
                    return Err("with TLS the server is verified: write sslmode=verify-full&sslrootcert=FILE, where FILE has \
                                the certificates of its authorities; or sslmode=disable where the network between is trusted"
                        .to_string());
                }
                Some(("sslrootcert", file)) if !file.is_empty() => authorities = Some(file),
                Some((name, _)) if PASSED.contains(&name) => passed.push(part),
                _ => {
                    return Err(format!(
                        "what is behind the ? may be catalog, prefix, sslmode, sslrootcert, {} (a ? or & in a password is written %3F or %26)",
                        PASSED.join(", ")
                    ));
                }
            }
        }
        let tls = match (is_verified, authorities) {
            (true, Some(file)) => Some(Tls::by(file)?),
            (true, None) => {
                return Err("sslmode=verify-full needs sslrootcert=FILE, the authorities' certificates".to_string());
            }
            (false, Some(_)) => return Err("sslrootcert is for sslmode=verify-full".to_string()),
            (false, None) => None,
        };
        // The driver takes a bad escape as it stands, and the password is another than was meant.
        if !passed.iter().chain([&address]).all(|part| is_escaped(part)) {
            return Err("a % in it begins no escape such as %40: write % as %25".to_string());
        }
        let mut config: Config = format!("{address}?{}", passed.join("&")).parse().map_err(|_| {
            "it is not understood: write postgres://user:password@host:port/database?catalog=NAME&prefix=TEXT, with what \
             is special in a password as %40 for @, %2F for /"
                .to_string()
        })?;
        let ports = config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts: Vec<String> = config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(at, host)| match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", port(at)),
                Host::Tcp(name) => format!("{name}:{}", port(at)),
                Host::Unix(folder) => format!("{}:{}", folder.display().to_string().replace('/', "%2F"), port(at)),
            })
            .collect();
        if hosts.is_empty() || hosts.iter().any(|host| host.starts_with(':')) {
            return Err("it names no host: write postgres://user@host:port/database".to_string());
        }
        // The rest of a password with an @ in it would be shown as a host.
        if hosts.iter().any(|host| host.contains('@')) {
            return Err("it has two @: in a password it is written %40".to_string());
        }
        let Some(database) = config.get_dbname().map(str::to_string) else {
            return Err("it names no database: write postgres://user@host:port/database".to_string());
        };
        // Likewise the rest of one with a / behind its @.
        if !database.chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter)) {
            return Err(
                "the name of its database is of letters, digits, _, - and .: in a password an @ is written %40, / %2F"
                    .to_string(),
            );
        }
        let mut shown = format!("postgres://{}/{database}", hosts.join(","));
        let named = (catalog != CATALOG).then(|| format!("catalog={catalog}"));
        let prefixed = (!prefix.is_empty()).then(|| format!("prefix={prefix}"));
        let query: Vec<String> = named.into_iter().chain(prefixed).collect();
        if !query.is_empty() {
            shown = format!("{shown}?{}", query.join("&"));
        }
        match (password, config.get_password().is_some()) {
            (Some(_), true) => return Err("it has a password, and there is another beside it: give one".to_string()),
            (Some(password), false) => {
                config.password(password);
            }
            (None, _) => {}
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(ADDRESS_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("tidemark");
        }
        // What is sent to a peer that is gone is given up with the answer.
        let mode = if tls.is_some() { SslMode::Require } else { SslMode::Disable };
        config.ssl_mode(mode).tcp_user_timeout(ANSWER_TIMEOUT).keepalives_idle(KEEPALIVE);
        Ok(PostgresSettings { config, tls, catalog: catalog.to_string(), prefix: prefix.to_string(), shown })
    }

    /// What has to stay the same, as a URL without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

/// Whether every % is followed by two hexadecimal digits.
fn is_escaped(text: &str) -> bool {
    let mut behind = text.split('%').skip(1).map(str::as_bytes);
    behind.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit))
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_who_and_only_where_is_shown() {
        let url = "postgresql://me:my%20secret@db.example:6432/lake?prefix=prod_&catalog=main&sslmode=disable";
        let settings = PostgresSettings::parse(url, None).unwrap();
        assert_eq!(settings.shown(), "postgres://db.example:6432/lake?catalog=main&prefix=prod_");
        assert_eq!(settings.config.get_password(), Some(&b"my secret"[..]));
        assert_eq!((settings.catalog.as_str(), settings.prefix.as_str()), ("main", "prod_"));
        assert_eq!(format!("{settings:?}"), settings.shown());
        let beside = PostgresSettings::parse("postgres://me@one,two:1/lake?target_session_attrs=read-write", Some("s"));
        let beside = beside.unwrap();
        assert_eq!(beside.shown(), "postgres://one:5432,two:1/lake");
        assert_eq!(beside.config.get_password(), Some(&b"s"[..]));
        assert_eq!(beside.catalog, CATALOG);
        // What is kept of it leads there again.
        assert_eq!(PostgresSettings::parse(settings.shown(), None).unwrap().shown(), settings.shown());
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_no_password_is_repeated() {
        for (url, why) in [
            ("postgres://me:hidden@host/lake?sslmode=require", "sslmode=disable"),
            ("postgres://me:hidden@host/lake?sslmode=verify-full", "sslrootcert=FILE"),
            (
                "postgres://me:hidden@host/lake?sslmode=verify-full&sslrootcert=nothing.pem",
                "nothing.pem cannot be used",
            ),
            ("postgres://me:hidden@host/lake?sslrootcert=nothing.pem", "is for sslmode=verify-full"),
            ("postgres://me:hidden@host", "names no database"),
            ("postgres://me:hidden@/lake", "names no host"),
            ("postgres://me:hid@den@host/lake", "%40"),
            ("postgres://me:hid?den@host/lake", "%3F"),
            ("postgres://me:hid%ter22@host/lake", "%25"),
            ("postgres://me:hidden%4@host/lake", "%25"),
            ("postgres://me:hidden@host/lake?application_name=50%", "%25"),
            ("postgres://me:x@hid/den@host/lake", "%40"),
            ("postgres://me:hidden@host/lake?prefix=a.b", "letters"),
            ("postgres://me:hidden@host/lake?schema=hidden", "catalog, prefix, sslmode"),
        ] {
            let error = PostgresSettings::parse(url, None).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("hid") && !error.contains("den@"), "{url}: {error}");
        }
        let twice = PostgresSettings::parse("postgres://me:hidden@host/lake", Some("second")).unwrap_err();
        assert!(twice.contains("give one") && !twice.contains("hidden") && !twice.contains("second"), "{twice}");
    }
}
