"""psycopg 3: text and binary, prepared, pools, pipeline, server cursors, COPY, cancel, errors."""

import asyncio
import sys
import threading
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types import TypeInfo
from psycopg_pool import AsyncConnectionPool, ConnectionPool

WHERE = f"host=127.0.0.1 port={sys.argv[1]} user=tidemark dbname=tidemark"
AT = datetime(2026, 3, 2, 10, 0, 0, 123456, tzinfo=timezone.utc)
ROW = (
    1, True, -7, 70000, 1.5, 0.1, Decimal("12345.678"), "grüße 🦀\t\\", b"\x00\xff", date(2026, 2, 28), time(1, 2, 3, 4),
    AT.replace(tzinfo=None), AT, timedelta(days=3, seconds=7), [1, None, 2**62], ["a,b", None, ""], [0.5, -2.0],
)
MARKS = "(" + ", ".join(["%s"] * len(ROW)) + ")"


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def refused(state, run):
    try:
        run()
    except psycopg.Error as error:
        expect(error.sqlstate, state)
        return error
    raise AssertionError(f"nothing was refused, expected {state}")


with psycopg.connect(WHERE, autocommit=True) as c:
    assert c.info.server_version >= 150000 and c.info.parameter_status("TimeZone")

    # Every type, there and back, in text and in binary, prepared by the server from the fifth time on
    for binary in (False, True):
        placeholder = "%b" if binary else "%t"
        c.execute("DELETE FROM everything WHERE id = 1")
        marks = MARKS.replace("%s", placeholder)
        c.execute(f"INSERT INTO everything VALUES {marks}", ROW)
        for _ in range(7):
            cursor = c.cursor(binary=binary)
            expect(cursor.execute(f"SELECT * FROM everything WHERE id = {placeholder}", (1,)).fetchone(), ROW)
    c.execute(f"INSERT INTO everything VALUES {MARKS}", (2, *[None] * (len(ROW) - 1)))
    expect(c.execute("SELECT * FROM everything WHERE id = 2").fetchone(), (2, *[None] * (len(ROW) - 1)))
    expect(c.execute("SELECT id FROM everything WHERE longs = %s", (ROW[14],)).fetchall(), [(1,)])
    expect(c.execute("SELECT %s::jsonb->>'a', %s::json->'b'->>0", ('{"a": "x"}', '{"b": [7]}')).fetchone(), ("x", "7"))

    # A time zone of the session is that of what comes back, and the instant is the same
    c.execute("SET TimeZone = 'America/New_York'")
    back = c.execute("SELECT at FROM everything WHERE id = 1").fetchone()[0]
    expect((back, back.utcoffset()), (AT, timedelta(hours=-5)))
    c.execute("RESET TimeZone")

    # COPY both ways
    events = [(7, Decimal("9.50"), "a", AT), (8, Decimal("1.25"), "b", AT), (7, None, None, AT + timedelta(seconds=30))]
    with c.cursor().copy("COPY clicks FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int8", "numeric", "text", "timestamptz"])
        for event in events:
            copy.write_row(event)
    for form in ("text", "binary"):
        with c.cursor().copy(f"COPY (SELECT * FROM clicks ORDER BY at, user_id) TO STDOUT (FORMAT {form})") as copy:
            copy.set_types(["int8", "numeric", "text", "timestamptz"])
            expect(list(copy.rows()), [events[0], events[1], events[2]])

    # Lookups
    for binary in (False, True):
        cursor = c.cursor(binary=binary, row_factory=dict_row)
        found = cursor.execute("SELECT * FROM spend WHERE user_id = %s", (7,)).fetchone()
        expect(found, {"user_id": 7, "at": AT + timedelta(seconds=30), "clicks": 2, "total": Decimal("9.50"), "last_page": None})
        cursor = c.cursor(binary=binary)
        found = cursor.execute("SELECT user_id, total FROM spend WHERE user_id = ANY(%s)", ([8, 7, 9],)).fetchall()
        expect(sorted(found), [(7, Decimal("9.50")), (8, Decimal("1.25"))])
        expect(cursor.execute("SELECT views FROM pages WHERE page = %s AND user_id = %s", ("a", 7)).fetchall(), [(1,)])
        expect(cursor.execute("SELECT total FROM spend WHERE user_id = %s", (9,)).fetchone(), None)
    names = sql.SQL("SELECT {} FROM {} WHERE user_id = {}").format(
        sql.Identifier("last_page"), sql.Identifier("public", "spend"), sql.Literal(8))
    expect(c.execute(names).fetchone(), ("b",))

    # Errors
    refused("42P01", lambda: c.execute("SELECT * FROM nothing"))
    refused("42703", lambda: c.execute("SELECT nothing FROM spend"))
    refused("42601", lambda: c.execute("SELEC 1"))
    refused("22012", lambda: c.execute("SELECT 1 / %s::int", (0,)))
    refused("22P02", lambda: c.execute("SELECT %s::int", ("x",)))
    twice = refused("23505", lambda: c.execute(f"INSERT INTO everything VALUES {MARKS}", ROW))
    assert isinstance(twice, psycopg.errors.UniqueViolation) and "everything" in twice.diag.message_primary
    refused("23502", lambda: c.execute("INSERT INTO clicks (price) VALUES (1)"))

    # Blocks: an error within one refuses all until it ends
    with c.transaction():
        expect(c.execute("SELECT 1").fetchone(), (1,))
        with c.transaction():
            expect(c.execute("SELECT 2").fetchone(), (2,))
    def broken():
        with c.transaction():
            refused("22012", lambda: c.execute("SELECT 1/0"))
            c.execute("SELECT 1")
    refused("25P02", broken)
    expect(c.info.transaction_status, psycopg.pq.TransactionStatus.IDLE)

    # executemany is pipelined
    cursor = c.cursor()
    cursor.executemany("INSERT INTO labels VALUES (%s, %s, %s)", [(n, AT, n % 2 == 0) for n in range(500)])
    expect(cursor.rowcount, 500)
    cursor.executemany("SELECT bought FROM labels WHERE user_id = %s", [(2,), (3,)], returning=True)
    found = [cursor.fetchone()]
    while cursor.nextset():
        found.append(cursor.fetchone())
    expect(found, [(True,), (False,)])
    with c.pipeline() as pipeline:
        cursors = [c.execute("SELECT %s::bigint * 2", (n,)) for n in range(20)]
        pipeline.sync()
        expect([one.fetchone()[0] for one in cursors], list(range(0, 40, 2)))
        bad = c.execute("SELECT 1/0")
        refused("22012", lambda: (pipeline.sync(), bad.fetchone()))
    expect(c.execute("SELECT 3").fetchone(), (3,))

    # Server cursors, streams
    with c.transaction(), c.cursor(name="portions") as cursor:
        cursor.itersize = 60
        cursor.execute("SELECT user_id FROM labels ORDER BY user_id")
        expect([n for (n,) in cursor], list(range(500)))
    with c.cursor(name="held", withhold=True) as cursor:
        cursor.execute("SELECT user_id FROM labels WHERE user_id < %s ORDER BY user_id", (10,))
        expect(cursor.fetchmany(3), [(0,), (1,), (2,)])
        expect(len(cursor.fetchall()), 7)
    for size in (1, 100):
        expect(sum(n for (n,) in c.cursor().stream("SELECT user_id FROM labels", size=size)), 124750)

    # What the catalog says
    expect(TypeInfo.fetch(c, "timestamptz").oid, 1184)
    expect(c.cursor().execute("SELECT total, clicks, at, last_page FROM spend").description[0].type_display, "numeric(38,2)")

    # Cancel
    threading.Timer(0.3, c.cancel_safe).start()
    refused("57014", lambda: c.execute("SELECT pg_sleep(60)"))
    c.execute("SET statement_timeout = '100ms'")
    refused("57014", lambda: c.execute("SELECT pg_sleep(60)"))
    c.execute("RESET statement_timeout")

    # LISTEN
    c.execute("LISTEN news")
    c.execute("SELECT pg_notify('news', 'hello')")
    expect([(n.channel, n.payload) for n in c.notifies(timeout=5, stop_after=1)], [("news", "hello")])


def reset(connection):
    connection.autocommit = True
    connection.execute("DISCARD ALL")
    connection.autocommit = False


with ConnectionPool(WHERE, min_size=2, max_size=4, reset=reset, check=ConnectionPool.check_connection) as pool:
    pool.wait()
    for _ in range(10):
        with pool.connection() as connection:
            expect(connection.execute("SHOW application_name").fetchone(), ("",))
            connection.execute("SET application_name = 'mine'")
            expect(connection.execute("SELECT clicks FROM spend WHERE user_id = %s", (7,), prepare=True).fetchone(), (2,))


async def together():
    async with AsyncConnectionPool(WHERE, min_size=1, max_size=4, open=False) as pool:
        async def one(key):
            async with pool.connection() as connection:
                cursor = await connection.execute("SELECT clicks FROM spend WHERE user_id = %s", (key,))
                return await cursor.fetchone()
        expect(await asyncio.gather(*(one(7 + n % 3) for n in range(30))), [(2,), (1,), None] * 10)


asyncio.run(together())
print("ok")
