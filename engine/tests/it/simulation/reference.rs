//! What the views must be: those of an engine without faults, with all the memory it wants, born after everything has happened and
//! reading the logs as they are, in batches as large as they can be.

use super::{
    clock::SimClock,
    faults::Faults,
    history::SimHistory,
    log::{SimLogs, merged},
    stores::{SimOnline, SimState},
    views::RELATIONS,
};
use crate::store::Store;
use arrow::record_batch::RecordBatch;
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{Object, ObjectId, Snapshot};
use tidemark_engine::{
    compiled::{CompiledView, Row},
    online::OnlineRow,
    progress::Progress,
    runtime::{DeadLetter, Engine, Seams, ViewRuntime},
    seam::{Clock, RejectReason},
    value::{Value, encode_row, values_of},
    view::{Memory, Step},
};

/// The columns of history but the time of writing.
pub type Steps = Vec<Vec<Value>>;

/// View, source, offset, why.
pub type Letter = (Option<ObjectId>, ObjectId, u64, RejectReason, String);

pub struct Reference {
    engine: Engine,
    now_us: i64,
}

impl Reference {
    pub async fn of(
        relations: &[Object],
        views: Vec<(Object, CompiledView)>,
        logs: &SimLogs,
        clock: &SimClock,
    ) -> Reference {
        let faults = Arc::new(Faults::new(0));
        let records = RELATIONS.map(|id| (id, merged(&logs.records(id))));
        let now_us = clock.now_us();
        let seams = Seams {
            threads: 1,
            shares: false,
            memory: Arc::new(Memory::unlimited()),
            steps_waiting_max: usize::MAX,
            clock: Arc::new(SimClock::at(now_us)),
            logs: Arc::new(SimLogs::with(faults.clone(), records)),
            state: Arc::new(SimState { faults: faults.clone(), store: Arc::new(Store::default()) }),
            online: Arc::new(SimOnline::new(faults.clone())),
            history: Arc::new(SimHistory::new(faults)),
        };
        let snapshot = Snapshot::new(1, relations.iter().cloned());
        let engine = Engine::start(seams, &snapshot).await.expect("nothing fails");
        for (object, compiled) in views {
            let progress = Progress::default();
            engine.create_view_watched(&object, compiled, &progress).await.expect("nothing fails");
            let seen = progress.read();
            assert!(seen.total.is_some() && seen.done == seen.total, "{}: {seen:?}", object.name);
        }
        Reference { engine, now_us }
    }

    pub fn view(&self, id: ObjectId) -> Arc<ViewRuntime> {
        self.engine.view(id).expect("nothing fails")
    }

    /// The view's instant for all readings.
    pub fn at_us(&self, id: ObjectId) -> i64 {
        self.view(id).now_us(self.now_us)
    }

    /// Every step up to now.
    pub fn steps(&self, id: ObjectId) -> Result<Steps, String> {
        above(&self.view(id), self.at_us(id)).map(|(_, steps)| sorted(steps))
    }

    pub async fn letters(&self) -> Vec<Letter> {
        letters(&self.engine).await.expect("nothing fails")
    }
}

pub async fn letters(engine: &Engine) -> Result<Vec<Letter>, String> {
    let letters = engine.dead_letters().await.map_err(|error| error.to_string())?;
    let of = |letter: DeadLetter| (letter.view, letter.source, letter.offset, letter.reason, letter.error);
    let mut letters: Vec<Letter> = letters.into_iter().map(of).collect();
    letters.sort();
    Ok(letters)
}

/// The steps that history does not have, and below which instant it has all.
pub fn above(view: &ViewRuntime, at_us: i64) -> Result<(i64, Steps), String> {
    let (committed_us, steps) = view.state.steps_above_history(at_us, None).map_err(|error| error.to_string())?;
    let steps: Vec<Step<'_>> = steps.iter().collect();
    let batch = view.state.compiled.steps(&steps, Some(0)).map_err(|error| error.to_string())?;
    Ok((committed_us, rows_of(&batch)))
}

pub fn rows_of(batch: &RecordBatch) -> Steps {
    let columns = &batch.columns()[..batch.num_columns() - 1];
    let columns: Vec<Vec<Value>> =
        columns.iter().map(|column| values_of(column).expect("a type that is stored")).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

pub fn sorted(mut steps: Steps) -> Steps {
    steps.sort();
    steps
}

/// All rows of a view by key, in the encoding of the online store.
pub fn rows_at(view: &ViewRuntime, at_us: i64) -> Result<BTreeMap<Vec<u8>, Vec<Value>>, String> {
    let rows = view.state.rows(at_us).map_err(|error| error.to_string())?;
    let count = rows.len();
    let by_key: BTreeMap<Vec<u8>, Vec<Value>> =
        rows.into_iter().map(|row| (encode_row(&row.key), shown(row))).collect();
    match by_key.len() == count {
        true => Ok(by_key),
        false => Err("a key has two rows".to_string()),
    }
}

/// What a reader sees of a row: since when it holds, the time of its latest event, its values.
pub fn shown(row: Row) -> Vec<Value> {
    let times = [Value::Int(row.instant_us), Value::Int(row.event_us)];
    times.into_iter().chain(row.outputs).collect()
}

pub fn shown_online(row: OnlineRow) -> Vec<Value> {
    let times = [Value::Int(row.instant_us), Value::Int(row.event_us)];
    times.into_iter().chain(row.outputs).collect()
}
