"""The features of 1 and of 10 entities in a Python service: Tidemark through psycopg, beside Feast's SDK with its values in Redis.

The events and the view are the first of `keys`: ten features over two windows. Feast has the values that Tidemark shows, materialized as
its users do; Tidemark evaluates them at now. Each is read by one process in Feast's environment (`feast_client.py`), one request after the other.
"""

import csv
import json
import subprocess

import events
import keys
from bare import Redis
from measure import check, interleaved, median, number, spread, table
from servers import ROOT, Tidemark, World

SECONDS = number("SECONDS", 3)
ROUNDS = number("ROUNDS", 3)
ENTITIES = [1, 10]
PYTHON = ROOT / ".venv-feast/bin/python"
COLUMNS = keys.names(0)


class Client:
    """A running feast_client.py; what it says beside its answers goes into a file."""

    def __init__(self, folder, name, *arguments):
        self.log = open(folder / f"{name}.log", "w+", encoding="utf-8")
        # -P: no file of this folder hides a module of Feast's.
        command = [PYTHON, "-P", ROOT / "benches/feast_client.py", name, *map(str, arguments), *COLUMNS]
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.line()

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SystemExit(f"{self.process.args[3]}: {self.log.read()[-3000:]}")
        return line

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def prepare(world, tidemark):
    path = world.folder / "clicks.csv"
    events.write_csv(":memory:", path, keys.EVENTS, keys.KEYS, keys.STEP_US)
    tidemark.psql(events.source("clicks"), f"CREATE FEATURE VIEW v0 AS {keys.select_sql(0)}")
    tidemark.copy_in("clicks", path)
    path.unlink()
    header = ["user_id", *COLUMNS]
    with open(world.folder / "values.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(tidemark.rows(f"SELECT {', '.join(header)} FROM v0"))


def main():
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON} is missing: scripts/setup.sh bench")
    with World(Tidemark, Redis) as world:
        tidemark, redis = world.servers
        prepare(world, tidemark)
        clients = {}
        try:
            clients["Tidemark"] = Client(world.folder, "psycopg", tidemark.port, tidemark.user, tidemark.database, "v0")
            clients["Feast"] = Client(world.folder, "feast", redis.port, world.folder)
            version = subprocess.run([PYTHON, "-P", "-c", "import feast; print(feast.__version__)"], capture_output=True, text=True)
            print(f"{tidemark.version}\nFeast {version.stdout.strip()}, Redis {redis.version}")
            measured(clients)
        finally:
            for client in clients.values():
                client.stop()


def measured(clients):
    sample = [key * 7919 % (keys.KEYS + 10) for key in range(500)]
    for count in ENTITIES:
        parts = [sample[begin : begin + count] for begin in range(0, len(sample), count)]
        answers = [[client.ask(ask=part) for part in parts] for client in clients.values()]
        check(f"{len(sample)} entities, {count} at a time", *answers)
    rows = []
    for count in ENTITIES:
        asked = {"seconds": SECONDS, "entities": count, "keys": keys.KEYS}
        results = interleaved(ROUNDS, {name: lambda client=client: client.ask(**asked) for name, client in clients.items()})
        ours, theirs = results["Tidemark"], results["Feast"]
        rows.append(
            [
                count,
                f"{median(ours, 'rate'):,.0f}",
                f"{median(theirs, 'rate'):,.0f}",
                f"**{median(ours, 'rate') / median(theirs, 'rate'):.2f}**",
                f"{median(ours, 'p50'):.3f} / {median(ours, 'p99'):.3f}",
                f"{median(theirs, 'p50'):.3f} / {median(theirs, 'p99'):.3f}",
                f"{median(ours, 'cpu_us'):,.0f} / {median(theirs, 'cpu_us'):,.0f}",
                f"{spread(ours, 'rate'):.2f} / {spread(theirs, 'rate'):.2f}",
            ]
        )
    print(f"\n### feast: {keys.KEYS:,} entities, {len(COLUMNS)} features, one process in Python, {SECONDS} s × {ROUNDS} rounds\n")
    print("must: ≥1.5× Feast; aim: ≥3×\n")
    table(
        ["entities a request", "Tidemark /s", "Feast /s", "ratio", "p50 / p99 ms", "Feast's", "client's CPU µs (T / F)", "spread (T / F)"],
        rows,
    )


if __name__ == "__main__":
    main()
