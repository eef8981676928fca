//! `history.<source>`: what the archive of a source shows (decision 0047). Its columns are those of the source, and behind them some that
//! tell where each event came from.

use crate::table::{self, RECORDED_AT_COLUMN};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_catalog::{Object, Relation};

/// The columns that an archive has besides those of its source: the event's place in the log, when it was appended, and where a topic
/// feeds the source the partition and the offset there.
pub const ARCHIVE_COLUMNS: [&str; 4] = ["_offset", RECORDED_AT_COLUMN, "_partition", "_partition_offset"];

/// Whether it is a source that has one.
pub fn is_archived(object: &Object) -> bool {
    object.relation().is_some_and(Relation::is_archived)
}

/// All of them.
pub fn archive_schema(relation: &Relation) -> SchemaRef {
    let mut fields: Vec<Field> = relation.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    // No event is admitted without one.
    if let Some(time) = relation.event_time
        && let Some(field) = fields.get_mut(time)
    {
        *field = field.clone().with_nullable(false);
    }
    let types = [DataType::Int64, table::instant_type(), DataType::Int32, DataType::Int64];
    let own = ARCHIVE_COLUMNS.into_iter().zip(types).map(|(name, ty)| Field::new(name, ty, false));
    fields.extend(own.take(if relation.topic().is_some() { 4 } else { 2 }));
    Arc::new(Schema::new(fields))
}
