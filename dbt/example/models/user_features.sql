{{ config(materialized='view') }}
select user_id, clicks_5m, spend_5m from {{ ref('user_clicks') }}
