//! The `tidemark` binary: the command line in, an exit code out. What fails is told once, here.

use mimalloc::MiMalloc;
use std::{
    ffi::{c_int, c_long},
    process::ExitCode,
};
use tidemark_server::cli;

/// The system's allocator gives pages back at every large free and takes them fresh from the kernel at the next: batches and
/// steps are large, and come and go all the time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Milliseconds that memory which nobody needs is kept before the kernel gets it back: longer than steps wait for their commit, for
/// else all that ingestion needs is given back every second, and cleared by the kernel before it is there again. A fifth of the CPU of a
/// COPY went into that.
const KEPT_MS: c_long = 10_000;

/// mimalloc's `mi_option_purge_delay`, and what it is if nobody has said anything (`MIMALLOC_PURGE_DELAY`).
const PURGE_DELAY: c_int = 15;
const PURGE_DELAY_DEFAULT: c_long = 1_000;

/// Pages of two megabytes are cleared whole when they are first touched, and found by moving others where memory is in pieces: latencies that
/// nobody can explain. Under load the same COPY took between 3.3 and 5.5 seconds with them, where the machine is a virtual one that gives
/// large free pieces back to its host, and 3.5 always without. Redis advises the same.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn without_huge_pages() {
    // SAFETY: plain numbers. A kernel that does not know the option changes nothing.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

#[cfg(not(target_os = "linux"))]
fn without_huge_pages() {}

#[allow(unsafe_code)]
fn keep_memory() {
    // SAFETY: plain numbers, and no other thread is there yet. An option that has another number in another version of mimalloc has
    // another value, and is left alone.
    unsafe {
        if libmimalloc_sys::mi_option_get(PURGE_DELAY) == PURGE_DELAY_DEFAULT {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MS);
        }
    }
}

fn main() -> ExitCode {
    without_huge_pages();
    keep_memory();
    match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
