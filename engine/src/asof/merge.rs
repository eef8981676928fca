//! Batches whose last column says the place of each row, put back in order.

use super::files::Batches;
use super::memory::{Claim, Memory};
use arrow::array::{AsArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::sync::Arc;

/// The place of every row of a batch: its last column.
pub fn places(batch: &RecordBatch) -> Result<&UInt64Array> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<UInt64Type>());
    last.ok_or_else(|| internal_datafusion_err!("a spilled batch of an ASOF JOIN has no places"))
}

/// One sorted input.
struct Head {
    batches: Batches,
    /// Which of the merge's batches it is in, and the next row there; `None` at its end.
    at: Option<(usize, usize)>,
    place: u64,
}

/// Sorted inputs as one; no place is in two.
pub struct Merge {
    heads: Vec<Head>,
    /// Those that the heads are in, and those that rows have been taken from.
    batches: Vec<RecordBatch>,
    rows: usize,
    claim: Claim,
    is_started: bool,
}

impl Merge {
    /// `rows` in a batch, at most.
    pub fn new(inputs: Vec<Batches>, rows: usize, memory: &Memory) -> Merge {
        let heads = inputs.into_iter().map(|batches| Head { batches, at: None, place: 0 }).collect();
        // One batch of each input is all that it holds for long; without that it cannot go on.
        Merge { heads, batches: vec![], rows, claim: memory.insisting().claim(), is_started: false }
    }

    /// Without the places; `schema` is what is left.
    pub fn stream(self, schema: SchemaRef) -> SendableRecordBatchStream {
        let narrowed = schema.clone();
        let batches = stream::try_unfold(self, move |mut merge| {
            let schema = narrowed.clone();
            async move {
                let Some(batch) = merge.next()? else { return Ok(None) };
                let columns = batch.columns()[..schema.fields().len()].to_vec();
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                Ok(Some((RecordBatch::try_new_with_options(schema, columns, &options)?, merge)))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed()))
    }

    /// The next rows in order; `None` at the end.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        if !std::mem::replace(&mut self.is_started, true) {
            for head in 0..self.heads.len() {
                self.advance(head)?;
            }
        }
        let mut taken = vec![];
        while taken.len() < self.rows {
            let waiting = self.heads.iter().enumerate().filter(|(_, head)| head.at.is_some());
            let Some((least, _)) = waiting.min_by_key(|(_, head)| head.place) else { break };
            taken.extend(self.heads[least].at);
            self.advance(least)?;
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
    fn advance(&mut self, head: usize) -> Result<()> {
        if let Some((batch, row)) = self.heads[head].at
            && row + 1 < self.batches[batch].num_rows()
        {
            self.heads[head].at = Some((batch, row + 1));
            self.heads[head].place = places(&self.batches[batch])?.value(row + 1);
            return Ok(());
        }
        self.heads[head].at = None;
        while let Some(batch) = self.heads[head].batches.next()? {
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
    let place = Arc::new(Field::new("_place", DataType::UInt64, false));
    let fields = schema.fields().iter().cloned().chain([place]);
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
