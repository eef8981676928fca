//! Redis as a serving node reads it: rows of a view in one go, with what tells whether they are all there.
//!
//! ```text
//! values of each bucket ─┐
//! mark of each group    ─┼▶ under way at once, answered in this order
//! now of the view       ─┘
//! ```
//!
//! The mark comes after the values: whoever empties Redis between the two is noticed. Nothing is ever written.

use super::{
    Address, CALL_KEYS,
    layout::{self, GROUPS, Layout, Shape, decode},
    link::Link,
    published::{self, Published, text},
};
use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{OnlineValue, SeamError, SeamResult};

/// A view is asked again with the number of buckets that its marks say: when it is asked for the first time, and when its
/// owner began to use another number. More often than that somebody changes it all the time.
const TRIES: usize = 3;

pub struct RedisReader {
    link: Link,
    prefix: String,
    /// Buckets that nobody has told of yet.
    buckets: u32,
    /// How many buckets a view was last found to have.
    known: Mutex<BTreeMap<ObjectId, u32>>,
    /// Of the Redis behind a connection, by its number; `None`: it does not tell.
    run: Mutex<Option<(u64, Option<String>)>>,
}

/// What Redis answers about some keys of a view.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    Values {
        /// One for each key asked, in the order asked; `None`: it has no row and never had.
        values: Vec<Option<OnlineValue>>,
        /// The view's now as its owner last said it, microseconds; `None`: it did not.
        now_us: Option<i64>,
    },
    /// Redis does not have the view, or not all of it: a key that is not found may exist, and a row may be old.
    NotFilled,
}

/// What the marks say of the groups asked.
enum Marks {
    Filled,
    NotFilled,
    /// It has another number of buckets.
    Buckets(u32),
}

impl RedisReader {
    /// Nobody is asked yet.
    pub fn new(address: Address) -> RedisReader {
        let (prefix, buckets) = (address.prefix.clone(), address.buckets);
        RedisReader { link: Link::new(address), prefix, buckets, known: Mutex::default(), run: Mutex::default() }
    }

    /// Without user and password.
    pub fn name(&self) -> &str {
        self.link.name()
    }

    /// What the owner last said of itself; `None`: there is no owner.
    pub async fn published(&self) -> SeamResult<Option<Published>> {
        let answer = self.link.ask(&published::asked(&self.prefix, false)).await?;
        Ok(published::read(&self.link, answer)?.map(|(published, _)| published))
    }

    /// The same with the catalog's document.
    pub async fn catalog(&self) -> SeamResult<Option<(Published, String)>> {
        let answer = self.link.ask(&published::asked(&self.prefix, true)).await?;
        published::read(&self.link, answer)
    }

    /// The values of some keys, each given once; `with_now`: the view's now is not its reader's clock alone.
    pub async fn read(&self, view: ObjectId, keys: &[Bytes], with_now: bool) -> SeamResult<Found> {
        for _ in 0..TRIES {
            let (connection, run) = self.run().await?;
            let known = self.known.lock().get(&view).copied();
            let layout = self.layout(known.unwrap_or(self.buckets));
            let (found, marks) = self.ask(&layout, view, keys, with_now, run.as_deref()).await?;
            if let Marks::Buckets(buckets) = marks {
                self.known.lock().insert(view, buckets);
                continue;
            }
            // Another connection may lead to another Redis.
            if self.link.number().await? == connection {
                return Ok(if matches!(marks, Marks::Filled) { found } else { Found::NotFilled });
            }
        }
        Ok(Found::NotFilled)
    }

    /// What is known of other views is forgotten.
    pub fn retain(&self, is_there: impl Fn(ObjectId) -> bool) {
        self.known.lock().retain(|view, _| is_there(*view));
    }

    /// The keys are where they are whatever shape they lie there in, and whoever owns them.
    fn layout(&self, buckets: u32) -> Layout {
        Layout { prefix: self.prefix.clone(), shape: Shape::Packed, buckets, owner: String::new() }
    }

    async fn ask(
        &self,
        layout: &Layout,
        view: ObjectId,
        keys: &[Bytes],
        with_now: bool,
        run: Option<&str>,
    ) -> SeamResult<(Found, Marks)> {
        let mut buckets: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, key) in keys.iter().enumerate() {
            buckets.entry(layout.bucket(key)).or_default().push(at);
        }
        let mut groups: Vec<u32> = buckets.keys().map(|bucket| bucket % GROUPS).collect();
        groups.sort_unstable();
        groups.dedup();
        let chunks: Vec<(u32, &[usize])> = buckets
            .iter()
            .flat_map(|(bucket, places)| places.chunks(CALL_KEYS).map(|chunk| (*bucket, chunk)))
            .collect();
        let mut commands: Vec<Cmd> = chunks
            .iter()
            .map(|(bucket, places)| {
                let mut command = redis::cmd("HMGET");
                command.arg(layout.key(view, *bucket));
                for at in *places {
                    command.arg(&keys[*at][..]);
                }
                command
            })
            .collect();
        commands.extend(groups.iter().map(|group| layout.state(view, *group)));
        if with_now {
            let now = redis::cmd("HGET").arg(published::key(&self.prefix)).arg(published::now_field(view)).to_owned();
            commands.push(now);
        }
        let mut answers = try_join_all(commands.iter().map(|command| self.link.ask(command))).await?.into_iter();
        let mut values = vec![None; keys.len()];
        for ((_, places), answer) in chunks.into_iter().zip(answers.by_ref()) {
            let Value::Array(found) = answer else { return Err(self.link.not_understood("HMGET", &answer)) };
            for (at, value) in places.iter().zip(found) {
                values[*at] = match value {
                    Value::Nil => None,
                    Value::BulkString(bytes) => Some(decode(&keys[*at], &bytes).ok_or_else(|| {
                        SeamError::NotDone(format!("{}: a value of view {view} has no version", self.link.name()))
                    })?),
                    other => return Err(self.link.not_understood("HMGET", &other)),
                };
            }
        }
        let marks: Vec<Value> = answers.by_ref().take(groups.len()).collect();
        let marks = self.judge(layout, &marks, run)?;
        let now_us = answers.next().as_ref().and_then(text).and_then(|text| text.parse().ok());
        Ok((Found::Values { values, now_us }, marks))
    }

    /// What the groups' marks say.
    fn judge(&self, layout: &Layout, marks: &[Value], run: Option<&str>) -> SeamResult<Marks> {
        for mark in marks {
            let Value::Array(fields) = mark else { return Err(self.link.not_understood("HMGET", mark)) };
            let [made_with, filled, filled_in] = fields.as_slice() else {
                return Err(self.link.not_understood("HMGET", mark));
            };
            let made_with = layout::mark(made_with)
                .map_err(|error| SeamError::NotDone(format!("{}: {error}", self.link.name())))?;
            let Some(made_with) = made_with else { return Ok(Marks::NotFilled) };
            if made_with.buckets != layout.buckets {
                return Ok(Marks::Buckets(made_with.buckets.max(GROUPS)));
            }
            // Of a Redis that has been restarted, or has taken over, nobody knows yet how much it had.
            let is_another = run.is_some_and(|run| text(filled_in).is_some_and(|of| !of.is_empty() && of != run));
            if *filled == Value::Nil || is_another {
                return Ok(Marks::NotFilled);
            }
        }
        Ok(Marks::Filled)
    }

    fn known_run(&self, connection: u64) -> Option<Option<String>> {
        let known = self.run.lock();
        known.as_ref().filter(|(of, _)| *of == connection).map(|(_, run)| run.clone())
    }

    /// Which connection there is, and which process is behind it, if it is one and tells.
    async fn run(&self) -> SeamResult<(u64, Option<String>)> {
        let connection = self.link.number().await?;
        if let Some(run) = self.known_run(connection) {
            return Ok((connection, run));
        }
        let run = match self.link.is_cluster() {
            // Each node has its own.
            true => None,
            false => match self.link.ask(redis::cmd("INFO").arg("server")).await {
                Ok(answer) => text(&answer).and_then(|info| run_id(&info)),
                // Its user may not ask.
                Err(SeamError::NotDone(_)) => None,
                Err(error) => return Err(error),
            },
        };
        *self.run.lock() = Some((connection, run.clone()));
        Ok((connection, run))
    }
}

fn run_id(info: &str) -> Option<String> {
    let line = info.lines().find_map(|line| line.strip_prefix("run_id:"))?;
    Some(line.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn marks_tell_whether_all_rows_are_there() {
        let reader = RedisReader::new(Address::parse("redis://h?buckets=64").expect("an address"));
        let layout = reader.layout(64);
        let filled = || Value::Array(vec![field("1 64 me"), field("1"), field("this")]);
        let judged = |mark: Value, run| match reader.judge(&layout, &[filled(), mark], run) {
            Ok(Marks::Filled) => "filled".to_string(),
            Ok(Marks::NotFilled) => "not filled".to_string(),
            Ok(Marks::Buckets(buckets)) => buckets.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(judged(filled(), Some("this")), "filled");
        assert_eq!(judged(filled(), None), "filled");
        assert_eq!(judged(Value::Array(vec![field("2 64 me"), field("1"), Value::Nil]), Some("this")), "filled");
        assert_eq!(judged(Value::Array(vec![Value::Nil, Value::Nil, Value::Nil]), Some("this")), "not filled");
        assert_eq!(judged(Value::Array(vec![field("1 64 me"), Value::Nil, field("this")]), None), "not filled");
        // All rows are in another Redis, of which this one is a copy or an heir.
        let another = reader.judge(&layout, &[filled()], Some("that"));
        assert!(matches!(another, Ok(Marks::NotFilled)));
        assert_eq!(judged(Value::Array(vec![field("1 128 me"), field("1"), field("this")]), None), "128");
        assert!(judged(Value::Array(vec![field("9 64 me"), field("1"), field("this")]), None).contains("layout"));
    }

    #[test]
    fn a_process_is_known_by_its_run_id() {
        assert_eq!(run_id("# Server\r\nrun_id:abc\r\ntcp_port:1\r\n").as_deref(), Some("abc"));
        assert_eq!(run_id("# Server\r\n"), None);
    }
}
