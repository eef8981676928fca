//! The state store and the online store in memory, each behind faults.

use super::faults::{Fate, Faults, Kind, Part, unknown};
use crate::store::Store;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{
    Keyspace, OnlineStore, OnlineValue, Put, PutVersion, SeamError, SeamResult, StateStore, WriteBatch,
};

pub struct SimState {
    pub faults: Arc<Faults>,
    pub store: Arc<Store>,
}

#[async_trait]
impl StateStore for SimState {
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()> {
        let fate = self.faults.fate(Part::State, Kind::Write).await;
        if matches!(fate, Fate::Fine | Fate::Unknown(true) | Fate::Crash(true)) {
            self.store.checkpoint(batch).await?;
        }
        answer(fate).await
    }

    fn spill(&self, batch: WriteBatch) -> SeamResult<()> {
        self.faults.call_now(Part::State, Kind::Write, || self.store.spill(batch))
    }

    fn get(&self, keyspace: Keyspace, key: &[u8]) -> SeamResult<Option<Vec<u8>>> {
        self.faults.call_now(Part::State, Kind::Read, || self.store.get(keyspace, key))
    }

    fn page(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        entries_max: usize,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>> {
        // Fewer are allowed, and every border between two pages is one more place to go wrong.
        let most = entries_max.min([3, 20, usize::MAX][self.faults.below(3)]);
        self.faults.call_now(Part::State, Kind::Read, || self.store.page(keyspace, prefix, after, most))
    }

    async fn remove(&self, keyspace: Keyspace, prefix: &[u8]) -> SeamResult<()> {
        let fate = self.faults.fate(Part::State, Kind::Write).await;
        if matches!(fate, Fate::Fine | Fate::Unknown(true) | Fate::Crash(true)) {
            self.store.remove(keyspace, prefix).await?;
        }
        answer(fate).await
    }
}

async fn answer(fate: Fate) -> SeamResult<()> {
    match fate {
        Fate::Fine => Ok(()),
        Fate::Refused(error) => Err(error),
        Fate::Unknown(_) => Err(unknown()),
        Fate::Crash(_) => std::future::pending().await,
    }
}

/// What the online store says that has lost a view while it was filled.
const LOST: &str = "the view was lost while it was filled";

/// Whether an error is that, and no fault.
pub fn is_lost(error: &SeamError) -> bool {
    matches!(error, SeamError::NotDone(said) if said == LOST)
}

type Rows = BTreeMap<(ObjectId, Bytes), OnlineValue>;

/// Puts that got no answer may arrive in part, later, after others, and twice.
pub struct SimOnline {
    faults: Arc<Faults>,
    rows: Mutex<Rows>,
    /// The views it knows, and whether it has all of them.
    views: Mutex<BTreeMap<ObjectId, bool>>,
    /// The greatest version that was ever put of each key.
    newest: Mutex<BTreeMap<(ObjectId, Bytes), PutVersion>>,
    on_their_way: Mutex<Vec<(ObjectId, Vec<OnlineValue>)>>,
}

impl SimOnline {
    pub fn new(faults: Arc<Faults>) -> SimOnline {
        SimOnline {
            faults,
            rows: Mutex::default(),
            views: Mutex::default(),
            newest: Mutex::default(),
            on_their_way: Mutex::default(),
        }
    }

    fn accept(&self, view: ObjectId, values: impl IntoIterator<Item = OnlineValue>) {
        let mut rows = self.rows.lock();
        for value in values {
            let stored = rows.entry((view, value.key.clone())).or_insert_with(|| value.clone());
            if value.version > stored.version {
                *stored = value;
            }
        }
    }

    /// What was on its way arrives, the latest first.
    pub fn arrive(&self) {
        let waited = std::mem::take(&mut *self.on_their_way.lock());
        waited.into_iter().rev().for_each(|(view, values)| self.accept(view, values));
    }

    /// It comes back without what it had.
    pub fn lose(&self) {
        self.views.lock().clear();
        self.rows.lock().clear();
        self.on_their_way.lock().clear();
    }

    /// Somebody removes a view's values by hand.
    pub fn spoil(&self, view: ObjectId) {
        self.rows.lock().retain(|(of, _), _| *of != view);
    }

    /// The rows of a view as any reader finds them.
    pub fn rows(&self, view: ObjectId) -> BTreeMap<Bytes, Bytes> {
        let rows = self.rows.lock();
        let of_view = rows.iter().filter(|((of, _), _)| *of == view);
        of_view.filter_map(|((_, key), value)| Some((key.clone(), value.row.clone()?))).collect()
    }

    fn note(&self, view: ObjectId, values: &[OnlineValue]) {
        let mut newest = self.newest.lock();
        for value in values {
            let before = newest.insert((view, value.key.clone()), value.version);
            assert!(
                before.is_none_or(|before| before < value.version),
                "a put goes back in version: {:?}",
                value.version
            );
        }
    }
}

#[async_trait]
impl OnlineStore for SimOnline {
    async fn open_view(&self, view: ObjectId) -> SeamResult<bool> {
        let open = || Ok(*self.views.lock().entry(view).or_insert(false));
        self.faults.call(Part::Online, Kind::Write, open).await
    }

    async fn filled(&self, view: ObjectId) -> SeamResult<()> {
        // As in Redis: that nothing was put since the view was lost does not make it whole.
        let filled = || {
            let mut views = self.views.lock();
            let Some(has_all) = views.get_mut(&view) else { return Err(SeamError::NotDone(LOST.to_string())) };
            *has_all = true;
            Ok(())
        };
        self.faults.call(Part::Online, Kind::Write, filled).await
    }

    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put> {
        if !self.views.lock().contains_key(&view) {
            return Ok(Put::NoView);
        }
        self.note(view, &values);
        let fate = self.faults.fate(Part::Online, Kind::Write).await;
        match &fate {
            Fate::Fine => self.accept(view, values),
            Fate::Refused(_) => {
                let some = self.faults.below(values.len() + 1);
                self.accept(view, values.into_iter().take(some));
            }
            Fate::Unknown(_) | Fate::Crash(true) => {
                let some = self.faults.below(values.len() + 1);
                self.accept(view, values.iter().rev().take(some).cloned());
                if self.faults.below(2) == 0 {
                    self.on_their_way.lock().push((view, values));
                }
            }
            Fate::Crash(false) => {}
        }
        answer(fate).await.map(|()| Put::Done)
    }

    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        let found = || {
            let rows = self.rows.lock();
            Ok(keys.iter().map(|key| rows.get(&(view, key.clone())).cloned()).collect())
        };
        self.faults.call(Part::Online, Kind::Read, found).await
    }

    async fn drop_view(&self, view: ObjectId) -> SeamResult<()> {
        let gone = || {
            self.rows.lock().retain(|(of, _), _| *of != view);
            self.views.lock().remove(&view);
            self.newest.lock().retain(|(of, _), _| *of != view);
            // A store on this disk: what was put before is settled.
            self.on_their_way.lock().retain(|(of, _)| *of != view);
            Ok(())
        };
        self.faults.call(Part::Online, Kind::Write, gone).await
    }
}
