//! Columns that grow by one value a row, whatever the rows were written in.

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
        Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    },
    datatypes::DataType,
};
use std::{borrow::Cow, sync::Arc};
use tidemark_catalog::SqlType;
use tidemark_engine::value::{Value, array_of};

/// A value on its way from a message to its column.
#[derive(Debug, Clone)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    List(Arc<[Value]>),
}

impl Cell<'_> {
    /// What stands where nothing is known and NULL may not be.
    pub(crate) fn zero(ty: &SqlType) -> Cell<'static> {
        match ty {
            SqlType::Bool => Cell::Bool(false),
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => Cell::Int(0),
            SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => Cell::Int(0),
            SqlType::Float4 | SqlType::Float8 => Cell::Float(0.0),
            SqlType::Numeric { .. } => Cell::Decimal(0),
            SqlType::Text => Cell::Text(Cow::Borrowed("")),
            SqlType::Bytea => Cell::Bytes(vec![]),
            SqlType::Interval => Cell::Null,
            SqlType::Array(_) => Cell::List(Arc::new([])),
        }
    }

    pub(crate) fn value(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Bool(b) => Value::Bool(b),
            Cell::Int(i) => Value::Int(i),
            Cell::Float(x) => Value::float(x),
            Cell::Decimal(d) => Value::decimal(d),
            Cell::Text(text) => Value::Text(text.into()),
            Cell::Bytes(bytes) => Value::Bytes(bytes.into()),
            Cell::List(items) => Value::List(items),
        }
    }
}

/// A column while it grows.
pub(crate) enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric(Decimal128Builder),
    Text(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Array(Vec<Value>),
}

impl Builder {
    pub(crate) fn of(ty: &SqlType) -> Builder {
        match ty {
            SqlType::Bool => Builder::Bool(BooleanBuilder::new()),
            SqlType::Int2 => Builder::Int2(Int16Builder::new()),
            SqlType::Int4 => Builder::Int4(Int32Builder::new()),
            SqlType::Int8 => Builder::Int8(Int64Builder::new()),
            SqlType::Float4 => Builder::Float4(Float32Builder::new()),
            SqlType::Float8 => Builder::Float8(Float64Builder::new()),
            SqlType::Numeric { .. } => Builder::Numeric(Decimal128Builder::new().with_data_type(ty.arrow())),
            SqlType::Text => Builder::Text(StringBuilder::new()),
            SqlType::Bytea => Builder::Bytea(BinaryBuilder::new()),
            SqlType::Date => Builder::Date(Date32Builder::new()),
            SqlType::Time => Builder::Time(Time64MicrosecondBuilder::new()),
            SqlType::Timestamp | SqlType::TimestampTz => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(ty.arrow()))
            }
            SqlType::Array(_) | SqlType::Interval => Builder::Array(vec![]),
        }
    }

    pub(crate) fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Builder::Bool(b), Cell::Bool(x)) => b.append_value(x),
            (Builder::Bool(b), _) => b.append_null(),
            // Whoever made the cell has checked the ranges.
            (Builder::Int2(b), Cell::Int(x)) => b.append_value(x as i16),
            (Builder::Int2(b), _) => b.append_null(),
            (Builder::Int4(b), Cell::Int(x)) => b.append_value(x as i32),
            (Builder::Int4(b), _) => b.append_null(),
            (Builder::Int8(b), Cell::Int(x)) => b.append_value(x),
            (Builder::Int8(b), _) => b.append_null(),
            (Builder::Float4(b), Cell::Float(x)) => b.append_value(x as f32),
            (Builder::Float4(b), _) => b.append_null(),
            (Builder::Float8(b), Cell::Float(x)) => b.append_value(x),
            (Builder::Float8(b), _) => b.append_null(),
            (Builder::Numeric(b), Cell::Decimal(x)) => b.append_value(x),
            (Builder::Numeric(b), _) => b.append_null(),
            (Builder::Text(b), Cell::Text(x)) => b.append_value(x),
            (Builder::Text(b), _) => b.append_null(),
            (Builder::Bytea(b), Cell::Bytes(x)) => b.append_value(x),
            (Builder::Bytea(b), _) => b.append_null(),
            (Builder::Date(b), Cell::Int(x)) => b.append_value(x as i32),
            (Builder::Date(b), _) => b.append_null(),
            (Builder::Time(b), Cell::Int(x)) => b.append_value(x),
            (Builder::Time(b), _) => b.append_null(),
            (Builder::Timestamp(b), Cell::Int(x)) => b.append_value(x),
            (Builder::Timestamp(b), _) => b.append_null(),
            (Builder::Array(values), cell) => values.push(cell.value()),
        }
    }

    pub(crate) fn finish(&mut self, ty: &DataType) -> Result<ArrayRef, String> {
        Ok(match self {
            Builder::Bool(b) => Arc::new(b.finish()),
            Builder::Int2(b) => Arc::new(b.finish()),
            Builder::Int4(b) => Arc::new(b.finish()),
            Builder::Int8(b) => Arc::new(b.finish()),
            Builder::Float4(b) => Arc::new(b.finish()),
            Builder::Float8(b) => Arc::new(b.finish()),
            Builder::Numeric(b) => Arc::new(b.finish()),
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Bytea(b) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
            Builder::Time(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) => Arc::new(b.finish()),
            Builder::Array(values) => array_of(ty, std::mem::take(values).iter()).map_err(|error| error.to_string())?,
        })
    }
}
