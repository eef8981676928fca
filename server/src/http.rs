//! The port for those who watch the server: `/metrics`, `/healthz`, `/readyz`.
//!
//! It is open before recovery begins and closed after everything else, so that "alive, not ready yet" can be told.

use crate::{database::Database, metrics::Metrics};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tidemark_engine::seam::Clock;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// Connections at once: some Prometheus servers, an orchestrator, and people. More wait.
const CONNECTIONS_MAX: usize = 32;
/// A connection's whole life: scrapers come again, and whoever sends nothing holds a place no longer than this.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// After a failed accept: it fails when file descriptors run out, and trying at once again would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far the server is.
enum Phase {
    Recovering,
    Ready(Metrics),
    Stopping,
}

/// What the port tells. Clones tell the same.
#[derive(Clone)]
pub struct Health(Arc<RwLock<Phase>>);

impl Health {
    pub fn recovering() -> Health {
        Health(Arc::new(RwLock::new(Phase::Recovering)))
    }

    pub fn ready(&self, database: Arc<Database>) {
        *self.0.write() = Phase::Ready(Metrics::new(database));
    }

    pub fn stopping(&self) {
        *self.0.write() = Phase::Stopping;
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let phase = self.0.read();
        let (status, kind, body) = match path {
            "/metrics" | "/healthz" | "/readyz" if method != Method::GET && method != Method::HEAD => {
                (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_string())
            }
            "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_string()),
            "/readyz" => match &*phase {
                Phase::Ready(_) => (StatusCode::OK, TEXT, "ok\n".to_string()),
                Phase::Recovering => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "recovering\n".to_string()),
                Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "stopping\n".to_string()),
            },
            "/metrics" => match &*phase {
                Phase::Ready(metrics) => match metrics.text() {
                    Ok(text) => (StatusCode::OK, OPEN_METRICS, text),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("no metrics: {error}\n")),
                },
                _ => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: see /readyz\n".to_string()),
            },
            _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_string()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        response
    }
}

/// Opens the port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for HTTP; choose another address with --http"))
}

/// Answers until `stopping` says so.
pub fn serve(listener: TcpListener, health: Health, clock: Arc<dyn Clock>, mut stopping: watch::Receiver<bool>) {
    let spawn = clock.clone();
    spawn.spawn(
        "http",
        Box::pin(async move {
            let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            loop {
                let accepted = tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return,
                    accepted = accept(&listener, &places) => accepted,
                };
                let Some((stream, place)) = accepted else {
                    clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let (health, life) = (health.clone(), clock.sleep(CONNECTION_LIFE));
                clock.spawn(
                    "http connection",
                    Box::pin(async move {
                        tokio::select! {
                            () = life => {}
                            () = talk(stream, health) => {}
                        }
                        drop(place);
                    }),
                );
            }
        }),
    );
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, place))
}

async fn talk(stream: TcpStream, health: Health) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = health.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    // Errors are the other side's: it went away, or does not speak HTTP.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
