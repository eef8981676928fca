"""ASOF LEFT JOIN over Parquet files that stay where they are, beside DuckDB and Polars over the same files.

Files in no order; files by (key, time); few labels and much history, in files of a time range each and by key within; ten
views joined to one spine; and a key that has a tenth of all rows, beside the same without it. Times of a key are all
different, so that no tie has to be broken. Values are whole or dyadic: their sums are exact in any order.
"""

import os

import duck
import events
import polars_anchor
from asof import numbers
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import Tidemark, World

LABELS = number("ASOF_LABELS", 1_000_000)
HISTORY = number("ASOF_HISTORY", 10_000_000)
FEW_LABELS = number("ASOF_FEW_LABELS", 1_000)
FEW_HISTORY = number("ASOF_FEW_HISTORY", 10 * HISTORY)
KEYS = max(HISTORY // 100, 1)
VIEWS, FEATURES = 10, 10
FEW_FILES = 16
ROUNDS = number("ROUNDS", 3)
STEP_US = 1_000
ROW_GROUP = 100_000
CASES = os.environ.get("BENCH_ASOF_CASES", "unsorted,sorted,few,views,skew").split(",")
# A multiplication by it permutes the places of rows.
PRIME = 2_147_483_647


def features(count, seed=50):
    """Half of them whole, half dyadic."""
    for i in range(count):
        value = f"(hash(i, {seed + i}) % 1000)::BIGINT" if i % 2 == 0 else f"(hash(i, {seed + i}) % 256)::DOUBLE / 16"
        yield f"{value} AS f{i}"


def key(keys, seed, skewed=False):
    uniform = f"(hash(i, {seed}) % {keys})::BIGINT"
    return f"CASE WHEN hash(i, {seed + 1}) % 10 = 0 THEN 0 ELSE {uniform} END" if skewed else uniform


def history(rows, keys, count, seed=50, skewed=False, condition="true", order=""):
    return f"""SELECT {key(keys, seed + 700, skewed)} AS user_id,
        {events.EPOCH} + to_microseconds((i * {PRIME} % {rows}) * {STEP_US}) AS ts, {", ".join(features(count, seed))}
        FROM range({rows}) r(i) WHERE {condition} {order}"""


def labels(rows, keys, over_us, from_us=0, skewed=False):
    return f"""SELECT {key(keys, 80, skewed)} AS user_id,
        {events.EPOCH} + to_microseconds({from_us} + (hash(i, 90) % {over_us})::BIGINT) AS ts FROM range({rows}) r(i)"""


class Files:
    """Parquet files that both engines know by one name."""

    def __init__(self, folder, tidemark, database):
        self.folder, self.tidemark, self.database = folder, tidemark, database

    def write(self, name, *queries):
        """One file for each query; the path of all of them."""
        for n, query in enumerate(queries):
            path = self.folder / f"{name}-{n}.parquet"
            duck.execute(
                self.database,
                f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})",
            )
        pattern = self.folder / f"{name}-*.parquet"
        duck.execute(self.database, f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{pattern}')")
        self.tidemark.psql(f"CREATE TABLE {name} WITH (connector = 'parquet', path = '{pattern}')")
        return pattern

    def remove(self, *names):
        for name in names:
            self.tidemark.psql(f"DROP TABLE {name}")
            duck.execute(self.database, f"DROP VIEW {name}")
            for path in self.folder.glob(f"{name}-*.parquet"):
                path.unlink()


def sums(relation, count):
    return ", ".join([f"count({relation}.f0)", *(f"sum({relation}.f{i})" for i in range(count))])


def join(spine, *views, count=6):
    joins = [f"ASOF LEFT JOIN {v} ON l.user_id = {v}.user_id AND l.ts >= {v}.ts" for v in views]
    return f"SELECT count(*), {', '.join(sums(view, count) for view in views)} FROM {spine} l {' '.join(joins)}"


def main():
    with World(Tidemark) as world:
        (tidemark,) = world.servers
        polars = polars_anchor.version()
        print(f"{tidemark.version}\n{duck.version()}\n{polars or 'Polars is not installed: left out'}")
        database = world.folder / "duck.db"
        files = Files(world.folder, tidemark, database)
        rows = []

        def ours(query):
            def run():
                tidemark.peak_memory_mib(reset=True)
                with Stopwatch(tidemark.cpu_seconds) as watch:
                    answer = tidemark.rows(query)
                return {"wall": watch.wall, "cpu": watch.cpu, "rss_mib": tidemark.peak_memory_mib(), "rows": answer}

            return run

        def measure(what, query, others=None):
            contenders = {"DuckDB": lambda: duck.run(database, query), "Tidemark": ours(query), **(others or {})}
            results = interleaved(ROUNDS, contenders)
            answer = numbers(results["Tidemark"][-1]["rows"])
            for anchor in contenders.keys() - {"Tidemark"}:
                check(f"{what}, {anchor}", answer, numbers(results[anchor][-1]["rows"]))
            wall = median(results["Tidemark"], "wall")
            for name in contenders:
                result = results[name]
                ratio = "" if name == "Tidemark" else f"**{wall / median(result, 'wall'):.2f}**"
                numbers_ = [f"{median(result, f):,.2f}" for f in ("wall", "cpu")]
                rows.append([what, name, *numbers_, ratio, f"{median(result, 'rss_mib'):,.0f}", f"{spread(result, 'wall'):.2f}"])
            return wall

        def polars_over(labels_file, history_file, is_sorted):
            if polars is None:
                return {}
            columns = [f"f{i}" for i in range(6)]
            return {"Polars": lambda: polars_anchor.run(labels_file, history_file, columns, is_sorted)}

        uniform = None
        if {"unsorted", "sorted", "skew"} & set(CASES):
            spine = files.write("spine", labels(LABELS, KEYS, HISTORY * STEP_US))
        if {"unsorted", "skew"} & set(CASES):
            plain = files.write("plain", history(HISTORY, KEYS, 6))
            what = f"{LABELS:,} × {HISTORY:,}, in no order"
            uniform = measure(what, join("spine", "plain"), polars_over(spine, plain, False))
            files.remove("plain")
        if "sorted" in CASES:
            ordered = files.write("ordered", history(HISTORY, KEYS, 6, order="ORDER BY user_id, ts"))
            what = f"{LABELS:,} × {HISTORY:,}, by (key, time)"
            measure(what, join("spine", "ordered"), polars_over(spine, ordered, True))
            files.remove("ordered")
        if "skew" in CASES:
            files.write("skewed_spine", labels(LABELS, KEYS, HISTORY * STEP_US, skewed=True))
            files.write("skewed", history(HISTORY, KEYS, 6, skewed=True))
            skewed = measure(f"{LABELS:,} × {HISTORY:,}, a tenth of one key", join("skewed_spine", "skewed"))
            files.remove("skewed_spine", "skewed")
            print(f"skew: {skewed / uniform:.2f} of the uniform case's time")
        if "views" in CASES:
            views, each = [f"view{n}" for n in range(VIEWS)], max(HISTORY // VIEWS, 1)
            keys = max(each // 100, 1)
            files.write("wide_spine", labels(LABELS, keys, each * STEP_US))
            for n, view in enumerate(views):
                files.write(view, history(each, keys, FEATURES, seed=100 * n + 1000))
            what = f"{LABELS:,} × {VIEWS} views of {each:,} rows, {FEATURES} features each"
            measure(what, join("wide_spine", *views, count=FEATURES))
            files.remove("wide_spine", *views)
        if "few" in CASES:
            keys = max(FEW_HISTORY // 1000, 1)
            part = -(-FEW_HISTORY // FEW_FILES)
            parts = [f"i * {PRIME} % {FEW_HISTORY} // {part} = {n}" for n in range(FEW_FILES)]
            of_part = [history(FEW_HISTORY, keys, 6, condition=p, order="ORDER BY user_id, ts") for p in parts]
            files.write("much", *of_part)
            # Labels of the second of the files' times.
            files.write("few", labels(FEW_LABELS, keys, part * STEP_US, from_us=part * STEP_US))
            measure(f"{FEW_LABELS:,} × {FEW_HISTORY:,}, {FEW_FILES} files by time, by key within", join("few", "much"))
            files.remove("few", "much")
        print(f"\n### asof-files: {ROUNDS} rounds\n")
        header = ["", "", "wall s", "CPU s", "Tidemark / it (less is better)", "peak MiB", "spread"]
        table(header, rows)


if __name__ == "__main__":
    main()
