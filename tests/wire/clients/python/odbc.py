"""psqlODBC, as BI tools use it: unixODBC's driver manager under pyodbc; results by a declared cursor and all at once."""

import sys
from datetime import datetime
from decimal import Decimal

import pyodbc

AT = datetime(2026, 3, 2, 10)
PLACE = f"Driver=PostgreSQL Unicode;Servername=127.0.0.1;Port={sys.argv[1]};Database=tidemark;UID=tidemark;SSLmode=disable"


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def refused(state, run):
    try:
        run()
    except pyodbc.Error as error:
        expect(error.args[0], state)
        return
    raise AssertionError(f"nothing was refused, expected {state}")


for first, options in enumerate(("", ";UseDeclareFetch=1;Fetch=100", ";UseServerSidePrepare=0")):
    c = pyodbc.connect(PLACE + options, autocommit=True)
    k = c.cursor()
    user, other = first * 100 + 7, first * 100 + 8
    k.executemany("INSERT INTO clicks (user_id, price, page, at) VALUES (?, ?, ?, ?)", [
        (user, Decimal("9.50"), "a", AT), (other, None, "b", AT), (user, Decimal("0.50"), None, AT)])
    found = k.execute("SELECT user_id, clicks, total, last_page FROM spend WHERE user_id = ?", user).fetchall()
    expect([tuple(row) for row in found], [(user, 2, Decimal("10.00"), None)])
    expect(k.execute("SELECT total FROM spend WHERE user_id = ?", 99_999).fetchone(), None)
    k.execute("INSERT INTO everything (id, flag, twice, word, raw, at, day) VALUES (?, ?, ?, ?, ?, ?, ?)",
              user, True, 0.1, "it's grüße", b"\x00\xff", AT, AT.date())
    row = k.execute("SELECT twice, word, raw, day, vector FROM everything WHERE id = ?", user).fetchone()
    expect(tuple(row), (0.1, "it's grüße", b"\x00\xff", AT.date(), None))
    k.execute("INSERT INTO labels SELECT n, NULL, NULL FROM generate_series(0, 999) AS g (n)")
    expect(len(k.execute("SELECT user_id FROM labels WHERE user_id < 500").fetchall()), 500 * (first + 1))
    # What a BI tool lists
    listed = {(t.table_schem, t.table_name, t.table_type) for t in k.tables(schema="public")}
    assert {("public", "spend", "VIEW"), ("public", "clicks", "TABLE"), ("public", "totals", "VIEW")} <= listed, listed
    columns = [(column.column_name, column.type_name) for column in k.columns("spend", schema="public")]
    expect(columns, [("user_id", "int8"), ("at", "timestamptz"), ("clicks", "int8"), ("total", "numeric"), ("last_page", "text")])
    expect([key.column_name for key in k.primaryKeys("everything", schema="public")], ["id"])
    expect([key.column_name for key in k.primaryKeys("pages", schema="public")], ["page", "user_id"])
    refused("42P01", lambda: k.execute("SELECT * FROM nothing").fetchall())
    refused("23505", lambda: k.execute("INSERT INTO everything (id) VALUES (?)", user))
    c.autocommit = False
    expect(k.execute("SELECT clicks FROM spend WHERE user_id = ?", user).fetchval(), 2)
    c.commit()
    c.close()
print("ok")
