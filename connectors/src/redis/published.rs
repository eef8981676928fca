//! The catalog in Redis: put there by the server that owns the data directory, read by serving nodes.
//!
//! ```text
//! P:{catalog}   hash: layout, owner, epoch, edition, catalog (a document), level, now.V of a view
//! ```
//!
//! Written by the tick that puts rows, not by the statement that changes the catalog: a Redis that is away holds up no
//! statement. A server that began earlier puts nothing over a later one's.

use super::{RedisOnline, link::Link};
use redis::{Cmd, Value};
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{SeamError, SeamResult};

const PUBLISH: &str = include_str!("publish.lua");

/// The layout of this hash.
const LAYOUT: &str = "1";

/// What a server says of itself to serving nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Grows with every start of a writer.
    pub epoch: u64,
    /// Of the catalog's document; grows with every change, within an epoch.
    pub edition: u64,
    /// By the owner's clock, microseconds: what had changed until then is in Redis. `None`: nothing has been said yet.
    pub level_us: Option<i64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    Done,
    /// Redis has no document of this epoch and edition: it is to be sent.
    NoDocument,
}

pub(super) fn key(prefix: &str) -> String {
    format!("{prefix}:{{catalog}}")
}

/// The field with a view's now, where the clock alone does not tell it.
pub(super) fn now_field(view: ObjectId) -> String {
    format!("now.{view}")
}

impl RedisOnline {
    /// Tells serving nodes the catalog (`document`; `None`: they have it), the instant up to which Redis is level, and the now
    /// of views that is not the clock's; microseconds.
    ///
    /// # Errors
    /// Redis does not take it, or it belongs to another data directory or a later server.
    pub async fn publish(
        &self,
        published: &Published,
        document: Option<&str>,
        nows: &[(ObjectId, i64)],
    ) -> SeamResult<Kept> {
        let mut command = redis::cmd("EVAL");
        command.arg(PUBLISH).arg(1).arg(key(&self.layout.prefix)).arg(&self.layout.owner);
        command.arg(published.epoch).arg(published.edition).arg(document.unwrap_or_default());
        if let Some(level_us) = published.level_us {
            command.arg("level").arg(level_us);
        }
        for (view, now_us) in nows {
            command.arg(now_field(*view)).arg(*now_us);
        }
        let name = self.link.name();
        match self.ask_all(&[command]).await?.pop() {
            Some(Value::Int(1)) => Ok(Kept::Done),
            Some(Value::Int(0)) => Ok(Kept::NoDocument),
            Some(Value::Int(newer)) if newer < 0 => Err(SeamError::NotDone(format!(
                "{name}: another server on a copy of this data directory, which began later (epoch {}), publishes the catalog; \
                 stop one of the two",
                newer.unsigned_abs(),
            ))),
            Some(Value::BulkString(owner)) => Err(SeamError::NotDone(format!(
                "{name}: the catalog with prefix \"{}\" belongs to another data directory ({}); give --online another prefix, or, \
                 if that one is gone for good, remove the key {}",
                self.layout.prefix,
                String::from_utf8_lossy(&owner),
                key(&self.layout.prefix),
            ))),
            other => Err(self.link.not_understood("EVAL", &other.unwrap_or(Value::Nil))),
        }
    }
}

/// What is asked to learn whether the catalog is still the same.
pub(super) fn asked(prefix: &str, with_document: bool) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key(prefix)).arg(&["layout", "epoch", "edition", "level"]);
    if with_document {
        command.arg("catalog");
    }
    command
}

/// What [`asked`] answers; `None`: nobody has published anything.
pub(super) fn read(link: &Link, answer: Value) -> SeamResult<Option<(Published, String)>> {
    let Value::Array(fields) = answer else { return Err(link.not_understood("HMGET", &answer)) };
    let texts: Vec<Option<String>> = fields.iter().map(text).collect();
    let at = |i: usize| texts.get(i).and_then(|text| text.as_deref());
    match at(0) {
        None => return Ok(None),
        Some(LAYOUT) => {}
        Some(other) => {
            return Err(SeamError::NotDone(format!(
                "{}: the catalog there has layout \"{other}\", this server reads {LAYOUT}",
                link.name()
            )));
        }
    }
    let number = |i: usize| at(i).and_then(|text| text.parse().ok());
    let (Some(epoch), Some(edition)) = (number(1), number(2)) else {
        return Err(SeamError::NotDone(format!("{}: the catalog there has no epoch or edition", link.name())));
    };
    let level_us = at(3).and_then(|text| text.parse().ok());
    Ok(Some((Published { epoch, edition, level_us }, at(4).unwrap_or_default().to_string())))
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Address;

    #[test]
    fn what_is_published_is_read_back_and_an_unknown_layout_is_refused() {
        assert_eq!(key("tidemark"), "tidemark:{catalog}");
        assert_eq!(now_field(ObjectId(16_385)), "now.16385");
        let link = Link::new(Address::parse("redis://h").expect("an address"));
        let texts = |fields: [Option<&str>; 5]| {
            let value =
                |field: Option<&str>| field.map_or(Value::Nil, |text| Value::BulkString(text.as_bytes().to_vec()));
            Value::Array(fields.map(value).to_vec())
        };
        let found = read(&link, texts([Some("1"), Some("7"), Some("3"), Some("-5"), Some("[]")])).expect("a catalog");
        let published = Published { epoch: 7, edition: 3, level_us: Some(-5) };
        assert_eq!(found, Some((published, "[]".to_string())));
        assert_eq!(read(&link, texts([None; 5])).expect("an answer"), None);
        assert!(read(&link, texts([Some("2"), Some("7"), Some("3"), None, None])).is_err());
        assert!(read(&link, texts([Some("1"), None, Some("3"), None, None])).is_err());
        assert!(read(&link, Value::Nil).is_err());
    }
}
