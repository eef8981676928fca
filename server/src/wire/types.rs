//! Which PostgreSQL type a column is shown as: OIDs, lengths, modifiers and names, from Arrow and back.
//!
//! A field may name another type than its Arrow type's own with the metadata key [`PG_TYPE`]: an `Int32` shown as
//! `oid`, a `Utf8` as `name` or `varchar(10)`.

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use std::{collections::HashMap, sync::Arc};
use tidemark_catalog::{Column, SqlType, vector};
use tidemark_planner::shown::Shown;

pub use tidemark_planner::shown::PG_TYPE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PgType {
    pub oid: u32,
    /// Bytes of the type's representation in PostgreSQL; -1 is variable, -2 a C string.
    pub typlen: i16,
    /// -1 where the type takes no modifier.
    pub typmod: i32,
}

pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT2VECTOR: u32 = 22;
    pub const INT4: u32 = 23;
    pub const REGPROC: u32 = 24;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const XID: u32 = 28;
    pub const OIDVECTOR: u32 = 30;
    pub const JSON: u32 = 114;
    pub const JSONB: u32 = 3802;
    pub const NODE_TREE: u32 = 194;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const ACLITEM: u32 = 1033;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const REGCLASS: u32 = 2205;
    pub const REGTYPE: u32 = 2206;
    pub const VOID: u32 = 2278;
    pub const TRIGGER: u32 = 2279;
    pub const TEXT_ARRAY: u32 = 1009;
    /// pgvector's, whose number is another in every database there: of those that are neither PostgreSQL's nor a user's.
    pub const VECTOR: u32 = 16020;
}

/// One row of the table of types; `array` is 0 where there is no array of it.
#[derive(Debug)]
pub struct TypeEntry {
    pub oid: u32,
    pub array: u32,
    /// As in `pg_type.typname`.
    pub name: &'static str,
    /// As `format_type` and error messages spell it.
    pub display: &'static str,
    pub typlen: i16,
}

const fn entry(oid: u32, array: u32, name: &'static str, display: &'static str, typlen: i16) -> TypeEntry {
    TypeEntry { oid, array, name, display, typlen }
}

/// Every type that can appear on the wire. Arrays are not listed: an array has the name `_<name>` and length -1.
pub static TYPES: &[TypeEntry] = &[
    entry(oid::BOOL, 1000, "bool", "boolean", 1),
    entry(oid::BYTEA, 1001, "bytea", "bytea", -1),
    entry(oid::CHAR, 1002, "char", "\"char\"", 1),
    entry(oid::NAME, 1003, "name", "name", 64),
    entry(oid::INT8, 1016, "int8", "bigint", 8),
    entry(oid::INT2, 1005, "int2", "smallint", 2),
    entry(oid::INT2VECTOR, 1006, "int2vector", "int2vector", -1),
    entry(oid::INT4, 1007, "int4", "integer", 4),
    entry(oid::REGPROC, 1008, "regproc", "regproc", 4),
    entry(oid::TEXT, oid::TEXT_ARRAY, "text", "text", -1),
    entry(oid::OID, 1028, "oid", "oid", 4),
    entry(oid::XID, 1011, "xid", "xid", 4),
    entry(oid::OIDVECTOR, 1013, "oidvector", "oidvector", -1),
    entry(oid::JSON, 199, "json", "json", -1),
    entry(oid::NODE_TREE, 0, "pg_node_tree", "pg_node_tree", -1),
    entry(oid::FLOAT4, 1021, "float4", "real", 4),
    entry(oid::FLOAT8, 1022, "float8", "double precision", 8),
    entry(oid::UNKNOWN, 0, "unknown", "unknown", -2),
    entry(oid::ACLITEM, 1034, "aclitem", "aclitem", 12),
    entry(oid::BPCHAR, 1014, "bpchar", "character", -1),
    entry(oid::VARCHAR, 1015, "varchar", "character varying", -1),
    entry(oid::DATE, 1182, "date", "date", 4),
    entry(oid::TIME, 1183, "time", "time without time zone", 8),
    entry(oid::TIMESTAMP, 1115, "timestamp", "timestamp without time zone", 8),
    entry(oid::TIMESTAMPTZ, 1185, "timestamptz", "timestamp with time zone", 8),
    entry(oid::INTERVAL, 1187, "interval", "interval", 16),
    entry(oid::NUMERIC, 1231, "numeric", "numeric", -1),
    entry(oid::JSONB, 3807, "jsonb", "jsonb", -1),
    entry(oid::UUID, 2951, "uuid", "uuid", 16),
    entry(oid::REGCLASS, 2210, "regclass", "regclass", 4),
    entry(oid::REGTYPE, 2211, "regtype", "regtype", 4),
    entry(oid::VECTOR, 16021, "vector", "vector", -1),
    entry(oid::VOID, 0, "void", "void", 4),
    entry(oid::TRIGGER, 0, "trigger", "trigger", 4),
];

fn by_oid(oid: u32) -> Option<&'static TypeEntry> {
    TYPES.iter().find(|t| t.oid == oid)
}

/// The element type of an array type.
pub fn element_oid(array: u32) -> Option<u32> {
    TYPES.iter().find(|t| t.array == array && array != 0).map(|t| t.oid)
}

/// The array type of an element type.
pub fn array_oid(element: u32) -> Option<u32> {
    by_oid(element).map(|t| t.array).filter(|&a| a != 0)
}

/// `format_type(oid, -1)`, e.g. `bigint`, `text[]`; `???` for an OID that is none of ours, as PostgreSQL says.
pub fn type_name(oid: u32) -> String {
    match (by_oid(oid), element_oid(oid)) {
        (Some(t), _) => t.display.to_owned(),
        (None, Some(element)) => format!("{}[]", type_name(element)),
        _ => "???".to_owned(),
    }
}

/// `pg_type.typname` of an OID, e.g. `int8`, `_text`.
pub fn typname(oid: u32) -> Option<String> {
    match (by_oid(oid), element_oid(oid)) {
        (Some(t), _) => Some(t.name.to_owned()),
        (None, Some(element)) => by_oid(element).map(|t| format!("_{}", t.name)),
        _ => None,
    }
}

/// A type by its `typname` or `format_type` spelling, with an optional modifier: `int4`, `bigint`, `varchar(10)`,
/// `numeric(10,2)`, `_text`, `text[]`.
pub fn by_name(name: &str) -> Option<PgType> {
    let name = name.trim();
    if let Some(element) = name.strip_prefix('_').or_else(|| name.strip_suffix("[]")) {
        let element = by_name(element)?;
        return Some(PgType { oid: array_oid(element.oid)?, typlen: -1, typmod: element.typmod });
    }
    let (base, modifier) = match name.split_once('(') {
        Some((base, rest)) => (base.trim_end(), Some(rest.strip_suffix(')')?)),
        None => (name, None),
    };
    let base = match base {
        "timestamp with time zone" => "timestamptz",
        "timestamp" => "timestamp without time zone",
        "time" => "time without time zone",
        other => other,
    };
    let entry = TYPES.iter().find(|t| t.name == base || t.display == base)?;
    let typmod = match modifier {
        None => -1,
        Some(m) => {
            let mut numbers = m.split(',').map(|n| n.trim().parse::<i32>());
            let first = numbers.next()?.ok()?;
            match entry.oid {
                oid::NUMERIC => numeric_typmod(first, numbers.next().unwrap_or(Ok(0)).ok()?),
                oid::VARCHAR | oid::BPCHAR => first.checked_add(4)?,
                _ => first,
            }
        }
    };
    Some(PgType { oid: entry.oid, typlen: entry.typlen, typmod })
}

fn numeric_typmod(precision: i32, scale: i32) -> i32 {
    // Wider than an int4 typmod of PostgreSQL can say (precision 1000) cannot happen: Arrow stops at 76.
    ((precision & 0xffff) << 16 | (scale & 0x7ff)) + 4
}

fn plain(oid: u32) -> PgType {
    PgType { oid, typlen: by_oid(oid).map_or(-1, |t| t.typlen), typmod: -1 }
}

/// The type that a column of this Arrow type is shown as.
pub fn pg_type(ty: &DataType) -> PgType {
    let oid = match ty {
        DataType::Boolean => oid::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => oid::INT2,
        DataType::Int32 | DataType::UInt16 => oid::INT4,
        DataType::Int64 | DataType::UInt32 => oid::INT8,
        DataType::UInt64 => oid::NUMERIC,
        DataType::Float16 | DataType::Float32 => oid::FLOAT4,
        DataType::Float64 => oid::FLOAT8,
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            return PgType { oid: oid::NUMERIC, typlen: -1, typmod: numeric_typmod(*p as i32, *s as i32) };
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => oid::BYTEA,
        DataType::Date32 | DataType::Date64 => oid::DATE,
        DataType::Time32(_) | DataType::Time64(_) => oid::TIME,
        DataType::Timestamp(_, None) => oid::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => oid::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => oid::INTERVAL,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            let element = pg_type_of_field(f);
            if let Some(dimensions) = vector::dimensions(ty) {
                return PgType { typmod: dimensions.map_or(-1, i32::from), ..plain(oid::VECTOR) };
            }
            // An array of arrays or of structs has no OID of ours; it is shown as JSON text.
            return match array_oid(element.oid) {
                Some(oid) if !is_json_shaped(f.data_type()) || vector::is_vector(f.data_type()) => {
                    PgType { oid, typlen: -1, typmod: element.typmod }
                }
                _ => plain(oid::TEXT),
            };
        }
        DataType::Dictionary(_, value) => return pg_type(value),
        DataType::RunEndEncoded(_, value) => return pg_type(value.data_type()),
        _ => oid::TEXT,
    };
    plain(oid)
}

/// Whether values of this type are written as JSON-like text for want of a PostgreSQL type.
fn is_json_shaped(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Struct(_)
            | DataType::Map(_, _)
            | DataType::Union(_, _)
            | DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(_, _)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
    )
}

/// As [`pg_type`], honouring the field's [`PG_TYPE`]; a name that is none of ours is ignored.
pub fn pg_type_of_field(field: &Field) -> PgType {
    field.metadata().get(PG_TYPE).and_then(|name| by_name(name)).unwrap_or_else(|| pg_type(field.data_type()))
}

pub fn pg_type_of_sql(ty: &SqlType) -> PgType {
    match ty {
        SqlType::Uuid => plain(oid::UUID),
        SqlType::Json => plain(oid::JSON),
        SqlType::Jsonb => plain(oid::JSONB),
        SqlType::Array(item) if **item == SqlType::Uuid => plain(array_oid(oid::UUID).unwrap_or(oid::TEXT)),
        ty => pg_type(&ty.arrow()),
    }
}

/// The field of a column as clients are shown it: with a [`PG_TYPE`] where it is declared as another type than what holds it.
pub fn declared_field(column: &Column) -> Field {
    let field = column.field();
    match Shown::of(&column.ty) {
        None => field,
        Some(_) => field.with_metadata(HashMap::from([(PG_TYPE.to_string(), column.ty.to_string())])),
    }
}

/// The fields of such columns.
pub fn declared_schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(declared_field).collect::<Vec<_>>()))
}

/// The Arrow type that a parameter of this type is decoded to; `None` for an OID that is none of ours.
///
/// A `numeric` parameter takes the precision and scale of its value: this gives `Decimal128(38, 10)` for planning.
pub fn arrow_type(oid: u32) -> Option<DataType> {
    if let Some(element) = element_oid(oid) {
        return Some(DataType::List(Arc::new(Field::new_list_field(arrow_type(element)?, true))));
    }
    Some(match oid {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        // An oid is unsigned: a bigint holds it and compares with every integer column.
        oid::INT8 | oid::OID | oid::XID | oid::REGPROC | oid::REGCLASS | oid::REGTYPE => DataType::Int64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        oid::NUMERIC => DataType::Decimal128(38, 10),
        0
        | oid::TEXT
        | oid::VARCHAR
        | oid::BPCHAR
        | oid::NAME
        | oid::CHAR
        | oid::UNKNOWN
        | oid::JSON
        | oid::JSONB
        | oid::UUID
        | oid::NODE_TREE
        | oid::ACLITEM
        | oid::INT2VECTOR
        | oid::OIDVECTOR => DataType::Utf8,
        oid::BYTEA => DataType::Binary,
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some(tidemark_catalog::UTC.into())),
        oid::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        oid::VECTOR => vector::arrow(None),
        oid::VOID => DataType::Null,
        _ => return None,
    })
}
