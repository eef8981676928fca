//! `tidemark serve`: a server until a signal says stop.

use crate::serve as server;
use crate::settings::Settings;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

pub async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    let running = server::start(&settings).await?;
    tracing::info!(address = %running.address, data = %settings.data.display(), "listening");
    stop_signal().await?;
    tracing::info!("stopping");
    running.shutdown().await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM or Ctrl-C.
pub async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
