//! A state store in memory that can fail and lose what no checkpoint has made durable.

use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, ops::Bound};
use tidemark_engine::seam::{Keyspace, SeamError, SeamResult, StateStore, WriteBatch};

/// What becomes of the next checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    NotDone,
    UnknownDone,
    UnknownNotDone,
}

type Entries = BTreeMap<(Keyspace, Vec<u8>), Vec<u8>>;

#[derive(Default)]
pub struct Store {
    visible: Mutex<Entries>,
    durable: Mutex<Entries>,
    fault: Mutex<Fault>,
}

impl Store {
    pub fn set_fault(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// The process ends; a write that was not synced may have reached the disk all the same.
    pub fn crash(&self, unsynced_survives: bool) {
        if !unsynced_survives {
            *self.visible.lock() = self.durable.lock().clone();
        }
    }

    pub fn entries(&self, keyspace: Keyspace) -> usize {
        self.visible.lock().keys().filter(|(of, _)| *of == keyspace).count()
    }

    fn write(&self, batch: WriteBatch) {
        let mut visible = self.visible.lock();
        for key in batch.deletes {
            visible.remove(&key);
        }
        for (keyspace, key, value) in batch.puts {
            visible.insert((keyspace, key), value);
        }
    }
}

#[async_trait]
impl StateStore for Store {
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()> {
        let fault = *self.fault.lock();
        if matches!(fault, Fault::None | Fault::UnknownDone) {
            self.write(batch);
            let visible = self.visible.lock().clone();
            *self.durable.lock() = visible;
        }
        match fault {
            Fault::None => Ok(()),
            Fault::NotDone => Err(SeamError::NotDone("not today".to_string())),
            Fault::UnknownDone | Fault::UnknownNotDone => Err(SeamError::Unknown("no answer".to_string())),
        }
    }

    fn spill(&self, batch: WriteBatch) -> SeamResult<()> {
        self.write(batch);
        Ok(())
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
        Ok(self.visible.lock().get(&(keyspace, key.to_vec())).cloned())
    }

    fn page(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        entries_max: usize,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((keyspace, after.to_vec())),
            _ => Bound::Included((keyspace, prefix.to_vec())),
        };
        let visible = self.visible.lock();
        let entries = visible.range((from, Bound::Unbounded));
        let within = entries.take_while(|((of, key), _)| *of == keyspace && key.starts_with(prefix));
        Ok(within.take(entries_max).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn remove(&self, keyspace: Keyspace, prefix: &[u8]) -> SeamResult<()> {
        let mut visible = self.visible.lock();
        visible.retain(|(of, key), _| *of != keyspace || !key.starts_with(prefix));
        let left = visible.clone();
        drop(visible);
        *self.durable.lock() = left;
        Ok(())
    }
}
