"""`make bench`: the benchmarks that were asked for, or all. Sizes are in the environment (docs/benchmarks.md)."""

import importlib
import sys

from measure import machine_line

ALL = ["lookup", "keys", "feast", "rows", "startup", "catalog", "asof", "asof-files", "ingest", "windows", "scale", "memory", "backfill"]
ALL += ["kafka", "freshness", "redis-memory", "json", "recovery"]
# A file json.py would hide Python's own, and feast.py Feast's.
MODULES = {"feast": "feast_sdk", "asof-files": "asof_files", "redis-memory": "redis_memory", "json": "json_decode"}


def main():
    chosen = sys.argv[1:] or ALL
    unknown = [name for name in chosen if name not in ALL]
    if unknown:
        raise SystemExit(f"no benchmark is called {unknown[0]}; there are {', '.join(ALL)}")
    print(machine_line(), flush=True)
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        importlib.import_module(MODULES.get(name, name)).main()


if __name__ == "__main__":
    main()
