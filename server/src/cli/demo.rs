//! `tidemark demo`: the flights story in a server of its own, which then stays for the reader to go on by hand.

use super::Demo;
use super::serve::StopSignal;
use crate::client::{Connection, Output, Runner, Target};
use crate::demo::{Story, events, room};
use crate::in_process::start_in_process;
use crate::settings::{Settings, environment};
use anyhow::{Context, anyhow};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tidemark_connectors::clock::SystemClock;
use tidemark_engine::seam::Clock;

pub async fn demo(arguments: Demo, mut settings: Settings) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(tokio::runtime::Handle::current()));
    let examples = std::path::absolute(&arguments.examples).context("cannot tell the current directory")?;
    events::derive(&examples, clock.as_ref())?;

    let (server, target) = match &arguments.url {
        Some(url) => (None, Target::from_environment(environment()).with_url(url).map_err(|message| anyhow!(message))?),
        None => {
            let place = room::prepare(arguments.data.as_deref())?;
            // The training sets are written where the server runs.
            std::env::set_current_dir(&place).with_context(|| format!("cannot enter {}", place.display()))?;
            settings.data = place.join("data");
            let server = start_in_process(&settings, false).await?;
            let target = Target::local(server.address, environment());
            (Some(server), target)
        }
    };
    let told = tell(&arguments, &examples, &target, clock).await;
    if told.is_ok() {
        farewell(&target, server.is_some().then_some(settings.data.as_path()), &arguments.examples);
    }
    if let Some(server) = server {
        if told.is_ok() && !arguments.exit {
            println!("The server stays until Ctrl-C.");
            StopSignal::listen()?.received().await;
        }
        server.stop().await?;
    }
    told
}

async fn tell(arguments: &Demo, examples: &Path, target: &Target, clock: Arc<dyn Clock>) -> anyhow::Result<ExitCode> {
    let mut runner = Runner::new(
        Connection::open(target, clock.as_ref()).await?,
        Output::together(std::io::stdout()),
        Arc::clone(&clock),
    );
    runner.folder = Some(examples.to_path_buf());
    runner.echo = true;
    let lookups = Connection::open(target, clock.as_ref()).await?;
    Story { runner, lookups, clock, examples: examples.to_path_buf(), rows_max: arguments.rows }.tell().await?;
    Ok(ExitCode::SUCCESS)
}

fn farewell(target: &Target, data: Option<&Path>, examples: &Path) {
    let warehouse = data.map_or("its warehouse".to_string(), |data| data.join("warehouse").display().to_string());
    println!(
        "\nGo on by hand, from another terminal:\n\n  psql -h {} -p {} {}\n\n  \
         SELECT * FROM origin_delays WHERE origin = 'JFK';\n  \
         SELECT * FROM history.origin_weather ORDER BY event_time DESC LIMIT 5;\n  \\d\n\n\
         The history is plain Iceberg in {warehouse}:\n{}/read_history.py reads it with PyIceberg and DuckDB, and \
         model.py beside it trains on the training set.\n",
        target.host,
        target.port,
        target.database,
        examples.display(),
    );
}
