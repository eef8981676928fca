-- The facts about flights as they become known, one row per fact. Nothing is said about where they come from, so the
-- source is an embedded durable log that INSERT and COPY feed.
--
-- WATERMARK: the file is in order of scheduled departure, so an arrival comes hours before its time in the file and the
-- next flight's departure lies behind it: 32 h 49 min at worst (derive_events.py measures it). Two days take them all.
-- clock = 'event': this is a replay of 2013, so "now" is the newest event, not today.
CREATE SOURCE flights (
  event               TEXT NOT NULL,         -- scheduled | departed | arrived | cancelled
  event_time          TIMESTAMPTZ NOT NULL,  -- when the world knew it
  flight_id           BIGINT NOT NULL,
  carrier             TEXT NOT NULL,
  flight              INTEGER,
  tailnum             TEXT,                  -- unknown for some flights that never left
  origin              TEXT NOT NULL,
  dest                TEXT NOT NULL,
  scheduled_departure TIMESTAMPTZ NOT NULL,
  distance            INTEGER,               -- miles
  dep_delay           INTEGER,               -- minutes; known once departed
  arr_delay           INTEGER,               -- minutes; known once arrived
  air_time            INTEGER,               -- minutes; known once arrived
  WATERMARK FOR event_time AS event_time - INTERVAL '2 days'
) WITH (clock = 'event');

-- Hourly weather per airport. A primary key makes it a changelog: a row with a known key replaces the row before it,
-- and the history of every key is kept.
CREATE TABLE weather (
  origin     TEXT PRIMARY KEY,
  known_at   TIMESTAMPTZ NOT NULL,           -- the end of the hour it describes
  temp       DOUBLE PRECISION,               -- °F
  dewp       DOUBLE PRECISION,               -- °F
  humid      DOUBLE PRECISION,               -- %
  wind_dir   DOUBLE PRECISION,               -- degrees
  wind_speed DOUBLE PRECISION,               -- mph
  wind_gust  DOUBLE PRECISION,               -- mph
  precip     DOUBLE PRECISION,               -- inches
  pressure   DOUBLE PRECISION,               -- millibars
  visib      DOUBLE PRECISION,               -- miles
  WATERMARK FOR known_at AS known_at
) WITH (clock = 'event') FORMAT UPSERT;

-- Things that do not change within the story.
CREATE TABLE planes (
  tailnum TEXT PRIMARY KEY, year INTEGER, type TEXT, manufacturer TEXT, model TEXT,
  engines INTEGER, seats INTEGER, speed INTEGER, engine TEXT
);
CREATE TABLE airlines (carrier TEXT PRIMARY KEY, name TEXT NOT NULL);

-- The questions a model is trained on: one per flight, asked one hour before its scheduled departure.
CREATE TABLE spine (
  flight_id BIGINT, carrier TEXT, flight INTEGER, tailnum TEXT, origin TEXT, dest TEXT,
  scheduled_departure TIMESTAMPTZ, distance INTEGER, asked_at TIMESTAMPTZ,
  late BOOLEAN                               -- left more than 15 minutes late; NULL: cancelled, never left
);

SHOW SOURCES;
SHOW TABLES;
DESCRIBE flights;
