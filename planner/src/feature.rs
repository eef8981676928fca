//! The shape of a feature view: what the engine maintains.

use datafusion::logical_expr::Expr;
use std::sync::Arc;
use arrow_schema::{DataType, SchemaRef};
use tidemark_catalog::ObjectId;

/// A compiled feature view. Row expressions are over the relation's schema; output expressions over the slots.
#[derive(Debug, Clone)]
pub struct FeaturePlan {
    pub relation: ObjectId,
    /// The relation's name as the query writes it, and its schema.
    pub relation_name: String,
    pub relation_schema: SchemaRef,
    /// Index of the event-time column in the relation's schema.
    pub event_time: usize,
    /// `WHERE`, over the relation's columns.
    pub filter: Option<Expr>,
    /// The entity key, over the relation's columns, in the order of PARTITION BY (or of the `key` option).
    pub key: Vec<Expr>,
    /// Row-level expressions evaluated once per event: aggregate arguments, `FILTER` conditions, raw columns.
    pub inputs: Vec<Input>,
    /// The distinct frames.
    pub frames: Vec<Frame>,
    /// The values maintained per key.
    pub slots: Vec<Slot>,
    /// The view's columns in order.
    pub outputs: Vec<Output>,
    /// The session's time zone at CREATE.
    pub time_zone: Arc<str>,
    pub ttl_us: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Input {
    pub expr: Expr,
    pub ty: DataType,
}

/// Bounds are durations before the current row. `RANGE`: microseconds; `ROWS`: rows; `None`: unbounded preceding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// `RANGE BETWEEN start PRECEDING AND end PRECEDING`, `end` 0 for CURRENT ROW.
    Range { start_us: Option<i64>, end_us: i64 },
    /// `ROWS BETWEEN start PRECEDING AND end PRECEDING`.
    Rows { start: Option<u64>, end: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    FirstValue,
    LastValue,
    BoolAnd,
    BoolOr,
    ApproxCountDistinct,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// `arg` is `None` for `count(*)`; indices into `inputs` and `frames`.
    Aggregate { function: Aggregate, arg: Option<usize>, filter: Option<usize>, frame: usize, ty: DataType },
    /// The value of an input at the key's latest event.
    Raw { input: usize, ty: DataType },
}

impl Slot {
    pub fn ty(&self) -> &DataType {
        match self {
            Slot::Aggregate { ty, .. } | Slot::Raw { ty, .. } => ty,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Output {
    pub name: String,
    pub ty: DataType,
    pub kind: OutputKind,
    /// The defining expression as SQL text, for people.
    pub sql: String,
}

#[derive(Debug, Clone)]
pub enum OutputKind {
    /// Index into `key`.
    Key(usize),
    /// The instant of the change.
    Time,
    /// Index into `slots`.
    Slot(usize),
    /// Over columns `s0`, `s1`, … (the slots) and `k0`, … (the keys).
    Expr(Expr),
    /// As `Expr`, with `now()` written as the column [`NOW_COLUMN`]: evaluated at read.
    /// `bases` are the slots it reads: history keeps those as extra columns.
    TimeContinuous { expr: Expr, bases: Vec<usize> },
}

/// The name under which a time-continuous expression reads the instant of the reading.
pub const NOW_COLUMN: &str = "__now";
