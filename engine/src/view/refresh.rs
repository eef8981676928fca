//! All keys of a view once more, for an online store that says it has them: somebody may have changed something there by
//! hand. Only read: what waits to be put goes on waiting, so whoever stops half way leaves nothing undone.

use super::{Host, OnlineRows, Shown, ViewState, cold::ColdKeys, reading::row, seam, shard::Encoded};
use datafusion::error::Result as DfResult;
use std::sync::{Arc, atomic::Ordering};

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
/// those that have changed, so the flush after it has them. Where the keys move to those of other views it begins again.
pub struct Refresh<'a> {
    view: &'a ViewState,
    /// Where its keys were when it began.
    host: Option<Arc<Host>>,
    /// In order.
    unsaved: Vec<Encoded>,
    /// How many of them are done.
    done: usize,
    stored: Option<ColdKeys>,
}

impl ViewState {
    /// Begins with the first key.
    pub fn refresh(&self) -> Refresh<'_> {
        let host = self.host();
        let mut unsaved = vec![];
        let stored = {
            let keeper = keeper(self, &host);
            if let Some(cold) = &keeper.cold {
                cold.refreshing.fetch_add(1, Ordering::AcqRel);
                cold.filled.store(0, Ordering::Relaxed);
            }
            for shard in &keeper.shards {
                let shard = shard.lock();
                match keeper.cold {
                    Some(_) => unsaved.extend(shard.unsaved()),
                    None => unsaved.extend(shard.entries().map(|entry| entry.encoded.clone())),
                }
            }
            unsaved.sort_unstable();
            keeper.cold.as_ref().map(|cold| cold.keys(keeper.generation()))
        };
        Refresh { view: self, host, unsaved, done: 0, stored }
    }
}

/// Who has the keys of a view.
fn keeper<'a>(view: &'a ViewState, host: &'a Option<Arc<Host>>) -> &'a ViewState {
    host.as_ref().map_or(view, |host| host.state.as_ref())
}

impl Refresh<'_> {
    /// The next rows as of `at_us`; `None`: that was all. Keys that are over meanwhile are left out, so there may be none.
    pub fn page(&mut self, at_us: i64) -> DfResult<Option<OnlineRows>> {
        if !self.view.is_still(&self.host) {
            *self = self.view.refresh();
        }
        let keys = self.next_keys()?;
        if keys.is_empty() {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(keys.len());
        let keeper = keeper(self.view, &self.host);
        for key in keys {
            let shown = keeper.with_cold(&key, |state| match &self.host {
                Some(host) => keeper.show_as(state, at_us, |key, held| host.projection.row(key, held)),
                None => keeper.show_as(state, at_us, row),
            })?;
            if let Some(shown) = shown {
                rows.push((key, shown.map(Shown::of)));
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
        let keeper = keeper(self.view, &self.host);
        let (Some(cold), Some(stored)) = (&keeper.cold, &mut self.stored) else { return Ok(vec![]) };
        loop {
            let page = cold.next_keys(stored, || keeper.generation()).map_err(seam)?;
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
        if let Some(cold) = &keeper(self.view, &self.host).cold {
            cold.refreshing.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
