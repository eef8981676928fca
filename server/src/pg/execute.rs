//! Running statements: simple queries, portals, and the rows on their way to the client.
//!
//! Rows are encoded a few at a time into the output buffer, which is written when it passes its high-water mark; the
//! next batch is asked for only when that is done. So a result of any size needs one batch and one buffer, and a client
//! that reads slowly slows the query instead of filling memory.

use super::backend::{Backend, Bound, Completed, Outcome, TxEvent, Verb};
use super::connection::{Connection, check_width};
use super::cursor::{CursorVerb, unknown_cursor};
use super::error::{PgError, sqlstate};
use super::portal::{Portal, Progress, Running, unknown_statement};
use super::reply;
use super::transaction::Step;
use super::watch::Fault;
use futures::StreamExt;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Output gathered before it is written while rows stream: 64 KiB, where a larger write gains nothing more on loopback
/// and a thousand streaming clients hold 64 MB.
pub(super) const HIGH_WATER_BYTES: usize = 64 * 1024;

/// Rows encoded between looks at the buffer, for rows of ordinary size.
const ROWS_PER_CHUNK_MAX: usize = 256;

/// How rows stand after a run.
#[derive(Debug, PartialEq)]
pub(super) enum Pumped {
    /// The client's row limit was reached.
    Suspended,
    Finished(Completed),
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    B: Backend,
{
    /// A simple query: each statement in turn; the first error ends it.
    pub(super) async fn query(&mut self, sql: &str) -> Result<(), Fault> {
        // A simple query replaces the unnamed statement and portal.
        self.statements.remove("");
        self.portals.remove("");
        let backend = self.backend();
        if let Some(prepared) = backend.recall(&mut self.session, sql) {
            self.transaction.admit(None)?;
            if self.answer_now(&prepared, &Bound::default())? {
                return Ok(());
            }
            if backend.waits(&prepared) {
                self.begin_statement().await?;
                self.query_one(&prepared).await?;
                self.watch.end();
                return Ok(());
            }
        }
        let pieces = backend.split(&mut self.session, sql)?;
        if pieces.is_empty() {
            self.socket.output.extend_from_slice(reply::EMPTY_QUERY);
            return Ok(());
        }
        let several = pieces.len() > 1;
        for piece in pieces {
            self.begin_statement().await?;
            let work = backend.prepare_piece(&mut self.session, piece);
            let prepared = self.watch.run(&mut self.socket, work).await??;
            let verb = backend.verb(&prepared);
            self.transaction.admit(verb)?;
            if let Some(verb) = verb {
                let tag = self.carry_out(verb).await?;
                reply::command_complete(&mut self.socket.output, tag);
                continue;
            }
            if several && let Some(event) = self.transaction.begin_implicit() {
                backend.transaction(&mut self.session, event).await?;
            }
            self.query_one(&prepared).await?;
            self.watch.end();
        }
        if let Some(event) = self.transaction.end_implicit() {
            backend.transaction(&mut self.session, event).await?;
        }
        Ok(())
    }

    async fn query_one(&mut self, prepared: &Arc<B::Prepared>) -> Result<(), Fault> {
        let backend = self.backend();
        if !backend.parameter_types(prepared).is_empty() {
            return Err(PgError::error(sqlstate::UNDEFINED_PARAMETER, "there is no parameter $1")
                .hint("a simple query has no parameters; use the extended protocol, as prepared statements do")
                .into());
        }
        let bound = Bound::default();
        if self.answer_now(prepared, &bound)? {
            return Ok(());
        }
        match backend.cursor_verb(prepared) {
            Some(CursorVerb::Declare(declaration)) => return self.declare(declaration, bound).await,
            Some(CursorVerb::Fetch(fetch)) => return self.fetch_at_once(fetch).await,
            None => {}
        }
        // The description stands only if the statement starts: an error instead must not follow it.
        let Some(mut running) = self.start(prepared, &bound).await? else { return Ok(()) };
        self.describe_rows(prepared, &bound)?;
        if let Pumped::Finished(completed) = self.pump(&mut running, u64::MAX).await? {
            self.rows_complete(completed);
        }
        Ok(())
    }

    /// Describes and answers a statement at once, if it can be; else nothing is written.
    fn answer_now(&mut self, prepared: &Arc<B::Prepared>, bound: &Bound) -> Result<bool, PgError> {
        let start = self.socket.output.len();
        self.describe_rows(prepared, bound)?;
        let done = self.shared.backend.execute_now(&mut self.session, prepared, bound, &mut self.socket.output);
        if !matches!(done, Some(Ok(_))) {
            self.socket.output.truncate(start);
        }
        let Some(completed) = done.transpose()? else { return Ok(false) };
        self.rows_complete(completed);
        Ok(true)
    }

    fn describe_rows(&mut self, prepared: &B::Prepared, bound: &Bound) -> Result<(), PgError> {
        if let Some(columns) = self.shared.backend.columns(&mut self.session, prepared) {
            check_width(columns.len())?;
            reply::row_description(&mut self.socket.output, &columns, &bound.result_formats);
        }
        Ok(())
    }

    /// Execute: runs a portal, or goes on with it.
    pub(super) async fn execute(&mut self, name: &str, rows_max: i32) -> Result<(), Fault> {
        // A portal that fails is not put back.
        let (name, mut portal) = self.portals.take(name)?;
        let rows_max = u64::try_from(rows_max).ok().filter(|rows| *rows > 0).unwrap_or(u64::MAX);
        let ended = self.execute_portal(&mut portal, rows_max, &name).await?;
        if !ended {
            self.portals.put(name, portal);
        }
        Ok(())
    }

    /// Says whether the transaction ended by it, and all portals with it.
    async fn execute_portal(
        &mut self,
        portal: &mut Portal<B::Prepared>,
        rows_max: u64,
        name: &str,
    ) -> Result<bool, Fault> {
        let backend = self.backend();
        let verb = backend.verb(&portal.prepared);
        self.transaction.admit(verb)?;
        match &portal.progress {
            Progress::Ready => {}
            Progress::Running(_) => self.begin_statement().await?,
            Progress::Fetching { sent, left } => {
                let before = Some((*sent, *left));
                return self.fetch(portal, before, rows_max).await;
            }
            Progress::Finished(Some(tag)) => {
                self.rows_complete(Completed { rows: 0, tag: *tag });
                return Ok(false);
            }
            Progress::Finished(None) => {
                let message = format!("portal \"{name}\" cannot be run");
                return Err(PgError::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
            }
        }
        if matches!(portal.progress, Progress::Ready) {
            portal.progress = Progress::Finished(None);
            if let Some(verb) = verb {
                let tag = self.carry_out(verb).await?;
                reply::command_complete(&mut self.socket.output, tag);
                return Ok(matches!(verb, Verb::Commit | Verb::Rollback));
            }
            let start = self.socket.output.len();
            match backend.execute_now(&mut self.session, &portal.prepared, &portal.bound, &mut self.socket.output) {
                Some(Ok(completed)) => {
                    self.finish_now(portal, completed, rows_max, start);
                    return Ok(false);
                }
                Some(Err(error)) => {
                    self.socket.output.truncate(start);
                    return Err(error.into());
                }
                None => {}
            }
            match backend.cursor_verb(&portal.prepared) {
                Some(CursorVerb::Declare(declaration)) => {
                    self.begin_statement().await?;
                    self.declare(declaration, std::mem::take(&mut portal.bound)).await?;
                    return Ok(false);
                }
                Some(CursorVerb::Fetch(_)) => return self.fetch(portal, None, rows_max).await,
                None => {}
            }
            self.begin_statement().await?;
            match self.start(&portal.prepared, &portal.bound).await? {
                Some(running) => portal.progress = Progress::Running(running),
                None => return Ok(false),
            }
        }
        if portal.cursor.is_some() {
            let formats = portal.bound.result_formats.clone();
            self.encode_as(portal, &formats)?;
        }
        if let Progress::Running(running) = &mut portal.progress {
            match self.pump(running, rows_max).await? {
                Pumped::Suspended => {
                    portal.pass(rows_max, rows_max);
                    self.events();
                    self.socket.output.extend_from_slice(reply::PORTAL_SUSPENDED);
                }
                Pumped::Finished(completed) => {
                    portal.pass(completed.rows, rows_max);
                    portal.progress = Progress::Finished(Some(completed.tag));
                    self.rows_complete(completed);
                }
            }
        }
        Ok(false)
    }

    /// Rows answered at once stand in the output from `start`; those past the client's limit are set aside.
    fn finish_now(&mut self, portal: &mut Portal<B::Prepared>, completed: Completed, rows_max: u64, start: usize) {
        if completed.rows < rows_max {
            portal.progress = Progress::Finished(Some(completed.tag));
            self.rows_complete(completed);
            return;
        }
        let sent = messages_length(&self.socket.output[start..], rows_max);
        let messages = self.socket.output.split_off(start + sent);
        let left = Completed { rows: completed.rows - rows_max, tag: completed.tag };
        portal.progress = Progress::Running(Running::Messages { messages, left });
        self.events();
        self.socket.output.extend_from_slice(reply::PORTAL_SUSPENDED);
    }

    /// Runs a statement up to its first row. `None`: it returned none and is complete.
    pub(super) async fn start(&mut self, prepared: &Arc<B::Prepared>, bound: &Bound) -> Result<Option<Running>, Fault> {
        if let Some(busy) = &mut self.busy {
            busy.runs = true;
        }
        let backend = self.backend();
        let work = backend.execute(&mut self.session, prepared, bound);
        match self.watch.run(&mut self.socket, work).await?? {
            Outcome::Rows { stream, encoder, tag } => {
                return Ok(Some(Running::Batches { stream, encoder, current: None, tag }));
            }
            Outcome::RawRows { messages, completed } => {
                return Ok(Some(Running::Messages { messages, left: completed }));
            }
            Outcome::Done { tag } => {
                self.events();
                reply::command_complete(&mut self.socket.output, &tag);
            }
            Outcome::Empty => self.socket.output.extend_from_slice(reply::EMPTY_QUERY),
            Outcome::CopyIn { sink, layout } => self.copy_in(sink, layout).await?,
            Outcome::CopyOut { stream, layout } => self.copy_out(stream, layout).await?,
        }
        Ok(None)
    }

    /// Sends up to `rows_max` rows.
    pub(super) async fn pump(&mut self, running: &mut Running, rows_max: u64) -> Result<Pumped, Fault> {
        let mut sent = 0;
        match running {
            Running::Messages { messages, left } => {
                let length = messages_length(messages, rows_max);
                self.socket.output.extend_from_slice(&messages.split_to(length));
                if left.rows >= rows_max {
                    left.rows -= rows_max;
                    return Ok(Pumped::Suspended);
                }
                Ok(Pumped::Finished(std::mem::replace(left, Completed { rows: 0, tag: left.tag })))
            }
            Running::Batches { stream, encoder, current, tag } => loop {
                if let Some((batch, next)) = current {
                    while *next < batch.num_rows() && sent < rows_max {
                        let left = usize::try_from(rows_max - sent).unwrap_or(usize::MAX);
                        let count = rows_per_chunk(batch.num_rows(), batch.get_array_memory_size());
                        let count = count.min(batch.num_rows() - *next).min(left);
                        let start = self.socket.output.len();
                        encoder
                            .encode(batch, *next..*next + count, &mut self.socket.output)
                            .inspect_err(|_| self.socket.output.truncate(start))?;
                        *next += count;
                        sent += count as u64;
                        if self.socket.output.len() >= HIGH_WATER_BYTES {
                            self.watch.drain(&mut self.socket).await?;
                        }
                    }
                    if *next >= batch.num_rows() {
                        *current = None;
                    }
                }
                // As PostgreSQL does: the limit suspends, even where not a row is left behind it.
                if sent >= rows_max {
                    return Ok(Pumped::Suspended);
                }
                match self.watch.run(&mut self.socket, stream.next()).await? {
                    Some(batch) => *current = Some((batch?, 0)),
                    None => return Ok(Pumped::Finished(Completed { rows: sent, tag: *tag })),
                }
            },
        }
    }

    pub(super) fn rows_complete(&mut self, completed: Completed) {
        self.events();
        reply::rows_complete(&mut self.socket.output, completed.tag, completed.rows);
    }

    /// Does what the protocol does itself; gives the command tag.
    async fn carry_out(&mut self, verb: Verb<'_>) -> Result<&'static str, Fault> {
        let step = match verb {
            Verb::Begin { .. } => self.transaction.begin(),
            Verb::Commit => self.transaction.end(true),
            Verb::Rollback => self.transaction.end(false),
            Verb::Savepoint(name) => self.transaction.savepoint(name)?,
            Verb::Release(name) => self.transaction.release(name)?,
            Verb::RollbackTo(name) => self.transaction.rollback_to(name)?,
            // One namespace for what clients prepare and what PREPARE does: psqlODBC prepares by Parse and deallocates in SQL.
            Verb::Deallocate(None) => {
                self.shared.backend.deallocate(&mut self.session, None);
                self.statements.clear();
                return Ok("DEALLOCATE ALL");
            }
            Verb::Deallocate(Some(name)) => {
                let was_known = self.shared.backend.deallocate(&mut self.session, Some(name));
                return if self.statements.remove(name) | was_known {
                    Ok("DEALLOCATE")
                } else {
                    Err(unknown_statement(name).into())
                };
            }
            Verb::CloseCursor(None) => {
                self.portals.clear();
                return Ok("CLOSE CURSOR ALL");
            }
            Verb::CloseCursor(Some(name)) => {
                return if self.portals.remove(name) { Ok("CLOSE CURSOR") } else { Err(unknown_cursor(name).into()) };
            }
        };
        match verb {
            Verb::Release(_) => self.portals.release(self.transaction.depth()),
            Verb::RollbackTo(_) => self.portals.roll_back(self.transaction.depth()),
            _ => {}
        }
        let Step { event, warning, tag } = step;
        if let Some(warning) = warning {
            reply::error_or_notice(&mut self.socket.output, &warning);
        }
        if let Some(event) = event {
            if matches!(event, TxEvent::Commit | TxEvent::Rollback) {
                self.portals.end(event == TxEvent::Commit);
            }
            let backend = self.backend();
            // A COMMIT that fails has rolled back, and the block is over all the same.
            backend.transaction(&mut self.session, event).await?;
        }
        if let Verb::Begin { read_only, isolation } = verb
            && (read_only.is_some() || isolation.is_some())
        {
            let backend = self.backend();
            backend.transaction(&mut self.session, TxEvent::Mode { read_only, isolation }).await?;
        }
        self.events();
        Ok(tag)
    }
}

/// So many rows that a chunk stays near the high-water mark, judged by what the batch holds in memory.
fn rows_per_chunk(rows: usize, bytes: usize) -> usize {
    let row_bytes = bytes / rows.max(1) + 1;
    (HIGH_WATER_BYTES / row_bytes).clamp(1, ROWS_PER_CHUNK_MAX)
}

/// Bytes of the first `rows` DataRow messages of `messages`, or of all if there are fewer.
pub(super) fn messages_length(messages: &[u8], rows: u64) -> usize {
    let mut length = 0;
    let mut row = 0;
    while row < rows
        && let Some(prefix) = messages.get(length + 1..length + 5)
    {
        let body = prefix.iter().fold(0usize, |value, byte| value << 8 | usize::from(*byte));
        length = (length + 1 + body).min(messages.len());
        row += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_rows_and_a_short_tail_is_all_there_is() {
        let two = b"D\0\0\0\x05xD\0\0\0\x04";
        assert_eq!(messages_length(two, 0), 0);
        assert_eq!(messages_length(two, 1), 6);
        assert_eq!(messages_length(two, 2), 11);
        assert_eq!(messages_length(two, 9), 11);
        assert_eq!(messages_length(b"D\0\0", 1), 0);
    }
}
