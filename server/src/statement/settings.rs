//! `SHOW name`, `SHOW ALL`.

use super::{text_rows, text_schema};
use crate::{pg::PgError, session::Session};
use arrow::{array::RecordBatch, datatypes::SchemaRef};

pub fn schema(name: &str) -> SchemaRef {
    match name {
        "all" => text_schema(&["name", "setting"]),
        "timezone" => text_schema(&["TimeZone"]),
        "datestyle" => text_schema(&["DateStyle"]),
        "intervalstyle" => text_schema(&["IntervalStyle"]),
        name => text_schema(&[name]),
    }
}

pub fn show(session: &Session, name: &str) -> Result<RecordBatch, PgError> {
    let rows = match name {
        "all" => session
            .all()
            .into_iter()
            .map(|(name, value)| vec![Some(name.to_string()), Some(value.to_string())])
            .collect(),
        name => match session.get(name) {
            Some(value) => vec![vec![Some(value.to_string())]],
            None => return Err(PgError::error("42704", format!("unrecognized configuration parameter \"{name}\""))),
        },
    };
    text_rows(schema(name), &rows)
}
