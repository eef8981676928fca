//! A generated test case: one source with its rows in order of arrival, and feature views over it.
//!
//! Everything is kept as the text that both systems read, so a failing case can be saved, shrunk and replayed.

use serde::{Deserialize, Serialize};

pub const EVENT_TIME: &str = "event_time";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ty {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `numeric(12,3)` in a column, any numeric in a result.
    Numeric,
    Text,
    Bool,
    Bytea,
    Date,
    Time,
    /// Without a time zone.
    Timestamp,
    Instant,
    Interval,
}

impl Ty {
    pub fn sql(self) -> &'static str {
        match self {
            Ty::Int2 => "smallint",
            Ty::Int4 => "integer",
            Ty::Int8 => "bigint",
            Ty::Float4 => "real",
            Ty::Float8 => "double precision",
            Ty::Numeric => "numeric(12,3)",
            Ty::Text => "text",
            Ty::Bool => "boolean",
            Ty::Bytea => "bytea",
            Ty::Date => "date",
            Ty::Time => "time",
            Ty::Timestamp => "timestamp",
            Ty::Instant => "timestamptz",
            Ty::Interval => "interval",
        }
    }
}

/// A cell as `COPY` text; `None` is NULL.
pub type Cell = Option<String>;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub event_time_us: i64,
    /// In the order of the source's columns.
    pub cells: Vec<Cell>,
    /// Of a source that is split in two: it comes in the second.
    #[serde(default)]
    pub second: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    pub columns: Vec<(String, Ty)>,
    /// A table whose rows replace one another by this column, instead of a stream.
    #[serde(default)]
    pub primary_key: Option<String>,
    pub delay_us: i64,
    /// Two sources of the same columns, which views put together by UNION ALL.
    #[serde(default)]
    pub is_split: bool,
    /// In order of arrival.
    pub rows: Vec<Row>,
}

impl Source {
    pub fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|(n, _)| n == name).expect("a generated view names columns of its source")
    }

    pub fn create_sql(&self, name: &str) -> String {
        let is_key = |name: &String| self.primary_key.as_ref() == Some(name);
        let key = |name| if is_key(name) { " PRIMARY KEY" } else { "" };
        let columns: Vec<String> = self.columns.iter().map(|(n, ty)| format!("{n} {}{}", ty.sql(), key(n))).collect();
        format!(
            "CREATE {} {name} ({}, WATERMARK FOR {EVENT_TIME} AS {EVENT_TIME} - INTERVAL '{} microseconds') \
             WITH (clock = 'event'){}",
            self.kind(),
            columns.join(", "),
            self.delay_us,
            if self.primary_key.is_some() { " FORMAT UPSERT" } else { "" }
        )
    }

    /// The names of what it is made of.
    pub fn parts(&self, name: &str) -> Vec<String> {
        match self.is_split {
            true => vec![format!("{name}_a"), format!("{name}_b")],
            false => vec![name.to_owned()],
        }
    }

    /// What a view has in FROM.
    pub fn in_from(&self, name: &str) -> String {
        match self.is_split {
            true => format!("(SELECT * FROM {name}_a UNION ALL SELECT * FROM {name}_b) AS e"),
            false => name.to_owned(),
        }
    }

    /// What `ALTER` and `DROP` call it.
    pub fn kind(&self) -> &'static str {
        if self.primary_key.is_some() { "TABLE" } else { "SOURCE" }
    }
}

/// The frame of one window, bounds in microseconds or rows before the current row; `None` is unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Frame {
    Range {
        start_us: Option<i64>,
        end_us: i64,
    },
    Rows {
        start: Option<u64>,
        end: u64,
    },
    /// The last window of TUMBLE (size and hop are equal) or HOP that is over.
    Hop {
        size_us: i64,
        hop_us: i64,
    },
    Session {
        gap_us: i64,
    },
}

impl Frame {
    /// The kinds that the run counts.
    pub const KINDS: [&str; 9] = [
        "range",
        "range offset",
        "range unbounded",
        "rows",
        "rows offset",
        "rows unbounded",
        "tumble",
        "hop",
        "session",
    ];

    pub fn kind(&self) -> &'static str {
        match self {
            Frame::Range { start_us: None, .. } => "range unbounded",
            Frame::Range { end_us: 0, .. } => "range",
            Frame::Range { .. } => "range offset",
            Frame::Rows { start: None, .. } => "rows unbounded",
            Frame::Rows { end: 0, .. } => "rows",
            Frame::Rows { .. } => "rows offset",
            Frame::Hop { size_us, hop_us } if size_us == hop_us => "tumble",
            Frame::Hop { .. } => "hop",
            Frame::Session { .. } => "session",
        }
    }

    /// How long it is; 0 if that has no meaning.
    pub fn length_us(&self) -> i64 {
        match *self {
            Frame::Range { start_us: Some(start_us), end_us } => start_us - end_us,
            Frame::Hop { size_us, .. } => size_us,
            _ => 0,
        }
    }

    /// In GROUP BY, if it is a window that begins and ends by itself.
    pub fn pane_sql(&self) -> Option<String> {
        let interval = |us: i64| format!("INTERVAL '{}'", duration(us));
        Some(match *self {
            Frame::Hop { size_us, hop_us } if size_us == hop_us => {
                format!("TUMBLE({EVENT_TIME}, {})", interval(size_us))
            }
            Frame::Hop { size_us, hop_us } => {
                format!("HOP({EVENT_TIME}, {}, {})", interval(hop_us), interval(size_us))
            }
            Frame::Session { gap_us } => format!("SESSION({EVENT_TIME}, {})", interval(gap_us)),
            _ => return None,
        })
    }

    fn sql(&self, short: bool) -> String {
        let bound = |amount: Option<String>| match amount {
            None => "UNBOUNDED PRECEDING".to_owned(),
            Some(amount) if amount == "0" => "CURRENT ROW".to_owned(),
            Some(amount) => format!("{amount} PRECEDING"),
        };
        let us = |us: i64| if us == 0 { "0".to_owned() } else { format!("INTERVAL '{}'", duration(us)) };
        let (units, start, end) = match *self {
            Frame::Range { start_us, end_us } => ("RANGE", start_us.map(us), us(end_us)),
            Frame::Rows { start, end } => ("ROWS", start.map(|n| n.to_string()), end.to_string()),
            Frame::Hop { .. } | Frame::Session { .. } => return String::new(),
        };
        if short && end == "0" {
            return format!("{units} {}", bound(start));
        }
        format!("{units} BETWEEN {} AND {}", bound(start), bound(Some(end)))
    }
}

/// A duration in the unit a person would write.
pub fn duration(us: i64) -> String {
    match us {
        _ if us % 3_600_000_000 == 0 => format!("{} hours", us / 3_600_000_000),
        _ if us % 60_000_000 == 0 => format!("{} minutes", us / 60_000_000),
        _ if us % 1_000_000 == 0 => format!("{} seconds", us / 1_000_000),
        _ if us % 1_000 == 0 => format!("{} milliseconds", us / 1_000),
        _ => format!("{us} microseconds"),
    }
}

/// One aggregate over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub function: String,
    /// Text over the source's columns; `None` is `count(*)`.
    pub arg: Option<(String, Ty)>,
    #[serde(default)]
    pub other: Option<(String, Ty)>,
    /// A constant behind the arguments, as SQL.
    #[serde(default)]
    pub parameter: Option<String>,
    pub filter: Option<String>,
    pub frame: Frame,
}

/// One feature: SQL text with `{0}`, `{1}`, … where the calls go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Output {
    pub template: String,
    pub calls: Vec<Call>,
    pub ty: Ty,
}

impl Output {
    pub fn fill(&self, call: impl Fn(usize) -> String) -> String {
        let mut text = self.template.clone();
        for i in 0..self.calls.len() {
            text = text.replace(&format!("{{{i}}}"), &call(i));
        }
        text
    }

    /// Read with `now()`: history keeps its base columns instead.
    pub fn is_continuous(&self) -> bool {
        let decays = |call: &Call| matches!(call.function.as_str(), "decay_sum" | "decay_count");
        self.template.contains("now()") || self.calls.iter().any(decays)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    pub key: Vec<String>,
    /// The key is the source's primary key, and goes without saying.
    #[serde(default)]
    pub key_of_table: bool,
    pub filter: Option<String>,
    pub ttl_us: Option<i64>,
    #[serde(default)]
    pub slide_us: Option<i64>,
    /// Whether windows are named in a WINDOW clause, and written in the short form.
    pub named_windows: bool,
    pub short_frames: bool,
    pub outputs: Vec<Output>,
}

impl View {
    pub fn create_sql(&self, name: &str, source: &str) -> String {
        let mut options = Vec::new();
        if let Some(ttl) = self.ttl_us {
            options.push(format!("ttl = '{}'", duration(ttl)));
        }
        if let Some(slide) = self.slide_us {
            options.push(format!("slide = '{}'", duration(slide)));
        }
        if self.frames().is_empty() && !self.key_of_table {
            options.push(format!("key = '{}'", self.key.join(", ")));
        }
        let with = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
        format!("CREATE FEATURE VIEW {name}{with} AS {}", self.query_sql(source))
    }

    pub fn query_sql(&self, source: &str) -> String {
        let frames = self.frames();
        let window = |frame: &Frame| {
            format!("(PARTITION BY {} ORDER BY {EVENT_TIME} {})", self.key.join(", "), frame.sql(self.short_frames))
        };
        let over = |frame: &Frame| match frames.iter().position(|f| f == frame) {
            Some(i) if self.named_windows => format!("w{i}"),
            _ => window(frame),
        };
        let pane = self.pane();
        let mut items: Vec<String> = self.key.clone();
        if pane.is_none() {
            items.push(EVENT_TIME.to_owned());
        }
        for (i, output) in self.outputs.iter().enumerate() {
            let text = output.fill(|c| {
                let call = &output.calls[c];
                let arg = call.arg.as_ref().map_or("*", |(text, _)| text.as_str());
                let filter = call.filter.as_ref().map(|f| format!(" FILTER (WHERE {f})")).unwrap_or_default();
                let (name, distinct) = match call.function.strip_suffix("_distinct") {
                    Some(name) if !name.starts_with("approx") => (name, "DISTINCT "),
                    _ => (call.function.as_str(), ""),
                };
                let others = [call.other.as_ref().map(|(text, _)| text), call.parameter.as_ref()];
                let others: String = others.into_iter().flatten().map(|text| format!(", {text}")).collect();
                let over = if pane.is_some() { String::new() } else { format!(" OVER {}", over(&call.frame)) };
                format!("{name}({distinct}{arg}{others}){filter}{over}")
            });
            items.push(format!("{text} AS o{i}"));
        }
        let mut sql = format!("SELECT {} FROM {source}", items.join(", "));
        if let Some(filter) = &self.filter {
            sql.push_str(&format!(" WHERE {filter}"));
        }
        if let Some(pane) = pane.and_then(|pane| pane.pane_sql()) {
            sql.push_str(&format!(" GROUP BY {}, {pane}", self.key.join(", ")));
        } else if self.named_windows && !frames.is_empty() {
            let windows: Vec<String> =
                frames.iter().enumerate().map(|(i, f)| format!("w{i} AS {}", window(f))).collect();
            sql.push_str(&format!(" WINDOW {}", windows.join(", ")));
        }
        sql
    }

    /// The windows that begin and end by themselves, if the view is over such.
    pub fn pane(&self) -> Option<Frame> {
        self.frames().into_iter().find(|frame| frame.pane_sql().is_some())
    }

    /// Instants at which an event may change the view's value.
    pub fn changes(&self, event_us: i64) -> Vec<i64> {
        let slide_us = self.slide_us.unwrap_or(1);
        let mut instants = if self.pane().is_some() { vec![] } else { vec![event_us] };
        for frame in self.frames() {
            match frame {
                Frame::Range { start_us, end_us } => {
                    instants.push(event_us + end_us);
                    let leaves = start_us.map(|a| event_us + a + 1);
                    instants.extend(leaves.map(|at| at + (-at).rem_euclid(slide_us)));
                }
                Frame::Rows { .. } => {}
                Frame::Hop { size_us, hop_us } => {
                    let first = event_us - event_us.rem_euclid(hop_us) + hop_us;
                    instants.extend((0..size_us / hop_us).map(|i| first + i * hop_us));
                }
                Frame::Session { gap_us } => instants.push(event_us + gap_us),
            }
        }
        if let Some(ttl_us) = self.ttl_us {
            let since = if self.pane().is_some() { instants.clone() } else { vec![event_us] };
            instants.extend(since.into_iter().map(|at| at + ttl_us + 1));
        }
        instants
    }

    /// The distinct frames in order of appearance.
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for call in self.outputs.iter().flat_map(|o| &o.calls) {
            if !frames.contains(&call.frame) {
                frames.push(call.frame);
            }
        }
        frames
    }
}

/// A question: the value for `key` (cells in the order of the view's key) at `t_us`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Probe {
    pub key: Vec<String>,
    pub t_us: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub seed: u64,
    pub source: Source,
    pub views: Vec<(View, Vec<Probe>)>,
}

impl Case {
    /// The same from one source.
    pub fn in_one(mut self) -> Case {
        self.source.is_split = false;
        self.source.rows.iter_mut().for_each(|row| row.second = false);
        self
    }
}

/// An instant as both systems read it.
pub fn instant(us: i64) -> String {
    let at = chrono::DateTime::from_timestamp_micros(us).expect("generated instants are near the present");
    at.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}
