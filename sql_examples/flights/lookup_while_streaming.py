#!/usr/bin/env python3
"""Looks features up on one connection while another streams events in, and checks every answer.

    lookup_while_streaming.py [--dsn DSN] [--events N] [--chunk N]

A source of its own is filled by COPY, a chunk at a time. What COPY has acknowledged, every later lookup on any
connection must see; so a lookup that counts fewer events than were acknowledged before it, or more than were sent when
it returned, is a wrong answer and ends the program.
"""

import argparse
import itertools
import os
import statistics
import sys
import threading
import time

import psycopg

HERE = os.path.dirname(os.path.abspath(__file__))
ORIGINS = ["EWR", "JFK", "LGA"]

SETUP = [
    """CREATE SOURCE flights_live (
         event TEXT NOT NULL, event_time TIMESTAMPTZ NOT NULL, flight_id BIGINT NOT NULL, carrier TEXT NOT NULL,
         flight INTEGER, tailnum TEXT, origin TEXT NOT NULL, dest TEXT NOT NULL,
         scheduled_departure TIMESTAMPTZ NOT NULL, distance INTEGER, dep_delay INTEGER, arr_delay INTEGER,
         air_time INTEGER, WATERMARK FOR event_time AS event_time - INTERVAL '2 days'
       ) WITH (clock = 'event')""",
    """CREATE FEATURE VIEW origin_live AS
       SELECT origin, event_time,
              count(*) OVER ever AS events,
              count(*) FILTER (WHERE event = 'departed') OVER h24 AS departures_24h,
              avg(dep_delay) FILTER (WHERE event = 'departed') OVER h24 AS delay_mean_24h
       FROM flights_live
       WINDOW ever AS (PARTITION BY origin ORDER BY event_time RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
              h24 AS (PARTITION BY origin ORDER BY event_time
                      RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW)""",
]
TEARDOWN = ["DROP FEATURE VIEW IF EXISTS origin_live", "DROP SOURCE IF EXISTS flights_live"]

ONE = "SELECT departures_24h, delay_mean_24h FROM origin_live WHERE origin = %s"
MANY = "SELECT origin, events FROM origin_live WHERE origin = ANY(%s)"


class Stream:
    """Sends the events file by COPY. `sent` moves before a chunk goes out, `acknowledged` after COPY has returned."""

    def __init__(self, connection, path, events, chunk):
        self.connection, self.path, self.events, self.chunk = connection, path, events, chunk
        self.sent = self.acknowledged = 0
        self.failure = None

    def run(self):
        try:
            with open(self.path, encoding="utf-8") as lines:
                next(lines)  # the header
                lines = itertools.islice(lines, self.events)
                while chunk := list(itertools.islice(lines, self.chunk)):
                    self.sent += len(chunk)
                    with self.connection.cursor() as cursor:
                        with cursor.copy("COPY flights_live FROM STDIN (FORMAT csv)") as copy:
                            copy.write("".join(chunk))
                    self.acknowledged += len(chunk)
        except Exception as error:  # reported by the main thread
            self.failure = error


def main():
    parser = argparse.ArgumentParser(description="look features up while events stream in")
    parser.add_argument("--dsn", default="host=127.0.0.1 port=5433 dbname=tidemark user=tidemark")
    parser.add_argument("--file", default=os.path.join(HERE, "out", "events.csv"))
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=2_000)
    arguments = parser.parse_args()

    writer = psycopg.connect(arguments.dsn, autocommit=True)
    reader = psycopg.connect(arguments.dsn, autocommit=True)
    for statement in TEARDOWN + SETUP:
        writer.execute(statement)

    stream = Stream(writer, arguments.file, arguments.events, arguments.chunk)
    thread = threading.Thread(target=stream.run)
    thread.start()
    took, shown = [], 0
    try:
        for origin in itertools.cycle(ORIGINS):
            done = not thread.is_alive()
            begun = time.perf_counter()
            one = reader.execute(ONE, (origin,), prepare=True).fetchone()
            took.append(time.perf_counter() - begun)

            acknowledged = stream.acknowledged
            counted = sum(events for _, events in reader.execute(MANY, (ORIGINS,), prepare=True))
            if not acknowledged <= counted <= stream.sent:
                sys.exit(f"a lookup counted {counted} events; {acknowledged} were acknowledged before it")
            if one and acknowledged >= shown:
                mean = "none" if one[1] is None else f"{one[1]:5.1f} min"
                print(f"{acknowledged:>8,} events in: {origin} has {one[0]:>4} departures in 24 h, mean delay {mean}")
                shown += arguments.events // 10
            if done:
                break
    finally:
        thread.join()
    if stream.failure:
        sys.exit(f"the stream broke after {stream.acknowledged:,} events: {stream.failure}")
    took.sort()
    print(
        f"{len(took):,} lookups beside {stream.acknowledged:,} events, every count right;"
        f" median {statistics.median(took) * 1e6:,.0f} µs, 99 % within {took[len(took) * 99 // 100] * 1e6:,.0f} µs"
    )
    for statement in TEARDOWN:
        writer.execute(statement)


if __name__ == "__main__":
    main()
