"""The event files say what was known when, and nothing else. Run: python3 -m unittest test_derive_events"""

import collections
import os
import pathlib
import tempfile
import unittest
from unittest import mock

import derive_events as derive

DATA = os.path.join(derive.HERE, "data")


def utc(text: str) -> int:
    return derive.minutes(derive.datetime.strptime(text, "%Y-%m-%d %H:%M"))


class TheYear(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.flights = list(derive.flights(DATA))
        cls.zones = derive.zones(DATA)

    def local(self, minute: int, zone: str):
        instant = derive.EPOCH + derive.timedelta(minutes=minute)
        return instant.replace(tzinfo=derive.timezone.utc).astimezone(derive.ZoneInfo(zone))

    def test_every_flight_is_there_once_and_ends_in_one_way(self):
        departed = sum(f.departed is not None for f in self.flights)
        arrived = sum(f.arrived is not None for f in self.flights)
        self.assertEqual((len(self.flights), departed, arrived), (336_776, 328_521, 328_063))
        self.assertEqual([f.flight_id for f in self.flights], list(range(1, 336_777)))
        kinds = collections.Counter(e[0] for f in self.flights for e in derive.events(f))
        self.assertEqual(
            kinds, {"scheduled": 336_776, "departed": 328_521, "arrived": 328_063, "cancelled": 8_255}
        )

    def test_no_event_carries_a_fact_from_its_future(self):
        first_with = {"dep_delay": "departed", "arr_delay": "arrived", "air_time": "arrived"}
        life = ["scheduled", "cancelled", "departed", "arrived"]
        for flight in self.flights:
            for row, at in zip(derive.events(flight), derive.event_minutes(flight)):
                event = dict(zip(derive.EVENT_COLUMNS, row, strict=True))
                self.assertEqual(event["event_time"], derive.utc_text(at))
                for fact, since in first_with.items():
                    if event[fact] != "":
                        self.assertGreaterEqual(life.index(event["event"]), life.index(since))

    def test_the_clock_at_the_origin_shows_dep_time_at_the_departure(self):
        for f in self.flights:
            if f.departed is not None:
                local = self.local(f.departed, derive.ORIGIN_ZONE)
                self.assertEqual((local.hour * 60 + local.minute), derive.hhmm(f.row["dep_time"]) % derive.DAY)

    def test_the_clock_at_the_destination_shows_arr_time_at_the_arrival(self):
        wrong = []
        for f in self.flights:
            if f.arrived is not None:
                local = self.local(f.arrived, self.zones[f.row["dest"]])
                if local.hour * 60 + local.minute != derive.hhmm(f.row["arr_time"]) % derive.DAY:
                    wrong.append(f.flight_id)
        # One flight landed at a local time that does not exist (the night summer time began).
        self.assertEqual(wrong, [144508])

    def test_the_schedule_and_the_delay_lead_to_the_same_arrival(self):
        """An independent way to the same instant: the scheduled arrival, dated by the schedule, plus arr_delay."""
        checked = 0
        for f in self.flights:
            if f.arrived is not None and derive.known(f.row["arr_delay"]):
                planned = derive.arrival(
                    f.scheduled, derive.hhmm(f.row["sched_arr_time"]) % derive.DAY, self.zones[f.row["dest"]], None
                )
                self.assertEqual(planned + int(f.row["arr_delay"]), f.arrived, f)
                checked += 1
        self.assertEqual(checked, 327_346)

    def test_time_outside_the_air_is_what_taxiing_takes(self):
        taxi = sorted(
            f.arrived - f.departed - int(f.row["air_time"])
            for f in self.flights
            if f.arrived is not None and derive.known(f.row["air_time"])
        )
        self.assertGreaterEqual(taxi[0], 5)
        self.assertEqual(taxi[len(taxi) // 2], 28)
        self.assertLessEqual(taxi[-1], 4 * derive.HOUR)

    def test_a_flight_is_asked_about_before_anything_happened_to_it(self):
        for f in self.flights:
            asked_at = f.scheduled - derive.ASKED_BEFORE
            self.assertLess(asked_at, min(derive.event_minutes(f)))

    def test_the_declared_watermark_takes_every_delay_and_the_hasty_one_does_not(self):
        ordered = sorted(self.flights, key=lambda f: (f.scheduled, f.flight_id))
        self.assertEqual(derive.disorder(ordered), 32 * 60 + 49)
        self.assertEqual(derive.late_events(ordered, derive.WATERMARK), 0)
        self.assertEqual(derive.late_events(ordered, derive.HASTY_WATERMARK), 22_954)
        week = [f for f in ordered if f.scheduled < derive.FIRST_WEEK_ENDS]
        self.assertEqual(derive.late_events(week, derive.HASTY_WATERMARK), 391)

    def test_a_label_is_about_departures_only(self):
        labels = collections.Counter(derive.spine_row(f)[-1] for f in self.flights)
        late = sum(f.departed is not None and int(f.row["dep_delay"]) > 15 for f in self.flights)
        self.assertEqual(labels, {"true": late, "false": 328_521 - late, "": 8_255})


class HardTimes(unittest.TestCase):
    def one(self, flight_id, **changes):
        with mock.patch.object(derive, "raw", lambda _, name: iter([changes] if name == "flights" else self.airports)):
            return next(iter(derive.flights(DATA)))

    airports = [{"faa": "LAX", "tzone": "America/Los_Angeles"}, {"faa": "BOS", "tzone": "America/New_York"}]

    def flight(self, **changes):
        row = {
            "year": "2013", "month": "6", "day": "1", "dep_time": "1200", "sched_dep_time": "1200", "dep_delay": "0",
            "arr_time": "1300", "arr_delay": "0", "air_time": "40", "dest": "BOS", "time_hour": "2013-06-01T16:00:00Z",
        }  # fmt: skip
        return self.one(1, **{**row, **changes})

    def test_a_departure_after_midnight_is_tomorrow(self):
        f = self.flight(
            sched_dep_time="2359", dep_time="29", dep_delay="30", arr_time="120", time_hour="2013-06-02T03:00:00Z"
        )
        self.assertEqual(f.departed, utc("2013-06-02 04:29"))
        self.assertEqual(f.arrived, utc("2013-06-02 05:20"))

    def test_a_departure_before_midnight_of_a_flight_due_after_it_is_yesterday(self):
        f = self.flight(
            sched_dep_time="5", dep_time="2358", dep_delay="-7", arr_time="55", time_hour="2013-06-01T04:00:00Z"
        )
        self.assertEqual(f.departed, utc("2013-06-01 03:58"))

    def test_2400_is_the_midnight_that_ends_the_day(self):
        f = self.flight(
            sched_dep_time="2250", dep_time="2250", arr_time="2400", time_hour="2013-06-02T02:00:00Z"
        )
        self.assertEqual(f.arrived, utc("2013-06-02 04:00"))
        f = self.flight(
            sched_dep_time="2350", dep_time="2400", dep_delay="10", arr_time="50", time_hour="2013-06-02T03:00:00Z"
        )
        self.assertEqual(f.departed, utc("2013-06-02 04:00"))

    def test_going_west_can_arrive_at_an_earlier_clock(self):
        f = self.flight(dest="LAX", sched_dep_time="700", dep_time="700", arr_time="955", air_time="330",
                        time_hour="2013-06-01T11:00:00Z")  # fmt: skip
        self.assertEqual(f.arrived, utc("2013-06-01 16:55"))

    def test_the_night_summer_time_begins_is_an_hour_shorter(self):
        f = self.flight(month="3", day="9", sched_dep_time="2330", dep_time="2330", arr_time="330", air_time="160",
                        time_hour="2013-03-10T04:00:00Z")  # fmt: skip
        self.assertEqual(f.arrived - f.departed, 3 * 60)

    def test_a_clock_in_the_skipped_hour_is_read_so_that_the_flight_had_time_to_fly(self):
        f = self.flight(month="3", day="9", sched_dep_time="2306", dep_time="2306", arr_time="203", air_time="141",
                        time_hour="2013-03-10T04:00:00Z")  # fmt: skip
        self.assertEqual(f.arrived, utc("2013-03-10 07:03"))

    def test_a_clock_in_the_repeated_hour_is_the_first_that_leaves_time_to_fly(self):
        night = dict(month="11", day="2", sched_dep_time="2330", dep_time="2330", time_hour="2013-11-03T03:00:00Z")
        self.assertEqual(self.flight(**night, arr_time="130", air_time="90").arrived, utc("2013-11-03 05:30"))
        self.assertEqual(self.flight(**night, arr_time="130", air_time="150").arrived, utc("2013-11-03 06:30"))

    def test_a_schedule_in_the_repeated_hour_is_dated_by_time_hour(self):
        for hour in ("05", "06"):
            f = self.flight(month="11", day="3", sched_dep_time="130", dep_time="130", arr_time="300",
                            time_hour=f"2013-11-03T{hour}:00:00Z")  # fmt: skip
            self.assertEqual(f.scheduled, utc(f"2013-11-03 {hour}:30"))

    def test_a_schedule_that_contradicts_time_hour_is_refused(self):
        with self.assertRaisesRegex(ValueError, "flight 1: sched_dep_time and time_hour disagree"):
            self.flight(time_hour="2013-06-01T17:00:00Z")


class Files(unittest.TestCase):
    def test_weather_is_known_when_its_hour_is_over_and_comes_in_order(self):
        rows = derive.weather(DATA)
        self.assertEqual(len(rows), 26_115)
        self.assertEqual(rows[0][:3], ("EWR", "2013-01-01 07:00:00+00", "39.02"))
        times = [(r[1], r[0]) for r in rows]
        self.assertEqual(times, sorted(set(times)))
        self.assertFalse(any("NA" in r for r in rows))

    def test_an_earlier_end_gives_the_same_rows_and_leaves_the_rest_out(self):
        with tempfile.TemporaryDirectory() as out:
            with mock.patch("sys.argv", ["derive_events.py", out, "--until", "2013-01-03"]), mock.patch("builtins.print"):
                derive.main()
            lines = {p.name: p.read_text(encoding="utf-8").splitlines() for p in pathlib.Path(out).iterdir()}
        self.assertEqual(
            sorted(lines), ["events.csv", "first_week.csv", "planes.csv", "spine.csv", "weather.csv"]
        )
        self.assertEqual(lines["events.csv"], lines["first_week.csv"])
        self.assertEqual(lines["events.csv"][0], ",".join(derive.EVENT_COLUMNS))
        self.assertEqual(
            lines["spine.csv"][1], "1,UA,1545,N14228,EWR,IAH,2013-01-01 10:15:00+00,1400,2013-01-01 09:15:00+00,false"
        )
        scheduled = [line.split(",")[8] for line in lines["events.csv"][1:]]
        self.assertEqual(scheduled, sorted(scheduled))
        self.assertLess(lines["weather.csv"][-1].split(",")[1], "2013-01-03")
        self.assertEqual(len(lines["planes.csv"]), 3_323)


if __name__ == "__main__":
    unittest.main()
