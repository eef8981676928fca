-- What every client's script finds: a stream, a table, two feature views and a plain view. The rows come from the clients.
CREATE SOURCE clicks (
  user_id BIGINT NOT NULL, price NUMERIC(10,2), page TEXT, at TIMESTAMPTZ NOT NULL,
  WATERMARK FOR at AS at - INTERVAL '1 minute'
) WITH (clock = 'event');
CREATE TABLE everything (
  id BIGINT PRIMARY KEY, flag BOOLEAN, small SMALLINT, whole INTEGER, single REAL, twice DOUBLE PRECISION,
  money NUMERIC(12,3), word TEXT, raw BYTEA, day DATE, clock TIME, naive TIMESTAMP, at TIMESTAMPTZ, gap INTERVAL,
  longs BIGINT[], words TEXT[], vector REAL[]
);
CREATE TABLE labels (user_id BIGINT, at TIMESTAMPTZ, bought BOOLEAN);
CREATE FEATURE VIEW spend AS
  SELECT user_id, at, count(*) OVER w AS clicks, sum(price) OVER w AS total, page AS last_page
  FROM clicks WINDOW w AS (PARTITION BY user_id ORDER BY at);
CREATE FEATURE VIEW pages AS
  SELECT page, user_id, at, count(*) OVER (PARTITION BY page, user_id ORDER BY at) AS views FROM clicks;
CREATE VIEW totals AS SELECT user_id, total FROM spend;
COMMENT ON FEATURE VIEW spend IS 'what a user spent';
COMMENT ON COLUMN spend.total IS 'the sum of prices';
