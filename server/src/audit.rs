//! What was done to definitions, roles and grants, and who was not let in: a line of the log each (target
//! `tidemark::audit`), and the last of them in `tidemark.audit`. The log is the record; the table is for looking.

use crate::pg::{Login, PgError};
use parking_lot::Mutex;
use std::{collections::VecDeque, net::SocketAddr};
use tidemark_planner::{Statement, parse::loggable};

/// Entries kept in memory: some 3 MB, and days of ordinary work.
const ENTRIES_MAX: usize = 10_000;
/// Of a statement so much is kept and logged: a definition is in the catalog anyway.
const STATEMENT_BYTES_MAX: usize = 2_000;

/// Where the log has them.
pub const TARGET: &str = "tidemark::audit";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970, UTC.
    pub at_us: i64,
    /// `login`, or the statement's command: `CREATE ROLE`, `GRANT`, …
    pub event: String,
    /// Who connected.
    pub user: String,
    /// As whom it was done.
    pub role: String,
    pub address: Option<String>,
    /// Without passwords.
    pub statement: Option<String>,
    /// `None`: it was done.
    pub error: Option<(String, String)>,
}

#[derive(Default)]
pub struct Audit {
    entries: Mutex<VecDeque<Entry>>,
}

/// A session, as the audit names it.
pub struct Subject<'a> {
    pub user: &'a str,
    pub role: &'a str,
    pub peer: Option<SocketAddr>,
}

impl Audit {
    /// The oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().iter().cloned().collect()
    }

    fn add(&self, entry: Entry) {
        let Entry { event, user, role, address, statement, error, .. } = &entry;
        let (address, statement) = (address.as_deref().unwrap_or(""), statement.as_deref().unwrap_or(""));
        match error {
            None => tracing::info!(target: TARGET, event, user, role, address, statement, "done"),
            Some((sqlstate, error)) => {
                tracing::warn!(target: TARGET, event, user, role, address, statement, sqlstate, error, "refused");
            }
        }
        let mut entries = self.entries.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Somebody was not let in.
    pub fn login(&self, at_us: i64, login: &Login<'_>, error: &PgError) {
        self.add(Entry {
            at_us,
            event: "login".to_string(),
            user: login.user.to_string(),
            role: String::new(),
            address: login.peer.map(|peer| peer.ip().to_string()),
            statement: None,
            error: Some((error.sqlstate.to_string(), error.message.clone())),
        });
    }

    /// A statement changed what there is or who may do what, or was refused.
    pub fn statement(&self, at_us: i64, event: &str, by: &Subject<'_>, sql: &str, error: Option<&PgError>) {
        let mut statement = loggable(sql);
        if statement.len() > STATEMENT_BYTES_MAX {
            let end = statement.floor_char_boundary(STATEMENT_BYTES_MAX);
            statement.truncate(end);
            statement.push('…');
        }
        self.add(Entry {
            at_us,
            event: event.to_string(),
            user: by.user.to_string(),
            role: by.role.to_string(),
            address: by.peer.map(|peer| peer.ip().to_string()),
            statement: Some(statement),
            error: error.map(|error| (error.sqlstate.to_string(), error.message.clone())),
        });
    }
}

/// The command of a statement that is always in the audit, done or not.
pub fn is_audited(statement: &Statement) -> bool {
    use Statement as S;
    matches!(
        statement,
        S::CreateRelation(_)
            | S::CreateTableAs { .. }
            | S::CreateFeatureView(_)
            | S::CreateView { .. }
            | S::CreateAggregate(_)
            | S::CreateTrainingSet(_)
            | S::RefreshTrainingSet { .. }
            | S::Drop { .. }
            | S::Rename { .. }
            | S::SetOptions { .. }
            | S::AlterColumns { .. }
            | S::SetDefault { .. }
            | S::ResetTopic { .. }
            | S::SetOwner { .. }
            | S::CreateSchema { .. }
            | S::DropSchema { .. }
            | S::RenameSchema { .. }
            | S::SetSchemaOwner { .. }
            | S::CreateRole { .. }
            | S::AlterRole { .. }
            | S::RenameRole { .. }
            | S::DropRole { .. }
            | S::ReassignOwned { .. }
            | S::Grant(_)
            | S::GrantRoles(_)
            | S::CreateSecret { .. }
            | S::AlterSecret { .. }
            | S::DropSecret { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_stay_and_no_password_is_among_them() {
        let audit = Audit::default();
        let by = Subject { user: "ann", role: "ann", peer: None };
        audit.statement(1, "CREATE ROLE", &by, "CREATE ROLE b PASSWORD 'geheim'", None);
        let entry = audit.entries().pop().unwrap();
        assert_eq!(entry.statement.as_deref(), Some("CREATE ROLE b PASSWORD '********'"));
        for at_us in 0..ENTRIES_MAX as i64 {
            audit.statement(at_us, "GRANT", &by, &format!("GRANT a TO {}", "é".repeat(2_000)), None);
        }
        let entries = audit.entries();
        assert_eq!((entries.len(), entries[0].event.as_str()), (ENTRIES_MAX, "GRANT"));
        assert!(entries[0].statement.as_ref().is_some_and(|text| text.len() < STATEMENT_BYTES_MAX + 8));
    }
}
