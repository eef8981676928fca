//! `COPY t FROM STDIN`, and how rows of a COPY go in, also those of a file.
//!
//! Into a table all rows go in together. Into a source they go in by chunks as they arrive: it is a stream, lookups move
//! while it is loaded, and memory stays bounded; an error then says how many rows are already in. So does what goes
//! into a topic, also that of a table. One chunk goes in while the next is decoded.

use super::insert::{column_map, fit, rejected, target};
use crate::{
    database::Database,
    pg::{Copied, CopyInSink, CopyLayout, Hold, Outcome, PgError},
    progress::{Doing, Running},
    session::Session,
    wire::{CopyDecoder, SessionZone, types::declared_schema},
};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectKind, QualifiedName, Relation};
use tidemark_engine::{
    progress::Phase,
    runtime::{Conflict, IngestReport},
};
use tidemark_planner::statement::{CopyFormat, CopyOptions};
use tokio::sync::oneshot;

/// Rows decoded into one batch.
pub const BATCH_ROWS: usize = 8192;
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
    let schema = declared_schema(object.columns());
    let decoder = CopyDecoder::new(&table.name, options, schema, &map, session.format.time_zone, BATCH_ROWS)?;
    let layout = CopyLayout { binary: options.format == CopyFormat::Binary, columns: map.len() as i16 };
    let sink = Sink { decoder, intake: Intake::new(database, session, object, map, "PIPE") };
    Ok(Outcome::CopyIn { sink: Box::new(sink), layout })
}

/// Rows on their way into a source or table, wherever they come from.
pub struct Intake {
    database: Arc<Database>,
    object: Arc<Object>,
    /// The columns that it gives, as places among the table's.
    given: Vec<usize>,
    zone: SessionZone,
    streams: bool,
    is_topic: bool,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    report: IngestReport,
    /// What will come of the chunk that is going in.
    under_way: Option<oneshot::Receiver<Result<IngestReport, PgError>>>,
    hold: Hold,
    running: Running,
}

impl Intake {
    /// `given`: the columns that come, as places among the relation's; `copies`: as [`Doing::copies`].
    pub fn new(
        database: &Arc<Database>,
        session: &Session,
        object: Arc<Object>,
        given: Vec<usize>,
        copies: &'static str,
    ) -> Intake {
        let doing = Doing::new("COPY FROM", &object.shown_name(), Some("rows"));
        let doing = Doing { copies: Some(copies), table: Some(object.id), ..doing };
        let running = database.begin(session, doing);
        running.count_rows(Phase::Reading, database.clock.now_us());
        let is_topic = object.relation().and_then(Relation::topic).is_some();
        Intake {
            database: database.clone(),
            given,
            zone: session.format.time_zone,
            streams: object.kind() == ObjectKind::Source || is_topic,
            is_topic,
            object,
            waiting: vec![],
            waiting_rows: 0,
            report: IngestReport::default(),
            under_way: None,
            hold: session.hold.clone(),
            running,
        }
    }

    /// What a decoder gives has all columns of the relation.
    pub async fn decoded<E: Into<PgError>>(
        &mut self,
        decoded: Result<Vec<RecordBatch>, E>,
    ) -> Result<Vec<RecordBatch>, PgError> {
        match decoded {
            Ok(batches) => Ok(batches.iter().map(|batch| batch.project(&self.given)).collect::<Result<Vec<_>, _>>()?),
            Err(error) => Err(self.so_far(error.into()).await),
        }
    }

    /// Rows of the columns that are given, in their order. Of a source they go in when enough have come.
    pub async fn take(&mut self, batches: Vec<RecordBatch>) -> Result<(), PgError> {
        let kept = self.keep(batches);
        let taken = match kept {
            Ok(()) if self.streams && self.waiting_rows >= CHUNK_ROWS => self.ingest_beside().await,
            kept => kept,
        };
        match taken {
            Ok(()) => Ok(()),
            Err(error) => Err(self.so_far(error).await),
        }
    }

    fn keep(&mut self, batches: Vec<RecordBatch>) -> Result<(), PgError> {
        for batch in batches {
            self.waiting_rows += batch.num_rows();
            self.running.add(batch.num_rows());
            self.waiting.push(fit(&self.object, &self.given, &batch, &self.zone)?);
        }
        Ok(())
    }

    /// What waits goes in beside the decoding of what comes next, when the chunk before it is in.
    async fn ingest_beside(&mut self) -> Result<(), PgError> {
        self.settle().await?;
        if self.is_topic {
            return self.ingest().await;
        }
        let engine = self.database.owner()?.engine.clone();
        let turn = engine.turn(self.object.id).await?;
        let held = self.hold.hold();
        let batches = std::mem::take(&mut self.waiting);
        self.waiting_rows = 0;
        let (told, under_way) = oneshot::channel();
        self.under_way = Some(under_way);
        let ingest = async move {
            let report = engine.ingest_in(turn, batches, Conflict::Error, false).await;
            // Nobody may be there any more.
            let _ = told.send(report.map_err(PgError::from));
            drop(held);
        };
        self.database.clock.spawn("copy", Box::pin(ingest));
        Ok(())
    }

    /// The chunk that is going in is in.
    async fn settle(&mut self) -> Result<(), PgError> {
        let Some(under_way) = &mut self.under_way else { return Ok(()) };
        let told = under_way.await;
        self.under_way = None;
        let lost =
            |_| PgError::error("XX000", "nobody knows what became of the rows").hint("the server's log says why");
        self.report.add(told.map_err(lost)??);
        Ok(())
    }

    async fn ingest(&mut self) -> Result<(), PgError> {
        self.settle().await?;
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

    /// An error after some chunks are in says so. Where one before it fails meanwhile, that is the error.
    pub async fn so_far(&mut self, error: PgError) -> PgError {
        let error = self.settle().await.err().unwrap_or(error);
        match self.report.rows {
            0 => error,
            rows => error.detail(format!("{rows} rows before it are in \"{}\" already", self.object.name)),
        }
    }

    /// All have come.
    pub async fn finish(mut self) -> Result<Copied, PgError> {
        if let Err(error) = self.ingest().await {
            return Err(self.so_far(error).await);
        }
        // Once, when all is in: a file of a million late rows is one notice.
        let notice = rejected(&self.object, &self.report).map(PgError::notice);
        Ok(Copied { tag: format!("COPY {}", self.report.rows), notice })
    }
}

struct Sink {
    decoder: CopyDecoder,
    intake: Intake,
}

#[async_trait]
impl CopyInSink for Sink {
    async fn data(&mut self, data: Bytes) -> Result<(), PgError> {
        let batches = self.decoder.feed(&data);
        let given = self.intake.decoded(batches).await?;
        self.intake.take(given).await
    }

    async fn finish(mut self: Box<Self>) -> Result<Copied, PgError> {
        let batches = self.decoder.finish();
        let given = self.intake.decoded(batches).await?;
        self.intake.take(given).await?;
        self.intake.finish().await
    }

    async fn fail(self: Box<Self>, reason: &str) {
        tracing::debug!(table = %self.intake.object.name, reason, "COPY given up");
    }
}
