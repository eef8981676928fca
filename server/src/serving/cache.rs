//! What was read lately: keys that are asked for again and again are read from Redis once in a while, not every time.

use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tidemark_catalog::ObjectId;
use tidemark_engine::online::OnlineRow;

/// Connections that look up at once hardly wait for each other; a power of two.
const SHARDS: usize = 16;

/// What Redis had of a key.
#[derive(Debug, Clone)]
pub struct Kept {
    /// `None`: it has no row.
    pub row: Option<Arc<OnlineRow>>,
    /// It had one: its owner has put that it has none any more.
    pub ended: bool,
    /// By this node's clock, before it was asked for; microseconds.
    pub read_us: i64,
    /// The view's now as its owner said it then.
    pub now_us: Option<i64>,
}

impl Kept {
    pub fn until_us(&self) -> Option<i64> {
        self.row.as_ref()?.until_us
    }

    pub fn is_over(&self, now_us: i64) -> bool {
        self.until_us().is_some_and(|until_us| until_us <= now_us)
    }
}

/// Only which shard: the maps have hashes of their own.
const HASH: RandomState = RandomState::with_seeds(0x7365_7276, 0x696e_6720, 0x6361_6368, 0x6520_6b65);

type Shard = AHashMap<(ObjectId, Bytes), Kept>;

pub struct Cache {
    /// Microseconds; 0: nothing is kept.
    age_us: i64,
    /// Of each shard.
    entries_max: usize,
    shards: Vec<Mutex<Shard>>,
}

impl Cache {
    /// `age`: how long a value is used after it was read; `None`: never.
    pub fn new(age: Option<Duration>, entries_max: usize) -> Cache {
        let age_us = age.map_or(0, |age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Cache { age_us, entries_max: entries_max.div_ceil(SHARDS), shards }
    }

    /// What is known of a key, unless it is too old or, where the view follows the clock, does not hold any more.
    pub fn get(&self, view: ObjectId, key: &Bytes, clock_us: i64, follows_clock: bool) -> Option<Kept> {
        if self.age_us == 0 {
            return None;
        }
        let key = (view, key.clone());
        let kept = self.shard(&key).lock().get(&key).cloned()?;
        let is_young = clock_us.saturating_sub(kept.read_us) < self.age_us;
        (is_young && !(follows_clock && kept.is_over(clock_us))).then_some(kept)
    }

    pub fn put(&self, view: ObjectId, key: &Bytes, kept: Kept) {
        if self.age_us == 0 {
            return;
        }
        let key = (view, key.clone());
        let mut shard = self.shard(&key).lock();
        if shard.len() >= self.entries_max && !shard.contains_key(&key) {
            let now_us = kept.read_us;
            shard.retain(|_, old| now_us.saturating_sub(old.read_us) < self.age_us);
            // Nearly all are young: it starts over rather than look through them with every put.
            if shard.len() > self.entries_max / 2 {
                shard.clear();
            }
        }
        shard.insert(key, kept);
    }

    fn shard(&self, key: &(ObjectId, Bytes)) -> &Mutex<Shard> {
        &self.shards[HASH.hash_one(key) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: ObjectId = ObjectId(16_384);

    fn kept(read_us: i64, until_us: Option<i64>) -> Kept {
        let row = OnlineRow { until_us, instant_us: 0, event_us: 0, outputs: vec![] };
        Kept { row: Some(Arc::new(row)), ended: false, read_us, now_us: None }
    }

    #[test]
    fn a_value_is_used_for_its_time_and_never_past_its_end() {
        let cache = Cache::new(Some(Duration::from_millis(100)), 1_000);
        let key = Bytes::from_static(b"k");
        let is_used = |view, at_us, follows_clock| cache.get(view, &key, at_us, follows_clock).is_some();
        assert!(!is_used(VIEW, 0, true));
        cache.put(VIEW, &key, kept(1_000, Some(50_000)));
        assert!(is_used(VIEW, 1_000, true) && is_used(VIEW, 49_999, true));
        assert!(!is_used(VIEW, 50_000, true), "it does not hold any more");
        assert!(is_used(VIEW, 50_000, false), "the events' clock has not said so");
        assert!(!is_used(VIEW, 101_000, false), "it is too old");
        assert!(!is_used(ObjectId(16_385), 1_000, true), "of another view");
        let none = Kept { row: None, ended: false, read_us: 200_000, now_us: None };
        cache.put(VIEW, &key, none);
        assert!(cache.get(VIEW, &key, 200_001, true).is_some_and(|kept| kept.row.is_none()));
    }

    #[test]
    fn it_never_holds_more_than_it_may_and_nothing_where_it_is_off() {
        let cache = Cache::new(Some(Duration::from_secs(1)), 64);
        for n in 0..10_000_u32 {
            cache.put(VIEW, &Bytes::copy_from_slice(&n.to_be_bytes()), kept(1, None));
            let entries: usize = cache.shards.iter().map(|shard| shard.lock().len()).sum();
            assert!(entries <= 64, "{entries} entries");
        }
        let off = Cache::new(None, 64);
        let key = Bytes::from_static(b"k");
        off.put(VIEW, &key, kept(1, None));
        assert!(off.get(VIEW, &key, 1, true).is_none());
    }
}
