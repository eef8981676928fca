"""ADBC: Arrow tables both ways, by COPY in binary, and what it lists of the catalog."""

import sys
from datetime import datetime, timedelta, timezone

import adbc_driver_postgresql.dbapi
import pyarrow as pa

URL = f"postgresql://tidemark@127.0.0.1:{sys.argv[1]}/tidemark"
AT = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def adbc():
    with adbc_driver_postgresql.dbapi.connect(URL, autocommit=True) as c, c.cursor() as cursor:
        events = pa.table({
            "user_id": pa.array([7, 8, 7], pa.int64()), "page": ["a", "b", None],
            "at": pa.array([AT, AT, AT + timedelta(seconds=1)], pa.timestamp("us", tz="UTC"))})
        expect(cursor.adbc_ingest("clicks", events, mode="append"), 3)
        cursor.execute("INSERT INTO everything (id, twice, longs, words, at, day, raw, flag) VALUES"
                       " (1, 0.5, '{1,NULL}', '{a,NULL}', '2026-03-02 10:00:00+00', '2026-02-28', '\\x00ff', true), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
        cursor.execute("SELECT id, twice, longs, words, at, day, raw, flag FROM everything ORDER BY id")
        table = cursor.fetch_arrow_table()
        expect([str(field.type) for field in table.schema], [
            "int64", "double", "list<item: int64>", "list<item: string>", "timestamp[us, tz=UTC]", "date32[day]", "binary", "bool"])
        expect(table.column("longs").to_pylist(), [[1, None], None])
        expect(table.column("at").to_pylist(), [AT, None])
        expect(table.column("raw").to_pylist(), [b"\x00\xff", None])
        cursor.execute("SELECT user_id, clicks, last_page, at FROM spend WHERE user_id = $1", parameters=(7,))
        expect(cursor.fetchall(), [(7, 2, None, AT + timedelta(seconds=1))])
        cursor.execute("SELECT total FROM spend WHERE user_id = 9")
        expect(cursor.fetchall(), [])
        cursor.executemany("INSERT INTO labels VALUES ($1, NULL, $2)", [(n, n % 2 == 0) for n in range(20)])
        cursor.execute("SELECT count(*) FROM labels WHERE bought")
        expect(cursor.fetchone(), (10,))
        expect(str(c.adbc_get_table_schema("spend").field("clicks").type), "int64")
        assert "table" in c.adbc_get_table_types()
        listed = c.adbc_get_objects(depth="all", db_schema_filter="public").read_all().to_pylist()
        found = {t["table_name"]: t for t in listed[0]["catalog_db_schemas"][0]["db_schema_tables"]}
        assert {"clicks", "everything", "spend"} <= set(found), found
        # The driver asks for them in no order.
        columns = sorted(found["spend"]["table_columns"], key=lambda column: column["ordinal_position"])
        expect([column["column_name"] for column in columns],
               ["user_id", "at", "clicks", "total", "last_page"])
        keys = [k["constraint_column_names"] for k in found["everything"]["table_constraints"] if k["constraint_type"] == "PRIMARY KEY"]
        expect(keys, [["id"]])
        made = pa.table({"a": pa.array([1, 2, None], pa.int64()), "b": ["x", None, "z"], "c": [1.5, 2.5, None]})
        expect(cursor.adbc_ingest("made", made, mode="create"), 3)
        cursor.execute("SELECT * FROM made ORDER BY b")
        expect(cursor.fetch_arrow_table().to_pydict(), {"a": [1, None, 2], "b": ["x", "z", None], "c": [1.5, None, 2.5]})
        cursor.execute("DROP TABLE made")
        try:
            cursor.execute("SELECT * FROM nothing")
            cursor.fetchall()
            raise SystemExit("no error")
        except adbc_driver_postgresql.dbapi.Error as error:
            expect(error.sqlstate, "42P01")
    # As it is without being asked: in blocks
    with adbc_driver_postgresql.dbapi.connect(URL) as c, c.cursor() as cursor:
        cursor.execute("SELECT clicks FROM spend WHERE user_id = 8")
        expect(cursor.fetchone(), (1,))
        c.commit()


adbc()
print("ok")
