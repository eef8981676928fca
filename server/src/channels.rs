//! Channels: who listens to what, and what waits for each of them. Sending puts a notification into every listener's mailbox
//! and rings; each connection takes its own out when it may.

use crate::pg::{Bell, Notification};
use ahash::AHashMap;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

/// What may wait for one client: some ten thousand ordinary notifications, and a thousand clients that do not read cost 1 GB at
/// most. Who has more waiting is disconnected: so it knows that it has missed something, and those who send are not held up.
pub const WAITING_BYTES_MAX: usize = 1 << 20;
/// Of a waiting notification beside its texts, about.
const NOTIFICATION_BYTES: usize = 64;

#[derive(Default)]
pub struct Channels {
    /// One lock, so that all listeners hear of transactions in the same order.
    listeners: Mutex<AHashMap<String, Vec<Arc<Mailbox>>>>,
}

impl Channels {
    /// In this order, and nothing of others between them.
    pub fn send(&self, notifications: Vec<Notification>) {
        let listeners = self.listeners.lock();
        for notification in notifications {
            let Some(mailboxes) = listeners.get(notification.channel.as_ref()) else { continue };
            mailboxes.iter().for_each(|mailbox| mailbox.put(notification.clone()));
        }
        drop(listeners);
    }

    /// Whether anybody would hear.
    pub fn has_listeners(&self, channel: &str) -> bool {
        self.listeners.lock().contains_key(channel)
    }
}

/// Notifications that one connection has not taken yet.
struct Mailbox {
    bell: Bell,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    notifications: VecDeque<Notification>,
    bytes: usize,
    /// There were too many: it takes no more, and its connection ends.
    has_overflowed: bool,
}

impl Mailbox {
    fn put(&self, notification: Notification) {
        let mut waiting = self.waiting.lock();
        if waiting.has_overflowed {
            return;
        }
        waiting.bytes += notification.channel.len() + notification.payload.len() + NOTIFICATION_BYTES;
        if waiting.bytes > WAITING_BYTES_MAX {
            *waiting = Waiting { has_overflowed: true, ..Waiting::default() };
            self.bell.overflow();
        } else {
            waiting.notifications.push_back(notification);
            self.bell.ring();
        }
    }
}

/// One connection as a listener; with it goes what it listens to.
pub struct Listener {
    channels: Arc<Channels>,
    mailbox: Arc<Mailbox>,
    listens: BTreeSet<String>,
}

impl Listener {
    pub fn new(channels: Arc<Channels>, bell: Bell) -> Listener {
        let mailbox = Arc::new(Mailbox { bell, waiting: Mutex::default() });
        Listener { channels, mailbox, listens: BTreeSet::new() }
    }

    pub fn listen(&mut self, channel: &str) {
        if self.listens.insert(channel.to_owned()) {
            let mut listeners = self.channels.listeners.lock();
            listeners.entry(channel.to_owned()).or_default().push(Arc::clone(&self.mailbox));
        }
    }

    pub fn unlisten(&mut self, channel: &str) {
        if self.listens.remove(channel) {
            let mut listeners = self.channels.listeners.lock();
            if let Some(mailboxes) = listeners.get_mut(channel) {
                mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
                if mailboxes.is_empty() {
                    listeners.remove(channel);
                }
            }
        }
    }

    pub fn unlisten_all(&mut self) {
        for channel in self.listens() {
            self.unlisten(&channel);
        }
    }

    pub fn count(&self) -> usize {
        self.listens.len()
    }

    /// In order of the names.
    pub fn listens(&self) -> Vec<String> {
        self.listens.iter().cloned().collect()
    }

    pub fn send(&self, notifications: Vec<Notification>) {
        self.channels.send(notifications);
    }

    /// What waits, in the order in which it was sent.
    pub fn take(&self) -> Vec<Notification> {
        let mut waiting = self.mailbox.waiting.lock();
        waiting.bytes = 0;
        waiting.notifications.drain(..).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.unlisten_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(channel: &str, payload: &str) -> Notification {
        Notification { sender: 1, channel: channel.into(), payload: payload.into() }
    }

    #[test]
    fn who_listens_hears_in_order_and_who_does_not_hears_nothing() {
        let channels = Arc::new(Channels::default());
        let mut one = Listener::new(Arc::clone(&channels), Bell::default());
        let mut other = Listener::new(Arc::clone(&channels), Bell::default());
        one.listen("a");
        one.listen("a");
        one.listen("b");
        other.listen("b");
        channels.send(vec![notification("a", "1"), notification("b", "2"), notification("c", "3")]);
        assert_eq!(one.take(), [notification("a", "1"), notification("b", "2")]);
        assert_eq!(other.take(), [notification("b", "2")]);
        one.unlisten("a");
        assert_eq!(one.listens(), ["b"]);
        drop(other);
        channels.send(vec![notification("a", "4"), notification("b", "5")]);
        assert_eq!(one.take(), [notification("b", "5")]);
        drop(one);
        assert!(!channels.has_listeners("b"));
    }

    #[test]
    fn a_mailbox_that_is_not_read_holds_so_much_and_then_nothing() {
        let channels = Arc::new(Channels::default());
        let mut listener = Listener::new(Arc::clone(&channels), Bell::default());
        listener.listen("a");
        let (long, each) = ("x".repeat(1_000), 1_000 + 1 + NOTIFICATION_BYTES);
        (0..WAITING_BYTES_MAX / each).for_each(|_| channels.send(vec![notification("a", &long)]));
        assert_eq!(listener.take().len(), WAITING_BYTES_MAX / each);
        (0..WAITING_BYTES_MAX / each + 2).for_each(|_| channels.send(vec![notification("a", &long)]));
        assert!(listener.take().is_empty());
    }
}
