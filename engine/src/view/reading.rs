//! The three readings of a running view: the row of a key, the rows of all keys, the steps that history does not have.
//! Each walks on from where the finished part of a key stands.

use super::{
    Made, OnlineRows, Pending, Shown, ViewState,
    cold::{Cold, ColdKeys, Watch},
    seam,
    shard::{Encoded, hash},
    shard_of,
    step::{SharedSteps, Steps},
};
use crate::seam::SeamResult;
use crate::{
    compiled::Row,
    key::{Held, Instants, KeyState},
    value::{Value, encode_row},
};
use datafusion::error::Result as DfResult;
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

/// How often a reader that does not wait tries to get at a shard: some microseconds, for which other readers hold it, but not the
/// milliseconds of a large batch.
const LOCK_ATTEMPTS: usize = 100;

/// What is known of a key at an instant.
#[derive(Debug, Clone, PartialEq)]
pub enum Looked {
    Row(Row),
    /// It had one, and the view's TTL is over. That is known until the frontier comes by; then the key is forgotten.
    Expired,
    /// Nobody has seen it, or nothing is known of it any more.
    Missing,
}

impl Looked {
    pub fn row(self) -> Option<Row> {
        match self {
            Looked::Row(row) => Some(row),
            Looked::Expired | Looked::Missing => None,
        }
    }
}

/// What is known of all keys.
#[derive(Debug, Default)]
pub struct AllLooked {
    pub rows: Vec<Row>,
    /// The keys of those that are [`Looked::Expired`].
    pub expired: Vec<Arc<[Value]>>,
}

impl AllLooked {
    fn add(&mut self, key: &Arc<[Value]>, looked: Looked) {
        match looked {
            Looked::Row(row) => self.rows.push(row),
            Looked::Expired => self.expired.push(key.clone()),
            Looked::Missing => {}
        }
    }
}

impl ViewState {
    /// `V(key, at)` for an instant at or after the frontier.
    pub fn lookup(&self, encoded: &[u8], at_us: i64) -> DfResult<Option<Row>> {
        Ok(self.look(encoded, at_us)?.row())
    }

    /// The same, and where there is no row what is known of that.
    pub fn look(&self, encoded: &[u8], at_us: i64) -> DfResult<Looked> {
        self.where_kept(|host| match host {
            Some(host) => host.state.find_row(encoded, at_us, |key, held| host.projection.row(key, held)),
            None => self.find_row(encoded, at_us, row),
        })
    }

    /// The same from memory, without waiting for anybody; `None`: the key may be in the state store, or its shard is at work.
    pub fn look_in_memory(&self, encoded: &[u8], at_us: i64) -> DfResult<Option<Looked>> {
        self.where_kept(|host| match host {
            Some(host) => host.state.find_in_memory(encoded, at_us, |key, held| host.projection.row(key, held)),
            None => self.find_in_memory(encoded, at_us, row),
        })
    }

    fn find_in_memory(
        &self,
        encoded: &[u8],
        at_us: i64,
        make: impl FnOnce(&Arc<[Value]>, &Held) -> Row,
    ) -> DfResult<Option<Looked>> {
        let hash = hash(encoded);
        let of_key = &self.shards[shard_of(hash)];
        let attempt = |attempt: usize| {
            if attempt > 0 {
                std::hint::spin_loop();
            }
            of_key.try_lock()
        };
        let Some(mut shard) = (0..LOCK_ATTEMPTS).find_map(attempt) else { return Ok(None) };
        let Some(id) = shard.find(hash, encoded) else {
            let may_be_cold = self.cold.as_ref().is_some_and(Cold::has_any) && !shard.is_over(encoded);
            return Ok((!may_be_cold).then_some(Looked::Missing));
        };
        shard.asked_for(id).map(|entry| self.look_at(&mut entry.state, at_us, make)).transpose()
    }

    fn find_row(&self, encoded: &[u8], at_us: i64, make: impl FnOnce(&Arc<[Value]>, &Held) -> Row) -> DfResult<Looked> {
        let hash = hash(encoded);
        let mut shard = self.shards[shard_of(hash)].lock();
        let (id, was_cold) = match shard.find(hash, encoded) {
            Some(id) => (Some(id), false),
            None => (self.find_or_load(&mut shard, hash, encoded).map_err(seam)?, true),
        };
        let Some(entry) = id.and_then(|id| shard.asked_for(id)) else { return Ok(Looked::Missing) };
        let looked = self.look_at(&mut entry.state, at_us, make);
        if was_cold {
            self.relieve(&mut shard).map_err(seam)?;
        }
        looked
    }

    fn look_at(
        &self,
        state: &mut KeyState,
        at_us: i64,
        make: impl FnOnce(&Arc<[Value]>, &Held) -> Row,
    ) -> DfResult<Looked> {
        Ok(match self.read_as(state, at_us, make)? {
            Some(row) => Looked::Row(row),
            None if state.is_expired(&self.compiled.walk) => Looked::Expired,
            None => Looked::Missing,
        })
    }

    /// `V(k, at)` for every key present, at or after the frontier. Keys that are not in memory do not come into it for that.
    pub fn rows(&self, at_us: i64) -> DfResult<Vec<Row>> {
        Ok(self.look_at_all(at_us)?.rows)
    }

    /// The same, and the keys whose TTL is over.
    pub fn look_at_all(&self, at_us: i64) -> DfResult<AllLooked> {
        self.where_kept(|host| match host {
            Some(host) => host.state.all_looked(at_us, |key, held| host.projection.row(key, held)),
            None => self.all_looked(at_us, row),
        })
    }

    fn all_looked(&self, at_us: i64, make: impl Fn(&Arc<[Value]>, &Held) -> Row) -> DfResult<AllLooked> {
        let has_cold = self.cold.as_ref().is_some_and(Cold::has_any);
        let mut all = AllLooked::default();
        let mut seen: HashSet<Encoded> = HashSet::new();
        for shard in &self.shards {
            for entry in shard.lock().entries_mut() {
                let looked = self.look_at(&mut entry.state, at_us, &make)?;
                all.add(&entry.state.key, looked);
                if has_cold {
                    seen.insert(entry.encoded.clone());
                }
            }
        }
        let Some(cold) = self.cold.as_ref().filter(|cold| cold.has_any()) else { return Ok(all) };
        let mut keys = cold.keys(self.generation());
        loop {
            let page = cold.next_keys(&mut keys, || self.generation()).map_err(seam)?;
            if page.is_empty() {
                return Ok(all);
            }
            for key in page {
                if !seen.contains(&*key) {
                    let key: Encoded = key.into();
                    let read = |state: &mut KeyState| Ok((state.key.clone(), self.look_at(state, at_us, &make)?));
                    if let Some((values, looked)) = self.with_cold(&key, read)? {
                        all.add(&values, looked);
                    }
                    seen.insert(key);
                }
            }
        }
    }

    /// Lets `read` see a key where it is, in memory or not, and leaves it there; `None`: there is no such key.
    pub(super) fn with_cold<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(&mut KeyState) -> DfResult<T>,
    ) -> DfResult<Option<T>> {
        let hash = hash(key);
        let mut shard = self.shards[shard_of(hash)].lock();
        if let Some(entry) = shard.find(hash, key).and_then(|id| shard.get_mut(id)) {
            return read(&mut entry.state).map(Some);
        }
        let Some(cold) = self.cold.as_ref().filter(|_| !shard.is_over(key)) else { return Ok(None) };
        match cold.read(key, shard.generation).map_err(seam)? {
            Some((bytes, _)) => read(&mut self.decoded(&bytes).map_err(seam)?).map(Some),
            None => Ok(None),
        }
    }

    /// Fills the online store from all keys, where it could not follow: the next rows as of `at_us`; `None`: that was all, or
    /// there is nothing to make up for.
    pub fn catch_up(&self, at: &mut Option<ColdKeys>, at_us: i64) -> DfResult<Option<OnlineRows>> {
        let page = self.catch_up_as(at, at_us, row)?;
        Ok(page.map(|page| page.into_iter().map(|(key, row)| (key, row.map(Shown::of))).collect()))
    }

    /// The same, of what holds then whatever the caller makes; with when it next changes.
    pub fn catch_up_as<T>(
        &self,
        at: &mut Option<ColdKeys>,
        at_us: i64,
        make: impl Fn(&Arc<[Value]>, &Held) -> T,
    ) -> DfResult<Option<Made<T>>> {
        let Some(cold) = &self.cold else { return Ok(None) };
        let walk = &self.compiled.walk;
        if at.is_none() {
            if !cold.behind.load(Ordering::Acquire) {
                return Ok(None);
            }
            cold.catching_up.store(true, Ordering::Release);
            cold.behind.store(false, Ordering::Release);
            cold.filled.store(0, Ordering::Relaxed);
            *at = Some(cold.keys(self.generation()));
        }
        let Some(keys) = at else { return Ok(None) };
        let page = cold.next_keys(keys, || self.generation()).map_err(seam)?;
        if page.is_empty() {
            *at = None;
            cold.catching_up.store(false, Ordering::Release);
            return Ok(None);
        }
        let mut rows = vec![];
        for key in page {
            let key: Encoded = key.into();
            let read = |state: &mut KeyState| {
                let row = self.show_as(state, at_us, &make)?;
                // The index has when history next changes. Where that is before now, it is to have what the store waits for too.
                let is_ahead = state.next_instant(walk).is_some_and(|next| next <= at_us);
                Ok((row, state.next_online_instant(walk).filter(|_| is_ahead)))
            };
            if let Some((row, next_us)) = self.with_cold(&key, read)? {
                if let Some(next_us) = next_us {
                    cold.expect(next_us, &key).map_err(seam)?;
                }
                rows.push((key, row));
            }
        }
        Ok(Some(rows))
    }

    /// It has not been filled: it is to begin again.
    pub fn is_behind(&self) {
        if let Some(cold) = &self.cold {
            cold.fall_behind();
        }
    }

    /// Brings keys back into memory before somebody asks for them, while there is plenty of room: the next page; `false`: that
    /// is enough.
    pub fn warm(&self, at: &mut Option<ColdKeys>) -> SeamResult<bool> {
        let here = self.cold.as_ref().filter(|_| self.host().is_none());
        let Some(cold) = here.filter(|cold| cold.has_any() && cold.memory.has_plenty()) else {
            return Ok(false);
        };
        let keys = at.get_or_insert_with(|| cold.keys(self.generation()));
        let page = cold.next_keys(keys, || self.generation())?;
        let is_end = page.is_empty();
        let loaded = self.each_shard_of(0, page, |shard, keys| -> SeamResult<()> {
            for (hash, key) in keys {
                self.find_or_load(shard, *hash, key)?;
            }
            cold.memory.grow(shard.take_grown());
            Ok(())
        });
        loaded.into_iter().collect::<SeamResult<()>>()?;
        Ok(!is_end)
    }

    /// What a reader makes of the key as it is at `at_us`.
    pub(super) fn read_as<T>(
        &self,
        state: &mut KeyState,
        at_us: i64,
        make: impl FnOnce(&Arc<[Value]>, &Held) -> T,
    ) -> DfResult<Option<T>> {
        let at_us = at_us.max(self.frontier_us().saturating_sub(1));
        let key = state.key.clone();
        let mut instants = Instants::default();
        let cursor = state.online(&self.compiled.walk, at_us, &mut instants);
        let outcomes = self.outcomes(instants)?;
        outcomes.settle_each(outcomes.all(), &mut cursor.held, &key, |_| {});
        Ok(cursor.held.as_ref().map(|held| make(&key, held)))
    }

    /// The steps between the frontier and `at_us` that history does not have: the pending ones and the provisional ones.
    /// Also the instant below which the history table is complete; read the table after this, only below that instant.
    pub fn steps_above_history(&self, at_us: i64, key: Option<&[u8]>) -> DfResult<(i64, SharedSteps)> {
        while let Some(host) = self.host() {
            if let Some(steps) = self.hosted_steps(&host, at_us, key)? {
                return Ok(steps);
            }
        }
        let finishing = self.finishing.read();
        if self.host().is_some() {
            // It has moved just now, and goes no further without passing here.
            drop(finishing);
            return self.steps_above_history(at_us, key);
        }
        let mut provisional = Steps::default();
        match key {
            Some(key) => {
                self.with_cold(key, |state| self.add_provisional(state, at_us, &mut provisional))?;
            }
            None => self.add_all_provisional(at_us, &mut provisional)?,
        }
        let Pending { committed_us, chunks } = self.pending();
        let mut chunks = match key {
            Some(key) => vec![Arc::new(of_key(&chunks, key))],
            None => chunks,
        };
        chunks.push(Arc::new(provisional));
        Ok((committed_us, SharedSteps(chunks)))
    }

    fn add_all_provisional(&self, at_us: i64, steps: &mut Steps) -> DfResult<()> {
        let walk = &self.compiled.walk;
        let mut seen: HashSet<Encoded> = HashSet::new();
        for shard in &self.shards {
            for entry in shard.lock().entries() {
                if entry.state.next_instant(walk).is_some_and(|next| next <= at_us) {
                    self.add_provisional(&entry.state, at_us, steps)?;
                    seen.insert(entry.encoded.clone());
                }
            }
        }
        let Some(cold) = self.cold.as_ref().filter(|cold| cold.has_any()) else { return Ok(()) };
        let mut after = cold.due_key(self.frontier_us(), &[]);
        // Nobody waits here for what is due later.
        let nobody = Watch::new();
        loop {
            let keys = cold.due_keys(&nobody, &mut after, at_us.saturating_add(1)).map_err(seam)?;
            if keys.is_empty() {
                return Ok(());
            }
            for key in keys {
                if !seen.contains(&*key) {
                    let key: Encoded = key.into();
                    self.with_cold(&key, |state| self.add_provisional(state, at_us, steps))?;
                    seen.insert(key);
                }
            }
        }
    }

    /// The steps of a key between the frontier and `at_us`.
    fn add_provisional(&self, state: &KeyState, at_us: i64, steps: &mut Steps) -> DfResult<()> {
        let mut instants = Instants::default();
        let mut cursor = state.provisional(&self.compiled.walk, at_us, &mut instants);
        let outcomes = self.outcomes(instants)?;
        outcomes.settle_each(outcomes.all(), &mut cursor.held, &state.key, |step| steps.push(step));
        Ok(())
    }
}

pub(super) fn row(key: &Arc<[Value]>, held: &Held) -> Row {
    Row { key: key.clone(), instant_us: held.instant_us, event_us: held.event_us, outputs: held.outputs.clone() }
}

/// The steps of one key, copied: few of many.
fn of_key(chunks: &[Arc<Steps>], key: &[u8]) -> Steps {
    let mut steps = Steps::default();
    let all = chunks.iter().flat_map(|chunk| chunk.iter());
    all.filter(|step| encode_row(step.key) == key).for_each(|step| steps.push(step));
    steps
}
