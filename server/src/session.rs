//! What one connection has set, and what it is told beside its results.

mod block;
mod path;
mod state;
mod temporary;
mod transaction;

use crate::{
    database::Database,
    outbox::Outbox,
    pg::{Hold, OpenCursors, PgError, SessionEvent},
    prepared::Prepared,
    rights::Rights,
    sessions::Place,
    wire::{SessionFormat, SessionZone},
};
pub use block::{Block, Mark, Stay, Taken};
use parking_lot::Mutex;
pub use path::effective as search_path;
pub use state::State;
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use temporary::Temporary;
use tidemark_catalog::ObjectId;
use tidemark_planner::{PlanError, PlanResult, parse::duration_us};

pub struct Session {
    pub user: String,
    pub connection_id: i32,
    pub peer: Option<SocketAddr>,
    /// As whom it logged in; `SET ROLE` acts as another, and goes back to this.
    pub login: ObjectId,
    /// What it may do, as whom it acts now. See [`Session::refresh`].
    pub rights: Arc<Rights>,
    /// `SET ROLE` since then.
    acts_as_another: bool,
    /// Settings by lower-case name; see [`DEFAULTS`].
    settings: HashMap<String, String>,
    /// What RESET goes back to: the defaults and what the startup packet said.
    initial: HashMap<String, String>,
    /// Values to put back when the transaction ends (`SET LOCAL`).
    local: Vec<(String, String)>,
    pub format: SessionFormat,
    /// [`LOOKUP_DEADLINE`], which every lookup asks for; `None`: there is none.
    pub lookup_deadline_us: Option<i64>,
    /// The base state in this session's time zone, with the functions that know the session.
    pub state: State,
    /// SQL-level `PREPARE`.
    pub prepared: HashMap<String, Arc<Prepared>>,
    pub events: Vec<SessionEvent>,
    pub in_transaction: bool,
    /// A query has run in this transaction: from then on a read-only one stays so.
    pub queried_in_transaction: bool,
    pub block: Block,
    /// What functions read and ask for (`current_setting`, `set_config`).
    pub shared: Arc<SharedSettings>,
    /// To finish what must not be left half done.
    pub hold: Hold,
    temporary: Temporary,
    /// Where names without a schema were looked for last.
    path: Mutex<Option<path::Found>>,
    /// Among the sessions that are open, once it is.
    pub place: Option<Place>,
    /// What DECLARE has opened, for `pg_cursors`.
    pub cursors: OpenCursors,
    /// LISTEN and NOTIFY.
    pub outbox: Arc<Outbox>,
}

/// The session's settings as functions see them while a statement runs; what they set is taken over when it ends.
#[derive(Default)]
pub struct SharedSettings {
    values: Mutex<HashMap<String, String>>,
    wanted: Mutex<Vec<(String, String, bool)>>,
    /// What the client is to be told of the statement.
    told: Mutex<Vec<PgError>>,
    /// The deprecated views that the client has been told of.
    deprecated: Mutex<BTreeSet<ObjectId>>,
}

impl SharedSettings {
    /// The client is told when the statement ends.
    pub fn tell(&self, notice: PgError) {
        self.told.lock().push(notice);
    }
}

impl crate::system::Settings for SharedSettings {
    fn get(&self, name: &str) -> Option<String> {
        self.values.lock().get(name).cloned()
    }

    fn set(&self, name: &str, value: &str, local: bool) -> PlanResult<()> {
        let mut values = self.values.lock();
        if !values.contains_key(name) && !name.contains('.') {
            return Err(PlanError::new("42704", format!("unrecognized configuration parameter \"{name}\"")));
        }
        values.insert(name.to_string(), value.to_string());
        self.wanted.lock().push((name.to_string(), value.to_string(), local));
        Ok(())
    }
}

/// How far behind its owner what a serving node answers may be, as a duration; empty: as far as it is.
pub const MAX_STALENESS: &str = "tidemark.max_staleness";

/// How long a lookup waits for what memory does not have at once, as a duration, or `off`: as long as it takes.
pub const LOOKUP_DEADLINE: &str = "tidemark.lookup_deadline";

/// The deadline that a value of [`LOOKUP_DEADLINE`] says, microseconds.
pub fn lookup_deadline_us(value: &str) -> Option<i64> {
    duration_us(value).ok().filter(|us| *us > 0)
}

/// The settings a session has: name, default, whether the client is told of changes (PostgreSQL's GUC_REPORT).
/// Unknown names are refused, so that `SHOW` never lies.
pub const DEFAULTS: &[(&str, &str, bool)] = &[
    ("application_name", "", true),
    ("backslash_quote", "safe_encoding", false),
    ("bytea_output", "hex", false),
    ("background_ddl", "off", false),
    ("client_encoding", "UTF8", true),
    ("client_min_messages", "notice", false),
    ("datestyle", "ISO, MDY", true),
    ("default_tablespace", "", false),
    ("default_transaction_isolation", "read committed", false),
    ("default_transaction_read_only", "off", true),
    ("enable_seqscan", "on", false),
    ("escape_string_warning", "on", false),
    ("extra_float_digits", "1", false),
    ("geqo", "on", false),
    ("idle_in_transaction_session_timeout", "0", false),
    ("idle_session_timeout", "0", false),
    ("in_hot_standby", "off", true),
    ("integer_datetimes", "on", true),
    ("intervalstyle", "postgres", true),
    ("is_superuser", "on", true),
    ("jit", "off", false),
    ("lc_collate", "C.UTF-8", false),
    ("lc_ctype", "C.UTF-8", false),
    ("lc_messages", "C.UTF-8", false),
    ("lc_monetary", "C.UTF-8", false),
    ("lc_numeric", "C.UTF-8", false),
    ("lc_time", "C.UTF-8", false),
    ("lock_timeout", "0", false),
    ("max_identifier_length", "63", false),
    ("max_index_keys", "32", false),
    ("role", "none", false),
    ("row_security", "on", false),
    ("search_path", "\"$user\", public", false),
    ("server_encoding", "UTF8", true),
    ("server_version", SERVER_VERSION, true),
    ("server_version_num", "150014", false),
    ("session_authorization", "", true),
    ("standard_conforming_strings", "on", true),
    ("statement_timeout", "0", false),
    ("synchronize_seqscans", "on", false),
    ("synchronous_commit", "on", false),
    ("timezone", "UTC", true),
    (LOOKUP_DEADLINE, "off", false),
    (MAX_STALENESS, "off", false),
    ("tidemark_version", env!("CARGO_PKG_VERSION"), true),
    ("transaction_isolation", "read committed", false),
    ("transaction_read_only", "off", false),
    ("xmloption", "content", false),
];

/// The PostgreSQL whose surface is spoken.
pub const SERVER_VERSION: &str = "15.14";

/// Settings that cannot be changed.
const FIXED: &[&str] = &[
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "lc_collate",
    "lc_ctype",
    "max_identifier_length",
    "max_index_keys",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "tidemark_version",
];

/// Names as PostgreSQL reports them.
fn reported(name: &str) -> Cow<'static, str> {
    match name {
        "datestyle" => "DateStyle".into(),
        "intervalstyle" => "IntervalStyle".into(),
        "timezone" => "TimeZone".into(),
        other => other.to_string().into(),
    }
}

impl Session {
    /// `login`: as whom, and what that may do.
    pub fn new(
        user: String,
        (connection_id, peer): (i32, Option<SocketAddr>),
        (login, rights): (ObjectId, Arc<Rights>),
        state: State,
        hold: Hold,
        outbox: Arc<Outbox>,
    ) -> Session {
        let mut settings: HashMap<String, String> =
            DEFAULTS.iter().map(|(name, value, _)| (name.to_string(), value.to_string())).collect();
        settings.insert("session_authorization".into(), user.clone());
        settings.insert("is_superuser".into(), on_off(rights.actor.is_superuser));
        let shared = Arc::new(SharedSettings { values: Mutex::new(settings.clone()), ..SharedSettings::default() });
        Session {
            user,
            connection_id,
            peer,
            login,
            rights,
            acts_as_another: false,
            initial: settings.clone(),
            settings,
            local: vec![],
            format: SessionFormat::default(),
            lookup_deadline_us: None,
            state,
            prepared: HashMap::new(),
            events: vec![],
            in_transaction: false,
            queried_in_transaction: false,
            block: Block::default(),
            shared,
            hold,
            temporary: Temporary::default(),
            path: Mutex::default(),
            place: None,
            cursors: OpenCursors::default(),
            outbox,
        }
    }

    /// Takes over what the catalog has to say of the role, if it has changed. One comparison where it has not.
    pub fn refresh(&mut self, database: &Database) {
        if self.rights.generation == database.generation() && !self.acts_as_another {
            return;
        }
        self.acts_as_another = false;
        let snapshot = database.snapshot();
        let role = match self.get("role") {
            None | Some("none") => self.login,
            // One that is gone may do nothing.
            Some(name) => snapshot.access.role_named(name).map_or(ObjectId(u32::MAX), |role| role.id),
        };
        self.rights = database.rights(&snapshot, role);
        if self.has_temporary() {
            self.rights_of_temporary(database);
        }
        let is_superuser = on_off(self.rights.actor.is_superuser);
        if self.get("is_superuser") != Some(is_superuser.as_str()) {
            self.store("is_superuser", is_superuser);
        }
    }

    /// Tells the client, once for each, of deprecated views among those that it reads.
    pub fn warn_of_deprecated(&self, reads: impl IntoIterator<Item = ObjectId>) {
        for (view, (name, instead)) in reads.into_iter().filter_map(|id| Some((id, self.rights.deprecated(id)?))) {
            if self.shared.deprecated.lock().insert(view) {
                let notice = PgError::notice(format!("feature view \"{name}\" is deprecated: {instead}"));
                self.shared.tell(PgError { sqlstate: "01P01", ..notice });
            }
        }
    }

    /// Whether `SET ROLE` may make the session act as the role of that name.
    fn check_role(&self, name: &str) -> Result<(), PgError> {
        let access = self.rights.access();
        if name == "none" {
            return Ok(());
        }
        let Some(role) = access.role_named(name) else {
            return Err(PgError::error("22023", format!("role \"{name}\" does not exist")));
        };
        let is_superuser = access.role(self.login).is_some_and(|role| role.superuser);
        match is_superuser || access.memberships(self.login).contains(&role.id) {
            true => Ok(()),
            false => Err(PgError::error("42501", format!("permission denied to set role \"{name}\""))
                .hint(format!("a superuser can GRANT {name} TO {}", self.user))),
        }
    }

    /// Of a serving node: nothing can be changed, and drivers that look for a server where it can go on looking.
    pub fn only_reads(&mut self) {
        for name in ["in_hot_standby", "default_transaction_read_only"] {
            self.store(name, "on".to_string());
        }
        self.store_defaults();
    }

    /// What the startup packet asks for becomes what RESET goes back to.
    pub fn startup(&mut self, settings: Vec<(String, String)>) -> Result<(), PgError> {
        for (name, value) in settings {
            let name = name.to_lowercase();
            if name == "replication" {
                return Err(PgError::fatal("0A000", "replication is not available"));
            }
            if name.starts_with("_pq_.") {
                continue;
            }
            self.set(&name, Some(&value), false)?;
        }
        self.initial = self.settings.clone();
        self.events.clear();
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    pub fn all(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = self.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        all.sort();
        all
    }

    /// `SET name = value`; `None` is DEFAULT.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<(), PgError> {
        // Names with a dot are a program's own; before they are set they are empty.
        let own = || name.contains('.').then(String::new);
        let Some(current) = self.settings.get(name).cloned().or_else(own) else {
            return Err(PgError::error("42704", format!("unrecognized configuration parameter \"{name}\"")));
        };
        let value = value.map_or_else(|| self.initial.get(name).cloned().unwrap_or_default(), str::to_string);
        if FIXED.contains(&name) && value != current {
            return Err(PgError::error("55P02", format!("parameter \"{name}\" cannot be changed")));
        }
        let value = self.check(name, value)?;
        self.check_mode(name, &value)?;
        if local && !self.in_transaction {
            self.warn_outside_block(name);
            return Ok(());
        }
        if !self.in_transaction && transaction::is_of_transaction(name) {
            return Ok(());
        }
        if local {
            self.local.push((name.to_string(), current));
        } else {
            // What was there before the transaction is no more.
            self.local.retain(|(of, _)| of != name);
        }
        self.store(name, value);
        if !self.in_transaction {
            self.store_defaults();
        }
        Ok(())
    }

    fn store(&mut self, name: &str, value: String) {
        if name == "timezone"
            && let Some(zone) = SessionZone::parse(&value)
        {
            self.format.time_zone = zone;
            self.state.set_time_zone(&value);
        }
        if name == "role" {
            self.acts_as_another = true;
        }
        if name == LOOKUP_DEADLINE {
            self.lookup_deadline_us = lookup_deadline_us(&value);
        }
        if name == "extra_float_digits" {
            self.format.extra_float_digits = value.parse().unwrap_or(1);
        }
        if DEFAULTS.iter().any(|(n, _, report)| *n == name && *report) {
            self.events.push(SessionEvent::Parameter { name: reported(name), value: value.clone() });
        }
        self.shared.values.lock().insert(name.to_string(), value.clone());
        self.settings.insert(name.to_string(), value);
    }

    /// Takes over what functions of the last statement have set; a bad value is told, as it is too late to refuse it.
    pub fn take_over(&mut self) {
        if !self.in_transaction {
            self.outbox.commit();
        }
        let told = std::mem::take(&mut *self.shared.told.lock());
        self.events.extend(told.into_iter().map(SessionEvent::Notice));
        let wanted = std::mem::take(&mut *self.shared.wanted.lock());
        for (name, value, local) in wanted {
            // As in PostgreSQL, a function sets it for its own statement, which is over.
            if local && !self.in_transaction {
                let kept = self.settings.get(&name).cloned().unwrap_or_default();
                self.shared.values.lock().insert(name, kept);
                continue;
            }
            if let Err(error) = self.set(&name, Some(&value), local) {
                let kept = self.settings.get(&name).cloned().unwrap_or_default();
                self.shared.values.lock().insert(name, kept);
                self.events.push(SessionEvent::Notice(PgError { severity: crate::pg::Severity::Warning, ..error }));
            }
        }
    }

    fn check(&self, name: &str, value: String) -> Result<String, PgError> {
        let invalid = || PgError::error("22023", format!("invalid value for parameter \"{name}\": \"{value}\""));
        match name {
            "role" => self.check_role(&value).map(|()| value),
            "timezone" => match SessionZone::parse(&value) {
                Some(_) => Ok(value),
                None => Err(invalid().hint("a zone of the IANA database such as Europe/Berlin, or UTC")),
            },
            // asyncpg sends it in quotes.
            "client_encoding" => match value.trim_matches('\'').to_uppercase().replace('-', "").as_str() {
                "UTF8" | "UNICODE" | "SQL_ASCII" => Ok("UTF8".into()),
                _ => Err(invalid().hint("only UTF8")),
            },
            "datestyle" => match value.to_lowercase().starts_with("iso") {
                true => Ok("ISO, MDY".into()),
                false => Err(invalid().hint("only ISO")),
            },
            "intervalstyle" if value.to_lowercase() != "postgres" => Err(invalid().hint("only postgres")),
            "bytea_output" if value.to_lowercase() != "hex" => Err(invalid().hint("only hex")),
            "standard_conforming_strings" if !matches!(value.to_lowercase().as_str(), "on" | "true" | "1" | "yes") => {
                Err(invalid().hint("only on"))
            }
            "extra_float_digits" => match value.parse::<i32>() {
                Ok(n) if (-15..=3).contains(&n) => Ok(value),
                _ => Err(invalid()),
            },
            "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" | "idle_session_timeout" => {
                match milliseconds(&value) {
                    Some(ms) => Ok(ms.to_string()),
                    None => Err(invalid().hint("milliseconds, or a number with ms, s, min, h or d")),
                }
            }
            "default_transaction_read_only" | "transaction_read_only" => match boolean(&value) {
                Some(on) => Ok(if on { "on" } else { "off" }.into()),
                None => Err(PgError::error("22023", format!("parameter \"{name}\" requires a Boolean value"))),
            },
            "default_transaction_isolation" | "transaction_isolation" => {
                let level = value.to_lowercase();
                match level.as_str() {
                    "read uncommitted" | "read committed" | "repeatable read" | "serializable" => Ok(level),
                    _ => Err(invalid().hint("read uncommitted, read committed, repeatable read, serializable")),
                }
            }
            LOOKUP_DEADLINE | MAX_STALENESS if matches!(value.as_str(), "" | "0" | "off") => Ok("off".into()),
            LOOKUP_DEADLINE | MAX_STALENESS => match duration_us(&value) {
                Ok(_) => Ok(value),
                Err(error) => Err(PgError { detail: Some(error.message), hint: error.hint, ..invalid() }),
            },
            other if other.starts_with("tidemark.") => {
                Err(PgError::error("42704", format!("unrecognized configuration parameter \"{other}\""))
                    .hint("names with a dot are a program's own; ours are lookup_deadline and max_staleness"))
            }
            _ => Ok(value),
        }
    }

    pub fn reset_all(&mut self) {
        let initial = self.keep_transaction(self.initial.clone());
        for (name, value) in &initial {
            if self.settings.get(name) != Some(value) {
                self.store(name, value.clone());
            }
        }
        self.settings = initial;
        if !self.in_transaction {
            self.store_defaults();
        }
    }

    pub fn statement_timeout(&self) -> Option<Duration> {
        self.timeout("statement_timeout")
    }

    /// How long the client may leave the session idle.
    pub fn idle_timeout(&self, in_transaction: bool) -> Option<Duration> {
        self.timeout(if in_transaction { "idle_in_transaction_session_timeout" } else { "idle_session_timeout" })
    }

    fn timeout(&self, name: &str) -> Option<Duration> {
        let ms: u64 = self.get(name)?.parse().ok()?;
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// What the client is told at start-up.
    pub fn parameters(&self) -> Vec<(Cow<'static, str>, String)> {
        DEFAULTS
            .iter()
            .filter(|(_, _, report)| *report)
            .map(|(name, default, _)| (reported(name), self.get(name).unwrap_or(default).to_string()))
            .collect()
    }

    pub fn notice(&mut self, text: impl Into<String>) {
        self.events.push(SessionEvent::Notice(PgError::notice(text)));
    }
}

fn on_off(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_string()
}

/// PostgreSQL's spellings of a switch, and what is short for one of them.
fn boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_lowercase();
    let short_for = |words: [&str; 4]| match text.as_str() {
        "" | "o" => false,
        text => words.iter().any(|word| word.starts_with(text)),
    };
    match (short_for(["on", "true", "yes", "1"]), short_for(["off", "false", "no", "0"])) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// PostgreSQL's time settings: milliseconds unless a unit is given.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let n: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    n.checked_mul(unit)
}
