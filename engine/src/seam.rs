//! The five seams: everything the engine asks of the outside world.
//!
//! Batches in, batches out. Every implementation runs the contract test that belongs to the trait
//! (`connectors/tests/it/contract_*.rs`). An error says whether the effect certainly did not happen or may have
//! happened; only the pipeline's supervisor decides what to do about it.

mod clock;
mod history;
mod online;
mod source;
mod state;

pub use clock::Clock;
pub use history::{
    CommitTag, Effort, Expiry, Folded, HistoryPartition, HistoryStore, HistoryTable, KeptTable, Removed, Rewritten,
    Survey,
};
pub use online::{OnlineStore, OnlineValue, Put, PutVersion, Traffic};
pub use source::{
    AdmittedBatch, Origin, Positions, Reject, RejectReason, Removal, Run, Source, SourceBatch, Taken, Undecoded,
};
pub use state::{Keyspace, StateStore, WriteBatch};

/// An error at a seam.
#[derive(Debug, thiserror::Error)]
pub enum SeamError {
    /// The effect certainly did not happen.
    #[error("{0}")]
    NotDone(String),
    /// The effect may have happened: find out before doing it again.
    #[error("{0} (the effect may have happened)")]
    Unknown(String),
    /// The disk or the service is out of room; certainly not done.
    #[error("{0}")]
    Full(String),
}

impl SeamError {
    pub fn not_done(error: impl std::fmt::Display) -> Self {
        SeamError::NotDone(error.to_string())
    }

    /// The same error, of which is known that nothing happened.
    pub fn into_not_done(self) -> Self {
        match self {
            SeamError::Unknown(error) => SeamError::NotDone(error),
            other => other,
        }
    }

    pub fn unknown(error: impl std::fmt::Display) -> Self {
        SeamError::Unknown(error.to_string())
    }

    /// An I/O error whose effect certainly did not happen, with "disk full" told apart.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                SeamError::Full(format!("{what}: {error}"))
            }
            _ => SeamError::NotDone(format!("{what}: {error}")),
        }
    }
}

pub type SeamResult<T> = Result<T, SeamError>;
