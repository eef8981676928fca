//! A real Redis for one test: started in a fresh folder, killed when dropped. Test binaries include this file by its path, as
//! one cannot import another.

use anyhow::{Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

pub const PASSWORD: &str = "a secret";
/// As it is written in a URL.
#[allow(dead_code)]
pub const PASSWORD_ENCODED: &str = "a%20secret";

#[allow(dead_code)] // each test binary uses its part
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    One,
    Tls,
    Cluster,
}

pub struct RedisServer {
    folder: TempDir,
    port: u16,
    kind: Kind,
}

fn script() -> PathBuf {
    // The same from a crate's folder and from the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/services/redis.sh");
    if here.exists() { here } else { root.join("../tests/services/redis.sh") }
}

#[allow(dead_code)] // each test binary uses its part
impl RedisServer {
    /// `None`: there is no Redis on this machine. `more`: options of the server.
    pub fn start(kind: Kind, more: &[&str]) -> Result<Option<RedisServer>> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("tidemark-redis-").tempdir()?;
        let server = RedisServer { folder, port: free_ports(kind)?, kind };
        server.again(more)?;
        Ok(Some(server))
    }

    fn run(&self, verb: &str, more: &[&str]) -> Result<()> {
        let status = Command::new(script()).arg(verb).arg(self.folder.path()).args(more).status()?;
        ensure!(status.success(), "redis.sh {verb} ended with {status}");
        Ok(())
    }

    /// kill -9. What it had is gone, but for what it was told to SAVE.
    pub fn kill(&self) -> Result<()> {
        self.run("stop", &[])
    }

    /// On the same port, with what it has saved.
    pub fn again(&self, more: &[&str]) -> Result<()> {
        let port = self.port.to_string();
        match self.kind {
            Kind::One => self.run("start", &[&[&port[..]], more].concat()),
            Kind::Tls => self.run("tls", &[&port, PASSWORD]),
            Kind::Cluster => self.run("cluster", &[&port]),
        }
    }

    pub fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::One => format!("redis://127.0.0.1:{port}"),
            Kind::Tls => {
                let ca = self.folder.path().join("ca.crt");
                format!("rediss://:{PASSWORD_ENCODED}@localhost:{port}?ca={}", ca.display())
            }
            Kind::Cluster => format!("redis+cluster://127.0.0.1:{port},127.0.0.1:{}", port + 1),
        }
    }

    /// What redis-cli prints.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["--no-auth-warning", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        match self.kind {
            Kind::One => {}
            Kind::Tls => {
                command.args(["--tls", "--cacert"]).arg(self.folder.path().join("ca.crt")).args(["-a", PASSWORD]);
            }
            Kind::Cluster => {
                command.arg("-c");
            }
        }
        let output = command.args(words).output()?;
        ensure!(output.status.success(), "redis-cli {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }

    /// All keys of all nodes.
    pub fn keys(&self) -> Result<Vec<String>> {
        let ports = if self.kind == Kind::Cluster { self.port..self.port + 3 } else { self.port..self.port + 1 };
        let mut keys = vec![];
        for port in ports {
            let node = port.to_string();
            // The last of two -p counts.
            let found = self.cli(&["-p", &node, "--scan"])?;
            keys.extend(found.lines().map(str::to_string));
        }
        Ok(keys)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.run("stop", &[]);
    }
}

/// A cluster's nodes have three in a row, and a bus each, 10,000 above.
fn free_ports(kind: Kind) -> Result<u16> {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        match kind {
            Kind::Cluster => {
                let port = port / 2;
                if port > 10_000 && (port..port + 3).all(|port| is_free(port) && is_free(port + 10_000)) {
                    return Ok(port);
                }
            }
            Kind::One | Kind::Tls => return Ok(port),
        }
    }
}
