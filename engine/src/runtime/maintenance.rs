//! Care for a view's history table. It changes how steps are stored and never which: nothing here touches the view.

use super::{Engine, ViewRuntime};
use crate::seam::{Removed, Rewritten, SeamError, SeamResult};
use std::sync::Arc;
use tidemark_catalog::Object;

/// What was done for a view's history table since the server started.
#[derive(Debug, Clone, Default)]
pub struct Maintenance {
    /// The statement that runs.
    pub running: Option<&'static str>,
    /// The last that went well, and when it ended (microseconds).
    pub rewritten: Option<(i64, Rewritten)>,
    pub removed: Option<(i64, Removed)>,
    /// Of the last, if it failed.
    pub last_error: Option<String>,
}

/// Marks what runs; the statement may be dropped at any moment.
struct Running<'a>(&'a ViewRuntime);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.maintenance.write().running = None;
    }
}

impl Engine {
    /// Writes the small files of a view's history together.
    pub async fn optimize_history(&self, view: &Object) -> SeamResult<Rewritten> {
        let view = self.maintained(view)?;
        let _running = view.maintains("OPTIMIZE");
        let table = view.history.read().clone();
        let done = self.seams.history.optimize(&table).await;
        let at_us = self.seams.clock.now_us();
        let mut maintenance = view.maintenance.write();
        maintenance.last_error = done.as_ref().err().map(ToString::to_string);
        if let Ok(rewritten) = &done {
            maintenance.rewritten = Some((at_us, *rewritten));
        }
        drop(maintenance);
        done
    }

    /// Removes what a view's history has not needed since `older_than_us`.
    pub async fn vacuum_history(&self, view: &Object, older_than_us: i64) -> SeamResult<Removed> {
        let view = self.maintained(view)?;
        let _running = view.maintains("VACUUM");
        let table = view.history.read().clone();
        let done = self.seams.history.vacuum(&table, older_than_us).await;
        let at_us = self.seams.clock.now_us();
        let mut maintenance = view.maintenance.write();
        maintenance.last_error = done.as_ref().err().map(ToString::to_string);
        if let Ok(removed) = &done {
            maintenance.removed = Some((at_us, *removed));
        }
        drop(maintenance);
        done
    }

    fn maintained(&self, view: &Object) -> SeamResult<Arc<ViewRuntime>> {
        let running = self.view(view.id);
        running.ok_or_else(|| SeamError::NotDone(format!("feature view \"{}\" does not run", view.name)))
    }
}

impl ViewRuntime {
    fn maintains(&self, statement: &'static str) -> Running<'_> {
        self.maintenance.write().running = Some(statement);
        Running(self)
    }
}
