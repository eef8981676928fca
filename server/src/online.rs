//! The online store is brought level view by view, side by side: one that is filled anew, or whose store is away, holds up no
//! other.
//!
//! ```text
//! tick:   now of views ─▶ turns of the views that have none under way ─▶ level: what all of them have put
//! ```

use crate::{
    database::Database,
    places::OWN_LANE,
    serve::{REST, RETRY},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tidemark_engine::{
    runtime::OnlineTurn,
    seam::{SeamError, SeamResult},
};
use tokio::sync::watch;

/// How many times as long as it worked a turn of the embedded store rests: nobody reads it but a later start, and every put that a
/// later one of its key overtakes is work for nothing.
const REST_UNREAD: u32 = 16;

/// It rests no longer than this: a turn that took seconds has waited for a store that did not answer, which is no work.
const REST_MAX: Duration = Duration::from_secs(2);

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// Serving nodes are told what they need to know before the rows.
    Tell,
    Turn(u64, OnlineTurn),
}

/// How a task ended.
struct Done {
    task: Task,
    begun_us: i64,
    error: Option<SeamError>,
}

type UnderWay = FuturesUnordered<BoxFuture<'static, Done>>;

/// Until the server stops; what is under way then is given up, and put by the last flush.
pub fn start(database: &Arc<Database>, tick: Duration, mut stopping: watch::Receiver<bool>) {
    let database = database.clone();
    let clock = database.clock.clone();
    let alive = database.meters.tasks.begin("online");
    clock.clone().spawn(
        "online",
        Box::pin(async move {
            // As many at most as there are views, and one.
            let mut tasks = Tasks { database, tick, under_way: UnderWay::new(), at_work: BTreeSet::new() };
            let mut outcomes = Outcomes::default();
            let mut next = clock.sleep(tick);
            loop {
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return alive.leave(),
                    Some(done) = tasks.under_way.next(), if !tasks.under_way.is_empty() => {
                        tasks.at_work.remove(&done.task);
                        if done.task == Task::Tell {
                            tasks.begin_turns(|lane| lane == OWN_LANE);
                        }
                        outcomes.note(done);
                    }
                    () = &mut next => {
                        next = clock.sleep(tick);
                        let level_us = outcomes.level_us(&tasks.database);
                        tasks.begin(Task::Tell, |database| Box::pin(tell(database, level_us)));
                        // The own store's come when serving nodes have been told.
                        tasks.begin_turns(|lane| lane != OWN_LANE);
                    }
                }
            }
        }),
    );
}

struct Tasks {
    database: Arc<Database>,
    tick: Duration,
    under_way: UnderWay,
    at_work: BTreeSet<Task>,
}

impl Tasks {
    fn begin_turns(&mut self, wanted: impl Fn(u64) -> bool) {
        let turns = self.database.as_owner().map(|owner| owner.engine.online_turns());
        for (lane, turn) in turns.unwrap_or_default() {
            if wanted(lane) {
                let tick = self.tick;
                self.begin(Task::Turn(lane, turn), |database| Box::pin(take(database, lane, turn, tick)));
            }
        }
    }

    /// Unless it is under way.
    fn begin(&mut self, task: Task, make: impl FnOnce(Arc<Database>) -> BoxFuture<'static, Done>) {
        if self.at_work.insert(task) {
            self.under_way.push(make(self.database.clone()));
        }
    }
}

async fn tell(database: Arc<Database>, level_us: Option<i64>) -> Done {
    let begun_us = database.clock.now_us();
    if let Some(owner) = database.as_owner()
        && let Some(publisher) = &owner.publisher
    {
        publisher.tell(&owner.engine, &database.snapshot(), begun_us, level_us).await;
    }
    Done { task: Task::Tell, begun_us, error: None }
}

/// One turn, and the rest after it.
async fn take(database: Arc<Database>, lane: u64, turn: OnlineTurn, tick: Duration) -> Done {
    let clock = &database.clock;
    let begun_us = clock.now_us();
    let (error, is_read) = match database.as_owner() {
        Some(owner) => (owner.engine.take_turn(turn).await.err(), owner.places.own_redis().is_some()),
        None => (None, true),
    };
    let took = Duration::from_micros(clock.now_us().saturating_sub(begun_us).unsigned_abs());
    let rest = took * if lane == OWN_LANE && !is_read { REST_UNREAD } else { REST };
    let rest = if error.is_some() { RETRY.max(rest) } else { rest }.min(REST_MAX);
    // The next tick begins it anyway.
    if rest > tick {
        clock.sleep(rest).await;
    }
    Done { task: Task::Turn(lane, turn), begun_us, error }
}

/// What has come of the turns.
#[derive(Default)]
struct Outcomes {
    /// When the last turn of each view began that put all it had.
    level_us: BTreeMap<OnlineTurn, i64>,
    /// Those whose last turn failed.
    failing: BTreeSet<(u64, OnlineTurn)>,
}

impl Outcomes {
    fn note(&mut self, done: Done) {
        let Task::Turn(lane, turn) = done.task else { return };
        let Some(error) = done.error else {
            self.failing.remove(&(lane, turn));
            self.level_us.insert(turn, done.begun_us);
            return;
        };
        // Once per trouble of a store, not once per view and turn.
        if !self.failing.iter().any(|(other, _)| *other == lane) {
            tracing::error!(%error, "an online store is not level; it is tried again");
        }
        self.failing.insert((lane, turn));
    }

    /// What had changed by then is in the server's own store, of every view that is there; `None`: not known of some.
    fn level_us(&mut self, database: &Database) -> Option<i64> {
        let turns = database.as_owner()?.engine.online_turns();
        self.level_us.retain(|known, _| turns.iter().any(|(_, turn)| turn == known));
        self.failing.retain(|(_, known)| turns.iter().any(|(_, turn)| turn == known));
        let own = turns.iter().filter(|(lane, turn)| *lane == OWN_LANE && matches!(turn, OnlineTurn::View(_)));
        let all: Option<Vec<i64>> = own.map(|(_, turn)| self.level_us.get(turn).copied()).collect();
        let all = all?;
        Some(all.into_iter().min().unwrap_or_else(|| database.clock.now_us()))
    }
}

/// The last flush: everybody has left.
pub async fn finish(database: &Database) -> SeamResult<()> {
    let Some(owner) = database.as_owner() else { return Ok(()) };
    let begun_us = database.clock.now_us();
    if let Some(publisher) = &owner.publisher {
        publisher.tell(&owner.engine, &database.snapshot(), begun_us, None).await;
    }
    owner.engine.flush_online().await?;
    if let Some(publisher) = &owner.publisher {
        publisher.tell(&owner.engine, &database.snapshot(), begun_us, Some(begun_us)).await;
    }
    Ok(())
}
