//! The outputs of steps, packed: nine bytes each, where a [`Value`] takes 24. Steps wait for history by the million, and most of
//! what keeping one costs is memory that has to be fetched, cleared and copied.

use crate::{cell::Cell, value::Value};
use std::ops::Range;

#[derive(Debug, Default, Clone)]
pub struct Packed {
    /// What each is.
    tags: Vec<Tag>,
    words: Vec<u64>,
    /// What is no word: its place here is the word.
    beside: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Beside,
}

/// The outputs of one step, wherever they are.
#[derive(Debug, Clone, Copy)]
pub struct Outputs<'a>(Place<'a>);

#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Values(&'a [Value]),
    Packed { tags: &'a [Tag], words: &'a [u64], beside: &'a [Value] },
}

impl Packed {
    pub fn with_capacity(outputs: usize) -> Packed {
        Packed { tags: Vec::with_capacity(outputs), words: Vec::with_capacity(outputs), beside: vec![] }
    }

    pub fn len(&self) -> usize {
        self.words.len()
    }

    pub fn shrink(&mut self) {
        self.tags.shrink_to_fit();
        self.words.shrink_to_fit();
        self.beside.shrink_to_fit();
    }

    pub fn extend(&mut self, outputs: Outputs<'_>) {
        for cell in outputs.iter() {
            let (tag, word) = match cell {
                Cell::Null => (Tag::Null, 0),
                Cell::Bool(b) => (Tag::Bool, u64::from(b)),
                Cell::Int(i) => (Tag::Int, i as u64),
                Cell::Float(x) => (Tag::Float, x.to_bits()),
                Cell::Decimal(_) | Cell::Other(_) => {
                    self.beside.push(cell.to_value());
                    (Tag::Beside, self.beside.len() as u64 - 1)
                }
            };
            self.tags.push(tag);
            self.words.push(word);
        }
    }

    pub fn get(&self, range: Range<usize>) -> Outputs<'_> {
        let (tags, words) = (&self.tags[range.clone()], &self.words[range]);
        Outputs(Place::Packed { tags, words, beside: &self.beside })
    }
}

impl<'a> From<&'a [Value]> for Outputs<'a> {
    fn from(values: &'a [Value]) -> Outputs<'a> {
        Outputs(Place::Values(values))
    }
}

impl<'a> Outputs<'a> {
    pub fn len(self) -> usize {
        match self.0 {
            Place::Values(values) => values.len(),
            Place::Packed { words, .. } => words.len(),
        }
    }

    /// NULL beyond the last one: a delete has none.
    pub fn cell(self, i: usize) -> Cell<'a> {
        match self.0 {
            Place::Values(values) => values.get(i).map_or(Cell::Null, Cell::of),
            Place::Packed { tags, words, beside } => {
                let (Some(tag), Some(word)) = (tags.get(i), words.get(i)) else { return Cell::Null };
                match tag {
                    Tag::Null => Cell::Null,
                    Tag::Bool => Cell::Bool(*word != 0),
                    Tag::Int => Cell::Int(*word as i64),
                    Tag::Float => Cell::Float(f64::from_bits(*word)),
                    Tag::Beside => beside.get(*word as usize).map_or(Cell::Null, Cell::of),
                }
            }
        }
    }

    pub fn iter(self) -> impl Iterator<Item = Cell<'a>> {
        (0..self.len()).map(move |i| self.cell(i))
    }

    pub fn to_values(self) -> Box<[Value]> {
        self.iter().map(Cell::to_value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_every_kind_are_what_they_were() {
        let steps: [&[Value]; 4] = [
            &[Value::Null, Value::Bool(true), Value::Bool(false), Value::Int(-1), Value::Int(i64::MIN)],
            &[],
            &[Value::Text("a".into()), Value::decimal(7 << 70), Value::List([Value::Int(1), Value::Null].into())],
            &[Value::float(-0.0), Value::float(f64::NAN), Value::Text("b".into()), Value::float(1.5)],
        ];
        let mut packed = Packed::with_capacity(2);
        let mut ends = vec![0];
        for values in steps {
            packed.extend(values.into());
            ends.push(packed.len());
        }
        packed.shrink();
        for (i, values) in steps.into_iter().enumerate() {
            let outputs = packed.get(ends[i]..ends[i + 1]);
            assert_eq!((outputs.len(), &*outputs.to_values()), (values.len(), values));
            assert!(outputs.cell(values.len()).is_null(), "beyond the last one");
            let mut again = Packed::default();
            again.extend(outputs);
            assert_eq!(&*again.get(0..again.len()).to_values(), values, "from packed to packed");
        }
    }
}
