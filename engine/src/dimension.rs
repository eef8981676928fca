//! The versions of a joined table by its primary key, as far back as an event may still ask for one.
//!
//! ```text
//! key 7     v1 ──────▶ v2 ─────▶ deleted ──▶ v3 ────────▶
//!                  ▲ frontier of the view: events are after it, so of what is before it only v2 is kept
//! ```

use crate::{
    current::CurrentRows,
    seam::{AdmittedBatch, SourceBatch},
    value::{Value, values_of},
};
use arrow::error::ArrowError;
use std::{collections::HashMap, sync::Arc};
use tidemark_catalog::{ObjectId, Relation};

pub type TableRow = Arc<[Value]>;

#[derive(Debug)]
pub struct Dimension {
    pub table: ObjectId,
    primary_key: Vec<usize>,
    /// The column that has, of a version, the instant from which on it counts.
    time: Option<usize>,
    /// By key, oldest first.
    versions: HashMap<Vec<u8>, Vec<Version>>,
    /// Deletes since the last tidying up.
    deleted: usize,
}

#[derive(Debug)]
struct Version {
    effective_us: i64,
    /// `None`: deleted.
    row: Option<TableRow>,
}

/// The keys that a batch changes, and since when.
pub type Changes = HashMap<Vec<u8>, i64>;

impl Dimension {
    pub fn new(table: ObjectId, relation: &Relation) -> Dimension {
        Dimension {
            table,
            primary_key: relation.primary_key.clone(),
            time: relation.event_time,
            versions: HashMap::new(),
            deleted: 0,
        }
    }

    /// The version that counts at `at_us`, or just before it.
    pub fn as_of(&self, key: &[u8], at_us: i64, before: bool) -> Option<&TableRow> {
        let versions = self.versions.get(key)?;
        let next = versions.partition_point(|v| v.effective_us < at_us || v.effective_us == at_us && !before);
        versions.get(next.checked_sub(1)?)?.row.as_ref()
    }

    /// What a batch will change.
    pub fn changes(&self, batch: &SourceBatch, decision: &AdmittedBatch) -> Result<Changes, ArrowError> {
        let mut changes = Changes::new();
        for (row, key) in CurrentRows::keys(&self.primary_key, &batch.rows)?.into_iter().enumerate() {
            if is_admitted(decision, row) {
                let since = changes.entry(key).or_insert(i64::MAX);
                *since = (*since).min(effective_us(batch, decision, row));
            }
        }
        Ok(changes)
    }

    /// Takes over the admitted changes of a batch. Nobody will ask for a version that was replaced before `keep_from_us`.
    pub fn take(&mut self, batch: &SourceBatch, decision: &AdmittedBatch, keep_from_us: i64) -> Result<(), ArrowError> {
        let columns = batch.rows.columns().iter().map(values_of).collect::<Result<Vec<_>, _>>()?;
        for (row, key) in CurrentRows::keys(&self.primary_key, &batch.rows)?.into_iter().enumerate() {
            if !is_admitted(decision, row) {
                continue;
            }
            let effective_us = effective_us(batch, decision, row);
            let is_deleted = decision.deletes.binary_search(&(row as u32)).is_ok();
            let value = |(i, column): (usize, &Vec<Value>)| match self.time == Some(i) {
                true => Value::Int(effective_us),
                false => column[row].clone(),
            };
            self.deleted += usize::from(is_deleted);
            let version = (!is_deleted).then(|| columns.iter().enumerate().map(value).collect());
            let versions = self.versions.entry(key).or_default();
            // A key's changes are in the order of the log: the last of one instant counts.
            versions.retain(|v| v.effective_us < effective_us);
            versions.push(Version { effective_us, row: version });
            let first = versions.partition_point(|v| v.effective_us <= keep_from_us).saturating_sub(1);
            versions.drain(..first);
        }
        Ok(())
    }

    /// Forgets keys that were deleted before anybody can ask for them.
    pub fn tidy(&mut self, keep_from_us: i64) {
        if std::mem::take(&mut self.deleted) == 0 {
            return;
        }
        let mut deleted = 0;
        self.versions.retain(|_, versions| {
            let is_there = versions.iter().any(|v| v.row.is_some() || v.effective_us > keep_from_us);
            deleted += usize::from(is_there && versions.last().is_some_and(|v| v.row.is_none()));
            is_there
        });
        self.deleted = deleted;
    }

    pub fn len(&self) -> usize {
        self.versions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }
}

fn is_admitted(decision: &AdmittedBatch, row: usize) -> bool {
    decision.rejected.binary_search_by_key(&(row as u32), |r| r.row).is_err()
}

fn effective_us(batch: &SourceBatch, decision: &AdmittedBatch, row: usize) -> i64 {
    decision.effective_us.get(row).copied().unwrap_or(batch.append_time_us)
}
