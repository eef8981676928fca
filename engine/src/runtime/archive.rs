//! A source's archive: its admitted events as an Iceberg table of its own, which keeps them when `retention` takes them from the log.
//!
//! ```text
//!   checkpoint   log, synced ▶ events behind the table's position ▶ one commit: rows, and the position behind them
//!   retention    removes from the log what is before that position, and nothing else
//! ```
//!
//! The position is in the commit that has the rows, so a crash anywhere leaves both or neither, and every event is there once. It is a
//! table as those of history are, without a key, so the history store does the rest (decision 0047).

use super::{Care, Engine, Seams, SourceRuntime, Upkeep, restore::read};
use crate::seam::{
    CommitTag, Expiry, HistoryPartition, HistoryStore, HistoryTable, Keyspace, Positions, SeamError, SeamResult,
    SourceBatch, WriteBatch,
};
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, TimestampMicrosecondArray, UInt64Array},
    record_batch::RecordBatch,
};
use datafusion::catalog::TableProvider;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectId, UTC};
use tidemark_planner::archive::archive_schema;

/// What is said of the columns that an archive has of its own.
const COMMENTS: [&str; 4] = [
    "the event's place in the source's log",
    "when the event was appended",
    "the topic's partition that the event came from",
    "the event's offset in that partition",
];

/// Events of one commit, which are in memory while it is made: what some seconds bring, and a file that is worth its name.
const COMMIT_ROWS: usize = 1 << 17;
/// Their bytes, after which a commit is ended earlier: rows may be wide.
const COMMIT_BYTES: usize = 64 << 20;
/// Commits of one source in one checkpoint, two million events: whoever begins to archive a long log does not hold up all others.
const COMMITS_MAX: usize = 16;
/// Rows that are read from the log at a time, as by a query's scan.
const READ_ROWS: usize = 8192;

/// What a source knows of its archive.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// What the table is called.
    name: RwLock<String>,
    /// Held over a commit.
    state: tokio::sync::Mutex<State>,
    /// When files that nothing names were looked for, microseconds.
    orphans_us: Mutex<Option<i64>>,
}

#[derive(Debug, Default)]
struct State {
    /// The table's name and tag; `None`: it has to be asked, for nobody has done so yet, or a commit has failed.
    known: Option<(String, Option<CommitTag>)>,
    /// The source was dropped: no table is made again.
    is_gone: bool,
}

impl Archive {
    pub(super) fn of(object: &Object) -> Archive {
        Archive { name: RwLock::new(object.history_name()), ..Archive::default() }
    }
}

/// What an archive has that goes as far as the log begins, or further.
pub(super) struct Archived {
    pub table: HistoryTable,
    /// How many columns are the source's; behind them are its own.
    pub columns: usize,
    /// The source's frontier behind its last event.
    pub frontier_us: i64,
    /// The greatest time of the events that it may lack; `None`: it has all.
    pub removed_us: Option<i64>,
}

/// In [`Keyspace::Progress`]: what had gone from the log when the archive began, or behind its last gap. It begins with the object's id, so it goes with the
/// object.
fn begin_key(id: ObjectId) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], b"/archive"].concat()
}

/// The events of one commit.
struct Taken {
    rows: Vec<RecordBatch>,
    /// The position behind them.
    end: Positions,
    /// The source's frontier there.
    frontier_us: i64,
}

impl SourceRuntime {
    /// It is called so from now on; the next checkpoint calls its archive so too.
    pub fn set_name(&self, object: &Object) {
        *self.name.write() = object.shown_name();
        *self.archive.name.write() = object.history_name();
    }

    /// Whether its events are kept in a table of their own.
    pub fn is_archived(&self) -> bool {
        self.relation.read().is_archived()
    }

    fn archive_table(&self) -> SeamResult<HistoryTable> {
        let relation = self.relation.read();
        let Some(time) = relation.event_time else {
            return Err(SeamError::NotDone(format!(
                "source \"{}\" has no watermark to partition its archive by",
                self.name.read()
            )));
        };
        let schema = archive_schema(&relation);
        let of_columns = relation.columns.iter().map(|column| column.comment.clone().unwrap_or_default());
        let comments = of_columns.chain(COMMENTS.map(String::from)).take(schema.fields().len()).collect();
        Ok(HistoryTable {
            view: self.id,
            name: self.archive.name.read().clone(),
            schema,
            key: vec![],
            time,
            comments,
            partition: HistoryPartition::Day,
        })
    }

    /// How far the archive is; `None`: it has nothing yet.
    async fn archive_tag(&self, table: &HistoryTable, history: &dyn HistoryStore) -> SeamResult<Option<CommitTag>> {
        let mut state = self.archive.state.lock().await;
        if state.is_gone {
            return Err(SeamError::NotDone(format!(
                "source \"{}\" was dropped while the statement ran",
                self.name.read()
            )));
        }
        match &state.known {
            Some((name, tag)) if *name == table.name => Ok(tag.clone()),
            _ => {
                let tag = history.take_up(table).await?;
                state.known = Some((table.name.clone(), tag.clone()));
                Ok(tag)
            }
        }
    }

    /// What the archive has, unless the log begins behind it. The caller sees to it that the log is not shortened meanwhile.
    pub(super) async fn archived(&self, seams: &Seams) -> SeamResult<Option<Archived>> {
        if !self.is_archived() {
            return Ok(None);
        }
        let table = self.archive_table()?;
        let begin = self.log().range().await?.0.get(0);
        let tag = self.archive_tag(&table, seams.history.as_ref()).await?;
        let Some(tag) = tag.filter(|tag| tag.positions.get(0) >= begin) else { return Ok(None) };
        let Some(bytes) = read(seams, &begin_key(self.id))? else { return Ok(None) };
        let removed_us = postcard::from_bytes(&bytes).map_err(SeamError::not_done)?;
        let columns = self.relation.read().columns.len();
        Ok(Some(Archived { table, columns, frontier_us: tag.frontier_us, removed_us }))
    }

    /// The events behind the first `done` and before `to`, as many as one commit has.
    async fn unarchived(&self, table: &HistoryTable, done: u64, to: u64, frontier_us: i64) -> SeamResult<Taken> {
        let (mut at, shown) = self.shown().await?;
        at.set(0, at.get(0).max(done));
        let log = self.log();
        let mut taken = Taken { rows: vec![], end: at, frontier_us };
        let (mut rows, mut bytes) = (0, 0);
        while taken.end.get(0) < to && rows < COMMIT_ROWS && bytes < COMMIT_BYTES {
            let before = taken.end.get(0);
            let batches = log.poll(&taken.end, READ_ROWS).await?;
            for batch in batches {
                // What came after the log was synced may go in a crash of the machine, and its offsets come again.
                if batch.base_offset >= to {
                    break;
                }
                taken.end.set(batch.partition, batch.end_offset());
                if let Some(decision) = &batch.admission {
                    taken.frontier_us = taken.frontier_us.max(decision.frontier_us);
                }
                let (admitted, offsets) = shown.rows(&batch).map_err(SeamError::not_done)?;
                if admitted.num_rows() > 0 {
                    rows += admitted.num_rows();
                    bytes += bytes_of(&admitted);
                    taken.rows.push(with_places(table, &batch, &admitted, &offsets)?);
                }
            }
            if taken.end.get(0) == before {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(taken)
    }
}

/// Of the rows alone: they may be a part of what was read from the log in one piece.
fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Events with the columns that tell where each came from.
fn with_places(
    table: &HistoryTable,
    batch: &SourceBatch,
    rows: &RecordBatch,
    offsets: &UInt64Array,
) -> SeamResult<RecordBatch> {
    let places: Vec<(u32, u64, i64)> =
        offsets.values().iter().map(|offset| batch.place((offset - batch.base_offset) as usize)).collect();
    let mut columns = rows.columns().to_vec();
    let recorded = TimestampMicrosecondArray::from_iter_values(places.iter().map(|(_, _, at_us)| *at_us));
    let own: [ArrayRef; 4] = [
        Arc::new(Int64Array::from_iter_values(offsets.values().iter().map(|offset| *offset as i64))),
        Arc::new(recorded.with_timezone(UTC)),
        Arc::new(Int32Array::from_iter_values(places.iter().map(|(partition, ..)| *partition as i32))),
        Arc::new(Int64Array::from_iter_values(places.iter().map(|(_, offset, _)| *offset as i64))),
    ];
    let own_columns = table.schema.fields().len().saturating_sub(columns.len());
    columns.extend(own.into_iter().take(own_columns));
    RecordBatch::try_new(table.schema.clone(), columns).map_err(SeamError::not_done)
}

impl Engine {
    /// Appends to a source's archive what its log has before `to`, which is synced, and the archive has not. How far the archive is
    /// then; `None`: the source has none.
    pub(super) async fn archive(&self, source: &SourceRuntime, to: &Positions) -> SeamResult<Option<u64>> {
        if !source.is_archived() {
            return Ok(None);
        }
        let (to, mut done) = (to.get(0), 0);
        for _ in 0..COMMITS_MAX {
            done = self.archive_some(source, to).await?;
            if done >= to {
                break;
            }
        }
        Ok(Some(done))
    }

    /// One commit, if anything is missing.
    async fn archive_some(&self, source: &SourceRuntime, to: u64) -> SeamResult<u64> {
        let mut state = source.archive.state.lock().await;
        if state.is_gone {
            return Ok(to);
        }
        let table = source.archive_table()?;
        let history = &self.seams.history;
        // Taken out until the commit is over: after an error the table itself has to say how far it is.
        let last = match state.known.take() {
            Some((name, tag)) if name == table.name => tag,
            _ => history.take_up(&table).await?,
        };
        let done = last.as_ref().map_or(0, |tag| tag.positions.get(0));
        if done > to {
            return Err(SeamError::NotDone(format!(
                "the archive of source \"{}\" has its events before offset {done}, and the log ends at {to}: the data directory is \
                 older than the warehouse",
                source.name.read()
            )));
        }
        if done == to {
            state.known = Some((table.name, last));
            return Ok(done);
        }
        let frontier_us = last.as_ref().map_or(i64::MIN, |tag| tag.frontier_us);
        let taken = source.unarchived(&table, done, to, frontier_us).await?;
        if taken.end.get(0) <= done {
            state.known = Some((table.name, last));
            return Ok(done);
        }
        // An archive has a gap where its option was taken back with the transaction that had set it.
        if last.is_none() || source.log().range().await?.0.get(0) > done {
            let removed_us = postcard::to_stdvec(&source.extent().removed_us).map_err(SeamError::not_done)?;
            let put = (Keyspace::Progress, begin_key(source.id), removed_us);
            self.seams.state.checkpoint(WriteBatch { puts: vec![put], deletes: vec![] }).await?;
        }
        let tag = CommitTag {
            frontier_us: taken.frontier_us,
            positions: taken.end,
            view_version: 1,
            writer_epoch: self.epoch,
            sequence: last.as_ref().map_or(1, |tag| tag.sequence + 1),
        };
        history.append(&table, taken.rows, &tag).await?;
        let done = tag.positions.get(0);
        state.known = Some((table.name, Some(tag)));
        Ok(done)
    }

    /// The archive as of its newest commit; empty before the first.
    pub(crate) async fn archive_provider(&self, source: &SourceRuntime) -> SeamResult<Arc<dyn TableProvider>> {
        let table = source.archive_table()?;
        let history = &self.seams.history;
        source.archive_tag(&table, history.as_ref()).await?;
        history.provider(&table).await
    }

    /// Removes the archive of a source that is dropped. Where that cannot be done now the next start does it.
    pub(super) async fn forget_archive(&self, source: &SourceRuntime) {
        if !source.is_archived() {
            return;
        }
        // Whoever commits to it right now finishes first.
        source.archive.state.lock().await.is_gone = true;
        let table = source.archive.name.read().clone();
        if let Err(error) = self.seams.history.forget(source.id, &table).await {
            tracing::warn!(table, %error, "the archive of a dropped source is left behind until the next start");
        }
    }

    /// Does for the files of the archives what is due, one archive after the other.
    ///
    /// # Errors
    /// That of the first archive of which something failed; the others have had their turn.
    pub async fn care_for_archives(&self, upkeep: &Upkeep) -> SeamResult<()> {
        let mut all = Ok(());
        for source in self.sources().into_iter().filter(|source| source.is_archived()) {
            // Before its first commit since the start there may be no table.
            if source.archive.state.lock().await.known.is_some() {
                let cared = self.care_for_archive(&source, upkeep).await;
                all = all.and(cared);
            }
        }
        all
    }

    async fn care_for_archive(&self, source: &SourceRuntime, upkeep: &Upkeep) -> SeamResult<()> {
        let history = &self.seams.history;
        let table = source.archive_table()?;
        let now_us = self.seams.clock.now_us();
        let snapshots_before_us = upkeep.old_us(now_us);
        let survey = history.survey(&table, &upkeep.effort, snapshots_before_us).await?;
        let looked_us = *source.archive.orphans_us.lock();
        for care in upkeep.due(&survey, looked_us, now_us) {
            match care {
                Care::Compact => {
                    history.compact(&table, &upkeep.effort).await?;
                }
                Care::FoldManifests => {
                    history.fold_manifests(&table).await?;
                }
                Care::Expire => {
                    history.expire(&table, &Expiry { snapshots_before_us, orphans_before_us: None }).await?;
                }
                Care::RemoveOrphans => {
                    // Whatever happens, the next look is not at once.
                    *source.archive.orphans_us.lock() = Some(now_us);
                    let orphans_before_us = Some(now_us.saturating_sub(upkeep.orphan_age_us));
                    history.expire(&table, &Expiry { snapshots_before_us, orphans_before_us }).await?;
                }
            }
        }
        Ok(())
    }
}
