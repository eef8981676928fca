#!/usr/bin/env bash
# A throw-away Kafka broker for the tests: broker and controller in one JVM, listening on 127.0.0.1.
#   kafka.sh start DIR PORT    start it in DIR (fresh, or one that this script made, with its data); the controller takes
#                              PORT + 1. Returns when it is ready
#   kafka.sh start DIR PORT secure
#                              the same, and on PORT + 2 SASL_SSL: TLS by a CA made for it (DIR/ca.pem; DIR/other-ca.pem has
#                              signed nothing), PLAIN for bob / bobs-secret, SCRAM-SHA-256 and -512 for alice / alices-secret
#   kafka.sh stop DIR          stop it
#   kafka.sh kill DIR          kill -9 it
#   kafka.sh destroy DIR       stop it and remove DIR
# Its jars are where scripts/setup.sh test puts them, or in KAFKA_JARS.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jars=${KAFKA_JARS:-$here/.kafka}

usage() { sed -n '2,11p' "$0" >&2; exit 2; }
fail() { echo "kafka.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage

is_running() { [ -f "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$(cat "$1/pid")/status"; }
end() {
  is_running "$2" || return 0
  kill "$1" "$(cat "$2/pid")"
  while is_running "$2"; do sleep 0.05; done
}

# A CA, the broker's certificate by it, and a CA that has nothing to do with it; for this one run.
certificates() {
  local dir=$1 name
  for name in ca other-ca; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=tidemark test $name" \
      -keyout "$dir/$name.key" -out "$dir/$name.pem" 2>"$dir/openssl.log" || fail "openssl: $(cat "$dir/openssl.log")"
  done
  openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 \
    -keyout "$dir/broker.key" -out "$dir/broker.csr" 2>"$dir/openssl.log" &&
    openssl x509 -req -days 2 -in "$dir/broker.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial \
      -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost") -out "$dir/broker.pem" 2>"$dir/openssl.log" ||
    fail "openssl: $(cat "$dir/openssl.log")"
  cat "$dir/broker.key" "$dir/broker.pem" >"$dir/broker.keystore.pem"
}

case $1 in
start)
  [ $# -eq 3 ] || { [ $# -eq 4 ] && [ "$4" = secure ]; } || usage
  compgen -G "$jars/*.jar" >/dev/null || fail "no jars of Kafka in $jars; scripts/setup.sh test fetches them"
  mkdir -p "$2"
  dir=$(cd "$2" && pwd)
  # One short-lived broker beside the tests: a small heap, the quick compiler, and classes from an archive where there is one.
  java=(java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
    "-Dlog4j2.configurationFile=$here/kafka.log4j2.properties" -cp "$jars/*")
  if [ ! -f "$dir/data/meta.properties" ]; then
    sed -e "s#@DIR@#$dir#g;s#@PORT@#$3#g;s#@CONTROLLER@#$(($3 + 1))#g" "$here/kafka.properties.in" >"$dir/server.properties"
    users=()
    if [ "${4:-}" = secure ]; then
      certificates "$dir"
      sed -e "s#@DIR@#$dir#g;s#@PORT@#$3#g;s#@CONTROLLER@#$(($3 + 1))#g;s#@SECURE@#$(($3 + 2))#g" \
        "$here/kafka.secure.properties.in" >>"$dir/server.properties"
      for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
        users+=(--add-scram "$mechanism=[name=alice,password=alices-secret]")
      done
    fi
    "${java[@]}" kafka.tools.StorageTool format --standalone -t AAAAAAAAAAAAAAAAAAAAAA -c "$dir/server.properties" \
      "${users[@]}" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; fail "the folder cannot be formatted"; }
  fi
  : >"$dir/log"
  "${java[@]}" kafka.Kafka "$dir/server.properties" >>"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  until grep -q 'Kafka Server started' "$dir/log"; do
    is_running "$dir" || { tail -n 20 "$dir/log" >&2; fail "the broker did not start in $dir on port $3"; }
    sleep 0.05
  done
  ;;
stop) end -TERM "$2" ;;
kill) end -KILL "$2" ;;
destroy) end -KILL "$2"; rm -rf "$2" ;;
*) usage ;;
esac
