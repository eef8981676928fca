//! The [`pg::Backend`]: sessions, statements prepared and executed. Each statement has a file of its own in `statement/`.

use crate::{
    blocks,
    database::Database,
    door::Door,
    outbox::Outbox,
    pg::{
        self, Admission, Batches, Bound, Column, Completed, CursorVerb, Declaration, EncodeRows, Fetch, Formats, Login,
        Notification, OpenCursors, Outcome, PgError, Reach, SessionEvent, Startup, TxEvent, Verb,
    },
    prepared::{Prepared, PreparedLookup},
    serving::Serving,
    session::{Session, State},
    sessions::Open,
    statement::{
        self,
        lookup_deadline::{self, Finding},
        served_lookup::ServedLookup,
        service_lookup,
    },
    system::{SessionFacts, functions, of_chance, pg_sleep},
};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use bytes::BytesMut;
use datafusion::execution::{FunctionRegistry, SessionState};
use std::{borrow::Cow, sync::Arc, time::Duration};
use tidemark_catalog::{Access, ObjectId};
use tidemark_planner::{
    Statement,
    lookup::fingerprint::Fingerprint,
    statement::{Direction, Parsed},
};

pub struct TidemarkBackend {
    pub database: Arc<Database>,
    pub door: Door,
    /// When the server started, microseconds.
    pub started_us: i64,
    /// What sessions begin with; `None`: no limit.
    pub statement_timeout: Option<Duration>,
}

/// What a session plans with: beside what all have, the functions that know the session.
fn session_state(database: &Arc<Database>, facts: &SessionFacts) -> SessionState {
    let mut state = database.base.clone();
    let current = database.clone();
    let own = functions(Arc::new(move || current.system_tables()), facts.clone());
    for function in own.into_iter().chain([pg_sleep(database.clock.clone())]).chain(of_chance(&database.clock)) {
        let name = function.name().to_owned();
        // A map takes anything; where that changes, the function is missing and is said to be.
        if let Err(error) = state.register_udf(function) {
            tracing::error!(name, %error, "a function was not registered");
        }
    }
    state
}

/// Who was admitted and is no role that may log in: by `NOLOGIN`, or because it has been dropped since it was asked for its
/// password.
fn may_log_in(access: &Access, role: ObjectId, user: &str) -> Result<(), PgError> {
    match access.role(role) {
        Some(role) if role.login => Ok(()),
        Some(role) => Err(PgError::fatal("28000", format!("role \"{}\" is not permitted to log in", role.name))
            .hint(format!("ALTER ROLE {} LOGIN", role.name))),
        None => Err(PgError::fatal("28000", format!("role \"{user}\" does not exist"))),
    }
}

/// The one database there is.
pub const DATABASE: &str = "tidemark";

impl TidemarkBackend {
    async fn parse(&self, session: &mut Session, sql: &str, declared: &[u32]) -> Result<Arc<Prepared>, PgError> {
        let mut pieces = tidemark_planner::parse::parse(sql)?;
        if pieces.len() > 1 {
            return Err(PgError::error("42601", "cannot insert multiple commands into a prepared statement"));
        }
        let Some(piece) = pieces.pop() else { return Ok(Arc::new(Prepared::empty())) };
        Ok(Arc::new(Prepared::new(&self.database, session, piece, declared, false).await?))
    }

    /// Prepares a lookup of several views once more, with parameters for its literals, for the next texts that differ in these.
    async fn learn_service(&self, session: &mut Session, sql: &str, prepared: &Prepared) {
        let Some(parameterised) = self.database.unknown_service(prepared.path.as_deref(), sql) else { return };
        let literals = Fingerprint::of(sql).map_or(0, |fingerprint| fingerprint.values().count());
        let learnt = self.parse(session, &parameterised, &[]).await.ok().filter(|learnt| {
            learnt.service.is_some() && learnt.parameter_oids.len() == literals && learnt.shows_as(prepared)
        });
        self.database.learn_service(prepared, sql, learnt);
    }

    fn served<'a>(
        &'a self,
        serving: &'a Serving,
        prepared: &'a Prepared,
        lookup: &'a PreparedLookup,
        bound: &'a Bound,
    ) -> ServedLookup<'a> {
        ServedLookup { database: &self.database, serving, prepared, lookup, bound }
    }
}

#[async_trait]
impl pg::Backend for TidemarkBackend {
    type Session = Session;
    type Prepared = Prepared;
    type Piece = Parsed;

    fn admit(&self, login: &Login<'_>) -> Result<Admission, PgError> {
        self.door.admit(&self.database.snapshot().access, login)
    }

    fn refused(&self, login: &Login<'_>, error: &PgError) {
        self.database.audit.login(self.database.clock.now_us(), login, error);
    }

    async fn open(&self, startup: Startup) -> Result<Session, PgError> {
        let (snapshot, role) = (self.database.snapshot(), ObjectId(startup.role));
        if let Err(error) = may_log_in(&snapshot.access, role, &startup.user) {
            let Startup { peer, is_encrypted, ref user, ref database, .. } = startup;
            self.refused(&Login { peer, is_encrypted, certificate: None, user, database }, &error);
            return Err(error);
        }
        if startup.database != DATABASE {
            return Err(PgError::fatal("3D000", format!("database \"{}\" does not exist", startup.database))
                .hint("the database is called tidemark"));
        }
        let login = (role, self.database.rights(&snapshot, role));
        let connection = (startup.connection_id, startup.peer);
        let channels = self.database.view_events.channels.clone();
        let outbox = Arc::new(Outbox::new(channels, startup.bell, startup.connection_id));
        let base = self.database.clone();
        let state = State::new(move || base.base.clone());
        let mut session = Session::new(startup.user, connection, login, state, startup.hold, outbox);
        let facts = SessionFacts {
            user: session.user.clone(),
            role,
            backend_pid: startup.connection_id,
            server_start_us: self.started_us,
            settings: session.shared.clone(),
            outbox: session.outbox.clone(),
        };
        let database = self.database.clone();
        session.state = State::new(move || session_state(&database, &facts));
        if self.database.serving().is_some() {
            session.only_reads();
        }
        if let Some(timeout) = self.statement_timeout {
            session.set("statement_timeout", Some(&timeout.as_millis().to_string()), false)?;
        }
        session.startup(startup.settings)?;
        session.place = Some(self.database.sessions.enter(Open {
            connection_id: startup.connection_id,
            user: session.user.clone(),
            role,
            peer: startup.peer,
            is_encrypted: startup.is_encrypted,
            began_us: self.database.clock.now_us(),
            settings: session.shared.clone(),
        }));
        Ok(session)
    }

    async fn close(&self, mut session: Session) {
        if let Err(error) = session.drop_all_temporary(&self.database).await {
            let error = &error.message;
            tracing::warn!(%error, "a temporary table is left behind; the next start removes it");
        }
    }

    fn parameters(&self, session: &mut Session) -> Vec<(Cow<'static, str>, String)> {
        session.parameters()
    }

    fn split(&self, _: &mut Session, sql: &str) -> Result<Vec<Parsed>, PgError> {
        Ok(tidemark_planner::parse::parse(sql)?)
    }

    async fn prepare_piece(&self, session: &mut Session, piece: Parsed) -> Result<Arc<Prepared>, PgError> {
        // Names are looked for as the role that it is by now.
        session.refresh(&self.database);
        let prepared = Arc::new(Prepared::new(&self.database, session, piece, &[], true).await?);
        if prepared.lookup.is_some()
            && let Some(parsed) = &prepared.parsed
        {
            self.database.learn(&session.snapshot(&self.database), &parsed.text, &prepared);
        }
        if prepared.service.is_some()
            && let Some(parsed) = &prepared.parsed
        {
            self.learn_service(session, &parsed.text, &prepared).await;
        }
        Ok(prepared)
    }

    fn recall(&self, session: &mut Session, sql: &str) -> Option<Arc<Prepared>> {
        session.refresh(&self.database);
        self.database.recall(session.path_key(&self.database).as_deref(), sql)
    }

    fn waits(&self, prepared: &Prepared) -> bool {
        self.database.serving().is_some() && prepared.lookup.is_some()
    }

    async fn prepare(&self, session: &mut Session, sql: &str, declared: &[u32]) -> Result<Arc<Prepared>, PgError> {
        let plain = declared.iter().all(|oid| *oid == 0);
        session.refresh(&self.database);
        let path = session.path_key(&self.database);
        let path = path.as_deref();
        let known = || self.database.cached(path, sql).or_else(|| self.database.recall(path, sql));
        if plain && let Some(prepared) = known() {
            return Ok(prepared);
        }
        let prepared = self.parse(session, sql, declared).await?;
        if plain && prepared.service.is_some() {
            match prepared.parameter_oids.is_empty() {
                true => self.learn_service(session, sql, &prepared).await,
                false => self.database.cache(sql, &prepared),
            }
        }
        if plain && prepared.lookup.is_some() && !self.database.learn(&session.snapshot(&self.database), sql, &prepared)
        {
            self.database.cache(sql, &prepared);
        }
        Ok(prepared)
    }

    fn parameter_types<'a>(&self, prepared: &'a Prepared) -> &'a [u32] {
        &prepared.parameter_oids
    }

    fn columns<'a>(&self, _: &mut Session, prepared: &'a Prepared) -> Option<Cow<'a, [Column]>> {
        prepared.columns.as_deref().map(Cow::Borrowed)
    }

    fn verb<'a>(&self, prepared: &'a Prepared) -> Option<Verb<'a>> {
        match &prepared.parsed.as_ref()?.statement {
            Statement::Begin { read_only, isolation } => {
                Some(Verb::Begin { read_only: *read_only, isolation: *isolation })
            }
            Statement::Commit => Some(Verb::Commit),
            Statement::Rollback => Some(Verb::Rollback),
            Statement::Savepoint { name } => Some(Verb::Savepoint(name)),
            Statement::Release { name } => Some(Verb::Release(name)),
            Statement::RollbackTo { name } => Some(Verb::RollbackTo(name)),
            Statement::Deallocate { name } => Some(Verb::Deallocate(name.as_deref())),
            Statement::Close { name } => Some(Verb::CloseCursor(name.as_deref())),
            _ => None,
        }
    }

    fn named(&self, session: &mut Session, name: &str, prepared: &Arc<Prepared>) {
        session.prepared.entry(name.to_owned()).or_insert_with(|| Arc::clone(prepared));
    }

    fn deallocate(&self, session: &mut Session, name: Option<&str>) -> bool {
        match name {
            Some(name) => session.prepared.remove(name).is_some(),
            None => {
                session.prepared.clear();
                true
            }
        }
    }

    fn cursor_verb<'a>(&self, prepared: &'a Prepared) -> Option<CursorVerb<'a, Prepared>> {
        let parsed = prepared.parsed.as_ref()?;
        match &parsed.statement {
            Statement::Declare { name, is_binary, is_held, .. } => {
                let (is_binary, is_held, query) = (*is_binary, *is_held, prepared.declared.as_ref()?);
                Some(CursorVerb::Declare(Declaration { name, query, text: &parsed.text, is_binary, is_held }))
            }
            Statement::Fetch { cursor, direction, moves } => {
                let reach = match *direction {
                    Direction::Next(rows) => Reach::Next(rows),
                    Direction::Relative(rows) => Reach::Relative(rows),
                    Direction::Absolute(row) => Reach::Absolute(row),
                    Direction::Backward => Reach::Backward,
                };
                Some(CursorVerb::Fetch(Fetch { cursor, reach, moves: *moves }))
            }
            _ => None,
        }
    }

    async fn open_cursor(
        &self,
        session: &mut Session,
        query: &Arc<Prepared>,
        bound: &Bound,
    ) -> Result<Batches, PgError> {
        match statement::execute(&self.database, session, query, bound).await? {
            Outcome::Rows { stream, .. } => Ok(stream),
            _ => Err(PgError::error("XX000", "the query of a cursor gave no rows to stream")),
        }
    }

    fn encoder(
        &self,
        session: &mut Session,
        query: &Prepared,
        formats: &Formats,
    ) -> Result<Box<dyn EncodeRows>, PgError> {
        let schema = query.schema.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
        statement::encoder(session, &schema, &Bound { result_formats: formats.clone(), ..Bound::default() })
    }

    fn cursors(&self, session: &mut Session) -> OpenCursors {
        session.cursors.clone()
    }

    fn execute_now(
        &self,
        session: &mut Session,
        prepared: &Arc<Prepared>,
        bound: &Bound,
        out: &mut BytesMut,
    ) -> Option<Result<Completed, PgError>> {
        session.refresh(&self.database);
        if session.reads_a_snapshot() {
            // It is planned, where it is known what it may read (`statement/moment.rs`).
            return None;
        }
        if (prepared.service.is_some() || prepared.lookup.is_some())
            && prepared.path != session.path_key(&self.database)
        {
            // Its names may mean something else by now: the query says what.
            return None;
        }
        if let Some(service) = &prepared.service {
            let mut finding = Finding::of(session);
            let answer = service_lookup::execute(&self.database, session, prepared, service, bound, &mut finding, out);
            session.queried_in_transaction |= answer.is_some();
            if matches!(answer, Some(Ok(_))) {
                session.warn_of_deprecated(service.views());
            }
            return answer;
        }
        let lookup = prepared.lookup.as_ref()?;
        // Where it may not, the query says so.
        if !session.rights.may_read(lookup.shape.view) {
            return None;
        }
        session.queried_in_transaction = true;
        session.warn_of_deprecated([lookup.shape.view]);
        match self.database.serving() {
            None => {
                let mut finding = Finding::of(session);
                statement::lookup::execute(&self.database, session, prepared, lookup, bound, &mut finding, out)
            }
            Some(serving) => self.served(serving, prepared, lookup, bound).answer_now(session, out),
        }
    }

    async fn execute(
        &self,
        session: &mut Session,
        prepared: &Arc<Prepared>,
        bound: &Bound,
    ) -> Result<Outcome, PgError> {
        session.refresh(&self.database);
        let begun_us = self.database.clock.now_us();
        if lookup_deadline::wait_for_views(&self.database, session, prepared).await? {
            let mut messages = BytesMut::new();
            if let Some(answered) = self.execute_now(session, prepared, bound, &mut messages) {
                return Ok(Outcome::RawRows { messages, completed: answered? });
            }
        }
        if let (Some(serving), Some(lookup)) = (self.database.serving(), &prepared.lookup)
            && !session.reads_a_snapshot()
            && prepared.path == session.path_key(&self.database)
        {
            session.queried_in_transaction = true;
            if session.rights.may_read(lookup.shape.view)
                && let Some(answered) = self.served(serving, prepared, lookup, bound).answer(session).await?
            {
                return Ok(answered);
            }
        }
        if let Some(answered) = lookup_deadline::answer(&self.database, session, prepared, bound, begun_us).await? {
            return Ok(answered);
        }
        match &prepared.unparsed {
            None => statement::execute(&self.database, session, prepared, bound).await,
            Some(sql) => {
                let parsed = self.parse(session, sql, &[]).await?;
                statement::execute(&self.database, session, &parsed, bound).await
            }
        }
    }

    async fn transaction(&self, session: &mut Session, event: TxEvent) -> Result<(), PgError> {
        match event {
            TxEvent::Begin { .. } => session.begin_transaction(),
            TxEvent::Mode { read_only, isolation } => session.begin_modes(read_only, isolation)?,
            TxEvent::Savepoint { depth } => session.begin_savepoint(depth),
            TxEvent::RollbackTo { depth } => {
                let mark = session.savepoint(depth);
                blocks::roll_back(&self.database, session, mark).await?;
            }
            TxEvent::Commit => {
                let kept = blocks::commit(&self.database, session).await;
                session.end_transaction();
                match kept.is_ok() {
                    true => session.outbox.commit(),
                    false => session.outbox.roll_back(),
                }
                session.end_temporary(&self.database).await?;
                kept?;
            }
            TxEvent::Rollback => {
                let beginning = session.block.beginning();
                let undone = blocks::roll_back(&self.database, session, beginning).await;
                session.end_transaction();
                session.outbox.roll_back();
                session.end_temporary(&self.database).await?;
                undone?;
            }
        }
        Ok(())
    }

    fn statement_timeout(&self, session: &mut Session) -> Option<Duration> {
        session.statement_timeout()
    }

    fn idle_timeout(&self, session: &mut Session, in_transaction: bool) -> Option<Duration> {
        session.idle_timeout(in_transaction)
    }

    fn failed(&self, session: &mut Session) {
        if !session.in_transaction {
            session.outbox.roll_back();
        }
    }

    fn take_notifications(&self, session: &mut Session) -> Vec<Notification> {
        session.outbox.received()
    }

    fn take_events(&self, session: &mut Session) -> Vec<SessionEvent> {
        session.take_over();
        std::mem::take(&mut session.events)
    }
}
