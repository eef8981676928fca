//! Where values lie in Redis, and the scripts that put them there.
//!
//! ```text
//! P:{V.G}     hash: layout, run, epoch, newest, …    the mark of a group
//! P:{V.G}:B   hash: entity key → version · row       a bucket; B = crc32(key) mod buckets, G = B mod 64
//! P:{V.G}/E   hash: name → text                      an entity, for people; only in the layout `hash`
//! ```
//!
//! P is the prefix, V the view's id. Small hashes are one block of bytes each (a listpack), so an entity costs little more
//! than its bytes. The braces keep the keys of a group on one node of a cluster, so that one script may write all of them.

use super::text;
use arrow::datatypes::FieldRef;
use bytes::Bytes;
use redis::{Cmd, Value};
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{OnlineValue, PutVersion};

/// Of every view: as many calls a flush takes at most, and the parts in which a cluster can spread a view.
pub const GROUPS: u32 = 64;

/// How a view lies in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Packed,
    /// As packed, and beside it a hash for each entity, for people.
    Hash,
}

impl Shape {
    pub const ALL: [Shape; 2] = [Shape::Packed, Shape::Hash];

    pub fn name(self) -> &'static str {
        match self {
            Shape::Packed => "packed",
            Shape::Hash => "hash",
        }
    }

    /// The layout's own version, in every mark.
    fn format(self) -> &'static str {
        match self {
            Shape::Packed => "1",
            Shape::Hash => "2",
        }
    }
}

/// Bytes of a version before a row: the epoch in four, the counter in six, both big-endian.
const VERSION_BYTES: usize = 10;

#[derive(Debug, Clone)]
pub struct Layout {
    pub prefix: String,
    pub shape: Shape,
    /// A power of two, at least [`GROUPS`].
    pub buckets: u32,
    /// Whose values these are: ids of views are a data directory's own.
    pub owner: String,
}

/// What a group of a view was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub shape: Shape,
    pub buckets: u32,
    pub owner: String,
}

/// What a group was found to be when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It was made in another layout and is left as it is.
    Other(Mark),
    Own {
        /// Whether it has all of its values.
        is_whole: bool,
        /// The greatest version that it has taken.
        newest: PutVersion,
    },
}

impl Opened {
    pub fn other(&self) -> Option<&Mark> {
        match self {
            Opened::Other(mark) => Some(mark),
            Opened::Own { .. } => None,
        }
    }
}

/// The calls that remove what is older from a group, in this order. They answer as a put.
pub struct Sweep {
    /// These answer with the keys whose entities are to be removed before them.
    pub find: Vec<Cmd>,
    pub remove: Vec<Cmd>,
    /// From then on the group is filled.
    pub end: Cmd,
}

/// Less than or equal to every version.
pub const NONE: PutVersion = PutVersion { epoch: 0, counter: 0 };

// Sent whole with every call: Redis knows a script by its hash after the first time, and a server that has been restarted or
// has taken over needs nothing told.
const OPEN: &str = include_str!("open.lua");
const CHECK: &str = include_str!("check.lua");
const PUT: &str = include_str!("put.lua");
const SWEEP: &str = include_str!("sweep.lua");

/// Buckets that one call looks through for what is no more: with 500 values in each some milliseconds of Redis' time.
const SWEEP_BUCKETS: usize = 8;

impl Layout {
    pub fn bucket(&self, key: &[u8]) -> u32 {
        crc32fast::hash(key) % self.buckets
    }

    pub fn group(&self, key: &[u8]) -> u32 {
        self.bucket(key) % GROUPS
    }

    fn mark(&self, view: ObjectId, group: u32) -> String {
        format!("{}:{{{}.{group}}}", self.prefix, view.0)
    }

    /// The key of a bucket.
    pub fn key(&self, view: ObjectId, bucket: u32) -> String {
        format!("{}:{bucket}", self.mark(view, bucket % GROUPS))
    }

    /// The key of an entity, for people.
    pub fn entity(&self, view: ObjectId, key: &[u8]) -> String {
        format!("{}/{}", self.mark(view, self.group(key)), text::name(key))
    }

    /// All keys of a group but those of entities, its mark last.
    pub fn keys(&self, view: ObjectId, group: u32) -> impl Iterator<Item = String> {
        let buckets = (group..self.buckets).step_by(GROUPS as usize);
        buckets.map(move |bucket| self.key(view, bucket)).chain([self.mark(view, group)])
    }

    fn text(&self) -> String {
        format!("{} {} {}", self.shape.format(), self.buckets, self.owner)
    }

    /// Asks what [`mark`] reads.
    pub fn made_with(&self, view: ObjectId, group: u32) -> Cmd {
        redis::cmd("HGET").arg(self.mark(view, group)).arg("layout").to_owned()
    }

    /// Asks what a group was made with, whether it has all of its values, and in which Redis it was filled.
    pub fn state(&self, view: ObjectId, group: u32) -> Cmd {
        redis::cmd("HMGET").arg(self.mark(view, group)).arg(&["layout", "filled", "run"]).to_owned()
    }

    /// Opens groups, of which these versions are known to be in them: what [`opened`] reads.
    pub fn open(&self, view: ObjectId, groups: &[u32], known: &[PutVersion]) -> Result<Cmd, String> {
        let mut command = self.script(OPEN, view, groups);
        command.arg(self.text());
        of_each(command, groups, known)
    }

    /// From here on a server that began before `epoch` puts nothing into these groups. Answers as a put.
    pub fn check(&self, view: ObjectId, groups: &[u32], epoch: u64, known: &[PutVersion]) -> Result<Cmd, String> {
        let mut command = self.script(CHECK, view, groups);
        command.arg(self.text()).arg(epoch);
        of_each(command, groups, known)
    }

    /// What fills a group at its end: what is older than `since` goes.
    pub fn sweep(&self, view: ObjectId, group: u32, known: PutVersion, since: PutVersion) -> Result<Sweep, String> {
        let versions = [version_bytes(known)?, version_bytes(since)?].concat();
        let call = |buckets: &[String], what: &str| {
            let mut command = redis::cmd("EVAL");
            command.arg(SWEEP).arg(1 + buckets.len()).arg(self.mark(view, group)).arg(buckets);
            command.arg(self.text()).arg(&versions).arg(what);
            command
        };
        let mut buckets: Vec<String> = self.keys(view, group).collect();
        buckets.pop();
        let calls = |what: &str| -> Vec<Cmd> {
            let parts = buckets.chunks(SWEEP_BUCKETS);
            parts.map(|buckets| call(buckets, what)).collect()
        };
        let find = if self.shape == Shape::Hash { calls("find") } else { vec![] };
        Ok(Sweep { find, remove: calls("remove"), end: call(&[], "end") })
    }

    fn script(&self, script: &str, view: ObjectId, groups: &[u32]) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(groups.len());
        for group in groups {
            command.arg(self.mark(view, *group));
        }
        command
    }

    /// Puts values of one group, in the order of their versions, of which the group is known to have `known`. Answers 1; 0
    /// where the group is not there or has less than that; the negative epoch of a later server where there is one.
    /// `columns` are those of the rows, for people.
    pub fn put(
        &self,
        view: ObjectId,
        group: u32,
        epoch: u64,
        known: PutVersion,
        columns: &[FieldRef],
        values: &[OnlineValue],
    ) -> Result<Cmd, String> {
        let version = |value: Option<&OnlineValue>| version_bytes(value.map_or(NONE, |value| value.version));
        let versions = [version_bytes(known)?, version(values.first())?, version(values.last())?].concat();
        // Of several values of a key the newest one: the script compares with what was there before.
        let mut newest: BTreeMap<u32, BTreeMap<&[u8], &OnlineValue>> = BTreeMap::new();
        for value in values {
            let kept = newest.entry(self.bucket(&value.key)).or_default().entry(&value.key[..]).or_insert(value);
            if kept.version < value.version {
                *kept = value;
            }
        }
        let entities: Vec<String> = match self.shape {
            Shape::Packed => vec![],
            Shape::Hash => newest.values().flat_map(BTreeMap::keys).map(|key| self.entity(view, key)).collect(),
        };
        let mut command = redis::cmd("EVAL");
        command.arg(PUT).arg(1 + newest.len() + entities.len()).arg(self.mark(view, group));
        for bucket in newest.keys() {
            command.arg(self.key(view, *bucket));
        }
        command.arg(entities).arg(self.text()).arg(epoch).arg(versions).arg(newest.len());
        for values in newest.values() {
            command.arg(values.len());
            for (key, value) in values {
                command.arg(*key).arg(encode(value)?);
                if self.shape == Shape::Hash {
                    // A row of another kind than the engine's shows nothing.
                    let fields = text::fields(columns, value).unwrap_or_default();
                    command.arg(serde_json::to_string(&fields).map_err(|error| error.to_string())?);
                }
            }
        }
        Ok(command)
    }
}

/// What the mark says; `None`: there is none.
pub fn mark(answer: &Value) -> Result<Option<Mark>, String> {
    let text = match answer {
        Value::Nil => return Ok(None),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        other => return Err(format!("Redis answers {other:?} where a mark was asked for")),
    };
    let mark = || {
        let (format, rest) = text.split_once(' ')?;
        let shape = Shape::ALL.into_iter().find(|shape| shape.format() == format)?;
        let (buckets, owner) = rest.split_once(' ')?;
        Some(Mark { shape, buckets: buckets.parse().ok()?, owner: owner.to_string() })
    };
    mark().map(Some).ok_or_else(|| {
        format!("Redis has a view in layout \"{text}\", which this server does not read; it reads layouts 1 and 2")
    })
}

/// What a call of [`Layout::open`] answers, in the order of its groups.
pub fn opened(answer: &Value) -> Result<Vec<Opened>, String> {
    let Value::Array(groups) = answer else { return Err(format!("Redis answers {answer:?} where groups were opened")) };
    let group = |group: &Value| -> Result<Opened, String> {
        match group {
            Value::Array(parts) => match &parts[..] {
                [Value::Int(is_whole), Value::BulkString(newest)] => {
                    let newest = version(newest).ok_or("a group of a view has a newest version that is none")?;
                    Ok(Opened::Own { is_whole: *is_whole == 1, newest })
                }
                other => Err(format!("Redis answers {other:?} where a group was opened")),
            },
            other => mark(other)?.map(Opened::Other).ok_or_else(|| "Redis has not opened a group".to_string()),
        }
    };
    groups.iter().map(group).collect()
}

/// Adds to a script's arguments what is known of each group.
fn of_each(mut command: Cmd, groups: &[u32], known: &[PutVersion]) -> Result<Cmd, String> {
    for group in groups {
        let known = known.get(*group as usize).copied().unwrap_or(NONE);
        command.arg(version_bytes(known)?.to_vec());
    }
    Ok(command)
}

/// Epoch in four bytes, counter in six, big-endian.
fn version_bytes(version: PutVersion) -> Result<[u8; VERSION_BYTES], String> {
    let PutVersion { epoch, counter } = version;
    let too_great = || format!("version ({epoch}, {counter}) is too great for Redis");
    let epoch = u32::try_from(epoch).map_err(|_| too_great())?;
    if counter >> 48 != 0 {
        return Err(too_great());
    }
    let mut bytes = [0; VERSION_BYTES];
    bytes[..4].copy_from_slice(&epoch.to_be_bytes());
    bytes[4..].copy_from_slice(&counter.to_be_bytes()[2..]);
    Ok(bytes)
}

/// The version in the first bytes; `None`: they are too few.
fn version(bytes: &[u8]) -> Option<PutVersion> {
    let (epoch, rest) = bytes.split_first_chunk::<4>()?;
    let (counter, _) = rest.split_first_chunk::<6>()?;
    let mut wide = [0; 8];
    wide[2..].copy_from_slice(counter);
    Some(PutVersion { epoch: u64::from(u32::from_be_bytes(*epoch)), counter: u64::from_be_bytes(wide) })
}

fn encode(value: &OnlineValue) -> Result<Vec<u8>, String> {
    let row = value.row.as_deref();
    let mut bytes = Vec::with_capacity(VERSION_BYTES + row.map_or(0, |row| row.len() + 1));
    bytes.extend_from_slice(&version_bytes(value.version)?);
    // A row is never without its first byte, the format: nothing after the version is an absent key.
    if let Some(row) = row {
        bytes.push(1);
        bytes.extend_from_slice(row);
    }
    Ok(bytes)
}

/// The value of a key; `None`: it is too short for a version.
pub fn decode(key: &Bytes, bytes: &[u8]) -> Option<OnlineValue> {
    let row = bytes.get(VERSION_BYTES..)?;
    Some(OnlineValue {
        key: key.clone(),
        version: version(bytes)?,
        row: row.split_first().map(|(_, row)| Bytes::copy_from_slice(row)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_those_of_the_documentation() {
        let layout =
            Layout { prefix: "tidemark".to_string(), shape: Shape::Packed, buckets: 16_384, owner: "me".to_string() };
        let text = Value::BulkString(layout.text().into_bytes());
        assert_eq!(mark(&text), Ok(Some(Mark { shape: Shape::Packed, buckets: 16_384, owner: "me".to_string() })));
        assert!(mark(&Value::BulkString(b"3 64 me".to_vec())).is_err());
        // zlib.crc32(b"abc") = 0x352441c2
        assert_eq!(layout.bucket(b"abc"), 0x01c2);
        assert_eq!(layout.key(ObjectId(7), layout.bucket(b"abc")), "tidemark:{7.2}:450");
        assert_eq!(layout.entity(ObjectId(7), &[2, 0, 0, 0, 0, 0, 0, 0, 7]), "tidemark:{7.11}/7");
        let keys: Vec<String> = Layout { buckets: 128, ..layout }.keys(ObjectId(7), 63).collect();
        assert_eq!(keys, ["tidemark:{7.63}:63", "tidemark:{7.63}:127", "tidemark:{7.63}"]);
        let key = Bytes::from_static(b"abc");
        let version = PutVersion { epoch: 258, counter: 3 };
        for (row, bytes) in [
            (None, &[0, 0, 1, 2, 0, 0, 0, 0, 0, 3][..]),
            (Some(Bytes::new()), &[0, 0, 1, 2, 0, 0, 0, 0, 0, 3, 1]),
            (Some(Bytes::from_static(b"row")), &[0, 0, 1, 2, 0, 0, 0, 0, 0, 3, 1, b'r', b'o', b'w']),
        ] {
            let value = OnlineValue { key: key.clone(), version, row };
            assert_eq!(encode(&value).as_deref(), Ok(bytes));
            assert_eq!(decode(&key, bytes), Some(value));
        }
        assert_eq!(decode(&key, &[1, 2]), None);
        let newest = Value::BulkString(vec![0, 0, 1, 2, 0, 0, 0, 0, 0, 3]);
        let answer = Value::Array(vec![Value::Array(vec![Value::Int(1), newest]), text]);
        let other = Opened::Other(Mark { shape: Shape::Packed, buckets: 16_384, owner: "me".to_string() });
        assert_eq!(opened(&answer), Ok(vec![Opened::Own { is_whole: true, newest: version }, other]));
        assert!(opened(&Value::Array(vec![Value::Nil])).is_err() && opened(&Value::Nil).is_err());
        let great =
            |epoch, counter| OnlineValue { key: key.clone(), version: PutVersion { epoch, counter }, row: None };
        assert!(encode(&great(1 << 32, 0)).is_err() && encode(&great(0, 1 << 48)).is_err());
    }
}
