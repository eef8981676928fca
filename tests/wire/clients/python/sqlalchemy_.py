"""SQLAlchemy 2 over psycopg 3, psycopg 2 and asyncpg: reflection, Core, the ORM, streams, its pool."""

import asyncio
import sys
from datetime import datetime, timezone
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

PLACE = f"tidemark@127.0.0.1:{sys.argv[1]}/tidemark"
AT = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def reflection(connection):
    found = sa.inspect(connection)
    assert {"public", "history", "tidemark"} <= set(found.get_schema_names()), found.get_schema_names()
    expect(found.default_schema_name, "public")
    expect(set(found.get_table_names()), {"clicks", "everything", "labels"})
    expect(set(found.get_view_names()), {"spend", "pages", "totals"})
    expect(set(found.get_view_names("history")) | set(found.get_table_names("history")), {"spend", "pages"})
    expect([found.has_table(name) for name in ("clicks", "spend", "nothing")], [True, True, False])
    expect([(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns("spend")], [
        ("user_id", "BIGINT", True), ("at", "TIMESTAMP", True), ("clicks", "BIGINT", True),
        ("total", "NUMERIC(38, 2)", True), ("last_page", "TEXT", True)])
    assert found.get_columns("spend")[1]["type"].timezone
    expect([(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns("everything")][:7], [
        ("id", "BIGINT", False), ("flag", "BOOLEAN", True), ("small", "SMALLINT", True), ("whole", "INTEGER", True),
        ("single", "REAL", True), ("twice", "DOUBLE PRECISION", True), ("money", "NUMERIC(12, 3)", True)])
    expect([str(c["type"]) for c in found.get_columns("everything")][7:14], [
        "TEXT", "BYTEA", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP", "INTERVAL"])
    expect([str(c["type"].item_type) for c in found.get_columns("everything")[14:]], ["BIGINT", "TEXT", "REAL"])
    expect(found.get_columns("spend")[3]["comment"], "the sum of prices")
    expect(found.get_table_comment("spend"), {"text": "what a user spent"})
    expect(found.get_pk_constraint("everything")["constrained_columns"], ["id"])
    # A feature view's entity key is its primary key.
    expect(found.get_pk_constraint("spend")["constrained_columns"], ["user_id"])
    expect(found.get_pk_constraint("pages")["constrained_columns"], ["page", "user_id"])
    expect(found.get_pk_constraint("labels")["constrained_columns"], [])
    for nothing in (found.get_foreign_keys, found.get_unique_constraints, found.get_check_constraints):
        expect(nothing("everything"), [])
    expect([index["column_names"] for index in found.get_indexes("everything")], [])
    for nothing in (found.get_sequence_names, found.get_temp_table_names, found.get_enums, found.get_materialized_view_names):
        expect(nothing(), [])
    assert "spend" in found.get_view_definition("totals")
    assert "sum(price)" in found.get_view_definition("spend")


def core(engine, first):
    """`first`: where the keys begin of which nobody else knows."""
    everything = sa.MetaData()
    everything.reflect(engine, views=True)
    expect(set(everything.tables), {"clicks", "everything", "labels", "spend", "pages", "totals"})
    clicks, spend, labels, values = (everything.tables[name] for name in ("clicks", "spend", "labels", "everything"))
    expect([column.name for column in spend.primary_key], ["user_id"])
    mine = labels.c.user_id.between(first, first + 999)
    with engine.begin() as c:
        c.execute(sa.insert(clicks), [
            {"user_id": first + 7, "price": Decimal("9.50"), "page": "a", "at": AT},
            {"user_id": first + 8, "price": None, "page": "b", "at": AT}])
        found = c.execute(sa.select(spend.c.total, spend.c.at).where(spend.c.user_id == first + 7))
        expect(found.all(), [(Decimal("9.50"), AT)])
        users = [first + 7, first + 8, first + 9]
        found = c.execute(sa.select(spend.c.user_id, spend.c.total).where(spend.c.user_id.in_(users)).order_by(spend.c.user_id))
        expect(found.all(), [(first + 7, Decimal("9.50")), (first + 8, None)])
        expect(c.scalar(sa.select(sa.func.count()).select_from(spend).where(spend.c.total > 5, spend.c.user_id >= first)), 1)
        c.execute(sa.insert(labels), [{"user_id": first + n, "at": AT, "bought": n % 2 == 0} for n in range(400)])
        changed = sa.update(labels).where(labels.c.user_id == first + 3).values(bought=True).returning(labels.c.user_id)
        expect(c.execute(changed).all(), [(first + 3,)])
        expect(c.execute(sa.delete(labels).where(mine, labels.c.user_id >= first + 390)).rowcount, 10)
        # ON CONFLICT, RETURNING, many rows in one statement
        rows = [{"id": first + n, "word": f"w{n}", "longs": [n, None], "money": Decimal("1.500")} for n in range(3)]
        expect(sorted(c.scalars(sa.insert(values).returning(values.c.id), rows).all()), [first, first + 1, first + 2])
        c.execute(insert(values).values(rows).on_conflict_do_nothing())
        expect(c.scalar(sa.select(sa.func.count()).select_from(values).where(values.c.id >= first)), 3)
        found = c.execute(sa.select(values.c.longs, values.c.money, values.c.flag).where(values.c.id == first + 2))
        expect(found.one(), ([2, None], Decimal("1.500"), None))
    with engine.connect() as c:
        streamed = c.execution_options(stream_results=True, yield_per=50).execute(sa.select(labels.c.user_id).where(mine))
        expect([len(part) for part in streamed.partitions()], [50] * 7 + [40])
    for level in ("AUTOCOMMIT", "REPEATABLE READ", "SERIALIZABLE"):
        with engine.connect().execution_options(isolation_level=level) as c:
            expect(c.scalar(sa.text("SELECT clicks FROM spend WHERE user_id = :user"), {"user": first + 7}), 1)
    for statement, state in (("SELECT * FROM nothing", "42P01"), ("SELECT 1/0", "22012")):
        with engine.connect() as c:
            try:
                c.execute(sa.text(statement))
                raise SystemExit(f"{statement} was not refused")
            except sa.exc.DBAPIError as error:
                expect(getattr(error.orig, "sqlstate", None) or error.orig.pgcode, state)
    # What SQLAlchemy makes and drops itself
    own = sa.MetaData()
    sa.Table("made", own, sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False), sa.Column("said", sa.Text))
    own.create_all(engine)
    own.create_all(engine)
    expect(sa.inspect(engine).get_pk_constraint("made")["constrained_columns"], ["id"])
    own.drop_all(engine)
    expect(sa.inspect(engine).has_table("made"), False)


class Base(orm.DeclarativeBase):
    pass


class Spend(Base):
    __tablename__ = "spend"
    user_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True)
    clicks: orm.Mapped[int]
    total: orm.Mapped[Decimal | None]


class Thing(Base):
    __tablename__ = "everything"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    word: orm.Mapped[str | None]
    flag: orm.Mapped[bool | None]


def objects(engine, first):
    with orm.Session(engine) as session:
        expect(session.get(Spend, first + 7).total, Decimal("9.50"))
        expect(session.get(Spend, first + 99), None)
        session.add_all([Thing(id=first + n, word="new") for n in (100, 101)])
        session.flush()
        session.get(Thing, first + 100).word = "changed"
        session.commit()
        found = session.scalars(sa.select(Thing.word).where(Thing.id >= first + 100).order_by(Thing.id))
        expect(found.all(), ["changed", "new"])
        session.delete(session.get(Thing, first + 101))
        session.commit()
        expect(session.get(Thing, first + 101), None)


async def asynchronous():
    engine = create_async_engine(f"postgresql+asyncpg://{PLACE}", pool_size=2)
    async with engine.connect() as c:
        await c.run_sync(reflection)
    async with async_sessionmaker(engine)() as session:
        expect((await session.get(Spend, 7)).total, Decimal("9.50"))
        found = await session.execute(sa.select(Spend.user_id).where(Spend.user_id.in_([7, 8, 9])).order_by(Spend.user_id))
        expect(found.scalars().all(), [7, 8])
        session.add(Thing(id=50_000, word="new"))
        await session.commit()
        expect(await session.scalar(sa.select(Thing.word).where(Thing.id == 50_000)), "new")
    async with engine.connect() as c:
        found = await c.stream(sa.text("SELECT user_id FROM labels WHERE user_id < 1000"))
        expect(len([row async for row in found]), 390)
    await engine.dispose()


for first, driver in ((0, "psycopg"), (10_000, "psycopg2")):
    engine = sa.create_engine(f"postgresql+{driver}://{PLACE}", pool_size=2, pool_pre_ping=True)
    with engine.connect() as connection:
        reflection(connection)
    core(engine, first)
    objects(engine, first)
    engine.dispose()
asyncio.run(asynchronous())
print("ok")
