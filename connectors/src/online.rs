//! The online store on the local disk, for who has no Redis: a fjall database.
//!
//! ```text
//! key    u32 view id, big-endian · the entity key in the engine's encoding
//! value  u64 epoch · u64 counter (both big-endian) · u8 1 with the row after it, 0 for an absent key
//! ```
//!
//! A put is safe from a crash of the process when it returns; what a crash of the machine takes back is put again
//! when the sources are replayed from the last checkpoint.

use crate::fjall_db::{self, key_range};
use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, PersistMode};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{OnlineStore, OnlineValue, Put, PutVersion, SeamError, SeamResult};

/// Keys removed per write by `drop_view`.
const REMOVE_KEYS_MAX: usize = 16_384;

pub struct FjallOnline {
    dir: PathBuf,
    db: Database,
    rows: fjall::Keyspace,
    /// Held from comparing versions to writing.
    writing: Mutex<()>,
}

impl FjallOnline {
    /// Opens the store in `dir`, making it if it is not there.
    pub fn open(dir: &Path) -> SeamResult<FjallOnline> {
        let db = fjall_db::open(dir)?;
        let rows = db.keyspace("online", fjall_db::keyspace_options).map_err(|e| fjall_db::not_done(dir, "open", e))?;
        Ok(FjallOnline { dir: dir.to_path_buf(), db, rows, writing: Mutex::new(()) })
    }

    fn stored(&self, key: &[u8]) -> SeamResult<Option<fjall::UserValue>> {
        self.rows.get(key).map_err(|e| fjall_db::not_done(&self.dir, "read", e))
    }

    fn damaged(&self) -> SeamError {
        SeamError::NotDone(format!("store {} is damaged: a value has no version", self.dir.display()))
    }
}

#[async_trait]
impl OnlineStore for FjallOnline {
    /// What a put has kept is not lost but with the whole directory, and with that so are log and state.
    async fn open_view(&self, _: ObjectId) -> SeamResult<bool> {
        Ok(true)
    }

    async fn filled(&self, _: ObjectId) -> SeamResult<()> {
        Ok(())
    }

    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put> {
        // Within one fjall batch two changes of a key have no order: only the newest one is passed on.
        let mut newest: HashMap<Bytes, OnlineValue> = HashMap::with_capacity(values.len());
        let mut bytes = 0;
        for value in values {
            bytes += value.key.len() + value.row.as_ref().map_or(0, Bytes::len);
            match newest.get(&value.key) {
                Some(other) if other.version >= value.version => {}
                _ => {
                    newest.insert(value.key.clone(), value);
                }
            }
        }
        if newest.is_empty() {
            return Ok(Put::Done);
        }
        fjall_db::check_room(&self.dir, bytes as u64)?;
        let _writing = self.writing.lock();
        let mut write = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), newest.len());
        for value in newest.into_values() {
            let key = store_key(view, &value.key);
            fjall_db::check_key(&key)?;
            if let Some(stored) = self.stored(&key)?
                && decode_version(&stored).ok_or_else(|| self.damaged())? >= value.version
            {
                continue;
            }
            write.insert(&self.rows, key, encode(&value));
        }
        write.commit().map_err(|e| fjall_db::unknown(&self.dir, e))?;
        Ok(Put::Done)
    }

    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        keys.iter()
            .map(|key| {
                let Some(stored) = self.stored(&store_key(view, key))? else { return Ok(None) };
                decode(key, &stored).map(Some).ok_or_else(|| self.damaged())
            })
            .collect()
    }

    /// In several writes; after an error or a crash a part may be left, and repeating the call removes it.
    async fn drop_view(&self, view: ObjectId) -> SeamResult<()> {
        let _writing = self.writing.lock();
        let Some(range) = key_range(&store_key(view, &[]), None) else { return Ok(()) };
        let mut keys = self.rows.range::<Vec<u8>, _>(range).map(|entry| entry.key()).peekable();
        while keys.peek().is_some() {
            let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
            for key in keys.by_ref().take(REMOVE_KEYS_MAX) {
                write.remove(&self.rows, key.map_err(|e| fjall_db::not_done(&self.dir, "read", e))?);
            }
            write.commit().map_err(|e| fjall_db::unknown(&self.dir, e))?;
        }
        Ok(())
    }
}

fn store_key(view: ObjectId, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + key.len());
    bytes.extend_from_slice(&view.0.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

fn encode(value: &OnlineValue) -> Vec<u8> {
    let row = value.row.as_deref().unwrap_or_default();
    let mut bytes = Vec::with_capacity(17 + row.len());
    bytes.extend_from_slice(&value.version.epoch.to_be_bytes());
    bytes.extend_from_slice(&value.version.counter.to_be_bytes());
    bytes.push(u8::from(value.row.is_some()));
    bytes.extend_from_slice(row);
    bytes
}

fn decode_version(bytes: &[u8]) -> Option<PutVersion> {
    let (epoch, rest) = bytes.split_first_chunk::<8>()?;
    let (counter, _) = rest.split_first_chunk::<8>()?;
    Some(PutVersion { epoch: u64::from_be_bytes(*epoch), counter: u64::from_be_bytes(*counter) })
}

fn decode(key: &Bytes, bytes: &[u8]) -> Option<OnlineValue> {
    let row = match bytes.get(16)? {
        0 => None,
        _ => Some(Bytes::copy_from_slice(&bytes[17..])),
    };
    Some(OnlineValue { key: key.clone(), version: decode_version(bytes)?, row })
}
