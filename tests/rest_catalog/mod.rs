//! An Iceberg REST catalog for several tests, over a server of S3, killed when dropped: the reference server, or Nessie where
//! TIDEMARK_TEST_NESSIE_JAVA names a Java for it. Test binaries include this file by its path, as one cannot import another.

use crate::s3_server::S3Server;
use anyhow::{Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tempfile::TempDir;

pub struct RestCatalog {
    pub s3: Arc<S3Server>,
    folder: TempDir,
    port: u16,
}

fn script() -> PathBuf {
    // The same from a crate's folder and from the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/services/iceberg-rest.sh");
    if here.exists() { here } else { root.join("../tests/services/iceberg-rest.sh") }
}

fn is_nessie() -> bool {
    std::env::var_os("TIDEMARK_TEST_NESSIE_JAVA").is_some()
}

#[allow(dead_code)] // each test binary uses its part
impl RestCatalog {
    /// One that tests share; it ends with the last of them. `None`: this machine has not what it takes.
    pub fn shared() -> Result<Option<Arc<RestCatalog>>> {
        static SHARED: Mutex<Weak<RestCatalog>> = Mutex::new(Weak::new());
        if !script().with_file_name(if is_nessie() { ".nessie" } else { ".iceberg-rest" }).exists() {
            return Ok(None);
        }
        let Some(s3) = S3Server::shared()? else { return Ok(None) };
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = shared.upgrade() {
            return Ok(Some(catalog));
        }
        let folder = tempfile::Builder::new().prefix("tidemark-rest-").tempdir()?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let catalog = Arc::new(RestCatalog { s3, folder, port });
        let status = Command::new(script())
            .arg("start")
            .arg(catalog.folder.path())
            .args([port.to_string(), catalog.s3.endpoint()])
            .status()?;
        ensure!(status.success(), "iceberg-rest.sh start ended with {status}");
        *shared = Arc::downgrade(&catalog);
        Ok(Some(catalog))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        self.behind(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Where the catalog is behind a proxy.
    pub fn behind(&self, proxy: &str) -> String {
        format!("{proxy}{}", if is_nessie() { "/iceberg" } else { "" })
    }

    /// Whether tables are where they were asked to be, and their old snapshots are shown. Nessie keeps both to itself.
    pub fn is_open_about_files(&self) -> bool {
        !is_nessie()
    }
}

impl Drop for RestCatalog {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.folder.path()).status();
    }
}
