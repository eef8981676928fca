//! The obvious window kernel: `V(t)` from all events at or before `t`, looked at anew for every `t`.

use arrow::datatypes::{DataType, Schema};
use datafusion::prelude::lit;
use std::sync::Arc;
use tidemark_catalog::ObjectId;
use tidemark_engine::value::Value;
use tidemark_planner::feature::{Aggregate, Beside, Call, FeaturePlan, Frame, Input, Pane, Parameter, Slot};

/// What is maintained for one key.
#[derive(Debug, Clone)]
pub struct Definition {
    pub frames: Vec<Frame>,
    pub ttl_us: Option<i64>,
    pub slide_us: Option<i64>,
    /// With a table beside the events: whether the key is shown without its row.
    pub left_beside: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub time_us: i64,
    pub offset: u64,
    pub x: Option<i64>,
    pub flag: bool,
    /// From here on the key is absent.
    pub delete: bool,
}

impl Event {
    pub fn x(&self) -> Value {
        self.x.map_or(Value::Null, Value::Int)
    }

    pub fn id(&self) -> Value {
        Value::Int(self.offset as i64)
    }

    pub fn text(&self) -> Value {
        self.x.map_or(Value::Null, |x| Value::Text(format!("<{x}>").into()))
    }
}

/// A change of the joined table's row: from when on, and its one column.
pub type Partner = (i64, Option<i64>);

/// Time of the latest event, and the slots.
pub type Shown = (i64, Vec<Value>);

/// The inputs of an event.
pub const X: usize = 0;
pub const ID: usize = 1;
pub const FLAG: usize = 2;
pub const TEXT: usize = 3;

type Rows<'a> = &'a [&'a Event];

/// An aggregate over a frame.
struct Column {
    function: Aggregate,
    parameter: Parameter,
    arg: Option<usize>,
    other: Option<usize>,
    filter: Option<usize>,
    /// It is read from the events, and those of an unbounded frame go.
    bounded_only: bool,
    value: fn(Rows<'_>) -> Value,
}

fn column(function: Aggregate, arg: Option<usize>, value: fn(Rows<'_>) -> Value) -> Column {
    Column { function, parameter: Parameter::None, arg, other: None, filter: None, bounded_only: false, value }
}

fn bounded(function: Aggregate, parameter: Parameter, arg: usize, value: fn(Rows<'_>) -> Value) -> Column {
    Column { parameter, bounded_only: true, ..column(function, Some(arg), value) }
}

fn columns() -> Vec<Column> {
    use Aggregate as A;
    vec![
        column(A::Count, None, |rows| Value::Int(rows.len() as i64)),
        column(A::Count, Some(X), |rows| Value::Int(numbers(rows).count() as i64)),
        column(A::Sum, Some(X), |rows| sum(numbers(rows))),
        Column { filter: Some(FLAG), ..column(A::Sum, Some(X), |rows| sum(numbers(&flagged(rows)))) },
        column(A::Min, Some(X), |rows| numbers(rows).min().map_or(Value::Null, Value::Int)),
        column(A::Max, Some(X), |rows| numbers(rows).max().map_or(Value::Null, Value::Int)),
        Column { other: Some(X), ..column(A::MinBy, Some(ID), |rows| extreme(rows, -1)) },
        Column { other: Some(X), ..column(A::MaxBy, Some(ID), |rows| extreme(rows, 1)) },
        column(A::FirstValue, Some(X), |rows| rows.first().map_or(Value::Null, |row| row.x())),
        column(A::LastValue, Some(X), |rows| rows.last().map_or(Value::Null, |row| row.x())),
        bounded(A::ArrayAgg, Parameter::None, TEXT, |rows| list(rows.iter().map(|row| row.text()))),
        bounded(A::FirstK, Parameter::Number(2), ID, |rows| list(rows.iter().take(2).map(|row| row.id()))),
        bounded(A::LastK, Parameter::Number(2), ID, |rows| {
            list(rows[rows.len().saturating_sub(2)..].iter().map(|row| row.id()))
        }),
        Column {
            filter: Some(FLAG),
            ..bounded(A::NthValue, Parameter::Number(2), ID, |rows| {
                flagged(rows).get(1).map_or(Value::Null, |row| row.id())
            })
        },
        bounded(A::StringAgg, Parameter::Text("+".into()), TEXT, |rows| {
            let texts: Vec<String> = numbers(rows).map(|x| format!("<{x}>")).collect();
            if texts.is_empty() { Value::Null } else { Value::Text(texts.join("+").into()) }
        }),
    ]
}

fn numbers(rows: Rows<'_>) -> impl Iterator<Item = i64> {
    rows.iter().filter_map(|row| row.x)
}

fn flagged<'a>(rows: &[&'a Event]) -> Vec<&'a Event> {
    rows.iter().copied().filter(|row| row.flag).collect()
}

fn sum(numbers: impl Iterator<Item = i64>) -> Value {
    numbers.reduce(|a, b| a + b).map_or(Value::Null, Value::Int)
}

/// Of equal ones the latest.
fn extreme(rows: Rows<'_>, sign: i64) -> Value {
    let best =
        rows.iter().filter(|row| row.x.is_some()).max_by_key(|row| (row.x.map(|x| sign * x), row.time_us, row.offset));
    best.map_or(Value::Null, |row| row.id())
}

fn list(items: impl Iterator<Item = Value>) -> Value {
    let items: Vec<Value> = items.collect();
    if items.is_empty() { Value::Null } else { Value::List(items.into()) }
}

impl Definition {
    pub fn over(frames: &[Frame]) -> Definition {
        Definition { frames: frames.to_vec(), ttl_us: None, slide_us: None, left_beside: None }
    }

    pub fn pane(&self) -> Option<Pane> {
        match self.frames[..] {
            [Frame::Pane(pane)] => Some(pane),
            _ => None,
        }
    }

    fn columns_of(frame: Frame) -> impl Iterator<Item = Column> {
        columns().into_iter().filter(move |column| !(column.bounded_only && frame.is_unbounded()))
    }

    pub fn plan(&self) -> FeaturePlan {
        let ty = DataType::Int64;
        let mut slots = vec![];
        for (number, frame) in self.frames.iter().enumerate() {
            slots.extend(Self::columns_of(*frame).map(|column| {
                Slot::Aggregate(Call {
                    function: column.function,
                    arg: column.arg,
                    other: column.other,
                    filter: column.filter,
                    parameter: column.parameter,
                    frame: number,
                    ty: ty.clone(),
                })
            }));
        }
        match self.pane() {
            Some(_) => slots.extend([false, true].map(|end| Slot::Bound { end, ty: ty.clone() })),
            None => slots.extend([X, FLAG, TEXT].map(|input| Slot::Raw { input, ty: ty.clone() })),
        }
        if self.left_beside.is_some() {
            slots.push(Slot::Beside { column: 0, ty: ty.clone() });
        }
        let inputs = [DataType::Int64, DataType::Int64, DataType::Boolean, DataType::Utf8];
        FeaturePlan {
            branches: vec![],
            beside: self.left_beside.map(|is_left| Beside {
                table: ObjectId::FIRST,
                table_name: "beside".to_owned(),
                is_left,
                key: vec![0],
                columns: vec![1],
                time: 2,
            }),
            through: vec![],
            row_schema: Arc::new(Schema::empty()),
            event_time: 0,
            filter: None,
            key: vec![],
            inputs: inputs.into_iter().map(|ty| Input { expr: lit(1), ty }).collect(),
            frames: self.frames.clone(),
            slots,
            outputs: vec![],
            time_zone: "UTC".into(),
            ttl_us: self.ttl_us,
            slide_us: self.slide_us,
            versions: false,
        }
    }

    /// `V(t)`; `events` in order.
    pub fn at(&self, events: &[Event], partners: &[Partner], t: i64) -> Option<Shown> {
        if let Some(pane) = self.pane() {
            return self.window_at(pane, events, t);
        }
        let past = past(events, t);
        let latest = past.last().filter(|_| self.is_present(events, t))?;
        let row = partners.iter().rev().find(|(from_us, _)| *from_us <= t).and_then(|(_, row)| *row);
        if self.left_beside == Some(false) && row.is_none() {
            return None;
        }
        let life: Vec<&Event> = past[self.life(past)..].iter().collect();
        let mut slots = vec![];
        for frame in &self.frames {
            let rows = self.rows_in(*frame, &life, t);
            slots.extend(Self::columns_of(*frame).map(|column| (column.value)(&rows)));
        }
        slots.extend([latest.x(), Value::Bool(latest.flag), latest.text()]);
        if self.left_beside.is_some() {
            slots.push(row.map_or(Value::Null, Value::Int));
        }
        Some((latest.time_us, slots))
    }

    /// Whether the key is there, whatever is beside it.
    pub fn is_present(&self, events: &[Event], t: i64) -> bool {
        if let Some(pane) = self.pane() {
            return self.window_at(pane, events, t).is_some();
        }
        past(events, t)
            .last()
            .is_some_and(|latest| !latest.delete && self.ttl_us.is_none_or(|ttl| t <= latest.time_us + ttl))
    }

    /// Where the life of the last event begins: behind the last gap that is longer than the TTL.
    fn life(&self, events: &[Event]) -> usize {
        let is_gap = |i: &usize| self.ttl_us.is_some_and(|ttl| events[*i].time_us - events[i - 1].time_us > ttl);
        (1..events.len()).rev().find(is_gap).unwrap_or(0)
    }

    fn rows_in<'a>(&self, frame: Frame, life: &[&'a Event], t: i64) -> Vec<&'a Event> {
        match frame {
            Frame::Range { start_us, end_us } => {
                // A slide holds back what leaves.
                let from = |start_us: i64| t - t.rem_euclid(self.slide_us.unwrap_or(1)) - start_us;
                let is_in = |time_us: i64| time_us <= t - end_us && start_us.is_none_or(|start| time_us >= from(start));
                life.iter().copied().filter(|event| is_in(event.time_us)).collect()
            }
            Frame::Rows { start, end } => {
                let begin = start.map_or(0, |start| life.len().saturating_sub(start as usize + 1));
                let end = life.len().saturating_sub(end as usize);
                life[begin.min(end)..end].to_vec()
            }
            Frame::Pane(_) => vec![],
        }
    }

    /// The last window that is over and not empty.
    fn window_at(&self, pane: Pane, events: &[Event], t: i64) -> Option<Shown> {
        let (start_us, end_us, rows) = self.window(pane, events, t)?;
        if self.ttl_us.is_some_and(|ttl| t > end_us + ttl) {
            return None;
        }
        let mut slots: Vec<Value> = Self::columns_of(Frame::Pane(pane)).map(|column| (column.value)(&rows)).collect();
        slots.extend([Value::Int(start_us), Value::Int(end_us)]);
        Some((rows.last()?.time_us, slots))
    }

    fn window<'a>(&self, pane: Pane, events: &'a [Event], t: i64) -> Option<(i64, i64, Vec<&'a Event>)> {
        let first = events.first()?.time_us;
        match pane {
            Pane::Hop { size_us, hop_us } => {
                let mut end_us = t.div_euclid(hop_us) * hop_us;
                while end_us > first {
                    let start_us = end_us - size_us;
                    let is_in = |event: &&Event| (start_us..end_us).contains(&event.time_us);
                    let rows: Vec<&Event> = events.iter().filter(is_in).collect();
                    if !rows.is_empty() {
                        return Some((start_us, end_us, rows));
                    }
                    end_us -= hop_us;
                }
                None
            }
            Pane::Session { gap_us } => {
                let mut sessions: Vec<Vec<&Event>> = vec![];
                for event in past(events, t) {
                    match sessions.last_mut() {
                        Some(session) if event.time_us - session[session.len() - 1].time_us < gap_us => {
                            session.push(event)
                        }
                        _ => sessions.push(vec![event]),
                    }
                }
                let over =
                    sessions.into_iter().rev().find(|session| session[session.len() - 1].time_us + gap_us <= t)?;
                Some((over[0].time_us, over[over.len() - 1].time_us + gap_us, over))
            }
        }
    }

    /// How many events are needed yet when everything below `frontier_us` is finished, and no more may be kept.
    pub fn needed(&self, events: &[Event], frontier_us: i64) -> usize {
        let t = frontier_us - 1;
        if let Some(pane) = self.pane() {
            let Some((_, _, rows)) = self.window(pane, events, t) else { return events.len() };
            return events
                .iter()
                .filter(|event| (event.time_us, event.offset) >= (rows[0].time_us, rows[0].offset))
                .count();
        }
        let past = past(events, t);
        let is_over = past.last().is_some_and(|latest| !latest.delete) && !self.is_present(events, t);
        let life = if is_over { past.len() } else { self.life(past) };
        let latest = if past.len() > life { past.len() - 1 } else { life };
        let slide_us = self.slide_us.unwrap_or(1);
        let first_of = |frame: &Frame| match *frame {
            // What has not left.
            Frame::Range { start_us: Some(start_us), .. } => {
                let gone = |event: &&Event| t - t.rem_euclid(slide_us) > event.time_us + start_us;
                life + past[life..].iter().filter(gone).count()
            }
            // What has entered last: `last_value`.
            Frame::Range { start_us: None, end_us } => {
                let entered = past[life..].iter().filter(|event| event.time_us + end_us <= t).count();
                life + entered.saturating_sub(1)
            }
            Frame::Rows { start: Some(start), .. } => past.len().saturating_sub(start as usize + 1).max(life),
            Frame::Rows { start: None, end } => past.len().saturating_sub(end as usize + 1).max(life),
            Frame::Pane(_) => life,
        };
        events.len() - self.frames.iter().map(first_of).fold(latest, usize::min)
    }

    /// Whether anything may happen at `t`.
    pub fn is_occasion(&self, events: &[Event], partners: &[Partner], t: i64, month_us: i64) -> bool {
        if t == month_us || self.at(events, partners, t).is_some() != self.at(events, partners, t - 1).is_some() {
            return true;
        }
        if self.pane().is_some() {
            return self.at(events, partners, t) != self.at(events, partners, t - 1);
        }
        let slide_us = self.slide_us.unwrap_or(1);
        let moves = |frame: &Frame, time_us: i64| match *frame {
            Frame::Range { start_us, end_us } => {
                let leaves = start_us.map(|start_us| time_us + start_us + 1);
                time_us + end_us == t || leaves.is_some_and(|at| at <= t && at > t - slide_us && t % slide_us == 0)
            }
            _ => false,
        };
        partners.iter().any(|(from_us, _)| *from_us == t)
            || events
                .iter()
                .any(|event| event.time_us == t || self.frames.iter().any(|frame| moves(frame, event.time_us)))
    }
}

/// The events at or before `t`.
fn past(events: &[Event], t: i64) -> &[Event] {
    &events[..events.partition_point(|event| event.time_us <= t)]
}
