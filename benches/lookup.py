"""Point lookups: ten features of one key, by pgbench, beside PostgreSQL's primary-key lookup of the same values.

PostgreSQL reads a table that it filled itself, by definition, from the same events; Tidemark evaluates its operator state
at now for every lookup. Simple, extended (parsed each time) and prepared protocol; 1, 4 and 16 clients.
"""

import os
import resource
import tempfile
from pathlib import Path

import events
from extended import Connection
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import Postgres, Tidemark, World

KEYS = number("LOOKUP_KEYS", 100_000)
EVENTS = number("LOOKUP_EVENTS", 5 * KEYS)
SECONDS = number("SECONDS", 3)
ROUNDS = number("ROUNDS", 3)
CLIENTS = [int(c) for c in os.environ.get("BENCH_CLIENTS", "1,4,16").split(",")]
PROTOCOLS = ["prepared", "extended", "simple"]

# 60 keys' worth of events in the long window, 6 in the short one, whatever the sizes.
STEP_US = 36_000
LONG_US = STEP_US * EVENTS // 2
SHORT_US = LONG_US // 10

FEATURES = [("count(*)", "n"), ("sum(price)", "total"), ("avg(price)", "mean"), ("min(price)", "least"), ("max(price)", "most")]
NAMES = [f"{name}_{window}" for window in ("short", "long") for _, name in FEATURES]
# What a server spends on a lookup at least, as Redis does on GET (docs/benchmarks.md, "Ceilings").
SERVER_FLOOR_US = 6.5


def view_sql():
    columns = ", ".join(f"{sql} OVER {w} AS {name}_{w}" for w in ("short", "long") for sql, name in FEATURES)
    return (
        f"CREATE FEATURE VIEW user_features AS SELECT user_id, event_time, {columns} FROM clicks "
        + events.windows(SHORT_US, LONG_US)
    )


def definition_sql():
    """The same values at now, by definition."""
    now = events.last_instant(EVENTS, STEP_US)
    columns = ", ".join(
        f"{sql} FILTER (WHERE event_time >= {now} - INTERVAL '{us} microseconds') AS {name}_{w}"
        for w, us in (("short", SHORT_US), ("long", LONG_US))
        for sql, name in FEATURES
    )
    return f"SELECT user_id, {columns} FROM clicks GROUP BY user_id"


def prepare(world, tidemark, postgres):
    path = world.folder / "clicks.csv"
    events.write_csv(":memory:", path, EVENTS, KEYS, STEP_US)
    tidemark.psql(events.source("clicks"), view_sql())
    tidemark.copy_in("clicks", path)
    postgres.psql(f"CREATE TABLE clicks ({events.COLUMNS})")
    postgres.copy_in("clicks", path)
    postgres.psql(
        f"CREATE TABLE user_features AS {definition_sql()}",
        "ALTER TABLE user_features ADD PRIMARY KEY (user_id)",
        "VACUUM ANALYZE user_features",
    )
    path.unlink()


def check_answers(tidemark, postgres):
    columns = ", ".join(["user_id", *NAMES])
    everything = f"SELECT {columns} FROM user_features ORDER BY user_id"
    check(f"all {KEYS:,} rows", tidemark.psql(everything), postgres.psql(everything))
    sample = [key * 7919 % (KEYS + 10) for key in range(500)]
    one = f"SELECT {', '.join(NAMES)} FROM user_features WHERE user_id = "
    simple = [one + str(key) for key in sample]
    check("500 lookups by simple queries", tidemark.psql(*simple), postgres.psql(*simple))
    answers = []
    for server in (tidemark, postgres):
        connection = Connection(server.port, server.user, server.database)
        connection.prepare("lookup", one + "$1")
        answers.append([connection.execute("lookup", [key]) for key in sample])
        connection.close()
    check("500 lookups by a prepared statement", *answers)
    several = f"SELECT {columns} FROM user_features WHERE user_id = ANY (ARRAY{sample[:50]}) ORDER BY user_id"
    check("50 keys by = ANY", tidemark.psql(several), postgres.psql(several))


def contender(server, script, clients, protocol, logs):
    def run():
        client_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Stopwatch(server.cpu_seconds) as watch:
            rate, done, latencies = server.pgbench(script, clients, protocol, SECONDS, Path(logs) / "latency")
        client_after = resource.getrusage(resource.RUSAGE_CHILDREN)
        client_cpu = sum(getattr(client_after, f) - getattr(client_before, f) for f in ("ru_utime", "ru_stime"))
        at = lambda share: latencies[min(int(share * len(latencies)), len(latencies) - 1)] if latencies else 0.0
        return {
            "rate": rate,
            "p50": at(0.5),
            "p99": at(0.99),
            "server_us": watch.cpu / done * 1e6,
            "client_us": client_cpu / done * 1e6,
        }

    return run


def main():
    with World(Tidemark, Postgres) as world, tempfile.TemporaryDirectory(dir=world.folder) as logs:
        tidemark, postgres = world.servers
        print(f"{tidemark.version}\n{postgres.version}")
        prepare(world, tidemark, postgres)
        check_answers(tidemark, postgres)
        script = world.folder / "lookup.sql"
        script.write_text(
            f"\\set key random(0, {KEYS - 1})\nSELECT {', '.join(NAMES)} FROM user_features WHERE user_id = :key;\n"
        )
        rows = []
        for protocol in PROTOCOLS:
            for clients in CLIENTS:
                contenders = {s.name: contender(s, script, clients, protocol, logs) for s in (postgres, tidemark)}
                results = interleaved(ROUNDS, contenders)
                theirs, ours = results[postgres.name], results[tidemark.name]
                # With one client nobody is busy: a lookup is wake-ups, and the ceiling is Redis's share of them.
                if clients == 1:
                    ceiling = 1.5 * median(theirs, "rate")
                else:
                    ceiling = os.cpu_count() / (median(theirs, "client_us") + SERVER_FLOOR_US) * 1e6
                rows.append(
                    [
                        protocol,
                        clients,
                        f"{median(ours, 'rate'):,.0f}",
                        f"{median(theirs, 'rate'):,.0f}",
                        f"**{median(ours, 'rate') / median(theirs, 'rate'):.2f}**",
                        f"{ceiling / median(theirs, 'rate'):.1f}",
                        f"{median(ours, 'p50'):.3f} / {median(ours, 'p99'):.3f}",
                        f"{median(theirs, 'p50'):.3f} / {median(theirs, 'p99'):.3f}",
                        f"{median(ours, 'server_us'):.1f} / {median(theirs, 'server_us'):.1f}",
                        f"{spread(ours, 'rate'):.2f} / {spread(theirs, 'rate'):.2f}",
                    ]
                )
        print(f"\n### lookup: {KEYS:,} keys, {EVENTS:,} events, 10 features a row, {SECONDS} s × {ROUNDS} rounds\n")
        table(
            [
                "protocol", "clients", "Tidemark /s", "PostgreSQL /s", "ratio", "ceiling (est.)", "p50 / p99 ms",
                "PostgreSQL's", "server CPU µs (T / PG)", "spread (T / PG)",
            ],
            rows,
        )  # fmt: skip


if __name__ == "__main__":
    main()
