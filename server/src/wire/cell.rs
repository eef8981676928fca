//! One value of an Arrow array as PostgreSQL text or binary. The choice of representation is made once per column
//! ([`CellWriter::new`]); writing a value then allocates nothing.

use super::{
    SessionFormat, SessionZone,
    calendar::{DAY_US, PG_EPOCH_DAYS, PG_EPOCH_US, SECOND_US},
    number::{Stack, write_float4, write_float8, write_int, write_numeric_binary, write_numeric_text, write_unsigned},
    show_time::{Interval, write_date, write_interval, write_time, write_timestamp},
    types::{PgType, oid, pg_type_of_field},
};
use arrow::{
    array::{Array, AsArray},
    datatypes::*,
    util::display::{ArrayFormatter, FormatOptions},
};
use bytes::{BufMut, BytesMut};
use std::fmt::Write;
use tidemark_catalog::uuid;

/// How the values of one column are read and written.
#[derive(Debug, Clone)]
pub(crate) struct CellWriter {
    kind: Kind,
    pub(crate) ty: PgType,
}

#[derive(Debug, Clone)]
enum Kind {
    Null,
    Bool,
    /// Any integer, written in binary with this many bytes; 0 writes a numeric.
    Int(u8),
    Float4,
    Float8,
    Decimal(i32),
    Text,
    /// Text, in binary behind the number of its form.
    Jsonb,
    /// Text, in binary its 16 bytes.
    Uuid,
    Bytes,
    Date,
    Time,
    /// With a zone it is shown in the session's.
    Timestamp {
        zoned: bool,
    },
    Interval,
    List {
        element: Box<CellWriter>,
    },
    /// `int2vector`, `oidvector`: an array whose text is `1 2 3`.
    Vector {
        element: Box<CellWriter>,
    },
    /// `vector`: numbers whose text is `[1,2,3]`.
    Numbers {
        element: Box<CellWriter>,
    },
    Dictionary(Box<CellWriter>),
    /// No PostgreSQL type: JSON-like text.
    Json,
}

/// What `jsonb` begins with in binary: the only form there is.
pub(crate) const JSONB_VERSION: u8 = 1;

impl CellWriter {
    pub(crate) fn new(field: &Field) -> Self {
        Self::of(field.data_type(), pg_type_of_field(field))
    }

    fn of(data_type: &DataType, ty: PgType) -> Self {
        let kind = match data_type {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Bool,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64 => Kind::Int(match ty.typlen {
                width @ (1 | 2 | 4 | 8) => width as u8,
                _ => 0,
            }),
            DataType::Float16 | DataType::Float32 => Kind::Float4,
            DataType::Float64 => Kind::Float8,
            DataType::Decimal32(_, s)
            | DataType::Decimal64(_, s)
            | DataType::Decimal128(_, s)
            | DataType::Decimal256(_, s) => Kind::Decimal(*s as i32),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if ty.oid == oid::JSONB => Kind::Jsonb,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if ty.oid == oid::UUID => Kind::Uuid,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Kind::Bytes
            }
            DataType::Date32 | DataType::Date64 => Kind::Date,
            DataType::Time32(_) | DataType::Time64(_) => Kind::Time,
            DataType::Timestamp(_, zone) => Kind::Timestamp { zoned: zone.is_some() },
            DataType::Interval(_) | DataType::Duration(_) => Kind::Interval,
            DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) if ty.oid != oid::TEXT => {
                let mut element = CellWriter::new(f);
                if let Some(oid) = super::types::element_oid(ty.oid)
                    && oid != element.ty.oid
                {
                    let shown = super::types::typname(oid).and_then(|name| super::types::by_name(&name));
                    element = CellWriter::of(f.data_type(), shown.unwrap_or(element.ty));
                }
                let element = Box::new(element);
                match ty.oid {
                    oid::INT2VECTOR | oid::OIDVECTOR => Kind::Vector { element },
                    oid::VECTOR => Kind::Numbers { element },
                    _ => Kind::List { element },
                }
            }
            DataType::Dictionary(_, value) => Kind::Dictionary(Box::new(CellWriter::of(value, ty))),
            _ => Kind::Json,
        };
        CellWriter { kind, ty }
    }

    /// NULL as a client sees it: Arrow's null array has no validity, and a dictionary's value may be null.
    pub(crate) fn is_null(&self, array: &dyn Array, row: usize) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::Dictionary(value) => match dictionary_value(array, row) {
                Some((values, key)) => value.is_null(values, key),
                None => true,
            },
            _ => array.is_null(row),
        }
    }

    /// The text of a value that is not NULL.
    pub(crate) fn text(&self, session: &SessionFormat, array: &dyn Array, row: usize, out: &mut BytesMut) {
        match &self.kind {
            Kind::List { element } => {
                out.put_u8(b'{');
                if let Some((values, start, len)) = list_value(array, row) {
                    for i in start..start + len {
                        if i > start {
                            out.put_u8(b',');
                        }
                        if element.is_null(values, i) {
                            out.put_slice(b"NULL");
                            continue;
                        }
                        let at = out.len();
                        element.text(session, values, i, out);
                        quote_array_element(out, at);
                    }
                }
                out.put_u8(b'}');
            }
            Kind::Vector { element } => {
                if let Some((values, start, len)) = list_value(array, row) {
                    for i in start..start + len {
                        if i > start {
                            out.put_u8(b' ');
                        }
                        element.text(session, values, i, out);
                    }
                }
            }
            Kind::Numbers { element } => {
                out.put_u8(b'[');
                if let Some((values, start, len)) = list_value(array, row) {
                    for i in start..start + len {
                        if i > start {
                            out.put_u8(b',');
                        }
                        element.text(session, values, i, out);
                    }
                }
                out.put_u8(b']');
            }
            Kind::Dictionary(value) => {
                if let Some((values, key)) = dictionary_value(array, row) {
                    value.text(session, values, key, out);
                }
            }
            Kind::Json => write_json(session, array, row, out),
            _ => self.scalar_text(session, self.scalar(array, row), out),
        }
    }

    /// The binary form of a value that is not NULL.
    pub(crate) fn binary(&self, session: &SessionFormat, array: &dyn Array, row: usize, out: &mut BytesMut) {
        match &self.kind {
            Kind::List { element } | Kind::Vector { element } => {
                self.binary_list(session, element, array, row, out);
            }
            Kind::Numbers { element } => {
                if let Some((values, start, len)) = list_value(array, row) {
                    // How many, and two bytes that pgvector keeps for later.
                    out.put_u16(len as u16);
                    out.put_u16(0);
                    for i in start..start + len {
                        element.binary(session, values, i, out);
                    }
                }
            }
            Kind::Dictionary(value) => {
                if let Some((values, key)) = dictionary_value(array, row) {
                    value.binary(session, values, key, out);
                }
            }
            Kind::Json => self.text(session, array, row, out),
            _ => self.scalar_binary(session, self.scalar(array, row), out),
        }
    }

    /// What an array has for a value that is no list, dictionary or the like.
    fn scalar<'a>(&self, array: &'a dyn Array, row: usize) -> Scalar<'a> {
        match &self.kind {
            Kind::Bool => Scalar::Bool(array.as_boolean().value(row)),
            Kind::Int(_) => integer(array, row),
            Kind::Float4 => Scalar::Float(f64::from(float4(array, row))),
            Kind::Float8 => Scalar::Float(array.as_primitive::<Float64Type>().value(row)),
            Kind::Decimal(_) => unscaled(array, row),
            Kind::Text | Kind::Jsonb | Kind::Uuid => Scalar::Text(str_value(array, row)),
            Kind::Bytes => Scalar::Bytes(bytes_value(array, row)),
            Kind::Date => Scalar::Int(date_days(array, row).into()),
            Kind::Time => Scalar::Int(time_us(array, row)),
            Kind::Timestamp { .. } => Scalar::Int(timestamp_us(array, row)),
            Kind::Interval => Scalar::Interval(interval(array, row)),
            Kind::Null
            | Kind::List { .. }
            | Kind::Vector { .. }
            | Kind::Numbers { .. }
            | Kind::Dictionary(_)
            | Kind::Json => Scalar::Text(""),
        }
    }

    /// The text of a value outside an array. One of another kind than the column's writes nothing.
    pub(crate) fn scalar_text(&self, session: &SessionFormat, value: Scalar<'_>, out: &mut BytesMut) {
        match (&self.kind, value) {
            (Kind::Bool, Scalar::Bool(v)) => out.put_u8(if v { b't' } else { b'f' }),
            (Kind::Int(_), Scalar::Int(v)) => write_int(v, out),
            (Kind::Int(_), Scalar::Unsigned(v)) => write_unsigned(v, out),
            (Kind::Float4, Scalar::Float(v)) => write_float4(v as f32, session.extra_float_digits, out),
            (Kind::Float8, Scalar::Float(v)) => write_float8(v, session.extra_float_digits, out),
            (Kind::Decimal(scale), Scalar::Decimal(v)) => write_numeric_text(digits(v).bytes(), *scale, out),
            (Kind::Decimal(scale), Scalar::Wide(v)) => write_numeric_text(digits(v).bytes(), *scale, out),
            (Kind::Text | Kind::Jsonb | Kind::Uuid, Scalar::Text(v)) => out.put_slice(v.as_bytes()),
            (Kind::Bytes, Scalar::Bytes(v)) => {
                out.put_slice(b"\\x");
                for b in v {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.put_u8(HEX[(b >> 4) as usize]);
                    out.put_u8(HEX[(b & 15) as usize]);
                }
            }
            (Kind::Date, Scalar::Int(v)) => write_date(v as i32, out),
            (Kind::Time, Scalar::Int(v)) => write_time(v.unsigned_abs(), out),
            (Kind::Timestamp { zoned }, Scalar::Int(v)) => write_timestamp(v, zoned.then_some(&session.time_zone), out),
            (Kind::Interval, Scalar::Interval(v)) => write_interval(v, out),
            (Kind::Interval, Scalar::Int(us)) => write_interval(difference(us), out),
            _ => {}
        }
    }

    /// The binary form of a value outside an array.
    pub(crate) fn scalar_binary(&self, session: &SessionFormat, value: Scalar<'_>, out: &mut BytesMut) {
        match (&self.kind, value) {
            (Kind::Bool, Scalar::Bool(v)) => out.put_u8(u8::from(v)),
            (Kind::Int(width), Scalar::Int(v)) => put_integer(*width, v, out, || digits(v)),
            (Kind::Int(width), Scalar::Unsigned(v)) => put_integer(*width, v as i64, out, || digits(v)),
            (Kind::Float4, Scalar::Float(v)) => out.put_f32(v as f32),
            (Kind::Float8, Scalar::Float(v)) => out.put_f64(v),
            (Kind::Decimal(scale), Scalar::Decimal(v)) => write_numeric_binary(digits(v).bytes(), *scale, out),
            (Kind::Decimal(scale), Scalar::Wide(v)) => write_numeric_binary(digits(v).bytes(), *scale, out),
            (Kind::Jsonb, Scalar::Text(v)) => {
                out.put_u8(JSONB_VERSION);
                out.put_slice(v.as_bytes());
            }
            // What is shown as a UUID has been read as one.
            (Kind::Uuid, Scalar::Text(v)) => out.put_slice(&uuid::bytes(v).unwrap_or_default()),
            (Kind::Bytes, Scalar::Bytes(v)) => out.put_slice(v),
            (Kind::Date, Scalar::Int(v)) => out.put_i32(match v as i32 {
                infinite @ (i32::MAX | i32::MIN) => infinite,
                days => days.saturating_sub(PG_EPOCH_DAYS),
            }),
            (Kind::Time, Scalar::Int(v)) => out.put_i64(v),
            (Kind::Timestamp { .. }, Scalar::Int(v)) => out.put_i64(match v {
                infinite @ (i64::MAX | i64::MIN) => infinite,
                us => us.saturating_sub(PG_EPOCH_US),
            }),
            (Kind::Interval, Scalar::Interval(v)) => put_interval(v, out),
            (Kind::Interval, Scalar::Int(us)) => put_interval(difference(us), out),
            (_, value) => self.scalar_text(session, value, out),
        }
    }

    fn binary_list(
        &self,
        session: &SessionFormat,
        element: &CellWriter,
        array: &dyn Array,
        row: usize,
        out: &mut BytesMut,
    ) {
        let Some((values, start, len)) = list_value(array, row) else { return };
        // The two vector types are one-dimensional even when empty, and count from 0.
        let vector = matches!(self.kind, Kind::Vector { .. });
        let nulls = (start..start + len).any(|i| element.is_null(values, i));
        out.put_i32(i32::from(len > 0 || vector));
        out.put_i32(i32::from(nulls));
        out.put_u32(element.ty.oid);
        if len == 0 && !vector {
            return;
        }
        out.put_i32(len as i32);
        out.put_i32(i32::from(!vector));
        for i in start..start + len {
            if element.is_null(values, i) {
                out.put_i32(-1);
                continue;
            }
            write_sized(out, |out| element.binary(session, values, i, out));
        }
    }
}

/// The text of an interval that is not NULL.
pub fn show_interval(array: &dyn Array, row: usize) -> String {
    let mut out = BytesMut::new();
    write_interval(interval(array, row), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The text of a value of any type but one with a zone, as a session with the usual settings is shown it; `None`: it is NULL.
pub fn show_value(array: &dyn Array, row: usize) -> Option<String> {
    show_value_in(array, row, SessionZone::UTC)
}

/// The same of any type, in a time zone.
pub fn show_value_in(array: &dyn Array, row: usize, time_zone: SessionZone) -> Option<String> {
    let writer = CellWriter::of(array.data_type(), super::pg_type(array.data_type()));
    if writer.is_null(array, row) {
        return None;
    }
    let mut out = BytesMut::new();
    writer.text(&SessionFormat { time_zone, ..SessionFormat::default() }, array, row, &mut out);
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Writes what `body` writes, after its length as a big-endian i32.
pub(crate) fn write_sized(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_i32(0);
    body(out);
    let len = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// One value outside an array; the column's kind says how an integer is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Bool(bool),
    /// Also days of a date, microseconds of a time, a timestamp or a difference of timestamps.
    Int(i64),
    Unsigned(u64),
    Float(f64),
    /// Unscaled.
    Decimal(i128),
    Wide(i256),
    Text(&'a str),
    Bytes(&'a [u8]),
    Interval(Interval),
}

fn put_integer(width: u8, value: i64, out: &mut BytesMut, digits: impl Fn() -> Stack<80>) {
    match width {
        1 => out.put_i8(value as i8),
        2 => out.put_i16(value as i16),
        4 => out.put_i32(value as i32),
        8 => out.put_i64(value),
        _ => write_numeric_binary(digits().bytes(), 0, out),
    }
}

fn put_interval(Interval { months, days, us }: Interval, out: &mut BytesMut) {
    out.put_i64(us);
    out.put_i32(days);
    out.put_i32(months);
}

/// A difference of timestamps: PostgreSQL shows whole days as days.
fn difference(us: i64) -> Interval {
    Interval { months: 0, days: (us / DAY_US) as i32, us: us % DAY_US }
}

/// Decimal digits; 78 are enough for 256 bits.
fn digits(value: impl std::fmt::Display) -> Stack<80> {
    let mut digits = Stack::new();
    let _ = write!(digits, "{value}");
    digits
}

fn integer(array: &dyn Array, row: usize) -> Scalar<'static> {
    Scalar::Int(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row) as i64,
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row) as i64,
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row) as i64,
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row) as i64,
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row) as i64,
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row) as i64,
        _ => return Scalar::Unsigned(array.as_primitive::<UInt64Type>().value(row)),
    })
}

fn float4(array: &dyn Array, row: usize) -> f32 {
    match array.data_type() {
        DataType::Float16 => array.as_primitive::<Float16Type>().value(row).to_f32(),
        _ => array.as_primitive::<Float32Type>().value(row),
    }
}

fn unscaled(array: &dyn Array, row: usize) -> Scalar<'static> {
    Scalar::Decimal(match array.data_type() {
        DataType::Decimal32(..) => array.as_primitive::<Decimal32Type>().value(row).into(),
        DataType::Decimal64(..) => array.as_primitive::<Decimal64Type>().value(row).into(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row),
        _ => return Scalar::Wide(array.as_primitive::<Decimal256Type>().value(row)),
    })
}

fn str_value(array: &dyn Array, row: usize) -> &str {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string_view().value(row),
    }
}

fn bytes_value(array: &dyn Array, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        _ => array.as_fixed_size_binary().value(row),
    }
}

fn date_days(array: &dyn Array, row: usize) -> i32 {
    match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row),
        _ => {
            let days = array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000);
            // One inside the extremes, which mean infinity.
            days.clamp(i32::MIN as i64 + 1, i32::MAX as i64 - 1) as i32
        }
    }
}

fn time_us(array: &dyn Array, row: usize) -> i64 {
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => array.as_primitive::<Time32SecondType>().value(row) as i64 * SECOND_US,
        DataType::Time32(_) => array.as_primitive::<Time32MillisecondType>().value(row) as i64 * 1000,
        DataType::Time64(TimeUnit::Microsecond) => array.as_primitive::<Time64MicrosecondType>().value(row),
        _ => array.as_primitive::<Time64NanosecondType>().value(row).div_euclid(1000),
    }
}

fn timestamp_us(array: &dyn Array, row: usize) -> i64 {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().value(row),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1000)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1000)
        }
        _ => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(SECOND_US),
    }
}

fn interval(array: &dyn Array, row: usize) -> Interval {
    match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let v = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Interval { months: v.months, days: v.days, us: v.nanoseconds / 1000 }
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let v = array.as_primitive::<IntervalDayTimeType>().value(row);
            Interval { months: 0, days: v.days, us: v.milliseconds as i64 * 1000 }
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            Interval { months: array.as_primitive::<IntervalYearMonthType>().value(row), days: 0, us: 0 }
        }
        DataType::Duration(unit) => difference(match unit {
            TimeUnit::Microsecond => array.as_primitive::<DurationMicrosecondType>().value(row),
            TimeUnit::Nanosecond => array.as_primitive::<DurationNanosecondType>().value(row) / 1000,
            TimeUnit::Millisecond => array.as_primitive::<DurationMillisecondType>().value(row).saturating_mul(1000),
            TimeUnit::Second => array.as_primitive::<DurationSecondType>().value(row).saturating_mul(SECOND_US),
        }),
        _ => Interval { months: 0, days: 0, us: 0 },
    }
}

/// The values behind one row of a list: the child array, first index, length.
fn list_value(array: &dyn Array, row: usize) -> Option<(&dyn Array, usize, usize)> {
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let start = list.value_offsets()[row] as usize;
            Some((list.values().as_ref(), start, list.value_length(row) as usize))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let start = list.value_offsets()[row] as usize;
            Some((list.values().as_ref(), start, list.value_length(row) as usize))
        }
        DataType::FixedSizeList(_, _) => {
            let list = array.as_fixed_size_list();
            let start = list.value_offset(row) as usize;
            Some((list.values().as_ref(), start, list.value_length() as usize))
        }
        _ => None,
    }
}

/// The dictionary's values and the index of this row's; `None` where the key is NULL.
fn dictionary_value(array: &dyn Array, row: usize) -> Option<(&dyn Array, usize)> {
    let dictionary = array.as_any_dictionary_opt()?;
    let keys = dictionary.keys();
    if keys.is_null(row) {
        return None;
    }
    let key = match integer(keys, row) {
        Scalar::Int(v) => v as usize,
        Scalar::Unsigned(v) => v as usize,
        _ => return None,
    };
    Some((dictionary.values().as_ref(), key))
}

/// Quotes the element that starts at `at` when an array reader would otherwise misread it.
fn quote_array_element(out: &mut BytesMut, at: usize) {
    let element = &out[at..];
    let needs = element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element
            .iter()
            .any(|b| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c));
    if !needs {
        return;
    }
    let escapes = element.iter().filter(|b| matches!(b, b'"' | b'\\')).count();
    let len = element.len();
    out.put_bytes(0, escapes + 2);
    // From the back, so that nothing is overwritten before it is moved.
    let mut to = out.len() - 1;
    out[to] = b'"';
    for from in (at..at + len).rev() {
        let b = out[from];
        to -= 1;
        out[to] = b;
        if matches!(b, b'"' | b'\\') {
            to -= 1;
            out[to] = b'\\';
        }
    }
    out[at] = b'"';
}

/// A value of a type PostgreSQL does not have, as JSON-like text.
fn write_json(session: &SessionFormat, array: &dyn Array, row: usize, out: &mut BytesMut) {
    if array.is_null(row) || array.data_type() == &DataType::Null {
        return out.put_slice(b"null");
    }
    match array.data_type() {
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            out.put_u8(b'{');
            for (i, (field, column)) in fields.iter().zip(columns).enumerate() {
                if i > 0 {
                    out.put_u8(b',');
                }
                write_json_string(field.name().as_bytes(), out);
                out.put_u8(b':');
                write_json(session, column.as_ref(), row, out);
            }
            out.put_u8(b'}');
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let start = map.value_offsets()[row] as usize;
            out.put_u8(b'{');
            for i in start..start + map.value_length(row) as usize {
                if i > start {
                    out.put_u8(b',');
                }
                let keys = map.keys().as_ref();
                let mut key = BytesMut::new();
                CellWriter::of(keys.data_type(), super::pg_type(keys.data_type())).text(session, keys, i, &mut key);
                write_json_string(&key, out);
                out.put_u8(b':');
                write_json(session, map.values().as_ref(), i, out);
            }
            out.put_u8(b'}');
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => {
            out.put_u8(b'[');
            if let Some((values, start, len)) = list_value(array, row) {
                for i in start..start + len {
                    if i > start {
                        out.put_u8(b',');
                    }
                    write_json(session, values, i, out);
                }
            }
            out.put_u8(b']');
        }
        DataType::Boolean => out.put_slice(if array.as_boolean().value(row) { b"true" } else { b"false" }),
        data_type => {
            let writer = CellWriter::of(data_type, super::pg_type(data_type));
            if writer.is_null(array, row) {
                return out.put_slice(b"null");
            }
            if let Kind::Json = writer.kind {
                // Unions, views of lists and the like: whatever Arrow prints.
                let options = FormatOptions::default();
                let text = match ArrayFormatter::try_new(array, &options) {
                    Ok(formatter) => {
                        let mut text = String::new();
                        let _ = write!(text, "{}", formatter.value(row));
                        text
                    }
                    Err(_) => data_type.to_string(),
                };
                return write_json_string(text.as_bytes(), out);
            }
            let mut text = BytesMut::new();
            writer.text(session, array, row, &mut text);
            let number = data_type.is_numeric() && text.last().is_some_and(u8::is_ascii_digit);
            if number { out.put_slice(&text) } else { write_json_string(&text, out) }
        }
    }
}

fn write_json_string(text: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    for &b in text {
        match b {
            b'"' | b'\\' => out.put_slice(&[b'\\', b]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            0..=0x1f => {
                let _ = write!(out, "\\u{b:04x}");
            }
            _ => out.put_u8(b),
        }
    }
    out.put_u8(b'"');
}
