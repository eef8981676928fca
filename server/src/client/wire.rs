//! The protocol from the client's side, as much as simple queries and COPY need. Text in, text out, no encryption.

use super::report::Report;
use super::table::Heading;
use super::target::Target;
use crate::scram;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidemark_engine::seam::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What went wrong outside of any statement.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {host}:{port}: {source}\nHINT: start a server with \"tidemark serve\", or give --in-process to run one here", host = .target.host, port = .target.port)]
    Connect { target: Target, source: std::io::Error },
    #[error("the server at {host}:{port} refused: {report}", host = .target.host, port = .target.port, report = .report.show("").trim_end())]
    Refused { target: Target, report: Box<Report> },
    #[error(
        "the server wants a password\nHINT: set PGUSER and PGPASSWORD, or write postgres://user:password@host:port/tidemark"
    )]
    Password,
    #[error("the server wants a kind of authentication that is not supported here\nHINT: psql knows all of them")]
    Authentication,
    #[error("the server has not shown that it knows the password\nHINT: is this the right server?")]
    Impostor,
    #[error("the connection to the server was lost: {0}")]
    Lost(#[from] std::io::Error),
    #[error("cannot write output: {0}")]
    Output(std::io::Error),
    #[error("cannot write file {}: {source}", .path.display())]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("the server sent a message that is not of its protocol ({0})")]
    Malformed(&'static str),
}

/// A message of the server that matters to a simple query.
#[derive(Debug)]
pub enum Reply {
    Columns(Vec<Heading>),
    Row(Vec<Option<String>>),
    /// A statement is done: its command tag.
    Done(String),
    CopyIn,
    CopyOut,
    CopyData(Bytes),
    Error(Report),
    Notice(Report),
    /// The whole query is done.
    Ready,
}

/// An open session.
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

/// Output is sent once this much waits: large writes without holding a file in memory.
const OUTPUT_BYTES: usize = 256 * 1024;

const PROTOCOL_3_0: u32 = 3 << 16;

impl Connection {
    pub async fn open(target: &Target, clock: &dyn Clock) -> Result<Connection, ClientError> {
        let place = (target.host.as_str(), target.port);
        let failed = |source| ClientError::Connect { target: target.clone(), source };
        let stream = TcpStream::connect(place).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Connection { stream, input: BytesMut::new(), output: BytesMut::new() };
        connection.startup(target, clock).await?;
        Ok(connection)
    }

    async fn startup(&mut self, target: &Target, clock: &dyn Clock) -> Result<(), ClientError> {
        let mut body = BytesMut::new();
        body.put_u32(PROTOCOL_3_0);
        let settings = [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
            ("application_name", "tidemark sql"),
            ("client_encoding", "UTF8"),
        ];
        for text in settings.iter().flat_map(|(name, value)| [name, value]) {
            body.put_slice(text.as_bytes());
            body.put_u8(0);
        }
        body.put_u8(0);
        self.output.put_u32(body.len() as u32 + 4);
        self.output.put_slice(&body);
        self.flush().await?;
        let mut exchange: Option<scram::Client> = None;
        let mut is_server_known = true;
        loop {
            let (kind, mut body) = self.message().await?;
            match kind {
                b'R' => match body.try_get_u32().map_err(|_| ClientError::Malformed("authentication"))? {
                    0 if is_server_known => {}
                    0 => return Err(ClientError::Impostor),
                    // SASL: the names of mechanisms.
                    10 if body.split(|byte| *byte == 0).any(|name| name == scram::PLAIN.as_bytes()) => {
                        let password = target.password.as_deref().ok_or(ClientError::Password)?;
                        let client = scram::Client::new(password, clock);
                        let first = client.first();
                        let length = (first.len() as u32).to_be_bytes();
                        self.put(b'p', &[scram::PLAIN.as_bytes(), b"\0", &length, first.as_bytes()]);
                        self.flush().await?;
                        exchange = Some(client);
                        is_server_known = false;
                    }
                    11 => {
                        let client = exchange.as_mut().ok_or(ClientError::Malformed("authentication"))?;
                        let said = String::from_utf8_lossy(&body).into_owned();
                        let last = client.last(&said).ok_or(ClientError::Malformed("SCRAM"))?;
                        self.put(b'p', &[last.as_bytes()]);
                        self.flush().await?;
                    }
                    12 => {
                        let said = String::from_utf8_lossy(&body).into_owned();
                        is_server_known = exchange.as_ref().is_some_and(|client| client.is_server_known(&said));
                    }
                    _ => return Err(ClientError::Authentication),
                },
                b'E' => {
                    let report = Box::new(report(body));
                    return Err(ClientError::Refused { target: target.clone(), report });
                }
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sends a simple query; its replies are read with [`Connection::reply`] up to [`Reply::Ready`].
    pub async fn query(&mut self, sql: &str) -> Result<(), ClientError> {
        self.put(b'Q', &[sql.as_bytes(), b"\0"]);
        self.flush().await
    }

    /// The next reply. What changes nothing for a simple query (parameters, notifications) is passed over.
    pub async fn reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            let (kind, body) = self.message().await?;
            return Ok(match kind {
                b'T' => Reply::Columns(columns(body).ok_or(ClientError::Malformed("row description"))?),
                b'D' => Reply::Row(row(body).ok_or(ClientError::Malformed("data row"))?),
                b'C' => Reply::Done(text(&body)),
                b'I' => Reply::Done(String::new()),
                b'G' => Reply::CopyIn,
                b'H' => Reply::CopyOut,
                b'd' => Reply::CopyData(body),
                b'E' => Reply::Error(report(body)),
                b'N' => Reply::Notice(report(body)),
                b'Z' => Reply::Ready,
                b'S' | b'A' | b'c' | b'K' => continue,
                _ => return Err(ClientError::Malformed("unknown type of message")),
            });
        }
    }

    /// Data after [`Reply::CopyIn`], cut anywhere.
    pub async fn copy_data(&mut self, data: &[u8]) -> Result<(), ClientError> {
        self.put(b'd', &[data]);
        if self.output.len() >= OUTPUT_BYTES { self.flush().await } else { Ok(()) }
    }

    pub async fn copy_done(&mut self) -> Result<(), ClientError> {
        self.put(b'c', &[]);
        self.flush().await
    }

    /// Ends the COPY without effect; the server answers with an error.
    pub async fn copy_fail(&mut self, reason: &str) -> Result<(), ClientError> {
        self.put(b'f', &[reason.as_bytes(), b"\0"]);
        self.flush().await
    }

    fn put(&mut self, kind: u8, body: &[&[u8]]) {
        let length: usize = body.iter().map(|part| part.len()).sum();
        self.output.put_u8(kind);
        self.output.put_u32(length as u32 + 4);
        body.iter().for_each(|part| self.output.put_slice(part));
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        self.stream.write_all_buf(&mut self.output).await?;
        Ok(())
    }

    async fn message(&mut self) -> Result<(u8, Bytes), ClientError> {
        loop {
            if let Some(header) = self.input.get(..5) {
                let kind = header[0];
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if length < 4 {
                    return Err(ClientError::Malformed("length"));
                }
                if self.input.len() > length {
                    let mut message = self.input.split_to(length + 1).freeze();
                    message.advance(5);
                    return Ok((kind, message));
                }
                self.input.reserve(length + 1 - self.input.len());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn columns(mut body: Bytes) -> Option<Vec<Heading>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let end = body.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&body.split_to(end)).into_owned();
        // NUL, table, number of the column; then the type; then its size, modifier and format.
        let mut field = (body.len() >= 19).then(|| body.split_to(19))?;
        field.advance(7);
        columns.push(Heading::new(name, field.get_u32()));
    }
    Some(columns)
}

fn row(mut body: Bytes) -> Option<Vec<Option<String>>> {
    let count = body.try_get_u16().ok()?;
    let mut row = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = body.try_get_i32().ok()?;
        row.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if body.len() < length => return None,
            Ok(length) => Some(String::from_utf8_lossy(&body.split_to(length)).into_owned()),
        });
    }
    Some(row)
}

fn report(body: Bytes) -> Report {
    let mut report = Report::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((code, value)) = field.split_first() else { continue };
        let value = String::from_utf8_lossy(value).into_owned();
        match code {
            b'S' => report.severity = value,
            b'C' => report.sqlstate = value,
            b'M' => report.message = value,
            b'D' => report.detail = Some(value),
            b'H' => report.hint = Some(value),
            b'P' => report.position = value.parse().ok(),
            b'W' => report.context = Some(value),
            _ => {}
        }
    }
    report
}
