-- Files are read by the client (psql or `tidemark sql`) from the folder that derive_events.py wrote.
INSERT INTO airlines (carrier, name) VALUES
  ('9E', 'Endeavor Air Inc.'),
  ('AA', 'American Airlines Inc.'),
  ('AS', 'Alaska Airlines Inc.'),
  ('B6', 'JetBlue Airways'),
  ('DL', 'Delta Air Lines Inc.'),
  ('EV', 'ExpressJet Airlines Inc.'),
  ('F9', 'Frontier Airlines Inc.'),
  ('FL', 'AirTran Airways Corporation'),
  ('HA', 'Hawaiian Airlines Inc.'),
  ('MQ', 'Envoy Air'),
  ('OO', 'SkyWest Airlines Inc.'),
  ('UA', 'United Air Lines Inc.'),
  ('US', 'US Airways Inc.'),
  ('VX', 'Virgin America'),
  ('WN', 'Southwest Airlines Co.'),
  ('YV', 'Mesa Airlines Inc.');

\copy planes FROM 'out/planes.csv' CSV HEADER
\copy weather FROM 'out/weather.csv' CSV HEADER
\copy spine FROM 'out/spine.csv' CSV HEADER
\copy flights FROM 'out/events.csv' CSV HEADER

-- When COPY returns, every connection sees its rows.
SELECT event, count(*) AS events, min(event_time) AS first, max(event_time) AS last
FROM flights GROUP BY event ORDER BY event;
SELECT count(*) AS flights, count(*) FILTER (WHERE late) AS late, count(*) FILTER (WHERE late IS NULL) AS cancelled
FROM spine;
-- A table with a primary key shows its current rows: the latest weather per airport.
SELECT origin, known_at, temp, wind_speed, visib FROM weather ORDER BY origin;

-- The replay is over: nothing before 2014-01-02 will come any more. Without this the last two days would stay open for
-- late events for ever, because under the event clock only events move time.
ALTER SOURCE flights ADVANCE WATERMARK TO TIMESTAMPTZ '2014-01-02 00:00:00+00';
ALTER TABLE weather ADVANCE WATERMARK TO TIMESTAMPTZ '2014-01-02 00:00:00+00';
