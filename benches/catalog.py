"""What clients ask of the catalog when there is a lot in it: psql's commands, the metadata queries of dbt and of JDBC, and the list of
features, with a thousand feature views of ten features each, beside PostgreSQL with as many views of as many columns.

psql's own statements are taken from psql (`-E`), on each server by itself, and sent as psql sends them; the time of a command is the
sum of its statements'. Must: under 50 ms each.
"""

import re
import subprocess
import time

from extended import Connection
from measure import check, interleaved, median, number, spread, table
from servers import Postgres, Tidemark, World

VIEWS = number("CATALOG_VIEWS", 1_000)
FEATURES = number("CATALOG_FEATURES", 10)
ROUNDS = number("ROUNDS", 3)
MUST_MS = 50
# Statements in one script of psql, to make the views.
BATCH = 100
# In the middle, for those that ask of one view.
NAME = f"v{VIEWS // 2}"

COMMANDS = [r"\d", r"\dv", rf"\d+ {NAME}", r"\dv v1*", r"\dn", r"\df", r"\l"]

QUERIES = {
    "dbt: relations of a schema": """
        select 'tidemark' as database, tablename as name, schemaname as schema, 'table' as type from pg_tables
        where schemaname ilike 'public'
        union all
        select 'tidemark' as database, viewname as name, schemaname as schema, 'view' as type from pg_views
        where schemaname ilike 'public'
        union all
        select 'tidemark' as database, matviewname as name, schemaname as schema, 'materialized_view' as type from pg_matviews
        where schemaname ilike 'public'""",
    "dbt: columns of a relation": f"""
        select column_name, data_type, character_maximum_length, numeric_precision, numeric_scale
        from information_schema.columns where table_name = '{NAME}' and table_schema = 'public' order by ordinal_position""",
    "dbt: catalog for docs": """
        select sch.nspname as table_schema, tbl.relname as table_name, case tbl.relkind when 'v' then 'VIEW' else 'BASE TABLE' end as
          table_type, tbl_desc.description as table_comment, col.attname as column_name, col.attnum as column_index,
          pg_catalog.format_type(col.atttypid, col.atttypmod) as column_type, col_desc.description as column_comment,
          pg_get_userbyid(tbl.relowner) as table_owner
        from pg_catalog.pg_namespace sch
        join pg_catalog.pg_class tbl on tbl.relnamespace = sch.oid
        join pg_catalog.pg_attribute col on col.attrelid = tbl.oid
        left outer join pg_catalog.pg_description tbl_desc on (tbl_desc.objoid = tbl.oid and tbl_desc.objsubid = 0)
        left outer join pg_catalog.pg_description col_desc on (col_desc.objoid = tbl.oid and col_desc.objsubid = col.attnum)
        where sch.nspname = 'public' and not pg_is_other_temp_schema(sch.oid) and tbl.relpersistence in ('p', 'u')
          and tbl.relkind in ('r', 'v', 'f', 'p', 'm') and col.attnum > 0 and not col.attisdropped
        order by sch.nspname, tbl.relname, col.attnum""",
    "JDBC: getTables": """
        select null as table_cat, n.nspname as table_schem, c.relname as table_name,
          case c.relkind when 'r' then 'TABLE' when 'v' then 'VIEW' when 'm' then 'MATERIALIZED VIEW' else null end as table_type,
          d.description as remarks
        from pg_catalog.pg_namespace n, pg_catalog.pg_class c
        left join pg_catalog.pg_description d on (c.oid = d.objoid and d.objsubid = 0 and d.classoid = 'pg_class'::regclass)
        where c.relnamespace = n.oid and n.nspname like 'public' and c.relkind in ('r', 'v', 'm')
        order by table_type, table_schem, table_name""",
    "JDBC: getColumns of one view": f"""
        select n.nspname, c.relname, a.attname, a.atttypid, a.attnotnull or (t.typtype = 'd' and t.typnotnull) as attnotnull, a.atttypmod,
          a.attlen, t.typtypmod, row_number() over (partition by a.attrelid order by a.attnum) as attnum,
          pg_catalog.pg_get_expr(def.adbin, def.adrelid) as adsrc, dsc.description, t.typbasetype, t.typtype
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_class c on (c.relnamespace = n.oid)
        join pg_catalog.pg_attribute a on (a.attrelid = c.oid)
        join pg_catalog.pg_type t on (a.atttypid = t.oid)
        left join pg_catalog.pg_attrdef def on (a.attrelid = def.adrelid and a.attnum = def.adnum)
        left join pg_catalog.pg_description dsc on (c.oid = dsc.objoid and a.attnum = dsc.objsubid)
        where c.relkind in ('r', 'p', 'v', 'f', 'm') and a.attnum > 0 and not a.attisdropped and n.nspname like 'public'
          and c.relname like '{NAME}'
        order by n.nspname, c.relname, attnum""",
    "all columns": "select table_name, column_name, data_type from information_schema.columns where table_schema = 'public'",
}
# What is only ours, beside PostgreSQL's nearest.
FEATURE_QUERIES = {
    "all features": (
        "select * from tidemark.features",
        "select * from information_schema.columns where table_schema = 'public'",
    ),
    "features found by name": (
        "select view, name, comment from tidemark.features where name like 'spend_7%'",
        "select table_name, column_name from information_schema.columns where table_schema = 'public' and column_name like 'spend_7%'",
    ),
}


def views_of(tidemark):
    """Statements that make a view each."""
    for i in range(VIEWS):
        if tidemark:
            window = f"(PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '{i + 1} seconds' PRECEDING AND CURRENT ROW)"
            columns = ", ".join(f"sum(x + {f}) OVER w AS spend_{f}_{i}" for f in range(FEATURES))
            yield f"CREATE FEATURE VIEW v{i} AS SELECT k, at, {columns} FROM c WINDOW w AS {window}"
        else:
            columns = ", ".join(f"x + {f} AS spend_{f}_{i}" for f in range(FEATURES))
            yield f"CREATE VIEW v{i} AS SELECT k, at, {columns} FROM c"


def prepare(tidemark, postgres):
    tidemark.psql(
        "CREATE SOURCE c (k BIGINT NOT NULL, x BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')"
    )
    postgres.psql("CREATE TABLE c (k BIGINT NOT NULL, x BIGINT, at TIMESTAMPTZ NOT NULL)")
    for server in (tidemark, postgres):
        begun = time.perf_counter()
        statements = list(views_of(server is tidemark))
        for begin in range(0, len(statements), BATCH):
            server.psql(*statements[begin : begin + BATCH])
        print(f"{server.name}: {VIEWS:,} views made in {time.perf_counter() - begun:.1f} s", flush=True)
    postgres.psql("VACUUM ANALYZE")


def statements_of(server, command):
    """What psql sends for one of its commands."""
    options = ["-X", "-E", "-h", "127.0.0.1", "-p", str(server.port), "-U", server.user, "-d", server.database, "-c", command]
    done = subprocess.run(["psql", *options], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{server.name}: psql {command}: {done.stderr}")
    return re.findall(r"^\*+ QUERY \*+\n(.*?)\n\*+$", done.stdout, re.MULTILINE | re.DOTALL)


class Simple(Connection):
    def query(self, sql):
        self.send((b"Q", sql.encode() + b"\0"))
        return self.until_ready()


def contender(server, statements):
    connection = Simple(server.port, server.user, server.database)

    def run():
        begun = time.perf_counter()
        rows = sum(len(connection.query(sql)) for sql in statements)
        return {"ms": (time.perf_counter() - begun) * 1000, "rows": rows}

    return run


def public_names(server, relkind):
    return server.rows(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        f"WHERE nspname = 'public' AND relkind = '{relkind}' ORDER BY relname"
    )


def main():
    with World(Tidemark, Postgres) as world:
        tidemark, postgres = world.servers
        print(f"{tidemark.version}\n{postgres.version}")
        prepare(tidemark, postgres)
        check(f"the names of {VIEWS:,} views", public_names(tidemark, "v"), public_names(postgres, "v"))
        features = tidemark.rows("SELECT count(*) FROM tidemark.features")
        columns = postgres.rows("SELECT count(*) FROM information_schema.columns WHERE column_name LIKE 'spend%'")
        check("the number of features", features, columns)
        asked = {command: (statements_of(tidemark, command), statements_of(postgres, command)) for command in COMMANDS}
        asked |= {name: ([sql], [sql]) for name, sql in QUERIES.items()}
        asked |= {name: ([ours], [theirs]) for name, (ours, theirs) in FEATURE_QUERIES.items()}
        rows, late = [], []
        for name, (ours, theirs) in asked.items():
            contenders = {
                postgres.name: contender(postgres, theirs),
                tidemark.name: contender(tidemark, ours),
            }
            # Once for what a first time makes, on both sides.
            for run in contenders.values():
                run()
            results = interleaved(ROUNDS, contenders)
            anchor, own = results[postgres.name], results[tidemark.name]
            ms = median(own, "ms")
            if ms > MUST_MS:
                late.append(name)
            rows.append(
                [
                    f"`{name}`" if name.startswith("\\") else name,
                    f"{median(own, 'rows'):,.0f}",
                    f"**{ms:.1f}**",
                    f"{median(anchor, 'ms'):.1f}",
                    f"{ms / median(anchor, 'ms'):.2f}",
                    f"{spread(own, 'ms'):.2f} / {spread(anchor, 'ms'):.2f}",
                ]
            )
        print(f"\n### catalog: {VIEWS:,} views of {FEATURES} features, {ROUNDS} rounds; must: under {MUST_MS} ms each\n")
        table(["what is asked", "rows", "Tidemark ms", "PostgreSQL ms", "ratio", "spread (T / PG)"], rows)
        print(f"\nover {MUST_MS} ms: {', '.join(late) if late else 'none'}")


if __name__ == "__main__":
    main()
