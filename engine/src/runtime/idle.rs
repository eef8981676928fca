//! Sources whose time goes on though no record comes: because they are idle, and by hand.

use super::{Engine, IngestError};
use crate::seam::{SeamError, SeamResult};
use tidemark_catalog::ObjectId;

/// How far a watermark moves at once where keys are due: a quiet key has a step a month.
const ADVANCE_PIECE_US: i64 = 31 * 24 * 3_600_000_000;

impl Engine {
    /// What time alone brings: idle sources move their frontier (recorded in the log), as often as their idle timeout says and
    /// where a view waits for it. Before history is committed. Returns how many did.
    pub async fn advance_idle(&self) -> SeamResult<usize> {
        self.advance_sources(true).await
    }

    /// The same between the commits, of those whose time it is: an idle timeout may be shorter than what lies between two.
    pub async fn advance_idle_in_time(&self) -> SeamResult<usize> {
        self.advance_sources(false).await
    }

    async fn advance_sources(&self, for_views: bool) -> SeamResult<usize> {
        let mut advanced = Ok(0);
        for source in self.sources() {
            let moved = source.advance_if_idle(&self.seams, for_views).await;
            // The first error, when every source has had its turn.
            advanced = advanced.and_then(|all: usize| Ok(all + usize::from(moved?)));
        }
        advanced
    }

    /// `ALTER SOURCE … ADVANCE WATERMARK TO`. A leap goes by pieces: in each, a key has a few steps by time alone, and those
    /// of all pieces before may be in history and out of memory.
    pub async fn advance_watermark(&self, id: ObjectId, to_us: i64) -> SeamResult<()> {
        let Some(source) = self.source(id) else { return Ok(()) };
        loop {
            let due_us =
                self.kept().iter().filter(|view| view.reads(id)).filter_map(|view| view.state.earliest_due()).min();
            // Never back, and beyond what is next due, so that every piece does something.
            let piece_us = due_us.unwrap_or(i64::MAX).max(source.frontier_us()).saturating_add(ADVANCE_PIECE_US);
            source.advance(piece_us.min(to_us), self.seams.clock.now_us()).await?;
            if piece_us >= to_us {
                return Ok(());
            }
            self.make_way(&source).await.map_err(|error| match error {
                IngestError::Seam(error) => error,
                other => SeamError::not_done(other),
            })?;
            tokio::task::yield_now().await;
        }
    }
}
