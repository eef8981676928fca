//! Which keys are due by an instant, found without looking at the others.
//!
//! Each key has at most one time at which it is due; its owner keeps that time. Entries here are promises to look: a key
//! whose time has changed is simply entered again, and entries that no longer tell the truth are dropped when met. What
//! lies far ahead is kept in buckets of about a second and put in order only when its second comes, so that entering costs
//! a step into a small tree and not a heap as large as all keys.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// Never due.
pub const NEVER: i64 = i64::MAX;

/// Microseconds of a bucket, as a power of two: 2^20 is about a second.
const BUCKET_BITS: u32 = 20;

/// Who keeps the times.
pub trait Dues {
    /// When a key is due; [`NEVER`] also of one that is not there.
    fn due_us(&self, id: u32) -> i64;

    /// It is not due any more.
    fn forget(&mut self, id: u32);
}

#[derive(Default)]
pub struct Schedule {
    /// Everything due before `near_end`, in order.
    near: BinaryHeap<Reverse<(i64, u32)>>,
    /// First bucket that is still in `far`.
    near_end: Option<i64>,
    far: BTreeMap<i64, Vec<u32>>,
    /// Entries in `far`.
    parked: usize,
}

impl Schedule {
    /// Key `id` is due at `at_us` from now on. `parked_us` is the key's own note of where it was last entered far ahead:
    /// a key that returns to a departure it has been waiting for all along needs no second entry.
    pub fn enter(&mut self, at_us: i64, id: u32, parked_us: &mut i64) {
        if at_us == NEVER {
            return;
        }
        let bucket = at_us >> BUCKET_BITS;
        if self.near_end.is_some_and(|end| bucket < end) {
            self.near.push(Reverse((at_us, id)));
        } else if *parked_us != at_us {
            self.far.entry(bucket).or_default().push(id);
            self.parked += 1;
            *parked_us = at_us;
        }
    }

    /// How many entries there are, true or not.
    pub fn len(&self) -> usize {
        self.near.len() + self.parked
    }

    /// The next key that is due before `before_us`, in order of time; `due` tells when a key is due now. The caller
    /// changes that time or enters the key again: else it is not met again.
    pub fn next(&mut self, before_us: i64, due: impl Fn(u32) -> i64) -> Option<u32> {
        loop {
            let near = self.next_near(before_us, &due);
            if near.is_some() || !self.near.is_empty() {
                return near;
            }
            // Buckets may be far apart; the next one that has anything is the next one that matters.
            let bucket = *self.far.first_key_value()?.0;
            if bucket > before_us.saturating_sub(1) >> BUCKET_BITS {
                return None;
            }
            self.load(bucket, &due);
        }
    }

    fn next_near(&mut self, before_us: i64, due: impl Fn(u32) -> i64) -> Option<u32> {
        while let Some(Reverse((at, id))) = self.near.peek().copied()
            && (at < before_us || due(id) != at)
        {
            self.near.pop();
            if due(id) == at {
                return Some(id);
            }
        }
        None
    }

    /// All keys that are due before `before_us`, each once and in no order. Buckets that are over altogether are not put in
    /// order: where much happens between two calls, that is most of them. `keys` forgets when the keys were due.
    pub fn take(&mut self, before_us: i64, keys: &mut impl Dues, out: &mut Vec<u32>) {
        while let Some(id) = self.next_near(before_us, |id| keys.due_us(id)) {
            keys.forget(id);
            out.push(id);
        }
        let end = before_us >> BUCKET_BITS;
        while let Some((bucket, _)) = self.far.first_key_value().filter(|(bucket, _)| **bucket < end) {
            let bucket = *bucket;
            for id in self.remove(bucket) {
                if is_in(keys.due_us(id), bucket) {
                    keys.forget(id);
                    out.push(id);
                }
            }
        }
        while let Some(id) = self.next(before_us, |id| keys.due_us(id)) {
            keys.forget(id);
            out.push(id);
        }
    }

    /// When the next key is due.
    pub fn first(&self, due: impl Fn(u32) -> i64) -> Option<i64> {
        let near = self.near.iter().filter(|Reverse((at, id))| due(*id) == *at).map(|Reverse((at, _))| *at).min();
        near.or_else(|| {
            self.far.iter().find_map(|(bucket, ids)| {
                ids.iter().map(|id| due(*id)).filter(|at| *at != NEVER && at >> BUCKET_BITS == *bucket).min()
            })
        })
    }

    fn load(&mut self, bucket: i64, due: &impl Fn(u32) -> i64) {
        for id in self.remove(bucket) {
            let at = due(id);
            if is_in(at, bucket) {
                self.near.push(Reverse((at, id)));
            }
        }
    }

    /// From here on what is due in the bucket is `near`.
    fn remove(&mut self, bucket: i64) -> Vec<u32> {
        let ids = self.far.remove(&bucket).unwrap_or_default();
        self.parked -= ids.len();
        self.near_end = Some(bucket + 1);
        ids
    }
}

fn is_in(at_us: i64, bucket: i64) -> bool {
    at_us != NEVER && at_us >> BUCKET_BITS == bucket
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Dues for [i64; 20] {
        fn due_us(&self, id: u32) -> i64 {
            self[id as usize]
        }

        fn forget(&mut self, id: u32) {
            self[id as usize] = NEVER;
        }
    }

    const BUCKET: i64 = 1 << BUCKET_BITS;

    #[test]
    fn a_key_at_the_edge_of_a_bucket_is_due_in_its_instant_and_not_before() {
        for at in [-1, 0, 1, 5 * BUCKET - 1, 5 * BUCKET, 5 * BUCKET + 1, i64::MIN, NEVER - 1] {
            let mut due = [NEVER; 20];
            due[3] = at;
            let entered = || {
                let mut schedule = Schedule::default();
                let mut parked = NEVER;
                schedule.enter(at, 3, &mut parked);
                schedule
            };
            let mut schedule = entered();
            assert_eq!((schedule.len(), schedule.first(|id| due[id as usize])), (1, Some(at)));
            assert_eq!(schedule.next(at, |id| due[id as usize]), None, "{at}");
            assert_eq!((schedule.len(), schedule.first(|id| due[id as usize])), (1, Some(at)), "it stays");
            assert_eq!(schedule.next(at + 1, |id| due[id as usize]), Some(3), "{at}");
            assert_eq!((schedule.len(), schedule.first(|id| due[id as usize])), (0, None));
            let mut schedule = entered();
            let mut taken = vec![];
            schedule.take(at, &mut due, &mut taken);
            assert_eq!((taken.len(), schedule.len(), due[3]), (0, 1, at));
            schedule.take(at + 1, &mut due, &mut taken);
            assert_eq!((taken, schedule.len(), due[3]), (vec![3], 0, NEVER));
        }
    }

    #[test]
    fn buckets_that_are_over_are_not_put_in_order() {
        let (mut schedule, mut due) = (Schedule::default(), [NEVER; 20]);
        let mut parked = [NEVER; 20];
        for (id, at) in [(1, BUCKET), (2, 2 * BUCKET - 1), (3, 2 * BUCKET + 5), (4, 3 * BUCKET)] {
            due[id as usize] = at;
            schedule.enter(at, id, &mut parked[id as usize]);
        }
        let mut taken = vec![];
        schedule.take(2 * BUCKET + 1, &mut due, &mut taken);
        assert_eq!((taken, schedule.near.len(), schedule.parked), (vec![1, 2], 1, 1));
    }

    #[test]
    fn a_key_waits_once_for_the_same_time_and_never_for_none() {
        let (mut schedule, mut parked) = (Schedule::default(), NEVER);
        schedule.enter(NEVER, 3, &mut parked);
        assert_eq!((schedule.len(), parked), (0, NEVER));
        schedule.enter(7 * BUCKET, 3, &mut parked);
        schedule.enter(7 * BUCKET, 3, &mut parked);
        assert_eq!((schedule.len(), parked), (1, 7 * BUCKET));
        schedule.enter(8 * BUCKET, 3, &mut parked);
        assert_eq!((schedule.len(), parked), (2, 8 * BUCKET));
        // The first entry no longer tells the truth.
        let due = |_: u32| 8 * BUCKET;
        assert_eq!(schedule.first(due), Some(8 * BUCKET));
        assert_eq!(schedule.next(8 * BUCKET, due), None);
        assert_eq!(schedule.next(8 * BUCKET + 1, due), Some(3));
        assert_eq!(schedule.len(), 0);
        // What is near is in order at once.
        schedule.enter(8 * BUCKET + 5, 4, &mut parked);
        assert_eq!((schedule.near.len(), schedule.parked), (1, 0));
        schedule.enter(9 * BUCKET, 4, &mut parked);
        assert_eq!((schedule.near.len(), schedule.parked), (1, 1));
    }

    proptest! {
        /// Against the obvious way: look at all keys.
        #[test]
        fn all_that_are_due_are_taken_once(
            moves in prop::collection::vec((0u32..20, -3_000_000i64..30_000_000, any::<bool>()), 1..200),
        ) {
            let mut schedule = Schedule::default();
            let (mut due, mut parked) = ([NEVER; 20], [NEVER; 20]);
            let mut now = i64::MIN;
            for (id, at, look) in moves {
                if look {
                    now = now.max(at);
                    let expected: Vec<u32> = (0..20).filter(|id| due[*id as usize] < now).collect();
                    let mut got = vec![];
                    schedule.take(now, &mut due, &mut got);
                    got.sort_unstable();
                    prop_assert_eq!(got, expected);
                    prop_assert!(due.iter().all(|at| *at >= now));
                } else {
                    due[id as usize] = at.max(now);
                    schedule.enter(due[id as usize], id, &mut parked[id as usize]);
                }
            }
        }

        /// Against the obvious way: look at all keys.
        #[test]
        fn keys_come_when_they_are_due_and_in_order(
            moves in prop::collection::vec((0u32..20, -3_000_000i64..30_000_000, any::<bool>()), 1..200),
        ) {
            let mut schedule = Schedule::default();
            let (mut due, mut parked) = ([NEVER; 20], [NEVER; 20]);
            let mut now = i64::MIN;
            for (id, at, look) in moves {
                if look {
                    now = now.max(at);
                    let mut expected: Vec<i64> = due.iter().copied().filter(|d| *d < now).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(schedule.first(|id| due[id as usize]), due.iter().copied().min().filter(|d| *d != NEVER));
                    let mut got = vec![];
                    while let Some(id) = schedule.next(now, |id| due[id as usize]) {
                        got.push(std::mem::replace(&mut due[id as usize], NEVER));
                    }
                    prop_assert_eq!(got, expected);
                } else {
                    due[id as usize] = at.max(now);
                    schedule.enter(due[id as usize], id, &mut parked[id as usize]);
                }
            }
        }
    }
}
