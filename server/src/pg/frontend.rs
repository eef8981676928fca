//! Bytes from a client to messages, borrowed from the frame they came in.
//!
//! Why not pgwire's decoder: it reads fields without checking that the message holds them, so a short Bind panics and
//! a long one eats into the message after it; and it turns bad UTF-8 into replacement characters. Here every read is
//! bounded by the frame, and a message that does not fill its frame exactly is refused, as PostgreSQL does.

use super::error::{PgError, sqlstate};
use super::format::Formats;
use bytes::Bytes;

/// One message; names and texts point into the frame.
#[derive(Debug, PartialEq)]
pub(super) enum Frontend<'a> {
    Query(&'a str),
    Parse { name: &'a str, sql: &'a str, parameter_oids: Vec<u32> },
    Bind(Bind<'a>),
    Describe(Target<'a>),
    Close(Target<'a>),
    Execute { portal: &'a str, rows_max: i32 },
    Flush,
    Sync,
    Terminate,
    CopyData,
    CopyDone,
    CopyFail(&'a str),
    Password,
    FunctionCall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Statement(&'a str),
    Portal(&'a str),
}

/// A Bind whose parameters have been walked once, so that taking them out cannot fail.
#[derive(Debug, PartialEq)]
pub(super) struct Bind<'a> {
    pub portal: &'a str,
    pub statement: &'a str,
    pub parameter_formats: Formats,
    /// Codes given; 0 and 1 have meanings of their own, any other number must be the number of parameters.
    pub parameter_format_count: usize,
    pub parameter_count: usize,
    /// Length-prefixed values, as they stand in the message.
    pub parameters: &'a [u8],
    pub result_formats: Formats,
    pub result_format_count: usize,
}

impl Bind<'_> {
    /// Puts the values into `into`; each shares `raw`, which holds the bytes of `self.parameters`.
    pub fn parameters(&self, raw: &Bytes, into: &mut Vec<Option<Bytes>>) -> Result<(), PgError> {
        into.clear();
        into.reserve(self.parameter_count);
        let mut reader = Reader { rest: raw };
        for _ in 0..self.parameter_count {
            into.push(reader.value()?.map(|value| raw.slice_ref(value)));
        }
        Ok(())
    }
}

/// Bytes a message may have: PostgreSQL's limit for those that carry no data (`PQ_SMALL_MESSAGE_LIMIT`).
const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;

/// Whether a frame (type byte, length, body) stands complete at the front of `input`: its whole length if so, else how
/// many bytes it will have as far as is known.
pub(super) enum Framing {
    Complete(usize),
    Incomplete { expected: usize },
}

pub(super) fn framing(input: &[u8], message_bytes_max: usize) -> Result<Framing, PgError> {
    let Some(&kind) = input.first() else { return Ok(Framing::Incomplete { expected: 5 }) };
    let limit = match kind {
        b'Q' | b'P' | b'B' | b'd' | b'F' | b'p' => message_bytes_max,
        b'D' | b'C' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL_MESSAGE_BYTES_MAX,
        other => {
            return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, format!("invalid frontend message type {other}")));
        }
    };
    let Some(length) = input.get(1..5).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(u32::from_be_bytes) else {
        return Ok(Framing::Incomplete { expected: 5 });
    };
    let length = length as usize;
    if length < 4 {
        return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, format!("invalid message length {length}")));
    }
    if length > limit {
        let message = format!("message of {length} bytes exceeds the limit of {limit} bytes");
        return Err(PgError::fatal(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
            .hint("send less in one statement, or use COPY for bulk data"));
    }
    let whole = length + 1;
    Ok(if input.len() >= whole { Framing::Complete(whole) } else { Framing::Incomplete { expected: whole } })
}

/// Reads one message of type `kind` from its body.
pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Frontend<'_>, PgError> {
    let mut reader = Reader { rest: body };
    let message = match kind {
        b'Q' => Frontend::Query(reader.text()?),
        b'P' => {
            let (name, sql) = (reader.text()?, reader.text()?);
            let count = usize::from(reader.u16()?);
            let (oids, _) = reader.take(count * 4)?.as_chunks::<4>();
            Frontend::Parse { name, sql, parameter_oids: oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect() }
        }
        b'B' => Frontend::Bind(bind(&mut reader)?),
        b'D' => Frontend::Describe(target(&mut reader)?),
        b'C' => Frontend::Close(target(&mut reader)?),
        b'E' => Frontend::Execute { portal: reader.text()?, rows_max: reader.i32()? },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        // The loop takes the data from the frame itself; nothing here to read.
        b'd' => return Ok(Frontend::CopyData),
        b'c' => Frontend::CopyDone,
        b'f' => Frontend::CopyFail(reader.text()?),
        b'p' => return Ok(Frontend::Password),
        b'F' => return Ok(Frontend::FunctionCall),
        other => return Err(PgError::protocol(format!("invalid frontend message type {other}"))),
    };
    reader.end()?;
    Ok(message)
}

fn bind<'a>(reader: &mut Reader<'a>) -> Result<Bind<'a>, PgError> {
    let (portal, statement) = (reader.text()?, reader.text()?);
    let parameter_format_count = usize::from(reader.u16()?);
    let parameter_formats = Formats::parse(reader.take(parameter_format_count * 2)?)?;
    let parameter_count = usize::from(reader.u16()?);
    let before = reader.rest;
    for _ in 0..parameter_count {
        reader.value()?;
    }
    let parameters = &before[..before.len() - reader.rest.len()];
    let result_format_count = usize::from(reader.u16()?);
    let result_formats = Formats::parse(reader.take(result_format_count * 2)?)?;
    Ok(Bind {
        portal,
        statement,
        parameter_formats,
        parameter_format_count,
        parameter_count,
        parameters,
        result_formats,
        result_format_count,
    })
}

fn target<'a>(reader: &mut Reader<'a>) -> Result<Target<'a>, PgError> {
    match reader.take(1)? {
        b"S" => Ok(Target::Statement(reader.text()?)),
        b"P" => Ok(Target::Portal(reader.text()?)),
        other => Err(PgError::protocol(format!("invalid Describe or Close message subtype {}", other[0]))),
    }
}

/// A cursor that never leaves the frame.
pub(super) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], PgError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| PgError::protocol("insufficient data left in message"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PgError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u16(&mut self) -> Result<u16, PgError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, PgError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A NUL-terminated string.
    pub fn text(&mut self) -> Result<&'a str, PgError> {
        let length = self.rest.iter().position(|byte| *byte == 0);
        let length = length.ok_or_else(|| PgError::protocol("invalid string in message"))?;
        let text = &self.take(length + 1)?[..length];
        std::str::from_utf8(text).map_err(|error| {
            let bad: Vec<String> =
                text[error.valid_up_to()..].iter().take(4).map(|byte| format!("0x{byte:02x}")).collect();
            let message = format!("invalid byte sequence for encoding \"UTF8\": {}", bad.join(" "));
            PgError::error(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, message)
        })
    }

    /// A length-prefixed value; −1 is NULL.
    fn value(&mut self) -> Result<Option<&'a [u8]>, PgError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length)
                    .map_err(|_| PgError::protocol(format!("invalid parameter length {length} in bind message")))?;
                self.take(length).map(Some)
            }
        }
    }

    fn end(&self) -> Result<(), PgError> {
        if self.rest.is_empty() { Ok(()) } else { Err(PgError::protocol("invalid message format")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bind_shorter_than_its_counts_is_refused() {
        // One parameter announced with five bytes, none there.
        let body = b"\0\0\0\0\0\x01\0\0\0\x05";
        assert_eq!(decode(b'B', body).unwrap_err().sqlstate, sqlstate::PROTOCOL_VIOLATION);
    }

    #[test]
    fn bytes_after_the_last_field_are_refused() {
        assert_eq!(decode(b'S', b"x").unwrap_err().message, "invalid message format");
    }

    #[test]
    fn a_query_that_is_not_utf8_is_refused_by_its_first_bad_byte() {
        let error = decode(b'Q', b"select '\xff'\0").unwrap_err();
        assert_eq!(error.sqlstate, sqlstate::CHARACTER_NOT_IN_REPERTOIRE);
        assert!(error.message.ends_with("0xff 0x27"), "{}", error.message);
    }

    #[test]
    fn equal_formats_fold_and_unequal_ones_stay_apart() {
        assert_eq!(Formats::parse(b"\0\x01\0\x01").unwrap(), Formats::All(super::super::Format::Binary));
        let mixed = Formats::parse(b"\0\x01\0\0").unwrap();
        assert_eq!((mixed.of(0).code(), mixed.of(1).code()), (1, 0));
        assert_eq!(Formats::parse(b"\0\x07").unwrap_err().sqlstate, sqlstate::INVALID_PARAMETER_VALUE);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(kind in prop::sample::select(b"QPBDCEHSXdcfpF".to_vec()), body: Vec<u8>) {
            if let Ok(Frontend::Bind(bind)) = decode(kind, &body) {
                let mut values = Vec::new();
                bind.parameters(&Bytes::copy_from_slice(bind.parameters), &mut values).unwrap();
                prop_assert_eq!(values.len(), bind.parameter_count);
            }
            let _ = framing(&body, 1 << 20);
        }
    }
}
