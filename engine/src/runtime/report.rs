//! What became of rows that were to be taken in, and what is to become of those whose key is known.

use crate::seam::SeamError;
use arrow::record_batch::RecordBatch;

/// What to do with a row whose primary key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    Error,
    Skip,
    Replace,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct IngestReport {
    /// Rows appended, admitted or not.
    pub rows: usize,
    /// Rows that went to dead letters, by the reason's name, in the order in which the reasons were met.
    pub rejected: Vec<(&'static str, usize)>,
    /// The rows that count, where the caller asked for them.
    pub shown: Vec<RecordBatch>,
}

impl IngestReport {
    /// Rows that went to dead letters.
    pub fn rejected(&self) -> usize {
        self.rejected.iter().map(|(_, rows)| rows).sum()
    }

    /// Takes in the report of another part of the same statement.
    pub fn add(&mut self, other: IngestReport) {
        self.rows += other.rows;
        for (reason, rows) in other.rejected {
            self.reject(reason, rows);
        }
    }

    pub(super) fn reject(&mut self, reason: &'static str, rows: usize) {
        match self.rejected.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += rows,
            None => self.rejected.push((reason, rows)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("the columns of \"{0}\" were changed while the statement ran")]
    Altered(String),
    #[error("duplicate key value violates unique constraint \"{table}_pkey\"")]
    Duplicate { table: String, key: String },
    #[error("a row was not admitted to \"{table}\": {error}")]
    NotAdmitted { table: String, error: String },
    #[error("offset {offset} of partition {partition} was taken before; the next to take is {next}")]
    TakenBefore { partition: u32, offset: u64, next: u64 },
    #[error(transparent)]
    Seam(#[from] SeamError),
    #[error(transparent)]
    Expression(#[from] datafusion::error::DataFusionError),
}
