//! Everything that may stop a running statement, watched beside it: a cancel request, the statement's timeout, the
//! server's end, and the client's own departure.

use super::error::{PgError, sqlstate};
use super::socket::Socket;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// Why a connection stopped what it was doing.
#[derive(Debug)]
pub(super) enum Fault {
    /// To be told to the client; the connection goes on unless the error is fatal.
    Sql(PgError),
    /// The client is gone: there is nobody to tell.
    Gone,
}

impl From<PgError> for Fault {
    fn from(error: PgError) -> Self {
        Fault::Sql(error)
    }
}

/// Requests to one connection from outside it. Its task is the only one that waits here.
#[derive(Debug, Default)]
pub(super) struct Signals {
    pending: AtomicU8,
    /// How many [`Held`] there are.
    held: AtomicUsize,
    waker: AtomicWaker,
}

/// Stop the running statement, if there is one.
pub(super) const CANCEL: u8 = 1;
/// End when nothing runs: the server is shutting down.
pub(super) const DRAIN: u8 = 2;
/// End now.
pub(super) const TERMINATE: u8 = 4;
/// Notifications wait for the client.
const RING: u8 = 8;
/// More of them waited than may.
const OVERFLOW: u8 = 16;

impl Signals {
    pub fn raise(&self, signal: u8) {
        self.pending.fetch_or(signal, Ordering::SeqCst);
        self.waker.wake();
    }

    fn clear(&self, signal: u8) {
        // A plain load first: nearly always there is nothing to clear.
        if self.pending.load(Ordering::Relaxed) & signal != 0 {
            self.pending.fetch_and(!signal, Ordering::SeqCst);
        }
    }

    fn is_raised(&self, signals: u8) -> bool {
        self.pending.load(Ordering::SeqCst) & signals != 0
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst) > 0
    }
}

/// With it a statement says that it must not be stopped half-way: what it changes is in several places.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<Signals>);

/// As long as it lives, nothing stops the statement; what came meanwhile stops it then, if it still runs.
#[derive(Debug)]
pub struct Held(Arc<Signals>);

/// Of the same connection.
impl PartialEq for Hold {
    fn eq(&self, other: &Hold) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hold {}

impl Hold {
    pub(super) fn new(signals: Arc<Signals>) -> Hold {
        Hold(signals)
    }

    pub fn hold(&self) -> Held {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        Held(Arc::clone(&self.0))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
        // What came meanwhile is looked at now.
        self.0.waker.wake();
    }
}

/// With it others tell a connection that notifications wait for its client.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Signals>);

/// Of the same connection.
impl PartialEq for Bell {
    fn eq(&self, other: &Bell) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Bell {}

impl Bell {
    pub(super) fn new(signals: Arc<Signals>) -> Bell {
        Bell(signals)
    }

    /// They are taken once no transaction is open.
    pub fn ring(&self) {
        self.0.raise(RING);
    }

    /// The client has not taken them for too long: its connection ends when it is idle, or does not read.
    pub fn overflow(&self) {
        self.0.raise(OVERFLOW);
    }
}

/// What came of waiting for an idle client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    /// It has sent something.
    Bytes,
    /// It has closed its side.
    Closed,
    /// Notifications wait for it.
    Rung,
}

/// How long a client may be idle, and what it is told then.
pub(super) struct Limit {
    pub over: BoxFuture<'static, ()>,
    pub error: PgError,
}

/// The watch of one connection.
pub(super) struct Watch {
    signals: Arc<Signals>,
    timeout: Option<BoxFuture<'static, ()>>,
}

impl Watch {
    pub fn new(signals: Arc<Signals>) -> Self {
        Watch { signals, timeout: None }
    }

    /// A statement begins. A cancel request that came before it was meant for another.
    pub fn begin(&mut self, timeout: Option<BoxFuture<'static, ()>>) {
        self.signals.clear(CANCEL);
        self.timeout = timeout;
    }

    pub fn end(&mut self) {
        self.timeout = None;
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<PgError> {
        self.signals.waker.register(cx.waker());
        if self.signals.is_held() {
            return Poll::Pending;
        }
        if self.signals.is_raised(TERMINATE) {
            return Poll::Ready(terminated());
        }
        if self.signals.is_raised(CANCEL) {
            self.signals.clear(CANCEL);
            let message = "canceling statement due to user request";
            return Poll::Ready(PgError::error(sqlstate::QUERY_CANCELED, message));
        }
        if let Some(timeout) = &mut self.timeout
            && timeout.as_mut().poll(cx).is_ready()
        {
            self.timeout = None;
            let message = "canceling statement due to statement timeout";
            return Poll::Ready(PgError::error(sqlstate::QUERY_CANCELED, message));
        }
        Poll::Pending
    }

    /// Runs a part of a statement. Stops are looked at first, so that work that is always ready is stopped too.
    pub async fn run<S, F>(&mut self, socket: &mut Socket<S>, work: F) -> Result<F::Output, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        F: Future,
    {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.poll_stop(cx) {
                return Poll::Ready(Err(Fault::Sql(error)));
            }
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if self.signals.is_held() {
                return Poll::Pending;
            }
            socket.poll_gone(cx).map(|()| Err(Fault::Gone))
        })
        .await
    }

    /// Writes what is in the output buffer while a statement runs: a client that does not read holds the statement back,
    /// not our memory.
    pub async fn drain<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut Socket<S>) -> Result<(), Fault> {
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.poll_stop(cx) {
                return Poll::Ready(Err(Fault::Sql(error)));
            }
            if let Poll::Ready(written) = socket.poll_drain(cx) {
                return Poll::Ready(written.map_err(|_| Fault::Gone));
            }
            socket.poll_gone(cx).map(|()| Err(Fault::Gone))
        })
        .await
    }

    /// Writes what is in the output buffer between statements: only the server's end stops that, and a client that has
    /// closed its side may still be reading.
    pub async fn flush<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut Socket<S>) -> Result<(), Fault> {
        if !socket.has_output() {
            return Ok(());
        }
        poll_fn(|cx| {
            self.signals.waker.register(cx.waker());
            if let Poll::Ready(written) = socket.poll_drain(cx) {
                return Poll::Ready(written.map_err(|_| Fault::Gone));
            }
            // Who does not even read has nobody to be told.
            if self.signals.is_raised(TERMINATE | OVERFLOW) {
                return Poll::Ready(Err(Fault::Gone));
            }
            Poll::Pending
        })
        .await
    }

    /// Whether notifications wait; asked once, it is so no more.
    pub fn was_rung(&mut self) -> bool {
        let rung = self.signals.is_raised(RING);
        self.signals.clear(RING);
        rung
    }

    /// Runs a part of the way in: only the server's end stops that.
    pub async fn beside<F: Future>(&mut self, work: F) -> Result<F::Output, Fault> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.signals.waker.register(cx.waker());
            if self.signals.is_raised(DRAIN | TERMINATE) {
                return Poll::Ready(Err(Fault::Gone));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Waits for bytes from a client that has nothing running; `false` when it has closed its side.
    pub async fn fill_idle<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        expected: usize,
    ) -> Result<bool, Fault> {
        Ok(self.fill_or_ring(socket, expected, false, &mut None).await? == Idle::Bytes)
    }

    /// Waits for bytes from a client that has nothing running, or, where it may be told of them, for notifications; no longer
    /// than the limit.
    pub async fn fill_or_ring<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        expected: usize,
        may_be_told: bool,
        limit: &mut Option<Limit>,
    ) -> Result<Idle, Fault> {
        poll_fn(|cx| {
            self.signals.waker.register(cx.waker());
            if self.signals.is_raised(DRAIN | TERMINATE) {
                return Poll::Ready(Err(Fault::Sql(terminated())));
            }
            if self.signals.is_raised(OVERFLOW) {
                return Poll::Ready(Err(Fault::Sql(overflowed())));
            }
            if may_be_told && self.was_rung() {
                return Poll::Ready(Ok(Idle::Rung));
            }
            let idle = |filled| if filled { Idle::Bytes } else { Idle::Closed };
            if let Poll::Ready(filled) = socket.poll_fill(cx, expected) {
                return Poll::Ready(filled.map(idle).map_err(|_| Fault::Gone));
            }
            match limit.take_if(|limit| limit.over.as_mut().poll(cx).is_ready()) {
                Some(limit) => Poll::Ready(Err(Fault::Sql(limit.error))),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for bytes that a running statement (COPY) needs.
    pub async fn fill_running<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        expected: usize,
    ) -> Result<bool, Fault> {
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.poll_stop(cx) {
                return Poll::Ready(Err(Fault::Sql(error)));
            }
            socket.poll_fill(cx, expected).map(|filled| filled.map_err(|_| Fault::Gone))
        })
        .await
    }
}

fn terminated() -> PgError {
    PgError::fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

fn overflowed() -> PgError {
    PgError::fatal(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "too many notifications wait for this client").hint(
        "some are lost: read anew what they are about; none is sent while a transaction is open, so keep those short",
    )
}
