//! What a connection remembers between messages: prepared statements and portals, each by name.

use super::backend::{Batches, Bound, Completed, EncodeRows, RowsTag};
use super::cursor::{Cursor, unknown_cursor};
use super::error::{PgError, sqlstate};
use ahash::AHashMap;
use arrow::record_batch::RecordBatch;
use bytes::BytesMut;
use std::sync::Arc;

/// Named statements; the unnamed one is a field, for it is replaced by every Parse of most drivers.
pub(super) struct Statements<P> {
    named: AHashMap<String, Arc<P>>,
    unnamed: Option<Arc<P>>,
    named_max: usize,
}

impl<P> Statements<P> {
    pub fn new(named_max: usize) -> Self {
        Statements { named: AHashMap::new(), unnamed: None, named_max }
    }

    /// Whether `name` may be prepared: asked before the work of preparing it.
    pub fn check_new(&self, name: &str) -> Result<(), PgError> {
        if self.named.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(PgError::error(sqlstate::DUPLICATE_PREPARED_STATEMENT, message));
        }
        if !name.is_empty() && self.named.len() >= self.named_max {
            let message = format!("this connection has {} prepared statements, the most it may have", self.named_max);
            return Err(PgError::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, message)
                .hint("close those no longer used, or DEALLOCATE ALL"));
        }
        Ok(())
    }

    pub fn insert(&mut self, name: &str, statement: Arc<P>) {
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.named.insert(name.to_owned(), statement);
        }
    }

    pub fn get(&self, name: &str) -> Result<Arc<P>, PgError> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) };
        found.cloned().ok_or_else(|| unknown_statement(name))
    }

    /// Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if name.is_empty() { self.unnamed.take().is_some() } else { self.named.remove(name).is_some() }
    }

    pub fn clear(&mut self) {
        self.named.clear();
        self.unnamed = None;
    }
}

pub(super) fn unknown_statement(name: &str) -> PgError {
    let message = match name {
        "" => "unnamed prepared statement does not exist".to_owned(),
        _ => format!("prepared statement \"{name}\" does not exist"),
    };
    PgError::error(sqlstate::INVALID_SQL_STATEMENT_NAME, message)
}

/// A statement with its parameters, and how far it has run.
pub(super) struct Portal<P> {
    pub prepared: Arc<P>,
    pub bound: Bound,
    pub progress: Progress,
    /// Savepoints that were open when it was made.
    pub depth: usize,
    /// If DECLARE has made it.
    pub cursor: Option<Cursor>,
}

impl<P> Portal<P> {
    pub fn new(prepared: Arc<P>, bound: Bound, depth: usize) -> Self {
        Portal { prepared, bound, progress: Progress::Ready, depth, cursor: None }
    }

    /// So many rows of `asked` have gone by.
    pub fn pass(&mut self, rows: u64, asked: u64) {
        if let Some(cursor) = &mut self.cursor {
            cursor.pass(rows, asked);
        }
    }
}

pub(super) enum Progress {
    Ready,
    Running(Running),
    /// A FETCH that the client takes in portions: rows sent, and left to send.
    Fetching {
        sent: u64,
        left: u64,
    },
    /// Run to its end; a statement of rows may be executed again and gives none.
    Finished(Option<RowsTag>),
}

/// Rows on their way.
pub(super) enum Running {
    Batches {
        stream: Batches,
        encoder: Box<dyn EncodeRows>,
        /// The batch being sent and the first row of it not yet sent.
        current: Option<(RecordBatch, usize)>,
        tag: RowsTag,
    },
    /// Complete DataRow messages; `left.rows` of them.
    Messages { messages: BytesMut, left: Completed },
}

pub(super) struct Portals<P> {
    named: AHashMap<String, Portal<P>>,
    unnamed: Option<Portal<P>>,
    named_max: usize,
    /// The parameter list of the last unnamed portal, empty, kept for its allocation.
    spare: Bound,
}

impl<P> Portals<P> {
    pub fn new(named_max: usize) -> Self {
        Portals { named: AHashMap::new(), unnamed: None, named_max, spare: Bound::default() }
    }

    pub fn check_new(&self, name: &str) -> Result<(), PgError> {
        if self.named.contains_key(name) {
            let message = format!("cursor \"{name}\" already exists");
            return Err(PgError::error(sqlstate::DUPLICATE_CURSOR, message));
        }
        if !name.is_empty() && self.named.len() >= self.named_max {
            let message = format!("this connection has {} open cursors, the most it may have", self.named_max);
            return Err(PgError::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, message)
                .hint("close those no longer read, or end the transaction"));
        }
        Ok(())
    }

    /// A parameter list to fill, with the allocation of an earlier one.
    pub fn spare(&mut self) -> Bound {
        if let Some(portal) = self.unnamed.take() {
            self.keep(portal.bound);
        }
        std::mem::take(&mut self.spare)
    }

    fn keep(&mut self, mut bound: Bound) {
        bound.parameters.clear();
        self.spare = bound;
    }

    pub fn get(&self, name: &str) -> Result<&Portal<P>, PgError> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) };
        found.ok_or_else(|| unknown_portal(name))
    }

    /// Takes a portal out to run it.
    pub fn take(&mut self, name: &str) -> Result<(String, Portal<P>), PgError> {
        if name.is_empty() {
            return self.unnamed.take().map(|portal| (String::new(), portal)).ok_or_else(|| unknown_portal(name));
        }
        self.named.remove_entry(name).ok_or_else(|| unknown_portal(name))
    }

    /// Puts one in, new or back.
    pub fn put(&mut self, name: String, mut portal: Portal<P>) {
        if name.is_empty() {
            // A finished portal needs its parameters no more, and they hold the read buffer.
            if matches!(portal.progress, Progress::Finished(_)) {
                portal.bound.parameters.clear();
            }
            self.unnamed = Some(portal);
        } else {
            self.named.insert(name, portal);
        }
    }

    pub fn remove(&mut self, name: &str) -> bool {
        if name.is_empty() { self.unnamed.take().is_some() } else { self.named.remove(name).is_some() }
    }

    /// A cursor to read from.
    pub fn cursor(&self, name: &str) -> Result<(&Portal<P>, &Cursor), PgError> {
        let Some(portal) = self.named.get(name) else { return Err(unknown_cursor(name)) };
        let cursor = portal.cursor.as_ref().ok_or_else(|| not_fetched(name))?;
        Ok((portal, cursor))
    }

    /// Whether it is one that Bind has made.
    pub fn is_bound(&self, name: &str) -> bool {
        self.named.get(name).is_some_and(|portal| portal.cursor.is_none())
    }

    /// The transaction ended, and every portal with it but the cursors that are held: those of this transaction too if it
    /// has committed.
    pub fn end(&mut self, committed: bool) {
        if let Some(portal) = self.unnamed.take() {
            self.keep(portal.bound);
        }
        if self.named.is_empty() {
            return;
        }
        self.named.retain(|_, portal| {
            portal.depth = 0;
            let Some(cursor) = &mut portal.cursor else { return false };
            cursor.has_survived |= cursor.is_held && committed;
            cursor.has_survived
        });
    }

    /// A savepoint was released: what was made since belongs to what is around it.
    pub fn release(&mut self, depth: usize) {
        self.named.values_mut().for_each(|portal| portal.depth = portal.depth.min(depth));
    }

    /// Back to a savepoint, which stays open: what was made since is gone.
    pub fn roll_back(&mut self, depth: usize) {
        self.named.retain(|_, portal| portal.depth < depth);
    }

    /// Closes them all.
    pub fn clear(&mut self) {
        self.end(false);
        self.named.clear();
    }
}

/// Of a portal that is no cursor.
pub(super) fn not_fetched(name: &str) -> PgError {
    let message = format!("portal \"{name}\" cannot be fetched from");
    PgError::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message).hint(
        "it was made by Bind and is read by Execute: MOVE FORWARD passes rows of its query, and FETCH reads what DECLARE \
         has made",
    )
}

pub(super) fn unknown_portal(name: &str) -> PgError {
    let message = match name {
        "" => "unnamed portal does not exist".to_owned(),
        _ => format!("portal \"{name}\" does not exist"),
    };
    PgError::error(sqlstate::INVALID_CURSOR_NAME, message)
}
