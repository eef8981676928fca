//! Who is connected: what `pg_stat_activity` shows. A session is entered when it has begun, and leaves with its [`Place`].
//!
//! Nothing is written while statements run, so it costs them nothing; what a session does just now is known only of the one
//! that asks.

use crate::session::SharedSettings;
use parking_lot::Mutex;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tidemark_catalog::ObjectId;

/// A session that is open.
#[derive(Clone)]
pub struct Open {
    /// Also `pg_backend_pid()`.
    pub connection_id: i32,
    pub user: String,
    /// As whom it logged in.
    pub role: ObjectId,
    /// `None`: it is in this process.
    pub peer: Option<SocketAddr>,
    pub is_encrypted: bool,
    /// Microseconds.
    pub began_us: i64,
    /// Where its `application_name` is.
    pub settings: Arc<SharedSettings>,
}

/// All sessions that are open, by connection. As many as `max_connections` at most.
#[derive(Default)]
pub struct Sessions(Mutex<BTreeMap<i32, Open>>);

impl Sessions {
    pub fn enter(self: &Arc<Self>, session: Open) -> Place {
        let connection_id = session.connection_id;
        self.0.lock().insert(connection_id, session);
        Place { sessions: self.clone(), connection_id }
    }

    pub fn all(&self) -> Vec<Open> {
        self.0.lock().values().cloned().collect()
    }
}

/// A session's place among the open ones, until it is dropped.
pub struct Place {
    sessions: Arc<Sessions>,
    connection_id: i32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.0.lock().remove(&self.connection_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_among_the_open_ones_until_its_place_is_dropped() {
        let sessions = Arc::new(Sessions::default());
        let open = |connection_id| Open {
            connection_id,
            user: "ann".into(),
            role: ObjectId(10),
            peer: None,
            is_encrypted: false,
            began_us: 0,
            settings: Arc::default(),
        };
        let (first, second) = (sessions.enter(open(1)), sessions.enter(open(2)));
        let ids = || sessions.all().iter().map(|session| session.connection_id).collect::<Vec<_>>();
        assert_eq!(ids(), [1, 2]);
        drop(first);
        assert_eq!(ids(), [2]);
        drop(second);
        assert!(ids().is_empty());
    }
}
