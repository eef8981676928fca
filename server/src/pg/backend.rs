//! What the protocol asks of the database behind it. The protocol knows no SQL; the database knows no messages.
//!
//! ```text
//! simple query    recall -> execute_now, else split -> for each piece: prepare_piece -> execute
//! extended query  Parse: prepare   Describe: parameter_types, columns   Execute: execute_now, else execute
//! ```
//!
//! Values go back as complete DataRow messages that the backend's encoder writes straight into the connection's output
//! buffer, so a value is written once and a batch is never turned into rows of boxed values.

use super::cursor::{CursorVerb, OpenCursors};
use super::error::{PgError, sqlstate};
use super::format::Formats;
use super::watch::{Bell, Hold};
use crate::scram::Verifier;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What a client asked for when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Also `pg_backend_pid()`; unique among open connections.
    pub connection_id: i32,
    pub peer: Option<SocketAddr>,
    pub is_encrypted: bool,
    pub user: String,
    /// As whom it was admitted.
    pub role: u32,
    /// The user's name where the client gave none, as in PostgreSQL.
    pub database: String,
    /// Settings in the order to apply them: those of `options=-c name=value` first, then the rest of the packet
    /// (`application_name`, `client_encoding`, `TimeZone`, …).
    pub settings: Vec<(String, String)>,
    pub hold: Hold,
    pub bell: Bell,
}

/// What LISTEN hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The connection that has sent it; 0 is the server.
    pub sender: i32,
    pub channel: Arc<str>,
    pub payload: Arc<str>,
}

/// What is known of a client that wants to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// `None`: it is in this process.
    pub peer: Option<SocketAddr>,
    pub is_encrypted: bool,
    /// That the client has shown and that was verified; DER.
    pub certificate: Option<&'a [u8]>,
    pub user: &'a str,
    pub database: &'a str,
}

/// On what condition a client is let in.
pub struct Admission {
    /// What its password has to fit; `None`: it needs none.
    pub verifier: Option<Verifier>,
    /// As whom; a number of the backend's.
    pub role: u32,
}

/// The database behind the protocol.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// State of one connection: settings, user, time zone.
    type Session: Send + 'static;
    /// A statement ready to run any number of times, shared freely (also between connections, by a plan cache).
    type Prepared: Send + Sync + 'static;
    /// One statement of a simple query, parsed but not yet bound to the catalog.
    type Piece: Send + 'static;

    /// Whether, on what condition and as whom a client is let in. By default everybody is.
    ///
    /// # Errors
    /// Not at all.
    fn admit(&self, _login: &Login<'_>) -> Result<Admission, PgError> {
        Ok(Admission { verifier: None, role: 0 })
    }

    /// A client was not let in, and is told so.
    fn refused(&self, _login: &Login<'_>, _error: &PgError) {}

    /// A client connected. Errors (3D000, 28000, 53300 …) end the connection.
    async fn open(&self, startup: Startup) -> Result<Self::Session, PgError>;

    /// A client left. What it had open has been rolled back through [`Backend::transaction`].
    async fn close(&self, _session: Self::Session) {}

    /// ParameterStatus at startup, over the protocol's own defaults: at least `server_version`, `TimeZone`, `DateStyle`
    /// and whatever else the session has that differs.
    fn parameters(&self, session: &mut Self::Session) -> Vec<(Cow<'static, str>, String)>;

    /// A statement whose whole text the backend knows well enough to have it prepared without reading it again: one that
    /// has no parameters and is nearly always answered by [`Backend::execute_now`]. Where it is not, the text is split.
    fn recall(&self, _session: &mut Self::Session, _sql: &str) -> Option<Arc<Self::Prepared>> {
        None
    }

    /// Whether a recalled statement that is not answered at once is to be run as it is: it waits for something, and to read its
    /// text again would tell nothing new.
    fn waits(&self, _prepared: &Self::Prepared) -> bool {
        false
    }

    /// Cuts the text of a simple query into statements; empty ones are left out. An error here runs none of them.
    fn split(&self, session: &mut Self::Session, sql: &str) -> Result<Vec<Self::Piece>, PgError>;

    /// Binds a piece to the catalog. Called when the pieces before it have run.
    async fn prepare_piece(
        &self,
        session: &mut Self::Session,
        piece: Self::Piece,
    ) -> Result<Arc<Self::Prepared>, PgError>;

    /// Parses and binds one statement with parameters; `parameter_oids` are the client's, 0 or absent where it leaves
    /// the type to us. More than one statement is 42601; none at all is a statement whose outcome is
    /// [`Outcome::Empty`].
    async fn prepare(
        &self,
        session: &mut Self::Session,
        sql: &str,
        parameter_oids: &[u32],
    ) -> Result<Arc<Self::Prepared>, PgError>;

    /// Type OIDs of the parameters, in order; never 0.
    fn parameter_types<'a>(&self, prepared: &'a Self::Prepared) -> &'a [u32];

    /// The columns of the rows to come; `None` for a statement that returns none. Called once per Describe: keep them
    /// in the prepared statement and lend them.
    fn columns<'a>(&self, session: &mut Self::Session, prepared: &'a Self::Prepared) -> Option<Cow<'a, [Column]>>;

    /// Statements the protocol carries out itself, because their meaning is the connection's state.
    fn verb<'a>(&self, prepared: &'a Self::Prepared) -> Option<Verb<'a>>;

    /// A client has prepared a statement under a name, by which EXECUTE in SQL may call it.
    fn named(&self, _session: &mut Self::Session, _name: &str, _prepared: &Arc<Self::Prepared>) {}

    /// Forgets what was prepared under this name (`None`: all of it), by a client or in SQL. Whether there was any.
    fn deallocate(&self, _session: &mut Self::Session, _name: Option<&str>) -> bool {
        false
    }

    /// Statements about cursors, which the protocol carries out too.
    fn cursor_verb<'a>(&self, _prepared: &'a Self::Prepared) -> Option<CursorVerb<'a, Self::Prepared>> {
        None
    }

    /// Runs a query whose rows are to be fetched in portions, each in formats of its own ([`Backend::encoder`]).
    async fn open_cursor(
        &self,
        _session: &mut Self::Session,
        _query: &Arc<Self::Prepared>,
        _bound: &Bound,
    ) -> Result<Batches, PgError> {
        Err(PgError::error(sqlstate::FEATURE_NOT_SUPPORTED, "there are no cursors"))
    }

    /// What encodes rows of [`Backend::open_cursor`], as the session is now.
    fn encoder(
        &self,
        _session: &mut Self::Session,
        _query: &Self::Prepared,
        _formats: &Formats,
    ) -> Result<Box<dyn EncodeRows>, PgError> {
        Err(PgError::error(sqlstate::FEATURE_NOT_SUPPORTED, "there are no cursors"))
    }

    /// Where the session looks its cursors up.
    fn cursors(&self, _session: &mut Self::Session) -> OpenCursors {
        OpenCursors::default()
    }

    /// The path of point lookups: if this statement can be answered at once, without waiting, append its rows to `out`
    /// as complete DataRow messages. `None` sends it to [`Backend::execute`] (then append nothing). On an error
    /// anything appended is taken back. No timeout, cancellation or copy applies here.
    fn execute_now(
        &self,
        _session: &mut Self::Session,
        _prepared: &Arc<Self::Prepared>,
        _bound: &Bound,
        _out: &mut BytesMut,
    ) -> Option<Result<Completed, PgError>> {
        None
    }

    /// Runs a statement. Dropping the future, or the streams it returned, stops it: that is how a statement is cancelled.
    async fn execute(
        &self,
        session: &mut Self::Session,
        prepared: &Arc<Self::Prepared>,
        bound: &Bound,
    ) -> Result<Outcome, PgError>;

    /// A transaction began or ended, got its mode, or a savepoint. A failed block ends in `Rollback`, whatever the client said.
    /// Nothing interrupts this. Rolling back to a savepoint has ended the failed state and closed the cursors declared since.
    async fn transaction(&self, _session: &mut Self::Session, _event: TxEvent) -> Result<(), PgError> {
        Ok(())
    }

    /// `statement_timeout`, over everything from the statement's start to its last row.
    fn statement_timeout(&self, _session: &mut Self::Session) -> Option<Duration> {
        None
    }

    /// `idle_in_transaction_session_timeout`, or outside of one `idle_session_timeout`: how long the client may leave the
    /// connection idle. Asked whenever it is.
    fn idle_timeout(&self, _session: &mut Self::Session, _in_transaction: bool) -> Option<Duration> {
        None
    }

    /// A statement has failed. Called before [`Backend::take_events`]; of a block, its end is told too.
    fn failed(&self, _session: &mut Self::Session) {}

    /// Notifications for the client, after the startup's [`Bell`] was rung. Called when no transaction is open.
    fn take_notifications(&self, _session: &mut Self::Session) -> Vec<Notification> {
        Vec::new()
    }

    /// What happened since the last call that the client should hear of. Called after each statement; keep the empty
    /// case free.
    fn take_events(&self, _session: &mut Self::Session) -> Vec<SessionEvent> {
        Vec::new()
    }
}

/// A column as RowDescription has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// 0 unless the column is a table's own.
    pub table_oid: u32,
    /// From 1; 0 unless the column is a table's own.
    pub column_number: i16,
    pub type_oid: u32,
    /// Bytes, or −1 where it varies.
    pub type_size: i16,
    pub type_modifier: i32,
}

impl Column {
    /// A column that belongs to no table.
    pub fn computed(name: impl Into<String>, type_oid: u32, type_size: i16) -> Self {
        Column { name: name.into(), table_oid: 0, column_number: 0, type_oid, type_size, type_modifier: -1 }
    }
}

/// What the protocol does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb<'a> {
    /// `BEGIN`, `START TRANSACTION`, whether it said READ ONLY or READ WRITE, and the isolation level if it said one.
    Begin {
        read_only: Option<bool>,
        isolation: Option<&'static str>,
    },
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    Savepoint(&'a str),
    Release(&'a str),
    RollbackTo(&'a str),
    /// `DEALLOCATE name`, `DEALLOCATE ALL` (`None`).
    Deallocate(Option<&'a str>),
    /// `CLOSE name`, `CLOSE ALL` (`None`).
    CloseCursor(Option<&'a str>),
}

/// Told to [`Backend::transaction`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxEvent {
    /// `implicit`: the block around the statements of one simple query. A single statement has none, nor has a batch of
    /// the extended protocol: there each Execute stands alone unless the client says BEGIN.
    Begin {
        implicit: bool,
    },
    /// What `BEGIN READ ONLY | READ WRITE | ISOLATION LEVEL …` says, after the block has begun (or where one was open already).
    Mode {
        read_only: Option<bool>,
        isolation: Option<&'static str>,
    },
    Commit,
    Rollback,
    /// There are so many savepoints now: what the last of them is to bring back is as things are.
    Savepoint {
        depth: usize,
    },
    /// Back to the last of so many, which stays.
    RollbackTo {
        depth: usize,
    },
}

/// Told by [`Backend::take_events`].
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    Notice(PgError),
    /// A reported setting changed.
    Parameter {
        name: Cow<'static, str>,
        value: String,
    },
    /// `DISCARD ALL` ran: named statements and portals go too.
    Discarded,
}

/// Parameters of one execution and the formats wanted back.
#[derive(Debug, Default)]
pub struct Bound {
    /// As many as [`Backend::parameter_types`]; `None` is NULL.
    pub parameters: Vec<Option<Bytes>>,
    pub parameter_formats: Formats,
    pub result_formats: Formats,
}

/// Rows a finished statement touched, and how CommandComplete says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    pub rows: u64,
    pub tag: RowsTag,
}

/// The command tag of a statement that returns rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsTag {
    /// `SELECT 5`, `INSERT 0 5` (text `INSERT 0`): the number of rows follows.
    Counted(&'static str),
    /// `SHOW`, `EXPLAIN`: alone.
    Plain(&'static str),
}

impl RowsTag {
    pub const SELECT: RowsTag = RowsTag::Counted("SELECT");
}

/// Batches of rows as they become ready.
pub type Batches = BoxStream<'static, Result<RecordBatch, PgError>>;

/// What running a statement gives.
pub enum Outcome {
    /// Rows to come; their columns are those of [`Backend::columns`].
    Rows { stream: Batches, encoder: Box<dyn EncodeRows>, tag: RowsTag },
    /// Rows that are there already, as complete DataRow messages.
    RawRows { messages: BytesMut, completed: Completed },
    /// Done, no rows: the whole command tag.
    Done { tag: Cow<'static, str> },
    /// There was no statement.
    Empty,
    /// `COPY … FROM STDIN`.
    CopyIn { sink: Box<dyn CopyInSink>, layout: CopyLayout },
    /// `COPY … TO STDOUT`.
    CopyOut { stream: BoxStream<'static, Result<CopyChunk, PgError>>, layout: CopyLayout },
}

/// Turns rows of a batch into DataRow messages.
pub trait EncodeRows: Send {
    /// Appends one complete DataRow message for each row of `rows`. After an error the caller takes back what this call
    /// appended.
    fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<(), PgError>;
}

/// How COPY's data is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyLayout {
    /// Binary, as a whole; text and CSV are text.
    pub binary: bool,
    pub columns: i16,
}

/// Where the data of `COPY … FROM STDIN` goes. Dropped without `finish` it must leave nothing behind.
#[async_trait]
pub trait CopyInSink: Send {
    /// The next bytes; a piece may end anywhere, also inside a row.
    async fn data(&mut self, data: Bytes) -> Result<(), PgError>;
    /// All was sent: make it so.
    async fn finish(self: Box<Self>) -> Result<Copied, PgError>;
    /// The client gave up, was cancelled or left, or `data` failed. Quick: nothing interrupts it.
    async fn fail(self: Box<Self>, reason: &str);
}

/// What came of `COPY … FROM STDIN`.
#[derive(Debug)]
pub struct Copied {
    /// The command tag: `COPY 5`.
    pub tag: String,
    /// What the client is told beside it. The session is not the sink's to write to.
    pub notice: Option<PgError>,
}

/// A piece of `COPY … TO STDOUT`.
#[derive(Debug, Clone, Default)]
pub struct CopyChunk {
    /// Complete CopyData messages; one row in each, as PostgreSQL does it: some drivers count on that.
    pub messages: BytesMut,
    /// Rows in here, for the command tag.
    pub rows: u64,
}
