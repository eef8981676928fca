//! Events with versions of tables beside them, and what a later change of a table does to them.
//!
//! ```text
//! table     v1 ─────────────▶ v2 (its watermark has not passed e3 yet)
//! events        e1     e2         e3    e4        e1, e2 have v1 for ever; e3 and e4 had v1, are taken out of their
//!                            ▲ frontier of the table            rings with what they were, and put in again with v2
//! ```
//!
//! The events after the table's frontier are *open*: their batches are kept, so that they can be computed again. No change of
//! the table counts before its frontier, so what is before is closed; and as the view's frontier is the least of its sources',
//! no step of history ever changes.

use super::{Letter, ViewState, shard::hash};
use crate::{
    compiled::BatchRows,
    dimension::{Changes, Dimension},
    key::KeyState,
    seam::{AdmittedBatch, Positions, SourceBatch},
    value::{Value, encode_row, values_of},
};
use datafusion::error::{DataFusionError, Result as DfResult};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};
use tidemark_catalog::ObjectId;

/// Open events of one view. Where the table's frontier stands still while events go on, more than this would fill memory: some
/// 100 bytes each.
const OPEN_MAX: usize = 4 << 20;

/// The tables of a view and its open events. Whoever changes one of them holds the lock until the rings show it.
pub struct Joins {
    tables: Vec<Dimension>,
    open: VecDeque<Open>,
    /// In `open`.
    rows: usize,
    /// The least frontier of the tables: no change will count before it.
    closed_us: i64,
}

/// A batch with events that a change of a table may touch.
struct Open {
    branch: usize,
    source: ObjectId,
    batch: Arc<SourceBatch>,
    times_us: Vec<i64>,
    rejected: Vec<u32>,
    last_us: i64,
    /// For each table that is joined to it, the hash of the key that each row looks up; 0: none.
    hashes: Vec<Vec<u64>>,
}

impl Open {
    fn rows<'a>(&'a self, rejected: &'a [u32]) -> BatchRows<'a> {
        BatchRows {
            branch: self.branch,
            from: None,
            rows: &self.batch.rows,
            base_offset: self.batch.base_offset,
            times_us: &self.times_us,
            rejected,
            deletes: &[],
            replaced: None,
        }
    }
}

impl Joins {
    pub fn new(tables: Vec<Dimension>) -> Mutex<Joins> {
        Mutex::new(Joins { tables, open: VecDeque::new(), rows: 0, closed_us: i64::MIN })
    }

    pub fn table(&self, id: ObjectId) -> Option<&Dimension> {
        self.tables.iter().find(|table| table.table == id)
    }

    /// Forgets what no change can touch any more.
    fn close_before(&mut self, closed_us: i64) {
        if std::mem::replace(&mut self.closed_us, closed_us) == closed_us {
            return;
        }
        // In any order: one batch may hold an event far ahead.
        self.open.retain(|open| open.last_us >= closed_us);
        self.rows = self.open.iter().map(|open| open.times_us.len()).sum();
    }
}

impl ViewState {
    pub(super) fn joins(&self) -> Option<MutexGuard<'_, Joins>> {
        self.joins.as_ref().map(|joins| joins.lock())
    }

    /// A batch has been applied: it is kept as long as a table may change beside its events.
    pub(super) fn keep_open(&self, joins: &mut Joins, rows: &BatchRows<'_>) -> DfResult<()> {
        let Some((source, batch)) = rows.from else { return Ok(()) };
        let is_admitted = |row: &usize| rows.rejected.binary_search(&(*row as u32)).is_err();
        let admitted = (0..rows.times_us.len()).filter(is_admitted);
        let last_us = admitted.map(|row| rows.times_us[row]).max();
        let Some(last_us) = last_us.filter(|last| *last >= joins.closed_us) else { return Ok(()) };
        let hash = |key: Option<Vec<u8>>| key.map_or(0, |key| hash(&key));
        let keys = self.compiled.join_keys(rows.branch, rows.rows)?;
        let hashes = keys.into_iter().map(|keys| keys.into_iter().map(hash).collect()).collect();
        joins.rows += rows.times_us.len();
        joins.open.push_back(Open {
            branch: rows.branch,
            source,
            batch: Arc::new(batch.clone()),
            times_us: rows.times_us.to_vec(),
            rejected: rows.rejected.to_vec(),
            last_us,
            hashes,
        });
        Ok(())
    }

    pub(super) fn check_open(&self, joins: &Joins, rows: usize) -> DfResult<()> {
        if joins.rows + rows <= OPEN_MAX {
            return Ok(());
        }
        let joined = self.compiled.plan.branches.iter().flat_map(|branch| branch.joined());
        let tables: Vec<&str> = joined.map(|joined| joined.table_name.as_str()).collect();
        Err(DataFusionError::Execution(format!(
            "more than {OPEN_MAX} events are after the watermark of {}, and would change with it: advance that watermark, and RESUME \
             the view",
            tables.join(", ")
        )))
    }

    /// A batch that was applied before the checkpoint, after a restart.
    pub fn reopen(&self, rows: &BatchRows<'_>) -> DfResult<()> {
        match self.joins() {
            Some(mut joins) => self.keep_open(&mut joins, rows),
            None => Ok(()),
        }
    }

    /// The versions of a table as they were at a checkpoint.
    pub fn recover_table(&self, id: ObjectId, batch: &SourceBatch, decision: &AdmittedBatch) -> DfResult<()> {
        let keep_from_us = self.frontier_us();
        let Some(mut joins) = self.joins() else { return Ok(()) };
        match joins.tables.iter_mut().find(|table| table.table == id) {
            Some(table) => Ok(table.take(batch, decision, keep_from_us)?),
            None => Ok(()),
        }
    }

    /// A table has changed: the open events that look up what has changed are computed again.
    pub fn change_table(&self, id: ObjectId, batch: &SourceBatch, decision: &AdmittedBatch) -> DfResult<Vec<Letter>> {
        let keep_from_us = self.frontier_us();
        let Some(mut joins) = self.joins() else { return Ok(vec![]) };
        let joins = &mut *joins;
        let Some(at) = joins.tables.iter().position(|table| table.table == id) else { return Ok(vec![]) };
        let changes = joins.tables[at].changes(batch, decision)?;
        let touched = self.touched(joins, id, &changes);
        let mut before = vec![];
        for (i, rejected) in &touched {
            before.push(self.compiled.events(&joins.open[*i].rows(rejected), Some(joins))?.0);
        }
        joins.tables[at].take(batch, decision, keep_from_us)?;
        let mut letters = vec![];
        for ((i, rejected), before) in touched.iter().zip(before) {
            let open = &joins.open[*i];
            let rows = open.rows(rejected);
            let (after, mut failures) = self.compiled.events(&rows, Some(joins))?;
            failures.extend(self.put(&rows, Some(&before), &after)?);
            letters.extend(failures.into_iter().map(|failure| (open.source, open.batch.clone(), failure)));
        }
        Ok(letters)
    }

    /// A table has changed whose rows stand beside entity keys.
    pub fn pair(&self, table: ObjectId, batch: &SourceBatch, decision: &AdmittedBatch) -> DfResult<()> {
        let plan = &self.compiled.plan;
        let Some(beside) = plan.beside.as_ref().filter(|beside| beside.table == table && batch.rows.num_rows() > 0)
        else {
            return Ok(());
        };
        let columns = |of: &[usize]| of.iter().map(|i| values_of(batch.rows.column(*i))).collect::<Result<Vec<_>, _>>();
        let (keys, values) = (columns(&beside.key)?, columns(&beside.columns)?);
        let (walk, frontier_us) = (&self.compiled.walk, self.frontier_us());
        for row in 0..batch.rows.num_rows() {
            if decision.rejected.binary_search_by_key(&(row as u32), |r| r.row).is_ok() {
                continue;
            }
            let effective_us = decision.effective_us.get(row).copied().unwrap_or(batch.append_time_us);
            let is_deleted = decision.deletes.binary_search(&(row as u32)).is_ok();
            // The time of a version is that from which on it counts.
            let value = |(i, column): (usize, &Vec<Value>)| match beside.columns[i] == beside.time {
                true => Value::Int(effective_us),
                false => column[row].clone(),
            };
            let version = (!is_deleted).then(|| values.iter().enumerate().map(value).collect());
            let key: Arc<[Value]> = keys.iter().map(|column| column[row].clone()).collect();
            let encoded = encode_row(&key);
            let hash = hash(&encoded);
            let mut shard = self.shards[super::shard_of(hash)].lock();
            let id = match self.find_or_load(&mut shard, hash, &encoded).map_err(super::seam)? {
                Some(id) => id,
                None if is_deleted => continue,
                None => {
                    self.counters.keys.fetch_add(1, Ordering::Relaxed);
                    let (state, generation) = (KeyState::new(walk, key, frontier_us), shard.generation);
                    shard.insert(hash, encoded.into(), state, generation)
                }
            };
            if shard.change(id, walk).is_some_and(|entry| entry.state.pair(effective_us, version)) {
                shard.due_sooner(id, effective_us);
            }
            shard.mark_stale(id);
            shard.weigh(id);
            self.relieve(&mut shard).map_err(super::seam)?;
        }
        Ok(())
    }

    /// The open batches with events that look up what has changed, and which rows of them do not.
    fn touched(&self, joins: &Joins, id: ObjectId, changes: &Changes) -> Vec<(usize, Vec<u32>)> {
        let mut since: std::collections::HashMap<u64, i64> = std::collections::HashMap::new();
        for (key, us) in changes {
            let least = since.entry(hash(key)).or_insert(i64::MAX);
            *least = (*least).min(*us);
        }
        let first_us = since.values().copied().min().unwrap_or(i64::MAX);
        let mut touched = vec![];
        for (i, open) in joins.open.iter().enumerate().filter(|(_, open)| open.last_us >= first_us) {
            let joined = self.compiled.plan.branches[open.branch].joined().iter().zip(&open.hashes);
            let of_table: Vec<&Vec<u64>> = joined.filter(|(j, _)| j.table == id).map(|(_, hashes)| hashes).collect();
            let is_touched = |row: usize| {
                let time_us = open.times_us[row];
                of_table.iter().any(|hashes| since.get(&hashes[row]).is_some_and(|us| *us <= time_us))
            };
            let rows = open.times_us.len();
            let others: Vec<u32> = (0..rows)
                .filter(|row| !is_touched(*row) || open.rejected.binary_search(&(*row as u32)).is_ok())
                .map(|row| row as u32)
                .collect();
            if others.len() < rows {
                touched.push((i, others));
            }
        }
        touched
    }

    /// No change of a table will count before `closed_us` any more.
    pub fn close_before(&self, closed_us: i64) {
        if let Some(mut joins) = self.joins() {
            joins.close_before(closed_us);
        }
    }

    /// Keys that are deleted for good leave the tables' versions.
    pub fn tidy_tables(&self) {
        let keep_from_us = self.frontier_us();
        if let Some(mut joins) = self.joins() {
            joins.tables.iter_mut().for_each(|table| table.tidy(keep_from_us));
        }
    }

    /// Where, in the log of a source, its first open batch begins.
    pub fn open_from(&self, source: ObjectId) -> Option<Positions> {
        let joins = self.joins()?;
        let of_source = joins.open.iter().filter(|open| open.source == source);
        of_source.map(|open| open.batch.begin()).min_by_key(|at| at.0.values().copied().min())
    }

    /// Rows of joined tables, and events that may change with them.
    pub fn joined(&self) -> Option<(usize, usize)> {
        let joins = self.joins()?;
        Some((joins.tables.iter().map(Dimension::len).sum(), joins.rows))
    }
}
