//! The PostgreSQL protocol, version 3, in front of any [`Backend`].
//!
//! pgwire gives the message types; the accept loop, the connection loop and the state of a connection are ours, because
//! pgwire's stock handlers send a packet per reply, hold whole results in memory, cannot stop a running query, and
//! decode some malformed messages by panicking.
//!
//! ```text
//! server      accept, limits, cancel requests, shutdown
//!   startup     encryption, version settled, options unpacked      tls, transport   the encrypted stream
//!   authenticate   passwords, by SCRAM
//!   connection  one message after another; when to send
//!     frontend    bytes to messages          reply   messages to bytes
//!     portal      statements and portals     transaction   the block's status
//!     execute     statements and rows        copy          data in and out
//!     fetch       rows of a cursor           cursor        what one is
//!     watch       cancel, timeout, shutdown, a client that left
//!     socket      the stream and its buffers
//!     counters    what is counted of it
//! ```
//!
//! ```ignore
//! let listener = pg::bind("127.0.0.1:5433".parse()?).await?;
//! let server = pg::Server::new(backend, clock, pg::Settings::default());
//! server.serve(listener, shutdown).await;
//! ```

mod authenticate;
mod backend;
mod connection;
mod copy;
mod counters;
mod cursor;
mod error;
mod execute;
mod fetch;
mod format;
mod frontend;
mod portal;
mod reply;
mod server;
mod socket;
mod startup;
mod tls;
mod transaction;
mod transport;
mod watch;

pub use backend::{
    Admission, Backend, Batches, Bound, Column, Completed, Copied, CopyChunk, CopyInSink, CopyLayout, EncodeRows,
    Login, Notification, Outcome, RowsTag, SessionEvent, Startup, TxEvent, Verb,
};
pub use counters::Counters;
pub use cursor::{CursorFacts, CursorVerb, Declaration, Fetch, OpenCursors, Reach};
pub use error::{PgError, Severity, sqlstate};
pub use format::{Format, Formats};
pub use server::{ListenError, Server, Settings, bind, bind_guarded};
pub use tls::{Tls, TlsError, TlsFiles, common_name};
pub use watch::{Bell, Hold};
