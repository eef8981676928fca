"""A topic of JSON to four features over two windows, 100,000 keys, into Redis and Iceberg; beside a bare loop over the same topic.

The loop (bare.rs, `load`) takes batches out of librdkafka, has serde_json make a struct, and writes four fields by HSET in pipelines,
on two threads: no windows, no history, no log. Broker and Redis share the cores with both. The events are in the topic before either
begins; event time spans more than three of the longest window. Tidemark's time ends when every event is visible and in Redis and every
step is committed to Iceberg, from a start with nothing: the source is made in that time.
"""

import time

import duck
import stream
from bare import Kafka, Redis, metrics
from measure import Stopwatch, check, interleaved, median, number, process_cpu_seconds, spread, table
from servers import Tidemark, World, free_port
from windows import numbers

ROWS = number("KAFKA_ROWS", 2_000_000)
KEYS = number("KAFKA_KEYS", 100_000)
PARTITIONS = number("KAFKA_PARTITIONS", 4)
ROUNDS = number("ROUNDS", 3)
STEP_MS = 1
# 0.6 and 6 events of a key, as in windows.
SHORT_MS, LONG_MS = KEYS * STEP_MS * 6 // 10, KEYS * STEP_MS * 6


def source(topic, address, clock="event", slack_ms=1):
    return f"""CREATE SOURCE clicks ({stream.COLUMNS}, WATERMARK FOR event_time AS event_time - INTERVAL '{slack_ms} milliseconds')
        WITH (connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{address}', clock = '{clock}', json.timestamp = 'ms')
        FORMAT PLAIN ENCODE JSON"""


def view(short_ms, long_ms):
    return f"CREATE FEATURE VIEW recent AS {stream.select_sql('clicks', short_ms, long_ms)}"


def serving(folder, redis, *options):
    """A fresh server in a fresh folder, that writes to Redis; with the port of its metrics."""
    folder.mkdir(exist_ok=True)
    http = free_port()
    tidemark = Tidemark(folder, ("--http", f"127.0.0.1:{http}", "--online", redis.url, *options))
    tidemark.http = http
    return tidemark


def wait_until_level(tidemark):
    """Redis has what the lookups show."""
    while metrics(tidemark.http).get('tidemark_view_online_keys_waiting{view="recent"}', 0) > 0:
        time.sleep(0.005)


def ingest(world, kafka, redis, folder):
    """One load of the whole topic. Returns its times and what has to be compared."""
    redis.send([("FLUSHALL",)])
    tidemark = serving(world.folder / folder, redis)
    try:
        parts = {"redis": redis_pid(redis), "kafka": kafka_pid(kafka)}
        before = {name: process_cpu_seconds(pid) for name, pid in parts.items()}
        with Stopwatch(tidemark.cpu_seconds) as watch:
            begun = time.perf_counter()
            tidemark.psql(source("clicks", kafka.address), view(SHORT_MS, LONG_MS), "FLUSH")
            visible = time.perf_counter() - begun
            wait_until_level(tidemark)
            online, online_cpu = time.perf_counter() - begun, tidemark.cpu_seconds() - watch.cpu_before
            tidemark.psql(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {stream.instant(ROWS, STEP_MS)}", "CHECKPOINT")
        others = {name: process_cpu_seconds(pid) - before[name] for name, pid in parts.items()}
        return {
            "wall": watch.wall,
            "cpu": watch.cpu,
            "visible": visible,
            "online": online,
            "online_cpu": online_cpu,
            "others": others["redis"] + others["kafka"],
            "rows": int(tidemark.rows("SELECT count(*) FROM clicks")[0][0]),
            "totals": numbers(tidemark.rows(stream.totals_of_history("recent"))[0]),
            "version": tidemark.version,
        }
    finally:
        tidemark.stop()


def redis_pid(redis):
    return int(redis.info("server")["process_id"])


def kafka_pid(kafka):
    return int((kafka.folder / "pid").read_text())


def load(kafka, redis, events, partitions):
    """The bare loop over the whole topic."""
    redis.send([("FLUSHALL",)])
    parts = [redis_pid(redis), kafka_pid(kafka)]
    before = sum(process_cpu_seconds(pid) for pid in parts)
    lines, cpu = kafka.run("load", "clicks", partitions, events, redis.url)
    others = sum(process_cpu_seconds(pid) for pid in parts) - before
    count, users, prices, wall = map(float, lines[0])
    newest = redis.send([("HGET", "bare:0", "most_long"), ("DBSIZE",)])
    return {"wall": wall, "cpu": cpu, "others": others, "sums": [count, users, prices], "newest": [float(newest[0]), newest[1]]}


def main():
    with World() as world:
        redis = Redis(world.folder)
        world.servers.append(redis)
        kafka = Kafka(world.folder)
        world.servers.append(kafka)
        kafka.run("topic", "clicks", PARTITIONS)
        kafka.run("fill", "clicks", PARTITIONS, 0, ROWS, KEYS, 0, STEP_MS)
        events = stream.rows_sql(ROWS, KEYS, STEP_MS)
        rounds = iter(range(1000))
        results = interleaved(
            ROUNDS,
            {
                "tidemark": lambda: ingest(world, kafka, redis, f"round{next(rounds)}"),
                "bare": lambda: load(kafka, redis, ROWS, PARTITIONS),
            },
        )
        ours, bare = results["tidemark"], results["bare"]
        print(f"{ours[0]['version']}\nRedis {redis.version}\n{duck.version()}")
        query = f"SELECT {stream.TOTALS} FROM ({stream.select_sql(f'({events})', SHORT_MS, LONG_MS)})"
        expected = numbers(duck.execute(":memory:", query)[0])
        for result in ours:
            check("the events taken", result["rows"], ROWS)
            check("the sums of the features at all events, out of history", result["totals"], expected)
        sums = duck.execute(":memory:", f"SELECT count(*), sum(user_id), sum(price) FROM ({events})")[0]
        last = duck.execute(
            ":memory:",
            f"SELECT arg_max(price, event_time) FILTER (WHERE user_id = 0), count(DISTINCT user_id) FROM ({events})",
        )[0]
        for result in bare:
            check("what the bare loop read", result["sums"], numbers(sums))
            check("what the bare loop wrote", result["newest"], [float(last[0]), last[1]])

        print(f"\n### kafka: {ROWS:,} events in {PARTITIONS} partitions, {KEYS:,} keys, {ROUNDS} rounds; must ≥ 1.0 ×, aim ≥ 3 × the bare loop\n")
        base = median(bare, "wall")
        lines = [
            ("Tidemark: visible, in Redis and in Iceberg", ours, "wall", "cpu"),
            ("Tidemark: visible and in Redis", ours, "online", "online_cpu"),
            ("Tidemark: visible", ours, "visible", None),
            ("bare loop: HSET, no windows, no history", bare, "wall", "cpu"),
        ]
        table(["", "events/s", "wall s", "its CPU µs an event", "broker's and Redis' CPU µs", "ratio", "spread"], [
            [
                what,
                f"{ROWS / median(results, wall):,.0f}",
                f"{median(results, wall):.2f}",
                f"{median(results, cpu) / ROWS * 1e6:.2f}" if cpu else "",
                f"{median(results, 'others') / ROWS * 1e6:.2f}" if wall == "wall" else "",
                f"**{base / median(results, wall):.2f}**",
                f"{spread(results, wall):.2f}",
            ]
            for what, results, wall, cpu in lines
        ])
        cpu = median(ours, "cpu") / ROWS
        print(f"\nengine capacity, if the two cores were the server's alone: {2 / cpu:,.0f} events/s (aim 1,000,000)")


if __name__ == "__main__":
    main()
