//! The left rows with their matches, batch by batch.

use super::labels::{Index, NONE, Rows};
use super::run::{Join, Run};
use super::winners::Winners;
use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::sync::Arc;
use tidemark_planner::asof::AsofKind;

/// A join whose winners are known.
pub struct Won {
    join: Arc<Join>,
    index: Arc<Index>,
    winners: Winners,
    /// See [`Index::spread`].
    sources: Vec<u32>,
}

impl Won {
    pub fn new(join: Arc<Join>, index: Arc<Index>, winners: Winners) -> Won {
        let sources = index.spread(join.condition.op, |slot| winners.won(slot));
        Won { join, index, winners, sources }
    }

    /// The columns with all of them, and how many there are before.
    pub fn schema(won: &[Won]) -> (SchemaRef, usize) {
        let width = won.first().map_or(0, |won| won.join.left.fields().len());
        (won.last().map_or_else(|| Arc::new(Schema::empty()), |won| won.join.schema.clone()), width)
    }

    /// The slot whose winner matches the left row at that place.
    fn matched(&self, row: usize) -> u32 {
        let slot = self.index.row_slots[row];
        if slot == NONE {
            return NONE;
        }
        let source = self.sources[slot as usize];
        let time = self.index.times[slot as usize];
        let tolerance = self.join.condition.tolerance;
        if source != NONE && self.winners.matches(source, time, tolerance) { source } else { NONE }
    }
}

pub struct Output {
    schema: SchemaRef,
    rows: Rows,
    won: Vec<Won>,
    /// Columns of the left side that come before those of the right sides; others come after.
    width: usize,
    batch_size: usize,
    compute: Time,
    /// The next left row: batch, row in it, rows before the batch.
    batch: usize,
    row: usize,
    before: usize,
}

impl Output {
    pub fn new(run: &Run, schema: SchemaRef, rows: Rows, won: Vec<Won>, width: usize, batch_size: usize) -> Output {
        let compute = run.compute.clone();
        Output { schema, rows, won, width, batch_size, compute, batch: 0, row: 0, before: 0 }
    }

    pub fn stream(self) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let batches = stream::try_unfold(self, |mut output| async move {
            let next = output.next()?;
            Ok(next.map(|batch| (batch, output)))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed()))
    }

    /// At most `batch_size` rows; `None` at the end.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        let compute = self.compute.clone();
        let _timer = compute.timer();
        while let Some(left) = self.rows.batches.get(self.batch) {
            let rows = (left.num_rows() - self.row).min(self.batch_size);
            if rows == 0 {
                self.before += left.num_rows();
                (self.batch, self.row) = (self.batch + 1, 0);
                continue;
            }
            let left = left.slice(self.row, rows);
            let from = self.before + self.row;
            self.row += rows;
            let batch = self.joined(left, from)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn joined(&self, mut left: RecordBatch, from: usize) -> Result<RecordBatch> {
        let rows = left.num_rows();
        let mut matched: Vec<Vec<u32>> =
            self.won.iter().map(|won| (from..from + rows).map(|row| won.matched(row)).collect()).collect();
        let mut dropped = vec![false; rows];
        for (won, matched) in self.won.iter().zip(&matched) {
            let unmatched = matched.iter().filter(|slot| **slot == NONE).count();
            won.join.counts.unmatched.add(unmatched);
            won.join.counts.matched.add(rows - unmatched);
            if won.join.condition.kind == AsofKind::Inner && unmatched > 0 {
                dropped.iter_mut().zip(matched).for_each(|(dropped, slot)| *dropped |= *slot == NONE);
            }
        }
        if dropped.contains(&true) {
            let kept: Vec<u32> = (0..rows as u32).filter(|row| !dropped[*row as usize]).collect();
            for matched in &mut matched {
                *matched = kept.iter().map(|row| matched[*row as usize]).collect();
            }
            left = take_record_batch(&left, &UInt32Array::from(kept))?;
        }
        let (first, last) = left.columns().split_at(self.width);
        let mut columns = first.to_vec();
        for (won, matched) in self.won.iter().zip(&matched) {
            let values = won.winners.gather(matched)?;
            won.join.counts.values(&values);
            columns.extend(values);
        }
        columns.extend(last.iter().cloned());
        let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
