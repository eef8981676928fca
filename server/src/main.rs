//! The `tidemark` binary: the command line in, an exit code out. What fails is told once, here.

use mimalloc::MiMalloc;
use std::process::ExitCode;
use tidemark_server::cli;

/// The system's allocator gives pages back at every large free and takes them fresh from the kernel at the next: batches and
/// steps are large, and come and go all the time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
