//! The connection to Redis: made when it is needed, given up when it breaks, and made again by the next call.

use super::address::{Address, Target};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tidemark_engine::seam::{SeamError, SeamResult};
use tokio::sync::Mutex;

/// To connect: a round trip or three and TLS, on a bad day. A put that waits for it holds up the puts of other views.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// For one answer: a thousand times what it takes; Redis may fork or fail over meanwhile.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Connection::One(connection) => connection.req_packed_command(command).await,
            Connection::Cluster(connection) => connection.req_packed_command(command).await,
        }
    }
}

pub(super) struct Link {
    address: Address,
    /// With a number, so that who finds it broken does not give up the one after it.
    connection: Mutex<(u64, Option<Connection>)>,
    /// Times that no connection could be made.
    failures: AtomicU64,
    /// Why not, the last time.
    failure: parking_lot::Mutex<String>,
}

impl Link {
    pub fn new(address: Address) -> Link {
        let connection = Mutex::new((0, None));
        Link { address, connection, failures: AtomicU64::new(0), failure: parking_lot::Mutex::default() }
    }

    pub fn name(&self) -> &str {
        &self.address.shown
    }

    /// Whether keys lie on several nodes.
    pub fn is_cluster(&self) -> bool {
        matches!(self.address.target, Target::Cluster(_))
    }

    /// Which connection it is that the next command goes over: another one may lead to another Redis.
    pub async fn number(&self) -> SeamResult<u64> {
        self.connected().await.map(|(number, _)| number)
    }

    /// Commands of several callers share the connection and do not wait for each other's answers.
    pub async fn ask(&self, command: &Cmd) -> SeamResult<Value> {
        let (number, mut connection) = self.connected().await?;
        match connection.ask(command).await {
            Ok(Value::ServerError(error)) => Err(self.refused(&RedisError::from(error))),
            Ok(value) => Ok(value),
            Err(error) => {
                if is_broken(&error) {
                    let mut current = self.connection.lock().await;
                    if current.0 == number {
                        current.1 = None;
                    }
                }
                Err(self.refused(&error))
            }
        }
    }

    async fn connected(&self) -> SeamResult<(u64, Connection)> {
        let failures = self.failures.load(Ordering::Relaxed);
        let mut current = self.connection.lock().await;
        if let (number, Some(connection)) = &*current {
            return Ok((*number, connection.clone()));
        }
        // Who waited while somebody else tried in vain does not try too: of a thousand the last would wait a thousand times.
        if self.failures.load(Ordering::Relaxed) != failures {
            return Err(SeamError::NotDone(self.failure.lock().clone()));
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let made = match &self.address.target {
            Target::One(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Target::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            // They are asked anew: after a failover another one is the master.
            Target::Sentinel(client) => {
                client.lock().await.get_async_connection_with_config(&config).await.map(Connection::One)
            }
        };
        // Whatever went wrong, no command was sent.
        let made = made.map_err(|error| {
            let refused = self.refused(&error).into_not_done();
            *self.failure.lock() = refused.to_string();
            self.failures.fetch_add(1, Ordering::Relaxed);
            refused
        })?;
        current.0 += 1;
        current.1 = Some(made.clone());
        Ok((current.0, made))
    }

    /// What a failure means for who asked. Passwords are in no message of Redis or of its client.
    fn refused(&self, error: &RedisError) -> SeamError {
        let name = self.name();
        match error.kind() {
            _ if error.code() == Some("OOM") => SeamError::Full(format!(
                "{name} has no memory left ({error}); raise its maxmemory, or drop what it need not keep"
            )),
            _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => SeamError::NotDone(format!(
                "{name} does not let this server in ({error}); check the user and the password in its address"
            )),
            ErrorKind::AuthenticationFailed => SeamError::NotDone(format!(
                "{name} does not let this server in ({error}); check the user and the password in its address"
            )),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => SeamError::NotDone(format!(
                "{name} is a replica, or has become one ({error}); its address is to name a master"
            )),
            ErrorKind::MasterNameNotFoundBySentinel => {
                SeamError::NotDone(format!("{name}: no Sentinel knows a master of this name that is up ({error})"))
            }
            _ if error.is_connection_refusal() => SeamError::NotDone(format!("no {name} answers: {error}")),
            _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => {
                SeamError::Unknown(format!("{name} does not answer: {error}"))
            }
            _ => SeamError::NotDone(format!("{name}: {error}")),
        }
    }

    pub fn not_understood(&self, command: &str, answer: &Value) -> SeamError {
        SeamError::NotDone(format!("{} answers {command} with {answer:?}", self.name()))
    }
}

/// Whether the next command is better off with another connection: also where a server has become a replica, for a name may
/// now lead to the new master.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}
