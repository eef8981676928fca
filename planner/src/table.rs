//! What a plan scans: pure descriptions. The engine puts real providers in their place before physical planning.

use crate::shown::Shown;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableSource, TableType};
use std::{any::Any, sync::Arc};
use tidemark_catalog::ObjectId;

/// Which rows of which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScanTarget {
    /// Admitted rows of a source or plain table; current rows of a table with a primary key. Of a training set the log that
    /// has its rows, which is no object.
    Relation(ObjectId),
    /// The same of a table, with the place of each row in front, [`ROW_COLUMN`]: what statements read that change it.
    Rows(ObjectId),
    /// `V(k, now)` for every key.
    CurrentRows(ObjectId),
    /// `V(k, t)` for every key: `FOR SYSTEM_TIME AS OF`; microseconds.
    AsOf(ObjectId, i64),
    /// The steps of a feature view (or the versions of a changelog table), completed from state above the frontier:
    /// what an `ASOF JOIN` reads. Schema: [`StepsTable::schema`].
    Steps(ObjectId),
    /// `history.<view>`: the committed steps, as in the Iceberg table; `history.<source>`: the events of its archive.
    History(ObjectId),
    /// A table that is files which somebody else writes (`connector = 'parquet'`, `'csv'`, `'iceberg'`).
    Files(ObjectId),
    /// A table of the schemas `tidemark`, `pg_catalog`, `information_schema`: `schema.name`.
    System(String),
    /// What `now()` and the like need no table for: the empty relation of a constant query never gets here.
    Nothing,
}

/// A table as a plan sees it.
#[derive(Debug, Clone)]
pub struct TidemarkTable {
    pub target: ScanTarget,
    /// The object's name, for messages.
    pub name: String,
    pub schema: SchemaRef,
    /// For feature views and changelog tables: what an `ASOF JOIN` on the time column reads instead.
    pub steps: Option<Arc<StepsTable>>,
    /// By column, what an outer join shows where it finds no row of this table; NULL of the others. See `defaults`.
    pub defaults: Vec<(String, Expr)>,
    /// Of columns that are shown as another type than what holds them, by name: see `shown`.
    pub shown: Vec<(String, Shown)>,
}

/// The history side of a feature view or changelog table.
#[derive(Debug, Clone)]
pub struct StepsTable {
    pub target: ScanTarget,
    /// Key columns, time column, features as stored (time-continuous ones replaced by their base columns), then
    /// [`OP_COLUMN`] and [`EVENT_TIME_COLUMN`].
    pub schema: SchemaRef,
    /// Name of the time column: the instant of the change.
    pub time: String,
    /// Names of the entity key's columns.
    pub key: Vec<String>,
    /// Columns that the user sees and `schema` does not have: evaluated at the instant of the reading.
    pub continuous: Vec<ContinuousColumn>,
}

/// A time-continuous feature: `expr` reads columns of the steps schema (unqualified) and the column
/// [`crate::feature::NOW_COLUMN`] (`timestamptz`), the instant of the reading.
#[derive(Debug, Clone)]
pub struct ContinuousColumn {
    pub name: String,
    pub ty: DataType,
    pub expr: Expr,
}

/// `upsert`, `delete` or `carry` (text).
pub const OP_COLUMN: &str = "_op";
/// Time of the key's latest event at that instant (`timestamptz`).
pub const EVENT_TIME_COLUMN: &str = "_event_time";
/// Whether the key has a row; see `status`.
pub const STATUS_COLUMN: &str = "_status";
/// True of a row that is there, NULL of an entity that has none. Nobody can write such a name.
pub const FOUND_COLUMN: &str = "is there\0";
/// When the row was written (`timestamptz`); only in `history.<view>`.
pub const RECORDED_AT_COLUMN: &str = "_recorded_at";

/// The schema of [`ScanTarget::Rows`]: nobody's own names begin so.
pub const ROWS_SCHEMA: &str = "$rows";
/// Where a row is in its table's log (`UInt64`).
pub const ROW_COLUMN: &str = "$row";

/// The type of every instant: microseconds, UTC.
pub fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(tidemark_catalog::UTC.into()))
}

/// A steps schema: `columns` and then the two hidden ones.
pub fn steps_schema(columns: impl IntoIterator<Item = Field>) -> SchemaRef {
    let mut fields: Vec<Field> = columns.into_iter().collect();
    fields.push(Field::new(OP_COLUMN, DataType::Utf8, false));
    fields.push(Field::new(EVENT_TIME_COLUMN, instant_type(), true));
    Arc::new(Schema::new(fields))
}

/// The columns of a feature view, and those that are there for who names them: see `status`.
pub fn with_status(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(EVENT_TIME_COLUMN, instant_type(), true));
    fields.push(Field::new(STATUS_COLUMN, DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

/// Whether it has these. No feature view has a column of its own that is called so.
pub fn has_status(schema: &Schema) -> bool {
    schema.fields().iter().rev().take(2).any(|field| field.name() == STATUS_COLUMN)
}

/// The same, and whether the row is there: entities that have none are among the rows then. See `absent`.
pub fn with_found(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let found = Field::new(FOUND_COLUMN, DataType::Boolean, true);
    Arc::new(Schema::new(fields.chain([found]).collect::<Vec<Field>>()))
}

/// Whether it has that.
pub fn has_found(schema: &Schema) -> bool {
    schema.fields().last().is_some_and(|field| field.name() == FOUND_COLUMN)
}

impl TidemarkTable {
    /// A table without a past, whose columns are shown as what holds them.
    pub fn plain(target: ScanTarget, name: &str, schema: SchemaRef) -> TidemarkTable {
        TidemarkTable { target, name: name.to_string(), schema, steps: None, defaults: vec![], shown: vec![] }
    }

    /// The description behind a plan's table source, if it is one of ours.
    pub fn of(source: &Arc<dyn TableSource>) -> Option<&TidemarkTable> {
        (source.as_ref() as &dyn Any).downcast_ref()
    }

    /// What an outer join shows of the column where it finds no row; `None`: NULL.
    pub fn default(&self, column: &str) -> Option<&Expr> {
        self.defaults.iter().find(|(name, _)| name == column).map(|(_, default)| default)
    }

    /// What the column is shown as where that is another type than what holds it.
    pub fn shown(&self, column: &str) -> Option<Shown> {
        self.shown.iter().find(|(name, _)| name == column).map(|(_, shown)| *shown)
    }

    /// The table at an instant, microseconds. `None`: it has no rows of the past.
    pub fn as_of(&self, at_us: i64) -> Option<TidemarkTable> {
        let ScanTarget::CurrentRows(id) = self.target else { return None };
        Some(TidemarkTable { target: ScanTarget::AsOf(id, at_us), steps: None, ..self.clone() })
    }
}

impl TableSource for TidemarkTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: the scan may use a filter to read less, the filter stays above it.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
