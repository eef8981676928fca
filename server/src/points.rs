//! Named points of the pipeline's step at which a test ends the process, as `kill -9` would: nothing is cleaned up. A
//! server without `--abort-at` has none of this: its seams are not wrapped.
//!
//! ```text
//!   rows    taken-not-appended ▶ log ▶ appended-not-applied ▶ views ▶ letters-not-kept ▶ state ▶ letters-kept
//!   steps   noted-not-committed ▶ files ▶ history-files-written ▶ commit ▶ history-committed
//!   state   checkpoint-not-written ▶ state ▶ checkpoint-written
//!   online  online-not-put ▶ store ▶ online-put
//!   CREATE  table ▶ history-table-created ▶ catalog ▶ catalog-committed
//! ```

use arrow::{
    datatypes::{FieldRef, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::{catalog::TableProvider, physical_plan::SendableRecordBatchStream};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    runtime::{Logs, Seams},
    seam::{
        CommitTag, Effort, Expiry, Folded, HistoryStore, HistoryTable, KeptTable, Keyspace, OnlineStore, OnlineValue,
        Positions, Put, Removed, Rewritten, SeamResult, Source, SourceBatch, StateStore, Survey, Traffic, WriteBatch,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Rows are there, and not in the log.
    TakenNotAppended,
    /// They are in the log, and no view has them.
    AppendedNotApplied,
    /// Every view has applied them; what could not be used is in memory only.
    LettersNotKept,
    LettersKept,
    /// It is noted how far everything is, and nothing of it is durable but the log.
    NotedNotCommitted,
    /// The data files of a history commit are written, and no table names them.
    HistoryFilesWritten,
    /// History is ahead of the state.
    HistoryCommitted,
    /// History of all views of a checkpoint is.
    CheckpointNotWritten,
    /// State has been saved; the log has not been shortened.
    CheckpointWritten,
    OnlineNotPut,
    OnlinePut,
    /// A view has its history table, and the catalog does not have the view.
    HistoryTableCreated,
    /// The catalog has a change that no session has seen.
    CatalogCommitted,
}

impl Point {
    pub const ALL: [Point; 13] = [
        Point::TakenNotAppended,
        Point::AppendedNotApplied,
        Point::LettersNotKept,
        Point::LettersKept,
        Point::NotedNotCommitted,
        Point::HistoryFilesWritten,
        Point::HistoryCommitted,
        Point::CheckpointNotWritten,
        Point::CheckpointWritten,
        Point::OnlineNotPut,
        Point::OnlinePut,
        Point::HistoryTableCreated,
        Point::CatalogCommitted,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Point::TakenNotAppended => "taken-not-appended",
            Point::AppendedNotApplied => "appended-not-applied",
            Point::LettersNotKept => "letters-not-kept",
            Point::LettersKept => "letters-kept",
            Point::NotedNotCommitted => "noted-not-committed",
            Point::HistoryFilesWritten => "history-files-written",
            Point::HistoryCommitted => "history-committed",
            Point::CheckpointNotWritten => "checkpoint-not-written",
            Point::CheckpointWritten => "checkpoint-written",
            Point::OnlineNotPut => "online-not-put",
            Point::OnlinePut => "online-put",
            Point::HistoryTableCreated => "history-table-created",
            Point::CatalogCommitted => "catalog-committed",
        }
    }
}

/// Where the process ends: at this passing of this point, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortAt {
    pub point: Point,
    pub passing: u64,
}

impl AbortAt {
    /// `POINT` or `POINT:N`.
    pub fn parse(text: &str) -> Result<AbortAt, String> {
        let (name, passing) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::ALL.into_iter().find(|point| point.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Point::ALL.into_iter().map(Point::name).collect();
            format!("no point is called \"{name}\"; there are {}", known.join(", "))
        })?;
        match passing.parse::<u64>() {
            Ok(passing) if passing > 0 => Ok(AbortAt { point, passing }),
            _ => Err(format!("\"{passing}\" is not a number from 1 on")),
        }
    }
}

/// Counts the passings of one point.
pub struct Points {
    point: Point,
    left: AtomicU64,
}

impl Points {
    pub fn new(at: AbortAt) -> Arc<Points> {
        Arc::new(Points { point: at.point, left: AtomicU64::new(at.passing) })
    }

    /// The process passes this point, or ends here.
    pub fn pass(&self, point: Point) {
        if point == self.point && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::error!(point = point.name(), "ended at a named point, as --abort-at says");
            std::process::abort();
        }
    }

    /// The same seams, which now have points.
    pub fn around(self: &Arc<Points>, seams: Seams) -> Seams {
        let points = || self.clone();
        Seams {
            logs: Arc::new(AtLogs { points: points(), logs: seams.logs }),
            state: Arc::new(AtState { points: points(), state: seams.state }),
            online: Arc::new(AtOnline { points: points(), online: seams.online }),
            history: Arc::new(AtHistory { points: points(), history: seams.history }),
            threads: seams.threads,
            shares: seams.shares,
            memory: seams.memory,
            steps_waiting_max: seams.steps_waiting_max,
            clock: seams.clock,
        }
    }
}

struct AtLogs {
    points: Arc<Points>,
    logs: Arc<dyn Logs>,
}

impl Logs for AtLogs {
    fn open(&self, id: ObjectId, schema: SchemaRef) -> SeamResult<Arc<dyn Source>> {
        Ok(Arc::new(AtLog { points: self.points.clone(), log: self.logs.open(id, schema)? }))
    }

    fn remove(&self, id: ObjectId) -> SeamResult<()> {
        self.logs.remove(id)
    }

    fn all(&self) -> SeamResult<Vec<ObjectId>> {
        self.logs.all()
    }
}

struct AtLog {
    points: Arc<Points>,
    log: Arc<dyn Source>,
}

#[async_trait]
impl Source for AtLog {
    async fn append(&self, batches: Vec<SourceBatch>) -> SeamResult<Positions> {
        // A control record takes nothing from anywhere.
        let has_rows = batches.iter().any(|batch| batch.rows.num_rows() > 0);
        if has_rows {
            self.points.pass(Point::TakenNotAppended);
        }
        let appended = self.log.append(batches).await?;
        if has_rows {
            self.points.pass(Point::AppendedNotApplied);
        }
        Ok(appended)
    }

    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        self.log.poll(from, rows_max).await
    }

    async fn range(&self) -> SeamResult<(Positions, Positions)> {
        self.log.range().await
    }

    async fn kept_from(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<Positions> {
        self.log.kept_from(positions, keep_from_us).await
    }

    async fn commit(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<()> {
        self.log.commit(positions, keep_from_us).await
    }

    async fn sync(&self) -> SeamResult<()> {
        self.log.sync().await?;
        self.points.pass(Point::NotedNotCommitted);
        Ok(())
    }

    async fn widen(&self, schema: SchemaRef) -> SeamResult<()> {
        self.log.widen(schema).await
    }

    fn appended_bytes(&self) -> u64 {
        self.log.appended_bytes()
    }
}

struct AtState {
    points: Arc<Points>,
    state: Arc<dyn StateStore>,
}

impl AtState {
    /// The points before and after a write.
    fn points_of(batch: &WriteBatch) -> Option<(Point, Point)> {
        let puts_in = |wanted: Keyspace| batch.puts.iter().any(|(keyspace, ..)| *keyspace == wanted);
        if puts_in(Keyspace::DeadLetters) {
            return Some((Point::LettersNotKept, Point::LettersKept));
        }
        // One alone is the epoch of a start, or the extent of a log.
        let is_checkpoint = puts_in(Keyspace::Progress) && batch.puts.len() > 1;
        is_checkpoint.then_some((Point::CheckpointNotWritten, Point::CheckpointWritten))
    }
}

#[async_trait]
impl StateStore for AtState {
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()> {
        let points = Self::points_of(&batch);
        if let Some((before, _)) = points {
            self.points.pass(before);
        }
        self.state.checkpoint(batch).await?;
        if let Some((_, after)) = points {
            self.points.pass(after);
        }
        Ok(())
    }

    fn spill(&self, batch: WriteBatch) -> SeamResult<()> {
        self.state.spill(batch)
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
        self.state.get(keyspace, key)
    }

    fn page(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        entries_max: usize,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>> {
        self.state.page(keyspace, prefix, after, entries_max)
    }

    async fn remove(&self, keyspace: Keyspace, prefix: &[u8]) -> SeamResult<()> {
        self.state.remove(keyspace, prefix).await
    }
}

struct AtOnline {
    points: Arc<Points>,
    online: Arc<dyn OnlineStore>,
}

#[async_trait]
impl OnlineStore for AtOnline {
    fn describe(&self, view: ObjectId, columns: Vec<FieldRef>) {
        self.online.describe(view, columns);
    }

    async fn open_view(&self, view: ObjectId) -> SeamResult<bool> {
        self.online.open_view(view).await
    }

    async fn claim(&self, view: ObjectId, epoch: u64) -> SeamResult<()> {
        self.online.claim(view, epoch).await
    }

    async fn filled(&self, view: ObjectId) -> SeamResult<()> {
        self.online.filled(view).await
    }

    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put> {
        self.points.pass(Point::OnlineNotPut);
        let put = self.online.put(view, values).await?;
        self.points.pass(Point::OnlinePut);
        Ok(put)
    }

    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        self.online.get_many(view, keys).await
    }

    async fn drop_view(&self, view: ObjectId) -> SeamResult<()> {
        self.online.drop_view(view).await
    }

    fn lane(&self, view: ObjectId) -> u64 {
        self.online.lane(view)
    }

    fn traffic(&self) -> Traffic {
        self.online.traffic()
    }
}

struct AtHistory {
    points: Arc<Points>,
    history: Arc<dyn HistoryStore>,
}

#[async_trait]
impl HistoryStore for AtHistory {
    async fn create(&self, table: &HistoryTable) -> SeamResult<()> {
        self.history.create(table).await?;
        self.points.pass(Point::HistoryTableCreated);
        Ok(())
    }

    async fn drop(&self, name: &str) -> SeamResult<()> {
        self.history.as_ref().drop(name).await
    }

    async fn retain(&self, owners: &BTreeSet<ObjectId>) -> SeamResult<()> {
        self.history.retain(owners).await
    }

    async fn snapshot_id(&self, name: &str) -> SeamResult<Option<i64>> {
        self.history.snapshot_id(name).await
    }

    async fn is_kept(&self, table: &KeptTable) -> SeamResult<bool> {
        self.history.is_kept(table).await
    }

    async fn keep(&self, table: &KeptTable, rows: SendableRecordBatchStream) -> SeamResult<()> {
        self.history.keep(table, rows).await
    }

    async fn forget(&self, id: ObjectId, name: &str) -> SeamResult<()> {
        self.history.forget(id, name).await
    }

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        self.history.rename(from, to).await
    }

    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()> {
        self.history.append(table, steps, tag).await?;
        self.points.pass(Point::HistoryCommitted);
        Ok(())
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        self.history.last_tag(name).await
    }

    async fn survey(&self, table: &HistoryTable, effort: &Effort, old_us: i64) -> SeamResult<Survey> {
        self.history.survey(table, effort, old_us).await
    }

    async fn compact(&self, table: &HistoryTable, effort: &Effort) -> SeamResult<Rewritten> {
        self.history.compact(table, effort).await
    }

    async fn fold_manifests(&self, table: &HistoryTable) -> SeamResult<Folded> {
        self.history.fold_manifests(table).await
    }

    async fn expire(&self, table: &HistoryTable, expiry: &Expiry) -> SeamResult<Removed> {
        self.history.expire(table, expiry).await
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        self.history.provider(table).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_written_with_the_passing_that_counts() {
        for point in Point::ALL {
            let at = |passing| -> Result<AbortAt, String> { Ok(AbortAt { point, passing }) };
            assert_eq!(AbortAt::parse(point.name()), at(1));
            assert_eq!(AbortAt::parse(&format!("{}:12", point.name())), at(12));
        }
        for wrong in ["", "somewhere", "online-put:", "online-put:0", "online-put:-1", "ONLINE-PUT"] {
            assert!(AbortAt::parse(wrong).is_err(), "{wrong}");
        }
    }
}
