//! What a session has to say and wants to hear: LISTEN, UNLISTEN and NOTIFY take effect when their transaction commits, and a
//! statement outside of a block is one.

use crate::{
    channels::{Channels, Listener},
    pg::{Bell, Notification, PgError},
};
use ahash::AHashSet;
use parking_lot::Mutex;
use std::sync::Arc;

/// PostgreSQL's limits: a page without its own needs, and NAMEDATALEN.
const PAYLOAD_BYTES_MAX: usize = 7_999;
const CHANNEL_BYTES_MAX: usize = 63;
/// Texts that one transaction may have to send: a thousand payloads of the greatest length, in memory until COMMIT.
const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// Channels of one session. An application has a few; a name for each row of something would be a mistake.
const LISTENS_MAX: usize = 1_000;

/// What the server tells itself, and nobody else in its name.
pub const OWN_CHANNEL: &str = "tidemark";

/// Functions reach it too, so it is shared.
pub struct Outbox {
    sender: i32,
    state: Mutex<State>,
}

struct State {
    listener: Listener,
    /// In the order of the statements.
    wanted: Vec<Wanted>,
    notifications: Vec<Notification>,
    /// The same, to send what is said twice once.
    said: AHashSet<(Arc<str>, Arc<str>)>,
    bytes: usize,
}

enum Wanted {
    Listen(String),
    Unlisten(String),
    UnlistenAll,
}

impl Outbox {
    /// `sender`: what `pg_backend_pid()` says.
    pub fn new(channels: Arc<Channels>, bell: Bell, sender: i32) -> Outbox {
        let listener = Listener::new(channels, bell);
        let (wanted, notifications, said) = (vec![], vec![], AHashSet::new());
        Outbox { sender, state: Mutex::new(State { listener, wanted, notifications, said, bytes: 0 }) }
    }

    /// # Errors
    /// 22023: no name of a channel; 53400: too many of them.
    pub fn listen(&self, channel: &str) -> Result<(), PgError> {
        check_channel(channel)?;
        let mut state = self.state.lock();
        if state.listener.count() + state.wanted.len() >= LISTENS_MAX {
            let message = format!("this session listens to {LISTENS_MAX} channels, the most it may");
            return Err(PgError::error("53400", message).hint("put what differs into the payload, or UNLISTEN some"));
        }
        state.wanted.push(Wanted::Listen(channel.to_owned()));
        Ok(())
    }

    /// `None`: all.
    pub fn unlisten(&self, channel: Option<&str>) {
        let mut state = self.state.lock();
        match channel {
            Some(channel) => state.wanted.push(Wanted::Unlisten(channel.to_owned())),
            None => state.wanted = vec![Wanted::UnlistenAll],
        }
    }

    /// # Errors
    /// 22023: no name of a channel, or a payload that is too long; 42501: the server's own channel; 53400: too much in one
    /// transaction.
    pub fn notify(&self, channel: &str, payload: &str) -> Result<(), PgError> {
        check_channel(channel)?;
        if channel == OWN_CHANNEL {
            let message = format!("channel \"{OWN_CHANNEL}\" is the server's own");
            return Err(PgError::error("42501", message).hint("everybody may listen to it; send on another one"));
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PgError::error("22023", "payload string too long")
                .hint(format!("it may have {PAYLOAD_BYTES_MAX} bytes: put the row into a table and send its key")));
        }
        let mut state = self.state.lock();
        let said = (Arc::from(channel), Arc::from(payload));
        if state.said.contains(&said) {
            return Ok(());
        }
        state.bytes += channel.len() + payload.len();
        if state.bytes > TRANSACTION_BYTES_MAX {
            let message = format!("the notifications of this transaction have more than {TRANSACTION_BYTES_MAX} bytes");
            return Err(PgError::error("53400", message).hint("COMMIT now and then"));
        }
        let (channel, payload) = said.clone();
        state.said.insert(said);
        state.notifications.push(Notification { sender: self.sender, channel, payload });
        Ok(())
    }

    /// What was said is sent, what is to be listened to is: first, so that a transaction hears itself, as in PostgreSQL.
    pub fn commit(&self) {
        let mut state = self.state.lock();
        if state.wanted.is_empty() && state.notifications.is_empty() {
            return;
        }
        for wanted in std::mem::take(&mut state.wanted) {
            match wanted {
                Wanted::Listen(channel) => state.listener.listen(&channel),
                Wanted::Unlisten(channel) => state.listener.unlisten(&channel),
                Wanted::UnlistenAll => state.listener.unlisten_all(),
            }
        }
        let notifications = std::mem::take(&mut state.notifications);
        state.forget();
        state.listener.send(notifications);
    }

    pub fn roll_back(&self) {
        self.state.lock().forget();
    }

    /// The channels that it listens to, in order.
    pub fn listens(&self) -> Vec<String> {
        self.state.lock().listener.listens()
    }

    /// What others have sent, and it itself.
    pub fn received(&self) -> Vec<Notification> {
        self.state.lock().listener.take()
    }
}

impl State {
    fn forget(&mut self) {
        self.wanted.clear();
        self.notifications.clear();
        self.said.clear();
        self.bytes = 0;
    }
}

fn check_channel(channel: &str) -> Result<(), PgError> {
    if channel.is_empty() {
        return Err(PgError::error("22023", "channel name cannot be empty"));
    }
    if channel.len() > CHANNEL_BYTES_MAX {
        return Err(PgError::error("22023", "channel name too long")
            .hint(format!("it may have {CHANNEL_BYTES_MAX} bytes: what varies belongs into the payload")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(outbox: &Outbox) -> Vec<String> {
        outbox.received().iter().map(|notification| notification.payload.to_string()).collect()
    }

    #[test]
    fn what_is_said_is_sent_once_and_at_commit() {
        let outbox = Outbox::new(Arc::default(), Bell::default(), 7);
        outbox.listen("a").unwrap();
        outbox.notify("a", "1").unwrap();
        assert_eq!((payloads(&outbox), outbox.listens()), (vec![], vec![]));
        outbox.notify("a", "2").unwrap();
        outbox.notify("a", "1").unwrap();
        outbox.commit();
        assert_eq!((payloads(&outbox), outbox.listens()), (vec!["1".into(), "2".into()], vec!["a".to_owned()]));
        outbox.notify("a", "3").unwrap();
        outbox.unlisten(None);
        outbox.listen("b").unwrap();
        outbox.roll_back();
        outbox.commit();
        assert_eq!((payloads(&outbox), outbox.listens()), (vec![], vec!["a".to_owned()]));
        // Another transaction may say the same again.
        outbox.notify("a", "1").unwrap();
        outbox.commit();
        assert_eq!(payloads(&outbox), ["1"]);
        outbox.unlisten(None);
        outbox.listen("b").unwrap();
        outbox.commit();
        assert_eq!(outbox.listens(), ["b"]);
    }

    #[test]
    fn names_and_payloads_have_limits() {
        let outbox = Outbox::new(Arc::default(), Bell::default(), 7);
        let code = |result: Result<(), PgError>| result.map_err(|error| error.sqlstate);
        assert_eq!(code(outbox.notify("a", &"x".repeat(8_000))), Err("22023"));
        assert_eq!(code(outbox.notify("a", &"x".repeat(7_999))), Ok(()));
        assert_eq!(code(outbox.notify("", "x")), Err("22023"));
        assert_eq!(code(outbox.listen(&"c".repeat(64))), Err("22023"));
        assert_eq!(code(outbox.notify("tidemark", "x")), Err("42501"));
        assert_eq!(code((0..2_000).try_for_each(|n| outbox.notify("a", &format!("{n:07999}")))), Err("53400"));
        assert_eq!(code((0..2_000).try_for_each(|n| outbox.listen(&n.to_string()))), Err("53400"));
    }
}
