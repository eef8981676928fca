"""From the start of the process to the first answered lookup: with nothing in it, and with a thousand feature views over a source of
some events, stopped in order before; beside PostgreSQL with as many views, from `pg_ctl start` on.

A client connects and asks as soon as the port is open; a lookup waits until its own view is back, and that counts.
"""

import struct
import subprocess
import time

import events
from extended import Connection
from measure import check, interleaved, median, number, spread, table
from servers import ROOT, Postgres, Tidemark, World

VIEWS = number("STARTUP_VIEWS", 1_000)
EVENTS = number("STARTUP_EVENTS", 10_000)
ROUNDS = number("ROUNDS", 5)
KEYS = 100
STEP_US = 36_000
BATCH = 100
KEY = 7


def first_answer(server, sql, begun):
    """Seconds until it is there, and what it is."""
    while True:
        try:
            connection = Connection(server.port, server.user, server.database)
        # It is not there, or leaves in the middle of its greeting.
        except (ConnectionError, struct.error):
            if time.perf_counter() - begun > 120:
                raise SystemExit(f"{server.name} does not answer") from None
            time.sleep(0.001)
            continue
        except SystemExit:
            # PostgreSQL is there and says that it is starting up.
            time.sleep(0.001)
            continue
        connection.send((b"Q", sql.encode() + b"\0"))
        rows = connection.until_ready()
        took = time.perf_counter() - begun
        connection.close()
        return took, rows


def tidemark_starts(tidemark, sql):
    def run():
        tidemark.terminate()
        begun = time.perf_counter()
        tidemark.launch()
        took, rows = first_answer(tidemark, sql, begun)
        return {"ms": took * 1000, "rows": rows}

    return run


def postgres_starts(postgres, sql):
    def run():
        postgres.script("stop", postgres.folder)
        begun = time.perf_counter()
        started = subprocess.Popen([ROOT / "tests/services/postgres.sh", "start", str(postgres.folder), str(postgres.port)])
        took, rows = first_answer(postgres, sql, begun)
        started.wait()
        return {"ms": took * 1000, "rows": rows}

    return run


def fill(world, tidemark, postgres):
    path = world.folder / "clicks.csv"
    events.write_csv(":memory:", path, EVENTS, KEYS, STEP_US)
    tidemark.psql(events.source("clicks"))
    tidemark.copy_in("clicks", path)
    postgres.psql(f"CREATE TABLE clicks ({events.COLUMNS})")
    postgres.copy_in("clicks", path)
    statements = [
        f"CREATE FEATURE VIEW v{i} AS SELECT user_id, event_time, count(*) OVER w AS n FROM clicks "
        f"WINDOW w AS (PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '{i + 1} hours' PRECEDING AND CURRENT ROW)"
        for i in range(VIEWS)
    ]
    for begin in range(0, VIEWS, BATCH):
        tidemark.psql(*statements[begin : begin + BATCH])
    now = events.last_instant(EVENTS, STEP_US)
    views = [
        f"CREATE VIEW v{i} AS SELECT user_id, count(*) FILTER (WHERE event_time >= {now} - INTERVAL '{i + 1} hours') AS n "
        "FROM clicks GROUP BY user_id"
        for i in range(VIEWS)
    ]
    for begin in range(0, VIEWS, BATCH):
        postgres.psql(*views[begin : begin + BATCH])
    postgres.psql("CREATE INDEX ON clicks (user_id)", "VACUUM ANALYZE")
    path.unlink()


def measured(tidemark, postgres, what, sql):
    results = interleaved(ROUNDS, {postgres.name: postgres_starts(postgres, sql), tidemark.name: tidemark_starts(tidemark, sql)})
    theirs, ours = results[postgres.name], results[tidemark.name]
    check(f"the first answers with {what}", [r["rows"] for r in ours], [r["rows"] for r in theirs])
    ratio = median(ours, "ms") / median(theirs, "ms")
    spreads = f"{spread(ours, 'ms'):.2f} / {spread(theirs, 'ms'):.2f}"
    return [what, f"**{median(ours, 'ms'):.0f}**", f"{median(theirs, 'ms'):.0f}", f"{ratio:.2f}", spreads]


def main():
    with World(Tidemark, Postgres) as world:
        tidemark, postgres = world.servers
        print(f"{tidemark.version}\n{postgres.version}")
        rows = [measured(tidemark, postgres, "nothing", "SELECT 1")]
        fill(world, tidemark, postgres)
        rows.append(measured(tidemark, postgres, f"{VIEWS:,} views", f"SELECT n FROM v{VIEWS // 2} WHERE user_id = {KEY}"))
        print(f"\n### startup: to the first answer, {ROUNDS} rounds; must: ≤1× PostgreSQL's; aim: ≤0.2×, <50 ms\n")
        table(["with", "Tidemark ms", "PostgreSQL ms", "ratio", "spread (T / PG)"], rows)


if __name__ == "__main__":
    main()
