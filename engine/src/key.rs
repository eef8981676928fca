//! The state of one entity key, and how it walks through time.
//!
//! A key keeps a ring of events in the total order (event time, offset) and cursors that walk over it. A cursor stands
//! between two instants; [`Cursor::advance`] applies every instant at which something happens (an event arrives, one
//! enters or leaves a frame, the key expires, a month begins) and reports what then holds. Two cursors exist:
//!
//! ```text
//!   ring      e0   e1   e2      e3        e4
//!   done   ───────────────▶|                      everything below the frontier F: its steps are history, for ever
//!   online ─────────────────────────▶|            a copy of `done`, walked on to now; thrown away when an event is
//!                                                  put in behind it, and made again from `done` when next asked
//! ```
//!
//! So a lookup, an `AS OF` above the frontier and history are one function: the same walk from the same state.

use crate::{accumulate::Accumulator, value::Value};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidemark_planner::feature::{Aggregate, FeaturePlan, Frame, Slot};

/// What a cursor needs to know of the view.
#[derive(Debug, Clone)]
pub struct Walk {
    frames: Vec<FrameShape>,
    slots: Vec<Slot>,
    input_types: Vec<DataType>,
    ttl_us: Option<i64>,
}

#[derive(Debug, Clone)]
struct FrameShape {
    frame: Frame,
    /// Indices into `slots`, one accumulator each.
    slots: Vec<usize>,
}

impl Walk {
    pub fn new(plan: &FeaturePlan) -> Walk {
        let frames = plan.frames.iter().enumerate().map(|(i, frame)| FrameShape {
            frame: *frame,
            slots: (0..plan.slots.len())
                .filter(|s| matches!(&plan.slots[*s], Slot::Aggregate { frame, .. } if *frame == i))
                .collect(),
        });
        Walk {
            frames: frames.collect(),
            slots: plan.slots.clone(),
            input_types: plan.inputs.iter().map(|i| i.ty.clone()).collect(),
            ttl_us: plan.ttl_us,
        }
    }

    fn accumulators(&self, frame: usize) -> Vec<Accumulator> {
        let shape = &self.frames[frame];
        let unbounded = shape.frame.is_unbounded();
        shape
            .slots
            .iter()
            .map(|s| match &self.slots[*s] {
                Slot::Aggregate { function, arg, .. } => {
                    Accumulator::new(*function, arg.map(|i| &self.input_types[i]), unbounded)
                }
                Slot::Raw { .. } => Accumulator::Count(0),
            })
            .collect()
    }
}

trait Bounds {
    fn is_unbounded(&self) -> bool;
}

impl Bounds for Frame {
    fn is_unbounded(&self) -> bool {
        matches!(self, Frame::Range { start_us: None, .. } | Frame::Rows { start: None, .. })
    }
}

/// One admitted event of one key, reduced to the inputs of the view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Event time (of a changelog row: effective time), microseconds.
    pub time_us: i64,
    pub offset: u64,
    /// A changelog's delete: from here on the key is absent.
    pub delete: bool,
    pub inputs: Box<[Value]>,
}

/// The events of one key by absolute index; the front is dropped as no cursor needs it any more.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Ring {
    /// Absolute index of `events[0]`.
    first: u64,
    events: VecDeque<Event>,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn get(&self, index: u64) -> Option<&Event> {
        self.events.get(index.checked_sub(self.first)? as usize)
    }

    /// The event's time; indices are kept inside the ring, so the default is never seen.
    fn time(&self, index: u64) -> i64 {
        self.get(index).map_or(i64::MAX, |e| e.time_us)
    }

    /// Puts the event in its place and returns its index.
    fn insert(&mut self, event: Event) -> u64 {
        let order = |e: &Event| (e.time_us, e.offset);
        let at = match self.events.back() {
            Some(last) if order(last) > order(&event) => self.events.partition_point(|e| order(e) <= order(&event)),
            _ => self.events.len(),
        };
        self.events.insert(at, event);
        self.first + at as u64
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct FrameState {
    /// The frame holds the events `lo..hi`.
    lo: u64,
    hi: u64,
    accumulators: Vec<Accumulator>,
}

/// What holds since `instant_us`: the row a reader sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub instant_us: i64,
    /// Time of the key's latest event.
    pub event_us: i64,
    /// The view's stored columns that are neither key nor time, in stored order.
    pub outputs: Box<[Value]>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cursor {
    /// Every instant below this has been applied.
    pub upto_us: i64,
    /// The last instant applied.
    at_us: i64,
    /// Index of the first event that has not arrived.
    next: u64,
    /// Index of the first event of the key's current life (TTL).
    life: u64,
    present: bool,
    frames: Vec<FrameState>,
    /// The slots as of the last instant applied; empty while absent.
    slots: Box<[Value]>,
    /// The row of the last step; `None` while absent.
    pub held: Option<Held>,
}

/// What happened at one instant, before the outputs are computed from the slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Instant {
    pub at_us: i64,
    /// Empty: from here on the key is absent.
    pub slots: Option<Box<[Value]>>,
    pub event_us: i64,
    /// The first instant of a calendar month: the holding row is repeated even if nothing changed.
    pub month: bool,
    /// An aggregate left its type's range here.
    pub out_of_range: bool,
}

/// The state of one entity key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyState {
    /// The key's own values, in key order.
    pub key: Box<[Value]>,
    ring: Ring,
    pub done: Cursor,
    #[serde(skip)]
    online: Option<Box<Cursor>>,
}

impl KeyState {
    /// A key with no events; nothing below `frontier_us` will ever happen to it.
    pub fn new(walk: &Walk, key: Box<[Value]>, frontier_us: i64) -> KeyState {
        let frames =
            (0..walk.frames.len()).map(|f| FrameState { lo: 0, hi: 0, accumulators: walk.accumulators(f) }).collect();
        let done = Cursor {
            upto_us: frontier_us,
            at_us: i64::MIN,
            next: 0,
            life: 0,
            present: false,
            frames,
            slots: Box::default(),
            held: None,
        };
        KeyState { key, ring: Ring::default(), done, online: None }
    }

    /// Puts an admitted event in its place. Admission sees to it that its time is at or after `done.upto_us`; one below
    /// (which would rewrite history) is not taken, and `false` returned.
    pub fn insert(&mut self, event: Event) -> bool {
        let time = event.time_us;
        if time < self.done.upto_us {
            return false;
        }
        let index = self.ring.insert(event);
        if self.online.as_ref().is_some_and(|online| index < online.next || time < online.upto_us) {
            self.online = None;
        }
        true
    }

    /// Walks `done` on to the frontier and reports the instants.
    pub fn finish(&mut self, walk: &Walk, frontier_us: i64, out: &mut Vec<Instant>) {
        self.done.advance(walk, &self.ring, frontier_us, out);
        if self.online.as_ref().is_some_and(|online| online.upto_us < frontier_us) {
            self.online = None;
        }
    }

    /// Forgets the events that no frame can need again. To be called when the steps of `finish` are taken.
    pub fn trim(&mut self, walk: &Walk) {
        let keep = self.done.oldest_needed(walk).min(self.ring.end());
        while self.ring.first < keep {
            self.ring.events.pop_front();
            self.ring.first += 1;
        }
    }

    /// The cursor that stands after instant `at_us`, with the instants since the last such call (or the frontier).
    /// `at_us` is at or after the frontier. The caller settles `held` from the instants.
    pub fn online(&mut self, walk: &Walk, at_us: i64, out: &mut Vec<Instant>) -> &mut Cursor {
        let stale = self.online.as_ref().is_none_or(|o| o.upto_us > at_us.saturating_add(1));
        if stale {
            self.online = None;
        }
        let online = self.online.get_or_insert_with(|| Box::new(self.done.clone()));
        online.advance(walk, &self.ring, at_us.saturating_add(1), out);
        online
    }

    /// The instants from the frontier up to and including `at_us`, leaving the state as it is.
    pub fn provisional(&self, walk: &Walk, at_us: i64, out: &mut Vec<Instant>) -> Cursor {
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

    /// Absent, with nothing to come: the key can be forgotten.
    pub fn is_over(&self, walk: &Walk) -> bool {
        !self.done.present && self.done.held.is_none() && self.next_instant(walk).is_none()
    }

    pub fn events(&self) -> usize {
        self.ring.events.len()
    }

    /// The state as bytes. Accumulators of bounded frames are left out: they are rebuilt from the events.
    pub fn encode(&self, walk: &Walk) -> Result<Vec<u8>, postcard::Error> {
        let mut image = self.clone();
        image.online = None;
        for (frame, shape) in image.done.frames.iter_mut().zip(&walk.frames) {
            if !shape.frame.is_unbounded() {
                frame.accumulators.clear();
            }
        }
        postcard::to_stdvec(&image)
    }

    pub fn decode(walk: &Walk, bytes: &[u8]) -> Result<KeyState, postcard::Error> {
        let mut state: KeyState = postcard::from_bytes(bytes)?;
        if state.done.frames.len() != walk.frames.len() {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        for f in 0..walk.frames.len() {
            if !walk.frames[f].frame.is_unbounded() {
                let mut frame = FrameState { accumulators: walk.accumulators(f), ..state.done.frames[f].clone() };
                for index in frame.lo..frame.hi {
                    let event = state.ring.get(index).ok_or(postcard::Error::DeserializeBadEncoding)?;
                    frame.apply(walk, f, event, false);
                }
                state.done.frames[f] = frame;
            }
        }
        Ok(state)
    }
}

impl FrameState {
    fn apply(&mut self, walk: &Walk, frame: usize, event: &Event, retract: bool) {
        for (accumulator, slot) in self.accumulators.iter_mut().zip(&walk.frames[frame].slots) {
            let Slot::Aggregate { function, arg, filter, .. } = &walk.slots[*slot] else { continue };
            if let Some(filter) = filter
                && event.inputs[*filter] != Value::Bool(true)
            {
                continue;
            }
            match arg {
                Some(arg) => accumulator.add(*function, &event.inputs[*arg], retract),
                None => accumulator.add(*function, &Value::Bool(true), retract),
            }
        }
    }
}

impl Cursor {
    fn advance(&mut self, walk: &Walk, ring: &Ring, upto_us: i64, out: &mut Vec<Instant>) {
        while let Some(at) = self.next_instant(walk, ring) {
            if at >= upto_us {
                break;
            }
            self.apply(walk, ring, at, out);
        }
        self.upto_us = self.upto_us.max(upto_us);
    }

    fn next_instant(&self, walk: &Walk, ring: &Ring) -> Option<i64> {
        let mut next = (self.next < ring.end()).then(|| ring.time(self.next));
        let mut sooner = |at: i64| next = Some(next.map_or(at, |n| n.min(at)));
        if self.present {
            for (state, shape) in self.frames.iter().zip(&walk.frames) {
                if let Frame::Range { start_us, end_us } = shape.frame {
                    if end_us > 0 && state.hi < self.next {
                        sooner(ring.time(state.hi).saturating_add(end_us));
                    }
                    if let Some(start_us) = start_us
                        && state.lo < state.hi
                    {
                        sooner(ring.time(state.lo).saturating_add(start_us + 1));
                    }
                }
            }
            if let Some(ttl) = walk.ttl_us {
                sooner(ring.time(self.next - 1).saturating_add(ttl + 1));
            }
            sooner(next_month(self.at_us));
        }
        next
    }

    fn apply(&mut self, walk: &Walk, ring: &Ring, at: i64, out: &mut Vec<Instant>) {
        self.at_us = at;
        let was_present = self.present;
        let mut arrived = false;
        while let Some(event) = ring.get(self.next).filter(|e| e.time_us == at) {
            let previous = (self.next > self.life).then(|| ring.time(self.next - 1));
            if let (Some(ttl), Some(previous)) = (walk.ttl_us, previous)
                && at - previous > ttl
            {
                self.begin_life(walk);
            }
            self.present = !event.delete;
            self.next += 1;
            arrived = true;
        }
        if !arrived
            && self.present
            && let Some(ttl) = walk.ttl_us
            && at > ring.time(self.next - 1).saturating_add(ttl)
        {
            self.present = false;
            self.begin_life(walk);
        }
        let event_us = ring.time(self.next - 1);
        if !self.present {
            if was_present {
                out.push(Instant { at_us: at, slots: None, event_us, month: false, out_of_range: false });
            }
            self.slots = Box::default();
            return;
        }
        for f in 0..self.frames.len() {
            self.move_frame(walk, ring, f, at);
        }
        let (slots, out_of_range) = self.evaluate(walk, ring);
        let month = month_start(at) == at;
        if arrived || month || slots != self.slots {
            self.slots = slots.clone();
            out.push(Instant { at_us: at, slots: Some(slots), event_us, month, out_of_range });
        }
    }

    /// What came before contributes nothing from here on.
    fn begin_life(&mut self, walk: &Walk) {
        self.life = self.next;
        for (f, frame) in self.frames.iter_mut().enumerate() {
            *frame = FrameState { lo: self.next, hi: self.next, accumulators: walk.accumulators(f) };
        }
    }

    fn move_frame(&mut self, walk: &Walk, ring: &Ring, f: usize, at: i64) {
        let next = self.next;
        let life = self.life;
        let frame = &mut self.frames[f];
        let (lo, hi) = match walk.frames[f].frame {
            Frame::Range { start_us, end_us } => {
                let mut hi = frame.hi;
                while hi < next && ring.time(hi).saturating_add(end_us) <= at {
                    hi += 1;
                }
                let mut lo = frame.lo;
                if let Some(start_us) = start_us {
                    while lo < hi && ring.time(lo).saturating_add(start_us) < at {
                        lo += 1;
                    }
                }
                (lo, hi)
            }
            Frame::Rows { start, end } => {
                let hi = next.saturating_sub(end).max(life);
                let lo = match start {
                    Some(start) => next.saturating_sub(start.saturating_add(1)).max(life).min(hi),
                    None => life,
                };
                (lo, hi)
            }
        };
        // An event that enters and leaves in one step need not be touched.
        for index in frame.hi.max(lo)..hi {
            if let Some(event) = ring.get(index) {
                frame.apply(walk, f, event, false);
            }
        }
        if !walk.frames[f].frame.is_unbounded() {
            for index in frame.lo..lo.min(frame.hi) {
                if let Some(event) = ring.get(index) {
                    frame.apply(walk, f, event, true);
                }
            }
        }
        frame.lo = lo;
        frame.hi = hi;
    }

    fn evaluate(&self, walk: &Walk, ring: &Ring) -> (Box<[Value]>, bool) {
        let mut out_of_range = false;
        let mut values = vec![Value::Null; walk.slots.len()];
        for (state, shape) in self.frames.iter().zip(&walk.frames) {
            for (accumulator, slot) in state.accumulators.iter().zip(&shape.slots) {
                let Slot::Aggregate { function, arg, ty, .. } = &walk.slots[*slot] else { continue };
                let arg_type = arg.map(|i| &walk.input_types[i]);
                values[*slot] = match (accumulator, function, arg) {
                    (Accumulator::Positional, _, Some(_)) if state.lo >= state.hi => Value::Null,
                    (Accumulator::Positional, Aggregate::FirstValue, Some(arg)) => input(ring, state.lo, *arg),
                    (Accumulator::Positional, _, Some(arg)) => input(ring, state.hi - 1, *arg),
                    _ => {
                        let (value, beyond) = accumulator.evaluate(*function, arg_type, ty);
                        out_of_range |= beyond;
                        value
                    }
                };
            }
        }
        for (slot, value) in walk.slots.iter().zip(&mut values) {
            if let Slot::Raw { input: i, .. } = slot {
                *value = input(ring, self.next - 1, *i);
            }
        }
        (values.into(), out_of_range)
    }

    /// The first event that a frame, a raw column, the event time or the TTL can still read.
    fn oldest_needed(&self, walk: &Walk) -> u64 {
        let latest = if self.next > self.life { self.next - 1 } else { self.next };
        self.frames.iter().zip(&walk.frames).fold(latest, |oldest, (state, shape)| {
            // Nothing leaves an unbounded frame one by one; last_value still reads its last event.
            let needed = if shape.frame.is_unbounded() { state.hi.saturating_sub(1).max(self.life) } else { state.lo };
            oldest.min(needed)
        })
    }
}

fn input(ring: &Ring, index: u64, i: usize) -> Value {
    ring.get(index).and_then(|e| e.inputs.get(i)).cloned().unwrap_or_default()
}

/// The start of the calendar month (UTC) that `at_us` lies in.
pub fn month_start(at_us: i64) -> i64 {
    let (year, month) = year_month(at_us);
    days_from_civil(year, month) * DAY_US
}

/// The first month start after `at_us`.
pub fn next_month(at_us: i64) -> i64 {
    let (year, month) = year_month(at_us);
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_civil(year, month).saturating_mul(DAY_US)
}

const DAY_US: i64 = 86_400_000_000;

/// Proleptic Gregorian calendar, by Howard Hinnant's `civil_from_days`.
fn year_month(at_us: i64) -> (i64, i64) {
    let z = at_us.div_euclid(DAY_US) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month)
}

/// Days from 1970-01-01 to the first of the month.
fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (at, start, next) in [
            (0, 0, 31 * DAY_US),
            (-1, -31 * DAY_US, 0),
            (1_358_000_000_000_000, 1_356_998_400_000_000, 1_359_676_800_000_000),
            (951_782_400_000_000, 949_363_200_000_000, 951_868_800_000_000), // 29 February 2000
        ] {
            assert_eq!((month_start(at), next_month(at)), (start, next), "{at}");
            assert_eq!(month_start(next), next);
        }
    }
}
