"""The events of the window benchmarks, by one formula that DuckDB (which writes them for COPY), Flink (which generates them) and the
kernel (kernel.rs) compute alike; and the view over them.

Event i happens at the epoch + i steps, on a key scattered by multiplication. Prices are sixteenths: sums are exact in every engine
in whatever order, so values are compared to the last bit.
"""

import duck

EPOCH = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"
KEY_FACTOR, PRICE_FACTOR, MODULUS = 1103515245, 40503, 2147483648
COLUMNS = "user_id BIGINT NOT NULL, price DOUBLE PRECISION NOT NULL, event_time TIMESTAMPTZ NOT NULL"
FEATURES = [("count(*)", "short", "n"), ("sum(price)", "short", "total"), ("sum(price)", "long", "total_long"), ("max(price)", "long", "most_long")]
NAMES = [name for _, _, name in FEATURES]


def rows_sql(events, keys, step_ms, order="i"):
    """DuckDB's SELECT of the events; `order` is what they arrive by."""
    return f"""SELECT (i * {KEY_FACTOR} % {MODULUS} // 8) % {keys} AS user_id, (i * {PRICE_FACTOR} % 4096)::DOUBLE / 16 AS price,
                      {EPOCH} + to_microseconds(i * {step_ms * 1000}) AS event_time
               FROM range({events}) r(i) ORDER BY {order}"""


def write_csv(path, events, keys, step_ms, order="i"):
    duck.execute(":memory:", f"COPY ({rows_sql(events, keys, step_ms, order)}) TO '{path}' (FORMAT csv, HEADER)")


def read_csv(path):
    return f"read_csv('{path}', types = {{'event_time': 'TIMESTAMPTZ'}})"


def instant(event, step_ms):
    return f"{EPOCH} + INTERVAL '{event * step_ms} milliseconds'"


def source(name, slack_ms=1):
    watermark = f"WATERMARK FOR event_time AS event_time - INTERVAL '{slack_ms} milliseconds'"
    return f"CREATE SOURCE {name} ({COLUMNS}, {watermark}) WITH (clock = 'event')"


def select_sql(source, short_ms, long_ms):
    """The four features at every event: a feature view's query and, as it stands, DuckDB's."""
    columns = ", ".join(f"{sql} OVER {window} AS {name}" for sql, window, name in FEATURES)
    frame = "PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '{} milliseconds' PRECEDING AND CURRENT ROW"
    windows = f"WINDOW short AS ({frame.format(short_ms)}), long AS ({frame.format(long_ms)})"
    return f"SELECT user_id, event_time, {columns} FROM {source} {windows}"


def mixed_sql(source, short_ms, long_ms, which):
    """Two of the four features, and two of its own: no two `which` below 100 have the same."""
    own = [f"{sql} OVER {window} AS own{i}" for i, (sql, window) in enumerate((
        (f"sum(price) FILTER (WHERE price < {which})", "short"), (f"count(*) FILTER (WHERE price > {which})", "long")))]
    shared = [f"{sql} OVER {window} AS {name}" for sql, window, name in FEATURES][which % 3:which % 3 + 2]
    frame = "PARTITION BY user_id ORDER BY event_time RANGE BETWEEN INTERVAL '{} milliseconds' PRECEDING AND CURRENT ROW"
    windows = f"WINDOW short AS ({frame.format(short_ms)}), long AS ({frame.format(long_ms)})"
    return f"SELECT user_id, event_time, {', '.join(shared + own)} FROM {source} {windows}"


TOTALS = "count(*), sum(n), sum(total), sum(total_long), sum(most_long)"


def totals_of_history(view):
    """What the view held at its events, out of its committed history."""
    return f"SELECT {TOTALS} FROM history.{view} WHERE _op = 'upsert' AND _event_time = event_time"


def flink_source(name, events, keys, step_ms):
    return f"""CREATE TABLE {name} (i BIGINT, user_id AS MOD(MOD(i * {KEY_FACTOR}, {MODULUS}) / 8, {keys}),
  price AS CAST(MOD(i * {PRICE_FACTOR}, 4096) AS DOUBLE) / 16, event_time AS TO_TIMESTAMP_LTZ(1767225600000 + i * {step_ms}, 3),
  WATERMARK FOR event_time AS event_time - INTERVAL '0.001' SECOND)
  WITH ('connector' = 'datagen', 'number-of-rows' = '{events}', 'rows-per-second' = '1000000000',
        'fields.i.kind' = 'sequence', 'fields.i.start' = '0', 'fields.i.end' = '{events - 1}')"""


def flink_interval(ms):
    days, rest = divmod(ms, 86_400_000)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"INTERVAL '{days:02} {hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}' DAY TO SECOND(3)"


def flink_select(source, short_ms, long_ms):
    """One OVER operator has one window, so the second reads the first."""
    frame = "(PARTITION BY user_id ORDER BY event_time RANGE BETWEEN {} PRECEDING AND CURRENT ROW)"
    short, long = (frame.format(flink_interval(ms)) for ms in (short_ms, long_ms))
    inner = f"SELECT user_id, event_time, price, count(*) OVER {short} AS n, sum(price) OVER {short} AS total FROM {source}"
    return f"SELECT user_id, n, total, sum(price) OVER {long} AS total_long, max(price) OVER {long} AS most_long FROM ({inner})"


FLINK_SINK = (
    "CREATE TABLE nowhere (user_id BIGINT, n BIGINT, total DOUBLE, total_long DOUBLE, most_long DOUBLE) WITH ('connector' = 'blackhole')"
)
FLINK_TOTALS_SINK = "CREATE TABLE shown (r BIGINT, n BIGINT, total DOUBLE, total_long DOUBLE, most_long DOUBLE) WITH ('connector' = 'print')"
