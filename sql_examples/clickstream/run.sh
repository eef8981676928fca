#!/usr/bin/env bash
# The clickstream story with its real parts: a Kafka broker, a Redis, Tidemark between them, events coming, features shown.
#   run.sh [RATE [SECONDS]]     RATE events a second (default 2000); SECONDS 0: until Ctrl-C (default)
# Everything is in a temporary folder and stops with this script. scripts/setup.sh demo-kafka has installed what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."
rate=${1:-2000} seconds=${2:-0}
here=sql_examples/clickstream python=.venv-clickstream/bin/python
tidemark=${TIDEMARK_BIN:-target/debug/tidemark}
first=${TIDEMARK_DEMO_PORT:-19192}
broker=$first redis=$((first + 3)) sql=$((first + 4)) http=$((first + 5)) # the broker's controller is at first + 1
folder=$(mktemp -d)
server= generator=

stop() {
  trap - EXIT INT TERM
  for pid in $generator $server; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  tests/services/redis.sh stop "$folder/redis" || true
  tests/services/kafka.sh stop "$folder/kafka" || true
  rm -rf "$folder"
  echo "all of it has stopped"
}
trap stop EXIT
trap 'exit 0' INT TERM

echo "a Kafka broker on 127.0.0.1:$broker, a Redis on 127.0.0.1:$redis …"
tests/services/kafka.sh start "$folder/kafka" $broker
tests/services/redis.sh start "$folder/redis" $redis
"$python" $here/generate.py 127.0.0.1:$broker 0 0
echo "Tidemark on 127.0.0.1:$sql (psql -h 127.0.0.1 -p $sql -U tidemark tidemark), metrics on http://127.0.0.1:$http/metrics …"
"$tidemark" serve --listen 127.0.0.1:$sql --data "$folder/data" --online redis://127.0.0.1:$redis --http 127.0.0.1:$http \
  --online-tick 10ms --log warn &
server=$!
until "$tidemark" sql --url postgres://127.0.0.1:$sql/tidemark - <<<'SELECT 1' >/dev/null 2>&1; do
  kill -0 $server 2>/dev/null || exit 1
  sleep 0.1
done
sed "s/127.0.0.1:19192/127.0.0.1:$broker/" $here/01_sources.sql >"$folder/01_sources.sql"
"$tidemark" sql --url postgres://127.0.0.1:$sql/tidemark "$folder/01_sources.sql" $here/02_views.sql
"$python" $here/generate.py 127.0.0.1:$broker "$rate" "$seconds" &
generator=$!
"$python" $here/watch.py $sql "$seconds"
wait $generator
generator=
# All that was sent is there, as an event or as a dead letter; and Redis has the rows for others.
"$tidemark" sql --url postgres://127.0.0.1:$sql/tidemark - <<'SQL'
FLUSH;
SELECT (SELECT count(*) FROM clicks) AS events, (SELECT count(*) FROM tidemark.dead_letters) AS dead_letters,
       (SELECT partitions FROM tidemark.pipelines WHERE name = 'clicks') AS partitions;
SQL
echo "keys in Redis: $(redis-cli -p $redis dbsize)"
