"""Bytes a key: 4 features over 1 h and 24 h, 100 events of a key in a day, beside Flink's live heap and the bare bytes of the events.

Tidemark: what the resident size of a server grows by when it restores the view from its checkpoint, over the same server with the
source alone; and what it grew by while it took the events. Flink: the greatest live heap (collected twice a second) of the same job,
less that of a job of hardly any event.
"""

import duck
import flink
import stream
from measure import check, interleaved, median, number, table
from servers import World
from windows import numbers, quiet_tidemark

KEYS = number("MEMORY_KEYS", 4_800)
ROUNDS = number("ROUNDS", 3)
SHORT_MS, LONG_MS = 3_600_000, 86_400_000
STEP_MS = LONG_MS // 100 // KEYS
ROWS = KEYS * 300
# A key, a time, a price, 8 bytes each.
RAW_BYTES = 100 * 24


def resident(tidemark):
    with open(f"/proc/{tidemark.process.pid}/statm", encoding="utf-8") as statm:
        return int(statm.read().split()[1]) * 4096


def ours(path):
    with World() as world:

        def serving():
            server = quiet_tidemark(world.folder)
            world.servers[:] = [server]
            return server

        def restarted(server):
            server.psql("CHECKPOINT")
            server.stop()
            server = serving()
            server.psql("SELECT 1")
            return server

        server = serving()
        server.psql(stream.source("clicks"))
        begin = resident(server)
        server.psql(f"CREATE FEATURE VIEW recent AS {stream.select_sql('clicks', SHORT_MS, LONG_MS)}")
        server.copy_in("clicks", path)
        server.psql("CHECKPOINT")
        running = resident(server) - begin
        server = restarted(server)
        # A lookup of every key: nothing is left to be restored.
        count, most = server.rows("SELECT count(*), max(most_long) FROM recent")[0]
        restored = resident(server)
        server.psql("DROP FEATURE VIEW recent")
        server = restarted(server)
        server.rows("SELECT count(*) FROM tidemark.feature_views")
        return {"running": running / KEYS, "restored": (restored - resident(server)) / KEYS, "count": float(count), "most": float(most)}


def by_flink():
    warm = stream.flink_source("warm", max(ROWS // 20, 1), KEYS, STEP_MS)
    events = stream.flink_source("events", ROWS, KEYS, STEP_MS)
    few = stream.flink_source("few", 1000, KEYS, STEP_MS)
    inserts = [f"INSERT INTO nowhere {stream.flink_select(name, SHORT_MS, LONG_MS)}" for name in ("warm", "few", "events")]
    _, start, whole = flink.run([warm, few, events, stream.FLINK_SINK, *inserts], heap=True)[0]
    return {"heap": (whole["heap"] - start["heap"]) / KEYS}


def main():
    with World() as world:
        print(f"{flink.version()}\n{duck.version()}")
        path = world.folder / "events.csv"
        stream.write_csv(path, ROWS, KEYS, STEP_MS)
        results = interleaved(ROUNDS, {"tidemark": lambda: ours(path), "flink": by_flink})
        newest = f"SELECT count(DISTINCT user_id), max(price) FROM {stream.read_csv(path)} WHERE event_time >= {stream.instant(ROWS - 1, STEP_MS)} - INTERVAL 1 DAY"
        shown = [results["tidemark"][-1][field] for field in ("count", "most")]
        check("the keys and the greatest price that the restored view shows", shown, numbers(duck.execute(":memory:", newest)[0]))
        heap = median(results["flink"], "heap")
        print(f"\n### memory: {KEYS:,} keys, 300 events of each, 100 of them in the day, {ROUNDS} rounds\n")
        cases = [("Tidemark, restored from its checkpoint", median(results["tidemark"], "restored"))]
        cases += [("Tidemark, after taking the events", median(results["tidemark"], "running")), ("Flink, live heap", heap)]
        cases += [("the events themselves: key, time, price", RAW_BYTES)]
        table(["", "bytes a key", "× Flink", "× raw"], [[what, f"{size:,.0f}", f"{size / heap:.2f}", f"{size / RAW_BYTES:.2f}"] for what, size in cases])


if __name__ == "__main__":
    main()
