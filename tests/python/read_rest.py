"""Reads a feature view's history behind a REST catalog with engines that are not Tidemark, and shows that they agree.

    read_rest.py URI NAMESPACE TABLE KEYCOL TIMECOL               (key, time) of every row as CSV, sorted
    read_rest.py URI NAMESPACE TABLE KEYCOL TIMECOL --overwrite   PyIceberg writes the same rows again, in files of its own

PyIceberg loads the table from the catalog, DuckDB attaches the catalog. AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY say how the files are read.
"""

import csv
import sys

from pyiceberg.catalog.rest import RestCatalog
from read_history import cell, connect, identifier, literal, object_store


def main():
    uri, namespace, name, key, time = sys.argv[1:6]
    catalog = RestCatalog("tidemark", uri=uri, **object_store())
    table = catalog.load_table((namespace, name))
    arrow = table.scan().to_arrow()
    if sys.argv[6:] == ["--overwrite"]:
        table.overwrite(arrow)
        return
    by_pyiceberg = sorted((cell(k), cell(t)) for k, t in zip(arrow[key].to_pylist(), arrow[time].to_pylist()))

    con = connect()
    con.sql(
        f"ATTACH '' AS lake (TYPE iceberg, ENDPOINT {literal(uri)}, AUTHORIZATION_TYPE 'none', "
        "ACCESS_DELEGATION_MODE 'none')"
    )
    rows = con.sql(f"SELECT {identifier(key)}, {identifier(time)} FROM lake.{identifier(namespace)}.{identifier(name)}")
    by_duckdb = sorted((cell(k), cell(t)) for k, t in rows.fetchall())
    if by_pyiceberg != by_duckdb:
        print(f"PyIceberg read {len(by_pyiceberg)} rows, DuckDB {len(by_duckdb)}", file=sys.stderr)
        sys.exit(1)
    csv.writer(sys.stdout, lineterminator="\n").writerows(by_duckdb)


if __name__ == "__main__":
    main()
