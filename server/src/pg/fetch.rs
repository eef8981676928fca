//! DECLARE, FETCH and MOVE: a cursor is a portal whose rows wait where the last FETCH left them. They stream as those of any
//! portal do, so a cursor needs one batch, however long its result is.

use super::backend::{Backend, Bound, Completed, RowsTag};
use super::connection::{Connection, check_width};
use super::cursor::{Cursor, CursorFacts, CursorVerb, Declaration, Fetch, Reach, Way, unknown_cursor};
use super::error::{PgError, sqlstate};
use super::execute::{Pumped, messages_length};
use super::format::{Format, Formats};
use super::portal::{Portal, Progress, Running, not_fetched};
use super::reply::{self, TxStatus};
use super::watch::Fault;
use futures::StreamExt;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    B: Backend,
{
    /// Opens a cursor: from here on its query runs, and waits for whoever fetches.
    pub(super) async fn declare(
        &mut self,
        declaration: Declaration<'_, B::Prepared>,
        bound: Bound,
    ) -> Result<(), Fault> {
        let Declaration { name, query, text, is_binary, is_held } = declaration;
        let in_block = self.transaction.status == TxStatus::Open || self.transaction.implicit;
        if !in_block && !is_held {
            let message = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(PgError::error(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message)
                .hint("send BEGIN first, or declare the cursor WITH HOLD")
                .into());
        }
        self.portals.check_new(name)?;
        let backend = self.backend();
        // What comes back is encoded by whoever fetches.
        let asked = Bound { result_formats: Formats::default(), ..bound };
        let work = backend.open_cursor(&mut self.session, query, &asked);
        let stream = self.watch.run(&mut self.socket, work).await??;
        let result_formats = Formats::All(if is_binary { Format::Binary } else { Format::Text });
        let encoder = backend.encoder(&mut self.session, query, &result_formats)?;
        let (name, statement) = (name.to_owned(), text.to_owned());
        let created_us = self.shared.clock.now_us();
        let facts = CursorFacts { name: name.clone(), statement, is_binary, is_held, created_us };
        let cursor = Cursor::new(facts, &backend.cursors(&mut self.session));
        let portal = Portal {
            prepared: Arc::clone(query),
            bound: Bound { result_formats, ..Bound::default() },
            progress: Progress::Running(Running::Batches { stream, encoder, current: None, tag: RowsTag::SELECT }),
            depth: self.transaction.depth(),
            cursor: Some(cursor),
        };
        self.portals.put(name, portal);
        self.events();
        reply::command_complete(&mut self.socket.output, "DECLARE CURSOR");
        Ok(())
    }

    /// A simple query's FETCH: all of it at once, in the cursor's own format.
    pub(super) async fn fetch_at_once(&mut self, fetch: Fetch<'_>) -> Result<(), Fault> {
        if fetch.moves && self.portals.is_bound(fetch.cursor) {
            let rows = self.move_bound(fetch).await?;
            self.fetched(fetch, rows);
            return Ok(());
        }
        let (portal, cursor) = self.portals.cursor(fetch.cursor)?;
        let way = cursor.way(fetch.reach, fetch.moves)?;
        let formats = Formats::All(if cursor.is_binary { Format::Binary } else { Format::Text });
        if !fetch.moves {
            let prepared = Arc::clone(&portal.prepared);
            if let Some(columns) = self.shared.backend.columns(&mut self.session, &prepared) {
                check_width(columns.len())?;
                reply::row_description(&mut self.socket.output, &columns, &formats);
            }
        }
        let rows = self.advance(fetch, way, &formats).await?;
        self.fetched(fetch, rows);
        Ok(())
    }

    /// Execute of a FETCH, up to the client's limit of rows, in the formats that its Bind asked for. `before`: rows that earlier
    /// ones have sent and have left. No transaction ends by it.
    pub(super) async fn fetch(
        &mut self,
        portal: &mut Portal<B::Prepared>,
        before: Option<(u64, u64)>,
        rows_max: u64,
    ) -> Result<bool, Fault> {
        self.begin_statement().await?;
        let (backend, prepared) = (self.backend(), Arc::clone(&portal.prepared));
        let Some(CursorVerb::Fetch(fetch)) = backend.cursor_verb(&prepared) else { return Ok(false) };
        if fetch.moves && self.portals.is_bound(fetch.cursor) {
            let rows = self.move_bound(fetch).await?;
            self.fetched(fetch, rows);
            portal.progress = Progress::Finished(None);
            return Ok(false);
        }
        let (_, cursor) = self.portals.cursor(fetch.cursor)?;
        let (way, sent) = match before {
            Some((sent, left)) => (Way { skip: 0, take: left, counted: 0 }, sent),
            None => (cursor.way(fetch.reach, fetch.moves)?, 0),
        };
        // MOVE sends nothing that a limit could be for.
        let limit = if fetch.moves { u64::MAX } else { rows_max };
        let rows = self.advance(fetch, Way { take: way.take.min(limit), ..way }, &portal.bound.result_formats).await?;
        if rows == limit {
            self.events();
            self.socket.output.extend_from_slice(reply::PORTAL_SUSPENDED);
            portal.progress = Progress::Fetching { sent: sent + rows, left: way.take - rows };
        } else {
            self.fetched(fetch, sent + rows);
            portal.progress = Progress::Finished((!fetch.moves).then_some(FETCH));
        }
        Ok(false)
    }

    /// MOVE of a portal that Bind has made, as asyncpg's `Cursor.forward()` sends it; how many rows went by. Its query starts
    /// here if it has not.
    async fn move_bound(&mut self, fetch: Fetch<'_>) -> Result<u64, Fault> {
        let Reach::Next(rows) = fetch.reach else { return Err(not_fetched(fetch.cursor).into()) };
        let (backend, prepared) = (self.backend(), Arc::clone(&self.portals.get(fetch.cursor)?.prepared));
        let is_query = backend.verb(&prepared).is_none()
            && backend.cursor_verb(&prepared).is_none()
            && backend.columns(&mut self.session, &prepared).is_some();
        if !is_query {
            return Err(not_fetched(fetch.cursor).into());
        }
        // One that fails is not put back.
        let (name, mut portal) = self.portals.take(fetch.cursor)?;
        if matches!(portal.progress, Progress::Ready) {
            portal.progress = self.first_row(&prepared, &portal.bound).await?;
        }
        let passed = match &mut portal.progress {
            Progress::Running(Running::Messages { messages, left }) => {
                let count = left.rows.min(rows);
                drop(messages.split_to(messages_length(messages, count)));
                left.rows -= count;
                let tag = left.tag;
                if count < rows {
                    portal.progress = Progress::Finished(Some(tag));
                }
                count
            }
            _ => self.pass(&mut portal, rows).await?,
        };
        self.portals.put(name, portal);
        Ok(passed)
    }

    /// A query before its first row, nothing of it sent.
    async fn first_row(&mut self, prepared: &Arc<B::Prepared>, bound: &Bound) -> Result<Progress, Fault> {
        let (backend, start) = (self.backend(), self.socket.output.len());
        match backend.execute_now(&mut self.session, prepared, bound, &mut self.socket.output) {
            Some(Ok(left)) => {
                let messages = self.socket.output.split_off(start);
                return Ok(Progress::Running(Running::Messages { messages, left }));
            }
            Some(Err(error)) => {
                self.socket.output.truncate(start);
                return Err(error.into());
            }
            None => {}
        }
        let running = self.start(prepared, bound).await?;
        Ok(running.map_or(Progress::Finished(None), Progress::Running))
    }

    fn fetched(&mut self, fetch: Fetch<'_>, rows: u64) {
        let tag = if fetch.moves { RowsTag::Counted("MOVE") } else { FETCH };
        self.rows_complete(Completed { rows, tag });
    }

    /// Passes and sends rows; how many there were to send. A cursor that fails on the way is gone, as any portal is.
    async fn advance(&mut self, fetch: Fetch<'_>, way: Way, formats: &Formats) -> Result<u64, Fault> {
        let (name, mut portal) = self.portals.take(fetch.cursor).map_err(|_| unknown_cursor(fetch.cursor))?;
        let passed = self.pass(&mut portal, way.skip).await?;
        // Where the rows to be passed were not there, none is behind them.
        let take = if passed == way.skip { way.take } else { 0 };
        let rows = match fetch.moves {
            true => self.pass(&mut portal, take).await?,
            false => self.send(&mut portal, take, formats).await?,
        };
        self.portals.put(name, portal);
        Ok(rows + way.counted)
    }

    /// Sends up to `rows` of the next rows; how many there were.
    async fn send(&mut self, portal: &mut Portal<B::Prepared>, rows: u64, formats: &Formats) -> Result<u64, Fault> {
        if rows == 0 {
            return Ok(0);
        }
        self.encode_as(portal, formats)?;
        let sent = match &mut portal.progress {
            Progress::Running(running) => match self.pump(running, rows).await? {
                Pumped::Suspended => rows,
                Pumped::Finished(completed) => {
                    portal.progress = Progress::Finished(Some(completed.tag));
                    completed.rows
                }
            },
            _ => 0,
        };
        portal.pass(sent, rows);
        Ok(sent)
    }

    /// Rows of a cursor are encoded as who fetches them asks for, and with the session's settings as they are then.
    pub(super) fn encode_as(&mut self, portal: &mut Portal<B::Prepared>, formats: &Formats) -> Result<(), PgError> {
        if let Progress::Running(Running::Batches { encoder, .. }) = &mut portal.progress {
            *encoder = self.shared.backend.encoder(&mut self.session, &portal.prepared, formats)?;
        }
        Ok(())
    }

    /// Lets up to `rows` rows go by; how many there were.
    async fn pass(&mut self, portal: &mut Portal<B::Prepared>, rows: u64) -> Result<u64, Fault> {
        let mut passed = 0;
        while passed < rows
            && let Progress::Running(Running::Batches { stream, current, tag, .. }) = &mut portal.progress
        {
            match current {
                Some((batch, next)) => {
                    let there = (batch.num_rows() - *next) as u64;
                    let count = there.min(rows - passed);
                    *next += count as usize;
                    passed += count;
                    if *next >= batch.num_rows() {
                        *current = None;
                    }
                }
                None => match self.watch.run(&mut self.socket, stream.next()).await? {
                    Some(batch) => *current = Some((batch?, 0)),
                    None => portal.progress = Progress::Finished(Some(*tag)),
                },
            }
        }
        portal.pass(passed, rows);
        Ok(passed)
    }

    /// The statement whose columns a client is told of: for a FETCH that of its cursor.
    pub(super) fn shown(&self, prepared: &Arc<B::Prepared>) -> Arc<B::Prepared> {
        match self.shared.backend.cursor_verb(prepared) {
            Some(CursorVerb::Fetch(fetch)) if !fetch.moves => {
                self.portals.cursor(fetch.cursor).map_or(prepared, |(portal, _)| &portal.prepared).clone()
            }
            _ => Arc::clone(prepared),
        }
    }
}

const FETCH: RowsTag = RowsTag::Counted("FETCH");
