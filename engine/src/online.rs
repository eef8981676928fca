//! A row as the online store keeps it: what every reader of the store decodes, ours or another's (docs/redis-layout.md).
//!
//! Small, because a store may keep a hundred million of them: times lie beside each other and are kept as distances,
//! numbers take as many bytes as they need (the postcard wire format).

use crate::{compiled::Row, value::Value};
use serde::{Deserialize, Serialize};

/// The first byte of every row. A reader that meets another one does not know the row.
pub const FORMAT: u8 = 1;

/// The row of an entity key in the online store.
#[derive(Debug, Clone, PartialEq)]
pub struct OnlineRow {
    /// When it next changes by time alone, microseconds since 1970: from then on it no longer holds. `None`: never.
    pub until_us: Option<i64>,
    /// When it became what it is.
    pub instant_us: i64,
    /// The event time of its last event.
    pub event_us: i64,
    /// The columns that are neither key nor time, in the order of the view.
    pub outputs: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    format: u8,
    instant_us: i64,
    /// Before the instant.
    event_before_us: i64,
    /// After the instant.
    until_after_us: Option<i64>,
    outputs: T,
}

impl OnlineRow {
    pub fn encode(row: &Row, until_us: Option<i64>) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&Stored {
            format: FORMAT,
            instant_us: row.instant_us,
            event_before_us: row.instant_us.wrapping_sub(row.event_us),
            until_after_us: until_us.map(|us| us.wrapping_sub(row.instant_us)),
            outputs: &row.outputs[..],
        })
    }

    /// # Errors
    /// The bytes are no row, or one of another format.
    pub fn decode(bytes: &[u8]) -> Result<OnlineRow, String> {
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(other) => {
                return Err(format!("a row of the online store has format {other}, this server reads {FORMAT}"));
            }
            None => return Err("a row of the online store is empty".to_string()),
        }
        let row: Stored<Vec<Value>> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(OnlineRow {
            until_us: row.until_after_us.map(|us| row.instant_us.wrapping_add(us)),
            instant_us: row.instant_us,
            event_us: row.instant_us.wrapping_sub(row.event_before_us),
            outputs: row.outputs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_and_the_bytes_are_those_of_the_documentation() {
        let outputs = vec![Value::Int(3), Value::float(2.5), Value::Null, Value::Text("a".into())];
        let row = Row { key: [].into(), instant_us: 1_000, event_us: 990, outputs: outputs.clone().into() };
        for until_us in [None, Some(1_500), Some(i64::MAX)] {
            let bytes = OnlineRow::encode(&row, until_us).expect("bytes");
            let read = OnlineRow::decode(&bytes).expect("a row");
            assert_eq!(read, OnlineRow { until_us, instant_us: 1_000, event_us: 990, outputs: outputs.clone() });
        }
        let bytes = OnlineRow::encode(&row, Some(1_500)).expect("bytes");
        // format; instant, zigzag; 10 before it; there is an end, 500 after it; four columns: integer 3, float 2.5, NULL, text.
        let expected = [&[1, 0xd0, 0x0f, 20, 1, 0xe8, 0x07, 4, 2, 6, 3][..], &2.5f64.to_le_bytes(), &[0, 5, 1, b'a']];
        assert_eq!(bytes, expected.concat());
        assert!(OnlineRow::decode(&[]).is_err() && OnlineRow::decode(&[9, 1]).is_err());
    }
}
