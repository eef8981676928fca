"""More than one key and more than one view in a lookup, beside PostgreSQL on the same values: 10 and 100 keys by an `IN` list
(PostgreSQL reads it as `= ANY`, and pgbench's parameters have no array type); five views of ten features joined by one key; and one
key at a fixed rate, half of what PostgreSQL can do at most, while Tidemark takes in events at half of its own greatest rate and
PostgreSQL is idle. Redis has the same values too: a text of ten features for each key and view, read by MGET, and for one key a hash,
read by HMGET (`redis-benchmark`, as many clients).

The events, the views' definition and PostgreSQL's tables are those of `lookup`, once for each of five windows.
"""

import math
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import events
from bare import Redis
from extended import Connection
from lookup import FEATURES
from measure import check, interleaved, median, number, spread, table
from servers import Postgres, Tidemark, World

KEYS = number("KEYS_KEYS", 20_000)
EVENTS = number("KEYS_EVENTS", 5 * KEYS)
SECONDS = number("SECONDS", 3)
ROUNDS = number("ROUNDS", 3)
CLIENTS = number("KEYS_CLIENTS", 8)
VIEWS = 5
STEP_US = 36_000
LENGTHS_US = [STEP_US * EVENTS // 2 // (i + 1) for i in range(VIEWS)]
# What comes in during the fixed rate: a file of so many events is copied again and again, each time later.
PIECE = 2_000


def names(view):
    return [f"{name}_{window}{view}" for window in ("short", "long") for _, name in FEATURES]


def select_sql(view):
    columns = ", ".join(f"{sql} OVER {w} AS {name}_{w}{view}" for w in ("short", "long") for sql, name in FEATURES)
    return f"SELECT user_id, event_time, {columns} FROM clicks " + events.windows(LENGTHS_US[view] // 10, LENGTHS_US[view])


def definition_sql(view):
    now = events.last_instant(EVENTS, STEP_US)
    columns = ", ".join(
        f"{sql} FILTER (WHERE event_time >= {now} - INTERVAL '{us} microseconds') AS {name}_{w}{view}"
        for w, us in (("short", LENGTHS_US[view] // 10), ("long", LENGTHS_US[view]))
        for sql, name in FEATURES
    )
    return f"SELECT user_id, {columns} FROM clicks GROUP BY user_id"


SERVICE = (
    "CREATE VIEW service AS SELECT v0.user_id, "
    + ", ".join(f"v{i}.{name}" for i in range(VIEWS) for name in names(i))
    + " FROM v0"
    + "".join(f" JOIN v{i} ON v{i}.user_id = v0.user_id" for i in range(1, VIEWS))
)


def prepare(world, tidemark, postgres):
    path = world.folder / "clicks.csv"
    events.write_csv(":memory:", path, EVENTS, KEYS, STEP_US)
    tidemark.psql(events.source("clicks"), *(f"CREATE FEATURE VIEW v{i} AS {select_sql(i)}" for i in range(VIEWS)), SERVICE)
    tidemark.copy_in("clicks", path)
    postgres.psql(f"CREATE TABLE clicks ({events.COLUMNS})")
    postgres.copy_in("clicks", path)
    for i in range(VIEWS):
        postgres.psql(f"CREATE TABLE v{i} AS {definition_sql(i)}", f"ALTER TABLE v{i} ADD PRIMARY KEY (user_id)")
    postgres.psql("VACUUM ANALYZE", SERVICE)
    path.unlink()


def fill_redis(redis, tidemark):
    """The values that Tidemark shows: `v0:7` is a text, `h:7` a hash."""
    for i in range(VIEWS):
        rows = tidemark.rows(f"SELECT {', '.join(['user_id', *names(i)])} FROM v{i}")
        for begin in range(0, len(rows), 1000):
            redis.send([("SET", f"v{i}:{int(key):012}", ",".join(cells)) for key, *cells in rows[begin : begin + 1000]])
            if i == 0:
                hashes = [(key, [x for pair in zip(names(0), cells) for x in pair]) for key, *cells in rows[begin : begin + 1000]]
                redis.send([("HSET", f"h:{int(key):012}", *pairs) for key, pairs in hashes])


def redis_commands():
    """By what they measure; `__rand_int__` is a key of twelve digits, another each time."""
    mget = lambda count: ["MGET", *["v0:__rand_int__"] * count]
    return {
        "10 keys": mget(10),
        "100 keys": mget(100),
        # Five keys of one entity would be one number five times, which redis-benchmark does not do: five of any.
        f"{VIEWS} views × 10 features": ["MGET", *[f"v{i}:__rand_int__" for i in range(VIEWS)]],
        "one key": ["HMGET", "h:__rand_int__", *names(0)],
    }


def redis_contender(redis, command):
    def run():
        # Until it has taken about as long as the others.
        count = 20_000
        while True:
            options = ["-h", "127.0.0.1", "-p", str(redis.port), "-c", str(CLIENTS), "-n", str(count), "-r", str(KEYS), "--csv"]
            done = subprocess.run(["redis-benchmark", *options, *command], capture_output=True, text=True)
            rate = re.search(r'^"[^"]*","([0-9.]+)"', done.stdout.splitlines()[-1])
            if done.returncode != 0 or not rate:
                raise SystemExit(f"redis-benchmark: {done.stdout}{done.stderr}")
            if count >= SECONDS * float(rate.group(1)) * 0.8:
                return {"rate": float(rate.group(1))}
            count = int(SECONDS * float(rate.group(1)))

    return run


def scripts(folder):
    """pgbench's, by what they measure."""
    made = {}
    for count in (10, 100):
        sets = "".join(f"\\set k{i} random(0, {KEYS - 1})\n" for i in range(count))
        keys = ", ".join(f":k{i}" for i in range(count))
        made[f"{count} keys"] = f"{sets}SELECT user_id, {', '.join(names(0))} FROM v0 WHERE user_id IN ({keys});\n"
    features = ", ".join(name for i in range(VIEWS) for name in names(i))
    one = f"\\set k random(0, {KEYS - 1})\n"
    made[f"{VIEWS} views × 10 features"] = f"{one}SELECT {features} FROM service WHERE user_id = :k;\n"
    made["one key"] = f"{one}SELECT {', '.join(names(0))} FROM v0 WHERE user_id = :k;\n"
    paths = {}
    for name, text in made.items():
        paths[name] = folder / f"{len(paths)}.sql"
        paths[name].write_text(text)
    return paths


def check_answers(tidemark, postgres):
    several = [key * 7919 % (KEYS + 10) for key in range(100)]
    columns = ", ".join(["user_id", *names(0)])
    sql = f"SELECT {columns} FROM v0 WHERE user_id = ANY (ARRAY{several}) ORDER BY user_id"
    check("100 keys by = ANY", tidemark.psql(sql), postgres.psql(sql))
    features = ", ".join(name for i in range(VIEWS) for name in names(i))
    answers = []
    for server in (tidemark, postgres):
        connection = Connection(server.port, server.user, server.database)
        connection.prepare("service", f"SELECT {features} FROM service WHERE user_id = $1")
        answers.append([connection.execute("service", [key]) for key in several])
        connection.close()
    check(f"100 lookups of {VIEWS} views", *answers)


def at(latencies, share):
    return latencies[min(math.floor(share * len(latencies)), len(latencies) - 1)] if latencies else 0.0


def contender(server, script, logs):
    def run():
        rate, _, latencies = server.pgbench(script, CLIENTS, "prepared", SECONDS, Path(logs) / "latency")
        return {"rate": rate, "p50": at(latencies, 0.5), "p99": at(latencies, 0.99)}

    return run


def throughput(tidemark, postgres, redis, paths, logs):
    rows = []
    for name, script in paths.items():
        contenders = {s.name: contender(s, script, logs) for s in (postgres, tidemark)}
        contenders["Redis"] = redis_contender(redis, redis_commands()[name])
        results = interleaved(ROUNDS, contenders)
        theirs, ours = results[postgres.name], results[tidemark.name]
        rows.append(
            [
                name,
                f"{median(ours, 'rate'):,.0f}",
                f"{median(theirs, 'rate'):,.0f}",
                f"**{median(ours, 'rate') / median(theirs, 'rate'):.2f}**",
                f"{median(results['Redis'], 'rate'):,.0f}",
                f"{median(ours, 'rate') / median(results['Redis'], 'rate'):.2f}",
                f"{median(ours, 'p50'):.3f} / {median(ours, 'p99'):.3f}",
                f"{median(theirs, 'p50'):.3f} / {median(theirs, 'p99'):.3f}",
                f"{spread(ours, 'rate'):.2f} / {spread(theirs, 'rate'):.2f}",
            ]
        )
        if name == "one key":
            greatest = median(theirs, "rate")
    print(f"\n### keys: {KEYS:,} keys, prepared, {CLIENTS} clients, {SECONDS} s × {ROUNDS} rounds\n")
    print("must: ≥1.5× PostgreSQL for several keys, ≥2× for five views; aim: ≥3×, ≥5×, and ≥1× Redis for several keys\n")
    table(["lookup", "Tidemark /s", "PostgreSQL /s", "ratio", "Redis /s", "ratio", "p50 / p99 ms", "PostgreSQL's", "spread (T / PG)"], rows)
    return greatest


class Ingest:
    """Copies events of now, one piece after the other, as fast as it can or with pauses, in a thread and psql of its own."""

    def __init__(self, tidemark, folder):
        self.tidemark, self.folder, self.pieces, self.begun_at = tidemark, folder, 0, EVENTS

    def piece(self):
        """A file of the next events: later than all before, for random keys."""
        path = self.folder / "piece.csv"
        first, self.begun_at = self.begun_at, self.begun_at + PIECE
        with open(path, "w", encoding="utf-8") as file:
            file.write("user_id,item_id,price,event_time\n")
            for i in range(first, first + PIECE):
                us = i * STEP_US
                instant = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(1_767_225_600 + us // 1_000_000))
                file.write(f"{i * 7919 % KEYS},{i % 1000},{i % 4096 / 16},{instant}.{us % 1_000_000:06}+00\n")
        return path

    def once(self):
        """Seconds that the server takes for a piece; making it is not in them."""
        path = self.piece()
        begun = time.perf_counter()
        self.tidemark.copy_in("clicks", path)
        self.pieces += 1
        return time.perf_counter() - begun

    def at_half(self, stop):
        """For each piece a pause as long as it took: half of what it can do."""
        while not stop.is_set():
            time.sleep(self.once())

    def __enter__(self):
        self.stop, self.before = threading.Event(), self.pieces
        self.thread = threading.Thread(target=self.at_half, args=(self.stop,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def paced(server, script, rate, logs):
    """pgbench at a fixed rate: latencies count from when a transaction was due, so one that waits for another counts whole."""
    prefix = Path(logs) / "paced"
    options = ["-n", "-f", str(script), "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS), "-R", f"{rate:.0f}"]
    server.client("pgbench", *options, "--random-seed=42", "-l", f"--log-prefix={prefix}", server.database)
    latencies = []
    for log in prefix.parent.glob(prefix.name + ".*"):
        latencies += [int(line.split()[2]) / 1000 for line in log.read_text().splitlines()]
        log.unlink()
    latencies.sort()
    return {"rate": len(latencies) / SECONDS, "p50": at(latencies, 0.5), "p99": at(latencies, 0.99)}


def fixed_rate(world, tidemark, postgres, script, greatest, logs):
    ingest = Ingest(tidemark, world.folder)
    rate = greatest / 2
    events_per_second = []

    def ours():
        with ingest:
            begun = time.perf_counter()
            result = paced(tidemark, script, rate, logs)
            events_per_second.append((ingest.pieces - ingest.before) * PIECE / (time.perf_counter() - begun))
        return result

    results = interleaved(ROUNDS, {postgres.name: lambda: paced(postgres, script, rate, logs), tidemark.name: ours})
    theirs, own = results[postgres.name], results[tidemark.name]
    print(f"\n### one key at {rate:,.0f}/s, Tidemark taking in events at half of its rate, PostgreSQL idle\n")
    print("must: p99 ≤2× PostgreSQL's; aim: ≤1× and <1 ms\n")
    table(
        ["", "asked /s", "p50 ms", "p99 ms", "events taken in /s"],
        [
            ["Tidemark", f"{median(own, 'rate'):,.0f}", f"{median(own, 'p50'):.3f}", f"**{median(own, 'p99'):.3f}**",
             f"{sorted(events_per_second)[len(events_per_second) // 2]:,.0f}"],
            ["PostgreSQL", f"{median(theirs, 'rate'):,.0f}", f"{median(theirs, 'p50'):.3f}", f"{median(theirs, 'p99'):.3f}", "0"],
        ],
    )  # fmt: skip
    counted = tidemark.rows("SELECT count(*) FROM clicks")[0][0]
    check("the events taken in", int(counted), EVENTS + ingest.pieces * PIECE)


def main():
    with World(Tidemark, Postgres) as world, tempfile.TemporaryDirectory(dir=world.folder) as logs:
        tidemark, postgres = world.servers
        print(f"{tidemark.version}\n{postgres.version}")
        prepare(world, tidemark, postgres)
        check_answers(tidemark, postgres)
        redis = Redis(world.folder)
        world.servers.append(redis)
        fill_redis(redis, tidemark)
        paths = scripts(world.folder)
        greatest = throughput(tidemark, postgres, redis, paths, logs)
        fixed_rate(world, tidemark, postgres, paths["one key"], greatest, logs)


if __name__ == "__main__":
    main()
