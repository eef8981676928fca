//! The physical operator.
//!
//! Distribution: the left side comes as one partition and its order is the output's; the right side comes in as many
//! partitions as it likes, each read by a task of its own (DataFusion's, aborted with the stream), all competing for
//! the same slots. Which row wins does not depend on who came first, so neither does the result. There is no spill:
//! beyond the memory pool's limit the join fails with the pool's error.

use super::known::Known;
use super::labels::{Labels, NONE, times};
use super::winners::{Offer, Winners};
use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::common::runtime::JoinSet;
use datafusion::common::{exec_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use tidemark_planner::asof::{AsofKind, AsofOp, Tolerance};

type Expr = Arc<dyn PhysicalExpr>;

/// The join's condition over the columns of its two inputs; see `AsofNode` for the meaning.
#[derive(Debug, Clone)]
pub struct Condition {
    pub kind: AsofKind,
    pub op: AsofOp,
    pub left_keys: Vec<Expr>,
    pub right_keys: Vec<Expr>,
    pub left_time: Expr,
    pub right_time: Expr,
    pub ties: Vec<Expr>,
    pub tolerance: Option<Tolerance>,
    pub base: Option<Expr>,
    pub operation: Option<Expr>,
    /// The relation on the right, for people.
    pub right: String,
    /// `None`: the right side says nothing of any instant beyond its rows.
    pub known: Option<Known>,
}

/// What has become of the labels so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// The relation on the right.
    pub name: String,
    pub matched: usize,
    pub unmatched: usize,
    /// At or above the frontier, where [`super::Finality`] says that there is one.
    pub provisional: usize,
}

#[derive(Debug)]
pub struct AsofJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    condition: Arc<Condition>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsofJoinExec {
    pub fn try_new(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>, condition: Condition) -> Result<Self> {
        let schema = output_schema(&left.schema(), &right.schema(), condition.kind);
        // The left columns come first and their rows stay in order.
        let orderings = left.equivalence_properties().oeq_class().iter().cloned();
        let equivalences = EquivalenceProperties::new_with_orderings(schema, orderings);
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(AsofJoinExec {
            left,
            right,
            condition: Arc::new(condition),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl AsofJoinExec {
    /// Over all executions.
    pub fn matches(&self) -> Matches {
        let metrics = self.metrics.clone_inner();
        let count = |name: &str| metrics.sum_by_name(name).map_or(0, |value| value.as_usize());
        Matches {
            name: self.condition.right.clone(),
            matched: count("matched"),
            unmatched: count("unmatched"),
            provisional: count("provisional"),
        }
    }
}

fn output_schema(left: &Schema, right: &Schema, kind: AsofKind) -> SchemaRef {
    let nullable = |field: &Arc<Field>| match kind {
        AsofKind::Inner => field.clone(),
        AsofKind::Left => Arc::new(field.as_ref().clone().with_nullable(true)),
    };
    let fields: Fields = left.fields().iter().cloned().chain(right.fields().iter().map(nullable)).collect();
    let mut metadata = right.metadata().clone();
    metadata.extend(left.metadata().clone());
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

impl DisplayAs for AsofJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.condition;
        write!(f, "AsofJoinExec: {:?}", c.kind)?;
        for (left, right) in c.left_keys.iter().zip(&c.right_keys) {
            write!(f, ", {left} = {right}")?;
        }
        write!(f, ", {} {} {}", c.left_time, c.op, c.right_time)?;
        if let Some(tolerance) = c.tolerance {
            write!(f, ", within {}{}", if tolerance.strict { "<" } else { "<=" }, tolerance.span)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for AsofJoinExec {
    fn name(&self) -> &str {
        "AsofJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition, Distribution::UnspecifiedDistribution]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(right), Some(left)) => {
                Ok(Arc::new(AsofJoinExec::try_new(left, right, self.condition.as_ref().clone())?))
            }
            _ => internal_err!("an ASOF JOIN has two inputs"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let inputs = self.left.output_partitioning().partition_count();
        if partition != 0 || inputs != 1 {
            return internal_err!("an ASOF JOIN reads one left partition and writes one, found {inputs}");
        }
        let left = self.left.execute(0, context.clone())?;
        let partitions = self.right.output_partitioning().partition_count();
        let right = (0..partitions).map(|i| self.right.execute(i, context.clone())).collect::<Result<Vec<_>>>()?;
        let pool = context.memory_pool();
        let run = Run {
            condition: self.condition.clone(),
            schema: self.schema(),
            batch_size: context.session_config().batch_size().max(1),
            labels_memory: MemoryConsumer::new("AsofJoinExec labels").register(pool),
            winners_memory: MemoryConsumer::new("AsofJoinExec winners").register(pool),
            metrics: BaselineMetrics::new(&self.metrics, 0),
            counts: Counts::new(&self.metrics, &self.condition),
        };
        let stream = futures::stream::once(run.join(left, right)).try_flatten();
        let stream = RecordBatchStreamAdapter::new(self.schema(), stream.boxed());
        Ok(Box::pin(cooperative(stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One execution.
struct Run {
    condition: Arc<Condition>,
    schema: SchemaRef,
    batch_size: usize,
    labels_memory: MemoryReservation,
    winners_memory: MemoryReservation,
    metrics: BaselineMetrics,
    counts: Counts,
}

/// What [`Matches`] says, while it runs.
struct Counts {
    matched: Count,
    unmatched: Count,
    provisional: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet, condition: &Condition) -> Counts {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, 0);
        Counts {
            matched: count("matched"),
            unmatched: count("unmatched"),
            provisional: match condition.known.as_ref().and_then(|known| known.frontier_us) {
                Some(_) => count("provisional"),
                None => Count::new(),
            },
        }
    }
}

impl Run {
    /// Collects the labels, streams the right side past them, then gives the output batch by batch.
    async fn join(
        self,
        left: SendableRecordBatchStream,
        right: Vec<SendableRecordBatchStream>,
    ) -> Result<futures::stream::BoxStream<'static, Result<RecordBatch>>> {
        let Run { condition, schema, batch_size, labels_memory, winners_memory, metrics, counts } = self;
        let labels = Arc::new(collect(left, &condition, &labels_memory).await?);
        if let Some(known) = &condition.known {
            counts.provisional.add(known.check(&labels)?);
        }
        let right_schema = match right.first() {
            Some(stream) => stream.schema(),
            None => return internal_err!("the right side of an ASOF JOIN has no partition"),
        };
        let winners = Winners::try_new(
            condition.op,
            labels.slots(),
            right_schema,
            condition.ties.clone(),
            condition.tolerance.is_some(),
            winners_memory,
        )?;
        let winners = match labels.slots() {
            // No label can match: there is nothing to read for.
            0 => winners,
            _ => stream_past(right, &labels, &condition, winners).await?,
        };
        let sources = labels.spread(condition.op, |slot| winners.won(slot));
        let output = Output { condition, schema, batch_size, labels, winners, sources, counts, _memory: labels_memory };
        let cursor = Cursor { batch: 0, row: 0, before: 0 };
        let stream =
            futures::stream::try_unfold((output, cursor, metrics), |(output, mut cursor, metrics)| async move {
                let timer = metrics.elapsed_compute().timer();
                let next = output.next(&mut cursor)?;
                timer.done();
                Ok(next.map(|batch| {
                    metrics.output_rows().add(batch.num_rows());
                    (batch, (output, cursor, metrics))
                }))
            });
        Ok(stream.boxed())
    }
}

async fn collect(
    mut left: SendableRecordBatchStream,
    condition: &Condition,
    reservation: &MemoryReservation,
) -> Result<Labels> {
    let schema = left.schema();
    let mut batches = vec![];
    while let Some(batch) = left.try_next().await? {
        if batch.num_rows() > 0 {
            reservation.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
    }
    let types = condition.left_keys.iter().map(|key| key.data_type(&schema)).collect::<Result<_>>()?;
    Labels::build(batches, &condition.left_keys, &condition.left_time, types, reservation)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the readers live no longer than this call, and no answer depends on their order"
)]
async fn stream_past(
    right: Vec<SendableRecordBatchStream>,
    labels: &Arc<Labels>,
    condition: &Arc<Condition>,
    winners: Winners,
) -> Result<Winners> {
    let winners = Arc::new(Mutex::new(winners));
    let mut tasks = JoinSet::new();
    for stream in right {
        let (labels, condition, winners) = (labels.clone(), condition.clone(), winners.clone());
        tasks.spawn(async move { read(stream, &labels, &condition, &winners).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| exec_datafusion_err!("a reader of an ASOF JOIN failed: {error}"))??;
    }
    match Arc::try_unwrap(winners) {
        Ok(winners) => Ok(winners.into_inner()),
        Err(_) => internal_err!("a reader of an ASOF JOIN is still running"),
    }
}

/// Reads one right partition. The search for slots runs beside the other partitions', the competition one at a time.
async fn read(
    mut stream: SendableRecordBatchStream,
    labels: &Labels,
    condition: &Condition,
    winners: &Mutex<Winners>,
) -> Result<()> {
    while let Some(batch) = stream.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let candidates = labels.find(&condition.right_keys, &condition.right_time, condition.op, &batch)?;
        if candidates.rows.is_empty() {
            continue;
        }
        let bases = match (condition.tolerance, &condition.base) {
            (None, _) => None,
            (Some(_), Some(base)) => Some(times(base, &batch)?),
            (Some(_), None) => Some(candidates.times.clone()),
        };
        let deleted = condition.operation.as_ref().map(|operation| deletes(operation, &batch)).transpose()?;
        winners.lock().offer(Offer { batch: &batch, candidates, bases, deleted })?;
    }
    Ok(())
}

/// The rows whose operation is `delete`.
fn deletes(operation: &Expr, batch: &RecordBatch) -> Result<BooleanArray> {
    let array = operation.evaluate(batch)?.into_array(batch.num_rows())?;
    let array = cast(&array, &DataType::Utf8)?;
    Ok(array.as_string::<i32>().iter().map(|op| Some(op == Some("delete"))).collect())
}

struct Output {
    condition: Arc<Condition>,
    schema: SchemaRef,
    batch_size: usize,
    labels: Arc<Labels>,
    winners: Winners,
    /// See [`Labels::spread`].
    sources: Vec<u32>,
    counts: Counts,
    _memory: MemoryReservation,
}

/// The next left row: batch, row in it, rows before the batch.
struct Cursor {
    batch: usize,
    row: usize,
    before: usize,
}

impl Output {
    fn next(&self, cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
        while let Some(left) = self.labels.batches.get(cursor.batch) {
            let rows = (left.num_rows() - cursor.row).min(self.batch_size);
            if rows == 0 {
                *cursor = Cursor { batch: cursor.batch + 1, row: 0, before: cursor.before + left.num_rows() };
                continue;
            }
            let from = cursor.before + cursor.row;
            let matched: Vec<u32> = self.labels.row_slots[from..from + rows].iter().map(|&s| self.matched(s)).collect();
            let left = left.slice(cursor.row, rows);
            cursor.row += rows;
            let unmatched = matched.iter().filter(|slot| **slot == NONE).count();
            self.counts.unmatched.add(unmatched);
            self.counts.matched.add(rows - unmatched);
            let batch = self.batch(left, matched)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// The slot whose winner matches the labels of `slot`.
    fn matched(&self, slot: u32) -> u32 {
        if slot == NONE {
            return NONE;
        }
        let source = self.sources[slot as usize];
        let time = self.labels.times[slot as usize];
        if source != NONE && self.winners.matches(source, time, self.condition.tolerance) { source } else { NONE }
    }

    fn batch(&self, left: RecordBatch, mut matched: Vec<u32>) -> Result<RecordBatch> {
        let mut left = left;
        if self.condition.kind == AsofKind::Inner && matched.contains(&NONE) {
            let kept = matched.iter().enumerate().filter(|(_, m)| **m != NONE).map(|(i, _)| i as u32);
            left = take_record_batch(&left, &UInt32Array::from_iter_values(kept))?;
            matched.retain(|&m| m != NONE);
        }
        let mut columns = left.columns().to_vec();
        columns.extend(self.winners.gather(&matched)?);
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(matched.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
