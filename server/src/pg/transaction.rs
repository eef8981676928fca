//! The transaction block as the protocol sees it: where it is, what may run in it, and what each verb makes of it.
//! Pure: the connection carries out what comes back.

use super::backend::{TxEvent, Verb};
use super::error::{PgError, sqlstate};
use super::reply::TxStatus;

/// Open savepoints of one block. PostgreSQL has no limit but memory; this is ours, far above what drivers nest.
const SAVEPOINTS_MAX: usize = 1_000;

pub(super) struct Transaction {
    pub status: TxStatus,
    /// A block stands around the statements of the running simple query.
    pub implicit: bool,
    savepoints: Vec<String>,
}

/// What a verb comes to.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    /// To be told to the backend; the status is already what it will be.
    pub event: Option<TxEvent>,
    pub warning: Option<PgError>,
    pub tag: &'static str,
}

fn step(event: Option<TxEvent>, tag: &'static str) -> Step {
    Step { event, warning: None, tag }
}

impl Transaction {
    pub fn new() -> Self {
        Transaction { status: TxStatus::Idle, implicit: false, savepoints: Vec::new() }
    }

    /// Open savepoints.
    pub fn depth(&self) -> usize {
        self.savepoints.len()
    }

    /// A statement may run, unless the block has failed and this does not end it.
    pub fn admit(&self, verb: Option<Verb<'_>>) -> Result<(), PgError> {
        let leaves = matches!(verb, Some(Verb::Commit | Verb::Rollback | Verb::RollbackTo(_)));
        if self.status == TxStatus::Failed && !leaves {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(PgError::error(sqlstate::IN_FAILED_SQL_TRANSACTION, message));
        }
        Ok(())
    }

    /// A statement failed. Says whether an implicit block ended by it.
    pub fn fail(&mut self) -> Option<TxEvent> {
        match self.status {
            TxStatus::Idle => std::mem::take(&mut self.implicit).then_some(TxEvent::Rollback),
            TxStatus::Open | TxStatus::Failed => {
                self.status = TxStatus::Failed;
                None
            }
        }
    }

    /// The statement before an ordinary one of a simple query with several: open a block around them if none is.
    pub fn begin_implicit(&mut self) -> Option<TxEvent> {
        if self.status != TxStatus::Idle || self.implicit {
            return None;
        }
        self.implicit = true;
        Some(TxEvent::Begin { implicit: true })
    }

    /// The simple query is over.
    pub fn end_implicit(&mut self) -> Option<TxEvent> {
        std::mem::take(&mut self.implicit).then_some(TxEvent::Commit)
    }

    pub fn begin(&mut self) -> Step {
        if self.status == TxStatus::Open {
            let warning =
                PgError::warning(sqlstate::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
            return Step { event: None, warning: Some(warning), tag: "BEGIN" };
        }
        self.status = TxStatus::Open;
        self.savepoints.clear();
        // An implicit block becomes the explicit one: what ran before in the same query belongs to it.
        let began = std::mem::take(&mut self.implicit);
        step((!began).then_some(TxEvent::Begin { implicit: false }), "BEGIN")
    }

    pub fn end(&mut self, commit: bool) -> Step {
        let tag = if commit { "COMMIT" } else { "ROLLBACK" };
        let event = if commit { TxEvent::Commit } else { TxEvent::Rollback };
        self.savepoints.clear();
        match std::mem::replace(&mut self.status, TxStatus::Idle) {
            TxStatus::Open => step(Some(event), tag),
            TxStatus::Failed => step(Some(TxEvent::Rollback), "ROLLBACK"),
            TxStatus::Idle => {
                let message = "there is no transaction in progress";
                let warning = Some(PgError::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message));
                Step { event: std::mem::take(&mut self.implicit).then_some(event), warning, tag }
            }
        }
    }

    pub fn savepoint(&mut self, name: &str) -> Result<Step, PgError> {
        self.in_block("SAVEPOINT")?;
        if self.savepoints.len() >= SAVEPOINTS_MAX {
            let message = format!("this transaction has {SAVEPOINTS_MAX} savepoints, the most it may have");
            return Err(PgError::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, message));
        }
        self.savepoints.push(name.to_owned());
        Ok(step(Some(TxEvent::Savepoint { depth: self.savepoints.len() }), "SAVEPOINT"))
    }

    pub fn release(&mut self, name: &str) -> Result<Step, PgError> {
        self.in_block("RELEASE SAVEPOINT")?;
        let index = self.find(name)?;
        self.savepoints.truncate(index);
        Ok(step(None, "RELEASE"))
    }

    pub fn rollback_to(&mut self, name: &str) -> Result<Step, PgError> {
        self.in_block("ROLLBACK TO SAVEPOINT")?;
        let index = self.find(name)?;
        self.savepoints.truncate(index + 1);
        self.status = TxStatus::Open;
        Ok(step(Some(TxEvent::RollbackTo { depth: index + 1 }), "ROLLBACK"))
    }

    fn in_block(&self, statement: &str) -> Result<(), PgError> {
        if self.status == TxStatus::Idle {
            let message = format!("{statement} can only be used in transaction blocks");
            return Err(PgError::error(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message));
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, PgError> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint == name)
            .ok_or_else(|| PgError::error(sqlstate::INVALID_SAVEPOINT, format!("savepoint \"{name}\" does not exist")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_of_a_failed_block_rolls_back_and_says_so() {
        let mut transaction = Transaction::new();
        transaction.begin();
        assert_eq!(transaction.fail(), None);
        assert_eq!(transaction.admit(None).unwrap_err().sqlstate, "25P02");
        assert_eq!(
            transaction.admit(Some(Verb::Begin { read_only: None, isolation: None })).unwrap_err().sqlstate,
            "25P02"
        );
        transaction.admit(Some(Verb::Commit)).unwrap();
        let step = transaction.end(true);
        assert_eq!((step.event, step.tag), (Some(TxEvent::Rollback), "ROLLBACK"));
        assert_eq!(transaction.status, TxStatus::Idle);
    }

    #[test]
    fn rolling_back_to_a_savepoint_revives_a_failed_block() {
        let mut transaction = Transaction::new();
        assert_eq!(transaction.savepoint("a").unwrap_err().sqlstate, "25P01");
        transaction.begin();
        transaction.savepoint("a").unwrap();
        assert_eq!(transaction.savepoint("b").unwrap().event, Some(TxEvent::Savepoint { depth: 2 }));
        transaction.fail();
        assert_eq!(transaction.rollback_to("c").unwrap_err().sqlstate, "3B001");
        let step = transaction.rollback_to("a").unwrap();
        assert_eq!(step.event, Some(TxEvent::RollbackTo { depth: 1 }));
        assert_eq!(transaction.status, TxStatus::Open);
        assert_eq!(transaction.release("b").unwrap_err().sqlstate, "3B001");
        transaction.release("a").unwrap();
    }

    #[test]
    fn begin_inside_a_simple_query_takes_over_the_implicit_block() {
        let mut transaction = Transaction::new();
        assert_eq!(transaction.begin_implicit(), Some(TxEvent::Begin { implicit: true }));
        assert_eq!(transaction.begin_implicit(), None);
        assert_eq!(transaction.begin().event, None);
        assert_eq!(transaction.end_implicit(), None);
        assert_eq!(transaction.status, TxStatus::Open);
    }
}
