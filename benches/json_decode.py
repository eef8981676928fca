"""Decoding 150-byte messages of JSON into columns, beside `serde_json` to a struct: json.rs measures and compares the values."""

import statistics
import subprocess

from bare import program
from measure import number, table

EVENTS = number("JSON_EVENTS", 500_000)
ROUNDS = number("ROUNDS", 3)


def main():
    done = subprocess.run([program("json"), str(EVENTS), str(ROUNDS)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"benchmark stopped: {done.stderr[-2000:]}")
    print("checked: the values of all fields of all messages are equal")
    cases = {}
    for line in done.stdout.splitlines():
        order, size, *nanoseconds = line.split(",")
        cases.setdefault((order, size), []).append([float(ns) for ns in nanoseconds])
    print(f"\n### json: {EVENTS:,} messages of 8 fields, {ROUNDS} rounds; must ≤ 0.7 in order; aim ≤ 0.3, and ≤ 1.0 shuffled\n")
    lines = []
    for (order, size), rounds in cases.items():
        ours, owned, borrowed = (statistics.median(column) for column in zip(*rounds))
        spread = max(row[0] for row in rounds) / min(row[0] for row in rounds)
        lines.append([order, size, f"{ours:.0f}", f"{owned:.0f}", f"{borrowed:.0f}", f"**{ours / owned:.2f}**", f"{ours / borrowed:.2f}", f"{spread:.2f}"])
    table(["fields", "bytes", "Tidemark, columns, ns", "serde_json, own texts, ns", "borrowed texts, ns", "ratio", "ratio to borrowed", "spread"], lines)


if __name__ == "__main__":
    main()
