"""DuckDB as an anchor: every measured query in a fresh process over a database file, so that rounds are independent and
its memory can be read."""

import json
import os
import resource
import subprocess
import sys
import time


def run(database, query, setup=()):
    """Wall and CPU seconds of `query` alone, the process's greatest resident size, and the rows."""
    order = json.dumps({"database": str(database), "setup": list(setup), "query": query})
    done = subprocess.run([sys.executable, __file__], input=order, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"DuckDB: {query}\n{done.stderr}")
    return json.loads(done.stdout)


def execute(database, *statements):
    """Statements that are not measured; the rows of the last."""
    import duckdb

    with duckdb.connect(str(database)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


def version():
    import duckdb

    return f"DuckDB {duckdb.__version__}"


def main():
    import duckdb

    order = json.load(sys.stdin)
    connection = duckdb.connect(order["database"])
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET threads = {os.cpu_count()}")
    for statement in order["setup"]:
        connection.execute(statement)
    cpu_before, begun = time.process_time(), time.perf_counter()
    rows = connection.execute(order["query"]).fetchall()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu_before
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"wall": wall, "cpu": cpu, "rss_mib": rss_mib, "rows": rows}, sys.stdout, default=str)


if __name__ == "__main__":
    main()
