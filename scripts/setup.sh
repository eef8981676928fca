#!/usr/bin/env bash
# Makes a machine ready, idempotently, and says exactly what is missing where it cannot.
#   setup.sh build|demo|demo-kafka|test|test-long|bench
# On Debian and Ubuntu missing packages are installed by apt, as root or with sudo. A PostgreSQL that this installs is only
# programs: no cluster is made or started, the tests run their own in a folder of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

mode=${1:-} long=
# Only the longer tests run the heavy clients.
if [ "$mode" = test-long ]; then mode=test long=yes; fi
case $mode in build | demo | demo-kafka | test | bench) ;; *) sed -n '3p' "$0" >&2; exit 2 ;; esac

has() { command -v "$1" >/dev/null 2>&1; }
has_server() { has pg_ctl || compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' >/dev/null; }
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }
has_zones() { python3 -c 'import zoneinfo; zoneinfo.ZoneInfo("America/New_York")' 2>/dev/null; }
# A compiler too: benches/FlinkSql.java and tests/wire/clients/java/Clients.java are started as source files.
has_java() { has javac && [ "$(javac -version 2>&1 | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 17 ]; }
has_jre() { has java && [ "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')" -ge 17 ]; }
# Debian 12's is too old for pgx, so where it is missing the tests of Go's clients say that they are skipped.
has_go() { has go && [ "$(printf '%s\n' 1.25 "$(go env GOVERSION | sed 's/^go//')" | sort -V | head -n 1)" = 1.25 ]; }
has_psqlodbc() { grep -qs '^\[PostgreSQL Unicode\]' /etc/odbcinst.ini; }
has_python() { has python3 && python3 -c 'import sys; sys.exit(sys.version_info < tuple(map(int, sys.argv[1].split("."))))' "$1"; }
# The pinned channel, where rustup is: it fetches it itself (and says so, unless RUSTUP_AUTO_INSTALL=0); else any as new.
rust=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
has_rust() {
  local version
  version=$(cargo --version | cut -d' ' -f2) && [ "$(printf '%s\n' "$rust" "$version" | sort -V | head -n 1)" = "$rust" ]
}

# librdkafka's TLS is the system's OpenSSL, found by pkg-config.
has_openssl() { has pkg-config && pkg-config --exists openssl; }

# One line per need: what it is, how to see it, Debian's packages.
needs=("a C compiler|has cc|build-essential" "pkg-config|has pkg-config|pkg-config"
  "OpenSSL's headers|has_openssl|libssl-dev")
# What derives the demo's events is older than what the pinned packages of the tests ask for.
case $mode in
demo) needs+=("Python 3.9 or newer|has_python 3.9|python3" "time zone data|has_zones|tzdata") ;;
test | bench)
  needs+=("Python 3.11 or newer|has_python 3.11|python3" "time zone data|has_zones|tzdata")
  needs+=("Python's venv|has_venv|python3-venv" "psql|has psql|postgresql-client"
    "PostgreSQL's server programs|has_server|postgresql" "pgbench|has pgbench|postgresql") ;;
esac
if [ "$mode" = demo-kafka ]; then
  needs+=("Python 3.9 or newer|has_python 3.9|python3" "Python's venv|has_venv|python3-venv")
fi
if [ "$mode" = test ] || [ "$mode" = demo-kafka ]; then
  needs+=("Maven|has mvn|maven"
    "Redis|has redis-server|redis-server" "redis-cli|has redis-cli|redis-tools" "OpenSSL's program|has openssl|openssl")
fi
if [ "$mode" = demo-kafka ]; then needs+=("Java 17 or newer|has_jre|default-jre-headless"); fi
if [ "$mode" = test ]; then
  needs+=("Java 17 or newer, with its compiler|has_java|default-jdk-headless" "Node|has node|nodejs" "npm|has npm|npm")
  if [ -n "$long" ]; then needs+=("psqlODBC|has_psqlodbc|odbc-postgresql"); fi
fi
if [ "$mode" = bench ]; then
  needs+=("Java 17 or newer|has_java|default-jdk-headless" "Maven|has mvn|maven"
    "Redis|has redis-server|redis-server" "redis-cli|has redis-cli|redis-tools")
fi

missing() {
  local need what check package
  for need in "${needs[@]}"; do
    IFS='|' read -r what check package <<<"$need"
    $check || echo "$what|$package"
  done
}

install() {
  local -a as=()
  if [ "$(id -u)" != 0 ]; then
    if has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then as=(sudo); else return 1; fi
  fi
  has apt-get || return 1
  echo "setup: installing $*"
  "${as[@]}" apt-get update -qq || return 1
  local -a apt=("${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
  if [[ " $* " == *" postgresql "* ]]; then
    # First the part that decides whether a cluster is made, then its setting, then the server.
    "${apt[@]}" postgresql-common >/dev/null || return 1
    "${as[@]}" sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  fi
  "${apt[@]}" "$@" >/dev/null
}

lacking=$(missing)
if [ -n "$lacking" ]; then
  mapfile -t packages < <(cut -d'|' -f2 <<<"$lacking" | sort -u)
  install "${packages[@]}" || true
  lacking=$(missing)
fi
no_rust=
if ! has cargo; then
  no_rust="a Rust toolchain ($rust or newer): https://rustup.rs"
elif ! has_rust; then
  no_rust="Rust $rust or newer"
  if has rustup; then no_rust+=": rustup toolchain install $rust -c clippy -c rustfmt"; else no_rust+=": https://rustup.rs"; fi
fi
if [ -n "$lacking$no_rust" ]; then
  {
    echo "setup: missing for \"make $mode\":"
    [ -z "$lacking" ] || while IFS='|' read -r what package; do echo "  $what (Debian package $package)"; done <<<"$lacking"
    [ -z "$no_rust" ] || echo "  $no_rust"
    [ -z "$lacking" ] || echo "Install them, on Debian or Ubuntu as root: apt-get install -y --no-install-recommends $(cut -d'|' -f2 <<<"$lacking" | sort -u | xargs)"
  } >&2
  exit 1
fi

uv=0.13.9
# A folder with the Python packages that a requirements file pins; made again only when the file changes.
python_environment() {
  local folder=$1 requirements=$2
  if [ -x "$folder/bin/python" ] && cmp -s "$requirements" "$folder/requirements.installed"; then return; fi
  echo "setup: Python packages of $requirements into $folder"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install -q --disable-pip-version-check "uv==$uv"
  "$folder/bin/uv" pip install -q --python "$folder/bin/python" -r "$requirements"
  cp "$requirements" "$folder/requirements.installed"
}

# Jars in a folder; fetched again only when the list of them changes.
jars() {
  local folder=$1 list=$2
  if cmp -s "$list" "$folder/list.installed"; then return; fi
  echo "setup: the jars of $list into $folder"
  rm -rf "$folder"
  mvn -q -B -f "$list" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$PWD/$folder"
  cp "$list" "$folder/list.installed"
}

# Node's packages of a folder, as its lock file pins them; installed again only when that changes.
node_packages() {
  local folder=$1
  if cmp -s "$folder/package-lock.json" "$folder/node_modules/lock.installed"; then return; fi
  echo "setup: Node packages into $folder/node_modules"
  if ! (cd "$folder" && npm ci --silent --ignore-scripts --no-audit --no-fund); then
    echo "setup: npm could not install them: the tests of Node's clients will be skipped"
    rm -rf "$folder/node_modules"
    return
  fi
  cp "$folder/package-lock.json" "$folder/node_modules/lock.installed"
}

# A program of Go's, built again only when one of its files is newer.
go_program() {
  local folder=$1 name=$2
  mkdir -p "$folder/.built"
  if ! has_go; then
    echo "setup: no Go 1.25 or newer: the tests of its clients will be skipped"
    touch "$folder/.built/none"
    return
  fi
  rm -f "$folder/.built/none"
  if [ -x "$folder/.built/$name" ] && [ -z "$(find "$folder" -maxdepth 1 -type f -newer "$folder/.built/$name")" ]; then return; fi
  echo "setup: $folder/.built/$name"
  if ! (cd "$folder" && go build -o ".built/$name" .); then
    echo "setup: go could not build it: the tests of Go's clients will be skipped"
    touch "$folder/.built/none"
  fi
}

# A program of Rust's that is no part of the workspace, built again only when one of its files is newer. Not below its folder: the
# house reads every source below tests/, and a build makes some.
rust_program() {
  local folder=$1 name=$2 target=${CARGO_TARGET_DIR:-$PWD/target}/outside
  mkdir -p "$folder/.built"
  if [ -x "$folder/.built/$name" ] && [ -z "$(find "$folder" -path "$folder/.built" -prune -o -type f -newer "$folder/.built/$name" -print)" ]; then return; fi
  echo "setup: $folder/.built/$name"
  env -u RUSTC_WORKSPACE_WRAPPER cargo build -q --locked --manifest-path "$folder/Cargo.toml" --target-dir "$target"
  cp "$target/debug/$name" "$folder/.built/$name"
}

# A server of S3 that checks signatures and conditions, built by Go in two minutes.
versitygw() {
  local folder=tests/services/.versitygw
  if [ -x "$folder/versitygw" ] || ! has_go; then return; fi
  echo "setup: $folder/versitygw"
  mkdir -p "$folder"
  if ! GOBIN=$PWD/$folder go install -p 1 github.com/versity/versitygw/cmd/versitygw@v1.8.0; then
    echo "setup: go could not build it: history in a bucket will not be tested with it"
  fi
}

# Prometheus' tool that checks metrics and alerts. Out of Debian's package, which is not installed: that would start a server.
prometheus_tool() {
  local folder=tests/services/.prometheus scratch
  if has promtool || [ -x "$folder/promtool" ]; then return; fi
  echo "setup: promtool out of Debian's package prometheus into $folder"
  scratch=$(mktemp -d)
  # With an old list of packages the file is not there any more: `install` of nothing brings a new one.
  if has apt-get && has dpkg-deb && (cd "$scratch" && { apt-get download -qq prometheus >/dev/null 2>&1 ||
    { install && apt-get download -qq prometheus; }; } >/dev/null && dpkg-deb -x prometheus_*.deb .); then
    mkdir -p "$folder"
    mv "$scratch/usr/bin/promtool" "$folder/promtool"
    rm -rf "$scratch"
  else
    rm -rf "$scratch"
    echo "setup: missing for \"make $mode\": promtool (Debian package prometheus, or https://prometheus.io/download)" >&2
    exit 1
  fi
}

if [ "$mode" = demo-kafka ] || [ "$mode" = test ]; then
  python_environment .venv-clickstream sql_examples/clickstream/requirements.txt
  jars tests/services/.kafka tests/services/kafka.pom.xml
fi
if [ "$mode" = test ]; then
  prometheus_tool
  python_environment .venv-flights sql_examples/flights/requirements.txt
  python_environment .venv-lake tests/python/requirements-lake.txt
  python_environment .venv-s3 tests/python/requirements-s3.txt
  jars tests/services/.iceberg-rest tests/services/iceberg-rest.pom.xml
  python_environment .venv-dbt dbt/requirements.txt
  python_environment .venv-clients tests/wire/clients/python/requirements.txt
  jars tests/wire/clients/java/.jars tests/wire/clients/java/pom.xml
  node_packages tests/wire/clients/node
  go_program tests/wire/clients/go clients
  if [ -n "$long" ]; then
    python_environment .venv-clients-long tests/wire/clients/python/requirements-long.txt
    python_environment .venv-superset tests/wire/clients/python/requirements-superset.txt
    python_environment .venv-dbt-adapter tests/wire/clients/python/requirements-dbt-adapter.txt
    python_environment .venv-sqlmesh tests/wire/clients/python/requirements-sqlmesh.txt
    rust_program tests/wire/clients/rust clients
    versitygw
    jars tests/services/.nessie tests/services/nessie.pom.xml
    python_environment .venv-java21 tests/python/requirements-nessie.txt
    jars tests/services/.spark-jars tests/services/spark.pom.xml
    python_environment .venv-spark tests/python/requirements-spark.txt
  fi
fi
if [ "$mode" = bench ]; then
  python_environment .venv-bench benches/requirements.txt
  python_environment .venv-feast benches/requirements-feast.txt
  jars tests/services/.kafka tests/services/kafka.pom.xml
  # An anchor of the benchmarks.
  jars benches/.flink benches/flink.pom.xml
fi
