//! Scans of sources and tables: their log, streamed; or the current rows of a table with a primary key.

use super::seam;
use crate::{runtime::SourceRuntime, seam::Positions, value::array_of};
use arrow::{
    array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    compute::cast,
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, streaming::StreamingTable},
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
    /// `None`: what is there when a scan begins.
    range: Option<(Positions, Positions)>,
}

impl LogTable {
    pub fn new(source: Arc<SourceRuntime>) -> Self {
        LogTable { source, range: None }
    }

    /// The rows as they were when the log had these offsets.
    pub fn between(source: Arc<SourceRuntime>, from: u64, to: u64) -> Self {
        let at = |offset| Positions([(0, offset)].into());
        LogTable { source, range: Some((at(from), at(to))) }
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
        self.source.schema.clone()
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
        if let Some(rows) = self.source.current_rows() {
            let rows = match &self.range {
                Some((_, to)) => self.source.current_rows_at(to).await.map_err(seam)?.batch(&self.source.schema)?,
                None => rows?,
            };
            let exec = MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?;
            return Ok(exec);
        }
        // A scan reads what was there when it began.
        let (from, to) = match &self.range {
            Some(range) => range.clone(),
            None => self.source.log.range().await.map_err(seam)?,
        };
        let stream = LogStream { source: self.source.clone(), from, to };
        let table = StreamingTable::try_new(self.schema(), vec![Arc::new(stream)])?;
        table.scan(state, projection, filters, limit).await
    }
}

struct LogStream {
    source: Arc<SourceRuntime>,
    from: Positions,
    to: Positions,
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogStream({:?}..{:?})", self.from, self.to)
    }
}

impl PartitionStream for LogStream {
    fn schema(&self) -> &SchemaRef {
        &self.source.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (source, to) = (self.source.clone(), self.to.get(0));
        let schema = source.schema.clone();
        let batches = futures::stream::try_unfold(self.from.clone(), move |from| {
            let source = source.clone();
            async move {
                if from.get(0) >= to {
                    return Ok(None);
                }
                let (mut rows, next) = source.admitted_rows(&from).await.map_err(seam)?;
                if next == from {
                    return Ok(None);
                }
                // Rows appended after the scan began are not part of it. A batch is admitted as a whole, so an
                // overshoot can only be whole batches at the end; offsets beyond `to` are rare enough to re-read.
                if next.get(0) > to {
                    rows = within(&source, &from, to).await?;
                }
                Ok::<_, datafusion::error::DataFusionError>(Some((
                    futures::stream::iter(rows.into_iter().map(Ok::<_, datafusion::error::DataFusionError>)),
                    next,
                )))
            }
        })
        .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

/// The admitted rows of the batches from `from` that begin before `to`.
async fn within(source: &SourceRuntime, from: &Positions, to: u64) -> DfResult<Vec<RecordBatch>> {
    let (batches, _) = source.versions(from).await.map_err(seam)?;
    let mut rows = vec![];
    for batch in batches {
        if batch.base_offset >= to {
            break;
        }
        let rejected = batch.admission.map(|a| a.rejected).unwrap_or_default();
        let mut keep = vec![true; batch.rows.num_rows()];
        rejected.iter().for_each(|r| keep[r.row as usize] = false);
        rows.push(arrow::compute::filter_record_batch(&batch.rows, &keep.into())?);
    }
    Ok(rows)
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
        let (mut from, _) = self.source.log.range().await.map_err(seam)?;
        let (primary_key, event_time) = {
            let relation = self.source.relation.read();
            (relation.primary_key.clone(), relation.event_time.unwrap_or(0))
        };
        let mut latest: BTreeMap<(Vec<u8>, i64), Version> = BTreeMap::new();
        loop {
            let (batches, next) = self.source.versions(&from).await.map_err(seam)?;
            if next == from {
                break;
            }
            from = next;
            for batch in batches {
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
        let n = self.source.schema.fields().len();
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
