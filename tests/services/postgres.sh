#!/usr/bin/env bash
# A throw-away PostgreSQL for the tests: the oracle that computes features by their definition.
#   postgres.sh start DIR PORT [tls]   start it in DIR (fresh, or one that this script made), listening on 127.0.0.1:PORT;
#                                      with "tls" also encrypted, with a certificate of the authority DIR/ca.crt
#   postgres.sh stop DIR          stop it
#   postgres.sh destroy DIR       stop it and remove DIR
# User "postgres" without a password, database "postgres", TimeZone UTC, nothing durable (fsync off). PGBIN names the
# folder of the server's programs where they are not Debian's or on the PATH. PostgreSQL refuses to run as root: as root
# it runs as the user that Debian's package made, who must be able to reach DIR (under /tmp or /var/tmp it can).
set -euo pipefail

usage() { sed -n '2,6p' "$0" >&2; exit 2; }
fail() { echo "postgres.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage

if [ -z "${PGBIN:-}" ]; then
  # The newest of Debian's versions; else whatever is on the PATH.
  newest=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/pg_ctl' 2>/dev/null | sort -V | tail -n 1)
  newest=${newest:-$(command -v pg_ctl || true)}
  [ -n "$newest" ] || fail "no PostgreSQL server programs found; install the package postgresql, or set PGBIN"
  PGBIN=$(dirname "$newest")
fi

# Runs a program as the user that owns the server, from a folder that user can be in.
as_owner() {
  if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else (cd / && "$@"); fi
}

case $1 in
start)
  [ $# -eq 3 ] || [ "${4:-}" = tls ] || usage
  mkdir -p "$2"
  dir=$(cd "$2" && pwd)
  if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || fail "running as root needs the user \"postgres\" to run the server as"
    chown postgres "$dir"
    as_owner test -w "$dir" || fail "the user \"postgres\" cannot reach $dir; give a folder under /tmp"
  fi
  if [ ! -f "$dir/cluster/PG_VERSION" ]; then
    as_owner "$PGBIN/initdb" -D "$dir/cluster" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >"$dir/initdb.log" 2>&1 ||
      { cat "$dir/initdb.log" >&2; fail "initdb failed in $dir"; }
    cat >>"$dir/cluster/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'ISO, YMD'
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 128MB
max_connections = 50
CONF
    if [ "${4:-}" = tls ]; then
      curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
      {
        as_owner openssl req -x509 "${curve[@]}" -days 30 -subj /CN=tidemark-test-ca -keyout "$dir/ca.key" -out "$dir/ca.crt"
        as_owner openssl req "${curve[@]}" -subj /CN=localhost -keyout "$dir/server.key" -out "$dir/server.csr"
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$dir/names"
        as_owner openssl x509 -req -days 30 -in "$dir/server.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial \
          -extfile "$dir/names" -out "$dir/server.crt"
        as_owner chmod 600 "$dir/server.key"
      } 2>>"$dir/tls.log" >&2 || { cat "$dir/tls.log" >&2; fail "openssl makes no certificates in $dir"; }
      printf "ssl = on\nssl_cert_file = '%s/server.crt'\nssl_key_file = '%s/server.key'\n" "$dir" "$dir" \
        >>"$dir/cluster/postgresql.conf"
    fi
  fi
  if as_owner "$PGBIN/pg_ctl" -D "$dir/cluster" status >/dev/null 2>&1; then exit 0; fi
  as_owner "$PGBIN/pg_ctl" -D "$dir/cluster" -w -t 60 -l "$dir/log" -o "-p $3" start >/dev/null ||
    { tail -n 20 "$dir/log" >&2; fail "the server did not start in $dir on port $3"; }
  ;;
stop | destroy)
  if [ -d "$2/cluster" ]; then
    dir=$(cd "$2" && pwd)
    if as_owner "$PGBIN/pg_ctl" -D "$dir/cluster" status >/dev/null 2>&1; then
      as_owner "$PGBIN/pg_ctl" -D "$dir/cluster" -m fast -w stop >/dev/null
    fi
    [ "$1" = stop ] || rm -rf "$dir"
  fi
  ;;
*) usage ;;
esac
