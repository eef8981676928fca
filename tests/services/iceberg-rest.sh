#!/usr/bin/env bash
# A throw-away Iceberg REST catalog for the tests, Iceberg's own reference server: tables in SQLite in DIR, files in a server
# of S3. It has no setting for the address, and listens on all.
#   iceberg-rest.sh start DIR PORT S3-ENDPOINT   jars from tests/services/.iceberg-rest
#   iceberg-rest.sh stop DIR                     kill -9
set -euo pipefail
jars=$(cd "$(dirname "$0")" && pwd)/.iceberg-rest

usage() { sed -n '2,5p' "$0" >&2; exit 2; }
fail() { echo "iceberg-rest.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)

answers() {
  local answer
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /v1/config HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3 &&
      read -r answer <&3 && [[ $answer == *' 200'* ]]
  } 2>/dev/null
}

case $1 in
start)
  [ $# -eq 4 ] || usage
  CATALOG_CATALOG__IMPL=org.apache.iceberg.jdbc.JdbcCatalog CATALOG_URI="jdbc:sqlite:$dir/catalog.db" \
    CATALOG_JDBC_USER=tidemark CATALOG_JDBC_PASSWORD=tidemark CATALOG_WAREHOUSE=s3://lake/rest \
    CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO CATALOG_S3_ENDPOINT="$4" CATALOG_S3_PATH__STYLE__ACCESS=true \
    CATALOG_S3_ACCESS__KEY__ID=testkey CATALOG_S3_SECRET__ACCESS__KEY=testsecret CATALOG_CLIENT_REGION=us-east-1 \
    CATALOG_HTTP__CLIENT_TYPE=urlconnection CATALOG_REST_PORT="$3" \
    java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" org.apache.iceberg.rest.RESTCatalogServer \
    >>"$dir/log" 2>&1 </dev/null &
  pid=$!
  echo $pid >>"$dir/pids"
  until answers "$3"; do
    kill -0 $pid 2>/dev/null || { tail -n 20 "$dir/log" >&2; fail "the server did not start in $dir on port $3"; }
    sleep 0.05
  done
  ;;
stop)
  [ -f "$dir/pids" ] || exit 0
  while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <"$dir/pids"
  rm -f "$dir/pids"
  ;;
*) usage ;;
esac
