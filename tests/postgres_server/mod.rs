//! A real PostgreSQL for several tests, stopped when the last of them drops it. Test binaries include this file by its path, as
//! one cannot import another.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    databases: AtomicUsize,
}

fn script() -> PathBuf {
    // The same from a crate's folder and from the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/services/postgres.sh");
    if here.exists() { here } else { root.join("../tests/services/postgres.sh") }
}

#[allow(dead_code)] // each test binary uses its part
impl PostgresServer {
    /// One that tests share. `None`: this machine has not what it takes.
    pub fn shared() -> Result<Option<Arc<PostgresServer>>> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(Some(server));
        }
        let server = Self::start(&[])?.map(Arc::new);
        *shared = server.as_ref().map(Arc::downgrade).unwrap_or_default();
        Ok(server)
    }

    /// One that speaks TLS too, and the file with its authority's certificate.
    pub fn with_tls() -> Result<Option<(PostgresServer, String)>> {
        let Some(server) = Self::start(&["tls"])? else { return Ok(None) };
        let authority = server.folder.path().join("ca.crt").display().to_string();
        Ok(Some((server, authority)))
    }

    fn start(more: &[&str]) -> Result<Option<PostgresServer>> {
        // Under /tmp, because the user that runs the server must reach it.
        let folder = tempfile::Builder::new().prefix("tidemark-postgres-").tempdir_in("/tmp")?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let server = PostgresServer { folder, port, databases: AtomicUsize::new(0) };
        let mut script = Command::new(script());
        let started = script.arg("start").arg(server.folder.path()).arg(port.to_string()).args(more).output()?;
        let said = String::from_utf8_lossy(&started.stderr);
        if said.contains("no PostgreSQL server programs found") {
            return Ok(None);
        }
        ensure!(started.status.success(), "postgres.sh start: {said}");
        Ok(Some(server))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new database, by its name; anybody is let in.
    pub async fn database(&self) -> Result<String> {
        let name = format!("lake{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.session("postgres").await?.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(name)
    }

    pub async fn session(&self, database: &str) -> Result<Client> {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.context("a session of PostgreSQL")?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.folder.path()).output();
    }
}
