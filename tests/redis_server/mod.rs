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
    /// A cluster in which the first of the three masters has a replica, on the port after the last.
    Replicated,
    /// A master "main", a replica and three Sentinels.
    Sentinel,
    /// The one of [`Kind::Tls`], as the master "main" of a Sentinel with TLS on the port after it.
    TlsSentinel,
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
            Kind::Replicated => self.run("replicated", &[&port]),
            Kind::Sentinel => self.run("sentinel", &[&port]),
            Kind::TlsSentinel => self.run("tls-sentinel", &[&port, PASSWORD]),
        }
    }

    /// What it has saved is gone too.
    pub fn forget(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.path().join("dump.rdb"))?)
    }

    pub fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::One => format!("redis://127.0.0.1:{port}"),
            Kind::Tls => {
                let ca = self.folder.path().join("ca.crt");
                format!("rediss://:{PASSWORD_ENCODED}@localhost:{port}?ca={}", ca.display())
            }
            Kind::TlsSentinel => {
                let ca = self.folder.path().join("ca.crt");
                format!("rediss+sentinel://:{PASSWORD_ENCODED}@127.0.0.1:{}/main?ca={}", port + 1, ca.display())
            }
            Kind::Cluster | Kind::Replicated => format!("redis+cluster://127.0.0.1:{port},127.0.0.1:{}", port + 1),
            Kind::Sentinel => {
                format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/main", port + 2, port + 3, port + 4)
            }
        }
    }

    /// Where the server is, or who is the master now.
    pub fn master(&self) -> Result<u16> {
        if self.kind != Kind::Sentinel {
            return Ok(self.port);
        }
        let found = self.sentinel("get-master-addr-by-name")?;
        Ok(found.lines().last().unwrap_or_default().trim().parse()?)
    }

    /// Asks a Sentinel about the master.
    fn sentinel(&self, what: &str) -> Result<String> {
        let port = (self.port + 2).to_string();
        let output = Command::new("redis-cli").args(["-p", &port, "sentinel", what, "main"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }

    /// The Sentinels are to make the replica the master. That takes a moment.
    pub fn fail_over(&self) -> Result<()> {
        let said = self.sentinel("failover")?;
        ensure!(said.trim() == "OK", "SENTINEL FAILOVER: {said}");
        Ok(())
    }

    /// What redis-cli prints.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["--no-auth-warning", "-h", "127.0.0.1", "-p", &self.master()?.to_string()]);
        match self.kind {
            Kind::One | Kind::Sentinel => {}
            Kind::Tls | Kind::TlsSentinel => {
                command.args(["--tls", "--cacert"]).arg(self.folder.path().join("ca.crt")).args(["-a", PASSWORD]);
            }
            Kind::Cluster | Kind::Replicated => {
                command.arg("-c");
            }
        }
        let output = command.args(words).output()?;
        ensure!(output.status.success(), "redis-cli {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }

    /// All keys of all nodes, but that of the catalog, which stays when all views have gone.
    pub fn keys(&self) -> Result<Vec<String>> {
        let first = self.master()?;
        let is_cluster = matches!(self.kind, Kind::Cluster | Kind::Replicated);
        let ports = if is_cluster { first..first + 3 } else { first..first + 1 };
        let mut keys = vec![];
        for port in ports {
            let node = port.to_string();
            // The last of two -p counts.
            let found = self.cli(&["-p", &node, "--scan"])?;
            keys.extend(found.lines().filter(|key| !key.ends_with(":{catalog}")).map(str::to_string));
        }
        Ok(keys)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.run("stop", &[]);
    }
}

/// A cluster's nodes have three in a row, or four, and a bus each, 10,000 above. Two servers and three Sentinels have five.
fn free_ports(kind: Kind) -> Result<u16> {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        match kind {
            Kind::Cluster | Kind::Replicated => {
                let port = port / 2;
                if port > 10_000 && (port..port + 4).all(|port| is_free(port) && is_free(port + 10_000)) {
                    return Ok(port);
                }
            }
            Kind::Sentinel | Kind::TlsSentinel => {
                if port < 60_000 && (port..port + 5).all(is_free) {
                    return Ok(port);
                }
            }
            Kind::One | Kind::Tls => return Ok(port),
        }
    }
}
