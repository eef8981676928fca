//! One cell outside Arrow: what a key's state keeps, compares and encodes.
//!
//! Arrow is for batches; state is per key and changes one event at a time. Floats are canonical as soon as they are
//! values: −0 is 0 and there is one NaN, greater than everything (PostgreSQL's order), so `Eq` and `Ord` are total and
//! bit equality is value equality.

use crate::cell::Cell;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Decimal128Array, Float32Array, Float64Array,
        Int64Array, IntervalMonthDayNanoArray, ListArray, PrimitiveArray, StringBuilder, new_null_array,
    },
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, DurationMicrosecondType, Float32Type, Float64Type,
        Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
        Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt64Type,
    },
    error::ArrowError,
};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, hash::Hash, sync::Arc};

/// Integers, dates, times, timestamps and durations are `Int` (days or microseconds); the column's type says which.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(Unscaled),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    Interval {
        months: i32,
        days: i32,
        nanos: i64,
    },
    /// The items of an array, in order.
    List(Arc<[Value]>),
}

/// A decimal's digits, as an integer. Aligned to 8 bytes, not to 16: so a [`Value`] takes 24, of which keys and steps have many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "i128", into = "i128")]
#[repr(Rust, packed(8))]
pub struct Unscaled(i128);

const _: () = assert!(size_of::<Value>() == 24);

impl Unscaled {
    pub fn get(self) -> i128 {
        self.0
    }
}

impl From<i128> for Unscaled {
    fn from(digits: i128) -> Unscaled {
        Unscaled(digits)
    }
}

impl From<Unscaled> for i128 {
    fn from(unscaled: Unscaled) -> i128 {
        unscaled.get()
    }
}

/// −0 to 0, every NaN to one NaN.
pub fn canonical(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x + 0.0 }
}

impl Value {
    pub fn float(x: f64) -> Value {
        Value::Float(canonical(x))
    }

    /// A decimal in units of its column's scale.
    pub fn decimal(unscaled: i128) -> Value {
        Value::Decimal(Unscaled(unscaled))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Float(_) => 3,
            Value::Decimal(_) => 4,
            Value::Text(_) => 5,
            Value::Bytes(_) => 6,
            Value::Interval { .. } => 7,
            Value::List(_) => 8,
        }
    }

    /// How long an interval is, as PostgreSQL compares them: a month is 30 days, a day 24 hours. 0 for anything else.
    fn span_ns(&self) -> i128 {
        let Value::Interval { months, days, nanos } = self else { return 0 };
        let days = i128::from(*months) * 30 + i128::from(*days);
        days * 86_400_000_000_000 + i128::from(*nanos)
    }

    /// Appends bytes that are equal exactly for equal values; self-delimiting, so a row of values is a key.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.rank());
        match self {
            Value::Null => {}
            Value::Bool(b) => out.push(*b as u8),
            Value::Int(i) => out.extend(i.to_be_bytes()),
            Value::Float(x) => out.extend(x.to_bits().to_be_bytes()),
            Value::Decimal(d) => out.extend(d.get().to_be_bytes()),
            Value::Text(t) => {
                out.extend((t.len() as u32).to_be_bytes());
                out.extend(t.as_bytes());
            }
            Value::Bytes(b) => {
                out.extend((b.len() as u32).to_be_bytes());
                out.extend(b.iter());
            }
            Value::Interval { .. } => out.extend(self.span_ns().to_be_bytes()),
            Value::List(items) => {
                out.extend((items.len() as u32).to_be_bytes());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }

    /// How many bytes [`Value::encode`] appends, at most.
    pub fn encoded_len(&self) -> usize {
        match self {
            Value::Text(t) => 5 + t.len(),
            Value::Bytes(b) => 5 + b.len(),
            Value::List(items) => 5 + items.iter().map(Value::encoded_len).sum::<usize>(),
            _ => 17,
        }
    }

    /// A 64-bit hash that is the same in every build and on every machine (FNV-1a, then MurmurHash3's finaliser).
    pub fn stable_hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(24);
        self.encode(&mut bytes);
        let mut h =
            bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        h ^= h >> 33;
        h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => a == b,
            // Canonical: equal bits are equal values, and no others are.
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    /// Within a type: SQL's order (texts by bytes, NaN greatest). Between types (never within one column): by kind,
    /// NULL smallest.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Interval { .. }, Value::Interval { .. }) => self.span_ns().cmp(&other.span_ns()),
            (Value::List(a), Value::List(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.stable_hash().hash(state);
    }
}

/// The encoding of a row of values, e.g. an entity key.
pub fn encode_row(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 12);
    values.iter().for_each(|v| v.encode(&mut out));
    out
}

/// The cells of an Arrow column.
///
/// # Errors
/// For types that are not kept in state (structs, maps).
pub fn values_of(array: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    fn ints<T: ArrowPrimitiveType>(array: &ArrayRef, f: impl Fn(T::Native) -> i64) -> Vec<Value> {
        let array: &PrimitiveArray<T> = array.as_primitive();
        array.iter().map(|v| v.map_or(Value::Null, |v| Value::Int(f(v)))).collect()
    }
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => array.as_boolean().iter().map(|v| v.map_or(Value::Null, Value::Bool)).collect(),
        DataType::Int16 => ints::<Int16Type>(array, i64::from),
        DataType::Int32 => ints::<Int32Type>(array, i64::from),
        DataType::Int64 => ints::<Int64Type>(array, |v| v),
        DataType::UInt64 => ints::<UInt64Type>(array, |v| v as i64),
        DataType::Date32 => ints::<Date32Type>(array, i64::from),
        DataType::Time64(TimeUnit::Microsecond) => ints::<Time64MicrosecondType>(array, |v| v),
        DataType::Timestamp(TimeUnit::Microsecond, _) => ints::<TimestampMicrosecondType>(array, |v| v),
        DataType::Duration(TimeUnit::Microsecond) => ints::<DurationMicrosecondType>(array, |v| v),
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .iter()
            .map(|v| v.map_or(Value::Null, |v| Value::float(f64::from(v))))
            .collect(),
        DataType::Float64 => {
            array.as_primitive::<Float64Type>().iter().map(|v| v.map_or(Value::Null, Value::float)).collect()
        }
        DataType::Decimal128(..) => {
            array.as_primitive::<Decimal128Type>().iter().map(|v| v.map_or(Value::Null, Value::decimal)).collect()
        }
        DataType::Utf8 => {
            array.as_string::<i32>().iter().map(|v| v.map_or(Value::Null, |v| Value::Text(v.into()))).collect()
        }
        DataType::Binary => {
            array.as_binary::<i32>().iter().map(|v| v.map_or(Value::Null, |v| Value::Bytes(v.into()))).collect()
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => array
            .as_primitive::<IntervalMonthDayNanoType>()
            .iter()
            .map(|v| {
                v.map_or(Value::Null, |v| Value::Interval { months: v.months, days: v.days, nanos: v.nanoseconds })
            })
            .collect(),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            // A slice has the items of the whole array behind it: only its own are looked at.
            let offsets: Vec<usize> = lists.value_offsets().iter().map(|at| *at as usize).collect();
            let (first, end) = (offsets[0], offsets[lists.len()]);
            let items = values_of(&lists.values().slice(first, end - first))?;
            let list = |row: usize| match lists.is_null(row) {
                true => Value::Null,
                false => Value::List(items[offsets[row] - first..offsets[row + 1] - first].into()),
            };
            (0..lists.len()).map(list).collect()
        }
        DataType::LargeUtf8 | DataType::Utf8View => return values_of(&cast(array, &DataType::Utf8)?),
        DataType::LargeBinary | DataType::BinaryView => return values_of(&cast(array, &DataType::Binary)?),
        DataType::Timestamp(_, zone) => {
            return values_of(&cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?);
        }
        DataType::Duration(_) => return values_of(&cast(array, &DataType::Duration(TimeUnit::Microsecond))?),
        DataType::Int8 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            return values_of(&cast(array, &DataType::Int64)?);
        }
        DataType::Float16 => return values_of(&cast(array, &DataType::Float64)?),
        DataType::Date64 => return values_of(&cast(array, &DataType::Date32)?),
        DataType::Time32(_) | DataType::Time64(_) => {
            return values_of(&cast(array, &DataType::Time64(TimeUnit::Microsecond))?);
        }
        DataType::Interval(_) => return values_of(&cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?),
        DataType::Dictionary(_, value) => return values_of(&cast(array, value)?),
        other => return Err(ArrowError::NotYetImplemented(format!("values of type {other} are not kept in state"))),
    })
}

/// The Arrow column of the given values, as [`array_of_cells`].
///
/// # Errors
/// For types that are not kept in state.
pub fn array_of<'a>(ty: &DataType, values: impl ExactSizeIterator<Item = &'a Value>) -> Result<ArrayRef, ArrowError> {
    array_of_cells(ty, values.map(Cell::of))
}

/// The Arrow column of the given cells. Cells of another kind than the type's are NULL.
///
/// # Errors
/// For types that are not kept in state.
pub fn array_of_cells<'a>(
    ty: &DataType,
    values: impl ExactSizeIterator<Item = Cell<'a>>,
) -> Result<ArrayRef, ArrowError> {
    let ints = |values: Vec<Option<i64>>| Int64Array::from(values);
    let len = values.len();
    Ok(match ty {
        DataType::Null => new_null_array(ty, len),
        DataType::Boolean => {
            let mut b = BooleanBuilder::with_capacity(len);
            values.for_each(|v| b.append_option(if let Cell::Bool(x) = v { Some(x) } else { None }));
            Arc::new(b.finish())
        }
        DataType::Int64
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt64
        | DataType::Date32
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Timestamp(TimeUnit::Microsecond, _)
        | DataType::Duration(TimeUnit::Microsecond) => {
            let array = ints(values.map(|v| if let Cell::Int(x) = v { Some(x) } else { None }).collect());
            match ty {
                DataType::Int64 => Arc::new(array),
                DataType::Date32 => cast(&cast(&array, &DataType::Int32)?, ty)?,
                DataType::Timestamp(_, zone) => {
                    let array = array.reinterpret_cast::<TimestampMicrosecondType>();
                    Arc::new(array.with_timezone_opt(zone.clone()))
                }
                DataType::Time64(_) => Arc::new(array.reinterpret_cast::<Time64MicrosecondType>()),
                DataType::Duration(_) => Arc::new(array.reinterpret_cast::<DurationMicrosecondType>()),
                _ => cast(&array, ty)?,
            }
        }
        DataType::Float64 => {
            Arc::new(Float64Array::from_iter(values.map(|v| if let Cell::Float(x) = v { Some(x) } else { None })))
        }
        DataType::Float32 => Arc::new(Float32Array::from_iter(
            values.map(|v| if let Cell::Float(x) = v { Some(x as f32) } else { None }),
        )),
        DataType::Decimal128(p, s) => Arc::new(
            Decimal128Array::from_iter(values.map(|v| if let Cell::Decimal(x) = v { Some(x) } else { None }))
                .with_precision_and_scale(*p, *s)?,
        ),
        DataType::Utf8 => {
            let mut b = StringBuilder::with_capacity(len, len * 8);
            values.for_each(|v| {
                b.append_option(if let Cell::Other(Value::Text(x)) = v { Some(x.as_ref()) } else { None })
            });
            Arc::new(b.finish())
        }
        DataType::Binary => {
            let mut b = BinaryBuilder::with_capacity(len, len * 8);
            values.for_each(|v| {
                b.append_option(if let Cell::Other(Value::Bytes(x)) = v { Some(x.as_ref()) } else { None })
            });
            Arc::new(b.finish())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Arc::new(IntervalMonthDayNanoArray::from_iter(values.map(|v| match v {
                Cell::Other(Value::Interval { months, days, nanos }) => {
                    Some(IntervalMonthDayNano::new(*months, *days, *nanos))
                }
                _ => None,
            })))
        }
        DataType::List(item) => {
            let lists: Vec<Option<&[Value]>> = values
                .map(|v| if let Cell::Other(Value::List(items)) = v { Some(items.as_ref()) } else { None })
                .collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.map_or(0, <[Value]>::len)));
            let present: Vec<bool> = lists.iter().map(Option::is_some).collect();
            let items: Vec<&Value> = lists.into_iter().flatten().flatten().collect();
            let items = array_of(item.data_type(), items.into_iter())?;
            Arc::new(ListArray::try_new(item.clone(), offsets, items, Some(present.into()))?)
        }
        DataType::LargeUtf8 | DataType::Utf8View => cast(&array_of_cells(&DataType::Utf8, values)?, ty)?,
        DataType::Interval(_) => cast(&array_of_cells(&DataType::Interval(IntervalUnit::MonthDayNano), values)?, ty)?,
        DataType::Timestamp(_, zone) => {
            cast(&array_of_cells(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), values)?, ty)?
        }
        DataType::Duration(_) => cast(&array_of_cells(&DataType::Duration(TimeUnit::Microsecond), values)?, ty)?,
        other => return Err(ArrowError::NotYetImplemented(format!("values of type {other} are not kept in state"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;

    #[test]
    fn arrays_of_every_item_type_survive_a_slice_and_are_what_they_were() {
        let list = |items: Vec<Value>| Value::List(items.into());
        let cases = [
            (DataType::Int64, vec![list(vec![Value::Int(1), Value::Null]), Value::Null, list(vec![])]),
            (DataType::Utf8, vec![list(vec![Value::Text("a".into())]), list(vec![Value::Text("".into())])]),
            (DataType::Decimal128(10, 2), vec![Value::Null, list(vec![Value::decimal(150)])]),
            (DataType::Float64, vec![list(vec![Value::float(-0.0), Value::float(f64::NAN)]); 3]),
        ];
        for (item, values) in cases {
            let ty = DataType::List(Arc::new(Field::new_list_field(item, true)));
            let array = array_of(&ty, values.iter()).expect("an array");
            assert_eq!(array.data_type(), &ty);
            assert_eq!(values_of(&array).expect("values"), values);
            assert_eq!(values_of(&array.slice(1, 1)).expect("values"), values[1..2]);
        }
    }

    #[test]
    fn arrays_are_compared_item_by_item_and_encoded_apart() {
        let list = |items: &[i64]| Value::List(items.iter().map(|i| Value::Int(*i)).collect());
        assert!(list(&[1, 2]) < list(&[1, 3]) && list(&[1]) < list(&[1, 0]) && Value::Null < list(&[]));
        let pairs = [[list(&[1]), list(&[2, 3])], [list(&[1, 2]), list(&[3])], [list(&[]), list(&[1, 2, 3])]];
        let encoded: std::collections::HashSet<Vec<u8>> = pairs.iter().map(|pair| encode_row(pair)).collect();
        assert_eq!(encoded.len(), pairs.len());
    }
}
