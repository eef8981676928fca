//! Text or binary, per parameter or per column, as a Bind message says it.

use super::error::{PgError, sqlstate};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Binary,
}

impl Format {
    /// The code on the wire.
    pub fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }
}

/// One format for all, or one each. Drivers nearly always mean one for all even where they list each, so that case
/// is folded and costs no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formats {
    All(Format),
    Each(Vec<Format>),
}

impl Default for Formats {
    fn default() -> Self {
        Formats::All(Format::Text)
    }
}

impl Formats {
    /// Big-endian 16-bit codes as they stand in the message. None at all means text.
    pub(super) fn parse(codes: &[u8]) -> Result<Formats, PgError> {
        let (pairs, _) = codes.as_chunks::<2>();
        let format = |pair: &[u8; 2]| match i16::from_be_bytes(*pair) {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            code => Err(PgError::error(sqlstate::INVALID_PARAMETER_VALUE, format!("unsupported format code: {code}"))),
        };
        let Some(first) = pairs.first() else { return Ok(Formats::default()) };
        if pairs.iter().all(|pair| pair == first) {
            return Ok(Formats::All(format(first)?));
        }
        Ok(Formats::Each(pairs.iter().map(format).collect::<Result<_, _>>()?))
    }

    /// The format of the column or parameter at `index` (from 0).
    pub fn of(&self, index: usize) -> Format {
        match self {
            Formats::All(format) => *format,
            Formats::Each(formats) => formats.get(index).copied().unwrap_or_default(),
        }
    }
}
