//! The state of one entity key, and how it walks through time.
//!
//! A key keeps a ring of events in the total order (event time, offset) and cursors that walk over it. A cursor stands
//! between two instants; advancing it applies every instant at which something happens (an event arrives, one enters or
//! leaves a frame, the key expires, a month begins) and reports what then holds. Two cursors exist:
//!
//! ```text
//!   ring      e0   e1   e2      e3        e4
//!   done   ───────────────▶|                      everything below the frontier F: its steps are history, for ever
//!   online ─────────────────────────▶|            a copy of `done`, walked on to now; thrown away when an event is
//!                                                  put in behind it, and made again from `done` when next asked
//! ```
//!
//! So a lookup, an `AS OF` above the frontier and history are one function: the same walk from the same state. And a
//! cursor meets events in order only, however late they came: what is late went into the ring before the cursor passed.

mod calendar;
mod cursor;
mod pane;
mod partner;
mod positional;
mod ring;
mod versions;
mod walk;

pub use calendar::{month_start, next_month};
pub use cursor::{Cursor, Held, Instant, Instants};
pub use ring::{Layout, NewEvent};
pub use walk::Walk;

use crate::{
    accumulate::{Accumulator, Move},
    value::Value,
};
use cursor::{Bounds, Position};
use partner::Partner;
use ring::{Ring, RingImage};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The state of one entity key.
#[derive(Debug, Clone)]
pub struct KeyState {
    /// The key's own values, in key order.
    pub key: Arc<[Value]>,
    ring: Ring,
    pub done: Cursor,
    online: Option<Box<Cursor>>,
}

impl KeyState {
    /// A key with no events; nothing below `frontier_us` will ever happen to it.
    pub fn new(walk: &Walk, key: Arc<[Value]>, frontier_us: i64) -> KeyState {
        KeyState { key, ring: Ring::default(), done: Cursor::new(walk, frontier_us), online: None }
    }

    /// Puts an admitted event in its place. Admission sees to it that its time is at or after the frontier that `done`
    /// has reached; one below (which would rewrite history) is not taken, and `false` returned.
    pub fn insert(&mut self, walk: &Walk, event: &NewEvent) -> bool {
        let time = event.time_us();
        if time < self.done.position.upto_us {
            return false;
        }
        if walk.versions {
            self.make_room(walk);
        }
        let index = self.ring.insert(&walk.layout, event);
        if self.online.as_ref().is_some_and(|o| index < o.position.next || time < o.position.upto_us) {
            self.online = None;
        }
        self.done.follow_session(walk, &self.ring, index);
        if let Some(online) = &mut self.online {
            online.follow_session(walk, &self.ring, index);
        }
        true
    }

    /// The row of the joined table changes; `None`: it is deleted. `false`: that would be below the frontier.
    pub fn pair(&mut self, effective_us: i64, row: Option<Arc<[Value]>>) -> bool {
        if effective_us < self.done.position.upto_us {
            return false;
        }
        let index = self.ring.partner.change(effective_us, row);
        if self.online.as_ref().is_some_and(|o| index < o.position.partner || effective_us < o.position.upto_us) {
            self.online = None;
        }
        true
    }

    /// Takes an event out again that the finished part has not come to; `false`: it is not there.
    pub fn remove(&mut self, walk: &Walk, time_us: i64, mark: u64) -> bool {
        let Some(index) = self.ring.version(&walk.layout, time_us, mark) else { return false };
        if time_us < self.done.position.upto_us {
            return false;
        }
        self.ring.remove(&walk.layout, index);
        self.online = None;
        // From the first on: the session may be two now.
        self.done.follow_session(walk, &self.ring, self.ring.first());
        true
    }

    /// The version at `time_us` with offset `offset` counts no longer: from `event` on, which is only that. `false`: there is
    /// no such version, because the view could not use it.
    pub fn end(&mut self, walk: &Walk, time_us: i64, offset: u64, event: &mut NewEvent) -> bool {
        let layout = &walk.layout;
        let Some(index) = self.ring.version(layout, time_us, offset) else { return false };
        if event.time_us() < self.done.position.upto_us {
            return false;
        }
        self.ring.end_version(layout, index, event.time_us());
        event.ends(layout, time_us, offset);
        self.insert(walk, event)
    }

    /// Before the ring of versions grows: what the finished part has left behind goes. It grows all the same where that is
    /// little, so that looking pays.
    fn make_room(&mut self, walk: &Walk) {
        if self.ring.is_full(&walk.layout) {
            self.forget_ended(walk);
        }
    }

    fn forget_ended(&mut self, walk: &Walk) {
        let layout = &walk.layout;
        let Cursor { position, .. } = &self.done;
        let (next, at_us) = (position.next, position.upto_us.saturating_sub(1));
        let kept = self.ring.forget_ended(layout, next, at_us);
        let first = self.ring.first();
        self.done.renumber(|index| first + kept.partition_point(|old| *old < index) as u64);
        self.online = None;
        self.ring.grow_if_crowded(layout);
    }

    /// Walks `done` on to the frontier and reports the instants. Returns when something next happens to it.
    pub fn finish(&mut self, walk: &Walk, frontier_us: i64, out: &mut Instants) -> Option<i64> {
        let from = self.done.position.next;
        let mut next = self.done.advance(walk, &self.ring, frontier_us, out);
        if walk.versions && 2 * (self.done.position.next - from) as usize > self.ring.len() {
            self.forget_ended(walk);
            next = self.next_instant(walk);
        }
        if self.online.as_ref().is_some_and(|online| online.position.upto_us < frontier_us) {
            self.online = None;
        }
        next
    }

    /// Forgets the events that no frame can need again. To be called when the steps of `finish` are taken.
    pub fn trim(&mut self, walk: &Walk) {
        // Any version may be the latest again when those after it end (`make_room`).
        if walk.versions {
            return;
        }
        self.ring.drop_before(&walk.layout, self.done.oldest_needed(walk).min(self.ring.end()));
        self.ring.partner.drop_before(self.done.position.partner);
    }

    /// The cursor that stands after instant `at_us`, with the instants since the last such call (or the frontier).
    /// `at_us` is at or after the frontier. The caller settles `held` from the instants.
    pub fn online(&mut self, walk: &Walk, at_us: i64, out: &mut Instants) -> &mut Cursor {
        let upto_us = at_us.saturating_add(1);
        if self.online.as_ref().is_some_and(|online| online.position.upto_us > upto_us) {
            self.online = None;
        }
        if self.online.is_none() && self.done.next_instant(walk, &self.ring).is_none_or(|next| next > at_us) {
            // Nothing has happened since the frontier: what is done is what is now.
            return &mut self.done;
        }
        let online = self.online.get_or_insert_with(|| Box::new(self.done.clone()));
        online.advance(walk, &self.ring, upto_us, out);
        online
    }

    /// The instants from the frontier up to and including `at_us`, leaving the state as it is.
    pub fn provisional(&self, walk: &Walk, at_us: i64, out: &mut Instants) -> Cursor {
        let mut cursor = self.done.clone();
        cursor.advance(walk, &self.ring, at_us.saturating_add(1), out);
        cursor
    }

    /// When something next happens to the finished part.
    pub fn next_instant(&self, walk: &Walk) -> Option<i64> {
        self.done.next_instant(walk, &self.ring)
    }

    /// When something next happens to what readers see now.
    pub fn next_online_instant(&self, walk: &Walk) -> Option<i64> {
        self.online.as_deref().unwrap_or(&self.done).next_instant(walk, &self.ring)
    }

    /// Whether readers, where they were last, saw no row because the TTL is over: not because nothing had come, or was deleted.
    pub fn is_expired(&self, walk: &Walk) -> bool {
        self.online.as_deref().unwrap_or(&self.done).is_expired(walk, &self.ring)
    }

    /// Absent, with nothing to come: the key can be forgotten.
    pub fn is_over(&self, walk: &Walk) -> bool {
        let Position { present, partner, .. } = self.done.position;
        !present
            && self.done.held.is_none()
            && !self.ring.partner.is_needed(partner)
            && self.next_instant(walk).is_none()
    }

    pub fn events(&self) -> usize {
        self.ring.len()
    }

    /// Bytes that its events take.
    pub fn events_memory(&self) -> usize {
        self.ring.memory()
    }

    /// Bytes it takes besides itself and what the key's own values point to, nearly: what allocators add is not known.
    pub fn memory(&self) -> usize {
        let key = size_of_val(&*self.key);
        let online = self.online.as_ref().map_or(0, |online| size_of::<Cursor>() + online.memory());
        key + self.ring.memory() + self.done.memory() + online
    }

    /// Reads of it what is not on the heap, and returns something that depends on that. So do the next three, of what an
    /// insertion goes on to, of what [`KeyState::finish`] goes on to, and of the events that it comes to then: `view/warm.rs`.
    pub fn touch(&self) -> u64 {
        let Cursor { position, bounds, accumulators, held } = &self.done;
        let held = held.as_ref().map_or(0, |held| held.instant_us as u64 ^ held.outputs.len() as u64);
        let lengths = self.key.len() ^ bounds.len() ^ accumulators.len() ^ usize::from(self.online.is_some());
        self.ring.end() ^ position.next ^ position.partner ^ position.upto_us as u64 ^ held ^ lengths as u64
    }

    pub fn touch_end(&self, walk: &Walk) -> u64 {
        self.ring.touch_end(&walk.layout)
    }

    pub fn touch_done(&self, walk: &Walk) -> u64 {
        let Cursor { position, bounds, accumulators, held } = &self.done;
        let bounds = bounds.iter().fold(0, |sum, bounds| sum ^ bounds.lo);
        let accumulators = accumulators.iter().filter(|of| matches!(of, Accumulator::Count(_))).count() as u64;
        let outputs = held.iter().flat_map(|held| &held.outputs).filter(|value| value.is_null()).count() as u64;
        let key = u64::from(self.key.first().is_some_and(Value::is_null));
        self.ring.touch(&walk.layout, position.next) ^ bounds ^ accumulators ^ outputs ^ key
    }

    pub fn touch_frames(&self, walk: &Walk) -> u64 {
        let edges = self.done.bounds.iter().map(|bounds| self.ring.touch(&walk.layout, bounds.lo));
        edges.fold(0, |sum, word| sum ^ word)
    }

    /// The state as bytes. Accumulators of bounded frames are left out: they are rebuilt from the events.
    pub fn encode(&self, walk: &Walk) -> Result<Vec<u8>, postcard::Error> {
        let unbounded = |i: &usize| walk.folds[*i].of.unbounded;
        let mut bytes = postcard::to_stdvec(&ImageOf {
            key: &self.key,
            ring: self.ring.image(&walk.layout),
            partner: &self.ring.partner,
            position: &self.done.position,
            bounds: &self.done.bounds,
            unbounded: (0..walk.folds.len()).filter(unbounded).map(|i| &self.done.accumulators[i]).collect(),
            held: self.done.held.as_ref(),
        })?;
        if let Some(held) = self.done.held.as_ref().filter(|_| walk.tracks) {
            bytes.extend(postcard::to_stdvec(&held.since)?);
        }
        Ok(bytes)
    }

    pub fn decode(walk: &Walk, bytes: &[u8]) -> Result<KeyState, postcard::Error> {
        let foreign = postcard::Error::DeserializeBadEncoding;
        let (image, rest): (Image, &[u8]) = postcard::take_from_bytes(bytes)?;
        let mut ring = Ring::from_image(&walk.layout, image.ring).ok_or(foreign.clone())?;
        ring.partner = image.partner;
        let mut done = Cursor {
            position: image.position,
            bounds: image.bounds,
            accumulators: walk.accumulators(),
            held: image.held,
        };
        if done.bounds.len() != walk.frames.len() {
            return Err(foreign);
        }
        if let Some(held) = done.held.as_mut().filter(|_| walk.tracks) {
            held.since = postcard::from_bytes(rest)?;
            if held.since.len() != held.outputs.len() + 1 {
                return Err(foreign);
            }
        }
        let mut saved = image.unbounded.into_iter();
        for (fold, accumulator) in walk.folds.iter().zip(&mut done.accumulators) {
            if fold.of.unbounded {
                *accumulator = saved.next().ok_or(foreign.clone())?;
            }
        }
        for f in 0..walk.frames.len() {
            if !walk.frames[f].unbounded {
                let Bounds { lo, hi, .. } = done.bounds[f];
                if lo < hi && (lo < ring.first() || hi > ring.end()) {
                    return Err(foreign);
                }
                let at = done.position.upto_us.saturating_sub(1);
                for index in (lo..hi).filter(|index| !walk.versions || ring.is_version(&walk.layout, *index, at)) {
                    done.change(walk, &ring, f, index, Move::Enter);
                }
            }
        }
        Ok(KeyState { key: image.key, ring, done, online: None })
    }
}

/// A key's state as it is saved.
#[derive(Serialize)]
struct ImageOf<'a> {
    key: &'a [Value],
    ring: RingImage,
    partner: &'a Partner,
    position: &'a Position,
    bounds: &'a [Bounds],
    unbounded: Vec<&'a Accumulator>,
    held: Option<&'a Held>,
}

#[derive(Deserialize)]
struct Image {
    key: Arc<[Value]>,
    ring: RingImage,
    partner: Partner,
    position: Position,
    bounds: Box<[Bounds]>,
    unbounded: Vec<Accumulator>,
    held: Option<Held>,
}
