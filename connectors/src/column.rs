//! Columns that grow by one value a row, whatever the rows were written in.

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array,
        Float64Array, Int16Array, Int32Array, Int64Array, NullBufferBuilder, StringArray, Time64MicrosecondArray,
        TimestampMicrosecondArray,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{ArrowNativeType, DataType},
    error::ArrowError,
};
use std::{borrow::Cow, sync::Arc};
use tidemark_catalog::{SqlType, uuid};
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
            SqlType::Uuid => Cell::Text(Cow::Borrowed(uuid::NIL)),
            SqlType::Json | SqlType::Jsonb => Cell::Text(Cow::Borrowed("null")),
            SqlType::Bytea => Cell::Bytes(vec![]),
            SqlType::Interval => Cell::Null,
            SqlType::Array(_) | SqlType::Vector(_) => Cell::List(Arc::new([])),
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
///
/// Vectors of our own and not Arrow's builders: these can be cut back to the rows that there were, cost nothing for a value that is not NULL
/// but the value, and begin as long as the last batch was.
pub(crate) struct Builder {
    pub(crate) values: Values,
    /// As far as the last NULL.
    nulls: NullBufferBuilder,
}

pub(crate) enum Values {
    Bool(BooleanBufferBuilder),
    Int2(Vec<i16>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Float4(Vec<f32>),
    Float8(Vec<f64>),
    Numeric(Vec<i128>),
    Text(Bytes),
    Bytea(Bytes),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    Array(Vec<Value>),
}

/// Values of any length, one behind the other.
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    /// Where each ends; before the first a zero.
    ends: Vec<i32>,
}

impl Bytes {
    fn new() -> Bytes {
        Bytes { bytes: vec![], ends: vec![0] }
    }

    #[inline]
    pub(crate) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.end();
    }

    /// A value that `put` puts to the end; where it gives `None` there is none.
    #[inline]
    pub(crate) fn push_with<T>(&mut self, put: impl FnOnce(&mut Vec<u8>) -> Option<T>) -> Option<T> {
        let begin = self.bytes.len();
        match put(&mut self.bytes) {
            Some(done) => {
                self.end();
                Some(done)
            }
            None => {
                self.bytes.truncate(begin);
                None
            }
        }
    }

    #[inline]
    fn end(&mut self) {
        // More bytes than ends can say make the column none when it is finished.
        self.ends.push(self.bytes.len() as i32);
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.bytes.truncate(self.ends[rows] as usize);
    }

    fn finish(&mut self) -> Result<(OffsetBuffer<i32>, Buffer), String> {
        let (mut ends, bytes) = (Vec::with_capacity(self.ends.len()), Vec::with_capacity(self.bytes.len()));
        ends.push(0);
        let Bytes { bytes, ends } = std::mem::replace(self, Bytes { bytes, ends });
        if i32::try_from(bytes.len()).is_err() {
            return Err("a column of a batch has more than 2 GiB".to_string());
        }
        Ok((OffsetBuffer::new(ends.into()), bytes.into()))
    }
}

/// The values so far, as Arrow takes them; the next are likely as many.
fn taken<T: ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next).into()
}

impl Builder {
    pub(crate) fn of(ty: &SqlType) -> Builder {
        let values = match ty {
            SqlType::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            SqlType::Int2 => Values::Int2(vec![]),
            SqlType::Int4 => Values::Int4(vec![]),
            SqlType::Int8 => Values::Int8(vec![]),
            SqlType::Float4 => Values::Float4(vec![]),
            SqlType::Float8 => Values::Float8(vec![]),
            SqlType::Numeric { .. } => Values::Numeric(vec![]),
            SqlType::Text | SqlType::Uuid | SqlType::Json | SqlType::Jsonb => Values::Text(Bytes::new()),
            SqlType::Bytea => Values::Bytea(Bytes::new()),
            SqlType::Date => Values::Date(vec![]),
            SqlType::Time => Values::Time(vec![]),
            SqlType::Timestamp | SqlType::TimestampTz => Values::Timestamp(vec![]),
            SqlType::Array(_) | SqlType::Vector(_) | SqlType::Interval => Values::Array(vec![]),
        };
        Builder { values, nulls: NullBufferBuilder::new(0) }
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Bool(v) => v.len(),
            Values::Int2(v) => v.len(),
            Values::Int4(v) | Values::Date(v) => v.len(),
            Values::Int8(v) | Values::Time(v) | Values::Timestamp(v) => v.len(),
            Values::Float4(v) => v.len(),
            Values::Float8(v) => v.len(),
            Values::Numeric(v) => v.len(),
            Values::Text(v) | Values::Bytea(v) => v.ends.len() - 1,
            Values::Array(v) => v.len(),
        }
    }

    pub(crate) fn push(&mut self, cell: Cell<'_>) {
        match (&mut self.values, cell) {
            (Values::Bool(v), Cell::Bool(x)) => v.append(x),
            // Whoever made the cell has checked the ranges.
            (Values::Int2(v), Cell::Int(x)) => v.push(x as i16),
            (Values::Int4(v) | Values::Date(v), Cell::Int(x)) => v.push(x as i32),
            (Values::Int8(v) | Values::Time(v) | Values::Timestamp(v), Cell::Int(x)) => v.push(x),
            (Values::Float4(v), Cell::Float(x)) => v.push(x as f32),
            (Values::Float8(v), Cell::Float(x)) => v.push(x),
            (Values::Numeric(v), Cell::Decimal(x)) => v.push(x),
            (Values::Text(v), Cell::Text(x)) => v.push(x.as_bytes()),
            (Values::Bytea(v), Cell::Bytes(x)) => v.push(&x),
            (Values::Array(v), cell) => v.push(cell.value()),
            _ => self.push_null(),
        }
    }

    fn push_null(&mut self) {
        self.nulls.append_n_non_nulls(self.len() - self.nulls.len());
        self.nulls.append_null();
        match &mut self.values {
            Values::Bool(v) => v.append(false),
            Values::Int2(v) => v.push(0),
            Values::Int4(v) | Values::Date(v) => v.push(0),
            Values::Int8(v) | Values::Time(v) | Values::Timestamp(v) => v.push(0),
            Values::Float4(v) => v.push(0.0),
            Values::Float8(v) => v.push(0.0),
            Values::Numeric(v) => v.push(0),
            Values::Text(v) | Values::Bytea(v) => v.end(),
            Values::Array(v) => v.push(Value::Null),
        }
    }

    /// Takes back what is more than so many rows, of which it has all, or all and a part of one.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(v) => v.truncate(rows),
            Values::Int2(v) => v.truncate(rows),
            Values::Int4(v) | Values::Date(v) => v.truncate(rows),
            Values::Int8(v) | Values::Time(v) | Values::Timestamp(v) => v.truncate(rows),
            Values::Float4(v) => v.truncate(rows),
            Values::Float8(v) => v.truncate(rows),
            Values::Numeric(v) => v.truncate(rows),
            Values::Text(v) | Values::Bytea(v) => v.truncate(rows),
            Values::Array(v) => v.truncate(rows),
        }
        self.nulls.truncate(rows);
    }

    /// The column, of the Arrow type that its SQL type has; begins anew.
    ///
    /// # Errors
    /// It has more than 2 GiB of texts or bytes.
    pub(crate) fn finish(&mut self, ty: &DataType) -> Result<ArrayRef, String> {
        self.nulls.append_n_non_nulls(self.len() - self.nulls.len());
        let nulls = self.nulls.finish();
        let wrong = |error: ArrowError| error.to_string();
        Ok(match &mut self.values {
            Values::Bool(v) => Arc::new(BooleanArray::new(v.finish(), nulls)),
            Values::Int2(v) => Arc::new(Int16Array::new(taken(v), nulls)),
            Values::Int4(v) => Arc::new(Int32Array::new(taken(v), nulls)),
            Values::Int8(v) => Arc::new(Int64Array::new(taken(v), nulls)),
            Values::Float4(v) => Arc::new(Float32Array::new(taken(v), nulls)),
            Values::Float8(v) => Arc::new(Float64Array::new(taken(v), nulls)),
            Values::Numeric(v) => Arc::new(Decimal128Array::new(taken(v), nulls).with_data_type(ty.clone())),
            Values::Text(v) => {
                let (ends, bytes) = v.finish()?;
                Arc::new(StringArray::try_new(ends, bytes, nulls).map_err(wrong)?)
            }
            Values::Bytea(v) => {
                let (ends, bytes) = v.finish()?;
                Arc::new(BinaryArray::try_new(ends, bytes, nulls).map_err(wrong)?)
            }
            Values::Date(v) => Arc::new(Date32Array::new(taken(v), nulls)),
            Values::Time(v) => Arc::new(Time64MicrosecondArray::new(taken(v), nulls)),
            Values::Timestamp(v) => {
                Arc::new(TimestampMicrosecondArray::new(taken(v), nulls).with_data_type(ty.clone()))
            }
            Values::Array(values) => array_of(ty, std::mem::take(values).iter()).map_err(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SqlType::*;

    #[test]
    fn what_is_taken_back_leaves_the_rows_before_and_the_columns_begin_anew() {
        let cases = [
            (Bool, Cell::Bool(true)),
            (Int2, Cell::Int(-2)),
            (Int4, Cell::Int(4)),
            (Int8, Cell::Int(8)),
            (Float4, Cell::Float(0.5)),
            (Float8, Cell::Float(0.25)),
            (Numeric { precision: 4, scale: 1 }, Cell::Decimal(15)),
            (Text, Cell::Text("a".into())),
            (Bytea, Cell::Bytes(vec![0, 255])),
            (Date, Cell::Int(1)),
            (Time, Cell::Int(1)),
            (TimestampTz, Cell::Int(1)),
            (Array(Box::new(Int8)), Cell::List(Arc::new([Value::Int(1), Value::Null]))),
            (Vector(Some(2)), Cell::List(Arc::new([Value::Float(1.0), Value::Float(0.5)]))),
        ];
        for (ty, cell) in cases {
            let of = |cells: &[&Cell<'_>]| {
                let mut builder = Builder::of(&ty);
                cells.iter().for_each(|cell| builder.push((*cell).clone()));
                builder.finish(&ty.arrow()).expect("an array")
            };
            let mut builder = Builder::of(&ty);
            // Twice: what is finished is no more there.
            for _ in 0..2 {
                for cell in [&cell, &Cell::Null, &cell, &cell, &Cell::Null] {
                    builder.push(cell.clone());
                }
                builder.truncate(3);
                builder.truncate(3);
                builder.push(cell.clone());
                let column = builder.finish(&ty.arrow()).expect("an array");
                assert_eq!(&column, &of(&[&cell, &Cell::Null, &cell, &cell]), "{ty}");
                assert_eq!((column.data_type(), column.null_count()), (&ty.arrow(), 1), "{ty}");
            }
            assert_eq!(builder.finish(&ty.arrow()).expect("an array").len(), 0, "{ty}");
        }
    }
}
