-- Five feature views. Each is a SELECT that never finishes: its row per entity is kept current by every event, and by
-- time passing (a count over one hour falls when the hour is over, with no new event). They are created here after the
-- load and read it from its beginning; created before it, they would hold the same values.

-- 1. How is this airport doing? Arrivals are left out: they happen elsewhere. So dep_delay is there exactly for
--    departures, and aggregates over it need no FILTER.
CREATE FEATURE VIEW origin_delays WITH (owner = 'operations', tags = 'airport,realtime') AS
SELECT origin, event_time,
       count(*) FILTER (WHERE event = 'departed')  OVER h1 AS departures_1h,
       count(*) FILTER (WHERE event = 'departed')  OVER h3 AS departures_3h,
       count(*) FILTER (WHERE event = 'departed')  OVER d1 AS departures_24h,
       avg(dep_delay)                              OVER h1 AS delay_mean_1h,
       avg(dep_delay)                              OVER h3 AS delay_mean_3h,
       avg(dep_delay)                              OVER d1 AS delay_mean_24h,
       max(dep_delay)                              OVER h1 AS delay_max_1h,
       max(dep_delay)                              OVER h3 AS delay_max_3h,
       max(dep_delay)                              OVER d1 AS delay_max_24h,
       -- share of departures more than 15 minutes late
       count(*) FILTER (WHERE dep_delay > 15) OVER h1 / nullif(count(dep_delay) OVER h1, 0)::double precision AS late_share_1h,
       count(*) FILTER (WHERE dep_delay > 15) OVER h3 / nullif(count(dep_delay) OVER h3, 0)::double precision AS late_share_3h,
       count(*) FILTER (WHERE dep_delay > 15) OVER d1 / nullif(count(dep_delay) OVER d1, 0)::double precision AS late_share_24h,
       -- due in the last three hours and neither gone nor cancelled: who is still waiting
       count(*) FILTER (WHERE event = 'scheduled') OVER h3
         - count(*) FILTER (WHERE event IN ('departed', 'cancelled')) OVER h3 AS backlog_3h,
       -- now() is the instant of the reading: the lookup, the AS OF, or the spine's row
       now() - max(event_time) FILTER (WHERE event = 'departed') OVER d1 AS since_last_departure
FROM flights
WHERE event <> 'arrived'
WINDOW h1 AS (PARTITION BY origin ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour'   PRECEDING AND CURRENT ROW),
       h3 AS (PARTITION BY origin ORDER BY event_time RANGE BETWEEN INTERVAL '3 hours'  PRECEDING AND CURRENT ROW),
       d1 AS (PARTITION BY origin ORDER BY event_time RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW);

-- 2. The weather there. No window: the latest row of each key, at any instant.
CREATE FEATURE VIEW origin_weather WITH (key = 'origin', owner = 'operations', tags = 'airport,weather') AS
SELECT origin, known_at, temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure, visib,
       temp - dewp AS dewp_spread
FROM weather;

-- 3. How is this airline's week?
CREATE FEATURE VIEW carrier_week WITH (owner = 'network') AS
SELECT carrier, event_time,
       count(*) FILTER (WHERE event = 'scheduled') OVER d7 AS scheduled_7d,
       count(*) FILTER (WHERE event = 'cancelled') OVER d7 AS cancellations_7d,
       avg(dep_delay)                              OVER d7 AS delay_mean_7d,
       stddev_samp(dep_delay)                      OVER d7 AS delay_deviation_7d
FROM flights
WHERE event <> 'arrived'
WINDOW d7 AS (PARTITION BY carrier ORDER BY event_time RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW);

-- 4. Where has this plane been? Raw columns are those of its latest arrival. A plane not seen for 30 days is forgotten.
CREATE FEATURE VIEW tail_recent WITH (ttl = '30 days', owner = 'network') AS
SELECT tailnum, event_time,
       count(*)       OVER d1 AS legs_24h,
       sum(distance)  OVER d1 AS miles_24h,
       max(arr_delay) OVER d7 AS arrival_delay_max_7d,
       dest      AS last_dest,
       arr_delay AS last_arrival_delay,
       now() - max(event_time) OVER d7 AS since_last_arrival
FROM flights
WHERE event = 'arrived' AND tailnum IS NOT NULL
WINDOW d1 AS (PARTITION BY tailnum ORDER BY event_time RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
       d7 AS (PARTITION BY tailnum ORDER BY event_time RANGE BETWEEN INTERVAL '7 days'   PRECEDING AND CURRENT ROW);

-- 5. How does this route run? Three kinds of window in one SELECT: a time range, the last twenty rows, and everything.
CREATE FEATURE VIEW route_delays WITH (owner = 'network') AS
SELECT origin, dest, event_time,
       count(*)                  OVER d7     AS arrivals_7d,
       avg(arr_delay)            OVER d7     AS arrival_delay_mean_7d,
       bool_or(arr_delay > 180)  OVER d7     AS any_very_late_7d,
       avg(arr_delay)            OVER last20 AS arrival_delay_mean_20,
       avg(dep_delay - arr_delay) OVER last20 AS made_up_mean_20,
       var_pop(air_time)         OVER last20 AS air_time_variance_20,
       min(air_time)             OVER ever   AS air_time_best,
       count(*)                  OVER ever   AS arrivals
FROM flights
WHERE event = 'arrived'
WINDOW d7     AS (PARTITION BY origin, dest ORDER BY event_time RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW),
       last20 AS (PARTITION BY origin, dest ORDER BY event_time ROWS BETWEEN 19 PRECEDING AND CURRENT ROW),
       ever   AS (PARTITION BY origin, dest ORDER BY event_time RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);

COMMENT ON FEATURE VIEW origin_delays IS 'departures, delays and backlog of an airport over 1, 3 and 24 hours';
COMMENT ON COLUMN origin_delays.backlog_3h IS 'flights due in the last 3 hours that have neither left nor been cancelled';

SHOW FEATURE VIEWS;
DESCRIBE route_delays;
