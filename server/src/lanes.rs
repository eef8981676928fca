//! The online stores that single views have chosen are brought level each by itself: one that is away holds up nobody else.

use crate::{
    database::Database,
    places::OWN_LANE,
    serve::{REST, RETRY},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tidemark_engine::seam::SeamError;
use tokio::sync::watch;

/// Until the server stops; what is under way then is given up, and put by the last flush. The server's own store is not among
/// them.
pub fn start(database: &Arc<Database>, tick: Duration, mut stopping: watch::Receiver<bool>) {
    let database = database.clone();
    let clock = database.clock.clone();
    let alive = database.meters.tasks.begin("online of views");
    clock.clone().spawn(
        "online of views",
        Box::pin(async move {
            // One turn of each lane at a time: as many as there are addresses.
            let mut turns: FuturesUnordered<BoxFuture<'static, (u64, Option<SeamError>)>> = FuturesUnordered::new();
            let (mut at_work, mut failing) = (BTreeSet::new(), BTreeSet::new());
            let mut next = clock.sleep(tick);
            loop {
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return alive.leave(),
                    Some((lane, error)) = turns.next(), if !turns.is_empty() => {
                        at_work.remove(&lane);
                        match error {
                            // Once per trouble, not once per turn.
                            Some(error) if failing.insert(lane) => {
                                tracing::error!(%error, "the online store of a view is not level; it is tried again");
                            }
                            Some(_) => {}
                            None => {
                                failing.remove(&lane);
                            }
                        }
                    }
                    () = &mut next => {
                        next = clock.sleep(tick);
                        let lanes = database.as_owner().map(|owner| owner.engine.online_lanes());
                        for lane in lanes.unwrap_or_default() {
                            if lane != OWN_LANE && at_work.insert(lane) {
                                turns.push(Box::pin(turn(database.clone(), lane, tick)));
                            }
                        }
                    }
                }
            }
        }),
    );
}

/// One flush, and the rest after it.
async fn turn(database: Arc<Database>, lane: u64, tick: Duration) -> (u64, Option<SeamError>) {
    let clock = &database.clock;
    let begun_us = clock.now_us();
    let error = match database.as_owner() {
        Some(owner) => owner.engine.flush_lane(lane).await.err(),
        None => None,
    };
    let took = Duration::from_micros(clock.now_us().saturating_sub(begun_us).unsigned_abs());
    let rest = (took * REST).max(if error.is_some() { RETRY } else { tick });
    clock.sleep(rest).await;
    (lane, error)
}
