//! Vectors: arrays of real numbers of one length, as embeddings are. In Arrow one is a list of 32-bit floats, and the metadata of the
//! list's item says that it is a vector, and of how many dimensions: so whatever holds, stores and compares arrays does it with
//! vectors too, and only what reads and shows values has to ask (decision 0038).

use arrow_schema::{DataType, Field};
use std::{collections::HashMap, fmt, sync::Arc};

/// As pgvector has it.
pub const DIMENSIONS_MAX: u16 = 16_000;

/// The key of the item's metadata; its value is the number of dimensions, and empty where any is taken.
pub const DIMENSIONS: &str = "vector.dimensions";

/// The Arrow type of a vector of so many dimensions, or of any.
pub fn arrow(dimensions: Option<u16>) -> DataType {
    let dimensions = dimensions.map(|n| n.to_string()).unwrap_or_default();
    let item = Field::new_list_field(DataType::Float32, true);
    DataType::List(Arc::new(item.with_metadata(HashMap::from([(DIMENSIONS.to_string(), dimensions)]))))
}

/// How many dimensions vectors of this type have; `Some(None)`: any number. `None`: it is no type of vectors.
pub fn dimensions(ty: &DataType) -> Option<Option<u16>> {
    let DataType::List(item) = ty else { return None };
    let dimensions = item.metadata().get(DIMENSIONS).filter(|_| *item.data_type() == DataType::Float32)?;
    Some(dimensions.parse().ok())
}

pub fn is_vector(ty: &DataType) -> bool {
    dimensions(ty).is_some()
}

/// Why something is no vector. Shown in pgvector's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoVector {
    Syntax(String),
    OutOfRange(String),
    Null,
    Nan,
    Infinite,
    Empty,
    TooLong,
    Dimensions { expected: u16, found: usize },
}

impl NoVector {
    pub fn sqlstate(&self) -> &'static str {
        match self {
            NoVector::Syntax(_) => "22P02",
            NoVector::OutOfRange(_) => "22003",
            NoVector::Null => "22004",
            NoVector::TooLong => "54000",
            NoVector::Nan | NoVector::Infinite | NoVector::Empty | NoVector::Dimensions { .. } => "22000",
        }
    }

    pub fn hint(&self) -> Option<&'static str> {
        match self {
            NoVector::Syntax(_) => Some("write the numbers in brackets: '[1,2.5,3]'"),
            NoVector::Dimensions { .. } => Some("vector without dimensions takes vectors of any length"),
            _ => None,
        }
    }
}

impl fmt::Display for NoVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoVector::Syntax(text) => write!(f, "invalid input syntax for type vector: \"{text}\""),
            NoVector::OutOfRange(number) => write!(f, "\"{number}\" is out of range for type vector"),
            NoVector::Null => f.write_str("array must not contain nulls"),
            NoVector::Nan => f.write_str("NaN not allowed in vector"),
            NoVector::Infinite => f.write_str("infinite value not allowed in vector"),
            NoVector::Empty => f.write_str("vector must have at least 1 dimension"),
            NoVector::TooLong => write!(f, "vector cannot have more than {DIMENSIONS_MAX} dimensions"),
            NoVector::Dimensions { expected, found } => write!(f, "expected {expected} dimensions, not {found}"),
        }
    }
}

/// Whether the numbers are a vector of so many dimensions, or of any.
///
/// # Errors
/// They are not; why.
pub fn check(dimensions: Option<u16>, numbers: &[f32]) -> Result<(), NoVector> {
    if numbers.iter().any(|number| number.is_nan()) {
        return Err(NoVector::Nan);
    }
    if numbers.iter().any(|number| number.is_infinite()) {
        return Err(NoVector::Infinite);
    }
    match dimensions {
        _ if numbers.is_empty() => Err(NoVector::Empty),
        _ if numbers.len() > usize::from(DIMENSIONS_MAX) => Err(NoVector::TooLong),
        Some(expected) if numbers.len() != usize::from(expected) => {
            Err(NoVector::Dimensions { expected, found: numbers.len() })
        }
        _ => Ok(()),
    }
}

/// The vector that a text is: `[1,2.5,3]`, with white space anywhere but in a number.
///
/// # Errors
/// It is none, or not one of so many dimensions.
pub fn parse(text: &str, dimensions: Option<u16>) -> Result<Vec<f32>, NoVector> {
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let wrong = || NoVector::Syntax(text.to_string());
    let inside =
        text.trim_matches(space).strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(wrong)?;
    let mut numbers = vec![];
    if !inside.trim_matches(space).is_empty() {
        for number in inside.split(',').map(|number| number.trim_matches(space)) {
            let read: f32 = number.parse().map_err(|_| wrong())?;
            if read.is_infinite() && number.contains(|c: char| c.is_ascii_digit()) {
                return Err(NoVector::OutOfRange(number.to_string()));
            }
            numbers.push(read);
        }
    }
    check(dimensions, &numbers).map(|()| numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_an_array_that_says_so() {
        for dimensions in [None, Some(1), Some(3), Some(DIMENSIONS_MAX)] {
            assert_eq!(super::dimensions(&arrow(dimensions)), Some(dimensions));
        }
        let array = DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)));
        assert_eq!(dimensions(&array), None);
        assert!(!is_vector(&DataType::Float32) && arrow(None) != array && arrow(Some(2)) != arrow(Some(3)));
        // Logs and history ask for no more than that.
        assert!(arrow(Some(2)).equals_datatype(&array));
    }

    #[test]
    fn texts_are_read_as_pgvector_reads_them() {
        for (text, dimensions, expected) in [
            ("[1,2.5,-3e2]", None, Ok(vec![1.0, 2.5, -300.0])),
            (" [ 1 ,\t2 ] \n", Some(2), Ok(vec![1.0, 2.0])),
            ("[1,2]", Some(3), Err("22000 expected 3 dimensions, not 2")),
            ("[]", None, Err("22000 vector must have at least 1 dimension")),
            ("[nan]", None, Err("22000 NaN not allowed in vector")),
            ("[Infinity]", None, Err("22000 infinite value not allowed in vector")),
            ("[4e38]", None, Err("22003 \"4e38\" is out of range for type vector")),
            ("{1,2}", None, Err("22P02 invalid input syntax for type vector: \"{1,2}\"")),
            ("[1,]", None, Err("22P02 invalid input syntax for type vector: \"[1,]\"")),
            ("[1 2]", None, Err("22P02 invalid input syntax for type vector: \"[1 2]\"")),
            ("[1", None, Err("22P02 invalid input syntax for type vector: \"[1\"")),
            ("", None, Err("22P02 invalid input syntax for type vector: \"\"")),
        ] {
            let read = parse(text, dimensions).map_err(|error| format!("{} {error}", error.sqlstate()));
            assert_eq!(read, expected.map_err(str::to_string), "{text}");
        }
        assert_eq!(check(None, &vec![0.0; 16_001]), Err(NoVector::TooLong));
        assert_eq!(check(None, &vec![0.0; 16_000]), Ok(()));
    }
}
