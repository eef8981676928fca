//! The promises, one by one, while nothing fails.

use super::{
    reference::{Reference, Steps, above, letters, rows_at, rows_of, shown, shown_online, sorted},
    stores::is_lost,
    views::{B, Shape},
    world::World,
};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt::Debug};
use tidemark_catalog::{Object, ObjectId};
use tidemark_engine::{
    admission::Admission, current::CurrentRows, online::OnlineRow, runtime::ViewRuntime, seam::SourceBatch,
    value::Value,
};

/// Everything that can be read of the engine, against a reference born now.
///
/// `resumes`: views that have failed are started again, and must. `flushes`: what is stale is put online, and the store then has
/// exactly the rows that there are.
pub async fn check(world: &World, resumes: bool, flushes: bool) -> Result<(), String> {
    world.ledger.lock().check(&world.logs)?;
    if world.is_fed {
        world.topic.check(&world.logs.records(B))?;
    }
    for relation in &world.relations {
        decided_once(relation, &world.logs.records(relation.id))?;
    }
    let (snapshot, engine) = (world.catalog.lock().clone(), world.engine());
    let mut views = world.views();
    let failed = |id: &ObjectId| engine.failure(*id);
    if resumes {
        for (id, shape) in &views {
            let Some(failure) = failed(id) else { continue };
            let object = snapshot.get_id(*id).expect("it is there");
            let resumed = engine.resume_view(object, &snapshot).await;
            if !matches!(resumed, Ok(true)) || failed(id).is_some() {
                return Err(format!("{} does not resume: {resumed:?}, after {}", shape.name, failure.error));
            }
        }
    }
    views.retain(|(id, _)| failed(id).is_none());
    let compiled = views.iter().map(|(id, shape)| (shape.object(*id), shape.compiled(*id))).collect();
    let reference = Reference::of(&world.relations, compiled, &world.logs, &world.clock).await;
    if flushes {
        world.online.arrive();
        engine.doubt_online();
        // A view that the store has lost while it was filled, and of which nothing more is to be put, is one of which a flush only
        // learns that. The next puts all of it.
        for left in (0..=views.len()).rev() {
            match engine.flush_online().await {
                Ok(_) => break,
                Err(error) if left > 0 && is_lost(&error) => {}
                Err(error) => return Err(format!("nothing fails, and no flush: {error}")),
            }
        }
    }
    for (id, shape) in &views {
        let view = engine.view(*id).ok_or_else(|| format!("{} does not run", shape.name))?;
        of_view(world, &reference, *id, &view, flushes).map_err(|error| format!("{}: {error}", shape.name))?;
    }
    same_letters(world, &reference, &views).await
}

/// What was removed from the online store by hand is there again after a refresh, also after one that was given up half way.
pub async fn check_refresh(world: &World) -> Result<(), String> {
    // What a crash took from the log nobody can put again.
    if world.is_lossy {
        return Ok(());
    }
    for (id, shape) in world.views() {
        let before = online(world, id)?;
        world.online.spoil(id);
        let mut begun = Box::pin(world.engine().refresh_online(id));
        for _ in 0..world.faults.below(6) {
            if futures::poll!(begun.as_mut()).is_ready() {
                break;
            }
        }
        drop(begun);
        world.online.spoil(id);
        let refreshed = world.engine().refresh_online(id).await;
        if !matches!(refreshed, Ok(Some(_))) {
            return Err(format!("{} is not refreshed: {refreshed:?}", shape.name));
        }
        same(shape.name, &online(world, id)?, &before)?;
    }
    Ok(())
}

/// What any reader of the online store sees of a view.
fn online(world: &World, id: ObjectId) -> Result<BTreeMap<Vec<u8>, Vec<Value>>, String> {
    let read = |(key, row): (Bytes, Bytes)| -> Result<(Vec<u8>, Vec<Value>), String> {
        let row = OnlineRow::decode(&row)?;
        Ok((key.to_vec(), shown_online(row)))
    };
    world.online.rows(id).into_iter().map(read).collect()
}

/// Each decision in a log is the one that follows from the records before it.
fn decided_once(object: &Object, records: &[SourceBatch]) -> Result<(), String> {
    let relation = object.relation().expect("a relation");
    let mut admission = Admission::new(relation);
    let mut changed_us: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for record in records {
        let stored = record.admission.clone().unwrap_or_default();
        let decision = match (&stored.origin, record.rows.num_rows()) {
            (None, 0) => admission.advance(stored.frontier_us),
            (origin, _) => {
                let keys = CurrentRows::keys(&relation.primary_key, &record.rows).map_err(|error| error.to_string())?;
                let previous = |row: usize, own_us: i64| {
                    let Some(changed_us) = keys.get(row).map(|key| changed_us.entry(key.clone()).or_insert(own_us))
                    else {
                        return own_us;
                    };
                    *changed_us = own_us.max(*changed_us);
                    *changed_us
                };
                let decided = admission.decide(&record.rows, record.append_time_us, origin.clone(), previous);
                decided.map_err(|error| error.to_string())?
            }
        };
        if decision != stored {
            return Err(format!("{}: what was decided at offset {} does not follow", object.name, record.base_offset));
        }
    }
    Ok(())
}

fn of_view(
    world: &World,
    reference: &Reference,
    id: ObjectId,
    view: &ViewRuntime,
    flushes: bool,
) -> Result<(), String> {
    let (at_us, expected) = (view.now_us(world.now_us()), reference.at_us(id));
    if at_us != expected {
        return Err(format!("now is {at_us} and should be {expected}"));
    }
    let rows = rows_at(&reference.view(id), at_us)?;
    same("rows", &rows_at(view, at_us)?, &rows)?;
    for (key, row) in &rows {
        let found = view.state.lookup(key, at_us).map_err(|error| error.to_string())?;
        if found.map(shown).as_ref() != Some(row) {
            return Err(format!("the lookup of {key:x?} differs from the scan"));
        }
    }
    let (steps, committed_us) = world.history.steps(&view.history.read().name);
    let (known_us, above) = above(view, at_us)?;
    if committed_us < known_us {
        return Err(format!("history is complete below {committed_us}, not below {known_us}"));
    }
    let time = view.history.read().time;
    let is_below = |step: &Vec<Value>| matches!(step[time], Value::Int(at_us) if at_us < known_us);
    let below = steps.iter().flat_map(rows_of).filter(is_below);
    let found = sorted(below.chain(above).collect());
    same_steps(&found, &reference.steps(id)?)?;
    // What a crash took from the log is still in the online store.
    if flushes && !world.is_lossy {
        same("online", &online(world, id)?, &rows)?;
    }
    Ok(())
}

fn same<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Result<(), String> {
    let keys = found.keys().chain(expected.keys());
    let Some(key) = keys.into_iter().find(|key| found.get(*key) != expected.get(*key)) else { return Ok(()) };
    let (found, expected) = (found.get(key), expected.get(key));
    Err(format!("{what}: of key {key:?} there is {found:?} and should be {expected:?}"))
}

fn same_steps(found: &Steps, expected: &Steps) -> Result<(), String> {
    let differs = (0..found.len().max(expected.len())).find(|i| found.get(*i) != expected.get(*i));
    let Some(i) = differs else { return Ok(()) };
    let counts = (found.len(), expected.len());
    Err(format!("step {i} of {counts:?} is {:?} and should be {:?}", found.get(i), expected.get(i)))
}

/// Each row that was not taken is a dead letter, and so is each that a view could not use.
async fn same_letters(world: &World, reference: &Reference, views: &[(ObjectId, &Shape)]) -> Result<(), String> {
    let is_running = |view: Option<ObjectId>| view.is_none_or(|id| views.iter().any(|(running, _)| *running == id));
    let mut found = letters(world.engine()).await?;
    found.retain(|letter| is_running(letter.0));
    let expected = reference.letters().await;
    let differs = (0..found.len().max(expected.len())).find(|i| found.get(*i) != expected.get(*i));
    let Some(i) = differs.filter(|_| !world.is_lossy) else { return Ok(()) };
    Err(format!("letter {i} is {:?} and should be {:?}", found.get(i), expected.get(i)))
}

/// What stores would not take before they take now, in the process to which it happened.
pub async fn check_stores(world: &World) -> Result<(), String> {
    let engine = world.engine();
    // History never runs ahead of a log that cannot be synced.
    if world.logs.is_broken() {
        return Ok(());
    }
    // The first may only learn that an earlier one was done.
    let _ = engine.commit_history().await;
    engine.commit_history().await.map_err(|error| format!("nothing fails, and no commit: {error}"))?;
    for view in world.views().iter().filter_map(|(id, _)| engine.view(*id)) {
        let (table, frontier_us) = (view.history.read().name.clone(), view.state.frontier_us());
        let (_, committed_us) = world.history.steps(&table);
        if committed_us != frontier_us || view.state.steps_waiting() > 0 {
            return Err(format!("history of {table} is complete below {committed_us}, not below {frontier_us}"));
        }
    }
    Ok(())
}

/// Everything becomes history: then the tables alone are what the views are.
pub async fn check_end(world: &World) -> Result<(), String> {
    let (engine, now_us) = (world.engine(), world.now_us());
    world.take_all().await?;
    for relation in &world.relations {
        let advanced = engine.advance_watermark(relation.id, now_us).await;
        advanced.map_err(|error| format!("nothing fails, and no advance: {error}"))?;
    }
    engine.checkpoint().await.map_err(|error| format!("nothing fails, and no checkpoint: {error}"))?;
    check(world, true, true).await?;
    let tables = world.history.names();
    let views: Vec<&str> = world.views().iter().map(|(_, shape)| shape.name).collect();
    match tables.iter().find(|table| !views.contains(&table.as_str())) {
        Some(table) => Err(format!("history of {table} is of no view")),
        None => Ok(()),
    }
}
