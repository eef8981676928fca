//! COPY: the one place where data comes in between a statement's start and its end.

use super::backend::{Backend, CopyChunk, CopyInSink, CopyLayout};
use super::connection::Connection;
use super::error::{PgError, sqlstate};
use super::execute::HIGH_WATER_BYTES;
use super::frontend::{Frontend, decode};
use super::reply;
use super::watch::Fault;
use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

/// Small CopyData messages are joined up to this before the sink sees them: some clients send a row each.
const JOINED_BYTES: usize = 64 * 1024;

/// How the client ended its data.
enum Ended {
    Done,
    Failed(String),
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    B: Backend,
{
    /// `COPY … FROM STDIN`, from CopyInResponse to CommandComplete.
    pub(super) async fn copy_in(&mut self, mut sink: Box<dyn CopyInSink>, layout: CopyLayout) -> Result<(), Fault> {
        reply::copy_in_response(&mut self.socket.output, layout);
        let failure = match self.receive(sink.as_mut()).await {
            Ok(Ended::Done) => {
                let copied = self.watch.run(&mut self.socket, sink.finish()).await??;
                self.events();
                if let Some(notice) = &copied.notice {
                    reply::error_or_notice(&mut self.socket.output, notice);
                }
                reply::command_complete(&mut self.socket.output, &copied.tag);
                return Ok(());
            }
            Ok(Ended::Failed(reason)) => {
                let message = format!("COPY from stdin failed: {reason}");
                Fault::Sql(PgError::error(sqlstate::QUERY_CANCELED, message))
            }
            Err(fault) => fault,
        };
        let reason = match &failure {
            Fault::Sql(error) => error.message.as_str(),
            Fault::Gone => "the client closed the connection",
        };
        sink.fail(reason).await;
        Err(failure)
    }

    /// Hands the client's data to the sink until the client ends it.
    async fn receive(&mut self, sink: &mut dyn CopyInSink) -> Result<Ended, Fault> {
        let mut joined = BytesMut::new();
        self.watch.drain(&mut self.socket).await?;
        loop {
            let (kind, body) = match self.socket.take_frame(self.shared.settings.message_bytes_max)? {
                Ok(frame) => frame,
                // Nothing more is here: work on what came rather than wait for more. The watch may read on meanwhile, to
                // the end even, so it is looked again before anything is waited for.
                Err(_) if !joined.is_empty() => {
                    self.feed(sink, &mut joined).await?;
                    continue;
                }
                Err(expected) => {
                    if !self.watch.fill_running(&mut self.socket, expected).await? {
                        return Err(Fault::Gone);
                    }
                    continue;
                }
            };
            match decode(kind, &body)? {
                Frontend::CopyData if joined.is_empty() && body.len() >= JOINED_BYTES / 4 => {
                    self.watch.run(&mut self.socket, sink.data(body)).await??;
                }
                Frontend::CopyData => {
                    joined.extend_from_slice(&body);
                    if joined.len() >= JOINED_BYTES {
                        self.feed(sink, &mut joined).await?;
                    }
                }
                Frontend::CopyDone => {
                    self.feed(sink, &mut joined).await?;
                    return Ok(Ended::Done);
                }
                Frontend::CopyFail(reason) => return Ok(Ended::Failed(reason.to_owned())),
                // Drivers send a Sync right behind the Execute, before they know that it is a COPY.
                Frontend::Flush | Frontend::Sync => {}
                Frontend::Terminate => return Err(Fault::Gone),
                _ => {
                    let message = format!("unexpected message type 0x{kind:02X} during COPY from stdin");
                    return Err(PgError::protocol(message).into());
                }
            }
        }
    }

    async fn feed(&mut self, sink: &mut dyn CopyInSink, joined: &mut BytesMut) -> Result<(), Fault> {
        if joined.is_empty() {
            return Ok(());
        }
        let data = joined.split().freeze();
        Ok(self.watch.run(&mut self.socket, sink.data(data)).await??)
    }

    /// `COPY … TO STDOUT`, from CopyOutResponse to CommandComplete.
    pub(super) async fn copy_out(
        &mut self,
        mut stream: BoxStream<'static, Result<CopyChunk, PgError>>,
        layout: CopyLayout,
    ) -> Result<(), Fault> {
        reply::copy_out_response(&mut self.socket.output, layout);
        let mut rows = 0;
        while let Some(chunk) = self.watch.run(&mut self.socket, stream.next()).await? {
            let chunk = chunk?;
            self.socket.output.extend_from_slice(&chunk.messages);
            if self.socket.output.len() >= HIGH_WATER_BYTES {
                self.watch.drain(&mut self.socket).await?;
            }
            rows += chunk.rows;
        }
        self.events();
        self.socket.output.extend_from_slice(reply::COPY_DONE);
        reply::command_complete(&mut self.socket.output, &format!("COPY {rows}"));
        Ok(())
    }
}
