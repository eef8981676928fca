"""The window engine in order: 4 aggregates over 2 RANGE windows, 100,000 keys, beside Flink's OVER and DuckDB's window functions.

Tidemark reads CSV by COPY, logs it durably, and keeps every step; DuckDB reads the same file; Flink generates the same events and
writes nowhere. Event time spans more than three of the longest window. The values at all events are compared, between all three.
"""

import functools

import duck
import flink
import stream
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import Tidemark, World

ROWS = number("WINDOWS_ROWS", 2_000_000)
KEYS = number("WINDOWS_KEYS", 100_000)
ROUNDS = number("ROUNDS", 3)
STEP_MS = 1
# 0.6 and 6 events of a key, as docs/benchmarks.md has them.
SHORT_MS = KEYS * STEP_MS * 6 // 10
LONG_MS = KEYS * STEP_MS * 6
# Background commits would fall into some rounds and not into others: history is written by CHECKPOINT and timed on its own.
QUIET = ("--commit-interval", "1h", "--checkpoint-interval", "1h")
quiet_tidemark = functools.partial(Tidemark, options=QUIET)


def numbers(row):
    return [float(cell) for cell in row]


def main():
    with World(quiet_tidemark) as world:
        (tidemark,) = world.servers
        print(f"{tidemark.version}\n{flink.version()}\n{duck.version()}")
        path = world.folder / "events.csv"
        stream.write_csv(path, ROWS, KEYS, STEP_MS)
        query = stream.select_sql(stream.read_csv(path), SHORT_MS, LONG_MS)
        definition = stream.select_sql("clicks", SHORT_MS, LONG_MS)

        def ours():
            tidemark.psql("DROP FEATURE VIEW IF EXISTS recent", "DROP SOURCE IF EXISTS clicks", stream.source("clicks"))
            tidemark.psql(f"CREATE FEATURE VIEW recent AS {definition}")
            with Stopwatch(tidemark.cpu_seconds) as watch:
                tidemark.copy_in("clicks", path)
            finish = f"ALTER SOURCE clicks ADVANCE WATERMARK TO {stream.instant(ROWS, STEP_MS)}"
            with Stopwatch(tidemark.cpu_seconds) as history:
                tidemark.psql(finish, "CHECKPOINT")
            return {"wall": watch.wall, "cpu": watch.cpu, "all_wall": watch.wall + history.wall, "all_cpu": watch.cpu + history.cpu}

        def bare():
            tidemark.psql("DROP SOURCE IF EXISTS bare", stream.source("bare"))
            with Stopwatch(tidemark.cpu_seconds) as watch:
                tidemark.copy_in("bare", path)
            return {"wall": watch.wall, "cpu": watch.cpu}

        def by_duckdb():
            return duck.run(":memory:", f"CREATE TABLE features AS {query}")

        def by_flink():
            warm = stream.flink_source("warm", max(ROWS // 4, 1), KEYS, STEP_MS)
            events = stream.flink_source("events", ROWS, KEYS, STEP_MS)
            few = stream.flink_source("few", 1000, KEYS, STEP_MS)
            inserts = [f"INSERT INTO nowhere {stream.flink_select(name, SHORT_MS, LONG_MS)}" for name in ("warm", "few", "events")]
            _, start, whole = flink.run([warm, few, events, stream.FLINK_SINK, *inserts])[0]
            # What a job of hardly any event takes is the cluster's start.
            return {field: whole[field] - start[field] for field in ("wall", "cpu")}

        results = interleaved(ROUNDS, {"flink": by_flink, "tidemark": ours, "duckdb": by_duckdb, "bare": bare})

        totals = numbers(duck.execute(":memory:", f"SELECT {stream.TOTALS} FROM ({query})")[0])
        check(f"the values at all {ROWS:,} events (Tidemark's history, DuckDB)", numbers(tidemark.rows(stream.totals_of_history("recent"))[0]), totals)
        sums = f"SELECT {stream.TOTALS} FROM ({stream.flink_select('events', SHORT_MS, LONG_MS)})"
        events = stream.flink_source("events", ROWS, KEYS, STEP_MS)
        printed = flink.run([events, stream.FLINK_TOTALS_SINK, f"INSERT INTO shown {sums}"])[1]
        check("and Flink's", numbers(max(printed, key=lambda row: int(row[0]))), totals)

        print(f"\n### windows: {ROWS:,} events in order, {KEYS:,} keys, RANGE {SHORT_MS} ms and {LONG_MS} ms, {ROUNDS} rounds\n")
        lines = [
            ("Tidemark: COPY, logged, every step kept", "tidemark", "wall", "cpu"),
            ("the same and every step in Iceberg (CHECKPOINT)", "tidemark", "all_wall", "all_cpu"),
            ("Tidemark: COPY into a source without a view", "bare", "wall", "cpu"),
            ("Flink SQL OVER, generated source, blackhole", "flink", "wall", "cpu"),
            ("DuckDB: the same CSV, window functions, in memory", "duckdb", "wall", "cpu"),
        ]
        rows = []
        for what, name, wall_field, cpu_field in lines:
            wall, cpu = median(results[name], wall_field), median(results[name], cpu_field)
            beside = [median(results[anchor], field) / own for anchor in ("flink", "duckdb") for field, own in (("wall", wall), ("cpu", cpu))]
            rows.append(
                [what, f"{ROWS / wall:,.0f}", f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / ROWS * 1e6:.2f}"]
                + [f"{beside[0]:.1f} / {beside[1]:.1f}", f"{beside[2]:.2f} / {beside[3]:.2f}", f"{spread(results[name], cpu_field):.2f}"]
            )
        table(["", "events/s", "wall s", "CPU s", "CPU µs an event", "× Flink (wall / CPU)", "× DuckDB (wall / CPU)", "CPU spread"], rows)


if __name__ == "__main__":
    main()
