//! `tidemark serve`: a server until a signal says stop.

use super::open_files;
use crate::points::AbortAt;
use crate::serve as server;
use crate::settings::{Role, Settings};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Before the feature views are back.
const BROKEN_OFF: &str = "stopped during recovery; the next start begins it again";

pub async fn serve(settings: Settings, abort_at: Option<AbortAt>) -> anyhow::Result<ExitCode> {
    // Before anything is opened: recovery may take minutes, and a supervisor may change its mind meanwhile.
    let mut stop = StopSignal::listen()?;
    if let Some(AbortAt { point, passing }) = abort_at {
        tracing::warn!(point = point.name(), passing, "--abort-at is for tests: this server will end by itself");
    }
    open_files::warn_if_too_few(settings.max_connections);
    let running = tokio::select! {
        begun = server::begin(&settings, abort_at) => begun?,
        () = stop.received() => {
            tracing::info!("{BROKEN_OFF}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    match settings.role {
        Role::Owner => tracing::info!(address = %running.address, data = %settings.data.display(), "listening"),
        Role::Serving => tracing::info!(address = %running.address, "listening, to serve lookups only"),
    }
    if let Some(http) = running.http {
        tracing::info!(address = %http, "answering /metrics, /healthz and /readyz");
    }
    tokio::select! {
        restored = running.restored() => restored?,
        () = stop.received() => {
            running.shutdown().await?;
            tracing::info!("{BROKEN_OFF}");
            return Ok(ExitCode::SUCCESS);
        }
    }
    stop.received().await;
    tracing::info!("stopping");
    running.shutdown().await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM or Ctrl-C. From [`StopSignal::listen`] on they no longer end the process by themselves.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    pub fn listen() -> std::io::Result<StopSignal> {
        Ok(StopSignal { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when one has come; one that came before it was asked counts.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
