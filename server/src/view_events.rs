//! What happens to feature views, told on channel `tidemark`: found by comparing what there is with what there was, so that
//! nothing that changes a view has to think of it.

use crate::{channels::Channels, outbox::OWN_CHANNEL, pg::Notification};
use ahash::AHashSet;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidemark_catalog::{ObjectId, ObjectKind, Snapshot};

/// How often it is looked whether views have failed: it costs a look at each view, and whoever is woken by it is soon enough.
pub const FAILURES_POLL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct ViewEvents {
    pub channels: Arc<Channels>,
    /// Views that are known to stand still.
    failed: Mutex<AHashSet<ObjectId>>,
}

impl ViewEvents {
    /// The catalog has changed.
    pub fn catalog(&self, before: &Snapshot, after: &Snapshot) {
        if self.channels.has_listeners(OWN_CHANNEL) {
            let (before, after) = (views(before), views(after));
            self.send(changed(&borrowed(&before), &borrowed(&after)));
        }
    }

    /// What stands still now, and what did and goes on; `has_failed` says it of a view.
    pub fn failures(&self, snapshot: &Snapshot, has_failed: impl Fn(ObjectId) -> bool) {
        let mut known = self.failed.lock();
        let mut events = vec![];
        let mut failed = AHashSet::new();
        let views = views(snapshot);
        for (id, name) in borrowed(&views) {
            let (was, is) = (known.contains(&id), has_failed(id));
            if is {
                failed.insert(id);
            }
            match (was, is) {
                (false, true) => events.push(Event { event: "failed", view: name }),
                (true, false) => events.push(Event { event: "resumed", view: name }),
                _ => {}
            }
        }
        *known = failed;
        self.send(events);
    }

    fn send(&self, events: Vec<Event<'_>>) {
        let notification = |event: Event<'_>| Notification {
            sender: 0,
            channel: OWN_CHANNEL.into(),
            payload: serde_json::json!({ "event": event.event, "view": event.view }).to_string().into(),
        };
        self.channels.send(events.into_iter().map(notification).collect());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event<'a> {
    event: &'static str,
    view: &'a str,
}

fn views(snapshot: &Snapshot) -> BTreeMap<ObjectId, String> {
    let is_view = |object: &&Arc<tidemark_catalog::Object>| object.kind() == ObjectKind::FeatureView;
    snapshot.objects().filter(is_view).map(|object| (object.id, object.shown_name())).collect()
}

fn borrowed(views: &BTreeMap<ObjectId, String>) -> BTreeMap<ObjectId, &str> {
    views.iter().map(|(id, name)| (*id, name.as_str())).collect()
}

/// A view that stands where another one stood has been swapped for it. A new name is a view that has gone and one that has come.
fn changed<'a>(before: &BTreeMap<ObjectId, &'a str>, after: &BTreeMap<ObjectId, &'a str>) -> Vec<Event<'a>> {
    let stays = |id: &ObjectId, name: &str| before.get(id).is_some_and(|was| *was == name);
    let gone: Vec<&str> =
        before.iter().filter(|(id, name)| after.get(id) != Some(name)).map(|(_, name)| *name).collect();
    let come: Vec<&str> = after.iter().filter(|(id, name)| !stays(id, name)).map(|(_, name)| *name).collect();
    let dropped = gone.iter().filter(|name| !come.contains(name)).map(|&view| Event { event: "dropped", view });
    let created = come.iter().map(|&view| {
        let event = if gone.contains(&view) { "swapped" } else { "created" };
        Event { event, view }
    });
    dropped.chain(created).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_under_the_name_of_another_has_been_swapped_for_it() {
        let views = |named: &[(u32, &'static str)]| named.iter().map(|(id, name)| (ObjectId(*id), *name)).collect();
        let told = |before: &[(u32, &'static str)], after: &[(u32, &'static str)]| -> Vec<(&str, &str)> {
            changed(&views(before), &views(after)).iter().map(|event| (event.event, event.view)).collect()
        };
        assert_eq!(told(&[], &[(1, "a")]), [("created", "a")]);
        assert_eq!(told(&[(1, "a"), (2, "b")], &[(2, "b")]), [("dropped", "a")]);
        assert_eq!(told(&[(1, "a")], &[(2, "a")]), [("swapped", "a")]);
        assert_eq!(told(&[(1, "a")], &[(1, "b")]), [("dropped", "a"), ("created", "b")]);
        assert_eq!(told(&[(1, "a"), (2, "b")], &[(1, "b"), (2, "a")]), [("swapped", "b"), ("swapped", "a")]);
        assert!(told(&[(1, "a")], &[(1, "a")]).is_empty());
    }
}
