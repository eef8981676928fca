//! `REFRESH ONLINE STORE`: the rows of all keys of a view are put again, beside the work, for whoever has changed something
//! there by hand. What the store itself says that it has lost is put again without being asked (`Engine::flush_online`).

use super::{Engine, Online, ViewRuntime};
use crate::{
    meter::span,
    progress::{Phase, Progress},
    seam::{SeamError, SeamResult},
    view::{Refresh, ViewState},
};
use std::{sync::Arc, time::Duration};
use tidemark_catalog::ObjectId;

/// A refresh rests whenever it has put as many keys: then nobody else waits for it longer than for some calls.
const REST_AFTER: u64 = 1_000;

/// Keys put in a second at most: what a Redis takes on one core, and leaves half of it to its readers.
const KEYS_PER_S: u64 = 100_000;

/// It rests as long as it worked, but hardly longer than a flush takes: what it waited for others is no work.
const REST_US_MAX: u64 = 100_000;

/// What a refresh has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Keys whose rows, or whose absence, were put.
    pub keys: u64,
    pub took_us: u64,
}

impl Engine {
    /// Puts the rows of all keys of a view into the online store again, at a bounded rate, and returns when they are
    /// there. `None`: the view does not run, or does not any more. May be given up at any time: then the rows put so far
    /// have been put, and what changes goes on being put as ever.
    ///
    /// # Errors
    /// The store does not take them, or the state cannot be read.
    pub async fn refresh_online(&self, id: ObjectId) -> SeamResult<Option<Refreshed>> {
        self.refresh_online_watched(id, &Progress::default()).await
    }

    /// The same, and tells how many keys are put. Where the store has lost the view all are put as one, and counted at the end.
    pub async fn refresh_online_watched(&self, id: ObjectId, progress: &Progress) -> SeamResult<Option<Refreshed>> {
        let Some(view) = self.view(id) else { return Ok(None) };
        let begun_us = self.seams.clock.now_us();
        let keys = view.state.count(|counters| &counters.keys);
        progress.count(Phase::Putting, Some(keys), begun_us);
        let mut put = self.put_again(&view, progress).await;
        if put.is_err() && view.has_lost_online() {
            put = self.fill_online(&view).await;
        }
        if !self.is_at_work(&view) {
            return Ok(None);
        }
        view.note_online(&put);
        Ok(Some(Refreshed { keys: put?, took_us: span(begun_us, self.seams.clock.now_us()) }))
    }

    async fn put_again(&self, view: &ViewRuntime, progress: &Progress) -> SeamResult<u64> {
        view.doubt_online();
        {
            let _flushing = self.hold_puts(view).await;
            if self.is_at_work(view) {
                self.open_online(view).await?;
            }
        }
        if view.online() == Online::Filling {
            return self.fill_online(view).await;
        }
        let clock = &self.seams.clock;
        let mut refresh = view.state.refresh();
        let (mut keys, mut since_rest, mut rested_us) = (0, 0, clock.now_us());
        while let Some(put) = self.put_page(view, &mut refresh).await? {
            keys += put;
            progress.add(put);
            since_rest += put;
            if since_rest >= REST_AFTER {
                let rest_us = rest_us(since_rest, span(rested_us, clock.now_us()));
                clock.sleep(Duration::from_micros(rest_us)).await;
                (since_rest, rested_us) = (0, clock.now_us());
            }
            // Whoever wants to stop it is heard.
            tokio::task::yield_now().await;
        }
        drop(refresh);
        // Keys that have come into memory meanwhile, among others.
        self.flush_view(view).await?;
        Ok(keys)
    }

    /// One page; `None`: there is nothing more to put. Flushes and drops come between two of them.
    async fn put_page(&self, view: &ViewRuntime, refresh: &mut Refresh<'_>) -> SeamResult<Option<u64>> {
        let _flushing = self.hold_puts(view).await;
        if !self.is_at_work(view) {
            return Ok(None);
        }
        let now_us = view.now_us(self.seams.clock.now_us());
        let Some(rows) = refresh.page(now_us).map_err(SeamError::not_done)? else { return Ok(None) };
        let put = rows.len();
        self.put_online(view, rows).await?;
        view.state.filled(put);
        Ok(Some(put as u64))
    }

    /// The store has lost the view, and gets all of it by that.
    async fn fill_online(&self, view: &ViewRuntime) -> SeamResult<u64> {
        self.flush_view(view).await?;
        Ok(view.state.count(|counters| &counters.keys))
    }

    /// Whether this is the view's runtime, and runs: nothing is put of one that has been dropped.
    pub(super) fn is_at_work(&self, view: &ViewRuntime) -> bool {
        let views = self.views.read();
        let is_current = views.get(&view.state.id).is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), view));
        is_current && !view.has_failed()
    }
}

/// How long to rest after so many keys in so much time, microseconds.
fn rest_us(keys: u64, took_us: u64) -> u64 {
    let least_us = keys.saturating_mul(1_000_000) / KEYS_PER_S;
    took_us.min(REST_US_MAX).max(least_us.saturating_sub(took_us))
}

/// What a flush has taken, until the store has it: where that fails, or nobody waits for it any more, it is to be put again.
pub(super) struct Unput<'a> {
    state: &'a ViewState,
    /// Some of all keys, which are read page by page; else those that are in flight.
    is_filling: bool,
    has_arrived: bool,
}

impl<'a> Unput<'a> {
    /// What the view has in flight.
    pub(super) fn in_flight(state: &'a ViewState) -> Unput<'a> {
        Unput { state, is_filling: false, has_arrived: false }
    }

    pub(super) fn filling(state: &'a ViewState) -> Unput<'a> {
        Unput { state, is_filling: true, has_arrived: false }
    }

    /// The store has it.
    pub(super) fn arrived(mut self) {
        self.has_arrived = true;
    }
}

impl Drop for Unput<'_> {
    fn drop(&mut self) {
        match (self.is_filling, self.has_arrived) {
            (true, true) => {}
            (true, false) => self.state.is_behind(),
            (false, true) => self.state.arrived(),
            (false, false) => self.state.not_arrived(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_works_half_of_the_time_and_puts_no_more_than_is_said() {
        for (keys, took_us, rests_us) in [
            (1_000, 0, 10_000),
            (1_000, 4_000, 6_000),
            (1_000, 8_000, 8_000),
            (1_024, 30_000_000, REST_US_MAX),
            (0, 0, 0),
        ] {
            assert_eq!(rest_us(keys, took_us), rests_us, "{keys} keys in {took_us} µs");
        }
    }
}
