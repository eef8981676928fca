//! One client's byte stream with its two buffers. Replies gather in `output` until somebody decides to send them: how
//! few writes a lookup costs is decided by the connection, not here.

use super::error::PgError;
use super::frontend::{Framing, framing};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Bytes read at once: a pipelined batch of lookups fits, and 1,000 idle connections hold 8 MB.
const READ_BYTES: usize = 8 * 1024;
/// Bytes read at once inside a large message.
const LARGE_READ_BYTES: usize = 256 * 1024;
/// Bytes read ahead of a running statement, to notice a client that leaves. Past this it is up to TCP.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;
/// A buffer that grew past this for one large message or row is given back when it is empty.
const KEPT_BUFFER_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Socket<S> {
    stream: S,
    input: BytesMut,
    /// Replies not yet sent.
    pub output: BytesMut,
    /// How much of `output` has been sent.
    written: usize,
    /// The client has closed its side.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub fn new(stream: S) -> Self {
        Socket { stream, input: BytesMut::new(), output: BytesMut::new(), written: 0, closed: false }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// What has been read and not yet taken.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Takes `count` bytes off the input, which has them.
    pub fn take(&mut self, count: usize) -> Bytes {
        let taken = self.input.split_to(count.min(self.input.len())).freeze();
        if self.input.is_empty() && self.input.capacity() > KEPT_BUFFER_BYTES_MAX {
            self.input = BytesMut::new();
        }
        taken
    }

    /// The next whole message (type byte, body), or how many bytes its frame will have.
    pub fn take_frame(&mut self, message_bytes_max: usize) -> Result<Result<(u8, Bytes), usize>, PgError> {
        match framing(&self.input, message_bytes_max)? {
            Framing::Complete(length) => {
                let frame = self.take(length);
                Ok(Ok((frame[0], frame.slice(5..))))
            }
            Framing::Incomplete { expected } => Ok(Err(expected)),
        }
    }

    /// Reads some bytes of a frame that will have `expected`; `false` at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, expected: usize) -> Poll<io::Result<bool>> {
        if self.closed {
            return Poll::Ready(Ok(false));
        }
        // Never by the length a client claims alone: it has to send the bytes to make us hold them.
        let missing = expected.saturating_sub(self.input.len());
        self.input.reserve(missing.clamp(READ_BYTES / 2, LARGE_READ_BYTES));
        let read = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        self.closed = read == 0;
        Poll::Ready(Ok(read > 0))
    }

    /// Ready when the client has gone; what it pipelines meanwhile is kept, up to a limit.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.input.len() < READ_AHEAD_BYTES_MAX {
            match ready!(self.poll_fill(cx, 0)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Writes all of the output.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.output.clear();
        if self.output.capacity() > KEPT_BUFFER_BYTES_MAX {
            self.output = BytesMut::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Tells the client that nothing more will come.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
