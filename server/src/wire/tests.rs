//! Against PostgreSQL 15: recorded values, round trips, arbitrary input.

mod copy;
mod recorded;
mod round_trip;
mod values;

use super::{FieldFormat, RowEncoder, SessionFormat, SessionZone};
use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Field, Schema},
};
use bytes::BytesMut;
use std::sync::Arc;

fn session(zone: &str) -> SessionFormat {
    SessionFormat { time_zone: SessionZone::parse(zone).expect("zone"), extra_float_digits: 1 }
}

/// The first value of a column as a client receives it; `None` is NULL.
fn shown(field: Field, array: ArrayRef, format: FieldFormat, session: &SessionFormat) -> Option<Vec<u8>> {
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).expect("batch");
    let mut out = BytesMut::new();
    RowEncoder::new(&schema, &[format], session).expect("encoder").encode(&batch, 0, &mut out);
    assert_eq!(&out[..2], &[0, 1]);
    let len = i32::from_be_bytes(out[2..6].try_into().expect("length"));
    match len {
        -1 => None,
        len => {
            assert_eq!(len as usize, out.len() - 6);
            Some(out[6..].to_vec())
        }
    }
}

fn shown_text(array: ArrayRef) -> String {
    let field = Field::new("c", array.data_type().clone(), true);
    let bytes = shown(field, array, FieldFormat::Text, &SessionFormat::default()).expect("a value");
    String::from_utf8(bytes).expect("utf-8")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}
