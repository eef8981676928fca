//! The online store in Redis: shared, and read by other nodes and by services that speak Redis (docs/redis-layout.md).
//!
//! ```text
//! put ─▶ values by group ─▶ one EVAL for each group, all under way at once ─▶ newer versions stay as they are
//! ```
//!
//! A Redis may be away, full, or back without what it had, or with what it had an hour ago; none of it holds up lookups or
//! ingestion, which need the engine's own state only. Every call tells whether a view is still there and has what it took, so
//! a loss is noticed by the first put after it.

mod address;
mod layout;
mod link;
mod owner;
mod published;
mod reader;
mod text;

pub use address::Address;
pub use owner::owner;
pub use published::{Kept, Published};
pub use reader::{Found, RedisReader};

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use layout::{GROUPS, Layout, Mark, NONE, Opened, Shape, Sweep, decode};
use link::Link;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    meter::Counter,
    seam::{OnlineStore, OnlineValue, Put, PutVersion, SeamError, SeamResult, Traffic},
};

/// Values and bytes in one EVAL: Redis serves nobody else meanwhile, which takes about a millisecond.
const CALL_VALUES: usize = 1000;
const CALL_BYTES: usize = 1 << 20;
/// Fields in one HMGET, keys in one UNLINK, for the same reason.
const CALL_KEYS: usize = 1000;

pub struct RedisOnline {
    link: Link,
    layout: Layout,
    known: Mutex<BTreeMap<ObjectId, Known>>,
    /// Of views' rows, for people.
    columns: Mutex<BTreeMap<ObjectId, Arc<[FieldRef]>>>,
    round_trips: Counter,
    commands: Counter,
}

/// What this server knows of a view in Redis.
#[derive(Clone)]
struct Known {
    /// The epoch under which all groups were last told who puts into them, and the connection.
    announced: Option<(u64, u64)>,
    /// The greatest version of each group when it was opened.
    opened: Vec<PutVersion>,
    /// The greatest version that each group has taken.
    newest: Vec<PutVersion>,
    /// The least version put since it was opened.
    since: Option<PutVersion>,
}

impl Default for Known {
    fn default() -> Known {
        let none = vec![NONE; GROUPS as usize];
        Known { announced: None, opened: none.clone(), newest: none, since: None }
    }
}

impl RedisOnline {
    /// Nobody is asked yet: a Redis that is away now may be there when something is put. `owner` names the data directory
    /// whose views these are, without a space.
    pub fn new(address: Address, owner: String) -> RedisOnline {
        let Address { shape, buckets, .. } = address;
        let layout = Layout { prefix: address.prefix.clone(), shape, buckets, owner };
        RedisOnline {
            link: Link::new(address),
            layout,
            known: Mutex::default(),
            columns: Mutex::default(),
            round_trips: Counter::default(),
            commands: Counter::default(),
        }
    }

    /// Whether it answers.
    pub async fn ping(&self) -> SeamResult<()> {
        self.link.ask(&redis::cmd("PING")).await.map(|_| ())
    }

    /// The commands' answers in order; all are on their way at once.
    async fn ask_all(&self, commands: &[Cmd]) -> SeamResult<Vec<Value>> {
        if !commands.is_empty() {
            self.round_trips.add(1);
            self.commands.add(commands.len() as u64);
        }
        try_join_all(commands.iter().map(|command| self.link.ask(command))).await
    }

    /// What the groups of a view were made with, each once.
    async fn made_with(&self, view: ObjectId) -> SeamResult<Vec<Mark>> {
        let asked: Vec<Cmd> = (0..GROUPS).map(|group| self.layout.made_with(view, group)).collect();
        let mut marks: Vec<Mark> = vec![];
        for answer in self.ask_all(&asked).await? {
            let mark =
                layout::mark(&answer).map_err(|error| SeamError::NotDone(format!("{}: {error}", self.link.name())))?;
            marks.extend(mark.filter(|mark| !marks.contains(mark)));
        }
        Ok(marks)
    }

    /// The groups in the parts that one command may name: on a cluster each may lie on another node.
    fn together(&self) -> Vec<Vec<u32>> {
        let groups: Vec<u32> = (0..GROUPS).collect();
        let at_once = if self.link.is_cluster() { 1 } else { groups.len() };
        groups.chunks(at_once).map(<[u32]>::to_vec).collect()
    }

    /// Opens all groups that were not made in another layout, and says how each was found.
    async fn open_groups(&self, view: ObjectId, known: &[PutVersion]) -> SeamResult<Vec<Opened>> {
        let commands = self.together().into_iter().map(|groups| self.layout.open(view, &groups, known));
        let commands: Vec<Cmd> = commands.collect::<Result<_, _>>().map_err(SeamError::NotDone)?;
        let mut opened = vec![];
        for answer in self.ask_all(&commands).await? {
            let groups = layout::opened(&answer);
            opened.extend(groups.map_err(|error| SeamError::NotDone(format!("{}: {error}", self.link.name())))?);
        }
        match opened.len() == GROUPS as usize {
            true => Ok(opened),
            false => Err(SeamError::NotDone(format!("{} opens {} groups of {GROUPS}", self.link.name(), opened.len()))),
        }
    }

    /// Tells all groups who puts into them from now on: a server that began earlier is to be refused everywhere, also where
    /// nothing is put just now. And asks whether Redis is still the one that they were filled in.
    async fn announce(&self, view: ObjectId, epoch: u64, known: &Known) -> SeamResult<Put> {
        let commands = self.together().into_iter().map(|groups| self.layout.check(view, &groups, epoch, &known.newest));
        let commands: Vec<Cmd> = commands.collect::<Result<_, _>>().map_err(SeamError::NotDone)?;
        self.put_all(view, &commands).await
    }

    async fn put_all(&self, view: ObjectId, calls: &[Cmd]) -> SeamResult<Put> {
        for answer in self.ask_all(calls).await? {
            match answer {
                Value::Int(1) => {}
                Value::Int(0) => return Ok(Put::NoView),
                Value::Int(newer) if newer < 0 => {
                    return Err(SeamError::NotDone(format!(
                        "{}: another server on a copy of this data directory, which began later (epoch {}), puts into view \
                         {view}; this one does not any more: stop one of the two",
                        self.link.name(),
                        newer.unsigned_abs(),
                    )));
                }
                other => return Err(self.link.not_understood("EVAL", &other)),
            }
        }
        Ok(Put::Done)
    }

    fn known(&self, view: ObjectId) -> Known {
        self.known.lock().get(&view).cloned().unwrap_or_default()
    }

    /// Removes what was made in this layout.
    async fn remove(&self, view: ObjectId, made: &Mark) -> SeamResult<()> {
        let layout = Layout { shape: made.shape, buckets: made.buckets, ..self.layout.clone() };
        for group in 0..GROUPS {
            // The mark goes last: what is left is found again by it.
            let keys: Vec<String> = layout.keys(view, group).collect();
            if let Some((_, buckets)) = keys.split_last()
                && layout.shape == Shape::Hash
            {
                for buckets in buckets.chunks(CALL_KEYS) {
                    let found = buckets.iter().map(|bucket| redis::cmd("HKEYS").arg(bucket).to_owned()).collect();
                    self.remove_entities(view, &layout, found).await?;
                }
            }
            if let Some((mark, buckets)) = keys.split_last() {
                self.unlink(buckets).await?;
                self.unlink(std::slice::from_ref(mark)).await?;
            }
        }
        Ok(())
    }

    /// Removes what is shown to people of the keys that these commands find. `false`: one of them found no view.
    async fn remove_entities(&self, view: ObjectId, layout: &Layout, find: Vec<Cmd>) -> SeamResult<bool> {
        for answer in self.ask_all(&find).await? {
            let Value::Array(found) = answer else {
                return if answer == Value::Int(0) {
                    Ok(false)
                } else {
                    Err(self.link.not_understood("EVAL", &answer))
                };
            };
            let entity = |key: &Value| match key {
                Value::BulkString(key) => Some(layout.entity(view, key)),
                _ => None,
            };
            self.unlink(&found.iter().filter_map(entity).collect::<Vec<String>>()).await?;
        }
        Ok(true)
    }

    /// All keys are on one node.
    async fn unlink(&self, keys: &[String]) -> SeamResult<()> {
        let commands = keys.chunks(CALL_KEYS).map(|keys| redis::cmd("UNLINK").arg(keys).to_owned());
        self.ask_all(&commands.collect::<Vec<Cmd>>()).await.map(|_| ())
    }

    fn columns(&self, view: ObjectId) -> Arc<[FieldRef]> {
        self.columns.lock().get(&view).cloned().unwrap_or_else(|| Arc::from([]))
    }
}

#[async_trait]
impl OnlineStore for RedisOnline {
    fn describe(&self, view: ObjectId, columns: Vec<FieldRef>) {
        self.columns.lock().insert(view, columns.into());
    }

    async fn open_view(&self, view: ObjectId) -> SeamResult<bool> {
        let connection = self.link.number().await?;
        let known = self.known(view);
        let mut groups = self.open_groups(view, &known.newest).await?;
        let mut others: Vec<Mark> = groups.iter().filter_map(Opened::other).cloned().collect();
        if let Some(Mark { owner, .. }) = others.iter().find(|other| other.owner != self.layout.owner) {
            return Err(SeamError::NotDone(format!(
                "{}: the keys with prefix \"{}\" belong to another data directory ({owner}); give the address another prefix, \
                 or, if that one is gone for good, remove its keys",
                self.link.name(),
                self.layout.prefix,
            )));
        }
        if !others.is_empty() {
            others.dedup();
            for other in &others {
                self.remove(view, other).await?;
            }
            groups = self.open_groups(view, &[]).await?;
        }
        let mut found = Known::default();
        let mut is_whole = true;
        for (at, group) in groups.into_iter().enumerate() {
            match group {
                Opened::Own { is_whole: this, newest } => {
                    is_whole &= this;
                    found.opened[at] = newest;
                }
                Opened::Other(_) => is_whole = false,
            }
        }
        found.newest = found.opened.clone();
        // Where nothing is lost, nobody has to be told again.
        found.announced = known.announced.filter(|(_, over)| is_whole && *over == connection);
        self.known.lock().insert(view, found);
        Ok(is_whole)
    }

    async fn claim(&self, view: ObjectId, epoch: u64) -> SeamResult<()> {
        let connection = self.link.number().await?;
        // Asked also where it was told before: another server may have come since. A view that has gone meanwhile is told
        // with the first put.
        if self.announce(view, epoch, &self.known(view)).await? == Put::Done {
            self.known.lock().entry(view).or_default().announced = Some((epoch, connection));
        }
        Ok(())
    }

    async fn filled(&self, view: ObjectId) -> SeamResult<()> {
        let known = self.known(view);
        for group in 0..GROUPS {
            let (opened, newest) = (known.opened[group as usize], known.newest[group as usize]);
            // Where nothing was put there is nothing that is to stay.
            let next = PutVersion { counter: opened.counter + 1, ..opened };
            let swept = self.layout.sweep(view, group, newest, known.since.unwrap_or(next));
            let Sweep { find, remove, end } = swept.map_err(SeamError::NotDone)?;
            let mut is_there = self.remove_entities(view, &self.layout, find).await?;
            for calls in [remove, vec![end]] {
                is_there = is_there && self.put_all(view, &calls).await? == Put::Done;
            }
            if !is_there {
                let name = self.link.name();
                return Err(SeamError::NotDone(format!("{name} has lost a view while it was filled")));
            }
        }
        Ok(())
    }

    async fn put(&self, view: ObjectId, mut values: Vec<OnlineValue>) -> SeamResult<Put> {
        // Of calls that arrive in this order the greatest version tells how many have arrived.
        values.sort_by_key(|value| value.version);
        let (Some(least), Some(epoch)) = (values.first().map(|v| v.version), values.last().map(|v| v.version.epoch))
        else {
            return Ok(Put::Done);
        };
        let mut groups: BTreeMap<u32, Vec<OnlineValue>> = BTreeMap::new();
        for value in values {
            groups.entry(self.layout.group(&value.key)).or_default().push(value);
        }
        let connection = self.link.number().await?;
        let known = self.known(view);
        let announced = Some((epoch, connection));
        if known.announced != announced && self.announce(view, epoch, &known).await? == Put::NoView {
            return Ok(Put::NoView);
        }
        {
            let mut all = self.known.lock();
            let known = all.entry(view).or_default();
            known.announced = announced;
            known.since = Some(known.since.map_or(least, |since| since.min(least)));
        }
        let columns = self.columns(view);
        let (mut calls, mut taken) = (vec![], vec![]);
        for (group, values) in groups {
            let mut rest = &values[..];
            while !rest.is_empty() {
                let (call, later) = rest.split_at(fitting(rest));
                let newest = known.newest[group as usize];
                let call = self.layout.put(view, group, epoch, newest, &columns, call);
                calls.push(call.map_err(SeamError::NotDone)?);
                rest = later;
            }
            taken.extend(values.last().map(|value| (group as usize, value.version)));
        }
        let put = self.put_all(view, &calls).await?;
        if put == Put::Done
            && let Some(known) = self.known.lock().get_mut(&view)
        {
            for (group, version) in taken {
                known.newest[group] = known.newest[group].max(version);
            }
        }
        Ok(put)
    }

    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>> {
        let mut buckets: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, key) in keys.iter().enumerate() {
            buckets.entry(self.layout.bucket(key)).or_default().push(at);
        }
        let asked: Vec<(u32, &[usize])> = buckets
            .iter()
            .flat_map(|(bucket, places)| places.chunks(CALL_KEYS).map(|chunk| (*bucket, chunk)))
            .collect();
        let commands: Vec<Cmd> = asked
            .iter()
            .map(|(bucket, places)| {
                let mut command = redis::cmd("HMGET");
                command.arg(self.layout.key(view, *bucket));
                for at in *places {
                    command.arg(&keys[*at][..]);
                }
                command
            })
            .collect();
        let mut found = vec![None; keys.len()];
        for ((_, places), answer) in asked.into_iter().zip(self.ask_all(&commands).await?) {
            let Value::Array(values) = answer else { return Err(self.link.not_understood("HMGET", &answer)) };
            for (at, value) in places.iter().zip(values) {
                found[*at] = match value {
                    Value::Nil => None,
                    Value::BulkString(bytes) => Some(decode(&keys[*at], &bytes).ok_or_else(|| {
                        SeamError::NotDone(format!("{}: a value of view {view} has no version", self.link.name()))
                    })?),
                    other => return Err(self.link.not_understood("HMGET", &other)),
                };
            }
        }
        Ok(found)
    }

    async fn drop_view(&self, view: ObjectId) -> SeamResult<()> {
        self.known.lock().remove(&view);
        for made in self.made_with(view).await? {
            if made.owner == self.layout.owner {
                self.remove(view, &made).await?;
            }
        }
        self.columns.lock().remove(&view);
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        Traffic { round_trips: self.round_trips.get(), commands: self.commands.get() }
    }
}

/// How many values go into one call.
fn fitting(values: &[OnlineValue]) -> usize {
    let mut bytes = 0;
    let fits = |value: &&OnlineValue| {
        bytes += value.key.len() + value.row.as_ref().map_or(0, Bytes::len);
        bytes <= CALL_BYTES
    };
    values.iter().take(CALL_VALUES).take_while(fits).count().max(1)
}
