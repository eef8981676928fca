//! The engine's numbers, as the catalog's tables show them.

use crate::{
    feeds::Feeds,
    system::{SourceStats, Stats, ViewStats, dead_letters_schema},
};
use arrow::{
    array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    compute::cast,
    datatypes::SchemaRef,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::{Arc, atomic::Ordering};
use tidemark_catalog::{ObjectId, Snapshot, UTC};
use tidemark_connectors::kafka::Status;
use tidemark_engine::{
    runtime::{DeadLetter, Engine, Reading, ViewRuntime},
    seam::{Clock, SeamError, SeamResult},
};

pub struct EngineStats {
    pub engine: Arc<Engine>,
    pub feeds: Arc<Feeds>,
    pub clock: Arc<dyn Clock>,
    pub snapshot: Arc<Snapshot>,
}

/// `i64::MIN` stands for "not yet".
fn known(us: i64) -> Option<i64> {
    (us != i64::MIN).then_some(us)
}

/// The share of so many keys that do not wait. Keys that are over wait too, and are among the keys no more. `None`: nothing waits,
/// but what the store has is not known, for it fails.
fn level(keys: u64, waiting: u64, fails: bool) -> Option<f64> {
    match keys.max(waiting) {
        _ if fails && waiting == 0 => None,
        0 => Some(1.0),
        all => Some((all - waiting) as f64 / all as f64),
    }
}

/// In the logs of its sources, with their names where it reads several.
fn positions(view: &ViewRuntime) -> Option<String> {
    if let [reading] = view.sources.as_slice() {
        return reading.source.position().map(|p| format!("0:{p}"));
    }
    let of = |reading: &Reading| Some(format!("{} 0:{}", reading.source.name.read(), reading.source.position()?));
    view.sources.iter().map(of).collect::<Option<Vec<_>>>().map(|each| each.join(", "))
}

impl Stats for EngineStats {
    fn source(&self, id: ObjectId) -> Option<SourceStats> {
        let source = self.engine.source(id)?;
        let feed = self.feeds.status(id);
        let failed = feed.as_ref().is_some_and(|feed| feed.has_failed());
        let topic_error = feed.as_ref().and_then(|feed| feed.error()).map(|error| error.to_string());
        Some(SourceStats {
            partitions: feed.map(|feed| partitions(&feed)),
            rows: Some(source.rows()),
            events: Some(source.counters.rows.load(Ordering::Relaxed)),
            watermark_us: known(source.frontier_us()),
            frontier_us: known(source.frontier_us()),
            now_us: known(source.now_us(self.clock.now_us())),
            history_start_us: source.history_start_us(),
            positions: source.position().map(|p| format!("0:{p}")),
            state: if failed { "failed".to_string() } else { String::new() },
            last_error: topic_error.or_else(|| source.last_error.read().clone()),
        })
    }

    fn view(&self, id: ObjectId) -> Option<ViewStats> {
        if let Some(failure) = self.engine.failure(id) {
            let positions = failure.positions.map(|positions| positions.to_string());
            let (state, last_error) = ("failed".to_string(), Some(failure.error));
            return Some(ViewStats { state, last_error, positions, ..ViewStats::default() });
        }
        let view = self.engine.view(id)?;
        let (keys_in_memory, memory_bytes) = view.state.in_memory();
        let keys = view.state.count(|counters| &counters.keys);
        let waiting = view.state.waiting_online();
        let online_error = view.online_error.read().clone();
        let now_us = view.now_us(self.clock.now_us());
        Some(ViewStats {
            frontier_us: known(view.state.frontier_us()),
            now_us: known(now_us),
            watermark_us: view.sources.iter().map(|reading| reading.source.frontier_us()).min().and_then(known),
            committed_us: known(view.state.committed_us()),
            history_start_us: view.history_start_us(),
            complete_from_us: view.complete_from_us(),
            keys: Some(keys),
            keys_in_memory: Some(keys_in_memory),
            memory_bytes: Some(memory_bytes),
            events: Some(view.state.count(|counters| &counters.events)),
            rows_failed: Some(view.state.count(|counters| &counters.rows_failed)),
            values_failed: Some(view.state.count(|counters| &counters.values_failed)),
            steps_pending: Some(view.state.steps_waiting() as u64),
            maintenance: view.maintenance.read().clone(),
            positions: positions(&view),
            online_waiting: Some(waiting),
            online_level: level(keys, waiting, online_error.is_some()),
            online_error,
            state: String::new(),
            last_error: view.last_error.read().clone(),
        })
    }

    fn continuous(&self, id: ObjectId) -> Option<Vec<usize>> {
        Some(self.engine.view(id)?.state.compiled.plan.continuous_outputs().collect())
    }

    fn history_schema(&self, id: ObjectId) -> Option<SchemaRef> {
        Some(self.engine.view(id)?.state.compiled.history_schema.clone())
    }

    fn dead_letters(&self) -> BoxFuture<'_, SeamResult<Vec<RecordBatch>>> {
        Box::pin(async move {
            let mut letters = self.engine.dead_letters().await?;
            // A crash in the middle of a CREATE leaves letters of a view that never was.
            letters.retain(|letter| letter.view.is_none_or(|view| self.snapshot.get_id(view).is_some()));
            Ok(vec![self.batch(&letters)?])
        })
    }
}

/// Each partition of a topic: the next offset to take, the end when last asked, and what lies between.
fn partitions(feed: &Status) -> String {
    let each = feed.partitions().into_iter().map(|(partition, next, end)| {
        json!({ "partition": partition, "next": next, "end": end, "lag": end.map(|end| end.saturating_sub(next)) })
    });
    Value::Array(each.collect()).to_string()
}

impl EngineStats {
    fn batch(&self, letters: &[DeadLetter]) -> SeamResult<RecordBatch> {
        let name = |id: ObjectId| self.snapshot.get_id(id).map(|o| o.shown_name());
        let texts = |f: &dyn Fn(&DeadLetter) -> Option<String>| -> ArrayRef {
            Arc::new(StringArray::from_iter(letters.iter().map(f)))
        };
        let columns: Vec<ArrayRef> = vec![
            texts(&|l| name(l.source)),
            texts(&|l| l.view.and_then(name)),
            texts(&|l| Some(l.reason.as_str().to_string())),
            Arc::new(Int32Array::from_iter_values(letters.iter().map(|l| l.partition as i32))),
            Arc::new(Int64Array::from_iter_values(letters.iter().map(|l| l.offset as i64))),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(letters.iter().map(|l| l.append_us)).with_timezone(UTC),
            ),
            texts(&|l| Some(l.error.clone())),
            texts(&|l| Some(l.payload.clone())),
        ];
        let schema = dead_letters_schema();
        let columns = columns
            .into_iter()
            .zip(schema.fields())
            .map(|(array, field)| match array.data_type() == field.data_type() {
                true => Ok(array),
                false => cast(&array, field.data_type()),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(SeamError::not_done)?;
        RecordBatch::try_new(schema, columns).map_err(SeamError::not_done)
    }
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn a_store_that_fails_is_never_said_to_be_level() {
        for (keys, waiting, fails, expected) in [
            (0, 0, false, Some(1.0)),
            (4, 1, false, Some(0.75)),
            (4, 4, true, Some(0.0)),
            (0, 2, true, Some(0.0)),
            (4, 0, true, None),
            (0, 0, true, None),
        ] {
            assert_eq!(level(keys, waiting, fails), expected, "{waiting} of {keys}, {fails}");
        }
    }
}
