//! Cursors: portals that SQL has declared and that FETCH reads. What one is, and which rows a FETCH comes to. Pure; `fetch`
//! carries it out.

use super::error::{PgError, sqlstate};
use parking_lot::Mutex;
use std::sync::Arc;

/// What the protocol does about cursors; `P` is a prepared statement.
#[derive(Debug)]
pub enum CursorVerb<'a, P> {
    Declare(Declaration<'a, P>),
    Fetch(Fetch<'a>),
}

/// `DECLARE name CURSOR FOR query`
#[derive(Debug)]
pub struct Declaration<'a, P> {
    pub name: &'a str,
    /// With the parameters of the whole statement.
    pub query: &'a Arc<P>,
    /// The whole statement.
    pub text: &'a str,
    pub is_binary: bool,
    /// `WITH HOLD`: it outlives the transaction.
    pub is_held: bool,
}

/// `FETCH reach FROM cursor`
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    pub cursor: &'a str,
    pub reach: Reach,
    /// `MOVE`: rows are passed and not sent.
    pub moves: bool,
}

/// Which rows, from where the cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// So many that come next; 0 is the row that it stands on, `u64::MAX` all.
    Next(u64),
    /// The one that many rows on, from 1.
    Relative(u64),
    /// The one of this number, from 1.
    Absolute(u64),
    /// Any that may lie behind.
    Backward,
}

/// Of a portal that is a cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Rows sent or passed.
    pub passed: u64,
    /// A FETCH has asked for more than there was.
    pub at_end: bool,
    pub is_binary: bool,
    pub is_held: bool,
    /// Held, and its transaction has committed: only CLOSE ends it.
    pub has_survived: bool,
    _listed: Listed,
}

/// What a FETCH has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// Rows to pass.
    pub skip: u64,
    /// Rows to send, or for MOVE to pass and count.
    pub take: u64,
    /// Rows that are counted without being passed: `MOVE 0` counts the row that the cursor stands on.
    pub counted: u64,
}

impl Cursor {
    pub fn new(facts: CursorFacts, cursors: &OpenCursors) -> Cursor {
        let (is_binary, is_held) = (facts.is_binary, facts.is_held);
        Cursor { passed: 0, at_end: false, is_binary, is_held, has_survived: false, _listed: cursors.list(facts) }
    }

    fn is_on_row(&self) -> bool {
        self.passed > 0 && !self.at_end
    }

    /// # Errors
    /// 55000: the rows lie behind.
    pub fn way(&self, reach: Reach, moves: bool) -> Result<Way, PgError> {
        let (skip, take) = match reach {
            Reach::Next(0) if moves => return Ok(Way { skip: 0, take: 0, counted: u64::from(self.is_on_row()) }),
            Reach::Next(0) if self.is_on_row() => return Err(backward()),
            Reach::Next(rows) => (0, rows),
            Reach::Relative(rows) => (rows - 1, 1),
            Reach::Absolute(row) if row > self.passed => (row - 1 - self.passed, 1),
            Reach::Absolute(_) | Reach::Backward => return Err(backward()),
        };
        Ok(Way { skip, take, counted: 0 })
    }

    /// So many rows of `asked` have gone by.
    pub fn pass(&mut self, rows: u64, asked: u64) {
        self.passed += rows;
        self.at_end |= rows < asked;
    }
}

fn backward() -> PgError {
    PgError::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
        .hint("rows that have gone by are not kept; declare the cursor again, or keep them in the client")
}

pub(super) fn unknown_cursor(name: &str) -> PgError {
    PgError::error(sqlstate::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
        .hint("a cursor ends with its transaction unless it was declared WITH HOLD: SELECT name FROM pg_cursors")
}

/// What `pg_cursors` shows of a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorFacts {
    pub name: String,
    /// The text of its DECLARE.
    pub statement: String,
    pub is_binary: bool,
    pub is_held: bool,
    pub created_us: i64,
}

/// The cursors of one connection as its queries see them. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct OpenCursors(Arc<Mutex<Vec<Arc<CursorFacts>>>>);

impl OpenCursors {
    /// In the order in which they were declared.
    pub fn all(&self) -> Vec<Arc<CursorFacts>> {
        self.0.lock().clone()
    }

    fn list(&self, facts: CursorFacts) -> Listed {
        let facts = Arc::new(facts);
        self.0.lock().push(Arc::clone(&facts));
        Listed { cursors: self.clone(), facts }
    }
}

/// In the list for as long as it lives.
#[derive(Debug)]
struct Listed {
    cursors: OpenCursors,
    facts: Arc<CursorFacts>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.cursors.0.lock().retain(|facts| !Arc::ptr_eq(facts, &self.facts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(cursors: &OpenCursors) -> Cursor {
        let (name, statement) = ("c".to_owned(), "declare c".to_owned());
        Cursor::new(CursorFacts { name, statement, is_binary: false, is_held: false, created_us: 0 }, cursors)
    }

    #[test]
    fn a_cursor_goes_forward_only() {
        let mut cursor = cursor(&OpenCursors::default());
        let way = |skip, take| Ok(Way { skip, take, counted: 0 });
        let behind = |found: Result<Way, PgError>| found.is_err_and(|error| error.sqlstate == "55000");
        // Before the first row there is none to stand on.
        assert_eq!(cursor.way(Reach::Next(0), false), way(0, 0));
        assert_eq!(cursor.way(Reach::Absolute(1), false), way(0, 1));
        assert!(behind(cursor.way(Reach::Backward, true)));
        cursor.pass(3, 3);
        assert_eq!(cursor.way(Reach::Next(2), false), way(0, 2));
        assert_eq!(cursor.way(Reach::Relative(2), false), way(1, 1));
        assert_eq!(cursor.way(Reach::Absolute(6), true), way(2, 1));
        assert!(behind(cursor.way(Reach::Absolute(3), false)));
        assert!(behind(cursor.way(Reach::Next(0), false)));
        assert_eq!(cursor.way(Reach::Next(0), true), Ok(Way { skip: 0, take: 0, counted: 1 }));
        // Behind the last row neither.
        cursor.pass(1, 2);
        assert_eq!(cursor.way(Reach::Next(0), false), way(0, 0));
        assert_eq!(cursor.way(Reach::Next(0), true), way(0, 0));
    }

    #[test]
    fn a_cursor_is_listed_for_as_long_as_it_lives() {
        let cursors = OpenCursors::default();
        let (one, other) = (cursor(&cursors), cursor(&cursors));
        assert_eq!(cursors.all().len(), 2);
        drop(one);
        assert_eq!(cursors.all().len(), 1);
        drop(other);
        assert!(cursors.all().is_empty());
    }
}
