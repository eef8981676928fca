//! `UPDATE`, `DELETE` and `TRUNCATE` of a table: rows that go, and rows that come in their place, in one append.

use super::{
    Engine, IngestError, IngestReport, Seams, SourceRuntime,
    plain::Plain,
    source::{Incoming, Inner, Wish},
};
use crate::seam::{Removal, SeamError, SeamResult};
use arrow::{
    array::{BooleanArray, UInt64Array},
    compute::filter_record_batch,
    record_batch::RecordBatch,
};
use datafusion::error::DataFusionError;
use std::{collections::HashSet, sync::Arc};
use tidemark_catalog::{ObjectId, Relation};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

/// Rows that go and rows that come.
#[derive(Debug, Default)]
pub struct Change {
    /// Of a table with a primary key: the rows that go; only their keys are looked at.
    pub deleted: Vec<RecordBatch>,
    /// Of one without: where they are in its log.
    pub removal: Removal,
    /// Rows that come, in the table's columns.
    pub added: Vec<RecordBatch>,
}

/// As long as it is held nobody has the table alone.
pub struct Turn {
    pub(super) source: Arc<SourceRuntime>,
    pub(super) _held: OwnedRwLockReadGuard<()>,
}

/// As long as it is held nobody else writes to the table: what its holder reads of it stays so until its change.
pub struct Alone {
    source: Arc<SourceRuntime>,
    _held: OwnedRwLockWriteGuard<()>,
}

impl Alone {
    /// All rows of the table, as what a change takes away.
    pub fn everything(&self) -> Result<Change, IngestError> {
        let deleted = self.source.current_rows().transpose().map_err(DataFusionError::from)?;
        let removal = self.source.plain.as_ref().map(|plain| plain.read().all()).unwrap_or_default();
        Ok(Change { deleted: deleted.into_iter().collect(), removal, added: vec![] })
    }
}

pub(super) fn gone() -> IngestError {
    IngestError::Seam(SeamError::NotDone("the source or table was dropped meanwhile".to_string()))
}

impl Engine {
    /// Waits until nobody else writes to the table.
    pub async fn alone(&self, id: ObjectId) -> Result<Alone, IngestError> {
        let source = self.source(id).ok_or_else(gone)?;
        Ok(Alone { _held: source.writers.clone().write_owned().await, source })
    }

    /// The table has other columns from here on: the catalog says so already.
    ///
    /// # Errors
    /// Its log cannot have them; after a restart it would not open either.
    pub async fn alter_columns(&self, alone: Alone, relation: Relation) -> SeamResult<()> {
        alone.source.lay_out(relation).await
    }

    /// When this returns, the change is as durable as the log's fsync setting says, and visible; the views over the table have
    /// given up what went.
    ///
    /// # Errors
    /// A primary key that would be there twice; a row that is not admitted. Nothing has happened then.
    pub async fn change(&self, alone: Alone, change: Change) -> Result<IngestReport, IngestError> {
        let begun_us = self.seams.clock.now_us();
        self.make_way(&alone.source).await?;
        alone.source.change(change, begun_us, &self.seams).await
    }
}

impl SourceRuntime {
    async fn change(&self, change: Change, begun_us: i64, seams: &Seams) -> Result<IngestReport, IngestError> {
        let mut inner = self.lock().await;
        self.check_columns(&change.added)?;
        self.check_columns(&change.deleted)?;
        let incoming = match &self.plain {
            Some(plain) => {
                let plain = plain.read().clone();
                self.replacing(&inner, plain, change).await?
            }
            None => self.by_key(change)?,
        };
        let wish = Wish { all_or_nothing: true, shows: false };
        self.take_in(&mut inner, incoming, wish, begun_us, seams).await
    }

    /// Deletes of the keys that do not come again, then the rows that come: each replaces that of its key.
    fn by_key(&self, Change { deleted, added, .. }: Change) -> Result<Vec<Incoming>, IngestError> {
        let keys =
            |batches: &[RecordBatch]| batches.iter().map(|rows| self.primary_keys(rows)).collect::<Result<Vec<_>, _>>();
        let (gone, come) = (keys(&deleted)?, keys(&added)?);
        let known = |key: &Vec<u8>| self.table.as_ref().is_some_and(|table| table.read().contains(key));
        let goes: HashSet<&Vec<u8>> = gone.iter().flatten().collect();
        let mut comes: HashSet<&Vec<u8>> = HashSet::new();
        for (rows, keys) in added.iter().zip(&come) {
            for (row, key) in keys.iter().enumerate() {
                if !comes.insert(key) || (known(key) && !goes.contains(key)) {
                    return Err(self.duplicate(rows, row));
                }
            }
        }
        let mut incoming = vec![];
        for (rows, keys) in deleted.iter().zip(&gone) {
            let stays: BooleanArray = keys.iter().map(|key| Some(!comes.contains(key))).collect();
            let rows = filter_record_batch(rows, &stays).map_err(DataFusionError::from)?;
            let deletes = (0..rows.num_rows() as u32).collect();
            incoming.push(Incoming { deletes, ..Incoming::rows(rows) });
        }
        incoming.extend(added.into_iter().map(Incoming::rows));
        incoming.retain(|incoming| incoming.rows.num_rows() > 0);
        Ok(incoming)
    }

    /// Which rows are no more, and those that come; where that makes most of the log worthless, all others again as well.
    async fn replacing(
        &self,
        inner: &Inner,
        mut plain: Plain,
        Change { removal, mut added, .. }: Change,
    ) -> Result<Vec<Incoming>, IngestError> {
        added.retain(|rows| rows.num_rows() > 0);
        if removal.is_empty() && added.is_empty() {
            return Ok(vec![]);
        }
        let mut removal = removal;
        if plain.is_worn(self.rows(), removal.offsets.len()) {
            plain.remove(&removal);
            let mut left = self.left(&plain).await?;
            left.append(&mut added);
            (added, removal) = (left, Removal { below: inner.end.get(0), offsets: vec![] });
        }
        let mut incoming: Vec<Incoming> = added.into_iter().map(Incoming::rows).collect();
        if incoming.is_empty() {
            incoming.push(Incoming::rows(RecordBatch::new_empty(self.schema())));
        }
        incoming[0].removal = removal;
        Ok(incoming)
    }

    /// All rows that count.
    async fn left(&self, plain: &Plain) -> Result<Vec<RecordBatch>, IngestError> {
        let mut from = self.log().range().await?.0;
        let mut left = vec![];
        loop {
            let (records, next) = self.records(&from).await?;
            if next == from {
                return Ok(left);
            }
            from = next;
            for batch in records {
                let (rows, _) = plain.rows(&batch).map_err(DataFusionError::from)?;
                left.extend(Some(rows).filter(|rows| rows.num_rows() > 0));
            }
        }
    }

    pub fn has_key(&self) -> bool {
        self.table.is_some()
    }

    /// The rows of a table with a primary key, by key; `None` for other relations.
    pub fn current_rows(&self) -> Option<Result<RecordBatch, arrow::error::ArrowError>> {
        let table = self.table.as_ref()?.read();
        Some(table.batch(&self.schema()))
    }

    /// The same with their places in the log.
    pub fn placed_rows(&self) -> Option<Result<(RecordBatch, UInt64Array), arrow::error::ArrowError>> {
        let table = self.table.as_ref()?.read();
        Some(table.placed(&self.schema()))
    }
}
