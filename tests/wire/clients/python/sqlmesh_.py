"""SQLMesh on its engine `postgres`, with its state in a DuckDB file: a seed, models of five kinds over a source and a feature view,
audits and a unit test, days that follow, a model that is changed in an environment of its own and then for all, and a second look at the same."""

import os
import sys
import tempfile
from pathlib import Path

os.environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"

import psycopg2  # noqa: E402
from sqlmesh import Context  # noqa: E402
from sqlmesh.core.config import (  # noqa: E402
    Config,
    DuckDBConnectionConfig,
    GatewayConfig,
    ModelDefaultsConfig,
    PostgresConnectionConfig,
)
from sqlmesh.utils.errors import PlanError  # noqa: E402

PORT = int(sys.argv[1])
MODELS = {
    "models/regions.sql": """
        MODEL (name shop.regions, kind SEED (path '../seeds/regions.csv'), columns (user_id BIGINT, region TEXT), grain user_id)
    """,
    "models/daily.sql": """
        MODEL (name shop.daily, kind INCREMENTAL_BY_TIME_RANGE (time_column day), start '2026-03-02', cron '@daily',
            grain (day, user_id), description 'clicks of a day',
            audits (not_null(columns := (day, user_id)), unique_combination_of_columns(columns := (day, user_id))));
        SELECT at::date AS day, user_id::BIGINT AS user_id, count(*)::BIGINT AS clicks, sum(price)::NUMERIC(12, 2) AS total
        FROM public.clicks WHERE at::date BETWEEN @start_date AND @end_date GROUP BY at::date, user_id
    """,
    "models/spenders.sql": """
        MODEL (name shop.spenders, kind FULL, start '2026-03-02', grain user_id, audits (unique_values(columns := (user_id))),
            column_descriptions (total = 'what a user spent'));
        SELECT s.user_id::BIGINT AS user_id, s.total::NUMERIC(12, 2) AS total, r.region::TEXT AS region
        FROM public.spend AS s LEFT JOIN shop.regions AS r ON r.user_id = s.user_id
    """,
    "models/by_region.sql": """
        MODEL (name shop.by_region, kind VIEW, start '2026-03-02');
        SELECT region::TEXT AS region, count(*)::BIGINT AS users, sum(total)::NUMERIC(12, 2) AS total FROM shop.spenders GROUP BY region
    """,
    "models/newest.sql": """
        MODEL (name shop.newest, kind INCREMENTAL_BY_UNIQUE_KEY (unique_key user_id), start '2026-03-02', cron '@daily');
        SELECT user_id::BIGINT AS user_id, max(day)::DATE AS day FROM shop.daily WHERE day BETWEEN @start_date AND @end_date GROUP BY user_id
    """,
    "seeds/regions.csv": "user_id,region\n7,north\n8,south\n",
    "tests/test_by_region.yaml": """
test_by_region:
  model: shop.by_region
  inputs:
    shop.spenders:
      rows:
        - {user_id: 1, total: 1.25, region: north}
        - {user_id: 2, total: 2.50, region: north}
  outputs:
    query:
      rows:
        - {region: north, users: 2, total: 3.75}
""",
}

server = psycopg2.connect(host="127.0.0.1", port=PORT, user="tidemark", password="none", dbname="tidemark")
server.autocommit = True
cursor = server.cursor()


def answer(sql):
    cursor.execute(sql)
    return cursor.fetchall()


def text(sql):
    return [tuple(None if cell is None else str(cell) for cell in row) for row in answer(sql)]


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def insert(*events):
    for event in events:
        cursor.execute("INSERT INTO clicks VALUES (%s, %s, %s, %s)", event)


def context(folder):
    config = Config(
        gateways={
            "tidemark": GatewayConfig(
                connection=PostgresConnectionConfig(host="127.0.0.1", port=PORT, user="tidemark", password="none", database="tidemark"),
                state_connection=DuckDBConnectionConfig(database=str(folder / "state.db"), concurrent_tasks=4),
                # A unit test runs where the models do
                test_connection=PostgresConnectionConfig(
                    host="127.0.0.1", port=PORT, user="tidemark", password="none", database="tidemark", register_comments=False),
            )
        },
        default_gateway="tidemark",
        model_defaults=ModelDefaultsConfig(dialect="postgres"),
    )
    return Context(paths=[str(folder)], config=config)


def apply(mesh, now, environment="prod", **more):
    """What a plan at that time makes: it covers the days that are over."""
    return mesh.plan(environment, execution_time=now, auto_apply=True, no_prompts=True, **more)


insert((7, "9.50", "a", "2026-03-02 10:00+00"), (8, "1.25", "b", "2026-03-02 11:00+00"), (7, "0.25", "a", "2026-03-03 10:00+00"))
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for path, content in MODELS.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content)
    mesh = context(folder)
    outcome = mesh.test()
    assert outcome.wasSuccessful() and outcome.testsRun == 1, outcome
    apply(mesh, "2026-03-04")
    days = "SELECT day, user_id, clicks, total FROM shop.daily ORDER BY day, user_id"
    first = [("2026-03-02", "7", "1", "9.50"), ("2026-03-02", "8", "1", "1.25"), ("2026-03-03", "7", "1", "0.25")]
    expect(text(days), first)
    expect(text("SELECT * FROM shop.spenders ORDER BY user_id"), [("7", "9.75", "north"), ("8", "1.25", "south")])
    expect(text("SELECT * FROM shop.by_region ORDER BY region"), [("north", "1", "9.75"), ("south", "1", "1.25")])
    expect(text("SELECT * FROM shop.newest ORDER BY user_id"), [("7", "2026-03-03"), ("8", "2026-03-02")])

    # Nothing has changed: nothing to do
    assert not context(folder).plan(execution_time="2026-03-04", no_prompts=True).requires_backfill

    # A day more, for all kinds: appended, made anew, merged
    insert((8, "2.00", "a", "2026-03-04 10:00+00"), (9, None, None, "2026-03-04 11:00+00"))
    mesh = context(folder)
    mesh.run(execution_time="2026-03-05", ignore_cron=True)
    later = [("2026-03-04", "8", "1", "2.00"), ("2026-03-04", "9", "1", None)]
    expect(text(days), first + later)
    expect(text("SELECT * FROM shop.newest ORDER BY user_id"), [("7", "2026-03-03"), ("8", "2026-03-04"), ("9", "2026-03-04")])
    expect(text("SELECT user_id, total FROM shop.spenders ORDER BY user_id"), [("7", "9.75"), ("8", "3.25"), ("9", None)])
    frame = mesh.fetchdf("SELECT region, users FROM shop.by_region ORDER BY region NULLS LAST")
    expect([(row.region, row.users) for row in frame.itertuples()], [("north", 1), ("south", 1), (None, 1)])
    expect(len(mesh.evaluate("shop.daily", start="2026-03-02", end="2026-03-04", execution_time="2026-03-05")), 5)

    # A column more, tried beside what is there, then for all
    changed = MODELS["models/spenders.sql"].replace("AS total, r.", "AS total, s.clicks::BIGINT AS clicks, r.")
    (folder / "models/spenders.sql").write_text(changed)
    mesh = context(folder)
    apply(mesh, "2026-03-05", "dev", include_unmodified=True)
    tried = "SELECT user_id, clicks FROM shop__dev.spenders ORDER BY user_id"
    expect(answer(tried), [(7, 2), (8, 2), (9, 1)])
    expect(text("SELECT * FROM shop.spenders WHERE user_id = 7"), [("7", "9.75", "north")])
    apply(mesh, "2026-03-05")
    expect(text("SELECT * FROM shop.spenders WHERE user_id = 7"), [("7", "9.75", "2", "north")])
    mesh.invalidate_environment("dev", sync=True)
    expect(answer("SELECT count(*) FROM pg_views WHERE schemaname = 'shop__dev'"), [(0,)])

    # A row that an audit refuses
    (folder / "models/regions.sql").write_text(MODELS["models/regions.sql"].replace("grain user_id", "grain user_id, audits (not_null(columns := (region)))"))
    (folder / "seeds/regions.csv").write_text("user_id,region\n7,north\n8,\n")
    try:
        apply(context(folder), "2026-03-05")
    except PlanError:
        pass
    else:
        raise AssertionError("the audit refused nothing")
    expect(text("SELECT * FROM shop.regions ORDER BY user_id"), [("7", "north"), ("8", "south")])
    expect(text("SELECT obj_description('shop.daily'::regclass, 'pg_class')"), [("clicks of a day",)])
print("ok")
