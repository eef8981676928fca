//! A message read once, from its first byte to its last, its values put straight to the columns: what most messages take.
//!
//! Whatever is unusual ends it, without a reason, and the message is read again token by token (`json.rs`), which says what is wrong, if
//! anything is. So this may know less than JSON has, but it must take nothing that the other refuses, and nothing for something else: a
//! property test compares them.

use super::{
    Field, Fields,
    cell::cell,
    order::{NOBODY, Order, Place},
    put::value,
    scan::{Scanner, unescape},
    word::{At, byte, number, piece},
};
use crate::column::{Builder, Cell, Values};
use tidemark_catalog::{Column, SqlType};

/// A column that messages are read into.
pub(super) struct Target {
    pub field: Field,
    pub builder: Builder,
    /// The number of the message that its last value is from.
    taken: u64,
}

impl Target {
    pub fn new(field: Field) -> Target {
        Target { builder: Builder::of(&field.column.ty), field, taken: 0 }
    }
}

/// What is known of a source's messages from one to the next.
#[derive(Debug)]
pub(super) struct Expected {
    /// Of the objects on the ways to columns; the last is the message.
    orders: Vec<Order>,
    messages: u64,
}

impl Expected {
    pub fn new(fields: &Fields) -> Expected {
        let mut orders = vec![];
        add(fields, &mut orders);
        Expected { orders, messages: 0 }
    }
}

/// The objects that lie in this one, and then itself; gives its number.
fn add(fields: &Fields, orders: &mut Vec<Order>) -> usize {
    let places = fields.0.iter().map(|(name, place)| match place {
        super::Place::Column(column) => (name.clone(), Place::Column(*column as u32)),
        super::Place::Inside(inside) => (name.clone(), Place::Inside(add(inside, orders) as u32)),
    });
    let order = Order::of(places.collect());
    orders.push(order);
    orders.len() - 1
}

/// Reads a message as one more row. `None`: it is not read, and some columns may be longer than others.
pub(super) fn read(message: &[u8], expected: &mut Expected, targets: &mut [Target]) -> Option<()> {
    At::try_from(message.len() + 64).ok()?;
    expected.messages += 1;
    let Expected { orders, messages } = expected;
    let root = orders.len() - 1;
    let mut reader = Reader { bytes: message, text: None, orders, targets, message: *messages, count: 0 };
    let begin = reader.behind_blanks(0);
    let end = reader.object(root, begin)?;
    if (reader.behind_blanks(end) as usize) < message.len() {
        return None;
    }
    if reader.count < reader.targets.len() { reader.fill() } else { Some(()) }
}

/// What reads takes where it begins and gives where it ends.
struct Reader<'m, 'r> {
    bytes: &'m [u8],
    /// The message as a text, once somebody needs it.
    text: Option<&'m str>,
    orders: &'r mut [Order],
    targets: &'r mut [Target],
    /// Its number.
    message: u64,
    /// How many columns have a value.
    count: usize,
}

/// A name that was read.
struct Found {
    place: Place,
    value: At,
    name: u32,
    next: u32,
}

impl<'m> Reader<'m, '_> {
    #[inline(always)]
    fn behind_blanks(&self, mut at: At) -> At {
        while matches!(byte(self.bytes, at), b' ' | b'\n' | b'\r' | b'\t') {
            at += 1;
        }
        at
    }

    /// Scanned token by token.
    fn scanned<T>(&mut self, at: At, scan: impl FnOnce(&mut Scanner<'m>) -> Result<T, String>) -> Option<(T, At)> {
        let text = match self.text {
            Some(text) => text,
            None => *self.text.insert(std::str::from_utf8(self.bytes).ok()?),
        };
        let mut scanner = Scanner::from(text, at as usize);
        let found = scan(&mut scanner).ok()?;
        Some((found, scanner.at() as At))
    }

    fn object(&mut self, order: usize, mut at: At) -> Option<At> {
        let (bytes, message) = (self.bytes, self.message);
        if byte(bytes, at) != b'{' {
            return None;
        }
        at += 1;
        let (mut last, mut next) = (NOBODY, self.orders[order].first());
        loop {
            let place = match self.orders[order].expected(next, bytes, at) {
                Some(name) => {
                    last = next;
                    next = name.next();
                    at += name.length();
                    name.place()
                }
                None => {
                    let begin = self.behind_blanks(at);
                    if byte(bytes, begin) == b'}' && bytes[at as usize - 1] == b'{' {
                        return Some(begin + 1);
                    }
                    let found = self.name(order, at, last, next)?;
                    (at, last, next) = (found.value, found.name, found.next);
                    found.place
                }
            };
            let end = match place {
                Place::Column(column) => {
                    let target = &mut self.targets[column as usize];
                    if target.taken == message {
                        // Of fields of one name the last counts.
                        return None;
                    }
                    target.taken = message;
                    self.count += 1;
                    match value(bytes, at, &target.field, &mut target.builder.values) {
                        Some(end) => end,
                        None => self.any_value(column as usize, at)?,
                    }
                }
                Place::Inside(order) => self.inside(order as usize, at)?,
                Place::Other => self.other(at)?,
            };
            at = end + 1;
            match byte(bytes, end) {
                b',' => {}
                b'}' => return Some(at),
                _ => {
                    at = self.behind_blanks(end) + 1;
                    match byte(bytes, at - 1) {
                        b',' => {}
                        b'}' => return Some(at),
                        _ => return None,
                    }
                }
            }
        }
    }

    /// A name that was not expected, from behind the comma or brace before it.
    #[inline(never)]
    fn name(&mut self, order: usize, at: At, last: u32, next: u32) -> Option<Found> {
        let bytes = self.bytes;
        let quote = self.behind_blanks(at);
        if byte(bytes, quote) != b'"' {
            return None;
        }
        let begin = quote + 1;
        let name = piece(bytes, begin);
        if name.stop != b'"' {
            return None;
        }
        let found = self.orders[order].find(bytes, begin, name.end);
        if let Some(found) = found
            && let Some(known) = self.orders[order].expected(found, bytes, at)
        {
            let (place, value, next) = (known.place(), at + known.length(), known.next());
            self.orders[order].follows(last, found);
            return Some(Found { place, value, name: found, next });
        }
        let colon = self.behind_blanks(name.end + 1);
        if byte(bytes, colon) != b':' {
            return None;
        }
        let value = self.behind_blanks(colon + 1);
        let written = &bytes[begin as usize..name.end as usize];
        let order = &mut self.orders[order];
        let found = match found {
            None if !name.is_ascii && std::str::from_utf8(written).is_err() => return None,
            None => order.learn_other(written),
            found => found,
        };
        Some(match found {
            Some(found) => {
                order.follows(last, found);
                order.learn(found, &bytes[at as usize..value as usize]);
                Found { place: order.place(found), value, name: found, next: order.after(found) }
            }
            // Of names that are not learnt the order is not either.
            None => Found { place: Place::Other, value, name: last, next },
        })
    }

    /// A value on the way to columns: an object, or something in which they are missing.
    #[inline(never)]
    fn inside(&mut self, order: usize, at: At) -> Option<At> {
        let at = self.behind_blanks(at);
        if byte(self.bytes, at) == b'{' { self.object(order, at) } else { self.other(at) }
    }

    /// A value that is not wanted.
    #[inline(never)]
    fn other(&mut self, at: At) -> Option<At> {
        if byte(self.bytes, at) == b'"' {
            let text = piece(self.bytes, at + 1);
            if text.is_ascii && byte(self.bytes, text.end) == b'"' {
                return Some(text.end + 1);
            }
        } else if let Some(number) = number(self.bytes, at) {
            return Some(number.end);
        }
        Some(self.scanned(at, |scanner| scanner.value().map(|_| ()))?.1)
    }

    /// The value of a column, whatever it is.
    #[inline(never)]
    fn any_value(&mut self, column: usize, at: At) -> Option<At> {
        let Column { ty, not_null, .. } = &self.targets[column].field.column;
        let is_nullable = !not_null;
        if is_nullable && self.bytes[at as usize..].starts_with(b"null") {
            self.targets[column].builder.push(Cell::Null);
            return Some(at + 4);
        }
        if *ty == SqlType::Text && byte(self.bytes, at) == b'"' {
            let (written, end) = self.scanned(at, |scanner| scanner.string())?;
            let Values::Text(texts) = &mut self.targets[column].builder.values else { return None };
            return texts.push_with(|bytes| {
                let begin = bytes.len();
                unescape(written, |piece| bytes.extend_from_slice(piece.as_bytes()));
                // A zero byte, which no text may have, can only have been an escape.
                if bytes[begin..].contains(&0) { None } else { Some(end) }
            });
        }
        let (token, end) = self.scanned(at, |scanner| scanner.value())?;
        let Target { field, builder, .. } = &mut self.targets[column];
        let cell = cell(token, &field.column.ty, field.epoch).ok()?;
        if !is_nullable && matches!(cell, Cell::Null) {
            return None;
        }
        builder.push(cell);
        Some(end)
    }

    /// NULL for every column without a value.
    #[inline(never)]
    fn fill(&mut self) -> Option<()> {
        for Target { field, builder, taken } in self.targets.iter_mut() {
            if *taken != self.message {
                if field.column.not_null {
                    return None;
                }
                builder.push(Cell::Null);
            }
        }
        Some(())
    }
}
