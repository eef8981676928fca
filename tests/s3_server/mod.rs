//! A server of S3 for one test or several: moto, or the versitygw that TIDEMARK_TEST_VERSITYGW names; started in a fresh folder,
//! killed when dropped. Test binaries include this file by its path, as one cannot import another.

use anyhow::{Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;

/// The bucket that a server begins with. Its keys are `testkey` and `testsecret`; moto takes any.
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
        if ["TIDEMARK_TEST_S3_PYTHON", "TIDEMARK_TEST_VERSITYGW"].iter().all(|name| std::env::var_os(name).is_none()) {
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

    pub fn port(&self) -> u16 {
        self.port
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
