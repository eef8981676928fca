//! Care for a view's history table. It changes how steps are stored and never which: nothing here touches the view.

use super::Engine;
use crate::seam::{HistoryTable, Removed, Rewritten, SeamError, SeamResult};
use tidemark_catalog::Object;

impl Engine {
    /// Writes the small files of a view's history together.
    pub async fn optimize_history(&self, view: &Object) -> SeamResult<Rewritten> {
        let table = self.history_of(view)?;
        self.seams.history.optimize(&table).await
    }

    /// Removes what a view's history has not needed since `older_than_us`.
    pub async fn vacuum_history(&self, view: &Object, older_than_us: i64) -> SeamResult<Removed> {
        let table = self.history_of(view)?;
        self.seams.history.vacuum(&table, older_than_us).await
    }

    fn history_of(&self, view: &Object) -> SeamResult<HistoryTable> {
        let running = self.view(view.id);
        let table = running.map(|running| running.history.read().clone());
        table.ok_or_else(|| SeamError::NotDone(format!("feature view \"{}\" does not run", view.name)))
    }
}
