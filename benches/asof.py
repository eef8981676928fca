"""ASOF LEFT JOIN of 1 M labels with 10 M history rows, beside DuckDB's.

First over plain tables, loaded by COPY in no order. Then over a feature view, whose right side is its history; DuckDB joins
its own copy of that history. Both sides read their own storage on disk (warm in the page cache) and return a count and
six sums, which must be equal.
"""

import duck
import events
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import Tidemark, World

LABELS = number("ASOF_LABELS", 1_000_000)
HISTORY = number("ASOF_HISTORY", 10_000_000)
KEYS = number("ASOF_KEYS", max(HISTORY // 100, 1))
VIEW_EVENTS = number("ASOF_VIEW_EVENTS", HISTORY // 10)
ROUNDS = number("ROUNDS", 3)
STEP_US = 1_000
# Labels are the state and history streams past them: 0.25 of DuckDB's CPU in memory, and reading (docs/benchmarks.md).
CEILING_JOIN = 0.25

HISTORY_COLUMNS = ["a", "b", "c", "d", "e", "f"]
SUMS = ", ".join(["count(*)", "count(h.a)", *(f"sum(h.{c})" for c in HISTORY_COLUMNS)])
JOIN = f"SELECT {SUMS} FROM labels l ASOF LEFT JOIN hist h ON l.user_id = h.user_id AND l.ts >= h.ts"
SCAN = f"SELECT count(*), {', '.join(f'sum({c})' for c in HISTORY_COLUMNS)}, min(ts) < max(ts), sum(user_id) FROM hist"

VIEW_NAMES = ["n", "total", "total_long", "most_long"]
VIEW_SUMS = ", ".join(["count(*)", "count(h.n)", *(f"sum(h.{c})" for c in VIEW_NAMES)])
VIEW_KEYS = max(VIEW_EVENTS // 100, 1)
VIEW_STEP_US = 36_000


def plain_data(world, database):
    """Times of history are all different, so that no tie has to be broken; ours would be, DuckDB leaves it open."""
    history, labels = world.folder / "hist.csv", world.folder / "labels.csv"
    # A multiplication by an odd prime permutes the times: the file is in no order.
    prime = 2_147_483_647
    whole = ", ".join(f"(hash(i, {seed}) % 1000)::BIGINT AS {name}" for seed, name in enumerate("abc", 50))
    dyadic = ", ".join(f"(hash(i, {seed}) % 256)::DOUBLE / 16 AS {name}" for seed, name in enumerate("def", 60))
    duck.execute(
        database,
        f"""CREATE TABLE hist AS SELECT (hash(i, 7) % {KEYS})::BIGINT AS user_id,
              {events.EPOCH} + to_microseconds((i * {prime} % {HISTORY}) * {STEP_US}) AS ts, {whole}, {dyadic}
            FROM range({HISTORY}) r(i)""",
        f"""CREATE TABLE labels AS SELECT (hash(i, 8) % {KEYS})::BIGINT AS user_id,
              {events.EPOCH} + to_microseconds((hash(i, 9) % {HISTORY * STEP_US})::BIGINT) AS ts
            FROM range({LABELS}) r(i)""",
        f"COPY hist TO '{history}' (FORMAT csv, HEADER)",
        f"COPY labels TO '{labels}' (FORMAT csv, HEADER)",
    )
    return history, labels


def view_data(world, tidemark, database):
    clicks = world.folder / "clicks.csv"
    events.write_csv(database, clicks, VIEW_EVENTS, VIEW_KEYS, VIEW_STEP_US)
    short, long = VIEW_STEP_US * VIEW_KEYS * 6, VIEW_STEP_US * VIEW_KEYS * 60
    tidemark.psql(
        events.source("clicks"),
        "CREATE FEATURE VIEW recent AS SELECT user_id, event_time, count(*) OVER short AS n, sum(price) OVER short AS total, "
        "sum(price) OVER long AS total_long, max(price) OVER long AS most_long FROM clicks " + events.windows(short, long),
    )
    tidemark.copy_in("clicks", clicks)
    clicks.unlink()
    end = events.last_instant(VIEW_EVENTS + 1, VIEW_STEP_US)
    tidemark.psql(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {end}", "CHECKPOINT")
    # The spine: as dense as the plain labels, over the same time.
    spine, steps = world.folder / "spine.csv", world.folder / "steps.parquet"
    duck.execute(
        database,
        f"""CREATE TABLE spine AS SELECT (hash(i, 10) % {VIEW_KEYS})::BIGINT AS user_id,
              {events.EPOCH} + to_microseconds((hash(i, 11) % {VIEW_EVENTS * VIEW_STEP_US})::BIGINT) AS ts
            FROM range({VIEW_EVENTS // 10}) r(i)""",
        f"COPY spine TO '{spine}' (FORMAT csv, HEADER)",
    )
    tidemark.psql("CREATE TABLE spine (user_id BIGINT, ts TIMESTAMPTZ)")
    tidemark.copy_in("spine", spine)
    columns = ", ".join(["user_id", "event_time", *VIEW_NAMES])
    tidemark.psql(f"COPY (SELECT {columns} FROM history.recent) TO '{steps}' (FORMAT parquet)")
    duck.execute(database, f"CREATE TABLE recent AS SELECT * FROM read_parquet('{steps}')")
    return duck.execute(database, "SELECT count(*) FROM recent")[0][0]


def numbers(rows):
    """Engines print the same value in different ways."""
    words = {"t": 1.0, "True": 1.0, "f": 0.0, "False": 0.0}
    return [tuple(words[str(cell)] if str(cell) in words else float(cell) for cell in row) for row in rows]


def main():
    with World(Tidemark) as world:
        (tidemark,) = world.servers
        print(f"{tidemark.version}\n{duck.version()}")
        database = world.folder / "duck.db"
        history, labels = plain_data(world, database)
        columns = ", ".join(f"{c} {'BIGINT' if c in 'abc' else 'DOUBLE PRECISION'}" for c in HISTORY_COLUMNS)
        tidemark.psql(
            f"CREATE TABLE hist (user_id BIGINT, ts TIMESTAMPTZ, {columns})",
            "CREATE TABLE labels (user_id BIGINT, ts TIMESTAMPTZ)",
        )
        with Stopwatch(tidemark.cpu_seconds) as load:
            tidemark.copy_in("hist", history)
            tidemark.copy_in("labels", labels)
        history.unlink(), labels.unlink()
        steps = view_data(world, tidemark, database)

        def ours(query):
            def run():
                tidemark.peak_memory_mib(reset=True)
                with Stopwatch(tidemark.cpu_seconds) as watch:
                    rows = tidemark.rows(query)
                return {"wall": watch.wall, "cpu": watch.cpu, "rss_mib": tidemark.peak_memory_mib(), "rows": rows}

            return run

        def theirs(query):
            return lambda: duck.run(database, query)

        view_join = f"SELECT {VIEW_SUMS} FROM spine l ASOF LEFT JOIN recent h ON l.user_id = h.user_id AND l.ts >= h.event_time"
        cases = [
            (f"{LABELS:,} × {HISTORY:,}, plain tables", JOIN, True),
            (f"{VIEW_EVENTS // 10:,} × {steps:,} steps of a feature view", view_join, True),
            (f"only reading: sums over {HISTORY:,} rows", SCAN, False),
        ]
        rows = []
        for what, query, is_join in cases:
            results = interleaved(ROUNDS, {"duckdb": theirs(query), "tidemark": ours(query)})
            check(what, numbers(results["tidemark"][-1]["rows"]), numbers(results["duckdb"][-1]["rows"]))
            m = lambda who, field: median(results[who], field)
            rows.append(
                [
                    what,
                    f"{m('tidemark', 'wall'):.2f}",
                    f"{m('duckdb', 'wall'):.2f}",
                    f"**{m('tidemark', 'wall') / m('duckdb', 'wall'):.2f}**",
                    f"{m('tidemark', 'cpu'):.2f} / {m('duckdb', 'cpu'):.2f}",
                    f"{m('tidemark', 'cpu') / m('duckdb', 'cpu'):.2f}",
                    f"≥ {CEILING_JOIN:.2f} + reading" if is_join else "",
                    f"{m('tidemark', 'rss_mib'):,.0f} / {m('duckdb', 'rss_mib'):,.0f}",
                    f"{spread(results['tidemark'], 'wall'):.2f} / {spread(results['duckdb'], 'wall'):.2f}",
                ]
            )
        print(f"\n### asof: {KEYS:,} keys, {ROUNDS} rounds (loading by COPY: {load.wall:.1f} s, {load.cpu:.1f} CPU s)\n")
        table(
            [
                "", "Tidemark wall s", "DuckDB wall s", "ratio (less is better)", "CPU s (T / D)", "CPU ratio",
                "ceiling, CPU ratio (est.)", "peak MiB (T / D)", "spread (T / D)",
            ],
            rows,
        )  # fmt: skip


if __name__ == "__main__":
    main()
