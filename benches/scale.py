"""How the cost of an event grows: with the number of views over one source, with the length of the window, with the number of keys,
and with events out of order. The anchor is the engine itself, in the same rounds; for keys, a kernel that does nothing else.

`BENCH_SCALE=views,lengths` runs some of the parts. The figure is CPU of the server: a COPY into a source with the views, less a COPY of
the same rows into a source without one (reading CSV and logging, the same in every case, would flatten every ratio).
"""

import os
import subprocess

import duck
import stream
from measure import Stopwatch, check, interleaved, median, number, spread, table
from servers import ROOT, World
from windows import numbers, quiet_tidemark

ROUNDS = number("ROUNDS", 3)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def load(tidemark, path, views, slack_ms=1):
    """CPU and wall seconds of a COPY into a fresh source `clicks` with these views: {name: query}."""
    drops = [f"DROP FEATURE VIEW IF EXISTS {name}" for name in load.made] + ["DROP SOURCE IF EXISTS clicks"]
    tidemark.psql(*drops, stream.source("clicks", slack_ms))
    load.made = list(views)
    if views:
        tidemark.psql(*(f"CREATE FEATURE VIEW {name} AS {query}" for name, query in views.items()))
    with Stopwatch(tidemark.cpu_seconds) as watch:
        tidemark.copy_in("clicks", path)
    return {"wall": watch.wall, "cpu": watch.cpu}


load.made = []


def finish(tidemark, events, step_ms):
    """Every step in history, to be compared; all that is pending leaves memory."""
    tidemark.psql(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {stream.instant(events, step_ms)}", "CHECKPOINT")


def check_view(tidemark, name, path, short_ms, long_ms):
    expected = duck.execute(":memory:", f"SELECT {stream.TOTALS} FROM ({stream.select_sql(stream.read_csv(path), short_ms, long_ms)})")[0]
    check(f"the values at all events ({name})", numbers(tidemark.rows(stream.totals_of_history(name))[0]), numbers(expected))


def measured(contenders):
    results = interleaved(ROUNDS, contenders)
    base = median(results["no view"], "cpu")
    return results, {name: median(result, "cpu") - base for name, result in results.items()}, base


def views(world, tidemark):
    """One view, ten, a hundred, over one source and key; all of the same two windows, and each with lengths of its own."""
    rows, keys, step_ms, many = number("VIEWS_ROWS", 40_000), number("VIEWS_KEYS", 1_500), 1, number("VIEWS", 100)
    short, long = keys * 6 // 10, keys * 6
    path = world.folder / "views.csv"
    stream.write_csv(path, rows, keys, step_ms)

    def of(count, apart):
        return {f"v{i}": stream.select_sql("clicks", short + i * apart, long + i * apart * 10) for i in range(count)}

    def run(view_set):
        return lambda: load(tidemark, path, view_set)

    mixed = {f"v{i}": stream.mixed_sql("clicks", short, long, i) for i in range(many)}
    cases = {"no view": {}, "1 view": of(1, 0), f"{many // 10} views": of(many // 10, 0), f"{many} views": of(many, 0)}
    cases |= {f"{many} views, other aggregates": mixed, f"{many} views, other lengths": of(many, 1)}
    results, cpu, base = measured({name: run(view_set) for name, view_set in cases.items()})
    # The last round's last case is still there.
    finish(tidemark, rows, step_ms)
    for name in ("v0", f"v{many - 1}"):
        i = int(name[1:])
        check_view(tidemark, name, path, short + i, long + i * 10)
    print(f"\n### views: {rows:,} events, {keys:,} keys; {base / rows * 1e6:.2f} µs of CPU an event without a view taken off, {ROUNDS} rounds\n")
    one = cpu["1 view"]
    lines = []
    for name, view_set in list(cases.items())[1:]:
        count = len(view_set)
        lines.append([name, f"{cpu[name] / rows * 1e6:.2f}", f"{cpu[name] / count / rows * 1e6:.2f}", f"{cpu[name] / one / count:.2f}"]
                     + [f"{(cpu[name] + base) / (one + base) / count:.2f}", f"{spread(results[name], 'cpu'):.2f}"])
    table(["", "CPU µs an event", "a view", "of linear", "of linear, reading and log with it", "CPU spread"], lines)


def lengths(world, tidemark):
    """Windows from a minute to 90 days at one rate of events: an event of a key every ten minutes, for 270 days."""
    keys = number("LENGTHS_KEYS", 8)
    step_ms = 600_000 // keys
    rows = 3 * 90 * DAY_MS // step_ms
    path = world.folder / "lengths.csv"
    stream.write_csv(path, rows, keys, step_ms)
    windows = {"1 minute": 60_000, "1 hour": HOUR_MS, "1 day": DAY_MS, "7 days": 7 * DAY_MS, "30 days": 30 * DAY_MS, "90 days": 90 * DAY_MS}

    def run(ms):
        def once():
            result = load(tidemark, path, {"v": stream.select_sql("clicks", ms, ms)} if ms else {})
            if ms and ms not in checked:
                finish(tidemark, rows, step_ms)
                checked[ms] = tidemark.rows(stream.totals_of_history("v"))[0]
            return result

        return once

    checked = {}
    results, cpu, base = measured({"no view": run(0)} | {name: run(ms) for name, ms in windows.items()})
    for name, ms in windows.items():
        expected = duck.execute(":memory:", f"SELECT {stream.TOTALS} FROM ({stream.select_sql(stream.read_csv(path), ms, ms)})")[0]
        check(f"the values at all events ({name})", numbers(checked[ms]), numbers(expected))
    print(f"\n### lengths: {rows:,} events, {keys} keys, 4 aggregates; {base / rows * 1e6:.2f} µs taken off, {ROUNDS} rounds\n")
    table(["window", "events of a key in it", "CPU µs an event", "× 1 minute", "CPU spread"], [
        [name, f"{max(ms // 600_000, 1):,}", f"{cpu[name] / rows * 1e6:.2f}", f"{cpu[name] / cpu['1 minute']:.2f}", f"{spread(results[name], 'cpu'):.2f}"]
        for name, ms in windows.items()
    ])


def kernel(*arguments):
    built = ROOT / "benches/.kernel"
    source = ROOT / "benches/kernel.rs"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["rustc", "--edition", "2024", "-C", "opt-level=3", "-o", str(built), str(source)], check=True)
    out = subprocess.run([str(built), *map(str, arguments)], capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]), [float(cell) for cell in out[1:]]


def keys(world, tidemark):
    """The same two events of a key in the long window, with ever more keys."""
    counts = [int(count) for count in os.environ.get("BENCH_KEYS", "1000,10000,100000,1000000").split(",")]
    least = number("KEYS_ROWS", 400_000)
    cases = []
    for count in counts:
        rows = max(least, count * 7)
        path = world.folder / f"keys{count}.csv"
        stream.write_csv(path, rows, count, 1)
        cases.append((count, rows, path, count * 6 // 10, count * 2))

    def once():
        result = {}
        for count, rows, path, short, long in cases:
            bare = load(tidemark, path, {})["cpu"]
            ours = load(tidemark, path, {"v": stream.select_sql("clicks", short, long)})["cpu"]
            floor, totals = kernel(rows, count, 1, short, long)
            if count not in agreed:
                finish(tidemark, rows, 1)
                check(f"the values at all events ({count:,} keys, with the kernel)", numbers(tidemark.rows(stream.totals_of_history("v"))[0]), totals)
                agreed.add(count)
            result[count] = ((ours - bare) / rows * 1e9, floor)
        return {f"{who}{count}": value[at] for count, value in result.items() for at, who in enumerate(("ours", "floor"))}

    agreed = set()
    results = interleaved(ROUNDS, {"all": once})["all"]
    print(f"\n### keys: {cases[0][1]:,} events or 7 of each key, 2 of a key in the long window, {ROUNDS} rounds\n")
    first = {who: median(results, f"{who}{counts[0]}") for who in ("ours", "floor")}
    lines = []
    for count, rows, *_ in cases:
        ours, floor = median(results, f"ours{count}"), median(results, f"floor{count}")
        grown, floor_grown = ours / first["ours"], floor / first["floor"]
        lines.append([f"{count:,}", f"{rows:,}", f"{ours:,.0f}", f"{floor:,.0f}", f"{grown:.2f}", f"{floor_grown:.2f}", f"{grown / floor_grown:.2f}"])
    table(["keys", "events", "CPU ns an event", "kernel ns", "grown by", "kernel grown by", "of the kernel's growth"], lines)


def late(world, tidemark):
    """A fifth of the events up to an hour out of order, beside the same in order, both with an hour's watermark."""
    rows, keys, step_ms = number("LATE_ROWS", 600_000), number("LATE_KEYS", 6_000), 60
    short, long = 20 * 60_000, 3 * HOUR_MS
    moved = f"i + CASE WHEN hash(i, 7) % 5 = 0 THEN (hash(i, 8) % {(HOUR_MS - 1000) // step_ms})::BIGINT ELSE 0 END, i"
    paths = {"in order": world.folder / "in_order.csv", "20 % late": world.folder / "late.csv"}
    stream.write_csv(paths["in order"], rows, keys, step_ms)
    stream.write_csv(paths["20 % late"], rows, keys, step_ms, moved)

    def run(path, view_set):
        return lambda: load(tidemark, path, view_set, HOUR_MS)

    view = {"v": stream.select_sql("clicks", short, long)}
    results, cpu, base = measured({"no view": run(paths["in order"], {})} | {name: run(path, view) for name, path in paths.items()})
    # The last round's last case is still there.
    finish(tidemark, rows, step_ms)
    check("the rows admitted", int(tidemark.rows("SELECT count(*) FROM clicks")[0][0]), rows)
    check_view(tidemark, "v", paths["20 % late"], short, long)
    print(f"\n### late: {rows:,} events, {keys:,} keys, RANGE 20 minutes and 3 hours, {ROUNDS} rounds; {base / rows * 1e6:.2f} µs taken off\n")
    table(["", "CPU µs an event", "rate of in order (CPU)", "rate, wall and all", "CPU spread"], [
        [name, f"{cpu[name] / rows * 1e6:.2f}", f"{cpu['in order'] / cpu[name]:.2f}"]
        + [f"{median(results['in order'], 'wall') / median(results[name], 'wall'):.2f}", f"{spread(results[name], 'cpu'):.2f}"]
        for name in paths
    ])


PARTS = {"views": views, "lengths": lengths, "keys": keys, "late": late}


def main():
    with World(quiet_tidemark) as world:
        (tidemark,) = world.servers
        print(f"{tidemark.version}\n{duck.version()}")
        for part in os.environ.get("BENCH_SCALE", ",".join(PARTS)).split(","):
            PARTS[part](world, tidemark)


if __name__ == "__main__":
    main()
