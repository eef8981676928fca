//! All keys of a view once more, for an online store that says it has them: somebody may have changed something there by
//! hand. Only read: what waits to be put goes on waiting, so whoever stops half way leaves nothing undone.

use super::{OnlineRows, ViewState, cold::ColdKeys, seam, shard::Encoded};
use datafusion::error::Result as DfResult;
use std::sync::atomic::Ordering;

/// Keys in one page: Redis takes them in a few calls of about a millisecond, and a flush waits for one page.
const PAGE: usize = 1024;

/// How far such a walk is.
///
/// ```text
///   unsaved, by name    changed since the last checkpoint: perhaps in memory only
///   stored              all the others, page by page; in memory or not, they are read where they are
/// ```
///
/// A key may leave the store for memory between the two. While this lives, keys that come into memory wait to be put like
/// those that have changed, so the flush after it has them.
pub struct Refresh<'a> {
    view: &'a ViewState,
    /// In order.
    unsaved: Vec<Encoded>,
    /// How many of them are done.
    done: usize,
    stored: Option<ColdKeys>,
}

impl ViewState {
    /// Begins with the first key.
    pub fn refresh(&self) -> Refresh<'_> {
        if let Some(cold) = &self.cold {
            cold.refreshing.fetch_add(1, Ordering::AcqRel);
            cold.filled.store(0, Ordering::Relaxed);
        }
        let mut refresh = Refresh { view: self, unsaved: vec![], done: 0, stored: None };
        for shard in &self.shards {
            let shard = shard.lock();
            match self.cold {
                Some(_) => refresh.unsaved.extend(shard.unsaved()),
                None => refresh.unsaved.extend(shard.entries().map(|entry| entry.encoded.clone())),
            }
        }
        refresh.unsaved.sort_unstable();
        refresh.stored = self.cold.as_ref().map(|cold| cold.keys(self.generation()));
        refresh
    }
}

impl Refresh<'_> {
    /// The next rows as of `at_us`; `None`: that was all. Keys that are over meanwhile are left out, so there may be none.
    pub fn page(&mut self, at_us: i64) -> DfResult<Option<OnlineRows>> {
        let view = self.view;
        let keys = self.next_keys()?;
        if keys.is_empty() {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(row) = view.with_cold(&key, |state| view.show(state, at_us))? {
                rows.push((key, row));
            }
        }
        Ok(Some(rows))
    }

    fn next_keys(&mut self) -> DfResult<Vec<Encoded>> {
        let end = self.unsaved.len().min(self.done + PAGE);
        if self.done < end {
            let keys = self.unsaved[self.done..end].to_vec();
            self.done = end;
            return Ok(keys);
        }
        let view = self.view;
        let (Some(cold), Some(stored)) = (&view.cold, &mut self.stored) else { return Ok(vec![]) };
        loop {
            let page = cold.next_keys(stored, || view.generation()).map_err(seam)?;
            let is_end = page.is_empty();
            let mut keys: Vec<Encoded> = page.into_iter().map(Encoded::from).collect();
            keys.retain(|key| self.unsaved.binary_search(key).is_err());
            if is_end || !keys.is_empty() {
                return Ok(keys);
            }
        }
    }
}

impl Drop for Refresh<'_> {
    fn drop(&mut self) {
        if let Some(cold) = &self.view.cold {
            cold.refreshing.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
