//! SASL between the startup packet and the first ReadyForQuery: the messages; what they mean is in [`crate::scram`].

use super::error::{PgError, sqlstate};
use super::frontend::Reader;
use super::reply;
use super::socket::Socket;
use super::watch::{Fault, Watch};
use crate::scram::{self, Exchange, Failure, Verifier};
use bytes::Bytes;
use tidemark_engine::seam::Clock;
use tokio::io::{AsyncRead, AsyncWrite};

/// One message of somebody who has not shown who he is. PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`, and the frame around it.
const SASL_BYTES_MAX: usize = 1024 + 64;

/// Who wants to be let in, and over what.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub user: &'a str,
    /// Of the server's certificate on this connection.
    pub end_point: Option<&'a [u8]>,
}

/// Lets a client show that it knows the password. What was sent last is not flushed.
///
/// # Errors
/// It does not; a name that is not there fails in the same words, after the same messages.
pub(super) async fn authenticate<S>(
    socket: &mut Socket<S>,
    watch: &mut Watch,
    clock: &dyn Clock,
    claim: Claim<'_>,
    verifier: Verifier,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Claim { user, end_point } = claim;
    let mut offered = vec![scram::PLAIN];
    if end_point.is_some() {
        offered.insert(0, scram::PLUS);
    }
    reply::sasl(&mut socket.output, &offered);
    let first = answer(socket, watch).await?;
    let mut reader = Reader { rest: &first };
    let mechanism = reader.text()?;
    if !offered.contains(&mechanism) {
        return Err(PgError::protocol("client selected an invalid SASL authentication mechanism").into());
    }
    let length = usize::try_from(reader.i32()?).unwrap_or(0);
    let message = reader.take(length)?;
    if !reader.rest.is_empty() {
        return Err(PgError::protocol("invalid message format").into());
    }
    let failed = |failure| failed(failure, user);
    let exchange = Exchange::begin(verifier, mechanism, message, end_point, clock).map_err(failed)?;
    reply::sasl_continue(&mut socket.output, exchange.server_first());
    let last = answer(socket, watch).await?;
    let ours = exchange.finish(&last, end_point).map_err(failed)?;
    reply::sasl_final(&mut socket.output, &ours);
    Ok(())
}

/// Sends what waits, and the body of the password message that comes.
async fn answer<S>(socket: &mut Socket<S>, watch: &mut Watch) -> Result<Bytes, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    watch.flush(socket).await?;
    loop {
        let expected = match socket.take_frame(SASL_BYTES_MAX)? {
            Ok((b'p', body)) => return Ok(body),
            Ok((b'X', _)) => return Err(Fault::Gone),
            Ok((other, _)) => {
                let message = format!("expected SASL response, got message type {other}");
                return Err(PgError::protocol(message).into());
            }
            Err(expected) => expected,
        };
        // Who leaves now is asking its user for the password.
        if !watch.fill_idle(socket, expected).await? {
            return Err(Fault::Gone);
        }
    }
}

fn failed(failure: Failure, user: &str) -> PgError {
    match failure {
        Failure::Malformed(why) => PgError::protocol("malformed SCRAM message").detail(why),
        Failure::Binding(why) => {
            PgError::error(sqlstate::INVALID_AUTHORIZATION, "SCRAM channel binding failed").detail(why)
        }
        Failure::Password => {
            PgError::error(sqlstate::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
        }
    }
}
