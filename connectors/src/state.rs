//! Operator state on the local disk: a fjall database with one keyspace per kind of thing.

use crate::fjall_db::{self, key_range};
use async_trait::async_trait;
use fjall::{Database, PersistMode};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tidemark_engine::seam::{Keyspace, SeamResult, StateStore, WriteBatch};

/// Keys removed per write by `remove`: a batch of some megabytes, not the whole of a view at once.
const REMOVE_KEYS_MAX: usize = 16_384;

pub struct FjallState {
    dir: PathBuf,
    db: Database,
    keyspaces: [fjall::Keyspace; Keyspace::ALL.len()],
}

impl FjallState {
    /// Opens the store in `dir`, making it if it is not there.
    pub fn open(dir: &Path) -> SeamResult<FjallState> {
        let db = fjall_db::open(dir)?;
        let open = |keyspace: Keyspace| {
            db.keyspace(keyspace.name(), fjall_db::keyspace_options).map_err(|e| fjall_db::not_done(dir, "open", e))
        };
        let [a, b, c, d, e, f] = Keyspace::ALL.map(open);
        Ok(FjallState { dir: dir.to_path_buf(), keyspaces: [a?, b?, c?, d?, e?, f?], db })
    }

    fn keyspace(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        // The order of `Keyspace::ALL`, which is the order of the enum.
        &self.keyspaces[keyspace as usize]
    }

    fn commit(&self, batch: fjall::OwnedWriteBatch) -> SeamResult<()> {
        batch.durability(Some(PersistMode::SyncAll)).commit().map_err(|e| fjall_db::unknown(&self.dir, e))
    }

    /// The changes as one write of fjall's; `None`: there are none.
    fn prepare(&self, batch: WriteBatch) -> SeamResult<Option<fjall::OwnedWriteBatch>> {
        // Within one fjall batch two changes of a key have no order: only the last one is passed on.
        let mut changes = HashMap::with_capacity(batch.puts.len() + batch.deletes.len());
        let mut bytes = 0;
        for (keyspace, key) in batch.deletes {
            fjall_db::check_key(&key)?;
            bytes += key.len();
            changes.insert((keyspace, key), None);
        }
        for (keyspace, key, value) in batch.puts {
            fjall_db::check_key(&key)?;
            bytes += key.len() + value.len();
            changes.insert((keyspace, key), Some(value));
        }
        if changes.is_empty() {
            return Ok(None);
        }
        fjall_db::check_room(&self.dir, bytes as u64)?;
        let mut write = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), changes.len());
        for ((keyspace, key), value) in changes {
            match value {
                Some(value) => write.insert(self.keyspace(keyspace), key, value),
                None => write.remove(self.keyspace(keyspace), key),
            }
        }
        Ok(Some(write))
    }
}

#[async_trait]
impl StateStore for FjallState {
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()> {
        match self.prepare(batch)? {
            Some(write) => self.commit(write),
            None => Ok(()),
        }
    }

    /// Without waiting for the disk: one journal has all writes in order, so the next checkpoint's sync is theirs too.
    fn spill(&self, batch: WriteBatch) -> SeamResult<()> {
        match self.prepare(batch)? {
            Some(write) => write.commit().map_err(|e| fjall_db::unknown(&self.dir, e)),
            None => Ok(()),
        }
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
        let found = self.keyspace(keyspace).get(key).map_err(|e| fjall_db::not_done(&self.dir, "read", e))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn page(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        entries_max: usize,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(range) = key_range(prefix, after) else { return Ok(vec![]) };
        self.keyspace(keyspace)
            .range::<Vec<u8>, _>(range)
            .take(entries_max)
            .map(|entry| {
                let (key, value) = entry.into_inner().map_err(|e| fjall_db::not_done(&self.dir, "read", e))?;
                Ok((key.to_vec(), value.to_vec()))
            })
            .collect()
    }

    /// In several writes; after an error or a crash a part may be left, and repeating the call removes it.
    async fn remove(&self, keyspace: Keyspace, prefix: &[u8]) -> SeamResult<()> {
        let keyspace = self.keyspace(keyspace);
        let Some(range) = key_range(prefix, None) else { return Ok(()) };
        let mut keys = keyspace.range::<Vec<u8>, _>(range).map(|entry| entry.key()).peekable();
        while keys.peek().is_some() {
            let mut write = self.db.batch();
            for key in keys.by_ref().take(REMOVE_KEYS_MAX) {
                write.remove(keyspace, key.map_err(|e| fjall_db::not_done(&self.dir, "read", e))?);
            }
            self.commit(write)?;
        }
        Ok(())
    }
}
