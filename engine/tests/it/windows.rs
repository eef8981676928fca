//! One key's walk through time against the obvious way: at every microsecond, whatever came when, and where things meet at one
//! instant: ties, both ends of a frame, the frontier, the last instant of a TTL, a grid, a month.
//!
//! The oracle does the same with views from SQL and a server. Here it is the kernel alone, quick enough that every small change
//! of it can be tried (`scripts/mutants.py`).

mod reference;

use proptest::prelude::*;
use reference::{Definition, Event, FLAG, ID, Partner, Shown, TEXT, X};
use std::sync::Arc;
use tidemark_engine::{
    cell::Cell,
    key::{Held, Instants, KeyState, NewEvent, Walk},
    value::Value,
};
use tidemark_planner::feature::{Frame, Pane};

/// 1 February 2026, in UTC: the month begins in the middle of what happens.
const MONTH: i64 = 1_769_904_000_000_000;
const BEGIN: i64 = MONTH - 60;

struct World {
    definition: Definition,
    walk: Walk,
    key: KeyState,
    row: NewEvent,
    events: Vec<Event>,
    partners: Vec<Partner>,
    offset: u64,
    frontier_us: i64,
}

impl World {
    fn new(definition: Definition) -> World {
        World::beginning_at(definition, BEGIN)
    }

    fn beginning_at(definition: Definition, frontier_us: i64) -> World {
        let walk = Walk::new(&definition.plan());
        let key = KeyState::new(&walk, [Value::Int(7)].into(), frontier_us);
        let row = walk.layout.row();
        World { definition, walk, key, row, events: vec![], partners: vec![], offset: 0, frontier_us }
    }

    /// Offers an event to the key; whether it was taken.
    fn offer(&mut self, event: &Event) -> bool {
        let layout = &self.walk.layout;
        self.row.reset(layout, event.time_us, event.offset, event.delete);
        for (input, value) in [(X, event.x()), (ID, event.id()), (FLAG, Value::Bool(event.flag)), (TEXT, event.text())]
        {
            self.row.set(layout, input, Cell::of(&value));
        }
        self.key.insert(&self.walk, &self.row)
    }

    fn insert(&mut self, time_us: i64, x: Option<i64>, flag: bool, delete: bool) {
        let event = Event { time_us, offset: self.offset, x, flag, delete };
        self.offset += 1;
        assert!(self.offer(&event), "{event:?} is not taken at frontier {}", self.frontier_us);
        let at = self.events.partition_point(|other| other.time_us <= time_us);
        self.events.insert(at, event);
    }

    /// The last instant that is finished stays as it is.
    fn come_too_late(&mut self) {
        let time_us = self.frontier_us - 1;
        assert!(!self.offer(&Event { time_us, offset: self.offset, x: Some(1), flag: true, delete: false }));
        assert!(!self.key.pair(time_us, Some([Value::Int(1)].into())));
    }

    fn pair(&mut self, effective_us: i64, row: Option<i64>) {
        let columns = row.map(|value| -> Arc<[Value]> { [Value::Int(value)].into() });
        assert!(self.key.pair(effective_us, columns));
        self.partners.push((effective_us, row));
    }

    fn expected(&self, t: i64) -> Option<Shown> {
        self.definition.at(&self.events, &self.partners, t)
    }

    fn finish(&mut self, frontier_us: i64) {
        let (from_us, before) = (self.frontier_us, self.key.done.held.clone());
        let mut out = Instants::default();
        self.key.finish(&self.walk, frontier_us, &mut out);
        self.frontier_us = frontier_us;
        self.check(before, &out, from_us, frontier_us);
        settle(&mut self.key.done.held, &out, self.walk.slot_count());
        self.key.trim(&self.walk);
        let needed = self.definition.needed(&self.events, frontier_us);
        assert_eq!(self.key.events(), needed, "events kept at {frontier_us} of {:?}", self.events);
        assert!(self.key.next_instant(&self.walk).is_none_or(|next| next >= frontier_us));
    }

    /// What the instants say from `from_us` up to `upto_us`, `held` before them.
    fn check(&self, mut held: Option<Held>, out: &Instants, from_us: i64, upto_us: i64) {
        let width = self.walk.slot_count();
        assert_eq!(out.slots.len(), out.each.len() * width);
        let mut next = 0;
        for t in from_us..upto_us {
            let mut month = false;
            if out.each.get(next).is_some_and(|instant| instant.at_us == t) {
                month = out.each[next].month;
                let one = Instants {
                    each: vec![out.each[next]],
                    slots: out.slots[next * width..(next + 1) * width].to_vec(),
                };
                settle(&mut held, &one, width);
                next += 1;
                let is_occasion = self.definition.is_occasion(&self.events, &self.partners, t, MONTH);
                assert!(is_occasion, "nothing happens at {t}: {:?} {:?}", self.definition, self.events);
            }
            let expected = self.expected(t);
            assert_eq!(
                shown(held.as_ref()),
                expected,
                "at {t}: {:?} {:?} {:?}",
                self.definition,
                self.events,
                self.partners
            );
            // Who was there in the instant before has a row of the month.
            let is_due = t == MONTH && expected.is_some() && self.expected(t - 1).is_some();
            assert!(month || !is_due, "no row at the month's beginning: {:?} {:?}", self.definition, self.events);
            assert!(!month || t == MONTH, "a month at {t}");
        }
        assert_eq!(next, out.each.len(), "instants out of order or of the range: {:?}", out.each);
    }

    fn look(&mut self, at_us: i64) {
        let mut out = Instants::default();
        let cursor = self.key.online(&self.walk, at_us, &mut out);
        settle(&mut cursor.held, &out, self.walk.slot_count());
        let found = shown(cursor.held.as_ref());
        assert_eq!(found, self.expected(at_us), "online at {at_us}: {:?} {:?}", self.definition, self.events);
        assert!(self.key.next_online_instant(&self.walk).is_none_or(|next| next > at_us));
    }

    fn look_ahead(&self, at_us: i64) {
        let mut out = Instants::default();
        drop(self.key.provisional(&self.walk, at_us, &mut out));
        self.check(self.key.done.held.clone(), &out, self.frontier_us, at_us + 1);
    }

    fn restore(&mut self) {
        let bytes = self.key.encode(&self.walk).expect("it is encoded");
        self.key = KeyState::decode(&self.walk, &bytes).expect("it is decoded");
        assert_eq!(self.key.encode(&self.walk).expect("it is encoded again"), bytes);
    }

    /// All that is to come has come.
    fn end(&mut self) {
        self.finish(self.frontier_us + 400);
        let is_there = self.partners.last().is_some_and(|(_, row)| row.is_some());
        let is_over = !is_there && !self.definition.is_present(&self.events, self.frontier_us);
        assert_eq!(self.key.is_over(&self.walk), is_over, "{:?} {:?}", self.definition, self.events);
    }
}

fn settle(held: &mut Option<Held>, out: &Instants, width: usize) {
    for (i, instant) in out.each.iter().enumerate() {
        *held = instant.present.then(|| Held {
            instant_us: instant.at_us,
            event_us: instant.event_us,
            outputs: out.slots[i * width..(i + 1) * width].into(),
            since: Box::default(),
        });
    }
}

fn shown(held: Option<&Held>) -> Option<Shown> {
    held.map(|held| (held.event_us, held.outputs.to_vec()))
}

/// What may happen, times in microseconds after the frontier.
#[derive(Debug, Clone)]
enum Op {
    Insert {
        after_us: i64,
        x: Option<i64>,
        flag: bool,
        delete: bool,
    },
    /// A change of the joined table's row.
    Pair {
        after_us: i64,
        row: Option<i64>,
    },
    ComeTooLate,
    Finish(i64),
    Look(i64),
    LookAhead(i64),
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    // Often at the same instants.
    let soon =
        || prop_oneof![1 => 0i64..2, 2 => prop::sample::select(vec![5i64, 6, 10, 20, 21, 40, 41]), 3 => 0i64..45];
    prop_oneof![
        8 => (soon(), prop::option::weighted(0.85, -3i64..4), any::<bool>(), any::<bool>())
            .prop_map(|(after_us, x, flag, delete)| Op::Insert { after_us, x, flag, delete }),
        2 => (soon(), prop::option::weighted(0.7, 0i64..3)).prop_map(|(after_us, row)| Op::Pair { after_us, row }),
        1 => Just(Op::ComeTooLate),
        4 => soon().prop_map(Op::Finish),
        3 => soon().prop_map(Op::Look),
        1 => soon().prop_map(Op::LookAhead),
        1 => Just(Op::Restore),
    ]
}

const fn range(start_us: Option<i64>, end_us: i64) -> Frame {
    Frame::Range { start_us, end_us }
}

const fn rows(start: Option<u64>, end: u64) -> Frame {
    Frame::Rows { start, end }
}

const FRAMES: [Frame; 12] = [
    range(Some(20), 0),
    range(Some(25), 5),
    range(Some(7), 7),
    range(Some(0), 0),
    range(None, 0),
    range(None, 5),
    rows(Some(2), 0),
    rows(Some(3), 1),
    rows(Some(1), 1),
    rows(Some(0), 0),
    rows(None, 0),
    rows(None, 2),
];

/// The beginnings are on the grid.
const SLIDE_US: i64 = 10;
const SLIDING: [Frame; 5] =
    [range(Some(20), 0), range(Some(30), 5), range(Some(10), 10), range(None, 5), rows(Some(2), 0)];

const PANES: [Pane; 5] = [
    Pane::Hop { size_us: 20, hop_us: 20 },
    Pane::Hop { size_us: 30, hop_us: 10 },
    Pane::Hop { size_us: 1, hop_us: 1 },
    Pane::Session { gap_us: 6 },
    Pane::Session { gap_us: 1 },
];

fn definition() -> impl Strategy<Value = Definition> {
    let frames = |from: &'static [Frame]| prop::sample::subsequence(from, 1..=3);
    // No shorter than the longest frame and the slide.
    let ttl = || prop::sample::select(vec![None, Some(40i64), Some(41)]);
    let beside = || prop::sample::select(vec![None, None, Some(false), Some(true)]);
    let with = |(frames, ttl_us, left_beside)| Definition { frames, ttl_us, slide_us: None, left_beside };
    prop_oneof![
        5 => (frames(&FRAMES), ttl(), beside()).prop_map(with),
        2 => (frames(&SLIDING), ttl(), beside()).prop_map(move |parts| Definition { slide_us: Some(SLIDE_US), ..with(parts) }),
        3 => (prop::sample::select(PANES.to_vec()), ttl())
            .prop_map(move |(pane, ttl_us)| with((vec![Frame::Pane(pane)], ttl_us, None))),
        // The latest version of a row.
        1 => (ttl(), beside()).prop_map(move |(ttl_us, left_beside)| with((vec![], ttl_us, left_beside))),
    ]
}

fn run(definition: Definition, ops: Vec<Op>) {
    let mut world = World::new(definition);
    for op in ops {
        let frontier_us = world.frontier_us;
        match op {
            Op::Insert { after_us, x, flag, delete } => {
                // Only what has no frames is over a table whose rows are deleted.
                let delete = delete && world.definition.frames.is_empty();
                world.insert(frontier_us + after_us, x, flag, delete);
            }
            Op::Pair { after_us, row } if world.definition.left_beside.is_some() => {
                let last_us = world.partners.last().map_or(i64::MIN, |(from_us, _)| *from_us);
                world.pair(last_us.max(frontier_us + after_us), row);
            }
            Op::Pair { .. } => {}
            Op::ComeTooLate => world.come_too_late(),
            Op::Finish(after_us) => world.finish(frontier_us + after_us),
            Op::Look(after_us) => world.look(frontier_us + after_us),
            Op::LookAhead(after_us) => world.look_ahead(frontier_us + after_us),
            Op::Restore => world.restore(),
        }
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_key_is_at_every_instant_what_its_events_say(definition in definition(), ops in prop::collection::vec(op(), 1..40)) {
        run(definition, ops);
    }
}

/// `(t, count)` for the first slot, which counts events.
fn counts(world: &World, instants: &[(i64, Option<i64>)]) {
    for (t, count) in instants {
        let mut out = Instants::default();
        let mut held = world.key.provisional(&world.walk, *t, &mut out).held;
        settle(&mut held, &out, world.walk.slot_count());
        assert_eq!(held.map(|held| held.outputs[0].clone()), count.map(Value::Int), "at {t}");
    }
}

#[test]
fn an_event_is_in_a_range_frame_at_both_of_its_ends_and_not_beyond() {
    let mut world = World::new(Definition::over(&[range(Some(25), 5)]));
    world.insert(MONTH + 100, Some(1), true, false);
    counts(&world, &[(MONTH + 99, None), (MONTH + 100, Some(0)), (MONTH + 104, Some(0))]);
    counts(&world, &[(MONTH + 105, Some(1)), (MONTH + 125, Some(1)), (MONTH + 126, Some(0))]);
    world.finish(MONTH + 200);
    assert_eq!(
        world.key.next_instant(&world.walk),
        Some(MONTH + 28 * 86_400_000_000),
        "the next month, and nothing before"
    );
}

#[test]
fn what_leaves_waits_for_the_grid_and_what_arrives_does_not() {
    let mut world = World::new(Definition { slide_us: Some(SLIDE_US), ..Definition::over(&[range(Some(20), 0)]) });
    // One leaves as soon as it is older than the frame, which is on the grid itself; one has to wait.
    world.insert(MONTH + 99, Some(1), true, false);
    world.insert(MONTH + 100, Some(1), true, false);
    counts(&world, &[(MONTH + 99, Some(1)), (MONTH + 100, Some(2)), (MONTH + 119, Some(2)), (MONTH + 120, Some(1))]);
    counts(&world, &[(MONTH + 129, Some(1)), (MONTH + 130, Some(0))]);
    world.finish(MONTH + 140);
}

#[test]
fn an_instant_at_the_frontier_is_still_open() {
    let mut world = World::new(Definition::over(&[rows(None, 0)]));
    world.insert(MONTH, Some(1), true, false);
    world.finish(MONTH);
    assert_eq!(world.key.next_instant(&world.walk), Some(MONTH));
    world.insert(MONTH, Some(2), true, false);
    world.finish(MONTH + 1);
    world.come_too_late();
    counts(&world, &[(MONTH + 1, Some(2))]);
}

#[test]
fn a_key_is_there_to_the_last_instant_of_its_ttl_and_begins_anew_behind_it() {
    for (gap_us, count) in [(40, Some(2)), (41, Some(1))] {
        let mut world = World::new(Definition { ttl_us: Some(40), ..Definition::over(&[rows(None, 0)]) });
        world.insert(MONTH + 1, Some(1), true, false);
        counts(&world, &[(MONTH + 41, Some(1)), (MONTH + 42, None)]);
        world.insert(MONTH + 1 + gap_us, Some(1), true, false);
        counts(&world, &[(MONTH + 1 + gap_us, count)]);
        // One by one, so that it ends before the next one is there.
        for frontier_us in MONTH..MONTH + 100 {
            world.finish(frontier_us);
        }
        assert!(world.key.is_over(&world.walk));
        assert_eq!(world.key.events(), 0);
    }
}

#[test]
fn at_the_end_of_time_nothing_leaves_and_nothing_overflows() {
    const END: i64 = i64::MAX - 10;
    for (frame, slide_us) in [(range(Some(20), 0), None), (range(None, 20), None), (range(Some(20), 0), Some(SLIDE_US))]
    {
        for ttl_us in [None, Some(60)] {
            let definition = Definition { ttl_us, slide_us, ..Definition::over(&[frame]) };
            let mut world = World::beginning_at(definition, END - 1);
            world.insert(END, Some(1), true, false);
            let mut out = Instants::default();
            world.key.finish(&world.walk, i64::MAX, &mut out);
            assert_eq!(out.each.iter().map(|instant| instant.at_us).collect::<Vec<_>>(), [END]);
            assert_eq!(world.key.next_instant(&world.walk), None);
            world.key.online(&world.walk, i64::MAX, &mut out);
            assert_eq!(out.each.len(), 1);
        }
    }
    let mut world =
        World::beginning_at(Definition::over(&[Frame::Pane(Pane::Hop { size_us: 64, hop_us: 64 })]), END - 1);
    world.insert(END, Some(1), true, false);
    assert_eq!(world.key.next_instant(&world.walk), None, "the end of that window is no time");
}

#[test]
fn a_session_ends_where_the_gap_is_over_and_an_event_in_that_instant_is_of_the_next() {
    let mut world = World::new(Definition::over(&[Frame::Pane(Pane::Session { gap_us: 6 })]));
    world.insert(MONTH + 10, Some(1), true, false);
    world.insert(MONTH + 16, Some(1), true, false);
    counts(&world, &[(MONTH + 15, None), (MONTH + 16, Some(1)), (MONTH + 21, Some(1)), (MONTH + 22, Some(1))]);
    // Both are one session with an event between them.
    world.insert(MONTH + 13, Some(1), true, false);
    counts(&world, &[(MONTH + 21, None), (MONTH + 22, Some(3))]);
    world.finish(MONTH + 30);
}

#[test]
fn a_state_of_another_shape_is_not_taken_for_one_of_this() {
    let mut world = World::new(Definition::over(&[range(Some(25), 5), rows(Some(2), 0)]));
    for t in 0..5 {
        world.insert(MONTH + t, Some(t), true, false);
    }
    world.finish(MONTH + 5);
    let bytes = world.key.encode(&world.walk).expect("it is encoded");
    assert!(KeyState::decode(&world.walk, &bytes).is_ok());
    let one_frame = Walk::new(&Definition::over(&[rows(Some(2), 0)]).plan());
    assert!(KeyState::decode(&one_frame, &bytes).is_err());
    let unbounded = Walk::new(&Definition::over(&[range(None, 5), rows(None, 0)]).plan());
    assert!(KeyState::decode(&unbounded, &bytes).is_err());
    assert!(KeyState::decode(&world.walk, &bytes[..bytes.len() / 2]).is_err());
}
