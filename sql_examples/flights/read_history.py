#!/usr/bin/env python3
"""Reads the history of the feature views without Tidemark: PyIceberg finds the tables, DuckDB joins them.

    read_history.py [--data DIR] [--train TRAIN.PARQUET]

For every row of the training set that 05_training.sql wrote, and every feature that is stored as such, the plain as-of
join of DuckDB over the Iceberg table must give the same value, to the last bit. A history row holds from its instant
until the next one's, so no reader needs to know about windows. (Features with now() in them are stored as their base
and a formula; they are not compared here.)
"""

import argparse
import glob
import importlib.util
import os
import sys
from bisect import bisect_right
from urllib.parse import unquote, urlparse

import duckdb
from pyiceberg.catalog import load_catalog

# View, its key columns, its time column.
VIEWS = [
    ("origin_delays", ["origin"], "event_time"),
    ("origin_weather", ["origin"], "known_at"),
    ("carrier_week", ["carrier"], "event_time"),
    ("tail_recent", ["tailnum"], "event_time"),
    ("route_delays", ["origin", "dest"], "event_time"),
]


def with_iceberg():
    """DuckDB with the extensions that came as wheels: nothing is downloaded."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("avro", "httpfs", "iceberg"):
        package = os.path.dirname(importlib.util.find_spec("duckdb_extension_" + name).origin)
        pattern = f"{package}/extensions/v{duckdb.__version__}/{name}.duckdb_extension"
        connection.sql(f"LOAD '{glob.glob(pattern)[0]}'")
    connection.sql("SET TimeZone = 'UTC'")
    return connection


def path_of(location: str) -> str:
    return unquote(urlparse(location).path) if location.startswith("file:") else location


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def compare(connection, table, train, keys, time):
    """(rows compared, features compared, values that differ) of one view."""
    frontier = int(table.properties["tidemark.frontier-us"])
    connection.sql(
        f"CREATE OR REPLACE VIEW history AS FROM iceberg_scan('{path_of(table.metadata_location)}')"
    )
    connection.sql(f"CREATE OR REPLACE VIEW train AS FROM read_parquet('{train}')")
    stored = [field.name for field in table.schema().fields]
    asked = [row[0] for row in connection.sql("DESCRIBE train").fetchall()]
    # The table's own columns that the training set has under the same name, keys and time aside.
    features = [c for c in stored if c in asked and c not in keys and c != time and not c.startswith("_")]
    on = " AND ".join(f"t.{quoted(k)} = h.{quoted(k)}" for k in keys)
    differ = " + ".join(f"count(*) FILTER (WHERE t.{quoted(f)} IS DISTINCT FROM h.{quoted(f)})" for f in features)
    rows, different = connection.sql(
        f"""SELECT count(*), {differ}
            FROM (FROM train WHERE epoch_us(asked_at) < {frontier}) t
            ASOF LEFT JOIN history h ON {on} AND t.asked_at >= h.{quoted(time)}"""
    ).fetchone()
    return rows, features, different


def as_of(table, keys, values, time, instant, columns):
    """The same by hand, with PyIceberg alone: the last row of one key at or before an instant."""
    condition = " and ".join(f"{k} == '{v}'" for k, v in zip(keys, values))
    rows = table.scan(row_filter=condition, selected_fields=(time, "_op", *columns)).to_arrow().to_pylist()
    rows.sort(key=lambda row: row[time])
    at = bisect_right(rows, instant, key=lambda row: row[time]) - 1
    return None if at < 0 or rows[at]["_op"] == "delete" else {c: rows[at][c] for c in columns}


def main():
    parser = argparse.ArgumentParser(description="compare the training set with an as-of join over the Iceberg history")
    parser.add_argument("--data", default=".tidemark", help="the server's data directory")
    parser.add_argument("--train", default="train.parquet")
    arguments = parser.parse_args()
    warehouse = os.path.join(os.path.abspath(arguments.data), "warehouse")
    if not os.path.exists(os.path.join(warehouse, "catalog.db")):
        sys.exit(f"no catalog.db in {warehouse}; give the server's data directory with --data")
    catalog = load_catalog(
        "tidemark", type="sql", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}"
    )
    connection = with_iceberg()
    wrong = 0
    for view, keys, time in VIEWS:
        table = catalog.load_table(("public", view))
        rows, features, different = compare(connection, table, arguments.train, keys, time)
        print(f"{view:<15} {rows:>8,} rows x {len(features):>2} features: {different:,} values differ")
        wrong += different + (rows == 0) + (not features)

    view, keys, time = VIEWS[0]
    columns = ("departures_1h", "delay_mean_1h")
    flight, origin, asked_at, *expected = connection.sql(
        f"SELECT flight_id, origin, asked_at, {', '.join(columns)} FROM train WHERE delay_mean_1h > 50 ORDER BY flight_id LIMIT 1"
    ).fetchone()
    found = as_of(catalog.load_table(("public", view)), keys, [origin], time, asked_at, columns)
    print(f"PyIceberg alone, flight {flight} from {origin} asked at {asked_at:%Y-%m-%d %H:%M}: {found}")
    if found is None or list(found.values()) != expected:
        sys.exit(f"the training set has {expected}")
    if wrong:
        sys.exit("the history and the training set disagree")


if __name__ == "__main__":
    main()
