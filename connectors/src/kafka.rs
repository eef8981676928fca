//! Sources fed from Kafka.
//!
//! ```text
//!   topic ─▶ librdkafka's queue ─▶ one batch: decoded rows and where they come from ─▶ Engine::take ─▶ the source's log
//!            (bounded bytes)       (one in flight)                                     one append: rows, admission, offsets
//! ```
//!
//! The log is the archive of the topic and the only place that knows how far it has been read: a start asks the log and
//! assigns every partition from there. There is no consumer group, nothing is committed to the broker, and a crash at any
//! moment finds rows and offsets either both there or both not (decision 0014).

mod batch;
mod broker;
mod client;
mod encode;
mod explain;
mod feed;
mod options;
mod queue;
mod reader;
mod reset;
mod sender;

pub use batch::Batch;
use batch::Decoder;
pub use broker::{Broker, Place};
pub use feed::{Feed, Status};
pub use options::{OPTIONS, Options, Start, is_option};
pub use reader::{Came, Reader};
pub use reset::{going_on, moves};
pub use sender::{Sender, Unsent};

/// Why a source cannot be read. Messages name no source: who reports them knows which it is.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
#[error("{message}")]
pub struct KafkaError {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The options say something that cannot be.
    Options,
    /// No broker answers.
    Unreachable,
    /// There is no such topic.
    NoTopic,
    /// The broker does not let us.
    Denied,
    /// Records that were to be read next are gone.
    Gone,
    /// Records would be read a second time, and nobody has said that they may be.
    Again,
    Other,
}

impl KafkaError {
    fn new(kind: Kind, message: impl Into<String>) -> KafkaError {
        KafkaError { kind, message: message.into(), hint: None }
    }

    /// What was asked of an object that has no topic.
    pub fn no_source() -> KafkaError {
        KafkaError::new(Kind::Options, "not a source")
    }

    fn hint(self, hint: impl Into<String>) -> KafkaError {
        KafkaError { hint: Some(hint.into()), ..self }
    }
}
