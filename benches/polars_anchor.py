"""Polars' `join_asof` over two Parquet files as an anchor, in a fresh process: a count, and sums of some columns."""

import json
import resource
import subprocess
import sys
import time


def run(labels, history, columns, is_sorted):
    """Wall and CPU seconds with reading, the process's greatest resident size, and one row as SQL would give it."""
    order = json.dumps({"labels": str(labels), "history": str(history), "columns": columns, "is_sorted": is_sorted})
    done = subprocess.run([sys.executable, __file__], input=order, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"Polars: {order}\n{done.stderr}")
    return json.loads(done.stdout)


def version():
    try:
        import polars
    except ImportError:
        return None
    return f"Polars {polars.__version__}"


def main():
    import polars

    order = json.load(sys.stdin)
    cpu_before, begun = time.process_time(), time.perf_counter()
    labels, history = polars.read_parquet(order["labels"]), polars.read_parquet(order["history"])
    if order["is_sorted"]:
        # Within each key history is in order already.
        joined = labels.sort("user_id", "ts").join_asof(history, on="ts", by="user_id", check_sortedness=False)
    else:
        joined = labels.sort("ts").join_asof(history.sort("ts"), on="ts", by="user_id")
    first, *_ = order["columns"]
    sums = joined.select(
        polars.len().alias("rows"),
        polars.col(first).count().alias("matched"),
        *(polars.col(column).sum().alias(f"sum_{column}") for column in order["columns"]),
    )
    rows = [list(row) for row in sums.rows()]
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu_before
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"wall": wall, "cpu": cpu, "rss_mib": rss_mib, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
