-- A training set is the spine with, beside every row, what a lookup would have answered at that row's instant.
-- ASOF LEFT JOIN keeps every spine row exactly once. First spelling: ON with one inequality.
CREATE VIEW training_set AS
SELECT s.flight_id, s.asked_at, s.scheduled_departure, s.late, s.carrier, s.tailnum, s.origin, s.dest, s.distance,
       o.departures_1h, o.departures_3h, o.departures_24h, o.delay_mean_1h, o.delay_mean_3h, o.delay_mean_24h,
       o.delay_max_1h, o.delay_max_3h, o.delay_max_24h, o.late_share_1h, o.late_share_3h, o.late_share_24h, o.backlog_3h,
       extract(epoch FROM o.since_last_departure) / 60.0 AS minutes_since_departure,
       w.temp, w.dewp_spread, w.humid, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib,
       c.scheduled_7d, c.cancellations_7d, c.delay_mean_7d, c.delay_deviation_7d,
       t.legs_24h, t.miles_24h, t.arrival_delay_max_7d, t.last_arrival_delay,
       extract(epoch FROM t.since_last_arrival) / 60.0 AS minutes_since_arrival,
       r.arrivals_7d, r.arrival_delay_mean_7d, r.any_very_late_7d, r.arrival_delay_mean_20, r.made_up_mean_20,
       r.air_time_variance_20, r.air_time_best,
       p.seats, p.year AS plane_year
FROM spine s
  ASOF LEFT JOIN origin_delays  o ON s.origin = o.origin AND s.asked_at >= o.event_time
  ASOF LEFT JOIN origin_weather w ON s.origin = w.origin AND s.asked_at >= w.known_at
  ASOF LEFT JOIN carrier_week   c ON s.carrier = c.carrier AND s.asked_at >= c.event_time
  ASOF LEFT JOIN tail_recent    t ON s.tailnum = t.tailnum AND s.asked_at >= t.event_time
  ASOF LEFT JOIN route_delays   r ON s.origin = r.origin AND s.dest = r.dest AND s.asked_at >= r.event_time
  LEFT JOIN planes p ON s.tailnum = p.tailnum;

-- Second spelling: MATCH_CONDITION. The same rows.
CREATE VIEW training_set_match AS
SELECT s.flight_id, s.asked_at, s.scheduled_departure, s.late, s.carrier, s.tailnum, s.origin, s.dest, s.distance,
       o.departures_1h, o.departures_3h, o.departures_24h, o.delay_mean_1h, o.delay_mean_3h, o.delay_mean_24h,
       o.delay_max_1h, o.delay_max_3h, o.delay_max_24h, o.late_share_1h, o.late_share_3h, o.late_share_24h, o.backlog_3h,
       extract(epoch FROM o.since_last_departure) / 60.0 AS minutes_since_departure,
       w.temp, w.dewp_spread, w.humid, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib,
       c.scheduled_7d, c.cancellations_7d, c.delay_mean_7d, c.delay_deviation_7d,
       t.legs_24h, t.miles_24h, t.arrival_delay_max_7d, t.last_arrival_delay,
       extract(epoch FROM t.since_last_arrival) / 60.0 AS minutes_since_arrival,
       r.arrivals_7d, r.arrival_delay_mean_7d, r.any_very_late_7d, r.arrival_delay_mean_20, r.made_up_mean_20,
       r.air_time_variance_20, r.air_time_best,
       p.seats, p.year AS plane_year
FROM spine s
  ASOF LEFT JOIN origin_delays  o MATCH_CONDITION (s.asked_at >= o.event_time) ON s.origin = o.origin
  ASOF LEFT JOIN origin_weather w MATCH_CONDITION (s.asked_at >= w.known_at) ON s.origin = w.origin
  ASOF LEFT JOIN carrier_week   c MATCH_CONDITION (s.asked_at >= c.event_time) ON s.carrier = c.carrier
  ASOF LEFT JOIN tail_recent    t MATCH_CONDITION (s.asked_at >= t.event_time) ON s.tailnum = t.tailnum
  ASOF LEFT JOIN route_delays   r MATCH_CONDITION (s.asked_at >= r.event_time) ON s.origin = r.origin AND s.dest = r.dest
  LEFT JOIN planes p ON s.tailnum = p.tailnum;

-- As many rows as the spine has, and the same in both spellings.
SELECT (SELECT count(*) FROM spine) AS spine, (SELECT count(*) FROM training_set) AS training_set;
SELECT count(*) AS different
FROM (SELECT * FROM training_set WHERE asked_at < TIMESTAMPTZ '2013-02-01 00:00:00+00'
      EXCEPT SELECT * FROM training_set_match WHERE asked_at < TIMESTAMPTZ '2013-02-01 00:00:00+00') d;

-- One flight's row, to read: the 11:30 to Los Angeles on the day of the July storms.
SELECT flight_id, asked_at, late, departures_1h, delay_mean_1h, late_share_3h, backlog_3h, wind_gust, cancellations_7d
FROM training_set
WHERE origin = 'JFK' AND dest = 'LAX' AND asked_at BETWEEN TIMESTAMPTZ '2013-07-22 20:00:00+00' AND TIMESTAMPTZ '2013-07-22 23:59:00+00'
ORDER BY asked_at, flight_id;

-- USING is short for equal names, the last of them the time.
SELECT count(*) AS rows, count(o.departures_1h) AS matched
FROM (SELECT origin, asked_at AS event_time FROM spine) s ASOF LEFT JOIN origin_delays o USING (origin, event_time);

-- For the model: a file on the server's side.
COPY (SELECT * FROM training_set) TO 'train.parquet' (FORMAT parquet);

-- What goes wrong without point-in-time correctness: the same features read when somebody happened to compute them,
-- here three hours after the scheduled departure, when most of the flights have left and are in the averages.
COPY (
SELECT s.flight_id, s.asked_at, s.scheduled_departure, s.late, s.carrier, s.tailnum, s.origin, s.dest, s.distance,
       o.departures_1h, o.departures_3h, o.departures_24h, o.delay_mean_1h, o.delay_mean_3h, o.delay_mean_24h,
       o.delay_max_1h, o.delay_max_3h, o.delay_max_24h, o.late_share_1h, o.late_share_3h, o.late_share_24h, o.backlog_3h,
       extract(epoch FROM o.since_last_departure) / 60.0 AS minutes_since_departure,
       w.temp, w.dewp_spread, w.humid, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib,
       c.scheduled_7d, c.cancellations_7d, c.delay_mean_7d, c.delay_deviation_7d,
       t.legs_24h, t.miles_24h, t.arrival_delay_max_7d, t.last_arrival_delay,
       extract(epoch FROM t.since_last_arrival) / 60.0 AS minutes_since_arrival,
       r.arrivals_7d, r.arrival_delay_mean_7d, r.any_very_late_7d, r.arrival_delay_mean_20, r.made_up_mean_20,
       r.air_time_variance_20, r.air_time_best,
       p.seats, p.year AS plane_year
FROM (SELECT *, scheduled_departure + INTERVAL '3 hours' AS computed_at FROM spine) s
  ASOF LEFT JOIN origin_delays  o ON s.origin = o.origin AND s.computed_at >= o.event_time
  ASOF LEFT JOIN origin_weather w ON s.origin = w.origin AND s.computed_at >= w.known_at
  ASOF LEFT JOIN carrier_week   c ON s.carrier = c.carrier AND s.computed_at >= c.event_time
  ASOF LEFT JOIN tail_recent    t ON s.tailnum = t.tailnum AND s.computed_at >= t.event_time
  ASOF LEFT JOIN route_delays   r ON s.origin = r.origin AND s.dest = r.dest AND s.computed_at >= r.event_time
  LEFT JOIN planes p ON s.tailnum = p.tailnum
) TO 'train_leak.parquet' (FORMAT parquet);
