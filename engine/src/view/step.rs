//! Steps: the rows of history, in columns as far as it pays.
//!
//! Of keys that several views read (`family.rs`) a step says beside what it changed, in bits: that every reader has it, that a
//! month begins, then one for each output.

use super::packed::{Outputs, Packed};
use crate::{
    compiled::Row,
    key::{Held, Instant},
    value::Value,
};
use ahash::RandomState;
use std::{collections::HashMap, ops::Range, sync::Arc};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Upsert,
    Delete,
    Carry,
}

impl Op {
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Upsert => "upsert",
            Op::Delete => "delete",
            Op::Carry => "carry",
        }
    }
}

/// Some steps of one view.
#[derive(Debug, Default, Clone)]
pub struct Steps {
    keys: Vec<Arc<[Value]>>,
    instants_us: Vec<i64>,
    events_us: Vec<i64>,
    ops: Vec<Op>,
    /// The outputs of each step, one after another; a delete has none.
    outputs: Packed,
    /// Where the outputs of each step end.
    ends: Vec<u32>,
    /// As many words for each step; none where one view alone reads them.
    changed: Vec<u64>,
}

/// Steps as they come, in pieces: a vector of all of them would be copied as it grows, each time into memory that is to be cleared first.
#[derive(Debug, Default)]
pub struct Pieces {
    full: Vec<Steps>,
    last: Steps,
}

/// Steps of a piece: some 300 kB where a view has four outputs.
const PIECE: usize = 4096;

/// A step's bits.
pub(super) const EVERY: usize = 0;
pub(super) const MONTH: usize = 1;
/// That of the first output.
pub(super) const OUTPUTS: usize = 2;

/// How many words have the bits of a step with so many outputs.
pub(super) fn words(outputs: usize) -> usize {
    (OUTPUTS + outputs).div_ceil(64)
}

pub(super) fn set(bits: &mut [u64], bit: usize) {
    bits[bit / 64] |= 1 << (bit % 64);
}

pub(super) fn has(bits: &[u64], bit: usize) -> bool {
    bits.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

/// One row of history.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    pub key: &'a Arc<[Value]>,
    pub instant_us: i64,
    pub event_us: i64,
    pub op: Op,
    /// Stored columns that are neither key nor time; none for a delete.
    pub outputs: Outputs<'a>,
    /// What it changed, where several views read it; else nothing.
    pub(super) changed: &'a [u64],
}

impl<'a> Step<'a> {
    /// The row that holds, as the step that brought it.
    pub fn holding(row: &'a Row) -> Step<'a> {
        Step {
            key: &row.key,
            instant_us: row.instant_us,
            event_us: row.event_us,
            op: Op::Upsert,
            outputs: row.outputs[..].into(),
            changed: &[],
        }
    }

    pub fn row(&self) -> Row {
        Row {
            key: self.key.clone(),
            instant_us: self.instant_us,
            event_us: self.event_us,
            outputs: self.outputs.to_values(),
        }
    }
}

impl Steps {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn push(&mut self, step: Step<'_>) {
        self.keys.push(step.key.clone());
        self.instants_us.push(step.instant_us);
        self.events_us.push(step.event_us);
        self.ops.push(step.op);
        if step.op != Op::Delete {
            self.outputs.extend(step.outputs);
        }
        self.ends.push(self.outputs.len() as u32);
        self.changed.extend_from_slice(step.changed);
    }

    /// Step `i`, in the order in which they came.
    pub fn get(&self, i: usize) -> Step<'_> {
        let begin = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        let words = self.changed.len().checked_div(self.keys.len()).unwrap_or(0);
        Step {
            key: &self.keys[i],
            instant_us: self.instants_us[i],
            event_us: self.events_us[i],
            op: self.ops[i],
            outputs: self.outputs.get(begin..self.ends[i] as usize),
            changed: &self.changed[i * words..(i + 1) * words],
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Step<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Empty, with room for a piece of steps like these.
    fn another(&self) -> Steps {
        let each = |all: usize| PIECE * all.div_ceil(self.len().max(1));
        Steps {
            keys: Vec::with_capacity(PIECE),
            instants_us: Vec::with_capacity(PIECE),
            events_us: Vec::with_capacity(PIECE),
            ops: Vec::with_capacity(PIECE),
            outputs: Packed::with_capacity(each(self.outputs.len())),
            ends: Vec::with_capacity(PIECE),
            changed: Vec::with_capacity(each(self.changed.len())),
        }
    }

    fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.instants_us.shrink_to_fit();
        self.events_us.shrink_to_fit();
        self.ops.shrink_to_fit();
        self.outputs.shrink();
        self.ends.shrink_to_fit();
        self.changed.shrink_to_fit();
    }
}

impl Pieces {
    pub fn push(&mut self, step: Step<'_>) {
        if self.last.len() == PIECE {
            let next = self.last.another();
            self.full.push(std::mem::replace(&mut self.last, next));
        }
        self.last.push(step);
    }

    /// All of them, none empty.
    pub fn into_steps(mut self) -> Vec<Steps> {
        if self.last.len() < self.last.keys.capacity() / 2 {
            self.last.shrink();
        }
        self.full.push(self.last);
        self.full.retain(|steps| !steps.is_empty());
        self.full
    }
}

/// Where a step is: its chunk, and its place there.
type At = (u32, u32);

/// The steps of chunks by entity key, those of one key as they were made: oldest first, where each chunk is younger than those before
/// it. So files of history want them, and rows that are built in that order need not be put in order any more.
///
/// Keys are compared once each: steps go to their places by the number of their key (a counting sort).
pub fn by_key(chunks: &[Arc<Steps>]) -> Vec<At> {
    // By address, which is a key's own while its steps hold it. One that left memory and came back has two.
    let mut numbers: HashMap<*const Value, u32, RandomState> = HashMap::default();
    let mut keys: Vec<&[Value]> = vec![];
    let mut of_step = Vec::with_capacity(chunks.iter().map(|chunk| chunk.len()).sum());
    for key in chunks.iter().flat_map(|chunk| &chunk.keys) {
        of_step.push(*numbers.entry(key.as_ptr()).or_insert_with(|| {
            keys.push(key);
            keys.len() as u32 - 1
        }));
    }
    let mut in_order: Vec<u32> = (0..keys.len() as u32).collect();
    in_order.sort_unstable_by_key(|number| keys[*number as usize]);
    let mut ranks = vec![0; keys.len()];
    for (i, number) in in_order.iter().enumerate() {
        let is_same = i > 0 && keys[in_order[i - 1] as usize] == keys[*number as usize];
        ranks[*number as usize] = if is_same { ranks[in_order[i - 1] as usize] } else { i };
    }
    let mut begins = vec![0; keys.len() + 1];
    of_step.iter().for_each(|number| begins[ranks[*number as usize] + 1] += 1);
    for i in 1..begins.len() {
        begins[i] += begins[i - 1];
    }
    let mut places = vec![(0, 0); of_step.len()];
    let mut of_step = of_step.into_iter();
    for (c, chunk) in chunks.iter().enumerate() {
        for (i, number) in of_step.by_ref().take(chunk.len()).enumerate() {
            let next: &mut usize = &mut begins[ranks[number as usize]];
            places[*next] = (c as u32, i as u32);
            *next += 1;
        }
    }
    places
}

/// The step that [`by_key`] has put there.
pub fn step_at(chunks: &[Arc<Steps>], (chunk, i): At) -> Step<'_> {
    chunks[chunk as usize].get(i as usize)
}

/// Steps in chunks that other readers have too.
#[derive(Debug, Clone, Default)]
pub struct SharedSteps(pub(super) Vec<Arc<Steps>>);

impl SharedSteps {
    pub fn iter(&self) -> impl Iterator<Item = Step<'_>> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }
}

/// What happened at some instants, of one key or of several one after another, with the outputs that then hold.
pub struct Outcomes {
    pub(super) each: Vec<Instant>,
    /// Those of each instant, one after another.
    pub(super) outputs: Vec<Value>,
    /// How many outputs an instant has.
    pub(super) stride: usize,
    /// How many of them are NULL because they could not be computed; of aggregates out of range, one an instant.
    pub(super) failed: usize,
    /// Several views read them ([`crate::key::Walk::tracks`]).
    pub(super) tracks: bool,
}

impl Outcomes {
    pub fn all(&self) -> Range<usize> {
        0..self.each.len()
    }

    /// Takes over the instants of one key into `held`; the steps among them go to `out`.
    pub fn settle_each(
        &self,
        instants: Range<usize>,
        held: &mut Option<Held>,
        key: &Arc<[Value]>,
        mut out: impl FnMut(Step<'_>),
    ) {
        let mut changed = vec![0; if self.tracks { words(self.stride) } else { 0 }];
        for i in instants {
            let (instant, outputs) = (&self.each[i], &self.outputs[i * self.stride..(i + 1) * self.stride]);
            changed.fill(0);
            if let Some(op) = settle(held, instant, outputs, &mut changed) {
                let (instant_us, event_us) = (instant.at_us, instant.event_us);
                out(Step { key, instant_us, event_us, op, outputs: outputs.into(), changed: &changed });
            }
        }
    }
}

/// Turns an instant into a step, if it is one: presence, `_event_time` or the bits of an output changed, or a month
/// began. `held` is what held before, and then what holds. Where there is room for it, `changed` gets what the step changed.
fn settle(held: &mut Option<Held>, instant: &Instant, outputs: &[Value], changed: &mut [u64]) -> Option<Op> {
    if !instant.present {
        held.take()?;
        return Some(Op::Delete);
    }
    match held {
        Some(held) => {
            if !changed.is_empty() {
                track(held, instant, outputs, changed);
            }
            let mut is_new = held.event_us != instant.event_us;
            for (before, now) in held.outputs.iter_mut().zip(outputs) {
                if before != now {
                    before.clone_from(now);
                    is_new = true;
                }
            }
            if !is_new && !instant.month {
                return None;
            }
            held.instant_us = instant.at_us;
            held.event_us = instant.event_us;
            Some(if is_new { Op::Upsert } else { Op::Carry })
        }
        None => {
            let (instant_us, event_us) = (instant.at_us, instant.event_us);
            let mut since: Box<[i64]> = Box::default();
            if !changed.is_empty() {
                since = vec![instant_us; outputs.len() + 1].into();
                set(changed, EVERY);
            }
            *held = Some(Held { instant_us, event_us, outputs: outputs.into(), since });
            Some(Op::Upsert)
        }
    }
}

/// Which outputs are others than those that hold, and since when now.
fn track(held: &mut Held, instant: &Instant, outputs: &[Value], changed: &mut [u64]) {
    if held.event_us != instant.event_us {
        set(changed, EVERY);
        held.since[0] = instant.at_us;
    }
    if instant.month {
        set(changed, MONTH);
        held.since[0] = instant.at_us;
    }
    for (i, (before, now)) in held.outputs.iter().zip(outputs).enumerate() {
        if before != now {
            set(changed, OUTPUTS + i);
            held.since[1 + i] = instant.at_us;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_step_has_a_bit_for_every_output_in_as_few_words_as_there_may_be() {
        assert_eq!([0, 1, 62, 63, 126, 127].map(words), [1, 1, 1, 2, 2, 3]);
        for bit in [0, 1, 62, 63, 64, 65, 127, 128] {
            let mut bits = [0u64; 3];
            set(&mut bits, bit);
            let found: Vec<usize> = (0..300).filter(|bit| has(&bits, *bit)).collect();
            assert_eq!(found, [bit]);
            set(&mut bits, bit);
            set(&mut bits, 5);
            assert!(has(&bits, bit) && has(&bits, 5), "{bit}");
        }
        assert!(!has(&[], 0));
    }

    #[test]
    fn steps_come_out_as_they_were_put_in_and_a_delete_has_no_outputs() {
        let key: Arc<[Value]> = [Value::Int(1)].into();
        let outputs = [Value::Int(5), Value::Null];
        let mut steps = Steps::default();
        assert!(steps.is_empty() && steps.iter().next().is_none());
        let all: [(i64, Op, [u64; 2]); 4] =
            [(10, Op::Upsert, [1, 2]), (11, Op::Delete, [3, 4]), (12, Op::Carry, [5, 6]), (13, Op::Delete, [7, 8])];
        for (instant_us, op, changed) in &all {
            let (instant_us, event_us, op) = (*instant_us, instant_us - 5, *op);
            steps.push(Step { key: &key, instant_us, event_us, op, outputs: outputs[..].into(), changed });
        }
        assert_eq!((steps.len(), steps.is_empty()), (4, false));
        for (step, (instant_us, op, changed)) in steps.iter().zip(&all) {
            assert_eq!((step.instant_us, step.event_us, step.op), (*instant_us, instant_us - 5, *op));
            let expected: &[Value] = if *op == Op::Delete { &[] } else { &outputs };
            assert_eq!(&*step.outputs.to_values(), expected);
            assert_eq!((step.changed, step.key), (&changed[..], &key));
            assert_eq!(step.row().instant_us, *instant_us);
        }
    }

    fn instant(at_us: i64, event_us: i64, month: bool) -> Instant {
        Instant { at_us, present: true, event_us, month, out_of_range: false }
    }

    /// The bits that are set.
    fn named(changed: &[u64]) -> Vec<usize> {
        (0..64 * changed.len()).filter(|bit| has(changed, *bit)).collect()
    }

    #[test]
    fn an_instant_is_a_step_where_something_is_other_or_a_month_begins() {
        let (one, two) = ([Value::Int(1), Value::Int(9)], [Value::Int(2), Value::Int(9)]);
        let absent = Instant { present: false, ..instant(0, 0, false) };
        for tracks in [false, true] {
            let mut held = None;
            let mut settled = |instant: Instant, outputs: &[Value]| {
                let mut changed = vec![0; usize::from(tracks)];
                let op = settle(&mut held, &instant, outputs, &mut changed);
                (
                    op,
                    named(&changed),
                    held.as_ref().map(|held: &Held| (held.instant_us, held.event_us, held.since.to_vec())),
                )
            };
            let bits = |bits: &[usize]| if tracks { bits.to_vec() } else { vec![] };
            let holds = |at_us: i64, event_us: i64, since: [i64; 3]| {
                Some((at_us, event_us, if tracks { since.to_vec() } else { vec![] }))
            };
            assert_eq!(settled(absent, &[]), (None, vec![], None), "it was not there");
            assert_eq!(
                settled(instant(10, 10, false), &one),
                (Some(Op::Upsert), bits(&[EVERY]), holds(10, 10, [10; 3]))
            );
            assert_eq!(
                settled(instant(11, 10, false), &one),
                (None, vec![], holds(10, 10, [10; 3])),
                "nothing is other"
            );
            let second = (Some(Op::Upsert), bits(&[OUTPUTS]), holds(12, 10, [10, 12, 10]));
            assert_eq!(settled(instant(12, 10, false), &two), second, "one output");
            let third = (Some(Op::Upsert), bits(&[EVERY]), holds(13, 13, [13, 12, 10]));
            assert_eq!(settled(instant(13, 13, false), &two), third, "the latest event only");
            let fourth = (Some(Op::Carry), bits(&[MONTH]), holds(14, 13, [14, 12, 10]));
            assert_eq!(settled(instant(14, 13, true), &two), fourth, "a month begins");
            let fifth = (Some(Op::Upsert), bits(&[MONTH, OUTPUTS]), holds(15, 13, [15, 15, 10]));
            assert_eq!(settled(instant(15, 13, true), &one), fifth, "both at once");
            assert_eq!(settled(absent, &[]), (Some(Op::Delete), vec![], None));
            assert_eq!(settled(absent, &[]), (None, vec![], None), "gone already");
        }
    }

    #[test]
    fn outcomes_of_several_keys_lie_one_after_another() {
        let key: Arc<[Value]> = [Value::Int(1)].into();
        let each = vec![instant(1, 1, false), instant(2, 2, false), instant(3, 3, false)];
        let outputs: Vec<Value> = (0..6).map(Value::Int).collect();
        let outcomes = Outcomes { each, outputs, stride: 2, failed: 0, tracks: true };
        assert_eq!(outcomes.all(), 0..3);
        let (mut held, mut seen) = (None, vec![]);
        outcomes.settle_each(1..3, &mut held, &key, |step| {
            seen.push((step.instant_us, step.outputs.to_values().into_vec(), named(step.changed)))
        });
        let pair = |a, b| vec![Value::Int(a), Value::Int(b)];
        let second = (3, pair(4, 5), vec![EVERY, OUTPUTS, OUTPUTS + 1]);
        assert_eq!(seen, [(2, pair(2, 3), vec![EVERY]), second]);
        assert_eq!(held.map(|held| held.since.to_vec()), Some(vec![3, 3, 3]));
    }

    proptest! {
        /// Against a stable sort. Every key is allocated anew now and then, as one that comes back into memory.
        #[test]
        fn steps_are_put_in_the_order_of_their_keys(events in prop::collection::vec((0i64..6, any::<bool>()), 0..60)) {
            let mut keys: Vec<Arc<[Value]>> = (0..6).map(|key| Arc::from([Value::Int(key)])).collect();
            let mut chunks = vec![Steps::default()];
            for (instant_us, (key, is_new)) in events.into_iter().enumerate() {
                if is_new {
                    keys[key as usize] = Arc::from([Value::Int(key)]);
                    chunks.push(Steps::default());
                }
                let (key, instant_us) = (&keys[key as usize], instant_us as i64);
                let outputs = [Value::Int(-instant_us)];
                let step = Step { key, instant_us, event_us: 0, op: Op::Upsert, outputs: outputs[..].into(), changed: &[] };
                chunks.last_mut().expect("one").push(step);
            }
            let chunks: Vec<Arc<Steps>> = chunks.into_iter().map(Arc::new).collect();
            let shown = |steps: Vec<Step<'_>>| -> Vec<_> {
                steps.iter().map(|step| (step.key.to_vec(), step.instant_us, step.outputs.to_values())).collect()
            };
            let mut expected: Vec<Step<'_>> = chunks.iter().flat_map(|chunk| chunk.iter()).collect();
            expected.sort_by_key(|step| step.key.clone());
            prop_assert_eq!(shown(by_key(&chunks).into_iter().map(|at| step_at(&chunks, at)).collect()), shown(expected));
        }
    }
}
