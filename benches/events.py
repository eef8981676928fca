"""The events that `lookup` and `ingest` (and the history part of `asof`) run on, made by DuckDB with fixed seeds.

One event every `step_us`, in order, uniformly random keys. Prices are sixteenths, so that sums are exact in every engine
and values can be compared to the last bit.
"""

import duck

EPOCH = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"

# The two windows hold about 6 and 60 events of a key.
COLUMNS = "user_id BIGINT NOT NULL, item_id BIGINT NOT NULL, price DOUBLE PRECISION NOT NULL, event_time TIMESTAMPTZ NOT NULL"


def write_csv(database, path, events, keys, step_us):
    duck.execute(
        database,
        f"""COPY (SELECT (hash(i, 42) % {keys})::BIGINT AS user_id, (hash(i, 43) % 1000)::BIGINT AS item_id,
                         (hash(i, 44) % 4096)::DOUBLE / 16 AS price,
                         {EPOCH} + to_microseconds(i * {step_us}) AS event_time
                  FROM range({events}) r(i)) TO '{path}' (FORMAT csv, HEADER)""",
    )


def last_instant(events, step_us):
    """SQL for the time of the last event: now, under the event clock."""
    return f"{EPOCH} + INTERVAL '{(events - 1) * step_us} microseconds'"


def source(name):
    return (
        f"CREATE SOURCE {name} ({COLUMNS}, WATERMARK FOR event_time AS event_time - INTERVAL '1 minute') "
        "WITH (clock = 'event')"
    )


def windows(short_us, long_us):
    frame = "PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '{} microseconds' PRECEDING AND CURRENT ROW"
    return f"WINDOW short AS ({frame.format(short_us)}), long AS ({frame.format(long_us)})"
