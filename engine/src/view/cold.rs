//! Keys that are not in memory: the state store has them, and an index of when each is due.
//!
//! ```text
//!   Keys      view · key               the key's state as of the last checkpoint
//!   Spilled   view · generation · key  its state since then, where it had to leave memory between two checkpoints
//!   Due       view · instant · key     when the key next changes by itself; entries that are not true any more are passed over
//! ```
//!
//! A *generation* is what changes between two checkpoints. The current one's records are worth nothing after a crash; those
//! of the one before belong to the checkpoint under way, whose commit makes them count; then they move to `Keys`. So a
//! checkpoint is one small atomic write however many keys it is about, and nothing has to be listed at a start.

use super::Memory;
use crate::seam::{Keyspace, SeamError, SeamResult, StateStore, WriteBatch};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
};
use tidemark_catalog::ObjectId;

/// Entries of the store that are read or written at a time.
const PAGE: usize = 1024;

/// Entries of the index that are read at a time: between two batches few keys are due.
const DUE_PAGE: usize = 64;

pub struct Cold {
    view: [u8; 4],
    store: Arc<dyn StateStore>,
    pub memory: Arc<Memory>,
    /// Whether the store may have keys that memory has not.
    any: AtomicBool,
    /// Records in `Spilled`, or more; while there are none nobody looks there.
    spilled: AtomicI64,
    /// Generation and key of records in `Spilled` that may be there and are not the latest: the store would not, or could not say
    /// whether it did. The checkpoint of their generation removes them in the same write.
    left: Mutex<BTreeSet<(u64, Vec<u8>)>>,
    /// What the index says of instants before has been seen to: by history, and by the online store.
    pub(super) due: Watch,
    pub(super) online: Watch,
    /// The index has nothing before this, but for what was entered late; that goes at the next start.
    forgotten_us: AtomicI64,
    /// Keys have left memory before the online store had their values: it is to be filled from all keys once.
    pub(super) behind: AtomicBool,
    /// It is being filled.
    pub(super) catching_up: AtomicBool,
    /// How many put all keys again right now (`REFRESH ONLINE STORE`).
    pub(super) refreshing: AtomicUsize,
    /// Keys that it has got since that last began, nearly.
    pub(super) filled: AtomicU64,
}

/// How far one reader of the index of dues is.
pub struct Watch {
    /// Where it goes on.
    pub upto_us: AtomicI64,
    /// No cold key is due before this: until then there is nothing to read.
    next_us: AtomicI64,
}

impl Watch {
    pub fn new() -> Watch {
        Watch { upto_us: AtomicI64::new(i64::MIN), next_us: AtomicI64::new(i64::MIN) }
    }

    /// A key that is due at `at_us` has left memory.
    pub fn note(&self, at_us: i64) {
        self.next_us.fetch_min(at_us, Ordering::AcqRel);
    }

    pub fn waits_before(&self, before_us: i64) -> bool {
        self.next_us.load(Ordering::Acquire) < before_us
    }

    /// Whether there may be keys due before `before_us`; if so the caller reads all of them.
    pub fn begins(&self, before_us: i64) -> bool {
        let begins = self.waits_before(before_us);
        if begins {
            // Keys that leave memory meanwhile are noted beside.
            self.next_us.store(i64::MAX, Ordering::Release);
        }
        begins
    }
}

/// The keys that the store names. They may be in memory by now, or be over.
pub struct ColdKeys {
    /// Still to be walked through, the next one last.
    spaces: Vec<(Keyspace, Vec<u8>)>,
    after: Option<Vec<u8>>,
    /// The latest generation of which what is spilled is among them.
    upto: u64,
}

/// Bytes of an entry of the index before the key.
const VIEW_AND_INSTANT: usize = 12;

fn due_of(entry: &[u8]) -> i64 {
    let ordered = entry.get(4..VIEW_AND_INSTANT).and_then(|bytes| bytes.try_into().ok());
    (ordered.map_or(u64::MAX, u64::from_be_bytes) ^ (1 << 63)) as i64
}

impl Cold {
    pub fn new(view: ObjectId, store: Arc<dyn StateStore>, memory: Arc<Memory>) -> Cold {
        Cold {
            view: view.0.to_be_bytes(),
            store,
            memory,
            any: AtomicBool::new(false),
            spilled: AtomicI64::new(0),
            left: Mutex::default(),
            due: Watch::new(),
            online: Watch::new(),
            forgotten_us: AtomicI64::new(i64::MIN),
            behind: AtomicBool::new(false),
            catching_up: AtomicBool::new(false),
            refreshing: AtomicUsize::new(0),
            filled: AtomicU64::new(0),
        }
    }

    pub fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(super) fn note_any(&self) {
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether the online store may not have the value of a key that comes into memory.
    pub(super) fn may_be_behind(&self) -> bool {
        let is_filling = self.behind.load(Ordering::Acquire) || self.catching_up.load(Ordering::Acquire);
        is_filling || self.refreshing.load(Ordering::Acquire) > 0
    }

    /// The online store is to be filled from all keys.
    pub(super) fn fall_behind(&self) {
        self.filled.store(0, Ordering::Relaxed);
        self.behind.store(true, Ordering::Release);
    }

    pub fn state_key(&self, key: &[u8]) -> Vec<u8> {
        [&self.view[..], key].concat()
    }

    fn generation_prefix(&self, generation: u64) -> Vec<u8> {
        [&self.view[..], &generation.to_be_bytes()].concat()
    }

    fn spilled_key(&self, generation: u64, key: &[u8]) -> Vec<u8> {
        [&self.view[..], &generation.to_be_bytes(), key].concat()
    }

    /// Ordered by view, then instant.
    pub fn due_key(&self, at_us: i64, key: &[u8]) -> Vec<u8> {
        let ordered = (at_us as u64) ^ (1 << 63);
        [&self.view[..], &ordered.to_be_bytes(), key].concat()
    }

    /// The state of a key, and the generation that it belongs to; 0: it is in a finished checkpoint.
    pub(super) fn read(&self, key: &[u8], generation: u64) -> SeamResult<Option<(Vec<u8>, u64)>> {
        if self.spilled.load(Ordering::Acquire) > 0 {
            for of in [generation, generation.saturating_sub(1)] {
                if let Some(bytes) = self.store.get(Keyspace::Spilled, &self.spilled_key(of, key))? {
                    return Ok(Some((bytes, of)));
                }
            }
        }
        Ok(self.store.get(Keyspace::Keys, &self.state_key(key))?.map(|bytes| (bytes, 0)))
    }

    /// Writes what leaves memory: `(key, state, due)`.
    pub(super) fn spill(&self, generation: u64, keys: Vec<(&[u8], Vec<u8>, Option<i64>)>) -> SeamResult<()> {
        let mut batch = WriteBatch::default();
        let count = keys.len() as i64;
        let records: Vec<(u64, Vec<u8>)> = keys.iter().map(|(key, ..)| (generation, key.to_vec())).collect();
        for (key, bytes, due_us) in keys {
            batch.puts.extend(due_us.map(|at_us| (Keyspace::Due, self.due_key(at_us, key), vec![])));
            batch.puts.push((Keyspace::Spilled, self.spilled_key(generation, key), bytes));
        }
        self.spilled.fetch_add(count, Ordering::Release);
        let written = self.store.spill(batch);
        let mut left = self.left.lock();
        match &written {
            Ok(()) => left.retain(|record| !records.contains(record)),
            Err(SeamError::Unknown(_)) => left.extend(records),
            Err(_) => {
                self.spilled.fetch_sub(count, Ordering::Release);
            }
        }
        written
    }

    /// Notes one more instant at which a key is to be looked at for the online store.
    pub(super) fn expect(&self, at_us: i64, key: &[u8]) -> SeamResult<()> {
        let puts = vec![(Keyspace::Due, self.due_key(at_us, key), vec![])];
        self.store.spill(WriteBatch { puts, deletes: vec![] })?;
        self.online.note(at_us);
        Ok(())
    }

    /// The key is in memory again, and the record of the current generation is not the latest for long. Where it cannot be removed
    /// now, the checkpoint does it: a key that has been read must not be lost.
    pub(super) fn unspill(&self, generation: u64, key: &[u8]) {
        let deletes = vec![(Keyspace::Spilled, self.spilled_key(generation, key))];
        match self.store.spill(WriteBatch { puts: vec![], deletes }) {
            Ok(()) => {
                self.spilled.fetch_sub(1, Ordering::Release);
            }
            Err(_) => {
                self.left.lock().insert((generation, key.to_vec()));
            }
        }
    }

    /// Removes with the checkpoint of a generation what is left of records that are not the latest.
    pub(super) fn remove_left(&self, generation: u64, write: &mut WriteBatch) {
        let mut left = self.left.lock();
        // Of a checkpoint that has failed nothing is left: its records have been gone through.
        left.retain(|(of, _)| *of >= generation);
        let of_checkpoint = left.iter().filter(|(of, _)| *of == generation);
        write.deletes.extend(of_checkpoint.map(|(of, key)| (Keyspace::Spilled, self.spilled_key(*of, key))));
    }

    /// Keys that may be due before `before_us`: some of them, and `after` then stands behind them; empty: there are no more, and
    /// `watch` knows when the next is due.
    pub(super) fn due_keys(&self, watch: &Watch, after: &mut Vec<u8>, before_us: i64) -> SeamResult<Vec<Vec<u8>>> {
        let page = self.store.page(Keyspace::Due, &self.view, Some(after), DUE_PAGE)?;
        let mut keys = vec![];
        for (entry, _) in page {
            let at_us = due_of(&entry);
            if at_us >= before_us {
                if keys.is_empty() {
                    watch.note(at_us);
                }
                break;
            }
            keys.push(entry[VIEW_AND_INSTANT..].to_vec());
            *after = entry;
        }
        Ok(keys)
    }

    /// When the next cold key may be due.
    pub(super) fn earliest_due(&self) -> Option<i64> {
        let from = self.due_key(self.due.upto_us.load(Ordering::Relaxed), &[]);
        let page = self.store.page(Keyspace::Due, &self.view, Some(&from), 1).ok()?;
        page.first().map(|(entry, _)| due_of(entry))
    }

    /// All keys that the store has, those that are only spilled first.
    pub(super) fn keys(&self, generation: u64) -> ColdKeys {
        let mut spaces = vec![(Keyspace::Keys, self.view.to_vec())];
        if self.spilled.load(Ordering::Acquire) > 0 {
            let of = |generation| (Keyspace::Spilled, self.generation_prefix(generation));
            spaces.extend([generation, generation.saturating_sub(1)].map(of));
        }
        ColdKeys { spaces, after: None, upto: generation }
    }

    /// The next page of them; empty: there are no more. `generation` says which goes on just now.
    ///
    /// Checkpoints may end meanwhile. Records move towards what is walked last, so none is passed over: those of one that
    /// fails to the generation after it, those of one that is finished to `Keys`.
    pub(super) fn next_keys(&self, keys: &mut ColdKeys, generation: impl Fn() -> u64) -> SeamResult<Vec<Vec<u8>>> {
        while let Some((space, prefix)) = keys.spaces.last() {
            if *space == Keyspace::Keys && keys.after.is_none() && keys.upto < generation() {
                keys.upto += 1;
                let prefix = self.generation_prefix(keys.upto);
                keys.spaces.push((Keyspace::Spilled, prefix));
                continue;
            }
            let page = self.store.page(*space, prefix, keys.after.as_deref(), PAGE)?;
            if let Some((last, _)) = page.last() {
                keys.after = Some(last.clone());
                let skip = prefix.len();
                return Ok(page.into_iter().map(|(key, _)| key[skip..].to_vec()).collect());
            }
            keys.spaces.pop();
            keys.after = None;
        }
        Ok(vec![])
    }

    /// The records that belong to a generation, which gets no more of them: the page of them behind `after`, which then stands
    /// behind the page. Nobody begins anew where records were removed: the store would pass over each of those again.
    pub(super) fn spilled_page(
        &self,
        generation: u64,
        after: &mut Option<Vec<u8>>,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>> {
        if self.spilled.load(Ordering::Acquire) <= 0 {
            return Ok(vec![]);
        }
        let prefix = self.generation_prefix(generation);
        let page = self.store.page(Keyspace::Spilled, &prefix, after.as_deref(), PAGE)?;
        if let Some((last, _)) = page.last() {
            *after = Some(last.clone());
        }
        Ok(page.into_iter().map(|(key, bytes)| (key[prefix.len()..].to_vec(), bytes)).collect())
    }

    /// The checkpoint that a generation belongs to is finished: its records are the keys' states now. Moves a page of them, and
    /// says whether there was one.
    pub(super) fn settle_page(&self, generation: u64, after: &mut Option<Vec<u8>>) -> SeamResult<bool> {
        let page = self.spilled_page(generation, after)?;
        if page.is_empty() {
            return Ok(false);
        }
        let mut batch = WriteBatch::default();
        let count = page.len() as i64;
        for (key, bytes) in page {
            batch.deletes.push((Keyspace::Spilled, self.spilled_key(generation, &key)));
            batch.puts.push((Keyspace::Keys, self.state_key(&key), bytes));
        }
        self.store.spill(batch)?;
        self.spilled.fetch_sub(count, Ordering::Release);
        Ok(true)
    }

    /// All of its pages.
    pub(super) fn settle(&self, generation: u64) -> SeamResult<()> {
        let mut after = None;
        while self.settle_page(generation, &mut after)? {}
        Ok(())
    }

    /// Takes a record of one generation over into another, or only away.
    pub(super) fn respill(&self, from: u64, to: Option<u64>, key: &[u8], bytes: Vec<u8>) -> SeamResult<()> {
        let mut batch = WriteBatch::default();
        batch.deletes.push((Keyspace::Spilled, self.spilled_key(from, key)));
        batch.puts.extend(to.map(|to| (Keyspace::Spilled, self.spilled_key(to, key), bytes)));
        self.store.spill(batch)?;
        if to.is_none() {
            self.spilled.fetch_sub(1, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn has_spilled(&self, generation: u64, key: &[u8]) -> SeamResult<bool> {
        Ok(self.store.get(Keyspace::Spilled, &self.spilled_key(generation, key))?.is_some())
    }

    /// Everything below the frontier of a finished checkpoint has been seen to.
    pub(super) fn forget_due(&self, before_us: i64) -> SeamResult<()> {
        let end = self.due_key(before_us, &[]);
        // Not from the beginning: what has been removed there the store would pass over every time.
        let mut after = Some(self.forgotten_us.load(Ordering::Relaxed))
            .filter(|forgotten_us| *forgotten_us > i64::MIN)
            .map(|forgotten_us| self.due_key(forgotten_us, &[]));
        loop {
            let page = self.store.page(Keyspace::Due, &self.view, after.as_deref(), PAGE)?;
            let full = page.len() == PAGE;
            let passed: Vec<_> = page.into_iter().map(|(key, _)| key).take_while(|key| *key < end).collect();
            let more = full && passed.len() == PAGE;
            after = passed.last().cloned();
            if !passed.is_empty() {
                let deletes = passed.into_iter().map(|key| (Keyspace::Due, key)).collect();
                self.store.spill(WriteBatch { puts: vec![], deletes })?;
            }
            if !more {
                self.forgotten_us.fetch_max(before_us, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    /// After a crash: the records of generations that no checkpoint has made count are of no use. Those of the last finished one
    /// may not have moved yet.
    pub(super) async fn recover(&self, saved: u64) -> SeamResult<()> {
        let ended = self.generation_prefix(saved.saturating_add(1));
        while let Some((key, _)) = self.store.page(Keyspace::Spilled, &self.view, Some(&ended), 1)?.first() {
            self.store.remove(Keyspace::Spilled, &key[..ended.len()]).await?;
        }
        let prefix = self.generation_prefix(saved);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.page(Keyspace::Spilled, &prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            self.spilled.fetch_add(page.len() as i64, Ordering::Release);
        }
    }
}
