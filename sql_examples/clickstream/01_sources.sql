-- A topic of three partitions: JSON, one message an event. What is no JSON, has no time, or comes too late is a dead letter.
CREATE SOURCE clicks (
    user_id BIGINT NOT NULL,
    item_id BIGINT,
    event   TEXT,
    price   DOUBLE PRECISION,
    at      TIMESTAMPTZ NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '2 seconds'
) INCLUDE timestamp AS sent
  WITH (connector = 'kafka', topic = 'clicks', properties.bootstrap.server = '127.0.0.1:19192',
        json.timestamp = 'ms', json.path.user_id = 'user.id')
  FORMAT PLAIN ENCODE JSON;
