//! Which records count: decided once per source, record by record in offset order, and stored with the records.
//!
//! Semantics, section 3. Checks in this order, the first that fails rejects: event time present and finite, `future`,
//! `late`. Only admitted records move the watermark. With one partition the source frontier is the greatest of the
//! partition's watermark and every floor so far, so "late" is "below the frontier before this record". With the
//! partitions of a topic it is "below that or the partition's own watermark" (`admission/partitions.rs`).

mod partitions;

pub use partitions::{Partition, Partitions};

use crate::{
    seam::{AdmittedBatch, Origin, Reject, RejectReason},
    wording::{instant, span},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
};
use datafusion::error::Result as DfResult;
use tidemark_catalog::{ClockMode, Relation, UTC};

/// 1900-01-01 to 2200-01-01. Every live key takes a step a month, so one event at a zero or far-off date would make
/// thousands of them for each of its keys (decision 0007).
pub const EVENT_TIMES_US: std::ops::Range<i64> = -2_208_988_800_000_000..7_258_118_400_000_000;

/// The clocks of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    event_time: Option<usize>,
    delay_us: i64,
    max_ahead_us: i64,
    clock: ClockMode,
    /// A relation with a primary key: never late, log order wins.
    changelog: bool,
    /// A delete says when it was: its event time is in the primary key, or told by the broker. Else its row is only a
    /// key.
    dates_deletes: bool,
    idle_timeout_us: i64,
    /// Those of a topic; none where statements feed the source.
    pub partitions: Partitions,
    pub frontier_us: i64,
    /// The greatest admitted event time.
    pub max_event_us: i64,
    /// The earliest admitted event time; not part of the decisions, so that whoever replays them has to keep it.
    pub first_event_us: Option<i64>,
}

impl Admission {
    pub fn new(relation: &Relation) -> Admission {
        Admission {
            event_time: relation.event_time,
            delay_us: relation.delay_us,
            max_ahead_us: relation.max_ahead_us,
            clock: relation.clock,
            changelog: !relation.primary_key.is_empty(),
            dates_deletes: relation.event_time.is_some_and(|time| {
                relation.primary_key.contains(&time) || relation.includes.iter().any(|(at, _)| *at == time)
            }),
            idle_timeout_us: relation.idle_timeout_us,
            partitions: Partitions::default(),
            frontier_us: i64::MIN,
            max_event_us: i64::MIN,
            first_event_us: None,
        }
    }

    /// The relation's columns stand elsewhere.
    pub fn rearrange(&mut self, relation: &Relation) {
        let Admission { event_time, dates_deletes, .. } = Admission::new(relation);
        (self.event_time, self.dates_deletes) = (event_time, dates_deletes);
    }

    /// Decides on the rows of one batch. `previous` gives the effective time of the key's previous change, by row, for
    /// changelog tables (and is told the new one). `origin`: they were taken from a topic just now.
    pub fn decide(
        &mut self,
        rows: &RecordBatch,
        now_us: i64,
        origin: Option<Origin>,
        previous: impl FnMut(usize, i64) -> i64,
    ) -> DfResult<AdmittedBatch> {
        self.decide_changes(rows, vec![], now_us, origin, previous)
    }

    /// The same, where some rows are deletes: row numbers, ascending.
    pub fn decide_changes(
        &mut self,
        rows: &RecordBatch,
        deletes: Vec<u32>,
        now_us: i64,
        origin: Option<Origin>,
        mut previous: impl FnMut(usize, i64) -> i64,
    ) -> DfResult<AdmittedBatch> {
        let mut decision = AdmittedBatch { origin, deletes, ..AdmittedBatch::default() };
        match &decision.origin {
            Some(origin) if origin.is_reset => self.partitions.reset(origin),
            Some(origin) => self.partitions.took(origin, now_us),
            None => {}
        }
        let times = match self.event_time.filter(|_| rows.num_rows() > 0) {
            Some(event_time) => event_times(rows, event_time)?,
            None => vec![],
        };
        let mut runs = decision.origin.as_ref().map_or(&[][..], |origin| origin.runs.as_slice()).iter().peekable();
        let mut partition = None;
        let mut append_us = now_us;
        for (row, time) in times.into_iter().enumerate() {
            if let Some(run) = runs.next_if(|run| run.row as usize == row) {
                partition = Some(run.partition);
                append_us = run.append_us;
            }
            let floor_us = match partition {
                None => self.frontier_us,
                Some(partition) => self.frontier_us.max(self.partitions.watermark_us(partition)),
            };
            if !self.dates_deletes && decision.deletes.binary_search(&(row as u32)).is_ok() {
                let at_us = self.undated_us(append_us);
                let effective = previous(row, at_us).max(at_us);
                decision.effective_us.push(effective);
                continue;
            }
            let mut reject = |reason, error: String| decision.rejected.push(Reject { row: row as u32, reason, error });
            let time = match time {
                Some(time) if EVENT_TIMES_US.contains(&time) => time,
                // A changelog's own time is optional: the append time stands in.
                None if self.changelog => append_us,
                unusable => {
                    let error = match unusable {
                        None => "the event time is NULL".to_string(),
                        Some(i64::MIN | i64::MAX) => "the event time is infinite".to_string(),
                        Some(time) => format!("event time {} is not between 1900 and 2200", instant(time)),
                    };
                    reject(RejectReason::EventTime, error);
                    if self.changelog {
                        decision.effective_us.push(0);
                    }
                    continue;
                }
            };
            let event_clock = self.clock == ClockMode::Event;
            if !event_clock && time > append_us.saturating_add(self.max_ahead_us) {
                reject(
                    RejectReason::Future,
                    format!(
                        "event time {} lies {} after its append time {}, more than max_ahead, {}",
                        instant(time),
                        span(time.abs_diff(append_us)),
                        instant(append_us),
                        span(self.max_ahead_us.unsigned_abs())
                    ),
                );
                if self.changelog {
                    decision.effective_us.push(0);
                }
                continue;
            }
            let mut effective = time;
            if self.changelog {
                effective = previous(row, time.max(self.frontier_us)).max(time).max(self.frontier_us);
                decision.effective_us.push(effective);
            } else if time < floor_us {
                reject(
                    RejectReason::Late,
                    format!(
                        "event time {} lies {} below the watermark {}",
                        instant(time),
                        span(time.abs_diff(floor_us)),
                        instant(floor_us)
                    ),
                );
                continue;
            }
            self.max_event_us = self.max_event_us.max(effective);
            self.note_first(effective);
            let moves = if event_clock { time } else { time.min(append_us) };
            let watermark_us = moves.saturating_sub(self.delay_us);
            match partition {
                None => self.frontier_us = self.frontier_us.max(watermark_us),
                Some(partition) => self.partitions.saw(partition, watermark_us),
            }
        }
        if let Some(origin) = &mut decision.origin {
            self.partitions.note(origin);
            if let Some(least_us) = self.partitions.least_us(now_us, self.idle_timeout_us) {
                self.frontier_us = self.frontier_us.max(least_us);
            }
        }
        decision.frontier_us = self.frontier_us;
        decision.max_event_us = self.max_event_us;
        Ok(decision)
    }

    /// From when on a delete counts that does not say when it was: from now. It moves no watermark.
    fn undated_us(&self, append_us: i64) -> i64 {
        let now_us = if self.clock == ClockMode::Event { self.max_event_us } else { append_us };
        now_us.max(self.frontier_us).max(EVENT_TIMES_US.start)
    }

    /// Takes over settings that may change while the source runs.
    pub fn set_limits(&mut self, relation: &Relation) {
        self.max_ahead_us = relation.max_ahead_us;
        self.idle_timeout_us = relation.idle_timeout_us;
    }

    /// How far the frontier of a topic may be now that some of its partitions, or all, have nothing to tell; `None`: no
    /// further, or there is no topic.
    pub fn idle_us(&self, now_us: i64) -> Option<i64> {
        if self.partitions.is_empty() {
            return None;
        }
        let least_us = self.partitions.least_us(now_us, self.idle_timeout_us).unwrap_or_else(|| {
            let now_us = if self.clock == ClockMode::Event { self.max_event_us } else { now_us };
            now_us.saturating_sub(self.delay_us)
        });
        (least_us > self.frontier_us).then_some(least_us)
    }

    /// Moves the frontier by hand or because the source is idle; it never goes back.
    pub fn advance(&mut self, frontier_us: i64) -> AdmittedBatch {
        self.frontier_us = self.frontier_us.max(frontier_us);
        AdmittedBatch { frontier_us: self.frontier_us, max_event_us: self.max_event_us, ..Default::default() }
    }

    /// Takes over what a stored decision says of the clocks, and the times of the rows it admitted.
    pub fn replay(&mut self, rows: &RecordBatch, decision: &AdmittedBatch) -> DfResult<()> {
        if let Some(origin) = &decision.origin {
            self.partitions.replay(origin);
        }
        self.frontier_us = self.frontier_us.max(decision.frontier_us);
        self.max_event_us = self.max_event_us.max(decision.max_event_us);
        let Some(event_time) = self.event_time.filter(|_| rows.num_rows() > 0) else { return Ok(()) };
        let times = match decision.effective_us.is_empty() {
            true => event_times(rows, event_time)?,
            false => decision.effective_us.iter().copied().map(Some).collect(),
        };
        let mut rejected = decision.rejected.iter().map(|reject| reject.row as usize).peekable();
        for (row, time) in times.into_iter().enumerate() {
            if rejected.next_if_eq(&row).is_none()
                && let Some(time) = time
            {
                self.note_first(time);
            }
        }
        Ok(())
    }

    fn note_first(&mut self, time_us: i64) {
        self.first_event_us = Some(self.first_event_us.map_or(time_us, |first| first.min(time_us)));
    }
}

/// The event times of a batch, microseconds.
pub fn event_times(rows: &RecordBatch, column: usize) -> DfResult<Vec<Option<i64>>> {
    let array = rows.column(column);
    let zone = match array.data_type() {
        DataType::Timestamp(_, None) => None,
        _ => Some(UTC.into()),
    };
    let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(array.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::{Run, Taken};
    use arrow::{
        array::TimestampMicrosecondArray,
        datatypes::{Field, Schema},
    };
    use std::sync::Arc;

    fn admission(clock: ClockMode) -> Admission {
        Admission {
            event_time: Some(0),
            delay_us: 10,
            max_ahead_us: 100,
            clock,
            changelog: false,
            dates_deletes: false,
            idle_timeout_us: 1000,
            partitions: Partitions::default(),
            frontier_us: i64::MIN,
            max_event_us: i64::MIN,
            first_event_us: None,
        }
    }

    fn rows(times: &[Option<i64>]) -> RecordBatch {
        let ty = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let array = TimestampMicrosecondArray::from(times.to_vec()).with_timezone(UTC);
        let schema = Schema::new(vec![Field::new("t", ty, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(array)]).expect("batch")
    }

    fn check(clock: ClockMode, append_us: i64, times: &[Option<i64>], rejected: &[(u32, RejectReason)], frontier: i64) {
        let mut admission = admission(clock);
        let decision = admission.decide(&rows(times), append_us, None, |_, t| t).expect("decision");
        let got: Vec<_> = decision.rejected.iter().map(|r| (r.row, r.reason)).collect();
        assert_eq!(got, rejected);
        assert_eq!(decision.frontier_us, frontier);
    }

    #[test]
    fn lateness_is_measured_against_the_watermark_before_the_record() {
        use RejectReason::Late;
        check(
            ClockMode::Event,
            0,
            &[Some(100), Some(90), Some(89), Some(120), Some(109)],
            &[(2, Late), (4, Late)],
            110,
        );
    }

    #[test]
    fn a_refusal_names_both_instants_and_the_time_between_them() {
        let said = |clock, append_us, times: &[Option<i64>]| -> Vec<String> {
            let mut admission = Admission { delay_us: 0, max_ahead_us: 3_600_000_000, ..admission(clock) };
            let decision = admission.decide(&rows(times), append_us, None, |_, t| t).expect("decision");
            decision.rejected.into_iter().map(|r| r.error).collect()
        };
        let noon = 1_793_534_400_000_000;
        let minute = 60_000_000;
        assert_eq!(
            said(ClockMode::Event, 0, &[Some(noon + 10 * minute), Some(noon + 2 * minute), None, Some(i64::MAX)]),
            [
                "event time 2026-11-01 12:02:00+00 lies 8 minutes below the watermark 2026-11-01 12:10:00+00",
                "the event time is NULL",
                "the event time is infinite",
            ]
        );
        assert_eq!(
            said(ClockMode::System, noon, &[Some(noon + 90 * minute)]),
            [
                "event time 2026-11-01 13:30:00+00 lies 1 hour 30 minutes after its append time 2026-11-01 12:00:00+00, more \
              than max_ahead, 1 hour"
            ]
        );
    }

    #[test]
    fn a_replay_finds_the_same_clocks_and_the_same_first_event() {
        let times = [Some(100), None, Some(95), Some(89), Some(130)];
        let mut lived = admission(ClockMode::Event);
        let decision = lived.decide(&rows(&times), 0, None, |_, t| t).expect("decision");
        assert_eq!(lived.first_event_us, Some(95));
        let mut replayed = admission(ClockMode::Event);
        replayed.replay(&rows(&times), &decision).expect("replay");
        assert_eq!(replayed, lived);
    }

    #[test]
    fn one_fast_clock_does_not_make_everything_after_it_late() {
        // The watermark follows min(event time, append time).
        check(ClockMode::System, 50, &[Some(120), Some(45), Some(39)], &[(2, RejectReason::Late)], 40);
    }

    #[test]
    fn future_null_and_infinite_times_are_refused_and_move_nothing() {
        use RejectReason::{EventTime, Future};
        let times = [Some(151), None, Some(i64::MAX), Some(150)];
        check(ClockMode::System, 50, &times, &[(0, Future), (1, EventTime), (2, EventTime)], 40);
        check(ClockMode::Event, 50, &times[..1], &[], 141);
    }

    /// Rows of a topic as (partition, event time), with consecutive offsets from `next` on.
    fn taken(admission: &mut Admission, now_us: i64, rows_of: &[(u32, i64)]) -> AdmittedBatch {
        let mut origin = Origin::default();
        let mut next = admission.partitions.next();
        for (row, (partition, _)) in rows_of.iter().enumerate() {
            let offset = next.entry(*partition).or_insert(0);
            origin.runs.push(Run { row: row as u32, partition: *partition, offset: *offset, append_us: now_us });
            *offset += 1;
        }
        let said = next.iter().filter(|(partition, _)| rows_of.iter().any(|(of, _)| of == *partition));
        origin.taken = said.map(|(p, next)| Taken { partition: *p, next: *next, watermark_us: i64::MIN }).collect();
        let times: Vec<_> = rows_of.iter().map(|(_, time)| Some(*time)).collect();
        admission.decide(&rows(&times), now_us, Some(origin), |_, t| t).expect("decision")
    }

    fn late(decision: &AdmittedBatch) -> Vec<u32> {
        assert!(decision.rejected.iter().all(|reject| reject.reason == RejectReason::Late));
        decision.rejected.iter().map(|reject| reject.row).collect()
    }

    #[test]
    fn each_partition_is_late_by_its_own_watermark_and_the_least_is_the_frontier() {
        let mut topic = admission(ClockMode::Event);
        let decision = taken(&mut topic, 0, &[(0, 500), (1, 100), (1, 95), (0, 490), (0, 489), (1, 89)]);
        assert_eq!(late(&decision), [4, 5]);
        assert_eq!((decision.frontier_us, decision.max_event_us), (90, 500));
        // One that has only just been found holds the frontier where it is.
        let decision = taken(&mut topic, 1, &[(1, 600), (2, 91)]);
        assert_eq!((late(&decision), decision.frontier_us), (vec![], 90));
        let decision = taken(&mut topic, 2, &[(2, 300), (2, 289)]);
        assert_eq!((late(&decision), decision.frontier_us), (vec![1], 290));
    }

    #[test]
    fn a_silent_partition_holds_nobody_back_and_begins_at_the_frontier_when_it_speaks_again() {
        let mut topic = admission(ClockMode::System);
        taken(&mut topic, 1000, &[(0, 1000), (1, 500)]);
        // Nobody has looked whether there is more.
        assert_eq!((topic.frontier_us, topic.idle_us(9999)), (490, None));
        topic.partitions.level(&[0, 1], 1000);
        assert_eq!(topic.idle_us(1999), None);
        taken(&mut topic, 1900, &[(0, 1900)]);
        // Partition 1 has been silent for the timeout.
        assert_eq!(topic.idle_us(2000), Some(1890));
        // As long as somebody knows of more, it is no silence.
        topic.partitions.wait_for(&[1]);
        assert_eq!(topic.idle_us(9999), None);
        topic.partitions.level(&[1], 1950);
        assert_eq!(topic.idle_us(2949), None);
        let decision = taken(&mut topic, 2960, &[(0, 2899)]);
        assert_eq!(decision.frontier_us, 2889);
        let decision = taken(&mut topic, 2970, &[(1, 2888), (1, 2889), (0, 2960)]);
        assert_eq!((late(&decision), decision.frontier_us), (vec![0], 2889));
        // When all are silent, time goes on.
        assert_eq!(topic.idle_us(3969), None);
        assert_eq!(topic.idle_us(3970), Some(3960));
    }

    #[test]
    fn a_delete_without_a_time_counts_from_now_and_moves_no_watermark() {
        for (clock, expected) in [(ClockMode::Event, [100, 100, 120]), (ClockMode::System, [100, 1000, 120])] {
            let mut table = Admission { changelog: true, ..admission(clock) };
            // What stands in the row of the delete says nothing.
            let times = rows(&[Some(100), Some(0), Some(120)]);
            let decision = table.decide_changes(&times, vec![1], 1000, None, |_, own| own).expect("decision");
            assert_eq!((decision.effective_us, decision.frontier_us), (expected.to_vec(), 110));
            assert_eq!((decision.deletes, decision.rejected), (vec![1], vec![]));
        }
        // Before anything is known.
        let mut table = Admission { changelog: true, ..admission(ClockMode::Event) };
        let decision = table.decide_changes(&rows(&[None]), vec![0], 1000, None, |_, own| own).expect("decision");
        assert_eq!((decision.effective_us, decision.frontier_us), (vec![EVENT_TIMES_US.start], i64::MIN));
        let mut dated = Admission { changelog: true, dates_deletes: true, ..admission(ClockMode::Event) };
        let decision = dated.decide_changes(&rows(&[Some(70)]), vec![0], 1000, None, |_, own| own).expect("decision");
        assert_eq!((decision.effective_us, decision.frontier_us), (vec![70], 60));
    }

    #[test]
    fn a_replay_finds_the_same_partitions() {
        let mut lived = admission(ClockMode::Event);
        let batches = [vec![(0, 500), (1, 100)], vec![(1, 90), (1, 89)], vec![(2, 300), (0, 700), (1, 400)]];
        let mut replayed = admission(ClockMode::Event);
        for batch in &batches {
            let decision = taken(&mut lived, 0, batch);
            let times: Vec<_> = batch.iter().map(|(_, time)| Some(*time)).collect();
            replayed.replay(&rows(&times), &decision).expect("replay");
        }
        assert_eq!(replayed, lived);
    }

    #[test]
    fn a_reset_says_what_partitions_there_are_and_one_that_goes_back_is_late_by_the_frontier_only() {
        let mut lived = admission(ClockMode::Event);
        let mut replayed = lived.clone();
        let mut control = |lived: &mut Admission, next: [(u32, u64); 2]| {
            let each = next.into_iter();
            let taken = each.map(|(partition, next)| Taken { partition, next, watermark_us: i64::MIN }).collect();
            let origin = Origin { taken, is_reset: true, ..Origin::default() };
            let decision = lived.decide(&rows(&[]), 0, Some(origin), |_, t| t).expect("decision");
            replayed.replay(&rows(&[]), &decision).expect("replay");
            decision
        };
        let first = taken(&mut lived, 0, &[(0, 500), (1, 100), (2, 300)]);
        assert_eq!(first.frontier_us, 90);
        // 0 goes back, 1 on, and 2 is no more.
        let decision = control(&mut lived, [(0, 0), (1, 7)]);
        assert_eq!((decision.frontier_us, lived.partitions.next()), (90, [(0, 0), (1, 7)].into()));
        let rest = taken(&mut lived, 0, &[(0, 490), (0, 89), (1, 89), (1, 110)]);
        assert_eq!((late(&rest), rest.frontier_us), (vec![1, 2], 100));
        // What is kept beside the rows says the same.
        let origin = decision.origin.expect("an origin");
        let watermarks: Vec<i64> = origin.taken.iter().map(|taken| taken.watermark_us).collect();
        assert_eq!((watermarks, replayed.partitions.next()), (vec![i64::MIN, 90], [(0, 0), (1, 7)].into()));
    }

    #[test]
    fn a_topic_that_knows_when_it_was_written_is_judged_by_that() {
        let mut topic = admission(ClockMode::System);
        let run = |row, append_us| Run { row, partition: 0, offset: u64::from(row), append_us };
        let taken = vec![Taken { partition: 0, next: 3, watermark_us: i64::MIN }];
        let origin = Origin { runs: vec![run(0, 50), run(1, 200)], taken, ..Origin::default() };
        let times = [Some(151), Some(151), Some(300)];
        let decision = topic.decide(&rows(&times), 10_000, Some(origin), |_, t| t).expect("decision");
        let rejected: Vec<_> = decision.rejected.iter().map(|r| (r.row, r.reason)).collect();
        assert_eq!(rejected, [(0, RejectReason::Future)]);
        assert_eq!(decision.frontier_us, 190);
    }
}
