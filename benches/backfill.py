"""A view over a source that has its events already: CREATE FEATURE VIEW, then every step in Iceberg, beside DuckDB's window query over
the same rows in Parquet.

The events come out of Tidemark's own log: there is no source over Parquet yet.
"""

import duck
import stream
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import World
from windows import numbers, quiet_tidemark

ROWS = number("BACKFILL_ROWS", 2_000_000)
KEYS = number("BACKFILL_KEYS", 100_000)
ROUNDS = number("ROUNDS", 3)
STEP_MS = 1
SHORT_MS, LONG_MS = KEYS * STEP_MS * 6 // 10, KEYS * STEP_MS * 6


def main():
    with World(quiet_tidemark) as world:
        (tidemark,) = world.servers
        print(f"{tidemark.version}\n{duck.version()}")
        path, parquet = world.folder / "events.csv", world.folder / "events.parquet"
        stream.write_csv(path, ROWS, KEYS, STEP_MS)
        duck.execute(":memory:", f"COPY (SELECT * FROM {stream.read_csv(path)}) TO '{parquet}' (FORMAT parquet)")
        tidemark.psql(stream.source("clicks"))
        tidemark.copy_in("clicks", path)
        tidemark.psql(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {stream.instant(ROWS, STEP_MS)}")
        query = stream.select_sql(f"'{parquet}'", SHORT_MS, LONG_MS)

        def ours():
            tidemark.psql("DROP FEATURE VIEW IF EXISTS recent")
            with Stopwatch(tidemark.cpu_seconds) as watch:
                tidemark.psql(f"CREATE FEATURE VIEW recent AS {stream.select_sql('clicks', SHORT_MS, LONG_MS)}")
                # Shown as soon as it is complete.
                shown = tidemark.rows("SELECT count(*) FROM recent")[0][0]
            with Stopwatch(tidemark.cpu_seconds) as history:
                tidemark.psql("CHECKPOINT")
            return {"wall": watch.wall, "cpu": watch.cpu, "all_wall": watch.wall + history.wall, "all_cpu": watch.cpu + history.cpu, "shown": int(shown)}

        def by_duckdb():
            return duck.run(":memory:", f"CREATE TABLE features AS {query}")

        results = interleaved(ROUNDS, {"tidemark": ours, "duckdb": by_duckdb})
        shown = [result["shown"] for result in results["tidemark"]]
        check("the keys that the view shows", shown, [duck.execute(":memory:", f"SELECT count(DISTINCT user_id) FROM '{parquet}'")[0][0]] * ROUNDS)
        totals = numbers(duck.execute(":memory:", f"SELECT {stream.TOTALS} FROM ({query})")[0])
        check(f"the values at all {ROWS:,} events", numbers(tidemark.rows(stream.totals_of_history("recent"))[0]), totals)
        print(f"\n### backfill: {ROWS:,} rows, {KEYS:,} keys, {ROUNDS} rounds\n")
        rows = []
        anchor = results["duckdb"]
        for what, name, kind in (("Tidemark: CREATE FEATURE VIEW", "tidemark", ""), ("the same and CHECKPOINT", "tidemark", "all_"), ("DuckDB: Parquet, window functions, in memory", "duckdb", "")):
            wall, cpu = (median(results[name], kind + field) for field in ("wall", "cpu"))
            rows.append([what, f"{ROWS / wall:,.0f}", f"{wall:.2f}", f"{cpu:.2f}", f"{wall / median(anchor, 'wall'):.2f}", f"{cpu / median(anchor, 'cpu'):.2f}", f"{spread(results[name], kind + 'cpu'):.2f}"])
        table(["", "rows/s", "wall s", "CPU s", "time of DuckDB's", "CPU of DuckDB's", "CPU spread"], rows)


if __name__ == "__main__":
    main()
