-- The same first week under a watermark that is too small for this file: 12 hours. (`flights` declares 2 days.)
CREATE SOURCE flights_hasty (
  event TEXT NOT NULL, event_time TIMESTAMPTZ NOT NULL, flight_id BIGINT NOT NULL, carrier TEXT NOT NULL, flight INTEGER,
  tailnum TEXT, origin TEXT NOT NULL, dest TEXT NOT NULL, scheduled_departure TIMESTAMPTZ NOT NULL, distance INTEGER,
  dep_delay INTEGER, arr_delay INTEGER, air_time INTEGER,
  WATERMARK FOR event_time AS event_time - INTERVAL '12 hours'
) WITH (clock = 'event');

\copy flights_hasty FROM 'out/first_week.csv' CSV HEADER

-- 391 of 17,833 came too late. They are not lost, and nothing stopped.
SELECT count(*) AS admitted FROM flights_hasty;
SELECT reason, count(*) AS letters FROM tidemark.dead_letters WHERE object = 'flights_hasty' GROUP BY reason;

-- A letter says where it was, why it was refused, and holds the whole row.
SELECT "offset", reason, error, payload FROM tidemark.dead_letters
WHERE object = 'flights_hasty' ORDER BY partition, "offset" LIMIT 2;

-- Late is decided once. To take them after all, drive them into a source that waits longer: here both what was admitted
-- and what was not, into one that waits two weeks.
CREATE SOURCE flights_patient (
  event TEXT NOT NULL, event_time TIMESTAMPTZ NOT NULL, flight_id BIGINT NOT NULL, carrier TEXT NOT NULL, flight INTEGER,
  tailnum TEXT, origin TEXT NOT NULL, dest TEXT NOT NULL, scheduled_departure TIMESTAMPTZ NOT NULL, distance INTEGER,
  dep_delay INTEGER, arr_delay INTEGER, air_time INTEGER,
  WATERMARK FOR event_time AS event_time - INTERVAL '14 days'
) WITH (clock = 'event');

INSERT INTO flights_patient SELECT * FROM flights_hasty;
INSERT INTO flights_patient
SELECT payload ->> 'event', (payload ->> 'event_time')::timestamptz, (payload ->> 'flight_id')::bigint,
       payload ->> 'carrier', (payload ->> 'flight')::integer, payload ->> 'tailnum', payload ->> 'origin',
       payload ->> 'dest', (payload ->> 'scheduled_departure')::timestamptz, (payload ->> 'distance')::integer,
       (payload ->> 'dep_delay')::integer, (payload ->> 'arr_delay')::integer, (payload ->> 'air_time')::integer
FROM tidemark.dead_letters WHERE object = 'flights_hasty' AND reason = 'late';

SELECT count(*) AS all_of_them FROM flights_patient;
SELECT count(*) AS letters FROM tidemark.dead_letters WHERE object = 'flights_patient';

DROP SOURCE flights_hasty, flights_patient;
