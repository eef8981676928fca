"""The training set against the definition of its features, which DuckDB's own windows compute from the raw events.

    by_definition.py EVENTS.csv TRAIN.parquet

Nothing of Tidemark is read but its answer. Events and questions stand in one relation; a window function over it gives
every question what the events up to its instant say. One quarter of the year: the other three take three times as long.
"""

import sys

import duckdb

# View: its key, its events, and {feature: its definition}. h1, h3, d1, d7 and ever are the windows.
VIEWS = {
    "origin_delays": (
        ["origin"],
        "event <> 'arrived'",
        {
            "departures_1h": "count(*) FILTER (event = 'departed') OVER h1",
            "departures_3h": "count(*) FILTER (event = 'departed') OVER h3",
            "departures_24h": "count(*) FILTER (event = 'departed') OVER d1",
            "delay_mean_1h": "sum(dep_delay) OVER h1 / count(dep_delay) OVER h1",
            "delay_mean_24h": "sum(dep_delay) OVER d1 / count(dep_delay) OVER d1",
            "delay_max_3h": "max(dep_delay) OVER h3",
            "late_share_1h": "count(*) FILTER (dep_delay > 15) OVER h1 / nullif(count(dep_delay) OVER h1, 0)",
            "backlog_3h": "count(*) FILTER (event = 'scheduled') OVER h3"
            " - count(*) FILTER (event IN ('departed', 'cancelled')) OVER h3",
        },
    ),
    "carrier_week": (
        ["carrier"],
        "event <> 'arrived'",
        {
            "scheduled_7d": "count(*) FILTER (event = 'scheduled') OVER d7",
            "cancellations_7d": "count(*) FILTER (event = 'cancelled') OVER d7",
            "delay_mean_7d": "sum(dep_delay) OVER d7 / count(dep_delay) OVER d7",
        },
    ),
    "route_delays": (
        ["origin", "dest"],
        "event = 'arrived'",
        {
            "arrivals_7d": "count(event) OVER d7",
            "any_very_late_7d": "bool_or(arr_delay > 180) OVER d7",
            "air_time_best": "min(air_time) OVER ever",
        },
    ),
}
FRAMES = {
    "h1": "INTERVAL 1 HOUR",
    "h3": "INTERVAL 3 HOURS",
    "d1": "INTERVAL 24 HOURS",
    "d7": "INTERVAL 7 DAYS",
    "ever": "UNBOUNDED",
}
UNTIL = "2013-04-01 00:00:00+00"


def differing(connection, keys, condition, features):
    """(questions, those with events before them, values that differ)."""
    key = ", ".join(keys)
    windows = ", ".join(
        f"{name} AS (PARTITION BY {key} ORDER BY t RANGE BETWEEN {frame} PRECEDING AND CURRENT ROW)"
        for name, frame in FRAMES.items()
    )
    computed = ", ".join(f"{definition} AS d_{name}" for name, definition in features.items())
    # Before its first event a key has no row.
    differ = " + ".join(
        f"count(*) FILTER ({name} IS DISTINCT FROM CASE WHEN known > 0 THEN d_{name} END)" for name in features
    )
    return connection.sql(
        f"""WITH both_kinds AS (
              SELECT {key}, event_time AS t, event, dep_delay, arr_delay, air_time, NULL AS flight_id
              FROM events WHERE {condition}
              UNION ALL BY NAME
              SELECT {key}, asked_at AS t, flight_id FROM train),
            defined AS (SELECT flight_id, count(event) OVER ever AS known, {computed} FROM both_kinds WINDOW {windows})
            SELECT count(*), count(*) FILTER (known > 0), {differ}
            FROM train JOIN defined USING (flight_id)"""
    ).fetchone()


def main():
    events, train = sys.argv[1:]
    connection = duckdb.connect()
    connection.sql("SET TimeZone = 'UTC'")
    connection.read_csv(events, header=True).filter(f"event_time < '{UNTIL}'").create("events")
    connection.read_parquet(train).filter(f"asked_at < '{UNTIL}'").create("train")
    wrong = 0
    for view, (keys, condition, features) in VIEWS.items():
        questions, known, different = differing(connection, keys, condition, features)
        print(f"{view:<15} {questions:,} questions x {len(features)} features, {known:,} with events before them")
        print(f"{'':<15} {different:,} values differ from their definition")
        wrong += different + (questions == 0)
    if wrong:
        sys.exit("the training set is not what the definitions say")


if __name__ == "__main__":
    main()
