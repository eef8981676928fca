{{ config(materialized='feature_view', meta={'ttl': '30 days', 'owner': 'ranking', 'feature_tags': ['ctr', 'realtime']}) }}
select user_id, event_time,
       count(*)   over m5 as clicks_5m,
       sum(price) over m5 as spend_5m,
       price              as last_price
from {{ ref('clicks') }}
window m5 as (partition by user_id order by event_time range between interval '5 minutes' preceding and current row)
