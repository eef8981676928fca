"""Bytes of Redis' memory an entity: four features with their version and instants as Tidemark keeps them, beside a hash of texts for
each entity, without version or instants.

Both hold the values that DuckDB computes from the same events. The figure is `used_memory_dataset` of INFO with the entities, less
that without.
"""

import time

import duck
import stream
from bare import Redis
from measure import check, interleaved, median, number, spread, table
from servers import Tidemark, World
from windows import QUIET

KEYS = number("REDIS_KEYS", 100_000)
ROUNDS = number("ROUNDS", 3)
EVENTS = KEYS * 20
SHORT_MS, LONG_MS = KEYS * 6 // 10, KEYS * 6
BATCH = 1000


def dataset(redis):
    """When it has settled: freed memory is given back in the background."""
    before = None
    while True:
        now = int(redis.info("memory")["used_memory_dataset"])
        if now == before:
            return now
        before = now
        time.sleep(0.2)


def values(path):
    """What the view shows of every key at the last event: the newest row a key has, evaluated at that instant."""
    newest = stream.instant(EVENTS - 1, 1)
    inside = "event_time >= {} - INTERVAL '{} milliseconds'"
    short, long = (inside.format(newest, length) for length in (SHORT_MS, LONG_MS))
    return duck.execute(
        ":memory:",
        f"""SELECT user_id, count(*) FILTER (WHERE {short}), sum(price) FILTER (WHERE {short}), sum(price), max(price)
            FROM {stream.read_csv(path)} WHERE {long} GROUP BY user_id ORDER BY user_id""",
    )


def main():
    with World() as world:
        path = world.folder / "events.csv"
        stream.write_csv(path, EVENTS, KEYS, 1)
        rows = values(path)
        redis = Redis(world.folder)
        world.servers.append(redis)

        def empty():
            redis.send([("FLUSHALL",)])
            return dataset(redis)

        def ours():
            base = empty()
            options = (*QUIET, "--http", "off", "--online", redis.url)
            round_folder = world.folder / f"round{empty.rounds}"
            empty.rounds += 1
            round_folder.mkdir()
            tidemark = Tidemark(round_folder, options)
            try:
                tidemark.psql(stream.source("clicks"), f"CREATE FEATURE VIEW recent AS {stream.select_sql('clicks', SHORT_MS, LONG_MS)}")
                tidemark.copy_in("clicks", path)
                shown = tidemark.rows("SELECT user_id, n, total, total_long, most_long FROM recent ORDER BY user_id")
                main.version = tidemark.version
            finally:
                # The online store is brought level before the server ends.
                tidemark.stop()
            held = [(int(row[0]), *(float(cell) if cell else None for cell in row[1:])) for row in shown]
            if not main.is_checked:
                check("the values of all keys", held, [(key, *map(as_float, row)) for key, *row in rows])
                main.is_checked = True
            return {"bytes": (dataset(redis) - base) / len(rows), "entities": fields(redis)}

        def texts():
            base = empty()
            for begin in range(0, len(rows), BATCH):
                redis.send(
                    [
                        ("HSET", f"recent:{key}", "n", n, "total", text(total), "total_long", text(total_long), "most_long", text(most_long))
                        for key, n, total, total_long, most_long in rows[begin : begin + BATCH]
                    ]
                )
            return {"bytes": (dataset(redis) - base) / len(rows), "entities": redis.send([("DBSIZE",)])[0]}

        empty.rounds = 0
        results = interleaved(ROUNDS, {"tidemark": ours, "texts": texts})
        print(f"{main.version}\nRedis {redis.version}")
        check("the entities in Redis", results["tidemark"][-1]["entities"], len(rows))
        packed, bare = median(results["tidemark"], "bytes"), median(results["texts"], "bytes")
        print(f"\n### redis-memory: {len(rows):,} entities, 4 features, {ROUNDS} rounds; must ≤ 0.65, aim ≤ 0.3\n")
        table(["", "bytes an entity", "ratio", "spread"], [
            ["Tidemark: packed, version and instants included", f"{packed:.1f}", f"**{packed / bare:.2f}**", f"{spread(results['tidemark'], 'bytes'):.2f}"],
            ["a hash of texts for each", f"{bare:.1f}", "1.00", f"{spread(results['texts'], 'bytes'):.2f}"],
        ])


main.is_checked = False


def as_float(value):
    return None if value is None else float(value)


def text(value):
    """As a client writes it; an empty window has no sum."""
    return "" if value is None else f"{value:.17g}"


def fields(redis):
    """Fields of all buckets: one an entity (docs/redis-layout.md)."""
    keys = [key for key in redis.send([("KEYS", "tidemark:*}:*")])[0]]
    return sum(int(count) for count in redis.send([("HLEN", key) for key in keys]))


if __name__ == "__main__":
    main()
