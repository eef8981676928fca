//! `COPY t FROM STDIN`.
//!
//! Into a table all rows go in together. Into a source they go in by chunks as they arrive: it is a stream, lookups move
//! while it is loaded, and memory stays bounded; an error then says how many rows are already in. So does what goes
//! into a topic, also that of a table.

use super::insert::{column_map, fit, rejected, target};
use crate::{
    database::Database,
    pg::{Copied, CopyInSink, CopyLayout, Hold, Outcome, PgError},
    session::Session,
    wire::{CopyDecoder, SessionZone},
};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectKind, QualifiedName, Relation};
use tidemark_engine::runtime::{Conflict, IngestReport};
use tidemark_planner::statement::{CopyFormat, CopyOptions};

/// Rows decoded into one batch.
const BATCH_ROWS: usize = 8192;
/// Rows of a source appended together: a smaller COPY is atomic, and one sync of the log serves this many.
const CHUNK_ROWS: usize = 65_536;

pub fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    table: &QualifiedName,
    columns: &[String],
    options: &CopyOptions,
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let object = target(&snapshot, table)?.clone();
    let map = column_map(&object, columns)?;
    let decoder = CopyDecoder::new(&table.name, options, object.schema(), &map, session.format.time_zone, BATCH_ROWS)?;
    let is_topic = object.relation().and_then(Relation::topic).is_some();
    let layout = CopyLayout { binary: options.format == CopyFormat::Binary, columns: map.len() as i16 };
    let sink = Sink {
        database: database.clone(),
        given: map,
        zone: session.format.time_zone,
        streams: object.kind() == ObjectKind::Source || is_topic,
        is_topic,
        object,
        decoder,
        waiting: vec![],
        waiting_rows: 0,
        report: IngestReport::default(),
        hold: session.hold.clone(),
    };
    Ok(Outcome::CopyIn { sink: Box::new(sink), layout })
}

struct Sink {
    database: Arc<Database>,
    object: Arc<Object>,
    /// The columns that it gives, as places among the table's.
    given: Vec<usize>,
    zone: SessionZone,
    streams: bool,
    is_topic: bool,
    decoder: CopyDecoder,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    report: IngestReport,
    hold: Hold,
}

impl Sink {
    fn take(&mut self, batches: Vec<RecordBatch>) -> Result<(), PgError> {
        for batch in batches {
            self.waiting_rows += batch.num_rows();
            let given = batch.project(&self.given)?;
            self.waiting.push(fit(&self.object, &self.given, &given, &self.zone)?);
        }
        Ok(())
    }

    async fn ingest(&mut self) -> Result<(), PgError> {
        let batches = std::mem::take(&mut self.waiting);
        self.waiting_rows = 0;
        if self.is_topic {
            let produced = self.database.owner()?.feeds.produce(&self.object, batches).await;
            let rows = *produced.as_ref().unwrap_or_else(|unsent| &unsent.acknowledged);
            self.report.add(IngestReport { rows, ..IngestReport::default() });
            return produced.map(|_| ()).map_err(|unsent| unsent.error);
        }
        // As in INSERT.
        let engine = &self.database.owner()?.engine;
        let turn = engine.turn(self.object.id).await?;
        let _held = self.hold.hold();
        let report = engine.ingest_in(turn, batches, Conflict::Error, false).await?;
        self.report.add(report);
        Ok(())
    }

    /// An error after some chunks are in says so.
    fn so_far(&self, error: PgError) -> PgError {
        match self.report.rows {
            0 => error,
            rows => error.detail(format!("{rows} rows before it are in \"{}\" already", self.object.name)),
        }
    }
}

#[async_trait]
impl CopyInSink for Sink {
    async fn data(&mut self, data: Bytes) -> Result<(), PgError> {
        let batches = self.decoder.feed(&data).map_err(|e| self.so_far(e.into()))?;
        self.take(batches).map_err(|e| self.so_far(e))?;
        if self.streams && self.waiting_rows >= CHUNK_ROWS {
            self.ingest().await.map_err(|e| self.so_far(e))?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Copied, PgError> {
        let batches = self.decoder.finish().map_err(|e| self.so_far(e.into()))?;
        self.take(batches).map_err(|e| self.so_far(e))?;
        self.ingest().await.map_err(|e| self.so_far(e))?;
        // Once, when all is in: a file of a million late rows is one notice.
        let notice = rejected(&self.object, &self.report).map(PgError::notice);
        Ok(Copied { tag: format!("COPY {}", self.report.rows), notice })
    }

    async fn fail(self: Box<Self>, reason: &str) {
        tracing::debug!(table = %self.object.name, reason, "COPY given up");
    }
}
