//! Where the online values of each feature view are: in the server's own store, or where its option `online` says.
//!
//! ```text
//! DIR/PLACES   JSON: of each view that is, or was, elsewhere: where it is, whether all of it is there yet, and where it was
//! ```
//!
//! A view that moves is put whole into the new place, then removed from the one before. The file is written before the first
//! value goes to a new place, so that what a crash leaves behind is found again. It has addresses with their passwords, as the
//! catalog has, and is for the server's user only.

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::{ObjectId, Snapshot};
use tidemark_connectors::{
    online::FjallOnline,
    redis::{Address, RedisOnline, owner},
};
use tidemark_engine::seam::{Clock, OnlineStore, OnlineValue, Put, SeamError, SeamResult, Traffic};

/// The data directory.
const EMBEDDED: &str = "embedded";
/// Nothing is put.
const NONE: &str = "none";
/// As all views without the option.
pub const DEFAULT: &str = "default";

/// The lane of the server's own store, which is opened first.
pub const OWN_LANE: u64 = 0;

/// Why a view cannot be put where it was said.
pub enum Refused {
    /// It is no address.
    Address(String),
    /// Nobody answers, or does not let us in.
    Away(SeamError),
}

pub struct Places {
    data: PathBuf,
    clock: Arc<dyn Clock>,
    /// Where the views without the option are: an address, or [`EMBEDDED`].
    own: String,
    /// The same, where it is a Redis.
    own_redis: Option<Arc<RedisOnline>>,
    /// By their place; views that name the same one share its connection. As many as there are addresses in the catalog, and
    /// were since the start.
    stores: Mutex<BTreeMap<String, Opened>>,
    /// Of views that are not here, all of them always were in the server's own store.
    views: RwLock<BTreeMap<ObjectId, Standing>>,
}

#[derive(Clone)]
struct Opened {
    lane: u64,
    store: Arc<dyn OnlineStore>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    /// `None`: the view has been dropped.
    at: Option<String>,
    /// All of its values have been put there once.
    is_whole: bool,
    /// Where some of them may be left.
    before: BTreeSet<String>,
}

impl Standing {
    /// From here on it is at `place`.
    fn go(&mut self, place: &str) {
        let same = |other: &str| keys(other) == keys(place);
        match self.at.replace(place.to_string()) {
            Some(at) if same(&at) => {}
            at => {
                self.before.extend(at.filter(|at| at != NONE));
                self.is_whole = false;
            }
        }
        // What is put there now is not to be removed.
        self.before.retain(|before| !same(before));
    }
}

/// Which keys a place has: an address may be written in several ways.
fn keys(place: &str) -> String {
    match place {
        EMBEDDED | NONE => place.to_string(),
        address => Address::parse(address).map_or_else(|_| address.to_string(), |parsed| parsed.keys().to_string()),
    }
}

impl Places {
    /// `own`: the address of the server's own store; without one it is in the data directory. Whether it answers is not asked.
    pub fn open(data: &Path, own: Option<&str>, clock: Arc<dyn Clock>) -> SeamResult<Places> {
        let views = match std::fs::read(data.join("PLACES")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| SeamError::NotDone(format!("{}: {error}", data.join("PLACES").display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(SeamError::io(data.join("PLACES").display(), &error)),
        };
        let mut places = Places {
            data: data.to_path_buf(),
            clock,
            own: own.unwrap_or(EMBEDDED).to_string(),
            own_redis: None,
            stores: Mutex::default(),
            views: RwLock::new(views),
        };
        match own {
            None => {
                places.opened(EMBEDDED)?;
            }
            Some(address) => {
                let redis = Arc::new(places.redis(address)?);
                let opened = Opened { lane: OWN_LANE, store: redis.clone() };
                places.stores.get_mut().insert(address.to_string(), opened);
                places.own_redis = Some(redis);
            }
        }
        Ok(places)
    }

    /// The server's own store, where serving nodes can read it.
    pub fn own_redis(&self) -> Option<Arc<RedisOnline>> {
        self.own_redis.clone()
    }

    fn redis(&self, address: &str) -> SeamResult<RedisOnline> {
        let address = Address::parse(address).map_err(SeamError::NotDone)?;
        Ok(RedisOnline::new(address, owner(&self.data, self.clock.as_ref())?))
    }

    /// What the catalog has is where its options say, and what it does not have is to be removed.
    pub fn settle(&self, snapshot: &Snapshot) -> SeamResult<()> {
        let gone: Vec<ObjectId> =
            self.views.read().keys().filter(|id| snapshot.get_id(**id).is_none()).copied().collect();
        self.change(|views| {
            for id in &gone {
                if let Some(standing) = views.get_mut(id) {
                    let at = standing.at.take();
                    standing.before.extend(at.filter(|at| at != NONE));
                }
            }
        })?;
        for object in snapshot.objects() {
            if let Some(view) = object.feature_view() {
                self.choose(object.id, view.options.get("online").map(String::as_str))?;
            }
        }
        Ok(())
    }

    /// Asks the place whether values may be put there.
    pub async fn check(&self, option: &str) -> Result<(), Refused> {
        let place = self.named(Some(option));
        if place == EMBEDDED || place == NONE {
            return Ok(());
        }
        let address = Address::parse(&place).map_err(Refused::Address)?;
        let owner = owner(&self.data, self.clock.as_ref()).map_err(Refused::Away)?;
        RedisOnline::new(address, owner).ping().await.map_err(Refused::Away)
    }

    /// The view has just been made; nothing has been put of it.
    pub fn begin(&self, view: ObjectId, option: Option<&str>) -> SeamResult<()> {
        let place = self.named(option);
        if place == self.own && !self.views.read().contains_key(&view) {
            return Ok(());
        }
        self.change(|views| {
            let nowhere = Standing { at: None, is_whole: true, before: BTreeSet::new() };
            let standing = views.entry(view).or_insert(nowhere);
            standing.go(&place);
            standing.is_whole = true;
        })
    }

    /// Whether the view is where its option says.
    pub fn is_at(&self, view: ObjectId, option: Option<&str>) -> bool {
        self.standing(view).at == Some(self.named(option))
    }

    /// From here on the view is where its option says.
    pub fn choose(&self, view: ObjectId, option: Option<&str>) -> SeamResult<()> {
        let place = self.named(option);
        let at = self.standing(view).at;
        if at.as_ref() == Some(&place) {
            return Ok(());
        }
        self.change(|views| {
            let own = Standing { at: Some(self.own.clone()), is_whole: true, before: BTreeSet::new() };
            views.entry(view).or_insert(own).go(&place);
        })
    }

    /// Removes what views have left behind elsewhere, as far as it can be reached: nobody waits for it.
    pub async fn remove_left(&self) -> SeamResult<()> {
        let mut left: BTreeMap<String, Vec<ObjectId>> = BTreeMap::new();
        for (view, standing) in self.views.read().iter() {
            if standing.is_whole || standing.at.is_none() {
                for place in &standing.before {
                    left.entry(place.clone()).or_default().push(*view);
                }
            }
        }
        let removed = join_all(left.into_iter().map(|(place, views)| self.remove_from(place, views))).await;
        removed.into_iter().collect()
    }

    async fn remove_from(&self, place: String, left: Vec<ObjectId>) -> SeamResult<()> {
        let store = self.opened(&place)?.store;
        for view in left {
            // It may have gone back meanwhile.
            if self.standing(view).at.is_some_and(|at| keys(&at) == keys(&place)) {
                continue;
            }
            store.drop_view(view).await?;
            self.change(|views| {
                if let Some(standing) = views.get_mut(&view) {
                    standing.before.remove(&place);
                }
            })?;
        }
        Ok(())
    }

    fn named(&self, option: Option<&str>) -> String {
        option.filter(|option| *option != DEFAULT).unwrap_or(&self.own).to_string()
    }

    fn standing(&self, view: ObjectId) -> Standing {
        let known = self.views.read().get(&view).cloned();
        known.unwrap_or_else(|| Standing { at: Some(self.own.clone()), is_whole: true, before: BTreeSet::new() })
    }

    /// The store of a view.
    fn store(&self, view: ObjectId) -> SeamResult<Opened> {
        self.opened(self.standing(view).at.as_ref().unwrap_or(&self.own))
    }

    fn opened(&self, place: &str) -> SeamResult<Opened> {
        let mut stores = self.stores.lock();
        if let Some(opened) = stores.get(place) {
            return Ok(opened.clone());
        }
        let store: Arc<dyn OnlineStore> = match place {
            EMBEDDED => Arc::new(FjallOnline::open(&self.data.join("online"))?),
            NONE => Arc::new(Nowhere),
            address => Arc::new(self.redis(address)?),
        };
        let opened = Opened { lane: stores.len() as u64, store };
        stores.insert(place.to_string(), opened.clone());
        Ok(opened)
    }

    /// Durable, then so.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<ObjectId, Standing>)) -> SeamResult<()> {
        let mut views = self.views.write();
        let mut next = views.clone();
        change(&mut next);
        next.retain(|_, standing| match &standing.at {
            Some(at) => *at != self.own || !standing.is_whole || !standing.before.is_empty(),
            None => !standing.before.is_empty(),
        });
        if next != *views {
            self.write(&next)?;
            *views = next;
        }
        Ok(())
    }

    fn write(&self, views: &BTreeMap<ObjectId, Standing>) -> SeamResult<()> {
        let (path, new) = (self.data.join("PLACES"), self.data.join("PLACES.new"));
        let bytes = serde_json::to_vec(views).map_err(SeamError::not_done)?;
        // Beside it and then in its place: half of it would be nothing.
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        let named = written.and_then(|()| std::fs::rename(&new, &path));
        named
            .and_then(|()| std::fs::File::open(&self.data)?.sync_all())
            .map_err(|error| SeamError::io(path.display(), &error))
    }
}

#[async_trait]
impl OnlineStore for Places {
    fn describe(&self, view: ObjectId, columns: Vec<FieldRef>) {
        // Where it cannot be opened, opening the view says why.
        if let Ok(opened) = self.store(view) {
            opened.store.describe(view, columns);
        }
    }

    async fn open_view(&self, view: ObjectId) -> SeamResult<bool> {
        let Standing { at, is_whole, .. } = self.standing(view);
        let store = self.store(view)?.store;
        // A Redis forgets by itself, when it is filled, what it has from an earlier stay of the view.
        if !is_whole && at.as_deref() == Some(EMBEDDED) {
            store.drop_view(view).await?;
        }
        Ok(store.open_view(view).await? && is_whole)
    }

    async fn claim(&self, view: ObjectId, epoch: u64) -> SeamResult<()> {
        self.store(view)?.store.claim(view, epoch).await
    }

    async fn filled(&self, view: ObjectId) -> SeamResult<()> {
        self.store(view)?.store.filled(view).await?;
        self.change(|views| {
            if let Some(standing) = views.get_mut(&view) {
                standing.is_whole = true;
            }
        })
    }

    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put> {
        self.store(view)?.store.put(view, values).await
    }

    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        self.store(view)?.store.get_many(view, keys).await
    }

    async fn drop_view(&self, view: ObjectId) -> SeamResult<()> {
        self.store(view)?.store.drop_view(view).await?;
        // What is left elsewhere is not waited for.
        self.change(|views| {
            if let Some(standing) = views.get_mut(&view) {
                standing.at = None;
            }
        })
    }

    fn lane(&self, view: ObjectId) -> u64 {
        self.store(view).map_or(OWN_LANE, |opened| opened.lane)
    }

    fn traffic(&self) -> Traffic {
        let mut all = Traffic::default();
        for opened in self.stores.lock().values() {
            let Traffic { round_trips, commands } = opened.store.traffic();
            all.round_trips += round_trips;
            all.commands += commands;
        }
        all
    }
}

/// Takes everything and keeps nothing: of views that nobody else reads.
struct Nowhere;

#[async_trait]
impl OnlineStore for Nowhere {
    async fn open_view(&self, _: ObjectId) -> SeamResult<bool> {
        Ok(true)
    }

    async fn filled(&self, _: ObjectId) -> SeamResult<()> {
        Ok(())
    }

    async fn put(&self, _: ObjectId, _: Vec<OnlineValue>) -> SeamResult<Put> {
        Ok(Put::Done)
    }

    async fn get_many(&self, _: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        Ok(vec![None; keys.len()])
    }

    async fn drop_view(&self, _: ObjectId) -> SeamResult<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str) -> Standing {
        Standing { at: Some(place.to_string()), is_whole: true, before: BTreeSet::new() }
    }

    #[test]
    fn a_view_is_removed_from_where_it_was_and_never_from_where_it_is() {
        let (one, other) = ("redis://:a@one", "redis://other");
        let mut view = at(one);
        view.go(other);
        assert_eq!(view, Standing { at: Some(other.into()), is_whole: false, before: [one.to_string()].into() });
        // Back before it was whole, under another password.
        view.go("redis://:b@one/0");
        assert_eq!(view.before, [other.to_string()].into());
        // The same keys: nothing is to be put again.
        let mut view = at(one);
        view.go("redis://:b@one?layout=hash");
        assert!(view.is_whole && view.before.is_empty(), "{view:?}");
        // Where nothing was put nothing is left.
        let mut view = at(NONE);
        view.go(EMBEDDED);
        assert!(!view.is_whole && view.before.is_empty(), "{view:?}");
    }
}
