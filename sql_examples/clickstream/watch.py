#!/usr/bin/env python3
"""Shows features while they change: lookups through the Postgres wire a few times a second, and how fresh they are.

    watch.py PORT SECONDS        SECONDS 0: until Ctrl-C
"""
import sys
import time

import psycopg

USERS = [0, 1, 2, 3, 5, 8, 13, 21]
LOOKUPS = 200


def screen(database, began):
    lines = [f"Tidemark clickstream, {time.monotonic() - began:5.1f} s", ""]
    lines.append(f"{'user':>5} {'events 10s':>11} {'buys 5m':>8} {'spent 5m':>9}   quiet for")
    rows = database.execute(
        "SELECT user_id, events_10s, buys_5m, spent_5m, quiet_for FROM user_activity WHERE user_id = ANY(%s)", [USERS]
    ).fetchall()
    for user, events, buys, spent, quiet in sorted(rows):
        lines.append(f"{user:>5} {events:>11} {buys:>8} {spent or 0:>9.2f}   {quiet}")
    times = []
    for n in range(LOOKUPS):
        before = time.perf_counter()
        database.execute("SELECT buys_5s, spent_5s FROM user_bursts WHERE user_id = %s", [USERS[n % len(USERS)]]).fetchone()
        times.append(time.perf_counter() - before)
    times.sort()
    lines.append("")
    lines.append(
        f"{LOOKUPS} lookups one after the other: p50 {times[LOOKUPS // 2] * 1e6:.0f} us, "
        f"p99 {times[LOOKUPS * 99 // 100] * 1e6:.0f} us (Python and the wire included)"
    )
    newest = database.execute("SELECT extract(epoch FROM clock_timestamp() - max(sent)) * 1000 FROM clicks WHERE at > now() - INTERVAL '10 seconds'").fetchone()[0]
    if newest is not None:
        lines.append(f"newest event that can be read was sent {float(newest):.0f} ms ago")
    for name, state, events, lag, letters in database.execute(
        "SELECT p.name, p.state, p.events, p.partitions::text, (SELECT count(*) FROM tidemark.dead_letters) "
        "FROM tidemark.pipelines p WHERE p.kind = 'source'"
    ).fetchall():
        lines.append(f"source {name} {state}: {events} events, {letters} dead letters, partitions {lag}")
    return lines


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    began = time.monotonic()
    with psycopg.connect(host="127.0.0.1", port=port, user="tidemark", dbname="tidemark", autocommit=True) as database:
        while seconds == 0 or time.monotonic() - began < seconds:
            lines = screen(database, began)
            if sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            print("\n".join(lines), flush=True)
            time.sleep(0.5)


try:
    main()
except KeyboardInterrupt:
    pass
