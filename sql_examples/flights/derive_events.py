#!/usr/bin/env python3
"""Derives the event files of the flights story from the raw nycflights13 tables.

    derive_events.py [OUT] [--data DIR] [--until YYYY-MM-DD]

The raw table has one row per flight, written when everything about it was known. A feature computed from it at any
earlier instant would know the future. So each flight is taken apart into the facts about it, each stamped with the
instant at which the world knew it (UTC), and carrying nothing that was not known then:

    scheduled   at the scheduled departure   the flight was due; nothing else
    cancelled   at the scheduled departure   it never left
    departed    at the real departure        + dep_delay
    arrived     at the real arrival          + dep_delay, arr_delay, air_time (the last two empty if it was diverted)

The files, all CSV with a header, an empty field for NULL:

    events.csv      the facts, in order of SCHEDULED departure (a flight's own facts together): real delays and flying
                    times are the disorder that the watermark has to take
    first_week.csv  the part of events.csv scheduled before 2013-01-08, for the dead-letter demonstration
    spine.csv       one row per flight: who is asked about, and when (one hour before the scheduled departure), and the
                    label `late`: true if it left more than 15 minutes late. A cancelled flight never left; its label is
                    empty and a model leaves it out
    weather.csv     hourly weather per origin in order of time, `known_at` the END of its hour: the raw table floors the
                    time of a reading to its hour, so a reading stamped 06:00 may have been taken at 06:51
    planes.csv      the planes, NA -> empty

Only the standard library, no chance, no clock: the same input gives the same bytes.
"""

import argparse
import csv
import gzip
import os
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, Optional
from zoneinfo import ZoneInfo

HERE = os.path.dirname(os.path.abspath(__file__))
EPOCH = datetime(1970, 1, 1)
HOUR, DAY = 60, 24 * 60
ALL_TIME = 1 << 60

ORIGIN_ZONE = "America/New_York"  # EWR, JFK and LGA
# Destinations that airports.csv does not know.
MISSING_ZONES = {
    "SJU": "America/Puerto_Rico",
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}

LATE_AFTER = 15  # minutes: the label
ASKED_BEFORE = HOUR  # minutes before the scheduled departure
FIRST_WEEK_ENDS = (datetime(2013, 1, 8) - EPOCH) // timedelta(minutes=1)
# The watermark delays that 01_sources.sql and 07_dead_letters.sql declare, in minutes.
WATERMARK = 2 * DAY
HASTY_WATERMARK = 12 * HOUR

EVENT_COLUMNS = (
    "event event_time flight_id carrier flight tailnum origin dest scheduled_departure distance"
    " dep_delay arr_delay air_time"
).split()
SPINE_COLUMNS = (
    "flight_id carrier flight tailnum origin dest scheduled_departure distance asked_at late"
).split()
WEATHER_COLUMNS = (
    "origin known_at temp dewp humid wind_dir wind_speed wind_gust precip pressure visib"
).split()
PLANE_COLUMNS = "tailnum year type manufacturer model engines seats speed engine".split()


class Flight(NamedTuple):
    """One raw row with its instants worked out: minutes since 1970 UTC, None for what never happened."""

    flight_id: int  # row number in the raw table, from 1
    row: dict
    scheduled: int
    departed: Optional[int]
    arrived: Optional[int]


def minutes(instant: datetime) -> int:
    """A naive instant as minutes since 1970."""
    return (instant - EPOCH) // timedelta(minutes=1)


def utc_text(minute: int) -> str:
    return (EPOCH + timedelta(minutes=minute)).strftime("%Y-%m-%d %H:%M:%S+00")


class Once(dict):
    """A function's results by its argument: a year has few minutes and hours compared with its million events."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __missing__(self, key):
        value = self[key] = self.function(key)
        return value


def _offsets(zone_and_hour):
    """UTC offsets in minutes that a local hour of a zone can have: two where autumn repeats it or spring skips it."""
    zone, local_hour = zone_and_hour
    local = (EPOCH + timedelta(hours=local_hour)).replace(tzinfo=ZoneInfo(zone))
    return sorted({int(local.replace(fold=f).utcoffset().total_seconds()) // 60 for f in (0, 1)}, reverse=True)


OFFSETS = Once(_offsets)
TEXT = Once(utc_text)


def to_utc(zone: str, local: int):
    """The instants a local minute can mean, earliest first."""
    return [local - offset for offset in OFFSETS[zone, local // HOUR]]


def hhmm(text: str) -> int:
    """Local HHMM as minutes of its day. 2400 is the midnight that ends the day: 1440."""
    value = int(text)
    return value // 100 * HOUR + value % 100


def known(text: str) -> bool:
    return text not in ("", "NA")


def raw(folder: str, name: str):
    with gzip.open(os.path.join(folder, name + ".csv.gz"), "rt", newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def zones(folder: str) -> dict:
    found = {r["faa"]: r["tzone"] for r in raw(folder, "airports")}
    return {**MISSING_ZONES, **found}


def arrival(departed: int, clock: int, zone: str, air_time: Optional[int]) -> int:
    """When a flight that left at `departed` (UTC) arrived, if the clock at its destination showed `clock` minutes.

    The raw row has no date of arrival. The clock names one instant a day, two in the hours that autumn repeats and
    spring skips (N658JB landed at 02:03 on the night that had none): it is the earliest one that leaves time for
    the minutes it was in the air, or, if those are unknown (diverted), the earliest after the departure.
    """
    earliest = departed + (air_time if air_time is not None else 1)
    # Start a day early: going west, the local date of arrival can be the one before the UTC date.
    first_day = departed // DAY * DAY - DAY
    candidates = (i for d in range(4) for i in to_utc(zone, first_day + d * DAY + clock))
    return min(i for i in candidates if i >= earliest)


def flights(folder: str):
    """All flights in the order of the raw table."""
    zone_of = zones(folder)
    for flight_id, row in enumerate(raw(folder, "flights"), 1):
        # The schedule is local to New York. time_hour is its hour in UTC, and decides where autumn repeats one.
        midnight = minutes(datetime(int(row["year"]), int(row["month"]), int(row["day"])))
        hour = minutes(datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ"))
        local = midnight + hhmm(row["sched_dep_time"])
        scheduled = next((i for i in to_utc(ORIGIN_ZONE, local) if i // HOUR == hour // HOUR), None)
        if scheduled is None:
            raise ValueError(f"flight {flight_id}: sched_dep_time and time_hour disagree: {row}")
        departed = arrived = None
        if known(row["dep_time"]):
            # dep_time has no date; the delay has: a flight due at 23:50 that leaves 30 minutes late leaves tomorrow.
            departed = scheduled + int(row["dep_delay"])
            if known(row["arr_time"]):
                air_time = int(row["air_time"]) if known(row["air_time"]) else None
                arrived = arrival(departed, hhmm(row["arr_time"]), zone_of[row["dest"]], air_time)
        yield Flight(flight_id, row, scheduled, departed, arrived)


def blank(text: str) -> str:
    return text if known(text) else ""


def events(flight: Flight):
    """The flight's facts as rows of EVENT_COLUMNS, in the order of a flight's life."""
    row = flight.row
    entity = (
        flight.flight_id, row["carrier"], row["flight"], blank(row["tailnum"]), row["origin"], row["dest"],
        TEXT[flight.scheduled], row["distance"],
    )  # fmt: skip
    yield ("scheduled", TEXT[flight.scheduled], *entity, "", "", "")
    if flight.departed is None:
        yield ("cancelled", TEXT[flight.scheduled], *entity, "", "", "")
    else:
        yield ("departed", TEXT[flight.departed], *entity, row["dep_delay"], "", "")
    if flight.arrived is not None:
        delays = (row["dep_delay"], blank(row["arr_delay"]), blank(row["air_time"]))
        yield ("arrived", TEXT[flight.arrived], *entity, *delays)


def event_minutes(flight: Flight):
    """The instants of `events(flight)`, in the same order."""
    yield flight.scheduled
    yield flight.scheduled if flight.departed is None else flight.departed
    if flight.arrived is not None:
        yield flight.arrived


def spine_row(flight: Flight):
    row = flight.row
    late = "" if flight.departed is None else "true" if int(row["dep_delay"]) > LATE_AFTER else "false"
    return (
        flight.flight_id, row["carrier"], row["flight"], blank(row["tailnum"]), row["origin"], row["dest"],
        TEXT[flight.scheduled], row["distance"], TEXT[flight.scheduled - ASKED_BEFORE], late,
    )  # fmt: skip


def planes(folder: str):
    return ([blank(p[c]) for c in PLANE_COLUMNS] for p in raw(folder, "planes"))


def weather(folder: str, until: int = ALL_TIME):
    """Rows of WEATHER_COLUMNS in order of time: a changelog's log order wins, so it must be the order of time."""
    rows = []
    for row in raw(folder, "weather"):
        hour = minutes(datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ"))
        if hour + HOUR < until:
            rows.append((hour + HOUR, row["origin"], [blank(row[c]) for c in WEATHER_COLUMNS[2:]]))
    rows.sort(key=lambda r: r[:2])
    return [(origin, TEXT[known_at], *values) for known_at, origin, values in rows]


def disorder(ordered) -> int:
    """The furthest, in minutes, that an event lies behind an event before it in the file."""
    newest = worst = -(1 << 60)
    for flight in ordered:
        for at in event_minutes(flight):
            newest = max(newest, at)
            worst = max(worst, newest - at)
    return worst


def late_events(ordered, watermark: int) -> int:
    """How many events a source with this watermark delay (minutes, event clock) sends to its dead letters."""
    newest, late = None, 0
    for flight in ordered:
        for at in event_minutes(flight):
            if newest is not None and at < newest - watermark:
                late += 1
            elif newest is None or at > newest:
                newest = at
    return late


def write(path: str, columns, rows) -> int:
    count = 0
    with open(path, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(columns)
        for count, row in enumerate(rows, 1):
            out.writerow(row)
    return count


def main():
    parser = argparse.ArgumentParser(description="derive the event files of the flights story")
    parser.add_argument("out", nargs="?", default=os.path.join(HERE, "out"))
    parser.add_argument("--data", default=os.path.join(HERE, "data"))
    parser.add_argument("--until", help="only flights scheduled before this UTC date (YYYY-MM-DD), and their weather")
    arguments = parser.parse_args()
    until = minutes(datetime.strptime(arguments.until, "%Y-%m-%d")) if arguments.until else ALL_TIME
    os.makedirs(arguments.out, exist_ok=True)

    def path(name):
        return os.path.join(arguments.out, name)

    ordered = sorted(
        (f for f in flights(arguments.data) if f.scheduled < until), key=lambda f: (f.scheduled, f.flight_id)
    )
    week = [f for f in ordered if f.scheduled < FIRST_WEEK_ENDS]
    counts = {
        "events.csv": write(path("events.csv"), EVENT_COLUMNS, (e for f in ordered for e in events(f))),
        "first_week.csv": write(path("first_week.csv"), EVENT_COLUMNS, (e for f in week for e in events(f))),
        "spine.csv": write(path("spine.csv"), SPINE_COLUMNS, map(spine_row, ordered)),
        "weather.csv": write(path("weather.csv"), WEATHER_COLUMNS, weather(arguments.data, until)),
        "planes.csv": write(path("planes.csv"), PLANE_COLUMNS, planes(arguments.data)),
    }
    for name, count in counts.items():
        print(f"{count:>9,} rows  {path(name)}")
    departed = sum(f.departed is not None for f in ordered)
    arrived = sum(f.arrived is not None for f in ordered)
    print(f"{len(ordered):,} flights: {departed:,} departed, {arrived:,} arrived, {len(ordered) - departed:,} cancelled")
    worst = disorder(ordered)
    print(f"greatest disorder {worst // HOUR} h {worst % HOUR} min; a watermark of {WATERMARK // HOUR} h", end="")
    print(f" leaves {late_events(ordered, WATERMARK):,} events late,")
    print(f"one of {HASTY_WATERMARK // HOUR} h leaves {late_events(ordered, HASTY_WATERMARK):,} events late", end="")
    print(f", {late_events(week, HASTY_WATERMARK):,} of them in first_week.csv")


if __name__ == "__main__":
    main()
