//! A value inside a JSON document, as it is written there: numbers keep their digits, and nothing is built to be thrown away.
//!
//! The document is checked once, as a whole; after that finding the end of a value needs no grammar.

use serde::de::IgnoredAny;
use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice<'a>(&'a str);

/// JSON's own white space.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

impl<'a> Slice<'a> {
    /// # Errors
    /// If the text is not one JSON value.
    pub fn of(document: &'a str) -> Result<Slice<'a>, serde_json::Error> {
        serde_json::from_str::<IgnoredAny>(document)?;
        Ok(Slice(document.trim_matches(SPACE)))
    }

    pub fn as_written(self) -> &'a str {
        self.0
    }

    /// PostgreSQL's word for what it is.
    pub fn kind(self) -> &'static str {
        match self.0.as_bytes().first() {
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "boolean",
            Some(b'n') => "null",
            _ => "number",
        }
    }

    /// Names and values of the fields; none if it is no object.
    pub fn fields(self) -> impl Iterator<Item = (Slice<'a>, Slice<'a>)> {
        let mut rest = self.0.strip_prefix('{').map(Rest);
        std::iter::from_fn(move || {
            let rest = rest.as_mut()?;
            let name = rest.next()?;
            rest.skip(':');
            let value = rest.next()?;
            rest.skip(',');
            Some((name, value))
        })
    }

    /// The items; none if it is no array.
    pub fn items(self) -> impl Iterator<Item = Slice<'a>> {
        let mut rest = self.0.strip_prefix('[').map(Rest);
        std::iter::from_fn(move || {
            let rest = rest.as_mut()?;
            let item = rest.next()?;
            rest.skip(',');
            Some(item)
        })
    }

    /// The last field of that name, if it is an object.
    pub fn field(self, name: &str) -> Option<Slice<'a>> {
        self.fields().filter(|(key, _)| key.is_string(name)).last().map(|(_, value)| value)
    }

    /// The item of that place, from 0, or from the end for a negative one; if it is an array.
    pub fn element(self, place: i64) -> Option<Slice<'a>> {
        match usize::try_from(place) {
            Ok(place) => self.items().nth(place),
            Err(_) => {
                let items: Vec<Slice<'a>> = self.items().collect();
                items.len().checked_sub(usize::try_from(place.unsigned_abs()).ok()?).map(|place| items[place])
            }
        }
    }

    /// What `?` asks: a field of that name, such a string among the items, or that string itself.
    pub fn has(self, name: &str) -> bool {
        match self.kind() {
            "object" => self.fields().any(|(key, _)| key.is_string(name)),
            "array" => self.items().any(|item| item.is_string(name)),
            _ => self.is_string(name),
        }
    }

    /// Whether every string in it is one that a text can be. PostgreSQL looks at all of them whenever it takes out a part.
    pub fn check_texts(self) -> Result<(), serde_json::Error> {
        let mut rest = if self.0.contains("\\u") { self.0 } else { "" };
        while let Some(start) = rest.find('"') {
            let length = string(&rest[start..]);
            let (found, behind) = rest[start..].split_at(length);
            Slice(found).text()?;
            rest = behind;
        }
        Ok(())
    }

    /// The field or the item that a step of a path names.
    pub fn step(self, name: &str) -> Option<Slice<'a>> {
        if self.0.starts_with('[') { self.element(name.trim_start().parse().ok()?) } else { self.field(name) }
    }

    /// A string without its quotes, anything else as it is written; `None` for JSON's null.
    ///
    /// # Errors
    /// For a string that no text can be: with `\u0000`, or half of a pair.
    pub fn text(self) -> Result<Option<Cow<'a, str>>, serde_json::Error> {
        match self.0 {
            "null" => Ok(None),
            string if string.starts_with('"') => match string.contains('\\') {
                true => serde_json::from_str::<String>(string).and_then(without_zero).map(Cow::Owned).map(Some),
                false => Ok(Some(Cow::Borrowed(string.trim_matches('"')))),
            },
            other => Ok(Some(Cow::Borrowed(other))),
        }
    }

    fn is_string(self, wanted: &str) -> bool {
        self.0.starts_with('"') && self.text().is_ok_and(|text| text.is_some_and(|text| text == wanted))
    }
}

/// Why a string with that escape is no text.
pub const NO_ZERO: &str = "\\u0000 cannot be converted to text";

fn without_zero(text: String) -> Result<String, serde_json::Error> {
    match text.contains('\0') {
        true => Err(serde::de::Error::custom(NO_ZERO)),
        false => Ok(text),
    }
}

/// What of an object or array has not been read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// The next value; `None` at the end of the object or array.
    fn next(&mut self) -> Option<Slice<'a>> {
        let rest = self.0.trim_start_matches(SPACE);
        let length = match rest.chars().next()? {
            '}' | ']' => return None,
            '"' => string(rest),
            '{' | '[' => nested(rest),
            _ => rest.find(|c: char| matches!(c, ',' | '}' | ']') || SPACE.contains(&c)).unwrap_or(rest.len()),
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Slice(value))
    }

    fn skip(&mut self, mark: char) {
        let rest = self.0.trim_start_matches(SPACE);
        self.0 = rest.strip_prefix(mark).unwrap_or(rest);
    }
}

/// The length of the string that the text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

/// The length of the object or array that the text begins with.
fn nested(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += string(text.get(at..).unwrap_or_default()).max(1);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}
