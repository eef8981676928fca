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
    /// Written, and not durable yet; oldest first.
    unsynced: Mutex<Vec<WriteBatch>>,
    fault: Mutex<Fault>,
}

impl Store {
    pub fn set_fault(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// The process ends; a write that was not synced may have reached the disk all the same.
    pub fn crash(&self, unsynced_survives: bool) {
        self.crash_keeping(if unsynced_survives { usize::MAX } else { 0 });
    }

    /// The same, and so many of the writes that were not synced have reached the disk, the oldest ones.
    pub fn crash_keeping(&self, writes: usize) {
        self.unsynced.lock().truncate(writes);
        self.sync();
        *self.visible.lock() = self.durable.lock().clone();
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.lock().len()
    }

    pub fn entries(&self, keyspace: Keyspace) -> usize {
        self.visible.lock().keys().filter(|(of, _)| *of == keyspace).count()
    }

    fn write(&self, batch: WriteBatch) {
        apply(&mut self.visible.lock(), batch.clone());
        self.unsynced.lock().push(batch);
    }

    fn sync(&self) {
        let mut durable = self.durable.lock();
        self.unsynced.lock().drain(..).for_each(|batch| apply(&mut durable, batch));
    }
}

fn apply(entries: &mut Entries, batch: WriteBatch) {
    for key in batch.deletes {
        entries.remove(&key);
    }
    for (keyspace, key, value) in batch.puts {
        entries.insert((keyspace, key), value);
    }
}

#[async_trait]
impl StateStore for Store {
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()> {
        let fault = *self.fault.lock();
        if matches!(fault, Fault::None | Fault::UnknownDone) {
            self.write(batch);
            self.sync();
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
        let gone = |(of, key): &&(Keyspace, Vec<u8>)| *of == keyspace && key.starts_with(prefix);
        let deletes = self.visible.lock().keys().filter(gone).cloned().collect();
        self.write(WriteBatch { puts: vec![], deletes });
        self.sync();
        Ok(())
    }
}
