//! The current rows of a table with a primary key, and which of them a batch replaces.
//!
//! Kept from the table's log alone: whoever walks the log up to a position knows every row as it was there. So a feature
//! view learns what a new version takes the place of without keeping the rows itself.

use crate::{
    seam::{AdmittedBatch, SourceBatch},
    value::{Value, array_of, encode_row, values_of},
};
use arrow::{
    array::{RecordBatch, UInt64Array},
    datatypes::SchemaRef,
    error::ArrowError,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

/// By primary key.
#[derive(Debug)]
pub struct CurrentRows {
    primary_key: Vec<usize>,
    rows: HashMap<Vec<u8>, Current>,
    /// Since when keys are deleted, as long as that lies ahead of the frontier: a row that comes again counts from then
    /// at the earliest.
    deleted: HashMap<Vec<u8>, i64>,
    /// When there are so many, those behind the frontier go.
    deleted_max: usize,
}

/// Deleted keys that are not looked through for some that can go: some 100 kB.
const DELETED_MIN: usize = 1024;

#[derive(Debug, Clone)]
struct Current {
    effective_us: i64,
    offset: u64,
    row: Arc<[Value]>,
}

/// The versions that the rows of one batch take the place of.
#[derive(Debug, Default)]
pub struct Replaced {
    each: Vec<(u32, Current)>,
}

impl CurrentRows {
    pub fn new(primary_key: &[usize]) -> CurrentRows {
        CurrentRows {
            primary_key: primary_key.to_vec(),
            rows: HashMap::new(),
            deleted: HashMap::new(),
            deleted_max: DELETED_MIN,
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The encoded primary key of each row.
    pub fn keys(primary_key: &[usize], rows: &RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError> {
        let columns = primary_key.iter().map(|i| values_of(rows.column(*i))).collect::<Result<Vec<_>, _>>()?;
        let of_row = |row: usize| encode_row(&columns.iter().map(|c| c[row].clone()).collect::<Vec<_>>());
        Ok((0..rows.num_rows()).map(of_row).collect())
    }

    /// The rows with other columns: for each its place before, or what it has now.
    pub fn rearrange(&mut self, primary_key: &[usize], moved: &[Result<usize, Value>]) {
        self.primary_key = primary_key.to_vec();
        for current in self.rows.values_mut() {
            let value = |from: &Result<usize, Value>| match from {
                Ok(before) => current.row[*before].clone(),
                Err(new) => new.clone(),
            };
            current.row = moved.iter().map(value).collect();
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.rows.contains_key(key)
    }

    /// Since when the row counts that is there now, or is there no more.
    pub fn effective_us(&self, key: &[u8]) -> Option<i64> {
        self.rows.get(key).map(|current| current.effective_us).or_else(|| self.deleted.get(key).copied())
    }

    /// Takes over the admitted rows of a batch; what they replace is kept for the caller if it is `wanted`.
    pub fn take(
        &mut self,
        batch: &SourceBatch,
        decision: &AdmittedBatch,
        wanted: bool,
    ) -> Result<Replaced, ArrowError> {
        let mut replaced = Replaced::default();
        if batch.rows.num_rows() == 0 {
            return Ok(replaced);
        }
        let keys = Self::keys(&self.primary_key, &batch.rows)?;
        let columns = batch.rows.columns().iter().map(values_of).collect::<Result<Vec<_>, _>>()?;
        for (row, key) in keys.into_iter().enumerate() {
            let number = row as u32;
            if decision.rejected.binary_search_by_key(&number, |r| r.row).is_ok() {
                continue;
            }
            let before = if decision.deletes.binary_search(&number).is_ok() {
                let before = self.rows.remove(&key);
                if let Some(effective_us) = decision.effective_us.get(row).filter(|at| **at > decision.frontier_us) {
                    self.deleted.insert(key, *effective_us);
                }
                before
            } else {
                self.deleted.remove(&key);
                let current = Current {
                    effective_us: decision.effective_us.get(row).copied().unwrap_or(batch.append_time_us),
                    offset: batch.base_offset + row as u64,
                    row: columns.iter().map(|c| c[row].clone()).collect(),
                };
                match self.rows.entry(key) {
                    Entry::Occupied(mut known) => Some(known.insert(current)),
                    Entry::Vacant(new) => {
                        new.insert(current);
                        None
                    }
                }
            };
            if wanted && let Some(before) = before {
                replaced.each.push((number, before));
            }
        }
        if self.deleted.len() > self.deleted_max {
            self.deleted.retain(|_, effective_us| *effective_us > decision.frontier_us);
            self.deleted_max = DELETED_MIN.max(2 * self.deleted.len());
        }
        Ok(replaced)
    }

    fn by_key(&self) -> Vec<&Current> {
        let mut rows: Vec<(&Vec<u8>, &Current)> = self.rows.iter().collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        rows.into_iter().map(|(_, current)| current).collect()
    }

    /// All rows, by key.
    pub fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        batch_of(schema, &self.by_key())
    }

    /// All rows, by key, and where each is in the log.
    pub fn placed(&self, schema: &SchemaRef) -> Result<(RecordBatch, UInt64Array), ArrowError> {
        let rows = self.by_key();
        let offsets = UInt64Array::from_iter_values(rows.iter().map(|current| current.offset));
        Ok((batch_of(schema, &rows)?, offsets))
    }
}

impl Replaced {
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The row of the batch that takes the place of version `i`.
    pub fn by(&self, i: usize) -> usize {
        self.each[i].0 as usize
    }

    /// Since when version `i` counted.
    pub fn time_us(&self, i: usize) -> i64 {
        self.each[i].1.effective_us
    }

    /// The offset of version `i` in the log.
    pub fn offset(&self, i: usize) -> u64 {
        self.each[i].1.offset
    }

    /// The versions themselves.
    pub fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let rows: Vec<&Current> = self.each.iter().map(|(_, current)| current).collect();
        batch_of(schema, &rows)
    }
}

fn batch_of(schema: &SchemaRef, rows: &[&Current]) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().enumerate();
    let columns = columns.map(|(i, field)| array_of(field.data_type(), rows.iter().map(|current| &current.row[i])));
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?)
}
