CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, tier text, tags text[], embedding real[], created_at timestamptz NOT NULL, profile text);
CREATE TABLE txn (txn_id bigint PRIMARY KEY, user_id bigint NOT NULL, amount numeric(12,2), event_ts timestamptz NOT NULL, note varchar(40), ok boolean, d date);
COMMENT ON TABLE users IS 'entity table';
COMMENT ON COLUMN users.user_id IS 'entity key';
CREATE VIEW user_txn_view AS SELECT user_id, count(*) AS n, sum(amount) AS total FROM txn GROUP BY 1;
CREATE VIEW user_features AS SELECT u.user_id, u.tier, coalesce(sum(t.amount), 0)::float8 AS spend_total, count(t.txn_id) AS txn_count, max(t.event_ts) AS last_ts FROM users u LEFT JOIN txn t USING (user_id) GROUP BY 1, 2;
COMMENT ON VIEW user_features IS 'feature view';
INSERT INTO users VALUES (1, 'user 1', 'silver', ARRAY['a','b'], ARRAY[1.5,2], '2026-01-01 00:00:00+00', '{"age": 21}'), (2, 'user 2', 'gold', ARRAY['a','b'], ARRAY[2.5,3], '2026-01-02 00:00:00+00', '{"age": 22}');
INSERT INTO txn VALUES (1, 1, 1.25, '2026-02-01 00:00:00+00', 'n1', true, '2026-02-01'), (2, 2, 2.25, '2026-02-02 00:00:00+00', 'n2', false, '2026-02-01');
