//! Sources whose log is the archive of a topic: how far each partition has been taken, and what is taken next.
//!
//! Records, their admission and the offsets they came from are one append to the source's log, so "taken" and "kept" cannot
//! differ. A checkpoint keeps the partitions beside the positions, and a start reads on from there in the log.

use super::{Conflict, DeadLetter, Engine, IngestError, IngestReport, Seams, SourceRuntime, source::Inner};
use crate::{
    admission::Partitions,
    seam::{Keyspace, Origin, SeamError, SeamResult, Undecoded, WriteBatch},
};
use arrow::record_batch::RecordBatch;
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;

/// The partitions of a source's topic as a checkpoint keeps them.
pub(super) struct Origins(Partitions);

/// In [`Keyspace::Progress`]; it begins with the object's id, so it goes with the object.
fn key(id: ObjectId) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], b"/partitions"].concat()
}

impl Origins {
    pub(super) fn of(inner: &Inner) -> Origins {
        Origins(inner.admission.partitions.clone())
    }

    pub(super) fn read(seams: &Seams, id: ObjectId) -> SeamResult<Partitions> {
        let bytes = super::restore::read(seams, &key(id))?;
        let read = bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(SeamError::not_done));
        Ok(read.transpose()?.unwrap_or_default())
    }

    /// To what a checkpoint writes; nothing without a topic.
    pub(super) fn put(&self, id: ObjectId, batch: &mut WriteBatch) -> SeamResult<()> {
        if !self.0.is_empty() {
            let bytes = postcard::to_stdvec(&self.0).map_err(SeamError::not_done)?;
            batch.puts.push((Keyspace::Progress, key(id), bytes));
        }
        Ok(())
    }
}

impl SourceRuntime {
    /// Whether a topic feeds it, and not statements.
    pub(super) fn is_archive(&self) -> bool {
        self.relation.read().topic().is_some()
    }

    pub(super) fn undecoded(&self, message: &Undecoded) -> DeadLetter {
        DeadLetter {
            source: self.id,
            view: None,
            partition: message.partition,
            offset: message.offset,
            append_us: message.append_us,
            reason: crate::seam::RejectReason::Decode,
            error: message.error.clone(),
            payload: message.payload.clone(),
        }
    }
}

impl Engine {
    /// For each partition of the source's topic the offset of the next record to take; empty before the first. All of them are
    /// waited for until they are said to be level.
    pub async fn begin_taking(&self, id: ObjectId) -> BTreeMap<u32, u64> {
        let Some(source) = self.source(id) else { return BTreeMap::new() };
        let mut inner = source.lock().await;
        inner.admission.partitions.begin();
        inner.admission.partitions.next()
    }

    /// Appends what was taken from the topic together with where it was taken from, admits it and applies it. When this
    /// returns, it is as durable as the log's fsync setting says, and visible. Without rows it says where partitions begin.
    /// `deletes`: these rows, ascending, have only a primary key, and end the row of that key.
    pub async fn take(
        &self,
        id: ObjectId,
        rows: RecordBatch,
        deletes: Vec<u32>,
        origin: Origin,
    ) -> Result<IngestReport, IngestError> {
        let source = self
            .source(id)
            .ok_or_else(|| IngestError::Seam(SeamError::NotDone("the source was dropped meanwhile".to_string())))?;
        let begun_us = self.seams.clock.now_us();
        self.make_way(&source).await?;
        let _beside_others = source.writers.read().await;
        source.ingest(vec![rows], Some((origin, deletes)), begun_us, Conflict::Error, false, &self.seams).await
    }

    /// What has been found of a topic's partitions: `behind` have more than has been taken, or may have, and hold the
    /// frontier back; `level` have nothing more, and hold it back for the idle timeout.
    pub async fn looked(&self, id: ObjectId, behind: &[u32], level: &[u32]) {
        if let Some(source) = self.source(id) {
            let mut inner = source.lock().await;
            inner.admission.partitions.wait_for(behind);
            inner.admission.partitions.level(level, self.seams.clock.now_us());
        }
    }
}
