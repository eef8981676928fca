//! The events of one key, packed: some words per event in one circular buffer, nothing allocated per event.
//!
//! ```text
//! row      time · mark (offset, delete) · bits (NULLs, booleans) … · cells … · of versions: until when, or what ends
//! beside   values that are no words: texts, bytes, intervals
//! ```

use super::partner::Partner;
use crate::{
    cell::{Cell, Kind},
    value::Value,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidemark_planner::feature::Input;

/// Where the inputs of an event lie in its row.
#[derive(Debug, Clone)]
pub struct Layout {
    inputs: Box<[Place]>,
    /// Words of a row.
    stride: usize,
    /// Values beside a row.
    beside: usize,
    /// Of versions: the word of the row that says until when one counts; of an end, this and the next word are the time and
    /// the mark of the version that it ends.
    until: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    kind: Kind,
    /// Number of the bit that says NULL; a boolean's own bit is the next one.
    null: usize,
    /// Word in the row, or number among the values beside it.
    at: usize,
}

/// `time`, `mark`.
const FIXED: usize = 2;

impl Layout {
    pub fn new(inputs: &[Input], versions: bool) -> Layout {
        let kinds: Vec<Kind> = inputs.iter().map(|input| Kind::of(&input.ty)).collect();
        let bits: usize = kinds.iter().map(|kind| if *kind == Kind::Bool { 2 } else { 1 }).sum();
        let (mut bit, mut word, mut beside) = (0, FIXED + bits.div_ceil(64), 0);
        let places = kinds.into_iter().map(|kind| {
            let mut place = Place { kind, null: bit, at: word };
            bit += 1;
            match kind {
                Kind::Bool => bit += 1,
                Kind::Int | Kind::Float => word += 1,
                Kind::Decimal => word += 2,
                Kind::Other => {
                    place.at = beside;
                    beside += 1;
                }
            }
            place
        });
        let inputs = places.collect();
        let stride = if versions { word + 2 } else { word };
        Layout { inputs, stride, beside, until: word }
    }

    /// Room for an event.
    pub fn row(&self) -> NewEvent {
        NewEvent { words: vec![0; self.stride], beside: vec![Value::Null; self.beside] }
    }
}

/// An event on its way into a ring. One is used again and again.
#[derive(Debug, Clone)]
pub struct NewEvent {
    words: Vec<u64>,
    beside: Vec<Value>,
}

impl NewEvent {
    /// Begins the next event: all inputs are NULL.
    pub fn reset(&mut self, layout: &Layout, time_us: i64, offset: u64, delete: bool) {
        self.words[0] = time_us as u64;
        self.words[1] = offset << 1 | u64::from(delete);
        self.words[FIXED..].fill(0);
        for place in layout.inputs.iter() {
            self.words[FIXED + place.null / 64] |= 1 << (place.null % 64);
        }
        self.beside.fill(Value::Null);
    }

    /// Makes it a version, of which no end is known.
    pub fn counts(&mut self, layout: &Layout) {
        self.words[layout.until] = FOREVER;
    }

    /// Makes it the end of the version at `time_us` with offset `offset`.
    pub fn ends(&mut self, layout: &Layout, time_us: i64, offset: u64) {
        self.words[layout.until] = time_us as u64;
        self.words[layout.until + 1] = offset << 1;
    }

    pub fn set(&mut self, layout: &Layout, input: usize, cell: Cell<'_>) {
        let place = layout.inputs[input];
        match cell {
            Cell::Null => return,
            Cell::Bool(b) => self.words[FIXED + (place.null + 1) / 64] |= u64::from(b) << ((place.null + 1) % 64),
            Cell::Int(i) => self.words[place.at] = i as u64,
            Cell::Float(x) => self.words[place.at] = x.to_bits(),
            Cell::Decimal(d) => {
                self.words[place.at] = d as u64;
                self.words[place.at + 1] = (d >> 64) as u64;
            }
            Cell::Other(value) => self.beside[place.at] = value.clone(),
        }
        self.words[FIXED + place.null / 64] &= !(1 << (place.null % 64));
    }

    pub fn time_us(&self) -> i64 {
        self.words[0] as i64
    }
}

const FOREVER: u64 = i64::MAX as u64;

/// The events of one key by absolute index, in the order (event time, offset), an end behind all that begins; the front is dropped when no cursor needs
/// it any more.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Absolute index of the first event.
    first: u64,
    /// A whole number of rows; the capacity.
    words: Box<[u64]>,
    /// Row in `words` of the first event.
    head: usize,
    len: usize,
    beside: VecDeque<Value>,
    /// Bytes that the values beside point to.
    beside_bytes: usize,
    /// The row of a joined table beside the events.
    pub(super) partner: Partner,
}

/// Rows a ring begins with; it grows by half.
const ROWS: usize = 4;

impl Ring {
    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn end(&self) -> u64 {
        self.first + self.len as u64
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        let events = size_of_val(&*self.words) + self.beside.capacity() * size_of::<Value>() + self.beside_bytes;
        events + self.partner.memory()
    }

    fn capacity(&self, layout: &Layout) -> usize {
        self.words.len() / layout.stride
    }

    /// Where row `i` (from the first) begins in `words`.
    fn start(&self, layout: &Layout, i: usize) -> usize {
        let row = self.head + i;
        let capacity = self.capacity(layout);
        (if row >= capacity { row - capacity } else { row }) * layout.stride
    }

    fn row(&self, layout: &Layout, index: u64) -> Option<&[u64]> {
        let i = index.checked_sub(self.first)? as usize;
        (i < self.len).then(|| &self.words[self.start(layout, i)..][..layout.stride])
    }

    /// Reads something of an event.
    pub fn touch(&self, layout: &Layout, index: u64) -> u64 {
        self.row(layout, index).map_or(0, |row| row[0] ^ row[layout.stride - 1])
    }

    /// Reads where the next event goes, and the one before it.
    pub fn touch_end(&self, layout: &Layout) -> u64 {
        let next = self.words.get(self.start(layout, self.len) + layout.stride - 1).copied().unwrap_or_default();
        next ^ self.end().checked_sub(1).map_or(0, |last| self.touch(layout, last))
    }

    /// The event's time; indices are kept inside the ring, so the default is never seen.
    pub fn time(&self, layout: &Layout, index: u64) -> i64 {
        self.row(layout, index).map_or(i64::MAX, |row| row[0] as i64)
    }

    /// Whether the event is a changelog's delete: from here on the key is absent.
    pub fn is_delete(&self, layout: &Layout, index: u64) -> bool {
        self.row(layout, index).is_some_and(|row| row[1] & 1 == 1)
    }

    /// An input of an event.
    pub fn cell(&self, layout: &Layout, index: u64, input: usize) -> Cell<'_> {
        let Some(row) = self.row(layout, index) else { return Cell::Null };
        let place = layout.inputs[input];
        let bit = |n: usize| row[FIXED + n / 64] >> (n % 64) & 1 == 1;
        if bit(place.null) {
            return Cell::Null;
        }
        match place.kind {
            Kind::Bool => Cell::Bool(bit(place.null + 1)),
            Kind::Int => Cell::Int(row[place.at] as i64),
            Kind::Float => Cell::Float(f64::from_bits(row[place.at])),
            Kind::Decimal => Cell::Decimal((i128::from(row[place.at + 1] as i64) << 64) | i128::from(row[place.at])),
            Kind::Other => {
                let at = (index - self.first) as usize * layout.beside + place.at;
                self.beside.get(at).map_or(Cell::Null, Cell::of)
            }
        }
    }

    /// Puts the event in its place and returns its index. Moves as many rows as come after it: none for most.
    pub fn insert(&mut self, layout: &Layout, event: &NewEvent) -> u64 {
        let order = |row: &[u64]| (row[0] as i64, row[1]);
        let new = order(&event.words);
        let mut at = self.len;
        if at > 0 && order(&self.words[self.start(layout, at - 1)..]) > new {
            let (mut low, mut high) = (0, at);
            while low < high {
                let middle = (low + high) / 2;
                if order(&self.words[self.start(layout, middle)..]) <= new { low = middle + 1 } else { high = middle }
            }
            at = low;
        }
        if self.len == self.capacity(layout) {
            self.resize(layout, (self.len + self.len / 2).max(ROWS));
        }
        self.len += 1;
        for i in (at + 1..self.len).rev() {
            let (from, to) = (self.start(layout, i - 1), self.start(layout, i));
            self.words.copy_within(from..from + layout.stride, to);
        }
        let start = self.start(layout, at);
        self.words[start..start + layout.stride].copy_from_slice(&event.words);
        for (i, value) in event.beside.iter().enumerate() {
            self.beside_bytes += value.encoded_len();
            self.beside.insert(at * layout.beside + i, value.clone());
        }
        self.first + at as u64
    }

    /// Takes an event out. Moves as many rows as come after it.
    pub fn remove(&mut self, layout: &Layout, index: u64) {
        let at = (index - self.first) as usize;
        for i in at + 1..self.len {
            let (from, to) = (self.start(layout, i), self.start(layout, i - 1));
            self.words.copy_within(from..from + layout.stride, to);
        }
        self.len -= 1;
        let beside = self.beside.drain(at * layout.beside..(at + 1) * layout.beside);
        self.beside_bytes -= beside.map(|value| value.encoded_len()).sum::<usize>();
    }

    /// Forgets the events before `index`.
    pub fn drop_before(&mut self, layout: &Layout, index: u64) {
        let gone = (index.saturating_sub(self.first) as usize).min(self.len);
        if gone == 0 {
            return;
        }
        self.head += gone;
        let capacity = self.capacity(layout);
        if self.head >= capacity {
            self.head -= capacity;
        }
        self.len -= gone;
        self.first += gone as u64;
        self.beside_bytes -= self.beside.drain(..gone * layout.beside).map(|value| value.encoded_len()).sum::<usize>();
        if capacity > 4 * ROWS && self.len < capacity / 4 {
            self.resize(layout, (self.len + self.len / 2).max(ROWS));
            self.beside.shrink_to(self.beside.len());
        }
    }

    /// The end of a version there, if that is what it is: which version.
    pub fn ended(&self, layout: &Layout, index: u64) -> Option<u64> {
        let row = self.row(layout, index).filter(|row| row[1] & 1 == 1)?;
        self.find(layout, row[layout.until] as i64, row[layout.until + 1])
    }

    /// The version of this time and offset.
    pub fn version(&self, layout: &Layout, time_us: i64, offset: u64) -> Option<u64> {
        self.find(layout, time_us, offset << 1)
    }

    fn find(&self, layout: &Layout, time_us: i64, mark: u64) -> Option<u64> {
        let order = |i: usize| {
            let row = &self.words[self.start(layout, i)..];
            (row[0] as i64, row[1])
        };
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = (low + high) / 2;
            if order(middle) < (time_us, mark) { low = middle + 1 } else { high = middle }
        }
        (low < self.len && order(low) == (time_us, mark)).then_some(self.first + low as u64)
    }

    pub fn end_version(&mut self, layout: &Layout, index: u64, until_us: i64) {
        let i = (index - self.first) as usize;
        if i < self.len {
            let start = self.start(layout, i);
            self.words[start + layout.until] = until_us as u64;
        }
    }

    /// Whether it is a version, and counts at `at_us` and after.
    pub fn is_version(&self, layout: &Layout, index: u64, at_us: i64) -> bool {
        self.row(layout, index).is_some_and(|row| row[1] & 1 == 0 && row[layout.until] as i64 > at_us)
    }

    /// The last before `next` that counts at `at_us`.
    pub fn latest_version(&self, layout: &Layout, next: u64, at_us: i64) -> Option<u64> {
        (self.first..next).rev().find(|index| self.is_version(layout, *index, at_us))
    }

    pub fn is_full(&self, layout: &Layout) -> bool {
        self.len == self.capacity(layout)
    }

    /// Forgets, before `next`, the versions that count no longer at `at_us` and the ends. Returns the indices of what is
    /// left, which is numbered anew from [`Ring::first`] on.
    pub fn forget_ended(&mut self, layout: &Layout, next: u64, at_us: i64) -> Vec<u64> {
        let stays = |index: &u64| *index >= next || self.is_version(layout, *index, at_us);
        let kept: Vec<u64> = (self.first..self.end()).filter(stays).collect();
        let beside = std::mem::take(&mut self.beside);
        for (to, index) in kept.iter().enumerate() {
            let i = (index - self.first) as usize;
            // Never onto one that is still to come: it only moves to the front.
            let (from, to) = (self.start(layout, i), self.start(layout, to));
            self.words.copy_within(from..from + layout.stride, to);
            self.beside.extend(beside.range(i * layout.beside..(i + 1) * layout.beside).cloned());
        }
        self.len = kept.len();
        self.beside_bytes = self.beside.iter().map(Value::encoded_len).sum();
        kept
    }

    /// More room, or less, than two thirds full.
    pub fn grow_if_crowded(&mut self, layout: &Layout) {
        let capacity = self.capacity(layout);
        if 3 * self.len > 2 * capacity || (capacity > 4 * ROWS && self.len < capacity / 4) {
            self.resize(layout, (self.len + self.len / 2).max(ROWS));
        }
    }

    /// A buffer of `rows` rows, the events at its front.
    fn resize(&mut self, layout: &Layout, rows: usize) {
        let mut words = Vec::with_capacity(rows * layout.stride);
        for i in 0..self.len {
            words.extend_from_slice(&self.words[self.start(layout, i)..][..layout.stride]);
        }
        words.resize(rows * layout.stride, 0);
        self.words = words.into();
        self.head = 0;
    }
}

/// A ring as it is saved. Times and marks are differences, so that they take few bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct RingImage {
    first: u64,
    times: Vec<i64>,
    marks: Vec<i64>,
    /// Bits and cells.
    words: Vec<u64>,
    beside: Vec<Value>,
}

impl Ring {
    pub fn image(&self, layout: &Layout) -> RingImage {
        let mut image = RingImage {
            first: self.first,
            times: Vec::with_capacity(self.len),
            marks: Vec::with_capacity(self.len),
            words: Vec::with_capacity(self.len * (layout.stride - FIXED)),
            beside: self.beside.iter().cloned().collect(),
        };
        let (mut time, mut mark) = (0i64, 0i64);
        for i in 0..self.len {
            let row = &self.words[self.start(layout, i)..][..layout.stride];
            image.times.push((row[0] as i64).wrapping_sub(time));
            image.marks.push((row[1] as i64).wrapping_sub(mark));
            image.words.extend_from_slice(&row[FIXED..]);
            (time, mark) = (row[0] as i64, row[1] as i64);
        }
        image
    }

    /// `None`: the image is not one of this layout.
    pub fn from_image(layout: &Layout, image: RingImage) -> Option<Ring> {
        let len = image.times.len();
        let rest = layout.stride - FIXED;
        if image.marks.len() != len || image.words.len() != len * rest || image.beside.len() != len * layout.beside {
            return None;
        }
        let mut words = Vec::with_capacity(len * layout.stride);
        let (mut time, mut mark) = (0i64, 0i64);
        for i in 0..len {
            time = time.wrapping_add(image.times[i]);
            mark = mark.wrapping_add(image.marks[i]);
            words.extend([time as u64, mark as u64]);
            words.extend_from_slice(&image.words[i * rest..(i + 1) * rest]);
        }
        let beside_bytes = image.beside.iter().map(Value::encoded_len).sum();
        let (words, beside, partner) = (words.into(), image.beside.into(), Partner::default());
        Some(Ring { first: image.first, words, head: 0, len, beside, beside_bytes, partner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;
    use datafusion::prelude::lit;
    use proptest::prelude::*;

    fn layout() -> Layout {
        let types =
            [DataType::Boolean, DataType::Utf8, DataType::Float64, DataType::Decimal128(10, 2), DataType::Int64];
        let inputs: Vec<Input> = types.into_iter().map(|ty| Input { expr: lit(1), ty }).collect();
        Layout::new(&inputs, false)
    }

    /// The obvious ring: a sorted list.
    type Reference = Vec<(i64, u64, Vec<Value>)>;

    fn values(seed: i64) -> Vec<Value> {
        let or_null = |n: i64, value: Value| if seed.rem_euclid(n) == 0 { Value::Null } else { value };
        vec![
            or_null(5, Value::Bool(seed % 2 == 0)),
            or_null(3, Value::Text(seed.to_string().into())),
            or_null(7, Value::float(seed as f64 / 8.0)),
            or_null(4, Value::decimal(i128::from(seed) << 70)),
            or_null(2, Value::Int(-seed)),
        ]
    }

    fn check(layout: &Layout, ring: &Ring, reference: &Reference, dropped: usize) {
        assert_eq!((ring.first(), ring.len()), (dropped as u64, reference.len() - dropped));
        for (i, (time, _, values)) in reference.iter().enumerate().skip(dropped) {
            assert_eq!(ring.time(layout, i as u64), *time);
            let cells: Vec<Value> = (0..5).map(|input| ring.cell(layout, i as u64, input).to_value()).collect();
            assert_eq!(&cells, values);
        }
    }

    #[test]
    fn room_grows_by_half_and_is_given_back_where_little_is_left() {
        let layout = layout();
        let (mut ring, mut event, mut capacities) = (Ring::default(), layout.row(), vec![0]);
        for i in 0..100 {
            event.reset(&layout, i, i as u64, false);
            event.set(&layout, 1, Cell::Other(&Value::Text("four".into())));
            assert_eq!(ring.is_full(&layout), [0, 4, 6, 9, 13, 19, 28, 42, 63, 94].contains(&i));
            ring.insert(&layout, &event);
            if capacities.last() != Some(&ring.capacity(&layout)) {
                capacities.push(ring.capacity(&layout));
            }
        }
        assert_eq!(capacities, [0, 4, 6, 9, 13, 19, 28, 42, 63, 94, 141]);
        let bytes = ring.beside_bytes;
        for (from, capacity) in [(65, 141), (66, 51), (88, 51), (89, 16), (99, 16)] {
            ring.drop_before(&layout, from);
            assert_eq!((ring.first(), ring.end(), ring.capacity(&layout)), (from, 100, capacity));
            assert_eq!(ring.beside_bytes * 100, bytes * ring.len());
            assert_eq!(ring.time(&layout, from), from as i64);
        }
        // What is gone already, and what has not come.
        ring.drop_before(&layout, 50);
        assert_eq!((ring.first(), ring.len()), (99, 1));
        ring.drop_before(&layout, 1000);
        assert_eq!((ring.first(), ring.len(), ring.beside_bytes), (100, 0, 0));
    }

    #[test]
    fn a_crowded_ring_grows_and_an_empty_one_shrinks() {
        let layout = layout();
        let (mut ring, event) = (Ring::default(), layout.row());
        for _ in 0..50 {
            ring.insert(&layout, &event);
        }
        // 63 rows, of which 42 are two thirds, and 63 / 4 is 15.
        for (len, capacity) in [(42, 63), (43, 64), (42, 64), (16, 64), (15, 22), (14, 22), (5, 22), (4, 6), (1, 6)] {
            while ring.len() > len {
                ring.remove(&layout, ring.end() - 1);
            }
            while ring.len() < len {
                ring.insert(&layout, &event);
            }
            ring.grow_if_crowded(&layout);
            assert_eq!((ring.len(), ring.capacity(&layout)), (len, capacity));
        }
    }

    #[test]
    fn an_image_of_another_layout_is_refused() {
        let layout = layout();
        let (mut ring, mut event) = (Ring::default(), layout.row());
        for i in 0..3 {
            event.reset(&layout, i, i as u64, false);
            ring.insert(&layout, &event);
        }
        assert!(Ring::from_image(&layout, ring.image(&layout)).is_some());
        let breaks: [fn(&mut RingImage); 4] = [
            |image| image.marks.truncate(2),
            |image| image.times.push(0),
            |image| image.words.truncate(5),
            |image| image.beside.truncate(2),
        ];
        for break_it in breaks {
            let mut image = ring.image(&layout);
            break_it(&mut image);
            assert!(Ring::from_image(&layout, image).is_none());
        }
    }

    /// What a version is to the obvious way.
    #[derive(Debug, Clone, PartialEq)]
    struct Version {
        time_us: i64,
        offset: u64,
        until_us: i64,
        /// It is an end, and of which version.
        ends: Option<(i64, u64)>,
    }

    fn check_versions(layout: &Layout, ring: &Ring, first: u64, reference: &[Version]) {
        assert_eq!((ring.first(), ring.len()), (first, reference.len()));
        let counts = |version: &Version, at_us: i64| version.ends.is_none() && version.until_us > at_us;
        for (index, version) in (first..).zip(reference) {
            let Version { time_us, offset, ends, .. } = version;
            assert_eq!(ring.time(layout, index), *time_us);
            assert_eq!(ring.cell(layout, index, 0).to_value(), Value::Text(offset.to_string().into()));
            assert_eq!(ring.is_delete(layout, index), ends.is_some());
            let same = |of: (i64, u64)| reference.iter().position(|v| v.ends.is_none() && (v.time_us, v.offset) == of);
            assert_eq!(ring.version(layout, *time_us, *offset), ends.is_none().then_some(index));
            assert_eq!(ring.ended(layout, index), ends.and_then(same).map(|i| first + i as u64));
            for at_us in [version.until_us.saturating_sub(1), version.until_us, *time_us] {
                assert_eq!(ring.is_version(layout, index, at_us), counts(version, at_us));
                let latest = reference[..=(index - first) as usize].iter().rposition(|v| counts(v, at_us));
                assert_eq!(ring.latest_version(layout, index + 1, at_us), latest.map(|i| first + i as u64));
            }
        }
        assert_eq!(ring.version(layout, -1000, 0), None);
        assert!(!ring.is_version(layout, ring.end(), i64::MIN) && ring.ended(layout, ring.end()).is_none());
    }

    proptest! {
        #[test]
        fn versions_begin_end_go_and_are_forgotten(steps in prop::collection::vec((0u8..8, 0i64..20, any::<u16>()), 0..40)) {
            let input = Input { expr: lit(1), ty: DataType::Utf8 };
            let layout = Layout::new(&[input], true);
            let (mut ring, mut event, mut first) = (Ring::default(), layout.row(), 0);
            let mut reference: Vec<Version> = vec![];
            for (offset, (what, time_us, chosen)) in (0u64..).zip(steps) {
                let open = |v: &Version| v.ends.is_none() && v.until_us == i64::MAX;
                let chosen = chosen as usize % reference.len().max(1);
                match (what, reference.get(chosen).cloned()) {
                    (0..4, _) => {
                        event.reset(&layout, time_us, offset, false);
                        event.counts(&layout);
                        reference.push(Version { time_us, offset, until_us: i64::MAX, ends: None });
                    }
                    (4 | 5, Some(old)) if open(&old) => {
                        let until_us = time_us.max(old.time_us);
                        ring.end_version(&layout, first + chosen as u64, until_us);
                        reference[chosen].until_us = until_us;
                        event.reset(&layout, until_us, offset, true);
                        event.ends(&layout, old.time_us, old.offset);
                        let ends = Some((old.time_us, old.offset));
                        reference.push(Version { time_us: until_us, offset, until_us: i64::MIN, ends });
                    }
                    (6, Some(_)) => {
                        ring.remove(&layout, first + chosen as u64);
                        reference.remove(chosen);
                        check_versions(&layout, &ring, first, &reference);
                        continue;
                    }
                    (7, Some(_)) => {
                        let next = first + chosen as u64;
                        let is_left = |(i, v): &(usize, &Version)| *i >= chosen || v.ends.is_none() && v.until_us > time_us;
                        let left = reference.iter().enumerate().filter(is_left);
                        let indices: Vec<u64> = left.clone().map(|(i, _)| first + i as u64).collect();
                        reference = left.map(|(_, v)| v.clone()).collect();
                        prop_assert_eq!(ring.forget_ended(&layout, next, time_us), indices);
                        check_versions(&layout, &ring, first, &reference);
                        continue;
                    }
                    _ => continue,
                }
                event.set(&layout, 0, Cell::Other(&Value::Text(offset.to_string().into())));
                ring.insert(&layout, &event);
                reference.sort_by_key(|v| (v.time_us, v.offset));
                check_versions(&layout, &ring, first, &reference);
                // The front goes now and then.
                if time_us == 19 && reference.len() > 6 {
                    ring.drop_before(&layout, first + 2);
                    (first, reference) = (first + 2, reference.split_off(2));
                    check_versions(&layout, &ring, first, &reference);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_ring_is_a_sorted_list_that_loses_its_front(steps in prop::collection::vec((-50i64..50, 0u8..4), 0..200)) {
            let layout = layout();
            let (mut ring, mut reference, mut dropped) = (Ring::default(), Reference::new(), 0);
            let mut event = layout.row();
            for (offset, (seed, drop)) in steps.into_iter().enumerate() {
                if drop == 0 && dropped < reference.len() {
                    dropped += 1 + (seed.unsigned_abs() as usize) % (reference.len() - dropped);
                    ring.drop_before(&layout, dropped as u64);
                }
                // Never before what is already dropped.
                let floor = dropped.checked_sub(1).map_or(i64::MIN, |i| reference[i].0);
                let time = seed.max(floor);
                event.reset(&layout, time, offset as u64, false);
                let values = values(seed);
                values.iter().enumerate().for_each(|(i, v)| event.set(&layout, i, Cell::of(v)));
                let at = ring.insert(&layout, &event) as usize;
                reference.insert(at, (time, offset as u64, values));
                prop_assert!(reference.is_sorted_by_key(|(time, offset, _)| (*time, *offset)));
                check(&layout, &ring, &reference, dropped);
            }
            let again = Ring::from_image(&layout, ring.image(&layout)).expect("of this layout");
            check(&layout, &again, &reference, dropped);
        }
    }
}
