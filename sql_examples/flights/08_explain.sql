-- What a view would cost, without creating it.
EXPLAIN CREATE FEATURE VIEW dest_arrivals AS
SELECT dest, event_time,
       count(*)       OVER h1 AS arrivals_1h,
       avg(arr_delay) OVER h1 AS arrival_delay_mean_1h,
       max(arr_delay) OVER d1 AS arrival_delay_max_24h
FROM flights WHERE event = 'arrived'
WINDOW h1 AS (PARTITION BY dest ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour'   PRECEDING AND CURRENT ROW),
       d1 AS (PARTITION BY dest ORDER BY event_time RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW);

-- Check us: the SQL that computes the view's values at given instants by their definition. Load the events and a table
-- of probes (key, instant) into a PostgreSQL and compare.
EXPLAIN (FORMAT PROBES) CREATE FEATURE VIEW dest_arrivals AS
SELECT dest, event_time,
       count(*)       OVER h1 AS arrivals_1h,
       max(arr_delay) OVER h1 AS arrival_delay_max_1h
FROM flights WHERE event = 'arrived'
WINDOW h1 AS (PARTITION BY dest ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);

-- What is there.
SELECT name, key, owner FROM tidemark.feature_views ORDER BY name;
SELECT view, name, aggregate, "window" FROM tidemark.features WHERE view = 'route_delays' ORDER BY name;
