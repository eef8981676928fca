//! `tidemark sql`: files run in one session, on a server or on one inside this process.

use super::Sql;
use crate::client::{Connection, Output, Runner, Target};
use crate::in_process::start_in_process;
use crate::settings::{Settings, environment};
use anyhow::{Context, anyhow};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tidemark_connectors::clock::SystemClock;
use tidemark_engine::seam::Clock;

pub async fn sql(arguments: Sql, mut settings: Settings) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
    // Before anything runs: a misspelt second file must not leave the first half done.
    let scripts = arguments.files.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?;
    if arguments.url.is_none() && (arguments.in_process || arguments.data.is_some()) {
        let scratch = arguments.data.is_none();
        settings.data = arguments.data.clone().unwrap_or_else(|| scratch_directory(clock.as_ref()));
        settings.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let server = start_in_process(&settings, scratch).await?;
        let result = run(&arguments, scripts, &Target::local(server.address, environment()), clock).await;
        server.stop().await?;
        return result;
    }
    let url = arguments.url.clone().or_else(|| std::env::var("TIDEMARK_URL").ok().filter(|url| !url.is_empty()));
    let mut target = Target::from_environment(environment());
    if let Some(url) = url {
        target = target.with_url(&url).map_err(|message| anyhow!(message))?;
    }
    run(&arguments, scripts, &target, clock).await
}

async fn run(
    arguments: &Sql,
    scripts: Vec<(String, String)>,
    target: &Target,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<ExitCode> {
    let mut runner = Runner::new(Connection::open(target, clock.as_ref()).await?, Output::standard(), clock);
    runner.stop_on_error = !arguments.keep_going;
    runner.echo = arguments.echo;
    for (name, text) in scripts {
        runner.run(&name, &text).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<(String, String)> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(("standard input".to_string(), text));
    }
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}

fn scratch_directory(clock: &dyn Clock) -> PathBuf {
    std::env::temp_dir().join(format!("tidemark-{}-{:08x}", std::process::id(), clock.random() as u32))
}
