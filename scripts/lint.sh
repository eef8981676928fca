#!/usr/bin/env bash
# Formatting, and one build of everything, tests included, that fails on any warning of rustc or clippy. The build is the
# one that scripts/test.sh runs: nothing is compiled twice.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

cargo fmt --all -- --check
[ "${RUSTC_WORKSPACE_WRAPPER:-}" = clippy-driver ] || { echo "lint: clippy is missing; rustup component add clippy" >&2; exit 1; }
# Warnings of cached crates are printed again, so a warning cannot hide behind a build that somebody else did.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace --no-run --message-format=short 2>&1 | tee "$log"
if grep -qE '^[^ ]+:[0-9]+:[0-9]+: warning|^warning: .*generated [0-9]+ warning' "$log"; then
  echo "lint: there are warnings (above); the house has none" >&2
  exit 1
fi
