//! The PostgreSQL protocol in front of a small fake database: by a real driver, by bytes, and by garbage.

mod cursors;
mod driver;
mod fake;
mod hostile;
mod notifications;
pub mod passwords;
mod protocol;
pub mod raw;
mod sql_client;
