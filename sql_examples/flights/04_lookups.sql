-- A lookup reads the current row of a key: what the view's SELECT gives for it now, to the microsecond.
SELECT departures_1h, delay_mean_1h, late_share_3h, backlog_3h FROM origin_delays WHERE origin = 'JFK';

-- Several keys at once.
SELECT origin, departures_24h, delay_mean_24h, delay_max_24h FROM origin_delays WHERE origin = ANY (ARRAY['EWR', 'JFK', 'LGA']);

-- A key of two columns.
SELECT arrivals_7d, arrival_delay_mean_20, air_time_best FROM route_delays WHERE origin = 'JFK' AND dest = 'LAX';

-- A key nobody has seen has no row.
SELECT legs_24h FROM tail_recent WHERE tailnum = 'N0BODY';

-- Time since: evaluated at the reading, so it needs no event to grow.
SELECT tailnum, last_dest, last_arrival_delay, since_last_arrival FROM tail_recent WHERE tailnum = 'N328AA';

-- Everything a model wants about one flight, from several views in one round trip; expressions are computed on demand.
SELECT o.late_share_3h, w.wind_speed, w.visib, c.cancellations_7d,
       c.cancellations_7d / nullif(c.scheduled_7d, 0)::double precision AS cancelled_share_7d
FROM origin_delays o, origin_weather w, carrier_week c
WHERE o.origin = 'JFK' AND w.origin = 'JFK' AND c.carrier = 'B6';

-- A program prepares once and then only sends keys.
PREPARE plane (text) AS SELECT legs_24h, miles_24h, last_dest FROM tail_recent WHERE tailnum = $1;
EXECUTE plane ('N328AA');
EXECUTE plane ('N725MQ');
DEALLOCATE plane;
