//! A real `tidemark serve` as a child process on a folder of its own: started, waited for by connecting, killed by its
//! id. The system tests (`sql`, `crash`, `wire`) include this file by its path, as a test binary cannot import another.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow, error::DbError};

/// How long a server may take to answer or to end, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// Another process may take a free port before the server does.
const PORTS_TRIED_MAX: usize = 3;

/// Where a server keeps what it keeps; outlives the server.
pub struct Folder {
    dir: TempDir,
    /// Where the data directory is, if it is not beside the log.
    data: Option<TempDir>,
    /// What servers on this folder find in their environment.
    environment: Vec<(String, PathBuf)>,
}

#[allow(dead_code)] // each test binary uses its part
impl Folder {
    pub fn new() -> Result<Folder> {
        let dir = tempfile::Builder::new().prefix("tidemark-test-").tempdir()?;
        Ok(Folder { dir, data: None, environment: vec![] })
    }

    /// Its data on another disk; the server's log stays where there is room.
    pub fn with_data_on(disk: &Path) -> Result<Folder> {
        let data = tempfile::Builder::new().prefix("tidemark-test-").tempdir_in(disk)?;
        Ok(Folder { data: Some(data), ..Folder::new()? })
    }

    /// Servers that are started from now on find this in their environment.
    pub fn set(&mut self, name: &str, path: PathBuf) {
        self.environment.push((name.to_string(), path));
    }

    pub fn data(&self) -> PathBuf {
        self.data.as_ref().unwrap_or(&self.dir).path().join("data")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// The end of what the servers on this folder have logged, for a failure's report.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// A running server. Dropping it kills it.
pub struct Server {
    process: Child,
    pub port: u16,
}

#[allow(dead_code)]
impl Server {
    /// Starts a server on the folder and waits until it answers.
    pub async fn start(folder: &Folder) -> Result<Server> {
        Self::start_with(folder, &[]).await
    }

    /// As [`Server::start`], with more of the command line.
    pub async fn start_with(folder: &Folder, arguments: &[&str]) -> Result<Server> {
        for _ in 1..PORTS_TRIED_MAX {
            let mut server = Self::spawn(folder, arguments)?;
            match server.ready().await {
                Ok(()) => return Ok(server),
                Err(_) if folder.log_tail().contains("in use") && !folder.log_tail().contains("data directory") => {}
                Err(error) => bail!("{error:#}\n{}", folder.log_tail()),
            }
        }
        let mut server = Self::spawn(folder, arguments)?;
        server.ready().await.with_context(|| folder.log_tail())?;
        Ok(server)
    }

    /// Starts a server and does not wait for it.
    pub fn spawn(folder: &Folder, arguments: &[&str]) -> Result<Server> {
        let port = free_port()?;
        let log = std::fs::File::options().create(true).append(true).open(folder.log_file())?;
        let process = command(port, &folder.data())
            .args(arguments)
            .current_dir(folder.path()) // what COPY … TO a relative path writes belongs to the test
            .env("TIDEMARK_LOG", "warn,tidemark_server=info")
            .envs(folder.environment.iter().map(|(name, path)| (name, path)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("tidemark serve")?;
        Ok(Server { process, port })
    }

    /// Waits until the server answers; fails as soon as it has ended.
    pub async fn ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.connect().await {
                Ok(client) => {
                    client.simple_query("SELECT 1").await?;
                    return Ok(());
                }
                Err(error) => {
                    if let Some(status) = self.process.try_wait()? {
                        bail!("tidemark serve ended with {status}");
                    }
                    if started.elapsed() > PATIENCE {
                        return Err(error).context("tidemark serve does not answer");
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("tidemark").dbname("tidemark");
        config
    }

    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config().connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// `kill -9`: no chance to clean up.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// SIGTERM, and the status it ends with.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        anyhow::ensure!(told.success(), "kill -TERM failed");
        self.ended().await
    }

    /// The status it ends with by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(started.elapsed() < PATIENCE, "tidemark serve does not end");
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `tidemark serve` on this port and directory.
pub fn command(port: u16, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"]).arg(data);
    // The usual port is one for the whole machine; a test that wants one says --http.
    command.env("TIDEMARK_HTTP", "off");
    command
}

/// A test cannot run for want of a tool or a place: said where it is read, for the test harness would keep it to itself.
/// Under `scripts/test.sh`, which provides all of them, it is a failure.
#[allow(dead_code)]
pub fn skipped(why: &str) -> Result<()> {
    use std::io::Write;
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|set| !set.is_empty());
    // It has said itself what this machine does not allow.
    let allowed = (why.contains("TIDEMARK_SMALL_DISK") && is_set("TIDEMARK_TEST_NO_DISK"))
        || (why.contains("TIDEMARK_TEST_CAPTURES") && is_set("TIDEMARK_TEST_NO_CAPTURES"))
        || (why.contains("go/.built") && is_set("TIDEMARK_TEST_NO_GO"))
        || (why.contains("node_modules") && is_set("TIDEMARK_TEST_NO_NODE"));
    if is_set("TIDEMARK_TEST_NO_SKIP") && !allowed {
        bail!("this test would be skipped: {why}");
    }
    Ok(writeln!(std::io::stderr(), "skipped: {why}")?)
}

/// A port that nobody listens on right now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The rows of a query, as text.
#[allow(dead_code)]
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let messages = client.simple_query(sql).await.with_context(|| sql.to_owned())?;
    let text = |row: SimpleQueryRow| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect();
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(text(row)),
            _ => None,
        })
        .collect())
}

/// The only value of a query.
#[allow(dead_code)]
pub async fn value(client: &Client, sql: &str) -> Result<Option<String>> {
    let mut rows = rows(client, sql).await?;
    match (rows.pop(), rows.is_empty()) {
        (Some(mut row), true) if row.len() == 1 => Ok(row.remove(0)),
        _ => bail!("not one value: {sql}"),
    }
}

/// What the server said was wrong.
#[allow(dead_code)]
pub fn refusal(error: &tokio_postgres::Error) -> Option<&DbError> {
    error.as_db_error()
}

/// An error as one line: `42P01: relation "x" does not exist (detail: …) (hint: …)`.
#[allow(dead_code)]
pub fn shown(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else { return format!("no answer: {error}") };
    let mut text = format!("{}: {}", said.code().code(), said.message());
    for (part, name) in [(said.detail(), "detail"), (said.hint(), "hint"), (said.where_(), "context")] {
        if let Some(part) = part {
            text.push_str(&format!(" ({name}: {part})"));
        }
    }
    text.replace('\n', " ")
}
