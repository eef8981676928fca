//! A proxy before an HTTP server that breaks requests as a test wants. Test binaries include this file by its path, as one
//! cannot import another.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What becomes of a request.
#[allow(dead_code)] // each test binary uses its part
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503, and nothing was done.
    SlowDown,
    /// The connection ends before the request arrives.
    Reset,
    /// It is done, and its answer does not come.
    AnswerLost,
    /// It is done, and half of the answer comes.
    AnswerCut,
    /// The client is told nothing, and it is done when the test says so.
    Late,
}

/// Which requests are broken: told their number, from 0, and their first line.
type Faults = Box<dyn Fn(u64, &str) -> Option<Fault> + Send + Sync>;

struct Shared {
    upstream: u16,
    faults: Mutex<Faults>,
    requests: AtomicU64,
    released: Notify,
    late_done: Notify,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[allow(dead_code)]
impl Proxy {
    /// Before the server on this port of this machine.
    pub async fn before(
        upstream: u16,
        faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> io::Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::new(Box::new(faults)),
            requests: AtomicU64::new(0),
            released: Notify::new(),
            late_done: Notify::new(),
        });
        let proxy = Proxy { port, shared: shared.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // A client that goes away is none of the test's concern.
                    let _ = shared.one_request(client).await;
                });
            }
        });
        Ok(proxy)
    }

    /// From now on.
    pub fn set(&self, faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(faults);
    }

    /// How many there were.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A request that was late arrives now; when it has been answered.
    pub async fn release(&self) {
        self.shared.released.notify_one();
        self.shared.late_done.notified().await;
    }
}

impl Shared {
    async fn one_request(&self, mut client: TcpStream) -> io::Result<()> {
        let Some((head, body)) = read_request(&mut client).await? else { return Ok(()) };
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let first = head.lines().next().unwrap_or_default();
        let fault = self.faults.lock().unwrap_or_else(PoisonError::into_inner)(number, first);
        match fault {
            Some(Fault::SlowDown) => {
                let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                return answer(&mut client, "503 Slow Down", body).await;
            }
            Some(Fault::Reset) => return Ok(()),
            Some(Fault::Late) => {
                drop(client);
                self.released.notified().await;
                let done = forward(self.upstream, &head, &body).await;
                self.late_done.notify_one();
                return done.map(|_| ());
            }
            _ => {}
        }
        let answer = forward(self.upstream, &head, &body).await?;
        match fault {
            Some(Fault::AnswerLost) => Ok(()),
            Some(Fault::AnswerCut) => client.write_all(&answer[..answer.len() / 2]).await,
            _ => client.write_all(&answer).await,
        }
    }
}

/// Head, up to the empty line and without it, and body of a request; `None`: the client went away.
pub async fn read_request(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&request[..head - 2]).to_string();
    let length = header(&text, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while request.len() < head + length {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((text, request.split_off(head))))
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// What the server on the port answers, whole. It ends the connection, and so its answer; what was signed stays as it is.
pub async fn forward(port: u16, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.write_all(head.as_bytes()).await?;
    server.write_all(b"Connection: close\r\n\r\n").await?;
    server.write_all(body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

pub async fn answer(client: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    client.write_all(answer.as_bytes()).await
}
