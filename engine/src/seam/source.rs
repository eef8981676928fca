//! Where events come from.

use super::SeamResult;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// For each partition, the offset of the next record to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(pub BTreeMap<u32, u64>);

impl Positions {
    pub fn get(&self, partition: u32) -> u64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    pub fn set(&mut self, partition: u32, offset: u64) {
        self.0.insert(partition, offset);
    }
}

impl std::fmt::Display for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each: Vec<String> = self.0.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// Consecutive records of one partition, as the source delivers them; columns in the relation's declared order.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    pub partition: u32,
    /// Offset of the first row; the rows' offsets are consecutive.
    pub base_offset: u64,
    /// One append time for the batch, microseconds since 1970 UTC.
    pub append_time_us: i64,
    pub rows: RecordBatch,
    /// The admission decision, where the source stores it with the records (the embedded log does); otherwise the
    /// engine decides and journals it.
    pub admission: Option<AdmittedBatch>,
}

impl SourceBatch {
    /// The position before this batch.
    pub fn begin(&self) -> Positions {
        Positions([(self.partition, self.base_offset)].into())
    }

    /// The position after this batch. A control record (no rows) takes up one offset, so that a position can stand
    /// behind it.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + (self.rows.num_rows() as u64).max(1)
    }
}

/// What admission decided about one batch (semantics, section 3), and the source's clocks after it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AdmittedBatch {
    /// The rows that were not admitted, ascending by row.
    pub rejected: Vec<Reject>,
    /// The source frontier after this batch, microseconds; never decreases along the log.
    pub frontier_us: i64,
    /// The greatest admitted event time after this batch, microseconds: "now" under the event clock.
    pub max_event_us: i64,
    /// For a changelog table: the effective time of each row (semantics, section 3); empty otherwise.
    pub effective_us: Vec<i64>,
    /// For a changelog table: which rows are deletes, as row numbers ascending; empty otherwise.
    pub deletes: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// Row number within the batch.
    pub row: u32,
    pub reason: RejectReason,
    pub error: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The payload could not be decoded.
    Decode,
    /// NULL or infinite event time.
    EventTime,
    /// More than `max_ahead` after its append time.
    Future,
    /// Below the watermark.
    Late,
    /// Its entity key is NULL (one feature view only).
    NullKey,
    /// An expression failed on it (one feature view only).
    Expression,
}

impl RejectReason {
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::Decode => "decode",
            RejectReason::EventTime => "event_time",
            RejectReason::Future => "future",
            RejectReason::Late => "late",
            RejectReason::NullKey => "null_key",
            RejectReason::Expression => "expression",
        }
    }
}

#[async_trait]
pub trait Source: Send + Sync {
    /// Appends the batches as one atomic group in this order and returns the positions after it. When it returns, the
    /// rows are as durable as the source's fsync setting says. `partition` and `base_offset` of the given batches are
    /// ignored: the source assigns them. A batch without rows is a control record (an advance of the frontier).
    /// Full disk: `SeamError::Full`, nothing appended.
    async fn append(&self, batches: Vec<SourceBatch>) -> SeamResult<Positions>;

    /// Records from `from` on, in offset order within a partition, at most about `rows_max` rows (at least one batch
    /// where there is one); empty at the end. Never returns a part of an atomic group that is not durable.
    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>>;

    /// The first position that can still be read, and the position after the last record.
    async fn range(&self) -> SeamResult<(Positions, Positions)>;

    /// The first position that `commit` with the same arguments would leave; nothing is removed.
    async fn kept_from(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<Positions>;

    /// All effects of the records before `positions` are durable elsewhere, and records appended before `keep_from_us`
    /// are past retention: records for which both hold may be removed.
    async fn commit(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<()>;

    /// Makes everything appended so far durable, whatever the fsync setting.
    async fn sync(&self) -> SeamResult<()>;
}
