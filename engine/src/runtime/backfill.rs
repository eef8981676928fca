//! A view that is made when the log of its source has been shortened reads what the archive has from before the log's beginning.
//!
//! ```text
//!   archive   ├── span ──┼ span ┼──── span ────┤        by event time, each some 100,000 events
//!   log                                     ├── e7 e8 …
//!   frontier  behind each span its end, but never later than the earliest event of the log
//! ```
//!
//! What a view makes of events depends on their times and offsets, and on no frontier between them (semantics, section 2). So they
//! need not come in the log's order, nor with the frontiers that were: it is enough that behind a frontier there is no event
//! before it. Archives are partitioned and sorted by time, so a span is a few pages of a few files.

use super::{DeadLetter, Seams, SourceRuntime, ViewRuntime, archive::Archived};
use crate::{
    admission::event_times,
    seam::{AdmittedBatch, Origin, Run, SeamError, SeamResult, SourceBatch},
};
use arrow::{
    array::{Array, AsArray, BooleanArray},
    compute::{concat_batches, filter_record_batch, sort_to_indices, take_record_batch},
    datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use datafusion::{
    catalog::TableProvider,
    execution::SendableRecordBatchStream,
    logical_expr::{Expr, ident, lit},
    physical_plan::execute_stream,
    prelude::{SessionConfig, SessionContext},
    scalar::ScalarValue,
};
use futures::TryStreamExt;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tidemark_planner::feature::FeaturePlan;

/// Events of one span: with their rows in memory, and open in the view until the next. A span is longer where so many come within
/// one stretch.
const SPAN_EVENTS: u64 = 1 << 17;
/// Stretches of time of which is counted how many events they have, three megabytes: in a year of events one is minutes long.
const STRETCHES_MAX: usize = 1 << 16;
/// How long a stretch is at first.
const STRETCH_US: i64 = 1_000_000;
/// A day's events are in files of their own.
const DAY_US: i64 = 86_400_000_000;

/// What the archive of a source has from before its log, as far as it has not been applied yet.
pub(super) struct Backfill {
    archived: Archived,
    events: Arc<dyn TableProvider>,
    context: SessionContext,
    /// The offset with which the log begins.
    log_begin: u64,
    /// No event of the log is earlier.
    log_from_us: i64,
    spans: VecDeque<Span>,
}

/// From an instant on and before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from_us: i64,
    to_us: i64,
    events: u64,
}

/// How many events each stretch of time has. Twice as long stretches, when there are too many.
struct Stretches {
    length_us: i64,
    events: BTreeMap<i64, u64>,
}

impl Stretches {
    fn add(&mut self, time_us: i64) {
        *self.events.entry(time_us.div_euclid(self.length_us)).or_default() += 1;
        while self.events.len() > STRETCHES_MAX {
            self.length_us = self.length_us.saturating_mul(2);
            for (at, events) in std::mem::take(&mut self.events) {
                *self.events.entry(at.div_euclid(2)).or_default() += events;
            }
        }
    }

    fn spans(&self, events_max: u64) -> VecDeque<Span> {
        let mut spans = VecDeque::<Span>::new();
        for (at, events) in &self.events {
            let from_us = at.saturating_mul(self.length_us);
            let to_us = from_us.saturating_add(self.length_us);
            let day = from_us.div_euclid(DAY_US);
            match spans.back_mut() {
                Some(last) if last.from_us.div_euclid(DAY_US) == day && last.events + events <= events_max => {
                    (last.to_us, last.events) = (to_us, last.events + events);
                }
                _ => spans.push_back(Span { from_us, to_us, events: *events }),
            }
        }
        spans
    }
}

/// Where the history of a view begins that is made now, if a log has been shortened and its archive does not make up for it. The
/// caller holds the sources still.
pub(super) async fn start_us(
    sources: &[Arc<SourceRuntime>],
    plan: &FeaturePlan,
    seams: &Seams,
) -> SeamResult<Option<i64>> {
    let mut start_us: Option<i64> = None;
    for source in sources.iter().filter(|source| source.extent().removed_us.is_some()) {
        let of_source = match archived(source, plan, seams).await? {
            Some(archived) => archived.removed_us.map(|removed_us| removed_us.saturating_add(1)),
            None => source.history_start_us(),
        };
        start_us = start_us.max(of_source);
    }
    Ok(start_us)
}

/// What the archive has of a source, if a view of this plan can read it. One that joins keeps events open that it may have to read
/// again, and those would have to be in the log.
async fn archived(source: &SourceRuntime, plan: &FeaturePlan, seams: &Seams) -> SeamResult<Option<Archived>> {
    if plan.has_joins() {
        return Ok(None);
    }
    source.archived(seams).await
}

impl Backfill {
    /// `None`: the log has all that the archive has, or there is none.
    pub async fn of(source: &SourceRuntime, plan: &FeaturePlan, seams: &Seams) -> SeamResult<Option<Backfill>> {
        let log_begin = source.log().range().await?.0.get(0);
        if log_begin == 0 {
            return Ok(None);
        }
        let Some(archived) = archived(source, plan, seams).await? else { return Ok(None) };
        let events = seams.history.provider(&archived.table).await?;
        // In one partition: what is read, and when, depends on nothing but the files.
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        // What is not archived yet is not before the frontier of that time.
        let mut log_from_us = archived.frontier_us;
        let mut stretches = Stretches { length_us: STRETCH_US, events: BTreeMap::new() };
        let columns = vec![archived.table.time, archived.columns];
        let mut found = scan(&context, events.as_ref(), columns, &[]).await?;
        while let Some(batch) = found.try_next().await.map_err(SeamError::not_done)? {
            let times = event_times(&batch, 0).map_err(SeamError::not_done)?;
            let offsets = batch.column(1).as_primitive::<Int64Type>().values();
            for (time_us, offset) in times.into_iter().zip(offsets.iter()) {
                let Some(time_us) = time_us else { continue };
                match (*offset as u64) < log_begin {
                    true => stretches.add(time_us),
                    false => log_from_us = log_from_us.min(time_us),
                }
            }
        }
        let spans = stretches.spans(SPAN_EVENTS);
        Ok(Some(Backfill { archived, events, context, log_begin, log_from_us, spans }))
    }

    /// So many events are left.
    pub fn left(&self) -> u64 {
        self.spans.iter().map(|span| span.events).sum()
    }

    /// Applies the next span. How many events that were; `None`: there is no further.
    pub async fn step(
        &mut self,
        source: &SourceRuntime,
        view: &ViewRuntime,
        letters: &mut Vec<DeadLetter>,
    ) -> SeamResult<Option<u64>> {
        let Some(span) = self.spans.pop_front() else { return Ok(None) };
        let mut rows = 0;
        if let Some(events) = self.read(span).await? {
            rows = events.num_rows();
            for batch in self.batches(source, &events)? {
                letters.extend(source.put(view, &batch, None).map_err(SeamError::not_done)?);
            }
        }
        view.advance(source.id, span.to_us.min(self.log_from_us), rows).map_err(SeamError::not_done)?;
        Ok(Some(span.events))
    }

    /// The events of a span, in the order of the log.
    async fn read(&self, span: Span) -> SeamResult<Option<RecordBatch>> {
        let (table, at) = (&self.archived.table, self.archived.columns);
        let field = table.schema.field(table.time);
        // By these files and pages are left out, and nothing more.
        let filters = match field.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let bound = |us| lit(ScalarValue::TimestampMicrosecond(Some(us), zone.clone()));
                vec![ident(field.name()).gt_eq(bound(span.from_us)), ident(field.name()).lt(bound(span.to_us))]
            }
            _ => vec![],
        };
        let columns = (0..table.schema.fields().len()).collect();
        let mut found = scan(&self.context, self.events.as_ref(), columns, &filters).await?;
        let mut kept = vec![];
        while let Some(batch) = found.try_next().await.map_err(SeamError::not_done)? {
            let times = event_times(&batch, table.time).map_err(SeamError::not_done)?;
            let offsets = batch.column(at).as_primitive::<Int64Type>().values();
            let is_wanted = |(time_us, offset): (Option<i64>, &i64)| {
                let is_within = time_us.is_some_and(|us| us >= span.from_us && us < span.to_us);
                is_within && (*offset as u64) < self.log_begin
            };
            let wanted: BooleanArray = times.into_iter().zip(offsets.iter()).map(|row| Some(is_wanted(row))).collect();
            if wanted.true_count() > 0 {
                kept.push(filter_record_batch(&batch, &wanted).map_err(SeamError::not_done)?);
            }
        }
        let Some(first) = kept.first() else { return Ok(None) };
        let all = concat_batches(&first.schema(), &kept).map_err(SeamError::not_done)?;
        let order = sort_to_indices(all.column(at), None, None).map_err(SeamError::not_done)?;
        take_record_batch(&all, &order).map(Some).map_err(SeamError::not_done)
    }

    /// As the log had them: consecutive offsets together.
    fn batches(&self, source: &SourceRuntime, events: &RecordBatch) -> SeamResult<Vec<SourceBatch>> {
        let at = self.archived.columns;
        let schema = source.schema();
        let offsets = events.column(at).as_primitive::<Int64Type>().values();
        let places = places(events, at);
        let mut batches = vec![];
        let mut begin = 0;
        for row in 1..=events.num_rows() {
            if row < events.num_rows() && offsets[row] == offsets[row - 1] + 1 {
                continue;
            }
            let columns = events.columns()[..at].iter().map(|column| column.slice(begin, row - begin)).collect();
            let rows = RecordBatch::try_new(schema.clone(), columns).map_err(SeamError::not_done)?;
            let origin = Origin { runs: runs(&places[begin..row]), ..Origin::default() };
            batches.push(SourceBatch {
                partition: 0,
                base_offset: offsets[begin] as u64,
                append_time_us: places[begin].append_us,
                rows,
                admission: Some(AdmittedBatch {
                    frontier_us: i64::MIN,
                    max_event_us: i64::MIN,
                    origin: Some(origin),
                    ..AdmittedBatch::default()
                }),
            });
            begin = row;
        }
        Ok(batches)
    }
}

/// Where each event came from, as a run of its own: by that a dead letter is known.
fn places(events: &RecordBatch, at: usize) -> Vec<Run> {
    let offsets = events.column(at).as_primitive::<Int64Type>().values();
    let appended = events.column(at + 1).as_primitive::<TimestampMicrosecondType>().values();
    let of_topic = (events.num_columns() > at + 3).then(|| {
        let partitions = events.column(at + 2).as_primitive::<Int32Type>().values();
        (partitions, events.column(at + 3).as_primitive::<Int64Type>().values())
    });
    let place = |row: usize| {
        let (partition, offset) = match of_topic {
            Some((partitions, offsets)) => (partitions[row] as u32, offsets[row] as u64),
            None => (0, offsets[row] as u64),
        };
        Run { row: 0, partition, offset, append_us: appended[row] }
    };
    (0..events.num_rows()).map(place).collect()
}

/// The same with those together that go on from one another.
fn runs(places: &[Run]) -> Vec<Run> {
    let mut runs: Vec<Run> = vec![];
    for (row, place) in places.iter().enumerate() {
        let goes_on = runs.last().is_some_and(|run| {
            let next = run.offset + (row as u64 - u64::from(run.row));
            (run.partition, next, run.append_us) == (place.partition, place.offset, place.append_us)
        });
        if !goes_on {
            runs.push(Run { row: row as u32, ..*place });
        }
    }
    runs
}

async fn scan(
    context: &SessionContext,
    events: &dyn TableProvider,
    columns: Vec<usize>,
    filters: &[Expr],
) -> SeamResult<SendableRecordBatchStream> {
    let state = context.state();
    let plan = events.scan(&state, Some(&columns), filters, None).await.map_err(SeamError::not_done)?;
    execute_stream(plan, context.task_ctx()).map_err(SeamError::not_done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_of_so_many_events_and_leave_none_out() {
        let mut stretches = Stretches { length_us: 10, events: BTreeMap::new() };
        for time_us in [0, 1, 10, 20, 45, 46, 47] {
            stretches.add(time_us);
        }
        let span = |from_us, to_us, events| Span { from_us, to_us, events };
        assert_eq!(stretches.spans(3), [span(0, 20, 3), span(20, 30, 1), span(40, 50, 3)]);
        assert_eq!(stretches.spans(1), [span(0, 10, 2), span(10, 20, 1), span(20, 30, 1), span(40, 50, 3)]);
        [-1, DAY_US].into_iter().for_each(|time_us| stretches.add(time_us));
        assert_eq!(stretches.spans(100), [span(-10, 0, 1), span(0, 50, 7), span(DAY_US, DAY_US + 10, 1)]);
    }

    #[test]
    fn stretches_grow_where_there_are_too_many() {
        let mut stretches = Stretches { length_us: 1, events: BTreeMap::new() };
        (0..=STRETCHES_MAX as i64).for_each(|time_us| stretches.add(time_us));
        assert_eq!((stretches.length_us, stretches.events.len()), (2, STRETCHES_MAX / 2 + 1));
        assert_eq!(stretches.events.values().sum::<u64>(), STRETCHES_MAX as u64 + 1);
    }

    #[test]
    fn a_run_ends_where_partition_offset_or_time_do_not_go_on() {
        let run = |row, partition, offset, append_us| Run { row, partition, offset, append_us };
        let places = [run(0, 0, 5, 1), run(0, 0, 6, 1), run(0, 1, 7, 1), run(0, 1, 9, 1), run(0, 1, 10, 2)];
        assert_eq!(runs(&places), [run(0, 0, 5, 1), run(2, 1, 7, 1), run(3, 1, 9, 1), run(4, 1, 10, 2)]);
    }
}
