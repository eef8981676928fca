//! Statements that differ in their literals only are one statement: a fingerprint is the text with its literals cut out.
//!
//! ```text
//! SELECT n FROM v WHERE k = 7              SELECT n FROM v WHERE k = ①            "7"
//! SELECT n FROM v WHERE k = -7;            SELECT n FROM v WHERE k = ②            "-7"
//! SELECT n FROM v WHERE k IN (1, 2,-3)     SELECT n FROM v WHERE k IN (④)         "1" "2" "-3"
//! ```
//!
//! Clients that never prepare send a new text for every key, and reading one costs several times what answering it does.
//! So the first statement of a fingerprint is parsed as any other; if it is a lookup whose keys are exactly its literals
//! ([`Template::learn`] parses it once more, with `$1`, `$2`, … in their places), the next ones are that lookup with their
//! own literals. A lookup of several views is known likewise, where all its literals can be parameters. Which token a literal is does not depend on what is in it, because only plain ones are cut out: digits,
//! perhaps behind the sign of a key, and quotes without a quote or a backslash between them. Any text with something
//! else that would need thought (a comment, a dollar, a decimal point, `E'…'`) has no fingerprint.

use super::{Keys, Lookup, Operand, recognise};
use crate::{Statement, parse::parse};
use datafusion::sql::sqlparser::ast;
use std::ops::Range;
use tidemark_catalog::Snapshot;

/// The literals of a text and the text without them. White space around the statement and a last semicolon do not count.
#[derive(Debug)]
pub struct Fingerprint<'a> {
    sql: &'a str,
    /// Control characters stand for literals; no such character of the text's own gets in here.
    pub template: Vec<u8>,
    /// Where each literal is in `sql`, quotes and sign included.
    literals: Vec<Range<usize>>,
}

const NUMBER: u8 = 1;
const NEGATIVE: u8 = 2;
const TEXT: u8 = 3;
/// Two or more literals of any kind, separated by commas.
const LIST: u8 = 4;

impl<'a> Fingerprint<'a> {
    /// `None`: not to be cut up, or nothing to cut out.
    pub fn of(sql: &'a str) -> Option<Fingerprint<'a>> {
        let sql = sql.trim_ascii();
        let sql = sql.strip_suffix(';').map_or(sql, str::trim_ascii_end);
        if !sql.get(..6)?.eq_ignore_ascii_case("select") {
            return None;
        }
        let template = Vec::with_capacity(sql.len());
        let mut cut = Cut { bytes: sql.as_bytes(), at: 0, template, literals: vec![], last: None, before: 0 };
        while cut.at < sql.len() {
            cut.next()?;
        }
        let Cut { template, literals, .. } = cut;
        (!literals.is_empty()).then_some(Fingerprint { sql, template, literals })
    }

    /// Whether some literals are a list, which may have another length in the next text.
    pub fn has_list(&self) -> bool {
        self.template.contains(&LIST)
    }

    /// The literals, as [`Operand::Literal`] has them.
    pub fn values(&self) -> impl Iterator<Item = &'a str> {
        let sql = self.sql;
        self.literals.iter().map(move |range| {
            let literal = sql.get(range.clone()).unwrap_or_default();
            literal.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).unwrap_or(literal)
        })
    }

    /// The statement with parameters in the places of its literals.
    pub fn parameterised(&self) -> String {
        let (mut text, mut end) = (String::with_capacity(self.sql.len()), 0);
        for (i, range) in self.literals.iter().enumerate() {
            text.push_str(&self.sql[end..range.start]);
            text.push_str(&format!("${}", i + 1));
            end = range.end;
        }
        text + &self.sql[end..]
    }
}

/// The scanner. Every step takes at least a byte, or gives up.
struct Cut<'a> {
    bytes: &'a [u8],
    at: usize,
    template: Vec<u8>,
    literals: Vec<Range<usize>>,
    /// Where the mark of the last literal is in `template`, and whether a comma came since; `None` after anything else.
    last: Option<(usize, bool)>,
    /// The last byte that is no white space.
    before: u8,
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl Cut<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(b' ')
    }

    fn next(&mut self) -> Option<()> {
        let byte = self.bytes[self.at];
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                self.template.push(byte);
                self.at += 1;
                return Some(());
            }
            b'0'..=b'9' => self.number(NUMBER, 0)?,
            b'-' if self.peek(1).is_ascii_digit() && matches!(self.before, b'=' | b'(' | b'[' | b',') => {
                self.number(NEGATIVE, 1)?;
            }
            b'\'' => self.text()?,
            _ if in_word(byte) => {
                let end = self.bytes[self.at..].iter().position(|b| !in_word(*b));
                self.copy(end.unwrap_or(self.bytes.len() - self.at));
                // E'…', B'…', U&'…' (by its ampersand) and the like
                if self.peek(0) == b'\'' {
                    return None;
                }
            }
            b'"' => {
                let end = self.bytes[self.at + 1..].iter().position(|b| *b == b'"')?;
                self.copy(end + 2);
            }
            b',' => {
                self.last = self.last.filter(|(_, comma)| !comma).map(|(mark, _)| (mark, true));
                self.template.push(byte);
                self.at += 1;
            }
            b'-' if self.peek(1) == b'-' => return None,
            b'/' if self.peek(1) == b'*' => return None,
            b'.' if self.peek(1).is_ascii_digit() => return None,
            b'.' | b'(' | b')' | b'[' | b']' | b'=' | b'*' | b':' | b'-' | b'+' | b'/' | b'%' | b'<' | b'>' | b'|' => {
                self.copy(1);
            }
            // Nothing else is in a lookup.
            _ => return None,
        }
        self.before = byte;
        Some(())
    }

    fn copy(&mut self, count: usize) {
        self.template.extend_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        self.last = None;
    }

    fn number(&mut self, mark: u8, sign: usize) -> Option<()> {
        let digits = self.bytes[self.at + sign..].iter().position(|b| !b.is_ascii_digit());
        let end = digits.map_or(self.bytes.len(), |digits| self.at + sign + digits);
        let next = self.bytes.get(end).copied().unwrap_or(b' ');
        // 1.5, 1e3, 0x1F, 1_000
        if in_word(next) || matches!(next, b'.' | b'\'' | b'"') {
            return None;
        }
        self.literal(mark, end);
        Some(())
    }

    fn text(&mut self) -> Option<()> {
        let inside = &self.bytes[self.at + 1..];
        let length = inside.iter().position(|b| matches!(b, b'\'' | b'\\' | 0)).filter(|at| inside[*at] == b'\'')?;
        let end = self.at + length + 2;
        // A quote that is doubled, or a word that belongs to it
        match self.bytes.get(end) {
            Some(next) if in_word(*next) || matches!(next, b'\'' | b'"') => None,
            _ => {
                self.literal(TEXT, end);
                Some(())
            }
        }
    }

    fn literal(&mut self, mark: u8, end: usize) {
        match self.last {
            Some((place, true)) => {
                self.template.truncate(place);
                self.template.push(LIST);
            }
            _ => self.template.push(mark),
        }
        self.last = Some((self.template.len() - 1, false));
        self.literals.push(self.at..end);
        self.at = end;
    }
}

/// A lookup whose keys are the literals of its text, and nothing but them.
#[derive(Debug)]
pub struct Template {
    /// With the literals as parameters.
    keys: Keys,
}

impl Template {
    /// The template of a statement that was parsed as this query; `None` if it is no lookup, or its literals are not simply
    /// its keys.
    pub fn learn(fingerprint: &Fingerprint<'_>, query: &ast::Query, snapshot: &Snapshot) -> Option<Template> {
        let known = recognise(query, snapshot)?;
        let parsed = parse(&fingerprint.parameterised()).ok()?;
        let [Statement::Query(query)] = parsed.iter().map(|p| &p.statement).collect::<Vec<_>>()[..] else {
            return None;
        };
        let Lookup { view, keys, projection, parameters } = recognise(query, snapshot)?;
        let template = Template { keys };
        let same = view == known.view
            && projection == known.projection
            && parameters == fingerprint.literals.len()
            && template.is_in_order()
            && template.keys(fingerprint) == known.keys;
        same.then_some(template)
    }

    /// A list must stand for a list of any length.
    fn is_in_order(&self) -> bool {
        match &self.keys {
            Keys::Any(operands) => operands.iter().enumerate().all(|(i, o)| *o == Operand::Parameter(i)),
            _ => true,
        }
    }

    /// The keys of a statement with this template's fingerprint.
    pub fn keys(&self, fingerprint: &Fingerprint<'_>) -> Keys {
        let literal = |text: &str| Operand::Literal(text.to_string());
        match &self.keys {
            Keys::Any(_) => Keys::Any(fingerprint.values().map(literal).collect()),
            Keys::AnyParameter(at) => Keys::AnyLiteral(fingerprint.values().nth(*at).unwrap_or_default().to_string()),
            Keys::One(operands) => Keys::One(
                operands
                    .iter()
                    .map(|operand| match operand {
                        Operand::Parameter(at) => literal(fingerprint.values().nth(*at).unwrap_or_default()),
                        Operand::Literal(text) => literal(text),
                    })
                    .collect(),
            ),
            Keys::AnyLiteral(text) => Keys::AnyLiteral(text.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
