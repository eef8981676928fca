//! Where the records of COPY's text and CSV formats end, and where their fields are, by PostgreSQL's rules.

use super::WireError;

/// The line ending of the whole input, settled by its first line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Eol {
    Unknown,
    Newline,
    CarriageReturn,
    Both,
}

/// Finds record ends in a buffer that grows; remembers how far it looked, so that every byte is looked at once.
pub(crate) struct RecordScanner {
    /// CSV's quote and escape; text format when `None`.
    csv: Option<(u8, u8)>,
    eol: Eol,
    /// How far the current record has been scanned, from its own start.
    scanned: usize,
    in_quote: bool,
    escaped: bool,
    quoted_lines: u64,
}

pub(crate) enum Scan {
    /// The record is the first `len` bytes; the next begins at `next`. `lines` is how many line ends it had inside.
    Record {
        len: usize,
        next: usize,
        lines: u64,
    },
    NeedMore,
}

impl RecordScanner {
    pub(crate) fn new(csv: Option<(u8, u8)>) -> Self {
        RecordScanner { csv, eol: Eol::Unknown, scanned: 0, in_quote: false, escaped: false, quoted_lines: 0 }
    }

    /// Looks for the end of the record that begins at `buffer[0]`; with `last`, the buffer's end is the input's.
    pub(crate) fn next(&mut self, buffer: &[u8], last: bool) -> Result<Scan, WireError> {
        let mut at = self.scanned;
        while let Some(&b) = buffer.get(at) {
            match (self.csv, b) {
                (None, b'\\') => {
                    // The next byte is data, even a line end.
                    if at + 1 >= buffer.len() && !last {
                        break;
                    }
                    at += 2;
                }
                (Some((quote, escape)), _) if b == quote || (b == escape && self.in_quote) => {
                    if self.in_quote && b == escape && escape != quote {
                        self.escaped = !self.escaped;
                    }
                    if b == quote && !self.escaped {
                        self.in_quote = !self.in_quote;
                    }
                    if b != escape || escape == quote {
                        self.escaped = false;
                    }
                    at += 1;
                }
                (Some(_), _) if self.in_quote => {
                    self.escaped = false;
                    let line_end = if self.eol == Eol::Newline { b'\n' } else { b'\r' };
                    self.quoted_lines += u64::from(b == line_end);
                    at += 1;
                }
                (_, b'\n') => match self.eol {
                    Eol::Unknown | Eol::Newline => {
                        self.eol = Eol::Newline;
                        return Ok(self.found(at, at + 1));
                    }
                    Eol::CarriageReturn | Eol::Both => return Err(self.stray("newline", "\\n")),
                },
                (_, b'\r') => {
                    let follower = buffer.get(at + 1);
                    if follower.is_none() && !last && matches!(self.eol, Eol::Unknown | Eol::Both) {
                        break;
                    }
                    match (self.eol, follower) {
                        (Eol::Unknown | Eol::Both, Some(b'\n')) => {
                            self.eol = Eol::Both;
                            return Ok(self.found(at, at + 2));
                        }
                        (Eol::Unknown | Eol::CarriageReturn, _) => {
                            self.eol = Eol::CarriageReturn;
                            return Ok(self.found(at, at + 1));
                        }
                        (Eol::Newline | Eol::Both, _) => return Err(self.stray("carriage return", "\\r")),
                    }
                }
                _ => at += 1,
            }
        }
        self.scanned = at;
        if last && !buffer.is_empty() {
            return Ok(self.found(buffer.len(), buffer.len()));
        }
        Ok(Scan::NeedMore)
    }

    fn found(&mut self, len: usize, next: usize) -> Scan {
        self.scanned = 0;
        self.escaped = false;
        Scan::Record { len, next, lines: std::mem::take(&mut self.quoted_lines) }
    }

    fn stray(&self, what: &str, escape: &str) -> WireError {
        match self.csv {
            None => WireError::new("22P04", format!("literal {what} found in data"))
                .with_hint(format!("Use \"{escape}\" to represent {what}.")),
            Some(_) => WireError::new("22P04", format!("unquoted {what} found in data"))
                .with_hint(format!("Use quoted CSV field to represent {what}.")),
        }
    }
}

/// One field of a record: where its value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Field {
    Null,
    /// In the record itself.
    Raw(usize, usize),
    /// In the scratch buffer, after unescaping.
    Unescaped(usize, usize),
}

/// Splits a record of the text format. `scratch` receives the unescaped values.
pub(crate) fn split_text(
    line: &[u8],
    delimiter: u8,
    null: &[u8],
    fields: &mut Vec<Field>,
    scratch: &mut Vec<u8>,
) -> Result<(), WireError> {
    fields.clear();
    scratch.clear();
    let mut start = 0;
    loop {
        let mut at = start;
        let mut escapes = false;
        while let Some(&b) = line.get(at) {
            if b == delimiter {
                break;
            }
            if b == b'\\' {
                escapes = true;
                at += 1;
            }
            at += 1;
        }
        let end = at.min(line.len());
        let raw = &line[start..end];
        if raw == null {
            fields.push(Field::Null);
        } else if escapes {
            let from = scratch.len();
            unescape_text(raw, scratch)?;
            fields.push(Field::Unescaped(from, scratch.len()));
        } else {
            fields.push(Field::Raw(start, end));
        }
        if end == line.len() {
            return Ok(());
        }
        start = end + 1;
    }
}

fn unescape_text(raw: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut bytes = raw.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        // A backslash at the very end stands for nothing.
        let Some(c) = bytes.next() else { break };
        out.push(match c {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => {
                let mut value = (c - b'0') as u32;
                for _ in 0..2 {
                    let Some(d) = bytes.next_if(|d| (b'0'..=b'7').contains(d)) else { break };
                    value = value * 8 + (d - b'0') as u32;
                }
                value as u8
            }
            b'x' => {
                let mut value = None;
                for _ in 0..2 {
                    let Some(d) = bytes.next_if(u8::is_ascii_hexdigit) else { break };
                    let digit = (d as char).to_digit(16).unwrap_or(0);
                    value = Some(value.unwrap_or(0) * 16 + digit);
                }
                value.map_or(b'x', |v| v as u8)
            }
            b'.' => return Err(WireError::new("22P04", "end-of-copy marker corrupt")),
            other => other,
        });
    }
    Ok(())
}

/// Splits a CSV record. A quote may open anywhere in a field; only a field without any can be NULL.
pub(crate) fn split_csv(
    line: &[u8],
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: &[u8],
    fields: &mut Vec<Field>,
    scratch: &mut Vec<u8>,
) -> Result<(), WireError> {
    fields.clear();
    scratch.clear();
    let mut start = 0;
    loop {
        let mut at = start;
        while line.get(at).is_some_and(|&b| b != delimiter && b != quote) {
            at += 1;
        }
        if line.get(at) != Some(&quote) {
            let raw = &line[start..at];
            fields.push(if raw == null { Field::Null } else { Field::Raw(start, at) });
        } else {
            let from = scratch.len();
            scratch.extend_from_slice(&line[start..at]);
            let mut quoted = false;
            while let Some(&b) = line.get(at) {
                at += 1;
                if !quoted {
                    match b {
                        _ if b == delimiter => {
                            at -= 1;
                            break;
                        }
                        _ if b == quote => quoted = true,
                        _ => scratch.push(b),
                    }
                } else if b == escape
                    && let Some(&next) = line.get(at)
                    && (next == escape || next == quote)
                {
                    scratch.push(next);
                    at += 1;
                } else if b == quote {
                    quoted = false;
                } else {
                    scratch.push(b);
                }
            }
            if quoted {
                return Err(WireError::new("22P04", "unterminated CSV quoted field"));
            }
            fields.push(Field::Unescaped(from, scratch.len()));
        }
        if at == line.len() {
            return Ok(());
        }
        start = at + 1;
    }
}
