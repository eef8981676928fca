-- Every step a view ever took is in its history, an Iceberg table. CHECKPOINT returns when all that arrived before it is
-- durable and every step before the watermark is in it.
CHECKPOINT;

SELECT count(*) > 500000 AS many_steps, min(event_time) AS first, max(event_time) < TIMESTAMPTZ '2014-01-02 00:00:00+00' AS below_watermark
FROM history.origin_delays;

-- Steps of one key. Some have no event behind them: _event_time stays, the count falls, because an hour has passed.
SELECT event_time, departures_1h, _op, _event_time
FROM history.origin_delays
WHERE origin = 'LGA' AND event_time BETWEEN TIMESTAMPTZ '2013-06-02 01:30:00+00' AND TIMESTAMPTZ '2013-06-02 02:15:00+00'
ORDER BY event_time;

-- The same instant read in four ways. 1: AS OF.
SELECT departures_1h, delay_mean_1h, delay_max_1h FROM origin_delays
FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2013-07-22 22:00:00+00' WHERE origin = 'JFK';
-- 2: the step that holds then, from the table any engine can read.
SELECT departures_1h, delay_mean_1h, delay_max_1h FROM history.origin_delays
WHERE origin = 'JFK' AND event_time <= TIMESTAMPTZ '2013-07-22 22:00:00+00' ORDER BY event_time DESC LIMIT 1;
-- 3: an ASOF JOIN with a spine of one row.
SELECT o.departures_1h, o.delay_mean_1h, o.delay_max_1h
FROM (VALUES ('JFK', TIMESTAMPTZ '2013-07-22 22:00:00+00')) AS q (origin, asked)
  ASOF JOIN origin_delays o ON q.origin = o.origin AND q.asked >= o.event_time;
-- 4: by definition, from the events.
SELECT count(*) AS departures_1h, avg(dep_delay) AS delay_mean_1h, max(dep_delay) AS delay_max_1h FROM flights
WHERE origin = 'JFK' AND event = 'departed'
  AND event_time BETWEEN TIMESTAMPTZ '2013-07-22 21:00:00+00' AND TIMESTAMPTZ '2013-07-22 22:00:00+00';

-- The weather as it was known then.
SELECT origin, known_at, temp, visib FROM origin_weather
FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2013-07-22 22:00:00+00' ORDER BY origin;

-- A plane out of sight for 30 days is gone: the last step says delete.
SELECT event_time, legs_24h, _op FROM history.tail_recent WHERE tailnum = 'N725MQ' ORDER BY event_time DESC LIMIT 3;

SELECT name, watermark FROM tidemark.pipelines WHERE name IN ('origin_delays', 'tail_recent') ORDER BY name;
