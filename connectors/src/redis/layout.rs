//! Where values lie in Redis, and the scripts that put them there.
//!
//! ```text
//! P:{V.G}     hash: layout, epoch, filled            the mark of a group
//! P:{V.G}:B   hash: entity key → version · row       a bucket; B = crc32(key) mod buckets, G = B mod 64
//! ```
//!
//! P is the prefix, V the view's id. Small hashes are one block of bytes each (a listpack), so an entity costs little more
//! than its bytes. The braces keep the keys of a group on one node of a cluster, so that one script may write all of them.

use bytes::Bytes;
use redis::{Cmd, Value};
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{OnlineValue, PutVersion};

/// Of every view: as many calls a flush takes at most, and the parts in which a cluster can spread a view.
pub const GROUPS: u32 = 64;

/// The layout's own version, in every mark.
const FORMAT: &str = "1";

/// Bytes of a version before a row: the epoch in four, the counter in six, both big-endian.
const VERSION_BYTES: usize = 10;

#[derive(Debug, Clone)]
pub struct Layout {
    pub prefix: String,
    /// A power of two, at least [`GROUPS`].
    pub buckets: u32,
    /// Whose values these are: ids of views are a data directory's own.
    pub owner: String,
}

/// What a group of a view was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub buckets: u32,
    pub owner: String,
}

// KEYS: the mark. ARGV: the layout.
const OPEN: &str = "
local known = redis.call('HMGET', KEYS[1], 'layout', 'filled')
if known[1] == ARGV[1] then return known[2] and 1 or 0 end
redis.call('HSET', KEYS[1], 'layout', ARGV[1])
return 0";

// KEYS: the mark. ARGV: the layout.
const FILLED: &str = "
if redis.call('HGET', KEYS[1], 'layout') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'filled', '1')
return 1";

// KEYS: the mark, then buckets. ARGV: the layout, the epoch, then for every bucket how many values, and their fields and values.
// Two calls a bucket, since a call costs as much as several values; numbers of up to 53 bits are exact in Lua.
const PUT: &str = "
local mark = redis.call('HMGET', KEYS[1], 'layout', 'epoch')
if mark[1] ~= ARGV[1] then return 0 end
local own, seen = tonumber(ARGV[2]), tonumber(mark[2] or '0')
if seen > own then return -seen end
if seen < own then redis.call('HSET', KEYS[1], 'epoch', ARGV[2]) end
local unpacked, at = struct.unpack, 3
for k = 2, #KEYS do
  local count, fields, newer = tonumber(ARGV[at]), {}, {}
  for i = 1, count do fields[i] = ARGV[at + 2 * i - 1] end
  local known = redis.call('HMGET', KEYS[k], unpack(fields))
  for i = 1, count do
    local value, is_newer = ARGV[at + 2 * i], true
    if known[i] then
      local epoch, counter = unpacked('>I4I6', known[i])
      local e, c = unpacked('>I4I6', value)
      is_newer = epoch < e or (epoch == e and counter < c)
    end
    if is_newer then
      newer[#newer + 1] = fields[i]
      newer[#newer + 1] = value
    end
  end
  if #newer > 0 then redis.call('HSET', KEYS[k], unpack(newer)) end
  at = at + 2 * count + 1
end
return 1";

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

    /// All keys of a group, its mark last.
    pub fn keys(&self, view: ObjectId, group: u32) -> impl Iterator<Item = String> {
        let buckets = (group..self.buckets).step_by(GROUPS as usize);
        buckets.map(move |bucket| self.key(view, bucket)).chain([self.mark(view, group)])
    }

    fn text(&self) -> String {
        format!("{FORMAT} {} {}", self.buckets, self.owner)
    }

    /// Asks what [`mark`] reads.
    pub fn made_with(&self, view: ObjectId, group: u32) -> Cmd {
        redis::cmd("HGET").arg(self.mark(view, group)).arg("layout").to_owned()
    }

    /// Answers 1 where the group has all of its values.
    pub fn open(&self, view: ObjectId, group: u32) -> Cmd {
        self.script(OPEN, view, group)
    }

    /// Answers 0 where the group is not there any more.
    pub fn filled(&self, view: ObjectId, group: u32) -> Cmd {
        self.script(FILLED, view, group)
    }

    fn script(&self, script: &str, view: ObjectId, group: u32) -> Cmd {
        redis::cmd("EVAL").arg(script).arg(1).arg(self.mark(view, group)).arg(self.text()).to_owned()
    }

    /// Puts values of one group, or none; a server that began before `epoch` puts nothing into it after that. Answers 1; 0 where the group is not there; the negative epoch of a later server where
    /// there is one.
    pub fn put(&self, view: ObjectId, group: u32, epoch: u64, values: &[OnlineValue]) -> Result<Cmd, String> {
        // Of several values of a key the newest one: the script compares with what was there before.
        let mut newest: BTreeMap<u32, BTreeMap<&[u8], &OnlineValue>> = BTreeMap::new();
        for value in values {
            let kept = newest.entry(self.bucket(&value.key)).or_default().entry(&value.key[..]).or_insert(value);
            if kept.version < value.version {
                *kept = value;
            }
        }
        let mut command = redis::cmd("EVAL");
        command.arg(PUT).arg(newest.len() + 1).arg(self.mark(view, group));
        for bucket in newest.keys() {
            command.arg(self.key(view, *bucket));
        }
        command.arg(self.text()).arg(epoch);
        for values in newest.values() {
            command.arg(values.len());
            for (key, value) in values {
                command.arg(*key).arg(encode(value)?);
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
        let rest = text.strip_prefix(FORMAT)?.strip_prefix(' ')?;
        let (buckets, owner) = rest.split_once(' ')?;
        Some(Mark { buckets: buckets.parse().ok()?, owner: owner.to_string() })
    };
    mark().map(Some).ok_or_else(|| {
        format!("Redis has a view in layout \"{text}\", which this server does not read; it reads layout {FORMAT}")
    })
}

fn encode(value: &OnlineValue) -> Result<Vec<u8>, String> {
    let PutVersion { epoch, counter } = value.version;
    let row = value.row.as_deref();
    let mut bytes = Vec::with_capacity(VERSION_BYTES + row.map_or(0, |row| row.len() + 1));
    let too_great = |_| format!("version ({epoch}, {counter}) is too great for Redis");
    bytes.extend_from_slice(&u32::try_from(epoch).map_err(too_great)?.to_be_bytes());
    if counter >> 48 != 0 {
        return Err(format!("version ({epoch}, {counter}) is too great for Redis"));
    }
    bytes.extend_from_slice(&counter.to_be_bytes()[2..]);
    // A row is never without its first byte, the format: nothing after the version is an absent key.
    if let Some(row) = row {
        bytes.push(1);
        bytes.extend_from_slice(row);
    }
    Ok(bytes)
}

/// The value of a key; `None`: it is too short for a version.
pub fn decode(key: &Bytes, bytes: &[u8]) -> Option<OnlineValue> {
    let (version, row) = bytes.split_at_checked(VERSION_BYTES)?;
    let (epoch, counter) = version.split_first_chunk::<4>()?;
    let mut wide = [0; 8];
    wide[2..].copy_from_slice(counter);
    Some(OnlineValue {
        key: key.clone(),
        version: PutVersion { epoch: u64::from(u32::from_be_bytes(*epoch)), counter: u64::from_be_bytes(wide) },
        row: row.split_first().map(|(_, row)| Bytes::copy_from_slice(row)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_those_of_the_documentation() {
        let layout = Layout { prefix: "tidemark".to_string(), buckets: 16_384, owner: "me".to_string() };
        let text = Value::BulkString(layout.text().into_bytes());
        assert_eq!(mark(&text), Ok(Some(Mark { buckets: 16_384, owner: "me".to_string() })));
        assert!(mark(&Value::BulkString(b"2 x".to_vec())).is_err());
        // zlib.crc32(b"abc") = 0x352441c2
        assert_eq!(layout.bucket(b"abc"), 0x01c2);
        assert_eq!(layout.key(ObjectId(7), layout.bucket(b"abc")), "tidemark:{7.2}:450");
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
        let great =
            |epoch, counter| OnlineValue { key: key.clone(), version: PutVersion { epoch, counter }, row: None };
        assert!(encode(&great(1 << 32, 0)).is_err() && encode(&great(0, 1 << 48)).is_err());
    }
}
