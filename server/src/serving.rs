//! `--role serving`: a server without a data directory. It answers lookups from the Redis that the owner of one fills, and from
//! a small cache of its own; as many of them as are needed stand side by side.
//!
//! ```text
//! owner ──rows, catalog──▶ Redis ──▶ cache ──▶ lookup      age of an answer: cache + Redis + the owner's tick
//! ```
//!
//! A value says itself until when it holds. Past that instant it is stale: answered with a warning (or an error, as the setting
//! says) and counted, never as if it were of now. Expiry in Redis has no part in it.

mod cache;
mod keys;
mod rows;
mod served;

pub use keys::spread;
pub use served::Served;

use crate::{
    pg::PgError,
    publisher::Document,
    session::SharedSettings,
    settings::{Settings, Stale},
    system::inventory::is_system,
};
use anyhow::Context;
use bytes::Bytes;
use cache::{Cache, Kept};
use datafusion::{catalog::TableProvider, common::DataFusionError};
use parking_lot::RwLock;
use rows::RowsTable;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidemark_catalog::{ObjectId, Snapshot};
use tidemark_connectors::redis::{Address, Found, Published, RedisReader};
use tidemark_engine::{
    compiled::Row,
    meter::Counter,
    online::OnlineRow,
    seam::{Clock, OnlineValue, SeamError, SeamResult},
    value::{Value, encode_row},
    wording::instant,
};
use tidemark_planner::{
    parse::duration_us,
    table::{ScanTarget, TidemarkTable},
};

/// How often the catalog is asked for: one small command, and a view that was created is known here, a dropped one forgotten,
/// after that long at most.
pub const CATALOG_POLL: Duration = Duration::from_millis(500);

/// Where the rows come from, and what is known of them.
pub struct Serving {
    redis: RedisReader,
    clock: Arc<dyn Clock>,
    views: RwLock<BTreeMap<ObjectId, Arc<Served>>>,
    /// Views that stand still at their owner, and why.
    failed: RwLock<BTreeMap<ObjectId, String>>,
    cache: Cache,
    stale: Stale,
    seen: RwLock<Seen>,
    pub meters: ServingMeters,
}

/// What was last heard of the owner.
#[derive(Debug, Default)]
struct Seen {
    published: Option<Published>,
    /// How many catalogs have been read: what sessions know as the generation.
    generation: u64,
    /// Why the catalog could not be read last time.
    trouble: Option<String>,
}

/// Keys that lookups asked for, by where they were found.
#[derive(Debug, Default)]
pub struct ServingMeters {
    pub from_cache: Counter,
    pub from_redis: Counter,
    /// Those that Redis had not answered by their lookup's deadline.
    pub late: Counter,
}

/// What was found of some keys.
pub struct Reading {
    /// Of every key that has one, in the order asked.
    pub rows: Vec<Row>,
    /// Of these, whether it does not hold any more.
    pub stale: Vec<bool>,
    /// The keys of a view with a TTL that had a row and have none any more, as far as Redis has kept that.
    pub expired: Vec<Vec<Value>>,
    /// The keys that Redis has not answered in time.
    pub late: Vec<Vec<Value>>,
    /// The instant of the answer, microseconds.
    pub now_us: i64,
    /// What the client is to be told beside it.
    pub warning: Option<PgError>,
}

/// The refusal of what only the owner can do. `what`: a statement or what it would read.
pub fn refusal(sqlstate: &'static str, what: &str) -> PgError {
    PgError::error(sqlstate, format!("{what} is not possible on a serving node"))
        .hint("connect to the server that owns the data directory")
}

impl Serving {
    /// By the settings; nobody is asked yet.
    ///
    /// # Errors
    /// There is no Redis, or its address is wrong.
    pub fn new(settings: &Settings, clock: Arc<dyn Clock>) -> anyhow::Result<Serving> {
        let url = settings.online.as_ref().context(
            "--role serving answers from a Redis, and none is given\n\
             HINT: add --online with the address that the owner of the data directory has, \
             for example --online redis://127.0.0.1:6379",
        )?;
        let address = Address::parse(url).map_err(|error| anyhow::anyhow!("--online: {error}"))?;
        Ok(Serving {
            redis: RedisReader::new(address),
            clock,
            views: RwLock::default(),
            failed: RwLock::default(),
            cache: Cache::new(settings.serving_cache, settings.serving_cache_entries),
            stale: settings.serving_stale,
            seen: RwLock::default(),
            meters: ServingMeters::default(),
        })
    }

    pub fn view(&self, id: ObjectId) -> Option<Arc<Served>> {
        self.views.read().get(&id).cloned()
    }

    /// By id.
    pub fn views(&self) -> Vec<Arc<Served>> {
        self.views.read().values().cloned().collect()
    }

    /// Why Redis or the catalog there could not be read last time; `None`: they could.
    pub fn trouble(&self) -> Option<String> {
        self.seen.read().trouble.clone()
    }

    /// By the owner's clock, microseconds: what had changed until then is in Redis.
    pub fn level_us(&self) -> Option<i64> {
        self.seen.read().published.as_ref().and_then(|published| published.level_us)
    }

    /// Asks whether the owner's catalog is still the one that is known; the new one, if not.
    pub async fn follow(&self) -> SeamResult<Option<Arc<Snapshot>>> {
        let followed = self.try_to_follow().await;
        self.seen.write().trouble = followed.as_ref().err().map(ToString::to_string);
        followed
    }

    async fn try_to_follow(&self) -> SeamResult<Option<Arc<Snapshot>>> {
        let nobody = || SeamError::NotDone(format!("{}: no server has published its catalog there", self.redis.name()));
        let published = self.redis.published().await?.ok_or_else(nobody)?;
        let is_known = |known: &Published| (known.epoch, known.edition) == (published.epoch, published.edition);
        if self.seen.read().published.as_ref().is_some_and(is_known) {
            self.seen.write().published = Some(published);
            return Ok(None);
        }
        let (published, document) = self.redis.catalog().await?.ok_or_else(nobody)?;
        let document: Document = serde_json::from_str(&document).map_err(|error| {
            SeamError::NotDone(format!(
                "{}: the catalog there cannot be read ({error}); run the same version as its owner",
                self.redis.name()
            ))
        })?;
        let generation = self.seen.read().generation + 1;
        let snapshot = Arc::new(
            Snapshot::new(generation, document.objects)
                .with_schemas(document.schemas)
                .with_access(document.access.completed())
                .with_system(is_system),
        );
        let views = {
            let before = self.views.read();
            served::views(&snapshot, &before)
        };
        self.redis.retain(|view| views.contains_key(&view));
        *self.views.write() = views;
        *self.failed.write() = document.failed.into_iter().collect();
        let mut seen = self.seen.write();
        seen.generation = generation;
        seen.published = Some(published);
        Ok(Some(snapshot))
    }

    /// The rows of some keys, each given once: of the cache, and of Redis in one go, for which it waits until an instant of the
    /// clock, if there is one.
    ///
    /// # Errors
    /// Redis does not answer or does not have the view; a row is stale and that is to be an error; the view has failed at its
    /// owner, or cannot be planned here.
    pub async fn read(&self, view: &Served, keys: Vec<Vec<Value>>, until_us: Option<i64>) -> Result<Reading, PgError> {
        view.compiled()?;
        self.check(view)?;
        let begun_us = self.clock.now_us();
        let asked: Vec<Bytes> = keys.iter().map(|key| Bytes::from(encode_row(key))).collect();
        let cached = |key: &Bytes| self.cache.get(view.id, key, begun_us, view.follows_clock);
        let mut found: Vec<Option<Kept>> = asked.iter().map(cached).collect();
        let missing: Vec<usize> = (0..asked.len()).filter(|at| found[*at].is_none()).collect();
        let Some(read) = self.ask_until(view, &asked, &missing, until_us).await? else {
            self.meters.late.add(missing.len() as u64);
            self.meters.from_cache.add((asked.len() - missing.len()) as u64);
            let late = missing.iter().map(|at| keys[*at].clone()).collect();
            let (keys, found): (Vec<_>, Vec<_>) =
                keys.into_iter().zip(found).filter_map(|(key, kept)| Some((key, kept?))).unzip();
            return Ok(Reading { late, ..self.reading(view, &keys, &found)? });
        };
        for (at, kept) in missing.iter().zip(read) {
            found[*at] = Some(kept);
        }
        let mut found: Vec<Kept> = found.into_iter().flatten().collect();
        // Of the cache's some may have ended meanwhile, and be replaced.
        let now_us = self.now_us(view, &found);
        let ended = |at: &usize| missing.binary_search(at).is_err() && found[*at].is_over(now_us);
        let ended: Vec<usize> = (0..asked.len()).filter(ended).collect();
        // Where that is not answered in time they are stale.
        let read = self.ask_until(view, &asked, &ended, until_us).await?;
        for (at, kept) in ended.iter().zip(read.into_iter().flatten()) {
            found[*at] = kept;
        }
        self.meters.from_cache.add((asked.len() - missing.len() - ended.len()) as u64);
        self.reading(view, &keys, &found)
    }

    /// The same from the cache alone, without waiting for anything; `None`: it does not have all of them.
    pub fn read_cached(&self, view: &Served, keys: &[Vec<Value>]) -> Option<Result<Reading, PgError>> {
        let clock_us = self.clock.now_us();
        let kept = |key: &Vec<Value>| {
            let key = Bytes::from(encode_row(key));
            self.cache.get(view.id, &key, clock_us, view.follows_clock)
        };
        let found: Vec<Kept> = keys.iter().map(kept).collect::<Option<_>>()?;
        let now_us = self.now_us(view, &found);
        if found.iter().any(|kept| kept.is_over(now_us)) {
            return None;
        }
        self.meters.from_cache.add(found.len() as u64);
        Some(self.check(view).and_then(|()| self.reading(view, keys, &found)))
    }

    fn reading(&self, view: &Served, keys: &[Vec<Value>], found: &[Kept]) -> Result<Reading, PgError> {
        let now_us = self.now_us(view, found);
        let rows = keys.iter().zip(found).filter_map(|(key, kept)| Some(row(key, kept.row.as_deref()?)));
        let stale = found.iter().filter(|kept| kept.row.is_some()).map(|kept| kept.is_over(now_us)).collect();
        let has_ttl = view.compiled()?.plan.ttl_us.is_some();
        let expired = keys.iter().zip(found).filter(|(_, kept)| has_ttl && kept.ended).map(|(key, _)| key.clone());
        let (rows, expired, warning) = (rows.collect(), expired.collect(), self.judge(view, found, now_us)?);
        Ok(Reading { rows, stale, expired, late: vec![], now_us, warning })
    }

    /// Refuses to answer from a Redis that is further behind its owner than a session allows by `tidemark.max_staleness`, which
    /// is empty where it has not said.
    ///
    /// # Errors
    /// 55000.
    pub fn check_freshness(&self, view: &Served, max_staleness: Option<&str>) -> Result<(), PgError> {
        let Some(max_us) = max_staleness.and_then(|text| duration_us(text).ok()) else { return Ok(()) };
        let behind_us = self.level_us().map(|level_us| self.clock.now_us().saturating_sub(level_us));
        if behind_us.is_some_and(|behind_us| behind_us <= max_us) {
            return Ok(());
        }
        let behind = behind_us.map_or("unknown".to_string(), |us| format!("{} ms", us / 1000));
        let message = format!("feature view \"{}\" is not as fresh here as tidemark.max_staleness asks for", view.name);
        Err(PgError::error("55000", message)
            .detail(format!("how far this node is behind the owner: {behind}; allowed: {} ms", max_us / 1000))
            .hint(
                "the server that owns the data directory answers what holds now; it says once a second how far it is",
            ))
    }

    /// Of a view that stands still the rows would be of before.
    fn check(&self, view: &Served) -> Result<(), PgError> {
        let failed = self.failed.read();
        let Some(error) = failed.get(&view.id) else { return Ok(()) };
        let name = &view.name;
        Err(PgError::error("55000", format!("feature view \"{name}\" has failed: {error}"))
            .hint(format!("where its owner is, mend what the message names, then ALTER FEATURE VIEW {name} RESUME")))
    }

    /// The same as [`Serving::ask`]; `None`: Redis has not answered by then.
    async fn ask_until(
        &self,
        view: &Served,
        keys: &[Bytes],
        places: &[usize],
        until_us: Option<i64>,
    ) -> Result<Option<Vec<Kept>>, PgError> {
        let Some(until_us) = until_us.filter(|_| !places.is_empty()) else {
            return self.ask(view, keys, places).await.map(Some);
        };
        let left_us = until_us.saturating_sub(self.clock.now_us()).max(0).unsigned_abs();
        let until = self.clock.sleep(Duration::from_micros(left_us));
        tokio::select! {
            biased;
            read = self.ask(view, keys, places) => read.map(Some),
            () = until => Ok(None),
        }
    }

    /// What Redis has of those of the keys that stand at these places.
    async fn ask(&self, view: &Served, keys: &[Bytes], places: &[usize]) -> Result<Vec<Kept>, PgError> {
        if places.is_empty() {
            return Ok(vec![]);
        }
        let keys: Vec<Bytes> = places.iter().map(|at| keys[*at].clone()).collect();
        let read_us = self.clock.now_us();
        self.meters.from_redis.add(keys.len() as u64);
        let read = self.redis.read(view.id, &keys, view.reads_now).await;
        let Found::Values { values, now_us } = read.map_err(|error| self.away(&error))? else {
            let message = format!("feature view \"{}\" is not, or not wholly, in {}", view.name, self.redis.name());
            if let Some(place) = view.elsewhere() {
                return Err(PgError::error("55000", message).detail(format!("its online store is {place}")).hint(
                    "a serving node answers what is in its own --online; for views elsewhere start one with that address",
                ));
            }
            return Err(PgError::error("55000", message).detail("a key without a row there may have one").hint(
                "its owner fills it, which takes seconds; the server that owns the data directory answers meanwhile",
            ));
        };
        let mut kept = Vec::with_capacity(values.len());
        for (key, value) in keys.iter().zip(values) {
            let ended = value.as_ref().is_some_and(|value| value.row.is_none());
            let row = value.and_then(|OnlineValue { row, .. }| row).map(|row| view.decode(&row)).transpose()?;
            let entry = Kept { row: row.map(Arc::new), ended, read_us, now_us };
            // What is stale already is asked for again: its successor is on its way.
            if !entry.is_over(self.now_us(view, std::slice::from_ref(&entry))) {
                self.cache.put(view.id, key, entry.clone());
            }
            kept.push(entry);
        }
        Ok(kept)
    }

    /// The instant of an answer: this node's clock where the view follows one; what its owner said it is; and never before what
    /// is answered.
    fn now_us(&self, view: &Served, found: &[Kept]) -> i64 {
        let clock_us = if view.follows_clock { self.clock.now_us() } else { i64::MIN };
        let known = found.iter().flat_map(|kept| [kept.now_us, kept.row.as_ref().map(|row| row.instant_us)]);
        known.flatten().fold(clock_us, i64::max)
    }

    /// Counts what does not hold any more at `now_us`: a warning, or an error.
    fn judge(&self, view: &Served, found: &[Kept], now_us: i64) -> Result<Option<PgError>, PgError> {
        let over: Vec<i64> = found.iter().filter_map(Kept::until_us).filter(|until_us| *until_us <= now_us).collect();
        let Some(first_us) = over.iter().min() else { return Ok(None) };
        view.stale.add(over.len() as u64);
        let (name, until) = (&view.name, instant(*first_us));
        let message = match over.len() {
            1 => format!("1 row of feature view \"{name}\" is stale: it held until {until}"),
            keys => format!("{keys} rows of feature view \"{name}\" are stale: the first held until {until}"),
        };
        let told = match self.stale {
            Stale::Warn => PgError::warning("01000", message),
            Stale::Error => PgError::error("55000", message),
        };
        let told = told.detail(format!("now is {}, and its owner has put no newer one", instant(now_us)));
        let told = told.hint("the server that owns the data directory answers with what holds now");
        match self.stale {
            Stale::Warn => Ok(Some(told)),
            Stale::Error => Err(told),
        }
    }

    /// Nothing was changed by the reading that failed.
    fn away(&self, error: &SeamError) -> PgError {
        let (SeamError::NotDone(text) | SeamError::Unknown(text) | SeamError::Full(text)) = error;
        PgError::error("58030", text.clone()).hint(
            "a serving node answers again when its Redis does; the server that owns the data directory needs none",
        )
    }

    /// What a planned query reads; `None`: what the server itself has.
    ///
    /// # Errors
    /// Only the owner has it.
    pub fn provider(
        self: &Arc<Self>,
        table: &TidemarkTable,
        session: &Arc<SharedSettings>,
    ) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let refused = |what: String| Err(external(refusal("0A000", &what)));
        let name = &table.name;
        match &table.target {
            ScanTarget::CurrentRows(id) => {
                let view = self.view(*id).ok_or_else(|| {
                    DataFusionError::Execution(format!("\"{name}\" (id {id}) was dropped while the statement ran"))
                })?;
                let rows = RowsTable::new(self.clone(), view, session.clone(), &table.schema).map_err(external)?;
                Ok(Some(Arc::new(rows)))
            }
            ScanTarget::Relation(_) | ScanTarget::Rows(_) | ScanTarget::Files(_) => {
                refused(format!("reading the rows of \"{name}\""))
            }
            ScanTarget::AsOf(..) => refused(format!("reading \"{name}\" FOR SYSTEM_TIME AS OF")),
            ScanTarget::Steps(_) => refused(format!("ASOF JOIN with \"{name}\"")),
            ScanTarget::History(_) => refused(format!("reading history of \"{name}\"")),
            // It would be empty here, as if there were none.
            ScanTarget::System(table) if table == "tidemark.dead_letters" => refused(format!("reading {table}")),
            ScanTarget::System(_) | ScanTarget::Nothing => Ok(None),
        }
    }
}

fn external(error: PgError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn row(key: &[Value], row: &OnlineRow) -> Row {
    let OnlineRow { instant_us, event_us, outputs, .. } = row;
    Row { key: key.into(), instant_us: *instant_us, event_us: *event_us, outputs: outputs.as_slice().into() }
}
