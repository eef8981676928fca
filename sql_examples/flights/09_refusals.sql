-- What cannot be kept current is refused at CREATE, with the reason and the nearest shape that can. Run with errors
-- allowed (psql's default).

-- A month has no fixed length.
CREATE FEATURE VIEW monthly AS SELECT carrier, event_time, count(*) OVER w AS n FROM flights
WINDOW w AS (PARTITION BY carrier ORDER BY event_time RANGE BETWEEN INTERVAL '1 month' PRECEDING AND CURRENT ROW);

-- A window needs an order.
CREATE FEATURE VIEW unordered AS SELECT carrier, event_time, count(*) OVER (PARTITION BY carrier) AS n FROM flights;

-- A life shorter than what is remembered.
CREATE FEATURE VIEW short_lived WITH (ttl = '1 hour') AS SELECT carrier, event_time, count(*) OVER w AS n FROM flights
WINDOW w AS (PARTITION BY carrier ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);

-- The future.
SELECT departures_1h FROM origin_delays FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2100-01-01 00:00:00+00' WHERE origin = 'JFK';
SELECT count(*) FROM spine s ASOF LEFT JOIN origin_delays o ON s.origin = o.origin AND s.asked_at <= o.event_time;

-- Something that is in use.
DROP SOURCE flights;

-- Versions come later.
CREATE OR REPLACE FEATURE VIEW origin_weather WITH (key = 'origin') AS SELECT origin, known_at, temp FROM weather;
