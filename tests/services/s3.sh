#!/usr/bin/env bash
# A throw-away server of S3 for the tests, on 127.0.0.1, with an empty bucket "lake" and the keys testkey, testsecret.
#   s3.sh start DIR PORT   moto, with the Python of TIDEMARK_TEST_S3_PYTHON, which takes any keys; or the versitygw that
#                          TIDEMARK_TEST_VERSITYGW names, which checks every signature
#   s3.sh stop DIR         kill -9
set -euo pipefail

usage() { sed -n '2,5p' "$0" >&2; exit 2; }
fail() { echo "s3.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)

# The answer's first line to a request that nobody has signed.
asked() {
  local answer
  {
    exec 3<>"/dev/tcp/127.0.0.1/$2" && printf '%s /lake HTTP/1.0\r\nHost: 127.0.0.1:%s\r\nContent-Length: 0\r\n\r\n' "$1" "$2" >&3 &&
      read -r answer <&3 && echo "$answer"
  } 2>/dev/null
}
# Moto makes the bucket that way. A folder of versitygw's is one already, and it refuses who does not sign.
is_ready() {
  if [ -n "${TIDEMARK_TEST_VERSITYGW:-}" ]; then [[ $(asked GET "$1") == 'HTTP/1.'?' 4'* ]]; else [[ $(asked PUT "$1") == *' 200 '* ]]; fi
}

case $1 in
start)
  [ $# -eq 3 ] || usage
  if [ -n "${TIDEMARK_TEST_VERSITYGW:-}" ]; then
    mkdir -p "$dir/buckets/lake"
    (cd "$dir" && ROOT_ACCESS_KEY=testkey ROOT_SECRET_KEY=testsecret exec "$TIDEMARK_TEST_VERSITYGW" --port "127.0.0.1:$3" \
      posix buckets) >>"$dir/log" 2>&1 </dev/null &
  else
    (cd "$dir" && exec "$TIDEMARK_TEST_S3_PYTHON" -m moto.server -H 127.0.0.1 -p "$3") >>"$dir/log" 2>&1 </dev/null &
  fi
  pid=$!
  echo $pid >>"$dir/pids"
  until is_ready "$3"; do
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
