"""One process that reads features in Python, by psycopg or by Feast's SDK; `feast_sdk.py` runs it in Feast's environment.

    feast_client.py psycopg PORT USER DATABASE RELATION COLUMN…
    feast_client.py feast PORT FOLDER COLUMN…    Redis's port; FOLDER has values.csv: user_id and the columns, as the server showed them

Says `ready`. Then for each line of JSON that it reads it writes one: {"ask": [keys…]} is answered with the features of each key, in
order; {"seconds": s, "entities": n, "keys": k} with what it came to in so many seconds, asking for n of k keys at a time.
"""

import json
import random
import sys
import time
from pathlib import Path


class Psycopg:
    """One connection, prepared statements, results in binary: what psycopg's manual recommends."""

    def __init__(self, port, user, database, relation, *columns):
        import psycopg

        self.connection = psycopg.connect(host="127.0.0.1", port=port, user=user, dbname=database, autocommit=True)
        self.cursor = self.connection.cursor(binary=True)
        names = ", ".join(columns)
        self.one = f"SELECT {names} FROM {relation} WHERE user_id = %s"
        self.several = f"SELECT user_id, {names} FROM {relation} WHERE user_id = ANY(%s)"

    def read(self, keys):
        if len(keys) == 1:
            return [self.cursor.execute(self.one, keys, prepare=True).fetchone()]
        rows = self.cursor.execute(self.several, [keys], prepare=True).fetchall()
        found = {row[0]: row[1:] for row in rows}
        return [found.get(key) for key in keys]


class Feast:
    """A feature view over a Parquet file, materialized to Redis; its registry is read once and kept."""

    def __init__(self, port, folder, *columns):
        from datetime import datetime, timedelta, timezone

        import pandas
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.repo_config import RegistryConfig
        from feast.types import Float64, Int64

        folder, made = Path(folder), datetime(2026, 1, 1, tzinfo=timezone.utc)
        values = pandas.read_csv(folder / "values.csv", float_precision="round_trip")
        values["made"] = pandas.Series([made] * len(values), dtype="datetime64[us, UTC]")
        values.to_parquet(folder / "values.parquet")
        config = RepoConfig(
            project="bench",
            provider="local",
            registry=RegistryConfig(path=str(folder / "registry.db"), cache_ttl_seconds=0),
            online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
            entity_key_serialization_version=3,
        )
        self.store = FeatureStore(config=config)
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
        is_whole = {column: values[column].dtype.kind == "i" for column in columns}
        view = FeatureView(
            name="features",
            entities=[user],
            schema=[Field(name=column, dtype=Int64 if is_whole[column] else Float64) for column in columns],
            source=FileSource(path=str(folder / "values.parquet"), timestamp_field="made"),
            ttl=timedelta(0),
        )
        self.store.apply([user, view])
        self.store.materialize(made - timedelta(days=1), made + timedelta(days=1))
        self.columns, self.features = columns, [f"features:{column}" for column in columns]

    def read(self, keys):
        answer = self.store.get_online_features(features=self.features, entity_rows=[{"user_id": key} for key in keys]).to_dict()
        return list(zip(*(answer[column] for column in self.columns)))


def run(client, seconds, entities, keys):
    choose = random.Random(42)
    for _ in range(20):
        client.read([choose.randrange(keys) for _ in range(entities)])
    latencies, cpu, begun = [], time.process_time(), time.perf_counter()
    now = begun
    while now - begun < seconds:
        asked = [choose.randrange(keys) for _ in range(entities)]
        sent = time.perf_counter()
        client.read(asked)
        now = time.perf_counter()
        latencies.append(now - sent)
    cpu = time.process_time() - cpu
    count = len(latencies)
    latencies.sort()
    at = lambda share: latencies[min(int(share * count), count - 1)] * 1000
    return {"rate": count / (now - begun), "p50": at(0.5), "p99": at(0.99), "cpu_us": cpu / count * 1e6}


def main():
    # What Feast says beside is no answer
    answers, sys.stdout = sys.stdout, sys.stderr
    client = {"psycopg": Psycopg, "feast": Feast}[sys.argv[1]](*sys.argv[2:])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "ask" in asked:
            answer = [None if row is None or all(cell is None for cell in row) else list(row) for row in client.read(asked["ask"])]
        else:
            answer = run(client, asked["seconds"], asked["entities"], asked["keys"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
