-- What a ranking model asks for about a user…
CREATE FEATURE VIEW user_activity AS
SELECT user_id, at,
       count(*) OVER last_10s                                       AS events_10s,
       count(*) FILTER (WHERE event = 'buy') OVER last_5m           AS buys_5m,
       sum(price) FILTER (WHERE event = 'buy') OVER last_5m         AS spent_5m,
       now() - at                                                   AS quiet_for
FROM clicks
WINDOW last_10s AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW),
       last_5m  AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW);

-- … about an item …
CREATE FEATURE VIEW item_demand AS
SELECT item_id, at,
       count(*) FILTER (WHERE event = 'view') OVER last_1m AS views_1m,
       count(*) FILTER (WHERE event = 'buy') OVER last_1m  AS buys_1m,
       avg(price) OVER last_1m                             AS mean_price_1m
FROM clicks
WINDOW last_1m AS (PARTITION BY item_id ORDER BY at RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW);

-- … and what a fraud model asks for: many purchases in a few seconds.
CREATE FEATURE VIEW user_bursts AS
SELECT user_id, at,
       count(*) OVER last_5s AS buys_5s,
       sum(price) OVER last_5s AS spent_5s
FROM clicks
WHERE event = 'buy'
WINDOW last_5s AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '5 seconds' PRECEDING AND CURRENT ROW);
