//! The shape of a feature view: what the engine maintains.

use arrow_schema::{DataType, SchemaRef};
use datafusion::logical_expr::Expr;
use std::sync::Arc;
use tidemark_catalog::ObjectId;

/// A compiled feature view. Row expressions are over the rows' schema; output expressions over the slots.
#[derive(Debug, Clone)]
pub struct FeaturePlan {
    /// What it reads: one relation, or those of UNION ALL in their order.
    pub branches: Vec<Branch>,
    /// A table with one row for each entity key: its columns are those of the version that counts at the instant.
    pub beside: Option<Beside>,
    /// The views through which the query reads them.
    pub through: Vec<ObjectId>,
    /// The rows that the view is over: those of its one relation, or what UNION ALL lines up.
    pub row_schema: SchemaRef,
    /// Index of the event-time column in the rows' schema.
    pub event_time: usize,
    /// `WHERE`, over the rows' columns.
    pub filter: Option<Expr>,
    /// The entity key, over the rows' columns, in the order of PARTITION BY (or of the `key` option).
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
    /// Departures happen on this grid (since 1970-01-01 UTC), microseconds; `None`: exactly.
    pub slide_us: Option<i64>,
    /// The events are versions of the rows of a changelog table: one counts until the next version of its row.
    pub versions: bool,
}

/// One relation that a view reads. The same one may be read by several.
#[derive(Debug, Clone)]
pub struct Branch {
    pub relation: ObjectId,
    pub relation_name: String,
    /// Index of the event-time column in the relation's schema.
    pub event_time: usize,
    /// How its rows become the view's; `None`: they are as they are.
    pub taken: Option<Taken>,
}

/// A SELECT of UNION ALL, or one over joined tables: expressions over the relation's columns and then those of each table.
#[derive(Debug, Clone)]
pub struct Taken {
    pub schema: SchemaRef,
    pub joined: Vec<Joined>,
    pub filter: Option<Expr>,
    /// One for each column of the rows' schema, of its type.
    pub columns: Vec<Expr>,
}

/// `ASOF JOIN` to a changelog table: of each event the table's version as of the event's time.
#[derive(Debug, Clone)]
pub struct Joined {
    pub table: ObjectId,
    pub table_name: String,
    /// For each column of its primary key the value to be equal to, over the columns before the table's.
    pub key: Vec<Expr>,
    /// `ASOF LEFT JOIN`: an event without a version stays, with NULLs.
    pub is_left: bool,
    /// `>`: the version before the event's time.
    pub is_strict: bool,
    /// Where the table's columns begin in the schema, and how many there are.
    pub columns: std::ops::Range<usize>,
}

/// A plain join to a changelog table, on the entity key.
#[derive(Debug, Clone)]
pub struct Beside {
    pub table: ObjectId,
    pub table_name: String,
    /// Without a row of the table the key is there, with NULLs.
    pub is_left: bool,
    /// The table's column for each column of the entity key.
    pub key: Vec<usize>,
    /// The table's columns that are read.
    pub columns: Vec<usize>,
    /// Its event-time column.
    pub time: usize,
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
    /// The last window that is over; then it is the view's only frame.
    Pane(Pane),
}

/// One aggregate over one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub function: Aggregate,
    /// Indices into `inputs`: the argument (`None`: `count(*)`), a second one, and the FILTER condition.
    pub arg: Option<usize>,
    pub other: Option<usize>,
    pub filter: Option<usize>,
    pub parameter: Parameter,
    /// Index into `frames`.
    pub frame: usize,
    pub ty: DataType,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    Aggregate(Call),
    /// The value of an input at the key's latest event.
    Raw {
        input: usize,
        ty: DataType,
    },
    /// A column of the table beside the events: index into [`Beside::columns`].
    Beside {
        column: usize,
        ty: DataType,
    },
    /// Where the shown window begins (or ends), of a view with a [`Pane`].
    Bound {
        end: bool,
        ty: DataType,
    },
}

impl Slot {
    pub fn ty(&self) -> &DataType {
        match self {
            Slot::Aggregate(call) => &call.ty,
            Slot::Raw { ty, .. } | Slot::Beside { ty, .. } | Slot::Bound { ty, .. } => ty,
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
    /// Over columns `s0`, `s1`, … (the slots).
    Expr(Expr),
    /// As `Expr`, with `now()` written as the column [`NOW_COLUMN`]: evaluated at read.
    /// `bases` are the slots it reads: history keeps those as extra columns.
    TimeContinuous { expr: Expr, bases: Vec<usize> },
}

/// The name under which a time-continuous expression reads the instant of the reading.
pub const NOW_COLUMN: &str = "__now";

mod aggregate;
mod branches;
mod call;
pub mod family;
mod pane;
mod recognise;
pub mod retention;
mod rewrite;
mod shape;
mod written;

pub use aggregate::{Aggregate, FREQUENT_MAX, ITEMS_MAX, Parameter, Takes, VECTOR_MAX};
pub use pane::Pane;
pub(crate) use recognise::stored_type;
pub use recognise::{bound_definition, plan_definition, plan_feature_view};
pub use rewrite::{clock_function, is_now, rename_slots, slot_column};
pub use written::{DEFAULT_OPTION, check_maintenance, check_online};

impl Branch {
    pub fn joined(&self) -> &[Joined] {
        self.taken.as_ref().map_or(&[], |taken| &taken.joined)
    }
}

impl FeaturePlan {
    /// The sources and tables it reads, each once.
    pub fn relations(&self) -> Vec<ObjectId> {
        let mut relations = vec![];
        for branch in &self.branches {
            for id in std::iter::once(branch.relation).chain(branch.joined().iter().map(|joined| joined.table)) {
                if !relations.contains(&id) {
                    relations.push(id);
                }
            }
        }
        if let Some(beside) = self.beside.as_ref().filter(|beside| !relations.contains(&beside.table)) {
            relations.push(beside.table);
        }
        relations
    }

    /// The FILTERs that say at which events an input is asked for, as indices into `inputs`; `None`: at all of them.
    pub fn filters_over(&self, input: usize) -> Option<Vec<usize>> {
        let mut filters = vec![];
        for slot in &self.slots {
            match slot {
                Slot::Raw { input: raw, .. } if *raw == input => return None,
                Slot::Aggregate(call) if call.filter == Some(input) => return None,
                Slot::Aggregate(call) if [call.arg, call.other].contains(&Some(input)) => filters.push(call.filter?),
                Slot::Aggregate(_) | Slot::Raw { .. } | Slot::Beside { .. } | Slot::Bound { .. } => {}
            }
        }
        (!filters.is_empty()).then_some(filters)
    }

    /// Whether events have versions of tables beside them.
    pub fn has_joins(&self) -> bool {
        self.branches.iter().any(|branch| !branch.joined().is_empty())
    }

    /// Their names, as a person lists them.
    pub fn relation_names(&self) -> String {
        let mut names: Vec<&str> = vec![];
        for branch in &self.branches {
            let tables = branch.joined().iter().map(|joined| joined.table_name.as_str());
            for name in std::iter::once(branch.relation_name.as_str()).chain(tables) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let beside = self.beside.iter().map(|beside| beside.table_name.as_str());
        names.extend(beside.filter(|name| !names.contains(name)).collect::<Vec<_>>());
        names.join(", ")
    }

    /// Index into `outputs` of the time column.
    pub fn time_output(&self) -> usize {
        self.outputs.iter().position(|o| matches!(o.kind, OutputKind::Time)).unwrap_or(0)
    }

    /// Indices into `outputs` of the entity key, in key order.
    pub fn key_outputs(&self) -> Vec<usize> {
        (0..self.key.len())
            .filter_map(|k| self.outputs.iter().position(|o| matches!(o.kind, OutputKind::Key(i) if i == k)))
            .collect()
    }

    /// Indices into `outputs` of what changes as time goes on, without an event.
    pub fn continuous_outputs(&self) -> impl Iterator<Item = usize> {
        let outputs = self.outputs.iter().enumerate();
        outputs.filter(|(_, output)| matches!(output.kind, OutputKind::TimeContinuous { .. })).map(|(i, _)| i)
    }

    /// The columns that history keeps in place of the time-continuous features: name and slot.
    pub fn base_columns(&self) -> Vec<(String, usize)> {
        let mut columns = vec![];
        for output in &self.outputs {
            if let OutputKind::TimeContinuous { bases, .. } = &output.kind {
                for (i, slot) in bases.iter().enumerate() {
                    let name = match bases.len() {
                        1 => format!("{}_base", output.name),
                        _ => format!("{}_base{}", output.name, i + 1),
                    };
                    columns.push((name, *slot));
                }
            }
        }
        columns
    }

    /// The longest look-back of a bounded `RANGE` frame, microseconds.
    pub fn longest_range_us(&self) -> Option<i64> {
        let starts = self.frames.iter().filter_map(|frame| match frame {
            Frame::Range { start_us, .. } => *start_us,
            Frame::Rows { .. } => None,
            Frame::Pane(pane) => Some(pane.reach_us()),
        });
        Some(starts.max()?.saturating_add(self.slide_us.unwrap_or(0)))
    }

    /// Whether a row's own next version is all that replaces it: there is one row for each key, and nothing leaves a version
    /// out that the table has.
    pub(crate) fn reads_latest_row(&self, relation: &tidemark_catalog::Relation) -> bool {
        let is_primary = |expr: &Expr| matches!(expr, Expr::Column(c) if relation.primary_key.iter().any(|i| relation.columns[*i].name == c.name));
        self.frames.is_empty()
            && self.filter.is_none()
            && self.key.len() == relation.primary_key.len()
            && self.key.iter().all(is_primary)
            && self.inputs.iter().all(|input| matches!(input.expr, Expr::Column(_)))
    }

    /// The windows that begin and end by themselves, if that is what the view is over.
    pub fn pane(&self) -> Option<Pane> {
        self.frames.iter().find_map(|frame| match frame {
            Frame::Pane(pane) => Some(*pane),
            _ => None,
        })
    }

    /// The longest bound of any `RANGE` frame, microseconds: also how far back one ends that begins with the first event.
    pub fn longest_bound_us(&self) -> Option<i64> {
        let ends = self.frames.iter().filter_map(|frame| match *frame {
            Frame::Range { end_us, .. } if end_us > 0 => Some(end_us),
            _ => None,
        });
        self.longest_range_us().max(ends.max())
    }
}

impl Frame {
    /// Begins with the key's first event: none leaves it one by one.
    pub fn is_unbounded(&self) -> bool {
        matches!(self, Frame::Range { start_us: None, .. } | Frame::Rows { start: None, .. })
    }

    /// As a person writes it.
    pub fn describe(&self) -> String {
        match *self {
            Frame::Range { start_us, end_us } => {
                let start = start_us.map_or("UNBOUNDED".to_string(), describe_duration);
                match end_us {
                    0 => format!("RANGE {start} PRECEDING"),
                    end => format!("RANGE BETWEEN {start} PRECEDING AND {} PRECEDING", describe_duration(end)),
                }
            }
            Frame::Pane(pane) => pane.describe(),
            Frame::Rows { start, end } => {
                let start = start.map_or("UNBOUNDED".to_string(), |n| n.to_string());
                match end {
                    0 => format!("ROWS {start} PRECEDING"),
                    end => format!("ROWS BETWEEN {start} PRECEDING AND {end} PRECEDING"),
                }
            }
        }
    }
}

/// A duration in its largest whole unit.
pub fn describe_duration(us: i64) -> String {
    const UNITS: [(i64, &str); 7] = [
        (7 * 86_400_000_000, "week"),
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
        (1, "microsecond"),
    ];
    let (size, unit) = UNITS.into_iter().find(|(size, _)| us != 0 && us % size == 0).unwrap_or((1, "microsecond"));
    let n = us / size;
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}
