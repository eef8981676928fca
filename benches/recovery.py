"""`kill -9` at a million keys while a topic is read as fast as it can be, at least half a checkpoint interval after the last
checkpoint: until the first correct lookup, and until all is caught up. Beside it `redis-server`, which loads an RDB file with the
same values as hashes.

A topic is taken whole; its event time spans three of the longest window. One more event, of a key of its own, is what the first lookup
is asked for: that key has no later event, and its long window holds until the end, so the answer is known. Then more events
come, and the server is killed among them. Caught up is when FLUSH returns: every event that the topic has, the backlog included, is visible.
After it the sums of the features at all events, out of history, must be DuckDB's: each event exactly once.
"""

import subprocess
import time

import duck
import kafka as whole
import stream
from bare import Connection, Kafka, Redis, metrics, taken
from measure import check, interleaved, median, number, spread, table
from servers import World, free_port
from windows import numbers

KEYS = number("RECOVERY_KEYS", 1_000_000)
INTERVAL_S = number("RECOVERY_INTERVAL", 10)
PARTITIONS = number("KAFKA_PARTITIONS", 4)
ROUNDS = number("ROUNDS", 3)
# 4 events of a key in the long window, 12 in all; then nearly another window of events at full speed.
LONG_MS = KEYS * 4
SHORT_MS = LONG_MS // 10
BASE = LONG_MS * 3
MORE = LONG_MS * 9 // 10
PROBE = KEYS
CHECKPOINTS = "tidemark_checkpoint_duration_seconds_count"
PATIENCE_S = 600
BATCH = 1000


def events():
    """All that is sent: those of stream.py, with the probe's in place of the one after the first part."""
    rest = f"SELECT {PROBE}, ({BASE}::BIGINT * {stream.PRICE_FACTOR} % 4096)::DOUBLE / 16, {stream.instant(BASE, 1)}"
    return f"SELECT * FROM ({stream.rows_sql(BASE + MORE, KEYS, 1)}) WHERE event_time <> {stream.instant(BASE, 1)} UNION ALL {rest}"


def wait_for(what, condition):
    begun = time.perf_counter()
    while True:
        value = condition()
        if value:
            return value
        if time.perf_counter() - begun > PATIENCE_S:
            raise SystemExit(f"benchmark stopped: {what} took more than {PATIENCE_S} s")
        time.sleep(0.002)


def count(tidemark):
    return int(tidemark.rows("SELECT events FROM tidemark.pipelines WHERE name = 'clicks'")[0][0])


def lookup(tidemark):
    """The probe's long features, or None while nobody answers."""
    options = ("-X", "-q", "--csv", "-t", "-d", tidemark.database, "-c", f"SELECT total_long, most_long FROM recent WHERE user_id = {PROBE}")
    command = ["psql", "-h", "127.0.0.1", "-p", str(tidemark.port), "-U", tidemark.user, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def ours(world, kafka, redis, name, values):
    redis.send([("FLUSHALL",)])
    kafka.run("topic", name, PARTITIONS)
    kafka.run("fill", name, PARTITIONS, 0, BASE, KEYS, 0, 1)
    kafka.run("fill", name, PARTITIONS, BASE, 1, 1, PROBE, 1)
    options = ("--checkpoint-interval", f"{INTERVAL_S}s")
    tidemark = whole.serving(world.folder / name, redis, *options)
    filling = None
    try:
        # Partitions are read side by side: none may be late because another is ahead.
        tidemark.psql(whole.source(name, kafka.address), whole.view(SHORT_MS, LONG_MS), "FLUSH")
        price = numbers(duck.execute(":memory:", f"SELECT price FROM ({events()}) WHERE user_id = {PROBE}")[0])[0]
        expected = [price, price]
        check("the probe before the kill", numbers(lookup(tidemark).split(",")), expected)
        if not values:
            values += tidemark.rows("SELECT user_id, n, total, total_long, most_long FROM recent")
        # Just after a checkpoint full ingest begins, and half an interval later it ends by force.
        before = metrics(tidemark.http)[CHECKPOINTS]
        wait_for("a checkpoint", lambda: metrics(tidemark.http)[CHECKPOINTS] > before)
        checkpoint = time.perf_counter()
        filling = kafka.start("fill", name, PARTITIONS, BASE + 1, MORE - 1, KEYS, 0, 1)
        time.sleep(INTERVAL_S * 0.5)
        after, read = metrics(tidemark.http)[CHECKPOINTS], count(tidemark)
        age = time.perf_counter() - checkpoint
        tidemark.process.kill()
        tidemark.process.wait()
        if after != before + 1 or read >= BASE + MORE or read == BASE + 1:
            raise SystemExit(
                f"benchmark stopped: {read - BASE - 1:,} of {MORE - 1:,} events were read at the kill, {after - before:.0f} checkpoints "
                "were made; it must come amidst them, after one (BENCH_RECOVERY_KEYS, BENCH_RECOVERY_INTERVAL)"
            )
        tidemark.stop()
        # As Tidemark() waits for the port, the clock begins before it.
        begun = time.perf_counter()
        tidemark = whole.serving(world.folder / name, redis, *options)
        wait_for("the first lookup", lambda: numbers((lookup(tidemark) or "0").split(",")) == expected)
        first = time.perf_counter() - begun
        filling.wait()
        tidemark.psql("FLUSH")
        caught_up = time.perf_counter() - begun
        tidemark.psql(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {stream.instant(BASE + MORE, 1)}", "CHECKPOINT")
        totals = numbers(tidemark.rows(stream.totals_of_history("recent"))[0])
        return {"first": first, "all": caught_up, "age": age, "read": read - BASE - 1, "totals": totals, "version": tidemark.version}
    finally:
        if filling is not None:
            filling.kill()
            filling.wait()
        tidemark.stop()


class Rdb:
    """A Redis that keeps its data in a file."""

    def __init__(self, folder):
        self.folder, self.port = folder / "rdb", free_port()
        self.folder.mkdir(exist_ok=True)
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.connection = wait_for("a start of Redis", self.connect)

    def connect(self):
        return Connection(self.port) if taken(self.port) else None

    def stop(self):
        self.process.kill()
        self.process.wait()


def by_redis(world, values):
    rdb = Rdb(world.folder)
    try:
        if not (rdb.folder / "dump.rdb").exists():
            for begin in range(0, len(values), BATCH):
                rdb.connection.send(
                    [
                        ("HSET", f"recent:{key}", "n", n, "total", total, "total_long", total_long, "most_long", most_long)
                        for key, n, total, total_long, most_long in values[begin : begin + BATCH]
                    ]
                )
            rdb.connection.send([("SAVE",)])
    finally:
        rdb.stop()
    last = values[-1]
    begun = time.perf_counter()
    rdb = Rdb(world.folder)
    try:

        def answer():
            try:
                return rdb.connection.send([("HGET", f"recent:{last[0]}", "most_long"), ("DBSIZE",)])
            except SystemExit as loading:
                # While it loads, every command is an error.
                if "LOADING" not in str(loading):
                    raise
                rdb.connection = rdb.connect()
                return None

        found = wait_for("the load of the RDB file", answer)
        taken_s = time.perf_counter() - begun
        check("what Redis has loaded", [found[0].decode(), int(found[1])], [last[4], len(values)])
        return {"all": taken_s}
    finally:
        rdb.stop()


def main():
    with World() as world:
        redis = Redis(world.folder)
        world.servers.append(redis)
        kafka = Kafka(world.folder)
        world.servers.append(kafka)
        values = []
        names = (f"round{i}" for i in range(1000))
        contenders = {"tidemark": lambda: ours(world, kafka, redis, next(names), values), "redis": lambda: by_redis(world, values)}
        results = interleaved(ROUNDS, contenders)
        mine, rdb = results["tidemark"], results["redis"]
        print(f"{mine[0]['version']}\nRedis {redis.version}\n{duck.version()}")
        query = f"SELECT {stream.TOTALS} FROM ({stream.select_sql(f'({events()})', SHORT_MS, LONG_MS)})"
        expected = numbers(duck.execute(":memory:", query)[0])
        for result in mine:
            check("the sums of the features at all events, out of history", result["totals"], expected)
        print(f"\n### recovery: {KEYS:,} keys, checkpoints every {INTERVAL_S} s, {ROUNDS} rounds; must ≤ 3 ×, aim ≤ 1 × and first < 1 s\n")
        base = median(rdb, "all")
        table(["", "s", "ratio", "spread"], [
            [what, f"{median(side, field):.2f}", f"**{median(side, field) / base:.2f}**", f"{spread(side, field):.2f}"]
            for what, side, field in (
                ("Tidemark: first correct lookup", mine, "first"),
                ("Tidemark: caught up, with what came meanwhile", mine, "all"),
                (f"redis-server: an RDB file of {len(values):,} hashes", rdb, "all"),
            )
        ])
        for result in mine:
            print(f"killed {result['age']:.1f} s after a checkpoint, {result['read']:,} events since the last pause")


if __name__ == "__main__":
    main()
