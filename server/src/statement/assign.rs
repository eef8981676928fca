//! Values on their way into a column: which types may go there without being asked (PostgreSQL's assignment casts), and
//! how. What differs from Arrow's casts: a number with a fraction is rounded to an integer and not cut off, a time without
//! a zone is in the session's, and text is read by the rules of COPY where Arrow has others.

use super::from_text;
use crate::{
    pg::PgError,
    wire::{SessionZone, show_value_in},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, TimestampMicrosecondArray},
    buffer::OffsetBuffer,
    compute::{CastOptions, cast_with_options},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, FieldRef, Float64Type, TimeUnit, TimestampMicrosecondType},
};
use std::sync::Arc;
use tidemark_catalog::{Column, SqlType, UTC, vector::is_vector};
use tidemark_planner::{
    functions::{uuid, vector::vectors},
    json_text,
    shown::Shown,
    value_text,
    words::type_name,
};

/// Refuses what a column does not take; `called` is what the type of the expression is called.
pub fn check(column: &Column, from: &DataType, called: impl FnOnce() -> String) -> Result<(), PgError> {
    let to = column.ty.arrow();
    // What is held as text and is none takes texts, and nothing that can be shown as one.
    let takes = match Shown::of(&column.ty) {
        Some(_) => matches!(family(from), Family::Null | Family::Text),
        None => is_assignable(from, &to),
    };
    if takes {
        return Ok(());
    }
    let to = Shown::of(&column.ty).map_or_else(|| type_name(&to), |_| column.ty.to_string());
    let message = format!("column \"{}\" is of type {to} but expression is of type {}", column.name, called());
    Err(PgError::error("42804", message).hint("You will need to rewrite or cast the expression."))
}

/// What goes into one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// NULL: goes anywhere.
    Null,
    Boolean,
    Number,
    /// Text goes anywhere, as long as it reads as such a value, and everything can be text.
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    Interval,
    Array,
    Other,
}

fn family(ty: &DataType) -> Family {
    match ty {
        DataType::Null => Family::Null,
        DataType::Boolean => Family::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Family::Bytes,
        DataType::Date32 | DataType::Date64 => Family::Date,
        DataType::Time32(_) | DataType::Time64(_) => Family::Time,
        DataType::Timestamp(..) => Family::Timestamp,
        DataType::Interval(_) | DataType::Duration(_) => Family::Interval,
        DataType::Dictionary(_, value) => family(value),
        ty if item(ty).is_some() => Family::Array,
        ty if ty.is_numeric() => Family::Number,
        _ => Family::Other,
    }
}

fn item(ty: &DataType) -> Option<&DataType> {
    match ty {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

fn is_assignable(from: &DataType, to: &DataType) -> bool {
    match (family(from), family(to)) {
        (Family::Null | Family::Text, _) | (_, Family::Text) => true,
        (Family::Date | Family::Timestamp, Family::Date | Family::Timestamp) => true,
        (Family::Timestamp, Family::Time) => true,
        (Family::Array, Family::Array) => match (item(from), item(to)) {
            (Some(from), Some(to)) => is_assignable(from, to),
            _ => true,
        },
        (from, to) => from == to,
    }
}

/// The values as the column has them; what cannot be cast is an error, not NULL.
pub fn cast(array: &ArrayRef, to: &DataType, zone: &SessionZone) -> Result<ArrayRef, PgError> {
    // Also those that say that they fit: functions of arrays keep the type of what they make longer or shorter.
    if is_vector(to) && item(array.data_type()).is_some() {
        return Ok(vectors(array, to)?);
    }
    if let (DataType::List(_), DataType::List(wanted)) = (array.data_type(), to)
        && is_vector(wanted.data_type())
    {
        return arrays_of_vectors(array.as_list(), wanted, zone);
    }
    if array.data_type() == to {
        return Ok(array.clone());
    }
    if from_text::reads(array.data_type(), to) {
        return from_text::column(array, to, zone);
    }
    // Arrow has other texts of doubles, times and arrays than PostgreSQL.
    if *to == DataType::Utf8 && value_text::is_shown(array.data_type()) {
        let texts = (0..array.len()).map(|row| show_value_in(array, row, *zone));
        return Ok(Arc::new(StringArray::from_iter(texts)));
    }
    let array: ArrayRef = match (array.data_type(), to) {
        (DataType::Float32 | DataType::Float64, to) if to.is_integer() => {
            let numbers = strict(array, &DataType::Float64)?;
            let rounded: Float64Array = numbers.as_primitive::<Float64Type>().unary(f64::round);
            Arc::new(rounded)
        }
        // Arrow rounds from one scale to another.
        (DataType::Decimal128(_, 1..), to) if to.is_integer() => {
            strict(array, &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))?
        }
        (DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
            instants(array, zone)?
        }
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time64(_)) => {
            wall_times(array, zone)?
        }
        _ => array.clone(),
    };
    strict(&array, to)
}

/// The column in the one form that a type has which is held as text; others stay as they are.
///
/// # Errors
/// 22P02: a text is no value of that type.
pub fn read(column: ArrayRef, ty: &SqlType) -> Result<ArrayRef, PgError> {
    match ty {
        SqlType::Uuid => Ok(Arc::new(uuid::read(column.as_string::<i32>())?)),
        SqlType::Json => Ok(Arc::new(json_text::read(column.as_string::<i32>(), false)?)),
        SqlType::Jsonb => Ok(Arc::new(json_text::read(column.as_string::<i32>(), true)?)),
        _ => Ok(column),
    }
}

/// Each vector of an array is checked as one in a column of its own is.
fn arrays_of_vectors(lists: &ListArray, wanted: &FieldRef, zone: &SessionZone) -> Result<ArrayRef, PgError> {
    let offsets = lists.offsets();
    let (begin, end) = (offsets[0] as usize, offsets[lists.len()] as usize);
    let vectors = cast(&lists.values().slice(begin, end - begin), wanted.data_type(), zone)?;
    let offsets = OffsetBuffer::from_lengths(offsets.lengths());
    Ok(Arc::new(ListArray::try_new(wanted.clone(), offsets, vectors, lists.nulls().cloned())?))
}

fn strict(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, PgError> {
    Ok(cast_with_options(array, to, &CastOptions { safe: false, ..Default::default() })?)
}

/// Times without a zone, as the instants they are in this one.
fn instants(array: &ArrayRef, zone: &SessionZone) -> Result<ArrayRef, PgError> {
    let wall = strict(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let instants: TimestampMicrosecondArray =
        wall.as_primitive::<TimestampMicrosecondType>().try_unary(|us| match is_infinite(us) {
            true => Ok(us),
            false => zone.local_to_utc(us).ok_or_else(|| PgError::error("22008", "timestamp out of range")),
        })?;
    Ok(Arc::new(instants.with_timezone(UTC)))
}

/// Instants, as the clock on the wall shows them in this zone.
fn wall_times(array: &ArrayRef, zone: &SessionZone) -> Result<ArrayRef, PgError> {
    let instants = strict(array, &DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())))?;
    let wall: TimestampMicrosecondArray =
        instants.as_primitive::<TimestampMicrosecondType>().unary(|us| match is_infinite(us) {
            true => us,
            false => us.saturating_add(i64::from(zone.offset_at(us.div_euclid(1_000_000))) * 1_000_000),
        });
    Ok(Arc::new(wall))
}

/// PostgreSQL's `infinity` and `-infinity`.
fn is_infinite(us: i64) -> bool {
    us == i64::MAX || us == i64::MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{Date32Array, Decimal128Array, Float32Array, Int64Array},
        datatypes::{Field, Int64Type, IntervalUnit},
    };

    const WALL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn instant() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
    }

    #[test]
    fn a_column_takes_what_postgresql_assigns_to_it() {
        let time = DataType::Time64(TimeUnit::Microsecond);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let array = |ty| DataType::List(Arc::new(Field::new_list_field(ty, true)));
        let yes = [
            (DataType::Int64, DataType::Int16),
            (DataType::Float64, DataType::Decimal128(10, 2)),
            (DataType::UInt64, DataType::Int64),
            (DataType::Null, instant()),
            (DataType::Utf8View, instant()),
            (DataType::Int64, DataType::Utf8),
            (DataType::Date32, instant()),
            (instant(), DataType::Date32),
            (WALL, instant()),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), time.clone()),
            (DataType::Duration(TimeUnit::Microsecond), interval.clone()),
            (array(DataType::Int32), array(DataType::Int64)),
            (array(DataType::Null), array(DataType::Int64)),
            (DataType::BinaryView, DataType::Binary),
        ];
        let no = [
            (DataType::Int64, instant()),
            (DataType::Int64, WALL),
            (DataType::Int64, DataType::Date32),
            (DataType::Int64, time.clone()),
            (DataType::Int64, interval),
            (instant(), DataType::Int64),
            (DataType::Boolean, DataType::Int64),
            (DataType::Int64, DataType::Boolean),
            (DataType::Date32, time),
            (DataType::Int64, array(DataType::Int64)),
            (array(DataType::Boolean), array(DataType::Int64)),
        ];
        for (from, to) in yes {
            assert!(is_assignable(&from, &to), "{from} to {to}");
        }
        for (from, to) in no {
            assert!(!is_assignable(&from, &to), "{from} to {to}");
        }
    }

    #[test]
    fn what_has_no_zone_becomes_an_instant_in_the_sessions_and_back() {
        let berlin = SessionZone::parse("Europe/Berlin").expect("a zone");
        // 2026-07-01, 20635 days after the epoch, begins at 22:00 UTC of the day before.
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(20_635), None]));
        let midnight = 20_635 * 86_400_000_000 - 7_200_000_000;
        let instants = cast(&days, &instant(), &berlin).expect("it can be cast");
        let expected = TimestampMicrosecondArray::from(vec![Some(midnight), None]).with_timezone(UTC);
        assert_eq!(instants.as_primitive::<TimestampMicrosecondType>(), &expected);
        assert_eq!(&cast(&instants, &DataType::Date32, &berlin).expect("and back"), &days);
    }

    #[test]
    fn an_array_goes_into_a_vector_that_it_fits() {
        let arrays: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), Some(2)]), None]));
        let to = |dimensions| tidemark_catalog::vector::arrow(dimensions);
        for dimensions in [None, Some(2)] {
            let vectors = cast(&arrays, &to(dimensions), &SessionZone::UTC).expect("it can be cast");
            assert_eq!((vectors.data_type(), vectors.null_count()), (&to(dimensions), 1));
            assert_eq!(cast(&vectors, arrays.data_type(), &SessionZone::UTC).as_ref(), Ok(&arrays));
        }
        let error = cast(&arrays, &to(Some(3)), &SessionZone::UTC).expect_err("it does not fit");
        assert_eq!((error.sqlstate, error.message.as_str()), ("22000", "expected 3 dimensions, not 2"));
        let DataType::List(item) = to(Some(2)) else { unreachable!("a vector is a list") };
        let numbers: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0]));
        let longer: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([3]), numbers, None));
        assert!(cast(&longer, &to(Some(2)), &SessionZone::UTC).is_err());
        // In an array each is looked at, and none that is not in it.
        let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
        let DataType::List(item) = list(arrays.data_type().clone()) else { unreachable!("it is a list") };
        let nested: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1, 1]), arrays.clone(), None));
        let fitting = cast(&nested, &list(to(Some(2))), &SessionZone::UTC).expect("they fit");
        assert_eq!((fitting.data_type(), fitting.len()), (&list(to(Some(2))), 2));
        assert!(cast(&nested, &list(to(Some(3))), &SessionZone::UTC).is_err());
        assert!(cast(&nested.slice(1, 1), &list(to(Some(3))), &SessionZone::UTC).is_ok(), "NULL has no dimensions");
        assert!(is_assignable(arrays.data_type(), &to(None)) && !is_assignable(&DataType::Int64, &to(None)));
    }

    #[test]
    fn a_fraction_is_rounded_into_an_integer() {
        let decimals = Decimal128Array::from(vec![15, -15, 14]).with_precision_and_scale(3, 1).expect("a numeric");
        let numbers: ArrayRef = Arc::new(decimals);
        let integers = cast(&numbers, &DataType::Int64, &SessionZone::UTC).expect("it can be cast");
        assert_eq!(integers.as_primitive::<Int64Type>(), &Int64Array::from(vec![2, -2, 1]));
    }
}
