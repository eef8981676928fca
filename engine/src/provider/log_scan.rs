//! Scans of sources and tables: their log, streamed; or the current rows of a table with a primary key.

use super::{moment::Fixed, seam};
use crate::{
    runtime::{Plain, SourceRuntime, records_of},
    seam::{Positions, Source},
    value::array_of,
};
use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array},
    compute::cast,
    datatypes::SchemaRef,
    error::ArrowError,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, streaming::StreamingTable},
    common::DataFusionError,
    datasource::{TableType, memory::MemorySourceConfig},
    error::Result as DfResult,
    execution::TaskContext,
    logical_expr::Expr,
    physical_plan::{
        ExecutionPlan, SendableRecordBatchStream, stream::RecordBatchStreamAdapter, streaming::PartitionStream,
    },
};
use futures::TryStreamExt;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tidemark_catalog::{ObjectId, UTC};

pub struct LogTable {
    source: Arc<SourceRuntime>,
    /// As it was when the statement began.
    log: Arc<dyn Source>,
    schema: SchemaRef,
    /// Where each row is in the log comes first, [`ROW_COLUMN`](tidemark_planner::table::ROW_COLUMN).
    placed: bool,
    /// `None`: what is there when a scan begins.
    fixed: Option<Fixed>,
}

impl LogTable {
    pub fn new(source: Arc<SourceRuntime>) -> Self {
        let (schema, log) = source.shape();
        LogTable { schema, log, source, placed: false, fixed: None }
    }

    /// The same with the rows' places, for statements that change them.
    pub fn placed(source: Arc<SourceRuntime>, schema: SchemaRef) -> Self {
        LogTable { log: source.log(), source, schema, placed: true, fixed: None }
    }

    /// The rows as they were when the log had these offsets.
    pub fn between(source: Arc<SourceRuntime>, from: u64, to: u64) -> Self {
        let at = |offset| Positions([(0, offset)].into());
        LogTable::fixed(source, Fixed::Between(at(from), at(to)))
    }

    /// The rows that were there at a moment.
    pub(super) fn fixed(source: Arc<SourceRuntime>, fixed: Fixed) -> Self {
        LogTable { fixed: Some(fixed), ..LogTable::new(source) }
    }
}

impl fmt::Debug for LogTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogTable({})", self.source.name.read())
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let rows = match (&self.fixed, self.placed) {
            (Some(Fixed::Between(from, to)), _) if self.source.has_key() => {
                let first = self.log.range().await.map_err(seam)?.0;
                if from.get(0) < first.get(0) && from.get(0) < to.get(0) {
                    return Err(too_old(&self.source));
                }
                Some(self.source.current_rows_at(to).await.map_err(seam)?.batch(&self.source.schema()))
            }
            (Some(Fixed::Rows(rows)), _) => Some(Ok(rows.clone())),
            (Some(_), _) => None,
            (_, true) => self.source.placed_rows().map(|placed| place(&self.schema, placed?)),
            (_, false) => self.source.current_rows(),
        };
        if let Some(rows) = rows {
            let rows = rows?;
            // Nothing else compares them, and a projection goes by places.
            let found = rows.schema();
            let mut columns = self.schema.fields().iter().zip(found.fields());
            let is_same = self.schema.fields().len() == found.fields().len()
                && columns.all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
            if !is_same {
                return Err(altered(&self.source));
            }
            let exec = MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?;
            return Ok(exec);
        }
        // A scan reads what was there when it began.
        let (from, shown) = match &self.fixed {
            Some(Fixed::Between(from, to)) => (from.clone(), self.source.shown_at(to.get(0)).await.map_err(seam)?),
            Some(Fixed::Log(from, shown)) => (from.clone(), shown.clone()),
            Some(Fixed::Whole(from, shown)) => {
                let first = self.log.range().await.map_err(seam)?.0;
                if first.get(0) <= from.get(0) {
                    (from.clone(), shown.clone())
                } else if shown.is_over_below(first.get(0)) {
                    (first, shown.clone())
                } else {
                    return Err(too_old(&self.source));
                }
            }
            Some(Fixed::Rows(_)) | None => self.source.shown().await.map_err(seam)?,
        };
        let (log, schema) = (self.log.clone(), self.schema.clone());
        let stream = LogStream { log, schema, from, shown, placed: self.placed };
        let table = StreamingTable::try_new(self.schema(), vec![Arc::new(stream)])?;
        table.scan(state, projection, filters, limit).await
    }
}

/// The rows there are have not the columns that the query was planned for.
fn altered(source: &SourceRuntime) -> DataFusionError {
    let message = format!("the columns of \"{}\" were changed while the statement ran", source.name.read());
    tidemark_planner::PlanError::new("40001", message).hint("run it again").into()
}

/// Retention has come by since the moment that is to be read.
fn too_old(source: &SourceRuntime) -> DataFusionError {
    let message = format!("snapshot too old: rows of \"{}\" that were there have gone since", source.name.read());
    tidemark_planner::PlanError::new("72000", message).hint("run the transaction again").into()
}

/// Rows with their places before them.
fn place(schema: &SchemaRef, (rows, offsets): (RecordBatch, UInt64Array)) -> Result<RecordBatch, ArrowError> {
    let offsets: ArrayRef = Arc::new(offsets);
    RecordBatch::try_new(schema.clone(), [&[offsets], rows.columns()].concat())
}

struct LogStream {
    log: Arc<dyn Source>,
    schema: SchemaRef,
    from: Positions,
    shown: Plain,
    placed: bool,
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogStream({:?}..{})", self.from, self.shown.end)
    }
}

impl PartitionStream for LogStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (log, schema, placed) = (self.log.clone(), self.schema.clone(), self.placed);
        let begun = (self.from.clone(), self.shown.clone());
        let batches = futures::stream::try_unfold(begun, move |(from, shown)| {
            let (log, schema) = (log.clone(), schema.clone());
            async move {
                if from.get(0) >= shown.end {
                    return Ok(None);
                }
                let (records, next) = records_of(log.as_ref(), &from).await.map_err(seam)?;
                if next == from {
                    return Ok(None);
                }
                let each = records.into_iter().map(|batch| match (shown.rows(&batch)?, placed) {
                    (rows, true) => place(&schema, rows),
                    ((rows, _), false) => Ok(rows),
                });
                let rows = each.collect::<Result<Vec<RecordBatch>, ArrowError>>()?;
                let rows = rows.into_iter().filter(|rows| rows.num_rows() > 0).map(Ok::<_, DataFusionError>);
                Ok::<_, DataFusionError>(Some((futures::stream::iter(rows.collect::<Vec<_>>()), (next, shown))))
            }
        })
        .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// A row of a changelog, and whether it is a delete.
type Version = (Arc<[crate::value::Value]>, bool);

/// The versions of a changelog table: its columns with the time column at the effective time, `_op`, `_event_time`.
pub struct VersionsTable {
    source: Arc<SourceRuntime>,
    schema: SchemaRef,
}

impl VersionsTable {
    pub fn new(source: Arc<SourceRuntime>, schema: SchemaRef) -> Self {
        VersionsTable { source, schema }
    }

    /// The table.
    pub fn id(&self) -> ObjectId {
        self.source.id
    }

    pub fn name(&self) -> String {
        self.source.name.read().clone()
    }

    /// All versions; of several at one instant of one key, the last.
    async fn versions(&self) -> DfResult<RecordBatch> {
        // Of one layout throughout: the columns may be changed meanwhile.
        let log = self.source.log();
        let (mut from, _) = log.range().await.map_err(seam)?;
        let (primary_key, event_time) = {
            let relation = self.source.relation.read();
            (relation.primary_key.clone(), relation.event_time.unwrap_or(0))
        };
        // Behind the table's columns stand `_op` and `_event_time`.
        let n = self.schema.fields().len().saturating_sub(2);
        let mut latest: BTreeMap<(Vec<u8>, i64), Version> = BTreeMap::new();
        loop {
            let (batches, next) = records_of(log.as_ref(), &from).await.map_err(seam)?;
            if next == from {
                break;
            }
            from = next;
            for batch in batches {
                let is_altered = batch.rows.num_columns() != n || primary_key.iter().any(|i| *i >= n);
                if is_altered && batch.rows.num_rows() > 0 {
                    return Err(altered(&self.source));
                }
                let decision = batch.admission.unwrap_or_default();
                let columns =
                    batch.rows.columns().iter().map(crate::value::values_of).collect::<Result<Vec<_>, _>>()?;
                for (row, effective) in decision.effective_us.iter().enumerate() {
                    if decision.rejected.binary_search_by_key(&(row as u32), |r| r.row).is_ok() {
                        continue;
                    }
                    let values: Arc<[_]> = columns.iter().map(|c| c[row].clone()).collect();
                    let key: Vec<_> = primary_key.iter().map(|i| values[*i].clone()).collect();
                    let delete = decision.deletes.binary_search(&(row as u32)).is_ok();
                    latest.insert((crate::value::encode_row(&key), *effective), (values, delete));
                }
            }
        }
        let times: Vec<i64> = latest.keys().map(|(_, at)| *at).collect();
        let rows: Vec<_> = latest.into_values().collect();
        let mut columns = (0..n)
            .map(|i| match i == event_time {
                true => {
                    let field = self.schema.field(i);
                    cast(&Int64Array::from(times.clone()), field.data_type())
                }
                false => array_of(self.schema.field(i).data_type(), rows.iter().map(|(values, _)| &values[i])),
            })
            .collect::<Result<Vec<_>, _>>()?;
        columns.push(Arc::new(StringArray::from_iter_values(
            rows.iter().map(|(_, delete)| if *delete { "delete" } else { "upsert" }),
        )));
        columns.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone(UTC)));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl fmt::Debug for VersionsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionsTable({})", self.source.name.read())
    }
}

#[async_trait]
impl TableProvider for VersionsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let rows = self.versions().await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?)
    }
}
