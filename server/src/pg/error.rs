//! What a client is told when something goes wrong: PostgreSQL's error and notice fields, and nothing else.

use tidemark_planner::PlanError;

/// How bad it is, in PostgreSQL's words. `Fatal` ends the connection; the rest below `Error` are notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Fatal,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// An error or a notice as it goes over the wire (PostgreSQL, section 55.8 "Error and Notice Message Fields").
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct PgError {
    pub severity: Severity,
    /// Five characters (PostgreSQL, appendix A); [`sqlstate`] has those used here.
    pub sqlstate: &'static str,
    /// Lower case, no full stop, names the object and its kind.
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based position in characters in the statement's text.
    pub position: Option<usize>,
    /// Where it happened, for example `COPY flights, line 7`.
    pub context: Option<String>,
}

impl PgError {
    fn with(severity: Severity, sqlstate: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        PgError { severity, sqlstate, message, detail: None, hint: None, position: None, context: None }
    }

    /// A statement failed; the connection goes on.
    pub fn error(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self::with(Severity::Error, sqlstate, message)
    }

    /// The connection ends after this.
    pub fn fatal(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self::with(Severity::Fatal, sqlstate, message)
    }

    pub fn warning(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self::with(Severity::Warning, sqlstate, message)
    }

    pub fn notice(message: impl Into<String>) -> Self {
        Self::with(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, message)
    }

    /// A message that breaks the protocol.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::error(sqlstate::PROTOCOL_VIOLATION, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Fatal
    }

    /// The same, ending the connection: every error before the first ReadyForQuery is fatal.
    pub(super) fn into_fatal(mut self) -> Self {
        self.severity = Severity::Fatal;
        self
    }
}

impl From<PlanError> for PgError {
    fn from(error: PlanError) -> Self {
        PgError {
            severity: Severity::Error,
            sqlstate: error.sqlstate,
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: error.position,
            context: None,
        }
    }
}

/// The SQLSTATEs of the protocol itself, by PostgreSQL's names.
pub mod sqlstate {
    pub const SUCCESSFUL_COMPLETION: &str = "00000";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
    pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
    pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
    pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const INVALID_CURSOR_NAME: &str = "34000";
    pub const INVALID_SAVEPOINT: &str = "3B001";
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const DUPLICATE_CURSOR: &str = "42P03";
    pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: &str = "25P03";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const INTERNAL_ERROR: &str = "XX000";
}
