//! What can be set about a server, in one table (`settings/table.rs`): flags, environment variables, the TOML file and
//! `docs/settings.md` are all read off it, so none can know a name that another does not.
//!
//! ```text
//! strongest   --max-connections 50            a flag
//!             TIDEMARK_MAX_CONNECTIONS=50     the environment
//!             max_connections = 50            the TOML file (--config, TIDEMARK_CONFIG)
//! weakest     1000                            the default
//! ```
//!
//! A name that nobody knows is refused, with the nearest that somebody does: a misspelt setting that is silently the
//! default is found out in production.

pub mod hba;
mod nearest;
mod table;
mod value;

pub use nearest::nearest;
pub use table::{SETTINGS, Setting, document};
pub use value::Private;

use crate::pg;
use hba::Hba;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_connectors::log::{Fsync, LogSettings};

/// Everything that can be set, settled. See [`SETTINGS`] for what each means and why its default is what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub listen: SocketAddr,
    pub http: Http,
    pub data: PathBuf,
    /// The history's directory, or the URL of its bucket; `None`: in the data directory.
    pub warehouse: Option<PathBuf>,
    pub s3_endpoint: Option<String>,
    pub s3_region: Option<String>,
    pub history_catalog: Option<Private>,
    pub history_catalog_credential: Option<Private>,
    pub log_format: LogFormat,
    /// `tracing`'s filter; `RUST_LOG` goes before it.
    pub log: String,
    pub max_connections: usize,
    pub startup_timeout: Duration,
    pub unauthenticated_max: usize,
    /// `None`: who is not let in is told at once.
    pub auth_delay: Option<Duration>,
    /// `None`: by the roles of the catalog.
    pub hba: Option<Hba>,
    pub ssl: Ssl,
    pub ssl_cert_file: Option<PathBuf>,
    pub ssl_key_file: Option<PathBuf>,
    pub ssl_ca_file: Option<PathBuf>,
    pub superuser: String,
    /// Has the password that the superuser gets if it has none.
    pub superuser_password_file: Option<PathBuf>,
    pub message_bytes_max: usize,
    pub shutdown_grace: Duration,
    /// What a session begins with; `None`: statements may take as long as they like.
    pub statement_timeout: Option<Duration>,
    pub fsync: Fsync,
    pub log_segment_bytes: u64,
    /// `None`: what the disk has.
    pub log_max_bytes: Option<u64>,
    /// How often finished steps are appended to a view's history.
    pub commit_interval: Duration,
    pub checkpoint_interval: Duration,
    /// Whether history is cared for unasked.
    pub maintenance: bool,
    pub maintenance_interval: Duration,
    pub maintenance_files: usize,
    pub maintenance_bytes: u64,
    pub history_file_bytes: u64,
    pub snapshot_retention: Duration,
    pub orphan_age: Duration,
    pub online_tick: Duration,
    pub role: Role,
    /// How long a serving node uses what it has read; `None`: not at all.
    pub serving_cache: Option<Duration>,
    pub serving_cache_entries: usize,
    pub serving_stale: Stale,
    /// The URL of a Redis; `None`: the data directory.
    pub online: Option<Private>,
    /// `None`: as many as there are processors.
    pub worker_threads: Option<usize>,
    /// What the queries of all connections may hold in memory together; `None`: no limit.
    pub query_memory: Option<u64>,
    /// What they may have on disk beyond that; `None`: no limit.
    pub query_disk: Option<u64>,
    /// What the keys of all feature views may take in memory together.
    pub state_memory: u64,
    pub batch_rows: usize,
}

/// What a server is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has a data directory: it takes events in and keeps views.
    Owner,
    /// It answers lookups from the Redis that an owner fills.
    Serving,
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ssl {
    Off,
    /// Those that ask for it.
    On,
    /// Others are refused.
    Require,
}

/// What a serving node does with a row that does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It is answered with a warning.
    Warn,
    Error,
}

/// Where HTTP is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// On the usual address, if nobody else listens there.
    Auto,
    At(SocketAddr),
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    Human,
    Json,
}

/// Why settings were refused. The way out follows the message, after `HINT: `.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{origin} names an unknown setting \"{name}\"\nHINT: {hint}")]
    Unknown { origin: String, name: String, hint: String },
    #[error("{origin}: \"{value}\" is not {expected}\nHINT: {hint}")]
    Invalid { origin: String, value: String, expected: &'static str, hint: String },
    #[error("cannot read the settings file {path}: {problem}\nHINT: {hint}", path = path.display())]
    File { path: PathBuf, problem: String, hint: &'static str },
}

/// Variables that begin like a setting and are none: `tidemark`'s own other ones, and the tests'.
const NOT_SETTINGS: [&str; 6] = ["CONFIG", "URL", "BIN", "PYTHON", "LAKE_PYTHON", "SMALL_DISK"];
const NOT_SETTINGS_PREFIXES: [&str; 5] = ["ORACLE_", "TEST_", "BENCH_", "SIMULATION_", "FRONT_"];

const PREFIX: &str = "TIDEMARK_";

impl Default for Settings {
    fn default() -> Self {
        // Every field is in the table, so all of these are replaced at once; a test holds the table to that.
        let mut settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: Http::Off,
            data: PathBuf::new(),
            warehouse: None,
            s3_endpoint: None,
            s3_region: None,
            history_catalog: None,
            history_catalog_credential: None,
            log_format: LogFormat::Auto,
            log: String::new(),
            max_connections: 0,
            startup_timeout: Duration::ZERO,
            unauthenticated_max: 0,
            auth_delay: None,
            hba: None,
            ssl: Ssl::Off,
            ssl_cert_file: None,
            ssl_key_file: None,
            ssl_ca_file: None,
            superuser: String::new(),
            superuser_password_file: None,
            message_bytes_max: 0,
            shutdown_grace: Duration::ZERO,
            statement_timeout: None,
            fsync: Fsync::Always,
            log_segment_bytes: 0,
            log_max_bytes: None,
            commit_interval: Duration::ZERO,
            checkpoint_interval: Duration::ZERO,
            maintenance: false,
            maintenance_interval: Duration::ZERO,
            maintenance_files: 0,
            maintenance_bytes: 0,
            history_file_bytes: 0,
            snapshot_retention: Duration::ZERO,
            orphan_age: Duration::ZERO,
            online_tick: Duration::ZERO,
            role: Role::Owner,
            serving_cache: None,
            serving_cache_entries: 0,
            serving_stale: Stale::Warn,
            online: None,
            worker_threads: None,
            query_memory: None,
            query_disk: None,
            state_memory: 0,
            batch_rows: 0,
        };
        for setting in SETTINGS {
            let accepted = (setting.set)(&mut settings, setting.default);
            debug_assert_eq!(accepted, Ok(()), "the default of {}", setting.name());
        }
        settings
    }
}

impl Settings {
    /// Settles all settings: `flags` by the names in the table, then `environment`, then the file, then the defaults.
    pub fn load(
        flags: &[(&'static str, String)],
        environment: impl IntoIterator<Item = (String, String)>,
        config: Option<&Path>,
    ) -> Result<Settings, SettingsError> {
        let mut settings = Settings::default();
        if let Some(path) = config {
            settings.apply_file(path)?;
        }
        settings.apply_environment(environment)?;
        for (flag, value) in flags {
            let origin = format!("flag --{flag}");
            match SETTINGS.iter().find(|setting| setting.flag == *flag) {
                Some(setting) => settings.apply(setting, origin, value)?,
                None => return Err(unknown(origin, flag, "", SETTINGS.iter().map(|s| s.flag.to_string()))),
            }
        }
        Ok(settings)
    }

    fn apply(&mut self, setting: &Setting, origin: String, value: &str) -> Result<(), SettingsError> {
        (setting.set)(self, value).map_err(|expected| SettingsError::Invalid {
            origin,
            value: value.to_string(),
            expected,
            hint: format!("the default is {}", setting.default),
        })
    }

    fn apply_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), SettingsError> {
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if NOT_SETTINGS.contains(&name) || NOT_SETTINGS_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let origin = format!("environment variable {variable}");
            match SETTINGS.iter().find(|setting| setting.name().to_uppercase() == name) {
                Some(setting) => self.apply(setting, origin, &value)?,
                None => {
                    let known = SETTINGS.iter().map(|setting| setting.name().to_uppercase());
                    return Err(unknown("the environment".to_string(), &variable, PREFIX, known));
                }
            }
        }
        Ok(())
    }

    fn apply_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let file = |problem: String, hint| SettingsError::File { path: path.to_path_buf(), problem, hint };
        let text = std::fs::read_to_string(path)
            .map_err(|e| file(e.to_string(), "give the path of a TOML file with --config, or leave it out"))?;
        let parsed: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            file(without_text(&text, &e), "a setting is a line such as: max_connections = 100")
        })?;
        for (name, value) in parsed {
            let origin = format!("settings file {}", path.display());
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name() == name) else {
                return Err(unknown(origin, &name, "", SETTINGS.iter().map(Setting::name)));
            };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                other => other.to_string(),
            };
            self.apply(setting, format!("{origin}, setting {name}"), &text)?;
        }
        Ok(())
    }

    /// The part that the protocol wants.
    pub fn pg(&self) -> pg::Settings {
        pg::Settings {
            max_connections: self.max_connections,
            startup_timeout: self.startup_timeout,
            unauthenticated_max: self.unauthenticated_max,
            auth_delay: self.auth_delay,
            message_bytes_max: self.message_bytes_max,
            shutdown_grace: self.shutdown_grace,
            ..pg::Settings::default()
        }
    }

    /// The part that an embedded log wants.
    pub fn embedded_log(&self) -> LogSettings {
        LogSettings { fsync: self.fsync, segment_bytes: self.log_segment_bytes, max_bytes: self.log_max_bytes }
    }
}

/// What is wrong with a file and in which line. The line itself may have a password in it.
fn without_text(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().map_or(0, |span| span.start);
    let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
    format!("line {line}: {}", error.message())
}

fn unknown(origin: String, name: &str, prefix: &str, known: impl Iterator<Item = String>) -> SettingsError {
    let known: Vec<String> = known.collect();
    let wanted = name.strip_prefix(prefix).unwrap_or(name);
    let hint = match nearest(wanted, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {prefix}{near}?"),
        None => "tidemark serve --help lists all settings".to_string(),
    };
    SettingsError::Unknown { origin, name: name.to_string(), hint }
}

/// The variables of this process, as far as they are text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
