//! One Arrow column under construction from PostgreSQL values: COPY fills one per column, an array parameter one.

use super::{
    SessionZone, WireError,
    decode::{
        array_elements, bool_from, date_from, fixed, integer_from, interval_from, jsonb_text, numeric_text, time_from,
        timestamp_from, utf8, uuid_from_text, vector_from,
    },
    parse_text as text,
    types::{element_oid, oid, pg_type_of_field, type_name},
};
use arrow::{
    array::*,
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, FieldRef, IntervalUnit, TimeUnit},
};
use std::sync::Arc;
use tidemark_catalog::{uuid, vector};

pub(crate) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric {
        builder: Decimal128Builder,
        precision: u8,
        scale: i8,
    },
    Text(StringBuilder),
    Uuid(StringBuilder),
    /// In binary behind the number of its form. Who admits the rows reads it.
    Jsonb(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Vector {
        field: FieldRef,
        dimensions: Option<u16>,
        numbers: Float32Builder,
        offsets: Vec<i32>,
        valid: Vec<bool>,
    },
    Array {
        field: FieldRef,
        element: Box<ColumnBuilder>,
        offsets: Vec<i32>,
        valid: Vec<bool>,
    },
}

impl ColumnBuilder {
    /// The same for what is shown as this type: a UUID, an array of them, and `jsonb` are held as text.
    pub(crate) fn of(data_type: &DataType, shown: u32) -> Result<Self, WireError> {
        Ok(match data_type {
            DataType::Utf8 if shown == oid::UUID => Self::Uuid(StringBuilder::new()),
            DataType::Utf8 if shown == oid::JSONB => Self::Jsonb(StringBuilder::new()),
            DataType::List(field) if element_oid(shown) == Some(oid::UUID) => Self::Array {
                field: field.clone(),
                element: Box::new(Self::of(field.data_type(), oid::UUID)?),
                offsets: vec![0],
                valid: vec![],
            },
            _ => Self::new(data_type)?,
        })
    }

    /// For the Arrow types that columns of sources and tables have; another is 0A000.
    pub(crate) fn new(data_type: &DataType) -> Result<Self, WireError> {
        Ok(match data_type {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int16 => Self::Int2(Int16Builder::new()),
            DataType::Int32 => Self::Int4(Int32Builder::new()),
            DataType::Int64 => Self::Int8(Int64Builder::new()),
            DataType::Float32 => Self::Float4(Float32Builder::new()),
            DataType::Float64 => Self::Float8(Float64Builder::new()),
            DataType::Decimal128(precision, scale) => Self::Numeric {
                builder: Decimal128Builder::new().with_data_type(data_type.clone()),
                precision: *precision,
                scale: *scale,
            },
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Bytea(BinaryBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
                Self::TimestampTz(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()))
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Self::Interval(IntervalMonthDayNanoBuilder::new()),
            DataType::List(field) if vector::is_vector(data_type) => Self::Vector {
                field: field.clone(),
                dimensions: vector::dimensions(data_type).flatten(),
                numbers: Float32Builder::new(),
                offsets: vec![0],
                valid: vec![],
            },
            DataType::List(field) => Self::Array {
                field: field.clone(),
                element: Box::new(ColumnBuilder::new(field.data_type())?),
                offsets: vec![0],
                valid: vec![],
            },
            other => {
                let name = type_name(super::pg_type(other).oid);
                return Err(WireError::new("0A000", format!("cannot read values of type {name} ({other})")));
            }
        })
    }

    pub(crate) fn append_text(&mut self, s: &str, zone: &SessionZone) -> Result<(), WireError> {
        match self {
            Self::Bool(b) => b.append_value(text::parse_bool(s)?),
            Self::Int2(b) => b.append_value(text::parse_int2(s)?),
            Self::Int4(b) => b.append_value(text::parse_int4(s)?),
            Self::Int8(b) => b.append_value(text::parse_int8(s)?),
            Self::Float4(b) => b.append_value(text::parse_float4(s)?),
            Self::Float8(b) => b.append_value(text::parse_float8(s)?),
            Self::Numeric { builder, precision, scale } => {
                builder.append_value(text::parse_decimal128(s, *precision, *scale)?)
            }
            Self::Text(b) | Self::Jsonb(b) => b.append_value(s),
            Self::Uuid(b) => b.append_value(uuid_from_text(s)?),
            Self::Bytea(b) => b.append_value(text::parse_bytea(s)?),
            Self::Date(b) => b.append_value(text::parse_date(s)?),
            Self::Time(b) => b.append_value(text::parse_time(s)?),
            Self::Timestamp(b) => b.append_value(text::parse_timestamp(s)?),
            Self::TimestampTz(b) => b.append_value(text::parse_timestamptz(s, zone)?),
            Self::Interval(b) => b.append_value(text::parse_interval(s)?),
            Self::Vector { dimensions, numbers, offsets, valid, .. } => {
                let read = vector::parse(s, *dimensions)?;
                numbers.append_slice(&read);
                end_array(offsets, valid, read.len())?;
            }
            Self::Array { element, offsets, valid, .. } => {
                let elements = text::parse_array(s)?;
                let count = elements.len();
                for value in elements {
                    match value {
                        Some(value) => element.append_text(&value, zone)?,
                        None => element.append_null(),
                    }
                }
                end_array(offsets, valid, count)?;
            }
        }
        Ok(())
    }

    pub(crate) fn append_binary(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Bool(b) => b.append_value(bool_from(bytes)?),
            Self::Int2(b) => b.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Self::Int4(b) => b.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Self::Int8(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Self::Float4(b) => b.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Self::Float8(b) => b.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Self::Numeric { builder, precision, scale } => {
                builder.append_value(text::parse_decimal128(&numeric_text(bytes)?, *precision, *scale)?)
            }
            Self::Text(b) => b.append_value(utf8(bytes)?),
            Self::Jsonb(b) => b.append_value(utf8(jsonb_text(bytes)?)?),
            Self::Uuid(b) => b.append_value(uuid::text(fixed(bytes)?)),
            Self::Bytea(b) => b.append_value(bytes),
            Self::Date(b) => b.append_value(date_from(bytes)?),
            Self::Time(b) => b.append_value(time_from(bytes)?),
            Self::Timestamp(b) | Self::TimestampTz(b) => b.append_value(timestamp_from(bytes)?),
            Self::Interval(b) => b.append_value(interval_from(bytes)?),
            Self::Vector { dimensions, numbers, offsets, valid, .. } => {
                let read = vector_from(bytes)?;
                vector::check(*dimensions, &read)?;
                numbers.append_slice(&read);
                end_array(offsets, valid, read.len())?;
            }
            Self::Array { field, element, offsets, valid } => {
                let wanted = pg_type_of_field(field).oid;
                let (sent, elements) = array_elements(bytes, wanted)?;
                let is_other_integer = sent != wanted && field.data_type().is_integer();
                let count = elements.len();
                for value in elements {
                    match value {
                        // The way of text says which value is too great for the type.
                        Some(value) if is_other_integer => {
                            element.append_text(&integer_from(sent, value)?.to_string(), &SessionZone::UTC)?
                        }
                        Some(value) if sent == oid::UUID => {
                            element.append_text(&uuid::text(fixed(value)?), &SessionZone::UTC)?
                        }
                        Some(value) if matches!(**element, Self::Uuid(_)) => {
                            element.append_text(utf8(value)?, &SessionZone::UTC)?
                        }
                        Some(value) if sent == oid::JSONB => element.append_binary(jsonb_text(value)?)?,
                        Some(value) => element.append_binary(value)?,
                        None => element.append_null(),
                    }
                }
                end_array(offsets, valid, count)?;
            }
        }
        Ok(())
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int2(b) => b.append_null(),
            Self::Int4(b) => b.append_null(),
            Self::Int8(b) => b.append_null(),
            Self::Float4(b) => b.append_null(),
            Self::Float8(b) => b.append_null(),
            Self::Numeric { builder, .. } => builder.append_null(),
            Self::Text(b) | Self::Uuid(b) | Self::Jsonb(b) => b.append_null(),
            Self::Bytea(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
            Self::Timestamp(b) | Self::TimestampTz(b) => b.append_null(),
            Self::Interval(b) => b.append_null(),
            Self::Array { offsets, valid, .. } | Self::Vector { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.push(false);
            }
        }
    }

    /// The column so far; the builder starts again empty.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, WireError> {
        Ok(match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int2(b) => Arc::new(b.finish()),
            Self::Int4(b) => Arc::new(b.finish()),
            Self::Int8(b) => Arc::new(b.finish()),
            Self::Float4(b) => Arc::new(b.finish()),
            Self::Float8(b) => Arc::new(b.finish()),
            Self::Numeric { builder, .. } => Arc::new(builder.finish()),
            Self::Text(b) | Self::Uuid(b) | Self::Jsonb(b) => Arc::new(b.finish()),
            Self::Bytea(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Timestamp(b) | Self::TimestampTz(b) => Arc::new(b.finish()),
            Self::Interval(b) => Arc::new(b.finish()),
            Self::Vector { field, numbers, offsets, valid, .. } => {
                list(field, offsets, valid, Arc::new(numbers.finish()))?
            }
            Self::Array { field, element, offsets, valid } => list(field, offsets, valid, element.finish()?)?,
        })
    }
}

/// The lists so far.
fn list(
    field: &FieldRef,
    offsets: &mut Vec<i32>,
    valid: &mut Vec<bool>,
    items: ArrayRef,
) -> Result<ArrayRef, WireError> {
    let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
    let nulls = NullBuffer::from(std::mem::take(valid));
    let list = ListArray::try_new(field.clone(), offsets, items, Some(nulls));
    Ok(Arc::new(list.map_err(|e| WireError::new("22023", e.to_string()))?))
}

fn end_array(offsets: &mut Vec<i32>, valid: &mut Vec<bool>, count: usize) -> Result<(), WireError> {
    let end = i32::try_from(count).ok().and_then(|c| offsets.last().copied().unwrap_or(0).checked_add(c));
    offsets.push(end.ok_or_else(|| WireError::new("54000", "array size exceeds the maximum allowed"))?);
    valid.push(true);
    Ok(())
}
