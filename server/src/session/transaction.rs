//! A session's transactions: what `SET LOCAL` undoes, and whether something may be changed.
//!
//! There is always a transaction: outside of a block each statement is its own, with the session's defaults.

use super::Session;
use crate::pg::{PgError, SessionEvent};
use std::collections::HashMap;

const READ_ONLY: &str = "transaction_read_only";
const ISOLATION: &str = "transaction_isolation";

/// What the settings of a transaction are at its beginning.
const DEFAULTS: [(&str, &str); 2] =
    [(READ_ONLY, "default_transaction_read_only"), (ISOLATION, "default_transaction_isolation")];

/// Whether a setting is the running transaction's, not the session's.
pub(super) fn is_of_transaction(name: &str) -> bool {
    DEFAULTS.iter().any(|(setting, _)| *setting == name)
}

impl Session {
    pub fn begin_transaction(&mut self) {
        self.in_transaction = true;
        self.begin_block();
        self.queried_in_transaction = false;
        self.store_defaults();
    }

    /// `BEGIN READ ONLY | READ WRITE | ISOLATION LEVEL …`
    pub fn begin_modes(&mut self, read_only: Option<bool>, isolation: Option<&str>) -> Result<(), PgError> {
        if let Some(level) = isolation {
            self.set(ISOLATION, Some(level), true)?;
        }
        match read_only {
            Some(read_only) => self.set(READ_ONLY, Some(on_off(read_only)), true),
            None => Ok(()),
        }
    }

    /// Both modes of `SET TRANSACTION`, or of `SET SESSION CHARACTERISTICS`.
    pub fn set_modes(&mut self, local: bool, isolation: &str, read_only: bool) -> Result<(), PgError> {
        let [(of_reading, default_of_reading), (of_isolation, default_of_isolation)] = DEFAULTS;
        if local {
            if !self.in_transaction {
                self.warn_outside_block(ISOLATION);
                return Ok(());
            }
            self.set(of_isolation, Some(isolation), true)?;
            return self.set(of_reading, Some(on_off(read_only)), true);
        }
        self.set(default_of_isolation, Some(isolation), false)?;
        self.set(default_of_reading, Some(on_off(read_only)), false)
    }

    /// Whether what the first query of the transaction finds is what all of them read. Outside of a block a statement is
    /// its own transaction.
    pub fn reads_a_snapshot(&self) -> bool {
        self.in_transaction && matches!(self.get(ISOLATION), Some("repeatable read" | "serializable"))
    }

    /// The end of a transaction undoes `SET LOCAL`.
    pub fn end_transaction(&mut self) {
        self.in_transaction = false;
        self.block.let_go();
        for (name, value) in std::mem::take(&mut self.local).into_iter().rev() {
            self.store(&name, value);
        }
        self.store_defaults();
    }

    /// Outside of a block the settings of a transaction are those the next one begins with.
    pub(super) fn store_defaults(&mut self) {
        for (name, default) in DEFAULTS {
            let value = self.settings.get(default).cloned().unwrap_or_default();
            self.shared.values.lock().insert(name.to_string(), value.clone());
            self.settings.insert(name.to_string(), value);
        }
    }

    /// Refuses a command that changes something where the transaction may only read.
    pub fn may_change(&self, command: &str) -> Result<(), PgError> {
        match self.get(READ_ONLY) {
            Some("on") => Err(PgError::error("25006", format!("cannot execute {command} in a read-only transaction"))
                .hint("the transaction began READ ONLY, or default_transaction_read_only is on: SHOW transaction_read_only")),
            _ => Ok(()),
        }
    }

    /// A transaction that has read something as read-only stays so, and one that has read something at an isolation level
    /// keeps that.
    pub(super) fn check_mode(&self, name: &str, value: &str) -> Result<(), PgError> {
        let was_read_only = self.get(READ_ONLY) == Some("on");
        if name == READ_ONLY && was_read_only && value == "off" && self.in_transaction && self.queried_in_transaction {
            return Err(PgError::error("25001", "transaction read-write mode must be set before any query"));
        }
        if name == ISOLATION && self.in_transaction && self.queried_in_transaction && self.get(ISOLATION) != Some(value)
        {
            return Err(PgError::error("25001", "SET TRANSACTION ISOLATION LEVEL must be called before any query"));
        }
        Ok(())
    }

    /// What applies to the running transaction only has nothing to apply to outside of a block.
    pub(super) fn warn_outside_block(&mut self, name: &str) {
        let command = if is_of_transaction(name) { "SET TRANSACTION" } else { "SET LOCAL" };
        let text = format!("{command} can only be used in transaction blocks");
        self.events.push(SessionEvent::Notice(PgError::warning("25P01", text)));
    }

    /// `RESET ALL` leaves the running transaction as it is.
    pub(super) fn keep_transaction(&self, mut settings: HashMap<String, String>) -> HashMap<String, String> {
        for (name, _) in DEFAULTS {
            settings.extend(self.settings.get_key_value(name).map(|(name, value)| (name.clone(), value.clone())));
        }
        settings
    }
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
