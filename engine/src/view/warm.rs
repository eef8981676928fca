//! Brings what the work on some keys will need into the processor's cache before the work begins.
//!
//! With many keys nothing of a key is in cache when its event comes, and its parts hang on one another: index, entry, ring,
//! frames. Key by key, the processor waits for each part of each key in turn. Here one part of many keys is read at a time:
//! these reads do not depend on one another, so the processor has many of them under way at once (group prefetching: Chen,
//! Ailamaki, Gibbons, Mowry, "Improving hash join performance through prefetching", ICDE 2004).

use super::shard::Shard;
use crate::key::Walk;
use std::hint::black_box;

/// Keys that are read together. A key is a kilobyte, nearly: so many stay in the first- and second-level cache until the
/// work has come to them, and are more than a processor can have under way.
pub const GROUP: usize = 32;

/// For events of the first [`GROUP`] keys, by their hashes.
pub fn for_events(shard: &Shard, walk: &Walk, hashes: impl Iterator<Item = u64>) {
    let mut ids = [None; GROUP];
    for (id, hash) in ids.iter_mut().zip(hashes) {
        *id = shard.guess(hash);
    }
    let entries = || ids.iter().filter_map(|id| shard.get((*id)?));
    black_box(entries().fold(0, |sum, entry| sum ^ entry.touch()));
    let next = |sum, encoded: &[u8]| sum ^ encoded.first().map_or(0, |byte| u64::from(*byte));
    black_box(entries().fold(0, |sum, entry| next(sum, &entry.encoded) ^ entry.state.touch_end(walk)));
}

/// For [`crate::key::KeyState::finish`] of the first [`GROUP`] keys.
pub fn for_steps(shard: &Shard, walk: &Walk, ids: &[u32]) {
    let entries = || ids.iter().take(GROUP).filter_map(|id| shard.get(*id));
    black_box(entries().fold(0, |sum, entry| sum ^ entry.touch()));
    black_box(entries().fold(0, |sum, entry| sum ^ entry.state.touch_done(walk)));
    black_box(entries().fold(0, |sum, entry| sum ^ entry.state.touch_frames(walk)));
}
