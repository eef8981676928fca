# Sourced before every cargo command of the house: all of them build with the same compiler wrapper, so that what lint has
# compiled, test, demo and serve find ready. Clippy is a compiler that also reads; without it plain rustc does.

# rustup's environment is not loaded in every shell.
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
# Where rustup must fetch the pinned toolchain first, it is seen doing so; the question below is asked in silence.
cargo --version >/dev/null || true
if [ -z "${RUSTC_WORKSPACE_WRAPPER+set}" ] && cargo clippy --version >/dev/null 2>&1; then
  export RUSTC_WORKSPACE_WRAPPER=clippy-driver
fi
