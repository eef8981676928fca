//! Training sets as tables of the warehouse, for other engines. What a set is, the catalog and its log say; here its table is made so.
//!
//! ```text
//!   CREATE, REFRESH, RENAME, DROP   catalog ──▶ settle: the table is called, and has, what the catalog says now
//!   a start                         settle, for every set
//!   every minute                    settle, for those of which it failed
//! ```
//!
//! So a crash, an answer that did not come or a bucket that is away leaves a table that is behind, and never one that stays so.

use crate::{
    database::{Database, Owner},
    session::Session,
};
use datafusion::{error::DataFusionError, physical_plan::SendableRecordBatchStream};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidemark_catalog::{Object, ObjectId, TrainingSet};
use tidemark_engine::{
    provider::log_between,
    seam::{KeptTable, SeamError, SeamResult},
    wording::instant,
};
use tokio::sync::watch;

/// How often a table is tried again that could not be made what it should be. An outage is seldom over sooner, and each costs a
/// request of a warehouse that is away.
pub const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Lake {
    /// One table at a time: two computations of one set would race.
    settling: tokio::sync::Mutex<()>,
    /// Sets whose table may be behind, and what it is called as far as that is known here.
    behind: parking_lot::Mutex<BTreeMap<ObjectId, String>>,
}

impl Lake {
    fn note(&self, id: ObjectId, table: &str) {
        self.behind.lock().insert(id, table.to_string());
    }
}

/// Makes the table what the catalog says of the set, and tells the session where that cannot be done now.
pub async fn settle(database: &Database, session: &mut Session, object: &Object) {
    let Some(owner) = database.as_owner() else { return };
    if let Err(error) = settled(database, owner, object.id, &object.history_name()).await {
        tracing::warn!(set = object.shown_name(), %error, "the table of a training set is behind; it is tried again");
        session.notice(format!(
            "the table of training set \"{}\" in the warehouse is behind, and is tried again every minute: {error}",
            object.shown_name()
        ));
    }
}

/// Removes the table of a set that was dropped. With the catalog held it waits for nobody: behind another table it is removed later.
pub async fn forget(database: &Database, object: &Object) {
    let Some(owner) = database.as_owner().filter(|_| has_table(object)) else { return };
    let table = object.history_name();
    owner.lake.note(object.id, &table);
    let Ok(_settling) = owner.lake.settling.try_lock() else { return };
    match owner.engine.seams.history.forget(object.id, &table).await {
        Ok(()) => {
            owner.lake.behind.lock().remove(&object.id);
        }
        Err(error) => tracing::warn!(table, %error, "the table of a training set is left behind; it is tried again"),
    }
}

fn has_table(object: &Object) -> bool {
    object.training_set().is_some_and(|set| set.has_table)
}

/// At a start: nobody knows how far the server before came.
fn begin(database: &Database) {
    let Some(owner) = database.as_owner() else { return };
    for object in database.snapshot().objects().filter(|object| has_table(object)) {
        owner.lake.note(object.id, &object.history_name());
    }
}

/// Those of which it has failed, once each; the first error.
pub async fn again(database: &Database) -> SeamResult<()> {
    let Some(owner) = database.as_owner() else { return Ok(()) };
    let behind = owner.lake.behind.lock().clone();
    let mut outcome = Ok(());
    for (id, table) in behind {
        let settled = settled(database, owner, id, &table).await;
        outcome = outcome.and(settled);
    }
    outcome
}

async fn settled(database: &Database, owner: &Owner, id: ObjectId, table: &str) -> SeamResult<()> {
    let _settling = owner.lake.settling.lock().await;
    let computation = |database: &Database| {
        let snapshot = database.snapshot();
        snapshot.get_id(id).and_then(|object| object.training_set()).map(|set| set.rows)
    };
    loop {
        // Before anything is looked at: who notes it from here on is heard.
        owner.lake.behind.lock().remove(&id);
        let before = computation(database);
        let outcome = as_catalog(database, owner, id, table).await;
        // Another computation, and the log may have gone from under this one: what is to be there is another now.
        if computation(database) != before {
            continue;
        }
        if outcome.is_err() {
            owner.lake.note(id, table);
        }
        return outcome;
    }
}

async fn as_catalog(database: &Database, owner: &Owner, id: ObjectId, table: &str) -> SeamResult<()> {
    let history = &owner.engine.seams.history;
    let snapshot = database.snapshot();
    let object = snapshot.get_id(id);
    let Some((object, set)) = object.and_then(|object| Some((object, object.training_set()?))) else {
        return history.forget(id, table).await;
    };
    if !set.has_table {
        return Ok(());
    }
    let kept = kept_table(object, set);
    if history.is_kept(&kept).await? {
        return Ok(());
    }
    let rows = rows(database, owner, set).await.map_err(SeamError::not_done)?;
    history.keep(&kept, rows).await
}

fn kept_table(object: &Object, set: &TrainingSet) -> KeptTable {
    let comments = set.columns.iter().map(|column| column.comment.clone().unwrap_or_default()).collect();
    KeptTable {
        id: object.id,
        name: object.history_name(),
        schema: object.schema(),
        comments,
        computation: set.rows,
        properties: properties(set),
    }
}

/// The record, as the catalog has it.
fn properties(set: &TrainingSet) -> BTreeMap<String, String> {
    let record = &set.record;
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let properties = [
        ("statement", set.sql.clone()),
        ("computed", instant(record.at_us)),
        ("time-zone", record.time_zone.clone()),
        ("complete", set.complete.as_str().to_string()),
        ("rows", record.rows.to_string()),
        ("digest", record.digest.clone()),
        ("reads", json(serde_json::to_string(&record.reads))),
        ("joins", json(serde_json::to_string(&record.joins))),
    ];
    properties.into_iter().map(|(name, value)| (format!("tidemark.{name}"), value)).collect()
}

/// The rows, out of the set's log.
async fn rows(
    database: &Database,
    owner: &Owner,
    set: &TrainingSet,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let gone = || DataFusionError::Execution("its rows were replaced meanwhile".to_string());
    let source = owner.engine.source(set.rows).ok_or_else(gone)?;
    let range = source.log().range().await;
    let (from, to) = range.map_err(|error| DataFusionError::External(Box::new(error)))?;
    let mut state = database.base.clone();
    // In the order of the log.
    state.config_mut().options_mut().execution.target_partitions = 1;
    let plan = log_between(source, from.get(0), to.get(0)).scan(&state, None, &[], None).await?;
    database.queries.run(plan, state.task_ctx())
}

/// At once, and until the server stops: a table that is left in the middle is looked at by the next start.
pub fn start(database: &Arc<Database>, mut stopping: watch::Receiver<bool>) {
    begin(database);
    let database = database.clone();
    let clock = database.clock.clone();
    let first = async move {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            settled = again(&database) => {
                if let Err(error) = settled {
                    tracing::warn!(%error, "the table of a training set is behind; it is tried again");
                }
            }
        }
    };
    clock.spawn("training sets", Box::pin(first));
}
