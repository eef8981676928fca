"""Reads a feature view's history with engines that are not Tidemark, and shows that they agree.

    read_history.py WAREHOUSE TABLE KEYCOL TIMECOL                    rows as CSV, sorted by (key, time) as text
    read_history.py WAREHOUSE TABLE KEYCOL TIMECOL --asof SPINE.csv   DuckDB's own ASOF LEFT JOIN, in the spine's order
    read_history.py WAREHOUSE TABLE KEYCOL TIMECOL --comments         what the table says of its columns, as CSV
    read_history.py WAREHOUSE TABLE KEYCOL TIMECOL --catalog URI      the catalog is in this database, as SQLAlchemy names it

KEYCOL may be several names with commas between. SPINE.csv has a header with the key columns and TIMECOL (and anything
else); every spine row comes back once, with the row that was current at its time, or empty cells. A `delete` row means
that the key had no features then.

PyIceberg reads through the SQLite catalog named `tidemark`, DuckDB from the table's current metadata file. Both must
give the same rows, or the exit status is 1. Where the tables are in a bucket, WAREHOUSE is the folder of the catalog, and
AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say how to read it.
"""

import argparse
import csv
import datetime
import decimal
import glob
import importlib.util
import os
import sys
import urllib.parse

import duckdb
from pyiceberg.catalog.sql import SqlCatalog


def connect():
    """DuckDB in UTC with the Iceberg extension from wheels: nothing is downloaded."""
    con = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("avro", "httpfs", "iceberg"):
        folder = os.path.dirname(importlib.util.find_spec("duckdb_extension_" + name).origin)
        file = glob.glob(f"{folder}/extensions/v{duckdb.__version__}/{name}.duckdb_extension")[0]
        con.sql(f"LOAD '{file}'")
    con.sql("SET TimeZone = 'UTC'")
    bucket = object_store()
    if "s3.access-key-id" in bucket:
        known = [
            f"key_id {literal(bucket['s3.access-key-id'])}",
            f"secret {literal(bucket['s3.secret-access-key'])}",
            f"region {literal(bucket.get('s3.region', 'us-east-1'))}",
        ]
        if "s3.endpoint" in bucket:
            scheme, _, host = bucket["s3.endpoint"].partition("://")
            known += [f"endpoint {literal(host)}", "url_style 'path'", f"use_ssl {str(scheme == 'https').lower()}"]
        con.sql(f"CREATE SECRET (type s3, {', '.join(known)})")
    return con


def object_store():
    """What PyIceberg has to know of a bucket, from the usual environment; nothing for files."""
    names = {
        "s3.endpoint": "AWS_ENDPOINT_URL",
        "s3.region": "AWS_REGION",
        "s3.access-key-id": "AWS_ACCESS_KEY_ID",
        "s3.secret-access-key": "AWS_SECRET_ACCESS_KEY",
    }
    return {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}


def cell(value):
    """One spelling for a value, whichever engine it came from."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc)
        text = value.strftime("%Y-%m-%d %H:%M:%S.%f")
        return text + ("+00" if value.tzinfo is not None else "")
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, list):
        return "{" + ",".join("NULL" if item is None else cell(item) for item in value) + "}"
    return str(value)


def identifier(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("warehouse")
    arguments.add_argument("table")
    arguments.add_argument("key")
    arguments.add_argument("time")
    arguments.add_argument("--asof", metavar="SPINE.csv")
    arguments.add_argument("--comments", action="store_true")
    arguments.add_argument("--catalog", metavar="URI")
    options = arguments.parse_args()
    keys = options.key.split(",")
    warehouse = os.path.abspath(options.warehouse)

    # The catalog's name is part of its rows' key: under another name there are no tables.
    catalog = SqlCatalog(
        "tidemark",
        uri=options.catalog or "sqlite:///" + urllib.parse.quote(warehouse) + "/catalog.db",
        warehouse="file://" + warehouse,
        init_catalog_tables="false",
        **object_store(),
    )
    table = catalog.load_table(("public", options.table))
    out = csv.writer(sys.stdout, lineterminator="\n")
    if options.comments:
        out.writerow(["column", "comment"])
        out.writerows([field.name, field.doc or ""] for field in table.schema().fields)
        return
    arrow = table.scan().to_arrow()
    columns = arrow.schema.names
    order = [columns.index(name) for name in keys + [options.time]]

    def in_order(rows):
        return sorted(([cell(value) for value in row] for row in rows), key=lambda row: [row[i] for i in order])

    by_pyiceberg = in_order(zip(*(arrow.column(name).to_pylist() for name in columns)))

    con = connect()
    scan = f"iceberg_scan({literal(table.metadata_location.removeprefix('file://'))})"
    listed = ", ".join(map(identifier, columns))
    by_duckdb = in_order(con.sql(f"SELECT {listed} FROM {scan}").fetchall())

    if by_pyiceberg != by_duckdb:
        print(f"PyIceberg read {len(by_pyiceberg)} rows, DuckDB {len(by_duckdb)}", file=sys.stderr)
        differing = [pair for pair in zip(by_pyiceberg, by_duckdb) if pair[0] != pair[1]]
        for left, right in differing[:3]:
            print(f"PyIceberg {left}\nDuckDB    {right}", file=sys.stderr)
        sys.exit(1)

    if options.asof is None:
        out.writerow(columns)
        out.writerows(by_duckdb)
        return

    spine = f"read_csv({literal(options.asof)}, header = true, all_varchar = true)"
    types = dict(con.sql(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {scan})").fetchall())
    match = " AND ".join(f"CAST(s.{identifier(name)} AS {types[name]}) = h.{identifier(name)}" for name in keys)
    time = identifier(options.time)
    features = [name for name in columns if name not in keys]
    joined = con.sql(
        f"SELECT s.* EXCLUDE (row_number), {', '.join('h.' + identifier(name) for name in features)} "
        f"FROM (SELECT row_number() OVER () AS row_number, * FROM {spine}) s "
        f"ASOF LEFT JOIN {scan} h ON {match} AND CAST(s.{time} AS {types[options.time]}) >= h.{time} "
        f"ORDER BY s.row_number"
    )
    # The history's time column follows the spine's under a name of its own.
    names = joined.columns[: -len(features)] + [
        "history_" + name if name == options.time else name for name in features
    ]
    out.writerow(names)
    out.writerows([cell(value) for value in row] for row in joined.fetchall())


if __name__ == "__main__":
    main()
