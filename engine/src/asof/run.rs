//! One execution: collects the labels, streams every right side past them, gives the output.
//!
//! Each partition of a right side is read by a task of its own (DataFusion's, aborted with the stream), all competing for
//! the same slots. Which row wins does not depend on who came first, so neither does the result. Where the pool has no
//! more memory the join goes on from disk (`spill.rs`), with what it has read so far.

use super::exec::Condition;
use super::labels::{Index, Rows, times};
use super::memory::{Memory, is_full};
use super::output::{Output, Won};
use super::spill::{self, LabelSource, RightSource};
use super::winners::{Offer, Winners};
use super::{counts::Counts, late, prune};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::runtime::JoinSet;
use datafusion::common::{exec_datafusion_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::metrics::{Gauge, SpillMetrics, Time};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};
use futures::TryStreamExt;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all joins of one execution share.
pub struct Run {
    pub context: Arc<TaskContext>,
    pub memory: Memory,
    pub batch_size: usize,
    pub labels: Gauge,
    /// Labels and their index, bytes.
    pub labels_memory: Gauge,
    pub spills: SpillMetrics,
    pub compute: Time,
}

impl Run {
    /// Whether an error says only that memory is full, and there is disk to go on with. Errors: that error, otherwise.
    pub fn may_spill(&self, error: DataFusionError) -> Result<()> {
        let has_disk = self.context.runtime_env().disk_manager.tmp_files_enabled();
        if has_disk && is_full(&error) { Ok(()) } else { Err(error) }
    }
}

/// One right side and how it is joined.
pub struct Join {
    pub plan: Arc<dyn ExecutionPlan>,
    pub condition: Arc<Condition>,
    pub filter: Option<Arc<DynamicFilterPhysicalExpr>>,
    /// See `late.rs`.
    pub is_late: bool,
    pub counts: Counts,
    /// The columns before it, and with it.
    pub left: SchemaRef,
    pub schema: SchemaRef,
}

impl Join {
    /// Opens all partitions. The filter must have been told.
    pub fn open(&self, run: &Run) -> Result<Vec<SendableRecordBatchStream>> {
        let partitions = self.plan.output_partitioning().partition_count();
        (0..partitions).map(|i| self.plan.execute(i, run.context.clone())).collect()
    }

    pub fn index(&self, rows: &Rows, memory: &Memory) -> Result<Index> {
        Index::build(rows, &self.condition.left, self.condition.left.key_types(&self.left)?, memory)
    }

    pub fn winners(&self, index: &Index, memory: &Memory) -> Result<Winners> {
        let c = &self.condition;
        Winners::try_new(c.op, index.slots(), self.plan.schema(), c.ties.clone(), c.tolerance.is_some(), memory.claim())
    }

    /// What a batch of the right side brings; `None`: nothing that a label can use.
    pub fn offer<'a>(&self, index: &Index, batch: &'a RecordBatch) -> Result<Option<Offer<'a>>> {
        let c = &self.condition;
        let candidates = index.find(&c.right_keys, &c.right_time, c.op, batch)?;
        if candidates.rows.is_empty() {
            return Ok(None);
        }
        let bases = match (c.tolerance, &c.base) {
            (None, _) => None,
            (Some(_), Some(base)) => Some(times(base, batch)?),
            (Some(_), None) => Some(candidates.times.clone()),
        };
        let deleted = c.operation.as_ref().map(|operation| deletes(operation, batch)).transpose()?;
        Ok(Some(Offer { batch, candidates, bases, deleted }))
    }
}

/// The rows whose operation is `delete`.
fn deletes(operation: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray> {
    let array = operation.evaluate(batch)?.into_array(batch.num_rows())?;
    let array = cast(&array, &DataType::Utf8)?;
    Ok(array.as_string::<i32>().iter().map(|op| Some(op == Some("delete"))).collect())
}

/// All joins, in the order of the left rows.
pub async fn join(
    run: Arc<Run>,
    mut left: SendableRecordBatchStream,
    mut joins: VecDeque<Arc<Join>>,
) -> Result<SendableRecordBatchStream> {
    'collect: loop {
        let (rows, indexes) = match collect(&run, left, &joins).await? {
            Collected::All(rows, indexes) => (rows, indexes),
            Collected::Full(labels) => {
                let Some(join) = joins.pop_front() else { return internal_err!("an ASOF JOIN without a right side") };
                left = spill::join(run.clone(), labels, join, None).await?;
                if joins.is_empty() {
                    return Ok(left);
                }
                continue;
            }
        };
        let mut won: Vec<Won> = vec![];
        for (at, index) in indexes.iter().enumerate() {
            let join = joins[at].clone();
            if let Some(known) = &join.condition.known {
                join.counts.provisional.add(known.check(&known.tally_of(index))?);
            }
            match stream_past(&run, &rows, index, &join).await? {
                Past::All(winners) => won.push(Won::new(join, index.clone(), winners)),
                Past::Full(right) => {
                    let later = joins.split_off(at + 1);
                    let labels = match won.is_empty() {
                        true => LabelSource { rows, rest: None },
                        false => LabelSource { rows: Rows::new(&run.memory), rest: Some(output(&run, rows, won)) },
                    };
                    drop(indexes);
                    left = spill::join(run.clone(), labels, join, Some(right)).await?;
                    if later.is_empty() {
                        return Ok(left);
                    }
                    joins = later;
                    continue 'collect;
                }
            }
        }
        return match won.is_empty() {
            true => internal_err!("an ASOF JOIN without a right side"),
            false => Ok(output(&run, rows, won)),
        };
    }
}

fn output(run: &Run, rows: Rows, won: Vec<Won>) -> SendableRecordBatchStream {
    let (schema, width) = Won::schema(&won);
    Output::new(run, schema, rows, won, width, run.batch_size).stream()
}

enum Collected {
    /// With an index for each join, shared by those of one left side.
    All(Rows, Vec<Arc<Index>>),
    Full(LabelSource),
}

async fn collect(run: &Run, mut left: SendableRecordBatchStream, joins: &VecDeque<Arc<Join>>) -> Result<Collected> {
    let mut rows = Rows::new(&run.memory);
    while let Some(batch) = left.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        if let Err((error, batch)) = rows.push(batch) {
            run.may_spill(error)?;
            rows.batches.push(batch);
            return Ok(Collected::Full(LabelSource { rows, rest: Some(left) }));
        }
    }
    let mut indexes: Vec<Arc<Index>> = vec![];
    for (at, join) in joins.iter().enumerate() {
        let like = joins.iter().take(at).position(|other| other.condition.left.is_same(&join.condition.left));
        let index = match like {
            Some(like) => Ok(indexes[like].clone()),
            None => join.index(&rows, &run.memory).map(Arc::new),
        };
        match index {
            Ok(index) => indexes.push(index),
            Err(error) => {
                run.may_spill(error)?;
                return Ok(Collected::Full(LabelSource { rows, rest: None }));
            }
        }
    }
    run.labels.set_max(rows.count());
    run.labels_memory.set_max(run.memory.held());
    Ok(Collected::All(rows, indexes))
}

enum Past {
    All(Winners),
    /// There was no memory for all winners.
    Full(RightSource),
}

/// What the readers of a right side compete for.
struct Contest {
    winners: Mutex<Winners>,
    /// Once there is no more memory; the winners may then only be taken apart.
    is_full: AtomicBool,
}

/// A reader that has stopped: its partition, and the batch that was not taken.
type Stopped = Option<(SendableRecordBatchStream, Option<RecordBatch>)>;

#[allow(
    clippy::disallowed_methods,
    reason = "the readers live no longer than this call, and no answer depends on their order"
)]
async fn stream_past(run: &Arc<Run>, rows: &Rows, index: &Arc<Index>, join: &Arc<Join>) -> Result<Past> {
    if let Some(filter) = &join.filter {
        let prunes = prune::filter(rows, index, &join.condition, &join.plan.schema())?;
        filter.update(if join.is_late { late::exact(prunes, index, &join.condition) } else { prunes })?;
    }
    let winners = match join.winners(index, &run.memory) {
        Ok(winners) => winners,
        Err(error) => {
            run.may_spill(error)?;
            let (batches, claim) = (vec![], run.memory.claim());
            return Ok(Past::Full(RightSource { batches, claim, streams: join.open(run)? }));
        }
    };
    if index.slots() == 0 {
        // No label can match: there is nothing to read for.
        return Ok(Past::All(winners));
    }
    let contest = Arc::new(Contest { winners: Mutex::new(winners), is_full: AtomicBool::new(false) });
    let mut tasks = JoinSet::new();
    for stream in join.open(run)? {
        let (run, index, join, contest) = (run.clone(), index.clone(), join.clone(), contest.clone());
        tasks.spawn(async move { read(stream, &run, &index, &join, &contest).await });
    }
    let (mut streams, mut untaken) = (vec![], vec![]);
    while let Some(done) = tasks.join_next().await {
        let stopped = done.map_err(|error| exec_datafusion_err!("a reader of an ASOF JOIN failed: {error}"))??;
        if let Some((stream, batch)) = stopped {
            streams.push(stream);
            untaken.extend(batch);
        }
    }
    let Some(contest) = Arc::into_inner(contest) else {
        return internal_err!("a reader of an ASOF JOIN is still running");
    };
    let winners = contest.winners.into_inner();
    if !contest.is_full.into_inner() {
        return Ok(Past::All(winners));
    }
    let (mut batches, claim) = winners.into_batches();
    batches.extend(untaken);
    Ok(Past::Full(RightSource { batches, claim, streams }))
}

/// Reads one right partition. The search for slots runs beside the other partitions', the competition one at a time.
async fn read(
    mut stream: SendableRecordBatchStream,
    run: &Run,
    index: &Index,
    join: &Join,
    contest: &Contest,
) -> Result<Stopped> {
    loop {
        if contest.is_full.load(Ordering::Acquire) {
            return Ok(Some((stream, None)));
        }
        let Some(batch) = stream.try_next().await? else { return Ok(None) };
        join.counts.right_rows.add(batch.num_rows());
        let Some(offer) = join.offer(index, &batch)? else { continue };
        let offered = {
            let mut winners = contest.winners.lock();
            if contest.is_full.load(Ordering::Acquire) {
                drop(offer);
                Ok(false)
            } else {
                winners.offer(offer).map(|()| true).or_else(|error| {
                    contest.is_full.store(true, Ordering::Release);
                    run.may_spill(error).map(|()| false)
                })
            }
        };
        if !offered? {
            return Ok(Some((stream, Some(batch))));
        }
    }
}
