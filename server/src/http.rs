//! One port for machines that watch the server: `/metrics` for Prometheus, `/healthz` and `/readyz` for supervisors and
//! load balancers. It is open before recovery begins and closed after the last checkpoint, so that each phase can be
//! asked about.
//!
//! ```text
//!   bind ── recovery ── serving ─────────── stopping ── the end
//!            healthz 200   200                 200        nobody answers
//!            readyz  503   200                 503
//! ```
//!
//! Nothing here changes anything, and nothing here shows data: names of objects and numbers. There is no password.

mod answer;
mod exposition;
mod memory;
mod metrics;

use crate::{backend::TidemarkBackend, database::Database, pg, settings::Http};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::ready,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};
use tidemark_engine::seam::Clock;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

/// Where it is answered unless somebody says otherwise: a port that neither PostgreSQL nor the usual exporters use.
pub const USUAL: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8433));

/// Connections at once; more are closed unheard. A scraper and some probes have one each, for milliseconds.
const CONNECTIONS_MAX: usize = 64;

/// From a connection's acceptance to its end. Prometheus gives up after 10 s by itself.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// What is read of a request before it is refused: a scraper's has some hundred bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Pause after a failed accept: it fails when file descriptors run out, and trying at once again would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far the server is. When its sender is gone, the server is.
#[derive(Clone)]
pub enum Phase {
    Recovering,
    Serving(Subject),
    Stopping(Subject),
}

impl Phase {
    /// Whether clients are to be sent here.
    pub fn is_ready(&self) -> bool {
        matches!(self, Phase::Serving(_)) && self.trouble().is_none()
    }

    /// Why a serving node cannot answer just now.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Phase::Serving(subject) => subject.database.serving().and_then(|serving| serving.trouble()),
            Phase::Recovering | Phase::Stopping(_) => None,
        }
    }
}

/// What is watched.
#[derive(Clone)]
pub struct Subject {
    pub database: Arc<Database>,
    pub server: pg::Server<TidemarkBackend>,
    pub max_connections: usize,
    pub started_us: i64,
}

/// Why there is no port for it.
#[derive(Debug, thiserror::Error)]
#[error("cannot answer HTTP on {address}: {source}\nHINT: choose another address with --http, for example --http 127.0.0.1:{}, or --http off", .address.port().wrapping_add(1))]
pub struct ListenError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// Opens the port; `None`: there is to be none, or the usual one is taken.
///
/// # Errors
/// An address that somebody has asked for cannot be listened on.
pub async fn bind(wanted: Http) -> Result<Option<TcpListener>, ListenError> {
    let address = match wanted {
        Http::Off => return Ok(None),
        Http::Auto => USUAL,
        Http::At(address) => address,
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if wanted == Http::Auto => {
            tracing::warn!(%address, %error, "no metrics: the usual port is taken; choose another with --http");
            Ok(None)
        }
        Err(source) => Err(ListenError { address, source }),
    }
}

/// Answers until the server has ended.
pub async fn serve(listener: TcpListener, clock: Arc<dyn Clock>, phase: watch::Receiver<Phase>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut over = phase.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = ended(&mut over) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let connection = converse(stream, Arc::clone(&clock), phase.clone(), place);
        clock.spawn("http connection", Box::pin(connection));
    }
}

/// Completes when the server has ended, or its start has.
async fn ended(phase: &mut watch::Receiver<Phase>) {
    while phase.changed().await.is_ok() {}
}

/// One request: a scrape every few seconds gains nothing from a connection that is kept, and an idle one would take a
/// place.
async fn converse(
    stream: TcpStream,
    clock: Arc<dyn Clock>,
    phase: watch::Receiver<Phase>,
    _place: OwnedSemaphorePermit,
) {
    let mut over = phase.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let phase = phase.borrow().clone();
        ready(Ok::<_, Infallible>(answer::to(request.method(), request.uri().path(), &phase)))
    });
    let mut protocol = http1::Builder::new();
    // Its own date would be the wall clock's, and its own timeouts want a timer: time is the clock's affair, below.
    protocol.keep_alive(false).max_buf_size(REQUEST_BYTES_MAX).auto_date_header(false);
    let connection = protocol.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        }
        () = ended(&mut over) => {}
        () = clock.sleep(CONNECTION_TIME) => {}
    }
}
