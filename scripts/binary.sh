#!/usr/bin/env bash
# Prints where cargo put the development build of `tidemark`, or with `release` that one.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
target=$(cargo metadata --no-deps --offline --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
echo "$target/${1:-debug}/tidemark"
