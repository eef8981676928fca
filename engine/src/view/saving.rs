//! A checkpoint of one view beside its work: what had changed when it began is taken shard by shard, some keys at a time; a
//! key that changes before its turn is taken first, as it was.

use super::{ViewState, cold::Cold, shard::SavedKey, shard_of};
use crate::{
    seam::{Keyspace, SeamError, SeamResult, WriteBatch},
    view::shard::{Encoded, hash},
};
use std::sync::atomic::Ordering;

/// Keys that are taken while one shard is locked: some 0.2 ms.
const KEYS_AT_ONCE: usize = 128;

/// Bytes that one write of a checkpoint has at most, nearly: what is beyond is spilled on the way, so that memory is not
/// needed twice.
const WRITE_BYTES: usize = 16 << 20;

/// Keys that the online store has not seen that are named one by one; with more it is filled from all keys after a crash.
const STALE_MAX: usize = 100_000;

/// How a view stood when a checkpoint began.
pub struct Frozen {
    pub generation: u64,
    pub frontier_us: i64,
    pub keys: u64,
    pub events: u64,
    /// Keys that the online store had not seen, or may not have: all, or where it is `behind`, those that are over.
    pub stale: Vec<Vec<u8>>,
    /// There are too many of the others to be named.
    pub behind: bool,
}

impl ViewState {
    pub(super) fn generation(&self) -> u64 {
        self.shards[0].lock().generation
    }

    /// What has changed until now is for a checkpoint to take. To be called while nothing is applied or finished; a flush may
    /// be under way. It may have taken keys, or not, shard by shard, under the lock that is taken here: so each is either
    /// stale, or in flight, or in the online store.
    pub fn freeze(&self) -> Frozen {
        let may_be_behind = || self.cold.as_ref().is_some_and(Cold::may_be_behind);
        // Before and after: a fill that ends meanwhile may have brought keys into shards that have been passed.
        let was_behind = may_be_behind();
        let (mut stale, mut over): (Vec<Encoded>, Vec<Encoded>) = (vec![], vec![]);
        let mut generation = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            generation = shard.generation;
            let (of_shard, over_of_shard) = shard.freeze();
            stale.extend(of_shard);
            over.extend(over_of_shard);
        }
        let behind = was_behind || may_be_behind() || stale.len() > STALE_MAX;
        if behind {
            stale.clear();
        }
        Frozen {
            generation,
            frontier_us: self.frontier_us(),
            keys: self.counters.keys.load(Ordering::Relaxed),
            events: self.counters.events.load(Ordering::Relaxed),
            stale: stale.iter().chain(&over).map(|key| key.to_vec()).collect(),
            behind,
        }
    }

    /// The frozen keys as one write, which the caller commits together with how far the view is. What one write should not
    /// have is spilled: the commit makes it count.
    /// It yields now and then: with many keys this takes long, and others have work to do.
    pub async fn take_frozen(&self, frozen: &Frozen) -> SeamResult<WriteBatch> {
        let Some(cold) = &self.cold else { return Ok(WriteBatch::default()) };
        let walk = &self.compiled.walk;
        let (mut batch, mut bytes) = (vec![], 0);
        let mut over = vec![];
        for shard in &self.shards {
            over.extend(shard.lock().frozen_over());
            loop {
                let taken = shard.lock().take_frozen(walk, KEYS_AT_ONCE);
                if taken.is_empty() {
                    break;
                }
                for SavedKey { key, state, due_us } in taken {
                    let state = state.map_err(SeamError::not_done)?;
                    bytes += key.len() + state.len();
                    batch.push((key, state, due_us));
                }
                if bytes > WRITE_BYTES {
                    let spilled = batch.iter_mut().map(|(key, state, due_us)| (&**key, std::mem::take(state), *due_us));
                    cold.spill(frozen.generation, spilled.collect())?;
                    batch.clear();
                    bytes = 0;
                }
                tokio::task::yield_now().await;
            }
        }
        let mut write = WriteBatch::default();
        write.deletes.extend(over.into_iter().map(|key| (Keyspace::Keys, cold.state_key(&key))));
        for (key, state, due_us) in batch {
            write.puts.extend(due_us.map(|at_us| (Keyspace::Due, cold.due_key(at_us, &key), vec![])));
            write.puts.push((Keyspace::Keys, cold.state_key(&key), state));
        }
        cold.remove_left(frozen.generation, &mut write);
        Ok(write)
    }

    /// The write is committed. Not to be separated from the commit: a view that is not told would take for lost what a start goes by.
    pub fn set_saved(&self) {
        for shard in &self.shards {
            shard.lock().set_saved();
        }
    }

    /// After [`Self::set_saved`]: what the checkpoint has spilled moves to its place. Where that fails or is given up half way, it
    /// goes on before the next checkpoint ([`Self::prepare`]).
    pub async fn settle(&self, frozen: &Frozen) -> SeamResult<()> {
        let Some(cold) = &self.cold else { return Ok(()) };
        let (saved, mut after) = (self.saved(), None);
        while cold.settle_page(saved, &mut after)? {
            tokio::task::yield_now().await;
        }
        cold.forget_due(frozen.frontier_us)
    }

    fn saved(&self) -> u64 {
        self.shards[0].lock().saved
    }

    /// Makes an end of what earlier checkpoints have left: of the finished one what has not moved yet, of one that failed
    /// everything, which then belongs to the next.
    pub fn prepare(&self) -> SeamResult<()> {
        let Some(cold) = &self.cold else { return Ok(()) };
        let (generation, saved) = (self.generation(), self.saved());
        cold.settle(saved)?;
        if saved + 1 == generation {
            return Ok(());
        }
        self.renew_spilled(cold, generation - 1, generation)
    }

    /// The checkpoint has failed: its changes are of the generation that is going on.
    pub fn set_lost(&self) -> SeamResult<()> {
        for shard in &self.shards {
            shard.lock().set_lost();
        }
        self.prepare()
    }

    fn renew_spilled(&self, cold: &Cold, lost: u64, generation: u64) -> SeamResult<()> {
        let mut after = None;
        loop {
            let page = cold.spilled_page(lost, &mut after)?;
            if page.is_empty() {
                for shard in &self.shards {
                    let mut shard = shard.lock();
                    shard.saved = shard.saved.max(lost);
                }
                return Ok(());
            }
            for (key, bytes) in page {
                let hash = hash(&key);
                let mut shard = self.shards[shard_of(hash)].lock();
                let is_known = shard.renew_spilled(hash, &key, lost) || shard.is_over(&key);
                let to = match is_known || cold.has_spilled(generation, &key)? {
                    true => None,
                    false => Some(generation),
                };
                cold.respill(lost, to, &key, bytes)?;
            }
        }
    }

    /// Takes up where the checkpoint `frozen` was finished.
    pub async fn recover(&self, frozen: Frozen) -> SeamResult<()> {
        let Some(cold) = &self.cold else { return Ok(()) };
        cold.recover(frozen.generation).await?;
        for shard in &self.shards {
            let mut shard = shard.lock();
            (shard.generation, shard.saved) = (frozen.generation + 1, frozen.generation);
        }
        self.frontier_us.store(frozen.frontier_us, Ordering::Release);
        cold.due.upto_us.store(frozen.frontier_us, Ordering::Release);
        self.counters.keys.store(frozen.keys, Ordering::Relaxed);
        self.counters.events.store(frozen.events, Ordering::Relaxed);
        if frozen.keys > 0 {
            cold.note_any();
        }
        if frozen.behind {
            self.is_behind();
        }
        self.mark_stale(frozen.stale.into_iter().map(Encoded::from));
        Ok(())
    }
}
