//! A cursor over one key's ring: the state of all frames between two instants, and how it walks on.

use super::{
    calendar::next_month,
    ring::Ring,
    walk::{Fold, SlotSource, Walk},
};
use crate::{
    accumulate::{Accumulator, Move, Which},
    cell::Cell,
    value::Value,
};
use serde::{Deserialize, Serialize};
use tidemark_planner::feature::Frame;

/// The frame holds the events `lo..hi`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Bounds {
    pub lo: u64,
    pub hi: u64,
    /// When time alone next moves it; `i64::MAX`: never.
    pub next_us: i64,
}

/// What holds since `instant_us`: the row a reader sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub instant_us: i64,
    /// Time of the key's latest event.
    pub event_us: i64,
    /// The view's stored columns that are neither key nor time, in stored order.
    pub outputs: Box<[Value]>,
    /// Where the walk tracks them: since when every reader has had a row of its own, then since when each output is what it is.
    #[serde(skip)]
    pub since: Box<[i64]>,
}

#[derive(Debug, Clone)]
pub struct Cursor {
    pub(super) position: Position,
    pub(super) bounds: Box<[Bounds]>,
    /// One per fold.
    pub(super) accumulators: Box<[Accumulator]>,
    /// The row of the last step; `None` while absent.
    pub held: Option<Held>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Position {
    /// Every instant below this has been applied.
    pub upto_us: i64,
    /// The first month start after the last instant applied.
    pub month_us: i64,
    /// Index of the first event that has not arrived.
    pub next: u64,
    /// Index of the first event of the key's current life (TTL).
    pub life: u64,
    pub present: bool,
    /// Of a view over windows that begin and end by themselves: where the shown one ends, and the last event of the open
    /// session.
    pub pane_end_us: i64,
    pub session: u64,
    /// Index of the first version of the joined table's row that has not begun.
    pub partner: u64,
}

/// What happened at some instants, before the outputs are computed from the slots.
#[derive(Debug, Default)]
pub struct Instants {
    pub each: Vec<Instant>,
    /// The slots of each instant, one after another; NULL where the key is absent.
    pub slots: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instant {
    pub at_us: i64,
    /// `false`: from here on the key is absent.
    pub present: bool,
    pub event_us: i64,
    /// The first instant of a calendar month: the holding row is repeated even if nothing changed.
    pub month: bool,
    /// An aggregate left its type's range here.
    pub out_of_range: bool,
}

impl Cursor {
    pub(super) fn new(walk: &Walk, frontier_us: i64) -> Cursor {
        Cursor {
            position: Position {
                upto_us: frontier_us,
                month_us: i64::MIN,
                next: 0,
                life: 0,
                present: false,
                pane_end_us: i64::MIN,
                session: 0,
                partner: 0,
            },
            bounds: walk.frames.iter().map(|_| Bounds { lo: 0, hi: 0, next_us: i64::MAX }).collect(),
            accumulators: walk.accumulators(),
            held: None,
        }
    }

    /// Applies every instant below `upto_us`, and returns the next one.
    pub(super) fn advance(&mut self, walk: &Walk, ring: &Ring, upto_us: i64, out: &mut Instants) -> Option<i64> {
        let mut next = self.next_instant(walk, ring);
        while let Some(at) = next
            && at < upto_us
        {
            self.apply(walk, ring, at, out);
            next = self.next_instant(walk, ring);
        }
        self.position.upto_us = self.position.upto_us.max(upto_us);
        next
    }

    /// When something next happens; `None`: never.
    pub(super) fn next_instant(&self, walk: &Walk, ring: &Ring) -> Option<i64> {
        if let Some(pane) = walk.pane {
            return self.next_of_pane(walk, ring, pane);
        }
        let Position { next, present, month_us, partner, .. } = self.position;
        let mut at = if next < ring.end() { ring.time(&walk.layout, next) } else { i64::MAX };
        at = at.min(ring.partner.time(partner));
        if present {
            at = self.bounds.iter().fold(at.min(month_us), |at, b| at.min(b.next_us));
            if let Some(ttl) = walk.ttl_us {
                at = at.min(match walk.versions {
                    false => ring.time(&walk.layout, next - 1).saturating_add(ttl + 1),
                    true => self.versions_expire(walk, ring, ttl),
                });
            }
        }
        (at != i64::MAX).then_some(at)
    }

    fn apply(&mut self, walk: &Walk, ring: &Ring, at: i64, out: &mut Instants) {
        if let Some(pane) = walk.pane {
            return self.apply_to_pane(walk, ring, pane, at, out);
        }
        if walk.versions {
            return self.apply_to_versions(walk, ring, at, out);
        }
        let layout = &walk.layout;
        let was_shown = self.is_shown(walk, ring);
        let (mut arrived, mut turned) = (false, false);
        while ring.partner.time(self.position.partner) == at {
            self.position.partner += 1;
            turned = true;
        }
        while self.position.next < ring.end() && ring.time(layout, self.position.next) == at {
            let Position { next, life, .. } = self.position;
            if let Some(ttl) = walk.ttl_us
                && next > life
                && at - ring.time(layout, next - 1) > ttl
            {
                self.begin_life(walk);
            }
            self.position.present = !ring.is_delete(layout, next);
            self.position.next += 1;
            arrived = true;
        }
        let event_us = ring.time(layout, self.position.next.wrapping_sub(1));
        if !arrived && self.position.present && walk.ttl_us.is_some_and(|ttl| at > event_us.saturating_add(ttl)) {
            self.position.present = false;
            self.begin_life(walk);
        }
        let month = at == self.position.month_us;
        if at >= self.position.month_us {
            self.position.month_us = next_month(at);
        }
        let is_shown = self.is_shown(walk, ring);
        if !is_shown && was_shown {
            out.each.push(Instant { at_us: at, present: false, event_us, month: false, out_of_range: false });
            out.slots.resize(out.slots.len() + walk.slots.len(), Value::Null);
        }
        if !self.position.present {
            return;
        }
        let mut moved = arrived || month || turned;
        for f in 0..self.bounds.len() {
            if arrived || self.bounds[f].next_us <= at {
                self.move_frame(walk, ring, f, at);
                moved = true;
            }
        }
        if moved && is_shown {
            let out_of_range = self.evaluate(walk, ring, self.position.next - 1, at, &mut out.slots);
            out.each.push(Instant { at_us: at, present: true, event_us, month, out_of_range });
        }
    }

    /// Whether it is absent because its TTL is over.
    pub(super) fn is_expired(&self, walk: &Walk, ring: &Ring) -> bool {
        let Position { next, life, present, upto_us, .. } = self.position;
        if walk.ttl_us.is_none() || present || next == 0 {
            return false;
        }
        match walk.versions {
            true => ring.latest_version(&walk.layout, next, upto_us.saturating_sub(1)).is_some(),
            // A deletion is an event of the life that it ends.
            false => walk.pane.is_some() || life == next,
        }
    }

    /// Whether readers see the key: it is there, and in an inner join the table has its row.
    fn is_shown(&self, walk: &Walk, ring: &Ring) -> bool {
        self.position.present && (!walk.needs_partner || ring.partner.is_there(self.position.partner))
    }

    /// What came before contributes nothing from here on.
    fn begin_life(&mut self, walk: &Walk) {
        let next = self.position.next;
        self.position.life = next;
        self.bounds.fill(Bounds { lo: next, hi: next, next_us: i64::MAX });
        self.accumulators = walk.accumulators();
    }

    fn move_frame(&mut self, walk: &Walk, ring: &Ring, f: usize, at: i64) {
        let layout = &walk.layout;
        let Position { next, life, .. } = self.position;
        let Bounds { lo: old_lo, hi: old_hi, .. } = self.bounds[f];
        let mut moved = Bounds { lo: old_lo, hi: old_hi, next_us: i64::MAX };
        match walk.frames[f].frame {
            Frame::Range { start_us, end_us } => {
                while moved.hi < next {
                    let enters = ring.time(layout, moved.hi).saturating_add(end_us);
                    if enters > at {
                        moved.next_us = enters;
                        break;
                    }
                    moved.hi += 1;
                }
                if let Some(start_us) = start_us {
                    while moved.lo < moved.hi {
                        let leaves = walk.on_grid(ring.time(layout, moved.lo).saturating_add(start_us + 1));
                        if leaves > at {
                            moved.next_us = moved.next_us.min(leaves);
                            break;
                        }
                        moved.lo += 1;
                    }
                }
            }
            // Its one frame is moved by `apply_to_pane`.
            Frame::Pane(_) => {}
            Frame::Rows { start, end } => {
                moved.hi = next.saturating_sub(end).max(life);
                moved.lo = match start {
                    Some(start) => next.saturating_sub(start.saturating_add(1)).max(life).min(moved.hi),
                    None => life,
                };
            }
        }
        self.replace(walk, ring, f, moved);
    }

    /// Lets events enter and leave a frame until it has these bounds.
    pub(super) fn replace(&mut self, walk: &Walk, ring: &Ring, f: usize, moved: Bounds) {
        let Bounds { lo: old_lo, hi: old_hi, .. } = self.bounds[f];
        // An event that enters and leaves in one step need not be touched.
        for index in old_hi.max(moved.lo)..moved.hi {
            self.change(walk, ring, f, index, Move::Enter);
        }
        if !walk.frames[f].unbounded {
            for index in old_lo..moved.lo.min(old_hi) {
                self.change(walk, ring, f, index, Move::Leave);
            }
        }
        self.bounds[f] = moved;
    }

    /// One event enters or leaves one frame.
    pub(super) fn change(&mut self, walk: &Walk, ring: &Ring, f: usize, index: u64, change: Move) {
        for i in walk.frames[f].folds.clone() {
            self.change_one(walk, ring, i, index, change);
        }
    }

    /// One event enters or leaves one aggregate.
    pub(super) fn change_one(&mut self, walk: &Walk, ring: &Ring, i: usize, index: u64, change: Move) {
        let layout = &walk.layout;
        let Fold { of, arg, other, filter, .. } = &walk.folds[i];
        if filter.is_some_and(|filter| !ring.cell(layout, index, filter).is_true()) {
            return;
        }
        let read = |index, which| {
            let input = match which {
                Which::Arg => arg,
                Which::Other => other,
                Which::Time => return Cell::Int(ring.time(layout, index)),
            };
            input.map_or(Cell::Bool(true), |input| ring.cell(layout, index, input))
        };
        self.accumulators[i].apply(of, change, index, read);
    }

    /// Appends the value of every slot at `at`, `latest` the key's latest event; whether an aggregate left its type's range.
    pub(super) fn evaluate(&self, walk: &Walk, ring: &Ring, latest: u64, at: i64, out: &mut Vec<Value>) -> bool {
        let mut out_of_range = false;
        out.extend(walk.slots.iter().map(|source| match source {
            SlotSource::Raw(input) => ring.cell(&walk.layout, latest, *input).to_value(),
            SlotSource::Partner(column) => ring.partner.cell(self.position.partner, *column).to_value(),
            SlotSource::Bound { end } => Value::Int(self.window_bound(walk, ring, *end)),
            SlotSource::Fold(i) => {
                let (value, beyond) = self.value(walk, ring, *i, at);
                out_of_range |= beyond;
                value
            }
        }));
        out_of_range
    }

    fn value(&self, walk: &Walk, ring: &Ring, i: usize, at: i64) -> (Value, bool) {
        let fold = &walk.folds[i];
        match &self.accumulators[i] {
            state @ (Accumulator::Positional | Accumulator::Monotonic(_)) => {
                fold.read(walk, ring, self.bounds[fold.frame], state, at)
            }
            running => running.evaluate(&fold.of),
        }
    }

    /// Bytes on the heap, nearly.
    pub(super) fn memory(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |held| size_of_val(&*held.outputs) + size_of_val(&*held.since));
        let accumulators: usize = self.accumulators.iter().map(Accumulator::memory).sum();
        size_of_val(&*self.bounds) + size_of_val(&*self.accumulators) + accumulators + held
    }

    /// The first event that a frame, a raw column, the event time or the TTL can still read.
    pub(super) fn oldest_needed(&self, walk: &Walk) -> u64 {
        let Position { next, life, .. } = self.position;
        let latest = if next > life { next - 1 } else { next };
        if walk.pane.is_some() {
            return self.bounds.iter().fold(latest, |oldest, bounds| oldest.min(bounds.lo));
        }
        self.bounds.iter().zip(&walk.frames).fold(latest, |oldest, (bounds, shape)| {
            // Nothing leaves an unbounded frame one by one; last_value still reads its last event.
            let needed = if shape.unbounded { bounds.hi.saturating_sub(1).max(life) } else { bounds.lo };
            oldest.min(needed)
        })
    }
}
