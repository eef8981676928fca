//! Tables described by text and filled by rows of named cells: what keeps sixty catalog tables readable.
//!
//! ```text
//! pg_am@2601: oid oid, amname name, amhandler regproc, amtype char
//! ```
//! A type with `?` may be NULL; a column that a row does not name is NULL then, and otherwise zero, false or empty.

use crate::wire::types::PG_TYPE;
use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
        IntervalMonthDayNanoBuilder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};
use datafusion::error::{DataFusionError, Result as DfResult};
use std::{collections::HashMap, sync::Arc};

/// A table of the system's schemas.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub oid: i64,
    pub name: &'static str,
    pub schema: SchemaRef,
}

/// Reads a text of one table per paragraph; those without an OID get `first`, `first + 1`, … by position, so that a
/// table keeps its OID as long as new ones are added at the end.
pub fn read(text: &'static str, first: i64) -> Vec<TableSpec> {
    text.split("\n\n")
        .filter_map(|paragraph| paragraph.split_once(':'))
        .enumerate()
        .map(|(position, (name, columns))| {
            let (name, oid) = match name.trim().split_once('@') {
                Some((name, oid)) => (name, oid.parse().unwrap_or(first + position as i64)),
                None => (name.trim(), first + position as i64),
            };
            let fields: Vec<Field> = columns
                .split(',')
                .filter_map(|column| column.trim().split_once(' '))
                .map(|(name, ty)| field(name, ty.trim()))
                .collect();
            TableSpec { oid, name, schema: Arc::new(Schema::new(fields)) }
        })
        .collect()
}

fn field(name: &str, ty: &str) -> Field {
    let (ty, nullable) = match ty.strip_suffix('?') {
        Some(ty) => (ty, true),
        None => (ty, false),
    };
    let arrow = arrow_type(ty);
    let field = Field::new(name.trim_matches('"'), arrow, nullable);
    match ty {
        "oid" | "name" | "char" | "xid" | "pg_node_tree" | "int2vector" | "oidvector" | "json" | "_aclitem"
        | "_oid" | "_name" | "_char" => field.with_metadata(HashMap::from([(PG_TYPE.to_string(), ty.to_string())])),
        _ => field,
    }
}

/// Whether a column of these tables has OIDs.
pub fn is_oid(field: &Field) -> bool {
    field.metadata().get(PG_TYPE).is_some_and(|ty| ty == "oid")
}

fn arrow_type(ty: &str) -> DataType {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    match ty {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        // An oid is unsigned and 32 bits wide: a bigint holds it and compares with every integer.
        "int8" | "oid" | "xid" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some(tidemark_catalog::UTC.into())),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "int2vector" | "_int2" => list(DataType::Int16),
        "oidvector" | "_oid" => list(DataType::Int64),
        list_of if list_of.starts_with('_') => list(DataType::Utf8),
        _ => DataType::Utf8,
    }
}

/// One value, whatever integer or text type its column has. Times and durations are microseconds.
#[derive(Debug, Clone, Default)]
pub enum Cell {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i64>),
}

macro_rules! cell_from {
    ($($from:ty => $make:expr),* $(,)?) => { $(impl From<$from> for Cell { fn from(value: $from) -> Cell { $make(value) } })* };
}
cell_from! {
    bool => Cell::Bool,
    i64 => Cell::Int,
    i32 => |v| Cell::Int(v as i64),
    u32 => |v| Cell::Int(v as i64),
    u64 => |v| Cell::Int(i64::try_from(v).unwrap_or(i64::MAX)),
    usize => |v| Cell::Int(v as i64),
    i16 => |v| Cell::Int(v as i64),
    f64 => Cell::Real,
    &str => |v: &str| Cell::Text(v.to_string()),
    String => Cell::Text,
    &String => |v: &String| Cell::Text(v.clone()),
    Vec<String> => Cell::Texts,
    Vec<i64> => Cell::Ints,
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// The rows of one table while they are gathered.
pub struct Rows {
    schema: SchemaRef,
    positions: HashMap<String, usize>,
    rows: Vec<Vec<Option<Cell>>>,
}

impl Rows {
    pub fn of(schema: &SchemaRef) -> Self {
        let positions = schema.fields().iter().enumerate().map(|(i, f)| (f.name().clone(), i)).collect();
        Rows { schema: schema.clone(), positions, rows: vec![] }
    }

    pub fn add<const N: usize>(&mut self, cells: [(&str, Cell); N]) {
        let mut row = vec![None; self.schema.fields().len()];
        for (name, cell) in cells {
            match self.positions.get(name) {
                Some(position) => row[*position] = Some(cell),
                None => debug_assert!(false, "no column {name}"),
            }
        }
        self.rows.push(row);
    }

    pub fn finish(mut self) -> DfResult<RecordBatch> {
        let arrays = (0..self.schema.fields().len())
            .map(|i| {
                let field = self.schema.field(i).clone();
                let cells = self.rows.iter_mut().map(|row| row[i].take());
                array(&field, cells.map(|cell| cell.unwrap_or_else(|| default(&field))))
            })
            .collect::<DfResult<Vec<ArrayRef>>>()?;
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema, arrays, &options)?)
    }
}

fn default(field: &Field) -> Cell {
    if field.is_nullable() {
        return Cell::Null;
    }
    match field.data_type() {
        DataType::Boolean => Cell::Bool(false),
        DataType::Utf8 => Cell::Text(String::new()),
        DataType::Float32 | DataType::Float64 => Cell::Real(0.0),
        DataType::List(item) if item.data_type() == &DataType::Utf8 => Cell::Texts(vec![]),
        DataType::List(_) => Cell::Ints(vec![]),
        _ => Cell::Int(0),
    }
}

fn array(field: &Field, cells: impl Iterator<Item = Cell>) -> DfResult<ArrayRef> {
    macro_rules! build {
        ($builder:expr, $($cell:pat => $value:expr),*) => {{
            let mut builder = $builder;
            for cell in cells {
                match cell {
                    $($cell => builder.append_value($value),)*
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    Ok(match field.data_type() {
        DataType::Boolean => build!(BooleanBuilder::new(), Cell::Bool(v) => v),
        DataType::Int16 => build!(Int16Builder::new(), Cell::Int(v) => v as i16),
        DataType::Int32 => build!(Int32Builder::new(), Cell::Int(v) => v as i32),
        DataType::Int64 => build!(Int64Builder::new(), Cell::Int(v) => v),
        DataType::Float32 => build!(Float32Builder::new(), Cell::Real(v) => v as f32),
        DataType::Float64 => build!(Float64Builder::new(), Cell::Real(v) => v),
        DataType::Utf8 => build!(StringBuilder::new(), Cell::Text(v) => v),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            build!(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()), Cell::Int(v) => v)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            build!(IntervalMonthDayNanoBuilder::new(), Cell::Int(v) => interval(v))
        }
        DataType::List(item) if item.data_type() == &DataType::Utf8 => {
            let mut builder = ListBuilder::new(StringBuilder::new()).with_field(item.clone());
            for cell in cells {
                match cell {
                    Cell::Texts(texts) => builder.append_value(texts.into_iter().map(Some)),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::List(item) if item.data_type() == &DataType::Int16 => {
            let mut builder = ListBuilder::new(Int16Builder::new()).with_field(item.clone());
            for cell in cells {
                match cell {
                    Cell::Ints(ints) => builder.append_value(ints.into_iter().map(|i| Some(i as i16))),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::List(item) => {
            let mut builder = ListBuilder::new(Int64Builder::new()).with_field(item.clone());
            for cell in cells {
                match cell {
                    Cell::Ints(ints) => builder.append_value(ints.into_iter().map(Some)),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        other => return Err(DataFusionError::Internal(format!("system column \"{}\" has type {other}", field.name()))),
    })
}

/// Whole days as days, as PostgreSQL keeps them: a day has 24 hours here.
fn interval(us: i64) -> IntervalMonthDayNano {
    const DAY_US: i64 = 86_400_000_000;
    let days = (us / DAY_US) as i32;
    IntervalMonthDayNano::new(0, days, (us % DAY_US).saturating_mul(1000))
}
