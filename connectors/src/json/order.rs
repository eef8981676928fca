//! Which fields the objects of one place have, how their names stand in the bytes, and in what order they came last: so that the next field is
//! found by comparing bytes, before anybody has looked where its name ends.
//!
//! What is learnt of a name is how it was written once, blanks, quotes and colon with it. That stays a name whatever the rest of its message
//! was, so a guess that fits needs no further check, and one that does not costs only itself.

use super::word::{At, two_words, word};

/// Names that no column is at, kept of one object: writers have some tens. Of others, as of keys that are data, nothing is learnt.
const OTHERS_MAX: usize = 64;
/// Bytes of a name with what is around it, at most, that are learnt.
const LEAD_MAX: usize = 128;

/// The number of no name.
pub(super) const NOBODY: u32 = u32::MAX;

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Column(u32),
    /// An object, by its number, in which columns are.
    Inside(u32),
    /// Nothing that is wanted.
    Other,
}

/// A name that is known.
#[derive(Debug)]
pub(super) struct Name {
    name: Box<[u8]>,
    place: Place,
    lead: Lead,
    /// The name that came after it last.
    next: u32,
}

impl Name {
    #[inline(always)]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Of what is before its value, in bytes.
    #[inline(always)]
    pub fn length(&self) -> At {
        self.lead.length
    }

    /// The one that is expected next.
    #[inline(always)]
    pub fn next(&self) -> u32 {
        self.next
    }
}

/// From behind a comma or brace to the value: `"name":`, as it was written.
#[derive(Debug)]
struct Lead {
    /// The first 16 bytes, and which of them count.
    head: u128,
    mask: u128,
    length: At,
    tail: Box<[u8]>,
}

impl Lead {
    fn of(lead: &[u8]) -> Lead {
        let count = lead.len().min(16);
        let mask = if count == 16 { u128::MAX } else { (1 << (8 * count)) - 1 };
        Lead { head: two_words(lead, 0), mask, tail: lead[count..].into(), length: lead.len() as At }
    }

    /// That no text is: these bytes are in none.
    fn none() -> Lead {
        Lead::of(&[0xff; 16])
    }

    #[inline(always)]
    fn is_at(&self, bytes: &[u8], at: At) -> bool {
        // Bytes of zero, as stand past the end, are in no lead.
        (two_words(bytes, at) ^ self.head) & self.mask == 0 && (self.length <= 16 || self.has_tail(bytes, at))
    }

    #[inline(never)]
    fn has_tail(&self, bytes: &[u8], at: At) -> bool {
        bytes.get(at as usize + 16..).is_some_and(|rest| rest.starts_with(&self.tail))
    }
}

/// The names of one object.
#[derive(Debug, Default)]
pub(super) struct Order {
    names: Vec<Name>,
    /// Numbers of names, each from where its hash says on; a power of two of places, at least half of them empty.
    table: Vec<Option<u32>>,
    others: usize,
    first: u32,
}

impl Order {
    pub fn of(places: Vec<(String, Place)>) -> Order {
        let table = vec![None; ((places.len() + OTHERS_MAX) * 2).next_power_of_two()];
        let mut order = Order { names: vec![], table, others: 0, first: 0 };
        for (name, place) in places {
            let at = order.add(name.as_bytes(), place);
            order.names[at as usize].next = at + 1;
        }
        order
    }

    fn add(&mut self, name: &[u8], place: Place) -> u32 {
        let is_plain = name.iter().all(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20));
        let lead = if is_plain { Lead::of(&[b"\"", name, b"\":"].concat()) } else { Lead::none() };
        let at = self.names.len() as u32;
        self.names.push(Name { name: name.into(), place, lead, next: NOBODY });
        let mut entry = self.entry(name, 0, name.len() as At);
        while self.table[entry].is_some() {
            entry = (entry + 1) & (self.table.len() - 1);
        }
        self.table[entry] = Some(at);
        at
    }

    /// Where the search for a name begins, which lies in `bytes`.
    fn entry(&self, bytes: &[u8], begin: At, end: At) -> usize {
        let length = end - begin;
        let hash = match length {
            0 => 0,
            1..8 => word(bytes, begin) << (64 - 8 * length),
            _ => word(bytes, begin) ^ word(bytes, end - 8).rotate_left(29),
        };
        // Fibonacci hashing; the upper bits are the mixed ones.
        let hash = (hash ^ u64::from(length)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.table.len() - 1)
    }

    /// The name that lies in `bytes` from `begin` to `end`, without its quotes; it has no escapes.
    pub fn find(&self, bytes: &[u8], begin: At, end: At) -> Option<u32> {
        let name = &bytes[begin as usize..end as usize];
        let mut entry = self.entry(bytes, begin, end);
        while let Some(at) = self.table[entry] {
            if *self.names[at as usize].name == *name {
                return Some(at);
            }
            entry = (entry + 1) & (self.table.len() - 1);
        }
        None
    }

    /// The name that is expected first.
    #[inline(always)]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The name that is expected after this one.
    #[inline(always)]
    pub fn after(&self, name: u32) -> u32 {
        self.names[name as usize].next
    }

    /// The name that is expected, if it is what stands here.
    #[inline(always)]
    pub fn expected(&self, name: u32, bytes: &[u8], at: At) -> Option<&Name> {
        let name = self.names.get(name as usize)?;
        if name.lead.is_at(bytes, at) { Some(name) } else { None }
    }

    pub fn place(&self, name: u32) -> Place {
        self.names[name as usize].place
    }

    /// A name where nothing is wanted, to be known the next time; `None`: enough are known.
    pub fn learn_other(&mut self, name: &[u8]) -> Option<u32> {
        if self.others == OTHERS_MAX || name.len() > LEAD_MAX {
            return None;
        }
        self.others += 1;
        Some(self.add(name, Place::Other))
    }

    /// That `name` came after `last`, or first, after nobody.
    #[inline(always)]
    pub fn follows(&mut self, last: u32, name: u32) {
        match self.names.get_mut(last as usize) {
            Some(last) => last.next = name,
            None => self.first = name,
        }
    }

    /// How a name was written.
    pub fn learn(&mut self, name: u32, lead: &[u8]) {
        if lead.len() <= LEAD_MAX {
            self.names[name as usize].lead = Lead::of(lead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(names: &[&str]) -> Order {
        Order::of(names.iter().enumerate().map(|(at, name)| (name.to_string(), Place::Column(at as u32))).collect())
    }

    #[test]
    fn a_name_is_found_by_its_bytes_and_others_are_learnt_up_to_a_number() {
        let many: Vec<String> = (0..300).map(|i| format!("{}{i}", "column_".repeat(i % 4))).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).chain(["", "é", "a\"b"]).collect();
        let mut order = order(&names);
        for (at, name) in names.iter().enumerate() {
            let message = format!("{{\"{name}\":1}}");
            assert_eq!(order.find(message.as_bytes(), 2, 2 + name.len() as u32), Some(at as u32), "{name}");
        }
        assert_eq!(order.find(b"column_x", 0, 8), None);
        let learnt: Vec<Option<u32>> = (0..100).map(|i| order.learn_other(format!("other{i}").as_bytes())).collect();
        assert_eq!(learnt.iter().flatten().count(), OTHERS_MAX);
        assert_eq!(order.find(b"other7", 0, 6), learnt[7]);
        assert_eq!(order.learn_other(&[b'a'; LEAD_MAX + 1]), None);
    }

    #[test]
    fn a_lead_is_what_was_written_last() {
        let long = "a_name_that_is_longer_than_two_words";
        let mut order = order(&["a", long, "q\"q"]);
        let message = format!("{{\"a\":1,\"{long}\":2}}");
        let bytes = message.as_bytes();
        let behind =
            |order: &Order, name, bytes: &[u8], at| order.expected(name, bytes, at).map(|name| at + name.length());
        assert_eq!((order.first(), behind(&order, 0, bytes, 1)), (0, Some(5)));
        assert_eq!((order.after(0), behind(&order, 1, bytes, 7)), (1, Some(7 + long.len() as u32 + 3)));
        assert_eq!(
            (behind(&order, 0, bytes, 7), behind(&order, 1, bytes, 1), behind(&order, 1, &bytes[..30], 7)),
            (None, None, None)
        );
        // Nothing in a message is a name with a quote in it; such a one is written with an escape.
        assert_eq!(behind(&order, 2, b"\"q\"q\":", 0), None);
        order.follows(NOBODY, 1);
        order.learn(1, format!(" \"{long}\" : ").as_bytes());
        assert_eq!(order.first(), 1);
        let blank = format!(" \"{long}\" : 1");
        assert_eq!(
            (behind(&order, 1, bytes, 7), behind(&order, 1, blank.as_bytes(), 0)),
            (None, Some(long.len() as u32 + 6))
        );
        order.follows(1, 0);
        order.learn(0, &[b' '; LEAD_MAX + 1]);
        assert_eq!((order.after(1), behind(&order, 0, bytes, 1)), (0, Some(5)));
        assert_eq!(behind(&order, order.after(2), bytes, 1), None);
    }
}
