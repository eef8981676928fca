//! Some of a view's keys: found by hash, due by time, and what others have not seen of them yet.

use super::schedule::{NEVER, Schedule};
use crate::key::{KeyState, Walk};
use ahash::RandomState;
use hashbrown::HashTable;
use std::sync::Arc;

/// The encoding of an entity key ([`crate::value::encode_row`]).
pub type Encoded = Arc<[u8]>;

/// The same in every process: nothing may depend on it, and a slow run can be repeated.
const HASH: RandomState = RandomState::with_seeds(0x7469_6465, 0x6d61_726b, 0x6b65_7973, 0x6861_7368);

pub fn hash(encoded: &[u8]) -> u64 {
    HASH.hash_one(encoded)
}

#[derive(Default)]
pub struct Shard {
    index: HashTable<u32>,
    /// By number; `None`: free.
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// When the finished part of a key next changes.
    due: Schedule,
    /// When what the online store shows of a key next changes.
    online_due: Schedule,
    /// Changed since the last checkpoint, and since the last online flush: numbers, once or more.
    dirty: Vec<u32>,
    stale: Vec<u32>,
    /// Keys that are over, of which the state store and the online store are still to be told.
    over_dirty: Vec<Encoded>,
    over_stale: Vec<Encoded>,
}

pub struct Entry {
    hash: u64,
    pub encoded: Encoded,
    pub state: KeyState,
    due_us: i64,
    parked_us: i64,
    online_due_us: i64,
    online_parked_us: i64,
    dirty: bool,
    stale: bool,
}

impl Shard {
    pub fn find(&self, hash: u64, encoded: &[u8]) -> Option<u32> {
        let same = |id: &u32| self.entries[*id as usize].as_ref().is_some_and(|e| *e.encoded == *encoded);
        self.index.find(hash, same).copied()
    }

    pub fn get(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }

    pub fn insert(&mut self, hash: u64, encoded: Encoded, state: KeyState) -> u32 {
        let entry = Entry {
            hash,
            encoded,
            state,
            due_us: NEVER,
            parked_us: NEVER,
            online_due_us: NEVER,
            online_parked_us: NEVER,
            dirty: false,
            stale: false,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = Some(entry);
                id
            }
            None => {
                self.entries.push(Some(entry));
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        self.index.insert_unique(hash, id, |id| entries[*id as usize].as_ref().map_or(0, |e| e.hash));
        id
    }

    /// The key is over.
    pub fn remove(&mut self, id: u32) {
        let Some(entry) = self.entries[id as usize].take() else { return };
        if let Ok(found) = self.index.find_entry(entry.hash, |other| *other == id) {
            found.remove();
        }
        self.free.push(id);
        self.over_dirty.push(entry.encoded.clone());
        self.over_stale.push(entry.encoded);
    }

    /// Due at `at_us`, if that is sooner than what is known.
    pub fn due_sooner(&mut self, id: u32, at_us: i64) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize)
            && at_us < entry.due_us
        {
            entry.due_us = at_us;
            self.due.enter(at_us, id, &mut entry.parked_us);
        }
    }

    /// Enters the key for its next instant.
    pub fn schedule(&mut self, id: u32, walk: &Walk) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            entry.due_us = entry.state.next_instant(walk).unwrap_or(NEVER);
            self.due.enter(entry.due_us, id, &mut entry.parked_us);
        }
    }

    pub fn schedule_online(&mut self, id: u32, walk: &Walk) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            entry.online_due_us = entry.state.next_online_instant(walk).unwrap_or(NEVER);
            self.online_due.enter(entry.online_due_us, id, &mut entry.online_parked_us);
        }
    }

    /// The next key whose finished part changes before `before_us`; it is taken off the schedule.
    pub fn next_due(&mut self, before_us: i64) -> Option<u32> {
        let entries = &self.entries;
        let id = self.due.next(before_us, |id| entries[id as usize].as_ref().map_or(NEVER, |e| e.due_us))?;
        if let Some(entry) = self.get_mut(id) {
            entry.due_us = NEVER;
        }
        Some(id)
    }

    pub fn next_online_due(&mut self, before_us: i64) -> Option<u32> {
        let entries = &self.entries;
        let due = |id: u32| entries[id as usize].as_ref().map_or(NEVER, |e| e.online_due_us);
        let id = self.online_due.next(before_us, due)?;
        if let Some(entry) = self.get_mut(id) {
            entry.online_due_us = NEVER;
        }
        Some(id)
    }

    pub fn earliest_due(&self) -> Option<i64> {
        let entries = &self.entries;
        self.due.first(|id| entries[id as usize].as_ref().map_or(NEVER, |e| e.due_us))
    }

    pub fn mark_dirty(&mut self, id: u32) {
        if let Some(entry) = self.get_mut(id)
            && !std::mem::replace(&mut entry.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    pub fn mark_stale(&mut self, id: u32) {
        if let Some(entry) = self.get_mut(id)
            && !std::mem::replace(&mut entry.stale, true)
        {
            self.stale.push(id);
        }
    }

    /// The keys changed since the last checkpoint, each once, and those that are over.
    pub fn take_dirty(&mut self) -> (Vec<u32>, Vec<Encoded>) {
        let mut ids = std::mem::take(&mut self.dirty);
        ids.retain(|id| self.get_mut(*id).is_some_and(|e| std::mem::take(&mut e.dirty)));
        let over = std::mem::take(&mut self.over_dirty);
        (ids, self.still_over(over))
    }

    /// The keys changed since the last online flush, each once, and those that are over.
    pub fn take_stale(&mut self) -> (Vec<u32>, Vec<Encoded>) {
        let mut ids = std::mem::take(&mut self.stale);
        ids.retain(|id| self.get_mut(*id).is_some_and(|e| std::mem::take(&mut e.stale)));
        let over = std::mem::take(&mut self.over_stale);
        (ids, self.still_over(over))
    }

    /// A key may have begun again meanwhile; then it is among the changed ones.
    fn still_over(&self, mut over: Vec<Encoded>) -> Vec<Encoded> {
        over.sort_unstable();
        over.dedup();
        over.retain(|encoded| self.find(hash(encoded), encoded).is_none());
        over
    }

    /// Tells a store again that a key is over.
    pub fn still_dirty(&mut self, encoded: Encoded) {
        match self.find(hash(&encoded), &encoded) {
            Some(id) => self.mark_dirty(id),
            None => self.over_dirty.push(encoded),
        }
    }

    pub fn still_stale(&mut self, encoded: Encoded) {
        match self.find(hash(&encoded), &encoded) {
            Some(id) => self.mark_stale(id),
            None => self.over_stale.push(encoded),
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().flatten()
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }
}
