//! Arrow values as PostgreSQL's clients see them: type OIDs, text and binary representations, COPY formats.
//!
//! Pure code over arrays and bytes: nothing here knows the protocol's messages, sessions or plans. The reference is
//! PostgreSQL 15's output, recorded in the tests; what differs on purpose is said where it happens.

mod calendar;
mod cell;
mod column;
pub mod copy_in;
pub mod copy_out;
mod copy_scan;
mod csv_record;
pub mod decode;
pub mod encode;
mod number;
mod parse_interval;
pub mod parse_text;
mod parse_time;
mod show_time;
pub mod types;
mod zone;

pub(crate) use cell::Scalar;
pub use cell::{show_interval, show_value, show_value_in};
pub(crate) use column::ColumnBuilder;
pub use copy_in::{CopyDecoder, CopyError};
pub use copy_out::CopyEncoder;
pub use csv_record::first_csv_record;
pub use decode::{decode_param, value_from_text};
pub use encode::{RowEncoder, RowWriter};
pub(crate) use show_time::Interval;
pub use types::{PgType, pg_type, pg_type_of_field};
pub use zone::SessionZone;

use tidemark_catalog::vector::NoVector;

#[cfg(test)]
mod tests;

/// What a client is told: PostgreSQL's SQLSTATE and wording, so that drivers and people recognise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where it happened, e.g. `COPY flights, line 17, column dep_delay: "abc"`.
    pub context: Option<String>,
}

impl WireError {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        WireError { sqlstate, message: message.into(), detail: None, hint: None, context: None }
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// 22P02: the text is not one of the type's spellings.
    pub(crate) fn syntax(ty: &str, text: &str) -> Self {
        WireError::new("22P02", format!("invalid input syntax for type {ty}: \"{text}\""))
    }

    /// 22007: the same for dates and times.
    pub(crate) fn datetime_syntax(ty: &str, text: &str) -> Self {
        WireError::new("22007", format!("invalid input syntax for type {ty}: \"{text}\""))
    }

    /// 22P03: a binary value whose length or content its type cannot have.
    pub(crate) fn binary() -> Self {
        WireError::new("22P03", "incorrect binary data format")
    }

    /// 08P01: the message ends inside a value.
    pub(crate) fn short() -> Self {
        WireError::new("08P01", "insufficient data left in message")
    }

    /// 22021: bytes that are not UTF-8, shown as PostgreSQL does (the bytes of the broken character).
    pub(crate) fn encoding(bytes: &[u8]) -> Self {
        let bad = match std::str::from_utf8(bytes) {
            Ok(_) => &[][..],
            Err(e) => {
                let rest = bytes.get(e.valid_up_to()..).unwrap_or_default();
                let announced = match rest.first() {
                    Some(0xC0..=0xDF) => 2,
                    Some(0xE0..=0xEF) => 3,
                    Some(0xF0..=0xF7) => 4,
                    _ => 1,
                };
                rest.get(..announced).unwrap_or(rest)
            }
        };
        let shown: Vec<String> = bad.iter().map(|b| format!("0x{b:02x}")).collect();
        WireError::new("22021", format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")))
    }
}

impl From<NoVector> for WireError {
    fn from(error: NoVector) -> Self {
        let wire = WireError::new(error.sqlstate(), error.to_string());
        WireError { hint: error.hint().map(str::to_owned), ..wire }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if let Some(context) = &self.context {
            write!(f, " ({context})")?;
        }
        Ok(())
    }
}

impl std::error::Error for WireError {}

/// The format code of one parameter or result column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldFormat {
    Text,
    Binary,
}

impl FieldFormat {
    /// The protocol's code, 0 or 1.
    pub fn from_code(code: i16) -> Result<Self, WireError> {
        match code {
            0 => Ok(FieldFormat::Text),
            1 => Ok(FieldFormat::Binary),
            _ => Err(WireError::new("22023", format!("unsupported format code: {code}"))),
        }
    }

    pub fn code(self) -> i16 {
        match self {
            FieldFormat::Text => 0,
            FieldFormat::Binary => 1,
        }
    }
}

/// The session settings that decide how values look as text. The others have one value here: `DateStyle` is ISO,
/// `IntervalStyle` is `postgres`, `bytea_output` is `hex`.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFormat {
    pub time_zone: SessionZone,
    /// 1 and above is shortest round-trip; 0 and below is `15 + n` (double) or `6 + n` (real) significant digits.
    pub extra_float_digits: i32,
}

impl Default for SessionFormat {
    fn default() -> Self {
        SessionFormat { time_zone: SessionZone::UTC, extra_float_digits: 1 }
    }
}
