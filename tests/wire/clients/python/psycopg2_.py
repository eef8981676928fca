"""psycopg 2: everything as text, values lists, named cursors, COPY, pools, sessions."""

import io
import sys
import threading
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

WHERE = f"host=127.0.0.1 port={sys.argv[1]} user=tidemark dbname=tidemark"
AT = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def refused(state, run):
    try:
        run()
    except psycopg2.Error as error:
        expect(error.pgcode, state)
        return error
    raise AssertionError(f"nothing was refused, expected {state}")


connection = psycopg2.connect(WHERE)
connection.autocommit = True
cursor = connection.cursor()
cursor.execute(
    "INSERT INTO everything VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
    (1, True, -7, 70000, 1.5, 0.1, Decimal("12345.678"), "it's \\ 🦀", psycopg2.Binary(b"\x00\xff"), AT.date(),
     AT.time(), AT.replace(tzinfo=None), AT, timedelta(days=3, seconds=7), [1, None, 3], ["a,b", None, ""], [0.5, -2.0]))
cursor.execute("SELECT * FROM everything WHERE id = %s", (1,))
found = list(cursor.fetchone())
found[8] = bytes(found[8])
expect(found, [1, True, -7, 70000, 1.5, 0.1, Decimal("12345.678"), "it's \\ 🦀", b"\x00\xff", AT.date(), AT.time(),
               AT.replace(tzinfo=None), AT, timedelta(days=3, seconds=7), [1, None, 3], ["a,b", None, ""], [0.5, -2.0]])

rows = [(7, Decimal("9.50"), "a", AT), (8, None, "b", AT), (7, Decimal("0.50"), "c", AT + timedelta(seconds=1))]
psycopg2.extras.execute_values(cursor, "INSERT INTO clicks VALUES %s", rows)
expect(cursor.rowcount, 3)
fields = psycopg2.extras.RealDictCursor
with connection.cursor(cursor_factory=fields) as named:
    named.execute("SELECT * FROM spend WHERE user_id IN %s ORDER BY user_id", ((7, 8, 9),))
    expect([dict(row) for row in named], [
        {"user_id": 7, "at": AT + timedelta(seconds=1), "clicks": 2, "total": Decimal("10.00"), "last_page": "c"},
        {"user_id": 8, "at": AT, "clicks": 1, "total": None, "last_page": "b"}])
cursor.execute("SELECT total FROM spend WHERE user_id = %(user)s AND user_id = ANY(%(users)s)", {"user": 7, "users": [7, 8]})
expect(cursor.fetchall(), [(Decimal("10.00"),)])

psycopg2.extras.execute_batch(cursor, "INSERT INTO labels VALUES (%s, %s, %s)", [(n, AT, n % 2 == 0) for n in range(300)])
psycopg2.extras.execute_batch(cursor, "UPDATE labels SET bought = %s WHERE user_id = %s", [(None, 0), (None, 1)])
cursor.execute("SELECT count(*), count(bought) FROM labels")
expect(cursor.fetchone(), (300, 298))
cursor.execute("SELECT 1; SELECT 2")
expect(cursor.fetchall(), [(2,)])

out = io.StringIO()
cursor.copy_expert("COPY (SELECT user_id, bought FROM labels WHERE user_id < 3 ORDER BY user_id) TO STDOUT CSV HEADER", out)
expect(out.getvalue(), "user_id,bought\n0,\n1,\n2,t\n")
cursor.copy_from(io.StringIO("1000\t2026-03-02 10:00:00+00\t\\N\n"), "labels")
cursor.copy_to(out := io.StringIO(), "labels", columns=("user_id",))
expect(len(out.getvalue().splitlines()), 301)

expect(refused("42P01", lambda: cursor.execute("SELECT * FROM nothing")).__class__, psycopg2.errors.UndefinedTable)
refused("22P02", lambda: cursor.execute("SELECT 'x'::int"))
connection.autocommit = False
with connection:
    cursor.execute("SELECT count(*) FROM labels")
with connection, connection.cursor("portions") as portions:
    portions.itersize = 70
    portions.execute("SELECT user_id FROM labels ORDER BY user_id")
    expect(sum(1 for _ in portions), 301)
refused("22012", lambda: cursor.execute("SELECT 1/0"))
refused("25P02", lambda: cursor.execute("SELECT 1"))
connection.rollback()
cursor.execute("SAVEPOINT a")
refused("22012", lambda: cursor.execute("SELECT 1/0"))
cursor.execute("ROLLBACK TO SAVEPOINT a")
cursor.execute("SELECT 5")
expect(cursor.fetchone(), (5,))
connection.rollback()
with connection.cursor("held", withhold=True) as held:
    held.execute("SELECT user_id FROM labels ORDER BY user_id")
    connection.commit()
    expect(held.fetchmany(2), [(0,), (1,)])
connection.commit()

connection.set_session(readonly=True, isolation_level="REPEATABLE READ", autocommit=False)
refused("25006", lambda: cursor.execute("INSERT INTO labels VALUES (1, NULL, NULL)"))
connection.rollback()
connection.set_session(readonly=False, isolation_level="DEFAULT", autocommit=True)
psycopg2.extras.register_uuid()
threading.Timer(0.3, connection.cancel).start()
refused("57014", lambda: cursor.execute("SELECT pg_sleep(60)"))
cursor.execute("LISTEN news; NOTIFY news, 'hello'")
connection.poll()
expect([(one.channel, one.payload) for one in connection.notifies], [("news", "hello")])
connection.reset()
connection.close()

pool = psycopg2.pool.ThreadedConnectionPool(1, 3, WHERE)
for _ in range(6):
    connection = pool.getconn()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clicks FROM spend WHERE user_id = %s", (7,))
        expect(cursor.fetchone(), (2,))
    pool.putconn(connection)
pool.closeall()
print("ok")
