//! The online store and views that are kept together: what has changed is taken once, and put for each of them.

use crate::{
    key::Held,
    meter::span,
    runtime::{Engine, Online, ViewRuntime, refresh::Unput},
    seam::{SeamError, SeamResult},
    value::Value,
    view::{Encoded, Host, OnlineRows, Shown, ViewState},
};
use std::sync::Arc;

type Member = (Arc<ViewRuntime>, Arc<Host>);

/// What a key of the family has, of which each view reads its part.
type Taken = (Arc<[Value]>, Held);

/// The same with the key's encoding and until when it is so; `None`: the key is absent.
type TakenKey = (Encoded, Option<(Taken, Option<i64>)>);

fn taken(key: &Arc<[Value]>, held: &Held) -> Taken {
    (key.clone(), held.clone())
}

/// The rows of one of the views.
fn rows_of(host: &Host, held: &[TakenKey]) -> OnlineRows {
    let shown = |((key, held), until_us): &(Taken, Option<i64>)| Shown {
        row: host.projection.row(key, held),
        until_us: *until_us,
    };
    held.iter().map(|(encoded, held)| (encoded.clone(), held.as_ref().map(shown))).collect()
}

impl Engine {
    /// One turn of the tick: see [`Engine::flush_online`]. Returns how many rows were put.
    pub(in crate::runtime) async fn flush_members(&self, keeps: &ViewRuntime) -> SeamResult<usize> {
        let begun_us = self.seams.clock.now_us();
        let mut put = self.flush_family(keeps).await;
        let members = keeps.family.as_ref().map(|family| family.members()).unwrap_or_default();
        // The store has lost all of them at once, mostly, and each attempt learns that of one.
        for _ in &members {
            if put.is_ok() || !members.iter().any(|view| view.has_lost_online()) {
                break;
            }
            put = self.flush_family(keeps).await;
        }
        // To each its part of the rows, and of the time.
        let parts = members.len().max(1);
        let took_us = span(begun_us, self.seams.clock.now_us()) / parts as u64;
        let share = put.as_ref().ok().map(|rows| Ok(rows / parts));
        for view in &members {
            self.meters.flushed(&view.meters, share.as_ref().unwrap_or(&put), took_us);
            view.note_online(&put);
        }
        put
    }

    /// Puts what has changed, for every view of a family. Where one of them cannot take it, it is put again for all.
    pub(in crate::runtime) async fn flush_family(&self, keeps: &ViewRuntime) -> SeamResult<usize> {
        let mut put = 0;
        loop {
            let (rows, is_all) = self.flush_members_at_work(keeps).await?;
            put += rows;
            // Else one was dropped, which has its turn now; the others are not level yet.
            if is_all {
                return Ok(put);
            }
        }
    }

    /// Returns how many rows were put, and whether those were all: as soon as one of the views is dropped nothing more
    /// is.
    async fn flush_members_at_work(&self, keeps: &ViewRuntime) -> SeamResult<(usize, bool)> {
        keeps.state.relieve_all()?;
        let _flushing = keeps.flushing.lock().await;
        let members = self.members_at_work(keeps);
        let Some((first, _)) = members.first() else { return Ok((0, true)) };
        for (view, _) in &members {
            self.open_online(view).await?;
        }
        let now_us = first.now_us(self.seams.clock.now_us());
        let state: &ViewState = &keeps.state;
        let held = state.take_stale_as(now_us, taken).map_err(SeamError::not_done)?;
        let unput = Unput::in_flight(state);
        let mut put = 0;
        for (view, host) in &members {
            put += self.put_taken(view, host, &held).await?;
        }
        drop(held);
        unput.arrived();
        let (rows, mut is_all) = self.catch_up_family(keeps, &members, now_us).await?;
        put += rows;
        for (view, _) in members.iter().filter(|(view, _)| view.online() == Online::Filling) {
            if !is_all {
                break;
            }
            let (rows, is_filled) = self.fill_member(view, &members, now_us).await?;
            put += rows;
            is_all = is_filled;
        }
        Ok((put, is_all))
    }

    fn members_at_work(&self, keeps: &ViewRuntime) -> Vec<Member> {
        let members = keeps.family.as_ref().map(|family| family.members()).unwrap_or_default();
        let here = |view: Arc<ViewRuntime>| {
            let host = view.state.host().filter(|host| Arc::ptr_eq(&host.state, &keeps.state))?;
            self.is_at_work(&view).then_some((view, host))
        };
        members.into_iter().filter_map(here).collect()
    }

    /// One view's part of what was taken. What has been started again meanwhile puts its rows itself: these are older,
    /// and would have a newer version.
    async fn put_taken(&self, view: &ViewRuntime, host: &Host, held: &[TakenKey]) -> SeamResult<usize> {
        if !self.is_at_work(view) {
            return Ok(0);
        }
        self.put_online(view, rows_of(host, held)).await?;
        Ok(held.len())
    }

    /// All keys for all of them: which of them the store has is not known.
    async fn catch_up_family(&self, keeps: &ViewRuntime, members: &[Member], now_us: i64) -> SeamResult<(usize, bool)> {
        let unput = Unput::filling(&keeps.state);
        let (mut at, mut put) = (None, 0);
        while let Some(held) = keeps.state.catch_up_as(&mut at, now_us, taken).map_err(SeamError::not_done)? {
            for (view, host) in members {
                put += self.put_taken(view, host, &held).await?;
            }
            keeps.state.filled(held.len());
            // Whoever drops one does not wait for the rest.
            if members.iter().any(|(view, _)| !self.is_at_work(view)) {
                return Ok((put, false));
            }
        }
        unput.arrived();
        Ok((put, true))
    }

    /// All keys for one of them: the store has nothing of it.
    async fn fill_member(&self, view: &ViewRuntime, members: &[Member], now_us: i64) -> SeamResult<(usize, bool)> {
        let mut put = 0;
        let mut refresh = view.state.refresh();
        while let Some(rows) = refresh.page(now_us).map_err(SeamError::not_done)? {
            // Whoever drops one of them does not wait for the rest, and what has been started again puts its rows
            // itself.
            if members.iter().any(|(view, _)| !self.is_at_work(view)) {
                return Ok((put, false));
            }
            let page = rows.len();
            self.put_online(view, rows).await?;
            view.state.filled(page);
            put += page;
        }
        drop(refresh);
        let filled = self.seams.online.filled(view.state.id).await;
        // Where it has lost the view meanwhile, and nothing more is put, only opening it would tell.
        view.set_online(if filled.is_ok() { Online::Open } else { Online::Closed });
        filled?;
        Ok((put, true))
    }
}
