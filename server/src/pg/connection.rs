//! One connection: takes messages in order, answers in order, and decides when bytes are sent.
//!
//! Replies gather in the output buffer. They are sent when a Sync, Flush, ReadyForQuery, error or COPY makes them due
//! *and* no complete message waits in the input, so a lookup costs one read and one write, and so does a pipelined
//! batch of lookups. Before anything that may take long, what is due is sent first.

use super::backend::{Backend, Bound, SessionEvent, TxEvent};
use super::counters::Busy;
use super::error::{PgError, sqlstate};
use super::execute::HIGH_WATER_BYTES;
use super::format::Formats;
use super::frontend::{Bind, Frontend, Target, decode};
use super::portal::{Portal, Portals, Statements};
use super::reply::{self, TxStatus};
use super::server::Shared;
use super::socket::Socket;
use super::transaction::Transaction;
use super::watch::{Fault, Idle, Limit, Watch};
use bytes::Bytes;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

pub(super) struct Connection<S, B: Backend> {
    pub(super) socket: Socket<S>,
    pub(super) watch: Watch,
    pub(super) shared: Arc<Shared<B>>,
    pub(super) session: B::Session,
    pub(super) transaction: Transaction,
    pub(super) statements: Statements<B::Prepared>,
    pub(super) portals: Portals<B::Prepared>,
    /// What it works on, if that may take long.
    pub(super) busy: Option<Busy>,
    /// The output holds something the client waits for.
    due: bool,
    /// An extended-protocol message failed: all up to the next Sync is ignored.
    skipping: bool,
    /// Messages of the extended protocol have come since the last ReadyForQuery.
    in_batch: bool,
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    B: Backend,
{
    pub fn new(socket: Socket<S>, watch: Watch, shared: Arc<Shared<B>>, session: B::Session) -> Self {
        Connection {
            socket,
            watch,
            session,
            transaction: Transaction::new(),
            statements: Statements::new(shared.settings.prepared_statements_max),
            portals: Portals::new(shared.settings.portals_max),
            shared,
            busy: None,
            due: false,
            skipping: false,
            in_batch: false,
        }
    }

    /// Serves the client until one side ends it.
    pub async fn run(mut self) {
        // A panic behind the protocol is a bug, but one connection's bug. Nothing more can be said to its client: the
        // output may end inside a message.
        match AssertUnwindSafe(self.serve()).catch_unwind().await {
            Ok(Err(Fault::Sql(error))) => {
                self.shared.counters.error(error.sqlstate);
                reply::error_or_notice(&mut self.socket.output, &error);
                // Whether the client still reads it is its affair.
                let _ = self.watch.flush(&mut self.socket).await;
            }
            Ok(Ok(()) | Err(Fault::Gone)) => {}
            Err(_) => tracing::error!("a connection ended by a panic"),
        }
        self.portals.clear();
        if (self.transaction.status != TxStatus::Idle || self.transaction.implicit)
            && let Err(error) = self.backend().transaction(&mut self.session, TxEvent::Rollback).await
        {
            tracing::warn!(%error, "the transaction of a closed connection was not rolled back");
        }
        let backend = self.backend();
        backend.close(self.session).await;
        let _ = std::future::poll_fn(|cx| self.socket.poll_shutdown(cx)).await;
    }

    pub(super) fn backend(&self) -> Arc<B> {
        Arc::clone(&self.shared.backend)
    }

    async fn serve(&mut self) -> Result<(), Fault> {
        self.ready();
        while let Some((kind, body)) = self.next_message().await? {
            // After an error only Sync counts, and Terminate.
            if self.skipping && !matches!(kind, b'S' | b'X') {
                continue;
            }
            let extended = matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H');
            self.in_batch |= extended;
            let done = match decode(kind, &body) {
                // It may have sent its statements and its goodbye at once: as with PostgreSQL they are answered.
                Ok(Frontend::Terminate) => return self.send_due().await,
                Ok(message) => self.handle(message, &body).await,
                Err(error) => Err(error.into()),
            };
            self.watch.end();
            self.rest();
            let Err(fault) = done else { continue };
            match fault {
                Fault::Sql(error) if !error.is_fatal() => self.report(error).await,
                other => return Err(other),
            }
            if extended {
                self.skipping = true;
            } else {
                self.skipping = false;
                self.ready();
            }
        }
        Ok(())
    }

    /// The next message; sends what is due before it waits for one.
    async fn next_message(&mut self) -> Result<Option<(u8, Bytes)>, Fault> {
        let mut limit = None;
        let mut is_limited = false;
        loop {
            if self.socket.output.len() > HIGH_WATER_BYTES {
                self.send_due().await?;
            }
            let expected = match self.socket.take_frame(self.shared.settings.message_bytes_max)? {
                Ok(frame) => return Ok(Some(frame)),
                Err(expected) => expected,
            };
            self.send_due().await?;
            let may_be_told = self.is_outside() && !self.in_batch;
            // It is idle since the last ReadyForQuery, whatever it is told meanwhile.
            if !std::mem::replace(&mut is_limited, true) && !self.in_batch {
                limit = self.idle_limit();
            }
            match self.watch.fill_or_ring(&mut self.socket, expected, may_be_told, &mut limit).await? {
                Idle::Bytes => {}
                Idle::Closed => return Ok(None),
                Idle::Rung => {
                    self.notifications();
                    self.due = true;
                }
            }
        }
    }

    /// How long the client may leave the connection idle, in its transaction or outside.
    fn idle_limit(&mut self) -> Option<Limit> {
        let in_transaction = !self.is_outside();
        let limit = self.shared.backend.idle_timeout(&mut self.session, in_transaction)?;
        let (sqlstate, of) = match in_transaction {
            true => (sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, "idle-in-transaction"),
            false => (sqlstate::IDLE_SESSION_TIMEOUT, "idle-session"),
        };
        let error = PgError::fatal(sqlstate, format!("terminating connection due to {of} timeout"));
        Some(Limit { over: self.shared.clock.sleep(limit), error })
    }

    /// Sends what the client waits for. Called before anything that may take long.
    pub(super) async fn send_due(&mut self) -> Result<(), Fault> {
        // Replies to a batch that never syncs are not due, but must not pile up either.
        if self.due || self.socket.output.len() > HIGH_WATER_BYTES {
            self.watch.flush(&mut self.socket).await?;
            self.due = false;
        }
        Ok(())
    }

    /// Tells the client of an error, and the transaction with it.
    async fn report(&mut self, error: PgError) {
        self.shared.counters.error(error.sqlstate);
        if self.transaction.status == TxStatus::Idle {
            self.portals.end(false);
        }
        if let Some(event) = self.transaction.fail() {
            let backend = self.backend();
            if let Err(error) = backend.transaction(&mut self.session, event).await {
                tracing::warn!(%error, "an implicit transaction was not rolled back");
            }
        }
        self.shared.backend.failed(&mut self.session);
        self.events();
        reply::error_or_notice(&mut self.socket.output, &error);
        self.due = true;
    }

    /// ReadyForQuery: the end of a simple query or of a batch.
    fn ready(&mut self) {
        if self.transaction.status == TxStatus::Idle {
            self.portals.end(true);
        }
        self.events();
        if self.is_outside() && self.watch.was_rung() {
            self.notifications();
        }
        reply::ready_for_query(&mut self.socket.output, self.transaction.status);
        self.due = true;
        self.in_batch = false;
    }

    /// No transaction is open.
    fn is_outside(&self) -> bool {
        self.transaction.status == TxStatus::Idle && !self.transaction.implicit
    }

    fn notifications(&mut self) {
        for notification in self.shared.backend.take_notifications(&mut self.session) {
            reply::notification(&mut self.socket.output, &notification);
        }
    }

    /// Notices and changed settings since the last time.
    pub(super) fn events(&mut self) {
        for event in self.shared.backend.take_events(&mut self.session) {
            match event {
                SessionEvent::Notice(notice) => reply::error_or_notice(&mut self.socket.output, &notice),
                SessionEvent::Parameter { name, value } => {
                    reply::parameter_status(&mut self.socket.output, &name, &value);
                }
                SessionEvent::Discarded => {
                    self.statements.clear();
                    self.portals.clear();
                }
            }
        }
    }

    async fn handle(&mut self, message: Frontend<'_>, body: &Bytes) -> Result<(), Fault> {
        match message {
            Frontend::Query(sql) => {
                self.query(sql).await?;
                self.ready();
            }
            Frontend::Parse { name, sql, parameter_oids } => self.parse(name, sql, &parameter_oids).await?,
            Frontend::Bind(bind) => self.bind(bind, body)?,
            Frontend::Describe(target) => self.describe(target)?,
            Frontend::Execute { portal, rows_max } => self.execute(portal, rows_max).await?,
            Frontend::Close(target) => {
                match target {
                    Target::Statement(name) => {
                        self.shared.backend.deallocate(&mut self.session, Some(name)) | self.statements.remove(name)
                    }
                    Target::Portal(name) => self.portals.remove(name),
                };
                self.socket.output.extend_from_slice(reply::CLOSE_COMPLETE);
            }
            Frontend::Flush => self.due = true,
            Frontend::Sync => {
                self.skipping = false;
                self.ready();
            }
            // A client that has not yet heard that its COPY failed goes on sending: ignored, as the protocol says.
            Frontend::CopyData | Frontend::CopyDone | Frontend::CopyFail(_) => {}
            Frontend::FunctionCall => {
                let message = "the function call protocol is not supported";
                return Err(PgError::error(sqlstate::FEATURE_NOT_SUPPORTED, message)
                    .hint("call the function in a SELECT")
                    .into());
            }
            Frontend::Password => {
                return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, "unexpected password message").into());
            }
            Frontend::Terminate => {}
        }
        Ok(())
    }

    async fn parse(&mut self, name: &str, sql: &str, parameter_oids: &[u32]) -> Result<(), Fault> {
        self.statements.check_new(name)?;
        let backend = self.backend();
        self.begin_statement().await?;
        if name.is_empty() {
            // As in PostgreSQL: gone even if the new one fails.
            self.statements.remove("");
        }
        let work = backend.prepare(&mut self.session, sql, parameter_oids);
        let prepared = self.watch.run(&mut self.socket, work).await??;
        self.transaction.admit(backend.verb(&prepared))?;
        if !name.is_empty() {
            backend.named(&mut self.session, name, &prepared);
        }
        self.statements.insert(name, prepared);
        self.socket.output.extend_from_slice(reply::PARSE_COMPLETE);
        Ok(())
    }

    /// Starts the clock of a statement and sends what earlier ones owe.
    pub(super) async fn begin_statement(&mut self) -> Result<(), Fault> {
        self.send_due().await?;
        self.rest();
        self.busy = Some(Busy::begin(&self.shared.counters, self.shared.clock.now_us()));
        let timeout = self.shared.backend.statement_timeout(&mut self.session);
        self.watch.begin(timeout.map(|timeout| self.shared.clock.sleep(timeout)));
        Ok(())
    }

    /// The statement is over, if there was one.
    fn rest(&mut self) {
        if let Some(busy) = self.busy.take() {
            busy.end(self.shared.clock.now_us());
        }
    }

    fn bind(&mut self, bind: Bind<'_>, body: &Bytes) -> Result<(), Fault> {
        let prepared = self.statements.get(bind.statement)?;
        self.transaction.admit(self.shared.backend.verb(&prepared))?;
        self.check_bind(&bind, &prepared)?;
        self.portals.check_new(bind.portal)?;
        let mut bound = if bind.portal.is_empty() { self.portals.spare() } else { Bound::default() };
        // A named portal may live long: let it not hold a whole read buffer for a few bytes of parameters.
        let raw = if bind.portal.is_empty() {
            body.slice_ref(bind.parameters)
        } else {
            Bytes::copy_from_slice(bind.parameters)
        };
        bind.parameters(&raw, &mut bound.parameters)?;
        bound.parameter_formats = bind.parameter_formats;
        bound.result_formats = bind.result_formats;
        self.portals.put(bind.portal.to_owned(), Portal::new(prepared, bound, self.transaction.depth()));
        self.socket.output.extend_from_slice(reply::BIND_COMPLETE);
        Ok(())
    }

    fn check_bind(&mut self, bind: &Bind<'_>, prepared: &Arc<B::Prepared>) -> Result<(), PgError> {
        let (formats, parameters) = (bind.parameter_format_count, bind.parameter_count);
        if formats > 1 && formats != parameters {
            let message = format!("bind message has {formats} parameter formats but {parameters} parameters");
            return Err(PgError::protocol(message));
        }
        let required = self.shared.backend.parameter_types(prepared).len();
        if parameters != required {
            let statement = bind.statement;
            return Err(PgError::protocol(format!(
                "bind message supplies {parameters} parameters, but prepared statement \"{statement}\" requires {required}"
            )));
        }
        let formats = bind.result_format_count;
        if formats > 1 {
            let shown = self.shown(prepared);
            if let Some(columns) = self.shared.backend.columns(&mut self.session, &shown)
                && formats != columns.len()
            {
                let columns = columns.len();
                let message = format!("bind message has {formats} result formats but query has {columns} columns");
                return Err(PgError::protocol(message));
            }
        }
        Ok(())
    }

    fn describe(&mut self, target: Target<'_>) -> Result<(), Fault> {
        let text = Formats::default();
        let backend = &self.shared.backend;
        let (shown, formats) = match target {
            Target::Statement(name) => {
                let prepared = self.statements.get(name)?;
                self.transaction.admit(backend.verb(&prepared))?;
                reply::parameter_description(&mut self.socket.output, backend.parameter_types(&prepared));
                (self.shown(&prepared), &text)
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name)?;
                self.transaction.admit(backend.verb(&portal.prepared))?;
                (self.shown(&portal.prepared), &portal.bound.result_formats)
            }
        };
        let out = &mut self.socket.output;
        match backend.columns(&mut self.session, &shown) {
            Some(columns) => {
                check_width(columns.len())?;
                reply::row_description(out, &columns, formats);
            }
            None => out.extend_from_slice(reply::NO_DATA),
        }
        Ok(())
    }
}

/// The wire counts columns in 16 bits; PostgreSQL itself stops at 1,664 result columns.
pub(super) fn check_width(columns: usize) -> Result<(), PgError> {
    if columns > usize::from(u16::MAX / 2) {
        let message = format!("a result of {columns} columns cannot be sent, the most is 32767");
        return Err(PgError::error(sqlstate::PROGRAM_LIMIT_EXCEEDED, message));
    }
    Ok(())
}
