//! Windows that begin and end by themselves: the frame is the last that is over and not empty. It changes where one ends,
//! and nothing happens where an event arrives.
//!
//! ```text
//! tumble   |  e0 e1 |     e2 |        |  e3    |        each | ends a window; at the fourth nothing changes: an empty window
//!                   ▲        ▲                 ▲        is not shown
//! session  e0 e1·····|          e2···e3··e4·····|       ····· is the gap; ends are only known once time has reached them
//! ```

use super::{
    calendar::next_month,
    cursor::{Bounds, Cursor, Instant, Instants},
    ring::Ring,
    walk::Walk,
};
use crate::value::Value;
use tidemark_planner::feature::Pane;

/// The frame of such a view.
const FRAME: usize = 0;

impl Cursor {
    /// When the shown window next changes, a month begins, or the TTL is over.
    pub(super) fn next_of_pane(&self, walk: &Walk, ring: &Ring, pane: Pane) -> Option<i64> {
        let mut at = self.next_end(walk, ring, pane);
        if self.position.present {
            at = at.min(self.position.month_us);
            if let Some(ttl) = walk.ttl_us {
                at = at.min(self.position.pane_end_us.saturating_add(ttl + 1));
            }
        }
        (at != i64::MAX).then_some(at)
    }

    /// Where the next window that is not empty ends, as far as is known; `i64::MAX`: there is none.
    fn next_end(&self, walk: &Walk, ring: &Ring, pane: Pane) -> i64 {
        let layout = &walk.layout;
        let Bounds { lo, hi, .. } = self.bounds[FRAME];
        let open = (hi < ring.end()).then(|| ring.time(layout, hi));
        match pane {
            Pane::Session { gap_us } => {
                open.map_or(i64::MAX, |_| ring.time(layout, self.position.session).saturating_add(gap_us))
            }
            Pane::Hop { size_us, hop_us } => {
                if lo < hi {
                    let end = self.position.pane_end_us.saturating_add(hop_us);
                    let still_in = ring.time(layout, hi - 1) >= end - size_us;
                    if still_in || open.is_some_and(|time| time < end) {
                        return end;
                    }
                }
                open.map_or(i64::MAX, |time| (time.div_euclid(hop_us) + 1).saturating_mul(hop_us))
            }
        }
    }

    pub(super) fn apply_to_pane(&mut self, walk: &Walk, ring: &Ring, pane: Pane, at: i64, out: &mut Instants) {
        let layout = &walk.layout;
        let ends = self.next_end(walk, ring, pane) == at;
        if ends {
            let Bounds { lo: old_lo, hi: old_hi, .. } = self.bounds[FRAME];
            let mut moved = Bounds { lo: old_lo, hi: old_hi, next_us: i64::MAX };
            match pane {
                Pane::Session { .. } => {
                    moved.lo = old_hi;
                    moved.hi = self.position.session + 1;
                }
                Pane::Hop { size_us, .. } => {
                    while moved.hi < ring.end() && ring.time(layout, moved.hi) < at {
                        moved.hi += 1;
                    }
                    while moved.lo < moved.hi && ring.time(layout, moved.lo) < at - size_us {
                        moved.lo += 1;
                    }
                }
            }
            self.replace(walk, ring, FRAME, moved);
            self.position.next = moved.hi;
            self.position.pane_end_us = at;
            self.position.present = true;
            self.follow_session(walk, ring, moved.hi);
        }
        let is_expired = |ttl: i64| at > self.position.pane_end_us.saturating_add(ttl);
        let expires = !ends && self.position.present && walk.ttl_us.is_some_and(is_expired);
        let month = at == self.position.month_us;
        if at >= self.position.month_us {
            self.position.month_us = next_month(at);
        }
        let event_us = ring.time(layout, self.position.next - 1);
        if expires {
            self.position.present = false;
            out.each.push(Instant { at_us: at, present: false, event_us, month: false, out_of_range: false });
            out.slots.resize(out.slots.len() + walk.slots.len(), Value::Null);
        } else if ends || (month && self.position.present) {
            let out_of_range = self.evaluate(walk, ring, self.position.next - 1, at, &mut out.slots);
            out.each.push(Instant { at_us: at, present: true, event_us, month, out_of_range });
        }
    }

    /// An event has come in at `index`, or `index` is where the next session begins: finds the last event of the open session
    /// again. In order it is the next one, or none; among the others all of the session are looked at.
    pub(super) fn follow_session(&mut self, walk: &Walk, ring: &Ring, index: u64) {
        let Some(Pane::Session { gap_us }) = walk.pane else { return };
        let first = self.bounds[FRAME].hi;
        let session = &mut self.position.session;
        if index <= *session || *session < first {
            *session = first;
        }
        let time = |index| ring.time(&walk.layout, index);
        while *session + 1 < ring.end() && time(*session + 1).saturating_sub(time(*session)) < gap_us {
            *session += 1;
        }
    }

    /// Where the shown window begins or ends.
    pub(super) fn window_bound(&self, walk: &Walk, ring: &Ring, end: bool) -> i64 {
        match walk.pane {
            _ if end => self.position.pane_end_us,
            Some(Pane::Hop { size_us, .. }) => self.position.pane_end_us - size_us,
            _ => ring.time(&walk.layout, self.bounds[FRAME].lo),
        }
    }
}
