#!/usr/bin/env bash
# A throw-away server of S3 for the tests (moto), on 127.0.0.1, with an empty bucket "lake". It takes any keys.
#   s3.sh start DIR PORT   with the Python of TIDEMARK_TEST_S3_PYTHON
#   s3.sh stop DIR         kill -9
set -euo pipefail

usage() { sed -n '2,4p' "$0" >&2; exit 2; }
fail() { echo "s3.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)

make_bucket() {
  local answer
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'PUT /lake HTTP/1.0\r\nHost: 127.0.0.1:%s\r\nContent-Length: 0\r\n\r\n' "$1" >&3 &&
      read -r answer <&3 && [[ $answer == *' 200 '* ]]
  } 2>/dev/null
}

case $1 in
start)
  [ $# -eq 3 ] || usage
  (cd "$dir" && exec "$TIDEMARK_TEST_S3_PYTHON" -m moto.server -H 127.0.0.1 -p "$3") >>"$dir/log" 2>&1 </dev/null &
  pid=$!
  echo $pid >>"$dir/pids"
  until make_bucket "$3"; do
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
