//! The definitions themselves. Everything here is plain data, serialised as JSON in the catalog store.

use crate::{Layout, PUBLIC_SCHEMA, Place, QualifiedName, SqlType, TEMPORARY_SCHEMA, TrainingSet};
use arrow_schema::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The identity of an object for as long as it exists; also its PostgreSQL OID, so it starts at 16384 and fits 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub u32);

impl ObjectId {
    pub const FIRST: ObjectId = ObjectId(16384);
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub id: ObjectId,
    /// Without its schema.
    pub name: String,
    /// Microseconds since 1970, UTC.
    pub created_us: i64,
    pub comment: Option<String>,
    /// In which schema it lives.
    #[serde(default, skip_serializing_if = "Place::is_plain")]
    pub place: Place,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    Source(Relation),
    Table(Relation),
    FeatureView(FeatureView),
    View(View),
    Aggregate(Aggregate),
    TrainingSet(TrainingSet),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Source,
    Table,
    FeatureView,
    View,
    Aggregate,
    TrainingSet,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Source => "source",
            ObjectKind::Table => "table",
            ObjectKind::FeatureView => "feature view",
            ObjectKind::View => "view",
            ObjectKind::Aggregate => "aggregate",
            ObjectKind::TrainingSet => "training set",
        })
    }
}

impl ObjectKind {
    /// `a source`, `an aggregate`.
    pub fn with_article(self) -> String {
        match self {
            ObjectKind::Aggregate => format!("an {self}"),
            _ => format!("a {self}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: SqlType,
    pub not_null: bool,
    pub comment: Option<String>,
}

impl Column {
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.ty.arrow(), !self.not_null)
    }
}

/// What "now" means for a source's feature views (semantics, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockMode {
    /// The server's clock.
    System,
    /// The greatest event time admitted: for replays, demos and tests.
    Event,
}

/// Reserved for declared expectations (`ON VIOLATION …`); every release so far quarantines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorPolicy {
    Quarantine,
}

/// A source or a table: rows that arrive, kept in an embedded durable log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    pub columns: Vec<Column>,
    /// Indices into `columns`; empty when there is none. A relation with a primary key is a changelog.
    pub primary_key: Vec<usize>,
    /// `FORMAT UPSERT`: a row with a known key replaces it instead of being refused (23505).
    pub upsert: bool,
    /// `ENCODE …`: how a row is written in a topic's message.
    #[serde(default)]
    pub encode: Encode,
    /// The column of `WATERMARK FOR`; without it the relation can be queried but not windowed.
    pub event_time: Option<usize>,
    /// The declared watermark delay, microseconds.
    pub delay_us: i64,
    pub clock: ClockMode,
    /// How far an event's time may lie after its append time, microseconds (`max_ahead`).
    pub max_ahead_us: i64,
    /// How long a silent partition holds the frontier back, microseconds (`idle_timeout`).
    pub idle_timeout_us: i64,
    /// How long rows stay in the log, microseconds; `None` keeps them for ever (`retention`).
    pub retention_us: Option<i64>,
    /// How long its dead letters stay, microseconds (`dead_letter_retention`).
    pub dead_letter_retention_us: Option<i64>,
    /// The `WITH` options as written, for `SHOW CREATE` and `DESCRIBE`.
    pub options: BTreeMap<String, String>,
    /// Columns that tell about a message and are not in it (`INCLUDE`), as indices into `columns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<(usize, Include)>,
    /// What `ALTER … COLUMN` has made of its columns.
    #[serde(default)]
    pub layout: Layout,
    /// The statement that created it, as written; after an `ALTER … COLUMN` one that would create it so.
    pub sql: String,
}

/// How a row is written in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encode {
    #[default]
    Json,
    Csv,
    /// The message is the value of the one column.
    Bytes,
}

impl fmt::Display for Encode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encode::Json => "JSON",
            Encode::Csv => "CSV",
            Encode::Bytes => "BYTES",
        })
    }
}

/// What a broker knows of a message beside its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Include {
    Key,
    Timestamp,
    Partition,
    Offset,
    Header(String),
}

impl Relation {
    /// The topic that feeds it, empty where none is given; `None`: statements do.
    pub fn topic(&self) -> Option<&str> {
        let is_kafka = self.options.get("connector").is_some_and(|connector| connector == "kafka");
        is_kafka.then(|| self.options.get("topic").map_or("", String::as_str))
    }

    /// Connectors of tables that are files which somebody else writes.
    pub const FILES: [&str; 3] = ["parquet", "csv", "iceberg"];

    /// Whether its events are kept in an Iceberg table of their own (`archive`).
    pub fn is_archived(&self) -> bool {
        self.options.get("archive").is_some_and(|archive| archive == "iceberg")
    }

    pub fn connector(&self) -> Option<&str> {
        self.options.get("connector").map(String::as_str)
    }

    /// Where the files are that the table is, as its `path` says; `None`: its rows are in a log. Such a table is only read.
    pub fn files(&self) -> Option<&str> {
        let is_files = self.connector().is_some_and(|connector| Relation::FILES.contains(&connector));
        is_files.then(|| self.options.get("path").map_or("", String::as_str))
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()))
    }

    /// A table that only has columns: no key, no watermark, no options.
    pub fn plain(columns: Vec<Column>, sql: String) -> Relation {
        Relation {
            columns,
            primary_key: vec![],
            upsert: false,
            encode: Encode::default(),
            event_time: None,
            delay_us: 0,
            clock: ClockMode::System,
            max_ahead_us: 0,
            idle_timeout_us: 0,
            retention_us: None,
            dead_letter_retention_us: None,
            includes: vec![],
            layout: Layout::default(),
            options: BTreeMap::new(),
            sql,
        }
    }
}

/// A feature view: its definition as text, and what planning found in it, for people to browse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureView {
    /// The statement that created it, as written.
    pub sql: String,
    /// The `SELECT` alone, as written; re-planned (purely) at every start.
    pub query: String,
    /// The source or table it reads; of several the first.
    pub relation: ObjectId,
    /// The others.
    #[serde(default)]
    pub others: Vec<ObjectId>,
    /// The views through which it reads it, and the user's aggregates that it calls.
    #[serde(default)]
    pub through: Vec<ObjectId>,
    pub columns: Vec<Column>,
    /// Indices into `columns`: the entity key.
    pub key: Vec<usize>,
    /// Index into `columns`: the time column, the instant of the change.
    pub time: usize,
    /// One entry per feature column (neither key nor time).
    pub features: Vec<Feature>,
    pub ttl_us: Option<i64>,
    /// The session's time zone at CREATE, frozen (semantics, section 2).
    pub time_zone: String,
    pub owner: Option<String>,
    pub tags: Vec<String>,
    pub options: BTreeMap<String, String>,
    pub version: u32,
    /// The first instant with values, microseconds, where the source's log had been shortened before the view was made;
    /// `None`: the view has seen all events its source ever admitted.
    #[serde(default)]
    pub history_start_us: Option<i64>,
}

impl FeatureView {
    /// What its readers are told to do instead of reading it.
    pub fn deprecated(&self) -> Option<&str> {
        self.options.get("deprecated").map(String::as_str).filter(|instead| !instead.is_empty())
    }

    /// Whether its history is partitioned by day, and not by month.
    pub fn history_by_day(&self) -> bool {
        self.options.get("history_partition").is_some_and(|partition| partition == "day")
    }

    /// Whether the server cares for the files of its history unasked, where it does so at all.
    pub fn is_maintained(&self) -> bool {
        self.options.get("maintenance").is_none_or(|maintenance| maintenance != "off")
    }

    /// The sources and tables it reads, each once.
    pub fn relations(&self) -> impl Iterator<Item = ObjectId> {
        std::iter::once(self.relation).chain(self.others.iter().copied())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Index into the view's `columns`.
    pub column: usize,
    /// `count`, `sum`, …; empty for a raw column or an expression over several.
    pub aggregate: String,
    /// The window as a person reads it, e.g. `RANGE 1 hour PRECEDING`; empty for a raw column.
    pub window: String,
    /// The feature's expression as SQL text.
    pub expression: String,
    /// What an outer join shows of it where the entity has no row, as text that reads as the column's type; `None`: NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A plain `CREATE VIEW`: a name for a query. A feature service is one over feature views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub sql: String,
    pub query: String,
    pub columns: Vec<Column>,
    /// The objects it reads, so that dropping one in use is refused.
    pub reads: Vec<ObjectId>,
}

/// An aggregate of the user's own: an expression over other aggregates of its parameters, written out where it is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The statement that created it, as written.
    pub sql: String,
    /// The expression alone, as written.
    pub expression: String,
    pub parameters: Vec<Parameter>,
    /// The type of its value.
    pub returns: SqlType,
    /// The user's aggregates that its expression calls.
    pub reads: Vec<ObjectId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    pub ty: SqlType,
}

impl Aggregate {
    /// What it takes, as PostgreSQL shows it: `hits bigint, tries bigint`.
    pub fn arguments(&self) -> String {
        self.parameters.iter().map(|p| format!("{} {}", p.name, p.ty)).collect::<Vec<_>>().join(", ")
    }
}

impl Object {
    pub fn schema_name(&self) -> &str {
        &self.place.schema
    }

    /// Schema and name.
    pub fn full_name(&self) -> QualifiedName {
        QualifiedName::new(self.schema_name(), &self.name)
    }

    /// As messages and people's lists have it: `name`, and of another schema than `public` (or a session's own) `schema.name`.
    pub fn shown_name(&self) -> String {
        match self.schema_name() {
            PUBLIC_SCHEMA | TEMPORARY_SCHEMA => self.name.clone(),
            schema => format!("{schema}.{}", self.name),
        }
    }

    /// What its history table is called where it is stored: `name` in `public`, `schema.name` elsewhere. No schema has a dot in its
    /// name, and a name of `public` with one comes with its schema, so it can be read in one way only.
    pub fn history_name(&self) -> String {
        match self.schema_name() {
            PUBLIC_SCHEMA if !self.name.contains('.') => self.name.clone(),
            schema => format!("{schema}.{}", self.name),
        }
    }

    pub fn kind(&self) -> ObjectKind {
        match self.body {
            Body::Source(_) => ObjectKind::Source,
            Body::Table(_) => ObjectKind::Table,
            Body::FeatureView(_) => ObjectKind::FeatureView,
            Body::View(_) => ObjectKind::View,
            Body::Aggregate(_) => ObjectKind::Aggregate,
            Body::TrainingSet(_) => ObjectKind::TrainingSet,
        }
    }

    /// The definition of a source or table.
    pub fn relation(&self) -> Option<&Relation> {
        match &self.body {
            Body::Source(r) | Body::Table(r) => Some(r),
            _ => None,
        }
    }

    pub fn feature_view(&self) -> Option<&FeatureView> {
        match &self.body {
            Body::FeatureView(v) => Some(v),
            _ => None,
        }
    }

    pub fn view(&self) -> Option<&View> {
        match &self.body {
            Body::View(v) => Some(v),
            _ => None,
        }
    }

    pub fn aggregate(&self) -> Option<&Aggregate> {
        match &self.body {
            Body::Aggregate(a) => Some(a),
            _ => None,
        }
    }

    pub fn training_set(&self) -> Option<&TrainingSet> {
        match &self.body {
            Body::TrainingSet(set) => Some(set),
            _ => None,
        }
    }

    /// Its columns; an aggregate has none.
    pub fn columns(&self) -> &[Column] {
        match &self.body {
            Body::Source(r) | Body::Table(r) => &r.columns,
            Body::FeatureView(v) => &v.columns,
            Body::View(v) => &v.columns,
            Body::Aggregate(_) => &[],
            Body::TrainingSet(set) => &set.columns,
        }
    }

    /// The statement that created it.
    pub fn sql(&self) -> &str {
        match &self.body {
            Body::Source(r) | Body::Table(r) => &r.sql,
            Body::FeatureView(v) => &v.sql,
            Body::View(v) => &v.sql,
            Body::Aggregate(a) => &a.sql,
            Body::TrainingSet(set) => &set.sql,
        }
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns().iter().map(Column::field).collect::<Vec<_>>()))
    }

    /// The objects this one reads or calls.
    pub fn reads(&self) -> Vec<ObjectId> {
        match &self.body {
            // A training set stays when what it was computed from goes.
            Body::Source(_) | Body::Table(_) | Body::TrainingSet(_) => vec![],
            Body::FeatureView(v) => v.relations().chain(v.through.iter().copied()).collect(),
            Body::View(v) => v.reads.clone(),
            Body::Aggregate(a) => a.reads.clone(),
        }
    }
}
