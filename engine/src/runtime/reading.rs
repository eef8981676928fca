//! What a view reads: its sources, how far each of them is, and their logs applied to it.
//!
//! ```text
//! a ──batch──▶ ┐                         frontier of the view = the least of its sources'
//!              ├─ view (its own locks)   order of a key's events = (time, branch, offset), whoever comes first
//! b ──batch──▶ ┘
//! ```
//!
//! Each source applies its batches under its own lock; whoever wants to see a view stand still holds those of all its
//! sources, taken in the order of [`ViewRuntime::sources`].

use super::{DeadLetter, Engine, Seams, SourceRuntime, ViewRuntime, backfill::Backfill, source::Inner};
use crate::{
    current::CurrentRows,
    dimension::Dimension,
    progress::Progress,
    seam::{Positions, SeamError, SeamResult, SourceBatch},
};
use datafusion::error::Result as DfResult;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tidemark_catalog::ObjectId;
use tidemark_planner::feature::FeaturePlan;
use tokio::sync::MutexGuard;

/// Rows read from the log at a time, as many as a COPY appends together: with many keys a key is gone to once for several of
/// its steps, and some megabytes of rows wait in memory.
pub(super) const REPLAY_ROWS: usize = 65_536;

/// One source of a view.
pub struct Reading {
    pub source: Arc<SourceRuntime>,
    /// How many columns the source had when the view was planned: it reads those, and none that came since.
    columns: usize,
    /// The source's frontier, as far as the view has its records.
    frontier_us: AtomicI64,
}

/// Above the bits of a partition's number stands, in the positions of a view, which of its sources it is of.
const PARTITION_BITS: u32 = 16;

/// Holds sources still that are ordered by their ids.
pub(crate) async fn lock_all(sources: &[Arc<SourceRuntime>]) -> Vec<MutexGuard<'_, Inner>> {
    let mut locked = Vec::with_capacity(sources.len());
    for source in sources {
        locked.push(source.lock().await);
    }
    locked
}

pub(super) fn sources_of(readings: &[Reading]) -> Vec<Arc<SourceRuntime>> {
    readings.iter().map(|reading| reading.source.clone()).collect()
}

/// The tables that a view joins, without any rows.
pub(super) fn tables(plan: &FeaturePlan, sources: &[Reading]) -> Vec<Dimension> {
    let joined =
        |id: ObjectId| plan.branches.iter().flat_map(|branch| branch.joined()).any(|joined| joined.table == id);
    let tables = sources.iter().map(|reading| &reading.source).filter(|source| joined(source.id));
    tables.map(|table| Dimension::new(table.id, &table.relation.read())).collect()
}

impl Engine {
    /// The sources of a view, ordered by their ids.
    pub(super) fn readings(&self, view: &str, plan: &FeaturePlan) -> SeamResult<Vec<Reading>> {
        let mut relations = plan.relations();
        relations.sort();
        let reading = |id: ObjectId| {
            let source = self
                .source(id)
                .ok_or_else(|| SeamError::NotDone(format!("a source of feature view \"{view}\" is not running")))?;
            Ok(Reading { columns: source.schema().fields().len(), source, frontier_us: AtomicI64::new(i64::MIN) })
        };
        relations.into_iter().map(reading).collect()
    }

    /// All sources, those together that some view reads together: such a view stands still only if all of them do.
    pub(super) fn neighbours(&self) -> Vec<Vec<Arc<SourceRuntime>>> {
        let mut groups: Vec<Vec<Arc<SourceRuntime>>> = self.sources().into_iter().map(|source| vec![source]).collect();
        for view in self.views().iter().filter(|view| view.sources.len() > 1) {
            let is_read = |group: &Vec<Arc<SourceRuntime>>| group.iter().any(|source| view.reads(source.id));
            let (joined, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_read);
            groups = others;
            groups.push(joined.concat());
        }
        groups.iter_mut().for_each(|group| group.sort_by_key(|source| source.id));
        groups
    }

    /// Brings a view that was restored to the ends of its sources' logs, and from there on the sources know it. They are held
    /// still for the last of it only: others have the same logs to read, and where a view is started again, rows come in.
    pub(super) async fn join_sources(&self, view: &Arc<ViewRuntime>, from: Option<&Positions>) -> SeamResult<()> {
        let (letters, reached) = view.replay_known(from, &self.seams).await?;
        self.keep_letters(letters).await?;
        let sources = sources_of(&view.sources);
        let mut locked = lock_all(&sources).await;
        let letters = view.replay(Some(&reached), &Progress::default(), &self.seams).await?;
        self.keep_letters(letters).await?;
        for (reading, inner) in view.sources.iter().zip(&locked) {
            // Its last record may stand before the checkpoint, a control record behind that of a source without views.
            view.advance(reading.source.id, inner.clocks().0, usize::MAX).map_err(SeamError::not_done)?;
        }
        // All of them or none: one that is started again has another in its place.
        locked.iter_mut().for_each(|inner| inner.views.push(view.clone()));
        Ok(())
    }
}

impl ViewRuntime {
    /// Whether all of its sources are among these.
    pub(super) fn is_over(&self, sources: &[Arc<SourceRuntime>]) -> bool {
        self.sources.iter().all(|reading| sources.iter().any(|source| source.id == reading.source.id))
    }

    pub(super) fn reads(&self, source: ObjectId) -> bool {
        self.sources.iter().any(|reading| reading.source.id == source)
    }

    /// A batch of a source without the columns that came since the view was planned; `None`: none did.
    pub(super) fn narrowed(&self, source: ObjectId, batch: &SourceBatch) -> DfResult<Option<SourceBatch>> {
        let reading = self.sources.iter().find(|reading| reading.source.id == source);
        let columns = reading.map(|reading| reading.columns).filter(|columns| *columns < batch.rows.num_columns());
        let Some(columns) = columns else { return Ok(None) };
        let rows = batch.rows.project(&(0..columns).collect::<Vec<_>>())?;
        Ok(Some(SourceBatch { rows, ..batch.clone() }))
    }

    /// A source has come so far, and the view has all its records before that.
    pub(super) fn advance(&self, source: ObjectId, frontier_us: i64, rows: usize) -> DfResult<()> {
        let mut least_us = i64::MAX;
        for reading in &self.sources {
            let of_source = match reading.source.id == source {
                true => reading.frontier_us.fetch_max(frontier_us, Ordering::AcqRel).max(frontier_us),
                false => reading.frontier_us.load(Ordering::Acquire),
            };
            least_us = least_us.min(of_source);
        }
        if self.state.compiled.plan.has_joins() {
            let tables = self.sources.iter().filter(|reading| self.is_joined(reading.source.id));
            let closed_us = tables.map(|reading| reading.frontier_us.load(Ordering::Acquire)).min();
            self.state.close_before(closed_us.unwrap_or(i64::MIN));
        }
        self.state.finish(least_us, rows)
    }

    fn is_joined(&self, table: ObjectId) -> bool {
        let mut joined = self.state.compiled.plan.branches.iter().flat_map(|branch| branch.joined());
        joined.any(|joined| joined.table == table)
    }

    /// For each of its sources where the events begin that are still open (`engine/src/view/joins.rs`).
    pub(super) fn open_from(&self) -> Positions {
        self.positions(|source| self.state.open_from(source.id).unwrap_or_default())
    }

    /// The tables as they were at a checkpoint, and the events that were open.
    pub(super) async fn recover_joins(&self, positions: &Positions, open: &Positions) -> SeamResult<()> {
        for (i, reading) in self.sources.iter().enumerate() {
            let (source, end) = (&reading.source, self.positions_in(i, positions));
            let is_table = self.is_joined(source.id);
            let mut from = match is_table {
                true => source.log().range().await?.0,
                false => self.positions_in(i, open),
            };
            while !from.0.is_empty() && from.get(0) < end.get(0) {
                let batches = source.log().poll(&from, REPLAY_ROWS).await?;
                if batches.is_empty() {
                    break;
                }
                for batch in batches.iter().take_while(|batch| batch.base_offset < end.get(batch.partition)) {
                    let decision = batch.admission.clone().unwrap_or_default();
                    let again = match is_table {
                        true => self.state.recover_table(source.id, batch, &decision),
                        false => source.each_branch(self, batch, &decision, None, |rows| self.state.reopen(rows)),
                    };
                    again.map_err(SeamError::not_done)?;
                }
                batches.iter().for_each(|batch| from.set(batch.partition, batch.end_offset()));
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Positions in the logs of its sources, one for each of them, as one.
    pub(super) fn positions(&self, of_source: impl Fn(&SourceRuntime) -> Positions) -> Positions {
        let mut all = Positions::default();
        for (i, reading) in self.sources.iter().enumerate() {
            for (partition, offset) in of_source(&reading.source).0 {
                all.set((i as u32) << PARTITION_BITS | partition, offset);
            }
        }
        all
    }

    /// The earlier of two positions of a source, one of them among those of the view.
    pub(super) fn least_in(&self, source: ObjectId, all: &Positions, mut position: Positions) -> Positions {
        let Some(i) = self.sources.iter().position(|reading| reading.source.id == source) else { return position };
        for (partition, offset) in self.positions_in(i, all).0 {
            position.set(partition, offset.min(position.get(partition)));
        }
        position
    }

    /// The part of a view's positions that is of its source number `i`.
    fn positions_in(&self, i: usize, all: &Positions) -> Positions {
        let mine = all.0.iter().filter(|(at, _)| **at >> PARTITION_BITS == i as u32);
        Positions(mine.map(|(at, offset)| (at & ((1 << PARTITION_BITS) - 1), *offset)).collect())
    }

    /// Applies everything from `from` (or the beginnings) to the ends of the logs. The caller holds the locks of all its sources.
    /// `progress` counts records.
    pub(super) async fn replay(
        &self,
        from: Option<&Positions>,
        progress: &Progress,
        seams: &Seams,
    ) -> SeamResult<Vec<DeadLetter>> {
        Ok(self.read_logs(from, false, progress, seams).await?.0)
    }

    /// The same without those locks, to where the logs end when it begins: who appends faster than this reads does not keep it from
    /// coming to an end. Tells how far it has come.
    async fn replay_known(&self, from: Option<&Positions>, seams: &Seams) -> SeamResult<(Vec<DeadLetter>, Positions)> {
        self.read_logs(from, true, &Progress::default(), seams).await
    }

    async fn read_logs(
        &self,
        from: Option<&Positions>,
        ends: bool,
        progress: &Progress,
        seams: &Seams,
    ) -> SeamResult<(Vec<DeadLetter>, Positions)> {
        let mut letters = vec![];
        let mut logs = vec![];
        let mut records = 0;
        for (i, reading) in self.sources.iter().enumerate() {
            let (begin, end) = reading.source.log().range().await?;
            let from = from.map(|all| self.positions_in(i, all)).filter(|mine| !mine.0.is_empty());
            let backfill = match &from {
                Some(_) => None,
                None => Backfill::of(&reading.source, &self.state.compiled.plan, seams).await?,
            };
            records += backfill.as_ref().map_or(0, Backfill::left);
            let from = from.unwrap_or(begin);
            records += end.0.iter().map(|(at, end)| end.saturating_sub(from.get(*at))).sum::<u64>();
            let until = ends.then_some(end);
            logs.push(Replay { reading, backfill, from, until, current: None, is_over: false });
        }
        progress.expect(records);
        // The one that is furthest behind goes on: so few events wait in memory for the others.
        // Tables first: what events look up is there then.
        let rank = |log: &&mut Replay<'_>| {
            (log.reading.frontier_us.load(Ordering::Relaxed), !self.is_joined(log.reading.source.id))
        };
        while let Some(log) = logs.iter_mut().filter(|log| !log.is_over).min_by_key(rank) {
            log.step(self, &mut letters, progress).await?;
            self.hand_over();
            // A long recovery must not keep the thread to itself: somebody may want to stop it.
            tokio::task::yield_now().await;
        }
        let mut reached = Positions::default();
        for (i, log) in logs.iter().enumerate() {
            for (partition, offset) in &log.from.0 {
                reached.set((i as u32) << PARTITION_BITS | *partition, *offset);
            }
        }
        Ok((letters, reached))
    }
}

/// How far the log of one source has been applied to a view.
struct Replay<'a> {
    reading: &'a Reading,
    /// What comes before the log's beginning.
    backfill: Option<Backfill>,
    from: Positions,
    /// `None`: to its end.
    until: Option<Positions>,
    /// The rows of a table as they were there, for a view over its versions.
    current: Option<CurrentRows>,
    is_over: bool,
}

impl Replay<'_> {
    async fn step(&mut self, view: &ViewRuntime, letters: &mut Vec<DeadLetter>, progress: &Progress) -> SeamResult<()> {
        let source = &self.reading.source;
        if let Some(backfill) = &mut self.backfill {
            match backfill.step(source, view, letters).await? {
                Some(events) => progress.add(events),
                None => self.backfill = None,
            }
            return Ok(());
        }
        let batches = source.log().poll(&self.from, REPLAY_ROWS).await?;
        self.is_over = batches.is_empty();
        if view.state.compiled.walk.versions && self.current.is_none() && !self.is_over {
            self.current = Some(source.current_rows_at(&self.from).await?);
        }
        let (mut frontier_us, mut rows) = (i64::MIN, 0);
        for batch in batches {
            let records = batch.end_offset().saturating_sub(self.from.get(batch.partition));
            self.from.set(batch.partition, batch.end_offset());
            let decision = batch.admission.clone().unwrap_or_default();
            frontier_us = frontier_us.max(decision.frontier_us);
            rows += batch.rows.num_rows();
            let current = self.current.as_mut();
            let replaced = current.map(|current| current.take(&batch, &decision, true));
            let replaced = replaced.transpose().map_err(SeamError::not_done)?;
            letters.extend(source.put(view, &batch, replaced.as_ref()).map_err(SeamError::not_done)?);
            progress.add(records);
        }
        if !self.is_over {
            view.advance(source.id, frontier_us, rows).map_err(SeamError::not_done)?;
        }
        let has = |(partition, until): (&u32, &u64)| self.from.get(*partition) >= *until;
        self.is_over |= self.until.as_ref().is_some_and(|until| until.0.iter().all(has));
        Ok(())
    }
}
