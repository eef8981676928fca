//! The columns of a source or table and its log with those, and how `ALTER … COLUMN` changes them while it is at work.

use super::{IngestError, SourceRuntime};
use crate::{
    layout::{laid_out, moved},
    seam::{Positions, SeamError, SeamResult, Source, SourceBatch},
};
use arrow::{
    datatypes::{Field, SchemaRef},
    record_batch::RecordBatch,
};
use std::sync::Arc;
use tidemark_catalog::Relation;

/// Rows that a query reads from a log at a time. Fewer than a view's replay: many queries do so at once, and rows may be wide.
const SCAN_ROWS: usize = 8192;

impl SourceRuntime {
    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        self.shape.read().0.clone()
    }

    /// Its log, with its columns as they are now.
    pub fn log(&self) -> Arc<dyn Source> {
        self.shape.read().1.clone()
    }

    /// Both, of one moment.
    pub fn shape(&self) -> (SchemaRef, Arc<dyn Source>) {
        self.shape.read().clone()
    }

    /// Its columns have changed (`ALTER … COLUMN`). The caller has it alone. Views that read it go on with the columns that they
    /// know, which are the first ones.
    pub(super) async fn lay_out(&self, relation: Relation) -> SeamResult<()> {
        let mut inner = self.lock().await;
        let log = laid_out(&self.kept, &relation)?;
        let moved = moved(&self.relation.read(), &relation).map_err(SeamError::not_done)?;
        self.kept.widen(relation.stored_schema()).await?;
        // Who reads the current rows has them with the columns that go with them.
        let mut table = self.table.as_ref().map(|table| table.write());
        if let Some(table) = &mut table {
            table.rearrange(&relation.primary_key, &moved);
        }
        *self.shape.write() = (relation.schema(), log);
        inner.admission.rearrange(&relation);
        *self.relation.write() = relation;
        Ok(())
    }

    /// Rows that were made for other columns than there are now are refused.
    pub(super) fn check_columns(&self, batches: &[RecordBatch]) -> Result<(), IngestError> {
        let schema = self.schema();
        let is_same = |rows: &RecordBatch| {
            let rows = rows.schema();
            let same = |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && a.data_type() == b.data_type();
            rows.fields().len() == schema.fields().len() && rows.fields().iter().zip(schema.fields()).all(same)
        };
        match batches.iter().all(is_same) {
            true => Ok(()),
            false => Err(IngestError::Altered(self.name.read().clone())),
        }
    }

    /// What the log has from a position on, at most about [`SCAN_ROWS`], and where that ends.
    pub async fn records(&self, from: &Positions) -> SeamResult<(Vec<SourceBatch>, Positions)> {
        records_of(self.log().as_ref(), from).await
    }
}

/// The same of a log that the caller has.
pub(crate) async fn records_of(log: &dyn Source, from: &Positions) -> SeamResult<(Vec<SourceBatch>, Positions)> {
    let mut next = from.clone();
    let batches = log.poll(from, SCAN_ROWS).await?;
    for batch in &batches {
        next.set(batch.partition, batch.end_offset());
    }
    Ok((batches, next))
}
