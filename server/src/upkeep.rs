//! History is cared for unasked: one view at a time and one thing at a time, with rests.
//!
//! ```text
//!   every maintenance_interval, for each view:   survey ▶ due? ▶ compact ▶ fold manifests ▶ expire ▶ remove orphans
//!                                                                        └ after each a rest, four times as long, an interval at most
//! ```
//!
//! Then the archives of sources, in the same manner but for the rests. What fails (another engine was there first, a full disk)
//! is noted and tried again with the next survey. What computes runs on the threads of queries. A stop ends it wherever it is, which leaves files that nothing names and nothing else.

use crate::{database::Database, serve::REST, settings::Settings};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tidemark_catalog::FeatureView;
use tidemark_engine::{
    runtime::{Upkeep, ViewRuntime},
    seam::{Effort, SeamError, SeamResult},
};
use tokio::sync::watch;

/// What is said of archives in [`Turns::failing`]; no table is called so.
const ARCHIVES: &str = "archives of sources";

/// By which numbers; also what OPTIMIZE makes of small files.
pub fn upkeep(settings: &Settings) -> Upkeep {
    let us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Upkeep {
        effort: Effort {
            target_bytes: settings.history_file_bytes,
            files_min: settings.maintenance_files,
            doubling: true,
            bytes_max: settings.maintenance_bytes,
        },
        snapshot_retention_us: us(settings.snapshot_retention),
        orphan_age_us: us(settings.orphan_age),
    }
}

/// Until the server stops.
pub fn start(database: &Arc<Database>, settings: &Settings, stopping: watch::Receiver<bool>) {
    if !settings.maintenance {
        tracing::info!("history is not cared for by itself: setting maintenance is off");
        return;
    }
    let interval = settings.maintenance_interval;
    let alive = database.meters.tasks.begin("upkeep");
    let mut turns = Turns { database: database.clone(), interval, stopping, failing: BTreeSet::new() };
    database.clock.spawn(
        "upkeep",
        Box::pin(async move {
            while turns.rest(interval).await.is_some() && turns.round().await.is_some() {}
            drop(turns);
            alive.leave();
        }),
    );
}

/// In what follows `None` says that the server stops.
struct Turns {
    database: Arc<Database>,
    interval: Duration,
    stopping: watch::Receiver<bool>,
    /// Views of which a failure has been logged: once for each trouble, not once for each round.
    failing: BTreeSet<String>,
}

impl Turns {
    async fn rest(&mut self, pause: Duration) -> Option<()> {
        let sleep = self.database.clock.sleep(pause);
        tokio::select! {
            _ = self.stopping.wait_for(|stop| *stop) => None,
            () = sleep => Some(()),
        }
    }

    /// Every view once.
    async fn round(&mut self) -> Option<()> {
        let mut views = self.database.as_owner().map(|owner| owner.engine.views()).unwrap_or_default();
        let snapshot = self.database.snapshot();
        views.retain(|view| {
            let object = snapshot.get_id(view.state.id);
            object.and_then(|object| object.feature_view()).is_some_and(FeatureView::is_maintained)
        });
        for view in views {
            let name = view.history.read().name.clone();
            match self.turn(&view).await? {
                Ok(()) => {
                    self.failing.remove(&name);
                }
                Err(error) => {
                    if self.failing.insert(name.clone()) {
                        tracing::warn!(%error, history = name, "its files could not be cared for; it is tried again");
                    }
                }
            }
        }
        self.archives().await
    }

    /// Every source's archive once.
    async fn archives(&mut self) -> Option<()> {
        let Some(owner) = self.database.as_owner() else { return Some(()) };
        let (engine, upkeep) = (owner.engine.clone(), self.database.upkeep);
        match self.work(async move { engine.care_for_archives(&upkeep).await }).await? {
            Ok(()) => {
                self.failing.remove(ARCHIVES);
            }
            Err(error) => {
                if self.failing.insert(ARCHIVES.to_string()) {
                    tracing::warn!(%error, "the files of an archive could not be cared for; it is tried again");
                }
            }
        }
        Some(())
    }

    /// All that is due for a view. What fails holds up nothing else; the first error is told.
    async fn turn(&mut self, view: &Arc<ViewRuntime>) -> Option<SeamResult<()>> {
        let upkeep = self.database.upkeep;
        let Some(owner) = self.database.as_owner() else { return Some(Ok(())) };
        let engine = owner.engine.clone();
        let surveyed = {
            let (engine, view) = (engine.clone(), view.clone());
            self.work(async move { engine.survey_history(&view, &upkeep).await }).await?
        };
        let due = match surveyed {
            Ok(due) => due,
            Err(error) => return Some(Err(error)),
        };
        let mut outcome = Ok(());
        for care in due {
            let begun_us = self.database.clock.now_us();
            let (engine, cared) = (engine.clone(), view.clone());
            let done = self.work(async move { engine.care_for_history(&cared, care, &upkeep).await }).await?;
            outcome = outcome.and(done.map(|_| ()));
            let took = self.database.clock.now_us().saturating_sub(begun_us).unsigned_abs();
            // Never longer than between two rounds: the clock may have been set.
            self.rest((Duration::from_micros(took) * REST).min(self.interval)).await?;
        }
        Some(outcome)
    }

    /// On the threads of queries. It has let go of everything when this returns, also when the server stops: the next one
    /// may open the same directory then.
    async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = SeamResult<T>> + Send + 'static,
    ) -> Option<SeamResult<T>> {
        let mut stopping = self.stopping.clone();
        let stoppable = async move {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => None,
                done = work => Some(done),
            }
        };
        match self.database.queries.work(stoppable).await {
            Ok(done) => done,
            Err(error) => Some(Err(SeamError::NotDone(error.to_string()))),
        }
    }
}
