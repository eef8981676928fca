"""Rows per second through COPY into a source with one feature view of two windows and four features.

Anchors in the same rounds: COPY into a PostgreSQL table with the index that such features would need, and DuckDB reading
the same file and computing the same four features with window functions. What the view holds at the end is compared with
DuckDB's by definition; what it held at every event, from the history, with DuckDB's window query.
"""

import csv
import io

import duck
import events
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import Postgres, Tidemark, World

ROWS = number("INGEST_ROWS", 1_000_000)
KEYS = number("INGEST_KEYS", max(ROWS // 100, 1))
ROUNDS = number("ROUNDS", 3)
# 6 and 60 events of a key in the two windows.
STEP_US = 36_000
SHORT_US = STEP_US * KEYS * 6
LONG_US = STEP_US * KEYS * 60
# One core: decode 0.15 µs, log 0.05 µs, the window kernel 0.16 µs a row (docs/benchmarks.md, "Ceilings").
CEILING_US = 0.36

FEATURES = [("count(*)", "short", "n"), ("sum(price)", "short", "total"), ("sum(price)", "long", "total_long"), ("max(price)", "long", "most_long")]
NAMES = [name for _, _, name in FEATURES]


def view_sql():
    columns = ", ".join(f"{sql} OVER {window} AS {name}" for sql, window, name in FEATURES)
    return f"CREATE FEATURE VIEW recent AS SELECT user_id, event_time, {columns} FROM clicks " + events.windows(SHORT_US, LONG_US)


def current_sql():
    # Advancing the watermark moves now under the event clock.
    now = events.last_instant(ROWS + 1, STEP_US)
    us = {"short": SHORT_US, "long": LONG_US}
    columns = ", ".join(
        f"{sql} FILTER (WHERE event_time >= {now} - INTERVAL '{us[window]} microseconds') AS {name}"
        for sql, window, name in FEATURES
    )
    return f"SELECT user_id, {columns} FROM clicks GROUP BY user_id ORDER BY user_id"


def values(rows):
    """Rows as numbers: engines print the same double in different ways."""
    return [tuple(None if cell in ("", None) else float(cell) for cell in row) for row in rows]


def main():
    with World(Tidemark, Postgres) as world:
        tidemark, postgres = world.servers
        print(f"{tidemark.version}\n{postgres.version}\n{duck.version()}")
        path = world.folder / "clicks.csv"
        database = world.folder / "duck.db"
        events.write_csv(database, path, ROWS, KEYS, STEP_US)
        bytes_per_row = path.stat().st_size / ROWS
        read = f"read_csv('{path}', types = {{'event_time': 'TIMESTAMPTZ'}})"
        window_columns = ", ".join(f"{sql} OVER {window} AS {name}" for sql, window, name in FEATURES)
        window_query = f"SELECT user_id, event_time, {window_columns} FROM {read} " + events.windows(SHORT_US, LONG_US)
        totals = "count(*), sum(n), sum(total), sum(total_long), sum(most_long)"

        def measured(server, copy):
            with Stopwatch(server.cpu_seconds) as watch:
                copy()
            return {"wall": watch.wall, "cpu": watch.cpu}

        def into_view():
            tidemark.psql("DROP FEATURE VIEW IF EXISTS recent", "DROP SOURCE IF EXISTS clicks", events.source("clicks"), view_sql())
            result = measured(tidemark, lambda: tidemark.copy_in("clicks", path))
            # The rest of the work: every step of every key written to the history table.
            finish = f"ALTER SOURCE clicks ADVANCE WATERMARK TO {events.last_instant(ROWS + 1, STEP_US)}"
            with Stopwatch(tidemark.cpu_seconds) as watch:
                tidemark.psql(finish, "CHECKPOINT")
            return result | {"history_wall": watch.wall, "history_cpu": watch.cpu}

        def into_source():
            tidemark.psql("DROP SOURCE IF EXISTS bare", events.source("bare"))
            return measured(tidemark, lambda: tidemark.copy_in("bare", path))

        def into_postgres():
            postgres.psql(
                "DROP TABLE IF EXISTS clicks",
                f"CREATE TABLE clicks ({events.COLUMNS})",
                "CREATE INDEX ON clicks (user_id, event_time)",
                "CHECKPOINT",
            )
            return measured(postgres, lambda: postgres.copy_in("clicks", path))

        def by_duckdb():
            return duck.run(":memory:", f"CREATE TABLE features AS {window_query}")

        results = interleaved(
            ROUNDS, {"postgres": into_postgres, "view": into_view, "duckdb": by_duckdb, "source": into_source}
        )

        duck.execute(database, f"CREATE TABLE clicks AS SELECT * FROM {read}")
        ours = csv.reader(io.StringIO(tidemark.psql(f"SELECT user_id, {', '.join(NAMES)} FROM recent ORDER BY user_id")))
        check(f"the {KEYS:,} rows that the view shows now", values(ours), values(duck.execute(database, current_sql())))
        at_events = "WHERE _op = 'upsert' AND _event_time = event_time"
        check(
            f"the values at all {ROWS:,} events",
            values(tidemark.rows(f"SELECT {totals} FROM history.recent {at_events}")),
            values(duck.execute(database, f"SELECT {totals} FROM ({window_query})")),
        )
        steps = int(tidemark.rows("SELECT count(*) FROM history.recent")[0][0])

        print(f"\n### ingest: {ROWS:,} rows of {bytes_per_row:.0f} bytes (CSV), {KEYS:,} keys, {ROUNDS} rounds\n")
        rows = []

        def line(what, name, extra=("wall", "cpu")):
            wall, cpu = (sum(median(results[name], field) for field in fields) for fields in (extra[0::2], extra[1::2]))
            beside = [median(results["postgres"], "wall") / wall, median(results["duckdb"], "wall") / wall]
            rows.append(
                [what, f"{ROWS / wall:,.0f}", f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / ROWS * 1e6:.2f}"]
                + [f"{ratio:.2f}" for ratio in beside]
                + [f"{spread(results[name], 'wall'):.2f}"]
            )

        line("Tidemark: COPY into a source with the view, visible", "view")
        line(f"the same and CHECKPOINT: {steps:,} steps in history", "view", ("wall", "cpu", "history_wall", "history_cpu"))
        line("Tidemark: COPY into a source without a view", "source")
        line("PostgreSQL: COPY into a table with an index", "postgres")
        line("DuckDB: CSV to four window features, in memory", "duckdb")
        rows.append(["ceiling for the first line (estimate, one core)", f"{1e6 / CEILING_US:,.0f}", "", "", f"{CEILING_US:.2f}", "", "", ""])
        table(["", "rows/s", "wall s", "CPU s", "CPU µs a row", "× PostgreSQL", "× DuckDB", "spread"], rows)


if __name__ == "__main__":
    main()
