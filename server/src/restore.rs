//! Feature views come back after a start while clients are there: a lookup waits for its own view alone, which comes next then.
//!
//! ```text
//!   clients connect ──▶ the views come back, one after the other ──▶ topics, flushes, checkpoints, /readyz
//!   a lookup of v, a query that reads v        v comes back now, beside the others ──▶ its answer
//!   what changes something, or tells of all    waits until all are back
//! ```
//!
//! So nothing is appended, created or saved before all of them are there: recovery is what it is without clients.

use crate::{database::Database, pg::PgError};
use datafusion::{common::tree_node::TreeNodeRecursion, error::Result as DfResult, logical_expr::LogicalPlan};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::SeamResult;
use tidemark_planner::table::{ScanTarget, TidemarkTable};
use tokio::sync::{Semaphore, watch};

/// Views that are restored at once because somebody waits for them; whoever waits for further ones waits for these first. Each has
/// a batch of a log in memory, some megabytes, and one with much of its log before it does not hold up seven others.
const ASKED_MAX: usize = 8;

/// How far a start is.
pub struct Restore {
    state: watch::Sender<State>,
    /// Room for views that somebody waits for.
    asked: Semaphore,
    /// The views that have been asked for: each once, however many wait for it, give up and come again.
    wanted: Mutex<BTreeSet<ObjectId>>,
}

#[derive(Debug, Clone)]
enum State {
    UnderWay,
    Done,
    /// It was broken off, and why.
    Ended(Arc<str>),
}

impl Default for Restore {
    fn default() -> Restore {
        Restore {
            state: watch::Sender::new(State::UnderWay),
            asked: Semaphore::new(ASKED_MAX),
            wanted: Mutex::default(),
        }
    }
}

impl Restore {
    /// Whether all views are back, and what begins then has begun.
    pub fn is_done(&self) -> bool {
        matches!(*self.state.borrow(), State::Done)
    }

    /// Returns when they are.
    ///
    /// # Errors
    /// It was broken off: the server ends.
    pub async fn over(&self) -> Result<(), PgError> {
        let mut state = self.state.subscribe();
        let over = state.wait_for(|state| !matches!(state, State::UnderWay)).await;
        match over.as_deref() {
            Ok(State::Done) => Ok(()),
            Ok(State::Ended(why)) => Err(ended(why)),
            Ok(State::UnderWay) | Err(_) => Err(ended("nobody restores the feature views")),
        }
    }
}

fn ended(why: &str) -> PgError {
    PgError::error("57P03", why).hint("connect again when the server has started: recovery is begun again then")
}

/// Dropped by the task of a start, whatever becomes of that: who waits is told.
struct Over {
    database: Arc<Database>,
    state: State,
}

impl Drop for Over {
    fn drop(&mut self) {
        if let Some(owner) = self.database.as_owner() {
            owner.restore.state.send_replace(self.state.clone());
        }
    }
}

/// Restores the views of the catalog, beside one another by so many tasks; then does `then`, and then they are there for all.
pub fn start(
    database: &Arc<Database>,
    tasks: usize,
    stopping: watch::Receiver<bool>,
    then: impl FnOnce(&Arc<Database>) + Send + 'static,
) {
    for _ in 0..tasks {
        let (database, mut stopping) = (database.clone(), stopping.clone());
        let clock = database.clock.clone();
        clock.spawn(
            "restore",
            Box::pin(async move {
                let Some(owner) = database.as_owner() else { return };
                let snapshot = database.snapshot();
                tokio::select! {
                    () = owner.engine.restore_waiting(&snapshot) => {}
                    _ = stopping.wait_for(|stop| *stop) => {}
                }
            }),
        );
    }
    let (database, mut stopping) = (database.clone(), stopping);
    let clock = database.clock.clone();
    clock.spawn(
        "recovery",
        Box::pin(async move {
            let panicked = State::Ended("recovery failed: a task of it panicked, and the log says where".into());
            let mut over = Over { database: database.clone(), state: panicked };
            let ended = tokio::select! {
                // First: what is under way is given up then, too.
                biased;
                _ = stopping.wait_for(|stop| *stop) => {
                    State::Ended("the server stops before its feature views are back".into())
                }
                restored = all(&database) => match restored {
                    Ok(()) => {
                        then(&database);
                        State::Done
                    }
                    Err(error) => State::Ended(format!("recovery failed: {error}").into()),
                },
            };
            over.state = ended;
        }),
    );
}

async fn all(database: &Database) -> SeamResult<()> {
    let Some(owner) = database.as_owner() else { return Ok(()) };
    let begun_us = database.clock.now_us();
    owner.engine.all_restored().await?;
    owner.engine.finish_restoring(&database.snapshot()).await?;
    let views = owner.engine.views().len();
    let ms = database.clock.now_us().saturating_sub(begun_us) / 1000;
    tracing::info!(views, ms, "the feature views are back");
    Ok(())
}

/// Whether it reads a table that tells how views stand, beyond what the catalog says of them.
fn tells_of_all(plan: &LogicalPlan) -> DfResult<bool> {
    let mut tells = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = TidemarkTable::of(&scan.source)
            && let ScanTarget::System(name) = &table.target
        {
            tells |= name.starts_with("tidemark.");
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tells)
}

impl Database {
    /// Whether all views are back since the start. A serving node has none of its own.
    pub fn is_restored(&self) -> bool {
        self.as_owner().is_none_or(|owner| owner.restore.is_done())
    }

    /// Returns when all views are back.
    ///
    /// # Errors
    /// As [`Restore::over`].
    pub async fn all_restored(&self) -> Result<(), PgError> {
        match self.as_owner() {
            Some(owner) if !owner.restore.is_done() => owner.restore.over().await,
            _ => Ok(()),
        }
    }

    /// Returns when these of the objects are back that are views; they come next.
    ///
    /// # Errors
    /// As [`Restore::over`].
    pub async fn views_restored(self: &Arc<Self>, views: &[ObjectId]) -> Result<(), PgError> {
        let Some(owner) = self.as_owner().filter(|owner| !owner.restore.is_done()) else { return Ok(()) };
        for view in views.iter().filter(|view| owner.engine.is_awaited(**view)) {
            if owner.restore.wanted.lock().insert(*view) {
                self.ask_for(*view);
            }
        }
        for view in views {
            tokio::select! {
                biased;
                Ok(()) = owner.engine.restored(*view) => {}
                over = owner.restore.over() => over?,
            }
        }
        Ok(())
    }

    /// The same of what a plan reads, where `reads` are its objects.
    ///
    /// # Errors
    /// As [`Restore::over`].
    pub async fn read_restored(self: &Arc<Self>, plan: &LogicalPlan, reads: &[ObjectId]) -> Result<(), PgError> {
        if self.is_restored() {
            return Ok(());
        }
        match tells_of_all(plan)? {
            true => self.all_restored().await,
            false => self.views_restored(reads).await,
        }
    }

    /// A task of its own restores a view: whoever asked may go away, and others have begun to wait.
    fn ask_for(self: &Arc<Self>, view: ObjectId) {
        let database = self.clone();
        self.clock.spawn(
            "restore first",
            Box::pin(async move {
                let Some(owner) = database.as_owner() else { return };
                let snapshot = database.snapshot();
                let restored = async {
                    if let Ok(_room) = owner.restore.asked.acquire().await {
                        owner.engine.restore_first(view, &snapshot).await;
                    }
                };
                tokio::select! {
                    () = restored => {}
                    // At the end of it there is nothing to restore, or nobody for whom.
                    _ = owner.restore.over() => {}
                }
            }),
        );
    }
}
