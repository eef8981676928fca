//! History in memory. It minds what a history is: what is below a published frontier stays as it is, no step comes twice, and the
//! frontier does not go back.

use super::faults::{Faults, Kind, Part};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::{catalog::TableProvider, datasource::MemTable};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    seam::{CommitTag, HistoryStore, HistoryTable, SeamError, SeamResult},
    value::{Value, encode_row, values_of},
};

struct Stored {
    view: ObjectId,
    steps: Vec<RecordBatch>,
    tag: Option<CommitTag>,
    /// Key and instant of every step.
    known: BTreeSet<(Vec<u8>, i64)>,
}

pub struct SimHistory {
    faults: Arc<Faults>,
    tables: Mutex<BTreeMap<String, Stored>>,
}

fn missing(name: &str) -> SeamError {
    SeamError::NotDone(format!("history table \"{name}\" does not exist"))
}

impl SimHistory {
    pub fn new(faults: Arc<Faults>) -> SimHistory {
        SimHistory { faults, tables: Mutex::default() }
    }

    /// All steps of a table, and the frontier that was published with the last of them.
    pub fn steps(&self, name: &str) -> (Vec<RecordBatch>, i64) {
        let tables = self.tables.lock();
        let Some(stored) = tables.get(name) else { return (vec![], i64::MIN) };
        (stored.steps.clone(), stored.tag.as_ref().map_or(i64::MIN, |tag| tag.frontier_us))
    }

    pub fn names(&self) -> Vec<String> {
        self.tables.lock().keys().cloned().collect()
    }
}

impl Stored {
    fn of(view: ObjectId) -> Stored {
        Stored { view, steps: vec![], tag: None, known: BTreeSet::new() }
    }

    fn append(&mut self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()> {
        if self.view != table.view {
            return Err(SeamError::NotDone(format!("history table \"{}\" belongs to another view", table.name)));
        }
        if let Some(last) = &self.tag {
            if last.writer_epoch > tag.writer_epoch || last.sequence >= tag.sequence {
                return Err(SeamError::NotDone("another commit was made before".to_string()));
            }
            assert!(tag.frontier_us >= last.frontier_us, "the frontier of {} goes back", table.name);
        }
        let before_us = self.tag.as_ref().map_or(i64::MIN, |last| last.frontier_us);
        for batch in &steps {
            for (key, at_us) in instants(table, batch) {
                let name = &table.name;
                assert!(at_us >= before_us, "history of {name} changes at {at_us}, below its frontier {before_us}");
                assert!(at_us < tag.frontier_us, "a step of {name} at {at_us} is not below its frontier");
                assert!(self.known.insert((key, at_us)), "a step of {name} at {at_us} comes twice");
            }
        }
        self.steps.extend(steps);
        self.tag = Some(tag.clone());
        Ok(())
    }
}

fn instants(table: &HistoryTable, batch: &RecordBatch) -> Vec<(Vec<u8>, i64)> {
    let values = |column: usize| values_of(batch.column(column)).expect("a type that is stored");
    let keys: Vec<Vec<Value>> = table.key.iter().map(|column| values(*column)).collect();
    let key = |row: usize| encode_row(&keys.iter().map(|column| column[row].clone()).collect::<Vec<_>>());
    let of_row = |(row, time)| match time {
        Value::Int(at_us) => (key(row), at_us),
        other => panic!("an instant is {other:?}"),
    };
    values(table.time).into_iter().enumerate().map(of_row).collect()
}

#[async_trait]
impl HistoryStore for SimHistory {
    async fn create(&self, table: &HistoryTable) -> SeamResult<()> {
        let create = || {
            let mut tables = self.tables.lock();
            if tables.get(&table.name).is_some_and(|stored| stored.view == table.view) {
                return Ok(());
            }
            tables.remove(&table.name);
            let other = tables.iter().find(|(_, stored)| stored.view == table.view).map(|(name, _)| name.clone());
            let stored = other.and_then(|other| tables.remove(&other));
            tables.insert(table.name.clone(), stored.unwrap_or_else(|| Stored::of(table.view)));
            Ok(())
        };
        self.faults.call(Part::History, Kind::Write, create).await
    }

    async fn drop(&self, name: &str) -> SeamResult<()> {
        let drop = || {
            self.tables.lock().remove(name);
            Ok(())
        };
        self.faults.call(Part::History, Kind::Write, drop).await
    }

    async fn retain(&self, views: &BTreeSet<ObjectId>) -> SeamResult<()> {
        let retain = || {
            self.tables.lock().retain(|_, stored| views.contains(&stored.view));
            Ok(())
        };
        self.faults.call(Part::History, Kind::Write, retain).await
    }

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()> {
        let rename = || {
            let mut tables = self.tables.lock();
            let stored = tables.remove(from).ok_or_else(|| missing(from))?;
            tables.insert(to.to_string(), stored);
            Ok(())
        };
        self.faults.call(Part::History, Kind::Write, rename).await
    }

    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()> {
        let append = || {
            let mut tables = self.tables.lock();
            tables.get_mut(&table.name).ok_or_else(|| missing(&table.name))?.append(table, steps, tag)
        };
        self.faults.call(Part::History, Kind::Write, append).await
    }

    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>> {
        let tag = || Ok(self.tables.lock().get(name).ok_or_else(|| missing(name))?.tag.clone());
        self.faults.call(Part::History, Kind::Read, tag).await
    }

    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>> {
        let (steps, _) = self.steps(&table.name);
        let provider = MemTable::try_new(table.schema.clone(), vec![steps]).map_err(SeamError::not_done)?;
        Ok(Arc::new(provider))
    }
}
