//! One source or table at work: append, admit, apply.

use super::{
    DeadLetter, Seams, ViewRuntime,
    archive::Archive,
    event_clock,
    extent::Extent,
    letters::{keep, payload},
    meters::{SourceMeters, came},
    plain::{self, Plain},
    reading::REPLAY_ROWS,
    report::{Conflict, IngestError, IngestReport},
    topic::Origins,
};
use crate::{
    admission::{Admission, event_times},
    compiled::BatchRows,
    current::{CurrentRows, Replaced},
    layout::laid_out,
    seam::{
        AdmittedBatch, Origin, Positions, Reject, RejectReason, Removal, SeamError, SeamResult, Source, SourceBatch,
    },
};
use arrow::{array::BooleanArray, compute::filter_record_batch, datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::error::Result as DfResult;
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use tidemark_catalog::{Object, ObjectId, Relation};
use tidemark_planner::feature::Branch;

/// An idle source's frontier is recorded every idle timeout when no view waits for it, but not more often than the least of
/// these, and not more seldom than the greatest; microseconds. A record is a frame in the log, of some 100 bytes.
const IDLE_RECORDS_US: (i64, i64) = (1_000_000, 60_000_000);

pub struct SourceRuntime {
    pub id: ObjectId,
    pub name: RwLock<String>,
    pub relation: RwLock<Relation>,
    /// Its columns, and its log with those.
    pub(super) shape: RwLock<(SchemaRef, Arc<dyn Source>)>,
    /// The log as it is kept.
    pub(super) kept: Arc<dyn Source>,
    /// When it was created, by the server's clock.
    pub(super) created_us: i64,
    pub(super) archive: Archive,
    inner: tokio::sync::Mutex<Inner>,
    /// Copies of the admission's clocks, for readers that do not wait.
    frontier_us: AtomicI64,
    max_event_us: AtomicI64,
    extent: RwLock<Extent>,
    pub counters: SourceCounters,
    pub meters: SourceMeters,
    /// The last failure to make something durable, for people; `None` once it has worked again.
    pub last_error: RwLock<Option<String>>,
    /// The current rows of a table with a primary key.
    pub(super) table: Option<RwLock<CurrentRows>>,
    /// What is removed from the log of a table that has neither key nor watermark.
    pub(super) plain: Option<RwLock<Plain>>,
    /// Held by many that append, or by one that reads first and changes what it has read.
    pub(super) writers: Arc<tokio::sync::RwLock<()>>,
}

/// What one append has of one batch.
pub(super) struct Incoming {
    pub rows: RecordBatch,
    /// Taken from a topic.
    pub origin: Option<Origin>,
    /// These rows, ascending, are deletes.
    pub deletes: Vec<u32>,
    pub removal: Removal,
}

/// What the caller wants besides.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// A row that is not admitted is an error, and nothing happens.
    pub all_or_nothing: bool,
    /// The report has the rows that count.
    pub shows: bool,
}

fn admitted(rows: &RecordBatch, decision: &AdmittedBatch) -> DfResult<RecordBatch> {
    let mut keep = vec![true; rows.num_rows()];
    decision.rejected.iter().for_each(|reject| keep[reject.row as usize] = false);
    Ok(filter_record_batch(rows, &BooleanArray::from(keep))?)
}

impl Incoming {
    pub fn rows(rows: RecordBatch) -> Incoming {
        Incoming { rows, origin: None, deletes: vec![], removal: Removal::default() }
    }
}

/// What `tidemark.pipelines` shows of a source.
#[derive(Debug, Default)]
pub struct SourceCounters {
    pub rows: AtomicU64,
    pub rejected: AtomicU64,
}

pub struct Inner {
    pub(super) admission: Admission,
    pub views: Vec<Arc<ViewRuntime>>,
    pub end: Positions,
    last_append_us: i64,
    last_idle_us: i64,
    /// Dead letters that the state store has not taken yet. Their records are in the log, and positions are not saved
    /// beyond them, so a crash makes them again.
    pub(super) waiting: Vec<DeadLetter>,
}

/// While this many dead letters wait for the state store, no further statement is taken in: in memory are at most these and
/// those of one more.
const WAITING_MAX: usize = 65_536;

impl SourceRuntime {
    /// Opens the log and takes over its clocks; `progress` is where the last checkpoint stood (what is before it need
    /// not be read again, unless the current rows of a table are to be rebuilt).
    pub async fn open(
        object: &Object,
        seams: &Seams,
        progress: Option<&super::restore::SourceProgress>,
    ) -> SeamResult<Self> {
        let relation = object
            .relation()
            .ok_or_else(|| SeamError::NotDone(format!("\"{}\" is no source or table", object.name)))?
            .clone();
        let kept = seams.logs.open(object.id, relation.stored_schema())?;
        let log = laid_out(&kept, &relation)?;
        let (start, end) = log.range().await?;
        let primary_key = &relation.primary_key;
        let table = (!primary_key.is_empty()).then(|| RwLock::new(CurrentRows::new(primary_key)));
        let plain = plain::of(object);
        if let Some(plain) = &plain {
            *plain.write() = Plain::read(seams, object.id, end.get(0))?;
        }
        let known = Extent::read(seams, object.id)?;
        let mut admission = Admission::new(&relation);
        admission.first_event_us = known.and_then(|extent| extent.first_us);
        let mut from = start.clone();
        let counters = SourceCounters::default();
        if let Some(progress) = progress
            && table.is_none()
        {
            admission.frontier_us = progress.frontier_us;
            admission.max_event_us = progress.max_event_us;
            admission.partitions = Origins::read(seams, object.id)?;
            counters.rows.store(progress.rows, Ordering::Relaxed);
            counters.rejected.store(progress.rejected, Ordering::Relaxed);
            from = progress.positions.clone();
        }
        let source = SourceRuntime {
            id: object.id,
            name: RwLock::new(object.shown_name()),
            shape: RwLock::new((relation.schema(), log)),
            kept,
            relation: RwLock::new(relation),
            created_us: object.created_us,
            archive: Archive::of(object),
            frontier_us: AtomicI64::new(i64::MIN),
            max_event_us: AtomicI64::new(i64::MIN),
            extent: RwLock::new(known.unwrap_or_default()),
            counters,
            meters: SourceMeters::default(),
            last_error: RwLock::default(),
            table,
            plain,
            writers: Arc::default(),
            inner: tokio::sync::Mutex::new(Inner {
                admission,
                views: vec![],
                end: end.clone(),
                last_append_us: seams.clock.now_us(),
                last_idle_us: i64::MIN,
                waiting: vec![],
            }),
        };
        let checkpointed = progress.map_or(0, |progress| progress.positions.get(0));
        let mut letters = vec![];
        let mut inner = source.lock().await;
        let counted = from.get(0);
        // A directory from before extents were kept: its log tells the first event.
        if known.is_none() {
            from = start;
        }
        loop {
            let batches = source.log().poll(&from, REPLAY_ROWS).await?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                from.set(batch.partition, batch.end_offset());
                let decision = batch.admission.clone().unwrap_or_default();
                inner.admission.replay(&batch.rows, &decision).map_err(SeamError::not_done)?;
                if batch.base_offset < counted {
                    continue;
                }
                source.count(&batch, &decision);
                source.remember_rows(&batch, &decision, false)?;
                if let Some(plain) = &source.plain {
                    plain.write().take(&batch);
                }
                // A crash may have come between a row and its letter.
                if batch.base_offset >= checkpointed {
                    letters.extend(source.rejected(&batch, &decision));
                }
            }
            tokio::task::yield_now().await;
        }
        keep(seams.state.as_ref(), &letters).await?;
        source.publish(&inner.admission);
        drop(inner);
        Ok(source)
    }

    /// The definition's settings have changed (`ALTER … SET`).
    pub async fn reconfigure(&self, relation: Relation) {
        self.lock().await.admission.set_limits(&relation);
        *self.relation.write() = relation;
    }

    /// Sources know their views and views their source: one of them has to let go, or neither ever ends.
    pub(super) fn let_go(&self) {
        if let Ok(mut inner) = self.inner.try_lock() {
            inner.views.clear();
        }
    }

    pub async fn lock(&self) -> tokio::sync::MutexGuard<'_, Inner> {
        self.inner.lock().await
    }

    pub fn frontier_us(&self) -> i64 {
        self.frontier_us.load(Ordering::Acquire)
    }

    /// Rows that a scan would show.
    pub fn rows(&self) -> u64 {
        match &self.table {
            Some(table) => table.read().len() as u64,
            None => self.counters.rows.load(Ordering::Relaxed),
        }
    }

    /// The position after the last record, unless somebody appends right now.
    pub fn position(&self) -> Option<u64> {
        self.inner.try_lock().ok().map(|inner| inner.end.get(0))
    }

    pub fn max_event_us(&self) -> i64 {
        self.max_event_us.load(Ordering::Acquire)
    }

    /// Under the event clock: the greatest event time admitted, or the frontier where it was advanced beyond that.
    pub fn now_us(&self, clock_us: i64) -> i64 {
        match event_clock(self.relation.read().clock) {
            true => self.max_event_us().max(self.frontier_us()),
            false => clock_us.max(self.frontier_us()),
        }
    }

    fn publish(&self, admission: &Admission) {
        self.frontier_us.store(admission.frontier_us, Ordering::Release);
        self.max_event_us.store(admission.max_event_us, Ordering::Release);
        // Seldom: only an event before all others changes it.
        if self.extent().first_us != admission.first_event_us {
            self.extent.write().first_us = admission.first_event_us;
        }
    }

    pub(super) fn extent(&self) -> Extent {
        *self.extent.read()
    }

    pub(super) fn set_extent(&self, extent: Extent) {
        *self.extent.write() = extent;
    }

    fn count(&self, batch: &SourceBatch, decision: &AdmittedBatch) {
        let undecoded = decision.origin.as_ref().map_or(0, |origin| origin.undecoded.len());
        match &decision.removal {
            Removal { below: 0, offsets } => self.counters.rows.fetch_sub(offsets.len() as u64, Ordering::Relaxed),
            Removal { .. } => self.counters.rows.swap(0, Ordering::Relaxed),
        };
        self.counters.rows.fetch_add((batch.rows.num_rows() - decision.rejected.len()) as u64, Ordering::Relaxed);
        self.counters.rejected.fetch_add((decision.rejected.len() + undecoded) as u64, Ordering::Relaxed);
    }

    /// Appends, admits and applies; see [`super::Engine::ingest`]. `origin`: the one batch was taken from a topic, and
    /// these of its rows are deletes. `begun_us`: when the engine was given the rows.
    pub(super) async fn ingest(
        &self,
        batches: Vec<RecordBatch>,
        mut origin: Option<(Origin, Vec<u32>)>,
        begun_us: i64,
        conflict: Conflict,
        shows: bool,
        seams: &Seams,
    ) -> Result<IngestReport, IngestError> {
        let mut inner = self.lock().await;
        self.check_columns(&batches)?;
        if let Some(before) = origin.as_ref().and_then(|(origin, _)| inner.admission.partitions.taken_before(origin)) {
            let (partition, offset, next) = before;
            return Err(IngestError::TakenBefore { partition, offset, next });
        }
        let mut batches = self.resolve_conflicts(batches, conflict)?;
        batches.retain(|batch| batch.num_rows() > 0 || origin.is_some());
        let incoming = batches.into_iter().map(|rows| {
            let (origin, deletes) = origin.take().unzip();
            Incoming { origin, deletes: deletes.unwrap_or_default(), ..Incoming::rows(rows) }
        });
        let wish = Wish { all_or_nothing: false, shows };
        self.take_in(&mut inner, incoming.collect(), wish, begun_us, seams).await
    }

    /// Appends, admits and applies, as one group.
    pub(super) async fn take_in(
        &self,
        inner: &mut Inner,
        incoming: Vec<Incoming>,
        wish: Wish,
        begun_us: i64,
        seams: &Seams,
    ) -> Result<IngestReport, IngestError> {
        let mut report = IngestReport::default();
        if incoming.is_empty() {
            return Ok(report);
        }
        let now_us = seams.clock.now_us();
        if inner.waiting.len() >= WAITING_MAX {
            self.keep_waiting(inner, seams).await?;
        }
        // Decided on a copy: if the append fails, nothing has happened.
        let mut admission = inner.admission.clone();
        let mut overlay: HashMap<Vec<u8>, i64> = HashMap::new();
        let mut group = vec![];
        for Incoming { rows, origin, deletes, removal } in incoming {
            report.rows += rows.num_rows();
            let keys = self.primary_keys(&rows)?;
            let mut decision = admission.decide_changes(&rows, deletes, now_us, origin, |row, own| {
                let Some(key) = keys.get(row) else { return own };
                let before = overlay.get(key).copied().or_else(|| self.table.as_ref()?.read().effective_us(key));
                let effective = own.max(before.unwrap_or(i64::MIN));
                overlay.insert(key.clone(), effective);
                effective
            })?;
            if let Some(reject) = decision.rejected.first().filter(|_| wish.all_or_nothing) {
                let (table, error) = (self.name.read().clone(), reject.error.clone());
                return Err(IngestError::NotAdmitted { table, error });
            }
            decision.removal = removal;
            group.push(SourceBatch {
                partition: 0,
                base_offset: 0,
                append_time_us: now_us,
                rows,
                admission: Some(decision),
            });
        }
        let end = self.log().append(group.clone()).await.map_err(|error| self.named(error))?;
        // From here on it has happened. Offsets are consecutive up to the end.
        let offsets: u64 = group.iter().map(SourceBatch::end_offset).sum();
        let mut offset = end.get(0) - offsets;
        inner.admission = admission;
        inner.end = end;
        inner.last_append_us = now_us;
        let (mut letters, mut since) = (vec![], vec![]);
        let mut failed = Ok(());
        let wanted = inner.views.iter().any(|view| view.state.compiled.walk.versions);
        for batch in &mut group {
            batch.base_offset = offset;
            offset = batch.end_offset();
        }
        // All of the group at once: no scan shows a part of what the statement did.
        if let Some(plain) = &self.plain {
            let mut plain = plain.write();
            group.iter().for_each(|batch| plain.take(batch));
        }
        let mut replaced = self.remember_group(&group, wanted).unwrap_or_else(|error| {
            failed = Err(error.into());
            vec![]
        });
        replaced.resize_with(group.len(), || None);
        let (begin, rows) = (group[0].begin(), group.iter().map(|batch| batch.rows.num_rows()).sum());
        for (batch, replaced) in group.into_iter().zip(replaced) {
            let decision = batch.admission.clone().unwrap_or_default();
            self.count(&batch, &decision);
            since.extend(came(&batch, &decision, begun_us));
            decision.rejected.iter().for_each(|reject| report.reject(reject.reason.as_str(), 1));
            if wish.shows {
                report.shown.push(admitted(&batch.rows, &decision)?);
            }
            if let Some(undecoded) = decision.origin.as_ref().map(|origin| origin.undecoded.len()).filter(|n| *n > 0) {
                report.reject(RejectReason::Decode.as_str(), undecoded);
            }
            letters.extend(self.rejected(&batch, &decision));
            // One that failed on another of its sources is no longer at work here either.
            inner.views.retain(|view| !view.has_failed());
            inner.views.retain(|view| match self.put(view, &batch, replaced.as_ref()) {
                Ok(unusable) => {
                    letters.extend(unusable);
                    true
                }
                Err(error) => {
                    // The rows are durable, and its neighbours have them.
                    view.fail(&error, batch.begin(), now_us);
                    false
                }
            });
        }
        // Once for all of the group: a key has several steps at a time then, and is gone to once.
        let frontier_us = inner.admission.frontier_us;
        inner.views.retain(|view| {
            let advanced = view.advance(self.id, frontier_us, rows);
            if let Err(error) = &advanced {
                view.fail(error, begin.clone(), now_us);
            }
            advanced.is_ok()
        });
        self.publish(&inner.admission);
        self.meters.readable(&since, seams.clock.now_us());
        self.count_letters(inner, &letters);
        // The rows are durable and count: that a letter cannot be written now is no failure of the statement, whose
        // client would send the rows again.
        inner.waiting.extend(letters);
        let _ = self.keep_waiting(inner, seams).await;
        failed.map(|()| report)
    }

    /// A table's change may make unusable what another source had brought.
    fn count_letters(&self, inner: &Inner, letters: &[DeadLetter]) {
        for letter in letters {
            if letter.source == self.id {
                self.meters.dead_letter(letter.reason);
                continue;
            }
            let mut read = inner.views.iter().flat_map(|view| &view.sources);
            if let Some(reading) = read.find(|reading| reading.source.id == letter.source) {
                reading.source.meters.dead_letter(letter.reason);
            }
        }
    }

    /// Makes the dead letters that wait durable. Under the lock: a checkpoint that has passed their records would not
    /// come back to them after a crash.
    pub(super) async fn keep_waiting(&self, inner: &mut Inner, seams: &Seams) -> SeamResult<()> {
        if inner.waiting.is_empty() {
            return Ok(());
        }
        const WAIT: &str = "dead letters cannot be written";
        match keep(seams.state.as_ref(), &inner.waiting).await {
            Ok(()) => {
                inner.waiting.clear();
                self.last_error.write().take_if(|error| error.starts_with(WAIT));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(source = %self.name.read(), %error, "dead letters wait for the state store");
                let error = format!("{WAIT}: {error}");
                *self.last_error.write() = Some(error.clone());
                Err(SeamError::NotDone(error))
            }
        }
    }

    /// The dead letters that are in memory only.
    pub(super) async fn waiting(&self) -> Vec<DeadLetter> {
        self.lock().await.waiting.clone()
    }

    /// One batch into one view. The caller then advances the view to the frontier after it ([`ViewRuntime::advance`]).
    pub(super) fn put(
        &self,
        view: &ViewRuntime,
        batch: &SourceBatch,
        replaced: Option<&Replaced>,
    ) -> DfResult<Vec<DeadLetter>> {
        let narrowed = view.narrowed(self.id, batch)?;
        let batch = narrowed.as_ref().unwrap_or(batch);
        let decision = batch.admission.clone().unwrap_or_default();
        let mut letters = vec![];
        self.each_branch(view, batch, &decision, replaced, |rows| {
            for failure in view.state.apply(rows)? {
                let letter = |id| self.letter(batch, Some(id), failure.row, failure.reason, failure.error.clone());
                letters.extend(view.read_as().into_iter().map(letter));
            }
            Ok(())
        })?;
        for (source, batch, failure) in view.state.change_table(self.id, batch, &decision)? {
            if let Some(reading) = view.sources.iter().find(|reading| reading.source.id == source) {
                let letter = |r: &SourceRuntime| {
                    r.letter(&batch, Some(view.state.id), failure.row, failure.reason, failure.error.clone())
                };
                letters.push(letter(&reading.source));
            }
        }
        view.state.pair(self.id, batch, &decision)?;
        Ok(letters)
    }

    /// The rows of a batch, for each of the view's branches that reads them.
    pub(super) fn each_branch(
        &self,
        view: &ViewRuntime,
        batch: &SourceBatch,
        decision: &AdmittedBatch,
        replaced: Option<&Replaced>,
        mut work: impl FnMut(&BatchRows<'_>) -> DfResult<()>,
    ) -> DfResult<()> {
        let of_self = |branch: &(usize, &Branch)| branch.1.relation == self.id && batch.rows.num_rows() > 0;
        let rejected: Vec<u32> = decision.rejected.iter().map(|r| r.row).collect();
        for (i, branch) in view.state.compiled.plan.branches.iter().enumerate().filter(of_self) {
            let times_us: Vec<i64> = match decision.effective_us.is_empty() {
                false => decision.effective_us.clone(),
                true => {
                    let times = event_times(&batch.rows, branch.event_time)?;
                    times.into_iter().map(|time| time.unwrap_or_default()).collect()
                }
            };
            work(&BatchRows {
                branch: i,
                from: Some((self.id, batch)),
                rows: &batch.rows,
                base_offset: batch.base_offset,
                times_us: &times_us,
                rejected: &rejected,
                deletes: &decision.deletes,
                replaced,
            })?;
        }
        Ok(())
    }

    /// A full log is the source's: whoever reads the error knows that name, not the folder's.
    fn named(&self, error: SeamError) -> SeamError {
        match error {
            SeamError::Full(error) => SeamError::Full(format!("\"{}\" takes no more rows: {error}", self.name.read())),
            other => other,
        }
    }

    /// The letters of what the source itself did not admit.
    fn rejected(&self, batch: &SourceBatch, decision: &AdmittedBatch) -> Vec<DeadLetter> {
        let letter = |r: &Reject| self.letter(batch, None, r.row as usize, r.reason, r.error.clone());
        let undecoded = decision.origin.iter().flat_map(|origin| &origin.undecoded);
        decision.rejected.iter().map(letter).chain(undecoded.map(|message| self.undecoded(message))).collect()
    }

    fn letter(
        &self,
        batch: &SourceBatch,
        view: Option<ObjectId>,
        row: usize,
        reason: RejectReason,
        error: String,
    ) -> DeadLetter {
        let (partition, offset, append_us) = batch.place(row);
        DeadLetter {
            source: self.id,
            view,
            partition,
            offset,
            append_us,
            reason,
            error,
            payload: payload(&batch.rows, row),
        }
    }

    /// Moves the frontier by hand.
    pub(super) async fn advance(&self, to_us: i64, now_us: i64) -> SeamResult<()> {
        let mut inner = self.lock().await;
        self.record_frontier(&mut inner, to_us, now_us).await
    }

    async fn record_frontier(&self, inner: &mut Inner, to_us: i64, now_us: i64) -> SeamResult<()> {
        if to_us <= inner.admission.frontier_us {
            return Ok(());
        }
        let mut admission = inner.admission.clone();
        let decision = admission.advance(to_us);
        let frontier_us = decision.frontier_us;
        let control = SourceBatch {
            partition: 0,
            base_offset: 0,
            append_time_us: now_us,
            rows: RecordBatch::new_empty(self.schema()),
            admission: Some(decision),
        };
        inner.end = self.log().append(vec![control]).await?;
        inner.admission = admission;
        self.publish(&inner.admission);
        let end = inner.end.clone();
        inner.views.retain(|view| {
            // Time alone may bring any number of departures.
            let finished = view.advance(self.id, frontier_us, usize::MAX);
            if let Err(error) = &finished {
                view.fail(error, end.clone(), now_us);
            }
            finished.is_ok()
        });
        Ok(())
    }

    /// A source with no record for its idle timeout advances with now − delay; recorded in the log, because history will
    /// stand on it. Under the event clock only events move time. `for_views`: also before its time, where a view waits for it.
    pub(super) async fn advance_if_idle(&self, seams: &Seams, for_views: bool) -> SeamResult<bool> {
        let (clock, timeout_us, delay_us) = {
            let relation = self.relation.read();
            if relation.event_time.is_none() {
                return Ok(false);
            }
            (relation.clock, relation.idle_timeout_us, relation.delay_us)
        };
        let now_us = seams.clock.now_us();
        if event_clock(clock) && !self.is_archive() {
            return Ok(false);
        }
        let mut inner = self.lock().await;
        let to_us = match self.is_archive() {
            true => inner.admission.idle_us(now_us),
            false => Some(now_us.saturating_sub(delay_us)).filter(|_| now_us - inner.last_append_us >= timeout_us),
        };
        let Some(to_us) = to_us.filter(|to_us| *to_us > inner.admission.frontier_us) else { return Ok(false) };
        let (least_us, greatest_us) = IDLE_RECORDS_US;
        let is_time = now_us.saturating_sub(inner.last_idle_us) >= timeout_us.clamp(least_us, greatest_us);
        let is_waited_for = || inner.views.iter().any(|v| v.state.earliest_due().is_some_and(|due| due < to_us));
        let moves = is_time || for_views && is_waited_for();
        if !moves {
            return Ok(false);
        }
        inner.last_idle_us = now_us;
        self.record_frontier(&mut inner, to_us, now_us).await?;
        Ok(true)
    }

    pub(super) fn primary_keys(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, datafusion::error::DataFusionError> {
        let relation = self.relation.read();
        if relation.primary_key.is_empty() {
            return Ok(vec![]);
        }
        Ok(CurrentRows::keys(&relation.primary_key, rows)?)
    }

    /// Applies the conflict rule of a table with a primary key.
    fn resolve_conflicts(
        &self,
        batches: Vec<RecordBatch>,
        conflict: Conflict,
    ) -> Result<Vec<RecordBatch>, IngestError> {
        let Some(table) = &self.table else { return Ok(batches) };
        if conflict == Conflict::Replace || self.relation.read().upsert {
            return Ok(batches);
        }
        let table = table.read();
        let mut seen = std::collections::HashSet::new();
        let mut kept = vec![];
        for rows in batches {
            let keys = self.primary_keys(&rows)?;
            let mut keep = vec![true; keys.len()];
            for (row, key) in keys.into_iter().enumerate() {
                let known = table.contains(&key) || seen.contains(&key);
                if known && conflict == Conflict::Error {
                    return Err(self.duplicate(&rows, row));
                }
                keep[row] = !known;
                seen.insert(key);
            }
            kept.push(
                filter_record_batch(&rows, &BooleanArray::from(keep))
                    .map_err(datafusion::error::DataFusionError::from)?,
            );
        }
        Ok(kept)
    }

    /// The row's primary key is there already.
    pub(super) fn duplicate(&self, rows: &RecordBatch, row: usize) -> IngestError {
        let relation = self.relation.read();
        let one = rows.slice(row, 1);
        let shown = |i: &usize| arrow::util::display::array_value_to_string(one.column(*i), 0).unwrap_or_default();
        let names: Vec<_> = relation.primary_key.iter().map(|i| relation.columns[*i].name.clone()).collect();
        let values: Vec<_> = relation.primary_key.iter().map(shown).collect();
        IngestError::Duplicate {
            table: self.name.read().clone(),
            key: format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")),
        }
    }

    /// The same of all batches of a group, of each what it replaces; nothing where there is no primary key.
    fn remember_group(&self, group: &[SourceBatch], wanted: bool) -> SeamResult<Vec<Option<Replaced>>> {
        let Some(table) = &self.table else { return Ok(vec![]) };
        let mut table = table.write();
        let none = AdmittedBatch::default();
        let take = |batch: &SourceBatch| {
            let replaced = table.take(batch, batch.admission.as_ref().unwrap_or(&none), wanted);
            replaced.map(Some).map_err(SeamError::not_done)
        };
        group.iter().map(take).collect()
    }

    /// Takes over the rows of a table with a primary key; what they replace, if it is `wanted`.
    fn remember_rows(
        &self,
        batch: &SourceBatch,
        decision: &AdmittedBatch,
        wanted: bool,
    ) -> SeamResult<Option<Replaced>> {
        let Some(table) = &self.table else { return Ok(None) };
        table.write().take(batch, decision, wanted).map(Some).map_err(SeamError::not_done)
    }

    /// The rows of the table as they were at a position of the log.
    pub(crate) async fn current_rows_at(&self, position: &Positions) -> SeamResult<CurrentRows> {
        let mut current = CurrentRows::new(&self.relation.read().primary_key);
        // One log for all of it: its columns may change meanwhile.
        let log = self.log();
        let mut from = log.range().await?.0;
        loop {
            let batches = log.poll(&from, REPLAY_ROWS).await?;
            if batches.is_empty() {
                return Ok(current);
            }
            for batch in batches {
                if batch.base_offset >= position.get(batch.partition) {
                    return Ok(current);
                }
                from.set(batch.partition, batch.end_offset());
                let decision = batch.admission.clone().unwrap_or_default();
                current.take(&batch, &decision, false).map_err(SeamError::not_done)?;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Inner {
    pub(super) fn clocks(&self) -> (i64, i64) {
        (self.admission.frontier_us, self.admission.max_event_us)
    }
}
