//! A join that does not fit in memory: both sides go to disk by the hash of their key, and are joined part by part.
//!
//! ```text
//! labels, with their places ──▶ 16 files ┐ same hash
//! right side, once ───────────▶ 16 files ┘  part by part: labels as state ──▶ 16 files in order ──▶ merged by place
//! ```
//!
//! What the readers had held when memory was full goes first; what had lost by then need not. Rows of the right side whose
//! key no label has are dropped on the way. A part that does not fit is dealt again by other bits of the hash; below
//! [`DEPTH_MAX`], or where it is of one key, its labels are joined chunk by chunk, each with the whole right side of the part.
//! All files are the session's temporary ones, and gone with the stream.

use super::files::{Batches, Files, Spilled};
use super::labels::{Encoded, Index, Keys, Rows, hasher};
use super::memory::{Claim, Memory};
use super::merge::{Merge, places, with_places};
use super::output::{Output, Won};
use super::prune;
use super::run::{Join, Run};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::exec_datafusion_err;
use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::{EmptyRecordBatchStream, SpillManager};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::yield_now;

/// Files that a side is dealt to at once: as many are open, and merged, at a time.
const PARTS: usize = 16;
const PART_BITS: usize = PARTS.ilog2() as usize;
/// How often a part is dealt again: 16⁴ parts are enough for labels of 65,536 times the memory.
const DEPTH_MAX: usize = 4;
/// So many labels are joined at once however little memory there is: with none the join could not end.
const CHUNK_ROWS: usize = 1024;
/// Rows in a batch of a part's output; the merge holds one batch of each part.
const MERGED_ROWS: usize = 1024;
/// Marks of the keys that labels have, by the high bits of their hash; 128 kB tell most other keys from up to 100,000.
const MARK_BITS: usize = 20;

/// Labels: those in memory, then those that are still to come.
pub struct LabelSource {
    pub rows: Rows,
    pub rest: Option<SendableRecordBatchStream>,
}

/// A right side that has been opened: what was read and may still win, then the rest.
pub struct RightSource {
    pub batches: Vec<RecordBatch>,
    pub claim: Claim,
    pub streams: Vec<SendableRecordBatchStream>,
}

/// Both sides of the keys of one part.
struct Part {
    labels: Option<Spilled>,
    right: Option<Spilled>,
    /// Dealing it again would not make it smaller.
    is_whole: bool,
}

/// What the labels had in them, seen as they went to disk.
struct Seen {
    keys: Vec<u64>,
    range: Option<(i64, i64)>,
    tally: Option<super::known::Tally>,
    count: u64,
}

impl Seen {
    fn add(&mut self, hash: u64, time: i64) {
        let (word, bit) = mark(hash);
        self.keys[word] |= bit;
        let (first, last) = self.range.unwrap_or((time, time));
        self.range = Some((first.min(time), last.max(time)));
        if let Some(tally) = &mut self.tally {
            tally.add(time);
        }
    }

    fn has(&self, hash: u64) -> bool {
        let (word, bit) = mark(hash);
        self.keys[word] & bit != 0
    }
}

fn mark(hash: u64) -> (usize, u64) {
    let at = (hash >> (64 - MARK_BITS)) as usize;
    (at / 64, 1 << (at % 64))
}

fn part_of(hash: u64, depth: usize) -> usize {
    (hash >> (depth * PART_BITS)) as usize % PARTS
}

/// The join of all labels with one right side, in the order of the labels. `right`: opened already, and the labels
/// checked; else it is opened when they are on disk.
pub async fn join(
    run: Arc<Run>,
    labels: LabelSource,
    join: Arc<Join>,
    right: Option<RightSource>,
) -> Result<SendableRecordBatchStream> {
    let spill = Arc::new(Spill::try_new(run, join)?);
    let join = &spill.join;
    let unchecked = join.condition.known.as_ref().filter(|_| right.is_none());
    let mut seen = Seen {
        keys: vec![0; (1 << MARK_BITS) / 64],
        range: None,
        tally: unchecked.map(|known| known.tally()),
        count: 0,
    };
    let labels = spill.deal_labels(labels, &mut seen).await?;
    if let (Some(known), Some(tally)) = (unchecked, &seen.tally) {
        join.counts.provisional.add(known.check(tally)?);
    }
    spill.run.labels.set_max(seen.count as usize);
    let right = match right {
        Some(right) => right,
        None => {
            if let Some(filter) = &join.filter {
                filter.update(prune::filter_times(seen.range, &join.condition, &join.plan.schema())?)?;
            }
            let (batches, claim) = (vec![], spill.run.memory.claim());
            // No label that can match: there is nothing to read for.
            let streams = if seen.range.is_some() { join.open(&spill.run)? } else { vec![] };
            RightSource { batches, claim, streams }
        }
    };
    let right = spill.deal_right(right, Arc::new(seen)).await?;
    let mut done = vec![];
    for part in parts(labels, right) {
        done.extend(spill.solve(part, 1).await?);
    }
    let inputs = done.into_iter().map(Spilled::into_batches).collect::<Result<_>>()?;
    Ok(Merge::new(inputs, spill.run.batch_size, &spill.run.memory).stream(join.schema.clone()))
}

fn parts(labels: Vec<Option<Spilled>>, right: Vec<Option<Spilled>>) -> Vec<Part> {
    let is_whole = labels.iter().flatten().count() == 1;
    labels.into_iter().zip(right).map(|(labels, right)| Part { labels, right, is_whole }).collect()
}

/// Whether labels could be joined with the memory that there is.
enum Tried {
    Done,
    /// Nothing was written.
    Full(Rows),
}

struct Spill {
    run: Arc<Run>,
    join: Arc<Join>,
    keys: Keys,
    /// Left rows and their places.
    labels: SpillManager,
    right: SpillManager,
    /// Joined rows and the places of the left ones.
    output: SpillManager,
}

impl Spill {
    fn try_new(run: Arc<Run>, join: Arc<Join>) -> Result<Spill> {
        let compression = run.context.session_config().spill_compression();
        let manager = |schema: SchemaRef| {
            let manager = SpillManager::new(run.context.runtime_env(), run.spills.clone(), schema);
            manager.with_compression_type(compression)
        };
        let (labels, right) = (manager(with_places(&join.left)), manager(join.plan.schema()));
        let output = manager(with_places(&join.schema));
        let keys = Keys::try_new(join.condition.left.key_types(&join.left)?)?;
        Ok(Spill { run, join, keys, labels, right, output })
    }

    fn hash(&self, key: &[u8]) -> u64 {
        hasher().hash_one(key)
    }

    fn encode_labels(&self, batch: &RecordBatch) -> Result<Encoded> {
        let left = &self.join.condition.left;
        self.keys.encode(&left.keys, &left.time, batch)
    }

    /// To which part each label goes; those that match nothing go anywhere, evenly.
    fn parts_of_labels(&self, batch: &RecordBatch, depth: usize, mut seen: Option<&mut Seen>) -> Result<Vec<Vec<u32>>> {
        let encoded = self.encode_labels(batch)?;
        let places = places(batch)?;
        let mut parts = vec![vec![]; PARTS];
        for row in 0..batch.num_rows() {
            let hash = match encoded.get(row) {
                Some((key, time)) => {
                    let hash = self.hash(key);
                    if let Some(seen) = &mut seen {
                        seen.add(hash, time);
                    }
                    hash
                }
                None => places.value(row),
            };
            parts[part_of(hash, depth)].push(row as u32);
        }
        Ok(parts)
    }

    /// To which part each right row goes, if any label may have its key.
    fn parts_of_right(&self, batch: &RecordBatch, depth: usize, seen: Option<&Seen>) -> Result<Vec<Vec<u32>>> {
        let c = &self.join.condition;
        let encoded = self.keys.encode(&c.right_keys, &c.right_time, batch)?;
        let mut parts = vec![vec![]; PARTS];
        for row in 0..batch.num_rows() {
            let Some((key, _)) = encoded.get(row) else { continue };
            let hash = self.hash(key);
            if seen.is_none_or(|seen| seen.has(hash)) {
                parts[part_of(hash, depth)].push(row as u32);
            }
        }
        Ok(parts)
    }

    async fn deal_labels(&self, labels: LabelSource, seen: &mut Seen) -> Result<Vec<Option<Spilled>>> {
        let mut files = Files::new(&self.labels, PARTS);
        let LabelSource { rows: Rows { batches, claim }, rest } = labels;
        let rest = rest.unwrap_or_else(|| Box::pin(EmptyRecordBatchStream::new(self.join.left.clone())));
        let mut all = stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>)).chain(rest);
        while let Some(batch) = all.try_next().await? {
            let first = seen.count;
            seen.count += batch.num_rows() as u64;
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(UInt64Array::from_iter_values(first..seen.count)) as ArrayRef);
            let batch = RecordBatch::try_new(self.labels.schema().clone(), columns)?;
            let parts = self.parts_of_labels(&batch, 0, Some(seen))?;
            files.deal(&batch, parts)?;
            yield_now().await;
        }
        drop(claim);
        files.finish()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the readers live no longer than this call, and no answer depends on their order"
    )]
    async fn deal_right(self: &Arc<Self>, right: RightSource, seen: Arc<Seen>) -> Result<Vec<Option<Spilled>>> {
        let files = Arc::new(Mutex::new(Files::new(&self.right, PARTS)));
        let RightSource { batches, claim, streams } = right;
        for batch in batches {
            let parts = self.parts_of_right(&batch, 0, Some(&seen))?;
            files.lock().deal(&batch, parts)?;
            yield_now().await;
        }
        drop(claim);
        let mut tasks = JoinSet::new();
        for mut stream in streams {
            let (spill, seen, files) = (self.clone(), seen.clone(), files.clone());
            tasks.spawn(async move {
                while let Some(batch) = stream.try_next().await? {
                    spill.join.counts.right_rows.add(batch.num_rows());
                    let parts = spill.parts_of_right(&batch, 0, Some(&seen))?;
                    files.lock().deal(&batch, parts)?;
                    yield_now().await;
                }
                Result::<()>::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|error| exec_datafusion_err!("a reader of an ASOF JOIN failed: {error}"))??;
        }
        match Arc::into_inner(files) {
            Some(files) => files.into_inner().finish(),
            None => Err(exec_datafusion_err!("a reader of an ASOF JOIN is still running")),
        }
    }

    /// The part's output in order; `None`: it has none.
    fn solve(&self, part: Part, depth: usize) -> BoxFuture<'_, Result<Option<Spilled>>> {
        async move {
            let Some(labels) = &part.labels else { return Ok(None) };
            let mut output = Files::new(&self.output, 1);
            if self.try_at_once(labels, part.right.as_ref(), &mut output).await? {
                return output.finish_one();
            }
            let has_keys = !self.join.condition.left.keys.is_empty();
            if part.is_whole || labels.rows <= CHUNK_ROWS || depth >= DEPTH_MAX || !has_keys {
                self.in_chunks(labels, part.right.as_ref(), &mut output).await?;
                return output.finish_one();
            }
            let mut files = Files::new(&self.labels, PARTS);
            let mut batches = labels.read()?;
            while let Some(batch) = batches.next()? {
                files.deal(&batch, self.parts_of_labels(&batch, depth, None)?)?;
                yield_now().await;
            }
            let labels = files.finish()?;
            let mut files = Files::new(&self.right, PARTS);
            if let Some(right) = &part.right {
                let mut batches = right.read()?;
                while let Some(batch) = batches.next()? {
                    files.deal(&batch, self.parts_of_right(&batch, depth, None)?)?;
                    yield_now().await;
                }
            }
            let right = files.finish()?;
            drop((batches, part));
            let mut done = vec![];
            for part in parts(labels, right) {
                done.extend(self.solve(part, depth + 1).await?);
            }
            let inputs = done.into_iter().map(Spilled::into_batches).collect::<Result<_>>()?;
            let mut sorted = Merge::new(inputs, MERGED_ROWS, &self.run.memory);
            while let Some(batch) = sorted.next()? {
                output.append(0, &batch)?;
                yield_now().await;
            }
            output.finish_one()
        }
        .boxed()
    }

    /// With all labels of a part in memory. Whether there was enough of it; nothing is written otherwise.
    async fn try_at_once(&self, labels: &Spilled, right: Option<&Spilled>, output: &mut Files) -> Result<bool> {
        let mut rows = Rows::new(&self.run.memory);
        let mut batches = labels.read()?;
        while let Some(batch) = batches.next()? {
            if let Err((error, _)) = rows.push(batch) {
                self.run.may_spill(error)?;
                return Ok(false);
            }
        }
        Ok(matches!(self.try_join(rows, right, &self.run.memory, output).await?, Tried::Done))
    }

    async fn try_join(
        &self,
        rows: Rows,
        right: Option<&Spilled>,
        memory: &Memory,
        output: &mut Files,
    ) -> Result<Tried> {
        let made = self.join.index(&rows, memory).and_then(|index| Ok((self.join.winners(&index, memory)?, index)));
        let (mut winners, index): (_, Index) = match made {
            Ok(made) => made,
            Err(error) => return self.run.may_spill(error).map(|()| Tried::Full(rows)),
        };
        if let Some(right) = right.filter(|_| index.slots() > 0) {
            let mut batches = right.read()?;
            while let Some(batch) = batches.next()? {
                if let Some(offer) = self.join.offer(&index, &batch)?
                    && let Err(error) = winners.offer(offer)
                {
                    return self.run.may_spill(error).map(|()| Tried::Full(rows));
                }
                yield_now().await;
            }
        }
        let won = vec![Won::new(self.join.clone(), Arc::new(index), winners)];
        let width = self.join.left.fields().len();
        let schema = self.output.schema().clone();
        let rows_max = self.run.batch_size.min(MERGED_ROWS);
        let mut joined = Output::new(&self.run, schema, rows, won, width, rows_max);
        while let Some(batch) = joined.next()? {
            output.append(0, &batch)?;
            yield_now().await;
        }
        Ok(Tried::Done)
    }

    /// As many labels at a time as there is memory for, in order.
    async fn in_chunks(&self, labels: &Spilled, right: Option<&Spilled>, output: &mut Files) -> Result<()> {
        let memory = &self.run.memory;
        let mut batches = labels.read()?;
        let mut waiting: VecDeque<RecordBatch> = VecDeque::new();
        while let Some(mut rows) = self.chunk(&mut batches, &mut waiting)? {
            loop {
                let is_least = rows.count() <= CHUNK_ROWS;
                let memory = if is_least { memory.insisting() } else { memory.clone() };
                let Tried::Full(Rows { batches: all, claim }) = self.try_join(rows, right, &memory, output).await?
                else {
                    break;
                };
                // Half of them; in the end a few that are joined whatever the pool says.
                drop(claim);
                let (half, later) = halves(all);
                later.into_iter().rev().for_each(|batch| waiting.push_front(batch));
                rows = Rows::insisted(half, &self.run.memory)?;
            }
        }
        Ok(())
    }

    /// The next labels, one batch at least; `None` at the end.
    fn chunk(&self, batches: &mut Batches, waiting: &mut VecDeque<RecordBatch>) -> Result<Option<Rows>> {
        let mut rows = Rows::new(&self.run.memory);
        loop {
            let next = match waiting.pop_front() {
                Some(batch) => Some(batch),
                None => batches.next()?,
            };
            let Some(batch) = next else { break };
            if let Err((error, batch)) = rows.push(batch) {
                self.run.may_spill(error)?;
                if rows.batches.is_empty() {
                    return Ok(Some(Rows::insisted(vec![batch], &self.run.memory)?));
                }
                waiting.push_front(batch);
                break;
            }
        }
        Ok(Some(rows).filter(|rows| !rows.batches.is_empty()))
    }
}

/// The first half of the rows, but [`CHUNK_ROWS`] at least, and the others.
fn halves(batches: Vec<RecordBatch>) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut wanted = (count / 2).max(CHUNK_ROWS);
    let (mut first, mut later) = (vec![], vec![]);
    for batch in batches {
        let here = batch.num_rows().min(wanted);
        wanted -= here;
        if here > 0 {
            first.push(batch.slice(0, here));
        }
        if here < batch.num_rows() {
            later.push(batch.slice(here, batch.num_rows() - here));
        }
    }
    (first, later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn halves_keep_every_row_and_its_order() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::UInt64, false)]));
        let batch = |from: u64, to: u64| {
            RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt64Array::from_iter_values(from..to))]).unwrap()
        };
        let rows = |batches: &[RecordBatch]| -> Vec<u64> {
            batches.iter().flat_map(|batch| places(batch).unwrap().values().to_vec()).collect()
        };
        for (cuts, in_first) in [
            (vec![(0, 1500), (1500, 4000)], 2000),
            (vec![(0, 1200)], CHUNK_ROWS),
            (vec![(0, 10), (10, 1100)], CHUNK_ROWS),
        ] {
            let (first, later) = halves(cuts.iter().map(|(from, to)| batch(*from, *to)).collect());
            let (first, later) = (rows(&first), rows(&later));
            assert_eq!(first.len(), in_first);
            let all: Vec<u64> = first.into_iter().chain(later).collect();
            assert_eq!(all, (0..cuts[cuts.len() - 1].1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_depth_deals_by_bits_of_its_own() {
        let hash = 0x0123_4567_89ab_cdef_u64;
        assert_eq!((0..=DEPTH_MAX).map(|depth| part_of(hash, depth)).collect::<Vec<_>>(), [15, 14, 13, 12, 11]);
        const { assert!(DEPTH_MAX * PART_BITS + PART_BITS <= 64 - MARK_BITS) };
    }
}
