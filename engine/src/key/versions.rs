//! A cursor over versions of a changelog table's rows: a version counts from its time until the next one of its row.
//!
//! ```text
//! row a      a1 ────────────▶ a2 ──────────────────▶ (current)
//! row b              b1 ───────────────▶ †           gone: deleted, no longer let through by WHERE, or of another key
//! ring       a1      b1       a2 ×a1     ×b1         × is an end: it names the version that ends there
//! ```
//!
//! A version knows until when it counts, and that is decided before any cursor reaches that instant: changes of one row have
//! times that never go back. So whether one counts at an instant is read from it alone, and an end only says when to look.
//! Aggregates take versions out in any order; those that cannot are made again from the versions in their frame.

use super::{
    calendar::next_month,
    cursor::{Bounds, Cursor, Instant, Instants, Position},
    ring::Ring,
    walk::Walk,
};
use crate::{
    accumulate::{Accumulator, Move},
    value::Value,
};
use tidemark_planner::feature::Frame;

impl Cursor {
    pub(super) fn apply_to_versions(&mut self, walk: &Walk, ring: &Ring, at: i64, out: &mut Instants) {
        let layout = &walk.layout;
        let was_present = self.position.present;
        let from = self.position.next;
        while self.position.next < ring.end() && ring.time(layout, self.position.next) == at {
            self.position.next += 1;
        }
        let next = self.position.next;
        let arrived = next > from;
        // One that ends in the instant in which it begins was never in a frame.
        let ended: Vec<u64> = (from..next).filter_map(|end| ring.ended(layout, end)).filter(|i| *i < from).collect();
        let latest = ring.latest_version(layout, next, at);
        // What is due later is reckoned from here.
        self.position.upto_us = at.saturating_add(1);
        let latest_us = latest.map_or(at, |latest| ring.time(layout, latest));
        self.position.present = latest.is_some() && walk.ttl_us.is_none_or(|ttl| at <= latest_us.saturating_add(ttl));
        let month = at == self.position.month_us;
        if at >= self.position.month_us {
            self.position.month_us = next_month(at);
        }
        let mut moved = arrived || month;
        for f in 0..self.bounds.len() {
            if arrived || self.bounds[f].next_us <= at {
                self.move_among_versions(walk, ring, f, at, &ended);
                moved = true;
            }
        }
        if !self.position.present {
            if was_present {
                out.each.push(Instant { at_us: at, present: false, event_us: at, month: false, out_of_range: false });
                out.slots.resize(out.slots.len() + walk.slots.len(), Value::Null);
            }
            return;
        }
        if moved || !was_present {
            let out_of_range = self.evaluate(walk, ring, latest.unwrap_or(0), at, &mut out.slots);
            out.each.push(Instant { at_us: at, present: true, event_us: latest_us, month, out_of_range });
        }
    }

    /// When a present key's latest version is too old.
    pub(super) fn versions_expire(&self, walk: &Walk, ring: &Ring, ttl_us: i64) -> i64 {
        let layout = &walk.layout;
        let latest = ring.latest_version(layout, self.position.next, self.position.upto_us.saturating_sub(1));
        latest.map_or(i64::MAX, |latest| ring.time(layout, latest).saturating_add(ttl_us + 1))
    }

    fn move_among_versions(&mut self, walk: &Walk, ring: &Ring, f: usize, at: i64, ended: &[u64]) {
        let layout = &walk.layout;
        let old = self.bounds[f];
        let counts = |index: &u64| ring.is_version(layout, *index, at);
        let ended: Vec<u64> = ended.iter().copied().filter(|i| (old.lo..old.hi).contains(i)).collect();
        let new = bounds_among_versions(walk.frames[f].frame, walk, ring, self.position.next, old, at);
        let remake = self.cannot_follow(walk, f, &ended, old, new);
        for index in ended {
            self.change(walk, ring, f, index, Move::Leave);
        }
        let entering = (new.lo..new.hi.min(old.lo)).chain(new.lo.max(old.hi)..new.hi);
        let leaving = (old.lo..old.hi.min(new.lo)).chain(old.lo.max(new.hi)..old.hi);
        for index in entering.filter(counts) {
            self.change(walk, ring, f, index, Move::Enter);
        }
        for index in leaving.filter(counts) {
            self.change(walk, ring, f, index, Move::Leave);
        }
        self.bounds[f] = new;
        for fold in remake {
            self.accumulators[fold] = walk.folds[fold].of.accumulator();
            for index in (new.lo..new.hi).filter(counts) {
                self.change_one(walk, ring, fold, index, Move::Enter);
            }
        }
    }

    /// The folds that know their events only as first in, first out, where this is something else.
    fn cannot_follow(&self, walk: &Walk, f: usize, ended: &[u64], old: Bounds, new: Bounds) -> Vec<usize> {
        let turned = new.lo < old.lo || new.hi < old.hi;
        let cannot = |fold: &usize| match &self.accumulators[*fold] {
            // One that another has outdone is not missed.
            Accumulator::Monotonic(candidates) => turned || ended.iter().any(|i| candidates.binary_search(i).is_ok()),
            Accumulator::Decayed(_) | Accumulator::Increase(_) => turned || !ended.is_empty(),
            _ => false,
        };
        walk.frames[f].folds.clone().filter(cannot).collect()
    }

    /// The events have other numbers now: `number` gives them, for those that still count.
    pub(super) fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        let Position { next, .. } = &mut self.position;
        *next = number(*next);
        for bounds in &mut self.bounds {
            bounds.lo = number(bounds.lo);
            bounds.hi = number(bounds.hi);
        }
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.renumber(&number));
    }
}

/// Where the frame begins and ends at `at`; what no longer counts between may be of it or not.
fn bounds_among_versions(frame: Frame, walk: &Walk, ring: &Ring, next: u64, old: Bounds, at: i64) -> Bounds {
    let layout = &walk.layout;
    let mut new = Bounds { lo: old.lo, hi: old.hi, next_us: i64::MAX };
    match frame {
        Frame::Range { start_us, end_us } => {
            for hi in old.hi..next {
                if ring.is_version(layout, hi, at) {
                    let enters = ring.time(layout, hi).saturating_add(end_us);
                    if enters > at {
                        new.next_us = enters;
                        break;
                    }
                }
                new.hi = hi + 1;
            }
            for lo in old.lo..new.hi {
                if ring.is_version(layout, lo, at) {
                    let leaves = start_us.map(|us| walk.on_grid(ring.time(layout, lo).saturating_add(us + 1)));
                    if leaves.is_none_or(|leaves| leaves > at) {
                        new.next_us = new.next_us.min(leaves.unwrap_or(i64::MAX));
                        break;
                    }
                }
                new.lo = lo + 1;
            }
        }
        Frame::Rows { start, end } => {
            let mut back = 0;
            (new.lo, new.hi) = (ring.first(), ring.first());
            for index in (ring.first()..next).rev().filter(|index| ring.is_version(layout, *index, at)) {
                if back == end {
                    new.hi = index + 1;
                }
                if start == Some(back) {
                    new.lo = index;
                    break;
                }
                back += 1;
                // Without a beginning it is everything before its end.
                if start.is_none() && back > end {
                    break;
                }
            }
        }
        // Over changelogs there are none.
        Frame::Pane(_) => {}
    }
    new
}
