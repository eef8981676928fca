//! The `tidemark` binary: the command line in, an exit code out. What fails is told once, here.

use std::process::ExitCode;
use tidemark_server::cli;

fn main() -> ExitCode {
    match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
