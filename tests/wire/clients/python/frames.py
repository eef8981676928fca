"""What data scientists read with: pandas, polars, connectorx and DuckDB's postgres extension."""

import glob
import os
import sys
from datetime import datetime, timezone

import connectorx
import duckdb
import duckdb_extension_postgres_scanner
import pandas
import polars
import sqlalchemy as sa

URL = f"postgresql://tidemark@127.0.0.1:{sys.argv[1]}/tidemark"
AT = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def with_pandas():
    engine = sa.create_engine(URL.replace("postgresql:", "postgresql+psycopg:"))
    events = pandas.DataFrame({"user_id": [7, 8, 7], "price": [9.5, None, 0.5], "page": ["a", "b", None], "at": [AT] * 3})
    events.to_sql("clicks", engine, if_exists="append", index=False)
    spend = pandas.read_sql("SELECT user_id, clicks, total, at FROM spend ORDER BY user_id", engine)
    expect(spend["clicks"].tolist(), [2, 1])
    expect([float(spend["total"][0]), bool(pandas.isna(spend["total"][1]))], [10.0, True])
    expect(spend["at"].dt.tz is not None, True)
    one = pandas.read_sql(sa.text("SELECT clicks FROM spend WHERE user_id = ANY(:users)"), engine, params={"users": [7, 9]})
    expect(one["clicks"].tolist(), [2])
    expect(pandas.read_sql_table("spend", engine).shape, (2, 5))
    made = pandas.DataFrame({"n": range(1000), "word": ["x"] * 1000, "real": [0.5] * 1000, "at": [AT] * 1000})
    made.to_sql("made", engine, index=False, if_exists="replace", method="multi", chunksize=200)
    made.to_sql("made", engine, index=False, if_exists="append")
    made.to_sql("made", engine, index=False, if_exists="replace")
    with engine.connect().execution_options(stream_results=True) as c:
        expect([len(part) for part in pandas.read_sql("SELECT * FROM made", c, chunksize=300)], [300, 300, 300, 100])


def with_polars():
    query = "SELECT user_id, clicks, at FROM spend ORDER BY user_id"
    for engine in ("connectorx", "adbc"):
        found = polars.read_database_uri(query, URL, engine=engine)
        expect(found["clicks"].to_list(), [2, 1])
        expect(found["at"].to_list(), [AT, AT])
    found = polars.read_database("SELECT user_id, clicks FROM spend WHERE user_id = 7", sa.create_engine(URL.replace("postgresql:", "postgresql+psycopg:")))
    expect(found.rows(), [(7, 2)])
    frame = polars.DataFrame({"a": [1, 2, None], "b": ["x", None, "z"]})
    for engine in ("adbc", "sqlalchemy"):
        place = URL if engine == "adbc" else URL.replace("postgresql:", "postgresql+psycopg:")
        frame.write_database("frame", place, engine=engine, if_table_exists="replace")
        frame.write_database("frame", place, engine=engine, if_table_exists="append")
        expect(polars.read_database_uri("SELECT a FROM frame", URL)["a"].sum(), 6)


def with_connectorx():
    for protocol in ("binary", "csv", "cursor"):
        found = connectorx.read_sql(URL, "SELECT n, word, \"real\", at FROM made", protocol=protocol, return_type="arrow")
        expect((found.num_rows, sum(found.column("n").to_pylist())), (1000, 499500))
    parts = connectorx.read_sql(URL, "SELECT n FROM made", partition_on="n", partition_num=3, return_type="arrow")
    expect(parts.num_rows, 1000)


def with_duckdb():
    c = duckdb.connect()
    folder = os.path.dirname(duckdb_extension_postgres_scanner.__file__)
    c.execute(f"LOAD '{glob.glob(folder + '/extensions/*/*.duckdb_extension')[0]}'")
    c.execute(f"ATTACH 'host=127.0.0.1 port={sys.argv[1]} user=tidemark dbname=tidemark' AS pg (TYPE postgres)")
    tables = {name for (name,) in c.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'pg' AND schema_name = 'public'").fetchall()}
    views = {name for (name,) in c.execute("SELECT view_name FROM duckdb_views() WHERE database_name = 'pg' AND schema_name = 'public'").fetchall()}
    assert {"clicks", "everything", "labels", "spend"} <= tables | views, (tables, views)
    expect(c.execute("SELECT user_id, clicks FROM pg.public.spend ORDER BY user_id").fetchall(), [(7, 2), (8, 1)])
    expect(c.execute("SELECT clicks FROM pg.spend WHERE user_id = 7").fetchall(), [(2,)])
    expect(c.execute("SELECT count(*), sum(n) FROM pg.made").fetchall(), [(1000, 499500)])
    expect(c.execute("SELECT count(*) FROM pg.made m JOIN pg.spend s ON s.user_id = m.n WHERE m.n < 10").fetchall(), [(2,)])
    expect(c.execute("SELECT * FROM postgres_query('pg', 'SELECT clicks FROM spend WHERE user_id = 8')").fetchall(), [(1,)])
    c.execute("CREATE TABLE pg.public.duck AS SELECT 1::BIGINT AS a, 'x' AS b")
    c.execute("INSERT INTO pg.public.duck VALUES (2, 'y')")
    expect(c.execute("SELECT a, b FROM pg.public.duck ORDER BY a").fetchall(), [(1, "x"), (2, "y")])
    c.execute("DROP TABLE pg.public.duck")


for run in (with_pandas, with_polars, with_connectorx, with_duckdb):
    run()
print("ok")
