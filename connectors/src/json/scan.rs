//! JSON text, token by token, without a tree: what a reader does not want is checked and skipped where it stands.
//!
//! RFC 8259 to the letter: what this takes for JSON, `serde_json` does, and the other way round (a property test).

use std::borrow::Cow;

/// How deep objects and arrays may lie in one another; `serde_json` has the same limit.
const DEPTH_MAX: usize = 127;

/// A value, as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    /// Between the quotes, escapes and all.
    Text(&'a str),
    /// From brace to brace, or bracket to bracket.
    Object(&'a str),
    Array(&'a str),
    /// A text that is not in JSON: nothing in it is escaped. The scanner gives none.
    Plain(&'a str),
}

impl Token<'_> {
    /// For errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Token::Null => "null",
            Token::Bool(_) => "a boolean",
            Token::Number(_) => "a number",
            Token::Text(_) | Token::Plain(_) => "a text",
            Token::Object(_) => "an object",
            Token::Array(_) => "an array",
        }
    }
}

pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    /// From byte `at` on, which a character begins at.
    pub fn from(text: &'a str, at: usize) -> Scanner<'a> {
        Scanner { text, at }
    }

    /// The byte that is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn error(&self) -> String {
        match self.text[self.at.min(self.text.len())..].chars().next() {
            Some(found) => format!("not JSON: unexpected {found:?} at byte {}", self.at),
            None => format!("not JSON: it ends at byte {}, in the middle", self.at),
        }
    }

    /// Calls `take` for the open object's fields in order with the name as it is written; it must read the value.
    pub fn object(&mut self, mut take: impl FnMut(&mut Self, &'a str) -> Result<(), String>) -> Result<(), String> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.peek();
            let name = self.string()?;
            self.expect(b':')?;
            take(self, name)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error()),
            }
        }
    }

    /// Calls `take` for each item of the open array; it must read the value.
    pub fn array(&mut self, mut take: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.expect(b'[')?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            take(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error()),
            }
        }
    }

    pub fn at_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    /// The value here, read to its end.
    pub fn value(&mut self) -> Result<Token<'a>, String> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Token<'a>, String> {
        let begin = match self.peek() {
            Some(_) => self.at,
            None => return Err(self.error()),
        };
        match self.text.as_bytes()[begin] {
            b'"' => Ok(Token::Text(self.string()?)),
            b'{' | b'[' if depth >= DEPTH_MAX => Err("not read: it lies too deep".to_string()),
            b'{' => {
                self.object(|inside, _| inside.value_at(depth + 1).map(|_| ()))?;
                Ok(Token::Object(&self.text[begin..self.at]))
            }
            b'[' => {
                self.array(|inside| inside.value_at(depth + 1).map(|_| ()))?;
                Ok(Token::Array(&self.text[begin..self.at]))
            }
            b'-' | b'0'..=b'9' => Ok(Token::Number(self.number()?)),
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            b'n' => self.word("null", Token::Null),
            _ => Err(self.error()),
        }
    }

    /// Nothing may follow.
    pub fn end(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error()),
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.error());
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, String> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error());
        }
        self.at += word.len();
        Ok(token)
    }

    fn digits(&mut self) -> Result<(), String> {
        let begin = self.at;
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == begin { Err(self.error()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<&'a str, String> {
        let (begin, bytes) = (self.at, self.text.as_bytes());
        if bytes[self.at] == b'-' {
            self.at += 1;
        }
        match bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[begin..self.at])
    }

    /// The string here, without its quotes.
    pub fn string(&mut self) -> Result<&'a str, String> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return Err(self.error());
        }
        self.at += 1;
        let begin = self.at;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.text[begin..self.at - 1]);
                }
                Some(b'\\') => self.escape()?,
                Some(0..0x20) | None => return Err(self.error()),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.text.get(self.at + 2..self.at + 6).and_then(hex) {
                None | Some(0xdc00..0xe000) => return Err(self.error()),
                // The first of two halves.
                Some(0xd800..0xdc00) => {
                    let second = self.text.get(self.at + 6..self.at + 12).and_then(|text| text.strip_prefix("\\u"));
                    match second.and_then(hex) {
                        Some(0xdc00..0xe000) => self.at += 12,
                        _ => return Err(self.error()),
                    }
                }
                Some(_) => self.at += 6,
            },
            _ => return Err(self.error()),
        }
        Ok(())
    }
}

fn hex(digits: &str) -> Option<u32> {
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// What a string that the scanner has read says.
pub(super) fn unescaped(written: &str) -> Cow<'_, str> {
    if !written.contains('\\') {
        return Cow::Borrowed(written);
    }
    let mut text = String::with_capacity(written.len());
    unescape(written, |piece| text.push_str(piece));
    Cow::Owned(text)
}

/// The same, piece by piece.
pub(super) fn unescape(written: &str, mut put: impl FnMut(&str)) {
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        put(&rest[..at]);
        let code = |from: usize| rest.get(at + from..at + from + 4).and_then(hex).unwrap_or(0xfffd);
        let (said, length) = match rest.as_bytes().get(at + 1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => match code(2) {
                high @ 0xd800..0xdc00 => (character(0x10000 + ((high - 0xd800) << 10) + (code(8) & 0x3ff)), 12),
                code => (character(code), 6),
            },
            Some(other) => (char::from(*other), 2),
            None => break,
        };
        put(said.encode_utf8(&mut [0; 4]));
        rest = rest.get(at + length..).unwrap_or_default();
    }
    put(rest);
}

fn character(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    fn read(text: &str) -> Result<Json, String> {
        let mut scanner = Scanner::new(text);
        let token = scanner.value()?;
        scanner.end()?;
        tree(token)
    }

    fn tree(token: Token<'_>) -> Result<Json, String> {
        Ok(match token {
            Token::Null => Json::Null,
            Token::Bool(b) => Json::Bool(b),
            Token::Number(n) => serde_json::from_str(n).map_err(|e| e.to_string())?,
            Token::Text(t) => Json::String(unescaped(t).into_owned()),
            Token::Plain(t) => Json::String(t.to_string()),
            Token::Object(text) => {
                let mut object = serde_json::Map::new();
                Scanner::new(text).object(|scanner, name| {
                    object.insert(unescaped(name).into_owned(), tree(scanner.value()?)?);
                    Ok(())
                })?;
                Json::Object(object)
            }
            Token::Array(text) => {
                let mut items = vec![];
                Scanner::new(text).array(|scanner| {
                    items.push(tree(scanner.value()?)?);
                    Ok(())
                })?;
                Json::Array(items)
            }
        })
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i64>().prop_map(Json::from),
            // With few enough digits that serde_json, which rounds the others as it likes, reads what it has written.
            (-1_000_000..1_000_000).prop_map(|n| Json::from(f64::from(n) / 64.0)),
            ".{0,8}".prop_map(Json::String),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|fields| Json::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_as_it_was(json in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
            prop_assert_eq!(read(&text.expect("text")), Ok(json));
        }

        #[test]
        fn text_with_one_thing_changed_is_json_for_both_or_for_neither(
            json in any_json(), at in any::<prop::sample::Index>(), put in "[\\PC\t]{0,2}|\\\\u[0-9a-fd]{0,4}|[-0.eE+]{1,3}"
        ) {
            let mut text = serde_json::to_string(&json).expect("text");
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            text.insert_str(places[at.index(places.len())], &put);
            match serde_json::from_str::<Json>(&text) {
                // A number beyond all doubles is JSON all the same.
                Err(error) if error.to_string().starts_with("number out of range") => {}
                expected => prop_assert_eq!(read(&text).ok(), expected.ok(), "{}", text),
            }
        }
    }

    #[test]
    fn what_is_no_json_says_where_it_stops_being_json() {
        let cases = [
            (r#"{"a":1,}"#, "not JSON: unexpected '}' at byte 7"),
            (r#"{"a":1"#, "not JSON: it ends at byte 6, in the middle"),
            (r#"{"a":01}"#, "not JSON: unexpected '1' at byte 6"),
            ("[1] 2", "not JSON: unexpected '2' at byte 4"),
            (r#""\ud800x""#, "not JSON: unexpected '\\\\' at byte 1"),
            ("", "not JSON: it ends at byte 0, in the middle"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), Err(expected.to_string()), "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(read(&deep), Err("not read: it lies too deep".to_string()));
    }
}
