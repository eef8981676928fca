{{ config(materialized='table') }}
select l.user_id, l.at, l.bought, f.clicks_5m, f.spend_5m, f.event_time as features_at
from {{ ref('labels') }} l asof left join {{ ref('user_clicks') }} f on l.user_id = f.user_id and l.at >= f.event_time
