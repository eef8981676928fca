//! The shape of a history table in Iceberg: types, partitioning, sort order, and the cast of steps into it.
//!
//! Iceberg has fewer types than SQL. What it lacks is stored in the nearest type that every reader understands, says so
//! in the column's comment, and is cast back to the declared type on reading:
//!
//! | declared (Arrow)          | Iceberg  | stored as |
//! |---------------------------|----------|-----------|
//! | `Int16`                   | `int`    | the same number |
//! | `Interval(MonthDayNano)`  | `string` | `1 mons 2 days 3.500000000 secs`, readable by PostgreSQL and DuckDB as `::interval` |
//! | `Duration(Microsecond)`   | `long`   | microseconds |
//! | a `vector`                | `list<float>` | its numbers |

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, IntervalUnit, TimeUnit},
};
use iceberg::{
    arrow::schema_to_arrow_schema,
    spec::{
        ListType, NestedField, NestedFieldRef, NullOrder, PrimitiveType, Schema, SortDirection, SortField, SortOrder,
        TableMetadata, Transform, Type, UnboundPartitionField, UnboundPartitionSpec,
    },
};
use std::sync::Arc;
use tidemark_catalog::vector::is_vector;
use tidemark_engine::seam::{HistoryPartition, HistoryTable, SeamError, SeamResult};

/// The id of the sort order (entity key, time) of every history table.
pub const SORT_ORDER_ID: i64 = 1;
/// Iceberg numbers partition fields from 1000. Given explicitly: some catalogs fail on a spec without ids.
const FIRST_PARTITION_FIELD_ID: i32 = 1000;

/// The Iceberg schema of a history table; column `i` has field id `i + 1`.
pub fn storage_schema(table: &HistoryTable) -> SeamResult<Schema> {
    let mut next_id = table.schema.fields().len() as i32 + 1;
    let mut fields: Vec<NestedFieldRef> = Vec::with_capacity(table.schema.fields().len());
    for (index, field) in table.schema.fields().iter().enumerate() {
        let ty = storage_type(field.data_type(), &mut next_id).ok_or_else(|| {
            SeamError::NotDone(format!(
                "column \"{}\" of history table \"{}\" has a type that Iceberg cannot store: {} (cast it in the SELECT)",
                field.name(),
                table.name,
                field.data_type()
            ))
        })?;
        let mut nested = NestedField::new(index as i32 + 1, field.name(), ty, !field.is_nullable());
        let comment = [table.comments.get(index).map_or("", String::as_str), storage_note(field)];
        let comment: Vec<&str> = comment.into_iter().filter(|part| !part.is_empty()).collect();
        if !comment.is_empty() {
            nested = nested.with_doc(comment.join("; "));
        }
        fields.push(nested.into());
    }
    Schema::builder().with_fields(fields).build().map_err(|error| refused(table, error))
}

fn storage_type(ty: &DataType, next_id: &mut i32) -> Option<Type> {
    Some(Type::Primitive(match ty {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => PrimitiveType::Int,
        DataType::Int64 | DataType::UInt32 | DataType::Duration(TimeUnit::Microsecond) => PrimitiveType::Long,
        DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal128(precision, scale) if (0..=*precision as i32).contains(&(*scale as i32)) => {
            PrimitiveType::Decimal { precision: *precision as u32, scale: *scale as u32 }
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Interval(IntervalUnit::MonthDayNano) => {
            PrimitiveType::String
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => PrimitiveType::Binary,
        DataType::Date32 => PrimitiveType::Date,
        DataType::Time64(TimeUnit::Microsecond) => PrimitiveType::Time,
        DataType::Timestamp(TimeUnit::Microsecond, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => PrimitiveType::Timestamptz,
        DataType::List(item) => {
            let id = *next_id;
            *next_id += 1;
            let item_type = storage_type(item.data_type(), next_id)?;
            let element = NestedField::list_element(id, item_type, !item.is_nullable());
            return Some(Type::List(ListType::new(element.into())));
        }
        _ => return None,
    }))
}

fn storage_note(field: &Field) -> &'static str {
    if is_vector(field.data_type()) {
        return "declared as vector";
    }
    let ty = match field.data_type() {
        DataType::List(item) => item.data_type(),
        ty => ty,
    };
    match ty {
        DataType::Int8 | DataType::Int16 => "declared as smallint",
        DataType::Interval(_) => "an interval as text: cast it with ::interval",
        DataType::Duration(_) => "a duration in microseconds",
        _ => "",
    }
}

/// Months or days (UTC) of the time column.
pub fn partition_spec(table: &HistoryTable, schema: &Schema) -> SeamResult<UnboundPartitionSpec> {
    let time = table.schema.field(table.time).name();
    // A partition field shares the name space of the columns.
    let (mut name, transform) = match table.partition {
        HistoryPartition::Month => (format!("{time}_month"), Transform::Month),
        HistoryPartition::Day => (format!("{time}_day"), Transform::Day),
    };
    while schema.field_by_name(&name).is_some() {
        name.push('_');
    }
    let field = UnboundPartitionField::builder()
        .source_id(field_id(schema, time)?)
        .field_id(FIRST_PARTITION_FIELD_ID)
        .name(name)
        .transform(transform)
        .build();
    let spec = UnboundPartitionSpec::builder().add_partition_fields([field]).map_err(|error| refused(table, error))?;
    Ok(spec.build())
}

/// (key columns, time column), ascending.
pub fn sort_order(table: &HistoryTable, schema: &Schema) -> SeamResult<SortOrder> {
    let mut order = SortOrder::builder();
    order.with_order_id(SORT_ORDER_ID);
    for &column in table.key.iter().chain([&table.time]) {
        order.with_sort_field(
            SortField::builder()
                .source_id(field_id(schema, table.schema.field(column).name())?)
                .transform(Transform::Identity)
                .direction(SortDirection::Ascending)
                .null_order(NullOrder::First)
                .build(),
        );
    }
    order.build(schema).map_err(|error| refused(table, error))
}

/// What the steps of a table are partitioned by: the time column's month, or its day.
pub fn partition_transform(table: &HistoryTable, metadata: &TableMetadata) -> SeamResult<Transform> {
    let time = field_id(metadata.current_schema(), table.schema.field(table.time).name())?;
    match metadata.default_partition_spec().fields() {
        [field] if field.source_id == time && matches!(field.transform, Transform::Month | Transform::Day) => {
            Ok(field.transform)
        }
        _ => Err(SeamError::NotDone(format!(
            "history table \"{}\" is not partitioned by month or day of \"{}\": another engine has changed that, and \
             has to change it back",
            table.name,
            table.schema.field(table.time).name()
        ))),
    }
}

pub fn field_id(schema: &Schema, column: &str) -> SeamResult<i32> {
    schema
        .field_id_by_name(column)
        .ok_or_else(|| SeamError::NotDone(format!("column \"{column}\" is not in the Iceberg table")))
}

/// The batch in the types (and with the field ids) that the table stores.
pub fn to_storage(batch: &RecordBatch, schema: &Schema) -> SeamResult<RecordBatch> {
    let stored = schema_to_arrow_schema(schema).map_err(SeamError::not_done)?;
    // A value that does not fit must fail the commit, not become NULL.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = stored.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name()).ok_or_else(|| {
            SeamError::NotDone(format!("steps lack column \"{}\" of the history table", field.name()))
        })?;
        cast_with_options(column, field.data_type(), &options)
            .map_err(|error| SeamError::NotDone(format!("column \"{}\": {error}", field.name())))
    });
    let columns: Vec<ArrayRef> = columns.collect::<SeamResult<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(stored), columns, &options).map_err(SeamError::not_done)
}

fn refused(table: &HistoryTable, error: iceberg::Error) -> SeamError {
    SeamError::NotDone(format!("history table \"{}\": {error}", table.name))
}
