//! The root package exists to own the `tidemark` binary, `tests/` and `benches/`; the code lives in the crates.
