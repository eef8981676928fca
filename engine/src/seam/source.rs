//! Where events come from.

use super::{SeamError, SeamResult};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
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

    /// Where a row came from, for people: partition, offset and append time; those of the topic where the log is the
    /// archive of one.
    pub fn place(&self, row: usize) -> (u32, u64, i64) {
        let origin = self.admission.as_ref().and_then(|admission| admission.origin.as_ref());
        let run = origin.and_then(|origin| origin.runs.iter().rev().find(|run| run.row as usize <= row));
        match run {
            Some(run) => (run.partition, run.offset + (row as u64 - u64::from(run.row)), run.append_us),
            None => (self.partition, self.base_offset + row as u64, self.append_time_us),
        }
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
    /// Where the rows were taken from, if the log is the archive of another system's topic.
    pub origin: Option<Origin>,
    /// Earlier rows of the same log that are no more from here on: of a table without a primary key.
    pub removal: Removal,
}

/// Rows of a log by their offsets. They stay in it as long as its segment does, and count no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// All rows before this offset; 0: none.
    pub below: u64,
    /// Further ones, ascending.
    pub offsets: Vec<u64>,
}

impl Removal {
    pub fn is_empty(&self) -> bool {
        self.below == 0 && self.offsets.is_empty()
    }
}

/// Where the rows of a batch were taken from. Stored in the append that stores the rows, so that what was read from the
/// topic and what is kept here cannot differ: after a crash reading goes on exactly behind the last of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Ascending by row; the first begins with row 0 where there are rows.
    pub runs: Vec<Run>,
    /// Messages that could not be decoded. They have no row.
    pub undecoded: Vec<Undecoded>,
    /// Each partition that the batch has something of, once, as it stands after the batch.
    pub taken: Vec<Taken>,
    /// Reading was set elsewhere by hand, perhaps back (`ALTER SOURCE … RESET TO`): `taken` has all partitions that
    /// there are from here on. Such a batch has no rows.
    pub is_reset: bool,
}

impl Origin {
    /// Without the first `rows` rows.
    pub fn skip_rows(&mut self, rows: u32) {
        let begun = self.runs.partition_point(|run| run.row <= rows);
        self.runs.drain(..begun.saturating_sub(1));
        for run in &mut self.runs {
            run.offset += u64::from(rows.saturating_sub(run.row));
            run.row = run.row.saturating_sub(rows);
        }
    }
}

/// Rows with consecutive offsets in one partition and one append time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The first row.
    pub row: u32,
    pub partition: u32,
    /// Of the first row.
    pub offset: u64,
    /// The broker's, where the topic has the time of its appends; else that of reading it.
    pub append_us: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undecoded {
    pub partition: u32,
    pub offset: u64,
    pub append_us: i64,
    pub error: String,
    /// As it came; bytes that are no UTF-8 as `\x` and hexadecimal digits.
    pub payload: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub partition: u32,
    /// The offset to go on from.
    pub next: u64,
    /// The partition's watermark, microseconds; admission sets it.
    pub watermark_us: i64,
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
    /// In the order in which they are declared.
    pub const ALL: [RejectReason; 6] = [
        RejectReason::Decode,
        RejectReason::EventTime,
        RejectReason::Future,
        RejectReason::Late,
        RejectReason::NullKey,
        RejectReason::Expression,
    ];

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
    ///
    /// After `SeamError::Unknown` it refuses all others, as not done, until it has made sure that the group did not happen, if
    /// ever it can; opened again it may find that it did. So whoever gets an append through after that may do the same again.
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

    /// From here on records have these columns: those that they have had, and further ones behind them; one that could not be
    /// NULL may be. Records from before have the columns that they were appended with.
    async fn widen(&self, schema: SchemaRef) -> SeamResult<()> {
        Err(SeamError::NotDone(format!("this source cannot have further columns: {schema}")))
    }

    /// Bytes that `append` has written since the source was opened; 0 where nobody counts them.
    fn appended_bytes(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_without_its_first_rows_knows_where_the_others_came_from() {
        let run = |row, offset| Run { row, partition: 0, offset, append_us: 0 };
        let origin = Origin { runs: vec![run(0, 10), run(3, 20), run(5, 40)], ..Origin::default() };
        let cases = [
            (0, vec![run(0, 10), run(3, 20), run(5, 40)]),
            (2, vec![run(0, 12), run(1, 20), run(3, 40)]),
            (3, vec![run(0, 20), run(2, 40)]),
            (4, vec![run(0, 21), run(1, 40)]),
            (9, vec![run(0, 44)]),
        ];
        for (rows, expected) in cases {
            let mut rest = origin.clone();
            rest.skip_rows(rows);
            assert_eq!(rest.runs, expected, "without {rows}");
        }
    }
}
