//! Some of a view's keys: found by hash, due by time, and what others have not seen of them yet. Also which of them may leave
//! memory, and what a checkpoint under way has still to take.

use super::schedule::{Dues, NEVER, Schedule};
use crate::key::{KeyState, NewEvent, Walk};
use ahash::RandomState;
use hashbrown::HashTable;
use std::{collections::HashMap, sync::Arc};

/// The encoding of an entity key ([`crate::value::encode_row`]).
pub type Encoded = Arc<[u8]>;

/// The same in every process: nothing may depend on it, and a slow run can be repeated.
const HASH: RandomState = RandomState::with_seeds(0x7469_6465, 0x6d61_726b, 0x6b65_7973, 0x6861_7368);

pub fn hash(encoded: &[u8]) -> u64 {
    HASH.hash_one(encoded)
}

/// A key's place in the index. With some of its hash, so that a search looks at no entry but, nearly always, the one that it is for.
struct Slot {
    id: u32,
    hash: u32,
}

impl Slot {
    /// The bits that the table itself hardly uses.
    fn part(hash: u64) -> u32 {
        (hash >> 24) as u32
    }
}

#[derive(Default)]
pub struct Shard {
    index: HashTable<Slot>,
    /// By number; `None`: free.
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// When the finished part of a key next changes.
    due: Schedule,
    /// When what the online store shows of a key next changes.
    online_due: Schedule,
    /// What changes now belongs to this generation; the one before may be on its way to the state store, by `frozen`.
    pub generation: u64,
    /// The latest generation that is in the state store.
    pub saved: u64,
    /// Changed in this generation: numbers, once or more.
    dirty: Vec<u32>,
    frozen: Frozen,
    /// Changed since the last online flush: numbers, once or more.
    stale: Vec<u32>,
    /// Keys that are over, of which the state store still has something, with the generation in which they ended.
    over: HashMap<Encoded, u64, RandomState>,
    /// Keys that are over, of which the online store is still to be told.
    over_stale: Vec<Encoded>,
    in_flight: InFlight,
    /// Where the search for keys that may leave memory goes on.
    hand: usize,
    /// Bytes that the keys take, and by how many more than `Memory` has been told.
    weight: i64,
    grown: i64,
}

/// What a checkpoint has still to take: keys as they were when it began.
#[derive(Default)]
struct Frozen {
    ids: Vec<u32>,
    /// How many of `ids` are done.
    done: usize,
    /// Those that have changed since, as they were.
    before: Vec<SavedKey>,
    /// The keys that were over; some may have begun again since.
    over: Vec<Encoded>,
}

/// What a flush has taken and the online store may not have yet.
#[derive(Default)]
struct InFlight {
    changed: Vec<Encoded>,
    /// Keys that are over.
    over: Vec<Encoded>,
}

/// A key on its way to the state store.
pub struct SavedKey {
    pub key: Encoded,
    pub state: Result<Vec<u8>, postcard::Error>,
    /// When it is next due.
    pub due_us: Option<i64>,
}

pub struct Entry {
    hash: u64,
    pub encoded: Encoded,
    pub state: KeyState,
    due_us: i64,
    parked_us: i64,
    online_due_us: i64,
    online_parked_us: i64,
    /// The generation in which it last changed.
    changed: u64,
    /// The checkpoint of that generation has it already.
    taken: bool,
    stale: bool,
    /// Asked for since the search for keys that may leave memory last came by.
    recent: bool,
    /// As last weighed.
    bytes: u32,
}

impl Shard {
    /// Generations begin with 1: what is of 0 was there before.
    pub fn new() -> Shard {
        Shard { generation: 1, ..Shard::default() }
    }

    pub fn find(&self, hash: u64, encoded: &[u8]) -> Option<u32> {
        let part = Slot::part(hash);
        let is_of = |id: u32| self.entries[id as usize].as_ref().is_some_and(|e| *e.encoded == *encoded);
        Some(self.index.find(hash, |slot| slot.hash == part && is_of(slot.id))?.id)
    }

    /// The entry that [`Shard::find`] will most likely come to, without a look at it.
    pub fn guess(&self, hash: u64) -> Option<u32> {
        let part = Slot::part(hash);
        Some(self.index.find(hash, |slot| slot.hash == part)?.id)
    }

    pub fn get(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }

    /// The entry, for somebody who looks it up.
    pub fn asked_for(&mut self, id: u32) -> Option<&mut Entry> {
        let entry = self.get_mut(id)?;
        entry.recent = true;
        Some(entry)
    }

    /// A key comes into memory: a new one, or one that has been read from the store and has last changed in `changed`.
    pub fn insert(&mut self, hash: u64, encoded: Encoded, state: KeyState, changed: u64) -> u32 {
        self.over.remove(&encoded);
        let entry = Entry {
            hash,
            encoded,
            state,
            due_us: NEVER,
            parked_us: NEVER,
            online_due_us: NEVER,
            online_parked_us: NEVER,
            changed,
            // Read from among what is spilled of it.
            taken: changed < self.generation,
            stale: false,
            recent: true,
            bytes: 0,
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
        if changed == self.generation {
            self.dirty.push(id);
        }
        let entries = &self.entries;
        let slot = Slot { id, hash: Slot::part(hash) };
        self.index.insert_unique(hash, slot, |slot| entries[slot.id as usize].as_ref().map_or(0, |e| e.hash));
        id
    }

    /// The entry, to be changed. A checkpoint that has not come to it gets it as it was.
    pub fn change(&mut self, id: u32, walk: &Walk) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id as usize)?.as_mut()?;
        entry.recent = true;
        if entry.changed < self.generation {
            if entry.changed > self.saved && !entry.taken {
                self.frozen.before.push(entry.saved_key(walk));
            }
            entry.changed = self.generation;
            entry.taken = false;
            self.dirty.push(id);
        }
        Some(entry)
    }

    /// The key is over.
    pub fn remove(&mut self, id: u32, walk: &Walk) {
        self.change(id, walk);
        let Some(entry) = self.take(id) else { return };
        self.over.insert(entry.encoded.clone(), self.generation);
        self.over_stale.push(entry.encoded);
    }

    /// Takes a key out of memory.
    fn take(&mut self, id: u32) -> Option<Entry> {
        let entry = self.entries.get_mut(id as usize)?.take()?;
        if let Ok(found) = self.index.find_entry(entry.hash, |slot| slot.id == id) {
            found.remove();
        }
        self.free.push(id);
        self.grow(-i64::from(entry.bytes));
        Some(entry)
    }

    /// Whether the key is over, whatever the state store still has of it.
    pub fn is_over(&self, encoded: &[u8]) -> bool {
        self.over.contains_key(encoded)
    }

    /// Puts an event into the ring of a key; `false`: it lies below the frontier. Weighs by how much the ring has grown: the
    /// rest of the key is not looked at.
    pub fn insert_event(&mut self, id: u32, walk: &Walk, event: &NewEvent) -> bool {
        let Some(entry) = self.change(id, walk) else { return false };
        let before = entry.state.events_memory();
        let is_in = entry.state.insert(walk, event);
        let bytes = (u64::from(entry.bytes) + entry.state.events_memory() as u64).saturating_sub(before as u64);
        let more = entry.set_bytes(bytes);
        self.grow(more);
        is_in
    }

    /// Weighs a key after a change.
    pub fn weigh(&mut self, id: u32) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            // The key twice: as values and encoded.
            let bytes = size_of::<Entry>() + 2 * entry.encoded.len() + entry.state.memory();
            let more = entry.set_bytes(bytes as u64);
            self.grow(more);
        }
    }

    /// What its keys take, bytes.
    pub fn bytes(&self) -> u64 {
        self.weight.max(0).unsigned_abs()
    }

    /// As much of it as `Memory` has been told.
    pub fn accounted(&self) -> u64 {
        (self.weight - self.grown).max(0).unsigned_abs()
    }

    fn grow(&mut self, bytes: i64) {
        self.weight += bytes;
        self.grown += bytes;
    }

    /// What has been weighed since the last call, bytes.
    pub fn take_grown(&mut self) -> i64 {
        std::mem::take(&mut self.grown)
    }

    /// The changes from here on belong to the next generation; what has changed before is for the checkpoint to take. Also
    /// which keys the online store has not seen yet, and which it does not know to be over; what is on its way there among
    /// them, for after a crash nobody knows whether it has arrived.
    pub fn freeze(&mut self) -> (Vec<Encoded>, Vec<Encoded>) {
        let over = self.over.keys().cloned().collect();
        self.frozen = Frozen { ids: std::mem::take(&mut self.dirty), done: 0, before: vec![], over };
        self.generation += 1;
        let stale = self.stale.iter().filter_map(|id| self.get(*id)).filter(|entry| entry.stale);
        let stale = stale.map(|entry| &entry.encoded).chain(&self.in_flight.changed).cloned().collect();
        (stale, self.over_stale.iter().chain(&self.in_flight.over).cloned().collect())
    }

    /// Some of the keys that a checkpoint has still to take, as they were when it began; empty: it has all.
    pub fn take_frozen(&mut self, walk: &Walk, most: usize) -> Vec<SavedKey> {
        let mut taken = std::mem::take(&mut self.frozen.before);
        let of = self.generation.saturating_sub(1);
        while taken.len() < most && self.frozen.done < self.frozen.ids.len() {
            let id = self.frozen.ids[self.frozen.done];
            self.frozen.done += 1;
            if let Some(Some(entry)) = self.entries.get_mut(id as usize)
                && entry.changed == of
                && !entry.taken
            {
                entry.taken = true;
                taken.push(entry.saved_key(walk));
            }
        }
        taken
    }

    /// The keys that were over when the checkpoint began.
    pub fn frozen_over(&mut self) -> Vec<Encoded> {
        std::mem::take(&mut self.frozen.over)
    }

    /// The checkpoint of the generation before this one is in the store.
    pub fn set_saved(&mut self) {
        self.saved = self.generation.saturating_sub(1);
        let saved = self.saved;
        self.over.retain(|_, generation| *generation > saved);
        self.frozen = Frozen::default();
    }

    /// It is not, and will not be: its changes are this generation's.
    pub fn set_lost(&mut self) {
        let of = self.generation.saturating_sub(1);
        for id in std::mem::take(&mut self.frozen).ids {
            self.renew(id, of);
        }
        let generation = self.generation;
        self.over.values_mut().for_each(|ended| *ended = generation);
    }

    /// The key has changed in a generation that is lost.
    fn renew(&mut self, id: u32, lost: u64) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize)
            && entry.changed == lost
        {
            entry.changed = self.generation;
            entry.taken = false;
            self.dirty.push(id);
        }
    }

    /// The same for a key that was spilled in it; whether it is in memory.
    pub fn renew_spilled(&mut self, hash: u64, encoded: &[u8], lost: u64) -> bool {
        let found = self.find(hash, encoded);
        if let Some(id) = found {
            self.renew(id, lost);
        }
        found.is_some()
    }

    /// Some keys that may leave memory, by the clock algorithm: not those that are due before the frontier, nor those that have
    /// been asked for since it last came by. With `forced` also these, and those that the online store has not seen.
    pub fn victims(&mut self, walk: &Walk, frontier_us: i64, online_us: i64, forced: bool) -> Vec<u32> {
        let (most, steps) = ((self.len() / 8).max(64), (self.entries.len() / 2).max(1024));
        let mut victims = vec![];
        for _ in 0..steps.min(self.entries.len()) {
            if victims.len() >= most {
                break;
            }
            self.hand = (self.hand + 1) % self.entries.len().max(1);
            let Some(Some(entry)) = self.entries.get_mut(self.hand) else { continue };
            let in_flight = entry.changed > self.saved && entry.changed < self.generation;
            if in_flight || std::mem::take(&mut entry.recent) && !forced {
                continue;
            }
            let due_us = entry.state.next_instant(walk).unwrap_or(NEVER);
            if due_us == NEVER && entry.state.is_over(walk) {
                // Its events were taken out. It is due so that it goes, which nothing in the store would tell.
                continue;
            }
            // One whose events history has not finished changes for the online store at other instants than the index knows.
            let settled = entry.is_online(due_us) && due_us > online_us;
            if due_us >= frontier_us && (settled || forced) {
                victims.push(self.hand as u32);
            }
        }
        victims
    }

    /// Whether the state store has less than memory.
    pub fn is_changed(&self, id: u32) -> bool {
        self.get(id).is_some_and(|entry| entry.changed > self.saved)
    }

    /// The key leaves memory: when it is next due, by history and for the online store, and whether there is something that the
    /// online store has not seen yet.
    pub fn evict(&mut self, id: u32, walk: &Walk) -> Option<(Encoded, Option<i64>, i64, bool)> {
        let entry = self.take(id)?;
        let due_us = entry.state.next_instant(walk);
        let is_online = entry.is_online(due_us.unwrap_or(NEVER));
        Some((entry.encoded, due_us, entry.online_due_us, !is_online))
    }

    /// Whether the schedules have far more entries than keys: those of keys that came and went.
    fn is_littered(&self) -> bool {
        let most = 4 * self.len() + 4096;
        self.due.len() > most || self.online_due.len() > most
    }

    /// Makes the schedules anew from the keys where most of their entries are of keys that have left.
    pub fn tidy(&mut self) {
        if !self.is_littered() {
            return;
        }
        (self.due, self.online_due) = (Schedule::default(), Schedule::default());
        for (id, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            (entry.parked_us, entry.online_parked_us) = (NEVER, NEVER);
            self.due.enter(entry.due_us, id as u32, &mut entry.parked_us);
            self.online_due.enter(entry.online_due_us, id as u32, &mut entry.online_parked_us);
        }
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
        let next_us = self.get(id).and_then(|entry| entry.state.next_instant(walk));
        self.schedule_at(id, next_us);
    }

    /// The same, where the next instant is known.
    pub fn schedule_at(&mut self, id: u32, next_us: Option<i64>) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            entry.due_us = next_us.unwrap_or(NEVER);
            self.due.enter(entry.due_us, id, &mut entry.parked_us);
        }
    }

    pub fn schedule_online(&mut self, id: u32, walk: &Walk) {
        if let Some(Some(entry)) = self.entries.get_mut(id as usize) {
            entry.online_due_us = entry.state.next_online_instant(walk).unwrap_or(NEVER);
            self.online_due.enter(entry.online_due_us, id, &mut entry.online_parked_us);
        }
    }

    /// The keys whose finished part changes before `before_us`, in no order; they are taken off the schedule.
    pub fn take_due(&mut self, before_us: i64) -> Vec<u32> {
        let mut due = vec![];
        self.due.take(before_us, &mut DueOf(&mut self.entries), &mut due);
        due
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

    pub fn mark_stale(&mut self, id: u32) {
        if let Some(entry) = self.get_mut(id)
            && !std::mem::replace(&mut entry.stale, true)
        {
            self.stale.push(id);
        }
    }

    /// History has finished what the online store has not come to: after a crash nothing else would tell.
    pub fn mark_overtaken(&mut self, id: u32, frontier_us: i64) {
        if self.get(id).is_some_and(|entry| entry.online_due_us < frontier_us) {
            self.mark_stale(id);
        }
    }

    /// The keys in memory that have changed since the latest generation in the state store, which may not have them.
    pub fn unsaved(&self) -> impl Iterator<Item = Encoded> {
        let saved = self.saved;
        self.entries().filter(move |entry| entry.changed > saved).map(|entry| entry.encoded.clone())
    }

    pub fn mark_unsaved_stale(&mut self) {
        for id in 0..self.entries.len() as u32 {
            if self.get(id).is_some_and(|entry| entry.changed > self.saved) {
                self.mark_stale(id);
            }
        }
    }

    /// The keys changed since the last online flush, each once, and those that are over. They are in flight from here on.
    pub fn take_stale(&mut self) -> (Vec<u32>, Vec<Encoded>) {
        let mut ids = std::mem::take(&mut self.stale);
        ids.retain(|id| self.get_mut(*id).is_some_and(|e| std::mem::take(&mut e.stale)));
        let over = std::mem::take(&mut self.over_stale);
        let over = self.still_over(over);
        let entries = &self.entries;
        let changed = ids.iter().filter_map(|id| entries.get(*id as usize)?.as_ref());
        self.in_flight.changed.extend(changed.map(|entry| entry.encoded.clone()));
        self.in_flight.over.extend(over.iter().cloned());
        (ids, over)
    }

    /// Nothing is in flight any more; what was: those that had changed, then those that were over.
    pub fn take_in_flight(&mut self) -> impl Iterator<Item = Encoded> + use<> {
        let InFlight { changed, over } = std::mem::take(&mut self.in_flight);
        changed.into_iter().chain(over)
    }

    /// How many keys the online store is still to get, nearly: by the next flush, and by the one under way.
    pub fn waiting_online(&self) -> usize {
        let waiting = self.stale.len() + self.over_stale.len();
        waiting + self.in_flight.changed.len() + self.in_flight.over.len()
    }

    /// A key may have begun again meanwhile; then it is among the changed ones.
    fn still_over(&self, mut over: Vec<Encoded>) -> Vec<Encoded> {
        over.sort_unstable();
        over.dedup();
        over.retain(|encoded| self.find(hash(encoded), encoded).is_none());
        over
    }

    /// Tells the online store again that a key is over.
    pub fn still_over_stale(&mut self, encoded: Encoded) {
        self.over_stale.push(encoded);
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

/// When the finished parts of the keys are due.
struct DueOf<'a>(&'a mut [Option<Entry>]);

impl Dues for DueOf<'_> {
    fn due_us(&self, id: u32) -> i64 {
        self.0[id as usize].as_ref().map_or(NEVER, |entry| entry.due_us)
    }

    fn forget(&mut self, id: u32) {
        if let Some(entry) = &mut self.0[id as usize] {
            entry.due_us = NEVER;
        }
    }
}

impl Entry {
    /// Whether the online store has everything that happened before the finished part is next due.
    fn is_online(&self, due_us: i64) -> bool {
        !self.stale && self.online_due_us >= due_us
    }

    /// By how much it weighs more than before.
    fn set_bytes(&mut self, bytes: u64) -> i64 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = i64::from(bytes) - i64::from(self.bytes);
        self.bytes = bytes;
        more
    }

    /// Reads of it what lies in the shard's own array, and returns something that depends on that (`warm.rs`).
    pub fn touch(&self) -> u64 {
        let times = self.due_us ^ self.parked_us ^ self.online_due_us ^ self.online_parked_us;
        self.state.touch() ^ self.hash ^ self.changed ^ times as u64 ^ u64::from(self.bytes)
    }

    fn saved_key(&self, walk: &Walk) -> SavedKey {
        let (state, due_us) = (self.state.encode(walk), self.state.next_instant(walk));
        SavedKey { key: self.encoded.clone(), state, due_us }
    }
}
