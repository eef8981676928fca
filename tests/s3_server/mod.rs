//! A server of S3 for one test or several: moto, started in a fresh folder, killed when dropped; and a proxy before it that
//! breaks requests. Test binaries include this file by its path, as one cannot import another.

use anyhow::{Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The bucket that a server begins with. It takes any keys.
pub const BUCKET: &str = "lake";

pub struct S3Server {
    folder: TempDir,
    port: u16,
}

fn script() -> PathBuf {
    // The same from a crate's folder and from the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/services/s3.sh");
    if here.exists() { here } else { root.join("../tests/services/s3.sh") }
}

#[allow(dead_code)] // each test binary uses its part
impl S3Server {
    /// One that tests share; it ends with the last of them. `None`: there is none on this machine.
    pub fn shared() -> Result<Option<Arc<S3Server>>> {
        static SHARED: Mutex<Weak<S3Server>> = Mutex::new(Weak::new());
        if std::env::var_os("TIDEMARK_TEST_S3_PYTHON").is_none() {
            return Ok(None);
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(Some(server));
        }
        let folder = tempfile::Builder::new().prefix("tidemark-s3-").tempdir()?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let server = Arc::new(S3Server { folder, port });
        let status = Command::new(script()).arg("start").arg(server.folder.path()).arg(port.to_string()).status()?;
        ensure!(status.success(), "s3.sh start ended with {status}");
        *shared = Arc::downgrade(&server);
        Ok(Some(server))
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Another prefix every time.
    pub fn prefix(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        format!("s3://{BUCKET}/tests/{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.folder.path()).status();
    }
}

/// What becomes of a request.
#[allow(dead_code)]
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
}

/// Which requests are broken: told their number, from 0, and their first line.
type Faults = Box<dyn Fn(u64, &str) -> Option<Fault> + Send + Sync>;

/// A server of S3 whose requests fail as a test wants.
pub struct Proxy {
    port: u16,
    broken: Arc<Mutex<Faults>>,
    pub requests: Arc<AtomicU64>,
}

#[allow(dead_code)]
impl Proxy {
    pub async fn before(
        server: &S3Server,
        faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let broken: Arc<Mutex<Faults>> = Arc::new(Mutex::new(Box::new(faults)));
        let requests = Arc::new(AtomicU64::new(0));
        let proxy = Proxy { port, broken: broken.clone(), requests: requests.clone() };
        let upstream = server.port;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (broken, requests) = (broken.clone(), requests.clone());
                tokio::spawn(async move {
                    // A client that goes away is none of the test's concern.
                    let _ = one_request(client, upstream, &broken, &requests).await;
                });
            }
        });
        Ok(proxy)
    }

    /// From now on.
    pub fn set(&self, faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(faults);
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Reads one request, and answers it with what the server answers, or breaks it. The connection ends with it.
async fn one_request(
    mut client: TcpStream,
    upstream: u16,
    broken: &Mutex<Faults>,
    requests: &AtomicU64,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_string();
    let header = |name: &str| {
        let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string())
    };
    let length = header("content-length:").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    while request.len() < head + length {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let number = requests.fetch_add(1, Ordering::Relaxed);
    let first = text.lines().next().unwrap_or_default();
    let fault = broken.lock().unwrap_or_else(PoisonError::into_inner)(number, first);
    match fault {
        Some(Fault::SlowDown) => {
            let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let answer = format!(
                "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            return client.write_all(answer.as_bytes()).await;
        }
        Some(Fault::Reset) => return Ok(()),
        _ => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
    // The server ends the connection, and so its answer; what was signed stays as it is.
    server.write_all(&request[..head - 2]).await?;
    server.write_all(b"Connection: close\r\n\r\n").await?;
    server.write_all(&request[head..]).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    match fault {
        Some(Fault::AnswerLost) => Ok(()),
        Some(Fault::AnswerCut) => client.write_all(&answer[..answer.len() / 2]).await,
        _ => client.write_all(&answer).await,
    }
}
