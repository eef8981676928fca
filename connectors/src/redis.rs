//! The online store in Redis: shared, and read by other nodes and by services that speak Redis (docs/redis-layout.md).
//!
//! ```text
//! put ─▶ values by group ─▶ one EVAL for each group, all under way at once ─▶ newer versions stay as they are
//! ```
//!
//! A Redis may be away, full, or back without what it had; none of it holds up lookups or ingestion, which need the engine's
//! own state only. Every call tells whether a view is still there, so a loss is noticed by the first put after it.

mod address;
mod layout;
mod link;
mod owner;

pub use address::Address;
pub use owner::owner;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use layout::{Layout, Mark, decode};
use link::Link;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    meter::Counter,
    seam::{OnlineStore, OnlineValue, Put, SeamError, SeamResult, Traffic},
};

/// Values and bytes in one EVAL: Redis serves nobody else meanwhile, which takes about a millisecond.
const CALL_VALUES: usize = 1000;
const CALL_BYTES: usize = 1 << 20;
/// Fields in one HMGET, keys in one UNLINK, for the same reason.
const CALL_KEYS: usize = 1000;

pub struct RedisOnline {
    link: Link,
    layout: Layout,
    /// The epoch under which all groups of a view were last told who puts into it.
    announced: Mutex<BTreeMap<ObjectId, u64>>,
    round_trips: Counter,
    commands: Counter,
}

impl RedisOnline {
    /// Nobody is asked yet: a Redis that is away now may be there when something is put. `owner` names the data directory
    /// whose views these are, without a space.
    pub fn new(address: Address, owner: String) -> RedisOnline {
        let layout = Layout { prefix: address.prefix.clone(), buckets: address.buckets, owner };
        RedisOnline {
            link: Link::new(address),
            layout,
            announced: Mutex::default(),
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
        let asked: Vec<Cmd> = (0..layout::GROUPS).map(|group| self.layout.made_with(view, group)).collect();
        let mut marks: Vec<Mark> = vec![];
        for answer in self.ask_all(&asked).await? {
            let mark =
                layout::mark(&answer).map_err(|error| SeamError::NotDone(format!("{}: {error}", self.link.name())))?;
            marks.extend(mark.filter(|mark| !marks.contains(mark)));
        }
        Ok(marks)
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

    async fn remove(&self, view: ObjectId, buckets: u32) -> SeamResult<()> {
        let layout = Layout { buckets, ..self.layout.clone() };
        for group in 0..layout::GROUPS {
            // The mark goes last: what is left is found again by it.
            let keys: Vec<String> = layout.keys(view, group).collect();
            let commands: Vec<Cmd> =
                keys.chunks(CALL_KEYS).map(|keys| redis::cmd("UNLINK").arg(keys).to_owned()).collect();
            self.ask_all(&commands).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl OnlineStore for RedisOnline {
    async fn open_view(&self, view: ObjectId) -> SeamResult<bool> {
        self.announced.lock().remove(&view);
        for Mark { buckets, owner } in self.made_with(view).await? {
            if owner != self.layout.owner {
                return Err(SeamError::NotDone(format!(
                    "{}: the keys with prefix \"{}\" belong to another data directory ({owner}); give --online another \
                     prefix, or, if that one is gone for good, remove its keys",
                    self.link.name(),
                    self.layout.prefix,
                )));
            }
            if buckets != self.layout.buckets {
                self.remove(view, buckets).await?;
            }
        }
        let opened: Vec<Cmd> = (0..layout::GROUPS).map(|group| self.layout.open(view, group)).collect();
        let opened = self.ask_all(&opened).await?;
        Ok(opened.iter().all(|answer| *answer == Value::Int(1)))
    }

    async fn filled(&self, view: ObjectId) -> SeamResult<()> {
        let commands: Vec<Cmd> = (0..layout::GROUPS).map(|group| self.layout.filled(view, group)).collect();
        match self.ask_all(&commands).await?.iter().all(|answer| *answer == Value::Int(1)) {
            true => Ok(()),
            false => Err(SeamError::NotDone(format!("{} has lost a view while it was filled", self.link.name()))),
        }
    }

    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put> {
        let mut groups: BTreeMap<u32, Vec<OnlineValue>> = BTreeMap::new();
        for value in values {
            groups.entry(self.layout.group(&value.key)).or_default().push(value);
        }
        let Some(epoch) = groups.values().flatten().map(|value| value.version.epoch).max() else {
            return Ok(Put::Done);
        };
        if self.announced.lock().get(&view) != Some(&epoch) {
            // A server that began earlier is to be refused in every group, also where nothing is put just now.
            let nothing = (0..layout::GROUPS).map(|group| self.layout.put(view, group, epoch, &[]));
            let nothing: Vec<Cmd> = nothing.collect::<Result<_, _>>().map_err(SeamError::NotDone)?;
            if self.put_all(view, &nothing).await? == Put::NoView {
                return Ok(Put::NoView);
            }
            self.announced.lock().insert(view, epoch);
        }
        let mut calls = vec![];
        for (group, mut values) in groups {
            // Values of a bucket in one call: that is what the script's own calls are shared by.
            values.sort_by_cached_key(|value| self.layout.bucket(&value.key));
            let mut rest = &values[..];
            while !rest.is_empty() {
                let (call, later) = rest.split_at(fitting(rest));
                calls.push(self.layout.put(view, group, epoch, call).map_err(SeamError::NotDone)?);
                rest = later;
            }
        }
        self.put_all(view, &calls).await
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
        self.announced.lock().remove(&view);
        for Mark { buckets, owner } in self.made_with(view).await? {
            if owner == self.layout.owner {
                self.remove(view, buckets).await?;
            }
        }
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
