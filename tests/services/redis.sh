#!/usr/bin/env bash
# A throw-away Redis for the tests, listening on 127.0.0.1, nothing on disk unless it is told to SAVE.
#   redis.sh start DIR PORT [MORE…]   one server; MORE are its own options
#   redis.sh tls DIR PORT PASSWORD    one with TLS only and a password; its certificates are signed by DIR/ca.crt
#   redis.sh cluster DIR PORT         three masters on PORT, PORT + 1, PORT + 2; their bus is on the ports 10000 above
#   redis.sh replicated DIR PORT      the same with a replica of the first on PORT + 3, which takes over when that is away for a second
#   redis.sh sentinel DIR PORT        a master "main" on PORT, a replica on PORT + 1, three Sentinels on the ports after it
#   redis.sh tls-sentinel DIR PORT PASSWORD   the server of tls, and on PORT + 1 a Sentinel with TLS that knows it as "main"
#   redis.sh stop DIR                 kill -9 all of them
set -euo pipefail

usage() { sed -n '2,9p' "$0" >&2; exit 2; }
fail() { echo "redis.sh: $1" >&2; exit 1; }

[ $# -ge 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)

# Folder, port, options of redis-cli, --, options of the server.
server() {
  local folder=$1 port=$2 client=()
  shift 2
  while [ "$1" != -- ]; do client+=("$1"); shift; done
  shift
  mkdir -p "$folder"
  redis-server --bind 127.0.0.1 --dir "$folder" --save '' --appendonly no --daemonize no "$@" >>"$folder/log" 2>&1 </dev/null &
  local pid=$!
  echo $pid >>"$dir/pids"
  until [ "$(redis-cli --no-auth-warning -h 127.0.0.1 -p "$port" "${client[@]}" ping 2>/dev/null)" = PONG ]; do
    kill -0 $pid 2>/dev/null || { tail -n 20 "$folder/log" >&2; fail "the server did not start in $folder on port $port"; }
    sleep 0.02
  done
}

certificates() {
  [ ! -s "$dir/server.crt" ] || return 0
  local curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  {
    openssl req -x509 "${curve[@]}" -days 30 -subj /CN=tidemark-test-ca -keyout "$dir/ca.key" -out "$dir/ca.crt"
    openssl req "${curve[@]}" -subj /CN=localhost -keyout "$dir/server.key" -out "$dir/server.csr"
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$dir/names"
    openssl x509 -req -days 30 -in "$dir/server.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial \
      -extfile "$dir/names" -out "$dir/server.crt"
  } 2>>"$dir/log" || { cat "$dir/log" >&2; fail "openssl makes no certificates in $dir"; }
}

case $1 in
start)
  [ $# -ge 3 ] || usage
  server "$dir" "$3" -- --port "$3" "${@:4}"
  ;;
tls | tls-sentinel)
  [ $# -eq 4 ] || usage
  certificates
  server "$dir" "$3" --tls --cacert "$dir/ca.crt" -a "$4" -- --port 0 --tls-port "$3" --tls-cert-file "$dir/server.crt" \
    --tls-key-file "$dir/server.key" --tls-ca-cert-file "$dir/ca.crt" --tls-auth-clients no --requirepass "$4"
  [ "$1" = tls-sentinel ] || exit 0
  port=$(($3 + 1))
  rm -rf "$dir/1"
  mkdir "$dir/1"
  printf '%s\n' "port 0" "tls-port $port" "bind 127.0.0.1" "dir $dir/1" "tls-cert-file $dir/server.crt" "tls-key-file $dir/server.key" \
    "tls-ca-cert-file $dir/ca.crt" "tls-auth-clients no" "tls-replication yes" "sentinel monitor main 127.0.0.1 $3 1" \
    "sentinel auth-pass main \"$4\"" >"$dir/1/sentinel.conf"
  redis-server "$dir/1/sentinel.conf" --sentinel >>"$dir/1/log" 2>&1 </dev/null &
  echo $! >>"$dir/pids"
  # It takes up the master once that has answered it.
  until redis-cli -p $port --tls --cacert "$dir/ca.crt" sentinel ckquorum main 2>/dev/null | grep -q '^OK'; do sleep 0.05; done
  ;;
cluster | replicated)
  [ $# -eq 3 ] || usage
  nodes=() patience=5000
  [ "$1" = cluster ] || patience=1000
  for i in 0 1 2; do
    port=$(($3 + i))
    # A node that was in a cluster before would not be taken into a new one.
    rm -f "$dir/$i/nodes.conf"
    server "$dir/$i" $port -- --port $port --cluster-enabled yes --cluster-config-file nodes.conf \
      --cluster-node-timeout $patience --repl-diskless-sync-delay 0
    nodes+=("127.0.0.1:$port")
  done
  redis-cli --cluster create "${nodes[@]}" --cluster-replicas 0 --cluster-yes >"$dir/log" 2>&1 ||
    { tail -n 20 "$dir/log" >&2; fail "no cluster in $dir"; }
  for i in 0 1 2; do
    until redis-cli -p $(($3 + i)) cluster info | grep -q cluster_state:ok; do sleep 0.02; done
  done
  [ "$1" = replicated ] || exit 0
  port=$(($3 + 3))
  rm -f "$dir/3/nodes.conf"
  server "$dir/3" $port -- --port $port --cluster-enabled yes --cluster-config-file nodes.conf \
      --cluster-node-timeout $patience --repl-diskless-sync-delay 0
  redis-cli -p $port cluster meet 127.0.0.1 "$3" >>"$dir/log"
  first=$(redis-cli -p "$3" cluster myid)
  until [ "$(redis-cli -p $port cluster replicate "$first" 2>&1)" = OK ]; do sleep 0.02; done
  until redis-cli -p $port info replication | grep -q master_link_status:up; do sleep 0.02; done
  # All masters know of it: they are asked whether it may take over.
  for i in 0 1 2; do
    until redis-cli -p $(($3 + i)) cluster nodes | grep -q "slave $first"; do sleep 0.02; done
  done
  ;;
sentinel)
  [ $# -eq 3 ] || usage
  # What was the master before may have become the replica, and Sentinels keep what they know in their files.
  rm -rf "$dir"/[0-4]
  server "$dir/0" "$3" -- --port "$3"
  server "$dir/1" $(($3 + 1)) -- --port $(($3 + 1)) --replicaof 127.0.0.1 "$3" --repl-diskless-sync-delay 0
  for i in 2 3 4; do
    port=$(($3 + i))
    mkdir -p "$dir/$i"
    printf '%s\n' "port $port" "bind 127.0.0.1" "dir $dir/$i" "sentinel monitor main 127.0.0.1 $3 2" \
      "sentinel down-after-milliseconds main 2000" "sentinel failover-timeout main 10000" >"$dir/$i/sentinel.conf"
    redis-server "$dir/$i/sentinel.conf" --sentinel >>"$dir/$i/log" 2>&1 </dev/null &
    echo $! >>"$dir/pids"
  done
  until redis-cli -p $(($3 + 1)) info replication | grep -q master_link_status:up; do sleep 0.02; done
  # They find each other, and the replica, by what the master tells them.
  for i in 2 3 4; do
    port=$(($3 + i))
    until redis-cli -p $port sentinel ckquorum main | grep -q '3 usable' &&
      redis-cli -p $port sentinel replicas main | grep -q '^slave$'; do sleep 0.05; done
  done
  ;;
stop)
  [ -f "$dir/pids" ] || exit 0
  while read -r pid; do
    kill -KILL "$pid" 2>/dev/null || continue
    while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; do sleep 0.02; done
  done <"$dir/pids"
  rm -f "$dir/pids"
  ;;
*) usage ;;
esac
