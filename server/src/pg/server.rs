//! The front door: accepts connections, counts them, routes cancel requests, and closes in order.

use super::authenticate::{Claim, authenticate};
use super::backend::{Admission, Backend, Login, Startup};
use super::connection::Connection;
use super::counters::Counters;
use super::error::{PgError, sqlstate};
use super::reply;
use super::socket::Socket;
use super::startup::{Greeting, Packet, default_parameters, greet, settle_version};
use super::tls::Tls;
use super::transport::Transport;
use super::watch::{Bell, CANCEL, DRAIN, Fault, Hold, Signals, TERMINATE, Watch};
use ahash::AHashMap;
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tidemark_engine::seam::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Limits of the front door, each with a reason for its default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sessions at once. 1,000: an idle one costs some 20 kB, and beyond that a pooler serves better.
    pub max_connections: usize,
    /// From the first byte to the first ReadyForQuery. 60 s: PostgreSQL's `authentication_timeout`.
    pub startup_timeout: Duration,
    /// Connections of clients that have not shown who they are. 1,000: a whole pool may arrive at once, and so many strangers cost
    /// some 10 MB. More are closed unheard.
    pub unauthenticated_max: usize,
    /// How long somebody waits who was not let in. 500 ms: who guesses has two tries a second on each connection, and who has
    /// mistyped does not notice. `None`: not at all.
    pub auth_delay: Option<Duration>,
    /// `None`: encryption is refused.
    pub tls: Option<Arc<Tls>>,
    /// One message after startup. 64 MiB: a seed file of 10,000 rows in one INSERT fits many times over, a thousand
    /// clients cannot fill a machine by accident, and bulk data comes by COPY in small messages.
    pub message_bytes_max: usize,
    /// Named statements of one connection. 5,000: drivers cache 100 to 500, a pooler some thousands.
    pub prepared_statements_max: usize,
    /// Named portals of one connection. 256: each may hold a running query; drivers keep a few open.
    pub portals_max: usize,
    /// How long running statements may go on once the server shuts down. 30 s: what supervisors wait before they kill.
    pub shutdown_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_connections: 1_000,
            startup_timeout: Duration::from_secs(60),
            unauthenticated_max: 1_000,
            auth_delay: Some(Duration::from_millis(500)),
            tls: None,
            message_bytes_max: 64 * 1024 * 1024,
            prepared_statements_max: 5_000,
            portals_max: 256,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// After the grace connections are ended at once; a task that is deep in computation gets this long to notice.
const TERMINATION_WAIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept: it fails when file descriptors run out, and trying at once again would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("address {address} is already in use\nHINT: another server runs there; choose another address with --listen, for example --listen 127.0.0.1:{}", .address.port().wrapping_add(1))]
    InUse { address: SocketAddr },
    #[error("refusing to listen on {address}: no role has a password, so every client would be trusted\nHINT: listen on a loopback address, for example --listen 127.0.0.1:{}, or give the first superuser a password with --superuser-password-file", .address.port())]
    NotLoopback { address: SocketAddr },
    #[error(
        "refusing to listen on {address}: rule {rule} of hba trusts clients beyond this machine\nHINT: let it say scram-sha-256 or cert, or name loopback addresses only: 127.0.0.1/32, ::1/128"
    )]
    Trusting { address: SocketAddr, rule: usize },
    #[error("cannot listen on {address}: {source}\nHINT: choose another address with --listen")]
    Other { address: SocketAddr, source: std::io::Error },
}

/// Opens the port where every client is trusted: on loopback only.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !address.ip().to_canonical().is_loopback() {
        return Err(ListenError::NotLoopback { address });
    }
    bind_guarded(address).await
}

/// Opens the port on any address: clients from elsewhere have to show who they are.
pub async fn bind_guarded(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::InUse { address },
        _ => ListenError::Other { address, source },
    })
}

/// What all connections share.
pub(super) struct Shared<B> {
    pub backend: Arc<B>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub counters: Arc<Counters>,
    registry: Mutex<Registry>,
    /// Open sockets, for limits and for the wait at the end.
    sockets: watch::Sender<usize>,
}

#[derive(Default)]
struct Registry {
    connections: AHashMap<i32, Entry>,
    last_id: i32,
    /// Connections past startup.
    sessions: usize,
    draining: bool,
}

struct Entry {
    secret: i32,
    signals: Arc<Signals>,
}

/// The server. Clones are the same server.
pub struct Server<B: Backend> {
    shared: Arc<Shared<B>>,
}

impl<B: Backend> Clone for Server<B> {
    fn clone(&self) -> Self {
        Server { shared: Arc::clone(&self.shared) }
    }
}

impl<B: Backend> Server<B> {
    pub fn new(backend: Arc<B>, clock: Arc<dyn Clock>, settings: Settings) -> Self {
        let (counters, registry) = (Arc::default(), Mutex::default());
        let sockets = watch::Sender::new(0);
        Server { shared: Arc::new(Shared { backend, clock, settings, counters, registry, sockets }) }
    }

    /// Accepts connections until `shutdown` completes; then lets running statements finish, within the grace, and
    /// returns when every connection is closed.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.shared.clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.unauthenticated() >= self.shared.settings.unauthenticated_max {
                continue;
            }
            // Replies are small and written once they are whole: waiting to join them would only delay them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was not set");
            }
            let connection = self.converse(stream, Some(peer));
            self.shared.clock.spawn("pg connection", Box::pin(connection));
        }
        drop(listener);
        self.drain().await;
    }

    /// Ends every connection: idle ones now, the others when their statement is done or the grace is over.
    async fn drain(&self) {
        self.raise_all(DRAIN);
        let mut sockets = self.shared.sockets.subscribe();
        let clock = &self.shared.clock;
        tokio::select! {
            biased;
            _ = sockets.wait_for(|count| *count == 0) => return,
            () = clock.sleep(self.shared.settings.shutdown_grace) => {}
        }
        self.raise_all(TERMINATE);
        tokio::select! {
            biased;
            _ = sockets.wait_for(|count| *count == 0) => {}
            () = clock.sleep(TERMINATION_WAIT) => tracing::warn!("connections were still open when the server ended"),
        }
    }

    fn raise_all(&self, signal: u8) {
        let mut registry = self.shared.registry.lock();
        registry.draining = true;
        for entry in registry.connections.values() {
            entry.signals.raise(signal);
        }
    }

    /// `pg_cancel_backend`: stops what the connection runs. Whether there is such a connection.
    pub fn cancel(&self, connection_id: i32) -> bool {
        self.raise(connection_id, CANCEL)
    }

    /// `pg_terminate_backend`: ends the connection.
    pub fn terminate(&self, connection_id: i32) -> bool {
        self.raise(connection_id, TERMINATE)
    }

    fn raise(&self, connection_id: i32, signal: u8) -> bool {
        let registry = self.shared.registry.lock();
        registry.connections.get(&connection_id).map(|entry| entry.signals.raise(signal)).is_some()
    }

    /// Connections of clients that have not shown who they are: also cancel requests, and those yet to be told that there is no
    /// room.
    pub fn unauthenticated(&self) -> usize {
        let registry = self.shared.registry.lock();
        registry.connections.len().saturating_sub(registry.sessions)
    }

    /// Sessions open now.
    pub fn sessions(&self) -> usize {
        self.shared.registry.lock().sessions
    }

    /// What has been counted since it started.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Serves one client on any stream, to its end.
    pub fn converse<S>(&self, stream: S, peer: Option<SocketAddr>) -> impl Future<Output = ()> + Send + use<S, B>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Counted before the task first runs, so that a burst of connections cannot slip past the limit.
        let place = Place::take(Arc::clone(&self.shared));
        async move {
            let mut socket = Socket::new(Transport::Plain(stream));
            let mut watch = Watch::new(Arc::clone(&place.signals));
            let session = match place.open(&mut socket, &mut watch, peer).await {
                Ok(Some(session)) => session,
                Ok(None) | Err(Fault::Gone) => return,
                Err(Fault::Sql(error)) => {
                    place.shared.counters.error(error.sqlstate);
                    reply::error_or_notice(&mut socket.output, &error.into_fatal());
                    let _ = watch.flush(&mut socket).await;
                    let _ = std::future::poll_fn(|cx| socket.poll_shutdown(cx)).await;
                    return;
                }
            };
            Connection::new(socket, watch, Arc::clone(&place.shared), session).run().await;
        }
    }
}

/// A connection's place among the others; leaves it when dropped, also if the connection's task dies.
struct Place<B: Backend> {
    shared: Arc<Shared<B>>,
    connection_id: i32,
    secret: i32,
    signals: Arc<Signals>,
    /// Counted among the sessions.
    seated: std::sync::atomic::AtomicBool,
}

impl<B: Backend> Place<B> {
    fn take(shared: Arc<Shared<B>>) -> Self {
        let signals = Arc::new(Signals::default());
        let secret = shared.clock.random() as i32;
        let mut registry = shared.registry.lock();
        let connection_id = loop {
            // Positive, as process ids are; after 2³¹ connections the numbers come round.
            registry.last_id = registry.last_id.checked_add(1).unwrap_or(1);
            if !registry.connections.contains_key(&registry.last_id) {
                break registry.last_id;
            }
        };
        if registry.draining {
            signals.raise(DRAIN);
        }
        registry.connections.insert(connection_id, Entry { secret, signals: Arc::clone(&signals) });
        drop(registry);
        shared.sockets.send_modify(|count| *count += 1);
        Place { shared, connection_id, secret, signals, seated: false.into() }
    }

    /// From the first byte to the session, within the startup timeout.
    async fn open<S>(
        &self,
        socket: &mut Socket<Transport<S>>,
        watch: &mut Watch,
        peer: Option<SocketAddr>,
    ) -> Result<Option<B::Session>, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let timeout = self.shared.clock.sleep(self.shared.settings.startup_timeout);
        tokio::select! {
            biased;
            opened = self.start(socket, watch, peer) => opened,
            // As PostgreSQL: without a word, for the client has not even said what it speaks.
            () = timeout => Ok(None),
        }
    }

    async fn start<S>(
        &self,
        socket: &mut Socket<Transport<S>>,
        watch: &mut Watch,
        peer: Option<SocketAddr>,
    ) -> Result<Option<B::Session>, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let tls = self.shared.settings.tls.as_deref();
        let packet = match greet(socket, watch, tls).await? {
            Greeting::Startup(packet) => packet,
            Greeting::Cancel { connection_id, secret } => {
                self.cancel(connection_id, secret);
                return Ok(None);
            }
            Greeting::Left => return Ok(None),
        };
        settle_version(socket, &packet);
        let is_encrypted = socket.stream().is_encrypted();
        let role = self.let_in(socket, watch, peer, &packet).await?;
        self.seat()?;
        let mut parameters = default_parameters(&packet);
        let Packet { user, database, settings, .. } = packet;
        let startup = Startup {
            connection_id: self.connection_id,
            peer,
            is_encrypted,
            user,
            database,
            role,
            settings,
            hold: Hold::new(Arc::clone(&self.signals)),
            bell: Bell::new(Arc::clone(&self.signals)),
        };
        let mut session = self.shared.backend.open(startup).await?;
        for (name, value) in self.shared.backend.parameters(&mut session) {
            match parameters.iter_mut().find(|(default, _)| *default == name) {
                Some(default) => default.1 = value,
                None => parameters.push((name, value)),
            }
        }
        let out = &mut socket.output;
        reply::authentication_ok(out);
        for (name, value) in &parameters {
            reply::parameter_status(out, name, value);
        }
        reply::backend_key(out, self.connection_id, self.secret);
        Ok(Some(session))
    }

    /// Lets the client show who it is, if it has to; as whom it is let in. Who is not is told after a while.
    async fn let_in<S>(
        &self,
        socket: &mut Socket<Transport<S>>,
        watch: &mut Watch,
        peer: Option<SocketAddr>,
        packet: &Packet,
    ) -> Result<u32, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let certificate = socket.stream().certificate();
        let login = Login {
            peer,
            is_encrypted: socket.stream().is_encrypted(),
            certificate: certificate.as_deref(),
            user: &packet.user,
            database: &packet.database,
        };
        let error = match self.ask(socket, watch, &login).await {
            Err(Fault::Sql(error)) => error,
            other => return other,
        };
        self.shared.backend.refused(&login, &error);
        if let Some(delay) = self.shared.settings.auth_delay.filter(|_| error.sqlstate.starts_with("28")) {
            watch.beside(self.shared.clock.sleep(delay)).await?;
        }
        Err(error.into())
    }

    async fn ask<S>(
        &self,
        socket: &mut Socket<Transport<S>>,
        watch: &mut Watch,
        login: &Login<'_>,
    ) -> Result<u32, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let tls = self.shared.settings.tls.as_deref();
        if tls.is_some_and(|tls| tls.is_required) && !login.is_encrypted {
            let message = "this server takes encrypted connections only";
            return Err(PgError::fatal(sqlstate::INVALID_AUTHORIZATION, message)
                .hint("connect with sslmode=require, or better verify-full and sslrootcert")
                .into());
        }
        let Admission { verifier, role } = self.shared.backend.admit(login)?;
        if let Some(verifier) = verifier {
            let end_point = tls.filter(|_| login.is_encrypted).and_then(Tls::end_point);
            let claim = Claim { user: login.user, end_point };
            authenticate(socket, watch, self.shared.clock.as_ref(), claim, verifier).await?;
        }
        Ok(role)
    }

    /// Counts this connection among the sessions, if there is room.
    fn seat(&self) -> Result<(), PgError> {
        let mut registry = self.shared.registry.lock();
        if registry.draining {
            return Err(PgError::fatal(sqlstate::CANNOT_CONNECT_NOW, "the database system is shutting down"));
        }
        let max = self.shared.settings.max_connections;
        if registry.sessions >= max {
            return Err(PgError::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .hint(format!("at most {max} may be connected; close some, use a pooler, or raise max_connections")));
        }
        registry.sessions += 1;
        self.seated.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// A cancel request is answered by nothing at all, so that keys cannot be probed.
    fn cancel(&self, connection_id: i32, secret: i32) {
        let registry = self.shared.registry.lock();
        if let Some(entry) = registry.connections.get(&connection_id).filter(|entry| entry.secret == secret) {
            entry.signals.raise(CANCEL);
        }
    }
}

impl<B: Backend> Drop for Place<B> {
    fn drop(&mut self) {
        let mut registry = self.shared.registry.lock();
        registry.connections.remove(&self.connection_id);
        if *self.seated.get_mut() {
            registry.sessions -= 1;
        }
        drop(registry);
        self.shared.sockets.send_modify(|count| *count -= 1);
    }
}
