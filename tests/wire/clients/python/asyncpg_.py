"""asyncpg: everything in binary, pools and their reset, arrays, COPY by records, cursors, listeners, introspection."""

import asyncio
import io
import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import asyncpg

AT = datetime(2026, 3, 2, 10, 0, 0, 123456, tzinfo=timezone.utc)
ROW = (
    1, True, -7, 70000, 1.5, 0.1, Decimal("12345.678"), "grüße 🦀\t\\", b"\x00\xff", date(2026, 2, 28), time(1, 2, 3, 4),
    AT.replace(tzinfo=None), AT, timedelta(days=3, seconds=7), [1, None, 2**62], ["a,b", None, ""], [0.5, -2.0],
)


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


async def refused(state, awaited):
    try:
        await awaited
    except asyncpg.PostgresError as error:
        expect(error.sqlstate, state)
        return error
    raise AssertionError(f"nothing was refused, expected {state}")


async def main(port):
    where = {"host": "127.0.0.1", "port": port, "user": "tidemark", "database": "tidemark"}
    pool = await asyncpg.create_pool(**where, min_size=2, max_size=4)
    async with pool.acquire() as c:
        assert c.get_server_version().major >= 15
        marks = ", ".join(f"${n}" for n in range(1, len(ROW) + 1))
        await c.execute(f"INSERT INTO everything VALUES ({marks})", *ROW)
        await c.execute("INSERT INTO everything (id) VALUES ($1)", 2)
        expect(tuple(await c.fetchrow("SELECT * FROM everything WHERE id = $1", 1)), ROW)
        expect(tuple(await c.fetchrow("SELECT * FROM everything WHERE id = $1", 2)), (2, *[None] * (len(ROW) - 1)))
        expect(await c.fetchval("SELECT id FROM everything WHERE words = $1", ROW[15]), 1)

        # COPY: asyncpg asks for the columns' types and writes binary
        events = [(7, Decimal("9.50"), "a", AT), (8, None, "b", AT), (7, Decimal("0.50"), None, AT + timedelta(seconds=1))]
        expect(await c.copy_records_to_table("clicks", records=events), "COPY 3")
        expect(await c.copy_records_to_table(
            "labels", records=[(n, AT, None) for n in range(1000)], columns=["user_id", "at", "bought"], schema_name="public",
        ), "COPY 1000")
        out = io.BytesIO()
        expect(await c.copy_from_query("SELECT user_id, page FROM clicks WHERE user_id = $1", 8, output=out, format="csv"), "COPY 1")
        expect(out.getvalue(), b"8,b\n")
        out = io.BytesIO()
        expect(await c.copy_from_table("labels", columns=["user_id"], output=out, format="csv", header=True), "COPY 1000")
        expect(await c.copy_to_table("labels", source=io.BytesIO(b"2000,,t\n"), format="csv"), "COPY 1")

        # UUIDs, 16 bytes each way
        await c.execute("CREATE TABLE asyncpg_devices (id UUID PRIMARY KEY, parent UUID)")
        one, two = UUID(int=1), UUID(int=2)
        await c.execute("INSERT INTO asyncpg_devices VALUES ($1, $2), ($3, NULL)", one, two, two)
        expect(await c.fetchval("SELECT parent FROM asyncpg_devices WHERE id = $1", one), two)
        expect(await c.fetchval("SELECT count(*) FROM asyncpg_devices WHERE id = ANY($1::uuid[])", [one, two]), 2)
        expect(await c.fetchval("SELECT count(*) FROM asyncpg_devices WHERE id = ANY($1)", [one, two]), 2)
        expect(await c.copy_records_to_table("asyncpg_devices", records=[(UUID(int=3), None)]), "COPY 1")
        await c.execute("DROP TABLE asyncpg_devices")

        # Lookups
        expect(dict(await c.fetchrow("SELECT * FROM spend WHERE user_id = $1", 7)), {
            "user_id": 7, "at": AT + timedelta(seconds=1), "clicks": 2, "total": Decimal("10.00"), "last_page": None})
        found = await c.fetch("SELECT user_id, total FROM spend WHERE user_id = ANY($1::bigint[])", [8, 7, 9])
        expect(sorted(map(tuple, found)), [(7, Decimal("10.00")), (8, None)])
        expect(await c.fetch("SELECT total FROM spend WHERE user_id = $1", 9), [])
        expect(await c.fetchval("SELECT views FROM pages WHERE page = $1 AND user_id = $2", "a", 7), 1)
        many = await c.fetchmany("SELECT clicks FROM spend WHERE user_id = $1", [(7,), (8,)])
        expect([row[0] for row in many], [2, 1])

        # What a statement says of itself
        statement = await c.prepare("SELECT total, at, clicks, last_page FROM spend WHERE user_id = $1")
        expect([p.name for p in statement.get_parameters()], ["int8"])
        expect([(a.name, a.type.name) for a in statement.get_attributes()],
               [("total", "numeric"), ("at", "timestamptz"), ("clicks", "int8"), ("last_page", "text")])
        expect(await statement.fetchval(8, column=3), "b")
        assert "Lookup" in str(await c.fetch("EXPLAIN SELECT total FROM spend WHERE user_id = 7"))

        # executemany, blocks, cursors
        await c.executemany("INSERT INTO labels VALUES ($1, $2, $3)", [(3000 + n, AT, True) for n in range(50)])
        async with c.transaction(isolation="repeatable_read", readonly=True):
            await refused_in_block(c)
        async with c.transaction():
            expect(len([row async for row in c.cursor("SELECT user_id FROM labels", prefetch=100)]), 1051)
            cursor = await c.cursor("SELECT user_id FROM labels WHERE user_id < $1 ORDER BY user_id", 100)
            expect([row[0] for row in await cursor.fetch(5)], [0, 1, 2, 3, 4])
            expect((await cursor.fetchrow())[0], 5)
            expect(await cursor.forward(4), 4)
            expect((await cursor.fetchrow())[0], 10)
            cursor = await c.cursor("SELECT user_id FROM labels WHERE user_id < $1 ORDER BY user_id", 100)
            expect(await cursor.forward(98), 98)
            expect([row[0] for row in await cursor.fetch(5)], [98, 99])
            expect(await cursor.forward(1), 0)
        await refused("42P01", c.fetch("SELECT * FROM nothing"))
        assert isinstance(await refused("23505", c.execute(f"INSERT INTO everything VALUES ({marks})", *ROW)), asyncpg.UniqueViolationError)
        await refused("22012", c.fetch("SELECT 1 / $1::int", 0))

        # A timeout of the client's cancels on the server, and the connection goes on
        try:
            await c.execute("SELECT pg_sleep(60)", timeout=0.3)
            raise AssertionError("not ended")
        except asyncio.TimeoutError:
            pass
        expect(await c.fetchval("SELECT 1"), 1)

        heard = asyncio.get_running_loop().create_future()
        def hear(*said):
            heard.set_result(said[2:])

        await c.add_listener("news", hear)
        await c.execute("NOTIFY news, 'hello'")
        expect(await asyncio.wait_for(heard, 5), ("news", "hello"))
        await c.remove_listener("news", hear)
        # A codec of the user's: asyncpg looks the type up
        await c.set_type_codec("numeric", encoder=str, decoder=float, schema="pg_catalog", format="text")
        expect(await c.fetchval("SELECT total FROM spend WHERE user_id = $1", 7), 10.0)
        await c.execute("SET application_name = 'mine'")

    # What a connection had set is gone when the pool lends it again
    for _ in range(8):
        async with pool.acquire() as c:
            expect(await c.fetchval("SHOW application_name"), "")

    async def one(key):
        return await pool.fetchval("SELECT clicks FROM spend WHERE user_id = $1", key)

    expect(await asyncio.gather(*(one(7 + n % 3) for n in range(60))), [2, 1, None] * 20)
    await pool.expire_connections()
    expect(await pool.fetchval("SELECT $1::int[]", [[1, 2], [3, 4]][0]), [1, 2])
    await pool.close()


async def refused_in_block(c):
    try:
        async with c.transaction():
            await c.execute("INSERT INTO labels VALUES (1, NULL, NULL)")
        raise AssertionError("written in a block that only reads")
    except asyncpg.ReadOnlySQLTransactionError:
        pass
    expect(await c.fetchval("SELECT 4"), 4)


asyncio.run(main(int(sys.argv[1])))
print("ok")
