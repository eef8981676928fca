#!/usr/bin/env bash
# A throw-away Iceberg REST catalog for the tests: Iceberg's own reference server, with tables in SQLite in DIR and files in a server
# of S3; it has no setting for the address, and listens on all. Or Nessie, which is stricter and puts tables where it wants.
#   iceberg-rest.sh start DIR PORT S3-ENDPOINT   jars from tests/services/.iceberg-rest; or, where TIDEMARK_TEST_NESSIE_JAVA names a
#                                                Java 21, from tests/services/.nessie: then it is at /iceberg
#   iceberg-rest.sh stop DIR                     kill -9
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jars=$here/.iceberg-rest
below=
if [ -n "${TIDEMARK_TEST_NESSIE_JAVA:-}" ]; then below=/iceberg; fi

usage() { sed -n '2,6p' "$0" >&2; exit 2; }
fail() { echo "iceberg-rest.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)

answers() {
  local answer
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s/v1/config HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$below" >&3 &&
      read -r answer <&3 && [[ $answer == *' 200'* ]]
  } 2>/dev/null
}

reference() {
  CATALOG_CATALOG__IMPL=org.apache.iceberg.jdbc.JdbcCatalog CATALOG_URI="jdbc:sqlite:$dir/catalog.db" \
    CATALOG_JDBC_USER=tidemark CATALOG_JDBC_PASSWORD=tidemark CATALOG_WAREHOUSE=s3://lake/rest \
    CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO CATALOG_S3_ENDPOINT="$2" CATALOG_S3_PATH__STYLE__ACCESS=true \
    CATALOG_S3_ACCESS__KEY__ID=testkey CATALOG_S3_SECRET__ACCESS__KEY=testsecret CATALOG_CLIENT_REGION=us-east-1 \
    CATALOG_HTTP__CLIENT_TYPE=urlconnection CATALOG_REST_PORT="$1" \
    exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" org.apache.iceberg.rest.RESTCatalogServer
}

# Its catalog is in memory, and its second port, which is nobody's, any that is free.
nessie() {
  local s3=-Dnessie.catalog.service.s3.default-options
  exec "$TIDEMARK_TEST_NESSIE_JAVA" -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$1" -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=0 \
    -Dnessie.version.store.type=IN_MEMORY -Dnessie.server.authentication.enabled=false -Dquarkus.oidc.tenant-enabled=false \
    -Dquarkus.otel.sdk.disabled=true -Dnessie.catalog.default-warehouse=lake \
    -Dnessie.catalog.warehouses.lake.location=s3://lake/nessie $s3.endpoint="$2" $s3.path-style-access=true \
    $s3.region=us-east-1 $s3.access-key=urn:nessie-secret:quarkus:s3keys -Ds3keys.name=testkey -Ds3keys.secret=testsecret \
    $s3.request-signing-enabled=false -jar "$here"/.nessie/nessie-quarkus-*.jar
}

case $1 in
start)
  [ $# -eq 4 ] || usage
  if [ -n "$below" ]; then (cd "$dir" && nessie "$3" "$4") >>"$dir/log" 2>&1 </dev/null &
  else (reference "$3" "$4") >>"$dir/log" 2>&1 </dev/null & fi
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
