//! One input of an event, read in place.

use crate::value::Value;
use arrow::datatypes::DataType;
use std::cmp::Ordering;

/// How an input is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Float,
    Decimal,
    /// As a [`Value`] beside the row.
    Other,
}

impl Kind {
    /// The kind whose [`Value`]s a column of this type gives ([`crate::value::values_of`]).
    pub fn of(ty: &DataType) -> Kind {
        match ty {
            DataType::Boolean => Kind::Bool,
            DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt64
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Duration(_) => Kind::Int,
            DataType::Float32 | DataType::Float64 => Kind::Float,
            DataType::Decimal128(..) => Kind::Decimal,
            _ => Kind::Other,
        }
    }
}

/// A [`Value`] without its own memory.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Other(&'a Value),
}

impl<'a> Cell<'a> {
    pub fn of(value: &'a Value) -> Cell<'a> {
        match value {
            Value::Null => Cell::Null,
            Value::Bool(b) => Cell::Bool(*b),
            Value::Int(i) => Cell::Int(*i),
            Value::Float(x) => Cell::Float(*x),
            Value::Decimal(d) => Cell::Decimal(d.get()),
            other => Cell::Other(other),
        }
    }

    pub fn to_value(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Bool(b) => Value::Bool(b),
            Cell::Int(i) => Value::Int(i),
            Cell::Float(x) => Value::Float(x),
            Cell::Decimal(d) => Value::decimal(d),
            Cell::Other(value) => value.clone(),
        }
    }

    pub fn is_null(self) -> bool {
        matches!(self, Cell::Null)
    }

    pub fn is_true(self) -> bool {
        matches!(self, Cell::Bool(true))
    }

    /// As [`Value`]s compare.
    pub fn order(self, other: Cell<'_>) -> Ordering {
        match (self, other) {
            (Cell::Int(a), Cell::Int(b)) => a.cmp(&b),
            (Cell::Float(a), Cell::Float(b)) => a.total_cmp(&b),
            (Cell::Decimal(a), Cell::Decimal(b)) => a.cmp(&b),
            (Cell::Bool(a), Cell::Bool(b)) => a.cmp(&b),
            (Cell::Other(a), Cell::Other(b)) => a.cmp(b),
            (a, b) => a.to_value().cmp(&b.to_value()),
        }
    }

    /// As [`Value::encode`] does.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Cell::Other(value) => value.encode(out),
            own => own.to_value().encode(out),
        }
    }

    /// How many bytes [`Cell::encode`] appends, at most.
    pub fn encoded_len(self) -> usize {
        match self {
            Cell::Other(value) => value.encoded_len(),
            _ => 17,
        }
    }

    pub fn as_float(self) -> Option<f64> {
        match self {
            Cell::Float(x) => Some(x),
            Cell::Int(i) => Some(i as f64),
            _ => None,
        }
    }
}
