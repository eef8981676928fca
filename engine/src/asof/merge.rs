//! Batches whose last column says the place of each row, put back in order.

use super::memory::{Claim, Memory};
use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// The place of every row of a batch: its last column.
pub fn places(batch: &RecordBatch) -> Result<&UInt64Array> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<UInt64Type>());
    last.ok_or_else(|| internal_datafusion_err!("a spilled batch of an ASOF JOIN has no places"))
}

/// One sorted input.
struct Head {
    stream: SendableRecordBatchStream,
    /// Which of the merge's batches it is in, and the next row there; `None` at its end.
    at: Option<(usize, usize)>,
    place: u64,
}

struct Merge {
    heads: Vec<Head>,
    /// Those that the heads are in, and those that rows have been taken from.
    batches: Vec<RecordBatch>,
    rows: usize,
    claim: Claim,
    is_started: bool,
}

/// `schema`: of the inputs. `rows` in a batch, at most. Every input is in order, and no place is in two.
pub fn merged(
    inputs: Vec<SendableRecordBatchStream>,
    schema: SchemaRef,
    rows: usize,
    memory: &Memory,
) -> SendableRecordBatchStream {
    let heads = inputs.into_iter().map(|stream| Head { stream, at: None, place: 0 }).collect();
    // One batch of each input is all that it holds for long; without that it cannot go on.
    let merge = Merge { heads, batches: vec![], rows, claim: memory.insisting().claim(), is_started: false };
    let batches = stream::try_unfold(merge, |mut merge| async move {
        let next = merge.next().await?;
        Ok(next.map(|batch| (batch, merge)))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed()))
}

/// Without the last column; `schema` is what is left.
pub fn without_places(stream: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    let width = schema.fields().len();
    let narrowed = schema.clone();
    let batches = stream.map(move |batch| {
        let batch = batch?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns()[..width].to_vec();
        Ok(RecordBatch::try_new_with_options(narrowed.clone(), columns, &options)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed()))
}

impl Merge {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if !std::mem::replace(&mut self.is_started, true) {
            for head in 0..self.heads.len() {
                self.advance(head).await?;
            }
        }
        let mut taken = vec![];
        while taken.len() < self.rows {
            let waiting = self.heads.iter().enumerate().filter(|(_, head)| head.at.is_some());
            let Some((least, _)) = waiting.min_by_key(|(_, head)| head.place) else { break };
            taken.extend(self.heads[least].at);
            self.advance(least).await?;
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let batch = interleave_record_batch(&batches, &taken)?;
        self.let_go()?;
        Ok(Some(batch))
    }

    /// To the next row of an input.
    async fn advance(&mut self, head: usize) -> Result<()> {
        if let Some((batch, row)) = self.heads[head].at
            && row + 1 < self.batches[batch].num_rows()
        {
            self.heads[head].at = Some((batch, row + 1));
            self.heads[head].place = places(&self.batches[batch])?.value(row + 1);
            return Ok(());
        }
        self.heads[head].at = None;
        while let Some(batch) = self.heads[head].stream.try_next().await? {
            if batch.num_rows() > 0 {
                self.claim.try_grow(batch.get_array_memory_size())?;
                self.heads[head].place = places(&batch)?.value(0);
                self.heads[head].at = Some((self.batches.len(), 0));
                self.batches.push(batch);
                break;
            }
        }
        Ok(())
    }

    /// Keeps only the batches that heads are in.
    fn let_go(&mut self) -> Result<()> {
        let mut kept = vec![];
        for head in &mut self.heads {
            if let Some((batch, row)) = head.at {
                head.at = Some((kept.len(), row));
                kept.push(self.batches[batch].clone());
            }
        }
        self.batches = kept;
        self.claim.try_resize(self.batches.iter().map(RecordBatch::get_array_memory_size).sum())
    }
}

/// A schema with places after its columns.
pub fn with_places(schema: &SchemaRef) -> SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    let place = Arc::new(Field::new("_place", DataType::UInt64, false));
    let fields = schema.fields().iter().cloned().chain([place]);
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
